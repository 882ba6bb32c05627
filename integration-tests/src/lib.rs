//! What only tests need beside the laboratory ([`hotpair_lab`]): a turn on the machine, a container
//! with a real systemd, a node's journal, a way between nodes that can be closed, ZooKeeper's data
//! from outside, a program beside the nodes, what stands in an SQL database, steps that many tests take,
//! and a pair with sessions that is broken by a drawn plan.

use std::path::Path;

pub mod data_steps;
pub mod faults;
pub mod journal;
pub mod nspawn;
pub mod program;
pub mod relay;
pub mod rows;
pub mod small_disk;
pub mod sql;
pub mod steps;
pub mod table_lab;
pub mod turn;
pub mod znodes;

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies one below the root")
}
