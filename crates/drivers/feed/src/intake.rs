//! Where a feed's updates go: into the dataset that is looked at, and, while a load runs, beside it as
//! well, to be brought into what it loads.
//!
//! What waits is kept by row: however long a load takes, it is no more than the rows that changed. Where
//! even that is too much, updates are left out and it is said, so that the dataset is loaded once more.
//!
//! Whoever only counts waits for nobody. Whoever changes where the updates go waits for some hundred of a
//! message's rows, and not for all of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use hotpair_core::services::dataset::{Applied, AsOf, Contiguity, Dataset, FeedEvent, Update};

use crate::fed::{ApplyError, FedDataset};
use crate::pending::{Pending, row_name};
use crate::rows::updates;

/// What became of the updates since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeTotals {
    /// Brought in, or kept until the load is done.
    pub applied: u64,
    /// Not newer than what was there.
    pub older: u64,
    /// Not to be understood, or with no room.
    pub refused: u64,
}

/// See the file's header.
#[derive(Debug)]
pub struct Intake {
    key: Vec<String>,
    state: Mutex<State>,
    /// How many wait for the state now.
    waiting: AtomicUsize,
    /// Why the last refused update was.
    refused_last: Mutex<Option<String>>,
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
    /// Which subscription this is of, counted up with each that ends.
    generation: u64,
}

impl Intake {
    /// For a dataset with this key.
    #[must_use]
    pub fn new(key: Vec<String>) -> Self {
        Self {
            key,
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
            refused_last: Mutex::default(),
            applied: AtomicU64::new(0),
            older: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            bytes_max: PENDING_BYTES_MAX,
        }
    }

    /// The counters now. Never waits.
    #[must_use]
    pub fn totals(&self) -> IntakeTotals {
        IntakeTotals {
            applied: self.applied.load(Ordering::Relaxed),
            older: self.older.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Why the last update was refused that was.
    #[must_use]
    pub fn refused_last(&self) -> Option<String> {
        self.refused_last.lock().expect(POISONED).clone()
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
                self.refuse(why);
                return None;
            }
        };
        let (generation, first) = {
            let mut state = self.lock();
            (state.generation, !std::mem::replace(&mut state.heard, true))
        };
        let mut missed = None;
        let mut updates = updates.into_iter();
        while !updates.as_slice().is_empty() {
            let mut state = self.lock();
            if state.generation != generation {
                // The subscription that it came by is over.
                return None;
            }
            for update in updates.by_ref().take(ROWS_AT_ONCE) {
                if let Some(jump) = state.contiguity.note(update.version) {
                    let missing = jump.to - jump.after - 1;
                    let after = jump.after;
                    missed = Some(format!("{missing} updates are missing after version {after}"));
                }
                missed = self.take_one(&mut state, update, wall_ms).or(missed);
            }
            drop(state);
            self.let_others_in();
        }
        let missed = missed.map(|reason| FeedEvent::Missed { reason });
        missed.or_else(|| first.then_some(FeedEvent::Heard))
    }

    /// Brings one update in; why the dataset is not whole without it, where it is not.
    fn take_one(&self, state: &mut State, update: Update, wall_ms: u64) -> Option<String> {
        let row = row_name(&self.key, &update);
        let Some(live) = &state.live else {
            match (&mut state.pending, row) {
                (Some(_), None) => {
                    self.refuse(format!("a key column of {:?} is missing", self.key));
                    return None;
                }
                (Some(pending), Some(row)) => pending.keep(row, update, self.bytes_max),
                (None, _) => {}
            }
            self.applied.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let mut full = None;
        match live.apply(&update, wall_ms) {
            Ok(Applied::Older) => {
                self.older.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Applied::Inserted | Applied::Changed | Applied::Deleted) => {
                self.applied.fetch_add(1, Ordering::Relaxed);
            }
            Err(error @ ApplyError::Full { .. }) => {
                full = Some(error.to_string());
                self.refuse(error.to_string());
            }
            Err(error @ ApplyError::Update(_)) => {
                self.refuse(error.to_string());
                if let Some(pending) = &mut state.pending {
                    pending.note_refused();
                }
                return None;
            }
        }
        match (&mut state.pending, row) {
            // Older than what is looked at may still be newer than what is loaded: whoever counts anew.
            // And where there is no room now, there will be some then.
            (Some(pending), Some(row)) => {
                pending.merge(row, update, self.bytes_max);
                None
            }
            _ => full,
        }
    }

    fn refuse(&self, why: String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        *self.refused_last.lock().expect(POISONED) = Some(why);
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
            left_out += kept.left_out();
            // What other columns refused, these might have taken, and the other way round.
            let others = state.live.as_ref().is_some_and(|live| live.columns() != fed.columns());
            if others {
                left_out += kept.refused();
            }
            // What comes meanwhile is less each time; the last of it is brought in with all waiting.
            let last = kept.is_empty() || round == ROUNDS_MAX;
            if last {
                left_out += self.bring_in(&fed, kept, wall_ms, others);
                state.pending = None;
                state.live = Some(Arc::clone(&fed));
                break;
            }
            drop(state);
            left_out += self.bring_in(&fed, kept, wall_ms, others);
        }
        Some((fed, left_out))
    }

