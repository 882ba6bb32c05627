//! Calls of a program beside the nodes, as the gateway makes them: the intent first, then the program, then
//! one record that ends the call; each by the master that it came to, which may die or be frozen in
//! between. Half of the programs may be called again.
//!
//! ```text
//! client ─▶ door ─▶ intent ──acknowledged──▶ may it act? ─▶ program: an effect ─▶ record ─▶ answer
//!            └ an intent that nobody is at: called again, or answered as of unknown outcome
//! ```
//!
//! The program itself does not die here, and what it does lasts.

use std::collections::BTreeMap;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::SESSIONS;
use hotpair_core::tables::change::{
    Bytes, Numbered, Operation, OperationResult, Read, Refusal, Reply, ReplyPlan, Request,
    SessionKey, Verdict,
};
use hotpair_core::tables::intents::{self, Beginning, INTENTS, Intent};
use hotpair_core::tables::planted::TablesBug;
use hotpair_core::tables::window::Seen;

use crate::clock::{MS, Micros};

use super::check::Rule;
use super::world::{Event, World};

/// A call of a program, as its client asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    pub(super) client: usize,
    pub(super) numbered: Numbered,
    pub(super) sent: Micros,
}

/// Where a master is with a call; it dies with the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) host: usize,
    pub(super) life: u64,
    pub(super) epoch: Epoch,
}

/// What a request to the tables is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To say that the program is about to be called.
    Intent,
    /// To end the call.
    End,
}

impl Errand {
    /// Its program may be called again under the same key.
    fn is_idempotent(&self) -> bool {
        self.numbered.number.is_multiple_of(2)
    }

    fn name(&self) -> (SessionKey, u64) {
        (self.numbered.session, self.numbered.number)
    }

    fn request(&self) -> Request {
        let (numbered, reply) = (Some(self.numbered), ReplyPlan::Results);
        Request { ticket: 0, numbered, reads: Vec::new(), operations: Vec::new(), reply }
    }

    fn row(&self) -> Bytes {
        intents::row_key(self.numbered.session, &self.numbered.number.to_string())
    }
}

impl World {
    /// A client's call is on its way.
    pub(super) fn send_errand(&mut self, errand: Errand, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        let at = At { host, life: process.life, epoch: process.gate.unwrap_or_default() };
        let wait = self.rng.u64(50..2 * MS);
        self.after(wait, Event::Errand { errand, at });
    }

    /// It comes to the door.
    pub(super) fn handle_errand(&mut self, errand: Errand, at: At) {
        if !self.is_there(at) {
            return;
        }
        let process = self.hosts[at.host].process.as_mut().expect("it is there");
        let session = errand.numbered.session;
        match process.store.seen(session, errand.numbered.number) {
            Seen::New => {}
            Seen::Done(reply) => {
                let reply = reply.clone();
                return self.answer_errand(errand, at, &Verdict::Done { reply, number: 0 });
            }
            Seen::Gone { floor } => {
                let number = errand.numbered.number;
                return self.refuse_errand(errand, at, Refusal::TooOld { number, floor });
            }
        }
        if process.errands.get(&errand.name()).is_some_and(|epoch| *epoch >= at.epoch) {
            return; // somebody is at it
        }
        let version =
            |table: &str, key: &[u8]| process.store.get(table, key).map_or(0, |row| row.version);
        let session_row = version(SESSIONS, &session.0);
        if session_row == 0 {
            return self.refuse_errand(errand, at, Refusal::SessionUnknown);
        }
        let row = errand.row();
        let found = process
            .store
            .get(INTENTS, &row)
            .map(|row| Intent::decode(&row.value).expect("an intent is as it was written"));
        let seen = version(INTENTS, &row);
        process.errands.insert(errand.name(), at.epoch);
        let read = |table: &str, key: &[u8], version| Read {
            table: table.into(),
            key: key.into(),
            version,
        };
        let reads = vec![read(SESSIONS, &session.0, session_row), read(INTENTS, &row, seen)];
        match intents::begin(found, errand.is_idempotent()) {
            Beginning::First | Beginning::Again => {
                let value = Intent { function: 1, epoch: at.epoch }.encode().into();
                let operations = vec![Operation::Put { table: INTENTS.into(), key: row, value }];
                let reply = ReplyPlan::Results;
                let request = Request { ticket: 0, numbered: None, reads, operations, reply };
                self.submit_errand(errand, at, request, Purpose::Intent);
                if self.options.planted.has(TablesBug::ProgramBeforeIntent) {
                    self.call_program(errand);
                }
            }
            Beginning::Unknown => self.end_errand(errand, at, seen, b"unknown"),
        }
    }

