//! Frames: what travels on the link, as values and as bytes.
//!
//! ```text
//! 0        4     5
//! ┌────────┬─────┬──────────────┐
//! │ length │ tag │ body         │   length: big endian, counts the tag and the body
//! └────────┴─────┴──────────────┘   body: JSON for the tags of this version
//! ```
//!
//! Whatever comes from outside is either a frame or a [`FrameError`]; nothing is allocated before a
//! length is known to be bearable. Tags from 16 on are left for frames that are no JSON.

use std::io::ErrorKind;

use bytes::{Buf, BufMut, BytesMut};
use hotpair_core::pair::identity::Statement;
use hotpair_core::tables::replication::Follow;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::redo;
use crate::secure::TLS_FIRST_BYTE;
use crate::words::{
    AnswerBody, HelloBody, HelloHead, PingBody, ReasonWord, RejectBody, StatementWord, WelcomeBody,
    short,
};

/// The protocol's version, said in hello and welcome.
pub(crate) const VERSION: u16 = 1;
/// The longest frame, tag and body, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024;
const MAGIC: &str = "hotpair";
const LENGTH_BYTES: usize = 4;
/// The second byte of every TLS record.
const TLS_MAJOR_VERSION: u8 = 3;

/// What one node says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first word on a connection, by the node that dialled.
    Hello {
        /// What it says of itself.
        statement: Statement,
    },
    /// The answer to a hello of the same pair.
    Welcome {
        /// What the welcoming node says of itself.
        statement: Statement,
    },
    /// Are you there, and what are you?
    Ping {
        /// Counts the pings of the asking node.
        number: u64,
        /// The asking node's wall clock at sending.
        sent_ms: i64,
        /// What the asking node says of itself.
        statement: Statement,
    },
    /// The answer to a ping.
    Answer {
        /// The ping's number.
        number: u64,
        /// The three wall clock times known by now.
        times: Times,
        /// What the answering node says of itself.
        statement: Statement,
    },
    /// The answer to a hello that is refused; the connection ends after it.
    Reject(Rejection),
    /// The first word on a connection that is to be a redo stream, by the standby that dialled.
    Follow {
        /// The pair it belongs to.
        pair: String,
        /// What it says of its log.
        follow: Box<Follow>,
        /// It reads the redo files itself, and is only told how long the log is.
        directory: bool,
    },
}

/// Three of the four wall clock times of an exchange; the asking node adds the fourth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The ping left (asking node's clock).
    pub sent_ms: i64,
    /// The ping arrived (answering node's clock).
    pub received_ms: i64,
    /// The answer left (answering node's clock).
    pub answered_ms: i64,
}

/// Why a hello was refused, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason for programs.
    pub reason: RejectReason,
    /// The reason for people.
    pub text: String,
    /// The pair of the node that refuses.
    pub pair: String,
    /// The node that refuses.
    pub node: String,
}

/// What a hello can be refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// It belongs to another pair.
    Pair,
    /// It speaks another version of the protocol.
    Version,
    /// It is no hello.
    Malformed,
}

/// These bytes are no frame of ours. The connection cannot be used any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length says zero or more than is allowed.
    #[error("a frame of {length} bytes was announced, 1 to {FRAME_BYTES_MAX} are allowed")]
    Length {
        /// What was announced.
        length: u32,
    },
    /// No frame of this protocol has such a tag.
    #[error("no frame has the tag {tag}")]
    Tag {
        /// The tag.
        tag: u8,
    },
    /// The body is not what its tag promises.
    #[error("the body of a {name} frame is broken: {reason}")]
    Body {
        /// Which frame it should have been.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A TLS connection, where plain text is spoken.
    #[error(
        "it speaks TLS and this node's link plain text: give this node tls.certificate, tls.key and \
         tls.authority as well"
    )]
    Tls,
    /// A hello of another version of the protocol.
    #[error("the other side speaks version {version} of the link protocol, this node {VERSION}")]
    Version {
        /// The other side's version.
        version: u16,
    },
}

