//! The tables without HTTP and without a coordinator: two tables' threads on this machine, one told
//! to be master, the other told to follow it, over a real connection and with real redo files.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hotpair_core::pair::fact::{Fact, TablesFact};
use hotpair_core::pair::identity::{BootId, Epoch, Identity, Incarnation, Instance, NodeId};
use hotpair_core::tables::change::{Bytes, Operation, ReplyPlan, Request, Verdict};
use hotpair_core::tables::replication::ReplicationSettings;
use hotpair_gateway::Tables;
use hotpair_journal::Durability;
use hotpair_link::LinkSecurity;
use hotpair_link::redo::{self, MasterAddress, Wire};
use hotpair_sql::Target;
use hotpair_tls::{Files, Identity as Certificate};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::progress;
use crate::store;
use crate::tables::{Order, TablesSettings, TablesThread};
use crate::writer;

const LIMIT: Duration = Duration::from_secs(120);
pub(super) const VALUE_BYTES: usize = 128;
/// About what a put takes in the log.
const RECORD_BYTES: u64 = VALUE_BYTES as u64 + 60;
/// A longer log is cut at a snapshot, which a peer would be sent instead.
const TAIL_MEGABYTES_MAX: u64 = 200;
/// How long a master at full load is looked at before its peer comes.
const ALONE: Duration = Duration::from_millis(500);
/// Different rows that are written.
const ROWS: u64 = 100_000;

/// One node's tables.
pub(super) struct Side {
    pub(super) thread: TablesThread,
    facts: std::sync::mpsc::Receiver<Fact>,
    /// The database that is written behind, if one is.
    pub(super) store: Option<Arc<hotpair_sql::Shown>>,
}

impl Side {
    fn start(name: &str, directory: &Path, peer: Option<MasterAddress>) -> Result<Self> {
        Self::start_with(name, directory, peer, None)
    }

    fn start_with(
        name: &str,
        directory: &Path,
        peer: Option<MasterAddress>,
        database: Option<&Target>,
    ) -> Result<Self> {
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
            pair: PAIR.into(),
            root: "/".into(),
            config_digest: 0,
            version: "0".into(),
        };
        let ends = database.map(|to| store::ends_of(to.clone(), Vec::new(), Some(&me)));
        let (end, behind) = ends.unzip();
        let settings = TablesSettings {
            store: end,
            directory: directory.to_owned(),
            durability: Durability::File,
            replication: ReplicationSettings::default(),
            clean: false,
            idle_timeout_ms: 0,
            peer,
            peer_directory: None,
            at_promotion: Box::new(|_| Vec::new()),
        };
        let thread = TablesThread::start(settings, &me, sender.clone())?;
        let store = match behind {
            Some(behind) => {
                Some(behind.start(directory.to_owned(), &me, thread.store.clone(), sender)?)
            }
            None => None,
        };
        Ok(Self { thread, facts, store })
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

    pub(super) fn end(self) {
        let Self { thread: TablesThread { orders, streams, tables, writer, .. }, facts, .. } = self;
        drop((orders, streams, tables, facts));
        writer::wait_for(&[writer]);
    }
}

/// The door of the master: every connection that comes follows it.
fn open_door(master: &Side, security: Option<LinkSecurity>) -> Result<MasterAddress> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let streams = master.thread.streams.clone();
    let keys = security.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let wire = match &keys {
                Some(keys) => Wire::accept(stream, keys),
                None => Ok(Wire::plain(stream)),
            };
            if let Ok(wire) = wire
                && let Ok(event) = redo::take_in(wire)
                && streams.blocking_send(event).is_err()
            {
                return;
            }
        }
    });
    Ok(MasterAddress { address, security })
}

/// Certificates for both sides, made as operators make them.
fn keys(folder: &Path) -> Result<LinkSecurity> {
    let script = folder.join("certificates.sh");
    std::fs::write(&script, CERTIFICATES)?;
    for what in ["authority", "issue"] {
        let mut command = Command::new("bash");
        command.arg(&script).arg(what).arg(folder).arg(PAIR);
        if what == "issue" {
            command.arg(PAIR);
        }
        let output = command.output().context("bash cannot be run")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "no certificate could be made: {said}");
    }
    let file = |name: &str| Some(folder.join(name));
    let files = Files {
        certificate: file("bench.pem"),
        key: file("bench.key"),
        authority: file("authority.pem"),
    };
    let identity = Certificate::load(&files)
        .map_err(|problems| anyhow::anyhow!("the certificate cannot be used: {problems:?}"))?;
    Ok(LinkSecurity::new(&identity, PAIR, false)?)
}

