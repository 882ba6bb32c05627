//! The client of a hotpair: it knows both routers (or both nodes), logs in once, and lives through
//! every switch. A call is done once and answered, or its error says what is known.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use hotpair_client::Client;
//! use serde_json::{Value, json};
//!
//! # async fn example() -> Result<(), hotpair_client::Error> {
//! let client = Client::builder().targets(["10.0.0.1:7000", "10.0.0.2:7000"]).build()?;
//! let session = client.log_in("ann", "correct horse").await?;
//!
//! // By number, or by group/service/version and name. Numbered, kept until answered, done once.
//! let sum: Value = session.call(1006, json!({"table": "t", "key": "k", "by": 1})).await?;
//! let echo: String = session.call(("hotpair/test/1.0", "echo"), "hello").await?;
//!
//! // A ticket now, the answer later: also from the node that took over meanwhile.
//! let ticket = session.start(1902, json!({"ms": 5_000})).await?;
//! let done: Value = ticket.result(Duration::from_secs(30)).await?;
//! # drop((sum, echo, done));
//! # Ok(())
//! # }
//! ```
//!
//! * Requests of a session are numbered, and sent again under their number until they are answered:
//!   after a cut, a kill, a switch. The pair executes a number once and answers it the same again.
//! * At most 64 are outstanding; more wait within their time.
//! * "Switching", "overloaded" and "still loading" are waited out, for the caller's time at most; every
//!   other error number is the caller's ([`Error::Refused`]).
//! * A session is kept alive in the background. No switch ends it. If it is over all the same
//!   (308000001), that is [`Error::SessionOver`], unless [`ClientBuilder::log_in_again`] is wanted.
//! * A connection that says nothing for half a second is asked a second question; without an answer
//!   to that it is dead, and the other address is asked.
//!
//! A tokio runtime is needed. What happens is told as `tracing` events.

mod client;
mod error;
mod function;
mod numbers;
mod push;
mod session;
mod targets;
mod wire;

pub use client::{Client, ClientBuilder};
pub use error::Error;
pub use function::Function;
pub use hotpair_protocol::ErrorNumber;
pub use push::{Push, Pushed};
pub use session::{Session, Ticket};
pub use wire::Availability;
