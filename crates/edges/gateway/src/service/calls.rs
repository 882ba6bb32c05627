//! One call: whose it is, whether it was done before, whether it is being done, and doing it.
//!
//! ```text
//! no session ───────────────────────────────────────────────▶ do it
//! session ─▶ lane ─┬ first ─▶ session? reply kept? ─▶ its turn ─▶ do it ─▶ everybody who waits
//!                  └ duplicate of one under way ─▶ waits for that one's outcome
//! ```
//!
//! Replies are kept of what was committed. A call that only looked, or that was refused, is looked at
//! or tried anew when it is sent again: nothing was done, so nothing can be done twice.
//!
//! The lane is entered before the window of replies is looked at: a call that ends in between has
//! left its reply in the window by then. A call in a session is done to its end whatever becomes of
//! its caller, because duplicates may wait for it: what takes its time is done on a task of its own,
//! and a write that is in the writer's hands is waited for by somebody else ([`InHands`]).

use std::sync::Arc;
use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::session::Session;
use hotpair_core::tables::SESSIONS;
use hotpair_core::tables::change::{
    Numbered, Operation, Read, ReplyPlan, Request, SessionKey, Verdict,
};
use hotpair_core::tables::store::Store;
use hotpair_core::tables::window::Seen;
use hotpair_protocol::CallText;
use serde_json::Value as Json;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep, timeout};

use super::arguments::{Sleep, object, read};
use super::failure::{Failure, outcome_of_reply, shown};
use super::sidecars::{Errand, Keep};
use super::{ClientService, Outcome, rows};
use crate::catalogue::{Builtin, Does, Registered};
use crate::data::{Data, compact};
use crate::function::{Call, Caller, Handler, Made, run};
use crate::gate::Pass;
use crate::lanes::{Arrival, Met, OUTSTANDING_MAX, Slot};
use crate::sessions::session_key;
use crate::sidecar::Sidecar;
use crate::tables::{NotCommitted, settled};

/// A call as far as it is understood.
pub(super) struct Asked<'a> {
    pub(super) function: &'a Registered,
    /// JSON text.
    pub(super) arguments: &'a str,
    pub(super) epoch: Epoch,
    /// The caller's, where one waits.
    pub(super) pass: Option<&'a Pass>,
}

/// What is to be done.
pub(super) enum Work {
    /// Looks only, and at once.
    Look(Builtin),
    Sleep(Duration),
    /// One operation for the writer.
    Write(Operation),
    Library(Arc<dyn Handler>, Json),
    /// Asks another program.
    Program(Arc<Sidecar>),
}

impl ClientService {
    /// `POST /v1/call`.
    pub(super) async fn call(self: &Arc<Self>, pass: &Pass, body: &[u8]) -> Outcome {
        let body: CallText<'_> = object(body, "the body")?;
        check(&body)?;
        let function = self.find_function(&body)?;
        let arguments = body.arguments.map_or("null", |arguments| arguments.get());
        let asked = Asked { function, arguments, epoch: pass.epoch(), pass: Some(pass) };
        let (usual, longest) = match &function.does {
            Does::Sidecar(sidecar) if !body.is_async => {
                (sidecar.settings().timeout, sidecar.settings().timeout)
            }
            _ => (self.settings.timeout_default, self.settings.timeout_max),
        };
        let limit = body.timeout_ms.map_or(usual, Duration::from_millis).min(longest);
        let late = || Err(Failure::TimedOut { function: function.number, limit });
        let Some(token) = &body.session else {
            if self.settings.users_configured && wants_session(function) {
                return Err(Failure::SessionWanted);
            }
            let work = asked.work()?;
            return timeout(limit, self.alone(&asked, work)).await.unwrap_or_else(|_| late());
        };
        let session = session_key(&token.0);
        let done_up_to = body.done_up_to.unwrap_or(0);
        let numbered = body.request.map(|number| Numbered { session, number, done_up_to });
        let work = asked.work()?;
        if body.is_async {
            return self.accept(&asked, session, numbered, limit).await;
        }
        let whole = self.in_session(&asked, session, numbered, work);
        timeout(limit, whole).await.unwrap_or_else(|_| late())
    }

    fn find_function(&self, body: &CallText<'_>) -> Result<&Registered, Failure> {
        match (body.function, &body.gsv, &body.name) {
            (Some(number), None, None) => self
                .catalogue
                .by_number(number)
                .ok_or_else(|| Failure::NoSuchFunction(format!("number {number}"))),
            (None, Some(gsv), Some(name)) => {
                let (gsv, name) = (&gsv.0, &name.0);
                self.catalogue
                    .by_name(gsv, name)
                    .ok_or_else(|| Failure::NoSuchFunction(shown(&format!("{gsv}:{name}"))))
            }
            _ => Err(Failure::Malformed(
                "name the function either by `function` (its number) or by `gsv` and `name`".into(),
            )),
        }
    }

