//! `hotpair-stand-in`: speaks to systemd as the node does, and does nothing else.
//!
//! It proves that the test harness sees what it should see (not active before ready, watchdog,
//! ExecStopPost) before the node is blamed or praised. `node` says READY=1 after
//! `STAND_IN_READY_AFTER_MS` and then feeds the watchdog; `release` leaves a line in the state folder.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;
use std::{env, process};

use anyhow::{Context, Result, bail};
use sd_notify::NotifyState;

fn main() -> Result<()> {
    match env::args().nth(1).as_deref() {
        Some("node") => node(),
        Some("release") => release(),
        other => bail!("hotpair-stand-in knows node and release, not {other:?}"),
    }
}

fn node() -> Result<()> {
    let delay = env::var("STAND_IN_READY_AFTER_MS").ok().and_then(|text| text.parse().ok());
    sleep(Duration::from_millis(delay.unwrap_or(500)));
    sd_notify::notify(&[NotifyState::Ready])?;
    let interval = sd_notify::watchdog_enabled().context("no watchdog was asked for")? / 3;
    loop {
        sd_notify::notify(&[NotifyState::Watchdog])?;
        sleep(interval);
    }
}

fn release() -> Result<()> {
    let folder = PathBuf::from(env::var_os("STATE_DIRECTORY").context("no state directory")?);
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join("released"))?;
    // Why systemd ran us: success, watchdog, signal ...
    let result = env::var("SERVICE_RESULT").unwrap_or_default();
    writeln!(file, "{result} {}", process::id())?;
    Ok(())
}
