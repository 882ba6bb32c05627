//! The webhook: tells Alertmanager (its API v2) what fires, again and again until it ends, and then
//! that it ended.
//!
//! `Outbox` decides what is due; [`Webhook`] posts it. An alert has the same labels from either
//! node, so that two nodes telling of one trouble make one alert. A post that fails is tried again
//! with backoff; what is posted then is what is true then, so nothing piles up: the bound is the
//! number of alert names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hotpair_core::pair::alert::AlertName;
use hotpair_core::services::dataset::Value;
use hotpair_http::{Dialler, Occasionally};
use hotpair_protocol::AlertmanagerAlert;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::snapshot::{AlertRecord, Snapshot, severity};

/// Where to post, and how often.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// `http://host:port/api/v2/alerts`, or `https://`.
    pub url: String,
    /// How it is reached.
    pub dialler: Dialler,
    /// `http` or `https`: how operators reach this node, for the links in alerts.
    pub scheme: &'static str,
    /// Between two posts of an alert that goes on firing.
    pub repeat: Duration,
    /// For one post.
    pub timeout: Duration,
}

impl WebhookSettings {
    /// The usual times.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            dialler: Dialler::plain(),
            scheme: "http",
            repeat: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Posts alerts.
#[derive(Debug)]
pub struct Webhook {
    settings: WebhookSettings,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    outbox: Outbox,
    complaint: Occasionally,
}

impl Webhook {
    /// A webhook that tells of this node's alerts.
    #[must_use]
    pub fn new(settings: WebhookSettings, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        let outbox = Outbox::new(settings.repeat);
        Self { settings, snapshots, outbox, complaint: Occasionally::default() }
    }

    /// Runs until the node publishes no more.
    pub async fn run(mut self) {
        loop {
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            self.outbox.handle_alerts(&snapshot.alerts);
            if self.outbox.is_due(Instant::now()) {
                self.post(&snapshot).await;
            }
            let due_at = self.outbox.deadline(Instant::now());
            tokio::select! {
                changed = self.snapshots.changed() => if changed.is_err() { return },
                () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {}
            }
        }
    }

    async fn post(&mut self, snapshot: &Snapshot) {
        let letters = self.outbox.letters();
        let alerts: Vec<AlertmanagerAlert> =
            letters.iter().map(|letter| self.alertmanager_alert(snapshot, letter)).collect();
        let body = serde_json::to_vec(&alerts).expect("the public words are JSON");
        let WebhookSettings { url, timeout, dialler, .. } = &self.settings;
        let failure = match dialler.post_json(url, &[], body, *timeout).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(format!("status {}", answer.status)),
            Err(error) => Some(error.to_string()),
        };
        match failure {
            None => self.outbox.handle_posted(&letters, Instant::now()),
            Some(failure) => {
                self.outbox.handle_failed(Instant::now());
                if let Some(left_out) = self.complaint.due() {
                    tracing::warn!(failure, left_out, "the webhook did not take our alerts");
                }
            }
        }
    }

    fn alertmanager_alert(&self, snapshot: &Snapshot, letter: &Letter) -> AlertmanagerAlert {
        let record = &letter.record;
        let text = |text: &str| text.to_owned();
        let labels = [
            (text("alertname"), text(record.name.as_str())),
            (text("pair"), snapshot.pair.clone()),
            (text("severity"), text(severity(record.name))),
        ];
        let annotations =
            [(text("summary"), record.text.clone()), (text("node"), snapshot.node.clone())];
        AlertmanagerAlert {
            labels: labels.into(),
            annotations: annotations.into(),
            starts_at: rfc3339(record.since_wall_ms),
            ends_at: record.ended_wall_ms.map(rfc3339),
            generator_url: format!("{}://{}/why", self.settings.scheme, snapshot.addresses.admin),
        }
    }
}

/// What is to be told, and when.
#[derive(Debug)]
struct Outbox {
    repeat: Duration,
    letters: BTreeMap<AlertName, Letter>,
    failures: u32,
    /// Nothing is posted before this, whatever changes.
    not_before: Option<Instant>,
}