const PAIR: &str = "bench";
const CERTIFICATES: &str = include_str!("../../../../../deploy/tls/certificates.sh");

pub(super) fn put(number: u64, table: &Arc<str>, value: &Bytes) -> Request {
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

/// How long a load goes on.
#[derive(Clone, Copy)]
pub(super) enum Until<'a> {
    /// So many puts.
    Count(u64),
    Told(&'a Done),
}

/// A load that is watched from another thread.
#[derive(Default)]
pub(super) struct Done {
    count: AtomicU64,
    pub(super) enough: AtomicBool,
}

impl Done {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

impl Until<'_> {
    fn goes_on(self, sent: u64) -> bool {
        match self {
            Self::Count(count) => sent < count,
            Self::Told(done) => !done.enough.load(Ordering::Acquire),
        }
    }
}

/// Keeps `outstanding` puts under way; times in microseconds.
pub(super) fn load(
    tables: &Tables,
    epoch: Epoch,
    until: Until<'_>,
    outstanding: usize,
) -> Result<(Duration, Vec<u32>)> {
    let table: Arc<str> = "bench".into();
    let value: Bytes = vec![b'x'; VALUE_BYTES].into();
    let mut under_way: VecDeque<(Instant, oneshot::Receiver<Verdict>)> = VecDeque::new();
    let mut times = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let started = Instant::now();
    runtime.block_on(async {
        let mut sent = 0;
        loop {
            while until.goes_on(sent) && under_way.len() < outstanding {
                match tables.submit(epoch, put(sent, &table, &value)) {
                    Ok(verdict) => under_way.push_back((Instant::now(), verdict)),
                    Err(_) if !under_way.is_empty() => break,
                    Err(error) => bail!("{error}"),
                }
                sent += 1;
            }
            let Some((at, verdict)) = under_way.pop_front() else { return Ok(()) };
            let verdict = verdict.await.context("a put was dropped")?;
            ensure!(matches!(verdict, Verdict::Done { .. }), "{verdict:?}");
            times.push(u32::try_from(at.elapsed().as_micros()).unwrap_or(u32::MAX));
            if let Until::Told(done) = until {
                done.count.fetch_add(1, Ordering::Release);
            }
        }
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
pub(super) fn commits(count: u64, outstanding: usize, tls: bool) -> Result<Value> {
    let scratch = tempfile::tempdir()?;
    let security = if tls { Some(keys(scratch.path())?) } else { None };
    let (master, mut standby, _) = pair(scratch.path(), security)?;
    let (epoch, other) = (Epoch(1), Epoch(2));
    let tables = &master.thread.tables;
    load(tables, epoch, Until::Count(count / 10), outstanding)?;
    let (took, times) = load(tables, epoch, Until::Count(count), outstanding)?;
    let mut figures = figures(took, times);
    figures["tls"] = tls.into();
    // What was acknowledged is there: the standby becomes master and says so.
    master.order(Order::StandDown)?;
    standby.prepare(other)?;
    let rows = standby.thread.tables.look(|store| store.table("bench").map_or(0, |t| t.len()));
    ensure!(rows as u64 == ROWS.min(count), "{rows} rows at the peer");
    master.end();
    standby.end();
    Ok(figures)
}

/// The master, its peer in sync, and the door at which that one came.
fn pair(folder: &Path, security: Option<LinkSecurity>) -> Result<(Side, Side, MasterAddress)> {
    pair_with(folder, security, None)
}

/// The same, its master with a database.
pub(super) fn pair_with(
    folder: &Path,
    security: Option<LinkSecurity>,
    database: Option<&Target>,
) -> Result<(Side, Side, MasterAddress)> {
    let directories = [folder.join("a"), folder.join("b")];
    for directory in &directories {
        std::fs::create_dir_all(directory)?;
    }
    let mut master = Side::start_with("a", &directories[0], None, database)?;
    let door = open_door(&master, security)?;
    let standby = Side::start("b", &directories[1], Some(door.clone()))?;
    master.prepare(Epoch(1))?;
    standby.order(Order::Follow { master: Some(Epoch(1)) })?;
    master.wait_for_peer()?;
    Ok((master, standby, door))
}

/// A peer that was away: how fast it catches up from the redo files, and what that costs a master
/// under full load. Both times it lacks so much and no more that the log still begins before it.
pub(super) fn catching_up(megabytes: u64, outstanding: usize) -> Result<Value> {
    let (count, more) = (records(megabytes.min(TAIL_MEGABYTES_MAX)), records(megabytes.min(60)));
    let epoch = Epoch(1);
    let scratch = tempfile::tempdir()?;
    progress(&format!("catching up: the peer is away for {count} records"));
    let mut away = Away::after(scratch.path(), count, outstanding)?;
    let before = folder_bytes(&away.directory)?;
    let started = Instant::now();
    let standby = away.comes_back()?;
    away.master.wait_for_peer()?;
    let quiet = started.elapsed();
    standby.end();
    let shipped = folder_bytes(&away.directory)? - before;
    away.master.end();

    let scratch = tempfile::tempdir()?;
    let mut away = Away::after(scratch.path(), more, outstanding)?;
    let done = Done::default();
    let tables = away.master.thread.tables.clone();
    let (alone, meanwhile, took) = std::thread::scope(|scope| -> Result<_> {
        let loading =
            scope.spawn(|| load(&tables, epoch, Until::Told(&done), outstanding).map(drop));
        let measured = (|| -> Result<_> {
            let (from, at) = (done.count(), Instant::now());
            std::thread::sleep(ALONE);
            let alone = (done.count() - from) as f64 / at.elapsed().as_secs_f64();
            let (from, at) = (done.count(), Instant::now());
            let standby = away.comes_back()?;
            away.master.wait_for_peer()?;
            let took = at.elapsed();
            let meanwhile = (done.count() - from) as f64 / took.as_secs_f64();
            Ok((standby, alone, meanwhile, took))
        })();
        done.enough.store(true, Ordering::Release);
        loading.join().expect("a load panics nowhere")?;
        let (standby, alone, meanwhile, took) = measured?;
        standby.end();
        Ok((alone, meanwhile, took))
    })?;
    away.master.end();
    Ok(json!({
        "shipped_bytes": shipped,
        "caught_up_s": quiet.as_secs_f64(),
        "megabytes_per_second": shipped as f64 / 1e6 / quiet.as_secs_f64(),
        "full_load_alone_per_second": alone,
        "full_load_while_catching_up_per_second": meanwhile,
        "catching_up_under_load_s": took.as_secs_f64(),
        "kept": meanwhile / alone,
    }))
}

/// A master that goes on alone, and where its peer has left its files.
struct Away {
    master: Side,
    door: MasterAddress,
    directory: PathBuf,
}

impl Away {
    /// The peer was in sync; since it went, so many records were written.
    fn after(folder: &Path, count: u64, outstanding: usize) -> Result<Self> {
        let (mut master, standby, door) = pair(folder, None)?;
        let epoch = Epoch(1);
        standby.end();
        let loss = master.wait("the peer is gone", |fact| match fact {
            TablesFact::PeerLost { loss, .. } => Some(*loss),
            _ => None,
        })?;
        master.order(Order::AcknowledgeAlone { epoch, loss })?;
        load(&master.thread.tables, epoch, Until::Count(count), outstanding)?;
        Ok(Self { master, door, directory: folder.join("b") })
    }

    fn comes_back(&self) -> Result<Side> {
        let standby = Side::start("b", &self.directory, Some(self.door.clone()))?;
        standby.order(Order::Follow { master: Some(Epoch(1)) })?;
        Ok(standby)
    }
}

fn records(megabytes: u64) -> u64 {
    megabytes * 1_000_000 / RECORD_BYTES
}

/// From a long redo log back to the tables.
pub(super) fn recovery(megabytes: u64, outstanding: usize) -> Result<Value> {
    let scratch = tempfile::tempdir()?;
    let epoch = Epoch(1);
    let mut side = Side::start("a", scratch.path(), None)?;
    side.prepare(epoch)?;
    let count = records(megabytes);
    progress(&format!("recovery: writing {count} records"));
    load(&side.thread.tables, epoch, Until::Count(count), outstanding)?;
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
        for tls in [false, true] {
            let figures = commits(2_000, 64, tls).unwrap();
            assert_eq!(figures["commits"], 2_000);
        }
        let figures = catching_up(2, 64).unwrap();
        assert!(figures["shipped_bytes"].as_u64() > Some(1_000_000), "{figures}");
    }

    #[test]
    fn a_log_is_read_again() {
        let figures = recovery(1, 64).unwrap();
        assert!(figures["records"].as_u64() > Some(4_000), "{figures}");
    }
}
