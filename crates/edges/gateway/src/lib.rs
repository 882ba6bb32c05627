//! Where clients are served: the gate, the functions, sessions, HTTP.
//!
//! ```text
//! POST /v1/call ─▶ service ─▶ gate.enter() ─▶ function ──────────────▶ pass.confirm() ─▶ answer
//!                                 │              │      ▲                   │
//!                        no: 308000005           ▼      │           no more: 308000005
//!                                             tables: queue ─▶ the one thread that commits
//! ```
//!
//! The [`gate`] is the right to act, asked anew before each outward effect. Whoever carries out the
//! role machine's effects holds its [`GateKeeper`]; everybody else only looks.

pub mod catalogue;
mod data;
pub mod datasets;
pub mod function;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gate;
mod heard;
mod json;
mod lanes;
pub mod meters;
pub mod passwords;
mod publications;
pub mod service;
pub mod sessions;
mod shown;
pub mod sidecar;
pub mod tables;
mod under_way;
pub mod upstream;

pub use catalogue::{Builtin, Catalogue, CatalogueError, Does, Registered};
pub use datasets::{Datasets, Found, Freshness};
pub use function::{Call, Caller, FunctionError, Handler, panic_is_contained};
pub use gate::{Gate, GateKeeper, GateLine, Pass, Refused, boot_time_ns};
pub use meters::Meters;
pub use passwords::Passwords;
pub use service::{ClientParts, ClientService, ClientSettings, Whereabouts};
pub use sessions::{SessionSettings, Sessions, session_key};
pub use sidecar::{Sidecar, SidecarSettings};
pub use tables::{NotCommitted, Submission, Tables, Unsubmitted};
pub use upstream::{Upstream, UpstreamSettings, UpstreamTotals};
