//! A machine and the process on it: facts in, effects carried out, standing still, dying.
//!
//! Effects are carried out in their order, now and then with a delay between the decision and the
//! deed. A process that stands still gets nothing; what was for it waits and comes in a heap
//! afterwards, its own timer among it, late.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hotpair_core::pair::alert::{Alert, AlertName};
use hotpair_core::pair::effect::Effect;
use hotpair_core::pair::fact::Fact;
use hotpair_core::pair::identity::{BootId, Epoch, Identity, Incarnation, Instance, NodeId, Role};
use hotpair_core::pair::{Moment, Node};

use super::clock::{Clock, MS, Micros};
use super::coordination::Client;
use super::fault::Fault;
use super::host_tables::{Disk, Tables};
use super::transcript::{effect_line, fact_line};
use super::world::{Event, NAMES, World};

/// A machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) clock: Clock,
    pub(crate) up: bool,
    pub(crate) pause: Option<Pause>,
    pub(crate) process: Option<Process>,
    /// Events for the process that wait for it to run again.
    pub(crate) held: Vec<Event>,
    /// Until then this node's clock may be wrong about its lease: only the epoch protects.
    pub(crate) excused_until: Micros,
    instance: Instance,
    boot: u128,
    pub(crate) disk: Disk,
    /// Its process will not serve again.
    pub(crate) log_failed: bool,
    /// An operator accepts that this node may lack something.
    pub(crate) waived: bool,
    // Faults that wait for their chance.
    pub(crate) ambiguous: u32,
    pub(crate) claim_answer_lost: bool,
    pub(crate) promotion_fails: bool,
    pub(crate) slow_promotion: bool,
}

/// How a process stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// SIGSTOP: the kernel lives.
    Stopped,
    /// The whole machine; its clock counts.
    Suspended,
    /// The whole machine; its clock stands still.
    Uncounted,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) life: u64,
    pub(crate) identity: Arc<Identity>,
    pub(crate) node: Node,
    pub(crate) gate: Option<Gate>,
    pub(crate) client: Client,
    pub(crate) link: Option<u64>,
    pub(crate) tables: Tables,
    pub(crate) dial_time_out: Micros,
    pub(crate) firing: BTreeSet<AlertName>,
    effects: VecDeque<(Micros, Effect)>,
    timer_at: Option<Micros>,
}

/// An open gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    pub(crate) epoch: Epoch,
    pub(crate) until: Moment,
    /// Lets nobody in any more; who is inside is gone by then, if that is known.
    pub(crate) held: Option<Option<Micros>>,
}

impl Host {
    pub(crate) fn new(index: usize, clock: Clock) -> Self {
        Self {
            clock,
            up: true,
            pause: None,
            process: None,
            held: Vec::new(),
            excused_until: 0,
            instance: Instance(0xa0 + index as u128),
            boot: (index as u128 + 1) << 64,
            disk: Disk::default(),
            log_failed: false,
            waived: false,
            ambiguous: 0,
            claim_answer_lost: false,
            promotion_fails: false,
            slow_promotion: false,
        }
    }

    /// The machine as a whole stands still.
    pub(crate) fn suspended(&self) -> bool {
        matches!(self.pause, Some(Pause::Suspended | Pause::Uncounted))
    }

    /// The epoch in which this host may act right now.
    pub(crate) fn may_act(&self, now: Micros) -> Option<Epoch> {
        let gate = self.process.as_ref()?.gate?;
        (self.pause.is_none() && self.clock.moment(now) < gate.until).then_some(gate.epoch)
    }
}

impl World {
    // --- life and death

