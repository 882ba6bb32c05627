//! The clients' HTTP: an envelope around every answer, the gate around every call.
//!
//! A call goes: room? gate? understood? which function? whose (`calls`)? run, within its time; gate
//! again; answer. Whatever fails on the way becomes one failure, and each of those is one error
//! number. HTTP's status is 200 whenever the request could be read, so that clients look at one
//! place only.

mod arguments;
mod calls;
mod datasets;
mod failure;
mod logins;
mod publish;
mod push;
mod rows;
mod sidecars;
mod tickets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::planted::PlantedInTables;
use hotpair_http::{Handler, Method, Refusal, Request, Response, StatusCode};
use hotpair_protocol::{EPOCH_HEADER, Envelope, ErrorNumber, Functions};
use serde_json::json;
use tokio::sync::Semaphore;

use self::failure::{Failure, shown};
use self::tickets::{Fetched, Kept};
use crate::catalogue::Catalogue;
use crate::data::Data;
use crate::datasets::Datasets;
use crate::gate::{Gate, Pass};
use crate::lanes::Lanes;
use crate::meters::Meters;
use crate::passwords::Passwords;
use crate::publications::Publications;
use crate::sessions::Sessions;
use crate::tables::Tables;
use crate::under_way::{Followers, UnderWay};
use crate::upstream::Upstream;

/// Where the pair's master is, as far as this node knows; published by the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The largest epoch known.
    pub epoch: Epoch,
    /// The client address of the node that serves, where known; not this one's.
    pub master: Option<String>,
}

/// The bounds of the clients' HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Calls that run at a time; more are answered 308000006, unexecuted.
    pub calls_max: usize,
    /// How long a function may take when its caller does not say.
    pub timeout_default: Duration,
    /// How long a function may take, whatever its caller says.
    pub timeout_max: Duration,
    /// Functions of the library that run at a time, each on a thread; more wait for one.
    pub library_max: usize,
    /// A users file is configured: tables, datasets and functions of the library want a session.
    pub users_configured: bool,
    /// Users whose sessions may publish.
    pub publishers: Vec<String>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            calls_max: 4096,
            timeout_default: Duration::from_secs(30),
            timeout_max: Duration::from_mins(10),
            library_max: 64,
            users_configured: false,
            publishers: Vec::new(),
        }
    }
}

/// What became of a call.
type Outcome = Result<Data, Failure>;

/// What a service is made of.
#[derive(Debug)]
pub struct ClientParts {
    /// Nothing is served that does not pass it.
    pub gate: Gate,
    /// What can be called.
    pub catalogue: Arc<Catalogue>,
    /// What functions look into.
    pub datasets: Arc<dyn Datasets>,
    /// Who serves when this node does not.
    pub whereabouts: Arc<ArcSwap<Whereabouts>>,
    /// Counts answers.
    pub meters: Arc<Meters>,
    /// What functions change.
    pub tables: Tables,
    /// Who is logged in.
    pub sessions: Arc<Sessions>,
    /// Checks passwords.
    pub passwords: Passwords,
    /// The bounds.
    pub settings: ClientSettings,
    /// Told of each step of a call of a program, for tests that stop there; nobody listens in the
    /// product.
    pub reached: fn(&'static str),
    /// A known bug, for the tests that must find it; none in the product.
    pub planted: PlantedInTables,
}

/// Answers clients.
#[derive(Debug)]
pub struct ClientService {
    gate: Gate,
    catalogue: Arc<Catalogue>,
    datasets: Arc<dyn Datasets>,
    whereabouts: Arc<ArcSwap<Whereabouts>>,
    meters: Arc<Meters>,
    tables: Tables,
    sessions: Arc<Sessions>,
    passwords: Passwords,
    upstream: Option<Arc<Upstream>>,
    lanes: Arc<Lanes<Outcome>>,
    under_way: Arc<UnderWay>,
    followers: Arc<Followers>,
    publications: Publications,
    running: Semaphore,
    /// Asynchronous calls of an earlier epoch that are gone on with at a time.
    found: Arc<Semaphore>,
    library: Arc<Semaphore>,
    settings: ClientSettings,
    reached: fn(&'static str),
    planted: PlantedInTables,
}

impl ClientService {
    /// A service behind this gate.
    #[must_use]
    pub fn new(parts: ClientParts) -> Self {
        let ClientParts { gate, catalogue, datasets, whereabouts, meters, .. } = parts;
        let ClientParts { tables, sessions, passwords, settings, reached, planted, .. } = parts;
        Self {
            gate,
            catalogue,
            datasets,
            whereabouts,
            meters,
            tables,
            sessions,
            passwords,
            upstream: None,
            lanes: Arc::new(Lanes::new()),
            under_way: Arc::default(),
            followers: Arc::default(),
            publications: Publications::default(),
            running: Semaphore::new(settings.calls_max),
            found: Arc::new(Semaphore::new(settings.calls_max)),
            library: Arc::new(Semaphore::new(settings.library_max)),
            settings,
            reached,
            planted,
        }
    }

