//! Who may serve, and who may acknowledge alone: the pair's deciding, told as shortly as rules 7 and
//! 9 of the design allow. It runs beside the tables' thread; facts and orders take their time.

use hotpair_core::pair::fact::TablesFact;
use hotpair_core::pair::identity::{Epoch, Incarnation};
use hotpair_core::tables::position::Position;

use crate::clock::{MS, Micros};

use super::AgentBug;
use super::coordinator::{Answer, Ask, Holder, Members, Picture, SyncRecord};
use super::host::{Input, Order};
use super::world::{Event, World};

/// The agent looks around this often.
pub(super) const TICK: Micros = 60 * MS;
/// Positions are compared once nobody has been followed for so long.
const CALM: Micros = 500 * MS;
/// A barrier is written about so often, in milliseconds.
const BARRIER_EVERY: u64 = 1_500;
/// A promotion that is not ready by then is given up.
const READY_WITHIN: Micros = 3_000 * MS;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Agent {
    role: Role,
    /// What the tables hold, as far as they said; not known while they are written here.
    holds: Option<(Position, bool)>,
    /// Who was told to be followed.
    followed: Option<Option<Epoch>>,
    /// The question under way; answers to others are late.
    asking: Option<u64>,
    /// Since when nobody is followed.
    unfollowed: Micros,
    hold_off: Micros,
    /// What came while the process was held.
    missed: Vec<Missed>,
}

#[derive(Debug)]
enum Missed {
    Fact(TablesFact),
    Answer(u64, Answer),
}

#[derive(Debug)]
enum Role {
    Standby,
    /// A claim is under way.
    Claiming,
    Master(Box<Mastership>),
}

#[derive(Debug)]
struct Mastership {
    epoch: u64,
    since: Micros,
    lease_until: Micros,
    beaten_at: Micros,
    ready: bool,
    /// The record, if it is known for certain and no write of ours may still come.
    record: Option<SyncRecord>,
    /// A write without a definite answer: only another write settles it.
    unsettled: bool,
    writing: Option<Members>,
    wish: Members,
    loss: Option<u64>,
}

impl Agent {
    pub(super) fn new(position: Position, complete: bool) -> Self {
        Self {
            role: Role::Standby,
            holds: Some((position, complete)),
            followed: None,
            asking: None,
            unfollowed: Micros::MAX,
            hold_off: 0,
            missed: Vec::new(),
        }
    }

    pub(super) fn lease_until(&self) -> Micros {
        match &self.role {
            Role::Master(mastership) => mastership.lease_until,
            Role::Standby | Role::Claiming => 0,
        }
    }

    pub(super) fn holds(&self) -> Option<(Position, bool)> {
        self.holds
    }

    fn mastership(&mut self) -> Option<&mut Mastership> {
        match &mut self.role {
            Role::Master(mastership) => Some(mastership),
            Role::Standby | Role::Claiming => None,
        }
    }

    fn stands_by(&self) -> bool {
        matches!(self.role, Role::Standby)
    }
}

impl World {
    fn agent(&mut self, host: usize) -> &mut Agent {
        &mut self.hosts[host].process.as_mut().expect("an agent is asked of a process").agent
    }

    // --- the queues between the two threads

    pub(super) fn send_fact(&mut self, host: usize, fact: TablesFact) {
        let wait = self.rng.u64(0..=self.plan.queue);
        let at = self.now + wait;
        let process = self.hosts[host].process.as_mut().expect("who tells runs");
        process.facts_at = process.facts_at.max(at);
        let (at, life) = (process.facts_at, process.life);
        self.schedule.push(at, Event::Fact { host, life, fact });
    }

    fn order(&mut self, host: usize, order: Order) {
        let wait = self.rng.u64(0..=self.plan.queue);
        let at = self.now + wait;
        let process = self.hosts[host].process.as_mut().expect("who orders runs");
        process.orders_at = process.orders_at.max(at);
        let (at, life) = (process.orders_at, process.life);
        self.schedule.push(at, Event::Order { host, life, order });
    }

    pub(super) fn handle_order(&mut self, host: usize, life: u64, order: Order) {
        if self.hosts[host].process.as_ref().is_some_and(|process| process.life == life) {
            self.input(host, Input::Order(order));
        }
    }

