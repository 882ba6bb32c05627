//! When a dataset is loaded, tried again, renewed and dropped.
//!
//! A renewal is a second load while what the first one brought is looked at: it takes its place when it
//! is done, and changes nothing when it fails.
//!
//! ```text
//!   Absent ────────────▶ Loading ────────────────────▶ Ready
//!     ▲                   │  ▲ │                         │
//!     │     not wanted    │  │ │ LoadFailed              │
//!     ├───────────────────┘  │ ▼                         │
//!     │     not wanted     Failed  (again after 1, 2, 4 … 60 s)
//!     ├──────────────────────┘                           │
//!     │                  not wanted                      │
//!     └──────────────────────────────────────────────────┘
//! ```
//!
//! *Wanted* is: always with [`LoadMode::Preload`], while master with [`LoadMode::OnPromote`].

use std::str::FromStr;

/// When a dataset is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// By the master, when it becomes one; dropped when it no longer is.
    OnPromote,
    /// By both nodes, from their start on.
    Preload,
}

impl FromStr for LoadMode {
    type Err = UnknownLoadMode;

    fn from_str(word: &str) -> Result<Self, UnknownLoadMode> {
        match word {
            "on-promote" => Ok(LoadMode::OnPromote),
            "preload" => Ok(LoadMode::Preload),
            other => Err(UnknownLoadMode(other.to_owned())),
        }
    }
}

/// A word that names no load mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no load mode: on-promote or preload")]
pub struct UnknownLoadMode(pub String);

/// The number of one try to load, counted up from 1 in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// Where a dataset stands.
#[derive(Debug, Clone, PartialEq)]
pub enum DatasetState {
    /// Neither here nor coming.
    Absent,
    /// Being loaded.
    Loading {
        /// Which try this is.
        attempt: Attempt,
        /// When it began.
        since_ms: u64,
        /// Rows read so far.
        rows: u64,
        /// How much of the source is read, 0 to 100.
        percent: u8,
        /// Reading speed since the beginning.
        rows_per_second: u64,
    },
    /// In memory.
    Ready {
        /// Which try brought it.
        attempt: Attempt,
        /// How many rows there are.
        rows: u64,
        /// When the load that brought it began: it shows nothing newer than that.
        as_of_ms: u64,
        /// How long loading took.
        took_ms: u64,
    },
    /// The last try failed; there will be another.
    Failed {
        /// Which try failed.
        attempt: Attempt,
        /// Why, for people.
        reason: String,
        /// When the next try begins.
        retry_at_ms: u64,
    },
}

/// What happened. Facts about a load carry its attempt; one that is not the current is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The node is up and has no role yet.
    NodeStarted,
    /// The node became master.
    Promoted,
    /// The node is no longer master.
    Demoted,
    /// The load came this far.
    Progressed {
        /// The load's attempt.
        attempt: Attempt,
        /// Rows read so far.
        rows: u64,
        /// How much of the source is read, 0 to 100.
        percent: u8,
        /// Reading speed since the beginning.
        rows_per_second: u64,
    },
    /// The load is done and the data can be published.
    Loaded {
        /// The load's attempt.
        attempt: Attempt,
        /// How many rows there are.
        rows: u64,
    },
    /// The load failed and left nothing behind.
    LoadFailed {
        /// The load's attempt.
        attempt: Attempt,
        /// Why, for people.
        reason: String,
    },
    /// What is held is to be loaded anew; nothing where nothing is held.
    Outdated,
    /// The deadline the machine asked for has come.
    TimePassed,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Begin to load, and report with this attempt.
    StartLoad {
        /// The stamp of all facts about this load.
        attempt: Attempt,
    },
    /// Stop this load; nobody waits for its end.
    CancelLoad {
        /// The load to stop.
        attempt: Attempt,
    },
    /// Let lookups see what this load brought.
    Publish {
        /// The load whose data it is.
        attempt: Attempt,
    },
    /// Take the published data away and free its memory.
    Drop,
    /// Bring what came by the feed since this load began into what it brought, and say so.
    Replay {
        /// The load that is done.
        attempt: Attempt,
    },
    /// Forget what came by the feed and waits for a load: it is older than what the next load brings,
    /// and perhaps not all of it.
    Forget,
    /// Follow the feed, and report with this number.
    Subscribe {
        /// The stamp of all events of this subscription.
        subscription: Subscription,
    },
    /// Follow it no more, and forget what it brought.
    Unsubscribe {
        /// The subscription to end.
        subscription: Subscription,
    },
}