    pub(crate) fn start_process(&mut self, host: usize) {
        if self.hosts[host].process.is_some() {
            return;
        }
        let life = self.next_life;
        self.next_life += 1;
        let machine = &mut self.hosts[host];
        machine.up = true;
        let identity = Identity {
            incarnation: Incarnation {
                node: NodeId::new(NAMES[host]),
                instance: machine.instance,
                boot_id: BootId(machine.boot),
            },
            life,
            pair: "pair".into(),
            root: "/hotpair".into(),
            config_digest: 1,
            version: "0".into(),
        };
        let now = machine.clock.moment(self.now);
        let node = Node::new(now, self.plan.settings.clone(), identity.clone());
        let dial_time_out = self.rng.u64(200 * MS..900 * MS);
        self.hosts[host].process = Some(Process {
            life,
            identity: Arc::new(identity),
            node,
            gate: None,
            client: Client::default(),
            link: None,
            tables: Tables::default(),
            dial_time_out,
            firing: BTreeSet::new(),
            effects: VecDeque::new(),
            timer_at: Some(self.now),
        });
        self.note(Some(host), format_args!("process {life} starts"));
        let at = self.now;
        self.after(0, Event::Timer { host, life, at });
        self.open_tables(host);
    }

    /// kill -9, or the end of a process: what it was about to do is not done.
    pub(crate) fn end_process(&mut self, host: usize) {
        if self.hosts[host].process.is_none() {
            return;
        }
        self.note(Some(host), format_args!("the process is gone"));
        if self.hosts[host].up {
            self.end_connections(host);
        } else {
            self.forget_connections(host);
        }
        self.abandon_session(host, false);
        let machine = &mut self.hosts[host];
        machine.process = None;
        machine.log_failed = false;
        machine.waived = false;
        machine.held.clear();
        machine.pause = None;
        machine.excused_until = 0;
        machine.clock.run_on(self.now);
    }

    pub(crate) fn kill_machine(&mut self, host: usize) {
        self.hosts[host].up = false;
        self.end_process(host);
        self.hosts[host].boot += 1;
        self.cut_log(host);
    }

    // --- standing still

    pub(crate) fn pause(&mut self, host: usize, how: Pause) {
        self.note(Some(host), format_args!("stands still ({how:?})"));
        let now = self.now;
        let machine = &mut self.hosts[host];
        machine.pause = Some(how);
        if how == Pause::Uncounted {
            machine.clock.stand_still(now);
        }
    }

    pub(crate) fn resume(&mut self, host: usize) {
        let Some(pause) = self.hosts[host].pause.take() else { return };
        self.note(Some(host), format_args!("runs on"));
        let now = self.now;
        let machine = &mut self.hosts[host];
        if pause == Pause::Uncounted {
            machine.clock.run_on(now);
            // A lease and what was said of it may be wrong for as long as one lasts.
            machine.excused_until = now + self.plan.timeout;
        }
        let mut held = std::mem::take(&mut machine.held);
        // Which thread runs first is not known: the timer may be found before or after the rest.
        if self.chance(500) {
            held.sort_by_key(|e| !matches!(e, Event::Timer { .. }));
        }
        for event in held {
            self.schedule.push(now, event);
        }
    }

    // --- deciding

    /// A fact reaches the process.
    pub(crate) fn tell(&mut self, host: usize, fact: Fact) {
        let line = if self.transcript.wanted() { fact_line(&fact) } else { None };
        let machine = &mut self.hosts[host];
        let now = machine.clock.moment(self.now);
        let Some(process) = &mut machine.process else { return };
        let mut fx = std::mem::take(&mut self.effects);
        process.node.handle(now, fact, &mut fx);
        self.decided(host, line, fx);
    }

    pub(crate) fn handle_timer(&mut self, host: usize, life: u64, at: Micros) {
        // Only the newest timer counts: earlier ones were overtaken by an earlier deadline.
        if self.process(host).is_none_or(|p| p.life != life || p.timer_at != Some(at)) {
            return;
        }
        self.checker.wakes[host] += 1;
        let machine = &mut self.hosts[host];
        let now = machine.clock.moment(self.now);
        let process = machine.process.as_mut().expect("seen alive");
        process.timer_at = None;
        let mut fx = std::mem::take(&mut self.effects);
        let first = process.client.generation == 0;
        if first || process.node.deadline().is_some_and(|due| due <= now) {
            process.node.handle_timeout(now, &mut fx);
        }
        self.decided(host, None, fx);
    }

    fn decided(&mut self, host: usize, line: Option<String>, mut fx: Vec<Effect>) {
        if self.transcript.wanted() {
            self.write_line(host, line, &fx);
        }
        self.check_decision(host, &fx);
        for effect in fx.drain(..) {
            self.queue_effect(host, effect);
        }
        self.effects = fx;
        self.set_timer(host);
    }

