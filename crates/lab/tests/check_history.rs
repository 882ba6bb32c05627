//! The checker as a program: what the demo and an operator run on the logs of a run.

use std::process::{Command, Output};

use anyhow::Result;
use hotpair_lab::scratch::Scratch;

const REQUESTS: &str = r#"{"at_ns":10,"done_ns":20,"request":1,"node":"a","epoch":1,"error_no":0,"outcome":"ok"}
{"at_ns":30,"done_ns":60,"request":2,"node":"b","epoch":2,"error_no":0,"outcome":"ok"}
"#;
const GATES: &str = r#"{"node":"a","epoch":1,"open_ns":0,"close_ns":40}
{"node":"b","epoch":2,"open_ns":50}
"#;

fn check(requests: &str, gates: &str) -> Result<Output> {
    let scratch = Scratch::new("history")?;
    let requests = scratch.write("requests.jsonl", requests)?;
    let gates = scratch.write("gates.jsonl", gates)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotpair-check-history"));
    Ok(command.arg("--requests").arg(requests).arg("--gates").arg(gates).output()?)
}

#[test]
fn a_good_history_is_called_good() {
    let output = check(REQUESTS, GATES).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("requests 2: ok 2, failed 0, unknown 0, lost 0"), "{said}");
}

#[test]
fn a_broken_rule_is_the_answer_no() {
    let output = check(REQUESTS, &GATES.replace("\"open_ns\":50", "\"open_ns\":39")).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("BROKEN: the gates of a (epoch 1) and b (epoch 2)"), "{said}");
    assert!(said.contains("two gates open together: 1 ns"), "{said}");
}

#[test]
fn half_a_last_line_of_a_killed_writer_is_no_matter() {
    let output = check(REQUESTS, &format!("{GATES}{{\"node\":\"b\",\"ep")).unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_log_that_cannot_be_read_is_named_with_its_line() {
    let output = check(&format!("nonsense\n{REQUESTS}"), GATES).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("requests.jsonl, line 1"), "{said}");
}
