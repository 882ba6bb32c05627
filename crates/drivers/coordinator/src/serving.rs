//! While connected: orders become requests, requests become answers.
//!
//! Every request, the armed watch and the look-out for the connection's state are tasks of the
//! connection's runtime. None is ever cancelled half-way by a `select`: a one-shot watch whose future
//! is dropped is lost. They die together, with the runtime, when the connection is gone; what was
//! still unanswered then is ambiguous.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hotpair_core::pair::Moment;
use hotpair_core::pair::effect::ZooKeeperRequest;
use hotpair_core::pair::fact::{Answer, LookTrouble, SessionId, ZooKeeperEvent};
use hotpair_core::pair::identity::{Epoch, Identity};
use tokio::task::{Id, JoinSet};
use zookeeper_client::{Client, EventType, OneshotWatcher, SessionState};

use crate::layout::Layout;
use crate::settings::{Clock, ZooKeeperSettings};
use crate::{closing, fenced, look, registry};

/// What every request of a session needs to know.
pub(crate) struct Context {
    pub(crate) settings: Arc<ZooKeeperSettings>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) me: Arc<Identity>,
    pub(crate) clock: Clock,
    pub(crate) session: SessionId,
    /// Negotiated.
    pub(crate) session_timeout: Duration,
    /// The persistent znodes were seen or made on this session.
    pub(crate) prepared: AtomicBool,
    /// Our presence znode belongs to this session.
    pub(crate) present: AtomicBool,
    /// Epochs that this process registered functions for, on whatever session.
    pub(crate) registered: Arc<Mutex<BTreeSet<Epoch>>>,
}

impl Context {
    pub(crate) fn now(&self) -> Moment {
        (self.clock)()
    }

    pub(crate) fn session_timeout_ms(&self) -> u64 {
        u64::try_from(self.session_timeout.as_millis()).unwrap_or(u64::MAX)
    }

    /// The epochs registered for, to be changed.
    pub(crate) fn registered(&self) -> std::sync::MutexGuard<'_, BTreeSet<Epoch>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(flag: &AtomicBool, value: bool) {
        flag.store(value, Ordering::Relaxed); // tasks of one thread share it
    }

    pub(crate) fn noted(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }
}

/// A znode that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Master,
    Sync,
}

/// Watches to be armed by a look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    pub(crate) master: bool,
    pub(crate) sync: bool,
}

/// Watches that a look has armed.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    pub(crate) master: Option<OneshotWatcher>,
    pub(crate) sync: Option<OneshotWatcher>,
}

/// What a task of the connection came to.
pub(crate) enum Outcome {
    /// Something for core.
    Event(ZooKeeperEvent),
    /// A look is over; it may have armed watches.
    Looked(ZooKeeperEvent, Watches),
    /// An armed watch fired.
    WatchFired { znode: Watched, event: EventType },
    /// Whether the znodes are closed to others is known, and is to be looked at again later.
    Closed(Option<ZooKeeperEvent>, Duration),
    /// The connection's state is another one.
    StateChanged(SessionState),
    /// Nothing that core waits for.
    Nothing,
}

/// The tasks of one connection.
pub(crate) struct Tasks {
    context: Arc<Context>,
    client: Client,
    set: JoinSet<Outcome>,
    pending: HashMap<Id, Pending>,
    /// Watches that are not armed, or have fired.
    unwatched: Arm,
    /// When it is due to look whether the znodes are closed to others; none while that is under way.
    close_at: Option<Instant>,
}

struct Pending {
    order: ZooKeeperRequest,
    sent_at: Moment,
    give_up_at: Instant,
}

/// When to look again whether znodes are open: after some were, and after none was.
const CLOSE_SOON: Duration = Duration::from_secs(2);
const CLOSE_LATER: Duration = Duration::from_secs(60);
/// Requests under way at once; more wait in the order queue.
const PENDING_MAX: usize = 64;
/// A whole function list takes many requests: it may take so many session time-outs.
const LIST_TIMEOUTS_MAX: u32 = 10;

