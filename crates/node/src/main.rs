//! `hotpair`: the program with the built-in functions.

use std::process::ExitCode;

fn main() -> ExitCode {
    hotpair_node::main(Vec::new())
}
