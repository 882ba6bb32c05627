//! The operator's orders: promote and adopt here, the planned switch in `switching`. One about
//! mastership at a time.
//!
//! An order is answered once, with a sentence: refused at once when it cannot be carried out as things
//! stand, else when its outcome is seen, or when it has taken too long.

use super::{Effect, Event, Guard, Moment, Node, Role, Standing, earlier};
use crate::pair::settings::CoordinatorKind;
use crate::pair::standalone::ALONE;
use crate::pair::switchover::Switchover;

/// Orders about mastership that are under way.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) switchover: Option<Switchover>,
    promotion: Option<Promotion>,
}

#[derive(Debug)]
struct Promotion {
    order: u64,
    deadline: Moment,
}

impl Orders {
    pub(super) fn deadline(&self) -> Option<Moment> {
        let switchover = self.switchover.as_ref().and_then(Switchover::deadline);
        earlier(switchover, self.promotion.as_ref().map(|p| p.deadline))
    }

    pub(super) fn under_way(&self) -> Option<&'static str> {
        match (&self.switchover, &self.promotion) {
            (Some(_), _) => Some("another switchover is under way"),
            (None, Some(_)) => Some("a promotion is under way"),
            (None, None) => None,
        }
    }
}

/// Answers an order, and has it kept.
fn finish(what: &str, order: u64, outcome: Result<String, String>, fx: &mut Vec<Effect>) {
    let text = match &outcome {
        Ok(text) => format!("{what} {order} done: {text}"),
        Err(why) => format!("{what} {order} not done: {why}"),
    };
    fx.push(Effect::Record(Event::Ordered { text }));
    fx.push(Effect::FinishOrder { order, outcome });
}

impl Node {
    pub(super) fn settle_orders(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        self.settle_switchover(now, fx);
        self.settle_promotion(now, fx);
    }

    pub(super) fn is_alone(&self) -> bool {
        self.settings.coordinator == CoordinatorKind::Standalone
    }

    // --- promote

    pub(super) fn handle_promote(
        &mut self,
        now: Moment,
        order: u64,
        accept_data_loss: bool,
        fx: &mut Vec<Effect>,
    ) {
        let refusal = if self.is_alone() {
            Some(ALONE)
        } else if self.role.role() != Role::Standby {
            Some("this node is master already, or on its way there or from there")
        } else {
            self.orders.under_way()
        };
        if let Some(refusal) = refusal {
            return finish("promotion", order, Err(refusal.to_owned()), fx);
        }
        let accepting =
            if accept_data_loss { ", accepting the loss of acknowledged changes" } else { "" };
        let text = format!("promotion {order} begins{accepting}");
        fx.push(Effect::Record(Event::Ordered { text }));
        let deadline = now + self.bound_ms();
        self.orders.promotion = Some(Promotion { order, deadline });
        self.watch.divergence_settled();
        if let Some(election) = self.election.zookeeper_mut() {
            election.begin_order(accept_data_loss);
        }
    }

    fn settle_promotion(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let Some(Promotion { order, deadline }) = self.orders.promotion else { return };
        let said = self.detector.heard().map(|heard| &heard.statement);
        let peer_serves = said.filter(|said| self.detector.reachable() && said.serving);
        let guard = self.election.guard().filter(|_| self.role.role() == Role::Standby);
        let outcome = if self.role.serving(now) {
            let epoch = self.role.epoch().expect("a serving node has an epoch");
            Ok(format!("this node serves now, in epoch {epoch}"))
        } else if let Some(said) = peer_serves {
            let peer = &said.identity.incarnation.node;
            let epoch = said.epoch;
            Err(format!("{peer} serves in epoch {epoch}: order a switchover there"))
        } else if let Some(guard) = guard.filter(|guard| !guard.is_transient()) {
            Err(guard.to_string())
        } else if now >= deadline {
            Err(match (guard, self.election.standing(now)) {
                (Some(guard), _) => guard.to_string(),
                (None, Standing::Passed { holder: Some(holder) }) => {
                    format!("{} holds the mastership, and its lease may not be over", holder.node)
                }
                (None, Standing::Passed { holder: None } | Standing::Silent)
                | (None, Standing::Elected { .. }) => {
                    "it was not done in time; see /why of both nodes".to_owned()
                }
            })
        } else {
            return;
        };
        finish("promotion", order, outcome, fx);
        self.orders.promotion = None;
        if let Some(election) = self.election.zookeeper_mut() {
            election.end_order();
        }
    }

    // --- adopt

    pub(super) fn handle_adopt(&mut self, order: u64, fx: &mut Vec<Effect>) {
        let outcome = self.adopt();
        finish("adoption", order, outcome, fx);
    }

    fn adopt(&mut self) -> Result<String, String> {
        if self.is_alone() {
            return Err(ALONE.to_owned());
        }
        let Some(cluster) = self.election.cluster() else {
            return Err("ZooKeeper's data was not read yet: there is nothing to adopt".to_owned());
        };
        if !self.holdings.opened() {
            return Err(Guard::TablesOpening.to_string());
        }
        if self.holdings.cluster() == Some(cluster) {
            return Err(format!("this node's tables belong to cluster {cluster} already"));
        }
        self.holdings.adopt(cluster);
        Ok(format!("this node's tables belong to cluster {cluster} now"))
    }
}
