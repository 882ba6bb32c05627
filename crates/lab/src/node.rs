//! A real `hotpair node` as a child process, with its configuration made here.
//!
//! The binary lies beside the running program or test (`target/debug/hotpair`, `target/release/hotpair`),
//! or is named by `HOTPAIR_BIN`. Cargo does not build another package's binary for a test, so where it is
//! missing we say which command builds it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::checker::{Gate, read_log};
use crate::http::Http;
use crate::nat::Behind;
use crate::network::{Host, Network};
use crate::place::Place;
use crate::port::Port;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wait::eventually;

/// The `hotpair` binary to test.
pub fn hotpair() -> Result<PathBuf> {
    if let Some(path) = env::var_os("HOTPAIR_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "HOTPAIR_BIN names {}, which is no file", path.display());
        return Ok(path);
    }
    built_beside("hotpair", "hotpair-node")
}

/// The same binary built with the bugs that tests plant (`make test` builds it first, as
/// `hotpair-planted` beside the other one), or the one named by `HOTPAIR_PLANTED_BIN`.
pub fn planted_hotpair() -> Result<PathBuf> {
    if let Some(path) = env::var_os("HOTPAIR_PLANTED_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "HOTPAIR_PLANTED_BIN names {}, no file", path.display());
        return Ok(path);
    }
    built_beside("hotpair-planted", "hotpair-node").context("`make planted` builds it")
}

/// A binary of this workspace, built with the same profile as the program that runs.
pub fn built_beside(name: &str, package: &str) -> Result<PathBuf> {
    let running = env::current_exe().context("a program knows where it lies")?;
    // A test is target/PROFILE/deps/TEST, a program target/PROFILE/PROGRAM.
    let folder = running.parent().context("a program lies in a folder")?;
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = profile.join(name);
    let release = if profile.ends_with("release") { " --release" } else { "" };
    ensure!(
        path.is_file(),
        "no {}; build it first: cargo build{release} -p {package} --bin {name}",
        path.display()
    );
    Ok(path)
}

/// The configuration of one node, as the fields of the TOML file that tests care for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Both nodes: the same.
    pub pair: String,
    /// The two nodes: different.
    pub node: String,
    /// Where the clients' HTTP listens.
    pub client: SocketAddr,
    /// Where the admin HTTP listens.
    pub admin: SocketAddr,
    /// Where the link listens.
    pub link: SocketAddr,
    /// The other node's link.
    pub peer_link: SocketAddr,
    /// The other node's admin HTTP.
    pub peer_admin: SocketAddr,
    /// ZooKeeper's servers.
    pub zookeeper: Vec<SocketAddr>,
    /// ZooKeeper's session timeout, T.
    pub session_timeout: Duration,
    /// The znode under which the pair lives.
    pub root: String,
    /// Whether to take over before the session ends.
    pub fast_takeover: bool,
    /// Where the node keeps what is its own.
    pub directory: PathBuf,
    /// Whether to say that plain text off loopback is meant (hosts in namespaces have no loopback in common).
    pub insecure: bool,
    /// TOML appended as it is: datasets, functions, whatever a test is about.
    pub more: String,
}

