//! `hotpair call`: discovery through ZooKeeper for the operator's call.

use std::path::PathBuf;

use anyhow::{Context, Result};
use hotpair_ctl::{CallArgs, ClientUrl, Console, Endpoint, Outcome};

use crate::config::NodeConfig;

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
        let found = match (&arguments.config, arguments.call.wants_discovery()) {
            (Some(config), Some(wanted)) => {
                let config = NodeConfig::read(config)?;
                let zookeeper =
                    config.coordinator.zookeeper.as_ref().context(
                        "[coordinator.zookeeper] is needed to find a function by its name",
                    )?;
                let all = hotpair_coordinator::read_functions(
                    &zookeeper.servers,
                    &zookeeper.root,
                    &config.pair,
                )
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
        hotpair_ctl::call(&arguments.call, &found, &mut Console::standard()).await
    })
}
