//! What a feed says of one row, and what that means for the row.
//!
//! An update names its row by the key's columns and says of some other columns what they are now. Its
//! version is compared with the version of the row as it is known: a smaller or equal one changes nothing,
//! so that updates may come twice, late, or again after a load that has them already.

use super::value::{Column, ColumnKind, Value};

/// The column that holds a row's version, where a dataset has it.
const VERSION: &str = "version";

/// A value as a feed writes it, before it is known what its column holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// Text; dates and timestamps too.
    Text(String),
}

/// What a feed says of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Larger with each update of the row.
    pub version: u64,
    /// The row is gone.
    pub deleted: bool,
    /// Columns and what they are now. Those that are not named keep what they have.
    pub fields: Vec<(String, Given)>,
}

/// Why an update cannot be meant for this dataset. It changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A column that the dataset has not.
    #[error("there is no column `{0}`")]
    UnknownColumn(String),
    /// A value of another kind than its column's.
    #[error("column `{column}` is {expected}, {got} was given")]
    WrongKind {
        /// The column.
        column: String,
        /// Its kind.
        expected: ColumnKind,
        /// What was given.
        got: &'static str,
    },
    /// Nobody knows which of the two is meant.
    #[error("column `{0}` is given twice")]
    Twice(String),
    /// Without it nobody knows which row is meant.
    #[error("key column `{0}` is missing or null")]
    NoKey(String),
}

/// An update as its dataset understands it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The row's key.
    pub key: Vec<Value>,
    /// The update's version.
    pub version: u64,
    /// What becomes of the row: gone, or columns by their place and what they are now.
    pub cells: Option<Vec<(usize, Value)>>,
}

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The row is new.
    Inserted,
    /// The row is another than it was.
    Changed,
    /// The row is gone, or was not there.
    Deleted,
    /// The row was as new before.
    Older,
}

/// Reads an update with a dataset's columns. `key` are the places of the key's columns.
pub fn prepare(
    columns: &[Column],
    key: &[usize],
    update: &Update,
) -> Result<Prepared, UpdateError> {
    let mut cells = Vec::with_capacity(update.fields.len());
    for (name, given) in &update.fields {
        let place = columns.iter().position(|column| column.name == *name);
        let place = place.ok_or_else(|| UpdateError::UnknownColumn(name.clone()))?;
        let value = given.as_kind(columns[place].kind).ok_or_else(|| UpdateError::WrongKind {
            column: name.clone(),
            expected: columns[place].kind,
            got: given.name(),
        })?;
        if cells.iter().any(|(of, _)| *of == place) {
            return Err(UpdateError::Twice(name.clone()));
        }
        cells.push((place, value));
    }
    let own_version = columns
        .iter()
        .position(|column| column.name == VERSION && column.kind == ColumnKind::Integer);
    if let Some(place) = own_version {
        cells.push((place, Value::Integer(i64::try_from(update.version).unwrap_or(i64::MAX))));
    }
    let key = key.iter().map(|place| {
        let found = cells.iter().find(|(of, value)| of == place && *value != Value::Null);
        let value = found.map(|(_, value)| value.clone());
        value.ok_or_else(|| UpdateError::NoKey(columns[*place].name.clone()))
    });
    let key = key.collect::<Result<Vec<Value>, UpdateError>>()?;
    let cells = (!update.deleted).then_some(cells);
    Ok(Prepared { key, version: update.version, cells })
}

/// The version that a loaded row has, where its dataset says so.
pub fn version_of(columns: &[Column], row: &[Value]) -> Option<u64> {
    let place = columns
        .iter()
        .position(|column| column.name == VERSION && column.kind == ColumnKind::Integer)?;
    match row.get(place)? {
        Value::Integer(version) => u64::try_from(*version).ok(),
        Value::Null
        | Value::Boolean(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_)
        | Value::Timestamp(_) => None,
    }
}

impl Update {
    /// Whether every dataset takes both or neither: they do the same with the same columns, and give
    /// values that fit the same kinds.
    pub fn fits_like(&self, other: &Update) -> bool {
        let alike = |(ours, theirs): (&(String, Given), &(String, Given))| {
            ours.0 == theirs.0 && ours.1.fits_like(&theirs.1)
        };
        self.deleted == other.deleted
            && self.fields.len() == other.fields.len()
            && self.fields.iter().zip(&other.fields).all(alike)
    }
}

