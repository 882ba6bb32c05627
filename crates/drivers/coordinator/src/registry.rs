//! The function registry: which node offers which functions in which epoch.
//!
//! The parents are persistent and made outside of the fence; the entries are ephemeral, written
//! some hundreds a multi, and each multi checks the epoch: a master that lost its epoch writes
//! nothing more. Readers believe only entries of the epoch that the `epoch` znode names, since those
//! of an old session may live on for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hotpair_core::pair::fact::{Answer, Refusal, ZooKeeperEvent};
use hotpair_core::pair::identity::{Epoch, NodeId};
use zookeeper_client::{Client, Error, MultiWriteError, Stat};

use crate::access::Access;
use crate::answer;
use crate::json::{EntryJson, EpochJson, Foreign, bytes_of};
use crate::layout::{Layout, entry_suffix, text_of};
use crate::serving::{Context, Outcome};
use crate::short_session::{self, ShortSessionError};

/// Entries written or deleted in one multi.
const ENTRIES_PER_MULTI: usize = 500;
/// A multi's bytes: a server closes the connection at 1 MiB.
const BYTES_PER_MULTI: usize = 512 * 1024;
/// Times that one multi is tried: with missing parents, with our own entries in the way.
const TRIES_MAX: u32 = 5;
/// Reads under way at once.
const READS_AT_ONCE: usize = 1_000;

/// One entry to be written.
struct Entry {
    path: String,
    parents: [String; 3],
    data: Vec<u8>,
}

// --- writing

pub(crate) async fn register(
    context: &Context,
    client: &Client,
    epoch: Epoch,
    epoch_version: i32,
) -> Outcome {
    context.registered().insert(epoch);
    let mut entries = 0;
    let mut answer = Answer::Done { epoch_version };
    let mut made = BTreeSet::new();
    for batch in batches(entries_of(context, epoch)) {
        match register_batch(context, client, epoch_version, &batch, &mut made).await {
            Ok(()) => entries += u32::try_from(batch.len()).unwrap_or(u32::MAX),
            Err(other) => {
                answer = other;
                break;
            }
        }
    }
    Outcome::Event(ZooKeeperEvent::RegisterAnswered { epoch, entries, answer })
}

fn entries_of(context: &Context, epoch: Epoch) -> Vec<Entry> {
    let (node, settings) = (&context.me.incarnation.node, &context.settings);
    let entry = |functions| Entry {
        path: context.layout.entry(functions, node, epoch),
        parents: context.layout.entry_parents(functions),
        data: bytes_of(&EntryJson::new(node, epoch, &settings.endpoints, functions)),
    };
    settings.functions.iter().map(entry).collect()
}

/// In order, none larger than a server takes. An entry that is too large alone is left out, loudly.
fn batches(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut batches: Vec<Vec<Entry>> = Vec::new();
    let mut bytes = BYTES_PER_MULTI;
    for entry in entries {
        let size = entry.path.len() + entry.data.len();
        if size > BYTES_PER_MULTI {
            tracing::error!(path = entry.path, bytes = size, "too large to be registered");
            continue;
        }
        bytes += size;
        match batches.last_mut() {
            Some(last) if last.len() < ENTRIES_PER_MULTI && bytes <= BYTES_PER_MULTI => {
                last.push(entry);
            }
            Some(_) | None => {
                bytes = size;
                batches.push(vec![entry]);
            }
        }
    }
    batches
}

async fn register_batch(
    context: &Context,
    client: &Client,
    epoch_version: i32,
    batch: &[Entry],
    made: &mut BTreeSet<String>,
) -> Result<(), Answer> {
    // What to do for each entry: nothing is known to be there at first.
    let mut todo: Vec<Todo<'_>> = batch.iter().map(Todo::Create).collect();
    for _ in 0..TRIES_MAX {
        let Err((path, error)) = write_batch(context, client, epoch_version, &todo).await else {
            return Ok(());
        };
        match &error {
            MultiWriteError::OperationFailed { source: Error::NoNode, .. } if path.is_some() => {
                make_parents(context, client, batch, made).await?;
            }
            MultiWriteError::OperationFailed { source: Error::NodeExists, .. }
            | MultiWriteError::OperationFailed { source: Error::BadVersion, .. }
                if path.is_some() =>
            {
                todo = sort_out(context, client, batch).await?;
            }
            MultiWriteError::OperationFailed { .. } | MultiWriteError::RequestFailed { .. } => {
                return Err(answer::of_failed_multi("register", &error, &[Refusal::Epoch]));
            }
        }
    }
    tracing::warn!("entries of the registry come and go: somebody else deletes them");
    Err(Answer::Ambiguous)
}

