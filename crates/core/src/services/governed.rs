//! A server of other people as a pair of members, of which one is active: which one, and since when.
//!
//! The members know nothing of each other or of us. While this node serves, both are checked at an
//! interval; connections are led to the active one. What is decided is first written down in a
//! replicated row and only then done, so that the next master goes on with the same active member.
//!
//! ```text
//!                    passed                            written
//!   none active ──────────────▶ being written ───────────────────────▶ X active
//!    (primary first; the standby    ▲                                     │
//!     only if the primary is down)  └── X down and the other one up ──────┤
//!                                   └── an operator's order ──────────────┘
//!
//!   health of a member:  unknown ── 1 passed ──▶ up ── 3 failed in a row ──▶ down ── 1 passed ──▶ up
//!                                └─ 3 failed in a row ─────────────────────▲
//! ```
//!
//! There is no way back by itself: a member that is up again waits until the other one is down, or
//! until an operator says so. With both down nothing changes. So a member that comes and goes costs a
//! switch at most once each time that the active one fails three times in a row.

mod choice;

use std::fmt;

use thiserror::Error;

pub use self::choice::{Address, AddressError, Choice, ChoiceError, Members, Side};
use crate::pair::Moment;

/// So many failed checks in a row are a member that is down.
pub const FAILED_MAX: u32 = 3;

/// What a service is governed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GovernedSettings {
    /// The members as configured.
    pub members: Members,
    /// How often each member is checked, and how long a check may take. Short intervals switch
    /// sooner, also away from a member that is only slow.
    pub interval_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// This node serves from now on; what the row says, if there is one.
    MastershipBegan {
        /// What was decided last.
        recorded: Option<Choice>,
    },
    /// This node does not serve any more.
    MastershipEnded,
    /// A check found its member well.
    CheckPassed {
        /// Which.
        check: u64,
    },
    /// A check did not.
    CheckFailed {
        /// Which.
        check: u64,
        /// What went wrong.
        why: String,
    },
    /// An operator wants something else.
    Ordered {
        /// What it is answered by.
        order: u64,
        /// What is wanted.
        change: Change,
    },
    /// A choice is on both nodes, as far as configured.
    Recorded {
        /// Which.
        record: u64,
    },
    /// It is not, and will not be.
    NotRecorded {
        /// Which.
        record: u64,
        /// Why.
        why: String,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look whether a server is well. What is not told within the interval counts as failed.
    Check {
        /// Comes back with the result.
        check: u64,
        /// Where.
        address: Address,
    },
    /// Write this down, replicated.
    Record {
        /// Comes back with the result.
        record: u64,
        /// What.
        choice: Choice,
    },
    /// Lead new connections there and cut all that lead elsewhere; none: let none in.
    Route {
        /// Where.
        to: Option<Address>,
    },
    /// An order is done or refused.
    Answer {
        /// Which.
        order: u64,
        /// What was done, or why not.
        outcome: Result<Choice, OrderRefused>,
    },
}

/// What an operator wants; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Another primary.
    pub primary: Option<Address>,
    /// Another standby.
    pub standby: Option<Address>,
    /// Which is to be active, after the members have changed.
    pub active: Option<Wanted>,
    /// Also a member that is not known to be up.
    pub force: bool,
}

/// A member as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By its place.
    Side(Side),
    /// By its address.
    Address(Address),
}

/// Why an order was not carried out. Nothing was changed, except where it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OrderRefused {
    /// Only who serves governs.
    #[error("this node does not serve; order it at the node that does")]
    NotServing,
    /// One after the other.
    #[error("another change of this service is being written; order it again in a moment")]
    BeingWritten,
    /// Two members must be two.
    #[error("primary and standby would both be {0}")]
    Alike(Address),
    /// A member that is none.
    #[error("active = {wanted}: the members are {primary} and {standby}")]
    NoMember {
        /// What was wanted.
        wanted: Address,
        /// A member.
        primary: Address,
        /// The other one.
        standby: Address,
    },
    /// The active member would not be one any more.
    #[error(
        "{0} is active and would be a member no more; make the other one active first, or force"
    )]
    ActiveReplaced(Address),
    /// It is down, or nobody knows yet.
    #[error("the {side} ({address}) is {health}; with force it becomes active all the same")]
    NotUp {
        /// Which.
        side: Side,
        /// Where.
        address: Address,
        /// What it is.
        health: Health,
    },
    /// It could not be written down.
    #[error("the change could not be written: {0}")]
    NotRecorded(String),
    /// It may have been written down: the next master knows.
    #[error("this node stopped serving meanwhile; look at the other one for what became of it")]
    Ended,
}

