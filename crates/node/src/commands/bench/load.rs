//! `hotpair bench load`: numbered additions in sessions, by the published client library, at a constant
//! rate or as fast as they are answered; while nothing happens, or a switch and a kill.
//!
//! At a constant rate (open loop) every call has a moment at which it is meant to be sent, and its
//! latency counts from there: calls that queue up behind a slow one are slow themselves, as they are
//! for those who wait for them. Without a rate (closed loop) each connection sends when it was
//! answered, and latency counts from the sending: fit for throughput, blind for pauses.
//!
//! Every call adds one to a row of its session. In the end a row is exactly what was acknowledged, or
//! something was lost or done twice.

mod histogram;
mod plot;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hotpair_client::{Availability, Client, Error, Session};
use hotpair_lab::node::Pair;
use hotpair_lab::router::Router;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep_until;

use self::histogram::Histogram;
use self::plot::{Mark, SLICE_SECONDS, Slice};
use super::failover::calm;
use super::progress;
use crate::commands::user;
use crate::config::password_in_environment;

/// What happens to a pair of `load`'s own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Event {
    /// Nothing.
    None,
    /// A planned switch, in the middle.
    Switch,
    /// A kill -9 of the master, in the middle.
    Kill,
    /// The switch after a third of the time, the kill after two.
    Both,
}

/// How `load` asks, and whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArguments {
    /// load: a router's or node's client address; may be given twice. Without one, `load` starts a pair
    /// of its own.
    #[arg(long = "target", value_name = "URL")]
    targets: Vec<String>,
    /// load: the user to log in as, with a target; the password is in HOTPAIR_PASSWORD.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// load: calls a second, sent when they are due; 0 sends each when the one before was answered.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// load: sessions that live, and that the calls go round in.
    #[arg(long, default_value_t = 8)]
    sessions: usize,
    /// load: write a plot of the run to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// load: what happens to a pair of its own.
    #[arg(long, value_enum, default_value_t = Event::Both)]
    event: Event,
    /// load: routers before a pair of its own; the clients then know nothing else.
    #[arg(long, default_value_t = 0)]
    routers: usize,
}

/// What one run is.
#[derive(Clone, Debug)]
struct Plan {
    rate: u64,
    connections: usize,
    sessions: usize,
    seconds: u64,
}

/// Runs it.
pub(super) fn measure(
    arguments: &LoadArguments,
    connections: usize,
    seconds: u64,
) -> Result<Value> {
    let sessions = arguments.sessions.max(1);
    ensure!(
        connections <= sessions * OUTSTANDING_MAX,
        "{connections} connections in {sessions} sessions: a session has {OUTSTANDING_MAX} calls \
         under way at most; give more --sessions"
    );
    let plan = Plan { rate: arguments.rate, connections, sessions, seconds };
    if !arguments.targets.is_empty() {
        let user = arguments.user.as_deref().context("--target needs --user")?;
        let password = password_in_environment()
            .context("--target needs the user's password in HOTPAIR_PASSWORD")?;
        let run = Run::start(&plan, &arguments.targets, user, &password)?;
        return run.end(Vec::new(), arguments);
    }
    on_own_pair(arguments, &plan)
}

fn on_own_pair(arguments: &LoadArguments, plan: &Plan) -> Result<Value> {
    let zookeeper = ZooKeeper::standalone()?;
    let mut pair = Pair::here(&zookeeper.addresses())?;
    let scratch = Scratch::new("bench-load")?;
    let file = scratch.join("users.toml");
    user::add(USER, USER, &file)?;
    for node in &mut pair.nodes {
        node.settings.more = format!("[sessions]\nusers_file = {:?}\n", file.display().to_string());
    }
    pair.start()?;
    calm(&pair)?;
    let mut routers = Vec::new();
    for _ in 0..arguments.routers {
        let mut router = Router::before(&pair)?;
        router.start()?;
        router.wait_for("the master is followed", |status| status["standing"] == "serving")?;
        routers.push(router);
    }
    let targets: Vec<String> = if routers.is_empty() {
        pair.nodes.iter().map(|node| node.settings.client.to_string()).collect()
    } else {
        routers.iter().map(Router::address).collect()
    };
    let run = Run::start(plan, &targets, USER, USER)?;
    let whole = Duration::from_secs(plan.seconds);
    let mut marks = Vec::new();
    let events: &[(Event, Duration)] = match arguments.event {
        Event::None => &[],
        Event::Switch => &[(Event::Switch, whole / 2)],
        Event::Kill => &[(Event::Kill, whole / 2)],
        Event::Both => &[(Event::Switch, whole / 3), (Event::Kill, whole / 3 * 2)],
    };
    for (event, at) in events {
        std::thread::sleep(at.saturating_sub(run.start.elapsed()));
        if *event == Event::Switch {
            marks.push(run.mark("planned switch"));
            switch(&pair)?;
        } else {
            let (master, _) = serving(&pair)?;
            marks.push(run.mark("kill -9"));
            pair.nodes[master].kill()?;
        }
    }
    let report = run.end(marks, arguments)?;
    for node in &mut pair.nodes {
        if node.process().is_ok() {
            node.stop(LIMIT)?;
        }
    }
    for router in &mut routers {
        router.stop(LIMIT)?;
    }
    Ok(report)
}

