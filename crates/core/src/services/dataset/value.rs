//! Values of a dataset: their kinds, their order, their text, their digest.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The kind of every value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColumnKind {
    /// True or false.
    Boolean,
    /// A signed 64-bit integer.
    Integer,
    /// A 64-bit float.
    Float,
    /// UTF-8 text.
    Text,
    /// A day.
    Date,
    /// A moment in UTC, in microseconds.
    Timestamp,
}

impl ColumnKind {
    /// The kind's name as the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::Boolean => "boolean",
            ColumnKind::Integer => "integer",
            ColumnKind::Float => "float",
            ColumnKind::Text => "text",
            ColumnKind::Date => "date",
            ColumnKind::Timestamp => "timestamp",
        }
    }
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no column kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no column kind: boolean, integer, float, text, date or timestamp")]
pub struct UnknownColumnKind(pub String);

impl FromStr for ColumnKind {
    type Err = UnknownColumnKind;

    fn from_str(word: &str) -> Result<Self, UnknownColumnKind> {
        match word {
            "boolean" => Ok(ColumnKind::Boolean),
            "integer" => Ok(ColumnKind::Integer),
            "float" => Ok(ColumnKind::Float),
            "text" => Ok(ColumnKind::Text),
            "date" => Ok(ColumnKind::Date),
            "timestamp" => Ok(ColumnKind::Timestamp),
            other => Err(UnknownColumnKind(other.to_owned())),
        }
    }
}

/// A column: its name as in the source and the kind of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, unique within the dataset.
    pub name: String,
    /// The kind every value has, unless it is null.
    pub kind: ColumnKind,
}

/// One cell of a row.
///
/// Values are ordered as keys are: null first, then by kind, then by value; floats in IEEE 754
/// total order, text by its bytes.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A float.
    Float(f64),
    /// Text.
    Text(String),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
}

/// The values of a row, in column order.
pub type Row = Vec<Value>;

impl Value {
    /// The kind of this value; null has none.
    pub fn kind(&self) -> Option<ColumnKind> {
        match self {
            Value::Null => None,
            Value::Boolean(_) => Some(ColumnKind::Boolean),
            Value::Integer(_) => Some(ColumnKind::Integer),
            Value::Float(_) => Some(ColumnKind::Float),
            Value::Text(_) => Some(ColumnKind::Text),
            Value::Date(_) => Some(ColumnKind::Date),
            Value::Timestamp(_) => Some(ColumnKind::Timestamp),
        }
    }

    /// Reads a value of `kind` from text as [`Display`](fmt::Display) writes it.
    ///
    /// Dates are `1990-01-02`; timestamps `1990-01-02T03:04:05`, with up to six decimals and a `Z`
    /// if one likes. Nothing where the text is no such value.
    pub fn parse(kind: ColumnKind, text: &str) -> Option<Value> {
        match kind {
            ColumnKind::Boolean => text.parse().ok().map(Value::Boolean),
            ColumnKind::Integer => text.parse().ok().map(Value::Integer),
            ColumnKind::Float => text.parse().ok().map(Value::Float),
            ColumnKind::Text => Some(Value::Text(text.to_owned())),
            ColumnKind::Date => days_from_text(text).map(Value::Date),
            ColumnKind::Timestamp => microseconds_from_text(text).map(Value::Timestamp),
        }
    }

    /// A 64-bit digest, the same on every machine and in every version that shares a pair.
    pub fn digest(&self) -> u64 {
        let (tag, bits) = match self {
            Value::Null => (0, 0),
            Value::Boolean(truth) => (1, u64::from(*truth)),
            Value::Integer(number) => (2, number.cast_unsigned()),
            Value::Float(number) => (3, number.to_bits()),
            Value::Text(text) => (4, text_digest(text)),
            Value::Date(days) => (5, i64::from(*days).cast_unsigned()),
            Value::Timestamp(microseconds) => (6, microseconds.cast_unsigned()),
        };
        mix(bits ^ mix(tag))
    }

    fn kind_place(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Boolean(_) => 1,
            Value::Integer(_) => 2,
            Value::Float(_) => 3,
            Value::Text(_) => 4,
            Value::Date(_) => 5,
            Value::Timestamp(_) => 6,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Boolean(left), Value::Boolean(right)) => left.cmp(right),
            (Value::Integer(left), Value::Integer(right))
            | (Value::Timestamp(left), Value::Timestamp(right)) => left.cmp(right),
            (Value::Float(left), Value::Float(right)) => left.total_cmp(right),
            (Value::Text(left), Value::Text(right)) => left.cmp(right),
            (Value::Date(left), Value::Date(right)) => left.cmp(right),
            (left, right) => left.kind_place().cmp(&right.kind_place()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Boolean(truth) => truth.fmt(f),
            Value::Integer(number) => number.fmt(f),
            Value::Float(number) => number.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::Date(days) => write_day(f, i64::from(*days)),
            Value::Timestamp(microseconds) => {
                write_day(f, microseconds.div_euclid(DAY_MICROSECONDS))?;
                let within = microseconds.rem_euclid(DAY_MICROSECONDS);
                let (seconds, fraction) = (within / 1_000_000, within % 1_000_000);
                let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                write!(f, "T{hour:02}:{minute:02}:{second:02}")?;
                if fraction != 0 {
                    write!(f, ".{fraction:06}")?;
                }
                f.write_str("Z")
            }
        }
    }
}

/// The digest of a row from the digests of its values, in column order.
pub fn row_digest(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(ROW_DIGEST_SEED, |digest, value| mix(digest ^ value))
}

