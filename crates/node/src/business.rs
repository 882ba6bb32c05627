//! The clients' side: its own threads, which business may block as it likes.

use std::sync::Arc;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use hotpair_gateway::{
    Catalogue, ClientParts, ClientService, ClientSettings, Gate, Meters, Passwords, Sessions,
    Tables, Upstream, Whereabouts,
};
use hotpair_http::{Counters, Door, Limits};

use crate::config::{NodeConfig, tls};
use crate::datasets::Datasets;
use crate::{fault_points, planted};

/// What the clients' side is made of.
pub(crate) struct BusinessParts {
    pub(crate) gate: Gate,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) datasets: Datasets,
    pub(crate) whereabouts: Arc<ArcSwap<Whereabouts>>,
    pub(crate) tables: Tables,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) upstream: Option<Arc<Upstream>>,
    pub(crate) settings: ClientSettings,
}

/// The clients' side, running.
pub(crate) struct Business {
    pub(crate) meters: Arc<Meters>,
    pub(crate) counters: Arc<Counters>,
}

impl Business {
    /// Binds the port and begins to serve, as far as the gate lets pass.
    pub(crate) fn start(config: &NodeConfig, parts: BusinessParts) -> Result<Self> {
        // One core is left to the tables' thread, which has as much to do with each change.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads((cores - 1).max(1))
            .thread_name("business")
            .enable_all()
            .build()?;
        let meters = Arc::new(Meters::default());
        let counters = Arc::new(Counters::default());
        let service = ClientService::new(ClientParts {
            gate: parts.gate,
            catalogue: parts.catalogue,
            datasets: Arc::new(parts.datasets),
            whereabouts: parts.whereabouts,
            meters: meters.clone(),
            tables: parts.tables,
            sessions: parts.sessions,
            passwords: Passwords::start()?,
            settings: parts.settings,
            reached: fault_points::reach,
            planted: planted::chosen().tables,
        });
        let service = Arc::new(service.with_upstream(parts.upstream));
        let address = config.listen.client;
        let listener = runtime
            .block_on(async { hotpair_http::bind(address) })
            .with_context(|| format!("listen.client = \"{address}\" cannot be bound"))?;
        let turns = counters.clone();
        runtime.spawn(service.keep_sweeping());
        runtime.spawn(service.keep_finishing_calls());
        let door = Door::new(listener, tls::acceptor(config.identity.as_deref())?);
        runtime.spawn(hotpair_http::serve(door, Limits::client(), service, turns));
        // Lives as long as the process: what it serves is cut by the gate, not by its end.
        std::mem::forget(runtime);
        Ok(Self { meters, counters })
    }
}
