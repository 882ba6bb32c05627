//! A node that does what a test wants of it, and a whole router before two of them, in this process.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotpair_http::{
    Counters, Handler, Limits, Pool, PoolLimits, Refusal, Request, Response, StatusCode, client,
};
use hotpair_protocol::Role;
use hotpair_router::fact::NodeIndex;
use hotpair_router::{Desk, Follower, Front, Meters, Settings, follow};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// Longer than anything takes that comes at all.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What a node does with what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers.
    Done,
    /// Never answers.
    Hang,
    /// Says that it does not serve, and that nothing was done.
    Refuse,
    /// Answers what no node would.
    Nonsense,
}

/// A node.
pub(crate) struct FakeNode {
    pub(crate) client: SocketAddr,
    pub(crate) admin: SocketAddr,
    says: watch::Sender<Role>,
    door: Arc<Door>,
}

struct Door {
    behaviour: watch::Sender<Behaviour>,
    epoch: watch::Receiver<Role>,
    /// The numbers that were asked for, in order.
    asked: Mutex<Vec<u64>>,
}

struct Office(watch::Receiver<Role>);

impl FakeNode {
    pub(crate) fn start(name: &str) -> Self {
        let role = Role {
            pair: "trade".to_owned(),
            node: name.to_owned(),
            role: "standby".to_owned(),
            cluster: Some("c".to_owned()),
            ..Role::default()
        };
        let (says, heard) = watch::channel(role);
        let door = Arc::new(Door {
            behaviour: watch::Sender::new(Behaviour::Done),
            epoch: heard.clone(),
            asked: Mutex::default(),
        });
        let client = serve(Arc::clone(&door), Limits::client());
        let admin = serve(Arc::new(Office(heard)), Limits::admin());
        Self { client, admin, says, door }
    }

    /// Says that it has this role now.
    pub(crate) fn become_role(&self, role: &str, epoch: u64) {
        self.says.send_modify(|says| {
            role.clone_into(&mut says.role);
            says.serving = role == "master";
            says.epoch = epoch;
        });
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        self.door.behaviour.send_replace(behaviour);
    }

    pub(crate) fn asked(&self) -> Vec<u64> {
        self.door.asked.lock().unwrap().clone()
    }
}

fn serve<H: Handler>(handler: Arc<H>, limits: Limits) -> SocketAddr {
    let listener = hotpair_http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(hotpair_http::serve(listener, limits, handler, Arc::default()));
    address
}

impl Handler for Door {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        self.asked.lock().unwrap().push(body["request"].as_u64().unwrap_or(0));
        let behaviour = *self.behaviour.borrow();
        let epoch = self.epoch.borrow().epoch;
        if request.path == "/v1/push" && behaviour == Behaviour::Done {
            return self.push(&request, epoch);
        }
        match behaviour {
            Behaviour::Done => envelope(0, epoch, &body),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Refuse => envelope(308_000_005, epoch, &json!({})),
            Behaviour::Nonsense => Response::text(StatusCode::OK, "hello"),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        Response::text(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
    }
}

impl Door {
    /// Says who asked and what he had; then what happens is a turn every now and then, for ever.
    fn push(&self, request: &Request, epoch: u64) -> Response {
        let (pieces, taken) = mpsc::channel(16);
        let bearer = request.bearer().unwrap_or_default();
        let last = request.headers.get("last-event-id").map_or("", |id| id.to_str().unwrap());
        let first = format!("event: role\ndata: {epoch} {bearer} {last}\n\n");
        tokio::spawn(async move {
            let mut piece = first;
            while pieces.send(piece.into()).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
                piece = "event: turn\ndata: 1\n\n".to_owned();
            }
        });
        Response::events(taken)
    }
}

fn envelope(error_no: i64, epoch: u64, data: &Value) -> Response {
    let text = format!(
        "{{\"error_no\":{error_no},\"error_info\":\"\",\"epoch\":{epoch},\"data\":{data}}}"
    );
    Response::json(StatusCode::OK, text)
}

