//! The operators' side: the admin HTTP and the webhook, on a thread of their own.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use hotpair_admin::{
    AdminCommand, AdminService, AdminState, GovernedServices, Health, Live, Snapshot, TableFigures,
    Tokens, UpstreamFigures, Webhook, WebhookSettings,
};
use hotpair_core::pair::identity::Epoch;
use hotpair_gateway::{Gate, Meters, Upstream};
use hotpair_http::{Counters, Door, Limits};
use hotpair_protocol::{RequestTotals, StoreStatus};
use tokio::sync::{mpsc, watch};

use crate::config::{NodeConfig, tls};
use crate::tables::Figures;

/// What the operators' side is given.
pub(crate) struct Shown {
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) health: Arc<Health>,
    pub(crate) commands: mpsc::Sender<AdminCommand>,
    pub(crate) services: Arc<dyn GovernedServices>,
    pub(crate) upstream: Option<Arc<Upstream>>,
}

/// What is asked at the moment of answering.
#[derive(Debug)]
struct AtThisMoment {
    gate: Gate,
    meters: Arc<Meters>,
    tables: Arc<Figures>,
    store: Option<Arc<hotpair_sql::Shown>>,
    upstream: Option<Arc<Upstream>>,
}

impl Live for AtThisMoment {
    fn serving_epoch(&self) -> Option<Epoch> {
        self.gate.serving_epoch()
    }

    fn requests(&self) -> RequestTotals {
        self.meters.totals()
    }

    fn tables(&self) -> TableFigures {
        let store_lag_records = self.store.as_ref().and_then(|s| s.figures().lag_records);
        TableFigures { store_lag_records, ..self.tables.read() }
    }

    fn store(&self) -> Option<StoreStatus> {
        self.store.as_ref().map(|store| crate::store::status(&store.figures()))
    }

    fn upstream(&self) -> Option<UpstreamFigures> {
        let totals = self.upstream.as_ref()?.totals();
        Some(UpstreamFigures {
            logins: totals.logins,
            logins_failed: totals.logins_failed,
            heartbeats: totals.heartbeats,
            unknown: totals.unknown,
            failed: totals.failed,
            skipped_ms: totals.skipped_ms,
        })
    }
}

/// Starts it; the counters of its acceptor.
pub(crate) fn start(
    config: &NodeConfig,
    shown: Shown,
    gate: Gate,
    meters: Arc<Meters>,
    (tables, store): (Arc<Figures>, Option<Arc<hotpair_sql::Shown>>),
) -> Result<Arc<Counters>> {
    let identity = config.identity.as_deref();
    let read = |file: &Option<PathBuf>| -> Result<Option<String>> {
        let Some(file) = file else { return Ok(None) };
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        Ok(Some(text))
    };
    let tokens = Tokens::new(
        read(&config.admin.token_file)?.as_deref(),
        read(&config.admin.read_token_file)?.as_deref(),
    );
    let state = AdminState {
        snapshot: shown.snapshots.clone(),
        health: shown.health,
        live: Arc::new(AtThisMoment { gate, meters, tables, store, upstream: shown.upstream }),
        tokens,
        hosts: tls::hosts(identity, &config.admin.hosts),
        commands: shown.commands,
        services: shown.services,
    };
    let acceptor = tls::acceptor(identity)?;
    let webhook = match &config.alerts.webhook {
        Some(url) => {
            let settings = WebhookSettings {
                dialler: tls::dialler_of_the_world(identity, url)?,
                scheme: if acceptor.is_some() { "https" } else { "http" },
                ..WebhookSettings::new(url)
            };
            Some(Webhook::new(settings, shown.snapshots))
        }
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = config.listen.admin;
    let listener = runtime
        .block_on(async { hotpair_http::bind(address) })
        .with_context(|| format!("listen.admin = \"{address}\" cannot be bound"))?;
    let counters = Arc::new(Counters::default());
    let turns = counters.clone();
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        runtime.block_on(async {
            if let Some(webhook) = webhook {
                tokio::spawn(webhook.run());
            }
            let service = Arc::new(AdminService::new(state));
            // What keepalived, systemd and operators ask on the node itself needs no certificate.
            let door = Door::new(listener, acceptor).with_plain_from_loopback();
            hotpair_http::serve(door, Limits::admin(), service, turns).await;
        });
    })?;
    Ok(counters)
}
