//! Functions of the library's user: what they see, what they commit, and what they cannot break.

use std::sync::atomic::{AtomicU64, Ordering};

use hotpair_core::tables::change::{Bytes, Operation, ReplyPlan, Request as TableRequest};

use super::writer_thread::Mode;
use super::*;
use crate::catalogue::Does;
use crate::function::{Call, FunctionError, Handler};
use crate::sessions::session_key;

pub(super) fn registered(number: u32, function: impl Handler) -> Registered {
    Registered {
        number,
        group: "trade".to_owned(),
        service: "order".to_owned(),
        version: "1.0".to_owned(),
        name: format!("f{number}"),
        needs: Vec::new(),
        does: Does::Library(Arc::new(function)),
    }
}

fn serving_these(library: Vec<Registered>) -> Served {
    serving_as(Wanted { library, ..Wanted::default() })
}

fn number(bytes: Option<&Bytes>) -> i64 {
    bytes.map_or(0, |bytes| std::str::from_utf8(bytes).unwrap().parse().unwrap())
}

fn put(key: &str, value: &str) -> TableRequest {
    let (table, key, value) = ("t".into(), key.as_bytes().into(), value.as_bytes().into());
    TableRequest {
        ticket: 0,
        numbered: None,
        reads: Vec::new(),
        operations: vec![Operation::Put { table, key, value }],
        reply: ReplyPlan::Results,
    }
}

/// Takes from one row and gives to another, and writes down who did.
fn transfer(call: &mut Call<'_>) -> Result<Json, FunctionError> {
    let amount = call.arguments()["amount"]
        .as_i64()
        .ok_or_else(|| FunctionError::Malformed("amount is no number".to_owned()))?;
    let user = call.caller().map(|caller| caller.user.clone()).unwrap_or_default();
    let from = number(call.get("t", b"from")?.as_ref());
    if from < amount {
        let text = format!("{from} is not enough");
        return Err(FunctionError::Failed { text, data: json!({"has": from}) });
    }
    call.put("t", &b"from"[..], (from - amount).to_string().into_bytes())?;
    call.add("t", &b"to"[..], amount)?;
    call.put("t", &b"user"[..], format!("{user:?}").into_bytes())?;
    let (from, to) = (call.get("t", b"from")?, call.get("t", b"to")?);
    Ok(json!({"from": number(from.as_ref()), "to": number(to.as_ref()), "user": user}))
}

#[tokio::test]
async fn a_function_sees_its_caller_and_its_own_writes_and_commits_them_together() {
    let served = serving_these(vec![registered(330_001, transfer)]);
    served.put("from", json!(10)).await;
    let session = served.session().await;
    let call = |number: u64, amount: Json| {
        json!({"session": session, "request": number, "gsv": "trade/order/1.0", "name": "f330001",
            "arguments": {"amount": amount}})
    };
    let first = served.call(call(1, json!(3))).await;
    assert_eq!(first, Envelope::done(7, json!({"from": 7, "to": 3, "user": "ann"})));
    assert_eq!(served.got("to").await, 3);
    // Sent again: the same answer, and nothing done.
    assert_eq!(served.call(call(1, json!(3))).await, first);
    assert_eq!(served.got("from").await, 7);
    let failed = served.call(call(2, json!(100))).await;
    assert_eq!((failed.error_no, &failed.data), (ErrorNumber::FunctionFailed, &json!({"has": 7})));
    let malformed = served.call(call(3, json!("x"))).await;
    assert_eq!(malformed.error_no, ErrorNumber::Malformed);
    assert_eq!((served.got("from").await, served.got("user").await), (json!(7), json!("ann")));
}

#[tokio::test]
async fn a_request_done_before_is_answered_without_running_its_function_again() {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let count = |call: &mut Call<'_>| {
        RUNS.fetch_add(1, Ordering::SeqCst);
        let key = call.caller().map(|caller| caller.session.0.to_vec()).unwrap_or_default();
        call.put("t", key, &b"1"[..])?;
        Ok(json!("done"))
    };
    let served = serving_these(vec![registered(5, count)]);
    let session = served.session().await;
    served.writer.set(Mode::Hold);
    let call = json!({"session": session, "request": 1, "function": 5});
    let both = [served.calling(&call), served.calling(&call)];
    served.until_inside(2).await;
    served.writer.set(Mode::Release);
    for one in both {
        assert_eq!(one.await.unwrap().data, json!("done"));
    }
    assert_eq!(served.call(call).await.data, json!("done"));
    assert_eq!(RUNS.load(Ordering::SeqCst), 1);
    let key = session_key(&session);
    assert!(served.tables.look(|store| store.get("t", &key.0).is_some()));
}

#[tokio::test]
async fn a_function_whose_rows_changed_meanwhile_decides_again() {
    let runs = Arc::new(AtomicU64::new(0));
    let tables: Arc<Mutex<Option<Tables>>> = Arc::default();
    let (counted, others) = (Arc::clone(&runs), Arc::clone(&tables));
    let increment = move |call: &mut Call<'_>| {
        let seen = number(call.get("t", b"n")?.as_ref());
        // Somebody else is faster, the first time.
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            let tables = others.lock().unwrap().clone().unwrap();
            tables.submit(Epoch(7), put("n", "40")).unwrap().blocking_recv().unwrap();
        }
        call.put("t", &b"n"[..], (seen + 1).to_string().into_bytes())?;
        Ok(json!(seen + 1))
    };
    let served = serving_these(vec![registered(5, increment)]);
    *tables.lock().unwrap() = Some(served.tables.clone());
    assert_eq!(served.function(5, json!(null)).await.data, json!(41));
    assert_eq!(served.got("n").await, 41);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    *tables.lock().unwrap() = None;
}

