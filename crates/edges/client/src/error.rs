//! Why a call has no answer that can be used.

use std::time::Duration;

use hotpair_protocol::{Envelope, ErrorNumber};
use serde_json::Value;

/// Why a call has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was given to the client makes no sense. Nothing was sent.
    #[error("{0}")]
    Configuration(String),
    /// The pair refused it, or the function failed: nothing was executed, except where the number
    /// says otherwise (308000012, 308000013).
    #[error("{error_no}: {info}")]
    Refused {
        /// The error number.
        error_no: ErrorNumber,
        /// The pair's sentence to it.
        info: String,
        /// What the error number promises.
        data: Value,
    },
    /// The session is over: log in again. The request was not executed.
    #[error("the session is over: log in again")]
    SessionOver,
    /// It is not known whether the request was executed.
    #[error("it is not known whether the request was executed: {why}")]
    OutcomeUnknown {
        /// What happened.
        why: String,
    },
    /// No answer within the call's time.
    #[error("no answer within {} ms; {}; last: {last}", limit.as_millis(),
        if *may_be_done { "it may have been executed" } else { "it was not executed" })]
    TimedOut {
        /// The call's time.
        limit: Duration,
        /// Whether it may have been executed.
        may_be_done: bool,
        /// What happened last.
        last: String,
    },
    /// The answer is not what the caller wanted to read. The call was done.
    #[error("the answer cannot be read as asked for: {0}")]
    Answer(#[from] serde_json::Error),
    /// The ticket's answer was fetched already, or the session that it belongs to is over.
    #[error("nothing is known of ticket {ticket}: its answer was taken already")]
    UnknownTicket {
        /// The ticket.
        ticket: String,
    },
}

impl Error {
    /// The error number, where the pair gave one.
    #[must_use]
    pub fn number(&self) -> Option<ErrorNumber> {
        match self {
            Self::Refused { error_no, .. } => Some(*error_no),
            Self::SessionOver => Some(ErrorNumber::SessionUnknown),
            Self::Configuration(_)
            | Self::OutcomeUnknown { .. }
            | Self::TimedOut { .. }
            | Self::Answer(_)
            | Self::UnknownTicket { .. } => None,
        }
    }
}

/// The data of an envelope that says done, or the error that it is.
pub(crate) fn data_of(envelope: Envelope) -> Result<Value, Error> {
    match envelope.error_no {
        ErrorNumber::Done => Ok(envelope.data),
        ErrorNumber::SessionUnknown => Err(Error::SessionOver),
        error_no => {
            Err(Error::Refused { error_no, info: envelope.error_info, data: envelope.data })
        }
    }
}
