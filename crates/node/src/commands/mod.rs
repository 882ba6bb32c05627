//! The commands of the binary, one file each.

pub(crate) mod bench;
pub(crate) mod call;
pub(crate) mod demo;
pub(crate) mod node;
pub(crate) mod release;
pub(crate) mod router;
pub(crate) mod simulate;
pub(crate) mod user;

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use hotpair_ctl::Outcome;

use crate::config::{NodeConfig, RouterConfig};
use crate::settings;

/// Says what went wrong, on standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "hotpair: {error:#}");
}

/// Prints a result.
pub(crate) fn print(text: &str) -> Result<Outcome> {
    write!(std::io::stdout(), "{text}")?;
    Ok(Outcome::Done)
}

/// Runs one of the operator's commands on a small runtime.
pub(crate) fn operator(command: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Reads the file as a node or a router would, and says so when it can be used.
pub(crate) fn check_config(file: &Path) -> Result<Outcome> {
    if RouterConfig::is_meant(file) {
        let config = RouterConfig::read(file)?;
        say_doubts(&config.doubts);
        return print(&format!("{}: router of pair {}: good\n", file.display(), config.pair));
    }
    let config = NodeConfig::read(file)?;
    settings::datasets(&config).map_err(|problems| config_error(file, problems))?;
    say_doubts(&config.doubts);
    print(&format!("{}: node {} of pair {}: good\n", file.display(), config.node, config.pair))
}

/// What is good today and will not be for long.
fn say_doubts(doubts: &[String]) {
    for doubt in doubts {
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(std::io::stderr(), "hotpair: warning: {doubt}");
    }
}

/// Problems that only the parts find, told like those of the file.
pub(crate) fn config_error(file: &Path, problems: Vec<String>) -> anyhow::Error {
    crate::config::ConfigError::new(file, problems).into()
}
