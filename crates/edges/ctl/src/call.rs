//! `hotpair call`: calls a function from the shell.
//!
//! The endpoints are tried in order, the newest epoch first. The next one is tried only when the one
//! before surely did not execute the call: nobody listened, or it answered that it does not serve.
//! Any other end is the answer: a call without a session has no number, so that sending it twice
//! might do it twice.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use hotpair_http::{Dialler, StatusCode};
use hotpair_protocol::{CallBody, ErrorNumber};
use serde_json::Value;

use crate::admin::unwanted;
use crate::console::{Console, Outcome};
use crate::origin::{Origin, TlsArgs};

/// Endpoints tried at most, those that others named counted.
const TRIES_MAX: usize = 8;
/// The nodes of a pair on one machine with the example configuration.
const DEFAULTS: [&str; 2] = ["127.0.0.1:7100", "127.0.0.1:7200"];

/// Call a function.
#[derive(Args, Clone, Debug)]
pub struct CallArgs {
    /// The function: its number, or GROUP/SERVICE/VERSION:NAME.
    #[arg(value_name = "NUMBER|GROUP/SERVICE/VERSION:NAME")]
    pub function: FunctionName,
    /// What the function takes, in JSON.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json)]
    pub arguments: Value,
    /// Log in as this user for the call; the password is in HOTPAIR_PASSWORD, or one line of standard
    /// input. The call is numbered then, and lives through a switch.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Begin the call, print its ticket to standard error, and then wait for its answer.
    #[arg(long = "async", requires = "user")]
    pub is_async: bool,
    /// Where to call (a node's or a router's client address); may be given more than once. Without
    /// it a name is looked up in the coordinator.
    #[arg(long = "url", value_name = "URL")]
    pub urls: Vec<ClientUrl>,
    /// For all of it.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Whom to trust.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Print the whole envelope of the answer, not its data only.
    #[arg(long)]
    pub json: bool,
}

impl CallArgs {
    /// The service whose endpoints the caller of [`call`] has to find, if it has to.
    #[must_use]
    pub fn wants_discovery(&self) -> Option<&Gsv> {
        match &self.function {
            FunctionName::Named { gsv, .. } if self.urls.is_empty() => Some(gsv),
            FunctionName::Named { .. } | FunctionName::Number(_) => None,
        }
    }

    /// Where to call, in the order in which to try; `discovered` is looked at only if
    /// [`CallArgs::wants_discovery`] says so.
    #[must_use]
    pub fn endpoints(&self, discovered: &[Endpoint]) -> Vec<ClientUrl> {
        let all: Vec<ClientUrl> = if self.wants_discovery().is_some() {
            let mut found = discovered.to_vec();
            found.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.epoch));
            found.into_iter().map(|endpoint| endpoint.client).collect()
        } else if self.urls.is_empty() {
            DEFAULTS.iter().map(|url| url.parse().expect("it is an address")).collect()
        } else {
            self.urls.clone()
        };
        all.iter().map(|url| url.settled(&self.tls)).collect()
    }
}

/// A function's number, or its name within a group, service and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FunctionName {
    /// Its number.
    Number(u32),
    /// Its name.
    Named {
        /// The service it belongs to.
        gsv: Gsv,
        /// Its name there.
        name: String,
    },
}

/// A group, service and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gsv {
    /// The group.
    pub group: String,
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
}

impl fmt::Display for Gsv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.group, self.service, self.version)
    }
}

impl FromStr for FunctionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        let wanted = || "a function is a number, or GROUP/SERVICE/VERSION:NAME".to_owned();
        let (gsv, name) = text.rsplit_once(':').ok_or_else(wanted)?;
        let parts: Vec<&str> = gsv.split('/').collect();
        match parts.as_slice() {
            [group, service, version]
                if !parts.iter().any(|part| part.is_empty()) && !name.is_empty() =>
            {
                let gsv = Gsv {
                    group: (*group).to_owned(),
                    service: (*service).to_owned(),
                    version: (*version).to_owned(),
                };
                Ok(Self::Named { gsv, name: name.to_owned() })
            }
            _ => Err(wanted()),
        }
    }
}

/// A client address.
pub type ClientUrl = Origin;

/// Where a service was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The epoch it was registered in.
    pub epoch: u64,
    /// Its client address.
    pub client: ClientUrl,
}

/// How one try ended.
enum Try {
    /// The call was answered, or may have been executed.
    Ended(Result<Value, String>),
    /// The call was surely not executed there; who serves, if that was said.
    NotThere { why: String, master: Option<ClientUrl> },
}

