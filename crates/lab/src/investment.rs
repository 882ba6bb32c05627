//! The stand-in for the external investment system as a child process: `hotpair-investment-system`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::http::Http;
use crate::node::built_beside;
use crate::place::Place;
use crate::port::Port;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wait::eventually;

/// A running stand-in, or one that was killed; its log and its ports stay.
#[derive(Debug)]
pub struct InvestmentSystem {
    process: Option<Process>,
    // After the process, which writes there.
    scratch: Scratch,
    http: Port,
    /// With its certificate and key, if it has some.
    https: Option<(Port, PathBuf, PathBuf)>,
    publish: Port,
}

/// One line of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Whose.
    pub user_token: String,
    /// When, in milliseconds of wall clock since 1970.
    pub at_ms: u64,
    /// What it was answered.
    pub status: u64,
}

impl InvestmentSystem {
    /// Starts one and waits until it answers.
    pub fn start() -> Result<Self> {
        let mut system = Self::make()?;
        system.start_again()?;
        Ok(system)
    }

    /// One that is not started yet.
    pub fn make() -> Result<Self> {
        Ok(Self {
            process: None,
            scratch: Scratch::new("investment-system")?,
            http: Port::reserve()?,
            https: None,
            publish: Port::reserve()?,
        })
    }

    /// From its next start on it is asked over TLS, and is who this certificate says.
    pub fn secure(&mut self, certificates: &Certificates, name: &str) -> Result<()> {
        let port = match self.https.take() {
            Some((port, ..)) => port,
            None => Port::reserve()?,
        };
        let (certificate, key) = (certificates.file(name, "pem"), certificates.file(name, "key"));
        self.https = Some((port, certificate, key));
        Ok(())
    }

    /// Starts it again after a kill: at the same ports, without its tokens.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the investment system runs already");
        let mut command = Command::new(built_beside("hotpair-investment-system", "hotpair-lab")?);
        command.arg("--http").arg(self.http.address().to_string());
        command.arg("--publish").arg(self.publish.address().to_string());
        command.arg("--log").arg(self.log_file());
        if let Some((port, certificate, key)) = &self.https {
            command.arg("--https").arg(port.address().to_string());
            command.arg("--certificate").arg(certificate).arg("--key").arg(key);
        }
        let log = self.scratch.join("output");
        self.process = Some(Process::start("the investment system", &mut command, &log)?);
        eventually(LIMIT, "the investment system answers", || self.state().map(drop))
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the investment system was not started")?;
        process.kill()
    }

    /// Where it publishes, as a dataset's `feed`.
    #[must_use]
    pub fn feed(&self) -> String {
        format!("zmq://{}", self.publish.address())
    }

    /// The port that a publisher of another make may take in its place while it does not run.
    #[must_use]
    pub fn publish_address(&self) -> SocketAddr {
        self.publish.address()
    }

    /// The `[upstream]` of a node that uses it.
    #[must_use]
    pub fn upstream(&self, interval: Duration) -> String {
        let at = match &self.https {
            Some((port, ..)) => format!("https://{}", port.address()),
            None => format!("http://{}", self.http.address()),
        };
        format!(
            "[upstream]\nlogin = \"{at}/login\"\nheartbeat = \"{at}/heartbeat\"\n\
             interval = \"{}ms\"\n",
            interval.as_millis()
        )
    }

    /// Tells it how to behave; see the program's header.
    pub fn control(&self, orders: &Value) -> Result<()> {
        self.order("/control", orders)
    }

    /// Publishes these rows as they are.
    pub fn publish(&self, rows: &Value) -> Result<()> {
        self.order("/publish", rows)
    }

    /// What it has done.
    pub fn state(&self) -> Result<Value> {
        self.speak().get_json("/state")
    }

    /// Waits until so many follow its PUB.
    pub fn wait_for_subscribers(&self, count: u64) -> Result<()> {
        eventually(LIMIT, "the feed is subscribed", || {
            let state = self.state()?;
            ensure!(state["subscribers"] == count, "{state}");
            Ok(())
        })
    }

    /// All heartbeats so far, of all its lives.
    pub fn beats(&self) -> Result<Vec<Beat>> {
        let text = fs::read_to_string(self.log_file())?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let beat = |line: Value| {
            (line["event"] == "heartbeat").then(|| Beat {
                user_token: line["user_token"].as_str().unwrap_or_default().to_owned(),
                at_ms: line["at_ms"].as_u64().unwrap_or(0),
                status: line["status"].as_u64().unwrap_or(0),
            })
        };
        Ok(lines.filter_map(beat).collect())
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.join("log.jsonl")
    }

    fn speak(&self) -> Http {
        Http::new(Place::Here, self.http.address()).with_limit(Duration::from_secs(10))
    }

    fn order(&self, path: &str, body: &Value) -> Result<()> {
        let answer = self.speak().post(path, body)?;
        ensure!(answer.status == 200, "{path}: {}", answer.body);
        Ok(())
    }
}

/// How many sessions had a heartbeat that was taken at this moment or later.
pub fn heard_since(beats: &[Beat], since_ms: u64) -> Result<usize> {
    let heard = beats.iter().filter(|beat| beat.at_ms >= since_ms && beat.status == 200);
    Ok(heard.map(|beat| beat.user_token.as_str()).collect::<BTreeSet<&str>>().len())
}

/// Rows for [`InvestmentSystem::control`]: `count` keys `aN`, `iN`.
#[must_use]
pub fn positions(count: usize) -> Value {
    let row = |number| json!({"account": format!("a{number}"), "instrument": format!("i{number}")});
    (0..count).map(row).collect()
}

const LIMIT: Duration = Duration::from_secs(30);
