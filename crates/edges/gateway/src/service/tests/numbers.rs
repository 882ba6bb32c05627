//! Sessions with numbered requests: each is done once, in order, whatever becomes of its callers.

use super::writer_thread::Mode;
use super::*;
use crate::function::Call;

fn add(session: &str, number: u64) -> Json {
    json!({"session": session, "request": number, "function": 1006,
        "arguments": {"table": "t", "key": "n", "by": 1}})
}

fn sleep_call(session: &str, number: u64, ms: u64) -> Json {
    json!({"session": session, "request": number, "function": 1902, "arguments": {"ms": ms}})
}

#[tokio::test]
async fn a_request_sent_again_is_done_once_and_answered_the_same() {
    let served = serving();
    let session = served.session().await;
    for number in [1, 2, 1, 3, 2, 3] {
        let answer = served.call(add(&session, number)).await;
        assert_eq!(answer, Envelope::done(7, json!({"value": number})));
    }
    let other = served.session().await;
    assert_eq!(served.call(add(&other, 1)).await.data, json!({"value": 4}));
}

#[tokio::test]
async fn a_request_older_than_the_window_is_refused() {
    let served = serving();
    let session = served.session().await;
    served.call(add(&session, 1)).await;
    served.call(add(&session, 100)).await;
    for number in [1, 36] {
        let old = served.call(add(&session, number)).await;
        assert_eq!(old.error_no, ErrorNumber::TooOld, "{number}");
    }
    assert_eq!(served.call(add(&session, 37)).await.data, json!({"value": 3}));
    // What the client says it has is let go.
    let mut last = add(&session, 101);
    last["done_up_to"] = json!(100);
    served.call(last).await;
    assert_eq!(served.call(add(&session, 37)).await.error_no, ErrorNumber::TooOld);
}

#[tokio::test]
async fn a_duplicate_of_a_running_request_waits_for_the_same_verdict() {
    let served = serving();
    let session = served.session().await;
    served.writer.set(Mode::Hold);
    let both = [served.calling(&add(&session, 1)), served.calling(&add(&session, 1))];
    served.until_inside(2).await;
    assert!(both.iter().all(|call| !call.is_finished()));
    served.writer.set(Mode::Release);
    for call in both {
        assert_eq!(call.await.unwrap(), Envelope::done(7, json!({"value": 1})));
    }
}

#[tokio::test]
async fn a_time_out_is_its_callers_own_and_the_request_goes_on() {
    let served = serving();
    let session = served.session().await;
    served.writer.set(Mode::Hold);
    let mut hasty = add(&session, 1);
    hasty["timeout_ms"] = json!(50);
    assert_eq!(served.call(hasty).await.error_no, ErrorNumber::TimedOut);
    let patient = served.calling(&add(&session, 1));
    served.until_inside(1).await;
    served.writer.set(Mode::Release);
    assert_eq!(patient.await.unwrap(), Envelope::done(7, json!({"value": 1})));
    assert_eq!(served.call(add(&session, 2)).await.data, json!({"value": 2}));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_its_request_to_be_done_once() {
    let served = serving();
    let session = served.session().await;
    served.writer.set(Mode::Hold);
    let gone = served.calling(&add(&session, 1));
    served.until_inside(1).await;
    gone.abort();
    served.until_inside(0).await;
    let again = served.calling(&add(&session, 1));
    served.until_inside(1).await;
    served.writer.set(Mode::Release);
    assert_eq!(again.await.unwrap(), Envelope::done(7, json!({"value": 1})));
}

#[tokio::test]
async fn a_slow_call_delays_its_own_session_only() {
    let served = serving();
    let (slow, other) = (served.session().await, served.session().await);
    let sleeping = served.calling(&sleep_call(&slow, 1, 60_000));
    served.until_inside(1).await;
    let behind = served.calling(&add(&slow, 2));
    served.until_inside(2).await;
    assert_eq!(served.call(add(&other, 1)).await.data, json!({"value": 1}));
    assert!(!sleeping.is_finished() && !behind.is_finished());
    let mut hasty = add(&slow, 3);
    hasty["timeout_ms"] = json!(50);
    assert_eq!(served.call(hasty).await.error_no, ErrorNumber::TimedOut);
}

#[tokio::test]
async fn calls_of_a_session_follow_each_other() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let slow = move |_: &mut Call<'_>| {
        wait.lock().unwrap().recv().unwrap();
        Ok(json!(null))
    };
    let library = vec![library::registered(5, slow)];
    let served = serving_as(Wanted { library, ..Wanted::default() });
    let session = served.session().await;
    let first = served.calling(&json!({"session": session, "request": 1, "function": 5}));
    served.until_inside(1).await;
    let mut inside = 1;
    let mut behind = Vec::new();
    for number in 2..12 {
        let call = if number % 3 == 0 {
            let arguments = json!({"table": "t", "key": "n"});
            json!({"session": session, "request": number, "function": 1001, "arguments": arguments})
        } else {
            add(&session, number)
        };
        behind.push(served.calling(&call));
        inside += 1;
        served.until_inside(inside).await;
    }
    assert!(behind.iter().all(|call| !call.is_finished()));
    go.send(()).unwrap();
    let mut values = Vec::new();
    for call in behind {
        values.push(call.await.unwrap().data["value"].as_i64().unwrap());
    }
    assert_eq!(values, [1, 1, 2, 3, 3, 4, 5, 5, 6, 7]);
    assert_eq!(first.await.unwrap().error_no, ErrorNumber::Done);
}

#[tokio::test]
async fn the_65th_call_of_a_session_is_refused_unexecuted() {
    let served = serving();
    let session = served.session().await;
    let running: Vec<_> =
        (1..=64).map(|number| served.calling(&sleep_call(&session, number, 60_000))).collect();
    served.until_inside(64).await;
    let refused = served.call(add(&session, 65)).await;
    assert_eq!(refused.error_no, ErrorNumber::Overloaded);
    assert!(refused.error_info.contains("64 calls of this session"), "{refused:?}");
    for call in running {
        call.abort();
    }
}

#[tokio::test]
async fn a_refused_request_may_be_sent_again_with_its_number() {
    let served = serving();
    let session = served.session().await;
    served.put("n", json!("word")).await;
    assert_eq!(served.call(add(&session, 1)).await.error_no, ErrorNumber::FunctionFailed);
    served.put("n", json!(41)).await;
    assert_eq!(served.call(add(&session, 1)).await.data, json!({"value": 42}));
}
