//! All tables and windows of a node, as far as the log has been applied.
//!
//! What is in a store is acknowledged (on the master) or received (on the standby): the writer keeps
//! what is still pending to itself. Applying a record twice, or records that a snapshot already
//! holds in part, leads to the same store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SESSIONS;
use super::change::{Bytes, SessionKey};
use super::digest::Digest;
use super::record::{Body, Change, Record};
use super::table::{Row, Table};
use super::window::{Seen, Window};

/// The tables. See the file's header.
#[derive(Clone, Debug, Default)]
pub struct Store {
    tables: BTreeMap<Arc<str>, Table>,
    windows: BTreeMap<SessionKey, Window>,
    /// The number of the last record applied.
    applied: u64,
}

impl Store {
    /// The number of the last record applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The table of this name; none until its first row.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// All tables, by name.
    pub fn tables(&self) -> impl Iterator<Item = (&Arc<str>, &Table)> {
        self.tables.iter()
    }

    /// A row.
    #[must_use]
    pub fn get(&self, table: &str, key: &[u8]) -> Option<&Row> {
        self.tables.get(table)?.get(key)
    }

    /// Is there such a session?
    #[must_use]
    pub fn has_session(&self, session: SessionKey) -> bool {
        self.get(SESSIONS, &session.0).is_some()
    }

    /// What is known of a request of a session.
    #[must_use]
    pub fn seen(&self, session: SessionKey, number: u64) -> Seen<'_> {
        self.windows.get(&session).map_or(Seen::New, |window| window.seen(number))
    }

    /// The windows from this session on, in order.
    pub fn windows(&self, from: SessionKey) -> impl Iterator<Item = (&SessionKey, &Window)> {
        self.windows.range(from..)
    }

    /// The digest of each table that has rows.
    pub fn digests(&self) -> impl Iterator<Item = (&Arc<str>, Digest)> {
        self.tables.iter().filter(|(_, t)| !t.is_empty()).map(|(name, t)| (name, t.digest()))
    }

    /// Applies a record.
    pub fn apply(&mut self, record: &Record) {
        self.applied = self.applied.max(record.number);
        let Body::Changes { numbered, changes, reply } = &record.body else { return };
        if let (Some(numbered), Some(reply)) = (numbered, reply) {
            self.windows.entry(numbered.session).or_default().done(
                numbered.number,
                numbered.done_up_to,
                reply.clone(),
            );
        }
        for change in changes {
            self.change(change, record.number);
        }
    }

    fn change(&mut self, change: &Change, version: u64) {
        match change {
            Change::Put { table, key, value } => {
                self.put(table, key, Row { value: value.clone(), version });
            }
            Change::Delete { table, key } => {
                if let Some(rows) = self.tables.get_mut(table) {
                    rows.delete(key, version);
                }
                if **table == *SESSIONS
                    && let Ok(session) = <[u8; 16]>::try_from(&**key)
                {
                    self.windows.remove(&SessionKey(session));
                }
            }
        }
    }

    /// A row of a snapshot.
    pub fn put(&mut self, table: &Arc<str>, key: &Bytes, row: Row) {
        match self.tables.get_mut(table) {
            Some(rows) => rows.put(key, row),
            None => self.tables.entry(table.clone()).or_default().put(key, row),
        }
    }

    /// A window of a snapshot.
    pub fn put_window(&mut self, session: SessionKey, window: Window) {
        self.windows.insert(session, window);
    }

    /// A snapshot holds everything up to this record.
    pub fn set_applied(&mut self, number: u64) {
        self.applied = self.applied.max(number);
    }
}
