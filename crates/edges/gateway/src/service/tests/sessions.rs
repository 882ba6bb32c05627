//! Logging in and out, heartbeats, and the end of what is silent for too long.

use std::sync::atomic::{AtomicU64, Ordering};

use hotpair_core::tables::SESSIONS;

use super::*;

fn with_users() -> Wanted {
    Wanted {
        settings: ClientSettings { users_configured: true, ..ClientSettings::default() },
        users: vec![("ann", "correct horse")],
        ..Wanted::default()
    }
}

impl Served {
    async fn log_in(&self, user: &str, password: &str) -> Envelope {
        let body = json!({"user": user, "password": password});
        self.post("/v1/login", body.to_string()).await
    }

    async fn heartbeat(&self, session: &str) -> Envelope {
        self.post("/v1/heartbeat", json!({"session": session}).to_string()).await
    }

    async fn log_out(&self, session: &str) -> Envelope {
        self.post("/v1/logout", json!({"session": session}).to_string()).await
    }
}

#[tokio::test]
async fn a_session_lives_from_login_to_logout() {
    let served = serving_as(with_users());
    let answer = served.log_in("ann", "correct horse").await;
    assert_eq!(
        (answer.error_no, &answer.data["idle_timeout_ms"]),
        (ErrorNumber::Done, &json!(120_000))
    );
    let session = answer.data["session"].as_str().unwrap().to_owned();
    assert!(session.len() == 32 && session.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(served.heartbeat(&session).await, Envelope::done(7, json!({})));
    assert_eq!(served.sessions.count(), 1);
    let other = served.log_in("ann", "correct horse").await;
    assert_ne!(other.data["session"], json!(session));
    assert_eq!(served.log_out(&session).await, Envelope::done(7, json!({})));
    assert_eq!(served.heartbeat(&session).await.error_no, ErrorNumber::SessionUnknown);
    assert_eq!(served.log_out(&session).await.error_no, ErrorNumber::SessionUnknown);
    let call = json!({"session": session, "function": 1901});
    assert_eq!(served.call(call).await.error_no, ErrorNumber::SessionUnknown);
    assert_eq!(served.sessions.count(), 1);
}

#[tokio::test]
async fn who_is_no_user_is_told_no_more_than_who_has_the_wrong_password() {
    let served = serving_as(with_users());
    let wrong = served.log_in("ann", "battery staple").await;
    assert_eq!((wrong.error_no, wrong.data.clone()), (ErrorNumber::WrongPassword, json!({})));
    assert_eq!(served.log_in("nobody", "correct horse").await, wrong);
    assert_eq!(served.sessions.count(), 0);
    for body in ["{}", "[\"ann\",\"correct horse\"]", "{\"user\":\"ann\"}"] {
        let malformed = served.post("/v1/login", body).await;
        assert_eq!(malformed.error_no, ErrorNumber::Malformed, "{body}");
    }
    let long = served.log_in("ann", &"x".repeat(2_000)).await;
    assert_eq!(long.error_no, ErrorNumber::Malformed);
}

#[tokio::test]
async fn the_token_is_kept_nowhere() {
    let served = serving_as(with_users());
    let answer = served.log_in("ann", "correct horse").await;
    let token = answer.data["session"].as_str().unwrap().to_owned();
    served.tables.look(|store| {
        for (key, row) in store.table(SESSIONS).unwrap().scan(&[]) {
            let bits = u128::from_str_radix(&token, 16).unwrap().to_be_bytes();
            assert!(**key != bits && !row.value.windows(16).any(|bytes| bytes == bits));
            assert!(!row.value.windows(32).any(|bytes| bytes == token.as_bytes()));
        }
    });
}

#[tokio::test]
async fn without_users_nobody_logs_in_and_nobody_has_to() {
    let served = serving();
    assert_eq!(served.log_in("ann", "x").await.error_no, ErrorNumber::NotAllowed);
    assert_eq!(served.put("k", json!(1)).await.error_no, ErrorNumber::Done);
    let call = json!({"session": "who", "function": 1901});
    assert_eq!(served.call(call).await.error_no, ErrorNumber::SessionUnknown);
}

#[tokio::test]
async fn with_users_tables_and_datasets_want_a_session() {
    let served = serving_as(with_users());
    for function in [1001, 1002, 1003, 1004, 1005, 1006, 1101, 1102, 1103] {
        let refused = served.function(function, json!({})).await;
        assert_eq!(refused.error_no, ErrorNumber::SessionUnknown, "{function}");
    }
    for function in [1201, 1901] {
        assert_eq!(served.function(function, json!({})).await.error_no, ErrorNumber::Done);
    }
    let session = served.session().await;
    let arguments = json!({"table": "t", "key": "k", "value": 1});
    let call = json!({"session": session, "function": 1002, "arguments": arguments});
    assert_eq!(served.call(call).await.error_no, ErrorNumber::Done);
}

#[tokio::test]
async fn a_node_that_does_not_serve_knows_no_sessions() {
    let served = closed_as(with_users());
    for answer in [served.log_in("ann", "x").await, served.heartbeat("x").await] {
        assert_eq!(answer.error_no, ErrorNumber::NotServing);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_the_login_is_refused_and_delays_nobody_else() {
    let served = Arc::new(serving_as(with_users()));
    let crowd: Vec<_> = (0..150)
        .map(|_| {
            let served = Arc::clone(&served);
            tokio::spawn(async move { served.log_in("ann", "wrong").await.error_no })
        })
        .collect();
    while !served.meters.totals().by_error_no.contains_key(&308_000_006) {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(served.function(1901, json!(1)).await.error_no, ErrorNumber::Done);
    assert!(crowd.iter().any(|login| !login.is_finished()), "the crowd was through before");
    let mut refused = 0;
    for login in crowd {
        match login.await.unwrap() {
            ErrorNumber::Overloaded => refused += 1,
            other => assert_eq!(other, ErrorNumber::WrongPassword),
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn silent_sessions_end_and_others_stay() {
    static NOW_MS: AtomicU64 = AtomicU64::new(1_000_000);
    let clock = || Moment(NOW_MS.load(Ordering::SeqCst));
    let served = serving_as(Wanted { clock, ..Wanted::default() });
    served.sessions.serving_since(Epoch(7), clock());
    let (silent, beating, calling) =
        (served.session().await, served.session().await, served.session().await);
    let gate = served.keeper.gate();
    let lanes = Arc::clone(&served.service.lanes);
    let in_use = move |session| lanes.is_busy(session);
    NOW_MS.fetch_add(119_999, Ordering::SeqCst);
    assert_eq!(served.sessions.sweep(&gate, &in_use).await, 0);
    assert_eq!(served.heartbeat(&beating).await.error_no, ErrorNumber::Done);
    let long = json!({"session": calling, "function": 1902, "arguments": {"ms": 60_000}});
    let long = served.calling(&long);
    served.until_inside(1).await;
    NOW_MS.fetch_add(119_999, Ordering::SeqCst);
    assert_eq!(served.sessions.sweep(&gate, &in_use).await, 1);
    assert_eq!(served.heartbeat(&silent).await.error_no, ErrorNumber::SessionUnknown);
    assert_eq!(served.sessions.count(), 2);
    // A call that lasts is a session in use.
    NOW_MS.fetch_add(240_000, Ordering::SeqCst);
    assert_eq!(served.sessions.sweep(&gate, &in_use).await, 1);
    assert_eq!(served.heartbeat(&calling).await.error_no, ErrorNumber::Done);
    long.abort();
}

#[tokio::test]
async fn the_clock_of_sessions_starts_again_with_each_epoch_and_stands_while_nobody_serves() {
    static NOW_MS: AtomicU64 = AtomicU64::new(1_000_000);
    let clock = || Moment(NOW_MS.load(Ordering::SeqCst));
    let mut served = serving_as(Wanted { clock, ..Wanted::default() });
    let gate = served.keeper.gate();
    let session = served.session().await;
    let nobody = |_| false;
    served.keeper.close(Epoch(7));
    NOW_MS.fetch_add(3_600_000, Ordering::SeqCst);
    assert_eq!(served.sessions.sweep(&gate, &nobody).await, 0);
    served.keeper.open(Epoch(9), in_an_hour());
    assert_eq!(served.sessions.sweep(&gate, &nobody).await, 0);
    NOW_MS.fetch_add(119_000, Ordering::SeqCst);
    assert_eq!(served.heartbeat(&session).await.error_no, ErrorNumber::Done);
    // The lead of the node says so at each opening; the same epoch opened again counts too.
    NOW_MS.fetch_add(500_000, Ordering::SeqCst);
    served.sessions.serving_since(Epoch(9), clock());
    assert_eq!(served.sessions.sweep(&gate, &nobody).await, 0);
    NOW_MS.fetch_add(120_000, Ordering::SeqCst);
    assert_eq!(served.sessions.sweep(&gate, &nobody).await, 1);
    assert_eq!(served.heartbeat(&session).await.error_no, ErrorNumber::SessionUnknown);
}

#[tokio::test]
async fn many_silent_sessions_end_in_small_requests() {
    static NOW_MS: AtomicU64 = AtomicU64::new(1_000_000);
    let clock = || Moment(NOW_MS.load(Ordering::SeqCst));
    let served = serving_as(Wanted { clock, ..Wanted::default() });
    for _ in 0..2_500 {
        served.session().await;
    }
    NOW_MS.fetch_add(60_000, Ordering::SeqCst);
    let kept = served.session().await;
    NOW_MS.fetch_add(60_000, Ordering::SeqCst);
    assert_eq!(served.sessions.sweep(&served.keeper.gate(), &|_| false).await, 2_500);
    assert_eq!(served.sessions.count(), 1);
    assert_eq!(served.heartbeat(&kept).await.error_no, ErrorNumber::Done);
}
