//! The clients' HTTP: an envelope around every answer, the gate around every call.
//!
//! A call goes: room? gate? understood? which function? its datasets? run, within its time; gate
//! again; answer. Whatever fails on the way becomes one `Failure`, and each of those is one error
//! number. HTTP's status is 200 whenever the request could be read, so that clients look at one
//! place only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::dataset::{Availability, Dataset};
use hotpair_http::{Handler, Method, Refusal, Request, Response, StatusCode};
use hotpair_protocol::{CallBody, Envelope, ErrorNumber, Functions};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::catalogue::{Builtin, Catalogue, Does, Registered};
use crate::datasets::{Datasets, Found};
use crate::gate::{Gate, Pass, Refused};
use crate::json::{key_from_json, row_to_json};
use crate::lanes::Lanes;
use crate::meters::Meters;
use crate::passwords::Passwords;
use crate::sessions::Sessions;
use crate::tables::Tables;

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
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            calls_max: 4096,
            timeout_default: Duration::from_secs(30),
            timeout_max: Duration::from_mins(10),
            library_max: 64,
            users_configured: false,
        }
    }
}

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
    lanes: Arc<Lanes<()>>,
    running: Semaphore,
    library: Arc<Semaphore>,
    settings: ClientSettings,
}

impl ClientService {
    /// A service behind this gate.
    #[must_use]
    pub fn new(parts: ClientParts) -> Self {
        let ClientParts { gate, catalogue, datasets, whereabouts, meters, .. } = parts;
        let ClientParts { tables, sessions, passwords, settings, .. } = parts;
        Self {
            gate,
            catalogue,
            datasets,
            whereabouts,
            meters,
            tables,
            sessions,
            passwords,
            lanes: Arc::new(Lanes::new()),
            running: Semaphore::new(settings.calls_max),
            library: Arc::new(Semaphore::new(settings.library_max)),
            settings,
        }
    }

    /// Ends sessions that are silent for too long, at the configured interval, for ever; to be run
    /// beside the service. Those with calls under way stay.
    pub fn keep_sweeping(&self) -> impl Future<Output = ()> + Send + use<> {
        let lanes = Arc::clone(&self.lanes);
        let in_use = Box::new(move |session| lanes.is_busy(session));
        Arc::clone(&self.sessions).keep_sweeping(self.gate.clone(), in_use)
    }

    async fn answer(&self, request: &Request) -> Envelope {
        match (request.path.as_str(), &request.method) {
            ("/v1/call", &Method::POST) => self.inside(self.call(&request.body)).await,
            ("/v1/functions", &Method::GET) => self.inside(async { Ok(self.list()) }).await,
            ("/v1/call", method) => self.refuse_outside(&Failure::WrongMethod {
                path: "/v1/call",
                wanted: "POST",
                got: method.to_string(),
            }),
            ("/v1/functions", method) => self.refuse_outside(&Failure::WrongMethod {
                path: "/v1/functions",
                wanted: "GET",
                got: method.to_string(),
            }),
            (path, _) => self.refuse_outside(&Failure::NotOffered { path: shown(path) }),
        }
    }

    /// Does something behind the gate; what is not confirmed at its end was not done for the caller.
    async fn inside(&self, work: impl Future<Output = Result<Json, Failure>>) -> Envelope {
        let Ok(_room) = self.running.try_acquire() else {
            return self
                .refuse_outside(&Failure::Overloaded { calls_max: self.settings.calls_max });
        };
        let pass = match self.gate.enter() {
            Ok(pass) => pass,
            Err(refused) => return self.not_serving(refused),
        };
        let outcome = work.await;
        self.confirmed(&pass, outcome)
    }

    /// The last thing before an answer leaves.
    fn confirmed(&self, pass: &Pass, outcome: Result<Json, Failure>) -> Envelope {
        match (pass.confirm(), outcome) {
            (Ok(epoch), Ok(data)) => Envelope::done(epoch.0, data),
            (Ok(epoch), Err(failure)) => failure.envelope(epoch),
            (Err(refused), _) => self.not_serving(refused),
        }
    }

