//! The watch: which alerts fire, judged from the view alone.
//!
//! An alert fires when its condition has held for its onset, and ends when the condition has been
//! gone for its tail. Onsets are short, so that an operator hears within two seconds; tails keep an
//! alert about a passing danger (two masters for one ping interval) from vanishing unread.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::alert::{Alert, AlertName};
use super::effect::Effect;
use super::fact::TablesFact;
use super::guard::Guard;
use super::identity::{Contact, Epoch, Identity, Role};
use super::moment::{Moment, earlier};
use super::settings::Settings;
use super::view::View;

/// How long an alert stays after its condition is gone.
const TAIL_MS: u64 = 10_000;
/// Promotions of either node within this time are looked at for flapping.
const FLAPPING_WINDOW_MS: u64 = 600_000;
/// So many new epochs within the window are flapping.
const FLAPPING_EPOCHS: usize = 4;

/// What is firing or about to.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    states: BTreeMap<AlertName, State>,
    failed_datasets: BTreeMap<String, String>,
    unplanned: Vec<Moment>,
    epochs_seen: Vec<(Moment, Epoch)>,
    strangers: BTreeSet<String>,
    served_before: bool,
    log_failed: Option<String>,
    disk_full: bool,
    mismatch: Option<String>,
    behind: Option<u64>,
    diverged: Option<String>,
    store_behind: Option<String>,
}

#[derive(Clone, Debug)]
struct State {
    /// Since when the condition holds; `None` while it does not.
    since: Option<Moment>,
    /// When it fires, if it still holds then.
    due: Moment,
    last_true: Moment,
    text: Cow<'static, str>,
    told: Option<Cow<'static, str>>,
}

impl Watch {
    pub(crate) fn dataset_failed(&mut self, name: &str, reason: Option<String>) {
        match reason {
            Some(reason) => self.failed_datasets.insert(name.to_owned(), reason),
            None => self.failed_datasets.remove(name),
        };
    }

    /// What the tables said that an operator must know.
    pub(crate) fn handle_tables(&mut self, fact: &TablesFact) {
        match fact {
            TablesFact::Failed { what } => self.log_failed = Some(what.clone()),
            TablesFact::DiskFull { full } => self.disk_full = *full,
            TablesFact::DigestMismatch { what } => self.mismatch.clone_from(what),
            // The text changes with the magnitude only, not with each record.
            TablesFact::Behind { records } => {
                self.behind = records.map(|n| 10_u64.pow(n.max(1).ilog10()));
            }
            TablesFact::Diverged { what } => self.diverged = Some(what.clone()),
            TablesFact::Opened { .. }
            | TablesFact::Moved { .. }
            | TablesFact::Ready { .. }
            | TablesFact::PeerCaughtUp { .. }
            | TablesFact::PeerLost { .. }
            | TablesFact::BarrierHeld { .. } => {}
        }
    }

    /// Changes may be lost by what this node did.
    pub(crate) fn diverged(&mut self, what: String) {
        self.diverged = Some(what);
    }

    /// The SQL database does not get what it should, or it does again.
    pub(crate) fn store_behind(&mut self, what: Option<String>) {
        self.store_behind = what;
    }

    /// An operator ordered what to do about it.
    pub(crate) fn divergence_settled(&mut self) {
        self.diverged = None;
    }

    /// Somebody who belongs to another pair was at the door. Bounded: a handful is enough to say.
    pub(crate) fn stranger(&mut self, who: &str) {
        if self.strangers.len() < 4 {
            self.strangers.insert(who.to_owned());
        }
    }

    /// An unplanned voluntary switch happened.
    pub(crate) fn unplanned_switch(&mut self, now: Moment) {
        self.unplanned.push(now);
    }

    /// Unplanned voluntary switches in the last hour.
    pub(crate) fn unplanned_last_hour(&self, now: Moment) -> usize {
        self.unplanned.iter().filter(|at| now.ms_since(**at) < 3_600_000).count()
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.states
            .values()
            .filter_map(|s| match (s.since, &s.told) {
                (Some(_), None) => Some(s.due),
                (None, Some(_)) => Some(s.last_true + TAIL_MS),
                (Some(_), Some(_)) | (None, None) => None,
            })
            .fold(None, |a, b| earlier(a, Some(b)))
    }

    pub(crate) fn evaluate(
        &mut self,
        settings: &Settings,
        me: &Identity,
        view: &View,
        fx: &mut Vec<Effect>,
    ) {
        self.note_epoch(view);
        for name in AlertName::ALL {
            let condition = self.condition(name, settings, me, view);
            self.step(name, view.at, condition, view.bound_ms, fx);
        }
    }

