//! The loading benchmark: a positions file made to measure, loaded, looked into, and compared.
//!
//! [`generate`] writes rows in random order and keeps the checksum of what it wrote; `measure`
//! loads the file and compares. Writing takes no memory to speak of, but for an honest peak memory
//! let a process of its own write: [`run`] writes only where no file of this size is there yet.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use hotpair_core::services::dataset::{Dataset, KeyError, Value, row_digest};

use crate::error::LoadError;
use crate::load::load;
use crate::progress::{CancelFlag, Progress};
use crate::spec::{DatasetSpec, FileFormat, Source};

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchReport {
    /// The file that was loaded.
    pub path: PathBuf,
    /// Its size.
    pub file_bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// From opening the file until lookups answered.
    pub load_ms: f64,
    /// Rows over that time.
    pub rows_per_second: f64,
    /// The process's peak memory after the load (`VmHWM`); 0 where the system does not tell.
    pub vm_hwm_bytes: u64,
    /// The process's memory after the load (`VmRSS`); 0 where the system does not tell.
    pub vm_rss_bytes: u64,
    /// What the dataset says it occupies.
    pub dataset_bytes: u64,
    /// Random point lookups, each of a key that is there.
    pub lookups: u64,
    /// Lookups a second, on one thread, the making of the key's texts not counted.
    pub lookups_per_second: f64,
    /// The checksum of all loaded rows.
    pub checksum: u64,
    /// Whether that is the checksum of all written rows, and every lookup found its row.
    pub checksum_ok: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The file could not be written.
    #[error("{path} cannot be written: {error}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A key of the file was not understood.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Writes the file into `folder` unless it is there, loads it and looks into it.
pub fn run(folder: &Path, rows: u64) -> Result<BenchReport, BenchError> {
    let positions = Positions::new(rows);
    let path = file_of(folder, rows);
    if !path.exists() {
        generate(folder, rows)?;
    }
    measure(&path, positions)
}

/// The file that [`generate`] writes.
pub fn file_of(folder: &Path, rows: u64) -> PathBuf {
    folder.join(format!("positions-{rows}.csv"))
}

/// Writes the positions file; it appears under its name only when it is whole.
pub fn generate(folder: &Path, rows: u64) -> Result<PathBuf, BenchError> {
    let path = file_of(folder, rows);
    let unfinished = path.with_extension("unfinished");
    write_rows(&unfinished, Positions::new(rows))
        .and_then(|()| fs::rename(&unfinished, &path))
        .map_err(|error| BenchError::Write { path: path.clone(), error })?;
    Ok(path)
}

fn write_rows(path: &Path, positions: Positions) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(b"account,instrument,quantity,price,updated\n")?;
    for place in 0..positions.rows {
        let row = positions.row(place).map(|value| value.to_string());
        writeln!(file, "{}", row.join(","))?;
    }
    file.flush()
}

fn measure(path: &Path, positions: Positions) -> Result<BenchReport, BenchError> {
    let spec = DatasetSpec {
        name: "positions".to_owned(),
        source: Source::File { path: path.to_owned(), format: FileFormat::Csv },
        key: vec!["account".to_owned(), "instrument".to_owned()],
        columns: BTreeMap::new(),
        broken_rows_max: 0,
        unpivot: None,
    };
    let file_bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let begin = Instant::now();
    let dataset = load(&spec, &Progress::new(), &CancelFlag::new())?;
    let [account, instrument, ..] = positions.row(0);
    let answers = dataset.lookup(&[account, instrument])?.is_some();
    let load_seconds = begin.elapsed().as_secs_f64();
    let (vm_hwm_bytes, vm_rss_bytes) = (memory("VmHWM:"), memory("VmRSS:"));
    let (lookups_per_second, all_found) = look_up(&dataset, positions)?;
    let checksum = dataset.checksum();
    Ok(BenchReport {
        path: path.to_owned(),
        file_bytes,
        rows: dataset.rows(),
        load_ms: load_seconds * 1e3,
        rows_per_second: as_float(dataset.rows()) / load_seconds,
        vm_hwm_bytes,
        vm_rss_bytes,
        dataset_bytes: dataset.memory_bytes(),
        lookups: LOOKUPS,
        lookups_per_second,
        checksum,
        checksum_ok: answers && all_found && checksum == positions.checksum(),
    })
}

