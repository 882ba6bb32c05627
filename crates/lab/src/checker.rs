//! Judges a history from outside: what clients saw, against when the nodes' gates were open.
//!
//! Three logs, each of JSON lines, all times in nanoseconds of CLOCK_BOOTTIME of one machine (the one
//! clock that all processes here share and that goes on during a suspend):
//!
//! | log | line |
//! |---|---|
//! | requests | `{"at_ns","done_ns","request","node","epoch","error_no","outcome":"ok"\|"fail"\|"unknown"}`, and `"client"` where there are several; `"sent_ns"`, `"copy"`, `"operation"` and `"answer"` where the tables are called ([`tables`]) |
//! | gates | `{"node","epoch","open_ns","close_ns"}`, written by each node from inside its gate, with `"until_ns"` where it is bound to a lease |
//! | faults | `{"name","at_ns","until_ns"}`, and `"ended"`: the node whose process the fault ended, with `"gone_ns"`: when it was seen to be gone |
//!
//! A client may write a line without an outcome when it sends and the whole line when it is answered,
//! or the whole line only; numbers count up by one for each client, so a hole is a lost request too.
//! A node may write its interval when the gate opens (no `close_ns`), when its lease is extended, and
//! when it closes. One that was killed never wrote the end: its interval lasts until the fault that
//! ended it or the end of its last lease, or for ever if the logs tell of neither, which makes any later interval of the other node an overlap. That is on
//! purpose: the checker must not be talked into believing what nobody saw.
//!
//! Everything here is O(n log n) and cannot time out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub mod tables;

use tables::{Answer, Operation, Tables};

/// One request of one client.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Request {
    /// When it was sent.
    pub at_ns: i64,
    /// When the client had its answer or gave up; absent while it waits.
    #[serde(default)]
    pub done_ns: Option<i64>,
    /// Its number, counting up by one for each client.
    pub request: u64,
    /// Who sent it.
    #[serde(default)]
    pub client: String,
    /// Who answered.
    #[serde(default)]
    pub node: Option<String>,
    /// In which epoch.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// With which number.
    #[serde(default)]
    pub error_no: Option<i64>,
    /// What became of it; absent while it waits.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// When the attempt that was answered was sent; absent where it was the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_ns: Option<i64>,
    /// 0: the request; above: the same one sent once more on purpose, on a connection of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copy: u32,
    /// What it asked of the tables, if that is what it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// What it was told by the tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(copy: &u32) -> bool {
    *copy == 0
}

impl Request {
    /// When the attempt that was answered was sent.
    #[must_use]
    pub fn last_sent_ns(&self) -> i64 {
        self.sent_ns.unwrap_or(self.at_ns)
    }
}

/// What became of a request, as far as its client can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Done, and the client knows.
    Ok,
    /// Not done, and the client knows.
    Fail,
    /// The client gave up without knowing.
    Unknown,
}

/// A time during which a node's gate was open for one epoch.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Gate {
    /// Whose gate.
    pub node: String,
    /// For which epoch.
    pub epoch: u64,
    /// When it opened.
    pub open_ns: i64,
    /// The end of the lease it was open for: past it nothing passes, whoever is awake to close it.
    #[serde(default)]
    pub until_ns: Option<i64>,
    /// When it closed; absent when the node did not live to say so.
    #[serde(default)]
    pub close_ns: Option<i64>,
}

/// Something that was done to the pair on purpose.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What to call it in the report.
    pub name: String,
    /// When it began.
    pub at_ns: i64,
    /// When its effect was to be over; the gap is looked for in between.
    pub until_ns: i64,
    /// The node whose process it ended (not: froze), if any.
    #[serde(default)]
    pub ended: Option<String>,
    /// When that process was seen to be gone; from `at_ns` until then it may have answered.
    #[serde(default)]
    pub gone_ns: Option<i64>,
}

