//! Between a node and the servers: the driver's client, sessions, requests, answers, watches.
//!
//! What becomes of a request whose connection breaks is drawn: it was executed and its answer is
//! lost, it is lost, it is executed later, or the client kept it and sends it after reconnecting.
//! In all four the driver has already answered that it does not know.

use std::sync::Arc;

use hotpair_core::pair::effect::{ZooKeeperOrder, ZooKeeperRequest};
use hotpair_core::pair::fact::{
    Answer, EpochZnode, Fact, LookTrouble, SessionId, ZooKeeperEvent, ZooKeeperFact,
};
use hotpair_core::pair::moment::Moment;

use super::clock::{MS, Micros};
use super::ensemble::{Data, Reply, Sent, Session};
use super::fault::Fault;
use super::world::{Event, Routed, World};

/// The driver's side of the newest session.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) generation: u64,
    pub(crate) session: Option<SessionId>,
    opened: bool,
    connected: bool,
    pending: Vec<Pending>,
    next_number: u64,
    /// When the client itself takes the session for expired.
    gives_up_at: Micros,
    /// Requests and connects ordered, for the check against livelock.
    pub(crate) orders: u32,
}

#[derive(Debug)]
struct Pending {
    sent: Sent,
    executed: bool,
}

/// The answer that knows nothing.
fn no_answer(what: &ZooKeeperRequest, sent_at: Moment) -> Option<ZooKeeperEvent> {
    let answer = Answer::Ambiguous;
    Some(match what {
        ZooKeeperRequest::Look => ZooKeeperEvent::LookFailed {
            reason: "no answer".to_owned(),
            trouble: LookTrouble::NoAnswer,
        },
        ZooKeeperRequest::Claim { epoch, .. } => {
            ZooKeeperEvent::Claimed { sent_at, epoch: *epoch, answer }
        }
        ZooKeeperRequest::Heartbeat { epoch, .. } => {
            ZooKeeperEvent::HeartbeatAnswered { sent_at, epoch: *epoch, answer }
        }
        ZooKeeperRequest::WriteSync { epoch, .. } => {
            ZooKeeperEvent::SyncWritten { epoch: *epoch, answer }
        }
        ZooKeeperRequest::HandOver { epoch, .. } => {
            ZooKeeperEvent::HandedOver { epoch: *epoch, answer }
        }
        ZooKeeperRequest::Resign { epoch, .. } => {
            ZooKeeperEvent::Resigned { epoch: *epoch, answer }
        }
        ZooKeeperRequest::Register { epoch, .. } => {
            ZooKeeperEvent::RegisterAnswered { epoch: *epoch, entries: 0, answer }
        }
        ZooKeeperRequest::Unregister { .. } | ZooKeeperRequest::OpenSession => return None,
    })
}

impl World {
    fn client(&mut self, host: usize) -> Option<&mut Client> {
        self.hosts[host].process.as_mut().map(|p| &mut p.client)
    }

    fn zookeeper_fact(&mut self, host: usize, what: ZooKeeperEvent) {
        if let Some(generation) = self.client(host).map(|c| c.generation) {
            self.tell(host, Fact::ZooKeeper(ZooKeeperFact { generation, what }));
        }
    }

    // --- orders

    pub(crate) fn order(&mut self, host: usize, order: ZooKeeperOrder) {
        let sent_at = self.hosts[host].clock.moment(self.now);
        let process = self.hosts[host].process.as_mut().expect("effects belong to a process");
        let life = process.life;
        process.client.orders += 1;
        match order.what {
            ZooKeeperRequest::OpenSession => {
                let closes = self.chance(500);
                self.abandon_session(host, closes);
                let client = self.client(host).expect("seen above");
                client.generation = order.generation;
                let generation = order.generation;
                self.after(MS, Event::Connect { host, life, generation });
            }
            // Entries of an epoch that is over are void anyway.
            ZooKeeperRequest::Unregister { .. } => {}
            what @ (ZooKeeperRequest::Look
            | ZooKeeperRequest::Claim { .. }
            | ZooKeeperRequest::Heartbeat { .. }
            | ZooKeeperRequest::WriteSync { .. }
            | ZooKeeperRequest::HandOver { .. }
            | ZooKeeperRequest::Resign { .. }
            | ZooKeeperRequest::Register { .. }) => self.request(host, what, sent_at),
        }
    }

