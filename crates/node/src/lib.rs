//! hotpair: one node of a hot-standby pair, as a library and as the `hotpair` program.
//!
//! A service embeds a node by [`Node::builder`], with [`Function`]s of its own that look at tables and
//! datasets through their [`Call`] and return changes that are committed with their answers.
//!
//! The program is the same with the built-in functions only; each command has its file in `commands`.

mod boot_clock;
mod business;
mod commands;
mod config;
mod control;
mod data_directory;
mod datasets;
mod fault_points;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate_log;
mod journal;
mod ledger;
mod library;
mod logging;
mod operators;
mod orders;
mod planted;
mod services;
mod settings;
mod store;
mod supervisor;
mod tables;
mod upstream;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::logging::LogFormat;
use hotpair_ctl::{Console, Outcome};

pub use hotpair_core::services::dataset::{Availability, Dataset};
pub use hotpair_core::tables::change::{Bytes, SessionKey};
use hotpair_gateway::Registered;
pub use hotpair_gateway::{Call, Caller, FunctionError};
pub use serde_json::Value as Json;

pub use self::library::{Function, Node, NodeBuilder, NodeError};

/// The hot-standby pair.
#[derive(Debug, Parser)]
#[command(name = "hotpair", version, about)]
struct CommandLine {
    /// How log lines on standard error look.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node.
    Node(commands::node::NodeArguments),
    /// Stand between clients and a pair: send each request to the master, whichever node that is.
    Router(commands::router::RouterArguments),
    /// Break a whole pair on this machine on purpose, and show what its client saw.
    Demo(commands::demo::DemoArguments),
    /// Both nodes side by side.
    Status(hotpair_ctl::StatusArgs),
    /// Make the other node master.
    Switchover(hotpair_ctl::SwitchoverArgs),
    /// Make a node master that stands by.
    Promote(hotpair_ctl::PromoteArgs),
    /// Take the ZooKeeper data that a node sees now for the right one.
    Adopt(hotpair_ctl::AdoptArgs),
    /// Why a node is, or is not, master.
    Why(hotpair_ctl::WhyArgs),
    /// Call a function of the pair.
    Call(commands::call::CallArguments),
    /// Validate a configuration, or print an example.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Manage the users of a users file.
    User {
        #[command(subcommand)]
        command: commands::user::UserCommand,
    },
    /// Give up a dead local node's mastership at once.
    Release {
        /// The node's configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run whole pairs in virtual time, with faults drawn from a seed.
    Simulate(commands::simulate::SimulateCommand),
    /// Measure this machine's figures.
    Bench(commands::bench::BenchArguments),
    /// The process in which `bench dataset` loads.
    #[command(hide = true)]
    BenchLoadDataset {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        rows: u64,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Validate a node's or a router's file.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print a commented example.
    Example {
        /// A router's, instead of a node's.
        #[arg(long)]
        router: bool,
    },
}

/// The whole program, with these functions beside the built-in ones.
fn run_command_line(functions: Vec<Registered>) -> ExitCode {
    end_at_panics();
    let line = CommandLine::parse();
    let _flush_at_end = logging::start(line.log);
    match run(line.command, functions) {
        Ok(exit) => exit.into(),
        Err(error) => {
            commands::complain(&error);
            let usage = error.is::<config::ConfigError>();
            if usage { Outcome::Usage } else { Outcome::No }.into()
        }
    }
}

/// A half-dead process would go on holding its sockets and its session: a panic ends it at once, but
/// for one within a registered function, which is that call's own misfortune.
fn end_at_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if !hotpair_gateway::panic_is_contained() {
            std::process::abort();
        }
    }));
}

fn run(command: Command, functions: Vec<Registered>) -> anyhow::Result<Outcome> {
    match command {
        Command::Node(arguments) => commands::node::run(&arguments, functions),
        Command::Router(arguments) => commands::router::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
        Command::Status(arguments) => {
            commands::operator(hotpair_ctl::status(&arguments, &mut Console::standard()))
        }
        Command::Switchover(arguments) => {
            commands::operator(hotpair_ctl::switchover(&arguments, &mut Console::standard()))
        }
        Command::Promote(arguments) => {
            commands::operator(hotpair_ctl::promote(&arguments, &mut Console::standard()))
        }
        Command::Adopt(arguments) => {
            commands::operator(hotpair_ctl::adopt(&arguments, &mut Console::standard()))
        }
        Command::Why(arguments) => {
            commands::operator(hotpair_ctl::why(&arguments, &mut Console::standard()))
        }
        Command::Call(arguments) => commands::call::run(&arguments),
        Command::Config { command: ConfigCommand::Check { file } } => commands::check_config(&file),
        Command::Config { command: ConfigCommand::Example { router } } => {
            commands::print(if router { config::router::EXAMPLE } else { config::EXAMPLE })
        }
        Command::User { command } => commands::user::run(&command),
        Command::Release { config } => commands::release::run(&config),
        Command::Simulate(arguments) => commands::simulate::run(&arguments),
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::BenchLoadDataset { folder, rows } => {
            commands::print(&format!("{}\n", commands::bench::dataset::load(&folder, rows)?))
        }
    }
}
