//! What a test needs from the machine, installed only when it is missing.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Something from outside this workspace that a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The ZooKeeper server and a Java to run it.
    ZooKeeper,
    /// Network namespaces and the tools to cut them: `ip`, `nft`, `iptables`, `nsenter`.
    Namespaces,
    /// `systemd-analyze`.
    Systemd,
    /// `python3`.
    Python,
    /// systemd in a container: `systemd-nspawn`, `debootstrap`.
    Nspawn,
    /// `promtool`.
    Prometheus,
    /// The PostgreSQL server, with no cluster of its own.
    PostgreSql,
    /// ZeroMQ's own library, in Debian's Python.
    ZeroMq,
    /// `haproxy`, and `wrk` to ask it.
    Proxies,
    /// `openssl`, which makes certificates.
    OpenSsl,
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::ZooKeeper => "zookeeper",
            Self::Namespaces => "namespaces",
            Self::Systemd => "systemd",
            Self::Python => "python",
            Self::Nspawn => "nspawn",
            Self::Prometheus => "prometheus",
            Self::PostgreSql => "postgresql",
            Self::ZeroMq => "zeromq",
            Self::Proxies => "proxies",
            Self::OpenSsl => "openssl",
        }
    }
}

/// Makes sure that everything is there, through the same script that the demo uses.
pub fn install(needs: &[Need]) -> Result<()> {
    let names: Vec<&str> = needs.iter().map(|need| need.name()).collect();
    script(include_str!("../scripts/install.sh"), &names).map(drop)
}

/// Runs the text of a script in bash, so that it need not be found on the disk; its output.
pub fn script(text: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("bash")
        .args(["-c", text, "install.sh"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run bash")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
