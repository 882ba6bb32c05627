//! The standby's end of a redo stream: one thread that dials, introduces us and reads.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hotpair_core::tables::replication::Follow;
use tokio::sync::mpsc;

use super::RedoEvent;
use super::frame;
use crate::frame::FOLLOW_TAG;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const WRITE_WITHIN: Duration = Duration::from_secs(1);

/// The line to the master. Dropping it hangs up.
#[derive(Debug)]
pub struct MasterLine {
    dial: u64,
    line: Arc<Mutex<Line>>,
}

#[derive(Debug)]
enum Line {
    Dialling,
    Up(TcpStream),
    HungUp,
}

impl MasterLine {
    /// The dial's number, by which its events are known.
    #[must_use]
    pub fn dial(&self) -> u64 {
        self.dial
    }

    /// Tells the master that all records up to this one are held. If that cannot be told, the line
    /// is over, which its reading thread finds out.
    pub fn held(&self, number: u64) {
        if let Line::Up(stream) = &mut *lock(&self.line)
            && frame::write_held(stream, number).is_err()
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for MasterLine {
    fn drop(&mut self) {
        if let Line::Up(stream) = std::mem::replace(&mut *lock(&self.line), Line::HungUp) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Dials the master at `address` (`host:port`).
///
/// # Errors
/// When the thread cannot be started.
pub fn dial(
    dial: u64,
    address: &str,
    pair: &str,
    follow: &Follow,
    events: mpsc::Sender<RedoEvent>,
) -> io::Result<MasterLine> {
    let line = Arc::new(Mutex::new(Line::Dialling));
    let (shared, address) = (line.clone(), address.to_owned());
    let introduction = frame::encode_follow(follow, pair);
    std::thread::Builder::new().name("redo follow".to_owned()).spawn(move || {
        let why = match connect(&address, &introduction) {
            Ok(stream) => read(dial, stream, &shared, &events),
            Err(error) => format!("{address}: {error}"),
        };
        let _ = events.blocking_send(RedoEvent::MasterGone { dial, why });
    })?;
    Ok(MasterLine { dial, line })
}

fn connect(address: &str, introduction: &[u8]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(mut stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_WITHIN))?;
                frame::write(&mut stream, FOLLOW_TAG, &[introduction])?;
                stream.flush()?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads until the line ends; why it did.
fn read(
    dial: u64,
    stream: TcpStream,
    shared: &Mutex<Line>,
    events: &mpsc::Sender<RedoEvent>,
) -> String {
    let reading = match stream.try_clone() {
        Ok(reading) => reading,
        Err(error) => return error.to_string(),
    };
    {
        let mut line = lock(shared);
        if matches!(*line, Line::HungUp) {
            return "hung up".to_owned();
        }
        *line = Line::Up(stream);
    }
    let mut input = BufReader::with_capacity(256 * 1024, reading);
    loop {
        match frame::read_from_master(&mut input) {
            Ok(frame) => {
                if events.blocking_send(RedoEvent::MasterSaid { dial, frame }).is_err() {
                    return "this node is ending".to_owned();
                }
            }
            Err(error) => return error.to_string(),
        }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}
