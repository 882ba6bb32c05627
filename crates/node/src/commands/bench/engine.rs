//! The tables without HTTP and without a coordinator: two tables' threads on this machine, one told
//! to be master, the other told to follow it, over a real connection and with real redo files.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hotpair_core::pair::fact::{Fact, TablesFact};
use hotpair_core::pair::identity::{BootId, Epoch, Identity, Incarnation, Instance, NodeId};
use hotpair_core::tables::change::{Bytes, Operation, ReplyPlan, Request, Verdict};
use hotpair_core::tables::replication::ReplicationSettings;
use hotpair_journal::Durability;
use hotpair_link::redo;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::progress;
use crate::tables::{Order, TablesSettings, TablesThread};
use crate::writer;

const LIMIT: Duration = Duration::from_secs(120);
const VALUE_BYTES: usize = 128;
/// Different rows that are written.
const ROWS: u64 = 100_000;

/// One node's tables.
struct Side {
    thread: TablesThread,
    facts: std::sync::mpsc::Receiver<Fact>,
}

impl Side {
    fn start(name: &str, directory: &Path, peer: Option<String>) -> Result<Self> {
        // As the control thread does, somebody takes every fact at once.
        let (sender, mut told) = mpsc::channel(64);
        let (keep, facts) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Some(fact) = told.blocking_recv() {
                let _ = keep.send(fact);
            }
        });
        let me = Identity {
            incarnation: Incarnation {
                node: NodeId::new(name),
                instance: Instance(u128::from(fastrand::u64(1..))),
                boot_id: BootId(1),
            },
            life: fastrand::u64(1..),
            pair: "bench".into(),
            root: "/".into(),
            config_digest: 0,
            version: "0".into(),
        };
        let settings = TablesSettings {
            directory: directory.to_owned(),
            durability: Durability::File,
            replication: ReplicationSettings::default(),
            clean: false,
            idle_timeout_ms: 0,
            peer,
            peer_directory: None,
            at_promotion: Box::new(|_| Vec::new()),
        };
        Ok(Self { thread: TablesThread::start(settings, &me, sender)?, facts })
    }

    fn order(&self, order: Order) -> Result<()> {
        self.thread.orders.try_send(order).context("the tables' thread takes no order")
    }

    /// Waits for a fact.
    fn wait<T>(&mut self, what: &str, mut is: impl FnMut(&TablesFact) -> Option<T>) -> Result<T> {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.facts.recv_timeout(left) {
                Ok(Fact::Tables(fact)) => {
                    if let Some(found) = is(&fact) {
                        return Ok(found);
                    }
                }
                Ok(_) => {}
                Err(error) => bail!("{what} did not happen within {LIMIT:?}: {error}"),
            }
        }
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<()> {
        self.order(Order::Prepare { epoch })?;
        self.wait("ready", |fact| (*fact == TablesFact::Ready { epoch }).then_some(()))
    }

    fn wait_for_peer(&mut self) -> Result<()> {
        self.wait("the peer catches up", |fact| {
            matches!(fact, TablesFact::PeerCaughtUp { .. }).then_some(())
        })
    }

    fn end(self) {
        let Self { thread: TablesThread { orders, streams, tables, writer, .. }, facts } = self;
        drop((orders, streams, tables, facts));
        writer::wait_for(&[writer]);
    }
}

/// The door of the master: every connection that comes follows it.
fn open_door(master: &Side) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let streams = master.thread.streams.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(event) = redo::take_in(stream)
                && streams.blocking_send(event).is_err()
            {
                return;
            }
        }
    });
    Ok(address)
}

fn put(number: u64, table: &Arc<str>, value: &Bytes) -> Request {
    let key = format!("row-{:08}", number % ROWS).into_bytes();
    Request {
        ticket: 0,
        numbered: None,
        reads: Vec::new(),
        operations: vec![Operation::Put {
            table: table.clone(),
            key: key.into(),
            value: value.clone(),
        }],
        reply: ReplyPlan::Results,
    }
}

