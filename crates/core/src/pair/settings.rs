//! What the operator chose, as far as deciding needs it.

use super::planted::Planted;

/// What decides between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorKind {
    /// An ensemble.
    ZooKeeper,
    /// Nobody: there is one node.
    Standalone,
}

/// Times and switches of the role decision. All times in milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often the peer is pinged. Safe: 200. Longer delays the proof of silence.
    pub ping_interval_ms: u64,
    /// How long a ping may stay unanswered. Safe: 200.
    pub ping_timeout_ms: u64,
    /// How many unanswered pings in a row are silence. Safe: 3.
    pub ping_count: u32,
    /// Take over without waiting for the session's expiry when it is safe.
    pub fast_takeover: bool,
    /// How long a drain may take. Then a planned switch is undone; a process that ends gives the
    /// epoch back anyway.
    pub drain_ms_max: u64,
    /// How long the peer may take to hold the barrier record before a planned switch is undone.
    pub barrier_ms_max: u64,
    /// How long the answer to a written handover is waited for before it counts as ambiguous.
    pub handover_ms_max: u64,
    /// How long this node stays out after giving mastership away, so that the peer gets its turn.
    pub hold_off_ms: u64,
    /// Serving loops that stand still longer than this make a master resign.
    pub serving_stall_ms_max: u64,
    /// Unplanned, voluntary switches allowed in an hour.
    pub switches_per_hour: u32,
    /// Wall clocks further apart than this raise `clock_skew`.
    pub clock_skew_ms_max: u64,
    /// false: shadow mode; decides and records, never claims.
    pub act: bool,
    /// `ack = "local"`: a promotion needs no membership of the `sync` record.
    pub ack_local: bool,
    /// There are tables to be prepared, and to be compared. false: only in tests without any.
    pub tables: bool,
    /// There is a peer.
    pub peer: bool,
    /// What decides between the nodes.
    pub coordinator: CoordinatorKind,
    /// A known bug switched on, in tests of the simulator only.
    pub planted: Planted,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ping_interval_ms: 200,
            ping_timeout_ms: 200,
            ping_count: 3,
            fast_takeover: true,
            drain_ms_max: 1_000,
            barrier_ms_max: 500,
            handover_ms_max: 1_000,
            hold_off_ms: 3_000,
            serving_stall_ms_max: 5_000,
            switches_per_hour: 6,
            clock_skew_ms_max: 1_000,
            act: true,
            ack_local: false,
            tables: true,
            peer: true,
            coordinator: CoordinatorKind::ZooKeeper,
            planted: Planted::NONE,
        }
    }
}
