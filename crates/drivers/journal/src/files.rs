//! Every call that may change the directory: opening, writing, syncing, renaming.
//!
//! They stand together so that a test can have one of them fail ([`Faults`]) where no real disk
//! would do it at the right moment. Without faults each is the plain system call.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Failures that a test orders. The product never makes one.
#[derive(Debug)]
pub struct Faults {
    /// Bytes that may still be written before the disk is full.
    room: AtomicU64,
    /// Each write fails with EIO.
    writes_fail: AtomicBool,
    /// Each fsync fails with EIO.
    syncs_fail: AtomicBool,
    /// Each truncation fails with EIO.
    truncations_fail: AtomicBool,
    /// Fsyncs that were asked for.
    syncs: AtomicU64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            room: AtomicU64::new(u64::MAX),
            writes_fail: AtomicBool::new(false),
            syncs_fail: AtomicBool::new(false),
            truncations_fail: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
        }
    }
}

impl Faults {
    /// After this many bytes the disk is full.
    pub fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    /// Whether writes fail from now on.
    pub fn set_writes_fail(&self, fail: bool) {
        self.writes_fail.store(fail, Ordering::Relaxed);
    }

    /// Whether fsyncs fail from now on.
    pub fn set_syncs_fail(&self, fail: bool) {
        self.syncs_fail.store(fail, Ordering::Relaxed);
    }

    /// Whether truncations fail from now on.
    pub fn set_truncations_fail(&self, fail: bool) {
        self.truncations_fail.store(fail, Ordering::Relaxed);
    }

    /// How many fsyncs were asked for so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// How many of these bytes still have room; they are counted as written.
    fn take_room(&self, bytes: usize) -> usize {
        let room = self.room.load(Ordering::Relaxed);
        if room == u64::MAX {
            return bytes;
        }
        let taken = room.min(bytes as u64);
        self.room.store(room - taken, Ordering::Relaxed);
        usize::try_from(taken).expect("no more than the bytes there are")
    }
}

/// The calls. See the file's header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    faults: Option<Arc<Faults>>,
}

impl Files {
    pub(crate) fn new(faults: Option<Arc<Faults>>) -> Self {
        Self { faults }
    }

    /// A new file, or an old one emptied, for its owner alone.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        self.fail_if(|faults| &faults.writes_fail)?;
        options().write(true).create(true).truncate(true).mode(0o600).open(path)
    }

    /// An existing file, for writing into.
    pub(crate) fn open_for_writing(path: &Path) -> io::Result<File> {
        options().write(true).open(path)
    }

    /// An existing file, for reading.
    pub(crate) fn open(path: &Path) -> io::Result<File> {
        options().read(true).open(path)
    }

    /// Writes all of it at this place, or fails after a part of it.
    pub(crate) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.fail_if(|faults| &faults.writes_fail)?;
        let Some(faults) = &self.faults else { return file.write_all_at(bytes, offset) };
        let taken = faults.take_room(bytes.len());
        file.write_all_at(&bytes[..taken], offset)?;
        if taken < bytes.len() { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    /// The file's bytes are on the disk afterwards (`fdatasync`).
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        if let Some(faults) = &self.faults {
            faults.syncs.fetch_add(1, Ordering::Relaxed);
        }
        self.fail_if(|faults| &faults.syncs_fail)?;
        file.sync_data()
    }

    /// The directory's names are on the disk afterwards.
    pub(crate) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.fail_if(|faults| &faults.syncs_fail)?;
        File::open(directory)?.sync_all()
    }

    /// Cuts the file off.
    pub(crate) fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.fail_if(|faults| &faults.truncations_fail)?;
        file.set_len(length)
    }

    /// Removes a file; that it is gone already is fine.
    pub(crate) fn remove(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn fail_if(&self, which: impl Fn(&Faults) -> &AtomicBool) -> io::Result<()> {
        match &self.faults {
            Some(faults) if which(faults).load(Ordering::Relaxed) => Err(Errno::IO.into()),
            Some(_) | None => Ok(()),
        }
    }
}

/// No link is followed: whoever could place one in the directory must not send our bytes elsewhere.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Is it for want of room?
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads at this place until the buffer is full or the file ends; how many bytes it were.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
