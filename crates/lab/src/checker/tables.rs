//! Judges what clients were told by the tables: nothing lost, doubled, stale, or shown and then gone.
//!
//! Each row is used in one of two ways, so that its history can be judged by counting instead of by
//! search. Both give each state of the row a *level*, and levels only rise:
//!
//! * a **counter** only grows by one, by anybody: its level is its value. Each level is one addition's,
//!   so the answers to n additions are a permutation of 1 to n;
//! * a **register** is put by one client, one put after the other, each with another value: its level is
//!   the place of that value in the order of the puts, 0 before the first.
//!
//! | broken promise | how it shows |
//! |---|---|
//! | lost | at the end a row is below an acknowledged level; two additions were told the same sum |
//! | doubled | a sum that no addition explains; a copy of a request that got another answer |
//! | stale | a look that began after a level had been acknowledged shows a lower one |
//! | unseen | a look showed a level or version that was not acknowledged, and a later one no longer does |
//! | sessions | a session that had to log in again |
//!
//! A call whose end nobody knows may have been done or not, at any later time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Outcome, Report, Request, Requests};

mod row;

/// What a request asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A session, once for each client.
    Login,
    /// That the session goes on.
    Heartbeat,
    /// A counter grows by one.
    Add {
        /// The counter.
        row: String,
    },
    /// A register becomes this value, which nobody puts twice.
    Put {
        /// The register.
        row: String,
        /// The value.
        value: String,
    },
    /// The same if the register still has the version of the put before; 0: if it is not there.
    CompareAndPut {
        /// The register.
        row: String,
        /// The value.
        value: String,
        /// The version.
        version: u64,
    },
    /// A look at a row.
    Get {
        /// The row.
        row: String,
        /// Whether it was the last look, after everything else had ended.
        #[serde(default)]
        at_end: bool,
    },
}

/// What a request was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Answer {
    /// The value seen, or the sum after an addition; absent where there is no such row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The version seen or made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Whether a comparison held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<bool>,
}

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An acknowledged change is gone.
    Lost,
    /// A change was made twice.
    Doubled,
    /// Somebody was shown the past.
    Stale,
    /// Somebody was shown what never came to stay.
    Unseen,
    /// A session did not survive.
    Sessions,
}

/// What the calls of tables showed, in numbers; each broken promise is told among the report's
/// violations, as many as are of use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tables {
    /// Rows that were used.
    pub rows: u64,
    /// Changes whose success a client knows.
    pub acknowledged: u64,
    /// Changes whose end nobody knows.
    pub unknown: u64,
    /// Looks at rows.
    pub looks: u64,
    /// Answers to copies that were compared.
    pub copies: u64,
    /// [`Kind::Lost`].
    pub lost: u64,
    /// [`Kind::Doubled`].
    pub doubled: u64,
    /// [`Kind::Stale`].
    pub stale: u64,
    /// [`Kind::Unseen`].
    pub unseen: u64,
    /// [`Kind::Sessions`].
    pub sessions: u64,
}

impl Tables {
    /// How often this promise was found broken.
    #[must_use]
    pub fn broken(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Lost => self.lost,
            Kind::Doubled => self.doubled,
            Kind::Stale => self.stale,
            Kind::Unseen => self.unseen,
            Kind::Sessions => self.sessions,
        }
    }

    fn broken_mut(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Lost => &mut self.lost,
            Kind::Doubled => &mut self.doubled,
            Kind::Stale => &mut self.stale,
            Kind::Unseen => &mut self.unseen,
            Kind::Sessions => &mut self.sessions,
        }
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, acknowledged, unknown, looks, copies, .. } = self;
        write!(
            out,
            "{rows} rows, {acknowledged} changes acknowledged, {unknown} unknown, {looks} looks, {copies} copies; "
        )?;
        let Self { lost, doubled, stale, unseen, sessions, .. } = self;
        write!(
            out,
            "lost {lost}, doubled {doubled}, stale {stale}, unseen {unseen}, sessions {sessions}"
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Stale => "stale",
            Self::Unseen => "unseen",
            Self::Sessions => "sessions",
        })
    }
}

impl Operation {
    /// The row it is about.
    #[must_use]
    pub fn row(&self) -> Option<&str> {
        match self {
            Self::Login | Self::Heartbeat => None,
            Self::Add { row }
            | Self::Put { row, .. }
            | Self::CompareAndPut { row, .. }
            | Self::Get { row, .. } => Some(row),
        }
    }

