//! A snapshot: all that can be looked at, as one value that the node publishes whenever it changes,
//! and its conversion into the public words.

use std::collections::BTreeMap;

use hotpair_core::pair::Moment;
use hotpair_core::pair::alert::AlertName;
use hotpair_core::pair::guard::Guard;
use hotpair_core::pair::identity::{Epoch, Role as CoreRole};
use hotpair_core::pair::reason::Reason;
use hotpair_core::pair::view::{PeerView, View};
use hotpair_protocol::{
    Addresses, AlertEntry, Alerts, DatasetStatus, FunctionEntry, Functions, PROTOCOL_VERSION,
    PeerRole, PeerStatus, PhaseLength, RequestTotals, Role, Status,
};

/// What the node shows of itself.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The role machine's own picture.
    pub view: View,
    /// The pair's name.
    pub pair: String,
    /// This node's name.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// The kind of coordinator: `zookeeper`.
    pub coordinator: String,
    /// Where others reach this node.
    pub addresses: Addresses,
    /// The datasets that are configured, in the configuration's order.
    pub datasets: Vec<DatasetStatus>,
    /// The functions of the catalogue.
    pub functions: Vec<FunctionEntry>,
    /// Whether they are registered under this node's epoch now.
    pub registered: bool,
    /// Alerts that fire, and some that ended lately.
    pub alerts: Vec<AlertRecord>,
    /// Changes of role since the process began, by [`Reason::label`].
    pub switches: BTreeMap<String, u64>,
}

/// An alert with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRecord {
    /// Which.
    pub name: AlertName,
    /// A sentence an operator can act on.
    pub text: String,
    /// When it began: milliseconds of wall clock since 1970.
    pub since_wall_ms: u64,
    /// When it ended, if it has.
    pub ended_wall_ms: Option<u64>,
}

impl Snapshot {
    /// The snapshot of a node that has just started and decided nothing.
    #[must_use]
    pub fn new(view: View, pair: &str, node: &str) -> Self {
        Self {
            view,
            pair: pair.to_owned(),
            node: node.to_owned(),
            version: String::new(),
            coordinator: "zookeeper".to_owned(),
            addresses: Addresses::default(),
            datasets: Vec::new(),
            functions: Vec::new(),
            registered: false,
            alerts: Vec::new(),
            switches: BTreeMap::new(),
        }
    }

    /// Whether this node serves, given the epoch whose gate is open at this moment. Both must say so:
    /// the gate knows the lease's end before anybody has noticed it, the view knows the epoch.
    pub(crate) fn is_serving(&self, open: Option<Epoch>) -> bool {
        self.view.serving && open == Some(self.view.epoch)
    }

    pub(crate) fn role(&self, now: Moment, open: Option<Epoch>) -> Role {
        let view = &self.view;
        Role {
            pair: self.pair.clone(),
            node: self.node.clone(),
            role: view.role.to_string(),
            serving: self.is_serving(open),
            epoch: view.epoch.0,
            phase: phase(view),
            since_ms: now.ms_since(view.since),
            coordinator: self.coordinator.clone(),
            contact: view.contact.to_string(),
            peer: peer_role(&view.peer),
            in_sync: view.in_sync,
            cluster: view.cluster.map(|cluster| cluster.to_string()),
        }
    }

    pub(crate) fn status(
        &self,
        now: Moment,
        open: Option<Epoch>,
        requests: RequestTotals,
    ) -> Status {
        let view = &self.view;
        Status {
            role: self.role(now, open),
            version: self.version.clone(),
            protocol: PROTOCOL_VERSION,
            addresses: self.addresses.clone(),
            reason: view.reason.to_string(),
            guard: view.guard.as_ref().map(ToString::to_string),
            left: view.left.0,
            holder: view.holder.as_ref().map(ToString::to_string),
            lease_left_ms: view.lease_until.map(|until| until.ms_since(now)),
            session_timeout_ms: view.session_timeout_ms,
            bound_ms: view.bound_ms,
            phases: view.phases.iter().map(phase_length).collect(),
            peer_detail: peer_status(&view.peer, now),
            datasets: self.datasets.clone(),
            functions: self.functions.len(),
            registered: self.registered,
            alerts: self.alerts().alerts,
            requests,
            switches: self.switches.clone(),
            // Asked for at the moment of answering.
            store: None,
        }
    }

    pub(crate) fn functions(&self) -> Functions {
        Functions { functions: self.functions.clone(), registered: Some(self.registered) }
    }

    pub(crate) fn alerts(&self) -> Alerts {
        let mut alerts = Alerts::default();
        for record in &self.alerts {
            match record.ended_wall_ms {
                None => alerts.alerts.push(alert_entry(record)),
                Some(_) => alerts.recent.push(alert_entry(record)),
            }
        }
        alerts.recent.sort_by_key(|entry| std::cmp::Reverse(entry.ended_ms));
        alerts
    }

