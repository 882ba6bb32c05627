//! A follower: listens to one node's stream of events and tells the desk what it hears, and what its
//! silence means.
//!
//! ```text
//!  dial ──▶ open ──▶ event … event ──▶ quiet for a while ──▶ ask /role ──▶ answered: go on
//!   ▲        │                                                  │
//!   └─ wait ◀┴──────── refused · closed · silent ◀──────────────┘
//! ```
//!
//! An end of the stream is followed by a dial at once: whether that is refused is what tells a dead
//! process from a connection that was only lost.

use std::sync::Arc;
use std::time::Duration;

use hotpair_http::{ClientError, Dialler, Events, Method, Occasionally};
use hotpair_protocol::{Role, Status};
use tokio::time::sleep;

use crate::desk::Desk;
use crate::fact::{Fact, Loss, NodeIndex, NodeRole, NodeView};

/// Whom to follow.
#[derive(Clone)]
pub struct Follower {
    /// Its place in the configuration.
    pub node: NodeIndex,
    /// The name that it must have.
    pub name: String,
    /// The pair that it must belong to.
    pub pair: String,
    /// Its admin HTTP, `http://host:port` or `https://`.
    pub admin: String,
    /// How it is reached.
    pub dialler: Dialler,
    /// The value of `Authorization`, where a read token is configured.
    pub authorization: Option<String>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Follows a node for ever.
pub async fn follow(follower: Follower, desk: Arc<Desk>) {
    let complaint = Occasionally::default();
    let mut pause = PAUSE_MIN;
    loop {
        let Lost { loss, why, was_open } = follower.follow_once(&desk).await;
        desk.note(Fact::StreamLost(follower.node, loss));
        if was_open {
            tracing::info!(node = follower.name, ?loss, why, "the node's events are lost");
            pause = PAUSE_MIN;
        } else if let Some(left_out) = complaint.due() {
            let admin = &follower.admin;
            tracing::warn!(node = follower.name, admin, why, left_out, "cannot follow the node");
        }
        // The first dial after an end tells a dead process from a lost connection.
        if loss != Loss::Closed {
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Why a stream is not followed any more.
struct Lost {
    loss: Loss,
    why: String,
    was_open: bool,
}

impl Follower {
    async fn follow_once(&self, desk: &Desk) -> Lost {
        let mut events = match self.open().await {
            Ok(events) => events,
            Err(error) => {
                return Lost {
                    loss: loss_at_dial(&error),
                    why: error.to_string(),
                    was_open: false,
                };
            }
        };
        let lost = |loss, why| Lost { loss, why, was_open: true };
        let mut bound_asked = false;
        loop {
            match events.next(QUIET).await {
                Ok(Some(event)) if event.name == "view" => {
                    if let Err(why) = self.tell(desk, &event.data) {
                        return Lost { loss: Loss::Other, why, was_open: false };
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return lost(Loss::Closed, "the node ended it".to_owned()),
                Err(ClientError::TimedOut { .. }) => {
                    // Asked for its own sake too: a gate may close by itself, with nobody to tell.
                    match self.get("/role").await {
                        Ok(role) => {
                            if let Err(why) = self.tell(desk, &role) {
                                return Lost { loss: Loss::Other, why, was_open: false };
                            }
                        }
                        Err(error) if error.is_refused() => {
                            return lost(Loss::Refused, error.to_string());
                        }
                        Err(error) => return lost(Loss::Silent, error.to_string()),
                    }
                }
                Err(error) => return lost(Loss::Closed, error.to_string()),
            }
            if !std::mem::replace(&mut bound_asked, true)
                && let Ok(status) = self.get("/status").await
                && let Ok(Status { bound_ms, .. }) = serde_json::from_str(&status)
                && bound_ms > 0
            {
                desk.note(Fact::BoundTold(self.node, bound_ms));
            }
        }
    }

    async fn open(&self) -> Result<Events, ClientError> {
        let url = format!("{}/events", self.admin);
        self.dialler.open_events(&url, &self.headers(), DIAL_LIMIT).await
    }

    async fn get(&self, path: &str) -> Result<String, ClientError> {
        let url = format!("{}{path}", self.admin);
        let headers = self.headers();
        let answer =
            self.dialler.request(Method::GET, &url, &headers, Vec::new(), ASK_LIMIT).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.authorization.as_deref().map(|value| ("authorization", value)).into_iter().collect()
    }

    /// Tells the desk what the node says, if it is the right node.
    fn tell(&self, desk: &Desk, said: &str) -> Result<(), String> {
        let role: Role = serde_json::from_str(said).map_err(|error| format!("no role: {error}"))?;
        if role.pair != self.pair || role.node != self.name {
            return Err(format!(
                "node {} of pair {} answers where node {} of pair {} is configured",
                role.node, role.pair, self.name, self.pair
            ));
        }
        desk.note(Fact::Viewed(self.node, view(role)));
        Ok(())
    }
}

fn view(role: Role) -> NodeView {
    let Role { cluster, epoch, serving, .. } = role;
    let role = match role.role.as_str() {
        "standby" => NodeRole::Standby,
        "promoting" => NodeRole::Promoting,
        "master" => NodeRole::Master,
        "demoting" => NodeRole::Demoting,
        _ => NodeRole::Other,
    };
    NodeView { cluster, epoch, role, serving }
}

fn loss_at_dial(error: &ClientError) -> Loss {
    match error {
        _ if error.is_refused() => Loss::Refused,
        ClientError::ConnectTimedOut { .. }
        | ClientError::TimedOut { .. }
        | ClientError::Connect { .. } => Loss::Silent,
        // Reset while it died: the next dial tells.
        ClientError::Broken { .. } => Loss::Silent,
        // Somebody answers, and it is not the node.
        ClientError::Untrusted { .. }
        | ClientError::BadUrl { .. }
        | ClientError::BadHeader { .. }
        | ClientError::TooLarge { .. }
        | ClientError::Status { .. } => Loss::Other,
    }
}

/// The longest time for a stream to open.
const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// A stream that says nothing for so long is asked whether it lives.
const QUIET: Duration = Duration::from_secs(1);
/// The longest time for that.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// Between two dials; drawn around it.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
