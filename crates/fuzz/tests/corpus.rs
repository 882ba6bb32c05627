//! Every target over what is kept of its corpus: what was found once stays found.

use std::fs;
use std::path::Path;

use hotpair_fuzz::TARGETS;

#[test]
fn every_target_takes_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        let files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert!(files.len() >= 5, "{}: only {} files", folder.display(), files.len());
        (target.run)(&[]);
        for file in files {
            let bytes = fs::read(&file).expect("a file that is there");
            let run = std::panic::catch_unwind(|| (target.run)(&bytes));
            assert!(run.is_ok(), "{} breaks {}", file.display(), target.name);
        }
    }
}
