//! Lookups of a dataset while a publisher changes its rows, beside the same lookups in peace.
//!
//! Twice: in this process, one thread that looks up as fast as it can while the feed's thread brings
//! updates in; and through the clients' HTTP of a real master, at a constant rate (latency counts from when a
//! lookup was due). The publisher is a process of its own, and has to share the machine's cores.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_core::services::dataset::{Dataset, FeedEvent, Value as Cell};
use hotpair_feed::{Intake, Listener, Subscriber};
use hotpair_lab::investment::{InvestmentSystem, positions};
use hotpair_lab::node::Pair;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use hotpair_store::{CancelFlag, DatasetSpec, Progress};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::progress;

const LIMIT: Duration = Duration::from_secs(60);
const ROWS: usize = 200_000;
/// Connections that look up through HTTP, and lookups a second of each.
const CONNECTIONS: u64 = 8;
const RATE: u64 = 250;

/// Measures both.
pub(super) fn measure(updates: u64, seconds: u64) -> Result<Value> {
    let scratch = Scratch::new("bench-feed")?;
    let mut text = "account,instrument,price\n".to_owned();
    for row in 0..ROWS {
        writeln!(text, "a{row},i{row},1.5")?;
    }
    let file = scratch.write("positions.csv", text)?;
    let engine = in_process(&file, updates, seconds)?;
    progress(&format!("feed: in this process: {engine}"));
    let http = through_http(&file, updates, seconds)?;
    Ok(json!({"rows": ROWS, "updates_per_second_wanted": updates, "engine": engine, "http": http}))
}

/// Figures without and with the feed, and how many times longer the 99th percentile is with it.
fn compared(without: &Value, with: &Value, applied_per_second: f64) -> Result<Value> {
    let p99 = |figures: &Value| figures["p99_us"].as_f64().context("no p99");
    let ratio = p99(with)? / p99(without)?;
    Ok(json!({
        "without": without, "with": with, "updates_per_second": applied_per_second,
        "p99_ratio": ratio,
    }))
}

/// The spread of times in nanoseconds.
fn figures(mut times: Vec<u32>, seconds: f64) -> Result<Value> {
    ensure!(!times.is_empty(), "nothing was looked up");
    times.sort_unstable();
    let at = |part: f64| f64::from(times[((times.len() - 1) as f64 * part) as usize]) / 1_000.0;
    Ok(json!({
        "lookups_per_second": times.len() as f64 / seconds,
        "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "worst_us": at(1.0),
    }))
}

struct Heard {
    intake: Arc<Intake>,
    sent: Arc<AtomicBool>,
    missed: Arc<AtomicU64>,
}

impl Listener for Heard {
    fn event(&mut self, event: FeedEvent) {
        if event == FeedEvent::Sent {
            self.intake.connected();
            self.sent.store(true, Ordering::SeqCst);
        }
    }

