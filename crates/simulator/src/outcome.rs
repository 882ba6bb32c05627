//! What became of a storm.

use std::fmt;

use super::fault::Fault;

/// A rule that the simulator checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// P1: at no instant may both nodes act.
    OneWriter,
    /// P1: each epoch is entered by one process life only.
    EpochOneLife,
    /// P1: an epoch once left is never entered again.
    EpochLeft,
    /// P1: nobody acts in an epoch after somebody acted in a larger one.
    EpochsGoBack,
    /// P1: a process that ends in order has closed its gate before.
    EndsClosed,
    /// P1: nothing is registered for an epoch after a larger one was claimed.
    RegistryFence,
    /// P7: a switchover reported as done made the peer serve.
    OrderKept,
    /// P6: what was handed over is not taken back: nobody is inside, and nobody is let in again.
    HandoverStands,
    /// P2: a new master has every change that was acknowledged.
    AcknowledgedKept,
    /// P2: whoever acknowledges alone is named alone by the sync record.
    AloneByRecord,
    /// In the calm the peer is in sync, and both know it.
    InSync,
    /// P4: a healthy node serves within the bound.
    Serves,
    /// P4: and goes on serving.
    Stays,
    /// The other one stands by, sees who serves, and is linked.
    StandsBy,
    /// Nothing alarms that is over.
    QuietAlerts,
    /// P4: a long time without a master is alarmed.
    NoMasterAlarmed,
    /// Requests and connects are bounded.
    NoLivelock,
    /// Every planned fault happened, and elections were held.
    Coverage,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// Virtual time.
    pub at_ms: u64,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.rule, self.at_ms, self.text)
    }
}

/// What became of one storm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed that makes it again.
    pub seed: u64,
    /// The first broken rule.
    pub violation: Option<Violation>,
    /// Events simulated.
    pub events: u64,
    /// Epochs entered.
    pub elections: u32,
    /// Virtual time simulated.
    pub virtual_ms: u64,
    /// Which fault classes were planned.
    pub planned: [bool; Fault::ALL.len()],
    /// How often each fault class happened.
    pub happened: [u32; Fault::ALL.len()],
    /// Acts of a node whose clock had stood still, which the receivers' epochs refused.
    pub refused_at_sinks: u32,
    /// The longest time in which nobody could act.
    pub darkest_ms: u64,
    /// Equal for equal runs.
    pub digest: u64,
    /// What happened, if it was asked for.
    pub transcript: String,
}
