//! Functions of another program, in another language, on a real pair: whoever dies at whichever step of
//! a call, there is one effect and one answer, or 308000012; and where the program may be called again,
//! always one effect and one answer.
//!
//! Needs the binary that knows fault points (`make planted`; `make test` builds it first).
//! `HOTPAIR_POINT='answered, once'` goes through the points with these words only.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hotpair_integration_tests::program::Program;
use hotpair_integration_tests::steps::{LIMIT, serves};
use hotpair_integration_tests::table_lab::{ATTEMPT_LIMIT, Options, Planted, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_integration_tests::workspace;
use hotpair_lab::http::Http;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};

/// Its program has its effect each time it is called.
const PLACE: u32 = 330_001;
/// Its program has its effect once for each key, and the pair is told so.
const PLACE_ONCE: u32 = 330_002;
/// Its program is not to be had.
const LATER: u32 = 330_003;

const DONE: u64 = 0;
const OVERLOADED: u64 = 308_000_006;
const FAILED: u64 = 308_000_009;
const UNKNOWN: u64 = 308_000_012;
/// Ask again: switching, not serving, overloaded, not answered in time.
const AGAIN: [u64; 4] = [308_000_000, 308_000_005, OVERLOADED, 308_000_013];

/// A pair with a session and a program.
struct Rig {
    lab: TableLab,
    program: Program,
    session: String,
    /// The last number given.
    number: u64,
    /// Calls that were answered as done.
    done: u64,
    stop_at: PathBuf,
    _scratch: Scratch,
}

/// Asks at both nodes in turn, this one first, until the answer is definite.
fn ask(nodes: &[Http; 2], first: usize, path: &str, body: &Value) -> Result<Value> {
    let until = Instant::now() + LIMIT;
    for node in [first, 1 - first].into_iter().cycle() {
        ensure!(Instant::now() < until, "nobody answers {body}");
        let Ok(answer) = nodes[node].post(path, body).and_then(|answer| answer.json()) else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let error_no = answer["error_no"].as_u64().context("an envelope has a number")?;
        if !AGAIN.contains(&error_no) && answer["data"]["running"] != true {
            return Ok(answer);
        }
        thread::sleep(Duration::from_millis(10));
    }
    unreachable!("a cycle does not end")
}

impl Rig {
    fn new(planted: Planted) -> Result<Self> {
        let (scratch, program) = (Scratch::new("stop-at")?, Program::start()?);
        let stop_at = scratch.join("stop-at");
        let path = stop_at.to_str().context("a path is text")?.to_owned();
        let more = [
            program.function(PLACE, "/place", ""),
            program.function(PLACE_ONCE, "/place-once", "idempotent = true"),
            program.function(LATER, "/later", ""),
        ];
        let lab = TableLab::new(&Options {
            relays: true,
            planted: Some(planted),
            environment: vec![("HOTPAIR_STOP_AT".to_owned(), path)],
            more: [more.concat(), more.concat()],
            ..Options::default()
        })?;
        let session = lab.token()?;
        Ok(Self { lab, program, session, number: 0, done: 0, stop_at, _scratch: scratch })
    }

    fn nodes(&self) -> [Http; 2] {
        self.lab.pair.nodes.each_ref().map(|node| node.client().with_limit(ATTEMPT_LIMIT))
    }

    /// A new call of this function.
    fn call(&mut self, function: u32) -> Value {
        self.number += 1;
        json!({"session": self.session, "request": self.number, "function": function,
            "arguments": {"amount": self.number}})
    }

    /// The row that the program's answer makes.
    fn row(&self, key: &str) -> Result<Value> {
        let body = json!({"session": self.session, "function": 1001,
            "arguments": {"table": "orders", "key": key}});
        Ok(ask(&self.nodes(), 0, "/v1/call", &body)?["data"]["value"].take())
    }

    /// How many orders the tables know.
    fn count(&self) -> Result<u64> {
        let body = json!({"session": self.session, "function": 1001,
            "arguments": {"table": "counts", "key": "orders"}});
        let answer = ask(&self.nodes(), 0, "/v1/call", &body)?;
        Ok(answer["data"]["value"].as_u64().unwrap_or_default())
    }

