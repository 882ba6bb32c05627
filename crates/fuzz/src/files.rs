//! Bytes of files.

use std::fs;
use std::path::Path;

use hotpair_journal::{Durability, Journal};
use hotpair_lab::scratch::Scratch;
use hotpair_store::{CancelFlag, DatasetSpec, FileFormat, Progress, Source, Unpivot, load};

/// A data directory: the first byte says how much of the rest is the redo file's, and how much the
/// snapshot's. Whatever is in them, the directory opens or says why not, and opens the same again.
pub(crate) fn redo(bytes: &[u8]) {
    let Some((share, rest)) = bytes.split_first() else { return };
    let cut = rest.len() * usize::from(*share) / 255;
    let (redo, snapshot) = rest.split_at(cut);
    let folder = Scratch::new("fuzz-redo").expect("a folder");
    fs::write(folder.join("redo-00000000000000000001.log"), redo).expect("a file");
    if !snapshot.is_empty() {
        fs::write(folder.join("snapshot-00000000000000000001.bin"), snapshot).expect("a file");
    }
    let head = |folder: &Path| {
        Journal::open(folder, Durability::File).map(|(_, found)| found.history.head())
    };
    if let Ok(first) = head(folder.path()) {
        assert_eq!(head(folder.path()).expect("it opened before"), first);
    }
}

/// A dataset's file: the first byte says how it is read.
pub(crate) fn csv(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let folder = Scratch::new("fuzz-csv").expect("a folder");
    let (name, format) = match how & 3 {
        0 | 1 => ("rows.csv", FileFormat::Csv),
        2 => ("rows.csv.gz", FileFormat::CsvGz),
        _ => ("rows.parquet", FileFormat::Parquet),
    };
    let path = folder.join(name);
    fs::write(&path, rest).expect("a file");
    let unpivot = (how & 4 != 0).then(|| Unpivot {
        keep: vec!["a".to_owned()],
        name: "b".to_owned(),
        value: "c".to_owned(),
    });
    let key =
        if unpivot.is_some() { vec!["a".to_owned(), "b".to_owned()] } else { vec!["a".to_owned()] };
    let spec = DatasetSpec {
        name: "fuzz".to_owned(),
        source: Source::File { path, format },
        key,
        columns: std::collections::BTreeMap::new(),
        broken_rows_max: u64::from(how >> 3),
        unpivot,
    };
    // Errors are sentences; nothing else is asked of them here.
    let _ = load(&spec, &Progress::default(), &CancelFlag::default());
}
