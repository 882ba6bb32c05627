//! The rules, checked at every step of the storm and in the calm after it.
//!
//! Being able to act means: an open gate, and the node's clock before the end of its lease. Every
//! node that may act at a step does act, and each receiver remembers the largest epoch it took.

use std::collections::{BTreeMap, BTreeSet};

use hotpair_core::pair::alert::AlertName;
use hotpair_core::pair::effect::{Effect, ZooKeeperOrder, ZooKeeperRequest};
use hotpair_core::pair::fact::SyncZnode;
use hotpair_core::pair::identity::{Epoch, Role};
use hotpair_core::tables::position::History;

use super::clock::{MS, Micros};
use super::outcome::{Rule, Violation};
use super::plan::Residue;
use super::world::{Event, NAMES, Stage, World};

/// Orders numbered from here on are promotions.
pub(crate) const PROMOTIONS: u64 = 1 << 32;
/// Requests to ZooKeeper that a node may send in a second, in the storm and in the calm.
const ORDERS_A_SECOND: (u32, u32) = (300, 60);
/// Times that a node may want to be woken in half a second.
const WAKES_MAX: u32 = 500;
/// How long the one that serves must go on, and a session more.
const STAYS: Micros = 3_000 * MS;
/// How often the calm is looked at.
const CALM_STEP: Micros = 250 * MS;
/// How long until alerts of what is over have ended: their tail, and a little.
const QUIET: Micros = 13_000 * MS;
/// What no_master may take beyond the bound, and until the peer's last word is known to be old.
const ALARM: Micros = 4_000 * MS;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) violation: Option<Violation>,
    pub(crate) elections: u32,
    /// Acts refused because the receiver knew a larger epoch, of nodes that are excused.
    pub(crate) refused: u32,
    pub(crate) darkest: Micros,
    pub(crate) residue_host: usize,
    /// The epoch that an operator ordered away from this host.
    pub(crate) ordered: [Option<Epoch>; 2],
    /// What clients were told is done, to its last record.
    pub(crate) acknowledged: History,
    /// Epochs claimed while an operator accepted that something may be lost.
    pub(crate) waived: BTreeSet<Epoch>,
    /// Who entered an epoch: host and life.
    owners: BTreeMap<Epoch, (usize, u64)>,
    /// Epochs left, by life.
    left: BTreeSet<(u64, Epoch)>,
    /// Epochs that were handed over, by what the servers hold.
    handed_over: BTreeSet<Epoch>,
    /// The largest epoch that a client took.
    accepted: Epoch,
    /// The largest epoch that something was registered for.
    registered: Epoch,
    dark_since: Micros,
    /// Since when a host's process, this life of it, runs without a break.
    watching_since: [Option<(u64, Micros)>; 2],
    serving: Option<(usize, Epoch)>,
    /// In the calm: who serves, in which epoch, since when without a break.
    steady_since: Option<(usize, Epoch, Micros)>,
    /// When it must have been so for long enough.
    deadline: Micros,
    orders: [(u64, u32); 2],
    /// Time-outs that a host's node was called for since the last probe.
    pub(crate) wakes: [u32; 2],
}

impl World {
    pub(crate) fn violated(&mut self, rule: Rule, text: String) {
        if self.checker.violation.is_none() {
            self.note(None, format_args!("!!! {rule:?}: {text}"));
            let at_ms = self.now / MS;
            self.checker.violation = Some(Violation { rule, at_ms, text });
        }
    }

    // --- at every step