    fn request(&mut self, host: usize, what: ZooKeeperRequest, sent_at: Moment) {
        let keeps = self.plan.enables(Fault::LateRequests) && self.chance(300);
        let client = self.client(host).expect("effects belong to a process");
        let (generation, connected) = (client.generation, client.connected);
        client.next_number += 1;
        let number = client.next_number;
        let session = client.session.and_then(|id| self.ensemble.session(id));
        let Some(session) = session else { return };
        let (id, connection) = (session.id, session.connection);
        let mut sent = Sent { session: id, connection, number, sent_at, what, abandoned: false };
        if !connected {
            if let Some(what) = no_answer(&sent.what, sent_at) {
                let fact = Fact::ZooKeeper(ZooKeeperFact { generation, what });
                self.own_fact(host, 300, fact);
            }
            if keeps {
                sent.abandoned = true;
                self.ensemble.session_mut(id).expect("seen above").late.push(sent);
            }
            return;
        }
        let client = self.client(host).expect("seen above");
        client.pending.push(Pending { sent: sent.clone(), executed: false });
        let way = self.between(self.plan.request) + self.ensemble.slow[host];
        let now = self.now;
        let session = self.ensemble.session_mut(id).expect("seen above");
        session.last_arrival = (now + way).max(session.last_arrival + 1);
        let at = session.last_arrival;
        self.schedule.push(at, Event::Arrived { sent });
    }

    // --- sessions

    pub(crate) fn connect(&mut self, host: usize, life: u64, generation: u64) {
        let current = self.process(host).is_some_and(|p| {
            p.life == life && p.client.generation == generation && p.client.session.is_none()
        });
        if !current {
            return;
        }
        let Some(server) = self.usable_server(host, 0) else {
            let wait =
                if self.ensemble.unreachable[host] { MS } else { self.rng.u64(50 * MS..600 * MS) };
            let what = ZooKeeperEvent::ConnectFailed { reason: "no server".to_owned() };
            self.own_fact(host, wait, Fact::ZooKeeper(ZooKeeperFact { generation, what }));
            return;
        };
        let id = SessionId(self.ensemble.next_session);
        self.ensemble.next_session += 1;
        let timeout = self.plan.timeout;
        let process = self.process(host).expect("seen above");
        let identity = process.identity.clone();
        let expires = self.ensemble.bucket(self.now, timeout);
        self.forget_a_past_session();
        let seen_zxid = self.ensemble.servers[server].applied.zxid;
        self.ensemble.sessions.push(Session {
            id,
            host,
            generation,
            identity,
            timeout,
            alive: true,
            attached: Some(server),
            connection: 1,
            expires,
            touched: true,
            next_ping: self.now + timeout / 3,
            watch: false,
            sync_watch: false,
            seen_zxid,
            last_arrival: 0,
            last_reply: 0,
            held_requests: Vec::new(),
            held_replies: Vec::new(),
            late: Vec::new(),
        });
        let client = self.client(host).expect("seen above");
        client.session = Some(id);
        client.opened = false;
        client.connected = true;
        self.reply(id, Reply::Opened);
    }

    /// A server that the node reaches and that has a leader and is not behind the client.
    fn usable_server(&mut self, host: usize, zxid: i64) -> Option<usize> {
        if !self.ensemble.path(host) {
            return None;
        }
        let first = self.rng.usize(0..self.ensemble.servers.len());
        let n = self.ensemble.servers.len();
        (0..n)
            .map(|i| (first + i) % n)
            .find(|s| self.ensemble.writes(*s) && self.ensemble.servers[*s].applied.zxid >= zxid)
    }

    /// The driver drops the session, or its process is gone.
    pub(crate) fn abandon_session(&mut self, host: usize, closes: bool) {
        let Some(client) = self.client(host) else { return };
        client.connected = false;
        let pending = std::mem::take(&mut client.pending);
        let Some(id) = client.session.take() else { return };
        let path = self.ensemble.path_out(host);
        for p in pending.into_iter().filter(|p| !p.executed) {
            // Lost, or still on its way, for as long as the session lives.
            if self.chance(500) {
                self.straggle_later(p.sent, self.plan.timeout);
            }
        }
        let session = self.ensemble.session_mut(id).expect("a client's session is known");
        session.connection += 1;
        let attached = session.attached.take();
        session.held_requests.clear();
        session.held_replies.clear();
        session.watch = false;
        session.sync_watch = false;
        if attached.is_some() && path && closes {
            let wait = self.between(self.plan.request);
            self.after(wait, Event::Close { session: id });
        }
    }