/// Calls the function and prints its answer's data; `Done` if the error number is 0, `No` for any
/// other, `Unreachable` without an answer.
///
/// `discovered` is looked at only if [`CallArgs::wants_discovery`] says so.
///
/// # Errors
/// When the console cannot be written to.
pub async fn call(
    args: &CallArgs,
    discovered: &[Endpoint],
    console: &mut Console<'_>,
) -> anyhow::Result<Outcome> {
    let deadline = Instant::now() + args.timeout;
    let (urls, dialler) = match args.tls.reach(&args.endpoints(discovered)) {
        Ok(reached) => reached,
        Err(text) => {
            console.note(text)?;
            return Ok(Outcome::Usage);
        }
    };
    let mut urls: VecDeque<ClientUrl> = urls.into();
    if urls.is_empty() {
        console.note("nobody has registered this service: there is nowhere to call")?;
        return Ok(Outcome::Unreachable);
    }
    let body = body(args);
    let mut tried: Vec<ClientUrl> = Vec::new();
    while let Some(url) = urls.pop_front() {
        if tried.contains(&url) || tried.len() >= TRIES_MAX {
            continue;
        }
        match try_one(&dialler, &url, &body, deadline.saturating_duration_since(Instant::now()))
            .await
        {
            Try::Ended(Ok(envelope)) => return show(args, &envelope, console),
            Try::Ended(Err(why)) => {
                console.note(format!("{url}: {why}; whether it was executed is not known"))?;
                return Ok(Outcome::Unreachable);
            }
            Try::NotThere { why, master } => {
                console.note(format!("{url}: {why}"))?;
                if let Some(master) = master {
                    urls.push_front(master.settled(&args.tls));
                }
            }
        }
        tried.push(url);
    }
    console.note("no endpoint took the call; it was not executed")?;
    Ok(Outcome::Unreachable)
}

fn body(args: &CallArgs) -> String {
    let (function, gsv, name) = match &args.function {
        FunctionName::Number(number) => (Some(*number), None, None),
        FunctionName::Named { gsv, name } => (None, Some(gsv.to_string()), Some(name.clone())),
    };
    let timeout_ms = u64::try_from(args.timeout.as_millis()).ok();
    let arguments = args.arguments.clone();
    let body = CallBody { function, gsv, name, arguments, timeout_ms, ..CallBody::default() };
    serde_json::to_string(&body).expect("a body of JSON values can be written")
}

async fn try_one(dialler: &Dialler, url: &ClientUrl, body: &str, limit: Duration) -> Try {
    let address = format!("{url}/v1/call");
    let answer = match dialler.post_json(&address, &[], body.to_owned(), limit).await {
        Ok(answer) => answer,
        Err(error) if error.was_sent() => return Try::Ended(Err(error.to_string())),
        Err(error) => return Try::NotThere { why: error.to_string(), master: None },
    };
    // An empty 503 is a router's word that both nodes are down.
    if answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.body.is_empty() {
        let why = "both nodes are down, it says".to_owned();
        return Try::NotThere { why, master: None };
    }
    let envelope: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let Some(envelope) = envelope.filter(|envelope| envelope["error_no"].is_i64()) else {
        return Try::Ended(Err(unwanted(answer.status, &answer.body)));
    };
    if envelope["error_no"] == ErrorNumber::NotServing.number() {
        let master = envelope["data"]["master"].as_str().and_then(|text| text.parse().ok());
        return Try::NotThere { why: sentence(&envelope), master };
    }
    Try::Ended(Ok(envelope))
}

fn show(args: &CallArgs, envelope: &Value, console: &mut Console<'_>) -> anyhow::Result<Outcome> {
    let done = envelope["error_no"] == ErrorNumber::Done.number();
    if args.json {
        console.json(envelope)?;
    } else if done {
        console.json(&envelope["data"])?;
    } else {
        console.note(sentence(envelope))?;
        if let Some(ms) = envelope["retry_after_ms"].as_u64() {
            console.note(format!("it may help to try again after {ms} ms"))?;
        }
    }
    Ok(if done { Outcome::Done } else { Outcome::No })
}

