//! Every connection a server has, and how far each has come: the one place where the slow are cut
//! and where room is made.
//!
//! ```text
//! accepted ─▶ Head ─▶ Body ─▶ Busy ─▶ Idle ─▶ Head …
//!                               └───▶ Streaming
//! ```
//!
//! A connection only notes its [`Stage`] and since when, in one atomic. The acceptor walks over all
//! of them now and then and cuts those that have been too long in one stage; when there is no room,
//! it cuts the one that has waited longest without having anything under way. So a crowd of slow
//! connections can never keep a quick one out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::task::AbortHandle;

use crate::server::Limits;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is under way.
    Idle,
    /// Its first bytes are awaited, or a head is half read.
    Head,
    /// A body is being read.
    Body,
    /// A handler works for it.
    Busy,
    /// It follows events; noted anew with each event taken.
    Streaming,
}

/// A connection's note of how far it is; shared with the acceptor.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds since `start`, shifted left, and the stage below.
    note: AtomicU64,
}

impl Progress {
    fn new(start: Instant) -> Self {
        let progress = Self { start, note: AtomicU64::new(0) };
        progress.reach(Stage::Head);
        progress
    }

    /// Notes that `stage` begins now.
    pub(crate) fn reach(&self, stage: Stage) {
        let code = match stage {
            Stage::Idle => 0,
            Stage::Head => 1,
            Stage::Body => 2,
            Stage::Busy => 3,
            Stage::Streaming => 4,
        };
        // One note, read whole: no order with other memory is needed.
        self.note.store(milliseconds_since(self.start) << STAGE_BITS | code, Ordering::Relaxed);
    }

    /// The stage, and for how many milliseconds it has lasted.
    pub(crate) fn stage(&self) -> (Stage, u64) {
        let note = self.note.load(Ordering::Relaxed);
        let stage = match note & STAGE_MASK {
            0 => Stage::Idle,
            1 => Stage::Head,
            2 => Stage::Body,
            3 => Stage::Busy,
            _ => Stage::Streaming,
        };
        (stage, milliseconds_since(self.start).saturating_sub(note >> STAGE_BITS))
    }
}

/// The connections of one server. Owned by its acceptor; nobody else touches it.
#[derive(Debug)]
pub(crate) struct Connections {
    start: Instant,
    next: u64,
    open: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    progress: Arc<Progress>,
    abort: AbortHandle,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), next: 0, open: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The note for a connection that is about to be driven.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::new(Progress::new(self.start))
    }

    /// Keeps a connection; its task is cut by `abort`.
    pub(crate) fn keep(&mut self, progress: Arc<Progress>, abort: AbortHandle) {
        self.next += 1;
        self.open.insert(self.next, Entry { progress, abort });
    }

    /// Forgets the connections that ended.
    pub(crate) fn forget_ended(&mut self) {
        self.open.retain(|_, entry| !entry.abort.is_finished());
    }

    /// Cuts what has been too long in one stage; how many that were.
    pub(crate) fn cut_slow(&mut self, limits: &Limits) -> usize {
        let before = self.open.len();
        self.open.retain(|_, entry| {
            let (stage, lasted_ms) = entry.progress.stage();
            let limit = match stage {
                Stage::Idle => limits.idle_timeout,
                Stage::Head => limits.head_timeout,
                Stage::Body => limits.body_timeout,
                Stage::Streaming => limits.stream_timeout,
                // The handler has its own limits.
                Stage::Busy => return true,
            };
            let within = u128::from(lasted_ms) <= limit.as_millis();
            if !within {
                entry.abort.abort();
            }
            within
        });
        before - self.open.len()
    }

    /// Cuts the connection that has waited longest with nothing under way; false if there is none.
    pub(crate) fn make_room(&mut self) -> bool {
        let waiting = self.open.iter().filter_map(|(id, entry)| {
            let (stage, lasted_ms) = entry.progress.stage();
            match stage {
                Stage::Idle | Stage::Head | Stage::Body => Some((lasted_ms, *id)),
                Stage::Busy | Stage::Streaming => None,
            }
        });
        // Of equals the older one, which has the smaller id.
        let Some((_, id)) = waiting.max_by_key(|(lasted_ms, id)| (*lasted_ms, u64::MAX - id))
        else {
            return false;
        };
        if let Some(entry) = self.open.remove(&id) {
            entry.abort.abort();
        }
        true
    }
}

fn milliseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).expect("no process lives for 500 million years")
}

const STAGE_BITS: u32 = 3;
const STAGE_MASK: u64 = 7;
