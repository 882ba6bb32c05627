//! What a test needs from the machine, installed only when it is missing.

use std::path::{Path, PathBuf};
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
    /// systemd in a container: `systemd-nspawn`, `debootstrap`.
    Nspawn,
    /// `promtool`.
    Prometheus,
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::ZooKeeper => "zookeeper",
            Self::Namespaces => "namespaces",
            Self::Systemd => "systemd",
            Self::Nspawn => "nspawn",
            Self::Prometheus => "prometheus",
        }
    }
}

/// Makes sure that everything is there, through the same script that the demo uses.
pub fn install(needs: &[Need]) -> Result<()> {
    let output = Command::new(script("install.sh"))
        .args(needs.iter().map(|need| need.name()))
        .stdin(Stdio::null())
        .output()
        .context("cannot run integration-tests/scripts/install.sh")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// A script of this crate.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies one below the root")
}