/// All that is known of a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In any order.
    pub requests: Vec<Request>,
    /// In any order.
    pub gates: Vec<Gate>,
    /// In any order.
    pub faults: Vec<Fault>,
}

/// How much must have happened for a good history to prove anything.
#[derive(Debug, Clone, Default)]
pub struct Enough {
    /// The names of the faults that were planned: each must be among the history's faults.
    pub planned: Vec<String>,
    /// Requests answered with success.
    pub acknowledged_min: u64,
    /// Different epochs seen at gates or in answers.
    pub epochs_min: usize,
}

/// What the checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many requests there were, holes not counted.
    pub requests: u64,
    /// Answered with success.
    pub ok: u64,
    /// Answered with a refusal or failure.
    pub failed: u64,
    /// Given up by the client.
    pub unknown: u64,
    /// Sent and never heard of again, or missing from the log.
    pub lost: u64,
    /// How long gates of different nodes were open together, in all.
    pub overlap_ns: i64,
    /// The longest time between two successes around each fault.
    pub gaps: Vec<Gap>,
    /// What the calls of tables showed.
    pub tables: Tables,
    /// Each broken rule, as a sentence. Empty: the history is good.
    pub violations: Vec<String>,
}

/// The longest silence that clients met in a fault's window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The fault's name.
    pub fault: String,
    /// From one success to the next; `None` when no success was seen after the fault.
    pub gap_ns: Option<i64>,
    /// The epochs of the successes before and after the fault's window.
    pub epochs: (Option<u64>, Option<u64>),
}

impl Report {
    /// Whether no rule was broken.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    fn violate(&mut self, sentence: String) {
        self.violations.push(sentence);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, ok, failed, unknown, lost, .. } = self;
        writeln!(
            out,
            "requests {requests}: ok {ok}, failed {failed}, unknown {unknown}, lost {lost}"
        )?;
        writeln!(out, "two gates open together: {} ns", self.overlap_ns)?;
        if self.tables != Tables::default() {
            writeln!(out, "tables: {}", self.tables)?;
        }
        for Gap { fault, gap_ns, epochs: (before, after) } in &self.gaps {
            let epoch = |epoch: &Option<u64>| epoch.map_or("?".to_owned(), |e| e.to_string());
            let (before, after) = (epoch(before), epoch(after));
            match gap_ns {
                Some(ns) => {
                    let (whole, rest) = (ns / 1_000_000, ns % 1_000_000 / 100_000);
                    writeln!(out, "{fault}: gap {whole}.{rest} ms, epoch {before} -> {after}")?;
                }
                None => writeln!(out, "{fault}: no success afterwards, epoch {before} -> {after}")?,
            }
        }
        for violation in &self.violations {
            writeln!(out, "BROKEN: {violation}")?;
        }
        write!(out, "{}", if self.is_good() { "good" } else { "bad" })
    }
}

/// Reads a log of JSON lines. Half a last line is left out: its writer was killed while it wrote.
pub fn read_log<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut entries = Vec::new();
    let mut lines = text.lines().zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            Err(error) if lines.peek().is_none() && error.is_eof() => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{}, line {number}: {line}", path.display()));
            }
        }
    }
    Ok(entries)
}

/// Judges the history, however little happened in it.
#[must_use]
pub fn check(history: &History) -> Report {
    check_run(history, &Enough::default())
}

/// Judges the history of a run in which so much was to happen.
#[must_use]
pub fn check_run(history: &History, enough: &Enough) -> Report {
    let mut report = Report::default();
    let requests = merge_requests(&history.requests, &mut report);
    let gates = merge_gates(&history.gates, &history.faults, &mut report);
    if requests.is_empty() {
        report.violate("the history has no requests, so it proves nothing".to_owned());
    }
    count(&requests, &mut report);
    check_codes(&requests, &mut report);
    check_epoch_order(&requests, &mut report);
    check_overlap(&gates, &mut report);
    check_one_node_an_epoch(&requests, &gates, &mut report);
    if !gates.is_empty() {
        check_answers_inside_gates(&requests, &gates, &mut report);
    }
    measure_gaps(&requests, &history.faults, &mut report);
    tables::check_tables(&requests, &mut report);
    check_enough(history, enough, &mut report);
    report
}

