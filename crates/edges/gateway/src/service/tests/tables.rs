//! The built-in functions of tables, over HTTP.

use super::writer_thread::Mode;
use super::*;
use crate::function::Call;

impl Served {
    pub(super) async fn put(&self, key: &str, value: Json) -> Envelope {
        self.function(1002, json!({"table": "t", "key": key, "value": value})).await
    }

    pub(super) async fn got(&self, key: &str) -> Json {
        self.function(1001, json!({"table": "t", "key": key})).await.data["value"].clone()
    }
}

#[tokio::test]
async fn what_is_put_is_got_with_its_version() {
    let served = serving();
    let absent = served.function(1001, json!({"table": "t", "key": "k"})).await;
    assert_eq!(absent, Envelope::done(7, json!({"value": null, "version": 0})));
    let value = json!({"b": [1, 2.5, "x y", null], "a": {"ä": true}});
    let put = served.put("k", value.clone()).await;
    let version = put.data["version"].as_u64().unwrap();
    assert!(version > 0);
    let got = served.function(1001, json!({"table": "t", "key": "k"})).await;
    assert_eq!(got, Envelope::done(7, json!({"value": value, "version": version})));
    let deleted = served.function(1003, json!({"table": "t", "key": "k"})).await;
    assert!(deleted.data["version"].as_u64().unwrap() > version);
    assert_eq!(served.got("k").await, json!(null));
}

#[tokio::test]
async fn a_value_keeps_its_digits_and_its_order() {
    let served = serving();
    let body = r#"{"function":1002,"arguments":{"table":"t","key":"k",
        "value": {"z": 12345678901234567890.50, "a": 1e400, "z2": " \" "} }}"#;
    assert_eq!(served.post("/v1/call", body).await.error_no, ErrorNumber::Done);
    let row = served.tables.look(|store| store.get("t", b"k").unwrap().value.clone());
    let kept = r#"{"z":12345678901234567890.50,"a":1e400,"z2":" \" "}"#;
    assert_eq!(std::str::from_utf8(&row).unwrap(), kept);
}

#[tokio::test]
async fn compare_and_put_is_done_only_on_the_version_seen() {
    let served = serving();
    let compare = |version: u64, value: &str| {
        let value = value.to_owned();
        served.function(1004, json!({"table": "t", "key": "k", "value": value, "version": version}))
    };
    let first = compare(0, "a").await.data;
    assert_eq!(first["done"], true);
    let version = first["version"].as_u64().unwrap();
    assert_eq!(compare(0, "b").await.data, json!({"done": false, "version": version}));
    assert_eq!(compare(version, "c").await.data["done"], true);
    assert_eq!(served.got("k").await, "c");
}

#[tokio::test]
async fn a_number_grows_and_anything_else_does_not() {
    let served = serving();
    let add = |by: i64| served.function(1006, json!({"table": "t", "key": "n", "by": by}));
    assert_eq!(add(5).await.data, json!({"value": 5}));
    assert_eq!(add(-7).await.data, json!({"value": -2}));
    assert_eq!(served.got("n").await, -2);
    served.put("n", json!("word")).await;
    let refused = add(1).await;
    assert_eq!(refused.error_no, ErrorNumber::FunctionFailed);
    assert!(refused.error_info.contains("not a number"), "{refused:?}");
}

#[tokio::test]
async fn rows_are_scanned_page_by_page() {
    let served = serving();
    for number in 0..12 {
        served.put(&format!("k{number:02}"), json!(number)).await;
    }
    let scan = |from: Json, limit: u64| {
        served.function(1005, json!({"table": "t", "from": from, "limit": limit}))
    };
    let first = scan(json!("k01"), 5).await.data;
    assert_eq!(first["rows"].as_array().unwrap().len(), 5);
    assert_eq!((&first["rows"][0]["key"], &first["rows"][0]["value"]), (&json!("k01"), &json!(1)));
    assert!(first["rows"][0]["version"].as_u64().unwrap() > 0);
    assert_eq!(first["next"], "k06");
    let second = scan(first["next"].clone(), 6).await.data;
    assert_eq!((second["rows"].as_array().unwrap().len(), &second["next"]), (6, &json!(null)));
    let all = served.function(1005, json!({"table": "t"})).await.data;
    assert_eq!(all["rows"].as_array().unwrap().len(), 12);
    let none = served.function(1005, json!({"table": "other"})).await.data;
    assert_eq!(none, json!({"rows": [], "next": null}));
    assert_eq!(scan(json!(""), 10_001).await.error_no, ErrorNumber::Malformed);
    // More rows than are looked at in one go, and more bytes than one answer has.
    for number in 0..600 {
        served.put(&format!("m{number:03}"), json!("x".repeat(10_000))).await;
    }
    let (mut from, mut rows, mut pages) = (json!("m"), 0, 0);
    while !from.is_null() {
        let page = scan(from, 10_000).await.data;
        rows += page["rows"].as_array().unwrap().len();
        from = page["next"].clone();
        pages += 1;
    }
    assert_eq!((rows, pages), (600, 2));
}