impl Settings {
    /// The text of the configuration file, with the token's file beside it.
    #[must_use]
    pub fn toml(&self, token_file: &Path) -> String {
        let quoted = |text: &str| format!("{text:?}");
        let servers: Vec<String> =
            self.zookeeper.iter().map(|server| quoted(&server.to_string())).collect();
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            if value.is_empty() {
                writeln!(text, "[{key}]")
            } else {
                writeln!(text, "{key} = {value}")
            }
            .expect("writing to a string does not fail");
        };
        line("pair", &quoted(&self.pair));
        line("node", &quoted(&self.node));
        line("listen", "");
        line("client", &quoted(&self.client.to_string()));
        line("admin", &quoted(&self.admin.to_string()));
        line("peer", &quoted(&self.link.to_string()));
        line("peer", "");
        line("address", &quoted(&self.peer_link.to_string()));
        line("admin", &quoted(&self.peer_admin.to_string()));
        line("coordinator", "");
        line("kind", &quoted("zookeeper"));
        line("coordinator.zookeeper", "");
        line("servers", &format!("[{}]", servers.join(", ")));
        line("session_timeout", &quoted(&format!("{}ms", self.session_timeout.as_millis())));
        line("root", &quoted(&self.root));
        line("fast_takeover", &self.fast_takeover.to_string());
        line("tables", "");
        line("directory", &quoted(&self.directory.to_string_lossy()));
        line("admin", "");
        line("token_file", &quoted(&token_file.to_string_lossy()));
        // One token for both: what tells them apart is tested where the tokens are the subject.
        line("read_token_file", &quoted(&token_file.to_string_lossy()));
        if self.insecure {
            line("tls", "");
            line("insecure", "true");
        }
        text.push_str(&self.more);
        text
    }
}

/// One node's process with everything that belongs to it.
#[derive(Debug)]
pub struct Node {
    /// What it was configured with; changes count from the next start on.
    pub settings: Settings,
    /// Set in the environment of its process.
    pub environment: Vec<(String, String)>,
    /// Another binary than [`hotpair`].
    pub binary: Option<PathBuf>,
    place: Place,
    /// None before the first start and after an end.
    process: Option<Process>,
    // After the process, which writes there.
    scratch: Scratch,
    /// Reserved for the node's whole life.
    _ports: Vec<Port>,
}

impl Node {
    /// Starts the node with its present settings; does not wait for it to be ready.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "node {} runs already", self.settings.node);
        let config = self.write_config()?;
        let mut command = self.command()?;
        command.arg("node").arg("--config").arg(config);
        let name = format!("node {}", self.settings.node);
        self.process = Some(Process::start(&name, &mut command, &self.scratch.join("log"))?);
        Ok(())
    }

    /// Starts the node and waits until its admin HTTP answers.
    pub fn start_and_wait(&mut self) -> Result<()> {
        self.start()?;
        let admin = self.admin();
        let answered =
            eventually(START_LIMIT, &format!("node {} answers", self.settings.node), || {
                admin.get_json("/role").map(drop)
            });
        self.process()?.ensure_running()?;
        answered
    }

    /// Runs another command of the binary at this node's place, with its configuration: its exit
    /// code and both outputs.
    pub fn run(&self, command: &str, arguments: &[&str]) -> Result<(i32, String, String)> {
        let config = self.write_config()?;
        let output = self
            .command()?
            .arg(command)
            .arg("--config")
            .arg(config)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run hotpair {command}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().context("ended by a signal")?;
        Ok((code, text(&output.stdout), text(&output.stderr)))
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Ends it in order (SIGTERM). An error, with its last words, if that is not how it ended.
    pub fn stop(&mut self, limit: Duration) -> Result<()> {
        let process = self.process()?;
        let status = process.terminate(limit)?;
        let said = process.log_tail();
        self.process = None;
        ensure!(status.success(), "node {} ended with {status}:\n{said}", self.settings.node);
        Ok(())
    }

    /// Freezes it (SIGSTOP).
    pub fn freeze(&mut self) -> Result<()> {
        self.process()?.freeze()
    }

    /// Lets it run on (SIGCONT).
    pub fn thaw(&mut self) -> Result<()> {
        self.process()?.thaw()
    }

    /// The running process; an error when it was never started or has been ended by us.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process
            .as_mut()
            .with_context(|| format!("node {} was not started", self.settings.node))
    }

    /// The admin HTTP, with the token.
    #[must_use]
    pub fn admin(&self) -> Http {
        Http::new(self.place.clone(), self.settings.admin).with_token(TOKEN)
    }

    /// The clients' HTTP.
    #[must_use]
    pub fn client(&self) -> Http {
        Http::new(self.place.clone(), self.settings.client)
    }

    /// What the node says of its role.
    pub fn role(&self) -> Result<Role> {
        Role::read(&self.admin().get_json("/role")?)
    }

    /// The names of the alerts that fire at this node.
    pub fn alerts(&self) -> Result<Vec<String>> {
        let answer = self.admin().get_json("/alerts")?;
        let list = answer["alerts"].as_array();
        let list = list.with_context(|| format!("no list of alerts in {answer}"))?;
        Ok(list.iter().filter_map(|alert| alert["name"].as_str()).map(str::to_owned).collect())
    }

    /// When its gate was open, as it wrote down itself from inside; nothing before the first opening.
    pub fn gates(&self) -> Result<Vec<Gate>> {
        let path = self.settings.directory.join("gates.jsonl");
        if path.exists() { read_log(&path) } else { Ok(Vec::new()) }
    }

    /// One call of a function by number; the envelope.
    pub fn call(&self, function: u32, arguments: &Value) -> Result<Value> {
        let body = serde_json::json!({"function": function, "arguments": arguments});
        self.client().post("/v1/call", &body)?.json()
    }

    /// Where the node runs.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The node's own folder (the log is `log`, the configuration `config.toml`).
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// The processor time that the process has used, user and system together.
    pub fn processor_time(&mut self) -> Result<Duration> {
        let id = self.process()?.id();
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name in brackets may hold spaces; the fields after it do not.
        let fields: Vec<&str> =
            stat.rsplit(')').next().context("a broken stat")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 1000 / CLOCK_TICKS_PER_SECOND))
    }

    fn command(&self) -> Result<Command> {
        let binary = self.binary.clone().map_or_else(hotpair, Ok)?;
        let binary = binary.to_str().context("the binary's path is not text")?;
        let mut command = self.place.command(binary);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn write_config(&self) -> Result<PathBuf> {
        let token_file = self.scratch.write_secret("admin.token", TOKEN)?;
        fs::create_dir_all(&self.settings.directory)?;
        self.scratch.write("config.toml", self.settings.toml(&token_file))
    }
}

