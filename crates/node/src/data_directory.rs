//! The data directory: whose it is, and that only one process has it at a time.
//!
//! `lock` is held (flock) for the life of the process; the kernel lets go of it at any death.
//! `instance` keeps the directory's uuid, by which the node recognises its own previous life.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hotpair_core::pair::identity::{BootId, Instance};
use rustix::fs::{FlockOperation, flock};

/// An opened and locked data directory.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    instance: Instance,
    _lock: File,
}

/// Why a data directory cannot be used. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// Another process lives on it.
    #[error(
        "{} is in use by another process: stop it first, or give this node its own \
         tables.directory", .0.display()
    )]
    Locked(PathBuf),
    /// The file system said no.
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The file holds something else than a uuid.
    #[error(
        "{}: {what}: this is not a hotpair data directory, or its file is damaged; delete the \
         file to make this directory a new instance", .path.display()
    )]
    Damaged { path: PathBuf, what: String },
}

impl DataDirectory {
    /// Makes the directory if need be, locks it, and reads or makes its identity.
    pub(crate) fn open(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DirectoryError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                DirectoryError::Locked(path.to_owned())
            } else {
                DirectoryError::Io { path: lock_path.clone(), source: error.into() }
            }
        })?;
        let instance = read_or_make_instance(&path.join("instance"))?;
        Ok(Self { path: path.to_owned(), instance, _lock: lock })
    }

    /// The directory's uuid.
    pub(crate) fn instance(&self) -> Instance {
        self.instance
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn read_or_make_instance(path: &Path) -> Result<Instance, DirectoryError> {
    let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => text.parse().map_err(|error| DirectoryError::Damaged {
            path: path.to_owned(),
            what: format!("{error}"),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let instance = Instance(uuid::Uuid::new_v4().as_u128());
            // Written aside and renamed: a power cut leaves no half a uuid.
            let aside = path.with_extension("new");
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&aside)
                .map_err(failed)?;
            writeln!(file, "{instance}").and_then(|()| file.sync_all()).map_err(failed)?;
            fs::rename(&aside, path).map_err(failed)?;
            Ok(instance)
        }
        Err(error) => Err(failed(error)),
    }
}

/// This boot of the machine; where the kernel does not say, one that never equals another.
pub(crate) fn boot_id() -> BootId {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| {
            tracing::warn!(
                "/proc/sys/kernel/random/boot_id cannot be read: each start counts as a boot of the \
                 machine, after which this node serves only once compared with its peer; in a systemd \
                 unit, ProcSubset=pid hides it"
            );
            BootId(uuid::Uuid::new_v4().as_u128())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("hotpair-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_directory_keeps_its_identity_and_is_had_by_one_process_at_a_time() {
        let path = scratch("identity");
        let first = DataDirectory::open(&path).unwrap();
        let instance = first.instance();
        assert!(matches!(DataDirectory::open(&path), Err(DirectoryError::Locked(_))));
        drop(first);
        // A child that another test starts at this moment has the lock until it is what it will be.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let again = loop {
            match DataDirectory::open(&path) {
                Err(DirectoryError::Locked(_)) if std::time::Instant::now() < until => {
                    std::thread::yield_now();
                }
                opened => break opened.unwrap(),
            }
        };
        assert_eq!(again.instance(), instance);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_damaged_identity_is_refused_by_name() {
        let path = scratch("damaged");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("instance"), "rubbish").unwrap();
        let error = DataDirectory::open(&path).unwrap_err().to_string();
        assert!(error.contains("instance") && error.contains("rubbish"), "{error}");
        fs::remove_dir_all(&path).unwrap();
    }
}
