//! The link that we dial: connect, hello, welcome, then pings and answers until it ends.
//!
//! ```text
//! dial ──connect──(TLS)──hello──welcome──▶ LinkOpened ──ping/answer…──▶ LinkEnded
//!           │       │     │       │
//!           └───────┴─────┴───────┴──▶ DialFailed       all of it within one time-out
//! ```
//!
//! One task per dial, and one dial at a time. A task that was overtaken by a newer dial, or whose
//! link was given up, tells nothing any more. Reading never waits for writing: the end of the
//! connection must be seen when it comes.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use hotpair_core::pair::fact::{DialFailure, Fact, LinkEnd};
use hotpair_core::pair::identity::{Identity, Statement};
use hotpair_tls::Stream;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::address::Addresses;
use crate::complaint::{Complaints, Kind};
use crate::frame::{Frame, FrameError, FrameReader, ReadEnd, RejectReason, Times, encode};
use crate::pace::Pace;
use crate::secure::{LinkSecurity, NoHandshake, objection};
use crate::wall::WallClock;

/// Pings waiting to be written. More than this are not sent: they count as unanswered.
pub(crate) const PINGS_MAX: usize = 16;
/// Bytes waiting to be written, beyond which no further ping is taken in.
const OUT_BYTES_MAX: usize = 16 * 1_024;
/// Characters of a stranger's names that are shown.
const NAME_SHOWN_MAX: usize = 64;

/// A ping to be sent.
#[derive(Debug)]
pub(crate) struct Ping {
    pub(crate) number: u64,
    pub(crate) statement: Statement,
}

/// What every dial needs.
#[derive(Clone, Debug)]
pub(crate) struct Dialler {
    pub(crate) me: Arc<Identity>,
    pub(crate) addresses: Addresses,
    pub(crate) timeout: Duration,
    pub(crate) security: Option<LinkSecurity>,
    pub(crate) wall: WallClock,
    pub(crate) facts: mpsc::Sender<Fact>,
    pub(crate) complaints: Arc<Complaints>,
    /// The newest dial's number; 0 while there is none.
    pub(crate) current: Arc<AtomicU64>,
}

/// One dial and the link that comes of it.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) dialler: Dialler,
    pub(crate) number: u64,
    pub(crate) statement: Statement,
    pub(crate) pings: mpsc::Receiver<Ping>,
}

#[derive(Debug)]
struct Link {
    reader: FrameReader<ReadHalf<Stream>>,
    writer: WriteHalf<Stream>,
    peer: SocketAddr,
}

/// Why no link came of a dial.
#[derive(Debug)]
enum NoLink {
    Failed(DialFailure),
    Stranger(String),
    /// It and we do not fit together, in words.
    AtOdds(Kind, String),
}

impl Link {
    async fn say_hello(&mut self, statement: &Statement) -> Result<(), Error> {
        let mut out = BytesMut::new();
        encode(&Frame::Hello { statement: statement.clone() }, &mut out);
        self.writer.write_all(&out).await?;
        self.writer.flush().await
    }
}

impl From<DialFailure> for NoLink {
    fn from(how: DialFailure) -> Self {
        Self::Failed(how)
    }
}

impl Dial {
    pub(crate) async fn run(self) {
        match self.open().await {
            Ok((link, statement)) => {
                self.dialler.addresses.welcomed(link.peer);
                if self.tell(Fact::LinkOpened { statement }).await {
                    self.keep(link).await;
                }
            }
            Err(no_link) => {
                let how = match no_link {
                    NoLink::Failed(how) => how,
                    NoLink::Stranger(who) => {
                        self.dialler.complaints.note(Kind::Stranger, None, &who);
                        self.tell(Fact::StrangerMet { who }).await;
                        DialFailure::Rejected
                    }
                    NoLink::AtOdds(kind, what) => {
                        self.dialler.complaints.note(kind, None, &what);
                        self.tell(Fact::LinkTroubled { what }).await;
                        DialFailure::Rejected
                    }
                };
                self.dialler.addresses.failed(how);
                self.tell(Fact::DialFailed { how }).await;
            }
        }
    }

