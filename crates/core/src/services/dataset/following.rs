//! A dataset that follows a feed: subscribe, load, replay what came meanwhile, go on; and know when
//! something was missed.
//!
//! ```text
//!  off ─ wanted ─▶ subscribing ─▶ loading ─▶ replaying ─▶ live ──┐ missed something
//!   ▲                                ▲                     ▲     ▼
//!   └───────── not wanted ◀── any    └── load anew ◀── stale ◀───┘
//! ```
//!
//! The subscription stands before the load begins, so that nothing falls between the two. Nobody says
//! when a publisher has taken it in: the first update shows it, and [`SETTLE_MS`] are enough for one
//! that says nothing. A feed that does not come up holds nothing up: after [`PATIENCE_MS`] the load begins
//! without it, and what it brings is stale until the feed is there and a load was begun after that.
//!
//! What is kept for a load goes with it, if it fails, or if something was missed meanwhile: the next load
//! is newer than that, and would be made older by it.
//!
//! What is stale is still looked at, and still followed. It is loaded anew beside it, not more often than
//! every [`RENEWAL_MS`], later every minute.
//!
//! A dataset without a feed is its [`Loading`], and nothing is added.

use super::loading::{
    Attempt, Availability, DatasetState, Effect, Fact, LoadMode, Loading, Subscription,
    retry_delay_ms,
};

/// How new a dataset is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AsOf {
    /// The largest version that its feed brought.
    pub version: Option<u64>,
    /// When the newest update came, or the load began that brought it, in milliseconds of wall clock
    /// since 1970.
    pub wall_ms: u64,
}

/// What is to be said of a dataset's feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedState {
    /// It has none.
    None,
    /// It is not wanted now.
    Off,
    /// Connecting, or waiting for the subscription to be taken in.
    Subscribing,
    /// Updates are kept until the load is done.
    Loading,
    /// What came meanwhile is brought in.
    Replaying,
    /// All that the feed said since the load began is in.
    Live,
    /// Something is missing, and it is not known what.
    Stale {
        /// Why, for people.
        reason: String,
    },
}

impl FeedState {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            FeedState::None => "none",
            FeedState::Off => "off",
            FeedState::Subscribing => "subscribing",
            FeedState::Loading => "loading",
            FeedState::Replaying => "replaying",
            FeedState::Live => "live",
            FeedState::Stale { .. } => "stale",
        }
    }
}

/// What happened to a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEvent {
    /// It was sent to the publisher.
    Sent,
    /// The first update since came.
    Heard,
    /// The connection is gone or could not be made; it is being tried again.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// Something is missing though the connection stands.
    Missed {
        /// What, for people.
        reason: String,
    },
}

/// When a dataset is loaded and dropped, and how it stands with its feed. See the file's header.
#[derive(Debug, Clone)]
pub struct Following {
    mode: LoadMode,
    loading: Loading,
    feed: Option<Feed>,
}

#[derive(Debug, Clone)]
struct Feed {
    last: u64,
    link: Link,
    /// When the present subscription began: patience with it counts from here, however often its
    /// connection comes about and is lost again.
    since_ms: u64,
    /// What the published data misses.
    held: Whole,
    /// What the running load's data will miss.
    coming: Whole,
    /// Loaded, and what came meanwhile is being brought in.
    replaying: Option<(Attempt, u64)>,
    renewals: Renewals,
    /// What is kept for a load may be older than what the next one brings, or have gaps.
    kept_is_old: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Off,
    Dialing { subscription: Subscription },
    Settling { subscription: Subscription, since_ms: u64 },
    Up { subscription: Subscription },
}

/// Nothing is missing, or why something may be.
type Whole = Result<(), String>;

/// Loads anew must not follow each other without a pause.
#[derive(Debug, Clone, Copy, Default)]
struct Renewals {
    not_before_ms: u64,
    in_a_row: u32,
}