/// Switches over, and waits until the pair is hot again.
fn switch(pair: &Pair) -> Result<()> {
    let (master, epoch) = serving(pair)?;
    let answer = pair.nodes[master].admin().with_limit(LIMIT).post("/switchover", &json!({}))?;
    ensure!(answer.json()?["done"] == true, "the switchover was refused: {answer:?}");
    eventually(LIMIT, "the other one serves", || {
        let (now, newer) = serving(pair)?;
        ensure!(now != master && newer > epoch, "not yet");
        Ok(())
    })?;
    calm(pair).map(drop)
}

fn serving(pair: &Pair) -> Result<(usize, u64)> {
    let master = pair.wait_for_master(LIMIT)?;
    Ok((master, pair.nodes[master].role()?.epoch))
}

/// What became of one call.
struct Outcome {
    /// Since the run's start.
    meant_at: Duration,
    ended_at: Duration,
    error: Option<String>,
}

/// A run that is under way.
struct Run {
    runtime: tokio::runtime::Runtime,
    plan: Plan,
    client: Client,
    sessions: Arc<[Session]>,
    rows: String,
    start: Instant,
    tally: JoinHandle<Tally>,
    epochs: JoinHandle<()>,
    marks: mpsc::Receiver<Mark>,
}

impl Run {
    /// Logs everybody in, and begins.
    fn start(plan: &Plan, targets: &[String], user: &str, password: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("load")
            .enable_all()
            .build()?;
        let client = Client::builder().targets(targets.to_vec()).call_limit(LIMIT).build()?;
        let sessions = runtime.block_on(log_in(&client, plan.sessions, user, password))?;
        progress(&format!("{} sessions are logged in", sessions.len()));
        let (tell, outcomes) = mpsc::channel(OUTCOMES_MAX);
        let rows = format!("load-{:016x}", fastrand::u64(..));
        let start = Instant::now() + BEGIN;
        let next = Arc::new(AtomicU64::new(0));
        for _ in 0..plan.connections {
            let worker = Worker {
                sessions: Arc::clone(&sessions),
                rows: rows.clone(),
                rate: plan.rate,
                start,
                end: start + Duration::from_secs(plan.seconds),
                next: Arc::clone(&next),
                tell: tell.clone(),
            };
            runtime.spawn(worker.run());
        }
        drop(tell);
        let (tell, marks) = mpsc::channel(MARKS_MAX);
        let epochs = runtime.spawn(note_epochs(client.clone(), start, tell));
        let tally = runtime.spawn(Tally::of(outcomes));
        let plan = plan.clone();
        Ok(Self { runtime, plan, client, sessions, rows, start, tally, epochs, marks })
    }

    fn mark(&self, text: &str) -> Mark {
        let at = Instant::now().saturating_duration_since(self.start);
        Mark { at_seconds: at.as_secs_f64(), text: text.to_owned() }
    }

    /// Waits for the end of every call, and makes the report.
    fn end(mut self, mut marks: Vec<Mark>, arguments: &LoadArguments) -> Result<Value> {
        let Tally { latencies, errors, slices } = self.runtime.block_on(self.tally)?;
        self.epochs.abort();
        while let Ok(mark) = self.marks.try_recv() {
            marks.push(mark);
        }
        let counted = counted(&self.runtime, &self.client, &self.sessions, &self.rows)?;
        let failed: u64 = errors.values().sum();
        if let Some(file) = &arguments.svg {
            let Plan { rate, connections, seconds, .. } = &self.plan;
            let title = format!(
                "{connections} connections, {rate} calls/s meant, {seconds} s, {failed} failed"
            );
            std::fs::write(file, plot::svg(&title, &slices, &marks))
                .with_context(|| format!("cannot write {}", file.display()))?;
            progress(&format!("plotted to {}", file.display()));
        }
        let done = latencies.count();
        let marks: Vec<Value> =
            marks.iter().map(|mark| json!({"at_s": mark.at_seconds, "what": mark.text})).collect();
        Ok(json!({
            "loop": if self.plan.rate == 0 { "closed" } else { "open" },
            "rate": self.plan.rate, "connections": self.plan.connections,
            "sessions": self.plan.sessions, "seconds": self.plan.seconds,
            "answered": done, "answered_per_s": done as f64 / self.plan.seconds as f64,
            "failed": failed, "errors": errors,
            "latency": latencies.json(),
            "counted": counted,
            "counted_and_not_acknowledged": counted.saturating_sub(done),
            "acknowledged_and_not_counted": done.saturating_sub(counted),
            "logins": self.sessions.iter().map(Session::logins).sum::<u64>(),
            "marks": marks,
        }))
    }
}