impl Handler for Office {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        let role = |role: &Role| serde_json::to_string(role).unwrap();
        if request.path != "/events" {
            return Response::json(StatusCode::OK, role(&self.0.borrow()));
        }
        let (pieces, taken) = mpsc::channel(16);
        let mut heard = self.0.clone();
        tokio::spawn(async move {
            loop {
                let piece = format!("event: view\ndata: {}\n\n", role(&heard.borrow_and_update()));
                if pieces.send(piece.into()).await.is_err() || heard.changed().await.is_err() {
                    return;
                }
            }
        });
        Response::events(taken)
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        Response::text(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
    }
}

/// A router before two nodes.
pub(crate) struct Stage {
    pub(crate) a: FakeNode,
    pub(crate) b: FakeNode,
    pub(crate) router: SocketAddr,
    pub(crate) desk: Arc<Desk>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) meters: Arc<Meters>,
}

/// Bounds that nobody meets by chance.
pub(crate) fn settings() -> Settings {
    Settings {
        nodes: 2,
        planned_ms: 60_000,
        crash_ms: 60_000,
        held_bytes_max: 1 << 20,
        held_max: 100,
        requests_max: 200,
        bound_ms: 60_000,
        seed: 1,
    }
}

impl Stage {
    /// a serves epoch 1, and the router knows.
    pub(crate) async fn start(settings: Settings, limits: Limits) -> Self {
        let (a, b) = (FakeNode::start("a"), FakeNode::start("b"));
        a.become_role("master", 1);
        let nodes = [("a", &a), ("b", &b)];
        let pools =
            nodes.map(|(_, node)| Pool::new(&node.client.to_string(), PoolLimits::default()));
        let desk = Arc::new(Desk::new(settings, pools.into()));
        for (index, (name, node)) in nodes.into_iter().enumerate() {
            let follower = Follower {
                node: NodeIndex(index),
                name: name.to_owned(),
                pair: "trade".to_owned(),
                admin: format!("http://{}", node.admin),
                dialler: hotpair_http::Dialler::plain(),
                authorization: None,
            };
            tokio::spawn(follow(follower, Arc::clone(&desk)));
        }
        let timed = Arc::clone(&desk);
        tokio::spawn(async move { timed.keep_time().await });
        let (meters, counters) = (Arc::<Meters>::default(), Arc::<Counters>::default());
        let front = Arc::new(Front::new(Arc::clone(&desk), Arc::clone(&meters)));
        let listener = hotpair_http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let router = listener.local_addr().unwrap();
        tokio::spawn(hotpair_http::serve(listener, limits, front, Arc::clone(&counters)));
        let stage = Self { a, b, router, desk, counters, meters };
        stage.eventually("somebody serves", async || stage.ask(0).await.0 == 0).await;
        stage
    }

    /// A numbered call; its error number and its advice to wait.
    pub(crate) async fn ask(&self, number: u64) -> (i64, u64) {
        let body = json!({"session": "s", "request": number, "function": 9});
        self.post("/v1/call", body.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: String) -> (i64, u64) {
        post(self.router, path, body).await
    }

    /// Waits until so many requests are held.
    pub(crate) async fn holds(&self, count: usize) {
        let held = async || self.desk.look(|decider| decider.held().0) == count;
        self.eventually(&format!("{count} are held"), held).await;
    }

    pub(crate) async fn eventually(&self, what: &str, mut wish: impl AsyncFnMut() -> bool) {
        let waited = async {
            while !wish().await {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

pub(crate) async fn post(router: SocketAddr, path: &str, body: String) -> (i64, u64) {
    let answer = client::post_json(&format!("http://{router}{path}"), &[], body, LIMIT).await;
    let answer = answer.unwrap();
    let envelope: Value = serde_json::from_slice(&answer.body).unwrap();
    let retry_after_ms = envelope["retry_after_ms"].as_u64().unwrap_or(0);
    (envelope["error_no"].as_i64().unwrap(), retry_after_ms)
}
