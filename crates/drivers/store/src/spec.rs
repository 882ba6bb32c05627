//! What to load: where it is, what its key is, and how to read it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hotpair_core::services::dataset::ColumnKind;
use hotpair_postgres::Server;
use hotpair_tls::{Identity, TlsError};

/// Everything [`load`](crate::load) needs to know about a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSpec {
    /// The dataset's name in the configuration, for messages.
    pub name: String,
    /// Where the rows are.
    pub source: Source,
    /// The key columns in key order; the rows' values in them must be present and unique.
    pub key: Vec<String>,
    /// Kinds of columns that are not to be inferred. With [`Unpivot`], its `value` column too.
    pub columns: BTreeMap<String, ColumnKind>,
    /// How many broken rows are left out before the load fails. Safe: 0. Higher values let a
    /// dataset serve with rows missing.
    pub broken_rows_max: u64,
    /// How to turn a wide file into rows, if it is one.
    pub unpivot: Option<Unpivot>,
}

/// Turns a file with one column per thing into one row per thing; empty cells make no row.
///
/// `Date,AAPL,AMD` with `keep = ["Date"]`, `name = "symbol"`, `value = "price"` becomes rows of
/// `Date,symbol,price`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpivot {
    /// Columns repeated on every row; all others are turned.
    pub keep: Vec<String>,
    /// The new column that holds the turned columns' names.
    pub name: String,
    /// The new column that holds their values.
    pub value: String,
}

/// Where a dataset comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file on this machine.
    File {
        /// Its absolute path.
        path: PathBuf,
        /// What is in it.
        format: FileFormat,
    },
    /// A query of a database.
    Database(Box<DatabaseSource>),
}

/// A query of a PostgreSQL: `postgres://user:password@host:port/database?query=SELECT …`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseSource {
    /// Where it is and as whom to go there.
    pub(crate) server: Server,
    /// The statement whose rows they are.
    pub(crate) query: String,
    /// For people: without the password and the query.
    shown: String,
}

impl DatabaseSource {
    /// The same, ready to check whom it is connected to; this node's authority is trusted where nobody
    /// else is named.
    pub fn trusting(self, identity: Option<&Identity>) -> Result<Self, TlsError> {
        Ok(Self { server: self.server.trusting(identity)?, ..self })
    }

    /// Where it is.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }
}

impl fmt::Display for DatabaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password is nobody's business.
        f.debug_struct("DatabaseSource")
            .field("at", &self.shown)
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

impl FromStr for DatabaseSource {
    type Err = SourceError;

    fn from_str(url: &str) -> Result<Self, SourceError> {
        let (address, query) = url.split_once("query=").unwrap_or((url, ""));
        let shown = without_password(address.trim_end_matches(['?', '&']));
        let wrong =
            |what: &str| SourceError::Database { source_url: shown.clone(), what: what.to_owned() };
        if !address.ends_with(['?', '&']) || query.trim().is_empty() {
            return Err(wrong("it names no query: end it with ?query=SELECT …"));
        }
        let query = unescaped(query).ok_or_else(|| {
            wrong("a % of its query is no escape: write %25 for one that is meant")
        })?;
        if ["&sslmode=", "&sslrootcert="].iter().any(|option| query.contains(option)) {
            return Err(wrong(
                "its query ends the address: write sslmode and sslrootcert before it",
            ));
        }
        let server = address.trim_end_matches(['?', '&']).parse::<Server>();
        let server = server.map_err(|error| wrong(&error.to_string()))?;
        let query = query.trim().trim_end_matches(';').trim_end().to_owned();
        Ok(Self { server, query, shown })
    }
}

/// The address as it can be shown. Who logs in ends at the first `@`, as the client library has it; and
/// what is left of a password that holds one itself is not shown either.
fn without_password(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
    let before_options = |text: &str| text.split('?').next().unwrap_or_default().to_owned();
    let Some((who, at)) = rest.split_once('@') else {
        return format!("{scheme}://{}", before_options(rest));
    };
    let user = who.split(':').next().unwrap_or_default();
    let at = before_options(at);
    let at = at.rsplit_once('@').map_or(at.as_str(), |(_, at)| at);
    format!("{scheme}://{user}@{at}")
}

/// What a file holds, told by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Comma-separated values with a header line (`.csv`).
    Csv,
    /// The same, gzipped (`.csv.gz`).
    CsvGz,
    /// Apache Parquet (`.parquet`).
    Parquet,
}