impl Given {
    fn fits_like(&self, other: &Given) -> bool {
        match (self, other) {
            (Given::Text(ours), Given::Text(theirs)) => {
                let fits = |text: &str, kind| Value::parse(kind, text).is_some();
                let alike = |kind| fits(ours, kind) == fits(theirs, kind);
                ours == theirs || (alike(ColumnKind::Date) && alike(ColumnKind::Timestamp))
            }
            (ours, theirs) => std::mem::discriminant(ours) == std::mem::discriminant(theirs),
        }
    }

    fn as_kind(&self, kind: ColumnKind) -> Option<Value> {
        match (kind, self) {
            (_, Given::Null) => Some(Value::Null),
            (ColumnKind::Boolean, Given::Boolean(truth)) => Some(Value::Boolean(*truth)),
            (ColumnKind::Integer, Given::Integer(number)) => Some(Value::Integer(*number)),
            (ColumnKind::Float, Given::Integer(number)) => Some(Value::Float(*number as f64)),
            (ColumnKind::Float, Given::Float(number)) => Some(Value::Float(*number)),
            (ColumnKind::Text, Given::Text(text)) => Some(Value::Text(text.clone())),
            (ColumnKind::Date | ColumnKind::Timestamp, Given::Text(text)) => {
                Value::parse(kind, text)
            }
            (
                ColumnKind::Boolean
                | ColumnKind::Integer
                | ColumnKind::Float
                | ColumnKind::Text
                | ColumnKind::Date
                | ColumnKind::Timestamp,
                Given::Boolean(_) | Given::Integer(_) | Given::Float(_) | Given::Text(_),
            ) => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Given::Null => "null",
            Given::Boolean(_) => "true or false",
            Given::Integer(_) => "a whole number",
            Given::Float(_) => "a number",
            Given::Text(_) => "text",
        }
    }
}

/// Versions that were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// The last one before.
    pub after: u64,
    /// The first one that came.
    pub to: u64,
}

/// Finds out whether a publisher counts its updates one by one, and if so, when some are missing.
///
/// Many publishers number all they send; others number each row's updates. Nothing in a row says which,
/// so it is learned: whoever counted up by exactly one for 64 updates counts all of them. Begun
/// anew with each connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Contiguity {
    last: Option<u64>,
    run: u32,
}

impl Contiguity {
    /// The next update has this version; what is missing before it, if that is known.
    pub fn note(&mut self, version: u64) -> Option<Jump> {
        let after = self.last.replace(version)?;
        if version == after.wrapping_add(1) {
            self.run = self.run.saturating_add(1);
            return None;
        }
        let counts = self.run >= RUN_MIN;
        if counts && version > after {
            return Some(Jump { after, to: version });
        }
        // The same again, or back: no counter of everything does that.
        self.run = 0;
        None
    }
}

