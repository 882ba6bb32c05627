mod asynchronous;
mod figures;
mod library;
mod numbers;
mod sessions;
mod sidecars;
mod tables;
mod writer_thread;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, RwLock};

use hotpair_core::pair::Moment;
use hotpair_core::services::dataset::{
    Availability, Column, ColumnKind, Dataset, KeyError, Row as DatasetRow, Value, check_key,
};
use hotpair_core::tables::USERS;
use hotpair_core::tables::store::Store;
use hotpair_core::tables::table::Row;
use hotpair_http::{Connection, Counters, Limits, bind, client, serve};
use serde_json::Value as Json;
use tokio::time::{sleep, timeout};

use self::writer_thread::WriterThread;
use super::*;
use crate::catalogue::Registered;
use crate::datasets::Found;
use crate::gate::{GateKeeper, boot_time_ns};
use crate::passwords;
use crate::sessions::SessionSettings;

const LONG: Duration = Duration::from_secs(20);

/// Three rows, key (account, day).
#[derive(Debug)]
struct Positions {
    columns: Vec<Column>,
    rows: BTreeMap<Vec<Value>, DatasetRow>,
}

fn positions() -> Positions {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    let columns = vec![
        column("account", ColumnKind::Integer),
        column("day", ColumnKind::Date),
        column("amount", ColumnKind::Float),
    ];
    let rows = [(1, 0, 1.5), (1, 1, 2.5), (2, 0, -3.0)].map(|(account, day, amount)| {
        let key = vec![Value::Integer(account), Value::Date(day)];
        let row = vec![Value::Integer(account), Value::Date(day), Value::Float(amount)];
        (key, row)
    });
    Positions { columns, rows: rows.into() }
}

impl Dataset for Positions {
    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn key_columns(&self) -> &[Column] {
        &self.columns[..2]
    }

    fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    fn lookup(&self, key: &[Value]) -> Result<Option<DatasetRow>, KeyError> {
        check_key(self.key_columns(), key, false)?;
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, from: &[Value], limit: usize) -> Result<Vec<DatasetRow>, KeyError> {
        check_key(self.key_columns(), from, true)?;
        Ok(self.rows.range(from.to_vec()..).take(limit).map(|(_, row)| row.clone()).collect())
    }

    fn checksum(&self) -> u64 {
        0
    }

    fn memory_bytes(&self) -> u64 {
        77
    }
}

/// One dataset named `positions`, in a state that tests choose.
#[derive(Debug)]
struct OneDataset(Mutex<Found>);

impl Datasets for OneDataset {
    fn find(&self, name: &str) -> Option<Found> {
        (name == "positions").then(|| self.0.lock().unwrap().clone())
    }
}

struct Served {
    address: SocketAddr,
    keeper: GateKeeper,
    datasets: Arc<OneDataset>,
    whereabouts: Arc<ArcSwap<Whereabouts>>,
    meters: Arc<Meters>,
    tables: Tables,
    writer: WriterThread,
    sessions: Arc<Sessions>,
    service: Arc<ClientService>,
}

/// How a service under test differs from the usual one.
struct Wanted {
    settings: ClientSettings,
    library: Vec<Registered>,
    /// Names and passwords.
    users: Vec<(&'static str, &'static str)>,
    queue: usize,
    clock: fn() -> Moment,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            settings: ClientSettings::default(),
            library: Vec::new(),
            users: Vec::new(),
            queue: 4096,
            clock: || Moment(boot_time_ns() / 1_000_000),
        }
    }
}

fn in_an_hour() -> Moment {
    Moment(boot_time_ns() / 1_000_000 + 3_600_000)
}

/// A service whose gate is open for epoch 7.
fn serving() -> Served {
    serving_as(Wanted::default())
}

fn serving_as(wanted: Wanted) -> Served {
    let mut served = closed_as(wanted);
    served.keeper.open(Epoch(7), in_an_hour());
    served
}

fn closed(settings: ClientSettings) -> Served {
    closed_as(Wanted { settings, ..Wanted::default() })
}

