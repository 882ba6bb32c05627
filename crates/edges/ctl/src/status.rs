//! `hotpair status`: both nodes side by side, and whether the pair is as it should be.

use std::time::Duration;

use clap::Args;
use hotpair_protocol::{DatasetStatus, Status};
use serde_json::{Value, json};

use crate::admin::{AdminUrl, Asked, DEFAULTS, ask_all};
use crate::console::{Console, Outcome};
use crate::origin::TlsArgs;
use crate::table::Table;

/// Both nodes side by side; exit code 0 only if both answer and exactly one serves.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Admin address of a node; give both nodes'.
    #[arg(long = "admin", value_name = "URL", default_values = DEFAULTS)]
    pub admin: Vec<AdminUrl>,
    /// Whom to trust.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Prints both nodes' states; `Done` only if both answer and exactly one serves, `No` otherwise.
///
/// # Errors
/// When the console cannot be written to.
pub async fn status(args: &StatusArgs, console: &mut Console<'_>) -> anyhow::Result<Outcome> {
    let (admins, dialler) = match args.tls.reach(&args.admin) {
        Ok(reached) => reached,
        Err(text) => {
            console.note(text)?;
            return Ok(Outcome::Usage);
        }
    };
    let asked = ask_all::<Status>(&dialler, &admins, "/status").await;
    let answering: Vec<&Status> = asked.iter().filter_map(Asked::word).collect();
    let verdict = judge(args.admin.len(), &answering);
    if args.json {
        let nodes: Vec<Value> = asked.iter().map(entry).collect();
        let serving: Vec<&String> =
            answering.iter().filter(|s| s.role.serving).map(|s| &s.role.node).collect();
        let (ok, text) = match &verdict {
            Ok(text) => (true, text),
            Err(text) => (false, text),
        };
        console.json(&json!({ "ok": ok, "verdict": text, "serving": serving, "nodes": nodes }))?;
    } else {
        if !answering.is_empty() {
            console.result(table(&asked).text())?;
        }
        for asked in &asked {
            remarks(asked, console)?;
        }
        match &verdict {
            Ok(text) | Err(text) => console.result(text)?,
        }
    }
    Ok(if verdict.is_ok() { Outcome::Done } else { Outcome::No })
}

/// Is the pair as it should be? Either way a sentence.
fn judge(asked: usize, answering: &[&Status]) -> Result<String, String> {
    if let [first, rest @ ..] = answering {
        if let Some(other) = rest.iter().find(|s| s.role.pair != first.role.pair) {
            let (one, two) = (&first.role.pair, &other.role.pair);
            return Err(format!("these nodes belong to different pairs: {one} and {two}"));
        }
        if rest.iter().any(|s| s.role.node == first.role.node) {
            return Err(format!("node {} answered twice; give both nodes'", first.role.node));
        }
    }
    let serving: Vec<String> = answering
        .iter()
        .filter(|s| s.role.serving)
        .map(|s| format!("{} in epoch {}", s.role.node, s.role.epoch))
        .collect();
    let who = match serving.as_slice() {
        [] => "nobody serves".to_owned(),
        [one] => format!("{one} serves"),
        [_, _, ..] => format!("more than one node serves: {}", serving.join(", ")),
    };
    if asked < 2 {
        return Err(format!("{who}; only one node was asked, give both with --admin"));
    }
    if answering.len() < asked {
        return Err(format!("{who}; {} of {asked} nodes answered", answering.len()));
    }
    if serving.len() == 1 { Ok(who) } else { Err(who) }
}

fn entry(asked: &Asked<Status>) -> Value {
    let raw = asked.answer.as_ref().map_or(&Value::Null, |(_, raw)| raw);
    json!({ "admin": asked.admin.to_string(), "status": raw, "error": asked.error() })
}

