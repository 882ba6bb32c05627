//! The example of an embedded node (`crates/node/examples/orders.rs`) as a real pair: orders are placed
//! and positions read while the master is killed, and no order is lost or doubled.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hotpair_integration_tests::steps::LIMIT;
use hotpair_integration_tests::table_lab::{ATTEMPT_LIMIT, Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::http::Http;
use hotpair_lab::node::built_beside;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};

/// Switching, not serving, overloaded, the dataset loading: again.
const AGAIN: [u64; 4] = [308_000_000, 308_000_005, 308_000_006, 308_000_008];
const MORNING: u64 = 100;
const ORDERS_EACH: u64 = 60;

/// One call, asked at both nodes in turn until somebody knows.
fn call(nodes: &[Http], body: &Value) -> Value {
    let until = Instant::now() + LIMIT;
    for node in nodes.iter().cycle() {
        assert!(Instant::now() < until, "nobody answers {body}");
        let answer = node.post("/v1/call", body).and_then(|answer| answer.json());
        match answer {
            Ok(answer) if !AGAIN.contains(&answer["error_no"].as_u64().unwrap_or(1)) => {
                return answer;
            }
            Ok(_) | Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
    unreachable!("a cycle does not end")
}

fn place(session: &str, number: u64, instrument: &str, amount: i64) -> Value {
    json!({"session": session, "request": number, "gsv": "trade/order/1.0", "name": "place",
        "arguments": {"instrument": instrument, "amount": amount}})
}

fn position(session: &str, instrument: &str) -> Value {
    json!({"session": session, "gsv": "trade/position/1.0", "name": "get",
        "arguments": {"instrument": instrument}})
}

#[test]
fn an_embedded_node_places_each_order_once_whoever_dies() {
    let _turn = Turn::alone().unwrap();
    let scratch = Scratch::new("positions").unwrap();
    let rows = format!("account,instrument,amount\ntester,ABC,{MORNING}\nother,ABC,7\n");
    let file = scratch.write("positions.csv", rows).unwrap();
    let more = format!(
        "[[datasets]]\nname = \"positions\"\nsource = \"file://{}\"\n\
         key = [\"account\", \"instrument\"]\n",
        file.display()
    );
    let example = built_beside("examples/orders", "hotpair-node").unwrap();
    let options =
        Options { binary: Some(example), more: [more.clone(), more], ..Options::default() };
    let mut lab = TableLab::new(&options).unwrap();
    let nodes = lab.pair.nodes.each_ref().map(|node| node.client().with_limit(ATTEMPT_LIMIT));
    let sessions: Vec<String> = (0..3).map(|_| lab.token().unwrap()).collect();
    let session = &sessions[0];
    assert_eq!(call(&nodes, &position(session, "ABC"))["data"], json!({"position": MORNING}));
    let none = call(&nodes, &place(session, 1, "XYZ", -1));
    assert_eq!((&none["error_no"], &none["data"]["position"]), (&json!(308_000_009), &json!(0)));
    let malformed = call(&nodes, &place(session, 2, "ABC", 0));
    assert_eq!(malformed["error_no"], 308_000_009, "{malformed}");

    let placed = AtomicU64::new(0);
    let orders: Vec<String> = thread::scope(|scope| {
        let (nodes, placed) = (&nodes, &placed);
        let place_all = move |session: &str| {
            let place_one = |number| {
                let answer = call(nodes, &place(session, number, "ABC", 2));
                assert_eq!(answer["error_no"], 0, "{answer}");
                placed.fetch_add(1, Ordering::AcqRel);
                answer["data"]["order"].as_str().expect("an order has a name").to_owned()
            };
            (10..10 + ORDERS_EACH).map(place_one).collect::<Vec<_>>()
        };
        let clients: Vec<_> =
            sessions.iter().map(|session| scope.spawn(move || place_all(session))).collect();
        eventually(LIMIT, "orders are being placed", || {
            anyhow::ensure!(placed.load(Ordering::Acquire) > 20, "not yet");
            Ok(())
        })
        .unwrap();
        let master = lab.master().unwrap();
        lab.pair.nodes[master].kill().unwrap();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    // As many as were told to have been placed, each with its own name, in the tables and in the sum.
    let all = u64::try_from(orders.len()).unwrap();
    assert_eq!(all, 3 * ORDERS_EACH);
    assert_eq!(orders.iter().collect::<BTreeSet<_>>().len(), orders.len());
    let scan = json!({"session": session, "function": 1005,
        "arguments": {"table": "orders", "from": "", "limit": 1_000}});
    let kept = call(&nodes, &scan)["data"]["rows"].as_array().unwrap().len();
    assert_eq!(kept, orders.len());
    let position = call(&nodes, &position(session, "ABC"));
    assert_eq!(position["data"], json!({"position": MORNING + 2 * all}), "{position}");
}
