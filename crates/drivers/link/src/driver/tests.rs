//! Drivers on loopback, against each other and against what they may meet on a network.
//!
//! Everything runs on one thread, as in the node.

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::time::Instant;

use bytes::BytesMut;
use hotpair_core::pair::fact::{DialFailure, LinkEnd};
use hotpair_core::pair::identity::{
    BootId, Contact, Epoch, Incarnation, Instance, NodeId, Role, Statement,
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::door::{CONNECTIONS_MAX, HELLO_WITHIN};
use crate::frame::{Frame, RejectReason, Times, decode, encode};

mod secure;

const GENEROUS: Duration = Duration::from_secs(10);

fn identity(pair: &str, node: &str) -> Arc<Identity> {
    Arc::new(Identity {
        incarnation: Incarnation {
            node: NodeId::new(node),
            instance: Instance(7),
            boot_id: BootId(8),
        },
        life: 9,
        pair: pair.into(),
        root: "/hotpair".into(),
        config_digest: 10,
        version: "0.1.0".into(),
    })
}

fn says(identity: &Arc<Identity>) -> Statement {
    Statement {
        identity: identity.clone(),
        cluster: None,
        role: Role::Standby,
        serving: false,
        epoch: Epoch(3),
        left: Epoch(2),
        lease_ms: 0,
        contact: Contact::Connected,
        position: None,
        complete: true,
        guard: Some("the disk is full".into()),
    }
}

/// A driver whose control loop is the test itself.
struct Side {
    driver: LinkDriver,
    facts: mpsc::Receiver<Fact>,
    me: Arc<Identity>,
    address: SocketAddr,
}

impl Side {
    fn new(me: Arc<Identity>, peer: SocketAddr) -> Self {
        Self::with_clock(me, peer, WallClock::system())
    }

    fn with_clock(me: Arc<Identity>, peer: SocketAddr, wall_clock: WallClock) -> Self {
        let listener = LinkDriver::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, facts) = mpsc::channel(64);
        let settings = LinkSettings {
            peer: peer.to_string(),
            me: me.clone(),
            dial_timeout: Duration::from_millis(500),
            security: None,
            wall_clock,
        };
        let driver = LinkDriver::start(settings, listener, sender, mpsc::channel(1).0).unwrap();
        Self { driver, facts, me, address }
    }

    fn dial(&mut self) {
        self.driver.dial(says(&self.me));
    }

    async fn fact(&mut self) -> Fact {
        tokio::time::timeout(GENEROUS, self.facts.recv()).await.expect("no fact came").unwrap()
    }

    /// The next fact that is not about clocks.
    async fn news(&mut self) -> Fact {
        loop {
            let fact = self.fact().await;
            if !matches!(fact, Fact::ClockMeasured { .. }) {
                return fact;
            }
        }
    }

    /// The next fact, after `Dial`.
    async fn dialled(&mut self) -> Fact {
        self.dial();
        self.news().await
    }

    /// Sends a ping and waits for its answer.
    async fn ping(&mut self, number: u64) -> Statement {
        self.driver.send_ping(number, says(&self.me));
        loop {
            if let Fact::PingAnswered { number: answered, statement } = self.fact().await {
                assert_eq!(answered, number);
                return statement;
            }
        }
    }

    /// From now on a task of its own answers the peer; what else happens can be read.
    fn answering(mut self) -> Peer {
        let (tell, seen) = mpsc::unbounded_channel();
        let address = self.address;
        let (close, mut closing) = mpsc::channel::<()>(1);
        let task = tokio::spawn(async move {
            loop {
                let fact = tokio::select! {
                    fact = self.facts.recv() => fact.expect("the driver holds a sender"),
                    Some(()) = closing.recv() => {
                        self.driver.close_listener().await;
                        continue;
                    }
                };
                if let Fact::PeerAsked { connection, number, .. } = &fact {
                    self.driver.answer_peer(*connection, *number, says(&self.me));
                }
                if tell.send((fact, self.driver.connections())).is_err() {
                    return;
                }
            }
        });
        Peer { task, seen, address, close }
    }
}

struct Peer {
    task: JoinHandle<()>,
    seen: UnboundedReceiver<(Fact, usize)>,
    address: SocketAddr,
    close: mpsc::Sender<()>,
}

impl Peer {
    async fn fact(&mut self) -> Fact {
        let seen = tokio::time::timeout(GENEROUS, self.seen.recv()).await;
        seen.expect("no fact came").unwrap().0
    }

