//! The tables' thread: one input after the other, and what the machine wants, carried out in order.
//!
//! A careful driver waits for the disk before anything else. An eager one goes on when the disk has
//! no room: with the effects that follow, then with orders and time only, until there is room.

use hotpair_core::tables::change::{Refusal, Verdict};
use hotpair_core::tables::replication::TablesEffect;

use crate::clock::MS;

use super::host::{Busy, Input, Order};
use super::world::{Event, World};

/// Inputs that may wait for the tables' thread.
const INBOX_MAX: usize = 4_096;
/// Requests in a batch.
const BATCH_MAX: u32 = 16;

impl World {
    /// Something came for the tables' thread.
    pub(super) fn input(&mut self, host: usize, input: Input) {
        let full = self.hosts[host].full;
        let Some(process) = &mut self.hosts[host].process else { return };
        match input {
            Input::Submit(request)
                if full && (process.busy.is_some() || process.stuck.is_some()) =>
            {
                let refusal = Refusal::Busy("the disk is full".to_owned());
                return self.answer(host, request.ticket, &Verdict::Refused(refusal));
            }
            // Of a mastership that is over nobody was told that it is done: what has no room may go,
            // and orders overtake the rest.
            Input::Order(Order::StandDown) if full && process.epoch().is_some() => {
                process.busy.take_if(|busy| matches!(busy, Busy::Append(_)));
                process.stuck = None;
                process.effects.retain(|effect| !matches!(effect, TablesEffect::Append(_)));
                // Refused like any other change: nothing goes into the log after what went.
                let barrier =
                    |input: &Input| matches!(input, Input::Order(Order::WriteBarrier { .. }));
                process.inbox.retain(|input| !barrier(input));
                process.inbox.push_back(input);
                let is_order = |input: &Input| matches!(input, Input::Order(_));
                process.inbox.make_contiguous().sort_by_key(|input| !is_order(input));
            }
            Input::Submit(_)
            | Input::Order(_)
            | Input::FollowerCame { .. }
            | Input::FollowerHolds { .. }
            | Input::FollowerGone { .. }
            | Input::MasterSaid { .. }
            | Input::MasterGone { .. }
            | Input::Time => process.inbox.push_back(input),
        }
        if process.inbox.len() > INBOX_MAX {
            let what =
                format!("{INBOX_MAX} inputs wait for the tables of {}", super::host::NAMES[host]);
            self.check.broken(super::check::Rule::Bounded, what);
        }
        self.turn(host);
    }

    /// The thread goes on as far as it can.
    pub(super) fn turn(&mut self, host: usize) {
        while self.check.violation.is_none() {
            if !self.hosts[host].runs() {
                return;
            }
            if self.strike_if_aimed() {
                continue;
            }
            let Some(process) = &mut self.hosts[host].process else { return };
            if process.busy.is_some() {
                return;
            }
            if let Some(effect) = process.effects.pop_front() {
                self.carry_out(host, effect);
                continue;
            }
            let next = if process.takes_orders_only() {
                let may = |input: &Input| matches!(input, Input::Order(_) | Input::Time);
                let first = process.inbox.iter().position(may);
                first.and_then(|index| process.inbox.remove(index))
            } else {
                process.inbox.pop_front()
            };
            if let Some(input) = next {
                self.take(host, input);
                continue;
            }
            let mut fx = Vec::new();
            process.machine.flush(&mut fx);
            process.unflushed = 0;
            if fx.is_empty() {
                return self.arm(host);
            }
            process.effects.extend(fx);
        }
    }

    /// The thread wants to be woken when the machine wants it.
    fn arm(&mut self, host: usize) {
        let now = self.now;
        let Some(process) = &mut self.hosts[host].process else { return };
        let Some(deadline) = process.machine.deadline() else { return };
        let at = (deadline.0.saturating_sub(process.offset_ms) * MS).max(now + MS);
        if process.timer.is_none_or(|timer| timer > at || timer <= now) {
            process.timer = Some(at);
            let life = process.life;
            self.schedule.push(at, Event::Timer { host, life });
        }
    }

    pub(super) fn handle_timer(&mut self, host: usize, life: u64) {
        let now = self.now;
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.life != life || process.timer.is_some_and(|at| at > now) {
            return;
        }
        process.timer = None;
        if process.machine.deadline().is_some_and(|at| process.moment(now) >= at) {
            self.input(host, Input::Time);
        } else {
            self.turn(host);
        }
    }

