//! One dataset's feed: its subscription while there is one, and where its updates go.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hotpair_core::services::dataset::{Dataset, FeedEvent, FeedState, Subscription};
use hotpair_feed::{FedDataset, FeedAddress, Intake, IntakeTotals, Listener, Subscriber};

use super::{Order, free_aside};
use crate::boot_clock;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Feed {
    address: FeedAddress,
    intake: Arc<Intake>,
    following: Mutex<Option<(Subscription, Subscriber)>>,
    complained: Mutex<(u64, Option<Instant>)>,
}

impl Feed {
    pub(super) fn new(address: FeedAddress, key: Vec<String>) -> Self {
        Self {
            address,
            intake: Arc::new(Intake::new(key)),
            following: Mutex::default(),
            complained: Mutex::default(),
        }
    }

    pub(super) fn subscribe(
        &self,
        index: usize,
        subscription: Subscription,
        ends: &SyncSender<Order>,
    ) {
        self.intake.keep_beside();
        let (ends, intake) = (ends.clone(), Arc::clone(&self.intake));
        let heard = Heard { index, subscription, ends, intake, missed: None };
        match Subscriber::start(self.address.clone(), heard) {
            Ok(subscriber) => *self.following() = Some((subscription, subscriber)),
            // Without it the dataset is loaded, and said to be stale.
            Err(error) => tracing::error!(feed = %self.address, %error, "no thread to follow with"),
        }
    }

    pub(super) fn unsubscribe(&self) {
        self.following().take();
        free_aside(Some(self.intake.clear()));
    }

    pub(super) fn forget_kept(&self) {
        free_aside(Some(self.intake.forget_kept()));
    }

    pub(super) fn subscription(&self) -> Option<Subscription> {
        self.following().as_ref().map(|(subscription, _)| *subscription)
    }

    pub(super) fn keep_beside(&self) {
        self.intake.keep_beside();
    }

    pub(super) fn generation(&self) -> u64 {
        self.intake.generation()
    }

    pub(super) fn replay(
        &self,
        base: Arc<dyn Dataset>,
        wall_ms: u64,
        generation: u64,
    ) -> Option<(Arc<FedDataset>, u64)> {
        self.intake.replay(base, wall_ms, generation)
    }

    pub(super) fn totals(&self) -> IntakeTotals {
        self.intake.totals()
    }

    /// A line for rows that were refused since the last one, at most once a minute.
    pub(super) fn complain(&self, dataset: &str) {
        let totals = self.intake.totals();
        let mut complained = self.complained.lock().expect("nobody panics with it");
        let (told, at) = *complained;
        if totals.refused == told || at.is_some_and(|at| at.elapsed() < BETWEEN) {
            return;
        }
        *complained = (totals.refused, Some(Instant::now()));
        tracing::warn!(
            dataset, feed = %self.address, rows = totals.refused - told,
            last = self.intake.refused_last(), "rows of a feed were refused"
        );
    }

    fn following(&self) -> MutexGuard<'_, Option<(Subscription, Subscriber)>> {
        self.following.lock().expect("nobody panics with it")
    }
}

/// A line when a dataset becomes as new as its feed, and when it no longer is.
pub(super) fn tell_of_change(dataset: &str, before: &FeedState, now: &FeedState) {
    match (before, now) {
        (FeedState::Stale { .. } | FeedState::Replaying, FeedState::Live) => {
            tracing::info!(dataset, "as new as its feed");
        }
        (FeedState::Stale { .. }, FeedState::Stale { .. }) => {}
        (_, FeedState::Stale { reason }) => {
            tracing::warn!(dataset, reason, "stale: it will be loaded anew, and serves meanwhile");
        }
        _ => {}
    }
}

/// On the feed's thread: rows go in, what is to be decided goes to the keeper.
struct Heard {
    index: usize,
    subscription: Subscription,
    ends: SyncSender<Order>,
    intake: Arc<Intake>,
    /// When the keeper was last told that something is missing: it need not hear it thousands of times.
    missed: Option<Instant>,
}

impl Heard {
    fn tell(&self, event: FeedEvent) {
        let order = Order::Fed { index: self.index, subscription: self.subscription, event };
        // The keeper lives as long as the process, and is never long away.
        let _ = self.ends.send(order);
    }
}

impl Listener for Heard {
    fn event(&mut self, event: FeedEvent) {
        if event == FeedEvent::Sent {
            self.intake.connected();
        }
        self.tell(event);
    }

    fn message(&mut self, body: &[u8]) {
        let Some(event) = self.intake.take(body, boot_clock::wall_ms()) else { return };
        if matches!(event, FeedEvent::Missed { .. }) {
            if self.missed.is_some_and(|at| at.elapsed() < MISSED_EVERY) {
                return;
            }
            self.missed = Some(Instant::now());
        }
        self.tell(event);
    }
}

const BETWEEN: Duration = Duration::from_secs(60);
const MISSED_EVERY: Duration = Duration::from_millis(100);
