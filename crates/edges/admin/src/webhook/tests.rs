use std::net::SocketAddr;
use std::sync::Mutex;

use hotpair_http::{
    Bytes, Counters, Door, Handler, Limits, Refusal, Request, Response, StatusCode, bind, serve,
};
use hotpair_tls::Acceptor;
use hotpair_tls::testing::Authority;
use tokio::time::timeout;

use super::*;
use crate::service::tests::snapshot;

const LONG: Duration = Duration::from_secs(20);

fn firing(name: AlertName, since_wall_ms: u64) -> AlertRecord {
    AlertRecord { name, text: format!("{name}!"), since_wall_ms, ended_wall_ms: None }
}

fn ended(name: AlertName, since_wall_ms: u64, at: u64) -> AlertRecord {
    AlertRecord { ended_wall_ms: Some(at), ..firing(name, since_wall_ms) }
}

fn check(outbox: &Outbox, wanted: &[AlertRecord]) {
    let records: Vec<_> = outbox.letters().into_iter().map(|letter| letter.record).collect();
    assert_eq!(records, wanted);
}

#[test]
fn an_alert_is_told_at_once_repeated_and_its_end_told_once() {
    let (start, repeat) = (Instant::now(), Duration::from_secs(30));
    let mut outbox = Outbox::new(repeat);
    let fires = firing(AlertName::NoMaster, 5);
    outbox.handle_alerts(std::slice::from_ref(&fires));
    assert!(outbox.is_due(start));
    outbox.handle_posted(&outbox.letters(), start);
    outbox.handle_alerts(std::slice::from_ref(&fires));
    assert!(!outbox.is_due(start + repeat / 2));
    assert_eq!(outbox.deadline(start), Some(start + repeat));
    assert!(outbox.is_due(start + repeat));
    let over = ended(AlertName::NoMaster, 5, 9);
    outbox.handle_alerts(std::slice::from_ref(&over));
    assert!(outbox.is_due(start));
    check(&outbox, std::slice::from_ref(&over));
    outbox.handle_posted(&outbox.letters(), start);
    // The record of what ended stays in `/alerts` for a while.
    outbox.handle_alerts(&[over]);
    check(&outbox, &[]);
    assert_eq!(outbox.deadline(start), None);
}

#[test]
fn a_new_firing_counts_more_than_the_end_of_an_old_one_in_whatever_order() {
    let (old, new) = (ended(AlertName::Flapping, 5, 9), firing(AlertName::Flapping, 20));
    for records in [[old.clone(), new.clone()], [new.clone(), old]] {
        let mut outbox = Outbox::new(LONG);
        outbox.handle_alerts(&records);
        check(&outbox, std::slice::from_ref(&new));
    }
}

#[test]
fn new_words_alone_wait_for_the_next_post() {
    let now = Instant::now();
    let mut outbox = Outbox::new(LONG);
    let mut record = firing(AlertName::ClockSkew, 5);
    outbox.handle_alerts(std::slice::from_ref(&record));
    outbox.handle_posted(&outbox.letters(), now);
    record.text = "more of it".into();
    outbox.handle_alerts(std::slice::from_ref(&record));
    assert!(!outbox.is_due(now));
    check(&outbox, &[record]);
}

#[test]
fn failures_are_tried_again_further_and_further_apart() {
    let now = Instant::now();
    let mut outbox = Outbox::new(LONG);
    outbox.handle_alerts(&[firing(AlertName::TwinNode, 5)]);
    for seconds in [1, 2, 4, 8, 16, 32, 32] {
        outbox.handle_failed(now);
        let next = now + Duration::from_secs(seconds);
        assert_eq!(outbox.deadline(now), Some(next));
        // A change does not make a dead webhook live.
        outbox.handle_alerts(&[firing(AlertName::NoMaster, 6)]);
        assert!(!outbox.is_due(next - Duration::from_millis(1)));
        assert!(outbox.is_due(next));
    }
    outbox.handle_posted(&outbox.letters(), now);
    outbox.handle_failed(now);
    assert_eq!(outbox.deadline(now), Some(now + LONG));
}

/// Takes alerts, after having refused some.
#[derive(Debug, Default)]
struct Alertmanager {
    refuse: Mutex<u32>,
    taken: Mutex<Vec<Vec<AlertmanagerAlert>>>,
}

