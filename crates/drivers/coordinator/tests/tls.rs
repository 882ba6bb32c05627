//! ZooKeeper's port with TLS, on a real server: the pair works over it, and a handshake that fails says
//! why.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use hotpair_coordinator::{Access, ZooKeeperSettings, read_functions};
use hotpair_core::pair::fact::{Answer, ZooKeeperEvent};
use hotpair_tls::Identity;
use hotpair_tls::testing::Authority;

use support::{LONG, Node, PAIR, Server, identity, settings};

/// A server whose certificate is for this address, and whoever made it.
fn secure_server(folder: &Path, name: &str) -> (Server, Authority) {
    let authority = Authority::new(&folder.join("ours"));
    let files = authority.issue("zookeeper", &[name]);
    let parts = [files.certificate, files.key].map(|file| std::fs::read(file.unwrap()).unwrap());
    let key_store = folder.join("zookeeper-and-key.pem");
    std::fs::write(&key_store, parts.concat()).unwrap();
    (Server::secure(&key_store, &authority.file()), authority)
}

fn settings_as(server: &Server, who: &Identity) -> ZooKeeperSettings {
    let servers = vec![server.secure.unwrap().to_string()];
    let tls = Some(who.client(&[]).unwrap());
    let access = Access { tls, ..Access::open(servers) };
    // A JVM's first handshake loads half of its classes: an attempt has a third of this.
    let session_timeout = Duration::from_secs(10);
    ZooKeeperSettings { access, session_timeout, ..settings(&[server.address]) }
}

/// Why no session is opened.
async fn refused(server: &Server, who: &Identity) -> String {
    let mut node = Node::new(settings_as(server, who), identity("b", 2));
    let until = Instant::now() + LONG;
    loop {
        node.order_session();
        let refused = node.until(|event| match event {
            ZooKeeperEvent::ConnectFailed { reason } => Some(reason),
            ZooKeeperEvent::SessionOpened { .. } => panic!("let in"),
            _ => None,
        });
        // A server that has just started may be too slow to refuse anybody.
        let reason = refused.await;
        if !reason.contains("did not answer within") || Instant::now() > until {
            return reason;
        }
    }
}

#[tokio::test]
async fn a_pair_works_over_tls_and_survives_the_loss_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, authority) = secure_server(folder.path(), "127.0.0.1");
    let who = authority.identity("a", &["trade"]);
    let settings = settings_as(&server, &who);
    let access = settings.access.clone();
    let mut a = Node::new(settings, identity("a", 1));
    a.open().await;
    let (epoch, version) = a.become_master().await;
    assert!(matches!(a.heartbeat(epoch, version).await, Answer::Done { .. }));
    assert!(matches!(a.register(epoch, version).await, (3, Answer::Done { .. })));
    assert_eq!(read_functions(&access, "/hotpair", PAIR).await.unwrap().len(), 3);
    server.kill();
    a.until_is(&ZooKeeperEvent::Disconnected).await;
    server.start_again();
    a.until_is(&ZooKeeperEvent::Reconnected).await;
    assert!(matches!(a.heartbeat(epoch, version).await, Answer::Done { .. }));
}

#[tokio::test]
async fn a_handshake_that_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (server, authority) = secure_server(folder.path(), "127.0.0.1");
    let foreign = Authority::new(&folder.path().join("foreign"));
    let said = refused(&server, &foreign.identity("b", &["trade"])).await;
    assert!(said.contains("not signed by an authority that is trusted here"), "{said}");
    // The plain port of the same server.
    let own = authority.identity("b", &["trade"]);
    let mut settings = settings_as(&server, &own);
    settings.access.servers = vec![server.address.to_string()];
    let mut node = Node::new(settings, identity("b", 2));
    node.order_session();
    let said = node.until(|event| match event {
        ZooKeeperEvent::ConnectFailed { reason } => Some(reason),
        _ => None,
    });
    let said = said.await;
    assert!(
        said.contains("TLS") || said.contains("handshake") || said.contains("answer"),
        "{said}"
    );
    drop(server);
    let (server, authority) = secure_server(folder.path(), "zookeeper.example.org");
    let said = refused(&server, &authority.identity("b", &["trade"])).await;
    assert!(said.contains("not for \"127.0.0.1\" but for"), "{said}");
}