/// By client, number and copy.
type Requests = BTreeMap<(String, u64, u32), Request>;

/// One entry for each request: the line with an outcome replaces the line without.
fn merge_requests(lines: &[Request], report: &mut Report) -> Requests {
    let mut merged = Requests::new();
    for line in lines {
        let key = (line.client.clone(), line.request, line.copy);
        match merged.get_mut(&key) {
            Some(known) if known.outcome.is_some() && line.outcome.is_some() => {
                report.violate(format!("{} has two outcomes", said(line)));
            }
            Some(known) => {
                // It may have been sent by somebody who did not wait, and again by one who did.
                let at_ns = known.at_ns.min(line.at_ns);
                if known.outcome.is_none() {
                    known.clone_from(line);
                }
                known.at_ns = at_ns;
            }
            None => {
                merged.insert(key, line.clone());
            }
        }
    }
    merged
}

/// A gate's interval with its end decided: the earliest known; `close_ns` is `i64::MAX` where nobody knows of one.
#[derive(Debug, Clone)]
struct Interval {
    node: String,
    epoch: u64,
    open_ns: i64,
    close_ns: i64,
    /// Later than `close_ns` only where the end was a kill: answers may have left until it was done.
    answers_until_ns: i64,
}

/// What the lines of one gate tell of its end.
#[derive(Debug, Default)]
struct Ends {
    close_ns: Option<i64>,
    until_ns: Option<i64>,
}

fn merge_gates(lines: &[Gate], faults: &[Fault], report: &mut Report) -> Vec<Interval> {
    let mut merged: BTreeMap<(&str, u64, i64), Ends> = BTreeMap::new();
    for line in lines {
        let ends = merged.entry((&line.node, line.epoch, line.open_ns)).or_default();
        ends.close_ns = ends.close_ns.or(line.close_ns);
        ends.until_ns = ends.until_ns.max(line.until_ns);
    }
    let mut intervals = Vec::new();
    for ((node, epoch, open_ns), Ends { close_ns, until_ns }) in merged {
        let killed = faults
            .iter()
            .filter(|fault| fault.ended.as_deref() == Some(node) && fault.at_ns >= open_ns)
            .min_by_key(|fault| fault.at_ns);
        let end = |killed_ns: Option<i64>| {
            let ends = [close_ns.or(killed_ns), until_ns];
            ends.into_iter().flatten().min().unwrap_or(i64::MAX)
        };
        let answers_until_ns = end(killed.map(|fault| fault.gone_ns.unwrap_or(fault.at_ns)));
        let close_ns = end(killed.map(|fault| fault.at_ns));
        if close_ns < open_ns {
            report.violate(format!("the gate of {node} in epoch {epoch} closed before it opened"));
        }
        let node = node.to_owned();
        intervals.push(Interval { node, epoch, open_ns, close_ns, answers_until_ns });
    }
    intervals.sort_by_key(|interval| interval.open_ns);
    intervals
}

fn count(requests: &Requests, report: &mut Report) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for ((client, number, copy), request) in requests {
        if *copy > 0 {
            continue; // the request itself is counted
        }
        report.requests += 1;
        match (request.outcome, request.done_ns) {
            (Some(Outcome::Ok), Some(_)) => report.ok += 1,
            (Some(Outcome::Fail), Some(_)) => report.failed += 1,
            (Some(Outcome::Unknown), _) => report.unknown += 1,
            (Some(Outcome::Ok | Outcome::Fail) | None, _) => {
                report.lost += 1;
                report.violate(format!("{} never got an answer", said(request)));
            }
        }
        if let Some(before) = last.insert(client, *number)
            && *number > before + 1
        {
            report.lost += number - before - 1;
            report.violate(format!(
                "client {client:?}: requests {} to {} are missing from the log",
                before + 1,
                number - 1
            ));
        }
    }
}

