//! Faults begin and heal here.
//!
//! A fault that cannot happen right now (the process it is meant for is already dead) is tried
//! again a little later. If one has not happened at the storm's end, the storm is made longer.

use hotpair_core::pair::fact::{Fact, TablesFact};

use super::check::PROMOTIONS;
use super::clock::{MS, Micros};
use super::fault::Fault;
use super::host::Pause;
use super::plan::Residue;
use super::world::{Event, Stage, World};

/// How often the storm is made longer for a fault that has not happened yet.
const EXTENSIONS_MAX: u32 = 20;

/// Faults last up to three sessions, but a long session does not make them last for ever.
const SESSION_MAX: Micros = 5_000 * MS;

/// What happened of what was planned.
#[derive(Debug)]
pub(crate) struct Storm {
    pub(crate) happened: [u32; Fault::ALL.len()],
    pub(crate) over: bool,
    /// Counts how often everything was healed.
    pub(crate) round: u32,
    /// The clients keep what they had under way when their connection breaks.
    pub(crate) keeps_requests: bool,
    extensions: u32,
    orders: u64,
}

impl Storm {
    pub(crate) fn new() -> Self {
        Self {
            happened: [0; Fault::ALL.len()],
            over: false,
            round: 0,
            keeps_requests: false,
            extensions: 0,
            orders: 0,
        }
    }

    pub(crate) fn happened(&mut self, fault: Fault) {
        self.happened[fault.index()] += 1;
    }
}

/// The end of a fault, or of its first part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heal {
    Start { host: usize },
    Resume { host: usize },
    Link,
    Reject,
    Weather,
    ZooKeeper { host: usize },
    Slow,
    Break,
    Isolate { host: usize },
    Follower { server: usize },
    Lag,
    Hang,
    Up,
    Ambiguous,
    Promotions,
    Redo,
    Restart { host: usize },
}

impl World {
    pub(crate) fn start_fault(&mut self, planned: usize) {
        if self.storm.over {
            return;
        }
        let fault = self.plan.faults[planned].fault;
        if self.try_fault(fault) {
            self.note(None, format_args!("--- {fault:?}"));
        } else {
            let wait = self.rng.u64(100 * MS..600 * MS);
            self.after(wait, Event::Fault { planned });
        }
    }

