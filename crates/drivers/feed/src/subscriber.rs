//! A SUB of one PUB, on a thread of its own, that says when it lost something.
//!
//! Libraries for ZeroMQ hide that a connection broke and came back; for a dataset that is the one
//! thing to know. So each connection is told of: when the subscription was sent, and when it is lost.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hotpair_core::services::dataset::FeedEvent;

use crate::zmtp::{self, Command, Decoder, GREETING_BYTES, ZmtpError};

/// Where a publisher is: `zmq://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedAddress(String);

/// What is no address of a feed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no feed: write zmq://host:port")]
pub struct FeedAddressError(pub String);

impl FromStr for FeedAddress {
    type Err = FeedAddressError;

    fn from_str(text: &str) -> Result<Self, FeedAddressError> {
        let address = text.strip_prefix("zmq://").filter(|address| {
            address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty()
                    && !host.contains(['/', '@'])
                    && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        });
        address.map(|at| Self(at.to_owned())).ok_or_else(|| FeedAddressError(text.to_owned()))
    }
}

impl fmt::Display for FeedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zmq://{}", self.0)
    }
}

/// Hears of a subscription, on its thread.
pub trait Listener: Send + 'static {
    /// The subscription was sent, or its connection is lost.
    fn event(&mut self, event: FeedEvent);

    /// A message came: its last frame.
    fn message(&mut self, body: &[u8]);
}

/// Follows a publisher until it is dropped.
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    stream: Mutex<Option<TcpStream>>,
}

impl Subscriber {
    /// Begins to connect.
    pub fn start(address: FeedAddress, listener: impl Listener) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || run(&address, &own, listener))?;
        Ok(Self { shared })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let stream = self.shared.stream.lock().expect("nobody panics with it").take();
        if let Some(stream) = stream {
            // Ended by the other side already, perhaps.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Zmtp(#[from] ZmtpError),
    #[error("the publisher ended the connection")]
    Ended,
    #[error("the publisher said nothing for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("nobody was found by that name")]
    NoAddress,
}

fn run(address: &FeedAddress, shared: &Shared, mut listener: impl Listener) {
    let mut pause = PAUSE_MIN;
    while !shared.stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        let Err(over) = follow(&address.0, shared, &mut listener) else { return };
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        listener.event(FeedEvent::Lost { reason: format!("{address}: {over}") });
        // What held for a while is dialled again at once; what never comes about, not so often.
        pause = if began.elapsed() > PAUSE_MAX { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        thread::sleep(pause);
    }
}

/// One connection; comes back without an error only when it was told to stop.
fn follow(address: &str, shared: &Shared, listener: &mut impl Listener) -> Result<(), Over> {
    let mut stream = connect(address)?;
    *shared.stream.lock().expect("nobody panics with it") = Some(stream.try_clone()?);
    let minor = shake_hands(&mut stream)?;
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    let (mut subscribed, mut heard, mut pinged) = (false, Instant::now(), Instant::now());
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    while !shared.stop.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(Over::Ended),
            Ok(count) => {
                heard = Instant::now();
                decoder.take_in(&buffer[..count]);
            }
            Err(error) if is_time_out(&error) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(frame) = decoder.next()? {
            if !frame.is_command {
                if !frame.more && subscribed {
                    listener.message(frame.body);
                }
                continue;
            }
            match zmtp::read_command(frame.body)? {
                Command::Ready { socket } if !subscribed => {
                    if !matches!(socket.as_str(), "PUB" | "XPUB") {
                        return Err(ZmtpError::NoPublisher(socket).into());
                    }
                    stream.write_all(&zmtp::subscribe_all())?;
                    subscribed = true;
                    listener.event(FeedEvent::Sent);
                }
                Command::Ping { answer } => stream.write_all(&answer)?,
                Command::Ready { .. } | Command::Other => {}
            }
        }
        // A peer of 3.0 may not know the question; 3.1 does. A connection may be half open for hours.
        let quiet = heard.elapsed();
        if quiet > SILENCE_MAX && (minor >= 1 || !subscribed) {
            return Err(Over::Silent);
        }
        if minor >= 1 && quiet > PING_EVERY && pinged.elapsed() > PING_EVERY {
            pinged = Instant::now();
            stream.write_all(&zmtp::ping())?;
        }
    }
    Ok(())
}

fn connect(address: &str) -> Result<TcpStream, Over> {
    let mut last = Over::NoAddress;
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Greetings and our READY; the peer's minor version.
fn shake_hands(stream: &mut TcpStream) -> Result<u8, Over> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    stream.write_all(&zmtp::greeting())?;
    let mut theirs = [0; GREETING_BYTES];
    stream.read_exact(&mut theirs).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Over::Ended,
        _ if is_time_out(&error) => Over::Silent,
        _ => error.into(),
    })?;
    let minor = zmtp::check_greeting(&theirs)?;
    stream.write_all(&zmtp::ready())?;
    Ok(minor)
}

fn is_time_out(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const PING_EVERY: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 256 * 1024;
/// A message is a row or a list of rows.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_named_by_host_and_port() {
        let address: FeedAddress = "zmq://10.0.0.7:6000".parse().unwrap();
        assert_eq!(address.to_string(), "zmq://10.0.0.7:6000");
        assert!("zmq://[::1]:6000".parse::<FeedAddress>().is_ok());
        for wrong in
            ["10.0.0.7:6000", "tcp://a:1", "zmq://a", "zmq://:5", "zmq://a:0", "zmq://a:1/x"]
        {
            let said = wrong.parse::<FeedAddress>().unwrap_err().to_string();
            assert!(said.contains(wrong) && said.contains("zmq://host:port"), "{said}");
        }
    }
}
