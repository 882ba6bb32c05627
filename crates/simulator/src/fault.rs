//! What can go wrong: the classes of faults, each with the one line that says what it does.

/// A class of faults. Which classes a storm has, and how often, is drawn from its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9, started again after a while.
    Kill,
    /// kill -9, started again within a fraction of a second.
    QuickRestart,
    /// The process is told to end, ends, and is started again.
    Shutdown,
    /// The machine dies without a word; it boots again later.
    HostDeath,
    /// The process stands still for less than a session.
    ShortPause,
    /// The process stands still for longer than a session.
    LongPause,
    /// The virtual machine is suspended; its clock knows afterwards.
    Suspend,
    /// The virtual machine stands still and its clock does not know.
    UncountedPause,
    /// The wall clock jumps.
    WallJump,
    /// Nothing passes between the nodes.
    LinkCut,
    /// Nothing passes from one node to the other.
    LinkCutOneWay,
    /// A firewall refuses new connections, and lets those that exist go silent.
    Reject,
    /// Delay, loss, duplicates and reordering between the nodes.
    Weather,
    /// The nodes' connections break although both live.
    LinkBroken,
    /// A node's packets to ZooKeeper are lost, or those from it, or both.
    ZooKeeperCut,
    /// A node's connects to ZooKeeper fail at once, and its client never notices the expiry.
    ZooKeeperUnreachable,
    /// A node loses touch with everybody at once, often one way only, after its network got slow.
    Isolated,
    /// A session's connection breaks and goes on at another server.
    ConnectionMoved,
    /// A server does not reach the leader.
    FollowerCut,
    /// A server applies writes late: reads are stale.
    FollowerLag,
    /// The ensemble elects another leader; a stand-alone server is restarted.
    LeaderChange,
    /// The leader stands still.
    LeaderHang,
    /// All servers are down for a while.
    Outage,
    /// Requests take long.
    SlowZooKeeper,
    /// Some requests are answered without saying whether they were executed.
    AmbiguousAnswers,
    /// Requests are held up at a break of the connection, and executed afterwards.
    LateRequests,
    /// A claim succeeds and its answer is lost.
    ClaimAnswerLost,
    /// The ensemble ends a session early.
    SessionExpired,
    /// Somebody deletes the master znode by hand.
    ZnodeDeleted,
    /// The operator orders a switchover.
    Switchover,
    /// The serving loops stand still.
    ServingStall,
    /// A promotion fails before its gate is open.
    PromotionFailure,
    /// Registering and loading take long, or fail.
    SlowPromotion,
    /// The stream of records between the nodes breaks; their pings go on.
    RedoCut,
    /// A node's log cannot be made durable; its process is started again later.
    LogFailure,
    /// The operator orders a node to be master, now and then whatever that may lose.
    Promote,
}

impl Fault {
    /// Every class.
    pub const ALL: [Self; 36] = [
        Self::Kill,
        Self::QuickRestart,
        Self::Shutdown,
        Self::HostDeath,
        Self::ShortPause,
        Self::LongPause,
        Self::Suspend,
        Self::UncountedPause,
        Self::WallJump,
        Self::LinkCut,
        Self::LinkCutOneWay,
        Self::Reject,
        Self::Weather,
        Self::LinkBroken,
        Self::ZooKeeperCut,
        Self::ZooKeeperUnreachable,
        Self::Isolated,
        Self::ConnectionMoved,
        Self::FollowerCut,
        Self::FollowerLag,
        Self::LeaderChange,
        Self::LeaderHang,
        Self::Outage,
        Self::SlowZooKeeper,
        Self::AmbiguousAnswers,
        Self::LateRequests,
        Self::ClaimAnswerLost,
        Self::SessionExpired,
        Self::ZnodeDeleted,
        Self::Switchover,
        Self::ServingStall,
        Self::PromotionFailure,
        Self::SlowPromotion,
        Self::RedoCut,
        Self::LogFailure,
        Self::Promote,
    ];

    /// Its place in [`Fault::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