fn text_digest(text: &str) -> u64 {
    let mut words = text.as_bytes().chunks_exact(8);
    let mut digest = mix(text.len() as u64);
    for word in &mut words {
        let word: [u8; 8] = word.try_into().expect("chunks of eight are eight bytes long");
        digest = mix(digest ^ u64::from_le_bytes(word));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(digest ^ u64::from_le_bytes(last))
}

/// Spreads a change of any bit over all bits, and loses none: two odd multiplications, three folds.
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Days from 1970-01-01 to the first of a year of the proleptic Gregorian calendar.
fn days_to_year(year: i64) -> i64 {
    let before = year - 1;
    let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    before * 365 + leap_days - DAYS_TO_1970
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_lengths(year: i64) -> [i64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

fn write_day(f: &mut fmt::Formatter<'_>, days: i64) -> fmt::Result {
    // A year is never longer than 366 days nor shorter than 365 on average over four centuries, so
    // this guess is at most one year off.
    let mut year = 1970 + (days * 400).div_euclid(146_097);
    while days_to_year(year) > days {
        year -= 1;
    }
    while days_to_year(year + 1) <= days {
        year += 1;
    }
    let mut day = days - days_to_year(year);
    let mut month = 1;
    for length in month_lengths(year) {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    write!(f, "{year:04}-{month:02}-{:02}", day + 1)
}

fn days_from_text(text: &str) -> Option<i32> {
    let mut parts = text.splitn(3, '-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2)?;
    let day = digits(parts.next()?, 2)?;
    let months = month_lengths(year);
    let month_place = usize::try_from(month).ok()?.checked_sub(1)?;
    if day < 1 || day > *months.get(month_place)? {
        return None;
    }
    let days = days_to_year(year) + months[..month_place].iter().sum::<i64>() + day - 1;
    i32::try_from(days).ok()
}

fn microseconds_from_text(text: &str) -> Option<i64> {
    let (day, time) = text.split_once(['T', ' '])?;
    let time = time.strip_suffix('Z').unwrap_or(time);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.splitn(3, ':');
    let hour = digits(parts.next()?, 2)?;
    let minute = digits(parts.next()?, 2)?;
    let second = digits(parts.next()?, 2)?;
    if hour > 23 || minute > 59 || second > 59 || fraction.is_empty() || fraction.len() > 6 {
        return None;
    }
    let scale = 10_i64.pow(6 - u32::try_from(fraction.len()).ok()?);
    let fraction = digits(fraction, fraction.len())? * scale;
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(i64::from(days_from_text(day)?) * DAY_MICROSECONDS + seconds * 1_000_000 + fraction)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    if text.len() != length || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

const DAY_MICROSECONDS: i64 = 86_400_000_000;
const DAYS_TO_1970: i64 = 719_162;
const ROW_DIGEST_SEED: u64 = 0x686f_7470_6169_7221;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_timestamps_are_written_and_read_alike() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (7_306, "1990-01-02"),
            (11_016, "2000-02-29"),
            (19_354, "2022-12-28"),
            (-719_162, "0001-01-01"),
        ] {
            assert_eq!(Value::Date(days).to_string(), text);
            assert_eq!(Value::parse(ColumnKind::Date, text), Some(Value::Date(days)));
        }
        for days in (-200_000..200_000).step_by(37) {
            let text = Value::Date(days).to_string();
            assert_eq!(Value::parse(ColumnKind::Date, &text), Some(Value::Date(days)), "{text}");
        }
        for (microseconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_500_000, "1970-01-01T00:00:01.500000Z"),
        ] {
            let value = Value::Timestamp(microseconds);
            assert_eq!(value.to_string(), text);
            assert_eq!(Value::parse(ColumnKind::Timestamp, text), Some(value));
        }
        for wrong in ["1990-13-01", "1990-02-29", "1990-1-2", "199O-01-02", "", "1990-01-02x"] {
            assert_eq!(Value::parse(ColumnKind::Date, wrong), None, "{wrong}");
        }
        for wrong in ["1990-01-02", "1990-01-02T24:00:00", "1990-01-02T00:00:00.", "T"] {
            assert_eq!(Value::parse(ColumnKind::Timestamp, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn values_are_ordered_as_keys_are() {
        let ordered = [
            Value::Null,
            Value::Boolean(false),
            Value::Boolean(true),
            Value::Integer(i64::MIN),
            Value::Integer(-1),
            Value::Integer(7),
            Value::Float(-1.5),
            Value::Float(0.0),
            Value::Float(f64::INFINITY),
            Value::Text(String::new()),
            Value::Text("a".to_owned()),
            Value::Text("ab".to_owned()),
            Value::Date(-3),
            Value::Date(3),
            Value::Timestamp(0),
        ];
        assert!(ordered.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn equal_digests_mean_equal_values() {
        let values = [
            Value::Null,
            Value::Boolean(false),
            Value::Integer(0),
            Value::Integer(1),
            Value::Float(0.0),
            Value::Text(String::new()),
            Value::Text("\0".to_owned()),
            Value::Text("12345678".to_owned()),
            Value::Text("12345678\0".to_owned()),
            Value::Date(0),
            Value::Timestamp(0),
        ];
        let digests: std::collections::BTreeSet<u64> = values.iter().map(Value::digest).collect();
        assert_eq!(digests.len(), values.len());
        assert_ne!(row_digest([1, 2]), row_digest([2, 1]));
    }
}