impl Following {
    /// A dataset that nothing has been done for yet.
    pub fn new(mode: LoadMode, has_feed: bool) -> Following {
        let feed = has_feed.then(|| Feed {
            last: 0,
            link: Link::Off,
            since_ms: 0,
            held: Err(NOT_CONNECTED.to_owned()),
            coming: Err(NOT_CONNECTED.to_owned()),
            replaying: None,
            renewals: Renewals::default(),
            kept_is_old: false,
        });
        Following { mode, loading: Loading::new(mode), feed }
    }

    /// Takes in a fact and says what is to be done about it.
    #[must_use]
    pub fn handle(&mut self, fact: Fact, now_ms: u64) -> Vec<Effect> {
        if self.feed.is_none() {
            return self.loading.handle(fact, now_ms);
        }
        let mut effects = Vec::new();
        match fact {
            Fact::NodeStarted => match self.mode {
                LoadMode::Preload => self.subscribe(now_ms, &mut effects),
                LoadMode::OnPromote => {}
            },
            Fact::Promoted => {
                self.subscribe(now_ms, &mut effects);
                if *self.loading.state() != DatasetState::Absent {
                    self.load(Fact::Promoted, now_ms, &mut effects);
                }
            }
            Fact::Demoted => match self.mode {
                LoadMode::Preload => {}
                LoadMode::OnPromote => self.unsubscribe(now_ms, &mut effects),
            },
            Fact::Loaded { attempt, rows } => self.replay(attempt, rows, &mut effects),
            Fact::TimePassed => self.handle_time(now_ms, &mut effects),
            fact @ (Fact::Progressed { .. } | Fact::LoadFailed { .. } | Fact::Outdated) => {
                self.load(fact, now_ms, &mut effects);
            }
        }
        self.renew_if_due(now_ms, &mut effects);
        effects
    }

    /// Takes in what happened to a subscription; nothing if it is not the present one.
    #[must_use]
    pub fn handle_feed(&mut self, of: Subscription, event: FeedEvent, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(feed) = self.feed.as_mut().filter(|feed| feed.link.subscription() == Some(of))
        else {
            return effects;
        };
        match event {
            FeedEvent::Sent => {
                feed.link = Link::Settling { subscription: of, since_ms: now_ms };
            }
            FeedEvent::Heard => {
                if matches!(feed.link, Link::Settling { .. }) {
                    self.settle(of, now_ms, &mut effects);
                }
            }
            FeedEvent::Lost { reason } => {
                // What was never connected brought nothing that could be old.
                feed.kept_is_old |= !matches!(feed.link, Link::Dialing { .. });
                feed.link = Link::Dialing { subscription: of };
                feed.miss(&reason);
            }
            FeedEvent::Missed { reason } => {
                feed.kept_is_old = true;
                feed.miss(&reason);
            }
        }
        self.renew_if_due(now_ms, &mut effects);
        effects
    }

    /// What came meanwhile is in what this load brought.
    #[must_use]
    pub fn handle_replayed(&mut self, of: Attempt, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(feed) = &mut self.feed else { return effects };
        let Some((attempt, rows)) = feed.replaying.take_if(|(attempt, _)| *attempt == of) else {
            return effects;
        };
        self.load(Fact::Loaded { attempt, rows }, now_ms, &mut effects);
        self.renew_if_due(now_ms, &mut effects);
        effects
    }

    /// Where the dataset stands.
    pub fn state(&self) -> &DatasetState {
        self.loading.state()
    }

    /// Where its feed stands.
    pub fn feed_state(&self) -> FeedState {
        let Some(feed) = &self.feed else { return FeedState::None };
        match (self.loading.state(), &feed.held) {
            _ if feed.link == Link::Off => FeedState::Off,
            (DatasetState::Ready { .. }, Ok(())) => FeedState::Live,
            (DatasetState::Ready { .. }, Err(reason)) => {
                FeedState::Stale { reason: reason.clone() }
            }
            _ if feed.replaying.is_some() => FeedState::Replaying,
            (DatasetState::Absent, _) => FeedState::Subscribing,
            (DatasetState::Loading { .. } | DatasetState::Failed { .. }, _) => FeedState::Loading,
        }
    }