    /// The call ended like this, with so many effects, and stays so however often it is asked.
    fn judge(&mut self, call: &Value, answer: &Value, wanted: (u64, usize)) -> Result<()> {
        let of = format!("-{}", call["request"]);
        let ended = (answer["error_no"].as_u64().unwrap_or_default(), self.program.effects(&of));
        ensure!(ended == wanted, "{ended:?} instead of {wanted:?}: {answer}");
        if call["async"] != true {
            let again = ask(&self.nodes(), 0, "/v1/call", call)?;
            let same = ["error_no", "error_info", "data"].iter().all(|f| again[*f] == answer[*f]);
            ensure!(same, "{again} after {answer}");
        }
        ensure!(self.program.effects(&of) == wanted.1, "an effect more by asking again");
        for key in self.program.keys(&of) {
            let row = self.row(&key)?;
            ensure!(row.is_null() == (wanted.0 != DONE), "{row} in the tables, {answer}");
        }
        self.done += u64::from(wanted.0 == DONE);
        let count = self.count()?;
        ensure!(count == self.done, "{count} orders in the tables, and {} done", self.done);
        Ok(())
    }
}

impl Rig {
    /// Nothing has been done since.
    fn judge_again(&self, call: &Value, effects: usize) -> Result<()> {
        let now = self.program.effects(&format!("-{}", call["request"]));
        ensure!(now == effects, "{now} effects, and {effects} before");
        Ok(())
    }
}

// --- the master dies at a step

/// Where it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A fault point of its own.
    Own(&'static str),
    /// While the program is at it, before it has its effect.
    ProgramBefore,
    /// And after.
    ProgramAfter,
}

/// In order, with how a call ends that must not be begun twice: the number, and the effects.
const STEPS: [(Step, (u64, usize)); 9] = [
    (Step::Own("sidecar.begin"), (DONE, 1)),
    // It dies with the one that was about to call.
    (Step::Own("intent.written"), (DONE, 1)),
    (Step::Own("intent.acknowledged"), (UNKNOWN, 0)),
    (Step::ProgramBefore, (UNKNOWN, 1)),
    (Step::ProgramAfter, (UNKNOWN, 1)),
    (Step::Own("program.answered"), (UNKNOWN, 1)),
    (Step::Own("reply.written"), (UNKNOWN, 1)),
    (Step::Own("reply.acknowledged"), (DONE, 1)),
    (Step::Own("answer.leaving"), (DONE, 1)),
];

#[derive(Clone, Copy, Debug)]
struct Point {
    step: Step,
    /// It stands still instead, until somebody else serves.
    frozen: bool,
    once: bool,
    is_async: bool,
    wanted: (u64, usize),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, frozen, once, is_async, .. } = self;
        let step = match step {
            Step::Own(step) => step,
            Step::ProgramBefore => "program.called",
            Step::ProgramAfter => "program.done",
        };
        let (once, kind) = (if *once { "once" } else { "each time" }, *is_async);
        let blow = if *frozen { "frozen" } else { "killed" };
        write!(f, "{blow} at {step}, {once}{}", if kind { ", asynchronous" } else { "" })
    }
}

fn points() -> Vec<Point> {
    let mut points = Vec::new();
    for (step, wanted) in STEPS {
        for once in [false, true] {
            let wanted = if once { (DONE, 1) } else { wanted };
            let point = Point { step, frozen: false, once, is_async: false, wanted };
            points.push(point);
            match (step, once) {
                // When it runs on, its program is not called any more.
                (Step::Own("intent.acknowledged"), false) => {
                    points.push(Point { frozen: true, ..point });
                    points.push(Point { is_async: true, ..point });
                }
                // The ticket's own answer has left before.
                (Step::Own("program.answered"), _) => {
                    points.push(Point { is_async: true, ..point });
                }
                _ => {}
            }
        }
    }
    points
}