    /// After a pause: what came meanwhile.
    pub(super) fn catch_up(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        let life = process.life;
        for missed in std::mem::take(&mut self.agent(host).missed) {
            match missed {
                Missed::Fact(fact) => self.handle_fact(host, life, fact),
                Missed::Answer(question, answer) => {
                    self.handle_answer(host, life, question, answer);
                }
            }
        }
        self.tick(host);
    }

    // --- facts

    pub(super) fn handle_fact(&mut self, host: usize, life: u64, fact: TablesFact) {
        let paused = self.hosts[host].paused;
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.life != life {
            return;
        }
        if paused {
            return process.agent.missed.push(Missed::Fact(fact));
        }
        match fact {
            TablesFact::Moved { position, complete } => {
                process.agent.holds = Some((position, complete));
                if !complete && process.agent.mastership().is_some() {
                    self.resign(host, "its tables are not whole");
                }
            }
            TablesFact::Ready { epoch } => self.handle_ready(host, epoch),
            TablesFact::PeerCaughtUp { epoch, peer } => self.handle_caught_up(host, epoch, &peer),
            TablesFact::PeerLost { epoch, loss } => self.handle_lost(host, epoch, loss),
            TablesFact::BarrierHeld { .. } => self.outcome.barriers += 1,
            TablesFact::Opened { .. }
            | TablesFact::Failed { .. }
            | TablesFact::DiskFull { .. }
            | TablesFact::DigestMismatch { .. }
            | TablesFact::Behind { .. }
            | TablesFact::Diverged { .. } => {}
        }
    }

    fn handle_ready(&mut self, host: usize, epoch: Epoch) {
        let now = self.now;
        let process = self.hosts[host].process.as_mut().expect("it says that it is ready");
        let Some(mastership) = process.agent.mastership() else { return };
        if mastership.epoch == epoch.0 && now < mastership.lease_until {
            mastership.ready = true;
            process.gate = Some(epoch);
        }
    }

    fn handle_caught_up(&mut self, host: usize, epoch: Epoch, peer: &Incarnation) {
        let boot = self.hosts[host].boot;
        let Some(mastership) = self.agent(host).mastership() else { return };
        if mastership.epoch == epoch.0 {
            mastership.wish = vec![(host, boot), (1 - host, peer.boot_id.0)];
            mastership.loss = None;
            self.keep_sync(host);
        }
    }

    fn handle_lost(&mut self, host: usize, epoch: Epoch, loss: u64) {
        let boot = self.hosts[host].boot;
        let Some(mastership) = self.agent(host).mastership() else { return };
        if mastership.epoch == epoch.0 {
            mastership.wish = vec![(host, boot)];
            mastership.loss = Some(loss);
            self.keep_sync(host);
        }
    }

    /// Takes the step towards the wished record that is due.
    fn keep_sync(&mut self, host: usize) {
        let agent = self.agent(host);
        let asking = agent.asking;
        let Some(mastership) = agent.mastership() else { return };
        let epoch = mastership.epoch;
        let Some(record) = &mastership.record else {
            if asking.is_none() {
                self.ask_alone(host, Ask::Look);
            }
            return;
        };
        if record.members == mastership.wish && !mastership.unsettled {
            // One member: that is us.
            if record.members.len() == 1
                && mastership.writing.is_none()
                && let Some(loss) = mastership.loss.take()
            {
                self.order(host, Order::AcknowledgeAlone { epoch: Epoch(epoch), loss });
            }
            return;
        }
        if asking.is_none() {
            let (version, members) = (record.version, mastership.wish.clone());
            mastership.writing = Some(members.clone());
            self.ask_alone(host, Ask::WriteSync { epoch, version, members });
        }
    }

    /// One question at a time, but for heartbeats.
    fn ask_alone(&mut self, host: usize, ask: Ask) {
        let question = self.ask(host, ask);
        self.agent(host).asking = Some(question);
    }

    // --- answers

