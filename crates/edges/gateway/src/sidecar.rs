//! A program beside the node, in any language, that a function is served by: one POST a call, and what
//! its answer means.
//!
//! ```text
//! POST upstream                                   200 {"data":…,"changes":[…]}   it is done
//! Idempotency-Key, Hotpair-Session, …             503                            it did nothing: later
//! the call's arguments                            400 … 599 {"error","data"}     it failed, and says why
//!                                                 no whole answer                nobody knows
//! ```
//!
//! Each call has a connection of its own: one that was kept may end while a request is on its way, and
//! then nobody knows whether the program had it. It is made before anything is written down, so that a
//! program that is not there costs nothing and changes nothing.

mod answer;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::SessionKey;
use hotpair_http::{ClientError, Connection, Method, Occasionally, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::answer::{Changed, Told};

/// How a program is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarSettings {
    /// `http://host:port/path`.
    pub upstream: String,
    /// How long a caller is let wait. The answer itself is waited for [`PATIENCE`] times as long.
    pub timeout: Duration,
    /// Whether the program may be called again with the same key: the second call has no effect and
    /// the first one's answer.
    pub idempotent: bool,
    /// Calls at a time; more are answered 308000006, unexecuted.
    pub concurrency: usize,
}

/// A program.
#[derive(Debug)]
pub struct Sidecar {
    url: Url,
    settings: SidecarSettings,
    room: Arc<Semaphore>,
    pub(crate) complaints: Occasionally,
}

/// Which call it is.
#[derive(Clone, Debug)]
pub(crate) struct Which {
    pub(crate) function: u32,
    pub(crate) epoch: Epoch,
    pub(crate) session: Option<SessionKey>,
    pub(crate) user: Option<String>,
    /// Its number, if it has one.
    pub(crate) request: Option<u64>,
    /// The same for each call of the program for this request.
    pub(crate) key: String,
}

impl Sidecar {
    /// A program at this address; it need not be there yet.
    pub fn new(settings: SidecarSettings) -> Result<Self, ClientError> {
        let url = settings.upstream.parse()?;
        let room = Arc::new(Semaphore::new(settings.concurrency));
        Ok(Self { url, settings, room, complaints: Occasionally::default() })
    }

    /// How it is called.
    #[must_use]
    pub fn settings(&self) -> &SidecarSettings {
        &self.settings
    }

    /// Room for one more call, if there is.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// A connection for one call. Nothing is sent yet.
    pub(crate) async fn connect(&self) -> Result<Connection, ClientError> {
        let limit = self.settings.timeout.min(CONNECT_MAX);
        let connection = Connection::connect(&self.url.address, limit).await?;
        Ok(connection.with_answer_bytes_max(ANSWER_BYTES_MAX))
    }

    /// Calls the program and waits for its answer.
    pub(crate) async fn call(
        &self,
        mut connection: Connection,
        which: &Which,
        again: bool,
        arguments: &str,
        limit: Duration,
    ) -> Told {
        let (epoch, function) = (which.epoch.to_string(), which.function.to_string());
        let session = which.session.map(|session| in_hex(&session));
        let user = which.user.as_deref().map(in_visible_letters);
        let request = which.request.map(|number| number.to_string());
        let mut headers = vec![
            ("content-type", "application/json"),
            ("connection", "close"),
            ("idempotency-key", which.key.as_str()),
            ("hotpair-function", function.as_str()),
            ("hotpair-epoch", epoch.as_str()),
        ];
        let some = [
            ("hotpair-session", session.as_deref()),
            ("hotpair-user", user.as_deref()),
            ("hotpair-request", request.as_deref()),
            ("hotpair-again", again.then_some("true")),
        ];
        headers.extend(some.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let body = arguments.to_owned();
        match connection.send(Method::POST, &self.url.path, &headers, body, limit).await {
            Ok(answer) => answer::read(answer.status, &answer.body),
            Err(error @ ClientError::TooLarge { .. }) => Told::Unusable(error.to_string()),
            Err(error) => Told::Nothing(error.to_string()),
        }
    }
}

fn in_hex(session: &SessionKey) -> String {
    format!("{:032x}", u128::from_be_bytes(session.0))
}

/// What a header's value can hold of any text; the rest, and `%`, as in a URL.
fn in_visible_letters(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            visible.push(char::from(byte));
        } else {
            write!(visible, "%{byte:02X}").expect("a String takes all");
        }
    }
    visible
}

/// The answer is waited for so many times as long as its caller waits.
pub const PATIENCE: u32 = 3;
/// A program beside the node is there at once, or not.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Bytes of an answer's body.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Entrances for the fuzzer.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use hotpair_http::StatusCode;

    use super::answer;

    pub(crate) fn answer(body: &[u8]) {
        for status in [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::FOUND] {
            let _ = answer::read(status, body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_can_stand_in_a_header() {
        assert_eq!(in_visible_letters("ann b"), "ann b");
        assert_eq!(in_visible_letters("50%\r\nä"), "50%25%0D%0A%C3%A4");
    }

    #[test]
    fn a_session_is_told_by_its_key() {
        let mut key = [0; 16];
        key[15] = 0xab;
        assert_eq!(in_hex(&SessionKey(key)), "000000000000000000000000000000ab");
    }
}
