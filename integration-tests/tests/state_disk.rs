//! State that survives what happens to its disk: full, damaged, torn, or not there.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::data_steps::{
    alerted, last_redo, log, relieved, same_rows_at_the_other,
};
use hotpair_integration_tests::rows::{Client, files};
use hotpair_integration_tests::small_disk::SmallDisk;
use hotpair_integration_tests::steps::{LIMIT, serves};
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::Enough;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::table_load::Plan;
use hotpair_lab::wait::{eventually, throughout};

const FULL: i64 = 308_000_006;
const DISK_MEBIBYTES: u64 = 32;
const FILLER_MEBIBYTES: u64 = 12;
/// Longer than a silent follower is borne.
const A_LONG_TIME: Duration = Duration::from_secs(15);

#[expect(clippy::print_stdout, reason = "why a test did nothing")]
fn small_disk() -> Option<SmallDisk> {
    let mounted = SmallDisk::mount(DISK_MEBIBYTES, FILLER_MEBIBYTES);
    mounted.inspect_err(|error| println!("skipped: no file system can be mounted: {error:#}")).ok()
}

/// The standby's directory is on this disk from now on.
fn move_standby(lab: &mut TableLab, disk: &SmallDisk) -> usize {
    let master = lab.in_sync().unwrap();
    let standby = &mut lab.pair.nodes[1 - master];
    standby.stop(LIMIT).unwrap();
    standby.settings.directory = disk.folder();
    standby.start().unwrap();
    assert_eq!(lab.in_sync().unwrap(), master);
    1 - master
}

fn large(number: usize) -> (String, String) {
    (format!("large-{number:03}"), format!("{number}:{}", "x".repeat(500_000)))
}

/// Puts large values at the master until it refuses: how many it acknowledged.
fn fill(client: &Client, master: usize) -> usize {
    for number in 0..200 {
        let (key, value) = large(number);
        // The one that fills it may be told nothing at all.
        let told = client.put_at(master, &key, &value).map(|told| told["error_no"].as_i64());
        if !matches!(told, Ok(Some(0))) {
            eventually(LIMIT, "it is said that nothing more is taken", || {
                let told = client.put_at(master, "refused", "x")?;
                ensure!(told["error_no"] == FULL, "{told}");
                Ok(())
            })
            .unwrap();
            return number;
        }
    }
    panic!("the disk takes everything");
}

fn all_there(client: &Client, acknowledged: usize) -> Result<()> {
    for number in 0..acknowledged {
        let (key, value) = large(number);
        let found = client.value(&key)?.with_context(|| format!("{key} is lost"))?;
        ensure!(found == value, "{key} is not what it was");
    }
    Ok(())
}

#[test]
fn a_master_whose_disk_is_full_refuses_loses_nothing_and_goes_on_when_there_is_room() {
    let _turn = Turn::beside_others().unwrap();
    let Some(disk) = small_disk() else { return };
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    let reader = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("first", "1").unwrap();
    let master = move_standby(&mut lab, &disk);
    lab.switch_over().unwrap();
    assert_eq!(lab.in_sync().unwrap(), master);
    let acknowledged = fill(&client, master);
    assert!(acknowledged > 10, "{acknowledged}");
    let node = &lab.pair.nodes[master];
    alerted(node, "disk").unwrap();
    // The session of the change that the disk had no room for waits for that one.
    throughout(A_LONG_TIME, "it refuses, shows what it has, and its peer has everything", || {
        let told = client.put_at(master, "refused", "x")?;
        ensure!(told["error_no"] == FULL, "{told}");
        ensure!(reader.value("first")?.as_deref() == Some("1"), "a look fails");
        let role = node.admin().get_json("/role")?;
        ensure!(role["serving"] == true && role["in_sync"] == true, "{role}");
        Ok(())
    })
    .unwrap();
    disk.make_room().unwrap();
    client.put("after", "1").unwrap();
    assert_eq!(lab.in_sync().unwrap(), master);
    relieved(&lab.pair.nodes[master], "disk").unwrap();
    all_there(&client, acknowledged).unwrap();
    assert_eq!(client.value("refused").unwrap(), None, "what was refused was not done");
    lab.kill(master).unwrap();
    serves(&lab.pair, 1 - master).unwrap();
    all_there(&client, acknowledged).unwrap();
    assert_eq!(client.heartbeat().unwrap(), 0);
    lab.start(master).unwrap();
    lab.in_sync().unwrap();
    same_rows_at_the_other(&mut lab, &client).unwrap();
}

