//! The thread that writes behind: it asks core's machine what is next, and does it.
//!
//! It reads the log's files and the store for itself: nobody who commits knows that it exists. Whatever
//! it waits for, it looks up several times a second, to show how far it is and to leave what it has no
//! right to any more: dropping a connection takes back what was not committed.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use hotpair_core::pair::moment::Moment;
use hotpair_core::tables::behind::{Behind, Failure, Mark, Sink as Kind, Step, Term, Told};
use hotpair_core::tables::coalesced::Coalesced;
use hotpair_core::tables::record::Decoder;
use hotpair_core::tables::snapshot::{Cursor, Piece};
use hotpair_core::tables::store::Store;
use tokio::sync::watch;

use crate::mapping::Mapping;
use crate::prepared::Prepared;
use crate::sink::{Sink, Writer};
use crate::target::Target;

/// With nothing to write, it looks again after so long; what comes meanwhile is one transaction.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it looks up while it waits for the database.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A database that takes so long for one step is given up: told it was long before.
const STEP_WITHIN_MS: u64 = 60_000;
/// The same for emptying it and for committing a copy, which take as long as there are rows.
const LONG_STEP_WITHIN_MS: u64 = 3_600_000;
/// Nothing has to stay in the log.
const NOTHING: u64 = u64::MAX;
/// A step whose right is gone may end within so many looks: it was begun with right, what it writes was
/// acknowledged, and whether it still may the fence decides, not this thread.
const LOOKS_BEFORE_LEAVING: u32 = 5;
/// Below everything that clients wait for, where there are processors to choose from.
const NICE: i32 = 5;

/// A place where a test may have the process stand still; the product does nothing there.
pub type Probe = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Reads the log while it is written.
pub trait Log: Send {
    /// Whole records after this one, none beyond `up_to`, which is in the log; at least one.
    ///
    /// # Errors
    /// When the log does not go back that far, or cannot be read.
    fn read(&mut self, after: u64, up_to: u64) -> Result<Vec<u8>, LogFault>;

    /// Its files were cut or replaced.
    fn forget(&mut self);
}

/// Why the log was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFault {
    /// It does not go back that far.
    Gone,
    /// Anything else.
    Failed(String),
}

/// What the thread is given.
#[expect(missing_debug_implementations, reason = "it holds what has none, for a moment")]
pub struct Parts {
    /// Where to.
    pub target: Target,
    /// Which tables have columns.
    pub mappings: Vec<Mapping>,
    /// The pair's name.
    pub pair: String,
    /// This node's name.
    pub node: String,
    /// This node's data directory.
    pub instance: String,
    /// What the tables say of themselves; the thread ends with its sender.
    pub told: watch::Receiver<Arc<Told>>,
    /// What readers see.
    pub store: Arc<RwLock<Store>>,
    /// The log.
    pub log: Box<dyn Log>,
    /// The last record that can be read from it; what is told is at least as new.
    pub head: Arc<AtomicU64>,
    /// What is shown.
    pub shown: Arc<Shown>,
    /// Tells an operator's trouble, or its end; false: later again.
    pub tell: Box<dyn Fn(Option<String>) -> bool + Send>,
    /// The node's clock.
    pub clock: fn() -> Moment,
    /// For tests.
    pub probe: Probe,
}

/// What is shown of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// `sqlite` or `postgres`.
    pub kind: &'static str,
    /// Where it is, without a password.
    pub place: String,
    /// `idle` (it is not this node's to write), `closed`, `writing`, `copying`, `current`.
    pub state: &'static str,
    /// Epoch and number of the last record in it, as far as is known.
    pub mark: Option<(u64, u64)>,
    /// Records that are acknowledged and not in it; none while this node does not write.
    pub lag_records: Option<u64>,
    /// Rows that do not fit their columns.
    pub quarantined: u64,
    /// What failed last, if nothing went well since.
    pub error: Option<String>,
}