fn check_codes(requests: &Requests, report: &mut Report) {
    for request in requests.values() {
        match (request.outcome, request.error_no) {
            (Some(Outcome::Ok), Some(0)) | (Some(Outcome::Unknown) | None, _) => {}
            (Some(Outcome::Ok), other) => {
                report.violate(format!("{} is said to be done with {other:?}", said(request)));
            }
            (Some(Outcome::Fail), Some(code)) if DOCUMENTED_CODES.contains(&code) => {}
            // A refused connection has no number: documented as nobody being there.
            (Some(Outcome::Fail), None) if request.node.is_none() => {}
            (Some(Outcome::Fail), other) => {
                report.violate(format!("{} failed with undocumented {other:?}", said(request)));
            }
        }
    }
}

/// Once a success of an epoch was seen, no request sent afterwards succeeds in an earlier one.
fn check_epoch_order(requests: &Requests, report: &mut Report) {
    let mut by_end: Vec<(i64, u64, &Request)> = successes(requests).collect();
    let mut by_start = by_end.clone();
    by_end.sort_by_key(|(done_ns, ..)| *done_ns);
    by_start.sort_by_key(|(.., request)| request.last_sent_ns());
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<(u64, &Request)> = None;
    for (_, epoch, request) in by_start {
        while let Some((_, seen, by)) =
            ended.next_if(|(done_ns, ..)| *done_ns < request.last_sent_ns())
        {
            if highest.is_none_or(|(epoch, _)| seen > epoch) {
                highest = Some((seen, by));
            }
        }
        if let Some((seen, by)) = highest
            && epoch < seen
        {
            report.violate(format!(
                "the epoch went back: {} was sent after {} had been answered",
                said(request),
                said(by)
            ));
        }
    }
}

fn check_overlap(intervals: &[Interval], report: &mut Report) {
    // Sorted by opening: whoever opened before and is still open overlaps. Few are open at a time.
    let mut open: Vec<&Interval> = Vec::new();
    for interval in intervals {
        open.retain(|earlier| earlier.close_ns > interval.open_ns);
        for earlier in open.iter().filter(|earlier| earlier.node != interval.node) {
            let until_ns = earlier.close_ns.min(interval.close_ns);
            let overlap_ns = until_ns.saturating_sub(interval.open_ns);
            report.overlap_ns = report.overlap_ns.saturating_add(overlap_ns);
            let how_long = match until_ns {
                i64::MAX => "without a known end".to_owned(),
                _ => format!("for {overlap_ns} ns"),
            };
            report.violate(format!(
                "the gates of {} (epoch {}) and {} (epoch {}) were open together {how_long}",
                earlier.node, earlier.epoch, interval.node, interval.epoch
            ));
        }
        open.push(interval);
    }
}

fn check_one_node_an_epoch(requests: &Requests, intervals: &[Interval], report: &mut Report) {
    let mut nodes: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for interval in intervals {
        nodes.entry(interval.epoch).or_default().insert(&interval.node);
    }
    for (_, epoch, request) in successes(requests) {
        nodes.entry(epoch).or_default().extend(request.node.as_deref());
    }
    for (epoch, nodes) in nodes.into_iter().filter(|(_, nodes)| nodes.len() > 1) {
        report.violate(format!("epoch {epoch} was served by more than one node: {nodes:?}"));
    }
}

