//! The third place: epochs, who holds the mastership, and who is in sync; as the pair uses ZooKeeper.
//!
//! Everything is conditional. What is asked may get no definite answer: then it was done, or was
//! not, or will be done later.

use crate::clock::{MS, Micros};

use super::host::Host;
use super::world::{Event, World};

/// Who is in sync: host and boot.
pub(super) type Members = Vec<(usize, u128)>;

/// The `sync` record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SyncRecord {
    pub(super) version: u64,
    pub(super) members: Members,
}

/// Who is master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) host: usize,
    pub(super) life: u64,
    pub(super) epoch: u64,
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    epoch: u64,
    holder: Option<Holder>,
    session_until: Micros,
    pub(super) sync: SyncRecord,
    /// This host cannot reach it.
    pub(super) cut: [bool; 2],
}

/// What can be asked.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Look,
    Heartbeat { epoch: u64, sent: Micros },
    Claim { sync_version: u64, sent: Micros },
    WriteSync { epoch: u64, version: u64, members: Members },
    GiveBack { epoch: u64 },
}

/// A look.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) holder: Option<Holder>,
    pub(super) sync: SyncRecord,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Picture(Picture),
    Beaten {
        epoch: u64,
        sent: Micros,
    },
    NotYours {
        epoch: u64,
    },
    Claimed {
        epoch: u64,
        sync: SyncRecord,
        sent: Micros,
    },
    ClaimRefused,
    SyncWritten(SyncRecord),
    SyncRefused,
    /// Nobody knows.
    Ambiguous,
    Nothing,
}

impl Coordinator {
    pub(super) fn holder(&self, now: Micros) -> Option<Holder> {
        self.holder.filter(|_| now < self.session_until)
    }

    fn execute(
        &mut self,
        now: Micros,
        session: Micros,
        who: (usize, u64, u128),
        ask: Ask,
    ) -> Answer {
        let (host, life, boot) = who;
        let mine = |holder: Holder| holder.host == host && holder.life == life;
        let holder = self.holder(now);
        match ask {
            Ask::Look => Answer::Picture(Picture { holder, sync: self.sync.clone() }),
            Ask::Heartbeat { epoch, sent } => {
                if holder.is_some_and(|holder| mine(holder) && holder.epoch == epoch) {
                    self.session_until = now + session;
                    Answer::Beaten { epoch, sent }
                } else {
                    Answer::NotYours { epoch }
                }
            }
            Ask::Claim { sync_version, sent } => {
                // A life of this host before this one is over: its lock is ours.
                let free = holder.is_none_or(|holder| holder.host == host && holder.life < life);
                if !free || sync_version != self.sync.version {
                    return Answer::ClaimRefused;
                }
                self.epoch += 1;
                self.holder = Some(Holder { host, life, epoch: self.epoch });
                self.session_until = now + session;
                let version = self.sync.version + 1;
                self.sync = SyncRecord { version, members: vec![(host, boot)] };
                Answer::Claimed { epoch: self.epoch, sync: self.sync.clone(), sent }
            }
            Ask::WriteSync { epoch, version, members } => {
                if epoch != self.epoch || version != self.sync.version {
                    return Answer::SyncRefused;
                }
                self.sync = SyncRecord { version: version + 1, members };
                Answer::SyncWritten(self.sync.clone())
            }
            Ask::GiveBack { epoch } => {
                if holder.is_some_and(|holder| mine(holder) && holder.epoch == epoch) {
                    self.holder = None;
                }
                Answer::Nothing
            }
        }
    }

    /// The supervisor of this host says that its process is gone.
    pub(super) fn release(&mut self, host: usize, life: u64) {
        self.holder.take_if(|holder| holder.host == host && holder.life == life);
    }
}

impl World {
    /// Asks on behalf of this host's process; the number of the question.
    pub(super) fn ask(&mut self, host: usize, ask: Ask) -> u64 {
        self.questions += 1;
        let question = self.questions;
        let Some((life, boot)) = self.who(host) else { return question };
        let there = 100 + self.rng.u64(0..2 * MS);
        let unclear = match ask {
            Ask::Claim { .. } | Ask::WriteSync { .. } => self.plan.ambiguous,
            Ask::Look | Ask::Heartbeat { .. } | Ask::GiveBack { .. } => false,
        };
        let fate = if self.coordinator.cut[host] {
            Fate::Lost
        } else if unclear && !self.storm.over && self.rng.u32(0..4) == 0 {
            [Fate::Lost, Fate::Unanswered, Fate::Late][self.rng.usize(0..3)]
        } else {
            Fate::Done
        };
        let unknown = match ask {
            Ask::Look | Ask::Claim { .. } | Ask::WriteSync { .. } => Answer::Ambiguous,
            Ask::Heartbeat { .. } | Ask::GiveBack { .. } => Answer::Nothing,
        };
        let execute = |answered: bool| Event::Execute {
            host,
            life,
            boot,
            ask,
            question: answered.then_some(question),
        };
        match fate {
            Fate::Done => {
                self.after(there, execute(true));
                return question;
            }
            Fate::Unanswered => self.after(there, execute(false)),
            Fate::Late => {
                let late = self.rng.u64(300..2_000) * MS;
                self.after(late, execute(false));
            }
            Fate::Lost => {}
        }
        let gives_up = self.rng.u64(150..400) * MS;
        self.after(gives_up, Event::Answered { host, life, question, answer: unknown });
        question
    }

    fn who(&self, host: usize) -> Option<(u64, u128)> {
        let Host { boot, process, .. } = &self.hosts[host];
        process.as_ref().map(|process| (process.life, *boot))
    }

    pub(super) fn execute(&mut self, who: (usize, u64, u128), ask: Ask, question: Option<u64>) {
        let (host, life, _) = who;
        let before = self.coordinator.sync.clone();
        let answer = self.coordinator.execute(self.now, self.plan.session, who, ask);
        if self.coordinator.sync != before {
            let sync = self.coordinator.sync.clone();
            self.note(None, format_args!("sync record {sync:?}"));
        }
        if let Some(question) = question {
            let back = 100 + self.rng.u64(0..2 * MS);
            self.after(back, Event::Answered { host, life, question, answer });
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    Lost,
    Unanswered,
    Late,
}
