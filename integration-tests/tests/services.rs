//! Servers of other people behind a pair: who is led where when a member dies, comes back, is made
//! active by an operator, and when the pair's own master is killed.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hotpair_integration_tests::steps::{LIMIT, serves, settled, switch_over};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::http::Answer;
use hotpair_lab::node::{Node, Pair};
use hotpair_lab::port::Port;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};

/// A server that says its name to everybody who connects, and everything back after that.
struct Server {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(name: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let ended = Arc::<AtomicBool>::default();
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (stop, kept) = (Arc::clone(&ended), Arc::clone(&streams));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                thread::spawn(move || echo(name, stream));
            }
        });
        Self { address, ended, streams, thread: Some(thread) }
    }
}

fn echo(name: &str, mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    // Whoever checks whether the server is there hangs up at once.
    let _ = stream.write_all(name.as_bytes());
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

/// The server's end: its port is closed and all its connections are, as its kernel would do it.
impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the one that accepts.
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A connection through the front, and the name of the server at its end.
struct Client {
    stream: TcpStream,
    name: String,
}

impl Client {
    fn connect(front: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect_timeout(&front, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut name = [0; 1];
        stream.read_exact(&mut name)?;
        Ok(Self { stream, name: String::from_utf8_lossy(&name).into_owned() })
    }

    /// Once connections lead to this server.
    fn of(front: SocketAddr, name: &str) -> Self {
        eventually(LIMIT, &format!("connections lead to {name}"), || {
            let client = Self::connect(front)?;
            ensure!(client.name == name, "they lead to {}", client.name);
            Ok(client)
        })
        .unwrap()
    }

    fn says(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
        let mut back = vec![0; text.len()];
        self.stream.read_exact(&mut back).unwrap();
        assert_eq!(back, text.as_bytes());
    }

    /// It ends without a word of ours; how.
    fn is_cut(&mut self) -> Result<()> {
        match self.stream.read(&mut [0; 8]) {
            Ok(0) => Ok(()),
            Ok(count) => bail!("{count} bytes came"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error).context("the connection still stands"),
        }
    }
}

fn gyro(node: &Node) -> Result<Value> {
    let answer = node.admin().get_json("/services")?;
    answer["services"].get(0).cloned().with_context(|| format!("no service in {answer}"))
}

/// Waits until a node says so of the service.
fn until(node: &Node, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(LIMIT, what, || {
        let service = gyro(node)?;
        ensure!(is(&service), "{service}");
        Ok(service)
    })
    .unwrap()
}

fn order(node: &Node, body: &Value) -> Answer {
    // Longer than an order is waited for by the node.
    let admin = node.admin().with_limit(Duration::from_secs(30));
    admin.post("/services/gyro", body).unwrap()
}

struct Scene {
    _turn: Turn,
    _zookeeper: ZooKeeper,
    pair: Pair,
    front: SocketAddr,
    a: SocketAddr,
    b: SocketAddr,
    _ports: Vec<Port>,
}

impl Scene {
    /// A pair whose nodes have the same port in front of a service at two free ports; not started.
    fn new() -> Self {
        let turn = Turn::alone().unwrap();
        let zookeeper = ZooKeeper::standalone().unwrap();
        let ports: Vec<Port> = (0..3).map(|_| Port::reserve().unwrap()).collect();
        let [front, a, b] = [0, 1, 2].map(|index: usize| ports[index].address());
        let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
        for node in &mut pair.nodes {
            node.settings.more = format!(
                "[[services]]\nname = \"gyro\"\npolicy = \"active-standby\"\ncheck = \"tcp\"\n\
                 primary = \"{a}\"\nstandby = \"{b}\"\ninterval = \"200ms\"\nproxy = \"{front}\"\n"
            );
        }
        Self { _turn: turn, _zookeeper: zookeeper, pair, front, a, b, _ports: ports }
    }
}

#[test]
fn the_standby_steps_in_and_stays_until_an_operator_says_otherwise_also_over_a_kill_of_the_master()
{
    let mut scene = Scene::new();
    let (front, a) = (scene.front, scene.a);
    let primary = Server::start("a", a);
    let _standby = Server::start("b", scene.b);
    scene.pair.start().unwrap();
    let master = settled(&scene.pair).unwrap();
    let node = &scene.pair.nodes[master];

    // To the primary first.
    let mut first = Client::of(front, "a");
    first.says("roll");
    // The primary dies: who was there is cut, who comes is led to the standby.
    drop(primary);
    first.is_cut().unwrap();
    let mut second = Client::of(front, "b");
    let service = until(node, "the primary is down", |service| {
        service["members"][0]["health"] == "down" && service["active"] == "standby"
    });
    assert!(service["why"].as_str().unwrap().contains("the primary failed"), "{service}");
    let refused = order(node, &json!({"active": "primary"}));
    assert!(refused.status == 409 && refused.body.contains("is down"), "{refused:?}");

    // It comes back: nothing changes.
    let _primary = Server::start("a", a);
    let service = until(node, "the primary is up again", |service| {
        service["members"][0]["health"] == "up"
            && service["members"][0]["checks"].as_u64() > Some(8)
    });
    assert_eq!(service["active"], "standby", "{service}");
    second.says("pitch");

    // An operator moves it back: who was at the standby is cut though the standby is well.
    let done = order(node, &json!({"active": "primary"}));
    assert!(done.status == 200 && done.json().unwrap()["done"] == true, "{done:?}");
    second.is_cut().unwrap();
    Client::of(front, "a").says("yaw");
    let back = order(node, &json!({"active": "standby"}));
    assert_eq!(back.status, 200, "{back:?}");
    let mut third = Client::of(front, "b");
    third.says("roll");

    // The pair's master is killed: the next one has the same port and leads to the same member.
    assert_eq!(settled(&scene.pair).unwrap(), master);
    let other = 1 - master;
    let shown = gyro(&scene.pair.nodes[other]).unwrap();
    assert_eq!((&shown["active"], &shown["governing"]), (&json!("standby"), &json!(false)));
    let elsewhere = order(&scene.pair.nodes[other], &json!({"active": "primary"}));
    assert!(elsewhere.status == 409 && elsewhere.body.contains("does not serve"), "{elsewhere:?}");
    scene.pair.nodes[master].kill().unwrap();
    third.is_cut().unwrap();
    serves(&scene.pair, other).unwrap();
    let mut fourth =
        eventually(LIMIT, "the port is open again", || Client::connect(front)).unwrap();
    assert_eq!(fourth.name, "b");
    fourth.says("pitch");
    let service = until(&scene.pair.nodes[other], "both are up", |service| {
        service["members"].as_array().unwrap().iter().all(|member| member["health"] == "up")
    });
    assert_eq!(service["active"], "standby", "{service}");
}

#[test]
fn at_a_planned_switch_the_port_goes_over_and_leads_to_other_members_if_an_operator_named_others() {
    let mut scene = Scene::new();
    let front = scene.front;
    let (_a, _b) = (Server::start("a", scene.a), Server::start("b", scene.b));
    let port = Port::reserve().unwrap();
    let _c = Server::start("c", port.address());
    scene.pair.start().unwrap();
    let master = settled(&scene.pair).unwrap();
    let node = &scene.pair.nodes[master];
    let mut client = Client::of(front, "a");
    // The standby is replaced, and the new one made active once it is known to be up.
    let c = port.address().to_string();
    let replaced = order(node, &json!({"policy": "active-standby", "standby": c}));
    assert_eq!(replaced.status, 200, "{replaced:?}");
    client.says("roll");
    eventually(LIMIT, "the new standby can be made active", || {
        let done = order(node, &json!({"active": c}));
        ensure!(done.status == 200, "{done:?}");
        Ok(())
    })
    .unwrap();
    client.is_cut().unwrap();
    let mut client = Client::of(front, "c");
    client.says("pitch");

    assert_eq!(switch_over(&scene.pair).unwrap(), 1 - master);
    client.is_cut().unwrap();
    let other = &scene.pair.nodes[1 - master];
    let client = eventually(LIMIT, "the port is open again", || Client::connect(front)).unwrap();
    assert_eq!(client.name, "c");
    let service = until(other, "it governs", |service| service["governing"] == true);
    assert_eq!((&service["standby"], &service["active_address"]), (&json!(c), &json!(c)));
    let left = until(node, "the old master governs no more", |service| {
        service["proxy"]["listening"] == false && service["governing"] == false
    });
    assert_eq!(left["active_address"], json!(c), "{left}");
}

#[test]
fn a_master_that_was_frozen_cuts_its_connections_and_closes_its_port_when_it_wakes() {
    let mut scene = Scene::new();
    let (_a, _b) = (Server::start("a", scene.a), Server::start("b", scene.b));
    // A frozen process keeps its port: here each node has one of its own, as on two machines.
    let own = Port::reserve().unwrap();
    let fronts = [scene.front, own.address()];
    let more = &mut scene.pair.nodes[1].settings.more;
    *more = more.replace(&scene.front.to_string(), &own.address().to_string());
    scene.pair.start().unwrap();
    let master = settled(&scene.pair).unwrap();
    let other = 1 - master;
    let mut old = Client::of(fronts[master], "a");
    old.says("roll");
    assert!(Client::connect(fronts[other]).is_err(), "the standby's port is closed");
    scene.pair.nodes[master].freeze().unwrap();
    serves(&scene.pair, other).unwrap();
    Client::of(fronts[other], "a").says("pitch");
    scene.pair.nodes[master].thaw().unwrap();
    old.is_cut().unwrap();
    until(&scene.pair.nodes[master], "its port is closed", |service| {
        service["governing"] == false && service["proxy"]["listening"] == false
    });
    assert!(Client::connect(fronts[master]).is_err(), "the old master's port is closed");
    Client::of(fronts[other], "a").says("yaw");
}
