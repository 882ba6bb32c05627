//! Blows: what breaks, where, and when. Some come at any time; most are aimed at one side in one
//! phase of following, and wait for it, so that every meeting of the three really happens.

use std::fmt;
use std::sync::Arc;

use hotpair_core::tables::table::Row;

use crate::clock::{MS, Micros};

use super::clients::BALLAST;
use super::disk::Disk;
use super::host::{Busy, Flip, NAMES};
use super::world::{Event, World};

/// Where a standby is with its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Its history is on its way.
    Probing,
    /// Pieces of a snapshot come.
    Loading,
    /// The snapshot is whole, the log not yet.
    Reaching,
    /// The log comes.
    Streaming,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Probing, Self::Loading, Self::Reaching, Self::Streaming];
}

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Who writes.
    Master,
    /// Who follows.
    Standby,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Master, Self::Standby];
}

/// What can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// The process is killed.
    Kill,
    /// The machine loses power; now and then its directory, too.
    PowerLoss,
    /// The process is held, for shorter or longer than its lease.
    Pause,
    /// The process ends and starts at once.
    Restart,
    /// The connection is cut; this side learns it first.
    Cut,
    /// The disk takes its time.
    SlowDisk,
    /// The disk has no room.
    FullDisk,
    /// What this side sends does not arrive for a while.
    Silence,
    /// Both are down at once.
    BothDown,
    /// This side cannot reach the coordinator.
    CoordinatorCut,
    /// This side reaches neither the coordinator nor the other side; clients still reach it.
    Isolated,
    /// The master gives its mastership back.
    Resign,
    /// A row of the standby is not what it was.
    Flip,
}

impl Blow {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::PowerLoss,
        Self::Pause,
        Self::Restart,
        Self::Cut,
        Self::SlowDisk,
        Self::FullDisk,
        Self::Silence,
        Self::BothDown,
        Self::CoordinatorCut,
        Self::Isolated,
        Self::Resign,
        Self::Flip,
    ];

    /// Can it hit this side in this phase?
    #[must_use]
    pub fn can_hit(self, phase: Phase, side: Side) -> bool {
        match self {
            Self::Resign => side == Side::Master,
            Self::Flip => side == Side::Standby && phase == Phase::Streaming,
            Self::Kill
            | Self::PowerLoss
            | Self::Pause
            | Self::Restart
            | Self::Cut
            | Self::SlowDisk
            | Self::FullDisk
            | Self::Silence
            | Self::BothDown
            | Self::CoordinatorCut
            | Self::Isolated => true,
        }
    }
}

/// How often each blow hit each side in each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage([[[u64; Blow::ALL.len()]; Side::ALL.len()]; Phase::ALL.len()]);

impl Coverage {
    fn hit(&mut self, phase: Phase, side: Side, blow: Blow) {
        self.0[phase as usize][side as usize][blow as usize] += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (phase, side, blow) in Self::all() {
            let [p, s, b] = [phase as usize, side as usize, blow as usize];
            self.0[p][s][b] += other.0[p][s][b];
        }
    }

    fn all() -> impl Iterator<Item = (Phase, Side, Blow)> {
        Phase::ALL.into_iter().flat_map(|phase| {
            Side::ALL
                .into_iter()
                .flat_map(move |side| Blow::ALL.into_iter().map(move |blow| (phase, side, blow)))
        })
    }

    /// How often this blow hit this side in this phase.
    #[must_use]
    pub fn times(&self, phase: Phase, side: Side, blow: Blow) -> u64 {
        self.0[phase as usize][side as usize][blow as usize]
    }

    /// What could have been hit and never was.
    #[must_use]
    pub fn missing(&self) -> Vec<(Phase, Side, Blow)> {
        Self::all()
            .filter(|(phase, side, blow)| blow.can_hit(*phase, *side))
            .filter(|(phase, side, blow)| self.times(*phase, *side, *blow) == 0)
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16}", "master/standby")?;
        for phase in Phase::ALL {
            write!(f, "{:>17}", format!("{phase:?}"))?;
        }
        for blow in Blow::ALL {
            write!(f, "\n{:<16}", format!("{blow:?}"))?;
            for phase in Phase::ALL {
                let [master, standby] = Side::ALL.map(|side| self.times(phase, side, blow));
                write!(f, "{:>17}", format!("{master}/{standby}"))?;
            }
        }
        Ok(())
    }
}

