//! Commits through the clients' HTTP, and Redis doing the same beside it: a value written at the
//! master and held by one replica, both on this machine, acknowledged from the page cache.
//!
//! Both are asked by the same loop: one thread, so many connections, one request under way on each.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hotpair_lab::node::Pair;
use hotpair_lab::process::Process;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::progress;
use crate::commands::user;

const LIMIT: Duration = Duration::from_secs(60);
const VALUE_BYTES: usize = 128;
const ROWS: u64 = 100_000;
const WARM_UP: Duration = Duration::from_secs(2);

/// What is asked, and how an answer is known to be whole.
trait Dialect: Send + Sync {
    /// The request of one connection.
    fn request(&self, connection: usize, number: u64, out: &mut Vec<u8>);
    /// How many bytes of the buffer are the answer; none as long as it is not whole.
    fn answer(&self, bytes: &[u8]) -> Result<Option<usize>>;
}

/// Asks for so long; the requests done, a second, and their times.
fn ask(
    address: SocketAddr,
    connections: usize,
    seconds: u64,
    dialect: &Arc<dyn Dialect>,
) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Instant::now() + WARM_UP;
        let end = start + Duration::from_secs(seconds);
        // A task each, so that an answer wakes its connection and no other.
        let mut asking = JoinSet::new();
        for connection in 0..connections {
            asking.spawn(ask_one(address, connection, start, end, Arc::clone(dialect)));
        }
        let mut times = Vec::new();
        while let Some(one) = asking.join_next().await {
            times.extend(one??);
        }
        times.sort_unstable();
        ensure!(!times.is_empty(), "nothing was answered");
        let at = |part: f64| {
            let index = ((times.len() - 1) as f64 * part) as usize;
            f64::from(times[index]) / 1_000.0
        };
        Ok(json!({
            "requests": times.len(),
            "per_second": times.len() as f64 / seconds as f64,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "worst_ms": at(1.0),
        }))
    })
}

