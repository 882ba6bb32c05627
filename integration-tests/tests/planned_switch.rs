//! The planned switch with real processes: nothing is lost, doubled or failed under load; what runs too
//! long undoes it; and whoever dies, stands still or is cut off between two of its steps, the pair
//! ends with exactly one that serves.
//!
//! Needs the binary that knows fault points (`make planted`; `make test` builds it first).
//! `HOTPAIR_POINT='killed at open'` goes through the points with these words only.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::collections::VecDeque;
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hotpair_integration_tests::steps::LIMIT;
use hotpair_integration_tests::table_lab::{Options, Planted, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::{Enough, Fault};
use hotpair_lab::http::{Answer, Http};
use hotpair_lab::load::now_ns;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::session::User;
use hotpair_lab::table_load::{Plan, TableLoad};
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};

const DONE: i64 = 0;
const SERVES_NOT: i64 = 308_000_005;
const PHASES: [&str; 7] =
    ["preflight", "hold", "drain", "barrier", "handover", "resign", "takeover"];

fn load(user: &User, clients: usize, threads: usize) -> Plan {
    Plan { clients, threads, watchers: 1, pause_ms_max: 20, seed: 7, user: user.clone() }
}

/// So many more changes are acknowledged from now on.
fn goes_on(load: &TableLoad, more: u64) -> Result<()> {
    let before = load.acknowledged();
    eventually(LIMIT, "the clients are served", || {
        let since = load.acknowledged() - before;
        ensure!(since >= more, "only {since} changes");
        Ok(())
    })
}

/// A switch that is done: until then it is ordered again, as a busy machine's may be refused or undone.
/// Who gave it, in which epoch, and what was answered.
fn switched(lab: &TableLab) -> Result<(u64, Value)> {
    eventually(LIMIT, "a switch is done", || {
        let master = lab.in_sync()?;
        let epoch = lab.epoch(master)?;
        let (status, answer) = order(lab, master)?;
        let told = (&answer["done"], &answer["epoch"]);
        assert!(status == 200 || told == (&json!(false), &json!(epoch)), "{answer}");
        ensure!(status == 200, "{answer}");
        Ok((epoch, answer))
    })
}

/// What the master says to the order.
fn order(lab: &TableLab, master: usize) -> Result<(u16, Value)> {
    let admin = lab.pair.nodes[master].admin().with_limit(LIMIT);
    let answer = admin.post("/switchover", &json!({"dry_run": false}))?;
    let body = answer.json()?;
    Ok((answer.status, body))
}

fn phases(answer: &Value) -> Vec<&str> {
    let phases = answer["phases"].as_array().unwrap();
    phases.iter().map(|phase| phase["phase"].as_str().unwrap()).collect()
}

#[test]
fn planned_switches_under_load_lose_double_and_fail_nothing() {
    const SWITCHES: u64 = 4;
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let load = lab.start_load(&load(&lab.user, 8, 2)).unwrap();
    for _ in 0..SWITCHES {
        goes_on(&load, 200).unwrap();
        let (epoch, answer) = switched(&lab).unwrap();
        assert_eq!(answer["done"], true, "{answer}");
        assert_eq!((&answer["epoch"], &answer["reason"]), (&json!(epoch + 1), &Value::Null));
        assert_eq!(phases(&answer), PHASES, "{answer}");
    }
    goes_on(&load, 200).unwrap();
    let requests = load.stop(LIMIT).unwrap();
    lab.in_sync().unwrap();
    let epochs_min = usize::try_from(1 + SWITCHES).unwrap();
    let enough = Enough { planned: Vec::new(), acknowledged_min: 1_000, epochs_min };
    let report = lab.judge(requests, &enough).unwrap();
    assert!(report.is_good() && report.failed == 0 && report.unknown == 0, "{report}");
}

