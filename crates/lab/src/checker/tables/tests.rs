//! Honest histories pass; each way to break a promise is found and told with its requests.

#![expect(clippy::needless_pass_by_value, reason = "so that a story reads well")]

use super::*;
use crate::checker::{History, check};

/// Builds a history by hand: every call takes one step of time, unless it says otherwise.
#[derive(Default)]
struct Story {
    history: History,
    now_ns: i64,
}

impl Story {
    fn call(&mut self, client: &str, operation: Operation, answer: Option<Answer>) -> &mut Request {
        let mine = |request: &&Request| request.client == client && request.copy == 0;
        let number = self.history.requests.iter().filter(mine).count() as u64;
        let at_ns = self.now_ns + 1;
        self.now_ns += 10;
        self.history.requests.push(Request {
            at_ns,
            done_ns: Some(at_ns + 8),
            request: number,
            client: client.to_owned(),
            node: Some("a".to_owned()),
            epoch: Some(1),
            error_no: answer.is_some().then_some(0),
            outcome: Some(if answer.is_some() { Outcome::Ok } else { Outcome::Unknown }),
            operation: Some(operation),
            answer,
            ..Request::default()
        });
        self.history.requests.last_mut().unwrap()
    }

    fn login(&mut self, client: &str) -> &mut Request {
        self.call(client, Operation::Login, Some(Answer::default()))
    }

    fn add(&mut self, client: &str, sum: u64) -> &mut Request {
        self.call(client, add(), Some(told(sum, None)))
    }

    fn put(&mut self, value: &str, version: u64) -> &mut Request {
        let put = Operation::Put { row: "register".to_owned(), value: value.to_owned() };
        self.call("writer", put, Some(Answer { version: Some(version), ..Answer::default() }))
    }

    fn compare(&mut self, value: &str, expected: u64, done: bool, version: u64) {
        let operation = Operation::CompareAndPut {
            row: "register".to_owned(),
            value: value.to_owned(),
            version: expected,
        };
        let answer = Answer { done: Some(done), version: Some(version), value: None };
        self.call("writer", operation, Some(answer));
    }

    fn look(&mut self, row: &str, value: impl ToString, version: u64) -> &mut Request {
        self.call("reader", get(row, false), Some(told(value, Some(version))))
    }

    fn end(&mut self, row: &str, value: impl ToString, version: u64) {
        self.call("reader", get(row, true), Some(told(value, Some(version))));
    }

    #[track_caller]
    fn assert_good(&self) -> Report {
        let report = check(&self.history);
        assert!(report.is_good(), "{report}");
        report
    }

    /// Only this kind of promise is found broken, in these words.
    #[track_caller]
    fn assert_only(&self, kind: Kind, words: &str) {
        let report = check(&self.history);
        for each in [Kind::Lost, Kind::Doubled, Kind::Stale, Kind::Unseen, Kind::Sessions] {
            assert_eq!(report.tables.broken(each) > 0, each == kind, "{each}: {report}");
        }
        let found = report.violations.iter().any(|violation| violation.contains(words));
        assert!(found, "{words:?} not in {report}");
    }
}

fn add() -> Operation {
    Operation::Add { row: "counter".to_owned() }
}

fn get(row: &str, at_end: bool) -> Operation {
    Operation::Get { row: row.to_owned(), at_end }
}

fn told(value: impl ToString, version: Option<u64>) -> Answer {
    Answer { value: Some(value.to_string()), version, done: None }
}

/// Two clients add to one counter, one writes a register, one looks.
fn honest() -> Story {
    let mut story = Story::default();
    for client in ["one", "two"] {
        story.login(client);
    }
    story.add("one", 1);
    story.look("counter", 1, 10);
    story.add("two", 2);
    story.put("x1", 12);
    story.look("register", "x1", 12);
    story.add("one", 3);
    story.compare("x2", 12, true, 15);
    story.look("counter", 3, 13);
    story
}

fn honest_to_the_end() -> Story {
    let mut story = honest();
    story.end("counter", 3, 13);
    story.end("register", "x2", 15);
    story
}

#[test]
fn an_honest_history_is_good_and_counted() {
    let Tables { rows, acknowledged, unknown, looks, .. } =
        honest_to_the_end().assert_good().tables;
    assert_eq!((rows, acknowledged, unknown, looks), (2, 5, 0, 5));
}

