//! What a seed draws before anything happens.

use crate::clock::{MS, Micros};

use super::storm::Blow;

/// The settings of one storm.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) ack_local: bool,
    /// An append counts once it is synced.
    pub(super) durable: bool,
    pub(super) silence_ms_max: u64,
    /// Appends that the disk has no room for stop only what depends on them, and orders go on.
    pub(super) eager: bool,
    /// The ballast is large enough for snapshots of several pieces a table.
    pub(super) heavy: bool,
    /// The standby is told to follow nobody as soon as nobody is seen, not only at its claim.
    pub(super) unfollow: bool,
    /// Answers of the coordinator get lost.
    pub(super) ambiguous: bool,
    /// Facts and orders between the two threads of a process may take so long.
    pub(super) queue: Micros,
    pub(super) wire: Micros,
    pub(super) write: Micros,
    pub(super) piece: Micros,
    pub(super) session: Micros,
    pub(super) sync_every: Micros,
    pub(super) checkpoint_every: Micros,
    pub(super) client_every: Micros,
    pub(super) blows: Vec<Blow>,
    pub(super) strikes: u32,
    pub(super) storm: Micros,
}

impl Plan {
    pub(super) fn new(rng: &mut fastrand::Rng) -> Self {
        let mut blows: Vec<Blow> = Blow::ALL.into_iter().filter(|_| rng.bool()).collect();
        if blows.is_empty() {
            blows = Blow::ALL.to_vec();
        }
        Self {
            ack_local: rng.u32(0..10) == 0,
            durable: rng.u32(0..3) == 0,
            silence_ms_max: if rng.bool() { 1_000 } else { rng.u64(300..1_500) },
            eager: rng.bool(),
            heavy: rng.u32(0..20) == 0,
            unfollow: rng.bool(),
            ambiguous: rng.bool(),
            queue: [50, 500, 5 * MS, 60 * MS, 400 * MS][rng.usize(0..5)],
            wire: [100, 500, 3 * MS][rng.usize(0..3)],
            write: [50, 300, 3 * MS][rng.usize(0..3)],
            piece: match rng.u32(0..40) {
                0 => 4_000 * MS,
                1..10 => MS,
                10..25 => 10 * MS,
                _ => 60 * MS,
            },
            session: rng.u64(900..2_000) * MS,
            sync_every: rng.u64(50..2_000) * MS,
            checkpoint_every: rng.u64(300..4_000) * MS,
            client_every: rng.u64(80..300) * MS,
            blows,
            strikes: rng.u32(3..9),
            storm: rng.u64(6_000..14_000) * MS,
        }
    }
}
