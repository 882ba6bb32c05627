//! The master's end of a redo stream: one thread that sends, one that hears what is held.

use std::fmt::Debug;
use std::io::{self, BufReader, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::position::History;
use hotpair_core::tables::snapshot::{Cursor, Piece};
use hotpair_core::tables::store::Store;
use tokio::sync::mpsc;

use super::RedoEvent;
use super::feed::{Feed, Next};
use super::frame;
use super::wire::{Wire, WireReader, WireWriter};

/// A peer that takes nothing for so long is given up.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// How often a shipper that has nothing to send looks whether it is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Bytes read from redo files at a time.
pub(super) const READ_BYTES: usize = 1 << 20;

/// Reads the log from the disk, while it is written.
pub trait LogReader: Debug + Send {
    /// Appends whole records after the last ones read to `out`, some `bytes` at most and none
    /// after record `up_to`; the number of the last one read. No news: the last one as before.
    ///
    /// # Errors
    /// As the system says, or when what is on the disk is no log.
    fn read(&mut self, up_to: u64, bytes: usize, out: &mut Vec<u8>) -> io::Result<u64>;
}

/// Where a shipment starts.
#[derive(Debug)]
pub enum Start {
    /// With the record after this one.
    Tail {
        /// The last record that the standby has.
        after: u64,
    },
    /// With a snapshot.
    Snapshot {
        /// Up to this record both logs are the same.
        common: u64,
        /// The log up to what the store has now.
        history: History,
        /// Where pieces are cut from.
        store: Arc<RwLock<Store>>,
    },
}

impl Start {
    fn after(&self) -> u64 {
        match self {
            Self::Tail { after } => *after,
            Self::Snapshot { history, .. } => history.head(),
        }
    }
}

/// A standby that is being shipped to. Dropping it ends the stream.
#[derive(Debug)]
pub struct Shipment {
    stream: Wire,
    ended: Arc<AtomicBool>,
    feed: Feed,
    /// The first record it still needs from the files; `u64::MAX` once it lives from the feed.
    needs: Arc<std::sync::atomic::AtomicU64>,
}

impl Shipment {
    /// The first record that must stay on the disk for it.
    #[must_use]
    pub fn needs(&self) -> u64 {
        self.needs.load(Ordering::Acquire)
    }
}

impl Drop for Shipment {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.stream.shutdown();
        self.feed.wake();
    }
}

/// A standby that came, and the mastership in which it is shipped to.
#[derive(Debug)]
pub struct Standby {
    /// Its number.
    pub connection: u64,
    /// The mastership.
    pub epoch: Epoch,
    /// Its connection.
    pub stream: Wire,
    /// It reads the files itself, and is told how far they go.
    pub directory: bool,
}

/// Begins to ship. `files` reads the log from the record after the start on.
///
/// # Errors
/// When the threads cannot be started.
pub fn ship(
    standby: Standby,
    start: Start,
    feed: &Feed,
    files: Box<dyn LogReader>,
    events: mpsc::Sender<RedoEvent>,
) -> io::Result<Shipment> {
    let Standby { connection, epoch, stream, directory } = standby;
    stream.set_nodelay()?;
    stream.set_write_timeout(WRITE_WITHIN)?;
    let ended = Arc::new(AtomicBool::new(false));
    let needs = Arc::new(std::sync::atomic::AtomicU64::new(start.after() + 1));
    let listening = stream.reader()?;
    std::thread::Builder::new()
        .name("redo acks".to_owned())
        .spawn(move || listen(connection, listening, &events))?;
    let shipper = Shipper {
        connection,
        epoch,
        out: BufWriter::with_capacity(64 * 1024, stream.writer()?),
        feed: feed.clone(),
        files,
        directory,
        ended: ended.clone(),
        needs: needs.clone(),
    };
    let ending = stream.try_clone()?;
    std::thread::Builder::new().name("redo ship".to_owned()).spawn(move || {
        let ended = shipper.ended.clone();
        if let Err(why) = shipper.run(start)
            && !ended.load(Ordering::Acquire)
        {
            tracing::info!(connection, %why, "redo stream to the peer ends");
        }
        // The listening thread sees the end and tells it.
        ending.shutdown();
    })?;
    Ok(Shipment { stream, ended, feed: feed.clone(), needs })
}

