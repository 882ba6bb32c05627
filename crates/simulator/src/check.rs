//! The rules, checked at every step of the storm and in the calm after it.
//!
//! Being able to act means: an open gate, and the node's clock before the end of its lease. Every
//! node that may act at a step does act, and each receiver remembers the largest epoch it took.

use std::collections::{BTreeMap, BTreeSet};

use hotpair_core::pair::alert::AlertName;
use hotpair_core::pair::effect::Effect;
use hotpair_core::pair::identity::{Epoch, Role};

use super::clock::{MS, Micros};
use super::outcome::{Rule, Violation};
use super::plan::Residue;
use super::world::{Event, NAMES, Stage, World};

/// Requests to ZooKeeper that a node may send in a second, in the storm and in the calm.
const ORDERS_A_SECOND: (u32, u32) = (300, 60);
/// Times that a node may want to be woken in half a second.
const WAKES_MAX: u32 = 500;
/// How long the one that serves must go on.
const STAYS: Micros = 3_000 * MS;
/// How long until alerts of what is over have ended: their tail, and a little.
const QUIET: Micros = 12_000 * MS;
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
    /// Who entered an epoch: host and life.
    owners: BTreeMap<Epoch, (usize, u64)>,
    /// Epochs left, by life.
    left: BTreeSet<(u64, Epoch)>,
    /// The largest epoch that a client took.
    accepted: Epoch,
    /// The largest epoch that something was registered for.
    registered: Epoch,
    dark_since: Micros,
    /// Since when a host's process, this life of it, runs without a break.
    watching_since: [Option<(u64, Micros)>; 2],
    serving: Option<(usize, Epoch)>,
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

    pub(crate) fn check_opened(&mut self, host: usize, epoch: Epoch) {
        let life = self.process(host).expect("effects belong to a process").life;
        let (name, clock) = (NAMES[host], self.hosts[host].clock.moment(self.now));
        self.note(Some(host), format_args!("gate opens in epoch {epoch} ({clock})"));
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

    pub(crate) fn check_registered(&mut self, epoch: Epoch) {
        let before = self.checker.registered;
        if epoch < before {
            let text = format!("registered for epoch {epoch} after epoch {before}");
            self.violated(Rule::RegistryFence, text);
        }
        self.checker.registered = before.max(epoch);
    }

    pub(crate) fn switchover_finished(&mut self, host: usize, outcome: &Result<(), String>) {
        let Some(ordered) = self.checker.ordered[host] else { return };
        if outcome.is_err() {
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

    pub(crate) fn check_calm(&mut self, stage: Stage) {
        match stage {
            Stage::ResidueServes => {
                self.check_serves();
                self.after(STAYS, Event::CalmChecked { stage: Stage::ResidueStays });
            }
            Stage::ResidueStays => {
                self.check_stays();
                self.checker.serving = None;
                self.plan.residue = Residue::None;
                self.note(None, format_args!("=== all healed"));
                self.heal_everything();
                self.after(self.bound(), Event::CalmChecked { stage: Stage::Serves });
            }
            Stage::Serves => {
                self.check_serves();
                self.check_stands_by();
                self.after(STAYS, Event::CalmChecked { stage: Stage::Stays });
            }
            Stage::Stays => {
                self.check_stays();
                self.check_stands_by();
                self.after(QUIET - STAYS, Event::CalmChecked { stage: Stage::Quiet });
            }
            Stage::Quiet => {
                self.check_stays();
                self.check_stands_by();
                self.check_quiet();
                self.over = true;
            }
        }
    }

    fn check_serves(&mut self) {
        let may = [self.hosts[0].may_act(self.now), self.hosts[1].may_act(self.now)];
        self.checker.serving = match may {
            [Some(epoch), None] => Some((0, epoch)),
            [None, Some(epoch)] => Some((1, epoch)),
            _ => None,
        };
        if self.checker.serving.is_none() {
            let why: Vec<String> = (0..2)
                .filter_map(|h| {
                    let clock = self.hosts[h].clock.moment(self.now);
                    let view = self.process(h)?.node.view(clock);
                    Some(format!("{}: {} guard {:?}", NAMES[h], view.role, view.guard))
                })
                .collect();
            let bound = self.bound() / MS;
            let residue = self.plan.residue;
            let text = format!(
                "nobody may act {bound} ms after all was healed but {residue:?}; {}",
                why.join("; ")
            );
            self.violated(Rule::Serves, text);
        }
        let cut_off = self.plan.residue == Residue::ZooKeeperCut;
        if cut_off && self.checker.serving.is_some_and(|(h, _)| h == self.checker.residue_host) {
            self.violated(
                Rule::Serves,
                "the node that is cut off from ZooKeeper serves".to_owned(),
            );
        }
    }

    fn check_stays(&mut self) {
        let Some((host, epoch)) = self.checker.serving else { return };
        if self.hosts[host].may_act(self.now) != Some(epoch) {
            let text =
                format!("{} served epoch {epoch} in the calm and does no longer", NAMES[host]);
            self.violated(Rule::Stays, text);
        }
    }

    fn check_stands_by(&mut self) {
        let Some((host, _)) = self.checker.serving else { return };
        let other = 1 - host;
        let views: Vec<_> = (0..2)
            .filter_map(|h| {
                let clock = self.hosts[h].clock.moment(self.now);
                self.process(h).map(|p| p.node.view(clock))
            })
            .collect();
        let [first, second] = views.as_slice() else {
            self.violated(Rule::StandsBy, "a process did not come back".to_owned());
            return;
        };
        let view = if other == 0 { first } else { second };
        let sees = view.holder.as_ref().is_some_and(|h| h.as_str() == NAMES[host]);
        if view.role != Role::Standby || !sees {
            let text = format!("{} is {} and sees {:?}", NAMES[other], view.role, view.holder);
            self.violated(Rule::StandsBy, text);
        }
        // Fair weather may lose a ping, hardly three in a row.
        if !first.peer.reachable || !second.peer.reachable {
            self.violated(Rule::StandsBy, "the link is not up".to_owned());
        }
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
                | AlertName::PeerUnreachable
                | AlertName::DatasetFailed => true,
                AlertName::ClockSkew | AlertName::Flapping => false,
            });
            if let Some(name) = over.copied() {
                let text = format!("{name_of_host} still alarms {name}");
                self.violated(Rule::QuietAlerts, text);
            }
        }
    }
}
