//! Facts: what happened, in the past tense. The only way the world gets into [`super::Node`].

use super::identity::{BootId, ClusterId, Epoch, Incarnation, Instance, NodeId, Statement};
use super::moment::Moment;
use crate::tables::position::Position;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// ZooKeeper or its driver said something.
    ZooKeeper(ZooKeeperFact),
    /// The tables said something.
    Tables(TablesFact),
    /// Our dial reached the peer and it welcomed us.
    LinkOpened { statement: Statement },
    /// Our dial did not get as far as a welcome.
    DialFailed { how: DialFailure },
    /// The link that we had dialled is over.
    LinkEnded { how: LinkEnd },
    /// The peer answered our ping.
    PingAnswered { number: u64, statement: Statement },
    /// The peer's hello or ping arrived on a connection that it had dialled; it waits for an answer.
    PeerAsked { connection: u64, number: u64, statement: Statement },
    /// A hello was refused at our door or at the peer's: it belongs to another pair.
    StrangerMet { who: String },
    /// Why there is no link to the peer, in words: it does not prove who it is, or cannot be understood.
    LinkTroubled { what: String },
    /// One exchange of wall clock times with the peer.
    ClockMeasured { offset_ms: i64, round_trip_ms: u64 },
    /// The gate is open for this epoch.
    GateOpened { epoch: Epoch },
    /// No request is inside any more, since this hold of the gate.
    Drained { epoch: Epoch, hold: u64 },
    /// The function list of this epoch is registered.
    Registered { epoch: Epoch, entries: u32 },
    /// All datasets that this epoch needs are loaded, or have given up for now.
    DatasetsSettled { epoch: Epoch, failed: u32 },
    /// A step of a promotion failed before the gate was open.
    PromotionFailed { epoch: Epoch, what: String },
    /// The loops that serve clients have not turned for so long.
    ServingStalled { for_ms: u64 },
    /// A dataset failed to load (or is well again).
    DatasetFailed { name: String, reason: Option<String> },
    /// The SQL database does not get what it should, or it does again.
    StoreBehind { what: Option<String> },
    /// The operator wants the other node to be master.
    SwitchoverOrdered { order: u64 },
    /// The operator wants this node to be master.
    PromoteOrdered { order: u64, accept_data_loss: bool },
    /// The operator says that the ZooKeeper data that this node sees now is the right one.
    AdoptOrdered { order: u64 },
    /// The process was told to end.
    ShutdownOrdered,
}

/// What the thread that keeps the tables reports. What concerns one mastership bears its epoch, so
/// that a word of an earlier one is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablesFact {
    /// What was on disk at the start. Not `complete`: a snapshot of which only a part came.
    Opened { position: Position, complete: bool, cluster: Option<ClusterId>, seen: Epoch },
    /// How far the log goes now. Rate limited, but the newest one is always said in the end; once
    /// after each [`super::effect::Effect::StandDown`] in any case.
    Moved { position: Position, complete: bool },
    /// All that was received is applied, and the epoch's first record is written.
    Ready { epoch: Epoch },
    /// The peer holds every acknowledged record; from now on none is acknowledged without it.
    PeerCaughtUp { epoch: Epoch, peer: Incarnation },
    /// The peer acknowledges no more; nothing is acknowledged until `AcknowledgeAlone` for this
    /// loss. Losses are counted within an epoch, so that a permission for an earlier one is void.
    PeerLost { epoch: Epoch, loss: u64 },
    /// The peer holds the barrier record of this hold, and so everything before it.
    BarrierHeld { epoch: Epoch, hold: u64, number: u64 },
    /// The log cannot be made durable any more.
    Failed { what: String },
    /// The disk is full, or no longer.
    DiskFull { full: bool },
    /// The two nodes' tables differ; none: they are the same again.
    DigestMismatch { what: Option<String> },
    /// The peer is so many records behind, or no longer behind.
    Behind { records: Option<u64> },
    /// This node had changes that the master does not have; they are kept aside.
    Diverged { what: String },
}

/// What the ZooKeeper driver reports. Each carries the generation of the session it belongs to, so
/// that a word from a session given up is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperFact {
    /// Counts sessions opened by this process.
    pub generation: u64,
    /// What happened.
    pub what: ZooKeeperEvent,
}

/// Why a look gave no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookTrouble {
    /// No definite answer.
    NoAnswer,
    /// A znode holds what no hotpair node wrote.
    Foreign,
    /// A znode is closed to this node.
    Barred,
}