/// A blow that waits for its moment.
#[derive(Clone, Copy, Debug)]
struct Aim {
    blow: Blow,
    phase: Phase,
    side: Side,
    /// Steps within the phase before it comes.
    steps: u32,
}

/// What is to come, and what came.
#[derive(Debug, Default)]
pub(super) struct Storm {
    pub(super) over: bool,
    aim: Option<Aim>,
    strikes: u32,
}

impl Storm {
    pub(super) fn strikes(&self) -> u32 {
        self.strikes
    }
}

/// The end of a blow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heal {
    Resume,
    Speed,
    Room,
    Voice,
    Cable,
    Coordinator,
}

impl World {
    /// Who is master, who follows it, and where that is.
    fn sides(&self) -> Option<(usize, usize, Phase)> {
        (0..2).find_map(|standby| {
            let phase = self.hosts[standby].process.as_ref()?.phase?;
            let master = self.hosts[1 - standby].process.as_ref()?;
            master.epoch().map(|_| (1 - standby, standby, phase))
        })
    }

    pub(super) fn plan_strikes(&mut self) {
        let (first, span) = (1_500 * MS, self.plan.storm - 1_500 * MS);
        for index in 0..self.plan.strikes {
            let part = span / u64::from(self.plan.strikes);
            let at = first + part * u64::from(index) + self.rng.u64(0..part);
            self.schedule.push(at, Event::Strike { aimed: true });
        }
        let over = self.plan.storm;
        self.schedule.push(over, Event::StormOver);
    }

    /// The time for a blow has come: it comes now, or is aimed.
    pub(super) fn handle_strike(&mut self, aimed: bool) {
        if self.storm.over {
            return;
        }
        let blow = self.plan.blows[self.rng.usize(0..self.plan.blows.len())];
        if !aimed || self.rng.u32(0..4) == 0 {
            let side = self.rng.usize(0..2);
            self.strike(blow, side);
            return;
        }
        let phase = Phase::ALL[self.rng.usize(0..4)];
        let side = Side::ALL[self.rng.usize(0..2)];
        let steps = if phase == Phase::Streaming { 40 } else { 6 };
        let steps = self.rng.u32(0..steps);
        if blow.can_hit(phase, side) {
            self.storm.aim = Some(Aim { blow, phase, side, steps });
            self.after(self.plan.wire, Event::Nudge);
        }
    }

    /// An aim in a phase that does not come by itself is helped.
    pub(super) fn handle_nudge(&mut self) {
        let Some(aim) = self.storm.aim else { return };
        let wait = self.rng.u64(200..600) * MS;
        self.after(wait, Event::Nudge);
        let Some((_, standby, Phase::Streaming)) = self.sides() else { return };
        match aim.phase {
            Phase::Probing => self.cut_now([Some(100), Some(100)]),
            Phase::Streaming => {}
            Phase::Loading | Phase::Reaching => {
                if self.rng.u32(0..3) == 0 {
                    self.lose_directory(standby);
                } else {
                    self.flip(standby);
                }
            }
        }
    }

    /// True: the blow that was aimed came now.
    pub(super) fn strike_if_aimed(&mut self) -> bool {
        let Some(aim) = &mut self.storm.aim else { return false };
        let wanted = aim.phase;
        let Some((master, standby, phase)) = self.sides() else { return false };
        if phase != wanted {
            return false;
        }
        let Some(aim) = &mut self.storm.aim else { return false };
        let target = match aim.side {
            Side::Master => master,
            Side::Standby => standby,
        };
        if aim.steps > 0 {
            aim.steps -= 1;
            return false;
        }
        let blow = aim.blow;
        if !self.strike(blow, target) {
            return false;
        }
        self.storm.aim = None;
        if self.rng.u32(0..3) == 0 {
            // One blow seldom comes alone.
            let wait = self.rng.u64(0..800) * MS;
            self.after(wait, Event::Strike { aimed: false });
        }
        true
    }

