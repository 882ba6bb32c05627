//! What the machine wants, done: the log, the files, the stream, the answers.

use std::sync::Arc;

use hotpair_core::pair::fact::TablesFact;
use hotpair_core::tables::record::decode;
use hotpair_core::tables::replication::{FromMaster, TablesEffect};
use hotpair_core::tables::writer::Batch;

use super::check::Rule;
use super::disk::Entry;
use super::host::{Busy, NAMES, Writing};
use super::storm::Phase;
use super::stream::{Frame, Shipper};
use super::world::World;

impl World {
    pub(super) fn carry_out(&mut self, host: usize, effect: TablesEffect) {
        self.note_effect(host, &effect);
        match effect {
            TablesEffect::Append(batch) => self.append(host, &batch),
            TablesEffect::Answer { ticket, verdict } => self.answer(host, ticket, &verdict),
            TablesEffect::Tell(fact) => self.tell(host, fact),
            TablesEffect::SendTail { .. }
            | TablesEffect::SendSnapshot { .. }
            | TablesEffect::SendDigests { .. }
            | TablesEffect::CloseFollower { .. } => self.serve_follower(host, effect),
            TablesEffect::Dial(follow) => self.dial(host, follow),
            TablesEffect::HangUp => {
                let process = self.hosts[host].process.as_mut().expect("it hangs up");
                process.phase = None;
                if let Some(connection) = process.dialled.take() {
                    self.close(connection, host);
                }
            }
            TablesEffect::Held { number } => {
                self.check_held(host, number);
                let process = self.hosts[host].process.as_ref().expect("it holds");
                if let Some(connection) = process.dialled {
                    self.send(connection, host, Frame::Held(number));
                }
            }
            TablesEffect::SetAside { .. }
            | TablesEffect::CutAfter { .. }
            | TablesEffect::BeginLoading
            | TablesEffect::KeepPiece(_)
            | TablesEffect::InstallSnapshot
            | TablesEffect::FinishLoading => self.begin_files(host, effect),
        }
    }

    // --- the log

    fn append(&mut self, host: usize, batch: &Batch) {
        let (mut entries, mut rest) = (Vec::new(), &batch.bytes[..]);
        while !rest.is_empty() {
            let (record, size) = decode(rest).expect("a batch is made of records");
            entries.push(Arc::new(Entry { record, bytes: rest[..size].into() }));
            rest = &rest[size..];
        }
        let writing = Writing { entries, last: batch.last };
        let time = self.disk_time(host);
        let stuck = self.plan.eager && self.hosts[host].full;
        let process = self.hosts[host].process.as_mut().expect("it appends");
        if let Some(stuck) = &mut process.stuck {
            stuck.last = writing.last;
            return stuck.entries.extend(writing.entries);
        }
        if stuck {
            process.stuck = Some(writing);
        } else {
            process.busy = Some(Busy::Append(writing));
        }
        self.start_operation(host, time);
    }

    pub(super) fn written(&mut self, host: usize, writing: &Writing) {
        let now = self.now;
        let slot = &mut self.hosts[host];
        if slot.disk.head() + 1 != writing.entries[0].number() {
            let what = format!(
                "{} appends record {} to a log that ends at {}",
                NAMES[host],
                writing.entries[0].number(),
                slot.disk.head()
            );
            return self.check.broken(Rule::Gap, what);
        }
        slot.disk.append(&writing.entries);
        if self.plan.durable {
            slot.disk.sync();
        }
        let process = slot.process.as_mut().expect("its thread waited for this");
        let (at, mut fx) = (process.moment(now), Vec::new());
        process.machine.appended(at, writing.last, &mut process.store, &mut fx);
        let master = process.epoch().is_some();
        self.check_written(host, &writing.entries, master);
        self.extend_effects(host, fx);
        if master {
            self.wake_shipper(host);
        }
    }

    // --- the files as a whole

    fn begin_files(&mut self, host: usize, effect: TablesEffect) {
        let slot = &self.hosts[host];
        if slot.full || slot.slow || self.rng.u32(0..4) == 0 {
            let time = self.disk_time(host);
            let process = self.hosts[host].process.as_mut().expect("it works on its files");
            process.busy = Some(Busy::Files(effect));
            self.start_operation(host, time);
        } else {
            self.change_files(host, effect);
        }
    }

