//! A good history passes; each planted violation is found and named.

use super::*;

const MS: i64 = 1_000_000;

/// A hundred requests, one every 20 ms: node a in epoch 1, killed at 1 s, node b in epoch 2.
fn good() -> History {
    let requests = (0..100).map(|number| {
        let at_ns = i64::try_from(number).unwrap() * 20 * MS;
        let (node, epoch) = if number < 50 { ("a", 1) } else { ("b", 2) };
        // The one that met the switch waited for the new master.
        let done_ns = if number == 50 { at_ns + 35 * MS } else { at_ns + MS };
        answered(number, at_ns, done_ns, node, epoch)
    });
    History {
        requests: requests.collect(),
        gates: vec![gate("a", 1, 0, None), gate("b", 2, 1_015 * MS, None)],
        faults: vec![Fault {
            name: "kill".to_owned(),
            at_ns: 990 * MS,
            until_ns: 1_500 * MS,
            ended: Some("a".to_owned()),
            gone_ns: None,
        }],
    }
}

fn answered(number: u64, at_ns: i64, done_ns: i64, node: &str, epoch: u64) -> Request {
    Request {
        at_ns,
        done_ns: Some(done_ns),
        request: number,
        node: Some(node.to_owned()),
        epoch: Some(epoch),
        error_no: Some(0),
        outcome: Some(Outcome::Ok),
        ..Request::default()
    }
}

fn gate(node: &str, epoch: u64, open_ns: i64, close_ns: Option<i64>) -> Gate {
    Gate { node: node.to_owned(), epoch, open_ns, until_ns: None, close_ns }
}

#[track_caller]
fn assert_found(history: &History, words: &str) -> Report {
    let report = check(history);
    assert!(
        report.violations.iter().any(|violation| violation.contains(words)),
        "{words:?} not in {:#?}",
        report.violations
    );
    report
}

#[test]
fn a_good_history_passes_with_its_numbers() {
    let report = check(&good());
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.requests, report.ok, report.lost, report.overlap_ns), (100, 100, 0, 0));
    let gap = &report.gaps[0];
    assert_eq!(gap.gap_ns, Some((1_021 - 981) * MS));
    assert_eq!(gap.epochs, (Some(1), Some(2)));
}

#[test]
fn a_request_without_an_answer_is_lost() {
    let mut history = good();
    history.requests[30].outcome = None;
    history.requests[30].done_ns = None;
    assert_eq!(assert_found(&history, "request 30 (a, epoch 1) never got").lost, 1);
}

#[test]
fn a_line_written_at_sending_is_completed_by_the_one_at_the_end() {
    let mut history = good();
    let mut sent = history.requests[30].clone();
    (sent.outcome, sent.done_ns) = (None, None);
    history.requests.insert(0, sent.clone());
    history.requests.push(sent);
    assert!(check(&history).is_good());
}

#[test]
fn a_hole_in_the_numbers_is_lost() {
    let mut history = good();
    history.requests.drain(40..43);
    assert_eq!(assert_found(&history, "requests 40 to 42 are missing").lost, 3);
}

#[test]
fn two_outcomes_of_one_request_are_found() {
    let mut history = good();
    history.requests.push(history.requests[7].clone());
    assert_found(&history, "request 7 (a, epoch 1) has two outcomes");
}

#[test]
fn an_answer_of_an_earlier_epoch_after_a_later_one_is_found() {
    let mut history = good();
    history.requests[80].node = Some("a".to_owned());
    history.requests[80].epoch = Some(1);
    assert_found(&history, "the epoch went back: request 80");
}

#[test]
fn requests_under_way_together_may_be_answered_in_either_epoch() {
    let mut history = good();
    // Sent before the new master answered anything, its answer from the old one came last.
    history.requests[49].done_ns = Some(1_100 * MS);
    history.gates[0].close_ns = Some(1_000 * MS);
    assert_eq!(check(&history).violations, Vec::<String>::new());
}

#[test]
fn gates_open_together_are_found_to_the_nanosecond() {
    let mut history = good();
    history.gates[0].close_ns = Some(1_015 * MS + 7);
    let report = assert_found(&history, "were open together for 7 ns");
    assert_eq!(report.overlap_ns, 7);
    history.gates[0].close_ns = Some(1_015 * MS);
    assert!(check(&history).is_good());
}

#[test]
fn a_gate_that_nobody_saw_closing_stays_open() {
    let mut history = good();
    history.faults[0].ended = None;
    assert_found(&history, "open together without a known end");
}

#[test]
fn a_gate_that_nobody_saw_closing_ends_with_its_last_known_lease() {
    let mut history = good();
    history.faults[0].ended = None;
    history.gates[0].until_ns = Some(500 * MS);
    let mut extended = history.gates[0].clone();
    extended.until_ns = Some(1_015 * MS);
    history.gates.insert(0, extended);
    assert!(check(&history).is_good());
    history.gates[0].until_ns = Some(1_016 * MS);
    assert_eq!(assert_found(&history, "were open together").overlap_ns, MS);
}

#[test]
fn one_epoch_of_two_nodes_is_found() {
    let mut history = good();
    history.gates[1].epoch = 1;
    assert_found(&history, "epoch 1 was served by more than one node");
}

#[test]
fn an_answer_out_of_a_closed_gate_is_found() {
    let mut history = good();
    history.gates[0].close_ns = Some(900 * MS);
    assert_found(&history, "request 47 (a, epoch 1) was answered while that gate was closed");
}

#[test]
fn undocumented_codes_are_found_and_documented_ones_are_not() {
    let mut history = good();
    history.requests[60].outcome = Some(Outcome::Fail);
    history.requests[60].error_no = Some(308_000_000);
    assert!(check(&history).is_good());
    history.requests[60].error_no = Some(308_000_099);
    assert_found(&history, "undocumented");
}

#[test]
fn a_pair_that_never_comes_back_is_found() {
    let mut history = good();
    history.requests.truncate(50);
    let report = assert_found(&history, "no request succeeded after the fault \"kill\"");
    assert_eq!(report.gaps[0].gap_ns, None);
}

#[test]
fn an_answer_of_an_earlier_epoch_to_a_late_attempt_is_found() {
    let mut history = good();
    // First sent before the switch, sent again after it, and answered out of the past.
    history.requests[49].done_ns = Some(1_400 * MS);
    history.requests[49].sent_ns = Some(1_390 * MS);
    assert_found(&history, "the epoch went back: request 49");
}

#[test]
fn a_killed_process_may_answer_until_it_is_gone() {
    let mut history = good();
    history.requests[49].at_ns = 991 * MS;
    assert_found(&history, "request 49 (a, epoch 1) was answered while that gate was closed");
    history.faults[0].gone_ns = Some(992 * MS);
    assert!(check(&history).is_good());
}

#[test]
fn a_run_in_which_too_little_happened_is_bad() {
    let enough = Enough {
        planned: vec!["kill".to_owned(), "freeze".to_owned()],
        acknowledged_min: 101,
        epochs_min: 3,
    };
    let report = check_run(&good(), &enough);
    let said = report.violations.join("; ");
    assert!(said.contains("the planned fault \"freeze\" did not happen"), "{said}");
    assert!(said.contains("only 100 requests were done"), "{said}");
    assert!(said.contains("only the epochs {1, 2} were seen"), "{said}");
    assert_eq!(report.violations.len(), 3, "{said}");
}

#[test]
fn an_empty_history_proves_nothing() {
    assert_found(&History::default(), "no requests");
}