/// Looks random keys up, in rounds so that their texts need little memory.
fn look_up(dataset: &dyn Dataset, positions: Positions) -> Result<(f64, bool), KeyError> {
    let (mut seconds, mut all_found) = (0.0, true);
    for round in 0..LOOKUPS / LOOKUPS_PER_ROUND {
        let row = |number: u64| {
            let random = spread(round * LOOKUPS_PER_ROUND + number);
            positions.row(random % positions.rows)
        };
        let expected: Vec<[Value; 5]> = (0..LOOKUPS_PER_ROUND).map(row).collect();
        let mut found = Vec::with_capacity(expected.len());
        let begin = Instant::now();
        for row in &expected {
            found.push(dataset.lookup(&row[..2])?);
        }
        seconds += begin.elapsed().as_secs_f64();
        all_found &= expected
            .iter()
            .zip(&found)
            .all(|(expected, found)| found.as_deref() == Some(&expected[..]));
    }
    Ok((as_float(LOOKUPS) / seconds, all_found))
}

/// The generated rows: a function from place to row, so that nothing needs to be remembered.
#[derive(Debug, Clone, Copy)]
struct Positions {
    rows: u64,
}

impl Positions {
    fn new(rows: u64) -> Positions {
        Positions { rows: rows.max(1) }
    }

    /// The row at a place: account, instrument, quantity, price, day of the last change.
    fn row(self, place: u64) -> [Value; 5] {
        let position = self.shuffled(place);
        let (account, nth) = (position / POSITIONS_PER_ACCOUNT, position % POSITIONS_PER_ACCOUNT);
        // Different for each position of an account, because the number of instruments is prime.
        let instrument = (spread(account) % INSTRUMENTS + nth * 7919) % INSTRUMENTS;
        let random = spread(position ^ 0x5eed);
        let cents = i32::try_from(random >> 32 & 0xffff).expect("16 bits fit");
        [
            Value::Text(format!("ACC{account:07}")),
            Value::Text(instrument_code(instrument)),
            Value::Integer(i64::try_from(random & 0x1_ffff).expect("17 bits fit") - 10_000),
            Value::Float(f64::from(cents) / 100.0),
            Value::Date(19_000 + i32::try_from(random >> 56).expect("8 bits fit")),
        ]
    }

    /// A permutation of all places: a Feistel network over the next power of four, walked until it
    /// is back among the rows.
    fn shuffled(self, place: u64) -> u64 {
        let half_bits = (64 - self.rows.leading_zeros()).div_ceil(2);
        let mask = (1 << half_bits) - 1;
        let mut at = place;
        loop {
            let (mut left, mut right) = (at >> half_bits, at & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (spread(right ^ (round << 40)) & mask));
            }
            at = left << half_bits | right;
            if at < self.rows {
                return at;
            }
        }
    }

    /// The checksum of all rows, without reading any file.
    fn checksum(self) -> u64 {
        (0..self.rows).fold(0, |sum: u64, place| {
            sum.wrapping_add(row_digest(self.row(place).iter().map(Value::digest)))
        })
    }
}

/// Twelve characters in the manner of an ISIN.
fn instrument_code(instrument: u64) -> String {
    let mut number = (instrument + 1) * 5_070_602_401 % 36_u64.pow(9);
    let mut code = [b'0'; 12];
    code[..2].copy_from_slice(b"US");
    for place in (2..11).rev() {
        code[place] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(number % 36) as usize];
        number /= 36;
    }
    code[11] = b'0' + (instrument % 10) as u8;
    code.iter().copied().map(char::from).collect()
}

/// A number that looks random, always the same for the same number.
fn spread(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits ^ (bits >> 32)
}

/// A line of this process's status, in bytes.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^53")]
fn as_float(count: u64) -> f64 {
    count as f64
}

const LOOKUPS: u64 = 1_000_000;
const LOOKUPS_PER_ROUND: u64 = 10_000;
const POSITIONS_PER_ACCOUNT: u64 = 25;
const INSTRUMENTS: u64 = 20_011;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_file_is_loaded_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let report = run(folder.path(), 30_000).unwrap();
        assert_eq!(report.rows, 30_000);
        assert!(report.checksum_ok);
        assert!(report.file_bytes > 1_000_000 && report.lookups_per_second > 0.0);
        let again = run(folder.path(), 30_000).unwrap();
        assert_eq!(again.checksum, report.checksum);
    }

    #[test]
    fn places_are_permuted() {
        for rows in [1, 2, 1000, 4097] {
            let positions = Positions::new(rows);
            let mut all: Vec<u64> = (0..rows).map(|place| positions.shuffled(place)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..rows));
        }
    }
}
