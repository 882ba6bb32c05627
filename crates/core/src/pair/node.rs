//! One node's deciding: election, peer detector, role machine and watch behind one handle.
//!
//! Methods are of four kinds: looks (`view`, `deadline`), facts (`handle`), the passing of time
//! (`handle_timeout`), and nothing else. Each call appends effects, to be carried out in order.
//!
//! The operator's orders stand in `orders`, the planned switch in `switching`.
//!
//! Two things come before any fact is considered: our own stall, and the end of our lease.

mod orders;
mod switching;

use std::sync::Arc;

use super::clock::ClockOffset;
use super::detector::Detector;
use super::effect::{Effect, ZooKeeperRequest};
use super::election::Election;
use super::fact::{Answer, DialFailure, Fact, TablesFact, ZooKeeperEvent, ZooKeeperFact};
use super::guard::Guard;
use super::holdings::Holdings;
use super::identity::{Contact, Epoch, Identity, Role, Statement};
use super::moment::{Moment, earlier};
use super::reason::{Event, Reason};
use super::role::{RoleMachine, Wish};
use super::settings::{CoordinatorKind, Settings};
use super::standing::{Holder, Standing};
use super::switchover::{Switchover, SwitchoverPhase};
use super::sync::SyncKeeper;
use super::troubles::Troubles;
use super::view::{PeerView, View};
use super::watch::Watch;
use orders::Orders;

/// How long the end of the process waits for an epoch to be given back.
const EXIT_MS_MAX: u64 = 2_000;
/// How long registering waits before it is tried again.
const REGISTER_RETRY_MS: u64 = 200;

/// A node's deciding. See the file's header.
#[derive(Debug)]
pub struct Node {
    settings: Arc<Settings>,
    me: Arc<Identity>,
    detector: Detector,
    election: Election,
    holdings: Holdings,
    sync: SyncKeeper,
    role: RoleMachine,
    watch: Watch,
    clock: ClockOffset,
    troubles: Troubles,
    orders: Orders,
    /// Whom the tables were told to follow.
    following: Option<Epoch>,
    register: Option<RegisterRetry>,
    exit_at: Option<Moment>,
    exited: bool,
    /// What the journal heard last, so that it hears each change once.
    told: Told,
    /// When this should have been called at the latest.
    due: Option<Moment>,
    wishes: Vec<Wish>,
}

#[derive(Debug)]
struct RegisterRetry {
    epoch: Epoch,
    at: Moment,
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    guard: Option<Guard>,
    contact: Option<Contact>,
    holder: Option<ToldHolder>,
    reachable: bool,
    gone: bool,
    role: Option<Role>,
    serving: bool,
    left: Epoch,
    cluster_known: bool,
    /// The peer is told of a guard.
    guard_said: bool,
}

/// The standing without what changes with each heartbeat.
#[derive(Debug, PartialEq)]
enum ToldHolder {
    Elected(Epoch),
    Holds(Holder),
    Nobody,
    Silent,
}

impl std::fmt::Display for ToldHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Elected(epoch) => write!(f, "elected in epoch {epoch}"),
            Self::Holds(h) => write!(f, "{} holds the mastership in epoch {}", h.node, h.epoch),
            Self::Nobody => f.write_str("nobody holds the mastership"),
            Self::Silent => f.write_str("the coordinator says nothing"),
        }
    }
}

impl Node {
    /// A node that just started. Call `handle_timeout` once to get its first effects.
    #[must_use]
    pub fn new(now: Moment, settings: Settings, me: Identity) -> Self {
        let settings = Arc::new(settings);
        let me = Arc::new(me);
        Self {
            detector: Detector::new(now, settings.clone()),
            election: Election::new(now, settings.clone(), me.clone()),
            holdings: Holdings::default(),
            sync: SyncKeeper::new(settings.clone(), me.clone()),
            role: RoleMachine::new(now, settings.clone()),
            watch: Watch::default(),
            clock: ClockOffset::default(),
            troubles: Troubles::default(),
            orders: Orders::default(),
            following: None,
            register: None,
            exit_at: None,
            exited: false,
            told: Told::default(),
            due: None,
            wishes: Vec::new(),
            settings,
            me,
        }
    }

    // --- looks

