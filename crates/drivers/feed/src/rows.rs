//! JSON rows of a message into updates: an object is one, a list of objects some.
//!
//! `version` and, if it is there, `deleted` are the feed's own words; everything else is a column.

use std::fmt;

use hotpair_core::services::dataset::{Given, Update};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The updates of one message; why it has none that can be read.
pub fn updates(message: &[u8]) -> Result<Vec<Update>, String> {
    let first = message.iter().find(|byte| !byte.is_ascii_whitespace());
    let rows = if first == Some(&b'[') {
        serde_json::from_slice::<Vec<Row>>(message)
    } else {
        serde_json::from_slice::<Row>(message).map(|row| vec![row])
    };
    rows.map(|rows| rows.into_iter().map(|row| row.0).collect()).map_err(|error| error.to_string())
}

struct Row(Update);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let (mut version, mut deleted) = (None, false);
        let mut fields = Vec::with_capacity(8);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "version" => version = Some(map.next_value::<u64>()?),
                "deleted" => deleted = map.next_value::<bool>()?,
                _ if fields.len() == FIELDS_MAX => {
                    return Err(A::Error::custom("a row with too many columns"));
                }
                _ => fields.push((name, map.next_value::<Cell>()?.0)),
            }
        }
        let version = version.ok_or_else(|| A::Error::missing_field("version"))?;
        Ok(Row(Update { version, deleted, fields }))
    }
}

struct Cell(Given);

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, true, false, a number or text")
    }

    fn visit_unit<E: Error>(self) -> Result<Cell, E> {
        Ok(Cell(Given::Null))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Cell, E> {
        Ok(Cell(Given::Boolean(truth)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Cell, E> {
        Ok(Cell(Given::Integer(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Cell, E> {
        Ok(Cell(match i64::try_from(number) {
            Ok(number) => Given::Integer(number),
            Err(_) => Given::Float(number as f64),
        }))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Cell, E> {
        Ok(Cell(Given::Float(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell(Given::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Cell, A::Error> {
        Err(A::Error::custom("a list is no value of a column"))
    }
}

const FIELDS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_row_or_a_list_of_rows() {
        let one =
            br#" {"account":"A","amount":-3,"price":1.5,"open":true,"note":null,"version":7}"#;
        let fields = [
            ("account", Given::Text("A".to_owned())),
            ("amount", Given::Integer(-3)),
            ("price", Given::Float(1.5)),
            ("open", Given::Boolean(true)),
            ("note", Given::Null),
        ];
        let fields = fields.map(|(name, given)| (name.to_owned(), given)).to_vec();
        assert_eq!(updates(one), Ok(vec![Update { version: 7, deleted: false, fields }]));
        let two = br#"[{"k":1,"version":1},{"k":1,"version":2,"deleted":true}]"#;
        let two = updates(two).unwrap();
        assert_eq!((two.len(), two[1].deleted, two[1].version), (2, true, 2));
        assert_eq!(updates(b"[]"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_row_is_an_error_and_no_panic() {
        for (wrong, named) in [
            (&b""[..], "EOF"),
            (b"hello", "expected"),
            (b"5", "a row"),
            (b"{\"k\":1}", "version"),
            (b"{\"k\":1,\"version\":-1}", "-1"),
            (b"{\"k\":1,\"version\":1.5}", "1.5"),
            (b"{\"k\":[1],\"version\":1}", "list"),
            (b"{\"k\":{},\"version\":1}", "map"),
            (b"{\"version\":1", "EOF"),
            (b"{\"k\":\"\xff\",\"version\":1}", "unicode"),
        ] {
            let said = updates(wrong).unwrap_err();
            assert!(said.contains(named), "{:?}: {said}", String::from_utf8_lossy(wrong));
        }
    }
}
