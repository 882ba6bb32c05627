//! Write-behind into a real PostgreSQL on this machine: whether it keeps up with a constant rate, what a
//! stopped database costs the master, and whether it has everything once it is back.
//!
//! The tables' engine as in `engine`, without HTTP: a master with its peer in sync.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::{Bytes, Verdict};
use hotpair_gateway::Tables;
use hotpair_lab::postgres::Postgres;
use hotpair_lab::wait::eventually;
use hotpair_sql::{Shown, Target};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::engine::{self, Done, Side, Until, VALUE_BYTES};
use super::progress;

/// What it is to keep up with.
const CHANGES_PER_SECOND: u64 = 20_000;
const TICK: Duration = Duration::from_millis(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Rounds of each kind, in turns.
const ROUNDS: u64 = 2;
const LIMIT: Duration = Duration::from_mins(10);
const WARM_UP: Duration = Duration::from_secs(2);

pub(super) fn measure(seconds: u64, outstanding: usize) -> Result<Value> {
    let keeping_up = keeping_up(Duration::from_secs(seconds), CHANGES_PER_SECOND)?;
    progress(&format!("store: {keeping_up}"));
    Ok(json!({
        "keeping_up": keeping_up,
        "database_stopped": stopped(Duration::from_secs(seconds), outstanding)?,
    }))
}

/// A constant rate into a database that is there.
fn keeping_up(length: Duration, rate: u64) -> Result<Value> {
    let server = Postgres::start()?;
    let scratch = tempfile::tempdir()?;
    let target: Target = server.url().parse()?;
    let (master, standby, _door) = engine::pair_with(scratch.path(), None, Some(&target))?;
    let shown = master.store.clone().context("a store was asked for")?;
    current(&master)?;
    let done = Done::default();
    let (lags, written) = std::thread::scope(|scope| -> Result<_> {
        let watching = scope.spawn(|| watch_lag(&shown, &done));
        let written = paced(&master.thread.tables, length, rate);
        done.enough.store(true, Ordering::Release);
        let lags = watching.join().expect("a look panics nowhere");
        Ok((lags, written?))
    })?;
    let (ended, at_end) = (Instant::now(), lag(&shown));
    current(&master)?;
    let caught_up = ended.elapsed();
    let rows = same(&master, &server)?;
    master.end();
    standby.end();
    let mut sorted = lags;
    sorted.sort_unstable();
    let at = |part: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * part) as usize).copied();
    Ok(json!({
        "changes": written.0,
        "changes_per_second": written.0 as f64 / written.1.as_secs_f64(),
        "lag_records_p50": at(0.5), "lag_records_p99": at(0.99), "lag_records_worst": at(1.0),
        "lag_records_at_the_end": at_end,
        "caught_up_s": caught_up.as_secs_f64(),
        "rows_the_same": rows,
    }))
}

/// The master's full load without a database, and with one that is stopped meanwhile; in turns.
fn stopped(length: Duration, outstanding: usize) -> Result<Value> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut back = Value::Null;
    for round in 1..=ROUNDS {
        progress(&format!("store: without a database, round {round}"));
        let scratch = tempfile::tempdir()?;
        let (master, standby, _door) = engine::pair_with(scratch.path(), None, None)?;
        without.push(full_load(&master.thread.tables, length, outstanding)?);
        master.end();
        standby.end();

        progress(&format!("store: with a stopped database, round {round}"));
        let mut server = Postgres::start()?;
        let scratch = tempfile::tempdir()?;
        let target: Target = server.url().parse()?;
        let (master, standby, _door) = engine::pair_with(scratch.path(), None, Some(&target))?;
        let shown = master.store.clone().context("a store was asked for")?;
        current(&master)?;
        server.kill()?;
        with.push(full_load(&master.thread.tables, length, outstanding)?);
        let behind = lag(&shown);
        server.start_again()?;
        let started = Instant::now();
        current(&master)?;
        let took = started.elapsed();
        let rows = same(&master, &server)?;
        back = json!({
            "lag_records": behind, "caught_up_s": took.as_secs_f64(), "rows_the_same": rows,
        });
        master.end();
        standby.end();
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    Ok(json!({
        "seconds": length.as_secs(),
        "without_a_database_per_second": without,
        "database_stopped_per_second": with,
        "kept": mean(&with) / mean(&without),
        "once_it_is_back": back,
    }))
}