#[test]
fn calls_under_way_together_may_come_in_any_order() {
    let mut story = honest();
    // Begun before the other one's answer, seen before it and after it.
    story.look("counter", 2, 11).at_ns = 40;
    story.add("two", 4);
    let late = story.add("one", 5);
    late.at_ns -= 15;
    story.end("counter", 5, 30);
    story.end("register", "x2", 15);
    story.assert_good();
}

#[test]
fn an_unknown_call_may_have_been_done_or_not() {
    for (sum, version) in [(3, 13), (4, 17)] {
        let mut story = honest();
        story.call("two", add(), None);
        story.end("counter", sum, version);
        story.end("register", "x2", 15);
        assert_eq!(story.assert_good().tables.unknown, 1);
    }
    // Done, and known by what the others were told.
    let mut story = honest();
    story.call("two", add(), None);
    story.add("one", 5);
    story.end("counter", 5, 19);
    story.end("register", "x2", 15);
    story.assert_good();
}

#[test]
fn a_request_sent_unheard_and_again_may_have_been_done_the_first_time() {
    let mut story = honest();
    let mut unheard = story.call("two", add(), None).clone();
    story.history.requests.pop();
    unheard.outcome = None;
    story.look("counter", 4, 17);
    let again = story.add("two", 4);
    (again.request, unheard.request) = (2, 2);
    story.history.requests.push(unheard);
    story.end("counter", 4, 17);
    story.end("register", "x2", 15);
    story.assert_good();
}

#[test]
fn an_addition_missing_at_the_end_is_lost() {
    let mut story = honest();
    story.end("counter", 2, 11);
    story.end("register", "x2", 15);
    story.assert_only(Kind::Lost, "counter ended at 2, and 3 additions were acknowledged");
}

#[test]
fn an_addition_on_a_state_without_an_earlier_one_shows_that_one_lost() {
    let mut story = honest();
    story.add("two", 3);
    story.end("counter", 3, 20);
    story.end("register", "x2", 15);
    let report = check(&story.history);
    assert!(report.tables.lost >= 2, "{report}");
    assert!(report.to_string().contains("two additions made 3 of counter"), "{report}");
}

#[test]
fn a_put_missing_at_the_end_is_lost() {
    let mut story = honest();
    story.end("counter", 3, 13);
    story.end("register", "x1", 12);
    story.assert_only(Kind::Lost, "register was at 2, and later at 1");
    let mut story = honest();
    story.end("counter", 3, 13);
    story.call("reader", get("register", true), Some(Answer::default()));
    story.assert_only(Kind::Lost, "register was at 2, and later at 0");
}

#[test]
fn a_comparison_that_fails_for_the_only_writer_shows_what_happened() {
    let mut story = honest_to_the_end();
    story.history.requests.retain(|request| request.operation != Some(get("register", true)));
    story.compare("x3", 15, false, 14);
    story.end("register", "x2", 15);
    story.assert_only(Kind::Lost, "had version 15 for its only writer, and then 14");
    let mut story = honest_to_the_end();
    story.compare("x3", 15, false, 16);
    story.assert_only(Kind::Doubled, "had version 15 for its only writer, and then 16");
}

#[test]
fn an_addition_made_twice_is_doubled() {
    // The last one: only the end tells.
    let mut story = honest();
    story.end("counter", 4, 14);
    story.end("register", "x2", 15);
    story.assert_only(Kind::Doubled, "ended at 4 by 3 acknowledged");
    // One in the middle: so do the answers.
    let mut story = honest();
    story.add("two", 5);
    story.end("counter", 5, 20);
    story.end("register", "x2", 15);
    story.assert_only(Kind::Doubled, "nobody was told [4]");
}

#[test]
fn a_put_made_twice_is_doubled() {
    let mut story = honest();
    story.look("register", "x2", 16);
    story.end("counter", 3, 13);
    story.end("register", "x2", 16);
    story.assert_only(Kind::Doubled, "level 2 of register had two versions, 15 and 16");
}

