//! A node's configuration: the file, then the environment (`HOTPAIR__SECTION__KEY`), in one place.
//!
//! Reading has three steps, and each reports all that it finds, not only the first: the keys (by
//! line), the types (by key), and what the values mean together ([`NodeConfig::validate`]). The users
//! file is read along with it.

pub(crate) mod functions;
mod keys;
pub(crate) mod router;
mod services;
mod store;
pub(crate) mod tls;
mod upstream;
pub(crate) mod users;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hotpair_coordinator::Auth;
use hotpair_http::Url;
use hotpair_store::Source;
use hotpair_tls::Identity;
use serde::{Deserialize, Deserializer};

pub(crate) use self::functions::FunctionConfig;
pub(crate) use self::router::{RoutedNode, RouterConfig};
pub(crate) use self::services::{ServiceCheck, ServiceConfig};
pub(crate) use self::store::StoreConfig;
pub(crate) use self::tls::Tls;
use self::upstream::UpstreamConfig;
use self::users::Users;
pub(crate) use self::words::{Acknowledgement, CoordinatorKind, HeldWhen, ReplicationWay, Word};

/// The environment's prefix.
const ENVIRONMENT: &str = "HOTPAIR";

/// Everything a node is told.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeConfig {
    /// The pair's name; both nodes the same.
    pub(crate) pair: String,
    /// This node's name; the two different.
    pub(crate) node: String,
    /// Where this node listens.
    pub(crate) listen: Listen,
    /// Where others reach it, where addresses are translated on the way.
    #[serde(default)]
    pub(crate) advertise: Advertise,
    /// The other node; there always is one, except standalone.
    pub(crate) peer: Option<Peer>,
    /// What decides between the two.
    pub(crate) coordinator: Coordinator,
    /// What is kept, where, and how safely.
    #[serde(default)]
    pub(crate) tables: Tables,
    /// The tables in an SQL database.
    #[serde(default)]
    pub(crate) store: StoreConfig,
    /// Who may log in, and for how long.
    #[serde(default)]
    pub(crate) sessions: Sessions,
    /// What the users file says; none if none is configured.
    #[serde(skip)]
    pub(crate) users: Option<Users>,
    /// The user of ZooKeeper; nobody in particular if none is configured.
    #[serde(skip)]
    pub(crate) zookeeper_auth: Option<Auth>,
    /// What is good enough to start with, and is to be told.
    #[serde(skip)]
    pub(crate) doubts: Vec<String>,
    /// The external investment system.
    pub(crate) upstream: Option<UpstreamConfig>,
    /// Large read-mostly data to load.
    #[serde(default)]
    pub(crate) datasets: Vec<DatasetConfig>,
    /// Functions served by programs beside the node.
    #[serde(default)]
    pub(crate) functions: Vec<FunctionConfig>,
    /// Servers of other people as primary and standby.
    #[serde(default)]
    pub(crate) services: Vec<ServiceConfig>,
    #[serde(default)]
    pub(crate) alerts: Alerts,
    #[serde(default)]
    pub(crate) control: Control,
    #[serde(default)]
    pub(crate) admin: Admin,
    #[serde(default)]
    pub(crate) tls: Tls,
    /// What the files of `[tls]` say; none if none is given.
    #[serde(skip)]
    pub(crate) identity: Option<Arc<Identity>>,
}

/// Addresses to bind, `host:port` with an IP address.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Listen {
    pub(crate) client: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// There always is one, except standalone, where it is not used.
    pub(crate) peer: Option<SocketAddr>,
}

/// Where others reach this node, `host:port`, where that is not where it listens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Advertise {
    pub(crate) client: Option<String>,
    pub(crate) admin: Option<String>,
    pub(crate) peer: Option<String>,
}

/// The other node.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Peer {
    /// Its `listen.peer`, `host:port`.
    pub(crate) address: String,
    /// Its `listen.admin`, `host:port`; shown to operators.
    pub(crate) admin: Option<String>,
    #[serde(default = "default_ping")]
    pub(crate) ping_interval: Span,
    #[serde(default = "default_ping")]
    pub(crate) ping_timeout: Span,
    #[serde(default = "default_ping_count")]
    pub(crate) ping_count: u32,
}

