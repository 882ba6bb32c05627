//! What only tests need beside the laboratory ([`hotpair_lab`]): a turn on the machine, and a
//! container with a real systemd.

use std::path::Path;

pub mod exclusive;
pub mod nspawn;

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies one below the root")
}
