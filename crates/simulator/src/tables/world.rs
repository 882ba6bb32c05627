//! Everything there is, and the loop: the next event, what it brings, and whether the rules hold.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Arguments;

use hotpair_core::pair::fact::TablesFact;
use hotpair_core::tables::replication::{
    Follow, FromMaster, Replication, ReplicationSettings, TablesEffect,
};

use crate::clock::{MS, Micros};
use crate::schedule::Schedule;

use super::agent::{Agent, TICK};
use super::check::{Check, Rule};
use super::clients::{CLIENTS, Client, Ticket};
use super::coordinator::{Answer, Ask, Coordinator};
use super::host::{Host, Input, NAMES, Order, Process};
use super::plan::Plan;
use super::programs::{At, Effects, Errand};
use super::storm::{Coverage, Heal, Phase, Storm};
use super::stream::{Cable, Connection, Frame};
use super::{Options, Outcome};

/// Lines of a transcript that are kept.
const LINES: usize = 400;
/// All must be settled this long after everything is healed.
const SETTLED_WITHIN: Micros = 60_000 * MS;
/// More events than any storm has.
const EVENTS_MAX: u64 = 3_000_000;

/// What may happen.
#[derive(Debug)]
pub(super) enum Event {
    Start {
        host: usize,
    },
    Timer {
        host: usize,
        life: u64,
    },
    DiskDone {
        host: usize,
        life: u64,
        operation: u64,
    },
    DiskSync {
        host: usize,
    },
    Checkpoint {
        host: usize,
    },
    DialArrives {
        host: usize,
        connection: u64,
        follow: Box<Follow>,
    },
    Learn {
        connection: u64,
        end: usize,
        life: u64,
    },
    Arrives {
        connection: u64,
        to: usize,
        frame: Frame,
    },
    Ship {
        host: usize,
        life: u64,
        connection: u64,
    },
    Fact {
        host: usize,
        life: u64,
        fact: TablesFact,
    },
    Order {
        host: usize,
        life: u64,
        order: Order,
    },
    Tick {
        host: usize,
        life: u64,
    },
    Execute {
        host: usize,
        life: u64,
        boot: u128,
        ask: Ask,
        question: Option<u64>,
    },
    Answered {
        host: usize,
        life: u64,
        question: u64,
        answer: Answer,
    },
    Release {
        host: usize,
        life: u64,
    },
    Client {
        client: usize,
    },
    Submit {
        ticket: u64,
    },
    /// A call of a program comes to the door.
    Errand {
        errand: Errand,
        at: At,
    },
    /// A program has answered.
    ProgramSaid {
        errand: Errand,
        at: At,
        version: u64,
    },
    /// A blow falls: at somebody at once, or aimed.
    Strike {
        aimed: bool,
    },
    Nudge,
    Heal {
        host: usize,
        heal: Heal,
    },
    FlipDue {
        host: usize,
        number: u64,
        undisturbed: u32,
    },
    StormOver,
    Ending,
    Look,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct World {
    pub(super) options: Options,
    pub(super) plan: Plan,
    pub(super) now: Micros,
    pub(super) rng: fastrand::Rng,
    pub(super) schedule: Schedule<Event>,
    pub(super) hosts: [Host; 2],
    pub(super) operations: [u64; 2],
    pub(super) cable: Cable,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) connections_made: u64,
    pub(super) coordinator: Coordinator,
    pub(super) questions: u64,
    pub(super) clients: Vec<Client>,
    pub(super) tickets: BTreeMap<u64, Ticket>,
    pub(super) tickets_given: u64,
    /// What the program beside the nodes has done.
    pub(super) effects: Effects,
    pub(super) storm: Storm,
    /// Clients ask for nothing new.
    pub(super) ending: bool,
    pub(super) check: Check,
    pub(super) outcome: Outcome,
    lives: u64,
    boots: u128,
    healed_at: Micros,
    done: bool,
    lines: VecDeque<String>,
}