fn default_ping() -> Span {
    Span(Duration::from_millis(200))
}

fn default_ping_count() -> u32 {
    3
}

/// What decides between the two nodes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Coordinator {
    #[serde(deserialize_with = "words::word")]
    pub(crate) kind: CoordinatorKind,
    pub(crate) zookeeper: Option<ZooKeeper>,
}

/// The ensemble.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ZooKeeper {
    /// `host:port` of each server of one ensemble.
    pub(crate) servers: Vec<String>,
    /// Asked for; the server clamps it to between 2 and 20 of its ticks.
    #[serde(default = "default_session_timeout")]
    pub(crate) session_timeout: Span,
    /// The znode below which pairs are; both nodes the same.
    #[serde(default = "default_root")]
    pub(crate) root: String,
    /// Take over a dead or silent peer without waiting for its session's expiry.
    #[serde(default = "default_true")]
    pub(crate) fast_takeover: bool,
    /// A file with one line, `user:password`; relative to this file's folder. Both nodes the same.
    pub(crate) auth: Option<PathBuf>,
    /// With the files of `[tls]`; `servers` are secure ports then.
    #[serde(default)]
    pub(crate) tls: bool,
}

fn default_session_timeout() -> Span {
    Span(Duration::from_secs(4))
}

fn default_root() -> String {
    "/hotpair".to_owned()
}

fn default_true() -> bool {
    true
}

/// What is kept, where, and how safely.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Tables {
    /// This node's own directory: its identity, its lock, its journal, its log and snapshots.
    pub(crate) directory: PathBuf,
    /// How the standby gets the log; both nodes the same.
    #[serde(deserialize_with = "words::word")]
    pub(crate) replication: ReplicationWay,
    /// The other node's `directory` as this node sees it, with `replication = "directory"`.
    pub(crate) peer_directory: Option<PathBuf>,
    /// When a change is acknowledged; both nodes the same. `local` may lose what only the master
    /// had.
    #[serde(deserialize_with = "words::word")]
    pub(crate) ack: Acknowledgement,
    /// When a node holds a change; both nodes the same. `file` may lose what two machines that fail
    /// together had not yet on disk.
    #[serde(deserialize_with = "words::word")]
    pub(crate) durability: HeldWhen,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/hotpair"),
            replication: ReplicationWay::default(),
            peer_directory: None,
            ack: Acknowledgement::default(),
            durability: HeldWhen::default(),
        }
    }
}

/// Who may log in, and for how long.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Sessions {
    /// A session that is silent for so long, while a master serves, is over; both nodes the same.
    /// Shorter than clients' heartbeats are apart logs everybody out.
    pub(crate) idle_timeout: Span,
    /// How often is looked for such sessions.
    pub(crate) sweep_interval: Span,
    /// Names and argon2 hashes; relative to this file's folder. Without it nobody has to log in.
    pub(crate) users_file: Option<PathBuf>,
    /// Users whose sessions may publish to whoever follows; from this machine itself everybody may.
    pub(crate) publishers: Vec<String>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            idle_timeout: Span(Duration::from_mins(2)),
            sweep_interval: Span(Duration::from_secs(10)),
            users_file: None,
            publishers: Vec::new(),
        }
    }
}

/// One dataset.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DatasetConfig {
    pub(crate) name: String,
    /// `file:///…` ending in .csv, .csv.gz or .parquet, or `postgres://…?query=…`; may hold a password.
    pub(crate) source: String,
    /// `zmq://host:port` of a publisher of updates.
    pub(crate) feed: Option<String>,
    /// The columns that make a row's key, in order.
    pub(crate) key: Vec<String>,
    /// `on-promote` or `preload`.
    #[serde(default = "default_load")]
    pub(crate) load: String,
    /// Kinds of columns that inference would get wrong.
    #[serde(default)]
    pub(crate) columns: BTreeMap<String, String>,
    /// More broken rows than this fail the load.
    #[serde(default)]
    pub(crate) broken_rows_max: u64,
    /// Makes one row of each column of a wide file.
    pub(crate) unpivot: Option<UnpivotConfig>,
}

