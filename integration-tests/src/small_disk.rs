//! A disk of a few megabytes that can be filled and relieved: a file system in memory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use hotpair_lab::process::run;
use hotpair_lab::scratch::Scratch;

/// Mounted; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    // After the path is unmounted.
    _scratch: Scratch,
}

impl SmallDisk {
    /// Mounts one with so much room, of which a file takes a part that is given back later. An error
    /// where mounting is not allowed.
    pub fn mount(mebibytes: u64, taken: u64) -> Result<Self> {
        let scratch = Scratch::new("small-disk")?;
        let path = scratch.join("disk");
        fs::create_dir(&path)?;
        let size = format!("size={mebibytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path))?;
        let disk = Self { path, _scratch: scratch };
        let bytes = usize::try_from(taken << 20).context("a small disk")?;
        fs::write(disk.filler(), vec![0; bytes]).context("the filler does not fit")?;
        Ok(disk)
    }

    /// A folder on it.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Gives back the part that was taken.
    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there must not keep the mount for ever. Nobody
        // hears of a failure; a temporary file system in memory stays.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.path));
    }
}