    /// When [`Fact::TimePassed`] is due, if ever.
    pub fn deadline_ms(&self) -> Option<u64> {
        let own = self.feed.as_ref().and_then(|feed| match feed.link {
            Link::Off | Link::Dialing { .. } => None,
            Link::Settling { since_ms, .. } => Some(since_ms + SETTLE_MS),
            Link::Up { .. } => self.wants_renewal().then_some(feed.renewals.not_before_ms),
        });
        [own, self.patience_ends_ms(), self.loading.deadline_ms()].into_iter().flatten().min()
    }

    /// What a caller is to be told now.
    pub fn availability(&self) -> Availability {
        match self.loading.availability() {
            // On its way, though no row was read yet.
            Availability::Absent if self.feed_state() == FeedState::Subscribing => {
                Availability::StillLoading { percent: 0 }
            }
            other => other,
        }
    }

    /// Why the last load failed; see [`Loading::last_failure`].
    pub fn last_failure(&self) -> Option<&str> {
        self.loading.last_failure()
    }

    /// Loads that failed since the last that did not.
    pub fn failures(&self) -> u32 {
        self.loading.failures()
    }

    fn subscribe(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(feed) = self.feed.as_mut().filter(|feed| feed.link == Link::Off) else { return };
        feed.last += 1;
        let subscription = Subscription(feed.last);
        feed.link = Link::Dialing { subscription };
        feed.since_ms = now_ms;
        feed.held = Err(NOT_CONNECTED.to_owned());
        feed.renewals = Renewals::default();
        feed.kept_is_old = false;
        effects.push(Effect::Subscribe { subscription });
    }

    fn unsubscribe(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if let Some(feed) = &mut self.feed {
            if let Some(subscription) = feed.link.subscription() {
                effects.push(Effect::Unsubscribe { subscription });
            }
            feed.link = Link::Off;
            feed.replaying = None;
        }
        self.load(Fact::Demoted, now_ms, effects);
    }

    /// The publisher has the subscription: what is loaded from now on misses nothing.
    fn settle(&mut self, subscription: Subscription, now_ms: u64, effects: &mut Vec<Effect>) {
        if let Some(feed) = &mut self.feed {
            feed.link = Link::Up { subscription };
        }
        if *self.loading.state() == DatasetState::Absent {
            self.load(Fact::Promoted, now_ms, effects);
        }
    }

    fn replay(&mut self, attempt: Attempt, rows: u64, effects: &mut Vec<Effect>) {
        if self.loading.running() == Some(attempt)
            && let Some(feed) = &mut self.feed
        {
            feed.replaying = Some((attempt, rows));
            effects.push(Effect::Replay { attempt });
        }
    }

    fn handle_time(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match self.feed.as_ref().map_or(Link::Off, |feed| feed.link) {
            Link::Settling { subscription, since_ms } if now_ms >= since_ms + SETTLE_MS => {
                self.settle(subscription, now_ms, effects);
            }
            Link::Off | Link::Settling { .. } | Link::Dialing { .. } | Link::Up { .. } => {
                if self.patience_ends_ms().is_some_and(|end_ms| now_ms >= end_ms) {
                    self.load(Fact::Promoted, now_ms, effects);
                }
            }
        }
        self.load(Fact::TimePassed, now_ms, effects);
    }

    /// When the first load begins, though the feed be not there.
    fn patience_ends_ms(&self) -> Option<u64> {
        let feed = self.feed.as_ref().filter(|feed| feed.link != Link::Off)?;
        (*self.loading.state() == DatasetState::Absent).then_some(feed.since_ms + PATIENCE_MS)
    }