    async fn call(&self, body: &[u8]) -> Result<Json, Failure> {
        // serde would read a list as an object's fields in order.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(Failure::Malformed("the body: expected an object, got a list".into()));
        }
        let body: CallBody = serde_json::from_slice(body).map_err(|error| {
            Failure::Malformed(format!("the body: {}", shown(&error.to_string())))
        })?;
        if body.is_async {
            return Err(Failure::Malformed("`async` is not offered by this version".into()));
        }
        let function = self.find_function(&body)?;
        for dataset in &function.needs {
            self.find_dataset(dataset)?;
        }
        let limit = body.timeout_ms.map_or(self.settings.timeout_default, Duration::from_millis);
        let limit = limit.min(self.settings.timeout_max);
        let Does::Builtin(builtin) = function.does else {
            return Err(Failure::Malformed(String::new()));
        };
        timeout(limit, self.run(builtin, body.arguments))
            .await
            .unwrap_or(Err(Failure::TimedOut { function: function.number, limit }))
    }

    fn find_function(&self, body: &CallBody) -> Result<&Registered, Failure> {
        match (body.function, &body.gsv, &body.name) {
            (Some(number), None, None) => self
                .catalogue
                .by_number(number)
                .ok_or_else(|| Failure::NoSuchFunction(format!("number {number}"))),
            (None, Some(gsv), Some(name)) => self
                .catalogue
                .by_name(gsv, name)
                .ok_or_else(|| Failure::NoSuchFunction(shown(&format!("{gsv}:{name}")))),
            _ => Err(Failure::Malformed(
                "name the function either by `function` (its number) or by `gsv` and `name`".into(),
            )),
        }
    }

    async fn run(&self, function: Builtin, arguments: Json) -> Result<Json, Failure> {
        match function {
            Builtin::TableGet
            | Builtin::TablePut
            | Builtin::TableDelete
            | Builtin::TableCompareAndPut
            | Builtin::TableScan
            | Builtin::TableAdd => Err(Failure::Malformed(String::new())),
            Builtin::TestEcho => Ok(arguments),
            Builtin::TestSleep => {
                let SleepArguments { ms } = read(arguments)?;
                sleep(Duration::from_millis(ms)).await;
                Ok(json!({}))
            }
            Builtin::FunctionsList => Ok(self.list()),
            Builtin::DatasetGet => self.dataset_get(&read(arguments)?),
            Builtin::DatasetScan => self.dataset_scan(&read(arguments)?),
            Builtin::DatasetDescribe => self.dataset_describe(&read(arguments)?),
        }
    }

    fn list(&self) -> Json {
        let functions = Functions { functions: self.catalogue.entries(), registered: None };
        serde_json::to_value(functions).expect("texts and numbers are JSON")
    }

    fn dataset_get(&self, arguments: &GetArguments) -> Result<Json, Failure> {
        let dataset = self.find_dataset(&arguments.dataset)?;
        let key = key_from_json(dataset.key_columns(), &arguments.key)
            .map_err(|what| Failure::Malformed(format!("arguments.key: {}", shown(&what))))?;
        let row = dataset
            .lookup(&key)
            .map_err(|error| Failure::Malformed(format!("arguments.key: {error}")))?;
        Ok(json!({"row": row.map(|row| row_to_json(dataset.columns(), row))}))
    }

    fn dataset_scan(&self, arguments: &ScanArguments) -> Result<Json, Failure> {
        let limit = arguments.limit.unwrap_or(SCAN_ROWS_DEFAULT);
        if limit > SCAN_ROWS_MAX {
            return Err(Failure::Malformed(format!(
                "arguments.limit: {limit} rows are more than {SCAN_ROWS_MAX}"
            )));
        }
        let dataset = self.find_dataset(&arguments.dataset)?;
        let from = key_from_json(dataset.key_columns(), &arguments.from)
            .map_err(|what| Failure::Malformed(format!("arguments.from: {}", shown(&what))))?;
        let rows = dataset
            .scan(&from, limit)
            .map_err(|error| Failure::Malformed(format!("arguments.from: {error}")))?;
        let columns = dataset.columns();
        let rows: Vec<Json> = rows.into_iter().map(|row| row_to_json(columns, row)).collect();
        Ok(json!({"rows": rows}))
    }

    fn dataset_describe(&self, arguments: &DescribeArguments) -> Result<Json, Failure> {
        let dataset = self.find_dataset(&arguments.dataset)?;
        let columns: Vec<Json> = dataset
            .columns()
            .iter()
            .map(|column| json!({"name": column.name, "kind": column.kind.name()}))
            .collect();
        let key: Vec<&str> = dataset.key_columns().iter().map(|key| key.name.as_str()).collect();
        Ok(json!({
            "dataset": arguments.dataset,
            "rows": dataset.rows(),
            "columns": columns,
            "key": key,
            "memory_bytes": dataset.memory_bytes(),
        }))
    }

    fn find_dataset(&self, name: &str) -> Result<Arc<dyn Dataset>, Failure> {
        let dataset = || shown(name);
        match self.datasets.find(name) {
            Some(Found::Ready(found)) => Ok(found),
            Some(Found::NotReady(Availability::StillLoading { percent })) => {
                Err(Failure::DatasetLoading { dataset: dataset(), percent })
            }
            // Between opening the gate and the first row, or just now ready.
            Some(Found::NotReady(Availability::Absent)) => {
                Err(Failure::DatasetLoading { dataset: dataset(), percent: 0 })
            }
            Some(Found::NotReady(Availability::Ready)) => {
                Err(Failure::DatasetLoading { dataset: dataset(), percent: 100 })
            }
            Some(Found::NotReady(Availability::Failed { reason })) => {
                Err(Failure::DatasetFailed { dataset: dataset(), reason })
            }
            None => Err(Failure::Malformed(format!(
                "arguments.dataset: no dataset named {:?} is configured",
                dataset()
            ))),
        }
    }

    fn not_serving(&self, refused: Refused) -> Envelope {
        let known = self.whereabouts.load();
        let envelope =
            Envelope::refused(ErrorNumber::NotServing, known.epoch.0, refused.to_string());
        match &known.master {
            Some(master) => envelope.with_data(json!({"master": master})),
            None => envelope.with_retry_after_ms(RETRY_NOT_SERVING_MS),
        }
    }

    fn refuse_outside(&self, failure: &Failure) -> Envelope {
        let epoch = self.gate.serving_epoch().unwrap_or_else(|| self.whereabouts.load().epoch);
        failure.envelope(epoch)
    }
}

