//! TLS: from three files to something that accepts and something that dials.
//!
//! ```text
//! Files ──load──▶ Identity ──▶ server()         an Acceptor that asks nobody who he is: clients' HTTP
//!                          ├─▶ mutual_server()  an Acceptor that lets in what the authority signed: the link
//!                          └─▶ client()         a Connector that checks the server, and shows who it is itself
//! ```
//!
//! An [`Identity`] is loaded once, where the configuration is read, and handed on as a value. What a
//! server is called is a name in its certificate (subject alternative name, IP address or DNS): the
//! host that was dialled, or a fixed one ([`Connector::named`]) where addresses change on the way.
//!
//! Both sides always get the same provider of cryptography, by argument: another crate that brings a
//! second one changes nothing.

mod acceptor;
mod connector;
mod error;
mod identity;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod validity;

pub use acceptor::Acceptor;
pub use connector::{Connector, name_of};
pub use error::{TlsError, explain};
pub use identity::{Files, Identity};
pub use rustls;
pub use stream::Stream;
