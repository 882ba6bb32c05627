//! `hotpair bench`: the figures that the project promises, measured on this machine.
//!
//! Each part can be run alone. The report is JSON on standard output, with the machine's name and
//! versions, so that two reports can be told apart; progress goes to standard error.

pub(crate) mod dataset;
mod engine;
mod failover;
mod feed;
mod load;
mod router;
mod store;
mod stream;
mod tables;

use std::io::Write;
use std::process::Command;

use anyhow::Result;
use serde_json::{Map, Value, json};

use hotpair_ctl::Outcome;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArguments {
    /// The parts to run; all of them when none is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How many times the master is killed.
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// How many times the master is frozen, for each session time-out.
    #[arg(long, default_value_t = 5)]
    freezes: usize,
    /// How many planned switches.
    #[arg(long, default_value_t = 50)]
    switches: usize,
    /// Rows of the generated positions file.
    #[arg(long, default_value_t = 5_000_000)]
    rows: u64,
    /// Commits of the tables' engine without HTTP.
    #[arg(long, default_value_t = 5_000_000)]
    commits: u64,
    /// Requests that the engine's caller keeps under way.
    #[arg(long, default_value_t = 1_024)]
    outstanding: usize,
    /// Megabytes of redo for catching up and for recovery.
    #[arg(long, default_value_t = 1_000)]
    redo_megabytes: u64,
    /// Connections that write at a time, through HTTP and to Redis.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of each round of them.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// The engine's redo stream goes through TLS.
    #[arg(long)]
    tls: bool,
    /// Seconds of each round with an SQL database.
    #[arg(long, default_value_t = 60)]
    store_seconds: u64,
    /// Updates a second of a dataset's feed.
    #[arg(long, default_value_t = 50_000)]
    updates: u64,
    #[command(flatten)]
    load: load::LoadArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Part {
    /// kill -9 of the master until the other serves.
    Kill,
    /// SIGSTOP of the master until the other serves, at T = 2 s and 4 s.
    Freeze,
    /// Planned switches under load.
    Switch,
    /// Memory and processor time of an idle pair.
    Idle,
    /// Loading a large dataset, beside polars where Python has it.
    Dataset,
    /// Storms a second in the simulator.
    Simulator,
    /// Commits of the tables to a peer, without HTTP.
    Engine,
    /// A late peer, and what it costs a master under load.
    Catchup,
    /// From a redo log back to the tables.
    Recovery,
    /// Commits through the clients' HTTP, beside Redis with one replica.
    Tables,
    /// Write-behind into PostgreSQL: keeping up, and what a stopped one costs.
    Store,
    /// Requests carried by the router, beside HAProxy.
    Router,
    /// Lookups of a dataset while its feed changes it, beside lookups in peace.
    Feed,
    /// Calls of the client library at a constant rate, through a switch and a kill.
    Load,
}

const ALL: [Part; 14] = [
    Part::Kill,
    Part::Freeze,
    Part::Switch,
    Part::Idle,
    Part::Dataset,
    Part::Simulator,
    Part::Engine,
    Part::Catchup,
    Part::Recovery,
    Part::Tables,
    Part::Store,
    Part::Router,
    Part::Feed,
    Part::Load,
];

/// Runs the parts and prints the report.
pub(crate) fn run(arguments: &BenchArguments) -> Result<Outcome> {
    let parts = if arguments.parts.is_empty() { ALL.to_vec() } else { arguments.parts.clone() };
    let mut report = Map::new();
    report.insert("machine".to_owned(), machine());
    for part in parts {
        let name = format!("{part:?}").to_lowercase();
        progress(&format!("{name} …"));
        let figures = match part {
            Part::Kill => failover::kills(arguments.kills)?,
            Part::Freeze => json!({
                "t_2s": failover::freezes(arguments.freezes, 2_000)?,
                "t_4s": failover::freezes(arguments.freezes, 4_000)?,
            }),
            Part::Switch => failover::switches(arguments.switches)?,
            Part::Idle => failover::idle()?,
            Part::Dataset => dataset::measure(arguments.rows)?,
            Part::Simulator => simulator(),
            Part::Engine => {
                engine::commits(arguments.commits, arguments.outstanding, arguments.tls)?
            }
            Part::Catchup => engine::catching_up(arguments.redo_megabytes, arguments.outstanding)?,
            Part::Tables => tables::against_redis(arguments.connections, arguments.seconds)?,
            Part::Store => store::measure(arguments.store_seconds, arguments.outstanding)?,
            Part::Router => router::against_haproxy(arguments.connections, arguments.seconds)?,
            Part::Load => load::measure(&arguments.load, arguments.connections, arguments.seconds)?,
            Part::Feed => feed::measure(arguments.updates, arguments.seconds)?,
            Part::Recovery => engine::recovery(arguments.redo_megabytes, arguments.outstanding)?,
        };
        progress(&format!("{name}: {figures}"));
        report.insert(name, figures);
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&Value::Object(report))?)?;
    Ok(Outcome::Done)
}

/// Storms of 60 virtual seconds with every fault class, on one core.
fn simulator() -> Value {
    const STORMS: u64 = 1_000;
    let report = hotpair_simulator::bench(STORMS);
    json!({
        "storms": report.storms,
        "failed": report.failed,
        "elections": report.elections,
        "storms_per_second": report.storms_per_second(),
        "events_per_second": report.events_per_second(),
    })
}

pub(super) fn progress(text: &str) {
    // Progress is for whoever looks; the report does not depend on it.
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}

/// What tells this machine's figures from another's.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|text| text.trim_start_matches([' ', '\t', ':']).to_owned());
    let version = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    };
    json!({
        "name": read("/proc/sys/kernel/hostname").trim(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "processor": processor,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "hotpair": env!("CARGO_PKG_VERSION"),
        "java": version("java", "-version"),
        "zookeeper": version("dpkg-query", "--show"). and_then(|_| {
            let output = Command::new("dpkg-query")
                .args(["--show", "--showformat=${Version}", "libzookeeper-java"])
                .output()
                .ok()?;
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }),
    })
}

/// Figures of a row of measurements, in milliseconds.
pub(super) fn spread(mut ms: Vec<f64>) -> Value {
    ms.sort_by(f64::total_cmp);
    let at = |part: f64| ms.get(((ms.len() as f64 - 1.0) * part).round() as usize).copied();
    json!({
        "count": ms.len(),
        "min_ms": at(0.0), "median_ms": at(0.5), "p95_ms": at(0.95), "worst_ms": at(1.0),
    })
}
