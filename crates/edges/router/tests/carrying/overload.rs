//! Too much of everything: what finds no room is answered at once and was not executed, what is held
//! goes on in order, and who is slow costs nobody else anything.

use std::time::Duration;

use crate::fake::{Behaviour, LIMIT, Stage, post, settings};
use hotpair_http::Limits;
use hotpair_router::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Asks for this number on a task of its own.
fn asking(stage: &Stage, number: u64) -> JoinHandle<(i64, u64)> {
    let router = stage.router;
    let body = format!("{{\"session\":\"s\",\"request\":{number},\"function\":9}}");
    tokio::spawn(post(router, "/v1/call", body))
}

#[tokio::test]
async fn what_is_held_is_bounded_and_goes_on_in_the_order_of_its_arrival() {
    const HELD: usize = 20;
    let bounds = Settings { held_max: HELD, ..settings() };
    let stage = Stage::start(bounds, Limits::client()).await;
    stage.a.become_role("demoting", 1);
    stage.a.behave(Behaviour::Refuse);
    let mut held = Vec::new();
    for count in 1..=HELD {
        held.push(asking(&stage, count as u64));
        stage.holds(count).await;
    }
    for number in 101..=110 {
        let (error_no, retry_after_ms) = stage.ask(number).await;
        assert_eq!(error_no, 308_000_006);
        assert!(retry_after_ms > 0);
    }
    stage.a.become_role("standby", 1);
    stage.b.become_role("master", 2);
    for held in held {
        assert_eq!(timeout(LIMIT, held).await.unwrap().unwrap().0, 0);
    }
    // Each once, in order, and none of those that were refused.
    assert_eq!(stage.b.asked(), (1..=HELD as u64).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_is_held_is_bounded_in_bytes_as_well() {
    let bounds = Settings { held_bytes_max: 300 * 1024, ..settings() };
    let stage = Stage::start(bounds, Limits::client()).await;
    stage.a.become_role("demoting", 1);
    stage.a.behave(Behaviour::Refuse);
    let large = || format!("{{\"function\":9,\"arguments\":\"{}\"}}", "x".repeat(140 * 1024));
    let router = stage.router;
    let first = tokio::spawn(post(router, "/v1/call", large()));
    let second = tokio::spawn(post(router, "/v1/call", large()));
    stage.holds(2).await;
    assert_eq!(stage.post("/v1/call", large()).await.0, 308_000_006);
    let small = asking(&stage, 7);
    stage.a.become_role("standby", 1);
    stage.b.become_role("master", 2);
    for held in [first, second, small] {
        assert_eq!(timeout(LIMIT, held).await.unwrap().unwrap().0, 0);
    }
}

#[tokio::test]
async fn more_than_may_be_under_way_is_refused_until_there_is_room() {
    let bounds = Settings { requests_max: 5, ..settings() };
    let stage = Stage::start(bounds, Limits::client()).await;
    let before = stage.a.asked().len();
    stage.a.behave(Behaviour::Hang);
    let hanging: Vec<_> = (1..=5).map(|number| asking(&stage, number)).collect();
    stage.eventually("all five are there", async || stage.a.asked().len() == before + 5).await;
    assert_eq!(stage.ask(6).await.0, 308_000_006);
    assert_eq!(stage.a.asked().len(), before + 5, "what was refused never came there");
    // Clients that go away leave their places.
    hanging.iter().for_each(JoinHandle::abort);
    stage.a.behave(Behaviour::Done);
    stage.eventually("there is room again", async || stage.ask(7).await.0 == 0).await;
}

#[tokio::test]
async fn clients_that_leave_while_they_are_held_leave_nothing_behind() {
    let bounds = Settings { held_max: 3, ..settings() };
    let stage = Stage::start(bounds, Limits::client()).await;
    stage.a.become_role("demoting", 1);
    stage.a.behave(Behaviour::Refuse);
    for _ in 0..5 {
        let held: Vec<_> = (1..=3).map(|number| asking(&stage, number)).collect();
        stage.holds(3).await;
        assert_eq!(stage.ask(9).await.0, 308_000_006);
        held.iter().for_each(JoinHandle::abort);
        stage.holds(0).await;
    }
    stage.b.become_role("master", 2);
    assert_eq!(stage.ask(10).await.0, 0);
}

#[tokio::test]
async fn a_crowd_of_slow_clients_costs_the_quick_ones_nothing() {
    const CONNECTIONS: usize = 64;
    let limits = Limits { connections_max: CONNECTIONS, ..Limits::client() };
    let stage = Stage::start(settings(), limits).await;
    let router = stage.router;
    // Slow-loris: heads and bodies that come a byte now and then, and clients that say nothing.
    let slow: Vec<_> = (0..4 * CONNECTIONS)
        .map(|kind| {
            tokio::spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(router).await else { continue };
                    let begin: &[u8] = match kind % 3 {
                        0 => b"POST /v1/call HTTP/1.1\r\n",
                        1 => b"POST /v1/call HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
                        _ => b"",
                    };
                    let _ = stream.write_all(begin).await;
                    while stream.write_all(b"x").await.is_ok() {
                        sleep(Duration::from_millis(50)).await;
                    }
                    // A hundred a second come again: one that is quick has most of a second.
                    sleep(Duration::from_secs(2)).await;
                }
            })
        })
        .collect();
    stage.eventually("the slow are cut", async || stage.counters.cut() > 10).await;
    for number in 1..=100 {
        // Its connection is the newest one; a head that is read at once is never the slowest.
        assert_eq!(stage.ask(number).await.0, 0, "request {number}");
    }
    slow.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_client_that_takes_no_answer_holds_up_nobody() {
    let stage = Stage::start(settings(), Limits::client()).await;
    let large = "x".repeat(900 * 1024);
    let body = format!("{{\"function\":1901,\"arguments\":\"{large}\"}}");
    let head =
        format!("POST /v1/call HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(stage.router).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    for number in 1..=50 {
        assert_eq!(stage.ask(number).await.0, 0);
    }
    // Late, and still whole.
    let mut first = vec![0; 12];
    deaf[0].read_exact(&mut first).await.unwrap();
    assert_eq!(first, b"HTTP/1.1 200");
}

#[tokio::test]
async fn what_is_too_large_or_no_request_is_told_so() {
    let stage = Stage::start(settings(), Limits::client()).await;
    let too_large = "x".repeat(1024 * 1024 + 1);
    assert_eq!(stage.post("/v1/call", too_large).await.0, 308_000_003);
    let url = format!("http://{}/v1/call", stage.router);
    let method = hotpair_http::Method::DELETE;
    let answer = hotpair_http::client::request(method, &url, &[], "", LIMIT).await.unwrap();
    assert!(answer.body.starts_with(b"{\"error_no\":308000003"), "{answer:?}");
    // A node that talks nonsense: asked a few times, then given up, and never passed on.
    stage.a.behave(Behaviour::Nonsense);
    assert_eq!(stage.ask(1).await.0, 308_000_000);
    let once = "{\"session\":\"s\",\"function\":9}".to_owned();
    assert_eq!(stage.post("/v1/call", once).await.0, 308_000_012);
    let totals = stage.meters.totals().by_error_no;
    assert_eq!(totals[&308_000_012], 1, "{totals:?}");
}
