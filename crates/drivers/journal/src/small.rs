//! Small files that are replaced as a whole: after a crash there is the old one or the new one.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::error::FileError;
use crate::files::Files;

/// The longest small file, in bytes.
pub const SMALL_BYTES_MAX: usize = 1 << 20;

/// Reads it; none if there is no such file.
pub(crate) fn read(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, FileError> {
    let path = directory.join(checked(name));
    let failed = |error| FileError::new(&path, "reading", error);
    let file = match Files::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > SMALL_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(bytes))
}

/// Replaces it; afterwards it is on the disk.
pub(crate) fn write(
    files: &Files,
    directory: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), FileError> {
    let path = directory.join(checked(name));
    let failed = |doing| {
        let path = path.clone();
        move |error| FileError::new(path, doing, error)
    };
    if bytes.len() > SMALL_BYTES_MAX {
        return Err(failed("writing")(io::ErrorKind::FileTooLarge.into()));
    }
    let temporary = directory.join(format!("{name}.tmp"));
    let written = (|| {
        let file = files.create(&temporary)?;
        files.write_at(&file, bytes, 0)?;
        files.sync(&file)?;
        fs::rename(&temporary, &path)
    })();
    if let Err(error) = written {
        // What is left of it does no harm: the next attempt begins by emptying it.
        let _ = Files::remove(&temporary);
        return Err(failed("writing")(error));
    }
    files.sync_directory(directory).map_err(failed("syncing the directory of"))
}

/// Names are ours, not a stranger's.
fn checked(name: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let own = ["redo-", "snapshot-", "aside-"].iter().all(|prefix| !name.starts_with(prefix));
    assert!(!name.is_empty() && own && name.bytes().all(plain), "{name} names no small file");
    name
}
