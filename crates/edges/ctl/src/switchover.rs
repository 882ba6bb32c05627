//! `hotpair switchover`: finds the master and asks it to hand over to its peer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use hotpair_http::{Dialler, StatusCode};
use hotpair_protocol::{Role, SwitchoverAnswer, SwitchoverBody, SwitchoverPhase};
use serde_json::json;

use crate::admin::{AdminUrl, Asked, DEFAULTS, ask_all, unwanted};
use crate::console::{Console, Outcome};
use crate::origin::TlsArgs;

/// A node gives up a switchover after 5 s by itself; this is for the answer's way.
const ORDER_WITHIN: Duration = Duration::from_secs(15);

/// Hand the mastership over to the other node.
#[derive(Args, Clone, Debug)]
pub struct SwitchoverArgs {
    /// Admin address of a node; the one that serves is found.
    #[arg(long = "admin", value_name = "URL", default_values = DEFAULTS)]
    pub admin: Vec<AdminUrl>,
    /// File with the admin token (`admin.token_file` of the nodes).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Only ask whether it would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Whom to trust.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Orders a switchover at the node that serves; `Done` once it has given the mastership away.
///
/// # Errors
/// When the console cannot be written to.
pub async fn switchover(
    args: &SwitchoverArgs,
    console: &mut Console<'_>,
) -> anyhow::Result<Outcome> {
    let token = match args.token_file.as_deref().map(token).transpose() {
        Ok(token) => token,
        Err(text) => {
            console.note(text)?;
            return Ok(Outcome::Usage);
        }
    };
    let (admins, dialler) = match args.tls.reach(&args.admin) {
        Ok(reached) => reached,
        Err(text) => {
            console.note(text)?;
            return Ok(Outcome::Usage);
        }
    };
    let asked = ask_all::<Role>(&dialler, &admins, "/role").await;
    let (admin, master) = match master(&asked) {
        Ok(found) => found,
        Err(text) => {
            for asked in &asked {
                if let Some(error) = asked.error() {
                    console.note(format!("{} has no answer: {error}", asked.admin))?;
                }
            }
            let nobody = asked.iter().all(|asked| asked.word().is_none());
            let outcome = if nobody { Outcome::Unreachable } else { Outcome::No };
            return show(args, None, &untold(args, text), outcome, console);
        }
    };
    let order = order(&dialler, admin, args.dry_run, token.as_deref()).await;
    let node = Some(master.node.as_str());
    match order {
        Ok(answer) => {
            let outcome = if answer.done { Outcome::Done } else { Outcome::No };
            show(args, node, &answer, outcome, console)
        }
        Err((text, outcome)) => show(args, node, &untold(args, text), outcome, console),
    }
}

/// The one node that serves, or why there is none to be asked.
fn master(asked: &[Asked<Role>]) -> Result<(&AdminUrl, &Role), String> {
    let answering = asked.iter().filter_map(|a| a.word().map(|role| (&a.admin, role)));
    let mut serving: Vec<(&AdminUrl, &Role)> = answering.filter(|(_, r)| r.serving).collect();
    // The same node under two addresses is one master.
    serving.dedup_by(|(_, a), (_, b)| (&a.pair, &a.node) == (&b.pair, &b.node));
    match serving.as_slice() {
        [one] => Ok(*one),
        [] => Err("no node that answers serves, so that there is nobody to ask".to_owned()),
        [_, _, ..] => {
            let all = serving.iter().map(|(_, r)| format!("{} in epoch {}", r.node, r.epoch));
            let all = all.collect::<Vec<_>>().join(", ");
            Err(format!("more than one node serves ({all}): nothing was ordered"))
        }
    }
}

async fn order(
    dialler: &Dialler,
    admin: &AdminUrl,
    dry_run: bool,
    token: Option<&str>,
) -> Result<SwitchoverAnswer, (String, Outcome)> {
    let body = serde_json::to_string(&SwitchoverBody { dry_run })
        .expect("a body of plain fields can be written");
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> =
        bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    match dialler.post_json(&admin.at("/switchover"), &headers, body, ORDER_WITHIN).await {
        // Refusals bear the same body as the deed; what has none was refused before it was read.
        Ok(answer) => serde_json::from_slice(&answer.body).map_err(|_| {
            let hint = match answer.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => " (see --token-file)",
                _ => "",
            };
            let text = format!("{admin}: {}{hint}", unwanted(answer.status, &answer.body));
            (text, Outcome::No)
        }),
        Err(error) if error.was_sent() => {
            let text = format!("{error}; whether it switched is not known: see `hotpair status`");
            Err((text, Outcome::Unreachable))
        }
        Err(error) => Err((error.to_string(), Outcome::Unreachable)),
    }
}

/// The answer that no node gave.
fn untold(args: &SwitchoverArgs, text: String) -> SwitchoverAnswer {
    let (dry_run, reason) = (args.dry_run, Some(text.clone()));
    SwitchoverAnswer { dry_run, text, reason, ..SwitchoverAnswer::default() }
}

fn show(
    args: &SwitchoverArgs,
    node: Option<&str>,
    answer: &SwitchoverAnswer,
    outcome: Outcome,
    console: &mut Console<'_>,
) -> anyhow::Result<Outcome> {
    let SwitchoverAnswer { text, phases, .. } = answer;
    if args.json {
        let mut json = json!(answer);
        json["node"] = json!(node);
        console.json(&json)?;
        return Ok(outcome);
    }
    for phase in phases {
        console.result(line(phase, args.dry_run))?;
    }
    console.result(match node {
        Some(node) => format!("{node}: {text}"),
        None => text.clone(),
    })?;
    Ok(outcome)
}

