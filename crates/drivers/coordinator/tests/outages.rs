//! What a node sees when its server goes, freezes or comes back.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may fail and tell

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use hotpair_coordinator::Farewell;
use hotpair_core::pair::effect::ZooKeeperRequest;
use hotpair_core::pair::fact::{Answer, LookTrouble, ZooKeeperEvent};
use hotpair_core::pair::identity::Epoch;
use support::{Node, Server, T, identity, settings};

#[tokio::test]
async fn after_a_server_restart_the_same_session_is_back_and_a_look_arms_the_watch() {
    let mut server = Server::start();
    let servers = [server.address];
    let mut a = Node::patient(&servers, "A", 1).await;
    let mut b = Node::patient(&servers, "B", 2).await;
    let (epoch, epoch_version) = a.become_master().await;
    let before = b.look().await.master.expect("A's");
    server.kill();
    a.until_is(&ZooKeeperEvent::Disconnected).await;
    b.until_is(&ZooKeeperEvent::Disconnected).await;
    // Cut off, every order has its answer: that there is none.
    assert_eq!(a.heartbeat(epoch, epoch_version).await, Answer::Ambiguous);
    assert_eq!(b.claim(epoch + 1, epoch_version, Some(0)).await, Answer::Ambiguous);
    let (reason, trouble) = b.look_fails().await;
    assert_eq!(trouble, LookTrouble::NoAnswer);
    assert!(reason.contains("connection"), "{reason}");
    server.start_again();
    a.until_is(&ZooKeeperEvent::Reconnected).await;
    b.until_is(&ZooKeeperEvent::Reconnected).await;
    let after = b.look().await.master.expect("A's still");
    assert_eq!((after.owner, after.created), (before.owner, before.created));
    assert_eq!(after.version, before.version, "no request of the outage was carried out later");
    assert_eq!(a.heartbeat(epoch, epoch_version).await, Answer::Done { epoch_version });
    b.until_is(&ZooKeeperEvent::MasterChanged { gone: false }).await;
}

#[tokio::test]
async fn a_frozen_server_is_noticed_in_time_and_what_was_under_way_is_ambiguous() {
    let server = Server::start();
    let mut node = Node::on(&server, "A", 1).await;
    let (epoch, epoch_version) = node.become_master().await;
    for round in 0..3 {
        server.freeze();
        let frozen = Instant::now();
        node.order(ZooKeeperRequest::Heartbeat { epoch: Epoch(epoch), epoch_version });
        node.order(ZooKeeperRequest::Look);
        // In whatever order.
        let (mut cut, mut ambiguous, mut failed) = (false, false, false);
        while !(cut && ambiguous && failed) {
            match node.event().await {
                ZooKeeperEvent::Disconnected => {
                    let noticed = frozen.elapsed();
                    assert!(
                        noticed < T * 2 / 3,
                        "round {round}: silence noticed after {noticed:?}"
                    );
                    cut = true;
                }
                ZooKeeperEvent::HeartbeatAnswered { answer, .. } => {
                    assert_eq!(answer, Answer::Ambiguous);
                    ambiguous = true;
                }
                ZooKeeperEvent::LookFailed { trouble, .. } => {
                    assert_eq!(trouble, LookTrouble::NoAnswer);
                    failed = true;
                }
                // The heartbeat of the round before, carried out after all.
                ZooKeeperEvent::MasterChanged { gone: false } => {}
                other => panic!("{other:?} is not expected of a frozen server"),
            }
        }
        server.thaw();
        node.until_is(&ZooKeeperEvent::Reconnected).await;
        node.look().await;
    }
    assert_eq!(node.heartbeat(epoch, epoch_version).await, Answer::Done { epoch_version });
}

