//! Rows that changed while a load runs, and for each what to do, in order.
//!
//! A row's updates are merged, so that many of one row take no more than a few. An update that its dataset
//! refuses must take no other with it: where what is looked at has taken all of them, they become one; where
//! the columns are not known yet, only what every dataset takes or refuses alike takes each other's place.

use std::collections::HashMap;

use hotpair_core::services::dataset::{Given, Update};

/// See the file's header.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    rows: HashMap<String, Vec<Update>>,
    room: Room,
    refused: u64,
}

#[derive(Debug, Default)]
struct Room {
    bytes: usize,
    left_out: u64,
}

impl Pending {
    /// What is looked at took this update, as it took those before it.
    pub(crate) fn merge(&mut self, row: String, update: Update, bytes_max: usize) {
        let Some(known) = self.rows.get_mut(&row) else {
            return self.begin(row, update, bytes_max);
        };
        let whole = known.iter().map(bytes_of).sum();
        let Some(last) = known.last_mut() else { return };
        if last.version >= update.version {
            return;
        }
        if update.deleted || last.deleted {
            let less = if update.deleted { whole } else { 0 };
            if self.room.take(bytes_of(&update), less, bytes_max) {
                if update.deleted {
                    known.clear();
                }
                known.push(update);
            }
            return;
        }
        let old = |name: &str| last.fields.iter().find(|(known, _)| known == name);
        let more = update.fields.iter().map(bytes_of_field).sum();
        let less = update.fields.iter().filter_map(|(name, _)| old(name)).map(bytes_of_field).sum();
        if !self.room.take(more, less, bytes_max) {
            return;
        }
        last.version = update.version;
        for (name, given) in update.fields {
            match last.fields.iter_mut().find(|(known, _)| *known == name) {
                Some((_, old)) => *old = given,
                None => last.fields.push((name, given)),
            }
        }
    }

    /// Nobody knows yet what the dataset will take.
    pub(crate) fn keep(&mut self, row: String, update: Update, bytes_max: usize) {
        let Some(known) = self.rows.get_mut(&row) else {
            return self.begin(row, update, bytes_max);
        };
        let alike = |of: &Update| of.fits_like(&update);
        if known.iter().any(|of| of.version >= update.version && alike(of)) {
            return;
        }
        // What came between the two must be between them in its version too: only then is it as if the
        // first one had never been.
        let replaced = known.iter().rposition(alike).filter(|place| {
            let between = |of: &Update| of.version > known[*place].version;
            known[place + 1..].iter().all(|of| between(of) && of.version < update.version)
        });
        if replaced.is_none() && known.len() >= UNMERGED_MAX {
            self.room.left_out += 1;
            return;
        }
        let less = replaced.map_or(0, |place| bytes_of(&known[place]));
        if self.room.take(bytes_of(&update), less, bytes_max) {
            if let Some(place) = replaced {
                known.remove(place);
            }
            known.push(update);
        }
    }

    /// What is looked at refused an update; what is being loaded may have other columns.
    pub(crate) fn note_refused(&mut self) {
        self.refused += 1;
    }

    /// Updates that were refused, and by what.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Updates that found no room.
    pub(crate) fn left_out(&self) -> u64 {
        self.room.left_out
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Each row's updates in their order.
    pub(crate) fn into_updates(self) -> impl Iterator<Item = Update> {
        self.rows.into_values().flatten()
    }

    fn begin(&mut self, row: String, update: Update, bytes_max: usize) {
        if self.room.take(bytes_of(&update) + row.len(), 0, bytes_max) {
            self.rows.insert(row, vec![update]);
        }
    }
}

impl Room {
    /// So much more, and so much less of what was there: whether that can be. What shrinks always can.
    fn take(&mut self, more: usize, less: usize, bytes_max: usize) -> bool {
        let bytes = (self.bytes + more).saturating_sub(less);
        if more > less && bytes > bytes_max {
            self.left_out += 1;
            return false;
        }
        self.bytes = bytes;
        true
    }
}

/// The values of the key as they were written, one not to be taken for two.
pub(crate) fn row_name(key: &[String], update: &Update) -> Option<String> {
    let mut name = String::new();
    for column in key {
        let (_, given) = update.fields.iter().find(|(field, _)| field == column)?;
        match given {
            Given::Null => return None,
            Given::Text(text) => name.push_str(&format!("{}:{text}", text.len())),
            Given::Integer(_) | Given::Float(_) | Given::Boolean(_) => {
                name.push_str(&format!("{given:?}"));
            }
        }
    }
    Some(name)
}

fn bytes_of(update: &Update) -> usize {
    200 + update.fields.iter().map(bytes_of_field).sum::<usize>()
}

fn bytes_of_field((name, given): &(String, Given)) -> usize {
    let text = if let Given::Text(text) = given { text.len() } else { 0 };
    name.len() + text + size_of::<(String, Given)>()
}

/// Updates of one row while the columns are not known: as many kinds of them as a publisher may have.
const UNMERGED_MAX: usize = 16;
