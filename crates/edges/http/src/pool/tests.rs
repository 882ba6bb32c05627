use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

fn post(body: &[u8]) -> Outgoing<'_> {
    let (method, path) = ("POST", "/v1/call");
    Outgoing {
        method,
        path,
        query: None,
        authorization: None,
        last_event_id: None,
        number: None,
        body,
    }
}

/// A server that reads what comes and answers with this, at each of its connections.
async fn server(answers: &'static [&'static str]) -> (String, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let mut connections = 0;
        let mut answers = answers.iter();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                let Some(answer) = answers.next() else { return connections };
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.contains("close") {
                    break;
                }
            }
        }
    });
    (address, serving)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_connection_is_used_again_until_the_server_closes_it() {
    const CLOSE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
    let (address, _serving) = server(&[OK, OK, CLOSE, OK]).await;
    let pool = Pool::new(&address, PoolLimits::default());
    for open_after in [1, 1, 0, 1] {
        let answer = pool.exchange(pool.generation(), post(b"{}")).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"hi"[..]));
        assert_eq!(pool.open(), open_after);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_is_not_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pool = Pool::new(&address, PoolLimits::default());
    for _ in 0..2 {
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(pool.exchange(pool.generation(), post(b"{}")), serving);
        assert_eq!(answer.unwrap().status, 200);
        // The server has closed; the runtime hears of it in its next turns.
        let closed = async {
            while pool.take_kept(pool.generation()).is_some_and(|kept| {
                pool.idle().push(kept);
                true
            }) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), closed).await.unwrap();
        assert_eq!(pool.open(), 0);
    }
}

#[tokio::test]
async fn what_was_surely_not_sent_is_told_from_what_may_have_been() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pool = Pool::new(&address, PoolLimits::default());
    let ending = async { drop(listener.accept().await.unwrap()) };
    let (broken, ()) = tokio::join!(pool.exchange(pool.generation(), post(b"{}")), ending);
    assert!(broken.unwrap_err().was_sent());
    drop(listener);
    let refused = pool.exchange(pool.generation(), post(b"{}")).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::NotConnected { .. }) && !refused.was_sent());
    let before = pool.generation();
    pool.cut();
    let cut = pool.exchange(before, post(b"{}")).await.unwrap_err();
    assert!(matches!(cut, ExchangeError::CutBefore { .. }) && !cut.was_sent());
}

#[tokio::test]
async fn a_cut_ends_what_waits_and_what_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pool = Pool::new(&address, PoolLimits::default());
    let cutting = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        pool.cut();
        stream
    };
    let (outcome, stream) = tokio::join!(pool.exchange(pool.generation(), post(b"{}")), cutting);
    assert!(matches!(outcome.unwrap_err(), ExchangeError::Cut { .. }));
    assert_eq!(pool.open(), 0);
    drop(stream);
}

#[tokio::test]
async fn who_finds_every_connection_busy_waits_in_order() {
    let (address, serving) = server(&[OK, OK, OK]).await;
    let limits = PoolLimits { connections_max: 1, ..PoolLimits::default() };
    let pool = Pool::new(&address, limits);
    let generation = pool.generation();
    let exchange = || pool.exchange(generation, post(b"{}"));
    let (a, b, c) = tokio::join!(exchange(), exchange(), exchange());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(pool.open(), 1);
    serving.abort();
}

#[tokio::test]
async fn what_is_written_is_a_whole_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pool = Pool::new(&address, PoolLimits::default());
    let outgoing =
        Outgoing { query: Some("a=b"), authorization: Some(b"Bearer x"), ..post(b"{\"a\":1}") };
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        bytes.truncate(count);
        String::from_utf8(bytes).unwrap()
    };
    let (answer, said) = tokio::join!(pool.exchange(pool.generation(), outgoing), serving);
    answer.unwrap();
    let wanted = format!(
        "POST /v1/call?a=b HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer x\r\n\
         content-type: application/json\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}"
    );
    assert_eq!(said, wanted);
}

#[tokio::test]
async fn answers_that_no_server_of_ours_gives_are_errors() {
    const BAD: [&str; 5] = [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
    ];
    let (address, serving) = server(&BAD).await;
    let pool = Pool::new(&address, PoolLimits::default());
    for bad in BAD {
        let error = pool.exchange(pool.generation(), post(b"{}")).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Broken { .. }), "{bad:?}: {error}");
    }
    serving.abort();
}

#[test]
fn a_head_is_found_wherever_it_was_cut() {
    let head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\r\n";
    for cut in 0..head.len() {
        assert_eq!(find_end(&head[..cut], 0), None);
        assert_eq!(find_end(head, cut.saturating_sub(3)), Some(head.len()));
    }
    let wanted = Head { status: 503, length: Some(12), keep: true };
    assert_eq!(Head::parse(head).unwrap(), wanted);
    assert_eq!(Digits::of(0).text(), b"0");
    assert_eq!(Digits::of(1_048_576).text(), b"1048576");
}

#[tokio::test]
async fn a_stream_comes_as_it_is_until_its_end() {
    const STREAM: &str = "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\n";
    const ANSWER: &str = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pool = Pool::new(&address, PoolLimits { streams_max: 1, ..PoolLimits::default() });
    let get = Outgoing {
        method: "GET",
        path: "/v1/push",
        last_event_id: Some(b"7"),
        number: Some(("hotpair-epoch", 12)),
        ..post(b"")
    };
    let serve = async |answer: &str| {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        let said = std::str::from_utf8(&bytes[..count]).unwrap();
        assert!(
            said.starts_with("GET /v1/push HTTP/1.0\r\n")
                && said.contains("\r\nlast-event-id: 7\r\nhotpair-epoch: 12\r\n")
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    };
    let generation = pool.generation();
    let (opening, mut server) = tokio::join!(pool.open_stream(generation, get), serve(STREAM));
    let Opening::Stream(mut stream) = opening.unwrap() else { panic!("no stream") };
    assert_eq!(stream.next().await.unwrap().unwrap(), ": hello\n\n");
    let full = pool.open_stream(generation, get).await.unwrap_err();
    assert!(matches!(full, ExchangeError::StreamsFull { .. }) && !full.was_sent());
    server.write_all(b"data: 1\n\n").await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "data: 1\n\n");
    drop(server);
    assert_eq!(stream.next().await.unwrap(), None);
    drop(stream);
    let (opening, _server) = tokio::join!(pool.open_stream(generation, get), serve(ANSWER));
    assert!(matches!(opening.unwrap(), Opening::Answer(Whole { status: 200, .. })));
    pool.cut();
    timeout(Duration::from_secs(60), pool.cut_after(generation)).await.unwrap();
}
