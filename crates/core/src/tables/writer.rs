//! The one that commits: while this node is master, every change of the tables is numbered here.
//!
//! ```text
//! submit ─▶ looked at against store + pending ─▶ record ─▶ batch ─▶ (written) (held by the peer)
//!                                                  │                         │
//!                                                  └──── pending, in order ──┴─▶ release ─▶ store, verdicts
//! ```
//!
//! Readers look at the store only, which has what is acknowledged. The writer itself also sees what
//! is pending, so that requests need not wait for each other's acknowledgement.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::SESSIONS;
use super::change::{
    Bytes, Numbered, Operation, OperationResult, Refusal, Reply, ReplyPlan, Request, SessionKey,
    Verdict,
};
use super::digest::Digest;
use super::intents::INTENTS;
use super::key::{Key, Ordered, Sought};
use super::planted::{PlantedInTables, TablesBug};
use super::record::{Body, Change, Record, encode};
use super::store::Store;
use super::table::Row;
use super::tickets::{RESULTS, Ticketed};
use super::window::Seen;
use crate::pair::identity::Epoch;

/// Records that may be pending. More are refused until the peer or the disk has caught up.
pub const PENDING_MAX: usize = 65_536;

/// What makes a batch large enough to be handed on before more is looked at: beside a record of the
/// longest it must fit into what the peer takes at a time.
pub const BATCH_BYTES_FULL: usize = 1 << 20;

/// The writer of one mastership. See the file's header.
#[derive(Debug)]
pub struct Writer {
    epoch: Epoch,
    head: u64,
    pending: VecDeque<Pending>,
    /// Rows as they will be once all that is pending is acknowledged.
    overlay: BTreeMap<Arc<str>, BTreeMap<Key, PendingRow>>,
    /// Numbered requests that are pending, and their records.
    numbers: BTreeMap<(SessionKey, u64), u64>,
    digests: BTreeMap<Arc<str>, Digest>,
    batch: Vec<u8>,
    planted: PlantedInTables,
}

#[derive(Debug)]
struct Pending {
    record: Record,
    /// Who waits; nobody for what this node does by itself.
    ticket: Option<u64>,
    /// Who else does, if the request was sent again meanwhile.
    more_tickets: Vec<u64>,
    reply: Reply,
}

#[derive(Debug)]
struct PendingRow {
    /// None: deleted.
    row: Option<Row>,
    /// The record that changed it last.
    number: u64,
}

