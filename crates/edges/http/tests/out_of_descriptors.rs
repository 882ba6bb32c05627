//! A process without file descriptors left: the acceptor neither ends nor spins, and serves again.
//! Alone in this file, because the limit is the whole process's.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hotpair_http::{
    Counters, Handler, Limits, Refusal, Request, Response, StatusCode, bind, client, serve,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Debug)]
struct Hello;

impl Handler for Hello {
    async fn handle(self: Arc<Self>, _: Request) -> Response {
        Response::text(StatusCode::OK, "hello")
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        Response::text(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
    }
}

#[test]
fn a_server_out_of_descriptors_rests_and_then_serves_again() {
    let before = getrlimit(Resource::Nofile);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let counters = Arc::<Counters>::default();
    let address = {
        let _inside = runtime.enter();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Limits::client(), Arc::new(Hello), Arc::clone(&counters)));
        address
    };
    assert_eq!(hello(&runtime, address), "hello");

    let tight = Rlimit { current: Some(64), ..before };
    setrlimit(Resource::Nofile, tight).unwrap();
    // Fill the table with connections whose other ends nobody can accept.
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect(address) {
        held.push(stream);
    }
    let turns = counters.turns();
    std::thread::sleep(Duration::from_secs(1));
    let turned = counters.turns() - turns;
    assert!((1..500).contains(&turned), "the acceptor turned {turned} times in a second");

    drop(held);
    assert_eq!(hello(&runtime, address), "hello");
    setrlimit(Resource::Nofile, before).unwrap();
}

fn hello(runtime: &tokio::runtime::Runtime, address: SocketAddr) -> String {
    let url = format!("http://{address}/");
    let answer = runtime.block_on(client::get(&url, Duration::from_secs(20))).expect("it answers");
    String::from_utf8_lossy(&answer.body).into_owned()
}