    fn take(&mut self, host: usize, input: Input) {
        let now = self.now;
        self.note_input(host, &input);
        let process = self.hosts[host].process.as_mut().expect("its thread takes an input");
        let (at, mut fx) = (process.moment(now), Vec::new());
        let (machine, store) = (&mut process.machine, &mut process.store);
        match input {
            Input::Submit(request) => {
                machine.submit(store, request, &mut fx);
                process.unflushed += 1;
                if process.unflushed >= BATCH_MAX {
                    process.unflushed = 0;
                    machine.flush(&mut fx);
                }
            }
            Input::Order(order) => return self.take_order(host, order),
            Input::FollowerCame { connection, follow } => {
                let oldest = self.hosts[host].disk.oldest();
                machine.follower_came(at, connection, &follow, oldest, &mut fx);
            }
            Input::FollowerHolds { connection, number } => {
                machine.follower_holds(at, connection, number, store, &mut fx);
            }
            Input::FollowerGone { connection } => {
                process.shipper.take_if(|shipper| shipper.connection == connection);
                machine.follower_gone(connection, &mut fx);
            }
            Input::MasterSaid { connection, frame } => {
                // A late word of a connection that was hung up is not for the machine.
                if process.dialled == Some(connection) {
                    self.note_frame(host, &frame);
                    let process = self.hosts[host].process.as_mut().expect("as above");
                    let store = &mut process.store;
                    let said = process.machine.master_said(at, frame, store, &mut fx);
                    if let Err(why) = said {
                        self.note(Some(host), format_args!("cannot follow: {why}"));
                    }
                }
                self.taken_in(connection, host);
            }
            Input::MasterGone { connection } => {
                if process.dialled.take_if(|dialled| *dialled == connection).is_some() {
                    process.phase = None;
                    machine.master_gone(at, &mut fx);
                }
            }
            Input::Time => machine.handle_timeout(at, &mut fx),
        }
        let process = self.hosts[host].process.as_mut().expect("as above");
        process.effects.extend(fx);
    }

    fn take_order(&mut self, host: usize, order: Order) {
        let now = self.now;
        let process = self.hosts[host].process.as_mut().expect("its thread takes an order");
        let (at, mut fx) = (process.moment(now), Vec::new());
        match order {
            Order::Prepare(_) if process.takes_orders_only() => {
                // Not with such a disk: the agent gives the epoch back when nothing comes of it.
            }
            Order::Prepare(epoch) => {
                process.phase = None;
                // A row that is not what it was is nobody's fault here, if nobody could know.
                if let Some(flip) = process.flip.take_if(|flip| !flip.told) {
                    process.store.put(&flip.table, &flip.key, flip.row);
                }
                process.machine.prepare(at, epoch, &mut process.store, &mut fx);
            }
            Order::StandDown => {
                // What had no room in this mastership never was; what a standby got still has to be.
                if process.epoch().is_some() {
                    process.stuck = None;
                }
                process.machine.stand_down(at, &mut process.store, &mut fx);
                process.shipper = None;
            }
            Order::AcknowledgeAlone { epoch, loss } => {
                let store = &mut process.store;
                process.machine.acknowledge_alone(at, epoch, loss, store, &mut fx);
            }
            Order::WriteBarrier { .. } if process.takes_orders_only() => {}
            Order::WriteBarrier { epoch, hold } => {
                process.machine.write_barrier(epoch, hold, &mut fx);
            }
            Order::Follow(master) => process.machine.follow(at, master, &mut fx),
        }
        process.effects.extend(fx);
    }

    /// What the thread waited for is done.
    pub(super) fn handle_disk(&mut self, host: usize, life: u64, operation: u64) {
        let slot = &mut self.hosts[host];
        let Some(process) = &mut slot.process else { return };
        if process.life != life || self.operations[host] != operation {
            return;
        }
        if slot.full || slot.paused {
            let wait = self.rng.u64(5..40) * MS;
            return self.after(wait, Event::DiskDone { host, life, operation });
        }
        match process.busy.take() {
            Some(Busy::Append(writing)) => self.written(host, &writing),
            Some(Busy::Files(effect)) => self.change_files(host, effect),
            None => {
                if let Some(writing) = process.stuck.take() {
                    self.written(host, &writing);
                }
            }
        }
        let waits =
            |process: &super::host::Process| process.busy.is_none() && process.stuck.is_some();
        if self.hosts[host].process.as_ref().is_some_and(waits) {
            let wait = self.disk_time(host);
            self.start_operation(host, wait);
        }
        self.turn(host);
    }

    /// How long the disk takes for something.
    pub(super) fn disk_time(&mut self, host: usize) -> u64 {
        let usual = 10 + self.rng.u64(0..=self.plan.write);
        if self.hosts[host].slow { usual + self.rng.u64(10..400) * MS } else { usual }
    }

    pub(super) fn start_operation(&mut self, host: usize, wait: u64) {
        self.operations[host] += 1;
        let operation = self.operations[host];
        let life = self.hosts[host].process.as_ref().expect("whose disk works runs").life;
        self.after(wait, Event::DiskDone { host, life, operation });
    }

    /// An effect goes before those that wait: it is an answer to one of them.
    pub(super) fn extend_effects(&mut self, host: usize, fx: Vec<TablesEffect>) {
        let eager = self.plan.eager;
        let process = self.hosts[host].process.as_mut().expect("its effects are carried out");
        if eager {
            for effect in fx.into_iter().rev() {
                process.effects.push_front(effect);
            }
        } else {
            process.effects.extend(fx);
        }
    }
}
