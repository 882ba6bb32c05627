//! Measures the log: `recovery_bench FOLDER [MEGABYTES] [ROWS]`, the result as JSON on one line.
//!
//! Writes a log of changes with values of 128 bytes over so many rows (default: each change a row of
//! its own), in batches as a busy master does, then recovers it in the same process, and reads it as
//! for a peer. The bytes come from the page cache, unless FOLDER's file system has none.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::{Numbered, OperationResult, Reply, SessionKey};
use hotpair_core::tables::record::{Body, Change, Record, encode};
use hotpair_journal::{Durability, Journal};

/// Records of one append.
const BATCH: u64 = 256;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the shell")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(folder) = arguments.first() else {
        eprintln!("usage: recovery_bench FOLDER [MEGABYTES] [ROWS]");
        return ExitCode::from(2);
    };
    let number = |index: usize, otherwise| {
        arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    match run(Path::new(folder), number(1, 1_000) << 20, number(2, u64::MAX)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path, bytes_wanted: u64, rows: u64) -> Result<String, Box<dyn std::error::Error>> {
    let (mut journal, recovered) = Journal::open(folder, Durability::File)?;
    if recovered.history.head() > 0 {
        return Err("the folder holds a log already".into());
    }
    drop(recovered);
    let begun = Instant::now();
    let (mut bytes, mut encoding) = (0, 0.0);
    let mut batch = Vec::new();
    while bytes < bytes_wanted {
        batch.clear();
        let encoded = Instant::now();
        let first = journal.head() + 1;
        for number in first..first + BATCH {
            encode(&record(number, rows), &mut batch);
        }
        encoding += encoded.elapsed().as_secs_f64();
        journal.append(first + BATCH - 1, &batch)?;
        bytes += batch.len() as u64;
    }
    let records = journal.head();
    let append = begun.elapsed().as_secs_f64() - encoding;

    let begun = Instant::now();
    let mut reader = journal.read_from(1)?;
    let mut read = 0;
    while let Some(batch) = reader.next(records)? {
        read += batch.bytes.len() as u64;
    }
    let shipping = begun.elapsed().as_secs_f64();
    assert_eq!(read, bytes, "all of it is read");
    drop(journal);

    let begun = Instant::now();
    let (_journal, recovered) = Journal::open(folder, Durability::File)?;
    let recovery = begun.elapsed().as_secs_f64();
    assert_eq!(recovered.replayed, records, "all of it is recovered");
    let rows = recovered.store.table("accounts").map_or(0, hotpair_core::tables::table::Table::len);
    let per_second = |seconds: f64| count(records) / seconds;
    let megabytes = |seconds: f64| count(bytes) / 1e6 / seconds;
    Ok(format!(
        "{{\"bytes\":{bytes},\"records\":{records},\"rows\":{rows},\
         \"append_records_per_second\":{:.0},\"append_mb_per_second\":{:.0},\
         \"read_mb_per_second\":{:.0},\
         \"recovery_s\":{recovery:.2},\"recovery_records_per_second\":{:.0},\
         \"recovery_mb_per_second\":{:.0}}}",
        per_second(append),
        megabytes(append),
        megabytes(shipping),
        per_second(recovery),
        megabytes(recovery),
    ))
}

/// A numbered put with a value of 128 bytes.
fn record(number: u64, rows: u64) -> Record {
    // Spread over the keys, as hashes or account numbers are.
    let row = (number % rows).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let change = Change::Put {
        table: "accounts".into(),
        key: format!("{row:016x}").into_bytes().into(),
        value: vec![b'v'; 128].into(),
    };
    let session = SessionKey([u8::try_from(number % 64).expect("less than 64"); 16]);
    Record {
        epoch: Epoch(1),
        number,
        body: Body::Changes {
            numbered: Some(Numbered { session, number, done_up_to: number.saturating_sub(64) }),
            changes: vec![change],
            reply: Some(Reply::Results(vec![OperationResult::Put { version: number }])),
        },
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn count(number: u64) -> f64 {
    number as f64
}
