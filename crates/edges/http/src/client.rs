//! The client: one limit for the whole of each request, answers bounded in size.
//!
//! A [`Dialler`] reaches servers: `http://` as it is, `https://` with what it trusts. It asks once
//! ([`Dialler::request`]), keeps a [`Connection`], for load, or follows server-sent [`Events`]. The
//! functions of this module do the same for `http://` only. Whoever sends something that must not be
//! done twice asks [`ClientError::was_sent`] what a failure leaves open.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hotpair_tls::{Connector, Stream};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// An address that can be asked: `http://host:port/path?query`, or `https://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether it is `https://`.
    pub secure: bool,
    /// `host:port`.
    pub address: String,
    /// Path and query, beginning with `/`.
    pub path: String,
}

impl Url {
    /// Whether it is this machine, whatever its names are looked up as.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// `http://host:port` or `https://host:port`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }
}

impl FromStr for Url {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let bad = |why| ClientError::BadUrl { url: text.to_owned(), why };
        let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return Err(bad("it must begin with http:// or https://")),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        if authority.is_empty() || authority.contains('@') {
            return Err(bad("it must name a host, and no user"));
        }
        if authority.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(bad("its host has a blank or a control character"));
        }
        if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(bad("its path has a blank or a control character"));
        }
        let has_port =
            authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if secure { 443 } else { 80 };
        let address = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { secure, address, path })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

/// How servers are reached. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Dialler {
    tls: Option<Connector>,
}

impl Dialler {
    /// For `http://` only.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// For `https://` as well.
    #[must_use]
    pub fn with_tls(connector: Connector) -> Self {
        Self { tls: Some(connector) }
    }

    /// Whether `https://` can be asked.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects, and speaks TLS if the URL says so; `limit` is for both.
    pub(crate) async fn dial(&self, url: &Url, limit: Duration) -> Result<Stream, ClientError> {
        let name = || url.address.clone();
        let dialled = async {
            let stream = TcpStream::connect(&url.address)
                .await
                .map_err(|source| ClientError::Connect { address: name(), source })?;
            // Failing costs latency only.
            let _ = stream.set_nodelay(true);
            if !url.secure {
                return Ok(Stream::Plain(stream));
            }
            let tls = self.tls.as_ref().ok_or_else(|| ClientError::BadUrl {
                url: url.to_string(),
                why: "no authority is given that could vouch for a server of https",
            })?;
            tls.connect(&url.address, stream).await.map_err(|source| {
                if source.kind() == io::ErrorKind::InvalidData {
                    ClientError::Untrusted { address: name(), why: source.to_string() }
                } else {
                    ClientError::Connect { address: name(), source }
                }
            })
        };
        timeout(limit, dialled)
            .await
            .unwrap_or_else(|_| Err(ClientError::ConnectTimedOut { address: name(), limit }))
    }

    /// A connection to `http://host:port` or `https://host:port`, to be kept.
    pub async fn connect(&self, origin: &str, limit: Duration) -> Result<Connection, ClientError> {
        let url: Url = origin.parse()?;
        Connection::over(self.dial(&url, limit).await?, url).await
    }

