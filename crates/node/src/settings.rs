//! From the configuration to what each part is told: one place, so that each key's way can be seen.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use hotpair_coordinator::{Access, FunctionEntry, MasterEndpoints, ZooKeeperSettings};
use hotpair_core::pair::Settings;
use hotpair_core::pair::identity::{Identity, Incarnation, NodeId};
use hotpair_core::pair::settings::CoordinatorKind;
use hotpair_core::services::dataset::{ColumnKind, LoadMode};
use hotpair_core::services::users;
use hotpair_core::tables::replication::ReplicationSettings;
use hotpair_feed::FeedAddress;
use hotpair_gateway::{ClientSettings, SessionSettings};
use hotpair_journal::Durability;
use hotpair_link::LinkSecurity;
use hotpair_link::redo::MasterAddress;
use hotpair_store::{DatasetSpec, Source, Unpivot};
use hotpair_tls::TlsError;
use tokio::sync::watch;

use crate::config::{self, Acknowledgement, DatasetConfig, HeldWhen, NodeConfig};
use crate::data_directory::{self, DataDirectory};
use crate::datasets::DatasetPlan;
use crate::planted;
use crate::store::StoreEnd;
use crate::tables::TablesSettings;

/// The role decision's settings.
pub(crate) fn pair_settings(config: &NodeConfig) -> Settings {
    let usual = Settings::default();
    let peer = config.peer.as_ref();
    Settings {
        ping_interval_ms: peer.map_or(usual.ping_interval_ms, |p| p.ping_interval.ms()),
        ping_timeout_ms: peer.map_or(usual.ping_timeout_ms, |p| p.ping_timeout.ms()),
        ping_count: peer.map_or(usual.ping_count, |p| p.ping_count),
        fast_takeover: config.coordinator.zookeeper.as_ref().is_none_or(|z| z.fast_takeover),
        act: config.control.act,
        planted: planted::chosen().pair,
        ack_local: config.tables.ack == Acknowledgement::Local,
        peer: peer.is_some(),
        coordinator: match config.coordinator.kind {
            config::CoordinatorKind::Standalone => CoordinatorKind::Standalone,
            config::CoordinatorKind::ZooKeeper => CoordinatorKind::ZooKeeper,
            config::CoordinatorKind::BinaryStar | config::CoordinatorKind::Keepalived => {
                unreachable!("validated: kinds that are not built are refused")
            }
        },
        switches_per_hour: config.control.switches_per_hour,
        ..usual
    }
}

/// Who this process is.
pub(crate) fn identity(config: &NodeConfig, directory: &DataDirectory) -> Identity {
    let root = config.coordinator.zookeeper.as_ref().map_or("/", |z| z.root.as_str());
    Identity {
        incarnation: Incarnation {
            node: NodeId::new(&config.node),
            instance: directory.instance(),
            boot_id: data_directory::boot_id(),
        },
        life: fastrand::u64(1..),
        pair: config.pair.as_str().into(),
        root: root.into(),
        config_digest: config.digest(),
        version: Arc::from(env!("CARGO_PKG_VERSION")),
    }
}

/// The ZooKeeper driver's settings, if ZooKeeper decides.
pub(crate) fn zookeeper_settings(
    config: &NodeConfig,
    functions: Vec<FunctionEntry>,
    master_endpoints: watch::Sender<Option<MasterEndpoints>>,
) -> Result<Option<ZooKeeperSettings>, TlsError> {
    let Some(zookeeper) = &config.coordinator.zookeeper else { return Ok(None) };
    Ok(Some(ZooKeeperSettings {
        access: zookeeper_access(config, zookeeper)?,
        session_timeout: zookeeper.session_timeout.0,
        root: zookeeper.root.clone(),
        pair: config.pair.clone(),
        endpoints: config
            .advertised()
            .into_iter()
            .filter_map(|(name, address)| Some((name.to_owned(), address?)))
            .collect(),
        functions,
        master_endpoints,
    }))
}

/// How ZooKeeper is reached, and as whom.
pub(crate) fn zookeeper_access(
    config: &NodeConfig,
    zookeeper: &config::ZooKeeper,
) -> Result<Access, TlsError> {
    let identity = config.identity.as_ref().filter(|_| zookeeper.tls);
    Ok(Access {
        servers: zookeeper.servers.clone(),
        auth: config.zookeeper_auth.clone(),
        tls: identity.map(|identity| identity.client(&[])).transpose()?,
    })
}

/// TLS on the link, if there are files for it.
fn link_security(config: &NodeConfig) -> Result<Option<LinkSecurity>, TlsError> {
    let identity = config.identity.as_ref().filter(|_| config.tls.is_mutual());
    let security = |identity: &Arc<hotpair_tls::Identity>| {
        let (pair, plain_too) = (&config.pair, config.tls.insecure);
        match config.link_host() {
            Some(host) => LinkSecurity::expecting(identity, pair, host, plain_too),
            None => LinkSecurity::new(identity, pair, plain_too),
        }
    };
    identity.map(security).transpose()
}

