//! The transcript: what happened, a line an event, for people.

use std::fmt::{Arguments, Write};

use hotpair_core::pair::effect::{Effect, ZooKeeperRequest};
use hotpair_core::pair::fact::{Answer, Fact, ZooKeeperEvent};

use super::clock::Micros;

/// The text, if anybody wants it.
#[derive(Debug)]
pub(crate) struct Transcript {
    text: Option<String>,
}

impl Transcript {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { text: wanted.then(String::new) }
    }

    pub(crate) fn wanted(&self) -> bool {
        self.text.is_some()
    }

    pub(crate) fn line(&mut self, at: Micros, who: &str, what: Arguments<'_>) {
        if let Some(text) = &mut self.text {
            let (s, us) = (at / 1_000_000, at % 1_000_000);
            writeln!(text, "{s:>4}.{us:06} {who:<2} {what}").expect("a String takes all");
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.text.unwrap_or_default()
    }
}

/// The fact in a few words; `None` for what happens all the time.
pub(crate) fn fact_line(fact: &Fact) -> Option<String> {
    Some(match fact {
        Fact::ZooKeeper(zk) => return zookeeper_line(zk.generation, &zk.what),
        Fact::LinkOpened { statement } => {
            format!("link opened to {}", statement.identity.incarnation.node)
        }
        Fact::DialFailed { how } => format!("dial failed: {how:?}"),
        Fact::LinkEnded { how } => format!("link ended: {how:?}"),
        Fact::PeerAsked { .. } | Fact::PingAnswered { .. } | Fact::ClockMeasured { .. } => {
            return None;
        }
        Fact::StrangerMet { who } => format!("stranger met: {who}"),
        Fact::LinkTroubled { what } => format!("no link: {what}"),
        Fact::GateOpened { epoch } => format!("gate opened, epoch {epoch}"),
        Fact::Drained { epoch, hold } => format!("drained, epoch {epoch}, hold {hold}"),
        Fact::Registered { epoch, .. } => format!("registered, epoch {epoch}"),
        Fact::DatasetsSettled { epoch, failed } => {
            format!("datasets settled, epoch {epoch}, {failed} failed")
        }
        Fact::PromotionFailed { epoch, .. } => format!("promotion failed, epoch {epoch}"),
        Fact::ServingStalled { for_ms } => format!("serving stalled for {for_ms} ms"),
        Fact::DatasetFailed { name, reason } => format!("dataset {name}: {reason:?}"),
        Fact::StoreBehind { what } => format!("store behind: {what:?}"),
        Fact::Tables(said) => format!("tables: {said:?}"),
        Fact::PromoteOrdered { order, .. } => format!("promotion {order} ordered"),
        Fact::AdoptOrdered { order } => format!("adoption {order} ordered"),
        Fact::SwitchoverOrdered { order } => format!("switchover {order} ordered"),
        Fact::ShutdownOrdered => "shutdown ordered".to_owned(),
    })
}

fn zookeeper_line(generation: u64, event: &ZooKeeperEvent) -> Option<String> {
    let what = match event {
        ZooKeeperEvent::HeartbeatAnswered { answer: Answer::Done { .. }, .. }
        | ZooKeeperEvent::MasterChanged { gone: false } => return None,
        ZooKeeperEvent::Looked { picture } => {
            let master = picture.master.as_ref().map_or("nobody".to_owned(), |m| {
                format!("{} epoch {} life {} v{}", m.node, m.epoch, m.life, m.version)
            });
            let e = &picture.epoch;
            let clean = if e.clean { " clean" } else { "" };
            format!("looked: master {master}; epoch {}{clean} v{}", e.epoch, e.version)
        }
        ZooKeeperEvent::SessionOpened { session, .. } => format!("session {:x} opened", session.0),
        other => format!("{other:?}"),
    };
    Some(format!("zookeeper/{generation} {what}"))
}

/// The effect in a few words; `None` for what happens all the time.
pub(crate) fn effect_line(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::ZooKeeper(order) => match &order.what {
            ZooKeeperRequest::Heartbeat { .. } | ZooKeeperRequest::Look => return None,
            what => format!("{what:?}"),
        },
        Effect::SendPing { .. } | Effect::AnswerPeer { .. } | Effect::ExtendLease { .. } => {
            return None;
        }
        Effect::Record(event) => format!("«{event:?}»"),
        Effect::Dial { .. } => "Dial".to_owned(),
        other => format!("{other:?}"),
    })
}
