//! The external investment system: asked for a token at each login, and told with it again and again that
//! the session lives.
//!
//! ```text
//! /v1/login ─▶ own password ─▶ POST login ─▶ user_token ─▶ the session's row, replicated
//! the table's keys from .. to ─▶ gate? ─▶ POST heartbeat, some at a time, spread over the interval
//! ```
//!
//! Who is due when is decided in core from the sessions' keys: nothing is kept for a session, and a node
//! that begins to serve goes on where the other one was. The right to act is asked right before each
//! heartbeat leaves; no pass is held meanwhile, so that a slow system delays no planned switch. What fails is
//! counted and tried again an interval later. Heartbeats have a thread of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotpair_core::pair::Moment;
use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::session::Session;
use hotpair_core::services::upstream::{KeyRange, Pace};
use hotpair_core::tables::SESSIONS;
use hotpair_core::tables::change::SessionKey;
use hotpair_http::{ClientError, Connection, Dialler, Method, Occasionally, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gate::{Gate, boot_time_ns};
use crate::tables::Tables;

/// Where the system is, and how often it hears of a session.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Asked for a token at each login.
    pub login: Option<String>,
    /// Told of each session that has one.
    pub heartbeat: Option<String>,
    /// How it is reached.
    pub dialler: Dialler,
    /// Between two heartbeats of a session.
    pub interval: Duration,
    /// The longest wait for an answer.
    pub limit: Duration,
    /// Heartbeats under way at a time, and logins.
    pub at_once_max: usize,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            login: None,
            heartbeat: None,
            dialler: Dialler::plain(),
            interval: Duration::from_secs(30),
            limit: Duration::from_secs(2),
            at_once_max: 64,
        }
    }
}

/// Why a login got no token. Nothing was changed here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// As many logins as may be are asking already.
    #[error("{0} logins are waiting for the external investment system already")]
    Full(usize),
    /// No answer, or one of a system in trouble.
    #[error("the external investment system cannot be asked: {0}")]
    Unavailable(String),
    /// It does not want this user.
    #[error("the external investment system refused the login with status {0}")]
    Refused(u16),
}

/// What became of what was sent, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTotals {
    /// Logins with a token.
    pub logins: u64,
    /// Logins without one.
    pub logins_failed: u64,
    /// Heartbeats answered with a status of 200 to 299.
    pub heartbeats: u64,
    /// Heartbeats whose token the system does not know (401, 403, 404, 410).
    pub unknown: u64,
    /// Heartbeats with another answer, or none.
    pub failed: u64,
    /// Milliseconds of the schedule that were left out because the system was too slow.
    pub skipped_ms: u64,
}

#[derive(Debug, Default)]
struct Counters {
    logins: AtomicU64,
    logins_failed: AtomicU64,
    heartbeats: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
    skipped_ms: AtomicU64,
}

/// See the file's header.
#[derive(Debug)]
pub struct Upstream {
    login: Option<Url>,
    heartbeat: Option<Url>,
    settings: UpstreamSettings,
    tables: Tables,
    gate: Gate,
    counters: Counters,
    asking: Semaphore,
    beating: Arc<Semaphore>,
    /// Connections for heartbeats that are not in use, the last used on top.
    idle: Mutex<Vec<Connection>>,
    complaint: Occasionally,
}

impl Upstream {
    /// Nothing is sent yet.
    pub fn new(
        settings: UpstreamSettings,
        tables: Tables,
        gate: Gate,
    ) -> Result<Self, ClientError> {
        let url = |text: &Option<String>| text.as_deref().map(str::parse::<Url>).transpose();
        Ok(Self {
            login: url(&settings.login)?,
            heartbeat: url(&settings.heartbeat)?,
            tables,
            gate,
            counters: Counters::default(),
            asking: Semaphore::new(settings.at_once_max),
            beating: Arc::new(Semaphore::new(settings.at_once_max)),
            idle: Mutex::default(),
            complaint: Occasionally::default(),
            settings,
        })
    }

