//! The writes that decide: claim, heartbeat, resignation, the sync record, the handover. Each is one
//! multi, all or nothing, whose operations are bound to versions last read, so that a late one is
//! harmless.

use hotpair_core::pair::Moment;
use hotpair_core::pair::effect::{HandoverBound, Replace, SyncBound};
use hotpair_core::pair::fact::{Answer, Refusal, ZooKeeperEvent};
use hotpair_core::pair::identity::{Epoch, Incarnation, NodeId};
use zookeeper_client::{Client, CreateOptions, Error, MultiWriteResult, MultiWriter};

use crate::answer;
use crate::json::{EpochJson, HandoverJson, MasterJson, SyncJson, bytes_of};
use crate::serving::{Context, Outcome};

/// Fields of the order of the same name.
pub(crate) struct Claim {
    pub(crate) epoch: Epoch,
    pub(crate) epoch_version: Option<i32>,
    pub(crate) replace: Option<Replace>,
    pub(crate) sync: SyncBound,
    pub(crate) handover: HandoverBound,
}

/// Fields of the order of the same name.
pub(crate) struct HandOver {
    pub(crate) epoch: Epoch,
    pub(crate) epoch_version: i32,
    pub(crate) to: NodeId,
    pub(crate) number: u64,
}

/// Fields of the order of the same name.
pub(crate) struct WriteSync {
    pub(crate) epoch: Epoch,
    pub(crate) epoch_version: i32,
    pub(crate) sync_version: i32,
    pub(crate) members: Vec<Incarnation>,
}

/// Fields of the order of the same name.
pub(crate) struct Resign {
    pub(crate) epoch: Epoch,
    pub(crate) epoch_version: i32,
    pub(crate) master_version: Option<i32>,
}

pub(crate) async fn claim(context: &Context, client: &Client, claim: Claim) -> Outcome {
    let Claim { epoch, epoch_version, replace, sync, handover } = claim;
    let node = &context.me.incarnation.node;
    let crumb = bytes_of(&EpochJson::new(epoch, node, false));
    let alone = bytes_of(&SyncJson::new(epoch, std::slice::from_ref(&context.me.incarnation)));
    let (epoch_path, master_path) = (context.layout.epoch(), context.layout.master());
    let (sync_path, handover_path) = (context.layout.sync(), context.layout.handover());
    let access = &context.settings.access;
    let mut multi = Multi::new(client);
    let built = (|| {
        if let Some(version) = epoch_version {
            multi.check(&epoch_path, version, Refusal::Epoch)?;
        }
        if let Some(replace) = replace {
            multi.delete(&master_path, replace.version, Refusal::Master)?;
        }
        let options = access.ephemeral();
        multi.create(&master_path, &master_of(context, epoch), &options, Refusal::Master)?;
        match sync {
            SyncBound::Missing => {
                multi.create(&sync_path, &alone, &access.persistent(), Refusal::Sync)?;
            }
            SyncBound::Version(version) => {
                multi.set(&sync_path, &alone, Some(version), Refusal::Sync)?;
            }
            SyncBound::Unchecked => multi.set(&sync_path, &alone, None, Refusal::Sync)?,
        }
        let HandoverBound { version, revoke } = handover;
        if revoke {
            let nothing = bytes_of(&HandoverJson::none());
            multi.set(&handover_path, &nothing, Some(version), Refusal::Handover)?;
        } else {
            multi.check(&handover_path, version, Refusal::Handover)?;
        }
        // Last: the version of the last znode set is the answer's.
        multi.set(&epoch_path, &crumb, epoch_version, Refusal::Epoch)
    })();
    let (sent_at, answer) = multi.commit("claim", context, built, epoch_version).await;
    Outcome::Event(ZooKeeperEvent::Claimed { sent_at, epoch, answer })
}

pub(crate) async fn heartbeat(
    context: &Context,
    client: &Client,
    epoch: Epoch,
    epoch_version: i32,
) -> Outcome {
    let (epoch_path, master_path) = (context.layout.epoch(), context.layout.master());
    let mut multi = Multi::new(client);
    let built = (|| {
        multi.check(&epoch_path, epoch_version, Refusal::Epoch)?;
        // Whoever else may have made the znode had to move the epoch first.
        multi.set(&master_path, &master_of(context, epoch), None, Refusal::Master)
    })();
    let (sent_at, answer) = multi.commit("heartbeat", context, built, Some(epoch_version)).await;
    let answer = match answer {
        Answer::Done { .. } => Answer::Done { epoch_version },
        other @ (Answer::Refused(_) | Answer::Ambiguous) => other,
    };
    Outcome::Event(ZooKeeperEvent::HeartbeatAnswered { sent_at, epoch, answer })
}