    /// The server's or the network's end of a connection.
    /// Bounded: sessions long past are of no interest, unless somebody has not heard yet that they are.
    fn forget_a_past_session(&mut self) {
        if self.ensemble.sessions.len() < 24 {
            return;
        }
        let held = [0, 1].map(|host| self.process(host).and_then(|p| p.client.session));
        let past = |s: &Session| !s.alive && !held.contains(&Some(s.id));
        if let Some(past) = self.ensemble.sessions.iter().position(past) {
            self.ensemble.sessions.remove(past);
        }
    }

    pub(crate) fn closed(&mut self, id: SessionId, connection: u32) {
        if self.ensemble.session(id).is_some_and(|s| s.connection == connection) {
            self.disconnected(id);
        }
    }

    /// The client has heard nothing for a good part of the session.
    pub(crate) fn silence(&mut self, id: SessionId, connection: u32) {
        let Some(s) = self.ensemble.session(id) else { return };
        let Some(server) = s.attached.filter(|_| s.connection == connection) else { return };
        if !self.ensemble.path(s.host) || !self.ensemble.reads(server) {
            self.disconnected(id);
        }
    }

    /// Has the sessions notice it, if the silence lasts.
    pub(crate) fn watch_for_silence(&mut self, host: Option<usize>) {
        for i in 0..self.ensemble.sessions.len() {
            let s = &self.ensemble.sessions[i];
            if s.attached.is_none() || host.is_some_and(|h| h != s.host) {
                continue;
            }
            let (session, connection, timeout) = (s.id, s.connection, s.timeout);
            let wait = self.rng.u64(timeout * 29 / 100..timeout * 44 / 100);
            self.after(wait, Event::Silence { session, connection });
        }
    }

    fn disconnected(&mut self, id: SessionId) {
        let s = self.ensemble.session_mut(id).expect("seen by the caller");
        let (host, generation, timeout) = (s.host, s.generation, s.timeout);
        s.attached = None;
        s.connection += 1;
        s.watch = false;
        s.sync_watch = false;
        s.held_requests.clear();
        s.held_replies.clear();
        let now = self.now;
        let gives_up = self.rng.u64(timeout * 85 / 100..timeout * 13 / 10);
        let Some(client) = self.client(host).filter(|c| c.session == Some(id)) else { return };
        client.connected = false;
        client.gives_up_at = now + gives_up;
        let pending = std::mem::take(&mut client.pending);
        if !client.opened {
            client.session = None;
            let reason = "the server does not answer".to_owned();
            self.zookeeper_fact(host, ZooKeeperEvent::ConnectFailed { reason });
            return;
        }
        let disconnected_first = self.chance(500);
        if disconnected_first {
            self.zookeeper_fact(host, ZooKeeperEvent::Disconnected);
        }
        for p in pending {
            if let Some(what) = no_answer(&p.sent.what, p.sent.sent_at) {
                self.tell(host, Fact::ZooKeeper(ZooKeeperFact { generation, what }));
            }
            if !p.executed {
                self.draw_fate(id, p.sent);
            }
        }
        if !disconnected_first && self.client(host).is_some_and(|c| c.session == Some(id)) {
            self.zookeeper_fact(host, ZooKeeperEvent::Disconnected);
        }
        let wait = self.rng.u64(5 * MS..400 * MS);
        self.after(wait, Event::Reconnect { session: id });
    }

    fn draw_fate(&mut self, id: SessionId, mut sent: Sent) {
        sent.abandoned = true;
        let late = self.plan.enables(Fault::LateRequests);
        let fate = if self.storm.keeps_requests { 1 } else { self.rng.u32(0..4) };
        match fate {
            0 => self.straggle_later(sent, 3_000 * MS),
            1 | 2 if late => {
                if let Some(s) = self.ensemble.session_mut(id) {
                    s.late.push(sent);
                }
            }
            _ => {} // lost
        }
    }

    fn straggle_later(&mut self, mut sent: Sent, within: Micros) {
        sent.abandoned = true;
        let wait = self.rng.u64(0..within);
        self.after(wait, Event::Straggle { sent, tries: 0 });
    }

