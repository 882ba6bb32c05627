//! Dataset sources: files of rows, loaded into memory and indexed by their key.
//!
//! [`load`] reads a CSV, gzipped CSV or Parquet file with the arrow libraries on all cores, or asks a
//! PostgreSQL, and returns a [`LoadedDataset`], which answers as `hotpair_core`'s
//! [`Dataset`](hotpair_core::services::dataset::Dataset). It decides nothing about *when* to load:
//! that is core's `Loading`. It blocks, so give it a thread of its own; [`Progress`] can be watched
//! and [`CancelFlag`] raised from others meanwhile.
//!
//! The way of the rows, and the file that knows about each step:
//!
//! ```text
//!   CSV ──▶ chunks ──▶ csv ──┐                                   ┌▶ keys (sorted, packed)
//!   PostgreSQL ──▶ postgres ─┤                                   │
//!   Parquet ──▶ row_groups ──┴─▶ pieces (of codes) ─▶ assemble ──┤
//!                                                                └▶ loaded (other columns)
//! ```
//!
//! All values become unsigned *codes* whose order is the order of the values (`codes`), so that
//! keys of any kinds pack into one integer and sorting, searching and storing know nothing of kinds.

mod assemble;
pub mod bench;
mod broken;
mod chunks;
mod codes;
mod csv;
mod error;
mod inference;
mod keys;
mod layout;
mod load;
mod loaded;
mod parallel;
mod pieces;
mod postgres;
mod progress;
mod row_decoder;
mod row_groups;
mod spec;
mod texts;

pub use broken::BrokenRow;
pub use error::LoadError;
pub use load::load;
pub use loaded::LoadedDataset;
pub use progress::{CancelFlag, Progress, ProgressSnapshot};
pub use spec::{DatabaseSource, DatasetSpec, FileFormat, Source, SourceError, Unpivot};
