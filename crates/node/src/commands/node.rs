//! `hotpair node`: settings, assemble, run, drain.
//!
//! Four kinds of threads, apart so that none can delay another: *control* decides; *admin* shows
//! and takes orders; the *business* workers serve clients; *journal*, *gate log*, *datasets* and
//! *zookeeper* do what may wait. All ports are bound before anything is said to be ready.

use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use hotpair_admin::{Health, Snapshot};
use hotpair_coordinator::FunctionEntry;
use hotpair_core::pair::Node;
use hotpair_core::pair::fact::Fact;
use hotpair_core::pair::identity::Identity;
use hotpair_ctl::Outcome;
use hotpair_gateway::{Catalogue, GateKeeper, Registered, Sessions, Whereabouts};
use hotpair_link::LinkDriver;
use hotpair_link::redo::MasterAddress;
use hotpair_protocol::Addresses;
use tokio::sync::{mpsc, watch};

use crate::business::{Business, BusinessParts};
use crate::config::{self, NodeConfig, Word, tls};
use crate::control::{Control, FACTS_MAX};
use crate::data_directory::DataDirectory;
use crate::datasets::{DatasetPlan, Datasets};
use crate::journal::Journal;
use crate::ledger::{Ledger, LedgerParts};
use crate::operators::{self, Shown};
use crate::supervisor::Supervisor;
use crate::tables::TablesThread;
use crate::writer::{self, Writer};
use crate::{boot_clock, gate_log, library, services, settings, store, upstream};

/// What a node is told on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Start with empty tables.
    #[arg(long)]
    clean: bool,
    /// Also where there is a peer, which may hold what is emptied here.
    #[arg(long, requires = "clean")]
    force: bool,
}

/// Runs one node until it is told to end.
pub(crate) fn run(arguments: &NodeArguments, functions: Vec<Registered>) -> Result<Outcome> {
    let config = NodeConfig::read(&arguments.config)?;
    if arguments.clean && config.peer.is_some() && !arguments.force {
        let why = "--clean would empty this node's tables, and its peer may hold changes that it \
                   acknowledged: empty both nodes with --clean --force, or leave --clean out";
        return Err(super::config_error(&arguments.config, vec![why.to_owned()]));
    }
    library::check(&config, &functions)
        .map_err(|problems| super::config_error(&arguments.config, problems))?;
    run_node(&config, &arguments.config, arguments.clean, functions)
}

/// The same with a configuration that was read from this file.
pub(crate) fn run_node(
    config: &NodeConfig,
    file: &Path,
    clean: bool,
    functions: Vec<Registered>,
) -> Result<Outcome> {
    raise_file_limit();
    let datasets =
        settings::datasets(config).map_err(|problems| super::config_error(file, problems))?;
    let sidecars = config::functions::sidecars(&config.functions)?;
    let functions = functions.into_iter().chain(sidecars).collect();
    let directory = DataDirectory::open(&config.tables.directory)?;
    let (control, writers) = assemble(config, clean, datasets, functions, &directory)?;
    tracing::info!(
        pair = config.pair, node = config.node, client = %config.listen.client,
        admin = %config.listen.admin, peer = ?config.listen.peer,
        peer_admin = config.peer.as_ref().and_then(|peer| peer.admin.as_deref()), "node starts"
    );
    tls::warn(&config.doubts);
    for name in config.unreachable_addresses() {
        tracing::warn!(
            "others are told an address for {name} that they cannot reach: give advertise.{name}"
        );
    }
    let thread = std::thread::Builder::new().name("control".to_owned());
    let ended = thread.spawn(move || control.run())?.join();
    writer::wait_for(&writers);
    tracing::info!("node ends");
    ended.map_err(|_| anyhow::anyhow!("the control thread panicked"))??;
    drop(directory);
    Ok(Outcome::Done)
}

