//! The datasets of this node: when each is loaded is decided in core; here it is done.
//!
//! One thread looks after all of them. It takes orders from the control thread, starts a thread for
//! each load, looks at the progress of running loads, and publishes what is loaded for lookups. A
//! lookup never waits for a lock that a load holds: what is published is swapped in whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use hotpair_core::pair::fact::Fact as PairFact;
use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::dataset::{
    Attempt, Availability, Dataset, DatasetState, Effect, Fact, LoadMode, Loading,
};
use hotpair_gateway::Found;
use hotpair_store::{CancelFlag, DatasetSpec, LoadedDataset, Progress};
use tokio::sync::mpsc;

use crate::boot_clock;

/// How often a running load is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What is kept of one dataset for everybody to look at.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) name: String,
    loaded: ArcSwapOption<LoadedDataset>,
    status: ArcSwap<(DatasetState, Availability, u64)>,
}

impl Shelf {
    /// The data, if it is here.
    pub(crate) fn loaded(&self) -> Option<Arc<LoadedDataset>> {
        self.loaded.load_full()
    }

    /// Where it stands, what a caller is told, and how many broken rows the last load left out.
    pub(crate) fn status(&self) -> Arc<(DatasetState, Availability, u64)> {
        self.status.load_full()
    }
}

/// The near end, for the control thread and for lookups.
#[derive(Clone, Debug)]
pub(crate) struct Datasets {
    shelves: Arc<Vec<Shelf>>,
    orders: SyncSender<Order>,
}

#[derive(Debug)]
enum Order {
    Promoted { epoch: Epoch },
    Demoted,
    Ended { index: usize, attempt: Attempt, result: Box<Result<LoadedDataset, String>> },
}

impl Datasets {
    /// Starts the thread; datasets that are preloaded begin at once.
    pub(crate) fn start(
        specs: Vec<(DatasetSpec, LoadMode)>,
        facts: mpsc::Sender<PairFact>,
    ) -> std::io::Result<Self> {
        let shelves = specs
            .iter()
            .map(|(spec, _)| Shelf {
                name: spec.name.clone(),
                loaded: ArcSwapOption::empty(),
                status: ArcSwap::from_pointee((DatasetState::Absent, Availability::Absent, 0)),
            })
            .collect();
        let shelves: Arc<Vec<Shelf>> = Arc::new(shelves);
        // Bounded: two kinds of orders from one thread, and one end for each load.
        let (orders, queue) = sync_channel(64);
        let keeper = Keeper {
            machines: specs.iter().map(|(_, mode)| Loading::new(*mode)).collect(),
            specs: specs.into_iter().map(|(spec, _)| Arc::new(spec)).collect(),
            running: BTreeMap::new(),
            fetched: BTreeMap::new(),
            shelves: shelves.clone(),
            ends: orders.clone(),
            facts,
            settling: None,
            told_failed: BTreeMap::new(),
        };
        std::thread::Builder::new()
            .name("datasets".to_owned())
            .spawn(move || keeper.run(&queue))?;
        Ok(Self { shelves, orders })
    }

    /// This node serves in this epoch: load what a master needs. Never waits.
    pub(crate) fn promoted(&self, epoch: Epoch) {
        self.order(Order::Promoted { epoch });
    }

    /// This node does not serve any more. Never waits.
    pub(crate) fn demoted(&self) {
        self.order(Order::Demoted);
    }

    /// All of them, in the order of the configuration.
    pub(crate) fn shelves(&self) -> &[Shelf] {
        &self.shelves
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::error!("the datasets' thread does not take orders; an order was dropped");
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
    machines: Vec<Loading>,
    running: BTreeMap<usize, Running>,
    /// Loaded, and waiting for the machine to say whether it is still wanted.
    fetched: BTreeMap<usize, (Attempt, LoadedDataset)>,
    shelves: Arc<Vec<Shelf>>,
    ends: SyncSender<Order>,
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
            match order {
                Some(Order::Promoted { epoch }) => {
                    self.settling = Some(epoch);
                    for index in 0..self.machines.len() {
                        self.tell(index, Fact::Promoted);
                    }
                }
                Some(Order::Demoted) => {
                    self.settling = None;
                    for index in 0..self.machines.len() {
                        self.tell(index, Fact::Demoted);
                    }
                }
                Some(Order::Ended { index, attempt, result }) => self.end(index, attempt, *result),
                None => {}
            }
            for index in 0..self.machines.len() {
                self.look_at_progress(index);
                self.tell(index, Fact::TimePassed);
            }
            self.report();
        }
    }

    fn wait(&self) -> Duration {
        if !self.running.is_empty() {
            return PROGRESS_INTERVAL;
        }
        let now = boot_clock::now().0;
        let next = self.machines.iter().filter_map(Loading::deadline_ms).min();
        next.map_or(Duration::from_secs(3_600), |at| Duration::from_millis(at.saturating_sub(now)))
    }

    fn tell(&mut self, index: usize, fact: Fact) {
        let now = boot_clock::now().0;
        for effect in self.machines[index].handle(fact, now) {
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
                        self.shelves[index].loaded.store(Some(Arc::new(data)));
                    }
                }
                Effect::Drop => self.shelves[index].loaded.store(None),
            }
        }
        let machine = &self.machines[index];
        let broken = self.running.get(&index).map_or_else(
            || self.shelves[index].status().2,
            |running| running.progress.snapshot().broken_rows,
        );
        let status = (machine.state().clone(), machine.availability(), broken);
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
        let ends = self.ends.clone();
        let load = move || {
            let result = hotpair_store::load(&spec, &progress, &cancel).map_err(|e| e.to_string());
            // The keeper lives as long as the process.
            let _ = ends.send(Order::Ended { index, attempt, result: Box::new(result) });
        };
        if let Err(error) = std::thread::Builder::new().name("load".to_owned()).spawn(load) {
            let result = Box::new(Err(format!("no thread to load with: {error}")));
            let _ = self.ends.try_send(Order::Ended { index, attempt, result });
        }
    }

    fn end(&mut self, index: usize, attempt: Attempt, result: Result<LoadedDataset, String>) {
        self.look_at_progress(index);
        let fact = match result {
            Ok(data) => {
                let rows = data.rows();
                self.fetched.insert(index, (attempt, data));
                Fact::Loaded { attempt, rows }
            }
            Err(reason) => Fact::LoadFailed { attempt, reason },
        };
        self.tell(index, fact);
        // What the machine did not want any more goes.
        self.fetched.remove(&index);
        if self.running.get(&index).is_some_and(|r| r.attempt == attempt) {
            self.running.remove(&index);
        }
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
        let states: Vec<_> = self.machines.iter().map(Loading::availability).collect();
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

impl hotpair_gateway::Datasets for Datasets {
    fn find(&self, name: &str) -> Option<Found> {
        let shelf = self.shelves.iter().find(|shelf| shelf.name == name)?;
        Some(match shelf.loaded() {
            Some(data) => Found::Ready(data),
            None => Found::NotReady(shelf.status().1.clone()),
        })
    }
}