    /// False: not now.
    fn try_fault(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Kill
            | Fault::QuickRestart
            | Fault::Shutdown
            | Fault::HostDeath
            | Fault::ShortPause
            | Fault::LongPause
            | Fault::Suspend
            | Fault::UncountedPause
            | Fault::WallJump => self.fault_at_host(fault),
            Fault::LinkCut
            | Fault::LinkCutOneWay
            | Fault::Reject
            | Fault::Weather
            | Fault::LinkBroken => self.fault_at_link(fault),
            Fault::ZooKeeperCut
            | Fault::ZooKeeperUnreachable
            | Fault::Isolated
            | Fault::ConnectionMoved
            | Fault::SlowZooKeeper
            | Fault::AmbiguousAnswers
            | Fault::LateRequests
            | Fault::ClaimAnswerLost
            | Fault::SessionExpired
            | Fault::ZnodeDeleted => self.fault_at_session(fault),
            Fault::FollowerCut
            | Fault::FollowerLag
            | Fault::LeaderChange
            | Fault::LeaderHang
            | Fault::Outage => self.fault_at_servers(fault),
            Fault::Switchover
            | Fault::ServingStall
            | Fault::PromotionFailure
            | Fault::SlowPromotion => self.fault_at_service(fault),
            Fault::RedoCut | Fault::LogFailure | Fault::Promote => self.fault_at_tables(fault),
        }
    }

    /// A host whose process runs, the one that may act more often than the other.
    fn running_host(&mut self) -> Option<usize> {
        let acting = (0..2).find(|h| self.hosts[*h].may_act(self.now).is_some());
        let host = match acting {
            Some(host) if self.chance(600) => host,
            Some(_) | None => self.rng.usize(0..2),
        };
        let h = &self.hosts[host];
        (h.process.is_some() && h.pause.is_none()).then_some(host)
    }

    fn fault_at_host(&mut self, fault: Fault) -> bool {
        let Some(host) = self.running_host() else { return false };
        let session = self.plan.timeout.min(SESSION_MAX);
        match fault {
            Fault::Kill => {
                self.end_process(host);
                self.restart_later(host, (500 * MS, 3 * session));
            }
            Fault::QuickRestart => {
                self.end_process(host);
                self.restart_later(host, (10 * MS, 300 * MS));
            }
            Fault::Shutdown => {
                // It counts when the process has ended.
                self.own_fact(host, 0, Fact::ShutdownOrdered);
                return true;
            }
            Fault::HostDeath => {
                self.kill_machine(host);
                self.restart_later(host, (session / 2, 4 * session));
            }
            Fault::ShortPause => self.pause_for(host, Pause::Stopped, (20 * MS, session)),
            Fault::LongPause => self.pause_for(host, Pause::Stopped, (session, 3 * session)),
            Fault::Suspend => self.pause_for(host, Pause::Suspended, (100 * MS, 3 * session)),
            Fault::UncountedPause => {
                self.pause_for(host, Pause::Uncounted, (100 * MS, 3 * session));
            }
            Fault::WallJump => self.hosts[host].clock.wall_ms += self.rng.i64(-30_000..30_000),
            _ => unreachable!("the caller sorts"),
        }
        self.storm.happened(fault);
        true
    }

    fn pause_for(&mut self, host: usize, how: Pause, range: (Micros, Micros)) {
        self.pause(host, how);
        let wait = self.between(range);
        self.heal_after(wait, Heal::Resume { host });
    }

    pub(crate) fn restart_later(&mut self, host: usize, range: (Micros, Micros)) {
        let wait = if self.storm.over { 200 * MS } else { self.between(range) };
        self.heal_after(wait, Heal::Start { host });
    }

    fn fault_at_link(&mut self, fault: Fault) -> bool {
        let session = self.plan.timeout.min(SESSION_MAX);
        let heal = match fault {
            Fault::LinkCut => {
                self.network.cut = [true; 2];
                Heal::Link
            }
            Fault::LinkCutOneWay => {
                let from = self.rng.usize(0..2);
                self.network.cut[from] = true;
                Heal::Link
            }
            Fault::Reject => {
                let to = self.rng.usize(0..2);
                self.network.reject[to] = true;
                if self.chance(300) {
                    self.network.reject[1 - to] = true;
                }
                // Often both ways go silent, now and then only one.
                self.network.cut[1 - to] = true;
                self.network.cut[to] = self.chance(700);
                Heal::Reject
            }
            Fault::Weather => {
                self.network.weather = self.plan.foul;
                Heal::Weather
            }
            Fault::LinkBroken => {
                let broken = self.break_connections();
                if broken {
                    self.storm.happened(fault);
                }
                return broken;
            }
            _ => unreachable!("the caller sorts"),
        };
        self.storm.happened(fault);
        let wait = self.rng.u64(100 * MS..3 * session);
        self.heal_after(wait, heal);
        true
    }

    fn fault_at_session(&mut self, fault: Fault) -> bool {
        let Some(host) = self.running_host() else { return false };
        let session = self.plan.timeout.min(SESSION_MAX);
        let wait = self.rng.u64(100 * MS..5 * session / 2);
        match fault {
            Fault::ZooKeeperCut | Fault::ZooKeeperUnreachable => {
                if fault == Fault::ZooKeeperCut {
                    let way = self.rng.u32(0..4);
                    self.ensemble.cut_out[host] = way != 0;
                    self.ensemble.cut_in[host] = way != 1;
                } else {
                    self.ensemble.unreachable[host] = true;
                }
                self.watch_for_silence(Some(host));
                self.heal_after(wait, Heal::ZooKeeper { host });
            }
            Fault::Isolated => {
                if self.chance(700) {
                    self.ensemble.slow[host] = self.rng.u64(5 * MS..session / 4);
                }
                let soon = self.rng.u64(MS..session / 2);
                self.heal_after(soon, Heal::Isolate { host });
            }
            Fault::ConnectionMoved | Fault::LateRequests => {
                if !self.ensemble.sessions.iter().any(|s| s.attached.is_some()) {
                    return false;
                }
                if fault == Fault::LateRequests {
                    // Slow at first, so that something is under way when the connection breaks.
                    self.ensemble.slow = [session / 6; 2];
                    self.storm.keeps_requests = true;
                    self.heal_after(session / 3, Heal::Break);
                    return true; // it counts when a late one is executed
                }
                self.close_connections(None);
            }
            Fault::SlowZooKeeper => {
                let slow = self.rng.u64(20 * MS..session / 3);
                self.ensemble.slow[host] = slow;
                if self.chance(300) {
                    self.ensemble.slow[1 - host] = slow;
                }
                self.heal_after(wait, Heal::Slow);
            }
            Fault::AmbiguousAnswers => {
                let in_thousand = self.rng.u32(300..900);
                self.hosts.iter_mut().for_each(|h| h.ambiguous = in_thousand);
                self.heal_after(wait + self.plan.timeout / 3, Heal::Ambiguous);
                return true; // it counts when an answer is withheld
            }
            Fault::ClaimAnswerLost => {
                self.hosts[0].claim_answer_lost = true;
                self.hosts[1].claim_answer_lost = true;
                self.expire_holder();
                return true; // it counts when a claim's answer is lost
            }
            Fault::SessionExpired => {
                if !self.expire_holder() {
                    return false;
                }
            }
            Fault::ZnodeDeleted => {
                if self.ensemble.down || self.ensemble.hung || !self.ensemble.delete_master(None) {
                    return false;
                }
                self.commit(None);
            }
            _ => unreachable!("the caller sorts"),
        }
        self.storm.happened(fault);
        true
    }

    /// The session that holds the mastership is ended by the servers.
    fn expire_holder(&mut self) -> bool {
        let owner = self.ensemble.head.master.as_ref().map(|m| m.owner);
        let Some(owner) = owner.filter(|_| !self.ensemble.down && !self.ensemble.hung) else {
            return false;
        };
        self.end_session(owner);
        true
    }

    fn fault_at_servers(&mut self, fault: Fault) -> bool {
        if self.ensemble.down || self.ensemble.hung {
            return false;
        }
        let session = self.plan.timeout.min(SESSION_MAX);
        let alone = self.ensemble.servers.len() == 1;
        match fault {
            Fault::FollowerCut | Fault::LeaderHang if alone || fault == Fault::LeaderHang => {
                self.ensemble.hung = true;
                self.watch_for_silence(None);
                let wait = self.rng.u64(100 * MS..2 * session);
                self.heal_after(wait, Heal::Hang);
            }
            Fault::FollowerCut => {
                let server = self.some_follower();
                self.ensemble.servers[server].cut = true;
                let incarnation = self.ensemble.servers[server].incarnation;
                let patience = self.rng.u64(500 * MS..9_000 * MS);
                self.after(patience, Event::ServerGivesUp { server, incarnation });
                let wait = self.rng.u64(200 * MS..3 * session);
                self.heal_after(wait, Heal::Follower { server });
            }
            Fault::FollowerLag => {
                let server = if alone { 0 } else { self.some_follower() };
                self.ensemble.servers[server].lag = self.rng.u64(20 * MS..session * 3 / 2);
                let wait = self.rng.u64(500 * MS..3 * session);
                // What slows a server down often takes the link along.
                if self.chance(300) {
                    self.network.cut = [true; 2];
                    self.heal_after(wait, Heal::Link);
                }
                self.heal_after(wait, Heal::Lag);
            }
            Fault::LeaderChange | Fault::Outage => {
                self.ensemble_down();
                let most = if fault == Fault::Outage { 3 * session } else { 1_500 * MS };
                let wait = self.rng.u64(100 * MS..most);
                self.heal_after(wait, Heal::Up);
            }
            _ => unreachable!("the caller sorts"),
        }
        self.storm.happened(fault);
        true
    }

    /// A follower, one that serves a client rather than another.
    fn some_follower(&mut self) -> usize {
        let leader = self.ensemble.leader;
        let used: Vec<usize> = self
            .ensemble
            .sessions
            .iter()
            .filter_map(|s| s.attached)
            .filter(|server| *server != leader)
            .collect();
        if used.is_empty() {
            let n = self.ensemble.servers.len();
            return (leader + 1 + self.rng.usize(0..n - 1)) % n;
        }
        used[self.rng.usize(0..used.len())]
    }

    fn fault_at_service(&mut self, fault: Fault) -> bool {
        let serving = (0..2).find(|h| self.hosts[*h].may_act(self.now).is_some());
        let Some(host) = serving else { return false };
        match fault {
            Fault::Switchover => {
                self.storm.orders += 1;
                let order = self.storm.orders;
                // Now and then the operator asks the wrong node first, or asks twice.
                if self.chance(200) {
                    let wrong = self.rng.usize(0..2);
                    self.own_fact(wrong, 0, Fact::SwitchoverOrdered { order: order + 1_000 });
                }
                self.checker.ordered[host] = self.hosts[host].may_act(self.now);
                self.own_fact(host, 0, Fact::SwitchoverOrdered { order });
            }
            Fault::ServingStall => {
                let for_ms = self.rng.u64(5_001..9_000);
                self.own_fact(host, 0, Fact::ServingStalled { for_ms });
            }
            Fault::PromotionFailure => {
                self.hosts[0].promotion_fails = true;
                self.hosts[1].promotion_fails = true;
                self.expire_holder();
                return true; // it counts when one has failed
            }
            Fault::SlowPromotion => {
                self.hosts[0].slow_promotion = true;
                self.hosts[1].slow_promotion = true;
                self.expire_holder();
                self.heal_after(8_000 * MS, Heal::Promotions);
            }
            _ => unreachable!("the caller sorts"),
        }
        self.storm.happened(fault);
        true
    }

    fn fault_at_tables(&mut self, fault: Fault) -> bool {
        let session = self.plan.timeout.min(SESSION_MAX);
        let Some(host) = self.running_host() else { return false };
        match fault {
            Fault::RedoCut => {
                self.network.redo_cut = true;
                let wait = self.rng.u64(50 * MS..2 * session);
                self.heal_after(wait, Heal::Redo);
            }
            Fault::LogFailure => {
                self.hosts[host].log_failed = true;
                let what = "the disk answers EIO".to_owned();
                self.own_fact(host, 0, Fact::Tables(TablesFact::Failed { what }));
                let wait = self.rng.u64(100 * MS..3 * session);
                self.heal_after(wait, Heal::Restart { host });
            }
            Fault::Promote => {
                let host = if self.chance(300) { host } else { self.rng.usize(0..2) };
                let h = &self.hosts[host];
                if h.process.is_none() || h.pause.is_some() || h.waived {
                    return false;
                }
                self.storm.orders += 1;
                let order = PROMOTIONS + self.storm.orders;
                let accept_data_loss = self.chance(300);
                self.hosts[host].waived = accept_data_loss;
                self.own_fact(host, 0, Fact::PromoteOrdered { order, accept_data_loss });
            }
            _ => unreachable!("the caller sorts"),
        }
        self.storm.happened(fault);
        true
    }

    // --- healing

    pub(crate) fn heal_after(&mut self, wait: Micros, heal: Heal) {
        let round = self.storm.round;
        self.after(wait, Event::Heal { heal, round });
    }

    pub(crate) fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Start { host } => self.start_process(host),
            Heal::Resume { host } => self.resume(host),
            Heal::Link => {
                self.network.cut = [false; 2];
                self.flush_link(0);
                self.flush_link(1);
            }
            Heal::Reject => {
                self.network.reject = [false; 2];
                self.heal(Heal::Link);
            }
            Heal::Weather => self.network.weather = self.plan.fair,
            Heal::ZooKeeper { host } => {
                self.ensemble.cut_out[host] = false;
                self.ensemble.cut_in[host] = false;
                self.ensemble.unreachable[host] = false;
                self.flush_sessions(host);
            }
            Heal::Slow => {
                self.ensemble.slow = [0; 2];
                self.storm.keeps_requests = false;
            }
            Heal::Isolate { host } => self.isolate(host),
            Heal::Break => {
                self.close_connections(None);
                self.heal_after(200 * MS, Heal::Slow);
            }
            Heal::Follower { server } => {
                self.ensemble.servers[server].cut = false;
                self.servers_go_on();
            }
            Heal::Lag => {
                for s in &mut self.ensemble.servers {
                    s.lag = 0;
                }
            }
            Heal::Hang => {
                let hung = std::mem::take(&mut self.ensemble.hung);
                // Followers may have gone on without it by now.
                if hung && self.ensemble.servers.len() > 1 && self.chance(500) {
                    self.ensemble_down();
                    self.heal_after(300 * MS, Heal::Up);
                } else {
                    self.servers_go_on();
                }
            }
            Heal::Up => self.ensemble_up(),
            Heal::Ambiguous => self.hosts.iter_mut().for_each(|h| h.ambiguous = 0),
            Heal::Redo => self.network.redo_cut = false,
            Heal::Restart { host } => {
                if self.hosts[host].log_failed {
                    self.end_process(host);
                }
                self.start_process(host);
            }
            Heal::Promotions => self.hosts.iter_mut().for_each(|h| h.slow_promotion = false),
        }
    }

    /// The second part of [`Fault::Isolated`].
    fn isolate(&mut self, host: usize) {
        let way = self.rng.u32(0..4);
        let (out, into) = (way != 0, way > 1);
        self.note(Some(host), format_args!("isolated: outward {out}, inward {into}"));
        self.network.cut[host] |= out;
        self.network.cut[1 - host] |= into || !out;
        self.ensemble.cut_out[host] |= out;
        self.ensemble.cut_in[host] |= into || !out;
        self.watch_for_silence(Some(host));
        let wait = self.rng.u64(100 * MS..3 * self.plan.timeout.min(SESSION_MAX));
        self.heal_after(wait, Heal::Link);
        self.heal_after(wait, Heal::ZooKeeper { host });
        self.heal_after(wait, Heal::Slow);
    }

    pub(crate) fn heal_everything(&mut self) {
        self.storm.round += 1;
        for heal in [
            Heal::Up,
            Heal::Hang,
            Heal::Reject,
            Heal::Weather,
            Heal::Slow,
            Heal::Lag,
            Heal::Ambiguous,
            Heal::Promotions,
            Heal::Redo,
        ] {
            self.heal(heal);
        }
        // A lost ping now and then is weather too, and would alarm in the calm.
        (self.network.weather.lost, self.network.weather.resent) = (0, 0);
        for s in &mut self.ensemble.servers {
            s.cut = false;
        }
        self.servers_go_on();
        for host in 0..2 {
            self.heal(Heal::ZooKeeper { host });
            self.resume(host);
            self.heal(Heal::Restart { host });
            let h = &mut self.hosts[host];
            h.claim_answer_lost = false;
            h.promotion_fails = false;
            h.clock.wall_ms = 0;
        }
    }

    // --- the end

    pub(crate) fn storm_over(&mut self) {
        let mut missing: Vec<usize> = (0..self.plan.faults.len())
            .filter(|i| self.storm.happened[self.plan.faults[*i].fault.index()] == 0)
            .collect();
        missing.sort_by_key(|i| self.plan.faults[*i].fault);
        missing.dedup_by_key(|i| self.plan.faults[*i].fault);
        if !missing.is_empty() && self.storm.extensions < EXTENSIONS_MAX {
            self.storm.extensions += 1;
            // What found no chance in all this is given a quiet moment.
            self.heal_everything();
            let wait = self.plan.timeout;
            for planned in missing {
                self.after(wait, Event::Fault { planned });
            }
            self.after(wait + 3_000 * MS, Event::StormOver);
            return;
        }
        self.storm.over = true;
        self.check_coverage();
        let residue = self.plan.residue;
        self.note(None, format_args!("=== the storm is over; left broken: {residue:?}"));
        self.heal_everything();
        if self.plan.residue == Residue::None {
            self.begin_calm(Stage::Serves);
        } else if self.peer_is_in_sync() && self.chance(500) {
            self.leave_residue();
            self.begin_calm(Stage::ResidueServes);
        } else {
            self.begin_calm(Stage::Settles);
        }
    }

    fn peer_is_in_sync(&self) -> bool {
        let acting = (0..2).find(|h| self.hosts[*h].may_act(self.now).is_some());
        acting.is_some_and(|host| self.not_in_sync(host).is_none())
    }

    pub(crate) fn leave_residue(&mut self) {
        let acting = (0..2).find(|h| self.hosts[*h].may_act(self.now).is_some());
        let host = acting.unwrap_or_else(|| self.rng.usize(0..2));
        self.checker.residue_host = host;
        match self.plan.residue {
            Residue::None => {}
            Residue::HostDead => self.kill_machine(host),
            Residue::ProcessDead => self.end_process(host),
            Residue::Frozen => self.pause(host, Pause::Stopped),
            Residue::LinkCut => self.network.cut = [true; 2],
            Residue::Rejected => {
                self.network.cut = [true; 2];
                self.network.reject = [true; 2];
            }
            Residue::ZooKeeperCut => {
                self.ensemble.cut_out[host] = true;
                self.ensemble.cut_in[host] = true;
                self.watch_for_silence(Some(host));
            }
        }
    }

    /// The longest time until one serves, once nothing is broken any more: what a failure costs by
    /// the node's own word, sessions that the servers gave a new life, and reconnecting.
    pub(crate) fn bound(&self) -> Micros {
        let s = &self.plan.settings;
        let pings = u64::from(s.ping_count) * s.ping_interval_ms + s.ping_timeout_ms;
        let failure = self.plan.timeout * 3 / 2 + (pings + 1_000) * MS;
        let servers = self.plan.timeout + 2 * self.plan.tick;
        failure + servers + (s.hold_off_ms + 3_000) * MS
    }
}
