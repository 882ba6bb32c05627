//! Each node behind a router of its own that translates addresses: the pair forms, tells clients
//! where it is reached, and fails over.

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::steps::{LIMIT, serves, settled};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::http::Http;
use hotpair_lab::nat::Behind;
use hotpair_lab::need::{Need, install};
use hotpair_lab::network::{Host, Network};
use hotpair_lab::node::Pair;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::{Settings, ZooKeeper};
use serde_json::{Value, json};

const PORTS: [u16; 3] = [7100, 7101, 7102];
const ECHO: u32 = 1901;
const SERVES_NOT: i64 = 308_000_005;

#[test]
fn a_pair_behind_two_routers_is_found_and_fails_over() {
    let _turn = Turn::alone().unwrap();
    install(&[Need::ZooKeeper, Need::Namespaces]).unwrap();
    let network = Network::new(3).unwrap();
    let zookeeper = ZooKeeper::start_on(&network, &[Host(3)], &Settings::default()).unwrap();
    let routers = [1, 2].map(|host| Behind::new(&network, Host(host), &PORTS).unwrap());
    let mut pair = Pair::behind(&routers, &zookeeper.addresses()).unwrap();
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let epoch = pair.nodes[master].role().unwrap().epoch;
    for (node, router) in pair.nodes.iter().zip(&routers) {
        let addresses = &node.admin().get_json("/status").unwrap()["addresses"];
        let told = ["client", "admin", "peer"].map(|use_| addresses[use_].as_str().unwrap());
        assert_eq!(told.map(str::to_owned), PORTS.map(|port| router.seen(port).to_string()));
    }
    // A client on the outside knows one address, of the node that does not serve.
    let outside = |address: &str| Http::new(network.place(Host(3)), address.parse().unwrap());
    let call = |address: &str| -> Result<Value> {
        let body = json!({"function": ECHO, "arguments": "hello"});
        outside(address).post("/v1/call", &body)?.json()
    };
    let address = |node: usize| routers[node].seen(7100).to_string();
    let refused = call(&address(1 - master)).unwrap();
    assert_eq!(refused["error_no"], SERVES_NOT, "{refused}");
    let led_to = refused["data"]["master"].as_str().unwrap();
    assert!(led_to.ends_with(&address(master)), "{refused}");
    let answer = call(&address(master)).unwrap();
    assert_eq!(answer["data"], "hello", "{answer}");
    // So does one that asks the registry.
    let call = ["call", "hotpair/test/1.0:echo", "--arguments", "\"hello\""];
    let found = pair.nodes[1 - master].run(call[0], &call[1..]).unwrap();
    assert_eq!((found.0, found.1.trim()), (0, "\"hello\""), "{found:?}");
    pair.nodes[master].kill().unwrap();
    let standby = 1 - master;
    assert_eq!(serves(&pair, standby).unwrap(), epoch + 1);
    pair.nodes[master].start_and_wait().unwrap();
    assert_eq!(settled(&pair).unwrap(), standby);
    eventually(LIMIT, "the one that came back leads to the new master", || {
        let body = json!({"function": ECHO, "arguments": "hello"});
        let refused = outside(&address(master)).post("/v1/call", &body)?.json()?;
        let led_to = refused["data"]["master"].as_str().context("no master is named")?;
        ensure!(led_to.ends_with(&address(standby)), "{refused}");
        Ok(())
    })
    .unwrap();
}
