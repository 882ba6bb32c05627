//! Functions of other programs: the intent before the program, one record after it, and a definite
//! answer whatever the program does.

use hotpair_core::tables::change::{Operation, ReplyPlan, Request as TableRequest};
use hotpair_core::tables::intents::{INTENTS, Intent, row_key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::writer_thread::Mode;
use super::*;
use crate::catalogue::Does;
use crate::sessions::session_key;
use crate::sidecar::{Sidecar, SidecarSettings};

/// What the program does with a call.
#[derive(Clone, Debug)]
enum Act {
    Say(u16, String),
    /// Bytes, and the end of the connection.
    Raw(&'static str),
    /// Nothing until it is let; then this.
    Wait(String),
}

/// A program that notes its calls and does what it is told, the last thing for ever.
struct Program {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    let_go: Arc<Semaphore>,
}

fn program(script: Vec<Act>) -> Program {
    program_that_hangs_up(0, script)
}

/// The same, which ends its first connections before anything comes on them.
fn program_that_hangs_up(mut times: usize, script: Vec<Act>) -> Program {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, let_go) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Semaphore::new(0)));
    let (noted, waits) = (Arc::clone(&heads), Arc::clone(&let_go));
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if times > 0 {
                times -= 1;
                continue;
            }
            let (script, noted, waits) = (script.clone(), Arc::clone(&noted), Arc::clone(&waits));
            tokio::spawn(async move { serve_one(stream, &script, &noted, &waits).await });
        }
    });
    Program { address, heads, let_go }
}

async fn serve_one(
    mut stream: TcpStream,
    script: &[Act],
    noted: &Mutex<Vec<String>>,
    waits: &Semaphore,
) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase();
        let length = length.split_once("content-length: ").unwrap().1;
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        if body.len() == length {
            break (head.to_owned(), body.to_owned());
        }
    };
    let turn = {
        let mut noted = noted.lock().unwrap();
        noted.push(format!("{head}\r\n\r\n{body}"));
        noted.len() - 1
    };
    let say = |status: u16, body: &str| {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let said = match script[turn.min(script.len() - 1)].clone() {
        Act::Say(status, body) => say(status, &body),
        Act::Raw(bytes) => bytes.to_owned(),
        Act::Wait(body) => {
            waits.acquire().await.unwrap().forget();
            say(200, &body)
        }
    };
    stream.write_all(said.as_bytes()).await.ok()
}

fn done(body: &Json) -> Act {
    Act::Say(200, body.to_string())
}

