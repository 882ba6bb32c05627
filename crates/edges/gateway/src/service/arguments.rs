//! Arguments of functions: JSON text, read into what each function takes.

use std::borrow::Cow;

use serde::Deserialize;

use super::failure::{Failure, shown};

/// Reads the arguments of a function that takes an object.
pub(super) fn read<'a, T: Deserialize<'a>>(arguments: &'a str) -> Result<T, Failure> {
    object(arguments.as_bytes(), "arguments")
}

/// Reads an object. serde would read a list as an object's fields in order.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, Failure> {
    if json.trim_ascii_start().first() == Some(&b'[') {
        return Err(Failure::Malformed(format!("{what}: expected an object, got a list")));
    }
    serde_json::from_slice(json)
        .map_err(|error| Failure::Malformed(format!("{what}: {}", shown(&error.to_string()))))
}

/// A row's place.
#[derive(Debug, Deserialize)]
pub(super) struct Keyed<'a> {
    #[serde(borrow)]
    pub(super) table: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
}

/// What 1902 `sleep` takes.
#[derive(Debug, Deserialize)]
pub(super) struct Sleep {
    pub(super) ms: u64,
}