#[tokio::test]
async fn bytes_that_are_no_json_are_given_in_base64() {
    let served = serving();
    let raw = |call: &mut Call<'_>| {
        call.put("t", &b"\xff"[..], &b"\x00"[..])?;
        call.put("t", &b"\xff\xff"[..], &b"1"[..])?;
        Ok(json!({}))
    };
    let made = crate::function::run(&raw, Call::new(None, &Json::Null, &served.tables, &()));
    for operation in made.operations {
        let request = hotpair_core::tables::change::Request {
            ticket: 0,
            numbered: None,
            reads: Vec::new(),
            operations: vec![operation],
            reply: hotpair_core::tables::change::ReplyPlan::Results,
        };
        served.tables.commit(Epoch(7), request).await.unwrap();
    }
    let scan = |from: Json| served.function(1005, json!({"table": "t", "from": from, "limit": 1}));
    let first = scan(json!("")).await.data;
    assert_eq!(first["rows"][0]["key"], json!({"base64": "/w=="}));
    assert_eq!(first["rows"][0]["value"], json!({"base64": "AA=="}));
    let second = scan(first["next"].clone()).await.data;
    assert_eq!(second["rows"][0]["value"], json!(1));
}

#[tokio::test]
async fn readers_see_only_what_is_acknowledged() {
    let served = serving();
    served.put("k", json!("old")).await;
    served.writer.set(Mode::Hold);
    let put = served.calling(
        &json!({"function": 1002, "arguments": {"table": "t", "key": "k", "value": "new"}}),
    );
    served.until_inside(1).await;
    assert_eq!(served.got("k").await, "old");
    served.writer.set(Mode::Release);
    assert_eq!(put.await.unwrap().error_no, ErrorNumber::Done);
    assert_eq!(served.got("k").await, "new");
}

#[tokio::test]
async fn what_cannot_be_put_is_refused_with_its_number() {
    let served = serving();
    let own =
        served.function(1002, json!({"table": "hotpair.users", "key": "eve", "value": "x"})).await;
    assert_eq!(own.error_no, ErrorNumber::NotAllowed);
    let own = served.function(1001, json!({"table": "hotpair.sessions", "key": "a"})).await;
    assert_eq!(own.error_no, ErrorNumber::NotAllowed);
    let long = served.put(&"k".repeat(1_025), json!(1)).await;
    assert_eq!(long.error_no, ErrorNumber::Malformed);
    assert_eq!(long.error_info, "a key (bytes) of 1025 is more than 1024");
    let nameless = served.function(1002, json!({"table": "", "key": "k", "value": 1})).await;
    assert_eq!(nameless.error_no, ErrorNumber::Malformed);
    let deep = format!(
        r#"{{"function":1002,"arguments":{{"table":"t","key":"k","value":{}1{}}}}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    let deep = served.post("/v1/call", deep).await;
    assert_eq!(deep.error_no, ErrorNumber::Malformed);
    assert!(deep.error_info.starts_with("arguments.value: JSON nested deeper"), "{deep:?}");
}

#[tokio::test]
async fn what_cannot_be_written_now_is_overloaded_and_says_why() {
    let served = serving_as(Wanted { queue: 1, ..Wanted::default() });
    served.tables.set_disk_full(true);
    let full = served.put("k", json!(1)).await;
    assert_eq!((full.error_no, full.retry_after_ms), (ErrorNumber::Overloaded, Some(1_000)));
    assert!(full.error_info.contains("disk"), "{full:?}");
    served.tables.set_disk_full(false);
    assert_eq!(served.put("k", json!(1)).await.error_no, ErrorNumber::Done);
    // Some in the writer's hands, one in the queue, and no room for the others.
    served.writer.set(Mode::Hold);
    let put = json!({"function": 1002, "arguments": {"table": "t", "key": "k", "value": 2}});
    let puts: Vec<_> = (0..16).map(|_| served.calling(&put)).collect();
    let refused = async {
        while !puts.iter().any(tokio::task::JoinHandle::is_finished) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, refused).await.unwrap();
    served.writer.set(Mode::Release);
    let mut done = 0;
    for put in puts {
        let answer = put.await.unwrap();
        if answer.error_no == ErrorNumber::Done {
            done += 1;
            continue;
        }
        assert_eq!(answer.error_no, ErrorNumber::Overloaded);
        assert!(answer.error_info.contains("too many changes wait"), "{answer:?}");
        assert!(answer.retry_after_ms.is_some());
    }
    assert!((1..16).contains(&done), "{done}");
}

#[tokio::test]
async fn a_mastership_that_ends_meanwhile_tells_nobody_done() {
    let mut served = serving();
    served.writer.set(Mode::Hold);
    let put = json!({"function": 1002, "arguments": {"table": "t", "key": "k", "value": 2}});
    let waiting = served.calling(&put);
    served.until_inside(1).await;
    served.writer.set(Mode::Abandon);
    let answer = waiting.await.unwrap();
    assert_eq!(answer.error_no, ErrorNumber::NotServing);
    assert_eq!(answer.data["executed"], "unknown");
    served.keeper.close(Epoch(7));
    let refused = served.put("k", json!(1)).await;
    assert_eq!((refused.error_no, &refused.data), (ErrorNumber::NotServing, &json!({})));
}