    /// Tells the loading of a fact, and keeps account of what its loads will miss.
    fn load(&mut self, fact: Fact, now_ms: u64, effects: &mut Vec<Effect>) {
        let failed = matches!(&fact, Fact::LoadFailed { attempt, .. }
            if self.loading.running() == Some(*attempt));
        let more = self.loading.handle(fact, now_ms);
        let Some(feed) = &mut self.feed else { return };
        feed.kept_is_old |= failed;
        for effect in &more {
            match effect {
                Effect::StartLoad { .. } => {
                    feed.replaying = None;
                    if std::mem::take(&mut feed.kept_is_old) {
                        effects.push(Effect::Forget);
                    }
                    feed.coming = match feed.link {
                        Link::Up { .. } => Ok(()),
                        Link::Off | Link::Dialing { .. } | Link::Settling { .. } => {
                            Err(NOT_CONNECTED.to_owned())
                        }
                    };
                }
                Effect::Publish { .. } => feed.held = feed.coming.clone(),
                Effect::CancelLoad { .. }
                | Effect::Drop
                | Effect::Replay { .. }
                | Effect::Forget
                | Effect::Subscribe { .. }
                | Effect::Unsubscribe { .. } => {}
            }
        }
        effects.extend(more);
    }

    fn wants_renewal(&self) -> bool {
        let missing = self
            .feed
            .as_ref()
            .is_some_and(|feed| matches!(feed.link, Link::Up { .. }) && feed.held.is_err());
        let ready = matches!(self.loading.state(), DatasetState::Ready { .. });
        missing && ready && self.loading.running().is_none()
    }

    fn renew_if_due(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if !self.wants_renewal() {
            return;
        }
        let failures = self.loading.failures();
        let Some(feed) = self.feed.as_mut().filter(|feed| now_ms >= feed.renewals.not_before_ms)
        else {
            return;
        };
        feed.renewals.begin(now_ms, failures);
        self.load(Fact::Outdated, now_ms, effects);
    }
}

impl Feed {
    fn miss(&mut self, reason: &str) {
        for whole in [&mut self.held, &mut self.coming] {
            if whole.is_ok() {
                *whole = Err(reason.to_owned());
            }
        }
    }
}

impl Link {
    fn subscription(self) -> Option<Subscription> {
        match self {
            Link::Off => None,
            Link::Dialing { subscription }
            | Link::Settling { subscription, .. }
            | Link::Up { subscription } => Some(subscription),
        }
    }
}

impl Renewals {
    fn begin(&mut self, now_ms: u64, failures: u32) {
        // Calm for longer than the longest pause: counted from the beginning again.
        if now_ms > self.not_before_ms.saturating_add(PAUSE_MS_MAX) {
            self.in_a_row = 0;
        }
        let pause = RENEWAL_MS.saturating_mul(1 << self.in_a_row.min(10)).min(PAUSE_MS_MAX);
        self.in_a_row = self.in_a_row.saturating_add(1);
        let after_failures = if failures == 0 { 0 } else { retry_delay_ms(failures) };
        self.not_before_ms = now_ms + pause.max(after_failures);
    }
}

