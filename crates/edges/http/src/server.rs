//! The server: one acceptor, one task a connection, one [`Request`] at a time for each.
//!
//! hyper reads and writes the protocol. What is added here is what keeps strangers from costing more
//! than they should: a bound on connections (the longest waiting makes room for the newest), limits
//! for head, body, idleness and streams, a bound on bodies, an acceptor that neither spins nor ends
//! when file descriptors run out, and that counts its turns so that a watchdog can see it live. A
//! connection that has nothing to say for half a second rests: it is a socket and a note, without
//! hyper and without buffers, until its next bytes come.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hotpair_tls::Stream;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue,
    WWW_AUTHENTICATE,
};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::connections::{Connections, Progress, Stage};
use crate::door::{Came, Door, Secured};
use crate::occasionally::Occasionally;

/// What a server allows strangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections at a time. One more cuts the one that has waited longest with nothing under
    /// way; where all are busy, the new one is refused with [`Refusal::Full`].
    pub connections_max: usize,
    /// From a connection's acceptance, or a head's first byte, to the head's end; and for a handshake.
    pub head_timeout: Duration,
    /// From the head's end to the body's.
    pub body_timeout: Duration,
    /// Between an answer and the next head's first byte.
    pub idle_timeout: Duration,
    /// The longest time an event stream may leave events untaken. More than the keep-alive comments'
    /// distance, or healthy streams are cut.
    pub stream_timeout: Duration,
    /// Bytes of a body; more is [`Refusal::BodyTooLarge`].
    pub body_bytes_max: usize,
    /// At the end, how long answers under way are waited for.
    pub drain_timeout: Duration,
}

impl Limits {
    /// For the clients' port: 1 MiB bodies.
    #[must_use]
    pub fn client() -> Self {
        Self {
            connections_max: 4096,
            head_timeout: Duration::from_secs(2),
            body_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_mins(2),
            stream_timeout: Duration::from_secs(15),
            body_bytes_max: 1024 * 1024,
            drain_timeout: Duration::from_secs(2),
        }
    }

    /// For the operators' port: 4 KiB bodies.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            connections_max: 2048,
            body_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(30),
            body_bytes_max: 4 * 1024,
            ..Self::client()
        }
    }
}

/// Why a server turned a request away before its handler saw it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Every connection is busy.
    #[error("all {connections_max} connections are busy")]
    Full {
        /// The bound.
        connections_max: usize,
    },
    /// The body is larger than allowed.
    #[error("the body is larger than {bytes_max} bytes")]
    BodyTooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// What came is not TLS, and has to be.
    #[error("this port speaks TLS: use https://")]
    PlainText,
    /// The body ended early or is not HTTP.
    #[error("the body could not be read: {0}")]
    BodyBroken(String),
}

/// A request, read whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, POST …
    pub method: Method,
    /// Without the query.
    pub path: String,
    /// What stands after `?`.
    pub query: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// At most [`Limits::body_bytes_max`] bytes.
    pub body: Bytes,
    /// Who asks.
    pub from: SocketAddr,
}

impl Request {
    /// The token of `Authorization: Bearer TOKEN`, if there is one.
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        let value = self.headers.get(hyper::header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Whether it comes from this machine itself.
    #[must_use]
    pub fn is_from_loopback(&self) -> bool {
        self.from.ip().to_canonical().is_loopback()
    }
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Pieces as they come, until the sender is dropped. The channel is the bound: a sender that
    /// finds it full has a slow follower and cuts it by dropping its end.
    Stream(mpsc::Receiver<Bytes>),
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// Headers besides the length.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Response {
    /// A whole answer of a content type.
    #[must_use]
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status, headers, body: Body::Whole(body.into()) }
    }

    /// JSON that is already text.
    #[must_use]
    pub fn json(status: StatusCode, json: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json", json)
    }

    /// Plain text.
    #[must_use]
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into())
    }

    /// A stream of server-sent events.
    #[must_use]
    pub fn events(pieces: mpsc::Receiver<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Self { status: StatusCode::OK, headers, body: Body::Stream(pieces) }
    }

    /// The same with `Allow`, for 405.
    #[must_use]
    pub fn with_allow(self, methods: &'static str) -> Self {
        self.with_header(ALLOW, HeaderValue::from_static(methods))
    }

    /// The same with `WWW-Authenticate: Bearer`, for 401.
    #[must_use]
    pub fn with_bearer_wanted(self) -> Self {
        self.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// What a port answers.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped half-way when the client goes away; must end by itself
    /// otherwise: the server sets no limit to it.
    fn handle(self: Arc<Self>, request: Request) -> impl Future<Output = Response> + Send;

    /// The answer for what never became a request. Must not wait.
    fn refuse(&self, refusal: &Refusal) -> Response;
}

