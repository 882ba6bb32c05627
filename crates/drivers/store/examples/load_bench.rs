//! Measures loading: `load_bench FOLDER [ROWS] [generate]`, the result as JSON on one line.
//!
//! With `generate` it only writes the file, so that the process that loads has loaded only.

use std::path::Path;
use std::process::ExitCode;

use hotpair_store::bench;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the shell")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(folder) = arguments.first() else {
        eprintln!("usage: load_bench FOLDER [ROWS] [generate]");
        return ExitCode::from(2);
    };
    let rows = arguments.get(1).and_then(|rows| rows.parse().ok()).unwrap_or(5_000_000);
    if arguments.get(2).is_some_and(|word| word == "generate") {
        return match bench::generate(Path::new(folder), rows) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    match bench::run(Path::new(folder), rows) {
        Ok(report) => {
            println!(
                "{{\"file_bytes\":{},\"rows\":{},\"load_ms\":{:.1},\"rows_per_second\":{:.0},\
                 \"vm_hwm_bytes\":{},\"vm_rss_bytes\":{},\"dataset_bytes\":{},\
                 \"lookups_per_second\":{:.0},\"checksum\":\"{:016x}\",\"checksum_ok\":{}}}",
                report.file_bytes,
                report.rows,
                report.load_ms,
                report.rows_per_second,
                report.vm_hwm_bytes,
                report.vm_rss_bytes,
                report.dataset_bytes,
                report.lookups_per_second,
                report.checksum,
                report.checksum_ok,
            );
            if report.checksum_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