/// What `/role` says, as far as tests care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The role machine's state.
    pub role: String,
    /// Whether the gate is open.
    pub serving: bool,
    /// The mastership's number, 0 when there never was one.
    pub epoch: u64,
}

impl Role {
    fn read(answer: &Value) -> Result<Self> {
        let missing = || format!("not a role: {answer}");
        Ok(Self {
            role: answer["role"].as_str().with_context(missing)?.to_owned(),
            serving: answer["serving"].as_bool().with_context(missing)?,
            epoch: answer["epoch"].as_u64().unwrap_or(0),
        })
    }
}

/// Two nodes that know each other.
#[derive(Debug)]
pub struct Pair {
    /// Nodes a and b.
    pub nodes: [Node; 2],
}

impl Pair {
    /// Two nodes on loopback with these ZooKeeper servers; not started.
    pub fn here(zookeeper: &[SocketAddr]) -> Result<Self> {
        let ports = (0..6).map(|_| Port::reserve()).collect::<Result<Vec<Port>>>()?;
        let mut sites = ports.chunks(3).map(|three| {
            let [client, admin, link] = [0, 1, 2].map(|index| three[index].address());
            Site { place: Place::Here, client, admin, link }
        });
        let sites = [sites.next().expect("the first three"), sites.next().expect("the second")];
        let mut pair = Self::at(sites, zookeeper)?;
        pair.nodes[0]._ports = ports;
        Ok(pair)
    }

    /// Two nodes on two hosts of a network, at the ports 7100 to 7102; not started.
    pub fn on(network: &Network, hosts: [Host; 2], zookeeper: &[SocketAddr]) -> Result<Self> {
        let sites = hosts.map(|host| Site {
            place: network.place(host),
            client: network.socket(host, 7100),
            admin: network.socket(host, 7101),
            link: network.socket(host, 7102),
        });
        Self::at(sites, zookeeper)
    }

