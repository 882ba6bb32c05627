//! One service: a task that tells its machine what happens and does what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hotpair_core::pair::Moment;
use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::governed::{
    Change, Choice, Effect, Fact, Governed, GovernedSettings, Health, Members, OrderRefused, Side,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};

use crate::check::Check;
use crate::front::{Front, State};

/// What a service is governed by.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// What it is called.
    pub name: String,
    /// The members as configured.
    pub members: Members,
    /// How they are checked.
    pub check: Check,
    /// How often, and how long a check may take.
    pub interval: Duration,
    /// The port in front of it.
    pub proxy: Option<SocketAddr>,
}

/// The writing of a row, under way.
pub type Writing = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Rows by service that both nodes have; kept by whoever starts the governor.
///
/// A row that was written in an epoch must be the one that is read in every later epoch, on either
/// node, until another one is written. Reading answers at once.
pub trait Records: Send + Sync + fmt::Debug + 'static {
    /// The newest row of a service, as far as this node has it.
    fn row(&self, service: &str) -> Option<Vec<u8>>;

    /// Writes a row. Ends once it is acknowledged, or with why it was not written; in an epoch that
    /// is over it must not be written.
    fn write(&self, epoch: Epoch, service: &str, row: Vec<u8>) -> Writing;
}

/// An order on its way to the task.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) change: Change,
    pub(crate) answer: oneshot::Sender<Result<Choice, OrderRefused>>,
}

/// A service as others see it.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) settings: ServiceSettings,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) front: Option<Arc<State>>,
    governed: Arc<Mutex<Governed>>,
    started: Instant,
}

impl Service {
    /// Starts its task.
    pub(crate) fn start(
        settings: ServiceSettings,
        serving: watch::Receiver<Option<Epoch>>,
        records: Arc<dyn Records>,
    ) -> Self {
        let started = Instant::now();
        let interval_ms = u64::try_from(settings.interval.as_millis()).unwrap_or(u64::MAX);
        let governed_settings = GovernedSettings { members: settings.members.clone(), interval_ms };
        let governed = Arc::new(Mutex::new(Governed::new(Moment(0), governed_settings)));
        let front = settings.proxy.map(Front::start);
        let front_state = front.as_ref().map(Front::state);
        let (orders, arriving) = mpsc::channel(ORDERS_MAX);
        let facts = mpsc::channel(FACTS_MAX);
        let task = Task {
            settings: settings.clone(),
            governed: Arc::clone(&governed),
            started,
            serving,
            epoch: None,
            writing: 0,
            records,
            facts: facts.0,
            waiting: BTreeMap::new(),
            orders_taken: 0,
            front,
        };
        tokio::spawn(task.run(facts.1, arriving));
        Self { settings, orders, front: front_state, governed, started }
    }

    /// The machine, to be looked at for a moment; what it says of times is in milliseconds of
    /// [`now`](Self::now).
    pub(crate) fn governed(&self) -> MutexGuard<'_, Governed> {
        self.governed.lock().expect("whoever panics with the machine ends the process")
    }

    pub(crate) fn now(&self) -> Moment {
        since(self.started)
    }
}

/// Checks need no clock that counts suspend: nobody is judged by it.
fn since(started: Instant) -> Moment {
    Moment(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))
}

struct Task {
    settings: ServiceSettings,
    governed: Arc<Mutex<Governed>>,
    started: Instant,
    serving: watch::Receiver<Option<Epoch>>,
    /// The one that the machine was told of.
    epoch: Option<Epoch>,
    /// Rows that are being written.
    writing: u32,
    records: Arc<dyn Records>,
    facts: mpsc::Sender<Fact>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Choice, OrderRefused>>>,
    orders_taken: u64,
    front: Option<Front>,
}

