//! Where clients are served: the gate, the functions, HTTP.
//!
//! ```text
//! POST /v1/call ─▶ service ─▶ gate.enter() ─▶ function ─▶ pass.confirm() ─▶ answer
//!                                 │                            │
//!                        no: 308000005                no more: 308000005
//! ```
//!
//! The [`gate`] is the right to act, asked anew before each outward effect. Whoever carries out the
//! role machine's effects holds its [`GateKeeper`]; everybody else only looks.

pub mod catalogue;
pub mod datasets;
pub mod gate;
mod json;
pub mod meters;
pub mod service;

pub use catalogue::{Builtin, Catalogue, CatalogueError, Function};
pub use datasets::{Datasets, Found};
pub use gate::{Gate, GateKeeper, GateLine, Pass, Refused, boot_time_ns};
pub use meters::Meters;
pub use service::{ClientService, ClientSettings, Whereabouts};