    fn step(
        &mut self,
        name: AlertName,
        now: Moment,
        condition: Option<Condition>,
        bound_ms: u64,
        fx: &mut Vec<Effect>,
    ) {
        let state = match (self.states.get_mut(&name), &condition) {
            (None, None) => return,
            (None, Some(_)) => self.states.entry(name).or_insert(State {
                since: None,
                due: now,
                last_true: now,
                text: Cow::Borrowed(""),
                told: None,
            }),
            (Some(state), _) => state,
        };
        match condition {
            Some(condition) => {
                let since = *state.since.get_or_insert(now);
                state.last_true = now;
                state.text = condition.text;
                let onset = if condition.after_bound { bound_ms } else { onset_ms(name) };
                state.due = since + onset;
                let due = now >= state.due;
                if (due || state.told.is_some()) && state.told.as_ref() != Some(&state.text) {
                    state.told = Some(state.text.clone());
                    fx.push(Effect::Alert(Alert { name, firing: Some(state.text.to_string()) }));
                }
            }
            None => {
                state.since = None;
                if state.told.is_none() {
                    self.states.remove(&name);
                } else if now >= state.last_true + TAIL_MS {
                    self.states.remove(&name);
                    fx.push(Effect::Alert(Alert { name, firing: None }));
                }
            }
        }
    }

    fn condition(
        &self,
        name: AlertName,
        settings: &Settings,
        me: &Identity,
        view: &View,
    ) -> Option<Condition> {
        match name {
            AlertName::DualMaster => dual_master(me, view),
            AlertName::NoMaster => no_master(view),
            AlertName::PeerUnreachable => peer_unreachable(settings, view),
            AlertName::CoordinatorLost => coordinator_lost(view),
            AlertName::CoordinatorOpen => coordinator_open(view),
            AlertName::EnsembleMismatch => self.ensemble_mismatch(me, view),
            AlertName::TwinNode => twin_node(me, view),
            AlertName::ClockSkew => clock_skew(settings, view),
            AlertName::DatasetFailed => self.dataset_failed_condition(),
            AlertName::Flapping => self.flapping(settings, view),
            AlertName::ReplicationBehind => self.behind.map(|records| {
                Condition::at_once(format!("the peer is {records} records or more behind"))
            }),
            AlertName::DigestMismatch => self.mismatch.clone().map(Condition::at_once),
            AlertName::Disk => self.disk(),
            AlertName::Divergence => self.diverged.clone().map(Condition::at_once),
            AlertName::StoreBehind => self.store_behind.clone().map(Condition::at_once),
        }
    }

    fn ensemble_mismatch(&self, me: &Identity, view: &View) -> Option<Condition> {
        if let Some(mismatch) = mismatch(me, view) {
            return Some(Condition::at_once(mismatch.to_string()));
        }
        if let Some(guard @ Guard::UnknownCluster { .. }) = &view.guard {
            return Some(Condition::at_once(guard.to_string()));
        }
        let stranger = self.strangers.iter().next()?;
        Some(Condition::at_once(format!(
            "a node of another pair connected to this node's peer address: {stranger}"
        )))
    }

    fn dataset_failed_condition(&self) -> Option<Condition> {
        let (name, reason) = self.failed_datasets.iter().next()?;
        Some(Condition::at_once(format!("dataset {name} could not be loaded: {reason}")))
    }

    fn disk(&self) -> Option<Condition> {
        match (&self.log_failed, self.disk_full) {
            (Some(what), _) => Some(Condition::at_once(format!(
                "the log could not be made durable ({what}): this node does not serve any more; see \
                 to the disk, then start it again"
            ))),
            (None, true) => Some(Condition::at_once(
                "the disk is full: nothing is acknowledged until there is room",
            )),
            (None, false) => None,
        }
    }

    fn flapping(&self, settings: &Settings, view: &View) -> Option<Condition> {
        let epochs = self
            .epochs_seen
            .iter()
            .filter(|(at, _)| view.at.ms_since(*at) < FLAPPING_WINDOW_MS)
            .count();
        let voluntary = self.unplanned_last_hour(view.at);
        if voluntary >= settings.switches_per_hour.max(1) as usize {
            return Some(Condition::at_once(format!(
                "the budget of {} unplanned switches an hour is used up: this node does not step \
                 down by itself any more",
                settings.switches_per_hour
            )));
        }
        (epochs >= FLAPPING_EPOCHS).then(|| {
            Condition::at_once(
                "mastership moved more than three times in ten minutes: see /why of both nodes",
            )
        })
    }

    fn note_epoch(&mut self, view: &View) {
        let newest = view.epoch;
        // The first epoch known is not a switch.
        let first = !std::mem::replace(&mut self.served_before, true);
        if first || self.epochs_seen.last().is_none_or(|(_, epoch)| *epoch < newest) {
            let at = if first { Moment(0) } else { view.at };
            self.epochs_seen.push((at, newest));
            if self.epochs_seen.len() > 16 {
                self.epochs_seen.remove(0);
            }
        }
        self.unplanned.retain(|at| view.at.ms_since(*at) < 3_600_000);
    }
}