impl Handler for Alertmanager {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        assert_eq!(request.path, "/api/v2/alerts");
        let mut refuse = self.refuse.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            return Response::text(StatusCode::INTERNAL_SERVER_ERROR, "no");
        }
        self.taken.lock().unwrap().push(serde_json::from_slice(&request.body).unwrap());
        Response::json(StatusCode::OK, Bytes::new())
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        Response::text(StatusCode::BAD_REQUEST, refusal.to_string())
    }
}

fn listen(alertmanager: &Arc<Alertmanager>, tls: Option<Acceptor>) -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let counters = Arc::<Counters>::default();
    let door = Door::new(listener, tls);
    tokio::spawn(serve(door, Limits::admin(), Arc::clone(alertmanager), counters));
    address
}

#[tokio::test]
async fn alertmanager_hears_of_an_alert_again_and_again_and_then_of_its_end() {
    let alertmanager = Arc::<Alertmanager>::default();
    *alertmanager.refuse.lock().unwrap() = 1;
    let address = listen(&alertmanager, None);
    let mut shown = snapshot();
    shown.alerts = vec![firing(AlertName::NoMaster, 1_700_000_000_123)];
    let (publish, snapshots) = watch::channel(Arc::new(shown.clone()));
    let settings = WebhookSettings {
        repeat: Duration::from_millis(50),
        ..WebhookSettings::new(&format!("http://{address}/api/v2/alerts"))
    };
    let webhook = tokio::spawn(Webhook::new(settings, snapshots).run());
    let taken = |count: usize| {
        let alertmanager = Arc::clone(&alertmanager);
        let wait = async move {
            while alertmanager.taken.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, wait)
    };
    taken(3).await.expect("told, and told again");
    let first = alertmanager.taken.lock().unwrap()[0][0].clone();
    let labels: Vec<_> = first.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let wanted = [("alertname", "no_master"), ("pair", "trade"), ("severity", "critical")];
    assert_eq!(labels, wanted);
    assert_eq!(first.starts_at, "2023-11-14T22:13:20.123000Z");
    assert_eq!(first.ends_at, None);
    shown.alerts = vec![ended(AlertName::NoMaster, 1_700_000_000_123, 1_700_000_001_000)];
    publish.send(Arc::new(shown)).unwrap();
    let told_the_end = async {
        loop {
            let last = alertmanager.taken.lock().unwrap().last().unwrap()[0].clone();
            if let Some(ends_at) = last.ends_at {
                break ends_at;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ends_at = timeout(LONG, told_the_end).await.expect("its end is told");
    assert_eq!(ends_at, "2023-11-14T22:13:21Z");
    drop(publish);
    timeout(LONG, webhook).await.expect("it ends with its node").unwrap();
}

#[tokio::test]
async fn an_alertmanager_of_https_is_told_if_it_is_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let server = authority.identity("alertmanager", &["127.0.0.1"]);
    let alertmanager = Arc::<Alertmanager>::default();
    let address = listen(&alertmanager, Some(server.server(&[]).unwrap()));
    let mut shown = snapshot();
    shown.alerts = vec![firing(AlertName::NoMaster, 5)];
    let (_publish, snapshots) = watch::channel(Arc::new(shown));
    let settings = |dialler| WebhookSettings {
        dialler,
        scheme: "https",
        ..WebhookSettings::new(&format!("https://{address}/api/v2/alerts"))
    };
    // Nobody vouches for it: nothing is said to it.
    let mut doubting = Webhook::new(settings(Dialler::plain()), snapshots.clone());
    let shown = Arc::clone(&snapshots.borrow());
    doubting.outbox.handle_alerts(&shown.alerts);
    doubting.post(&shown).await;
    assert_eq!((doubting.outbox.failures, alertmanager.taken.lock().unwrap().len()), (1, 0));
    let trusting = Dialler::with_tls(authority.trusting().client(&[]).unwrap());
    let webhook = tokio::spawn(Webhook::new(settings(trusting), snapshots).run());
    let taken = async {
        while alertmanager.taken.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, taken).await.expect("it is told");
    let first = alertmanager.taken.lock().unwrap()[0][0].clone();
    assert!(first.generator_url.starts_with("https://"), "{}", first.generator_url);
    webhook.abort();
}