/// Why a source was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is no `scheme://` in front.
    #[error("source `{0}` is no URL: write file:///path/to/file.csv")]
    NoScheme(String),
    /// A scheme this version cannot read.
    #[error("source `{source_url}` has the scheme `{scheme}`: there are file:// and postgres://")]
    Scheme {
        /// The whole source.
        source_url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A database that cannot be meant.
    #[error("source `{source_url}`: {what}")]
    Database {
        /// The source without its password.
        source_url: String,
        /// What is wrong.
        what: String,
    },
    /// A relative path or another machine's.
    #[error("source `{0}` has no absolute path on this machine: write file:/// and the path")]
    NotAbsolute(String),
    /// A `%` not followed by two hexadecimal digits, or bytes that are no UTF-8.
    #[error("source `{0}` has a broken percent escape")]
    Escape(String),
    /// An ending that names no format.
    #[error("source `{0}` ends in neither .csv, .csv.gz nor .parquet")]
    Ending(String),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(url: &str) -> Result<Self, SourceError> {
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| SourceError::NoScheme(url.to_owned()))?;
        if matches!(scheme, "postgres" | "postgresql") {
            return Ok(Source::Database(Box::new(url.parse()?)));
        }
        if scheme != "file" {
            let (source_url, scheme) = (without_password(url), scheme.to_owned());
            return Err(SourceError::Scheme { source_url, scheme });
        }
        if !rest.starts_with('/') {
            return Err(SourceError::NotAbsolute(url.to_owned()));
        }
        let path = unescaped(rest).ok_or_else(|| SourceError::Escape(url.to_owned()))?;
        let format = if path.ends_with(".csv") {
            FileFormat::Csv
        } else if path.ends_with(".csv.gz") {
            FileFormat::CsvGz
        } else if path.ends_with(".parquet") {
            FileFormat::Parquet
        } else {
            return Err(SourceError::Ending(url.to_owned()));
        };
        Ok(Source::File { path: PathBuf::from(path), format })
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str) -> Result<Source, String> {
        url.parse().map_err(|error: SourceError| error.to_string())
    }

    #[test]
    fn the_ending_tells_the_format() {
        for (url, path, format) in [
            ("file:///a/b.csv", "/a/b.csv", FileFormat::Csv),
            ("file:///a%20b.csv.gz", "/a b.csv.gz", FileFormat::CsvGz),
            ("file:///a.b/c.parquet", "/a.b/c.parquet", FileFormat::Parquet),
        ] {
            assert_eq!(source(url), Ok(Source::File { path: PathBuf::from(path), format }));
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        for (url, expected) in [
            ("/a.csv", "is no URL"),
            ("mysql://host/db", "scheme `mysql`"),
            ("file://host/a.csv", "no absolute path"),
            ("file:///a.xlsx", "neither .csv"),
            ("file:///a.gz", "neither .csv"),
            ("file:///a%2.csv", "broken percent"),
            ("file:///a%ff.csv", "broken percent"),
        ] {
            let message = source(url).unwrap_err();
            assert!(message.contains(expected) && message.contains(url), "{message}");
        }
    }

    #[test]
    fn a_database_is_named_with_its_query_and_shown_without_its_password() {
        let url = "postgres://trade:hush@10.0.0.9:5433/positions?query=SELECT a, b FROM t WHERE a LIKE 'x%25';";
        let Source::Database(database) = url.parse().unwrap() else { panic!("{url}") };
        assert_eq!(database.query, "SELECT a, b FROM t WHERE a LIKE 'x%'");
        assert_eq!(database.to_string(), "postgres://trade@10.0.0.9:5433/positions");
        assert!(!format!("{database:?}").contains("hush"));
        let marked = "postgres://u:hu?sh@h/db?query=SELECT 1".parse().unwrap();
        let Source::Database(marked) = marked else { panic!("{marked:?}") };
        assert_eq!(marked.to_string(), "postgres://u@h/db");
        for (url, expected) in [
            ("postgres://u:so@hush@h/db?query=SELECT 1", "%40"),
            ("postgres://u:hush@h/db", "names no query"),
            ("postgres://u:hush@h/db?query=", "names no query"),
            ("postgres://u:hush@h/db?query=LIKE '%'", "%25"),
            ("postgres://u:hush@h/db?colour=red&query=SELECT 1", "colour"),
            ("postgres://u:hush@h/db?sslmode=allow&query=SELECT 1", "sslmode=allow"),
            ("postgres://u:hush@h/db?query=SELECT 1&sslmode=require", "before it"),
            ("postgres://u:hush@h?query=SELECT 1", "no database"),
        ] {
            let message = source(url).unwrap_err();
            assert!(message.contains(expected) && !message.contains("hush"), "{message}");
        }
    }
}