#[tokio::test]
async fn a_function_whose_rows_never_rest_is_refused_in_the_end() {
    let tables: Arc<Mutex<Option<Tables>>> = Arc::default();
    let others = Arc::clone(&tables);
    let unlucky = move |call: &mut Call<'_>| {
        call.get("t", b"n")?;
        let tables = others.lock().unwrap().clone().unwrap();
        tables.submit(Epoch(7), put("n", "1")).unwrap().blocking_recv().unwrap();
        Ok(json!("only looked"))
    };
    let served = serving_these(vec![registered(5, unlucky)]);
    *tables.lock().unwrap() = Some(served.tables.clone());
    let refused = served.function(5, json!(null)).await;
    assert_eq!(refused.error_no, ErrorNumber::Overloaded);
    assert!(refused.error_info.contains("keep changing"), "{refused:?}");
    *tables.lock().unwrap() = None;
}

#[tokio::test]
async fn a_panic_is_its_own_calls_affair() {
    let panics = |call: &mut Call<'_>| {
        call.put("t", &b"k"[..], &b"1"[..])?;
        assert!(crate::function::panic_is_contained());
        panic!("as this test wants it")
    };
    let served = serving_these(vec![registered(5, panics)]);
    let session = served.session().await;
    let call = json!({"session": session, "request": 1, "function": 5});
    for _ in 0..3 {
        let failed = served.call(call.clone()).await;
        assert_eq!(failed.error_no, ErrorNumber::FunctionFailed);
        assert_eq!(failed.error_info, "the function panicked; nothing was executed");
    }
    assert_eq!(served.got("k").await, json!(null));
    let echo = json!({"session": session, "request": 2, "function": 1901, "arguments": 1});
    assert_eq!(served.call(echo).await.data, json!(1));
}

#[tokio::test]
async fn a_function_gets_datasets_and_no_tables_of_the_pair() {
    let amount = |call: &mut Call<'_>| {
        let key = [Value::Integer(1), Value::Date(1)];
        let row = call.dataset("positions")?.lookup(&key).unwrap().unwrap();
        Ok(json!(row[2].to_string()))
    };
    let nosy = |call: &mut Call<'_>| {
        call.get("hotpair.users", b"ann")?;
        Ok(json!(null))
    };
    let served = serving_these(vec![
        registered(5, amount),
        registered(6, nosy),
        Registered { needs: vec!["positions".to_owned()], ..registered(7, transfer) },
    ]);
    assert_eq!(served.function(5, json!(null)).await.data, json!("2.5"));
    assert_eq!(served.function(6, json!(null)).await.error_no, ErrorNumber::NotAllowed);
    let loading = Found::NotReady(Availability::StillLoading { percent: 42 });
    *served.datasets.0.lock().unwrap() = loading;
    for function in [5, 7] {
        let loading = served.function(function, json!({"amount": 0})).await;
        assert_eq!(loading.error_no, ErrorNumber::DatasetLoading, "{function}");
        assert_eq!(loading.data["percent"], 42);
    }
}

#[tokio::test]
async fn rows_that_are_scanned_are_rows_that_were_looked_at() {
    let sum = |call: &mut Call<'_>| {
        let rows = call.scan("t", b"", 100)?;
        let sum: i64 = rows.iter().map(|(_, value)| number(Some(value))).sum();
        call.put("sums", &b"all"[..], sum.to_string().into_bytes())?;
        Ok(json!(sum))
    };
    let served = serving_these(vec![registered(5, sum)]);
    for value in 1..=4 {
        served.put(&format!("k{value}"), json!(value)).await;
    }
    assert_eq!(served.function(5, json!(null)).await.data, json!(10));
}

#[tokio::test]
async fn a_slow_function_delays_nobody_else() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let slow = move |_: &mut Call<'_>| {
        wait.lock().unwrap().recv().unwrap();
        Ok(json!("slow"))
    };
    let served = serving_these(vec![registered(5, slow)]);
    let session = served.session().await;
    let running = served.calling(&json!({"session": session, "request": 1, "function": 5}));
    served.until_inside(1).await;
    assert_eq!(served.put("k", json!(1)).await.error_no, ErrorNumber::Done);
    assert!(!running.is_finished());
    go.send(()).unwrap();
    assert_eq!(running.await.unwrap().data, json!("slow"));
}

#[tokio::test]
async fn a_function_that_nobody_waits_for_any_more_has_its_thread_until_it_ends() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let slow = move |_: &mut Call<'_>| {
        wait.lock().unwrap().recv().unwrap();
        Ok(json!("slow"))
    };
    let library = vec![registered(5, slow), registered(6, |_: &mut Call<'_>| Ok(json!("quick")))];
    let settings = ClientSettings { library_max: 1, ..ClientSettings::default() };
    let served = serving_as(Wanted { library, settings, ..Wanted::default() });
    let late = served.call(json!({"function": 5, "timeout_ms": 50})).await;
    assert_eq!(late.error_no, ErrorNumber::TimedOut, "{late:?}");
    let session = served.session().await;
    let body = json!({"session": session, "request": 1, "function": 5, "async": true,
        "timeout_ms": 50});
    assert_eq!(served.call(body).await.error_no, ErrorNumber::Done);
    assert_eq!(served.final_result(&session, "1").await.error_no, ErrorNumber::TimedOut);
    // The one thread is still taken, however few wait.
    let quick = served.call(json!({"function": 6, "timeout_ms": 200})).await;
    assert_eq!(quick.error_no, ErrorNumber::TimedOut, "{quick:?}");
    go.send(()).unwrap();
    assert_eq!(served.call(json!({"function": 6})).await.data, json!("quick"));
}
