//! A network of hosts on this machine: namespaces joined by one bridge, to be cut in every way.
//!
//! ```text
//!            NAME-sw: bridge br0
//!       p1 ┌───────┴───────┐ p2  …      a port at the switch each
//!     eth0 │               │ eth0       an interface in the host each
//!       NAME-h1         NAME-h2
//!      10.77.0.1       10.77.0.2
//! ```
//!
//! Each network has its own bridge, so the same addresses may be used by many networks at once. A
//! cut is a value; dropping it heals the cut. Cutting at the switch and cutting in the host are not
//! the same to a program: the first is silence, the second fails at once, and clients have
//! separate code (and separate bugs) for the two.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, id};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use crate::place::Place;
use crate::process::run;

/// Some hosts and the switch between them; removed when dropped.
#[derive(Debug)]
pub struct Network {
    name: String,
    hosts: usize,
}

/// A host of a [`Network`], counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(pub usize);

/// Something broken in a network; healed when dropped.
#[derive(Debug)]
#[must_use = "a cut heals when it is dropped"]
pub struct Cut {
    heal: Vec<Vec<String>>,
}

impl Network {
    /// Makes a network of so many hosts, all joined.
    pub fn new(hosts: usize) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        sweep_abandoned();
        let name = format!("hotpair{}-{}", id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Made before the first namespace, so that half a network is removed as well.
        let network = Self { name, hosts };
        let switch = network.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge mcast_snooping 0"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for host in network.hosts() {
            let (space, port) = (network.namespace(host), port(host));
            ip(&format!("netns add {space}"))?;
            ip(&format!("-n {space} link add eth0 type veth peer name {port} netns {switch}"))?;
            ip(&format!("-n {switch} link set {port} master br0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", network.address(host)))?;
            ip(&format!("-n {space} link set eth0 up"))?;
        }
        Ok(network)
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = Host> + use<> {
        (1..=self.hosts).map(Host)
    }

    /// The host's place, to run programs at and to speak from.
    #[must_use]
    pub fn place(&self, host: Host) -> Place {
        Place::Namespace(self.namespace(host))
    }