    pub(super) fn handle_answer(&mut self, host: usize, life: u64, question: u64, answer: Answer) {
        let paused = self.hosts[host].paused;
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.life != life {
            return;
        }
        if paused {
            return process.agent.missed.push(Missed::Answer(question, answer));
        }
        let agent = &mut process.agent;
        let alone =
            !matches!(answer, Answer::Nothing | Answer::Beaten { .. } | Answer::NotYours { .. });
        if alone && agent.asking.take_if(|asked| *asked == question).is_none() {
            return;
        }
        match answer {
            Answer::Nothing => {}
            Answer::Beaten { epoch, sent } => {
                let lease = self.plan.session * 2 / 3;
                if let Some(mastership) = agent.mastership()
                    && mastership.epoch == epoch
                {
                    mastership.lease_until = mastership.lease_until.max(sent + lease);
                }
            }
            Answer::NotYours { epoch } => {
                if agent.mastership().is_some_and(|mastership| mastership.epoch == epoch) {
                    self.resign(host, "the epoch is another's");
                }
            }
            Answer::Picture(picture) => {
                self.look(host, picture);
            }
            Answer::Claimed { epoch, sync, sent } => {
                self.become_master(host, epoch, sync, sent);
            }
            Answer::ClaimRefused => {
                agent.role = Role::Standby;
            }
            Answer::SyncWritten(record) => {
                if let Some(mastership) = agent.mastership() {
                    mastership.writing = None;
                    mastership.unsettled = false;
                    mastership.record = Some(record);
                    self.keep_sync(host);
                }
            }
            Answer::SyncRefused => {
                if let Some(mastership) = agent.mastership() {
                    mastership.writing = None;
                    mastership.record = None;
                }
            }
            Answer::Ambiguous => self.handle_ambiguous(host),
        }
    }

    fn handle_ambiguous(&mut self, host: usize) {
        let taken_for_done = self.options.bug == Some(AgentBug::AmbiguousTakenForDone);
        let agent = self.agent(host);
        match &mut agent.role {
            Role::Standby => {}
            // Whether it is ours, the next look shows.
            Role::Claiming => agent.role = Role::Standby,
            Role::Master(mastership) => {
                let Some(members) = mastership.writing.take() else { return };
                mastership.unsettled = !taken_for_done;
                if taken_for_done && let Some(record) = &mut mastership.record {
                    *record = SyncRecord { version: record.version + 1, members };
                    self.keep_sync(host);
                } else {
                    mastership.record = None;
                }
            }
        }
    }

    fn look(&mut self, host: usize, picture: Picture) {
        let now = self.now;
        let life = self.hosts[host].process.as_ref().expect("it looks").life;
        if let Some(mastership) = self.agent(host).mastership() {
            let epoch = mastership.epoch;
            let mine = Holder { host, life, epoch };
            if picture.holder != Some(mine) {
                return self.resign(host, "the coordinator knows another master");
            }
            mastership.record = Some(picture.sync);
            return self.keep_sync(host);
        }
        match picture.holder {
            Some(holder) if holder.host == host && holder.life == life => {
                // Our own claim, which nobody had answered. Its lease is unknown: give it back.
                self.ask(host, Ask::GiveBack { epoch: holder.epoch });
            }
            Some(holder) if holder.host != host => self.follow(host, Some(Epoch(holder.epoch))),
            Some(_) | None => {
                let named = picture.sync.members.contains(&(host, self.hosts[host].boot));
                if self.plan.unfollow || !named {
                    self.follow(host, None);
                }
                if now >= self.agent(host).hold_off && self.may_claim(host, &picture.sync) {
                    self.claim(host, picture.sync.version);
                }
            }
        }
    }

    fn follow(&mut self, host: usize, master: Option<Epoch>) {
        let now = self.now;
        let agent = self.agent(host);
        if agent.followed != Some(master) {
            agent.followed = Some(master);
            agent.unfollowed = if master.is_none() { now } else { Micros::MAX };
            self.order(host, Order::Follow(master));
        }
    }