    /// Tells a fact, unless a newer dial has taken over. False: no more need to go on.
    async fn tell(&self, fact: Fact) -> bool {
        let Ok(permit) = self.dialler.facts.reserve().await else { return false };
        if self.dialler.current.load(Ordering::Acquire) != self.number {
            return false;
        }
        permit.send(fact);
        true
    }

    // --- up to the welcome

    async fn open(&self) -> Result<(Link, Statement), NoLink> {
        let deadline = Instant::now() + self.dialler.timeout;
        let peer = timeout_at(deadline, self.dialler.addresses.choose())
            .await
            .ok()
            .flatten()
            .ok_or(DialFailure::Unreachable)?;
        timeout_at(deadline, self.greet(peer)).await.map_err(|_| DialFailure::TimedOut)?
    }

    async fn greet(&self, peer: SocketAddr) -> Result<(Link, Statement), NoLink> {
        let stream = TcpStream::connect(peer).await.map_err(|e| connect_failure(&e))?;
        // A dial to a free port of the own machine can meet itself: nobody listens there.
        if stream.local_addr().ok() == stream.peer_addr().ok() {
            return Err(DialFailure::Refused.into());
        }
        stream.set_nodelay(true).map_err(|_| DialFailure::EndedEarly)?;
        let stream = self.secured(peer, stream).await?;
        let (reader, writer) = tokio::io::split(stream);
        let mut link = Link { reader: FrameReader::new(reader), writer, peer };
        let said = link.say_hello(&self.statement).await;
        // Whoever refuses may have said so, and closed before our hello went out.
        let heard = link.reader.next().await;
        if let (Err(error), Err(ReadEnd::Closed | ReadEnd::Failed(_))) = (&said, &heard) {
            self.plain_was_refused();
            return Err(early_failure(error).into());
        }
        match heard {
            Ok(Frame::Welcome { statement }) => self.welcomed_by(link, statement),
            Ok(Frame::Reject(rejection)) => match rejection.reason {
                RejectReason::Pair => {
                    let (node, pair) = (&rejection.node, &rejection.pair);
                    Err(NoLink::Stranger(stranger(node, pair, peer)))
                }
                RejectReason::Version | RejectReason::Malformed => {
                    self.plain_was_refused();
                    let what = format!("{peer} refused our hello: {}", rejection.text);
                    Err(NoLink::AtOdds(Kind::Garbage, what))
                }
            },
            Ok(
                Frame::Hello { .. }
                | Frame::Ping { .. }
                | Frame::Answer { .. }
                | Frame::Follow { .. },
            ) => {
                let what = "our hello was answered by neither a welcome nor a reject";
                self.dialler.complaints.note(Kind::Garbage, Some(peer.ip()), &what);
                Err(DialFailure::Rejected.into())
            }
            Err(ReadEnd::Garbage(error)) => {
                self.complain_of_garbage(peer, &error);
                Err(DialFailure::Rejected.into())
            }
            Err(ReadEnd::Closed) => {
                self.plain_was_refused();
                Err(DialFailure::EndedEarly.into())
            }
            Err(ReadEnd::Failed(error)) => Err(match objection(peer, &error) {
                Some(what) => NoLink::AtOdds(Kind::Untrusted, what),
                None => early_failure(&error).into(),
            }),
        }
    }

    /// What hellos go over: TLS, where this node has it.
    async fn secured(&self, peer: SocketAddr, stream: TcpStream) -> Result<Stream, NoLink> {
        let Some(security) = self.dialler.security.as_ref().filter(|s| !s.dials_plain()) else {
            return Ok(Stream::Plain(stream));
        };
        security.connect(peer, stream).await.map_err(|failure| match failure {
            NoHandshake::Refused(what) => NoLink::AtOdds(Kind::Untrusted, what),
            NoHandshake::Ended(error) if error.kind() == ErrorKind::UnexpectedEof => {
                DialFailure::EndedEarly.into()
            }
            NoHandshake::Ended(error) => early_failure(&error).into(),
        })
    }