/// What a server did, for metrics and watchdogs.
#[derive(Debug, Default)]
pub struct Counters {
    turns: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    rested: AtomicU64,
    open: AtomicU64,
}

impl Counters {
    /// Turns of the acceptor; it turns at least four times a second, also when nobody comes.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Connections accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections refused because all were busy.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections cut because they were slow or stood in the way.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// How often a connection gave its buffers back because it was idle.
    #[must_use]
    pub fn rested(&self) -> u64 {
        self.rested.load(Ordering::Relaxed)
    }

    /// Connections open at the acceptor's last turn.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

/// Binds a port with a long queue. Call it within a tokio runtime: the one that will serve.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until dropped; dropping it cuts every connection.
pub async fn serve<H: Handler>(
    door: impl Into<Door>,
    limits: Limits,
    handler: Arc<H>,
    counters: Arc<Counters>,
) {
    serve_until(door, limits, handler, counters, std::future::pending()).await;
}

/// Serves until `stop` is over; then accepts nothing more, waits for the answers under way at most
/// [`Limits::drain_timeout`], and cuts the rest.
pub async fn serve_until<H: Handler>(
    door: impl Into<Door>,
    limits: Limits,
    handler: Arc<H>,
    counters: Arc<Counters>,
    stop: impl Future<Output = ()>,
) {
    let Door { listener, secured } = door.into();
    let mut acceptor = Acceptor {
        secured: secured.map(Arc::new),
        limits: Arc::new(limits),
        handler,
        counters,
        connections: Connections::new(),
        tasks: JoinSet::new(),
        port: listener.local_addr().map(|address| address.port()).unwrap_or_default(),
        stopping: tokio::sync::watch::Sender::new(false),
        complaints: Arc::default(),
    };
    acceptor.accept_until(&listener, stop).await;
    drop(listener);
    acceptor.drain().await;
}

/// Takes connections in, and looks after them until they end.
struct Acceptor<H> {
    secured: Option<Arc<Secured>>,
    limits: Arc<Limits>,
    handler: Arc<H>,
    counters: Arc<Counters>,
    connections: Connections,
    tasks: JoinSet<()>,
    port: u16,
    stopping: tokio::sync::watch::Sender<bool>,
    complaints: Arc<Complaints>,
}

/// One for each kind of line that strangers can cause.
#[derive(Debug, Default)]
struct Complaints {
    full: Occasionally,
    accept: Occasionally,
    garbage: Occasionally,
    slow: Occasionally,
    plain: Occasionally,
    handshake: Occasionally,
}

impl<H: Handler> Acceptor<H> {
    async fn accept_until(&mut self, listener: &TcpListener, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut turn = interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.counters.turns.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                biased;
                () = &mut stop => return,
                _ = turn.tick() => self.tidy(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => self.admit(stream, from),
                    Err(error) => self.handle_accept_failed(&error).await,
                },
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            }
        }
    }

    /// Lets the answers under way end, for a while.
    async fn drain(&mut self) {
        self.stopping.send_replace(true);
        let end = Instant::now() + self.limits.drain_timeout;
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => if ended.is_none() { return },
                () = sleep_until(end) => return,
            }
        }
    }

    fn tidy(&mut self) {
        self.connections.forget_ended();
        let cut = self.connections.cut_slow(&self.limits);
        self.counters.cut.fetch_add(cut as u64, Ordering::Relaxed);
        self.counters.open.store(self.connections.len() as u64, Ordering::Relaxed);
        if cut > 0
            && let Some(left_out) = self.complaints.slow.due()
        {
            tracing::info!(port = self.port, cut, left_out, "slow connections were cut");
        }
    }

    fn admit(&mut self, stream: TcpStream, from: SocketAddr) {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        if self.connections.len() >= self.limits.connections_max {
            self.connections.forget_ended();
        }
        if self.connections.len() >= self.limits.connections_max {
            if !self.connections.make_room() {
                self.refuse(stream);
                return;
            }
            self.counters.cut.fetch_add(1, Ordering::Relaxed);
        }
        // Failing costs latency only.
        let _ = stream.set_nodelay(true);
        let progress = self.connections.progress();
        let connection = Driven {
            from,
            port: self.port,
            secured: self.secured.clone(),
            progress: Arc::clone(&progress),
            handler: Arc::clone(&self.handler),
            limits: Arc::clone(&self.limits),
            counters: Arc::clone(&self.counters),
            complaints: Arc::clone(&self.complaints),
        };
        let stopping = self.stopping.subscribe();
        let abort = self.tasks.spawn(connection.drive(stream, stopping));
        self.connections.keep(progress, abort);
    }

    /// Says so, if that can be done without waiting, and closes.
    fn refuse(&self, stream: TcpStream) {
        let connections_max = self.limits.connections_max;
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = self.complaints.full.due() {
            tracing::warn!(
                port = self.port,
                connections_max,
                left_out,
                "a connection was refused: all are busy"
            );
        }
        let answer = self.handler.refuse(&Refusal::Full { connections_max });
        // Written past the runtime, which does not know yet that there is room; never waits. Under TLS
        // nothing can be said without waiting.
        if self.secured.is_some() {
            return;
        }
        if let Ok(mut stream) = stream.into_std() {
            let _ = io::Write::write(&mut stream, &plain_bytes(&answer));
        }
    }

    async fn handle_accept_failed(&mut self, error: &io::Error) {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
        ) {
            return;
        }
        // Out of descriptors or memory. The connection stays in the queue, so that asking again at
        // once would spin; closing one gives the next try a descriptor.
        if let Some(left_out) = self.complaints.accept.due() {
            tracing::warn!(port = self.port, %error, left_out, "no connection can be accepted");
        }
        self.connections.make_room();
        sleep(ACCEPT_PAUSE).await;
    }
}