    // --- without a session: nobody else waits for it

    async fn alone(self: &Arc<Self>, asked: &Asked<'_>, work: Work) -> Outcome {
        self.check_needs(asked.function)?;
        match work {
            Work::Look(builtin) => self.look(builtin, asked.arguments),
            Work::Sleep(long) => {
                sleep(long).await;
                Ok(Data::empty())
            }
            Work::Write(operation) => {
                let request = write(None, operation);
                let verdict = self.tables.submit(asked.epoch, request)?;
                outcome_of(verdict.await.ok())
            }
            Work::Library(function, arguments) => {
                self.library(asked.epoch, &function, Arc::new(arguments), None, None).await
            }
            Work::Program(sidecar) => {
                let (service, errand) =
                    (Arc::clone(self), asked.errand(sidecar, None, Keep::Nowhere));
                // To its end, whatever becomes of its caller: what it changes is committed.
                let done = tokio::spawn(async move { service.errand(&errand).await });
                done.await.unwrap_or(Err(Failure::Superseded))
            }
        }
    }

    // --- in a session

    async fn in_session(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        session: SessionKey,
        numbered: Option<Numbered>,
        work: Work,
    ) -> Outcome {
        let number = numbered.map(|numbered| numbered.number);
        let only_writes = matches!(work, Work::Write(_));
        let arrival = Arrival { session, number, only_writes };
        loop {
            match self.lanes.enter(arrival) {
                Met::First(slot) => return self.first(asked, slot, session, numbered, work).await,
                Met::Full => {
                    return Err(Failure::SessionFull { outstanding_max: OUTSTANDING_MAX });
                }
                Met::Duplicate(told) => {
                    if let Ok(outcome) = told.await {
                        return outcome;
                    }
                    // Given up before anything became of it: this may be the first now.
                }
            }
        }
    }

    /// The first call with its number, or one without.
    async fn first(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        mut slot: Slot<Outcome>,
        session: SessionKey,
        numbered: Option<Numbered>,
        work: Work,
    ) -> Outcome {
        let wants_caller = matches!(work, Work::Library(..) | Work::Program(_));
        let known = self.tables.look(|store| known(store, session, numbered, wants_caller));
        let caller = match known {
            Known::NoSession => return ended(slot, Err(Failure::SessionUnknown)),
            Known::Gone { number, floor } => {
                self.sessions.hear(session, asked.epoch);
                return ended(slot, Err(Failure::TooOld { number, floor }));
            }
            Known::Done(outcome) => {
                self.sessions.hear(session, asked.epoch);
                return ended(slot, outcome);
            }
            Known::New(caller) => caller,
        };
        self.sessions.hear(session, asked.epoch);
        if let Err(failure) = self.check_needs(asked.function) {
            return ended(slot, Err(failure));
        }
        slot.turn().await;
        match work {
            Work::Look(builtin) => ended(slot, self.look(builtin, asked.arguments)),
            Work::Write(operation) => {
                match self.tables.submit(asked.epoch, write(numbered, operation)) {
                    Ok(verdict) => {
                        slot.submitted();
                        InHands { slot: Some(slot), verdict }.outcome().await
                    }
                    Err(unsubmitted) => ended(slot, Err(unsubmitted.into())),
                }
            }
            Work::Sleep(long) => {
                let long = long.min(self.settings.timeout_max);
                self.apart(slot, asked, session, async move |_| {
                    sleep(long).await;
                    Ok(Data::empty())
                })
                .await
            }
            Work::Library(function, arguments) => {
                let (epoch, arguments) = (asked.epoch, Arc::new(arguments));
                self.apart(slot, asked, session, async move |service| {
                    service.library(epoch, &function, arguments, caller, numbered).await
                })
                .await
            }
            Work::Program(sidecar) => {
                let keep = numbered.map_or(Keep::Nowhere, Keep::Reply);
                let errand = asked.errand(sidecar, caller, keep);
                self.apart(slot, asked, session, async move |service| service.errand(&errand).await)
                    .await
            }
        }
    }

