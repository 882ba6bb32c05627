//! `hotpair-check-history`: judges the logs of a run; exit 0 good, 1 a rule broken, 2 unreadable.
//!
//! It shares no code with the product: what it says does not rest on what the product believes.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use hotpair_lab::checker::{Enough, History, check_run, read_log};
use serde::de::DeserializeOwned;

/// Judges the logs of a run: nothing lost, doubled or stale, no epoch going back, no two gates open together.
#[derive(Debug, Parser)]
#[command(name = "hotpair-check-history")]
struct Arguments {
    /// The clients' request logs.
    #[arg(long, required = true, num_args = 1..)]
    requests: Vec<PathBuf>,
    /// The nodes' gate logs.
    #[arg(long, num_args = 1..)]
    gates: Vec<PathBuf>,
    /// What was done to the pair, and when.
    #[arg(long, num_args = 1..)]
    faults: Vec<PathBuf>,
    /// The names of faults that must have happened.
    #[arg(long, num_args = 1..)]
    planned: Vec<String>,
    /// How many requests must have been done.
    #[arg(long, default_value_t = 0)]
    acknowledged_min: u64,
    /// How many epochs must have been seen.
    #[arg(long, default_value_t = 0)]
    epochs_min: usize,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match judge(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Nothing is left to tell if the standard error is closed.
            let _ = writeln!(std::io::stderr(), "hotpair-check-history: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn judge(arguments: &Arguments) -> Result<bool> {
    let history = History {
        requests: lines(&arguments.requests)?,
        gates: lines(&arguments.gates)?,
        faults: lines(&arguments.faults)?,
    };
    let Arguments { acknowledged_min, epochs_min, .. } = *arguments;
    let planned = arguments.planned.clone();
    let report = check_run(&history, &Enough { planned, acknowledged_min, epochs_min });
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(report.is_good())
}

fn lines<T: DeserializeOwned>(paths: &[PathBuf]) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(read_log(path)?);
    }
    Ok(all)
}
