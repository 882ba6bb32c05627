//! Guesses the kinds of a CSV file's columns from its first rows, with arrow's own value parsers.
//!
//! A guess that is too narrow makes broken rows, one that is too wide makes text of numbers, so:
//! a number written with leading zeros is a code and makes the column text; and a value in a
//! hundred that fits nothing is taken for a broken row rather than for the column's nature, except
//! in key columns, where codes are at home. What is guessed wrong can be written down in `columns`.

use arrow_array::types::{Date32Type, Float64Type, TimestampMicrosecondType};
use arrow_cast::parse::Parser;
use hotpair_core::services::dataset::ColumnKind;

/// What the values of one column seem to be.
#[derive(Debug, Default, Clone)]
pub(crate) struct Guess {
    booleans: u64,
    integers: u64,
    floats: u64,
    dates: u64,
    timestamps: u64,
    codes: u64,
    texts: u64,
}

impl Guess {
    /// Takes in a value that is not empty.
    pub(crate) fn see(&mut self, text: &str) {
        let count = if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            &mut self.booleans
        } else if let Ok(number) = text.parse::<i64>() {
            let plain = number.to_string().len() == text.trim_start_matches('+').len();
            if plain { &mut self.integers } else { &mut self.codes }
        } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // Too many digits for an integer: as a float it would lose some.
            &mut self.codes
        } else if Float64Type::parse(text).is_some() {
            &mut self.floats
        } else if text.len() == DATE_LENGTH && Date32Type::parse(text).is_some() {
            &mut self.dates
        } else if text.len() > DATE_LENGTH && TimestampMicrosecondType::parse(text).is_some() {
            &mut self.timestamps
        } else {
            &mut self.texts
        };
        *count += 1;
    }

    pub(crate) fn kind(&self, is_key: bool) -> ColumnKind {
        let numbers = self.integers + self.floats;
        let times = self.dates + self.timestamps;
        let all = self.booleans + numbers + times + self.codes + self.texts;
        let tolerated = if is_key { 0 } else { all / VALUES_PER_BROKEN_ONE };
        let fits = |count: u64| count > 0 && all - count <= tolerated;
        if self.codes > 0 {
            ColumnKind::Text
        } else if fits(self.booleans) {
            ColumnKind::Boolean
        } else if fits(numbers) && self.floats > 0 {
            ColumnKind::Float
        } else if fits(numbers) {
            ColumnKind::Integer
        } else if fits(times) && self.timestamps > 0 {
            ColumnKind::Timestamp
        } else if fits(times) {
            ColumnKind::Date
        } else {
            ColumnKind::Text
        }
    }
}

/// The length of `1990-01-02`.
const DATE_LENGTH: usize = 10;
/// One value that fits nothing is taken for broken only among this many.
const VALUES_PER_BROKEN_ONE: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(texts: &[&str]) -> ColumnKind {
        let mut guess = Guess::default();
        texts.iter().for_each(|text| guess.see(text));
        guess.kind(false)
    }

    #[test]
    fn kinds_are_guessed_from_values() {
        for (texts, expected) in [
            (&["1", "-2", "+3"][..], ColumnKind::Integer),
            (&["1", "2.5"], ColumnKind::Float),
            (&["1e3", "NaN"], ColumnKind::Float),
            (&["true", "False"], ColumnKind::Boolean),
            (&["1990-01-02"], ColumnKind::Date),
            (&["1990-01-02", "1990-01-02T03:04:05"], ColumnKind::Timestamp),
            (&["1990-01-02 03:04:05.123456Z"], ColumnKind::Timestamp),
            (&["0012", "13"], ColumnKind::Text),
            (&["12345678901234567890"], ColumnKind::Text),
            (&["1", "x"], ColumnKind::Text),
            (&["true", "1"], ColumnKind::Text),
            (&[], ColumnKind::Text),
        ] {
            assert_eq!(kind(texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn one_odd_value_in_a_hundred_is_broken_unless_it_is_a_key() {
        let mut guess = Guess::default();
        (0..99).for_each(|number: i32| guess.see(&number.to_string()));
        guess.see("abc");
        assert_eq!(guess.kind(false), ColumnKind::Integer);
        assert_eq!(guess.kind(true), ColumnKind::Text);
        guess.see("def");
        assert_eq!(guess.kind(false), ColumnKind::Text);
    }
}
