//! The session: opened when core says so, attached again when its connection is lost, given up when
//! that comes to nothing.
//!
//! ```text
//!            OpenSession                 a server lets us in              a request waits too long,
//!   Idle ───────────────▶ Opening ───────────────────────▶ Attached ◀──┐ the connection is lost
//!    ▲                     │ none does: ConnectFailed        │  │      │        │
//!    ├─────────────────────┘                                 │  └──────┼────────▼
//!    │◀── SessionEnded: the server says so ──────────────────┘         └─── Detached
//!    └◀── SessionEnded: the server says so, or no server lets us in for 2 T ────┘
//! ```
//!
//! An `OpenSession` leads from everywhere to Opening, a farewell from everywhere to the end. All of
//! it happens on one thread, one step after the other, so that there are never two connections.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hotpair_core::pair::effect::{ZooKeeperOrder, ZooKeeperRequest};
use hotpair_core::pair::fact::{Fact, SessionId, ZooKeeperEvent, ZooKeeperFact};
use hotpair_core::pair::identity::{Epoch, Identity};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use zookeeper_client::{Client, EventType, SessionInfo, SessionState};

use crate::connection::{self, AtDrop, ConnectError, Connection, Plan, connection_timeout};
use crate::layout::Layout;
use crate::serving::{Context, Outcome, Tasks, Watched, without_answer};
use crate::settings::{Clock, ZooKeeperSettings};
use crate::short_session;

/// Carries orders out on a thread of its own. Dropped without [`ZooKeeperDriver::close`]: the session
/// lives on until the server finds it expired.
#[derive(Debug)]
pub struct ZooKeeperDriver {
    orders: mpsc::Sender<ZooKeeperOrder>,
    wishes: watch::Sender<Wish>,
    overrun: Arc<AtomicBool>,
    ended: oneshot::Receiver<Farewell>,
}

/// How the session was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// There was none.
    NoSession,
    /// The server confirmed its end: what it had created is gone.
    SessionClosed,
    /// What it had created goes when it expires.
    LeftToExpire {
        /// Why it could not be closed.
        reason: String,
    },
}

/// What overtakes all orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    NewSession { generation: u64 },
    Farewell { until: Instant },
}

/// Orders that wait to be started. Core has a handful under way at most.
const ORDERS_MAX: usize = 64;

impl ZooKeeperDriver {
    /// Starts the thread. It does nothing until the first `OpenSession`.
    ///
    /// # Panics
    ///
    /// When the system has no thread left: without one, no node can work.
    #[must_use]
    pub fn start(
        settings: ZooKeeperSettings,
        me: Arc<Identity>,
        facts: mpsc::Sender<Fact>,
        clock: Clock,
    ) -> Self {
        let (orders, orders_in) = mpsc::channel(ORDERS_MAX);
        let (wishes, wishes_in) = watch::channel(Wish::Nothing);
        let (end, ended) = oneshot::channel();
        let overrun = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            layout: Arc::new(Layout::new(&settings.root, &settings.pair)),
            next_server: fastrand::usize(..settings.access.servers.len().max(1)),
            settings: Arc::new(settings),
            me,
            clock,
            facts,
            orders: orders_in,
            wishes: wishes_in,
            overrun: Arc::clone(&overrun),
            registered: Arc::default(),
        };
        if worker.settings.access.auth.is_none() {
            tracing::warn!(
                "coordinator.zookeeper.auth is not set: whoever reaches ZooKeeper can take the \
                 mastership away and read where the nodes are"
            );
        }
        let thread = std::thread::Builder::new().name("zookeeper".to_owned());
        let body = move || {
            let _ = end.send(worker.run()); // nobody asked for a farewell
        };
        thread.spawn(body).expect("a thread can be started when the process starts");
        Self { orders, wishes, overrun, ended }
    }

    /// Takes an order. Never blocks. An answer comes as a fact, even when it is only that there is
    /// none.
    pub fn carry_out(&self, order: ZooKeeperOrder) {
        if order.what == ZooKeeperRequest::OpenSession {
            let wish = Wish::NewSession { generation: order.generation };
            self.wishes.send_if_modified(|current| match current {
                Wish::Farewell { .. } => false,
                Wish::Nothing | Wish::NewSession { .. } => {
                    *current = wish;
                    true
                }
            });
            return;
        }
        // A lost order would leave core waiting: the session is given up instead.
        if self.orders.try_send(order).is_err() {
            self.overrun.store(true, Ordering::Release);
        }
    }

    /// Takes our presence away and closes the session, if that is possible within this time. Whatever
    /// was to be given back must have been given back before.
    pub async fn close(self, within: Duration) -> Farewell {
        let reason = || format!("closing it took longer than {within:?}");
        self.wishes.send_replace(Wish::Farewell { until: Instant::now() + within });
        match tokio::time::timeout(within + FAREWELL_GRACE, self.ended).await {
            Ok(Ok(farewell)) => farewell,
            Ok(Err(_)) => Farewell::LeftToExpire { reason: "its thread is gone".to_owned() },
            Err(_elapsed) => Farewell::LeftToExpire { reason: reason() },
        }
    }
}

