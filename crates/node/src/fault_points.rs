//! Places where a test has a process die, stand still or wait: between two steps of a planned switch,
//! of a call of another program, or of a batch for the SQL database, where no signal from outside would
//! hit. Without the feature `planted-bugs` nothing is looked at.
//!
//! `HOTPAIR_STOP_AT` names a file. While it holds a line `STEP ACTION`, the first process that comes
//! to this step takes the file away and does it:
//!
//! | action | |
//! |---|---|
//! | `kill PID`, `freeze PID` | the signal to that process: itself, or its peer |
//! | `wait` | the file becomes `….reached`, and the process waits until that is gone; after a moment it goes on all the same, and the file becomes `….missed` |

pub(crate) use switched::{at, before, reach, written};

#[cfg(not(feature = "planted-bugs"))]
mod switched {
    use hotpair_core::pair::effect::Effect;
    use hotpair_core::pair::fact::Fact;

    /// The product: nothing.
    pub(crate) const fn before(_effect: &Effect) {}

    /// The product: nothing.
    pub(crate) const fn at(_fact: &Fact) {}

    /// The product: nothing.
    pub(crate) const fn reach(_step: &str) {}

    /// The product: nothing.
    pub(crate) const fn written(_records: &[u8]) {}
}

#[cfg(feature = "planted-bugs")]
mod switched {
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};
    use std::{env, fs, thread};

    use hotpair_core::pair::effect::{Effect, ZooKeeperRequest};
    use hotpair_core::pair::fact::{Answer, Fact, ZooKeeperEvent};
    use hotpair_core::tables::intents::INTENTS;
    use hotpair_core::tables::record::{Body, Change, decode};
    use rustix::process::{Pid, Signal, kill_process};

    /// Shorter than what counts as a stall of this process's own.
    const WAIT_MAX: Duration = Duration::from_millis(400);

    /// An effect is about to be carried out.
    pub(crate) fn before(effect: &Effect) {
        let step = match effect {
            Effect::HoldGate { .. } => "hold",
            Effect::Drain { .. } => "drain",
            Effect::WriteBarrier { .. } => "barrier",
            Effect::OpenGate { .. } => "open",
            Effect::ZooKeeper(order) => match &order.what {
                ZooKeeperRequest::HandOver { .. } => "handover",
                ZooKeeperRequest::Resign { .. } => "resign",
                ZooKeeperRequest::Claim { .. } => "claim",
                _ => return, // no step of a switch
            },
            _ => return, // no step of a switch
        };
        reach(step);
    }

    /// A fact has come, and nobody has considered it yet.
    pub(crate) fn at(fact: &Fact) {
        let Fact::ZooKeeper(fact) = fact else { return };
        match &fact.what {
            ZooKeeperEvent::HandedOver { .. } => reach("handover.written"),
            ZooKeeperEvent::Resigned { .. } => reach("resigned"),
            ZooKeeperEvent::Claimed { answer: Answer::Done { .. }, .. } => reach("claimed"),
            _ => {} // no step of a switch
        }
    }

    /// A batch of records is in this node's log, and nowhere else yet.
    pub(crate) fn written(records: &[u8]) {
        let mut rest = records;
        while let Ok((record, size)) = decode(rest) {
            rest = &rest[size..];
            let Body::Changes { changes, .. } = record.body else { continue };
            for change in changes {
                match change {
                    Change::Put { table, .. } if *table == *INTENTS => reach("intent.written"),
                    Change::Delete { table, .. } if *table == *INTENTS => reach("reply.written"),
                    Change::Put { .. } | Change::Delete { .. } => {}
                }
            }
        }
    }

    /// A step is reached.
    pub(crate) fn reach(step: &str) {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let Some(file) = FILE.get_or_init(|| env::var_os("HOTPAIR_STOP_AT").map(PathBuf::from))
        else {
            return;
        };
        let Ok(line) = fs::read_to_string(file) else { return };
        let words: Vec<&str> = line.split_whitespace().collect();
        // Whoever takes the file away is the one that does it.
        match words[..] {
            [at, "wait"] if at == step => {
                // Gone from here is there already: a test that sees the one sees the other.
                let reached = file.with_extension("reached");
                if fs::rename(file, &reached).is_ok() {
                    wait(&reached);
                }
            }
            [at, ref action @ ..] if at == step && fs::remove_file(file).is_ok() => act(action),
            _ => {}
        }
    }

    fn wait(reached: &Path) {
        let until = Instant::now() + WAIT_MAX;
        while reached.exists() {
            if Instant::now() >= until {
                // The one of the two that finds the file knows how it ended.
                let _ = fs::rename(reached, reached.with_extension("missed"));
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn act(action: &[&str]) {
        let until = Instant::now() + WAIT_MAX;
        let signalled = |pid: &str, signal| {
            let whom = pid.parse().ok().and_then(Pid::from_raw).expect("a test names a process");
            kill_process(whom, signal).expect("a test's processes can be signalled");
            // Only then is it what the next step meets.
            while any_thread_runs(pid) && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        };
        match action {
            ["kill", pid] => signalled(pid, Signal::KILL),
            ["freeze", pid] => signalled(pid, Signal::STOP),
            other => panic!("a fault point does not know {other:?}"),
        }
    }

    /// Neither stopped nor dead.
    fn any_thread_runs(pid: &str) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
        threads.flatten().any(|of| {
            let stat = fs::read_to_string(of.path().join("stat")).unwrap_or_default();
            // The name in brackets may hold spaces; the field after it is the state.
            let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
            state.is_some_and(|state| !"TZX".contains(state))
        })
    }
}