    fn plain_was_refused(&self) {
        if let Some(security) = &self.dialler.security {
            security.plain_was_refused();
        }
    }

    fn welcomed_by(&self, link: Link, statement: Statement) -> Result<(Link, Statement), NoLink> {
        let identity = &statement.identity;
        if identity.pair == self.dialler.me.pair {
            return Ok((link, statement));
        }
        let node = identity.incarnation.node.as_str();
        Err(NoLink::Stranger(stranger(node, &identity.pair, link.peer)))
    }

    // --- from the welcome on

    async fn keep(mut self, mut link: Link) {
        let how = self.carry(&mut link).await;
        self.tell(Fact::LinkEnded { how }).await;
    }

    async fn carry(&mut self, link: &mut Link) -> LinkEnd {
        let mut out = BytesMut::new();
        let mut pace = Pace::new();
        // TLS may keep back what the socket had no room for.
        let mut unflushed = false;
        loop {
            tokio::select! {
                biased;
                frame = link.reader.next() => match frame {
                    Ok(_) if !pace.bearable() => {
                        let what = "more answers in a second than pings were sent";
                        self.dialler.complaints.note(Kind::Excess, Some(link.peer.ip()), &what);
                        return LinkEnd::Lost;
                    }
                    Ok(frame) => match self.hear(frame, link.peer).await {
                        Ok(()) => {}
                        Err(how) => return how,
                    },
                    Err(end) => return self.ended(end, link.peer),
                },
                ping = self.pings.recv(), if out.len() < OUT_BYTES_MAX => match ping {
                    Some(Ping { number, statement }) => {
                        let sent_ms = self.dialler.wall.ms();
                        encode(&Frame::Ping { number, sent_ms, statement }, &mut out);
                    }
                    // The driver let go of this link; its task is about to be ended.
                    None => return LinkEnd::Lost,
                },
                sent = send_on(&mut link.writer, &mut out), if unflushed || !out.is_empty() => {
                    match sent {
                        Ok(more) => unflushed = more,
                        Err(error) => return link_end(&error),
                    }
                }
            }
        }
    }

    async fn hear(&self, frame: Frame, peer: SocketAddr) -> Result<(), LinkEnd> {
        let complaints = &self.dialler.complaints;
        match frame {
            Frame::Answer { number, times, statement } => {
                if statement.identity.pair != self.dialler.me.pair {
                    let what = "an answer that speaks for another pair";
                    complaints.note(Kind::Garbage, Some(peer.ip()), &what);
                    return Err(LinkEnd::Lost);
                }
                let measured = offset(times, self.dialler.wall.ms());
                if !self.tell(Fact::PingAnswered { number, statement }).await {
                    return Err(LinkEnd::Lost);
                }
                if let Some((offset_ms, round_trip_ms)) = measured {
                    self.tell(Fact::ClockMeasured { offset_ms, round_trip_ms }).await;
                }
                Ok(())
            }
            Frame::Hello { .. }
            | Frame::Welcome { .. }
            | Frame::Ping { .. }
            | Frame::Reject(_)
            | Frame::Follow { .. } => {
                let what = "a frame that is no answer came on the link that we dialled";
                complaints.note(Kind::Garbage, Some(peer.ip()), &what);
                Err(LinkEnd::Lost)
            }
        }
    }

    fn ended(&self, end: ReadEnd, peer: SocketAddr) -> LinkEnd {
        match end {
            ReadEnd::Closed => LinkEnd::Fin,
            ReadEnd::Failed(error) => link_end(&error),
            ReadEnd::Garbage(error) => {
                self.complain_of_garbage(peer, &error);
                LinkEnd::Lost
            }
        }
    }

    fn complain_of_garbage(&self, peer: SocketAddr, error: &FrameError) {
        self.dialler.complaints.note(Kind::Garbage, Some(peer.ip()), error);
    }
}