/// As many sessions as wanted; a password takes its time, so several at once.
async fn log_in(
    client: &Client,
    sessions: usize,
    user: &str,
    password: &str,
) -> Result<Arc<[Session]>> {
    let mut under_way = JoinSet::new();
    let mut all = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        if under_way.len() == LOGINS_AT_ONCE
            && let Some(session) = under_way.join_next().await
        {
            all.push(session??);
        }
        let (client, user, password) = (client.clone(), user.to_owned(), password.to_owned());
        under_way.spawn(async move { client.log_in(&user, &password).await });
    }
    while let Some(session) = under_way.join_next().await {
        all.push(session??);
    }
    Ok(all.into())
}

/// The sum of all rows.
fn counted(
    runtime: &tokio::runtime::Runtime,
    client: &Client,
    sessions: &[Session],
    rows: &str,
) -> Result<u64> {
    let mut sum = 0;
    for (index, session) in sessions.iter().enumerate() {
        let get = json!({"table": rows, "key": index.to_string()});
        let row: Value = runtime.block_on(session.call(1001, get))?;
        sum += row["value"].as_u64().unwrap_or(0);
    }
    let availability = *client.availability().borrow();
    if !matches!(availability, Availability::Serving { .. }) {
        bail!("the run ended, and nobody serves: {availability:?}");
    }
    Ok(sum)
}

/// What all calls came to.
#[derive(Default)]
struct Tally {
    latencies: Histogram,
    errors: BTreeMap<String, u64>,
    slices: Vec<Slice>,
}

impl Tally {
    /// Takes everything in until nobody calls any more.
    async fn of(mut outcomes: mpsc::Receiver<Outcome>) -> Self {
        let mut tally = Self::default();
        while let Some(outcome) = outcomes.recv().await {
            tally.note(outcome);
        }
        tally
    }

    fn note(&mut self, outcome: Outcome) {
        let latency = outcome.ended_at.saturating_sub(outcome.meant_at);
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let ended = self.slice(outcome.ended_at);
        match outcome.error {
            None => {
                ended.done += 1;
                self.latencies.note(us);
            }
            Some(error) => {
                ended.failed += 1;
                *self.errors.entry(error).or_default() += 1;
            }
        }
        let meant = self.slice(outcome.meant_at);
        meant.worst_us = meant.worst_us.max(us);
    }

    fn slice(&mut self, at: Duration) -> &mut Slice {
        let index = (at.as_secs_f64() / SLICE_SECONDS) as usize;
        if self.slices.len() <= index {
            self.slices.resize(index + 1, Slice::default());
        }
        &mut self.slices[index]
    }
}

/// One connection: calls as they are due, one at a time.
struct Worker {
    sessions: Arc<[Session]>,
    /// The table of the rows.
    rows: String,
    rate: u64,
    start: Instant,
    end: Instant,
    /// The next call that nobody has taken yet.
    next: Arc<AtomicU64>,
    tell: mpsc::Sender<Outcome>,
}

impl Worker {
    async fn run(self) {
        sleep_until(self.start.into()).await;
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let meant = self.due(index);
            if meant >= self.end {
                return;
            }
            sleep_until(meant.into()).await;
            let row = (index % self.sessions.len() as u64) as usize;
            let arguments = json!({"table": self.rows, "key": row.to_string(), "by": 1});
            let called = self.sessions[row].call::<Value>(1006, &arguments).await;
            let outcome = Outcome {
                meant_at: meant.saturating_duration_since(self.start),
                ended_at: self.start.elapsed(),
                error: called.err().map(|error| name(&error)),
            };
            if self.tell.send(outcome).await.is_err() {
                return;
            }
        }
    }

    /// When the next call is meant to be sent.
    fn due(&self, index: u64) -> Instant {
        if self.rate == 0 {
            return Instant::now();
        }
        self.start + Duration::from_nanos(index.saturating_mul(1_000_000_000 / self.rate))
    }
}

/// Errors of a kind are counted together.
fn name(error: &Error) -> String {
    match error {
        Error::Refused { error_no, .. } => error_no.number().to_string(),
        Error::SessionOver => "session over".to_owned(),
        Error::OutcomeUnknown { .. } => "outcome unknown".to_owned(),
        Error::TimedOut { .. } => "timed out".to_owned(),
        Error::Configuration(_) | Error::Answer(_) | Error::UnknownTicket { .. } => {
            error.to_string()
        }
    }
}

/// Marks when a new epoch first answered.
async fn note_epochs(client: Client, start: Instant, marks: mpsc::Sender<Mark>) {
    let mut availability = client.availability();
    let mut known = None;
    loop {
        if let Availability::Serving { epoch } = *availability.borrow_and_update() {
            if known.is_some_and(|known| known != epoch) {
                let at_seconds = start.elapsed().as_secs_f64();
                let mark = Mark { at_seconds, text: format!("epoch {epoch}") };
                // Of too many the first ones are shown.
                let _ = marks.try_send(mark);
            }
            known = Some(epoch);
        }
        if availability.changed().await.is_err() {
            return;
        }
    }
}

const USER: &str = "bench";
const LIMIT: Duration = Duration::from_secs(60);
/// From the last login to the first call.
const BEGIN: Duration = Duration::from_millis(200);
const LOGINS_AT_ONCE: usize = 16;
const OUTCOMES_MAX: usize = 65_536;
const MARKS_MAX: usize = 64;
const OUTSTANDING_MAX: usize = 64;
