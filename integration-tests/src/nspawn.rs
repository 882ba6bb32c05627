//! A real systemd as process 1, in a container, so that units are tried and not only read.
//!
//! The container shares this host's network (so ZooKeeper on loopback is there) and has its own
//! overlay on a minimal Debian made once. Each gets a cgroup of its own first: two process 1s in one
//! cgroup would see each other's units. The container has no cgroup controllers, so limits such as
//! `MemoryMax=` are not enforced in it; watchdog, restart, users, seccomp and namespaces are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use hotpair_lab::need::{Need, install, script};
use hotpair_lab::process::{Process, run};
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;

/// A booted container; dropped: powered off at once, its cgroups removed.
#[derive(Debug)]
pub struct Container {
    guardian: Guardian,
    /// The container's process 1, as this host numbers it.
    leader: Pid,
}

/// `systemd-nspawn` itself, outside, with what must not outlive it.
#[derive(Debug)]
struct Guardian {
    name: String,
    process: Process,
    cgroups: Vec<PathBuf>,
    // Last: the log must outlive the process.
    _scratch: Scratch,
}

impl Container {
    /// Boots a container and waits until its systemd takes orders.
    pub fn boot() -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        install(&[Need::Nspawn, Need::Namespaces])?;
        let tree = script(include_str!("../scripts/debian-tree.sh"), &[])?;
        let name = format!("hotpair{}-{}", id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = Scratch::new("container")?;
        let cgroups = own_cgroups(&name)?;
        let mut command = Command::new("sh");
        // The shell moves itself into the cgroups, then becomes the container's guardian.
        let enter: String = cgroups
            .iter()
            .map(|cgroup| format!("echo $$ > {}/cgroup.procs && ", cgroup.display()))
            .collect();
        command.arg("-c").arg(format!(
            "{enter} exec systemd-nspawn -q -D {} --volatile=overlay --machine={name} --register=no --keep-unit --boot",
            tree.trim()
        ));
        let process = Process::start(&name, &mut command, &scratch.join("log"))?;
        let guardian = Guardian { name, process, cgroups, _scratch: scratch };
        let leader = eventually(BOOT_LIMIT, "the container has a process 1", || guardian.leader())
            .with_context(|| guardian.process.log())?;
        let container = Self { guardian, leader };
        eventually(BOOT_LIMIT, "systemd in the container is up", || {
            // Exits with an error while it is "degraded" as well, which is none of our business.
            let output = container.command("systemctl").arg("is-system-running").output()?;
            let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            ensure!(matches!(state.as_str(), "running" | "degraded"), "it says {state:?}");
            Ok(())
        })?;
        Ok(container)
    }

    /// A command that will run the program inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.leader.to_string()).args(["-a", "--", program]);
        command
    }

    /// Runs a command line inside to its end.
    pub fn run(&self, line: &str) -> Result<String> {
        run(self.command("sh").args(["-c", line]))
    }

    /// A path inside, as this host sees it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.leader));
        root.join(inside.trim_start_matches('/'))
    }

    /// Copies a file (with its mode) into the container, folders made as needed.
    pub fn copy(&self, from: &Path, inside: &str) -> Result<()> {
        let to = self.path(inside);
        self.make_parent(&to)?;
        fs::copy(from, &to)
            .with_context(|| format!("cannot copy {} to {inside}", from.display()))
            .map(drop)
    }

    /// Writes a file inside the container, folders made as needed.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let to = self.path(inside);
        self.make_parent(&to)?;
        fs::write(&to, text).with_context(|| format!("cannot write {inside}"))
    }

    /// One property of a unit, as `systemctl show` tells it.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let value = run(self.command("systemctl").args(["show", "--value", "-p", name, unit]))?;
        Ok(value.trim().to_owned())
    }

    /// What the journal holds of a unit.
    pub fn journal(&self, unit: &str) -> Result<String> {
        run(self.command("journalctl").args(["--no-pager", "-o", "cat", "-u", unit]))
    }

    /// Sends a signal to a unit's main process, from inside.
    pub fn signal(&self, unit: &str, signal: &str) -> Result<()> {
        let kill = ["kill", "--kill-whom=main", "-s", signal, unit];
        run(self.command("systemctl").args(kill)).map(drop)
    }

    /// The container's process 1, as this host numbers it.
    #[must_use]
    pub fn leader(&self) -> Pid {
        self.leader
    }

    fn make_parent(&self, path: &Path) -> Result<()> {
        let parent = path.parent().context("a file lies in a folder")?;
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {} in {}", parent.display(), self.guardian.name))
    }
}

impl Guardian {
    /// The container's process 1. On the way to it there are short-lived children of other names.
    fn leader(&self) -> Result<Pid> {
        for child in self.children()? {
            let name = fs::read_to_string(format!("/proc/{child}/comm"))?;
            if name.trim() == "systemd" {
                return Ok(child);
            }
        }
        anyhow::bail!("no child is a systemd")
    }

    fn children(&self) -> Result<Vec<Pid>> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let numbers = children.split_whitespace();
        numbers.map(|each| Pid::from_raw(each.parse()?).context("a number above 0")).collect()
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Killing systemd-nspawn alone would leave the container running; its process 1 takes all
        // with it, and systemd-nspawn ends by itself then.
        for child in self.children().unwrap_or_default() {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.process.ended(Duration::from_secs(20));
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
    }
}

/// New cgroups of this name: one where there is one hierarchy, else one in each that systemd uses.
fn own_cgroups(name: &str) -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies: Vec<PathBuf> = if root.join("cgroup.controllers").exists() {
        vec![root.to_owned()]
    } else {
        let names = ["systemd", "unified", "cpu", "memory", "pids", "freezer"];
        names.iter().map(|each| root.join(each)).filter(|path| path.exists()).collect()
    };
    hierarchies
        .into_iter()
        .map(|hierarchy| {
            let path = hierarchy.join(name);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
            Ok(path)
        })
        .collect()
}

/// Removes a cgroup with those below it; a cgroup is an empty folder that holds files.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // The last process may take a moment to leave; a cgroup that stays is empty and costs nothing.
    let _ = eventually(Duration::from_secs(2), "the cgroup is empty", || Ok(fs::remove_dir(path)?));
}

const BOOT_LIMIT: Duration = Duration::from_secs(60);
