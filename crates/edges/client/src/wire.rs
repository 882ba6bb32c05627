//! Carries requests: connections that are kept, one request at a time on each, and a look whether who
//! does not answer is still alive. What to do next is decided in [`targets`](crate::targets).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hotpair_http::{Answer, Bytes, ClientError, Connection, Dialler, Method, StatusCode};
use hotpair_protocol::{Envelope, ErrorNumber};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::targets::{Course, Heard, Moment, Next, Targets};

/// How the pair stands, as the last answers show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Nobody has answered yet.
    Unknown,
    /// A master answers, in this epoch.
    Serving {
        /// The epoch.
        epoch: u64,
    },
    /// Nobody serves at this moment; somebody is about to.
    Switching,
    /// A router says that both nodes are down and nobody is taking over.
    Down,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) path: &'a str,
    pub(crate) body: Bytes,
    /// May be executed twice without harm.
    pub(crate) repeatable: bool,
    pub(crate) limit: Duration,
    pub(crate) deadline: Instant,
}

/// An answer, and whether an earlier sending may have been executed unanswered.
pub(crate) struct Asked {
    pub(crate) envelope: Envelope,
    pub(crate) may_be_done: bool,
}

/// The way to the pair; shared by everything of one client.
#[derive(Debug)]
pub(crate) struct Wire {
    targets: Mutex<Targets>,
    idle: Mutex<BTreeMap<String, Vec<Connection>>>,
    heard_at: Mutex<BTreeMap<String, Moment>>,
    availability: watch::Sender<Availability>,
    connect_limit: Duration,
    dialler: Dialler,
    start: Instant,
}

impl Wire {
    pub(crate) fn new(addresses: Vec<String>, connect_limit: Duration, dialler: Dialler) -> Self {
        Self {
            targets: Mutex::new(Targets::new(addresses)),
            idle: Mutex::default(),
            heard_at: Mutex::default(),
            availability: watch::Sender::new(Availability::Unknown),
            connect_limit,
            dialler,
            start: Instant::now(),
        }
    }

    pub(crate) fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    /// Asks until there is an answer, or time is over.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Asked, Error> {
        let mut course = Course::new(ask.repeatable);
        let mut last = "nothing was sent".to_owned();
        loop {
            let left = ask.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let may_be_done = course.may_be_done();
                return Err(Error::TimedOut { limit: ask.limit, may_be_done, last });
            }
            let address = self.choose();
            let heard = self.send_once(&address, &ask, left).await;
            last = describe(&address, &heard);
            let stale = self.handle(&address, &heard);
            match course.next(heard, stale, fastrand::u64(0..=1_000)) {
                Next::Take(envelope) => {
                    return Ok(Asked { envelope, may_be_done: course.may_be_done() });
                }
                Next::Again { wait } => {
                    tracing::debug!(path = ask.path, last, ?wait, "a request is sent again");
                    let left = ask.deadline.saturating_duration_since(Instant::now());
                    sleep(wait.min(left)).await;
                }
                Next::Unknown { why } => return Err(Error::OutcomeUnknown { why }),
            }
        }
    }

    /// The address to ask now.
    pub(crate) fn choose(&self) -> String {
        self.targets().choose(self.now())
    }

    /// Takes note of what was heard; whether it is an answer of an epoch that is over.
    pub(crate) fn handle(&self, address: &str, heard: &Heard) -> bool {
        let mut targets = self.targets();
        let stale = targets.is_stale(heard);
        targets.handle(self.now(), address, heard);
        drop(targets);
        let availability = match heard {
            Heard::Answer(envelope) => match envelope.error_no {
                ErrorNumber::Switching | ErrorNumber::NotServing => Availability::Switching,
                _ if stale => return true,
                _ => Availability::Serving { epoch: envelope.epoch },
            },
            Heard::BothDown => Availability::Down,
            Heard::Nothing { .. } => return stale,
        };
        self.availability.send_if_modified(|known| {
            let before = std::mem::replace(known, availability);
            if before != availability {
                tracing::info!(?before, now = ?availability, address, "the pair's availability");
            }
            before != availability
        });
        stale
    }

    async fn send_once(&self, address: &str, ask: &Ask<'_>, left: Duration) -> Heard {
        let mut connection = match self.connection(address, ask.repeatable).await {
            Ok(connection) => connection,
            Err(error) => return nothing(&error),
        };
        let json = [("content-type", "application/json")];
        let answer = {
            let sending = connection.send(Method::POST, ask.path, &json, ask.body.clone(), left);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    answer = &mut sending => break answer,
                    // Who must not be asked twice is waited for to the end.
                    () = sleep(PROBE_AFTER), if ask.repeatable => {
                        if !self.is_alive(address).await {
                            let why = format!("{address} does not answer");
                            return Heard::Nothing { was_sent: true, why };
                        }
                    }
                }
            }
        };
        match answer {
            Ok(answer) => {
                self.heard_at().insert(address.to_owned(), self.now());
                self.keep(address, connection);
                heard(&answer)
            }
            Err(error) => nothing(&error),
        }
    }

    /// A kept connection may just have been closed by the other end: it is none for what must not be
    /// sent twice.
    async fn connection(
        &self,
        address: &str,
        may_be_kept: bool,
    ) -> Result<Connection, ClientError> {
        if may_be_kept {
            let mut idle = self.idle();
            while let Some(connection) = idle.get_mut(address).and_then(Vec::pop) {
                if connection.is_open() {
                    return Ok(connection);
                }
            }
        }
        self.dialler.connect(&self.url(address, ""), self.connect_limit).await
    }

    fn keep(&self, address: &str, connection: Connection) {
        if !connection.is_open() {
            return;
        }
        let mut idle = self.idle();
        let kept = idle.entry(address.to_owned()).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
    }

    /// Whether somebody answers there, who serves or knows of a switch. Connections to one that does
    /// not are of no use any more.
    async fn is_alive(&self, address: &str) -> bool {
        let heard_at = self.heard_at().get(address).copied();
        let recently = u64::try_from(PROBE_AFTER.as_millis()).unwrap_or(u64::MAX);
        if heard_at.is_some_and(|at| self.now().saturating_sub(at) < recently) {
            return true;
        }
        let url = self.url(address, "/v1/functions");
        let probe = timeout(PROBE_LIMIT, self.dialler.get(&url, PROBE_LIMIT)).await;
        let alive = probe.is_ok_and(|probe| {
            probe.is_ok_and(|answer| {
                matches!(heard(&answer), Heard::Answer(envelope)
                    if envelope.error_no != ErrorNumber::NotServing)
            })
        });
        if alive {
            self.heard_at().insert(address.to_owned(), self.now());
        } else {
            tracing::info!(address, "no answer, and none to a second question: given up");
            self.idle().remove(address);
        }
        alive
    }

    /// A path at an address.
    pub(crate) fn url(&self, address: &str, path: &str) -> String {
        let scheme = if self.dialler.speaks_tls() { "https" } else { "http" };
        format!("{scheme}://{address}{path}")
    }

    pub(crate) fn dialler(&self) -> &Dialler {
        &self.dialler
    }

    fn now(&self) -> Moment {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().expect("nobody panics with the targets")
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Connection>>> {
        self.idle.lock().expect("nobody panics with the connections")
    }

    fn heard_at(&self) -> MutexGuard<'_, BTreeMap<String, Moment>> {
        self.heard_at.lock().expect("nobody panics with the times")
    }
}

