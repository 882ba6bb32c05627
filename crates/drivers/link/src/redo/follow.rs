//! The standby's end of a redo stream: one thread that dials, introduces us and reads.

use std::io::{self, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotpair_core::tables::replication::{Follow, FromMaster};
use hotpair_core::tables::snapshot::Piece;
use tokio::sync::mpsc;

use super::RedoEvent;
use super::frame::{self, MasterFrame};
use super::ship::{LogReader, READ_BYTES};
use super::wire::{Wire, WireWriter};
use crate::frame::FOLLOW_TAG;
use crate::secure::LinkSecurity;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const WRITE_WITHIN: Duration = Duration::from_secs(1);
/// What the master wrote must be seen by then.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
const SHOWN_SOON: Duration = Duration::from_millis(20);

/// The line to the master. Dropping it hangs up.
#[derive(Debug)]
pub struct MasterLine {
    dial: u64,
    line: Arc<Mutex<Line>>,
}

#[derive(Debug)]
enum Line {
    Dialling,
    Up(WireWriter),
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
            && frame::write_held(stream, number).and_then(|()| stream.flush()).is_err()
        {
            stream.shutdown();
        }
    }
}

impl Drop for MasterLine {
    fn drop(&mut self) {
        if let Line::Up(stream) = std::mem::replace(&mut *lock(&self.line), Line::HungUp) {
            stream.shutdown();
        }
    }
}

/// Reads the master's redo files where both nodes see them, from the record after this one on.
pub type OpenLog = Box<dyn FnMut(u64) -> io::Result<Box<dyn LogReader>> + Send>;

/// Where the master is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct MasterAddress {
    /// `host:port`.
    pub address: String,
    /// With TLS; in plain text without.
    pub security: Option<LinkSecurity>,
}

/// Dials the master. With `log`, records are read from there, and the
/// master is asked only how far they go.
///
/// # Errors
/// When the thread cannot be started.
pub fn dial(
    dial: u64,
    master: &MasterAddress,
    pair: &str,
    follow: &Follow,
    log: Option<OpenLog>,
    events: mpsc::Sender<RedoEvent>,
) -> io::Result<MasterLine> {
    let line = Arc::new(Mutex::new(Line::Dialling));
    let (shared, master) = (line.clone(), master.clone());
    let introduction = frame::encode_follow(follow, pair, log.is_some());
    std::thread::Builder::new().name("redo follow".to_owned()).spawn(move || {
        let why = match connect(&master, &introduction) {
            Ok(wire) => read(dial, &wire, &shared, log, &events),
            Err(error) => format!("{}: {error}", master.address),
        };
        let _ = events.blocking_send(RedoEvent::MasterGone { dial, why });
    })?;
    Ok(MasterLine { dial, line })
}

fn connect(master: &MasterAddress, introduction: &[u8]) -> io::Result<Wire> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in master.address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(stream) => {
                let security = master.security.as_ref().filter(|s| !s.dials_plain());
                let wire = match security {
                    Some(security) => Wire::connect(stream, security, CONNECT_WITHIN)?,
                    None => Wire::plain(stream),
                };
                wire.set_nodelay()?;
                wire.set_write_timeout(WRITE_WITHIN)?;
                let mut out = wire.writer()?;
                frame::write(&mut out, FOLLOW_TAG, &[introduction])?;
                out.flush()?;
                return Ok(wire);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads until the line ends; why it did.
fn read(
    dial: u64,
    wire: &Wire,
    shared: &Mutex<Line>,
    log: Option<OpenLog>,
    events: &mpsc::Sender<RedoEvent>,
) -> String {
    let (reading, writing) = match (wire.reader(), wire.writer()) {
        (Ok(reading), Ok(writing)) => (reading, writing),
        (Err(error), _) | (_, Err(error)) => return error.to_string(),
    };
    {
        let mut line = lock(shared);
        if matches!(*line, Line::HungUp) {
            return "hung up".to_owned();
        }
        *line = Line::Up(writing);
    }
    let mut input = BufReader::with_capacity(256 * 1024, reading);
    let mut files = log.map(Files::new);
    let tell = |frame| events.blocking_send(RedoEvent::MasterSaid { dial, frame }).is_ok();
    loop {
        let frame = match (frame::read_from_master(&mut input), &mut files) {
            (Ok(MasterFrame::Said(frame)), files) => {
                if let (Some(files), Some(after)) = (files, log_goes_on_after(&frame)) {
                    files.go_on_after(after);
                }
                frame
            }
            (Ok(MasterFrame::Grown(last)), Some(files)) => match files.read_to(last, &tell) {
                Ok(true) => continue,
                Ok(false) => return "this node is ending".to_owned(),
                Err(error) => return format!("the master's redo files: {error}"),
            },
            (Ok(MasterFrame::Grown(_)), None) => return "a frame out of place".to_owned(),
            (Err(error), _) => return error.to_string(),
        };
        if !tell(frame) {
            return "this node is ending".to_owned();
        }
    }
}

/// The record after which a frame says that the log goes on.
fn log_goes_on_after(frame: &FromMaster) -> Option<u64> {
    match frame {
        FromMaster::Tail { after, .. } => Some(*after),
        FromMaster::Piece(Piece::Begin { history }) => Some(history.head()),
        FromMaster::Piece(_)
        | FromMaster::Load { .. }
        | FromMaster::Records(..)
        | FromMaster::Digests { .. } => None,
    }
}

/// The master's redo files where both nodes see them. A network's file system may show what was
/// written a little later: then they are opened anew and looked into again.
struct Files {
    open: OpenLog,
    reader: Option<Box<dyn LogReader>>,
    after: u64,
}

impl Files {
    fn new(open: OpenLog) -> Self {
        Self { open, reader: None, after: 0 }
    }

    fn go_on_after(&mut self, after: u64) {
        (self.after, self.reader) = (after, None);
    }

    /// Hands on everything up to record `last`; false if nobody listens any more.
    fn read_to(&mut self, last: u64, tell: &dyn Fn(FromMaster) -> bool) -> io::Result<bool> {
        let patience = Instant::now() + SHOWN_WITHIN;
        while self.after < last {
            match self.read_some(last) {
                Ok(bytes) if !bytes.is_empty() => {
                    let records = frame::records_of(bytes).map_err(io::Error::other)?;
                    if !tell(records) {
                        return Ok(false);
                    }
                }
                outcome => {
                    self.reader = None;
                    if Instant::now() >= patience {
                        return Err(outcome.err().unwrap_or_else(|| {
                            io::Error::other(format!("record {} does not show up", self.after + 1))
                        }));
                    }
                    std::thread::sleep(SHOWN_SOON);
                }
            }
        }
        Ok(true)
    }

    fn read_some(&mut self, last: u64) -> io::Result<Vec<u8>> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert((self.open)(self.after)?),
        };
        let mut bytes = Vec::new();
        self.after = self.after.max(reader.read(last, READ_BYTES, &mut bytes)?);
        Ok(bytes)
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}
