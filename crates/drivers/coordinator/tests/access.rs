//! Whose znodes ours are: a stranger gets nowhere, a wrong password is told, and what is open from
//! before is closed as soon as that locks nobody out.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use hotpair_coordinator::{
    Access, Auth, ReadFunctionsError, ReleaseError, ReleaseOutcome, read_functions, release,
};
use hotpair_core::pair::effect::ZooKeeperRequest;
use hotpair_core::pair::fact::{Answer, LookTrouble, ZooKeeperEvent};
use hotpair_core::pair::identity::Instance;
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Error, Permission};

use support::{Node, PAIR, Server, identity, settings};

fn auth(line: &str) -> Auth {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zk.auth");
    std::fs::write(&file, line).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    Auth::read(&file).unwrap()
}

fn access(server: &Server, line: &str) -> Access {
    Access { auth: Some(auth(line)), ..server.open() }
}

async fn node_as(server: &Server, name: &str, instance: u128, line: &str) -> Node {
    let settings = hotpair_coordinator::ZooKeeperSettings {
        access: access(server, line),
        ..settings(&[server.address])
    };
    let mut node = Node::new(settings, identity(name, instance));
    node.open().await;
    node
}

/// What the driver says of open znodes next.
async fn exposed(node: &mut Node) -> Option<String> {
    loop {
        // It is said after a look, and not after each.
        node.order(ZooKeeperRequest::Look);
        let said = node.until(|event| match event {
            ZooKeeperEvent::Exposed { what } => Some(Some(what)),
            ZooKeeperEvent::Looked { .. } => Some(None),
            _ => None,
        });
        if let Some(what) = said.await {
            return what;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// All znodes of the pair and above, as its own user sees them.
async fn all_paths(client: &Client) -> Vec<String> {
    let mut paths = vec!["/hotpair".to_owned()];
    let mut at = 0;
    while let Some(path) = paths.get(at).cloned() {
        let names = client.list_children(&path).await.unwrap();
        paths.extend(names.iter().map(|name| format!("{path}/{name}")));
        at += 1;
    }
    paths
}

async fn client_as(server: &Server, line: &str) -> Client {
    let connector = Client::connector().with_auth("digest", line.as_bytes());
    connector.connect(&server.address.to_string()).await.unwrap()
}

#[tokio::test]
async fn a_stranger_can_neither_read_nor_delete_nor_create() {
    let server = Server::start();
    let mut a = node_as(&server, "a", 1, "pair:secret").await;
    let (epoch, version) = a.become_master().await;
    let (entries, answer) = a.register(epoch, version).await;
    assert!(entries > 0 && matches!(answer, Answer::Done { .. }), "{answer:?}");
    let owner = client_as(&server, "pair:secret").await;
    let paths = all_paths(&owner).await;
    assert!(paths.len() > 12, "{paths:?}");
    for stranger in [server.client().await, client_as(&server, "pair:guessed").await] {
        for path in &paths {
            assert_eq!(stranger.get_data(path).await.unwrap_err(), Error::NoAuth, "{path}");
            assert_eq!(stranger.list_children(path).await.unwrap_err(), Error::NoAuth, "{path}");
            let set = stranger.set_data(path, b"mine", None).await;
            assert_eq!(set.unwrap_err(), Error::NoAuth, "{path}");
            let open = [Acl::new(Permission::ALL, AuthId::anyone())];
            let taken = stranger.set_acl(path, &open, None).await;
            assert_eq!(taken.unwrap_err(), Error::NoAuth, "{path}");
            let below = format!("{path}/mine");
            let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
            let created = stranger.create(&below, b"", &options).await;
            assert!(
                matches!(created, Err(Error::NoAuth | Error::NoChildrenForEphemerals)),
                "{below}: {created:?}"
            );
        }
        // The root's own parent is everybody's: what is not empty cannot be deleted there.
        for path in &paths {
            let deleted = stranger.delete(path, None).await.unwrap_err();
            assert!(matches!(deleted, Error::NoAuth | Error::NotEmpty), "{path}: {deleted:?}");
        }
    }
    assert!(matches!(a.heartbeat(epoch, version).await, Answer::Done { .. }));
}

#[tokio::test]
async fn the_registry_and_a_release_need_the_same_user() {
    let server = Server::start();
    let mut a = node_as(&server, "a", 1, "pair:secret").await;
    let (epoch, version) = a.become_master().await;
    a.register(epoch, version).await;
    let own = access(&server, "pair:secret");
    let found = read_functions(&own, "/hotpair", PAIR).await.unwrap();
    assert!(!found.is_empty());
    for (other, says) in [
        (server.open(), "coordinator.zookeeper.auth"),
        (access(&server, "pair:guessed"), "password is another one"),
    ] {
        let refused = read_functions(&other, "/hotpair", PAIR).await.unwrap_err();
        assert!(matches!(refused, ReadFunctionsError::Barred(_)), "{refused:?}");
        assert!(refused.to_string().contains(says), "{refused}");
        let settings =
            hotpair_coordinator::ZooKeeperSettings { access: other, ..settings(&[server.address]) };
        let refused = release(&settings, Instance(1)).await.unwrap_err();
        assert!(matches!(refused, ReleaseError::Barred(_)), "{refused:?}");
    }
    let settings =
        hotpair_coordinator::ZooKeeperSettings { access: own, ..settings(&[server.address]) };
    let released = release(&settings, Instance(1)).await.unwrap();
    assert!(matches!(released, ReleaseOutcome::Released { .. }), "{released:?}");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_tried_again() {
    let server = Server::start();
    let mut a = node_as(&server, "a", 1, "pair:secret").await;
    let (epoch, version) = a.become_master().await;
    let mut b = node_as(&server, "b", 2, "pair:guessed").await;
    for _ in 0..2 {
        let (reason, trouble) = b.look_fails().await;
        assert_eq!(trouble, LookTrouble::Barred, "{reason}");
        assert!(reason.contains("user pair") && reason.contains("zk.auth"), "{reason}");
        assert!(!reason.contains("guessed") && !reason.contains("secret"), "{reason}");
    }
    // Nor can it write anything: no definite word on whose turn it is comes of that.
    let claimed = b.claim(epoch + 1, version, None).await;
    assert_eq!(claimed, Answer::Ambiguous);
    assert!(matches!(a.heartbeat(epoch, version).await, Answer::Done { .. }));
    let mut c = Node::on(&server, "b", 2).await;
    let (reason, trouble) = c.look_fails().await;
    assert_eq!(trouble, LookTrouble::Barred);
    assert!(reason.contains("set coordinator.zookeeper.auth"), "{reason}");
}

#[tokio::test]
async fn an_open_pair_is_closed_once_no_node_works_without_the_user() {
    let server = Server::start();
    let mut a = Node::on(&server, "a", 1).await;
    let (epoch, version) = a.become_master().await;
    a.register(epoch, version).await;
    let mut b = node_as(&server, "b", 2, "pair:secret").await;
    b.look().await;
    let told = exposed(&mut b).await.expect("everything is open");
    assert!(told.contains("node a works without"), "{told}");
    assert!(matches!(a.heartbeat(epoch, version).await, Answer::Done { .. }), "not locked out");
    // An operator lets somebody look: that stays.
    let operator = server.client().await;
    let monitor = Acl::new(Permission::READ, AuthId::new("digest", "monitor:abc="));
    let open = Acl::new(Permission::ALL, AuthId::anyone());
    operator.set_acl("/hotpair/pair/epoch", &[open, monitor.clone()], None).await.unwrap();
    a.driver.close(support::T).await;
    while exposed(&mut b).await.is_some() {}
    let owner = client_as(&server, "pair:secret").await;
    for path in all_paths(&owner).await {
        let (acl, _) = owner.get_acl(&path).await.unwrap();
        assert!(acl.iter().all(|entry| entry.scheme() != "world"), "{path}: {acl:?}");
        assert_eq!(acl.contains(&monitor), path == "/hotpair/pair/epoch", "{path}: {acl:?}");
    }
    assert_eq!(
        server.client().await.get_data("/hotpair/pair/id").await.unwrap_err(),
        Error::NoAuth
    );
    b.become_master().await;
}

#[tokio::test]
async fn a_root_that_other_pairs_use_stays_open() {
    let server = Server::start();
    let operator = server.client().await;
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    operator.mkdir("/hotpair/other", &options).await.unwrap();
    let mut b = node_as(&server, "b", 2, "pair:secret").await;
    b.become_master().await;
    assert_eq!(exposed(&mut b).await, None, "what is this pair's own is closed");
    let (acl, _) = operator.get_acl("/hotpair").await.unwrap();
    assert_eq!(acl.first().map(Acl::scheme), Some("world"));
    operator.create("/hotpair/other/epoch", b"", &options).await.unwrap();
}
