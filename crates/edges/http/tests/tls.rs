//! Server, client and pool under TLS: over real sockets, with certificates that the test makes.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hotpair_http::{
    Bytes, ClientError, Counters, Dialler, Door, Handler, Limits, Method, Opening, Outgoing, Pool,
    PoolLimits, Refusal, Request, Response, StatusCode, bind, serve,
};
use hotpair_tls::Identity;
use hotpair_tls::testing::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is waited for takes longer on a loaded machine.
const LONG: Duration = Duration::from_secs(30);

/// Echoes; `/events` streams three events.
struct Echo;

impl Handler for Echo {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        if request.path == "/events" {
            let (pieces, taken) = tokio::sync::mpsc::channel(4);
            for number in 0..3 {
                pieces.send(format!("data: {number}\n\n").into()).await.unwrap();
            }
            return Response::events(taken);
        }
        Response::new(StatusCode::OK, "application/octet-stream", request.body)
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        Response::text(StatusCode::BAD_REQUEST, format!("{refusal}\n"))
    }
}

/// A server and who trusts it.
struct Running {
    address: SocketAddr,
    counters: Arc<Counters>,
    authority: Authority,
    _folder: tempfile::TempDir,
}

fn start(limits: Limits, plain_from_loopback: bool) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let identity = authority.identity("server", &["127.0.0.1"]);
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut door = Door::new(listener, Some(identity.server(&[b"http/1.1"]).unwrap()));
    if plain_from_loopback {
        door = door.with_plain_from_loopback();
    }
    let counters = Arc::<Counters>::default();
    tokio::spawn(serve(door, limits, Arc::new(Echo), Arc::clone(&counters)));
    Running { address, counters, authority, _folder: folder }
}

fn dialler(identity: &Identity) -> Dialler {
    Dialler::with_tls(identity.client(&[b"http/1.1"]).unwrap())
}

impl Running {
    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.address)
    }

    fn trusting(&self) -> Dialler {
        dialler(&self.authority.trusting())
    }
}

#[tokio::test]
async fn requests_connections_and_streams_go_over_tls() {
    let running = start(Limits::client(), false);
    let dialler = running.trusting();
    let big = "x".repeat(300_000);
    let url = running.url("https", "/");
    let answer = dialler.post_json(&url, &[], big.clone(), LONG).await.unwrap();
    assert_eq!(answer.body, big);
    let mut kept = dialler.connect(&running.url("https", ""), LONG).await.unwrap();
    for body in ["one", "two", "three"] {
        let answer = kept.send(Method::POST, "/", &[], body, LONG).await.unwrap();
        assert_eq!(answer.body, body);
    }
    assert_eq!(running.counters.accepted(), 2);
    let url = running.url("https", "/events");
    let mut events = dialler.open_events(&url, &[], LONG).await.unwrap();
    for number in 0..3 {
        assert_eq!(events.next(LONG).await.unwrap().unwrap().data, number.to_string());
    }
}

#[tokio::test]
async fn a_pool_keeps_its_connections_under_tls() {
    let running = start(Limits::client(), false);
    let url = running.url("https", "").parse().unwrap();
    let pool = Pool::over(running.trusting(), url, PoolLimits::default());
    let outgoing = |path, method, body| Outgoing {
        method,
        path,
        query: None,
        authorization: None,
        last_event_id: None,
        number: None,
        body,
    };
    for body in [&b"one"[..], b"two", &[b'x'; 200_000]] {
        let exchanged = pool.exchange(pool.generation(), outgoing("/", "POST", body)).await;
        assert_eq!(exchanged.unwrap().body, body);
    }
    assert_eq!(
        (running.counters.accepted(), pool.open()),
        (1, 1),
        "one connection is used for all"
    );
    let opened = pool.open_stream(pool.generation(), outgoing("/events", "GET", b"")).await;
    let Opening::Stream(mut stream) = opened.unwrap() else { panic!("no stream") };
    let mut all = Vec::new();
    while let Some(piece) = timeout(LONG, stream.next()).await.unwrap().unwrap() {
        all.extend_from_slice(&piece);
    }
    assert_eq!(all, b"data: 0\n\ndata: 1\n\ndata: 2\n\n");
}

#[tokio::test]
async fn plain_text_is_refused_in_plain_text() {
    let running = start(Limits::client(), false);
    let url = running.url("http", "/");
    let answer = Dialler::plain().post_json(&url, &[], "secret", LONG).await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.body, "this port speaks TLS: use https://\n");
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"hello?\n").await.unwrap();
    let mut said = String::new();
    timeout(LONG, stream.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("speaks TLS"), "{said}");
}

#[tokio::test]
async fn a_door_for_this_machine_takes_both() {
    let running = start(Limits::admin(), true);
    for scheme in ["http", "https"] {
        let answer = running.trusting().get(&running.url(scheme, "/"), LONG).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{scheme}");
    }
}

#[tokio::test]
async fn who_cannot_be_trusted_is_sent_nothing() {
    let (running, other) = (start(Limits::client(), false), start(Limits::client(), false));
    let url = running.url("https", "/");
    let error = other.trusting().get(&url, LONG).await.unwrap_err();
    assert!(!error.was_sent() && matches!(error, ClientError::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("not signed by an authority"), "{error}");
    let error = Dialler::plain().get(&url, LONG).await.unwrap_err();
    assert!(!error.was_sent() && error.to_string().contains("no authority is given"), "{error}");
    // Its certificate is for the address, and not for the name.
    let by_name = format!("https://localhost:{}/", running.address.port());
    let error = running.trusting().get(&by_name, LONG).await.unwrap_err();
    assert!(error.to_string().contains("not for \"localhost\" but for"), "{error}");
    // Somebody who speaks plain text where TLS is expected.
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let plain = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, Limits::client(), Arc::new(Echo), Arc::default()));
    let error = running.trusting().get(&plain, LONG).await.unwrap_err();
    assert!(!error.was_sent() && error.to_string().contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn handshakes_that_take_for_ever_are_cut_and_cost_nobody_a_place() {
    let limits =
        Limits { connections_max: 4, head_timeout: Duration::from_millis(400), ..Limits::client() };
    let running = start(limits, false);
    // Nothing, a beginning, and garbage that begins like a handshake.
    let mut slow = Vec::new();
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"\x16"] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        slow.push(stream);
    }
    let mut garbage = TcpStream::connect(running.address).await.unwrap();
    garbage.write_all(&[0x16; 600]).await.unwrap();
    let url = running.url("https", "/");
    let answer = running.trusting().post_json(&url, &[], Bytes::from("me"), LONG).await.unwrap();
    assert_eq!(answer.body, "me");
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it is cut");
    }
    assert!(running.counters.cut() >= 3, "{}", running.counters.cut());
}
