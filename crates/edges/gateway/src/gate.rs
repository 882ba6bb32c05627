//! The gate: the right to act, as one question that is asked immediately before each outward effect
//! and whose answer is never kept.
//!
//! ```text
//!          open(epoch, until)             hold(epoch)
//!  closed ────────────────────▶ open ───────────────────▶ holding
//!    ▲                           │ ◀──────────────────────── │
//!    │                           │        admit(epoch)       │
//!    └──────── close(epoch) ─────┴──────── close(epoch) ─────┘
//! ```
//!
//! A holding gate lets nobody in and everybody out, in the same epoch: holding is not leaving. Its
//! lease is extended as that of an open one.
//!
//! One thread, that of the role machine, owns the [`GateKeeper`] and writes; any number look through
//! a [`Gate`] and never wait. A request enters when the gate is open, does not hold, and the lease is
//! not over on a clock that counts suspend; its [`Pass`] is asked once more right before the answer
//! leaves. So a process that was frozen past its lease refuses by itself, with nobody awake to close.
//!
//! What the atomics promise (all `SeqCst`):
//! * After [`GateKeeper::close`] returns, no pass is confirmed any more, on any thread.
//! * An entry counts itself before it looks, and a hold is noted before the count is looked at: one
//!   of the two sees the other. So when [`Gate::drained`] is over, nobody is inside or can come in
//!   before the gate admits again.
//! * `until` is written before its epoch is, and epochs never shrink, so whoever sees the same epoch
//!   before and after reading `until` has an `until` of that epoch.
//!
//! The gate writes down from inside when it was open, for whoever wants to check that two nodes'
//! gates never were together. Times are taken outside of what they bound: before opening, after
//! closing.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hotpair_core::pair::Moment;
use hotpair_core::pair::identity::Epoch;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

/// Why nothing may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No epoch is open.
    #[error("this node does not serve")]
    Closed,
    /// The mastership is about to be handed over; or not, in the end.
    #[error("this node is giving its mastership away")]
    Holding,
    /// The lease is over, whether or not anybody has noticed.
    #[error("this node's lease is over")]
    LeaseOver,
    /// The pass belongs to an epoch that is not open any more.
    #[error("the epoch of this request is over")]
    OtherEpoch,
}

/// A line of the gate's own history: one when it opens, one at each extension, one when it closes.
/// Lines of one opening have the same `open_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GateLine {
    /// Open for this epoch.
    pub epoch: u64,
    /// Since then, in nanoseconds of CLOCK_BOOTTIME.
    pub open_ns: u64,
    /// At most until then: the end of the lease.
    pub until_ns: u64,
    /// Closed then, at the latest at `until_ns`; absent while open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_ns: Option<u64>,
}

/// The clock that counts suspend, in nanoseconds since the machine booted.
#[must_use]
pub fn boot_time_ns() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("the machine has booted");
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).expect("nanoseconds are not negative")
}

#[derive(Debug)]
struct Shared {
    /// The open epoch, shifted left, and the holding bit below; 0 when closed.
    state: AtomicU64,
    until_ns: AtomicU64,
    in_flight: AtomicU64,
    nobody_inside: Notify,
    now_ns: fn() -> u64,
}

/// Looks at the gate and goes through it. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Shared>,
}

/// Opens and closes the gate. There is one; it belongs to the role machine's thread.
#[derive(Debug)]
pub struct GateKeeper {
    gate: Gate,
    open_ns: u64,
    last: Epoch,
    log: Option<mpsc::Sender<GateLine>>,
    lost_lines: u64,
}

/// A request on its way inside. Dropping it is leaving.
#[derive(Debug)]
pub struct Pass {
    shared: Arc<Shared>,
    epoch: Epoch,
}

impl GateKeeper {
    /// A closed gate on the machine's clock. Lines go to `log` as long as there is room in it; those
    /// that find none are counted.
    #[must_use]
    pub fn new(log: Option<mpsc::Sender<GateLine>>) -> Self {
        Self::with_clock(log, boot_time_ns)
    }