async fn ask_one(
    address: SocketAddr,
    connection: usize,
    start: Instant,
    end: Instant,
    dialect: Arc<dyn Dialect>,
) -> Result<Vec<u32>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut out, mut bytes) = (Vec::new(), Vec::with_capacity(4_096));
    let mut times = Vec::new();
    let mut number = 0;
    loop {
        number += 1;
        out.clear();
        dialect.request(connection, number, &mut out);
        let asked = Instant::now();
        if asked >= end {
            return Ok(times);
        }
        stream.write_all(&out).await?;
        bytes.clear();
        while dialect.answer(&bytes)?.is_none() {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the connection ended");
        }
        if asked >= start {
            times.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

/// hotpair's table function `put`, numbered, in a session of each connection.
struct Hotpair {
    sessions: Vec<String>,
    value: String,
}

impl Dialect for Hotpair {
    fn request(&self, connection: usize, number: u64, out: &mut Vec<u8>) {
        let row = (number * 64 + connection as u64) % ROWS;
        let session = &self.sessions[connection];
        let body = format!(
            "{{\"session\":\"{session}\",\"request\":{number},\"done_up_to\":{},\"function\":1002,\
             \"arguments\":{{\"table\":\"bench\",\"key\":\"row-{row:08}\",\"value\":\"{}\"}}}}",
            number - 1,
            self.value
        );
        out.extend_from_slice(
            format!(
                "POST /v1/call HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
    }

    fn answer(&self, bytes: &[u8]) -> Result<Option<usize>> {
        let Some(head) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
        // As this server writes it.
        let name = b"content-length: ".as_slice();
        let at = find(&bytes[..head], name).context("an answer without a length")?;
        let length = &bytes[at + name.len()..head];
        let length = length.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let length = std::str::from_utf8(length)?;
        let size = head + 4 + length.parse::<usize>()?;
        if bytes.len() < size {
            return Ok(None);
        }
        let body = &bytes[head + 4..size];
        ensure!(body.starts_with(b"{\"error_no\":0,"), "{}", String::from_utf8_lossy(body));
        Ok(Some(size))
    }
}

/// Redis' SET, then WAIT for one replica.
struct Redis {
    value: String,
}

impl Dialect for Redis {
    fn request(&self, connection: usize, number: u64, out: &mut Vec<u8>) {
        let row = (number * 64 + connection as u64) % ROWS;
        let key = format!("row-{row:08}");
        out.extend_from_slice(
            format!(
                "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE_BYTES}\r\n{}\r\n\
                 *3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n",
                key.len(),
                self.value
            )
            .as_bytes(),
        );
    }

    fn answer(&self, bytes: &[u8]) -> Result<Option<usize>> {
        match bytes {
            b"+OK\r\n:1\r\n" => Ok(Some(bytes.len())),
            [b'-', ..] => bail!("{}", String::from_utf8_lossy(bytes)),
            _ => Ok(None),
        }
    }
}

/// hotpair and Redis, one after the other, in turns.
pub(super) fn against_redis(connections: usize, seconds: u64) -> Result<Value> {
    let value = "x".repeat(VALUE_BYTES);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=2 {
        progress(&format!("tables: hotpair, round {round}"));
        ours.push(hotpair(connections, seconds, &value)?);
        progress(&format!("tables: redis, round {round}"));
        theirs.push(redis(connections, seconds, &value)?);
    }
    Ok(json!({
        "connections": connections,
        "value_bytes": VALUE_BYTES,
        "hotpair": ours,
        "redis_set_wait_1": theirs,
    }))
}

fn hotpair(connections: usize, seconds: u64, value: &str) -> Result<Value> {
    let zookeeper = ZooKeeper::standalone()?;
    let mut pair = Pair::here(&zookeeper.addresses())?;
    let scratch = Scratch::new("bench-users")?;
    let users = scratch.join("users.toml");
    user::add("bench", "bench", &users)?;
    for node in &mut pair.nodes {
        node.settings.more =
            format!("[sessions]\nusers_file = {:?}\n", users.display().to_string());
    }
    let master = pair.start()?;
    eventually(LIMIT, "the peer is in sync", || {
        let role = pair.nodes[master].admin().get_json("/role")?;
        ensure!(role["in_sync"] == true, "{role}");
        Ok(())
    })?;
    let client = pair.nodes[master].client();
    let mut sessions = Vec::new();
    for _ in 0..connections {
        let body = json!({"user": "bench", "password": "bench"});
        let answer = client.post("/v1/login", &body)?.json()?;
        let session = answer["data"]["session"].as_str().context("a login without a session")?;
        sessions.push(session.to_owned());
    }
    let dialect: Arc<dyn Dialect> = Arc::new(Hotpair { sessions, value: value.to_owned() });
    ask(pair.nodes[master].settings.client, connections, seconds, &dialect)
}

/// `null` where there is no Redis.
fn redis(connections: usize, seconds: u64, value: &str) -> Result<Value> {
    if Command::new("redis-server").arg("--version").output().is_err() {
        progress("there is no redis-server here (Debian: redis-server); left out");
        return Ok(Value::Null);
    }
    let scratch = Scratch::new("bench-redis")?;
    let (primary, replica) = (free_port()?, free_port()?);
    let start = |name: &str, port: u16, more: &[&str]| {
        let folder = scratch.join(name);
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new("redis-server");
        // An append-only file without fsync: written, as hotpair's redo is.
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "no"])
            .arg("--dir")
            .arg(&folder)
            .args(more);
        Process::start(name, &mut command, &folder.join("log"))
    };
    let _primary = start("primary", primary, &[])?;
    let of = format!("127.0.0.1 {primary}");
    let _replica = start("replica", replica, &["--replicaof", &of])?;
    let address: SocketAddr = format!("127.0.0.1:{primary}").parse()?;
    let dialect = Arc::new(Redis { value: value.to_owned() });
    eventually(LIMIT, "the replica follows", || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut out = Vec::new();
        dialect.request(0, 1, &mut out);
        stream.write_all(&out)?;
        let mut answer = [0; 9];
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"+OK\r\n:1\r\n", "{}", String::from_utf8_lossy(&answer));
        Ok(())
    })?;
    let dialect: Arc<dyn Dialect> = dialect;
    ask(address, connections, seconds, &dialect)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
