//! Asynchronous calls: a ticket is never lost, its work is done once, its answer waits.

use hotpair_core::tables::change::{Operation, ReplyPlan, Request as TableRequest};
use hotpair_core::tables::tickets::{RESULTS, Ticketed, row_key};
use hotpair_http::{ClientError, Events};

use super::library::registered;
use super::*;
use crate::function::{Call, FunctionError};
use crate::sessions::session_key;

fn add(session: &str, number: u64) -> Json {
    json!({"session": session, "request": number, "function": 1006, "async": true,
        "arguments": {"table": "t", "key": "n", "by": 1}})
}

fn sleep_call(session: &str, number: u64, ms: u64) -> Json {
    json!({"session": session, "request": number, "function": 1902, "async": true,
        "arguments": {"ms": ms}})
}

impl Served {
    async fn result(&self, session: &str, ticket: &str) -> Envelope {
        self.post("/v1/result", json!({"session": session, "ticket": ticket}).to_string()).await
    }

    /// Asks until the call is over.
    pub(super) async fn final_result(&self, session: &str, ticket: &str) -> Envelope {
        let wait = async {
            loop {
                let answer = self.result(session, ticket).await;
                if answer.retry_after_ms.is_none() {
                    return answer;
                }
                assert_eq!(answer.data, json!({"running": true}));
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, wait).await.expect("a call that ends")
    }

    async fn follow(&self, session: &str, last: Option<&str>) -> Events {
        self.follow_at("/v1/push", session, last).await
    }

    async fn follow_at(&self, path: &str, session: &str, last: Option<&str>) -> Events {
        let (url, bearer) = (format!("http://{}{path}", self.address), format!("Bearer {session}"));
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(last.map(|id| ("last-event-id", id)));
        Events::open(&url, &headers, LONG).await.unwrap()
    }

    fn rows(&self) -> usize {
        self.tables.look(|store| store.table(RESULTS).map_or(0, |rows| rows.len()))
    }
}

async fn next(events: &mut Events) -> (String, Json) {
    let event = events.next(LONG).await.unwrap().expect("a stream that goes on");
    (event.name, serde_json::from_str(&event.data).unwrap())
}

#[tokio::test]
async fn a_call_gives_its_ticket_and_later_its_answer_once() {
    let served = serving();
    let session = served.session().await;
    assert_eq!(served.call(add(&session, 4)).await, Envelope::done(7, json!({"ticket": "4"})));
    let answer = served.final_result(&session, "4").await;
    assert_eq!((answer.error_no, &answer.data), (ErrorNumber::Done, &json!({"value": 1})));
    assert_eq!((answer.ticket.as_deref(), answer.epoch), (Some("4"), 7));
    let gone = served.result(&session, "4").await;
    assert_eq!((gone.error_no, gone.data), (ErrorNumber::Malformed, json!({"ticket": "unknown"})));
    assert_eq!(served.rows(), 0);
    // Sent again, it is told the same and not done again.
    assert_eq!(served.call(add(&session, 4)).await, Envelope::done(7, json!({"ticket": "4"})));
    assert_eq!(served.call(add(&session, 5)).await, Envelope::done(7, json!({"ticket": "5"})));
    assert_eq!(served.final_result(&session, "5").await.data, json!({"value": 2}));
}

#[tokio::test]
async fn an_answer_fetched_under_a_number_may_be_fetched_again_under_it() {
    let served = serving();
    let session = served.session().await;
    served.call(add(&session, 1)).await;
    let fetch = json!({"session": session, "ticket": "1", "request": 2}).to_string();
    let wait = async {
        loop {
            let answer = served.post("/v1/result", fetch.clone()).await;
            if answer.ticket.is_some() {
                return answer;
            }
        }
    };
    let answer = timeout(LONG, wait).await.unwrap();
    assert_eq!(served.rows(), 0);
    for _ in 0..2 {
        assert_eq!(served.post("/v1/result", fetch.clone()).await, answer);
    }
    // Its number is that of no other request.
    let other = json!({"session": session, "ticket": "1", "request": 1}).to_string();
    assert!(served.post("/v1/result", other).await.ticket.is_none());
}

#[tokio::test]
async fn calls_keep_nobody_waiting_and_end_in_their_own_order() {
    let served = serving();
    let session = served.session().await;
    served.call(sleep_call(&session, 1, 60_000)).await;
    served.call(sleep_call(&session, 2, 1)).await;
    served.call(add(&session, 3)).await;
    let sync = json!({"session": session, "request": 4, "function": 1901, "arguments": "x"});
    assert_eq!(served.call(sync).await.data, json!("x"));
    assert_eq!(served.final_result(&session, "3").await.data, json!({"value": 1}));
    assert_eq!(served.final_result(&session, "2").await.data, json!({}));
    assert_eq!(served.result(&session, "1").await.data, json!({"running": true}));
    assert!(served.service.under_way.is_busy(session_key(&session)));
}

#[tokio::test]
async fn what_goes_wrong_later_is_the_answer_and_what_is_wrong_at_once_gives_no_ticket() {
    let refuse = |_: &mut Call<'_>| Err(FunctionError::failed("not today"));
    let library = vec![registered(330_001, refuse)];
    let served = serving_as(Wanted { library, ..Wanted::default() });
    let session = served.session().await;
    let call = |number: u64, function: u32, arguments: Json| {
        json!({"session": session, "request": number, "function": function, "async": true,
            "arguments": arguments, "timeout_ms": 20})
    };
    served.call(call(1, 330_001, json!({}))).await;
    let failed = served.final_result(&session, "1").await;
    assert_eq!(failed.error_no, ErrorNumber::FunctionFailed);
    assert_eq!((failed.error_info.as_str(), failed.ticket.as_deref()), ("not today", Some("1")));
    served.call(call(2, 1902, json!({"ms": 60_000}))).await;
    assert_eq!(served.final_result(&session, "2").await.error_no, ErrorNumber::TimedOut);
    served.put("word", json!("x")).await;
    served.call(call(3, 1006, json!({"table": "t", "key": "word", "by": 1}))).await;
    let no_number = served.final_result(&session, "3").await;
    assert_eq!(no_number.error_no, ErrorNumber::FunctionFailed, "{no_number:?}");
    for (number, function, arguments, wanted) in [
        (4, 1006, json!({"table": "t"}), ErrorNumber::Malformed),
        (4, 9, json!({}), ErrorNumber::NoSuchFunction),
    ] {
        assert_eq!(served.call(call(number, function, arguments)).await.error_no, wanted);
    }
    let mut nobody = add(&session, 5);
    nobody.as_object_mut().unwrap().remove("session");
    nobody.as_object_mut().unwrap().remove("request");
    assert_eq!(served.call(nobody).await.error_no, ErrorNumber::Malformed);
    assert_eq!(served.call(add("who", 5)).await.error_no, ErrorNumber::SessionUnknown);
    assert_eq!(served.rows(), 0);
}

#[tokio::test]
async fn a_call_without_a_number_has_a_ticket_of_its_own() {
    let served = serving();
    let session = served.session().await;
    let mut call = add(&session, 1);
    call.as_object_mut().unwrap().remove("request");
    let (one, other) = (served.call(call.clone()).await, served.call(call).await);
    let tickets = [one, other].map(|told| told.data["ticket"].as_str().unwrap().to_owned());
    assert_ne!(tickets[0], tickets[1]);
    let mut sums = Vec::new();
    for ticket in &tickets {
        sums.push(served.final_result(&session, ticket).await.data["value"].as_i64().unwrap());
    }
    sums.sort_unstable();
    assert_eq!(sums, [1, 2]);
}

#[tokio::test]
async fn a_library_function_and_its_answer_are_committed_together_once() {
    let count = |call: &mut Call<'_>| {
        let user = call.caller().map(|caller| caller.user.clone());
        call.add("t", &b"n"[..], 1)?;
        Ok(json!({"user": user}))
    };
    let library = vec![registered(330_001, count)];
    let served = serving_as(Wanted { library, ..Wanted::default() });
    let session = served.session().await;
    let call = json!({"session": session, "request": 1, "async": true,
        "gsv": "trade/order/1.0", "name": "f330001"});
    for _ in 0..3 {
        assert_eq!(served.call(call.clone()).await.data, json!({"ticket": "1"}));
    }
    assert_eq!(served.final_result(&session, "1").await.data, json!({"user": "ann"}));
    let sum =
        json!({"session": session, "function": 1001, "arguments": {"table": "t", "key": "n"}});
    assert_eq!(served.call(sum).await.data["value"], json!(1));
}

