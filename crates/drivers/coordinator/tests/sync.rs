//! The sync record on a real ZooKeeper: made and reset by claims, rewritten by the master, refused to
//! everybody whose versions are not the newest, watched by whoever looked.

#![allow(clippy::unwrap_used)] // a test may fail and tell

mod support;

use hotpair_core::pair::effect::{SyncBound, ZooKeeperRequest};
use hotpair_core::pair::fact::{Answer, LookTrouble, Refusal, SyncZnode, ZooKeeperEvent};
use hotpair_core::pair::identity::{Epoch, Incarnation};
use support::{Node, Server, identity};

const PATH: &str = "/hotpair/pair/sync";

async fn write(
    node: &mut Node,
    epoch: u64,
    epoch_version: i32,
    sync_version: i32,
    members: &[Incarnation],
) -> Answer {
    let (epoch, members) = (Epoch(epoch), members.to_vec());
    node.order(ZooKeeperRequest::WriteSync { epoch, epoch_version, sync_version, members });
    node.until(|event| match event {
        ZooKeeperEvent::SyncWritten { epoch: of, answer } => {
            assert_eq!(of, epoch);
            Some(answer)
        }
        _ => None,
    })
    .await
}

#[tokio::test]
async fn the_first_claim_makes_the_record_and_the_next_one_resets_it() {
    let server = Server::start();
    let (mut a, mut b) = (Node::on(&server, "A", 1).await, Node::on(&server, "B", 2).await);
    assert_eq!(a.look().await.sync, None);
    let (epoch, epoch_version) = a.become_master().await;
    let (me, peer) = (identity("A", 1).incarnation.clone(), identity("B", 2).incarnation.clone());
    let record = |epoch, members: &[&Incarnation], version| {
        let members = members.iter().map(|member| (*member).clone()).collect();
        Some(SyncZnode { epoch: Epoch(epoch), members, version })
    };
    assert_eq!(b.look().await.sync, record(epoch, &[&me], 0));
    let both = [me.clone(), peer.clone()];
    assert_eq!(write(&mut a, epoch, epoch_version, 0, &both).await, Answer::Done { epoch_version });
    let seen = b.look().await;
    assert_eq!(seen.sync, record(epoch, &[&me, &peer], 1));
    let (text, _) = server.client().await.get_data(PATH).await.unwrap();
    let wanted = serde_json::json!({ "epoch": epoch, "in_sync": [
        { "id": "A", "boot_id": me.boot_id.to_string(), "instance": me.instance.to_string() },
        { "id": "B", "boot_id": peer.boot_id.to_string(), "instance": peer.instance.to_string() },
    ]});
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap(), wanted);
    let master = seen.master.unwrap().version;
    let answer = b.claim(epoch + 1, seen.epoch.version, Some(master)).await;
    assert_eq!(answer, Answer::Done { epoch_version: epoch_version + 1 });
    assert_eq!(b.look().await.sync, record(epoch + 1, &[&peer], 2));
}

#[tokio::test]
async fn whoever_is_taken_out_while_it_claims_is_refused() {
    let server = Server::start();
    let (mut a, mut b) = (Node::on(&server, "A", 1).await, Node::on(&server, "B", 2).await);
    let (epoch, epoch_version) = a.become_master().await;
    let (me, peer) = (identity("A", 1).incarnation.clone(), identity("B", 2).incarnation.clone());
    write(&mut a, epoch, epoch_version, 0, &[me.clone(), peer]).await;
    let seen = b.look().await;
    let master = seen.master.unwrap().version;
    write(&mut a, epoch, epoch_version, 1, &[me]).await;
    let answer = b.claim(epoch + 1, seen.epoch.version, Some(master)).await;
    assert_eq!(answer, Answer::Refused(Refusal::Sync));
    // Nothing of the multi was done.
    let after = b.look().await;
    assert_eq!((after.epoch.epoch, after.master.unwrap().epoch), (Epoch(epoch), Epoch(epoch)));
    // A record that is there is not made by a claim that found none.
    b.sync = SyncBound::Missing;
    let answer = b.claim(epoch + 1, seen.epoch.version, Some(master)).await;
    assert_eq!(answer, Answer::Refused(Refusal::Sync));
}

#[tokio::test]
async fn a_record_is_written_once_for_each_version_and_only_in_the_newest_epoch() {
    let server = Server::start();
    let (mut a, mut b) = (Node::on(&server, "A", 1).await, Node::on(&server, "B", 2).await);
    let (epoch, epoch_version) = a.become_master().await;
    let alone = [identity("A", 1).incarnation.clone()];
    let done = Answer::Done { epoch_version };
    assert_eq!(write(&mut a, epoch, epoch_version, 0, &alone).await, done);
    let late = Answer::Refused(Refusal::Sync);
    assert_eq!(write(&mut a, epoch, epoch_version, 0, &alone).await, late);
    let seen = b.look().await;
    let master = seen.master.unwrap().version;
    b.claim(epoch + 1, seen.epoch.version, Some(master)).await;
    // The version is right by chance; the epoch is over.
    let refused = Answer::Refused(Refusal::Epoch);
    assert_eq!(write(&mut a, epoch, epoch_version, 2, &alone).await, refused);
}

#[tokio::test]
async fn a_change_of_the_record_is_told_to_whoever_looked() {
    let server = Server::start();
    let (mut a, mut b) = (Node::on(&server, "A", 1).await, Node::on(&server, "B", 2).await);
    assert_eq!(b.look().await.sync, None);
    let (epoch, epoch_version) = a.become_master().await;
    b.until_is(&ZooKeeperEvent::SyncChanged).await; // it came
    b.look().await;
    let both = [identity("A", 1).incarnation.clone(), identity("B", 2).incarnation.clone()];
    write(&mut a, epoch, epoch_version, 0, &both).await;
    b.until_is(&ZooKeeperEvent::SyncChanged).await; // it changed
    assert_eq!(b.look().await.sync.unwrap().members, both);
}

#[tokio::test]
async fn a_record_that_no_node_wrote_is_said_to_be_foreign() {
    let server = Server::start();
    let mut a = Node::on(&server, "A", 1).await;
    a.become_master().await;
    let client = server.client().await;
    client.set_data(PATH, br#"{"epoch":1,"in_sync":[{"id":"A"}]}"#, None).await.unwrap();
    let (reason, trouble) = a.look_fails().await;
    assert!(
        trouble == LookTrouble::Foreign && reason.contains(PATH) && reason.contains("boot_id"),
        "{reason}"
    );
}
