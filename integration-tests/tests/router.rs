//! A real router before a real pair: clients that know nothing but the router, through a planned
//! switch, kill -9, a freeze, and the loss of both nodes. Every answer is a documented one, nothing is
//! lost or done twice, and nobody is left without an answer.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::steps::LIMIT;
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::Enough;
use hotpair_lab::load::now_ns;
use hotpair_lab::node::Pair;
use hotpair_lab::router::Router;
use hotpair_lab::session::Codes;
use hotpair_lab::table_load::{Plan, TableLoad};
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};

/// Longer than the router holds anything here.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(90);
/// Longer than any takeover: whatever can wait, waits.
const HOLD_LONG: &str = "[hold]\nplanned = \"60s\"\ncrash = \"60s\"\n";
const CLIENTS: usize = 6;

/// Waits until every client was served some more.
fn served_again(load: &TableLoad) -> Result<()> {
    let before = load.acknowledged();
    eventually(LIMIT, "the clients are served", || {
        let since = load.acknowledged() - before;
        ensure!(since >= 5 * CLIENTS as u64, "only {since} changes");
        Ok(())
    })
}

/// Clients saw answers of these kinds and of no other.
fn saw_only(codes: &Codes, when: &str, allowed: &[&str]) -> Result<()> {
    let seen: BTreeMap<String, u64> = codes.take();
    ensure!(seen.contains_key("0"), "{when}: nothing was done: {seen:?}");
    let other = seen.keys().find(|code| !allowed.contains(&code.as_str()));
    ensure!(other.is_none(), "{when}: clients saw {seen:?}, allowed are {allowed:?}");
    Ok(())
}

#[test]
fn a_switch_and_a_crash_pass_unseen_by_clients_of_a_router_that_holds() {
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let mut router = Router::before(&lab.pair).unwrap();
    router.more = HOLD_LONG.to_owned();
    router.start().unwrap();
    let told = through_switch_crash_and_freeze(&mut lab, &router);
    if let Err(error) = told {
        let status = router.status();
        panic!("{error:#}\n{status:?}\n{}", lab.tails());
    }
    assert!(router.stop(LIMIT).unwrap().success());
}

fn through_switch_crash_and_freeze(lab: &mut TableLab, router: &Router) -> Result<()> {
    let codes = Arc::new(Codes::default());
    router.wait_for("serves", |status| status["standing"] == "serving")?;
    let (user, seed) = (lab.user.clone(), 11);
    let plan = Plan { clients: CLIENTS, threads: 2, watchers: 2, pause_ms_max: 20, seed, user };
    let load = lab.start_load_at(&[router.target(ATTEMPT_LIMIT, &codes)], &plan)?;
    served_again(&load)?;
    saw_only(&codes, "in peace", &["0"])?;

    let at_ns = now_ns();
    lab.switch_over()?;
    served_again(&load)?;
    lab.note("switch", at_ns);
    saw_only(&codes, "in a planned switch", &["0"])?;

    let master = lab.in_sync()?;
    lab.kill(master)?;
    served_again(&load)?;
    saw_only(&codes, "after kill -9", &["0"])?;
    lab.start(master)?;

    let master = lab.in_sync()?;
    let (at_ns, epoch) = (now_ns(), lab.epoch(master)?);
    lab.freeze(master)?;
    router.wait_for("follows the next master", |status| status["epoch"].as_u64() > Some(epoch))?;
    served_again(&load)?;
    lab.thaw(master)?;
    lab.note("freeze", at_ns);
    lab.in_sync()?;
    served_again(&load)?;
    saw_only(&codes, "around a freeze", &["0"])?;

    let requests = load.stop(LIMIT)?;
    let planned = ["switch", "kill", "freeze"].map(str::to_owned).to_vec();
    let report = lab.judge(requests, &Enough { planned, acknowledged_min: 100, epochs_min: 4 })?;
    ensure!(report.is_good() && report.failed == 0 && report.unknown == 0, "{report}");
    Ok(())
}

/// One request at the router; what came back, as clients tell answers apart.
fn ask(router: &Router, path: &str, body: &Value) -> Result<Value> {
    let answer = router.client().with_limit(ATTEMPT_LIMIT).post(path, body)?;
    if answer.status == 503 && answer.body.is_empty() {
        return Ok(json!({"error_no": 503}));
    }
    ensure!(answer.status == 200, "{answer:?}");
    answer.json()
}

fn look() -> Value {
    json!({"function": 1901, "arguments": {"hello": "router"}})
}

fn is_switching(answer: &Value) -> bool {
    answer["error_no"] == 308_000_000 && answer["retry_after_ms"].as_u64() > Some(0)
}

#[test]
fn a_planned_switch_fails_not_even_what_bears_no_number() {
    const CALLERS: usize = 8;
    const SWITCHES: usize = 3;
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let mut router = Router::before(&lab.pair).unwrap();
    router.more = HOLD_LONG.to_owned();
    router.start().unwrap();
    router.wait_for("serves", |status| status["standing"] == "serving").unwrap();
    let token = lab.token().unwrap();
    let add = json!({"session": token, "function": 1006,
        "arguments": {"table": "t", "key": "unnumbered", "by": 1}});
    let stop = AtomicBool::new(false);
    let call = || {
        let mut done = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let answer = ask(&router, "/v1/call", &add).unwrap();
            assert_eq!(answer["error_no"], 0, "{answer}");
            done += 1;
        }
        done
    };
    let done: u64 = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        let switched = (0..SWITCHES).try_for_each(|_| lab.switch_over());
        stop.store(true, Ordering::Relaxed);
        switched.unwrap();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    let look = json!({"session": token, "function": 1001,
        "arguments": {"table": "t", "key": "unnumbered"}});
    let row = ask(&router, "/v1/call", &look).unwrap();
    assert_eq!(row["data"]["value"], done, "each was done once: {row}");
    assert!(done > (CALLERS * SWITCHES) as u64);
}

