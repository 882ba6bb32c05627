//! Write-behind: the replicated tables in an SQL database, for whoever wants to ask SQL.
//!
//! ```text
//!  redo files ──records──▶ coalesced ──▶ columns ──▶ one transaction: fence, rows, mark
//!  store ──────pieces────▶ (a copy of everything) ──┘
//! ```
//!
//! What is written next core decides (`tables::behind`); here it is done, on a thread of its own, so
//! that a slow or dead database is nobody's affair but its own. A transaction begins with the fence: an
//! `UPDATE` bound to cluster, epoch and mark, whose row count is looked at. Who was overtaken changes
//! nothing; two connections of one writer cannot get into each other's way either.
//!
//! * `driver`: the thread.
//! * `target`: which database; `mapping`: rows as columns; `prepared`: what one transaction writes.
//! * `postgres`, `sqlite`: the two databases; `schema`: what is made in them.

mod driver;
mod mapping;
mod postgres;
mod prepared;
mod schema;
mod sink;
mod sqlite;
mod target;

pub use driver::{Figures, Log, LogFault, Parts, Probe, Shown, start};
pub use mapping::{ColumnKind, Mapping, MappingError};
pub use target::{Target, TargetError};