    /// Two nodes behind routers, at the ports 7100 to 7102, which tell others how they are reached from
    /// outside; not started.
    pub fn behind(routers: &[Behind; 2], zookeeper: &[SocketAddr]) -> Result<Self> {
        let sites = routers.each_ref().map(|behind| Site {
            place: behind.place(),
            client: behind.own(7100),
            admin: behind.own(7101),
            link: behind.own(7102),
        });
        let mut pair = Self::at(sites, zookeeper)?;
        for (node, (own, peer)) in
            pair.nodes.iter_mut().zip([(&routers[0], &routers[1]), (&routers[1], &routers[0])])
        {
            node.settings.peer_link = peer.seen(7102);
            node.settings.peer_admin = peer.seen(7101);
            let [client, admin, link] = [7100, 7101, 7102].map(|port| own.seen(port));
            node.settings.more = format!(
                "[advertise]\nclient = \"{client}\"\nadmin = \"{admin}\"\npeer = \"{link}\"\n"
            );
        }
        Ok(pair)
    }

    fn at(sites: [Site; 2], zookeeper: &[SocketAddr]) -> Result<Self> {
        let [a, b] = sites;
        let nodes = [make("a", &a, &b, zookeeper)?, make("b", &b, &a, zookeeper)?];
        Ok(Self { nodes })
    }

    /// Starts both and waits until exactly one serves; its index.
    pub fn start(&mut self) -> Result<usize> {
        for node in &mut self.nodes {
            node.start()?;
        }
        self.wait_for_master(START_LIMIT)
    }

    /// Waits until exactly one node serves and the other says that it does not; its index. A node
    /// that does not answer counts as not serving.
    pub fn wait_for_master(&self, limit: Duration) -> Result<usize> {
        eventually(limit, "exactly one node serves", || match self.serving()[..] {
            [one] => Ok(one),
            ref several => bail!("serving: {several:?}"),
        })
    }

    /// When each gate was open.
    pub fn gates(&self) -> Result<Vec<Gate>> {
        let [a, b] = &self.nodes;
        Ok([a.gates()?, b.gates()?].concat())
    }

    /// Which nodes say that they serve now.
    #[must_use]
    pub fn serving(&self) -> Vec<usize> {
        (0..2).filter(|index| self.nodes[*index].role().is_ok_and(|role| role.serving)).collect()
    }
}

struct Site {
    place: Place,
    client: SocketAddr,
    admin: SocketAddr,
    link: SocketAddr,
}

fn make(name: &str, own: &Site, peer: &Site, zookeeper: &[SocketAddr]) -> Result<Node> {
    let scratch = Scratch::new(&format!("node-{name}"))?;
    let settings = Settings {
        pair: "trade".to_owned(),
        node: name.to_owned(),
        client: own.client,
        admin: own.admin,
        link: own.link,
        peer_link: peer.link,
        peer_admin: peer.admin,
        zookeeper: zookeeper.to_vec(),
        session_timeout: Duration::from_secs(4),
        root: "/hotpair".to_owned(),
        fast_takeover: true,
        directory: scratch.join("data"),
        insecure: own.client.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST),
        more: String::new(),
    };
    let place = own.place.clone();
    let environment = Vec::new();
    Ok(Node {
        settings,
        environment,
        binary: None,
        place,
        process: None,
        scratch,
        _ports: Vec::new(),
    })
}

/// The token of every node that is started here, for reading and for orders.
pub const TOKEN: &str = "integration-test-token";
/// A cold start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// USER_HZ, the same on every Linux of today.
const CLOCK_TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_other_node_of_the_pair() {
        let pair = Pair::here(&["127.0.0.1:2181".parse().unwrap()]).unwrap();
        let [a, b] = &pair.nodes;
        let text = a.settings.toml(Path::new("/token"));
        assert!(text.contains(&format!("address = \"{}\"", b.settings.link)), "{text}");
        assert!(text.contains("servers = [\"127.0.0.1:2181\"]"), "{text}");
        assert!(!text.contains("insecure"), "{text}");
    }
}
