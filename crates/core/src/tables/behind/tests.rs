use super::*;
use crate::tables::position::EpochStart;

const T: Moment = Moment(1_000);

fn told(mastership: Option<u64>, starts: &[(u64, u64, u64)], head: u64) -> Told {
    let start = |(epoch, life, first): &(u64, u64, u64)| EpochStart {
        epoch: Epoch(*epoch),
        life: *life,
        first: *first,
    };
    Told {
        owner: Some("c".to_owned()),
        mastership: mastership.map(Epoch),
        whole: true,
        generation: 0,
        oldest: 1,
        history: History::new(starts.iter().map(start).collect(), head),
    }
}

fn mark(epoch: u64, life: u64, number: u64) -> Mark {
    Mark { epoch: Epoch(epoch), life, number }
}

fn term(epoch: u64) -> Term {
    Term { owner: "c".to_owned(), epoch: Epoch(epoch) }
}

fn open(sink: Sink, epoch: u64, at: Mark) -> Behind {
    let mut behind = Behind::new(sink);
    behind.opened(T, term(epoch), at, 0);
    behind
}

#[test]
fn a_shared_database_is_written_by_the_master_only_and_fenced_first() {
    let behind = Behind::new(Sink::Shared);
    let standby = told(None, &[(1, 7, 1)], 10);
    assert_eq!(behind.next(T, &standby, 10), Step::Rest);
    assert_eq!(behind.needs(&standby), None);
    let master = told(Some(2), &[(1, 7, 1), (2, 8, 11)], 11);
    assert_eq!(behind.next(T, &master, 11), Step::Open(term(2)));
    let open = open(Sink::Shared, 2, mark(1, 7, 10));
    assert_eq!(open.next(T, &master, 11), Step::Tail { after: mark(1, 7, 10), up_to: 11 });
    assert_eq!(open.next(T, &standby, 10), Step::Close, "the mastership is over");
    let next = told(Some(4), &[(1, 7, 1), (4, 8, 11)], 11);
    assert_eq!(open.next(T, &next, 11), Step::Close, "another mastership raises the fence anew");
}

#[test]
fn an_own_copy_is_written_whoever_is_master() {
    let standby = told(None, &[(1, 7, 1)], 10);
    assert_eq!(Behind::new(Sink::Own).next(T, &standby, 10), Step::Open(term(0)));
    let behind = open(Sink::Own, 0, mark(1, 7, 10));
    let master = told(Some(2), &[(1, 7, 1), (2, 8, 11)], 12);
    assert_eq!(behind.next(T, &master, 12), Step::Tail { after: mark(1, 7, 10), up_to: 12 });
    let loading = Told { whole: false, ..master };
    assert_eq!(behind.next(T, &loading, 12), Step::Close, "half a snapshot is nobody's");
}

#[test]
fn nothing_beyond_what_is_acknowledged_is_read() {
    let behind = open(Sink::Shared, 1, mark(1, 7, 10));
    let master = told(Some(1), &[(1, 7, 1)], 20);
    assert_eq!(behind.next(T, &master, 10), Step::Rest);
    assert_eq!(behind.next(T, &master, 15), Step::Tail { after: mark(1, 7, 10), up_to: 15 });
}

#[test]
fn what_is_not_of_this_log_or_too_old_is_copied_anew() {
    let master = told(Some(2), &[(1, 7, 1), (2, 8, 11)], 20);
    for other in [
        mark(0, 0, 0),
        mark(1, 9, 10), // another process was master in that epoch
        mark(1, 7, 12), // a tail that this log does not have
        mark(2, 8, 21), // more than there is
    ] {
        let behind = open(Sink::Shared, 2, other);
        assert_eq!(behind.next(T, &master, 20), Step::Copy { from: other });
    }
    let behind = open(Sink::Shared, 2, mark(1, 7, 5));
    let short = Told { oldest: 6, ..master.clone() };
    assert_eq!(behind.next(T, &short, 20), Step::Tail { after: mark(1, 7, 5), up_to: 20 });
    let short = Told { oldest: 7, ..master.clone() };
    assert_eq!(behind.next(T, &short, 20), Step::Copy { from: mark(1, 7, 5) });
    let mut behind = open(Sink::Shared, 2, mark(1, 7, 5));
    behind.failed(T, Failure::LogGone, 0);
    assert_eq!(behind.next(T, &master, 20), Step::Copy { from: mark(1, 7, 5) });
    behind.written(T, mark(2, 8, 20), 0);
    assert_eq!(behind.next(T, &master, 20), Step::Rest);
}

