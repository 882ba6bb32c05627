//! Values of datasets as JSON, and keys from JSON.
//!
//! Dates and timestamps are text as the values themselves print; floats that JSON cannot say are
//! text too.

use hotpair_core::services::dataset::{Column, ColumnKind, Row, Value};
use serde_json::{Map, Value as Json};

/// A row as an object: column names to values.
pub(crate) fn row_to_json(columns: &[Column], row: Row) -> Json {
    let fields = columns.iter().zip(row).map(|(column, value)| {
        let name = column.name.clone();
        (name, value_to_json(value))
    });
    Json::Object(fields.collect::<Map<String, Json>>())
}

fn value_to_json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(truth) => truth.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) if number.is_finite() => number.into(),
        Value::Text(text) => text.into(),
        other @ (Value::Float(_) | Value::Date(_) | Value::Timestamp(_)) => {
            other.to_string().into()
        }
    }
}

/// A key, or the beginning of one, as far as it fits the key's columns; a surplus of values is left
/// for the dataset to refuse.
pub(crate) fn key_from_json(columns: &[Column], key: &[Json]) -> Result<Vec<Value>, String> {
    let convert = |(place, json): (usize, &Json)| match columns.get(place) {
        Some(column) => value_from_json(column.kind, json)
            .ok_or_else(|| format!("key column `{}` is {}, got {json}", column.name, column.kind)),
        None => Ok(Value::Null),
    };
    key.iter().enumerate().map(convert).collect()
}

fn value_from_json(kind: ColumnKind, json: &Json) -> Option<Value> {
    match (kind, json) {
        (ColumnKind::Boolean, Json::Bool(truth)) => Some(Value::Boolean(*truth)),
        (ColumnKind::Integer, Json::Number(number)) => number.as_i64().map(Value::Integer),
        (ColumnKind::Float, Json::Number(number)) => number.as_f64().map(Value::Float),
        (ColumnKind::Text, Json::String(text)) => Some(Value::Text(text.clone())),
        (ColumnKind::Date | ColumnKind::Timestamp, Json::String(text)) => Value::parse(kind, text),
        (
            ColumnKind::Boolean
            | ColumnKind::Integer
            | ColumnKind::Float
            | ColumnKind::Text
            | ColumnKind::Date
            | ColumnKind::Timestamp,
            _,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn column(name: &str, kind: ColumnKind) -> Column {
        Column { name: name.to_owned(), kind }
    }

    #[test]
    fn a_row_reads_as_it_prints() {
        let columns = [
            column("day", ColumnKind::Date),
            column("price", ColumnKind::Float),
            column("ratio", ColumnKind::Float),
            column("volume", ColumnKind::Integer),
            column("note", ColumnKind::Text),
        ];
        let row = vec![
            Value::Date(7306),
            Value::Float(1.5),
            Value::Float(f64::NAN),
            Value::Integer(i64::MAX),
            Value::Null,
        ];
        let wanted = json!({"day": "1990-01-02", "price": 1.5, "ratio": "NaN",
            "volume": i64::MAX, "note": null});
        assert_eq!(row_to_json(&columns, row), wanted);
    }

    #[test]
    fn a_key_is_read_by_the_kinds_of_its_columns() {
        let columns = [column("day", ColumnKind::Date), column("symbol", ColumnKind::Text)];
        let key = key_from_json(&columns, &[json!("1990-01-02"), json!("AAPL")]).unwrap();
        assert_eq!(key, [Value::Date(7306), Value::Text("AAPL".into())]);
        let wrong = key_from_json(&columns, &[json!("yesterday")]).unwrap_err();
        assert_eq!(wrong, "key column `day` is date, got \"yesterday\"");
        assert!(key_from_json(&columns, &[json!("1990-01-02"), json!(5)]).is_err());
        assert_eq!(key_from_json(&columns, &[]).unwrap(), []);
    }
}
