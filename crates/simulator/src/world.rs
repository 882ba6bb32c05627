//! The world of one storm: two hosts, their link, the ensemble, and time.
//!
//! ```text
//! schedule ─pop─▶ dispatch ─┬─ to a process ─(paused: held)─▶ Node::handle ─▶ effects ─▶ carried out
//!     ▲                     ├─ at a server, on the way, a fault, a heal          │
//!     └─────────────────────┴────────────────── new events ◀─────────────────────┘
//!                        after each event: may both act?
//! ```
//!
//! Nothing here calls a node while another node's call is under way: carrying out an effect only
//! plans events.

use fastrand::Rng;
use hotpair_core::pair::effect::Effect;
use hotpair_core::pair::fact::{DialFailure, Fact, SessionId, ZooKeeperEvent};
use hotpair_core::pair::identity::Epoch;

use super::check::Checker;
use super::clock::{Clock, MS, Micros};
use super::ensemble::{Data, Ensemble, Reply, Sent};
use super::fault::Fault;
use super::host::{Host, Process};
use super::link::{Message, Network};
use super::outcome::Outcome;
use super::plan::{Options, Plan};
use super::schedule::Schedule;
use super::storm::{Heal, Storm};
use super::transcript::Transcript;

/// Something that happens at a planned time.
#[derive(Debug)]
pub(crate) enum Event {
    // To a process; held while it stands still.
    Timer { host: usize, life: u64, at: Micros },
    Carry { host: usize, life: u64 },
    Fact { host: usize, life: u64, fact: Fact },
    Arrive { connection: u64, to: usize, message: Message },
    DialFailed { host: usize, life: u64, how: DialFailure },
    DialTimedOut { host: usize, life: u64, connection: u64 },
    Connect { host: usize, life: u64, generation: u64 },
    Reply { session: SessionId, connection: u32, reply: Reply },
    Closed { session: SessionId, connection: u32 },
    Silence { session: SessionId, connection: u32 },
    Reconnect { session: SessionId },
    TablesOpened { host: usize, life: u64 },
    TablesReady { host: usize, life: u64, epoch: Epoch },
    // At the servers.
    Arrived { sent: Sent },
    Straggle { sent: Sent, tries: u32 },
    Apply { server: usize, incarnation: u32, data: std::sync::Arc<Data>, answer: Option<Routed> },
    TornLook { sent: Sent, epoch: hotpair_core::pair::fact::EpochZnode },
    Close { session: SessionId },
    Tick,
    ServerGivesUp { server: usize, incarnation: u32 },
    // The storm's own.
    Fault { planned: usize },
    Heal { heal: Heal, round: u32 },
    Probe,
    TablesTurn,
    StormOver,
    CalmChecked { stage: Stage },
}

/// An answer on its way through a follower.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) session: SessionId,
    pub(crate) connection: u32,
    pub(crate) number: u64,
    pub(crate) event: ZooKeeperEvent,
}

/// What is checked in the calm, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// All healed: one serves, the other is in sync. Then something is broken again.
    Settles,
    /// With the residue: the healthy part serves, and goes on.
    ResidueServes,
    /// All healed: one serves, the other stands by.
    Serves,
    /// And nothing is said any more that is not so.
    Quiet,
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) rng: Rng,
    pub(crate) schedule: Schedule<Event>,
    pub(crate) plan: Plan,
    pub(crate) options: Options,
    pub(crate) hosts: [Host; 2],
    pub(crate) network: Network,
    pub(crate) ensemble: Ensemble,
    pub(crate) checker: Checker,
    pub(crate) storm: Storm,
    pub(crate) transcript: Transcript,
    pub(crate) next_life: u64,
    /// Kept to spare an allocation at each call of a node.
    pub(crate) effects: Vec<Effect>,
    events: u64,
    digest: u64,
    pub(crate) over: bool,
}

