//! `hotpair-check-history`: judges the logs of a run; exit 0 good, 1 a rule broken, 2 unreadable.
//!
//! It shares no code with the product: what it says does not rest on what the product believes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use hotpair_lab::checker::{History, check};
use serde::de::DeserializeOwned;

/// Judges the logs of a run: nothing lost, no epoch going back, no two gates open together.
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
    let report = check(&history);
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
        read(path, &mut all)?;
    }
    Ok(all)
}

fn read<T: DeserializeOwned>(path: &Path, all: &mut Vec<T>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut lines = BufReader::new(file).lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        match serde_json::from_str(&line) {
            Ok(value) => all.push(value),
            // A process killed while it wrote leaves half a last line; it says nothing.
            Err(error) if lines.peek().is_none() && error.is_eof() => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{}, line {}: {line}", path.display(), index + 1));
            }
        }
    }
    Ok(())
}