    /// One request on a connection of its own; `limit` is for all of it, from connecting on.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let url: Url = url.parse()?;
        let started = std::time::Instant::now();
        let path = url.path.clone();
        let mut connection = Connection::over(self.dial(&url, limit).await?, url).await?;
        let left = limit.saturating_sub(started.elapsed());
        connection.send(method, &path, headers, body, left).await
    }

    /// GET of a URL, without headers.
    pub async fn get(&self, url: &str, limit: Duration) -> Result<Answer, ClientError> {
        self.request(Method::GET, url, &[], Bytes::new(), limit).await
    }

    /// POST of a JSON document.
    pub async fn post_json(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.request(Method::POST, url, &all, body, limit).await
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL cannot be used. Nothing was sent.
    #[error("{url:?} is no URL that can be asked: {why}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A header cannot be sent. Nothing was sent.
    #[error("header {name:?} has a name or a value that cannot be sent")]
    BadHeader {
        /// Its name; never its value, which may be a secret.
        name: String,
    },
    /// No connection. Nothing was sent.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody is there, and TLS does not come about: not the right one, or none that speaks TLS.
    /// Nothing was sent.
    #[error("no connection to {address}: {why}")]
    Untrusted {
        /// Where to.
        address: String,
        /// What is wrong.
        why: String,
    },
    /// No connection in time. Nothing was sent.
    #[error("no connection to {address} within {} ms", limit.as_millis())]
    ConnectTimedOut {
        /// Where to.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// The request was on its way, no whole answer came in time.
    #[error("no answer of {address} within {} ms", limit.as_millis())]
    TimedOut {
        /// Where to.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection ended, or what came back is no HTTP, before the answer was whole.
    #[error("the connection to {address} broke: {source}")]
    Broken {
        /// Where to.
        address: String,
        /// How.
        source: hyper::Error,
    },
    /// The answer is larger than this client keeps.
    #[error("the answer of {address} is larger than {bytes_max} bytes")]
    TooLarge {
        /// Where to.
        address: String,
        /// The bound.
        bytes_max: usize,
    },
    /// The answer has another status than the wanted one.
    #[error("{address} answered {status}: {body}")]
    Status {
        /// Where to.
        address: String,
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        body: String,
    },
}

impl ClientError {
    /// Whether the request may have been executed: true unless it surely never left.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        match self {
            Self::BadUrl { .. }
            | Self::BadHeader { .. }
            | Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::ConnectTimedOut { .. } => false,
            Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::TooLarge { .. }
            | Self::Status { .. } => true,
        }
    }

    /// Whether nobody listens there.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Connect { source, .. }
            if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most 64 MiB.
    pub body: Bytes,
}

/// [`Dialler::request`] of an `http://` URL.
pub async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
    limit: Duration,
) -> Result<Answer, ClientError> {
    Dialler::plain().request(method, url, headers, body, limit).await
}

/// [`Dialler::get`] of an `http://` URL.
pub async fn get(url: &str, limit: Duration) -> Result<Answer, ClientError> {
    Dialler::plain().get(url, limit).await
}

/// [`Dialler::post_json`] to an `http://` URL.
pub async fn post_json(
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
    limit: Duration,
) -> Result<Answer, ClientError> {
    Dialler::plain().post_json(url, headers, body, limit).await
}

/// A connection that is kept for one request after the other. After an error, make a new one.
#[derive(Debug)]
pub struct Connection {
    url: Url,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    answer_bytes_max: usize,
}

impl Connection {
    /// Connects to `host:port`, in plain text.
    pub async fn connect(address: &str, limit: Duration) -> Result<Self, ClientError> {
        Dialler::plain().connect(&format!("http://{address}"), limit).await
    }

