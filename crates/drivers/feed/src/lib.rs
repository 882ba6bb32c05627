//! Feeds: pushed updates of a dataset, from a ZeroMQ publisher into what was loaded.
//!
//! ```text
//!  PUB ─▶ subscriber (ZMTP) ─▶ rows (JSON) ─▶ intake ─┬▶ pending, while a load runs ─▶ replayed
//!                                                     └▶ fed dataset: what was loaded, rows over it
//! ```
//!
//! When to subscribe, to load and to load anew is decided in core (`Following`); here it is done. A
//! [`FedDataset`] answers as any dataset while it is being changed.

mod fed;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod intake;
mod pending;
mod rows;
mod subscriber;
mod zmtp;

pub use fed::{ApplyError, FedDataset};
pub use intake::{Intake, IntakeTotals};
pub use rows::updates;
pub use subscriber::{FeedAddress, FeedAddressError, Listener, Subscriber};
