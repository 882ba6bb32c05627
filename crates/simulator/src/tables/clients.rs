//! Clients with sessions: numbered requests, sent again until they are answered, now and then twice
//! on purpose; and readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::SESSIONS;
use hotpair_core::tables::change::{
    Bytes, Numbered, Operation, Read, Refusal, ReplyPlan, Request, SessionKey, Verdict,
};

use crate::clock::{MS, Micros};

use super::host::Input;
use super::programs::{At, Errand, Purpose};
use super::world::{Event, World};

/// The table of counters.
pub(super) const COUNTERS: &str = "counters";
/// The table of rows that are put, compared and deleted.
pub(super) const ROWS: &str = "rows";
/// The table that nobody touches after the start.
pub(super) const BALLAST: &str = "ballast";
/// How many there are.
pub(super) const CLIENTS: usize = 6;
/// Requests of one client under way.
const OUTSTANDING_MAX: usize = 3;
/// A request is sent again after so long.
const AGAIN: Micros = 350 * MS;
/// Rows of ballast.
const BALLAST_ROWS: u64 = 4;

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    session: SessionKey,
    logged_in: bool,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Calls of programs that it waits for, by number.
    errands: BTreeMap<u64, Errand>,
    /// Something that was answered, to be sent once more.
    answered: Option<Request>,
    plain: u64,
    ballast: u64,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    sent: Micros,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Ticket {
    client: usize,
    request: Request,
    host: usize,
    life: u64,
    epoch: Epoch,
    /// The call of a program that it is part of.
    errand: Option<(Errand, Purpose)>,
}

impl Client {
    pub(super) fn new(client: usize) -> Self {
        let mut session = [0; 16];
        session[0] = u8::try_from(client).expect("few clients") + 1;
        Self {
            session: SessionKey(session),
            logged_in: false,
            next: 1,
            waiting: BTreeMap::new(),
            errands: BTreeMap::new(),
            answered: None,
            plain: 0,
            ballast: if client == 0 { BALLAST_ROWS } else { 0 },
        }
    }

    /// It still wants an answer to this.
    pub(super) fn waits_for(&self, request: &Request) -> bool {
        request.numbered.is_some_and(|numbered| {
            let number = &numbered.number;
            let waits = self.waiting.contains_key(number) || self.errands.contains_key(number);
            numbered.session == self.session && waits
        })
    }

    pub(super) fn idle(&self) -> bool {
        self.outstanding() == 0 && self.logged_in && self.ballast == 0
    }

    fn outstanding(&self) -> usize {
        self.waiting.len() + self.errands.len()
    }

    /// What came of a call of a program.
    pub(super) fn hear_errand(&mut self, numbered: Numbered) {
        if numbered.session == self.session {
            self.errands.remove(&numbered.number);
        }
    }

    /// The next number of a request.
    fn numbered(&mut self) -> Numbered {
        let number = self.next;
        self.next += 1;
        let first = self.waiting.keys().chain(self.errands.keys()).min();
        let done_up_to = first.map_or(number - 1, |first| first - 1);
        Numbered { session: self.session, number, done_up_to }
    }

    pub(super) fn begin_session(&mut self) {
        for byte in &mut self.session.0[1..] {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        self.logged_in = false;
        self.waiting.clear();
        self.errands.clear();
        self.answered = None;
        self.next = 1;
    }
}

fn request(numbered: Option<Numbered>, operations: Vec<Operation>) -> Request {
    Request { ticket: 0, numbered, reads: Vec::new(), operations, reply: ReplyPlan::Results }
}

fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}

impl World {
    /// The node that serves, if any does: its gate is open and its lease not over.
    pub(super) fn serving(&self) -> Option<usize> {
        (0..2).find(|host| self.may_act(*host))
    }

    pub(super) fn may_act(&self, host: usize) -> bool {
        let slot = &self.hosts[host];
        let Some(process) = slot.process.as_ref().filter(|_| !slot.paused) else { return false };
        process.gate.is_some() && self.now < process.agent.lease_until()
    }

    pub(super) fn handle_client(&mut self, client: usize) {
        let every =
            if self.storm.over { self.plan.client_every / 2 } else { self.plan.client_every };
        let wait = every / 2 + self.rng.u64(0..every);
        self.after(wait, Event::Client { client });
        let Some(host) = self.serving() else { return };
        if !self.clients[client].logged_in {
            return self.log_in(client, host);
        }
        if self.clients[client].ballast > 0 {
            return self.put_ballast(client, host);
        }
        if self.rng.u32(0..3) == 0 {
            self.read(client, host);
        }
        self.send_again(client, host);
        if self.clients[client].outstanding() < OUTSTANDING_MAX && !self.ending {
            self.send_new(client, host);
        }
    }

