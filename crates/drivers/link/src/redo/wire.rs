//! A redo stream's connection: a blocking socket, plain or under TLS, that one thread reads from and
//! one writes to.
//!
//! Under TLS the two share the keys behind a lock that is held while bytes are encrypted or decrypted,
//! never while a socket is waited for. The reading side writes nothing: what TLS wants to answer goes
//! out with the next words of the writing side. What is written is gathered, so that small frames make
//! few records.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hotpair_tls::rustls::{ClientConnection, Connection, ServerConnection};
use hotpair_tls::{Stream, explain};
use tokio_rustls::TlsStream;

use crate::secure::LinkSecurity;

/// Bytes gathered before they are encrypted: four records.
const GATHER_BYTES: usize = 64 * 1_024;
/// Bytes read from the socket at a time.
const READ_BYTES: usize = 128 * 1_024;

/// The connection; its reading side and its writing side are for one thread each.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    tls: Option<Arc<Mutex<Connection>>>,
}

impl Wire {
    /// In plain text.
    #[must_use]
    pub fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }

    /// What was accepted and read from by a task until now.
    pub(crate) fn from_stream(stream: Stream) -> io::Result<Self> {
        let (socket, tls) = match stream {
            Stream::Plain(socket) => (socket, None),
            Stream::Tls(tls) => match *tls {
                TlsStream::Client(tls) => {
                    let (socket, tls) = tls.into_inner();
                    (socket, Some(Connection::Client(tls)))
                }
                TlsStream::Server(tls) => {
                    let (socket, tls) = tls.into_inner();
                    (socket, Some(Connection::Server(tls)))
                }
            },
        };
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        Ok(Self { socket, tls: tls.map(|tls| Arc::new(Mutex::new(tls))) })
    }

    /// The handshake on a connection to the peer, which must end within this time.
    ///
    /// # Errors
    /// In words, where TLS has something against the peer.
    pub(crate) fn connect(
        mut socket: TcpStream,
        security: &LinkSecurity,
        within: Duration,
    ) -> io::Result<Self> {
        let connector = security.connector();
        let name = connector.expected("")?;
        let tls = ClientConnection::new(Arc::clone(connector.config()), name)
            .map_err(io::Error::other)?;
        let tls = handshake(tls.into(), &mut socket, within)?;
        Ok(Self { socket, tls: Some(Arc::new(Mutex::new(tls))) })
    }

    /// The handshake with whoever came, outside of a link's door: for benchmarks and tests.
    ///
    /// # Errors
    /// In words, where TLS has something against whoever came.
    pub fn accept(mut socket: TcpStream, security: &LinkSecurity) -> io::Result<Self> {
        let config = Arc::clone(security.acceptor().config());
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        let tls = handshake(tls.into(), &mut socket, Duration::from_secs(2))?;
        Ok(Self { socket, tls: Some(Arc::new(Mutex::new(tls))) })
    }

    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        self.socket.set_nodelay(true)
    }

    pub(crate) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_write_timeout(Some(timeout))
    }

    /// Ends it for both threads.
    pub(crate) fn shutdown(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, tls: self.tls.clone() })
    }

    pub(crate) fn reader(&self) -> io::Result<WireReader> {
        let Self { socket, tls } = self.try_clone()?;
        let mut reader =
            WireReader { socket, tls, sealed: Vec::new(), clear: Vec::new(), taken: 0 };
        if let Some(tls) = &reader.tls {
            reader.sealed = vec![0; READ_BYTES];
            // What came with the handshake.
            take_clear(&mut lock(tls), &mut reader.clear)?;
        }
        Ok(reader)
    }

    pub(crate) fn writer(&self) -> io::Result<WireWriter> {
        let Self { socket, tls } = self.try_clone()?;
        Ok(WireWriter { socket, tls, gathered: Vec::new(), sealed: Vec::new() })
    }
}

fn handshake(
    mut tls: Connection,
    socket: &mut TcpStream,
    within: Duration,
) -> io::Result<Connection> {
    socket.set_read_timeout(Some(within))?;
    socket.set_write_timeout(Some(within))?;
    while tls.is_handshaking() {
        tls.complete_io(socket).map_err(told)?;
    }
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)?;
    Ok(tls)
}

/// An error of TLS, in words.
fn told(error: io::Error) -> io::Error {
    match explain(&error) {
        Some(why) => io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {why}")),
        None => error,
    }
}

/// The side of the thread that reads.
#[derive(Debug)]
pub(crate) struct WireReader {
    socket: TcpStream,
    tls: Option<Arc<Mutex<Connection>>>,
    sealed: Vec<u8>,
    clear: Vec<u8>,
    taken: usize,
}

impl Read for WireReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.socket.read(out) };
        loop {
            let rest = &self.clear[self.taken..];
            if !rest.is_empty() || out.is_empty() {
                let size = rest.len().min(out.len());
                out[..size].copy_from_slice(&rest[..size]);
                self.taken += size;
                return Ok(size);
            }
            self.clear.clear();
            self.taken = 0;
            let size = self.socket.read(&mut self.sealed)?;
            let mut came = &self.sealed[..size];
            if came.is_empty() {
                return Ok(0);
            }
            let mut tls = lock(tls);
            while !came.is_empty() {
                tls.read_tls(&mut came)?;
                if take_clear(&mut tls, &mut self.clear)? {
                    break;
                }
            }
        }
    }
}

/// Takes what is decrypted; whether the other side said that nothing more comes.
fn take_clear(tls: &mut Connection, clear: &mut Vec<u8>) -> io::Result<bool> {
    let state = tls
        .process_new_packets()
        .map_err(|error| told(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let there = state.plaintext_bytes_to_read();
    if there > 0 {
        let at = clear.len();
        clear.resize(at + there, 0);
        tls.reader().read_exact(&mut clear[at..])?;
    }
    Ok(state.peer_has_closed())
}

/// The side of the thread that writes. What is not flushed may not have been sent.
#[derive(Debug)]
pub(crate) struct WireWriter {
    socket: TcpStream,
    tls: Option<Arc<Mutex<Connection>>>,
    gathered: Vec<u8>,
    sealed: Vec<u8>,
}

impl WireWriter {
    pub(crate) fn shutdown(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let mut rest = &self.gathered[..];
        self.sealed.clear();
        {
            let mut tls = lock(tls);
            while !rest.is_empty() || tls.wants_write() {
                let taken = tls.writer().write(rest)?;
                rest = &rest[taken..];
                while tls.wants_write() {
                    tls.write_tls(&mut self.sealed)?;
                }
            }
        }
        self.gathered.clear();
        self.socket.write_all(&self.sealed)
    }
}

impl Write for WireWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.socket.write(bytes);
        }
        let size = bytes.len().min(GATHER_BYTES - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..size]);
        if self.gathered.len() == GATHER_BYTES {
            self.send()?;
        }
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.tls {
            Some(_) => self.send(),
            None => self.socket.flush(),
        }
    }
}

fn lock(tls: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}