/// One alert's state as it is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Letter {
    record: AlertRecord,
    /// When it was last told as it is now; `None`: not yet.
    told_at: Option<Instant>,
}

impl Outbox {
    fn new(repeat: Duration) -> Self {
        Self { repeat, letters: BTreeMap::new(), failures: 0, not_before: None }
    }

    /// Takes in how the alerts stand.
    fn handle_alerts(&mut self, records: &[AlertRecord]) {
        for record in records {
            let untold = Letter { record: record.clone(), told_at: None };
            match self.letters.get_mut(&record.name) {
                Some(letter) if is_same_firing(record, &letter.record) => {
                    // New words alone wait for the next post: they may change every second.
                    letter.record.text.clone_from(&record.text);
                }
                Some(letter) if is_newer(record, &letter.record) => *letter = untold,
                Some(_) => {}
                // An end is told only where the beginning was.
                None if record.ended_wall_ms.is_some() => {}
                None => {
                    self.letters.insert(record.name, untold);
                }
            }
        }
        // An alert that vanished without a word about its end: told by Alertmanager's own time-out.
        self.letters.retain(|name, letter| {
            letter.record.ended_wall_ms.is_some()
                || records.iter().any(|record| record.name == *name)
        });
    }

    /// When something is to be posted next.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = |letter: &Letter| letter.told_at.map_or(now, |told_at| told_at + self.repeat);
        let earliest = self.letters.values().map(due).min()?;
        Some(self.not_before.map_or(earliest, |not_before| earliest.max(not_before)))
    }

    fn is_due(&self, now: Instant) -> bool {
        let held_back = self.not_before.is_some_and(|not_before| now < not_before);
        !held_back
            && self
                .letters
                .values()
                .any(|letter| letter.told_at.is_none_or(|told_at| now >= told_at + self.repeat))
    }

    /// All that is to be told: with one post, everything is fresh.
    fn letters(&self) -> Vec<Letter> {
        self.letters.values().cloned().collect()
    }

    /// These were taken.
    fn handle_posted(&mut self, letters: &[Letter], now: Instant) {
        self.failures = 0;
        self.not_before = None;
        for posted in letters {
            let name = posted.record.name;
            match self.letters.get_mut(&name) {
                // Its end is told: there is nothing more to say.
                Some(letter) if letter.record == posted.record && is_over(posted) => {
                    self.letters.remove(&name);
                }
                Some(letter) if letter.record == posted.record => letter.told_at = Some(now),
                Some(_) | None => {}
            }
        }
    }

    /// Nothing was taken.
    fn handle_failed(&mut self, now: Instant) {
        let wait = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(BACKOFF_DOUBLINGS));
        self.not_before = Some(now + wait);
        self.failures = self.failures.saturating_add(1);
    }
}

fn is_over(letter: &Letter) -> bool {
    letter.record.ended_wall_ms.is_some()
}

fn is_same_firing(one: &AlertRecord, other: &AlertRecord) -> bool {
    one.since_wall_ms == other.since_wall_ms && one.ended_wall_ms == other.ended_wall_ms
}

/// Of one name the newest counts: a firing one, else the one that ended last.
fn is_newer(record: &AlertRecord, than: &AlertRecord) -> bool {
    match (record.ended_wall_ms, than.ended_wall_ms) {
        (None, _) => true,
        // Its end: of this firing or of a later one, not of one before it.
        (Some(_), None) => record.since_wall_ms >= than.since_wall_ms,
        (Some(ended), Some(other)) => ended > other,
    }
}

/// Milliseconds of wall clock as Alertmanager reads them; a dataset's timestamp prints the same.
fn rfc3339(wall_ms: u64) -> String {
    let microseconds = i64::try_from(wall_ms.saturating_mul(1000)).unwrap_or(i64::MAX);
    Value::Timestamp(microseconds).to_string()
}

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// 1, 2, 4, 8, 16, 32 seconds.
const BACKOFF_DOUBLINGS: u32 = 5;

#[cfg(test)]
mod tests;
