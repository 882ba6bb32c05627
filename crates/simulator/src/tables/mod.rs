//! The tables of a whole pair in virtual time: two of core's [`Replication`] machines, faults drawn
//! from a seed.
//!
//! ```text
//!  clients ──▶ tables' thread (host) ──▶ disk          written ≥ synced; kill and power loss differ
//!                │  ▲        │ ▲
//!                │  │ orders │ │ frames               one stream: delays, silence, cuts, half-sent
//!          facts ▼  │        ▼ │
//!               agent ──▶ coordinator                 epoch, holder, sync record; ambiguous answers
//! ```
//!
//! Clients also call a program beside the nodes (`programs`), whose effects are counted.
//!
//! The machines are real; disk, stream and the deciding of who may serve (`agent`) are models that
//! keep the contract of [`TablesEffect`] as a careful driver does. What each seed breaks is drawn
//! (`plan`, `storm`); faults are aimed at each phase of following, on both sides, and counted. The
//! rules are looked at with each step (`check`), and once all is healed the two must be one again.
//!
//! [`Replication`]: hotpair_core::tables::replication::Replication
//! [`TablesEffect`]: hotpair_core::tables::replication::TablesEffect

mod agent;
mod check;
mod clients;
mod coordinator;
mod disk;
mod driver;
mod effects;
mod host;
mod plan;
mod programs;
mod report;
mod storm;
mod stream;
mod world;

use hotpair_core::tables::planted::PlantedInTables;

pub use check::{Rule, Violation};
pub use report::{Report, run};
pub use storm::{Blow, Coverage, Phase, Side};

/// A bug in the model of who may serve, to show that the rules would tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentBug {
    /// The `sync` record is not looked at before a claim.
    ClaimWithoutSync,
    /// A write of the `sync` record without a definite answer is taken for done.
    AmbiguousTakenForDone,
}

/// How a storm is to be run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A bug planted in core.
    pub planted: PlantedInTables,
    /// A bug planted in the model.
    pub bug: Option<AgentBug>,
    /// Keep a transcript.
    pub transcript: bool,
}

/// What came of one storm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Run it again with this.
    pub seed: u64,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// The last lines of what happened, if asked for.
    pub transcript: String,
    /// What was hit where.
    pub coverage: Coverage,
    /// Events simulated.
    pub events: u64,
    /// Virtual time until all was settled, in milliseconds.
    pub virtual_ms: u64,
    /// From the last healing until all was settled, in milliseconds.
    pub settled_ms: u64,
    /// Answers given to clients.
    pub answers: u64,
    /// Masterships that began.
    pub masterships: u64,
    /// Barriers that the standby said it holds.
    pub barriers: u64,
    /// Calls of the program beside the nodes, and answers that nobody knows what became of one.
    pub programs: (u64, u64),
    /// Snapshots that replaced a log.
    pub loads: u64,
    /// Acknowledged records that no disk held any more after a loss of power: allowed.
    pub forgiven: u64,
    /// Rows flipped, and mismatches told.
    pub flips: (u64, u64),
}

/// Simulates the storm of one seed.
#[must_use]
pub fn simulate(seed: u64, options: Options) -> Outcome {
    world::World::new(seed, options).run()
}
