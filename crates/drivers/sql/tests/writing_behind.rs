//! The thread with a real SQLite file and a log that is made here: what it reads, and from where.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use hotpair_core::pair::identity::Epoch;
use hotpair_core::pair::moment::Moment;
use hotpair_core::tables::behind::Told;
use hotpair_core::tables::position::{EpochStart, History};
use hotpair_core::tables::record::{Body, Change, Record, encode};
use hotpair_core::tables::store::Store;
use hotpair_sql::{ColumnKind, Log, LogFault, Mapping, Parts, Shown, Target, start};
use tokio::sync::watch;

fn clock() -> Moment {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = BEGAN.get_or_init(Instant::now);
    Moment(u64::try_from(began.elapsed().as_millis()).unwrap())
}

/// Records from 1 on; those before `oldest` are gone.
#[derive(Default)]
struct Kept {
    records: Vec<Record>,
    oldest: u64,
    reads: Vec<u64>,
}

#[derive(Clone, Default)]
struct InMemory(Arc<Mutex<Kept>>);

impl Log for InMemory {
    fn read(&mut self, after: u64, up_to: u64) -> Result<Vec<u8>, LogFault> {
        let mut kept = self.0.lock().unwrap();
        kept.reads.push(after);
        if after + 1 < kept.oldest || after >= kept.records.len() as u64 {
            return Err(LogFault::Gone);
        }
        let mut bytes = Vec::new();
        // A few at a time, as files come in blocks.
        let range = after..up_to.min(after + 3).min(kept.records.len() as u64);
        for number in range {
            encode(&kept.records[usize::try_from(number).unwrap()], &mut bytes);
        }
        Ok(bytes)
    }

    fn forget(&mut self) {}
}

struct Lab {
    log: InMemory,
    head: Arc<AtomicU64>,
    store: Arc<RwLock<Store>>,
    told: watch::Sender<Arc<Told>>,
    shown: Arc<Shown>,
    alerts: Arc<Mutex<Vec<Option<String>>>>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new(mappings: Vec<Mapping>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store.db");
        let target: Target = format!("sqlite://{}", file.display()).parse().unwrap();
        let (told, receiver) = watch::channel(Arc::default());
        let shown = Arc::new(Shown::new(&target));
        let (log, store) = (InMemory::default(), Arc::new(RwLock::new(Store::default())));
        let head = Arc::new(AtomicU64::new(0));
        let alerts: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let heard = alerts.clone();
        start(Parts {
            target,
            mappings,
            pair: "trade".to_owned(),
            node: "a".to_owned(),
            instance: "i".to_owned(),
            told: receiver,
            store: store.clone(),
            log: Box::new(log.clone()),
            head: head.clone(),
            shown: shown.clone(),
            tell: Box::new(move |what| {
                heard.lock().unwrap().push(what);
                true
            }),
            clock,
            probe: Arc::new(|_| {}),
        })
        .unwrap();
        let lab = Self { log, head, store, told, shown, alerts, file, _folder: folder };
        lab.append(Body::EpochStart { life: 7 });
        lab.say(0, 1);
        lab
    }

    fn say(&self, generation: u64, oldest: u64) {
        self.log.0.lock().unwrap().oldest = oldest;
        let start = EpochStart { epoch: Epoch(1), life: 7, first: 1 };
        self.told.send_replace(Arc::new(Told {
            owner: Some("c".to_owned()),
            mastership: None,
            whole: true,
            generation,
            oldest,
            history: History::new(vec![start], 1),
        }));
    }

    /// As a master does it.
    fn append(&self, body: Body) {
        let record = self.next(body);
        self.write(record.clone());
        self.store.write().unwrap().apply(&record);
    }

    fn next(&self, body: Body) -> Record {
        let number = self.log.0.lock().unwrap().records.len() as u64 + 1;
        Record { epoch: Epoch(1), number, body }
    }

    fn write(&self, record: Record) {
        let number = record.number;
        self.log.0.lock().unwrap().records.push(record);
        self.head.store(number, Ordering::Release);
    }

