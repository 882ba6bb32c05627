//! Write-behind: what is written into an SQL database next, and when to stop and say so.
//!
//! ```text
//!            may write in a term              fits the log
//!  closed ───────────▶ open(mark) ───────────────────────▶ tail … tail … rest
//!    ▲                     │  the log is not what the mark is of, or does not go back that far
//!    │ failed: backoff     └────▶ copy: the whole store replaces what is there
//!    │ refused: slowly
//!    └ overtaken: never again in this epoch
//! ```
//!
//! The source is the log itself, never a queue beside it: nobody who commits waits for a database, and
//! a database that is away for long costs nothing but log that is kept (so much and no more), and then a
//! copy. A [`Mark`] says how far a database is; it stands in the database and changes in the very
//! transaction that changes the rows. Whoever asks this machine does the waiting.

use std::fmt;

use super::position::History;
use crate::pair::identity::Epoch;
use crate::pair::moment::Moment;

/// Whose the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// This node's alone: each node writes a copy of its own, master or not.
    Own,
    /// The pair's: only the master writes.
    Shared,
}

/// How far a database is: the last record it has, and the mastership that wrote that record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The record's epoch.
    pub epoch: Epoch,
    /// The process life that was master in it.
    pub life: u64,
    /// The record's number; 0: nothing was ever written.
    pub number: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of epoch {}", self.number, self.epoch)
    }
}

/// What the tables say of themselves.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Whose data they are: the cluster id, as a text.
    pub owner: Option<String>,
    /// The epoch in which this node is master of them.
    pub mastership: Option<Epoch>,
    /// They are whole.
    pub whole: bool,
    /// Grows whenever files of the log were cut or replaced.
    pub generation: u64,
    /// The first record that the log still has.
    pub oldest: u64,
    /// The masterships of the log.
    pub history: History,
}

impl Told {
    /// The mark of this record, as far as its mastership is known.
    #[must_use]
    pub fn mark(&self, number: u64) -> Mark {
        let start = self.history.starts().iter().rev().find(|start| start.first <= number);
        start.map_or(Mark { number, ..Mark::default() }, |start| Mark {
            epoch: start.epoch,
            life: start.life,
            number,
        })
    }
}

/// In what right a database is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Whose data it is.
    pub owner: String,
    /// The mastership; 0 for a copy of one's own.
    pub epoch: Epoch,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing now.
    Rest,
    /// Leave the database: there is no right to write any more.
    Close,
    /// Connect, and raise the fence to this term before anything else.
    Open(Term),
    /// Replace what is there by the whole store; `from` is what the database has now.
    Copy { from: Mark },
    /// Write what follows this mark in the log, up to this record at most.
    Tail { after: Mark, up_to: u64 },
}

/// Why a step was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may go well another time.
    Failed(String),
    /// Somebody has to do something first.
    Refused(String),
    /// A newer mastership has raised the fence. Nothing was written.
    Overtaken {
        /// Its epoch.
        by: Epoch,
    },
    /// The database is elsewhere than was believed: what was thought lost has arrived after all.
    Moved,
    /// The log does not go back that far any more.
    LogGone,
}

/// A failure is told when it has lasted so long.
const TELL_AFTER_MS: u64 = 2_000;
/// The first wait after a failure; each further one is twice as long.
const WAIT_MS_MIN: u64 = 100;
/// The longest wait.
const WAIT_MS_MAX: u64 = 5_000;
/// More records than this, for [`LAG_TELL_AFTER_MS`], are told.
const LAG_MAX: u64 = 100_000;
const LAG_TELL_AFTER_MS: u64 = 5_000;
/// Changes wait, and nothing moves.
const STILL_MS_MAX: u64 = 5_000;