/// One connection on its way.
struct Driven<H> {
    from: SocketAddr,
    port: u16,
    secured: Option<Arc<Secured>>,
    progress: Arc<Progress>,
    handler: Arc<H>,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
    complaints: Arc<Complaints>,
}

impl<H: Handler> Driven<H> {
    async fn drive(self, stream: TcpStream, mut stopping: tokio::sync::watch::Receiver<bool>) {
        let stream = match &self.secured {
            None => Stream::Plain(stream),
            // Boxed: what a handshake needs is not carried along for the connection's whole life.
            Some(secured) => tokio::select! {
                opened = Box::pin(self.open(secured, stream)) => match opened {
                    Some(stream) => stream,
                    None => return,
                },
                _ = stopping.changed() => return,
            },
        };
        let mut io = Noted { stream, progress: Arc::clone(&self.progress), came: Bytes::new() };
        loop {
            let came = tokio::select! {
                came = io.wait() => came,
                _ = stopping.changed() => false,
            };
            if !came {
                // TLS says good-bye; whether it is heard makes no difference.
                let _ = io.stream.shutdown().await;
                return;
            }
            // Boxed: a connection that rests has no room for it.
            match Box::pin(self.converse(io, &mut stopping)).await {
                Some(rested) => io = rested,
                None => return,
            }
        }
    }

