//! A session: logged in once, kept alive, its requests numbered, so that each is done once whatever
//! becomes of nodes, routers and connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hotpair_http::Bytes;
use hotpair_protocol::{
    CallBody, Envelope, ErrorNumber, LoginAnswer, LoginBody, PublishBody, ResultBody, SessionBody,
    TicketAnswer,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::error::{Error, data_of};
use crate::function::Function;
use crate::numbers::Numbers;
use crate::push::{Push, Pushed};
use crate::wire::{Ask, Asked, Wire};

/// Times and habits of a client.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) call_limit: Duration,
    pub(crate) log_in_again: bool,
}

/// A session. Clones are the same one; when the last is gone, nothing keeps it alive any more.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    heartbeat: AbortHandle,
    follower: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) wire: Arc<Wire>,
    settings: Settings,
    user: String,
    /// Kept only where it is to be used again.
    password: Option<String>,
    login: Mutex<Login>,
    /// One logs in again, the others wait for it.
    logging_in: tokio::sync::Mutex<()>,
    /// A number became free.
    room: Notify,
    /// Told when its answer is there.
    tickets: Mutex<BTreeMap<String, Arc<Notify>>>,
    /// Whether a push stream is being followed.
    followed: Mutex<bool>,
}

/// One login, and the numbers used since.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) token: String,
    idle_timeout: Duration,
    /// Counts logins.
    generation: u64,
    numbers: Numbers,
    over: bool,
}

/// A number for as long as its answer is wanted.
struct Number<'a> {
    shared: &'a Shared,
    token: String,
    generation: u64,
    number: u64,
    done_up_to: u64,
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        let mut login = self.shared.login();
        if login.generation == self.generation {
            login.numbers.give_back(self.number);
        }
        drop(login);
        self.shared.room.notify_waiters();
    }
}

impl Session {
    pub(crate) async fn log_in(
        wire: Arc<Wire>,
        settings: Settings,
        user: &str,
        password: &str,
    ) -> Result<Self, Error> {
        let limit = settings.call_limit;
        let answer = log_in(&wire, user, password, limit).await?;
        let shared = Arc::new(Shared {
            wire,
            user: user.to_owned(),
            password: settings.log_in_again.then(|| password.to_owned()),
            settings,
            login: Mutex::new(Login::of(answer, 1)),
            logging_in: tokio::sync::Mutex::default(),
            room: Notify::new(),
            tickets: Mutex::default(),
            followed: Mutex::new(false),
        });
        let heartbeat = tokio::spawn(keep_alive(Arc::clone(&shared))).abort_handle();
        let follower = Mutex::default();
        Ok(Self { inner: Arc::new(Inner { shared, heartbeat, follower }) })
    }

    /// The session's token: whoever has it is this user.
    #[must_use]
    pub fn token(&self) -> String {
        self.shared().login().token.clone()
    }

    /// How often it was logged in: 1, unless the client was told to log in again.
    #[must_use]
    pub fn logins(&self) -> u64 {
        self.shared().login().generation
    }