/// What others look at, without a lock.
#[derive(Debug)]
pub struct Shown {
    figures: ArcSwap<Figures>,
    needs: AtomicU64,
}

impl Shown {
    /// Before anything is known.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        let figures = Figures {
            kind: target.kind(),
            place: target.to_string(),
            state: "idle",
            ..Figures::default()
        };
        Self { figures: ArcSwap::from_pointee(figures), needs: AtomicU64::new(NOTHING) }
    }

    /// The newest figures.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.load_full()
    }

    /// The first record that is still to be read; `u64::MAX`: none.
    #[must_use]
    pub fn needs(&self) -> u64 {
        self.needs.load(Ordering::Acquire)
    }
}

/// Starts the thread.
///
/// # Errors
/// When it cannot be started.
pub fn start(parts: Parts) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("store".to_owned()).spawn(move || {
        // Where it is allowed to be humble.
        let _ = rustix::process::setpriority_process(None, NICE);
        runtime.block_on(Worker::new(parts).run());
    })?;
    Ok(())
}

/// What decides and is shown.
struct Outlook {
    behind: Behind,
    told: watch::Receiver<Arc<Told>>,
    store: Arc<RwLock<Store>>,
    head: Arc<AtomicU64>,
    shown: Arc<Shown>,
    tell: Box<dyn Fn(Option<String>) -> bool + Send>,
    /// What was told last.
    said: Option<String>,
    clock: fn() -> Moment,
    copying: bool,
    kind: &'static str,
    place: String,
}

/// Why a step was left.
enum Left {
    /// The tables' thread is gone.
    Ended,
    /// The right to write is.
    Rightless,
}

struct Worker {
    outlook: Outlook,
    hands: Hands,
}

/// What does it.
struct Hands {
    target: Target,
    mappings: Vec<Mapping>,
    writer: Writer,
    log: Box<dyn Log>,
    decoder: Decoder,
    probe: Probe,
    store: Arc<RwLock<Store>>,
    sink: Option<Sink>,
    generation: u64,
    /// A row was refused for what is in it: the next time rows are written carefully.
    careful: bool,
}

impl Worker {
    fn new(parts: Parts) -> Self {
        let kind = if parts.target.is_shared() { Kind::Shared } else { Kind::Own };
        let outlook = Outlook {
            behind: Behind::new(kind),
            told: parts.told,
            store: parts.store.clone(),
            head: parts.head,
            shown: parts.shown,
            tell: parts.tell,
            said: None,
            clock: parts.clock,
            copying: false,
            kind: parts.target.kind(),
            place: parts.target.to_string(),
        };
        let hands = Hands {
            target: parts.target,
            mappings: parts.mappings,
            writer: Writer { pair: parts.pair, node: parts.node, instance: parts.instance },
            log: parts.log,
            decoder: Decoder::default(),
            probe: parts.probe,
            store: parts.store,
            sink: None,
            generation: 0,
            careful: false,
        };
        Self { outlook, hands }
    }

    async fn run(mut self) {
        loop {
            if self.turn().await.is_none() {
                return;
            }
        }
    }

    /// One step; none: the end.
    async fn turn(&mut self) -> Option<()> {
        // In this order: what is told then knows the masterships of all that is acknowledged.
        let acknowledged = self.outlook.acknowledged();
        let told = self.outlook.look()?;
        if told.generation != self.hands.generation {
            self.hands.generation = told.generation;
            self.hands.log.forget();
            // What was read while that happened may be of both.
            let dice = fastrand::u64(..);
            self.outlook.behind.failed(self.outlook.now(), Failure::LogGone, dice);
        }
        match self.outlook.behind.next(self.outlook.now(), &told, acknowledged) {
            Step::Rest => {
                let rest = tokio::time::timeout(PAUSE, self.outlook.told.changed()).await;
                if matches!(rest, Ok(Err(_))) {
                    return None;
                }
            }
            Step::Close => self.close(),
            Step::Open(term) => self.open(term).await?,
            Step::Copy { from } => self.copy(from, told.mark(acknowledged)).await?,
            Step::Tail { after, up_to } => self.tail(after, up_to).await?,
        }
        Some(())
    }

