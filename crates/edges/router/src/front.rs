//! The clients' port: each request is looked at, given its turn by the desk, carried to a node, and its
//! answer carried back as it is. Whatever fails on the way, the client gets an answer in the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotpair_http::header::HeaderValue;
use hotpair_http::{
    Bytes, ExchangeError, Generation, Handler, Method, Opening, Outgoing, Refusal, Request,
    Response, StatusCode, Stream,
};
use hotpair_protocol::{EPOCH_HEADER, Envelope, ErrorNumber};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::decider::Target;
use crate::desk::{Desk, Go};
use crate::fact::{Failed, Told, Verdict};
use crate::look;
use crate::meters::Meters;

/// Answers clients.
#[derive(Debug)]
pub struct Front {
    desk: Arc<Desk>,
    meters: Arc<Meters>,
}

impl Front {
    /// A port in front of this desk.
    #[must_use]
    pub fn new(desk: Arc<Desk>, meters: Arc<Meters>) -> Self {
        Self { desk, meters }
    }

    /// The answer, and its error number; none is the empty answer.
    async fn answer(&self, request: &Request) -> (Option<i64>, Response) {
        if request.method != Method::POST && request.method != Method::GET {
            let method = &request.method;
            return self.own(ErrorNumber::Malformed, format!("{method} is not offered"), None);
        }
        let looked = look::request(&request.method, &request.path, &request.body);
        let mut ticket = self.desk.admit(looked.repeatable, request.body.len() + HELD_BYTES);
        let last = Instant::now() + looked.limit * 2 + HOLD_MARGIN;
        let mut answer = None;
        loop {
            match ticket.turn().await {
                Go::Forward { target, generation, .. } => {
                    let left = last.saturating_duration_since(Instant::now());
                    let limit = looked.limit.min(left);
                    match self.carry(request, target, generation, limit).await {
                        Ok((told, brought)) => {
                            answer = Some((told.error_no, brought));
                            ticket.answered(told);
                        }
                        Err(how) => ticket.broke(how),
                    }
                }
                Go::Pass => {
                    let (error_no, brought) = answer.expect("only an answer can be passed on");
                    let response = match brought {
                        Brought::Answer(body) => Response::json(StatusCode::OK, body),
                        Brought::Stream(stream, generation, target) => {
                            self.pump(stream, generation, target)
                        }
                    };
                    return (Some(error_no), response);
                }
                Go::Answer(verdict) => return self.verdict(verdict),
            }
        }
    }

    /// Sends a request to a node once.
    async fn carry(
        &self,
        request: &Request,
        target: Target,
        generation: Generation,
        limit: Duration,
    ) -> Result<(Told, Brought), Failed> {
        let header = |name| request.headers.get(name).map(HeaderValue::as_bytes);
        let outgoing = Outgoing {
            method: request.method.as_str(),
            path: &request.path,
            query: request.query.as_deref(),
            authorization: header("authorization"),
            last_event_id: None,
            number: Some((EPOCH_HEADER, target.epoch)),
            body: &request.body,
        };
        let pool = self.desk.pool(target.node);
        if request.method == Method::GET && request.path == PUSH {
            let outgoing = Outgoing { last_event_id: header("last-event-id"), ..outgoing };
            let opening =
                timeout(limit.min(OPEN_LIMIT), pool.open_stream(generation, outgoing)).await;
            return match opening.map_err(|_| Failed::Unanswered)?.map_err(|e| failed(&e, target))? {
                Opening::Answer(whole) => read(whole.body),
                Opening::Stream(stream) => {
                    let told = Told { error_no: 0, epoch: target.epoch, perhaps_executed: false };
                    Ok((told, Brought::Stream(stream, generation, target)))
                }
            };
        }
        let exchanged = timeout(limit, pool.exchange(generation, outgoing)).await;
        read(exchanged.map_err(|_| Failed::TimedOut)?.map_err(|e| failed(&e, target))?.body)
    }

    /// Passes a stream on until it ends, its client leaves, or its node is gone or superseded.
    fn pump(&self, mut stream: Stream, generation: Generation, target: Target) -> Response {
        let (pieces, taken) = mpsc::channel(PIECES);
        let desk = Arc::clone(&self.desk);
        tokio::spawn(async move {
            let cut = desk.pool(target.node).cut_after(generation);
            tokio::pin!(cut);
            loop {
                let piece = tokio::select! {
                    piece = stream.next() => piece,
                    () = &mut cut => return,
                    () = pieces.closed() => return,
                };
                let Ok(Some(piece)) = piece else { return };
                tokio::select! {
                    // Waiting here is what makes the node notice a client that takes nothing.
                    sent = pieces.send(piece) => if sent.is_err() { return },
                    () = &mut cut => return,
                }
            }
        });
        Response::events(taken)
    }

