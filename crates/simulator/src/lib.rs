//! Whole pairs in virtual time, faults drawn from a seed.
//!
//! Two real [`hotpair_core::pair::Node`]s live in a world of simulated machines, clocks, links and
//! ZooKeeper servers. A seed draws the settings, the weather and the faults; the rules are checked
//! at every step, and once all is healed one node must serve and the other stand by. One seed is
//! one history: run it again and it is the same to the last byte.
//!
//! ```text
//! storm  ── faults begin and heal ──▶ kill, freeze, cut, hang, order … ─┐ safety at every step
//! calm 1 ── one thing stays broken ─▶ the healthy part serves           │ (check)
//! calm 2 ── all healed ─────────────▶ one serves, one stands by, quiet ─┘
//! ```
//!
//! It decides nothing about the product and knows nothing of its drivers but their contract: the
//! docs of `Fact` and `Effect`.

mod check;
mod clock;
mod coordination;
mod ensemble;
mod fault;
mod host;
mod host_tables;
mod link;
mod outcome;
mod plan;
mod report;
mod schedule;
mod storm;
pub mod tables;
mod transcript;
mod world;

pub use fault::Fault;
pub use outcome::{Outcome, Rule, Violation};
pub use plan::Options;
pub use report::{Report, SimulateArguments, bench, main_with, run};

/// Simulates the storm of one seed.
#[must_use]
pub fn simulate(seed: u64, options: Options) -> Outcome {
    world::World::new(seed, options).run(seed)
}

/// The transcript of one seed: a line an event, with what the nodes decided.
#[must_use]
pub fn transcript(seed: u64, options: Options) -> String {
    simulate(seed, Options { transcript: true, ..options }).transcript
}
