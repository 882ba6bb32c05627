//! Real ZooKeeper servers, alone or as an ensemble, to be killed, frozen and brought back.
//!
//! Debian's package starts nothing by itself; each server here is a child process with its own
//! folder. A server is ready when its `srvr` word answers with a line `Mode:`, which an ensemble's
//! servers do only once they have a quorum.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::need::{Need, install};
use crate::network::{Host, Network};
use crate::place::Place;
use crate::port::Port;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wait::eventually;

/// What to start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's tick; sessions expire on ticks, and last between 2 and 20 of them.
    pub tick: Duration,
    /// The JVM's largest heap, in MiB.
    pub heap_mib_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tick: Duration::from_millis(500), heap_mib_max: 64 }
    }
}

/// One ensemble of servers; with one server it stands alone. Dropped: killed, folders removed.
#[derive(Debug)]
pub struct ZooKeeper {
    servers: Vec<Server>,
    // After the servers: the folder must outlive the processes that write to it.
    _scratch: Scratch,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Alone, no ensemble.
    Standalone,
    /// Decides the order of writes.
    Leader,
    /// Follows the leader.
    Follower,
}

impl ZooKeeper {
    /// Starts one server on loopback and waits until it serves.
    pub fn standalone() -> Result<Self> {
        Self::ensemble(1)
    }

    /// Starts so many servers on loopback and waits until all serve.
    pub fn ensemble(servers: usize) -> Result<Self> {
        Self::start(servers, &Settings::default())
    }

    /// Starts so many servers on loopback, with settings, and waits until all serve.
    pub fn start(servers: usize, settings: &Settings) -> Result<Self> {
        let sites = (0..servers)
            .map(|_| {
                let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
                let [client, quorum, election] = ports.each_ref().map(Port::address);
                Ok(Site { place: Place::Here, client, quorum, election, _ports: ports.into() })
            })
            .collect::<Result<Vec<Site>>>()?;
        Self::start_at(sites, settings)
    }

    /// Starts a server on each of these hosts, at port 2181, and waits until all serve.
    pub fn start_on(network: &Network, hosts: &[Host], settings: &Settings) -> Result<Self> {
        let sites = hosts.iter().map(|host| Site {
            place: network.place(*host),
            client: network.socket(*host, 2181),
            quorum: network.socket(*host, 2888),
            election: network.socket(*host, 3888),
            _ports: Vec::new(),
        });
        Self::start_at(sites.collect(), settings)
    }

    fn start_at(sites: Vec<Site>, settings: &Settings) -> Result<Self> {
        install(&[Need::ZooKeeper])?;
        let scratch = Scratch::new("zookeeper")?;
        let ensemble: String = match sites.as_slice() {
            [_] => String::new(),
            several => several.iter().zip(1..).map(|(site, id)| site.member(id)).collect(),
        };
        let mut servers = Vec::new();
        for (site, number) in sites.into_iter().zip(1..) {
            let folder = scratch.join(format!("server{number}"));
            write_configuration(&folder, number, &site, &ensemble, settings)?;
            let (log, heap_mib_max) = (folder.join("log"), settings.heap_mib_max);
            let mut server = Server { site, folder, log, heap_mib_max, process: None };
            server.start()?;
            servers.push(server);
        }
        let mut zookeeper = Self { servers, _scratch: scratch };
        zookeeper.wait_until_serving()?;
        Ok(zookeeper)
    }

