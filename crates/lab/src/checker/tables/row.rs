//! One row's history: what was asked of it and what it showed, judged by levels.

use std::collections::BTreeMap;

use super::{Findings, Kind, Operation};
use crate::checker::{Outcome, Request};

/// Everything that was asked of one row.
#[derive(Default)]
pub(super) struct Row<'a> {
    adds: Vec<&'a Request>,
    puts: Vec<&'a Request>,
    looks: Vec<&'a Request>,
    last_looks: Vec<&'a Request>,
}

/// At some time between sending and answer the row had this level.
#[derive(Clone, Copy)]
struct Sight<'a> {
    level: u64,
    request: &'a Request,
    /// Whether the level was made by this request, and acknowledged with its answer.
    made: bool,
    at_end: bool,
}

impl<'a> Row<'a> {
    pub(super) fn insert(&mut self, request: &'a Request) {
        match &request.operation {
            Some(Operation::Add { .. }) => self.adds.push(request),
            Some(Operation::Put { .. } | Operation::CompareAndPut { .. }) => {
                self.puts.push(request);
            }
            Some(Operation::Get { at_end: false, .. }) => self.looks.push(request),
            Some(Operation::Get { at_end: true, .. }) => self.last_looks.push(request),
            Some(Operation::Login | Operation::Heartbeat) | None => {}
        }
    }

    pub(super) fn check(&self, name: &str, findings: &mut Findings) {
        if !self.adds.is_empty() && !self.puts.is_empty() {
            findings
                .useless(format!("row {name} is a counter and a register, so nothing is known"));
            return;
        }
        let changes = [&self.adds[..], &self.puts[..]].concat();
        let acknowledged = changes.iter().any(|change| is_done(change));
        if acknowledged && !self.last_looks.iter().any(|look| is_done(look)) {
            findings
                .useless(format!("row {name} was not looked at in the end, so nothing is known"));
        }
        let sights = if self.puts.is_empty() {
            self.counter(name, findings)
        } else {
            self.register(name, findings)
        };
        check_order(name, &sights, findings);
        check_versions(name, &sights, findings);
    }

    /// Each answered look, with whether it was the last.
    fn answered_looks(&self) -> impl Iterator<Item = (&'a Request, bool)> {
        let looks = self.looks.iter().map(|look| (*look, false));
        looks
            .chain(self.last_looks.iter().map(|look| (*look, true)))
            .filter(|(look, _)| is_done(look))
    }

