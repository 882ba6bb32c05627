//! The unit under a real systemd: active when ready, restarted when frozen, released when killed.
//!
//! Runs with `HOTPAIR_SOAK=1` (`make soak`): it needs root, and the first time it makes a minimal
//! Debian, which takes a minute or two. The first half uses a stand-in for the node, which shows
//! that the harness tells good from bad; the second half is the node itself.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, which report by panicking and printing"
)]

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hotpair_integration_tests::nspawn::Container;
use hotpair_integration_tests::turn::Turn;
use hotpair_integration_tests::workspace;
use hotpair_lab::node::{Pair, built_beside, hotpair};
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;

const UNIT: &str = "hotpair@a.service";
const LIMIT: Duration = Duration::from_secs(60);

/// Whether to run; says so where not.
fn wanted(test: &str) -> bool {
    let wanted = env::var_os("HOTPAIR_SOAK").is_some();
    if !wanted {
        println!("{test}: skipped, set HOTPAIR_SOAK=1 (make soak)");
    }
    wanted
}

/// A container with the unit as shipped, this program as `/usr/bin/hotpair`, and a configuration.
fn container(program: &Path, configuration: &str, drop_in: &str) -> Container {
    let container = Container::boot().unwrap();
    let deploy = workspace().join("deploy/systemd");
    container.copy(program, "/usr/bin/hotpair").unwrap();
    container
        .copy(&deploy.join("hotpair@.service"), "/etc/systemd/system/hotpair@.service")
        .unwrap();
    container.copy(&deploy.join("hotpair.sysusers"), "/usr/lib/sysusers.d/hotpair.conf").unwrap();
    container.write("/etc/hotpair/a.toml", configuration).unwrap();
    container.write("/etc/hotpair/admin.token", "integration-test-token").unwrap();
    container.write("/etc/systemd/system/hotpair@.service.d/test.conf", drop_in).unwrap();
    container
        .run("systemd-sysusers && chgrp -R hotpair /etc/hotpair && chmod 640 /etc/hotpair/admin.token && systemctl daemon-reload")
        .unwrap();
    container
}

fn state(container: &Container) -> Result<String> {
    container.property(UNIT, "ActiveState")
}

fn wait_for_state(container: &Container, wanted: &str) {
    let waited = eventually(LIMIT, &format!("{UNIT} is {wanted}"), || {
        let state = state(container)?;
        ensure!(state == wanted, "it is {state}");
        Ok(())
    });
    if let Err(error) = waited {
        panic!("{error:#}\n{}", container.journal(UNIT).unwrap());
    }
}

/// Does something that ends the process; how long until the unit is active with another process.
fn time_until_restarted(container: &Container, blow: impl FnOnce()) -> Duration {
    let before = container.property(UNIT, "MainPID").unwrap();
    let began = Instant::now();
    blow();
    let restarted = eventually(LIMIT, "another process is active", || {
        let now = container.property(UNIT, "MainPID")?;
        ensure!(now != before && now != "0", "process {now}, before {before}");
        ensure!(state(container)? == "active", "not active");
        Ok(())
    });
    if let Err(error) = restarted {
        panic!("{error:#}\n{}", container.journal(UNIT).unwrap());
    }
    began.elapsed()
}

