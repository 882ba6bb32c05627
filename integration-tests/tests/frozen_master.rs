//! A master is frozen with work in hand, replaced, and wakes up: it changes nothing any more, neither
//! in its peer's tables, nor in the registry, nor at a client. One test for each.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::steps::{LIMIT, serves};
use hotpair_integration_tests::table_lab::{ATTEMPT_LIMIT, Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_integration_tests::znodes::Znodes;
use hotpair_lab::checker::tables::Operation;
use hotpair_lab::checker::{Enough, Outcome, Request};
use hotpair_lab::load::now_ns;
use hotpair_lab::session::Session;
use hotpair_lab::table_load::{Plan, TableLoad};
use hotpair_lab::wait::{eventually, throughout};
use serde_json::{Value, json};

const SESSION: Duration = Duration::from_secs(2);
const AFTERWARDS: Duration = Duration::from_secs(4);
/// Before a silent standby is taken out of the record of who is in sync.
const SILENCE_MAX: Duration = Duration::from_millis(800);
const TRIES: usize = 4;
const FROZEN: &str = "frozen master";
const PATIENT_ROW: &str = "patient/counter";
const MARKS: usize = 5;
const PATIENT: usize = 8;
/// Of the pair's own functions: each is an entry of the registry.
const SERVICES: [&str; 4] = ["dataset", "functions", "table", "test"];

/// A master that was frozen while changes of its waited for the standby, and its successor.
struct Frozen {
    /// None once ended.
    load: Option<TableLoad>,
    /// Sent puts to the old master alone and did not wait: their numbers are still open.
    marker: Session,
    marks: Vec<(u64, Operation)>,
    /// Clients that wait for the old master however long it takes.
    patient: Vec<JoinHandle<Request>>,
    lab: TableLab,
    old: usize,
    epoch: u64,
}

impl Frozen {
    fn new() -> Self {
        let found = (0..TRIES).find_map(|_| Self::attempt().unwrap());
        found.unwrap_or_else(|| panic!("the moment was missed {TRIES} times"))
    }

    /// None: a busy machine took so long that the standby was not in sync any more.
    fn attempt() -> Result<Option<Self>> {
        let options = Options { session_timeout: SESSION, relays: true, ..Options::default() };
        let mut lab = TableLab::new(&options)?;
        let old = lab.in_sync()?;
        let epoch = lab.epoch(old)?;
        let user = lab.user.clone();
        let plan = Plan { clients: 3, threads: 2, watchers: 2, pause_ms_max: 10, seed: 1, user };
        let load = Some(lab.start_load(&plan)?);
        let (marker, _) = lab.session("marker", ATTEMPT_LIMIT)?;
        let (patient, _) = lab.session("patient", LIMIT * 2)?;
        let patient = Arc::new(patient);
        let marks = (0..MARKS).map(|mark| {
            let (row, value) = (mark_row(mark), "a mark".to_owned());
            let number = marker.reserve().context("numbers are free")?;
            Ok((number, Operation::Put { row, value }))
        });
        let marks = marks.collect::<Result<Vec<_>>>()?;
        let held = Instant::now();
        lab.hold_link();
        thread::scope(|scope| {
            for (number, put) in &marks {
                scope.spawn(|| marker.call_unheard(*number, put, old));
            }
        });
        // Some whose changes wait for the standby, and some who come to a closed door.
        let mut patients = wait_patiently(&patient);
        thread::sleep(Duration::from_millis(100));
        lab.freeze(old)?;
        if held.elapsed() > SILENCE_MAX {
            return Ok(None);
        }
        patients.extend(wait_patiently(&patient));
        thread::sleep(Duration::from_millis(100));
        lab.sever_link();
        serves(&lab.pair, 1 - old)?;
        lab.note(FROZEN, now_ns());
        Ok(Some(Self { load, marker, marks, patient: patients, lab, old, epoch }))
    }

    /// The old master wakes up and follows.
    fn wake(&mut self) {
        self.lab.thaw(self.old).unwrap();
        assert_eq!(self.lab.in_sync().unwrap(), 1 - self.old);
        assert!(self.lab.epoch(1 - self.old).unwrap() > self.epoch);
    }

    /// What the marks' rows show.
    fn looks_at_marks(&self) -> Vec<(Option<String>, Option<u64>)> {
        let look = |mark| {
            let look = self.marker.look(&mark_row(mark), false);
            assert_eq!(look.outcome, Some(Outcome::Ok), "{look:?}");
            look.answer.map(|answer| (answer.value, answer.version)).unwrap_or_default()
        };
        (0..MARKS).map(look).collect()
    }

    /// All rows of the clients, with their versions.
    fn rows(&self) -> Vec<Value> {
        let all = json!({"table": "load", "from": "", "limit": 1_000});
        let rows = eventually(LIMIT, "somebody lists the rows", || self.marker.ask(1005, &all));
        let rows = rows.unwrap()["rows"].as_array().cloned().unwrap();
        assert!(!rows.is_empty());
        rows
    }

    /// Everybody finds the end of what they asked for; all that was asked and told.
    fn end(&mut self) -> Vec<Request> {
        for patient in self.patient.drain(..) {
            let request = patient.join().unwrap();
            assert_eq!(request.outcome, Some(Outcome::Ok), "{request:?}");
        }
        for (number, put) in &self.marks {
            self.marker.call(*number, put);
            self.marker.look(put.row().unwrap(), true);
        }
        self.marker.look(PATIENT_ROW, true);
        self.load.take().unwrap().stop(LIMIT).unwrap()
    }

    /// The whole history is good.
    fn judge(mut self, requests: Vec<Request>) {
        let planned = vec![FROZEN.to_owned()];
        let enough = Enough { planned, acknowledged_min: 50, epochs_min: 2 };
        let report = self.lab.judge(requests, &enough).unwrap();
        assert!(report.is_good(), "{report}");
        assert_eq!((report.failed, report.unknown), (0, 0), "{report}");
    }
}

fn mark_row(mark: usize) -> String {
    format!("marks/{mark}")
}

fn wait_patiently(patient: &Arc<Session>) -> Vec<JoinHandle<Request>> {
    let call = |place| {
        let patient = Arc::clone(patient);
        thread::spawn(move || {
            if place % 2 == 0 {
                return patient.look(PATIENT_ROW, false);
            }
            let number = patient.reserve().unwrap();
            patient.call(number, &Operation::Add { row: PATIENT_ROW.to_owned() })
        })
    };
    (0..PATIENT).map(call).collect()
}

/// Whether a file below this folder was set aside.
fn set_aside(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() { set_aside(&path) } else { name.starts_with("aside-") }
    })
}

