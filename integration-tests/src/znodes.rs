//! ZooKeeper's data as somebody else sees and spoils it: not through the product.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use zookeeper_client::{Acls, Client, CreateMode, Error};

/// A session of our own.
#[derive(Debug)]
pub struct Znodes {
    // In this order: the session ends inside the runtime.
    client: Client,
    runtime: Runtime,
}

impl Znodes {
    /// Opens a session at these servers.
    pub fn connect(servers: &[SocketAddr]) -> Result<Self> {
        let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        // Its own thread: sessions live on heartbeats, whatever the test does meanwhile.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(Client::connect(&servers.join(",")));
        let client = client.with_context(|| format!("no session at {servers:?}"))?;
        Ok(Self { client, runtime })
    }

    /// The same, as a user of ZooKeeper's digest scheme: `user:password`.
    pub fn connect_as(servers: &[SocketAddr], line: &str) -> Result<Self> {
        let Self { client, runtime } = Self::connect(servers)?;
        runtime.block_on(client.auth("digest", line.as_bytes()))?;
        Ok(Self { client, runtime })
    }

    /// A znode's content; `None` when there is none.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.runtime.block_on(self.client.get_data(path)) {
            Ok((data, _)) => Ok(Some(data)),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
        }
    }

    /// The names below a znode, sorted; none when it is not there.
    pub fn below(&self, path: &str) -> Result<Vec<String>> {
        match self.runtime.block_on(self.client.list_children(path)) {
            Ok(mut names) => {
                names.sort();
                Ok(names)
            }
            Err(Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot list {path}")),
        }
    }

    /// Replaces a znode's content, or makes a persistent one.
    pub fn write(&self, path: &str, data: &[u8]) -> Result<()> {
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        self.runtime
            .block_on(async {
                match self.client.set_data(path, data, None).await {
                    Err(Error::NoNode) => {
                        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                        if !parent.is_empty() {
                            self.client.mkdir(parent, &options).await?;
                        }
                        self.client.create(path, data, &options).await.map(drop)
                    }
                    written => written.map(drop),
                }
            })
            .with_context(|| format!("cannot write {path}"))
    }

    /// Deletes a znode; it may be gone already.
    pub fn delete(&self, path: &str) -> Result<()> {
        match self.runtime.block_on(self.client.delete(path, None)) {
            Ok(()) | Err(Error::NoNode) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot delete {path}")),
        }
    }
}
