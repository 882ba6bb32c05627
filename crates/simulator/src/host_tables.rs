//! A stand-in for the tables of a node: logs that grow, a peer that follows, changes acknowledged.
//!
//! It keeps the contract of `TablesFact` and the effects that belong to it, with no record's content:
//! a log is its history of masterships and its length. What was acknowledged is remembered by the
//! world, so that each new master can be asked whether it has all of it.
//!
//! ```text
//!           linked, after a while                  not linked for a while
//!   Alone ────────────────────────▶ Required ─────────────────────────────▶ Lost
//!     ▲      PeerCaughtUp              ▲  PeerLost                           │ │
//!     │                                └───────────── linked ────────────────┘ │
//!     └──────────────────────────── AcknowledgeAlone ──────────────────────────┘
//! ```

use hotpair_core::pair::fact::{Fact, TablesFact};
use hotpair_core::pair::identity::{ClusterId, Epoch};
use hotpair_core::tables::position::{EpochStart, History, Position};

use super::clock::MS;
use super::outcome::Rule;
use super::world::{Event, NAMES, World};

/// How long what the tables say takes to the deciding thread: always the same, because it is a queue.
const TOLD: u64 = 200;

/// What a machine has on disk.
#[derive(Debug)]
pub(crate) struct Disk {
    history: History,
    complete: bool,
    cluster: Option<ClusterId>,
    seen: Epoch,
}

impl Default for Disk {
    fn default() -> Self {
        Self { history: History::default(), complete: true, cluster: None, seen: Epoch(0) }
    }
}

/// The tables of a process.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    opened: bool,
    preparing: Option<Epoch>,
    master: Option<Mastering>,
    following: Option<Epoch>,
}

#[derive(Debug)]
struct Mastering {
    epoch: Epoch,
    mode: Mode,
    losses: u64,
    /// Turns in a row without the peer.
    missed: u32,
    /// The barrier that the peer does not hold yet: of which hold, and its record.
    barrier: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Alone,
    /// A snapshot is on its way to this life of the peer.
    Loading(u64),
    Required(u64),
    Lost(u64),
}

impl Disk {
    /// The machine lost power: what was written last may not be there any more.
    fn cut(&mut self, head: u64) {
        let head = head.min(self.history.head());
        let starts = self.history.starts().iter().filter(|s| s.first <= head).copied().collect();
        self.history = History::new(starts, head);
    }

    fn position(&self) -> Position {
        self.history.position()
    }
}

impl World {
    fn tables(&mut self, host: usize) -> Option<&mut Tables> {
        self.hosts[host].process.as_mut().map(|p| &mut p.tables)
    }

    fn tables_say(&mut self, host: usize, fact: TablesFact) {
        self.own_fact(host, TOLD, Fact::Tables(fact));
    }

    fn say_moved(&mut self, host: usize) {
        let disk = &self.hosts[host].disk;
        let (position, complete) = (disk.position(), disk.complete);
        self.tables_say(host, TablesFact::Moved { position, complete });
    }

    // --- life and death

    /// A process begins: its tables are read from disk.
    pub(crate) fn open_tables(&mut self, host: usize) {
        let slow = self.chance(100);
        let wait = self.rng.u64(MS..if slow { 800 * MS } else { 50 * MS });
        if let Some(life) = self.process(host).map(|p| p.life) {
            self.after(wait, Event::TablesOpened { host, life });
        }
    }

    pub(crate) fn tables_opened(&mut self, host: usize, life: u64) {
        if !self.alive(host, life) {
            return;
        }
        self.tables(host).expect("seen alive").opened = true;
        let Disk { complete, cluster, seen, .. } = self.hosts[host].disk;
        let position = self.hosts[host].disk.position();
        self.tables_say(host, TablesFact::Opened { position, complete, cluster, seen });
    }

    /// Power is lost. Whoever is the last to have what was acknowledged had it on the disk's platters.
    pub(crate) fn cut_log(&mut self, host: usize) {
        let acknowledged = &self.checker.acknowledged;
        let other = &self.hosts[1 - host].disk;
        let elsewhere = other.complete && acknowledged.is_prefix_of(&other.history);
        let ours = acknowledged.is_prefix_of(&self.hosts[host].disk.history);
        let head = self.hosts[host].disk.history.head();
        let least = if elsewhere || !ours { 0 } else { acknowledged.head() };
        let keep = head.saturating_sub(self.rng.u64(0..100)).max(least);
        self.hosts[host].disk.cut(keep);
    }

    // --- effects

    pub(crate) fn prepare_tables(&mut self, host: usize, epoch: Epoch) {
        let Some(life) = self.process(host).map(|p| p.life) else { return };
        self.tables(host).expect("seen above").preparing = Some(epoch);
        let slow = self.chance(100);
        let wait = self.rng.u64(50..if slow { 300 * MS } else { 5 * MS });
        self.after(wait, Event::TablesReady { host, life, epoch });
    }

