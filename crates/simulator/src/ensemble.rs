//! The servers: what the znodes hold, what each server has of it, which sessions live.
//!
//! ```text
//! write ─▶ leader: executed, numbered ──▶ follower: applied a little later ─▶ answer, watches
//! read ──▶ the server that the session is connected to: whatever it has applied
//! ```
//!
//! A follower that lags or is cut off answers reads from what it has. Sessions are kept by the
//! leader, which hears of them at every half tick, and expires them at its ticks.

use std::sync::Arc;

use hotpair_core::pair::effect::{HandoverBound, SyncBound, ZooKeeperRequest};
use hotpair_core::pair::fact::{
    Answer, EpochZnode, HandoverZnode, MasterZnode, Picture, Refusal, SessionId, SyncZnode,
    ZooKeeperEvent,
};
use hotpair_core::pair::identity::{ClusterId, Epoch, Identity, Incarnation, NodeId};
use hotpair_core::pair::moment::Moment;

use super::clock::Micros;
use super::world::Routed;

/// What the znodes hold at one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) zxid: i64,
    pub(crate) epoch: EpochZnode,
    pub(crate) master: Option<MasterZnode>,
    pub(crate) sync: Option<SyncZnode>,
    pub(crate) handover: HandoverZnode,
}

/// One server's share.
#[derive(Debug)]
pub(crate) struct Server {
    /// It does not reach the leader.
    pub(crate) cut: bool,
    /// How much later than others it applies what was written.
    pub(crate) lag: Micros,
    /// Counts resynchronisations: what was on its way before one is void.
    pub(crate) incarnation: u32,
    pub(crate) applied: Arc<Data>,
    pub(crate) last_apply: Micros,
    /// Requests that wait for a leader.
    pub(crate) stuck: Vec<Sent>,
    /// What the leader sent and a cut holds back.
    pub(crate) held: Vec<(Arc<Data>, Option<Routed>)>,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) session: SessionId,
    /// Which of the session's connections it was sent on.
    pub(crate) connection: u32,
    pub(crate) number: u64,
    pub(crate) sent_at: Moment,
    pub(crate) what: ZooKeeperRequest,
    /// Nobody waits for its answer any more.
    pub(crate) abandoned: bool,
}

/// A session, both its ends.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) host: usize,
    pub(crate) generation: u64,
    pub(crate) identity: Arc<Identity>,
    pub(crate) timeout: Micros,
    pub(crate) alive: bool,
    /// The server it is connected to.
    pub(crate) attached: Option<usize>,
    pub(crate) connection: u32,
    pub(crate) expires: Micros,
    pub(crate) touched: bool,
    pub(crate) next_ping: Micros,
    /// One watch on `master` is armed at the server.
    pub(crate) watch: bool,
    /// One watch on `sync` is armed at the server.
    pub(crate) sync_watch: bool,
    pub(crate) seen_zxid: i64,
    pub(crate) last_arrival: Micros,
    pub(crate) last_reply: Micros,
    /// Held up by a cut between client and server: requests.
    pub(crate) held_requests: Vec<Sent>,
    /// Held up by a cut between client and server: replies.
    pub(crate) held_replies: Vec<Reply>,
    /// To be sent, unasked, after the next reconnect.
    pub(crate) late: Vec<Sent>,
}

/// What a server sends to a client.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Opened,
    Answer { number: u64, event: Box<ZooKeeperEvent> },
    MasterChanged { gone: bool },
    SyncChanged,
}

/// The servers.
#[derive(Debug)]
pub(crate) struct Ensemble {
    pub(crate) cluster: ClusterId,
    pub(crate) tick: Micros,
    pub(crate) servers: Vec<Server>,
    pub(crate) leader: usize,
    /// No server serves: an election, or all are down.
    pub(crate) down: bool,
    /// The leader stands still.
    pub(crate) hung: bool,
    pub(crate) head: Arc<Data>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) next_session: i64,
    /// The node's packets to the servers are lost.
    pub(crate) cut_out: [bool; 2],
    /// The servers' packets to the node are lost.
    pub(crate) cut_in: [bool; 2],
    /// The node's connects fail at once.
    pub(crate) unreachable: [bool; 2],
    /// Added to each way of each request of a node.
    pub(crate) slow: [Micros; 2],
}

impl Ensemble {
    pub(crate) fn new(servers: usize, tick: Micros) -> Self {
        let head = Arc::new(Data {
            zxid: 1,
            epoch: EpochZnode { epoch: Epoch(0), node: None, clean: false, version: 0 },
            master: None,
            sync: None,
            handover: HandoverZnode::default(),
        });
        let server = |_| Server {
            cut: false,
            lag: 0,
            incarnation: 0,
            applied: head.clone(),
            last_apply: 0,
            stuck: Vec::new(),
            held: Vec::new(),
        };
        Self {
            cluster: ClusterId(0xc1),
            tick,
            servers: (0..servers).map(server).collect(),
            leader: 0,
            down: false,
            hung: false,
            head,
            sessions: Vec::new(),
            next_session: 0x100,
            cut_out: [false; 2],
            cut_in: [false; 2],
            unreachable: [false; 2],
            slow: [0; 2],
        }
    }

