//! Where a feed's updates go: into the dataset that is looked at, and, while a load runs, beside it as
//! well, to be brought into what it loads.
//!
//! What waits is kept by row: however long a load takes, it is no more than the rows that changed. Where
//! even that is too much, new rows are left out and it is said, so that the dataset is loaded once more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hotpair_core::services::dataset::{
    Applied, AsOf, Contiguity, Dataset, FeedEvent, Given, Update,
};

use crate::fed::FedDataset;
use crate::rows::updates;

/// What became of the updates since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntakeTotals {
    /// Brought in, or kept until the load is done.
    pub applied: u64,
    /// Not newer than what was there.
    pub older: u64,
    /// Not to be understood, or with no room.
    pub refused: u64,
    /// Why the last refused one was.
    pub refused_last: Option<String>,
}

/// See the file's header.
#[derive(Debug)]
pub struct Intake {
    key: Vec<String>,
    state: Mutex<State>,
    applied: AtomicU64,
    older: AtomicU64,
    refused: AtomicU64,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Arc<FedDataset>>,
    pending: Option<Pending>,
    contiguity: Contiguity,
    heard: bool,
    refused_last: Option<String>,
    /// Which subscription this is of, counted up with each that ends.
    generation: u64,
}

/// Rows that changed while a load runs; for each what to do, in order.
#[derive(Debug, Default)]
struct Pending {
    rows: HashMap<String, Vec<Update>>,
    bytes: usize,
    left_out: u64,
}

impl Intake {
    /// For a dataset with this key.
    #[must_use]
    pub fn new(key: Vec<String>) -> Self {
        Self {
            key,
            state: Mutex::default(),
            applied: AtomicU64::new(0),
            older: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            bytes_max: PENDING_BYTES_MAX,
        }
    }

    /// The counters now.
    #[must_use]
    pub fn totals(&self) -> IntakeTotals {
        IntakeTotals {
            applied: self.applied.load(Ordering::Relaxed),
            older: self.older.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            refused_last: self.lock().refused_last.clone(),
        }
    }

    /// From now on updates are kept beside, until a load is done; if they are already, they are.
    pub fn keep_beside(&self) {
        self.lock().pending.get_or_insert_default();
    }

    /// What was kept beside until now is of no use to the load that begins next: it is forgotten. It may
    /// be much; the caller frees it where nobody waits.
    #[must_use]
    pub fn forget_kept(&self) -> impl Send + use<> {
        self.lock().pending.take()
    }

    /// Forgets everything. It may be much; the caller frees it where nobody waits.
    #[must_use]
    pub fn clear(&self) -> impl Send + use<> {
        let mut state = self.lock();
        state.generation += 1;
        (state.live.take(), state.pending.take())
    }

    /// How often everything was forgotten.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// A connection began: versions are counted anew.
    pub fn connected(&self) {
        let mut state = self.lock();
        state.contiguity = Contiguity::default();
        state.heard = false;
    }

    /// Takes a message in, which came at `wall_ms`; what is to be told of it.
    pub fn take(&self, message: &[u8], wall_ms: u64) -> Option<FeedEvent> {
        let updates = match updates(message) {
            Ok(updates) => updates,
            Err(why) => {
                let mut state = self.lock();
                self.refuse(&mut state, why);
                return None;
            }
        };
        let mut event = None;
        // One lock a message: a list of rows is brought in as one.
        let mut state = self.lock();
        for update in &updates {
            if let Some(jump) = state.contiguity.note(update.version) {
                let missing = jump.to - jump.after - 1;
                let reason = format!("{missing} updates are missing after version {}", jump.after);
                event = Some(FeedEvent::Missed { reason });
            }
            self.take_one(&mut state, update, wall_ms);
        }
        let first = !std::mem::replace(&mut state.heard, true);
        event.or_else(|| first.then_some(FeedEvent::Heard))
    }