const NOT_CONNECTED: &str = "the feed was not connected when the load began";
/// A publisher that says nothing has taken a subscription in after so long.
const SETTLE_MS: u64 = 500;
/// How long a load waits for its feed.
const PATIENCE_MS: u64 = 2_000;
/// Between the beginnings of two loads anew; doubled each time, up to a minute.
const RENEWAL_MS: u64 = 2_000;
const PAUSE_MS_MAX: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Subscription = Subscription(1);

    fn lost() -> FeedEvent {
        FeedEvent::Lost { reason: "cut".to_owned() }
    }

    fn started(effects: &[Effect]) -> Attempt {
        match effects {
            [Effect::StartLoad { attempt }] | [Effect::Forget, Effect::StartLoad { attempt }] => {
                *attempt
            }
            other => panic!("a load should begin, not {other:?}"),
        }
    }

    /// Subscribed, heard of, loaded, replayed: live at 100 ms.
    fn live() -> (Following, Attempt) {
        let mut machine = Following::new(LoadMode::OnPromote, true);
        assert_eq!(machine.handle(Fact::NodeStarted, 0), vec![]);
        assert_eq!(machine.feed_state(), FeedState::Off);
        let subscribe = vec![Effect::Subscribe { subscription: FIRST }];
        assert_eq!(machine.handle(Fact::Promoted, 10), subscribe);
        assert_eq!(machine.feed_state(), FeedState::Subscribing);
        assert_eq!(machine.availability(), Availability::StillLoading { percent: 0 });
        assert_eq!(machine.handle_feed(FIRST, FeedEvent::Sent, 20), vec![]);
        let attempt = started(&machine.handle_feed(FIRST, FeedEvent::Heard, 30));
        assert_eq!(machine.feed_state(), FeedState::Loading);
        loaded(&mut machine, attempt, 100);
        assert_eq!(machine.feed_state(), FeedState::Live);
        (machine, attempt)
    }

    fn loaded(machine: &mut Following, attempt: Attempt, now_ms: u64) {
        let effects = machine.handle(Fact::Loaded { attempt, rows: 5 }, now_ms);
        assert_eq!(effects, vec![Effect::Replay { attempt }]);
        let effects = machine.handle_replayed(attempt, now_ms);
        assert_eq!(effects.first(), Some(&Effect::Publish { attempt }));
    }

    #[test]
    fn it_subscribes_loads_replays_and_is_live_and_a_demotion_ends_all_of_it() {
        let (mut machine, _) = live();
        let effects = machine.handle(Fact::Demoted, 200);
        assert_eq!(effects, vec![Effect::Unsubscribe { subscription: FIRST }, Effect::Drop]);
        assert_eq!(machine.feed_state(), FeedState::Off);
        assert_eq!(machine.handle_feed(FIRST, FeedEvent::Sent, 210), vec![]);
        let again = vec![Effect::Subscribe { subscription: Subscription(2) }];
        assert_eq!(machine.handle(Fact::Promoted, 220), again);
        assert_eq!(machine.handle_feed(FIRST, FeedEvent::Heard, 230), vec![]);
        assert_eq!(machine.feed_state(), FeedState::Subscribing);
    }

    #[test]
    fn a_publisher_that_says_nothing_is_taken_to_have_subscribed_us() {
        let mut machine = Following::new(LoadMode::Preload, true);
        let _subscribe = machine.handle(Fact::NodeStarted, 0);
        let _settling = machine.handle_feed(FIRST, FeedEvent::Sent, 100);
        assert_eq!(machine.deadline_ms(), Some(100 + SETTLE_MS));
        let attempt = started(&machine.handle(Fact::TimePassed, 100 + SETTLE_MS));
        loaded(&mut machine, attempt, 700);
        assert_eq!(machine.feed_state(), FeedState::Live);
        assert_eq!(machine.handle(Fact::Promoted, 800), vec![]);
        assert_eq!(machine.handle(Fact::Demoted, 900), vec![]);
        assert_eq!(machine.feed_state(), FeedState::Live);
    }

    #[test]
    fn a_feed_that_is_not_there_holds_no_load_up_and_is_caught_up_with_later() {
        let mut machine = Following::new(LoadMode::OnPromote, true);
        let _subscribe = machine.handle(Fact::Promoted, 0);
        let _lost = machine.handle_feed(FIRST, lost(), 1);
        assert_eq!(machine.deadline_ms(), Some(PATIENCE_MS));
        let first = started(&machine.handle(Fact::TimePassed, PATIENCE_MS));
        loaded(&mut machine, first, 3_000);
        assert!(matches!(machine.feed_state(), FeedState::Stale { .. }));
        assert_eq!(machine.availability(), Availability::Ready);
        assert_eq!(machine.deadline_ms(), None);
        let _settling = machine.handle_feed(FIRST, FeedEvent::Sent, 50_000);
        let second = started(&machine.handle_feed(FIRST, FeedEvent::Heard, 50_001));
        loaded(&mut machine, second, 50_100);
        assert_eq!(machine.feed_state(), FeedState::Live);
    }

    #[test]
    fn a_feed_that_shakes_hands_and_drops_again_and_again_holds_no_load_up() {
        let mut machine = Following::new(LoadMode::OnPromote, true);
        let _subscribe = machine.handle(Fact::Promoted, 0);
        let mut now_ms = 0;
        let mut effects = vec![];
        while effects.is_empty() && now_ms < 20_000 {
            now_ms += 100;
            let event = if now_ms % 400 == 0 { FeedEvent::Sent } else { lost() };
            effects.extend(machine.handle_feed(FIRST, event, now_ms));
            effects.extend(machine.handle(Fact::TimePassed, now_ms));
        }
        assert_eq!(now_ms, PATIENCE_MS);
        let first = started(&effects);
        loaded(&mut machine, first, 3_000);
        assert!(matches!(machine.feed_state(), FeedState::Stale { .. }));
        assert_eq!(machine.availability(), Availability::Ready);
    }

    #[test]
    fn patience_ends_while_it_settles_too_and_what_is_loaded_then_is_renewed() {
        let mut machine = Following::new(LoadMode::OnPromote, true);
        let _subscribe = machine.handle(Fact::Promoted, 0);
        let _settling = machine.handle_feed(FIRST, FeedEvent::Sent, PATIENCE_MS - 100);
        assert_eq!(machine.deadline_ms(), Some(PATIENCE_MS));
        let first = started(&machine.handle(Fact::TimePassed, PATIENCE_MS));
        assert_eq!(machine.deadline_ms(), Some(PATIENCE_MS - 100 + SETTLE_MS));
        assert_eq!(machine.handle(Fact::TimePassed, PATIENCE_MS - 100 + SETTLE_MS), vec![]);
        let _replay = machine.handle(Fact::Loaded { attempt: first, rows: 5 }, 3_000);
        let effects = machine.handle_replayed(first, 3_000);
        assert_eq!(effects.first(), Some(&Effect::Publish { attempt: first }));
        let second = started(&effects[1..]);
        loaded(&mut machine, second, 3_100);
        assert_eq!(machine.feed_state(), FeedState::Live);
    }

    #[test]
    fn what_was_missed_makes_it_stale_until_a_load_that_began_afterwards_is_in() {
        let (mut machine, _) = live();
        let missed = || FeedEvent::Missed { reason: "4 are missing".to_owned() };
        let renewal = started(&machine.handle_feed(FIRST, missed(), 1_000));
        let stale = FeedState::Stale { reason: "4 are missing".to_owned() };
        assert_eq!(machine.feed_state(), stale);
        // Missed again while it loads: what it brings is newer, and not whole.
        assert_eq!(machine.handle_feed(FIRST, missed(), 1_010), vec![]);
        loaded(&mut machine, renewal, 1_100);
        assert_eq!(machine.feed_state(), stale);
        assert_eq!(machine.deadline_ms(), Some(1_000 + RENEWAL_MS));
        let renewal = started(&machine.handle(Fact::TimePassed, 1_000 + RENEWAL_MS));
        loaded(&mut machine, renewal, 3_100);
        assert_eq!(machine.feed_state(), FeedState::Live);
        // The next one waits longer: 3000 + 2 * RENEWAL_MS.
        assert_eq!(machine.handle_feed(FIRST, missed(), 3_200), vec![]);
        assert_eq!(machine.deadline_ms(), Some(1_000 + RENEWAL_MS + 2 * RENEWAL_MS));
    }

    #[test]
    fn a_lost_connection_is_waited_for_before_anything_is_loaded_anew() {
        let (mut machine, _) = live();
        assert_eq!(machine.handle_feed(FIRST, lost(), 1_000), vec![]);
        assert_eq!(machine.feed_state(), FeedState::Stale { reason: "cut".to_owned() });
        assert_eq!(machine.handle_feed(FIRST, FeedEvent::Sent, 9_000), vec![]);
        let renewal = started(&machine.handle_feed(FIRST, FeedEvent::Heard, 9_100));
        let failed = Fact::LoadFailed { attempt: renewal, reason: "no such file".to_owned() };
        assert_eq!(machine.handle(failed, 9_200), vec![]);
        assert_eq!(machine.availability(), Availability::Ready);
        let again = started(&machine.handle(Fact::TimePassed, machine.deadline_ms().unwrap()));
        assert!(again > renewal);
        // A demotion meanwhile cancels it, and its late end changes nothing.
        let effects = machine.handle(Fact::Demoted, 20_000);
        assert!(effects.contains(&Effect::CancelLoad { attempt: again }), "{effects:?}");
        assert_eq!(machine.handle(Fact::Loaded { attempt: again, rows: 1 }, 20_001), vec![]);
        assert_eq!(machine.handle_replayed(again, 20_002), vec![]);
    }

    #[test]
    fn what_was_kept_for_a_load_that_failed_is_not_laid_over_the_next() {
        let mut machine = Following::new(LoadMode::OnPromote, true);
        let _subscribe = machine.handle(Fact::Promoted, 0);
        // Nobody is there yet: nothing was kept, and what comes first is not to be forgotten.
        let _lost = machine.handle_feed(FIRST, lost(), 5);
        let _settling = machine.handle_feed(FIRST, FeedEvent::Sent, 10);
        let effects = machine.handle_feed(FIRST, FeedEvent::Heard, 20);
        let [Effect::StartLoad { attempt }] = effects[..] else { panic!("{effects:?}") };
        let reason = "no such file".to_owned();
        assert_eq!(machine.handle(Fact::LoadFailed { attempt, reason }, 30), vec![]);
        let effects = machine.handle(Fact::TimePassed, machine.deadline_ms().unwrap());
        let [Effect::Forget, Effect::StartLoad { attempt }] = effects[..] else {
            panic!("{effects:?}")
        };
        loaded(&mut machine, attempt, 2_000);
        assert_eq!(machine.feed_state(), FeedState::Live);
    }

    #[test]
    fn what_was_kept_before_a_loss_is_not_laid_over_what_is_loaded_after_it() {
        let mut machine = Following::new(LoadMode::OnPromote, true);
        let _subscribe = machine.handle(Fact::Promoted, 0);
        let _settling = machine.handle_feed(FIRST, FeedEvent::Sent, 10);
        // Something may have come, and more may have been missed, before any load began.
        let _lost = machine.handle_feed(FIRST, lost(), 20);
        let _settling = machine.handle_feed(FIRST, FeedEvent::Sent, 30);
        let effects = machine.handle_feed(FIRST, FeedEvent::Heard, 40);
        let [Effect::Forget, Effect::StartLoad { attempt: first }] = effects[..] else {
            panic!("{effects:?}")
        };
        // Missed while it runs: that goes into what it brings, and into nothing after it.
        let missed = FeedEvent::Missed { reason: "4 are missing".to_owned() };
        assert_eq!(machine.handle_feed(FIRST, missed, 50), vec![]);
        let _replay = machine.handle(Fact::Loaded { attempt: first, rows: 5 }, 60);
        let effects = machine.handle_replayed(first, 60);
        let [Effect::Publish { .. }, Effect::Forget, Effect::StartLoad { attempt }] = effects[..]
        else {
            panic!("{effects:?}")
        };
        loaded(&mut machine, attempt, 70);
        assert_eq!(machine.feed_state(), FeedState::Live);
    }

    #[test]
    fn a_dataset_without_a_feed_is_loaded_and_nothing_else() {
        let mut machine = Following::new(LoadMode::OnPromote, false);
        let attempt = started(&machine.handle(Fact::Promoted, 0));
        let effects = machine.handle(Fact::Loaded { attempt, rows: 5 }, 10);
        assert_eq!(effects, vec![Effect::Publish { attempt }]);
        assert_eq!(machine.feed_state(), FeedState::None);
        assert_eq!(machine.handle(Fact::Demoted, 20), vec![Effect::Drop]);
    }
}