impl Tasks {
    /// Called within the connection's runtime, before anything else happens on it.
    pub(crate) fn new(context: Arc<Context>, client: Client) -> Self {
        let mut set = JoinSet::new();
        let mut states = client.state_watcher();
        // What happened before the watcher was there is not told by it.
        let state = states.state();
        set.spawn(async move {
            Outcome::StateChanged(match state {
                SessionState::SyncConnected => states.changed().await,
                lost => lost,
            })
        });
        Self {
            context,
            client,
            set,
            pending: HashMap::new(),
            unwatched: Arm { master: true, sync: true },
            close_at: Some(Instant::now()),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.pending.len() < PENDING_MAX
    }

    /// Sends the request off; its outcome comes out of [`Self::next`].
    pub(crate) fn start(&mut self, order: ZooKeeperRequest) {
        let (context, client) = (Arc::clone(&self.context), self.client.clone());
        let sent_at = self.context.now();
        let patience = match order {
            ZooKeeperRequest::Register { .. } | ZooKeeperRequest::Unregister { .. } => {
                self.context.session_timeout * LIST_TIMEOUTS_MAX
            }
            ZooKeeperRequest::OpenSession
            | ZooKeeperRequest::Look
            | ZooKeeperRequest::Claim { .. }
            | ZooKeeperRequest::Heartbeat { .. }
            | ZooKeeperRequest::WriteSync { .. }
            | ZooKeeperRequest::HandOver { .. }
            | ZooKeeperRequest::Resign { .. } => self.context.session_timeout,
        };
        let handle = match order.clone() {
            ZooKeeperRequest::OpenSession => return, // it comes by another way
            ZooKeeperRequest::Look => {
                let arm = self.unwatched;
                self.set.spawn(async move { look::look(&context, &client, arm).await })
            }
            ZooKeeperRequest::Claim { epoch, epoch_version, replace, sync, handover } => {
                let claim = fenced::Claim { epoch, epoch_version, replace, sync, handover };
                self.set.spawn(async move { fenced::claim(&context, &client, claim).await })
            }
            ZooKeeperRequest::Heartbeat { epoch, epoch_version } => self.set.spawn(async move {
                fenced::heartbeat(&context, &client, epoch, epoch_version).await
            }),
            ZooKeeperRequest::WriteSync { epoch, epoch_version, sync_version, members } => {
                let write = fenced::WriteSync { epoch, epoch_version, sync_version, members };
                self.set.spawn(async move { fenced::write_sync(&context, &client, write).await })
            }
            ZooKeeperRequest::HandOver { epoch, epoch_version, to, number } => {
                let order = fenced::HandOver { epoch, epoch_version, to, number };
                self.set.spawn(async move { fenced::hand_over(&context, &client, order).await })
            }
            ZooKeeperRequest::Resign { epoch, epoch_version, master_version } => {
                let resign = fenced::Resign { epoch, epoch_version, master_version };
                self.set.spawn(async move { fenced::resign(&context, &client, resign).await })
            }
            ZooKeeperRequest::Register { epoch, epoch_version } => self.set.spawn(async move {
                registry::register(&context, &client, epoch, epoch_version).await
            }),
            ZooKeeperRequest::Unregister { epoch } => {
                self.set.spawn(async move { registry::unregister(&context, &client, epoch).await })
            }
        };
        let give_up_at = Instant::now() + patience;
        self.pending.insert(handle.id(), Pending { order, sent_at, give_up_at });
    }

    /// The next outcome. Cancel-safe: nothing is lost when this is dropped.
    pub(crate) async fn next(&mut self) -> Outcome {
        match self.set.join_next_with_id().await {
            Some(Ok((id, outcome))) => self.settle(id, outcome),
            // A task that panicked: its order stays pending and becomes ambiguous.
            Some(Err(_)) => Outcome::Nothing,
            None => std::future::pending().await,
        }
    }

    /// When the oldest request has waited too long for the connection to be trusted.
    pub(crate) fn give_up_at(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.give_up_at).min()
    }

