//! The window of replies of one session: what makes a request sent again harmless.

use super::change::Reply;

/// Replies kept of a session.
pub const WINDOW: u64 = 64;

/// The newest replies of a session, by request number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Replies up to this number are gone.
    floor: u64,
    /// In the order of their numbers.
    replies: Vec<(u64, Reply)>,
}

/// What a window knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Not yet done.
    New,
    /// Done; this was the reply.
    Done(&'a Reply),
    /// It may have been done; its reply is gone.
    Gone {
        /// Replies up to this number are gone.
        floor: u64,
    },
}

impl Window {
    /// A window read from somewhere; replies in the order of their numbers.
    #[must_use]
    pub fn new(floor: u64, replies: Vec<(u64, Reply)>) -> Self {
        Self { floor, replies }
    }

    /// Replies up to this number are gone.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The replies kept, in the order of their numbers.
    #[must_use]
    pub fn replies(&self) -> &[(u64, Reply)] {
        &self.replies
    }

    /// What is known of this request.
    #[must_use]
    pub fn seen(&self, number: u64) -> Seen<'_> {
        match self.replies.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(index) => Seen::Done(&self.replies[index].1),
            Err(_) if number <= self.floor => Seen::Gone { floor: self.floor },
            Err(_) => Seen::New,
        }
    }

    /// A request was done.
    pub(super) fn done(&mut self, number: u64, done_up_to: u64, reply: Reply) {
        if number > self.floor {
            match self.replies.binary_search_by_key(&number, |(number, _)| *number) {
                Ok(_) => {} // read again, from a log that overlaps a snapshot
                Err(index) => self.replies.insert(index, (number, reply)),
            }
        }
        let highest = self.replies.last().map_or(0, |(number, _)| *number);
        // What each record says by itself, so that two nodes come to the same in any case.
        let floor = done_up_to.min(number).max(highest.saturating_sub(WINDOW));
        if floor > self.floor {
            self.floor = floor;
            let gone = self.replies.partition_point(|(number, _)| *number <= floor);
            self.replies.drain(..gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(number: u64) -> Reply {
        Reply::Fixed(number.to_le_bytes().as_slice().into())
    }

    #[test]
    fn the_newest_64_replies_are_kept_in_whatever_order_they_come() {
        let mut window = Window::default();
        for number in [2, 1, 64, 63, 65] {
            window.done(number, 0, reply(number));
        }
        assert_eq!(window.seen(1), Seen::Gone { floor: 1 });
        assert_eq!(window.seen(2), Seen::Done(&reply(2)));
        assert_eq!(window.seen(3), Seen::New);
        window.done(130, 0, reply(130));
        assert_eq!(window.seen(65), Seen::Gone { floor: 66 });
        assert_eq!(window.replies().len(), 1);
    }

    #[test]
    fn what_the_client_has_is_let_go() {
        let mut window = Window::default();
        for number in 1..=5 {
            window.done(number, number - 1, reply(number));
        }
        assert_eq!(window.replies().len(), 1);
        assert_eq!(window.seen(5), Seen::Done(&reply(5)));
        assert_eq!(window.seen(4), Seen::Gone { floor: 4 });
    }

    #[test]
    fn a_client_that_says_nonsense_loses_only_its_own_replies() {
        let mut window = Window::default();
        window.done(1, u64::MAX, reply(1));
        assert_eq!(window.seen(1), Seen::Gone { floor: 1 });
        assert_eq!(window.seen(2), Seen::New);
    }

    #[test]
    fn done_twice_is_done_once() {
        let mut window = Window::default();
        window.done(3, 0, reply(3));
        window.done(3, 0, reply(9));
        assert_eq!(window.seen(3), Seen::Done(&reply(3)));
    }
}