/// Updates in a row, each one version above the one before, that make a counter of everything.
const RUN_MIN: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        [
            ("account", ColumnKind::Text),
            ("day", ColumnKind::Date),
            ("price", ColumnKind::Float),
            ("amount", ColumnKind::Integer),
        ]
        .map(|(name, kind)| Column { name: name.to_owned(), kind })
        .to_vec()
    }

    fn update(fields: &[(&str, Given)]) -> Update {
        let fields = fields.iter().map(|(name, given)| ((*name).to_owned(), given.clone()));
        Update { version: 7, deleted: false, fields: fields.collect() }
    }

    fn text(text: &str) -> Given {
        Given::Text(text.to_owned())
    }

    #[test]
    fn an_update_is_read_by_the_kinds_of_its_columns() {
        let key = [("account", text("A")), ("day", text("1990-01-02"))];
        let whole = [key.as_slice(), &[("price", Given::Integer(3)), ("amount", Given::Null)]];
        let prepared = prepare(&columns(), &[0, 1], &update(&whole.concat())).unwrap();
        assert_eq!(prepared.key, [Value::Text("A".to_owned()), Value::Date(7_306)]);
        let cells = prepared.cells.unwrap();
        assert!(cells.contains(&(2, Value::Float(3.0))) && cells.contains(&(3, Value::Null)));
        let gone = Update { deleted: true, ..update(&key) };
        assert_eq!(prepare(&columns(), &[0, 1], &gone).unwrap().cells, None);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_column() {
        let key = [("account", text("A")), ("day", text("1990-01-02"))];
        let with = |more: (&str, Given)| {
            prepare(&columns(), &[0, 1], &update(&[key.as_slice(), &[more]].concat()))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(with(("colour", text("red"))), "there is no column `colour`");
        assert_eq!(
            with(("amount", Given::Float(1.5))),
            "column `amount` is integer, a number was given"
        );
        assert_eq!(with(("price", text("3"))), "column `price` is float, text was given");
        let twice = [key.as_slice(), &[("price", Given::Null), ("price", Given::Null)]].concat();
        let twice = prepare(&columns(), &[0, 1], &update(&twice)).unwrap_err().to_string();
        assert_eq!(twice, "column `price` is given twice");
        let half = prepare(&columns(), &[0, 1], &update(&key[..1])).unwrap_err().to_string();
        assert_eq!(half, "key column `day` is missing or null");
    }

    #[test]
    fn updates_fit_alike_where_every_dataset_takes_both_or_neither() {
        let givens = [
            Given::Null,
            Given::Boolean(true),
            Given::Boolean(false),
            Given::Integer(1),
            Given::Integer(-1),
            Given::Float(0.5),
            text("x"),
            text("1"),
            text("1990-01-02"),
            text("1991-02-03"),
            text("1991-02-30"),
            text("1990-01-02T03:04:05Z"),
            text("1990-01-02 03:04:05"),
        ];
        let kinds = [
            ColumnKind::Boolean,
            ColumnKind::Integer,
            ColumnKind::Float,
            ColumnKind::Text,
            ColumnKind::Date,
            ColumnKind::Timestamp,
        ];
        let fits = |given: &Given, kind| given.as_kind(kind).is_some();
        for ours in &givens {
            for theirs in &givens {
                let (one, other) =
                    (update(&[("c", ours.clone())]), update(&[("c", theirs.clone())]));
                if one.fits_like(&other) {
                    assert!(kinds.iter().all(|kind| fits(ours, *kind) == fits(theirs, *kind)));
                }
            }
        }
        let one = update(&[("c", text("1990-01-02"))]);
        assert!(one.fits_like(&update(&[("c", text("1991-02-03"))])));
        assert!(!one.fits_like(&update(&[("c", text("1991-02-30"))])));
        assert!(!one.fits_like(&update(&[("d", text("1990-01-02"))])));
        assert!(!one.fits_like(&Update { deleted: true, ..one.clone() }));
    }

    #[test]
    fn a_column_named_version_is_the_rows_version() {
        let mut columns = columns();
        columns.push(Column { name: VERSION.to_owned(), kind: ColumnKind::Integer });
        let key = [("account", text("A")), ("day", text("1990-01-02"))];
        let prepared = prepare(&columns, &[0, 1], &update(&key)).unwrap();
        assert!(prepared.cells.unwrap().contains(&(4, Value::Integer(7))));
        let row = [Value::Null, Value::Null, Value::Null, Value::Null, Value::Integer(6)];
        assert_eq!(version_of(&columns, &row), Some(6));
        assert_eq!(version_of(&columns[..4], &row), None);
    }

    #[test]
    fn a_jump_is_seen_where_everything_is_counted_and_only_there() {
        let mut all = Contiguity::default();
        for version in 1..=100 {
            assert_eq!(all.note(version), None);
        }
        assert_eq!(all.note(104), Some(Jump { after: 100, to: 104 }));
        assert_eq!(all.note(105), None);
        assert_eq!(all.note(107), Some(Jump { after: 105, to: 107 }));
        // Each row has a count of its own: no gap means anything.
        let mut rows = Contiguity::default();
        for round in 1..=100 {
            for row in 0..3 {
                assert_eq!(rows.note(round + row * 10), None);
            }
        }
    }
}