    /// The same, whose logins get a token from the external investment system.
    #[must_use]
    pub fn with_upstream(mut self, upstream: Option<Arc<Upstream>>) -> Self {
        self.upstream = upstream;
        self
    }

    /// Ends sessions that are silent for too long, at the configured interval, for ever; to be run
    /// beside the service. Those with calls under way stay.
    pub fn keep_sweeping(&self) -> impl Future<Output = ()> + Send + use<> {
        let lanes = Arc::clone(&self.lanes);
        let under_way = Arc::clone(&self.under_way);
        let in_use = Box::new(move |session| lanes.is_busy(session) || under_way.is_busy(session));
        Arc::clone(&self.sessions).keep_sweeping(self.gate.clone(), in_use)
    }

    async fn answer(self: &Arc<Self>, request: &Request) -> Answer {
        let body = &*request.body;
        match (request.path.as_str(), &request.method) {
            ("/v1/call", &Method::POST) => {
                self.inside(async |pass| self.call(pass, body).await).await
            }
            ("/v1/result", &Method::POST) => {
                let fetch = async |pass: &Pass| self.result(pass, body).await;
                self.inside_for(fetch, Answer::of_fetched).await
            }
            ("/v1/login", &Method::POST) => match self.log_in(body).await {
                Ok((epoch, data)) => Answer::Done { epoch, data },
                Err(refused) => Answer::Refused(refused),
            },
            ("/v1/heartbeat", &Method::POST) => {
                self.inside(async |pass| self.heartbeat(pass, body)).await
            }
            ("/v1/logout", &Method::POST) => {
                self.inside(async |pass| self.log_out(pass, body).await).await
            }
            ("/v1/publish", &Method::POST) => {
                self.inside(async |pass| self.publish(pass, request)).await
            }
            ("/v1/functions", &Method::GET) => self.inside(async |_| Ok(self.list())).await,
            (path, method) => Answer::Refused(self.refuse_outside(&not_offered(path, method))),
        }
    }

    /// Whoever passes requests on says whom they are for: this node as it was in an earlier epoch, or as
    /// it is not yet, is somebody else. Nothing was executed.
    fn meant_for_another_epoch(&self, request: &Request) -> Option<Envelope> {
        let meant = request.headers.get(EPOCH_HEADER)?;
        let number = meant.to_str().ok().and_then(|text| text.parse().ok()).map(Epoch);
        let Some(number) = number else {
            let why = format!("the header {EPOCH_HEADER} is no number");
            return Some(self.refuse_outside(&Failure::Malformed(why)));
        };
        match self.gate.serving_epoch() {
            Some(epoch) if epoch != number => {
                let why = format!("the request is meant for epoch {number}, and this is {epoch}");
                Some(self.not_serving(&why, false))
            }
            // The gate itself says why not.
            _ => None,
        }
    }

    /// Does something behind the gate; what is not confirmed at its end was not done for the caller.
    async fn inside(&self, work: impl AsyncFnOnce(&Pass) -> Outcome) -> Answer {
        self.inside_for(work, |epoch, data| Answer::Done { epoch, data }).await
    }

    /// The same for what is answered in its own way.
    async fn inside_for<T>(
        &self,
        work: impl AsyncFnOnce(&Pass) -> Result<T, Failure>,
        answer: impl FnOnce(Epoch, T) -> Answer,
    ) -> Answer {
        match self.passing(work).await {
            Ok((epoch, done)) => answer(epoch, done),
            Err(refused) => Answer::Refused(refused),
        }
    }

    /// The same as what came of it.
    async fn passing<T>(
        &self,
        work: impl AsyncFnOnce(&Pass) -> Result<T, Failure>,
    ) -> Result<(Epoch, T), Envelope> {
        let Ok(_room) = self.running.try_acquire() else {
            let failure = Failure::Overloaded { calls_max: self.settings.calls_max };
            return Err(self.refuse_outside(&failure));
        };
        match self.gate.enter() {
            Ok(pass) => {
                let outcome = work(&pass).await;
                self.confirmed(&pass, outcome)
            }
            Err(refused) => Err(self.not_serving(&refused.to_string(), false)),
        }
    }

    /// The last thing before an answer leaves.
    fn confirmed<T>(
        &self,
        pass: &Pass,
        outcome: Result<T, Failure>,
    ) -> Result<(Epoch, T), Envelope> {
        match (pass.confirm(), outcome) {
            (Ok(epoch), Ok(done)) => Ok((epoch, done)),
            (Ok(_), Err(failure @ Failure::Superseded)) => {
                Err(self.not_serving(&failure.to_string(), true))
            }
            (Ok(epoch), Err(failure)) => Err(failure.envelope(epoch)),
            (Err(refused), outcome) => {
                let may_be_done = outcome.map_or_else(|failure| failure.may_be_done(), |_| true);
                Err(self.not_serving(&refused.to_string(), may_be_done))
            }
        }
    }