    /// Answers requests until the connection ends, or rests: then it is given back, for hyper's buffers
    /// to go.
    async fn converse(
        &self,
        io: Noted,
        stopping: &mut tokio::sync::watch::Receiver<bool>,
    ) -> Option<Noted> {
        let driven = self;
        let service = service_fn(|request: hyper::Request<Incoming>| {
            Box::pin(async move { Ok::<_, Infallible>(driven.answer(request).await) })
        });
        let mut connection = hyper::server::conn::http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(io), service);
        let (mut rests, mut stops) = (false, false);
        let outcome = loop {
            tokio::select! {
                outcome = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break outcome,
                _ = stopping.changed(), if !stops => {
                    stops = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                () = sleep(REST_AFTER), if !rests && !stops => {
                    if let (Stage::Idle, REST_AFTER_MS..) = self.progress.stage() {
                        rests = true;
                        // Of an idle connection nothing is told to the client.
                        Pin::new(&mut connection).graceful_shutdown();
                    }
                }
            }
        };
        if let Err(error) = outcome {
            if error.is_parse()
                && let Some(left_out) = self.complaints.garbage.due()
            {
                let (port, from) = (self.port, self.from);
                tracing::info!(port, %from, %error, left_out, "what came is not HTTP");
            }
            return None;
        }
        let parts = connection.into_parts();
        let mut io = parts.io.into_inner();
        if rests {
            self.counters.rested.fetch_add(1, Ordering::Relaxed);
            io.came = parts.read_buf;
            return Some(io);
        }
        // What fails here had its answer.
        let _ = io.stream.shutdown().await;
        None
    }

    /// The handshake, within the limit for a head, which the acceptor enforces.
    async fn open(&self, secured: &Secured, stream: TcpStream) -> Option<Stream> {
        let (port, from) = (self.port, self.from);
        match secured.open(stream, from).await {
            Came::In(stream) => {
                self.progress.reach(Stage::Head);
                Some(stream)
            }
            Came::Plain(stream) => {
                if let Some(left_out) = self.complaints.plain.due() {
                    tracing::warn!(
                        port,
                        %from,
                        left_out,
                        "plain text came where TLS is spoken: whoever it is must use https://"
                    );
                }
                self.refuse_plain(stream).await;
                None
            }
            Came::Failed(why) => {
                if let Some(left_out) = self.complaints.handshake.due() {
                    tracing::info!(port, %from, why, left_out, "a TLS handshake failed");
                }
                None
            }
            Came::Gone => None,
        }
    }

    /// Says so as plainly as it was asked. The acceptor's limit for a head is for this as well.
    async fn refuse_plain(&self, mut stream: TcpStream) {
        let answer = plain_bytes(&self.handler.refuse(&Refusal::PlainText));
        if stream.write_all(&answer).await.is_err() || stream.shutdown().await.is_err() {
            return;
        }
        // Closing with something unread would throw the answer away on its way.
        let (mut buffer, mut left) = ([0; 1024], PLAIN_BYTES_READ);
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    }

    async fn answer(&self, request: hyper::Request<Incoming>) -> hyper::Response<Out> {
        self.progress.reach(Stage::Body);
        let (head, mut incoming) = request.into_parts();
        let response = match read_body(&mut incoming, self.limits.body_bytes_max).await {
            Ok(body) => {
                self.progress.reach(Stage::Busy);
                let request = Request {
                    method: head.method,
                    path: head.uri.path().to_owned(),
                    query: head.uri.query().map(str::to_owned),
                    headers: head.headers,
                    body,
                    from: self.from,
                };
                Arc::clone(&self.handler).handle(request).await
            }
            Err(refusal) => {
                let close = HeaderValue::from_static("close");
                self.handler.refuse(&refusal).with_header(CONNECTION, close)
            }
        };
        self.outgoing(response)
    }

    fn outgoing(&self, response: Response) -> hyper::Response<Out> {
        let out = Out { body: response.body, progress: Arc::clone(&self.progress) };
        if matches!(out.body, Body::Stream(_)) {
            self.progress.reach(Stage::Streaming);
        }
        let mut outgoing = hyper::Response::new(out);
        *outgoing.status_mut() = response.status;
        *outgoing.headers_mut() = response.headers;
        outgoing
    }
}

