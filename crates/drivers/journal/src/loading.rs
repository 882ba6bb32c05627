//! How far a state that comes from the peer is, in a small file, so that half of one is never used.
//!
//! ```text
//!          begin_loading            install: the old state goes      the redo has got to `until`
//! (none) ───────────────▶ begun ───────────────────▶ installing ─▶ installed{until} ─────▶ (none)
//!                        the old state              neither is whole
//!                        is still whole
//! ```

use std::path::Path;

use crate::error::FileError;
use crate::files::Files;
use crate::small;

/// The file's name.
const NAME: &str = "loading";

/// How far it is. See the file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loading {
    /// Pieces arrive; what was there before is untouched.
    Begun,
    /// What was there before is being removed.
    Installing,
    /// The new snapshot is in place; it needs redo up to this record.
    Installed { until: u64 },
}

/// What the file says; `None`: nothing is being loaded.
pub(crate) fn read(directory: &Path) -> Result<Option<Loading>, FileError> {
    let Some(bytes) = small::read(directory, NAME)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(match text.trim_end().split_once(' ') {
        None if text.trim_end() == "begun" => Loading::Begun,
        Some(("installed", until)) => match until.parse() {
            Ok(until) => Loading::Installed { until },
            Err(_) => Loading::Installing,
        },
        // Whatever else it says: the least that may be believed.
        None | Some(_) => Loading::Installing,
    }))
}

/// Says so from now on, whatever happens.
pub(crate) fn write(files: &Files, directory: &Path, loading: Loading) -> Result<(), FileError> {
    let text = match loading {
        Loading::Begun => "begun\n".to_owned(),
        Loading::Installing => "installing\n".to_owned(),
        Loading::Installed { until } => format!("installed {until}\n"),
    };
    small::write(files, directory, NAME, text.as_bytes())
}

/// Nothing is being loaded any more.
pub(crate) fn remove(files: &Files, directory: &Path) -> Result<(), FileError> {
    let path = directory.join(NAME);
    let failed = |error| FileError::new(&path, "removing", error);
    Files::remove(&path).map_err(failed)?;
    files.sync_directory(directory).map_err(failed)
}
