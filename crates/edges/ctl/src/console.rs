//! Where a command speaks to, and how it ends.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

/// How a command ended; the exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: done, or the answer is "yes".
    Done,
    /// 1: the answer is "no".
    No,
    /// 2: wrong usage or configuration.
    Usage,
    /// 3: could not reach, or no answer.
    Unreachable,
}

impl Outcome {
    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}

/// Two places to write to: results, which scripts read, and notes for people.
pub struct Console<'a> {
    /// Standard output, as a rule.
    pub results: Box<dyn Write + Send + 'a>,
    /// Standard error, as a rule.
    pub notes: Box<dyn Write + Send + 'a>,
}

impl Console<'_> {
    /// Standard output and standard error.
    #[must_use]
    pub fn standard() -> Console<'static> {
        Console { results: Box::new(io::stdout()), notes: Box::new(io::stderr()) }
    }

    pub(crate) fn result(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.results, "{line}")
    }

    /// A result as JSON.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.results, value)?;
        writeln!(self.results)
    }

    /// A note, as a line.
    pub fn note(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.notes, "hotpair: {line}")
    }
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}
