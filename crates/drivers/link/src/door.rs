//! The door: connections that the peer (or anybody else) dials to us.
//!
//! ```text
//! accept ─▶ (TLS) ─▶ hello within 2 s ─▶ of our pair? ─no─▶ reject, close
//!                                    │yes
//!                                    ▼
//!                        ask the core, send its answer ◀──┐
//!                                    └──── next ping ──────┘  quiet for 10 s: close
//! ```
//!
//! One task per connection, and one question at a time per connection: whoever asks faster than the
//! core answers waits in its own socket buffer. All sockets are few; when one too many comes, the one
//! that was quiet for longest makes room, so that connections that say nothing cannot keep the peer
//! out. Whatever goes wrong here ends one connection and never reaches the core.

use std::collections::BTreeMap;
use std::io::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use hotpair_core::pair::fact::Fact;
use hotpair_core::pair::identity::{Identity, Statement};
use hotpair_core::tables::replication::Follow;
use hotpair_tls::Stream;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::complaint::{Complaints, Kind};
use crate::dial::stranger;
use crate::frame::{
    Frame, FrameError, FrameReader, ReadEnd, RejectReason, Rejection, Times, encode,
};
use crate::pace::{FRAMES_PER_SECOND_MAX, Pace};
use crate::redo::{RedoEvent, Wire};
use crate::secure::{LinkSecurity, NoHandshake};
use crate::wall::WallClock;

/// Connections held at a time. The peer needs one.
pub(crate) const CONNECTIONS_MAX: usize = 16;
/// A hello must have come by then.
pub(crate) const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// The next frame must have come by then.
pub(crate) const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// The core answers within a turn of its loop; this is only so that no wait is without end.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The other side must take our answer by then.
const WRITE_WITHIN: Duration = Duration::from_secs(2);
/// Connections let in within one [`TURN`].
const LET_IN_PER_TURN_MAX: u32 = 16;
/// The same with TLS, where a stranger's first bytes cost us a signature.
const HANDSHAKES_PER_TURN_MAX: u32 = 4;
const TURN: Duration = Duration::from_millis(5);
/// After an error of the listener (no free file descriptor, as a rule).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What every inbound connection needs.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) me: Arc<Identity>,
    pub(crate) security: Option<LinkSecurity>,
    pub(crate) wall: WallClock,
    pub(crate) facts: mpsc::Sender<Fact>,
    /// Where connections go that are to be redo streams.
    pub(crate) redo: mpsc::Sender<RedoEvent>,
    pub(crate) complaints: Arc<Complaints>,
    pub(crate) guests: Guests,
}

/// The inbound connections, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guests {
    all: Arc<Mutex<BTreeMap<u64, Guest>>>,
    last: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Guest {
    answers: mpsc::Sender<(u64, Statement)>,
    task: AbortHandle,
    /// The last frame; none before the hello, which is quieter than anything else.
    heard: Option<Instant>,
}

impl Guests {
    /// Hands the core's answer to the connection that waits for it. It may be gone: nothing is lost.
    pub(crate) fn answer(&self, connection: u64, number: u64, statement: Statement) {
        if let Some(guest) = self.all().get(&connection) {
            let _ = guest.answers.try_send((number, statement));
        }
    }