    fn write_line(&mut self, host: usize, line: Option<String>, fx: &[Effect]) {
        let done: Vec<String> = fx.iter().filter_map(effect_line).collect();
        if line.is_none() && done.is_empty() {
            return;
        }
        let clock = self.hosts[host].clock.moment(self.now);
        let process = self.process(host).expect("it just decided");
        let s = process.node.statement(clock);
        let serving = if s.serving { ", serving" } else { "" };
        let text = format!(
            "[{} ms, {}@{}{serving}] {} ⇒ {}",
            clock.0,
            s.role,
            s.epoch,
            line.unwrap_or_else(|| "time".to_owned()),
            done.join("; ")
        );
        self.note(Some(host), format_args!("{text}"));
    }

    fn set_timer(&mut self, host: usize) {
        let late = if self.chance(20) { self.rng.u64(0..10 * MS) } else { self.rng.u64(0..500) };
        let now = self.now;
        let machine = &mut self.hosts[host];
        let Some(process) = &mut machine.process else { return };
        let Some(deadline) = process.node.deadline() else { return };
        let at = machine.clock.world(deadline).max(now) + late;
        if process.timer_at.is_some_and(|earlier| earlier <= at) {
            return;
        }
        process.timer_at = Some(at);
        let life = process.life;
        self.schedule.push(at, Event::Timer { host, life, at });
    }

    // --- doing

    fn queue_effect(&mut self, host: usize, effect: Effect) {
        let delayed = self.chance(self.plan.sluggish);
        let delay = if delayed { self.rng.u64(10..4 * MS) } else { 0 };
        let now = self.now;
        let Some(process) = &mut self.hosts[host].process else { return };
        let before = process.effects.back().map(|(at, _)| *at);
        if delay == 0 && before.is_none() {
            self.carry_out(host, effect);
            return;
        }
        let at = before.unwrap_or(now).max(now) + delay;
        process.effects.push_back((at, effect));
        let life = process.life;
        self.schedule.push(at, Event::Carry { host, life });
    }

    pub(crate) fn handle_carry(&mut self, host: usize, life: u64) {
        if !self.alive(host, life) {
            return;
        }
        let process = self.hosts[host].process.as_mut().expect("seen alive");
        if let Some((_, effect)) = process.effects.pop_front() {
            self.carry_out(host, effect);
        }
    }