/// Takes one step of sending; whether a flush is still due. Nothing is lost when it is dropped half-way.
async fn send_on(writer: &mut WriteHalf<Stream>, out: &mut BytesMut) -> Result<bool, Error> {
    if out.is_empty() {
        writer.flush().await?;
        return Ok(false);
    }
    writer.write_buf(out).await?;
    Ok(true)
}

/// How to call a node of another pair; without its port, which changes with every connection.
pub(crate) fn stranger(node: &str, pair: &str, peer: SocketAddr) -> String {
    let plain = |name: &str| name.chars().take(NAME_SHOWN_MAX).collect::<String>();
    let (node, pair) = (plain(node), plain(pair));
    format!("node {} of pair {} at {}", node.escape_debug(), pair.escape_debug(), peer.ip())
}

fn connect_failure(error: &Error) -> DialFailure {
    match error.kind() {
        ErrorKind::ConnectionRefused => DialFailure::Refused,
        ErrorKind::TimedOut => DialFailure::TimedOut,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => DialFailure::EndedEarly,
        // No route, no network, no address, no free socket: nothing is known of the peer.
        _ => DialFailure::Unreachable,
    }
}

fn early_failure(error: &Error) -> DialFailure {
    match link_end(error) {
        LinkEnd::Fin | LinkEnd::Reset => DialFailure::EndedEarly,
        LinkEnd::Lost => DialFailure::TimedOut,
    }
}

/// Only what the other side's kernel said counts as its end.
fn link_end(error: &Error) -> LinkEnd {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => LinkEnd::Reset,
        _ => LinkEnd::Lost,
    }
}

/// The peer's clock minus ours, and the round trip without the peer's part, both in milliseconds.
/// `None` when the times contradict each other: a clock was set in between.
fn offset(times: Times, now_ms: i64) -> Option<(i64, u64)> {
    let [t1, t2, t3, t4] =
        [times.sent_ms, times.received_ms, times.answered_ms, now_ms].map(i128::from);
    let round_trip_ms = u64::try_from((t4 - t1) - (t3 - t2)).ok()?;
    let offset_ms = i64::try_from(((t2 - t1) + (t3 - t4)) / 2).ok()?;
    (t3 >= t2).then_some((offset_ms, round_trip_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_the_peers_clock_minus_ours() {
        let times = Times { sent_ms: 1_000, received_ms: 6_005, answered_ms: 6_007 };
        assert_eq!(offset(times, 1_012), Some((5_000, 10)));
    }

    #[test]
    fn times_that_contradict_each_other_measure_nothing() {
        let set_back = Times { sent_ms: 1_000, received_ms: 1_001, answered_ms: 1_002 };
        assert_eq!(offset(set_back, 900), None, "our clock was set back");
        let absurd = Times { sent_ms: i64::MIN, received_ms: i64::MAX, answered_ms: i64::MIN };
        assert_eq!(offset(absurd, i64::MAX), None);
    }

    #[test]
    fn only_the_peers_own_end_looks_like_its_end() {
        let ends = [
            (ErrorKind::ConnectionReset, LinkEnd::Reset),
            (ErrorKind::BrokenPipe, LinkEnd::Reset),
            (ErrorKind::TimedOut, LinkEnd::Lost),
            (ErrorKind::HostUnreachable, LinkEnd::Lost),
            (ErrorKind::ConnectionAborted, LinkEnd::Lost),
        ];
        for (kind, end) in ends {
            assert_eq!(link_end(&kind.into()), end, "{kind}");
        }
        let failures = [
            (ErrorKind::ConnectionRefused, DialFailure::Refused),
            (ErrorKind::TimedOut, DialFailure::TimedOut),
            (ErrorKind::HostUnreachable, DialFailure::Unreachable),
            (ErrorKind::NetworkUnreachable, DialFailure::Unreachable),
            (ErrorKind::PermissionDenied, DialFailure::Unreachable),
        ];
        for (kind, failure) in failures {
            assert_eq!(connect_failure(&kind.into()), failure, "{kind}");
        }
    }
}
