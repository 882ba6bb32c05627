//! The rules.
//!
//! A record is named by its epoch and number. A log that has the last acknowledged record of an
//! epoch has all before it, so that what must not be lost is one number an epoch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::{
    Operation, OperationResult, Refusal, Reply, Request, SessionKey, Verdict,
};
use hotpair_core::tables::position::History;
use hotpair_core::tables::record::{Body, Change};
use hotpair_core::tables::store::Store;
use hotpair_core::tables::window::Window;

use super::clients::COUNTERS;
use super::disk::{Disk, Entry};
use super::host::{Host, NAMES};
use super::world::{Event, World};
use crate::clock::{MS, Micros};

/// A flipped row is told within this time, if nothing is in the way.
const FLIP_WITHIN: Micros = 4_000 * MS;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What was acknowledged survives, unless every disk that had it lost power.
    Lost,
    /// What a reader saw survives, too.
    Vanished,
    /// Whoever the sync record names has everything that is acknowledged.
    Members,
    /// Whoever reads sees everything that was acknowledged.
    Stale,
    /// A numbered request changes the tables once.
    Twice,
    /// A numbered request has one reply.
    Reply,
    /// A program that must not be called twice for a request is not, and one that was not called has
    /// done nothing.
    Effect,
    /// A request is not refused for what the pair did.
    Refused,
    /// A log has no gaps, and says what it holds.
    Gap,
    /// What the master does not have is set aside before it goes.
    SetAside,
    /// A difference between the tables is told.
    Told,
    /// Queues are bounded.
    Bounded,
    /// In the end both have the same.
    Equal,
    /// In the end the pair serves and is in sync.
    Live,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What was seen.
    pub what: String,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.rule, self.at_ms, self.what)
    }
}

/// What is known to have been said.
#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) violation: Option<Violation>,
    pub(super) now: Micros,
    /// By epoch: the last record that must not be lost, and whether only a reader saw it.
    must: BTreeMap<u64, (u64, Rule)>,
    /// Every record that a master wrote.
    archive: BTreeMap<(u64, u64), Arc<Entry>>,
    /// Where a numbered request was executed.
    executed: BTreeMap<(SessionKey, u64), Vec<(u64, u64)>>,
    /// The first reply that was given, and to which execution.
    replied: BTreeMap<(SessionKey, u64), (Reply, (u64, u64))>,
    /// What was asked for.
    asked: BTreeMap<(SessionKey, u64), Vec<Operation>>,
    flips: u64,
}

impl Check {
    pub(super) fn broken(&mut self, rule: Rule, what: String) {
        let at_ms = self.now / MS;
        self.violation.get_or_insert(Violation { rule, what, at_ms });
    }

    fn must_keep(&mut self, epoch: u64, number: u64, rule: Rule) {
        let must = self.must.entry(epoch).or_insert((number, rule));
        if number > must.0 {
            *must = (number, rule);
        }
    }

    /// The execution of a request in this log.
    fn execution(&self, request: (SessionKey, u64), history: &History) -> Option<(u64, u64)> {
        let all = self.executed.get(&request)?;
        all.iter().copied().find(|name| holds(history, *name))
    }

    pub(super) fn asked(&mut self, request: &Request) {
        if let Some(numbered) = request.numbered {
            let key = (numbered.session, numbered.number);
            self.asked.entry(key).or_insert_with(|| request.operations.clone());
        }
    }
}

fn epoch_of(history: &History, number: u64) -> u64 {
    history.of(number).map_or(0, |start| start.epoch.0)
}

fn holds(history: &History, (epoch, number): (u64, u64)) -> bool {
    epoch_of(history, number) == epoch && number <= history.head()
}

/// The last record of this epoch up to this number that the log holds.
fn last_held(history: &History, epoch: u64, number: u64) -> Option<u64> {
    let starts = history.starts();
    let index = starts.iter().position(|start| start.epoch.0 == epoch)?;
    let end = starts.get(index + 1).map_or(history.head(), |next| next.first - 1);
    let last = end.min(number);
    (last >= starts[index].first).then_some(last)
}

