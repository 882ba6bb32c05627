//! A node that stands alone: warm and clean starts, and how it becomes one of a pair.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use hotpair_integration_tests::data_steps::{
    does_not_serve, program, same_rows_at_the_other, says_why,
};
use hotpair_integration_tests::rows::Client;
use hotpair_integration_tests::steps::LIMIT;
use hotpair_integration_tests::table_lab::{Options, TableLab, users_file};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::node::{Node, Pair, Role, hotpair};
use hotpair_lab::process::Process;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::session::User;
use hotpair_lab::wait::eventually;

const SESSION_UNKNOWN: i64 = 308_000_001;

/// A node alone at the place and with the data of one of a pair.
struct Alone {
    process: Option<Process>,
    config: PathBuf,
    user: User,
    scratch: Scratch,
}

impl Alone {
    fn of(node: &Node) -> Self {
        let scratch = Scratch::new("alone").unwrap();
        let user = User { name: "tester".to_owned(), password: "a password".to_owned() };
        let users = users_file(&scratch.join("users.toml"), &user).unwrap();
        let settings = &node.settings;
        let text = format!(
            "pair = \"trade\"\nnode = {:?}\n[listen]\nclient = \"{}\"\nadmin = \"{}\"\n\
             [coordinator]\nkind = \"standalone\"\n[tables]\ndirectory = {:?}\n\
             [sessions]\nusers_file = {users:?}\n",
            settings.node, settings.client, settings.admin, settings.directory
        );
        let config = scratch.write("config.toml", text).unwrap();
        Self { process: None, config, user, scratch }
    }

    /// Starts it; it is never a standby, from its first word on.
    fn start(&mut self, node: &Node, arguments: &[&str]) -> Role {
        let mut command = Command::new(hotpair().unwrap());
        command.arg("node").arg("--config").arg(&self.config).args(arguments);
        let log = self.scratch.join("log");
        self.process = Some(Process::start("node alone", &mut command, &log).unwrap());
        let mut standby = false;
        let role = eventually(LIMIT, "it serves", || {
            let role = node.role()?;
            standby |= role.role == "standby";
            ensure!(role.serving, "{role:?}");
            Ok(role)
        });
        assert!(!standby, "nobody else could be master");
        role.unwrap()
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill().unwrap();
    }

    fn stop(&mut self) {
        self.process.take().unwrap().terminate(LIMIT).unwrap();
    }

    fn login(&self, node: &Node) -> Client {
        Client::login(vec![node.client()], &self.user).unwrap()
    }
}

#[test]
fn a_node_alone_keeps_rows_and_sessions_through_a_kill_and_empties_them_when_told_to() {
    let _turn = Turn::alone().unwrap();
    let pair = Pair::here(&["127.0.0.1:9".parse().unwrap()]).unwrap();
    let node = &pair.nodes[0];
    let mut alone = Alone::of(node);
    let first = alone.start(node, &[]);
    let client = alone.login(node);
    for number in 0..100 {
        client.put(&format!("row-{number}"), "kept").unwrap();
    }
    let rows = client.rows().unwrap();
    alone.kill();
    let second = alone.start(node, &[]);
    assert!(second.epoch > first.epoch, "{second:?} after {first:?}");
    assert_eq!(client.heartbeat().unwrap(), 0, "the session survives");
    assert_eq!(client.rows().unwrap(), rows);
    alone.kill();

    let third = alone.start(node, &["--clean"]);
    assert!(third.epoch > second.epoch, "an epoch never comes again: {third:?}");
    assert_eq!(client.heartbeat().unwrap(), SESSION_UNKNOWN);
    let again = alone.login(node);
    assert_eq!(again.rows().unwrap(), Vec::<serde_json::Value>::new());
    again.put("row", "new").unwrap();
    alone.stop();
    alone.start(node, &[]);
    assert_eq!(again.heartbeat().unwrap(), 0, "a clean start is one start");
    assert_eq!(again.value("row").unwrap().as_deref(), Some("new"));
}

#[test]
fn a_node_with_data_from_its_life_alone_is_master_of_a_new_pair_and_its_empty_peer_loads_it() {
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    for node in &mut lab.pair.nodes {
        node.stop(LIMIT).unwrap();
        std::fs::remove_dir_all(&node.settings.directory).unwrap();
        node.settings.root = "/new".to_owned();
    }
    let node = &lab.pair.nodes[1];
    std::fs::create_dir(&node.settings.directory).unwrap();
    let mut alone = Alone::of(node);
    let epoch = alone.start(node, &[]).epoch;
    let client = alone.login(node);
    for number in 0..100 {
        client.put(&format!("row-{number}"), "kept").unwrap();
    }
    alone.stop();
    let nodes = lab.pair.nodes.iter().map(Node::client).collect();
    // Alone it cannot know that the other one has less.
    lab.start(1).unwrap();
    says_why(&lab.pair.nodes[1], &["start the peer"]).unwrap();
    does_not_serve(&lab.pair.nodes[1]).unwrap();
    lab.start(0).unwrap();
    assert_eq!(lab.in_sync().unwrap(), 1, "the one with data");
    assert!(lab.epoch(1).unwrap() > epoch, "epochs only grow");
    let client = client.at(nodes);
    assert_eq!(client.rows().unwrap().len(), 100);
    assert_eq!(client.heartbeat().unwrap(), 0, "the session goes on in the pair");
    same_rows_at_the_other(&mut lab, &client).unwrap();
}

#[test]
fn a_node_with_a_peer_is_emptied_only_by_force_and_loads_everything_again() {
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("row", "kept").unwrap();
    let standby = 1 - lab.in_sync().unwrap();
    let node = &mut lab.pair.nodes[standby];
    node.stop(LIMIT).unwrap();
    let (code, _, said) = node.run("node", &["--clean"]).unwrap();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--clean") && said.contains("--force"), "{said}");
    let line = format!("exec {} \"$@\" --clean --force", hotpair().unwrap().display());
    node.binary = Some(program(node, &line).unwrap());
    lab.start(standby).unwrap();
    assert_eq!(lab.in_sync().unwrap(), 1 - standby);
    same_rows_at_the_other(&mut lab, &client).unwrap();
    assert_eq!(client.value("row").unwrap().as_deref(), Some("kept"));
    assert_eq!(client.heartbeat().unwrap(), 0);
}
