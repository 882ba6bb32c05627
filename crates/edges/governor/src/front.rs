//! Our own port in front of a service: open while there is a member to lead to.
//!
//! ```text
//!   route:  none ──────▶ closed, nobody connected
//!           to member ─▶ open; each connection is led there
//!           to another ▶ open; who was led elsewhere is cut, and may come again
//! ```
//!
//! A connection that is cut ends with a reset, not with an ordinary end: what was under way did not
//! come to its end, and nobody shall take it for whole. Ends that the two sides make are passed on as
//! they are, each direction for itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotpair_core::services::governed::Address;
use hotpair_http::Occasionally;
use hotpair_protocol::ProxyStatus;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Where connections lead. The number tells two routes to one address apart, so that nobody stays
/// connected over a time without a route, however short.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    number: u64,
    to: Address,
}

/// The port, kept by a task of its own until this is dropped.
#[derive(Debug)]
pub(crate) struct Front {
    route: watch::Sender<Option<Route>>,
    routes: u64,
    state: Arc<State>,
}

/// What is shown of it.
#[derive(Debug)]
pub(crate) struct State {
    address: SocketAddr,
    open: Mutex<Open>,
    places: Arc<Semaphore>,
    full: Occasionally,
}

#[derive(Clone, Debug, Default)]
struct Open {
    listening: bool,
    why: Option<String>,
}

impl Front {
    /// A port that is closed for now.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (route, routed) = watch::channel(None);
        let state = Arc::new(State {
            address,
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            full: Occasionally::default(),
        });
        tokio::spawn(keep(routed, Arc::clone(&state)));
        Self { route, routes: 0, state }
    }

    /// Leads there from now on, and cuts all that leads elsewhere; none: closes the port.
    pub(crate) fn lead(&mut self, to: Option<Address>) {
        self.routes += 1;
        let number = self.routes;
        self.route.send_replace(to.map(|to| Route { number, to }));
    }

    /// What is shown of it, now and later.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }
}

impl State {
    pub(crate) fn status(&self) -> ProxyStatus {
        let open = self.open.lock().expect("nothing panics while holding it").clone();
        ProxyStatus {
            address: self.address.to_string(),
            listening: open.listening,
            connections: (CONNECTIONS_MAX - self.places.available_permits()) as u64,
            why: open.why,
        }
    }

    fn set_open(&self, listening: bool, why: Option<String>) {
        *self.open.lock().expect("nothing panics while holding it") = Open { listening, why };
    }
}

/// Opens and closes the port as the route says, until nobody says any more.
async fn keep(mut route: watch::Receiver<Option<Route>>, state: Arc<State>) {
    loop {
        if route.wait_for(Option::is_some).await.is_err() {
            return;
        }
        match hotpair_http::bind(state.address) {
            Ok(listener) => {
                tracing::info!(address = %state.address, "the port of a service is open");
                state.set_open(true, None);
                let let_in = let_in(&listener, &route, &state);
                let mut until = route.clone();
                tokio::select! {
                    _ = until.wait_for(Option::is_none) => {}
                    () = let_in => {}
                }
                drop(listener);
                state.set_open(false, None);
                tracing::info!(address = %state.address, "the port of a service is closed");
            }
            Err(error) => {
                // The other node on the same machine may still have it, for a moment.
                let why = format!("proxy = \"{}\" cannot be bound: {error}", state.address);
                if state.status().why.as_ref() != Some(&why) {
                    tracing::warn!("{why}");
                }
                state.set_open(false, Some(why));
                sleep(BIND_AGAIN).await;
                if route.borrow().is_none() {
                    state.set_open(false, None);
                }
            }
        }
    }
}

/// Lets clients in for ever.
async fn let_in(
    listener: &TcpListener,
    route: &watch::Receiver<Option<Route>>,
    state: &Arc<State>,
) {
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Of one connection only, or out of descriptors, which takes others to end.
                tracing::debug!(%error, "a connection was not accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&state.places).try_acquire_owned() else {
            if let Some(left_out) = state.full.due() {
                let address = state.address;
                tracing::warn!(%address, left_out, "{CONNECTIONS_MAX} connections: one is refused");
            }
            reset(&client);
            continue;
        };
        // The one that is true now: between accepting and here it may have changed.
        let Some(mine) = route.borrow().clone() else { return reset(&client) };
        tokio::spawn(lead_one(client, mine, route.clone(), place));
    }
}

