//! Clients that log in once and count: each adds one to a row of its own, again and again, with
//! numbered requests. In the end a counter is exactly what was acknowledged to its client, or
//! something was lost or done twice.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use hotpair_lab::checker::tables::Operation;
use hotpair_lab::checker::{Outcome as Told, Request};
use hotpair_lab::request_log::RequestLog;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::session::{Patience, Session, Target, User};
use serde_json::{Value, json};

use super::LIMIT;
use crate::commands::user;

/// How many clients count.
const CLIENTS: usize = 8;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(20);

/// Who may log in; the demo's own.
fn user() -> User {
    User { name: "demo".to_owned(), password: "demo".to_owned() }
}

/// The part of the configuration that lets them in.
pub(super) fn configuration(scratch: &Scratch) -> Result<String> {
    let file = scratch.join("users.toml");
    let User { name, password } = user();
    user::add(&name, &password, &file)?;
    Ok(format!("[sessions]\nusers_file = {:?}\n", file.display().to_string()))
}

/// The clients, counting.
pub(super) struct Counters {
    clients: Vec<Client>,
    stop: Arc<AtomicBool>,
    log: Arc<RequestLog>,
    patience: Arc<Patience>,
}

struct Client {
    session: Arc<Session>,
    row: String,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// What a client ended with.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) client: String,
    pub(super) acknowledged: u64,
    /// The row, read at the end; none if it could not be read.
    pub(super) counter: Option<u64>,
}

impl Counted {
    pub(super) fn exact(&self) -> bool {
        self.counter == Some(self.acknowledged)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "client": self.client, "acknowledged": self.acknowledged, "counter": self.counter,
        })
    }
}

impl Counters {
    /// Everybody logs in, once, and begins.
    pub(super) fn start(target: &Target, log: &Path) -> Result<Self> {
        let log = Arc::new(RequestLog::create(log)?);
        let patience = Arc::new(Patience::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 1..=CLIENTS {
            let name = format!("client-{number}");
            let (targets, log) = (vec![target.clone()], log.clone());
            let session = Session::login(&name, &user(), targets, log, patience.clone())?;
            let session = Arc::new(session);
            let acknowledged = Arc::new(AtomicU64::new(0));
            let row = format!("counters/{name}");
            let thread = {
                let (session, row, stop) = (session.clone(), row.clone(), stop.clone());
                let acknowledged = acknowledged.clone();
                std::thread::spawn(move || count(&session, &row, &stop, &acknowledged))
            };
            clients.push(Client { session, row, acknowledged, thread });
        }
        Ok(Self { clients, stop, log, patience })
    }

    /// How many sessions the pair knows now, of how many that logged in at the beginning.
    pub(super) fn alive(&self) -> (usize, usize) {
        let alive = self.clients.iter().filter(|c| c.session.heartbeat().outcome == Some(Told::Ok));
        (alive.count(), self.clients.len())
    }

    /// One call of a function in the first one's session.
    pub(super) fn ask(&self, function: u32, arguments: &Value) -> Result<Value> {
        self.clients[0].session.ask(function, arguments)
    }

    /// Everybody finishes what is under way; the counters, and everything that was asked and told.
    pub(super) fn end(self) -> Result<(Vec<Counted>, Vec<Request>)> {
        self.stop.store(true, Ordering::Release);
        self.patience.ends_in(LIMIT);
        let mut counted = Vec::new();
        for client in self.clients {
            client.thread.join().ok().context("a client of the demo panicked")?;
            let look = client.session.look(&client.row, true);
            let counter = look.answer.and_then(|answer| answer.value);
            counted.push(Counted {
                client: client.session.client().to_owned(),
                acknowledged: client.acknowledged.load(Ordering::Acquire),
                counter: counter.and_then(|value| value.parse().ok()),
            });
        }
        Ok((counted, self.log.read()?))
    }
}

fn count(session: &Session, row: &str, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let add = Operation::Add { row: row.to_owned() };
    while !stop.load(Ordering::Acquire) {
        let Some(number) = session.reserve() else { return };
        if session.call(number, &add).outcome == Some(Told::Ok) {
            acknowledged.fetch_add(1, Ordering::AcqRel);
        }
        session.forget(number);
        std::thread::sleep(PAUSE);
    }
}