fn closed_as(wanted: Wanted) -> Served {
    let keeper = GateKeeper::new(None);
    let datasets = Arc::new(OneDataset(Mutex::new(Found::Ready(Arc::new(positions())))));
    let whereabouts = Arc::<ArcSwap<Whereabouts>>::default();
    let meters = Arc::<Meters>::default();
    let mut store = Store::default();
    for (name, password) in wanted.users {
        let value = passwords::hash(password).unwrap().into_bytes().into();
        store.put(&USERS.into(), &name.as_bytes().into(), Row { value, version: 1 });
    }
    let store = Arc::new(RwLock::new(store));
    let (tables, queue) = Tables::new(Arc::clone(&store), wanted.queue);
    let writer = WriterThread::start(store, queue);
    let settings = SessionSettings::default();
    let sessions = Arc::new(Sessions::with_clock(tables.clone(), settings, wanted.clock));
    let service = Arc::new(ClientService::new(ClientParts {
        gate: keeper.gate(),
        catalogue: Arc::new(Catalogue::with_library(wanted.library).unwrap()),
        datasets: Arc::clone(&datasets) as Arc<dyn Datasets>,
        whereabouts: Arc::clone(&whereabouts),
        meters: Arc::clone(&meters),
        tables: tables.clone(),
        sessions: Arc::clone(&sessions),
        passwords: Passwords::start().unwrap(),
        settings: wanted.settings,
        reached: |_| {},
        planted: PlantedInTables::NONE,
    }));
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (limits, handler) = (Limits::client(), Arc::clone(&service));
    tokio::spawn(serve(listener, limits, handler, Arc::<Counters>::default()));
    Served { address, keeper, datasets, whereabouts, meters, tables, writer, sessions, service }
}