    /// The same on another clock.
    #[must_use]
    pub fn with_clock(log: Option<mpsc::Sender<GateLine>>, now_ns: fn() -> u64) -> Self {
        let shared = Shared {
            state: AtomicU64::new(CLOSED),
            until_ns: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            nobody_inside: Notify::new(),
            now_ns,
        };
        let gate = Gate { shared: Arc::new(shared) };
        Self { gate, open_ns: 0, last: Epoch(0), log, lost_lines: 0 }
    }

    /// The gate for everybody else.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Lets requests pass for `epoch` until `until`.
    ///
    /// # Panics
    /// If a larger epoch was open before: an epoch left is never entered again. The same one may be
    /// opened again, after a stall in which the role was never given up.
    pub fn open(&mut self, epoch: Epoch, until: Moment) {
        assert!(epoch >= self.last, "epoch {epoch} is over ({} was the last)", self.last);
        assert!(epoch.0 <= u64::MAX >> 1, "epoch {epoch} leaves no room for the holding bit");
        self.close(self.last);
        self.last = epoch;
        self.open_ns = (self.gate.shared.now_ns)();
        // Said before it is true. A thread writes it down: a kill within that moment may lose the line.
        self.say(epoch, until, None);
        self.gate.shared.until_ns.store(nanoseconds(until), Ordering::SeqCst);
        self.gate.shared.state.store(epoch.0 << 1, Ordering::SeqCst);
    }

    /// The lease of `epoch` ends at `until` now; nothing happens if another epoch is open, or none.
    pub fn extend(&mut self, epoch: Epoch, until: Moment) {
        if self.gate.shared.state.load(Ordering::SeqCst) >> 1 == epoch.0 && epoch != Epoch(0) {
            self.say(epoch, until, None);
            self.gate.shared.until_ns.store(nanoseconds(until), Ordering::SeqCst);
        }
    }

    /// Lets nobody in any more; who is inside may still finish. Nothing happens if another epoch is
    /// open, or none.
    pub fn hold(&mut self, epoch: Epoch) {
        let shared = &self.gate.shared;
        if shared.state.load(Ordering::SeqCst) == epoch.0 << 1 && epoch != Epoch(0) {
            shared.state.store(epoch.0 << 1 | HOLDING, Ordering::SeqCst);
            self.gate.wake_if_empty();
        }
    }

    /// Lets requests in again that a hold kept out. Nothing happens if another epoch is open, or none.
    pub fn admit(&mut self, epoch: Epoch) {
        let shared = &self.gate.shared;
        if shared.state.load(Ordering::SeqCst) == epoch.0 << 1 | HOLDING && epoch != Epoch(0) {
            shared.state.store(epoch.0 << 1, Ordering::SeqCst);
        }
    }

    /// Lets nothing pass any more, in or out. Nothing happens if another epoch is open, or none.
    pub fn close(&mut self, epoch: Epoch) {
        let shared = &self.gate.shared;
        if shared.state.load(Ordering::SeqCst) >> 1 != epoch.0 || epoch == Epoch(0) {
            return;
        }
        shared.state.store(CLOSED, Ordering::SeqCst);
        let closed_ns = (shared.now_ns)();
        let until_ns = shared.until_ns.load(Ordering::SeqCst);
        self.gate.wake_if_empty();
        self.say(epoch, Moment(until_ns / NS_PER_MS), Some(closed_ns.min(until_ns)));
    }

    /// Lines of history that found no room.
    #[must_use]
    pub fn lost_lines(&self) -> u64 {
        self.lost_lines
    }

    fn say(&mut self, epoch: Epoch, until: Moment, close_ns: Option<u64>) {
        let Some(log) = &self.log else { return };
        let until_ns = nanoseconds(until);
        let line = GateLine { epoch: epoch.0, open_ns: self.open_ns, until_ns, close_ns };
        if log.try_send(line).is_err() {
            self.lost_lines += 1;
        }
    }
}