    async fn over(stream: Stream, url: Url) -> Result<Self, ClientError> {
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Broken { address: url.address.clone(), source })?;
        // What breaks the connection is told to the request that waits on it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { url, sender, driver, answer_bytes_max: ANSWER_BYTES_MAX })
    }

    /// The same, and answers whose bodies are larger are an error.
    #[must_use]
    pub fn with_answer_bytes_max(mut self, bytes: usize) -> Self {
        self.answer_bytes_max = bytes;
        self
    }

    /// Whether the next request can still be sent on it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request and reads the whole answer; `limit` is for both.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let request = self.compose(method, path, headers, body.into())?;
        let address = self.url.address.clone();
        timeout(limit, async {
            let (status, headers, incoming) = self.begin(request).await?;
            let body = read_whole(&self.url.address, incoming, self.answer_bytes_max).await?;
            Ok(Answer { status, headers, body })
        })
        .await
        .unwrap_or(Err(ClientError::TimedOut { address, limit }))
    }

    fn compose(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<hyper::Request<Full<Bytes>>, ClientError> {
        let mut builder = hyper::Request::builder().method(method).uri(path);
        builder = builder.header(HOST, &self.url.address);
        for (name, value) in headers {
            let known = hyper::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
                && hyper::header::HeaderValue::from_str(value).is_ok();
            if !known {
                return Err(ClientError::BadHeader { name: (*name).to_owned() });
            }
            builder = builder.header(*name, *value);
        }
        builder.body(Full::new(body)).map_err(|_| ClientError::BadUrl {
            url: format!("{}{path}", self.url.origin()),
            why: "its path cannot stand in a request",
        })
    }

    async fn begin(
        &mut self,
        request: hyper::Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Incoming), ClientError> {
        let broken = |source| ClientError::Broken { address: self.url.address.clone(), source };
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let (head, incoming) = response.into_parts();
        Ok((head.status, head.headers, incoming))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn read_whole(
    address: &str,
    mut incoming: Incoming,
    bytes_max: usize,
) -> Result<Bytes, ClientError> {
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame =
            frame.map_err(|source| ClientError::Broken { address: address.to_owned(), source })?;
        if let Ok(data) = frame.into_data() {
            if body.len() + data.len() > bytes_max {
                return Err(ClientError::TooLarge { address: address.to_owned(), bytes_max });
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(body.freeze())
}

/// A server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name; `message` where the server gave none.
    pub name: String,
    /// Its data, lines joined by newlines.
    pub data: String,
    /// What to come back with as `Last-Event-ID`; empty where the server gave none.
    pub id: String,
}

/// A stream of server-sent events that is being followed.
#[derive(Debug)]
pub struct Events {
    connection: Connection,
    incoming: Incoming,
    reader: EventReader,
}

impl Events {
    /// [`Dialler::open_events`] of an `http://` URL.
    pub async fn open(
        url: &str,
        headers: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Self, ClientError> {
        Dialler::plain().open_events(url, headers, limit).await
    }
}

impl Dialler {
    /// Opens a stream; anything but status 200 is an error.
    pub async fn open_events(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Events, ClientError> {
        match self.open_events_or_answer(url, headers, limit).await? {
            Opened::Stream(events) => Ok(events),
            Opened::Answer(Answer { status, body, .. }) => {
                let address = url.parse::<Url>()?.address;
                let body = String::from_utf8_lossy(&body).chars().take(SHOWN_MAX).collect();
                Err(ClientError::Status { address, status, body })
            }
        }
    }

    /// Opens a stream, or gives the answer that came instead of one: another status than 200, or a
    /// whole document of another kind.
    pub async fn open_events_or_answer(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Opened, ClientError> {
        let url: Url = url.parse()?;
        let started = std::time::Instant::now();
        let mut connection = Connection::over(self.dial(&url, limit).await?, url.clone()).await?;
        let mut all = vec![("accept", EVENT_STREAM)];
        all.extend_from_slice(headers);
        let request = connection.compose(Method::GET, &url.path, &all, Bytes::new())?;
        let left = limit.saturating_sub(started.elapsed());
        let timed_out = || ClientError::TimedOut { address: url.address.clone(), limit };
        let (status, headers, incoming) =
            timeout(left, connection.begin(request)).await.map_err(|_| timed_out())??;
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if status == StatusCode::OK && kind.is_none_or(|kind| kind.starts_with(EVENT_STREAM)) {
            let reader = EventReader::default();
            return Ok(Opened::Stream(Events { connection, incoming, reader }));
        }
        let left = limit.saturating_sub(started.elapsed());
        let body = timeout(left, read_whole(&url.address, incoming, ANSWER_BYTES_MAX)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        Ok(Opened::Answer(Answer { status, headers, body }))
    }
}

impl Events {
    /// The next event; `None` when the server ended the stream. Keep-alive comments are not events,
    /// but each gives the limit anew: silence longer than `limit` is an error.
    pub async fn next(&mut self, limit: Duration) -> Result<Option<Event>, ClientError> {
        let address = || self.connection.url.address.clone();
        loop {
            if let Some(event) = self.reader.ready.pop_front() {
                return Ok(Some(event));
            }
            let frame = timeout(limit, self.incoming.frame())
                .await
                .map_err(|_| ClientError::TimedOut { address: address(), limit })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame =
                frame.map_err(|source| ClientError::Broken { address: address(), source })?;
            if let Ok(data) = frame.into_data()
                && !self.reader.take_in(&data)
            {
                let bytes_max = EVENT_BYTES_MAX;
                return Err(ClientError::TooLarge { address: address(), bytes_max });
            }
        }
    }
}

/// What came of asking for a stream.
#[derive(Debug)]
pub enum Opened {
    /// The stream.
    Stream(Events),
    /// An answer instead of it.
    Answer(Answer),
}

/// Cuts bytes into events.
#[derive(Debug, Default)]
struct EventReader {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    ready: VecDeque<Event>,
}

/// Entrances for the fuzzer.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{EVENT_BYTES_MAX, EventReader};

    pub(crate) fn events(bytes: &[u8]) {
        let (mut whole, mut pieces) = (EventReader::default(), EventReader::default());
        let taken = whole.take_in(bytes);
        let all = bytes.chunks(7).all(|piece| pieces.take_in(piece));
        assert_eq!(taken, all);
        if taken {
            assert_eq!(whole.ready, pieces.ready);
        }
        assert!(whole.line.len() <= EVENT_BYTES_MAX + 1);
    }
}

impl EventReader {
    /// False when an event is larger than is kept.
    fn take_in(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.handle_line(&String::from_utf8_lossy(&line));
                }
                b'\r' => {}
                other => self.line.push(*other),
            }
            if self.line.len() + self.event.data.len() > EVENT_BYTES_MAX {
                return false;
            }
        }
        true
    }

    fn handle_line(&mut self, line: &str) {
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                let mut event = std::mem::take(&mut self.event);
                if event.name.is_empty() {
                    "message".clone_into(&mut event.name);
                }
                self.ready.push_back(event);
            }
            self.event = Event::default();
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "id" => value.clone_into(&mut self.event.id),
            // Comments begin with a colon, so that their field is empty; other fields are not ours.
            _ => {}
        }
    }
}

const EVENT_STREAM: &str = "text/event-stream";
/// Bytes of an answer that are kept.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one event that are kept.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Characters of an unwanted answer that an error shows.
const SHOWN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url: Url = "http://127.0.0.1:7101/role?x=1".parse().unwrap();
        assert_eq!((url.address.as_str(), url.path.as_str()), ("127.0.0.1:7101", "/role?x=1"));
        let url: Url = "http://gateway".parse().unwrap();
        assert_eq!((url.address.as_str(), url.path.as_str()), ("gateway:80", "/"));
        let url: Url = "http://[::1]:80?a".parse().unwrap();
        assert_eq!(url.to_string(), "http://[::1]:80/?a");
        let url: Url = "https://gateway/x".parse().unwrap();
        assert_eq!((url.secure, url.address.as_str()), (true, "gateway:443"));
        assert_eq!(url.to_string(), "https://gateway:443/x");
        for (url, here) in [
            ("http://127.0.0.1:9100/x", true),
            ("http://[::1]:80", true),
            ("http://localhost", true),
            ("http://10.0.0.9", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(url.parse::<Url>().unwrap().is_loopback(), here, "{url}");
        }
        for bad in ["ftp://a/", "a:1/", "http:///x", "http://u@h/", "http://h/a b", "http://h/\n"] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        let text =
            b": hello\n\nevent: view\nid: 5\ndata: {\"a\":1}\n\ndata: one\r\ndata: two\r\n\r\nid: 7\n\n";
        let wanted = [
            Event { name: "view".into(), data: "{\"a\":1}".into(), id: "5".into() },
            Event { name: "message".into(), data: "one\ntwo".into(), id: String::new() },
        ];
        for cut in 0..text.len() {
            let mut reader = EventReader::default();
            assert!(reader.take_in(&text[..cut]) && reader.take_in(&text[cut..]));
            assert_eq!(reader.ready, wanted);
        }
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let mut reader = EventReader::default();
        assert!(!reader.take_in(&vec![b'x'; EVENT_BYTES_MAX + 1]));
    }
}