impl World {
    // --- the log

    pub(super) fn check_written(&mut self, host: usize, entries: &[Arc<Entry>], master: bool) {
        for entry in entries {
            if !master {
                let same =
                    self.check.archive.get(&entry.name()).is_some_and(|known| known == entry);
                if !same {
                    let what = format!("{} holds a {:?} of its own", NAMES[host], entry.record);
                    self.check.broken(Rule::Equal, what);
                }
                continue;
            }
            self.check.archive.insert(entry.name(), entry.clone());
            let Body::Changes { numbered: Some(numbered), .. } = &entry.record.body else {
                continue;
            };
            let key = (numbered.session, numbered.number);
            let history = self.hosts[host].disk.history();
            if let Some((epoch, number)) = self.check.execution(key, history) {
                let what = format!(
                    "request {} of session {:02x} was executed in record {number} of epoch {epoch} \
                     and again in record {} of epoch {}",
                    numbered.number,
                    numbered.session.0[0],
                    entry.number(),
                    entry.record.epoch,
                );
                self.check.broken(Rule::Twice, what);
            }
            self.check.executed.entry(key).or_default().push(entry.name());
        }
    }

    pub(super) fn check_held(&mut self, host: usize, number: u64) {
        let head = self.hosts[host].disk.head();
        if number > head {
            let what = format!("{} holds {head} records and says {number}", NAMES[host]);
            self.check.broken(Rule::Gap, what);
        }
    }

    /// A mastership begins: nothing that must be kept is missing.
    pub(super) fn check_ready(&mut self, host: usize, epoch: Epoch) {
        let history = self.hosts[host].disk.history();
        if self.plan.ack_local {
            self.check.must.retain(|epoch, must| match last_held(history, *epoch, must.0) {
                Some(number) => {
                    must.0 = number;
                    true
                }
                None => false,
            });
        }
        // A mastership that was over before its order came begins late, and serves nobody.
        let earlier = self.check.must.range(..epoch.0);
        let missing = earlier.into_iter().find(|(epoch, must)| !holds(history, (**epoch, must.0)));
        if let Some((lost, (number, rule))) = missing {
            let (what, head) = (NAMES[host], history.head());
            let what = format!(
                "{what} is master of epoch {epoch} with {head} records, without record {number} of \
                 epoch {lost}"
            );
            self.check.broken(*rule, what);
        }
    }

    /// After a loss of power: what no disk that could be used holds any more is forgiven.
    pub(super) fn forgive(&mut self) {
        // Tables that are known to differ are no copy, whatever their log says.
        let right = |host: &&Host| {
            let flip = host.process.as_ref().and_then(|process| process.flip.as_ref());
            host.disk.complete() && !flip.is_some_and(|flip| flip.told)
        };
        let disks: Vec<&Disk> = self.hosts.iter().filter(right).map(|host| &host.disk).collect();
        let mut forgiven = 0;
        self.check.must.retain(|epoch, must| {
            let held = disks.iter().filter_map(|disk| last_held(disk.history(), *epoch, must.0));
            let last = held.max();
            forgiven += must.0 - last.unwrap_or(must.0 - 1);
            must.0 = last.unwrap_or(0);
            last.is_some()
        });
        self.outcome.forgiven += forgiven;
    }

    // --- answers and reads

