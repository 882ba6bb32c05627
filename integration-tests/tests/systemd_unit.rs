//! The unit files as systemd itself reads them: no word unknown, little exposed.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use hotpair_integration_tests::workspace;
use hotpair_lab::need::{Need, install};
use hotpair_lab::scratch::Scratch;

/// A node's unit, and a router's.
const UNITS: [&str; 2] = ["hotpair@", "hotpair-router@"];

/// A root folder that holds nothing but the units and a program at the path that they name.
fn root_with_units() -> Scratch {
    install(&[Need::Systemd]).unwrap();
    let root = Scratch::new("systemd-root").unwrap();
    fs::create_dir_all(root.join("etc/systemd/system")).unwrap();
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    for unit in UNITS {
        let text = fs::read(workspace().join(format!("deploy/systemd/{unit}.service"))).unwrap();
        fs::write(root.join(format!("etc/systemd/system/{unit}.service")), text).unwrap();
    }
    fs::write(root.join("usr/bin/hotpair"), "").unwrap();
    fs::set_permissions(root.join("usr/bin/hotpair"), fs::Permissions::from_mode(0o755)).unwrap();
    root
}

/// Both outputs, and whether it exited 0.
fn analyze(root: &Scratch, arguments: &[&str]) -> (String, bool) {
    let output = Command::new("systemd-analyze")
        .arg(format!("--root={}", root.path().display()))
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.success())
}

/// What `verify` has to say of a unit. The root has none of the units that systemd brings along,
/// so their absence is no finding; everything else is.
fn findings(root: &Scratch, unit: &str) -> Vec<String> {
    let instance = format!("{unit}a.service");
    let (said, _) = analyze(root, &["verify", "--recursive-errors=no", &instance]);
    said.lines().map(str::to_owned).collect()
}

#[test]
fn systemd_finds_nothing_to_say_about_the_units() {
    let root = root_with_units();
    for unit in UNITS {
        assert_eq!(findings(&root, unit), Vec::<String>::new());
    }
}

#[test]
fn an_unknown_key_would_be_found() {
    let root = root_with_units();
    let path = root.join("etc/systemd/system/hotpair@.service");
    let unit = fs::read_to_string(&path).unwrap();
    fs::write(&path, unit.replace("WatchdogSec=", "WatchdogSeconds=")).unwrap();
    let said = findings(&root, "hotpair@").join("\n");
    assert!(said.contains("WatchdogSeconds"), "{said}");
}

#[test]
fn the_units_are_exposed_no_more_than_2_0() {
    let root = root_with_units();
    for unit in UNITS {
        let instance = format!("{unit}a.service");
        let arguments = ["security", "--no-pager", "--offline=true", "--threshold=20", &instance];
        let (said, passed) = analyze(&root, &arguments);
        assert!(passed, "{said}");
    }
}
