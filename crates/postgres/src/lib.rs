//! A PostgreSQL: what its address means, and how it is connected to. For the write-behind and for
//! datasets, so that both take the same addresses and trust the same servers.
//!
//! ```text
//! postgres://user:password@host/database?sslmode=…&sslrootcert=… ──▶ Server ──connect──▶ Client
//!                                          no sslmode, prefer, disable: plain text
//!                                          require, verify-full: TLS, certificate and name checked
//! ```
//!
//! Stricter than libpq on purpose: what is encrypted and not verified is read by whoever stands in
//! between, and what is tried encrypted and then sent plainly is so too. A password is shown to nobody.

mod server;

pub use server::{ConnectError, Server, ServerError, with_causes};
