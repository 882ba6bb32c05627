//! The function registry, against a real server.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may fail and tell

mod support;

use std::time::Instant;

use hotpair_coordinator::{ReadFunctionsError, read_functions};
use hotpair_core::pair::effect::ZooKeeperRequest;
use hotpair_core::pair::fact::{Answer, Refusal};
use hotpair_core::pair::identity::{Epoch, NodeId};
use support::{LONG, Node, PAIR, Server, functions, identity, settings};

const ENTRIES: usize = 5_000;

async fn read(server: &Server) -> Vec<hotpair_coordinator::RegisteredFunction> {
    read_functions(&server.open(), "/hotpair", PAIR).await.unwrap()
}

async fn node_with(server: &Server, name: &str, instance: u128, entries: usize) -> Node {
    let mut settings = settings(&[server.address]);
    settings.functions = functions(entries);
    let mut node = Node::new(settings, identity(name, instance));
    node.open().await;
    node
}

#[tokio::test]
async fn five_thousand_entries_survive_a_fast_takeover_and_a_stale_master_adds_none() {
    let server = Server::start();
    let mut a = node_with(&server, "A", 1, ENTRIES).await;
    let mut b = node_with(&server, "B", 2, ENTRIES).await;
    let all = u32::try_from(ENTRIES).unwrap();
    let (old, old_version) = a.become_master().await;
    let started = Instant::now();
    let answer = a.register(old, old_version).await;
    println!("the first registration, parents made: {:?}", started.elapsed());
    assert_eq!(answer, (all, Answer::Done { epoch_version: old_version }));
    // Again, as after an answer that was lost: the entries are ours.
    let answer = a.register(old, old_version).await;
    assert_eq!(answer, (all, Answer::Done { epoch_version: old_version }));

    // B takes over while A's session, and all of its entries, live on.
    let (new, new_version) = b.become_master().await;
    let started = Instant::now();
    let answer = b.register(new, new_version).await;
    println!("a registration, parents there: {:?}", started.elapsed());
    assert_eq!(answer, (all, Answer::Done { epoch_version: new_version }));
    assert_eq!(a.register(old, old_version).await, (0, Answer::Refused(Refusal::Epoch)));

    let started = Instant::now();
    let found = read(&server).await;
    println!("reading {} entries of {}: {:?}", found.len(), 2 * ENTRIES, started.elapsed());
    assert_eq!(found.len(), ENTRIES);
    assert!(found.iter().all(|f| f.node == NodeId::new("B") && f.epoch == Epoch(new)));
    let seven = found.iter().find(|f| f.service == "service-7").expect("it was registered");
    assert_eq!((seven.group.as_str(), seven.version.as_str()), ("group/7", "1.0"));
    assert_eq!(seven.functions, functions(8)[7].functions);
    assert_eq!(seven.endpoints["http"], "127.0.0.1:8080");

    let started = Instant::now();
    b.order(ZooKeeperRequest::Unregister { epoch: Epoch(new) });
    while !read(&server).await.is_empty() {
        assert!(started.elapsed() < LONG, "the entries are still there");
    }
    println!("unregistered within {:?}", started.elapsed());
    b.look().await;
}

#[tokio::test]
async fn entries_of_an_epoch_that_nobody_holds_any_more_are_not_believed() {
    let server = Server::start();
    let gone = read_functions(&server.open(), "/hotpair", PAIR).await;
    assert!(matches!(gone, Err(ReadFunctionsError::NoPair { .. })), "{gone:?}");
    let mut a = node_with(&server, "A", 1, 3).await;
    let (epoch, version) = a.become_master().await;
    a.register(epoch, version).await;
    assert_eq!(read(&server).await.len(), 3);
    let mut b = Node::on(&server, "B", 2).await;
    b.become_master().await;
    assert_eq!(read(&server).await, vec![]);
}

#[tokio::test]
async fn an_old_session_of_the_same_process_does_not_stand_in_the_way() {
    let server = Server::start();
    let mut node = node_with(&server, "A", 1, 700).await;
    let (epoch, version) = node.become_master().await;
    node.register(epoch, version).await;
    node.open().await;
    let (epoch, version) = node.become_master().await;
    let answer = node.register(epoch, version).await;
    assert_eq!(answer, (700, Answer::Done { epoch_version: version }));
    assert_eq!(read(&server).await.len(), 700);
    // Of all its sessions.
    node.order(ZooKeeperRequest::Unregister { epoch: Epoch(epoch) });
    let client = server.client().await;
    let path = "/hotpair/pair/functions/group%2F0/service-0/1.0";
    let started = Instant::now();
    while !client.list_children(path).await.unwrap().is_empty() {
        assert!(started.elapsed() < LONG, "the entries are still there");
    }
}

#[tokio::test]
async fn names_of_any_kind_can_be_registered_and_are_read_back() {
    let server = Server::start();
    let mut settings = settings(&[server.address]);
    settings.functions = functions(1);
    settings.functions[0].group = "..".to_owned();
    settings.functions[0].service = String::new();
    settings.functions[0].version = "1/2 ünï%".to_owned();
    let wanted = settings.functions[0].clone();
    let mut node = Node::new(settings, identity("A-1", 1));
    node.open().await;
    let (epoch, version) = node.become_master().await;
    assert_eq!(node.register(epoch, version).await.0, 1);
    let found = read(&server).await;
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&found.group, &found.service), (&wanted.group, &wanted.service));
    assert_eq!((&found.version, &found.node), (&wanted.version, &NodeId::new("A-1")));
}
