//! A pair on a ZooKeeper of its own whose tables are used and judged: what tests of the tables share.
//!
//! Everything that is done to it is noted as a fault, with when the process was gone, so that the
//! checker knows what to expect. A fault is noted only after it was seen to have happened.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use hotpair_lab::certificates::Certificates;
use hotpair_lab::checker::{Enough, Fault, History, Report, Request, check_run};
use hotpair_lab::load::now_ns;
use hotpair_lab::node::{Pair, hotpair};
use hotpair_lab::request_log::RequestLog;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::session::{Patience, Session, Target, User, targets};
use hotpair_lab::table_load::{Plan, TableLoad};
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::json;

use crate::relay::Relay;
use crate::steps::{LIMIT, argument, settled};

/// What kind of pair.
#[derive(Debug, Clone)]
pub struct Options {
    /// ZooKeeper's session time-out.
    pub session_timeout: Duration,
    /// Whether the link goes through relays, to be cut.
    pub relays: bool,
    /// Run this program instead of the product's.
    pub binary: Option<PathBuf>,
    /// Run the binary that knows the planted bugs, with this one or with none.
    pub planted: Option<Planted>,
    /// Set in the environment of both nodes.
    pub environment: Vec<(String, String)>,
    /// Both nodes speak TLS, with certificates in [`TableLab::certificates`].
    pub tls: bool,
    /// TOML for the configuration of each node.
    pub more: [String; 2],
}

/// Which bug the planted binary has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// None: the same binary, honest.
    Nothing,
    /// The one of this name.
    Bug(&'static str),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(2),
            relays: false,
            binary: None,
            planted: None,
            environment: Vec::new(),
            tls: false,
            more: [String::new(), String::new()],
        }
    }
}

/// The pair with everything around it.
#[derive(Debug)]
pub struct TableLab {
    /// The nodes.
    pub pair: Pair,
    /// What they speak TLS with.
    pub certificates: Option<Certificates>,
    /// Their ZooKeeper.
    pub zookeeper: ZooKeeper,
    /// In front of each node's link, if asked for.
    pub relays: Vec<Relay>,
    /// What was done so far.
    pub faults: Vec<Fault>,
    /// Who logs in.
    pub user: User,
    log: Arc<RequestLog>,
    scratch: Scratch,
}

impl TableLab {
    /// Starts the pair, and waits until it is in peace and in sync.
    pub fn new(options: &Options) -> Result<Self> {
        let scratch = Scratch::new("table-lab")?;
        let user = User { name: "tester".to_owned(), password: "a password".to_owned() };
        let users = users_file(&scratch.join("users.toml"), &user)?;
        let zookeeper = ZooKeeper::standalone()?;
        let mut pair = Pair::here(&zookeeper.addresses())?;
        let mut relays = Vec::new();
        if options.relays {
            for node in [1, 0] {
                let relay = Relay::closed(pair.nodes[node].settings.link)?;
                relay.open()?;
                pair.nodes[1 - node].settings.peer_link = relay.address();
                relays.push(relay);
            }
        }
        for (node, more) in pair.nodes.iter_mut().zip(&options.more) {
            node.settings.session_timeout = options.session_timeout;
            node.settings.more = format!(
                "{}{more}[sessions]\nusers_file = {users:?}\npublishers = [{:?}]\n",
                node.settings.more, user.name
            );
            node.environment.clone_from(&options.environment);
            node.binary.clone_from(&options.binary);
            if options.planted.is_some() {
                node.binary = Some(hotpair_lab::node::planted_hotpair()?);
            }
        }
        let certificates = if options.tls { Some(secure(&mut pair, &scratch)?) } else { None };
        let log = Arc::new(RequestLog::create(&scratch.join("requests.jsonl"))?);
        let faults = Vec::new();
        let mut lab = Self { pair, certificates, zookeeper, relays, faults, user, log, scratch };
        if let Some(planted) = options.planted {
            lab.plant(planted);
        }
        lab.pair.start()?;
        lab.in_sync()?;
        Ok(lab)
    }

