//! The calls of each session that are under way: in the order in which they came, each number once.
//!
//! ```text
//!            waiting ──its turn──▶ running ──handed to the writer──▶ submitted ──verdict──▶ gone
//! duplicate ──▶ told with the first, whatever becomes of the first's caller
//! ```
//!
//! A call has its turn when all before it in its session are gone; one that only writes, already
//! when all before it are submitted: the writer sees what is pending, and keeps the order of what it
//! is given. Others wait for what came before them to be acknowledged, because that is what they see.
//! A lane exists as long as calls are in it. Sessions know nothing of each other.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard};

use hotpair_core::tables::change::SessionKey;
use hotpair_core::tables::window::WINDOW;
use tokio::sync::oneshot;

use crate::heard::KeyHasher;

/// Calls of one session that may be under way.
pub(crate) const OUTSTANDING_MAX: usize = WINDOW as usize;
/// Callers that may wait for one call besides its first.
const DUPLICATES_MAX: usize = 8;

/// The lanes. `O` is what becomes of a call.
#[derive(Debug)]
pub(crate) struct Lanes<O> {
    shards: Box<[Mutex<Shard<O>>]>,
}

type Shard<O> = HashMap<SessionKey, Lane<O>, BuildHasherDefault<KeyHasher>>;

#[derive(Debug)]
struct Lane<O> {
    calls: VecDeque<Entry<O>>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry<O> {
    id: u64,
    number: Option<u64>,
    only_writes: bool,
    stage: Stage,
    /// Told when it is its turn.
    turn: Option<oneshot::Sender<()>>,
    /// Told what became of it.
    followers: Vec<oneshot::Sender<O>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running,
    Submitted,
}

/// A call that comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) session: SessionKey,
    pub(crate) number: Option<u64>,
    /// It looks at nothing; whatever it does, the writer does.
    pub(crate) only_writes: bool,
}

/// How a call is met.
#[derive(Debug)]
pub(crate) enum Met<O> {
    /// The first with its number.
    First(Slot<O>),
    /// One with its number is under way: what became of that one. Nothing, if it was given up
    /// before anything became of it.
    Duplicate(oneshot::Receiver<O>),
    /// Too many are under way, or wait for this one.
    Full,
}

/// A call's place in its lane. Dropping it is leaving; who follows it is told nothing then.
#[derive(Debug)]
pub(crate) struct Slot<O> {
    lanes: Arc<Lanes<O>>,
    session: SessionKey,
    id: u64,
    turn: Option<oneshot::Receiver<()>>,
    left: bool,
}

impl<O> Lanes<O> {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// A call takes its place.
    pub(crate) fn enter(self: &Arc<Self>, arrival: Arrival) -> Met<O> {
        let Arrival { session, number, only_writes } = arrival;
        let mut shard = self.shard(session);
        let lane =
            shard.entry(session).or_insert_with(|| Lane { calls: VecDeque::new(), next_id: 0 });
        if number.is_some()
            && let Some(first) = lane.calls.iter_mut().find(|call| call.number == number)
        {
            first.followers.retain(|follower| !follower.is_closed());
            if first.followers.len() >= DUPLICATES_MAX {
                return Met::Full;
            }
            return Met::Duplicate(first.follow());
        }
        if lane.calls.len() >= OUTSTANDING_MAX {
            return Met::Full;
        }
        let id = lane.next_id;
        lane.next_id += 1;
        let mut entry =
            Entry { id, number, only_writes, stage: Stage::Waiting, turn: None, followers: vec![] };
        let mut turn = None;
        if lane.calls.iter().all(|before| entry.may_run_beside(before)) {
            entry.stage = Stage::Running;
        } else {
            let (told, waits) = oneshot::channel();
            (entry.turn, turn) = (Some(told), Some(waits));
        }
        lane.calls.push_back(entry);
        drop(shard);
        Met::First(Slot { lanes: Arc::clone(self), session, id, turn, left: false })
    }

    /// Whether calls of this session are under way.
    pub(crate) fn is_busy(&self, session: SessionKey) -> bool {
        self.shard(session).contains_key(&session)
    }

    fn shard(&self, session: SessionKey) -> MutexGuard<'_, Shard<O>> {
        let shard = &self.shards[usize::from(session.0[15]) % SHARDS];
        shard.lock().expect("nobody panics with a shard")
    }

    /// A call leaves its lane, and the next ones have their turn; who follows it.
    fn leave(&self, session: SessionKey, id: u64) -> Vec<oneshot::Sender<O>> {
        let mut shard = self.shard(session);
        let Some(lane) = shard.get_mut(&session) else { return Vec::new() };
        let Some(place) = lane.calls.iter().position(|call| call.id == id) else {
            return Vec::new();
        };
        let followers = lane.calls.remove(place).map(|call| call.followers);
        if lane.calls.is_empty() {
            shard.remove(&session);
        } else {
            lane.give_turns();
        }
        followers.unwrap_or_default()
    }
}

impl<O> Lane<O> {
    /// Lets everyone run whose turn it is.
    fn give_turns(&mut self) {
        for place in 0..self.calls.len() {
            if self.calls[place].stage != Stage::Waiting {
                continue;
            }
            let call = &self.calls[place];
            if !self.calls.iter().take(place).all(|before| call.may_run_beside(before)) {
                return; // nor may those after it: it is running for none of them
            }
            let call = &mut self.calls[place];
            call.stage = Stage::Running;
            if let Some(turn) = call.turn.take() {
                // One whose caller went away leaves by itself.
                let _ = turn.send(());
            }
        }
    }
}