    /// As when its process dies: every socket is closed.
    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn nowhere() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

fn bytes_of(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode(frame, &mut bytes);
    bytes
}

fn hello_of(identity: &Arc<Identity>) -> BytesMut {
    bytes_of(&Frame::Hello { statement: says(identity) })
}

/// Reads off the runtime's thread until the other side closes.
async fn all_that_comes(mut stream: StdStream) -> Vec<u8> {
    tokio::task::spawn_blocking(move || {
        stream.set_read_timeout(Some(GENEROUS)).unwrap();
        let mut all = Vec::new();
        let mut some = [0; 4_096];
        loop {
            match stream.read(&mut some) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&some[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("not closed in time: {error}"),
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_peer_of_our_pair_welcomes_us_and_answers_pings() {
    let mut peer = Side::new(identity("trade", "b"), nowhere()).answering();
    let mut us = Side::new(identity("trade", "a"), peer.address);
    let Fact::LinkOpened { statement } = us.dialled().await else { panic!("no welcome") };
    assert_eq!(statement, says(&identity("trade", "b")));
    for number in 1..=5 {
        assert_eq!(us.ping(number).await, statement);
    }
    for number in 0..=5 {
        let Fact::PeerAsked { number: asked, statement, .. } = peer.fact().await else {
            panic!("the peer hears the hello and the pings, nothing else");
        };
        assert_eq!((asked, statement), (number, says(&us.me)));
    }
}

#[tokio::test]
async fn each_answer_measures_the_clocks() {
    let (ours, theirs) = (WallClock::of(|| 1_000_000), WallClock::of(|| 1_004_200));
    let peer = Side::with_clock(identity("trade", "b"), nowhere(), theirs).answering();
    let mut us = Side::with_clock(identity("trade", "a"), peer.address, ours);
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    us.ping(1).await;
    assert_eq!(us.fact().await, Fact::ClockMeasured { offset_ms: 4_200, round_trip_ms: 0 });
}

#[tokio::test]
async fn a_dead_peer_is_a_fin_and_then_three_refusals_at_once() {
    let mut took_us = Vec::new();
    for _ in 0..50 {
        let peer = Side::new(identity("trade", "b"), nowhere()).answering();
        let mut us = Side::new(identity("trade", "a"), peer.address);
        assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
        us.ping(1).await;
        peer.die().await;
        let died = Instant::now();
        assert_eq!(us.news().await, Fact::LinkEnded { how: LinkEnd::Fin });
        for _ in 0..3 {
            assert_eq!(us.dialled().await, Fact::DialFailed { how: DialFailure::Refused });
        }
        took_us.push(died.elapsed().as_micros());
    }
    took_us.sort_unstable();
    let (median, worst) = (took_us[25], took_us[49]);
    println!("FIN and three refusals: median {median} us, worst {worst} us");
    assert!(median < 20_000, "{took_us:?}");
}

#[tokio::test]
async fn a_reset_is_told_apart_from_a_fin() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let mut us = Side::new(identity("trade", "a"), listener.local_addr().unwrap());
    let peer = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let welcome = Frame::Welcome { statement: says(&identity("trade", "b")) };
        stream.write_all(&bytes_of(&welcome)).unwrap();
        // What was not read when a socket closes makes the kernel reset the connection.
        stream.peek(&mut [0; 1]).unwrap();
    });
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    peer.await.unwrap();
    assert_eq!(us.fact().await, Fact::LinkEnded { how: LinkEnd::Reset });
}

#[tokio::test]
async fn a_peer_that_is_frozen_is_silent() {
    let frozen = StdListener::bind("127.0.0.1:0").unwrap();
    let mut us = Side::new(identity("trade", "a"), frozen.local_addr().unwrap());
    assert_eq!(us.dialled().await, Fact::DialFailed { how: DialFailure::TimedOut });
}

#[tokio::test]
async fn a_connection_that_ends_before_the_welcome_is_an_early_end() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let mut us = Side::new(identity("trade", "a"), listener.local_addr().unwrap());
    let peer = std::thread::spawn(move || drop(listener.accept().unwrap()));
    assert_eq!(us.dialled().await, Fact::DialFailed { how: DialFailure::EndedEarly });
    peer.join().unwrap();
}

#[tokio::test]
async fn a_name_that_cannot_be_found_is_unreachable() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let (sender, mut facts) = mpsc::channel(4);
    let me = identity("trade", "a");
    let settings = LinkSettings {
        peer: "no-such-host.invalid:7202".to_owned(),
        me: me.clone(),
        dial_timeout: Duration::from_millis(500),
        security: None,
        wall_clock: WallClock::system(),
    };
    let mut driver = LinkDriver::start(settings, listener, sender, mpsc::channel(1).0).unwrap();
    driver.dial(says(&me));
    let fact = tokio::time::timeout(GENEROUS, facts.recv()).await.unwrap();
    assert_eq!(fact, Some(Fact::DialFailed { how: DialFailure::Unreachable }));
}

#[tokio::test]
async fn a_dial_that_was_overtaken_says_nothing() {
    let frozen = StdListener::bind("127.0.0.1:0").unwrap();
    let mut us = Side::new(identity("trade", "a"), frozen.local_addr().unwrap());
    us.dial();
    tokio::time::sleep(Duration::from_millis(100)).await;
    us.dial();
    assert_eq!(us.fact().await, Fact::DialFailed { how: DialFailure::TimedOut });
    us.dial();
    us.driver.drop_link();
    let more = tokio::time::timeout(Duration::from_secs(1), us.facts.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn another_pair_is_turned_away_and_both_sides_hear_of_it() {
    let mut peer = Side::new(identity("books", "b"), nowhere()).answering();
    let mut us = Side::new(identity("trade", "a"), peer.address);
    let who = "node b of pair books at 127.0.0.1".to_owned();
    assert_eq!(us.dialled().await, Fact::StrangerMet { who });
    assert_eq!(us.fact().await, Fact::DialFailed { how: DialFailure::Rejected });
    let who = "node a of pair trade at 127.0.0.1".to_owned();
    assert_eq!(peer.fact().await, Fact::StrangerMet { who });
}

#[tokio::test]
async fn a_twin_is_let_in_so_that_the_core_can_see_it() {
    let mut peer = Side::new(identity("trade", "a"), nowhere()).answering();
    let mut us = Side::new(identity("trade", "a"), peer.address);
    let Fact::LinkOpened { statement } = us.dialled().await else { panic!("turned away") };
    assert_eq!(statement.identity.incarnation.node.as_str(), "a");
    assert!(matches!(peer.fact().await, Fact::PeerAsked { number: 0, .. }));
}

#[tokio::test]
async fn another_version_is_refused_with_a_sentence() {
    let peer = Side::new(identity("trade", "b"), nowhere()).answering();
    let mut stream = StdStream::connect(peer.address).unwrap();
    let body = br#"{"magic":"hotpair","version":2}"#;
    stream.write_all(&[0, 0, 0, u8::try_from(body.len() + 1).unwrap(), 1]).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = BytesMut::from(&all_that_comes(stream).await[..]);
    let Some(Frame::Reject(rejection)) = decode(&mut answer).unwrap() else { panic!("no reject") };
    assert_eq!(rejection.reason, RejectReason::Version);
    assert!(rejection.text.contains("speaks version 2"), "{}", rejection.text);
}

#[tokio::test]
async fn garbage_is_turned_away_and_the_peer_does_not_notice() {
    let mut peer = Side::new(identity("trade", "b"), nowhere()).answering();
    let garbage: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &[0, 0, 0, 0], &[0, 0, 0, 3, 1, b'{', b'}']];
    for bytes in garbage {
        let mut stream = StdStream::connect(peer.address).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = BytesMut::from(&all_that_comes(stream).await[..]);
        assert!(matches!(decode(&mut answer), Ok(Some(Frame::Reject(_)))), "{bytes:?}");
    }
    let mut us = Side::new(identity("trade", "a"), peer.address);
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    assert!(matches!(peer.fact().await, Fact::PeerAsked { number: 0, .. }));
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_the_peer_out() {
    let mut peer = Side::new(identity("trade", "b"), nowhere()).answering();
    let mut us = Side::new(identity("trade", "a"), peer.address);
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    let mut silent = Vec::new();
    for number in 1..=100 {
        silent.push(StdStream::connect(peer.address).unwrap());
        us.ping(number).await;
    }
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }), "and a new dial gets in");
    us.ping(101).await;
    while let Ok((_, connections)) = peer.seen.try_recv() {
        assert!(connections <= CONNECTIONS_MAX, "{connections}");
    }
}

