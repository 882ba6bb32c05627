//! What one transaction writes, sorted by where it goes.

use std::sync::Arc;

use hotpair_core::tables::OWN_PREFIX;
use hotpair_core::tables::change::Bytes;
use hotpair_core::tables::coalesced::Rows;
use hotpair_core::tables::table::Row;

use crate::mapping::{Cell, Mapping};

/// A row for the table of keys and values, or out of it.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) table: Arc<str>,
    pub(crate) key: Bytes,
    /// None: it goes.
    pub(crate) value: Option<Bytes>,
    pub(crate) version: u64,
}

/// A row that does not fit its columns.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) table: Arc<str>,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) version: u64,
    pub(crate) reason: String,
}

/// What one mapped table gets.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    /// Key, fields in the mapping's order, version.
    pub(crate) puts: Vec<(Cell, Vec<Cell>, u64)>,
    pub(crate) deletes: Vec<Cell>,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) plain: Vec<Plain>,
    /// By the index of the mapping.
    pub(crate) mapped: Vec<Mapped>,
    pub(crate) unfit: Vec<Unfit>,
    /// Rows of mapped tables that are not in quarantine any more, if they ever were.
    pub(crate) cleared: Vec<(Arc<str>, Bytes)>,
}

impl Prepared {
    fn empty(mappings: &[Mapping]) -> Self {
        let mapped = mappings.iter().map(|_| Mapped::default()).collect();
        Self { plain: Vec::new(), mapped, unfit: Vec::new(), cleared: Vec::new() }
    }

    /// The rows of a batch of the log.
    pub(crate) fn of(rows: &Rows, mappings: &[Mapping]) -> Self {
        let mut prepared = Self::empty(mappings);
        for (table, rows) in rows {
            let mapping = find(mappings, table);
            for (key, latest) in rows {
                prepared.add(mapping, table, key, latest.value.as_ref(), latest.version);
            }
        }
        prepared
    }

    /// Rows of a piece of the store.
    pub(crate) fn of_piece(table: &Arc<str>, rows: &[(Bytes, Row)], mappings: &[Mapping]) -> Self {
        let mut prepared = Self::empty(mappings);
        if table.starts_with(OWN_PREFIX) {
            return prepared;
        }
        let mapping = find(mappings, table);
        for (key, row) in rows {
            prepared.add(mapping, table, key, Some(&row.value), row.version);
        }
        prepared
    }

    fn add(
        &mut self,
        mapping: Option<(usize, &Mapping)>,
        table: &Arc<str>,
        key: &Bytes,
        value: Option<&Bytes>,
        version: u64,
    ) {
        let Some((index, mapping)) = mapping else {
            let (table, key, value) = (table.clone(), key.clone(), value.cloned());
            return self.plain.push(Plain { table, key, value, version });
        };
        let into = &mut self.mapped[index];
        let key_cell = mapping.key_cell(key);
        let reason = match (value, &key_cell) {
            (None, _) => None,
            (Some(value), Ok(cell)) => match mapping.cells(value) {
                Ok(cells) => {
                    into.puts.push((cell.clone(), cells, version));
                    self.cleared.push((table.clone(), key.clone()));
                    return;
                }
                Err(reason) => Some((value, reason)),
            },
            (Some(value), Err(reason)) => Some((value, reason.clone())),
        };
        // An older value that did fit must not stand there as if it were the newest.
        if let Ok(cell) = key_cell {
            into.deletes.push(cell);
        }
        match reason {
            None => self.cleared.push((table.clone(), key.clone())),
            Some((value, reason)) => {
                let (table, key, value) = (table.clone(), key.clone(), value.clone());
                self.unfit.push(Unfit { table, key, value, version, reason });
            }
        }
    }
}

fn find<'a>(mappings: &'a [Mapping], table: &str) -> Option<(usize, &'a Mapping)> {
    mappings.iter().enumerate().find(|(_, mapping)| mapping.table == table)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hotpair_core::tables::coalesced::Latest;

    use super::*;
    use crate::mapping::ColumnKind;

    #[test]
    fn rows_go_where_they_belong_and_what_does_not_fit_is_put_aside() {
        let mapping = Mapping {
            table: "orders".to_owned(),
            sql: "orders".to_owned(),
            key: "id".to_owned(),
            value: None,
            columns: BTreeMap::from([("amount".to_owned(), ColumnKind::Integer)]),
        };
        let bytes = |text: &str| -> Bytes { text.as_bytes().into() };
        let latest = |text: Option<&str>| Latest { value: text.map(bytes), version: 9 };
        let orders = BTreeMap::from([
            (bytes("a"), latest(Some(r#"{"amount":1}"#))),
            (bytes("b"), latest(Some(r#"{"amount":"x"}"#))),
            (bytes("c"), latest(None)),
        ]);
        let other = BTreeMap::from([(bytes("k"), latest(Some("v")))]);
        let rows = Rows::from([("orders".into(), orders), ("state".into(), other)]);
        let prepared = Prepared::of(&rows, &[mapping]);
        assert_eq!(prepared.plain.len(), 1);
        let mapped = &prepared.mapped[0];
        let text = |text: &str| Cell::Text(text.to_owned());
        assert_eq!(mapped.puts, [(text("a"), vec![Cell::Integer(1)], 9)]);
        assert_eq!(mapped.deletes, [text("b"), text("c")], "an older b is no b");
        assert_eq!(prepared.unfit.len(), 1);
        assert!(prepared.unfit[0].reason.contains("amount"));
        let cleared: Vec<&[u8]> = prepared.cleared.iter().map(|(_, key)| &**key).collect();
        assert_eq!(cleared, [b"a", b"c"]);
    }
}