impl Task {
    async fn run(mut self, mut facts: mpsc::Receiver<Fact>, mut orders: mpsc::Receiver<Order>) {
        self.look_whether_serving();
        loop {
            let due = self.machine().deadline();
            let due = async {
                match due {
                    Some(moment) => {
                        sleep_until((self.started + Duration::from_millis(moment.0)).into()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.serving.changed() => match changed {
                    Ok(()) => self.look_whether_serving(),
                    Err(_) => return,
                },
                Some(fact) = facts.recv() => self.hear(fact),
                order = orders.recv() => match order {
                    Some(order) => self.take_order(order),
                    None => return,
                },
                () = due => self.turn(|governed, now, fx| governed.handle_timeout(now, fx)),
            }
        }
    }

    /// A row on its way when the gate closed may still be written: what is recorded is known, and
    /// begun with, only after its end.
    fn look_whether_serving(&mut self) {
        let serving = *self.serving.borrow_and_update();
        if self.epoch.is_some() && serving != self.epoch {
            self.epoch = None;
            self.tell(Fact::MastershipEnded);
        }
        if serving.is_some() && self.epoch.is_none() && self.writing == 0 {
            self.epoch = serving;
            let recorded = self.recorded();
            self.tell(Fact::MastershipBegan { recorded });
        }
    }

    fn hear(&mut self, fact: Fact) {
        if matches!(fact, Fact::Recorded { .. } | Fact::NotRecorded { .. }) {
            self.writing -= 1;
        }
        self.tell(fact);
        self.look_whether_serving();
    }

    /// What the row says; one that cannot be read is as good as none, and said.
    fn recorded(&self) -> Option<Choice> {
        let row = self.records.row(&self.settings.name)?;
        match Choice::resumed(&row, &self.settings.members) {
            Ok(choice) => Some(choice),
            Err(error) => {
                tracing::error!(service = self.settings.name, "its row cannot be used: {error}");
                None
            }
        }
    }

    fn take_order(&mut self, order: Order) {
        self.orders_taken += 1;
        let number = self.orders_taken;
        self.waiting.insert(number, order.answer);
        self.tell(Fact::Ordered { order: number, change: order.change });
    }

    fn tell(&mut self, fact: Fact) {
        self.turn(|governed, now, fx| governed.handle(now, fact, fx));
    }

    fn machine(&self) -> MutexGuard<'_, Governed> {
        self.governed.lock().expect("whoever panics with the machine ends the process")
    }

    fn turn(&mut self, turn: impl FnOnce(&mut Governed, Moment, &mut Vec<Effect>)) {
        let mut fx = Vec::new();
        {
            let mut governed = self.machine();
            let before = Picture::of(&governed);
            turn(&mut governed, since(self.started), &mut fx);
            log(&self.settings.name, &before, &governed);
        }
        for effect in fx {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Check { check, address } => {
                let (how, limit) = (self.settings.check, self.settings.interval);
                let facts = self.facts.clone();
                tokio::spawn(async move {
                    let fact = match how.ask(&address, limit).await {
                        Ok(()) => Fact::CheckPassed { check },
                        Err(why) => Fact::CheckFailed { check, why },
                    };
                    // Too late for the machine, it is not heard any more; nor is it waited with.
                    let _ = timeout(limit, facts.send(fact)).await;
                });
            }
            Effect::Record { record, choice } => self.record(record, &choice),
            Effect::Route { to } => {
                if let Some(front) = &mut self.front {
                    front.lead(to);
                }
            }
            Effect::Answer { order, outcome } => {
                if let Some(answer) = self.waiting.remove(&order) {
                    // Whoever ordered may have gone.
                    let _ = answer.send(outcome);
                }
            }
        }
    }

    fn record(&mut self, record: u64, choice: &Choice) {
        self.writing += 1;
        let epoch = self.epoch.expect("only who serves decides");
        let row = choice.encode(&self.settings.members);
        let writing = self.records.write(epoch, &self.settings.name, row);
        let facts = self.facts.clone();
        tokio::spawn(async move {
            let fact = match writing.await {
                Ok(()) => Fact::Recorded { record },
                Err(why) => Fact::NotRecorded { record, why },
            };
            // The task that waits for it is gone: the process ends.
            let _ = facts.send(fact).await;
        });
    }
}

/// What is compared to see what is worth a line of the log.
struct Picture {
    active: Option<String>,
    health: [Health; 2],
}

impl Picture {
    fn of(governed: &Governed) -> Self {
        Self {
            active: governed.choice().active_address().map(ToString::to_string),
            health: SIDES.map(|side| governed.member(side).health),
        }
    }
}

fn log(service: &str, before: &Picture, governed: &Governed) {
    let after = Picture::of(governed);
    for (side, (before, after)) in SIDES.into_iter().zip(before.health.iter().zip(after.health)) {
        let address = governed.choice().members.at(side);
        match after {
            Health::Down if *before != after => {
                let why = governed.member(side).why.as_deref().unwrap_or_default();
                tracing::warn!(service, member = %side, %address, "a member is down: {why}");
            }
            Health::Up if *before != after => {
                tracing::info!(service, member = %side, %address, "a member is up");
            }
            Health::Unknown | Health::Up | Health::Down => {}
        }
    }
    if before.active != after.active {
        let active = after.active.as_deref().unwrap_or("none");
        tracing::info!(service, active, "another member is active: {}", governed.why());
    }
}

const SIDES: [Side; 2] = [Side::Primary, Side::Standby];
/// Orders that wait for the task.
const ORDERS_MAX: usize = 16;
/// Facts that wait for the task: two checks and a record under way, and late ones.
const FACTS_MAX: usize = 16;
