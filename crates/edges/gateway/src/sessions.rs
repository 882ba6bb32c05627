//! Sessions: made at login, kept in a replicated table, ended by logout or by silence.
//!
//! A session's token is 128 random bits that only its client has. The table knows the session by the
//! first half of the token's SHA-256, and so do logs and other tables. When it was last heard of is
//! known to the node that serves, and to nobody else (`heard`).
//!
//! The sweep looks through the table in pieces, outside the writer, and ends what was silent for too
//! long with ordinary requests of a few hundred deletions each, one after the other, so that clients'
//! requests go in between.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotpair_core::pair::Moment;
use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::session::Session;
use hotpair_core::tables::SESSIONS;
use hotpair_core::tables::change::{Operation, ReplyPlan, Request, SessionKey};
use sha2::{Digest, Sha256};

use crate::gate::{Gate, boot_time_ns};
use crate::heard::Heard;
use crate::tables::{NotCommitted, Tables};

/// The times of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// A session that is silent for so long, while a master serves, is over.
    pub idle_timeout: Duration,
    /// How often is looked for such sessions.
    pub sweep_interval: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_mins(2), sweep_interval: Duration::from_secs(10) }
    }
}

/// What is in use is never over; asked right before a session is ended.
type InUse = dyn Fn(SessionKey) -> bool + Send + Sync;

/// All sessions. See the file's header.
#[derive(Debug)]
pub struct Sessions {
    tables: Tables,
    heard: Heard,
    settings: SessionSettings,
    now: fn() -> Moment,
}

impl Sessions {
    /// Sessions in these tables, on the machine's clock.
    #[must_use]
    pub fn new(tables: Tables, settings: SessionSettings) -> Self {
        Self::with_clock(tables, settings, || Moment(boot_time_ns() / 1_000_000))
    }

    /// The same on another clock.
    #[must_use]
    pub fn with_clock(tables: Tables, settings: SessionSettings, now: fn() -> Moment) -> Self {
        Self { tables, heard: Heard::new(), settings, now }
    }

    /// The times they go by.
    #[must_use]
    pub fn settings(&self) -> SessionSettings {
        self.settings
    }

    /// This node serves `epoch` since `moment`: every session's idle time starts again. To be said
    /// each time the gate opens; costs next to nothing. A request of a newer epoch says so too.
    pub fn serving_since(&self, epoch: Epoch, moment: Moment) {
        self.heard.serving_since(epoch, moment);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.tables.look(|store| store.table(SESSIONS).map_or(0, |rows| rows.len() as u64))
    }

    /// Makes a session and gives its token, which is kept nowhere. The user has proven who it is.
    pub async fn create(
        &self,
        epoch: Epoch,
        user: &str,
        user_token: Option<String>,
    ) -> Result<String, NotCommitted> {
        let token = new_token();
        let session = session_key(&token);
        let created_wall_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let row = Session { user: user.to_owned(), user_token, created_wall_ms };
        let put = Operation::Put {
            table: SESSIONS.into(),
            key: session.0.as_slice().into(),
            value: row.encode().into(),
        };
        self.tables.commit(epoch, unnumbered(vec![put])).await?;
        self.hear(session, epoch);
        Ok(token)
    }

    /// Ends a session. One that is unknown is over already.
    pub async fn end(&self, epoch: Epoch, session: SessionKey) -> Result<(), NotCommitted> {
        self.tables.commit(epoch, unnumbered(vec![deletion(session)])).await?;
        self.heard.forget(session);
        Ok(())
    }

    /// Whether there is such a session.
    #[must_use]
    pub fn exists(&self, session: SessionKey) -> bool {
        self.tables.look(|store| store.has_session(session))
    }

    /// A session was heard of, in a request of this epoch.
    pub fn hear(&self, session: SessionKey, epoch: Epoch) {
        self.heard.hear(session, epoch, (self.now)());
    }