    // --- looks

    pub(crate) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.iter().rev().find(|s| s.id == id)
    }

    pub(crate) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().rev().find(|s| s.id == id)
    }

    /// Packets pass between the node and the servers, both ways.
    pub(crate) fn path(&self, host: usize) -> bool {
        self.path_out(host) && self.path_in(host)
    }

    /// Packets pass from the node to the servers.
    pub(crate) fn path_out(&self, host: usize) -> bool {
        !self.cut_out[host] && !self.unreachable[host]
    }

    /// Packets pass from the servers to the node.
    pub(crate) fn path_in(&self, host: usize) -> bool {
        !self.cut_in[host] && !self.unreachable[host]
    }

    /// The server reaches a leader that works.
    pub(crate) fn writes(&self, server: usize) -> bool {
        !self.down && !self.hung && !self.servers[server].cut
    }

    /// The server answers reads.
    pub(crate) fn reads(&self, server: usize) -> bool {
        !self.down && (!self.hung || server != self.leader)
    }

    /// The end of the bucket that a session touched now expires with.
    pub(crate) fn bucket(&self, now: Micros, timeout: Micros) -> Micros {
        ((now + timeout) / self.tick + 1) * self.tick
    }

    /// What a look at this server finds, the epoch read a moment before the master.
    pub(crate) fn picture(&self, server: usize, epoch: Option<EpochZnode>) -> Picture {
        let data = &self.servers[server].applied;
        Picture {
            cluster: self.cluster,
            epoch: epoch.unwrap_or_else(|| data.epoch.clone()),
            master: data.master.clone(),
            sync: data.sync.clone(),
            handover: Box::new(data.handover.clone()),
            twin: None,
        }
    }

    // --- writes, at the leader

    /// Executes a write for a session; the event is the definite answer to it.
    pub(crate) fn execute(&mut self, sent: &Sent) -> ZooKeeperEvent {
        let sent_at = sent.sent_at;
        match &sent.what {
            ZooKeeperRequest::Claim { epoch, .. } => {
                let answer = self.claim(sent);
                ZooKeeperEvent::Claimed { sent_at, epoch: *epoch, answer }
            }
            ZooKeeperRequest::Heartbeat { epoch, epoch_version } => {
                let answer = self.heartbeat(sent.session, *epoch, *epoch_version);
                ZooKeeperEvent::HeartbeatAnswered { sent_at, epoch: *epoch, answer }
            }
            ZooKeeperRequest::WriteSync { epoch, epoch_version, sync_version, members } => {
                let answer = self.write_sync(*epoch, *epoch_version, *sync_version, members);
                ZooKeeperEvent::SyncWritten { epoch: *epoch, answer }
            }
            ZooKeeperRequest::HandOver { epoch, epoch_version, to, number } => {
                let answer = self.hand_over(*epoch, *epoch_version, to, *number);
                ZooKeeperEvent::HandedOver { epoch: *epoch, answer }
            }
            ZooKeeperRequest::Resign { epoch, epoch_version, master_version } => {
                let answer = self.resign(*epoch_version, *master_version);
                ZooKeeperEvent::Resigned { epoch: *epoch, answer }
            }
            ZooKeeperRequest::Register { epoch, epoch_version } => {
                let answer = self.fenced(*epoch_version);
                ZooKeeperEvent::RegisterAnswered { epoch: *epoch, entries: 1_200, answer }
            }
            ZooKeeperRequest::Unregister { epoch } => {
                ZooKeeperEvent::Resigned { epoch: *epoch, answer: Answer::Ambiguous }
            }
            ZooKeeperRequest::Look | ZooKeeperRequest::OpenSession => {
                unreachable!("a read and a connect are no writes")
            }
        }
    }

    fn claim(&mut self, sent: &Sent) -> Answer {
        let ZooKeeperRequest::Claim { epoch, epoch_version, replace, sync, handover } = &sent.what
        else {
            unreachable!("called for claims");
        };
        let head = &self.head;
        if epoch_version.is_some_and(|v| v != head.epoch.version) {
            return Answer::Refused(Refusal::Epoch);
        }
        let as_expected = match (replace, &head.master) {
            (None, None) => true,
            (Some(r), Some(m)) => r.version.is_none_or(|v| v == m.version),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !as_expected {
            return Answer::Refused(Refusal::Master);
        }
        let there = head.sync.as_ref().map(|s| s.version);
        let as_expected = match sync {
            SyncBound::Missing => there.is_none(),
            SyncBound::Version(version) => there == Some(*version),
            SyncBound::Unchecked => true,
        };
        if !as_expected {
            return Answer::Refused(Refusal::Sync);
        }
        let HandoverBound { version, revoke } = *handover;
        if head.handover.version != version {
            return Answer::Refused(Refusal::Handover);
        }
        let session = self.session(sent.session).expect("a request's session is known");
        let identity = session.identity.clone();
        let session_timeout_ms = session.timeout / super::clock::MS;
        let mut new = self.next();
        if revoke {
            new.handover = HandoverZnode { version: version + 1, ..HandoverZnode::default() };
        }
        new.master = Some(MasterZnode {
            node: identity.incarnation.node.clone(),
            instance: identity.incarnation.instance,
            boot_id: identity.incarnation.boot_id,
            life: identity.life,
            epoch: *epoch,
            session_timeout_ms,
            version: 0,
            created: new.zxid,
            owner: sent.session,
        });
        new.epoch = EpochZnode {
            epoch: *epoch,
            node: Some(identity.incarnation.node.clone()),
            clean: false,
            version: new.epoch.version + 1,
        };
        new.sync = Some(SyncZnode {
            epoch: *epoch,
            members: vec![identity.incarnation.clone()],
            version: there.map_or(0, |v| v + 1),
        });
        let epoch_version = new.epoch.version;
        self.head = Arc::new(new);
        Answer::Done { epoch_version }
    }

    fn write_sync(
        &mut self,
        epoch: Epoch,
        epoch_version: i32,
        sync_version: i32,
        members: &[Incarnation],
    ) -> Answer {
        if self.head.epoch.version != epoch_version {
            return Answer::Refused(Refusal::Epoch);
        }
        let mut new = self.next();
        if new.sync.as_ref().is_none_or(|s| s.version != sync_version) {
            return Answer::Refused(Refusal::Sync);
        }
        let (members, version) = (members.to_vec(), sync_version + 1);
        new.sync = Some(SyncZnode { epoch, members, version });
        self.head = Arc::new(new);
        Answer::Done { epoch_version }
    }

    fn hand_over(&mut self, epoch: Epoch, epoch_version: i32, to: &NodeId, number: u64) -> Answer {
        if self.head.epoch.version != epoch_version {
            return Answer::Refused(Refusal::Epoch);
        }
        let mut new = self.next();
        let version = new.handover.version + 1;
        new.handover = HandoverZnode { epoch, to: Some(to.clone()), number, version };
        self.head = Arc::new(new);
        Answer::Done { epoch_version }
    }

    fn heartbeat(&mut self, by: SessionId, epoch: Epoch, epoch_version: i32) -> Answer {
        if self.head.epoch.version != epoch_version {
            return Answer::Refused(Refusal::Epoch);
        }
        let identity = self.session(by).expect("a request's session is known").identity.clone();
        let mut new = self.next();
        // Content is rewritten; the owner is whoever created it.
        let Some(master) = &mut new.master else { return Answer::Refused(Refusal::Master) };
        master.version += 1;
        master.life = identity.life;
        master.boot_id = identity.incarnation.boot_id;
        master.epoch = epoch;
        self.head = Arc::new(new);
        Answer::Done { epoch_version }
    }

    fn resign(&mut self, epoch_version: i32, master_version: Option<i32>) -> Answer {
        if self.head.epoch.version != epoch_version {
            return Answer::Refused(Refusal::Epoch);
        }
        let mut new = self.next();
        let there = new.master.take();
        if there.is_none_or(|m| master_version.is_some_and(|v| v != m.version)) {
            return Answer::Refused(Refusal::Master);
        }
        new.epoch.clean = true;
        new.epoch.version += 1;
        let epoch_version = new.epoch.version;
        self.head = Arc::new(new);
        Answer::Done { epoch_version }
    }

    fn fenced(&self, epoch_version: i32) -> Answer {
        if self.head.epoch.version == epoch_version {
            Answer::Done { epoch_version }
        } else {
            Answer::Refused(Refusal::Epoch)
        }
    }

    /// The master znode goes, by a session's end or by somebody's hand. True: it was there.
    pub(crate) fn delete_master(&mut self, of: Option<SessionId>) -> bool {
        let there = self.head.master.as_ref();
        if there.is_none_or(|m| of.is_some_and(|id| id != m.owner)) {
            return false;
        }
        let mut new = self.next();
        new.master = None;
        self.head = Arc::new(new);
        true
    }

    fn next(&self) -> Data {
        let mut data = Data::clone(&self.head);
        data.zxid += 1;
        data
    }
}