fn released(container: &Container) -> Vec<String> {
    let text = container.run("cat /var/lib/hotpair/released 2>/dev/null || true").unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_harness_sees_readiness_watchdog_and_release_with_a_stand_in() {
    if !wanted("stand-in") {
        return;
    }
    let _turn = Turn::alone().unwrap();
    let program = built_beside("hotpair-stand-in", "hotpair-integration-tests").unwrap();
    let container =
        container(&program, "", "[Service]\nEnvironment=STAND_IN_READY_AFTER_MS=1500\n");
    container.run(&format!("systemctl start --no-block {UNIT}")).unwrap();
    wait_for_state(&container, "activating");
    wait_for_state(&container, "active");

    let frozen = time_until_restarted(&container, || container.signal(UNIT, "STOP").unwrap());
    println!("frozen -> active again: {frozen:?}");
    assert!(container.journal(UNIT).unwrap().contains("Watchdog timeout"));
    assert_eq!(released(&container), ["watchdog"]);

    let killed = time_until_restarted(&container, || container.signal(UNIT, "KILL").unwrap());
    println!("killed -> active again: {killed:?}");
    assert_eq!(released(&container), ["watchdog", "signal"]);

    container.run(&format!("systemctl stop {UNIT}")).unwrap();
    assert_eq!(released(&container), ["watchdog", "signal", "success"]);
}

/// The node's configuration as it is to lie inside the container.
fn inside(pair: &Pair) -> String {
    let mut settings = pair.nodes[0].settings.clone();
    settings.directory = "/var/lib/hotpair".into();
    settings.toml(Path::new("/etc/hotpair/admin.token"))
}

#[test]
fn the_unit_is_active_only_once_zookeeper_is_there_and_the_node_serves() {
    if !wanted("readiness") {
        return;
    }
    let _turn = Turn::alone().unwrap();
    let mut zookeeper = ZooKeeper::standalone().unwrap();
    zookeeper.kill(0).unwrap();
    let pair = Pair::here(&zookeeper.addresses()).unwrap();
    let container = container(&hotpair().unwrap(), &inside(&pair), "");
    container.run(&format!("systemctl start --no-block {UNIT}")).unwrap();
    // The node runs and answers, and yet is not ready.
    eventually(LIMIT, "the node answers", || pair.nodes[0].role().map(drop)).unwrap();
    assert_eq!(state(&container).unwrap(), "activating");
    zookeeper.start_again(0).unwrap();
    zookeeper.wait_until_serving().unwrap();
    wait_for_state(&container, "active");
    let role = pair.nodes[0].role().unwrap();
    assert!(role.serving, "{role:?}");
}

#[test]
fn a_frozen_master_is_restarted_by_its_watchdog() {
    if !wanted("watchdog") {
        return;
    }
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let pair = Pair::here(&zookeeper.addresses()).unwrap();
    let container = container(&hotpair().unwrap(), &inside(&pair), "");
    container.run(&format!("systemctl start {UNIT}")).unwrap();
    let before = pair.nodes[0].role().unwrap();
    let frozen = time_until_restarted(&container, || container.signal(UNIT, "STOP").unwrap());
    println!("frozen -> active again: {frozen:?}");
    assert!(container.journal(UNIT).unwrap().contains("Watchdog timeout"));
    eventually(LIMIT, "it serves again, in a later epoch", || {
        let role = pair.nodes[0].role()?;
        ensure!(role.serving && role.epoch > before.epoch, "{role:?} after {before:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_killed_master_is_released_at_once_so_that_the_peer_need_not_wait() {
    if !wanted("release") {
        return;
    }
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    for node in &mut pair.nodes {
        // Without the quick way, and with a session far longer than the test would wait.
        node.settings.fast_takeover = false;
        node.settings.session_timeout = Duration::from_secs(8);
    }
    // Not started again at once, so that the peer has the field to itself.
    let container = container(&hotpair().unwrap(), &inside(&pair), "[Service]\nRestartSec=30s\n");
    container.run(&format!("systemctl start {UNIT}")).unwrap();
    eventually(LIMIT, "a serves", || {
        ensure!(pair.nodes[0].role()?.serving, "not yet");
        Ok(())
    })
    .unwrap();
    pair.nodes[1].start_and_wait().unwrap();
    let began = Instant::now();
    container.signal(UNIT, "KILL").unwrap();
    eventually(LIMIT, "b serves", || {
        ensure!(pair.nodes[1].role()?.serving, "not yet");
        Ok(())
    })
    .unwrap();
    let took = began.elapsed();
    println!("killed -> peer serves: {took:?}");
    // A session of 8 s would have taken between 8 and 9 s to end by itself.
    assert!(took < Duration::from_secs(4), "{took:?}\n{}", container.journal(UNIT).unwrap());
}