/// Records to be made durable and shipped, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The number of the last of them.
    pub last: u64,
    /// One after the other, as `record` writes them.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Takes over a store after record `head`, and begins its mastership with a record that says so.
    #[must_use]
    pub fn new(epoch: Epoch, life: u64, head: u64, store: &Store) -> Self {
        let mut writer = Self {
            epoch,
            head,
            pending: VecDeque::new(),
            overlay: BTreeMap::new(),
            numbers: BTreeMap::new(),
            digests: store.digests().map(|(name, digest)| (name.clone(), digest)).collect(),
            batch: Vec::new(),
            planted: PlantedInTables::NONE,
        };
        writer.append(Body::EpochStart { life }, None, Reply::Results(Vec::new()));
        writer
    }

    /// The same with a planted bug.
    #[must_use]
    pub fn with_planted(self, planted: PlantedInTables) -> Self {
        Self { planted, ..self }
    }

    // --- looks

    /// The epoch it writes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The number of the last record.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Records that are not acknowledged yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The digest of each table as it is after the last record.
    pub fn digests(&self) -> impl Iterator<Item = (&Arc<str>, Digest)> {
        self.digests.iter().map(|(name, digest)| (name, *digest))
    }

    // --- commands

    /// Looks at a request and commits it, or says why not. `None`: it is pending.
    pub fn submit(&mut self, store: &Store, request: Request) -> Option<Verdict> {
        if self.pending.len() >= PENDING_MAX {
            let busy = "too many changes wait to be acknowledged".to_owned();
            return Some(Verdict::Refused(Refusal::Busy(busy)));
        }
        if let Err(refusal) = request.check() {
            return Some(Verdict::Refused(refusal));
        }
        if let Some(numbered) = request.numbered {
            match self.seen(store, numbered) {
                Met::New => {}
                Met::Pending(record) => {
                    let first = self.pending.front().map_or(0, |p| p.record.number);
                    let index = usize::try_from(record - first).expect("pending is bounded");
                    self.pending[index].more_tickets.push(request.ticket);
                    return None;
                }
                Met::Over(verdict) => return Some(verdict),
            }
        }
        let unchanged = |read: &super::change::Read| {
            self.version(store, &read.table, &read.key) == read.version
        };
        if !request.reads.iter().all(unchanged) {
            return Some(Verdict::Conflict);
        }
        match self.resolve(store, &request.operations) {
            Ok((mut changes, results)) => {
                if let ReplyPlan::ResultsKept { key } = &request.reply {
                    changes.push(kept(key, &results));
                }
                self.commit(store, request, changes, results);
                None
            }
            Err(refusal) => Some(Verdict::Refused(refusal)),
        }
    }

    /// A record that changes nothing, and whose acknowledgement proves that of all before it; its
    /// number.
    pub fn write_barrier(&mut self) -> u64 {
        let body = Body::Changes { numbered: None, changes: Vec::new(), reply: None };
        self.append(body, None, Reply::Results(Vec::new()));
        self.head
    }

    /// Whether no more should be committed before the batch is taken.
    #[must_use]
    pub fn batch_is_full(&self) -> bool {
        self.batch.len() >= BATCH_BYTES_FULL
    }

    /// What was committed since the last call; none if nothing was.
    #[must_use]
    pub fn take_batch(&mut self) -> Option<Batch> {
        if self.batch.is_empty() {
            return None;
        }
        let room = self.batch.len().min(BATCH_BYTES_FULL);
        let bytes = std::mem::replace(&mut self.batch, Vec::with_capacity(room));
        Some(Batch { last: self.head, bytes })
    }

    /// Everything up to this number is acknowledged: readers see it, and who waits is told.
    pub fn release(&mut self, up_to: u64, store: &mut Store, verdicts: &mut Vec<(u64, Verdict)>) {
        while self.pending.front().is_some_and(|p| p.record.number <= up_to) {
            let Some(pending) = self.pending.pop_front() else { return };
            let number = pending.record.number;
            self.forget(&pending.record);
            store.apply(&pending.record);
            for ticket in pending.more_tickets {
                verdicts.push((ticket, Verdict::Done { reply: pending.reply.clone(), number }));
            }
            if let Some(ticket) = pending.ticket {
                verdicts.push((ticket, Verdict::Done { reply: pending.reply, number }));
            }
        }
    }

    /// Shows readers what is pending: only in a planted bug.
    pub(super) fn show_pending(&self, store: &mut Store) {
        for pending in &self.pending {
            store.apply(&pending.record);
        }
    }

    /// Mastership is over. What is pending stays in the log, and the next master decides about it:
    /// the records in order, for a store that is to go on from here; nobody who waits is told done.
    #[must_use]
    pub fn abandon(self) -> (Vec<Record>, Vec<(u64, Verdict)>) {
        let mut verdicts = Vec::new();
        let mut records = Vec::with_capacity(self.pending.len());
        for pending in self.pending {
            let tickets = pending.ticket.into_iter().chain(pending.more_tickets);
            verdicts.extend(tickets.map(|ticket| (ticket, Verdict::Superseded)));
            records.push(pending.record);
        }
        (records, verdicts)
    }

    // --- looking at what is pending as well

    fn seen(&self, store: &Store, numbered: Numbered) -> Met {
        let Numbered { session, number, .. } = numbered;
        if self.row(store, SESSIONS, &session.0).is_none() {
            return Met::Over(Verdict::Refused(Refusal::SessionUnknown));
        }
        if let Some(record) = self.numbers.get(&(session, number)) {
            return Met::Pending(*record);
        }
        match store.seen(session, number) {
            Seen::New => Met::New,
            Seen::Done(reply) => Met::Over(Verdict::Done { reply: reply.clone(), number: 0 }),
            Seen::Gone { floor } => Met::Over(Verdict::Refused(Refusal::TooOld { number, floor })),
        }
    }

    fn row<'a>(&'a self, store: &'a Store, table: &str, key: &[u8]) -> Option<&'a Row> {
        match self.overlay.get(table).and_then(|rows| rows.get(&Sought::new(key) as &dyn Ordered)) {
            Some(pending) => pending.row.as_ref(),
            None => store.get(table, key),
        }
    }

    fn version(&self, store: &Store, table: &str, key: &[u8]) -> u64 {
        self.row(store, table, key).map_or(0, |row| row.version)
    }

    /// What the operations come to, one after the other, nothing of it done yet.
    fn resolve(
        &self,
        store: &Store,
        operations: &[Operation],
    ) -> Result<(Vec<Change>, Vec<OperationResult>), Refusal> {
        let version = self.head + 1;
        let mut changes: Vec<Change> = Vec::with_capacity(operations.len());
        let mut results = Vec::with_capacity(operations.len());
        // What earlier operations of the same request changed, by table and key.
        let mut changed: BTreeMap<(&str, &[u8]), usize> = BTreeMap::new();
        for operation in operations {
            let done = changes.len();
            let (table, key) = (operation.table().clone(), operation.key().clone());
            let earlier = changed.get(&(&**operation.table(), &**operation.key()));
            // Looked up only where it matters: a put need not know what was there.
            let row = || match earlier.map(|index| &changes[*index]) {
                Some(Change::Put { value, .. }) => Some((&**value, version)),
                Some(Change::Delete { .. }) => None,
                None => self.row(store, &table, &key).map(|row| (&*row.value, row.version)),
            };
            match operation {
                Operation::Put { value, .. } => {
                    changes.push(Change::Put { table, key, value: value.clone() });
                    results.push(OperationResult::Put { version });
                }
                Operation::Delete { .. } => {
                    if row().is_some() {
                        let session = (*table == *SESSIONS).then(|| key.clone());
                        changes.push(Change::Delete { table, key });
                        if let Some(session) = session {
                            self.end_calls_of(store, &session, &mut changes);
                        }
                    }
                    results.push(OperationResult::Deleted { version });
                }
                Operation::CompareAndPut { value, version: wanted, .. } => {
                    let found = row().map_or(0, |(_, version)| version);
                    let done = found == *wanted;
                    if done {
                        changes.push(Change::Put { table, key, value: value.clone() });
                    }
                    let version = if done { version } else { found };
                    results.push(OperationResult::Compared { done, version });
                }
                Operation::Add { by, .. } => {
                    let value = sum(row().map(|(value, _)| value), *by)
                        .ok_or_else(|| Refusal::NotANumber { table: table.to_string(), by: *by })?;
                    let text = value.to_string().into_bytes().into();
                    changes.push(Change::Put { table, key, value: text });
                    results.push(OperationResult::Added { value });
                }
            }
            if operations.len() > 1 && changes.len() > done {
                changed.insert((operation.table(), operation.key()), done);
            }
        }
        Ok((changes, results))
    }

    /// A session takes its asynchronous calls along, and its intents.
    fn end_calls_of(&self, store: &Store, session: &Bytes, changes: &mut Vec<Change>) {
        for name in [RESULTS, INTENTS] {
            let table: Arc<str> = name.into();
            let of_session = |key: &&Bytes| key.starts_with(session);
            let kept = store.table(name).into_iter().flat_map(|rows| rows.scan(session));
            let mut keys: BTreeSet<Bytes> =
                kept.map(|(key, _)| key).take_while(of_session).cloned().collect();
            if let Some(pending) = self.overlay.get(name) {
                let from = Key::new(session.clone());
                let pending = pending.range(from..).map(|(key, _)| &key.bytes);
                keys.extend(pending.take_while(of_session).cloned());
            }
            let there = |key: &Bytes| self.row(store, name, key).is_some();
            let deletions = keys.into_iter().filter(there);
            changes.extend(deletions.map(|key| Change::Delete { table: table.clone(), key }));
        }
    }

    // --- committing

    fn commit(
        &mut self,
        store: &Store,
        request: Request,
        changes: Vec<Change>,
        results: Vec<OperationResult>,
    ) {
        let number = self.head + 1;
        for change in &changes {
            self.change(store, change, number);
        }
        if let Some(numbered) = request.numbered {
            self.numbers.insert((numbered.session, numbered.number), number);
        }
        let reply = match request.reply {
            ReplyPlan::Results | ReplyPlan::ResultsKept { .. } => Reply::Results(results),
            ReplyPlan::Fixed(bytes) => Reply::Fixed(bytes),
        };
        let keep = request.numbered.is_some() && !self.planted.has(TablesBug::ReplyNotReplicated);
        let kept = keep.then(|| reply.clone());
        let body = Body::Changes { numbered: request.numbered, changes, reply: kept };
        self.append(body, Some(request.ticket), reply);
    }

    fn change(&mut self, store: &Store, change: &Change, number: u64) {
        let (table, key, row) = match change {
            Change::Put { table, key, value } => {
                (table, key, Some(Row { value: value.clone(), version: number }))
            }
            Change::Delete { table, key } => (table, key, None),
        };
        let mut digest = self.digests.get(table).copied().unwrap_or_default();
        if let Some(old) = self.row(store, table, key) {
            digest.remove(key, old);
        }
        if let Some(row) = &row {
            digest.add(key, row);
        }
        match self.digests.get_mut(table) {
            Some(kept) => *kept = digest,
            None => {
                self.digests.insert(table.clone(), digest);
            }
        }
        let pending = PendingRow { row, number };
        let key = Key::new(key.clone());
        match self.overlay.get_mut(table) {
            Some(rows) => {
                rows.insert(key, pending);
            }
            None => {
                self.overlay.insert(table.clone(), BTreeMap::from([(key, pending)]));
            }
        }
    }

    fn append(&mut self, body: Body, ticket: Option<u64>, reply: Reply) {
        self.head += 1;
        let record = Record { epoch: self.epoch, number: self.head, body };
        encode(&record, &mut self.batch);
        self.pending.push_back(Pending { record, ticket, more_tickets: Vec::new(), reply });
    }

    fn forget(&mut self, record: &Record) {
        let Body::Changes { numbered, changes, .. } = &record.body else { return };
        if let Some(numbered) = numbered {
            self.numbers.remove(&(numbered.session, numbered.number));
        }
        for change in changes {
            let (Change::Put { table, key, .. } | Change::Delete { table, key }) = change;
            if let Some(rows) = self.overlay.get_mut(table)
                && let Entry::Occupied(pending) = rows.entry(Key::new(key.clone()))
                && pending.get().number == record.number
            {
                pending.remove();
            }
        }
    }
}