    /// Rule 9.
    fn may_claim(&mut self, host: usize, sync: &SyncRecord) -> bool {
        let boot = self.hosts[host].boot;
        let Some((position, complete)) = self.agent(host).holds else { return false };
        if !complete {
            return false;
        }
        if self.options.bug == Some(AgentBug::ClaimWithoutSync)
            || sync.members.contains(&(host, boot))
        {
            return true;
        }
        let other = &self.hosts[1 - host];
        if !self.cable.well() || !other.runs() {
            return false;
        }
        let Some(other) = &other.process else { return false };
        match other.agent.holds {
            Some((_, false)) => other.agent.stands_by(),
            Some((theirs, true)) => {
                // What it said is what it has only if nothing was written there for a while, and
                // its tables' thread has taken the order not to follow.
                let calm = self.now >= other.agent.unfollowed.saturating_add(CALM);
                let idle = other.busy.is_none() && other.stuck.is_none() && other.inbox.is_empty();
                other.agent.stands_by() && calm && idle && position >= theirs
            }
            None => false,
        }
    }

    fn claim(&mut self, host: usize, sync_version: u64) {
        self.follow(host, None);
        let sent = self.now;
        let agent = self.agent(host);
        agent.role = Role::Claiming;
        self.note(Some(host), format_args!("claims"));
        self.ask_alone(host, Ask::Claim { sync_version, sent });
    }

    fn become_master(&mut self, host: usize, epoch: u64, sync: SyncRecord, sent: Micros) {
        let (now, lease) = (self.now, self.plan.session * 2 / 3);
        let agent = self.agent(host);
        let wish = sync.members.clone();
        agent.holds = None;
        agent.followed = None;
        agent.unfollowed = Micros::MAX;
        agent.role = Role::Master(Box::new(Mastership {
            epoch,
            since: now,
            lease_until: sent + lease,
            beaten_at: sent,
            ready: false,
            record: Some(sync),
            unsettled: false,
            writing: None,
            wish,
            loss: None,
        }));
        self.note(Some(host), format_args!("is master of epoch {epoch}"));
        self.outcome.masterships += 1;
        self.order(host, Order::Prepare(Epoch(epoch)));
    }

    /// Leaves the mastership: first the gate, then everything else.
    pub(super) fn resign(&mut self, host: usize, why: &str) {
        self.note(Some(host), format_args!("resigns: {why}"));
        let hold_off = self.now + self.rng.u64(50..1_200) * MS;
        let process = self.hosts[host].process.as_mut().expect("it resigns");
        process.gate = None;
        let Some(mastership) = process.agent.mastership() else { return };
        let epoch = mastership.epoch;
        process.agent.role = Role::Standby;
        process.agent.holds = None;
        process.agent.asking = None;
        process.agent.hold_off = hold_off;
        self.order(host, Order::StandDown);
        self.ask(host, Ask::GiveBack { epoch });
    }

    // --- time

    pub(super) fn handle_tick(&mut self, host: usize, life: u64) {
        let slot = &self.hosts[host];
        if slot.process.as_ref().is_none_or(|process| process.life != life) {
            return;
        }
        if !slot.paused {
            self.tick(host);
        }
        let wait = TICK / 2 + self.rng.u64(0..TICK);
        self.after(wait, Event::Tick { host, life });
    }

    /// As a planned switch would, which is tried every now and then.
    fn write_barrier(&mut self, host: usize) {
        let now_ms = self.now / MS;
        let Some(mastership) = self.agent(host).mastership() else { return };
        if mastership.ready && now_ms % BARRIER_EVERY < TICK / MS {
            let (epoch, hold) = (Epoch(mastership.epoch), now_ms);
            self.order(host, Order::WriteBarrier { epoch, hold });
        }
    }

    fn tick(&mut self, host: usize) {
        self.write_barrier(host);
        let (now, session) = (self.now, self.plan.session);
        let agent = self.agent(host);
        let Some(mastership) = agent.mastership() else {
            if agent.asking.is_none() {
                self.ask_alone(host, Ask::Look);
            }
            return;
        };
        if now >= mastership.lease_until {
            return self.resign(host, "the lease is over");
        }
        if !mastership.ready && now >= mastership.since + READY_WITHIN {
            return self.resign(host, "its tables do not get ready");
        }
        if now >= mastership.beaten_at + session / 6 {
            mastership.beaten_at = now;
            let epoch = mastership.epoch;
            self.ask(host, Ask::Heartbeat { epoch, sent: now });
        }
        self.keep_sync(host);
    }
}
