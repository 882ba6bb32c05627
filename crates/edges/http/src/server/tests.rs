use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::client::{self, Events};

/// Echoes bodies; `/wait` waits for a word; `/events` streams.
#[derive(Default)]
struct Echo {
    go_on: Notify,
    waiting: AtomicU64,
    stream: std::sync::Mutex<Option<mpsc::Sender<Bytes>>>,
}

impl Handler for Echo {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        match request.path.as_str() {
            "/wait" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.go_on.notified().await;
                Response::text(StatusCode::OK, "waited")
            }
            "/events" => {
                let (pieces, taken) = mpsc::channel(2);
                *self.stream.lock().unwrap() = Some(pieces);
                Response::events(taken)
            }
            _ => Response::new(StatusCode::OK, "application/octet-stream", request.body),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        Response::text(StatusCode::PAYLOAD_TOO_LARGE, refusal.to_string())
    }
}

struct Running {
    address: SocketAddr,
    echo: Arc<Echo>,
    counters: Arc<Counters>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<()>,
}

fn small() -> Limits {
    Limits {
        connections_max: 4,
        // Long enough that a busy machine cuts nobody who is quick.
        head_timeout: Duration::from_secs(2),
        body_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_secs(60),
        body_bytes_max: 1000,
        ..Limits::client()
    }
}

fn start(limits: Limits) -> Running {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (echo, counters) = (Arc::<Echo>::default(), Arc::<Counters>::default());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = tokio::spawn(serve_until(
        listener,
        limits,
        Arc::clone(&echo),
        Arc::clone(&counters),
        async move { drop(stopped.await) },
    ));
    Running { address, echo, counters, stop: Some(stop), server }
}

impl Running {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn echo(&self, body: &'static str) -> Result<String, client::ClientError> {
        let answer = client::post_json(&self.url("/"), &[], body, LONG).await?;
        Ok(String::from_utf8(answer.body.to_vec()).unwrap())
    }

    /// Sends these bytes and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it closes");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let running = start(small());
    let address = running.address.to_string();
    let mut connection = client::Connection::connect(&address, LONG).await.unwrap();
    for body in ["one", "two", "three"] {
        let answer = connection.send(Method::POST, "/", &[], body, LONG).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, body.as_bytes()));
    }
    assert_eq!(running.counters.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_rested_goes_on_where_it_was() {
    let running = start(small());
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let request = |body: &str| {
        format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let large = "x".repeat(900);
    for (rested, bodies) in
        [&["one"][..], &["two", "three"], &[&large, &large, &large]].iter().enumerate()
    {
        until("it rests", || running.counters.rested() == rested as u64).await;
        // In two pieces: the first wakes it.
        let bytes: String = bodies.iter().map(|body| request(body)).collect();
        stream.write_all(&bytes.as_bytes()[..7]).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        stream.write_all(&bytes.as_bytes()[7..]).await.unwrap();
        let mut said = String::new();
        while !bodies.iter().all(|body| said.contains(&format!("\r\n\r\n{body}"))) {
            let mut bytes = [0; 4096];
            let read = timeout(LONG, stream.read(&mut bytes)).await.expect("an answer").unwrap();
            assert!(read > 0, "it closed after {said}");
            said.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        assert!(!said.to_lowercase().contains("connection: close"), "{said}");
    }
    assert_eq!((running.counters.accepted(), running.counters.cut()), (1, 0));
}

#[tokio::test]
async fn what_is_not_http_ends_its_own_connection_only() {
    let running = start(small());
    let huge_head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD_BYTES_MAX));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let bad: [&[u8]; 9] = [
        b"\0\x01\x02\xff\xfe garbage\r\n\r\n",
        b"\r\n\r\n\r\n\x16\x03\x01\x02\0\x01\0",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: minus\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        huge_head.as_bytes(),
        many_headers.as_bytes(),
    ];
    for bytes in bad {
        let answer = running.raw(bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer:?} for {:?}", bytes.get(..40));
    }
    assert_eq!(running.echo("still here").await.unwrap(), "still here");
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_with_a_sentence() {
    let running = start(small());
    let announced = format!("POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001));
    let huge = "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_owned();
    let chunk = format!("3e9\r\n{}\r\n", "x".repeat(1001));
    let chunked = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    let endless =
        format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(50));
    for request in [announced, huge, chunked, endless] {
        let answer = running.raw(request.as_bytes()).await;
        // Where the rest was not read, a reset may overtake the answer.
        let refused = answer.starts_with("HTTP/1.1 413") && answer.contains("larger than 1000");
        assert!(refused || answer.is_empty() && request.len() > 10_000, "{answer:?}");
    }
    let whole = "x".repeat(1000);
    let answer = client::post_json(&running.url("/"), &[], whole.clone(), LONG).await.unwrap();
    assert_eq!(answer.body, whole);
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_and_quick_ones_are_not() {
    let running = start(small());
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let mut slow_head = TcpStream::connect(running.address).await.unwrap();
    slow_head.write_all(b"GET / HTTP/1.1\r\nx: y").await.unwrap();
    let mut slow_body = TcpStream::connect(running.address).await.unwrap();
    slow_body.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab").await.unwrap();
    let mut kept = client::Connection::connect(&running.address.to_string(), LONG).await.unwrap();
    kept.send(Method::POST, "/", &[], "one", LONG).await.unwrap();
    for stream in [&mut silent, &mut slow_head, &mut slow_body] {
        let mut rest = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it is cut");
        assert!(rest.is_empty());
    }
    kept.send(Method::POST, "/", &[], "two", LONG).await.unwrap();
    assert_eq!(running.counters.cut(), 3);
}

#[tokio::test]
async fn the_longest_waiting_makes_room_and_the_busy_are_left_alone() {
    let running = start(Limits { head_timeout: LONG, ..small() });
    let busy = tokio::spawn({
        let url = running.url("/wait");
        async move { client::get(&url, LONG).await }
    });
    until("one waits", || running.echo.waiting.load(Ordering::SeqCst) == 1).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(TcpStream::connect(running.address).await.unwrap());
    }
    assert_eq!(running.echo("room for me").await.unwrap(), "room for me");
    assert_eq!(running.counters.refused(), 0);
    running.echo.go_on.notify_waiters();
    assert_eq!(busy.await.unwrap().unwrap().body, "waited");
}

#[tokio::test]
async fn where_all_are_busy_one_more_is_told_so() {
    let running = start(small());
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let url = running.url("/wait");
            tokio::spawn(async move { client::get(&url, LONG).await })
        })
        .collect();
    until("four wait", || running.echo.waiting.load(Ordering::SeqCst) == 4).await;
    let refused = running.raw(b"").await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("all 4 connections are busy"));
    running.echo.go_on.notify_waiters();
    for one in busy {
        assert_eq!(one.await.unwrap().unwrap().body, "waited");
    }
    assert_eq!(running.echo("again").await.unwrap(), "again");
    assert_eq!(running.counters.refused(), 1);
}

