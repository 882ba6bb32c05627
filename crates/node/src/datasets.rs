//! The datasets of this node: when each is loaded and followed is decided in core; here it is done.
//!
//! One thread looks after all of them. It sees what the control thread wants, starts a thread for
//! each load and each feed, looks at the progress of running loads, and publishes what is loaded for
//! lookups. A lookup never waits for a lock that a load holds: what is published is swapped in whole.
//! Updates of a feed do not come by here: the feed's thread brings them in.

mod feed;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use hotpair_core::pair::fact::Fact as PairFact;
use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::dataset::{
    AsOf, Attempt, Availability, Dataset, DatasetState, Effect, Fact, FeedEvent, FeedState,
    Following, LoadMode, Subscription,
};
use hotpair_feed::{FedDataset, FeedAddress, IntakeTotals};
use hotpair_gateway::{Found, Freshness};
use hotpair_store::{CancelFlag, DatasetSpec, LoadedDataset, Progress};
use tokio::sync::mpsc;

use self::feed::Feed;
use self::wanted::{Wanted, Wish};
use crate::boot_clock;

/// How often a running load is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// How often a feed's broken rows are looked at.
const FEED_INTERVAL: Duration = Duration::from_secs(1);

/// One dataset as the configuration has it.
#[derive(Clone, Debug)]
pub(crate) struct DatasetPlan {
    pub(crate) spec: DatasetSpec,
    pub(crate) mode: LoadMode,
    pub(crate) feed: Option<FeedAddress>,
}

/// What is in memory.
#[derive(Debug)]
struct Held {
    data: Arc<dyn Dataset>,
    /// The same, where it follows a feed.
    fed: Option<Arc<FedDataset>>,
    loaded_wall_ms: u64,
}

/// Where a dataset stands, for everybody to look at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) state: DatasetState,
    pub(crate) availability: Availability,
    /// Rows that the last load left out.
    pub(crate) broken: u64,
    pub(crate) feed: FeedState,
}

/// What is kept of one dataset for everybody to look at.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) name: String,
    held: ArcSwapOption<Held>,
    status: ArcSwap<Standing>,
    feed: Option<Arc<Feed>>,
}

impl Shelf {
    /// Where it stands.
    pub(crate) fn status(&self) -> Arc<Standing> {
        self.status.load_full()
    }

    /// How new the data is, if it is here.
    pub(crate) fn as_of(&self) -> Option<AsOf> {
        let held = self.held.load();
        let held = held.as_ref()?;
        Some(match &held.fed {
            Some(fed) => fed.as_of(),
            None => AsOf { version: None, wall_ms: held.loaded_wall_ms },
        })
    }

    /// What became of its feed's updates, if it has one. Never waits.
    pub(crate) fn updates(&self) -> Option<IntakeTotals> {
        Some(self.feed.as_ref()?.totals())
    }
}

/// The near end, for the control thread and for lookups.
#[derive(Clone, Debug)]
pub(crate) struct Datasets {
    shelves: Arc<Vec<Shelf>>,
    wanted: Arc<Wanted>,
    orders: SyncSender<Order>,
}

#[derive(Debug)]
enum Order {
    /// Something else is wanted: see there.
    Look,
    Ended {
        index: usize,
        attempt: Attempt,
        result: Box<Result<LoadedDataset, String>>,
    },
    Replayed {
        index: usize,
        attempt: Attempt,
        fed: Arc<FedDataset>,
        left_out: u64,
    },
    Fed {
        index: usize,
        subscription: Subscription,
        event: FeedEvent,
    },
}

