use std::collections::BTreeMap;
use std::sync::Mutex;

use hotpair_core::services::governed::Members;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::{Check, Writing};

const LONG: Duration = Duration::from_secs(20);

/// Rows in memory, as two nodes would have them. What is written while they are `slow` is there once
/// somebody lets it be.
#[derive(Debug, Default)]
struct Rows {
    rows: Mutex<BTreeMap<String, Vec<u8>>>,
    slow: Mutex<Option<watch::Receiver<bool>>>,
}

#[derive(Debug)]
struct Shared(Arc<Rows>);

impl Records for Shared {
    fn row(&self, service: &str) -> Option<Vec<u8>> {
        self.0.rows.lock().unwrap().get(service).cloned()
    }

    fn write(&self, _: Epoch, service: &str, row: Vec<u8>) -> Writing {
        let (rows, slow) = (Arc::clone(&self.0), self.0.slow.lock().unwrap().clone());
        let service = service.to_owned();
        Box::pin(async move {
            if let Some(mut slow) = slow {
                slow.wait_for(|goes_on| *goes_on).await.unwrap();
            }
            rows.rows.lock().unwrap().insert(service, row);
            Ok(())
        })
    }
}

/// A server that accepts and keeps nobody; ends when aborted.
async fn server(address: &str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, tokio::spawn(async move { while listener.accept().await.is_ok() {} }))
}

struct Node {
    governor: Governor,
    serving: watch::Sender<Option<Epoch>>,
}

fn node(rows: &Arc<Rows>, primary: &str, standby: &str) -> Node {
    let members = Members { primary: primary.parse().unwrap(), standby: standby.parse().unwrap() };
    let settings = ServiceSettings {
        name: "gyro".into(),
        members,
        check: Check::Tcp,
        interval: Duration::from_millis(30),
        proxy: None,
    };
    let (serving, served) = watch::channel(None);
    let records = Arc::new(Shared(Arc::clone(rows)));
    Node { governor: Governor::start(vec![settings], &served, records), serving }
}

impl Node {
    async fn eventually(&self, what: &str, is: impl Fn(&ServiceStatus) -> bool) -> ServiceStatus {
        let seen = async {
            loop {
                let status = self.governor.list().services.remove(0);
                if is(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = timeout(LONG, seen).await;
        seen.unwrap_or_else(|_| panic!("{what}: {:?}", self.governor.list()))
    }

    async fn active(&self, member: &str) -> ServiceStatus {
        self.eventually(member, |status| status.active.as_deref() == Some(member)).await
    }
}

fn activate(member: &str) -> ServiceBody {
    ServiceBody { active: Some(member.into()), ..ServiceBody::default() }
}

#[tokio::test]
async fn the_standby_steps_in_and_stays_also_for_the_next_master() {
    let ((a, first), (b, _second)) = (server("127.0.0.1:0").await, server("127.0.0.1:0").await);
    let rows = Arc::<Rows>::default();
    let (one, other) = (node(&rows, &a, &b), node(&rows, &a, &b));
    let idle = other.governor.list().services.remove(0);
    assert_eq!((idle.governing, idle.active, idle.members[0].checks), (false, None, 0));
    one.serving.send_replace(Some(Epoch(3)));
    let status = one.active("primary").await;
    assert_eq!(
        (status.active_address.as_ref(), status.policy.as_str()),
        (Some(&a), "active-standby")
    );
    first.abort();
    let status = one.active("standby").await;
    assert!(status.why.starts_with("the primary failed: cannot connect"), "{}", status.why);
    assert_eq!(status.members[0].health, "down");
    let (_, _first) = server(&a).await;
    one.eventually("the primary is up", |status| status.members[0].health == "up").await;
    assert_eq!(one.active("standby").await.members[0].failed, 0);
    // What the other node shows before it serves, and does when it does.
    assert_eq!(other.governor.list().services[0].active.as_deref(), Some("standby"));
    one.serving.send_replace(None);
    other.serving.send_replace(Some(Epoch(4)));
    let status = other
        .eventually("both are checked", |status| {
            status.members.iter().all(|member| member.health == "up")
        })
        .await;
    assert_eq!(status.active.as_deref(), Some("standby"));
    let ended = one.eventually("it is over", |status| !status.governing).await;
    assert_eq!((ended.why.as_str(), ended.since_ms), ("this node does not serve", None));
}

#[tokio::test]
async fn orders_are_carried_out_or_refused_with_the_reason() {
    let ((a, _first), (b, _second)) = (server("127.0.0.1:0").await, server("127.0.0.1:0").await);
    let node = node(&Arc::default(), &a, &b);
    let refused = node.governor.order("gyro", &activate("standby")).await.unwrap_err();
    assert_eq!(refused, OrderError::Refused(OrderRefused::NotServing));
    node.serving.send_replace(Some(Epoch(1)));
    node.eventually("both are up", |status| status.members.iter().all(|m| m.health == "up")).await;
    node.active("primary").await;
    let said = node.governor.order("gyro", &activate("standby")).await.unwrap();
    assert_eq!(said, format!("gyro: primary {a}, standby {b}, active: standby"));
    node.governor.order("gyro", &activate(&a)).await.unwrap();
    assert_eq!(node.active("primary").await.why, "an operator ordered it");
    let order = async |body: ServiceBody| node.governor.order("gyro", &body).await.unwrap_err();
    let unknown = node.governor.order("giro", &activate("standby")).await.unwrap_err();
    assert_eq!(unknown, OrderError::NoService("giro".into()));
    let policy = ServiceBody { policy: Some("random".into()), ..ServiceBody::default() };
    assert!(order(policy).await.to_string().contains("there is only \"active-standby\""));
    assert!(order(activate("third")).await.to_string().contains("write primary, standby or"));
    let alike = ServiceBody { standby: Some(a.clone()), ..ServiceBody::default() };
    assert!(order(alike).await.to_string().contains("would both be"));
}

#[tokio::test]
async fn a_row_written_while_this_node_did_not_serve_is_what_it_goes_on_with() {
    let ((a, _first), (b, _second)) = (server("127.0.0.1:0").await, server("127.0.0.1:0").await);
    let rows = Arc::<Rows>::default();
    let node = node(&rows, &a, &b);
    node.serving.send_replace(Some(Epoch(1)));
    node.eventually("both are up", |status| status.members.iter().all(|m| m.health == "up")).await;
    node.active("primary").await;
    let (go_on, slow) = watch::channel(false);
    *rows.slow.lock().unwrap() = Some(slow);
    let governor = node.governor.clone();
    let order = tokio::spawn(async move { governor.order("gyro", &activate("standby")).await });
    node.eventually("it is being written", |status| status.why.contains("written")).await;
    // A switch that is undone: the gate closes and opens again, in the same epoch.
    node.serving.send_replace(None);
    let ended = order.await.unwrap().unwrap_err();
    assert_eq!(ended, OrderError::Refused(OrderRefused::Ended));
    node.serving.send_replace(Some(Epoch(1)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!node.governor.list().services[0].governing, "what is recorded is not known yet");
    go_on.send_replace(true);
    let status = node.eventually("it governs", |status| status.governing).await;
    assert_eq!(status.active.as_deref(), Some("standby"));
}
