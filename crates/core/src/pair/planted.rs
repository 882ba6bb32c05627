//! Known bugs, to be switched on by the simulator's own tests: a net that catches nothing proves
//! nothing. Without the feature `planted-bugs` every question here is answered "no" at compile time.

/// A bug that election recipes have really had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// The lease is counted from when the heartbeat's answer arrived, not from when it was sent.
    LeaseFromAnswer,
    /// A successful read renews the lease.
    LeaseOnReads,
    /// A master znode with our name is taken for ours without comparing its owner session.
    OwnerNotCompared,
    /// An answer "I am master" to a ping blocks promotion for ever.
    PingAsVeto,
    /// An epoch that was left is entered again.
    EpochReentered,
    /// Watches are not armed again after a reconnect.
    WatchLostAtReconnect,
    /// A claim without a definite answer is taken for refused.
    AmbiguousTakenForFailure,
    /// The claim checks no version, so that one queued for long still succeeds.
    LateQueuedClaim,
    /// Mastership ends only when the client library says that the session expired.
    WaitForExpired,
    /// Refused connections alone prove the peer's death, though the link only went silent.
    RefusedAlone,
    /// The dead master's znode is deleted whatever its version.
    DeleteWithoutVersion,
    /// Changes are acknowledged alone before the sync record says so.
    SyncRecordLate,
    /// The claim asks nobody who has the acknowledged changes.
    SyncNotChecked,
    /// A handover without a definite answer is taken for refused, and the epoch goes on.
    HandoverForgotten,
}

impl Bug {
    /// Every bug that can be planted.
    pub const ALL: [Self; 14] = [
        Self::LeaseFromAnswer,
        Self::LeaseOnReads,
        Self::OwnerNotCompared,
        Self::PingAsVeto,
        Self::EpochReentered,
        Self::WatchLostAtReconnect,
        Self::AmbiguousTakenForFailure,
        Self::LateQueuedClaim,
        Self::WaitForExpired,
        Self::RefusedAlone,
        Self::DeleteWithoutVersion,
        Self::SyncRecordLate,
        Self::SyncNotChecked,
        Self::HandoverForgotten,
    ];
}

/// At most one planted bug.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    /// The product: no bug planted.
    #[cfg(feature = "planted-bugs")]
    pub const NONE: Self = Self { bug: None };
    /// The product: no bug planted.
    #[cfg(not(feature = "planted-bugs"))]
    pub const NONE: Self = Self {};

    /// Plants one bug.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn bug(bug: Bug) -> Self {
        Self { bug: Some(bug) }
    }

    /// Is this bug planted?
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Is this bug planted? Never, in this build.
    #[cfg(not(feature = "planted-bugs"))]
    #[must_use]
    pub const fn has(self, _bug: Bug) -> bool {
        false
    }
}
