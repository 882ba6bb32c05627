//! Dependencies point inwards only: core decides, drivers and edges serve it, node wires.
//!
//! ```text
//! core ◀── drivers
//!  ▲  ◀── edges (protocol and http are the edges' own, shared)
//!  ├───── simulator
//!  │  tls ◀── drivers, edges (who is who on a connection; depends on none of ours)
//!  │   ▲── postgres ◀── drivers (where a database is and how it is connected to)
//!  └───── node ──▶ all of them, and lab     lab ──▶ none of them     integration-tests ──▶ lab, client
//!                                           fuzz ──▶ all of them
//! ```

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::collections::BTreeMap;
use std::process::Command;

use hotpair_integration_tests::workspace;
use hotpair_lab::process::run;
use serde_json::Value;

/// A crate's folder, relative to the root, and the folders of those of our crates it depends on.
type Crates = BTreeMap<String, Vec<String>>;

/// All crates of the workspace as their manifests say, development dependencies included: a test
/// that reaches outwards ties the rings together just as well.
fn crates() -> (Crates, Vec<String>) {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let text = run(Command::new(cargo).args(arguments).current_dir(workspace())).unwrap();
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let root = workspace().to_str().unwrap();
    let folder = |path: &Value| {
        let path = path.as_str().unwrap().trim_end_matches("/Cargo.toml");
        path.trim_start_matches(root).trim_start_matches('/').to_owned()
    };
    let mut all = Crates::new();
    let mut foreign_to_core = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let own = folder(&package["manifest_path"]);
        let dependencies = package["dependencies"].as_array().unwrap();
        if own == "crates/core" {
            let needed = dependencies.iter().filter(|each| each["kind"].is_null());
            foreign_to_core.extend(needed.map(|each| each["name"].as_str().unwrap().to_owned()));
        }
        let ours = dependencies.iter().filter(|each| each["path"].is_string());
        all.insert(own, ours.map(|each| folder(&each["path"])).collect());
    }
    (all, foreign_to_core)
}

/// Whether a crate may depend on another one of ours.
fn may_depend(from: &str, on: &str) -> bool {
    match from {
        "crates/core" | "crates/lab" | "crates/tls" => false,
        // The client library is what programs outside of the pair use: tested as they use it.
        "integration-tests" => ["crates/lab", "crates/edges/client"].contains(&on),
        "crates/node" => !["integration-tests", "crates/fuzz"].contains(&on),
        "crates/fuzz" => on != "integration-tests",
        "crates/simulator" => on == "crates/core",
        "crates/postgres" => on == "crates/tls",
        "crates/edges/protocol" => on == "crates/core",
        _ if from.starts_with("crates/drivers/") => {
            ["crates/core", "crates/tls", "crates/postgres"].contains(&on)
        }
        _ if from.starts_with("crates/edges/") => {
            ["crates/core", "crates/tls", "crates/edges/protocol", "crates/edges/http"]
                .contains(&on)
        }
        // A crate in no known ring must first be given one, here and in docs/architecture.md.
        _ => false,
    }
}

fn violations(crates: &Crates) -> Vec<String> {
    let edges = crates.iter().flat_map(|(from, on)| on.iter().map(move |on| (from, on)));
    edges
        .filter(|(from, on)| !may_depend(from, on))
        .map(|(from, on)| format!("{from}/Cargo.toml depends on {on}"))
        .collect()
}

#[test]
fn dependencies_point_inwards_only() {
    let (crates, _) = crates();
    assert!(crates.contains_key("crates/core") && crates.contains_key("crates/node"));
    assert_eq!(violations(&crates), Vec::<String>::new());
}

/// docs/decisions/0004: an error macro, and a pure hash for checksums and digests.
const DECIDED: [&str; 2] = ["thiserror", "xxhash-rust"];

#[test]
fn core_needs_nothing_from_outside_but_its_error_macro_and_a_hash() {
    let (_, foreign) = crates();
    let surplus: Vec<&String> =
        foreign.iter().filter(|name| !DECIDED.contains(&name.as_str())).collect();
    assert!(surplus.is_empty(), "crates/core/Cargo.toml depends on {surplus:?}");
}

#[test]
fn a_dependency_outwards_would_be_named() {
    let planted =
        |from: &str, on: &str| violations(&Crates::from([(from.to_owned(), vec![on.to_owned()])]));
    assert_eq!(
        planted("crates/core", "crates/drivers/coordinator"),
        ["crates/core/Cargo.toml depends on crates/drivers/coordinator"]
    );
    assert_eq!(planted("crates/drivers/link", "crates/drivers/coordinator").len(), 1);
    assert_eq!(planted("crates/edges/admin", "crates/edges/gateway").len(), 1);
    assert_eq!(planted("integration-tests", "crates/edges/gateway").len(), 1);
    assert_eq!(planted("crates/edges/admin", "crates/drivers/link").len(), 1);
    assert_eq!(planted("crates/simulator", "crates/drivers/link").len(), 1);
    assert_eq!(planted("crates/tls", "crates/core").len(), 1);
    assert_eq!(planted("crates/postgres", "crates/core").len(), 1);
    assert_eq!(planted("crates/edges/gateway", "crates/postgres").len(), 1);
    assert_eq!(planted("crates/unheard-of", "crates/core").len(), 1);
    assert!(planted("crates/edges/ctl", "crates/edges/http").is_empty());
    assert!(planted("crates/drivers/link", "crates/tls").is_empty());
    assert!(planted("crates/node", "crates/drivers/link").is_empty());
}
