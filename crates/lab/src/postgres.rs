//! A real PostgreSQL server in a temporary folder, to be killed, frozen and brought back.
//!
//! The server refuses to run as root, so there it runs as the user `postgres`, which its package makes.
//! What is asked here goes through `psql`, and so shares nothing with the product.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::certificates::Certificates;
use crate::need::{Need, install};
use crate::port::Port;
use crate::process::{Process, run};
use crate::scratch::Scratch;
use crate::wait::eventually;

/// A server. Dropped: killed, its folder removed.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    programs: PathBuf,
    port: Port,
    /// It takes TLS, and nothing else.
    secure: bool,
    // After the process, which writes there.
    scratch: Scratch,
}

impl Postgres {
    /// Makes a server on loopback with a user and a database, and waits until it answers.
    pub fn start() -> Result<Self> {
        let mut server = Self::make()?;
        server.start_again()?;
        Ok(server)
    }

    /// The same, not started.
    pub fn make() -> Result<Self> {
        install(&[Need::PostgreSql])?;
        let scratch = Scratch::new("postgres")?;
        let data = scratch.join("data");
        fs::create_dir(&data)?;
        let password = scratch.write("password", PASSWORD)?;
        if geteuid().is_root() {
            run(Command::new("chown").arg("postgres:").arg(&data).arg(&password))?;
        }
        let (programs, port) = (programs()?, Port::reserve()?);
        let server = Self { process: None, programs, port, secure: false, scratch };
        let mut command = server.command("initdb");
        command
            .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8"])
            .args(["--locale", "C", "--no-sync", "--pwfile"])
            .arg(&password)
            .arg("--pgdata")
            .arg(&data);
        run(&mut command)?;
        Ok(server)
    }

    /// From its next start on it is who this certificate says, and takes connections over TLS only.
    pub fn secure(&mut self, certificates: &Certificates, name: &str) -> Result<()> {
        let data = self.scratch.join("data");
        for (from, to) in [("pem", "server.crt"), ("key", "server.key")] {
            let to = data.join(to);
            fs::copy(certificates.file(name, from), &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600))?;
            if geteuid().is_root() {
                run(Command::new("chown").arg("postgres:").arg(&to))?;
            }
        }
        // Written over, so that it stays its owner's.
        fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n")?;
        self.secure = true;
        Ok(())
    }

    /// Starts it, with the data it has, and waits until it answers.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "PostgreSQL runs already");
        let log = self.scratch.join("log");
        eventually(START_LIMIT, "PostgreSQL answers", || {
            // What a killed one has left may still be there for a moment, and then it ends at once.
            if !self.process.as_mut().is_some_and(Process::is_running) {
                let mut command = self.command("postgres");
                command
                    .arg("-D")
                    .arg(self.scratch.join("data"))
                    .args(["-h", "127.0.0.1", "-p", &self.port.number().to_string()])
                    .args(["-c", "unix_socket_directories=", "-c", "logging_collector=off"])
                    // A killed one leaves nothing in /dev/shm.
                    .args(["-c", "dynamic_shared_memory_type=mmap"])
                    .args(["-c", if self.secure { "ssl=on" } else { "ssl=off" }]);
                self.process = Some(Process::start("postgres", &mut command, &log)?);
            }
            self.ask("SELECT 1").map(drop)
        })
    }

    /// Kills it (SIGKILL), in the middle of whatever it does.
    pub fn kill(&mut self) -> Result<()> {
        let family = self.family()?;
        signal(&family, Signal::KILL);
        self.process.take().context("PostgreSQL was not started")?.kill()
    }

    /// Freezes all of its processes (SIGSTOP).
    pub fn freeze(&self) -> Result<()> {
        signal(&self.family()?, Signal::STOP);
        Ok(())
    }

    /// Lets them run on (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        signal(&self.family()?, Signal::CONT);
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// For the configuration of a node.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@{}/{DATABASE}", self.address())
    }

    /// The same, over TLS, of a server that these have signed.
    #[must_use]
    pub fn secure_url(&self, certificates: &Certificates) -> String {
        let authority = certificates.authority();
        format!("{}?sslmode=verify-full&sslrootcert={}", self.url(), authority.display())
    }

    /// What a statement answers, a row a line, columns with tabs between.
    pub fn ask(&self, statement: &str) -> Result<String> {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-F", "\t", "-c", statement])
            .arg(self.url())
            .env("PGCONNECT_TIMEOUT", "5");
        Ok(run(&mut command)?.trim_end().to_owned())
    }

    /// The server and whoever works for it.
    fn family(&self) -> Result<Vec<u32>> {
        let id = self.process.as_ref().context("PostgreSQL was not started")?.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        Ok(std::iter::once(id).chain(children).collect())
    }

    /// A program of the server's, run as a user that it accepts.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if !geteuid().is_root() {
            return Command::new(program);
        }
        // It replaces itself by the program, so signals reach the program.
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"])
            .arg(program)
            .current_dir(self.scratch.path());
        command
    }
}

/// Those that are gone already are what was wanted.
fn signal(family: &[u32], signal: Signal) {
    for id in family {
        if let Some(id) = i32::try_from(*id).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, signal);
        }
    }
}

/// Where Debian keeps the newest server's programs.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir(LIBRARY).with_context(|| format!("no {LIBRARY}"))?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            let programs = path.join("bin");
            Path::new(&programs.join("initdb")).exists().then_some((version, programs))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs).with_context(|| format!("no server in {LIBRARY}"))
}

const LIBRARY: &str = "/usr/lib/postgresql";
const USER: &str = "trade";
const PASSWORD: &str = "known-to-tests";
const DATABASE: &str = "postgres";
const START_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_data_through_a_kill() {
        let mut server = Postgres::start().unwrap();
        server.ask("CREATE TABLE kept (n integer); INSERT INTO kept VALUES (7)").unwrap();
        server.kill().unwrap();
        server.ask("SELECT 1").unwrap_err();
        server.start_again().unwrap();
        assert_eq!(server.ask("SELECT n, n + 1 FROM kept").unwrap(), "7\t8");
        server.freeze().unwrap();
        server.thaw().unwrap();
        assert_eq!(server.ask("SELECT 1").unwrap(), "1");
    }
}