impl DatasetConfig {
    /// What an operator should know of the way to its source.
    fn doubt(&self) -> Option<String> {
        let Ok(Source::Database(database)) = self.source.parse() else { return None };
        Some(format!("datasets {:?}: source: {}", self.name, database.server().doubt()?))
    }
}

fn default_load() -> String {
    "on-promote".to_owned()
}

/// How a wide file becomes a long one.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct UnpivotConfig {
    /// Columns that stay.
    pub(crate) keep: Vec<String>,
    /// The new column with the names of the others.
    pub(crate) name: String,
    /// The new column with their values.
    pub(crate) value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Alerts {
    /// Where firing alerts are posted, in Alertmanager's v2 format.
    pub(crate) webhook: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Control {
    /// false: decides and records, and never claims.
    pub(crate) act: bool,
    /// Unplanned voluntary switches allowed in an hour.
    pub(crate) switches_per_hour: u32,
}

impl Default for Control {
    fn default() -> Self {
        Self { act: true, switches_per_hour: 6 }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Admin {
    /// The bearer token that every POST needs.
    pub(crate) token_file: Option<PathBuf>,
    /// The bearer token that a GET from elsewhere than loopback needs.
    pub(crate) read_token_file: Option<PathBuf>,
    /// Names by which this node's admin HTTP is asked from its own machine, besides addresses,
    /// localhost, the machine's name and those of the certificate.
    pub(crate) hosts: Vec<String>,
}

/// A length of time as operators write it: `200ms`, `4s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl Span {
    pub(crate) fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is no length of time; write 200ms or 4s"))
        })
    }
}

/// The configuration cannot be used; every problem found.
#[derive(Debug)]
pub(crate) struct ConfigError {
    file: PathBuf,
    problems: Vec<String>,
}

impl ConfigError {
    /// Problems of a file that its readers found.
    pub(crate) fn new(file: &Path, problems: Vec<String>) -> Self {
        Self { file: file.to_owned(), problems }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {problem}", self.file.display())?;
        }
        Ok(())
    }
}

/// The password of the user that a command logs in as.
pub(crate) fn password_in_environment() -> Option<String> {
    std::env::var("HOTPAIR_PASSWORD").ok().filter(|password| !password.is_empty())
}

/// The file's text with the environment's variables over it; `lists` may be given there with commas.
fn layered<T: serde::de::DeserializeOwned>(
    text: &str,
    environment: &BTreeMap<String, String>,
    lists: &[&str],
) -> Result<T, Vec<String>> {
    let mut over = config::Environment::with_prefix(ENVIRONMENT)
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .source(Some(environment.clone().into_iter().collect()));
    if !lists.is_empty() {
        over = over.list_separator(",");
    }
    for list in lists {
        over = over.with_list_parse_key(list);
    }
    config::Config::builder()
        .add_source(config::File::from_str(text, config::FileFormat::Toml))
        .add_source(over)
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|error| vec![told(text, &error)])
}

/// Of a text that is no TOML, nothing is shown.
fn told(text: &str, error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::FileParse { cause, .. } => match cause.downcast_ref() {
            Some(error) => keys::no_toml(text, error),
            None => cause.to_string(),
        },
        other => other.to_string(),
    }
}

/// Entrances for the fuzzer.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{BTreeMap, NodeConfig, RouterConfig};

    pub(crate) fn both(text: &str) {
        let environment = BTreeMap::new();
        for problems in [
            NodeConfig::parse(text, &environment).err(),
            RouterConfig::parse(text, &environment).err(),
        ] {
            assert!(problems.is_none_or(|problems| !problems.is_empty()), "refused without a word");
        }
    }
}

