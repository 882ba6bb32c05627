//! The client library against a real pair, given the addresses of both nodes, or a router's: nothing
//! that happens to the pair is seen by who uses it, but for the time a call takes.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hotpair_client::{Availability, Client, Error, ErrorNumber, Pushed, Session};
use hotpair_integration_tests::steps::{LIMIT, argument, run_hotpair, serves};
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::node::hotpair;
use hotpair_lab::router::Router;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::session::User;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const CLIENTS: usize = 4;
/// Calls of one client at a time.
const CALLERS: usize = 8;

struct Scene {
    lab: TableLab,
    runtime: Runtime,
    client: Client,
    // Only there to be asked.
    _router: Option<Router>,
    _turn: Turn,
}

impl Scene {
    fn new() -> Result<Self> {
        let turn = Turn::alone()?;
        let lab = TableLab::new(&Options::default())?;
        let runtime = Runtime::new()?;
        let client = Client::builder().targets(addresses(&lab)).call_limit(LIMIT).build()?;
        Ok(Self { lab, runtime, client, _router: None, _turn: turn })
    }

    /// The same, and the client knows a router only.
    fn behind_a_router() -> Result<Self> {
        let mut scene = Self::new()?;
        let mut router = Router::before(&scene.lab.pair)?;
        router.start()?;
        router.wait_for("serves", |status| status["standing"] == "serving")?;
        scene.client = Client::builder().targets([router.address()]).call_limit(LIMIT).build()?;
        scene._router = Some(router);
        Ok(scene)
    }

    fn log_in(&self) -> Result<Session> {
        let user = &self.lab.user;
        Ok(self.runtime.block_on(self.client.log_in(&user.name, &user.password))?)
    }
}

fn addresses(lab: &TableLab) -> Vec<String> {
    lab.pair.nodes.iter().map(|node| node.settings.client.to_string()).collect()
}

/// Sessions that count without end, each in its own row.
struct Counting {
    sessions: Vec<Session>,
    callers: Vec<JoinHandle<Result<(), Error>>>,
    acknowledged: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
}

impl Counting {
    fn start(scene: &Scene) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let (mut sessions, mut callers, mut acknowledged) = (Vec::new(), Vec::new(), Vec::new());
        for client in 0..CLIENTS {
            let session = scene.log_in()?;
            let count = Arc::<AtomicU64>::default();
            for _ in 0..CALLERS {
                let (session, count, stop) = (session.clone(), count.clone(), stop.clone());
                callers.push(scene.runtime.spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        let add = json!({"table": "counters", "key": key(client), "by": 1});
                        let _: Value = session.call(1006, add).await?;
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(())
                }));
            }
            sessions.push(session);
            acknowledged.push(count);
        }
        Ok(Self { sessions, callers, acknowledged, stop })
    }

    fn counts(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// Waits until each session has counted on.
    fn go_on(&self) -> Result<()> {
        let before = self.counts();
        eventually(LIMIT, "every session counts on", || {
            let now = self.counts();
            let on = before.iter().zip(&now).all(|(before, now)| *now >= before + 20);
            ensure!(on, "{before:?} became {now:?}");
            Ok(())
        })
    }

    /// Every call was answered, each counted once, by the session of the beginning.
    fn end(self, runtime: &Runtime) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        for caller in self.callers {
            runtime.block_on(caller)??;
        }
        for (client, session) in self.sessions.iter().enumerate() {
            let get = json!({"table": "counters", "key": key(client)});
            let row: Value = runtime.block_on(session.call(1001, get))?;
            let acknowledged = self.acknowledged[client].load(Ordering::SeqCst);
            ensure!(row["value"].as_u64() == Some(acknowledged), "{row}, not {acknowledged}");
            ensure!(session.logins() == 1 && !session.is_over(), "logged in again");
        }
        Ok(())
    }
}

fn key(client: usize) -> String {
    format!("client-{client}")
}

#[test]
fn calls_live_through_a_switch_a_kill_and_a_freeze_and_count_once() {
    let mut scene = Scene::new().unwrap();
    let counting = Counting::start(&scene).unwrap();
    counting.go_on().unwrap();

    scene.lab.switch_over().unwrap();
    counting.go_on().unwrap();

    let master = scene.lab.in_sync().unwrap();
    scene.lab.kill(master).unwrap();
    counting.go_on().unwrap();
    scene.lab.start(master).unwrap();

    let master = scene.lab.in_sync().unwrap();
    scene.lab.freeze(master).unwrap();
    serves(&scene.lab.pair, 1 - master).unwrap();
    counting.go_on().unwrap();
    scene.lab.thaw(master).unwrap();
    scene.lab.in_sync().unwrap();
    counting.go_on().unwrap();
    counting.end(&scene.runtime).unwrap();
    let availability = *scene.client.availability().borrow();
    assert!(
        matches!(availability, Availability::Serving { epoch } if epoch > 3),
        "{availability:?}"
    );
}

#[test]
fn asynchronous_calls_are_done_once_and_their_answers_live_through_a_kill_and_a_switch() {
    asynchronous_calls(Scene::new().unwrap());
}

