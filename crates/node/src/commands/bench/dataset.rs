//! Loading a large dataset: ours in a process that does nothing else, and polars on the same file
//! in the same run, where Python can have it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hotpair_lab::scratch::Scratch;
use serde_json::{Value, json};

use super::progress;

/// The columns that make a row's key in the generated file.
const KEY: [&str; 2] = ["account", "instrument"];
/// The comparison, run by Python.
const POLARS: &str = include_str!("../../../../drivers/store/bench/polars_load.py");

/// Generates the file, loads it with both, compares.
pub(super) fn measure(rows: u64) -> Result<Value> {
    let scratch = Scratch::new("bench-dataset")?;
    let file = hotpair_store::bench::generate(scratch.path(), rows)?;
    progress("dataset: generated");
    // A process of its own: the generator's memory is not the loader's.
    let output = Command::new(std::env::current_exe()?)
        .args(["bench-load-dataset", "--rows", &rows.to_string(), "--folder"])
        .arg(scratch.path())
        .output()?;
    ensure!(output.status.success(), "loading failed: {}", String::from_utf8_lossy(&output.stderr));
    let ours: Value = serde_json::from_slice(&output.stdout)?;
    let polars = match polars(&scratch, &file) {
        Ok(figures) => figures,
        Err(error) => json!({"not_measured": format!("{error:#}")}),
    };
    Ok(json!({"hotpair": ours, "polars": polars}))
}

/// The process that only loads.
pub(crate) fn load(folder: &Path, rows: u64) -> Result<Value> {
    let report = hotpair_store::bench::run(folder, rows)?;
    Ok(json!({
        "file_bytes": report.file_bytes,
        "rows": report.rows,
        "load_ms": report.load_ms,
        "rows_per_second": report.rows_per_second,
        "vm_hwm_bytes": report.vm_hwm_bytes,
        "lookups_per_second": report.lookups_per_second,
        "checksum_ok": report.checksum_ok,
    }))
}

fn polars(scratch: &Scratch, file: &Path) -> Result<Value> {
    let venv: PathBuf = scratch.join("venv");
    let run = |command: &mut Command| -> Result<Vec<u8>> {
        let output = command.output().context("python3 is needed to measure polars")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "polars"]))?;
    let script = scratch.write("polars_load.py", POLARS)?;
    let out = run(Command::new(venv.join("bin/python")).arg(script).arg(file).args(KEY))?;
    Ok(serde_json::from_slice(&out)?)
}
