//! Who may serve.
//!
//! ```text
//! coordinator ──facts──▶ election ──standing──▶ role ──effects──▶ carried out by the node
//! tables ─────▶ holdings ──asked by──▲   sync record ◀── who has all ── tables
//! peer pings ──────────▶ detector ───asked by──▲   ▲                    │
//! operator ─────────────────────────────────────────┘◀──── "done" ──────┘
//! ```
//!
//! [`Node`] joins the machines. Everything it is told is a [`fact::Fact`], everything it wants done
//! is an [`effect::Effect`], all it shows is a [`view::View`]. Equal facts at equal moments give
//! equal effects.

pub mod alert;
pub mod clock;
pub mod detector;
pub mod effect;
mod election;
pub mod fact;
pub mod guard;
pub mod holdings;
pub mod identity;
pub mod moment;
pub mod node;
pub mod planted;
pub mod reason;
pub mod role;
pub mod settings;
pub mod standalone;
pub mod standing;
pub mod switchover;
mod sync;
pub mod troubles;
pub mod view;
pub mod watch;
pub mod zookeeper;

pub use moment::Moment;
pub use node::Node;
pub use settings::Settings;
