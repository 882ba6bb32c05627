//! `hotpair-investment-system`: a stand-in for the external investment system, for tests, demo and
//! benchmarks. It shares no code with the product.
//!
//! HTTP, over TLS too if it is given a certificate: `POST /login {user,password}` gives `{"user_token"}`; `POST /heartbeat {user_token}` is answered 200,
//! 401 where nobody has that token. `POST /control` makes it slow (`delay_ms`), answer another `status`,
//! forget its tokens (`forget`), publish `rows` at a `rate` with their column `vary` changing, leave out the
//! next `skip` versions, cut its subscribers off (`cut`). `POST /publish [..]` publishes lines as they are. `GET /state`
//! tells what it has done. Logins and heartbeats go to the log, a JSON line each, with their time.
//!
//! ZeroMQ: a PUB of JSON rows with a `version` that counts all of them, ZMTP 3.0 with the NULL mechanism. A
//! subscriber that does not keep up misses rows, as with any PUB.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Map, Value, json};

/// A stand-in for the external investment system.
#[derive(Debug, Parser)]
#[command(name = "hotpair-investment-system")]
struct Arguments {
    /// Where its HTTP listens.
    #[arg(long)]
    http: SocketAddr,
    /// Where the same is asked over TLS.
    #[arg(long, requires = "certificate", requires = "key")]
    https: Option<SocketAddr>,
    /// Its certificate, PEM.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Where its PUB listens.
    #[arg(long)]
    publish: Option<SocketAddr>,
    /// Where logins and heartbeats are written; appended to.
    #[arg(long)]
    log: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let log = File::options().create(true).append(true).open(&arguments.log)?;
    let system = Arc::new(System { log: Mutex::new(log), ..System::default() });
    if let Some(address) = arguments.publish {
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))?;
        let shared = Arc::clone(&system);
        thread::spawn(move || shared.take_subscribers(&listener));
        let shared = Arc::clone(&system);
        thread::spawn(move || shared.keep_publishing());
    }
    if let (Some(address), Some(certificate), Some(key)) =
        (arguments.https, &arguments.certificate, &arguments.key)
    {
        let tls = Arc::new(server_config(certificate, key)?);
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))?;
        let shared = Arc::clone(&system);
        thread::spawn(move || {
            shared.take_clients(&listener, |stream| {
                let connection = ServerConnection::new(Arc::clone(&tls))?;
                Ok(StreamOwned::new(connection, stream))
            });
        });
    }
    let listener = TcpListener::bind(arguments.http)
        .with_context(|| format!("cannot bind {}", arguments.http))?;
    system.take_clients(&listener, Ok);
    Ok(())
}

fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let certificates =
        CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(ring::default_provider());
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key)?)?)
}

struct System {
    log: Mutex<File>,
    state: Mutex<State>,
    subscribers: Mutex<Vec<Subscriber>>,
}

impl Default for System {
    fn default() -> Self {
        let nowhere = File::options().write(true).open("/dev/null");
        Self {
            log: Mutex::new(nowhere.expect("there is always /dev/null")),
            state: Mutex::default(),
            subscribers: Mutex::default(),
        }
    }
}

#[derive(Default)]
struct State {
    delay_ms: u64,
    status: Option<u64>,
    /// Users by their tokens.
    tokens: BTreeMap<String, String>,
    next_token: u64,
    rows: Vec<Map<String, Value>>,
    next_row: usize,
    vary: Option<String>,
    rate: u64,
    version: u64,
    published: u64,
    dropped: u64,
    logins: u64,
    heartbeats: u64,
}

struct Subscriber {
    stream: TcpStream,
    queue: SyncSender<Arc<Vec<u8>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// HTTP.

impl System {
    /// A thread each, which speaks over what `open` makes of a connection.
    fn take_clients<S: Read + Write + Send + 'static>(
        self: &Arc<Self>,
        listener: &TcpListener,
        open: impl Fn(TcpStream) -> Result<S>,
    ) {
        for stream in listener.incoming().flatten() {
            // Failing costs latency only.
            let _ = stream.set_nodelay(true);
            let Ok(stream) = open(stream) else { continue };
            let system = Arc::clone(self);
            thread::spawn(move || {
                // A connection that breaks is its client's business.
                let _ = system.serve(stream);
            });
        }
    }

