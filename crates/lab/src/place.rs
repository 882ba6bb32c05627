//! Where a process runs and where we speak from: this host, or a network namespace.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network to be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The network of this process.
    Here,
    /// The network namespace of this name, as `ip netns` knows it.
    Namespace(String),
}

impl Place {
    /// A command that will run the program there, under the process id that it is started with.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        match self {
            Self::Here => Command::new(program),
            Self::Namespace(name) => {
                let mut command = Command::new("ip");
                // `ip` replaces itself by the program, so signals reach the program.
                command.args(["netns", "exec", name, program]);
                command
            }
        }
    }

    /// Runs a piece of code there; sockets it makes stay there wherever they are used.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self {
            Self::Here => work(),
            Self::Namespace(name) => thread::scope(|scope| {
                // A thread of its own, because a namespace is entered by thread and not left again.
                let thread = scope.spawn(|| {
                    enter(name)?;
                    work()
                });
                thread.join().unwrap_or_else(|_| Err(anyhow!("the work inside {name} panicked")))
            }),
        }
    }

    /// Opens a connection from there, with the limit also as the limit of each read and write.
    pub fn connect(&self, address: SocketAddr, limit: Duration) -> Result<TcpStream> {
        self.inside(|| {
            let stream = TcpStream::connect_timeout(&address, limit)
                .with_context(|| format!("cannot connect to {address}"))?;
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

fn enter(name: &str) -> Result<()> {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).with_context(|| format!("no network namespace {path}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the network namespace {name} (root is needed)"))
}
