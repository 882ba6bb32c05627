//! `hotpair`: the program with the built-in functions.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hotpair::Node::builder().command_line()
}