impl World {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = Plan::new(&mut rng);
        let outcome = Outcome {
            seed,
            violation: None,
            transcript: String::new(),
            coverage: Coverage::default(),
            events: 0,
            virtual_ms: 0,
            settled_ms: 0,
            answers: 0,
            masterships: 0,
            barriers: 0,
            programs: (0, 0),
            loads: 0,
            forgiven: 0,
            flips: (0, 0),
        };
        Self {
            options,
            plan,
            now: 0,
            rng,
            schedule: Schedule::default(),
            hosts: [Host::new(1), Host::new(2)],
            operations: [0; 2],
            cable: Cable::default(),
            connections: BTreeMap::new(),
            connections_made: 0,
            coordinator: Coordinator::default(),
            questions: 0,
            clients: (0..CLIENTS).map(Client::new).collect(),
            tickets: BTreeMap::new(),
            tickets_given: 0,
            effects: Effects::new(),
            storm: Storm::default(),
            ending: false,
            check: Check::default(),
            outcome,
            lives: 0,
            boots: 2,
            healed_at: 0,
            done: false,
            lines: VecDeque::new(),
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        let plan = self.plan.clone();
        self.note(None, format_args!("{plan:?}"));
        for host in 0..2 {
            let wait = self.rng.u64(0..100) * MS;
            self.after(wait, Event::Start { host });
            self.after(self.plan.sync_every, Event::DiskSync { host });
            self.after(self.plan.checkpoint_every, Event::Checkpoint { host });
        }
        for client in 0..CLIENTS {
            self.after(self.plan.client_every, Event::Client { client });
        }
        self.plan_strikes();
        while !self.done && self.check.violation.is_none() {
            let Some((at, event)) = self.schedule.pop() else { break };
            self.now = at;
            self.check.now = at;
            self.outcome.events += 1;
            if self.outcome.events > EVENTS_MAX {
                self.check.broken(Rule::Live, "events without end".to_owned());
            }
            self.handle(event);
        }
        self.outcome.violation = self.check.violation.take();
        self.outcome.virtual_ms = self.now / MS;
        self.outcome.transcript = Vec::from(self.lines).join("\n");
        self.outcome
    }

    pub(super) fn after(&mut self, wait: Micros, event: Event) {
        self.schedule.push(self.now + wait, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start { host } => self.start(host),
            Event::Timer { host, life } => self.handle_timer(host, life),
            Event::DiskDone { host, life, operation } => self.handle_disk(host, life, operation),
            Event::DiskSync { host } => {
                self.hosts[host].disk.sync();
                self.after(self.plan.sync_every, Event::DiskSync { host });
            }
            Event::Checkpoint { host } => self.checkpoint(host),
            Event::DialArrives { host, connection, follow } => {
                self.handle_dial(host, connection, *follow);
            }
            Event::Learn { connection, end, life } => self.learn(connection, end, life),
            Event::Arrives { connection, to, frame } => self.handle_arrival(connection, to, frame),
            Event::Ship { host, life, connection } => self.ship(host, life, connection),
            Event::Fact { host, life, fact } => self.handle_fact(host, life, fact),
            Event::Order { host, life, order } => self.handle_order(host, life, order),
            Event::Tick { host, life } => self.handle_tick(host, life),
            Event::Execute { host, life, boot, ask, question } => {
                self.execute((host, life, boot), ask, question);
            }
            Event::Answered { host, life, question, answer } => {
                self.handle_answer(host, life, question, answer);
            }
            Event::Release { host, life } => self.coordinator.release(host, life),
            Event::Client { client } => self.handle_client(client),
            Event::Submit { ticket } => self.handle_submit(ticket),
            Event::Errand { errand, at } => self.handle_errand(errand, at),
            Event::ProgramSaid { errand, at, version } => {
                self.handle_program_said(errand, at, version);
            }
            Event::Strike { aimed } => self.handle_strike(aimed),
            Event::Nudge => self.handle_nudge(),
            Event::Heal { host, heal } => self.heal(host, heal),
            Event::FlipDue { host, number, undisturbed } => {
                self.handle_flip_due(host, number, undisturbed);
            }
            Event::StormOver => {
                self.end_storm();
                self.healed_at = self.now;
            }
            Event::Ending => {
                self.ending = true;
                self.after(0, Event::Look);
            }
            Event::Look => self.look_whether_settled(),
        }
    }

