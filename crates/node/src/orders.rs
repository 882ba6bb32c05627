//! Operators' orders under way, and who waits for their answers.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// Takes a sentence: what happened, or why it did not.
pub(crate) type Answer = oneshot::Sender<Result<String, String>>;

/// Orders under way. Bounded by core, which refuses a second switchover while one is under way.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    last: u64,
    waiting: BTreeMap<u64, Answer>,
}

impl Orders {
    /// Gives the order its number.
    pub(crate) fn begin(&mut self, answer: Answer) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, answer);
        self.last
    }

    /// Answers whoever waits for this order; nobody may, any more.
    pub(crate) fn finish(&mut self, order: u64, outcome: Result<String, String>) {
        if let Some(answer) = self.waiting.remove(&order) {
            let _ = answer.send(outcome);
        }
    }
}