impl Program {
    fn calls(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    async fn until_called(&self, calls: usize) {
        let wait = async {
            while self.calls() < calls {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never called {calls} times"));
    }

    fn registered(&self, change: impl FnOnce(&mut SidecarSettings)) -> Registered {
        let mut settings = SidecarSettings {
            upstream: format!("http://{}/place", self.address),
            timeout: LONG,
            idempotent: false,
            concurrency: 8,
        };
        change(&mut settings);
        Registered {
            does: Does::Sidecar(Arc::new(Sidecar::new(settings).unwrap())),
            ..library::registered(330_001, |_: &mut crate::function::Call<'_>| Ok(json!(1)))
        }
    }
}

fn serving_this(function: Registered) -> Served {
    serving_as(Wanted { library: vec![function], ..Wanted::default() })
}

fn call(session: &str, number: u64) -> Json {
    json!({"session": session, "request": number, "function": 330_001, "arguments": {"a": 1}})
}

impl Served {
    fn intents(&self) -> usize {
        self.tables.look(|store| store.table(INTENTS).map_or(0, |rows| rows.len()))
    }

    /// What a mastership that died has left.
    async fn leave_intent(&self, session: &str, name: &str) {
        let value = Intent { function: 330_001, epoch: Epoch(6) }.encode().into();
        let key = row_key(session_key(session), name);
        let operations = vec![Operation::Put { table: INTENTS.into(), key, value }];
        let (reads, reply) = (Vec::new(), ReplyPlan::Results);
        let request = TableRequest { ticket: 0, numbered: None, reads, operations, reply };
        self.tables.commit(Epoch(7), request).await.unwrap();
    }
}

#[tokio::test]
async fn a_program_is_told_whose_call_it_is_and_its_changes_come_with_its_answer() {
    let answer = json!({"data": {"order": 5}, "changes": [
        {"table": "t", "key": "k", "put": {"x": 1}},
        {"table": "t", "key": "n", "add": 2}]});
    let program = program(vec![done(&answer)]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    let first = served.call(call(&session, 3)).await;
    assert_eq!(first, Envelope::done(7, json!({"order": 5})));
    assert_eq!((served.got("k").await, served.got("n").await), (json!({"x": 1}), json!(2)));
    assert_eq!(served.intents(), 0);
    // Sent again: the same, and the program is not asked.
    assert_eq!(served.call(call(&session, 3)).await, first);
    assert_eq!((program.calls(), served.got("n").await), (1, json!(2)));
    let head = program.heads.lock().unwrap()[0].to_lowercase();
    let key = format!("{:032x}", u128::from_be_bytes(session_key(&session).0));
    for line in [
        "post /place http/1.1\r\n".to_owned(),
        format!("\r\nhotpair-session: {key}\r\n"),
        format!("\r\nidempotency-key: {key}-3\r\n"),
        "\r\nhotpair-user: ann\r\n".to_owned(),
        "\r\nhotpair-request: 3\r\n".to_owned(),
        "\r\nhotpair-epoch: 7\r\n".to_owned(),
        "\r\nhotpair-function: 330001\r\n".to_owned(),
        "\r\n\r\n{\"a\":1}".to_owned(),
    ] {
        assert!(head.contains(&line), "no {line:?} in {head:?}");
    }
    assert!(!head.contains(&session) && !head.contains("hotpair-again"), "{head}");
}

#[tokio::test]
async fn a_program_is_not_called_before_its_intent_is_acknowledged() {
    let program = program(vec![done(&json!({"data": 1}))]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    served.writer.set(Mode::Hold);
    let waiting = served.calling(&call(&session, 1));
    served.until_inside(2).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(program.calls(), 0);
    served.writer.set(Mode::Release);
    assert_eq!(waiting.await.unwrap(), Envelope::done(7, json!(1)));
    assert_eq!(program.calls(), 1);
}

#[tokio::test]
async fn a_call_that_another_mastership_had_begun_is_of_unknown_outcome_for_ever() {
    let program = program(vec![done(&json!({"data": 1}))]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    served.leave_intent(&session, "1").await;
    let unknown = served.call(call(&session, 1)).await;
    assert_eq!(unknown.error_no, ErrorNumber::OutcomeUnknown, "{unknown:?}");
    assert_eq!(unknown.data, json!({"begun_in": 6}));
    assert_eq!(served.call(call(&session, 1)).await, unknown);
    assert_eq!((program.calls(), served.intents()), (0, 0));
    // Others are as they were.
    assert_eq!(served.call(call(&session, 2)).await.data, json!(1));
}

#[tokio::test]
async fn a_call_that_may_be_repeated_is_and_its_program_is_told_so() {
    let program = program(vec![done(&json!({"data": 1}))]);
    let served = serving_this(program.registered(|settings| settings.idempotent = true));
    let session = served.session().await;
    served.leave_intent(&session, "1").await;
    assert_eq!(served.call(call(&session, 1)).await, Envelope::done(7, json!(1)));
    let head = program.heads.lock().unwrap()[0].to_lowercase();
    assert!(head.contains("hotpair-again: true"), "{head}");
    assert_eq!((program.calls(), served.intents()), (1, 0));
}

#[tokio::test]
async fn what_a_program_fails_at_is_kept_like_a_reply() {
    let words = json!({"error": "no cover", "data": {"left": 3}}).to_string();
    let program = program(vec![Act::Say(422, words), done(&json!({"data": 1}))]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    let failed = served.call(call(&session, 1)).await;
    assert_eq!((failed.error_no, &failed.data), (ErrorNumber::FunctionFailed, &json!({"left": 3})));
    assert_eq!(failed.error_info, "no cover");
    assert_eq!(served.call(call(&session, 1)).await, failed);
    assert_eq!((program.calls(), served.intents()), (1, 0));
}

#[tokio::test]
async fn answers_that_nothing_can_be_done_with_leave_the_outcome_unknown() {
    let large = format!("{{\"data\":\"{}\"}}", "x".repeat(1 << 20));
    for script in [
        Act::Raw(""),
        Act::Raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\""),
        Act::Raw("hello\r\n\r\n"),
        Act::Say(200, "hello".to_owned()),
        Act::Say(302, String::new()),
        Act::Say(200, large),
    ] {
        let told = format!("{script:?}").chars().take(80).collect::<String>();
        let program = program(vec![script, done(&json!({"data": 1}))]);
        let served = serving_this(program.registered(|_| {}));
        let session = served.session().await;
        let unknown = served.call(call(&session, 1)).await;
        assert_eq!(unknown.error_no, ErrorNumber::OutcomeUnknown, "{told}: {unknown:?}");
        assert!(unknown.data["reason"].is_string(), "{told}: {unknown:?}");
        assert_eq!(served.call(call(&session, 1)).await, unknown, "{told}");
        assert_eq!((program.calls(), served.intents()), (1, 0), "{told}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_or_says_later_did_nothing() {
    let program = program(vec![Act::Say(503, String::new()), done(&json!({"data": 1}))]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    let later = served.call(call(&session, 1)).await;
    assert_eq!((later.error_no, served.intents()), (ErrorNumber::Overloaded, 0), "{later:?}");
    assert!(later.retry_after_ms.is_some());
    assert_eq!(served.call(call(&session, 1)).await, Envelope::done(7, json!(1)));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let absent = Program { address: nobody, ..program };
    let served = serving_this(absent.registered(|_| {}));
    let session = served.session().await;
    let absent = served.call(call(&session, 1)).await;
    assert_eq!((absent.error_no, served.intents()), (ErrorNumber::Overloaded, 0), "{absent:?}");
    assert!(absent.error_info.contains("nothing was executed"), "{absent:?}");
}

#[tokio::test]
async fn changes_that_depend_on_rows_that_changed_are_not_made_and_that_is_the_answer() {
    let change = json!({"table": "t", "key": "k", "put": 2, "version": 1});
    let program = program(vec![done(&json!({"data": 1, "changes": [change]}))]);
    let served = serving_this(program.registered(|_| {}));
    served.put("k", json!(1)).await;
    let session = served.session().await;
    let conflict = served.call(call(&session, 1)).await;
    assert_eq!(conflict.error_no, ErrorNumber::FunctionFailed, "{conflict:?}");
    assert_eq!(conflict.data, json!({"conflict": true}));
    assert_eq!(served.call(call(&session, 1)).await, conflict);
    assert_eq!((served.got("k").await, program.calls(), served.intents()), (json!(1), 1, 0));
}

#[tokio::test]
async fn an_answer_that_came_after_its_caller_left_is_there_for_whoever_asks_again() {
    let program = program(vec![Act::Wait(json!({"data": 5}).to_string())]);
    let limit = Duration::from_millis(400);
    let served = serving_this(program.registered(|settings| settings.timeout = limit));
    let session = served.session().await;
    let late = served.call(call(&session, 1)).await;
    assert_eq!(late.error_no, ErrorNumber::TimedOut, "{late:?}");
    program.let_go.add_permits(1);
    assert_eq!(served.call(call(&session, 1)).await, Envelope::done(7, json!(5)));
    assert_eq!(program.calls(), 1);
    // One that never comes is given up.
    assert_eq!(served.call(call(&session, 2)).await.error_no, ErrorNumber::TimedOut);
    let settled = async {
        loop {
            let answer = served.call(call(&session, 2)).await;
            if answer.error_no != ErrorNumber::TimedOut {
                return answer;
            }
        }
    };
    let unknown = timeout(LONG, settled).await.unwrap();
    assert_eq!(unknown.error_no, ErrorNumber::OutcomeUnknown, "{unknown:?}");
    assert_eq!((program.calls(), served.intents()), (2, 0));
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_where_that_is_harmless() {
    let program = program(vec![Act::Raw(""), Act::Raw("HTTP"), done(&json!({"data": 1}))]);
    let served = serving_this(program.registered(|settings| settings.idempotent = true));
    let session = served.session().await;
    assert_eq!(served.call(call(&session, 1)).await, Envelope::done(7, json!(1)));
    let heads = program.heads.lock().unwrap().clone();
    let key = |head: &String| head.split("idempotency-key: ").nth(1).unwrap()[..34].to_owned();
    assert_eq!(heads.len(), 3);
    assert!(key(&heads[0]) == key(&heads[1]) && key(&heads[1]) == key(&heads[2]), "{heads:?}");
    assert!(!heads[0].contains("hotpair-again") && heads[2].contains("hotpair-again"));
}

#[tokio::test]
async fn more_calls_than_a_program_bears_are_not_executed() {
    let program = program(vec![Act::Wait(json!({"data": 1}).to_string())]);
    let served = serving_this(program.registered(|settings| settings.concurrency = 1));
    let (one, other) = (served.session().await, served.session().await);
    let first = served.calling(&call(&one, 1));
    program.until_called(1).await;
    let full = served.call(call(&other, 1)).await;
    assert_eq!((full.error_no, served.intents()), (ErrorNumber::Overloaded, 1), "{full:?}");
    program.let_go.add_permits(2);
    assert_eq!(first.await.unwrap().data, json!(1));
    assert_eq!(served.call(call(&other, 1)).await.data, json!(1));
}

#[tokio::test]
async fn a_gate_that_holds_waits_for_the_program_also_when_the_caller_has_left() {
    let program = program(vec![Act::Wait(json!({"data": 1}).to_string())]);
    let mut served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    let caller = served.calling(&call(&session, 1));
    program.until_called(1).await;
    caller.abort();
    served.keeper.hold(Epoch(7));
    let gate = served.keeper.gate();
    assert!(timeout(Duration::from_millis(300), gate.drained()).await.is_err());
    program.let_go.add_permits(1);
    timeout(LONG, gate.drained()).await.unwrap();
    served.keeper.admit(Epoch(7));
    assert_eq!(served.call(call(&session, 1)).await, Envelope::done(7, json!(1)));
    assert_eq!(program.calls(), 1);
}

#[tokio::test]
async fn a_mastership_that_is_over_does_not_wait_for_a_program() {
    let program = program(vec![Act::Wait(json!({"data": 1}).to_string())]);
    let mut served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    let caller = served.calling(&call(&session, 1));
    program.until_called(1).await;
    served.keeper.close(Epoch(7));
    let told = timeout(LONG, caller).await.unwrap().unwrap();
    assert_eq!(told.error_no, ErrorNumber::NotServing, "{told:?}");
    assert_eq!(told.data["executed"], json!("unknown"));
    served.until_inside(0).await;
    assert_eq!(served.intents(), 1);
}

#[tokio::test]
async fn a_call_without_a_number_leaves_nothing_behind() {
    let answer = json!({"data": 1, "changes": [{"table": "t", "key": "n", "add": 1}]});
    let program = program(vec![done(&answer), Act::Raw("")]);
    let served = serving_this(program.registered(|_| {}));
    let (session, body) = (
        served.session().await,
        |session: &str| json!({"session": session, "function": 330_001, "arguments": {}}),
    );
    assert_eq!(served.call(body(&session)).await, Envelope::done(7, json!(1)));
    let unknown = served.call(json!({"function": 330_001, "arguments": {}})).await;
    assert_eq!(unknown.error_no, ErrorNumber::OutcomeUnknown, "{unknown:?}");
    assert_eq!((served.got("n").await, served.intents(), program.calls()), (json!(1), 0, 2));
    let heads = program.heads.lock().unwrap().join("\n");
    assert!(!heads.contains("hotpair-request") && heads.contains("idempotency-key: "), "{heads}");
}

#[tokio::test]
async fn an_asynchronous_call_is_begun_by_one_mastership_and_known_by_the_next() {
    let answer = json!({"data": 5, "changes": [{"table": "t", "key": "n", "add": 1}]});
    let program = program(vec![done(&answer)]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    let body = |number: u64| {
        let mut body = call(&session, number);
        body["async"] = true.into();
        body
    };
    assert_eq!(served.call(body(1)).await.data, json!({"ticket": "1"}));
    let over = served.final_result(&session, "1").await;
    assert_eq!((over.error_no, &over.data), (ErrorNumber::Done, &json!(5)), "{over:?}");
    assert_eq!((served.got("n").await, served.intents()), (json!(1), 0));
    served.leave_intent(&session, "2").await;
    assert_eq!(served.call(body(2)).await.data, json!({"ticket": "2"}));
    let over = served.final_result(&session, "2").await;
    assert_eq!(over.error_no, ErrorNumber::OutcomeUnknown, "{over:?}");
    assert_eq!((program.calls(), served.intents()), (1, 0));
}

/// A call that was begun in epoch 6, of a program that is not there now.
async fn begun_and_absent() -> (Served, String) {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let absent = Program { address: nobody, ..program(vec![Act::Raw("")]) };
    let served = serving_this(absent.registered(|settings| settings.idempotent = true));
    let session = served.session().await;
    served.leave_intent(&session, "1").await;
    (served, session)
}

#[tokio::test]
async fn of_a_call_that_was_begun_nobody_says_that_it_was_not_executed() {
    let (served, session) = begun_and_absent().await;
    let told = served.call(call(&session, 1)).await;
    assert_eq!((told.error_no, served.intents()), (ErrorNumber::TimedOut, 1), "{told:?}");
    // An asynchronous one comes to its end.
    let (served, session) = begun_and_absent().await;
    let mut body = call(&session, 1);
    body["async"] = true.into();
    body["timeout_ms"] = 300.into();
    assert_eq!(served.call(body).await.data, json!({"ticket": "1"}));
    let over = served.final_result(&session, "1").await;
    assert_eq!(over.error_no, ErrorNumber::OutcomeUnknown, "{over:?}");
    assert_eq!(served.intents(), 0);
}

#[tokio::test]
async fn a_session_that_ends_while_its_program_runs_takes_nothing_for_not_executed() {
    let program = program(vec![Act::Wait(json!({"data": 1}).to_string())]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    let caller = served.calling(&call(&session, 1));
    program.until_called(1).await;
    let out = served.post("/v1/logout", json!({"session": session}).to_string()).await;
    assert_eq!(out.error_no, ErrorNumber::Done, "{out:?}");
    program.let_go.add_permits(1);
    let told = timeout(LONG, caller).await.unwrap().unwrap();
    assert_eq!(told.error_no, ErrorNumber::OutcomeUnknown, "{told:?}");
}

#[tokio::test]
async fn a_program_that_ends_a_connection_before_the_call_was_not_called() {
    let program = program_that_hangs_up(1, vec![done(&json!({"data": 1}))]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    served.writer.set(Mode::Hold);
    let waiting = served.calling(&call(&session, 1));
    served.until_inside(2).await;
    // Nothing tells when the end of the connection is noticed; a slow machine makes this pass.
    sleep(Duration::from_millis(300)).await;
    served.writer.set(Mode::Release);
    assert_eq!(waiting.await.unwrap(), Envelope::done(7, json!(1)));
    assert_eq!(program.calls(), 1);
}

#[tokio::test]
async fn intents_that_nobody_can_ask_for_go_with_the_next() {
    let program = program(vec![done(&json!({"data": 1}))]);
    let served = serving_this(program.registered(|_| {}));
    let session = served.session().await;
    for number in ["1", "2", "9"] {
        served.leave_intent(&session, number).await;
    }
    let mut done_up_to = call(&session, 3);
    done_up_to["done_up_to"] = 2.into();
    assert_eq!(served.call(done_up_to).await.data, json!(1));
    assert_eq!(served.intents(), 3);
    assert_eq!(served.call(call(&session, 4)).await.data, json!(1));
    assert_eq!(served.intents(), 1, "only that of 9 is left");
}