fn table(asked: &[Asked<Status>]) -> Table {
    let mut table = Table::default();
    let mut line = |name: &str, cell: &dyn Fn(&Status) -> String| {
        let cells = asked.iter().map(|asked| asked.word().map_or_else(nothing, cell));
        table.line(name, cells);
    };
    line("node", &|s| s.role.node.clone());
    line("role", &|s| s.role.role.clone());
    line("serving", &|s| if s.role.serving { "yes" } else { "no" }.to_owned());
    line("epoch", &|s| s.role.epoch.to_string());
    line("phase", &|s| s.role.phase.clone().unwrap_or_else(nothing));
    line("for", &|s| span(s.role.since_ms));
    line("coordinator", &|s| format!("{}, {}", s.role.coordinator, s.role.contact));
    line("lease left", &|s| s.lease_left_ms.map_or_else(nothing, |ms| format!("{ms} ms")));
    line("peer", &peer);
    line("in sync", &|s| match s.role.in_sync {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => nothing(),
    });
    line("peer's clock", &|s| {
        s.role.peer.clock_offset_ms.map_or_else(nothing, |ms| format!("{ms:+} ms"))
    });
    line("functions", &|s| {
        let registered = if s.registered { ", registered" } else { "" };
        format!("{}{registered}", s.functions)
    });
    line("datasets", &|s| {
        let all: Vec<String> = s.datasets.iter().map(dataset).collect();
        if all.is_empty() { nothing() } else { all.join("; ") }
    });
    line("alerts", &|s| {
        let names: Vec<&str> = s.alerts.iter().map(|alert| alert.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    });
    line("version", &|s| s.version.clone());
    table.line("admin", asked.iter().map(|asked| asked.admin.to_string()));
    table
}

/// What needs a sentence and would tear the table apart.
fn remarks(asked: &Asked<Status>, console: &mut Console<'_>) -> std::io::Result<()> {
    let status = match &asked.answer {
        Ok((status, _)) => status,
        Err(error) => return console.note(format!("{} has no answer: {error}", asked.admin)),
    };
    let node = &status.role.node;
    console.result(format!("{node} is {}: {}", status.role.role, status.reason))?;
    if let Some(guard) = &status.guard {
        console.result(format!("{node} cannot become master: {guard}"))?;
    }
    for alert in &status.alerts {
        console.result(format!("{node} {} {}: {}", alert.severity, alert.name, alert.text))?;
    }
    Ok(())
}

fn peer(status: &Status) -> String {
    let peer = &status.role.peer;
    let name = peer.node.as_deref().unwrap_or("unknown");
    match (peer.reachable, status.peer_detail.gone, &peer.role) {
        (true, _, Some(role)) => format!("{name}, {role}"),
        (true, _, None) => format!("{name}, reachable"),
        (false, true, _) => format!("{name}, dead"),
        (false, false, _) => format!("{name}, unreachable"),
    }
}

fn dataset(dataset: &DatasetStatus) -> String {
    let DatasetStatus { name, state, rows, percent, .. } = dataset;
    match state.as_str() {
        "loading" => format!("{name} loading {percent} %, {rows} rows"),
        "ready" => format!("{name} ready, {rows} rows"),
        other => format!("{name} {other}"),
    }
}

fn nothing() -> String {
    "-".to_owned()
}

/// A length of time, to the second once it is longer than that.
fn span(ms: u64) -> String {
    let ms = if ms >= 1_000 { ms / 1_000 * 1_000 } else { ms };
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

#[cfg(test)]
mod tests {
    use hotpair_protocol::Role;

    use super::*;
    use crate::testing::{Fake, Said, nobody, parse, run};

    fn node(name: &str, serving: bool) -> Status {
        let role = if serving { "master" } else { "standby" };
        Status {
            role: Role {
                pair: "trade".to_owned(),
                node: name.to_owned(),
                role: role.to_owned(),
                serving,
                epoch: 7,
                since_ms: 61_234,
                ..Role::default()
            },
            reason: "the gate is open".to_owned(),
            ..Status::default()
        }
    }

    async fn fake(status: &Status) -> Fake {
        let body = serde_json::to_string(status).unwrap();
        Fake::start(move |_| (200, body.clone())).await
    }

    async fn said(arguments: &[&str]) -> Said {
        let args: StatusArgs = parse(arguments);
        run(async |console| status(&args, console).await).await
    }

    #[tokio::test]
    async fn two_nodes_of_which_one_serves_are_well() {
        let (a, b) = (fake(&node("a", true)).await, fake(&node("b", false)).await);
        let said = said(&["--admin", &a.url(), "--admin", &b.url()]).await;
        assert_eq!(said.outcome, Outcome::Done);
        let lines: Vec<&str> = said.results.lines().map(str::trim_end).collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[0]), ["node", "a", "b"]);
        assert_eq!(words(lines[1]), ["role", "master", "standby"]);
        assert_eq!(words(lines[2]), ["serving", "yes", "no"]);
        assert_eq!(words(lines[5]), ["for", "1m", "1s", "1m", "1s"]);
        assert!(lines.contains(&"a is master: the gate is open"), "{}", said.results);
        assert_eq!(lines.last(), Some(&"a in epoch 7 serves"));
    }

    #[tokio::test]
    async fn anything_else_is_a_no_with_a_sentence() {
        let (a, b) = (fake(&node("a", true)).await, fake(&node("b", true)).await);
        let idle = fake(&node("b", false)).await;
        let mut stranger = node("x", false);
        stranger.role.pair = "books".to_owned();
        let stranger = fake(&stranger).await;
        let cases = [
            (a.url(), b.url(), "more than one node serves: a in epoch 7, b in epoch 7"),
            (a.url(), nobody(), "a in epoch 7 serves; 1 of 2 nodes answered"),
            (nobody(), nobody(), "nobody serves; 0 of 2 nodes answered"),
            (a.url(), a.url(), "node a answered twice; give both nodes'"),
            (a.url(), stranger.url(), "these nodes belong to different pairs: trade and books"),
        ];
        for (one, two, sentence) in cases {
            let said = said(&["--admin", &one, "--admin", &two]).await;
            assert_eq!(said.outcome, Outcome::No, "{sentence}");
            assert_eq!(said.results.lines().last(), Some(sentence));
        }
        let said = said(&["--admin", &idle.url()]).await;
        assert_eq!(said.outcome, Outcome::No);
        assert!(said.results.contains("only one node was asked"), "{}", said.results);
    }

    #[tokio::test]
    async fn json_has_what_the_nodes_said_word_for_word() {
        let body = serde_json::to_value(node("a", true)).unwrap();
        let mut richer = body.clone();
        richer["later"] = json!([1]);
        let a = Fake::start(move |_| (200, richer.to_string())).await;
        let b = Fake::start(|_| (503, "busy".to_owned())).await;
        let said = said(&["--json", "--admin", &a.url(), "--admin", &b.url()]).await;
        assert_eq!(said.outcome, Outcome::No);
        let json: Value = serde_json::from_str(&said.results).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["serving"], json!(["a"]));
        assert_eq!(json["nodes"][0]["status"]["later"], json!([1]));
        assert_eq!(json["nodes"][0]["status"]["epoch"], body["epoch"]);
        assert_eq!(json["nodes"][1]["error"], "it answered 503 Service Unavailable: busy");
    }
}