#[tokio::test]
async fn a_new_master_goes_on_with_calls_that_were_accepted_before() {
    let mut served = serving();
    let session = served.session().await;
    served.keeper.close(Epoch(7));
    let accepted = Ticketed::Accepted {
        function: 1006,
        limit_ms: 1_000,
        arguments: br#"{"table":"t","key":"n","by":5}"#.to_vec(),
    };
    let key = row_key(session_key(&session), "9");
    let operations =
        vec![Operation::Put { table: RESULTS.into(), key, value: accepted.encode().into() }];
    let (reads, reply) = (Vec::new(), ReplyPlan::Results);
    let request = TableRequest { ticket: 0, numbered: None, reads, operations, reply };
    served.tables.commit(Epoch(7), request).await.unwrap();
    tokio::spawn(served.service.keep_finishing_calls());
    served.keeper.open(Epoch(8), in_an_hour());
    let mut events = served.follow(&session, None).await;
    assert_eq!(next(&mut events).await, ("role".into(), json!({"epoch": 8, "serving": true})));
    let (name, reply) = next(&mut events).await;
    assert_eq!((name.as_str(), &reply["data"]), ("reply", &json!({"value": 5})));
    assert_eq!((&reply["ticket"], &reply["epoch"]), (&json!("9"), &json!(8)));
}

