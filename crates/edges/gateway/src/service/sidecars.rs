//! A call of another program's function: its intent first, then the program, then what it changed and
//! its reply in one record.
//!
//! ```text
//! room? connected? ─▶ intent ─ acknowledged ─▶ gate ─▶ program ─▶ one record: changes, reply, no intent
//!      │ no: 308000006     │                     ▲         │
//!      ▼                   │ found there:        └─────────┤ no whole answer, and idempotent
//!  nothing was done        └ idempotent: go on             └ else: 308000012, kept like a reply
//! ```
//!
//! Whoever finds an intent that nobody is at cannot know whether the program was called: the one who was
//! to call it died, or lost the mastership. So the call is not begun again, unless the program promises
//! that a second one with the same key has no effect. What came of a call is a reply under its number
//! whatever it was, also a failure: the program is not asked twice.
//!
//! The whole of it happens inside the gate, with a pass of its own: whoever waits for the gate to be empty
//! waits for the program. Its caller may leave before; the answer is then waited for a while longer and
//! kept for whoever asks under the number. A mastership that is over waits for nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::{
    Bytes, Numbered, Operation, OperationResult, Read, Refusal, Reply, ReplyPlan, Request,
    SessionKey, Verdict,
};
use hotpair_core::tables::intents::{self, Beginning, INTENTS, Intent};
use hotpair_core::tables::planted::TablesBug;
use hotpair_core::tables::tickets::RESULTS;
use hotpair_core::tables::window::Seen;
use hotpair_http::{ClientError, Connection};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::failure::{Failure, Remembered, outcome_of_reply};
use super::tickets::{Ticket, put_answer};
use super::{ClientService, Outcome};
use crate::function::Caller;
use crate::gate::{Pass, Refused};
use crate::shown::shown;
use crate::sidecar::{Changed, PATIENCE, Sidecar, Told, Which};
use crate::tables::{NotCommitted, settled};

/// One call of a program.
pub(super) struct Errand {
    pub(super) sidecar: Arc<Sidecar>,
    pub(super) function: u32,
    pub(super) arguments: String,
    pub(super) caller: Option<Caller>,
    pub(super) keep: Keep,
    pub(super) pass: Pass,
}

/// Where what came of a call is kept.
#[derive(Clone, Debug)]
pub(super) enum Keep {
    /// Nowhere: without a number nobody can ask for it again.
    Nowhere,
    /// Among the session's replies.
    Reply(Numbered),
    /// In the row of an asynchronous call, as long as it is the one that was accepted.
    Row(Ticket, Read),
}

/// An intent on its way.
struct Intention {
    key: Bytes,
    verdict: oneshot::Receiver<Verdict>,
}

impl ClientService {
    /// Calls a program, and keeps what came of it. Errors that are no [`Failure::Remembered`] are kept
    /// nowhere.
    pub(super) async fn errand(&self, errand: &Errand) -> Outcome {
        let Errand { sidecar, function, .. } = errand;
        let row = errand.keep.row();
        let found = row.as_ref().and_then(|key| self.intent(key));
        let known = found.as_ref().map(|(intent, _)| *intent);
        match intents::begin(known, sidecar.settings().idempotent) {
            Beginning::First | Beginning::Again => {}
            Beginning::Unknown => return self.give_up_unknown(errand, row, found).await,
        }
        let again = found.is_some();
        // Of a call that another mastership had begun nobody says that it was not executed.
        let nothing_done = |failure| match again {
            true => Failure::TimedOut { function: *function, limit: sidecar.settings().timeout },
            false => failure,
        };
        let Some(_room) = sidecar.enter() else {
            let (function, concurrency) = (*function, sidecar.settings().concurrency);
            return Err(nothing_done(Failure::SidecarFull { function, concurrency }));
        };
        // Before anything is written down: a program that is not there was not called.
        let connected = sidecar.connect().await;
        let mut connection = match connected {
            Ok(connection) => Some(connection),
            Err(error) => return Err(nothing_done(absent(sidecar, *function, &error))),
        };
        (self.reached)("sidecar.begin");
        let mut intention = match row {
            Some(key) => Some(self.intend(errand, key, found)?),
            None => None,
        };
        let mut intended = None;
        if !self.planted.has(TablesBug::ProgramBeforeIntent) {
            intended = acknowledged(intention.take()).await?;
        }
        (self.reached)("intent.acknowledged");
        // That may have taken longer than the program keeps a connection on which nothing comes.
        if connection.as_ref().is_some_and(|connection| !connection.is_open()) {
            connection = match sidecar.connect().await {
                Ok(connection) => Some(connection),
                Err(error) if !again => {
                    if let Some(intended) = intended {
                        self.withdraw(errand, intended).await?;
                    }
                    return Err(absent(sidecar, *function, &error));
                }
                Err(_) => None,
            };
        }
        let until = Instant::now() + sidecar.settings().timeout * PATIENCE;
        let told = self.call_program(errand, connection, again, until).await?;
        (self.reached)("program.answered");
        if let Some(late) = acknowledged(intention).await? {
            intended = Some(late);
        }
        self.settle(errand, intended, told).await
    }

