//! What others get wrong: strangers at the doors, ZooKeeper missing or spoiled, nodes configured
//! against each other, files that cannot be meant. Nothing of it moves a mastership, and each says
//! what is wrong in words that name it.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use hotpair_integration_tests::steps::{LIMIT, argument, run_hotpair, settled};
use hotpair_integration_tests::turn::Turn;
use hotpair_integration_tests::znodes::Znodes;
use hotpair_lab::checker::{Gate, History, check};
use hotpair_lab::node::{Node, Pair};
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::{eventually, throughout};
use hotpair_lab::zookeeper::ZooKeeper;

/// How long strangers stand at the doors, and how long nothing may change.
const A_WHILE: Duration = Duration::from_secs(4);

// --- strangers

/// A connection that never gets to the point.
struct Stranger {
    stream: TcpStream,
    /// Sent byte by byte, again and again; nothing: it stays silent.
    drip: Vec<u8>,
}

impl Stranger {
    fn new(door: SocketAddr, begin: &[u8], drip: &[u8]) -> Result<Self> {
        let mut stream = TcpStream::connect_timeout(&door, LIMIT)?;
        stream.set_nonblocking(true)?;
        // A door that has closed already is what we are after.
        let _ = stream.write_all(begin);
        Ok(Self { stream, drip: drip.to_vec() })
    }

    fn drip(&mut self, turn: usize) {
        if !self.drip.is_empty() {
            let _ = self.stream.write(&[self.drip[turn % self.drip.len()]]);
        }
    }

    /// The other end has closed it.
    fn is_cut(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}

/// Garbage, nothing at all, half a beginning, and beginnings that come drop by drop.
fn crowd(door: SocketAddr) -> Vec<Stranger> {
    let garbage: Vec<u8> =
        (0..2_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let half_request = b"POST /v1/call HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let kinds: [(&[u8], &[u8]); 6] = [
        (&garbage, b""),
        (b"", b""),
        (half_request, b""),
        (b"GET /role HTTP/1.1\r\nX: ", b"x"),
        // A frame of the link that says it is long, and one that says it is nothing.
        (&[0, 0, 255, 255, 1, b'{'], b" "),
        (&[0, 0, 0, 0, 0, 0, 0, 0], b""),
    ];
    let each = |_| kinds.iter().map(|(begin, drip)| Stranger::new(door, begin, drip).unwrap());
    (0..25).flat_map(each).collect()
}

#[test]
fn strangers_at_all_doors_are_cut_move_nothing_and_fill_no_log() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let epoch = pair.nodes[master].role().unwrap().epoch;
    let lines = |node: &mut Node| node.process().unwrap().log().lines().count();
    let before = pair.nodes.each_mut().map(lines);
    let doors = pair.nodes.iter().flat_map(|node| {
        let settings = &node.settings;
        [settings.client, settings.admin, settings.link]
    });
    let mut strangers: Vec<Stranger> = doors.flat_map(crowd).collect();
    let mut turn = 0;
    throughout(A_WHILE, "all is as it was", || {
        turn += 1;
        strangers.iter_mut().for_each(|stranger| stranger.drip(turn));
        for (index, node) in pair.nodes.iter().enumerate() {
            let role = node.admin().get_json("/role")?;
            ensure!(role["serving"] == (index == master) && role["epoch"] == epoch, "{role}");
            ensure!(role["peer"]["reachable"] == true, "{role}");
            ensure!(node.admin().get("/lookup")?.body == "true", "lookup of {index}");
        }
        ensure!(pair.nodes[master].call(1901, &1.into())?["error_no"] == 0, "the call");
        Ok(())
    })
    .unwrap();
    eventually(LIMIT, "every stranger is cut", || {
        turn += 1;
        strangers.iter_mut().for_each(|stranger| stranger.drip(turn));
        strangers.retain_mut(|stranger| !stranger.is_cut());
        ensure!(strangers.is_empty(), "{} are not", strangers.len());
        Ok(())
    })
    .unwrap();
    for (node, before) in pair.nodes.each_mut().into_iter().zip(before) {
        let said = node.process().unwrap().log();
        let more = said.lines().count() - before;
        assert!(more <= 60, "450 strangers at a node made {more} lines of log: {said}");
    }
    assert_eq!(settled(&pair).unwrap(), master);
    assert_eq!(pair.nodes[master].role().unwrap().epoch, epoch);
}

// --- ZooKeeper