impl Gate {
    /// Goes in, if the gate is open, does not hold and the lease is not over.
    pub fn enter(&self) -> Result<Pass, Refused> {
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        // From here on leaving is dropping the pass, also where it is not handed out.
        let mut pass = Pass { shared: Arc::clone(&self.shared), epoch: Epoch(0) };
        let (epoch, holding) = self.shared.open_epoch()?;
        if holding {
            return Err(Refused::Holding);
        }
        pass.epoch = epoch;
        Ok(pass)
    }

    /// The epoch that is served at this moment: open, not holding, the lease not over.
    #[must_use]
    pub fn serving_epoch(&self) -> Option<Epoch> {
        match self.shared.open_epoch() {
            Ok((epoch, false)) => Some(epoch),
            Ok((_, true)) | Err(_) => None,
        }
    }

    /// Requests inside.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// Waits until nobody is inside. Means something after a hold began or the gate closed. The wait
    /// has no end of its own.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            loop {
                let woken = shared.nobody_inside.notified();
                tokio::pin!(woken);
                // Registered before looking: a waking in between is not missed.
                woken.as_mut().enable();
                if shared.in_flight.load(Ordering::SeqCst) == 0 {
                    return;
                }
                woken.await;
            }
        }
    }

    fn wake_if_empty(&self) {
        if self.in_flight() == 0 {
            self.shared.nobody_inside.notify_waiters();
        }
    }
}

impl Shared {
    /// The open epoch and whether it holds; an error when closed or past the lease.
    fn open_epoch(&self) -> Result<(Epoch, bool), Refused> {
        let before = self.state.load(Ordering::SeqCst);
        if before == CLOSED {
            return Err(Refused::Closed);
        }
        let until_ns = self.until_ns.load(Ordering::SeqCst);
        // The clock is read after the lease's end, and the state once more after the clock: what is
        // true now was true when the clock was read.
        let in_time = (self.now_ns)() < until_ns;
        let state = self.state.load(Ordering::SeqCst);
        if state == CLOSED {
            return Err(Refused::Closed);
        }
        if state >> 1 != before >> 1 {
            return Err(Refused::OtherEpoch);
        }
        if !in_time {
            return Err(Refused::LeaseOver);
        }
        Ok((Epoch(state >> 1), state & HOLDING != 0))
    }
}

impl Pass {
    /// The epoch it was given in.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// One more pass for the same request: whoever has it is inside as long as it has it, also when
    /// the gate has begun to hold meanwhile.
    #[must_use]
    pub fn another(&self) -> Self {
        // This one is inside, so that nobody has seen the gate empty.
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        Self { shared: Arc::clone(&self.shared), epoch: self.epoch }
    }

    /// Whether an effect may leave now, in the epoch of the pass. Holding lets it leave.
    pub fn confirm(&self) -> Result<Epoch, Refused> {
        match self.shared.open_epoch()? {
            (epoch, _) if epoch == self.epoch => Ok(epoch),
            _ => Err(Refused::OtherEpoch),
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.shared.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.nobody_inside.notify_waiters();
        }
    }
}

fn nanoseconds(moment: Moment) -> u64 {
    moment.0.saturating_mul(NS_PER_MS)
}

