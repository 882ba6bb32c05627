//! Logging in and out, and saying that one is still there.

use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::session::USER_BYTES_MAX;
use hotpair_core::tables::USERS;
use hotpair_protocol::{Envelope, LoginAnswer, LoginBody, SessionBody};

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
    ///
    /// The external investment system is asked in between, outside of the gate: however slow it is, nobody
    /// who drains waits for it. Whatever it gave is of no use where this node serves no more by then.
    pub(super) async fn log_in(&self, body: &[u8]) -> Result<(Epoch, Data), Envelope> {
        let (_, user) = self.passing(async |_| self.check_user(body).await).await?;
        let user_token = match &self.upstream {
            Some(upstream) => {
                let asked = upstream.log_in(&user.user, &user.password).await;
                asked.map_err(|failure| self.refuse_outside(&failure.into()))?
            }
            None => None,
        };
        self.passing(async |pass| self.make_session(pass, &user.user, user_token).await).await
    }

    async fn check_user(&self, body: &[u8]) -> Result<LoginBody, Failure> {
        let login: LoginBody = object(body, "the body")?;
        if !self.settings.users_configured {
            let why = "nobody can log in: sessions.users_file is not configured";
            return Err(Failure::NotAllowed(why.to_owned()));
        }
        if login.user.len() > USER_BYTES_MAX || login.password.len() > PASSWORD_BYTES_MAX {
            return Err(Failure::Malformed(format!(
                "the body: a user has at most {USER_BYTES_MAX} bytes, a password \
                 {PASSWORD_BYTES_MAX}"
            )));
        }
        let hash = self.tables.look(|store| {
            let row = store.get(USERS, login.user.as_bytes())?;
            String::from_utf8(row.value.to_vec()).ok()
        });
        if !self.passwords.check(login.password.clone(), hash).await? {
            return Err(Failure::WrongPassword);
        }
        Ok(login)
    }

    async fn make_session(&self, pass: &Pass, user: &str, user_token: Option<String>) -> Outcome {
        let session = self.sessions.create(pass.epoch(), user, user_token).await?;
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
