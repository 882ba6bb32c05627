//! A tables thread for tests: the real writer, and releases that the test may hold back.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, RwLock};

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::Verdict;
use hotpair_core::tables::store::Store;
use hotpair_core::tables::writer::Writer;
use tokio::sync::mpsc;

use crate::tables::Submission;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Everything is acknowledged at once.
    Release,
    /// What comes is committed, and not acknowledged.
    Hold,
    /// The mastership is over.
    Abandon,
}

pub(super) struct WriterThread {
    mode: Arc<(Mutex<Mode>, Condvar)>,
}

impl WriterThread {
    /// Runs as long as somebody may submit.
    pub(super) fn start(store: Arc<RwLock<Store>>, mut queue: mpsc::Receiver<Submission>) -> Self {
        let mode = Arc::new((Mutex::new(Mode::Release), Condvar::new()));
        let ordered = Arc::clone(&mode);
        std::thread::spawn(move || {
            let mut writer = Writer::new(Epoch(7), 1, 1, &store.read().unwrap());
            let mut waiting = BTreeMap::new();
            let mut ticket = 0;
            while let Some(first) = queue.blocking_recv() {
                let mut next = Some(first);
                while let Some(Submission { mut request, answer, .. }) = next {
                    ticket += 1;
                    request.ticket = ticket;
                    match writer.submit(&store.read().unwrap(), request) {
                        Some(verdict) => drop(answer.send(verdict)),
                        None => drop(waiting.insert(ticket, answer)),
                    }
                    next = queue.try_recv().ok();
                }
                let _shipped = writer.take_batch();
                let (mode, changed) = &*ordered;
                let mode =
                    changed.wait_while(mode.lock().unwrap(), |mode| *mode == Mode::Hold).unwrap();
                if *mode == Mode::Abandon {
                    for (_, answer) in waiting {
                        let _ = answer.send(Verdict::Superseded);
                    }
                    return;
                }
                let mut verdicts = Vec::new();
                let head = writer.head();
                writer.release(head, &mut store.write().unwrap(), &mut verdicts);
                for (ticket, verdict) in verdicts {
                    if let Some(answer) = waiting.remove(&ticket) {
                        let _ = answer.send(verdict);
                    }
                }
            }
        });
        Self { mode }
    }

    pub(super) fn set(&self, mode: Mode) {
        *self.mode.0.lock().unwrap() = mode;
        self.mode.1.notify_all();
    }
}

/// Lets the thread end.
impl Drop for WriterThread {
    fn drop(&mut self) {
        self.set(Mode::Release);
    }
}