#[tokio::test]
async fn half_a_hello_is_closed_in_time() {
    let peer = Side::new(identity("trade", "b"), nowhere()).answering();
    let mut stream = StdStream::connect(peer.address).unwrap();
    let hello = hello_of(&identity("trade", "a"));
    stream.write_all(&hello[..hello.len() / 2]).unwrap();
    let began = Instant::now();
    assert_eq!(all_that_comes(stream).await, b"");
    assert!(began.elapsed() >= HELLO_WITHIN - Duration::from_millis(100));
}

#[tokio::test]
async fn a_hello_whose_sender_has_hung_up_is_not_passed_on() {
    let mut side = Side::new(identity("trade", "b"), nowhere());
    for _ in 0..5 {
        let mut stream = StdStream::connect(side.address).unwrap();
        stream.write_all(&hello_of(&identity("trade", "a"))).unwrap();
    }
    let heard = tokio::time::timeout(Duration::from_millis(300), side.facts.recv()).await;
    assert!(heard.is_err(), "{heard:?}");
    assert_eq!(side.driver.connections(), 0);
}

#[tokio::test]
async fn a_flood_of_pings_ends_its_connection_only() {
    let peer = Side::new(identity("trade", "b"), nowhere()).answering();
    let mut us = Side::new(identity("trade", "a"), peer.address);
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    let mut flood = StdStream::connect(peer.address).unwrap();
    flood.write_all(&hello_of(&identity("trade", "a"))).unwrap();
    let statement = says(&identity("trade", "a"));
    let ping = bytes_of(&Frame::Ping { number: 1, sent_ms: 0, statement });
    flood.write_all(&ping.repeat(1_000)).unwrap();
    us.ping(1).await;
    let answers = all_that_comes(flood).await.len();
    assert!(answers > 0 && answers < 500 * ping.len(), "{answers} bytes of answers");
    us.ping(2).await;
}

