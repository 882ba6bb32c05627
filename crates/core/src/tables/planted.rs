//! Known bugs of replication, for the tests that must find them; never in the product. Without the
//! feature `planted-bugs` every question here is answered "no" at compile time.

/// A bug that replicated state machines have really had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TablesBug {
    /// A change is acknowledged before the peer holds it.
    AckBeforeShip,
    /// The reply is not part of the record, so that the next master executes again.
    ReplyNotReplicated,
    /// Changes are acknowledged alone before the sync record says so.
    SyncLate,
    /// Readers see changes that are not acknowledged yet.
    UnacknowledgedShown,
    /// A program is called before the intent to call it is acknowledged, so that the next master
    /// knows of no call and calls it again.
    ProgramBeforeIntent,
}

impl TablesBug {
    /// Every bug, with the name by which it is chosen.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::AckBeforeShip, "ack-before-ship"),
        (Self::ReplyNotReplicated, "reply-not-replicated"),
        (Self::SyncLate, "sync-late"),
        (Self::UnacknowledgedShown, "unacknowledged-shown"),
        (Self::ProgramBeforeIntent, "program-before-intent"),
    ];
}

/// At most one planted bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlantedInTables {
    #[cfg(feature = "planted-bugs")]
    bug: Option<TablesBug>,
}

impl PlantedInTables {
    /// The product: no bug planted.
    #[cfg(feature = "planted-bugs")]
    pub const NONE: Self = Self { bug: None };
    /// The product: no bug planted.
    #[cfg(not(feature = "planted-bugs"))]
    pub const NONE: Self = Self {};

    /// Plants one bug.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn bug(bug: TablesBug) -> Self {
        Self { bug: Some(bug) }
    }

    /// Is this bug planted?
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn has(self, bug: TablesBug) -> bool {
        self.bug == Some(bug)
    }

    /// Is this bug planted? Never, in this build.
    #[cfg(not(feature = "planted-bugs"))]
    #[must_use]
    pub const fn has(self, _bug: TablesBug) -> bool {
        false
    }
}
