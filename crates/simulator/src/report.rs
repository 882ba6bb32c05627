//! Many seeds, and what came of them.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::fault::Fault;
use super::outcome::Outcome;
use super::plan::Options;
use super::{simulate, transcript};

/// Failures kept in full; more are counted only.
const FAILURES_KEPT: usize = 20;

/// What came of many storms.
#[derive(Clone, Debug)]
pub struct Report {
    /// Storms run.
    pub storms: u64,
    /// Storms that broke a rule.
    pub failed: u64,
    /// The first of them, in the order of their seeds.
    pub failures: Vec<Outcome>,
    /// Events simulated.
    pub events: u64,
    /// Epochs entered.
    pub elections: u64,
    /// Virtual time simulated, in milliseconds.
    pub virtual_ms: u64,
    /// Real time.
    pub seconds: f64,
    /// Acts refused by the receiver's epoch, of nodes whose clock had stood still.
    pub refused_at_sinks: u64,
    /// For each fault class: storms in which it was planned, and times it happened.
    pub coverage: [(u64, u64); Fault::ALL.len()],
}

impl Report {
    fn new() -> Self {
        Self {
            storms: 0,
            failed: 0,
            failures: Vec::new(),
            events: 0,
            elections: 0,
            virtual_ms: 0,
            seconds: 0.0,
            refused_at_sinks: 0,
            coverage: [(0, 0); Fault::ALL.len()],
        }
    }

    fn add(&mut self, outcome: Outcome) {
        self.storms += 1;
        self.events += outcome.events;
        self.elections += u64::from(outcome.elections);
        self.virtual_ms += outcome.virtual_ms;
        self.refused_at_sinks += u64::from(outcome.refused_at_sinks);
        for (i, (planned, happened)) in self.coverage.iter_mut().enumerate() {
            *planned += u64::from(outcome.planned[i]);
            *happened += u64::from(outcome.happened[i]);
        }
        if outcome.violation.is_some() {
            self.failed += 1;
            if self.failures.len() < FAILURES_KEPT {
                self.failures.push(outcome);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.storms += other.storms;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|o| o.seed);
        self.failures.truncate(FAILURES_KEPT);
        self.events += other.events;
        self.elections += other.elections;
        self.virtual_ms += other.virtual_ms;
        self.refused_at_sinks += other.refused_at_sinks;
        for (mine, theirs) in self.coverage.iter_mut().zip(other.coverage) {
            mine.0 += theirs.0;
            mine.1 += theirs.1;
        }
    }

    /// Storms in a real second.
    #[must_use]
    pub fn storms_per_second(&self) -> f64 {
        per_second(self.storms, self.seconds)
    }

    /// Events in a real second.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        per_second(self.events, self.seconds)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<22} {:>8} {:>10}", "fault", "storms", "times")?;
        for fault in Fault::ALL {
            let (planned, happened) = self.coverage[fault.index()];
            writeln!(f, "{:<22} {planned:>8} {happened:>10}", format!("{fault:?}"))?;
        }
        for outcome in &self.failures {
            let violation = outcome.violation.as_ref().expect("kept because it has one");
            writeln!(f, "seed {} FAILED: {violation}", outcome.seed)?;
        }
        writeln!(
            f,
            "{} storms, {} failed, {} elections, {} virtual hours, {} acts refused by epoch; \
             {:.1} s, {:.0} storms/s, {:.2} million events/s",
            self.storms,
            self.failed,
            self.elections,
            self.virtual_ms / 3_600_000,
            self.refused_at_sinks,
            self.seconds,
            self.storms_per_second(),
            self.events_per_second() / 1e6,
        )
    }
}

/// Runs storms of seeds `from` to `from + count - 1` on so many threads.
#[must_use]
pub fn run(from: u64, count: u64, threads: usize, options: Options) -> Report {
    run_with(from, count, threads, options, &|_| {})
}

fn run_with(
    from: u64,
    count: u64,
    threads: usize,
    options: Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Report {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let mut report = Report::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut part = Report::new();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            return part;
                        }
                        part.add(simulate(from + n, options));
                        progress(n);
                    }
                })
            })
            .collect();
        for worker in workers {
            report.merge(worker.join().expect("a panic in a storm is a bug to be seen"));
        }
    });
    report.seconds = started.elapsed().as_secs_f64();
    report
}

/// Storms of 60 virtual seconds with every fault class and three elections at least, on one core.
#[must_use]
pub fn bench(storms: u64) -> Report {
    let options = Options { every_class: true, elections_min: 3, ..Options::default() };
    run(1, storms, 1, options)
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub struct SimulateArguments {
    /// The first seed.
    pub from: u64,
    /// How many seeds.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// Print the transcript even if all is well; for one seed.
    pub transcript: bool,
    /// As in the benchmark: every fault class in each storm.
    pub every_class: bool,
}

/// Runs what was asked for and prints it; the exit code is 0 if no rule was broken.
#[must_use]
pub fn main_with(arguments: SimulateArguments) -> u8 {
    let SimulateArguments { from, seeds, threads, .. } = arguments;
    let elections_min = if arguments.every_class { 3 } else { 1 };
    let every_class = arguments.every_class;
    let options = Options { every_class, elections_min, ..Options::default() };
    let step = (seeds / 20).max(1);
    let progress = |n: u64| {
        if seeds >= 1_000 && (n + 1).is_multiple_of(step) {
            say(format_args!("{} of {seeds} storms", n + 1));
        }
    };
    let report = run_with(from, seeds, threads, options, &progress);
    if arguments.transcript && seeds == 1 {
        say(format_args!("{}", transcript(from, options)));
    } else if let Some(first) = report.failures.first() {
        // One failing seed is told in full; it comes out the same whenever it is run.
        say(format_args!("{}", transcript(first.seed, options)));
        let seed = first.seed;
        say(format_args!("run it again: hotpair simulate --from {seed} --seeds 1\n"));
    }
    say(format_args!("{report}"));
    u8::from(report.failed > 0)
}

/// Prints a line; a reader that has gone away is no reason to stop.
fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{what}");
}