    /// False: that cannot be right now.
    fn strike(&mut self, blow: Blow, target: usize) -> bool {
        let before = self.sides();
        if !self.hosts[target].runs() || !self.blow(blow, target) {
            return false;
        }
        self.storm.strikes += 1;
        let name = NAMES[target];
        self.note(None, format_args!("--- {blow:?} at {name} ({before:?})"));
        let Some((master, _, phase)) = before else { return true };
        let side = if master == target { Side::Master } else { Side::Standby };
        self.outcome.coverage.hit(phase, side, blow);
        if blow == Blow::BothDown {
            let other = if master == target { Side::Standby } else { Side::Master };
            self.outcome.coverage.hit(phase, other, blow);
        }
        true
    }

    fn blow(&mut self, blow: Blow, target: usize) -> bool {
        match blow {
            Blow::Kill => {
                let wait = self.rng.u64(30..2_500);
                self.kill(target, wait);
            }
            Blow::Restart => self.kill(target, 20),
            Blow::PowerLoss => {
                self.lose_power(target);
                if self.rng.u32(0..8) == 0 {
                    self.hosts[target].disk = Disk::new();
                }
                self.forgive();
            }
            Blow::BothDown => {
                for host in [target, 1 - target] {
                    if self.rng.bool() {
                        self.lose_power(host);
                    } else {
                        let wait = self.rng.u64(30..2_500);
                        self.kill(host, wait);
                    }
                }
                self.forgive();
            }
            Blow::Pause => {
                self.hosts[target].paused = true;
                let longest = self.plan.session * 2;
                self.heal_later(target, Heal::Resume, longest);
            }
            Blow::Resign => {
                if !self.may_act(target) {
                    return false;
                }
                self.resign(target, "as ordered");
            }
            Blow::Flip => return self.flip(target),
            Blow::Cut
            | Blow::SlowDisk
            | Blow::FullDisk
            | Blow::Silence
            | Blow::CoordinatorCut
            | Blow::Isolated => self.blow_around(blow, target),
        }
        true
    }

    /// What breaks is around the process.
    fn blow_around(&mut self, blow: Blow, target: usize) {
        match blow {
            Blow::Cut => {
                let mut waits = [0, 1].map(|_| self.some_wait());
                waits[target] = if self.rng.u32(0..8) == 0 { None } else { Some(100) };
                if self.rng.u32(0..3) == 0 {
                    self.cable.out = true;
                    self.heal_later(target, Heal::Cable, 2_000 * MS);
                }
                self.cut_now(waits);
            }
            Blow::SlowDisk => {
                self.hosts[target].slow = true;
                self.heal_later(target, Heal::Speed, 3_000 * MS);
            }
            Blow::FullDisk => {
                self.hosts[target].full = true;
                self.heal_later(target, Heal::Room, 4_000 * MS);
            }
            Blow::Silence => {
                self.cable.silent[target] = true;
                self.heal_later(target, Heal::Voice, 8_000 * MS);
            }
            Blow::CoordinatorCut => {
                self.coordinator.cut[target] = true;
                self.heal_later(target, Heal::Coordinator, 4_000 * MS);
            }
            Blow::Isolated => {
                self.coordinator.cut[target] = true;
                self.cable.out = true;
                let wait = self.rng.u64(20..4_000) * MS;
                self.after(wait, Event::Heal { host: target, heal: Heal::Coordinator });
                self.after(wait, Event::Heal { host: target, heal: Heal::Cable });
                let waits = [0, 1].map(|_| self.some_wait());
                self.cut_now(waits);
            }
            Blow::Kill
            | Blow::PowerLoss
            | Blow::Pause
            | Blow::Restart
            | Blow::BothDown
            | Blow::Resign
            | Blow::Flip => unreachable!("not around a process"),
        }
    }

    fn some_wait(&mut self) -> Option<Micros> {
        match self.rng.u32(0..3) {
            0 => None,
            1 => Some(self.rng.u64(0..20) * MS),
            _ => Some(self.rng.u64(0..2_500) * MS),
        }
    }

