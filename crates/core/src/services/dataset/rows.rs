//! Rows of a dataset: keys, and the face that every dataset shows.

use std::fmt;

use super::value::{Column, ColumnKind, Row, Value};

/// Why a key was not understood. Nothing was looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// More or fewer values than the key has columns.
    #[error("the key has {expected} values ({columns}), {got} were given")]
    WrongCount {
        /// The key columns, separated by commas.
        columns: String,
        /// How many values the key has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// A value of another kind than its column's.
    #[error("key column `{column}` is {expected}, {got} was given")]
    WrongKind {
        /// The key column.
        column: String,
        /// Its kind.
        expected: ColumnKind,
        /// The kind that was given; `null` for null.
        got: &'static str,
    },
}

/// Checks a key or (for a scan) the beginning of one against the key's columns.
pub fn check_key(columns: &[Column], key: &[Value], prefix_allowed: bool) -> Result<(), KeyError> {
    if key.len() > columns.len() || (key.len() < columns.len() && !prefix_allowed) {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(KeyError::WrongCount {
            columns: names.join(", "),
            expected: columns.len(),
            got: key.len(),
        });
    }
    for (column, value) in columns.iter().zip(key) {
        if value.kind() != Some(column.kind) {
            return Err(KeyError::WrongKind {
                column: column.name.clone(),
                expected: column.kind,
                got: value.kind().map_or("null", ColumnKind::name),
            });
        }
    }
    Ok(())
}

/// Rows that are in memory: found by key, walked in key order.
///
/// Every answer is about whole rows, from any thread, without waiting. What was loaded never changes once
/// it is handed out; what follows a feed changes row by row, and a scan sees each row as it is when it is
/// come by. Keys are unique and hold no nulls. A key that is not there is not
/// an error; a key that could not be there (wrong number or kind of values) is, and the error names
/// the column.
pub trait Dataset: Send + Sync + fmt::Debug {
    /// All columns, in the order of a row's values.
    fn columns(&self) -> &[Column];

    /// The columns of the key, in key order.
    fn key_columns(&self) -> &[Column];

    /// How many rows there are.
    fn rows(&self) -> u64;

    /// The row with this key.
    fn lookup(&self, key: &[Value]) -> Result<Option<Row>, KeyError>;

    /// At most `limit` rows in key order, beginning with the first whose key is not before `from`.
    ///
    /// `from` may be the beginning of a key, or empty: a missing value is before every other.
    fn scan(&self, from: &[Value], limit: usize) -> Result<Vec<Row>, KeyError>;

    /// The wrapping sum of [`row_digest`](super::row_digest) over all rows: the same for the same rows in any order.
    ///
    /// The first call walks all rows; later ones remember.
    fn checksum(&self) -> u64;

    /// Bytes the rows and their index occupy.
    fn memory_bytes(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_an_error_that_names_the_column() {
        let columns = [
            Column { name: "account".to_owned(), kind: ColumnKind::Text },
            Column { name: "day".to_owned(), kind: ColumnKind::Date },
        ];
        let account = Value::Text("A".to_owned());
        assert_eq!(check_key(&columns, &[account.clone(), Value::Date(1)], false), Ok(()));
        assert_eq!(check_key(&columns, std::slice::from_ref(&account), true), Ok(()));
        let short = check_key(&columns, std::slice::from_ref(&account), false).unwrap_err();
        assert_eq!(short.to_string(), "the key has 2 values (account, day), 1 were given");
        let wrong = check_key(&columns, &[account, Value::Null], false).unwrap_err();
        assert_eq!(wrong.to_string(), "key column `day` is date, null was given");
    }
}