/// What clients were told while the gate held.
fn told_meanwhile(lab: &TableLab, master: usize, over: &dyn Fn() -> bool) -> Vec<Value> {
    let mut told = Vec::new();
    while !over() {
        told.push(lab.pair.nodes[master].call(1901, &json!({})).unwrap());
    }
    told
}

/// A call that takes a while, sent off.
fn send_slow_call(lab: &TableLab, master: usize) -> Result<TcpStream> {
    let node = &lab.pair.nodes[master];
    let address = node.settings.client;
    let body = json!({"function": 1902, "arguments": {"ms": 3_000}, "timeout_ms": 10_000});
    let body = body.to_string();
    let mut stream = node.place().connect(address, LIMIT)?;
    let head = format!(
        "POST /v1/call HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    Ok(stream)
}

fn read_envelope(mut stream: TcpStream) -> Result<Value> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).with_context(|| format!("no envelope: {answer}"))
}

#[test]
fn a_function_that_runs_too_long_undoes_the_switch_and_the_epoch_serves_on() {
    let _turn = Turn::alone().unwrap();
    let lab = TableLab::new(&Options::default()).unwrap();
    // A call that has not come in yet when the order comes does not keep it up: then once more.
    eventually(LIMIT, "a call is inside when the switch is ordered", || {
        let master = lab.in_sync()?;
        let epoch = lab.epoch(master)?;
        let slow = send_slow_call(&lab, master)?;
        // It is inside when a call made after it is answered, as a rule.
        lab.pair.nodes[master].call(1901, &json!({}))?;
        let ((status, answer), told) = thread::scope(|scope| {
            let ordered = scope.spawn(|| order(&lab, master));
            let told = told_meanwhile(&lab, master, &|| ordered.is_finished());
            anyhow::Ok((ordered.join().unwrap()?, told))
        })?;
        let slow = read_envelope(slow)?;
        ensure!(status == 409 && phases(&answer) != PHASES[..1], "not undone: {answer}");
        assert_eq!((&answer["done"], &answer["epoch"]), (&json!(false), &json!(epoch)), "{answer}");
        let reason = answer["reason"].as_str().unwrap();
        // Whoever stood still himself undoes it for that.
        ensure!(reason.contains("did not end within"), "{reason}");
        assert!(reason.contains("this node serves on in epoch"), "{reason}");
        assert_eq!(phases(&answer), PHASES[..3], "{answer}");
        // Who was inside is answered, in the epoch it came in; who came later was refused unexecuted.
        assert_eq!((&slow["error_no"], &slow["epoch"]), (&json!(0), &json!(epoch)), "{slow}");
        let refused = told.iter().filter(|envelope| envelope["error_no"] == SERVES_NOT);
        assert!(refused.clone().count() > 0, "nobody was refused in a second: {told:?}");
        for envelope in &told {
            let known = [DONE, SERVES_NOT].contains(&envelope["error_no"].as_i64().unwrap());
            assert!(known && envelope["data"]["executed"].is_null(), "{envelope}");
        }
        let role = lab.pair.nodes[master].role()?;
        assert!(role.serving && role.epoch == epoch, "{role:?}");
        assert_eq!(lab.pair.nodes[master].call(1901, &json!({}))?["error_no"], DONE);
        Ok(())
    })
    .unwrap();
    // And nothing is left of it.
    assert_eq!(switched(&lab).unwrap().1["done"], true);
}

// --- who dies between two steps

/// Steps that the old master comes to, in order.
const AT_MASTER: [&str; 7] =
    ["hold", "drain", "barrier", "handover", "handover.written", "resign", "resigned"];
/// Steps that the new one comes to.
const AT_PEER: [&str; 3] = ["claim", "claimed", "open"];
/// What happens before these, happens before the handover is written.
const UNDOABLE: [&str; 3] = ["hold", "drain", "barrier"];
/// From here on the sync record names the new master alone: what falls then is waited for, because
/// nobody else is known to have every change.
const NAMED_ALONE: [&str; 2] = ["claimed", "open"];

