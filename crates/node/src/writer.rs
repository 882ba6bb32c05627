//! Threads that write files, and waiting for them when the process ends.
//!
//! The control thread never waits for a disk, so it hands lines over; what it handed over last, why
//! the role ended, is what somebody will look for. So the process outlives its writers, but not for
//! ever: a disk that hangs must not keep a node from ending.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long the process waits at its end for everything to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// A thread that ends by itself once nobody hands it anything more and everything is written.
#[derive(Debug)]
pub(crate) struct Writer {
    name: &'static str,
    ended: Receiver<()>,
}

impl Writer {
    /// Starts the thread. `work` returns when its queue is empty and all senders are gone.
    pub(crate) fn start(
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (alive, ended) = sync_channel(0);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _alive = alive;
            work();
        })?;
        Ok(Self { name, ended })
    }
}

/// Waits until all of them have written what they were given, or patience is over.
pub(crate) fn wait_for(writers: &[Writer]) {
    let deadline = Instant::now() + PATIENCE;
    for writer in writers {
        let left = deadline.saturating_duration_since(Instant::now());
        if writer.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(file = writer.name, "not all lines were written: the disk is too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_writer_is_waited_for_until_its_last_line() {
        let (lines, queue) = channel::<u32>();
        let written = Arc::new(AtomicBool::new(false));
        let seen = written.clone();
        let writer = Writer::start("test", move || {
            for _ in queue {
                std::thread::sleep(Duration::from_millis(50));
                seen.store(true, Ordering::SeqCst);
            }
        })
        .unwrap();
        lines.send(1).unwrap();
        drop(lines);
        wait_for(&[writer]);
        assert!(written.load(Ordering::SeqCst));
    }
}