    pub(crate) fn reconnect(&mut self, id: SessionId) {
        let Some(s) = self.ensemble.session(id) else { return };
        let (host, timeout, zxid) = (s.host, s.timeout, s.seen_zxid);
        if self.process(host).is_none_or(|p| p.client.session != Some(id) || p.client.connected) {
            return;
        }
        if let Some(server) = self.usable_server(host, zxid) {
            let expires = self.ensemble.bucket(self.now, timeout);
            let now = self.now;
            let s = self.ensemble.session_mut(id).expect("seen above");
            if !s.alive {
                self.session_ended(host, "expired, said the server");
                return;
            }
            s.attached = Some(server);
            s.expires = expires;
            s.next_ping = now + timeout / 3;
            s.last_arrival = now;
            let late = std::mem::take(&mut s.late);
            for sent in late.into_iter().filter(|sent| sent.what != ZooKeeperRequest::Look) {
                self.storm.happened(Fault::LateRequests);
                self.after(200, Event::Straggle { sent, tries: 0 });
            }
            self.client(host).expect("seen above").connected = true;
            self.zookeeper_fact(host, ZooKeeperEvent::Reconnected);
            return;
        }
        let never = self.ensemble.unreachable[host];
        let gives_up_at = self.client(host).expect("seen above").gives_up_at;
        if !never && self.now >= gives_up_at {
            self.session_ended(host, "expired, said the client");
            return;
        }
        let wait = self.rng.u64(100 * MS..700 * MS);
        self.after(wait, Event::Reconnect { session: id });
    }

    fn session_ended(&mut self, host: usize, reason: &str) {
        let client = self.client(host).expect("seen by the caller");
        client.session = None;
        self.zookeeper_fact(host, ZooKeeperEvent::SessionEnded { reason: reason.to_owned() });
    }

    // --- at the server

    pub(crate) fn arrived(&mut self, sent: Sent) {
        let Some(s) = self.ensemble.session_mut(sent.session) else { return };
        if s.connection != sent.connection {
            return; // its connection is over; its fate was drawn
        }
        let (host, alive, attached) = (s.host, s.alive, s.attached);
        let Some(server) = attached else { return };
        if !self.ensemble.path_out(host) {
            let s = self.ensemble.session_mut(sent.session).expect("seen above");
            s.held_requests.push(sent);
            return;
        }
        if !alive {
            let (session, connection) = (sent.session, sent.connection);
            self.after(MS, Event::Closed { session, connection });
            return;
        }
        let read = sent.what == ZooKeeperRequest::Look;
        let answers = if read { self.ensemble.reads(server) } else { self.ensemble.writes(server) };
        if !answers {
            self.ensemble.servers[server].stuck.push(sent);
            return;
        }
        self.touch(sent.session, server);
        if read { self.look(sent) } else { self.write(sent, server) }
    }

    fn touch(&mut self, id: SessionId, server: usize) {
        let now = self.now;
        let at_leader = server == self.ensemble.leader && !self.ensemble.hung;
        let timeout = self.plan.timeout;
        let expires = self.ensemble.bucket(now, timeout);
        let Some(s) = self.ensemble.session_mut(id) else { return };
        s.touched = true;
        s.next_ping = now + timeout / 3;
        if at_leader {
            s.expires = expires;
        }
    }

    fn look(&mut self, sent: Sent) {
        // The znodes are read one after the other; a write may come in between.
        if self.chance(150) {
            let server = self.ensemble.session(sent.session).and_then(|s| s.attached);
            let epoch = self.ensemble.servers[server.expect("it arrived")].applied.epoch.clone();
            let wait = self.between(self.plan.request) + 100;
            self.after(wait, Event::TornLook { sent, epoch });
        } else {
            self.answer_look(&sent, None);
        }
    }

    pub(crate) fn answer_look(&mut self, sent: &Sent, epoch: Option<EpochZnode>) {
        let Some(s) = self.ensemble.session_mut(sent.session) else { return };
        let Some(server) = s.attached.filter(|_| s.connection == sent.connection) else { return };
        s.watch = true;
        s.sync_watch = true;
        let picture = self.ensemble.picture(server, epoch);
        let zxid = self.ensemble.servers[server].applied.zxid;
        let s = self.ensemble.session_mut(sent.session).expect("seen above");
        s.seen_zxid = s.seen_zxid.max(zxid);
        let event = ZooKeeperEvent::Looked { picture };
        self.reply(sent.session, Reply::Answer { number: sent.number, event: Box::new(event) });
    }

