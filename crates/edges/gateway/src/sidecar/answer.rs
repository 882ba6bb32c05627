//! What a program's answer says.

use std::sync::Arc;

use hotpair_core::tables::OWN_PREFIX;
use hotpair_core::tables::change::{Bytes, Operation, Read};
use hotpair_http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::data::{Data, compact};
use crate::shown::shown;

/// What came of a call of a program.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// It is done.
    Done { data: Data, changed: Changed },
    /// It failed, says why, and is not to be asked again for this request.
    Failed { text: String, data: Json },
    /// It did nothing, and is to be asked again later.
    Later,
    /// An answer that nothing can be done with: what was done, nobody knows.
    Unusable(String),
    /// No whole answer: it may have been done, or may yet be.
    Nothing(String),
}

/// What is to be committed with the answer, all together or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changed {
    /// Rows that must be as the program saw them.
    pub(crate) reads: Vec<Read>,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    changes: Vec<ChangeText<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeText<'a> {
    table: String,
    key: String,
    #[serde(borrow, default, deserialize_with = "given")]
    put: Option<&'a RawValue>,
    #[serde(default)]
    delete: bool,
    add: Option<i64>,
    version: Option<u64>,
}

/// A value that is there, `null` as well.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Reads a whole answer.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Told {
    match status.as_u16() {
        200 => match done(body) {
            Ok(done) => done,
            Err(why) => Told::Unusable(shown(&why)),
        },
        503 => Told::Later,
        400..=599 => failed(status, body),
        other => Told::Unusable(format!("the program answered with status {other}")),
    }
}

fn done(body: &[u8]) -> Result<Told, String> {
    let answered: Answered<'_> = serde_json::from_slice(body)
        .map_err(|error| format!("the program's answer cannot be read: {error}"))?;
    let data = json_text(answered.data, "data")?;
    let data = Data::text(String::from_utf8(data).expect("JSON is text"));
    let mut changed = Changed::default();
    for (place, change) in answered.changes.into_iter().enumerate() {
        changed.take_in(change, &format!("changes[{place}]"))?;
    }
    Ok(Told::Done { data, changed })
}

impl Changed {
    fn take_in(&mut self, change: ChangeText<'_>, at: &str) -> Result<(), String> {
        let ChangeText { table, key, put, delete, add, version } = change;
        if table.is_empty() || table.starts_with(OWN_PREFIX) {
            return Err(format!("{at}: table {table:?} is not to be changed by a program"));
        }
        let (table, key): (Arc<str>, Bytes) = (table.into(), key.into_bytes().into());
        if let Some(version) = version {
            self.reads.push(Read { table: table.clone(), key: key.clone(), version });
        }
        let operation = match (put, delete, add) {
            (Some(value), false, None) => {
                Operation::Put { table, key, value: json_text(value, at)?.into() }
            }
            (None, true, None) => Operation::Delete { table, key },
            (None, false, Some(by)) => Operation::Add { table, key, by },
            // Only what it depends on.
            (None, false, None) if version.is_some() => return Ok(()),
            (None, false, None) => return Err(format!("{at}: put, delete, add or version")),
            _ => return Err(format!("{at}: only one of put, delete and add")),
        };
        self.operations.push(operation);
        Ok(())
    }
}

fn json_text(value: &RawValue, at: &str) -> Result<Vec<u8>, String> {
    compact(value.get()).map(|text| text.into_owned()).map_err(|error| format!("{at}: {error}"))
}

/// The program's own words, where it has some.
fn failed(status: StatusCode, body: &[u8]) -> Told {
    #[derive(Default, Deserialize)]
    struct Words {
        error: Option<String>,
        #[serde(default)]
        data: Json,
    }
    let words: Words = serde_json::from_slice(body).unwrap_or_default();
    let text = match words.error {
        Some(text) => shown(&text),
        None => format!("the program answered with status {}", status.as_u16()),
    };
    let data = if words.data.is_null() { json!({}) } else { words.data };
    Told::Failed { text, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &str) -> Told {
        read(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    fn key(text: &str) -> Bytes {
        text.as_bytes().into()
    }

    #[test]
    fn an_answer_is_its_data_and_what_is_to_be_committed_with_it() {
        let body = r#"{"data": {"left": [1, 2.50]}, "changes": [
            {"table": "t", "key": "a", "put": {"x": 1}, "version": 7},
            {"table": "t", "key": "b", "delete": true},
            {"table": "t", "key": "c", "add": -3},
            {"table": "t", "key": "d", "put": null},
            {"table": "t", "key": "e", "version": 0}]}"#;
        let Told::Done { data, changed } = told(200, body) else { panic!() };
        assert_eq!(data.bytes(), br#"{"left":[1,2.50]}"#);
        let table: Arc<str> = "t".into();
        let read = |row, version| Read { table: "t".into(), key: key(row), version };
        assert_eq!(changed.reads, [read("a", 7), read("e", 0)]);
        let put = |row, value| Operation::Put { table: "t".into(), key: key(row), value };
        let (b, c) = (key("b"), key("c"));
        let wanted = [
            put("a", key(r#"{"x":1}"#)),
            Operation::Delete { table: table.clone(), key: b },
            Operation::Add { table, key: c, by: -3 },
            put("d", key("null")),
        ];
        assert_eq!(changed.operations, wanted);
        assert!(matches!(told(200, r#"{"data":null}"#), Told::Done { .. }));
    }

    #[test]
    fn an_answer_that_is_not_as_agreed_is_unusable_and_says_where() {
        let change = |change: &str| format!(r#"{{"data":1,"changes":[{change}]}}"#);
        let own = r#"{"table":"hotpair.sessions","key":"a","delete":true}"#;
        for (body, says) in [
            ("{}".to_owned(), "missing field `data`"),
            ("hello".to_owned(), "cannot be read"),
            (r#"{"data":1,"change":[]}"#.to_owned(), "unknown field `change`"),
            (change(own), "hotpair.sessions"),
            (change(r#"{"table":"t","key":"a"}"#), "changes[0]: put, delete, add or version"),
            (change(r#"{"table":"t","key":"a","put":1,"add":1}"#), "only one of"),
            (change(r#"{"table":"t","key":"a","add":1.5}"#), "cannot be read"),
        ] {
            match told(200, &body) {
                Told::Unusable(why) => assert!(why.contains(says), "{body}: {why}"),
                other => panic!("{body}: {other:?}"),
            }
        }
        for status in [100, 201, 204, 301, 302, 307] {
            assert!(matches!(told(status, r#"{"data":1}"#), Told::Unusable(_)), "{status}");
        }
    }

    #[test]
    fn a_failure_has_the_programs_words() {
        let failed = told(422, r#"{"error": "no cover", "data": {"left": 3}}"#);
        assert_eq!(failed, Told::Failed { text: "no cover".into(), data: json!({"left": 3}) });
        let text = "the program answered with status 500".to_owned();
        assert_eq!(told(500, "<html>"), Told::Failed { text, data: json!({}) });
        assert_eq!(told(503, ""), Told::Later);
    }
}