#[test]
fn nothing_that_a_frozen_master_had_in_hand_reaches_its_peers_tables() {
    let _turn = Turn::alone().unwrap();
    let mut frozen = Frozen::new();
    let absent = vec![(None, Some(0)); MARKS];
    assert_eq!(frozen.looks_at_marks(), absent, "what was never shipped is not there");
    frozen.wake();
    assert_eq!(frozen.looks_at_marks(), absent);
    let old = &frozen.lab.pair.nodes[frozen.old];
    assert!(set_aside(&old.settings.directory), "what only the old master had is set aside");
    let log = fs::read_to_string(old.folder().join("log")).unwrap();
    assert!(log.contains("aside"), "and it is said: {log}");
    let requests = frozen.end();
    let rows = frozen.rows();
    frozen.lab.switch_over().unwrap();
    assert_eq!(frozen.rows(), rows, "the old master has the same rows in the same versions");
    frozen.judge(requests);
}

#[test]
fn a_frozen_master_that_wakes_up_registers_nothing() {
    let _turn = Turn::alone().unwrap();
    let mut frozen = Frozen::new();
    let successor = &frozen.lab.pair.nodes[1 - frozen.old];
    let next = successor.role().unwrap().epoch;
    let name = format!("{}-{next}", successor.settings.node);
    let old_name = format!("{}-{}", frozen.lab.pair.nodes[frozen.old].settings.node, frozen.epoch);
    let znodes = Znodes::connect(&frozen.lab.zookeeper.addresses()).unwrap();
    let registry = || -> Result<Vec<(u64, Vec<String>)>> {
        let epoch = znodes.read("/hotpair/trade/epoch")?.context("there is an epoch")?;
        let epoch: Value = serde_json::from_slice(&epoch)?;
        let epoch = epoch["epoch"].as_u64().with_context(|| format!("no epoch in {epoch}"))?;
        let entries =
            |service| znodes.below(&format!("/hotpair/trade/functions/hotpair/{service}/1.0"));
        SERVICES.iter().map(|service| Ok((epoch, entries(service)?))).collect()
    };
    // Entries of the old session may live on for a while: their epoch is not the one that counts.
    eventually(LIMIT, "the successor is registered", || {
        let registry = registry()?;
        let listed = |(epoch, names): &(u64, Vec<String>)| {
            *epoch == next
                && names.iter().all(|each| *each == name || *each == old_name)
                && names.contains(&name)
        };
        ensure!(registry.iter().all(listed), "{registry:?}");
        Ok(())
    })
    .unwrap();
    frozen.wake();
    let only = vec![(next, vec![name.clone()]); SERVICES.len()];
    eventually(LIMIT, "the entries of the old session are gone", || {
        let registry = registry()?;
        ensure!(registry == only, "{registry:?}");
        Ok(())
    })
    .unwrap();
    throughout(AFTERWARDS, "nothing but the successor is registered", || {
        let registry = registry()?;
        ensure!(registry == only, "{registry:?}");
        Ok(())
    })
    .unwrap();
    let requests = frozen.end();
    frozen.judge(requests);
}

#[test]
fn no_client_hears_of_a_frozen_masters_epoch_after_the_next_one() {
    let _turn = Turn::alone().unwrap();
    let mut frozen = Frozen::new();
    let old_epoch = frozen.epoch;
    frozen.wake();
    let requests = frozen.end();
    let told = |request: &&Request| request.outcome == Some(Outcome::Ok);
    let first = requests
        .iter()
        .filter(told)
        .filter(|request| request.epoch > Some(old_epoch))
        .filter_map(|request| request.done_ns)
        .min();
    let first = first.unwrap();
    // However early it was asked: clients of the old master waited for it until it woke up.
    let late: Vec<&Request> = requests
        .iter()
        .filter(told)
        .filter(|request| request.epoch <= Some(old_epoch) && request.done_ns > Some(first))
        .collect();
    assert!(late.is_empty(), "{late:#?}");
    let waited =
        |request: &&Request| request.client.starts_with("patient") && request.at_ns < first;
    assert!(requests.iter().filter(told).filter(waited).count() >= PATIENT, "clients did wait");
    frozen.judge(requests);
}
