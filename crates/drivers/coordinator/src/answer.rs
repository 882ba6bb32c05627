//! What an error of the client library proves about a write.
//!
//! Only the server's own refusal is definite. Everything else leaves three possibilities open:
//! done, not done, or still to be done; the library has no single error for that.

use hotpair_core::pair::fact::{Answer, Refusal};
use zookeeper_client::{Error, MultiWriteError};

/// How a multi ended whose operation number `i` is bound to `bound_to[i]`.
pub(crate) fn of_failed_multi(what: &str, error: &MultiWriteError, bound_to: &[Refusal]) -> Answer {
    match error {
        // Refused, and yet nothing of the znodes' state: whose turn it is, another look must tell.
        MultiWriteError::OperationFailed { index, source: Error::NoAuth } => {
            tracing::warn!(what, operation = index, "refused by ZooKeeper: closed to this node");
            Answer::Ambiguous
        }
        MultiWriteError::OperationFailed { index, source } => match bound_to.get(*index) {
            Some(refusal) => {
                tracing::info!(what, operation = index, reason = %source, "refused by ZooKeeper");
                Answer::Refused(*refusal)
            }
            None => Answer::Ambiguous,
        },
        MultiWriteError::RequestFailed { source } => {
            // Core cannot tell "never possible" from "lost on the way": the operator can, by this.
            tracing::warn!(what, reason = %source, "no definite answer from ZooKeeper");
            Answer::Ambiguous
        }
    }
}

/// The session is gone for good, whatever it did before.
pub(crate) fn session_is_over(error: &Error) -> bool {
    matches!(error, Error::SessionExpired | Error::AuthFailed)
}