impl Handler for ClientService {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        let started = Instant::now();
        let envelope = self.answer(&request).await;
        self.meters.count(envelope.error_no, started.elapsed());
        respond(StatusCode::OK, &envelope)
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
            Refusal::BodyBroken(_) => {
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

fn read<T: DeserializeOwned>(arguments: Json) -> Result<T, Failure> {
    serde_json::from_value(arguments)
        .map_err(|error| Failure::Malformed(format!("arguments: {}", shown(&error.to_string()))))
}

/// Words that may hold a caller's own, cut in the middle: an answer must not grow with a request.
fn shown(words: &str) -> String {
    let length = words.chars().count();
    if length <= SHOWN_MAX {
        return words.to_owned();
    }
    let begin: String = words.chars().take(SHOWN_MAX / 2).collect();
    let end: String = words.chars().skip(length - SHOWN_MAX / 2).collect();
    format!("{begin} … {end}")
}

/// Why a call was not done. Nothing was executed, except where it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Malformed(String),
    #[error("{path} takes {wanted}, not {got}")]
    WrongMethod { path: &'static str, wanted: &'static str, got: String },
    #[error("{path} is not offered by this version; there are POST /v1/call and GET /v1/functions")]
    NotOffered { path: String },
    #[error("no such function: {0}")]
    NoSuchFunction(String),
    #[error("{calls_max} calls are running already; this one was not executed")]
    Overloaded { calls_max: usize },
    #[error("all {connections_max} connections are busy; nothing was executed")]
    NoConnection { connections_max: usize },
    #[error("dataset {dataset} is still loading ({percent} %)")]
    DatasetLoading { dataset: String, percent: u8 },
    #[error("dataset {dataset} failed to load and is being tried again: {reason}")]
    DatasetFailed { dataset: String, reason: String },
    /// The function was begun.
    #[error("function {function} took longer than {} ms", limit.as_millis())]
    TimedOut { function: u32, limit: Duration },
}

impl Failure {
    fn error_no(&self) -> ErrorNumber {
        match self {
            Self::Malformed(_) | Self::WrongMethod { .. } | Self::NotOffered { .. } => {
                ErrorNumber::Malformed
            }
            Self::NoSuchFunction(_) => ErrorNumber::NoSuchFunction,
            Self::Overloaded { .. } | Self::NoConnection { .. } => ErrorNumber::Overloaded,
            Self::DatasetLoading { .. } => ErrorNumber::DatasetLoading,
            Self::DatasetFailed { .. } => ErrorNumber::DatasetFailed,
            Self::TimedOut { .. } => ErrorNumber::TimedOut,
        }
    }

    fn envelope(&self, epoch: Epoch) -> Envelope {
        let envelope = Envelope::refused(self.error_no(), epoch.0, self.to_string());
        match self {
            Self::DatasetLoading { dataset, percent } => envelope
                .with_data(json!({"dataset": dataset, "percent": percent}))
                .with_retry_after_ms(RETRY_LOADING_MS),
            Self::DatasetFailed { dataset, reason } => {
                envelope.with_data(json!({"dataset": dataset, "reason": reason}))
            }
            Self::Overloaded { .. } | Self::NoConnection { .. } => {
                envelope.with_retry_after_ms(RETRY_OVERLOADED_MS)
            }
            Self::Malformed(_)
            | Self::WrongMethod { .. }
            | Self::NotOffered { .. }
            | Self::NoSuchFunction(_)
            | Self::TimedOut { .. } => envelope,
        }
    }
}

#[derive(Debug, Deserialize)]
struct SleepArguments {
    ms: u64,
}

#[derive(Debug, Deserialize)]
struct GetArguments {
    dataset: String,
    key: Vec<Json>,
}

#[derive(Debug, Deserialize)]
struct ScanArguments {
    dataset: String,
    #[serde(default)]
    from: Vec<Json>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct DescribeArguments {
    dataset: String,
}

/// Rows of a scan when its caller does not say.
const SCAN_ROWS_DEFAULT: usize = 100;
/// Rows of a scan: about 10 ms of work and a few megabytes.
const SCAN_ROWS_MAX: usize = 10_000;
const SHOWN_MAX: usize = 200;
const RETRY_NOT_SERVING_MS: u64 = 100;
const RETRY_LOADING_MS: u64 = 500;
const RETRY_OVERLOADED_MS: u64 = 100;

#[cfg(test)]
mod tests;