/// Reads a body whole. Of one that is too large a bit more is thrown away, so that a client which
/// writes all before it reads anything gets its answer instead of a reset.
async fn read_body(incoming: &mut Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
    let discarded_max = bytes_max.saturating_mul(2).saturating_add(HEAD_BYTES_MAX);
    let announced = hyper::body::Body::size_hint(incoming).lower();
    if announced > discarded_max as u64 {
        return Err(Refusal::BodyTooLarge { bytes_max });
    }
    let mut body = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| Refusal::BodyBroken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen <= bytes_max {
            body.extend_from_slice(&data);
        } else if seen > discarded_max {
            break;
        }
    }
    if seen > bytes_max {
        return Err(Refusal::BodyTooLarge { bytes_max });
    }
    Ok(body.freeze())
}

/// An answer as bytes, for where no hyper connection exists yet.
fn plain_bytes(response: &Response) -> Vec<u8> {
    let body = match &response.body {
        Body::Whole(bytes) => bytes.clone(),
        Body::Stream(_) => Bytes::new(),
    };
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status).into_bytes();
    for (name, value) in &response.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let rest = format!("{CONTENT_LENGTH}: {}\r\n{CONNECTION}: close\r\n\r\n", body.len());
    bytes.extend_from_slice(rest.as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// A body going out; the connection is idle again when hyper lets go of it.
struct Out {
    body: Body,
    progress: Arc<Progress>,
}

impl hyper::body::Body for Out {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.body {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Stream(pieces) => {
                let piece = pieces.poll_recv(context);
                if piece.is_ready() {
                    self.progress.reach(Stage::Streaming);
                }
                piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Body::Whole(bytes) => bytes.is_empty(),
            Body::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.progress.reach(Stage::Idle);
    }
}

/// A socket that notes when, after an idle time, a new head begins.
struct Noted {
    stream: Stream,
    progress: Arc<Progress>,
    /// What came and was not read yet.
    came: Bytes,
}

impl Noted {
    /// Waits for the first bytes of a request, without a buffer to keep; false when none will come.
    async fn wait(&mut self) -> bool {
        if self.came.is_empty() {
            let read = poll_fn(|context| {
                let mut bytes = [0; FIRST_BYTES];
                let mut buffer = ReadBuf::new(&mut bytes);
                let polled = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
                polled.map_ok(|()| Bytes::copy_from_slice(buffer.filled()))
            });
            self.came = read.await.unwrap_or_default();
        }
        if !self.came.is_empty() && self.progress.stage().0 == Stage::Idle {
            self.progress.reach(Stage::Head);
        }
        !self.came.is_empty()
    }
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.came.is_empty() {
            let fits = buffer.remaining().min(self.came.len());
            buffer.put_slice(&self.came.split_to(fits));
            if self.came.is_empty() {
                // Whatever it was a piece of is let go.
                self.came = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.progress.stage().0 == Stage::Idle {
            self.progress.reach(Stage::Head);
        }
        polled
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Connections that may wait for the acceptor: more than a crowd of health checks and slow ones.
const BACKLOG: u32 = 1024;
/// How often the acceptor looks at its connections when nobody comes.
const TURN: Duration = Duration::from_millis(250);
/// How long the acceptor rests when nothing can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A connection that is idle for so long gives its buffers back: 16 KiB, which thousands of clients
/// between two heartbeats have no use for.
const REST_AFTER: Duration = Duration::from_millis(REST_AFTER_MS);
const REST_AFTER_MS: u64 = 500;
/// Bytes that are taken in at first of a connection without buffers: a usual request.
const FIRST_BYTES: usize = 2 * 1024;
/// What is read of plain text that was refused.
const PLAIN_BYTES_READ: usize = 64 * 1024;
/// Bytes of a request's head, and of what is buffered of a connection.
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