impl Rig {
    fn arm(&mut self, step: &str, blow: &str, master: usize) -> Result<()> {
        let pid = self.lab.pair.nodes[master].process()?.id();
        let draft = self.stop_at.with_extension("draft");
        std::fs::write(&draft, format!("{step} {blow} {pid}\n"))?;
        Ok(std::fs::rename(draft, &self.stop_at)?)
    }

    fn go_through(&mut self, point: Point) -> Result<()> {
        let master = self.lab.in_sync()?;
        let mut call = self.call(if point.once { PLACE_ONCE } else { PLACE });
        if point.is_async {
            call["async"] = true.into();
        }
        match point.step {
            Step::Own(step) => {
                self.arm(step, if point.frozen { "freeze" } else { "kill" }, master)?;
            }
            Step::ProgramBefore => self.program.act("before wait")?,
            Step::ProgramAfter => self.program.act("after wait")?,
        }
        let (nodes, body, session) = (self.nodes(), call.clone(), self.session.clone());
        let asked = thread::spawn(move || {
            let answer = ask(&nodes, master, "/v1/call", &body)?;
            match answer["data"]["ticket"].as_str() {
                Some(ticket) => {
                    let body = json!({"session": session, "ticket": ticket});
                    ask(&nodes, master, "/v1/result", &body)
                }
                None => Ok(answer),
            }
        });
        match point.step {
            Step::Own(_) if point.frozen => {
                let node = &mut self.lab.pair.nodes[master];
                eventually(LIMIT, "it stands still", || {
                    ensure!(node.process()?.is_frozen()?, "it runs");
                    Ok(())
                })?;
                serves(&self.lab.pair, 1 - master)?;
                self.lab.thaw(master)?;
            }
            Step::Own(_) => self.lab.pair.nodes[master].process()?.ended(LIMIT).map(drop)?,
            Step::ProgramBefore | Step::ProgramAfter => self.program.waits()?,
        }
        if !point.frozen {
            self.lab.pair.nodes[master].kill()?;
        }
        self.program.go_on();
        let answer = asked.join().expect("asking does not panic")?;
        // One that was let go on late has its effect late.
        eventually(LIMIT, "the program has done what it does", || {
            let effects = self.program.effects(&format!("-{}", call["request"]));
            ensure!(effects >= point.wanted.1, "{effects} effects, {answer}");
            Ok(())
        })?;
        serves(&self.lab.pair, 1 - master)?;
        self.judge(&call, &answer, point.wanted)?;
        if point.frozen {
            self.lab.in_sync()?;
            return self.judge_again(&call, point.wanted.1);
        }
        self.lab.start(master)
    }
}