#[tokio::test]
async fn replies_are_pushed_as_they_come_and_again_until_the_client_has_them() {
    let mut served = serving();
    let session = served.session().await;
    served.call(add(&session, 1)).await;
    let mut events = served.follow(&session, None).await;
    assert_eq!(next(&mut events).await.0, "role");
    assert_eq!(next(&mut events).await.1["data"], json!({"value": 1}));
    served.call(add(&session, 2)).await;
    let (_, second) = next(&mut events).await;
    assert_eq!((&second["ticket"], &second["data"]), (&json!("2"), &json!({"value": 2})));
    served.keeper.close(Epoch(7));
    let (name, role) = next(&mut events).await;
    assert_eq!((name.as_str(), role), ("role", json!({"epoch": 7, "serving": false})));
    assert_eq!(events.next(LONG).await.unwrap(), None);
    // Nobody said that they were taken.
    served.keeper.open(Epoch(8), in_an_hour());
    let mut events = served.follow(&session, None).await;
    let heard = [next(&mut events).await, next(&mut events).await, next(&mut events).await];
    assert_eq!(
        heard.map(|(_, reply)| reply["ticket"].clone()),
        [json!(null), json!("1"), json!("2")]
    );
    let first = served
        .tables
        .look(|store| store.get(RESULTS, &row_key(session_key(&session), "1")).unwrap().version);
    let mut events = served.follow(&session, Some(&first.to_string())).await;
    assert_eq!(next(&mut events).await.0, "role");
    assert_eq!(next(&mut events).await.1["ticket"], json!("2"));
    assert_eq!(served.rows(), 1);
}

#[tokio::test]
async fn what_is_published_reaches_whoever_follows_and_wants_it() {
    let served = serving();
    let session = served.session().await;
    let mut everything = served.follow(&session, None).await;
    let mut axis = served.follow_at("/v1/push?topic=%2Faxis", &session, None).await;
    assert_eq!((next(&mut everything).await.0, next(&mut axis).await.0), two("role", "role"));
    let order = json!({"topic": "/order", "payload": {"no": 1}});
    let answer = served.post("/v1/publish", order.to_string()).await;
    assert_eq!(answer, Envelope::done(7, json!({"streams": 2})));
    served.post("/v1/publish", "{\"topic\":\"/axis\",\"payload\":[1,\n2]}").await;
    let payload =
        |topic, payload| ("publish".to_owned(), json!({"topic": topic, "payload": payload}));
    assert_eq!(next(&mut everything).await, payload("/order", json!({"no": 1})));
    assert_eq!(next(&mut everything).await, payload("/axis", json!([1, 2])));
    assert_eq!(next(&mut axis).await, payload("/axis", json!([1, 2])));
    let wrong = served.post("/v1/publish", json!({"topic": "", "payload": 1}).to_string()).await;
    assert_eq!(wrong.error_no, ErrorNumber::Malformed);
    let large = json!({"topic": "/a", "payload": "x".repeat(64 * 1024)});
    let large = served.post("/v1/publish", large.to_string()).await;
    assert_eq!(large.error_no, ErrorNumber::Malformed);
}