/// Names of the two hosts.
pub(crate) const NAMES: [&str; 2] = ["a", "b"];

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut plan = Plan::draw(&mut rng, &options);
        if options.every_class {
            plan.servers = 3;
        }
        let host = |i: usize| Host::new(i, Clock::new(plan.offsets[i], plan.rates_ppm[i]));
        Self {
            now: 0,
            schedule: Schedule::default(),
            hosts: [host(0), host(1)],
            network: Network::new(plan.fair),
            ensemble: Ensemble::new(plan.servers, plan.tick),
            checker: Checker::default(),
            storm: Storm::new(),
            transcript: Transcript::new(options.transcript),
            next_life: 1,
            effects: Vec::new(),
            events: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            over: false,
            rng,
            plan,
            options,
        }
    }

    /// Runs the storm and the calm after it, or up to the first broken rule.
    pub(crate) fn run(mut self, seed: u64) -> Outcome {
        self.describe(seed);
        self.begin();
        while !self.over && self.checker.violation.is_none() {
            let Some((at, event)) = self.schedule.pop() else { break };
            self.now = at;
            self.events += 1;
            self.mix(at, &event);
            self.dispatch(event);
            self.check_step();
        }
        self.outcome(seed)
    }

    fn describe(&mut self, seed: u64) {
        if !self.transcript.wanted() {
            return;
        }
        let p = &self.plan;
        let classes: Vec<Fault> = Fault::ALL.into_iter().filter(|f| p.enables(*f)).collect();
        let text = format!(
            "seed {seed}: session {} ms, tick {} ms, {} servers, clocks {:?} ppm, fast takeover {}, \
             pings every {} ms, at most {} ms; faults {classes:?}",
            p.timeout / MS,
            p.tick / MS,
            p.servers,
            p.rates_ppm,
            p.settings.fast_takeover,
            p.settings.ping_interval_ms,
            p.settings.ping_timeout_ms,
        );
        self.note(None, format_args!("{text}"));
    }

    fn begin(&mut self) {
        for host in 0..2 {
            let at = self.rng.u64(0..200 * MS);
            self.heal_after(at, Heal::Start { host });
        }
        self.schedule.push(0, Event::Tick);
        self.schedule.push(500 * MS, Event::Probe);
        self.schedule.push(MS, Event::TablesTurn);
        for planned in 0..self.plan.faults.len() {
            let at = self.plan.faults[planned].at;
            self.schedule.push(at, Event::Fault { planned });
        }
        self.schedule.push(self.plan.storm, Event::StormOver);
    }

    pub(crate) fn dispatch(&mut self, event: Event) {
        if let Some(host) = self.target(&event)
            && self.hosts[host].pause.is_some()
        {
            self.hosts[host].held.push(event);
            return;
        }
        match event {
            Event::Timer { host, life, at } => self.handle_timer(host, life, at),
            Event::Carry { host, life } => self.handle_carry(host, life),
            Event::Fact { host, life, fact } => {
                if self.alive(host, life) {
                    self.tell(host, fact);
                }
            }
            Event::Arrive { connection, to, message } => self.arrive(connection, to, message),
            Event::DialFailed { host, life, how } => self.dial_failed(host, life, how),
            Event::DialTimedOut { host, life, connection } => {
                self.dial_timed_out(host, life, connection);
            }
            Event::Connect { host, life, generation } => self.connect(host, life, generation),
            Event::Reply { session, connection, reply } => self.replied(session, connection, reply),
            Event::Closed { session, connection } => self.closed(session, connection),
            Event::Silence { session, connection } => self.silence(session, connection),
            Event::Reconnect { session } => self.reconnect(session),
            Event::Arrived { sent } => self.arrived(sent),
            Event::Straggle { sent, tries } => self.straggle(sent, tries),
            Event::Apply { server, incarnation, data, answer } => {
                self.apply(server, incarnation, &data, answer);
            }
            Event::TornLook { sent, epoch } => self.answer_look(&sent, Some(epoch)),
            Event::Close { session } => self.end_session(session),
            Event::Tick => self.tick(),
            Event::ServerGivesUp { server, incarnation } => {
                self.server_gives_up(server, incarnation);
            }
            Event::Fault { planned } => self.start_fault(planned),
            Event::Heal { heal, round } => {
                // All was healed since: this end is of a fault that is over.
                if round == self.storm.round {
                    self.heal(heal);
                }
            }
            Event::TablesOpened { host, life } => self.tables_opened(host, life),
            Event::TablesReady { host, life, epoch } => self.tables_ready(host, life, epoch),
            Event::TablesTurn => self.turn_tables(),
            Event::Probe => self.probe(),
            Event::StormOver => self.storm_over(),
            Event::CalmChecked { stage } => self.check_calm(stage),
        }
    }

    /// The host whose process this event needs.
    fn target(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Timer { host, .. }
            | Event::Carry { host, .. }
            | Event::Fact { host, .. }
            | Event::DialFailed { host, .. }
            | Event::DialTimedOut { host, .. }
            | Event::Connect { host, .. }
            | Event::TablesOpened { host, .. }
            | Event::TablesReady { host, .. }
            | Event::Arrive { to: host, .. } => Some(*host),
            Event::Reply { session, .. }
            | Event::Closed { session, .. }
            | Event::Silence { session, .. }
            | Event::Reconnect { session } => self.ensemble.session(*session).map(|s| s.host),
            Event::Arrived { .. }
            | Event::Straggle { .. }
            | Event::Apply { .. }
            | Event::TornLook { .. }
            | Event::Close { .. }
            | Event::Tick
            | Event::ServerGivesUp { .. }
            | Event::Fault { .. }
            | Event::Heal { .. }
            | Event::Probe
            | Event::TablesTurn
            | Event::StormOver
            | Event::CalmChecked { .. } => None,
        }
    }

    // --- small helps

    pub(crate) fn after(&mut self, wait: Micros, event: Event) {
        self.schedule.push(self.now + wait, event);
    }

    /// A length of time between two, drawn.
    pub(crate) fn between(&mut self, (from, to): (Micros, Micros)) -> Micros {
        if to <= from { from } else { self.rng.u64(from..to) }
    }

    /// True with a chance of so many in a thousand.
    pub(crate) fn chance(&mut self, in_thousand: u32) -> bool {
        in_thousand > 0 && self.rng.u32(0..1_000) < in_thousand
    }

    pub(crate) fn process(&self, host: usize) -> Option<&Process> {
        self.hosts[host].process.as_ref()
    }

    pub(crate) fn alive(&self, host: usize, life: u64) -> bool {
        self.process(host).is_some_and(|p| p.life == life)
    }

    /// Two runs of one seed must agree in this, event by event.
    fn mix(&mut self, at: Micros, event: &Event) {
        let kind = match event {
            Event::Timer { host, .. } => *host as u64,
            Event::Arrive { connection, to, .. } => 16 + connection * 2 + *to as u64,
            Event::Reply { session, .. } => 8 + session.0.unsigned_abs(),
            _ => 4,
        };
        for word in [at, kind, self.schedule.len() as u64] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn outcome(self, seed: u64) -> Outcome {
        Outcome {
            seed,
            violation: self.checker.violation,
            events: self.events,
            elections: self.checker.elections,
            virtual_ms: self.now / MS,
            planned: self.plan.enabled,
            happened: self.storm.happened,
            refused_at_sinks: self.checker.refused,
            darkest_ms: self.checker.darkest / MS,
            digest: self.digest,
            transcript: self.transcript.into_text(),
        }
    }
}
