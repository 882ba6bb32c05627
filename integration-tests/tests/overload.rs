//! A master that is busy in every way at once is still master, and says so in time.
//!
//! At once: hundreds of calls that do not end, both cores taken by threads that only spin, and a
//! thousand operators who never finish their request. Nobody may take a busy node for a dead one,
//! and `/lookup` has to answer: 99 of 100 times within a second.

use std::fmt::Display;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hotpair_integration_tests::journal::Journal;
use hotpair_integration_tests::steps::{LIMIT, settled};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::node::Pair;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

const CALLS: usize = 400;
const SLOW_OPERATORS: usize = 1_000;
const STRESS: Duration = Duration::from_secs(8);
const LOOKUPS_MIN: usize = 400;
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Threads that take a core each, until dropped.
struct Spinners {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinners {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let spin = |_| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..cores).map(spin).collect();
        Self { over, threads }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A request sent and not waited for.
fn leave_waiting(address: SocketAddr, request: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nonblocking(true)?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

#[test]
fn a_busy_master_answers_lookups_and_is_not_taken_for_dead() {
    let _turn = Turn::alone().unwrap();
    // A thousand connections are more than a shell usually allows.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let epoch = pair.nodes[master].role().unwrap().epoch;
    let settings = pair.nodes[master].settings.clone();
    let body = json!({"function": 1902, "arguments": {"ms": 60_000}}).to_string();
    let call = format!(
        "POST /v1/call HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let calls: Vec<TcpStream> =
        (0..CALLS).map(|_| leave_waiting(settings.client, &call).unwrap()).collect();
    let mut operators: Vec<TcpStream> = Vec::new();
    let spinners = Spinners::start();
    let mut took = Vec::new();
    let began = Instant::now();
    // So many that one in a hundred is several.
    while began.elapsed() < STRESS || (took.len() < LOOKUPS_MIN && began.elapsed() < LIMIT * 2) {
        // Those who were cut come again.
        operators.retain_mut(|stream| stream.write(b"x").is_ok());
        while operators.len() < SLOW_OPERATORS {
            match leave_waiting(settings.admin, "GET /role HTTP/1.1\r\nX-Slow: ") {
                Ok(stream) => operators.push(stream),
                // The door may be too busy to take one more right now.
                Err(_) => break,
            }
        }
        for node in &pair.nodes {
            let asked = Instant::now();
            let answer = node.admin().with_limit(LIMIT).get("/lookup").unwrap();
            took.push(asked.elapsed());
            assert_eq!((answer.status, answer.body.as_str()), (200, "true"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    drop(spinners);
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 1_000];
    print(&format_args!(
        "/lookup of both nodes, {} times: median {:.1?}, 99 % {:.1?}, 99.9 % {:.1?}, worst {:.1?}",
        took.len(),
        at(500),
        at(990),
        at(999),
        at(1_000),
    ));
    assert!(took.len() >= LOOKUPS_MIN, "only {} lookups in {:?}", took.len(), began.elapsed());
    assert!(at(990) <= ANSWER_LIMIT, "99 of 100 lookups took up to {:?}", at(990));
    drop((calls, operators));
    assert_eq!(settled(&pair).unwrap(), master);
    assert_eq!(pair.nodes[master].role().unwrap().epoch, epoch, "the mastership moved");
    for node in &pair.nodes {
        let journal = Journal::read(node).unwrap();
        let promotions = journal.causes("promoting").len();
        let master = node.settings.node == settings.node;
        assert_eq!(promotions, usize::from(master), "{}", journal.text());
    }
    eventually(LIMIT, "the master takes calls", || {
        let answer = pair.nodes[master].call(1901, &json!({}))?;
        anyhow::ensure!(answer["error_no"] == 0, "{answer}");
        Ok(())
    })
    .unwrap();
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs the test with --nocapture")]
fn print(figures: &dyn Display) {
    println!("{figures}");
}