    /// The intent of a call, and the row's version.
    fn intent(&self, key: &[u8]) -> Option<(Intent, u64)> {
        self.tables.look(|store| {
            let row = store.get(INTENTS, key)?;
            // One that cannot be read is one all the same.
            let unread = Intent { function: 0, epoch: Epoch(0) };
            Some((Intent::decode(&row.value).unwrap_or(unread), row.version))
        })
    }

    /// Whether an asynchronous call that is not tried any more had been begun by somebody: then its end
    /// says that nobody knows what became of it.
    pub(super) async fn give_up(&self, errand: &Errand) -> bool {
        let row = errand.keep.row();
        let Some(found) = row.as_ref().and_then(|key| self.intent(key)) else { return false };
        // What is not kept now is looked at again by whoever serves next.
        let _ = self.give_up_unknown(errand, row, Some(found)).await;
        true
    }

    async fn give_up_unknown(
        &self,
        errand: &Errand,
        row: Option<Bytes>,
        found: Option<(Intent, u64)>,
    ) -> Outcome {
        let (Some(key), Some((intent, version))) = (row, found) else {
            unreachable!("only an intent that was found is of unknown outcome")
        };
        let function = errand.function;
        tracing::warn!(
            function, epoch = %errand.pass.epoch(), begun_in = %intent.epoch,
            "nobody knows what became of a call of a program, which another mastership had begun"
        );
        let text = format!(
            "function {function} was being called in epoch {} when that ended; whether it was \
             executed, nobody here knows",
            intent.epoch
        );
        let outcome = Err(Remembered::unknown(text, json!({"begun_in": intent.epoch.0})).into());
        self.keep(errand, Some(read_of(&key, version)), outcome, Changed::default()).await
    }

    /// Says that the program is about to be called; it is not, before that is acknowledged.
    fn intend(
        &self,
        errand: &Errand,
        key: Bytes,
        found: Option<(Intent, u64)>,
    ) -> Result<Intention, Failure> {
        let epoch = errand.pass.epoch();
        let intent = Intent { function: errand.function, epoch };
        let mut operations = vec![Operation::Put {
            table: INTENTS.into(),
            key: key.clone(),
            value: intent.encode().into(),
        }];
        let session = errand.keep.session().expect("a row belongs to a session");
        operations.extend(self.stale_intents(session));
        let mut reads = vec![read_of(&key, found.map_or(0, |(_, version)| version))];
        match &errand.keep {
            Keep::Row(_, accepted) => reads.push(accepted.clone()),
            // Whoever is not numbered is not asked for the session by the writer.
            Keep::Reply(_) | Keep::Nowhere => reads.push(self.session_read(session)),
        }
        let request =
            Request { ticket: 0, numbered: None, reads, operations, reply: ReplyPlan::Results };
        let verdict = self.tables.submit(epoch, request)?;
        Ok(Intention { key, verdict })
    }