/// An error number and what it means, with what the server says to it.
fn sentence(envelope: &Value) -> String {
    let number = envelope["error_no"].as_i64().unwrap_or_default();
    let known = ErrorNumber::from_number(number);
    let mut text = known.map_or_else(|| number.to_string(), |known| known.to_string());
    if let Some(info) = envelope["error_info"].as_str().filter(|info| !info.is_empty()) {
        text.push_str(": ");
        text.push_str(info);
    }
    text
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("this is no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Fake, Said, nobody, parse, run, try_parse};

    const DONE: &str = r#"{"error_no":0,"error_info":"","epoch":7,"data":{"x":1}}"#;
    const NOT_SERVING: &str =
        r#"{"error_no":308000005,"error_info":"b is a standby","epoch":7,"data":{}}"#;

    async fn fake(status: u16, body: &str) -> Fake {
        let body = body.to_owned();
        Fake::start(move |_| (status, body.clone())).await
    }

    async fn said(arguments: &[&str], discovered: &[Endpoint]) -> Said {
        let args: CallArgs = parse(arguments);
        run(async |console| call(&args, discovered, console).await).await
    }

    #[test]
    fn a_function_is_a_number_or_a_name_in_a_service() {
        assert_eq!("1901".parse(), Ok(FunctionName::Number(1901)));
        let gsv = Gsv { group: "g".into(), service: "s".into(), version: "1.0".into() };
        let named = FunctionName::Named { gsv, name: "echo".to_owned() };
        assert_eq!("g/s/1.0:echo".parse(), Ok(named));
        for bad in ["", "echo", "g/s:echo", "g//1.0:echo", "g/s/1.0:", "g/s/1.0/x:echo", "-1"] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for (bad, name) in [
            (&["nothing"][..], "GROUP/SERVICE/VERSION:NAME"),
            (&["1", "--arguments", "{"], "--arguments"),
            (&["1", "--url", "ftp://x"], "--url"),
            (&["1", "--timeout", "soon"], "--timeout"),
        ] {
            let error = try_parse::<CallArgs>(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[tokio::test]
    async fn the_answer_s_data_is_the_result() {
        let fake = fake(200, DONE).await;
        let said = said(&["1901", "--arguments", r#"{"x":1}"#, "--url", &fake.url()], &[]).await;
        assert_eq!(said.outcome, Outcome::Done);
        assert_eq!(serde_json::from_str::<Value>(&said.results).unwrap(), json!({ "x": 1 }));
        assert_eq!(fake.requests(), ["POST /v1/call"]);
        let head = fake.heads().pop().unwrap();
        let body: Value = serde_json::from_str(head.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let wanted = json!({ "function": 1901, "arguments": { "x": 1 }, "timeout_ms": 5_000 });
        assert_eq!(body, wanted);
    }

    #[tokio::test]
    async fn a_name_goes_to_the_newest_epoch_that_was_found() {
        let (old, new) = (fake(200, DONE).await, fake(200, DONE).await);
        let endpoint = |epoch, fake: &Fake| {
            let client = fake.address().parse().unwrap();
            Endpoint { epoch, client }
        };
        let found = [endpoint(6, &old), endpoint(7, &new)];
        let args = ["hotpair/test/1.0:echo", "--json"];
        assert!(parse::<CallArgs>(&args).wants_discovery().is_some());
        let said = said(&args, &found).await;
        assert_eq!(said.outcome, Outcome::Done);
        assert_eq!(serde_json::from_str::<Value>(&said.results).unwrap()["epoch"], 7);
        assert_eq!((old.requests().len(), new.requests().len()), (0, 1));
        let head = new.heads().pop().unwrap();
        assert!(head.contains(r#""gsv":"hotpair/test/1.0","name":"echo""#), "{head}");
    }

    #[tokio::test]
    async fn a_service_that_nobody_registered_is_unreachable() {
        let said = said(&["hotpair/test/1.0:echo"], &[]).await;
        assert_eq!(said.outcome, Outcome::Unreachable);
    }

    #[tokio::test]
    async fn who_surely_did_not_execute_it_is_passed_by() {
        let (standby, master) = (fake(200, NOT_SERVING).await, fake(200, DONE).await);
        let (one, two, three) = (nobody(), standby.url(), master.url());
        let said = said(&["1901", "--url", &one, "--url", &two, "--url", &three], &[]).await;
        assert_eq!(said.outcome, Outcome::Done);
        assert!(said.notes.contains("b is a standby"), "{}", said.notes);
    }

    #[tokio::test]
    async fn the_master_that_a_standby_names_is_followed() {
        let master = fake(200, DONE).await;
        let mut answer: Value = serde_json::from_str(NOT_SERVING).unwrap();
        answer["data"] = json!({ "master": master.address() });
        let standby = fake(200, &answer.to_string()).await;
        let said = said(&["1901", "--url", &standby.url()], &[]).await;
        assert_eq!((said.outcome, master.requests().len()), (Outcome::Done, 1));
    }

    #[tokio::test]
    async fn what_may_have_been_executed_is_never_sent_again() {
        let lost = fake(Fake::HANG_UP.0, "").await;
        let switching = fake(
            200,
            r#"{"error_no":308000000,"error_info":"","epoch":7,"data":{},"retry_after_ms":50}"#,
        )
        .await;
        let next = fake(200, DONE).await;
        for (first, outcome, text) in [
            (&lost, Outcome::Unreachable, "whether it was executed is not known"),
            (&switching, Outcome::No, "308000000 (switching)"),
        ] {
            let said = said(&["1901", "--url", &first.url(), "--url", &next.url()], &[]).await;
            assert_eq!(said.outcome, outcome);
            assert!(said.notes.contains(text), "{}", said.notes);
        }
        assert_eq!(next.requests().len(), 0);
    }

    #[tokio::test]
    async fn an_error_number_of_a_later_version_is_still_a_no() {
        let fake = fake(200, r#"{"error_no":308009999,"error_info":"new","epoch":1}"#).await;
        let said = said(&["1901", "--url", &fake.url()], &[]).await;
        assert_eq!(said.outcome, Outcome::No);
        assert!(said.notes.contains("308009999: new"), "{}", said.notes);
    }
}