impl Datasets {
    /// Starts the thread; datasets that are preloaded begin at once.
    pub(crate) fn start(
        plans: Vec<DatasetPlan>,
        facts: mpsc::Sender<PairFact>,
    ) -> std::io::Result<Self> {
        let machine = |plan: &DatasetPlan| Following::new(plan.mode, plan.feed.is_some());
        let machines: Vec<Following> = plans.iter().map(machine).collect();
        let shelf = |(plan, machine): (&DatasetPlan, &Following)| Shelf {
            name: plan.spec.name.clone(),
            held: ArcSwapOption::empty(),
            status: ArcSwap::from_pointee(Standing {
                state: DatasetState::Absent,
                availability: Availability::Absent,
                broken: 0,
                feed: machine.feed_state(),
            }),
            feed: plan.feed.clone().map(|at| Arc::new(Feed::new(at, plan.spec.key.clone()))),
        };
        let shelves = plans.iter().zip(&machines).map(shelf).collect();
        let shelves: Arc<Vec<Shelf>> = Arc::new(shelves);
        // Bounded: one end for each load, few events of feeds; who finds it full waits, but for control.
        let (orders, queue) = sync_channel(64);
        let wanted = Arc::<Wanted>::default();
        let keeper = Keeper {
            machines,
            specs: plans.into_iter().map(|plan| Arc::new(plan.spec)).collect(),
            running: BTreeMap::new(),
            fetched: BTreeMap::new(),
            shelves: shelves.clone(),
            ends: orders.clone(),
            wanted: wanted.clone(),
            seen: Wish::default(),
            facts,
            settling: None,
            told_failed: BTreeMap::new(),
        };
        std::thread::Builder::new()
            .name("datasets".to_owned())
            .spawn(move || keeper.run(&queue))?;
        Ok(Self { shelves, wanted, orders })
    }

    /// This node serves in this epoch: load what a master needs. Never waits.
    pub(crate) fn promoted(&self, epoch: Epoch) {
        self.wanted.promoted(epoch);
        self.wake();
    }

    /// This node does not serve any more. Never waits.
    pub(crate) fn demoted(&self) {
        self.wanted.demoted();
        self.wake();
    }

    /// All of them, in the order of the configuration.
    pub(crate) fn shelves(&self) -> &[Shelf] {
        &self.shelves
    }

    /// Where the queue is full the keeper is awake, and looks before each of its orders.
    fn wake(&self) {
        if let Err(TrySendError::Disconnected(_)) = self.orders.try_send(Order::Look) {
            tracing::error!("the datasets' thread is gone; none will be loaded or dropped");
        }
    }
}

struct Running {
    attempt: Attempt,
    since_ms: u64,
    progress: Arc<Progress>,
    cancel: Arc<CancelFlag>,
}

struct Keeper {
    specs: Vec<Arc<DatasetSpec>>,
    machines: Vec<Following>,
    running: BTreeMap<usize, Running>,
    /// Loaded, and waiting for the machine to say whether it is still wanted.
    fetched: BTreeMap<usize, (Attempt, Held)>,
    shelves: Arc<Vec<Shelf>>,
    ends: SyncSender<Order>,
    wanted: Arc<Wanted>,
    /// What was wanted when it was last looked.
    seen: Wish,
    facts: mpsc::Sender<PairFact>,
    /// The epoch whose promotion waits for its datasets.
    settling: Option<Epoch>,
    told_failed: BTreeMap<usize, String>,
}

impl Keeper {
    fn run(mut self, queue: &Receiver<Order>) {
        for index in 0..self.machines.len() {
            self.tell(index, Fact::NodeStarted);
        }
        loop {
            let order = match queue.recv_timeout(self.wait()) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.look_at_wish();
            match order {
                Some(Order::Ended { index, attempt, result }) => self.end(index, attempt, *result),
                Some(Order::Replayed { index, attempt, fed, left_out }) => {
                    self.replayed(index, attempt, fed, left_out);
                }
                Some(Order::Fed { index, subscription, event }) => {
                    let now = boot_clock::now().0;
                    let effects = self.machines[index].handle_feed(subscription, event, now);
                    self.carry_out(index, effects, now);
                }
                Some(Order::Look) | None => {}
            }
            for index in 0..self.machines.len() {
                self.look_at_progress(index);
                self.tell(index, Fact::TimePassed);
            }
            self.report();
        }
    }