    fn serve(&self, stream: impl Read + Write) -> Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let Some(request) = read_request(&mut reader)? else { return Ok(()) };
            let Request { method, path, body, last } = request;
            let (status, answer) = self
                .answer(&method, &path, &body)
                .unwrap_or_else(|error| (400, json!({"error": format!("{error:#}")})));
            let text = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            let stream = reader.get_mut();
            stream.write_all(format!("{head}{text}").as_bytes())?;
            stream.flush()?;
            if last {
                return Ok(());
            }
        }
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> Result<(u64, Value)> {
        let body = || serde_json::from_slice::<Value>(body).context("the body is no JSON");
        match (method, path) {
            ("POST", "/login") => self.outward(|| self.log_in(&body()?)),
            ("POST", "/heartbeat") => self.outward(|| self.heartbeat(&body()?)),
            ("POST", "/control") => self.control(&body()?),
            ("POST", "/publish") => {
                let rows = body()?;
                let rows = rows.as_array().context("publish wants a list")?;
                self.send(&rows.iter().map(Value::to_string).collect::<Vec<_>>());
                Ok((200, json!({})))
            }
            ("GET", "/state") => Ok((200, self.describe())),
            _ => Ok((404, json!({"error": format!("no {method} {path}")}))),
        }
    }

    /// As slow and as well as it was told to be.
    fn outward(&self, answer: impl FnOnce() -> Result<(u64, Value)>) -> Result<(u64, Value)> {
        let (delay_ms, status) = {
            let state = locked(&self.state);
            (state.delay_ms, state.status)
        };
        thread::sleep(Duration::from_millis(delay_ms));
        match status {
            Some(status) => Ok((status, json!({"error": "as it was told"}))),
            None => answer(),
        }
    }

    fn log_in(&self, body: &Value) -> Result<(u64, Value)> {
        let user = body["user"].as_str().context("no user")?.to_owned();
        ensure!(body["password"].is_string(), "no password");
        let mut state = locked(&self.state);
        state.next_token += 1;
        state.logins += 1;
        let token = format!("{user}-{}-{}", std::process::id(), state.next_token);
        state.tokens.insert(token.clone(), user.clone());
        drop(state);
        self.write(
            &json!({"event": "login", "user": user, "user_token": token, "at_ms": wall_ms()}),
        )?;
        Ok((200, json!({"user_token": token})))
    }

    fn heartbeat(&self, body: &Value) -> Result<(u64, Value)> {
        let token = body["user_token"].as_str().context("no user_token")?;
        let mut state = locked(&self.state);
        state.heartbeats += 1;
        let user = state.tokens.get(token).cloned();
        drop(state);
        let status = if user.is_some() { 200 } else { 401 };
        self.write(&json!({
            "event": "heartbeat", "user": user, "user_token": token, "at_ms": wall_ms(),
            "status": status,
        }))?;
        Ok((status, json!({})))
    }

    fn control(&self, body: &Value) -> Result<(u64, Value)> {
        let orders = body.as_object().context("control wants an object")?;
        let mut state = locked(&self.state);
        for (name, value) in orders {
            let number = || value.as_u64().with_context(|| format!("{name} wants a number"));
            match name.as_str() {
                "delay_ms" => state.delay_ms = number()?,
                "status" => state.status = value.as_u64(),
                "rate" => state.rate = number()?,
                "skip" => state.version += number()?,
                "vary" => state.vary = value.as_str().map(str::to_owned),
                "rows" => {
                    let rows = value.as_array().context("rows wants a list")?;
                    state.rows = rows.iter().filter_map(|row| row.as_object().cloned()).collect();
                    state.next_row = 0;
                }
                "forget" => state.tokens.clear(),
                "cut" => locked(&self.subscribers).clear(),
                other => bail!("there is no control {other}"),
            }
        }
        Ok((200, json!({})))
    }

    fn describe(&self) -> Value {
        let subscribers = locked(&self.subscribers).len();
        let state = locked(&self.state);
        json!({
            "subscribers": subscribers, "published": state.published, "dropped": state.dropped,
            "version": state.version, "logins": state.logins, "heartbeats": state.heartbeats,
        })
    }

    fn write(&self, line: &Value) -> Result<()> {
        Ok(locked(&self.log).write_all(format!("{line}\n").as_bytes())?)
    }
}

struct Request {
    method: String,
    path: String,
    body: Vec<u8>,
    /// Nothing comes after it.
    last: bool,
}

/// None when the other side has ended.
fn read_request(reader: &mut impl BufRead) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().context("no method")?.to_owned();
    let path = words.next().context("no path")?.to_owned();
    let (mut length, mut last) = (0, false);
    loop {
        let mut header = String::new();
        ensure!(reader.read_line(&mut header)? > 0, "ended within a head");
        let header = header.trim();
        if header.is_empty() {
            break;
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        } else if name.eq_ignore_ascii_case("connection") {
            last = value.trim().eq_ignore_ascii_case("close");
        }
    }
    ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path, body, last }))
}

// PUB.