#[test]
fn a_master_that_dies_with_a_full_disk_is_succeeded_by_one_that_has_everything() {
    let _turn = Turn::beside_others().unwrap();
    let Some(disk) = small_disk() else { return };
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    let master = move_standby(&mut lab, &disk);
    lab.switch_over().unwrap();
    lab.in_sync().unwrap();
    let acknowledged = fill(&client, master);
    alerted(&lab.pair.nodes[master], "disk").unwrap();
    assert_eq!(lab.in_sync().unwrap(), master);
    lab.kill(master).unwrap();
    serves(&lab.pair, 1 - master).unwrap();
    all_there(&client, acknowledged).unwrap();
    client.put("after", "1").unwrap();
    disk.make_room().unwrap();
    lab.start(master).unwrap();
    lab.in_sync().unwrap();
    same_rows_at_the_other(&mut lab, &client).unwrap();
}

#[test]
fn a_master_goes_on_alone_when_its_standbys_disk_is_full_until_there_is_room() {
    let _turn = Turn::beside_others().unwrap();
    let Some(disk) = small_disk() else { return };
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    let standby = move_standby(&mut lab, &disk);
    let master = 1 - standby;
    let (mut number, mut alone) = (0, 0);
    eventually(LIMIT * 4, "the standby is full, and the master goes on alone", || {
        let (key, value) = large(number);
        client.put(&key, &value)?;
        number += 1;
        let role = lab.pair.nodes[master].admin().get_json("/role")?;
        alone += usize::from(role["in_sync"] == false);
        ensure!(alone >= 5, "{role}");
        Ok(())
    })
    .unwrap();
    alerted(&lab.pair.nodes[standby], "disk").unwrap();
    alerted(&lab.pair.nodes[master], "replication_behind").unwrap();
    all_there(&client, number).unwrap();
    throughout(A_LONG_TIME, "both answer, and one serves", || {
        client.put("meanwhile", "1")?;
        let roles = [lab.pair.nodes[master].role()?, lab.pair.nodes[standby].role()?];
        ensure!(roles[0].serving && !roles[1].serving, "{roles:?}");
        Ok(())
    })
    .unwrap();
    disk.make_room().unwrap();
    assert_eq!(lab.in_sync().unwrap(), master);
    relieved(&lab.pair.nodes[standby], "disk").unwrap();
    relieved(&lab.pair.nodes[master], "replication_behind").unwrap();
    same_rows_at_the_other(&mut lab, &client).unwrap();
    all_there(&client, number).unwrap();
}

/// The standby, stopped, with some rows in its redo.
fn stopped_standby(lab: &mut TableLab) -> (Client, usize) {
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    for number in 0..50 {
        client.put(&format!("row-{number}"), &"a value ".repeat(20)).unwrap();
    }
    let standby = 1 - lab.in_sync().unwrap();
    lab.pair.nodes[standby].stop(LIMIT).unwrap();
    (client, standby)
}

#[test]
fn a_log_damaged_in_the_middle_is_refused_by_name_and_offset_and_loaded_anew_from_the_peer() {
    let _turn = Turn::beside_others().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let (client, standby) = stopped_standby(&mut lab);
    let node = &mut lab.pair.nodes[standby];
    let redo = last_redo(&node.settings.directory).unwrap();
    let middle = fs::metadata(&redo).unwrap().len() / 2;
    let file = OpenOptions::new().read(true).write(true).open(&redo).unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, middle).unwrap();
    file.write_all_at(&bytes.map(|byte| !byte), middle).unwrap();
    let before = fs::read(&redo).unwrap();
    let said_before = log(node).unwrap().len();
    node.start().unwrap();
    let status = node.process().unwrap().ended(LIMIT).unwrap();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}");
    let said = log(node).unwrap()[said_before..].to_owned();
    let name = redo.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("{name}, byte ")), "the file and the place are named: {said}");
    assert!(said.contains("move the directory's redo and snapshot files away"), "{said}");
    assert_eq!(fs::read(&redo).unwrap(), before, "nothing was changed");
    node.kill().unwrap();

    // What the sentence advises.
    let away = node.folder().join("away");
    fs::create_dir(&away).unwrap();
    for kind in ["redo-", "snapshot-"] {
        for path in files(&node.settings.directory, kind).unwrap() {
            fs::rename(&path, away.join(path.file_name().unwrap())).unwrap();
        }
    }
    lab.start(standby).unwrap();
    assert_eq!(lab.in_sync().unwrap(), 1 - standby);
    same_rows_at_the_other(&mut lab, &client).unwrap();
}

