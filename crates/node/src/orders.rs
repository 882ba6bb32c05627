//! Operators' orders under way, and who waits for their answers.

use std::collections::BTreeMap;

use hotpair_core::pair::switchover::SwitchoverReport;
use tokio::sync::oneshot;

/// Takes a sentence: what happened, or why it did not.
pub(crate) type Answer = oneshot::Sender<Result<String, String>>;

/// Orders under way. Bounded by core, which refuses a second switchover while one is under way.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    last: u64,
    waiting: BTreeMap<u64, Answer>,
    switchovers: BTreeMap<u64, oneshot::Sender<SwitchoverReport>>,
}

impl Orders {
    /// Gives the order its number.
    pub(crate) fn begin(&mut self, answer: Answer) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, answer);
        self.last
    }

    /// The same for a switchover.
    pub(crate) fn begin_switchover(&mut self, answer: oneshot::Sender<SwitchoverReport>) -> u64 {
        self.last += 1;
        self.switchovers.insert(self.last, answer);
        self.last
    }

    /// Answers whoever waits for this switchover; nobody may, any more.
    pub(crate) fn finish_switchover(&mut self, order: u64, report: SwitchoverReport) {
        if let Some(answer) = self.switchovers.remove(&order) {
            let _ = answer.send(report);
        }
    }

    /// Answers whoever waits for this order; nobody may, any more.
    pub(crate) fn finish(&mut self, order: u64, outcome: Result<String, String>) {
        if let Some(answer) = self.waiting.remove(&order) {
            let _ = answer.send(outcome);
        }
    }
}
