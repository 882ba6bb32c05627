//! When each session was last heard of: known to this node only, never replicated.
//!
//! ```text
//! serving since ──────┬──────────────────────────────▶ now
//!      a session      └── heard, heard, heard ─ idle ─┘   over when idle for too long
//! ```
//!
//! A session of which nothing is kept here counts as heard of when this node began to serve. So
//! nothing has to be carried over a switch, and what is kept is dropped by beginning a new generation:
//! each shard notices that by itself, when it is next looked at. 25 bytes a session and the table's
//! free places; that is all that a session costs beside its row.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use hotpair_core::pair::Moment;
use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::session::is_over;
use hotpair_core::tables::change::SessionKey;

/// The last moment of each session, in shards so that nobody waits for anybody.
#[derive(Debug)]
pub(crate) struct Heard {
    serving: ArcSwap<Serving>,
    /// One after the other: two that begin a generation at a time.
    beginning: Mutex<()>,
    shards: Box<[Mutex<Shard>]>,
}

/// Since when this node serves.
#[derive(Clone, Copy, Debug, Default)]
struct Serving {
    epoch: Epoch,
    since: Moment,
    generation: u64,
}

#[derive(Debug, Default)]
struct Shard {
    generation: u64,
    at: HashMap<SessionKey, Moment, BuildHasherDefault<KeyHasher>>,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self {
            serving: ArcSwap::default(),
            beginning: Mutex::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// This node serves `epoch` since `since`: every session's idle time starts again. An older
    /// epoch, or an earlier moment of the same, changes nothing.
    pub(crate) fn serving_since(&self, epoch: Epoch, since: Moment) {
        let _alone = self.beginning.lock().expect("nobody panics with it");
        let now = self.serving.load();
        if (epoch, since) > (now.epoch, now.since) {
            let generation = now.generation + 1;
            self.serving.store(Arc::new(Serving { epoch, since, generation }));
        }
    }

    /// Since when `epoch` is served; from now on, if nobody has said so before.
    fn serving(&self, epoch: Epoch, now: Moment) -> Serving {
        let serving = **self.serving.load();
        if serving.epoch >= epoch {
            return serving;
        }
        self.serving_since(epoch, now);
        **self.serving.load()
    }

    /// A session was heard of.
    pub(crate) fn hear(&self, session: SessionKey, epoch: Epoch, now: Moment) {
        let serving = self.serving(epoch, now);
        self.shard(session, serving).at.insert(session, now);
    }

    /// A session ended.
    pub(crate) fn forget(&self, session: SessionKey) {
        let serving = **self.serving.load();
        self.shard(session, serving).at.remove(&session);
    }

    /// Whether a session was silent for too long.
    pub(crate) fn is_over(
        &self,
        session: SessionKey,
        epoch: Epoch,
        now: Moment,
        idle_timeout_ms: u64,
    ) -> bool {
        let serving = self.serving(epoch, now);
        let heard = self.shard(session, serving).at.get(&session).copied();
        is_over(now, heard, serving.since, idle_timeout_ms)
    }

    /// Drops what says no more than its absence does: that a session was silent for too long. So
    /// what was heard of sessions that are gone by now goes too.
    pub(crate) fn tidy(&self, now: Moment, idle_timeout_ms: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock().expect("nobody panics with a shard");
            shard.at.retain(|_, heard| now.ms_since(*heard) < idle_timeout_ms);
            let (held, room) = (shard.at.len(), shard.at.capacity());
            if room > 4 * held.max(64) {
                shard.at.shrink_to(2 * held);
            }
        }
    }

    fn shard(&self, session: SessionKey, serving: Serving) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[usize::from(session.0[15]) % SHARDS];
        let mut shard = shard.lock().expect("nobody panics with a shard");
        if shard.generation < serving.generation {
            *shard = Shard { generation: serving.generation, at: HashMap::default() };
        }
        shard
    }
}

/// Keys are digests already: their first bytes are as good as any hash of them.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length, which is always the same.
    fn write_usize(&mut self, _: usize) {}
}

const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: u64 = 100;

    fn key(byte: u8) -> SessionKey {
        SessionKey([byte; 16])
    }

    #[test]
    fn a_session_is_over_when_it_was_silent_for_too_long() {
        let heard = Heard::new();
        heard.serving_since(Epoch(3), Moment(1_000));
        heard.hear(key(1), Epoch(3), Moment(1_050));
        let over = |byte, now| heard.is_over(key(byte), Epoch(3), Moment(now), TIMEOUT);
        assert!(!over(1, 1_149) && over(1, 1_150));
        assert!(!over(2, 1_099) && over(2, 1_100));
        heard.forget(key(1));
        assert!(over(1, 1_100));
    }

    #[test]
    fn a_new_epoch_starts_every_session_anew_whoever_notices_it_first() {
        let heard = Heard::new();
        heard.hear(key(1), Epoch(3), Moment(1_000));
        // Nobody said so yet, but a request came with a pass of the next epoch.
        assert!(!heard.is_over(key(1), Epoch(4), Moment(5_000), TIMEOUT));
        heard.serving_since(Epoch(4), Moment(4_990));
        assert!(!heard.is_over(key(1), Epoch(4), Moment(5_099), TIMEOUT));
        assert!(heard.is_over(key(1), Epoch(4), Moment(5_100), TIMEOUT));
        // The same epoch opened again, after a stall.
        heard.serving_since(Epoch(4), Moment(9_000));
        assert!(!heard.is_over(key(1), Epoch(4), Moment(9_050), TIMEOUT));
        // What is late about an older one changes nothing.
        heard.serving_since(Epoch(3), Moment(9_900));
        assert!(heard.is_over(key(1), Epoch(4), Moment(9_100), TIMEOUT));
    }

    #[test]
    fn tidying_changes_no_answer() {
        let heard = Heard::new();
        heard.serving_since(Epoch(1), Moment(0));
        for byte in 0..200 {
            heard.hear(key(byte), Epoch(1), Moment(u64::from(byte) * 10));
        }
        let ask = || -> Vec<bool> {
            (0..=255).map(|b| heard.is_over(key(b), Epoch(1), Moment(2_000), TIMEOUT)).collect()
        };
        let before = ask();
        heard.tidy(Moment(2_000), TIMEOUT);
        assert_eq!(before, ask());
        let held: usize = heard.shards.iter().map(|shard| shard.lock().unwrap().at.len()).sum();
        assert_eq!(held, 9);
    }
}
