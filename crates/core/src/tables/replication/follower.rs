//! The standby's side: taking in what the master sends, in order, and saying what is held.

use super::{FromMaster, TablesEffect, Unfollowable};
use crate::pair::Moment;
use crate::pair::fact::TablesFact;
use crate::pair::identity::Epoch;
use crate::tables::position::{EpochStart, History, Position};
use crate::tables::record::{Body, Record};
use crate::tables::snapshot::Piece;
use crate::tables::store::Store;
use crate::tables::writer::Batch;

/// A master that says nothing for so long is dialled again. It says something every second.
const MASTER_SILENT_MS: u64 = 5_000;

/// The standby's side of one connection.
#[derive(Debug)]
pub(super) struct Following {
    phase: Phase,
    heard_at: Moment,
    /// Appended and not yet said to be held.
    appended: u64,
}

#[derive(Debug)]
enum Phase {
    /// Our history is on its way.
    Probing,
    /// Pieces come; the store is being made.
    Loading { store: Box<Store>, begun: Option<History> },
    /// The pieces are whole; the log must still reach `until`.
    Reaching { store: Box<Store>, until: u64 },
    /// The log comes, record by record.
    Streaming,
}

/// What a standby has.
pub(super) struct Own<'a> {
    pub(super) history: &'a mut History,
    pub(super) complete: &'a mut bool,
    pub(super) unapplied: &'a mut Vec<Record>,
    pub(super) mismatched: &'a mut bool,
    /// The tail that was set aside last: after this record, up to this end.
    pub(super) aside: &'a mut Option<(u64, Position)>,
    /// The mastership that is to be followed.
    pub(super) wanted: Epoch,
}

impl Following {
    pub(super) fn new(now: Moment) -> Self {
        Self { phase: Phase::Probing, heard_at: now, appended: 0 }
    }

    pub(super) fn deadline(&self) -> Moment {
        self.heard_at + MASTER_SILENT_MS
    }

    /// Everything up to this record, the last that came, is in the log.
    pub(super) fn has_appended(&self, last: u64) -> bool {
        self.appended == last
    }

    /// The log holds everything up to this record. True: the master may know.
    pub(super) fn appended(&mut self, last: u64, fx: &mut Vec<TablesEffect>) -> bool {
        self.appended = last;
        let held = matches!(self.phase, Phase::Streaming);
        if held {
            fx.push(TablesEffect::Held { number: last });
        }
        held
    }

    pub(super) fn handle(
        &mut self,
        now: Moment,
        frame: FromMaster,
        own: &mut Own<'_>,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) -> Result<(), Unfollowable> {
        self.heard_at = now;
        match frame {
            FromMaster::Tail { epoch, after } => {
                same(epoch, own.wanted)?;
                self.begin_tail(after, own, store, fx)
            }
            FromMaster::Load { epoch, common } => {
                same(epoch, own.wanted)?;
                self.begin_loading(common, own, fx)
            }
            FromMaster::Piece(piece) => self.take_piece(piece, own, store, fx),
            FromMaster::Records(records, bytes) => {
                self.take_records(records, bytes, own, store, fx)
            }
            FromMaster::Digests { number, digests } => {
                self.compare(number, &digests, own, store, fx)
            }
        }
    }

    fn begin_tail(
        &mut self,
        after: u64,
        own: &mut Own<'_>,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) -> Result<(), Unfollowable> {
        if !matches!(self.phase, Phase::Probing) {
            return Err(Unfollowable::OutOfPlace("a tail"));
        }
        let head = own.history.head();
        if after < store.applied() || after > head {
            return Err(Unfollowable::Gap { got: after + 1, wanted: head + 1 });
        }
        if head > after {
            own.set_aside(after, fx);
            fx.push(TablesEffect::CutAfter { number: after });
            own.history.cut_after(after);
        }
        for record in own.unapplied.drain(..).filter(|record| record.number <= after) {
            store.apply(&record);
        }
        self.phase = Phase::Streaming;
        self.appended = after;
        fx.push(TablesEffect::Held { number: after });
        Ok(())
    }

    fn begin_loading(
        &mut self,
        common: u64,
        own: &mut Own<'_>,
        fx: &mut Vec<TablesEffect>,
    ) -> Result<(), Unfollowable> {
        if !matches!(self.phase, Phase::Probing) {
            return Err(Unfollowable::OutOfPlace("a snapshot"));
        }
        // Also if the tables are not whole or not right: the log is what was acknowledged, and the
        // master may have lost since what it had when it was followed before.
        own.set_aside(common, fx);
        own.unapplied.clear();
        *own.complete = false;
        fx.push(TablesEffect::BeginLoading);
        fx.push(TablesEffect::Tell(TablesFact::Moved {
            position: own.history.position(),
            complete: false,
        }));
        self.phase = Phase::Loading { store: Box::default(), begun: None };
        Ok(())
    }