    fn write(&mut self, sent: Sent, server: usize) {
        let s = self.ensemble.session(sent.session).expect("it arrived");
        let (host, connection) = (s.host, s.connection);
        let ambiguous = no_answer(&sent.what, sent.sent_at).expect("a write has an answer");
        let unsaid = self.hosts[host].ambiguous;
        let unsaid = self.chance(unsaid);
        let claims = matches!(sent.what, ZooKeeperRequest::Claim { .. });
        if let Some(client) = self.client(host)
            && let Some(p) = client.pending.iter_mut().find(|p| p.sent.number == sent.number)
        {
            p.executed = true;
        }
        let number = sent.number;
        let session = sent.session;
        if unsaid && self.chance(500) {
            self.storm.happened(Fault::AmbiguousAnswers);
            if self.chance(500) {
                self.straggle_later(sent, 2_000 * MS);
            }
            self.reply(session, Reply::Answer { number, event: Box::new(ambiguous) });
            return;
        }
        let mut event = self.execute(&sent);
        if unsaid {
            self.storm.happened(Fault::AmbiguousAnswers);
            event = ambiguous;
        } else if claims
            && matches!(event, ZooKeeperEvent::Claimed { answer: Answer::Done { .. }, .. })
            && std::mem::take(&mut self.hosts[host].claim_answer_lost)
        {
            self.storm.happened(Fault::ClaimAnswerLost);
            event = ambiguous;
        }
        let answer = Routed { session, connection, number, event };
        self.commit(Some((server, answer)));
    }

    /// Executes at the leader, and looks at what the registry takes.
    fn execute(&mut self, sent: &Sent) -> ZooKeeperEvent {
        let event = self.ensemble.execute(sent);
        if self.transcript.wanted() && !matches!(sent.what, ZooKeeperRequest::Heartbeat { .. }) {
            let late = if sent.abandoned { " (long given up)" } else { "" };
            let session = sent.session.0;
            self.note(None, format_args!("session {session:x}: {:?}{late} ⇒ {event:?}", sent.what));
        }
        if let ZooKeeperEvent::Claimed { epoch, answer: Answer::Done { .. }, .. } = &event
            && let Some(host) = self.ensemble.session(sent.session).map(|s| s.host)
        {
            self.accept_loss(host, *epoch);
        }
        if let ZooKeeperEvent::HandedOver { epoch, answer: Answer::Done { .. } } = &event {
            self.check_handed_over(*epoch);
        }
        if let ZooKeeperEvent::RegisterAnswered { epoch, answer: Answer::Done { .. }, .. } = &event
        {
            self.check_registered(*epoch);
        }
        event
    }

    /// A request that nobody waits for any more is executed after all.
    pub(crate) fn straggle(&mut self, sent: Sent, tries: u32) {
        let Some(s) = self.ensemble.session(sent.session) else { return };
        if !s.alive || sent.what == ZooKeeperRequest::Look {
            return;
        }
        if self.ensemble.down || self.ensemble.hung {
            if tries < 20 {
                self.after(100 * MS, Event::Straggle { sent, tries: tries + 1 });
            }
            return;
        }
        self.execute(&sent);
        self.commit(None);
    }

    /// What the leader executed goes to the followers, the answer through the one it came by.
    pub(crate) fn commit(&mut self, mut answer: Option<(usize, Routed)>) {
        let data = self.ensemble.head.clone();
        for server in 0..self.ensemble.servers.len() {
            let routed = answer.take_if(|(via, _)| *via == server).map(|(_, routed)| routed);
            let delay = self.rng.u64(100..1_500);
            let attached = self.ensemble.sessions.iter().any(|s| s.attached == Some(server));
            let leader = server == self.ensemble.leader;
            let now = self.now;
            let s = &mut self.ensemble.servers[server];
            if s.cut {
                s.held.push((data.clone(), routed));
                continue;
            }
            let incarnation = s.incarnation;
            if leader || (!attached && s.lag == 0 && routed.is_none()) {
                self.apply(server, incarnation, &data, routed);
                continue;
            }
            let at = (now + delay + s.lag).max(s.last_apply + 1);
            s.last_apply = at;
            let event = Event::Apply { server, incarnation, data: data.clone(), answer: routed };
            self.schedule.push(at, event);
        }
    }

