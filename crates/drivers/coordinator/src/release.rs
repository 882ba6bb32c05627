//! Giving a dead process's mastership back, on behalf of its supervisor.
//!
//! The caller knows that the process is gone (it holds the lock on its data directory). What is
//! deleted is the one incarnation that was read, bound to the versions that were read.

use std::time::Duration;

use hotpair_core::pair::identity::{Epoch, Instance};
use zookeeper_client::{Client, Error, MultiWriteError};

use crate::access::Access;
use crate::json::{EpochJson, Foreign, MasterJson, bytes_of};
use crate::layout::Layout;
use crate::settings::ZooKeeperSettings;
use crate::short_session::{self, ShortSessionError};

/// How a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// The master znode is deleted, its epoch marked as given back in order.
    Released {
        /// The epoch given back.
        epoch: Epoch,
    },
    /// This data directory does not hold the mastership; nothing was changed.
    NotHeld,
}

/// Why a release did not happen for sure.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// No server answered; nothing was changed. The session's expiry will do it.
    #[error("mastership could not be released: {0}")]
    Unreachable(String),
    /// Released or not: no definite answer. The session's expiry will do it.
    #[error("whether mastership was released is unknown: {0}")]
    Ambiguous(String),
    /// The znodes moved between reading and deleting: somebody is alive. Nothing was changed.
    #[error("mastership was not released: {path} changed meanwhile, so somebody is alive")]
    Moved {
        /// What changed.
        path: String,
    },
    /// Nothing was changed: the znodes are closed to whoever asks like this.
    #[error("mastership was not released: {0}")]
    Barred(String),
    /// Nothing was changed, because the znodes are none of a hotpair node.
    #[error("mastership was not released: {0}")]
    Foreign(String),
}

impl From<ShortSessionError> for ReleaseError {
    fn from(error: ShortSessionError) -> Self {
        match error {
            // It may have been on its way.
            ShortSessionError::TimedOut(_) => Self::Ambiguous(error.to_string()),
            ShortSessionError::Unreachable(_)
            | ShortSessionError::NoRuntime(_)
            | ShortSessionError::ThreadEnded => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<Foreign> for ReleaseError {
    fn from(foreign: Foreign) -> Self {
        Self::Foreign(foreign.to_string())
    }
}

/// A release may take so long.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(5);

/// If this data directory holds the mastership: deletes the master znode and marks the epoch clean,
/// in one multi. Only for a process that is known to be dead.
pub async fn release(
    settings: &ZooKeeperSettings,
    instance: Instance,
) -> Result<ReleaseOutcome, ReleaseError> {
    let layout = Layout::new(&settings.root, &settings.pair);
    let access = settings.access.clone();
    short_session::run(&settings.access, RELEASE_TIME_MAX, async move |client: &Client| {
        release_on(client, &access, &layout, instance).await
    })
    .await?
}

async fn release_on(
    client: &Client,
    access: &Access,
    layout: &Layout,
    instance: Instance,
) -> Result<ReleaseOutcome, ReleaseError> {
    let (epoch_path, master_path) = (layout.epoch(), layout.master());
    let Some((data, epoch_stat)) = read(client, access, &epoch_path).await? else {
        return Ok(ReleaseOutcome::NotHeld);
    };
    let crumb = EpochJson::read(&epoch_path, &data, &epoch_stat)?;
    let Some((data, master_stat)) = read(client, access, &master_path).await? else {
        return Ok(ReleaseOutcome::NotHeld);
    };
    let master = MasterJson::read(&master_path, &data, &master_stat)?;
    if master.instance != instance {
        return Ok(ReleaseOutcome::NotHeld);
    }
    if master.epoch != crumb.epoch {
        return Err(ReleaseError::Moved { path: epoch_path });
    }
    let clean = bytes_of(&EpochJson::new(master.epoch, &master.node, true));
    let mut multi = client.new_multi_writer();
    let built: Result<(), Error> = (|| {
        multi.add_check_version(&epoch_path, epoch_stat.version)?;
        multi.add_delete(&master_path, Some(master_stat.version))?;
        multi.add_set_data(&epoch_path, &clean, Some(epoch_stat.version))
    })();
    built.map_err(|error| ReleaseError::Unreachable(error.to_string()))?;
    match multi.commit().await {
        Ok(_) => Ok(ReleaseOutcome::Released { epoch: master.epoch }),
        Err(MultiWriteError::OperationFailed { index: 1, .. }) => {
            Err(ReleaseError::Moved { path: master_path })
        }
        Err(MultiWriteError::OperationFailed { .. }) => {
            Err(ReleaseError::Moved { path: epoch_path })
        }
        Err(MultiWriteError::RequestFailed { source }) => {
            Err(ReleaseError::Ambiguous(source.to_string()))
        }
    }
}

async fn read(
    client: &Client,
    access: &Access,
    path: &str,
) -> Result<Option<(Vec<u8>, zookeeper_client::Stat)>, ReleaseError> {
    match client.get_data(path).await {
        Ok(found) => Ok(Some(found)),
        Err(Error::NoNode) => Ok(None),
        Err(Error::NoAuth) => Err(ReleaseError::Barred(access.barred(path))),
        Err(error) => Err(ReleaseError::Unreachable(format!("reading {path} failed: {error}"))),
    }
}
