//! One look at the pair's znodes, from which core decides.
//!
//! The reads are sent off together, in an order that matters: the epoch is read before the master
//! znode, so that a picture with our claim's epoch and without our znode proves that it is gone; and
//! before the sync znode, so that a picture with our claim's epoch shows what was written with it, or
//! later. Each watch is armed before its znode is read, so that no change falls between.

use hotpair_core::pair::fact::{
    EpochZnode, HandoverZnode, LookTrouble, MasterZnode, Picture, SyncZnode, ZooKeeperEvent,
};
use hotpair_core::pair::identity::{ClusterId, Instance};
use zookeeper_client::{Client, Error};

use crate::access::Access;
use crate::json::{
    EpochJson, Foreign, HandoverJson, IdJson, MasterJson, PresenceJson, SyncJson, bytes_of,
};
use crate::serving::{Arm, Context, Outcome, Watches};

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Foreign(#[from] Foreign),
    #[error("reading {path} failed: {source}")]
    Unread { path: String, source: Error },
    #[error("making {path} failed: {source}")]
    Unmade { path: String, source: Error },
    #[error("{path} comes and goes: somebody else deletes it")]
    Restless { path: String },
}

impl Trouble {
    fn told(&self, access: &Access) -> (String, LookTrouble) {
        match self {
            Self::Foreign(_) => (self.to_string(), LookTrouble::Foreign),
            Self::Unread { path, source: Error::NoAuth }
            | Self::Unmade { path, source: Error::NoAuth } => {
                (access.barred(path), LookTrouble::Barred)
            }
            Self::Unread { .. } | Self::Unmade { .. } | Self::Restless { .. } => {
                (self.to_string(), LookTrouble::NoAnswer)
            }
        }
    }
}

/// A znode that somebody deletes while we look is made again so many times in one look.
const TRIES_MAX: u32 = 3;

pub(crate) async fn look(context: &Context, client: &Client, arm: Arm) -> Outcome {
    let mut watches = Watches::default();
    let event = match picture(context, client, arm, &mut watches).await {
        Ok(picture) => ZooKeeperEvent::Looked { picture },
        Err(trouble) => {
            let (reason, trouble) = trouble.told(&context.settings.access);
            ZooKeeperEvent::LookFailed { reason, trouble }
        }
    };
    Outcome::Looked(event, watches)
}

async fn picture(
    context: &Context,
    client: &Client,
    arm: Arm,
    watches: &mut Watches,
) -> Result<Picture, Trouble> {
    for _ in 0..TRIES_MAX {
        if !Context::noted(&context.prepared) {
            prepare(context, client).await?;
            Context::note(&context.prepared, true);
        }
        let twin = announce(context, client).await?;
        match read(context, client, arm, watches).await? {
            Some(Found { cluster, epoch, master, sync, handover }) => {
                let handover = Box::new(handover);
                return Ok(Picture { cluster, epoch, master, sync, handover, twin });
            }
            None => Context::note(&context.prepared, false), // somebody deleted what we had made
        }
    }
    Err(Trouble::Restless { path: context.layout.epoch() })
}

/// Makes the persistent znodes where they are missing. Whoever is first makes `id`.
async fn prepare(context: &Context, client: &Client) -> Result<(), Trouble> {
    let layout = &context.layout;
    let unmade = |path: &str, source| Trouble::Unmade { path: path.to_owned(), source };
    let (base, options) = (layout.base(), context.settings.access.persistent());
    // Where it is there already, its parent may well be closed to us.
    let there = client.check_stat(base).await.map_err(|source| unmade(base, source))?;
    if there.is_none() {
        client.mkdir(base, &options).await.map_err(|source| unmade(base, source))?;
    }
    let znodes = [
        (layout.id(), bytes_of(&IdJson::fresh())),
        (layout.epoch(), bytes_of(&EpochJson::none_yet())),
        (layout.handover(), bytes_of(&HandoverJson::none())),
        (layout.nodes(), Vec::new()),
        (layout.functions(), Vec::new()),
    ];
    // Created by the call, not by the await: all are under way together.
    let under_way: Vec<_> =
        znodes.iter().map(|(path, data)| client.create(path, data, &options)).collect();
    for ((path, _), created) in znodes.iter().zip(under_way) {
        match created.await {
            Ok(_) | Err(Error::NodeExists) => {}
            Err(source) => return Err(unmade(path, source)),
        }
    }
    Ok(())
}

