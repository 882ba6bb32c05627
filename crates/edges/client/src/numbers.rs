//! The numbers of a session's requests: counting up, at most 64 apart, let go in order.

use std::collections::BTreeSet;

/// Requests of a session that may be outstanding: the pair keeps as many replies.
pub(crate) const OUTSTANDING_MAX: u64 = 64;

/// Which numbers are in use.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { next: 1, open: BTreeSet::new() }
    }
}

impl Numbers {
    /// The next number, unless it would be too far from the oldest that is open.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let oldest = self.open.first().copied().unwrap_or(self.next);
        if self.next >= oldest + OUTSTANDING_MAX {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.open.insert(number);
        Some(number)
    }

    /// The answer to this one is there, or not wanted any more.
    pub(crate) fn give_back(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// Answers up to this number are not needed any more.
    pub(crate) fn done_up_to(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_64_of_the_oldest_that_is_open() {
        let mut numbers = Numbers::default();
        let taken: Vec<u64> = std::iter::from_fn(|| numbers.take()).collect();
        assert_eq!(taken, (1..=64).collect::<Vec<_>>());
        for number in 2..=64 {
            numbers.give_back(number);
        }
        assert_eq!((numbers.take(), numbers.done_up_to()), (None, 0));
        numbers.give_back(1);
        assert_eq!((numbers.done_up_to(), numbers.take()), (64, Some(65)));
        assert_eq!(numbers.done_up_to(), 64);
    }
}
