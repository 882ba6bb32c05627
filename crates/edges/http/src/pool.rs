//! Kept connections to one server, for whoever passes many requests on: each exchange borrows one,
//! writes a request, reads the whole answer, and gives it back.
//!
//! Nothing runs beside the caller: no task, no channel, and dropping the future of an exchange closes
//! its connection. What an error leaves open is said exactly ([`ExchangeError::was_sent`]). A pool can be
//! *cut*: all its connections are closed, and what waits on them fails at once, as if the server had
//! died; this is how one stops waiting for a server that is known to be gone or superseded.
//!
//! Only whole answers with a `Content-Length` are read: what our own servers give. A stream of events is
//! asked for in HTTP/1.0, on a connection of its own ([`Pool::open_stream`]): it comes as it is, until its end.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use hotpair_tls::Stream as Line;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::client::{ClientError, Dialler, Url};

/// What a pool allows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Connections at a time; who finds them all busy waits, in order of arrival.
    pub connections_max: usize,
    /// The longest time for a new connection.
    pub connect_timeout: Duration,
    /// A connection that was not used for so long is closed. Less than the server's own idle time.
    pub idle_max: Duration,
    /// Bytes of an answer's body; more is an error.
    pub answer_bytes_max: usize,
    /// Streams at a time, each on a connection besides the others.
    pub streams_max: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connect_timeout: Duration::from_secs(1),
            idle_max: Duration::from_secs(60),
            answer_bytes_max: 16 * 1024 * 1024,
            streams_max: 2048,
        }
    }
}

/// Which cut an exchange was decided before; one that comes later fails it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// A request as it is written. Method, path and authorization must be fit for a head: they are taken
/// from a request that was read as HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// GET or POST.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What stands after `?`.
    pub query: Option<&'a str>,
    /// The value of `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// The value of `Last-Event-ID`.
    pub last_event_id: Option<&'a [u8]>,
    /// A header of our own, with a number.
    pub number: Option<(&'a str, u64)>,
    /// JSON.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: Bytes,
}

/// What came of asking for a stream.
#[derive(Debug)]
pub enum Opening {
    /// The stream.
    Stream(Stream),
    /// An answer instead of it.
    Answer(Whole),
}

/// A stream of bytes on a connection of its own.
#[derive(Debug)]
pub struct Stream {
    stream: Line,
    buffer: BytesMut,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// What comes next; `None` at its end. Nothing is lost when it is dropped while it waits.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.buffer.is_empty() {
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer.split().freeze()))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// There are as many streams as may be. Nothing was sent.
    #[error("{streams_max} streams from {address} are open already")]
    StreamsFull {
        /// Where to.
        address: String,
        /// The bound.
        streams_max: usize,
    },
    /// Nobody takes connections there, or not in time. Nothing was sent.
    #[error("cannot connect to {address}: {source}")]
    NotConnected {
        /// Where to.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The pool was cut before anything was sent.
    #[error("the connections to {address} were cut before the request was sent")]
    CutBefore {
        /// Where to.
        address: String,
    },
    /// The pool was cut while the answer was waited for.
    #[error("the connections to {address} were cut")]
    Cut {
        /// Where to.
        address: String,
    },
    /// The connection ended before the answer was whole, or what came is none.
    #[error("the connection to {address} broke: {source}")]
    Broken {
        /// Where to.
        address: String,
        /// How.
        source: io::Error,
    },
}

impl ExchangeError {
    /// Whether the request may have been executed: true unless it surely never left.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        match self {
            Self::StreamsFull { .. } | Self::NotConnected { .. } | Self::CutBefore { .. } => false,
            Self::Cut { .. } | Self::Broken { .. } => true,
        }
    }
}

/// The connections to one server.
#[derive(Debug)]
pub struct Pool {
    url: Url,
    dialler: Dialler,
    limits: PoolLimits,
    idle: Mutex<Vec<Kept>>,
    room: Semaphore,
    places: Arc<Semaphore>,
    generation: AtomicU64,
    cut: Notify,
    open: AtomicUsize,
}

/// A connection that nobody uses now.
#[derive(Debug)]
struct Kept {
    stream: Line,
    /// Empty, with room from the last answer.
    buffer: BytesMut,
    since: Instant,
    generation: Generation,
}

