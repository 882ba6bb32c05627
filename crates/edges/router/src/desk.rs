//! The desk: the one place where facts reach the decider, from any task, and where its effects go out.
//!
//! Behind it is a lock that is held for the length of one decision, never over a wait. Each request has a
//! ticket, which is told its turn at once: either it goes somewhere now, or it is held, and then its turn
//! comes later on a channel. Pools are cut under the lock, and the generation
//! of a pool is read under it as well: so a request that was told to go to a node before a cut is cut by
//! it, and one that was told so after it is not.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hotpair_core::pair::Moment;
use hotpair_http::{Generation, Pool};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use crate::clock;
use crate::decider::{Decider, Settings, Target};
use crate::fact::{
    Asked, Effect, Fact, Failed, NodeIndex, Repeatable, RequestId, Step, Told, Verdict,
};

/// Where facts come in and effects go out.
#[derive(Debug)]
pub struct Desk {
    inner: Mutex<Inner>,
    pools: Vec<Pool>,
    /// The deadline is another one.
    rescheduled: Notify,
}

#[derive(Debug)]
struct Inner {
    decider: Decider,
    /// Kept for its room.
    effects: Vec<Effect>,
    waiting: HashMap<RequestId, oneshot::Sender<Go>>,
    next: u64,
    deadline: Option<Moment>,
    said: Option<Target>,
}

/// What a request does now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Go {
    Forward { target: Target, tries: u32, perhaps_executed: bool, generation: Generation },
    Pass,
    Answer(Verdict),
}

/// A request's way through the router. Dropped early, its client is gone.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    desk: &'a Desk,
    asked: Asked,
    state: State,
}

#[derive(Debug)]
enum State {
    Told(Go),
    UnderWay(Target),
    Held(oneshot::Receiver<Go>),
    Done,
}

impl Desk {
    /// A desk in front of these nodes, in the configured order.
    #[must_use]
    pub fn new(settings: Settings, pools: Vec<Pool>) -> Self {
        assert_eq!(settings.nodes, pools.len(), "a pool a node");
        let inner = Inner {
            decider: Decider::new(clock::now(), settings),
            effects: Vec::new(),
            waiting: HashMap::new(),
            next: 0,
            deadline: None,
            said: None,
        };
        Self { inner: Mutex::new(inner), pools, rescheduled: Notify::new() }
    }

    /// Looks after deadlines and idle connections, for ever; to be run beside everything else.
    pub async fn keep_time(&self) {
        loop {
            let deadline = self.inner().deadline;
            let wait = deadline
                .map_or(TIDY, |at| Duration::from_millis(at.ms_since(clock::now())).min(TIDY));
            tokio::select! {
                () = self.rescheduled.notified() => {}
                () = sleep(wait) => {
                    self.pools.iter().for_each(Pool::tidy);
                    let mut inner = self.inner();
                    let now = clock::now();
                    if inner.deadline.is_some_and(|deadline| deadline <= now) {
                        let mut effects = std::mem::take(&mut inner.effects);
                        inner.decider.handle_timeout(now, &mut effects);
                        self.carry_out(&mut inner, effects, None);
                    }
                }
            }
        }
    }

    /// Something happened to a node.
    pub(crate) fn note(&self, fact: Fact) {
        self.decide(fact, None);
    }

    /// A look at what is decided.
    pub fn look<T>(&self, look: impl FnOnce(&Decider) -> T) -> T {
        look(&self.inner().decider)
    }

    /// The connections to a node.
    pub(crate) fn pool(&self, node: NodeIndex) -> &Pool {
        &self.pools[node.0]
    }