    pub(crate) fn apply(
        &mut self,
        server: usize,
        incarnation: u32,
        data: &Arc<Data>,
        answer: Option<Routed>,
    ) {
        let s = &mut self.ensemble.servers[server];
        if s.incarnation != incarnation || self.ensemble.down {
            return;
        }
        if s.cut {
            s.held.push((data.clone(), answer));
            return;
        }
        if data.zxid > s.applied.zxid {
            let before = std::mem::replace(&mut s.applied, data.clone());
            self.fire_watches(server, &before, data);
        }
        let Some(Routed { session, connection, number, event }) = answer else { return };
        let zxid = self.ensemble.servers[server].applied.zxid;
        let Some(s) = self.ensemble.session_mut(session) else { return };
        if s.connection == connection && s.attached == Some(server) {
            s.seen_zxid = s.seen_zxid.max(zxid);
            self.reply(session, Reply::Answer { number, event: Box::new(event) });
        }
    }

    fn fire_watches(&mut self, server: usize, before: &Data, after: &Data) {
        let version = |d: &Data| d.sync.as_ref().map(|s| s.version);
        if version(before) != version(after) {
            for i in 0..self.ensemble.sessions.len() {
                let s = &mut self.ensemble.sessions[i];
                if s.attached == Some(server) && std::mem::take(&mut s.sync_watch) {
                    let id = s.id;
                    self.reply(id, Reply::SyncChanged);
                }
            }
        }
        let state = |d: &Data| d.master.as_ref().map(|m| (m.created, m.version));
        let (was, is) = (state(before), state(after));
        if was == is {
            return;
        }
        // A replacement is a deletion first, and that is what uses the watch up.
        let gone = was.is_some_and(|(created, _)| is.is_none_or(|(now, _)| now != created));
        for i in 0..self.ensemble.sessions.len() {
            let s = &mut self.ensemble.sessions[i];
            if s.attached == Some(server) && std::mem::take(&mut s.watch) {
                let id = s.id;
                self.reply(id, Reply::MasterChanged { gone });
            }
        }
    }

    // --- back at the client

    fn reply(&mut self, id: SessionId, reply: Reply) {
        let way = self.between(self.plan.request);
        let now = self.now;
        let Some(s) = self.ensemble.session(id) else { return };
        let way = way + self.ensemble.slow[s.host];
        let s = self.ensemble.session_mut(id).expect("seen above");
        s.last_reply = (now + way).max(s.last_reply + 1);
        let (at, connection) = (s.last_reply, s.connection);
        self.schedule.push(at, Event::Reply { session: id, connection, reply });
    }

    pub(crate) fn replied(&mut self, id: SessionId, connection: u32, reply: Reply) {
        let Some(s) = self.ensemble.session(id) else { return };
        if s.connection != connection {
            return;
        }
        let (host, timeout_ms) = (s.host, s.timeout / MS);
        if !self.ensemble.path_in(host) {
            self.ensemble.session_mut(id).expect("seen above").held_replies.push(reply);
            return;
        }
        let Some(client) = self.client(host).filter(|c| c.session == Some(id)) else { return };
        let what = match reply {
            Reply::Opened => {
                client.opened = true;
                ZooKeeperEvent::SessionOpened { session: id, timeout_ms }
            }
            Reply::Answer { number, event } => {
                let Some(at) = client.pending.iter().position(|p| p.sent.number == number) else {
                    return;
                };
                client.pending.remove(at);
                *event
            }
            Reply::SyncChanged => ZooKeeperEvent::SyncChanged,
            Reply::MasterChanged { gone } => ZooKeeperEvent::MasterChanged { gone },
        };
        self.zookeeper_fact(host, what);
    }

    // --- the leader's time

    pub(crate) fn tick(&mut self) {
        let tick = self.ensemble.tick;
        self.after(tick / 2, Event::Tick);
        if self.ensemble.down || self.ensemble.hung {
            return;
        }
        let now = self.now;
        let mut ended = Vec::new();
        for i in 0..self.ensemble.sessions.len() {
            let s = &self.ensemble.sessions[i];
            if !s.alive {
                continue;
            }
            let pings = s.next_ping <= now
                && s.attached.is_some()
                && self.ensemble.path_out(s.host)
                && self.hosts[s.host].pause.is_none()
                && self.process(s.host).is_some_and(|p| p.client.session == Some(s.id));
            let reported = s.attached.is_some_and(|server| self.ensemble.writes(server));
            let expires = self.ensemble.bucket(now, s.timeout);
            let s = &mut self.ensemble.sessions[i];
            if pings {
                s.touched = true;
                s.next_ping = now + s.timeout / 3;
            }
            if reported && std::mem::take(&mut s.touched) {
                s.expires = expires;
            }
            if s.expires <= now {
                ended.push(s.id);
            }
        }
        for id in ended {
            self.end_session(id);
        }
    }

