//! The operators' HTTP: every path, who may ask for it, and what it says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::pair::switchover::{SwitchoverPhase as CorePhase, SwitchoverReport};
use hotpair_core::pair::view::View;
use hotpair_http::{Bytes, Handler, Hosts, Method, Refusal, Request, Response, StatusCode};
use hotpair_protocol::{
    OrderAnswer, PromoteBody, RequestTotals, Role, StoreStatus, SwitchoverAnswer, SwitchoverBody,
    SwitchoverPhase,
};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::clock;
use crate::health::Health;
use crate::metrics;
use crate::services::{GovernedServices, named};
use crate::snapshot::Snapshot;
use crate::tokens::{Permission, Tokens};
use crate::why::why;

/// What must be asked at the moment of answering, because an answer kept may be wrong by then. Must
/// answer at once, from any thread, without locks.
pub trait Live: Send + Sync + std::fmt::Debug + 'static {
    /// The epoch whose gate is open now, its lease not over.
    fn serving_epoch(&self) -> Option<Epoch>;

    /// Answers given to clients up to now.
    fn requests(&self) -> RequestTotals;

    /// The tables, as they were a moment ago.
    fn tables(&self) -> TableFigures;

    /// The SQL database, if one is written.
    fn store(&self) -> Option<StoreStatus> {
        None
    }

    /// What was sent to the external investment system, where one is configured.
    fn upstream(&self) -> Option<UpstreamFigures> {
        None
    }
}

/// What became of what was sent to the external investment system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamFigures {
    /// Logins that got a token.
    pub logins: u64,
    /// Logins that got none.
    pub logins_failed: u64,
    /// Heartbeats that were taken.
    pub heartbeats: u64,
    /// Heartbeats whose token is unknown there.
    pub unknown: u64,
    /// Heartbeats that were not taken or not answered.
    pub failed: u64,
    /// How much of the schedule was left out, in milliseconds.
    pub skipped_ms: u64,
}

/// Figures of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableFigures {
    /// Sessions.
    pub sessions: u64,
    /// Records that are written here and that the peer does not hold; none while no peer follows.
    pub redo_lag_records: Option<u64>,
    /// Records that are acknowledged and not in the SQL database; none while this node writes none.
    pub store_lag_records: Option<u64>,
    /// How long a session may be silent, in milliseconds.
    pub idle_timeout_ms: u64,
}

/// What an operator orders.
#[derive(Debug)]
pub enum AdminCommand {
    /// Give the mastership to the other node.
    Switchover {
        /// Who orders it.
        by: SocketAddr,
        /// Takes what came of it. Not answering within 30 s, or dropping it, is an answer too.
        answer: oneshot::Sender<SwitchoverReport>,
    },
    /// Become master.
    Promote {
        /// Who orders it.
        by: SocketAddr,
        /// Changes that were acknowledged may be lost by it.
        accept_data_loss: bool,
        /// Takes a sentence: what happened, or why it did not. No answer is one as above.
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// Take the ZooKeeper data that is there now for the right one.
    Adopt {
        /// Who orders it.
        by: SocketAddr,
        /// As above.
        answer: oneshot::Sender<Result<String, String>>,
    },
}

/// What the node gives to its operators' HTTP.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The newest snapshot.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Whether control turns.
    pub health: Arc<Health>,
    /// What is asked at the moment of answering.
    pub live: Arc<dyn Live>,
    /// Who may do what.
    pub tokens: Tokens,
    /// The names by which this node is asked from its own machine.
    pub hosts: Hosts,
    /// Where orders go. When it is full they are refused.
    pub commands: mpsc::Sender<AdminCommand>,
    /// Servers of other people.
    pub services: Arc<dyn GovernedServices>,
}

/// Answers operators.
#[derive(Debug)]
pub struct AdminService {
    state: AdminState,
    followers: Arc<Semaphore>,
}

