//! `hotpair release`: gives up a dead local node's mastership at once, for systemd's ExecStopPost.
//!
//! The lock on the data directory is won first: as long as the node's process lives, in whatever
//! state, nothing is released. Then only this directory's instance is, and only as it was read.

use std::path::Path;

use anyhow::Result;
use hotpair_coordinator::{ReleaseError, ReleaseOutcome};

use crate::config::NodeConfig;
use crate::data_directory::{DataDirectory, DirectoryError};
use crate::settings::zookeeper_settings;
use hotpair_ctl::Outcome;

/// Releases; the exit code tells systemd's log how it went.
pub(crate) fn run(config: &Path) -> Result<Outcome> {
    let config = NodeConfig::read(config)?;
    let directory = match DataDirectory::open(&config.tables.directory) {
        Ok(directory) => directory,
        Err(error @ DirectoryError::Locked(_)) => {
            tracing::warn!(%error, "nothing released: the node's process lives");
            return Ok(Outcome::No);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(settings) = zookeeper_settings(&config, Vec::new(), Default::default())? else {
        tracing::info!("nothing released: this node stands alone");
        return Ok(Outcome::Done);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(hotpair_coordinator::release(&settings, directory.instance())) {
        Ok(ReleaseOutcome::Released { epoch }) => {
            tracing::info!(%epoch, "mastership released");
            Ok(Outcome::Done)
        }
        Ok(ReleaseOutcome::NotHeld) => {
            tracing::info!("nothing to release: this node does not hold the mastership");
            Ok(Outcome::Done)
        }
        Err(error @ ReleaseError::Unreachable(_)) => {
            tracing::warn!(%error, "not released; the session's expiry will do it");
            Ok(Outcome::Unreachable)
        }
        Err(error) => {
            tracing::warn!(%error, "not released; the session's expiry will do it");
            Ok(Outcome::No)
        }
    }
}