    /// Whether the pair said that the session is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared().login().over
    }

    /// Calls a function and waits for its answer, for the client's usual time.
    pub async fn call<T: DeserializeOwned>(
        &self,
        function: impl Into<Function>,
        arguments: impl Serialize,
    ) -> Result<T, Error> {
        self.call_within(function, arguments, self.shared().settings.call_limit).await
    }

    /// The same for so long.
    pub async fn call_within<T: DeserializeOwned>(
        &self,
        function: impl Into<Function>,
        arguments: impl Serialize,
        limit: Duration,
    ) -> Result<T, Error> {
        let call = function.into().call(arguments)?;
        let data = data_of(self.shared().call(call, limit).await?)?;
        Ok(serde_json::from_value(data)?)
    }

    /// Begins a call: its ticket, once the pair has it for certain. The work goes on whatever becomes
    /// of this client, and is done once whatever becomes of the node.
    pub async fn start(
        &self,
        function: impl Into<Function>,
        arguments: impl Serialize,
    ) -> Result<Ticket, Error> {
        let mut call = function.into().call(arguments)?;
        call.is_async = true;
        let limit = self.shared().settings.call_limit;
        let data = data_of(self.shared().call(call, limit).await?)?;
        let TicketAnswer { ticket } = serde_json::from_value(data)?;
        self.follow();
        Ok(self.ticket(&ticket))
    }

    /// A ticket that was told before, perhaps to another process with this session's token.
    #[must_use]
    pub fn ticket(&self, ticket: &str) -> Ticket {
        let told = Arc::<Notify>::default();
        self.shared().tickets().insert(ticket.to_owned(), Arc::clone(&told));
        Ticket { session: self.clone(), ticket: ticket.to_owned(), told }
    }

    /// Everything that is pushed to this session, over all connections that it takes. Coming back after
    /// a cut it says which replies it has, and the pair lets them go: so follow either this, or
    /// wait for tickets with [`Ticket::result`].
    #[must_use]
    pub fn push(&self) -> Push {
        Push::new(Arc::clone(self.shared()), true)
    }

    /// Says that the session goes on. Done by itself in the background, at a quarter of the idle time.
    pub async fn heartbeat(&self) -> Result<(), Error> {
        self.shared().beat().await
    }

    /// Publishes to everybody who follows and wants the topic. Not sent again once it may have been
    /// executed, so it may fail with [`Error::OutcomeUnknown`].
    pub async fn publish(&self, topic: &str, payload: &Value) -> Result<(), Error> {
        let shared = self.shared();
        let session = shared.login().token.clone();
        let body = PublishBody { session: &session, topic, payload };
        let body = Bytes::from(serde_json::to_vec(&body)?);
        let limit = shared.settings.call_limit;
        let deadline = Instant::now() + limit;
        let ask = Ask { path: "/v1/publish", body, repeatable: false, limit, deadline };
        data_of(shared.wire.ask(ask).await?.envelope).map(drop)
    }

    /// Ends the session.
    pub async fn log_out(&self) -> Result<(), Error> {
        self.inner.heartbeat.abort();
        let shared = self.shared();
        let token = shared.login().token.clone();
        let asked = shared.ask("/v1/logout", &SessionBody { session: token }).await?;
        shared.login().over = true;
        match data_of(asked.envelope) {
            // An earlier sending ended it.
            Ok(_) | Err(Error::SessionOver) => Ok(()),
            Err(other) => Err(other),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Follows the pushed answers, to wake who waits for a ticket.
    fn follow(&self) {
        let mut follower = self.inner.follower.lock().expect("nobody panics with it");
        if follower.as_ref().is_none_or(AbortHandle::is_finished) {
            let shared = Arc::clone(self.shared());
            *follower = Some(tokio::spawn(wake_tickets(shared)).abort_handle());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.heartbeat.abort();
        if let Some(follower) = self.follower.lock().expect("nobody panics with it").take() {
            follower.abort();
        }
    }
}

/// A call that was begun, and whose answer waits to be taken.
#[derive(Debug)]
pub struct Ticket {
    session: Session,
    ticket: String,
    told: Arc<Notify>,
}

impl Ticket {
    /// What the pair knows it by, within the session.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.ticket
    }

    /// Waits for the answer and takes it. If time is over first, it may be waited for again.
    pub async fn result<T: DeserializeOwned>(&self, limit: Duration) -> Result<T, Error> {
        let deadline = Instant::now() + limit;
        let shared = self.session.shared();
        loop {
            let envelope = shared.fetch(&self.ticket, limit, deadline).await?;
            if envelope.ticket.is_some() {
                return Ok(serde_json::from_value(data_of(envelope)?)?);
            }
            if envelope.data.get("ticket").is_some_and(|ticket| ticket == "unknown") {
                return Err(Error::UnknownTicket { ticket: self.ticket.clone() });
            }
            let Some(wait) = envelope.retry_after_ms.map(Duration::from_millis) else {
                let why = "an answer of /v1/result that is neither final nor running".to_owned();
                return Err(data_of(envelope).err().unwrap_or(Error::OutcomeUnknown { why }));
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if *shared.followed() { wait.max(POLL_FOLLOWED) } else { wait };
            // Told, or to be looked for: both lead to the next look.
            let _ = timeout(wait.min(left), self.told.notified()).await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.shared().tickets().remove(&self.ticket);
    }
}

impl Shared {
    async fn call(&self, call: CallBody, limit: Duration) -> Result<Envelope, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let number = self.reserve(limit, deadline).await?;
            let body = CallBody {
                session: Some(number.token.clone()),
                request: Some(number.number),
                done_up_to: Some(number.done_up_to),
                timeout_ms: u64::try_from(limit.as_millis()).ok(),
                ..call.clone()
            };
            let asked = self.ask_until("/v1/call", &body, limit, deadline).await?;
            if asked.envelope.error_no != ErrorNumber::SessionUnknown {
                return Ok(asked.envelope);
            }
            if asked.may_be_done {
                let why = "the session ended before the request was answered".to_owned();
                return Err(Error::OutcomeUnknown { why });
            }
            let generation = number.generation;
            drop(number);
            self.log_in_again(generation).await?;
        }
    }

    async fn fetch(
        &self,
        ticket: &str,
        limit: Duration,
        deadline: Instant,
    ) -> Result<Envelope, Error> {
        let number = self.reserve(limit, deadline).await?;
        let body = ResultBody {
            session: number.token.clone(),
            ticket: ticket.to_owned(),
            request: Some(number.number),
            done_up_to: Some(number.done_up_to),
        };
        Ok(self.ask_until("/v1/result", &body, limit, deadline).await?.envelope)
    }

    /// A number of the present login, as soon as there is room for one more.
    async fn reserve(&self, limit: Duration, deadline: Instant) -> Result<Number<'_>, Error> {
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            // Registered before looking: a waking in between is not missed.
            freed.as_mut().enable();
            if let Some(number) = self.try_reserve() {
                return Ok(number);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if timeout(left, freed).await.is_err() {
                let last = "64 requests of the session are outstanding".to_owned();
                return Err(Error::TimedOut { limit, may_be_done: false, last });
            }
        }
    }

    fn try_reserve(&self) -> Option<Number<'_>> {
        let mut login = self.login();
        let number = login.numbers.take()?;
        Some(Number {
            shared: self,
            token: login.token.clone(),
            generation: login.generation,
            number,
            done_up_to: login.numbers.done_up_to(),
        })
    }

    async fn beat(&self) -> Result<(), Error> {
        let (session, generation) = {
            let login = self.login();
            (login.token.clone(), login.generation)
        };
        let asked = self.ask("/v1/heartbeat", &SessionBody { session }).await?;
        match data_of(asked.envelope) {
            Err(Error::SessionOver) => self.log_in_again(generation).await,
            other => other.map(drop),
        }
    }

    /// What the pair's word that a session is over leads to.
    async fn log_in_again(&self, generation: u64) -> Result<(), Error> {
        let Some(password) = &self.password else {
            self.login().over = true;
            return Err(Error::SessionOver);
        };
        let _one_at_a_time = self.logging_in.lock().await;
        if self.login().generation != generation {
            return Ok(());
        }
        let limit = self.settings.call_limit;
        let answer = log_in(&self.wire, &self.user, password, limit).await?;
        tracing::info!(user = self.user, "the session was over: logged in again");
        *self.login() = Login::of(answer, generation + 1);
        Ok(())
    }

    async fn ask(&self, path: &str, body: &impl Serialize) -> Result<Asked, Error> {
        let limit = self.settings.call_limit;
        self.ask_until(path, body, limit, Instant::now() + limit).await
    }

    async fn ask_until(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
        deadline: Instant,
    ) -> Result<Asked, Error> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        self.wire.ask(Ask { path, body, repeatable: true, limit, deadline }).await
    }

    pub(crate) fn login(&self) -> MutexGuard<'_, Login> {
        self.login.lock().expect("nobody panics with the login")
    }

    fn tickets(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Notify>>> {
        self.tickets.lock().expect("nobody panics with the tickets")
    }

    fn followed(&self) -> MutexGuard<'_, bool> {
        self.followed.lock().expect("nobody panics with it")
    }
}