/// Leads one connection, until it ends or is cut.
async fn lead_one(
    mut client: TcpStream,
    mine: Route,
    mut route: watch::Receiver<Option<Route>>,
    _place: OwnedSemaphorePermit,
) {
    let cut = route.wait_for(|now| now.as_ref() != Some(&mine));
    tokio::pin!(cut);
    let server = tokio::select! {
        biased;
        _ = &mut cut => None,
        connected = timeout(CONNECT_LIMIT, TcpStream::connect(mine.to.as_str())) => {
            connected.ok().and_then(Result::ok)
        }
    };
    let Some(mut server) = server else { return reset(&client) };
    for stream in [&client, &server] {
        // Failing costs latency, or a place that is kept for longer.
        let _ = (stream.set_nodelay(true), SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE));
    }
    let whole = tokio::select! {
        biased;
        _ = &mut cut => false,
        copied = copy_bidirectional(&mut client, &mut server) => copied.is_ok(),
    };
    if !whole {
        reset(&client);
        reset(&server);
    }
}

/// Makes the end of a connection a reset, once it is dropped.
fn reset(stream: &TcpStream) {
    // Failing, it is an ordinary end.
    let _ = stream.set_zero_linger();
}

/// Connections through one port at a time.
const CONNECTIONS_MAX: usize = 1024;
/// How long a member may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A side that went without a word, as machines without power do, gives its place back within two
/// minutes. Connections that are only silent stay.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);
const BIND_AGAIN: Duration = Duration::from_millis(100);
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A server that says its name to everybody, and then everything back until the end of it.
    async fn echo(name: &'static str) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.write_all(name.as_bytes()).await?;
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await?;
                    to.shutdown().await
                });
            }
        });
        address
    }

    /// A front at a port that is free now.
    async fn front() -> (Front, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        (Front::start(address), address)
    }

    /// A connection and the name of the server at its end; waits for the port.
    async fn connect(address: SocketAddr) -> (TcpStream, String) {
        let connected = async {
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let mut name = [0; 1];
                    if stream.read_exact(&mut name).await.is_ok() {
                        return (stream, String::from_utf8(name.to_vec()).unwrap());
                    }
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, connected).await.unwrap()
    }

    async fn ends_with_a_reset(stream: &mut TcpStream) {
        let error = timeout(LONG, stream.read(&mut [0; 8])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    async fn closed(address: SocketAddr) {
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, refused).await.unwrap();
    }

    #[tokio::test]
    async fn connections_lead_to_the_active_one_and_are_cut_when_it_changes() {
        let (a, b) = (echo("a").await, echo("b").await);
        let (mut front, address) = front().await;
        closed(address).await;
        front.lead(Some(a.clone()));
        let (mut first, name) = connect(address).await;
        assert_eq!(name, "a");
        assert_eq!(front.state().status().connections, 1);
        front.lead(Some(b));
        ends_with_a_reset(&mut first).await;
        let (mut second, name) = connect(address).await;
        assert_eq!(name, "b");
        front.lead(None);
        ends_with_a_reset(&mut second).await;
        closed(address).await;
        assert!(!front.state().status().listening);
        front.lead(Some(a));
        assert_eq!(connect(address).await.1, "a");
    }

    #[tokio::test]
    async fn a_moment_without_a_route_cuts_though_the_address_is_the_same_again() {
        let a = echo("a").await;
        let (mut front, address) = front().await;
        front.lead(Some(a.clone()));
        let (mut stream, _) = connect(address).await;
        front.lead(None);
        front.lead(Some(a));
        ends_with_a_reset(&mut stream).await;
        assert_eq!(connect(address).await.1, "a");
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_one_open() {
        let (mut front, address) = front().await;
        front.lead(Some(echo("a").await));
        let (mut stream, _) = connect(address).await;
        let sent = vec![b'x'; 300_000];
        let (mut from, mut to) = stream.split();
        let ask = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let hear = from.read_to_end(&mut heard);
        let (_, heard_all) = timeout(LONG, async { tokio::join!(ask, hear) }).await.unwrap();
        assert_eq!((heard_all.unwrap(), heard == sent), (sent.len(), true));
    }

    #[tokio::test]
    async fn more_connections_than_there_are_places_are_refused_and_those_inside_stay() {
        let (mut front, address) = front().await;
        front.lead(Some(echo("a").await));
        let (mut inside, _) = connect(address).await;
        let rest = u32::try_from(CONNECTIONS_MAX - 1).unwrap();
        let taken = front.state().places.clone().acquire_many_owned(rest).await.unwrap();
        let mut surplus = TcpStream::connect(address).await.unwrap();
        ends_with_a_reset(&mut surplus).await;
        inside.write_all(b"!").await.unwrap();
        let mut back = [0; 1];
        timeout(LONG, inside.read_exact(&mut back)).await.unwrap().unwrap();
        drop(taken);
        assert_eq!(connect(address).await.1, "a");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_opened_once_it_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let mut front = Front::start(address);
        front.lead(Some(echo("a").await));
        let said = async {
            while front.state().status().why.is_none() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, said).await.unwrap();
        drop(taken);
        assert_eq!(connect(address).await.1, "a");
        assert_eq!(front.state().status().why, None);
    }
}