    fn look_at_wish(&mut self) {
        let wish = self.wanted.now();
        let before = std::mem::replace(&mut self.seen, wish);
        if !wish.is_newer(&before) {
            return;
        }
        if wish.demoted_since(&before) {
            self.settling = None;
            self.tell_all(&Fact::Demoted);
        }
        if let Some(epoch) = wish.serving {
            self.settling = Some(epoch);
            self.tell_all(&Fact::Promoted);
        }
    }

    fn tell_all(&mut self, fact: &Fact) {
        for index in 0..self.machines.len() {
            self.tell(index, fact.clone());
        }
    }

    fn wait(&self) -> Duration {
        if !self.running.is_empty() {
            return PROGRESS_INTERVAL;
        }
        let now = boot_clock::now().0;
        let next = self.machines.iter().filter_map(Following::deadline_ms).min();
        let fed = self.shelves.iter().any(|shelf| shelf.feed.is_some());
        let longest = if fed { FEED_INTERVAL } else { Duration::from_secs(3_600) };
        next.map_or(longest, |at| Duration::from_millis(at.saturating_sub(now)).min(longest))
    }

    fn tell(&mut self, index: usize, fact: Fact) {
        let now = boot_clock::now().0;
        let effects = self.machines[index].handle(fact, now);
        self.carry_out(index, effects, now);
    }

    fn carry_out(&mut self, index: usize, effects: Vec<Effect>, now: u64) {
        let shelves = Arc::clone(&self.shelves);
        let feed = shelves[index].feed.as_ref();
        for effect in effects {
            match effect {
                Effect::StartLoad { attempt } => self.start_load(index, attempt, now),
                Effect::CancelLoad { attempt } => {
                    if let Some(running) = self.running.get(&index).filter(|r| r.attempt == attempt)
                    {
                        running.cancel.cancel();
                    }
                }
                Effect::Publish { attempt } => {
                    if let Some((_, data)) =
                        self.fetched.remove(&index).filter(|(of, _)| *of == attempt)
                    {
                        free_aside(self.shelves[index].held.swap(Some(Arc::new(data))));
                    }
                }
                Effect::Drop => free_aside(self.shelves[index].held.swap(None)),
                Effect::Replay { attempt } => self.start_replay(index, attempt),
                Effect::Forget => {
                    if let Some(feed) = feed {
                        feed.forget_kept();
                    }
                }
                Effect::Subscribe { subscription } => {
                    if let Some(feed) = feed {
                        feed.subscribe(index, subscription, &self.ends);
                    }
                }
                Effect::Unsubscribe { .. } => {
                    if let Some(feed) = feed {
                        feed.unsubscribe();
                    }
                }
            }
        }
        let machine = &self.machines[index];
        let broken = self.running.get(&index).map_or_else(
            || self.shelves[index].status().broken,
            |running| running.progress.snapshot().broken_rows,
        );
        let status = Standing {
            state: machine.state().clone(),
            availability: machine.availability(),
            broken,
            feed: machine.feed_state(),
        };
        feed::tell_of_change(&shelves[index].name, &shelves[index].status().feed, &status.feed);
        if *self.shelves[index].status() != status {
            self.shelves[index].status.store(Arc::new(status));
        }
    }

    fn start_load(&mut self, index: usize, attempt: Attempt, now: u64) {
        let running = Running {
            attempt,
            since_ms: now,
            progress: Arc::new(Progress::new()),
            cancel: Arc::new(CancelFlag::new()),
        };
        let (spec, progress, cancel) =
            (self.specs[index].clone(), running.progress.clone(), running.cancel.clone());
        self.running.insert(index, running);
        if let Some(feed) = &self.shelves[index].feed {
            feed.keep_beside();
        }
        let ends = self.ends.clone();
        let load = move || {
            let result = hotpair_store::load(&spec, &progress, &cancel).map_err(|e| e.to_string());
            // The keeper lives as long as the process.
            let _ = ends.send(Order::Ended { index, attempt, result: Box::new(result) });
        };
        if let Err(error) = std::thread::Builder::new().name("load".to_owned()).spawn(load) {
            let reason = format!("no thread to load with: {error}");
            self.running.remove(&index);
            self.tell(index, Fact::LoadFailed { attempt, reason });
        }
    }