#[tokio::test]
async fn a_control_loop_that_is_behind_makes_the_peer_wait_and_nothing_grow() {
    let mut side = Side::new(identity("trade", "b"), nowhere());
    let mut askers: Vec<StdStream> = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = StdStream::connect(side.address).unwrap();
        stream.write_all(&hello_of(&identity("trade", "a"))).unwrap();
        askers.push(stream);
    }
    for _ in 0..CONNECTIONS_MAX {
        let fact = tokio::time::timeout(GENEROUS, side.facts.recv()).await.unwrap();
        assert!(matches!(fact, Some(Fact::PeerAsked { number: 0, .. })));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let more = side.facts.try_recv();
    assert!(more.is_err(), "one question a connection, however long it takes: {more:?}");
}

#[tokio::test]
async fn once_the_listener_is_closed_dials_are_refused_while_links_go_on() {
    let peer = Side::new(identity("trade", "b"), nowhere()).answering();
    let mut us = Side::new(identity("trade", "a"), peer.address);
    let mut late = Side::new(identity("trade", "a"), peer.address);
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    peer.close.send(()).await.unwrap();
    us.ping(1).await;
    assert_eq!(late.dialled().await, Fact::DialFailed { how: DialFailure::Refused });
    us.ping(2).await;
}

#[tokio::test]
async fn a_storm_of_garbage_does_not_keep_answers_waiting() {
    let peer = Side::new(identity("trade", "b"), nowhere()).answering();
    let mut us = Side::new(identity("trade", "a"), peer.address);
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    let until = Instant::now() + Duration::from_secs(1);
    let address = peer.address;
    let storm = std::thread::spawn(move || {
        let mut connections = 0;
        while Instant::now() < until {
            let hurry = Duration::from_millis(5); // a full queue would hold the storm for a second
            if let Ok(mut stream) = StdStream::connect_timeout(&address, hurry) {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                connections += 1;
            }
        }
        connections
    });
    let mut took = Vec::new();
    while Instant::now() < until {
        let asked = Instant::now();
        us.ping(took.len() as u64 + 1).await;
        took.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let connections = storm.join().unwrap();
    took.sort_unstable();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{connections} garbage connections in 1 s: ping median {median:?}, worst {worst:?}");
    assert!(worst < Duration::from_millis(200), "within the time-out of a ping: {took:?}");
}

#[tokio::test]
async fn a_peer_that_answers_what_was_not_asked_is_lost() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let mut us = Side::new(identity("trade", "a"), listener.local_addr().unwrap());
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let statement = says(&identity("trade", "b"));
        let welcome = bytes_of(&Frame::Welcome { statement: statement.clone() });
        let times = Times { sent_ms: 0, received_ms: 0, answered_ms: 0 };
        let answer = bytes_of(&Frame::Answer { number: 1, times, statement });
        // The other side hangs up half-way.
        let _ = stream.write_all(&welcome).and_then(|()| stream.write_all(&answer.repeat(5_000)));
    });
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    let mut answers = 0;
    loop {
        match us.news().await {
            Fact::PingAnswered { .. } => answers += 1,
            other => break assert_eq!(other, Fact::LinkEnded { how: LinkEnd::Lost }),
        }
    }
    assert!(answers <= 400, "{answers}");
    peer.join().unwrap();
}