    pub(crate) fn close_all(&self) {
        for guest in std::mem::take(&mut *self.all()).into_values() {
            guest.task.abort();
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }

    /// Ends the connection that was quiet for longest, if there is no room for one more.
    fn make_room(&self) -> bool {
        let mut all = self.all();
        if all.len() < CONNECTIONS_MAX {
            return false;
        }
        let quietest = all.iter().min_by_key(|(number, guest)| (guest.heard, **number));
        if let Some(number) = quietest.map(|(number, _)| *number)
            && let Some(guest) = all.remove(&number)
        {
            guest.task.abort();
        }
        true
    }

    fn heard_from(&self, connection: u64) {
        if let Some(guest) = self.all().get_mut(&connection) {
            guest.heard = Some(Instant::now());
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Guest>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    /// Accepts until it is aborted. Dropping the future closes the listener, not the connections.
    pub(crate) async fn accept(self, listener: TcpListener) {
        let let_in_max = match self.security {
            Some(_) => HANDSHAKES_PER_TURN_MAX,
            None => LET_IN_PER_TURN_MAX,
        };
        let mut turn = Instant::now();
        let mut let_in = 0;
        loop {
            if turn.elapsed() >= TURN {
                turn = Instant::now();
                let_in = 0;
            } else if let_in == let_in_max {
                // A flood waits in the kernel, not in front of the control loop's tasks.
                tokio::time::sleep_until(turn + TURN).await;
            }
            let_in += 1;
            match listener.accept().await {
                Ok((stream, from)) => self.let_in(stream, from),
                Err(error) => {
                    let what = format!("cannot accept a connection: {error}");
                    self.complaints.note(Kind::System, None, &what);
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    fn let_in(&self, stream: TcpStream, from: SocketAddr) {
        if self.guests.make_room() {
            let what = format!("more than {CONNECTIONS_MAX} connections, closed the quietest");
            self.complaints.note(Kind::Excess, Some(from.ip()), &what);
        }
        let number = self.guests.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (answers, answered) = mpsc::channel(1);
        // Held until the guest is entered, so that a task that ends at once finds itself there.
        let mut all = self.guests.all();
        let visit = self.clone().receive(number, stream, from, answered);
        let task = tokio::spawn(visit).abort_handle();
        all.insert(number, Guest { answers, task, heard: None });
    }

    /// One inbound connection, from its first byte on.
    async fn receive(
        self,
        number: u64,
        stream: TcpStream,
        from: SocketAddr,
        answered: mpsc::Receiver<(u64, Statement)>,
    ) {
        // A node that waits for answers must not wait for Nagle's algorithm as well.
        let _ = stream.set_nodelay(true);
        let stream = match &self.security {
            None => Some(Stream::Plain(stream)),
            Some(security) => self.secured(security, stream, from).await,
        };
        let Some(stream) = stream else {
            self.guests.all().remove(&number);
            return;
        };
        let foreign = self.security.as_ref().is_some_and(|s| !s.is_of_our_pair(&stream));
        let (reader, writer) = tokio::io::split(stream);
        let reader = FrameReader::new(reader);
        let pace = Pace::new();
        let visit = Visit { door: self, number, from, foreign, reader, writer, answered, pace };
        visit.run().await;
    }

    async fn secured(
        &self,
        security: &LinkSecurity,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Option<Stream> {
        match timeout(HELLO_WITHIN, security.accept(from, stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(NoHandshake::Refused(what))) => {
                self.refuse(from, what);
                None
            }
            Ok(Err(NoHandshake::Ended(_))) => None,
            Err(_elapsed) => {
                let what = format!("no handshake within {HELLO_WITHIN:?}");
                self.complaints.note(Kind::Slow, Some(from.ip()), &what);
                None
            }
        }
    }

    /// Somebody was not let in, and the operator should know why; the control loop hears it only
    /// when it has time.
    fn refuse(&self, from: SocketAddr, what: String) {
        self.complaints.note(Kind::Untrusted, Some(from.ip()), &what);
        let _ = self.facts.try_send(Fact::LinkTroubled { what });
    }
}

/// One inbound connection.
#[derive(Debug)]
struct Visit {
    door: Door,
    number: u64,
    from: SocketAddr,
    /// Its certificate is not for our pair.
    foreign: bool,
    reader: FrameReader<ReadHalf<Stream>>,
    writer: WriteHalf<Stream>,
    answered: mpsc::Receiver<(u64, Statement)>,
    pace: Pace,
}

/// Why a visit is over.
#[derive(Debug, thiserror::Error)]
enum VisitEnd {
    #[error("the connection ended")]
    Ended,
    #[error("this node is ending")]
    NoCore,
    #[error("no hello within {HELLO_WITHIN:?}")]
    NoHello,
    #[error("no frame within {FRAME_WITHIN:?}")]
    Quiet,
    #[error("it does not take our answer")]
    NotReading,
    #[error("more than {FRAMES_PER_SECOND_MAX} frames in a second")]
    TooFast,
    #[error("{0}")]
    Garbage(FrameError),
    #[error("a {0} where it does not belong")]
    OutOfPlace(&'static str),
    #[error("hello of {0}, which is not of our pair")]
    Stranger(String),
    #[error("its certificate is not for pair {0}")]
    Foreign(Arc<str>),
    #[error("it follows the redo of this node from now on")]
    Follows(Box<Follow>, bool),
}

impl From<ReadEnd> for VisitEnd {
    fn from(end: ReadEnd) -> Self {
        match end {
            ReadEnd::Closed | ReadEnd::Failed(_) => Self::Ended,
            ReadEnd::Garbage(error) => Self::Garbage(error),
        }
    }
}

impl From<Error> for VisitEnd {
    fn from(_: Error) -> Self {
        Self::Ended
    }
}

impl Visit {
    async fn run(mut self) {
        let end = match self.talk().await {
            Ok(never) => match never {},
            Err(VisitEnd::Follows(follow, directory)) => {
                return self.hand_over(*follow, directory).await;
            }
            Err(end) => end,
        };
        let kind = match &end {
            VisitEnd::Ended | VisitEnd::NoCore | VisitEnd::Follows(..) => None,
            VisitEnd::NoHello | VisitEnd::Quiet | VisitEnd::NotReading => Some(Kind::Slow),
            VisitEnd::TooFast => Some(Kind::Excess),
            VisitEnd::Garbage(_) | VisitEnd::OutOfPlace(_) => Some(Kind::Garbage),
            VisitEnd::Stranger(_) => Some(Kind::Stranger),
            VisitEnd::Foreign(_) => Some(Kind::Untrusted),
        };
        if let Some(kind) = kind {
            self.door.complaints.note(kind, Some(self.from.ip()), &end);
        }
        self.door.guests.all().remove(&self.number);
    }

    /// From here on the connection belongs to the tables.
    async fn hand_over(self, follow: Follow, directory: bool) {
        let Self { door, number, from, reader, writer, .. } = self;
        door.guests.all().remove(&number);
        let Some(reader) = reader.into_inner() else {
            let what = "it sends on before its follow was answered";
            door.complaints.note(Kind::Garbage, Some(from.ip()), &what);
            return;
        };
        match Wire::from_stream(reader.unsplit(writer)) {
            Ok(stream) => {
                let event = RedoEvent::FollowerCame { follow, directory, stream };
                let _ = door.redo.send(event).await;
            }
            Err(error) => door.complaints.note(Kind::System, Some(from.ip()), &error),
        }
    }

    async fn talk(&mut self) -> Result<std::convert::Infallible, VisitEnd> {
        let statement = self.hello().await?;
        let statement = self.ask(0, statement).await?;
        self.send(&Frame::Welcome { statement }).await?;
        loop {
            let frame = timeout(FRAME_WITHIN, self.reader.next()).await;
            let (number, sent_ms, statement) = match frame.map_err(|_| VisitEnd::Quiet)?? {
                Frame::Ping { number, sent_ms, statement } => (number, sent_ms, statement),
                Frame::Hello { .. } => return Err(VisitEnd::OutOfPlace("second hello")),
                Frame::Welcome { .. } => return Err(VisitEnd::OutOfPlace("welcome")),
                Frame::Answer { .. } => return Err(VisitEnd::OutOfPlace("answer")),
                Frame::Reject(_) => return Err(VisitEnd::OutOfPlace("reject")),
                Frame::Follow { .. } => return Err(VisitEnd::OutOfPlace("follow")),
            };
            let received_ms = self.door.wall.ms();
            if !self.pace.bearable() {
                return Err(VisitEnd::TooFast);
            }
            self.of_our_pair(&statement)?;
            let statement = self.ask(number, statement).await?;
            let times = Times { sent_ms, received_ms, answered_ms: self.door.wall.ms() };
            self.send(&Frame::Answer { number, times, statement }).await?;
        }
    }

    async fn hello(&mut self) -> Result<Statement, VisitEnd> {
        if self.foreign {
            return Err(self.turn_away().await);
        }
        let frame = timeout(HELLO_WITHIN, self.reader.next()).await;
        match frame.map_err(|_| VisitEnd::NoHello)? {
            Ok(Frame::Hello { statement }) => {
                if let Err(end) = self.of_our_pair(&statement) {
                    let text = format!("this is a node of pair {}", self.door.me.pair);
                    self.reject(RejectReason::Pair, text).await?;
                    if let VisitEnd::Stranger(who) = &end {
                        let fact = Fact::StrangerMet { who: who.clone() };
                        self.door.facts.send(fact).await.map_err(|_| VisitEnd::NoCore)?;
                    }
                    return Err(end);
                }
                // After a freeze the kernel hands us every dial of that time; those that were
                // given up long ago are not worth the core's time, and what they say is old.
                if self.reader.closed_already().await {
                    return Err(VisitEnd::Ended);
                }
                Ok(statement)
            }
            Ok(Frame::Follow { pair, follow, directory }) if *pair == *self.door.me.pair => {
                Err(VisitEnd::Follows(follow, directory))
            }
            Ok(Frame::Follow { pair, follow, .. }) => {
                let node = follow.who.node.as_str();
                Err(VisitEnd::Stranger(stranger(node, &pair, self.from)))
            }
            Ok(
                Frame::Welcome { .. }
                | Frame::Ping { .. }
                | Frame::Answer { .. }
                | Frame::Reject(_),
            ) => {
                self.reject(RejectReason::Malformed, "a hello comes first".to_owned()).await?;
                Err(VisitEnd::OutOfPlace("frame before the hello"))
            }
            Err(ReadEnd::Garbage(error)) => {
                if error == FrameError::Tls {
                    let what = format!("somebody came from {}: {error}", self.from.ip());
                    let _ = self.door.facts.try_send(Fact::LinkTroubled { what });
                }
                let reason = match &error {
                    FrameError::Version { .. } => RejectReason::Version,
                    FrameError::Length { .. }
                    | FrameError::Tls
                    | FrameError::Tag { .. }
                    | FrameError::Body { .. } => RejectReason::Malformed,
                };
                self.reject(reason, error.to_string()).await?;
                Err(VisitEnd::Garbage(error))
            }
            Err(end @ (ReadEnd::Closed | ReadEnd::Failed(_))) => Err(end.into()),
        }
    }

    /// The other side has shown a certificate that our authority signed, and that is for others.
    async fn turn_away(&mut self) -> VisitEnd {
        let name = self.door.security.as_ref().map_or("", LinkSecurity::name).to_owned();
        let pair = Arc::clone(&self.door.me.pair);
        let name = if name == *pair { format!("pair {pair}") } else { format!("{name:?}") };
        // Read first, whatever it is: closed with bytes unread, the answer might be lost.
        let _ = timeout(HELLO_WITHIN, self.reader.next()).await;
        let text = format!("your certificate does not name {name} (subject alternative name)");
        let _ = self.reject(RejectReason::Malformed, text).await;
        let what = format!(
            "a node came from {} with a certificate that does not name {name}",
            self.from.ip()
        );
        let _ = self.door.facts.try_send(Fact::LinkTroubled { what });
        VisitEnd::Foreign(pair)
    }

    fn of_our_pair(&self, statement: &Statement) -> Result<(), VisitEnd> {
        let identity = &statement.identity;
        if identity.pair == self.door.me.pair {
            return Ok(());
        }
        let node = identity.incarnation.node.as_str();
        Err(VisitEnd::Stranger(stranger(node, &identity.pair, self.from)))
    }

    /// Puts a question to the core and waits for the answer.
    async fn ask(&mut self, number: u64, statement: Statement) -> Result<Statement, VisitEnd> {
        self.door.guests.heard_from(self.number);
        let fact = Fact::PeerAsked { connection: self.number, number, statement };
        self.door.facts.send(fact).await.map_err(|_| VisitEnd::NoCore)?;
        let answer = timeout(ANSWER_WITHIN, self.answered.recv()).await;
        match answer.map_err(|_| VisitEnd::NoCore)? {
            Some((answered, statement)) if answered == number => Ok(statement),
            Some(_) | None => Err(VisitEnd::NoCore),
        }
    }

    async fn reject(&mut self, reason: RejectReason, text: String) -> Result<(), VisitEnd> {
        let me = &self.door.me;
        let rejection = Rejection {
            reason,
            text: text.chars().take(200).collect(),
            pair: me.pair.to_string(),
            node: me.incarnation.node.to_string(),
        };
        self.send(&Frame::Reject(rejection)).await
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), VisitEnd> {
        let mut out = BytesMut::new();
        encode(frame, &mut out);
        let writer = &mut self.writer;
        let sending = async {
            writer.write_all(&out).await?;
            writer.flush().await
        };
        timeout(WRITE_WITHIN, sending).await.map_err(|_| VisitEnd::NotReading)??;
        Ok(())
    }
}
