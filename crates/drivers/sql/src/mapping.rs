//! Rows as columns: what a mapping declares, and what a row's value is by it.
//!
//! A value is a JSON object, and a column is its field of the same name; or a value goes into one column
//! as a whole. A field that is missing is NULL. What does not fit is said, field and all: no value is
//! bent until it does.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde_json::Value;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text.
    Text,
    /// 64 bits with a sign.
    Integer,
    /// 64 bits of floating point.
    Float,
    /// True or false.
    Boolean,
    /// Any JSON.
    Json,
}

impl ColumnKind {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Text, "text"),
        (Self::Integer, "integer"),
        (Self::Float, "float"),
        (Self::Boolean, "boolean"),
        (Self::Json, "json"),
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

impl FromStr for ColumnKind {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| MappingError::Kind(text.to_owned()))
    }
}

/// How one replicated table becomes an SQL table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The replicated table.
    pub table: String,
    /// The SQL table; it is made, and belongs to hotpair.
    pub sql: String,
    /// The column of the key.
    pub key: String,
    /// The column that takes the value as a whole, if it is no object.
    pub value: Option<String>,
    /// What each column holds; the key's is text unless it is here.
    pub columns: BTreeMap<String, ColumnKind>,
}

/// Why a mapping cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// No such kind.
    #[error("{0:?}: a column is text, integer, float, boolean or json")]
    Kind(String),
    /// A name that SQL would not take as it is.
    #[error(
        "{0:?}: an SQL name has 1 to 63 small letters, digits or _, begins with a letter, and not \
         with hotpair_"
    )]
    Name(String),
    /// One of the pair's own.
    #[error("{0:?}: the pair's own tables hold sessions and passwords, and are not written")]
    Own(String),
    /// No columns.
    #[error("has no columns")]
    Empty,
    /// The column of the whole value is not declared.
    #[error("value = {0:?}: is none of its columns")]
    NoSuchColumn(String),
    /// With a whole value there is nothing else.
    #[error("value = {0:?}: takes the value as a whole; {1:?} has no field to come from")]
    BesidesWhole(String, String),
    /// The key is a number, text, or nothing we know.
    #[error("the key {0:?} cannot be {1}: text or integer")]
    KeyKind(String, &'static str),
}

/// One value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// As JSON text.
    Json(String),
}

/// The column with the number of the record that made the row.
pub(crate) const VERSION: &str = "hotpair_version";

impl Mapping {
    /// What is wrong with it by itself.
    pub fn check(&self) -> Result<(), MappingError> {
        if self.table.starts_with(hotpair_core::tables::OWN_PREFIX) {
            return Err(MappingError::Own(self.table.clone()));
        }
        let names = [&self.sql, &self.key].into_iter().chain(self.columns.keys());
        if let Some(bad) = names.into_iter().find(|name| !is_sql_name(name)) {
            return Err(MappingError::Name(bad.clone()));
        }
        match self.key_kind() {
            ColumnKind::Text | ColumnKind::Integer => {}
            other => return Err(MappingError::KeyKind(self.key.clone(), other.as_str())),
        }
        if self.fields().next().is_none() {
            return Err(MappingError::Empty);
        }
        if let Some(whole) = &self.value {
            if !self.columns.contains_key(whole) || *whole == self.key {
                return Err(MappingError::NoSuchColumn(whole.clone()));
            }
            if let Some((other, _)) = self.fields().find(|(name, _)| *name != whole) {
                return Err(MappingError::BesidesWhole(whole.clone(), other.clone()));
            }
        }
        Ok(())
    }