    /// Both nodes have this bug from their next start on.
    pub fn plant(&mut self, planted: Planted) {
        for node in &mut self.pair.nodes {
            node.environment.retain(|(name, _)| name != PLANTED_BUG);
            if let Planted::Bug(bug) = planted {
                node.environment.push((PLANTED_BUG.to_owned(), bug.to_owned()));
            }
        }
    }

    /// Waits until one serves, the other one stands by and holds everything; who serves.
    pub fn in_sync(&self) -> Result<usize> {
        settled(&self.pair)
    }

    /// Waits until somebody serves.
    pub fn master(&self) -> Result<usize> {
        self.pair.wait_for_master(LIMIT)
    }

    /// The epoch that this node serves or knows.
    pub fn epoch(&self, node: usize) -> Result<u64> {
        Ok(self.pair.nodes[node].role()?.epoch)
    }

    /// The token of a new session, by whoever serves.
    pub fn token(&self) -> Result<String> {
        let body = json!({"user": self.user.name, "password": self.user.password});
        eventually(LIMIT, "a session", || {
            let answer = self.pair.nodes[self.master()?].client().post("/v1/login", &body)?;
            let answer = answer.json()?;
            let token = answer["data"]["session"].as_str();
            Ok(token.with_context(|| format!("no session in {answer}"))?.to_owned())
        })
    }

    /// A session of its own, with its attempts limited so, and with the patience it was given.
    pub fn session(
        &self,
        client: &str,
        attempt_limit: Duration,
    ) -> Result<(Session, Arc<Patience>)> {
        let patience = Arc::new(Patience::default());
        patience.ends_in(LIMIT);
        let (targets, log) = (targets(&self.pair, attempt_limit), Arc::clone(&self.log));
        let session = Session::login(client, &self.user, targets, log, Arc::clone(&patience))?;
        Ok((session, patience))
    }

    /// Starts clients.
    pub fn start_load(&self, plan: &Plan) -> Result<TableLoad> {
        TableLoad::start(&targets(&self.pair, ATTEMPT_LIMIT), plan, &self.log)
    }

    /// Starts clients that know these targets only.
    pub fn start_load_at(&self, targets: &[Target], plan: &Plan) -> Result<TableLoad> {
        TableLoad::start(targets, plan, &self.log)
    }

    /// Notes something that has happened since then.
    pub fn note(&mut self, name: &str, at_ns: i64) {
        self.faults.push(Fault {
            name: name.to_owned(),
            at_ns,
            until_ns: now_ns(),
            ended: None,
            gone_ns: None,
        });
    }