/// How a numbered request is met.
enum Met {
    New,
    /// It was sent before, and its record is pending.
    Pending(u64),
    Over(Verdict),
}

/// The row that an asynchronous call leaves.
fn kept(key: &Bytes, results: &[OperationResult]) -> Change {
    let value = Ticketed::Results(results.to_vec()).encode().into();
    Change::Put { table: RESULTS.into(), key: key.clone(), value }
}

fn sum(value: Option<&[u8]>, by: i64) -> Option<i64> {
    let Some(value) = value else { return Some(by) };
    let value: i64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    value.checked_add(by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::change::REQUEST_BYTES_MAX;
    use crate::tables::record::decode;
    use crate::tables::tickets::row_key;

    fn table() -> Arc<str> {
        "t".into()
    }

    fn key(text: &str) -> Bytes {
        text.as_bytes().into()
    }

    fn add(ticket: u64, numbered: Option<Numbered>, by: i64) -> Request {
        let operations = vec![Operation::Add { table: table(), key: key("k"), by }];
        Request { ticket, numbered, reads: Vec::new(), operations, reply: ReplyPlan::Results }
    }

    fn put(ticket: u64, table: &str, row: &str) -> Request {
        let (table, value) = (table.into(), key("v"));
        let operations = vec![Operation::Put { table, key: key(row), value }];
        Request { ticket, numbered: None, reads: Vec::new(), operations, reply: ReplyPlan::Results }
    }

    fn login(session: SessionKey) -> Request {
        let key: Bytes = session.0.as_slice().into();
        let operations = vec![Operation::Put { table: SESSIONS.into(), key, value: [].into() }];
        Request {
            ticket: 0,
            numbered: None,
            reads: Vec::new(),
            operations,
            reply: ReplyPlan::Results,
        }
    }

    fn added(verdict: &Verdict) -> i64 {
        match verdict {
            Verdict::Done { reply: Reply::Results(results), .. } => match results[..] {
                [OperationResult::Added { value }] => value,
                ref other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn readers_see_nothing_before_it_is_acknowledged_and_the_writer_sees_it_at_once() {
        let mut store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        assert_eq!(writer.submit(&store, add(1, None, 5)), None);
        assert_eq!(writer.submit(&store, add(2, None, 6)), None);
        assert!(store.get("t", b"k").is_none());
        let mut verdicts = Vec::new();
        writer.release(2, &mut store, &mut verdicts);
        assert_eq!(&*store.get("t", b"k").unwrap().value, b"5");
        writer.release(3, &mut store, &mut verdicts);
        assert_eq!(&*store.get("t", b"k").unwrap().value, b"11");
        assert_eq!(
            verdicts.iter().map(|(t, v)| (*t, added(v))).collect::<Vec<_>>(),
            [(1, 5), (2, 11)]
        );
    }

    #[test]
    fn a_tables_name_holds_no_control_character() {
        let store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        for name in ["a\0b", "a\nb", "\u{85}"] {
            let refused = writer.submit(&store, put(1, name, "k"));
            assert!(matches!(refused, Some(Verdict::Refused(Refusal::BadName { .. }))), "{name:?}");
        }
        assert_eq!(writer.submit(&store, put(1, "Bücher 2", "k")), None);
    }

    #[test]
    fn the_largest_request_fits_into_a_record_and_a_larger_one_changes_nothing() {
        let store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        writer.take_batch().unwrap();
        let puts = |bytes: usize| {
            let value: Bytes = vec![0; 100_000].into();
            let put = |index: usize| Operation::Put {
                table: table(),
                key: key(&format!("{index:03}")),
                value: value.clone(),
            };
            let operations = (0..bytes.div_ceil(100_000)).map(put).collect();
            Request {
                ticket: 1,
                numbered: None,
                reads: Vec::new(),
                operations,
                reply: ReplyPlan::Results,
            }
        };
        let refused = writer.submit(&store, puts(REQUEST_BYTES_MAX + 1));
        assert!(
            matches!(&refused, Some(Verdict::Refused(Refusal::TooLarge { .. }))),
            "{refused:?}"
        );
        assert_eq!(writer.take_batch(), None);
        assert_eq!(writer.submit(&store, puts(REQUEST_BYTES_MAX - 100_000)), None);
        assert!(writer.batch_is_full());
        let bytes = writer.take_batch().unwrap().bytes;
        assert_eq!(decode(&bytes).unwrap().1, bytes.len());
        assert!(!writer.batch_is_full());
    }

    #[test]
    fn a_request_sent_again_is_done_once_whether_it_is_pending_or_over() {
        let mut store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        let session = SessionKey([1; 16]);
        let numbered = Some(Numbered { session, number: 1, done_up_to: 0 });
        assert_eq!(
            writer.submit(&store, add(1, numbered, 5)),
            Some(Verdict::Refused(Refusal::SessionUnknown))
        );
        assert_eq!(writer.submit(&store, login(session)), None);
        assert_eq!(writer.submit(&store, add(2, numbered, 5)), None);
        assert_eq!(writer.submit(&store, add(3, numbered, 5)), None);
        let mut verdicts = Vec::new();
        writer.release(writer.head(), &mut store, &mut verdicts);
        let sums: Vec<_> = verdicts[1..].iter().map(|(ticket, v)| (*ticket, added(v))).collect();
        assert_eq!(sums, [(3, 5), (2, 5)]);
        assert_eq!(added(&writer.submit(&store, add(4, numbered, 5)).unwrap()), 5);
        // Also after another node has read the log.
        let mut other = Store::default();
        let bytes = writer.take_batch().unwrap().bytes;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (record, size) = decode(rest).unwrap();
            other.apply(&record);
            rest = &rest[size..];
        }
        let mut next = Writer::new(Epoch(2), 8, writer.head(), &other);
        assert_eq!(added(&next.submit(&other, add(5, numbered, 5)).unwrap()), 5);
        assert_eq!(&*other.get("t", b"k").unwrap().value, b"5");
    }

    #[test]
    fn the_digest_after_the_last_record_is_that_of_the_store_once_all_is_applied() {
        let mut store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        for (ticket, row) in ["a", "b", "a", "c"].into_iter().enumerate() {
            writer.submit(&store, put(ticket as u64, "t", row));
        }
        let delete = vec![Operation::Delete { table: table(), key: key("b") }];
        writer.submit(&store, Request { operations: delete, ..put(9, "t", "") });
        let promised: Vec<_> = writer.digests().map(|(n, d)| (n.clone(), d)).collect();
        writer.release(writer.head(), &mut store, &mut Vec::new());
        let kept: Vec<_> = store.digests().map(|(n, d)| (n.clone(), d)).collect();
        assert_eq!(promised, kept);
        assert_eq!(store.table("t").unwrap().len(), 2);
        assert!(writer.overlay.values().all(BTreeMap::is_empty) && writer.numbers.is_empty());
    }

    #[test]
    fn operations_of_one_request_see_each_other_and_fail_together() {
        let store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        let word = Operation::Put { table: table(), key: key("k"), value: key("word") };
        let add = Operation::Add { table: table(), key: key("k"), by: 1 };
        let request = |operations| Request { operations, ..put(1, "t", "") };
        let refused = writer.submit(&store, request(vec![word, add.clone()]));
        assert!(
            matches!(refused, Some(Verdict::Refused(Refusal::NotANumber { .. }))),
            "{refused:?}"
        );
        assert_eq!(writer.head(), 1);
        assert_eq!(writer.submit(&store, request(vec![add.clone(), add])), None);
        let mut store = store;
        let mut verdicts = Vec::new();
        writer.release(2, &mut store, &mut verdicts);
        assert_eq!(&*store.get("t", b"k").unwrap().value, b"2");
    }

    #[test]
    fn a_decision_on_a_row_that_changed_meanwhile_is_a_conflict() {
        let store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        let read = super::super::change::Read { table: table(), key: key("k"), version: 0 };
        let request = |ticket| Request { reads: vec![read.clone()], ..add(ticket, None, 1) };
        assert_eq!(writer.submit(&store, request(1)), None);
        assert_eq!(writer.submit(&store, request(2)), Some(Verdict::Conflict));
    }

    #[test]
    fn an_asynchronous_call_and_what_came_of_it_are_one_record_and_go_with_the_session() {
        let mut store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        let (one, other) = (SessionKey([1; 16]), SessionKey([2; 16]));
        let plan = |session| ReplyPlan::ResultsKept { key: row_key(session, "9") };
        writer.submit(&store, login(one));
        writer.submit(&store, login(other));
        writer.submit(&store, Request { reply: plan(one), ..add(1, None, 5) });
        writer.submit(&store, Request { reply: plan(other), ..add(2, None, 6) });
        let intent = |session| {
            let (table, key) = (INTENTS.into(), row_key(session, "8"));
            vec![Operation::Put { table, key, value: [].into() }]
        };
        writer.submit(&store, Request { operations: intent(one), ..put(3, "t", "") });
        writer.submit(&store, Request { operations: intent(other), ..put(4, "t", "") });
        let mut verdicts = Vec::new();
        writer.release(writer.head(), &mut store, &mut verdicts);
        let row = store.get(RESULTS, &row_key(one, "9")).unwrap();
        let kept = Ticketed::decode(&row.value).unwrap();
        assert_eq!(kept, Ticketed::Results(vec![OperationResult::Added { value: 5 }]));
        assert_eq!(row.version, store.get("t", b"k").unwrap().version - 1);
        // One that is still pending goes as well.
        writer.submit(
            &store,
            Request {
                reply: ReplyPlan::ResultsKept { key: row_key(one, "10") },
                ..add(3, None, 1)
            },
        );
        let logout =
            vec![Operation::Delete { table: SESSIONS.into(), key: one.0.as_slice().into() }];
        writer.submit(&store, Request { operations: logout, ..put(4, "t", "") });
        let promised: Vec<_> = writer.digests().map(|(n, d)| (n.clone(), d)).collect();
        writer.release(writer.head(), &mut store, &mut verdicts);
        let left: Vec<_> =
            store.table(RESULTS).unwrap().scan(b"").map(|(key, _)| key.clone()).collect();
        assert_eq!(left, [row_key(other, "9")]);
        let intents: Vec<_> = store.table(INTENTS).unwrap().scan(b"").map(|(key, _)| key).collect();
        assert_eq!(intents, [&row_key(other, "8")]);
        let digest = |digests: Vec<(Arc<str>, Digest)>| {
            digests.into_iter().find(|(name, _)| **name == *RESULTS).unwrap().1
        };
        let kept = store.digests().map(|(n, d)| (n.clone(), d)).collect();
        assert_eq!(digest(promised), digest(kept));
    }

    #[test]
    fn a_barrier_is_a_record_that_changes_nothing() {
        let mut store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        writer.submit(&store, add(1, None, 5));
        assert_eq!(writer.write_barrier(), 3);
        let promised: Vec<_> = writer.digests().map(|(n, d)| (n.clone(), d)).collect();
        let mut verdicts = Vec::new();
        writer.release(3, &mut store, &mut verdicts);
        let kept: Vec<_> = store.digests().map(|(n, d)| (n.clone(), d)).collect();
        assert_eq!((verdicts.len(), store.applied()), (1, 3));
        assert_eq!(promised, kept);
        // Also for whoever reads the log.
        let (mut other, bytes) = (Store::default(), writer.take_batch().unwrap().bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (record, size) = decode(rest).unwrap();
            other.apply(&record);
            rest = &rest[size..];
        }
        assert_eq!(other.applied(), 3);
    }

    #[test]
    fn a_mastership_that_is_over_tells_nobody_done() {
        let store = Store::default();
        let mut writer = Writer::new(Epoch(1), 7, 0, &store);
        writer.submit(&store, add(1, None, 1));
        let (records, verdicts) = writer.abandon();
        assert_eq!(records.len(), 2);
        assert_eq!(verdicts, [(1, Verdict::Superseded)]);
    }
}
