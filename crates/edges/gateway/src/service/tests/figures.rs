//! Not checks but figures: run with `--release -- --ignored --nocapture --test-threads 1`.

use std::sync::atomic::{AtomicU64, Ordering};

use hotpair_core::tables::SESSIONS;
use hotpair_core::tables::change::{
    Bytes, Operation, ReplyPlan, Request as TableRequest, SessionKey,
};
use hotpair_core::tables::writer::Writer;

use super::*;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a figure"]
async fn how_many_puts_a_second() {
    const CALLS: usize = 200_000;
    let served = serving();
    let address = served.address.to_string();
    for (connections, in_session) in [(64, false), (64, true)] {
        let mut clients = Vec::new();
        let started = Instant::now();
        for client in 0..connections {
            let address = address.clone();
            let session = if in_session { Some(served.session().await) } else { None };
            clients.push(tokio::spawn(async move {
                let mut connection = Connection::connect(&address, LONG).await.unwrap();
                for number in 1..=CALLS / connections {
                    let key = format!("key-{client}-{}", number % 1000);
                    let arguments = json!({"table": "bench", "key": key, "value": "x".repeat(126)});
                    let body = match &session {
                        Some(session) => json!({"session": session, "request": number,
                            "done_up_to": number - 1, "function": 1002, "arguments": arguments}),
                        None => json!({"function": 1002, "arguments": arguments}),
                    };
                    let sent =
                        connection.send(Method::POST, "/v1/call", &[], body.to_string(), LONG);
                    let answer = sent.await.unwrap();
                    assert!(answer.body.starts_with(b"{\"error_no\":0,"), "{:?}", answer.body);
                }
            }));
        }
        for client in clients {
            client.await.unwrap();
        }
        let a_second = CALLS as f64 / started.elapsed().as_secs_f64();
        println!("{connections} connections, sessions {in_session}: {a_second:.0} puts a second");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a figure"]
async fn what_a_put_costs_without_http() {
    const CALLS: u64 = 300_000;
    let served = serving();
    let session = served.session().await;
    let gate = served.keeper.gate();
    for in_session in [false, true] {
        let started = Instant::now();
        for number in 1..=CALLS {
            let key = number % 1000;
            let value = "x".repeat(126);
            let numbered = format!(
                "\"session\":\"{session}\",\"request\":{number},\"done_up_to\":{},",
                number - 1
            );
            let body = format!(
                "{{{}\"function\":1002,\"arguments\":{{\"table\":\"t\",\"key\":\"key-{key}\",\"value\":\"{value}\"}}}}",
                if in_session { numbered.as_str() } else { "" }
            );
            let pass = gate.enter().unwrap();
            let call = served.service.call(&pass, body.as_bytes());
            assert!(call.await.is_ok());
        }
        let each = started.elapsed().as_nanos() / u128::from(CALLS);
        println!(
            "one after the other, sessions {in_session}: {each} ns each, waking the writer included"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a figure"]
async fn how_many_logins_a_second() {
    const LOGINS: usize = 200;
    let served = Arc::new(serving_as(Wanted {
        settings: ClientSettings { users_configured: true, ..ClientSettings::default() },
        users: vec![("ann", "correct horse")],
        ..Wanted::default()
    }));
    let started = Instant::now();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let served = Arc::clone(&served);
            tokio::spawn(async move {
                let body = json!({"user": "ann", "password": "correct horse"}).to_string();
                for _ in 0..LOGINS / 8 {
                    let answer = served.post("/v1/login", body.clone()).await;
                    assert_eq!(answer.error_no, ErrorNumber::Done);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let a_second = LOGINS as f64 / started.elapsed().as_secs_f64();
    println!("m=19456,t=2,p=1 on {} threads: {a_second:.0} logins a second", passwords::THREADS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a figure"]
async fn what_a_million_sessions_cost() {
    static NOW_MS: AtomicU64 = AtomicU64::new(1_000_000);
    const SESSIONS_KEPT: u64 = 1_000_000;
    let clock = || Moment(NOW_MS.load(Ordering::SeqCst));
    let served = serving_as(Wanted { clock, queue: 16_384, ..Wanted::default() });
    served.sessions.serving_since(Epoch(7), clock());
    let before = resident();
    let started = Instant::now();
    let creators: Vec<_> = (0..64)
        .map(|_| {
            let sessions = Arc::clone(&served.sessions);
            tokio::spawn(async move {
                for _ in 0..SESSIONS_KEPT / 64 {
                    sessions.create(Epoch(7), "ann", None).await.unwrap();
                }
            })
        })
        .collect();
    for creator in creators {
        creator.await.unwrap();
    }
    let count = served.sessions.count();
    let a_second = count as f64 / started.elapsed().as_secs_f64();
    println!("{count} sessions made, {a_second:.0} a second");
    let all = (resident() - before) / count;
    println!("resident a session, row and clock: {all} bytes");
    let gate = served.keeper.gate();
    let started = Instant::now();
    assert_eq!(served.sessions.sweep(&gate, &|_| false).await, 0);
    println!("a sweep that ends nobody: {} ms", started.elapsed().as_millis());
    let longest = longest_look(&served.tables);
    println!("the longest look, lock held: {longest} us");
    // The clock alone: what is kept of a session beside its row.
    let before = resident();
    let clock_alone = Sessions::new(served.tables.clone(), SessionSettings::default());
    served.tables.look(|store| {
        for (key, _) in store.table(SESSIONS).unwrap().scan(&[]) {
            clock_alone.hear(SessionKey((**key).try_into().unwrap()), Epoch(7));
        }
    });
    println!("resident a session, clock alone: {} bytes", (resident() - before) / count);
    drop(clock_alone);
    NOW_MS.fetch_add(119_000, Ordering::SeqCst);
    served.tables.look(|store| {
        for (key, _) in store.table(SESSIONS).unwrap().scan(&[]).skip(10_000) {
            let key = SessionKey((**key).try_into().unwrap());
            served.sessions.hear(key, Epoch(7));
        }
    });
    NOW_MS.fetch_add(1_000, Ordering::SeqCst);
    let started = Instant::now();
    assert_eq!(served.sessions.sweep(&gate, &|_| false).await, 10_000);
    println!("a sweep that ends 10000: {} ms", started.elapsed().as_millis());
}

/// How long a piece of a sweep holds the lock, at its longest, in microseconds.
fn longest_look(tables: &Tables) -> u128 {
    let (mut from, mut longest) = (vec![0; 16], 0);
    loop {
        let started = Instant::now();
        let piece: Vec<Bytes> = tables.look(|store| {
            let rows = store.table(SESSIONS).unwrap().scan(&from);
            rows.take(1_001).map(|(key, _)| key.clone()).collect()
        });
        longest = longest.max(started.elapsed().as_micros());
        match piece.get(1_000) {
            Some(next) => from = next.to_vec(),
            None => return longest,
        }
    }
}

#[test]
#[ignore = "prints a figure"]
fn what_ending_sessions_costs_the_writer() {
    let mut store = Store::default();
    let table: Arc<str> = SESSIONS.into();
    for number in 0..1_000_000_u64 {
        let key: Bytes =
            u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()[..].into();
        store.put(&table, &key, Row { value: [0; 17][..].into(), version: 1 });
    }
    for chunk in [64, 256, 1_000] {
        let keys: Vec<Bytes> = store
            .table(SESSIONS)
            .unwrap()
            .scan(&[])
            .step_by(997)
            .take(chunk)
            .map(|(key, _)| key.clone())
            .collect();
        let delete = |key| Operation::Delete { table: table.clone(), key };
        let operations = keys.into_iter().map(delete).collect();
        let request = TableRequest {
            ticket: 1,
            numbered: None,
            reads: Vec::new(),
            operations,
            reply: ReplyPlan::Results,
        };
        let mut writer = Writer::new(Epoch(7), 1, 1, &store);
        let started = Instant::now();
        assert_eq!(writer.submit(&store, request), None);
        let submitted = started.elapsed().as_micros();
        let mut verdicts = Vec::new();
        writer.release(writer.head(), &mut store, &mut verdicts);
        let all = started.elapsed().as_micros();
        println!("{chunk} sessions ended: {submitted} us to commit, {all} us with the release");
    }
}