    fn take_piece(
        &mut self,
        piece: Piece,
        own: &mut Own<'_>,
        into: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) -> Result<(), Unfollowable> {
        let Phase::Loading { store, begun } = &mut self.phase else {
            return Err(Unfollowable::OutOfPlace("a piece of a snapshot"));
        };
        match (&piece, &begun) {
            (Piece::Begin { history }, None) => *begun = Some(history.clone()),
            (Piece::Begin { .. }, Some(_)) => {
                return Err(Unfollowable::OutOfPlace("a second beginning of a snapshot"));
            }
            (_, None) => return Err(Unfollowable::OutOfPlace("a piece before its beginning")),
            (Piece::End { until }, Some(history)) => {
                let until = *until;
                *own.history = history.clone();
                fx.push(TablesEffect::KeepPiece(piece));
                fx.push(TablesEffect::InstallSnapshot);
                let store = std::mem::take(store);
                self.appended = own.history.head();
                self.phase = Phase::Reaching { store, until };
                // If nothing was written meanwhile, there is nothing to wait for.
                self.finish_loading(own, into, fx);
                return Ok(());
            }
            (Piece::Rows { .. } | Piece::Windows { .. }, Some(_)) => {}
        }
        fx.push(TablesEffect::KeepPiece(piece.clone()));
        // A large snapshot takes longer than a silent follower is borne.
        fx.push(TablesEffect::Held { number: 0 });
        store.paste(piece);
        Ok(())
    }

    fn take_records(
        &mut self,
        records: Vec<Record>,
        bytes: Vec<u8>,
        own: &mut Own<'_>,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) -> Result<(), Unfollowable> {
        let into = match &mut self.phase {
            Phase::Streaming => &mut *store,
            Phase::Reaching { store, .. } => &mut **store,
            Phase::Probing | Phase::Loading { .. } => {
                return Err(Unfollowable::OutOfPlace("records"));
            }
        };
        let mut epoch = own.history.position().epoch;
        for (wanted, record) in (own.history.head() + 1..).zip(&records) {
            // One log, one writer at a time: epochs grow along it, up to that of its master.
            if record.epoch < epoch || record.epoch > own.wanted {
                return Err(Unfollowable::Epoch { got: record.epoch, wanted: own.wanted });
            }
            epoch = record.epoch;
            if record.number != wanted {
                return Err(Unfollowable::Gap { got: record.number, wanted });
            }
        }
        let Some(last) = records.last().map(|record| record.number) else { return Ok(()) };
        // First the log, then what is made of it: held is what the log holds.
        fx.push(TablesEffect::Append(Batch { last, bytes }));
        for record in records {
            if let Body::EpochStart { life } = record.body {
                let (epoch, first) = (record.epoch, record.number);
                own.history.begin(EpochStart { epoch, life, first });
            }
            into.apply(&record);
        }
        own.history.extend(last);
        self.finish_loading(own, store, fx);
        Ok(())
    }

    /// The store that was made takes the place of the old one, once the log reached its end.
    fn finish_loading(&mut self, own: &mut Own<'_>, store: &mut Store, fx: &mut Vec<TablesEffect>) {
        let Phase::Reaching { store: made, until } = &mut self.phase else { return };
        if own.history.head() < *until {
            return;
        }
        std::mem::swap(store, made);
        self.phase = Phase::Streaming;
        *own.complete = true;
        if std::mem::take(own.mismatched) {
            fx.push(TablesEffect::Tell(TablesFact::DigestMismatch { what: None }));
        }
        fx.push(TablesEffect::FinishLoading);
        let (position, complete) = (own.history.position(), true);
        fx.push(TablesEffect::Tell(TablesFact::Moved { position, complete }));
        fx.push(TablesEffect::Held { number: self.appended });
    }

    fn compare(
        &mut self,
        number: u64,
        digests: &[(String, u128)],
        own: &mut Own<'_>,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) -> Result<(), Unfollowable> {
        match self.phase {
            Phase::Streaming => {}
            Phase::Probing | Phase::Loading { .. } | Phase::Reaching { .. } => return Ok(()),
        }
        if store.applied() != number {
            return Err(Unfollowable::Gap { got: number, wanted: store.applied() });
        }
        let ours: Vec<(String, u128)> =
            store.digests().map(|(name, digest)| (name.to_string(), digest.0)).collect();
        if ours == digests {
            // The master hears at least this often that we are there.
            fx.push(TablesEffect::Held { number: self.appended });
            return Ok(());
        }
        let differs = |(name, digest): &&(String, u128)| {
            !ours.iter().any(|(other, ours)| other == name && ours == digest)
        };
        let which = digests
            .iter()
            .find(differs)
            .map_or_else(|| "a table that the master does not have".to_owned(), |(n, _)| n.clone());
        *own.mismatched = true;
        let what = format!(
            "after record {number} this node's tables are not the master's ({which}); they are \
             made anew from a snapshot"
        );
        fx.push(TablesEffect::Tell(TablesFact::DigestMismatch { what: Some(what.clone()) }));
        Err(Unfollowable::Different(what))
    }
}

fn same(got: Epoch, wanted: Epoch) -> Result<(), Unfollowable> {
    if got == wanted { Ok(()) } else { Err(Unfollowable::Epoch { got, wanted }) }
}

impl Own<'_> {
    /// Keeps the records after this one in a file, if there are any and it was not done before:
    /// a loading that is interrupted begins again.
    fn set_aside(&mut self, after: u64, fx: &mut Vec<TablesEffect>) {
        let (head, end) = (self.history.head(), self.history.position());
        if head <= after || *self.aside == Some((after, end)) {
            return;
        }
        *self.aside = Some((after, end));
        fx.push(TablesEffect::SetAside { after });
        let what = format!(
            "{} records after record {after} are not in the master's log; they are kept in a file \
             beside the redo files",
            head - after
        );
        fx.push(TablesEffect::Tell(TablesFact::Diverged { what }));
    }
}