    /// The beginning of what a standby does: seen by readers, and not yet in the log.
    fn apply_put(&self, table: &str, key: &str, value: &str) -> Record {
        let record = self.next(put(table, key, value));
        self.store.write().unwrap().apply(&record);
        record
    }

    /// Waits until the thread has gone round with what there is.
    fn turns(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        for _ in 0..3 {
            let before = self.shown.figures();
            while Arc::ptr_eq(&before, &self.shown.figures()) {
                assert!(Instant::now() < until, "{before:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn put(&self, table: &str, key: &str, value: &str) {
        self.append(put(table, key, value));
    }

    fn delete(&self, table: &str, key: &str) {
        let change = Change::Delete { table: table.into(), key: key.as_bytes().into() };
        self.append(Body::Changes { numbered: None, changes: vec![change], reply: None });
    }

    /// Waits until the file has everything; its rows.
    fn current(&self) -> BTreeMap<String, String> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let (figures, head) = (self.shown.figures(), self.store.read().unwrap().applied());
            if figures.state == "current" && figures.mark == Some((1, head)) {
                break;
            }
            assert!(Instant::now() < until, "{figures:?}, {head}");
            std::thread::sleep(Duration::from_millis(5));
        }
        rows(&self.file, "SELECT CAST(key AS TEXT), CAST(value AS TEXT) FROM hotpair_rows")
    }
}

fn put(table: &str, key: &str, value: &str) -> Body {
    let bytes = |text: &str| text.as_bytes().into();
    let change = Change::Put { table: table.into(), key: bytes(key), value: bytes(value) };
    Body::Changes { numbered: None, changes: vec![change], reply: None }
}

/// What nobody told the thread of: gone with the first copy.
const STRAY: &str =
    "INSERT INTO hotpair_rows VALUES ('t', CAST('stray' AS BLOB), CAST('x' AS BLOB), 1)";

fn rows(file: &Path, select: &str) -> BTreeMap<String, String> {
    let connection = rusqlite::Connection::open(file).unwrap();
    let mut statement = connection.prepare(select).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn orders() -> Mapping {
    Mapping {
        table: "orders".to_owned(),
        sql: "orders".to_owned(),
        key: "id".to_owned(),
        value: None,
        columns: BTreeMap::from([("amount".to_owned(), ColumnKind::Integer)]),
    }
}

fn texts(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_copy_first_and_then_the_log_in_order() {
    let lab = Lab::new(Vec::new());
    for number in 0..10 {
        lab.put("t", &format!("k{number}"), "1");
    }
    assert_eq!(lab.current().len(), 10);
    lab.put("t", "k0", "2");
    lab.delete("t", "k1");
    lab.put("hotpair.sessions", "secret", "secret");
    let rows = lab.current();
    assert_eq!((rows.len(), rows["k0"].as_str(), rows.get("k1")), (9, "2", None));
    let reads = lab.log.0.lock().unwrap().reads.clone();
    assert!(reads.iter().all(|after| *after >= 1), "what a copy has is not read again: {reads:?}");
}

#[test]
fn a_log_that_is_gone_and_a_log_that_was_replaced_lead_to_a_copy() {
    let lab = Lab::new(Vec::new());
    lab.put("t", "old", "1");
    assert_eq!(lab.current(), texts(&[("old", "1")]));
    let other = rusqlite::Connection::open(&lab.file).unwrap();
    other.execute_batch(STRAY).unwrap();
    lab.log.0.lock().unwrap().oldest = 4;
    lab.put("t", "new", "2");
    assert_eq!(lab.current(), texts(&[("old", "1"), ("new", "2")]));

    other.execute_batch(STRAY).unwrap();
    lab.say(1, 1);
    lab.put("t", "newer", "3");
    let until = Instant::now() + Duration::from_secs(60);
    while lab.current().contains_key("stray") {
        assert!(Instant::now() < until, "no copy was made");
    }
    assert_eq!(lab.current().len(), 3);
    assert_eq!(lab.shown.needs(), 5, "the next one");
}

#[test]
fn a_store_that_is_ahead_of_its_log_is_no_reason_for_a_copy() {
    let lab = Lab::new(Vec::new());
    lab.put("t", "a", "0");
    lab.current();
    rusqlite::Connection::open(&lab.file).unwrap().execute_batch(STRAY).unwrap();
    for number in 1..=5 {
        let record = lab.apply_put("t", "a", &number.to_string());
        lab.turns();
        lab.write(record);
    }
    assert_eq!(lab.current(), texts(&[("a", "5"), ("stray", "x")]), "nothing was copied");
}

#[test]
fn a_copy_of_a_store_that_is_ahead_ends_where_the_log_has_all_of_it() {
    let lab = Lab::new(Vec::new());
    lab.put("t", "a", "1");
    lab.current();
    let record = lab.apply_put("t", "b", "2");
    lab.say(1, 1);
    let until = Instant::now() + Duration::from_secs(60);
    while lab.shown.figures().state != "copying" {
        assert!(Instant::now() < until, "{:?}", lab.shown.figures());
        std::thread::sleep(Duration::from_millis(1));
    }
    lab.turns();
    let all = "SELECT CAST(key AS TEXT), CAST(value AS TEXT) FROM hotpair_rows";
    assert_eq!(rows(&lab.file, all), texts(&[("a", "1")]), "b is of no record yet");
    lab.write(record);
    assert_eq!(lab.current(), texts(&[("a", "1"), ("b", "2")]));
}

#[test]
fn a_row_that_a_constraint_refuses_is_put_aside_and_the_rest_goes_on() {
    let lab = Lab::new(vec![orders()]);
    lab.put("orders", "1", r#"{"amount":1}"#);
    lab.current();
    let other = rusqlite::Connection::open(&lab.file).unwrap();
    let own = "CREATE TRIGGER mine BEFORE INSERT ON orders WHEN new.amount < 0 \
               BEGIN SELECT RAISE(ABORT, 'no debts'); END";
    other.execute_batch(own).unwrap();
    lab.put("orders", "1", r#"{"amount":-1}"#);
    lab.put("orders", "2", r#"{"amount":2}"#);
    lab.current();
    let amounts = "SELECT id, CAST(amount AS TEXT) FROM orders";
    assert_eq!(rows(&lab.file, amounts), texts(&[("2", "2")]));
    let aside = "SELECT CAST(key AS TEXT), reason FROM hotpair_quarantine";
    let found = rows(&lab.file, aside);
    assert!(found["1"].contains("no debts"), "{found:?}");
    lab.put("orders", "1", r#"{"amount":3}"#);
    lab.current();
    assert_eq!(rows(&lab.file, amounts), texts(&[("1", "3"), ("2", "2")]));
    assert_eq!(rows(&lab.file, aside), BTreeMap::new());
}

#[test]
fn a_misfit_is_told_and_mended_and_nothing_else_waits_for_it() {
    let lab = Lab::new(vec![orders()]);
    lab.put("orders", "1", r#"{"amount":1}"#);
    lab.current();
    lab.put("orders", "1", r#"{"amount":"x"}"#);
    lab.put("orders", "2", r#"{"amount":2}"#);
    lab.current();
    let orders = "SELECT id, CAST(amount AS TEXT) FROM orders";
    assert_eq!(rows(&lab.file, orders), texts(&[("2", "2")]));
    let aside = "SELECT CAST(key AS TEXT), reason FROM hotpair_quarantine";
    assert!(rows(&lab.file, aside)["1"].starts_with("amount: text"));
    assert_eq!(lab.shown.figures().quarantined, 1);
    lab.delete("orders", "1");
    lab.current();
    assert_eq!(rows(&lab.file, aside), BTreeMap::new());
    let until = Instant::now() + Duration::from_secs(60);
    while lab.alerts.lock().unwrap().last() != Some(&None) {
        assert!(Instant::now() < until, "{:?}", lab.alerts.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    let alerts = lab.alerts.lock().unwrap();
    assert!(alerts.iter().flatten().any(|text| text.contains("hotpair_quarantine")), "{alerts:?}");
}