#[tokio::test]
async fn an_expired_session_is_told_by_the_server_when_it_is_back() {
    let server = Server::start();
    let mut a = Node::new(settings(&[server.address]), identity("A", 1));
    let old = a.open().await;
    let (epoch, epoch_version) = a.become_master().await;
    server.freeze();
    a.until_is(&ZooKeeperEvent::Disconnected).await;
    tokio::time::sleep(T * 5 / 4).await; // the server's clock runs on while it is frozen
    server.thaw();
    // Depending on who is faster, the session is back for a moment or over at once.
    let ended = |event| match event {
        ZooKeeperEvent::SessionEnded { reason } => Some(Some(reason)),
        ZooKeeperEvent::Reconnected => Some(None),
        _ => None,
    };
    if let Some(reason) = a.until(ended).await {
        assert!(reason.contains("expired"), "{reason}");
        assert_ne!(a.open().await, old);
        // Whether the server got to remove the znode or not, the way on is open.
        let picture = a.look().await;
        assert_eq!(picture.epoch.version, epoch_version);
        let replace = picture.master.map(|master| master.version);
        let answer = a.claim(epoch + 1, epoch_version, replace).await;
        assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    }
}

#[tokio::test]
async fn a_wiped_server_ends_the_session_and_shows_another_cluster() {
    let mut server = Server::start();
    let mut node = Node::on(&server, "A", 1).await;
    node.become_master().await;
    let cluster = node.look().await.cluster;
    server.kill();
    server.wipe();
    server.start_again();
    let reason = node
        .until(|event| match event {
            ZooKeeperEvent::SessionEnded { reason } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("expired"), "{reason}");
    node.open().await;
    let picture = node.look().await;
    assert_ne!(picture.cluster, cluster);
    assert_eq!((picture.epoch.epoch, picture.master), (Epoch(0), None));
}

#[tokio::test]
async fn a_server_that_never_answers_does_not_keep_the_others_from_being_tried() {
    let server = Server::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap(); // accepts in its backlog, says nothing
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = free.local_addr().unwrap();
    drop(free);
    for name in ["A", "B", "C", "D", "E", "F"] {
        let servers = [silent.local_addr().unwrap(), closed, server.address];
        let mut node = Node::new(settings(&servers), identity(name, 1));
        let started = Instant::now();
        node.open().await;
        let took = started.elapsed();
        assert!(took < T / 3 + Duration::from_secs(1), "{took:?}");
        node.look().await;
    }
}

#[tokio::test]
async fn without_any_server_the_failure_names_them_and_the_next_order_tries_again() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = free.local_addr().unwrap();
    drop(free);
    let mut node = Node::new(settings(&[closed]), identity("A", 1));
    for _ in 0..3 {
        node.order_session();
        let reason = node
            .until(|event| match event {
                ZooKeeperEvent::ConnectFailed { reason } => Some(reason),
                _ => None,
            })
            .await;
        assert!(reason.contains(&closed.to_string()), "{reason}");
    }
    let mut none = Node::new(settings(&[]), identity("A", 1));
    none.order_session();
    let event = none.event().await;
    assert!(matches!(event, ZooKeeperEvent::ConnectFailed { .. }), "{event:?}");
}

#[tokio::test]
async fn a_farewell_without_a_server_is_bounded() {
    let mut server = Server::start();
    let mut node = Node::on(&server, "A", 1).await;
    node.look().await;
    server.freeze();
    let started = Instant::now();
    let farewell = node.driver.close(Duration::from_millis(500)).await;
    assert!(matches!(farewell, Farewell::LeftToExpire { .. }), "{farewell:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    server.thaw();
    server.kill();
    let mut cut = Node::new(settings(&[server.address]), identity("B", 1));
    cut.order_session();
    let farewell = cut.driver.close(Duration::from_millis(500)).await;
    assert_eq!(farewell, Farewell::NoSession);
}

#[tokio::test]
async fn a_dropped_driver_ends_its_thread_and_leaves_the_session_to_expire() {
    let mut server = Server::start();
    let mut attached = Node::on(&server, "A", 1).await;
    attached.become_master().await;
    let mut detached = Node::on(&server, "B", 2).await;
    attached.drop_driver().await;
    let client = server.client().await;
    assert!(client.check_stat("/hotpair/pair/master").await.unwrap().is_some());
    server.kill();
    detached.until_is(&ZooKeeperEvent::Disconnected).await;
    detached.drop_driver().await;
    Node::new(settings(&[server.address]), identity("C", 3)).drop_driver().await;
}
