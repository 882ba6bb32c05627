//! The newest part of the log in memory: what shippers send without reading it from the disk again.
//!
//! The tables append and never wait; a shipper that falls out of it goes on from the redo files.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of the log kept in memory.
const BYTES_MAX: usize = 64 << 20;
/// What a digest takes besides its table's name.
const DIGEST_BYTES: usize = 64;
/// Bytes taken at a time.
const TAKE_BYTES: usize = 1 << 20;

/// The newest part of the log. Clones are the same feed.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    items: VecDeque<Item>,
    bytes: usize,
    /// The last record that was appended to the log, whether it is kept or not.
    head: u64,
    /// How often digests came.
    rounds: u64,
}

#[derive(Clone, Debug)]
enum Item {
    Records { first: u64, last: u64, bytes: Arc<Vec<u8>> },
    Digests { number: u64, round: u64, digests: Arc<Vec<(String, u128)>> },
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Records { bytes, .. } => bytes.len(),
            Self::Digests { digests, .. } => {
                let each = digests.iter().map(|(name, _)| DIGEST_BYTES + name.len());
                DIGEST_BYTES + each.sum::<usize>()
            }
        }
    }
}

/// What comes after a record.
#[derive(Debug)]
pub(super) enum Next {
    /// These records, up to this one.
    Records(Vec<Arc<Vec<u8>>>, u64),
    /// The digests of just this place in the log, and their round.
    Digests(u64, u64, Arc<Vec<(String, u128)>>),
    /// It is not kept any more: look into the files, up to this record.
    Gone(u64),
    /// There is nothing more yet.
    Nothing,
}

impl Feed {
    /// The log ends at this record; nothing of it is kept in memory.
    pub fn reset(&self, head: u64) {
        let mut kept = self.kept();
        *kept = Kept { head, rounds: kept.rounds, ..Kept::default() };
        drop(kept);
        self.shared.more.notify_all();
    }

    /// These records were appended to the log; they follow the last ones.
    pub fn append(&self, last: u64, bytes: Vec<u8>) {
        let mut kept = self.kept();
        let first = kept.head + 1;
        kept.head = last;
        kept.push(Item::Records { first, last, bytes: Arc::new(bytes) });
        drop(kept);
        self.shared.more.notify_all();
    }

    /// The digests of the tables after this record, the last one. Each round of them is sent, also
    /// when nothing has changed: by them both sides know that the other is there.
    pub fn digests(&self, number: u64, digests: Vec<(String, u128)>) {
        let mut kept = self.kept();
        kept.rounds += 1;
        let item = Item::Digests { number, round: kept.rounds, digests: Arc::new(digests) };
        if matches!(kept.items.back(), Some(Item::Digests { .. })) {
            kept.pop_back();
        }
        kept.push(item);
        drop(kept);
        self.shared.more.notify_all();
    }

    /// The last record of the log.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.kept().head
    }

    /// Wakes every shipper, so that it sees that it is to end.
    pub fn wake(&self) {
        self.shared.more.notify_all();
    }

    /// What comes after record `after`; waits a little if there is nothing. `seen`: the round of the
    /// digests that were sent last, so that each is sent once.
    pub(super) fn next(&self, after: u64, seen: u64, patience: Duration) -> Next {
        let kept = self.kept();
        if let Some(next) = kept.next(after, seen) {
            return next;
        }
        let (kept, _) =
            self.shared.more.wait_timeout(kept, patience).unwrap_or_else(PoisonError::into_inner);
        kept.next(after, seen).unwrap_or(Next::Nothing)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push_back(item);
        while self.bytes > BYTES_MAX && self.items.len() > 1 {
            if let Some(item) = self.items.pop_front() {
                self.bytes -= item.bytes();
            }
        }
    }

    fn pop_back(&mut self) {
        if let Some(item) = self.items.pop_back() {
            self.bytes -= item.bytes();
        }
    }

    fn next(&self, after: u64, seen: u64) -> Option<Next> {
        let mut taken = Vec::new();
        let (mut last, mut bytes) = (after, 0);
        // From the end: what a shipper lacks is the newest, as a rule.
        let behind = |item: &Item| match item {
            Item::Records { last, .. } => *last > after,
            Item::Digests { number, round, .. } => {
                *number > after || *number == after && *round > seen
            }
        };
        let skipped = self.items.iter().rev().take_while(|item| behind(item)).count();
        for item in self.items.range(self.items.len() - skipped..) {
            match item {
                Item::Records { first, last: end, bytes: records } => {
                    if *first != last + 1 {
                        return Some(Next::Gone(self.head));
                    }
                    if bytes > 0 && bytes + records.len() > TAKE_BYTES {
                        break;
                    }
                    bytes += records.len();
                    taken.push(records.clone());
                    last = *end;
                }
                Item::Digests { number, round, digests } => {
                    if taken.is_empty() && *number == after {
                        return Some(Next::Digests(*number, *round, digests.clone()));
                    }
                    break;
                }
            }
        }
        if !taken.is_empty() {
            return Some(Next::Records(taken, last));
        }
        (self.head > after).then_some(Next::Gone(self.head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn records_come_in_order_with_the_digests_at_their_place() {
        let feed = Feed::default();
        feed.reset(10);
        feed.append(12, vec![1]);
        feed.digests(12, Vec::new());
        feed.append(13, vec![2]);
        assert!(matches!(feed.next(9, 0, AT_ONCE), Next::Gone(13)));
        let Next::Records(records, 12) = feed.next(10, 0, AT_ONCE) else { panic!() };
        assert_eq!(*records[0], [1]);
        let Next::Digests(12, round, _) = feed.next(12, 0, AT_ONCE) else { panic!() };
        let Next::Records(records, 13) = feed.next(12, round, AT_ONCE) else { panic!() };
        assert_eq!(*records[0], [2]);
        assert!(matches!(feed.next(13, round, AT_ONCE), Next::Nothing));
    }

    #[test]
    fn each_round_of_digests_of_the_same_place_is_sent_and_only_the_last_is_kept() {
        let feed = Feed::default();
        feed.reset(10);
        feed.digests(10, Vec::new());
        let Next::Digests(10, first, _) = feed.next(10, 0, AT_ONCE) else { panic!() };
        assert!(matches!(feed.next(10, first, AT_ONCE), Next::Nothing));
        for _ in 0..100 {
            feed.digests(10, Vec::new());
        }
        assert_eq!(feed.kept().items.len(), 1);
        let Next::Digests(10, last, _) = feed.next(10, first, AT_ONCE) else { panic!() };
        assert!(matches!(feed.next(10, last, AT_ONCE), Next::Nothing));
    }

    #[test]
    fn what_is_too_much_is_let_go_from_the_front() {
        let feed = Feed::default();
        for number in 1..=3 {
            feed.append(number, vec![0; BYTES_MAX / 2]);
        }
        assert!(matches!(feed.next(0, 0, AT_ONCE), Next::Gone(3)));
        assert!(matches!(feed.next(1, 0, AT_ONCE), Next::Records(_, 2)));
    }
}