    fn counter(&self, name: &str, findings: &mut Findings) -> Vec<Sight<'a>> {
        let mut sights = Vec::new();
        for add in self.adds.iter().filter(|add| is_done(add)) {
            match number(add) {
                Some(level) if level > 0 => {
                    sights.push(Sight { level, request: add, made: true, at_end: false });
                }
                Some(_) | None => {
                    let sentence = format!("an addition to {name} came to no sum");
                    findings.broken(Kind::Lost, &sentence, &[add]);
                }
            }
        }
        self.check_sums(name, &sights, findings);
        for (look, at_end) in self.answered_looks() {
            let Some(level) = number(look) else {
                let sentence = format!("{name} showed what nobody made of it");
                findings.broken(Kind::Unseen, &sentence, &[look]);
                continue;
            };
            let end_ns = look.done_ns.unwrap_or(i64::MAX);
            let begun =
                self.adds.iter().filter(|add| add.at_ns <= end_ns && !is_failed(add)).count();
            if level > begun as u64 {
                let sentence =
                    format!("{name} showed {level} when {begun} additions had been asked for");
                findings.broken(Kind::Doubled, &sentence, &[look]);
            }
            sights.push(Sight { level, request: look, made: false, at_end });
        }
        self.check_final_sum(name, findings);
        sights
    }

    /// The sums that were answered are different, and those between them are of unknown calls.
    fn check_sums(&self, name: &str, sums: &[Sight<'a>], findings: &mut Findings) {
        let mut by_level: BTreeMap<u64, &Request> = BTreeMap::new();
        for sum in sums {
            if let Some(other) = by_level.insert(sum.level, sum.request) {
                let level = sum.level;
                let sentence = format!("two additions made {level} of {name}: one of them is gone");
                findings.broken(Kind::Lost, &sentence, &[other, sum.request]);
            }
        }
        let highest = by_level.keys().next_back().copied().unwrap_or(0);
        let holes = highest - by_level.len() as u64;
        let unknown = self.adds.iter().filter(|add| is_unknown(add)).count() as u64;
        if holes > unknown {
            let missing: Vec<u64> = (1..highest)
                .filter(|level| !by_level.contains_key(level))
                .take(EXAMPLES_MAX)
                .collect();
            let evidence: Vec<&Request> = missing
                .iter()
                .filter_map(|level| by_level.range(level..).next().map(|(_, request)| *request))
                .take(2)
                .collect();
            let sentence = format!(
                "{name} reached {highest} by {} acknowledged and {unknown} unknown additions: nobody was told {missing:?}",
                by_level.len()
            );
            findings.broken(Kind::Doubled, &sentence, &evidence);
        }
    }

    fn check_final_sum(&self, name: &str, findings: &mut Findings) {
        let done = self.adds.iter().filter(|add| is_done(add)).count() as u64;
        let unknown = self.adds.iter().filter(|add| is_unknown(add)).count() as u64;
        for look in self.last_looks.iter().filter(|look| is_done(look)) {
            let Some(sum) = number(look) else { continue };
            if sum < done {
                let sentence =
                    format!("{name} ended at {sum}, and {done} additions were acknowledged");
                findings.broken(Kind::Lost, &sentence, &[look]);
            } else if sum > done + unknown {
                let sentence = format!(
                    "{name} ended at {sum} by {done} acknowledged and {unknown} unknown additions"
                );
                findings.broken(Kind::Doubled, &sentence, &[look]);
            }
        }
    }

    fn register(&self, name: &str, findings: &mut Findings) -> Vec<Sight<'a>> {
        let mut puts = self.puts.clone();
        puts.sort_by_key(|put| put.at_ns);
        for pair in puts.windows(2) {
            if pair[0].done_ns.is_some_and(|done_ns| done_ns > pair[1].at_ns) {
                findings.useless(format!("{name} was put twice at a time, so nothing is known"));
            }
        }
        let mut levels: BTreeMap<&str, u64> = BTreeMap::new();
        let mut sights = Vec::new();
        for (put, level) in puts.into_iter().zip(1..) {
            if levels.insert(put_value(put), level).is_some() {
                findings.useless(format!("{name} was put to one value twice, so nothing is known"));
            }
            if is_done(put) && comparison_held(name, put, findings) {
                sights.push(Sight { level, request: put, made: true, at_end: false });
            }
        }
        for (look, at_end) in self.answered_looks() {
            let value = look.answer.as_ref().and_then(|answer| answer.value.as_deref());
            match value.map_or(Some(0), |value| levels.get(value).copied()) {
                Some(level) => sights.push(Sight { level, request: look, made: false, at_end }),
                None => {
                    let sentence = format!("{name} showed what nobody had put");
                    findings.broken(Kind::Unseen, &sentence, &[look]);
                }
            }
        }
        sights
    }
}

/// The only one who puts compared with what it had put last: that holds, or somebody else put.
fn comparison_held(name: &str, put: &Request, findings: &mut Findings) -> bool {
    let Some(Operation::CompareAndPut { version: expected, .. }) = put.operation else {
        return true;
    };
    let answer = put.answer.as_ref();
    if answer.and_then(|answer| answer.done) != Some(false) {
        return true;
    }
    let found = answer.and_then(|answer| answer.version).unwrap_or(0);
    let kind = if found < expected { Kind::Lost } else { Kind::Doubled };
    let sentence = format!("{name} had version {expected} for its only writer, and then {found}");
    findings.broken(kind, &sentence, &[put]);
    false
}