/// Where the peer is, and how it is spoken to.
pub(crate) fn peer(config: &NodeConfig) -> Result<Option<MasterAddress>, TlsError> {
    let security = link_security(config)?;
    let address = config.peer.as_ref().map(|peer| peer.address.clone());
    Ok(address.map(|address| MasterAddress { address, security }))
}

/// How tables are kept.
pub(crate) fn tables(
    config: &NodeConfig,
    peer: Option<MasterAddress>,
    clean: bool,
    store: Option<StoreEnd>,
) -> TablesSettings {
    TablesSettings {
        directory: config.tables.directory.clone(),
        durability: match config.tables.durability {
            HeldWhen::File => Durability::File,
            HeldWhen::Disk => Durability::Disk,
        },
        replication: ReplicationSettings {
            ack_local: config.tables.ack == Acknowledgement::Local,
            planted: planted::chosen().tables,
            ..ReplicationSettings::default()
        },
        clean,
        store,
        idle_timeout_ms: config.sessions.idle_timeout.ms(),
        peer,
        peer_directory: config.tables.peer_directory.clone(),
        at_promotion: match config.users.clone() {
            Some(users) => Box::new(move |store| users::difference(&users.rows, store)),
            None => Box::new(|_| Vec::new()),
        },
    }
}

/// How long sessions live.
pub(crate) fn sessions(config: &NodeConfig) -> SessionSettings {
    SessionSettings {
        idle_timeout: config.sessions.idle_timeout.0,
        sweep_interval: config.sessions.sweep_interval.0,
    }
}

/// The bounds of the clients' HTTP.
pub(crate) fn clients(config: &NodeConfig) -> ClientSettings {
    ClientSettings {
        users_configured: config.users.is_some(),
        publishers: config.sessions.publishers.clone(),
        ..ClientSettings::default()
    }
}

/// What to load, and when. Every dataset that cannot be meant is named.
pub(crate) fn datasets(config: &NodeConfig) -> Result<Vec<DatasetPlan>, Vec<String>> {
    let (good, bad): (Vec<_>, Vec<_>) = config
        .datasets
        .iter()
        .map(|each| dataset(each, config.identity.as_deref()))
        .partition(Result::is_ok);
    let problems: Vec<String> = bad.into_iter().filter_map(Result::err).flatten().collect();
    if problems.is_empty() { Ok(good.into_iter().flatten().collect()) } else { Err(problems) }
}

/// Where the rows are; of a database, whom to trust for it as well.
fn source(url: &str, identity: Option<&hotpair_tls::Identity>) -> Result<Source, String> {
    match Source::from_str(url).map_err(|error| error.to_string())? {
        Source::Database(database) => {
            let ready = database.trusting(identity).map_err(|error| error.to_string())?;
            Ok(Source::Database(Box::new(ready)))
        }
        file @ Source::File { .. } => Ok(file),
    }
}

fn dataset(
    config: &DatasetConfig,
    identity: Option<&hotpair_tls::Identity>,
) -> Result<DatasetPlan, Vec<String>> {
    let name = &config.name;
    let mut problems = Vec::new();
    let mut problem = |key: &str, error: String| {
        problems.push(format!("datasets {name:?}: {key}: {error}"));
    };
    let source = source(&config.source, identity).map_err(|error| problem("source", error)).ok();
    let load =
        LoadMode::from_str(&config.load).map_err(|error| problem("load", error.to_string())).ok();
    let feed = config.feed.as_deref().map(FeedAddress::from_str).transpose();
    let feed = feed.map_err(|error| problem("feed", error.to_string())).ok().flatten();
    let mut columns = BTreeMap::new();
    for (column, kind) in &config.columns {
        match ColumnKind::from_str(kind) {
            Ok(kind) => {
                columns.insert(column.clone(), kind);
            }
            Err(error) => problem(&format!("columns.{column}"), error.to_string()),
        }
    }
    match (source, load) {
        (Some(source), Some(load)) if problems.is_empty() => {
            let unpivot = config.unpivot.as_ref().map(|u| Unpivot {
                keep: u.keep.clone(),
                name: u.name.clone(),
                value: u.value.clone(),
            });
            let spec = DatasetSpec {
                name: name.clone(),
                source,
                key: config.key.clone(),
                columns,
                broken_rows_max: config.broken_rows_max,
                unpivot,
            };
            Ok(DatasetPlan { spec, mode: load, feed })
        }
        _ => Err(problems),
    }
}