impl AdminService {
    /// A service that shows this.
    #[must_use]
    pub fn new(state: AdminState) -> Self {
        Self { state, followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)) }
    }

    fn look(&self, path: &str) -> Option<Response> {
        let state = &self.state;
        let open = state.live.serving_epoch();
        let snapshot = Arc::clone(&state.snapshot.borrow());
        let now = clock::now();
        Some(match path {
            "/lookup" => truth(state.health.is_healthy()),
            "/is-master" => truth(snapshot.is_serving(open)),
            "/healthz" => Response::text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(&snapshot, open),
            "/role" => document(&snapshot.role(now, open)),
            "/status" => {
                let mut status = snapshot.status(now, open, state.live.requests());
                status.store = state.live.store();
                document(&status)
            }
            "/why" => document(&why(&snapshot, now, open)),
            "/alerts" => document(&snapshot.alerts()),
            "/functions" => document(&snapshot.functions()),
            "/sessions" => {
                let TableFigures { sessions, idle_timeout_ms, .. } = state.live.tables();
                document(&hotpair_protocol::Sessions { sessions, idle_timeout_ms })
            }
            "/services" => document(&state.services.list()),
            "/metrics" => {
                let text = metrics::text(&snapshot, open, &*state.live);
                Response::new(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
            }
            "/events" => self.follow(),
            path => {
                let name = named(path)?;
                let services = state.services.list().services;
                document(services.iter().find(|service| service.name == name)?)
            }
        })
    }

    fn ready(&self, snapshot: &Snapshot, open: Option<Epoch>) -> Response {
        let trouble = self.state.health.trouble();
        let unready = if snapshot.is_serving(open) { None } else { snapshot.unready() };
        match trouble.or(unready) {
            None => Response::text(StatusCode::OK, "ready\n"),
            Some(why) => Response::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        }
    }

    fn follow(&self) -> Response {
        let Ok(place) = Arc::clone(&self.followers).try_acquire_owned() else {
            let text = format!("{FOLLOWERS_MAX} follow the events already\n");
            return Response::text(StatusCode::SERVICE_UNAVAILABLE, text);
        };
        let (pieces, taken) = mpsc::channel(EVENTS_WAITING_MAX);
        tokio::spawn(tell_follower(self.state.clone(), pieces, place));
        Response::events(taken)
    }

    async fn order(&self, request: &Request) -> Option<Response> {
        match request.path.as_str() {
            path @ ("/switchover" | "/promote" | "/adopt") => {
                Some(match self.state.tokens.may_order(request) {
                    Permission::Granted => match path {
                        "/switchover" => self.switchover(request).await,
                        "/promote" => self.promote(request).await,
                        _ => self.adopt(request).await,
                    },
                    Permission::TokenNeeded => token_needed(),
                    Permission::NoTokenConfigured => no_token_configured(),
                })
            }
            "/master" | "/backup" => Some(Response::text(
                StatusCode::CONFLICT,
                format!(
                    "keepalived gives no orders here: the coordinator of this node is {}\n",
                    self.state.snapshot.borrow().coordinator
                ),
            )),
            _ => None,
        }
    }

    async fn switchover(&self, request: &Request) -> Response {
        let body = if request.body.is_empty() { b"{}" } else { &request.body[..] };
        let dry_run = match serde_json::from_slice::<SwitchoverBody>(body) {
            Ok(SwitchoverBody { dry_run }) => dry_run,
            Err(error) => {
                let text = format!("the body: {error}");
                return outcome(StatusCode::BAD_REQUEST, &refusal(text));
            }
        };
        let snapshot = Arc::clone(&self.state.snapshot.borrow());
        let forecast = snapshot.forecast(self.state.live.serving_epoch());
        if dry_run {
            let status = if forecast.is_ok() { StatusCode::OK } else { StatusCode::CONFLICT };
            return outcome(status, &dry_answer(&snapshot.view, forecast));
        }
        // The forecast is advice; who decides is the role machine.
        let by = request.from;
        tracing::info!(%by, "a switchover was ordered");
        match self.carry_out("switchover", |answer| AdminCommand::Switchover { by, answer }).await {
            Ok(report) => {
                let status = if report.done { StatusCode::OK } else { StatusCode::CONFLICT };
                outcome(status, &switchover_answer(report))
            }
            Err((status, text)) => outcome(status, &refusal(text)),
        }
    }

    async fn promote(&self, request: &Request) -> Response {
        let body = if request.body.is_empty() { b"{}" } else { &request.body[..] };
        let accept_data_loss = match serde_json::from_slice::<PromoteBody>(body) {
            Ok(PromoteBody { accept_data_loss }) => accept_data_loss,
            Err(error) => return told(StatusCode::BAD_REQUEST, Err(format!("the body: {error}"))),
        };
        let by = request.from;
        tracing::info!(%by, accept_data_loss, "a promotion was ordered");
        let command = |answer| AdminCommand::Promote { by, accept_data_loss, answer };
        told_of(self.carry_out("promotion", command).await)
    }

    async fn adopt(&self, request: &Request) -> Response {
        let by = request.from;
        tracing::info!(%by, "the adoption of ZooKeeper's data was ordered");
        told_of(self.carry_out("adoption", |answer| AdminCommand::Adopt { by, answer }).await)
    }

    /// Hands an order over and waits for its end; an error says why nothing is known of it.
    async fn carry_out<T>(
        &self,
        what: &str,
        command: impl FnOnce(oneshot::Sender<T>) -> AdminCommand,
    ) -> Result<T, (StatusCode, String)> {
        let (answer, answered) = oneshot::channel();
        if self.state.commands.try_send(command(answer)).is_err() {
            let text = "orders are waiting already, or the process is ending".to_owned();
            return Err((StatusCode::SERVICE_UNAVAILABLE, text));
        }
        match timeout(ORDER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                let text = "the process is ending; look at /role for what became of it".to_owned();
                Err((StatusCode::SERVICE_UNAVAILABLE, text))
            }
            Err(_) => {
                let text = format!(
                    "no end of the {what} within {} s; look at /role for what became of it",
                    ORDER_TIMEOUT.as_secs()
                );
                Err((StatusCode::GATEWAY_TIMEOUT, text))
            }
        }
    }
}