/// Nobody sees less than what was seen or acknowledged before it began.
fn check_order(name: &str, sights: &[Sight], findings: &mut Findings) {
    let mut by_end: Vec<&Sight> =
        sights.iter().filter(|sight| sight.request.done_ns.is_some()).collect();
    by_end.sort_by_key(|sight| sight.request.done_ns);
    let mut by_start: Vec<&Sight> = sights.iter().collect();
    by_start.sort_by_key(|sight| start_ns(sight));
    let mut ended = by_end.into_iter().peekable();
    let (mut made, mut shown): (Option<&Sight>, Option<&Sight>) = (None, None);
    for sight in by_start {
        let start_ns = start_ns(sight);
        while let Some(before) = ended.next_if(|before| before.request.done_ns < Some(start_ns)) {
            let highest = if before.made { &mut made } else { &mut shown };
            if highest.is_none_or(|highest| before.level > highest.level) {
                *highest = Some(before);
            }
        }
        let lower =
            |before: Option<&Sight>| before.is_some_and(|before| sight.level < before.level);
        let (kind, before) = match (made, shown) {
            (Some(before), _) if lower(made) => {
                // A change that was made on an older state: the newer one is gone.
                let gone = sight.at_end || sight.made;
                (if gone { Kind::Lost } else { Kind::Stale }, before)
            }
            (_, Some(before)) if lower(shown) => (Kind::Unseen, before),
            _ => continue,
        };
        let (level, higher) = (sight.level, before.level);
        let sentence = format!("{name} was at {higher}, and later at {level}");
        findings.broken(kind, &sentence, &[before.request, sight.request]);
    }
}

/// When the level was looked for: a change may be done by any of its attempts, a look by the last.
fn start_ns(sight: &Sight) -> i64 {
    if sight.made { sight.request.at_ns } else { sight.request.last_sent_ns() }
}

/// One level has one version, and a higher level a higher one.
fn check_versions(name: &str, sights: &[Sight], findings: &mut Findings) {
    let mut versions: BTreeMap<u64, (u64, &Sight)> = BTreeMap::new();
    // Those who made a level first: their version is the one that stays.
    let (makers, lookers): (Vec<&Sight>, Vec<&Sight>) = sights.iter().partition(|sight| sight.made);
    for sight in makers.into_iter().chain(lookers) {
        let Some(version) = sight.request.answer.as_ref().and_then(|answer| answer.version) else {
            continue;
        };
        let (known, by) = *versions.entry(sight.level).or_insert((version, sight));
        if known != version {
            let after = by.request.done_ns < Some(start_ns(sight));
            // What was acknowledged with one version and has another one later was made once more.
            let kind = if by.made && after { Kind::Doubled } else { Kind::Unseen };
            let level = sight.level;
            let sentence =
                format!("level {level} of {name} had two versions, {known} and {version}");
            findings.broken(kind, &sentence, &[by.request, sight.request]);
        }
    }
    let mut before: Option<(u64, u64, &Sight)> = None;
    for (level, (version, sight)) in versions {
        if let Some((lower, earlier, by)) = before
            && version <= earlier
        {
            let sentence =
                format!("{name} had version {earlier} at level {lower} and {version} at {level}");
            findings.broken(Kind::Unseen, &sentence, &[by.request, sight.request]);
        }
        before = Some((level, version, sight));
    }
}

fn is_done(request: &Request) -> bool {
    request.outcome == Some(Outcome::Ok)
}

fn is_failed(request: &Request) -> bool {
    request.outcome == Some(Outcome::Fail)
}

fn is_unknown(request: &Request) -> bool {
    !is_done(request) && !is_failed(request)
}

/// The value as a number; no row at all counts as 0.
fn number(request: &Request) -> Option<u64> {
    match request.answer.as_ref()?.value.as_deref() {
        Some(value) => value.parse().ok(),
        None => Some(0),
    }
}

fn put_value(put: &Request) -> &str {
    match &put.operation {
        Some(Operation::Put { value, .. } | Operation::CompareAndPut { value, .. }) => value,
        Some(
            Operation::Login | Operation::Heartbeat | Operation::Add { .. } | Operation::Get { .. },
        )
        | None => unreachable!("only puts are kept among the puts"),
    }
}

const EXAMPLES_MAX: usize = 10;