#[test]
fn asynchronous_calls_live_through_both_behind_a_router_as_well() {
    asynchronous_calls(Scene::behind_a_router().unwrap());
}

fn asynchronous_calls(mut scene: Scene) {
    let session = scene.log_in().unwrap();
    let begin = |function: u32, arguments: Value| {
        scene.runtime.block_on(session.start(function, arguments)).unwrap()
    };
    let add = || json!({"table": "t", "key": "n", "by": 1});
    let done: Vec<_> = (0..10).map(|_| begin(1006, add())).collect();
    // Still running when its master dies: another one does it.
    let long = begin(1902, json!({"ms": 3_000}));
    let master = scene.lab.in_sync().unwrap();
    scene.lab.kill(master).unwrap();
    let mut sums: Vec<i64> = Vec::new();
    for ticket in &done[..5] {
        let sum: Value = scene.runtime.block_on(ticket.result(LIMIT)).unwrap();
        sums.push(sum["value"].as_i64().unwrap());
    }
    let after = begin(1006, add());
    scene.lab.start(master).unwrap();
    scene.lab.switch_over().unwrap();
    for ticket in done[5..].iter().chain([&after]) {
        let sum: Value = scene.runtime.block_on(ticket.result(LIMIT)).unwrap();
        sums.push(sum["value"].as_i64().unwrap());
    }
    sums.sort_unstable();
    assert_eq!(sums, (1..=11).collect::<Vec<_>>());
    let slept: Value = scene.runtime.block_on(long.result(LIMIT)).unwrap();
    assert_eq!(slept, json!({}));
    // Taken is taken.
    let again = scene.runtime.block_on(done[0].result::<Value>(LIMIT));
    assert!(matches!(again, Err(Error::UnknownTicket { .. })), "{again:?}");
    assert_eq!(session.logins(), 1);
}

#[test]
fn a_push_stream_goes_on_after_its_master_died_and_says_what_waited() {
    push_stream(Scene::new().unwrap());
}

#[test]
fn a_push_stream_goes_on_behind_a_router_as_well() {
    push_stream(Scene::behind_a_router().unwrap());
}

fn push_stream(mut scene: Scene) {
    let session = scene.log_in().unwrap();
    let mut push = session.push();
    let next = |push: &mut hotpair_client::Push| {
        scene.runtime.block_on(async {
            tokio::time::timeout(LIMIT, push.next())
                .await
                .context("nothing is pushed")?
                .map_err(anyhow::Error::from)
        })
    };
    let Pushed::Role { epoch: first, serving: true } = next(&mut push).unwrap() else {
        panic!("the first word is who serves")
    };
    let begin = |ms: u64| {
        scene.runtime.block_on(session.start(1902, json!({"ms": ms}))).unwrap().name().to_owned()
    };
    let quick = begin(1);
    let heard = next(&mut push).unwrap();
    assert!(
        matches!(&heard, Pushed::Reply { ticket, answer: Ok(_) } if *ticket == quick),
        "{heard:?}"
    );
    scene.runtime.block_on(session.publish("/axis", &json!({"roll": 1}))).unwrap();
    let heard = next(&mut push).unwrap();
    assert!(
        matches!(&heard, Pushed::Published { topic, payload }
            if topic == "/axis" && *payload == json!({"roll": 1})),
        "{heard:?}"
    );
    // Begun before the kill, done by the next master.
    let long = begin(2_000);
    let master = scene.lab.in_sync().unwrap();
    scene.lab.kill(master).unwrap();
    let mut epochs = Vec::new();
    let answer = loop {
        match next(&mut push).unwrap() {
            Pushed::Reply { ticket, answer } if ticket == long => break answer,
            Pushed::Reply { ticket, .. } => assert_eq!(ticket, quick),
            Pushed::Role { epoch, serving: true } => epochs.push(epoch),
            Pushed::Role { serving: false, .. } | Pushed::Cut => {}
            Pushed::Published { .. } => panic!("nothing is published twice"),
        }
    };
    assert_eq!(answer.unwrap(), json!({}));
    assert!(epochs.iter().all(|epoch| *epoch > first) && !epochs.is_empty(), "{first} {epochs:?}");
}

#[test]
fn what_goes_wrong_is_told_by_its_number() {
    let scene = Scene::new().unwrap();
    let user = &scene.lab.user;
    let run = |future| scene.runtime.block_on(future);
    let wrong = scene.runtime.block_on(scene.client.log_in(&user.name, "guess")).unwrap_err();
    assert_eq!(wrong.number(), Some(ErrorNumber::WrongPassword));
    let session = scene.log_in().unwrap();
    let missing = run(session.call::<Value>(4, json!({}))).unwrap_err();
    assert_eq!(missing.number(), Some(ErrorNumber::NoSuchFunction));
    let by_name = scene
        .runtime
        .block_on(async { session.call::<String>(("hotpair/test/1.0", "echo"), "hello").await });
    assert_eq!(by_name.unwrap(), "hello");
    let late = scene.runtime.block_on(session.call_within::<Value>(
        1902,
        json!({"ms": 60_000}),
        Duration::from_millis(300),
    ));
    let late = late.unwrap_err();
    let known = late.number() == Some(ErrorNumber::TimedOut);
    assert!(known || matches!(late, Error::TimedOut { may_be_done: true, .. }), "{late}");
    scene.runtime.block_on(session.log_out()).unwrap();
    let over = run(session.call::<Value>(1901, json!({}))).unwrap_err();
    assert!(matches!(over, Error::SessionOver), "{over}");
}