/// Makes our presence known on this session. Another data directory under our name is left alone
/// and reported: that is a node configured twice.
async fn announce(context: &Context, client: &Client) -> Result<Option<Instance>, Trouble> {
    if Context::noted(&context.present) {
        return Ok(None);
    }
    let path = context.layout.presence(&context.me.incarnation.node);
    let unmade = |source| Trouble::Unmade { path: path.clone(), source };
    let options = context.settings.access.ephemeral();
    let data = bytes_of(&PresenceJson::new(&context.me, &context.settings.endpoints));
    for _ in 0..TRIES_MAX {
        match client.create(&path, &data, &options).await {
            Ok(_) => {
                Context::note(&context.present, true);
                return Ok(None);
            }
            Err(Error::NodeExists) => {}
            Err(source) => return Err(unmade(source)),
        }
        let (found, stat) = match client.get_data(&path).await {
            Ok(found) => found,
            Err(Error::NoNode) => continue,
            Err(source) => return Err(Trouble::Unread { path, source }),
        };
        if stat.ephemeral_owner == context.session.0 {
            Context::note(&context.present, true);
            return Ok(None);
        }
        let instance = PresenceJson::read(&path, &found)?;
        if instance != context.me.incarnation.instance {
            return Ok(Some(instance));
        }
        // Our own session of before: it may go on for a while, and its znode with it.
        let mut multi = client.new_multi_writer();
        multi.add_delete(&path, Some(stat.version)).map_err(unmade)?;
        multi.add_create(&path, &data, &options).map_err(unmade)?;
        match multi.commit().await {
            Ok(_) => {
                Context::note(&context.present, true);
                return Ok(None);
            }
            Err(zookeeper_client::MultiWriteError::OperationFailed { .. }) => {}
            Err(error @ zookeeper_client::MultiWriteError::RequestFailed { .. }) => {
                return Err(unmade(error.into()));
            }
        }
    }
    Err(Trouble::Restless { path })
}

/// What the znodes said.
struct Found {
    cluster: ClusterId,
    epoch: EpochZnode,
    master: Option<MasterZnode>,
    sync: Option<SyncZnode>,
    handover: HandoverZnode,
}

/// The five znodes; `None` when `id`, `epoch` or `handover` is missing.
async fn read(
    context: &Context,
    client: &Client,
    arm: Arm,
    watches: &mut Watches,
) -> Result<Option<Found>, Trouble> {
    let layout = &context.layout;
    let (id_path, epoch_path, master_path) = (layout.id(), layout.epoch(), layout.master());
    let (sync_path, handover_path) = (layout.sync(), layout.handover());
    // Sent off by the call, not by the await.
    let epoch = client.get_data(&epoch_path);
    let id = client.get_data(&id_path);
    // One watch for presence, absence and change alike.
    let arm_master = arm.master && watches.master.is_none();
    let arm_sync = arm.sync && watches.sync.is_none();
    let master_armed = arm_master.then(|| client.check_and_watch_stat(&master_path));
    let master = client.get_data(&master_path);
    let sync_armed = arm_sync.then(|| client.check_and_watch_stat(&sync_path));
    let sync = client.get_data(&sync_path);
    let handover = client.get_data(&handover_path);
    // Whatever else fails, a watch that the server has armed is kept.
    let (epoch, id) = (epoch.await, id.await);
    if let Some(armed) = master_armed {
        let (_, watcher) = armed.await.map_err(|source| unread(&master_path, source))?;
        watches.master = Some(watcher);
    }
    if let Some(armed) = sync_armed {
        let (_, watcher) = armed.await.map_err(|source| unread(&sync_path, source))?;
        watches.sync = Some(watcher);
    }
    let there = |path: &str, read| match read {
        Ok((data, stat)) => Ok(Some((data, stat))),
        Err(Error::NoNode) => Ok(None),
        Err(source) => Err(unread(path, source)),
    };
    let master: Option<(Vec<u8>, _)> = there(&master_path, master.await)?;
    let sync: Option<(Vec<u8>, _)> = there(&sync_path, sync.await)?;
    let handover = there(&handover_path, handover.await)?;
    let (epoch, id) = match (epoch, id) {
        (Ok(epoch), Ok(id)) => (epoch, id),
        (Err(Error::NoNode), _) | (_, Err(Error::NoNode)) => return Ok(None),
        (Err(source), _) => return Err(unread(&epoch_path, source)),
        (_, Err(source)) => return Err(unread(&id_path, source)),
    };
    // A program that knew nothing of it may have made the others.
    let Some((handover, stat)) = handover else { return Ok(None) };
    let handover = HandoverJson::read(&handover_path, &handover, &stat)?;
    let cluster = IdJson::read(&id_path, &id.0)?;
    let epoch = EpochJson::read(&epoch_path, &epoch.0, &epoch.1)?;
    context.settings.note_master(&master_path, master.as_ref().map(|(data, _)| data.as_slice()));
    let master =
        master.map(|(data, stat)| MasterJson::read(&master_path, &data, &stat)).transpose()?;
    let sync = sync.map(|(data, stat)| SyncJson::read(&sync_path, &data, &stat)).transpose()?;
    Ok(Some(Found { cluster, epoch, master, sync, handover }))
}

fn unread(path: &str, source: Error) -> Trouble {
    Trouble::Unread { path: path.to_owned(), source }
}
