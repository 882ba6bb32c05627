//! A server gone for good costs no processor time and ends the session in the end. Alone in its
//! binary, since it measures the whole process.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may fail and tell

mod support;

use std::time::{Duration, Instant};

use hotpair_core::pair::fact::{Answer, ZooKeeperEvent};
use support::{LONG, Node, Server, T};

/// Processor time of this process, from the kernel's 1/100 s ticks.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn a_node_cut_off_for_good_idles_and_learns_that_its_session_is_over() {
    let mut server = Server::start();
    let mut node = Node::on(&server, "A", 1).await;
    let (epoch, epoch_version) = node.become_master().await;
    let files = open_files();
    server.kill();
    let (killed, before) = (Instant::now(), processor_time());
    node.until_is(&ZooKeeperEvent::Disconnected).await;
    assert_eq!(node.heartbeat(epoch, epoch_version).await, Answer::Ambiguous);
    let ended = |event| matches!(event, ZooKeeperEvent::SessionEnded { .. }).then_some(());
    node.until(ended).await;
    let ended_after = killed.elapsed();
    assert!(ended_after >= T * 2 && ended_after < T * 2 + LONG / 3, "ended after {ended_after:?}");
    // As core does it: a new session is wanted, once a second.
    while killed.elapsed() < T * 2 + Duration::from_secs(5) {
        node.order_session();
        node.until(|event| matches!(event, ZooKeeperEvent::ConnectFailed { .. }).then_some(()))
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (time, used) = (killed.elapsed(), processor_time() - before);
    println!("cut off for {time:?}: {used:?} of processor time");
    assert!(used < time / 10, "{used:?} of processor time in {time:?}");
    let files_now = open_files();
    assert!(files_now <= files, "{files_now} open files after many attempts, {files} before");
    server.start_again();
    node.open().await;
    let picture = node.look().await;
    assert_eq!(picture.epoch.version, epoch_version);
}