    /// What else was answered before the connection was given up, then the ambiguous rest.
    pub(crate) fn end(mut self) -> (Vec<ZooKeeperEvent>, Vec<ZooKeeperEvent>) {
        let mut answered = Vec::new();
        while let Some(joined) = self.set.try_join_next_with_id() {
            let Ok((id, outcome)) = joined else { continue };
            if let Outcome::Event(event) | Outcome::Looked(event, _) = self.settle(id, outcome) {
                answered.push(event);
            }
        }
        let unanswered = self.pending.into_values();
        let rest = unanswered.filter_map(|p| without_answer(&p.order, p.sent_at, CUT_OFF));
        (answered, rest.collect())
    }

    fn settle(&mut self, id: Id, mut outcome: Outcome) -> Outcome {
        self.pending.remove(&id);
        match &mut outcome {
            Outcome::Looked(_, watches) => {
                self.close_if_due();
                let Watches { master, sync } = std::mem::take(watches);
                for (znode, watch) in [(Watched::Master, master), (Watched::Sync, sync)] {
                    let Some(watch) = watch else { continue };
                    *self.unwatched(znode) = false;
                    self.set.spawn(async move {
                        let event = watch.changed().await.event_type;
                        Outcome::WatchFired { znode, event }
                    });
                }
            }
            Outcome::WatchFired { znode, .. } => *self.unwatched(*znode) = true,
            Outcome::Closed(_, again) => self.close_at = Some(Instant::now() + *again),
            Outcome::Event(_) | Outcome::StateChanged(_) | Outcome::Nothing => {}
        }
        outcome
    }

    /// After a look, when the znodes are there. Nobody waits for it.
    fn close_if_due(&mut self) {
        let due = self.close_at.is_some_and(|at| at <= Instant::now());
        if !due || self.context.settings.access.auth.is_none() {
            return;
        }
        self.close_at = None;
        let (context, client) = (Arc::clone(&self.context), self.client.clone());
        self.set.spawn(async move {
            match closing::close(&context, &client).await {
                Ok(what) => {
                    let again = if what.is_some() { CLOSE_SOON } else { CLOSE_LATER };
                    Outcome::Closed(Some(ZooKeeperEvent::Exposed { what }), again)
                }
                Err(error) => {
                    tracing::debug!(reason = %error, "whether znodes are open is not known");
                    Outcome::Closed(None, CLOSE_SOON)
                }
            }
        });
    }

    fn unwatched(&mut self, znode: Watched) -> &mut bool {
        match znode {
            Watched::Master => &mut self.unwatched.master,
            Watched::Sync => &mut self.unwatched.sync,
        }
    }
}

/// Why a look that was under way came to nothing.
const CUT_OFF: &str = "the connection to ZooKeeper was lost";

/// What is said of an order that got no definite answer.
pub(crate) fn without_answer(
    order: &ZooKeeperRequest,
    sent_at: Moment,
    reason: &str,
) -> Option<ZooKeeperEvent> {
    let answer = Answer::Ambiguous;
    match *order {
        ZooKeeperRequest::OpenSession | ZooKeeperRequest::Unregister { .. } => None,
        ZooKeeperRequest::Look => Some(ZooKeeperEvent::LookFailed {
            reason: reason.to_owned(),
            trouble: LookTrouble::NoAnswer,
        }),
        ZooKeeperRequest::Claim { epoch, .. } => {
            Some(ZooKeeperEvent::Claimed { sent_at, epoch, answer })
        }
        ZooKeeperRequest::Heartbeat { epoch, .. } => {
            Some(ZooKeeperEvent::HeartbeatAnswered { sent_at, epoch, answer })
        }
        ZooKeeperRequest::WriteSync { epoch, .. } => {
            Some(ZooKeeperEvent::SyncWritten { epoch, answer })
        }
        ZooKeeperRequest::HandOver { epoch, .. } => {
            Some(ZooKeeperEvent::HandedOver { epoch, answer })
        }
        ZooKeeperRequest::Resign { epoch, .. } => Some(ZooKeeperEvent::Resigned { epoch, answer }),
        ZooKeeperRequest::Register { epoch, .. } => {
            Some(ZooKeeperEvent::RegisterAnswered { epoch, entries: 0, answer })
        }
    }
}
