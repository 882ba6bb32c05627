//! The ZooKeeper driver: what core orders is done, what happens is reported.
//!
//! ```text
//!  control thread                        thread "zookeeper"                         servers
//!  carry_out(order) ──bounded queue──▶ Worker ── one connection at a time ──────▶ session
//!  Fact::ZooKeeper ◀─bounded channel──   └─ a runtime of its own, killed when cut off
//! ```
//!
//! The driver holds no opinion about who is master. It knows znode paths, JSON and what an error of
//! the client library proves; each answer bears the generation of the session it came from.
//!
//! The client library cannot be stopped while it tries to connect, and it lets requests wait in a
//! queue and run after a reconnect. So it is only ever allowed one connection: each lives on a
//! runtime of its own, which is dropped with everything in it when the connection is gone. The
//! session is then attached again on a new runtime, at our own pace.

mod access;
mod answer;
mod closing;
mod connection;
mod driver;
mod fenced;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod json;
mod layout;
mod look;
mod registry;
mod release;
mod serving;
mod settings;
mod short_session;
mod tunnel;

pub use access::{Access, Auth};
pub use driver::{Farewell, ZooKeeperDriver};
pub use registry::{ReadFunctionsError, RegisteredFunction, read_functions};
pub use release::{ReleaseError, ReleaseOutcome, release};
pub use settings::{Clock, FunctionEntry, MasterEndpoints, ZooKeeperSettings};
