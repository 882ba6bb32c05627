//! What is to happen, and when: ordered by time, then by the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::clock::Micros;

/// Planned events.
#[derive(Debug)]
pub(crate) struct Schedule<E> {
    /// Small entries move in the heap; the events themselves stay in their slots.
    heap: BinaryHeap<Reverse<(Micros, u64, u32)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}

impl<E> Schedule<E> {
    pub(crate) fn push(&mut self, at: Micros, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("far fewer events than 2^32 wait")
            }
        };
        self.slots[slot as usize] = Some(event);
        self.heap.push(Reverse((at, self.sequence, slot)));
        self.sequence += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<(Micros, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.slots[slot as usize].take().expect("an entry's slot is filled");
        Some((at, event))
    }

    /// How many events wait.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_time_come_in_the_order_they_were_planned() {
        let mut schedule = Schedule::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            schedule.push(at, what);
        }
        let order: String = std::iter::from_fn(|| schedule.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, "abcd");
    }
}
