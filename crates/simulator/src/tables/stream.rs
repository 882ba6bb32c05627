//! The connection between the two: frames under way, what ends it, and the master's shipper.
//!
//! A frame is lost only with its connection. A direction that is silent holds everything up and
//! hands it on when it is well again, if the connection is still wanted then.

use std::collections::VecDeque;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::replication::{Follow, FromMaster};
use hotpair_core::tables::snapshot::{Cursor, Piece};

use crate::clock::{MS, Micros};

use super::host::Input;
use super::world::{Event, World};

/// Frames to the standby that may be under way before the shipper waits.
const WINDOW: u32 = 24;
/// Records in a frame, at most.
const RECORDS: usize = 6;

/// What goes over a connection.
#[derive(Debug)]
pub(super) enum Frame {
    Follow(Follow),
    FromMaster(FromMaster),
    Held(u64),
    End,
}

/// A connection of the standby to the master.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) dialler: usize,
    /// The lives of the two processes, by host.
    pub(super) lives: [u64; 2],
    pub(super) open: [bool; 2],
    pub(super) pipes: [Pipe; 2],
}

/// One direction, named by the host that sends.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    last_arrival: Micros,
    /// Frames sent and not yet taken in.
    outstanding: u32,
    held_up: VecDeque<Frame>,
    /// What is under way, and all that is still sent, is lost.
    pub(super) dead: bool,
}

/// The cable.
#[derive(Debug, Default)]
pub(super) struct Cable {
    /// What this host sends does not arrive.
    pub(super) silent: [bool; 2],
    /// No connection can be made.
    pub(super) out: bool,
}

impl Cable {
    pub(super) fn well(&self) -> bool {
        !self.out && self.silent == [false; 2]
    }
}

/// The master's side of a stream: follows the log as it grows.
#[derive(Debug)]
pub(super) struct Shipper {
    pub(super) connection: u64,
    epoch: Epoch,
    stage: Stage,
    digests: VecDeque<(u64, Vec<(String, u128)>)>,
    scheduled: bool,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was sent yet. The start: a tail after this record, or a snapshot.
    BeginTail {
        after: u64,
    },
    BeginSnapshot {
        common: u64,
    },
    Begin,
    Cutting {
        cursor: Cursor,
        begun: u64,
    },
    Tail {
        next: u64,
    },
}

impl Shipper {
    pub(super) fn tail(connection: u64, epoch: Epoch, after: u64) -> Self {
        Self::new(connection, epoch, Stage::BeginTail { after })
    }

    pub(super) fn snapshot(connection: u64, epoch: Epoch, common: u64) -> Self {
        Self::new(connection, epoch, Stage::BeginSnapshot { common })
    }

    fn new(connection: u64, epoch: Epoch, stage: Stage) -> Self {
        Self { connection, epoch, stage, digests: VecDeque::new(), scheduled: false }
    }

    pub(super) fn queue_digests(&mut self, number: u64, digests: Vec<(String, u128)>) {
        if self.digests.len() < 16 {
            self.digests.push_back((number, digests));
        }
    }

    /// Records up to this one are not needed any more.
    pub(super) fn needs_after(&self) -> u64 {
        match &self.stage {
            Stage::BeginTail { after } => *after,
            Stage::BeginSnapshot { .. } | Stage::Begin => u64::MAX,
            Stage::Cutting { begun, .. } => *begun,
            Stage::Tail { next } => next - 1,
        }
    }
}

impl World {
    // --- connections

    pub(super) fn dial(&mut self, host: usize, follow: Follow) {
        self.connections_made += 1;
        let connection = self.connections_made;
        let process = self.hosts[host].process.as_mut().expect("who dials runs");
        process.dialled = Some(connection);
        process.phase = None;
        let wait = self.rng.u64(100..2 * self.plan.wire + 200);
        self.after(wait, Event::DialArrives { host, connection, follow: Box::new(follow) });
    }

    pub(super) fn handle_dial(&mut self, host: usize, connection: u64, follow: Follow) {
        let Some(process) = &self.hosts[host].process else { return };
        if process.dialled != Some(connection) {
            return; // hung up meanwhile
        }
        let (life, other) = (process.life, 1 - host);
        if !self.cable.well() || !self.hosts[other].up {
            let wait = self.rng.u64(300..1_500) * MS;
            let learn = Event::Learn { connection, end: host, life };
            return self.after(wait, learn);
        }
        let Some(answerer) = &self.hosts[other].process else {
            return self.after(self.plan.wire, Event::Learn { connection, end: host, life });
        };
        let mut lives = [life; 2];
        lives[other] = answerer.life;
        let pipes = [Pipe::default(), Pipe::default()];
        let made = Connection { dialler: host, lives, open: [true; 2], pipes };
        self.connections.insert(connection, made);
        self.send(connection, host, Frame::Follow(follow));
        let process = self.hosts[host].process.as_mut().expect("looked at above");
        process.phase = Some(super::storm::Phase::Probing);
    }