impl NodeConfig {
    /// Reads the file and the environment of this process.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        let fail = |problems| ConfigError::new(file, problems);
        let (text, environment) = sources(file)?;
        let mut config = Self::parse(&text, &environment).map_err(fail)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        config.read_users(folder).map_err(fail)?;
        config.read_zookeeper_auth(folder).map_err(fail)?;
        config.tls = config.tls.below(folder);
        config.identity = config.tls.read().map_err(fail)?;
        config.store.check(config.identity.as_deref()).map_err(fail)?;
        let auth = config.coordinator.zookeeper.as_ref().and_then(|z| z.auth.as_ref());
        let auth = auth.map(|auth| folder.join(auth));
        let users = config.sessions.users_file.as_ref().map(|users| folder.join(users));
        let secrets = [
            ("sessions.users_file", users.as_ref()),
            ("admin.token_file", config.admin.token_file.as_ref()),
            ("admin.read_token_file", config.admin.read_token_file.as_ref()),
            ("tls.key", config.tls.key.as_ref()),
            ("coordinator.zookeeper.auth", auth.as_ref()),
        ];
        config.doubts = tls::doubts(config.identity.as_deref(), secrets);
        config.doubts.extend(config.link_doubt());
        config.doubts.extend(config.store.doubt());
        config.doubts.extend(config.datasets.iter().filter_map(DatasetConfig::doubt));
        config.doubts.extend(upstream::doubts(config.upstream.as_ref()));
        Ok(config)
    }

    /// Reads the users file, if there is to be one; its path is relative to this folder.
    fn read_users(&mut self, folder: &Path) -> Result<(), Vec<String>> {
        if let Some(file) = &self.sessions.users_file {
            let told = |problem| format!("sessions.users_file: {problem}");
            let users = Users::read(&folder.join(file))
                .map_err(|problems| problems.into_iter().map(told).collect::<Vec<_>>())?;
            self.users = Some(users);
        }
        Ok(())
    }

    /// The host that the peer's certificate has to name on the link, where our own does not name the
    /// pair and so the peer's cannot be asked to.
    pub(crate) fn link_host(&self) -> Option<&str> {
        let identity = self.identity.as_ref().filter(|_| self.tls.is_mutual())?;
        let address = &self.peer.as_ref()?.address;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        (!identity.is_named(&self.pair)).then(|| host.trim_start_matches('[').trim_end_matches(']'))
    }

    fn link_doubt(&self) -> Option<String> {
        let host = self.link_host()?;
        Some(format!(
            "tls.certificate does not name {:?}, the pair: the other node's has to name {host:?}, the \
             host of peer.address, or it is refused on the link",
            self.pair
        ))
    }

    /// How others reach this node's listeners: a name for each use, with an address.
    pub(crate) fn advertised(&self) -> [(&'static str, Option<String>); 3] {
        let Advertise { client, admin, peer } = &self.advertise;
        let or = |given: &Option<String>, own: Option<SocketAddr>| {
            given.clone().or(own.map(|address| address.to_string()))
        };
        [
            ("client", or(client, Some(self.listen.client))),
            ("admin", or(admin, Some(self.listen.admin))),
            ("peer", or(peer, self.listen.peer)),
        ]
    }

    /// Listeners of which others are told an address that is none: bound everywhere, they are reached
    /// nowhere in particular.
    pub(crate) fn unreachable_addresses(&self) -> Vec<&'static str> {
        let everywhere = |address: &str| {
            address.parse().is_ok_and(|address: SocketAddr| address.ip().is_unspecified())
        };
        let told = self.advertised().into_iter();
        told.filter(|(_, address)| address.as_deref().is_some_and(everywhere))
            .map(|(name, _)| name)
            .collect()
    }

    /// Reads the user of ZooKeeper, if there is to be one; the path is relative to this folder.
    fn read_zookeeper_auth(&mut self, folder: &Path) -> Result<(), Vec<String>> {
        let file = self.coordinator.zookeeper.as_ref().and_then(|z| z.auth.as_ref());
        if let Some(file) = file {
            let auth = Auth::read(&folder.join(file))
                .map_err(|what| vec![format!("coordinator.zookeeper.auth: {what}")])?;
            self.zookeeper_auth = Some(auth);
        }
        Ok(())
    }

    /// Parses the file's text and the environment's variables that begin with the prefix.
    fn parse(text: &str, environment: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        check_keys(text, environment, keys::NODE)?;
        let config: Self =
            layered(text, environment, &["coordinator.zookeeper.servers", "admin.hosts"])?;
        let problems = config.validate();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// What the values mean together; each problem names the keys and the values.
    fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.validate_names(&mut problems);
        self.validate_addresses(&mut problems);
        self.validate_coordinator(&mut problems);
        self.validate_peer(&mut problems);
        self.validate_tables(&mut problems);
        self.validate_datasets(&mut problems);
        let users_configured = self.sessions.users_file.is_some();
        upstream::validate(self.upstream.as_ref(), users_configured, &mut problems);
        services::validate(&self.services, &self.listen, &mut problems);
        let insecure = self.tls.insecure;
        functions::validate(&self.functions, &self.datasets, insecure, &mut problems);
        self.store.validate(&mut problems);
        for (key, file) in [
            ("admin.token_file", &self.admin.token_file),
            ("admin.read_token_file", &self.admin.read_token_file),
        ] {
            if let Some(file) = file
                && let Err(problem) = tls::check_secret(key, file)
            {
                problems.push(problem);
            }
        }
        if let Some(url) = &self.alerts.webhook
            && let Err(error) = url.parse::<Url>()
        {
            problems.push(format!("alerts.webhook: {error}"));
        }
        problems
    }

    fn validate_names(&self, problems: &mut Vec<String>) {
        for (key, value) in [("pair", &self.pair), ("node", &self.node)] {
            check_name(problems, key, value);
        }
    }

    fn validate_addresses(&self, problems: &mut Vec<String>) {
        let listen = &self.listen;
        let addresses: Vec<(&str, SocketAddr)> = [
            ("listen.client", Some(listen.client)),
            ("listen.admin", Some(listen.admin)),
            ("listen.peer", listen.peer),
        ]
        .into_iter()
        .filter_map(|(key, address)| Some((key, address?)))
        .collect();
        check_listening(problems, &addresses, &self.tls);
        let Advertise { client, admin, peer } = &self.advertise;
        let told = [("client", client), ("admin", admin), ("peer", peer)];
        for (key, address) in told.iter().filter_map(|(key, given)| Some((key, given.as_ref()?))) {
            if !has_port(address) {
                problems.push(format!("advertise.{key} = {address:?}: write host:port"));
            }
        }
    }

    fn validate_peer(&self, problems: &mut Vec<String>) {
        let kind = self.coordinator.kind;
        let Some(peer) = &self.peer else {
            if kind != CoordinatorKind::Standalone {
                problems.push(format!(
                    "[peer] is missing: with coordinator.kind = {:?} there are two nodes",
                    kind.word()
                ));
            }
            return;
        };
        match (kind, self.listen.peer) {
            (CoordinatorKind::Standalone, _) => {
                problems.push(
                    "[peer] is given and coordinator.kind is \"standalone\": a node that stands \
                     alone has no peer; take one of the two out"
                        .to_owned(),
                );
            }
            (_, None) => problems.push(format!(
                "listen.peer is missing: with coordinator.kind = {:?} the other node comes there",
                kind.word()
            )),
            (_, Some(listen)) if peer.address == listen.to_string() => {
                problems.push(format!("peer.address and listen.peer are both {listen}"));
            }
            (_, Some(_)) => {}
        }
        if !has_port(&peer.address) {
            problems.push(format!("peer.address = {:?}: write host:port", peer.address));
        }
        if peer.ping_count == 0 {
            problems.push("peer.ping_count = 0: at least 1 ping must be missed".to_owned());
        }
        between(problems, "peer.ping_interval", peer.ping_interval, 10, 60_000);
        between(problems, "peer.ping_timeout", peer.ping_timeout, 10, 60_000);
    }

    fn validate_tables(&self, problems: &mut Vec<String>) {
        let tables = &self.tables;
        match (tables.replication, &tables.peer_directory) {
            (ReplicationWay::Stream, None) => {}
            (ReplicationWay::Stream, Some(directory)) => problems.push(format!(
                "tables.peer_directory = {:?} is given and tables.replication is \"stream\", which \
                 does not look into it; write \"directory\" or take it out",
                directory.display()
            )),
            (ReplicationWay::Directory, None) => problems.push(
                "tables.replication is \"directory\" and tables.peer_directory is missing"
                    .to_owned(),
            ),
            (ReplicationWay::Directory, Some(directory)) if *directory == tables.directory => {
                problems.push(format!(
                    "tables.directory and tables.peer_directory are both {:?}",
                    directory.display()
                ));
            }
            (ReplicationWay::Directory, Some(_)) => {
                if self.coordinator.kind == CoordinatorKind::Standalone {
                    problems.push(
                        "tables.replication is \"directory\" and coordinator.kind is \
                         \"standalone\": there is nobody to replicate to"
                            .to_owned(),
                    );
                }
            }
        }
        let sessions = &self.sessions;
        between(problems, "sessions.idle_timeout", sessions.idle_timeout, 100, 30 * 86_400_000);
        between(problems, "sessions.sweep_interval", sessions.sweep_interval, 10, 3_600_000);
    }

    fn validate_coordinator(&self, problems: &mut Vec<String>) {
        let kind = self.coordinator.kind;
        match kind {
            CoordinatorKind::ZooKeeper | CoordinatorKind::Standalone => {}
            CoordinatorKind::BinaryStar | CoordinatorKind::Keepalived => problems.push(format!(
                "coordinator.kind = {:?} is not built in this version; it has \"zookeeper\" and \
                 \"standalone\"",
                kind.word()
            )),
        }
        let Some(zookeeper) = &self.coordinator.zookeeper else {
            if kind == CoordinatorKind::ZooKeeper {
                problems.push(
                    "coordinator.kind is \"zookeeper\" and [coordinator.zookeeper] is missing"
                        .to_owned(),
                );
            }
            return;
        };
        if kind == CoordinatorKind::Standalone {
            problems.push(
                "[coordinator.zookeeper] is given and coordinator.kind is \"standalone\": a node \
                 that stands alone asks nobody; take one of the two out"
                    .to_owned(),
            );
        }
        if zookeeper.servers.is_empty() {
            problems.push("coordinator.zookeeper.servers is empty".to_owned());
        }
        if zookeeper.tls && self.tls.authority.is_none() {
            problems.push(
                "coordinator.zookeeper.tls is true and tls.authority is not given: no server could be \
                 trusted"
                    .to_owned(),
            );
        }
        for server in zookeeper.servers.iter().filter(|s| !has_port(s)) {
            problems.push(format!("coordinator.zookeeper.servers: {server:?}: write host:port"));
        }
        let root = &zookeeper.root;
        if !root.starts_with('/') || (root.ends_with('/') && root != "/") || root.contains("//") {
            problems.push(format!(
                "coordinator.zookeeper.root = {root:?}: a path like /hotpair, no slash at its end"
            ));
        }
        let timeout = zookeeper.session_timeout;
        between(problems, "coordinator.zookeeper.session_timeout", timeout, 200, 120_000);
    }

    fn validate_datasets(&self, problems: &mut Vec<String>) {
        for (i, dataset) in self.datasets.iter().enumerate() {
            let name = &dataset.name;
            if self.datasets[..i].iter().any(|other| other.name == *name) {
                problems.push(format!("datasets: two are named {name:?}"));
            }
            if dataset.key.is_empty() {
                problems.push(format!("datasets {name:?}: key is empty"));
            }
            if !matches!(dataset.load.as_str(), "on-promote" | "preload") {
                problems.push(format!(
                    "datasets {name:?}: load = {:?}: must be on-promote or preload",
                    dataset.load
                ));
            }
        }
    }

    /// The part that both nodes must have alike, as one number to compare over the link.
    pub(crate) fn digest(&self) -> u64 {
        let Tables { replication, ack, durability, .. } = &self.tables;
        let mut text = format!(
            "{}\0{}\0{}\0{}\0{}\0{}\0{:016x}",
            self.pair,
            self.coordinator.kind.word(),
            replication.word(),
            ack.word(),
            durability.word(),
            self.sessions.idle_timeout.ms(),
            self.users.as_ref().map_or(0, Users::digest),
        );
        for dataset in &self.datasets {
            text.push_str(&format!("\0{}\0{:?}\0{}", dataset.name, dataset.key, dataset.load));
            // Where the publisher is may differ; that there is one must not.
            text.push_str(if dataset.feed.is_some() { "\0feed" } else { "" });
        }
        upstream::put_into_digest(self.upstream.as_ref(), &mut text);
        services::put_into_digest(&self.services, &mut text);
        functions::put_into_digest(&self.functions, &mut text);
        self.store.put_into_digest(&mut text);
        // FNV-1a: stable over versions and machines, which std's hasher does not promise.
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

/// A file's text, and what the environment of this process says beside it.
fn sources(file: &Path) -> Result<(String, BTreeMap<String, String>), ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| ConfigError::new(file, vec![format!("cannot be read: {error}")]))?;
    let environment = std::env::vars()
        .filter(|(name, _)| name.starts_with(&format!("{ENVIRONMENT}__")))
        .collect();
    Ok((text, environment))
}

