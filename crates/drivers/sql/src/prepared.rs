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

/// A row that does not fit its columns, or that the database refuses for what is in it.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) table: Arc<str>,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) version: u64,
    pub(crate) reason: String,
}

/// A row for a mapped table.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) key: Cell,
    /// In the mapping's order.
    pub(crate) cells: Vec<Cell>,
    pub(crate) version: u64,
    /// Key and value as they are in the replicated table.
    pub(crate) row: (Bytes, Bytes),
}

impl Put {
    /// What it is if the database refuses it.
    pub(crate) fn refused(&self, mapping: &Mapping, reason: String) -> Unfit {
        let (key, value) = self.row.clone();
        Unfit { table: mapping.table.as_str().into(), key, value, version: self.version, reason }
    }
}

/// What one mapped table gets.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    pub(crate) puts: Vec<Put>,
    pub(crate) deletes: Vec<Cell>,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) plain: Vec<Plain>,
    /// By the index of the mapping.
    pub(crate) mapped: Vec<Mapped>,
    pub(crate) unfit: Vec<Unfit>,
    /// Rows that are not in quarantine any more, if they ever were.
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
            return self.add_plain(table, key, value, version);
        };
        let into = &mut self.mapped[index];
        let key_cell = mapping.key_cell(key);
        let reason = match (value, &key_cell) {
            (None, _) => None,
            (Some(value), Ok(cell)) => match mapping.cells(value) {
                Ok(cells) => {
                    let row = (key.clone(), value.clone());
                    into.puts.push(Put { key: cell.clone(), cells, version, row });
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

    fn add_plain(&mut self, table: &Arc<str>, key: &Bytes, value: Option<&Bytes>, version: u64) {
        let (table, key, value) = (table.clone(), key.clone(), value.cloned());
        if !table.contains('\0') {
            return self.plain.push(Plain { table, key, value, version });
        }
        // A text in SQL has no place for it. Clients are refused such a name; a log may have one.
        let table: Arc<str> = format!("{table:?}").into();
        match value {
            None => self.cleared.push((table, key)),
            Some(value) => {
                let reason = "the table's name has a NUL in it".to_owned();
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
        let odd = BTreeMap::from([(bytes("a"), latest(Some("v"))), (bytes("b"), latest(None))]);
        let rows =
            Rows::from([("orders".into(), orders), ("state".into(), other), ("o\0d".into(), odd)]);
        let prepared = Prepared::of(&rows, &[mapping]);
        assert_eq!(prepared.plain.len(), 1);
        let mapped = &prepared.mapped[0];
        let text = |text: &str| Cell::Text(text.to_owned());
        assert_eq!(mapped.puts.len(), 1);
        let put = &mapped.puts[0];
        assert_eq!((&put.key, &put.cells[..]), (&text("a"), &[Cell::Integer(1)][..]));
        assert_eq!((put.version, &*put.row.0), (9, b"a".as_slice()));
        assert_eq!(mapped.deletes, [text("b"), text("c")], "an older b is no b");
        let unfit: Vec<(&str, &[u8])> =
            prepared.unfit.iter().map(|unfit| (&*unfit.table, &*unfit.key)).collect();
        assert_eq!(unfit, [("\"o\\0d\"", b"a".as_slice()), ("orders", b"b")]);
        assert!(prepared.unfit[1].reason.contains("amount"));
        let cleared: Vec<(&str, &[u8])> =
            prepared.cleared.iter().map(|(table, key)| (&**table, &**key)).collect();
        assert_eq!(cleared, [("\"o\\0d\"", b"b".as_slice()), ("orders", b"a"), ("orders", b"c")]);
    }
}