    fn close(&mut self) {
        self.hands.sink = None;
        self.outlook.behind.closed();
    }

    async fn open(&mut self, term: Term) -> Option<()> {
        self.hands.sink = None;
        let Hands { target, writer, mappings, probe, .. } = &self.hands;
        let opening = Sink::open(target, writer, &term, mappings, probe);
        match self.outlook.attend(&term, opening).await {
            Ok(Ok(opened)) => {
                let (mark, epoch) = (opened.mark, term.epoch);
                tracing::info!(database = %target, %epoch, %mark, "the store is open");
                self.outlook.behind.opened(self.outlook.now(), term, mark, opened.quarantined);
                let mut sink = opened.sink;
                // For as long as it is open: what has one such row may have more.
                sink.be_careful(std::mem::take(&mut self.hands.careful));
                self.hands.sink = Some(sink);
            }
            Ok(Err(failure)) => self.failed(failure),
            Err(left) => return self.left(&left),
        }
        Some(())
    }

    async fn tail(&mut self, after: Mark, up_to: u64) -> Option<()> {
        let Some(term) = self.outlook.right() else { return Some(()) };
        let writing = self.hands.write_tail(after, up_to);
        match self.outlook.attend(&term, writing).await {
            Ok(Ok((mark, quarantined))) => {
                self.outlook.behind.written(self.outlook.now(), mark, quarantined);
            }
            Ok(Err(failure)) => self.failed(failure),
            Err(left) => return self.left(&left),
        }
        Some(())
    }

    /// Everything anew, in one transaction: whoever reads sees what was there until it is done.
    async fn copy(&mut self, from: Mark, begin: Mark) -> Option<()> {
        let Some(term) = self.outlook.right() else { return Some(()) };
        let began = self.outlook.now();
        tracing::info!(database = %self.hands.target, %from, to = %begin, "the store gets a copy");
        self.outlook.copying = true;
        // The tail of what goes on meanwhile must stay.
        self.outlook.shown.needs.store(begin.number + 1, Ordering::Release);
        let copied = self.copy_parts(from, begin, &term).await;
        self.outlook.copying = false;
        match copied {
            Ok(Ok((mark, quarantined))) => {
                let took_ms = self.outlook.now().ms_since(began);
                tracing::info!(database = %self.hands.target, %mark, took_ms, "the store is copied");
                self.outlook.behind.written(self.outlook.now(), mark, quarantined);
            }
            // In the middle of a transaction, which goes with its connection.
            Ok(Err(Failure::LogGone)) => self.failed(Failure::Moved),
            Ok(Err(failure)) => self.failed(failure),
            Err(left) => return self.left(&left),
        }
        Some(())
    }