#[tokio::test]
async fn the_acceptor_turns_when_nobody_comes() {
    let running = start(small());
    let before = running.counters.turns();
    until("it turned", || running.counters.turns() >= before + 3).await;
}

#[tokio::test]
async fn a_stop_lets_the_answer_under_way_out_and_nobody_in() {
    let mut running = start(small());
    let busy = tokio::spawn({
        let url = running.url("/wait");
        async move { client::get(&url, LONG).await }
    });
    until("one waits", || running.echo.waiting.load(Ordering::SeqCst) == 1).await;
    running.stop.take().unwrap().send(()).unwrap();
    // The listener is gone before the answers under way are.
    let refused = async {
        while TcpStream::connect(running.address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, refused).await.unwrap();
    running.echo.go_on.notify_waiters();
    assert_eq!(busy.await.unwrap().unwrap().body, "waited");
    timeout(LONG, running.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn events_arrive_as_they_are_sent_and_the_stream_ends_with_its_sender() {
    let running = start(small());
    let mut events = Events::open(&running.url("/events"), &[], LONG).await.unwrap();
    let pieces = running.echo.stream.lock().unwrap().take().unwrap();
    for number in 0..3 {
        pieces.send(format!(": x\n\nevent: view\ndata: {number}\n\n").into()).await.unwrap();
        let event = events.next(LONG).await.unwrap().unwrap();
        assert_eq!((event.name.as_str(), event.data), ("view", number.to_string()));
    }
    drop(pieces);
    assert_eq!(events.next(LONG).await.unwrap(), None);
}

#[tokio::test]
async fn a_follower_that_takes_nothing_is_cut() {
    let limits = Limits { stream_timeout: Duration::from_millis(400), ..small() };
    let running = start(limits);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\n\r\n").await.unwrap();
    until("it streams", || running.echo.stream.lock().unwrap().is_some()).await;
    let pieces = running.echo.stream.lock().unwrap().take().unwrap();
    let big = Bytes::from(vec![b'x'; 1024 * 1024]);
    // Buffers fill, then nothing is taken, then the connection is cut and the channel with it.
    let fill = async { while pieces.send(big.clone()).await.is_ok() {} };
    timeout(LONG, fill).await.expect("the sender learns that nobody takes");
    assert_eq!(running.counters.cut(), 1);
}

#[tokio::test]
async fn an_error_says_whether_the_request_may_have_been_executed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let limit = Duration::from_millis(200);
    // It accepts into its queue and never answers.
    let silent = client::get(&format!("http://{address}/"), limit).await.unwrap_err();
    assert!(silent.was_sent(), "{silent}");
    drop(listener);
    let refused = client::get(&format!("http://{address}/"), LONG).await.unwrap_err();
    assert!(refused.is_refused() && !refused.was_sent(), "{refused}");
    let bad = client::get("https://a/", LONG).await.unwrap_err();
    assert!(!bad.was_sent());
    let running = start(small());
    let header = [("x", "secret\n")];
    let url = running.url("/");
    let bad = client::request(Method::GET, &url, &header, "", LONG).await.unwrap_err();
    assert!(!bad.was_sent() && !bad.to_string().contains("secret"), "{bad}");
}
