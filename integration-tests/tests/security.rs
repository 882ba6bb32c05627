//! Nobody who does not belong: at the znodes, and on the link.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::journal::Journal;
use hotpair_integration_tests::steps::{LIMIT, serves, settled};
use hotpair_integration_tests::turn::Turn;
use hotpair_integration_tests::workspace;
use hotpair_integration_tests::znodes::Znodes;
use hotpair_lab::need::{Need, install};
use hotpair_lab::node::{Node, Pair};
use hotpair_lab::process::run;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;

const LINE: &str = "pair:a secret";

/// A file that only its owner may read.
fn secret(folder: &Path, name: &str, line: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, line).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

fn with_auth(node: &mut Node, file: &Path) {
    node.environment
        .push(("HOTPAIR__COORDINATOR__ZOOKEEPER__AUTH".to_owned(), file.display().to_string()));
}

fn why(node: &Node) -> Result<String> {
    Ok(node.admin().get_json("/why")?.to_string())
}

/// The text of an alert that the node wrote down and that says this.
fn alerted(node: &Node, name: &str, says: &str) -> Result<()> {
    eventually(LIMIT, &format!("{name} says {says:?}"), || {
        let journal = Journal::read(node)?;
        let mut texts = journal.of("alert").filter(|line| line["name"] == name);
        let told = |line: &serde_json::Value| {
            line["text"].as_str().is_some_and(|text| text.contains(says))
        };
        ensure!(texts.any(told), "{}", journal.text());
        Ok(())
    })
}

#[test]
fn a_pair_whose_znodes_are_its_own_fails_over_and_lets_no_stranger_near() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = secret(folder.path(), "zk.auth", LINE);
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    for node in &mut pair.nodes {
        with_auth(node, &file);
    }
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let epoch = pair.nodes[master].role().unwrap().epoch;
    let stranger = Znodes::connect(&zookeeper.addresses()).unwrap();
    let owner = Znodes::connect_as(&zookeeper.addresses(), LINE).unwrap();
    for path in ["/hotpair", "/hotpair/trade", "/hotpair/trade/master", "/hotpair/trade/functions"]
    {
        assert!(stranger.read(path).is_err(), "{path}");
        assert!(stranger.below(path).is_err(), "{path}");
        assert!(stranger.write(path, b"{}").is_err(), "{path}");
        assert!(owner.read(path).unwrap().is_some(), "{path}");
    }
    let arguments = ["hotpair/test/1.0:echo", "--arguments", "1"];
    let (code, said, _) = pair.nodes[master].run("call", &arguments).unwrap();
    assert_eq!((code, said.trim()), (0, "1"));
    // Somebody awake would take over meanwhile, and then there is nothing to release.
    let standby = 1 - master;
    pair.nodes[standby].freeze().unwrap();
    pair.nodes[master].kill().unwrap();
    let released = pair.nodes[master].run("release", &[]).unwrap();
    pair.nodes[standby].thaw().unwrap();
    assert_eq!(released.0, 0, "{released:?}");
    assert_eq!(serves(&pair, standby).unwrap(), epoch + 1);
    pair.nodes[master].start_and_wait().unwrap();
    assert_eq!(settled(&pair).unwrap(), standby);
}

#[test]
fn a_node_with_a_wrong_password_says_so_until_it_is_mended() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    with_auth(&mut pair.nodes[0], &secret(folder.path(), "right", LINE));
    let guessed = secret(folder.path(), "guessed", "pair:a guess");
    with_auth(&mut pair.nodes[1], &guessed);
    let [a, b] = &mut pair.nodes;
    a.start_and_wait().unwrap();
    eventually(LIMIT, "a serves", || {
        ensure!(a.role()?.serving);
        Ok(())
    })
    .unwrap();
    b.start_and_wait().unwrap();
    eventually(LIMIT, "b says what is wrong", || {
        let said = why(b)?;
        ensure!(said.contains("closed to user pair") && said.contains("guessed"), "{said}");
        ensure!(!said.contains("a guess"), "{said}");
        Ok(())
    })
    .unwrap();
    alerted(b, "coordinator_lost", "closed to user pair").unwrap();
    b.stop(LIMIT).unwrap();
    secret(folder.path(), "guessed", LINE);
    b.start().unwrap();
    assert_eq!(settled(&pair).unwrap(), 0);
}