    pub(crate) fn check_step(&mut self) {
        let may = [self.hosts[0].may_act(self.now), self.hosts[1].may_act(self.now)];
        let excused = |w: &Self, h: usize| w.now < w.hosts[h].excused_until;
        if let [Some(a), Some(b)] = may
            && !excused(self, 0)
            && !excused(self, 1)
        {
            self.violated(
                Rule::OneWriter,
                format!("a may act in epoch {a} while b may act in epoch {b}"),
            );
        }
        for (host, epoch) in may.into_iter().enumerate() {
            let Some(epoch) = epoch else { continue };
            self.checker.dark_since = self.now;
            if epoch >= self.checker.accepted {
                self.checker.accepted = epoch;
            } else if excused(self, host) {
                self.checker.refused += 1;
            } else {
                let accepted = self.checker.accepted;
                let name = NAMES[host];
                let text = format!("{name} acts in epoch {epoch} after an act in epoch {accepted}");
                self.violated(Rule::EpochsGoBack, text);
            }
        }
    }

    /// Looks at a decision, before anything of it is carried out.
    pub(crate) fn check_decision(&mut self, host: usize, fx: &[Effect]) {
        for effect in fx {
            match effect {
                Effect::CloseGate { epoch } => {
                    let clock = self.hosts[host].clock.moment(self.now);
                    let process = self.process(host).expect("it just decided");
                    let s = process.node.statement(clock);
                    // A gate closed while the role goes on is closed for a stall only.
                    if s.role != Role::Master || s.epoch != *epoch {
                        let life = process.life;
                        self.checker.left.insert((life, *epoch));
                    }
                }
                Effect::ZooKeeper(ZooKeeperOrder {
                    what: ZooKeeperRequest::Claim { epoch, .. },
                    ..
                }) if self.hosts[host].waived => {
                    self.checker.waived.insert(*epoch);
                }
                Effect::OpenGate { epoch, .. } => {
                    let life = self.process(host).expect("it just decided").life;
                    if self.checker.left.contains(&(life, *epoch)) {
                        let name = NAMES[host];
                        let text = format!("{name} enters epoch {epoch} again, which it had left");
                        self.violated(Rule::EpochLeft, text);
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn check_exit(&mut self, host: usize) {
        if let Some(epoch) = self.hosts[host].may_act(self.now) {
            let text = format!("{} ends while it may act in epoch {epoch}", NAMES[host]);
            self.violated(Rule::EndsClosed, text);
        }
    }

    pub(crate) fn check_opened(&mut self, host: usize, epoch: Epoch) {
        let life = self.process(host).expect("effects belong to a process").life;
        let (name, clock) = (NAMES[host], self.hosts[host].clock.moment(self.now));
        self.note(Some(host), format_args!("gate opens in epoch {epoch} ({clock})"));
        self.check_admitted(host, epoch);
        match self.checker.owners.get(&epoch) {
            None => {
                self.checker.elections += 1;
                self.checker.owners.insert(epoch, (host, life));
            }
            Some(owner) if *owner == (host, life) => {}
            Some((other, other_life)) => {
                let other = NAMES[*other];
                let text = format!(
                    "{name} (life {life}) enters epoch {epoch}, which {other} (life {other_life}) \
                     had entered"
                );
                self.violated(Rule::EpochOneLife, text);
            }
        }
    }

    /// The servers hold that this epoch is the peer's to end: its gate is empty, and stays so.
    pub(crate) fn check_handed_over(&mut self, epoch: Epoch) {
        self.checker.handed_over.insert(epoch);
        for (host, name) in NAMES.iter().enumerate() {
            let gate = self.process(host).and_then(|process| process.gate);
            let Some(gate) = gate.filter(|gate| gate.epoch == epoch) else { continue };
            let empty = gate.held.flatten().is_some_and(|since| since <= self.now);
            if !empty && self.now >= self.hosts[host].excused_until {
                let text = format!("{name} handed epoch {epoch} over with requests inside");
                self.violated(Rule::HandoverStands, text);
            }
        }
    }

    /// Requests are let in, in this epoch.
    pub(crate) fn check_admitted(&mut self, host: usize, epoch: Epoch) {
        if self.checker.handed_over.contains(&epoch) {
            let name = NAMES[host];
            let text = format!("{name} lets requests in after epoch {epoch} was handed over");
            self.violated(Rule::HandoverStands, text);
        }
    }

    pub(crate) fn check_registered(&mut self, epoch: Epoch) {
        let before = self.checker.registered;
        if epoch < before {
            let text = format!("registered for epoch {epoch} after epoch {before}");
            self.violated(Rule::RegistryFence, text);
        }
        self.checker.registered = before.max(epoch);
    }

    pub(crate) fn order_finished(&mut self, host: usize, order: u64, done: bool) {
        if order >= PROMOTIONS {
            self.hosts[host].waived = false;
            return;
        }
        let Some(ordered) = self.checker.ordered[host] else { return };
        if !done {
            return;
        }
        let peer_served =
            self.checker.owners.iter().any(|(e, (owner, _))| *e > ordered && *owner != host);
        let still = self.hosts[host].may_act(self.now) == Some(ordered);
        if !peer_served || still {
            let name = NAMES[host];
            let text = format!("{name} says that the switchover away from epoch {ordered} is done");
            self.violated(Rule::OrderKept, text);
        }
    }

    // --- now and then

    pub(crate) fn probe(&mut self) {
        self.after(500 * MS, Event::Probe);
        self.checker.darkest = self.checker.darkest.max(self.now - self.checker.dark_since);
        for host in 0..2 {
            self.probe_alarm(host);
            self.probe_orders(host);
        }
    }

    fn probe_alarm(&mut self, host: usize) {
        let h = &self.hosts[host];
        if h.process.is_none() || h.pause.is_some() || h.clock.moment(self.now).0 == 0 {
            self.checker.watching_since[host] = None;
            return;
        }
        let life = self.process(host).expect("seen above").life;
        let since = match self.checker.watching_since[host] {
            Some((same, since)) if same == life => since,
            Some(_) | None => self.now,
        };
        self.checker.watching_since[host] = Some((life, since));
        let since = since.max(self.checker.dark_since);
        // Without a session the node reckons with four seconds.
        let session = self.plan.timeout.max(4_000 * MS);
        let s = &self.plan.settings;
        let pings = u64::from(s.ping_count) * s.ping_interval_ms + s.ping_timeout_ms;
        let bound = session * 3 / 2 + (pings + 1_000) * MS;
        let firing = &self.process(host).expect("seen above").firing;
        if self.now > since + bound + ALARM && !firing.contains(&AlertName::NoMaster) {
            let text = format!(
                "nobody could act for {} ms, and {} does not alarm no_master",
                (self.now - since) / MS,
                NAMES[host]
            );
            self.violated(Rule::NoMasterAlarmed, text);
        }
    }

    fn probe_orders(&mut self, host: usize) {
        let wakes = std::mem::take(&mut self.checker.wakes[host]);
        if wakes > WAKES_MAX {
            let name = NAMES[host];
            let text = format!("{name} wanted to be woken {wakes} times in half a second");
            self.violated(Rule::NoLivelock, text);
        }
        let Some(p) = self.process(host) else { return };
        let (life, orders) = (p.life, p.client.orders);
        let (life_before, before) =
            std::mem::replace(&mut self.checker.orders[host], (life, orders));
        let calm = self.checker.serving.is_some();
        let most = if calm { ORDERS_A_SECOND.1 } else { ORDERS_A_SECOND.0 } / 2;
        if life == life_before && orders - before > most {
            let text = format!(
                "{} sent {} requests to ZooKeeper in half a second",
                NAMES[host],
                orders - before
            );
            self.violated(Rule::NoLivelock, text);
        }
    }

    pub(crate) fn check_coverage(&mut self) {
        let planned = self.plan.enabled;
        for fault in super::fault::Fault::ALL {
            if planned[fault.index()] && self.storm.happened[fault.index()] == 0 {
                self.violated(Rule::Coverage, format!("{fault:?} was planned and did not happen"));
            }
        }
        let (held, least) = (self.checker.elections, self.options.elections_min);
        if held < least {
            self.violated(Rule::Coverage, format!("{held} elections, fewer than {least}"));
        }
    }

    // --- in the calm

    /// Begins to wait for what must be so within the bound, and stay so.
    pub(crate) fn begin_calm(&mut self, stage: Stage) {
        self.checker.serving = None;
        self.checker.steady_since = None;
        self.checker.deadline = self.now + self.bound() + self.stays();
        self.after(CALM_STEP, Event::CalmChecked { stage });
    }

    pub(crate) fn check_calm(&mut self, stage: Stage) {
        match stage {
            Stage::Settles => {
                if self.is_steady(stage) {
                    self.leave_residue();
                    self.begin_calm(Stage::ResidueServes);
                }
            }
            Stage::ResidueServes => {
                if self.is_steady(stage) {
                    self.plan.residue = Residue::None;
                    self.note(None, format_args!("=== all healed"));
                    self.heal_everything();
                    self.begin_calm(Stage::Serves);
                }
            }
            Stage::Serves => {
                if self.is_steady(stage) {
                    let since = self.checker.steady_since.map_or(self.now, |(_, _, since)| since);
                    let wait = (since + QUIET).saturating_sub(self.now);
                    self.after(wait, Event::CalmChecked { stage: Stage::Quiet });
                }
            }
            Stage::Quiet => {
                self.check_stays();
                if let Some((host, _)) = self.checker.serving
                    && let Some(text) = self.not_standing_by(host)
                {
                    self.violated(Rule::StandsBy, text);
                }
                if let Some((host, _)) = self.checker.serving
                    && let Some(text) = self.not_in_sync(host)
                {
                    self.violated(Rule::InSync, text);
                }
                self.check_quiet();
                self.over = true;
            }
        }
    }

    /// How long one must serve without a break: long enough that a lease of before would be over.
    fn stays(&self) -> Micros {
        STAYS + self.plan.timeout
    }

    /// True once the same node has served alone for long enough; else this is asked again soon.
    fn is_steady(&mut self, stage: Stage) -> bool {
        let server = self.sole_server(stage);
        let trouble = match server {
            Ok((host, _)) if stage == Stage::Serves => self.not_standing_by(host),
            Ok((host, _)) if stage == Stage::Settles => self.not_in_sync(host),
            Ok(_) | Err(_) => None,
        };
        let now = self.now;
        self.checker.steady_since = match (&server, self.checker.steady_since) {
            (Err(_), _) => None,
            (Ok(_), _) if trouble.is_some() => None,
            (Ok((host, epoch)), Some((h, e, since))) if (*host, *epoch) == (h, e) => {
                Some((h, e, since))
            }
            (Ok((host, epoch)), _) => Some((*host, *epoch, now)),
        };
        if let Some((host, epoch, since)) = self.checker.steady_since
            && now >= since + self.stays()
        {
            self.checker.serving = Some((host, epoch));
            return true;
        }
        if now > self.checker.deadline && stage == Stage::ResidueServes && self.is_blocked() {
            self.note(None, format_args!("the healthy node is not in sync, and must not serve"));
            return true;
        }
        if now > self.checker.deadline {
            match (server, trouble) {
                (_, Some(text)) => self.violated(Rule::StandsBy, text),
                (Err(text), None) => self.violated(Rule::Serves, text),
                (Ok((host, epoch)), None) => {
                    let text = format!("{} serves epoch {epoch} too late", NAMES[host]);
                    self.violated(Rule::Serves, text);
                }
            }
        }
        self.after(CALM_STEP, Event::CalmChecked { stage });
        false
    }

    /// The last word of a master, that the other is not in sync, was still on its way.
    fn is_blocked(&self) -> bool {
        let Some(healthy) = self.process(1 - self.checker.residue_host) else { return false };
        let me = &healthy.identity.incarnation;
        let named = |sync: &SyncZnode| sync.members.contains(me);
        self.plan.settings.tables && !self.ensemble.head.sync.as_ref().is_some_and(named)
    }

    /// The one node that may act, if it should.
    fn sole_server(&self, stage: Stage) -> Result<(usize, Epoch), String> {
        let may = [self.hosts[0].may_act(self.now), self.hosts[1].may_act(self.now)];
        let residue = self.plan.residue;
        let settled = stage != Stage::Settles;
        match may {
            [Some(epoch), None] => Ok((0, epoch)),
            [None, Some(epoch)] => Ok((1, epoch)),
            [None, None] | [Some(_), Some(_)] => Err(()),
        }
        .and_then(|(host, epoch)| {
            let cut_off =
                settled && residue == Residue::ZooKeeperCut && host == self.checker.residue_host;
            if cut_off { Err(()) } else { Ok((host, epoch)) }
        })
        .map_err(|()| {
            let why: Vec<String> = (0..2)
                .filter_map(|h| {
                    let clock = self.hosts[h].clock.moment(self.now);
                    let view = self.process(h)?.node.view(clock);
                    Some(format!("{}: {} guard {:?}", NAMES[h], view.role, view.guard))
                })
                .collect();
            let bound = self.bound() / MS;
            let why = why.join("; ");
            format!("no healthy node serves {bound} ms after all was healed but {residue:?}; {why}")
        })
    }

    fn check_stays(&mut self) {
        let Some((host, epoch)) = self.checker.serving else { return };
        if self.hosts[host].may_act(self.now) != Some(epoch) {
            let text =
                format!("{} served epoch {epoch} in the calm and does no longer", NAMES[host]);
            self.violated(Rule::Stays, text);
        }
    }

    /// What is wrong with the other node while this one serves.
    fn not_standing_by(&self, host: usize) -> Option<String> {
        let view = |h: usize| {
            let clock = self.hosts[h].clock.moment(self.now);
            self.process(h).map(|p| p.node.view(clock))
        };
        let (Some(serving), Some(other)) = (view(host), view(1 - host)) else {
            return Some("a process did not come back".to_owned());
        };
        let sees = other.holder.as_ref().is_some_and(|h| h.as_str() == NAMES[host]);
        if other.role != Role::Standby || !sees {
            return Some(format!(
                "{} is {} and sees {:?}",
                NAMES[1 - host],
                other.role,
                other.holder
            ));
        }
        (!serving.peer.reachable || !other.peer.reachable).then(|| "the link is not up".to_owned())
    }

    /// What keeps the other node from taking over with everything while this one serves.
    pub(crate) fn not_in_sync(&self, host: usize) -> Option<String> {
        if !self.plan.settings.tables {
            return None;
        }
        for h in [host, 1 - host] {
            let clock = self.hosts[h].clock.moment(self.now);
            let known = self.process(h).map(|p| p.node.view(clock).in_sync);
            if known != Some(Some(true)) {
                let (name, sync) = (NAMES[h], &self.ensemble.head.sync);
                return Some(format!("{name} says in sync: {known:?}; the record: {sync:?}"));
            }
        }
        None
    }

    fn check_quiet(&mut self) {
        for (host, name_of_host) in NAMES.iter().enumerate() {
            let Some(p) = self.process(host) else { continue };
            let over = p.firing.iter().find(|name| match name {
                AlertName::DualMaster
                | AlertName::NoMaster
                | AlertName::EnsembleMismatch
                | AlertName::TwinNode
                | AlertName::CoordinatorLost
                | AlertName::PeerUnreachable => true,
                AlertName::ClockSkew
                | AlertName::DatasetFailed
                | AlertName::Flapping
                | AlertName::ReplicationBehind
                | AlertName::DigestMismatch
                | AlertName::CoordinatorOpen
                | AlertName::Disk
                | AlertName::Divergence
                | AlertName::StoreBehind => false,
            });
            if let Some(name) = over.copied() {
                let text = format!("{name_of_host} still alarms {name}");
                self.violated(Rule::QuietAlerts, text);
            }
        }
    }
}