    fn message(&mut self, body: &[u8]) {
        if let Some(FeedEvent::Missed { .. }) = self.intake.take(body, 0) {
            self.missed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn in_process(file: &Path, updates: u64, seconds: u64) -> Result<Value> {
    let key = vec!["account".to_owned(), "instrument".to_owned()];
    let spec = DatasetSpec {
        name: "positions".to_owned(),
        source: format!("file://{}", file.display()).parse()?,
        key: key.clone(),
        columns: [("price".to_owned(), "float".parse()?)].into(),
        broken_rows_max: 0,
        unpivot: None,
    };
    let loaded = hotpair_store::load(&spec, &Progress::new(), &CancelFlag::new())?;
    let system = InvestmentSystem::start()?;
    let intake = Arc::new(Intake::new(key));
    let replayed = intake.replay(Arc::new(loaded), 0, intake.generation());
    let (fed, _) = replayed.context("nobody else uses this intake")?;
    let sent = Arc::<AtomicBool>::default();
    let missed = Arc::<AtomicU64>::default();
    let heard = Heard { intake: intake.clone(), sent: sent.clone(), missed: missed.clone() };
    let _subscriber = Subscriber::start(system.feed().parse()?, heard)?;
    eventually(LIMIT, "the feed is subscribed", || {
        ensure!(sent.load(Ordering::SeqCst), "not yet");
        Ok(())
    })?;
    // Every row is changed once before either is measured: both look at the same structure.
    flow(&system, updates)?;
    eventually(LIMIT, "every row was changed", || {
        let applied = intake.totals().applied;
        ensure!(applied >= ROWS as u64, "{applied}");
        Ok(())
    })?;
    flow(&system, 0)?;
    let without = look_up(&*fed, seconds)?;
    flow(&system, updates)?;
    let before = (intake.totals().applied, Instant::now());
    let with = look_up(&*fed, seconds)?;
    let applied = (intake.totals().applied - before.0) as f64 / before.1.elapsed().as_secs_f64();
    let mut report = compared(&without, &with, applied)?;
    report["gaps"] = missed.load(Ordering::SeqCst).into();
    Ok(report)
}

fn flow(system: &InvestmentSystem, updates: u64) -> Result<()> {
    let mut orders = json!({"vary": "price", "rate": updates});
    if system.state()?["version"] == 0 {
        orders["rows"] = positions(ROWS);
    }
    system.control(&orders)
}

/// One lookup after the other, on one thread.
fn look_up(dataset: &dyn Dataset, seconds: u64) -> Result<Value> {
    let keys: Vec<[Cell; 2]> = (0..10_000).map(|_| key(fastrand::usize(..ROWS))).collect();
    let (begin, length) = (Instant::now(), Duration::from_secs(seconds));
    let mut times = Vec::new();
    while begin.elapsed() < length {
        for key in &keys {
            let began = Instant::now();
            let found = dataset.lookup(key)?.is_some();
            times.push(u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX));
            ensure!(found, "a row is not there");
        }
    }
    figures(times, begin.elapsed().as_secs_f64())
}

fn key(row: usize) -> [Cell; 2] {
    [Cell::Text(format!("a{row}")), Cell::Text(format!("i{row}"))]
}

fn through_http(file: &Path, updates: u64, seconds: u64) -> Result<Value> {
    let system = InvestmentSystem::start()?;
    let zookeeper = ZooKeeper::standalone()?;
    let mut pair = Pair::here(&zookeeper.addresses())?;
    for node in &mut pair.nodes {
        node.settings.more = format!(
            "[[datasets]]\nname = \"positions\"\nsource = \"file://{}\"\n\
             key = [\"account\", \"instrument\"]\nfeed = {:?}\n\
             [datasets.columns]\nprice = \"float\"\n",
            file.display(),
            system.feed(),
        );
    }
    let master = pair.start()?;
    let admin = pair.nodes[master].admin();
    let feed = || -> Result<Value> {
        let status = admin.get_json("/status")?;
        Ok(status["datasets"][0]["feed"].clone())
    };
    let applied = || -> Result<u64> { feed()?["applied"].as_u64().context("no count") };
    eventually(LIMIT, "the dataset is live", || {
        let feed = feed()?;
        ensure!(feed["state"] == "live", "{feed}");
        Ok(())
    })?;
    flow(&system, updates)?;
    eventually(LIMIT, "every row was changed", || {
        let applied = applied()?;
        ensure!(applied >= ROWS as u64, "{applied}");
        Ok(())
    })?;
    flow(&system, 0)?;
    let address = pair.nodes[master].settings.client;
    let without = ask(address, seconds)?;
    flow(&system, updates)?;
    let before = (applied()?, Instant::now());
    let with = ask(address, seconds)?;
    let applied = (applied()? - before.0) as f64 / before.1.elapsed().as_secs_f64();
    let mut report = compared(&without, &with, applied)?;
    // Stale: the node, or its share of the machine, was too slow for the publisher.
    report["state"] = feed()?["state"].clone();
    Ok(report)
}

/// Lookups at a constant rate on some connections.
fn ask(address: SocketAddr, seconds: u64) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = tokio::time::Instant::now() + Duration::from_millis(100);
        let mut asking = JoinSet::new();
        for connection in 0..CONNECTIONS {
            asking.spawn(ask_one(address, start, connection, seconds * RATE));
        }
        let mut times = Vec::new();
        while let Some(one) = asking.join_next().await {
            times.extend(one??);
        }
        figures(times, seconds as f64)
    })
}

async fn ask_one(
    address: SocketAddr,
    start: tokio::time::Instant,
    connection: u64,
    count: u64,
) -> Result<Vec<u32>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut times = Vec::new();
    let mut bytes = Vec::with_capacity(4_096);
    for number in 0..count {
        let place = number * CONNECTIONS + connection;
        let due = start + Duration::from_nanos(place * 1_000_000_000 / (RATE * CONNECTIONS));
        tokio::time::sleep_until(due).await;
        // The timer is exact to a millisecond: what it sleeps too long is not the lookup's.
        let due = tokio::time::Instant::now();
        let row = fastrand::usize(..ROWS);
        let body = json!({"function": 1101, "arguments": {
            "dataset": "positions", "key": [format!("a{row}"), format!("i{row}")]}})
        .to_string();
        let head = format!(
            "POST /v1/call HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        bytes.clear();
        while !bytes.ends_with(b"}}}") {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the connection ended");
        }
        times.push(u32::try_from(due.elapsed().as_nanos()).unwrap_or(u32::MAX));
        ensure!(
            bytes.windows(14).any(|part| part == b"\"error_no\":0,\""),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    Ok(times)
}
