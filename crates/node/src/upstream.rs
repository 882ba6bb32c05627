//! The external investment system: heartbeats on a thread of their own, so that neither business that
//! blocks nor a system that hangs delays the other.

use std::sync::Arc;

use anyhow::{Context, Result};
use hotpair_gateway::{Gate, Tables, Upstream, UpstreamSettings};

use crate::config::{NodeConfig, tls};

/// Begins to tell it of the sessions, if it is configured.
pub(crate) fn start(
    config: &NodeConfig,
    gate: Gate,
    tables: Tables,
) -> Result<Option<Arc<Upstream>>> {
    let Some(upstream) = &config.upstream else { return Ok(None) };
    let urls = [&upstream.login, &upstream.heartbeat].into_iter().flatten();
    let secure = urls.into_iter().find(|url| url.starts_with("https://"));
    let url = secure.map_or("", String::as_str);
    let dialler =
        tls::dialler_of_the_world(config.identity.as_deref(), url).context("[upstream]")?;
    let settings = UpstreamSettings {
        dialler,
        login: upstream.login.clone(),
        heartbeat: upstream.heartbeat.clone(),
        interval: upstream.interval.0,
        ..UpstreamSettings::default()
    };
    let upstream = Arc::new(Upstream::new(settings, tables, gate).context("[upstream]")?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Names that are looked up; more wait.
        .max_blocking_threads(LOOKUPS_MAX)
        .enable_all()
        .build()?;
    let beating = Arc::clone(&upstream);
    std::thread::Builder::new()
        .name("upstream".to_owned())
        .spawn(move || runtime.block_on(beating.keep_beating()))?;
    Ok(Some(upstream))
}

const LOOKUPS_MAX: usize = 4;