    /// When `handle_timeout` is to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let mut next = earlier(self.detector.deadline(), self.election.deadline());
        next = earlier(next, self.role.deadline());
        next = earlier(next, self.watch.deadline());
        next = earlier(next, self.orders.deadline());
        next = earlier(next, self.sync.deadline());
        next = earlier(next, self.register.as_ref().map(|r| r.at));
        earlier(next, self.exit_at)
    }

    /// What this node says of itself now.
    #[must_use]
    pub fn statement(&self, now: Moment) -> Statement {
        say(&self.me, &self.election, &self.holdings, &self.role, now)
    }

    /// Everything that may be looked at.
    #[must_use]
    pub fn view(&self, now: Moment) -> View {
        let phases = self.role.phases().to_vec();
        let serves = self.role.serving(now);
        let switchover_refusal = serves.then(|| self.switchover_refusal(now)).flatten();
        View { phases, switchover_refusal, ..self.view_without_phases(now) }
    }

    /// What the watch looks at, at each step.
    fn view_without_phases(&self, now: Moment) -> View {
        let standing = self.election.standing(now);
        let heard = self.detector.heard();
        View {
            at: now,
            role: self.role_shown(),
            serving: self.role.serving(now),
            epoch: self.role.epoch().unwrap_or(self.election.seen()),
            left: self.election.left(),
            phase: self.role.phase(),
            phases: Vec::new(),
            switching: self.orders.switchover.as_ref().map(Switchover::step),
            switchover_refusal: None,
            switchover_limits: SwitchoverPhase::limits(&self.settings),
            since: self.role.since(),
            reason: self.role.reason().clone(),
            lease_until: match &standing {
                Standing::Elected { until, .. } => Some(*until),
                Standing::Passed { .. } | Standing::Silent => None,
            },
            contact: self.election.contact(),
            cluster: self.election.cluster(),
            session_timeout_ms: self.election.session_timeout_ms(),
            holder: match standing {
                Standing::Passed { holder } => holder.map(|h| h.node),
                Standing::Elected { .. } | Standing::Silent => None,
            },
            guard: self.election.guard().cloned(),
            troubles: self.troubles.clone(),
            in_sync: self.in_sync(),
            peer: PeerView {
                reachable: self.detector.reachable(),
                gone: self.detector.gone().is_some(),
                unanswered: self.detector.unanswered(),
                said: heard.map(|h| h.statement.clone()),
                said_at: heard.map(|h| h.at),
                clock_offset_ms: self.clock.offset_ms(),
            },
            bound_ms: self.bound_ms(),
        }
    }

    /// A node that is alone stands by for nobody.
    fn role_shown(&self) -> Role {
        let alone = self.settings.coordinator == CoordinatorKind::Standalone;
        match self.role.role() {
            Role::Standby if alone && (self.exited || self.exit_at.is_some()) => Role::Demoting,
            Role::Standby if alone => Role::Promoting,
            role @ (Role::Standby | Role::Promoting | Role::Master | Role::Demoting) => role,
        }
    }

    fn in_sync(&self) -> Option<bool> {
        if !self.settings.tables {
            return None;
        }
        let election = self.election.zookeeper()?;
        match self.role.role() {
            Role::Standby => election.named(),
            Role::Promoting | Role::Master | Role::Demoting => self.sync.in_sync(),
        }
    }

    /// The longest time without a master that one failure should cost: the session's expiry at the
    /// server's next tick (half a session at most), the pings, and a second for the promotion.
    #[must_use]
    pub fn bound_ms(&self) -> u64 {
        let session = self.election.session_timeout_ms().unwrap_or(4_000);
        let pings = u64::from(self.settings.ping_count) * self.settings.ping_interval_ms
            + self.settings.ping_timeout_ms;
        session + session / 2 + pings + 1_000
    }

    // --- facts and time

    /// Takes a fact, appends what is to be done.
    pub fn handle(&mut self, now: Moment, fact: Fact, fx: &mut Vec<Effect>) {
        self.begin(now, fx);
        self.dispatch(now, fact, fx);
        self.settle(now, fx);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        self.begin(now, fx);
        let (me, election, held, role) = (&self.me, &self.election, &self.holdings, &self.role);
        self.detector.handle_timeout(now, &|| say(me, election, held, role, now), fx);
        self.role.handle_timeout(now, &mut self.wishes, fx);
        self.settle(now, fx);
    }

    fn dispatch(&mut self, now: Moment, fact: Fact, fx: &mut Vec<Effect>) {
        match fact {
            Fact::ZooKeeper(fact) => self.handle_zookeeper(now, fact, fx),
            Fact::LinkOpened { statement } => {
                self.troubles.link = None;
                self.detector.handle_link_opened(now, statement);
            }
            Fact::DialFailed { how } => {
                // Nobody is there who could be at odds with us.
                if !matches!(how, DialFailure::Rejected | DialFailure::EndedEarly) {
                    self.troubles.link = None;
                }
                self.detector.handle_dial_failed(now, how);
            }
            Fact::LinkEnded { how } => self.detector.handle_link_ended(now, how),
            Fact::PingAnswered { number, statement } => {
                self.detector.handle_ping_answered(now, number, statement);
            }
            Fact::PeerAsked { connection, number, statement } => {
                self.detector.handle_peer_asked(now, statement);
                let statement = self.statement(now);
                fx.push(Effect::AnswerPeer { connection, number, statement });
            }
            Fact::StrangerMet { who } => self.watch.stranger(&who),
            Fact::LinkTroubled { what } => {
                if !self.detector.reachable() {
                    self.troubles.link = Some(what.into());
                }
            }
            Fact::ClockMeasured { offset_ms, round_trip_ms } => {
                self.clock.measured(offset_ms, round_trip_ms);
            }
            Fact::GateOpened { epoch } => self.handle_gate_opened(now, epoch, fx),
            Fact::Tables(fact) => self.handle_tables(now, fact, fx),
            Fact::PromoteOrdered { order, accept_data_loss } => {
                self.handle_promote(now, order, accept_data_loss, fx);
            }
            Fact::AdoptOrdered { order } => self.handle_adopt(order, fx),
            Fact::Drained { epoch, hold } => {
                self.role.handle_drained(now, epoch, hold, &mut self.wishes, fx);
                self.switch_drained(now, epoch, hold, fx);
            }
            Fact::Registered { epoch, .. } => self.role.handle_registered(now, epoch, fx),
            Fact::DatasetsSettled { epoch, .. } => {
                self.role.handle_datasets_settled(now, epoch, fx);
            }
            Fact::PromotionFailed { epoch, what } => {
                self.role.handle_promotion_failed(now, epoch, what, &mut self.wishes, fx);
            }
            Fact::ServingStalled { for_ms } => self.handle_serving_stalled(now, for_ms, fx),
            Fact::DatasetFailed { name, reason } => self.watch.dataset_failed(&name, reason),
            Fact::StoreBehind { what } => self.watch.store_behind(what),
            Fact::SwitchoverOrdered { order } => self.handle_switchover(now, order, fx),
            Fact::ShutdownOrdered => self.handle_shutdown(now, fx),
        }
    }

    /// What comes before everything else: our own stall, and the end of our lease.
    fn begin(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let lease_ms = self.election.session_timeout_ms().unwrap_or(4_000) * 2 / 3;
        let stalled = self.due.is_some_and(|due| now.ms_since(due) > lease_ms / 2);
        if let Some(due) = self.due.filter(|_| stalled) {
            self.role.handle_stall(fx);
            self.election.note_stall(now);
            self.detector.forget_silence(now);
            self.clock.forget();
            fx.push(Effect::Record(Event::Stalled { for_ms: now.ms_since(due) }));
        }
        // At the end of a lease the gate closes first, then all else is done about it.
        let mut later = Vec::new();
        self.election.expire(now, &mut later);
        self.follow(now, fx);
        fx.append(&mut later);
        if stalled {
            self.switch_stalled(now, fx); // what is still ours
        }
    }

    fn follow(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let standing = self.election.standing(now);
        let lost = self.election.take_lost();
        let was_master = self.role.epoch().is_some();
        self.role.follow(now, &standing, lost, fx);
        if was_master && self.role.epoch().is_none() {
            self.holdings.stood_down();
        }
        self.sync.follow(self.election.fence());
    }

    /// Lets every machine take the steps that the others' news allow.
    fn settle(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        self.yield_to_peer(now, fx);
        self.advance_switchover(now, fx);
        // What the role gave up is resigned before the role looks at its standing again, else it
        // would find itself still elected in the epoch that it just left.
        self.grant_wishes(now, fx);
        self.follow(now, fx);
        // What is to be done about the tables comes before the claim.
        let mut later = Vec::new();
        self.election.advance(now, &self.detector, &self.holdings, &mut later);
        self.instruct_tables(fx);
        fx.append(&mut later);
        self.follow(now, fx);
        self.keep_sync_record(now, fx);
        self.retry_register(now, fx);
        self.settle_orders(now, fx);
        self.settle_exit(now, fx);
        self.tell(now, fx);
        let view = self.view_without_phases(now);
        self.watch.evaluate(&self.settings, &self.me, &view, fx);
        self.due = self.deadline();
    }

    fn handle_zookeeper(&mut self, now: Moment, fact: ZooKeeperFact, fx: &mut Vec<Effect>) {
        let registered = match &fact.what {
            ZooKeeperEvent::RegisterAnswered { epoch, entries, answer } => {
                Some((*epoch, *entries, *answer))
            }
            ZooKeeperEvent::SessionEnded { reason } | ZooKeeperEvent::ConnectFailed { reason } => {
                fx.push(Effect::Record(Event::CoordinatorChanged { text: reason.clone() }));
                self.troubles.coordinator = Some(reason.as_str().into());
                None
            }
            ZooKeeperEvent::SessionOpened { .. } | ZooKeeperEvent::Reconnected => {
                self.troubles.coordinator = None;
                None
            }
            ZooKeeperEvent::Exposed { what } => {
                self.troubles.open_znodes = what.as_deref().map(Into::into);
                None
            }
            _ => None,
        };
        if let Some(election) = self.election.zookeeper()
            && election.hears(fact.generation)
        {
            match &fact.what {
                ZooKeeperEvent::Looked { picture } => self.sync.handle_picture(now, picture),
                ZooKeeperEvent::SyncWritten { epoch, answer } => {
                    self.sync.handle_written(now, *epoch, *answer);
                }
                _ => {} // the election's own
            }
        }
        let handed_over = match &fact.what {
            ZooKeeperEvent::HandedOver { epoch, answer } => Some((*epoch, *answer)),
            ZooKeeperEvent::Resigned { epoch, .. } => {
                self.switch_resigned(now, *epoch);
                None
            }
            _ => None,
        };
        let mut later = Vec::new();
        self.election.handle(now, fact, &mut later);
        self.follow(now, fx);
        fx.append(&mut later);
        if let Some((epoch, answer)) = handed_over {
            self.switch_handed_over(now, epoch, answer, fx);
        }
        match registered {
            Some((epoch, _, Answer::Done { .. })) => self.role.handle_registered(now, epoch, fx),
            // Refused by the epoch: the election has seen to it. Else: again in a moment.
            Some((epoch, _, Answer::Ambiguous | Answer::Refused(_))) => {
                self.register = Some(RegisterRetry { epoch, at: now + REGISTER_RETRY_MS });
            }
            None => {}
        }
    }

    fn handle_gate_opened(&mut self, now: Moment, epoch: Epoch, fx: &mut Vec<Effect>) {
        if let Standing::Elected { until, .. } = self.election.standing(now) {
            self.role.handle_gate_opened(now, epoch, until, &mut self.wishes, fx);
        }
    }

    fn handle_serving_stalled(&mut self, now: Moment, for_ms: u64, fx: &mut Vec<Effect>) {
        let budget = self.settings.switches_per_hour as usize;
        let allowed = self.watch.unplanned_last_hour(now) < budget;
        if self.role.role() == Role::Master
            && for_ms > self.settings.serving_stall_ms_max
            && allowed
            && self.peer_refusal().is_none()
        {
            self.watch.unplanned_switch(now);
            self.role.step_down(now, Reason::ServingStalled { for_ms }, &mut self.wishes, fx);
        }
    }

    // --- the end

    fn handle_shutdown(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if self.exit_at.is_none() {
            self.exit_at = Some(now + EXIT_MS_MAX);
            self.election.close();
            self.role.step_down(now, Reason::Shutdown, &mut self.wishes, fx);
        }
    }

    fn settle_exit(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let Some(at) = self.exit_at else { return };
        let at_rest = self.role.role() == Role::Standby && self.election.at_rest();
        if self.exited || !at_rest && now < at {
            return;
        }
        // Too late for the rest of the drain; the gate closes all the same, and is seen to.
        self.role.drop_mastership(now, Reason::Shutdown, &mut self.wishes, fx);
        self.grant_wishes(now, fx);
        self.instruct_tables(fx);
        self.exited = true;
        self.exit_at = None;
        self.end_switchover(now, fx);
        fx.push(Effect::Exit);
    }

    // --- the tables

    fn handle_tables(&mut self, now: Moment, fact: TablesFact, fx: &mut Vec<Effect>) {
        self.holdings.handle(&fact);
        self.watch.handle_tables(&fact);
        match fact {
            TablesFact::Opened { seen, .. } => self.election.note_seen(seen),
            TablesFact::Ready { epoch } => {
                if let Standing::Elected { until, .. } = self.election.standing(now) {
                    self.role.handle_ready(now, epoch, until, fx);
                }
            }
            TablesFact::PeerCaughtUp { epoch, peer } => {
                self.sync.handle_caught_up(now, epoch, peer);
            }
            TablesFact::PeerLost { epoch, loss } => self.sync.handle_lost(epoch, loss),
            TablesFact::BarrierHeld { epoch, hold, number } => {
                self.switch_barrier_held(now, epoch, (hold, number), fx);
            }
            TablesFact::Failed { what } => {
                let reason = Reason::LogFailed { what };
                self.role.drop_mastership(now, reason, &mut self.wishes, fx);
            }
            TablesFact::Moved { .. }
            | TablesFact::DiskFull { .. }
            | TablesFact::DigestMismatch { .. }
            | TablesFact::Behind { .. }
            | TablesFact::Diverged { .. } => {}
        }
    }

    /// Tells the tables what to remember, and whom to follow.
    fn instruct_tables(&mut self, fx: &mut Vec<Effect>) {
        if !self.settings.tables {
            return;
        }
        if let Some(election) = self.election.zookeeper()
            && let Some(cluster) = election.cluster()
        {
            let elected = election.fence().is_some();
            self.holdings.meet(cluster, elected || election.named() == Some(true));
        }
        self.holdings.remember(self.election.seen(), fx);
        let master = self.master_to_follow();
        if master != self.following {
            self.following = master;
            fx.push(Effect::Follow { master });
        }
    }

    /// The peer, while it is master in an epoch that is not over as far as is known here. Also while
    /// it drains: what it still acknowledges is to be had.
    fn master_to_follow(&self) -> Option<Epoch> {
        let election = self.election.zookeeper()?;
        if self.role.role() != Role::Standby || election.claiming() || !self.holdings.opened() {
            return None;
        }
        let said = &self.detector.heard()?.statement;
        let masters = match said.role {
            Role::Master | Role::Promoting | Role::Demoting => true,
            Role::Standby => false,
        };
        let follows = masters
            && self.detector.gone().is_none()
            && (said.epoch >= election.seen() || said.epoch == election.current())
            && said.epoch > election.left()
            && self.holdings.belongs_to(said.cluster)
            && Guard::mismatch(&self.me, election.cluster(), said).is_none();
        follows.then_some(said.epoch)
    }

    fn keep_sync_record(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if let Some(text) = self.election.take_divergence() {
            self.watch.diverged(text);
        }
        let connected = self.election.contact() == Contact::Connected;
        if let Some(write) = self.sync.advance(now, &self.detector, connected, fx) {
            self.election.order(write, fx);
        }
        if self.sync.wants_look()
            && let Some(election) = self.election.zookeeper_mut()
        {
            election.look_now(now, fx);
        }
    }

    // --- between the machines

    fn grant_wishes(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        for wish in std::mem::take(&mut self.wishes) {
            match wish {
                Wish::Resign => self.election.resign(fx),
                Wish::HoldOff { ms } => self.election.hold_off(now + ms),
                Wish::Register { epoch } => self.register = Some(RegisterRetry { epoch, at: now }),
            }
        }
    }

    fn retry_register(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let Some(RegisterRetry { epoch, .. }) = self.register.take_if(|r| now >= r.at) else {
            return;
        };
        if self.settings.coordinator == CoordinatorKind::Standalone {
            self.role.handle_registered(now, epoch, fx); // there is no registry
            return;
        }
        let fence = self.election.fence().filter(|fence| fence.epoch == epoch);
        match fence.map(|fence| fence.epoch_version) {
            Some(epoch_version) if self.election.contact() == Contact::Connected => {
                self.election.order(ZooKeeperRequest::Register { epoch, epoch_version }, fx);
            }
            Some(_) => {
                self.register = Some(RegisterRetry { epoch, at: now + REGISTER_RETRY_MS });
            }
            None => {} // lost meanwhile
        }
    }

    /// Two masters seen over the link: the smaller epoch yields, else the larger name.
    fn yield_to_peer(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let (Role::Master | Role::Promoting | Role::Demoting, Some(ours)) =
            (self.role.role(), self.role.epoch())
        else {
            return;
        };
        let Some(heard) = self.detector.heard().filter(|_| self.detector.reachable()) else {
            return;
        };
        let said = &heard.statement;
        let peer = &said.identity.incarnation.node;
        if said.role != Role::Master || said.lease_ms == 0 || said.identity.pair != self.me.pair {
            return;
        }
        let reason = if said.epoch > ours {
            Reason::PeerHasLargerEpoch { epoch: said.epoch }
        } else if said.epoch == ours && *peer < self.me.incarnation.node {
            Reason::YieldsToPeer { peer: peer.clone() }
        } else {
            return;
        };
        // The gate closes before the epoch is given back.
        let mut given_back = Vec::new();
        self.election.depose(reason, &mut given_back);
        self.follow(now, fx);
        fx.append(&mut given_back);
    }

    /// Tells the journal what changed, and the peer at once what it would want to know.
    fn tell(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let holder = match self.election.standing(now) {
            Standing::Elected { epoch, .. } => ToldHolder::Elected(epoch),
            Standing::Passed { holder: Some(holder) } => ToldHolder::Holds(holder),
            Standing::Passed { holder: None } => ToldHolder::Nobody,
            Standing::Silent => ToldHolder::Silent,
        };
        let new = Told {
            // Moments inside guards move; their kind is what the journal is told.
            guard: self.election.guard().cloned(),
            contact: Some(self.election.contact()),
            holder: Some(holder),
            reachable: self.detector.reachable(),
            gone: self.detector.gone().is_some(),
            role: Some(self.role.role()),
            serving: self.role.serving(now),
            left: self.election.left(),
            cluster_known: self.election.cluster().is_some(),
            guard_said: guard_said(&self.election).is_some(),
        };
        if new == self.told {
            if self.election.take_answer_wish() {
                self.ping_now(now, fx);
            }
            return;
        }
        let old = std::mem::replace(&mut self.told, new);
        record_changes(self.settings.coordinator, &old, &self.told, fx);
        let news = old.role != self.told.role
            || old.serving != self.told.serving
            || old.left != self.told.left
            || old.contact != self.told.contact
            || old.cluster_known != self.told.cluster_known
            || old.guard_said != self.told.guard_said;
        if self.election.take_answer_wish() || news {
            self.ping_now(now, fx);
        }
    }

    fn ping_now(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let (me, election, held, role) = (&self.me, &self.election, &self.holdings, &self.role);
        self.detector.ping_now(now, &|| say(me, election, held, role, now), fx);
    }
}

