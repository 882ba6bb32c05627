//! Servers of other people, looked after while this node serves: checked, and with a port in front
//! that leads to the active one.
//!
//! ```text
//!              ┌── check ──▶ primary        ┌───────────┐  decided in core (`services::governed`)
//!   service ───┤                            │ Governed  │◀─ facts ── checks, orders, rows, serving
//!   (a task)   └── check ──▶ standby        └───────────┘── effects ─▶ check, write a row, route
//!
//!   clients ──▶ front (our port) ── copies both ways ──▶ the active member
//! ```
//!
//! One task a service feeds its machine and does what it says. What was decided last is a row that
//! the node keeps for us ([`Records`]), the same on both nodes. Nothing here is done between two
//! members but leading connections: they know nothing of each other.
//!
//! Bounds: two checks of a service at a time, none longer than its interval; 1024 connections
//! through a port, more are closed at once; 16 orders waiting.

mod check;
mod front;
mod governor;
mod service;

pub use check::Check;
pub use governor::{Governor, OrderError};
pub use service::{Records, ServiceSettings, Writing};