impl Pool {
    /// Connections to `host:port` in plain text; none yet.
    #[must_use]
    pub fn new(address: &str, limits: PoolLimits) -> Self {
        let (address, path) = (address.to_owned(), String::new());
        Self::over(Dialler::plain(), Url { secure: false, address, path }, limits)
    }

    /// Connections to the server of this URL; none yet.
    #[must_use]
    pub fn over(dialler: Dialler, url: Url, limits: PoolLimits) -> Self {
        Self {
            url,
            dialler,
            idle: Mutex::new(Vec::new()),
            room: Semaphore::new(limits.connections_max),
            places: Arc::new(Semaphore::new(limits.streams_max)),
            generation: AtomicU64::new(0),
            cut: Notify::new(),
            open: AtomicUsize::new(0),
            limits,
        }
    }

    /// What an exchange that is decided now is to be begun with.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::SeqCst))
    }

    /// Closes every connection; what waits on one fails.
    pub fn cut(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let kept = std::mem::take(&mut *self.idle());
        self.open.fetch_sub(kept.len(), Ordering::Relaxed);
        self.cut.notify_waiters();
    }

    /// Connections that are open now, used or not.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Closes the connections that nobody has used for too long; to be called now and then.
    pub fn tidy(&self) {
        let mut idle = self.idle();
        let before = idle.len();
        idle.retain(|kept| kept.since.elapsed() < self.limits.idle_max);
        self.open.fetch_sub(before - idle.len(), Ordering::Relaxed);
    }

    /// Sends a request and reads its answer. There is no limit to it but for connecting: the caller
    /// has one.
    pub async fn exchange(
        &self,
        generation: Generation,
        outgoing: Outgoing<'_>,
    ) -> Result<Whole, ExchangeError> {
        // Made before the generation is looked at, so that no cut falls in between unseen.
        let cut = self.cut.notified();
        if self.generation() != generation {
            return Err(ExchangeError::CutBefore { address: self.url.address.clone() });
        }
        let mut sent = false;
        let outcome = {
            let exchanged = self.exchange_uncut(generation, outgoing, &mut sent);
            tokio::select! {
                biased;
                outcome = exchanged => Some(outcome),
                () = cut => None,
            }
        };
        outcome.unwrap_or_else(|| {
            let address = self.url.address.clone();
            Err(if sent {
                ExchangeError::Cut { address }
            } else {
                ExchangeError::CutBefore { address }
            })
        })
    }

    /// Opens a stream. There is no limit to it but for connecting, and a cut does not end it: its owner
    /// looks for both.
    pub async fn open_stream(
        &self,
        generation: Generation,
        outgoing: Outgoing<'_>,
    ) -> Result<Opening, ExchangeError> {
        let address = || self.url.address.clone();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let streams_max = self.limits.streams_max;
            return Err(ExchangeError::StreamsFull { address: address(), streams_max });
        };
        let mut connection = self.connect(generation).await?;
        let kept = connection.kept.as_mut().expect("taken out below only");
        let broken = |source| ExchangeError::Broken { address: address(), source };
        write(kept, &self.url.address, "1.0", outgoing).await.map_err(broken)?;
        let head = read_head(kept).await.map_err(broken)?;
        if let Some(length) = head.length {
            let max = self.limits.answer_bytes_max;
            let body = read_body(kept, length, max).await.map_err(broken)?;
            return Ok(Opening::Answer(Whole { status: head.status, body }));
        }
        let kept = connection.kept.take().expect("it is there");
        self.open.fetch_sub(1, Ordering::Relaxed);
        let Kept { stream, buffer, .. } = kept;
        Ok(Opening::Stream(Stream { stream, buffer, _place: place }))
    }

    /// Over once the pool is cut after this generation.
    pub async fn cut_after(&self, generation: Generation) {
        loop {
            let cut = self.cut.notified();
            if self.generation() != generation {
                return;
            }
            cut.await;
        }
    }

    async fn exchange_uncut(
        &self,
        generation: Generation,
        outgoing: Outgoing<'_>,
        sent: &mut bool,
    ) -> Result<Whole, ExchangeError> {
        let _room = self.room.acquire().await.expect("the pool never closes its door");
        let mut connection = match self.take_kept(generation) {
            Some(kept) => Connection { pool: self, kept: Some(kept) },
            None => self.connect(generation).await?,
        };
        *sent = true;
        let kept = connection.kept.as_mut().expect("taken out at the end only");
        let broken = |source| ExchangeError::Broken { address: self.url.address.clone(), source };
        write(kept, &self.url.address, "1.1", outgoing).await.map_err(broken)?;
        let (answer, keep) = read(kept, self.limits.answer_bytes_max).await.map_err(broken)?;
        if keep {
            connection.give_back();
        }
        Ok(answer)
    }

    /// A kept connection that the server has not closed meanwhile, as far as one can know.
    fn take_kept(&self, generation: Generation) -> Option<Kept> {
        loop {
            // The newest first, so that those that are not needed grow old.
            let mut kept = self.idle().pop()?;
            let fresh =
                kept.generation == generation && kept.since.elapsed() < self.limits.idle_max;
            if fresh && is_quiet(&mut kept.stream) {
                return Some(kept);
            }
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn connect(&self, generation: Generation) -> Result<Connection<'_>, ExchangeError> {
        let stream =
            self.dialler.dial(&self.url, self.limits.connect_timeout).await.map_err(|error| {
                let source = match error {
                    ClientError::Connect { source, .. } => source,
                    ClientError::ConnectTimedOut { .. } => io::ErrorKind::TimedOut.into(),
                    other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
                };
                ExchangeError::NotConnected { address: self.url.address.clone(), source }
            })?;
        self.open.fetch_add(1, Ordering::Relaxed);
        let buffer = BytesMut::with_capacity(READ_BYTES);
        let kept = Kept { stream, buffer, since: Instant::now(), generation };
        Ok(Connection { pool: self, kept: Some(kept) })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.idle.lock().expect("nothing panics while holding it")
    }
}