/// The tag of a follow frame.
pub(crate) const FOLLOW_TAG: u8 = 6;

#[derive(Clone, Copy, Debug)]
enum Tag {
    Hello = 1,
    Welcome = 2,
    Ping = 3,
    Answer = 4,
    Reject = 5,
    Follow = FOLLOW_TAG as isize,
}

impl Tag {
    fn of(byte: u8) -> Option<Self> {
        [Self::Hello, Self::Welcome, Self::Ping, Self::Answer, Self::Reject, Self::Follow]
            .into_iter()
            .find(|tag| *tag as u8 == byte)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Welcome => "welcome",
            Self::Ping => "ping",
            Self::Answer => "answer",
            Self::Reject => "reject",
            Self::Follow => "follow",
        }
    }
}

/// Appends a frame's bytes.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Hello { statement } => {
            let magic = MAGIC.to_owned();
            let statement = StatementWord::of(statement);
            put(Tag::Hello, &HelloBody { magic, version: VERSION, statement }, out);
        }
        Frame::Welcome { statement } => {
            let statement = StatementWord::of(statement);
            put(Tag::Welcome, &WelcomeBody { version: VERSION, statement }, out);
        }
        Frame::Ping { number, sent_ms, statement } => {
            let statement = StatementWord::of(statement);
            put(Tag::Ping, &PingBody { number: *number, sent_ms: *sent_ms, statement }, out);
        }
        Frame::Answer { number, times, statement } => {
            let body = AnswerBody {
                number: *number,
                sent_ms: times.sent_ms,
                received_ms: times.received_ms,
                answered_ms: times.answered_ms,
                statement: StatementWord::of(statement),
            };
            put(Tag::Answer, &body, out);
        }
        Frame::Reject(rejection) => {
            let body = RejectBody {
                reason: word(rejection.reason),
                text: rejection.text.clone(),
                pair: rejection.pair.clone(),
                node: rejection.node.clone(),
            };
            put(Tag::Reject, &body, out);
        }
        Frame::Follow { pair, follow, directory } => {
            put_body(Tag::Follow, &redo::encode_follow(follow, pair, *directory), out);
        }
    }
}

/// Takes one frame off the front of `bytes`; `None` until all of it has come.
///
/// # Errors
/// When the bytes cannot become a frame, whatever comes after them.
pub fn decode(bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(prefix) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    if prefix[0] == TLS_FIRST_BYTE && prefix[1] == TLS_MAJOR_VERSION {
        return Err(FrameError::Tls);
    }
    let length = u32::from_be_bytes(*prefix);
    let size = length as usize;
    if size == 0 || size > FRAME_BYTES_MAX {
        return Err(FrameError::Length { length });
    }
    if bytes.len() > LENGTH_BYTES && Tag::of(bytes[LENGTH_BYTES]).is_none() {
        return Err(FrameError::Tag { tag: bytes[LENGTH_BYTES] });
    }
    if bytes.len() < LENGTH_BYTES + size {
        return Ok(None);
    }
    bytes.advance(LENGTH_BYTES);
    let frame = bytes.split_to(size);
    let tag = Tag::of(frame[0]).ok_or(FrameError::Tag { tag: frame[0] })?;
    body(tag, &frame[1..]).map(Some)
}

