//! Fault runs: a pair with clients of its tables is broken in drawn ways, healed, and its history
//! judged. Nothing acknowledged is lost, nothing is done twice, nobody sees the past or what does not
//! stay, nobody logs in twice.
//!
//! Ten runs; `HOTPAIR_SOAK=1` (`make soak`) two hundred. `HOTPAIR_SEED=n` replays one plan (what the
//! machine does meanwhile is its own affair), with `HOTPAIR_RUNS=m` as many from there on;
//! `HOTPAIR_PARALLEL` says how many run at a time.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Display;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::faults::{Kind, Planned, carry_out, draw};
use hotpair_integration_tests::steps::LIMIT;
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::{Enough, Report};
use hotpair_lab::dice::Dice;
use hotpair_lab::session::User;
use hotpair_lab::table_load::Plan;

const FIRST_SEED: u64 = 1;
const RUNS: u64 = 10;
const SOAK_RUNS: u64 = 200;
const CLIENTS: usize = 8;
/// Far fewer than there are in an undisturbed second.
const ACKNOWLEDGED_MIN: u64 = 100;

/// What a seed stands for.
struct Drawn {
    faults: Vec<Planned>,
    /// Whether the last looks are at the node that stood by.
    look_at_the_other: bool,
    load_seed: u64,
}

fn drawn(seed: u64) -> Drawn {
    let mut dice = Dice::new(seed);
    let faults = draw(seed, &mut dice);
    Drawn { faults, look_at_the_other: dice.percent(33), load_seed: dice.number() }
}

fn plan(seed: u64, user: &User) -> Plan {
    Plan { clients: CLIENTS, threads: 2, watchers: 2, pause_ms_max: 30, seed, user: user.clone() }
}

/// One run; the report is good, or the error tells what to know.
fn run(seed: u64) -> Result<Report> {
    let drawn = drawn(seed);
    let relays = drawn.faults.iter().any(|planned| planned.kind == Kind::CutLink);
    let mut lab = TableLab::new(&Options { relays, ..Options::default() })?;
    let judged = judge(&mut lab, &drawn);
    let told = match judged {
        Ok(report) if report.is_good() && report.failed == 0 && report.unknown == 0 => {
            return Ok(report);
        }
        Ok(report) => report.to_string(),
        Err(error) => format!("{error:#}"),
    };
    let kept = lab.keep(&format!("seed-{seed}"))?;
    anyhow::bail!("{told}\n{}\nkept in {}", lab.tails(), kept.display())
}

fn judge(lab: &mut TableLab, drawn: &Drawn) -> Result<Report> {
    let load = lab.start_load(&plan(drawn.load_seed, &lab.user))?;
    for planned in &drawn.faults {
        carry_out(lab, planned).with_context(|| planned.kind.name())?;
    }
    lab.in_sync().context("after the last fault")?;
    let before = load.acknowledged();
    hotpair_lab::wait::eventually(LIMIT, "the clients are served again", || {
        let since = load.acknowledged() - before;
        ensure!(since >= CLIENTS as u64, "only {since} changes");
        Ok(())
    })?;
    if drawn.look_at_the_other {
        lab.switch_over().context("before the last looks")?;
    }
    let requests = load.stop(LIMIT)?;
    lab.in_sync().context("in the end")?;
    let kinds = drawn.faults.iter().map(|planned| planned.kind);
    let elections = kinds.clone().filter(|kind| kind.elects()).count();
    let enough = Enough {
        planned: kinds.map(|kind| kind.name().to_owned()).collect(),
        acknowledged_min: ACKNOWLEDGED_MIN,
        epochs_min: 1 + elections + usize::from(drawn.look_at_the_other),
    };
    lab.judge(requests, &enough)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn seeds() -> Vec<u64> {
    let soak = env::var_os("HOTPAIR_SOAK").is_some();
    let seed = number("HOTPAIR_SEED");
    let runs = match (number("HOTPAIR_RUNS"), seed) {
        (Some(runs), _) => runs,
        (None, Some(_)) => 1,
        (None, None) if soak => SOAK_RUNS,
        (None, None) => RUNS,
    };
    let first = seed.unwrap_or(FIRST_SEED);
    (first..first + runs).collect()
}

#[expect(clippy::print_stdout, reason = "seeds and figures, for --nocapture and for failures")]
fn print(line: &dyn Display) {
    println!("{line}");
}

#[test]
fn nothing_is_lost_doubled_or_shown_wrong_whatever_dies() {
    let _turn = Turn::alone().unwrap();
    let seeds = seeds();
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let at_a_time = number("HOTPAIR_PARALLEL").unwrap_or(2).min(seeds.len() as u64);
    let work = || {
        loop {
            let place = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            let Some(seed) = seeds.get(place) else { return };
            let began = Instant::now();
            let names: Vec<String> = drawn(*seed).faults.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            match run(*seed) {
                Ok(report) => print(&format_args!(
                    "seed {seed}, {:.1?}: {names}: {}",
                    began.elapsed(),
                    report.tables
                )),
                Err(error) => {
                    print(&format_args!("seed {seed}: {names}: FAILED: {error:#}"));
                    failures.lock().unwrap().push(format!("HOTPAIR_SEED={seed}: {names}"));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), seeds.len());
}

#[test]
fn the_ten_runs_of_every_day_hold_each_kind_of_fault() {
    let seeds = FIRST_SEED..FIRST_SEED + RUNS;
    let kinds: BTreeSet<Kind> =
        seeds.flat_map(|seed| drawn(seed).faults).map(|planned| planned.kind).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<Kind>>(), Kind::ALL);
}

#[test]
fn a_seed_always_stands_for_the_same_plan() {
    assert_eq!(drawn(4).faults, drawn(4).faults);
    assert_ne!(drawn(4).faults, drawn(5).faults);
    let longest = (0..1_000).flat_map(|seed| drawn(seed).faults).map(|planned| planned.lasts).max();
    assert!(longest.unwrap() <= Duration::from_secs(6));
}