    /// The process at this end closes it.
    pub(super) fn close(&mut self, connection: u64, end: usize) {
        let Some(made) = self.connections.get_mut(&connection) else { return };
        if std::mem::take(&mut made.open[end]) {
            self.send(connection, end, Frame::End);
        }
    }

    /// The process at this end is gone; without power nobody says so.
    pub(super) fn abandon_connections(&mut self, host: usize, said: bool) {
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for connection in all {
            let half_sent = self.rng.bool();
            let wait = self.rng.u64(100..6 * MS);
            let made = self.connections.get_mut(&connection).expect("just listed");
            if !std::mem::take(&mut made.open[host]) {
                continue;
            }
            let life = made.lives[1 - host];
            if !said {
                made.pipes[host].dead = true;
            } else if half_sent && !self.cable.silent[host] {
                made.pipes[host].dead = true;
                self.after(wait, Event::Learn { connection, end: 1 - host, life });
            } else {
                self.send(connection, host, Frame::End);
            }
        }
    }

    /// Frames under way are lost; each end learns it when it learns it, or never.
    pub(super) fn cut(&mut self, connection: u64, waits: [Option<Micros>; 2]) {
        let Some(made) = self.connections.get_mut(&connection) else { return };
        made.pipes[0].dead = true;
        made.pipes[1].dead = true;
        let lives = made.lives;
        for end in 0..2 {
            if let Some(wait) = waits[end] {
                self.after(wait, Event::Learn { connection, end, life: lives[end] });
            }
        }
    }

    /// This end learns that the connection is over.
    pub(super) fn learn(&mut self, connection: u64, end: usize, life: u64) {
        if let Some(made) = self.connections.get_mut(&connection) {
            made.open[end] = false;
            if made.open == [false; 2] {
                self.connections.remove(&connection);
            }
        }
        let Some(process) = &self.hosts[end].process else { return };
        if process.life != life {
            return;
        }
        let dialled = process.dialled == Some(connection);
        let gone = if dialled {
            Input::MasterGone { connection }
        } else {
            Input::FollowerGone { connection }
        };
        self.input(end, gone);
    }

    pub(super) fn send(&mut self, connection: u64, from: usize, frame: Frame) {
        let delay = 20 + self.rng.u64(0..=self.plan.wire);
        let at = self.now + delay;
        let Some(made) = self.connections.get_mut(&connection) else { return };
        let pipe = &mut made.pipes[from];
        pipe.outstanding += 1;
        if pipe.dead {
            return;
        }
        if self.cable.silent[from] {
            pipe.held_up.push_back(frame);
            return;
        }
        pipe.last_arrival = pipe.last_arrival.max(at);
        let at = pipe.last_arrival;
        self.schedule.push(at, Event::Arrives { connection, to: 1 - from, frame });
    }

    /// A direction is well again: what it held up arrives.
    pub(super) fn hand_on(&mut self, from: usize) {
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for connection in all {
            let made = self.connections.get_mut(&connection).expect("just listed");
            let held_up = std::mem::take(&mut made.pipes[from].held_up);
            for frame in held_up {
                self.send(connection, from, frame);
            }
        }
    }

    pub(super) fn handle_arrival(&mut self, connection: u64, to: usize, frame: Frame) {
        let up = self.hosts[to].up;
        let Some(made) = self.connections.get_mut(&connection) else { return };
        let (from, life) = (1 - to, made.lives[1 - to]);
        if made.pipes[from].dead || !up {
            return;
        }
        let there = self.hosts[to].process.as_ref().is_some_and(|p| p.life == made.lives[to]);
        if !there || !made.open[to] {
            // Nobody there: the machine says so, once.
            if made.open[from] && !self.cable.silent[to] {
                made.pipes[from].dead = true;
                self.after(self.plan.wire, Event::Learn { connection, end: from, life });
            }
            return;
        }
        let to_master = made.dialler == from;
        match frame {
            Frame::End => {
                let life = made.lives[to];
                self.learn(connection, to, life);
            }
            Frame::Follow(follow) => self.input(to, Input::FollowerCame { connection, follow }),
            Frame::Held(number) => {
                assert!(to_master, "only a standby holds");
                made.pipes[from].outstanding -= 1;
                self.input(to, Input::FollowerHolds { connection, number });
            }
            Frame::FromMaster(frame) => self.input(to, Input::MasterSaid { connection, frame }),
        }
    }