impl Handler for AdminService {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        let path = request.path.as_str();
        if !self.state.hosts.accept(&request) {
            return Response::text(StatusCode::MISDIRECTED_REQUEST, STRANGE_HOST);
        }
        match request.method {
            Method::GET | Method::HEAD => {
                if self.state.tokens.may_look(&request) != Permission::Granted {
                    return token_needed();
                }
                self.look(path).unwrap_or_else(|| absent(path, &request.method))
            }
            Method::POST => {
                let answer = match named(path) {
                    Some(name) => Some(crate::services::order(&self.state, name, &request).await),
                    None => self.order(&request).await,
                };
                answer.unwrap_or_else(|| absent(path, &request.method))
            }
            _ => absent(path, &request.method),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let status = match refusal {
            Refusal::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyBroken(_) | Refusal::PlainText => StatusCode::BAD_REQUEST,
        };
        Response::text(status, format!("{refusal}\n"))
    }
}

/// Tells one follower of every change until it goes away or falls behind. Changes quicker than it is
/// told are told as one: what counts is where things stand.
async fn tell_follower(
    state: AdminState,
    pieces: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
) {
    let mut snapshots = state.snapshot.clone();
    let mut turn = interval(RECHECK);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<Role> = None;
    let mut silent_turns = 0;
    loop {
        let role = {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            snapshot.role(clock::now(), state.live.serving_epoch())
        };
        let compared = Role { since_ms: 0, ..role.clone() };
        let piece = if told.as_ref() != Some(&compared) {
            told = Some(compared);
            let data = serde_json::to_string(&role).expect("a role is JSON");
            Some(format!("event: view\ndata: {data}\n\n"))
        } else if silent_turns >= KEEP_ALIVE_TURNS {
            Some(": still here\n\n".to_owned())
        } else {
            None
        };
        if let Some(piece) = piece {
            silent_turns = 0;
            // Full: a follower that does not take is cut, by dropping our end.
            if pieces.try_send(piece.into()).is_err() {
                return;
            }
        }
        tokio::select! {
            () = pieces.closed() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
            // The gate may have closed by itself, with nobody awake to publish it.
            _ = turn.tick() => silent_turns += 1,
        }
    }
}

