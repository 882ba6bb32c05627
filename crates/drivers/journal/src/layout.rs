//! What the files are called, and how each of them begins.
//!
//! ```text
//! redo-<first>.log, snapshot-<number>.bin, aside-<epoch>-<first>-<last>.log
//!
//! 0         12        14                16       24         32
//! ┌─────────┬─────────┬─────────────────┬────────┬──────────┐  all numbers little endian
//! │ magic   │ format  │ record version  │ number │ checksum │  checksum: XXH3-64 of the first 24
//! └─────────┴─────────┴─────────────────┴────────┴──────────┘
//! ```
//!
//! These 32 bytes stay as they are in every later format, so that a format can be refused by name.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use hotpair_core::tables::record::RECORD_VERSION;
use xxhash_rust::xxh3::xxh3_64;

/// The version of the files; that of the records in them is core's.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes before a file's content.
pub(crate) const HEADER_BYTES: usize = 32;

/// What a file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Magic {
    /// Records: also those that were set aside.
    Redo,
    /// Pieces.
    Snapshot,
}

impl Magic {
    fn bytes(self) -> &'static [u8; 12] {
        match self {
            Self::Redo => b"hotpair redo",
            Self::Snapshot => b"hotpair snap",
        }
    }
}

/// Why a file's beginning is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// The file ends within it.
    Short,
    /// Not what was written, or not by us.
    Damaged,
    /// Whole, but of another version.
    Version { what: &'static str, found: u16, known: u16 },
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it ends within its header"),
            Self::Damaged => f.write_str("its header is damaged"),
            Self::Version { what, found, known } => {
                write!(f, "its {what} is version {found}, this program knows version {known}")
            }
        }
    }
}

/// A file's first bytes.
pub(crate) fn header(magic: Magic, number: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..12].copy_from_slice(magic.bytes());
    header[12..14].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[14..16].copy_from_slice(&RECORD_VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    let checksum = xxh3_64(&header[..24]);
    header[24..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Whether these bytes are the beginning of a file of this kind and number.
pub(crate) fn check_header(magic: Magic, number: u64, bytes: &[u8]) -> Result<(), HeaderFault> {
    let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(HeaderFault::Short)?;
    let checksum = xxh3_64(&header[..24]).to_le_bytes();
    if header[..12] != *magic.bytes() || header[24..] != checksum {
        return Err(HeaderFault::Damaged);
    }
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    for (what, found, known) in
        [("file format", u16_at(12), FORMAT_VERSION), ("record format", u16_at(14), RECORD_VERSION)]
    {
        if found != known {
            return Err(HeaderFault::Version { what, found, known });
        }
    }
    if header[16..24] != number.to_le_bytes() {
        return Err(HeaderFault::Damaged);
    }
    Ok(())
}

/// The redo file whose first record has this number.
pub(crate) fn redo_path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("redo-{first:020}.log"))
}

/// The snapshot after this record.
pub(crate) fn snapshot_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("snapshot-{number:020}.bin"))
}

/// A name under which a file is written before it gets its own.
pub(crate) fn temporary_path(directory: &Path, count: u64) -> PathBuf {
    directory.join(format!("snapshot-{count}.tmp"))
}

/// Our files in the directory, each kind in the order of its numbers.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// First record of each redo file.
    pub(crate) redo: Vec<u64>,
    /// Number of each snapshot.
    pub(crate) snapshots: Vec<u64>,
    /// Files that never got their name.
    pub(crate) temporary: Vec<PathBuf>,
}

impl Listing {
    /// What is there now. Files with other names are not ours and left alone.
    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(first) = numbered(name, "redo-", ".log").filter(|first| *first > 0) {
                listing.redo.push(first);
            } else if let Some(number) = numbered(name, "snapshot-", ".bin") {
                listing.snapshots.push(number);
            } else if name.starts_with("snapshot-") && name.ends_with(".tmp") {
                listing.temporary.push(directory.join(name));
            }
        }
        listing.redo.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }
}

fn numbered(name: &str, before: &str, after: &str) -> Option<u64> {
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    let decimal = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if decimal { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_bit_of_a_header_is_found() {
        let whole = header(Magic::Redo, 77);
        assert_eq!(check_header(Magic::Redo, 77, &whole), Ok(()));
        for bit in 0..HEADER_BYTES * 8 {
            let mut broken = whole;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check_header(Magic::Redo, 77, &broken), Err(HeaderFault::Damaged));
        }
        assert_eq!(check_header(Magic::Redo, 77, &whole[..31]), Err(HeaderFault::Short));
        assert_eq!(check_header(Magic::Redo, 78, &whole), Err(HeaderFault::Damaged));
        assert_eq!(check_header(Magic::Snapshot, 77, &whole), Err(HeaderFault::Damaged));
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        let mut later = header(Magic::Redo, 1);
        later[12] = 2;
        let checksum = xxh3_64(&later[..24]);
        later[24..].copy_from_slice(&checksum.to_le_bytes());
        let fault = check_header(Magic::Redo, 1, &later).unwrap_err();
        assert_eq!(fault.to_string(), "its file format is version 2, this program knows version 1");
    }
}