#[test]
fn a_torn_tail_is_cut_and_said_and_the_node_follows() {
    let _turn = Turn::beside_others().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let (client, standby) = stopped_standby(&mut lab);
    let node = &lab.pair.nodes[standby];
    let redo = last_redo(&node.settings.directory).unwrap();
    let length = fs::metadata(&redo).unwrap().len();
    OpenOptions::new().write(true).open(&redo).unwrap().set_len(length - 7).unwrap();
    let said_before = log(node).unwrap().len();
    lab.start(standby).unwrap();
    assert_eq!(lab.in_sync().unwrap(), 1 - standby);
    let said = log(&lab.pair.nodes[standby]).unwrap()[said_before..].to_owned();
    let name = redo.file_name().unwrap().to_str().unwrap();
    let line = said.lines().find(|line| line.contains(name) && line.contains("WARN"));
    assert!(line.is_some_and(|line| line.contains("cut")), "{said}");
    same_rows_at_the_other(&mut lab, &client).unwrap();
}

/// A pair whose nodes see each other's redo through links in a folder, which can be taken away.
fn through_directories(lab: &mut TableLab, links: &Path) {
    lab.in_sync().unwrap();
    for node in 0..2 {
        let directory = lab.pair.nodes[node].settings.directory.clone();
        symlink(directory, link(links, node)).unwrap();
        let other = &mut lab.pair.nodes[1 - node];
        other.stop(LIMIT).unwrap();
        let seen = link(links, node).to_str().unwrap().to_owned();
        other.environment.push(("HOTPAIR__TABLES__REPLICATION".to_owned(), "directory".to_owned()));
        other.environment.push(("HOTPAIR__TABLES__PEER_DIRECTORY".to_owned(), seen));
    }
    for node in 0..2 {
        lab.start(node).unwrap();
    }
    lab.in_sync().unwrap();
}

fn link(links: &Path, node: usize) -> std::path::PathBuf {
    links.join(format!("of-{node}"))
}

#[test]
fn a_standby_that_reads_the_masters_directory_has_everything_when_the_master_is_killed() {
    let _turn = Turn::beside_others().unwrap();
    let links = Scratch::new("links").unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    through_directories(&mut lab, links.path());
    let user = lab.user.clone();
    let plan = Plan { clients: 4, threads: 2, watchers: 1, pause_ms_max: 10, seed: 1, user };
    let load = lab.start_load(&plan).unwrap();
    for _ in 0..2 {
        let before = load.acknowledged();
        eventually(LIMIT * 2, "changes are acknowledged", || {
            ensure!(load.acknowledged() > before + 100, "{}", load.acknowledged());
            Ok(())
        })
        .unwrap();
        let master = lab.in_sync().unwrap();
        lab.kill(master).unwrap();
        serves(&lab.pair, 1 - master).unwrap();
        lab.start(master).unwrap();
        lab.in_sync().unwrap();
    }
    let requests = load.stop(LIMIT).unwrap();
    lab.in_sync().unwrap();
    let enough = Enough { planned: Vec::new(), acknowledged_min: 200, epochs_min: 3 };
    let report = lab.judge(requests, &enough).unwrap();
    assert!(report.is_good(), "{report}");
    assert_eq!((report.failed, report.unknown), (0, 0), "{report}");
}

#[test]
fn a_missing_mount_is_an_alert_and_no_hang_and_heals_when_it_is_back() {
    let _turn = Turn::beside_others().unwrap();
    let links = Scratch::new("links").unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    through_directories(&mut lab, links.path());
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("before", "1").unwrap();
    let master = lab.in_sync().unwrap();
    lab.kill(1 - master).unwrap();
    let link = link(links.path(), master);
    fs::remove_file(&link).unwrap();
    lab.pair.nodes[1 - master].start_and_wait().unwrap();
    goes_on_alone(&lab, &client, master);
    // A place to mount at where nothing is mounted.
    fs::create_dir(&link).unwrap();
    goes_on_alone(&lab, &client, master);
    fs::remove_dir(&link).unwrap();
    symlink(&lab.pair.nodes[master].settings.directory, &link).unwrap();
    assert_eq!(lab.in_sync().unwrap(), master);
    relieved(&lab.pair.nodes[master], "replication_behind").unwrap();
    same_rows_at_the_other(&mut lab, &client).unwrap();
}

/// The master serves without its standby, says so, and both answer.
fn goes_on_alone(lab: &TableLab, client: &Client, master: usize) {
    client.put("meanwhile", "1").unwrap();
    alerted(&lab.pair.nodes[master], "replication_behind").unwrap();
    throughout(A_LONG_TIME, "both answer, and the master serves alone", || {
        client.put("meanwhile", "2")?;
        let role = lab.pair.nodes[master].admin().get_json("/role")?;
        ensure!(role["serving"] == true && role["in_sync"] == false, "{role}");
        lab.pair.nodes[1 - master].admin().get_json("/status")?;
        Ok(())
    })
    .unwrap();
}