/// Keeps `outstanding` puts under way until `count` are done; times in microseconds.
fn load(side: &Side, epoch: Epoch, count: u64, outstanding: usize) -> Result<(Duration, Vec<u32>)> {
    let table: Arc<str> = "bench".into();
    let value: Bytes = vec![b'x'; VALUE_BYTES].into();
    let mut under_way: VecDeque<(Instant, oneshot::Receiver<Verdict>)> = VecDeque::new();
    let mut times = Vec::with_capacity(usize::try_from(count)?);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let started = Instant::now();
    runtime.block_on(async {
        let mut sent = 0;
        while times.len() < usize::try_from(count)? {
            while sent < count && under_way.len() < outstanding {
                match side.thread.tables.submit(epoch, put(sent, &table, &value)) {
                    Ok(verdict) => under_way.push_back((Instant::now(), verdict)),
                    Err(_) if !under_way.is_empty() => break,
                    Err(error) => bail!("{error}"),
                }
                sent += 1;
            }
            let (at, verdict) = under_way.pop_front().context("some are under way")?;
            let verdict = verdict.await.context("a put was dropped")?;
            ensure!(matches!(verdict, Verdict::Done { .. }), "{verdict:?}");
            times.push(u32::try_from(at.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        Ok(())
    })?;
    Ok((started.elapsed(), times))
}

fn figures(took: Duration, mut times: Vec<u32>) -> Value {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    json!({
        "commits": times.len(),
        "commits_per_second": times.len() as f64 / took.as_secs_f64(),
        "p50_us": at(0.5), "p99_us": at(0.99), "worst_us": at(1.0),
    })
}

/// Commits a second to a peer over loopback.
pub(super) fn commits(count: u64, outstanding: usize) -> Result<Value> {
    let scratch = tempfile::tempdir()?;
    let (master, mut standby) = pair(scratch.path())?;
    let (epoch, other) = (Epoch(1), Epoch(2));
    let warm = load(&master, epoch, count / 10, outstanding)?;
    drop(warm);
    let (took, times) = load(&master, epoch, count, outstanding)?;
    let figures = figures(took, times);
    // What was acknowledged is there: the standby becomes master and says so.
    master.order(Order::StandDown)?;
    standby.prepare(other)?;
    let rows = standby.thread.tables.look(|store| store.table("bench").map_or(0, |t| t.len()));
    ensure!(rows as u64 == ROWS.min(count), "{rows} rows at the peer");
    master.end();
    standby.end();
    Ok(figures)
}

fn pair(folder: &Path) -> Result<(Side, Side)> {
    let directories = [folder.join("a"), folder.join("b")];
    for directory in &directories {
        std::fs::create_dir_all(directory)?;
    }
    let mut master = Side::start("a", &directories[0], None)?;
    let door = open_door(&master)?;
    let standby = Side::start("b", &directories[1], Some(door))?;
    master.prepare(Epoch(1))?;
    standby.order(Order::Follow { master: Some(Epoch(1)) })?;
    master.wait_for_peer()?;
    Ok((master, standby))
}

/// A peer that comes when the log is long: how fast it catches up, from the redo files, and what
/// that costs a master under full load.
pub(super) fn catching_up(megabytes: u64, outstanding: usize) -> Result<Value> {
    let scratch = tempfile::tempdir()?;
    let directories = [scratch.path().join("a"), scratch.path().join("b")];
    for directory in &directories {
        std::fs::create_dir_all(directory)?;
    }
    let epoch = Epoch(1);
    let mut master = Side::start("a", &directories[0], None)?;
    master.prepare(epoch)?;
    let count = megabytes * 1_000_000 / (VALUE_BYTES as u64 + 60);
    progress(&format!("catching up: writing {count} records alone"));
    let (alone, _) = load(&master, epoch, count, outstanding)?;
    let bytes = folder_bytes(&directories[0])?;
    let door = open_door(&master)?;
    let standby = Side::start("b", &directories[1], Some(door))?;
    let started = Instant::now();
    standby.order(Order::Follow { master: Some(epoch) })?;
    master.wait_for_peer()?;
    let quiet = started.elapsed();
    standby.end();
    // The same again, with the master at full load meanwhile.
    std::fs::remove_dir_all(&directories[1])?;
    std::fs::create_dir_all(&directories[1])?;
    master.wait("the peer is gone", |fact| {
        matches!(fact, TablesFact::PeerLost { .. }).then_some(())
    })?;
    master.order(Order::AcknowledgeAlone { epoch, loss: 1 })?;
    let door = open_door(&master)?;
    let (before, _) = load(&master, epoch, count / 4, outstanding)?;
    let late = Side::start("b", &directories[1], Some(door))?;
    late.order(Order::Follow { master: Some(epoch) })?;
    let (during, _) = load(&master, epoch, count / 4, outstanding)?;
    late.end();
    master.end();
    Ok(json!({
        "log_bytes": bytes,
        "alone_commits_per_second": count as f64 / alone.as_secs_f64(),
        "caught_up_s": quiet.as_secs_f64(),
        "megabytes_per_second": bytes as f64 / 1e6 / quiet.as_secs_f64(),
        "full_load_alone_per_second": count as f64 / 4.0 / before.as_secs_f64(),
        "full_load_while_catching_up_per_second": count as f64 / 4.0 / during.as_secs_f64(),
        "kept": before.as_secs_f64() / during.as_secs_f64(),
    }))
}

/// From a long redo log back to the tables.
pub(super) fn recovery(megabytes: u64, outstanding: usize) -> Result<Value> {
    let scratch = tempfile::tempdir()?;
    let epoch = Epoch(1);
    let mut side = Side::start("a", scratch.path(), None)?;
    side.prepare(epoch)?;
    let count = megabytes * 1_000_000 / (VALUE_BYTES as u64 + 60);
    progress(&format!("recovery: writing {count} records"));
    load(&side, epoch, count, outstanding)?;
    side.end();
    let bytes = folder_bytes(scratch.path())?;
    let started = Instant::now();
    let (_, recovered) = hotpair_journal::Journal::open(scratch.path(), Durability::File)?;
    let took = started.elapsed();
    Ok(json!({
        "log_bytes": bytes,
        "records": recovered.history.head(),
        "replayed": recovered.replayed,
        "from_snapshot": recovered.snapshot,
        "s": took.as_secs_f64(),
        "records_per_second": recovered.replayed as f64 / took.as_secs_f64(),
    }))
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_is_at_the_peer_and_a_late_peer_catches_up() {
        let figures = commits(2_000, 64).unwrap();
        assert_eq!(figures["commits"], 2_000);
        let figures = catching_up(2, 64).unwrap();
        assert!(figures["log_bytes"].as_u64() > Some(1_000_000), "{figures}");
    }

    #[test]
    fn a_log_is_read_again() {
        let figures = recovery(1, 64).unwrap();
        assert!(figures["records"].as_u64() > Some(4_000), "{figures}");
    }
}
