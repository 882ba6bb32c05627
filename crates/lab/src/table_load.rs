//! Clients that use the tables in every way at once, so that [`crate::checker::tables`] can judge them.
//!
//! Each client has one session and a counter, which all its threads add to; each thread has a register
//! of its own; some counters are everybody's. Everybody looks at everything, and watchers do nothing
//! else: they look on while everybody else waits for an answer. Now and then a client sends a number
//! before the one it reserved earlier, or a request twice, at the same time or later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::checker::tables::Operation;
use crate::checker::{Outcome, Request};
use crate::dice::Dice;
use crate::request_log::RequestLog;
use crate::session::{Patience, Session, Target, User};

/// How many clients, and how busy.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Sessions.
    pub clients: usize,
    /// Threads of each client, so requests that are open at a time.
    pub threads: usize,
    /// Threads that only look.
    pub watchers: usize,
    /// The longest pause after a request.
    pub pause_ms_max: u64,
    /// What the clients do is drawn from it.
    pub seed: u64,
    /// Who logs in.
    pub user: User,
}

/// Running clients; dropped: told to stop, as they are.
#[derive(Debug)]
pub struct TableLoad {
    sessions: Vec<Arc<Session>>,
    threads: Vec<JoinHandle<()>>,
    rows: Arc<Rows>,
    stop: Arc<AtomicBool>,
    patience: Arc<Patience>,
    log: Arc<RequestLog>,
    acknowledged: Arc<AtomicU64>,
}

/// The names of all rows.
#[derive(Debug)]
struct Rows {
    counters: Vec<String>,
    shared: Vec<String>,
    /// By client and thread.
    registers: Vec<Vec<String>>,
    all: Vec<String>,
}

impl Rows {
    fn of(plan: &Plan) -> Self {
        let counters: Vec<String> =
            (0..plan.clients).map(|c| format!("load/counter-{c}")).collect();
        let shared: Vec<String> = (0..SHARED).map(|n| format!("load/shared-{n}")).collect();
        let of_client =
            |c: usize| (0..plan.threads).map(|t| format!("load/register-{c}-{t}")).collect();
        let registers: Vec<Vec<String>> = (0..plan.clients).map(of_client).collect();
        let all = [counters.clone(), shared.clone(), registers.concat()].concat();
        Self { counters, shared, registers, all }
    }
}

impl TableLoad {
    /// Logs all clients in and starts them.
    pub fn start(targets: &[Target], plan: &Plan, log: &Arc<RequestLog>) -> Result<Self> {
        let patience = Arc::new(Patience::default());
        patience.ends_in(LOGIN_LIMIT);
        let login = |client: usize| {
            let (targets, log, patience) =
                (targets.to_vec(), Arc::clone(log), Arc::clone(&patience));
            Session::login(&format!("client-{client}"), &plan.user, targets, log, patience)
                .map(Arc::new)
        };
        // All at once: each password costs the server some work on purpose.
        let sessions: Vec<Result<Arc<Session>>> = thread::scope(|scope| {
            let logins: Vec<_> = (0..plan.clients).map(|c| scope.spawn(move || login(c))).collect();
            logins.into_iter().map(|login| joined(login.join())?).collect()
        });
        let sessions: Vec<Arc<Session>> = sessions.into_iter().collect::<Result<_>>()?;
        patience.ends_in(RUN_LIMIT);
        let mut load = Self {
            sessions,
            threads: Vec::new(),
            rows: Arc::new(Rows::of(plan)),
            stop: Arc::default(),
            patience,
            log: Arc::clone(log),
            acknowledged: Arc::default(),
        };
        load.start_threads(plan, targets.len());
        Ok(load)
    }

    fn start_threads(&mut self, plan: &Plan, targets: usize) {
        let mut dice = Dice::new(plan.seed);
        for (client, session) in self.sessions.iter().enumerate() {
            for thread in 0..plan.threads {
                let mut caller = Caller {
                    session: Arc::clone(session),
                    rows: Arc::clone(&self.rows),
                    counter: self.rows.counters[client].clone(),
                    register: Register::new(&self.rows.registers[client][thread]),
                    targets,
                    dice: Dice::new(dice.number()),
                    acknowledged: Arc::clone(&self.acknowledged),
                };
                let (stop, pause_ms_max) = (Arc::clone(&self.stop), plan.pause_ms_max);
                self.threads.push(thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) && caller.step() {
                        thread::sleep(caller.dice.between_ms(0, pause_ms_max));
                    }
                }));
            }
        }
        for session in self.sessions.iter().cycle().take(plan.watchers) {
            let (session, rows) = (Arc::clone(session), Arc::clone(&self.rows));
            let (stop, mut dice) = (Arc::clone(&self.stop), Dice::new(dice.number()));
            let pause_ms_max = plan.pause_ms_max;
            self.threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && look_at_any(&session, &rows, &mut dice) {
                    thread::sleep(dice.between_ms(0, pause_ms_max));
                }
            }));
        }
    }

    /// How many changes were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Lets every request under way find its end within the limit, looks at every row for the last
    /// time, and asks every session whether it lives; the whole log.
    pub fn stop(mut self, limit: Duration) -> Result<Vec<Request>> {
        self.stop.store(true, Ordering::Relaxed);
        self.patience.ends_in(limit);
        for thread in self.threads.drain(..) {
            joined(thread.join())?;
        }
        self.patience.ends_in(limit);
        let last = self.sessions.iter().cycle();
        for (row, session) in self.rows.all.iter().zip(last) {
            // One that fails is the checker's to complain of: it knows why the row matters.
            session.look(row, true);
        }
        for session in &self.sessions {
            session.heartbeat();
        }
        self.log.read()
    }
}

