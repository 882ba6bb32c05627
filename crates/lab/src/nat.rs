//! Hosts behind a router that translates addresses, as in offices and containers.
//!
//! ```text
//!   10.77.0.N:8100 ──▶ host N of the network, a router ──▶ 192.168.77.2:7100, the host behind it
//! ```
//!
//! Every host behind a router has the same address, 192.168.77.2, which means nothing to anybody
//! else: whoever is told it gets nowhere, or to itself. What goes out bears the router's address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::network::{Host, Network, ip};
use crate::place::Place;
use crate::process::run;

/// A host behind a router; removed when dropped, before its network.
#[derive(Debug)]
pub struct Behind {
    space: String,
    public: IpAddr,
}

/// The router's address on its inner side, and that of the host behind it.
const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 77, 1), Ipv4Addr::new(192, 168, 77, 2)];
/// What is added to a port on the router's outer side.
const SHIFT: u16 = 1_000;

impl Behind {
    /// Makes this host a router, a host behind it, and these of its ports reachable from outside.
    pub fn new(network: &Network, router: Host, ports: &[u16]) -> Result<Self> {
        let (outer, space) = (network.namespace(router), network.namespace_behind(router));
        let behind = Self { space: space.clone(), public: network.address(router) };
        ip(&format!("netns add {space}"))?;
        ip(&format!("-n {space} link add eth0 type veth peer name inner netns {outer}"))?;
        ip(&format!("-n {outer} addr add {}/24 dev inner", INNER[0]))?;
        ip(&format!("-n {outer} link set inner up"))?;
        ip(&format!("-n {space} addr add {}/24 dev eth0", INNER[1]))?;
        ip(&format!("-n {space} link set lo up"))?;
        ip(&format!("-n {space} link set eth0 up"))?;
        ip(&format!("-n {space} route add default via {}", INNER[0]))?;
        let router = network.place(router);
        let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward";
        run(router.command("sh").args(["-c", forward]))?;
        let mut rules = vec!["-A POSTROUTING -o eth0 -j MASQUERADE".to_owned()];
        rules.extend(ports.iter().map(|port| {
            let (outer, to) = (port + SHIFT, SocketAddr::new(INNER[1].into(), *port));
            format!("-A PREROUTING -i eth0 -p tcp --dport {outer} -j DNAT --to-destination {to}")
        }));
        for rule in rules {
            run(router.command("iptables").args(["-t", "nat"]).args(rule.split_whitespace()))?;
        }
        Ok(behind)
    }

    /// Where to run programs.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::Namespace(self.space.clone())
    }

    /// A port as programs there bind it.
    #[must_use]
    pub fn own(&self, port: u16) -> SocketAddr {
        SocketAddr::new(INNER[1].into(), port)
    }

    /// The same port as everybody else reaches it.
    #[must_use]
    pub fn seen(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.public, port + SHIFT)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // Best effort: what stays is swept by the next test run.
        let _ = ip(&format!("netns del {}", self.space));
    }
}