    /// Does what takes its time on a task of its own, which its caller may leave.
    async fn apart<W, F>(
        self: &Arc<Self>,
        slot: Slot<Outcome>,
        asked: &Asked<'_>,
        session: SessionKey,
        work: W,
    ) -> Outcome
    where
        W: FnOnce(Arc<Self>) -> F,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let told = slot.follow();
        let (service, epoch) = (Arc::clone(self), asked.epoch);
        let work = work(Arc::clone(self));
        tokio::spawn(async move {
            let outcome = work.await;
            service.sessions.hear(session, epoch);
            slot.finish(&outcome);
        });
        told.await.unwrap_or_else(|_| Err(Failure::Superseded))
    }

    // --- doing

    pub(super) fn look(&self, builtin: Builtin, arguments: &str) -> Outcome {
        match builtin {
            Builtin::TableGet => rows::get(&self.tables, arguments),
            Builtin::TableScan => rows::scan(&self.tables, arguments),
            Builtin::DatasetGet => self.dataset_get(arguments),
            Builtin::DatasetScan => self.dataset_scan(arguments),
            Builtin::DatasetDescribe => self.dataset_describe(arguments),
            Builtin::FunctionsList => Ok(self.list()),
            Builtin::TestEcho => match compact(arguments) {
                Ok(_) => Ok(Data::text(arguments.to_owned())),
                Err(error) => Err(Failure::Malformed(format!("arguments: {error}"))),
            },
            Builtin::TablePut
            | Builtin::TableDelete
            | Builtin::TableCompareAndPut
            | Builtin::TableAdd
            | Builtin::TestSleep => unreachable!("these do more than look"),
        }
    }

    pub(super) fn check_needs(&self, function: &Registered) -> Result<(), Failure> {
        function.needs.iter().try_for_each(|dataset| self.find_dataset(dataset).map(drop))
    }

    /// Runs a function of the library until what it looked at is unchanged at its commit.
    async fn library(
        &self,
        epoch: Epoch,
        function: &Arc<dyn Handler>,
        arguments: Arc<Json>,
        caller: Option<Caller>,
        numbered: Option<Numbered>,
    ) -> Outcome {
        let place = self.library_place().await;
        let caller = Arc::new(caller);
        for _ in 0..DECISIONS_MAX {
            let made = self.run_once(function, &arguments, &caller, &place).await?;
            let answer = match made.answer {
                Ok(answer) if !made.operations.is_empty() => answer,
                // Nothing to commit; but it must not have decided on a mixture of old and new.
                settled if self.unchanged(&made.reads) => {
                    return settled.map(|answer| Data::of(&answer)).map_err(Failure::from);
                }
                Ok(_) | Err(_) => continue,
            };
            let request = Request {
                ticket: 0,
                numbered,
                reads: made.reads,
                operations: made.operations,
                reply: ReplyPlan::Fixed(answer.to_string().into_bytes().into()),
            };
            match self.tables.commit(epoch, request).await {
                Ok(reply) => return outcome_of_reply(&reply),
                Err(NotCommitted::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(NotCommitted::Conflict.into())
    }

    /// Waits for one of the threads that functions of the library have.
    pub(super) async fn library_place(&self) -> Arc<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.library).acquire_owned().await;
        Arc::new(place.expect("never closed"))
    }

    /// Runs a function on another thread, which has the place until the function ends: also when nobody
    /// waits for it any more.
    pub(super) async fn run_once(
        &self,
        function: &Arc<dyn Handler>,
        arguments: &Arc<Json>,
        caller: &Arc<Option<Caller>>,
        place: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Made, Failure> {
        let place = Arc::clone(place);
        let (function, arguments) = (Arc::clone(function), Arc::clone(arguments));
        let (caller, tables) = (Arc::clone(caller), self.tables.clone());
        let datasets = Arc::clone(&self.datasets);
        let running = tokio::task::spawn_blocking(move || {
            let _place = place;
            let call = Call::new(caller.as_ref().as_ref(), &arguments, &tables, &*datasets);
            run(&*function, call)
        });
        running.await.map_err(|error| {
            tracing::error!(%error, "a function of the library panicked");
            Failure::failed("the function panicked; nothing was executed".to_owned())
        })
    }

    fn unchanged(&self, reads: &[Read]) -> bool {
        self.tables.look(|store| {
            reads.iter().all(|read| {
                store.get(&read.table, &read.key).map_or(0, |row| row.version) == read.version
            })
        })
    }
}

impl Asked<'_> {
    fn errand(&self, sidecar: Arc<Sidecar>, caller: Option<Caller>, keep: Keep) -> Errand {
        let pass = self.pass.expect("whoever waits for a call came in with a pass").another();
        let (function, arguments) = (self.function.number, self.arguments.to_owned());
        Errand { sidecar, function, arguments, caller, keep, pass }
    }

    pub(super) fn work(&self) -> Result<Work, Failure> {
        let arguments = self.arguments;
        match &self.function.does {
            Does::Library(function) => {
                let arguments = serde_json::from_str(arguments).map_err(|error| {
                    Failure::Malformed(format!("arguments: {}", shown(&error.to_string())))
                })?;
                Ok(Work::Library(Arc::clone(function), arguments))
            }
            Does::Sidecar(sidecar) => Ok(Work::Program(Arc::clone(sidecar))),
            Does::Builtin(builtin) => match builtin {
                Builtin::TablePut => rows::put(arguments).map(Work::Write),
                Builtin::TableDelete => rows::delete(arguments).map(Work::Write),
                Builtin::TableCompareAndPut => rows::compare_and_put(arguments).map(Work::Write),
                Builtin::TableAdd => rows::add(arguments).map(Work::Write),
                Builtin::TestSleep => {
                    let Sleep { ms } = read(arguments)?;
                    Ok(Work::Sleep(Duration::from_millis(ms)))
                }
                Builtin::TableGet
                | Builtin::TableScan
                | Builtin::DatasetGet
                | Builtin::DatasetScan
                | Builtin::DatasetDescribe
                | Builtin::FunctionsList
                | Builtin::TestEcho => Ok(Work::Look(*builtin)),
            },
        }
    }
}

