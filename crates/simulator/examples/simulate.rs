//! `cargo run --release --example simulate -- [--from N] [--seeds N] [--threads N] [--transcript]
//! [--bench]`: storms, without building the whole product.

use std::process::ExitCode;

use hotpair_simulator::{SimulateArguments, main_with};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, otherwise: u64| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(otherwise, |n| {
            n.parse().unwrap_or_else(|e| panic!("{name} wants a number, not {n}: {e}"))
        })
    };
    let has = |name: &str| arguments.iter().any(|a| a == name);
    let code = main_with(SimulateArguments {
        from: number("--from", 1),
        seeds: number("--seeds", 100),
        threads: usize::try_from(number("--threads", 1)).expect("a few threads"),
        transcript: has("--transcript"),
        every_class: has("--bench"),
    });
    ExitCode::from(code)
}