    fn log_in(&mut self, client: usize, host: usize) {
        let key: Bytes = self.clients[client].session.0.as_slice().into();
        let put = Operation::Put { table: SESSIONS.into(), key, value: bytes("user") };
        self.submit(client, host, request(None, vec![put]));
    }

    fn put_ballast(&mut self, client: usize, host: usize) {
        let number = self.clients[client].ballast;
        let size = if self.plan.heavy { 130_000 } else { 20 };
        let value: Bytes = vec![u8::try_from(number).expect("few rows"); size].into();
        let key = bytes(&format!("ballast {number}"));
        let put = Operation::Put { table: BALLAST.into(), key, value };
        self.submit(client, host, request(None, vec![put]));
    }

    fn read(&mut self, client: usize, host: usize) {
        let (table, key) = self.some_row(client);
        let _ = self.check_read(host, &table, &key);
    }

    fn some_row(&mut self, client: usize) -> (Arc<str>, Bytes) {
        match self.rng.u32(0..3) {
            0 => (COUNTERS.into(), bytes(&format!("counter {}", self.rng.u32(0..4)))),
            1 => (ROWS.into(), bytes(&format!("row {}", self.rng.u32(0..8)))),
            _ => (ROWS.into(), bytes(&format!("own {client}"))),
        }
    }

    fn send_again(&mut self, client: usize, host: usize) {
        let now = self.now;
        let mut again = Vec::new();
        for waiting in self.clients[client].waiting.values_mut() {
            let impatient = self.rng.u32(0..12) == 0;
            if impatient || now >= waiting.sent + AGAIN {
                waiting.sent = now;
                again.push(waiting.request.clone());
            }
        }
        if self.rng.u32(0..6) == 0 {
            again.extend(self.clients[client].answered.clone());
        }
        for request in again {
            self.submit(client, host, request);
        }
        let mut errands = Vec::new();
        for errand in self.clients[client].errands.values_mut() {
            if now >= errand.sent + AGAIN {
                errand.sent = now;
                errands.push(*errand);
            }
        }
        for errand in errands {
            self.send_errand(errand, host);
        }
    }

    fn send_new(&mut self, client: usize, host: usize) {
        let lone = self.rng.u32(0..12) == 0;
        if self.rng.u32(0..60) == 0 && self.clients[client].outstanding() == 0 {
            // It logs out, and begins anew as somebody else.
            let key: Bytes = self.clients[client].session.0.as_slice().into();
            let delete = Operation::Delete { table: SESSIONS.into(), key };
            self.clients[client].begin_session();
            return self.submit(client, host, request(None, vec![delete]));
        }
        if self.rng.u32(0..8) == 0 {
            let (sent, waits) = (self.now, &mut self.clients[client]);
            let errand = Errand { client, numbered: waits.numbered(), sent };
            waits.errands.insert(errand.numbered.number, errand);
            return self.send_errand(errand, host);
        }
        let operations = self.some_operations(client);
        if lone {
            self.clients[client].plain += 1;
            return self.submit(client, host, request(None, self.plain_operations(client)));
        }
        let reads = if self.rng.u32(0..10) == 0 {
            let (table, key) = self.some_row(client);
            let version = self.check_read(host, &table, &key);
            vec![Read { table, key, version }]
        } else {
            Vec::new()
        };
        let now = self.now;
        let waits = &mut self.clients[client];
        let numbered = waits.numbered();
        let request = Request { reads, ..request(Some(numbered), operations) };
        waits.waiting.insert(numbered.number, Waiting { request: request.clone(), sent: now });
        self.check.asked(&request);
        self.submit(client, host, request);
    }

    fn plain_operations(&self, client: usize) -> Vec<Operation> {
        let value = bytes(&self.clients[client].plain.to_string());
        vec![Operation::Put { table: ROWS.into(), key: bytes(&format!("own {client}")), value }]
    }

