//! The election of a node that is alone: nobody to race with, nobody to be fenced by.
//!
//! It is elected as soon as its tables can be used, in an epoch that it never had before, and stays
//! so until it resigns. Its lease never ends; it is extended long before the gate would close.

use std::sync::Arc;

use super::guard::Guard;
use super::holdings::Holdings;
use super::identity::Epoch;
use super::moment::{Moment, earlier};
use super::reason::Reason;
use super::settings::Settings;
use super::standing::Standing;
use super::zookeeper::Timing;

/// The gate is open for so long at a time.
const LEASE_MS: u64 = 3_600_000;

/// The machine. See the file's header.
#[derive(Debug)]
pub struct StandaloneElection {
    settings: Arc<Settings>,
    mastership: Option<(Epoch, Moment)>,
    seen: Epoch,
    left: Epoch,
    hold_off_until: Option<Moment>,
    closing: bool,
    guard: Option<Guard>,
}

impl StandaloneElection {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            mastership: None,
            seen: Epoch(0),
            left: Epoch(0),
            hold_off_until: None,
            closing: false,
            guard: None,
        }
    }

    // --- looks

    pub(crate) fn standing(&self) -> Standing {
        match self.mastership {
            Some((epoch, until)) => {
                Standing::Elected { epoch, until, reason: Reason::Alone, timing: Timing::default() }
            }
            None => Standing::Passed { holder: None },
        }
    }

    pub(crate) fn seen(&self) -> Epoch {
        self.seen
    }

    pub(crate) fn left(&self) -> Epoch {
        self.left
    }

    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    pub(crate) fn elected(&self) -> bool {
        self.mastership.is_some()
    }

    pub(crate) fn lease_ms_possible(&self, now: Moment) -> u64 {
        self.mastership.map_or(0, |(_, until)| until.ms_since(now))
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        let extend_at = self.mastership.map(|(_, until)| until - LEASE_MS / 2);
        earlier(extend_at, self.hold_off_until)
    }

    // --- commands

    pub(crate) fn note_seen(&mut self, epoch: Epoch) {
        self.seen = self.seen.max(epoch);
    }

    /// The gate is to be opened again after a stall: a later end of the lease does that.
    pub(crate) fn extend(&mut self, now: Moment) {
        if let Some((_, until)) = &mut self.mastership {
            *until = (*until + 1).max(now + LEASE_MS);
        }
    }

    pub(crate) fn resign(&mut self) {
        if let Some((epoch, _)) = self.mastership.take() {
            self.left = self.left.max(epoch);
        }
    }

    pub(crate) fn hold_off(&mut self, until: Moment) {
        self.hold_off_until = self.hold_off_until.max(Some(until));
    }

    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    pub(crate) fn advance(&mut self, now: Moment, held: &Holdings) {
        if self.hold_off_until.is_some_and(|until| now >= until) {
            self.hold_off_until = None;
        }
        match self.mastership {
            Some((_, until)) if now + LEASE_MS / 2 >= until => self.extend(now),
            Some(_) => {}
            None => {
                self.guard = self.check(held).err();
                if self.guard.is_none() {
                    self.seen = self.seen.max(self.left).next();
                    self.mastership = Some((self.seen, now + LEASE_MS));
                }
            }
        }
    }

    fn check(&self, held: &Holdings) -> Result<(), Guard> {
        if self.closing {
            return Err(Guard::Closing);
        }
        if !self.settings.act {
            return Err(Guard::Shadow);
        }
        if self.settings.tables {
            held.usable()?;
        }
        match self.hold_off_until {
            Some(until) => Err(Guard::HoldOff { until }),
            None => Ok(()),
        }
    }
}

/// Why orders that need a second node are refused.
pub(crate) const ALONE: &str =
    "this node is alone: coordinator.kind is \"standalone\", and there is nothing to decide";
