//! The laboratory itself, on the real things it starts.

use std::time::Duration;

use anyhow::{Result, ensure};
use hotpair_lab::need::{Need, install};
use hotpair_lab::network::{Cut, Host, Network};
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::{Mode, Settings, ZooKeeper};

#[test]
fn a_lone_server_serves_again_after_a_kill_with_the_data_it_had() {
    let mut zookeeper = ZooKeeper::standalone().unwrap();
    assert_eq!(zookeeper.mode(0).unwrap(), Mode::Standalone);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let servers = zookeeper.connect_string();
    runtime.block_on(async {
        let client = zookeeper_client::Client::connect(&servers).await.unwrap();
        let open = zookeeper_client::Acls::anyone_all();
        let options = zookeeper_client::CreateMode::Persistent.with_acls(open);
        client.create("/kept", b"value", &options).await.unwrap();
    });
    zookeeper.kill(0).unwrap();
    assert!(zookeeper.mode(0).is_err());
    zookeeper.start_again(0).unwrap();
    zookeeper.wait_until_serving().unwrap();
    runtime.block_on(async {
        let client = zookeeper_client::Client::connect(&servers).await.unwrap();
        let (value, _) = client.get_data("/kept").await.unwrap();
        assert_eq!(value, b"value");
    });
}

#[test]
fn an_ensemble_elects_another_leader_when_its_own_is_frozen() {
    let zookeeper = ZooKeeper::ensemble(3).unwrap();
    let first = zookeeper.wait_for_leader().unwrap();
    zookeeper.freeze(first).unwrap();
    let second = eventually(Duration::from_secs(60), "another leads", || {
        let leader = zookeeper.leader();
        ensure!(leader.is_some() && leader != Some(first), "{leader:?} leads");
        Ok(leader)
    });
    zookeeper.thaw(first).unwrap();
    assert_ne!(second.unwrap(), Some(first));
    eventually(Duration::from_secs(60), "the old leader follows", || {
        let mode = zookeeper.mode(first)?;
        ensure!(mode == Mode::Follower, "{mode:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_ensemble_on_three_hosts_goes_on_without_the_one_cut_off() {
    install(&[Need::Namespaces]).unwrap();
    let network = Network::new(3).unwrap();
    let hosts: Vec<Host> = network.hosts().collect();
    let zookeeper = ZooKeeper::start_on(&network, &hosts, &Settings::default()).unwrap();
    let first = zookeeper.wait_for_leader().unwrap();
    let cut = network.port_down(hosts[first]).unwrap();
    eventually(Duration::from_secs(60), "another leads, the first serves no more", || {
        let others: Vec<usize> = (0..3).filter(|server| *server != first).collect();
        let led = others.iter().any(|server| zookeeper.mode(*server).ok() == Some(Mode::Leader));
        ensure!(led, "none of {others:?} leads");
        ensure!(zookeeper.mode(first).is_err(), "{first} serves without a quorum");
        Ok(())
    })
    .unwrap();
    cut.heal().unwrap();
    eventually(Duration::from_secs(60), "all serve", || {
        (0..3).try_for_each(|server| zookeeper.mode(server).map(drop))
    })
    .unwrap();
}

#[test]
fn the_server_that_a_host_is_connected_to_can_be_told_and_cut_off_alone() {
    install(&[Need::Namespaces]).unwrap();
    let network = Network::new(4).unwrap();
    let servers = [Host(2), Host(3), Host(4)];
    let zookeeper = ZooKeeper::start_on(&network, &servers, &Settings::default()).unwrap();
    let client = Host(1);
    for server in [0, 2] {
        let address = zookeeper.addresses()[server];
        let connection = network.place(client).connect(address, Duration::from_secs(5)).unwrap();
        eventually(Duration::from_secs(10), "the server knows the client", || {
            ensure!(zookeeper.server_of(network.address(client)) == Some(server), "not yet");
            Ok(())
        })
        .unwrap();
        drop(connection);
    }
    // Cut off from the other servers only: its clients still reach it, and learn nothing new.
    let others: Vec<Host> = servers[1..].to_vec();
    let _cut = network.apart(servers[0], &others).unwrap();
    eventually(Duration::from_secs(60), "the server cut off serves no more", || {
        ensure!(zookeeper.mode(0).is_err(), "it serves");
        zookeeper.mode(1).map(drop)
    })
    .unwrap();
    network
        .place(client)
        .connect(zookeeper.addresses()[0], Duration::from_secs(5))
        .expect("only the other servers are out of its reach");
}

/// Whether the host gets an answer from the other one's listener.
fn reaches(network: &Network, from: Host, to: Host) -> Result<()> {
    let address = network.socket(to, 7000);
    network.place(from).connect(address, Duration::from_millis(300)).map(drop)
}

#[test]
fn each_cut_does_what_its_name_says_and_heals() {
    install(&[Need::Namespaces]).unwrap();
    let network = Network::new(3).unwrap();
    let [one, two, three] = [Host(1), Host(2), Host(3)];
    let _listeners: Vec<_> = network
        .hosts()
        .map(|host| {
            let bind = || Ok(std::net::TcpListener::bind(network.socket(host, 7000))?);
            network.place(host).inside(bind).unwrap()
        })
        .collect();
    let all_is_well = || {
        let pairs = [(one, two), (two, one), (one, three), (three, one)];
        eventually(Duration::from_secs(20), "every host reaches every other", || {
            pairs.iter().try_for_each(|(from, to)| reaches(&network, *from, *to))
        })
        .unwrap();
    };
    all_is_well();

    let cut = network.port_down(one).unwrap();
    assert!(reaches(&network, one, two).is_err() && reaches(&network, two, one).is_err());
    cut.heal().unwrap();
    all_is_well();

    let cut = network.interface_down(one).unwrap();
    let said = format!("{:#}", reaches(&network, one, two).unwrap_err());
    assert!(said.contains("Network is unreachable"), "{said}");
    cut.heal().unwrap();
    all_is_well();

    let cut = network.apart(one, &[two]).unwrap();
    assert!(reaches(&network, one, two).is_err() && reaches(&network, two, one).is_err());
    assert!(reaches(&network, one, three).is_ok() && reaches(&network, two, three).is_ok());
    drop(cut);
    all_is_well();

    let cut = network.refused_port(two, 7000).unwrap();
    let said = format!("{:#}", reaches(&network, one, two).unwrap_err());
    assert!(said.contains("refused"), "{said}");
    cut.heal().unwrap();
    all_is_well();

    let one_sided: [fn(&Network) -> Result<Cut>; 7] = [
        |network| network.cannot_receive(Host(1)),
        |network| network.cannot_send(Host(1)),
        |network| network.one_way(Host(1), Host(2)),
        |network| network.one_way(Host(2), Host(1)),
        |network| network.blackhole(Host(1), &[Host(2)]),
        |network| network.unreachable(Host(1), &[Host(2)]),
        |network| network.silent_port(Host(2), 7000),
    ];
    for make in one_sided {
        let cut = make(&network).unwrap();
        assert!(reaches(&network, one, two).is_err(), "{cut:?}");
        cut.heal().unwrap();
        all_is_well();
    }
}
