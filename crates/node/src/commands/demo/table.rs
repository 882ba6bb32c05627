//! The demo's end: the logs on disk, the checker's verdict, and one table of all events.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hotpair_lab::checker::Request;
use hotpair_lab::node::Pair;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::session::is_documented;
use serde_json::{Value, json};

use super::counters::Counted;
use super::story::Event;

/// What the demo ends with.
pub(super) struct Verdict {
    pub(super) good: bool,
    pub(super) text: String,
    pub(super) json: Value,
}

/// Writes the logs, has them judged, and puts the journals' causes beside the client's gaps.
pub(super) fn judge(
    scratch: &Scratch,
    pair: &Pair,
    requests: &[Request],
    counted: &[Counted],
    events: &[Event],
) -> Result<Verdict> {
    let requests_file = scratch.write("requests.jsonl", lines(requests)?)?;
    let faults: Vec<Value> = events.iter().map(fault).collect();
    let faults_file = scratch.write("faults.jsonl", lines(&faults)?)?;
    let gates: Vec<PathBuf> =
        pair.nodes.iter().map(|node| node.settings.directory.join("gates.jsonl")).collect();
    let output = super::checker()?
        .arg("--json")
        .arg("--requests")
        .arg(&requests_file)
        .arg("--faults")
        .arg(&faults_file)
        .arg("--gates")
        .args(&gates)
        .output()
        .context("the checker cannot be run")?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("the checker said: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    let journal = journal(pair)?;
    let rows: Vec<Row> = events.iter().map(|event| row(event, &report, &journal)).collect();
    let lost = report["lost"].as_u64().unwrap_or(u64::MAX)
        + report["unknown"].as_u64().unwrap_or(u64::MAX);
    let exact = counted.iter().all(Counted::exact);
    let alive = events.iter().all(|event| event.sessions.0 == event.sessions.1);
    let documented = |event: &Event| event.codes.keys().all(|code| is_documented(code));
    let documented = events.iter().all(documented);
    let outside = events.iter().all(|event| event.outside.good());
    let good = output.status.success() && lost == 0 && exact && alive && documented && outside;
    let text = format!(
        "{}{}{}{}",
        render(&rows, &report, lost, good),
        answers(events),
        counters(counted),
        seen_outside(events)
    );
    let json = json!({
        "good": good,
        "lost": lost,
        "counters": counted.iter().map(Counted::json).collect::<Vec<_>>(),
        "events": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "answers": events.iter().map(|event| json!({"event": event.name, "codes": event.codes}))
            .collect::<Vec<_>>(),
        "outside": events.iter()
            .map(|event| json!({"event": event.name, "seen": event.outside.json()}))
            .collect::<Vec<_>>(),
        "checker": report,
    });
    Ok(Verdict { good, text, json })
}

struct Row {
    event: &'static str,
    cause: String,
    detection_ms: Option<f64>,
    phases: String,
    gap_ms: Option<f64>,
    epochs: (u64, u64),
    sessions: (usize, usize),
    master: String,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "event": self.event, "cause": self.cause, "detection_ms": self.detection_ms,
            "phases": self.phases, "gap_ms": self.gap_ms, "epoch_before": self.epochs.0,
            "epoch_after": self.epochs.1, "master": self.master,
            "sessions_alive": self.sessions.0, "sessions": self.sessions.1,
        })
    }
}

fn row(event: &Event, report: &Value, journal: &[Value]) -> Row {
    let within: Vec<&Value> = journal
        .iter()
        .filter(|line| {
            let at = line["boot_ns"].as_i64().unwrap_or(0);
            line["node"] == event.master.as_str() && at >= event.at_ns && at <= event.until_ns
        })
        .collect();
    let promotion = within.iter().find(|line| line["event"] == "role" && line["to"] == "promoting");
    let detection_ms = promotion
        .and_then(|line| line["boot_ns"].as_i64())
        .map(|at| (at - event.at_ns) as f64 / 1e6);
    let cause = promotion.map_or_else(
        || "no change of role".to_owned(),
        |line| line["cause"].as_str().unwrap_or("?").to_owned(),
    );
    let phases: Vec<String> = within
        .iter()
        .filter(|line| line["event"] == "phase" && line["epoch"] == event.epochs.1)
        .map(|line| format!("{} {}", line["phase"].as_str().unwrap_or("?"), line["ms"]))
        .collect();
    let gap = report["gaps"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|gap| gap["fault"] == event.name)
        .and_then(|gap| gap["gap_ns"].as_f64());
    Row {
        event: event.name,
        cause,
        detection_ms,
        phases: if phases.is_empty() { "-".to_owned() } else { phases.join(", ") },
        gap_ms: gap.map(|ns| ns / 1e6),
        epochs: event.epochs,
        sessions: event.sessions,
        master: event.master.clone(),
    }
}

