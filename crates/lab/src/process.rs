//! A child process that cannot outlive its owner, with its output kept for when the test fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// A running (or ended) child; dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the command with both outputs appended to the log file.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        let twin = file.try_clone().context("cannot share the log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(twin)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet (a frozen process runs in this sense).
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// An error with the end of the log when the process has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
        }
    }

    /// Stops it from running (SIGSTOP), as a stalled machine would.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it run on (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // The name in brackets may hold spaces; the field after it is the state.
        Ok(stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with('T')))
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        if self.is_running() {
            self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        }
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that at most this long.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::TERM)?;
        }
        self.ended(limit)
    }

    /// Waits for its end at most this long.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        eventually(limit, &format!("{} ends", self.name), || {
            self.child.try_wait()?.context("still running")
        })
    }

    /// Everything it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of it.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal)
            .with_context(|| format!("cannot send {signal:?} to {} ({id:?})", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An end that fails now has no one to hear of it; the next test finds its own ports.
        let _ = self.kill();
        if std::thread::panicking() {
            print_log(&self.name, &self.log_tail());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test runner shows it with the failed test only")]
fn print_log(name: &str, tail: &str) {
    eprintln!("--- end of the log of {name}\n{tail}\n---");
}

/// Runs a command to its end; its output when it succeeds, an error with what it said when not.
pub fn run(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const LOG_TAIL_LINES: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_dropped_process_is_gone_even_when_frozen() {
        let scratch = Scratch::new("process").unwrap();
        let log = scratch.join("log");
        let process = Process::start("sleep", Command::new("sleep").arg("60"), &log).unwrap();
        let id = process.id();
        assert!(!process.is_frozen().unwrap());
        process.freeze().unwrap();
        // The signal takes effect in its own time.
        eventually(Duration::from_secs(10), "it is frozen", || {
            ensure!(process.is_frozen()?, "it runs");
            Ok(())
        })
        .unwrap();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn an_early_end_is_reported_with_what_the_process_said() {
        let scratch = Scratch::new("process").unwrap();
        let log = scratch.join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such flag; exit 2"]);
        let mut process = Process::start("a program", &mut command, &log).unwrap();
        process.ended(Duration::from_secs(10)).unwrap();
        let said = process.ensure_running().unwrap_err().to_string();
        assert!(said.contains("a program") && said.contains("no such flag"), "{said}");
    }
}
