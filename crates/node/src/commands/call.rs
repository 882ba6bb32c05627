//! `hotpair call`: discovery through ZooKeeper for the operator's call, and calls in a session.

use std::path::PathBuf;

use anyhow::{Context, Result};
use hotpair_client::{Availability, Client, Error, Function};
use hotpair_ctl::{CallArgs, ClientUrl, Console, Endpoint, FunctionName, Outcome};
use hotpair_protocol::Envelope;
use serde_json::Value;

use super::user::read_password;
use crate::config::{NodeConfig, password_in_environment};
use crate::settings::zookeeper_access;

/// A call, and where to look for who offers it.
#[derive(Debug, clap::Args)]
pub(crate) struct CallArguments {
    #[command(flatten)]
    call: CallArgs,
    /// A node's configuration: names the ZooKeeper, root and pair to look in.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Finds the function where it is registered and calls it there.
pub(crate) fn run(arguments: &CallArguments) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut call = arguments.call.clone();
        let found = match (&arguments.config, arguments.call.wants_discovery()) {
            (Some(config), Some(wanted)) => {
                let config = NodeConfig::read(config)?;
                if call.tls.file().is_none() {
                    call.tls.authority =
                        config.tls.authority.clone().filter(|_| config.tls.is_server());
                }
                let zookeeper =
                    config.coordinator.zookeeper.as_ref().context(
                        "[coordinator.zookeeper] is needed to find a function by its name",
                    )?;
                let access = zookeeper_access(&config, zookeeper)?;
                let all =
                    hotpair_coordinator::read_functions(&access, &zookeeper.root, &config.pair)
                        .await?;
                all.into_iter()
                    .filter(|f| {
                        f.group == wanted.group
                            && f.service == wanted.service
                            && f.version == wanted.version
                    })
                    .filter_map(|f| {
                        let client: ClientUrl = f.endpoints.get("client")?.parse().ok()?;
                        Some(Endpoint { epoch: f.epoch.0, client })
                    })
                    .collect()
            }
            _ => Vec::new(),
        };
        let mut console = Console::standard();
        match &call.user {
            Some(user) => in_session(&call, user, &found, &mut console).await,
            None => hotpair_ctl::call(&call, &found, &mut console).await,
        }
    })
}

/// Calls as a user: numbered, so that it is tried until it is answered or its time is over.
async fn in_session(
    args: &CallArgs,
    user: &str,
    found: &[Endpoint],
    console: &mut Console<'_>,
) -> Result<Outcome> {
    let password = match password_in_environment() {
        Some(password) => password,
        None => match read_password(std::io::stdin().lock()) {
            Ok(password) => password,
            Err(why) => {
                console.note(why)?;
                return Ok(Outcome::Usage);
            }
        },
    };
    let targets: Vec<String> =
        args.endpoints(found).iter().take(TARGETS_MAX).map(ToString::to_string).collect();
    if targets.is_empty() {
        console.note("nobody has registered this service: there is nowhere to call")?;
        return Ok(Outcome::Unreachable);
    }
    let mut builder = Client::builder().targets(targets).call_limit(args.timeout);
    if let Some(authority) = args.tls.file() {
        builder = builder.authority(authority);
    }
    let client = match builder.build() {
        Ok(client) => client,
        Err(error) => {
            console.note(error)?;
            return Ok(Outcome::Usage);
        }
    };
    let answer = answered(&client, args, (user, &password), console).await;
    show(args, answer, &client, console)
}

async fn answered(
    client: &Client,
    args: &CallArgs,
    (user, password): (&str, &str),
    console: &mut Console<'_>,
) -> Result<Value, Error> {
    let function: Function = match &args.function {
        FunctionName::Number(number) => (*number).into(),
        FunctionName::Named { gsv, name } => (gsv.to_string().as_str(), name.as_str()).into(),
    };
    let session = client.log_in(user, password).await?;
    let answer = if args.is_async {
        let ticket = session.start(function, &args.arguments).await?;
        // Whoever cannot be told the ticket still gets the answer.
        let _ = console.note(format!("ticket {}", ticket.name()));
        ticket.result(args.timeout).await
    } else {
        session.call(function, &args.arguments).await
    };
    if let Err(error) = session.log_out().await {
        tracing::debug!(%error, "the session ends by itself");
    }
    answer
}

fn show(
    args: &CallArgs,
    answer: Result<Value, Error>,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<Outcome> {
    let epoch = match *client.availability().borrow() {
        Availability::Serving { epoch } => epoch,
        Availability::Unknown | Availability::Switching | Availability::Down => 0,
    };
    let (outcome, envelope) = match answer {
        Ok(data) if !args.json => {
            console.json(&data)?;
            return Ok(Outcome::Done);
        }
        Ok(data) => (Outcome::Done, Envelope::done(epoch, data)),
        Err(Error::Refused { error_no, info, data }) => {
            if !args.json {
                console.note(format!("{error_no}: {info}"))?;
            }
            (Outcome::No, Envelope::refused(error_no, epoch, info).with_data(data))
        }
        Err(error @ (Error::SessionOver | Error::Answer(_) | Error::UnknownTicket { .. })) => {
            console.note(error)?;
            return Ok(Outcome::No);
        }
        Err(error @ Error::Configuration(_)) => {
            console.note(error)?;
            return Ok(Outcome::Usage);
        }
        Err(error @ (Error::OutcomeUnknown { .. } | Error::TimedOut { .. })) => {
            console.note(error)?;
            return Ok(Outcome::Unreachable);
        }
    };
    if args.json {
        console.json(&envelope)?;
    }
    Ok(outcome)
}

/// Addresses that a client takes.
const TARGETS_MAX: usize = 4;
