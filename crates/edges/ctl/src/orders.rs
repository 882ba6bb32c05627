//! `hotpair promote` and `hotpair adopt`: orders to one node, which the operator names.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hotpair_http::{Dialler, StatusCode};
use hotpair_protocol::{OrderAnswer, PromoteBody};
use serde_json::json;

use crate::admin::{AdminUrl, unwanted};
use crate::console::{Console, Outcome};
use crate::origin::TlsArgs;
use crate::switchover::token;

/// A node gives up an order by itself; this is for the answer's way.
const ORDER_WITHIN: Duration = Duration::from_secs(32);

/// Make this node master, now.
#[derive(Args, Clone, Debug)]
pub struct PromoteArgs {
    /// Where and how.
    #[command(flatten)]
    pub order: OrderArgs,
    /// Whether or not this node has every change that was acknowledged. What it lacks is lost.
    #[arg(long)]
    pub accept_data_loss: bool,
}

/// Take the ZooKeeper data that this node sees now for the right one, after the old data was lost or
/// moved.
#[derive(Args, Clone, Debug)]
pub struct AdoptArgs {
    /// Where and how.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// An order to one node.
#[derive(Args, Clone, Debug)]
pub struct OrderArgs {
    /// Admin address of the node that is meant.
    #[arg(long = "admin", value_name = "URL")]
    pub admin: AdminUrl,
    /// File with the admin token (`admin.token_file` of the node).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Whom to trust.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Orders a node to be master; `Done` once it serves.
///
/// # Errors
/// When the console cannot be written to.
pub async fn promote(args: &PromoteArgs, console: &mut Console<'_>) -> anyhow::Result<Outcome> {
    let body = PromoteBody { accept_data_loss: args.accept_data_loss };
    let body = serde_json::to_string(&body).expect("a body of plain fields can be written");
    order(&args.order, "/promote", body, console).await
}

/// Orders a node to belong to the ZooKeeper data that it sees now.
///
/// # Errors
/// When the console cannot be written to.
pub async fn adopt(args: &AdoptArgs, console: &mut Console<'_>) -> anyhow::Result<Outcome> {
    order(&args.order, "/adopt", "{}".to_owned(), console).await
}

async fn order(
    args: &OrderArgs,
    path: &str,
    body: String,
    console: &mut Console<'_>,
) -> anyhow::Result<Outcome> {
    let token = match args.token_file.as_deref().map(token).transpose() {
        Ok(token) => token,
        Err(text) => {
            console.note(text)?;
            return Ok(Outcome::Usage);
        }
    };
    let (admins, dialler) = match args.tls.reach(std::slice::from_ref(&args.admin)) {
        Ok(reached) => reached,
        Err(text) => {
            console.note(text)?;
            return Ok(Outcome::Usage);
        }
    };
    let asked = ask(&dialler, &admins[0], path, body, token.as_deref()).await;
    let (text, outcome) = match asked {
        Ok(OrderAnswer { done: true, text }) => (text, Outcome::Done),
        Ok(OrderAnswer { done: false, text }) => (text, Outcome::No),
        Err(refused) => refused,
    };
    if args.json {
        console.json(&json!({ "done": outcome == Outcome::Done, "text": text }))?;
    } else {
        console.result(text)?;
    }
    Ok(outcome)
}

async fn ask(
    dialler: &Dialler,
    admin: &AdminUrl,
    path: &str,
    body: String,
    token: Option<&str>,
) -> Result<OrderAnswer, (String, Outcome)> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> =
        bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    match dialler.post_json(&admin.at(path), &headers, body, ORDER_WITHIN).await {
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
            let text = format!("{error}; whether it was done is not known: see `hotpair status`");
            Err((text, Outcome::Unreachable))
        }
        Err(error) => Err((error.to_string(), Outcome::Unreachable)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fake, Said, nobody, parse, run};

    async fn promoted(arguments: &[&str]) -> Said {
        let args: PromoteArgs = parse(arguments);
        run(async |console| promote(&args, console).await).await
    }

    #[tokio::test]
    async fn a_promotion_is_ordered_at_the_node_named_and_its_answer_shown() {
        let b = Fake::start(|_| (200, r#"{"done":true,"text":"this node serves now"}"#.to_owned()));
        let b = b.await;
        let said = promoted(&["--accept-data-loss", "--admin", &b.url()]).await;
        assert_eq!(
            (said.outcome, said.results.as_str()),
            (Outcome::Done, "this node serves now\n")
        );
        assert_eq!(b.requests(), ["POST /promote"]);
        let order = b.heads().pop().unwrap();
        assert!(order.ends_with(r#"{"accept_data_loss":true}"#), "{order}");
        let args: AdoptArgs = parse(&["--json", "--admin", &b.url()]);
        let said = run(async |console| adopt(&args, console).await).await;
        assert_eq!(said.outcome, Outcome::Done);
        assert_eq!(b.requests(), ["POST /promote", "POST /adopt"]);
        let json: serde_json::Value = serde_json::from_str(&said.results).unwrap();
        assert_eq!(json["done"], true);
    }

    #[tokio::test]
    async fn a_refusal_is_a_no_and_a_node_that_is_not_there_unreachable() {
        for (answer, text) in [
            ((409, r#"{"done":false,"text":"b has them all"}"#), "b has them all"),
            ((401, "a token is needed"), "a token is needed (see --token-file)"),
        ] {
            let b = Fake::start(move |_| (answer.0, answer.1.to_owned())).await;
            let said = promoted(&["--admin", &b.url()]).await;
            assert_eq!(said.outcome, Outcome::No);
            assert!(said.results.trim_end().ends_with(text), "{}", said.results);
        }
        assert_eq!(promoted(&["--admin", &nobody()]).await.outcome, Outcome::Unreachable);
        let hung = Fake::start(|_| (Fake::HANG_UP.0, Fake::HANG_UP.1.to_owned())).await;
        let said = promoted(&["--admin", &hung.url()]).await;
        assert!(said.results.contains("whether it was done is not known"), "{}", said.results);
    }
}