    // --- processes

    fn start(&mut self, host: usize) {
        if self.hosts[host].process.is_some() {
            return;
        }
        if !self.hosts[host].up {
            self.hosts[host].up = true;
            self.boots += 1;
            self.hosts[host].boot = self.boots;
        }
        self.lives += 1;
        let life = self.lives;
        let (history, store) = self.hosts[host].disk.recover();
        if self.plan.durable {
            // What was found counts from now on.
            self.hosts[host].disk.sync();
        }
        let complete = self.hosts[host].disk.complete();
        let position = history.position();
        self.note(Some(host), format_args!("life {life} starts at {position}, whole {complete}"));
        let settings = ReplicationSettings {
            ack_local: self.plan.ack_local,
            silence_ms_max: self.plan.silence_ms_max,
            planted: self.options.planted,
        };
        let me = self.hosts[host].incarnation(host);
        let machine = Replication::new(settings, me, life, history, complete);
        self.hosts[host].process = Some(Process {
            life,
            offset_ms: self.rng.u64(0..100_000),
            machine,
            store,
            inbox: VecDeque::new(),
            effects: VecDeque::new(),
            busy: None,
            stuck: None,
            unflushed: 0,
            timer: None,
            gate: None,
            errands: BTreeMap::new(),
            dialled: None,
            phase: None,
            common: 0,
            shipper: None,
            agent: Agent::new(position, complete),
            flip: None,
            facts_at: 0,
            orders_at: 0,
        });
        let wait = self.rng.u64(0..TICK);
        self.after(wait, Event::Tick { host, life });
    }

    /// A snapshot of the node's own makes old records unnecessary.
    fn checkpoint(&mut self, host: usize) {
        let wait = self.plan.checkpoint_every / 2 + self.rng.u64(0..self.plan.checkpoint_every);
        self.after(wait, Event::Checkpoint { host });
        let kept = self.rng.u64(0..30);
        let slot = &mut self.hosts[host];
        let Some(process) = &slot.process else { return };
        if slot.full || slot.paused || process.flip.is_some() || !slot.disk.complete() {
            return;
        }
        let whole = process.machine.complete() && process.busy.is_none() && process.stuck.is_none();
        if !whole {
            return;
        }
        let applied = process.store.applied();
        let mut history = slot.disk.history().clone();
        history.cut_after(applied);
        let needed = process.shipper.as_ref().map_or(u64::MAX, super::stream::Shipper::needs_after);
        let base = applied.saturating_sub(kept).min(needed);
        slot.disk.checkpoint(history, process.store.clone(), base);
    }

    // --- the end

    fn look_whether_settled(&mut self) {
        match self.unsettled() {
            None => {
                let master = self.serving().expect("settled means that one serves");
                self.check_end(master);
                self.outcome.settled_ms = (self.now - self.healed_at) / MS;
                self.done = true;
            }
            Some(why) if self.now > self.healed_at + SETTLED_WITHIN => {
                self.check.broken(Rule::Live, why);
            }
            Some(_) => self.after(100 * MS, Event::Look),
        }
    }