    pub(crate) fn tables_ready(&mut self, host: usize, life: u64, epoch: Epoch) {
        if !self.alive(host, life) {
            return;
        }
        let tables = self.tables(host).expect("seen alive");
        if tables.preparing.take_if(|of| *of == epoch).is_none() {
            return; // stood down meanwhile
        }
        tables.master =
            Some(Mastering { epoch, mode: Mode::Alone, losses: 0, missed: 0, barrier: None });
        let history = &mut self.hosts[host].disk.history;
        let first = history.head() + 1;
        history.begin(EpochStart { epoch, life, first });
        self.check_kept(host, epoch);
        self.tables_say(host, TablesFact::Ready { epoch });
    }

    /// A claim is done. If an operator accepted what that may lose, it is lost now.
    pub(crate) fn accept_loss(&mut self, host: usize, epoch: Epoch) {
        if !self.checker.waived.remove(&epoch) {
            return;
        }
        let history = &self.hosts[host].disk.history;
        let common = self.checker.acknowledged.last_common(history);
        if common < self.checker.acknowledged.head() {
            let starts = history.starts().iter().filter(|s| s.first <= common).copied().collect();
            self.checker.acknowledged = History::new(starts, common);
            self.note(Some(host), format_args!("changes after {common} are lost, as was accepted"));
        }
    }

    /// A new master has every acknowledged change.
    ///
    /// A machine that stood still without its clock may take an old answer for a new one, and go on
    /// into an epoch that others have left behind. Nothing but the epoch tells: its acts are refused.
    fn check_kept(&mut self, host: usize, epoch: Epoch) {
        let machine = &self.hosts[host];
        let history = &machine.disk.history;
        if self.checker.acknowledged.is_prefix_of(history) {
            return;
        }
        if self.now < machine.excused_until && epoch < self.ensemble.head.epoch.epoch {
            self.checker.refused += 1;
            return;
        }
        let (name, had) = (NAMES[host], self.checker.acknowledged.position());
        let text = format!(
            "{name} is master in epoch {epoch} without what was acknowledged up to {had}: it has \
             {history:?}"
        );
        self.violated(Rule::AcknowledgedKept, text);
    }

    pub(crate) fn stand_tables_down(&mut self, host: usize) {
        let Some(tables) = self.tables(host) else { return };
        tables.preparing = None;
        tables.master = None;
        self.say_moved(host);
    }

    pub(crate) fn follow(&mut self, host: usize, master: Option<Epoch>) {
        if let Some(tables) = self.tables(host) {
            tables.following = master;
        }
    }

    pub(crate) fn remember(&mut self, host: usize, epoch: Epoch, cluster: Option<ClusterId>) {
        let disk = &mut self.hosts[host].disk;
        (disk.seen, disk.cluster) = (epoch, cluster);
    }

    pub(crate) fn acknowledge_alone(&mut self, host: usize, epoch: Epoch, loss: u64) {
        let master = self.tables(host).and_then(|tables| tables.master.as_mut());
        if let Some(master) = master.filter(|m| m.epoch == epoch && m.mode == Mode::Lost(loss)) {
            master.mode = Mode::Alone;
            self.check_alone(host, epoch);
        }
    }

    /// A record that the peer is to hold.
    pub(crate) fn write_barrier(&mut self, host: usize, epoch: Epoch, hold: u64) {
        let master = self.tables(host).and_then(|tables| tables.master.as_mut());
        if master.is_none_or(|master| master.epoch != epoch) {
            return;
        }
        let history = &mut self.hosts[host].disk.history;
        let number = history.head() + 1;
        history.extend(number);
        self.master(host).barrier = Some((hold, number));
        // Records go out as they come; most of the time that is at once.
        if self.chance(700) && self.hosts[host].pause.is_none() {
            self.turn_master(host);
        }
    }

    fn settle_barrier(&mut self, host: usize, epoch: Epoch) {
        if let Some((hold, number)) = self.master(host).barrier.take() {
            self.tables_say(host, TablesFact::BarrierHeld { epoch, hold, number });
        }
    }

    // --- turns

    /// Requests come in, records go out.
    pub(crate) fn turn_tables(&mut self) {
        let wait = self.rng.u64(15 * MS..60 * MS);
        self.after(wait, Event::TablesTurn);
        for host in 0..2 {
            if self.hosts[host].pause.is_none() {
                self.turn_master(host);
            }
        }
    }