    fn some_operations(&mut self, client: usize) -> Vec<Operation> {
        let counter = bytes(&format!("counter {}", self.rng.u32(0..4)));
        let by = self.rng.i64(-3..9);
        let add = Operation::Add { table: COUNTERS.into(), key: counter, by };
        let (table, key): (Arc<str>, _) =
            (ROWS.into(), bytes(&format!("row {}", self.rng.u32(0..8))));
        let value = bytes(&format!("{client} {}", self.rng.u32(0..1_000)));
        match self.rng.u32(0..10) {
            0..5 => vec![add],
            5 | 6 => vec![Operation::Put { table, key, value }],
            7 => vec![Operation::Delete { table, key }],
            8 => vec![Operation::CompareAndPut { table, key, value, version: 0 }],
            _ => vec![Operation::Put { table, key, value }, add],
        }
    }

    fn submit(&mut self, client: usize, host: usize, request: Request) {
        let Some(process) = &self.hosts[host].process else { return };
        let at = At { host, life: process.life, epoch: process.gate.unwrap_or_default() };
        let ticket = self.give_ticket(client, at, request, None);
        let wait = self.rng.u64(50..2 * MS);
        self.after(wait, Event::Submit { ticket });
    }

    /// A request gets a number by which its verdict comes back.
    pub(super) fn give_ticket(
        &mut self,
        client: usize,
        at: At,
        mut request: Request,
        errand: Option<(Errand, Purpose)>,
    ) -> u64 {
        self.tickets_given += 1;
        request.ticket = self.tickets_given;
        let number = request.ticket;
        let At { host, life, epoch } = at;
        self.tickets.insert(number, Ticket { client, request, host, life, epoch, errand });
        number
    }

    /// A request comes to the door.
    pub(super) fn handle_submit(&mut self, ticket: u64) {
        let Some(on_its_way) = self.tickets.get(&ticket) else { return };
        let (host, life, epoch) = (on_its_way.host, on_its_way.life, on_its_way.epoch);
        let slot = &self.hosts[host];
        let there = slot.process.as_ref().is_some_and(|process| {
            process.life == life && (slot.paused || process.gate == Some(epoch))
        });
        if there {
            let request = on_its_way.request.clone();
            self.input(host, Input::Submit(request));
        } else {
            self.tickets.remove(&ticket);
        }
    }

    /// The tables' verdict goes out, if this node may still act.
    pub(super) fn answer(&mut self, host: usize, ticket: u64, verdict: &Verdict) {
        let Some(Ticket { client, request, epoch, life, errand, .. }) =
            self.tickets.remove(&ticket)
        else {
            return;
        };
        if let Some((errand, purpose)) = errand {
            return self.handle_settled(errand, At { host, life, epoch }, purpose, verdict);
        }
        let gate = self.hosts[host].process.as_ref().and_then(|process| process.gate);
        if !self.may_act(host) || gate != Some(epoch) {
            return; // whoever asked hears nothing, and asks again
        }
        self.outcome.answers += 1;
        self.check_answer(host, &request, verdict);
        let lost = self.rng.u32(0..20) == 0;
        if !lost {
            self.hear(client, request, verdict);
        }
    }

    fn hear(&mut self, client: usize, request: Request, verdict: &Verdict) {
        let waits = &mut self.clients[client];
        let Some(numbered) = request.numbered else {
            if matches!(verdict, Verdict::Done { .. }) {
                self.hear_plain(client, &request);
            }
            return;
        };
        if numbered.session != waits.session || !waits.waiting.contains_key(&numbered.number) {
            return;
        }
        match verdict {
            Verdict::Done { .. } => {
                waits.waiting.remove(&numbered.number);
                waits.answered = Some(request);
            }
            // Decided again, without what was read.
            Verdict::Conflict => {
                if let Some(waiting) = waits.waiting.get_mut(&numbered.number) {
                    waiting.request.reads.clear();
                }
            }
            // Only after a loss that is allowed: it begins anew.
            Verdict::Refused(Refusal::SessionUnknown | Refusal::TooOld { .. }) => {
                waits.begin_session();
            }
            Verdict::Refused(
                Refusal::Busy(_)
                | Refusal::NotANumber { .. }
                | Refusal::BadName { .. }
                | Refusal::TooLarge { .. },
            )
            | Verdict::Superseded => {}
        }
    }

    fn hear_plain(&mut self, client: usize, request: &Request) {
        let waits = &mut self.clients[client];
        match request.operations.first() {
            Some(Operation::Put { table, key, .. }) if **table == *SESSIONS => {
                if **key == waits.session.0 {
                    waits.logged_in = true;
                }
            }
            Some(Operation::Put { table, key, .. }) if **table == *BALLAST => {
                if **key == *format!("ballast {}", waits.ballast).as_bytes() {
                    waits.ballast -= 1;
                }
            }
            Some(_) | None => {}
        }
    }
}
