//! A session for one errand: opened, used and closed on a thread of its own, so that nothing of the
//! client library is left behind whatever happens.

use std::time::Duration;

use tokio::sync::oneshot;
use zookeeper_client::{Client, SessionState};

use crate::access::Access;
use crate::connection::{self, AtDrop, ConnectError, Plan, connection_timeout};

/// Why the errand did not get done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShortSessionError {
    #[error("no ZooKeeper server could be used: {0}")]
    Unreachable(String),
    #[error("ZooKeeper did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("no thread or timer for a ZooKeeper session: {0}")]
    NoRuntime(std::io::Error),
    #[error("the thread of a ZooKeeper session ended early")]
    ThreadEnded,
}

/// What a short session asks for.
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
/// How long the server gets to confirm that the session of an errand is closed.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(300);

/// Runs the errand on the first server that lets us in.
pub(crate) async fn run<T: Send + 'static>(
    access: &Access,
    within: Duration,
    errand: impl AsyncFnOnce(&Client) -> T + Send + 'static,
) -> Result<T, ShortSessionError> {
    let access = access.clone();
    let (done, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name("zookeeper-short".to_owned());
    let body = move || {
        let result = match connection::runtime() {
            Ok(runtime) => runtime.block_on(async {
                let whole = async {
                    let client = open(&access).await?;
                    let result = errand(&client).await;
                    close(client, CLOSE_TIME_MAX).await;
                    Ok(result)
                };
                let timed = tokio::time::timeout(within, whole).await;
                timed.unwrap_or(Err(ShortSessionError::TimedOut(within)))
            }),
            Err(error) => Err(ShortSessionError::NoRuntime(error)),
        };
        let _ = done.send(result); // nobody waits any more: the errand is done all the same
    };
    thread.spawn(body).map_err(ShortSessionError::NoRuntime)?;
    answer.await.unwrap_or(Err(ShortSessionError::ThreadEnded))
}

async fn open(access: &Access) -> Result<Client, ShortSessionError> {
    let mut reasons = Vec::new();
    for server in &access.servers {
        let plan = Plan {
            session: None,
            session_timeout: SESSION_TIMEOUT,
            within: connection_timeout(SESSION_TIMEOUT),
            at_drop: AtDrop::Close,
        };
        match connection::connect(access, server, plan).await {
            Ok(client) => return Ok(client),
            Err(
                error @ (ConnectError::NoAnswer { .. }
                | ConnectError::Silent { .. }
                | ConnectError::SessionOver { .. }
                | ConnectError::NoRuntime { .. }
                | ConnectError::NotReached { .. }
                | ConnectError::Failed { .. }),
            ) => reasons.push(error.to_string()),
        }
    }
    if reasons.is_empty() {
        reasons.push("none is configured".to_owned());
    }
    Err(ShortSessionError::Unreachable(reasons.join("; ")))
}

/// Closes the session by dropping its last handle; waits so long for the server's word.
/// True when the server confirmed it.
pub(crate) async fn close(client: Client, within: Duration) -> bool {
    let mut states = client.state_watcher();
    drop(client);
    let closed = async {
        loop {
            let state = states.changed().await;
            if state.is_terminated() || state == SessionState::Disconnected {
                return state == SessionState::Closed;
            }
        }
    };
    tokio::time::timeout(within, closed).await.unwrap_or(false)
}
