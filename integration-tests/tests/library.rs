//! A Rust function of somebody else's, in a real pair: it sees its session and the tables, and what it
//! does is done once, whatever dies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hotpair_integration_tests::table_lab::{ATTEMPT_LIMIT, Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::http::Http;
use hotpair_lab::node::built_beside;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const ACCOUNTS: u64 = 4;
const EACH: u64 = 1_000;

/// One numbered call, asked at both nodes in turn until somebody knows.
fn call(nodes: &[Http], session: &str, number: u64, body: &Value) -> Value {
    let mut body = body.clone();
    body["session"] = session.into();
    body["request"] = number.into();
    let until = Instant::now() + LIMIT;
    for node in nodes.iter().cycle() {
        assert!(Instant::now() < until, "nobody answers {body}");
        let Ok(answer) = node.post("/v1/call", &body).and_then(|answer| answer.json()) else {
            continue;
        };
        match answer["error_no"].as_u64() {
            Some(308_000_005 | 308_000_006) => thread::sleep(Duration::from_millis(10)),
            _ => return answer,
        }
    }
    unreachable!("a cycle does not end")
}

fn transfer(from: u64, to: u64, amount: i64) -> Value {
    json!({"gsv": "trade/account/1.0", "name": "transfer", "arguments": {
        "from": format!("account-{from}"), "to": format!("account-{to}"), "amount": amount}})
}

#[test]
fn a_function_of_a_library_sees_its_session_and_moves_money_exactly_once() {
    let _turn = Turn::alone().unwrap();
    let example = built_beside("examples/own_function", "hotpair-node").unwrap();
    let options = Options { binary: Some(example), ..Options::default() };
    let mut lab = TableLab::new(&options).unwrap();
    let nodes = lab.pair.nodes.each_ref().map(|node| node.client().with_limit(ATTEMPT_LIMIT));
    let sessions: Vec<String> = (0..3).map(|_| lab.token().unwrap()).collect();
    for account in 0..ACCOUNTS {
        let body = json!({"function": 1006, "arguments": {
            "table": "accounts", "key": format!("account-{account}"), "by": EACH}});
        let answer = call(&nodes, &sessions[0], account + 1, &body);
        assert_eq!(answer["data"]["value"], EACH, "{answer}");
    }
    let answer = call(&nodes, &sessions[1], 1, &transfer(0, 1, 1));
    assert_eq!(answer["data"], json!({"left": EACH - 1, "by": lab.user.name}), "{answer}");
    assert_eq!(call(&nodes, &sessions[1], 1, &transfer(0, 1, 1)), answer, "the same again");
    let refused = call(&nodes, &sessions[1], 2, &transfer(0, 1, 1_000_000));
    assert_eq!(refused["error_no"], 308_000_009, "{refused}");
    let nonsense = call(&nodes, &sessions[1], 3, &transfer(0, 1, -5));
    assert_eq!(nonsense["error_no"], 308_000_003, "{nonsense}");

    // Everybody moves 1 in a circle while the master dies: each transfer once, the sum stays.
    let moved = AtomicU64::new(0);
    thread::scope(|scope| {
        for (who, session) in (0..).zip(&sessions) {
            let (nodes, moved) = (&nodes, &moved);
            scope.spawn(move || {
                for number in 100..160 {
                    let from = (number + who) % ACCOUNTS;
                    let body = transfer(from, (from + 1) % ACCOUNTS, 1);
                    let answer = call(nodes, session, number, &body);
                    assert_eq!(answer["error_no"], 0, "{answer}");
                    moved.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        eventually(LIMIT, "transfers are under way", || {
            anyhow::ensure!(moved.load(Ordering::Acquire) > 20, "not yet");
            Ok(())
        })
        .unwrap();
        let master = lab.master().unwrap();
        lab.pair.nodes[master].kill().unwrap();
    });
    // 60 transfers of each of three: every account gave 45 and got 45, but for the first one's 1.
    let balances: Vec<Value> = (0..ACCOUNTS)
        .map(|account| {
            let body = json!({"function": 1001, "arguments": {
                "table": "accounts", "key": format!("account-{account}")}});
            call(&nodes, &sessions[2], 200 + account, &body)["data"]["value"].clone()
        })
        .collect();
    assert_eq!(balances, [EACH - 1, EACH + 1, EACH, EACH].map(Value::from));
}