fn render(rows: &[Row], report: &Value, lost: u64, good: bool) -> String {
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
    let mut text = format!(
        "\n{:<22} {:<18} {:>12} {:>12} {:>9} {:>9}  {:<6} {}\n",
        "event", "cause", "detection", "client gap", "epochs", "sessions", "master", "phases (ms)"
    );
    for row in rows {
        let epochs = format!("{} -> {}", row.epochs.0, row.epochs.1);
        let _ = writeln!(
            text,
            "{:<22} {:<18} {:>12} {:>12} {:>9} {:>9}  {:<6} {}",
            row.event,
            row.cause,
            ms(row.detection_ms),
            ms(row.gap_ms),
            epochs,
            format!("{} of {}", row.sessions.0, row.sessions.1),
            row.master,
            row.phases
        );
    }
    let _ = write!(
        text,
        "\nrequests {}, answered {}, lost {lost}; two gates open together: {} ns; checker: {}",
        report["requests"],
        report["ok"],
        report["overlap_ns"],
        if good { "good" } else { "bad" }
    );
    for violation in report["violations"].as_array().into_iter().flatten() {
        let _ = write!(text, "\nBROKEN: {}", violation.as_str().unwrap_or("?"));
    }
    text
}

/// Every kind of answer that clients saw around each event, behind the router.
fn answers(events: &[Event]) -> String {
    let codes: BTreeSet<&String> = events.iter().flat_map(|event| event.codes.keys()).collect();
    let mut text = format!("\n\n{:<22}", "answers to clients");
    for code in &codes {
        let _ = write!(text, " {code:>10}");
    }
    for event in events {
        let _ = write!(text, "\n{:<22}", event.name);
        for code in &codes {
            let count = event.codes.get(*code).map_or("-".to_owned(), u64::to_string);
            let _ = write!(text, " {count:>10}");
        }
    }
    for code in codes.iter().filter(|code| !is_documented(code)) {
        let _ = write!(text, "\nBROKEN: {code:?} is no documented answer");
    }
    text
}

/// What each client was told, and what its row says.
fn counters(counted: &[Counted]) -> String {
    let mut text = format!("\n\n{:<10} {:>13} {:>9}\n", "client", "acknowledged", "counter");
    for one in counted {
        let counter = one.counter.map_or("-".to_owned(), |value| value.to_string());
        let remark = if one.exact() { "" } else { "  NOT THE SAME" };
        let (client, told) = (&one.client, one.acknowledged);
        let _ = writeln!(text, "{client:<10} {told:>13} {counter:>9}{remark}");
    }
    text
}

/// Prices and heartbeats after each event.
fn seen_outside(events: &[Event]) -> String {
    let mut text =
        format!("\n{:<22} {:>16} {:>20}\n", "afterwards", "price changes", "heartbeats go on");
    for event in events {
        let prices = event
            .outside
            .prices
            .map_or("NO".to_owned(), |(before, after)| format!("{before} .. {after}"));
        let (heard, all) = event.outside.heard;
        let remark = if event.outside.good() { "" } else { "  BROKEN" };
        let heard = format!("{heard} of {all}");
        let _ = writeln!(text, "{:<22} {prices:>16} {heard:>20}{remark}", event.name);
    }
    text
}

fn fault(event: &Event) -> Value {
    json!({"name": event.name, "at_ns": event.at_ns, "until_ns": event.until_ns, "ended": event.ended})
}

fn lines<T: serde::Serialize>(values: &[T]) -> Result<String> {
    let mut text = String::new();
    for value in values {
        text.push_str(&serde_json::to_string(value)?);
        text.push('\n');
    }
    Ok(text)
}

fn journal(pair: &Pair) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for node in &pair.nodes {
        let path = node.settings.directory.join("journal.jsonl");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // The last line of a process that was killed may be half a line.
        all.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
    }
    Ok(all)
}
