//! `/why`: the view told in sentences, so that at 3 a.m. nobody has to put fields together.

use hotpair_core::pair::Moment;
use hotpair_core::pair::identity::{Contact, Epoch, Role};
use hotpair_core::pair::view::{PeerView, View};
use hotpair_protocol::Why;

use crate::snapshot::Snapshot;

/// The story of a node at this moment.
pub(crate) fn why(snapshot: &Snapshot, now: Moment, open: Option<Epoch>) -> Why {
    let view = &snapshot.view;
    let serving = snapshot.is_serving(open);
    let mut sentences = vec![role_sentence(snapshot, now, serving)];
    sentences.extend(phase_sentence(view));
    sentences.extend(guard_sentence(view, now));
    if snapshot.coordinator == "standalone" {
        sentences.push("There is no coordinator and no second node: it is alone.".to_owned());
    } else {
        sentences.push(contact_sentence(view, now));
        let troubles = &view.troubles;
        let known = [&troubles.coordinator, &troubles.open_znodes, &troubles.link];
        sentences.extend(known.into_iter().flatten().map(|what| format!("Trouble: {what}.")));
        sentences.extend(holder_sentence(view));
        sentences.push(peer_sentence(&view.peer, now));
        sentences.extend(sync_sentence(view));
    }
    sentences.push(format!(
        "One failure should cost at most {} without a master.",
        length(view.bound_ms)
    ));
    Why {
        node: snapshot.node.clone(),
        role: view.role.to_string(),
        serving,
        epoch: view.epoch.0,
        cause: snapshot.cause().label().to_owned(),
        sentences,
    }
}

fn role_sentence(snapshot: &Snapshot, now: Moment, serving: bool) -> String {
    let view = &snapshot.view;
    let node = &snapshot.node;
    let serves = match (view.role, serving) {
        (_, true) => " and serves",
        (Role::Master, false) => " but does not serve: its gate is closed or its lease is over",
        (Role::Standby | Role::Promoting | Role::Demoting, false) => "",
    };
    let since = length(now.ms_since(view.since));
    let (role, epoch, reason) = (view.role, view.epoch, &view.reason);
    match role {
        Role::Standby => format!("{node} has been standby for {since}: {reason}."),
        Role::Promoting | Role::Master | Role::Demoting => {
            format!("{node} has been {role} of epoch {epoch} for {since}{serves}: {reason}.")
        }
    }
}

fn phase_sentence(view: &View) -> Option<String> {
    view.phase.map(|phase| format!("It is still {phase}."))
}

fn guard_sentence(view: &View, now: Moment) -> Option<String> {
    use hotpair_core::pair::guard::Guard;
    let guard = view.guard.as_ref()?;
    let until = match guard {
        Guard::ClaimsRefused { until }
        | Guard::HoldOff { until }
        | Guard::Confirming { until, .. } => {
            format!(" (for at most another {})", length(until.ms_since(now)))
        }
        Guard::TablesOpening
        | Guard::HalfLoaded
        | Guard::LogFailed { .. }
        | Guard::UnknownCluster { .. }
        | Guard::NotInSync { .. }
        | Guard::NotCompared { .. }
        | Guard::PeerHasMore { .. }
        | Guard::NoCoordinator
        | Guard::ForeignZnode { .. }
        | Guard::Barred { .. }
        | Guard::Closing
        | Guard::Shadow
        | Guard::Twin { .. }
        | Guard::OtherCluster { .. }
        | Guard::OtherRoot { .. }
        | Guard::OtherPair { .. } => String::new(),
    };
    Some(format!("It does not try to become master: {guard}{until}."))
}

fn contact_sentence(view: &View, now: Moment) -> String {
    let coordinator = match view.contact {
        Contact::Never => "ZooKeeper was never reached since the start".to_owned(),
        Contact::Connected => match view.session_timeout_ms {
            Some(timeout) => {
                format!("ZooKeeper is connected, with a session time-out of {}", length(timeout))
            }
            None => "ZooKeeper is connected".to_owned(),
        },
        Contact::Lost => "The connection to ZooKeeper is lost".to_owned(),
    };
    match view.lease_until {
        Some(until) if until > now => {
            format!("{coordinator}; the lease lasts another {}.", length(until.ms_since(now)))
        }
        Some(until) => {
            format!("{coordinator}; the lease has been over for {}.", length(now.ms_since(until)))
        }
        None => format!("{coordinator}."),
    }
}

fn holder_sentence(view: &View) -> Option<String> {
    view.holder.as_ref().map(|holder| format!("By ZooKeeper's word {holder} holds the mastership."))
}

fn peer_sentence(peer: &PeerView, now: Moment) -> String {
    let reach = match (peer.gone, peer.reachable, peer.unanswered) {
        (true, _, _) => "its process is dead".to_owned(),
        (false, true, _) => "it answers".to_owned(),
        (false, false, 0) => "there is no link to it".to_owned(),
        (false, false, unanswered) => format!("it left {unanswered} pings in a row unanswered"),
    };
    let Some(said) = &peer.said else {
        return format!("Of the peer nothing was heard yet: {reach}.");
    };
    let node = &said.identity.incarnation.node;
    let (role, epoch, contact) = (said.role, said.epoch, said.contact);
    let ago = match peer.said_at {
        Some(at) => format!(" {} ago", length(now.ms_since(at))),
        None => String::new(),
    };
    format!(
        "The peer {node}: {reach}; it said{ago} that it is {role}, knows epoch {epoch}, and that \
         its contact with the coordinator is {contact}."
    )
}

fn sync_sentence(view: &View) -> Option<String> {
    let sentence = match (view.role, view.in_sync?) {
        (Role::Standby, true) => "By the sync record this node holds every acknowledged change.",
        (Role::Standby, false) => "By the sync record this node may lack acknowledged changes.",
        (Role::Promoting | Role::Master | Role::Demoting, true) => {
            "By the sync record the peer holds every acknowledged change."
        }
        (Role::Promoting | Role::Master | Role::Demoting, false) => {
            "By the sync record the peer may lack acknowledged changes: it would not take over."
        }
    };
    Some(sentence.to_owned())
}

/// A length of time as people say it.
fn length(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{} s", ms / 1000),
        600_000..36_000_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}