enum Todo<'a> {
    Create(&'a Entry),
    /// Another session's znode of the same name is in the way.
    Replace(&'a Entry, i32),
}

/// One fenced multi. An error of an entry, not of the fence, comes with the entry's path.
async fn write_batch<'a>(
    context: &Context,
    client: &Client,
    epoch_version: i32,
    todo: &[Todo<'a>],
) -> Result<(), (Option<&'a str>, MultiWriteError)> {
    let options = context.settings.access.ephemeral();
    let mut multi = client.new_multi_writer();
    let mut paths = vec![None];
    let built: Result<(), Error> = (|| {
        multi.add_check_version(&context.layout.epoch(), epoch_version)?;
        for item in todo {
            let entry = match item {
                Todo::Create(entry) => entry,
                Todo::Replace(entry, version) => {
                    multi.add_delete(&entry.path, Some(*version))?;
                    paths.push(Some(entry.path.as_str()));
                    entry
                }
            };
            multi.add_create(&entry.path, &entry.data, &options)?;
            paths.push(Some(entry.path.as_str()));
        }
        Ok(())
    })();
    built.map_err(|error| (None, error.into()))?;
    multi.commit().await.map(|_| ()).map_err(|error| {
        let path = match &error {
            MultiWriteError::OperationFailed { index, .. } => paths.get(*index).copied().flatten(),
            MultiWriteError::RequestFailed { .. } => None,
        };
        (path, error)
    })
}

/// What was `made` for earlier batches is there already.
async fn make_parents(
    context: &Context,
    client: &Client,
    batch: &[Entry],
    made: &mut BTreeSet<String>,
) -> Result<(), Answer> {
    // Sorted: a parent comes before what is below it.
    let parents: BTreeSet<&str> =
        batch.iter().flat_map(|entry| &entry.parents).map(String::as_str).collect();
    let parents: Vec<&str> = parents.into_iter().filter(|path| !made.contains(*path)).collect();
    let options = context.settings.access.persistent();
    for some in parents.chunks(ENTRIES_PER_MULTI) {
        let mut multi = client.new_multi_writer();
        let built = some.iter().try_for_each(|path| multi.add_create(path, &[], &options));
        if built.is_ok() && multi.commit().await.is_ok() {
            continue;
        }
        // Some of them are there already: each by itself, all under way together.
        let under_way: Vec<_> =
            some.iter().map(|path| client.create(path, &[], &options)).collect();
        for (path, created) in some.iter().zip(under_way) {
            match created.await {
                Ok(_) | Err(Error::NodeExists) => {}
                Err(error) => {
                    tracing::warn!(path, reason = %error, "no parent for registry entries");
                    return Err(Answer::Ambiguous);
                }
            }
        }
    }
    made.extend(parents.into_iter().map(str::to_owned));
    Ok(())
}

/// What is there already: ours from a try whose answer was lost, or an old session's.
async fn sort_out<'a>(
    context: &Context,
    client: &Client,
    batch: &'a [Entry],
) -> Result<Vec<Todo<'a>>, Answer> {
    let under_way: Vec<_> = batch.iter().map(|entry| client.check_stat(&entry.path)).collect();
    let mut todo = Vec::new();
    for (entry, stat) in batch.iter().zip(under_way) {
        match stat.await {
            Ok(None) => todo.push(Todo::Create(entry)),
            Ok(Some(stat)) if stat.ephemeral_owner == context.session.0 => {}
            Ok(Some(stat)) => todo.push(Todo::Replace(entry, stat.version)),
            Err(error) => {
                tracing::warn!(path = entry.path, reason = %error, "an entry could not be read");
                return Err(Answer::Ambiguous);
            }
        }
    }
    Ok(todo)
}

/// Best effort: what cannot be deleted goes with its session.
pub(crate) async fn unregister(context: &Context, client: &Client, epoch: Epoch) -> Outcome {
    let epochs: Vec<Epoch> = context.registered().range(..=epoch).copied().collect();
    let node = &context.me.incarnation.node;
    for epoch in epochs {
        let entries = &context.settings.functions;
        let paths: Vec<String> =
            entries.iter().map(|entry| context.layout.entry(entry, node, epoch)).collect();
        match delete_all(client, &paths).await {
            Ok(()) => {
                context.registered().remove(&epoch);
            }
            Err(error) => {
                tracing::info!(%epoch, reason = %error, "registry entries are left to expire");
                break;
            }
        }
    }
    Outcome::Nothing
}