#[test]
fn a_master_that_falls_at_any_step_leaves_one_effect_and_one_answer_or_an_unknown_outcome() {
    /// Pairs at a time: most of the time is spent waiting.
    const AT_A_TIME: usize = 4;
    let _turn = Turn::beside_others().unwrap();
    let mut points = points();
    assert_eq!(points.len(), 22);
    if let Ok(words) = std::env::var("HOTPAIR_POINT") {
        points.retain(|point| point.to_string().contains(&words));
    }
    let queue = Mutex::new(VecDeque::from(points));
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let mut rig = match Rig::new(Planted::Nothing) {
                    Ok(rig) => rig,
                    Err(error) => return failures.lock().unwrap().push(format!("{error:#}")),
                };
                loop {
                    let Some(point) = queue.lock().unwrap().pop_front() else { return };
                    if let Err(error) = rig.go_through(point) {
                        let said = format!("{point}: {error:#}\n{}", rig.lab.tails());
                        return failures.lock().unwrap().push(said);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(queue.into_inner().unwrap().is_empty(), "a point was passed over");
}

// --- the program dies, and nobody else

#[test]
fn a_program_that_dies_is_called_again_only_where_that_is_harmless() {
    let _turn = Turn::beside_others().unwrap();
    let mut rig = Rig::new(Planted::Nothing).unwrap();
    let master = rig.lab.in_sync().unwrap();
    for (act, each_time) in [
        ("before die", (UNKNOWN, 0)),
        ("after die", (UNKNOWN, 1)),
        ("before cut", (UNKNOWN, 0)),
        ("after cut", (UNKNOWN, 1)),
    ] {
        for (function, wanted) in [(PLACE, each_time), (PLACE_ONCE, (DONE, 1))] {
            let call = rig.call(function);
            rig.program.act(act).unwrap();
            let (nodes, body) = (rig.nodes(), call.clone());
            let asked = thread::spawn(move || ask(&nodes, master, "/v1/call", &body));
            if act.ends_with("die") {
                rig.program.ended().unwrap();
                rig.program.start_again().unwrap();
            }
            let answer = asked.join().unwrap().unwrap();
            rig.judge(&call, &answer, wanted)
                .unwrap_or_else(|error| panic!("{act}, function {function}: {error:#}"));
        }
    }
    // One that is not there was not called, and there is nothing to be known.
    rig.program.kill().unwrap();
    let call = rig.call(PLACE);
    let once = |rig: &Rig, call: &Value| {
        let client = rig.lab.pair.nodes[master].client().with_limit(LIMIT);
        client.post("/v1/call", call).unwrap().json().unwrap()
    };
    let absent = once(&rig, &call);
    assert_eq!(absent["error_no"], OVERLOADED, "{absent}");
    assert!(absent["retry_after_ms"].is_u64(), "{absent}");
    rig.program.start_again().unwrap();
    let answer = ask(&rig.nodes(), master, "/v1/call", &call).unwrap();
    rig.judge(&call, &answer, (DONE, 1)).unwrap();
    // One that says later was not, either.
    let call = rig.call(LATER);
    let later = once(&rig, &call);
    assert_eq!(later["error_no"], OVERLOADED, "{later}");
    // One that fails says why, and is not asked twice.
    let mut call = rig.call(PLACE);
    call["arguments"]["amount"] = (-1).into();
    let failed = ask(&rig.nodes(), master, "/v1/call", &call).unwrap();
    assert_eq!(failed["error_info"], "less than nothing", "{failed}");
    rig.judge(&call, &failed, (FAILED, 1)).unwrap();
}

// --- planned switches

/// A switch that is ordered while the program works, which answers once the gate holds, or once the
/// switch is undone; what the order was answered. The call is done once, whatever became of the switch.
fn switch_during_a_call(rig: &mut Rig, until_undone: bool) -> Result<Value> {
    let master = rig.lab.in_sync()?;
    let call = rig.call(PLACE);
    rig.program.act("before wait")?;
    let (nodes, body) = (rig.nodes(), call.clone());
    let asked = thread::spawn(move || ask(&nodes, master, "/v1/call", &body));
    rig.program.waits()?;
    let admin = rig.lab.pair.nodes[master].admin().with_limit(LIMIT);
    let ordered = thread::spawn(move || admin.post("/switchover", &json!({"dry_run": false})));
    let admin = rig.lab.pair.nodes[master].admin();
    eventually(LIMIT, "the gate holds", || {
        let status = admin.get_json("/status")?;
        let holds = !until_undone && status["serving"] == false;
        ensure!(holds || ordered.is_finished(), "{status}");
        Ok(())
    })?;
    rig.program.go_on();
    let answer = ordered.join().expect("an order does not panic")?;
    let called = asked.join().expect("asking does not panic")?;
    rig.judge(&call, &called, (DONE, 1))?;
    let said = answer.json()?;
    ensure!((answer.status == 200) == (said["done"] == true), "{answer:?}");
    Ok(said)
}

#[test]
fn a_planned_switch_waits_for_the_program_and_is_undone_where_that_takes_too_long() {
    let _turn = Turn::beside_others().unwrap();
    let mut rig = Rig::new(Planted::Nothing).unwrap();
    // A busy machine's may be refused, or undone for other reasons: then once more.
    eventually(LIMIT, "a switch waits and is done", || {
        let said = switch_during_a_call(&mut rig, false)?;
        ensure!(said["done"] == true, "{said}");
        Ok(())
    })
    .unwrap();
    eventually(LIMIT, "a switch is undone for the program", || {
        let said = switch_during_a_call(&mut rig, true)?;
        assert_eq!(said["done"], false, "it waited for nobody: {said}");
        let reason = said["reason"].as_str().context("a reason")?;
        ensure!(reason.contains("did not end within"), "{said}");
        Ok(())
    })
    .unwrap();
}

// --- the judge is not blind

/// The master is killed while nobody but itself may know of its intent; the effects of the one call.
fn lose_the_intent(planted: Planted) -> Result<usize> {
    /// The peer is given up for gone after 800 ms.
    const BRIEFLY: Duration = Duration::from_millis(400);
    let mut rig = Rig::new(planted)?;
    let master = rig.lab.in_sync()?;
    let call = rig.call(PLACE);
    let of = format!("-{}", call["request"]);
    rig.lab.hold_link();
    let held = Instant::now();
    let (nodes, body) = (rig.nodes(), call.clone());
    let asked = thread::spawn(move || ask(&nodes, master, "/v1/call", &body));
    while held.elapsed() < BRIEFLY && rig.program.effects(&of) == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    rig.lab.kill(master)?;
    rig.lab.sever_link();
    let answer = asked.join().expect("asking does not panic")?;
    let effects = rig.program.effects(&of);
    match answer["error_no"].as_u64() {
        Some(DONE | UNKNOWN) => Ok(effects),
        _ => bail!("{answer}"),
    }
}

#[test]
fn a_program_that_is_called_before_its_intent_is_acknowledged_is_found_out() {
    let _turn = Turn::beside_others().unwrap();
    assert_eq!(lose_the_intent(Planted::Nothing).unwrap(), 1);
    let effects = lose_the_intent(Planted::Bug("program-before-intent")).unwrap();
    assert_eq!(effects, 2, "the planted bug has no effect");
}

// --- what is written for operators

/// The program that the page for operators shows.
fn shown_program() -> Result<String> {
    let page = std::fs::read_to_string(workspace().join("docs/operations/functions.md"))?;
    let from = page.split_once("```python\n").context("the page shows a program")?.1;
    Ok(from.split_once("```").context("the program ends")?.0.to_owned())
}

#[test]
fn the_program_that_the_page_shows_runs() {
    let _turn = Turn::beside_others().unwrap();
    let scratch = Scratch::new("page").unwrap();
    let script = scratch.write("place.py", shown_program().unwrap()).unwrap();
    let program = Program::start_script(script).unwrap();
    let more = program.function(PLACE, "/place", "idempotent = true");
    let lab = TableLab::new(&Options { more: [more.clone(), more], ..Options::default() }).unwrap();
    let session = lab.token().unwrap();
    let master = lab.master().unwrap();
    let nodes = lab.pair.nodes.each_ref().map(|node| node.client().with_limit(ATTEMPT_LIMIT));
    let call = json!({"session": session, "request": 1, "gsv": "trade/order/1.0", "name": "f330001",
        "arguments": {"instrument": "ABC", "amount": 5}});
    let answer = ask(&nodes, master, "/v1/call", &call).unwrap();
    assert_eq!(answer["error_no"], DONE, "{answer}");
    let order = answer["data"]["order"].as_str().unwrap();
    let get = json!({"session": session, "function": 1001,
        "arguments": {"table": "orders", "key": order}});
    let row = ask(&nodes, master, "/v1/call", &get).unwrap();
    assert_eq!(row["data"]["value"]["instrument"], "ABC", "{row}");
    assert_eq!(row["data"]["value"]["user"], lab.user.name.as_str(), "{row}");
    // It is registered like any other.
    let listed = nodes[master].get_json("/v1/functions").unwrap();
    let listed = listed["data"]["functions"].as_array().unwrap();
    assert!(listed.iter().any(|function| function["number"] == PLACE), "{listed:?}");
    let status = lab.pair.nodes[master].admin().get_json("/functions").unwrap();
    assert!(status.to_string().contains("330001"), "{status}");
}
