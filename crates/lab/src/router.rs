//! A real `hotpair router` in front of a pair, as a child process.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::Http;
use crate::node::{Pair, TOKEN, hotpair};
use crate::place::Place;
use crate::port::Port;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::session::{Codes, Target};
use crate::wait::eventually;

/// One router's process with everything that belongs to it.
#[derive(Debug)]
pub struct Router {
    /// TOML appended as it is, from the next start on: `[hold]`, `[limits]`.
    pub more: String,
    pair: String,
    nodes: Vec<(String, SocketAddr, SocketAddr)>,
    client: SocketAddr,
    admin: SocketAddr,
    process: Option<Process>,
    // After the process, which writes there.
    scratch: Scratch,
    /// Reserved for the router's whole life.
    _ports: [Port; 2],
}

impl Router {
    /// A router before this pair, on loopback; not started.
    pub fn before(pair: &Pair) -> Result<Self> {
        let ports = [Port::reserve()?, Port::reserve()?];
        let nodes = pair
            .nodes
            .iter()
            .map(|node| (node.settings.node.clone(), node.settings.client, node.settings.admin));
        Ok(Self {
            more: String::new(),
            pair: pair.nodes[0].settings.pair.clone(),
            nodes: nodes.collect(),
            client: ports[0].address(),
            admin: ports[1].address(),
            process: None,
            scratch: Scratch::new("router")?,
            _ports: ports,
        })
    }

    /// Starts it and waits until its admin HTTP answers.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the router runs already");
        let token = self.scratch.write_secret("read.token", TOKEN)?;
        let mut text = format!("pair = {:?}\n", self.pair);
        let quoted = |text: &dyn ToString| format!("{:?}", text.to_string());
        let (client, admin) = (quoted(&self.client), quoted(&self.admin));
        write!(text, "[listen]\nclient = {client}\nadmin = {admin}\n")?;
        for (name, client, admin) in &self.nodes {
            let (client, admin) = (quoted(client), quoted(admin));
            write!(text, "[[nodes]]\nname = {name:?}\nclient = {client}\nadmin = {admin}\n")?;
        }
        write!(text, "[admin]\nread_token_file = {:?}\n", token.display().to_string())?;
        text.push_str(&self.more);
        let config = self.scratch.write("config.toml", text)?;
        let mut command = Command::new(hotpair()?);
        command.arg("router").arg("--config").arg(config);
        let process = Process::start("the router", &mut command, &self.scratch.join("log"))?;
        self.process = Some(process);
        let answered = eventually(START_LIMIT, "the router answers", || self.status().map(drop));
        self.process()?.ensure_running()?;
        answered
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Ends it in order (SIGTERM); how it ended.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = self.process()?.terminate(limit)?;
        self.process = None;
        Ok(status)
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the router was not started")
    }

    /// The clients' HTTP.
    #[must_use]
    pub fn client(&self) -> Http {
        Http::new(Place::Here, self.client)
    }

    /// `host:port` for clients that come by themselves.
    #[must_use]
    pub fn address(&self) -> String {
        self.client.to_string()
    }

    /// The router as clients see it, each attempt with this limit.
    #[must_use]
    pub fn target(&self, attempt_limit: Duration, codes: &Arc<Codes>) -> Target {
        let http = self.client().with_limit(attempt_limit);
        Target { name: None, http, codes: Arc::clone(codes) }
    }

    /// The operators' HTTP.
    #[must_use]
    pub fn admin(&self) -> Http {
        Http::new(Place::Here, self.admin)
    }

    /// What it says of itself.
    pub fn status(&self) -> Result<Value> {
        self.admin().get_json("/status")
    }

    /// Waits until its status is as wished.
    pub fn wait_for(&self, what: &str, wish: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(START_LIMIT, &format!("the router {what}"), || {
            let status = self.status()?;
            ensure!(wish(&status), "{status}");
            Ok(status)
        })
    }
}

/// A cold start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