    /// Not dead, not frozen, and serving what it served.
    fn is_there(&self, at: At) -> bool {
        let process = self.hosts[at.host].process.as_ref();
        self.may_act(at.host)
            && process.is_some_and(|p| p.life == at.life && p.gate == Some(at.epoch))
    }

    fn submit_errand(&mut self, errand: Errand, at: At, request: Request, purpose: Purpose) {
        let ticket = self.give_ticket(errand.client, at, request, Some((errand, purpose)));
        let wait = self.rng.u64(10..MS);
        self.after(wait, Event::Submit { ticket });
    }

    /// The tables have settled a request of a call.
    pub(super) fn handle_settled(
        &mut self,
        errand: Errand,
        at: At,
        purpose: Purpose,
        verdict: &Verdict,
    ) {
        match (purpose, verdict) {
            (Purpose::Intent, Verdict::Done { reply: Reply::Results(results), .. }) => {
                let [OperationResult::Put { version }] = results[..] else {
                    unreachable!("an intent is one put")
                };
                if !self.is_there(at) {
                    return self.forget_errand(errand, at);
                }
                // Acknowledged like anything else: it must last, or be among what is forgiven.
                let intent = Request { numbered: None, ..errand.request() };
                self.check_answer(at.host, &intent, verdict);
                if !self.options.planted.has(TablesBug::ProgramBeforeIntent) {
                    self.call_program(errand);
                }
                let wait = self.rng.u64(50..30 * MS);
                self.after(wait, Event::ProgramSaid { errand, at, version });
            }
            (Purpose::End, Verdict::Done { .. }) => {
                self.forget_errand(errand, at);
                self.answer_errand(errand, at, verdict);
            }
            // A conflict, or no room: whoever asks again begins again.
            (Purpose::Intent | Purpose::End, _) => self.forget_errand(errand, at),
        }
    }

    /// The program does what it does.
    fn call_program(&mut self, errand: Errand) {
        let effects = self.effects.entry(errand.name()).or_default();
        *effects += 1;
        let (effects, forgiven) = (*effects, self.outcome.forgiven > 0 || self.plan.ack_local);
        self.outcome.programs.0 += 1;
        if effects > 1 && !errand.is_idempotent() && !forgiven {
            let (session, number) = errand.name();
            let what = format!(
                "the program of request {number} of session {:02x} was called {effects} times",
                session.0[0]
            );
            self.check.broken(Rule::Effect, what);
        }
    }

    /// And says so to whoever called it, if that one is still there.
    pub(super) fn handle_program_said(&mut self, errand: Errand, at: At, version: u64) {
        if self.is_there(at) {
            self.end_errand(errand, at, version, b"done");
        } else {
            self.forget_errand(errand, at);
        }
    }

    fn end_errand(&mut self, errand: Errand, at: At, version: u64, said: &[u8]) {
        let key = errand.row();
        let reads = vec![Read { table: INTENTS.into(), key: key.clone(), version }];
        let operations = vec![Operation::Delete { table: INTENTS.into(), key }];
        let numbered = Some(errand.numbered);
        let reply = ReplyPlan::Fixed(said.into());
        let request = Request { ticket: 0, numbered, reads, operations, reply };
        self.submit_errand(errand, at, request, Purpose::End);
    }

    fn forget_errand(&mut self, errand: Errand, at: At) {
        let process = self.hosts[at.host].process.as_mut();
        if let Some(process) = process.filter(|process| process.life == at.life) {
            process.errands.retain(|name, epoch| *name != errand.name() || *epoch != at.epoch);
        }
    }

    fn answer_errand(&mut self, errand: Errand, at: At, verdict: &Verdict) {
        if !self.is_there(at) {
            return;
        }
        self.outcome.answers += 1;
        self.check_answer(at.host, &errand.request(), verdict);
        if let Verdict::Done { reply: Reply::Fixed(said), .. } = verdict {
            let effects = self.effects.get(&errand.name()).copied().unwrap_or_default();
            if **said == *b"done" && effects == 0 {
                let what =
                    format!("request {} is done without its program", errand.numbered.number);
                self.check.broken(Rule::Effect, what);
            }
            self.outcome.programs.1 += u64::from(**said == *b"unknown");
        }
        if self.rng.u32(0..20) != 0 {
            self.clients[errand.client].hear_errand(errand.numbered);
        }
    }

    /// Only after a loss that is allowed, or to one that does not wait any more.
    fn refuse_errand(&mut self, errand: Errand, at: At, refusal: Refusal) {
        self.check_answer(at.host, &errand.request(), &Verdict::Refused(refusal));
        let client = &mut self.clients[errand.client];
        if client.waits_for(&errand.request()) {
            client.begin_session();
        }
    }
}

/// How often the program had its effect, by request.
pub(super) type Effects = BTreeMap<(SessionKey, u64), u32>;
