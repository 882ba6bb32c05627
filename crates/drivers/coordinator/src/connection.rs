//! One connection of a session, on a runtime of its own that can be killed.
//!
//! The client library's task loops without a pause while connects fail at once, never notices its
//! own deadline then, and goes on when every handle to it is dropped. Dropping the runtime that it
//! lives on is the one thing that stops it.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use zookeeper_client::{Client, Error, SessionInfo};

use crate::access::Access;
use crate::tunnel;

/// A connected session. Dropped: the connection is gone, the session lives on until it expires.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
}

/// What becomes of the session when all its handles are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtDrop {
    /// It is closed, its ephemeral znodes go at once.
    Close,
    /// It lives on until the server finds it expired.
    LeaveToExpire,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{server} did not answer as a ZooKeeper server in its quorum does")]
    NoAnswer { server: String },
    #[error("{server} did not answer within {within:?}")]
    Silent { server: String, within: Duration },
    #[error("{server} says: {source}")]
    SessionOver { server: String, source: Error },
    #[error("no timer for a connection to {server}: {source}")]
    NoRuntime { server: String, source: io::Error },
    #[error("no connection to {server}: {source}")]
    NotReached { server: String, source: io::Error },
    #[error("connecting to {server} failed: {source}")]
    Failed { server: String, source: Error },
}

/// A runtime for one connection: one thread, timers, and sockets where TLS is carried.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// How to connect.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The session to attach; none for a new one.
    pub(crate) session: Option<SessionInfo>,
    /// What to ask for.
    pub(crate) session_timeout: Duration,
    /// The attempt may take so long, and later the server may be silent for so long.
    pub(crate) within: Duration,
    pub(crate) at_drop: AtDrop,
}

/// One attempt at one server.
pub(crate) async fn connect(
    access: &Access,
    server: &str,
    plan: Plan,
) -> Result<Client, ConnectError> {
    let Plan { session, session_timeout, within, at_drop } = plan;
    let mut connector = Client::connector()
        .with_session_timeout(session_timeout)
        .with_connection_timeout(within)
        .with_fail_eagerly();
    if let Some(auth) = &access.auth {
        connector = connector.with_auth("digest", auth.line());
    }
    if let Some(session) = session {
        connector = connector.with_session(session);
    }
    if at_drop == AtDrop::LeaveToExpire {
        connector = connector.with_detached();
    }
    let server = server.to_owned();
    let connecting = async {
        let entrance = match &access.tls {
            Some(tls) => tunnel::open(&server, tls).await?.to_string(),
            None => server.clone(),
        };
        Ok(connector.connect(&entrance).await)
    };
    let connected = match tokio::time::timeout(within, connecting).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(source)) => return Err(ConnectError::NotReached { server, source }),
        Err(elapsed) => Err(elapsed),
    };
    match connected {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(source)) if crate::answer::session_is_over(&source) => {
            Err(ConnectError::SessionOver { server, source })
        }
        Ok(Err(Error::NoHosts)) => Err(ConnectError::NoAnswer { server }),
        Ok(Err(source)) => Err(ConnectError::Failed { server, source }),
        Err(_elapsed) => Err(ConnectError::Silent { server, within }),
    }
}

/// Silence of a server for so long is the end of the connection: two more servers can be tried
/// before the session is over.
pub(crate) fn connection_timeout(session_timeout: Duration) -> Duration {
    session_timeout / 3
}