impl Served {
    async fn post(&self, path: &str, body: impl Into<hotpair_http::Bytes>) -> Envelope {
        let url = format!("http://{}{path}", self.address);
        let answer = client::post_json(&url, &[], body, LONG).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn call(&self, body: Json) -> Envelope {
        self.post("/v1/call", body.to_string()).await
    }

    async fn function(&self, number: u32, arguments: Json) -> Envelope {
        self.call(json!({"function": number, "arguments": arguments})).await
    }

    async fn get(&self, path: &str) -> Envelope {
        let answer = client::get(&format!("http://{}{path}", self.address), LONG).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn until_inside(&self, inside: u64) {
        let gate = self.keeper.gate();
        let wait = async {
            while gate.in_flight() != inside {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never were {inside} inside"));
    }

    /// A call that runs on while the test does other things.
    fn calling(&self, body: &Json) -> tokio::task::JoinHandle<Envelope> {
        let (url, body) = (format!("http://{}/v1/call", self.address), body.to_string());
        tokio::spawn(async move {
            let answer = client::post_json(&url, &[], body, LONG).await.unwrap();
            serde_json::from_slice(&answer.body).unwrap()
        })
    }

    /// A session that nobody had to log in for.
    async fn session(&self) -> String {
        self.sessions.create(Epoch(7), "ann", None).await.unwrap()
    }

    /// A call of `sleep` that runs on while the test does other things.
    fn sleeping(&self, ms: u64) -> tokio::task::JoinHandle<Envelope> {
        self.calling(&json!({"function": 1902, "arguments": {"ms": ms}}))
    }
}

#[tokio::test]
async fn a_function_is_called_by_number_and_by_name() {
    let served = serving();
    let by_number = served.function(1901, json!({"a": [1, 2.5, null]})).await;
    assert_eq!(by_number, Envelope::done(7, json!({"a": [1, 2.5, null]})));
    let by_name = json!({"gsv": "hotpair/test/1.0", "name": "echo", "arguments": "x"});
    assert_eq!(served.call(by_name).await, Envelope::done(7, json!("x")));
    let slept = served.function(1902, json!({"ms": 1})).await;
    assert_eq!(slept, Envelope::done(7, json!({})));
}

#[tokio::test]
async fn a_request_meant_for_another_epoch_is_refused_unexecuted() {
    let served = serving();
    let url = format!("http://{}/v1/call", served.address);
    let put =
        json!({"function": 1006, "arguments": {"table": "t", "key": "k", "by": 1}}).to_string();
    for (epoch, wanted) in [
        ("6", ErrorNumber::NotServing),
        ("8", ErrorNumber::NotServing),
        ("seven", ErrorNumber::Malformed),
        ("7", ErrorNumber::Done),
    ] {
        let headers = [("hotpair-epoch", epoch)];
        let answer = client::post_json(&url, &headers, put.clone(), LONG).await.unwrap();
        let envelope: Envelope = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((envelope.error_no, envelope.data.get("executed")), (wanted, None), "{epoch}");
    }
    let value =
        served.function(1001, json!({"table": "t", "key": "k"})).await.data["value"].clone();
    assert_eq!(value, json!(1));
}

#[tokio::test]
async fn what_is_registered_is_listed() {
    let served = serving();
    let listed = served.get("/v1/functions").await;
    let called = served.function(1201, json!({})).await;
    assert_eq!(listed, called);
    let functions: Functions = serde_json::from_value(listed.data).unwrap();
    let numbers: Vec<u32> = functions.functions.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1001, 1002, 1003, 1004, 1005, 1006, 1101, 1102, 1103, 1201, 1901, 1902]);
}

#[tokio::test]
async fn a_node_that_does_not_serve_says_who_does() {
    let served = closed(ClientSettings::default());
    let unknown = served.function(1901, json!(1)).await;
    assert_eq!((unknown.error_no, unknown.epoch), (ErrorNumber::NotServing, 0));
    assert!(unknown.retry_after_ms.is_some());
    let master = Some("10.0.0.2:7100".to_owned());
    served.whereabouts.store(Arc::new(Whereabouts { epoch: Epoch(9), master }));
    let known = served.get("/v1/functions").await;
    assert_eq!((known.error_no, known.epoch), (ErrorNumber::NotServing, 9));
    assert_eq!(known.data, json!({"master": "10.0.0.2:7100"}));
}

#[tokio::test]
async fn an_answer_ready_after_the_gate_closed_does_not_leave() {
    let mut served = serving();
    let late = served.sleeping(300);
    served.until_inside(1).await;
    served.keeper.close(Epoch(7));
    assert_eq!(late.await.unwrap().error_no, ErrorNumber::NotServing);
    let late = served.sleeping(0).await.unwrap();
    assert_eq!(late.error_no, ErrorNumber::NotServing);
    served.until_inside(0).await;
}

#[tokio::test]
async fn an_answer_of_the_epoch_before_does_not_leave_in_the_next() {
    let mut served = serving();
    let late = served.sleeping(300);
    served.until_inside(1).await;
    served.keeper.open(Epoch(8), in_an_hour());
    assert_eq!(late.await.unwrap().error_no, ErrorNumber::NotServing);
    assert_eq!(served.function(1901, json!(1)).await.epoch, 8);
}

#[tokio::test]
async fn a_drain_answers_what_is_inside_and_refuses_the_rest() {
    let mut served = serving();
    let inside = served.sleeping(300);
    served.until_inside(1).await;
    served.keeper.hold(Epoch(7));
    let outside = served.function(1901, json!(1)).await;
    assert_eq!(outside.error_no, ErrorNumber::NotServing);
    // Refused before anything of it was done: it may be sent again wherever it is wanted.
    assert_eq!(outside.data["executed"], json!(null));
    timeout(LONG, served.keeper.gate().drained()).await.unwrap();
    served.keeper.close(Epoch(7));
    assert_eq!(inside.await.unwrap(), Envelope::done(7, json!({})));
}

#[tokio::test]
async fn a_hold_that_is_undone_serves_on_in_the_same_epoch() {
    let mut served = serving();
    served.keeper.hold(Epoch(7));
    assert_eq!(served.function(1901, json!(1)).await.error_no, ErrorNumber::NotServing);
    served.keeper.admit(Epoch(7));
    assert_eq!(served.function(1901, json!(1)).await, Envelope::done(7, json!(1)));
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_gate() {
    let served = serving();
    let gone = served.sleeping(60_000);
    served.until_inside(1).await;
    gone.abort();
    served.until_inside(0).await;
}

#[tokio::test]
async fn a_function_that_takes_too_long_is_given_up() {
    let served = serving();
    let body = json!({"function": 1902, "arguments": {"ms": 60_000}, "timeout_ms": 20});
    let late = served.call(body).await;
    assert_eq!(late.error_no, ErrorNumber::TimedOut);
    assert_eq!(late.error_info, "function 1902 took longer than 20 ms");
}

#[tokio::test]
async fn calls_over_the_bound_are_refused_unexecuted() {
    let mut served = closed(ClientSettings { calls_max: 2, ..ClientSettings::default() });
    served.keeper.open(Epoch(7), in_an_hour());
    let running = [served.sleeping(500), served.sleeping(500)];
    served.until_inside(2).await;
    let refused = served.function(1901, json!(1)).await;
    assert_eq!((refused.error_no, refused.epoch), (ErrorNumber::Overloaded, 7));
    assert!(refused.retry_after_ms.is_some());
    for call in running {
        assert_eq!(call.await.unwrap().error_no, ErrorNumber::Done);
    }
    assert_eq!(served.function(1901, json!(1)).await.error_no, ErrorNumber::Done);
}

#[tokio::test]
async fn malformed_calls_are_refused_with_what_and_where() {
    let served = serving();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("{{\"function\":\"{}\"}}", "x".repeat(500_000));
    let nested = format!("{{\"function\":1901,\"arguments\":{deep}}}");
    let cases: [(&str, &str); 17] = [
        ("", "the body: EOF"),
        ("hello", "the body: expected value at line 1 column 1"),
        ("[]", "the body: "),
        ("{\"function\":1901", "the body: EOF"),
        ("\u{feff}{}", "the body: expected value"),
        ("{\"function\":\"1901\"}", "the body: invalid type: string \"1901\", expected u32"),
        ("{\"function\":-1}", "the body: invalid value: integer `-1`, expected u32"),
        ("{\"function\":1901,\"gsv\":\"a\"}", "either by `function`"),
        ("{}", "either by `function`"),
        ("{\"name\":\"echo\"}", "either by `function`"),
        ("{\"function\":1901,\"async\":true}", "`async` wants a `session`"),
        ("{\"function\":1902,\"arguments\":{}}", "arguments: missing field `ms`"),
        ("{\"function\":1901,\"request\":1}", "within a `session`, and none is given"),
        ("{\"function\":1901,\"request\":0,\"session\":\"a\"}", "numbers begin at 1"),
        (&nested, "arguments: JSON nested deeper than"),
        (&deep, "the body: "),
        (&long, "at line 1 column"),
    ];
    for (body, wanted) in cases {
        let answer = served.post("/v1/call", body.to_owned()).await;
        let shown: String = body.chars().take(40).collect();
        assert_eq!(answer.error_no, ErrorNumber::Malformed, "{shown}");
        assert!(answer.error_info.contains(wanted), "{:?} for {shown}", answer.error_info);
        assert!(answer.error_info.len() < 1000);
    }
    let not_text = served.post("/v1/call", &b"{\"name\":\"\xff\"}"[..]).await;
    assert_eq!(not_text.error_no, ErrorNumber::Malformed);
    let too_large = served.post("/v1/call", vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!(too_large.error_no, ErrorNumber::Malformed);
    assert!(too_large.error_info.contains("larger than 1048576 bytes"));
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let served = serving();
    let unknown = served.function(4, json!({})).await;
    assert_eq!(unknown.error_no, ErrorNumber::NoSuchFunction);
    let unknown = served.call(json!({"gsv": "a/b/1", "name": "c"})).await;
    assert_eq!(unknown.error_no, ErrorNumber::NoSuchFunction);
    assert!(unknown.error_info.contains("a/b/1:c"));
    let subscribe = served.post("/v1/subscribe", "{}").await;
    assert_eq!(subscribe.error_no, ErrorNumber::Malformed);
    assert!(subscribe.error_info.starts_with("/v1/subscribe is not offered by this version"));
    let wrong = served.get("/v1/call").await;
    assert_eq!(wrong.error_info, "/v1/call takes POST, not GET");
}

#[tokio::test]
async fn rows_are_got_scanned_and_described() {
    let served = serving();
    let get = |key: Json| json!({"dataset": "positions", "key": key});
    let there = served.function(1101, get(json!([1, "1970-01-02"]))).await;
    let row = json!({"account": 1, "day": "1970-01-02", "amount": 2.5});
    assert_eq!(there, Envelope::done(7, json!({"row": row})));
    let absent = served.function(1101, get(json!([9, "1970-01-02"]))).await;
    assert_eq!(absent, Envelope::done(7, json!({"row": null})));
    let scan = json!({"dataset": "positions", "from": [1, "1970-01-02"], "limit": 5});
    let rows = served.function(1102, scan).await.data["rows"].clone();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]), (2, &row));
    let all = served.function(1102, json!({"dataset": "positions"})).await;
    assert_eq!(all.data["rows"].as_array().unwrap().len(), 3);
    let described = served.function(1103, json!({"dataset": "positions"})).await.data;
    assert_eq!(described["rows"], 3);
    assert_eq!(described["key"], json!(["account", "day"]));
    assert_eq!(described["columns"][2], json!({"name": "amount", "kind": "float"}));
}

#[tokio::test]
async fn keys_that_cannot_be_are_refused_with_the_column() {
    let served = serving();
    let cases = [
        (json!([1]), "the key has 2 values (account, day), 1 were given"),
        (json!([1, "1970-01-01", 5]), "3 were given"),
        (json!(["1", "1970-01-01"]), "key column `account` is integer, got \"1\""),
        (json!([1, "today"]), "key column `day` is date, got \"today\""),
        (json!([1, null]), "key column `day` is date"),
        (json!(5), "arguments: invalid type"),
    ];
    for (key, wanted) in cases {
        let answer = served.function(1101, json!({"dataset": "positions", "key": key})).await;
        assert_eq!(answer.error_no, ErrorNumber::Malformed, "{key}");
        assert!(answer.error_info.contains(wanted), "{:?} for {key}", answer.error_info);
    }
    let unknown = served.function(1103, json!({"dataset": "other"})).await;
    assert!(unknown.error_info.contains("no dataset named \"other\""), "{unknown:?}");
    let greedy = json!({"dataset": "positions", "limit": 10_001});
    assert_eq!(served.function(1102, greedy).await.error_no, ErrorNumber::Malformed);
}

#[tokio::test]
async fn a_dataset_that_is_not_there_says_whether_it_is_coming() {
    let served = serving();
    let describe = || served.function(1103, json!({"dataset": "positions"}));
    let put = |availability| {
        *served.datasets.0.lock().unwrap() = Found::NotReady(availability);
    };
    put(Availability::StillLoading { percent: 42 });
    let loading = describe().await;
    assert_eq!(loading.error_no, ErrorNumber::DatasetLoading);
    assert_eq!(loading.data["percent"], 42);
    assert!(loading.retry_after_ms.is_some());
    put(Availability::Failed { reason: "no such file".into() });
    let failed = describe().await;
    assert_eq!(failed.error_no, ErrorNumber::DatasetFailed);
    assert_eq!(failed.data["reason"], "no such file");
    put(Availability::Absent);
    assert_eq!(describe().await.error_no, ErrorNumber::DatasetLoading);
    // Everything else is served meanwhile.
    assert_eq!(served.function(1901, json!(1)).await.error_no, ErrorNumber::Done);
}

#[tokio::test]
async fn every_answer_is_counted_by_its_number() {
    let served = serving();
    served.function(1901, json!(1)).await;
    served.function(1901, json!(1)).await;
    served.function(4, json!(1)).await;
    let totals = served.meters.totals();
    let counts: Vec<_> = totals.by_error_no.into_iter().collect();
    assert_eq!(counts, [(0, 2), (308_000_004, 1)]);
    assert_eq!(totals.seconds.count, 3);
}

/// Not a check but a figure: run with `--release -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a figure"]
async fn how_many_calls_a_second() {
    const CALLS: usize = 20_000;
    let served = serving();
    let address = served.address.to_string();
    let body = json!({"function": 1901, "arguments": {"a": 1}}).to_string();
    for connections in [1, 8] {
        let started = Instant::now();
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let (address, body) = (address.clone(), body.clone());
                tokio::spawn(async move {
                    let mut connection = Connection::connect(&address, LONG).await.unwrap();
                    for _ in 0..CALLS / connections {
                        let sent =
                            connection.send(Method::POST, "/v1/call", &[], body.clone(), LONG);
                        assert_eq!(sent.await.unwrap().status, StatusCode::OK);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        let a_second = CALLS as f64 / started.elapsed().as_secs_f64();
        println!("{connections} connections: {a_second:.0} calls a second");
    }
    let gate = served.keeper.gate();
    let started = Instant::now();
    for _ in 0..1_000_000 {
        gate.enter().unwrap().confirm().unwrap();
    }
    println!("gate: {} ns for in, confirm and out", started.elapsed().as_nanos() / 1_000_000);
}