    /// How many servers there are, dead ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Never: there is at least one server.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Each server's address for clients.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.site.client).collect()
    }

    /// All addresses as a client wants them, separated by commas.
    #[must_use]
    pub fn connect_string(&self) -> String {
        self.addresses().iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }

    /// What the server says of itself; an error when it is dead, frozen or without a quorum.
    pub fn mode(&self, server: usize) -> Result<Mode> {
        let answer = self.four_letters(server, "srvr")?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
        match mode.with_context(|| format!("server {server} does not serve: {}", answer.trim()))? {
            "standalone" => Ok(Mode::Standalone),
            "leader" => Ok(Mode::Leader),
            "follower" => Ok(Mode::Follower),
            other => anyhow::bail!("server {server} says it is {other:?}"),
        }
    }

    /// The server that leads, or stands alone; `None` while there is none.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        (0..self.len())
            .find(|server| matches!(self.mode(*server), Ok(Mode::Leader | Mode::Standalone)))
    }

    /// The server that leads, as soon as one says so: a busy one is asked again.
    pub fn wait_for_leader(&self) -> Result<usize> {
        eventually(READY_LIMIT, "a ZooKeeper server leads", || {
            self.leader().context("none of them says that it does")
        })
    }

    /// The server that the host with this address is connected to. For hosts of a network only: on
    /// loopback everybody has the same address, and so has whoever shares a host with a server.
    #[must_use]
    pub fn server_of(&self, client: IpAddr) -> Option<usize> {
        (0..self.len()).find(|server| {
            // A dead or cut off server has no clients.
            let answer = self.four_letters(*server, "cons").unwrap_or_default();
            answer.contains(&format!("/{client}:"))
        })
    }

    /// The server's answer to one of the administrator's words.
    pub fn four_letters(&self, server: usize, word: &str) -> Result<String> {
        let site = &self.servers[server].site;
        let mut stream = site.place.connect(site.client, Duration::from_millis(500))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .with_context(|| format!("server {server} does not answer {word}"))?;
        Ok(answer)
    }

    /// Kills the server (SIGKILL).
    pub fn kill(&mut self, server: usize) -> Result<()> {
        match self.servers[server].process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Ends the server in order (SIGTERM).
    pub fn stop(&mut self, server: usize) -> Result<()> {
        if let Some(mut process) = self.servers[server].process.take() {
            process.terminate(Duration::from_secs(10))?;
        }
        Ok(())
    }

    /// Starts a killed or stopped server again with the data it had; does not wait.
    pub fn start_again(&mut self, server: usize) -> Result<()> {
        ensure!(self.servers[server].process.is_none(), "server {server} runs already");
        self.servers[server].start()
    }

    /// Takes everything that a killed or stopped server keeps: it starts again as a new one.
    pub fn wipe(&self, server: usize) -> Result<()> {
        let Server { folder, process, .. } = &self.servers[server];
        ensure!(process.is_none(), "server {server} runs");
        let kept = folder.join("data").join("version-2");
        fs::remove_dir_all(&kept).with_context(|| format!("cannot remove {}", kept.display()))
    }

    /// Stops the server from running (SIGSTOP), connections open.
    pub fn freeze(&self, server: usize) -> Result<()> {
        self.servers[server].running()?.freeze()
    }

    /// Lets a frozen server run on.
    pub fn thaw(&self, server: usize) -> Result<()> {
        self.servers[server].running()?.thaw()
    }

    /// Waits until every server that was not stopped serves.
    pub fn wait_until_serving(&mut self) -> Result<()> {
        for server in 0..self.len() {
            let Some(mut process) = self.servers[server].process.take() else { continue };
            let served =
                eventually(READY_LIMIT, &format!("ZooKeeper server {server} serves"), || {
                    self.mode(server)
                });
            let alive = process.ensure_running();
            self.servers[server].process = Some(process);
            alive?;
            served?;
        }
        Ok(())
    }
}

/// Where one server runs, and its three addresses.
#[derive(Debug)]
struct Site {
    place: Place,
    client: SocketAddr,
    quorum: SocketAddr,
    election: SocketAddr,
    /// Reserved for as long as the server may be started again.
    _ports: Vec<Port>,
}

impl Site {
    /// The line that names this server to all servers of its ensemble.
    fn member(&self, number: usize) -> String {
        let Self { quorum, election, client, .. } = self;
        format!("server.{number}={quorum}:{}:participant;{client}\n", election.port())
    }
}

#[derive(Debug)]
struct Server {
    site: Site,
    folder: PathBuf,
    log: PathBuf,
    heap_mib_max: u32,
    /// None once killed or stopped.
    process: Option<Process>,
}

impl Server {
    fn start(&mut self) -> Result<()> {
        let mut java = self.site.place.command("java");
        // A small heap, one collector thread and the quick compiler: less than half a second to
        // serve, and less than 60 MiB each.
        java.arg(format!("-Xmx{}m", self.heap_mib_max))
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
            // What is tried out is the pair. A disk that others keep busy would stop ZooKeeper for
            // seconds at an fsync, and with it whatever is measured. Its process may still be killed.
            .arg("-Dzookeeper.forceSync=no")
            .args(["-cp", CLASS_PATH])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.folder.join("zoo.cfg"));
        let name = format!("ZooKeeper at {}", self.site.client);
        self.process = Some(Process::start(&name, &mut java, &self.log)?);
        Ok(())
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("{} was stopped", self.site.client))
    }
}

fn write_configuration(
    folder: &Path,
    number: usize,
    site: &Site,
    ensemble: &str,
    settings: &Settings,
) -> Result<()> {
    let data = folder.join("data");
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let common = [
        format!("tickTime={}", settings.tick.as_millis()),
        format!("dataDir={}", data.display()),
        // Without these, 60 connections from one address, and a web server on a fixed port.
        "maxClientCnxns=0".to_owned(),
        "admin.enableServer=false".to_owned(),
        "4lw.commands.whitelist=*".to_owned(),
    ];
    let own = if ensemble.is_empty() {
        // A client port beside server lines would be bound on every address.
        format!("clientPort={}\nclientPortAddress={}\n", site.client.port(), site.client.ip())
    } else {
        fs::write(data.join("myid"), number.to_string())?;
        format!("initLimit=10\nsyncLimit=5\n{ensemble}")
    };
    let path = folder.join("zoo.cfg");
    fs::write(&path, format!("{}\n{own}", common.join("\n")))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The jar's manifest names all the others; the binding makes it log.
const CLASS_PATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";

/// A busy machine takes seconds for what a free one does in one.
const READY_LIMIT: Duration = Duration::from_secs(60);
