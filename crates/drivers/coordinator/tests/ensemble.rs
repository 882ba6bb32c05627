//! Three servers: a session moves on when the one that it used is gone.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may fail and tell

mod support;

use std::net::SocketAddr;
use std::time::Instant;

use hotpair_coordinator::ZooKeeperSettings;
use hotpair_core::pair::fact::{Answer, ZooKeeperEvent};
use support::{Node, Server, T, identity, settings};

#[tokio::test]
async fn a_session_moves_to_another_server_with_all_that_it_holds() {
    let mut servers = Server::ensemble();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    // Another leader is elected in a few seconds.
    let patient = ZooKeeperSettings { session_timeout: T * 4, ..settings(&addresses) };
    let mut node = Node::new(patient, identity("A", 1));
    let session = node.open().await;
    let (epoch, epoch_version) = node.become_master().await;
    // Whichever it uses: each in turn is killed and comes back, the leader among them.
    let mut moves = 0;
    for server in &mut servers {
        server.kill();
        let killed = Instant::now();
        // A heartbeat tells; without an answer, the connection is tried again until one is there.
        let mut answer = node.heartbeat(epoch, epoch_version).await;
        while answer == Answer::Ambiguous {
            node.until(|event| match event {
                ZooKeeperEvent::Reconnected => Some(()),
                ZooKeeperEvent::SessionEnded { reason } => panic!("{reason}"),
                _ => None,
            })
            .await;
            moves += 1;
            answer = node.heartbeat(epoch, epoch_version).await;
        }
        println!("a heartbeat was acknowledged {:?} after the kill", killed.elapsed());
        assert_eq!(answer, Answer::Done { epoch_version });
        let picture = node.look().await;
        assert_eq!(picture.master.expect("ours").owner, session);
        server.start_again();
    }
    assert!(moves > 0, "at least one of them was the one in use");
}