    /// A verdict goes out to a client, by a master that may act.
    pub(super) fn check_answer(&mut self, host: usize, request: &Request, verdict: &Verdict) {
        let forgiven = self.outcome.forgiven > 0 || self.plan.ack_local;
        let history = self.hosts[host].disk.history();
        match verdict {
            Verdict::Done { reply, number } => {
                let Some(numbered) = request.numbered else {
                    let name = (epoch_of(history, *number), *number);
                    self.check.must_keep(name.0, name.1, Rule::Lost);
                    return self.check_members(host, name);
                };
                let key = (numbered.session, numbered.number);
                let Some(name) = self.check.execution(key, history) else {
                    let what = format!("request {} has a reply and no record", numbered.number);
                    return self.check.broken(Rule::Reply, what);
                };
                self.check.must_keep(name.0, name.1, Rule::Lost);
                self.check_members(host, name);
                self.check_reply(key, reply, name);
            }
            Verdict::Refused(refusal @ (Refusal::SessionUnknown | Refusal::TooOld { .. })) => {
                let late = self.clients.iter().all(|client| !client.waits_for(request));
                if !late && !forgiven {
                    self.check.broken(Rule::Refused, format!("{request:?}: {refusal}"));
                }
            }
            Verdict::Refused(
                refusal @ (Refusal::NotANumber { .. }
                | Refusal::BadName { .. }
                | Refusal::TooLarge { .. }),
            ) => {
                self.check.broken(Rule::Refused, format!("{request:?}: {refusal}"));
            }
            Verdict::Refused(Refusal::Busy(_)) | Verdict::Conflict | Verdict::Superseded => {}
        }
    }

    /// Whoever the sync record names has what is acknowledged.
    fn check_members(&mut self, master: usize, name: (u64, u64)) {
        let (host, other) = (1 - master, &self.hosts[1 - master]);
        let named = self.coordinator.sync.members.contains(&(host, other.boot));
        if named && other.up && !self.plan.ack_local && !holds(other.disk.history(), name) {
            let (epoch, number) = name;
            let what = format!(
                "record {number} of epoch {epoch} was acknowledged, the sync record names {}, which \
                 does not have it",
                NAMES[host]
            );
            self.check.broken(Rule::Members, what);
        }
    }

    fn check_reply(&mut self, key: (SessionKey, u64), reply: &Reply, name: (u64, u64)) {
        let first = self.check.replied.entry(key).or_insert_with(|| (reply.clone(), name));
        if first.1 != name {
            // What was answered first is gone with its power: it was done anew.
            *first = (reply.clone(), name);
        } else if first.0 != *reply {
            let what = format!("request {} was answered {:?} and {reply:?}", key.1, first.0);
            self.check.broken(Rule::Reply, what);
        }
    }

    /// A client reads a row at a master that may act.
    pub(super) fn check_read(&mut self, host: usize, table: &str, key: &[u8]) -> u64 {
        let slot = &self.hosts[host];
        let store = &slot.process.as_ref().expect("it serves").store;
        let history = slot.disk.history();
        if let Some((_, (number, _))) = self.check.must.last_key_value()
            && store.applied() < *number
        {
            let what = format!(
                "{} shows record {}, and {number} was acknowledged",
                NAMES[host],
                store.applied()
            );
            self.check.broken(Rule::Stale, what);
        }
        let version = store.get(table, key).map_or(0, |row| row.version);
        if version > 0 {
            let epoch = epoch_of(history, version);
            self.check.must_keep(epoch, version, Rule::Vanished);
        }
        version
    }

    // --- flipped rows

    pub(super) fn check_mismatch(&mut self, host: usize) {
        let process = self.hosts[host].process.as_mut().expect("it tells");
        match &mut process.flip {
            Some(flip) => {
                self.outcome.flips.1 += u64::from(!flip.told);
                flip.told = true;
                self.forgive();
            }
            None => {
                let what =
                    format!("{} tells of a difference, and nothing was flipped", NAMES[host]);
                self.check.broken(Rule::Told, what);
            }
        }
    }

    /// A row was flipped on a standby that streams: it is to be told soon.
    pub(super) fn expect_flip_told(&mut self, host: usize) -> u64 {
        self.check.flips += 1;
        let (number, undisturbed) = (self.check.flips, self.storm.strikes());
        self.after(FLIP_WITHIN, Event::FlipDue { host, number, undisturbed });
        number
    }

