//! Asynchronous calls: a ticket at once, the answer later, on whichever node serves by then.
//!
//! ```text
//! call ─▶ accepted (a row, replicated) ─▶ ticket
//!              └─▶ worked on ─▶ one record: changes, and the row becomes the answer ─▶ push, /v1/result
//!                    ▲                                                                      │
//!   a new master ────┘ finds the rows of those that are not over                    row deleted
//! ```
//!
//! The ticket is told once its row is acknowledged, so that a ticket that was told is never lost. The
//! record with the answer depends on the row being the one that was accepted: it is committed once,
//! whoever else works on the same call. Numbered calls have their number as their ticket; sent again,
//! they are told the same and begin nothing new. Asynchronous calls keep no order, neither among
//! themselves nor with the others of their session, and none of them waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::session::Session;
use hotpair_core::tables::SESSIONS;
use hotpair_core::tables::change::{
    Bytes, Numbered, Operation, Read, Refusal, Reply, ReplyPlan, Request, SessionKey,
};
use hotpair_core::tables::store::Store;
use hotpair_core::tables::tickets::{RESULTS, Ticketed, row_key, ticket_of};
use hotpair_core::tables::window::Seen;
use hotpair_protocol::{ErrorNumber, ResultBody, TicketAnswer};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::arguments::object;
use super::calls::{Asked, DECISIONS_MAX, Known, Work, known};
use super::failure::{Failure, outcome_of_reply};
use super::sidecars::{Errand, Keep};
use super::{ClientService, Outcome};
use crate::data::Data;
use crate::function::Caller;
use crate::gate::{Pass, Refused};
use crate::lanes::OUTSTANDING_MAX;
use crate::sessions::session_key;
use crate::tables::NotCommitted;
use crate::under_way::Begun;

/// What `/v1/result` finds.
pub(super) enum Fetched {
    /// The answer, as it was kept.
    Over(Kept),
    /// Nothing yet.
    Running,
}

/// The answer of an asynchronous call: an envelope without its epoch, which is that of the asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept(Bytes);

/// A call whose ticket was told, or is about to be.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    epoch: Epoch,
    pub(super) session: SessionKey,
    pub(super) key: Bytes,
}

impl Ticket {
    /// What its caller knows it by.
    pub(super) fn name(&self) -> &str {
        ticket_of(&self.key).unwrap_or_default()
    }
}

/// The next thing to do for a call.
enum Step {
    /// Something to commit, and the answer with it.
    Commit { reads: Vec<Read>, operations: Vec<Operation>, reply: ReplyPlan },
    /// Nothing changes, but for this answer.
    Over(Outcome),
    /// Nothing: what came of it is committed, or the next master finds it.
    Left,
}

/// A program that was not reached this time; it may be the next time.
fn is_nothing_yet(failure: &Failure) -> bool {
    matches!(failure.error_no(), ErrorNumber::Overloaded | ErrorNumber::TimedOut)
}

impl ClientService {
    /// `POST /v1/call` with `async`: the ticket.
    pub(super) async fn accept(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        session: SessionKey,
        numbered: Option<Numbered>,
        limit: Duration,
    ) -> Outcome {
        let epoch = asked.epoch;
        let name = numbered.map_or_else(random_ticket, |numbered| numbered.number.to_string());
        let ticket = Ticket { epoch, session, key: row_key(session, &name) };
        match self.tables.look(|store| known(store, session, numbered, false)) {
            Known::NoSession => return Err(Failure::SessionUnknown),
            Known::Gone { number, floor } => {
                self.sessions.hear(session, epoch);
                return Err(Failure::TooOld { number, floor });
            }
            Known::Done(outcome) => {
                self.sessions.hear(session, epoch);
                self.see_to(ticket);
                return outcome;
            }
            Known::New(_) => {}
        }
        self.sessions.hear(session, epoch);
        self.check_needs(asked.function)?;
        let accepted = Ticketed::Accepted {
            function: asked.function.number,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            arguments: asked.arguments.as_bytes().to_vec(),
        };
        let begun = self.under_way.begin(&ticket.key, epoch);
        let mut operations = self.make_room(session)?;
        operations.push(put(&ticket.key, &accepted));
        let told = TicketAnswer { ticket: name };
        let told = serde_json::to_vec(&told).expect("a text is JSON");
        let request = Request {
            ticket: 0,
            numbered,
            // Whoever is not numbered is not asked for the session by the writer.
            reads: vec![self.session_read(session)],
            operations,
            reply: ReplyPlan::Fixed(told.into()),
        };
        self.commit_accepted(ticket, request, begun).await
    }

