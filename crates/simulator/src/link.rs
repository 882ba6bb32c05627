//! What passes between the two nodes: connections as TCP makes them, over a network that fails.
//!
//! A cut holds messages back, as retransmission does; they arrive in a heap when it heals, unless
//! the connection is over by then. What arrives for a process that is no more is answered by a
//! reset. A frozen process still accepts: its kernel does.

use hotpair_core::pair::fact::{DialFailure, Fact, LinkEnd};
use hotpair_core::pair::identity::Statement;

use super::clock::{MS, Micros};
use super::fault::Fault;
use super::plan::{Residue, Weather};
use super::world::{Event, NAMES, World};

/// Messages held back by a cut, for each connection and direction; more are lost.
const HELD_MAX: usize = 64;
/// Connections remembered after their end, so that stragglers still find them.
const CONNECTIONS_MAX: usize = 16;

/// The network between the nodes.
#[derive(Debug)]
pub(crate) struct Network {
    /// What this host sends is lost.
    pub(crate) cut: [bool; 2],
    /// New connections to this host are refused by a firewall.
    pub(crate) reject: [bool; 2],
    pub(crate) weather: Weather,
    /// Records do not pass.
    pub(crate) redo_cut: bool,
    connections: Vec<Connection>,
    next: u64,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    dialer: usize,
    dialer_life: u64,
    acceptor_life: u64,
    welcomed: bool,
    dialer_open: bool,
    acceptor_open: bool,
    /// By the host that receives.
    last_arrival: [Micros; 2],
    /// By the host that sends.
    held: [Vec<Message>; 2],
}

/// A frame, or the end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Ask { number: u64, statement: Statement },
    Answer { number: u64, statement: Statement },
    End { how: LinkEnd },
}

impl Network {
    pub(crate) fn new(weather: Weather) -> Self {
        Self {
            cut: [false; 2],
            reject: [false; 2],
            weather,
            redo_cut: false,
            connections: Vec::new(),
            next: 1,
        }
    }

    fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().rev().find(|c| c.id == id)
    }

    /// Packets pass in both directions.
    pub(crate) fn passes(&self) -> bool {
        !self.cut[0] && !self.cut[1]
    }
}

impl World {
    // --- effects

    pub(crate) fn dial(&mut self, host: usize, statement: Statement) {
        let peer = 1 - host;
        let process = self.process(host).expect("effects belong to a process");
        let life = process.life;
        let time_out = process.dial_time_out;
        let round_trip = 2 * self.between(self.network.weather.delay);
        let machine = &self.hosts[peer];
        let answers = machine.up && !machine.suspended() && self.network.passes();
        let refused = self.network.reject[peer] || (answers && machine.process.is_none());
        if refused {
            let how = DialFailure::Refused;
            self.after(round_trip, Event::DialFailed { host, life, how });
            return;
        }
        if !answers {
            let unreachable = self.chance(100);
            let how = if unreachable { DialFailure::Unreachable } else { DialFailure::TimedOut };
            let wait = if unreachable { round_trip } else { time_out };
            self.after(wait, Event::DialFailed { host, life, how });
            return;
        }
        let id = self.network.next;
        self.network.next += 1;
        let acceptor_life = self.process(peer).expect("refused otherwise").life;
        if self.network.connections.len() >= CONNECTIONS_MAX {
            self.network.connections.remove(0);
        }
        self.network.connections.push(Connection {
            id,
            dialer: host,
            dialer_life: life,
            acceptor_life,
            welcomed: false,
            dialer_open: true,
            acceptor_open: true,
            last_arrival: [0; 2],
            held: [Vec::new(), Vec::new()],
        });
        self.hosts[host].process.as_mut().expect("seen above").link = Some(id);
        self.send(id, host, round_trip, Message::Ask { number: 0, statement });
        self.after(time_out, Event::DialTimedOut { host, life, connection: id });
    }

    pub(crate) fn drop_link(&mut self, host: usize) {
        let process = self.hosts[host].process.as_mut().expect("effects belong to a process");
        if let Some(id) = process.link.take()
            && let Some(c) = self.network.connection(id)
        {
            c.dialer_open = false;
        }
    }

    pub(crate) fn send_ping(&mut self, host: usize, number: u64, statement: Statement) {
        if let Some(id) = self.process(host).and_then(|p| p.link) {
            self.send(id, host, 0, Message::Ask { number, statement });
        }
    }

    pub(crate) fn answer_peer(&mut self, host: usize, id: u64, number: u64, statement: Statement) {
        self.send(id, host, 0, Message::Answer { number, statement });
    }

    // --- the way

    fn send(&mut self, id: u64, from: usize, extra: Micros, message: Message) {
        let cut = self.network.cut[from];
        let weather = self.network.weather;
        let lost = self.chance(weather.lost) && !matches!(message, Message::End { .. });
        let resent = self.chance(weather.resent);
        let doubled = self.chance(weather.doubled);
        let reordered = self.chance(weather.reordered);
        let resend = self.between((200 * MS, 900 * MS));
        let delay = extra + self.between(weather.delay) + if resent { resend } else { 0 };
        let to = 1 - from;
        let now = self.now;
        let Some(c) = self.network.connection(id) else { return };
        if cut {
            if c.held[from].len() < HELD_MAX {
                c.held[from].push(message);
            }
            return;
        }
        if lost {
            return;
        }
        let mut at = now + delay;
        if !reordered {
            at = at.max(c.last_arrival[to] + 1);
            c.last_arrival[to] = at;
        }
        if doubled && !matches!(message, Message::End { .. }) {
            let message = message.clone();
            self.schedule.push(at + delay, Event::Arrive { connection: id, to, message });
        }
        self.schedule.push(at, Event::Arrive { connection: id, to, message });
    }

