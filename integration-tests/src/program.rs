//! The program beside a pair: `programs/orders.py`, what it counted, and what it is told to do.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hotpair_lab::need::{Need, install};
use hotpair_lab::port::Port;
use hotpair_lab::process::Process;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;

use crate::steps::{LIMIT, argument};
use crate::workspace;

/// A program that places orders; one for both nodes, so that it sees every call.
#[derive(Debug)]
pub struct Program {
    process: Option<Process>,
    script: PathBuf,
    scratch: Scratch,
    port: Port,
}

impl Program {
    /// The one that counts, started.
    pub fn start() -> Result<Self> {
        Self::start_script(workspace().join("integration-tests/programs/orders.py"))
    }

    /// Any script that takes a port and a folder.
    pub fn start_script(script: PathBuf) -> Result<Self> {
        install(&[Need::Python])?;
        let (scratch, port) = (Scratch::new("program")?, Port::reserve()?);
        let mut program = Self { process: None, script, scratch, port };
        program.start_again()?;
        Ok(program)
    }

    /// Starts it once it has ended, and waits until it listens.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new("python3");
        command.arg(&self.script).arg(self.port.number().to_string());
        command.arg(argument(&self.scratch.join(""))?).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = Process::start("the program", &mut command, &self.scratch.join("log"))?;
        let address = self.address();
        eventually(LIMIT, "the program listens", || {
            process.ensure_running()?;
            TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            Ok(())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it, if it has not ended.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it runs")?;
        process.ended(LIMIT).map(drop)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Configures a function that it serves at this path.
    #[must_use]
    pub fn function(&self, number: u32, path: &str, more: &str) -> String {
        format!(
            "[[functions]]\nnumber = {number}\ngroup = \"trade\"\nservice = \"order\"\n\
             version = \"1.0\"\nname = \"f{number}\"\nupstream = \"http://{}{path}\"\n{more}\n",
            self.address()
        )
    }

    /// What its next call is to do.
    pub fn act(&self, act: &str) -> Result<()> {
        let draft = self.scratch.join("draft");
        fs::write(&draft, act)?;
        Ok(fs::rename(draft, self.scratch.join("act"))?)
    }

    /// Nobody is to do anything any more.
    pub fn be_good(&self) {
        // Done already, most often.
        let _ = fs::remove_file(self.scratch.join("act"));
        self.go_on();
    }

    /// Waits until a call waits.
    pub fn waits(&self) -> Result<()> {
        eventually(LIMIT, "a call of the program waits", || {
            ensure!(self.scratch.join("waiting").exists(), "not yet");
            Ok(())
        })
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        let _ = fs::remove_file(self.scratch.join("waiting"));
    }

    /// How often it had its effect for calls whose keys end so.
    pub fn effects(&self, of: &str) -> usize {
        let all = fs::read_to_string(self.scratch.join("effects")).unwrap_or_default();
        all.lines().filter(|key| key.ends_with(of)).count()
    }

    /// The whole keys of these.
    pub fn keys(&self, of: &str) -> Vec<String> {
        let all = fs::read_to_string(self.scratch.join("effects")).unwrap_or_default();
        all.lines().filter(|key| key.ends_with(of)).map(str::to_owned).collect()
    }
}
