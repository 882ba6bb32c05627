//! Codes: every value as an unsigned integer whose order is the order of the values.
//!
//! Text has no code of its own: its code is its place in the sorted set of the column's texts
//! (see `texts`).

use hotpair_core::services::dataset::{ColumnKind, Value};

const SIGN: u64 = 1 << 63;

pub(crate) fn of_integer(number: i64) -> u64 {
    number.cast_unsigned() ^ SIGN
}

pub(crate) fn of_date(days: i32) -> u32 {
    days.cast_unsigned() ^ (1 << 31)
}

/// Negative zero becomes zero, so that a key finds its row whichever of the two it was written as.
pub(crate) fn of_float(number: f64) -> u64 {
    let bits = if number == 0.0 { 0 } else { number.to_bits() };
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// The code of a value other than text and null, which have none.
pub(crate) fn of_value(value: &Value) -> Option<u64> {
    match value {
        Value::Null | Value::Text(_) => None,
        Value::Boolean(truth) => Some(u64::from(*truth)),
        Value::Integer(number) | Value::Timestamp(number) => Some(of_integer(*number)),
        Value::Float(number) => Some(of_float(*number)),
        Value::Date(days) => Some(u64::from(of_date(*days))),
    }
}

/// The value of a code of any kind but text; `None` for text.
pub(crate) fn value(kind: ColumnKind, code: u64) -> Option<Value> {
    match kind {
        ColumnKind::Text => None,
        ColumnKind::Boolean => Some(Value::Boolean(code != 0)),
        ColumnKind::Integer => Some(Value::Integer((code ^ SIGN).cast_signed())),
        ColumnKind::Timestamp => Some(Value::Timestamp((code ^ SIGN).cast_signed())),
        ColumnKind::Float => {
            let bits = if code & SIGN == 0 { !code } else { code ^ SIGN };
            Some(Value::Float(f64::from_bits(bits)))
        }
        ColumnKind::Date => {
            let code = u32::try_from(code).expect("a date's code has 32 bits");
            Some(Value::Date((code ^ (1 << 31)).cast_signed()))
        }
    }
}

/// Whether all codes of this kind fit in 32 bits.
pub(crate) fn is_narrow(kind: ColumnKind) -> bool {
    match kind {
        ColumnKind::Boolean | ColumnKind::Date | ColumnKind::Text => true,
        ColumnKind::Integer | ColumnKind::Float | ColumnKind::Timestamp => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_order_as_values_do_and_come_back() {
        let lists = [
            [i64::MIN, -5, 0, 7, i64::MAX].map(Value::Integer).to_vec(),
            [i64::MIN, -1, 1, i64::MAX].map(Value::Timestamp).to_vec(),
            [f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, 2.5, f64::INFINITY, f64::NAN]
                .map(Value::Float)
                .to_vec(),
            [i32::MIN, -1, 0, 19_000, i32::MAX].map(Value::Date).to_vec(),
            [false, true].map(Value::Boolean).to_vec(),
        ];
        for list in lists {
            let codes: Vec<u64> = list.iter().map(|value| of_value(value).unwrap()).collect();
            assert!(codes.is_sorted_by(|left, right| left < right), "{list:?}");
            for (original, code) in list.iter().zip(codes) {
                assert_eq!(value(original.kind().unwrap(), code).as_ref(), Some(original));
            }
        }
        assert_eq!(of_float(-0.0), of_float(0.0));
    }
}