    async fn copy_parts(
        &mut self,
        from: Mark,
        begin: Mark,
        term: &Term,
    ) -> Result<Result<(Mark, u64), Failure>, Left> {
        if let Err(failure) = self.outlook.attend(term, self.hands.begin_copy(from)).await? {
            return Ok(Err(failure));
        }
        let mut cursor = Cursor::default();
        loop {
            match self.outlook.attend(term, self.hands.copy_piece(&mut cursor)).await? {
                Ok(true) => self.outlook.progressed(term)?,
                Ok(false) => break,
                Err(failure) => return Ok(Err(failure)),
            }
        }
        // The pieces may be ahead of a standby's log, for a moment: the copy ends where both have been.
        let copied = self.outlook.applied();
        let mut end = begin;
        loop {
            let until = self.outlook.acknowledged();
            while end.number < until {
                match self.outlook.attend(term, self.hands.write_more(end, until)).await? {
                    Ok(mark) => end = mark,
                    Err(failure) => return Ok(Err(failure)),
                }
                self.outlook.progressed(term)?;
            }
            if end.number >= copied {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            self.outlook.look().ok_or(Left::Ended)?;
            self.outlook.progressed(term)?;
        }
        let finished = self.outlook.attend(term, self.hands.finish(end)).await?;
        Ok(finished.map(|quarantined| (end, quarantined)))
    }

    fn failed(&mut self, failure: Failure) {
        let database = &self.hands.target;
        match &failure {
            Failure::Failed(what) | Failure::Refused(what) => {
                if self.outlook.behind.error() != Some(what) {
                    tracing::warn!(%database, "the store: {what}");
                }
            }
            Failure::Overtaken { by } => tracing::warn!(
                %database, %by, "the store belongs to a newer mastership: nothing is written here"
            ),
            Failure::Moved => tracing::info!(%database, "the store is opened again"),
            Failure::LogGone => {
                tracing::warn!(%database, "the log does not go back to where the store is");
            }
        }
        if failure != Failure::LogGone {
            let sink = self.hands.sink.take();
            self.hands.careful |= sink.is_some_and(|sink| sink.met_refused_row());
        }
        self.outlook.behind.failed(self.outlook.now(), failure, fastrand::u64(..));
    }

    fn left(&mut self, left: &Left) -> Option<()> {
        self.close();
        match left {
            Left::Ended => None,
            Left::Rightless => Some(()),
        }
    }
}

impl Hands {
    fn sink(&mut self) -> Result<&mut Sink, Failure> {
        self.sink.as_mut().ok_or(Failure::Moved)
    }

    async fn write_tail(&mut self, after: Mark, up_to: u64) -> Result<(Mark, u64), Failure> {
        let batch = self.read(after, up_to)?;
        let prepared = Prepared::of(batch.rows(), &self.mappings);
        let sink = self.sink.as_mut().ok_or(Failure::Moved)?;
        sink.begin(after).await?;
        sink.apply(prepared, &self.mappings).await?;
        let quarantined = sink.finish(batch.end()).await?;
        Ok((batch.end(), quarantined))
    }

    async fn begin_copy(&mut self, from: Mark) -> Result<(), Failure> {
        let sink = self.sink.as_mut().ok_or(Failure::Moved)?;
        sink.begin(from).await?;
        // A copy takes long: it is not begun anew for a row.
        sink.be_careful(true);
        sink.wipe(&self.mappings).await
    }

    /// One piece of the store; false: there is no more.
    async fn copy_piece(&mut self, cursor: &mut Cursor) -> Result<bool, Failure> {
        // Locked for one piece; whoever commits goes on in between.
        let piece = self.store.read().unwrap_or_else(PoisonError::into_inner).cut(cursor);
        let Some(piece) = piece else { return Ok(false) };
        if let Piece::Rows { table, rows } = piece {
            let prepared = Prepared::of_piece(&table, &rows, &self.mappings);
            let sink = self.sink.as_mut().ok_or(Failure::Moved)?;
            sink.apply(prepared, &self.mappings).await?;
        }
        Ok(true)
    }

    /// More of the log within a transaction.
    async fn write_more(&mut self, after: Mark, up_to: u64) -> Result<Mark, Failure> {
        let batch = self.read(after, up_to)?;
        let prepared = Prepared::of(batch.rows(), &self.mappings);
        let sink = self.sink.as_mut().ok_or(Failure::Moved)?;
        sink.apply(prepared, &self.mappings).await?;
        Ok(batch.end())
    }

    async fn finish(&mut self, mark: Mark) -> Result<u64, Failure> {
        let sink = self.sink()?;
        let quarantined = sink.finish(mark).await?;
        sink.be_careful(false);
        Ok(quarantined)
    }

