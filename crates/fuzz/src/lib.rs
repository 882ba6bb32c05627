//! What takes bytes from outside, one function each: whatever the bytes, it ends, in bounds, without a
//! panic; and where something was understood, it says the same when it is written and read again.
//!
//! ```text
//! make fuzz ─▶ src/main.rs ─▶ libFuzzer ─▶ a target below ─▶ corpus/<target>/   grows
//! make test ─▶ tests/corpus.rs ──────────▶ every target    ◀─ corpus/<target>/   is kept
//! ```

mod files;
mod frames;
mod texts;

/// A target: its name is that of its corpus' folder.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Takes the bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 15] = [
    Target { name: "link-frames", run: frames::link },
    Target { name: "redo-frames", run: frames::redo },
    Target { name: "records", run: frames::records },
    Target { name: "pieces", run: frames::pieces },
    Target { name: "rows", run: frames::rows },
    Target { name: "redo-files", run: files::redo },
    Target { name: "csv", run: files::csv },
    Target { name: "config", run: texts::config },
    Target { name: "users", run: texts::users },
    Target { name: "znodes", run: texts::znodes },
    Target { name: "bodies", run: texts::bodies },
    Target { name: "answers", run: texts::answers },
    Target { name: "feeds", run: texts::feeds },
    Target { name: "programs", run: texts::programs },
    Target { name: "events", run: texts::events },
];

/// The target with this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