    /// A frame of the master was taken in: there is room for another.
    pub(super) fn taken_in(&mut self, connection: u64, host: usize) {
        let Some(made) = self.connections.get_mut(&connection) else { return };
        let pipe = &mut made.pipes[1 - host];
        pipe.outstanding = pipe.outstanding.saturating_sub(1);
        if pipe.outstanding < WINDOW {
            self.wake_shipper(1 - host);
        }
    }

    // --- the shipper

    pub(super) fn wake_shipper(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else { return };
        let life = process.life;
        let Some(shipper) = &mut process.shipper else { return };
        if !std::mem::replace(&mut shipper.scheduled, true) {
            let connection = shipper.connection;
            let wait = self.rng.u64(20..300);
            self.after(wait, Event::Ship { host, life, connection });
        }
    }

    pub(super) fn ship(&mut self, host: usize, life: u64, connection: u64) {
        let paused = self.hosts[host].paused;
        let Some(process) = &mut self.hosts[host].process else { return };
        let Some(shipper) = &mut process.shipper else { return };
        if process.life != life || shipper.connection != connection {
            return;
        }
        shipper.scheduled = false;
        let made = self.connections.get(&connection);
        if paused || made.is_none_or(|made| made.pipes[host].outstanding >= WINDOW) {
            return;
        }
        let Some((frame, cut)) = self.next_frame(host) else { return };
        self.send(connection, host, Frame::FromMaster(frame));
        let pace = if cut { self.plan.piece } else { 200 };
        let wait = self.rng.u64(20..=pace + 20);
        let process = self.hosts[host].process.as_mut().expect("looked at above");
        if let Some(shipper) = &mut process.shipper {
            shipper.scheduled = true;
            self.after(wait, Event::Ship { host, life, connection });
        }
    }

    /// The next frame, and whether it belongs to a snapshot.
    fn next_frame(&mut self, host: usize) -> Option<(FromMaster, bool)> {
        let host = &mut self.hosts[host];
        let process = host.process.as_mut()?;
        let shipper = process.shipper.as_mut()?;
        let epoch = shipper.epoch;
        match &mut shipper.stage {
            Stage::BeginTail { after } => {
                let after = *after;
                shipper.stage = Stage::Tail { next: after + 1 };
                Some((FromMaster::Tail { epoch, after }, false))
            }
            Stage::BeginSnapshot { common } => {
                let common = *common;
                shipper.stage = Stage::Begin;
                Some((FromMaster::Load { epoch, common }, true))
            }
            Stage::Begin => {
                let mut history = process.machine.history().clone();
                history.cut_after(process.store.applied());
                let begun = history.head();
                shipper.stage = Stage::Cutting { cursor: Cursor::default(), begun };
                Some((FromMaster::Piece(Piece::Begin { history }), true))
            }
            Stage::Cutting { cursor, begun } => {
                let next = *begun + 1;
                let piece = process.store.cut(cursor);
                if piece.is_none() {
                    shipper.stage = Stage::Tail { next };
                }
                let until = host.disk.head();
                Some((FromMaster::Piece(piece.unwrap_or(Piece::End { until })), true))
            }
            Stage::Tail { next } => {
                while shipper.digests.front().is_some_and(|(number, _)| *number + 1 < *next) {
                    shipper.digests.pop_front();
                }
                let mut count = RECORDS;
                if let Some((number, _)) = shipper.digests.front() {
                    if *number + 1 == *next {
                        let (number, digests) = shipper.digests.pop_front()?;
                        return Some((FromMaster::Digests { number, digests }, false));
                    }
                    count = count.min(usize::try_from(*number + 1 - *next).unwrap_or(count));
                }
                let entries = host.disk.read(*next, count).expect("what is shipped is retained");
                *next = entries.last()?.number() + 1;
                let bytes = entries.iter().flat_map(|entry| entry.bytes.iter().copied()).collect();
                let records = entries.iter().map(|entry| entry.record.clone()).collect();
                Some((FromMaster::Records(records, bytes), false))
            }
        }
    }
}