/// The machine. See the file's header.
#[derive(Debug)]
pub struct Behind {
    sink: Sink,
    /// The database is open in this right.
    term: Option<Term>,
    /// What the database has, as far as was last seen.
    mark: Option<Mark>,
    /// The log is no way any more.
    copy: bool,
    retry_at: Moment,
    failures: u32,
    trouble: Option<(Moment, String)>,
    overtaken: Option<Epoch>,
    lag: Option<u64>,
    /// Since when changes wait without any being written.
    still_since: Option<Moment>,
    /// Since when too many wait.
    far_since: Option<Moment>,
    quarantined: u64,
}

impl Behind {
    /// Nothing is open yet.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        Self {
            sink,
            term: None,
            mark: None,
            copy: false,
            retry_at: Moment(0),
            failures: 0,
            trouble: None,
            overtaken: None,
            lag: None,
            still_since: None,
            far_since: None,
            quarantined: 0,
        }
    }

    // --- looks

    /// What is to be done next. `acknowledged`: the last record that readers see.
    #[must_use]
    pub fn next(&self, now: Moment, told: &Told, acknowledged: u64) -> Step {
        let Some(term) = self.right(told) else {
            return if self.term.is_some() { Step::Close } else { Step::Rest };
        };
        match (&self.term, self.mark) {
            (Some(open), _) if *open != term => Step::Close,
            _ if now < self.retry_at => Step::Rest,
            (None, _) | (Some(_), None) => Step::Open(term),
            (Some(_), Some(mark)) if self.copy || !fits(mark, told, acknowledged) => {
                Step::Copy { from: mark }
            }
            (Some(_), Some(after)) if after.number < acknowledged => {
                Step::Tail { after, up_to: acknowledged }
            }
            (Some(_), Some(_)) => Step::Rest,
        }
    }

    /// Does what was begun in this right still have it?
    #[must_use]
    pub fn holds(&self, told: &Told) -> bool {
        self.term.is_some() && self.term == self.right(told)
    }

    /// The right to write that there is now.
    #[must_use]
    pub fn right(&self, told: &Told) -> Option<Term> {
        let owner = told.owner.clone().filter(|_| told.whole)?;
        match self.sink {
            Sink::Own => Some(Term { owner, epoch: Epoch(0) }),
            Sink::Shared => {
                let epoch = told.mastership?;
                self.overtaken.is_none_or(|by| by < epoch).then_some(Term { owner, epoch })
            }
        }
    }

    /// The first record that is still to be read; none while nothing is to be written here.
    #[must_use]
    pub fn needs(&self, told: &Told) -> Option<u64> {
        self.right(told)?;
        Some(self.mark.map_or(1, |mark| mark.number + 1))
    }

    /// Records that are acknowledged and not in the database; none while this node does not write.
    /// All of them as long as nobody knows how far the database is.
    #[must_use]
    pub fn lag(&self) -> Option<u64> {
        self.lag
    }

    /// What the database has, as far as was last seen.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// The database is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.term.is_some()
    }

    /// Rows that do not fit their columns.
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.quarantined
    }

    /// What failed last, if nothing went well since.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.trouble.as_ref().map(|(_, what)| what.as_str())
    }

    /// What an operator must hear. It changes with the magnitude only, not with each record.
    #[must_use]
    pub fn trouble(&self, now: Moment) -> Option<String> {
        let wait = match self.lag {
            None | Some(0) => String::new(),
            Some(lag) => format!("; {} changes or more wait", magnitude(lag)),
        };
        if let Some((since, what)) = &self.trouble
            && now.ms_since(*since) >= TELL_AFTER_MS
        {
            return Some(format!("{what}{wait}"));
        }
        let long = |since: Option<Moment>, ms| since.is_some_and(|at| now.ms_since(at) >= ms);
        if long(self.still_since, STILL_MS_MAX) {
            return Some(format!("the database does not answer{wait}"));
        }
        if long(self.far_since, LAG_TELL_AFTER_MS) {
            return Some(format!("the database does not keep up{wait}"));
        }
        (self.quarantined > 0).then(|| {
            format!(
                "{} rows or more do not fit their columns and stand in hotpair_quarantine, with the \
                 reason",
                magnitude(self.quarantined)
            )
        })
    }

    // --- facts

    /// A look at both sides, whatever else is going on.
    pub fn note(&mut self, now: Moment, told: &Told, acknowledged: u64) {
        if self.right(told).is_none() {
            (self.lag, self.still_since, self.far_since) = (None, None, None);
            if self.sink == Sink::Shared {
                self.quarantined = 0;
            }
            // It is another one's affair now; except what is true all the same.
            let still =
                matches!((self.overtaken, told.mastership), (Some(by), Some(own)) if own <= by);
            if !still {
                self.trouble = None;
            }
            return;
        }
        let lag = acknowledged.saturating_sub(self.mark.map_or(0, |mark| mark.number));
        self.lag = Some(lag);
        self.still_since = (lag > 0).then(|| self.still_since.unwrap_or(now));
        self.far_since = (lag > LAG_MAX).then(|| self.far_since.unwrap_or(now));
    }

    /// The database is open in this right, its fence raised.
    pub fn opened(&mut self, now: Moment, term: Term, mark: Mark, quarantined: u64) {
        self.term = Some(term);
        self.mark = Some(mark);
        self.quarantined = quarantined;
        self.copy = false;
        self.went_well(now);
    }

    /// The database has everything up to this mark.
    pub fn written(&mut self, now: Moment, mark: Mark, quarantined: u64) {
        self.mark = Some(mark);
        self.quarantined = quarantined;
        self.copy = false;
        self.went_well(now);
    }

    /// A part of a copy is done.
    pub fn progressed(&mut self, now: Moment) {
        self.still_since = self.still_since.map(|_| now);
    }

    /// It was left.
    pub fn closed(&mut self) {
        self.term = None;
        if self.sink == Sink::Shared {
            // Whoever writes it now, it moves.
            self.mark = None;
        }
        self.retry_at = Moment(0);
    }

    /// A step was not done, and the database is closed, except after `LogGone`. `dice`: any number, so
    /// that the two nodes do not knock at the same time.
    pub fn failed(&mut self, now: Moment, failure: Failure, dice: u64) {
        let said = match failure {
            Failure::LogGone => {
                self.copy = true;
                return;
            }
            Failure::Moved => {
                self.term = None;
                self.retry_at = now + WAIT_MS_MIN;
                return;
            }
            Failure::Overtaken { by } => {
                self.overtaken = Some(by);
                format!("the database belongs to epoch {by} already: nothing is written here")
            }
            Failure::Refused(what) => {
                self.retry_at = now + WAIT_MS_MAX;
                what
            }
            Failure::Failed(what) => {
                self.failures = self.failures.saturating_add(1);
                let longest = WAIT_MS_MAX.min(WAIT_MS_MIN << (self.failures - 1).min(16));
                self.retry_at = now + (longest / 2 + dice % (longest / 2 + 1));
                what
            }
        };
        self.term = None;
        let since = self.trouble.as_ref().map_or(now, |(since, _)| *since);
        self.trouble = Some((since, said));
    }

    fn went_well(&mut self, now: Moment) {
        self.failures = 0;
        self.trouble = None;
        self.retry_at = Moment(0);
        self.still_since = self.still_since.map(|_| now);
    }
}

/// Does the log go on where the database ends?
fn fits(mark: Mark, told: &Told, acknowledged: u64) -> bool {
    if mark.number == 0 {
        // An empty database is filled at once: a log may be longer than what it leads to.
        return acknowledged == 0;
    }
    mark.number <= acknowledged && mark.number + 1 >= told.oldest && told.mark(mark.number) == mark
}

fn magnitude(count: u64) -> u64 {
    10_u64.pow(count.max(1).ilog10())
}

#[cfg(test)]
mod tests;