/// What happens at a step, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill {
        master: bool,
    },
    Freeze {
        master: bool,
    },
    /// Nothing passes between the nodes any more.
    Cut,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    step: &'static str,
    blow: Blow,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, blow } = self;
        let whom = |master| if master { "the old master" } else { "the peer" };
        match blow {
            Blow::Kill { master } => write!(f, "{} is killed at {step}", whom(*master)),
            Blow::Freeze { master } => write!(f, "{} stands still at {step}", whom(*master)),
            Blow::Cut => write!(f, "the link is cut at {step}"),
        }
    }
}

/// How often a point is tried.
const TRIES: usize = 4;

/// Orders until the order leads to the step: what the two know of each other is a moment old, and on a
/// busy machine a switch may be undone before it comes that far.
fn insist(admin: &Http, is_armed: &dyn Fn() -> bool) -> Result<Answer> {
    eventually(LIMIT, "the order is taken", || {
        let answer = admin.post("/switchover", &json!({"dry_run": false}));
        let undone = answer
            .as_ref()
            .is_ok_and(|answer| answer.json().is_ok_and(|answer| answer["done"] == false));
        ensure!(!(undone && is_armed()), "{answer:?}");
        Ok(answer)
    })?
}

fn points() -> Vec<Point> {
    let mut points = Vec::new();
    for step in AT_MASTER.into_iter().chain(AT_PEER) {
        for master in [true, false] {
            points.push(Point { step, blow: Blow::Kill { master } });
            points.push(Point { step, blow: Blow::Freeze { master } });
        }
        if AT_MASTER.contains(&step) {
            points.push(Point { step, blow: Blow::Cut });
        }
    }
    points
}

/// One pair after the other's points, with clients all the time.
struct Rig {
    lab: TableLab,
    stop_at: PathBuf,
    _scratch: Scratch,
}

impl Rig {
    fn new() -> Result<Self> {
        let scratch = Scratch::new("stop-at")?;
        let stop_at = scratch.join("stop-at");
        let path = stop_at.to_str().context("a path is text")?.to_owned();
        let lab = TableLab::new(&Options {
            relays: true,
            planted: Some(Planted::Nothing),
            environment: vec![("HOTPAIR_STOP_AT".to_owned(), path)],
            ..Options::default()
        })?;
        Ok(Self { lab, stop_at, _scratch: scratch })
    }

    fn arm(&mut self, point: Point, master: usize) -> Result<()> {
        let whom = |of_master: bool| if of_master { master } else { 1 - master };
        let mut pid = |of_master| anyhow::Ok(self.lab.pair.nodes[whom(of_master)].process()?.id());
        let action = match point.blow {
            Blow::Kill { master } => format!("kill {}", pid(master)?),
            Blow::Freeze { master } => format!("freeze {}", pid(master)?),
            Blow::Cut => "wait".to_owned(),
        };
        // Whole or not at all: both processes look at it.
        let draft = self.stop_at.with_extension("draft");
        std::fs::write(&draft, format!("{} {action}\n", point.step))?;
        Ok(std::fs::rename(draft, &self.stop_at)?)
    }

    fn note(&mut self, point: Point, at_ns: i64, ended: Option<usize>) {
        let ended = ended.map(|node| self.lab.pair.nodes[node].settings.node.clone());
        let gone_ns = ended.is_some().then(now_ns);
        let (name, until_ns) = (point.to_string(), now_ns());
        self.lab.faults.push(Fault { name, at_ns, until_ns, ended, gone_ns });
    }

    /// The same, once more where the link was cut too late: then the step had gone on by itself.
    fn go_through(&mut self, point: Point) -> Result<()> {
        for _ in 0..TRIES {
            if self.meets(point)? {
                return Ok(());
            }
        }
        bail!("the link was never cut in time")
    }

