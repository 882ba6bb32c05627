//! The link driver: one handle for the control loop, a few tasks behind it.
//!
//! Methods take orders and return at once; facts come back through the channel given at the start.
//! The channel is bounded: when the control loop is behind, the tasks wait, and with them the peer.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hotpair_core::pair::fact::Fact;
use hotpair_core::pair::identity::{Identity, Statement};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use crate::address::Addresses;
use crate::complaint::Complaints;
use crate::dial::{Dial, Dialler, PINGS_MAX, Ping};
use crate::door::{Door, Guests};
use crate::redo::RedoEvent;
use crate::secure::LinkSecurity;
use crate::wall::WallClock;
use crate::words::TEXT_BYTES_MAX;

/// Connections that may wait to be accepted: as many as a flooded door lets in within less than a
/// ping's time-out, so that a dial that got into the queue is answered in time.
const WAITING_MAX: u32 = 256;

/// What a link needs to know.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// The peer's address, `host:port`.
    pub peer: String,
    /// Who we are; a hello of another pair is refused.
    pub me: Arc<Identity>,
    /// From the dial to the welcome, at most so long (`peer.ping_timeout`).
    pub dial_timeout: Duration,
    /// TLS; plain text without.
    pub security: Option<LinkSecurity>,
    /// For the clock offset only.
    pub wall_clock: WallClock,
}

/// The link did not start; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener cannot be used by this runtime.
    #[error("the peer listener cannot be used: {0}")]
    Listener(#[from] io::Error),
    /// A name would be refused by the peer.
    #[error("{key} is longer than {TEXT_BYTES_MAX} bytes; the peer would refuse it")]
    TooLong {
        /// Which name.
        key: &'static str,
    },
}

/// The link between the nodes. Dropping it closes every socket.
#[derive(Debug)]
pub struct LinkDriver {
    dialler: Dialler,
    dials: u64,
    dialled: Option<Dialled>,
    guests: Guests,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Dialled {
    pings: mpsc::Sender<Ping>,
    task: AbortHandle,
}

impl LinkDriver {
    /// Binds the peer listener, with room for more connections that were not accepted yet than
    /// the standard library gives: where that queue is full, the peer's dial goes unanswered. To be called within a
    /// runtime, and at the start, so that an address in use is found out before anything else.
    ///
    /// # Errors
    /// As the system says.
    pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restarted node must not wait for the connections of its previous life.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(WAITING_MAX)?.into_std()
    }

    /// Begins to accept; connections that are to be redo streams go to `redo`. To be called within the runtime that is to carry the link.
    ///
    /// # Errors
    /// When the listener cannot be handed to the runtime, or a name in the identity is too long.
    pub fn start(
        settings: LinkSettings,
        listener: StdListener,
        facts: mpsc::Sender<Fact>,
        redo: mpsc::Sender<RedoEvent>,
    ) -> Result<Self, StartError> {
        let LinkSettings { peer, me, dial_timeout: timeout, security, wall_clock: wall } = settings;
        let names = [
            ("pair", me.pair.len()),
            ("node", me.incarnation.node.as_str().len()),
            ("coordinator.zookeeper.root", me.root.len()),
            ("the program's version", me.version.len()),
        ];
        if let Some((key, _)) = names.into_iter().find(|(_, length)| *length > TEXT_BYTES_MAX) {
            return Err(StartError::TooLong { key });
        }
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let complaints: Arc<Complaints> = Arc::default();
        let guests = Guests::default();
        let door = Door {
            me: me.clone(),
            security: security.clone(),
            wall: wall.clone(),
            facts: facts.clone(),
            redo,
            complaints: complaints.clone(),
            guests: guests.clone(),
        };
        let dialler = Dialler {
            me,
            addresses: Addresses::new(&peer, complaints.clone()),
            timeout,
            security,
            wall,
            facts,
            complaints,
            current: Arc::default(),
        };
        let accepting = Some(tokio::spawn(door.accept(listener)));
        Ok(Self { dialler, dials: 0, dialled: None, guests, accepting })
    }

    /// `Effect::Dial`: connects and says hello. Ends in `LinkOpened`, or in `DialFailed`.
    /// A dial or link of before is given up without a word.
    pub fn dial(&mut self, statement: Statement) {
        self.drop_link();
        self.dials += 1;
        self.dialler.current.store(self.dials, Ordering::Release);
        let (pings, waiting) = mpsc::channel(PINGS_MAX);
        let dialler = self.dialler.clone();
        let dial = Dial { dialler, number: self.dials, statement, pings: waiting };
        let task = tokio::spawn(dial.run()).abort_handle();
        self.dialled = Some(Dialled { pings, task });
    }

    /// `Effect::SendPing`: sends a ping on the dialled link. Without a link, or when it takes no
    /// more, the ping is dropped and so stays unanswered.
    pub fn send_ping(&mut self, number: u64, statement: Statement) {
        if let Some(dialled) = &self.dialled {
            let _ = dialled.pings.try_send(Ping { number, statement });
        }
    }

    /// `Effect::AnswerPeer`: answers the hello (number 0) or the ping that came by this connection.
    pub fn answer_peer(&mut self, connection: u64, number: u64, statement: Statement) {
        self.guests.answer(connection, number, statement);
    }

    /// `Effect::DropLink`: gives up the dialled link; no fact follows.
    pub fn drop_link(&mut self) {
        self.dialler.current.store(0, Ordering::Release);
        if let Some(dialled) = self.dialled.take() {
            dialled.task.abort();
        }
    }

    /// Closes the listener: once this returns, a dial to it is refused. Connections that were let
    /// in stay until the driver is dropped. To be called after the gate was closed.
    pub async fn close_listener(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // Ends at once: cancelled, or it panicked, and the listener is gone either way.
            let _ = accepting.await;
        }
    }

    #[cfg(test)]
    fn connections(&self) -> usize {
        self.guests.count()
    }
}

impl Drop for LinkDriver {
    fn drop(&mut self) {
        self.drop_link();
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.guests.close_all();
    }
}

#[cfg(test)]
mod tests;
