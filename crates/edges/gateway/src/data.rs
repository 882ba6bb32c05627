//! What an answer carries: JSON as text, made once and passed on as it is.
//!
//! Values of tables are JSON that a client sent: they are kept and given back as text, without ever
//! becoming a tree here. So numbers keep their digits and objects their order, and a put costs one
//! copy of its value.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hotpair_core::tables::change::{OperationResult, Reply};
use hotpair_http::Bytes;
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// JSON text. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Data(Bytes);

impl Data {
    /// Text that is JSON already.
    pub(crate) fn text(text: String) -> Self {
        Self(text.into())
    }

    pub(crate) fn of(json: &Json) -> Self {
        Self::text(json.to_string())
    }

    pub(crate) fn empty() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    /// What was replied, now or before.
    pub(crate) fn of_reply(reply: &Reply) -> Self {
        match reply {
            Reply::Fixed(bytes) => Self(Bytes::copy_from_slice(bytes)),
            Reply::Results(results) => match results.as_slice() {
                [one] => Self::text(of_result(*one)),
                several => {
                    let all: Vec<String> = several.iter().copied().map(of_result).collect();
                    Self::text(format!("{{\"results\":[{}]}}", all.join(",")))
                }
            },
        }
    }

    /// It as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The envelope of a request that was done, around this.
    pub(crate) fn envelope(&self, epoch: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.0.len());
        bytes.extend_from_slice(b"{\"error_no\":0,\"error_info\":\"\",\"epoch\":");
        bytes.extend_from_slice(epoch.to_string().as_bytes());
        bytes.extend_from_slice(b",\"data\":");
        bytes.extend_from_slice(&self.0);
        bytes.push(b'}');
        bytes
    }
}

fn of_result(result: OperationResult) -> String {
    match result {
        OperationResult::Put { version } | OperationResult::Deleted { version } => {
            format!("{{\"version\":{version}}}")
        }
        OperationResult::Compared { done, version } => {
            format!("{{\"done\":{done},\"version\":{version}}}")
        }
        OperationResult::Added { value } => format!("{{\"value\":{value}}}"),
    }
}

/// Bytes of a table as JSON: themselves if they are that, else in base64.
pub(crate) fn value_to_json(bytes: &[u8]) -> Cow<'_, str> {
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(json) => Cow::Borrowed(json.get()),
        Err(_) => Cow::Owned(in_base64(bytes)),
    }
}

/// A key as JSON: text if it is that, else in base64.
pub(crate) fn key_to_json(bytes: &[u8], into: &mut String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            into.push_str(&serde_json::to_string(text).expect("a text is JSON"));
        }
        Err(_) => into.push_str(&in_base64(bytes)),
    }
}

fn in_base64(bytes: &[u8]) -> String {
    format!("{{\"base64\":\"{}\"}}", STANDARD.encode(bytes))
}

/// The bytes of what [`key_to_json`] writes for keys that are no text.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// A row as a list of rows has it.
pub(crate) fn row_to_json(key: &[u8], value: &[u8], version: u64, into: &mut String) {
    into.push_str("{\"key\":");
    key_to_json(key, into);
    into.push_str(",\"value\":");
    into.push_str(&value_to_json(value));
    write!(into, ",\"version\":{version}}}").expect("a String takes all");
}

/// JSON text without the space between its parts. The text is known to be JSON; it may be nested
/// deeper than readers of other makes bear, and is refused then.
pub(crate) fn compact(json: &str) -> Result<Cow<'_, [u8]>, TooDeep> {
    let (mut depth, mut in_text, mut spaces) = (0_usize, false, false);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_text = !in_text,
            b'\\' if in_text => {
                bytes.next();
            }
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(TooDeep);
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            b' ' | b'\n' | b'\r' | b'\t' if !in_text => spaces = true,
            _ => {}
        }
    }
    Ok(if spaces { Cow::Owned(without_spaces(json)) } else { Cow::Borrowed(json.as_bytes()) })
}

fn without_spaces(json: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(json.len());
    let mut in_text = false;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        if !in_text && matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            continue;
        }
        kept.push(byte);
        if byte == b'"' {
            in_text = !in_text;
        } else if byte == b'\\' && in_text {
            kept.extend(bytes.next());
        }
    }
    kept
}

/// JSON in JSON in JSON …
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSON nested deeper than {DEPTH_MAX} levels")]
pub(crate) struct TooDeep;

/// What serde_json reads by default.
const DEPTH_MAX: usize = 126;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_loses_its_spaces_and_nothing_else() {
        let cases = [
            (r#"{"a":[1,2.50,"x y"]}"#, r#"{"a":[1,2.50,"x y"]}"#),
            ("{ \"a\" : [ 1 ,\n\t2.50, \"x y\" ]\r\n}", r#"{"a":[1,2.50,"x y"]}"#),
            (r#" "a \" b \\" "#, r#""a \" b \\""#),
            (r#"{"a\\": "b \\ c", "d" :1e400}"#, r#"{"a\\":"b \\ c","d":1e400}"#),
            (" 12345678901234567890123 ", "12345678901234567890123"),
        ];
        for (sent, kept) in cases {
            assert_eq!(compact(sent).unwrap(), kept.as_bytes(), "{sent}");
        }
        assert!(matches!(compact("[1,2]"), Ok(Cow::Borrowed(_))));
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(compact(&nested(DEPTH_MAX)).is_ok());
        assert!(serde_json::from_str::<Json>(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(compact(&nested(DEPTH_MAX + 1)), Err(TooDeep));
        assert!(compact(&format!("\"{}\"", "[".repeat(1_000))).is_ok());
    }

    #[test]
    fn bytes_that_are_no_json_are_given_in_base64() {
        assert_eq!(value_to_json(b"{\"a\":1}"), "{\"a\":1}");
        assert_eq!(value_to_json(b"hello"), "{\"base64\":\"aGVsbG8=\"}");
        assert_eq!(value_to_json(b"\xff"), "{\"base64\":\"/w==\"}");
        assert_eq!(from_base64("/w==").unwrap(), b"\xff");
        let mut row = String::new();
        row_to_json("ä\"".as_bytes(), b"5", 7, &mut row);
        assert_eq!(row, r#"{"key":"ä\"","value":5,"version":7}"#);
    }

    #[test]
    fn an_envelope_written_by_hand_is_the_one_of_the_protocol() {
        let json = serde_json::json!({"a": [1, "x"]});
        let wanted =
            serde_json::to_vec(&hotpair_protocol::Envelope::done(7, json.clone())).unwrap();
        assert_eq!(Data::of(&json).envelope(7), wanted);
    }
}