/// The number of one time of following a feed, counted up from 1 in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription(pub u64);

/// Whether a caller can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// Yes.
    Ready,
    /// Not yet; ask again later.
    StillLoading {
        /// How much of the source is read, 0 to 100.
        percent: u8,
    },
    /// No; it is being retried.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// No; it is not kept by this node now.
    Absent,
}

/// The machine that decides when a dataset is loaded, tried again and dropped.
///
/// Invariants: at most one load runs, the one of the state's attempt or, while `Ready`, a renewal;
/// attempts only count up; in `Absent` nothing runs and nothing is held.
#[derive(Debug, Clone)]
pub struct Loading {
    mode: LoadMode,
    state: DatasetState,
    /// The load that is to take the place of what is held, and when it began.
    renewal: Option<(Attempt, u64)>,
    last_attempt: u64,
    /// Failures since the last success, with the latest reason: the alert's condition.
    failures: u32,
    last_failure: Option<String>,
}

impl Loading {
    /// A dataset that nothing has been done for yet.
    pub fn new(mode: LoadMode) -> Loading {
        Loading {
            mode,
            state: DatasetState::Absent,
            renewal: None,
            last_attempt: 0,
            failures: 0,
            last_failure: None,
        }
    }

    /// Takes in a fact and says what is to be done about it.
    #[must_use]
    pub fn handle(&mut self, fact: Fact, now_ms: u64) -> Vec<Effect> {
        match fact {
            Fact::NodeStarted => match self.mode {
                LoadMode::Preload => self.handle_wanted(now_ms),
                LoadMode::OnPromote => vec![],
            },
            Fact::Promoted => self.handle_wanted(now_ms),
            Fact::Demoted => match self.mode {
                LoadMode::Preload => vec![],
                LoadMode::OnPromote => self.become_absent(),
            },
            Fact::Progressed { attempt, rows, percent, rows_per_second } => {
                self.handle_progress(attempt, rows, percent, rows_per_second);
                vec![]
            }
            Fact::Loaded { attempt, rows } => self.handle_loaded(attempt, rows, now_ms),
            Fact::LoadFailed { attempt, reason } => self.handle_failed(attempt, reason, now_ms),
            Fact::Outdated => self.handle_outdated(now_ms),
            Fact::TimePassed => match self.deadline_ms() {
                Some(deadline_ms) if deadline_ms <= now_ms => self.become_loading(now_ms),
                Some(_) | None => vec![],
            },
        }
    }

    /// The load that runs, if one does.
    pub fn running(&self) -> Option<Attempt> {
        match (&self.state, self.renewal) {
            (DatasetState::Loading { attempt, .. }, _) => Some(*attempt),
            (_, Some((attempt, _))) => Some(attempt),
            (_, None) => None,
        }
    }

    /// Where the dataset stands.
    pub fn state(&self) -> &DatasetState {
        &self.state
    }

    /// When [`Fact::TimePassed`] is due, if ever.
    pub fn deadline_ms(&self) -> Option<u64> {
        match &self.state {
            DatasetState::Failed { retry_at_ms, .. } => Some(*retry_at_ms),
            DatasetState::Absent | DatasetState::Loading { .. } | DatasetState::Ready { .. } => {
                None
            }
        }
    }

    /// What a caller is to be told now.
    pub fn availability(&self) -> Availability {
        match &self.state {
            DatasetState::Absent => Availability::Absent,
            DatasetState::Loading { percent, .. } => {
                Availability::StillLoading { percent: *percent }
            }
            DatasetState::Ready { .. } => Availability::Ready,
            DatasetState::Failed { reason, .. } => Availability::Failed { reason: reason.clone() },
        }
    }

