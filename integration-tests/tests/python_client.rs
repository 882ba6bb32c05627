//! The Python package: its own tests, and its client against a real pair that is broken meanwhile.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::steps::{LIMIT, serves};
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_integration_tests::workspace;
use hotpair_lab::need::{Need, install};
use serde_json::Value;

fn package() -> PathBuf {
    workspace().join("crates/edges/client/python")
}

/// Python (installed where it is missing), with the package in reach and without leaving compiled files beside it.
fn python(arguments: &[&str]) -> Command {
    install(&[Need::Python]).unwrap();
    let mut command = Command::new("python3");
    command.args(arguments).current_dir(package());
    command.env("PYTHONPATH", package()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[test]
fn the_packages_own_tests_pass() {
    let output = python(&["-m", "unittest", "discover", "-s", "tests"])
        .output()
        .expect("python3 was just seen to be there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Ran 7 tests"), "{said}");
}

/// The live test's process, and the lines that it says.
struct Live {
    process: Child,
    said: Receiver<String>,
}

impl Live {
    fn start(lab: &TableLab) -> Result<Self> {
        let addresses: Vec<String> =
            lab.pair.nodes.iter().map(|node| node.settings.client.to_string()).collect();
        let mut command = python(&["tests/live.py"]);
        if let Some(certificates) = &lab.certificates {
            command.env("HOTPAIR_TLS_AUTHORITY", certificates.authority());
        }
        let mut process = command
            .env("HOTPAIR_TARGETS", addresses.join(","))
            .env("HOTPAIR_USER", &lab.user.name)
            .env("HOTPAIR_PASSWORD", &lab.user.password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run python3")?;
        let output = process.stdout.take().context("its output is ours")?;
        let (tell, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, said })
    }

    fn line(&self) -> Result<String> {
        self.said.recv_timeout(LIMIT).context("tests/live.py says nothing")
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Gone already, as a rule.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_client_lives_through_a_kill_a_switch_and_a_freeze_and_counts_once() {
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let mut live = Live::start(&lab).unwrap();
    assert_eq!(live.line().unwrap(), "counting");
    let master = lab.in_sync().unwrap();
    lab.kill(master).unwrap();
    serves(&lab.pair, 1 - master).unwrap();
    lab.start(master).unwrap();
    lab.switch_over().unwrap();
    let master = lab.in_sync().unwrap();
    lab.freeze(master).unwrap();
    serves(&lab.pair, 1 - master).unwrap();
    lab.thaw(master).unwrap();
    lab.in_sync().unwrap();
    counted_once(&mut live, 100);
}

#[test]
fn the_client_speaks_tls() {
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options { tls: true, ..Options::default() }).unwrap();
    let mut live = Live::start(&lab).unwrap();
    assert_eq!(live.line().unwrap(), "counting");
    let master = lab.in_sync().unwrap();
    lab.kill(master).unwrap();
    serves(&lab.pair, 1 - master).unwrap();
    lab.start(master).unwrap();
    lab.in_sync().unwrap();
    counted_once(&mut live, 10);
}

fn counted_once(live: &mut Live, at_least: u64) {
    writeln!(live.process.stdin.take().unwrap(), "enough").unwrap();
    let said: Value = serde_json::from_str(&live.line().unwrap()).unwrap();
    let check = || -> Result<()> {
        ensure!(said["counted"].as_u64().is_some_and(|counted| counted > at_least), "hardly any");
        ensure!(said["counted"] == said["row"], "lost or doubled");
        ensure!(said["logins"] == 1, "logged in again");
        Ok(())
    };
    check().with_context(|| said.to_string()).unwrap();
    assert!(live.process.wait().unwrap().success());
}
