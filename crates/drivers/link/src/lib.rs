//! The link between the two nodes: it carries words, and holds no opinion about them.
//!
//! Each node dials the other, so that there are two connections, one in each direction of asking:
//!
//! ```text
//!   us                                      the peer
//!   dialled link ──hello, ping──▶           door (listener)
//!                ◀─welcome, answer──
//!   door         ◀──hello, ping──           its dialled link
//!                ──welcome, answer─▶
//! ```
//!
//! The core says when to dial, what to ask and what to answer ([`LinkDriver`]'s methods); what
//! became of it goes back as facts. What is decided here is only what belongs to a transport: what
//! is a frame, who is of our pair, how long a stranger may keep a socket. How a connection failed or
//! ended is told exactly as the kernel told it, because a proof of death is built on that.
//!
//! With [`LinkSecurity`] all of it goes through TLS, both ways authenticated.
//!
//! The bytes are described in `docs/protocol/link.md`.

mod address;
mod complaint;
mod dial;
mod door;
mod driver;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod pace;
pub mod redo;
mod secure;
mod wall;
mod words;

pub use driver::{LinkDriver, LinkSettings, StartError};
pub use frame::{Frame, FrameError, RejectReason, Rejection, Times, decode, encode};
pub use secure::LinkSecurity;
pub use wall::WallClock;
