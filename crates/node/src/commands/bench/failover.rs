//! How long nobody serves: after a kill, in a freeze, in a planned switch. Real processes, a real
//! ZooKeeper on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hotpair_lab::checker::{Gate, History, check};
use hotpair_lab::load::now_ns;
use hotpair_lab::node::Pair;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};

use super::stream::Views;
use super::{progress, spread};

const LIMIT: Duration = Duration::from_secs(60);

/// A pair in calm: one serves, the other is ready to take over.
fn started(session_timeout_ms: u64) -> Result<(ZooKeeper, Pair)> {
    let zookeeper = ZooKeeper::standalone()?;
    let mut pair = Pair::here(&zookeeper.addresses())?;
    for node in &mut pair.nodes {
        node.settings.session_timeout = Duration::from_millis(session_timeout_ms);
    }
    pair.start()?;
    Ok((zookeeper, pair))
}

/// Waits until one serves and the other stands by in contact; the master and its epoch.
pub(super) fn calm(pair: &Pair) -> Result<(usize, u64)> {
    let master = pair.wait_for_master(LIMIT)?;
    let standby = pair.nodes[1 - master].admin();
    eventually(LIMIT, "the other node stands by", || {
        let role = standby.get_json("/role")?;
        let ready = role["role"] == "standby"
            && role["contact"] == "connected"
            && role["in_sync"] == true
            && role["peer"]["reachable"] == true
            && role["peer"]["role"] == "master";
        ensure!(ready, "{role}");
        Ok(())
    })?;
    // Heartbeats come every T/6: each kill is to fall at another point between two.
    let pause = 200 + u64::try_from(now_ns() / 1_000).unwrap_or(0) % 500;
    std::thread::sleep(Duration::from_millis(pause));
    Ok((master, pair.nodes[master].role()?.epoch))
}

/// kill -9 of the master → the other's `serving: true`.
pub(super) fn kills(count: usize) -> Result<Value> {
    let (_zookeeper, mut pair) = started(4_000)?;
    let mut ms = Vec::new();
    for round in 0..count {
        let (master, epoch) = calm(&pair)?;
        let views = Views::of(pair.nodes[1 - master].settings.admin)?;
        let at = now_ns();
        pair.nodes[master].kill()?;
        ms.push((views.wait_serving(epoch, LIMIT)? - at) as f64 / 1e6);
        pair.nodes[master].start_and_wait()?;
        if round % 20 == 19 {
            progress(&format!("{} kills: {}", round + 1, spread(ms.clone())));
        }
    }
    Ok(spread(ms))
}

/// SIGSTOP of the master → the other's `serving: true`; then SIGCONT, and nothing of the old one
/// may count.
pub(super) fn freezes(count: usize, session_timeout_ms: u64) -> Result<Value> {
    let (_zookeeper, mut pair) = started(session_timeout_ms)?;
    let mut ms = Vec::new();
    let mut accepted_after = 0;
    for _ in 0..count {
        let (master, epoch) = calm(&pair)?;
        let views = Views::of(pair.nodes[1 - master].settings.admin)?;
        let at = now_ns();
        pair.nodes[master].freeze()?;
        ms.push((views.wait_serving(epoch, LIMIT)? - at) as f64 / 1e6);
        // A request waits at its door while it sleeps, and is read first thing when it wakes.
        let door = Connection::open(pair.nodes[master].settings.client)?;
        let waiting = std::thread::spawn(move || {
            let mut door = door;
            door.call()
        });
        std::thread::sleep(Duration::from_millis(100));
        pair.nodes[master].thaw()?;
        let answer = waiting.join().map_err(|_| anyhow::anyhow!("the caller panicked"))?;
        accepted_after += u32::from(matches!(answer, Ok(0)));
        calm(&pair)?;
    }
    let overlap_ns = check(&History { gates: gates(&pair)?, ..History::default() }).overlap_ns;
    let bound = session_timeout_ms as f64 * 0.7 + 300.0;
    Ok(json!({
        "serving": spread(ms), "bound_ms": bound,
        "answered_by_the_old_master_after_waking": accepted_after,
        "gates_open_together_ns": overlap_ns,
    }))
}