#[test]
fn a_copy_with_another_answer_is_doubled_and_with_the_same_one_is_not() {
    let mut story = honest_to_the_end();
    let mut copy = story.history.requests[2].clone();
    copy.copy = 1;
    story.history.requests.push(copy.clone());
    assert_eq!(story.assert_good().tables.copies, 1);
    copy.copy = 2;
    copy.answer = Some(told(2, None));
    story.history.requests.push(copy);
    story.assert_only(Kind::Doubled, "one request got two different answers");
}

#[test]
fn the_answer_to_a_copy_is_an_answer() {
    let mut story = honest();
    let request = story.call("two", add(), None);
    let mut copy = request.clone();
    copy.copy = 1;
    copy.outcome = Some(Outcome::Ok);
    copy.error_no = Some(0);
    copy.answer = Some(told(4, None));
    story.history.requests.push(copy);
    story.end("counter", 3, 13);
    story.end("register", "x2", 15);
    story.assert_only(Kind::Lost, "counter ended at 3, and 4 additions were acknowledged");
}

#[test]
fn a_look_into_the_past_is_stale() {
    let mut story = honest_to_the_end();
    story.look("counter", 2, 11);
    story.assert_only(Kind::Stale, "counter was at 3, and later at 2");
    let mut story = honest_to_the_end();
    story.look("register", "x1", 12);
    story.assert_only(Kind::Stale, "register was at 2, and later at 1");
}

#[test]
fn what_was_shown_and_is_gone_is_unseen() {
    let mut story = honest();
    story.call("two", add(), None);
    story.look("counter", 4, 17);
    story.end("counter", 3, 13);
    story.end("register", "x2", 15);
    story.assert_only(Kind::Unseen, "counter was at 4, and later at 3");
}

#[test]
fn what_was_shown_with_one_version_and_stayed_with_another_one_is_unseen() {
    let mut story = honest();
    story.look("counter", 4, 17);
    let done_late = story.add("two", 4);
    done_late.at_ns -= 30;
    story.end("counter", 4, 19);
    story.end("register", "x2", 15);
    story.assert_only(Kind::Unseen, "level 4 of counter had two versions, 17 and 19");
}

#[test]
fn a_value_that_nobody_put_is_unseen() {
    let mut story = honest_to_the_end();
    story.look("register", "y9", 15);
    story.assert_only(Kind::Unseen, "register showed what nobody had put");
}

#[test]
fn a_session_that_is_forgotten_is_found() {
    let mut story = honest_to_the_end();
    let refused = story.call("one", add(), None);
    refused.outcome = Some(Outcome::Fail);
    refused.error_no = Some(SESSION_UNKNOWN);
    story.assert_only(Kind::Sessions, "the session of one is unknown");
    let mut story = honest_to_the_end();
    story.login("two");
    story.assert_only(Kind::Sessions, "two had to log in again");
}

#[test]
fn an_answer_that_left_the_window_unheard_is_lost() {
    let mut story = honest_to_the_end();
    let refused = story.call("one", add(), None);
    refused.outcome = Some(Outcome::Fail);
    refused.error_no = Some(TOO_OLD);
    story.assert_only(Kind::Lost, "the answer is gone although nobody has had it");
}

#[test]
fn rows_that_cannot_be_judged_are_said_to_be() {
    let mut story = honest();
    story.end("counter", 3, 13);
    let said = check(&story.history).to_string();
    assert!(said.contains("row register was not looked at in the end"), "{said}");
    let mut story = honest_to_the_end();
    let put = Operation::Put { row: "counter".to_owned(), value: "7".to_owned() };
    story.call("writer", put, Some(Answer::default()));
    let said = check(&story.history).to_string();
    assert!(said.contains("row counter is a counter and a register"), "{said}");
}

#[test]
fn the_lines_of_a_broken_promise_are_told_with_it_and_their_number_is_bounded() {
    let mut story = honest_to_the_end();
    for _ in 0..50 {
        story.look("counter", 2, 11);
    }
    let report = check(&story.history);
    assert_eq!(report.tables.stale, 50);
    assert_eq!(report.violations.len() as u64, TOLD_MAX);
    let told = &report.violations[0];
    assert!(
        told.contains("\"client\":\"one\"") && told.contains("\"client\":\"reader\""),
        "{told}"
    );
}