    /// What follows in the log, as much as one transaction takes.
    fn read(&mut self, after: Mark, up_to: u64) -> Result<Coalesced, Failure> {
        let mut batch = Coalesced::after(after);
        while batch.end().number < up_to && !batch.full() {
            let read = self.log.read(batch.end().number, up_to);
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(LogFault::Gone) => return Err(Failure::LogGone),
                Err(LogFault::Failed(what)) => return Err(Failure::Failed(what)),
            };
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let failed = |what: String| Failure::Failed(format!("the log: {what}"));
                let (record, size) =
                    self.decoder.decode(rest).map_err(|error| failed(error.to_string()))?;
                batch.take(&record).map_err(|error| failed(error.to_string()))?;
                rest = &rest[size..];
            }
        }
        Ok(batch)
    }
}

impl Outlook {
    fn now(&self) -> Moment {
        (self.clock)()
    }

    fn applied(&self) -> u64 {
        self.store.read().unwrap_or_else(PoisonError::into_inner).applied()
    }

    /// What readers see and the log has: a standby's store is ahead of its log for a moment.
    fn acknowledged(&self) -> u64 {
        self.applied().min(self.head.load(Ordering::Acquire))
    }

    fn right(&self) -> Option<Term> {
        self.behind.right(&self.told.borrow())
    }

    /// A part of a copy is done; an error once there is no right to go on.
    fn progressed(&mut self, term: &Term) -> Result<(), Left> {
        let now = self.now();
        self.behind.progressed(now);
        if self.right().as_ref() == Some(term) { Ok(()) } else { Err(Left::Rightless) }
    }

    /// Looks at both sides and shows what it sees; none: the tables' thread is gone.
    fn look(&mut self) -> Option<Arc<Told>> {
        // An error: nobody will say anything any more.
        self.told.has_changed().ok()?;
        let told = self.told.borrow_and_update().clone();
        let (now, acknowledged) = (self.now(), self.acknowledged());
        self.behind.note(now, &told, acknowledged);
        if !self.copying {
            let needs = self.behind.needs(&told).unwrap_or(NOTHING);
            self.shown.needs.store(needs, Ordering::Release);
        }
        let state = match (self.behind.right(&told), self.behind.is_open(), self.behind.lag()) {
            (None, ..) => "idle",
            (Some(_), false, _) => "closed",
            (Some(_), true, _) if self.copying => "copying",
            (Some(_), true, Some(0)) => "current",
            (Some(_), true, _) => "writing",
        };
        self.shown.figures.store(Arc::new(Figures {
            kind: self.kind,
            place: self.place.clone(),
            state,
            mark: self.behind.mark().map(|mark| (mark.epoch.0, mark.number)),
            lag_records: self.behind.lag(),
            quarantined: self.behind.quarantined(),
            error: self.behind.error().map(str::to_owned),
        }));
        let trouble = self.behind.trouble(now);
        if trouble != self.said && (self.tell)(trouble.clone()) {
            self.said = trouble;
        }
        Some(told)
    }

    /// Waits for a step, looking up meanwhile; left once it takes too long, or longer than a moment
    /// without any right.
    async fn attend<T>(
        &mut self,
        term: &Term,
        step: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Result<T, Failure>, Left> {
        let began = self.now();
        let mut looks = 0;
        tokio::pin!(step);
        loop {
            tokio::select! {
                biased;
                done = &mut step => return Ok(done),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let told = self.look().ok_or(Left::Ended)?;
            looks += 1;
            let right = self.behind.right(&told);
            if right.as_ref() != Some(term) && looks >= LOOKS_BEFORE_LEAVING {
                return Err(Left::Rightless);
            }
            let within = if self.copying { LONG_STEP_WITHIN_MS } else { STEP_WITHIN_MS };
            if self.now().ms_since(began) >= within {
                let what = format!("{} does not answer", self.place);
                return Ok(Err(Failure::Failed(what)));
            }
        }
    }
}