/// Starts every thread but the control thread, binds every port, and gives what the control thread is to
/// run with, and the writers of files that are to be waited for at the end.
fn assemble(
    config: &NodeConfig,
    clean: bool,
    datasets: Vec<DatasetPlan>,
    functions: Vec<Registered>,
    directory: &DataDirectory,
) -> Result<(Control, [Writer; 3])> {
    let (journal, journal_writer) = Journal::open(directory.file("journal.jsonl"))?;
    let (gate_lines, gate_writer) = gate_log::start(&directory.file("gates.jsonl"), &config.node)?;
    let keeper = GateKeeper::new(Some(gate_lines));
    let facts = mpsc::channel(FACTS_MAX);
    let datasets = Datasets::start(datasets, facts.0.clone())?;
    let catalogue = Arc::new(Catalogue::with_library(functions)?);
    let whereabouts: Arc<ArcSwap<Whereabouts>> = Arc::default();
    let health = Arc::new(Health::new());
    let me = settings::identity(config, directory);
    let pair = settings::pair_settings(config);
    let first = Node::new(boot_clock::now(), pair.clone(), me.clone()).view(boot_clock::now());
    let (published, snapshots) =
        watch::channel(Arc::new(first_snapshot(config, first, &catalogue)));
    let (endpoints, master_endpoints) = watch::channel(None);
    let ledger = Ledger::new(LedgerParts {
        published,
        master_endpoints,
        whereabouts: whereabouts.clone(),
        health: health.clone(),
        journal,
        datasets: datasets.clone(),
    });
    let peer = settings::peer(config)?;
    let link = bind_link(config, peer.clone())?;
    let (tables, store_shown) = start_tables(config, peer, clean, &me, &facts.0)?;
    let sessions = Arc::new(Sessions::new(tables.tables.clone(), settings::sessions(config)));
    let upstream = upstream::start(config, keeper.gate(), tables.tables.clone())?;
    let business = Business::start(
        config,
        BusinessParts {
            gate: keeper.gate(),
            catalogue: catalogue.clone(),
            datasets: datasets.clone(),
            whereabouts,
            tables: tables.tables.clone(),
            sessions: sessions.clone(),
            upstream: upstream.clone(),
            settings: settings::clients(config),
        },
    )?;
    let (commands, orders) = mpsc::channel(16);
    let services = services::start(config, keeper.gate(), tables.tables.clone())?;
    let shown = Shown { snapshots, health, commands, services, upstream };
    let watched = operators::start(
        config,
        shown,
        keeper.gate(),
        business.meters.clone(),
        (tables.figures.clone(), store_shown),
    )?;
    end_on_signals(facts.0.clone())?;
    let control = Control {
        settings: pair,
        me,
        zookeeper: settings::zookeeper_settings(config, registry_entries(&catalogue), endpoints)?,
        link,
        gate: keeper,
        datasets,
        tables: tables.orders,
        streams: tables.streams,
        sessions,
        facts,
        orders,
        ledger,
        supervisor: Supervisor::new(vec![
            ("client", business.counters.clone()),
            ("admin", watched),
        ]),
    };
    Ok((control, [tables.writer, journal_writer, gate_writer]))
}

/// The tables' thread, and the one that writes behind, if one does: what that shows.
fn start_tables(
    config: &NodeConfig,
    peer: Option<MasterAddress>,
    clean: bool,
    me: &Identity,
    facts: &mpsc::Sender<Fact>,
) -> Result<(TablesThread, Option<Arc<hotpair_sql::Shown>>)> {
    let (end, store) = store::ends(config, me)?;
    let tables =
        TablesThread::start(settings::tables(config, peer, clean, end), me, facts.clone())?;
    let Some(store) = store else { return Ok((tables, None)) };
    let log = config.tables.directory.clone();
    let shown = store.start(log, me, tables.store.clone(), facts.clone())?;
    Ok((tables, Some(shown)))
}

/// A crowd at one door must not take the descriptors of the link and of ZooKeeper's session: the
/// limit goes up to what the system allows, which is more than all doors let in together.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// The other node's address and our own door, where there is another node.
fn bind_link(
    config: &NodeConfig,
    peer: Option<MasterAddress>,
) -> Result<Option<(MasterAddress, StdListener)>> {
    peer.map(|peer| Ok((peer, bind_peer(config)?))).transpose()
}

fn bind_peer(config: &NodeConfig) -> Result<StdListener> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let address = config.listen.peer.expect("validated: a node with a peer listens for it");
    LinkDriver::bind(address)
        .with_context(|| format!("listen.peer = \"{address}\" cannot be bound"))
}

fn first_snapshot(
    config: &NodeConfig,
    view: hotpair_core::pair::view::View,
    catalogue: &Catalogue,
) -> Snapshot {
    let mut snapshot = Snapshot::new(view, &config.pair, &config.node);
    env!("CARGO_PKG_VERSION").clone_into(&mut snapshot.version);
    config.coordinator.kind.word().clone_into(&mut snapshot.coordinator);
    snapshot.functions = catalogue.entries();
    let [client, admin, peer] = config.advertised().map(|(_, address)| address.unwrap_or_default());
    snapshot.addresses = Addresses { client, admin, peer };
    snapshot
}

/// The catalogue as the registry has it: one entry a group, service and version.
fn registry_entries(catalogue: &Catalogue) -> Vec<FunctionEntry> {
    let mut entries: Vec<FunctionEntry> = Vec::new();
    for function in catalogue.functions() {
        let numbered = (function.number, function.name.clone());
        let same = entries.iter_mut().find(|e| {
            e.group == function.group
                && e.service == function.service
                && e.version == function.version
        });
        match same {
            Some(entry) => entry.functions.push(numbered),
            None => entries.push(FunctionEntry {
                group: function.group.clone(),
                service: function.service.clone(),
                version: function.version.clone(),
                functions: vec![numbered],
            }),
        }
    }
    entries
}

/// SIGTERM and SIGINT end the node in order.
fn end_on_signals(facts: mpsc::Sender<Fact>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // The control thread is gone if this fails, and so is the process.
            let _ = facts.send(Fact::ShutdownOrdered).await;
        });
    })?;
    Ok(())
}