impl System {
    fn take_subscribers(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let system = Arc::clone(self);
            thread::spawn(move || {
                // Whoever speaks something else is not served.
                let _ = system.take_subscriber(&stream);
            });
        }
    }

    fn take_subscriber(&self, stream: &TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut incoming = BufReader::new(stream.try_clone()?);
        let mut outgoing = stream;
        outgoing.write_all(&greeting())?;
        let mut greeted = [0; 64];
        incoming.read_exact(&mut greeted)?;
        ensure!(greeted[0] == 0xff && greeted[9] == 0x7f && greeted[10] >= 3, "no ZMTP 3");
        outgoing.write_all(&command(b"READY", b"\x0bSocket-Type\0\0\0\x03PUB"))?;
        let mut subscribed = false;
        loop {
            let (flags, body) = read_frame(&mut incoming)?;
            let is_command = flags & 4 != 0;
            if is_command && body.starts_with(b"\x04PING") {
                outgoing.write_all(&command(b"PONG", body.get(7..).unwrap_or_default()))?;
            }
            let wants = (!is_command && body == [1]) || (is_command && body == b"\x09SUBSCRIBE");
            if wants && !std::mem::replace(&mut subscribed, true) {
                let (queue, waiting) = sync_channel(QUEUE);
                let stream = stream.try_clone()?;
                let own = stream.try_clone()?;
                thread::spawn(move || pass_on(own, &waiting));
                locked(&self.subscribers).push(Subscriber { stream, queue });
            }
        }
    }

    /// Publishes at the rate it was told, in pieces of a few milliseconds.
    fn keep_publishing(&self) {
        let mut owed = 0.0;
        let mut last = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(2));
            let passed = last.elapsed();
            last = Instant::now();
            let lines = {
                let mut state = locked(&self.state);
                if state.rate == 0 || state.rows.is_empty() {
                    owed = 0.0;
                    continue;
                }
                owed = (owed + state.rate as f64 * passed.as_secs_f64()).min(state.rate as f64);
                let count = owed as u64;
                owed -= count as f64;
                (0..count).map(|_| state.next_line()).collect::<Vec<String>>()
            };
            self.send(&lines);
        }
    }

    /// A message a line, to everybody; who has no room left misses them.
    fn send(&self, lines: &[String]) {
        let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.len() + 9).sum());
        for line in lines {
            frame(&mut bytes, 0, line.as_bytes());
        }
        let bytes = Arc::new(bytes);
        let mut dropped = 0;
        locked(&self.subscribers).retain(|subscriber| {
            match subscriber.queue.try_send(Arc::clone(&bytes)) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    dropped += lines.len() as u64;
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            }
        });
        let mut state = locked(&self.state);
        state.published += lines.len() as u64;
        state.dropped += dropped;
    }
}

impl State {
    fn next_line(&mut self) -> String {
        let place = self.next_row % self.rows.len();
        self.next_row = place + 1;
        self.version += 1;
        let (version, vary) = (self.version, self.vary.clone());
        let row = &mut self.rows[place];
        row.insert("version".to_owned(), version.into());
        if let Some(vary) = vary {
            // A whole number in a float's clothes: exact, and another one each time.
            row.insert(vary, json!(version as f64));
        }
        serde_json::to_string(row).unwrap_or_default()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // Gone already, mostly.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn pass_on(mut stream: TcpStream, waiting: &Receiver<Arc<Vec<u8>>>) {
    for bytes in waiting {
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// ZMTP 3.0, NULL.
fn greeting() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

fn command(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut body = vec![u8::try_from(name.len()).unwrap_or(u8::MAX)];
    body.extend_from_slice(name);
    body.extend_from_slice(data);
    let mut bytes = Vec::new();
    frame(&mut bytes, 4, &body);
    bytes
}

fn frame(bytes: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(length) => bytes.extend_from_slice(&[flags, length]),
        Err(_) => {
            bytes.push(flags | 2);
            bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(body);
}

fn read_frame(reader: &mut impl Read) -> Result<(u8, Vec<u8>)> {
    let mut flags = [0];
    reader.read_exact(&mut flags)?;
    let length = if flags[0] & 2 == 0 {
        let mut short = [0];
        reader.read_exact(&mut short)?;
        u64::from(short[0])
    } else {
        let mut long = [0; 8];
        reader.read_exact(&mut long)?;
        u64::from_be_bytes(long)
    };
    ensure!(length <= 1_024, "a subscriber's frame of {length} bytes");
    let mut body = vec![0; usize::try_from(length)?];
    reader.read_exact(&mut body)?;
    Ok((flags[0], body))
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Pieces that wait for one subscriber: two seconds of them.
const QUEUE: usize = 1_000;
const BODY_BYTES_MAX: usize = 64 << 20;