    fn end(&mut self, index: usize, attempt: Attempt, result: Result<LoadedDataset, String>) {
        self.look_at_progress(index);
        let fact = match result {
            Ok(data) => {
                let rows = data.rows();
                let since_ms = self.running.get(&index).map_or(0, |running| running.since_ms);
                let ago = boot_clock::now().0.saturating_sub(since_ms);
                let loaded_wall_ms = boot_clock::wall_ms().saturating_sub(ago);
                let held = Held { data: Arc::new(data), fed: None, loaded_wall_ms };
                self.fetched.insert(index, (attempt, held));
                Fact::Loaded { attempt, rows }
            }
            Err(reason) => Fact::LoadFailed { attempt, reason },
        };
        self.tell(index, fact);
        // What the machine did not want any more goes.
        free_aside(self.fetched.remove(&index));
        if self.running.get(&index).is_some_and(|r| r.attempt == attempt) {
            self.running.remove(&index);
        }
    }

    /// On a thread of its own: it may be much, and other datasets are waiting.
    fn start_replay(&mut self, index: usize, of: Attempt) {
        let Some((_, held)) = self.fetched.remove(&index).filter(|(attempt, _)| *attempt == of)
        else {
            return;
        };
        let Some(feed) = self.shelves[index].feed.clone() else { return };
        let (ends, generation) = (self.ends.clone(), feed.generation());
        let replay = move || {
            let replayed = feed.replay(held.data, held.loaded_wall_ms, generation);
            let Some((fed, left_out)) = replayed else { return };
            // The keeper lives as long as the process.
            let _ = ends.send(Order::Replayed { index, attempt: of, fed, left_out });
        };
        if let Err(error) = std::thread::Builder::new().name("replay".to_owned()).spawn(replay) {
            let reason = format!("no thread to bring updates in with: {error}");
            self.tell(index, Fact::LoadFailed { attempt: of, reason });
        }
    }

    fn replayed(&mut self, index: usize, attempt: Attempt, fed: Arc<FedDataset>, left_out: u64) {
        let shelves = Arc::clone(&self.shelves);
        let now = boot_clock::now().0;
        if left_out > 0
            && let Some(subscription) = shelves[index].feed.as_ref().and_then(|f| f.subscription())
        {
            let reason = format!("{left_out} updates were left out while it was loaded");
            let event = FeedEvent::Missed { reason };
            let effects = self.machines[index].handle_feed(subscription, event, now);
            self.carry_out(index, effects, now);
        }
        let data = Arc::clone(&fed) as Arc<dyn Dataset>;
        let loaded_wall_ms = fed.as_of().wall_ms;
        self.fetched.insert(index, (attempt, Held { data, fed: Some(fed), loaded_wall_ms }));
        let effects = self.machines[index].handle_replayed(attempt, now);
        self.carry_out(index, effects, now);
        // What the machine did not want any more goes.
        free_aside(self.fetched.remove(&index));
    }

    fn look_at_progress(&mut self, index: usize) {
        let Some(running) = self.running.get(&index) else { return };
        let seen = running.progress.snapshot();
        let ms = boot_clock::now().0.saturating_sub(running.since_ms).max(1);
        let fact = Fact::Progressed {
            attempt: running.attempt,
            rows: seen.rows,
            percent: seen.percent(),
            rows_per_second: seen.rows * 1_000 / ms,
        };
        self.tell(index, fact);
    }

