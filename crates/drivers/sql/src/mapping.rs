//! Rows as columns: what a mapping declares, and what a row's value is by it.
//!
//! A value is a JSON object, and a column is its field of the same name; or a value goes into one column
//! as a whole. A field that is missing is NULL. What does not fit is said, field and all: no value is
//! bent until it does.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde_json::value::RawValue;

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
        let no_json = |error| format!("the value is no JSON: {error}");
        let value: &RawValue = serde_json::from_slice(value).map_err(no_json)?;
        let kind = kind_of(value.get());
        if kind != OBJECT {
            return Err(format!("the value is {kind}, no object"));
        }
        let mut fields: BTreeMap<String, &RawValue> =
            serde_json::from_str(value.get()).map_err(no_json)?;
        self.fields()
            .map(|(name, kind)| match fields.remove(name) {
                None => Ok(Cell::Null),
                Some(value) => cell(name, kind, value.get()),
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
        let text = match serde_json::from_str(text) {
            Ok(None) => return Ok(Cell::Null),
            Ok(Some(text)) => text,
            Err(_) => text.to_owned(),
        };
        without_nul(&text)?;
        return Ok(Cell::Text(text));
    }
    let value: &RawValue = serde_json::from_str(text)
        .map_err(|_| format!("{name}: {} where {} is declared", shortened(text), kind.as_str()))?;
    cell(name, kind, value.get())
}

/// A value as it was written: a number that went through another form might not be that number.
fn cell(name: &str, kind: ColumnKind, value: &str) -> Result<Cell, String> {
    let found = kind_of(value);
    if found == NULL {
        return Ok(Cell::Null);
    }
    let misfit = |why: &str| {
        let shown = shortened(value);
        Err(format!("{name}: {found} {shown} where {} is declared{why}", kind.as_str()))
    };
    let unwritable = |why| format!("{name}: {why}");
    match (kind, found) {
        (ColumnKind::Text, TEXT) => {
            let text: String =
                serde_json::from_str(value).map_err(|error| format!("{name}: {error}"))?;
            without_nul(&text).map_err(unwritable)?;
            Ok(Cell::Text(text))
        }
        (ColumnKind::Integer, NUMBER) => match value.parse() {
            Ok(number) => Ok(Cell::Integer(number)),
            Err(_) => misfit(""),
        },
        (ColumnKind::Float, NUMBER) => match float(value) {
            Ok(number) => Ok(Cell::Float(number)),
            Err(nearest) => misfit(&format!(": it would become {nearest:.0}")),
        },
        (ColumnKind::Boolean, BOOLEAN) => Ok(Cell::Boolean(value == "true")),
        (ColumnKind::Json, _) => match unwritable_escape(value) {
            Some(what) => Err(unwritable(what.to_owned())),
            None => Ok(Cell::Json(value.to_owned())),
        },
        _ => misfit(""),
    }
}

/// The nearest floating point number. An integer must be just that number, or it is refused with what
/// it would become; who writes a fraction or an exponent means a measure.
fn float(text: &str) -> Result<f64, f64> {
    let number: f64 = text.parse().unwrap_or(f64::NAN);
    let integer = !text.contains(['.', 'e', 'E']);
    let exact = !integer || format!("{number:.0}") == text;
    if number.is_finite() && exact { Ok(number) } else { Err(number) }
}

/// What a JSON text may say, by an escape only, and a database has no place for.
fn unwritable_escape(text: &str) -> Option<&'static str> {
    const LONE: &str = "a text with half a surrogate pair in it";
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at..];
        let bytes = match escape_code(escape) {
            None => 2,
            Some(0) => return Some(NUL),
            Some(0xd800..=0xdbff) => match escape_code(&escape[6..]) {
                Some(0xdc00..=0xdfff) => 12,
                _ => return Some(LONE),
            },
            Some(0xdc00..=0xdfff) => return Some(LONE),
            Some(_) => 6,
        };
        rest = &escape[bytes..];
    }
    None
}

/// The number in `\uXXXX`, if a text begins with it.
fn escape_code(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

const NUL: &str = "a text with a NUL in it";

fn without_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') { Err(NUL.to_owned()) } else { Ok(()) }
}

const NULL: &str = "null";
const BOOLEAN: &str = "boolean";
const NUMBER: &str = "number";
const TEXT: &str = "text";
const OBJECT: &str = "object";

/// What a JSON text is: its first character says it.
fn kind_of(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'n') => NULL,
        Some(b't' | b'f') => BOOLEAN,
        Some(b'"') => TEXT,
        Some(b'[') => "array",
        Some(b'{') => OBJECT,
        _ => NUMBER,
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
    fn an_integer_goes_into_a_float_as_that_number_or_not_at_all() {
        let price =
            |text: &str| Ok(all().cells(format!("{{\"price\":{text}}}").as_bytes())?.remove(3));
        for exact in ["0", "-0", "-9007199254740992", "9007199254740994", "100000000000000000000"] {
            assert_eq!(price(exact), Ok(Cell::Float(exact.parse().unwrap())), "{exact}");
        }
        assert_eq!(price("0.1"), Ok(Cell::Float(0.1)));
        assert_eq!(price("1e23"), Ok(Cell::Float(1e23)));
        for bent in ["9007199254740993", "-9007199254740993", "18446744073709551615"] {
            let told: String = price(bent).unwrap_err();
            assert!(told.contains(bent) && told.contains("it would become"), "{bent}: {told}");
        }
        let told: String = price("1e400").unwrap_err();
        assert!(told.contains("it would become inf"), "{told}");
    }

    #[test]
    fn json_is_kept_as_it_was_written() {
        for text in [
            "18446744073709551616",
            "0.12345678901234567890123456789",
            r#"{"b":1.10,"a":[1e400]}"#,
            r#""a backslash and u0000: \\u0000""#,
            r#""\ud83d\ude00 \\ud83d""#,
        ] {
            let cells = all().cells(format!("{{\"tags\":{text}}}").as_bytes()).unwrap();
            assert_eq!(cells[4], Cell::Json(text.to_owned()));
        }
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
            (r#"{"tags":{"\\\u0000":1}}"#, "tags: a text with a NUL"),
            (r#"{"tags":"\ud83d\u0041"}"#, "tags: a text with half a surrogate pair"),
            (r#"{"tags":"\ude00"}"#, "tags: a text with half a surrogate pair"),
            (r#"{"account":"\ud83d"}"#, "account: "),
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
        assert_eq!(text.cells(b"null"), Ok(vec![Cell::Null]));
        assert_eq!(text.cells(b"\"null\""), Ok(vec![Cell::Text("null".to_owned())]));
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
