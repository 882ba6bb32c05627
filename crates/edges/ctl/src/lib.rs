//! The operator's command line: what a person or a script asks of a running pair.
//!
//! Each command is one file: its arguments, one async function, its words. It asks over HTTP like
//! anybody else, prints its result to [`Console::results`] and everything else to
//! [`Console::notes`], and ends in an [`Outcome`], which is the exit code. Nothing here knows what
//! an answer should be; a node says it, this shows it.

mod admin;
mod call;
mod console;
mod orders;
mod origin;
mod status;
mod switchover;
mod table;
#[cfg(test)]
mod testing;
mod why;

pub use admin::AdminUrl;
pub use call::{CallArgs, ClientUrl, Endpoint, FunctionName, Gsv, call};
pub use console::{Console, Outcome};
pub use orders::{AdoptArgs, PromoteArgs, adopt, promote};
pub use origin::{Origin, TlsArgs};
pub use status::{StatusArgs, status};
pub use switchover::{SwitchoverArgs, switchover};
pub use why::{WhyArgs, why};