    /// What is still missing.
    fn unsettled(&self) -> Option<String> {
        let Some(master) = self.serving() else { return Some("nobody serves".to_owned()) };
        let standby = 1 - master;
        let (Some(serves), Some(follows)) =
            (&self.hosts[master].process, &self.hosts[standby].process)
        else {
            return Some("a process is missing".to_owned());
        };
        if follows.phase != Some(Phase::Streaming) || !follows.machine.complete() {
            return Some(format!("{} does not stream: {:?}", NAMES[standby], follows.phase));
        }
        let mut members = self.coordinator.sync.members.clone();
        members.sort_unstable();
        let both: Vec<_> = (0..2).map(|host| (host, self.hosts[host].boot)).collect();
        if members != both {
            return Some(format!("the sync record says {members:?}"));
        }
        if let Some(client) = self.clients.iter().position(|client| !client.idle()) {
            return Some(format!("client {client} waits: {:?}", self.clients[client]));
        }
        if serves.machine.lag() != Some(0) {
            return Some(format!("the standby lags by {:?}", serves.machine.lag()));
        }
        if follows.is_flipped() {
            return Some("a flipped row is not healed".to_owned());
        }
        let position = Some((follows.machine.history().position(), true));
        if follows.agent.holds() != position {
            return Some(format!(
                "the standby said {:?}, and is at {position:?}",
                follows.agent.holds()
            ));
        }
        let applied = [serves.store.applied(), follows.store.applied()];
        (applied[0] != applied[1]).then(|| format!("applied differ: {applied:?}"))
    }

    // --- the transcript

    pub(super) fn note(&mut self, host: Option<usize>, what: Arguments<'_>) {
        if !self.options.transcript {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        let who = host.map_or("", |host| NAMES[host]);
        let (s, us) = (self.now / 1_000_000, self.now % 1_000_000);
        let mut line = format!("{s:>4}.{us:06} {who:<1} {what}");
        if line.len() > 600 {
            let end = (0..=600).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
            line.truncate(end);
        }
        self.lines.push_back(line);
    }

    pub(super) fn note_input(&mut self, host: usize, input: &Input) {
        if !self.options.transcript {
            return;
        }
        match input {
            Input::Submit(request) => {
                let numbered =
                    request.numbered.map(|numbered| (numbered.session.0[0], numbered.number));
                let ticket = request.ticket;
                self.note(Some(host), format_args!("> request {ticket} {numbered:?}"));
            }
            Input::MasterSaid { connection, frame: FromMaster::Records(records, _) } => {
                let names: Vec<_> = records.iter().map(|r| (r.epoch.0, r.number)).collect();
                self.note(Some(host), format_args!("> {connection}: records {names:?}"));
            }
            Input::MasterSaid { connection, frame: FromMaster::Digests { number, .. } } => {
                self.note(Some(host), format_args!("> {connection}: digests of {number}"));
            }
            Input::Order(_)
            | Input::FollowerCame { .. }
            | Input::FollowerHolds { .. }
            | Input::FollowerGone { .. }
            | Input::MasterSaid { .. }
            | Input::MasterGone { .. } => self.note(Some(host), format_args!("> {input:?}")),
            Input::Time => {}
        }
    }

    pub(super) fn note_effect(&mut self, host: usize, effect: &TablesEffect) {
        if !self.options.transcript {
            return;
        }
        match effect {
            TablesEffect::Append(batch) => {
                let (last, size) = (batch.last, batch.bytes.len());
                self.note(Some(host), format_args!("< Append up to {last}, {size} bytes"));
            }
            TablesEffect::SendDigests { number, .. } => {
                self.note(Some(host), format_args!("< SendDigests of {number}"));
            }
            TablesEffect::Answer { .. }
            | TablesEffect::Tell(_)
            | TablesEffect::SendTail { .. }
            | TablesEffect::SendSnapshot { .. }
            | TablesEffect::CloseFollower { .. }
            | TablesEffect::Dial(_)
            | TablesEffect::HangUp
            | TablesEffect::Held { .. }
            | TablesEffect::SetAside { .. }
            | TablesEffect::CutAfter { .. }
            | TablesEffect::BeginLoading
            | TablesEffect::KeepPiece(_)
            | TablesEffect::InstallSnapshot
            | TablesEffect::FinishLoading => self.note(Some(host), format_args!("< {effect:?}")),
        }
    }
}