/// What the node says to "why".
fn why(node: &Node) -> Result<String> {
    Ok(node.admin().get_json("/why")?["sentences"].to_string())
}

/// The text of a firing alert.
fn alert_text(node: &Node, name: &str) -> Result<String> {
    let alerts = node.admin().get_json("/alerts")?;
    let firing = alerts["alerts"].as_array().into_iter().flatten();
    let text: Vec<&str> =
        firing.filter(|alert| alert["name"] == name).filter_map(|a| a["text"].as_str()).collect();
    ensure!(!text.is_empty(), "{name} does not fire: {alerts}");
    Ok(text.join("; "))
}

#[test]
fn nodes_started_without_zookeeper_say_so_and_serve_when_it_comes() {
    let _turn = Turn::alone().unwrap();
    let mut zookeeper = ZooKeeper::standalone().unwrap();
    zookeeper.kill(0).unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    for node in &mut pair.nodes {
        node.start_and_wait().unwrap();
    }
    for node in &pair.nodes {
        eventually(LIMIT, "the node says what is missing", || {
            alert_text(node, "coordinator_lost")?;
            let why = why(node)?;
            ensure!(why.contains("no contact with ZooKeeper"), "{why}");
            ensure!(why.contains("coordinator.zookeeper.servers"), "{why}");
            let status = node.role()?;
            ensure!(status.role == "standby" && !status.serving, "{status:?}");
            Ok(())
        })
        .unwrap();
    }
    zookeeper.start_again(0).unwrap();
    zookeeper.wait_until_serving().unwrap();
    settled(&pair).unwrap();
    for node in &pair.nodes {
        eventually(LIMIT, "the alert is over", || {
            ensure!(!node.alerts()?.contains(&"coordinator_lost".to_owned()), "it still fires");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_spoiled_znode_is_named_and_nobody_serves_until_it_is_mended() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    pair.start().unwrap();
    let znodes = Znodes::connect(&zookeeper.addresses()).unwrap();
    for (name, spoiled) in [
        ("master", &b"192.168.0.7:8080"[..]),
        ("epoch", b"\xff\xfe\x00 not even text"),
        ("id", b"{\"cluster\": \"no uuid\"}"),
    ] {
        settled(&pair).unwrap();
        for node in &mut pair.nodes {
            node.stop(LIMIT).unwrap();
        }
        let path = format!("/hotpair/trade/{name}");
        let good = znodes.read(&path).unwrap();
        znodes.write(&path, spoiled).unwrap();
        for node in &mut pair.nodes {
            node.start_and_wait().unwrap();
        }
        for node in &pair.nodes {
            eventually(LIMIT, &format!("the spoiled {name} is named"), || {
                let (why, alert) = (why(node)?, alert_text(node, "no_master")?);
                ensure!(why.contains(&path) && alert.contains(&path), "{why} {alert}");
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(pair.serving(), Vec::<usize>::new(), "with a spoiled {name}");
        match good {
            Some(good) => znodes.write(&path, &good).unwrap(),
            None => znodes.delete(&path).unwrap(),
        }
    }
    settled(&pair).unwrap();
}

// --- nodes against each other

#[test]
fn two_nodes_of_one_name_are_told_apart_and_never_both_serve() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    pair.nodes[1].settings.node = "a".to_owned();
    for node in &mut pair.nodes {
        node.start_and_wait().unwrap();
    }
    let told = eventually(LIMIT, "the twins are noticed", || {
        let texts = pair.nodes.each_ref().map(|node| alert_text(node, "twin_node"));
        let [a, b] = texts;
        a.or(b)
    });
    assert!(told.unwrap().contains("another `node` name"));
    throughout(A_WHILE, "at most one serves", || {
        let serving = pair.serving();
        ensure!(serving.len() <= 1, "{serving:?}");
        Ok(())
    })
    .unwrap();
    for node in &mut pair.nodes {
        node.stop(LIMIT).unwrap();
    }
    // The checker tells nodes by their names.
    let renamed = pair.nodes[1].gates().unwrap().into_iter();
    let renamed = renamed.map(|gate| Gate { node: "twin of a".to_owned(), ..gate });
    let gates = pair.nodes[0].gates().unwrap().into_iter().chain(renamed).collect();
    let report = check(&History { gates, ..History::default() });
    assert_eq!(report.overlap_ns, 0, "{report}");
}

#[test]
fn a_peer_of_another_pair_is_turned_away_and_named() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    pair.nodes[1].settings.pair = "books".to_owned();
    for node in &mut pair.nodes {
        node.start_and_wait().unwrap();
    }
    for (node, other) in [(0, "books"), (1, "trade")] {
        eventually(LIMIT, "the other pair is named", || {
            let text = alert_text(&pair.nodes[node], "ensemble_mismatch")?;
            ensure!(text.contains(other), "{text}");
            Ok(())
        })
        .unwrap();
        // A pair of one node is a pair: the other one's servers do not hinder it.
        eventually(LIMIT, "each serves its own pair", || {
            ensure!(pair.nodes[node].role()?.serving, "it does not");
            Ok(())
        })
        .unwrap();
    }
}

// --- files and ports

/// Starts the node and waits for its end; its exit code and what it said.
fn refused_start(node: &mut Node) -> (i32, String) {
    node.start().unwrap();
    let status = node.process().unwrap().ended(LIMIT).unwrap();
    let said = node.process().unwrap().log();
    node.kill().unwrap();
    (status.code().unwrap(), said)
}

#[test]
fn a_data_directory_in_use_is_refused_in_a_sentence() {
    let mut pair = Pair::here(&["127.0.0.1:2181".parse().unwrap()]).unwrap();
    pair.nodes[1].settings.directory = pair.nodes[0].settings.directory.clone();
    pair.nodes[0].start_and_wait().unwrap();
    let (code, said) = refused_start(&mut pair.nodes[1]);
    assert_eq!(code, 1, "{said}");
    let directory = pair.nodes[0].settings.directory.display().to_string();
    assert!(said.contains(&directory) && said.contains("in use by another process"), "{said}");
    assert!(said.contains("tables.directory"), "{said}");
}

#[test]
fn a_port_in_use_is_refused_by_its_key() {
    let mut pair = Pair::here(&["127.0.0.1:2181".parse().unwrap()]).unwrap();
    let node = &mut pair.nodes[0];
    let settings = &node.settings;
    let keys = [
        ("listen.client", settings.client),
        ("listen.admin", settings.admin),
        ("listen.peer", settings.link),
    ];
    for (key, address) in keys {
        let _taken = TcpListener::bind(address).unwrap();
        let (code, said) = refused_start(node);
        assert_eq!(code, 1, "{said}");
        let named = format!("{key} = \"{address}\" cannot be bound");
        assert!(said.contains(&named), "{named}: {said}");
    }
}

#[test]
fn a_file_that_cannot_be_meant_is_refused_with_its_line_or_key() {
    let (code, example, _) = run_hotpair(&["config", "example"]).unwrap();
    assert_eq!(code, 0);
    let scratch = Scratch::new("config").unwrap();
    let checked = |text: &str| {
        let file = scratch.write("node.toml", text).unwrap();
        run_hotpair(&["config", "check", argument(&file).unwrap()]).unwrap()
    };
    let (code, out, said) = checked(&example);
    assert_eq!(code, 0, "{out}{said}");
    let line = 1 + example.lines().position(|line| line.starts_with("ping_count")).unwrap();
    let unknown = format!("line {line}: unknown key peer.ping_cuont; did you mean ping_count?");
    let cases = [
        (example.replace("ping_count    =", "ping_cuont    ="), unknown.as_str()),
        (example.replace("127.0.0.1:7101", "127.0.0.1:7100"), "listen.admin and listen.client"),
        (example.replace("pair = \"trade\"", ""), "pair"),
        (example.replace("node = \"a\"", "node = \"a/b\""), "node = \"a/b\""),
        (example.replace("\"200ms\"", "\"fast\""), "fast"),
        (
            example.replace("root = \"/hotpair\"", "root = \"hotpair\""),
            "coordinator.zookeeper.root",
        ),
        (example.replace("\"zookeeper\"", "\"binary-star\""), "not built in this version"),
        (format!("{example}\n[vsoa]\n"), "vsoa is not built in this version"),
        (example.replace("127.0.0.1:7100", "0.0.0.0:7100"), "tls.insecure"),
        ("pair = ".to_owned(), "line 1"),
    ];
    for (text, named) in cases {
        let (code, out, said) = checked(&text);
        assert_eq!(code, 2, "{named}: {out}{said}");
        assert!(said.contains(named) && said.contains("node.toml"), "{named}: {said}");
    }
    let missing = scratch.join("missing.toml");
    let (code, _, said) = run_hotpair(&["config", "check", argument(&missing).unwrap()]).unwrap();
    assert!(code == 2 && said.contains("missing.toml"), "{code}: {said}");
}