#[test]
fn a_failure_waits_longer_each_time_and_says_so_after_a_while() {
    let master = told(Some(1), &[(1, 7, 1)], 20);
    let mut behind = Behind::new(Sink::Shared);
    let mut waits = Vec::new();
    let mut now = T;
    for _ in 0..10 {
        behind.note(now, &master, 20);
        behind.failed(now, Failure::Failed("refused".to_owned()), u64::MAX);
        waits.push(behind.retry_at.ms_since(now));
        assert_eq!(behind.next(behind.retry_at - 1, &master, 20), Step::Rest);
        assert_eq!(behind.next(behind.retry_at, &master, 20), Step::Open(term(1)));
        now = behind.retry_at;
    }
    assert!(waits[0] <= 100 && waits.iter().all(|wait| (50..=5_000).contains(wait)), "{waits:?}");
    assert!(waits[9] >= 2_500, "{waits:?}");
    assert_eq!(behind.trouble(T + 1_000), None);
    let told = behind.trouble(T + 2_000);
    assert_eq!(told.as_deref(), Some("refused; 10 changes or more wait"));
    behind.opened(now, term(1), mark(1, 7, 20), 0);
    behind.note(now, &master, 20);
    assert_eq!(behind.trouble(now + 10_000), None);
}

#[test]
fn an_overtaken_mastership_never_writes_again_and_a_newer_one_does() {
    let master = told(Some(3), &[(3, 7, 1)], 20);
    let mut behind = open(Sink::Shared, 3, mark(3, 7, 10));
    behind.failed(T, Failure::Overtaken { by: Epoch(4) }, 0);
    assert_eq!(behind.next(T + 1_000_000, &master, 20), Step::Rest);
    behind.note(T + 3_000, &master, 20);
    assert!(behind.trouble(T + 3_000).unwrap().contains("epoch 4"));
    let newer = told(Some(5), &[(3, 7, 1), (5, 7, 21)], 21);
    behind.closed();
    assert_eq!(behind.next(T, &newer, 21), Step::Open(term(5)));
}

#[test]
fn a_database_that_stands_still_or_falls_behind_is_told() {
    let master = told(Some(1), &[(1, 7, 1)], 1_000_000);
    let mut behind = open(Sink::Shared, 1, mark(1, 7, 10));
    behind.note(T, &master, 20);
    assert_eq!(behind.trouble(T + 4_999), None);
    assert!(behind.trouble(T + 5_000).unwrap().contains("does not answer; 10 changes"));
    behind.written(T + 5_000, mark(1, 7, 15), 0);
    behind.note(T + 5_000, &master, 500_000);
    assert_eq!(behind.trouble(T + 9_999), None);
    behind.written(T + 9_999, mark(1, 7, 16), 0);
    assert!(behind.trouble(T + 10_000).unwrap().contains("does not keep up; 100000 changes"));
    assert_eq!(behind.lag(), Some(499_985));
}

#[test]
fn rows_in_quarantine_are_told_until_there_are_none() {
    let mut behind = open(Sink::Own, 0, mark(1, 7, 10));
    behind.written(T, mark(1, 7, 11), 12);
    assert!(behind.trouble(T).unwrap().starts_with("10 rows or more"));
    behind.written(T, mark(1, 7, 12), 0);
    assert_eq!(behind.trouble(T), None);
}

#[test]
fn rows_in_a_shared_quarantine_are_the_next_masters_to_tell() {
    let master = told(Some(2), &[(1, 7, 1), (2, 8, 11)], 20);
    let standby = told(None, &[(1, 7, 1), (2, 8, 11)], 20);
    let mut behind = open(Sink::Shared, 2, mark(1, 7, 10));
    behind.written(T, mark(2, 8, 20), 3);
    behind.note(T, &master, 20);
    assert!(behind.trouble(T).unwrap().contains("hotpair_quarantine"));
    // A step that was under way may still end well.
    behind.note(T, &standby, 20);
    behind.written(T, mark(2, 8, 20), 3);
    behind.note(T, &standby, 20);
    assert_eq!((behind.trouble(T), behind.quarantined()), (None, 0));
    let mut own = open(Sink::Own, 0, mark(1, 7, 10));
    own.written(T, mark(2, 8, 20), 3);
    own.note(T, &standby, 20);
    assert_eq!(own.quarantined(), 3, "a copy of one's own stays one's own");
}