    fn take_one(&self, state: &mut State, update: &Update, wall_ms: u64) {
        if let Some(pending) = &mut state.pending {
            match row_name(&self.key, update) {
                Some(row) => pending.add(row, update, self.bytes_max),
                None if state.live.is_none() => {
                    let why = format!("a key column of {:?} is missing", self.key);
                    return self.refuse(state, why);
                }
                // The live one says why.
                None => {}
            }
        }
        let Some(live) = &state.live else {
            self.applied.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match live.apply(update, wall_ms) {
            Ok(Applied::Older) => {
                self.older.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Applied::Inserted | Applied::Changed | Applied::Deleted) => {
                self.applied.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.refuse(state, error.to_string()),
        }
    }

    fn refuse(&self, state: &mut State, why: String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        state.refused_last = Some(why);
    }

    /// Brings what was kept beside into what was loaded as of `wall_ms`, and goes on with that: the
    /// dataset to look at from now on, and how many updates had to be left out. Nothing where
    /// everything was forgotten since this generation: what came since belongs to another load.
    pub fn replay(
        &self,
        base: Arc<dyn Dataset>,
        wall_ms: u64,
        generation: u64,
    ) -> Option<(Arc<FedDataset>, u64)> {
        let fed = Arc::new(FedDataset::new(base, wall_ms));
        let mut left_out = 0;
        for round in 0.. {
            let mut state = self.lock();
            if state.generation != generation {
                return None;
            }
            let kept = state.pending.as_mut().map(std::mem::take).unwrap_or_default();
            left_out += kept.left_out;
            // What comes meanwhile is less each time; the last of it is brought in with all waiting.
            let last = kept.rows.is_empty() || round == ROUNDS_MAX;
            if last {
                self.bring_in(&mut state, &fed, kept, wall_ms);
                state.pending = None;
                state.live = Some(Arc::clone(&fed));
                break;
            }
            drop(state);
            let mut refused = State::default();
            self.bring_in(&mut refused, &fed, kept, wall_ms);
            if refused.refused_last.is_some() {
                self.lock().refused_last = refused.refused_last;
            }
        }
        Some((fed, left_out))
    }

    fn bring_in(&self, state: &mut State, fed: &FedDataset, kept: Pending, wall_ms: u64) {
        for update in kept.rows.into_values().flatten() {
            if let Err(error) = fed.apply(&update, wall_ms) {
                self.refuse(state, error.to_string());
            }
        }
    }

    /// How new the dataset is that updates go into.
    #[must_use]
    pub fn as_of(&self) -> Option<AsOf> {
        self.lock().live.as_ref().map(|live| live.as_of())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whoever panics with it ends the process")
    }
}

impl Pending {
    fn add(&mut self, row: String, update: &Update, bytes_max: usize) {
        let size = bytes_of(update);
        if let Some(known) = self.rows.get_mut(&row) {
            let Some(last) = known.last_mut() else { return };
            if last.version >= update.version {
                return;
            }
            if update.deleted {
                *known = vec![update.clone()];
            } else if last.deleted {
                known.push(update.clone());
            } else {
                last.version = update.version;
                for (name, given) in &update.fields {
                    match last.fields.iter_mut().find(|(known, _)| known == name) {
                        Some((_, old)) => old.clone_from(given),
                        None => last.fields.push((name.clone(), given.clone())),
                    }
                }
            }
            return;
        }
        if self.bytes + size > bytes_max {
            self.left_out += 1;
            return;
        }
        self.bytes += size + row.len();
        self.rows.insert(row, vec![update.clone()]);
    }
}

/// The values of the key, as they were written.
fn row_name(key: &[String], update: &Update) -> Option<String> {
    let mut name = String::new();
    for column in key {
        let (_, given) = update.fields.iter().find(|(field, _)| field == column)?;
        match given {
            Given::Null => return None,
            Given::Text(text) => {
                name.push_str(text);
                name.push('\0');
            }
            Given::Integer(_) | Given::Float(_) | Given::Boolean(_) => {
                name.push_str(&format!("{given:?}\u{1}"));
            }
        }
    }
    Some(name)
}

fn bytes_of(update: &Update) -> usize {
    let field = |(name, given): &(String, Given)| {
        let text = if let Given::Text(text) = given { text.len() } else { 0 };
        name.len() + text + size_of::<(String, Given)>()
    };
    200 + update.fields.iter().map(field).sum::<usize>()
}

/// About a million rows.
const PENDING_BYTES_MAX: usize = 512 << 20;
const ROUNDS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use hotpair_core::services::dataset::{Column, ColumnKind, KeyError, Row, Value};

    /// One column, one key, no rows.
    #[derive(Debug)]
    struct Empty(Vec<Column>);

    impl Dataset for Empty {
        fn columns(&self) -> &[Column] {
            &self.0
        }

        fn key_columns(&self) -> &[Column] {
            &self.0[..1]
        }

        fn rows(&self) -> u64 {
            0
        }

        fn lookup(&self, _: &[Value]) -> Result<Option<Row>, KeyError> {
            Ok(None)
        }

        fn scan(&self, _: &[Value], _: usize) -> Result<Vec<Row>, KeyError> {
            Ok(vec![])
        }

        fn checksum(&self) -> u64 {
            0
        }

        fn memory_bytes(&self) -> u64 {
            0
        }
    }

    fn empty() -> Arc<dyn Dataset> {
        let columns =
            [("k", ColumnKind::Integer), ("a", ColumnKind::Integer), ("b", ColumnKind::Text)];
        Arc::new(Empty(columns.map(|(n, kind)| Column { name: n.to_owned(), kind }).to_vec()))
    }

    fn row(fed: &FedDataset, key: i64) -> Option<Row> {
        fed.lookup(&[Value::Integer(key)]).unwrap()
    }

    #[test]
    fn what_comes_while_a_load_runs_is_in_what_it_brings() {
        let intake = Intake::new(vec!["k".to_owned()]);
        intake.keep_beside();
        intake.connected();
        assert_eq!(intake.take(br#"{"k":1,"a":5,"version":1}"#, 1), Some(FeedEvent::Heard));
        assert_eq!(intake.take(br#"{"k":1,"b":"x","version":2}"#, 1), None);
        assert_eq!(intake.take(br#"{"k":1,"a":4,"version":1}"#, 1), None);
        assert_eq!(intake.take(br#"{"k":2,"a":1,"version":3}"#, 1), None);
        assert_eq!(intake.take(br#"{"k":2,"deleted":true,"version":4}"#, 1), None);
        assert_eq!(intake.take(br#"{"k":2,"b":"y","version":5}"#, 1), None);
        let (fed, left_out) = intake.replay(empty(), 7, 0).unwrap();
        assert_eq!(left_out, 0);
        let wanted = [Value::Integer(1), Value::Integer(5), Value::Text("x".to_owned())];
        assert_eq!(row(&fed, 1).unwrap(), wanted);
        assert_eq!(
            row(&fed, 2).unwrap(),
            [Value::Integer(2), Value::Null, Value::Text("y".to_owned())]
        );
        // And on it goes.
        intake.take(br#"{"k":3,"a":9,"version":6}"#, 8);
        assert!(row(&fed, 3).is_some());
        assert_eq!(intake.as_of(), Some(AsOf { version: Some(6), wall_ms: 8 }));
    }

    #[test]
    fn what_cannot_be_read_is_counted_with_its_reason_and_ends_nothing() {
        let intake = Intake::new(vec!["k".to_owned()]);
        let (fed, _) = intake.replay(empty(), 0, 0).unwrap();
        for broken in
            ["nonsense", r#"{"k":1}"#, r#"{"k":1,"c":2,"version":1}"#, r#"{"a":1,"version":1}"#]
        {
            intake.take(broken.as_bytes(), 1);
        }
        intake.take(br#"{"k":1,"a":"text","version":1}"#, 1);
        let totals = intake.totals();
        assert_eq!((totals.refused, totals.applied), (5, 0));
        assert_eq!(totals.refused_last.unwrap(), "column `a` is integer, text was given");
        intake.take(br#"[{"k":1,"a":1,"version":2},{"k":1,"a":2,"version":2}]"#, 1);
        assert_eq!((intake.totals().applied, intake.totals().older), (1, 1));
        assert!(row(&fed, 1).is_some());
    }

    #[test]
    fn with_no_room_left_rows_are_left_out_and_it_is_said() {
        let mut intake = Intake::new(vec!["k".to_owned()]);
        intake.bytes_max = 1_000;
        intake.keep_beside();
        for key in 0..100 {
            intake.take(format!("{{\"k\":{key},\"a\":1,\"version\":1}}").as_bytes(), 1);
        }
        let (fed, left_out) = intake.replay(empty(), 0, 0).unwrap();
        assert!(left_out > 90 && fed.rows() == 100 - left_out, "{left_out}");
    }

    #[test]
    fn a_jump_of_a_publisher_that_counts_is_told() {
        let intake = Intake::new(vec!["k".to_owned()]);
        let (_fed, _) = intake.replay(empty(), 0, 0).unwrap();
        intake.connected();
        for version in 1..=100 {
            intake.take(format!("{{\"k\":1,\"version\":{version}}}").as_bytes(), 1);
        }
        let missed = intake.take(br#"{"k":1,"version":104}"#, 1);
        let reason = "3 updates are missing after version 100".to_owned();
        assert_eq!(missed, Some(FeedEvent::Missed { reason }));
        // Another connection: whatever it begins with is no jump.
        intake.connected();
        assert_eq!(intake.take(br#"{"k":1,"version":900}"#, 1), Some(FeedEvent::Heard));
    }

    #[test]
    fn what_was_kept_for_a_failed_load_is_forgotten_before_the_next() {
        let intake = Intake::new(vec!["k".to_owned()]);
        intake.keep_beside();
        intake.take(br#"{"k":1,"a":5,"version":1}"#, 1);
        // It failed; meanwhile the source was changed.
        drop(intake.forget_kept());
        intake.keep_beside();
        intake.take(br#"{"k":2,"a":6,"version":2}"#, 1);
        let (fed, left_out) = intake.replay(empty(), 7, 0).unwrap();
        assert_eq!((row(&fed, 1), left_out), (None, 0));
        assert!(row(&fed, 2).is_some());
    }

    #[test]
    fn a_replay_that_comes_too_late_takes_nothing_away() {
        let intake = Intake::new(vec!["k".to_owned()]);
        intake.keep_beside();
        let before = intake.generation();
        drop(intake.clear());
        intake.keep_beside();
        intake.take(br#"{"k":1,"a":5,"version":1}"#, 1);
        assert!(intake.replay(empty(), 0, before).is_none());
        let (fed, _) = intake.replay(empty(), 0, intake.generation()).unwrap();
        assert!(row(&fed, 1).is_some());
    }
}