async fn delete_all(client: &Client, paths: &[String]) -> Result<(), Error> {
    for some in paths.chunks(ENTRIES_PER_MULTI) {
        let mut multi = client.new_multi_writer();
        some.iter().try_for_each(|path| multi.add_delete(path, None))?;
        match multi.commit().await {
            Ok(_) => continue,
            Err(MultiWriteError::OperationFailed { .. }) => {}
            Err(MultiWriteError::RequestFailed { source }) => return Err(source),
        }
        // Some of them are gone already: each by itself, all under way together.
        let under_way: Vec<_> = some.iter().map(|path| client.delete(path, None)).collect();
        for deleted in under_way {
            match deleted.await {
                Ok(()) | Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

// --- reading

/// A registry entry of the current epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredFunction {
    /// The group.
    pub group: String,
    /// The service within the group.
    pub service: String,
    /// The version of the service.
    pub version: String,
    /// Who offers it.
    pub node: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Where that node is reached: a name for each use, with an address.
    pub endpoints: BTreeMap<String, String>,
    /// Number and name of each function.
    pub functions: Vec<(u32, String)>,
}

/// Why the registry could not be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReadFunctionsError {
    /// No server answered in time; others may.
    #[error("the function registry could not be read: {0}")]
    Unreachable(String),
    /// No pair has ever been there.
    #[error("there is no pair at {path} in ZooKeeper: {path} is missing")]
    NoPair {
        /// The znode that is missing.
        path: String,
    },
    /// It is closed to whoever asks like this.
    #[error("the function registry could not be read: {0}")]
    Barred(String),
    /// Somebody else wrote where the pair should be.
    #[error("{0}")]
    Foreign(String),
    /// The epoch moved on while reading, again and again.
    #[error("the pair changes its master faster than its registry can be read")]
    Moving,
}

impl From<ShortSessionError> for ReadFunctionsError {
    fn from(error: ShortSessionError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl From<Foreign> for ReadFunctionsError {
    fn from(foreign: Foreign) -> Self {
        Self::Foreign(foreign.to_string())
    }
}

impl From<Error> for ReadFunctionsError {
    fn from(error: Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Reading the registry may take so long.
const READ_TIME_MAX: Duration = Duration::from_secs(10);

/// What is registered for the pair's current epoch, on a short session of its own.
pub async fn read_functions(
    access: &Access,
    root: &str,
    pair: &str,
) -> Result<Vec<RegisteredFunction>, ReadFunctionsError> {
    let layout = Layout::new(root, pair);
    let own = access.clone();
    short_session::run(access, READ_TIME_MAX, async move |client: &Client| {
        for _ in 0..TRIES_MAX {
            let before = read_epoch(client, &own, &layout).await?;
            let found = read_entries(client, &layout, before).await?;
            if read_epoch(client, &own, &layout).await? == before {
                return Ok(found);
            }
        }
        Err(ReadFunctionsError::Moving)
    })
    .await?
}

async fn read_epoch(
    client: &Client,
    access: &Access,
    layout: &Layout,
) -> Result<Epoch, ReadFunctionsError> {
    let path = layout.epoch();
    match client.get_data(&path).await {
        Ok((data, stat)) => Ok(EpochJson::read(&path, &data, &stat)?.epoch),
        Err(Error::NoNode) => Err(ReadFunctionsError::NoPair { path }),
        Err(Error::NoAuth) => Err(ReadFunctionsError::Barred(access.barred(&path))),
        Err(error) => Err(error.into()),
    }
}

async fn read_entries(
    client: &Client,
    layout: &Layout,
    epoch: Epoch,
) -> Result<Vec<RegisteredFunction>, ReadFunctionsError> {
    let groups = children(client, vec![layout.functions()]).await?;
    let services = children(client, groups).await?;
    let versions = children(client, services).await?;
    let mut entries = children(client, versions).await?;
    entries.retain(|path| path.ends_with(&entry_suffix(epoch)));
    entries.sort();
    let mut found = Vec::new();
    for some in entries.chunks(READS_AT_ONCE) {
        let under_way: Vec<_> = some.iter().map(|path| client.get_data(path)).collect();
        for (path, read) in some.iter().zip(under_way) {
            match read.await {
                Ok(read) => found.extend(entry_at(path, epoch, &read)),
                Err(Error::NoNode) => {} // unregistered meanwhile
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(found)
}

/// The paths of all children of these znodes; those that are gone have none.
async fn children(client: &Client, parents: Vec<String>) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for some in parents.chunks(READS_AT_ONCE) {
        let under_way: Vec<_> = some.iter().map(|path| client.list_children(path)).collect();
        for (path, listed) in some.iter().zip(under_way) {
            match listed.await {
                Ok(names) => found.extend(names.iter().map(|name| format!("{path}/{name}"))),
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// The entry, if it is one of this epoch; what somebody else wrote is passed over.
fn entry_at(path: &str, epoch: Epoch, read: &(Vec<u8>, Stat)) -> Option<RegisteredFunction> {
    let entry = EntryJson::read(path, &read.0)
        .inspect_err(|foreign| tracing::warn!("{foreign}"))
        .ok()
        .filter(|entry| entry.epoch == epoch.0)?;
    let mut names = path.rsplit('/').skip(1).map(text_of);
    let (version, service, group) = (names.next()?, names.next()?, names.next()?);
    Some(RegisteredFunction {
        group,
        service,
        version,
        node: NodeId::new(&entry.node),
        epoch,
        endpoints: entry.endpoints,
        functions: entry.functions.into_iter().map(|f| (f.number, f.name)).collect(),
    })
}
