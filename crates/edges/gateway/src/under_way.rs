//! What this node knows of asynchronous calls beside their rows: which of them it is working on, and
//! who follows a session's answers.
//!
//! Nothing here is replicated. A node that begins to serve knows of no work and of no followers, finds
//! the rows of calls that are still to be done, and is followed anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::{Bytes, SessionKey};
use tokio::sync::Notify;

/// The calls that this node works on, by their rows' keys.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    calls: Mutex<BTreeMap<Bytes, Epoch>>,
}

/// A call that is being worked on. Dropping it is leaving it.
#[derive(Debug)]
pub(crate) struct Begun {
    under_way: Arc<UnderWay>,
    key: Bytes,
    epoch: Epoch,
}

impl UnderWay {
    /// Begins with a call; nothing if somebody is at it in this epoch. Work of an older epoch comes
    /// to nothing, and is no reason to wait.
    pub(crate) fn begin(self: &Arc<Self>, key: &Bytes, epoch: Epoch) -> Option<Begun> {
        let mut calls = self.calls();
        if calls.get(key).is_some_and(|known| *known >= epoch) {
            return None;
        }
        calls.insert(key.clone(), epoch);
        Some(Begun { under_way: Arc::clone(self), key: key.clone(), epoch })
    }

    /// Calls of a session that are worked on, other than those with these rows.
    pub(crate) fn count_beside(&self, session: SessionKey, rows: &[Bytes]) -> usize {
        self.of(session, |keys| keys.filter(|key| !rows.contains(key)).count())
    }

    /// Whether a session's calls are worked on.
    pub(crate) fn is_busy(&self, session: SessionKey) -> bool {
        self.of(session, |keys| keys.count() > 0)
    }

    fn of<T>(
        &self,
        session: SessionKey,
        look: impl FnOnce(&mut dyn Iterator<Item = &Bytes>) -> T,
    ) -> T {
        let calls = self.calls();
        let from: Bytes = session.0.as_slice().into();
        look(&mut calls.range(from..).map(|(key, _)| key).take_while(|k| k.starts_with(&session.0)))
    }

    fn calls(&self) -> MutexGuard<'_, BTreeMap<Bytes, Epoch>> {
        self.calls.lock().expect("nobody panics with the calls")
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut calls = self.under_way.calls();
        // A newer epoch may have begun with it since.
        if calls.get(&self.key) == Some(&self.epoch) {
            calls.remove(&self.key);
        }
    }
}

/// Who follows which session's answers.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    by_session: Mutex<HashMap<SessionKey, Vec<Arc<Follower>>>>,
}

/// One that follows.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    wake: Notify,
    /// Answers up to this version were handed over.
    pushed_up_to: AtomicU64,
    cut: AtomicBool,
}

/// A follower for as long as it follows.
#[derive(Debug)]
pub(crate) struct Following {
    followers: Arc<Followers>,
    session: SessionKey,
    follower: Arc<Follower>,
}

impl Followers {
    /// One more follows. Of too many the one that came first is cut.
    pub(crate) fn follow(self: &Arc<Self>, session: SessionKey) -> Following {
        let follower = Arc::<Follower>::default();
        let mut by_session = self.by_session();
        let all = by_session.entry(session).or_default();
        if all.len() >= FOLLOWERS_MAX {
            let oldest = all.remove(0);
            oldest.cut.store(true, Ordering::SeqCst);
            oldest.wake.notify_one();
        }
        all.push(Arc::clone(&follower));
        drop(by_session);
        Following { followers: Arc::clone(self), session, follower }
    }

    /// There is something new for whoever follows this session.
    pub(crate) fn wake(&self, session: SessionKey) {
        if let Some(all) = self.by_session().get(&session) {
            all.iter().for_each(|follower| follower.wake.notify_one());
        }
    }

    /// Whether anybody follows this session.
    #[cfg(test)]
    pub(crate) fn is_followed(&self, session: SessionKey) -> bool {
        self.by_session().contains_key(&session)
    }

    /// Answers of this session up to this version were handed to somebody who still follows.
    pub(crate) fn pushed_up_to(&self, session: SessionKey) -> u64 {
        let by_session = self.by_session();
        let all = by_session.get(&session).into_iter().flatten();
        all.map(|follower| follower.pushed_up_to.load(Ordering::SeqCst)).max().unwrap_or(0)
    }

    fn by_session(&self) -> MutexGuard<'_, HashMap<SessionKey, Vec<Arc<Follower>>>> {
        self.by_session.lock().expect("nobody panics with the followers")
    }
}

impl Following {
    /// Waits until there is something new; what came since the last wait counts.
    pub(crate) async fn woken(&self) {
        self.follower.wake.notified().await;
    }

    /// Answers up to this version were handed over.
    pub(crate) fn pushed(&self, version: u64) {
        self.follower.pushed_up_to.store(version, Ordering::SeqCst);
    }

    /// Whether it is to end, because too many came after it.
    pub(crate) fn is_cut(&self) -> bool {
        self.follower.cut.load(Ordering::SeqCst)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut by_session = self.followers.by_session();
        if let Some(all) = by_session.get_mut(&self.session) {
            all.retain(|other| !Arc::ptr_eq(other, &self.follower));
            if all.is_empty() {
                by_session.remove(&self.session);
            }
        }
    }
}

/// Streams that may follow one session.
const FOLLOWERS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use hotpair_core::tables::tickets::row_key;

    use super::*;

    const ONE: SessionKey = SessionKey([1; 16]);
    const OTHER: SessionKey = SessionKey([2; 16]);

    #[test]
    fn a_call_is_worked_on_once_an_epoch() {
        let under_way = Arc::<UnderWay>::default();
        let key = row_key(ONE, "1");
        let old = under_way.begin(&key, Epoch(3)).unwrap();
        assert!(under_way.begin(&key, Epoch(3)).is_none());
        assert!(under_way.is_busy(ONE) && !under_way.is_busy(OTHER));
        let new = under_way.begin(&key, Epoch(4)).unwrap();
        drop(old);
        assert!(under_way.begin(&key, Epoch(4)).is_none());
        assert_eq!(under_way.count_beside(ONE, &[]), 1);
        assert_eq!(under_way.count_beside(ONE, &[key]), 0);
        drop(new);
        assert!(!under_way.is_busy(ONE));
    }

    #[test]
    fn of_too_many_followers_the_first_is_cut_and_nobody_is_kept() {
        let followers = Arc::<Followers>::default();
        let mut all: Vec<_> = (0..=FOLLOWERS_MAX).map(|_| followers.follow(ONE)).collect();
        assert!(all[0].is_cut() && !all[1].is_cut());
        all[2].pushed(7);
        assert_eq!((followers.pushed_up_to(ONE), followers.pushed_up_to(OTHER)), (7, 0));
        all.clear();
        assert!(followers.by_session().is_empty());
    }
}