/// The thread may need this much longer to say how it ended.
const FAREWELL_GRACE: Duration = Duration::from_millis(200);

/// The thread's own.
struct Worker {
    settings: Arc<ZooKeeperSettings>,
    layout: Arc<Layout>,
    me: Arc<Identity>,
    clock: Clock,
    facts: mpsc::Sender<Fact>,
    orders: mpsc::Receiver<ZooKeeperOrder>,
    wishes: watch::Receiver<Wish>,
    overrun: Arc<AtomicBool>,
    next_server: usize,
    registered: Arc<Mutex<BTreeSet<Epoch>>>,
}

/// A session that was opened and has not ended, as far as we know.
struct Session {
    generation: u64,
    info: SessionInfo,
    attached_at: Instant,
    context: Arc<Context>,
}

/// Where things stand. See the file's header.
enum Stage {
    Idle { generation: u64 },
    Opening { generation: u64 },
    Attached(Session, Connection),
    Detached(Session),
    Leaving { until: Instant, session: Option<Session>, connection: Option<Connection> },
    Over,
}

/// How one attempt to connect ended.
enum Attempt {
    Connected(Connection),
    Failed(ConnectError),
    /// A wish came first, or nobody listens any more.
    Interrupted,
}

/// Why requests are not served any more.
enum Parting {
    Disconnected { reason: String },
    Ended { reason: String },
    Interrupted,
}