#[test]
fn an_open_pair_is_closed_one_node_after_the_other() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = secret(folder.path(), "zk.auth", LINE);
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let standby = 1 - master;
    pair.nodes[standby].stop(LIMIT).unwrap();
    with_auth(&mut pair.nodes[standby], &file);
    pair.nodes[standby].start_and_wait().unwrap();
    assert_eq!(settled(&pair).unwrap(), master, "the one that serves is not locked out");
    alerted(&pair.nodes[standby], "coordinator_open", "works without").unwrap();
    pair.nodes[master].stop(LIMIT).unwrap();
    serves(&pair, standby).unwrap();
    with_auth(&mut pair.nodes[master], &file);
    pair.nodes[master].start_and_wait().unwrap();
    assert_eq!(settled(&pair).unwrap(), standby);
    let stranger = Znodes::connect(&zookeeper.addresses()).unwrap();
    eventually(LIMIT, "the znodes are closed", || {
        for path in ["/hotpair", "/hotpair/trade", "/hotpair/trade/epoch", "/hotpair/trade/sync"] {
            ensure!(stranger.read(path).is_err(), "{path} is open");
        }
        Ok(())
    })
    .unwrap();
}

// --- the link

/// Certificates, made as operators make them.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        install(&[Need::OpenSsl]).unwrap();
        let this = Self(tempfile::tempdir().unwrap());
        this.make(&["authority"], "ours", &[]);
        this.make(&["authority"], "foreign", &[]);
        this
    }

    fn make(&self, what: &[&str], authority: &str, names: &[&str]) {
        let folder = self.0.path().join(authority);
        let mut script = Command::new(workspace().join("deploy/tls/certificates.sh"));
        run(script.arg(what[0]).arg(folder).args(&what[1..]).args(names)).unwrap();
    }

    /// Gives the node a certificate of this authority for these names, and trust in ours.
    fn give(&self, node: &mut Node, authority: &str, names: &[&str]) {
        let name = node.settings.node.clone();
        self.make(&["issue", &name], authority, names);
        let (ours, theirs) = (self.0.path().join("ours"), self.0.path().join(authority));
        for (key, file) in [
            ("CERTIFICATE", theirs.join(format!("{name}.pem"))),
            ("KEY", theirs.join(format!("{name}.key"))),
            ("AUTHORITY", ours.join("authority.pem")),
        ] {
            let variable = (format!("HOTPAIR__TLS__{key}"), file.display().to_string());
            node.environment.push(variable);
        }
    }
}

const NAMES: [&str; 2] = ["trade", "127.0.0.1"];

/// What the znode says of who is master, and in which epoch. Not asked by HTTP, which has TLS as well.
fn master_znode(znodes: &Znodes) -> Result<(String, u64)> {
    let data = znodes.read("/hotpair/trade/master")?.context("nobody is master")?;
    let master: serde_json::Value = serde_json::from_slice(&data)?;
    let node = master["node"].as_str().context("no node")?.to_owned();
    Ok((node, master["epoch"].as_u64().context("no epoch")?))
}

/// Waits until the sync record names both nodes: the redo stream has caught up.
fn both_in_sync(znodes: &Znodes) -> Result<()> {
    eventually(LIMIT, "both nodes are in sync", || {
        let data = znodes.read("/hotpair/trade/sync")?.context("there is no record")?;
        let record: serde_json::Value = serde_json::from_slice(&data)?;
        ensure!(record["in_sync"].as_array().map(Vec::len) == Some(2), "{record}");
        Ok(())
    })
}

#[test]
fn a_pair_whose_link_is_under_tls_replicates_and_takes_over_at_once() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let certificates = Certificates::new();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    for node in &mut pair.nodes {
        certificates.give(node, "ours", &NAMES);
        node.start().unwrap();
    }
    let znodes = Znodes::connect(&zookeeper.addresses()).unwrap();
    both_in_sync(&znodes).unwrap();
    let (name, epoch) = master_znode(&znodes).unwrap();
    let master = usize::from(name == pair.nodes[1].settings.node);
    pair.nodes[master].kill().unwrap();
    let successor = &pair.nodes[1 - master];
    eventually(LIMIT, "the other node takes over", || {
        let (node, now) = master_znode(&znodes)?;
        ensure!((node, now) == (successor.settings.node.clone(), epoch + 1));
        let gates = successor.gates()?;
        ensure!(!gates.is_empty(), "its gate was never open");
        Ok(())
    })
    .unwrap();
    // By proof of death, not by its silence.
    let causes = Journal::read(successor).unwrap().causes("promoting");
    assert_eq!(causes.last().map(String::as_str), Some("peer_dead"));
    pair.nodes[master].start().unwrap();
    both_in_sync(&znodes).unwrap();
}