    /// The host's address on the network.
    #[must_use]
    pub fn address(&self, host: Host) -> IpAddr {
        let last = u8::try_from(host.0).expect("a network here has far fewer than 256 hosts");
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, last))
    }

    /// A port at the host's address.
    #[must_use]
    pub fn socket(&self, host: Host, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(host), port)
    }

    /// The cable pulled at the switch: the host sees no carrier, sends into nothing, hears nothing.
    pub fn port_down(&self, host: Host) -> Result<Cut> {
        let link = format!("-n {} link set {}", self.switch(), port(host));
        ip(&format!("{link} down"))?;
        Ok(Cut { heal: vec![words(&format!("ip {link} up"))] })
    }

    /// The interface taken down in the host: what it sends fails at once (ENETUNREACH).
    pub fn interface_down(&self, host: Host) -> Result<Cut> {
        let link = format!("-n {} link set eth0", self.namespace(host));
        ip(&format!("{link} down"))?;
        Ok(Cut { heal: vec![words(&format!("ip {link} up"))] })
    }

    /// Routes in the host that swallow what it sends to each of the others, at once and locally.
    pub fn blackhole(&self, host: Host, others: &[Host]) -> Result<Cut> {
        self.route(host, others, "blackhole")
    }

    /// Routes in the host that answer "unreachable" to what it sends to each of the others.
    pub fn unreachable(&self, host: Host, others: &[Host]) -> Result<Cut> {
        self.route(host, others, "unreachable")
    }

    /// Nothing passes from one host to the other; the way back stays open.
    pub fn one_way(&self, from: Host, to: Host) -> Result<Cut> {
        self.drop_at_switch(&[format!("iifname {} oifname {}", port(from), port(to))])
    }

    /// The host hears nobody; what it sends arrives.
    pub fn cannot_receive(&self, host: Host) -> Result<Cut> {
        self.drop_at_switch(&[format!("oifname {}", port(host))])
    }

    /// Nobody hears the host; what is sent to it arrives.
    pub fn cannot_send(&self, host: Host) -> Result<Cut> {
        self.drop_at_switch(&[format!("iifname {}", port(host))])
    }

    /// Nothing passes between the host and these others, either way; the rest is untouched.
    pub fn apart(&self, host: Host, others: &[Host]) -> Result<Cut> {
        let rules: Vec<String> = others
            .iter()
            .flat_map(|other| [(host, *other), (*other, host)])
            .map(|(from, to)| format!("iifname {} oifname {}", port(from), port(to)))
            .collect();
        self.drop_at_switch(&rules)
    }

    /// Segments to this TCP port vanish on their way to the host, from anybody.
    pub fn silent_port(&self, host: Host, tcp: u16) -> Result<Cut> {
        self.drop_at_switch(&[format!("oifname {} tcp dport {tcp}", port(host))])
    }

    /// The host's firewall answers this TCP port with a reset, while the program behind it lives.
    pub fn refused_port(&self, host: Host, tcp: u16) -> Result<Cut> {
        let place = self.place(host);
        let rule = |action: &str| {
            format!("{action} INPUT -p tcp --dport {tcp} -j REJECT --reject-with tcp-reset")
        };
        run(place.command("iptables").args(words(&rule("-I"))))?;
        let mut heal = words(&format!("ip netns exec {} iptables", self.namespace(host)));
        heal.extend(words(&rule("-D")));
        Ok(Cut { heal: vec![heal] })
    }

    /// Breaks the host's live TCP connections with the other one, once.
    pub fn reset_connections(&self, host: Host, other: Host) -> Result<()> {
        let address = self.address(other).to_string();
        run(self.place(host).command("ss").args(["-K", "dst", &address]))?;
        Ok(())
    }

    fn route(&self, host: Host, others: &[Host], kind: &str) -> Result<Cut> {
        let mut cut = Cut { heal: Vec::new() };
        for other in others {
            let space = self.namespace(host);
            let target = format!("{kind} {}/32", self.address(*other));
            ip(&format!("-n {space} route add {target}"))?;
            cut.heal.push(words(&format!("ip -n {space} route del {target}")));
        }
        Ok(cut)
    }

    /// Each cut is a table of its own at the bridge, so that cuts come and go independently.
    fn drop_at_switch(&self, matches: &[String]) -> Result<Cut> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let table = format!("cut{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let switch = Place::Namespace(self.switch());
        let mut rules = format!(
            "add table bridge {table}; add chain bridge {table} cut {{ type filter hook forward priority 0; }}"
        );
        for each in matches {
            rules.push_str(&format!("; add rule bridge {table} cut {each} drop"));
        }
        run(switch.command("nft").arg(rules))?;
        let heal =
            words(&format!("ip netns exec {} nft delete table bridge {table}", self.switch()));
        Ok(Cut { heal: vec![heal] })
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }

    /// The namespace of a host behind this one.
    pub(crate) fn namespace_behind(&self, host: Host) -> String {
        format!("{}-b{}", self.name, host.0)
    }

    pub(crate) fn namespace(&self, host: Host) -> String {
        format!("{}-h{}", self.name, host.0)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Best effort: what stays is swept by the next test run.
        for host in self.hosts() {
            let _ = ip(&format!("netns del {}", self.namespace(host)));
        }
        let _ = ip(&format!("netns del {}", self.switch()));
    }
}

impl Cut {
    /// Heals the cut, with an error if that did not work.
    pub fn heal(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        for command in self.heal.drain(..) {
            let (program, arguments) = command.split_first().context("an empty command")?;
            run(Command::new(program).args(arguments))?;
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // The network itself may be gone already, and the cut with it.
        let _ = self.undo();
    }
}

/// Removes networks whose process was killed before it could; theirs is the id in the name.
fn sweep_abandoned() {
    let Ok(list) = ip("netns list") else { return };
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = name.strip_prefix("hotpair").and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.filter(|owner| owner.parse::<u32>().is_ok()) else { continue };
        if !Path::new("/proc").join(owner).exists() {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn port(host: Host) -> String {
    format!("p{}", host.0)
}

pub(crate) fn ip(arguments: &str) -> Result<String> {
    run(Command::new("ip").args(words(arguments)))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
