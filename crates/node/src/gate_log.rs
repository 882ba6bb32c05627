//! The gate's own history on disk, one JSON line at each opening, extension and closing, for
//! whoever wants to check that two nodes' gates never were open together.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hotpair_gateway::GateLine;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::writer::Writer;

/// Lines that may wait to be written.
const LINES_MAX: usize = 1_024;

#[derive(Serialize)]
struct Line<'a> {
    node: &'a str,
    #[serde(flatten)]
    gate: GateLine,
}

/// Opens the file for appending and starts the thread that writes it.
pub(crate) fn start(path: &Path, node: &str) -> std::io::Result<(mpsc::Sender<GateLine>, Writer)> {
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let (lines, mut queue) = mpsc::channel(LINES_MAX);
    let (node, path) = (node.to_owned(), path.to_owned());
    let writer = Writer::start("gate log", move || {
        while let Some(gate) = queue.blocking_recv() {
            let line = serde_json::to_string(&Line { node: &node, gate });
            let mut line = line.expect("numbers and names make JSON");
            line.push('\n');
            if let Err(error) = file.write_all(line.as_bytes()) {
                tracing::warn!(file = %path.display(), %error, "gate log line not written");
            }
        }
    })?;
    Ok((lines, writer))
}