    /// Why this node should not take over if the other fell away now; `None` when nothing is known
    /// that would stop it.
    pub(crate) fn unready(&self) -> Option<String> {
        let view = &self.view;
        match view.role {
            CoreRole::Master => Some("this node is master but its gate is not open".to_owned()),
            CoreRole::Promoting | CoreRole::Demoting => Some(format!("this node is {}", view.role)),
            CoreRole::Standby => {
                let stays =
                    |guard: &&Guard| !guard.is_transient() || **guard == Guard::TablesOpening;
                if let Some(guard) = view.guard.as_ref().filter(stays) {
                    return Some(format!("this node is standby and could not take over: {guard}"));
                }
                (view.in_sync == Some(false)).then(|| {
                    "this node is standby and not in sync: it may lack acknowledged changes"
                        .to_owned()
                })
            }
        }
    }

    /// Whether a switchover could be begun now; a sentence either way.
    pub(crate) fn forecast(&self, open: Option<Epoch>) -> Result<String, String> {
        let view = &self.view;
        if !self.is_serving(open) {
            return Err(format!("this node does not serve (it is {}); ask the master", view.role));
        }
        let name = view.peer.said.as_ref().map(|said| said.identity.incarnation.node.clone());
        let Some(said) = view.peer.said.as_ref().filter(|_| view.peer.reachable) else {
            let name = name.map_or_else(|| "the peer".to_owned(), |name| name.to_string());
            return Err(format!("{name} is not reachable: nobody could take over"));
        };
        let peer = &said.identity.incarnation.node;
        if view.in_sync == Some(false) {
            return Err(format!("{peer} is not in sync: it may lack acknowledged changes"));
        }
        // Whatever else the role machine would say.
        if let Some(refusal) = &view.switchover_refusal {
            return Err(refusal.clone());
        }
        match said.contact {
            hotpair_core::pair::identity::Contact::Connected => {
                Ok(format!("epoch {} would be given back, and {peer} would claim", view.epoch))
            }
            contact @ (hotpair_core::pair::identity::Contact::Never
            | hotpair_core::pair::identity::Contact::Lost) => Err(format!(
                "{peer} could not take over: its contact with the coordinator is {contact}"
            )),
        }
    }

    pub(crate) fn cause(&self) -> &Reason {
        &self.view.reason
    }
}

/// What is being done as master, on the way there or from there.
fn phase(view: &View) -> Option<String> {
    let working = view.phase.map(|phase| phase.as_str());
    view.switching.map(|step| step.as_str()).or(working).map(str::to_owned)
}

fn peer_role(peer: &PeerView) -> PeerRole {
    let said = peer.said.as_ref();
    PeerRole {
        node: said.map(|said| said.identity.incarnation.node.to_string()),
        reachable: peer.reachable,
        role: said.map(|said| said.role.to_string()),
        epoch: said.map(|said| said.epoch.0),
        clock_offset_ms: peer.clock_offset_ms,
    }
}

fn peer_status(peer: &PeerView, now: Moment) -> PeerStatus {
    let said = peer.said.as_ref();
    PeerStatus {
        gone: peer.gone,
        unanswered: peer.unanswered,
        heard_ms_ago: peer.said_at.map(|at| now.ms_since(at)),
        serving: said.map(|said| said.serving),
        contact: said.map(|said| said.contact.to_string()),
        version: said.map(|said| said.identity.version.to_string()),
        cluster: said.and_then(|said| said.cluster).map(|cluster| cluster.to_string()),
    }
}

fn phase_length((phase, ms): &(hotpair_core::pair::reason::Phase, u64)) -> PhaseLength {
    PhaseLength { phase: phase.as_str().to_owned(), ms: *ms }
}

fn alert_entry(record: &AlertRecord) -> AlertEntry {
    AlertEntry {
        name: record.name.as_str().to_owned(),
        severity: severity(record.name).to_owned(),
        text: record.text.clone(),
        since_ms: record.since_wall_ms,
        ended_ms: record.ended_wall_ms,
    }
}

/// `critical`: somebody must get up. `warning`: the pair serves, with less to fall back on.
pub(crate) fn severity(name: AlertName) -> &'static str {
    match name {
        AlertName::DualMaster
        | AlertName::NoMaster
        | AlertName::EnsembleMismatch
        | AlertName::TwinNode
        | AlertName::DatasetFailed
        | AlertName::DigestMismatch
        | AlertName::Disk
        | AlertName::Divergence => "critical",
        AlertName::PeerUnreachable
        | AlertName::CoordinatorLost
        | AlertName::CoordinatorOpen
        | AlertName::ClockSkew
        | AlertName::Flapping
        | AlertName::ReplicationBehind
        | AlertName::StoreBehind => "warning",
    }
}
