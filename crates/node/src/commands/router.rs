//! `hotpair router`: settings, assemble, run, drain.
//!
//! Two kinds of threads: one carries clients' requests (or several, if so configured), the other one
//! follows the nodes and shows what is seen, so that a crowd of clients delays neither.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use hotpair_ctl::Outcome;
use hotpair_http::{Counters, Dialler, Door, Limits, Pool, PoolLimits};
use hotpair_router::fact::NodeIndex;
use hotpair_router::{AdminParts, Desk, Follower, Front, Meters, RouterAdmin, Settings, follow};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::node::raise_file_limit;
use crate::config::{RoutedNode, RouterConfig, tls};

/// What a router is told on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct RouterArguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

/// Runs a router until it is told to end.
pub(crate) fn run(arguments: &RouterArguments) -> Result<Outcome> {
    let config = RouterConfig::read(&arguments.config)?;
    raise_file_limit();
    let limits = PoolLimits {
        connections_max: config.limits.node_connections,
        streams_max: config.limits.streams,
        ..PoolLimits::default()
    };
    let identity = config.identity.as_deref();
    let dialler = tls::dialler(identity)?;
    let pool = |node: &RoutedNode| -> Result<Pool> {
        let url = RoutedNode::url(&node.client, &config.tls).parse()?;
        Ok(Pool::over(dialler.clone(), url, limits.clone()))
    };
    let pools = config.nodes.iter().map(pool).collect::<Result<_>>()?;
    let desk = Arc::new(Desk::new(settings(&config), pools));
    let (meters, counters) = (Arc::<Meters>::default(), Arc::<Counters>::default());
    let carrying = carrying_runtime(config.limits.threads)?;
    let watching = Builder::new_current_thread().enable_all().build()?;
    // Both ports are bound before anything is said to be ready.
    let clients = bind(&carrying, "listen.client", config.listen.client)?;
    let operators = bind(&watching, "listen.admin", config.listen.admin)?;
    let (client, admin) = (config.listen.client, config.listen.admin);
    tracing::info!(pair = config.pair, %client, %admin, "router starts");
    tls::warn(&config.doubts);
    let acceptor = tls::acceptor(identity)?;
    let clients = Door::new(clients, acceptor.clone());
    let operators = Door::new(operators, acceptor).with_plain_from_loopback();
    let watched = Watched {
        operators,
        dialler,
        desk: Arc::clone(&desk),
        meters: Arc::clone(&meters),
        counters: Arc::clone(&counters),
        config: config.clone(),
    };
    std::thread::Builder::new()
        .name("watching".to_owned())
        .spawn(move || watching.block_on(watched.watch()))?;
    let front = Arc::new(Front::new(Arc::clone(&desk), meters));
    let usual = Limits::client();
    let limits = Limits {
        connections_max: config.limits.connections,
        // At the end, what is held has as long as it would have had.
        drain_timeout: usual.drain_timeout.max(config.hold.planned.0),
        ..usual
    };
    carrying.block_on(async {
        let stop = told_to_end()?;
        let serving = hotpair_http::serve_until(clients, limits, front, counters, stop);
        // On a worker rather than beside the workers, where there are several.
        tokio::spawn(serving).await.context("serving clients ended in a panic")
    })?;
    tracing::info!("router ends");
    Ok(Outcome::Done)
}

fn settings(config: &RouterConfig) -> Settings {
    Settings {
        nodes: config.nodes.len(),
        planned_ms: config.hold.planned.ms(),
        crash_ms: config.hold.crash.ms(),
        held_bytes_max: config.hold.bytes.0,
        held_max: config.limits.held,
        requests_max: config.limits.requests,
        bound_ms: config.hold.bound.ms(),
        // Routers side by side must not advise alike.
        seed: fastrand::u64(..),
    }
}

fn carrying_runtime(threads: usize) -> Result<Runtime> {
    let mut builder =
        if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    Ok(builder.worker_threads(threads).thread_name("carrying").enable_all().build()?)
}

fn bind(runtime: &Runtime, key: &str, address: std::net::SocketAddr) -> Result<TcpListener> {
    runtime
        .block_on(async { hotpair_http::bind(address) })
        .with_context(|| format!("{key} = \"{address}\" cannot be bound"))
}

/// What the watching thread does.
struct Watched {
    operators: Door,
    dialler: Dialler,
    desk: Arc<Desk>,
    meters: Arc<Meters>,
    counters: Arc<Counters>,
    config: RouterConfig,
}

impl Watched {
    async fn watch(self) {
        let Self { operators, dialler, desk, meters, counters, config } = self;
        for (index, node) in config.nodes.iter().enumerate() {
            let follower = Follower {
                node: NodeIndex(index),
                name: node.name.clone(),
                pair: config.pair.clone(),
                admin: RoutedNode::url(&node.admin, &config.tls),
                dialler: dialler.clone(),
                authorization: config.read_token.as_ref().map(|token| format!("Bearer {token}")),
            };
            tokio::spawn(follow(follower, Arc::clone(&desk)));
        }
        let timed = Arc::clone(&desk);
        tokio::spawn(async move { timed.keep_time().await });
        let hosts = tls::hosts(config.identity.as_deref(), &config.admin.hosts);
        let admin = RouterAdmin::new(AdminParts {
            hosts,
            pair: config.pair,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: config.nodes.into_iter().map(|node| node.name).collect(),
            desk,
            meters,
            counters,
            read_token: config.read_token,
        });
        let counters = Arc::default();
        hotpair_http::serve(operators, Limits::admin(), Arc::new(admin), counters).await;
    }
}

/// Over at SIGTERM or SIGINT.
fn told_to_end() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