impl Login {
    fn of(answer: LoginAnswer, generation: u64) -> Self {
        Self {
            token: answer.session,
            idle_timeout: Duration::from_millis(answer.idle_timeout_ms),
            generation,
            numbers: Numbers::default(),
            over: false,
        }
    }
}

/// Logging in twice makes a session that nobody uses, and that ends by itself.
async fn log_in(
    wire: &Wire,
    user: &str,
    password: &str,
    limit: Duration,
) -> Result<LoginAnswer, Error> {
    let body = LoginBody { user: user.to_owned(), password: password.to_owned() };
    let body = Bytes::from(serde_json::to_vec(&body)?);
    let deadline = Instant::now() + limit;
    let asked =
        wire.ask(Ask { path: "/v1/login", body, repeatable: true, limit, deadline }).await?;
    let data: Value = data_of(asked.envelope)?;
    Ok(serde_json::from_value(data)?)
}

/// Says at a quarter of the idle time that the session goes on, until it is over.
async fn keep_alive(shared: Arc<Shared>) {
    loop {
        let idle_timeout = shared.login().idle_timeout;
        // Spread, so that many clients do not beat together.
        let spread = f64::from(fastrand::u32(750..=1_000)) / 1_000.0;
        sleep((idle_timeout / 4).mul_f64(spread).max(HEARTBEAT_MIN)).await;
        match shared.beat().await {
            Ok(()) => {}
            Err(Error::SessionOver) => {
                tracing::warn!("the session is over: no more heartbeats");
                return;
            }
            Err(error) => tracing::warn!(%error, "no answer to a heartbeat"),
        }
    }
}

/// Wakes who waits for a ticket whose answer is pushed. Taken is it by its owner, under a number.
async fn wake_tickets(shared: Arc<Shared>) {
    let mut push = Push::new(Arc::clone(&shared), false);
    while let Ok(pushed) = push.next().await {
        match pushed {
            Pushed::Reply { ticket, .. } => {
                if let Some(told) = shared.tickets().get(&ticket) {
                    told.notify_one();
                }
            }
            Pushed::Role { serving, .. } => {
                *shared.followed() = serving;
                // What was pushed to nobody meanwhile is looked for.
                shared.tickets().values().for_each(|told| told.notify_one());
            }
            Pushed::Published { .. } => {}
            Pushed::Cut => *shared.followed() = false,
        }
    }
    *shared.followed() = false;
}

const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
/// How often is looked for an answer that is to be pushed.
const POLL_FOLLOWED: Duration = Duration::from_secs(2);