    /// Commits on a task of its own, which goes on with the work whatever becomes of the caller.
    async fn commit_accepted(
        self: &Arc<Self>,
        ticket: Ticket,
        request: Request,
        begun: Option<Begun>,
    ) -> Outcome {
        let (tell, told) = oneshot::channel();
        let service = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = match service.tables.commit(ticket.epoch, request).await {
                Ok(reply) => outcome_of_reply(&reply),
                Err(NotCommitted::Conflict) => Err(Failure::SessionUnknown),
                Err(other) => Err(other.into()),
            };
            let accepted = outcome.is_ok();
            // A caller that went away asks again, or for its answer.
            let _ = tell.send(outcome);
            if accepted && let Some(begun) = begun {
                service.work_on(ticket, begun).await;
            }
        });
        told.await.unwrap_or(Err(Failure::Superseded))
    }

    /// Answers that have been handed over make room, the oldest first.
    fn make_room(&self, session: SessionKey) -> Result<Vec<Operation>, Failure> {
        let rows = self.tables.look(|store| rows_of(store, session));
        let keys: Vec<Bytes> = rows.iter().map(|row| row.key.clone()).collect();
        let outstanding = keys.len() + self.under_way.count_beside(session, &keys);
        let surplus = outstanding.saturating_sub(OUTSTANDING_MAX);
        let pushed_up_to = self.followers.pushed_up_to(session);
        let mut pushed: Vec<_> =
            rows.into_iter().filter(|row| row.is_over && row.version <= pushed_up_to).collect();
        if pushed.len() < surplus {
            return Err(Failure::TicketsFull { outstanding_max: OUTSTANDING_MAX });
        }
        pushed.sort_by_key(|row| row.version);
        Ok(pushed.into_iter().take(surplus).map(|row| delete(&row.key)).collect())
    }

    /// What must be as it is for a session to be there.
    pub(super) fn session_read(&self, session: SessionKey) -> Read {
        let version = self.tables.look(|store| {
            // A version that no row has: a session that ended meanwhile is a conflict.
            store.get(SESSIONS, &session.0).map_or(u64::MAX, |row| row.version)
        });
        Read { table: SESSIONS.into(), key: session.0.as_slice().into(), version }
    }

    /// Works on a call, unless somebody does.
    fn see_to(self: &Arc<Self>, ticket: Ticket) {
        if let Some(begun) = self.under_way.begin(&ticket.key, ticket.epoch) {
            let service = Arc::clone(self);
            tokio::spawn(async move { service.work_on(ticket, begun).await });
        }
    }

    /// Finds the calls that are not over each time this node begins to serve, and works on them; for
    /// ever, to be run beside the service.
    pub fn keep_finishing_calls(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let service = Arc::clone(self);
        async move {
            let mut turns = interval(LOOK);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut served = None;
            loop {
                turns.tick().await;
                let epoch = service.gate.serving_epoch();
                // Also the same one again, after a while in which nobody was let in.
                if let Some(epoch) = epoch.filter(|_| epoch != served) {
                    service.finish_calls(epoch).await;
                }
                served = epoch;
            }
        }
    }

    async fn finish_calls(self: &Arc<Self>, epoch: Epoch) {
        let mut from = Some(Bytes::from([]));
        let mut found = 0_u64;
        while let Some(start) = from {
            let mut piece: Vec<(Bytes, bool)> = self.tables.look(|store| {
                let rows = store.table(RESULTS).into_iter().flat_map(|rows| rows.scan(&start));
                let row = |(key, row): (&Bytes, &hotpair_core::tables::table::Row)| {
                    (key.clone(), Ticketed::is_over(&row.value))
                };
                rows.take(PIECE + 1).map(row).collect()
            });
            from = if piece.len() > PIECE { piece.pop().map(|(key, _)| key) } else { None };
            for (key, is_over) in piece {
                let Some(session) = key.first_chunk().map(|session| SessionKey(*session)) else {
                    continue;
                };
                if is_over {
                    continue;
                }
                found += 1;
                // At most so many tasks wait; the next one is made once one of them is through.
                let Ok(room) = Arc::clone(&self.found).acquire_owned().await else { return };
                let ticket = Ticket { epoch, session, key };
                if let Some(begun) = self.under_way.begin(&ticket.key, epoch) {
                    let service = Arc::clone(self);
                    tokio::spawn(async move {
                        let _room = room;
                        service.work_on(ticket, begun).await;
                    });
                }
            }
        }
        if found > 0 {
            tracing::info!(%epoch, found, "asynchronous calls of before are gone on with");
        }
    }

    // --- working on a call

    async fn work_on(self: Arc<Self>, ticket: Ticket, begun: Begun) {
        self.work_until_over(&ticket).await;
        self.sessions.hear(ticket.session, ticket.epoch);
        drop(begun);
        self.followers.wake(ticket.session);
    }

    async fn work_until_over(self: &Arc<Self>, ticket: &Ticket) {
        for decision in 1.. {
            let Some((accepted, read)) = self.accepted(ticket) else { return };
            let step = if decision > DECISIONS_MAX {
                Step::Over(Err(NotCommitted::Conflict.into()))
            } else {
                self.step(ticket, &accepted, &read).await
            };
            let mut request = match step {
                Step::Commit { reads, operations, reply } => {
                    Request { ticket: 0, numbered: None, reads, operations, reply }
                }
                Step::Over(outcome) => over(ticket, &outcome),
                Step::Left => return,
            };
            request.reads.push(read.clone());
            match self.commit_patiently(ticket.epoch, request).await {
                Ok(_) | Err(NotCommitted::Superseded | NotCommitted::Unsubmitted(_)) => return,
                Err(NotCommitted::Conflict) => {}
                Err(refused @ NotCommitted::Refused(_)) => {
                    let mut request = over(ticket, &Err(refused.into()));
                    request.reads.push(read);
                    // A conflict: somebody else has ended it, or its session.
                    let _ = self.commit_patiently(ticket.epoch, request).await;
                    return;
                }
            }
        }
    }

    /// What is to be done, if it still is, and the row that says so.
    fn accepted(&self, ticket: &Ticket) -> Option<(Ticketed, Read)> {
        self.tables.look(|store| {
            let row = store.get(RESULTS, &ticket.key)?;
            let accepted = Ticketed::decode(&row.value).ok()?;
            let key = ticket.key.clone();
            let read = Read { table: RESULTS.into(), key, version: row.version };
            matches!(accepted, Ticketed::Accepted { .. }).then_some((accepted, read))
        })
    }

    async fn step(&self, ticket: &Ticket, accepted: &Ticketed, read: &Read) -> Step {
        let Ticketed::Accepted { function: number, limit_ms, arguments } = accepted else {
            unreachable!("looked at before");
        };
        let Some(function) = self.catalogue.by_number(*number) else {
            return Step::Over(Err(Failure::NoSuchFunction(format!("number {number}"))));
        };
        let limit = Duration::from_millis(*limit_ms).min(self.settings.timeout_max);
        let late = || Failure::TimedOut { function: *number, limit };
        let arguments = std::str::from_utf8(arguments).unwrap_or("null");
        let asked = Asked { function, arguments, epoch: ticket.epoch, pass: None };
        if let Err(failure) = self.wait_for_needs(&asked).await {
            return Step::Over(Err(failure));
        }
        match asked.work() {
            Err(failure) => Step::Over(Err(failure)),
            Ok(Work::Look(builtin)) => Step::Over(self.look(builtin, arguments)),
            Ok(Work::Sleep(long)) => {
                sleep(long.min(limit)).await;
                Step::Over(if long > limit { Err(late()) } else { Ok(Data::empty()) })
            }
            Ok(Work::Write(operation)) => Step::Commit {
                reads: Vec::new(),
                operations: vec![operation],
                reply: ReplyPlan::ResultsKept { key: ticket.key.clone() },
            },
            Ok(Work::Library(function, arguments)) => {
                let caller = Arc::new(self.caller(ticket.session));
                let arguments = Arc::new(arguments);
                let running = async {
                    let place = self.library_place().await;
                    self.run_once(&function, &arguments, &caller, &place).await
                };
                let made = match timeout(limit, running).await {
                    Ok(Ok(made)) => made,
                    Ok(Err(failure)) => return Step::Over(Err(failure)),
                    Err(_) => return Step::Over(Err(late())),
                };
                let (outcome, mut operations) = match made.answer {
                    Ok(answer) => (Ok(Data::of(&answer)), made.operations),
                    Err(error) => (Err(Failure::from(error)), Vec::new()),
                };
                operations.push(put_answer(ticket, &outcome));
                Step::Commit { reads: made.reads, operations, reply: ReplyPlan::Results }
            }
            Ok(Work::Program(sidecar)) => {
                let keep = Keep::Row(ticket.clone(), read.clone());
                let errand = |pass| {
                    let (sidecar, caller) = (Arc::clone(&sidecar), self.caller(ticket.session));
                    let (arguments, keep) = (arguments.to_owned(), keep.clone());
                    Errand { sidecar, function: *number, arguments, caller, keep, pass }
                };
                self.program_step(ticket.epoch, limit, errand).await
            }
        }
    }

    /// Calls a program, which commits by itself; one that is not there is waited for a while.
    async fn program_step(
        &self,
        epoch: Epoch,
        limit: Duration,
        errand: impl Fn(Pass) -> Errand,
    ) -> Step {
        let until = Instant::now() + limit;
        loop {
            let Some(pass) = self.enter_patiently(epoch).await else { return Step::Left };
            let errand = errand(pass);
            match self.errand(&errand).await {
                Err(failure) if is_nothing_yet(&failure) => {
                    if Instant::now() >= until {
                        return match self.give_up(&errand).await {
                            true => Step::Left,
                            false => Step::Over(Err(failure)),
                        };
                    }
                }
                Ok(_) | Err(_) => return Step::Left,
            }
            sleep(PAUSE).await;
        }
    }

    /// Goes in once the gate lets in again, as long as the epoch lasts.
    async fn enter_patiently(&self, epoch: Epoch) -> Option<Pass> {
        loop {
            match self.gate.enter() {
                Ok(pass) => return (pass.epoch() == epoch).then_some(pass),
                Err(Refused::Closed | Refused::OtherEpoch) => return None,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    fn caller(&self, session: SessionKey) -> Option<Caller> {
        let row = self
            .tables
            .look(|store| store.get(SESSIONS, &session.0).map(|row| Session::decode(&row.value)));
        let Session { user, user_token, .. } = row?.ok()?;
        Some(Caller { session, user, user_token })
    }

    /// A dataset that was there when the call was accepted is being loaded by a new master.
    async fn wait_for_needs(&self, asked: &Asked<'_>) -> Result<(), Failure> {
        loop {
            match self.check_needs(asked.function) {
                Err(Failure::DatasetLoading { .. })
                    if self.gate.serving_epoch() == Some(asked.epoch) =>
                {
                    sleep(PAUSE).await;
                }
                settled => return settled,
            }
        }
    }

    /// Commits as a client's request would: inside the gate, so that whoever waits for the gate to be
    /// empty waits for this as well. A gate that is held, and tables that have no room, are waited out
    /// as long as the epoch lasts.
    async fn commit_patiently(
        &self,
        epoch: Epoch,
        request: Request,
    ) -> Result<Reply, NotCommitted> {
        loop {
            match self.gate.enter() {
                Ok(pass) if pass.epoch() != epoch => return Err(NotCommitted::Superseded),
                Ok(pass) => {
                    let settled = self.tables.commit(epoch, request.clone()).await;
                    drop(pass);
                    match settled {
                        Err(
                            NotCommitted::Unsubmitted(_) | NotCommitted::Refused(Refusal::Busy(_)),
                        ) => {}
                        settled => return settled,
                    }
                }
                // Found again by whoever serves next, and by this node if it is let to.
                Err(Refused::Closed | Refused::OtherEpoch) => {
                    return Err(NotCommitted::Superseded);
                }
                // The lease is to be renewed, or the mastership to be handed over: or not.
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    // --- the answer

    /// `POST /v1/result`: the answer, which is not kept any more afterwards. Numbered, it is kept as
    /// a reply, so that asking again under the number gives it again.
    pub(super) async fn result(
        self: &Arc<Self>,
        pass: &Pass,
        body: &[u8],
    ) -> Result<Fetched, Failure> {
        let ResultBody { session, ticket, request, done_up_to } = object(body, "the body")?;
        if request == Some(0) {
            return Err(Failure::Malformed("`request` is 0: numbers begin at 1".to_owned()));
        }
        let (session, epoch) = (session_key(&session), pass.epoch());
        let done_up_to = done_up_to.unwrap_or(0);
        let numbered = request.map(|number| Numbered { session, number, done_up_to });
        if !self.sessions.exists(session) {
            return Err(Failure::SessionUnknown);
        }
        self.sessions.hear(session, epoch);
        if let Some(kept) = self.fetched_before(numbered)? {
            return Ok(Fetched::Over(kept));
        }
        let key = row_key(session, &ticket);
        let row = self
            .tables
            .look(|store| store.get(RESULTS, &key).map(|row| (row.value.clone(), row.version)));
        let Some((value, version)) = row else { return Err(Failure::UnknownTicket) };
        let Some(kept) = kept_of(&ticket, &value) else {
            self.see_to(Ticket { epoch, session, key });
            return Ok(Fetched::Running);
        };
        let request = Request {
            ticket: 0,
            numbered,
            reads: vec![Read { table: RESULTS.into(), key: key.clone(), version }],
            operations: vec![delete(&key)],
            reply: ReplyPlan::Fixed(kept.0),
        };
        match self.tables.commit(epoch, request).await {
            Ok(reply) => Kept::of_reply(&reply).map(Fetched::Over),
            // Fetched by somebody else in between.
            Err(NotCommitted::Conflict) => Err(Failure::UnknownTicket),
            Err(other) => Err(other.into()),
        }
    }

    fn fetched_before(&self, numbered: Option<Numbered>) -> Result<Option<Kept>, Failure> {
        let Some(Numbered { session, number, .. }) = numbered else { return Ok(None) };
        self.tables.look(|store| match store.seen(session, number) {
            Seen::New => Ok(None),
            Seen::Gone { floor } => Err(Failure::TooOld { number, floor }),
            Seen::Done(reply) => Kept::of_reply(reply).map(Some),
        })
    }

    /// The answers of a session that wait, beyond this version, in the order in which they came.
    pub(super) fn waiting_answers(&self, session: SessionKey, beyond: u64) -> Vec<(u64, Kept)> {
        let kept = |(key, value, version): (Bytes, Bytes, u64)| {
            Some((version, kept_of(ticket_of(&key)?, &value)?))
        };
        let rows: Vec<_> = self.tables.look(|store| {
            let rows = rows_of(store, session).into_iter();
            let new = rows.filter(|row| row.is_over && row.version > beyond);
            let value = |row: RowOf| Some((store.get(RESULTS, &row.key)?.value.clone(), row));
            new.filter_map(value).map(|(value, row)| (row.key, value, row.version)).collect()
        });
        let mut all: Vec<_> = rows.into_iter().filter_map(kept).collect();
        all.sort_by_key(|(version, _)| *version);
        all
    }

    /// The client has the answers up to this version: they are let go.
    pub(super) async fn let_go(&self, epoch: Epoch, session: SessionKey, up_to: u64) {
        let rows = self.tables.look(|store| rows_of(store, session));
        let taken = rows.into_iter().filter(|row| row.is_over && row.version <= up_to);
        let operations: Vec<_> = taken.map(|row| delete(&row.key)).collect();
        if operations.is_empty() {
            return;
        }
        let (reads, reply) = (Vec::new(), ReplyPlan::Results);
        let request = Request { ticket: 0, numbered: None, reads, operations, reply };
        // What stays is said again, or goes with the session.
        let _ = self.tables.commit(epoch, request).await;
    }
}

impl Kept {
    /// What was replied to a `/v1/result`; the reply of another request under its number is none.
    fn of_reply(reply: &Reply) -> Result<Self, Failure> {
        match reply {
            Reply::Fixed(bytes) if bytes.starts_with(BEGINNING) => Ok(Self(bytes.clone())),
            Reply::Fixed(_) | Reply::Results(_) => Err(Failure::Malformed(OTHER_NUMBER.to_owned())),
        }
    }

    /// The envelope as it leaves, in this epoch.
    pub(super) fn envelope(&self, epoch: Epoch) -> Vec<u8> {
        let mut bytes = format!("{{\"epoch\":{epoch},").into_bytes();
        bytes.extend_from_slice(self.0.get(1..).unwrap_or(b"}"));
        bytes
    }

    pub(super) fn error_no(&self) -> ErrorNumber {
        #[derive(Deserialize)]
        struct Number {
            error_no: ErrorNumber,
        }
        let number: Result<Number, _> = serde_json::from_slice(&self.0);
        number.map_or(ErrorNumber::FunctionFailed, |number| number.error_no)
    }
}

/// A row of a session, without its value.
struct RowOf {
    key: Bytes,
    version: u64,
    is_over: bool,
}

fn rows_of(store: &Store, session: SessionKey) -> Vec<RowOf> {
    let rows = store.table(RESULTS).into_iter().flat_map(|rows| rows.scan(&session.0));
    rows.take_while(|(key, _)| key.starts_with(&session.0))
        .map(|(key, row)| RowOf {
            key: key.clone(),
            version: row.version,
            is_over: Ticketed::is_over(&row.value),
        })
        .collect()
}

fn kept_of(ticket: &str, value: &[u8]) -> Option<Kept> {
    match Ticketed::decode(value).ok()? {
        Ticketed::Accepted { .. } => None,
        Ticketed::Answer(text) => Some(Kept(text)),
        Ticketed::Results(results) => {
            Some(Kept(answer(ticket, &Ok(Data::of_reply(&Reply::Results(results)))).into()))
        }
    }
}

fn over(ticket: &Ticket, outcome: &Outcome) -> Request {
    Request {
        ticket: 0,
        numbered: None,
        reads: Vec::new(),
        operations: vec![put_answer(ticket, outcome)],
        reply: ReplyPlan::Results,
    }
}

/// The row of a call that is over.
pub(super) fn put_answer(ticket: &Ticket, outcome: &Outcome) -> Operation {
    put(&ticket.key, &Ticketed::Answer(answer(ticket.name(), outcome).into()))
}

/// An envelope with its ticket and without its epoch, as it is kept.
fn answer(ticket: &str, outcome: &Outcome) -> Vec<u8> {
    let ticket = serde_json::to_string(ticket).expect("a text is JSON");
    match outcome {
        Ok(data) => [
            b"{\"error_no\":0,\"error_info\":\"\",\"ticket\":",
            ticket.as_bytes(),
            b",\"data\":",
            data.bytes(),
            b"}",
        ]
        .concat(),
        Err(failure) => {
            let envelope = failure.envelope(Epoch(0));
            let info = serde_json::to_string(&envelope.error_info).expect("a text is JSON");
            let (number, data) = (envelope.error_no.number(), envelope.data);
            format!(
                "{{\"error_no\":{number},\"error_info\":{info},\"ticket\":{ticket},\"data\":{data}}}"
            )
            .into_bytes()
        }
    }
}

fn put(key: &Bytes, call: &Ticketed) -> Operation {
    Operation::Put { table: RESULTS.into(), key: key.clone(), value: call.encode().into() }
}

fn delete(key: &Bytes) -> Operation {
    Operation::Delete { table: RESULTS.into(), key: key.clone() }
}

/// For a call without a number; no number looks like it.
fn random_ticket() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has random bytes once it has started");
    format!("x{:016x}", u64::from_be_bytes(bytes))
}

/// Of every answer that is kept.
const BEGINNING: &[u8] = b"{\"error_no\":";
const OTHER_NUMBER: &str = "`request` is the number of another request, which was no `/v1/result`";
/// How soon a new mastership is noticed.
const LOOK: Duration = Duration::from_millis(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Rows that are looked at with the lock held.
const PIECE: usize = 512;