/// Planned switches while clients call both nodes without a pause: from the old master's last
/// answer to the new one's first.
pub(super) fn switches(count: usize) -> Result<Value> {
    let (_zookeeper, pair) = started(4_000)?;
    let mut ms = Vec::new();
    for _ in 0..count {
        let (master, _) = calm(&pair)?;
        let callers: Vec<Caller> =
            pair.nodes.iter().map(|node| Caller::start(node.settings.client)).collect();
        std::thread::sleep(Duration::from_millis(50));
        let answer = pair.nodes[master].admin().post("/switchover", &json!({}))?.json()?;
        ensure!(answer["done"] == true, "the switchover was refused: {answer}");
        std::thread::sleep(Duration::from_millis(50));
        let answered: Vec<Vec<i64>> =
            callers.into_iter().map(Caller::stop).collect::<Result<_>>()?;
        let last = answered[master].last().context("the old master answered nothing")?;
        let first = answered[1 - master].first().context("the new master answered nothing")?;
        ms.push((first - last) as f64 / 1e6);
    }
    Ok(spread(ms))
}

/// An idle pair for ten seconds.
pub(super) fn idle() -> Result<Value> {
    const SECONDS: u64 = 10;
    let (_zookeeper, mut pair) = started(4_000)?;
    calm(&pair)?;
    let mut nodes = Vec::new();
    let before: Vec<Duration> =
        pair.nodes.iter_mut().map(|node| node.processor_time()).collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_secs(SECONDS));
    for (node, before) in pair.nodes.iter_mut().zip(before) {
        let spent = node.processor_time()? - before;
        let id = node.process()?.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        nodes.push(json!({
            "role": node.role()?.role,
            "resident_mb": resident.map(|kib| kib as f64 / 1024.0),
            "processor_percent": spent.as_secs_f64() * 100.0 / SECONDS as f64,
        }));
    }
    Ok(json!(nodes))
}

/// All intervals that the nodes' gates logged.
fn gates(pair: &Pair) -> Result<Vec<Gate>> {
    let mut all = Vec::new();
    for node in &pair.nodes {
        let path = node.settings.directory.join("gates.jsonl");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        for line in text.lines() {
            all.push(serde_json::from_str(line)?);
        }
    }
    Ok(all)
}

/// One kept connection to a node's client HTTP.
struct Connection {
    stream: TcpStream,
}

impl Connection {
    fn open(client: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(client)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self { stream })
    }

    /// One echo; its error number.
    fn call(&mut self) -> Result<i64> {
        const BODY: &str = r#"{"function":1901,"arguments":{"n":1}}"#;
        write!(
            self.stream,
            "POST /v1/call HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        )?;
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = self.stream.read(&mut chunk)?;
            ensure!(read > 0, "the node closed the connection");
            text.extend_from_slice(&chunk[..read]);
            let Some(head) = text.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let headers = String::from_utf8_lossy(&text[..head]).to_lowercase();
            let length: usize = headers
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .context("an answer without a length")?
                .trim()
                .parse()?;
            if text.len() >= head + 4 + length {
                let body: Value = serde_json::from_slice(&text[head + 4..head + 4 + length])?;
                return body["error_no"].as_i64().context("an answer without error_no");
            }
        }
    }
}

/// Calls one node without a pause and notes when it answered with success.
struct Caller {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<i64>>>,
}

impl Caller {
    fn start(client: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut connection = Connection::open(client)?;
            let mut answered = Vec::new();
            while !told.load(Ordering::Relaxed) {
                if connection.call()? == 0 {
                    answered.push(now_ns());
                }
            }
            Ok(answered)
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<Vec<i64>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(answered) => answered,
            Err(_) => bail!("a caller panicked"),
        }
    }
}
