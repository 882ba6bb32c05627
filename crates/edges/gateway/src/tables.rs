//! The gateway's handle to the tables: looks at what is acknowledged, and hands requests to the one
//! thread that commits.
//!
//! ```text
//! look ───▶ Store (behind a lock, held for as short as possible, never across an await)
//! submit ─▶ bounded queue ─▶ tables thread: Writer, log, peer ─▶ one answer a submission
//! ```
//!
//! Nothing waits here to get rid of a request: a queue that is full, or a disk that is, is said at
//! once, and then nothing was done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::{Refusal, Reply, Request, Verdict};
use hotpair_core::tables::store::Store;
use tokio::sync::{mpsc, oneshot};

/// A request on its way to the thread that commits.
#[derive(Debug)]
pub struct Submission {
    /// The epoch in which its caller came in: in another one it is answered
    /// [`Verdict::Superseded`], not committed.
    pub epoch: Epoch,
    /// What is asked for; its ticket is for the tables thread to fill in.
    pub request: Request,
    /// Told once it is acknowledged, or known not to be done. Dropped: nobody knows.
    pub answer: oneshot::Sender<Verdict>,
}

/// Why a request was not handed over. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsubmitted {
    /// The log cannot grow.
    #[error("the disk with the tables' log is full; nothing was executed")]
    DiskFull,
    /// The queue is full.
    #[error("too many changes wait to be written; nothing was executed")]
    QueueFull,
    /// There is no thread that commits.
    #[error("this node takes no changes now; nothing was executed")]
    NoWriter,
}

/// The tables as clients' requests see them. Clones are the same tables.
#[derive(Clone, Debug)]
pub struct Tables {
    store: Arc<RwLock<Store>>,
    submissions: mpsc::Sender<Submission>,
    disk_full: Arc<AtomicBool>,
}

impl Tables {
    /// A handle to this store, and the queue for the thread that commits; at most `capacity`
    /// requests wait in it.
    #[must_use]
    pub fn new(store: Arc<RwLock<Store>>, capacity: usize) -> (Self, mpsc::Receiver<Submission>) {
        let (submissions, queue) = mpsc::channel(capacity);
        (Self { store, submissions, disk_full: Arc::default() }, queue)
    }

    /// Looks at what is acknowledged. Must be short: the writer waits meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(
            &self.store.read().expect("whoever panics while it changes the store ends the process"),
        )
    }

    /// Hands a request over; what became of it comes by the channel.
    pub fn submit(
        &self,
        epoch: Epoch,
        request: Request,
    ) -> Result<oneshot::Receiver<Verdict>, Unsubmitted> {
        if self.disk_full.load(Ordering::Relaxed) {
            return Err(Unsubmitted::DiskFull);
        }
        let (answer, verdict) = oneshot::channel();
        let submission = Submission { epoch, request, answer };
        match self.submissions.try_send(submission) {
            Ok(()) => Ok(verdict),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Unsubmitted::QueueFull),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Unsubmitted::NoWriter),
        }
    }

    /// Whether the log's disk is full: until it is told otherwise, nothing is submitted.
    pub fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }
}

/// What became of a request that was not done for certain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCommitted {
    /// Nothing was done.
    #[error(transparent)]
    Unsubmitted(#[from] Unsubmitted),
    /// Nothing was done: what it had looked at has changed.
    #[error("what it depends on keeps changing; nothing was executed")]
    Conflict,
    /// Nothing was done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The mastership ended meanwhile; whether it was done, the next master knows.
    #[error("the mastership ended before the request was acknowledged")]
    Superseded,
}

/// What a verdict means to whoever asked; none: the tables thread is gone.
pub(crate) fn settled(verdict: Option<Verdict>) -> Result<Reply, NotCommitted> {
    match verdict {
        Some(Verdict::Done { reply, .. }) => Ok(reply),
        Some(Verdict::Conflict) => Err(NotCommitted::Conflict),
        Some(Verdict::Refused(refusal)) => Err(NotCommitted::Refused(refusal)),
        Some(Verdict::Superseded) | None => Err(NotCommitted::Superseded),
    }
}

impl Tables {
    /// Submits and waits.
    pub async fn commit(&self, epoch: Epoch, request: Request) -> Result<Reply, NotCommitted> {
        settled(self.submit(epoch, request)?.await.ok())
    }
}