/// `hotpair call` with these arguments, as the scene's user: its exit code and both outputs.
fn call_as(user: &User, input: Option<&str>, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(hotpair().unwrap());
    command.arg("call").args(arguments).args(["--user", &user.name]).stdout(Stdio::piped());
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).env_remove("HOTPAIR_PASSWORD");
    if input.is_none() {
        command.env("HOTPAIR_PASSWORD", &user.password);
    }
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that does not read its input may be gone.
    let _ = writeln!(stdin, "{}", input.unwrap_or_default());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_line_calls_as_a_user_and_a_standby_names_its_master() {
    let scene = Scene::new().unwrap();
    let user = scene.lab.user.clone();
    let standby = 1 - scene.lab.in_sync().unwrap();
    let asked = scene.lab.pair.nodes[standby].client();
    let master = scene.lab.pair.nodes[1 - standby].settings.client.to_string();
    eventually(LIMIT, "the standby names its master", || {
        let call = json!({"function": 1901, "arguments": {}});
        let answer = asked.post("/v1/call", &call)?.json()?;
        ensure!(answer["data"]["master"] == master, "{answer}");
        Ok(())
    })
    .unwrap();
    // Only the standby is given: it names who serves.
    let url = format!("http://{}", scene.lab.pair.nodes[standby].settings.client);
    let add = ["1006", "--arguments", r#"{"table":"t","key":"n","by":2}"#, "--url", &url];
    let (code, said, notes) = call_as(&user, None, &add);
    assert_eq!((code, said.contains("\"value\": 2")), (0, true), "{said}{notes}");
    let by_input = [&add[..], &["--async", "--json"]].concat();
    let (code, said, notes) = call_as(&user, Some(&user.password), &by_input);
    assert!(code == 0 && notes.contains("ticket 1"), "{said}{notes}");
    let envelope: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&envelope["error_no"], &envelope["data"]["value"]), (&json!(0), &json!(4)));
    let (code, _, notes) = call_as(&user, Some("guess"), &add);
    assert!(code == 1 && notes.contains("308000002"), "{code} {notes}");
    let (code, _, notes) = call_as(&user, Some(""), &add);
    assert!(code == 2 && notes.contains("password is empty"), "{code} {notes}");
}

#[test]
fn more_than_64_calls_of_a_session_wait_for_each_other() {
    let scene = Scene::new().unwrap();
    let session = scene.log_in().unwrap();
    let sums = scene.runtime.block_on(async {
        let calls: Vec<_> = (0..300)
            .map(|_| {
                let session = session.clone();
                tokio::spawn(async move {
                    let add = json!({"table": "t", "key": "n", "by": 1});
                    session.call::<Value>(1006, add).await
                })
            })
            .collect();
        let mut sums = Vec::new();
        for call in calls {
            sums.push(call.await.unwrap().unwrap()["value"].as_i64().unwrap());
        }
        sums.sort_unstable();
        sums
    });
    assert_eq!(sums, (1..=300).collect::<Vec<_>>());
}

#[test]
fn the_load_generator_reports_what_a_switch_and_a_kill_cost_and_draws_it() {
    let _turn = Turn::alone().unwrap();
    let scratch = Scratch::new("bench-load-test").unwrap();
    let plot = scratch.join("load.svg");
    let load = ["bench", "load", "--rate", "100", "--connections", "8", "--seconds", "12"];
    let (code, said, notes) =
        run_hotpair(&[&load[..], &["--svg", argument(&plot).unwrap()]].concat()).unwrap();
    assert_eq!(code, 0, "{notes}");
    let report: Value = serde_json::from_str(&said).unwrap();
    let load = &report["load"];
    assert_eq!(
        load["answered"].as_u64().unwrap() + load["failed"].as_u64().unwrap(),
        1_200,
        "{load}"
    );
    assert_eq!((&load["failed"], &load["logins"]), (&json!(0), &json!(8)), "{load}");
    assert_eq!(load["counted"], load["answered"], "{load}");
    let marks = load["marks"].to_string();
    assert!(marks.contains("planned switch") && marks.contains("kill -9"), "{marks}");
    let latency = &load["latency"];
    let at = |name: &str| latency[name].as_f64().unwrap();
    assert!(at("p50_ms") > 0.0 && at("p50_ms") <= at("p99_ms") && at("p99_ms") <= at("worst_ms"));
    let drawn = std::fs::read_to_string(plot).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("kill -9"), "{drawn}");
    let (code, _, notes) =
        run_hotpair(&["bench", "load", "--target", "127.0.0.1:1", "--rate", "1"]).unwrap();
    assert!(code != 0 && notes.contains("--target needs --user"), "{code} {notes}");
}