    /// Intents of requests that are too old to be asked for again.
    fn stale_intents(&self, session: SessionKey) -> Vec<Operation> {
        self.tables.look(|store| {
            let rows = store.table(INTENTS).into_iter().flat_map(|rows| rows.scan(&session.0));
            let of_session = rows.map(|(key, _)| key).take_while(|k| k.starts_with(&session.0));
            let stale = of_session.filter(|key| {
                let number = key
                    .get(session.0.len()..)
                    .and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
                number.is_some_and(|number| {
                    matches!(store.seen(session, number), Seen::Gone { .. })
                        && store.get(RESULTS, key).is_none()
                })
            });
            stale.take(STALE_MAX).map(delete).collect()
        })
    }

    /// Calls the program until it has answered, or may not be called again, or the time is over.
    async fn call_program(
        &self,
        errand: &Errand,
        mut connection: Option<Connection>,
        mut again: bool,
        until: Instant,
    ) -> Result<Told, Failure> {
        let Errand { sidecar, arguments, pass, .. } = errand;
        let which = errand.which();
        let mut told = Told::Nothing("the time was over".to_owned());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(told);
            }
            let made = match connection.take() {
                Some(made) => Some(made),
                None => sidecar.connect().await.ok(),
            };
            if let Some(made) = made {
                // The right to act, right before the effect.
                pass.confirm().map_err(|_| Failure::Superseded)?;
                let called = sidecar.call(made, &which, again, arguments, left);
                told = tokio::select! {
                    told = called => told,
                    () = left_for_good(pass) => return Err(Failure::Superseded),
                };
                if again && told == Told::Later {
                    // Nothing this time; what it did before stays open.
                    told = Told::Nothing("the program answered with status 503".to_owned());
                }
                again = true;
            }
            match &told {
                Told::Nothing(_) if sidecar.settings().idempotent => sleep(PAUSE).await,
                Told::Nothing(_)
                | Told::Done { .. }
                | Told::Failed { .. }
                | Told::Later
                | Told::Unusable(_) => return Ok(told),
            }
            pass.confirm().map_err(|_| Failure::Superseded)?;
        }
    }

    /// What the program said becomes the outcome, and is kept.
    async fn settle(&self, errand: &Errand, intended: Option<Read>, told: Told) -> Outcome {
        let function = errand.function;
        match told {
            Told::Done { data, changed } => self.keep(errand, intended, Ok(data), changed).await,
            Told::Failed { text, data } => {
                let outcome = Err(Remembered::failed(text, data).into());
                self.keep(errand, intended, outcome, Changed::default()).await
            }
            Told::Later => {
                if let Some(intended) = intended {
                    self.withdraw(errand, intended).await?;
                }
                let why = "the program answered with status 503".to_owned();
                Err(Failure::SidecarAbsent { function, why })
            }
            // What is asked again under the same key is asked for by its caller.
            Told::Nothing(_)
                if errand.sidecar.settings().idempotent
                    && matches!(errand.keep, Keep::Reply(_)) =>
            {
                Err(Failure::TimedOut { function, limit: errand.sidecar.settings().timeout })
            }
            Told::Nothing(why) | Told::Unusable(why) => {
                tracing::warn!(function, why, "nobody knows what became of a call of a program");
                let text = format!("whether function {function} was executed, nobody knows: {why}");
                let outcome = Err(Remembered::unknown(text, json!({"reason": why})).into());
                self.keep(errand, intended, outcome, Changed::default()).await
            }
        }
    }

    /// The program did nothing: it may be called for the first time once more.
    async fn withdraw(&self, errand: &Errand, intended: Read) -> Result<(), Failure> {
        let operations = vec![delete(&intended.key)];
        let reads = vec![intended];
        let request =
            Request { ticket: 0, numbered: None, reads, operations, reply: ReplyPlan::Results };
        match self.commit_inside(&errand.pass, request).await {
            // Gone with its session.
            Ok(_) | Err(NotCommitted::Conflict) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// Commits what came of a call where it is to be kept, with its changes, in one record.
    async fn keep(
        &self,
        errand: &Errand,
        intended: Option<Read>,
        outcome: Outcome,
        changed: Changed,
    ) -> Outcome {
        if matches!(errand.keep, Keep::Nowhere) && changed == Changed::default() {
            return outcome;
        }
        let request = errand.record(intended.as_ref(), &outcome, changed.clone());
        let refused = match self.commit_inside(&errand.pass, request).await {
            Ok(reply) => {
                (self.reached)("reply.acknowledged");
                return errand.keep.kept(&reply, outcome);
            }
            Err(NotCommitted::Conflict) if changed == Changed::default() => {
                // The call was ended by somebody else, or its session.
                return Err(Failure::Superseded);
            }
            Err(NotCommitted::Conflict) => Remembered::failed(
                "the program ran, and none of its changes was made: a row that they depend on has \
                 another version"
                    .to_owned(),
                json!({"conflict": true}),
            ),
            Err(NotCommitted::Refused(
                refusal @ (Refusal::NotANumber { .. } | Refusal::TooLarge { .. }),
            )) => Remembered::failed(
                format!("the program ran, and none of its changes was made: {refusal}"),
                json!({"refused": true}),
            ),
            Err(NotCommitted::Refused(Refusal::SessionUnknown | Refusal::TooOld { .. })) => {
                return Err(unkept(errand.function, outcome));
            }
            Err(other) => return Err(other.into()),
        };
        if matches!(errand.keep, Keep::Nowhere) {
            return Err(refused.into());
        }
        let outcome = Err(refused.into());
        let request = errand.record(intended.as_ref(), &outcome, Changed::default());
        match self.commit_inside(&errand.pass, request).await {
            Ok(reply) => errand.keep.kept(&reply, outcome),
            Err(NotCommitted::Conflict) => Err(Failure::Superseded),
            Err(other) => Err(other.into()),
        }
    }

    /// Commits with a pass that was given before. Tables that have no room are waited out as long as
    /// the epoch lasts: what is to be written is known to nobody else.
    async fn commit_inside(&self, pass: &Pass, request: Request) -> Result<Reply, NotCommitted> {
        loop {
            match self.tables.commit(pass.epoch(), request.clone()).await {
                Err(NotCommitted::Unsubmitted(_) | NotCommitted::Refused(Refusal::Busy(_))) => {}
                settled => return settled,
            }
            sleep(PAUSE).await;
            if is_left(pass) {
                return Err(NotCommitted::Superseded);
            }
        }
    }
}

impl Keep {
    fn session(&self) -> Option<SessionKey> {
        match self {
            Self::Nowhere => None,
            Self::Reply(numbered) => Some(numbered.session),
            Self::Row(ticket, _) => Some(ticket.session),
        }
    }

    /// What is told: what stands under the number, and nothing else.
    fn kept(&self, reply: &Reply, outcome: Outcome) -> Outcome {
        match self {
            Self::Reply(_) => outcome_of_reply(reply),
            Self::Nowhere | Self::Row(..) => outcome,
        }
    }

    /// Where the intent stands; nowhere for what nobody can ask for again.
    fn row(&self) -> Option<Bytes> {
        match self {
            Self::Nowhere => None,
            Self::Reply(numbered) => {
                Some(intents::row_key(numbered.session, &numbered.number.to_string()))
            }
            Self::Row(ticket, _) => Some(ticket.key.clone()),
        }
    }
}

impl Errand {
    fn which(&self) -> Which {
        let request = match &self.keep {
            Keep::Reply(numbered) => Some(numbered.number),
            Keep::Row(ticket, _) => ticket.name().parse().ok(),
            Keep::Nowhere => None,
        };
        let key = match &self.keep {
            Keep::Nowhere => random_key(),
            Keep::Reply(numbered) => {
                intents::idempotency_key(numbered.session, &numbered.number.to_string())
            }
            Keep::Row(ticket, _) => intents::idempotency_key(ticket.session, ticket.name()),
        };
        Which {
            function: self.function,
            epoch: self.pass.epoch(),
            session: self.caller.as_ref().map(|caller| caller.session),
            user: self.caller.as_ref().map(|caller| caller.user.clone()),
            request,
            key,
        }
    }

    /// The record that ends the call.
    fn record(&self, intended: Option<&Read>, outcome: &Outcome, changed: Changed) -> Request {
        let Changed { mut reads, mut operations } = changed;
        if let Some(read) = intended {
            operations.push(delete(&read.key));
            reads.push(read.clone());
        }
        let said = || match outcome {
            Ok(data) => data.bytes().into(),
            Err(Failure::Remembered(remembered)) => remembered.encode(),
            Err(other) => Remembered::failed(other.to_string(), json!({})).encode(),
        };
        let (numbered, reply) = match &self.keep {
            Keep::Nowhere => (None, ReplyPlan::Fixed(said())),
            Keep::Reply(numbered) => (Some(*numbered), ReplyPlan::Fixed(said())),
            Keep::Row(ticket, accepted) => {
                reads.push(accepted.clone());
                operations.push(put_answer(ticket, outcome));
                (None, ReplyPlan::Results)
            }
        };
        Request { ticket: 0, numbered, reads, operations, reply }
    }
}

/// The program is not there; said to its operator once in a while.
fn absent(sidecar: &Sidecar, function: u32, error: &ClientError) -> Failure {
    let why = shown(&error.to_string());
    if let Some(left_out) = sidecar.complaints.due() {
        tracing::warn!(function, why, left_out, "the program of a function is not there");
    }
    Failure::SidecarAbsent { function, why }
}

/// What came of a call whose session ended meanwhile: it is kept nowhere, and nobody may take it for a
/// call that was not executed.
fn unkept(function: u32, outcome: Outcome) -> Failure {
    match outcome {
        Err(failure) => failure,
        Ok(_) => {
            let text = format!(
                "function {function} was called, and the session ended before what it said was kept: \
                 what it did outside is done, and what it wanted to change here is not"
            );
            Remembered::unknown(text, json!({"session_over": true})).into()
        }
    }
}

/// Waits until an intent is acknowledged, and is what the end of the call depends on.
async fn acknowledged(intention: Option<Intention>) -> Result<Option<Read>, Failure> {
    let Some(Intention { key, verdict }) = intention else { return Ok(None) };
    match settled(verdict.await.ok()) {
        Ok(Reply::Results(results)) => match results.first() {
            Some(OperationResult::Put { version }) => Ok(Some(read_of(&key, *version))),
            other => unreachable!("a put came to {other:?}"),
        },
        Ok(Reply::Fixed(_)) => unreachable!("results were asked for"),
        // The session ended, or somebody else is at the asynchronous call.
        Err(NotCommitted::Conflict) => Err(Failure::SessionUnknown),
        Err(other) => Err(other.into()),
    }
}

/// Whether the epoch of a pass is over; one whose lease is late may still go on.
fn is_left(pass: &Pass) -> bool {
    matches!(pass.confirm(), Err(Refused::Closed | Refused::OtherEpoch))
}

/// Over once the epoch of a pass is.
async fn left_for_good(pass: &Pass) {
    while !is_left(pass) {
        sleep(PAUSE).await;
    }
}

fn read_of(key: &Bytes, version: u64) -> Read {
    Read { table: INTENTS.into(), key: key.clone(), version }
}

fn delete(key: &Bytes) -> Operation {
    Operation::Delete { table: INTENTS.into(), key: key.clone() }
}

/// For a call without a number: no other call has it.
fn random_key() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes once it has started");
    format!("{:032x}-x", u128::from_be_bytes(bytes))
}

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Intents that are let go with a new one.
const STALE_MAX: usize = 256;