    fn list(&self) -> Data {
        let functions = Functions { functions: self.catalogue.entries(), registered: None };
        Data::text(serde_json::to_string(&functions).expect("texts and numbers are JSON"))
    }

    /// Answers 308000005. Where the request may have been executed all the same, `data.executed` says so:
    /// a number makes sending it again harmless, and without one only its caller can know.
    fn not_serving(&self, why: &str, may_be_done: bool) -> Envelope {
        let known = self.whereabouts.load();
        let envelope = Envelope::refused(ErrorNumber::NotServing, known.epoch.0, why);
        let mut data = json!({});
        if may_be_done {
            data["executed"] = "unknown".into();
        }
        match &known.master {
            Some(master) => {
                data["master"] = master.as_str().into();
                envelope.with_data(data)
            }
            None => envelope.with_data(data).with_retry_after_ms(RETRY_NOT_SERVING_MS),
        }
    }

    fn refuse_outside(&self, failure: &Failure) -> Envelope {
        let epoch = self.gate.serving_epoch().unwrap_or_else(|| self.whereabouts.load().epoch);
        failure.envelope(epoch)
    }
}

fn not_offered(path: &str, method: &Method) -> Failure {
    let known = [
        ("/v1/call", "POST"),
        ("/v1/login", "POST"),
        ("/v1/heartbeat", "POST"),
        ("/v1/logout", "POST"),
        ("/v1/result", "POST"),
        ("/v1/publish", "POST"),
        ("/v1/functions", "GET"),
        ("/v1/push", "GET"),
    ];
    match known.into_iter().find(|(offered, _)| *offered == path) {
        Some((path, wanted)) => Failure::WrongMethod { path, wanted, got: method.to_string() },
        None => Failure::NotOffered { path: shown(path) },
    }
}

/// An answer before it is bytes.
enum Answer {
    Done {
        epoch: Epoch,
        data: Data,
    },
    /// What an asynchronous call came to, when it did.
    Kept {
        epoch: Epoch,
        kept: Kept,
    },
    Refused(Envelope),
}

impl Answer {
    fn of_fetched(epoch: Epoch, fetched: Fetched) -> Self {
        match fetched {
            Fetched::Over(kept) => Self::Kept { epoch, kept },
            Fetched::Running => {
                let envelope = Envelope::done(epoch.0, json!({"running": true}));
                Self::Refused(envelope.with_retry_after_ms(RETRY_RUNNING_MS))
            }
        }
    }

    fn error_no(&self) -> ErrorNumber {
        match self {
            Self::Done { .. } => ErrorNumber::Done,
            Self::Kept { kept, .. } => kept.error_no(),
            Self::Refused(envelope) => envelope.error_no,
        }
    }

    fn into_response(self) -> Response {
        match self {
            Self::Done { epoch, data } => Response::json(StatusCode::OK, data.envelope(epoch.0)),
            Self::Kept { epoch, kept } => Response::json(StatusCode::OK, kept.envelope(epoch)),
            Self::Refused(envelope) => respond(StatusCode::OK, &envelope),
        }
    }
}

impl Handler for ClientService {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        let started = Instant::now();
        let answer = if let Some(refused) = self.meant_for_another_epoch(&request) {
            Answer::Refused(refused)
        } else if request.method == Method::GET && request.path == "/v1/push" {
            match self.push(&request).await {
                Ok(stream) => return stream,
                Err(answer) => answer,
            }
        } else {
            self.answer(&request).await
        };
        self.meters.count(answer.error_no(), started.elapsed());
        if answer.error_no() != ErrorNumber::NotServing {
            (self.reached)("answer.leaving");
        }
        answer.into_response()
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let (status, failure) = match refusal {
            Refusal::Full { connections_max } => (
                StatusCode::SERVICE_UNAVAILABLE,
                Failure::NoConnection { connections_max: *connections_max },
            ),
            Refusal::BodyTooLarge { .. } => {
                (StatusCode::OK, Failure::Malformed(refusal.to_string()))
            }
            Refusal::BodyBroken(_) | Refusal::PlainText => {
                (StatusCode::BAD_REQUEST, Failure::Malformed(refusal.to_string()))
            }
        };
        let envelope = self.refuse_outside(&failure);
        self.meters.count(envelope.error_no, Duration::ZERO);
        respond(status, &envelope)
    }
}

fn respond(status: StatusCode, envelope: &Envelope) -> Response {
    Response::json(status, serde_json::to_vec(envelope).expect("an envelope is JSON"))
}

const RETRY_NOT_SERVING_MS: u64 = 100;
const RETRY_RUNNING_MS: u64 = 100;

#[cfg(test)]
mod tests;
