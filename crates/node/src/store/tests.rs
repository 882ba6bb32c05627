//! The thread with a real PostgreSQL and a log that is made here: rows that no client may write, but a
//! log may have, and rows that somebody's constraints refuse.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::position::{EpochStart, History};
use hotpair_core::tables::record::{Body, Change, Record, encode};
use hotpair_lab::postgres::Postgres;
use hotpair_lab::wait::eventually;
use hotpair_sql::ColumnKind;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// All records, from 1.
#[derive(Clone, Default)]
struct InMemory(Arc<Mutex<Vec<Record>>>);

impl InMemory {
    fn records(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for InMemory {
    fn read(&mut self, after: u64, up_to: u64) -> Result<Vec<u8>, LogFault> {
        let mut bytes = Vec::new();
        let records = self.records();
        for record in records.iter().filter(|record| (after + 1..=up_to).contains(&record.number)) {
            encode(record, &mut bytes);
        }
        Ok(bytes)
    }

    fn forget(&mut self) {}
}

/// A master of one epoch, and its database.
struct Lab {
    server: Postgres,
    log: InMemory,
    store: Arc<RwLock<Store>>,
    head: Arc<AtomicU64>,
    shown: Arc<Shown>,
    _told: watch::Sender<Arc<Told>>,
}

impl Lab {
    fn new(mappings: Vec<Mapping>) -> Self {
        let server = Postgres::start().unwrap();
        let target: Target = server.url().parse().unwrap();
        let history = vec![EpochStart { epoch: Epoch(1), life: 7, first: 1 }];
        let (told, receiver) = watch::channel(Arc::new(Told {
            owner: Some("c".to_owned()),
            mastership: Some(Epoch(1)),
            whole: true,
            generation: 0,
            oldest: 1,
            history: History::new(history, 1),
        }));
        let shown = Arc::new(Shown::new(&target));
        let (log, store) = (InMemory::default(), Arc::new(RwLock::new(Store::default())));
        let head = Arc::new(AtomicU64::new(0));
        hotpair_sql::start(Parts {
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
            tell: Box::new(|_| true),
            clock: boot_clock::now,
            probe: Arc::new(|_| {}),
        })
        .unwrap();
        let lab = Self { server, log, store, head, shown, _told: told };
        lab.append(Body::EpochStart { life: 7 });
        lab
    }

    fn append(&self, body: Body) {
        let mut records = self.log.records();
        let number = records.len() as u64 + 1;
        let record = Record { epoch: Epoch(1), number, body };
        records.push(record.clone());
        drop(records);
        self.store.write().unwrap().apply(&record);
        self.head.store(number, Ordering::Release);
    }

    /// All of them in one record; no value: it is deleted.
    fn change(&self, table: &str, rows: &[(&str, Option<&str>)]) {
        let bytes = |text: &str| text.as_bytes().into();
        let changes = rows.iter().map(|(key, value)| match value {
            Some(value) => {
                Change::Put { table: table.into(), key: bytes(key), value: bytes(value) }
            }
            None => Change::Delete { table: table.into(), key: bytes(key) },
        });
        self.append(Body::Changes { numbered: None, changes: changes.collect(), reply: None });
    }

    fn put(&self, table: &str, key: &str, value: &str) {
        self.change(table, &[(key, Some(value))]);
    }

    /// Waits until the database has everything; what it answers then.
    fn current(&self, select: &str) -> String {
        let head = self.head.load(Ordering::Acquire);
        eventually(LIMIT, "the database has everything", || {
            let figures = self.shown.figures();
            anyhow::ensure!(figures.mark == Some((1, head)), "{figures:?}, {head}");
            anyhow::ensure!(figures.error.is_none(), "{figures:?}");
            Ok(())
        })
        .unwrap();
        self.server.ask(select).unwrap()
    }

    /// Waits until everything was copied anew.
    fn copy(&self) {
        let stray = "INSERT INTO hotpair_rows VALUES ('stray', '', '', 1); \
                     UPDATE hotpair_store SET number = 0";
        self.server.ask(stray).unwrap();
        self.put("plain", "again", "1");
        eventually(LIMIT, "a copy is made", || {
            let left = self.server.ask("SELECT count(*) FROM hotpair_rows WHERE name = 'stray'")?;
            anyhow::ensure!(left == "0", "{left}");
            Ok(())
        })
        .unwrap();
    }
}

const ASIDE: &str = "SELECT name, convert_from(key, 'UTF8') FROM hotpair_quarantine ORDER BY 1, 2";

#[test]
fn a_table_whose_name_no_sql_text_can_hold_is_put_aside_and_the_rest_goes_on() {
    let lab = Lab::new(Vec::new());
    lab.put("plain", "k", "1");
    assert_eq!(lab.current(ASIDE), "");
    lab.put("a\0b", "k", "1");
    lab.put("plain", "k", "2");
    assert_eq!(lab.current(ASIDE), "\"a\\0b\"\tk");
    let rows = "SELECT name, convert_from(value, 'UTF8') FROM hotpair_rows ORDER BY key";
    assert_eq!(lab.current(rows), "plain\t2");
    assert_eq!(lab.shown.figures().quarantined, 1);
    lab.copy();
    assert_eq!(lab.current(ASIDE), "\"a\\0b\"\tk");
    lab.change("a\0b", &[("k", None)]);
    assert_eq!(lab.current(ASIDE), "");
    assert_eq!(lab.shown.figures().quarantined, 0);
}

#[test]
fn a_row_that_the_database_refuses_is_found_among_many_and_put_aside() {
    let columns = [
        ("amount", ColumnKind::Integer),
        ("account", ColumnKind::Text),
        ("tags", ColumnKind::Json),
    ];
    let lab = Lab::new(vec![Mapping {
        table: "orders".to_owned(),
        sql: "orders".to_owned(),
        key: "id".to_owned(),
        value: None,
        columns: columns.map(|(name, kind)| (name.to_owned(), kind)).into(),
    }]);
    lab.put("orders", "r0007", r#"{"amount":7}"#);
    lab.current("SELECT 1");
    lab.server
        .ask(
            "ALTER TABLE orders ADD CHECK (amount >= 0);
             ALTER TABLE orders ALTER account TYPE varchar(8);
             CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN IF new.amount = 13 THEN RAISE ''no such luck''; END IF; RETURN new; END';
             CREATE TRIGGER odd BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION odd()",
        )
        .unwrap();
    let good: BTreeMap<String, String> =
        (0..1_000).map(|n| (format!("r{n:04}"), format!("{{\"amount\":{}}}", 2 * n))).collect();
    let bad = [
        ("r0007", r#"{"amount":-1}"#, "orders_amount_check"),
        ("r0100", r#"{"account":"longer than 8"}"#, "too long"),
        ("r0500", r#"{"amount":13}"#, "no such luck"),
        ("r0501", r#"{"tags":[1e-200000]}"#, "22003"),
    ];
    let mut rows = good.clone();
    rows.extend(bad.map(|(key, value, _)| (key.to_owned(), value.to_owned())));
    let changes: Vec<(&str, Option<&str>)> =
        rows.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
    lab.change("orders", &changes);
    lab.put("plain", "k", "1");
    let found = "SELECT count(*), sum(amount), (SELECT count(*) FROM hotpair_rows) FROM orders";
    let wanted = format!("996\t{}\t1", 2 * ((0..1_000).sum::<u32>() - 7 - 100 - 500 - 501));
    let reasons = "SELECT convert_from(key, 'UTF8'), reason FROM hotpair_quarantine ORDER BY 1";
    let put_aside = || {
        let told = lab.current(reasons);
        assert_eq!(told.lines().count(), bad.len(), "{told}");
        for (line, (key, _, why)) in told.lines().zip(bad) {
            assert!(line.starts_with(key) && line.contains(why), "{line}: {why}");
        }
    };
    assert_eq!(lab.current(found), wanted, "neither the refused ones nor what they were before");
    put_aside();

    lab.copy();
    put_aside();
    let versions = "SELECT count(DISTINCT hotpair_version), count(*) FROM orders";
    assert_eq!(lab.current(versions), "1\t996");
    for (key, ..) in bad {
        lab.put("orders", key, &good[key]);
    }
    assert_eq!(lab.current(ASIDE), "");
    assert_eq!(lab.current("SELECT count(*) FROM orders"), "1000");
}