/// What the tables know of a call before it is done.
pub(super) enum Known {
    NoSession,
    Done(Outcome),
    Gone { number: u64, floor: u64 },
    New(Option<Caller>),
}

pub(super) fn known(
    store: &Store,
    session: SessionKey,
    numbered: Option<Numbered>,
    wants_caller: bool,
) -> Known {
    let Some(row) = store.get(SESSIONS, &session.0) else { return Known::NoSession };
    if let Some(Numbered { number, .. }) = numbered {
        match store.seen(session, number) {
            Seen::New => {}
            Seen::Done(reply) => return Known::Done(outcome_of_reply(reply)),
            Seen::Gone { floor } => return Known::Gone { number, floor },
        }
    }
    let caller = wants_caller.then(|| Session::decode(&row.value).ok()).flatten();
    Known::New(caller.map(|Session { user, user_token, .. }| Caller { session, user, user_token }))
}

/// A write of a session that the writer has. Whoever waits for it may go away: it is waited for to
/// its end, so that duplicates are told and the session's order is kept.
struct InHands {
    slot: Option<Slot<Outcome>>,
    verdict: oneshot::Receiver<Verdict>,
}

impl InHands {
    async fn outcome(mut self) -> Outcome {
        let verdict = (&mut self.verdict).await.ok();
        let slot = self.slot.take().expect("taken at the end only");
        ended(slot, outcome_of(verdict))
    }
}

impl Drop for InHands {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let verdict = std::mem::replace(&mut self.verdict, oneshot::channel().1);
        // Without a runtime the process ends, and nobody waits any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { slot.finish(&outcome_of(verdict.await.ok())) });
        }
    }
}

/// The end of a call: whoever else waits for it is told the same.
fn ended(slot: Slot<Outcome>, outcome: Outcome) -> Outcome {
    slot.finish(&outcome);
    outcome
}

fn outcome_of(verdict: Option<Verdict>) -> Outcome {
    outcome_of_reply(&settled(verdict)?)
}

fn write(numbered: Option<Numbered>, operation: Operation) -> Request {
    Request {
        ticket: 0,
        numbered,
        reads: Vec::new(),
        operations: vec![operation],
        reply: ReplyPlan::Results,
    }
}

/// What is wrong with a call whatever it calls.
fn check(body: &CallText<'_>) -> Result<(), Failure> {
    let malformed = |what: &str| Err(Failure::Malformed(what.to_owned()));
    if body.is_async && body.session.is_none() {
        return malformed("`async` wants a `session`, for which its answer is kept");
    }
    match (body.request, &body.session) {
        (Some(0), _) => malformed("`request` is 0: numbers begin at 1"),
        (Some(_), None) => malformed("`request` is a number within a `session`, and none is given"),
        (Some(_) | None, Some(_)) | (None, None) => Ok(()),
    }
}

fn wants_session(function: &Registered) -> bool {
    match &function.does {
        Does::Builtin(builtin) => builtin.wants_session(),
        Does::Library(_) | Does::Sidecar(_) => true,
    }
}

/// How often a function of the library decides anew before its call is refused.
pub(super) const DECISIONS_MAX: usize = 16;
