//! The built-in functions of tables: what they take becomes one operation for the writer, or a look
//! at what is acknowledged.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use hotpair_core::tables::OWN_PREFIX;
use hotpair_core::tables::change::{Bytes, Operation};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::arguments::{Keyed, read};
use super::failure::{Failure, shown};
use crate::data::{Data, compact, from_base64, key_to_json, row_to_json, value_to_json};
use crate::tables::Tables;

#[derive(Debug, Deserialize)]
struct PutArguments<'a> {
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Debug, Deserialize)]
struct CompareArguments<'a> {
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
    version: u64,
}

#[derive(Debug, Deserialize)]
struct AddArguments<'a> {
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    by: i64,
}

#[derive(Debug, Deserialize)]
struct ScanArguments<'a> {
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(default)]
    from: From,
    limit: Option<usize>,
}

/// Where a scan begins: a key, or one that is no text, as `next` gives it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum From {
    Text(String),
    Bytes { base64: String },
}

impl Default for From {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// 1002 `put`.
pub(super) fn put(arguments: &str) -> Result<Operation, Failure> {
    let PutArguments { table, key, value } = read(arguments)?;
    Ok(Operation::Put {
        table: allowed(&table)?,
        key: key.as_bytes().into(),
        value: stored(value)?,
    })
}

/// 1003 `delete`.
pub(super) fn delete(arguments: &str) -> Result<Operation, Failure> {
    let Keyed { table, key } = read(arguments)?;
    Ok(Operation::Delete { table: allowed(&table)?, key: key.as_bytes().into() })
}

/// 1004 `compare_and_put`.
pub(super) fn compare_and_put(arguments: &str) -> Result<Operation, Failure> {
    let CompareArguments { table, key, value, version } = read(arguments)?;
    let (table, key, value) = (allowed(&table)?, key.as_bytes().into(), stored(value)?);
    Ok(Operation::CompareAndPut { table, key, value, version })
}

/// 1006 `add`.
pub(super) fn add(arguments: &str) -> Result<Operation, Failure> {
    let AddArguments { table, key, by } = read(arguments)?;
    Ok(Operation::Add { table: allowed(&table)?, key: key.as_bytes().into(), by })
}

/// 1001 `get`.
pub(super) fn get(tables: &Tables, arguments: &str) -> Result<Data, Failure> {
    let Keyed { table, key } = read(arguments)?;
    let table = allowed(&table)?;
    let found = tables.look(|store| {
        store.get(&table, key.as_bytes()).map(|row| (row.value.clone(), row.version))
    });
    Ok(Data::text(match found {
        Some((value, version)) => {
            format!("{{\"value\":{},\"version\":{version}}}", value_to_json(&value))
        }
        None => "{\"value\":null,\"version\":0}".to_owned(),
    }))
}

/// 1005 `scan`.
pub(super) fn scan(tables: &Tables, arguments: &str) -> Result<Data, Failure> {
    let ScanArguments { table, from, limit } = read(arguments)?;
    let limit = limit.unwrap_or(SCAN_ROWS_DEFAULT);
    if limit > SCAN_ROWS_MAX {
        return Err(Failure::Malformed(format!(
            "arguments.limit: {limit} rows are more than {SCAN_ROWS_MAX}"
        )));
    }
    let table = allowed(&table)?;
    let from: Bytes = match from {
        From::Text(text) => text.as_bytes().into(),
        From::Bytes { base64 } => from_base64(&base64)
            .ok_or_else(|| Failure::Malformed("arguments.from.base64: not base64".into()))?
            .into(),
    };
    Ok(scanned(tables, &table, from, limit))
}

fn scanned(tables: &Tables, table: &str, from: Bytes, limit: usize) -> Data {
    let mut text = String::from("{\"rows\":[");
    let (mut rows, mut next) = (0, Some(from));
    while rows < limit
        && text.len() < SCAN_BYTES_MAX
        && let Some(start) = next.take()
    {
        // In pieces, so that the writer gets in between.
        let wanted = PIECE.min(limit - rows);
        let mut piece: Vec<(Bytes, Bytes, u64)> = tables.look(|store| {
            let rows = store.table(table).into_iter().flat_map(|rows| rows.scan(&start));
            rows.take(wanted + 1)
                .map(|(key, row)| (key.clone(), row.value.clone(), row.version))
                .collect()
        });
        next = if piece.len() > wanted { piece.pop().map(|(key, _, _)| key) } else { None };
        for (key, value, version) in piece {
            if text.len() >= SCAN_BYTES_MAX {
                next = Some(key);
                break;
            }
            if rows > 0 {
                text.push(',');
            }
            row_to_json(&key, &value, version, &mut text);
            rows += 1;
        }
    }
    text.push_str("],\"next\":");
    match next {
        Some(key) => key_to_json(&key, &mut text),
        None => text.push_str("null"),
    }
    text.write_char('}').expect("a String takes all");
    Data::text(text)
}

/// A name that clients may use.
fn allowed(table: &str) -> Result<Arc<str>, Failure> {
    if table.is_empty() {
        return Err(Failure::Malformed("arguments.table is empty".to_owned()));
    }
    if table.starts_with(OWN_PREFIX) {
        return Err(Failure::NotAllowed(format!("table {} is the pair's own", shown(table))));
    }
    Ok(table.into())
}

fn stored(value: &RawValue) -> Result<Bytes, Failure> {
    let value = compact(value.get())
        .map_err(|error| Failure::Malformed(format!("arguments.value: {error}")))?;
    Ok((*value).into())
}

/// Rows of a scan when its caller does not say.
const SCAN_ROWS_DEFAULT: usize = 100;
/// Rows of a scan: about 10 ms of work.
const SCAN_ROWS_MAX: usize = 10_000;
/// A scan ends with the row that passes this; the next one goes on.
const SCAN_BYTES_MAX: usize = 4 << 20;
/// Rows that are looked at with the lock held.
const PIECE: usize = 512;