    /// Kills a node.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let at_ns = now_ns();
        self.pair.nodes[node].kill()?;
        let gone_ns = now_ns();
        let ended = Some(self.pair.nodes[node].settings.node.clone());
        let name = "kill".to_owned();
        let gone = Some(gone_ns);
        self.faults.push(Fault { name, at_ns, until_ns: gone_ns, ended, gone_ns: gone });
        Ok(())
    }

    /// Starts a killed node; does not wait.
    pub fn start(&mut self, node: usize) -> Result<()> {
        self.pair.nodes[node].start()
    }

    /// Freezes a node for so long, or until it is thawed.
    pub fn freeze(&mut self, node: usize) -> Result<()> {
        let node = &mut self.pair.nodes[node];
        node.freeze()?;
        eventually(LIMIT, "the process is frozen", || {
            ensure!(node.process()?.is_frozen()?, "it runs");
            Ok(())
        })
    }

    /// Lets a frozen node run on.
    pub fn thaw(&mut self, node: usize) -> Result<()> {
        self.pair.nodes[node].thaw()
    }

    /// Has the mastership moved in order, and waits until the other one serves.
    pub fn switch_over(&mut self) -> Result<()> {
        eventually(LIMIT, "the master takes the order to switch", || {
            let master = self.in_sync()?;
            let epoch = self.epoch(master)?;
            let order = serde_json::json!({"dry_run": false});
            let admin = self.pair.nodes[master].admin().with_limit(LIMIT);
            let answer = admin.post("/switchover", &order)?;
            ensure!(answer.status == 200, "{answer:?}");
            eventually(LIMIT, "the other one serves", || {
                let role = self.pair.nodes[1 - master].role()?;
                ensure!(role.serving && role.epoch > epoch, "{role:?}");
                Ok(())
            })
        })
    }

    /// Nothing passes between the nodes any more.
    pub fn hold_link(&self) {
        self.relays.iter().for_each(Relay::hold);
    }

    /// What was held back is lost, and what comes from now on passes.
    pub fn sever_link(&self) {
        self.relays.iter().for_each(Relay::sever);
        self.relays.iter().for_each(Relay::release);
    }

    /// What was held back passes, and everything else.
    pub fn release_link(&self) {
        self.relays.iter().for_each(Relay::release);
    }

    /// Everything that was logged so far.
    pub fn requests(&self) -> Result<Vec<Request>> {
        self.log.read()
    }

    /// Ends both nodes in order and judges what happened.
    pub fn judge(&mut self, requests: Vec<Request>, enough: &Enough) -> Result<Report> {
        for node in &mut self.pair.nodes {
            // One that a test left dead has nothing more to say.
            if node.process().is_ok() {
                node.stop(LIMIT)?;
            }
        }
        let (gates, faults) = (self.pair.gates()?, self.faults.clone());
        Ok(check_run(&History { requests, gates, faults }, enough))
    }

    /// Copies logs, journals and histories to where they can be looked at later; the folder.
    pub fn keep(&self, name: &str) -> Result<PathBuf> {
        let folder = env::temp_dir().join(format!("hotpair-kept-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let faults: Vec<String> =
            self.faults.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        fs::write(folder.join("faults.jsonl"), faults.join("\n"))?;
        // Flushed by whoever reads it.
        let _ = self.log.read();
        copy(&self.scratch.join("requests.jsonl"), &folder.join("requests.jsonl"));
        for node in &self.pair.nodes {
            let name = &node.settings.node;
            copy(&node.folder().join("log"), &folder.join(format!("{name}.log")));
            for file in ["journal.jsonl", "gates.jsonl"] {
                let from = node.settings.directory.join(file);
                copy(&from, &folder.join(format!("{name}.{file}")));
            }
        }
        Ok(folder)
    }

    /// The last lines of both nodes' logs.
    pub fn tails(&mut self) -> String {
        let tail = |node: &mut hotpair_lab::node::Node| {
            let log = fs::read(node.folder().join("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            format!("--- end of the log of node {}\n{last}\n", node.settings.node)
        };
        self.pair.nodes.iter_mut().map(tail).collect()
    }
}

/// What was never made cannot be kept.
fn copy(from: &Path, to: &Path) {
    let _ = fs::copy(from, to);
}

/// A file with this user, made by the product's own command.
pub fn users_file(path: &Path, user: &User) -> Result<String> {
    let mut child = Command::new(hotpair()?)
        .args(["user", "add", &user.name, "--file", argument(path)?])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run hotpair user add")?;
    let mut input = child.stdin.take().context("its input is ours")?;
    // A command that ends before it has read everything says why at its end.
    let _ = writeln!(input, "{}", user.password);
    drop(input);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("hotpair user add ended with {}: {said}", output.status);
    }
    Ok(argument(path)?.to_owned())
}

/// Longer than any answer of a pair that is well, shorter than a takeover.
pub const ATTEMPT_LIMIT: Duration = Duration::from_millis(500);
const PLANTED_BUG: &str = "HOTPAIR_PLANTED_BUG";
const TAIL_LINES: usize = 40;

/// Gives both nodes certificates for their address and the pair's name.
fn secure(pair: &mut Pair, scratch: &Scratch) -> Result<Certificates> {
    let certificates = Certificates::new(&scratch.join("certificates"))?;
    for node in &mut pair.nodes {
        let (name, address) = (node.settings.node.clone(), node.settings.client.ip().to_string());
        certificates.issue(&name, &[&address, &node.settings.pair])?;
        node.settings.more.push_str(&certificates.section(&name));
    }
    Ok(certificates)
}
