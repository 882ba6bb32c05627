//! A client of the pair with one session: it logs in once, numbers what it asks, and asks again with
//! the same number, now here and now there, until it is told.
//!
//! Everything it sends and hears is written to the [`RequestLog`]: a line at the first sending, and
//! the whole line when it is known what became of it. Numbered requests are lines of the client, in
//! the order of their numbers from the login (0) on. Looks are not numbered and read only, so they are
//! lines of `CLIENT looks` with a count of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::checker::tables::{Answer, Operation};
use crate::checker::{DOCUMENTED_CODES, Outcome, Request};
use crate::http::Http;
use crate::load::now_ns;
use crate::node::Pair;
use crate::request_log::RequestLog;

/// A node as clients see it, or a router.
#[derive(Debug, Clone)]
pub struct Target {
    /// The node's name; none for a router, which stands for either.
    pub name: Option<String>,
    /// Its clients' HTTP.
    pub http: Http,
    /// What it answered.
    pub codes: Arc<Codes>,
}

/// Every kind of answer that clients saw, and how often.
#[derive(Debug, Default)]
pub struct Codes {
    seen: Mutex<BTreeMap<String, u64>>,
}

impl Codes {
    pub(crate) fn note(&self, told: &Result<crate::http::Answer>) {
        let code = match told {
            Err(_) => NO_ANSWER.to_owned(),
            Ok(answer) if answer.status == 503 && answer.body.is_empty() => DOWN.to_owned(),
            Ok(answer) => match answer.json().ok().and_then(|json| json["error_no"].as_i64()) {
                Some(error_no) if answer.status == 200 => error_no.to_string(),
                Some(_) | None => format!("status {} {:?}", answer.status, answer.body),
            },
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.entry(code).or_default() += 1;
    }

    /// What was seen so far, and nothing of it from now on.
    pub fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether an entry of [`Codes`] is an answer that the client API documents.
#[must_use]
pub fn is_documented(code: &str) -> bool {
    let numbered = || {
        let number = code.parse::<i64>();
        number.is_ok_and(|number| number == 0 || DOCUMENTED_CODES.contains(&number))
    };
    code == DOWN || numbered()
}

/// Among [`Codes`]: nothing came, or half of it.
pub const NO_ANSWER: &str = "no answer";
/// Among [`Codes`]: 503 with an empty body.
pub const DOWN: &str = "503";

/// Both nodes of a pair, each attempt with this limit.
#[must_use]
pub fn targets(pair: &Pair, attempt_limit: Duration) -> Vec<Target> {
    let target = |node: &crate::node::Node| Target {
        name: Some(node.settings.node.clone()),
        http: node.client().with_limit(attempt_limit),
        codes: Arc::default(),
    };
    pair.nodes.iter().map(target).collect()
}

/// Until when unanswered requests are sent again; shared by clients that end together.
#[derive(Debug)]
pub struct Patience {
    until_ns: AtomicI64,
}

impl Default for Patience {
    /// For ever.
    fn default() -> Self {
        Self { until_ns: AtomicI64::new(i64::MAX) }
    }
}

impl Patience {
    /// So long from now on, and no longer.
    pub fn ends_in(&self, limit: Duration) {
        let limit = i64::try_from(limit.as_nanos()).expect("patience is not for centuries");
        self.until_ns.store(now_ns() + limit, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        now_ns() > self.until_ns.load(Ordering::Relaxed)
    }
}

/// Who logs in.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// A session of one client, used by several threads of it.
#[derive(Debug)]
pub struct Session {
    client: String,
    targets: Vec<Target>,
    /// The one that answered last.
    preferred: AtomicUsize,
    token: String,
    numbers: Mutex<Numbers>,
    room: Condvar,
    looks: AtomicU64,
    log: Arc<RequestLog>,
    patience: Arc<Patience>,
}

/// Which numbers were given out, and which of them are still waited for.
#[derive(Debug)]
struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

impl Session {
    /// Logs in, as often as it takes to be told a session.
    pub fn login(
        client: &str,
        user: &User,
        targets: Vec<Target>,
        log: Arc<RequestLog>,
        patience: Arc<Patience>,
    ) -> Result<Self> {
        let mut session = Self {
            client: client.to_owned(),
            targets,
            preferred: AtomicUsize::new(0),
            token: String::new(),
            numbers: Mutex::new(Numbers { next: 1, open: BTreeSet::new() }),
            room: Condvar::new(),
            looks: AtomicU64::new(0),
            log,
            patience,
        };
        let body = json!({"user": user.name, "password": user.password});
        let request = session.request(client.to_owned(), 0, Operation::Login);
        let (request, data) = session.insist(request, "/v1/login", || body.clone());
        if request.outcome != Some(Outcome::Ok) {
            bail!("{client} could not log in: {request:?}");
        }
        let token = data["session"].as_str();
        session.token =
            token.with_context(|| format!("no session for {client} in {data}"))?.to_owned();
        Ok(session)
    }

    /// The client's name.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The next number, to be used for one call; waits while too many are open. `None` when the
    /// patience ends first.
    pub fn reserve(&self) -> Option<u64> {
        let mut numbers = self.numbers();
        loop {
            let oldest = numbers.open.first().copied().unwrap_or(numbers.next);
            if numbers.next < oldest + OPEN_MAX {
                let number = numbers.next;
                numbers.next += 1;
                numbers.open.insert(number);
                return Some(number);
            }
            if self.patience.is_over() {
                return None;
            }
            let waited = self.room.wait_timeout(numbers, ROOM_PAUSE);
            numbers = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks under a reserved number until it is told, or the patience ends. The number stays open.
    pub fn call(&self, number: u64, operation: &Operation) -> Request {
        let request = self.request(self.client.clone(), number, operation.clone());
        self.insist(request, "/v1/call", || self.body(number, operation)).0
    }

    /// Asks under a reserved number once, at this target; the line is logged as a copy if it is told.
    /// A copy tells nothing new unless the request itself was called as well.
    pub fn call_copy(&self, number: u64, operation: &Operation, target: usize, copy: u32) {
        let mut request = self.request(self.client.clone(), number, operation.clone());
        request.copy = copy;
        let body = self.body(number, operation);
        if let Reply::Done { epoch, data } = self.attempt(target, "/v1/call", &body) {
            self.note_done(&mut request, target, epoch, &data);
            self.log.write(&request);
        }
    }

    /// Sends a request under a reserved number to this target and does not wait to be told.
    pub fn call_unheard(&self, number: u64, operation: &Operation, target: usize) {
        let request = self.request(self.client.clone(), number, operation.clone());
        self.log.write(&request);
        let deaf = self.targets[target].http.clone().with_limit(DEAF_LIMIT);
        // Whatever it answers: nobody listens.
        let _ = deaf.post("/v1/call", &self.body(number, operation));
    }

    /// The answer to this number is there, and to be forgotten by the pair.
    pub fn forget(&self, number: u64) {
        self.numbers().open.remove(&number);
        self.room.notify_all();
    }

    /// Looks at a row, without a number.
    pub fn look(&self, row: &str, at_end: bool) -> Request {
        let operation = Operation::Get { row: row.to_owned(), at_end };
        let arguments = arguments(&operation);
        let body = json!({
            "session": self.token, "function": function(&operation), "arguments": arguments
        });
        let request = self.unnumbered(operation);
        self.insist(request, "/v1/call", || body.clone()).0
    }

    /// Calls a function once, by whichever node answers, and logs nothing: for what is no row's business.
    pub fn ask(&self, function: u32, arguments: &Value) -> Result<Value> {
        let body = json!({"session": self.token, "function": function, "arguments": arguments});
        for target in 0..self.targets.len() {
            if let Reply::Done { data, .. } = self.attempt(target, "/v1/call", &body) {
                return Ok(data);
            }
        }
        bail!("nobody answers {body}")
    }

    /// Says that the session goes on.
    pub fn heartbeat(&self) -> Request {
        let body = json!({"session": self.token});
        let request = self.unnumbered(Operation::Heartbeat);
        self.insist(request, "/v1/heartbeat", || body.clone()).0
    }

    fn unnumbered(&self, operation: Operation) -> Request {
        let number = self.looks.fetch_add(1, Ordering::Relaxed);
        self.request(format!("{} looks", self.client), number, operation)
    }

    fn request(&self, client: String, number: u64, operation: Operation) -> Request {
        let operation = Some(operation);
        Request { at_ns: now_ns(), request: number, client, operation, ..Request::default() }
    }

    fn body(&self, number: u64, operation: &Operation) -> Value {
        let numbers = self.numbers();
        let oldest = numbers.open.first().copied().unwrap_or(numbers.next);
        drop(numbers);
        json!({
            "session": self.token,
            "request": number,
            "done_up_to": oldest.min(number) - 1,
            "function": function(operation),
            "arguments": arguments(operation),
        })
    }

    /// Sends it now here and now there; the finished line, which is logged, and the answer's data.
    fn insist(
        &self,
        mut request: Request,
        path: &str,
        body: impl Fn() -> Value,
    ) -> (Request, Value) {
        self.log.write(&request);
        let mut attempts = 0;
        while !self.patience.is_over() {
            let target = self.preferred.load(Ordering::Relaxed);
            request.sent_ns = Some(now_ns());
            match self.attempt(target, path, &body()) {
                Reply::Done { epoch, data } => {
                    self.note_done(&mut request, target, epoch, &data);
                    self.log.write(&request);
                    return (request, data);
                }
                Reply::Refused { error_no } => {
                    request.done_ns = Some(now_ns());
                    request.node.clone_from(&self.targets[target].name);
                    request.error_no = Some(error_no);
                    request.outcome = Some(Outcome::Fail);
                    self.log.write(&request);
                    return (request, Value::Null);
                }
                Reply::Again => {}
            }
            // Unless another thread of ours has changed it meanwhile.
            let other = (target + 1) % self.targets.len();
            let order = Ordering::Relaxed;
            let _ = self.preferred.compare_exchange(target, other, order, order);
            attempts += 1;
            thread::sleep(PAUSE * attempts.min(PAUSES_MAX));
        }
        request.done_ns = Some(now_ns());
        request.outcome = Some(Outcome::Unknown);
        self.log.write(&request);
        (request, Value::Null)
    }

    fn attempt(&self, target: usize, path: &str, body: &Value) -> Reply {
        let target = &self.targets[target];
        let told = target.http.post(path, body);
        target.codes.note(&told);
        let told = told.and_then(|answer| answer.json());
        // No answer, or none that can be read: nobody knows what became of it.
        let Ok(mut told) = told else { return Reply::Again };
        match told["error_no"].as_i64() {
            Some(0) => Reply::Done { epoch: told["epoch"].as_u64(), data: told["data"].take() },
            None => Reply::Again,
            Some(error_no) if AGAIN.contains(&error_no) => Reply::Again,
            Some(error_no) => Reply::Refused { error_no },
        }
    }

    fn note_done(&self, request: &mut Request, target: usize, epoch: Option<u64>, data: &Value) {
        request.done_ns = Some(now_ns());
        request.node.clone_from(&self.targets[target].name);
        request.epoch = epoch;
        request.error_no = Some(0);
        request.outcome = Some(Outcome::Ok);
        let on_a_row = request.operation.as_ref().is_some_and(|asked| asked.row().is_some());
        request.answer = on_a_row.then(|| read_answer(data));
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one attempt came to.
enum Reply {
    Done {
        epoch: Option<u64>,
        data: Value,
    },
    /// It will not be done, however often it is sent.
    Refused {
        error_no: i64,
    },
    Again,
}

fn function(operation: &Operation) -> u32 {
    match operation {
        Operation::Get { .. } => 1001,
        Operation::Put { .. } => 1002,
        Operation::CompareAndPut { .. } => 1004,
        Operation::Add { .. } => 1006,
        Operation::Login | Operation::Heartbeat => unreachable!("these are no functions"),
    }
}

/// A row is named `table/key`.
fn arguments(operation: &Operation) -> Value {
    let row = operation.row().expect("functions are about rows");
    let (table, key) = row.split_once('/').unwrap_or(("", row));
    match operation {
        Operation::Put { value, .. } => json!({"table": table, "key": key, "value": value}),
        Operation::CompareAndPut { value, version, .. } => {
            json!({"table": table, "key": key, "value": value, "version": version})
        }
        Operation::Add { .. } => json!({"table": table, "key": key, "by": 1}),
        Operation::Get { .. } | Operation::Login | Operation::Heartbeat => {
            json!({"table": table, "key": key})
        }
    }
}

fn read_answer(data: &Value) -> Answer {
    let value = match &data["value"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Answer { value, version: data["version"].as_u64(), done: data["done"].as_bool() }
}

/// Numbers from the oldest open one on: the pair keeps the answers to 64.
const OPEN_MAX: u64 = 60;
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// Long enough for a request to be on its way, whether it is answered or not.
const DEAF_LIMIT: Duration = Duration::from_millis(100);
/// After the first attempt; longer after each more, so that clients of a dead pair do not starve it.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSES_MAX: u32 = 8;
/// Switching, not serving, overloaded, the function's time-out: the same number again.
const AGAIN: [i64; 4] = [308_000_000, 308_000_005, 308_000_006, 308_000_013];