    /// Why the last load failed, until one succeeds or the dataset is not wanted any more.
    ///
    /// This, and not the state, is what an alert follows: it does not clear while a retry runs.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// Loads that failed since the last that did not.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn handle_wanted(&mut self, now_ms: u64) -> Vec<Effect> {
        match self.state {
            // A promotion is the moment not to sit out a backoff.
            DatasetState::Absent | DatasetState::Failed { .. } => self.become_loading(now_ms),
            DatasetState::Loading { .. } | DatasetState::Ready { .. } => vec![],
        }
    }

    fn handle_progress(&mut self, of: Attempt, new_rows: u64, new_percent: u8, new_speed: u64) {
        match &mut self.state {
            DatasetState::Loading { attempt, rows, percent, rows_per_second, .. }
                if *attempt == of =>
            {
                *rows = new_rows;
                *percent = new_percent.min(100);
                *rows_per_second = new_speed;
            }
            // Late: the load it tells of is over or was never wanted to its end.
            DatasetState::Loading { .. }
            | DatasetState::Absent
            | DatasetState::Ready { .. }
            | DatasetState::Failed { .. } => {}
        }
    }

    fn handle_outdated(&mut self, now_ms: u64) -> Vec<Effect> {
        if !matches!(self.state, DatasetState::Ready { .. }) || self.renewal.is_some() {
            return vec![];
        }
        self.last_attempt += 1;
        let attempt = Attempt(self.last_attempt);
        self.renewal = Some((attempt, now_ms));
        vec![Effect::StartLoad { attempt }]
    }

    fn handle_loaded(&mut self, of: Attempt, rows: u64, now_ms: u64) -> Vec<Effect> {
        let Some(since_ms) = self.running_since(of) else { return vec![] };
        self.renewal = None;
        self.failures = 0;
        self.last_failure = None;
        self.state = DatasetState::Ready {
            attempt: of,
            rows,
            as_of_ms: since_ms,
            took_ms: now_ms.saturating_sub(since_ms),
        };
        vec![Effect::Publish { attempt: of }]
    }

    fn handle_failed(&mut self, of: Attempt, reason: String, now_ms: u64) -> Vec<Effect> {
        if self.running_since(of).is_none() {
            return vec![];
        }
        let retry_at_ms = now_ms.saturating_add(retry_delay_ms(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(reason.clone());
        if self.renewal.take().is_some() {
            // What is held is older than one would like, and better than nothing.
            return vec![];
        }
        self.state = DatasetState::Failed { attempt: of, reason, retry_at_ms };
        vec![]
    }

    fn become_loading(&mut self, now_ms: u64) -> Vec<Effect> {
        assert!(
            matches!(self.state, DatasetState::Absent | DatasetState::Failed { .. }),
            "a load begins only where none runs and nothing is held"
        );
        self.last_attempt += 1;
        let attempt = Attempt(self.last_attempt);
        self.state = DatasetState::Loading {
            attempt,
            since_ms: now_ms,
            rows: 0,
            percent: 0,
            rows_per_second: 0,
        };
        vec![Effect::StartLoad { attempt }]
    }

    fn become_absent(&mut self) -> Vec<Effect> {
        let effects = match self.state {
            DatasetState::Loading { attempt, .. } => vec![Effect::CancelLoad { attempt }],
            DatasetState::Ready { .. } => {
                let renewal = self.renewal.take();
                let cancel = renewal.map(|(attempt, _)| Effect::CancelLoad { attempt });
                cancel.into_iter().chain([Effect::Drop]).collect()
            }
            DatasetState::Absent | DatasetState::Failed { .. } => vec![],
        };
        self.state = DatasetState::Absent;
        self.failures = 0;
        self.last_failure = None;
        effects
    }

    /// When the load of this attempt began, if it is the one that runs.
    fn running_since(&self, of: Attempt) -> Option<u64> {
        match self.state {
            DatasetState::Loading { attempt, since_ms, .. } if attempt == of => Some(since_ms),
            DatasetState::Ready { .. } => {
                self.renewal.filter(|(attempt, _)| *attempt == of).map(|(_, since_ms)| since_ms)
            }
            DatasetState::Loading { .. } | DatasetState::Absent | DatasetState::Failed { .. } => {
                None
            }
        }
    }
}

pub(super) fn retry_delay_ms(failures_before: u32) -> u64 {
    RETRY_MS_MIN.saturating_mul(1 << failures_before.min(10)).min(RETRY_MS_MAX)
}

/// The wait after a first failure; it doubles with each further one.
const RETRY_MS_MIN: u64 = 1_000;
/// The longest wait between two tries.
const RETRY_MS_MAX: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn start(machine: &mut Loading, fact: Fact, now_ms: u64) -> Attempt {
        match machine.handle(fact, now_ms).as_slice() {
            [Effect::StartLoad { attempt }] => *attempt,
            other => panic!("a load should begin, not {other:?}"),
        }
    }

    fn failed(attempt: Attempt) -> Fact {
        Fact::LoadFailed { attempt, reason: "no such file".to_owned() }
    }

    #[test]
    fn an_on_promote_dataset_is_loaded_by_the_master_and_dropped_on_demotion() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        assert_eq!(machine.handle(Fact::NodeStarted, 0), vec![]);
        assert_eq!(machine.availability(), Availability::Absent);
        let attempt = start(&mut machine, Fact::Promoted, 10);
        let progress = Fact::Progressed { attempt, rows: 70, percent: 35, rows_per_second: 1000 };
        assert_eq!(machine.handle(progress, 50), vec![]);
        assert_eq!(machine.availability(), Availability::StillLoading { percent: 35 });
        let effects = machine.handle(Fact::Loaded { attempt, rows: 200 }, 210);
        assert_eq!(effects, vec![Effect::Publish { attempt }]);
        let ready = DatasetState::Ready { attempt, rows: 200, as_of_ms: 10, took_ms: 200 };
        assert_eq!(machine.state(), &ready);
        assert_eq!(machine.availability(), Availability::Ready);
        assert_eq!(machine.handle(Fact::Demoted, 300), vec![Effect::Drop]);
        assert_eq!(machine.availability(), Availability::Absent);
    }

    #[test]
    fn a_preloaded_dataset_survives_promotion_and_demotion() {
        let mut machine = Loading::new(LoadMode::Preload);
        let attempt = start(&mut machine, Fact::NodeStarted, 0);
        assert_eq!(machine.handle(Fact::Promoted, 1), vec![]);
        let _published = machine.handle(Fact::Loaded { attempt, rows: 1 }, 2);
        assert_eq!(machine.handle(Fact::Demoted, 3), vec![]);
        assert_eq!(machine.handle(Fact::Promoted, 4), vec![]);
        assert_eq!(machine.availability(), Availability::Ready);
    }

    #[test]
    fn a_demotion_while_loading_cancels_and_the_late_end_is_ignored() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        let first = start(&mut machine, Fact::Promoted, 0);
        let effects = machine.handle(Fact::Demoted, 5);
        assert_eq!(effects, vec![Effect::CancelLoad { attempt: first }]);
        assert_eq!(machine.handle(Fact::Loaded { attempt: first, rows: 9 }, 6), vec![]);
        assert_eq!(machine.state(), &DatasetState::Absent);

        let second = start(&mut machine, Fact::Promoted, 7);
        assert!(second > first);
        let late = Fact::Progressed { attempt: first, rows: 9, percent: 99, rows_per_second: 9 };
        assert_eq!(machine.handle(late, 8), vec![]);
        assert_eq!(machine.handle(Fact::Loaded { attempt: first, rows: 9 }, 8), vec![]);
        assert_eq!(machine.handle(failed(first), 8), vec![]);
        assert_eq!(machine.availability(), Availability::StillLoading { percent: 0 });
    }

    #[test]
    fn a_failed_load_is_tried_again_after_1_2_4_and_at_most_60_seconds() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        let mut now_ms = 1_000;
        let mut attempt = start(&mut machine, Fact::Promoted, now_ms);
        let mut waits = vec![];
        for _ in 0..8 {
            assert_eq!(machine.handle(failed(attempt), now_ms), vec![]);
            let deadline_ms = machine.deadline_ms().unwrap();
            waits.push(deadline_ms - now_ms);
            assert_eq!(machine.handle(Fact::TimePassed, deadline_ms - 1), vec![]);
            now_ms = deadline_ms;
            attempt = start(&mut machine, Fact::TimePassed, now_ms);
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(machine.failures(), 8);
        let _published = machine.handle(Fact::Loaded { attempt, rows: 1 }, now_ms);
        assert_eq!(machine.failures(), 0);
    }

    #[test]
    fn the_failure_is_remembered_while_a_retry_runs() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        let first = start(&mut machine, Fact::Promoted, 0);
        let _nothing = machine.handle(failed(first), 1);
        let reason = "no such file".to_owned();
        assert_eq!(machine.availability(), Availability::Failed { reason });
        let second = start(&mut machine, Fact::TimePassed, 5_000);
        assert_eq!(machine.availability(), Availability::StillLoading { percent: 0 });
        assert_eq!(machine.last_failure(), Some("no such file"));
        let _published = machine.handle(Fact::Loaded { attempt: second, rows: 1 }, 6_000);
        assert_eq!(machine.last_failure(), None);
    }

    #[test]
    fn a_promotion_does_not_wait_for_the_backoff_and_a_demotion_ends_it() {
        let mut preload = Loading::new(LoadMode::Preload);
        let first = start(&mut preload, Fact::NodeStarted, 0);
        let _nothing = preload.handle(failed(first), 1);
        let _second = start(&mut preload, Fact::Promoted, 2);

        let mut on_promote = Loading::new(LoadMode::OnPromote);
        let first = start(&mut on_promote, Fact::Promoted, 0);
        let _nothing = on_promote.handle(failed(first), 1);
        assert_eq!(on_promote.handle(Fact::Demoted, 2), vec![]);
        assert_eq!(on_promote.deadline_ms(), None);
        assert_eq!(on_promote.last_failure(), None);
        assert_eq!(on_promote.handle(Fact::TimePassed, 90_000), vec![]);
    }

    #[test]
    fn a_renewal_takes_the_place_of_what_is_held_when_it_is_done_and_not_before() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        assert_eq!(machine.handle(Fact::Outdated, 0), vec![]);
        let first = start(&mut machine, Fact::Promoted, 0);
        let _published = machine.handle(Fact::Loaded { attempt: first, rows: 5 }, 10);
        let second = start(&mut machine, Fact::Outdated, 20);
        assert_eq!(machine.handle(Fact::Outdated, 21), vec![]);
        assert_eq!(machine.availability(), Availability::Ready);
        assert_eq!(machine.handle(failed(second), 30), vec![]);
        assert_eq!(machine.availability(), Availability::Ready);
        assert_eq!(machine.last_failure(), Some("no such file"));
        let third = start(&mut machine, Fact::Outdated, 40);
        let effects = machine.handle(Fact::Loaded { attempt: third, rows: 6 }, 50);
        assert_eq!(effects, vec![Effect::Publish { attempt: third }]);
        let ready = DatasetState::Ready { attempt: third, rows: 6, as_of_ms: 40, took_ms: 10 };
        assert_eq!((machine.state(), machine.last_failure()), (&ready, None));
        let fourth = start(&mut machine, Fact::Outdated, 60);
        let dropped = vec![Effect::CancelLoad { attempt: fourth }, Effect::Drop];
        assert_eq!(machine.handle(Fact::Demoted, 70), dropped);
        assert_eq!(machine.handle(Fact::Loaded { attempt: fourth, rows: 7 }, 80), vec![]);
    }
}