    pub(super) fn change_files(&mut self, host: usize, effect: TablesEffect) {
        let slot = &mut self.hosts[host];
        let process = slot.process.as_mut().expect("it works on its files");
        let (disk, common) = (&mut slot.disk, process.common);
        let begins = effect == TablesEffect::BeginLoading;
        let done = match effect {
            TablesEffect::SetAside { after } => {
                disk.set_aside(after);
                Ok(())
            }
            TablesEffect::CutAfter { number } => disk.cut_after(number),
            TablesEffect::BeginLoading => {
                process.phase = Some(Phase::Loading);
                disk.begin_loading(common)
            }
            TablesEffect::KeepPiece(piece) => {
                disk.keep_piece(piece);
                Ok(())
            }
            TablesEffect::InstallSnapshot => {
                process.phase = Some(Phase::Reaching);
                disk.install();
                self.outcome.loads += 1;
                Ok(())
            }
            TablesEffect::FinishLoading => {
                process.phase = Some(Phase::Streaming);
                process.flip = None;
                let stuck = process.stuck.is_some();
                let reached = disk.complete() || stuck;
                if reached { Ok(()) } else { Err("a loading ends before its end".to_owned()) }
            }
            TablesEffect::Append(_)
            | TablesEffect::Answer { .. }
            | TablesEffect::Tell(_)
            | TablesEffect::SendTail { .. }
            | TablesEffect::SendSnapshot { .. }
            | TablesEffect::SendDigests { .. }
            | TablesEffect::CloseFollower { .. }
            | TablesEffect::Dial(_)
            | TablesEffect::HangUp
            | TablesEffect::Held { .. } => unreachable!("no change of files"),
        };
        if begins {
            // What was only here is of no use from now on.
            self.forgive();
        }
        if let Err(what) = done {
            self.check.broken(Rule::SetAside, format!("on {}: {what}", NAMES[host]));
        }
    }

    // --- followers

    fn serve_follower(&mut self, host: usize, effect: TablesEffect) {
        let process = self.hosts[host].process.as_mut().expect("it serves a follower");
        let epoch = process.epoch().unwrap_or_default();
        match effect {
            TablesEffect::SendTail { connection, after } => {
                process.shipper = Some(Shipper::tail(connection, epoch, after));
            }
            TablesEffect::SendSnapshot { connection, common } => {
                process.shipper = Some(Shipper::snapshot(connection, epoch, common));
            }
            TablesEffect::SendDigests { number, digests } => {
                if let Some(shipper) = &mut process.shipper {
                    shipper.queue_digests(number, digests);
                }
            }
            TablesEffect::CloseFollower { connection, .. } => {
                process.shipper.take_if(|shipper| shipper.connection == connection);
                return self.close(connection, host);
            }
            TablesEffect::Append(_)
            | TablesEffect::Answer { .. }
            | TablesEffect::Tell(_)
            | TablesEffect::Dial(_)
            | TablesEffect::HangUp
            | TablesEffect::Held { .. }
            | TablesEffect::SetAside { .. }
            | TablesEffect::CutAfter { .. }
            | TablesEffect::BeginLoading
            | TablesEffect::KeepPiece(_)
            | TablesEffect::InstallSnapshot
            | TablesEffect::FinishLoading => unreachable!("nothing for a follower"),
        }
        self.wake_shipper(host);
    }

    // --- facts

    fn tell(&mut self, host: usize, fact: TablesFact) {
        match &fact {
            TablesFact::Ready { epoch } => self.check_ready(host, *epoch),
            TablesFact::DigestMismatch { what: Some(_) } => self.check_mismatch(host),
            TablesFact::DigestMismatch { what: None }
            | TablesFact::Opened { .. }
            | TablesFact::Moved { .. }
            | TablesFact::PeerCaughtUp { .. }
            | TablesFact::PeerLost { .. }
            | TablesFact::BarrierHeld { .. }
            | TablesFact::Failed { .. }
            | TablesFact::DiskFull { .. }
            | TablesFact::Behind { .. }
            | TablesFact::Diverged { .. } => {}
        }
        self.send_fact(host, fact);
    }

    /// The phase of following that a frame begins.
    pub(super) fn note_frame(&mut self, host: usize, frame: &FromMaster) {
        let process = self.hosts[host].process.as_mut().expect("it hears its master");
        match frame {
            FromMaster::Tail { .. } => process.phase = Some(Phase::Streaming),
            FromMaster::Load { common, .. } => process.common = *common,
            FromMaster::Records(..) | FromMaster::Piece(_) | FromMaster::Digests { .. } => {}
        }
    }
}