    /// Tells the pair what became of the datasets: failures as they come and go, and once for each
    /// promotion that none is on its way for the first time any more.
    fn report(&mut self) {
        for shelf in self.shelves.iter() {
            if let Some(feed) = &shelf.feed {
                feed.complain(&shelf.name);
            }
        }
        for (index, machine) in self.machines.iter().enumerate() {
            let failure = machine.last_failure().map(str::to_owned);
            if failure.as_ref() != self.told_failed.get(&index) {
                let name = self.shelves[index].name.clone();
                let fact = PairFact::DatasetFailed { name, reason: failure.clone() };
                if self.facts.blocking_send(fact).is_err() {
                    return;
                }
                match failure {
                    Some(failure) => self.told_failed.insert(index, failure),
                    None => self.told_failed.remove(&index),
                };
            }
        }
        let Some(epoch) = self.settling else { return };
        let states: Vec<_> = self.machines.iter().map(Following::availability).collect();
        let underway = |a: &Availability| {
            matches!(a, Availability::StillLoading { .. } | Availability::Absent)
        };
        let first_try = self
            .machines
            .iter()
            .zip(&states)
            .any(|(machine, state)| underway(state) && machine.failures() == 0);
        if !first_try {
            self.settling = None;
            let failed = states.iter().filter(|a| !matches!(a, Availability::Ready)).count();
            let failed = u32::try_from(failed).unwrap_or(u32::MAX);
            let _ = self.facts.blocking_send(PairFact::DatasetsSettled { epoch, failed });
        }
    }
}

/// Millions of rows take their time to be freed, and the keeper has others to look after.
fn free_aside<T: Send + 'static>(much: Option<T>) {
    let Some(much) = much else { return };
    let freeing = std::thread::Builder::new().name("free".to_owned()).spawn(move || drop(much));
    // No thread to be had: whoever tried has freed it.
    drop(freeing);
}

impl hotpair_gateway::Datasets for Datasets {
    fn find(&self, name: &str) -> Option<Found> {
        let shelf = self.shelves.iter().find(|shelf| shelf.name == name)?;
        Some(match &*shelf.held.load() {
            Some(held) => Found::Ready(Arc::clone(&held.data)),
            None => Found::NotReady(shelf.status().availability.clone()),
        })
    }

    fn freshness(&self, name: &str) -> Option<Freshness> {
        let shelf = self.shelves.iter().find(|shelf| shelf.name == name)?;
        Some(Freshness { as_of: shelf.as_of()?, feed: shelf.status().feed.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keeper is held up, its queue is full: what control says then comes through all the same.
    #[tokio::test]
    async fn a_promotion_is_not_lost_where_the_queue_is_full() {
        let spec = DatasetSpec {
            name: "positions".to_owned(),
            source: "file:///nowhere/positions.csv".parse().unwrap(),
            key: vec!["account".to_owned()],
            columns: BTreeMap::new(),
            broken_rows_max: 0,
            unpivot: None,
        };
        let plan = DatasetPlan { spec, mode: LoadMode::Preload, feed: None };
        // Nobody hears that the load failed, and the keeper waits until somebody does.
        let (facts, mut heard) = mpsc::channel(1);
        facts
            .try_send(PairFact::DatasetFailed { name: "another".to_owned(), reason: None })
            .unwrap();
        let datasets = Datasets::start(vec![plan], facts).unwrap();
        let event =
            || Order::Fed { index: 0, subscription: Subscription(1), event: FeedEvent::Heard };
        let mut full_in_a_row = 0;
        while full_in_a_row < 100 {
            match datasets.orders.try_send(event()) {
                Ok(()) => full_in_a_row = 0,
                Err(_) => full_in_a_row += 1,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        datasets.promoted(Epoch(6));
        datasets.demoted();
        datasets.promoted(Epoch(7));
        loop {
            let fact = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await;
            let fact = fact.expect("the promotion is heard of").unwrap();
            if matches!(fact, PairFact::DatasetsSettled { epoch: Epoch(7), failed: 1 }) {
                return;
            }
        }
    }

    #[test]
    fn who_looks_late_sees_the_last_that_was_wanted_and_a_demotion_before_it() {
        let wanted = Wanted::default();
        let before = wanted.now();
        assert!(!wanted.now().is_newer(&before));
        wanted.promoted(Epoch(3));
        let first = wanted.now();
        assert!(first.is_newer(&before) && !first.demoted_since(&before));
        assert_eq!(first.serving, Some(Epoch(3)));
        wanted.demoted();
        wanted.promoted(Epoch(3));
        let second = wanted.now();
        assert!(second.is_newer(&first) && second.demoted_since(&first));
        assert_eq!(second.serving, Some(Epoch(3)));
        wanted.demoted();
        assert_eq!(wanted.now().serving, None);
    }
}