    /// Whether it changes a row.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::Login | Self::Heartbeat | Self::Get { .. } => false,
            Self::Add { .. } | Self::Put { .. } | Self::CompareAndPut { .. } => true,
        }
    }
}

/// Counts what is broken, and tells the first of each kind with the requests that show it.
struct Findings<'a> {
    report: &'a mut Report,
}

impl Findings<'_> {
    fn broken(&mut self, kind: Kind, sentence: &str, evidence: &[&Request]) {
        let count = self.report.tables.broken_mut(kind);
        *count += 1;
        if *count > TOLD_MAX {
            return;
        }
        let mut told = format!("{kind}: {sentence}");
        for request in evidence {
            let line = serde_json::to_string(request).expect("a request is JSON");
            told.push_str("\n    ");
            told.push_str(&line);
        }
        self.report.violate(told);
    }

    /// The history cannot be judged: whoever wrote it did not keep to the rules above.
    fn useless(&mut self, sentence: String) {
        self.report.violate(sentence);
    }
}

/// Judges everything that clients asked of the tables.
pub(super) fn check_tables(requests: &Requests, report: &mut Report) {
    let mut findings = Findings { report };
    let groups = by_request(requests);
    let mut rows: BTreeMap<&str, row::Row> = BTreeMap::new();
    for group in &groups {
        check_copies(group, &mut findings);
        let Some(operation) = &group.request.operation else { continue };
        let tables = &mut findings.report.tables;
        if operation.changes() {
            match group.request.outcome {
                Some(Outcome::Ok) => tables.acknowledged += 1,
                Some(Outcome::Fail) => {}
                Some(Outcome::Unknown) | None => tables.unknown += 1,
            }
        } else if operation.row().is_some() {
            tables.looks += 1;
        }
        if let Some(name) = operation.row() {
            rows.entry(name).or_default().insert(&group.request);
        }
    }
    check_sessions(&groups, &mut findings);
    findings.report.tables.rows = rows.len() as u64;
    for (name, row) in &rows {
        row.check(name, &mut findings);
    }
}

/// One request with its copies.
struct Group<'a> {
    /// As one that was sent when the first of them was sent, and ended as the first that was told.
    request: Request,
    answered: Vec<&'a Request>,
}

fn by_request(requests: &Requests) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for request in requests.values() {
        let done = request.outcome == Some(Outcome::Ok);
        let answered: Vec<&Request> = done.then_some(request).into_iter().collect();
        match groups.last_mut() {
            // Copies follow their request in the order of the keys.
            Some(group) if request.copy > 0 && same_request(&group.request, request) => {
                let at_ns = group.request.at_ns.min(request.at_ns);
                if group.answered.is_empty() && done {
                    group.request = request.clone();
                }
                group.request.at_ns = at_ns;
                group.answered.extend(answered);
            }
            Some(_) | None => groups.push(Group { request: request.clone(), answered }),
        }
    }
    groups
}

fn same_request(one: &Request, other: &Request) -> bool {
    one.client == other.client && one.request == other.request
}

fn check_copies(group: &Group, findings: &mut Findings) {
    let Some((first, others)) = group.answered.split_first() else { return };
    for other in others {
        findings.report.tables.copies += 1;
        if first.answer != other.answer {
            let sentence = "one request got two different answers, so it was done twice";
            findings.broken(Kind::Doubled, sentence, &[first, other]);
        }
    }
}

fn check_sessions(groups: &[Group], findings: &mut Findings) {
    let mut logged_in: BTreeSet<&str> = BTreeSet::new();
    for group in groups {
        let request = &group.request;
        let client = request.client.as_str();
        let done = request.outcome == Some(Outcome::Ok);
        if request.operation == Some(Operation::Login) && done && !logged_in.insert(client) {
            let sentence = format!("{client} had to log in again");
            findings.broken(Kind::Sessions, &sentence, &[request]);
        }
        if request.operation.is_none() {
            continue;
        }
        match request.error_no {
            // Whoever asks for more than a login has had one.
            Some(SESSION_UNKNOWN) if request.operation != Some(Operation::Login) => {
                let sentence = format!("the session of {client} is unknown, and it never ended");
                findings.broken(Kind::Sessions, &sentence, &[request]);
            }
            Some(TOO_OLD) => {
                let sentence = "the answer is gone although nobody has had it";
                findings.broken(Kind::Lost, sentence, &[request]);
            }
            Some(_) | None => {}
        }
    }
}

/// Of each kind.
const TOLD_MAX: u64 = 5;
const SESSION_UNKNOWN: i64 = 308_000_001;
const TOO_OLD: i64 = 308_000_007;

#[cfg(test)]
mod tests;