/// A connection in use; dropped, it is closed.
struct Connection<'a> {
    pool: &'a Pool,
    kept: Option<Kept>,
}

impl Connection<'_> {
    fn give_back(mut self) {
        if let Some(mut kept) = self.kept.take() {
            kept.since = Instant::now();
            self.pool.idle().push(kept);
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if self.kept.is_some() {
            self.pool.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether nothing has come that nobody asked for, above all not the end. Costs a system call only
/// where the runtime has been told of something to read. Under TLS something may come that is no
/// answer and is dealt with by the reading itself: tickets for later connections.
fn is_quiet(stream: &mut Line) -> bool {
    let mut byte = [0];
    match stream {
        Line::Plain(stream) => {
            let read = stream.try_read(&mut byte);
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        }
        Line::Tls(stream) => {
            let mut context = Context::from_waker(Waker::noop());
            let mut buffer = ReadBuf::new(&mut byte);
            Pin::new(stream).poll_read(&mut context, &mut buffer).is_pending()
        }
    }
}

async fn write(
    kept: &mut Kept,
    address: &str,
    version: &str,
    outgoing: Outgoing<'_>,
) -> io::Result<()> {
    // The buffer is empty between exchanges, and serves for the head as well.
    let buffer = &mut kept.buffer;
    let mut put = |part: &[u8]| buffer.extend_from_slice(part);
    put(outgoing.method.as_bytes());
    put(b" ");
    put(outgoing.path.as_bytes());
    if let Some(query) = outgoing.query {
        put(b"?");
        put(query.as_bytes());
    }
    put(b" HTTP/");
    put(version.as_bytes());
    put(b"\r\nhost: ");
    put(address.as_bytes());
    if let Some(authorization) = outgoing.authorization {
        put(b"\r\nauthorization: ");
        put(authorization);
    }
    if let Some(id) = outgoing.last_event_id {
        put(b"\r\nlast-event-id: ");
        put(id);
    }
    if let Some((name, number)) = outgoing.number {
        put(b"\r\n");
        put(name.as_bytes());
        put(b": ");
        put(Digits::of(number).text());
    }
    if outgoing.method != "GET" {
        put(b"\r\ncontent-type: application/json\r\ncontent-length: ");
        put(Digits::of(outgoing.body.len() as u64).text());
    }
    put(b"\r\n\r\n");
    if outgoing.body.len() <= COPIED_BYTES_MAX {
        put(outgoing.body);
        kept.stream.write_all(buffer).await?;
    } else {
        kept.stream.write_all(buffer).await?;
        kept.stream.write_all(outgoing.body).await?;
    }
    buffer.clear();
    // Costs nothing in plain text.
    kept.stream.flush().await
}

/// The answer, and whether the connection can be used again.
async fn read(kept: &mut Kept, bytes_max: usize) -> io::Result<(Whole, bool)> {
    let head = read_head(kept).await?;
    let length = head.length.ok_or_else(|| unfit("it has no content-length"))?;
    let body = read_body(kept, length, bytes_max).await?;
    // More than the answer is an answer to nothing.
    let keep = head.keep && kept.buffer.is_empty();
    Ok((Whole { status: head.status, body }, keep))
}

async fn read_head(kept: &mut Kept) -> io::Result<Head> {
    let Kept { stream, buffer, .. } = kept;
    let mut searched = 0;
    loop {
        more(stream, buffer).await?;
        while let Some(end) = find_end(buffer, searched) {
            let head = Head::parse(&buffer[..end])?;
            buffer.advance(end);
            // What only says that the answer is being made is not the answer.
            if head.status >= 200 {
                return Ok(head);
            }
            searched = 0;
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(unfit("its head is too large"));
        }
        searched = buffer.len().saturating_sub(3);
    }
}

async fn read_body(kept: &mut Kept, length: usize, bytes_max: usize) -> io::Result<Bytes> {
    let Kept { stream, buffer, .. } = kept;
    if length > bytes_max {
        return Err(unfit("its body is too large"));
    }
    buffer.reserve(length.saturating_sub(buffer.len()));
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    Ok(buffer.split_to(length).freeze())
}

async fn more(stream: &mut Line, buffer: &mut BytesMut) -> io::Result<()> {
    if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
        buffer.reserve(READ_BYTES);
    }
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Where the head ends, with its empty line; what lies before `from` was searched already.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes[from..].windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(from + found + 4)
}

/// What counts of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Option<usize>,
    keep: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let first = lines.next().unwrap_or_default();
        let rest = first.strip_prefix(b"HTTP/1.").ok_or_else(|| unfit("it is no HTTP/1"))?;
        let status = rest.get(2..5).and_then(number).ok_or_else(|| unfit("it has no status"))?;
        let status = u16::try_from(status).map_err(|_| unfit("it has no status"))?;
        let mut head = Self { status, length: None, keep: rest.first() == Some(&b'1') };
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let length = number(value).ok_or_else(|| unfit("its content-length is none"))?;
                if head.length.is_some_and(|other| other != length) {
                    return Err(unfit("it has two lengths"));
                }
                head.length = Some(length);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                return Err(unfit("it comes in chunks"));
            } else if name.eq_ignore_ascii_case(b"connection") {
                head.keep &= !value.eq_ignore_ascii_case(b"close");
            }
        }
        Ok(head)
    }
}

fn number(text: &[u8]) -> Option<usize> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

fn unfit(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer cannot be read: {why}"))
}

/// Entrances for the fuzzer.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{Head, find_end};

    pub(crate) fn head(bytes: &[u8]) {
        let end = find_end(bytes, 0);
        if let Some(end) = end {
            assert_eq!(find_end(bytes, end.saturating_sub(7)), Some(end));
            let _ = Head::parse(&bytes[..end]);
        }
    }
}

/// A number as text, without an allocation.
struct Digits {
    bytes: [u8; 20],
    from: usize,
}

impl Digits {
    fn of(mut number: u64) -> Self {
        let mut digits = Self { bytes: [b'0'; 20], from: 20 };
        loop {
            digits.from -= 1;
            digits.bytes[digits.from] += u8::try_from(number % 10).expect("below ten");
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }

    fn text(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

/// Room that a read begins with.
const READ_BYTES: usize = 4 * 1024;
/// Less room than this is made larger before a read.
const READ_BYTES_MIN: usize = 512;
/// Bodies up to this size are written together with their head.
const COPIED_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
