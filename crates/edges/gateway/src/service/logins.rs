//! Logging in and out, and saying that one is still there.

use hotpair_core::services::session::USER_BYTES_MAX;
use hotpair_core::tables::USERS;
use hotpair_protocol::{LoginAnswer, LoginBody, SessionBody};

use super::arguments::object;
use super::failure::Failure;
use super::{ClientService, Outcome};
use crate::data::Data;
use crate::gate::Pass;
use crate::passwords::PASSWORD_BYTES_MAX;
use crate::sessions::session_key;

impl ClientService {
    /// Makes a session for whoever proves to be a user. Who is no user waits as long for the same
    /// answer.
    pub(super) async fn log_in(&self, pass: &Pass, body: &[u8]) -> Outcome {
        let LoginBody { user, password } = object(body, "the body")?;
        if !self.settings.users_configured {
            let why = "nobody can log in: sessions.users_file is not configured";
            return Err(Failure::NotAllowed(why.to_owned()));
        }
        if user.len() > USER_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
            return Err(Failure::Malformed(format!(
                "the body: a user has at most {USER_BYTES_MAX} bytes, a password \
                 {PASSWORD_BYTES_MAX}"
            )));
        }
        let hash = self.tables.look(|store| {
            let row = store.get(USERS, user.as_bytes())?;
            String::from_utf8(row.value.to_vec()).ok()
        });
        if !self.passwords.check(password, hash).await? {
            return Err(Failure::WrongPassword);
        }
        let session = self.sessions.create(pass.epoch(), &user).await?;
        let idle_timeout = self.sessions.settings().idle_timeout;
        let idle_timeout_ms = u64::try_from(idle_timeout.as_millis()).unwrap_or(u64::MAX);
        let answer = LoginAnswer { session, idle_timeout_ms };
        Ok(Data::text(serde_json::to_string(&answer).expect("texts and numbers are JSON")))
    }

    /// Keeps a session alive. Nothing is replicated: the clock is this node's own.
    pub(super) fn heartbeat(&self, pass: &Pass, body: &[u8]) -> Outcome {
        let SessionBody { session } = object(body, "the body")?;
        let session = session_key(&session);
        if !self.sessions.exists(session) {
            return Err(Failure::SessionUnknown);
        }
        self.sessions.hear(session, pass.epoch());
        Ok(Data::empty())
    }

    /// Ends a session.
    pub(super) async fn log_out(&self, pass: &Pass, body: &[u8]) -> Outcome {
        let SessionBody { session } = object(body, "the body")?;
        let session = session_key(&session);
        if !self.sessions.exists(session) {
            return Err(Failure::SessionUnknown);
        }
        self.sessions.end(pass.epoch(), session).await?;
        Ok(Data::empty())
    }
}
