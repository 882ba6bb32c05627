//! Effects: what is to be done, in the imperative. Plain data, carried out in order.

use super::alert::Alert;
use super::identity::{Epoch, Statement};
use super::moment::Moment;
use super::reason::Event;

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
    /// Let requests pass for this epoch until this moment; answer with `GateOpened`.
    OpenGate { epoch: Epoch, until: Moment },
    /// The lease of the open gate ends at this moment now.
    ExtendLease { epoch: Epoch, until: Moment },
    /// Let nothing pass any more.
    CloseGate { epoch: Epoch },
    /// Wait for the requests under way, at most so long; answer with `Drained`.
    Drain { epoch: Epoch, ms_max: u64 },
    /// Load what this epoch needs; answer with `DatasetsSettled`.
    LoadDatasets { epoch: Epoch },
    /// Let go of what only a master keeps.
    DropDatasets,
    /// An alert began, changed its text or ended.
    Alert(Alert),
    /// Something to keep in the journal, with its cause.
    Record(Event),
    /// An operator's switchover is over.
    FinishSwitchover { order: u64, outcome: Result<(), String> },
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
    /// Read `id`, `epoch`, `master` (arming one watch on it) and who is present under our name;
    /// make the persistent znodes first where they are missing.
    Look,
    /// One multi: `check(epoch, epoch_version) [delete(master, replace)] create(master)
    /// setData(epoch, epoch, epoch_version)`.
    Claim { epoch: Epoch, epoch_version: Option<i32>, replace: Option<Replace> },
    /// One multi: `check(epoch, epoch_version) setData(master)`.
    Heartbeat { epoch: Epoch, epoch_version: i32 },
    /// One multi: `check(epoch, epoch_version) delete(master, master_version) setData(epoch, clean)`;
    /// `clean` tells the peer that nobody acts in this epoch any more.
    Resign { epoch: Epoch, epoch_version: i32, master_version: Option<i32> },
    /// Register the function list, 500 entries a multi, each bound to `epoch_version`.
    Register { epoch: Epoch, epoch_version: i32 },
    /// Delete what this process registered for epochs up to this one.
    Unregister { epoch: Epoch },
}

/// A master znode to be replaced by a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replace {
    /// The version last read; `None` only in a planted bug.
    pub version: Option<i32>,
}
