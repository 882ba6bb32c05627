//! Why a load failed.

use std::io;

use arrow_schema::{ArrowError, DataType};
use parquet::errors::ParquetError;

use crate::broken::BrokenRow;

/// Why a load failed. It left nothing behind; trying again is safe.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is missing or may not be read.
    #[error("{file} cannot be opened: {error}")]
    Open {
        /// The file.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// Reading stopped before the end: a failing disk, or compressed data that is cut or damaged.
    #[error("{file} cannot be read to its end: {error}")]
    Read {
        /// The file.
        file: String,
        /// What the system or the decompression said.
        error: io::Error,
    },
    /// There is not even a header.
    #[error("{file} is empty")]
    Empty {
        /// The file.
        file: String,
    },
    /// The header line names no usable columns.
    #[error("{file} has a bad header: {what}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The specification names a column the file has not.
    #[error("{file} has no column `{column}`, which `{setting}` names; it has {existing}")]
    UnknownColumn {
        /// The file.
        file: String,
        /// The column that is named.
        column: String,
        /// The setting that names it.
        setting: &'static str,
        /// The columns there are.
        existing: String,
    },
    /// The specification contradicts itself.
    #[error("dataset `{dataset}`: {what}")]
    Specification {
        /// The dataset.
        dataset: String,
        /// What is wrong.
        what: String,
    },
    /// A column of a type that has no kind here.
    #[error("{file}, column `{column}`: values of type {data_type} are not supported")]
    UnsupportedColumn {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// Its type in the file.
        data_type: Box<DataType>,
    },
    /// A record so long that a quote was probably never closed.
    #[error("{file}, line {line}: the record is longer than {bytes_max} bytes (an open quote?)")]
    RecordTooLong {
        /// The file.
        file: String,
        /// Where the record begins.
        line: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// More rows are broken than allowed.
    #[error("{broken} or more broken rows where {allowed} are allowed; the first: {first}")]
    TooManyBroken {
        /// How many were found before giving up.
        broken: u64,
        /// `broken_rows_max`.
        allowed: u64,
        /// The first one in the file.
        first: Box<BrokenRow>,
    },
    /// The Parquet file is damaged or none.
    #[error("{file} cannot be read as Parquet: {error}")]
    Parquet {
        /// The file.
        file: String,
        /// What the library said.
        error: ParquetError,
    },
    /// The columnar library refused something that should have been possible.
    #[error("{file} cannot be decoded: {error}")]
    Arrow {
        /// The file.
        file: String,
        /// What the library said.
        error: ArrowError,
    },
    /// More rows than an index can number.
    #[error("{file} has {rows} rows; at most {rows_max} can be indexed")]
    TooManyRows {
        /// The file.
        file: String,
        /// How many there are.
        rows: u64,
        /// The limit.
        rows_max: u64,
    },
    /// More than 4 GiB of different texts in one column.
    #[error("{file}, column `{column}`: more than 4 GiB of different texts")]
    TooMuchText {
        /// The file.
        file: String,
        /// The column.
        column: String,
    },
    /// Key columns with so many different values that a key does not pack into 128 bits.
    #[error("{file}: a key of {columns} takes {bits} bits with the row number, 128 are possible")]
    KeyTooWide {
        /// The file.
        file: String,
        /// The key columns.
        columns: String,
        /// What they would take.
        bits: u32,
    },
    /// The database cannot be reached, does not know the statement, or broke off.
    #[error("{database}, {doing}: {what}")]
    Database {
        /// Where it is, without the password.
        database: String,
        /// What was being done.
        doing: &'static str,
        /// What the database, or the way there, said.
        what: String,
    },
    /// The cancel flag was raised.
    #[error("the load was cancelled")]
    Cancelled,
}
