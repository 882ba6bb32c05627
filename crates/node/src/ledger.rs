//! The ledger: what the control thread remembers for people to look at, and publishes as a value.
//!
//! Everything said here is also logged: an event is one line with fields, an alert too.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hotpair_admin::{AlertRecord, Health, Snapshot};
use hotpair_coordinator::MasterEndpoints;
use hotpair_core::pair::alert::Alert;
use hotpair_core::pair::identity::{Epoch, Role};
use hotpair_core::pair::reason::{Event, Phase};
use hotpair_core::pair::view::View;
use hotpair_core::services::dataset::{DatasetState, FeedState};
use hotpair_gateway::Whereabouts;
use hotpair_protocol::{DatasetAsOf, DatasetStatus, FeedStatus};
use tokio::sync::watch;

use crate::boot_clock;
use crate::datasets::Datasets;
use crate::journal::Journal;

/// Alerts that ended are kept for people who look later; so many.
const ENDED_MAX: usize = 32;

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Ledger {
    published: watch::Sender<Arc<Snapshot>>,
    whereabouts: Arc<ArcSwap<Whereabouts>>,
    health: Arc<Health>,
    journal: Journal,
    datasets: Datasets,
    /// Where the master is reached, as its znode says.
    master_endpoints: watch::Receiver<Option<MasterEndpoints>>,
    draft: Snapshot,
    changed: bool,
}

/// What a ledger is made of.
pub(crate) struct LedgerParts {
    pub(crate) published: watch::Sender<Arc<Snapshot>>,
    pub(crate) master_endpoints: watch::Receiver<Option<MasterEndpoints>>,
    pub(crate) whereabouts: Arc<ArcSwap<Whereabouts>>,
    pub(crate) health: Arc<Health>,
    pub(crate) journal: Journal,
    pub(crate) datasets: Datasets,
}

impl Ledger {
    pub(crate) fn new(parts: LedgerParts) -> Self {
        let draft = Snapshot::clone(&parts.published.borrow());
        Self {
            published: parts.published,
            whereabouts: parts.whereabouts,
            health: parts.health,
            journal: parts.journal,
            datasets: parts.datasets,
            master_endpoints: parts.master_endpoints,
            draft,
            changed: true,
        }
    }

    /// Publishes the view; who follows is woken if anything in it, or around it, changed.
    pub(crate) fn publish(&mut self, view: &View) {
        self.health.turned();
        let datasets: Vec<DatasetStatus> = self.datasets.shelves().iter().map(status).collect();
        let standing = |all: &[DatasetStatus]| -> Vec<DatasetStatus> {
            all.iter().map(DatasetStatus::standing).collect()
        };
        // What a feed brings changes all the time, and wakes nobody who follows.
        self.changed |= standing(&datasets) != standing(&self.draft.datasets);
        self.draft.datasets = datasets;
        // An error: nobody coordinates, and there is nothing to know.
        self.changed |= self.master_endpoints.has_changed().unwrap_or(false);
        let news = self.changed || differs(&self.draft.view, view);
        self.draft.view = view.clone();
        self.changed = false;
        if news {
            self.note_whereabouts(view);
        }
        // Times that pass by themselves are shown as they are, but wake nobody who follows.
        let newest = Arc::new(self.draft.clone());
        self.published.send_if_modified(|published| {
            *published = newest;
            news
        });
    }

    /// The process is ending.
    pub(crate) fn close(&self) {
        self.health.close();
    }

    /// The peer is named to clients while it says itself that it serves, with the address that it wrote
    /// into the `master` znode in that very epoch.
    fn note_whereabouts(&mut self, view: &View) {
        let said = view.peer.said.as_ref().filter(|said| said.serving && view.peer.reachable);
        let epoch = view.epoch.max(said.map_or(Epoch(0), |said| said.epoch));
        let seen = self.master_endpoints.borrow_and_update();
        let master = seen
            .as_ref()
            .filter(|seen| said.is_some_and(|said| said.epoch == seen.epoch))
            .and_then(|seen| seen.endpoints.get("client"))
            .filter(|address| !is_everywhere(address))
            .cloned();
        drop(seen);
        let now = Whereabouts { epoch, master };
        if **self.whereabouts.load() != now {
            self.whereabouts.store(Arc::new(now));
        }
    }