    /// A client asked.
    pub(crate) fn admit(&self, repeatable: Repeatable, bytes: usize) -> Ticket<'_> {
        let mut inner = self.inner();
        inner.next += 1;
        let id = RequestId(inner.next);
        let asked = Asked { id, repeatable, bytes, tries: 0, perhaps_executed: false };
        let state = self.decide_in(&mut inner, Fact::Came(asked), Some(asked.id));
        drop(inner);
        let state = state.expect("every request is told something");
        Ticket { desk: self, asked, state }
    }

    fn decide(&self, fact: Fact, own: Option<RequestId>) -> Option<State> {
        self.decide_in(&mut self.inner(), fact, own)
    }

    fn decide_in(&self, inner: &mut Inner, fact: Fact, own: Option<RequestId>) -> Option<State> {
        let mut effects = std::mem::take(&mut inner.effects);
        inner.decider.handle(clock::now(), fact, &mut effects);
        self.carry_out(inner, effects, own)
    }

    /// Carries effects out; what is to become of one's own request.
    fn carry_out(
        &self,
        inner: &mut Inner,
        mut effects: Vec<Effect>,
        own: Option<RequestId>,
    ) -> Option<State> {
        let mut told = None;
        for effect in effects.drain(..) {
            match effect {
                Effect::Cut(node) => self.pools[node.0].cut(),
                Effect::Take(id, step) if own == Some(id) => {
                    told = Some(match self.go(step) {
                        Some(go) => State::Told(go),
                        None => {
                            let (later, turn) = oneshot::channel();
                            inner.waiting.insert(id, later);
                            State::Held(turn)
                        }
                    });
                }
                Effect::Take(id, step) => {
                    let go = self.go(step).expect("what is held already is not held anew");
                    if let Some(waiting) = inner.waiting.remove(&id) {
                        // Its ticket looks for what came too late when it is dropped.
                        let _ = waiting.send(go);
                    }
                }
            }
        }
        inner.effects = effects;
        let deadline = inner.decider.deadline();
        if deadline != inner.deadline {
            inner.deadline = deadline;
            self.rescheduled.notify_one();
        }
        self.say(inner);
        told
    }

    /// `None` is waiting.
    fn go(&self, step: Step) -> Option<Go> {
        Some(match step {
            Step::Forward { node, epoch, tries, perhaps_executed } => {
                let generation = self.pools[node.0].generation();
                let target = Target { node, epoch };
                Go::Forward { target, tries, perhaps_executed, generation }
            }
            Step::Hold => return None,
            Step::Pass => Go::Pass,
            Step::Answer(verdict) => Go::Answer(verdict),
        })
    }

    fn say(&self, inner: &mut Inner) {
        let target = inner.decider.target();
        if target == inner.said {
            return;
        }
        inner.said = target;
        let (held, _) = inner.decider.held();
        match target {
            Some(Target { node, epoch }) => {
                tracing::info!(node = node.0, epoch, "requests go to this node");
            }
            None => {
                let kind = inner.decider.outage().map(|outage| outage.kind);
                tracing::info!(?kind, held, epoch = inner.decider.epoch(), "nobody serves");
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a panic ends the process")
    }
}

impl Ticket<'_> {
    /// What to do now, as soon as that is decided.
    pub(crate) async fn turn(&mut self) -> Go {
        let go = match &mut self.state {
            State::Told(go) => *go,
            State::Held(turn) => turn.await.expect("the desk outlives its tickets"),
            State::UnderWay(_) | State::Done => unreachable!("asked before its outcome was told"),
        };
        self.state = match go {
            Go::Forward { target, tries, perhaps_executed, .. } => {
                (self.asked.tries, self.asked.perhaps_executed) = (tries, perhaps_executed);
                State::UnderWay(target)
            }
            Go::Pass | Go::Answer(_) => State::Done,
        };
        go
    }

    /// The node answered.
    pub(crate) fn answered(&mut self, told: Told) {
        let request = self.asked;
        self.outcome(|Target { node, epoch }| Fact::Answered { request, node, epoch, told });
    }

    /// There is no answer.
    pub(crate) fn broke(&mut self, how: Failed) {
        let request = self.asked;
        self.outcome(|Target { node, epoch }| Fact::Broke { request, node, epoch, how });
    }

    fn outcome(&mut self, fact: impl FnOnce(Target) -> Fact) {
        let State::UnderWay(target) = self.state else {
            unreachable!("only what is under way has an outcome");
        };
        // Whatever is decided is noted before anything can be dropped.
        let told = self.desk.decide(fact(target), Some(self.asked.id));
        self.state = told.expect("every outcome leads to something");
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let id = self.asked.id;
        match &mut self.state {
            State::Done | State::Told(Go::Pass | Go::Answer(_)) => {}
            State::UnderWay(_) | State::Told(Go::Forward { .. }) => {
                self.desk.decide(Fact::LeftUnderWay, None);
            }
            State::Held(turn) => {
                let mut inner = self.desk.inner();
                inner.waiting.remove(&id);
                self.desk.decide_in(&mut inner, Fact::LeftHeld(id), None);
                // Its turn may have come, with nobody left to take it.
                if let Ok(Go::Forward { .. }) = turn.try_recv() {
                    self.desk.decide_in(&mut inner, Fact::LeftUnderWay, None);
                }
            }
        }
    }
}

/// How often idle connections are looked at.
const TIDY: Duration = Duration::from_secs(5);