impl Drop for TableLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.patience.ends_in(Duration::ZERO);
    }
}

fn joined<T>(ended: thread::Result<T>) -> Result<T> {
    ended.map_err(|_| anyhow!("a client panicked"))
}

/// A register and what its only writer knows of it.
struct Register {
    row: String,
    puts: u64,
    /// Known from the last put.
    version: Option<u64>,
}

impl Register {
    fn new(row: &str) -> Self {
        Self { row: row.to_owned(), puts: 0, version: Some(0) }
    }
}

/// One thread of one client.
struct Caller {
    session: Arc<Session>,
    rows: Arc<Rows>,
    counter: String,
    register: Register,
    targets: usize,
    dice: Dice,
    acknowledged: Arc<AtomicU64>,
}

impl Caller {
    /// One thing to do; whether to go on.
    fn step(&mut self) -> bool {
        match self.dice.below(100) {
            0..30 => self.change(&Operation::Add { row: self.counter.clone() }),
            30..40 => self.change(&self.add_to_shared()),
            40..55 => self.put(),
            55..60 => self.out_of_order(),
            60..68 => self.twice_at_once(),
            68..73 => self.once_more_later(),
            _ => look_at_any(&self.session, &self.rows, &mut self.dice),
        }
    }

    fn add_to_shared(&self) -> Operation {
        Operation::Add { row: self.dice.clone().one_of(&self.rows.shared).clone() }
    }

    fn change(&mut self, operation: &Operation) -> bool {
        let Some(number) = self.session.reserve() else { return false };
        let request = self.session.call(number, operation);
        self.note(number, &request)
    }

    /// Whether it ended well. What has its answer need not be kept any more.
    fn note(&self, number: u64, request: &Request) -> bool {
        if request.outcome != Some(Outcome::Unknown) {
            self.session.forget(number);
        }
        let done = request.outcome == Some(Outcome::Ok);
        self.acknowledged.fetch_add(u64::from(done), Ordering::Relaxed);
        done
    }

    fn put(&mut self) -> bool {
        let Some(number) = self.session.reserve() else { return false };
        let register = &mut self.register;
        register.puts += 1;
        let (row, value) = (register.row.clone(), format!("{}:{}", register.row, register.puts));
        let operation = match register.version {
            Some(version) if self.dice.percent(50) => {
                Operation::CompareAndPut { row, value, version }
            }
            Some(_) | None => Operation::Put { row, value },
        };
        let request = self.session.call(number, &operation);
        register.version = request.answer.as_ref().and_then(|answer| answer.version);
        self.note(number, &request)
    }

    /// Two numbers, the later one first.
    fn out_of_order(&mut self) -> bool {
        let Some(first) = self.session.reserve() else { return false };
        let second = self.session.reserve();
        let later = second.is_none_or(|second| {
            let request = self.session.call(second, &self.add_to_shared());
            self.note(second, &request)
        });
        let operation = Operation::Add { row: self.counter.clone() };
        let request = self.session.call(first, &operation);
        self.note(first, &request) && later
    }

    /// The same request on two connections.
    fn twice_at_once(&mut self) -> bool {
        let Some(number) = self.session.reserve() else { return false };
        let operation = Operation::Add { row: self.counter.clone() };
        let target = self.any_target();
        let request = thread::scope(|scope| {
            scope.spawn(|| self.session.call_copy(number, &operation, target, 1));
            self.session.call(number, &operation)
        });
        self.note(number, &request)
    }

    /// A request sent again by somebody who had the answer, at either node.
    fn once_more_later(&mut self) -> bool {
        let Some(number) = self.session.reserve() else { return false };
        let operation = self.add_to_shared();
        let request = self.session.call(number, &operation);
        for copy in 1..=2 {
            thread::sleep(self.dice.between_ms(0, 50));
            let target = self.any_target();
            self.session.call_copy(number, &operation, target, copy);
        }
        self.note(number, &request)
    }

    fn any_target(&mut self) -> usize {
        usize::try_from(self.dice.below(self.targets as u64)).expect("few targets")
    }
}

fn look_at_any(session: &Session, rows: &Rows, dice: &mut Dice) -> bool {
    session.look(dice.one_of::<String>(&rows.all), false).outcome == Some(Outcome::Ok)
}

const SHARED: usize = 3;
/// Every password costs the server some work on purpose, and a start may be slow.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// Longer than any run.
const RUN_LIMIT: Duration = Duration::from_secs(3_600);