fn body(tag: Tag, json: &[u8]) -> Result<Frame, FrameError> {
    let broken = |reason: String| FrameError::Body { name: tag.name(), reason };
    match tag {
        Tag::Hello => {
            let head: HelloHead = read(tag, json)?;
            if head.magic != MAGIC {
                return Err(broken("it does not begin with hotpair's magic".to_owned()));
            }
            same_version(head.version)?;
            let body: HelloBody = read(tag, json)?;
            Ok(Frame::Hello { statement: body.statement.into_statement().map_err(broken)? })
        }
        Tag::Welcome => {
            let body: WelcomeBody = read(tag, json)?;
            same_version(body.version)?;
            Ok(Frame::Welcome { statement: body.statement.into_statement().map_err(broken)? })
        }
        Tag::Ping => {
            let PingBody { number, sent_ms, statement } = read(tag, json)?;
            let statement = statement.into_statement().map_err(broken)?;
            Ok(Frame::Ping { number, sent_ms, statement })
        }
        Tag::Answer => {
            let body: AnswerBody = read(tag, json)?;
            let times = Times {
                sent_ms: body.sent_ms,
                received_ms: body.received_ms,
                answered_ms: body.answered_ms,
            };
            let statement = body.statement.into_statement().map_err(broken)?;
            Ok(Frame::Answer { number: body.number, times, statement })
        }
        Tag::Reject => {
            let body: RejectBody = read(tag, json)?;
            Ok(Frame::Reject(Rejection {
                reason: reason(body.reason),
                text: short("text", body.text).map_err(broken)?,
                pair: short("pair", body.pair).map_err(broken)?,
                node: short("node", body.node).map_err(broken)?,
            }))
        }
        Tag::Follow => {
            let redo::Introduction { pair, follow, directory } =
                redo::decode_follow(json).map_err(broken)?;
            Ok(Frame::Follow { pair, follow: Box::new(follow), directory })
        }
    }
}

fn put(tag: Tag, body: &impl Serialize, out: &mut BytesMut) {
    put_body(tag, &serde_json::to_vec(body).expect("words are plain"), out);
}

fn put_body(tag: Tag, body: &[u8], out: &mut BytesMut) {
    let size = 1 + body.len();
    assert!(size <= FRAME_BYTES_MAX, "names are short, so that no frame is longer than allowed");
    out.put_u32(u32::try_from(size).expect("just compared with a smaller bound"));
    out.put_u8(tag as u8);
    out.put_slice(body);
}

fn read<T: DeserializeOwned>(tag: Tag, json: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(json)
        .map_err(|e| FrameError::Body { name: tag.name(), reason: e.to_string() })
}

fn same_version(version: u16) -> Result<(), FrameError> {
    if version == VERSION { Ok(()) } else { Err(FrameError::Version { version }) }
}

fn word(reason: RejectReason) -> ReasonWord {
    match reason {
        RejectReason::Pair => ReasonWord::Pair,
        RejectReason::Version => ReasonWord::Version,
        RejectReason::Malformed => ReasonWord::Malformed,
    }
}

fn reason(word: ReasonWord) -> RejectReason {
    match word {
        ReasonWord::Pair => RejectReason::Pair,
        ReasonWord::Version => RejectReason::Version,
        ReasonWord::Malformed => RejectReason::Malformed,
    }
}

/// Reads frames off a stream, with a buffer of at most one frame and a little.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
}

/// Why no further frame comes.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The other side closed its half.
    Closed,
    /// The kernel reported an error.
    Failed(std::io::Error),
    /// What came is no frame.
    Garbage(FrameError),
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// The next frame. Nothing is lost when the future is dropped half-way.
    pub(crate) async fn next(&mut self) -> Result<Frame, ReadEnd> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).map_err(ReadEnd::Garbage)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The stream itself, if nothing more has come by it yet.
    pub(crate) fn into_inner(self) -> Option<R> {
        self.buffer.is_empty().then_some(self.io)
    }

    /// Has the other side closed already? Only what the kernel knows by now is looked at.
    pub(crate) async fn closed_already(&mut self) -> bool {
        if self.buffer.len() > FRAME_BYTES_MAX {
            return false;
        }
        let at_once = tokio::time::timeout(std::time::Duration::ZERO, self.fill()).await;
        matches!(at_once, Ok(Err(_)))
    }

    async fn fill(&mut self) -> Result<(), ReadEnd> {
        self.buffer.reserve(1_024);
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) => Err(ReadEnd::Closed),
            Ok(_) => Ok(()),
            // TLS calls it so when the connection ends without its own farewell: a process that died.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(ReadEnd::Closed),
            Err(error) => Err(ReadEnd::Failed(error)),
        }
    }
}
