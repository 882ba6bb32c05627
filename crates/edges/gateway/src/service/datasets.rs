//! The built-in functions of datasets.

use std::sync::Arc;

use hotpair_core::services::dataset::{Dataset, FeedState};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::ClientService;
use super::arguments::read;
use super::failure::{Failure, shown};
use crate::data::Data;
use crate::datasets::{Found, Freshness};
use crate::function::FunctionError;
use crate::json::{key_from_json, row_to_json};

impl ClientService {
    pub(super) fn dataset_get(&self, arguments: &str) -> Result<Data, Failure> {
        let arguments: GetArguments = read(arguments)?;
        let dataset = self.find_dataset(&arguments.dataset)?;
        let key = key_from_json(dataset.key_columns(), &arguments.key)
            .map_err(|what| Failure::Malformed(format!("arguments.key: {}", shown(&what))))?;
        let row = dataset
            .lookup(&key)
            .map_err(|error| Failure::Malformed(format!("arguments.key: {error}")))?;
        Ok(Data::of(&json!({"row": row.map(|row| row_to_json(dataset.columns(), row))})))
    }

    pub(super) fn dataset_scan(&self, arguments: &str) -> Result<Data, Failure> {
        let arguments: ScanArguments = read(arguments)?;
        let limit = arguments.limit.unwrap_or(SCAN_ROWS_DEFAULT);
        if limit > SCAN_ROWS_MAX {
            return Err(Failure::Malformed(format!(
                "arguments.limit: {limit} rows are more than {SCAN_ROWS_MAX}"
            )));
        }
        let dataset = self.find_dataset(&arguments.dataset)?;
        let from = key_from_json(dataset.key_columns(), &arguments.from)
            .map_err(|what| Failure::Malformed(format!("arguments.from: {}", shown(&what))))?;
        let rows = dataset
            .scan(&from, limit)
            .map_err(|error| Failure::Malformed(format!("arguments.from: {error}")))?;
        let columns = dataset.columns();
        let rows: Vec<Json> = rows.into_iter().map(|row| row_to_json(columns, row)).collect();
        Ok(Data::of(&json!({"rows": rows})))
    }

    pub(super) fn dataset_describe(&self, arguments: &str) -> Result<Data, Failure> {
        let arguments: DescribeArguments = read(arguments)?;
        let dataset = self.find_dataset(&arguments.dataset)?;
        let columns: Vec<Json> = dataset
            .columns()
            .iter()
            .map(|column| json!({"name": column.name, "kind": column.kind.name()}))
            .collect();
        let key: Vec<&str> = dataset.key_columns().iter().map(|key| key.name.as_str()).collect();
        let mut described = json!({
            "dataset": arguments.dataset,
            "rows": dataset.rows(),
            "columns": columns,
            "key": key,
            "memory_bytes": dataset.memory_bytes(),
        });
        if let Some(Freshness { as_of, feed }) = self.datasets.freshness(&arguments.dataset) {
            described["as_of"] = json!({"version": as_of.version, "time_ms": as_of.wall_ms});
            if feed != FeedState::None {
                described["feed"] = feed.word().into();
            }
            if let FeedState::Stale { reason } = feed {
                described["stale"] = reason.into();
            }
        }
        Ok(Data::of(&described))
    }

    pub(super) fn find_dataset(&self, name: &str) -> Result<Arc<dyn Dataset>, Failure> {
        let dataset = || shown(name);
        match self.datasets.find(name) {
            Some(Found::Ready(found)) => Ok(found),
            Some(Found::NotReady(availability)) => {
                Err(FunctionError::Dataset { dataset: dataset(), availability }.into())
            }
            None => Err(Failure::Malformed(format!(
                "arguments.dataset: no dataset named {:?} is configured",
                dataset()
            ))),
        }
    }
}

#[derive(Debug, Deserialize)]
struct GetArguments {
    dataset: String,
    key: Vec<Json>,
}

#[derive(Debug, Deserialize)]
struct ScanArguments {
    dataset: String,
    #[serde(default)]
    from: Vec<Json>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct DescribeArguments {
    dataset: String,
}

/// Rows of a scan when its caller does not say.
const SCAN_ROWS_DEFAULT: usize = 100;
/// Rows of a scan: about 10 ms of work and a few megabytes.
const SCAN_ROWS_MAX: usize = 10_000;
