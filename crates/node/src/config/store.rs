//! `[store]`: the tables in an SQL database.

use std::collections::BTreeMap;
use std::fmt;

use hotpair_sql::{Mapping, Target};
use hotpair_tls::Identity;
use serde::Deserialize;

/// Where the tables are written behind, and how.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StoreConfig {
    /// `sqlite:///path` or `postgres://user:password@host/database`; none: nowhere.
    pub(crate) url: Option<Url>,
    /// Tables with columns; both nodes the same.
    pub(crate) tables: Vec<StoreTable>,
}

/// An address that may hold a password: shown to nobody.
#[derive(Clone, Deserialize)]
pub(crate) struct Url(String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// A table with columns.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StoreTable {
    /// The replicated table.
    pub(crate) table: String,
    /// The SQL table, if its name is another one.
    pub(crate) sql: Option<String>,
    /// The column of the key.
    #[serde(default = "default_key")]
    pub(crate) key: String,
    /// The column that takes the value as a whole.
    pub(crate) value: Option<String>,
    /// What each column holds.
    #[serde(default)]
    pub(crate) columns: BTreeMap<String, String>,
}

fn default_key() -> String {
    "key".to_owned()
}

impl StoreConfig {
    /// The database and the mappings; none if nothing is written. Everything that cannot be meant.
    pub(crate) fn read(&self) -> Result<Option<(Target, Vec<Mapping>)>, Vec<String>> {
        let Some(Url(url)) = &self.url else {
            return if self.tables.is_empty() {
                Ok(None)
            } else {
                Err(vec!["[[store.tables]] is given and store.url is missing".to_owned()])
            };
        };
        let mut problems = Vec::new();
        // Not the address itself: it may hold a password.
        let target = url.parse::<Target>().map_err(|e| problems.push(format!("store.url: {e}")));
        let mappings: Vec<Mapping> =
            self.tables.iter().map(|table| table.read(&mut problems)).collect();
        let clashes = Mapping::problems(&mappings);
        problems.extend(clashes.into_iter().map(|problem| format!("store.tables: {problem}")));
        match target {
            Ok(target) if problems.is_empty() => Ok(Some((target, mappings))),
            _ => Err(problems),
        }
    }

    /// Whom to trust can be trusted: files are there and are good.
    pub(super) fn check(&self, identity: Option<&Identity>) -> Result<(), Vec<String>> {
        let Some((target, _)) = self.read()? else { return Ok(()) };
        let ready = target.trusting(identity);
        ready.map(drop).map_err(|error| vec![format!("store.url: {error}")])
    }

    /// What an operator should know of the way to the database.
    pub(super) fn doubt(&self) -> Option<String> {
        let (target, _) = self.read().ok()??;
        Some(format!("store.url: {}", target.doubt()?))
    }

    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if let Err(found) = self.read() {
            problems.extend(found);
        }
    }

    /// What both nodes must have alike, or the next master would make the tables anew.
    pub(super) fn put_into_digest(&self, text: &mut String) {
        if let Ok(Some((target, mappings))) = self.read() {
            text.push_str(&format!("\0store\0{}", target.kind()));
            for mapping in mappings {
                text.push_str(&format!("\0{}\0{}", mapping.table, mapping.definition()));
            }
        }
    }
}

impl StoreTable {
    fn read(&self, problems: &mut Vec<String>) -> Mapping {
        let table = &self.table;
        let mut columns = BTreeMap::new();
        for (name, kind) in &self.columns {
            match kind.parse() {
                Ok(kind) => {
                    columns.insert(name.clone(), kind);
                }
                Err(error) => problems.push(format!("store.tables {table:?}: {name} = {error}")),
            }
        }
        Mapping {
            table: table.clone(),
            sql: self.sql.clone().unwrap_or_else(|| table.clone()),
            key: self.key.clone(),
            value: self.value.clone(),
            columns,
        }
    }
}