impl<O> Entry<O> {
    fn may_run_beside(&self, before: &Self) -> bool {
        self.only_writes && before.stage == Stage::Submitted
    }

    fn follow(&mut self) -> oneshot::Receiver<O> {
        let (told, waits) = oneshot::channel();
        self.followers.push(told);
        waits
    }
}

impl<O> Slot<O> {
    /// Waits until all that came before it in its session is out of its way.
    pub(crate) async fn turn(&mut self) {
        if let Some(turn) = &mut self.turn {
            // Cannot fail: whoever is in a lane is told, unless it leaves itself.
            let _ = turn.await;
            self.turn = None;
        }
    }

    /// It is in the writer's hands: those after it that only write may go on.
    pub(crate) fn submitted(&self) {
        let mut shard = self.lanes.shard(self.session);
        if let Some(lane) = shard.get_mut(&self.session)
            && let Some(call) = lane.calls.iter_mut().find(|call| call.id == self.id)
        {
            call.stage = Stage::Submitted;
            if lane.calls.len() > 1 {
                lane.give_turns();
            }
        }
    }

    /// What will become of it, for one more who waits.
    pub(crate) fn follow(&self) -> oneshot::Receiver<O> {
        let mut shard = self.lanes.shard(self.session);
        let call = shard
            .get_mut(&self.session)
            .and_then(|lane| lane.calls.iter_mut().find(|call| call.id == self.id));
        call.expect("a slot is in its lane until it leaves").follow()
    }
}

impl<O: Clone> Slot<O> {
    /// This became of it: everybody who waits is told.
    pub(crate) fn finish(mut self, outcome: &O) {
        self.left = true;
        for follower in self.lanes.leave(self.session, self.id) {
            // A follower that went away needs no answer.
            let _ = follower.send(outcome.clone());
        }
    }
}

impl<O> Drop for Slot<O> {
    fn drop(&mut self) {
        if !self.left {
            self.lanes.leave(self.session, self.id);
        }
    }
}

const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const READS: bool = false;
    const WRITES: bool = true;

    fn arrival(session: u8, number: u64, only_writes: bool) -> Arrival {
        Arrival { session: SessionKey([session; 16]), number: Some(number), only_writes }
    }

    fn first(lanes: &Arc<Lanes<u32>>, arrival: Arrival) -> Slot<u32> {
        match lanes.enter(arrival) {
            Met::First(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    fn is_its_turn(slot: &mut Slot<u32>) -> bool {
        slot.turn.as_mut().is_none_or(|turn| turn.try_recv().is_ok())
    }

    #[test]
    fn calls_of_a_session_have_their_turns_in_the_order_they_came() {
        let lanes = Arc::new(Lanes::new());
        let one = first(&lanes, arrival(1, 1, READS));
        let mut two = first(&lanes, arrival(1, 3, READS));
        let mut three = first(&lanes, arrival(1, 2, READS));
        let mut other = first(&lanes, arrival(2, 1, READS));
        assert!(!is_its_turn(&mut two) && !is_its_turn(&mut three) && is_its_turn(&mut other));
        one.finish(&0);
        assert!(!is_its_turn(&mut three));
        assert!(is_its_turn(&mut two));
        // One that gives up makes way as well.
        drop(two);
        assert!(is_its_turn(&mut three));
        drop((three, other));
        assert!(lanes.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn writes_follow_each_other_into_the_writer_and_reads_wait_for_them() {
        let lanes = Arc::new(Lanes::new());
        let one = first(&lanes, arrival(1, 1, WRITES));
        let mut two = first(&lanes, arrival(1, 2, WRITES));
        let mut read = first(&lanes, arrival(1, 3, READS));
        let mut last = first(&lanes, arrival(1, 4, WRITES));
        assert!(!is_its_turn(&mut two));
        one.submitted();
        assert!(is_its_turn(&mut two) && !is_its_turn(&mut read));
        two.submitted();
        assert!(!is_its_turn(&mut read) && !is_its_turn(&mut last));
        one.finish(&0);
        two.finish(&0);
        assert!(is_its_turn(&mut read) && !is_its_turn(&mut last));
        read.finish(&0);
        assert!(is_its_turn(&mut last));
    }

    #[test]
    fn a_duplicate_is_told_with_the_first() {
        let lanes = Arc::new(Lanes::new());
        let slot = first(&lanes, arrival(1, 5, WRITES));
        let Met::Duplicate(mut told) = lanes.enter(arrival(1, 5, WRITES)) else { panic!() };
        let mut own = slot.follow();
        slot.finish(&42);
        assert_eq!((told.try_recv(), own.try_recv()), (Ok(42), Ok(42)));
        // Given up before anything became of it: the duplicate may be the first now.
        let slot = first(&lanes, arrival(1, 5, WRITES));
        let Met::Duplicate(told) = lanes.enter(arrival(1, 5, WRITES)) else { panic!() };
        drop(slot);
        assert!(told.blocking_recv().is_err());
        assert!(!lanes.is_busy(SessionKey([1; 16])));
    }

    #[test]
    fn a_session_has_64_calls_under_way_and_no_more() {
        let lanes = Arc::new(Lanes::<u32>::new());
        let slots: Vec<_> = (1..=64).map(|n| first(&lanes, arrival(1, n, WRITES))).collect();
        assert!(matches!(lanes.enter(arrival(1, 65, WRITES)), Met::Full));
        assert!(matches!(lanes.enter(arrival(1, 64, WRITES)), Met::Duplicate(_)));
        assert!(matches!(lanes.enter(arrival(2, 65, WRITES)), Met::First(_)));
        drop(slots);
    }
}