    /// Orders a switch that meets this point; what became of it is judged here. Whether it did.
    fn meets(&mut self, point: Point) -> Result<bool> {
        let master = self.lab.in_sync()?;
        let epoch = self.lab.epoch(master)?;
        let at_ns = now_ns();
        self.arm(point, master)?;
        let admin = self.lab.pair.nodes[master].admin().with_limit(LIMIT);
        let stop_at = self.stop_at.clone();
        let ordered = thread::spawn(move || insist(&admin, &|| stop_at.exists()));
        eventually(LIMIT, "the step is reached", || {
            ensure!(!self.stop_at.exists(), "not yet");
            Ok(())
        })?;
        let serving = self.strike(point, master, at_ns, &|| ordered.is_finished())?;
        let answer = match ordered.join().expect("an order does not panic") {
            Ok(answer) => answer.json()?,
            // A node that is dead tells nothing.
            Err(_) if point.blow == (Blow::Kill { master: true }) => Value::Null,
            Err(error) => return Err(error.context("the order")),
        };
        let settled = self.lab.in_sync().context("afterwards")?;
        if std::fs::remove_file(self.stop_at.with_extension("missed")).is_ok() {
            return Ok(false);
        }
        if let Some(serving) = serving {
            ensure!(settled == serving, "{serving} served first, and now {settled} does");
        }
        let (epoch_after, master_stays) = (self.lab.epoch(settled)?, settled == master);
        if !answer.is_null() {
            let done = answer["done"].as_bool().context("an answer says whether it is done")?;
            ensure!(done != master_stays, "the report is wrong: {answer}");
            ensure!(!phases(&answer).is_empty() && answer["text"] != "", "{answer}");
            ensure!(done == answer["reason"].is_null(), "{answer}");
        }
        let untouched = point.blow == (Blow::Kill { master: false })
            || point.blow == (Blow::Freeze { master: false })
            || point.blow == Blow::Cut;
        if untouched && UNDOABLE.contains(&point.step) {
            ensure!(epoch_after == epoch, "epoch {epoch_after} after {epoch}: {answer}");
        } else {
            ensure!(epoch_after > epoch, "still epoch {epoch}: {answer}");
        }
        Ok(true)
    }

    /// Waits for what the blow leads to, and heals it; who was seen to serve, if that is to stay so.
    fn strike(
        &mut self,
        point: Point,
        master: usize,
        at_ns: i64,
        answered: &dyn Fn() -> bool,
    ) -> Result<Option<usize>> {
        // As long as it may be undone, it is healed only after that: else it might yet be done.
        let is_undone = || {
            eventually(LIMIT, "the switch is undone", || {
                ensure!(!UNDOABLE.contains(&point.step) || answered(), "not yet");
                Ok(())
            })
        };
        let struck = |of_master: bool| if of_master { master } else { 1 - master };
        match point.blow {
            Blow::Kill { master: of_master } => {
                let node = struck(of_master);
                self.lab.pair.nodes[node].process()?.ended(LIMIT)?;
                self.note(point, at_ns, Some(node));
                let serving = self.survivor_goes_on(point, 1 - node, of_master)?;
                self.lab.pair.nodes[node].kill()?;
                self.lab.start(node)?;
                Ok(serving)
            }
            Blow::Freeze { master: of_master } => {
                let node = struck(of_master);
                eventually(LIMIT, "it stands still", || {
                    ensure!(self.lab.pair.nodes[node].process()?.is_frozen()?, "it runs");
                    Ok(())
                })?;
                self.note(point, at_ns, None);
                if !of_master {
                    is_undone()?;
                }
                let serving = self.survivor_goes_on(point, 1 - node, of_master)?;
                self.lab.thaw(node)?;
                Ok(serving)
            }
            Blow::Cut => {
                self.lab.hold_link();
                let reached = self.stop_at.with_extension("reached");
                self.note(point, at_ns, None);
                if std::fs::remove_file(&reached).is_err() {
                    self.lab.sever_link();
                    return Ok(None);
                }
                is_undone()?;
                let serving =
                    eventually(
                        LIMIT,
                        "exactly one serves",
                        || match self.lab.pair.serving()[..] {
                            [one] => Ok(one),
                            ref other => bail!("{other:?} serve"),
                        },
                    )?;
                self.lab.sever_link();
                Ok((!UNDOABLE.contains(&point.step)).then_some(serving))
            }
        }
    }

