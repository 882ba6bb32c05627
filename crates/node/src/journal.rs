//! The journal: every event with its cause, one JSON line each, in the data directory.
//!
//! The control thread must never wait for a disk, so a thread of its own writes, from a queue with
//! a bound. What does not fit is counted, and the next line says how many are missing.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use serde_json::{Value, json};

use hotpair_core::pair::reason::Event;

use crate::boot_clock;
use crate::writer::Writer;

/// Lines that may wait to be written.
const LINES_MAX: usize = 4_096;

/// The near end of the journal, for the control thread.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    lines: SyncSender<String>,
    missing: Arc<AtomicU64>,
}

impl Journal {
    /// Opens the file for appending and starts its thread.
    pub(crate) fn open(path: PathBuf) -> std::io::Result<(Self, Writer)> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let (lines, queue): (SyncSender<String>, Receiver<String>) = sync_channel(LINES_MAX);
        let missing = Arc::new(AtomicU64::new(0));
        let skipped = missing.clone();
        let writer = Writer::start("journal", move || {
            for mut line in queue {
                let lost = skipped.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    line.push_str(&format!("\n{}", json!({"event": "missing", "lines": lost})));
                }
                line.push('\n');
                if let Err(error) = file.write_all(line.as_bytes()) {
                    tracing::warn!(file = %path.display(), %error, "journal line not written");
                }
            }
        })?;
        Ok((Self { lines, missing }, writer))
    }

    /// Appends a line, or counts it as missing. Never waits.
    pub(crate) fn append(&self, line: &Value) {
        match self.lines.try_send(line.to_string()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.missing.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Appends an event of the pair.
    pub(crate) fn record(&self, node: &str, event: &Event) {
        let mut line = describe(event);
        line["node"] = node.into();
        line["at_ms"] = boot_clock::wall_ms().into();
        line["boot_ns"] = boot_clock::now_ns().into();
        self.append(&line);
    }
}

/// An event as the journal's JSON.
pub(crate) fn describe(event: &Event) -> Value {
    match event {
        Event::RoleChanged { from, to, epoch, reason } => json!({
            "event": "role", "from": from.to_string(), "to": to.to_string(),
            "epoch": epoch.0, "cause": reason.label(), "text": reason.to_string(),
        }),
        Event::PhaseReached { epoch, phase, after_ms } => json!({
            "event": "phase", "epoch": epoch.0, "phase": phase.as_str(), "ms": after_ms,
        }),
        Event::StandingChanged { text } => json!({"event": "standing", "text": text}),
        Event::Guarded { guard } => json!({"event": "guard", "text": guard}),
        Event::PeerChanged { text } => json!({"event": "peer", "text": text}),
        Event::CoordinatorChanged { text } => json!({"event": "coordinator", "text": text}),
        Event::Stalled { for_ms } => json!({"event": "stall", "ms": for_ms}),
        Event::Ordered { text } => json!({"event": "order", "text": text}),
    }
}