/// What is known of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Too few checks.
    #[default]
    Unknown,
    /// The last check passed, or too few failed since.
    Up,
    /// Several checks in a row failed, and none passed since.
    Down,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// Why the active member is the active one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It passed the first check.
    FirstUp,
    /// The other one was down when nothing was decided yet.
    OtherDownAtFirst,
    /// The other one was active and failed.
    OtherFailed {
        /// Which that was.
        other: Side,
        /// What its last check said.
        why: String,
    },
    /// An operator's order.
    Ordered,
    /// It was active when this node began to serve.
    Resumed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstUp => f.write_str("the primary was the first choice and up"),
            Self::OtherDownAtFirst => f.write_str("the primary was down when it began"),
            Self::OtherFailed { other, why } => write!(f, "the {other} failed: {why}"),
            Self::Ordered => f.write_str("an operator ordered it"),
            Self::Resumed => f.write_str("it was active when this node began to serve"),
        }
    }
}

/// What is known of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its health.
    pub health: Health,
    /// Since when it has that.
    pub since: Moment,
    /// Checks that ended, since this node serves.
    pub checks: u64,
    /// Failed ones since the last that passed.
    pub failed: u32,
    /// What the last failed one said; none after one that passed.
    pub why: Option<String>,
}

#[derive(Clone, Debug)]
struct Member {
    view: MemberView,
    /// When it is checked next; a check under way is given up then.
    next: Moment,
    under_way: Option<u64>,
}

impl Member {
    fn new(now: Moment) -> Self {
        let view =
            MemberView { health: Health::Unknown, since: now, checks: 0, failed: 0, why: None };
        Self { view, next: now, under_way: None }
    }

    fn passed(&mut self, now: Moment) {
        self.view.checks += 1;
        (self.view.failed, self.view.why) = (0, None);
        self.become_health(now, Health::Up);
    }

    fn failed(&mut self, now: Moment, why: String) {
        self.view.checks += 1;
        self.view.failed = self.view.failed.saturating_add(1);
        self.view.why = Some(why);
        if self.view.failed >= FAILED_MAX {
            self.become_health(now, Health::Down);
        }
    }

    fn become_health(&mut self, now: Moment, health: Health) {
        if self.view.health != health {
            (self.view.health, self.view.since) = (health, now);
        }
    }
}

/// A choice on its way to the tables.
#[derive(Clone, Debug)]
struct Pending {
    record: u64,
    choice: Choice,
    /// None: why the active one is active has not changed.
    cause: Option<Cause>,
    order: Option<u64>,
}

/// One service. See the file's header.
#[derive(Debug)]
pub struct Governed {
    settings: GovernedSettings,
    governing: bool,
    choice: Choice,
    cause: Option<Cause>,
    since: Moment,
    primary: Member,
    standby: Member,
    pending: Option<Pending>,
    /// What kept the last choice from being written; none after one that was.
    trouble: Option<String>,
    /// Where connections lead.
    routed: Option<Address>,
    /// Numbers of checks and records, never used twice.
    numbers: u64,
}

impl Governed {
    /// A service nobody has looked at yet.
    #[must_use]
    pub fn new(now: Moment, settings: GovernedSettings) -> Self {
        Self {
            choice: Choice::first(settings.members.clone()),
            settings,
            governing: false,
            cause: None,
            since: now,
            primary: Member::new(now),
            standby: Member::new(now),
            pending: None,
            trouble: None,
            routed: None,
            numbers: 0,
        }
    }

    // --- looks

    /// The members as configured.
    #[must_use]
    pub fn configured(&self) -> &Members {
        &self.settings.members
    }

    /// Whether this node looks after it.
    #[must_use]
    pub fn is_governing(&self) -> bool {
        self.governing
    }

    /// What was decided last and is written down.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Since when the active one is, as this node saw it.
    #[must_use]
    pub fn since(&self) -> Moment {
        self.since
    }

    /// What is known of a member.
    #[must_use]
    pub fn member(&self, side: Side) -> &MemberView {
        &self.at(side).view
    }