#[test]
fn requests_in_flight_at_a_crash_are_sent_again_if_they_are_numbered() {
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let mut router = Router::before(&lab.pair).unwrap();
    router.more = HOLD_LONG.to_owned();
    router.start().unwrap();
    router.wait_for("serves", |status| status["standing"] == "serving").unwrap();
    let token = lab.token().unwrap();
    let arguments = |key: &str| json!({"table": "t", "key": key, "by": 1});
    let numbered = json!({
        "session": token, "request": 1, "function": 1006, "arguments": arguments("numbered")
    });
    let unnumbered = json!({
        "session": token, "function": 1006, "arguments": arguments("unnumbered")
    });
    let master = lab.in_sync().unwrap();
    lab.freeze(master).unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| ask(&router, "/v1/call", &numbered).unwrap());
        let second = scope.spawn(|| ask(&router, "/v1/call", &unnumbered).unwrap());
        router.wait_for("has sent both", |status| status["under_way"] == 2).unwrap();
        lab.kill(master).unwrap();
        // What may have been done cannot be done again for it, and nobody claims that it was not.
        let second = second.join().unwrap();
        assert_eq!(second["error_no"], 308_000_012, "{second}");
        let first = first.join().unwrap();
        assert_eq!(
            (&first["error_no"], &first["data"]["value"]),
            (&json!(0), &json!(1)),
            "{first}"
        );
    });
    let again = ask(&router, "/v1/call", &numbered).unwrap();
    assert_eq!(again["data"]["value"], 1, "done once, whatever became of its answers: {again}");
    lab.start(master).unwrap();
    lab.in_sync().unwrap();
}

#[test]
fn a_router_that_does_not_hold_answers_at_once_and_again_when_served() {
    let _turn = Turn::alone().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let mut router = Router::before(&lab.pair).unwrap();
    router.more = "[hold]\ncrash = \"0s\"\n".to_owned();
    router.start().unwrap();
    router.wait_for("serves", |status| status["standing"] == "serving").unwrap();
    let functions = router.client().get_json("/v1/functions").unwrap();
    assert_eq!(
        (&functions["error_no"], &functions["epoch"]),
        (&json!(0), &json!(1)),
        "{functions}"
    );
    let master = lab.in_sync().unwrap();
    // Nobody takes over while the other one stands still: the first answer is known.
    lab.freeze(1 - master).unwrap();
    lab.kill(master).unwrap();
    let answer = ask(&router, "/v1/call", &look()).unwrap();
    assert!(is_switching(&answer), "{answer}");
    lab.thaw(1 - master).unwrap();
    eventually(LIMIT, "the next master answers", || {
        let answer = ask(&router, "/v1/call", &look())?;
        assert!(answer["error_no"] == 0 || is_switching(&answer), "{answer}");
        ensure!(answer["error_no"] == 0, "{answer}");
        Ok(())
    })
    .unwrap();
    lab.start(master).unwrap();
    lab.in_sync().unwrap();

    // Now both, and for good: the empty answer comes, but not before the bound.
    let bound = Duration::from_millis(router.status().unwrap()["bound_ms"].as_u64().unwrap());
    let second = lab.in_sync().unwrap();
    lab.kill(1 - second).unwrap();
    // The router may know of it before the one who killed it does.
    let gone = Instant::now();
    lab.kill(second).unwrap();
    eventually(LIMIT + bound, "the empty answer", || {
        let answer = ask(&router, "/v1/call", &look())?;
        let early = gone.elapsed() < bound;
        assert!(is_switching(&answer) || !early, "{answer} after {:?}", gone.elapsed());
        ensure!(answer["error_no"] == 503, "{answer}");
        Ok(())
    })
    .unwrap();
    for node in 0..2 {
        lab.start(node).unwrap();
    }
    eventually(LIMIT, "it serves again", || {
        let answer = ask(&router, "/v1/call", &look())?;
        ensure!(answer["error_no"] == 0, "{answer}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_router_that_hears_nobody_asks_for_patience_and_never_says_that_all_is_over() {
    let pair = Pair::here(&["127.0.0.1:1".parse().unwrap()]).unwrap();
    // Somebody takes connections there, and says nothing: as a firewall would, or a frozen process.
    let mute = pair.nodes.each_ref().map(|node| TcpListener::bind(node.settings.admin).unwrap());
    let mut router = Router::before(&pair).unwrap();
    router.more = "[hold]\nbound = \"200ms\"\n".to_owned();
    router.start().unwrap();
    let blind = |status: &Value| {
        status["nodes"].as_array().is_some_and(|all| all.iter().all(|n| n["contact"] == "silent"))
    };
    router.wait_for("hears nobody", blind).unwrap();
    thread::sleep(Duration::from_millis(400));
    for _ in 0..3 {
        let answer = ask(&router, "/v1/heartbeat", &json!({"session": "x"})).unwrap();
        assert!(is_switching(&answer), "{answer}");
    }
    assert_eq!(router.admin().get("/readyz").unwrap().status, 503);
    drop(mute);
    // Refused is another thing: now it is known that nobody is there.
    eventually(LIMIT, "the empty answer", || {
        let answer = ask(&router, "/v1/call", &look())?;
        ensure!(answer["error_no"] == 503, "{answer}");
        Ok(())
    })
    .context("both nodes refuse")
    .unwrap();
}