#[test]
fn a_pair_changes_to_tls_one_node_after_the_other() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let certificates = Certificates::new();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    for node in &mut pair.nodes {
        node.start().unwrap();
    }
    let znodes = Znodes::connect(&zookeeper.addresses()).unwrap();
    both_in_sync(&znodes).unwrap();
    let insecure = ("HOTPAIR__TLS__INSECURE".to_owned(), "true".to_owned());
    for step in ["both are spoken", "TLS only"] {
        for index in [0, 1] {
            let node = &mut pair.nodes[index];
            node.stop(LIMIT).unwrap();
            // What the other one holds is enough to go on, at each step of the way.
            takes_over(&znodes, &pair.nodes[1 - index]).unwrap();
            let node = &mut pair.nodes[index];
            node.environment.clear();
            certificates.give(node, "ours", &NAMES);
            if step == "both are spoken" {
                node.environment.push(insecure.clone());
            }
            let before = meetings(node).unwrap();
            node.start().unwrap();
            eventually(LIMIT, "it meets its peer again", || {
                ensure!(meetings(node)? > before);
                Ok(())
            })
            .unwrap();
            both_in_sync(&znodes).unwrap();
        }
    }
    for node in &pair.nodes {
        let mut stranger = TcpStream::connect(node.settings.link).unwrap();
        stranger.set_read_timeout(Some(LIMIT)).unwrap();
        stranger.write_all(&[0, 0, 0, 2, 1, b'{']).unwrap();
        let mut said = Vec::new();
        stranger.read_to_end(&mut said).unwrap();
        assert!(String::from_utf8_lossy(&said).contains("speaks TLS only"));
    }
}

/// Waits until this node holds the mastership.
fn takes_over(znodes: &Znodes, node: &Node) -> Result<()> {
    eventually(LIMIT, "the other node is master", || {
        let (name, _) = master_znode(znodes)?;
        ensure!(name == node.settings.node, "{name} is");
        Ok(())
    })
}

/// How often the node's peer began to answer, in all its lives.
fn meetings(node: &Node) -> Result<usize> {
    let journal = Journal::read(node)?;
    Ok(journal.of("peer").filter(|line| line["text"] == "the peer answers").count())
}

#[test]
fn a_peer_with_a_foreign_certificate_is_kept_out_and_both_say_why() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let certificates = Certificates::new();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    certificates.give(&mut pair.nodes[0], "ours", &NAMES);
    certificates.give(&mut pair.nodes[1], "foreign", &NAMES);
    for node in &mut pair.nodes {
        node.start().unwrap();
    }
    alerted(&pair.nodes[0], "peer_unreachable", "not signed by an authority").unwrap();
    // It trusts ours, and hears why it is refused.
    alerted(&pair.nodes[1], "peer_unreachable", "our certificate is not signed by").unwrap();
    // Mended, they meet.
    let b = &mut pair.nodes[1];
    b.stop(LIMIT).unwrap();
    b.environment.clear();
    certificates.give(b, "ours", &NAMES);
    b.start().unwrap();
    both_in_sync(&Znodes::connect(&zookeeper.addresses()).unwrap()).unwrap();
}

#[test]
fn a_plain_peer_is_kept_out_and_both_say_which_end_lacks_what() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let certificates = Certificates::new();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    certificates.give(&mut pair.nodes[0], "ours", &NAMES);
    for node in &mut pair.nodes {
        node.start().unwrap();
    }
    let [secure, plain] = &pair.nodes;
    alerted(secure, "peer_unreachable", "lacks tls.certificate").unwrap();
    alerted(plain, "peer_unreachable", "tls.certificate").unwrap();
}
