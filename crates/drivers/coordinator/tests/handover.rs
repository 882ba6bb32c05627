//! The handover on a real ZooKeeper: written by the master of the newest epoch only, checked by the
//! peer's claim, revoked by anybody else's.

#![allow(clippy::unwrap_used)] // a test may fail and tell

mod support;

use hotpair_core::pair::effect::ZooKeeperRequest;
use hotpair_core::pair::fact::{Answer, HandoverZnode, Refusal, ZooKeeperEvent};
use hotpair_core::pair::identity::{Epoch, NodeId};
use support::{Node, Server};

const PATH: &str = "/hotpair/pair/handover";

async fn hand_over(node: &mut Node, epoch: u64, epoch_version: i32, number: u64) -> Answer {
    let (epoch, to) = (Epoch(epoch), NodeId::new("B"));
    node.order(ZooKeeperRequest::HandOver { epoch, epoch_version, to, number });
    node.until(|event| match event {
        ZooKeeperEvent::HandedOver { epoch: of, answer } => {
            assert_eq!(of, epoch);
            Some(answer)
        }
        _ => None,
    })
    .await
}

#[tokio::test]
async fn the_peers_claim_after_a_handover_checks_its_version() {
    let server = Server::start();
    let (mut a, mut b) = (Node::on(&server, "A", 1).await, Node::on(&server, "B", 2).await);
    assert_eq!(*a.look().await.handover, HandoverZnode::default());
    let (epoch, epoch_version) = a.become_master().await;
    let before = b.look().await;
    let done = Answer::Done { epoch_version };
    assert_eq!(hand_over(&mut a, epoch, epoch_version, 103).await, done);
    let (text, _) = server.client().await.get_data(PATH).await.unwrap();
    let text: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&text["to"], &text["number"]), (&"B".into(), &103.into()), "{text}");
    // A claim that was decided on before the handover is refused, and nothing of it is done.
    let master = before.master.map(|master| master.version);
    let answer = b.claim(epoch + 1, before.epoch.version, master).await;
    assert_eq!(answer, Answer::Refused(Refusal::Handover));
    let seen = b.look().await;
    let to = Some(NodeId::new("B"));
    assert_eq!(*seen.handover, HandoverZnode { epoch: Epoch(epoch), to, number: 103, version: 1 });
    let answer = b.claim(epoch + 1, seen.epoch.version, master).await;
    assert_eq!(answer, Answer::Done { epoch_version: epoch_version + 1 });
    assert_eq!(b.look().await.handover.version, 1, "a check moves nothing");
    // Whoever is not master any more hands nothing over.
    let late = hand_over(&mut a, epoch, epoch_version, 104).await;
    assert_eq!(late, Answer::Refused(Refusal::Epoch));
}

#[tokio::test]
async fn a_claim_that_revokes_a_handover_moves_its_version() {
    let server = Server::start();
    let (mut a, mut b) = (Node::on(&server, "A", 1).await, Node::on(&server, "B", 2).await);
    let (epoch, epoch_version) = a.become_master().await;
    hand_over(&mut a, epoch, epoch_version, 9).await;
    let peers = b.look().await;
    let seen = a.look().await;
    a.handover.revoke = true;
    let master = seen.master.map(|master| master.version);
    let answer = a.claim(epoch + 1, seen.epoch.version, master).await;
    assert_eq!(answer, Answer::Done { epoch_version: epoch_version + 1 });
    let revoked = HandoverZnode { version: peers.handover.version + 1, ..HandoverZnode::default() };
    assert_eq!(*a.look().await.handover, revoked);
}

#[tokio::test]
async fn a_handover_znode_that_is_missing_is_made_by_the_next_look() {
    let server = Server::start();
    let mut a = Node::on(&server, "A", 1).await;
    let (epoch, epoch_version) = a.become_master().await;
    server.client().await.delete(PATH, None).await.unwrap();
    let refused = hand_over(&mut a, epoch, epoch_version, 1).await;
    assert_eq!(refused, Answer::Refused(Refusal::Handover));
    assert_eq!(*a.look().await.handover, HandoverZnode::default());
    let done = Answer::Done { epoch_version };
    assert_eq!(hand_over(&mut a, epoch, epoch_version, 1).await, done);
}