const CLOSED: u64 = 0;
const HOLDING: u64 = 1;
const NS_PER_MS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn in_an_hour() -> Moment {
        Moment(boot_time_ns() / NS_PER_MS + 3_600_000)
    }

    #[test]
    fn nothing_passes_a_gate_that_was_never_opened() {
        let keeper = GateKeeper::new(None);
        let gate = keeper.gate();
        assert_eq!(gate.enter().unwrap_err(), Refused::Closed);
        assert_eq!((gate.serving_epoch(), gate.in_flight()), (None, 0));
    }

    #[test]
    fn a_pass_is_good_until_the_gate_closes() {
        let mut keeper = GateKeeper::new(None);
        let gate = keeper.gate();
        keeper.open(Epoch(7), in_an_hour());
        let pass = gate.enter().unwrap();
        assert_eq!(pass.confirm(), Ok(Epoch(7)));
        assert_eq!(gate.in_flight(), 1);
        keeper.close(Epoch(7));
        assert_eq!(pass.confirm(), Err(Refused::Closed));
        drop(pass);
        assert_eq!(gate.in_flight(), 0);
    }

    #[test]
    fn a_pass_of_an_older_epoch_is_refused_in_a_newer_one() {
        let mut keeper = GateKeeper::new(None);
        let gate = keeper.gate();
        keeper.open(Epoch(7), in_an_hour());
        let old = gate.enter().unwrap();
        keeper.close(Epoch(7));
        keeper.open(Epoch(9), in_an_hour());
        assert_eq!(old.confirm(), Err(Refused::OtherEpoch));
        assert_eq!(gate.enter().unwrap().confirm(), Ok(Epoch(9)));
    }

    #[test]
    fn late_orders_for_another_epoch_change_nothing() {
        let mut keeper = GateKeeper::new(None);
        let gate = keeper.gate();
        keeper.open(Epoch(8), in_an_hour());
        keeper.close(Epoch(7));
        keeper.hold(Epoch(7));
        keeper.extend(Epoch(7), Moment(0));
        assert_eq!(gate.serving_epoch(), Some(Epoch(8)));
        keeper.close(Epoch(8));
        keeper.extend(Epoch(8), in_an_hour());
        assert_eq!(gate.serving_epoch(), None);
    }

    #[test]
    #[should_panic(expected = "epoch 6 is over")]
    fn a_smaller_epoch_is_never_opened_again() {
        let mut keeper = GateKeeper::new(None);
        keeper.open(Epoch(7), in_an_hour());
        keeper.close(Epoch(7));
        keeper.open(Epoch(6), in_an_hour());
    }

    #[test]
    fn past_the_lease_nothing_passes_though_nobody_closed() {
        static NOW_NS: AtomicU64 = AtomicU64::new(1_000 * NS_PER_MS);
        let mut keeper = GateKeeper::with_clock(None, || NOW_NS.load(Ordering::SeqCst));
        let gate = keeper.gate();
        keeper.open(Epoch(3), Moment(2_000));
        let pass = gate.enter().unwrap();
        NOW_NS.store(2_000 * NS_PER_MS - 1, Ordering::SeqCst);
        assert_eq!(pass.confirm(), Ok(Epoch(3)));
        NOW_NS.store(2_000 * NS_PER_MS, Ordering::SeqCst);
        assert_eq!(pass.confirm(), Err(Refused::LeaseOver));
        assert_eq!(gate.enter().unwrap_err(), Refused::LeaseOver);
        assert_eq!(gate.serving_epoch(), None);
        keeper.extend(Epoch(3), Moment(4_000));
        assert_eq!(pass.confirm(), Ok(Epoch(3)));
    }

    #[test]
    fn the_history_ends_with_the_lease_when_closing_came_later() {
        static NOW_NS: AtomicU64 = AtomicU64::new(NS_PER_MS);
        let (log, mut lines) = mpsc::channel(8);
        let mut keeper = GateKeeper::with_clock(Some(log), || NOW_NS.load(Ordering::SeqCst));
        keeper.open(Epoch(3), Moment(20));
        keeper.extend(Epoch(3), Moment(30));
        NOW_NS.store(99 * NS_PER_MS, Ordering::SeqCst);
        keeper.close(Epoch(3));
        let line = |until_ms: u64, close_ns| GateLine {
            epoch: 3,
            open_ns: NS_PER_MS,
            until_ns: until_ms * NS_PER_MS,
            close_ns,
        };
        assert_eq!(lines.try_recv().unwrap(), line(20, None));
        assert_eq!(lines.try_recv().unwrap(), line(30, None));
        assert_eq!(lines.try_recv().unwrap(), line(30, Some(30 * NS_PER_MS)));
        assert!(lines.try_recv().is_err());
    }

    #[test]
    fn a_full_log_is_counted_and_never_waited_for() {
        let (log, _lines) = mpsc::channel(1);
        let mut keeper = GateKeeper::new(Some(log));
        keeper.open(Epoch(1), in_an_hour());
        keeper.close(Epoch(1));
        assert_eq!(keeper.lost_lines(), 1);
    }

    #[tokio::test]
    async fn a_drain_lets_out_and_not_in_and_ends_with_the_last() {
        let mut keeper = GateKeeper::new(None);
        let gate = keeper.gate();
        keeper.open(Epoch(4), in_an_hour());
        let pass = gate.enter().unwrap();
        keeper.hold(Epoch(4));
        assert_eq!(gate.enter().unwrap_err(), Refused::Holding);
        assert_eq!(gate.serving_epoch(), None);
        assert_eq!(pass.confirm(), Ok(Epoch(4)));
        let drained = tokio::spawn(gate.drained());
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(pass);
        tokio::time::timeout(Duration::from_secs(10), drained).await.unwrap().unwrap();
    }

    #[test]
    fn a_gate_that_held_admits_again_in_the_same_epoch() {
        let mut keeper = GateKeeper::new(None);
        let gate = keeper.gate();
        keeper.open(Epoch(4), in_an_hour());
        let before = gate.enter().unwrap();
        keeper.hold(Epoch(4));
        keeper.extend(Epoch(4), in_an_hour());
        assert_eq!(gate.enter().unwrap_err(), Refused::Holding);
        keeper.admit(Epoch(3));
        assert_eq!(gate.enter().unwrap_err(), Refused::Holding);
        keeper.admit(Epoch(4));
        assert_eq!(gate.enter().unwrap().confirm(), Ok(Epoch(4)));
        assert_eq!(before.confirm(), Ok(Epoch(4)));
        // Late: closed meanwhile.
        keeper.hold(Epoch(4));
        keeper.close(Epoch(4));
        keeper.admit(Epoch(4));
        assert_eq!(gate.enter().unwrap_err(), Refused::Closed);
    }

    #[test]
    fn no_thread_confirms_after_close_returned() {
        let mut keeper = GateKeeper::new(None);
        let gate = keeper.gate();
        let closed_up_to = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (gate, closed, done) = (gate.clone(), closed_up_to.clone(), done.clone());
                thread::spawn(move || {
                    let mut confirmed = 0_u64;
                    while !done.load(Ordering::SeqCst) {
                        let Ok(pass) = gate.enter() else { continue };
                        // Read first: an epoch closed before confirming must not be confirmed.
                        let closed = closed.load(Ordering::SeqCst);
                        if let Ok(epoch) = pass.confirm() {
                            assert!(epoch.0 > closed, "{epoch} confirmed after {closed} closed");
                            confirmed += 1;
                        }
                    }
                    confirmed
                })
            })
            .collect();
        for epoch in 1..=5_000 {
            keeper.open(Epoch(epoch), in_an_hour());
            if epoch % 7 == 0 {
                keeper.hold(Epoch(epoch));
            }
            thread::yield_now();
            keeper.close(Epoch(epoch));
            closed_up_to.store(epoch, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
        let confirmed: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(confirmed > 0);
        assert_eq!(gate.in_flight(), 0);
    }

    #[test]
    fn an_empty_house_that_drains_stays_empty() {
        let mut keeper = GateKeeper::new(None);
        let gate = keeper.gate();
        let drained_up_to = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let (other, seen, stop) = (gate.clone(), drained_up_to.clone(), done.clone());
        let visitor = thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                if let Ok(pass) = other.enter() {
                    let drained = seen.load(Ordering::SeqCst);
                    assert!(pass.epoch().0 > drained, "inside {} after its drain", pass.epoch());
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for epoch in 1..=5_000 {
            keeper.open(Epoch(epoch), in_an_hour());
            keeper.hold(Epoch(epoch));
            runtime.block_on(gate.drained());
            drained_up_to.store(epoch, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
        visitor.join().unwrap();
    }
}
