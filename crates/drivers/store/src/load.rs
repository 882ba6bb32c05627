//! One load, from a specification to an indexed dataset.

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{path, thread};

use crate::assemble::assemble;
use crate::csv;
use crate::error::LoadError;
use crate::layout::Layout;
use crate::loaded::LoadedDataset;
use crate::parallel;
use crate::pieces::{Piece, Worker};
use crate::postgres;
use crate::progress::{CancelFlag, Progress};
use crate::row_groups;
use crate::spec::{DatasetSpec, FileFormat, Source};
use crate::texts::TextSet;

/// Reads all rows of a dataset and indexes them. Blocks, on one thread per core.
///
/// Broken rows are left out and described in `progress`; more than `broken_rows_max` of them fail
/// the load.
pub fn load(
    spec: &DatasetSpec,
    progress: &Progress,
    cancel: &CancelFlag,
) -> Result<LoadedDataset, LoadError> {
    let (path, file) = match &spec.source {
        Source::File { path, .. } => (path.as_path(), path.display().to_string()),
        Source::Database(database) => (path::Path::new(""), database.to_string()),
    };
    let task = Task { spec, path, file: &file, progress, cancel };
    let (layout, read) = match &spec.source {
        Source::File { format: FileFormat::Csv, .. } => csv::read(&task, false)?,
        Source::File { format: FileFormat::CsvGz, .. } => csv::read(&task, true)?,
        Source::File { format: FileFormat::Parquet, .. } => row_groups::read(&task)?,
        Source::Database(database) => postgres::read(&task, database)?,
    };
    task.check()?;
    tracing::debug!(dataset = spec.name, file, rows = progress.snapshot().rows, "rows read");
    assemble(&task, layout, read)
}

/// What every step of a load knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) spec: &'a DatasetSpec,
    pub(crate) path: &'a path::Path,
    pub(crate) file: &'a str,
    pub(crate) progress: &'a Progress,
    cancel: &'a CancelFlag,
}

/// What one worker read.
#[derive(Debug)]
pub(crate) struct WorkerRead {
    /// The texts its codes mean, one set for each column.
    pub(crate) texts: Vec<TextSet>,
    pub(crate) pieces: Vec<Piece>,
}

impl Task<'_> {
    /// Opens the file and announces its size.
    pub(crate) fn open(&self) -> Result<File, LoadError> {
        let failed = |error| LoadError::Open { file: self.file.to_owned(), error };
        let file = File::open(self.path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(file)
    }

    /// Whether to go on: not cancelled, and not more broken rows than allowed.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if self.cancel.is_cancelled() {
            return Err(LoadError::Cancelled);
        }
        if !self.is_too_broken() {
            return Ok(());
        }
        let first = self.progress.broken.first().into_iter().next();
        Err(LoadError::TooManyBroken {
            broken: self.progress.broken.count(),
            allowed: self.spec.broken_rows_max,
            first: Box::new(first.expect("a broken row that is counted is described")),
        })
    }

    pub(crate) fn is_too_broken(&self) -> bool {
        self.progress.broken.count() > self.spec.broken_rows_max
    }

    /// Lets one worker per core take work until there is none, or until one of them fails.
    ///
    /// `next` hands out the work in the file's order, under a lock. What is handed out is finished,
    /// so that whatever is found first in the file is found, however the threads run.
    pub(crate) fn in_workers<S: Send, W, T>(
        &self,
        layout: &Layout,
        source: S,
        next: impl Fn(&mut S, Option<W>) -> Result<Option<W>, LoadError> + Sync,
        start: impl Fn() -> Result<T, LoadError> + Sync,
        work: impl Fn(&mut T, &mut Worker<'_>, &W) -> Result<(), LoadError> + Sync,
    ) -> Result<Vec<WorkerRead>, LoadError> {
        let source = Mutex::new(source);
        let failed = AtomicBool::new(false);
        let run = || -> Result<WorkerRead, LoadError> {
            let mut worker = Worker::new(layout, &self.progress.broken);
            let mut state = start()?;
            let mut last = None;
            while !failed.load(Ordering::Relaxed) {
                self.check()?;
                let mut source = source.lock().expect("a worker that panics ends the load");
                let Some(item) = next(&mut source, last.take())? else { break };
                drop(source);
                work(&mut state, &mut worker, &item)?;
                last = Some(item);
            }
            Ok(WorkerRead { texts: worker.texts, pieces: worker.pieces })
        };
        let run = || run().inspect_err(|_| failed.store(true, Ordering::Relaxed));
        thread::scope(|scope| {
            let others: Vec<_> = (1..parallel::threads()).map(|_| scope.spawn(run)).collect();
            let mut reads = vec![run()];
            for other in others {
                reads.push(other.join().expect("workers report errors and do not panic"));
            }
            // A broken row that another worker found may be before the one that stopped this.
            self.check()?;
            reads.into_iter().collect()
        })
    }
}