/// Puts a second under full load.
fn full_load(tables: &Tables, length: Duration, outstanding: usize) -> Result<f64> {
    let done = Done::default();
    std::thread::scope(|scope| {
        let loading =
            scope.spawn(|| engine::load(tables, Epoch(1), Until::Told(&done), outstanding));
        std::thread::sleep(WARM_UP);
        let (from, at) = (done.count(), Instant::now());
        std::thread::sleep(length);
        let rate = (done.count() - from) as f64 / at.elapsed().as_secs_f64();
        done.enough.store(true, Ordering::Release);
        loading.join().expect("a load panics nowhere").map(|_| rate)
    })
}

/// Puts at a constant rate, whatever becomes of them; how many were done, and in what time.
fn paced(tables: &Tables, length: Duration, rate: u64) -> Result<(u64, Duration)> {
    let table: Arc<str> = "bench".into();
    let value: Bytes = vec![b'x'; VALUE_BYTES].into();
    let mut under_way: VecDeque<oneshot::Receiver<Verdict>> = VecDeque::new();
    let (mut sent, mut done) = (0, 0);
    let started = Instant::now();
    while started.elapsed() < length || !under_way.is_empty() {
        let due = started.elapsed().min(length).as_micros() as u64 * rate / 1_000_000;
        while sent < due {
            under_way.push_back(tables.submit(Epoch(1), engine::put(sent, &table, &value))?);
            sent += 1;
        }
        while let Some(first) = under_way.front_mut() {
            match first.try_recv() {
                Ok(verdict) => {
                    ensure!(matches!(verdict, Verdict::Done { .. }), "{verdict:?}");
                    under_way.pop_front();
                    done += 1;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => anyhow::bail!("a put was dropped"),
            }
        }
        std::thread::sleep(TICK);
    }
    Ok((done, started.elapsed()))
}

fn lag(shown: &Shown) -> Option<u64> {
    shown.figures().lag_records
}

fn watch_lag(shown: &Shown, done: &Done) -> Vec<u64> {
    let mut lags = Vec::new();
    while !done.enough.load(Ordering::Acquire) {
        lags.extend(lag(shown));
        std::thread::sleep(LOOK_EVERY);
    }
    lags
}

/// Waits until the database has everything.
fn current(master: &Side) -> Result<()> {
    let shown = master.store.as_ref().context("a store was asked for")?;
    eventually(LIMIT, "the database has everything", || {
        let figures = shown.figures();
        let acknowledged = master.thread.tables.look(hotpair_core::tables::store::Store::applied);
        let everything = figures.mark.is_some_and(|(_, number)| number == acknowledged);
        ensure!(figures.state == "current" && everything, "{figures:?}, {acknowledged}");
        Ok(())
    })
}

/// Every row stands in the database as it stands in memory; how many.
fn same(master: &Side, server: &Postgres) -> Result<usize> {
    let wanted: BTreeMap<String, (u64, String)> = master.thread.tables.look(|store| {
        let rows = store.table("bench").into_iter().flat_map(|table| table.scan(b""));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        rows.map(|(key, row)| (text(key), (row.version, text(&row.value)))).collect()
    });
    let select = "SELECT convert_from(key, 'UTF8'), version, convert_from(value, 'UTF8') \
                  FROM hotpair_rows";
    let mut found = BTreeMap::new();
    for line in server.ask(select)?.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [key, version, value] = columns[..] else { anyhow::bail!("no row: {line}") };
        found.insert(key.to_owned(), (version.parse()?, value.to_owned()));
    }
    ensure!(found == wanted, "{} rows in memory, {} in the database", wanted.len(), found.len());
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_has_everything_that_was_written_at_a_constant_rate() {
        let figures = keeping_up(Duration::from_secs(1), 2_000).unwrap();
        assert!(figures["rows_the_same"].as_u64() > Some(1_900), "{figures}");
    }
}