    /// A session is over at the leader, by expiry or by its client's word.
    pub(crate) fn end_session(&mut self, id: SessionId) {
        if self.ensemble.down {
            return;
        }
        let Some(s) = self.ensemble.session_mut(id) else { return };
        if !std::mem::replace(&mut s.alive, false) {
            return;
        }
        let (attached, connection) = (s.attached, s.connection);
        self.note(None, format_args!("session {:x} is over", id.0));
        if self.ensemble.delete_master(Some(id)) {
            self.commit(None);
        }
        if attached.is_some() {
            self.after(2 * MS, Event::Closed { session: id, connection });
        }
    }

    // --- what faults do to the servers

    /// Connections to one server, or to all, are closed by its side.
    pub(crate) fn close_connections(&mut self, server: Option<usize>) {
        for i in 0..self.ensemble.sessions.len() {
            let s = &self.ensemble.sessions[i];
            if s.attached.is_none() || server.is_some_and(|x| s.attached != Some(x)) {
                continue;
            }
            let (session, connection) = (s.id, s.connection);
            let wait = self.rng.u64(100..5 * MS);
            self.after(wait, Event::Closed { session, connection });
        }
    }

    /// No server serves any more; what followers have under way is lost or already executed.
    pub(crate) fn ensemble_down(&mut self) {
        self.ensemble.down = true;
        for s in &mut self.ensemble.servers {
            s.incarnation += 1;
            s.stuck.clear();
            s.held.clear();
        }
        self.close_connections(None);
    }

    /// The servers serve again, each with all that was ever acknowledged.
    pub(crate) fn ensemble_up(&mut self) {
        if !std::mem::take(&mut self.ensemble.down) {
            return;
        }
        self.ensemble.leader = self.rng.usize(0..self.ensemble.servers.len());
        let head = self.ensemble.head.clone();
        for s in &mut self.ensemble.servers {
            s.incarnation += 1;
            s.cut = false;
            s.applied = head.clone();
            s.stuck.clear();
            s.held.clear();
        }
        let fresh = self.ensemble.bucket(self.now, self.plan.timeout);
        for s in self.ensemble.sessions.iter_mut().filter(|s| s.alive) {
            s.expires = fresh;
        }
        let leader = self.ensemble.leader;
        self.note(None, format_args!("ZooKeeper serves, leader {leader}"));
    }

    /// A server that was cut off or hung goes on.
    pub(crate) fn servers_go_on(&mut self) {
        let head = self.ensemble.head.clone();
        for server in 0..self.ensemble.servers.len() {
            if !self.ensemble.writes(server) {
                continue;
            }
            let s = &mut self.ensemble.servers[server];
            let stuck = std::mem::take(&mut s.stuck);
            let held = std::mem::take(&mut s.held);
            let incarnation = s.incarnation;
            for (data, answer) in held {
                self.apply(server, incarnation, &data, answer);
            }
            if self.ensemble.servers[server].lag == 0 {
                self.apply(server, incarnation, &head, None);
            }
            for sent in stuck {
                self.after(500, Event::Arrived { sent });
            }
        }
    }

    pub(crate) fn server_gives_up(&mut self, server: usize, incarnation: u32) {
        let s = &mut self.ensemble.servers[server];
        if s.cut && s.incarnation == incarnation {
            s.stuck.clear();
            s.held.clear();
            s.incarnation += 1;
            self.note(None, format_args!("server {server} drops its clients"));
            self.close_connections(Some(server));
        }
    }

    /// What a cut between a node and the servers held back goes on.
    pub(crate) fn flush_sessions(&mut self, host: usize) {
        if !self.ensemble.path(host) {
            return;
        }
        let resend = self.rng.u64(MS..300 * MS);
        let mut requests = Vec::new();
        let mut replies = Vec::new();
        for s in self.ensemble.sessions.iter_mut().filter(|s| s.host == host) {
            requests.append(&mut s.held_requests);
            replies.extend(s.held_replies.drain(..).map(|r| (s.id, s.connection, r)));
        }
        for sent in requests {
            self.after(resend, Event::Arrived { sent });
        }
        for (session, connection, reply) in replies {
            self.after(resend, Event::Reply { session, connection, reply });
        }
    }
}