/// Every key of the file and of the environment must be one of these.
fn check_keys(
    text: &str,
    environment: &BTreeMap<String, String>,
    known: keys::Known,
) -> Result<(), Vec<String>> {
    let document =
        toml::de::DeTable::parse(text).map_err(|error| vec![keys::no_toml(text, &error)])?;
    let mut problems: Vec<String> =
        keys::misplaced(text, document.get_ref(), known).iter().map(ToString::to_string).collect();
    for name in environment.keys() {
        let path = name[ENVIRONMENT.len() + 2..].to_lowercase().replace("__", ".");
        if !keys::is_known(&path, known) {
            problems.push(format!("environment variable {name}: unknown key {path}"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A name that can stand in znodes, labels and file names.
fn check_name(problems: &mut Vec<String>, key: &str, value: &str) {
    let good = !value.is_empty()
        && value.len() <= 64
        && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !good {
        problems.push(format!("{key} = {value:?}: a name has 1 to 64 letters, digits, - or _"));
    }
}

/// No address is bound twice, and none is open to others in plain text unless that is meant.
fn check_listening(problems: &mut Vec<String>, addresses: &[(&str, SocketAddr)], tls: &Tls) {
    for (i, (key, address)) in addresses.iter().enumerate() {
        for (other_key, other) in &addresses[..i] {
            if address == other && address.port() != 0 {
                problems.push(format!("{key} and {other_key} are both {address}"));
            }
        }
        // On the link both sides must show who they are.
        let link = *key == "listen.peer";
        let guarded = if link { tls.is_mutual() } else { tls.is_server() };
        if !address.ip().is_loopback() && !guarded && !tls.insecure {
            let need = match link {
                true => "tls.certificate, tls.key and tls.authority are not all given",
                false => "tls.certificate and tls.key are not given",
            };
            problems.push(format!(
                "{key} = \"{address}\" is not a loopback address and {need}: write tls.insecure = \
                 true if plain text is meant"
            ));
        }
    }
}

/// Tells of a length of time that is not between two others, in milliseconds.
fn between(problems: &mut Vec<String>, key: &str, span: Span, ms_min: u64, ms_max: u64) {
    if span.ms() < ms_min || span.ms() > ms_max {
        let text = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
        problems.push(format!(
            "{key} = \"{}\": must lie between {} and {}",
            humantime::format_duration(span.0),
            text(ms_min),
            text(ms_max)
        ));
    }
}

fn has_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

/// A commented example that is valid as it stands.
pub(crate) const EXAMPLE: &str = include_str!("example.toml");

#[cfg(test)]
mod tests;
