//! From the configuration to what each part is told: one place, so that each key's way can be seen.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use hotpair_coordinator::{FunctionEntry, MasterEndpoints, ZooKeeperSettings};
use hotpair_core::pair::Settings;
use hotpair_core::pair::identity::{Identity, Incarnation, NodeId};
use hotpair_core::pair::settings::CoordinatorKind;
use hotpair_core::services::dataset::{ColumnKind, LoadMode};
use hotpair_core::services::users;
use hotpair_core::tables::replication::ReplicationSettings;
use hotpair_feed::FeedAddress;
use hotpair_gateway::{ClientSettings, SessionSettings};
use hotpair_journal::Durability;
use hotpair_store::{DatasetSpec, Source, Unpivot};
use tokio::sync::watch;

use crate::config::{self, Acknowledgement, DatasetConfig, HeldWhen, NodeConfig};
use crate::data_directory::{self, DataDirectory};
use crate::datasets::DatasetPlan;
use crate::planted;
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
) -> Option<ZooKeeperSettings> {
    let zookeeper = config.coordinator.zookeeper.as_ref()?;
    Some(ZooKeeperSettings {
        servers: zookeeper.servers.clone(),
        session_timeout: zookeeper.session_timeout.0,
        root: zookeeper.root.clone(),
        pair: config.pair.clone(),
        endpoints: [
            ("client", Some(config.listen.client)),
            ("admin", Some(config.listen.admin)),
            ("peer", config.listen.peer),
        ]
        .into_iter()
        .filter_map(|(name, address)| Some((name.to_owned(), address?.to_string())))
        .collect(),
        functions,
        master_endpoints,
    })
}

/// How tables are kept.
pub(crate) fn tables(config: &NodeConfig, clean: bool) -> TablesSettings {
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
        idle_timeout_ms: config.sessions.idle_timeout.ms(),
        peer: config.peer.as_ref().map(|peer| peer.address.clone()),
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
    ClientSettings { users_configured: config.users.is_some(), ..ClientSettings::default() }
}

/// What to load, and when. Every dataset that cannot be meant is named.
pub(crate) fn datasets(config: &NodeConfig) -> Result<Vec<DatasetPlan>, Vec<String>> {
    let (good, bad): (Vec<_>, Vec<_>) =
        config.datasets.iter().map(dataset).partition(Result::is_ok);
    let problems: Vec<String> = bad.into_iter().filter_map(Result::err).flatten().collect();
    if problems.is_empty() { Ok(good.into_iter().flatten().collect()) } else { Err(problems) }
}

fn dataset(config: &DatasetConfig) -> Result<DatasetPlan, Vec<String>> {
    let name = &config.name;
    let mut problems = Vec::new();
    let mut problem = |key: &str, error: String| {
        problems.push(format!("datasets {name:?}: {key}: {error}"));
    };
    let source =
        Source::from_str(&config.source).map_err(|error| problem("source", error.to_string())).ok();
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