fn listen(connection: u64, stream: WireReader, events: &mpsc::Sender<RedoEvent>) {
    let mut input = BufReader::new(stream);
    let why = loop {
        match frame::read_held(&mut input) {
            Ok(number) => {
                let event = RedoEvent::FollowerHolds { connection, number };
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
            Err(error) => break error.to_string(),
        }
    };
    let _ = events.blocking_send(RedoEvent::FollowerGone { connection, why });
}

struct Shipper {
    connection: u64,
    epoch: Epoch,
    out: BufWriter<WireWriter>,
    feed: Feed,
    files: Box<dyn LogReader>,
    directory: bool,
    ended: Arc<AtomicBool>,
    needs: Arc<std::sync::atomic::AtomicU64>,
}

impl Shipper {
    fn run(mut self, start: Start) -> io::Result<()> {
        let after = start.after();
        match start {
            Start::Tail { after } => frame::write_tail(&mut self.out, self.epoch, after)?,
            Start::Snapshot { common, history, store } => {
                frame::write_load(&mut self.out, self.epoch, common)?;
                self.send_snapshot(history, &store)?;
            }
        }
        self.out.flush()?;
        self.send_log(after)
    }

    fn send_snapshot(&mut self, history: History, store: &RwLock<Store>) -> io::Result<()> {
        tracing::info!(
            connection = self.connection,
            after = history.head(),
            "sending a snapshot to the peer"
        );
        frame::write_piece(&mut self.out, &Piece::Begin { history })?;
        let mut cursor = Cursor::default();
        while !self.ended.load(Ordering::Acquire) {
            // Locked for one piece; the master goes on in between.
            let piece = store.read().unwrap_or_else(PoisonError::into_inner).cut(&mut cursor);
            match piece {
                Some(piece) => frame::write_piece(&mut self.out, &piece)?,
                None => {
                    let until = self.feed.head();
                    frame::write_piece(&mut self.out, &Piece::End { until })?;
                    return self.out.flush();
                }
            }
        }
        Ok(())
    }

    fn send_log(&mut self, mut after: u64) -> io::Result<()> {
        let (mut digests_seen, mut from_files) = (0, true);
        while !self.ended.load(Ordering::Acquire) {
            match self.feed.next(after, digests_seen, LOOK_AGAIN) {
                Next::Records(_, last) | Next::Gone(last) if self.directory => {
                    frame::write_grown(&mut self.out, last)?;
                    after = last;
                }
                Next::Records(batches, last) => {
                    from_files = false;
                    self.needs.store(u64::MAX, Ordering::Release);
                    match &batches[..] {
                        [one] => frame::write_records(&mut self.out, one)?,
                        many => {
                            let parts: Vec<&[u8]> = many.iter().map(|b| b.as_slice()).collect();
                            frame::write_records(&mut self.out, &parts.concat())?;
                        }
                    }
                    after = last;
                }
                Next::Digests(number, round, digests) => {
                    digests_seen = round;
                    frame::write_digests(&mut self.out, number, &digests)?;
                }
                Next::Gone(head) if from_files => {
                    let mut bytes = Vec::with_capacity(READ_BYTES * 2);
                    let last = self.files.read(head, READ_BYTES, &mut bytes)?;
                    if last > after {
                        frame::write_records(&mut self.out, &bytes)?;
                        after = last;
                        self.needs.store(after + 1, Ordering::Release);
                    } else {
                        return Err(io::Error::other(format!(
                            "record {} is neither in memory nor in the redo files",
                            after + 1
                        )));
                    }
                }
                Next::Gone(_) => {
                    return Err(io::Error::other("the peer is too slow for what is in memory"));
                }
                Next::Nothing => {}
            }
            self.out.flush()?;
        }
        Ok(())
    }
}
