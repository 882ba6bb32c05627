//! The alert rules as Prometheus itself reads and evaluates them.

use std::process::Command;

use hotpair_integration_tests::workspace;
use hotpair_lab::need::{Need, install};
use hotpair_lab::process::run;

fn promtool(arguments: &[&str]) -> anyhow::Result<String> {
    install(&[Need::Prometheus])?;
    let folder = workspace().join("deploy/prometheus");
    run(Command::new("promtool").args(arguments).current_dir(folder))
}

#[test]
fn prometheus_accepts_the_rules() {
    promtool(&["check", "rules", "hotpair.rules.yml"]).unwrap();
}

#[test]
fn each_rule_fires_when_it_should_and_only_then() {
    promtool(&["test", "rules", "hotpair.rules.test.yml"]).unwrap();
}

#[test]
fn every_alert_has_a_test_of_its_own() {
    let folder = workspace().join("deploy/prometheus");
    let rules = std::fs::read_to_string(folder.join("hotpair.rules.yml")).unwrap();
    let tests = std::fs::read_to_string(folder.join("hotpair.rules.test.yml")).unwrap();
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let fires = tests.contains(&format!("alertname: {alert}\n        exp_alerts:"));
        assert!(fires, "no test in which {alert} fires");
    }
}