    /// Ends what was silent for too long, as long as the gate is open; how many that were. Sessions
    /// that are `in_use` stay.
    pub async fn sweep(&self, gate: &Gate, in_use: &InUse) -> u64 {
        let (mut ended, mut from) = (0, Some(SessionKey([0; 16])));
        let mut silent = Vec::new();
        while let Some(start) = from {
            let Ok(pass) = gate.enter() else { return ended };
            let epoch = pass.epoch();
            from = self.look_through(start, epoch, &mut silent);
            if silent.len() >= DELETIONS || from.is_none() {
                match self.end_silent(epoch, &mut silent, in_use).await {
                    Ok(more) => ended += more,
                    // Whatever keeps requests from being done now: the next sweep finds them again.
                    Err(_) => return ended,
                }
            }
            drop(pass);
            tokio::task::yield_now().await;
        }
        self.heard.tidy((self.now)(), self.idle_timeout_ms());
        ended
    }

    /// Sweeps for ever, at its interval.
    pub(crate) async fn keep_sweeping(self: Arc<Self>, gate: Gate, in_use: Box<InUse>) {
        let mut turns = tokio::time::interval(self.settings.sweep_interval);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let ended = self.sweep(&gate, &in_use).await;
            if ended > 0 {
                tracing::info!(ended, "sessions were silent for too long and are over");
            }
        }
    }

    /// Looks at one piece of the table; where the next begins.
    fn look_through(
        &self,
        from: SessionKey,
        epoch: Epoch,
        silent: &mut Vec<SessionKey>,
    ) -> Option<SessionKey> {
        let piece: Vec<SessionKey> = self.tables.look(|store| {
            let rows = store.table(SESSIONS).into_iter().flat_map(|rows| rows.scan(&from.0));
            rows.take(PIECE + 1).filter_map(|(key, _)| key_of_row(key)).collect()
        });
        let next = piece.get(PIECE).copied();
        let (now, timeout) = ((self.now)(), self.idle_timeout_ms());
        let all = piece.iter().take(PIECE);
        silent.extend(all.filter(|key| self.heard.is_over(**key, epoch, now, timeout)));
        next
    }

    async fn end_silent(
        &self,
        epoch: Epoch,
        silent: &mut Vec<SessionKey>,
        in_use: &InUse,
    ) -> Result<u64, NotCommitted> {
        let (now, timeout) = ((self.now)(), self.idle_timeout_ms());
        // Once more: some may have been heard of since.
        silent.retain(|key| self.heard.is_over(*key, epoch, now, timeout) && !in_use(*key));
        for some in silent.chunks(DELETIONS) {
            let deletions = some.iter().copied().map(deletion).collect();
            self.tables.commit(epoch, unnumbered(deletions)).await?;
        }
        let ended = silent.len() as u64;
        silent.clear();
        Ok(ended)
    }

    fn idle_timeout_ms(&self) -> u64 {
        u64::try_from(self.settings.idle_timeout.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What tables and logs know the session with this token by.
#[must_use]
pub fn session_key(token: &str) -> SessionKey {
    let digest = Sha256::digest(token.as_bytes());
    SessionKey(*digest.first_chunk().expect("SHA-256 has 32 bytes"))
}

fn key_of_row(key: &[u8]) -> Option<SessionKey> {
    key.try_into().ok().map(SessionKey)
}

fn new_token() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes once it has started");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

fn deletion(session: SessionKey) -> Operation {
    Operation::Delete { table: SESSIONS.into(), key: session.0.as_slice().into() }
}

fn unnumbered(operations: Vec<Operation>) -> Request {
    Request { ticket: 0, numbered: None, reads: Vec::new(), operations, reply: ReplyPlan::Results }
}

/// Rows that are looked at in one go: well below a millisecond with the lock held.
const PIECE: usize = 1_000;
/// Sessions that one request ends: a fraction of a millisecond of the writer.
const DELETIONS: usize = 256;