fn truth(truth: bool) -> Response {
    let status = if truth { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Response::text(status, truth.to_string())
}

fn document(document: &impl Serialize) -> Response {
    let json = serde_json::to_vec(document).expect("the public words are JSON");
    Response::json(StatusCode::OK, json)
}

fn outcome(status: StatusCode, answer: &SwitchoverAnswer) -> Response {
    Response::json(status, serde_json::to_vec(answer).expect("the public words are JSON"))
}

/// Of an order of which nothing else is known.
fn refusal(text: String) -> SwitchoverAnswer {
    SwitchoverAnswer { reason: Some(text.clone()), text, ..SwitchoverAnswer::default() }
}

fn switchover_answer(report: SwitchoverReport) -> SwitchoverAnswer {
    let SwitchoverReport { done, text, phases, epoch } = report;
    let phase = |(phase, ms): &(CorePhase, u64)| SwitchoverPhase {
        phase: phase.as_str().to_owned(),
        ms: *ms,
        ms_max: None,
    };
    SwitchoverAnswer {
        done,
        dry_run: false,
        reason: (!done).then(|| text.clone()),
        text,
        phases: phases.iter().map(phase).collect(),
        epoch: epoch.0,
    }
}

/// What would be gone through; nothing, where it would be refused.
fn dry_answer(view: &View, forecast: Result<String, String>) -> SwitchoverAnswer {
    let done = forecast.is_ok();
    let text = forecast.unwrap_or_else(|why| why);
    let phase = |(phase, ms_max): &(CorePhase, Option<u64>)| SwitchoverPhase {
        phase: phase.as_str().to_owned(),
        ms: 0,
        ms_max: *ms_max,
    };
    let gone_through = if done { view.switchover_limits.len() } else { 1 };
    SwitchoverAnswer {
        done,
        dry_run: true,
        reason: (!done).then(|| text.clone()),
        text,
        phases: view.switchover_limits.iter().take(gone_through).map(phase).collect(),
        epoch: view.epoch.0,
    }
}

fn told_of(answered: Result<Result<String, String>, (StatusCode, String)>) -> Response {
    match answered {
        Ok(Ok(text)) => told(StatusCode::OK, Ok(text)),
        Ok(Err(text)) => told(StatusCode::CONFLICT, Err(text)),
        Err((status, text)) => told(status, Err(text)),
    }
}

pub(crate) fn told(status: StatusCode, outcome: Result<String, String>) -> Response {
    let done = outcome.is_ok();
    let answer = OrderAnswer { done, text: outcome.unwrap_or_else(|why| why) };
    Response::json(status, serde_json::to_vec(&answer).expect("the public words are JSON"))
}

pub(crate) fn token_needed() -> Response {
    let text = "a token is needed: send it as `Authorization: Bearer TOKEN`\n";
    Response::text(StatusCode::UNAUTHORIZED, text).with_bearer_wanted()
}

pub(crate) fn no_token_configured() -> Response {
    let text = "orders are refused: no admin.token_file is configured\n";
    Response::text(StatusCode::FORBIDDEN, text)
}

/// The answer where a path, or its method, is not there; with the reason.
fn absent(path: &str, method: &Method) -> Response {
    if LOOKS.contains(&path) {
        let text = format!("{path} takes GET, not {method}\n");
        return Response::text(StatusCode::METHOD_NOT_ALLOWED, text).with_allow("GET, HEAD");
    }
    if ORDERS.contains(&path) {
        let text = format!("{path} takes POST, not {method}\n");
        return Response::text(StatusCode::METHOD_NOT_ALLOWED, text).with_allow("POST");
    }
    let shown: String = path.chars().take(SHOWN_MAX).collect();
    let text = if NOT_BUILT.contains(&path) {
        format!("{shown} is not offered by this version\n")
    } else {
        format!("there is no {shown}; GET {}; POST {}\n", LOOKS.join(" "), ORDERS.join(" "))
    };
    Response::text(StatusCode::NOT_FOUND, text)
}

const LOOKS: [&str; 12] = [
    "/role",
    "/is-master",
    "/lookup",
    "/healthz",
    "/readyz",
    "/status",
    "/why",
    "/alerts",
    "/functions",
    "/services",
    "/events",
    "/metrics",
];
const ORDERS: [&str; 5] = ["/switchover", "/promote", "/adopt", "/master", "/backup"];
/// Public names that later versions fill.
const NOT_BUILT: [&str; 4] = ["/", "/timeline", "/doctor", "/maintenance"];
/// What is said to a request that names somebody else.
const STRANGE_HOST: &str = "the Host of this request is none of this node's names: ask for its address, \
                            or write the name into admin.hosts\n";
/// Event streams at a time: routers and a few people.
const FOLLOWERS_MAX: usize = 64;
/// Events that wait for one follower.
const EVENTS_WAITING_MAX: usize = 64;
/// How often a follower's picture is compared with what is true now.
const RECHECK: Duration = Duration::from_secs(1);
/// Turns without an event until a comment is sent.
const KEEP_ALIVE_TURNS: u32 = 5;
/// How long an order is waited for.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);
/// Characters of a path that an answer repeats.
const SHOWN_MAX: usize = 100;

#[cfg(test)]
pub(crate) mod tests;