    /// Everything of it in one line: another line is another table.
    #[must_use]
    pub fn definition(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|(name, kind)| format!("{name} {}", kind.as_str())).collect();
        let whole = self.value.as_deref().unwrap_or("-");
        format!("{} key {} value {whole} columns {}", self.sql, self.key, columns.join(", "))
    }

    /// What the key is.
    pub(crate) fn key_kind(&self) -> ColumnKind {
        self.columns.get(&self.key).copied().unwrap_or(ColumnKind::Text)
    }

    /// The columns besides the key.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&String, ColumnKind)> {
        self.columns.iter().filter(|(name, _)| **name != self.key).map(|(name, kind)| (name, *kind))
    }

    /// The key as a cell.
    pub(crate) fn key_cell(&self, key: &[u8]) -> Result<Cell, String> {
        let text = std::str::from_utf8(key).map_err(|_| "the key is no text".to_owned())?;
        match self.key_kind() {
            ColumnKind::Integer => match text.parse::<i64>() {
                // One row, one way to write its key.
                Ok(number) if number.to_string() == text => Ok(Cell::Integer(number)),
                _ => Err(format!("the key {} is no integer", shortened(text))),
            },
            _ => without_nul(text).map(|()| Cell::Text(text.to_owned())),
        }
    }

    /// A row's value as cells, in the order of `fields`.
    pub(crate) fn cells(&self, value: &[u8]) -> Result<Vec<Cell>, String> {
        if let Some(whole) = &self.value {
            let kind = self.columns.get(whole).copied().unwrap_or(ColumnKind::Text);
            return Ok(vec![whole_cell(whole, kind, value)?]);
        }
        let value: Value = serde_json::from_slice(value)
            .map_err(|error| format!("the value is no JSON: {error}"))?;
        let Value::Object(mut fields) = value else {
            return Err(format!("the value is {}, no object", kind_of(&value)));
        };
        self.fields()
            .map(|(name, kind)| match fields.remove(name) {
                None => Ok(Cell::Null),
                Some(value) => cell(name, kind, &value),
            })
            .collect()
    }
}