/// A success must have had a moment, between sending and answer, in which its gate was open.
fn check_answers_inside_gates(requests: &Requests, intervals: &[Interval], report: &mut Report) {
    let mut gates: BTreeMap<u64, Vec<&Interval>> = BTreeMap::new();
    for interval in intervals {
        gates.entry(interval.epoch).or_default().push(interval);
    }
    for (done_ns, epoch, request) in successes(requests) {
        let open = gates.get(&epoch).is_some_and(|gates| {
            let sent_ns = request.last_sent_ns();
            gates.iter().any(|gate| {
                // Behind a router the epoch alone says who it was.
                request.node.as_ref().is_none_or(|node| gate.node == *node)
                    && gate.open_ns <= done_ns
                    && gate.answers_until_ns >= sent_ns
            })
        });
        if !open {
            report.violate(format!("{} was answered while that gate was closed", said(request)));
        }
    }
}

fn measure_gaps(requests: &Requests, faults: &[Fault], report: &mut Report) {
    let mut answers: Vec<(i64, u64)> =
        successes(requests).map(|(done_ns, epoch, _)| (done_ns, epoch)).collect();
    answers.sort_unstable();
    let mut faults: Vec<&Fault> = faults.iter().collect();
    faults.sort_by_key(|fault| fault.at_ns);
    for fault in faults {
        // From the last success before the fault to the first one after its window.
        let first = answers.partition_point(|(ns, _)| *ns < fault.at_ns).saturating_sub(1);
        let end = answers.partition_point(|(ns, _)| *ns <= fault.until_ns);
        let window = &answers[first..answers.len().min(end + 1)];
        let recovered = window.last().is_some_and(|(ns, _)| *ns >= fault.at_ns);
        let gap_ns = window.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
        report.gaps.push(Gap {
            fault: fault.name.clone(),
            gap_ns: gap_ns.filter(|_| recovered),
            epochs: (window.first().map(|a| a.1), window.last().map(|a| a.1)),
        });
        if !recovered {
            report.violate(format!("no request succeeded after the fault {:?}", fault.name));
        }
    }
}

fn check_enough(history: &History, enough: &Enough, report: &mut Report) {
    let done = |name: &String| history.faults.iter().any(|fault| fault.name == *name);
    for name in enough.planned.iter().filter(|name| !done(name)) {
        report.violate(format!("the planned fault {name:?} did not happen"));
    }
    let acknowledged_min = enough.acknowledged_min;
    if report.ok < acknowledged_min {
        report.violate(format!(
            "only {} requests were done, {acknowledged_min} were wanted: it proves too little",
            report.ok
        ));
    }
    let answered = history.requests.iter().filter(|request| request.outcome == Some(Outcome::Ok));
    let epochs: BTreeSet<u64> = history.gates.iter().map(|gate| gate.epoch).collect();
    let epochs: BTreeSet<u64> =
        answered.filter_map(|request| request.epoch).chain(epochs).collect();
    if epochs.len() < enough.epochs_min {
        report.violate(format!(
            "only the epochs {epochs:?} were seen, {} were wanted: it proves too little",
            enough.epochs_min
        ));
    }
}

/// End, epoch and request of each success that tells both.
fn successes(requests: &Requests) -> impl Iterator<Item = (i64, u64, &Request)> {
    requests
        .values()
        .filter(|request| request.outcome == Some(Outcome::Ok))
        .filter_map(|request| Some((request.done_ns?, request.epoch?, request)))
}

fn said(request: &Request) -> String {
    let client = match request.client.as_str() {
        "" => String::new(),
        name => format!(" of {name}"),
    };
    let by = match (&request.node, request.epoch) {
        (Some(node), Some(epoch)) => format!(" ({node}, epoch {epoch})"),
        (Some(node), None) => format!(" ({node})"),
        (None, Some(epoch)) => format!(" (epoch {epoch})"),
        (None, None) => String::new(),
    };
    format!("request {}{client}{by}", request.request)
}

/// The numbers that the client API documents as answers other than success.
pub(crate) const DOCUMENTED_CODES: std::ops::RangeInclusive<i64> = 308_000_000..=308_000_013;

#[cfg(test)]
mod tests;
