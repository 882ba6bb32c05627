//! `hotpair simulate`: the simulator's arguments on the command line.

use anyhow::Result;
use hotpair_ctl::Outcome;
use hotpair_simulator::SimulateArguments;

/// Which storms to run.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateCommand {
    /// How many storms, one seed each.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads to run them on; by default as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Print the transcript of the first seed, whether or not it fails.
    #[arg(long)]
    transcript: bool,
    /// Draw every fault class in every storm.
    #[arg(long)]
    every_class: bool,
}

/// Runs the storms; 1 when one failed.
pub(crate) fn run(command: &SimulateCommand) -> Result<Outcome> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let code = hotpair_simulator::main_with(SimulateArguments {
        from: command.from,
        seeds: command.seeds,
        threads: command.threads.unwrap_or(cores),
        transcript: command.transcript,
        every_class: command.every_class,
    });
    Ok(if code == 0 { Outcome::Done } else { Outcome::No })
}