/// What is wrong with these together.
pub(crate) fn clashes(mappings: &[Mapping]) -> Vec<String> {
    let (mut tables, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut found = Vec::new();
    for mapping in mappings {
        if !tables.insert(&mapping.table) {
            found.push(format!("table {:?} is mapped twice", mapping.table));
        }
        if !names.insert(&mapping.sql) {
            found.push(format!("two tables are mapped to {:?}", mapping.sql));
        }
    }
    found
}

impl Mapping {
    /// What is wrong with these, each with its table.
    #[must_use]
    pub fn problems(mappings: &[Self]) -> Vec<String> {
        let each = mappings.iter().filter_map(|mapping| {
            mapping.check().err().map(|error| format!("{:?}: {error}", mapping.table))
        });
        each.chain(clashes(mappings)).collect()
    }
}

/// A value that is no object: counters are decimal numbers, other values any text.
fn whole_cell(name: &str, kind: ColumnKind, value: &[u8]) -> Result<Cell, String> {
    let text = std::str::from_utf8(value).map_err(|_| "the value is no text".to_owned())?;
    if kind == ColumnKind::Text {
        // As it came through the client API it is JSON: the text, not its quotes.
        let text = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
        without_nul(&text)?;
        return Ok(Cell::Text(text));
    }
    let value = serde_json::from_str(text)
        .map_err(|_| format!("{name}: {} where {} is declared", shortened(text), kind.as_str()))?;
    cell(name, kind, &value)
}

fn cell(name: &str, kind: ColumnKind, value: &Value) -> Result<Cell, String> {
    let fits = match (kind, value) {
        (_, Value::Null) => Some(Cell::Null),
        (ColumnKind::Text, Value::String(text)) => {
            without_nul(text).map_err(|error| format!("{name}: {error}"))?;
            Some(Cell::Text(text.clone()))
        }
        (ColumnKind::Integer, Value::Number(number)) => number.as_i64().map(Cell::Integer),
        (ColumnKind::Float, Value::Number(number)) => number.as_f64().map(Cell::Float),
        (ColumnKind::Boolean, Value::Bool(truth)) => Some(Cell::Boolean(*truth)),
        (ColumnKind::Json, value) => {
            let text = value.to_string();
            // Databases keep JSON in a form that has no place for it.
            if text.contains("\\u0000") {
                return Err(format!("{name}: a text with a NUL in it"));
            }
            Some(Cell::Json(text))
        }
        _ => None,
    };
    fits.ok_or_else(|| {
        let shown = shortened(&value.to_string());
        format!("{name}: {} {shown} where {} is declared", kind_of(value), kind.as_str())
    })
}

fn without_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') { Err("a text with a NUL in it".to_owned()) } else { Ok(()) }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

fn is_sql_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with("hotpair_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(columns: &[(&str, ColumnKind)]) -> Mapping {
        Mapping {
            table: "orders".to_owned(),
            sql: "orders".to_owned(),
            key: "id".to_owned(),
            value: None,
            columns: columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
        }
    }

    fn all() -> Mapping {
        mapping(&[
            ("account", ColumnKind::Text),
            ("amount", ColumnKind::Integer),
            ("price", ColumnKind::Float),
            ("open", ColumnKind::Boolean),
            ("tags", ColumnKind::Json),
        ])
    }

    #[test]
    fn a_value_becomes_cells_and_what_is_missing_is_null() {
        let cells = all().cells(br#"{"account":"a","amount":-5,"price":1.5,"tags":[1],"more":0}"#);
        let wanted = vec![
            Cell::Text("a".to_owned()),
            Cell::Integer(-5),
            Cell::Null,
            Cell::Float(1.5),
            Cell::Json("[1]".to_owned()),
        ];
        assert_eq!(cells, Ok(wanted));
        assert_eq!(all().cells(br#"{"amount":null}"#).unwrap()[1], Cell::Null);
        assert_eq!(all().cells(br#"{"price":3}"#).unwrap()[3], Cell::Float(3.0));
    }

    #[test]
    fn what_does_not_fit_is_told_with_field_and_value() {
        for (value, wanted) in [
            (r#"{"amount":"five"}"#, "amount: text \"five\" where integer is declared"),
            (r#"{"amount":1.5}"#, "amount: number 1.5 where integer is declared"),
            (r#"{"amount":9223372036854775808}"#, "where integer is declared"),
            (r#"{"open":1}"#, "open: number 1 where boolean is declared"),
            (r#"{"account":"a\u0000b"}"#, "account: a text with a NUL"),
            (r#"{"tags":["a\u0000b"]}"#, "tags: a text with a NUL"),
            ("[1]", "the value is array, no object"),
            ("{", "the value is no JSON"),
        ] {
            let told = all().cells(value.as_bytes()).unwrap_err();
            assert!(told.contains(wanted), "{value}: {told}");
        }
    }

    #[test]
    fn a_counter_goes_into_one_column_as_a_whole() {
        let counter = Mapping {
            value: Some("balance".to_owned()),
            ..mapping(&[("balance", ColumnKind::Integer)])
        };
        counter.check().unwrap();
        assert_eq!(counter.cells(b"-7"), Ok(vec![Cell::Integer(-7)]));
        counter.cells(b"seven").unwrap_err();
        counter.cells(b"\xff").unwrap_err();
        let text = Mapping { value: Some("t".to_owned()), ..mapping(&[("t", ColumnKind::Text)]) };
        assert_eq!(text.cells(b"seven"), Ok(vec![Cell::Text("seven".to_owned())]));
        assert_eq!(text.cells(b"\"seven\""), Ok(vec![Cell::Text("seven".to_owned())]));
        text.cells(b"\"\\u0000\"").unwrap_err();
    }

    #[test]
    fn a_key_is_text_unless_it_is_declared_a_number() {
        assert_eq!(all().key_cell(b"007"), Ok(Cell::Text("007".to_owned())));
        all().key_cell(b"\xff").unwrap_err();
        all().key_cell(b"a\0").unwrap_err();
        let numbered = mapping(&[("id", ColumnKind::Integer), ("a", ColumnKind::Text)]);
        numbered.check().unwrap();
        assert_eq!(numbered.key_cell(b"7"), Ok(Cell::Integer(7)));
        numbered.key_cell(b"007").unwrap_err();
    }

    #[test]
    fn a_mapping_that_cannot_be_meant_is_refused() {
        let good = all();
        good.check().unwrap();
        for bad in [
            Mapping { table: "hotpair.sessions".to_owned(), ..good.clone() },
            Mapping { sql: "hotpair_rows".to_owned(), ..good.clone() },
            Mapping { sql: "a\"b".to_owned(), ..good.clone() },
            Mapping { key: String::new(), ..good.clone() },
            Mapping { value: Some("nothing".to_owned()), ..good.clone() },
            Mapping { value: Some("amount".to_owned()), ..good.clone() },
            mapping(&[]),
            mapping(&[("id", ColumnKind::Float), ("a", ColumnKind::Text)]),
        ] {
            bad.check().unwrap_err();
        }
        let twice = [good.clone(), good];
        assert_eq!(Mapping::problems(&twice).len(), 2);
    }
}