    /// How many had to be left out. What cannot be understood is not counted, unless `others` understood it.
    fn bring_in(&self, fed: &FedDataset, kept: Pending, wall_ms: u64, others: bool) -> u64 {
        let mut left_out = 0;
        for update in kept.into_updates() {
            if let Err(error) = fed.apply(&update, wall_ms) {
                left_out += u64::from(others || matches!(error, ApplyError::Full { .. }));
                self.refuse(error.to_string());
            }
        }
        left_out
    }

    /// How new the dataset is that updates go into.
    #[must_use]
    pub fn as_of(&self) -> Option<AsOf> {
        self.lock().live.as_ref().map(|live| live.as_of())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let state = self.state.lock().expect(POISONED);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        state
    }

    /// A lock that is let go of and taken again at once would go to the same thread again and again.
    fn let_others_in(&self) {
        for _ in 0..STEPS_ASIDE_MAX {
            if self.waiting.load(Ordering::SeqCst) == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// About a million rows.
const PENDING_BYTES_MAX: usize = 512 << 20;
const ROUNDS_MAX: u32 = 5;
/// Of one message, before others are let in.
const ROWS_AT_ONCE: usize = 256;
const STEPS_ASIDE_MAX: u32 = 100;
const POISONED: &str = "whoever panics with it ends the process";

#[cfg(test)]
mod tests {
    use super::*;
    use hotpair_core::services::dataset::{Column, ColumnKind, KeyError, Row, Value};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// These columns, so many of them the key, and no rows.
    #[derive(Debug)]
    struct Empty(Vec<Column>, usize);

    impl Dataset for Empty {
        fn columns(&self) -> &[Column] {
            &self.0
        }

        fn key_columns(&self) -> &[Column] {
            &self.0[..self.1]
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
        Arc::new(Empty(columns.map(|(n, kind)| Column { name: n.to_owned(), kind }).to_vec(), 1))
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
        let last = intake.refused_last().unwrap();
        assert_eq!(last, "column `a` is integer, text was given");
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

    /// The same columns with a text for the second half of the key, and a day.
    fn empty_of_two() -> Arc<dyn Dataset> {
        let columns = [("k", ColumnKind::Text), ("l", ColumnKind::Text), ("d", ColumnKind::Date)];
        Arc::new(Empty(columns.map(|(n, kind)| Column { name: n.to_owned(), kind }).to_vec(), 2))
    }

    #[test]
    fn what_is_refused_takes_nothing_else_of_its_row_with_it() {
        let intake = Intake::new(vec!["k".to_owned()]);
        intake.keep_beside();
        for line in [
            r#"{"k":1,"a":5,"version":1}"#,
            r#"{"k":1,"a":"text","b":"no","version":2}"#,
            r#"{"k":1,"b":"x","version":3}"#,
            r#"{"k":2,"a":7,"version":1}"#,
            r#"{"k":2,"colour":1,"deleted":true,"version":2}"#,
            r#"{"k":3,"a":1.5,"version":1000}"#,
            r#"{"k":3,"a":8,"version":4}"#,
            r#"{"k":3,"a":9,"version":5}"#,
        ] {
            intake.take(line.as_bytes(), 1);
        }
        let (fed, left_out) = intake.replay(empty(), 7, 0).unwrap();
        assert_eq!(left_out, 0);
        let text = Value::Text("x".to_owned());
        assert_eq!(row(&fed, 1).unwrap(), [Value::Integer(1), Value::Integer(5), text]);
        assert_eq!(row(&fed, 2).unwrap()[1], Value::Integer(7));
        assert_eq!(row(&fed, 3).unwrap()[1], Value::Integer(9));
        assert_eq!(intake.totals().refused, 3);
    }

    #[test]
    fn a_day_that_is_none_takes_no_other_day_with_it() {
        let intake = Intake::new(vec!["k".to_owned(), "l".to_owned()]);
        intake.keep_beside();
        intake.take(br#"{"k":"a","l":"b","d":"1990-01-02","version":1}"#, 1);
        intake.take(br#"{"k":"a","l":"b","d":"yesterday!","version":2}"#, 1);
        let (fed, _) = intake.replay(empty_of_two(), 7, 0).unwrap();
        let key = ["a", "b"].map(|text| Value::Text(text.to_owned()));
        assert_eq!(fed.lookup(&key).unwrap().unwrap()[2], Value::Date(7_306));
    }

    #[test]
    fn rows_whose_keys_read_alike_in_a_row_are_not_the_same() {
        let intake = Intake::new(vec!["k".to_owned(), "l".to_owned()]);
        intake.keep_beside();
        intake.take(br#"{"k":"a\u0000b","l":"c","version":1}"#, 1);
        intake.take(br#"{"k":"a","l":"b\u0000c","version":2}"#, 1);
        let (fed, _) = intake.replay(empty_of_two(), 7, 0).unwrap();
        assert_eq!(fed.rows(), 2);
    }

    #[test]
    fn what_a_known_row_grows_by_is_counted() {
        for live in [false, true] {
            let mut intake = Intake::new(vec!["k".to_owned()]);
            intake.bytes_max = 10_000;
            if live {
                let _live = intake.replay(empty(), 0, 0).unwrap();
            }
            intake.keep_beside();
            for version in 1..100 {
                let text = "x".repeat(version * 200);
                let line = format!("{{\"k\":1,\"b\":\"{text}\",\"version\":{version}}}");
                intake.take(line.as_bytes(), 1);
            }
            let (fed, left_out) = intake.replay(empty(), 0, 0).unwrap();
            let Value::Text(kept) = &row(&fed, 1).unwrap()[2] else { panic!("no text") };
            assert!(left_out > 50 && (5_000..10_000).contains(&kept.len()), "{left_out}");
        }
    }

    #[test]
    fn columns_that_are_not_known_make_no_row_large() {
        let intake = Intake::new(vec!["k".to_owned()]);
        intake.keep_beside();
        for version in 1..=1_000 {
            let line = format!("{{\"k\":1,\"c{version}\":1,\"version\":{version}}}");
            intake.take(line.as_bytes(), 1);
        }
        let (_fed, left_out) = intake.replay(empty(), 0, 0).unwrap();
        assert!(left_out > 900, "{left_out}");
    }

    /// Stops whoever looks something up first, until it is told to go on.
    #[derive(Debug)]
    struct Stopping {
        empty: Empty,
        reached: Mutex<Option<Sender<()>>>,
        go_on: Mutex<Receiver<()>>,
    }

    impl Dataset for Stopping {
        fn columns(&self) -> &[Column] {
            self.empty.columns()
        }

        fn key_columns(&self) -> &[Column] {
            self.empty.key_columns()
        }

        fn rows(&self) -> u64 {
            0
        }

        fn lookup(&self, _: &[Value]) -> Result<Option<Row>, KeyError> {
            if let Some(reached) = self.reached.lock().unwrap().take() {
                reached.send(()).unwrap();
                self.go_on.lock().unwrap().recv().unwrap();
            }
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

    #[test]
    fn nobody_waits_for_a_whole_message_and_whoever_counts_for_nothing() {
        let ((reached, reaching), (go_on, going_on)) = (channel(), channel());
        let columns = empty().columns().to_vec();
        let stopping = Stopping {
            empty: Empty(columns, 1),
            reached: Mutex::new(Some(reached)),
            go_on: Mutex::new(going_on),
        };
        let intake = Intake::new(vec!["k".to_owned()]);
        let _live = intake.replay(Arc::new(stopping), 0, 0).unwrap();
        let rows: Vec<String> =
            (0..10_000).map(|k| format!("{{\"k\":{k},\"a\":1,\"version\":{}}}", k + 1)).collect();
        let message = format!("[{}]", rows.join(","));
        thread::scope(|threads| {
            let taking = threads.spawn(|| intake.take(message.as_bytes(), 1));
            reaching.recv().unwrap();
            // In the middle of its first row, with everything locked.
            assert_eq!(intake.totals().applied, 0);
            let other = threads.spawn(|| {
                let _state = intake.lock();
                intake.totals().applied
            });
            while intake.waiting.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            go_on.send(()).unwrap();
            assert_eq!(other.join().unwrap(), ROWS_AT_ONCE as u64);
            assert_eq!(taking.join().unwrap(), Some(FeedEvent::Heard));
        });
        assert_eq!(intake.totals().applied, 10_000);
    }

    /// Whatever is kept beside comes to the same as if it had been brought in one by one.
    #[test]
    fn what_is_merged_is_what_each_would_have_done() {
        let mut seed = 11_u64;
        let mut dice = |sides: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % sides
        };
        for round in 0..4_000 {
            let intake = Intake::new(vec!["k".to_owned()]);
            if round % 2 == 0 {
                let _live = intake.replay(empty(), 0, 0).unwrap();
            }
            intake.keep_beside();
            let one_by_one = FedDataset::new(empty(), 0);
            let mut said = vec![];
            for number in 0..12 {
                let (key, value) = (dice(2), dice(100));
                let version = if dice(5) == 0 { dice(20) + 1 } else { number + 5 };
                let what = [
                    format!("\"a\":{value}"),
                    format!("\"b\":\"{value}\""),
                    format!("\"b\":\"x\",\"a\":{value}"),
                    format!("\"a\":\"{value}\""),
                    format!("\"a\":{value},\"colour\":1"),
                    "\"a\":null".to_owned(),
                    "\"deleted\":true".to_owned(),
                    "\"colour\":1,\"deleted\":true".to_owned(),
                ];
                let what = &what[usize::try_from(dice(8)).unwrap()];
                let line = format!("{{\"k\":{key},{what},\"version\":{version}}}");
                intake.take(line.as_bytes(), 1);
                let _refused = one_by_one.apply(&updates(line.as_bytes()).unwrap()[0], 1);
                said.push(line);
            }
            let (fed, left_out) = intake.replay(empty(), 0, 0).unwrap();
            assert_eq!(left_out, 0);
            for key in 0..2 {
                assert_eq!(row(&fed, key), row(&one_by_one, key), "row {key} of {said:#?}");
            }
        }
    }

    #[test]
    fn what_the_present_columns_refuse_is_refused_once_unless_the_next_ones_are_others() {
        for others in [false, true] {
            let intake = Intake::new(vec!["k".to_owned()]);
            let _live = intake.replay(empty(), 0, 0).unwrap();
            intake.keep_beside();
            intake.take(br#"{"k":1,"a":5,"version":1}"#, 1);
            intake.take(br#"{"k":1,"c":5,"version":2}"#, 1);
            intake.take(br#"{"k":1,"b":"x","version":3}"#, 1);
            let mut columns = empty().columns().to_vec();
            if others {
                columns.push(Column { name: "c".to_owned(), kind: ColumnKind::Integer });
            }
            let (fed, left_out) = intake.replay(Arc::new(Empty(columns, 1)), 0, 0).unwrap();
            assert_eq!((left_out, intake.totals().refused), (u64::from(others), 1));
            let (five, text) = (Value::Integer(5), Value::Text("x".to_owned()));
            assert_eq!(row(&fed, 1).unwrap()[..3], [Value::Integer(1), five, text]);
        }
    }

    #[test]
    fn what_finds_no_room_over_what_was_loaded_is_missing_until_it_is_loaded_anew() {
        let intake = Intake::new(vec!["k".to_owned()]);
        let full = FedDataset::with_room(empty(), 0, 1, u64::MAX);
        intake.lock().live = Some(Arc::new(full));
        assert_eq!(intake.take(br#"{"k":1,"version":1}"#, 1), Some(FeedEvent::Heard));
        let missed = intake.take(br#"{"k":2,"version":2}"#, 1);
        let Some(FeedEvent::Missed { reason }) = missed else { panic!("{missed:?}") };
        assert!(reason.contains("1 rows"), "{reason}");
        // What is being loaded has room for it.
        intake.keep_beside();
        assert_eq!(intake.take(br#"{"k":3,"version":3}"#, 1), None);
        let (fed, left_out) = intake.replay(empty(), 0, 0).unwrap();
        assert_eq!((row(&fed, 3).is_some(), left_out), (true, 0));
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
