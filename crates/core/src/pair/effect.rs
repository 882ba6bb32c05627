//! Effects: what is to be done, in the imperative. Plain data, carried out in order.

use super::alert::Alert;
use super::identity::{ClusterId, Epoch, Incarnation, NodeId, Statement};
use super::moment::Moment;
use super::reason::Event;
use super::switchover::SwitchoverReport;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Something for the ZooKeeper driver.
    ZooKeeper(ZooKeeperOrder),
    /// Connect to the peer and say hello with this.
    Dial { statement: Statement },
    /// Give up the link that we dialled.
    DropLink,
    /// Send a ping on the link that we dialled.
    SendPing { number: u64, statement: Statement },
    /// Answer the peer's hello or ping on the connection it came by.
    AnswerPeer { connection: u64, number: u64, statement: Statement },
    /// Apply what was received and write the epoch's first record; answer with `Ready`.
    PrepareTables { epoch: Epoch },
    /// The mastership is over: write nothing any more; answer with `Moved`. The gate is closed.
    StandDown,
    /// The `sync` record names this node alone: acknowledge without the peer, if this is still the
    /// loss at hand.
    AcknowledgeAlone { epoch: Epoch, loss: u64 },
    /// Follow the peer, which is master in this epoch; none: follow nobody. Given on change only.
    Follow { master: Option<Epoch> },
    /// Keep on disk the highest epoch seen, and the cluster whose data is the pair's. Given on
    /// change only.
    Remember { epoch: Epoch, cluster: Option<ClusterId> },
    /// Let requests pass for this epoch until this moment; answer with `GateOpened`.
    OpenGate { epoch: Epoch, until: Moment },
    /// The lease of the open gate ends at this moment now.
    ExtendLease { epoch: Epoch, until: Moment },
    /// Let nothing pass any more.
    CloseGate { epoch: Epoch },
    /// Let nobody in any more; who is inside may finish.
    HoldGate { epoch: Epoch },
    /// Let requests in again, in the epoch that was held.
    AdmitAgain { epoch: Epoch },
    /// Wait for the requests inside, at most so long; answer with `Drained` once there are none.
    Drain { epoch: Epoch, hold: u64, ms_max: u64 },
    /// Write a record that changes nothing; answer with `BarrierHeld` once the peer has it.
    WriteBarrier { epoch: Epoch, hold: u64 },
    /// Load what this epoch needs; answer with `DatasetsSettled`.
    LoadDatasets { epoch: Epoch },
    /// Let go of what only a master keeps.
    DropDatasets,
    /// An alert began, changed its text or ended.
    Alert(Alert),
    /// Something to keep in the journal, with its cause.
    Record(Event),
    /// An operator's order is over: a sentence, either way.
    FinishOrder { order: u64, outcome: Result<String, String> },
    /// An ordered switchover is over, either way.
    FinishSwitchover { order: u64, report: SwitchoverReport },
    /// Everything is given back; the process may end.
    Exit,
}

/// Something for the ZooKeeper driver to do. Answers bear the generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperOrder {
    /// The session meant.
    pub generation: u64,
    /// What to do on it.
    pub what: ZooKeeperRequest,
}

/// A request to ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZooKeeperRequest {
    /// Forget the session of before and open a new one.
    OpenSession,
    /// Read `id`, `epoch`, `master`, `sync` (arming one watch on each of the last two), `handover`
    /// and who is present under our name; make the persistent znodes first where they are missing,
    /// but `sync`.
    Look,
    /// One multi: `check(epoch, epoch_version) [delete(master, replace)] create(master)
    /// setData(epoch, epoch, epoch_version)`, and `sync` set to this node alone; `handover` is
    /// checked, or revoked.
    Claim {
        epoch: Epoch,
        epoch_version: Option<i32>,
        replace: Option<Replace>,
        sync: SyncBound,
        handover: HandoverBound,
    },
    /// One multi: `check(epoch, epoch_version) setData(sync, members, sync_version)`.
    WriteSync { epoch: Epoch, epoch_version: i32, sync_version: i32, members: Vec<Incarnation> },
    /// One multi: `check(epoch, epoch_version) setData(master)`.
    Heartbeat { epoch: Epoch, epoch_version: i32 },
    /// One multi: `check(epoch, epoch_version) setData(handover, {to, number})`: from then on nobody
    /// acts in this epoch any more.
    HandOver { epoch: Epoch, epoch_version: i32, to: NodeId, number: u64 },
    /// One multi: `check(epoch, epoch_version) delete(master, master_version) setData(epoch, clean)`;
    /// `clean` tells the peer that nobody acts in this epoch any more.
    Resign { epoch: Epoch, epoch_version: i32, master_version: Option<i32> },
    /// Register the function list, 500 entries a multi, each bound to `epoch_version`.
    Register { epoch: Epoch, epoch_version: i32 },
    /// Delete what this process registered for epochs up to this one.
    Unregister { epoch: Epoch },
}

/// What a claim expects of the `sync` znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncBound {
    /// It is not there: it is created.
    Missing,
    /// It has this version.
    Version(i32),
    /// Whatever it is, only in a planted bug.
    Unchecked,
}

/// What a claim expects of the `handover` znode, and does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoverBound {
    /// It has this version.
    pub version: i32,
    /// It hands the newest epoch to the other node: it is set to nothing, which moves its version.
    pub revoke: bool,
}

/// A master znode to be replaced by a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replace {
    /// The version last read; `None` only in a planted bug.
    pub version: Option<i32>,
}
