//! How far a log goes, and where two logs part.
//!
//! A record's number alone does not name it: two nodes that were both master may each have a record
//! of that number. Together with its mastership it does. A mastership is named by its epoch and by
//! the life of the process that held it, because two coordinators that know nothing of each other
//! may give out the same epoch.

use std::fmt;

use crate::pair::identity::Epoch;

/// The end of a log: the last record's epoch and number. 0 and 0: an empty log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The mastership that wrote it.
    pub epoch: Epoch,
    /// Counts records from 1, over all epochs.
    pub number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of epoch {}", self.number, self.epoch)
    }
}

/// Where a mastership begins in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The process life that was master in it.
    pub life: u64,
    /// The number of its first record, which says just this.
    pub first: u64,
}

/// Masterships that are remembered. A log that parted longer ago gets a snapshot.
pub const STARTS_MAX: usize = 1_024;

/// The masterships of a log, oldest first, and where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    starts: Vec<EpochStart>,
    head: u64,
}

impl History {
    /// A history read from somewhere.
    #[must_use]
    pub fn new(starts: Vec<EpochStart>, head: u64) -> Self {
        Self { starts, head }
    }

    /// The number of the last record.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Where it ends.
    #[must_use]
    pub fn position(&self) -> Position {
        let epoch = self.starts.last().map_or(Epoch(0), |start| start.epoch);
        Position { epoch, number: self.head }
    }

    /// All masterships that are remembered.
    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The log goes up to this number now.
    pub fn extend(&mut self, number: u64) {
        self.head = self.head.max(number);
    }

    /// The log ends after this record now.
    pub fn cut_after(&mut self, number: u64) {
        self.head = self.head.min(number);
        self.starts.retain(|start| start.first <= number);
    }

    /// A mastership begins.
    pub fn begin(&mut self, start: EpochStart) {
        if self.starts.last().is_some_and(|last| last.first >= start.first) {
            return; // read again, from a file that overlaps a snapshot
        }
        if self.starts.len() == STARTS_MAX {
            self.starts.remove(0);
        }
        self.starts.push(start);
        self.extend(start.first);
    }

    /// The mastership that wrote this record; none if it is unknown or beyond the end.
    #[must_use]
    pub fn of(&self, number: u64) -> Option<EpochStart> {
        if number > self.head {
            return None;
        }
        self.starts.iter().rev().find(|start| start.first <= number).copied()
    }

    /// Is this history's last record also in the other one?
    #[must_use]
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        if self.head == 0 {
            return true;
        }
        match (self.of(self.head), other.of(self.head)) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (Some(_) | None, _) => false,
        }
    }

    /// The number of the last record that both have.
    #[must_use]
    pub fn last_common(&self, other: &Self) -> u64 {
        let mut number = self.head.min(other.head);
        while number > 0 {
            match (self.of(number), other.of(number)) {
                (Some(ours), Some(theirs)) if ours == theirs => return number,
                (Some(ours), Some(theirs)) => number = ours.first.max(theirs.first) - 1,
                (None, _) | (_, None) => return 0,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(starts: &[(u64, u64, u64)], head: u64) -> History {
        let start = |(epoch, life, first): &(u64, u64, u64)| EpochStart {
            epoch: Epoch(*epoch),
            life: *life,
            first: *first,
        };
        History::new(starts.iter().map(start).collect(), head)
    }

    #[test]
    fn a_log_that_only_lacks_the_end_is_a_prefix() {
        let master = history(&[(1, 7, 1), (2, 8, 10)], 20);
        for head in [0, 1, 9, 10, 15, 20] {
            let starts: &[_] = match head {
                0 => &[],
                1..10 => &[(1, 7, 1)],
                _ => &[(1, 7, 1), (2, 8, 10)],
            };
            let late = history(starts, head);
            assert!(late.is_prefix_of(&master), "up to {head}");
            assert_eq!(late.last_common(&master), head);
        }
    }

    #[test]
    fn a_tail_that_the_other_does_not_have_is_found() {
        let master = history(&[(1, 7, 1), (2, 8, 10)], 20);
        let old = history(&[(1, 7, 1)], 12);
        assert!(!old.is_prefix_of(&master));
        assert_eq!(old.last_common(&master), 9);
        assert_eq!(master.last_common(&old), 9);
        let longer = history(&[(1, 7, 1), (2, 8, 10)], 25);
        assert!(!longer.is_prefix_of(&master));
        assert_eq!(longer.last_common(&master), 20);
    }

    #[test]
    fn the_same_epoch_of_two_ensembles_is_not_the_same_history() {
        let one = history(&[(1, 7, 1)], 5);
        let other = history(&[(1, 9, 1)], 5);
        assert!(!one.is_prefix_of(&other));
        assert_eq!(one.last_common(&other), 0);
    }

    #[test]
    fn epochs_that_nobody_remembers_are_no_common_ground() {
        let one = history(&[(5, 7, 100)], 120);
        let other = history(&[(1, 9, 1)], 50);
        assert_eq!(one.last_common(&other), 0);
    }
}