struct Condition {
    /// Borrowed where it always reads the same: it is asked for at each step.
    text: Cow<'static, str>,
    /// Fires only once the printed bound has passed.
    after_bound: bool,
}

impl Condition {
    fn at_once(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), after_bound: false }
    }
}

/// How long a condition holds before its alert fires.
fn onset_ms(name: AlertName) -> u64 {
    match name {
        AlertName::DualMaster
        | AlertName::EnsembleMismatch
        | AlertName::TwinNode
        | AlertName::DatasetFailed
        | AlertName::Flapping
        | AlertName::ReplicationBehind
        | AlertName::DigestMismatch
        | AlertName::Disk
        | AlertName::Divergence
        | AlertName::CoordinatorOpen
        | AlertName::StoreBehind => 0,
        AlertName::NoMaster | AlertName::CoordinatorLost => 1_000,
        AlertName::PeerUnreachable | AlertName::ClockSkew => 1_500,
    }
}

fn mismatch(me: &Identity, view: &View) -> Option<Guard> {
    // What a peer said that is silent now still stands; what a dead one said does not.
    if view.peer.gone {
        return None;
    }
    Guard::mismatch(me, view.cluster, view.peer.said.as_ref()?)
}

fn dual_master(me: &Identity, view: &View) -> Option<Condition> {
    let said = view.peer.said.as_ref().filter(|_| !view.peer.gone)?;
    let peer = &said.identity.incarnation.node;
    let peer_masters = said.role == Role::Master && (said.lease_ms > 0 || said.serving);
    let we_master = view.role == Role::Master;
    // Whoever got which mastership so far: the next one may be a second one.
    if mismatch(me, view).is_some() {
        return Some(Condition::at_once(format!(
            "two coordinators may each grant a mastership to this pair: this node and {peer} do not \
             use the same ensemble and root; stop one node, mend its coordinator settings, start it"
        )));
    }
    (peer_masters && we_master && view.peer.reachable).then(|| {
        Condition::at_once(format!(
            "this node and {peer} are both master; the smaller epoch, else the larger name, yields"
        ))
    })
}

fn no_master(view: &View) -> Option<Condition> {
    let said = view.peer.said.as_ref().filter(|_| view.peer.reachable);
    let somebody = view.serving || said.is_some_and(|s| s.serving);
    if somebody {
        return None;
    }
    // A guard that will not pass by itself is told at once; else the bound is waited for.
    let blocking = view.guard.as_ref().filter(|g| !g.is_transient());
    // Somebody unseen may hold the mastership: that is no guard of ours.
    let held = view.holder.is_some();
    Some(match blocking.filter(|_| !held) {
        Some(guard) => {
            Condition::at_once(format!("nobody serves; this node does not take over: {guard}"))
        }
        None => Condition {
            text: "nobody is seen to serve for longer than a switch should take: see /why of \
                   both nodes"
                .into(),
            after_bound: true,
        },
    })
}

fn peer_unreachable(settings: &Settings, view: &View) -> Option<Condition> {
    let text = "the peer does not answer pings: check that it runs, and peer.address on both nodes";
    (settings.peer && !view.peer.reachable).then(|| match &view.troubles.link {
        Some(why) => Condition::at_once(format!("there is no link to the peer: {why}")),
        None => Condition::at_once(text),
    })
}

fn coordinator_lost(view: &View) -> Option<Condition> {
    if let Some(guard @ Guard::Barred { .. }) = &view.guard {
        return Some(Condition::at_once(guard.to_string()));
    }
    let text = "no contact with ZooKeeper: check coordinator.zookeeper.servers and the network";
    (view.contact != Contact::Connected).then(|| match &view.troubles.coordinator {
        Some(why) => Condition::at_once(format!("{text}; {why}")),
        None => Condition::at_once(text),
    })
}

fn coordinator_open(view: &View) -> Option<Condition> {
    view.troubles.open_znodes.as_ref().map(|what| Condition::at_once(what.to_string()))
}

fn twin_node(me: &Identity, view: &View) -> Option<Condition> {
    if let Some(guard @ Guard::Twin { .. }) = &view.guard {
        return Some(Condition::at_once(guard.to_string()));
    }
    let said = view.peer.said.as_ref()?;
    let same_name = said.identity.incarnation.node == me.incarnation.node;
    same_name.then(|| {
        Condition::at_once(format!(
            "the peer calls itself {} as well: give one of the two another `node` name",
            me.incarnation.node
        ))
    })
}

fn clock_skew(settings: &Settings, view: &View) -> Option<Condition> {
    let offset = view.peer.clock_offset_ms?;
    (offset.unsigned_abs() > settings.clock_skew_ms_max).then(|| {
        Condition::at_once(format!(
            "the wall clocks of the two nodes are about {} s apart: check their time service",
            (offset.unsigned_abs() + 500) / 1_000
        ))
    })
}
