//! The library face: a Rust function that clients call, with its session, the tables and datasets.
//!
//! ```text
//! call(&mut Call) ─ get, scan ─▶ what is acknowledged, and its own writes     (each look is noted)
//!                 ─ put, delete, add ─▶ kept aside
//!        Ok(json) ─▶ one request: looks unchanged? then all writes and the answer, or nothing
//!        Err, panic ─▶ nothing is done
//! ```
//!
//! A function runs on a thread that it may block, outside of the writer. It must bear to be run more
//! than once for one call: when a row that it looked at has changed before its writes are committed,
//! it decides again. So it must have no effects but those it has through its [`Call`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hotpair_core::services::dataset::{Availability, Dataset};
use hotpair_core::tables::OWN_PREFIX;
use hotpair_core::tables::change::{Bytes, Operation, Read, SessionKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::datasets::{Datasets, Found};
use crate::json::{key_from_json, row_to_json};
use crate::shown::shown;
use crate::tables::Tables;

/// What a function of the library's user does.
///
/// It runs on a thread that it may block, outside of the writer, at most 64 of them at a time. It must
/// bear to be run more than once for one call: when a row that it looked at has changed before its
/// writes are committed, it decides again. So it must have no effects but those it has through its
/// [`Call`].
pub trait Handler: Send + Sync + 'static {
    /// Answers one call. A panic is answered 308000009, and nothing of the call is done.
    fn call(&self, call: &mut Call<'_>) -> Result<Json, FunctionError>;
}

impl<F> Handler for F
where
    F: Fn(&mut Call<'_>) -> Result<Json, FunctionError> + Send + Sync + 'static,
{
    fn call(&self, call: &mut Call<'_>) -> Result<Json, FunctionError> {
        self(call)
    }
}

/// Why a function did nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FunctionError {
    /// Its own reason: 308000009, with data for the caller.
    #[error("{text}")]
    Failed {
        /// A sentence for the caller.
        text: String,
        /// For the caller's program.
        data: Json,
    },
    /// The arguments make no sense: 308000003.
    #[error("arguments: {0}")]
    Malformed(String),
    /// The caller may not: 308000010.
    #[error("{0}")]
    NotAllowed(String),
    /// A dataset is not there: 308000008 or 308000011.
    #[error("dataset {dataset} is not there: {availability:?}")]
    Dataset {
        /// Its name.
        dataset: String,
        /// How it stands.
        availability: Availability,
    },
}

impl FunctionError {
    /// A failure with a sentence only.
    #[must_use]
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed { text: text.into(), data: Json::Object(serde_json::Map::new()) }
    }
}

/// Whose call it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What tables know the session by.
    pub session: SessionKey,
    /// Who logged in.
    pub user: String,
    /// What the external investment system knows the user by.
    pub user_token: Option<String>,
}

/// One call, as its function sees it.
pub struct Call<'a> {
    caller: Option<&'a Caller>,
    arguments: &'a Json,
    tables: &'a Tables,
    datasets: &'a dyn Datasets,
    /// What was looked at, and the version seen.
    reads: BTreeMap<(Arc<str>, Bytes), u64>,
    operations: Vec<Operation>,
}

