//! Two nodes and three ZooKeeper servers on five hosts, and the master cut off in every way.
//!
//! Whatever is cut: never two gates open together (judged from what the gates wrote down from
//! inside), somebody serves again, and the node that is cut off does not burn its processor. Each
//! cut once; `HOTPAIR_SOAK=1` (`make soak`) ten times.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::env;
use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hotpair_integration_tests::steps::{LIMIT, settled};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::{Fault, History, check};
use hotpair_lab::load::{Load, Plan, now_ns};
use hotpair_lab::need::{Need, install};
use hotpair_lab::network::{Cut, Host, Network};
use hotpair_lab::node::Pair;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::{Settings, ZooKeeper};

const NODES: [Host; 2] = [Host(1), Host(2)];
const SERVERS: [Host; 3] = [Host(3), Host(4), Host(5)];
/// How long a cut lasts at least, so that the processor's use can be told.
const CUT_MIN: Duration = Duration::from_secs(6);
/// What a node that is cut off may use of one core, clients knocking at it all the time.
const PROCESSOR_SHARE_MAX: f64 = 0.10;

/// The hosts, what runs on them, and the client.
struct Lab {
    // In this order: processes end before their network goes.
    load: Option<Load>,
    pair: Pair,
    zookeeper: ZooKeeper,
    network: Network,
    faults: Vec<Fault>,
}

impl Lab {
    fn new() -> Self {
        install(&[Need::Namespaces, Need::ZooKeeper]).unwrap();
        let network = Network::new(5).unwrap();
        let zookeeper = ZooKeeper::start_on(&network, &SERVERS, &Settings::default()).unwrap();
        let mut pair = Pair::on(&network, NODES, &zookeeper.addresses()).unwrap();
        pair.start().unwrap();
        let load = Some(Load::start(&pair, Plan::default()));
        Self { load, pair, zookeeper, network, faults: Vec::new() }
    }

    /// Cuts the master off, waits until somebody serves as wanted, heals, waits for peace.
    fn survive(
        &mut self,
        name: &str,
        takeover: bool,
        cut: impl FnOnce(&Self, usize) -> Result<Cut>,
    ) {
        let master = settled(&self.pair).unwrap();
        let used = self.pair.nodes[master].processor_time().unwrap();
        let (began, at_ns) = (Instant::now(), now_ns());
        let cut = cut(self, master).unwrap();
        // A master that may stay is looked at late, when it had the time to lose its lease.
        if !takeover {
            std::thread::sleep(CUT_MIN);
        }
        eventually(LIMIT, &format!("{name}: somebody serves"), || {
            let serving = self.pair.serving();
            match serving[..] {
                [one] if !takeover || one != master => Ok(()),
                _ => bail!("serving: {serving:?}"),
            }
        })
        .unwrap();
        let until_served = began.elapsed();
        std::thread::sleep(CUT_MIN.saturating_sub(until_served));
        let used = self.pair.nodes[master].processor_time().unwrap() - used;
        let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
        let until_ns = now_ns();
        self.faults.push(Fault {
            name: name.to_owned(),
            at_ns,
            until_ns,
            ended: None,
            gone_ns: None,
        });
        cut.heal().unwrap();
        print(&format_args!(
            "{name}: seen to be served after {until_served:.2?}, the cut node used {share:.3} of a core"
        ));
        assert!(share <= PROCESSOR_SHARE_MAX, "{name}: the cut node used {share:.2} of a core");
        settled(&self.pair).unwrap();
    }

    /// Ends everything and has the history judged.
    fn judge(mut self) {
        let requests = self.load.take().unwrap().stop().unwrap();
        for node in &mut self.pair.nodes {
            node.stop(LIMIT).unwrap();
        }
        let gates = self.pair.gates().unwrap();
        let report = check(&History { requests, gates, faults: self.faults });
        print(&report);
        assert!(report.is_good(), "{report}");
        assert_eq!((report.lost, report.unknown, report.overlap_ns), (0, 0, 0), "{report}");
    }

    fn server_of(&self, node: usize) -> usize {
        let address = self.network.address(NODES[node]);
        eventually(LIMIT, "a server has the node as its client", || {
            self.zookeeper.server_of(address).context("none")
        })
        .unwrap()
    }
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs the test with --nocapture")]
fn print(figures: &dyn Display) {
    println!("{figures}");
}

fn rounds() -> usize {
    if env::var_os("HOTPAIR_SOAK").is_some() { 10 } else { 1 }
}

#[test]
fn a_master_without_network_never_serves_beside_its_successor() {
    let _turn = Turn::alone().unwrap();
    let mut lab = Lab::new();
    for _ in 0..rounds() {
        lab.survive("port down", true, |lab, node| lab.network.port_down(NODES[node]));
        lab.survive("interface down", true, |lab, node| lab.network.interface_down(NODES[node]));
        lab.survive("blackhole route", true, |lab, node| {
            lab.network.blackhole(NODES[node], &[&SERVERS[..], &[NODES[1 - node]]].concat())
        });
    }
    lab.judge();
}

#[test]
fn a_master_cut_off_one_way_never_serves_beside_its_successor() {
    let _turn = Turn::alone().unwrap();
    let mut lab = Lab::new();
    for _ in 0..rounds() {
        lab.survive("cannot receive", true, |lab, node| lab.network.cannot_receive(NODES[node]));
        lab.survive("cannot send", true, |lab, node| lab.network.cannot_send(NODES[node]));
    }
    lab.judge();
}

#[test]
fn a_master_whose_zookeeper_server_lost_its_quorum_never_serves_beside_its_successor() {
    let _turn = Turn::alone().unwrap();
    let mut lab = Lab::new();
    for _ in 0..rounds() {
        // The master may move to another server in time, or lose its mastership: both are right.
        lab.survive("its ZooKeeper server cut off", false, |lab, node| {
            let server = SERVERS[lab.server_of(node)];
            let others: Vec<Host> = SERVERS.into_iter().filter(|each| *each != server).collect();
            lab.network.apart(server, &others)
        });
    }
    lab.judge();
}
