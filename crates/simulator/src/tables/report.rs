//! Many seeds, and what came of them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::storm::Coverage;
use super::{Options, Outcome, simulate};

/// Failures kept in full; more are counted only.
const FAILURES_KEPT: usize = 10;

/// What came of many storms.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Storms run.
    pub storms: u64,
    /// Storms that broke a rule.
    pub failed: u64,
    /// The first of them, in the order of their seeds, with transcripts.
    pub failures: Vec<Outcome>,
    /// What was hit where.
    pub coverage: Coverage,
    /// Events simulated.
    pub events: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// The longest time from the last healing until all was settled, in milliseconds.
    pub settled_ms_max: u64,
    /// Answers given to clients.
    pub answers: u64,
    /// Masterships that began.
    pub masterships: u64,
    /// Barriers that the standby said it holds.
    pub barriers: u64,
    /// Calls of the program beside the nodes, and answers that nobody knows what became of one.
    pub programs: (u64, u64),
    /// Snapshots that replaced a log.
    pub loads: u64,
    /// Acknowledged records that went with the power of every disk that held them.
    pub forgiven: u64,
    /// Rows flipped, and mismatches told.
    pub flips: (u64, u64),
    /// Real time.
    pub seconds: f64,
}

impl Report {
    fn add(&mut self, outcome: Outcome) {
        let failed = outcome.violation.is_some();
        let part = Self {
            storms: 1,
            failed: u64::from(failed),
            coverage: outcome.coverage.clone(),
            events: outcome.events,
            virtual_ms: outcome.virtual_ms,
            settled_ms_max: outcome.settled_ms,
            answers: outcome.answers,
            masterships: outcome.masterships,
            barriers: outcome.barriers,
            programs: outcome.programs,
            loads: outcome.loads,
            forgiven: outcome.forgiven,
            flips: outcome.flips,
            failures: if failed { vec![outcome] } else { Vec::new() },
            seconds: 0.0,
        };
        self.merge(part);
    }

    fn merge(&mut self, other: Self) {
        self.storms += other.storms;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|outcome| outcome.seed);
        self.failures.truncate(FAILURES_KEPT);
        self.coverage.add(&other.coverage);
        self.events += other.events;
        self.virtual_ms += other.virtual_ms;
        self.settled_ms_max = self.settled_ms_max.max(other.settled_ms_max);
        self.answers += other.answers;
        self.masterships += other.masterships;
        self.barriers += other.barriers;
        self.programs.0 += other.programs.0;
        self.programs.1 += other.programs.1;
        self.loads += other.loads;
        self.forgiven += other.forgiven;
        self.flips.0 += other.flips.0;
        self.flips.1 += other.flips.1;
    }

    /// Storms in a real second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn storms_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.storms as f64 / self.seconds } else { 0.0 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.failures.first() {
            writeln!(f, "{}", first.transcript)?;
        }
        writeln!(f, "{}", self.coverage)?;
        for outcome in &self.failures {
            let violation = outcome.violation.as_ref().expect("kept because it has one");
            writeln!(f, "seed {} FAILED: {violation}", outcome.seed)?;
        }
        writeln!(
            f,
            "{} storms of tables, {} failed; {} answers, {} masterships, {} barriers held, {} programs \
             called and {} of unknown outcome, {} snapshots loaded, {} rows flipped and {} told, {} records forgiven; settled within {} ms; {} virtual \
             hours, {} events, {:.1} s, {:.0} storms/s",
            self.storms,
            self.failed,
            self.answers,
            self.masterships,
            self.barriers,
            self.programs.0,
            self.programs.1,
            self.loads,
            self.flips.0,
            self.flips.1,
            self.forgiven,
            self.settled_ms_max,
            self.virtual_ms / 3_600_000,
            self.events,
            self.seconds,
            self.storms_per_second(),
        )
    }
}

/// Runs storms of seeds `from` to `from + count - 1` on so many threads; who fails is told in full.
#[must_use]
pub fn run(from: u64, count: u64, threads: usize, options: Options) -> Report {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut part = Report::default();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            return part;
                        }
                        part.add(simulate(from + n, options));
                    }
                })
            })
            .collect();
        for worker in workers {
            report.merge(worker.join().expect("a panic in a storm is a bug to be seen"));
        }
    });
    for outcome in &mut report.failures {
        *outcome = simulate(outcome.seed, Options { transcript: true, ..options });
    }
    report.seconds = started.elapsed().as_secs_f64();
    report
}
