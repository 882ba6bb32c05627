//! Where operators, routers, health checks and Prometheus look, and where operators order.
//!
//! ```text
//!            publishes                         asks at the moment of answering
//!  node ──▶ Snapshot (a value) ──▶ service ──▶ Live: is the gate open right now?
//!    ▲                                │ ├────▶ Health: does control turn?
//!    └───────── AdminCommand ◀────────┘ └────▶ events, metrics, alerts, webhook
//! ```
//!
//! Looking never asks the deciding thread anything, so that it can neither slow it down nor wait for
//! it. It runs on a thread and runtime of its own, apart from the clients' HTTP. Decides nothing.

mod clock;
pub mod health;
mod metrics;
pub mod service;
pub mod services;
pub mod snapshot;
pub mod tokens;
pub mod webhook;
mod why;

pub use health::Health;
pub use service::{AdminCommand, AdminService, AdminState, Live, TableFigures, UpstreamFigures};
pub use services::{GovernedServices, ServiceOrder, ServiceOutcome};
pub use snapshot::{AlertRecord, Snapshot};
pub use tokens::Tokens;
pub use webhook::{Webhook, WebhookSettings};