/// What happened on a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZooKeeperEvent {
    /// A new session is open and connected.
    SessionOpened { session: SessionId, timeout_ms: u64 },
    /// No server could be reached for a new session.
    ConnectFailed { reason: String },
    /// The connection is gone, the session perhaps not.
    Disconnected,
    /// The same session is connected again; no watch of before is armed any more.
    Reconnected,
    /// The session is over: expired, refused or closed.
    SessionEnded { reason: String },
    /// The master znode changed, came or went (`gone`); the watch is used up.
    MasterChanged { gone: bool },
    /// The answer to [`super::effect::ZooKeeperRequest::Look`].
    Looked { picture: Picture },
    /// There is no picture.
    LookFailed { reason: String, trouble: LookTrouble },
    /// Znodes of the pair are open to everybody though they should not be, or no longer.
    Exposed { what: Option<String> },
    /// The `sync` znode changed, came or went; the watch is used up.
    SyncChanged,
    /// The answer to a claim.
    Claimed { sent_at: Moment, epoch: Epoch, answer: Answer },
    /// The answer to a heartbeat.
    HeartbeatAnswered { sent_at: Moment, epoch: Epoch, answer: Answer },
    /// The answer to giving an epoch back.
    Resigned { epoch: Epoch, answer: Answer },
    /// The answer to writing `sync`.
    SyncWritten { epoch: Epoch, answer: Answer },
    /// The answer to writing `handover`.
    HandedOver { epoch: Epoch, answer: Answer },
    /// The answer to registering functions.
    RegisterAnswered { epoch: Epoch, entries: u32, answer: Answer },
}

/// How a conditional write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done; `epoch_version` is the epoch znode's version now.
    Done { epoch_version: i32 },
    /// Refused: a version or an existence that it was bound to is no longer so.
    Refused(Refusal),
    /// No definite answer: done, not done, or still to be done.
    Ambiguous,
}

/// What a conditional write was refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The epoch moved on.
    Epoch,
    /// The master znode is not as expected: there, gone or changed.
    Master,
    /// The sync znode is not as expected: there, gone or changed.
    Sync,
    /// The handover znode is not as expected: gone or changed.
    Handover,
}

/// ZooKeeper's number of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub i64);

/// The znodes of the pair as read in one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// What the `id` znode says.
    pub cluster: ClusterId,
    /// What the `epoch` znode says.
    pub epoch: EpochZnode,
    /// What the `master` znode says, if it is there.
    pub master: Option<MasterZnode>,
    /// What the `sync` znode says, if it is there. Read after the epoch.
    pub sync: Option<SyncZnode>,
    /// What the `handover` znode says. Read after the epoch.
    pub handover: Box<HandoverZnode>,
    /// Another data directory that is present under our node's name.
    pub twin: Option<Instance>,
}

/// The breadcrumb and fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochZnode {
    /// The newest epoch.
    pub epoch: Epoch,
    /// Who claimed it; none before the first claim.
    pub node: Option<NodeId>,
    /// It was given back in order.
    pub clean: bool,
    /// The znode's version: what claims and heartbeats are bound to.
    pub version: i32,
}

/// Who holds every acknowledged change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncZnode {
    /// The mastership that wrote it.
    pub epoch: Epoch,
    /// Who: the master itself, and its peer while that acknowledges everything.
    pub members: Vec<Incarnation>,
    /// The znode's version; each write makes it one larger.
    pub version: i32,
}

/// The last planned switch that passed the point of no return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandoverZnode {
    /// The mastership that was handed over; 0 when none was, or it was revoked.
    pub epoch: Epoch,
    /// To whom.
    pub to: Option<NodeId>,
    /// The barrier record's number.
    pub number: u64,
    /// The znode's version.
    pub version: i32,
}

/// The master's ephemeral znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterZnode {
    /// Who wrote it.
    pub node: NodeId,
    /// Its data directory.
    pub instance: Instance,
    /// Its boot.
    pub boot_id: BootId,
    /// Its process life: a restarted process is another one.
    pub life: u64,
    /// The epoch it was claimed for.
    pub epoch: Epoch,
    /// The session time-out its holder negotiated.
    pub session_timeout_ms: u64,
    /// The znode's version; each heartbeat makes a new one.
    pub version: i32,
    /// The transaction that created it.
    pub created: i64,
    /// The session it lives and dies with.
    pub owner: SessionId,
}

/// Why a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// ECONNREFUSED: nobody listens (or a firewall says so).
    Refused,
    /// No answer in time.
    TimedOut,
    /// No route, no name, no network.
    Unreachable,
    /// Connected, but it ended before a welcome.
    EndedEarly,
    /// The peer, or we, refused the hello.
    Rejected,
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The peer's side closed it.
    Fin,
    /// The peer's side reset it.
    Reset,
    /// The local side gave up on it: no answer, no route, a frame that is none.
    Lost,
}