    fn verdict(&self, verdict: Verdict) -> (Option<i64>, Response) {
        match verdict {
            Verdict::Switching { retry_after_ms } => {
                let why =
                    "the pair is switching: keep the session, and send the same request again";
                self.own(ErrorNumber::Switching, why.to_owned(), Some(retry_after_ms))
            }
            Verdict::Overloaded { retry_after_ms } => {
                let why = "the router has too many requests; this one was not executed";
                self.own(ErrorNumber::Overloaded, why.to_owned(), Some(retry_after_ms))
            }
            Verdict::Unknown => {
                let why = "the master was lost before it answered: nobody knows whether this request \
                           was executed, and it bears no number of a session";
                self.own(ErrorNumber::OutcomeUnknown, why.to_owned(), None)
            }
            Verdict::Down => (None, Response::text(StatusCode::SERVICE_UNAVAILABLE, String::new())),
        }
    }

    fn own(
        &self,
        error_no: ErrorNumber,
        why: String,
        retry_after_ms: Option<u64>,
    ) -> (Option<i64>, Response) {
        let mut envelope = Envelope::refused(error_no, self.desk.look(|d| d.epoch()), why);
        envelope.retry_after_ms = retry_after_ms;
        let json = serde_json::to_vec(&envelope).expect("an envelope is JSON");
        (Some(error_no.number()), Response::json(StatusCode::OK, json))
    }
}

/// What came back.
enum Brought {
    Answer(Bytes),
    Stream(Stream, Generation, Target),
}

fn read(body: Bytes) -> Result<(Told, Brought), Failed> {
    match look::answer(&body) {
        Some(told) => Ok((told, Brought::Answer(body))),
        // Whatever answers there, it is no node.
        None => Err(Failed::Unanswered),
    }
}

fn failed(error: &ExchangeError, target: Target) -> Failed {
    tracing::debug!(%error, epoch = target.epoch, "a request has no answer");
    match error {
        ExchangeError::NotConnected { .. } => Failed::NotConnected,
        ExchangeError::CutBefore { .. } => Failed::NotSent,
        ExchangeError::StreamsFull { .. } => Failed::NoRoom,
        ExchangeError::Cut { .. } | ExchangeError::Broken { .. } => Failed::Unanswered,
    }
}

impl Handler for Front {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        let started = Instant::now();
        // In a box: a connection that waits for its next request has no room for one.
        let (error_no, response) = Box::pin(self.answer(&request)).await;
        self.meters.count(error_no, started.elapsed());
        response
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let (status, error_no) = match refusal {
            Refusal::Full { .. } => (StatusCode::SERVICE_UNAVAILABLE, ErrorNumber::Overloaded),
            Refusal::BodyTooLarge { .. } => (StatusCode::OK, ErrorNumber::Malformed),
            Refusal::BodyBroken(_) | Refusal::PlainText => {
                (StatusCode::BAD_REQUEST, ErrorNumber::Malformed)
            }
        };
        let retry = (error_no == ErrorNumber::Overloaded).then_some(RETRY_FULL_MS);
        let (number, mut response) = self.own(error_no, format!("{refusal}; not executed"), retry);
        response.status = status;
        self.meters.count(number, Duration::ZERO);
        response
    }
}

/// The one path whose answer is a stream.
const PUSH: &str = "/v1/push";
/// The longest time for a stream to open.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// Pieces of a stream that wait for its client.
const PIECES: usize = 16;
/// What a held request costs beside its body: its head, its task, its place.
const HELD_BYTES: usize = 2 * 1024;
/// More than the holds of one request together take.
const HOLD_MARGIN: Duration = Duration::from_secs(20);
const RETRY_FULL_MS: u64 = 200;

#[cfg(test)]
mod tests {
    use hotpair_http::HeaderMap;

    use super::*;
    use crate::Settings;

    #[test]
    fn a_connection_that_waits_costs_little() {
        let settings = Settings {
            nodes: 0,
            planned_ms: 0,
            crash_ms: 0,
            held_bytes_max: 0,
            held_max: 0,
            requests_max: 0,
            bound_ms: 0,
            seed: 0,
        };
        let desk = Arc::new(Desk::new(settings, Vec::new()));
        let front = Arc::new(Front::new(desk, Arc::default()));
        let request = Request {
            method: Method::GET,
            path: String::new(),
            query: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            from: "127.0.0.1:1".parse().unwrap(),
        };
        assert!(size_of_val(&Arc::clone(&front).handle(request)) <= 768);
    }
}