    /// An alert began, changed or ended.
    pub(crate) fn alert(&mut self, alert: &Alert) {
        let now = boot_clock::wall_ms();
        let records = &mut self.draft.alerts;
        let firing = records.iter_mut().find(|r| r.name == alert.name && r.ended_wall_ms.is_none());
        match (&alert.firing, firing) {
            (Some(text), Some(record)) => record.text.clone_from(text),
            (Some(text), None) => records.push(AlertRecord {
                name: alert.name,
                text: text.clone(),
                since_wall_ms: now,
                ended_wall_ms: None,
            }),
            (None, Some(record)) => record.ended_wall_ms = Some(now),
            (None, None) => {}
        }
        while records.iter().filter(|r| r.ended_wall_ms.is_some()).count() > ENDED_MAX {
            let oldest = records.iter().position(|r| r.ended_wall_ms.is_some());
            records.remove(oldest.expect("there are some"));
        }
        self.changed = true;
        self.journal.append(&serde_json::json!({
            "event": "alert", "name": alert.name.as_str(), "text": alert.firing,
            "node": self.draft.node, "at_ms": now, "boot_ns": boot_clock::now_ns(),
        }));
        match &alert.firing {
            Some(text) => tracing::warn!(alert = alert.name.as_str(), "{text}"),
            None => tracing::info!(alert = alert.name.as_str(), "alert over"),
        }
    }

    /// Something for the journal.
    pub(crate) fn record(&mut self, event: &Event) {
        self.journal.record(&self.draft.node, event);
        log(event);
        match event {
            Event::RoleChanged { to, reason, .. } => {
                if *to == Role::Promoting || *to == Role::Standby {
                    let cause = reason.label().to_owned();
                    *self.draft.switches.entry(cause).or_insert(0) += 1;
                }
                if *to == Role::Standby {
                    self.draft.registered = false;
                }
                self.changed = true;
            }
            Event::PhaseReached { phase: Phase::Registering, .. } => {
                self.draft.registered = true;
                self.changed = true;
            }
            Event::PhaseReached { .. }
            | Event::StandingChanged { .. }
            | Event::Guarded { .. }
            | Event::PeerChanged { .. }
            | Event::CoordinatorChanged { .. }
            | Event::Stalled { .. }
            | Event::Ordered { .. } => {}
        }
    }
}

/// Does anything differ that somebody would look at? Times that pass by themselves do not count.
fn differs(old: &View, new: &View) -> bool {
    let still = |view: &View| {
        let mut view = view.clone();
        view.at = new.at;
        view.lease_until = view.lease_until.map(|_| new.at);
        view.peer.said_at = None;
        if let Some(said) = &mut view.peer.said {
            said.lease_ms = 0;
        }
        view
    };
    still(old) != still(new)
}

fn status(shelf: &crate::datasets::Shelf) -> DatasetStatus {
    let kept = shelf.status();
    let state = &kept.state;
    let mut status = DatasetStatus { name: shelf.name.clone(), ..DatasetStatus::default() };
    match state {
        DatasetState::Absent => "absent".clone_into(&mut status.state),
        DatasetState::Loading { rows, percent, rows_per_second, .. } => {
            "loading".clone_into(&mut status.state);
            status.rows = *rows;
            status.percent = *percent;
            status.rows_per_second = *rows_per_second;
        }
        DatasetState::Ready { rows, took_ms, .. } => {
            "ready".clone_into(&mut status.state);
            status.rows = *rows;
            status.percent = 100;
            status.rows_per_second = rows * 1_000 / (*took_ms).max(1);
            status.took_ms = Some(*took_ms);
        }
        DatasetState::Failed { reason, .. } => {
            "failed".clone_into(&mut status.state);
            status.reason = Some(reason.clone());
        }
    }
    status.as_of =
        shelf.as_of().map(|as_of| DatasetAsOf { version: as_of.version, time_ms: as_of.wall_ms });
    status.feed = shelf.updates().map(|updates| FeedStatus {
        state: kept.feed.word().to_owned(),
        reason: match &kept.feed {
            FeedState::Stale { reason } => Some(reason.clone()),
            _ => None,
        },
        applied: updates.applied,
        older: updates.older,
        refused: updates.refused,
    });
    status
}

fn log(event: &Event) {
    match event {
        Event::RoleChanged { from, to, epoch, reason } => {
            tracing::info!(%from, %to, %epoch, cause = reason.label(), "role changed: {reason}");
        }
        Event::PhaseReached { epoch, phase, after_ms } => {
            tracing::debug!(%epoch, %phase, after_ms, "phase over");
        }
        Event::StandingChanged { text } => tracing::info!("standing: {text}"),
        Event::Guarded { guard: Some(guard) } => tracing::info!("not racing: {guard}"),
        Event::Guarded { guard: None } => tracing::debug!("nothing in the way of racing"),
        Event::PeerChanged { text } => tracing::info!("{text}"),
        Event::CoordinatorChanged { text } => tracing::info!("{text}"),
        Event::Stalled { for_ms } => tracing::warn!(for_ms, "this process stood still"),
        Event::Ordered { text } => tracing::info!("{text}"),
    }
}

/// An address to listen on everywhere is none to connect to.
fn is_everywhere(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
}