    fn turn_master(&mut self, host: usize) {
        let Some(master) = self.tables(host).and_then(|tables| tables.master.as_ref()) else {
            return;
        };
        let (epoch, mode) = (master.epoch, master.mode);
        let open = self.hosts[host].may_act(self.now) == Some(epoch);
        let held = self.process(host).and_then(|p| p.gate).is_some_and(|gate| gate.held.is_some());
        if open && !held {
            let written = self.rng.u64(0..4);
            let history = &mut self.hosts[host].disk.history;
            history.extend(history.head() + written);
        }
        let peer = self.follower(host, epoch);
        let mode = match (mode, peer) {
            (Mode::Alone | Mode::Lost(_), Some(life)) if self.chance(200) => {
                self.begin_catching_up(host, epoch, life)
            }
            (Mode::Loading(life), Some(same)) if life == same => self.catch_up(host, epoch, life),
            (Mode::Loading(_), _) => self.lose_peer(host, epoch),
            (Mode::Required(life), Some(same)) if life == same => {
                self.copy_log(host);
                self.settle_barrier(host, epoch);
                self.master(host).missed = 0;
                mode
            }
            (Mode::Required(_), Some(_)) => self.lose_peer(host, epoch),
            (Mode::Required(_), None) => {
                self.master(host).missed += 1;
                let patience = self.rng.u32(2..20);
                if self.master(host).missed > patience { self.lose_peer(host, epoch) } else { mode }
            }
            (Mode::Alone | Mode::Lost(_), _) => mode,
        };
        self.master(host).mode = mode;
        self.acknowledge(host, epoch, mode, open);
    }

    fn master(&mut self, host: usize) -> &mut Mastering {
        let tables = self.tables(host).expect("a turn belongs to a process");
        tables.master.as_mut().expect("a turn belongs to a master")
    }

    /// The peer's process, if it follows this epoch and is reached.
    fn follower(&self, host: usize, epoch: Epoch) -> Option<u64> {
        let peer = 1 - host;
        let process = self.process(peer)?;
        let follows = process.tables.opened && process.tables.following == Some(epoch);
        let reached = self.network.passes() && !self.network.redo_cut;
        (follows && reached && self.hosts[peer].pause.is_none()).then_some(process.life)
    }

    fn begin_catching_up(&mut self, host: usize, epoch: Epoch, life: u64) -> Mode {
        let peer = 1 - host;
        let (ours, theirs) = (&self.hosts[host].disk.history, &self.hosts[peer].disk);
        if theirs.complete && theirs.history.is_prefix_of(ours) {
            return self.catch_up(host, epoch, life);
        }
        self.hosts[peer].disk.complete = false;
        self.say_moved(peer);
        // It acknowledges nothing until it is there, and must not be left out by mistake.
        Mode::Loading(life)
    }

    fn catch_up(&mut self, host: usize, epoch: Epoch, life: u64) -> Mode {
        self.copy_log(host);
        let peer = self.process(1 - host).expect("it follows").identity.incarnation.clone();
        self.tables_say(host, TablesFact::PeerCaughtUp { epoch, peer });
        self.master(host).missed = 0;
        Mode::Required(life)
    }

    fn copy_log(&mut self, host: usize) {
        let history = self.hosts[host].disk.history.clone();
        let theirs = &mut self.hosts[1 - host].disk;
        if theirs.complete && theirs.history == history {
            return;
        }
        (theirs.history, theirs.complete) = (history, true);
        self.say_moved(1 - host);
    }

    fn lose_peer(&mut self, host: usize, epoch: Epoch) -> Mode {
        let master = self.master(host);
        master.losses += 1;
        master.missed = 0;
        let loss = master.losses;
        self.tables_say(host, TablesFact::PeerLost { epoch, loss });
        Mode::Lost(loss)
    }

    /// What is acknowledged now must be there for ever.
    fn acknowledge(&mut self, host: usize, epoch: Epoch, mode: Mode, open: bool) {
        let excused = self.now < self.hosts[host].excused_until;
        let counts = match mode {
            Mode::Alone => open && !excused,
            // Once it is copied, which the peer does only while it follows.
            Mode::Required(life) => open && self.follower(host, epoch) == Some(life),
            Mode::Loading(_) | Mode::Lost(_) => false,
        };
        if !counts {
            return;
        }
        if mode == Mode::Alone {
            self.check_alone(host, epoch);
        }
        self.checker.acknowledged = self.hosts[host].disk.history.clone();
    }

    /// Whoever acknowledges alone is named alone.
    fn check_alone(&mut self, host: usize, epoch: Epoch) {
        let excused = self.now < self.hosts[host].excused_until;
        let open = self.hosts[host].may_act(self.now) == Some(epoch);
        if excused || !open {
            return;
        }
        let me = &self.process(host).expect("it acknowledges").identity.incarnation;
        let alone = self.ensemble.head.sync.as_ref().is_some_and(|sync| {
            sync.epoch == epoch && sync.members.iter().all(|member| member == me)
        });
        if !alone {
            let (name, sync) = (NAMES[host], self.ensemble.head.sync.clone());
            let text = format!("{name} acknowledges alone in epoch {epoch}; the record: {sync:?}");
            self.violated(Rule::AloneByRecord, text);
        }
    }
}