    /// The counters now.
    #[must_use]
    pub fn totals(&self) -> UpstreamTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        UpstreamTotals {
            logins: read(&counters.logins),
            logins_failed: read(&counters.logins_failed),
            heartbeats: read(&counters.heartbeats),
            unknown: read(&counters.unknown),
            failed: read(&counters.failed),
            skipped_ms: read(&counters.skipped_ms),
        }
    }

    /// Logs a user in there, whose password was checked here; the token, where tokens are given.
    pub(crate) async fn log_in(
        &self,
        user: &str,
        password: &str,
    ) -> Result<Option<String>, NoToken> {
        let Some(url) = &self.login else { return Ok(None) };
        let outcome = self.ask_for_token(url, user, password).await;
        let counter = match &outcome {
            Ok(_) => &self.counters.logins,
            Err(failure) => {
                self.complain("a login got no token", &failure.to_string());
                &self.counters.logins_failed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome.map(Some)
    }

    async fn ask_for_token(
        &self,
        url: &Url,
        user: &str,
        password: &str,
    ) -> Result<String, NoToken> {
        let Ok(_place) = self.asking.try_acquire() else {
            return Err(NoToken::Full(self.settings.at_once_max));
        };
        let body = serde_json::to_vec(&LoginRequest { user, password }).expect("texts are JSON");
        let Self { settings: UpstreamSettings { dialler, limit, .. }, .. } = self;
        let answer = dialler
            .post_json(&url.to_string(), &[], body, *limit)
            .await
            .map_err(|error| NoToken::Unavailable(error.to_string()))?;
        let status = answer.status;
        if status.is_client_error() {
            return Err(NoToken::Refused(status.as_u16()));
        }
        if !status.is_success() {
            return Err(NoToken::Unavailable(format!("it answered with status {status}")));
        }
        // The answer is not shown: it may hold the token.
        let given = serde_json::from_slice::<LoginGiven>(&answer.body).ok();
        let token = given
            .map(|given| given.user_token)
            .filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX);
        token.ok_or_else(|| {
            NoToken::Unavailable(format!(
                "its answer has no \"user_token\" of 1 to {TOKEN_BYTES_MAX} bytes"
            ))
        })
    }

    /// Sends heartbeats for ever, while this node serves.
    pub async fn keep_beating(self: Arc<Self>) {
        let Some(url) = self.heartbeat.clone() else { return };
        let interval_ms = u64::try_from(self.settings.interval.as_millis()).unwrap_or(u64::MAX);
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pace: Option<(Epoch, Pace)> = None;
        loop {
            turns.tick().await;
            // While a switch holds the gate the schedule stands: undone, it is caught up with.
            let Some(epoch) = self.gate.serving_epoch() else { continue };
            let now = now();
            let (_, pace) = match &mut pace {
                Some(same) if same.0 == epoch => same,
                other => other.insert((epoch, Pace::new(interval_ms, now, wall_ms()))),
            };
            let skipped = pace.skipped_ms();
            for range in pace.due(now) {
                Arc::clone(&self).beat_all(&url, epoch, range).await;
            }
            self.counters.skipped_ms.fetch_add(pace.skipped_ms() - skipped, Ordering::Relaxed);
        }
    }

    /// A heartbeat for each session between two keys; waits for room, not for answers.
    async fn beat_all(self: Arc<Self>, url: &Url, epoch: Epoch, range: KeyRange) {
        let mut from = Some(range.from);
        while let Some(start) = from {
            let (tokens, next) = self.tokens(start, range);
            from = next;
            for token in tokens {
                let room = Arc::clone(&self.beating).acquire_owned().await;
                let Ok(room) = room else { return };
                if self.gate.serving_epoch() != Some(epoch) {
                    return;
                }
                tokio::spawn(Arc::clone(&self).beat(url.clone(), epoch, token, room));
            }
        }
    }

    /// The tokens of one piece of the table, and where the next piece begins.
    fn tokens(&self, start: SessionKey, range: KeyRange) -> (Vec<String>, Option<SessionKey>) {
        let mut next = None;
        let tokens = self.tables.look(|store| {
            let rows = store.table(SESSIONS).into_iter().flat_map(|rows| rows.scan(&start.0));
            let rows = rows
                .filter_map(|(key, row)| Some((SessionKey((**key).try_into().ok()?), row)))
                .take_while(|(key, _)| range.contains(*key));
            let mut tokens = Vec::new();
            for (place, (key, row)) in rows.enumerate() {
                if place == PIECE {
                    next = Some(key);
                    break;
                }
                tokens.extend(Session::decode(&row.value).ok().and_then(|s| s.user_token));
            }
            tokens
        });
        (tokens, next)
    }

    async fn beat(
        self: Arc<Self>,
        url: Url,
        epoch: Epoch,
        token: String,
        _room: OwnedSemaphorePermit,
    ) {
        let body = serde_json::to_vec(&Beat { user_token: &token }).expect("texts are JSON");
        match self.send(&url, epoch, body).await {
            Ok(None) => {}
            Ok(Some(status)) if (200..300).contains(&status) => {
                self.counters.heartbeats.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Some(status @ (401 | 403 | 404 | 410))) => {
                self.counters.unknown.fetch_add(1, Ordering::Relaxed);
                self.complain("a heartbeat's token is unknown there", &status.to_string());
            }
            Ok(Some(status)) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                self.complain("a heartbeat was not taken", &format!("status {status}"));
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                self.complain("a heartbeat was not answered", &error.to_string());
            }
        }
    }

    /// The answer's status; none if this node does not serve any more, and nothing was sent.
    async fn send(
        &self,
        url: &Url,
        epoch: Epoch,
        body: Vec<u8>,
    ) -> Result<Option<u16>, ClientError> {
        let kept = self.idle.lock().expect("nobody panics with it").pop();
        let mut connection = match kept.filter(Connection::is_open) {
            Some(connection) => connection,
            None => self.settings.dialler.connect(&url.origin(), self.settings.limit).await?,
        };
        if self.gate.serving_epoch() != Some(epoch) {
            return Ok(None);
        }
        let headers = [("content-type", "application/json")];
        let answer =
            connection.send(Method::POST, &url.path, &headers, body, self.settings.limit).await?;
        let mut idle = self.idle.lock().expect("nobody panics with it");
        if connection.is_open() && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(Some(answer.status.as_u16()))
    }

    fn complain(&self, what: &str, why: &str) {
        if let Some(left_out) = self.complaint.due() {
            tracing::warn!(why, left_out, "external investment system: {what}");
        }
    }
}

#[derive(Serialize)]
struct LoginRequest<'a> {
    user: &'a str,
    password: &'a str,
}

#[derive(Deserialize)]
struct LoginGiven {
    user_token: String,
}

#[derive(Serialize)]
struct Beat<'a> {
    user_token: &'a str,
}

fn now() -> Moment {
    Moment(boot_time_ns() / 1_000_000)
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How often is looked who is due.
const TURN: Duration = Duration::from_millis(20);
/// Rows that are looked at in one go.
const PIECE: usize = 256;
/// Connections that are kept while nothing is sent.
const IDLE_MAX: usize = 16;
/// A token travels in every row of a session.
const TOKEN_BYTES_MAX: usize = 4_096;