    /// The one that was not struck serves, or says why it must not.
    fn survivor_goes_on(
        &self,
        point: Point,
        survivor: usize,
        master_struck: bool,
    ) -> Result<Option<usize>> {
        let must_not = !master_struck && NAMED_ALONE.contains(&point.step);
        eventually(LIMIT, "the other one goes on", || {
            let status = self.lab.pair.nodes[survivor].admin().get_json("/status")?;
            let guard = status["guard"].as_str().unwrap_or_default();
            let explained = must_not && guard.contains("may lack acknowledged changes");
            ensure!(status["serving"] == true || explained, "{status}");
            Ok((!must_not).then_some(survivor))
        })
    }

    /// Goes through points as long as there are some, and has the whole history judged.
    fn go(mut self, queue: &Mutex<VecDeque<Point>>) -> Result<()> {
        let load = self.lab.start_load(&load(&self.lab.user, 2, 1))?;
        let mut planned = Vec::new();
        let mut went = || {
            loop {
                let Some(point) = queue.lock().unwrap().pop_front() else { return Ok(()) };
                planned.push(point.to_string());
                self.go_through(point).with_context(|| point.to_string())?;
            }
        };
        let went: Result<()> = went();
        let judged = went.and_then(|()| {
            goes_on(&load, 20)?;
            let requests = load.stop(LIMIT)?;
            self.lab.in_sync()?;
            let epochs_min = 1 + planned.len() / 2;
            let enough = Enough { planned, acknowledged_min: 50, epochs_min };
            let report = self.lab.judge(requests, &enough)?;
            let good = report.is_good() && report.failed == 0 && report.unknown == 0;
            ensure!(good, "{report}");
            Ok(())
        });
        judged.with_context(|| self.lab.tails())
    }
}

#[test]
fn whoever_falls_at_whichever_step_exactly_one_serves_in_the_end() {
    /// Pairs at a time: most of the time is spent waiting.
    const AT_A_TIME: usize = 4;
    let _turn = Turn::alone().unwrap();
    let mut points = points();
    assert!(points.len() >= 40, "only {} points", points.len());
    if let Ok(words) = std::env::var("HOTPAIR_POINT") {
        points.retain(|point| point.to_string().contains(&words));
    }
    let queue = Mutex::new(VecDeque::from(points));
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                if let Err(error) = Rig::new().and_then(|rig| rig.go(&queue)) {
                    failures.lock().unwrap().push(format!("{error:#}"));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(queue.into_inner().unwrap().is_empty(), "a point was passed over");
}

#[test]
fn a_dry_run_tells_the_phases_with_their_limits() {
    let _turn = Turn::alone().unwrap();
    let lab = TableLab::new(&Options::default()).unwrap();
    let master = lab.in_sync().unwrap();
    let admin = lab.pair.nodes[master].admin().with_limit(Duration::from_secs(10));
    let answer = admin.post("/switchover", &json!({"dry_run": true})).unwrap();
    let told = answer.json().unwrap();
    assert_eq!((answer.status, &told["done"]), (200, &json!(true)), "{told}");
    assert_eq!(phases(&told), PHASES, "{told}");
    assert_eq!(told["phases"][2], json!({"phase": "drain", "ms": 0, "ms_max": 1_000}));
    let answer = lab.pair.nodes[1 - master].admin().post("/switchover", &json!({"dry_run": true}));
    let told = answer.unwrap().json().unwrap();
    assert_eq!((&told["done"], phases(&told)), (&json!(false), vec!["preflight"]), "{told}");
    assert!(told["reason"].as_str().unwrap().contains("does not serve"), "{told}");
}