/// What an answer says.
pub(crate) fn heard(answer: &Answer) -> Heard {
    if answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.body.is_empty() {
        return Heard::BothDown;
    }
    match serde_json::from_slice(&answer.body) {
        Ok(envelope) => Heard::Answer(envelope),
        Err(error) => of_later_version(&answer.body).map_or_else(
            || {
                let why = format!("status {} and no envelope: {error}", answer.status);
                Heard::Nothing { was_sent: true, why }
            },
            Heard::Answer,
        ),
    }
}

/// An error number that this version does not know is an answer all the same, and none to repeat.
fn of_later_version(body: &[u8]) -> Option<Envelope> {
    let envelope: serde_json::Value = serde_json::from_slice(body).ok()?;
    let number = envelope["error_no"].as_i64()?;
    let info = envelope["error_info"].as_str().unwrap_or_default();
    let epoch = envelope["epoch"].as_u64().unwrap_or(0);
    let text = format!("{number} (a number of a later version): {info}");
    let refused = Envelope::refused(ErrorNumber::FunctionFailed, epoch, text);
    Some(refused.with_data(envelope["data"].clone()))
}

/// What is known when there is no answer.
pub(crate) fn nothing(error: &ClientError) -> Heard {
    Heard::Nothing { was_sent: error.was_sent(), why: error.to_string() }
}

fn describe(address: &str, heard: &Heard) -> String {
    match heard {
        Heard::Answer(envelope) => format!("{address} answered {}", envelope.error_no),
        Heard::BothDown => format!("{address} says that both nodes are down"),
        Heard::Nothing { why, .. } => why.clone(),
    }
}

/// Connections that are kept for one address.
const IDLE_MAX: usize = 64;
/// After such a silence it is looked whether the other end is alive.
const PROBE_AFTER: Duration = Duration::from_millis(500);
const PROBE_LIMIT: Duration = Duration::from_millis(1_000);

#[cfg(test)]
mod tests {
    use hotpair_http::HeaderMap;

    use super::*;

    fn answer(status: StatusCode, body: &'static str) -> Heard {
        heard(&Answer {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        })
    }

    #[test]
    fn an_answer_is_an_envelope_or_says_what_it_is_instead() {
        let done = r#"{"error_no":0,"error_info":"","epoch":7,"data":{}}"#;
        assert!(matches!(answer(StatusCode::OK, done), Heard::Answer(e) if e.epoch == 7));
        assert_eq!(answer(StatusCode::SERVICE_UNAVAILABLE, ""), Heard::BothDown);
        let full = answer(StatusCode::BAD_GATEWAY, "<html>");
        assert!(matches!(full, Heard::Nothing { was_sent: true, why } if why.contains("502")));
        // Not repeated, though nobody knows what it means.
        let later = r#"{"error_no":308009999,"error_info":"new","epoch":7}"#;
        let Heard::Answer(envelope) = answer(StatusCode::OK, later) else { panic!() };
        assert_eq!(envelope.error_no, ErrorNumber::FunctionFailed);
        assert!(envelope.error_info.starts_with("308009999"), "{envelope:?}");
    }
}
