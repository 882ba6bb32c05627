//! The log of requests as a file, so that a long run needs no memory: what [`crate::checker`] reads.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::checker::{Request, read_log};

/// A log that many clients write.
#[derive(Debug)]
pub struct RequestLog {
    path: PathBuf,
    file: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    file: BufWriter<File>,
    /// The first line that could not be written: without it the log proves nothing.
    failed: Option<std::io::Error>,
}

impl RequestLog {
    /// Makes the file, or empties it.
    pub fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let written = Written { file: BufWriter::new(file), failed: None };
        Ok(Self { path: path.to_owned(), file: Mutex::new(written) })
    }

    /// Appends a line. An error is told by [`Self::read`].
    pub fn write(&self, request: &Request) {
        let mut line = serde_json::to_vec(request).expect("a request is JSON");
        line.push(b'\n');
        let mut written = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = written.file.write_all(&line) {
            written.failed.get_or_insert(error);
        }
    }

    /// Everything that was written so far.
    pub fn read(&self) -> Result<Vec<Request>> {
        let mut written = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = match written.failed.take() {
            Some(error) => Err(error),
            None => written.file.flush(),
        };
        flushed.with_context(|| format!("cannot write {}", self.path.display()))?;
        drop(written);
        read_log(&self.path)
    }
}
