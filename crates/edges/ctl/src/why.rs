//! `hotpair why`: why is this node master, or not?

use clap::Args;
use hotpair_protocol::Why;
use serde_json::{Value, json};

use crate::admin::{AdminUrl, DEFAULTS, ask_all};
use crate::console::{Console, Outcome};
use crate::origin::TlsArgs;

/// Why is each node master, or not?
#[derive(Args, Clone, Debug)]
pub struct WhyArgs {
    /// Admin address of a node; may be given more than once.
    #[arg(long = "admin", value_name = "URL", default_values = DEFAULTS)]
    pub admin: Vec<AdminUrl>,
    /// Whom to trust.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Prints each node's own story; `Unreachable` if no node answered.
///
/// # Errors
/// When the console cannot be written to.
pub async fn why(args: &WhyArgs, console: &mut Console<'_>) -> anyhow::Result<Outcome> {
    let (admins, dialler) = match args.tls.reach(&args.admin) {
        Ok(reached) => reached,
        Err(text) => {
            console.note(text)?;
            return Ok(Outcome::Usage);
        }
    };
    let asked = ask_all::<Why>(&dialler, &admins, "/why").await;
    if args.json {
        let entry = |asked: &crate::admin::Asked<Why>| {
            let raw = asked.answer.as_ref().map_or(&Value::Null, |(_, raw)| raw);
            json!({ "admin": asked.admin.to_string(), "why": raw, "error": asked.error() })
        };
        let nodes: Vec<Value> = asked.iter().map(entry).collect();
        console.json(&json!({ "nodes": nodes }))?;
    } else {
        for asked in &asked {
            match &asked.answer {
                Ok((why, _)) => {
                    let serving = if why.serving { ", serving" } else { "" };
                    let (node, role, epoch) = (&why.node, &why.role, why.epoch);
                    console.result(format!("{node}: {role}{serving}, epoch {epoch}"))?;
                    for sentence in &why.sentences {
                        console.result(format!("  {sentence}"))?;
                    }
                }
                Err(error) => console.note(format!("{} has no answer: {error}", asked.admin))?,
            }
        }
    }
    let answered = asked.iter().any(|asked| asked.word().is_some());
    Ok(if answered { Outcome::Done } else { Outcome::Unreachable })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fake, nobody, parse, run};

    #[tokio::test]
    async fn each_node_tells_its_own_story() {
        let body = r#"{"node":"a","role":"master","serving":true,"epoch":7,"cause":"gate_open",
            "sentences":["a is master because the gate is open."]}"#;
        let fake = Fake::start(move |_| (200, body.to_owned())).await;
        let args: WhyArgs = parse(&["--admin", &fake.url(), "--admin", &nobody()]);
        let said = run(async |console| why(&args, console).await).await;
        assert_eq!(said.outcome, Outcome::Done);
        assert_eq!(
            said.results,
            "a: master, serving, epoch 7\n  a is master because the gate is open.\n"
        );
        assert!(said.notes.contains("has no answer: cannot connect"), "{}", said.notes);
        assert_eq!(fake.requests(), ["GET /why"]);
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let args: WhyArgs = parse(&["--admin", &nobody(), "--json"]);
        let said = run(async |console| why(&args, console).await).await;
        assert_eq!(said.outcome, Outcome::Unreachable);
        let json: Value = serde_json::from_str(&said.results).unwrap();
        assert_eq!(json["nodes"][0]["why"], Value::Null);
    }
}