fn line(phase: &SwitchoverPhase, dry_run: bool) -> String {
    let SwitchoverPhase { phase, ms, ms_max } = phase;
    match (dry_run, ms_max) {
        (true, Some(ms_max)) => format!("{phase:<10} at most {ms_max} ms"),
        (true, None) => phase.clone(),
        (false, _) => format!("{phase:<10} {ms} ms"),
    }
}

/// The token in a file: its only line.
pub(crate) fn token(file: &Path) -> Result<String, String> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the token file {name}: {error}"))?;
    let token = text.trim();
    if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("the token file {name} must hold one token on one line"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fake, Said, nobody, parse, run};

    fn role(node: &str, serving: bool) -> String {
        let (pair, node) = ("trade".to_owned(), node.to_owned());
        serde_json::to_string(&Role { pair, node, serving, ..Role::default() }).unwrap()
    }

    async fn node(name: &'static str, serving: bool, order: (u16, &'static str)) -> Fake {
        Fake::start(move |request| match request {
            "GET /role" => (200, role(name, serving)),
            _ => (order.0, order.1.to_owned()),
        })
        .await
    }

    async fn said(arguments: &[&str]) -> Said {
        let args: SwitchoverArgs = parse(arguments);
        run(async |console| switchover(&args, console).await).await
    }

    const GIVEN: (u16, &str) = (200, r#"{"done":true,"dry_run":false,"text":"b is master"}"#);

    #[tokio::test]
    async fn the_phases_are_shown_with_their_times_and_dry_with_their_limits() {
        let answer = r#"{"done":true,"dry_run":false,"text":"b serves","epoch":8,
            "phases":[{"phase":"drain","ms":12},{"phase":"barrier","ms":3}]}"#;
        let a = node("a", true, (200, answer)).await;
        let shown = said(&["--admin", &a.url()]).await;
        assert_eq!(shown.results, "drain      12 ms\nbarrier    3 ms\na: b serves\n");
        let json = said(&["--json", "--admin", &a.url()]).await;
        let json: serde_json::Value = serde_json::from_str(&json.results).unwrap();
        assert_eq!((&json["epoch"], &json["phases"][1]["ms"]), (&json!(8), &json!(3)), "{json}");
        let answer = r#"{"done":true,"dry_run":true,"text":"would","phases":[
            {"phase":"hold","ms":0},{"phase":"drain","ms":0,"ms_max":1000}]}"#;
        let a = node("a", true, (200, answer)).await;
        let dry = said(&["--dry-run", "--admin", &a.url()]).await;
        assert_eq!(dry.results, "hold\ndrain      at most 1000 ms\na: would\n");
    }

    #[tokio::test]
    async fn the_order_goes_to_the_node_that_serves_with_the_token() {
        let (a, b) = (node("a", false, (500, "")).await, node("b", true, GIVEN).await);
        let file = std::env::temp_dir().join(format!("hotpair-ctl-{}.token", std::process::id()));
        std::fs::write(&file, "secret\n").unwrap();
        let path = file.to_str().unwrap();
        let said = said(&["--admin", &a.url(), "--admin", &b.url(), "--token-file", path]).await;
        std::fs::remove_file(&file).unwrap();
        assert_eq!((said.outcome, said.results.as_str()), (Outcome::Done, "b: b is master\n"));
        assert_eq!(a.requests(), ["GET /role"]);
        assert_eq!(b.requests(), ["GET /role", "POST /switchover"]);
        let order = b.heads().pop().unwrap();
        assert!(order.contains("authorization: Bearer secret"), "{order}");
        assert!(order.ends_with(r#"{"dry_run":false}"#), "{order}");
    }

    #[tokio::test]
    async fn a_refusal_is_a_no() {
        let refusal = r#"{"done":false,"dry_run":true,"text":"the peer is not connected"}"#;
        for (order, text) in [
            ((409, refusal), "the peer is not connected"),
            ((401, "a token is needed"), "a token is needed (see --token-file)"),
        ] {
            let a = node("a", true, order).await;
            let said = said(&["--dry-run", "--json", "--admin", &a.url()]).await;
            assert_eq!(said.outcome, Outcome::No);
            let json: serde_json::Value = serde_json::from_str(&said.results).unwrap();
            assert!(json["text"].as_str().unwrap().ends_with(text), "{json}");
            assert_eq!(json["done"], false);
        }
    }

    #[tokio::test]
    async fn without_exactly_one_master_nothing_is_ordered() {
        let (a, b) = (node("a", true, GIVEN).await, node("b", true, GIVEN).await);
        let idle = node("b", false, GIVEN).await;
        let two = said(&["--admin", &a.url(), "--admin", &b.url()]).await;
        assert_eq!(two.outcome, Outcome::No);
        assert!(two.results.contains("nothing was ordered"), "{}", two.results);
        let none = said(&["--admin", &nobody(), "--admin", &idle.url()]).await;
        assert_eq!(none.outcome, Outcome::No);
        let silent = said(&["--admin", &nobody()]).await;
        assert_eq!(silent.outcome, Outcome::Unreachable);
        for fake in [a, b, idle] {
            assert_eq!(fake.requests(), ["GET /role"]);
        }
    }

    #[tokio::test]
    async fn an_order_without_an_answer_may_have_been_carried_out() {
        let a = node("a", true, Fake::HANG_UP).await;
        let said = said(&["--admin", &a.url()]).await;
        assert_eq!(said.outcome, Outcome::Unreachable);
        assert!(said.results.contains("whether it switched is not known"), "{}", said.results);
    }

    #[tokio::test]
    async fn a_token_file_that_cannot_be_read_is_wrong_usage() {
        let said = said(&["--token-file", "/no/such/file"]).await;
        assert_eq!(said.outcome, Outcome::Usage);
        assert!(said.notes.contains("/no/such/file"), "{}", said.notes);
    }
}