fn two(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

#[tokio::test]
async fn a_session_publishes_only_where_its_user_may() {
    let publishers = vec!["ann".to_owned()];
    let settings = ClientSettings { publishers, ..ClientSettings::default() };
    let served = serving_as(Wanted { settings, ..Wanted::default() });
    let ann = served.session().await;
    let bob = served.sessions.create(Epoch(7), "bob", None).await.unwrap();
    let url = format!("http://{}/v1/publish", served.address);
    let publish = async |session: Option<&str>| {
        let mut body = json!({"topic": "/axis", "payload": 1});
        if let Some(session) = session {
            body["session"] = session.into();
        }
        // As a router passes it on: where it comes from says nothing then.
        let headers = [("hotpair-epoch", "7")];
        let answer = client::post_json(&url, &headers, body.to_string(), LONG).await.unwrap();
        serde_json::from_slice::<Envelope>(&answer.body).unwrap().error_no
    };
    assert_eq!(publish(Some(&ann)).await, ErrorNumber::Done);
    assert_eq!(publish(Some(&bob)).await, ErrorNumber::NotAllowed);
    assert_eq!(publish(Some("nobody")).await, ErrorNumber::SessionUnknown);
    assert_eq!(publish(None).await, ErrorNumber::SessionUnknown);
    // The page of somebody else, in a browser of this machine.
    let (body, headers) =
        (json!({"topic": "/axis", "payload": 1}), [("origin", "https://elsewhere.example")]);
    let answer = client::post_json(&url, &headers, body.to_string(), LONG).await.unwrap();
    let told = serde_json::from_slice::<Envelope>(&answer.body).unwrap();
    assert_eq!(told.error_no, ErrorNumber::SessionUnknown);
}

#[tokio::test]
async fn whoever_may_not_follow_is_told_why() {
    let served = serving();
    let url = format!("http://{}/v1/push", served.address);
    for headers in [&[][..], &[("authorization", "Bearer who")]] {
        let answer = client::request(Method::GET, &url, headers, "", LONG).await.unwrap();
        let envelope: Envelope = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(envelope.error_no, ErrorNumber::SessionUnknown);
    }
    let wrong = served.post("/v1/push", "{}").await;
    assert_eq!(wrong.error_no, ErrorNumber::Malformed);
    let closed = closed(ClientSettings::default());
    let url = format!("http://{}/v1/push", closed.address);
    let answer = client::get(&url, LONG).await.unwrap();
    let envelope: Envelope = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(envelope.error_no, ErrorNumber::NotServing);
}

#[tokio::test]
async fn a_session_has_64_outstanding_and_what_was_pushed_makes_room() {
    let served = serving();
    let session = served.session().await;
    for number in 1..=64 {
        assert_eq!(served.call(add(&session, number)).await.error_no, ErrorNumber::Done);
    }
    let full = served.call(add(&session, 65)).await;
    assert_eq!(full.error_no, ErrorNumber::Overloaded, "{full:?}");
    assert!(full.retry_after_ms.is_some());
    // One that is outstanding is told again.
    assert_eq!(served.call(add(&session, 64)).await.error_no, ErrorNumber::Done);
    let mut events = served.follow(&session, None).await;
    for _ in 0..65 {
        next(&mut events).await;
    }
    for number in 65..=70 {
        assert_eq!(served.call(add(&session, number)).await.error_no, ErrorNumber::Done);
        assert_eq!(next(&mut events).await.1["ticket"], json!(number.to_string()));
    }
    assert_eq!(served.rows(), 64);
    // All goes with the session.
    served.sessions.end(Epoch(7), session_key(&session)).await.unwrap();
    assert_eq!(served.rows(), 0);
    assert_eq!(events.next(LONG).await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let text = "x".repeat(1 << 18);
    let served = serving();
    let session = served.session().await;
    let mut events = served.follow(&session, None).await;
    assert_eq!(next(&mut events).await.0, "role");
    let echo = |number: u64| {
        json!({"session": session, "request": number, "function": 1901, "async": true,
            "arguments": text})
    };
    for number in 1..=60 {
        assert_eq!(served.call(echo(number)).await.error_no, ErrorNumber::Done);
    }
    let followers = &served.service.followers;
    let key = session_key(&session);
    let cut = async {
        // Not read: what the sockets hold is pushed, and no more.
        while followers.is_followed(key) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), cut).await.expect("a slow client that is cut");
    assert!(served.rows() > 0, "what it did not take is kept");
    // The stream has an end, after what was on its way.
    let drained = async {
        loop {
            match events.next(LONG).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(ClientError::Broken { .. }) => return,
                Err(other) => panic!("{other}"),
            }
        }
    };
    timeout(Duration::from_secs(60), drained).await.expect("an end of the stream");
}

#[tokio::test]
async fn what_an_old_mastership_was_at_is_committed_by_the_next_one_alone() {
    let mut served = serving();
    let session = served.session().await;
    served.call(sleep_call(&session, 1, 300)).await;
    let key = row_key(session_key(&session), "1");
    let is_over = |served: &Served| {
        served.tables.look(|store| Ticketed::is_over(&store.get(RESULTS, &key).unwrap().value))
    };
    served.keeper.close(Epoch(7));
    let given_up = async {
        while served.service.under_way.is_busy(session_key(&session)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, given_up).await.expect("work without a mastership ends");
    assert!(!is_over(&served));
    tokio::spawn(served.service.keep_finishing_calls());
    served.keeper.open(Epoch(8), in_an_hour());
    let answer = served.final_result(&session, "1").await;
    assert_eq!((answer.error_no, answer.epoch, answer.data), (ErrorNumber::Done, 8, json!({})));
}
