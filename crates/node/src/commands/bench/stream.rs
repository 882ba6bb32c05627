//! The stream of a node's views, read as they come: the moment a node says that it serves is the
//! moment the line arrives, with no polling in between.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hotpair_lab::load::now_ns;
use serde_json::Value;

/// One view and when it arrived (CLOCK_BOOTTIME, ns).
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) at_ns: i64,
    pub(super) view: Value,
}

/// A running reader; its thread ends with the connection.
#[derive(Debug)]
pub(super) struct Views {
    seen: Receiver<Seen>,
}

impl Views {
    /// Connects to the admin HTTP of a node and reads from now on.
    pub(super) fn of(admin: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(admin)
            .with_context(|| format!("no connection to {admin} for its views"))?;
        write!(stream, "GET /events HTTP/1.1\r\nHost: {admin}\r\n\r\n")?;
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                if let Some(data) = line.strip_prefix("data:")
                    && let Ok(view) = serde_json::from_str(data.trim())
                    && sender.send(Seen { at_ns: now_ns(), view }).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { seen })
    }

    /// When the node was first heard to serve in an epoch above this one.
    pub(super) fn wait_serving(&self, above: u64, limit: Duration) -> Result<i64> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(seen) = self.seen.recv_timeout(left) else {
                bail!("the node was not heard to serve above epoch {above} within {limit:?}");
            };
            if seen.view["serving"] == true && seen.view["epoch"].as_u64() > Some(above) {
                return Ok(seen.at_ns);
            }
        }
    }
}