impl Worker {
    fn run(mut self) -> Farewell {
        let quiet = match connection::runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Farewell::LeftToExpire { reason: error.to_string() },
        };
        let mut stage = Stage::Idle { generation: 0 };
        loop {
            stage = match stage {
                Stage::Idle { generation } => quiet.block_on(self.wait(generation)),
                Stage::Opening { generation } => self.open(&quiet, generation),
                Stage::Attached(session, connection) => self.serve(&quiet, session, connection),
                Stage::Detached(session) => self.attach_again(&quiet, session),
                Stage::Leaving { until, session, connection } => {
                    return self.leave(until, session, connection);
                }
                Stage::Over => return Farewell::NoSession,
            };
        }
    }

    // --- stages

    /// No session is wanted yet, or core was told that it ended.
    async fn wait(&mut self, generation: u64) -> Stage {
        loop {
            tokio::select! {
                biased;
                changed = self.wishes.changed() => match changed {
                    Ok(()) => return self.wished(None, None),
                    Err(_) => return Stage::Over,
                },
                order = self.orders.recv() => match order {
                    Some(order) => self.decline(generation, &order).await,
                    None => return Stage::Over,
                },
            }
        }
    }

    /// One round over all servers.
    fn open(&mut self, quiet: &Runtime, generation: u64) -> Stage {
        let mut reasons = Vec::new();
        for _ in 0..self.settings.access.servers.len() {
            let server = self.take_server();
            match self.attempt(generation, &server, None) {
                Attempt::Connected(connection) => {
                    let session = self.opened(generation, &connection.client);
                    let timeout_ms = session.context.session_timeout_ms();
                    let id = session.context.session;
                    tracing::info!(%server, session = %connection.client.session_id(), timeout_ms,
                        "ZooKeeper session opened");
                    let opened = ZooKeeperEvent::SessionOpened { session: id, timeout_ms };
                    // On its own runtime, so that pings go on while the fact waits for room.
                    connection.runtime.block_on(self.report(generation, opened));
                    return Stage::Attached(session, connection);
                }
                Attempt::Failed(error) => reasons.push(error.to_string()),
                Attempt::Interrupted => return self.wished(None, None),
            }
        }
        if reasons.is_empty() {
            reasons.push("none is configured".to_owned());
        }
        // In an order that does not change with each attempt.
        reasons.sort();
        let reason = format!("no ZooKeeper server lets us open a session: {}", reasons.join("; "));
        tracing::warn!("{reason}");
        quiet.block_on(self.report(generation, ZooKeeperEvent::ConnectFailed { reason }));
        Stage::Idle { generation }
    }

    /// Orders become requests until the connection is gone.
    fn serve(&mut self, quiet: &Runtime, session: Session, connection: Connection) -> Stage {
        let generation = session.generation;
        let (parting, answered, unanswered) = connection.runtime.block_on(async {
            let mut tasks = Tasks::new(Arc::clone(&session.context), connection.client.clone());
            let parting = self.serve_tasks(generation, &mut tasks).await;
            let (answered, unanswered) = tasks.end();
            (parting, answered, unanswered)
        });
        match parting {
            // Core has forgotten this session, or is about to end: it wants no answers.
            Parting::Interrupted => self.wished(Some(session), Some(connection)),
            Parting::Disconnected { reason } => {
                drop(connection); // first of all, with everything that it may still want to do
                tracing::warn!(%reason, "connection to ZooKeeper lost");
                quiet.block_on(async {
                    self.report_all(generation, answered).await;
                    self.report(generation, ZooKeeperEvent::Disconnected).await;
                    self.report_all(generation, unanswered).await;
                });
                Stage::Detached(session)
            }
            Parting::Ended { reason } => {
                drop(connection);
                tracing::warn!(%reason, "ZooKeeper session ended");
                quiet.block_on(async {
                    self.report_all(generation, answered).await;
                    self.report_all(generation, unanswered).await;
                    self.report(generation, ZooKeeperEvent::SessionEnded { reason }).await;
                });
                Stage::Idle { generation }
            }
        }
    }

    async fn serve_tasks(&mut self, generation: u64, tasks: &mut Tasks) -> Parting {
        loop {
            let give_up_at = tasks.give_up_at().map(tokio::time::Instant::from_std);
            tokio::select! {
                biased;
                _ = self.wishes.changed() => return Parting::Interrupted,
                outcome = tasks.next() => match outcome {
                    Outcome::Event(event) | Outcome::Looked(event, _) => {
                        self.report(generation, event).await;
                    }
                    Outcome::Closed(Some(event), _) => self.report(generation, event).await,
                    Outcome::WatchFired { event: EventType::Session, .. }
                    | Outcome::Closed(None, _)
                    | Outcome::Nothing => {}
                    Outcome::WatchFired { znode: Watched::Sync, .. } => {
                        self.report(generation, ZooKeeperEvent::SyncChanged).await;
                    }
                    Outcome::WatchFired { znode: Watched::Master, event } => {
                        let gone = event == EventType::NodeDeleted;
                        self.report(generation, ZooKeeperEvent::MasterChanged { gone }).await;
                    }
                    Outcome::StateChanged(state) => return parting_at(state),
                },
                order = self.orders.recv(), if tasks.has_room() => {
                    let Some(order) = order else { return Parting::Interrupted };
                    if self.overrun.swap(false, Ordering::AcqRel) {
                        let reason = format!("more than {ORDERS_MAX} orders were waiting");
                        return Parting::Ended { reason };
                    }
                    if order.generation == generation {
                        tasks.start(order.what);
                    }
                }
                () = sleep_until(give_up_at) => {
                    let reason = "a request was not answered in time".to_owned();
                    return Parting::Disconnected { reason };
                }
            }
        }
    }

    /// Tries one server after the other, at our own pace.
    fn attach_again(&mut self, quiet: &Runtime, session: Session) -> Stage {
        let generation = session.generation;
        let patience = session.context.session_timeout * PATIENCE_TIMEOUTS;
        let give_up_at = Instant::now() + patience;
        let mut pause = Duration::ZERO;
        // At once, unless the last connection was lost as soon as it was there.
        if session.attached_at.elapsed() < ATTACH_PAUSE.1 {
            pause = ATTACH_PAUSE.0;
            if !quiet.block_on(self.pause(generation, pause)) {
                return self.wished(Some(session), None);
            }
        }
        loop {
            let server = self.take_server();
            match self.attempt(generation, &server, Some(&session)) {
                Attempt::Connected(connection) => {
                    tracing::info!(%server, "ZooKeeper session attached again");
                    let again = ZooKeeperEvent::Reconnected;
                    connection.runtime.block_on(self.report(generation, again));
                    let info = connection.client.session().clone();
                    let attached_at = Instant::now();
                    return Stage::Attached(Session { info, attached_at, ..session }, connection);
                }
                Attempt::Failed(error @ ConnectError::SessionOver { .. }) => {
                    tracing::warn!(reason = %error, "ZooKeeper session ended");
                    let ended = ZooKeeperEvent::SessionEnded { reason: error.to_string() };
                    quiet.block_on(self.report(generation, ended));
                    return Stage::Idle { generation };
                }
                Attempt::Failed(
                    error @ (ConnectError::NoAnswer { .. }
                    | ConnectError::Silent { .. }
                    | ConnectError::NoRuntime { .. }
                    | ConnectError::NotReached { .. }
                    | ConnectError::Failed { .. }),
                ) => {
                    tracing::debug!(reason = %error, "not attached yet");
                    if Instant::now() >= give_up_at {
                        let reason = format!("for {patience:?} no server let us in: {error}");
                        tracing::warn!(%reason, "ZooKeeper session given up");
                        let ended = ZooKeeperEvent::SessionEnded { reason };
                        quiet.block_on(self.report(generation, ended));
                        return Stage::Idle { generation };
                    }
                }
                Attempt::Interrupted => return self.wished(Some(session), None),
            }
            pause = (pause * 2).clamp(ATTACH_PAUSE.0, ATTACH_PAUSE.1);
            if !quiet.block_on(self.pause(generation, pause)) {
                return self.wished(Some(session), None);
            }
        }
    }

    /// The end, in good order as far as time allows.
    fn leave(
        &mut self,
        until: Instant,
        session: Option<Session>,
        connection: Option<Connection>,
    ) -> Farewell {
        let Some(Session { info, context, .. }) = session else { return Farewell::NoSession };
        let left = || until.saturating_duration_since(Instant::now());
        if let Some(Connection { client, runtime }) = connection
            && Context::noted(&context.present)
        {
            let presence = self.layout.presence(&self.me.incarnation.node);
            let deleted =
                async { tokio::time::timeout(left() / 2, client.delete(&presence, None)).await };
            let _ = runtime.block_on(deleted); // closing the session deletes it as well
        }
        // A detached session cannot be closed where it is: attach it once more, to be closed.
        let server = self.take_server();
        let session_timeout = self.settings.session_timeout;
        let within = connection_timeout(context.session_timeout);
        let plan = Plan { session: Some(info), session_timeout, within, at_drop: AtDrop::Close };
        let closing = async {
            let client = connection::connect(&self.settings.access, &server, plan).await?;
            Ok::<bool, ConnectError>(short_session::close(client, left()).await)
        };
        let closed = connection::runtime()
            .map(|runtime| runtime.block_on(async { tokio::time::timeout(left(), closing).await }));
        let reason = match closed {
            Ok(Ok(Ok(true))) => return Farewell::SessionClosed,
            Ok(Ok(Ok(false))) => format!("{server} did not confirm the end of the session"),
            Ok(Ok(Err(ConnectError::SessionOver { .. }))) => return Farewell::SessionClosed,
            Ok(Ok(Err(
                error @ (ConnectError::NoAnswer { .. }
                | ConnectError::Silent { .. }
                | ConnectError::NoRuntime { .. }
                | ConnectError::NotReached { .. }
                | ConnectError::Failed { .. }),
            ))) => error.to_string(),
            Ok(Err(_elapsed)) => format!("{server} did not answer in time"),
            Err(error) => error.to_string(),
        };
        Farewell::LeftToExpire { reason }
    }

    // --- steps

    /// What the last wish makes of what there is. A new session forgets the old one as it stands:
    /// its connection is dropped, and it expires when the server says so.
    fn wished(&mut self, session: Option<Session>, connection: Option<Connection>) -> Stage {
        let wish = *self.wishes.borrow_and_update();
        let driver_dropped = self.wishes.has_changed().is_err();
        match wish {
            Wish::Farewell { until } => Stage::Leaving { until, session, connection },
            Wish::Nothing | Wish::NewSession { .. } if driver_dropped => Stage::Over,
            Wish::Nothing => Stage::Idle { generation: 0 },
            Wish::NewSession { generation } => Stage::Opening { generation },
        }
    }

    /// One connection attempt, on a runtime of its own. Orders are declined meanwhile.
    fn attempt(&mut self, generation: u64, server: &str, session: Option<&Session>) -> Attempt {
        let runtime = match connection::runtime() {
            Ok(runtime) => runtime,
            Err(source) => {
                let server = server.to_owned();
                return Attempt::Failed(ConnectError::NoRuntime { server, source });
            }
        };
        let plan = Plan {
            session: session.map(|session| session.info.clone()),
            session_timeout: self.settings.session_timeout,
            within: connection_timeout(match session {
                Some(session) => session.context.session_timeout,
                None => self.settings.session_timeout,
            }),
            at_drop: AtDrop::LeaveToExpire,
        };
        let settings = Arc::clone(&self.settings);
        let connected = runtime.block_on(async {
            let mut connecting = Box::pin(connection::connect(&settings.access, server, plan));
            loop {
                tokio::select! {
                    biased;
                    _ = self.wishes.changed() => return None,
                    connected = &mut connecting => return Some(connected),
                    order = self.orders.recv() => {
                        let order = order?;
                        self.decline(generation, &order).await;
                    }
                }
            }
        });
        match connected {
            Some(Ok(client)) => Attempt::Connected(Connection { client, runtime }),
            Some(Err(error)) => Attempt::Failed(error),
            None => Attempt::Interrupted,
        }
    }

    /// True when the time passed without a wish.
    async fn pause(&mut self, generation: u64, time: Duration) -> bool {
        let mut over = Box::pin(tokio::time::sleep(time));
        loop {
            tokio::select! {
                biased;
                _ = self.wishes.changed() => return false,
                () = &mut over => return true,
                order = self.orders.recv() => match order {
                    Some(order) => self.decline(generation, &order).await,
                    None => return false,
                },
            }
        }
    }

    /// Not connected: nothing is kept for later, since late is worse than never.
    async fn decline(&mut self, generation: u64, order: &ZooKeeperOrder) {
        if order.generation != generation {
            return;
        }
        let now = (self.clock)();
        if let Some(event) = without_answer(&order.what, now, "there is no connection to ZooKeeper")
        {
            self.report(generation, event).await;
        }
    }

    /// Waits for room: the control thread is the only one that makes it. When nobody listens any
    /// more, the wishes tell.
    async fn report(&self, generation: u64, what: ZooKeeperEvent) {
        let fact = Fact::ZooKeeper(ZooKeeperFact { generation, what });
        let _ = self.facts.send(fact).await;
    }

    async fn report_all(&self, generation: u64, events: Vec<ZooKeeperEvent>) {
        for event in events {
            self.report(generation, event).await;
        }
    }

    fn opened(&self, generation: u64, client: &Client) -> Session {
        // Orders that were lost before belong to sessions forgotten by now.
        self.overrun.store(false, Ordering::Release);
        let context = Context {
            settings: Arc::clone(&self.settings),
            layout: Arc::clone(&self.layout),
            me: Arc::clone(&self.me),
            clock: Arc::clone(&self.clock),
            session: SessionId(client.session_id().0),
            session_timeout: client.session_timeout(),
            prepared: AtomicBool::new(false),
            present: AtomicBool::new(false),
            registered: Arc::clone(&self.registered),
        };
        Session {
            generation,
            info: client.session().clone(),
            attached_at: Instant::now(),
            context: Arc::new(context),
        }
    }

    /// Each in turn: after a lost connection, another server is tried first.
    fn take_server(&mut self) -> String {
        let servers = &self.settings.access.servers;
        let server = servers.get(self.next_server).cloned().unwrap_or_default();
        self.next_server = (self.next_server + 1) % servers.len().max(1);
        server
    }
}

/// A session that no server lets in for so many time-outs is given up.
const PATIENCE_TIMEOUTS: u32 = 2;
/// The pauses between attempts to attach: the first, doubled up to the last.
const ATTACH_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The client library's word on a connection that was fine before. Any change is the end of it:
/// even "connected" means that it was lost and replaced behind our back.
fn parting_at(state: SessionState) -> Parting {
    match state {
        SessionState::Disconnected
        | SessionState::SyncConnected
        | SessionState::ConnectedReadOnly => {
            Parting::Disconnected { reason: "the server closed it or fell silent".to_owned() }
        }
        SessionState::AuthFailed | SessionState::Expired | SessionState::Closed => {
            Parting::Ended { reason: format!("ZooKeeper's word on the session: {state}") }
        }
    }
}

async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