    pub(super) fn handle_flip_due(&mut self, host: usize, number: u64, undisturbed: u32) {
        let Some(process) = &self.hosts[host].process else { return };
        let Some(flip) = &process.flip else { return };
        let hears = process
            .dialled
            .and_then(|connection| self.connections.get(&connection))
            .is_some_and(|made| !made.pipes[1 - host].dead && made.open == [true; 2]);
        let hears = hears && process.dialled == Some(flip.connection);
        let told = flip.told || flip.number != number || !process.is_flipped();
        if !told && hears && self.storm.strikes() == undisturbed {
            let what = format!("a row of {} differs and nobody says so", NAMES[host]);
            self.check.broken(Rule::Told, what);
        }
    }

    // --- the end

    pub(super) fn check_end(&mut self, master: usize) {
        let histories = [self.hosts[0].disk.history(), self.hosts[1].disk.history()];
        if histories[0] != histories[1] {
            let what = format!("the histories differ: {histories:?}");
            return self.check.broken(Rule::Equal, what);
        }
        let history = histories[master].clone();
        let store = match self.rebuild(&history) {
            Ok(store) => store,
            Err((rule, what)) => return self.check.broken(rule, what),
        };
        for (host, name) in self.hosts.iter().zip(NAMES) {
            let process = host.process.as_ref().expect("both run in the end");
            if let Some(what) = difference(&process.store, &store) {
                let what = format!("{name} differs from its log: {what}");
                return self.check.broken(Rule::Equal, what);
            }
            let (_, recovered) = host.disk.recover();
            if let Some(what) = difference(&recovered, &store) {
                let what = format!("the disk of {name} differs from its log: {what}");
                return self.check.broken(Rule::Equal, what);
            }
        }
    }

    /// The whole log of this history, applied; and what its requests should have come to.
    fn rebuild(&self, history: &History) -> Result<Store, (Rule, String)> {
        let mut store = Store::default();
        let mut sums: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for number in 1..=history.head() {
            let name = (epoch_of(history, number), number);
            let Some(entry) = self.check.archive.get(&name) else {
                return Err((Rule::Gap, format!("nobody ever wrote record {name:?}")));
            };
            store.apply(&entry.record);
            let Body::Changes { numbered: Some(numbered), changes, reply } = &entry.record.body
            else {
                continue;
            };
            let key = (numbered.session, numbered.number);
            let added = self.check.asked.get(&key).into_iter().flatten();
            for operation in added {
                let Operation::Add { key, by, .. } = operation else { continue };
                let sum = sums.entry(key.to_vec()).or_default();
                *sum += by;
                let right = changes.iter().any(|change| is_sum(change, key, *sum));
                let replied = reply.as_ref().is_none_or(|reply| says_sum(reply, *sum));
                if !right || !replied {
                    let what = format!("record {number} should bring the sum to {sum}: {entry:?}");
                    return Err((Rule::Twice, what));
                }
            }
        }
        Ok(store)
    }
}

fn is_sum(change: &Change, of: &[u8], sum: i64) -> bool {
    match change {
        Change::Put { table, key, value } => {
            **table == *COUNTERS && **key == *of && **value == *sum.to_string().as_bytes()
        }
        Change::Delete { .. } => false,
    }
}

fn says_sum(reply: &Reply, sum: i64) -> bool {
    match reply {
        Reply::Results(results) => results.contains(&OperationResult::Added { value: sum }),
        Reply::Fixed(_) => false,
    }
}

fn difference(one: &Store, other: &Store) -> Option<String> {
    let digests = |store: &Store| -> Vec<(Arc<str>, u128)> {
        store.digests().map(|(name, digest)| (name.clone(), digest.0)).collect()
    };
    if digests(one) != digests(other) {
        return Some("its tables".to_owned());
    }
    let windows = |store: &Store| -> Vec<(SessionKey, Window)> {
        let all = store.windows(SessionKey([0; 16]));
        all.map(|(session, window)| (*session, window.clone())).collect()
    };
    if windows(one) != windows(other) {
        return Some("its windows".to_owned());
    }
    (one.applied() != other.applied()).then(|| "how far it is applied".to_owned())
}
