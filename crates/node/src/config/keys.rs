//! The keys that a file may have. What a later version will build is refused by name, so that
//! nobody believes in a setting that does nothing.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// What may stand at a place of the file.
pub(super) enum Key {
    /// Any value; its type is checked when it is read.
    Value,
    /// A table with these keys.
    Table(&'static [(&'static str, Key)]),
    /// An array of tables with these keys.
    Tables(&'static [(&'static str, Key)]),
    /// A table with names of the operator's choice as keys.
    Names,
    /// Known, and not built in this version.
    Later,
}

/// The keys of a table, or of a file.
pub(super) type Known = &'static [(&'static str, Key)];

use Key::{Later, Names, Table, Tables, Value};

const LISTEN: Key = Table(&[("client", Value), ("admin", Value), ("peer", Value)]);

const TLS: Key =
    Table(&[("insecure", Value), ("certificate", Value), ("key", Value), ("authority", Value)]);

pub(super) const NODE: &[(&str, Key)] = &[
    ("pair", Value),
    ("node", Value),
    ("listen", LISTEN),
    ("advertise", LISTEN),
    (
        "peer",
        Table(&[
            ("address", Value),
            ("admin", Value),
            ("ping_interval", Value),
            ("ping_timeout", Value),
            ("ping_count", Value),
        ]),
    ),
    (
        "coordinator",
        Table(&[
            ("kind", Value),
            (
                "zookeeper",
                Table(&[
                    ("servers", Value),
                    ("session_timeout", Value),
                    ("root", Value),
                    ("fast_takeover", Value),
                    ("auth", Value),
                    ("tls", Value),
                ]),
            ),
            ("binary_star", Later),
            ("keepalived", Later),
        ]),
    ),
    (
        "tables",
        Table(&[
            ("directory", Value),
            ("replication", Value),
            ("peer_directory", Value),
            ("ack", Value),
            ("durability", Value),
        ]),
    ),
    (
        "store",
        Table(&[
            ("url", Value),
            (
                "tables",
                Tables(&[
                    ("table", Value),
                    ("sql", Value),
                    ("key", Value),
                    ("value", Value),
                    ("columns", Names),
                ]),
            ),
        ]),
    ),
    (
        "sessions",
        Table(&[
            ("idle_timeout", Value),
            ("sweep_interval", Value),
            ("users_file", Value),
            ("publishers", Value),
        ]),
    ),
    ("upstream", Table(&[("login", Value), ("heartbeat", Value), ("interval", Value)])),
    (
        "functions",
        Tables(&[
            ("number", Value),
            ("group", Value),
            ("service", Value),
            ("version", Value),
            ("name", Value),
            ("upstream", Value),
            ("needs", Value),
            ("timeout", Value),
            ("idempotent", Value),
            ("concurrency", Value),
        ]),
    ),
    (
        "datasets",
        Tables(&[
            ("name", Value),
            ("source", Value),
            ("key", Value),
            ("load", Value),
            ("feed", Value),
            ("columns", Names),
            ("broken_rows_max", Value),
            ("unpivot", Table(&[("keep", Value), ("name", Value), ("value", Value)])),
        ]),
    ),
    ("vsoa", Later),
    (
        "services",
        Tables(&[
            ("name", Value),
            ("policy", Value),
            ("primary", Value),
            ("standby", Value),
            ("check", Value),
            ("interval", Value),
            ("proxy", Value),
        ]),
    ),
    ("hooks", Later),
    ("alerts", Table(&[("webhook", Value)])),
    ("control", Table(&[("act", Value), ("switches_per_hour", Value)])),
    ("admin", Table(&[("token_file", Value), ("read_token_file", Value), ("hosts", Value)])),
    ("tls", TLS),
];