fn say(
    me: &Arc<Identity>,
    election: &Election,
    held: &Holdings,
    role: &RoleMachine,
    now: Moment,
) -> Statement {
    Statement {
        identity: me.clone(),
        cluster: election.cluster(),
        role: role.role(),
        serving: role.serving(now),
        epoch: role.epoch().unwrap_or(election.seen()),
        left: election.left(),
        lease_ms: election.lease_ms_possible(now),
        contact: election.contact(),
        position: held.position(),
        complete: held.complete(),
        guard: guard_said(election).map(|guard| guard.to_string().into()),
    }
}

/// What the peer is told of what would keep this node from claiming.
fn guard_said(election: &Election) -> Option<&Guard> {
    election.guard().filter(|guard| !guard.is_masters_to_know())
}

fn record_changes(coordinator: CoordinatorKind, old: &Told, new: &Told, fx: &mut Vec<Effect>) {
    if coordinator == CoordinatorKind::ZooKeeper
        && old.contact != new.contact
        && let Some(contact) = new.contact
    {
        let text = format!("contact with ZooKeeper: {contact}");
        fx.push(Effect::Record(Event::CoordinatorChanged { text }));
    }
    if old.holder != new.holder
        && let Some(holder) = &new.holder
    {
        let text = holder.to_string();
        fx.push(Effect::Record(Event::StandingChanged { text }));
    }
    let text = |guard: &Option<Guard>| guard.as_ref().map(ToString::to_string);
    if text(&old.guard) != text(&new.guard) {
        fx.push(Effect::Record(Event::Guarded { guard: text(&new.guard) }));
    }
    if (old.reachable, old.gone) != (new.reachable, new.gone) {
        let text = match (new.reachable, new.gone) {
            (true, _) => "the peer answers",
            (false, true) => "the peer's process is gone",
            (false, false) => "the peer does not answer",
        };
        fx.push(Effect::Record(Event::PeerChanged { text: text.to_owned() }));
    }
}