    fn heal_later(&mut self, host: usize, heal: Heal, longest: Micros) {
        // As often short as long.
        let span = if self.rng.bool() { longest } else { longest / 8 };
        let wait = self.rng.u64(20 * MS..=span.max(21 * MS));
        self.after(wait, Event::Heal { host, heal });
    }

    fn cut_now(&mut self, waits: [Option<Micros>; 2]) {
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for connection in all {
            self.cut(connection, waits);
        }
    }

    // --- processes and machines

    fn kill(&mut self, host: usize, back_after_ms: u64) {
        self.end_process(host, true);
        self.after(back_after_ms * MS, Event::Start { host });
    }

    fn lose_power(&mut self, host: usize) {
        self.end_process(host, false);
        self.hosts[host].up = false;
        self.hosts[host].disk.power_lost(&mut self.rng);
        let wait = self.rng.u64(600..3_000) * MS;
        self.after(wait, Event::Start { host });
    }

    fn lose_directory(&mut self, host: usize) {
        self.lose_power(host);
        self.hosts[host].disk = Disk::new();
        self.forgive();
    }

    fn end_process(&mut self, host: usize, said: bool) {
        let Some(mut process) = self.hosts[host].process.take() else { return };
        self.hosts[host].paused = false;
        self.abandon_connections(host, said);
        // Of what was being written a part is.
        if let Some(Busy::Append(writing)) = process.busy.take()
            && !self.hosts[host].full
        {
            let count = self.rng.usize(0..=writing.entries.len());
            let written = &writing.entries[..count];
            self.hosts[host].disk.append(written);
            self.check_written(host, written, process.epoch().is_some());
        }
        self.hosts[host].disk.process_gone();
        if said && self.rng.bool() {
            let wait = self.rng.u64(5..60) * MS;
            self.after(wait, Event::Release { host, life: process.life });
        }
    }

    // --- a row flips

    fn flip(&mut self, host: usize) -> bool {
        let Some((_, standby, Phase::Streaming)) = self.sides() else { return false };
        let Some(process) = &mut self.hosts[host].process else { return false };
        if standby != host || process.flip.is_some() || !process.machine.complete() {
            return false;
        }
        let table: Arc<str> = BALLAST.into();
        let found = process.store.table(BALLAST).and_then(|table| table.scan(&[]).next());
        let Some((key, row)) = found.map(|(key, row)| (key.clone(), row.clone())) else {
            return false;
        };
        let mut value = row.value.to_vec();
        value[0] ^= 0x10;
        let flipped = Row { value: value.into(), version: row.version };
        process.store.put(&table, &key, flipped);
        self.outcome.flips.0 += 1;
        let number = self.expect_flip_told(host);
        let process = self.hosts[host].process.as_mut().expect("looked at above");
        let connection = process.dialled.unwrap_or_default();
        process.flip = Some(Flip { table, key, row, told: false, number, connection });
        true
    }

    // --- healing

    pub(super) fn heal(&mut self, host: usize, heal: Heal) {
        self.note(Some(host), format_args!("--- healed: {heal:?}"));
        match heal {
            Heal::Resume => {
                if std::mem::take(&mut self.hosts[host].paused) {
                    self.catch_up(host);
                    self.input(host, super::host::Input::Time);
                    self.wake_shipper(host);
                }
            }
            Heal::Speed => self.hosts[host].slow = false,
            Heal::Room => self.hosts[host].full = false,
            Heal::Voice => {
                self.cable.silent[host] = false;
                self.hand_on(host);
            }
            Heal::Cable => self.cable.out = false,
            Heal::Coordinator => self.coordinator.cut[host] = false,
        }
    }

    pub(super) fn end_storm(&mut self) {
        self.storm.over = true;
        self.storm.aim = None;
        for host in 0..2 {
            for heal in
                [Heal::Resume, Heal::Speed, Heal::Room, Heal::Voice, Heal::Cable, Heal::Coordinator]
            {
                self.heal(host, heal);
            }
        }
        self.after(2_000 * MS, Event::Ending);
    }
}