/// The keys of a router's file.
pub(super) const ROUTER: &[(&str, Key)] = &[
    ("pair", Value),
    ("listen", Table(&[("client", Value), ("admin", Value)])),
    ("nodes", Tables(&[("name", Value), ("client", Value), ("admin", Value)])),
    ("admin", Table(&[("read_token_file", Value), ("hosts", Value)])),
    ("tls", TLS),
    ("vsoa", Later),
    ("services", Later),
    ("hold", Table(&[("planned", Value), ("crash", Value), ("bytes", Value), ("bound", Value)])),
    (
        "limits",
        Table(&[
            ("requests", Value),
            ("held", Value),
            ("connections", Value),
            ("node_connections", Value),
            ("streams", Value),
            ("threads", Value),
        ]),
    ),
];

/// A key that does not belong, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misplaced {
    line: usize,
    key: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Unknown { near: Option<&'static str> },
    Later,
    NotATable,
    NotTables,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, key, what } = self;
        match what {
            What::Unknown { near: Some(near) } => {
                write!(f, "line {line}: unknown key {key}; did you mean {near}?")
            }
            What::Unknown { near: None } => write!(f, "line {line}: unknown key {key}"),
            What::Later => {
                write!(f, "line {line}: {key} is not built in this version; take it out")
            }
            What::NotATable => write!(f, "line {line}: {key} must be a table, [{key}]"),
            What::NotTables => {
                write!(f, "line {line}: {key} must be an array of tables, [[{key}]]")
            }
        }
    }
}

/// Every key of the document that does not belong where these are known.
pub(super) fn misplaced(text: &str, document: &DeTable<'_>, known: Known) -> Vec<Misplaced> {
    let mut found = Vec::new();
    walk(text, document, known, "", &mut found);
    found
}

fn walk(text: &str, table: &DeTable<'_>, known: Known, prefix: &str, found: &mut Vec<Misplaced>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        let line = line_of(text, name.span().start);
        let mut report = |what| found.push(Misplaced { line, key: key.clone(), what });
        let Some((_, expected)) = known.iter().find(|(k, _)| k == name.get_ref()) else {
            report(What::Unknown { near: nearest(name.get_ref(), known) });
            continue;
        };
        match (expected, value.get_ref()) {
            (Value, _) => {}
            (Later, _) => report(What::Later),
            (Names, DeValue::Table(_)) => {}
            (Table(keys), DeValue::Table(inner)) => walk(text, inner, keys, &key, found),
            (Names | Table(_), _) => report(What::NotATable),
            (Tables(keys), DeValue::Array(items)) => {
                for item in items {
                    match item.get_ref() {
                        DeValue::Table(inner) => walk(text, inner, keys, &key, found),
                        _ => {
                            found.push(Misplaced { line, key: key.clone(), what: What::NotTables });
                        }
                    }
                }
            }
            (Tables(_), _) => report(What::NotTables),
        }
    }
}

/// What makes a text no TOML, and where. The line itself is not shown: it may hold a password.
pub(super) fn no_toml(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let Some(span) = error.span() else { return message.to_owned() };
    let before = text.get(..span.start).unwrap_or(text);
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    format!("line {}, column {column}: {message}", line_of(text, span.start))
}

/// The line of a place in a text, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at.min(text.len())].matches('\n').count()
}

/// The known key that a typing error was probably meant to be.
fn nearest(name: &str, known: &'static [(&'static str, Key)]) -> Option<&'static str> {
    known
        .iter()
        .map(|(k, _)| (distance(name, k), *k))
        .min()
        .filter(|(distance, k)| *distance * 3 <= k.len().max(3))
        .map(|(_, k)| k)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = if x == *y { diagonal } else { diagonal + 1 };
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Is there such a key, seen as the dotted path of an environment variable?
pub(super) fn is_known(path: &str, mut known: Known) -> bool {
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        match known.iter().find(|(k, _)| *k == part).map(|(_, key)| key) {
            Some(Value) => return parts.peek().is_none(),
            Some(Table(keys)) => known = keys,
            Some(Names | Tables(_) | Later) | None => return false,
        }
    }
    false
}