    /// What a cut held back is sent again.
    pub(crate) fn flush_link(&mut self, from: usize) {
        if self.network.cut[from] {
            return;
        }
        let mut held = Vec::new();
        for c in &mut self.network.connections {
            held.extend(c.held[from].drain(..).map(|m| (c.id, m)));
        }
        let resend = self.between((10 * MS, 1_500 * MS));
        for (id, message) in held {
            self.send(id, from, resend, message);
        }
    }

    pub(crate) fn arrive(&mut self, id: u64, to: usize, message: Message) {
        if !self.hosts[to].up {
            return;
        }
        let life = self.process(to).map(|p| p.life);
        let Some(c) = self.network.connection(id) else { return };
        if to == c.dialer {
            if life == Some(c.dialer_life) && c.dialer_open {
                self.arrive_at_dialer(id, to, message);
            }
            return;
        }
        let Message::Ask { number, statement } = message else { return };
        if life != Some(c.acceptor_life) || !c.acceptor_open {
            c.acceptor_open = false;
            self.send(id, to, 0, Message::End { how: LinkEnd::Reset });
            return;
        }
        self.tell(to, Fact::PeerAsked { connection: id, number, statement });
    }

    fn arrive_at_dialer(&mut self, id: u64, to: usize, message: Message) {
        let Some(c) = self.network.connection(id) else { return };
        let fact = match message {
            Message::Answer { number: 0, statement } => {
                if std::mem::replace(&mut c.welcomed, true) {
                    return; // a duplicate
                }
                Fact::LinkOpened { statement }
            }
            Message::Answer { .. } if !c.welcomed => return,
            Message::Answer { number, statement } => {
                if number.is_multiple_of(5) {
                    self.measure_clock(to);
                }
                Fact::PingAnswered { number, statement }
            }
            Message::End { how } => {
                c.dialer_open = false;
                let welcomed = c.welcomed;
                self.hosts[to].process.as_mut().expect("seen alive").link = None;
                if welcomed {
                    Fact::LinkEnded { how }
                } else {
                    Fact::DialFailed { how: DialFailure::EndedEarly }
                }
            }
            Message::Ask { .. } => return,
        };
        self.tell(to, fact);
    }

    fn measure_clock(&mut self, host: usize) {
        let offset_ms = self.hosts[1 - host].clock.wall_ms - self.hosts[host].clock.wall_ms;
        let round_trip_ms = self.network.weather.delay.0 / MS;
        self.tell(host, Fact::ClockMeasured { offset_ms, round_trip_ms });
    }

    pub(crate) fn dial_failed(&mut self, host: usize, life: u64, how: DialFailure) {
        if self.alive(host, life) {
            self.tell(host, Fact::DialFailed { how });
        }
    }

    pub(crate) fn dial_timed_out(&mut self, host: usize, life: u64, id: u64) {
        let link = self.process(host).filter(|p| p.life == life).and_then(|p| p.link);
        let Some(c) = self.network.connection(id) else { return };
        if c.welcomed || link != Some(id) {
            return;
        }
        c.dialer_open = false;
        self.hosts[host].process.as_mut().expect("seen alive").link = None;
        self.tell(host, Fact::DialFailed { how: DialFailure::TimedOut });
    }

    // --- ends

    /// The process is gone: its kernel closes what it had.
    pub(crate) fn end_connections(&mut self, host: usize) {
        let how = if self.chance(500) { LinkEnd::Fin } else { LinkEnd::Reset };
        let mut ended = Vec::new();
        for c in &mut self.network.connections {
            if c.dialer == host {
                c.dialer_open = false;
            } else if std::mem::replace(&mut c.acceptor_open, false) {
                ended.push(c.id);
            }
        }
        for id in ended {
            // A reset is sent once; a FIN is sent again until somebody answers.
            if how == LinkEnd::Fin || !self.network.cut[host] {
                self.send(id, host, 0, Message::End { how });
            }
        }
    }

    /// The machine is gone: nothing is closed, nobody answers.
    pub(crate) fn forget_connections(&mut self, host: usize) {
        for c in &mut self.network.connections {
            if c.dialer == host {
                c.dialer_open = false;
            } else {
                c.acceptor_open = false;
            }
            c.held[host].clear();
        }
    }

    /// Connections break though both processes live.
    pub(crate) fn break_connections(&mut self) -> bool {
        // A reset and refusals together are how a death looks: a firewall that does both at once
        // cannot be told from one, and is not part of the model.
        let rejects = self.plan.enables(Fault::Reject) || self.plan.residue == Residue::Rejected;
        let how = if rejects {
            LinkEnd::Lost
        } else {
            [LinkEnd::Lost, LinkEnd::Reset, LinkEnd::Fin][self.rng.usize(0..3)]
        };
        let open: Vec<(u64, usize)> = self
            .network
            .connections
            .iter_mut()
            .filter(|c| c.welcomed && c.dialer_open && c.acceptor_open)
            .map(|c| {
                c.acceptor_open = false;
                (c.id, c.dialer)
            })
            .collect();
        for (connection, to) in &open {
            let message = Message::End { how };
            let event = Event::Arrive { connection: *connection, to: *to, message };
            self.after(MS, event);
        }
        !open.is_empty()
    }

    pub(crate) fn note(&mut self, host: Option<usize>, what: std::fmt::Arguments<'_>) {
        let who = host.map_or("··", |h| NAMES[h]);
        self.transcript.line(self.now, who, what);
    }
}