/// What a function came to.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) answer: Result<Json, FunctionError>,
    pub(crate) reads: Vec<Read>,
    pub(crate) operations: Vec<Operation>,
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("caller", &self.caller.map(|caller| &caller.user))
            .field("reads", &self.reads.len())
            .field("operations", &self.operations.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        caller: Option<&'a Caller>,
        arguments: &'a Json,
        tables: &'a Tables,
        datasets: &'a dyn Datasets,
    ) -> Self {
        Self { caller, arguments, tables, datasets, reads: BTreeMap::new(), operations: Vec::new() }
    }

    /// What the client sent along, as a type of yours; arguments that do not fit are 308000003.
    pub fn arguments_as<T: DeserializeOwned>(&self) -> Result<T, FunctionError> {
        T::deserialize(self.arguments)
            .map_err(|error| FunctionError::Malformed(shown(&error.to_string())))
    }

    /// Whose call it is; none without a session.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        self.caller
    }

    /// What the client sent along.
    #[must_use]
    pub fn arguments(&self) -> &Json {
        self.arguments
    }

    /// The value of a row as this call left it, else as it is acknowledged.
    pub fn get(&mut self, table: &str, key: &[u8]) -> Result<Option<Bytes>, FunctionError> {
        let table = allowed(table)?;
        let mine = |o: &Operation| o.table() == &table && **o.key() == *key;
        // The last one that settles the row by itself; what comes before it does not matter.
        let settles = |o: &Operation| !matches!(o, Operation::Add { .. });
        let last = self.operations.iter().rposition(|o| mine(o) && settles(o));
        let mut value = match last.map(|place| &self.operations[place]) {
            Some(Operation::Put { value, .. } | Operation::CompareAndPut { value, .. }) => {
                Some(value.clone())
            }
            Some(Operation::Delete { .. }) => None,
            Some(Operation::Add { .. }) | None => self.look(&table, key),
        };
        for added in self.operations[last.map_or(0, |place| place + 1)..].iter().filter(|o| mine(o))
        {
            if let Operation::Add { by, .. } = added {
                value = Some(sum(value.as_deref(), *by).ok_or_else(|| {
                    FunctionError::failed(format!("{table}: the row is no number to add {by} to"))
                })?);
            }
        }
        Ok(value)
    }

    /// Acknowledged rows from a key on, at most `limit`; what this call writes is not in it. Rows that
    /// come to be in between later are not noticed, rows that change are.
    pub fn scan(
        &mut self,
        table: &str,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, FunctionError> {
        let table = allowed(table)?;
        let rows: Vec<(Bytes, Bytes, u64)> = self.tables.look(|store| {
            let rows = store.table(&table).into_iter().flat_map(|rows| rows.scan(from));
            rows.take(limit.min(SCAN_ROWS_MAX))
                .map(|(key, row)| (key.clone(), row.value.clone(), row.version))
                .collect()
        });
        let note = |(key, value, version): (Bytes, Bytes, u64)| {
            self.reads.entry((table.clone(), key.clone())).or_insert(version);
            (key, value)
        };
        Ok(rows.into_iter().map(note).collect())
    }

    /// The row becomes this, as JSON: what 1001 `get` shows as it is.
    pub fn put_json(
        &mut self,
        table: &str,
        key: &str,
        value: &impl Serialize,
    ) -> Result<(), FunctionError> {
        let json = serde_json::to_vec(value)
            .map_err(|error| FunctionError::failed(format!("{table}: {key}: {error}")))?;
        self.put(table, key.as_bytes(), json)
    }

    /// The value of a row, read as JSON.
    pub fn get_json<T: DeserializeOwned>(
        &mut self,
        table: &str,
        key: &str,
    ) -> Result<Option<T>, FunctionError> {
        let Some(value) = self.get(table, key.as_bytes())? else { return Ok(None) };
        let value = serde_json::from_slice(&value)
            .map_err(|error| FunctionError::failed(format!("{table}: {key}: {error}")))?;
        Ok(Some(value))
    }

    /// The row becomes this value.
    pub fn put(
        &mut self,
        table: &str,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<(), FunctionError> {
        let (table, key, value) = (allowed(table)?, key.into(), value.into());
        self.operations.push(Operation::Put { table, key, value });
        Ok(())
    }

    /// The row is gone.
    pub fn delete(&mut self, table: &str, key: impl Into<Bytes>) -> Result<(), FunctionError> {
        let (table, key) = (allowed(table)?, key.into());
        self.operations.push(Operation::Delete { table, key });
        Ok(())
    }

    /// The row, a decimal number, grows; whoever else adds to it meanwhile does no harm. A [`get`] of
    /// it makes it a row that was looked at.
    ///
    /// [`get`]: Self::get
    pub fn add(
        &mut self,
        table: &str,
        key: impl Into<Bytes>,
        by: i64,
    ) -> Result<(), FunctionError> {
        let (table, key) = (allowed(table)?, key.into());
        self.operations.push(Operation::Add { table, key, by });
        Ok(())
    }

    /// A dataset that is in memory.
    pub fn dataset(&self, name: &str) -> Result<Arc<dyn Dataset>, FunctionError> {
        let dataset = || name.to_owned();
        match self.datasets.find(name) {
            Some(Found::Ready(found)) => Ok(found),
            Some(Found::NotReady(availability)) => {
                Err(FunctionError::Dataset { dataset: dataset(), availability })
            }
            None => Err(FunctionError::failed(format!("no dataset named {name:?} is configured"))),
        }
    }

    /// The row of a dataset with this key, as an object with a field for each column.
    pub fn dataset_row(&self, name: &str, key: &[Json]) -> Result<Option<Json>, FunctionError> {
        let dataset = self.dataset(name)?;
        let malformed = |what: &str| FunctionError::Malformed(format!("{name}: {}", shown(what)));
        let key = key_from_json(dataset.key_columns(), key).map_err(|error| malformed(&error))?;
        let row = dataset.lookup(&key).map_err(|error| malformed(&error.to_string()))?;
        Ok(row.map(|row| row_to_json(dataset.columns(), row)))
    }

    fn look(&mut self, table: &Arc<str>, key: &[u8]) -> Option<Bytes> {
        let found = self
            .tables
            .look(|store| store.get(table, key).map(|row| (row.value.clone(), row.version)));
        let version = found.as_ref().map_or(0, |(_, version)| *version);
        // The version seen first: if it is another one the second time, the commit finds out.
        self.reads.entry((table.clone(), key.into())).or_insert(version);
        found.map(|(value, _)| value)
    }

    fn made(self, answer: Result<Json, FunctionError>) -> Made {
        let read = |((table, key), version)| Read { table, key, version };
        let reads = self.reads.into_iter().map(read).collect();
        Made { answer, reads, operations: self.operations }
    }
}

/// Runs a function once, where its panic is its own affair.
pub(crate) fn run(function: &dyn Handler, mut call: Call<'_>) -> Made {
    let _contained = Contained::begin();
    let answer = function.call(&mut call);
    call.made(answer)
}

/// Whether a panic on this thread is a library function's, which is caught: a panic hook that ends
/// the process lets it be.
#[must_use]
pub fn panic_is_contained() -> bool {
    CONTAINED.get()
}

struct Contained;

impl Contained {
    fn begin() -> Self {
        CONTAINED.set(true);
        Self
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        CONTAINED.set(false);
    }
}

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

fn allowed(table: &str) -> Result<Arc<str>, FunctionError> {
    if table.starts_with(OWN_PREFIX) {
        return Err(FunctionError::NotAllowed(format!("table {table} is the pair's own")));
    }
    Ok(table.into())
}

fn sum(value: Option<&[u8]>, by: i64) -> Option<Bytes> {
    let value: i64 = match value {
        Some(value) => std::str::from_utf8(value).ok()?.trim().parse().ok()?,
        None => 0,
    };
    Some(value.checked_add(by)?.to_string().into_bytes().into())
}

/// Rows that one scan gives.
const SCAN_ROWS_MAX: usize = 10_000;
