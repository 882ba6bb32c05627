//! The router: clients speak to it and never need to know which node is master.
//!
//! ```text
//! node a /events ──▶ follower ─┐                       ┌─▶ pool of connections to a
//! node b /events ──▶ follower ─┼─facts─▶ Decider ─────▶┤
//! client ──▶ front ────────────┘        (no IO)        └─▶ pool of connections to b
//! ```
//!
//! [`decider`] decides, with time as an argument: who serves, what is held, what is sent again, what a
//! client is told. [`desk`] is the one place where facts reach it, from any thread, and where its
//! effects go out. [`front`] carries requests, [`follower`] listens to the nodes, [`service`] shows it
//! all to operators. The router keeps nothing: any number of them stand side by side and come to the
//! same on their own, because the nodes' epochs say who is right.

pub mod decider;
pub mod desk;
pub mod fact;
pub mod follower;
pub mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod look;
mod meters;
pub mod service;

mod clock;

pub use decider::{Decider, Settings};
pub use desk::Desk;
pub use follower::{Follower, follow};
pub use front::Front;
pub use meters::Meters;
pub use service::{AdminParts, RouterAdmin};