pub(crate) async fn resign(context: &Context, client: &Client, resign: Resign) -> Outcome {
    let Resign { epoch, epoch_version, master_version } = resign;
    let node = &context.me.incarnation.node;
    let crumb = bytes_of(&EpochJson::new(epoch, node, true));
    let (epoch_path, master_path) = (context.layout.epoch(), context.layout.master());
    let mut multi = Multi::new(client);
    let built = (|| {
        multi.check(&epoch_path, epoch_version, Refusal::Epoch)?;
        multi.delete(&master_path, master_version, Refusal::Master)?;
        multi.set(&epoch_path, &crumb, Some(epoch_version), Refusal::Epoch)
    })();
    let (_, answer) = multi.commit("resignation", context, built, Some(epoch_version)).await;
    Outcome::Event(ZooKeeperEvent::Resigned { epoch, answer })
}

pub(crate) async fn write_sync(context: &Context, client: &Client, write: WriteSync) -> Outcome {
    let WriteSync { epoch, epoch_version, sync_version, members } = write;
    let record = bytes_of(&SyncJson::new(epoch, &members));
    let (epoch_path, sync_path) = (context.layout.epoch(), context.layout.sync());
    let mut multi = Multi::new(client);
    let built = (|| {
        multi.check(&epoch_path, epoch_version, Refusal::Epoch)?;
        multi.set(&sync_path, &record, Some(sync_version), Refusal::Sync)
    })();
    let (_, answer) = multi.commit("sync record", context, built, Some(epoch_version)).await;
    let answer = match answer {
        Answer::Done { .. } => Answer::Done { epoch_version },
        other @ (Answer::Refused(_) | Answer::Ambiguous) => other,
    };
    Outcome::Event(ZooKeeperEvent::SyncWritten { epoch, answer })
}

/// Whoever else may write the znode had to move the epoch first: its own version is not bound to.
pub(crate) async fn hand_over(context: &Context, client: &Client, order: HandOver) -> Outcome {
    let HandOver { epoch, epoch_version, to, number } = order;
    let record = bytes_of(&HandoverJson::new(epoch, &to, number));
    let (epoch_path, handover_path) = (context.layout.epoch(), context.layout.handover());
    let mut multi = Multi::new(client);
    let built = (|| {
        multi.check(&epoch_path, epoch_version, Refusal::Epoch)?;
        multi.set(&handover_path, &record, None, Refusal::Handover)
    })();
    let (_, answer) = multi.commit("handover", context, built, Some(epoch_version)).await;
    let answer = match answer {
        Answer::Done { .. } => Answer::Done { epoch_version },
        other @ (Answer::Refused(_) | Answer::Ambiguous) => other,
    };
    Outcome::Event(ZooKeeperEvent::HandedOver { epoch, answer })
}

fn master_of(context: &Context, epoch: Epoch) -> Vec<u8> {
    let timeout_ms = context.session_timeout_ms();
    bytes_of(&MasterJson::new(&context.me, epoch, timeout_ms, &context.settings.endpoints))
}

/// A multi that knows what the failure of each of its operations means.
pub(crate) struct Multi<'a> {
    writer: MultiWriter<'a>,
    bound_to: Vec<Refusal>,
}

impl<'a> Multi<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { writer: client.new_multi_writer(), bound_to: Vec::new() }
    }

    pub(crate) fn check(&mut self, path: &str, version: i32, or: Refusal) -> Result<(), Error> {
        self.bound_to.push(or);
        self.writer.add_check_version(path, version)
    }

    pub(crate) fn delete(
        &mut self,
        path: &str,
        version: Option<i32>,
        or: Refusal,
    ) -> Result<(), Error> {
        self.bound_to.push(or);
        self.writer.add_delete(path, version)
    }

    pub(crate) fn create(
        &mut self,
        path: &str,
        data: &[u8],
        options: &CreateOptions<'_>,
        or: Refusal,
    ) -> Result<(), Error> {
        self.bound_to.push(or);
        self.writer.add_create(path, data, options)
    }

    pub(crate) fn set(
        &mut self,
        path: &str,
        data: &[u8],
        version: Option<i32>,
        or: Refusal,
    ) -> Result<(), Error> {
        self.bound_to.push(or);
        self.writer.add_set_data(path, data, version)
    }

    /// Sends it off. The moment is that just before it was handed to the client library.
    async fn commit(
        mut self,
        what: &str,
        context: &Context,
        built: Result<(), Error>,
        epoch_version: Option<i32>,
    ) -> (Moment, Answer) {
        let sent_at = context.now();
        if let Err(error) = built {
            return (sent_at, answer::of_failed_multi(what, &error.into(), &self.bound_to));
        }
        let answer = match self.writer.commit().await {
            Ok(results) => match version_set(&results).or(epoch_version) {
                Some(epoch_version) => Answer::Done { epoch_version },
                None => Answer::Ambiguous,
            },
            Err(error) => answer::of_failed_multi(what, &error, &self.bound_to),
        };
        (sent_at, answer)
    }
}

/// The version after the last `setData` of a multi.
fn version_set(results: &[MultiWriteResult]) -> Option<i32> {
    results.iter().rev().find_map(|result| match result {
        MultiWriteResult::SetData { stat } => Some(stat.version),
        _ => None, // the library's enum may grow; only this one bears a version that counts
    })
}
