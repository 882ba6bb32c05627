//! A client that calls again and again and keeps a log that the [`crate::checker`] can judge.
//!
//! One call at a time, one every so often. A call that is refused, unanswered or cut off goes on to
//! the other node until one answers with success: a client of the pair, not of a node. So each
//! request ends in success, or in "unknown" when the patience runs out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::checker::{Outcome, Request};
use crate::node::Pair;
use crate::session::{Target, targets};

/// Nanoseconds of CLOCK_BOOTTIME, the clock of all logs that the checker reads.
#[must_use]
pub fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// What to call, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// From one call's beginning to the next one's.
    pub interval: Duration,
    /// How long one attempt at one node may take.
    pub attempt_limit: Duration,
    /// How long a request is tried before it is given up.
    pub patience: Duration,
    /// The body of `/v1/call`.
    pub call: Value,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(20),
            attempt_limit: Duration::from_millis(500),
            patience: Duration::from_secs(60),
            call: serde_json::json!({"function": 1901, "arguments": {"hello": 1}}),
        }
    }
}

/// A running client; dropped: told to stop, its log forgotten.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Request>>>,
}

impl Load {
    /// Starts to call the pair.
    #[must_use]
    pub fn start(pair: &Pair, plan: Plan) -> Self {
        Self::start_at(targets(pair, plan.attempt_limit), plan)
    }

    /// Starts to call these, one after the other; each has its own limit for an attempt.
    #[must_use]
    pub fn start_at(targets: Vec<Target>, plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut client = Client { targets, preferred: 0, plan };
            let mut log = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                log.push(client.request(log.len() as u64));
                thread::sleep(client.plan.interval.saturating_sub(began.elapsed()));
            }
            log
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops after the request under way; the log.
    pub fn stop(mut self) -> Result<Vec<Request>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped once only")?;
        thread.join().map_err(|_| anyhow!("the client panicked"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    targets: Vec<Target>,
    /// The one that answered last.
    preferred: usize,
    plan: Plan,
}

impl Client {
    fn request(&mut self, number: u64) -> Request {
        let began = Instant::now();
        let mut request = Request {
            at_ns: now_ns(),
            request: number,
            outcome: Some(Outcome::Unknown),
            ..Request::default()
        };
        while began.elapsed() < self.plan.patience {
            let target = &self.targets[self.preferred];
            let answer = target.http.post("/v1/call", &self.plan.call);
            target.codes.note(&answer);
            if let Ok(answer) = answer.and_then(|answer| answer.json())
                && answer["error_no"] == 0
            {
                request.done_ns = Some(now_ns());
                request.node.clone_from(&target.name);
                request.epoch = answer["epoch"].as_u64();
                request.error_no = Some(0);
                request.outcome = Some(Outcome::Ok);
                return request;
            }
            self.preferred = (self.preferred + 1) % self.targets.len();
            let long = began.elapsed() > SHORT_GAP;
            thread::sleep(if long { BETWEEN_LATER_ATTEMPTS } else { BETWEEN_ATTEMPTS });
        }
        request.done_ns = Some(now_ns());
        request
    }
}

/// Short, so that a gap is measured well.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(2);
/// Longer than any takeover: from here on a client that hammers would only be seen as the nodes' load.
const SHORT_GAP: Duration = Duration::from_secs(5);
const BETWEEN_LATER_ATTEMPTS: Duration = Duration::from_millis(100);