    /// Why things are as they are, in a sentence.
    #[must_use]
    pub fn why(&self) -> String {
        if !self.governing {
            return "this node does not serve".to_owned();
        }
        if let Some(pending) = &self.pending {
            let active = pending.choice.active.map_or("none".to_owned(), |side| side.to_string());
            return format!("a change is being written: active = {active}");
        }
        if let Some(trouble) = &self.trouble {
            return format!("the last change could not be written: {trouble}");
        }
        let cause = self.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        match self.choice.active {
            None if self.both_down() => "both members are down, and none was active yet".to_owned(),
            None => "the primary is still being checked".to_owned(),
            Some(active) if self.both_down() => {
                format!("both members are down: the {active} stays active; {cause}")
            }
            Some(active) if self.choice.held => {
                format!("the {active} is held active by force until it was up once; {cause}")
            }
            Some(_) => cause,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.governing.then(|| self.primary.next.min(self.standby.next))
    }

    fn both_down(&self) -> bool {
        [&self.primary, &self.standby].iter().all(|member| member.view.health == Health::Down)
    }

    fn health(&self, side: Side) -> Health {
        self.at(side).view.health
    }

    fn at(&self, side: Side) -> &Member {
        match side {
            Side::Primary => &self.primary,
            Side::Standby => &self.standby,
        }
    }

    fn at_mut(&mut self, side: Side) -> &mut Member {
        match side {
            Side::Primary => &mut self.primary,
            Side::Standby => &mut self.standby,
        }
    }

    // --- what happens

    /// Something happened.
    pub fn handle(&mut self, now: Moment, fact: Fact, fx: &mut Vec<Effect>) {
        match fact {
            Fact::MastershipBegan { recorded } => self.begin(now, recorded, fx),
            Fact::MastershipEnded => self.end(now, fx),
            Fact::CheckPassed { check } => {
                if let Some(member) = self.checked(check) {
                    member.passed(now);
                }
            }
            Fact::CheckFailed { check, why } => {
                if let Some(member) = self.checked(check) {
                    member.failed(now, why);
                }
            }
            Fact::Ordered { order, change } => match self.ordered(&change) {
                Ok(choice) => self.carry_out_order(order, choice, fx),
                Err(refused) => fx.push(Effect::Answer { order, outcome: Err(refused) }),
            },
            Fact::Recorded { record } => {
                if let Some(pending) = self.pending.take_if(|pending| pending.record == record) {
                    self.adopt(now, pending, fx);
                }
            }
            Fact::NotRecorded { record, why } => {
                if let Some(pending) = self.pending.take_if(|pending| pending.record == record) {
                    self.trouble = Some(why.clone());
                    if let Some(order) = pending.order {
                        let outcome = Err(OrderRefused::NotRecorded(why));
                        fx.push(Effect::Answer { order, outcome });
                    }
                    // What is decided by itself is decided again at the next check, not at once: a
                    // disk without room must not be asked in a circle.
                    return;
                }
            }
        }
        self.decide(fx);
    }

    /// Time has passed: whoever is due is checked; a check that is still under way by then has
    /// failed.
    pub fn handle_timeout(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if !self.governing {
            return;
        }
        let interval_ms = self.settings.interval_ms;
        for side in [Side::Primary, Side::Standby] {
            if now < self.at(side).next {
                continue;
            }
            if self.at_mut(side).under_way.take().is_some() {
                self.at_mut(side).failed(now, format!("no answer within {interval_ms} ms"));
            }
            let check = self.number();
            let address = self.choice.members.at(side).clone();
            let member = self.at_mut(side);
            (member.under_way, member.next) = (Some(check), now + interval_ms);
            fx.push(Effect::Check { check, address });
        }
        self.decide(fx);
    }

    fn begin(&mut self, now: Moment, recorded: Option<Choice>, fx: &mut Vec<Effect>) {
        if self.governing {
            // The end in between was too short to be noticed; whatever is under way belongs to it.
            self.end(now, fx);
        }
        self.governing = true;
        self.cause = recorded.as_ref().and(Some(Cause::Resumed));
        self.choice = recorded.unwrap_or_else(|| Choice::first(self.settings.members.clone()));
        self.trouble = None;
        self.since = now;
        self.primary = Member::new(now);
        self.standby = Member::new(now);
        self.route(fx);
        self.handle_timeout(now, fx);
    }

    fn end(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        self.governing = false;
        self.primary = Member::new(now);
        self.standby = Member::new(now);
        if let Some(order) = self.pending.take().and_then(|pending| pending.order) {
            fx.push(Effect::Answer { order, outcome: Err(OrderRefused::Ended) });
        }
        self.route(fx);
    }

    /// The member that a check was about; none if the check is not awaited any more.
    fn checked(&mut self, check: u64) -> Option<&mut Member> {
        let members = [&mut self.primary, &mut self.standby];
        members.into_iter().find_map(|member| {
            member.under_way.take_if(|under_way| *under_way == check).map(|_| member)
        })
    }

    /// What an order would make of the service, if it may.
    fn ordered(&self, change: &Change) -> Result<Choice, OrderRefused> {
        if !self.governing {
            return Err(OrderRefused::NotServing);
        }
        if self.pending.is_some() {
            return Err(OrderRefused::BeingWritten);
        }
        let now = &self.choice.members;
        let members = Members {
            primary: change.primary.as_ref().unwrap_or(&now.primary).clone(),
            standby: change.standby.as_ref().unwrap_or(&now.standby).clone(),
        };
        if members.primary == members.standby {
            return Err(OrderRefused::Alike(members.primary));
        }
        let was = self.choice.active_address();
        // Members that change places stay what they are: active is a server, not a place.
        let stays = was.and_then(|address| members.side_of(address));
        let Some(wanted) = &change.active else {
            return match (was, stays) {
                (Some(was), None) if !change.force => {
                    Err(OrderRefused::ActiveReplaced(was.clone()))
                }
                (Some(_), None) => Ok(Choice { members, active: self.choice.active, held: true }),
                (_, active) => Ok(Choice { members, active, held: self.choice.held }),
            };
        };
        let side = match wanted {
            Wanted::Side(side) => *side,
            Wanted::Address(address) => {
                members.side_of(address).ok_or_else(|| OrderRefused::NoMember {
                    wanted: address.clone(),
                    primary: members.primary.clone(),
                    standby: members.standby.clone(),
                })?
            }
        };
        let address = members.at(side).clone();
        let health = now.side_of(&address).map_or(Health::Unknown, |known| self.health(known));
        let is_up = health == Health::Up;
        if !is_up && !change.force && stays != Some(side) {
            return Err(OrderRefused::NotUp { side, address, health });
        }
        let held = if stays == Some(side) { self.choice.held } else { !is_up };
        let held = held || (change.force && !is_up);
        Ok(Choice { members, active: Some(side), held })
    }

    fn carry_out_order(&mut self, order: u64, choice: Choice, fx: &mut Vec<Effect>) {
        if choice == self.choice {
            fx.push(Effect::Answer { order, outcome: Ok(choice) });
            return;
        }
        let moved = choice.active_address() != self.choice.active_address();
        self.propose(choice, moved.then_some(Cause::Ordered), Some(order), fx);
    }

    /// What is to be changed by itself, if anything.
    fn decide(&mut self, fx: &mut Vec<Effect>) {
        if !self.governing || self.pending.is_some() {
            return;
        }
        let (primary, standby) = (self.health(Side::Primary), self.health(Side::Standby));
        let (active, cause) = match self.choice.active {
            None => match (primary, standby) {
                (Health::Up, _) => (Side::Primary, Some(Cause::FirstUp)),
                (Health::Down, Health::Up) => (Side::Standby, Some(Cause::OtherDownAtFirst)),
                (Health::Unknown, _) | (Health::Down, Health::Unknown | Health::Down) => return,
            },
            Some(active) => match (self.health(active), self.health(active.other())) {
                (Health::Up, _) if self.choice.held => (active, None),
                // A last check that failed may be the first of a server that died with the other.
                (Health::Down, Health::Up)
                    if !self.choice.held && self.member(active.other()).failed == 0 =>
                {
                    let why = self.member(active).why.clone().unwrap_or_default();
                    (active.other(), Some(Cause::OtherFailed { other: active, why }))
                }
                (Health::Unknown | Health::Up | Health::Down, _) => return,
            },
        };
        let choice = Choice { active: Some(active), held: false, ..self.choice.clone() };
        self.propose(choice, cause, None, fx);
    }

    fn propose(
        &mut self,
        choice: Choice,
        cause: Option<Cause>,
        order: Option<u64>,
        fx: &mut Vec<Effect>,
    ) {
        assert!(self.pending.is_none(), "one change at a time");
        let record = self.number();
        fx.push(Effect::Record { record, choice: choice.clone() });
        self.pending = Some(Pending { record, choice, cause, order });
    }

    /// A choice is written down: now it counts.
    fn adopt(&mut self, now: Moment, pending: Pending, fx: &mut Vec<Effect>) {
        let Pending { choice, cause, order, .. } = pending;
        assert!(self.governing, "what is pending goes with the mastership");
        // What is known of a server goes with its address; what is under way for a place does not.
        let known = [Side::Primary, Side::Standby].map(|side| {
            match self.choice.members.side_of(choice.members.at(side)) {
                Some(before) => self.at(before).clone(),
                None => Member::new(now),
            }
        });
        [self.primary, self.standby] = known;
        self.choice = choice;
        self.trouble = None;
        if let Some(cause) = cause {
            (self.cause, self.since) = (Some(cause), now);
        }
        self.route(fx);
        if let Some(order) = order {
            fx.push(Effect::Answer { order, outcome: Ok(self.choice.clone()) });
        }
    }

    fn route(&mut self, fx: &mut Vec<Effect>) {
        let to = self.choice.active_address().filter(|_| self.governing).cloned();
        if to != self.routed {
            self.routed.clone_from(&to);
            fx.push(Effect::Route { to });
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

#[cfg(test)]
mod tests;