    fn carry_out(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::ZooKeeper(order) => self.order(host, order),
            Effect::Dial { statement } => self.dial(host, statement),
            Effect::DropLink => self.drop_link(host),
            Effect::SendPing { number, statement } => self.send_ping(host, number, statement),
            Effect::AnswerPeer { connection, number, statement } => {
                self.answer_peer(host, connection, number, statement);
            }
            Effect::OpenGate { epoch, until } => self.open_gate(host, epoch, until),
            Effect::ExtendLease { epoch, until } => {
                if let Some(gate) = self.gate(host).filter(|g| g.epoch == epoch) {
                    gate.until = until;
                }
            }
            Effect::CloseGate { epoch } => {
                if self.gate(host).is_some_and(|g| g.epoch == epoch) {
                    self.hosts[host].process.as_mut().expect("it has a gate").gate = None;
                }
            }
            Effect::HoldGate { epoch } => self.hold_gate(host, epoch),
            Effect::AdmitAgain { epoch } => self.admit_again(host, epoch),
            Effect::Drain { epoch, hold, ms_max } => {
                // Now and then a request does not end in time.
                let wait = self.rng.u64(0..ms_max * MS * 5 / 4);
                let wait = if self.chance(700) { wait / 20 } else { wait };
                let empty_at = self.now + wait;
                if let Some(gate) = self.gate(host).filter(|g| g.epoch == epoch) {
                    // Nobody came in since an earlier drain, if the gate held ever since.
                    let earlier = gate.held.flatten().unwrap_or(empty_at);
                    gate.held = Some(Some(empty_at.min(earlier)));
                }
                self.own_fact(host, wait, Fact::Drained { epoch, hold });
            }
            Effect::WriteBarrier { epoch, hold } => self.write_barrier(host, epoch, hold),
            Effect::LoadDatasets { epoch } => self.load_datasets(host, epoch),
            Effect::DropDatasets | Effect::Record(_) => {}
            Effect::Alert(alert) => self.alert(host, &alert),
            Effect::PrepareTables { epoch } => self.prepare_tables(host, epoch),
            Effect::StandDown => self.stand_tables_down(host),
            Effect::AcknowledgeAlone { epoch, loss } => self.acknowledge_alone(host, epoch, loss),
            Effect::Follow { master } => self.follow(host, master),
            Effect::Remember { epoch, cluster } => self.remember(host, epoch, cluster),
            Effect::FinishOrder { order, outcome } => {
                self.order_finished(host, order, outcome.is_ok());
            }
            Effect::FinishSwitchover { order, report } => {
                self.note(Some(host), format_args!("switchover {order}: {report:?}"));
                self.order_finished(host, order, report.done);
            }
            Effect::Exit => self.exit(host),
        }
    }

    fn gate(&mut self, host: usize) -> Option<&mut Gate> {
        self.hosts[host].process.as_mut().and_then(|p| p.gate.as_mut())
    }

    fn open_gate(&mut self, host: usize, epoch: Epoch, until: Moment) {
        let clock = self.hosts[host].clock.moment(self.now);
        let process = self.process(host).expect("effects belong to a process");
        let promoting = process.node.statement(clock).role == Role::Promoting;
        if promoting && std::mem::take(&mut self.hosts[host].promotion_fails) {
            self.storm.happened(Fault::PromotionFailure);
            let what = "the gate does not open".to_owned();
            self.own_fact(host, 3 * MS, Fact::PromotionFailed { epoch, what });
            return;
        }
        self.hosts[host].process.as_mut().expect("seen above").gate =
            Some(Gate { epoch, until, held: None });
        self.check_opened(host, epoch);
        let wait = self.rng.u64(0..2 * MS);
        self.own_fact(host, wait, Fact::GateOpened { epoch });
    }

    fn hold_gate(&mut self, host: usize, epoch: Epoch) {
        if let Some(gate) = self.gate(host).filter(|g| g.epoch == epoch) {
            gate.held.get_or_insert(None);
        }
    }

    fn admit_again(&mut self, host: usize, epoch: Epoch) {
        if let Some(gate) = self.gate(host).filter(|g| g.epoch == epoch) {
            gate.held = None;
            self.check_admitted(host, epoch);
        }
    }

    fn load_datasets(&mut self, host: usize, epoch: Epoch) {
        let slow = self.hosts[host].slow_promotion;
        let wait = self.rng.u64(0..if slow { 8_000 * MS } else { 300 * MS });
        let failed = u32::from(slow && self.chance(500));
        if failed > 0 {
            let reason = Some("row 7 is broken".to_owned());
            self.own_fact(host, wait, Fact::DatasetFailed { name: "prices".to_owned(), reason });
            let well = Fact::DatasetFailed { name: "prices".to_owned(), reason: None };
            self.own_fact(host, wait + 2_000 * MS, well);
        }
        self.own_fact(host, wait, Fact::DatasetsSettled { epoch, failed });
    }

    /// A fact that the process tells itself.
    pub(crate) fn own_fact(&mut self, host: usize, wait: Micros, fact: Fact) {
        if let Some(life) = self.process(host).map(|p| p.life) {
            self.after(wait, Event::Fact { host, life, fact });
        }
    }

    fn alert(&mut self, host: usize, alert: &Alert) {
        let process = self.hosts[host].process.as_mut().expect("effects belong to a process");
        match alert.firing {
            Some(_) => process.firing.insert(alert.name),
            None => process.firing.remove(&alert.name),
        };
    }

    fn exit(&mut self, host: usize) {
        self.check_exit(host);
        self.storm.happened(Fault::Shutdown);
        let closes = self.chance(700);
        self.abandon_session(host, closes);
        self.end_process(host);
        self.restart_later(host, (50 * MS, 4_000 * MS));
    }
}
