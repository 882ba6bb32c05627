//! A storm's plan, drawn from its seed: settings, speeds, and which faults come how often.
//!
//! Each seed draws its own weather, because a mean of everything hides what only two faults
//! together bring out. Every class that is planned must have happened by the end.

use fastrand::Rng;
use hotpair_core::pair::Settings;
use hotpair_core::pair::planted::Planted;

use super::clock::{MS, Micros};
use super::fault::Fault;

/// What the caller chooses about storms.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long faults go on, in virtual milliseconds.
    pub storm_ms: u64,
    /// Draw every fault class, instead of each with its own chance.
    pub every_class: bool,
    /// Draw these classes only, and all of them.
    pub only: Option<&'static [Fault]>,
    /// Elections that must have happened, else the storm counts as failed.
    pub elections_min: u32,
    /// Keep a transcript.
    pub transcript: bool,
    /// A known bug to plant.
    pub planted: Planted,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            storm_ms: 60_000,
            every_class: false,
            only: None,
            elections_min: 1,
            transcript: false,
            planted: Planted::NONE,
        }
    }
}

/// How messages between the two nodes fare. Chances are per thousand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay: (Micros, Micros),
    pub(crate) lost: u32,
    /// Lost once and sent again by TCP: late, and all after it as well.
    pub(crate) resent: u32,
    pub(crate) doubled: u32,
    pub(crate) reordered: u32,
}

/// A fault planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) at: Micros,
    pub(crate) fault: Fault,
}

/// What is left broken after the storm, to see that the healthy part serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residue {
    None,
    HostDead,
    ProcessDead,
    Frozen,
    LinkCut,
    Rejected,
    ZooKeeperCut,
}

/// A storm's plan.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) timeout: Micros,
    pub(crate) tick: Micros,
    pub(crate) servers: usize,
    pub(crate) rates_ppm: [i64; 2],
    pub(crate) offsets: [Micros; 2],
    pub(crate) fair: Weather,
    pub(crate) foul: Weather,
    /// One way of a request to ZooKeeper.
    pub(crate) request: (Micros, Micros),
    /// Chance per thousand that effects are carried out with a delay.
    pub(crate) sluggish: u32,
    pub(crate) faults: Vec<Planned>,
    pub(crate) enabled: [bool; Fault::ALL.len()],
    pub(crate) storm: Micros,
    pub(crate) residue: Residue,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng, options: &Options) -> Self {
        let timeout = MS * pick(rng, &[1_000, 2_000, 2_000, 4_000, 4_000, 4_000, 6_000, 10_000]);
        // A server clamps T to 2 to 20 ticks.
        let tick = (timeout / pick(rng, &[2, 2, 4, 5, 8, 20])).min(2_000 * MS);
        let rate = |rng: &mut Rng| rng.i64(-10_000..=10_000);
        let mut plan = Self {
            settings: draw_settings(rng, options.planted),
            timeout,
            tick,
            servers: pick(rng, &[1, 3, 3, 3]),
            rates_ppm: [rate(rng), rate(rng)],
            offsets: [rng.u64(0..100_000_000), rng.u64(0..100_000_000)],
            fair: draw_fair(rng),
            foul: draw_foul(rng),
            request: pick(rng, &[(100, 500), (300, 2_000), (1_000, 8_000), (2_000, 40_000)]),
            sluggish: pick(rng, &[0, 10, 50, 200]),
            faults: Vec::new(),
            enabled: [false; Fault::ALL.len()],
            storm: options.storm_ms * MS,
            residue: pick(
                rng,
                &[
                    Residue::None,
                    Residue::None,
                    Residue::None,
                    Residue::HostDead,
                    Residue::ProcessDead,
                    Residue::Frozen,
                    Residue::LinkCut,
                    Residue::Rejected,
                    Residue::ZooKeeperCut,
                ],
            ),
        };
        plan.draw_faults(rng, options);
        plan
    }

    pub(crate) fn enables(&self, fault: Fault) -> bool {
        self.enabled[fault.index()]
    }

    fn draw_faults(&mut self, rng: &mut Rng, options: &Options) {
        // Some storms have a few classes often, others many.
        let chance = pick(rng, &[10, 25, 50, 90]);
        for fault in Fault::ALL {
            let drawn = options.every_class || rng.u32(0..100) < chance;
            self.enabled[fault.index()] = options.only.map_or(drawn, |only| only.contains(&fault));
        }
        if !self.enabled.contains(&true) {
            self.enabled[rng.usize(0..Fault::ALL.len())] = true;
        }
        let classes = self.enabled.iter().filter(|e| **e).count() as u64;
        for fault in Fault::ALL.into_iter().filter(|f| self.enabled[f.index()]) {
            // About one fault every one to four seconds in all.
            let gap = self.storm / pick(rng, &[15, 30, 60]) * classes;
            // The first is sure to come while there is still time for it to happen.
            let mut at = 500 * MS + rng.u64(0..self.storm * 8 / 10);
            while at < self.storm {
                self.faults.push(Planned { at, fault });
                at += 200 * MS + rng.u64(0..2 * gap);
            }
        }
        self.draw_switchovers(rng);
    }

    /// A planned switch takes a moment only: to be met in the middle of it, other faults have one
    /// ordered just before they come.
    fn draw_switchovers(&mut self, rng: &mut Rng) {
        if !self.enables(Fault::Switchover) {
            return;
        }
        let (chance, lead) = (pick(rng, &[0, 20, 50]), pick(rng, &[10, 60, 300, 1_500]) * MS);
        let mut more = Vec::new();
        for planned in self.faults.iter().filter(|planned| planned.fault != Fault::Switchover) {
            if rng.u32(0..100) < chance {
                let at = planned.at.saturating_sub(rng.u64(0..lead));
                more.push(Planned { at, fault: Fault::Switchover });
            }
        }
        self.faults.append(&mut more);
    }
}

fn draw_settings(rng: &mut Rng, planted: Planted) -> Settings {
    Settings {
        ping_interval_ms: pick(rng, &[200, 200, 200, 100, 500]),
        ping_timeout_ms: pick(rng, &[200, 200, 200, 100, 400]),
        fast_takeover: rng.u32(0..100) < 75,
        drain_ms_max: pick(rng, &[1_000, 100, 3_000]),
        hold_off_ms: pick(rng, &[3_000, 500]),
        switches_per_hour: pick(rng, &[6, 100]),
        // The rules of the data protect the election's as well: now and then it stands alone.
        tables: rng.u32(0..100) < 60,
        planted,
        ..Settings::default()
    }
}

fn draw_fair(rng: &mut Rng) -> Weather {
    Weather {
        delay: pick(rng, &[(50, 300), (50, 300), (200, 2_000), (5_000, 30_000)]),
        lost: pick(rng, &[0, 0, 2]),
        resent: pick(rng, &[0, 0, 5]),
        doubled: pick(rng, &[0, 5]),
        reordered: pick(rng, &[0, 5]),
    }
}

fn draw_foul(rng: &mut Rng) -> Weather {
    Weather {
        delay: pick(rng, &[(100, 50_000), (10_000, 150_000), (50_000, 600_000)]),
        lost: pick(rng, &[0, 50, 200, 400]),
        resent: pick(rng, &[0, 50, 200]),
        doubled: pick(rng, &[0, 100]),
        reordered: pick(rng, &[0, 100, 300]),
    }
}

pub(crate) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}
