//! Why a call was not done: each variant is one error number, and a sentence for the caller.

use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::{Bytes, Refusal, Reply};
use hotpair_protocol::{Envelope, ErrorNumber};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::data::Data;
use crate::function::FunctionError;
use crate::passwords::LoginsFull;
pub(crate) use crate::shown::shown;
use crate::tables::{NotCommitted, Unsubmitted};
use crate::upstream::NoToken;

/// Why a call was not done. Nothing was executed, except where it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Malformed(String),
    #[error("{path} takes {wanted}, not {got}")]
    WrongMethod { path: &'static str, wanted: &'static str, got: String },
    #[error(
        "{path} is not offered by this version; there are POST /v1/login, /v1/heartbeat, \
         /v1/logout, /v1/call, /v1/result, /v1/publish and GET /v1/functions, /v1/push"
    )]
    NotOffered { path: String },
    #[error("no such function: {0}")]
    NoSuchFunction(String),
    #[error("{calls_max} calls are running already; this one was not executed")]
    Overloaded { calls_max: usize },
    #[error("all {connections_max} connections are busy; nothing was executed")]
    NoConnection { connections_max: usize },
    #[error("{outstanding_max} calls of this session are under way; this one was not executed")]
    SessionFull { outstanding_max: usize },
    #[error(
        "{outstanding_max} asynchronous calls of this session are under way or their answers wait; \
         this one was not executed"
    )]
    TicketsFull { outstanding_max: usize },
    #[error("no call with this ticket is known: its answer was fetched, or it was never accepted")]
    UnknownTicket,
    #[error(transparent)]
    LoginsFull(#[from] LoginsFull),
    #[error(transparent)]
    Unsubmitted(#[from] Unsubmitted),
    #[error("{0}; nothing was executed")]
    Busy(String),
    #[error("the session is unknown or over; log in")]
    SessionUnknown,
    #[error("this function wants a session; log in")]
    SessionWanted,
    #[error("wrong user or password")]
    WrongPassword,
    #[error("request {number} is older than the window: replies up to {floor} are gone")]
    TooOld { number: u64, floor: u64 },
    #[error("{0}")]
    NotAllowed(String),
    #[error("dataset {dataset} is still loading ({percent} %)")]
    DatasetLoading { dataset: String, percent: u8 },
    #[error("dataset {dataset} failed to load and is being tried again: {reason}")]
    DatasetFailed { dataset: String, reason: String },
    #[error("{text}")]
    Failed { text: String, data: Json },
    /// It may have been executed, or may yet be.
    #[error("function {function} took longer than {} ms", limit.as_millis())]
    TimedOut { function: u32, limit: Duration },
    #[error("function {function} is not to be had now ({why}); nothing was executed")]
    SidecarAbsent { function: u32, why: String },
    #[error("{concurrency} calls of function {function} run already; this one was not executed")]
    SidecarFull { function: u32, concurrency: usize },
    /// It is kept: asked again, it is the same.
    #[error(transparent)]
    Remembered(#[from] Remembered),
    /// It may have been executed; the next master knows.
    #[error("this node's mastership ended before the request was acknowledged")]
    Superseded,
}

impl Failure {
    pub(crate) fn error_no(&self) -> ErrorNumber {
        match self {
            Self::Malformed(_)
            | Self::WrongMethod { .. }
            | Self::NotOffered { .. }
            | Self::UnknownTicket => ErrorNumber::Malformed,
            Self::NoSuchFunction(_) => ErrorNumber::NoSuchFunction,
            Self::Overloaded { .. }
            | Self::NoConnection { .. }
            | Self::SessionFull { .. }
            | Self::TicketsFull { .. }
            | Self::LoginsFull(_)
            | Self::Unsubmitted(_)
            | Self::SidecarAbsent { .. }
            | Self::SidecarFull { .. }
            | Self::Busy(_) => ErrorNumber::Overloaded,
            Self::Remembered(remembered) => remembered.error_no,
            Self::SessionUnknown | Self::SessionWanted => ErrorNumber::SessionUnknown,
            Self::WrongPassword => ErrorNumber::WrongPassword,
            Self::TooOld { .. } => ErrorNumber::TooOld,
            Self::NotAllowed(_) => ErrorNumber::NotAllowed,
            Self::DatasetLoading { .. } => ErrorNumber::DatasetLoading,
            Self::DatasetFailed { .. } => ErrorNumber::DatasetFailed,
            Self::Failed { .. } => ErrorNumber::FunctionFailed,
            Self::TimedOut { .. } => ErrorNumber::TimedOut,
            Self::Superseded => ErrorNumber::NotServing,
        }
    }

    pub(crate) fn envelope(&self, epoch: Epoch) -> Envelope {
        let envelope = Envelope::refused(self.error_no(), epoch.0, self.to_string());
        match self {
            Self::DatasetLoading { dataset, percent } => envelope
                .with_data(json!({"dataset": dataset, "percent": percent}))
                .with_retry_after_ms(RETRY_LOADING_MS),
            Self::DatasetFailed { dataset, reason } => {
                envelope.with_data(json!({"dataset": dataset, "reason": reason}))
            }
            Self::Failed { data, .. } | Self::Remembered(Remembered { data, .. }) => {
                envelope.with_data(data.clone())
            }
            Self::SidecarAbsent { .. } => envelope.with_retry_after_ms(RETRY_ABSENT_MS),
            Self::Unsubmitted(Unsubmitted::DiskFull) => {
                envelope.with_retry_after_ms(RETRY_DISK_FULL_MS)
            }
            Self::Overloaded { .. }
            | Self::NoConnection { .. }
            | Self::SessionFull { .. }
            | Self::TicketsFull { .. }
            | Self::LoginsFull(_)
            | Self::SidecarFull { .. }
            | Self::Unsubmitted(Unsubmitted::QueueFull | Unsubmitted::NoWriter)
            | Self::Busy(_) => envelope.with_retry_after_ms(RETRY_OVERLOADED_MS),
            Self::UnknownTicket => envelope.with_data(json!({"ticket": "unknown"})),
            Self::Malformed(_)
            | Self::WrongMethod { .. }
            | Self::NotOffered { .. }
            | Self::NoSuchFunction(_)
            | Self::SessionUnknown
            | Self::SessionWanted
            | Self::WrongPassword
            | Self::TooOld { .. }
            | Self::NotAllowed(_)
            | Self::TimedOut { .. }
            | Self::Superseded => envelope,
        }
    }

    /// Whether something may have been executed all the same.
    pub(crate) fn may_be_done(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Remembered(_) | Self::Superseded)
    }

    /// A failure of a function that has a sentence only.
    pub(crate) fn failed(text: String) -> Self {
        Self::Failed { text, data: json!({}) }
    }
}

impl From<NoToken> for Failure {
    fn from(no_token: NoToken) -> Self {
        let text = no_token.to_string();
        match no_token {
            NoToken::Full(_) | NoToken::Unavailable(_) => Self::Busy(text),
            NoToken::Refused(status) => {
                Self::Failed { text, data: json!({"upstream_status": status}) }
            }
        }
    }
}

impl From<NotCommitted> for Failure {
    fn from(not_committed: NotCommitted) -> Self {
        match not_committed {
            NotCommitted::Unsubmitted(why) => Self::Unsubmitted(why),
            NotCommitted::Conflict => {
                Self::Busy("the rows that it depends on keep changing".to_owned())
            }
            NotCommitted::Superseded => Self::Superseded,
            NotCommitted::Refused(refusal) => match refusal {
                Refusal::SessionUnknown => Self::SessionUnknown,
                Refusal::TooOld { number, floor } => Self::TooOld { number, floor },
                Refusal::NotANumber { .. } => Self::failed(shown(&refusal.to_string())),
                Refusal::TooLarge { .. } | Refusal::BadName { .. } => {
                    Self::Malformed(refusal.to_string())
                }
                Refusal::Busy(why) => Self::Busy(why),
            },
        }
    }
}

impl From<FunctionError> for Failure {
    fn from(error: FunctionError) -> Self {
        use hotpair_core::services::dataset::Availability;
        match error {
            FunctionError::Failed { text, data } => Self::Failed { text, data },
            FunctionError::Malformed(what) => Self::Malformed(format!("arguments: {what}")),
            FunctionError::NotAllowed(why) => Self::NotAllowed(why),
            FunctionError::Dataset { dataset, availability } => match availability {
                Availability::Failed { reason } => Self::DatasetFailed { dataset, reason },
                Availability::StillLoading { percent } => Self::DatasetLoading { dataset, percent },
                // Between opening the gate and the first row, or just now ready.
                Availability::Absent => Self::DatasetLoading { dataset, percent: 0 },
                Availability::Ready => Self::DatasetLoading { dataset, percent: 100 },
            },
        }
    }
}

/// What came of a call that is kept like a reply, and is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error_info}")]
pub(crate) struct Remembered {
    error_no: ErrorNumber,
    error_info: String,
    data: Json,
}

impl Remembered {
    /// The function itself failed.
    pub(crate) fn failed(error_info: String, data: Json) -> Self {
        Self { error_no: ErrorNumber::FunctionFailed, error_info, data }
    }

    /// Nobody will ever know.
    pub(crate) fn unknown(error_info: String, data: Json) -> Self {
        Self { error_no: ErrorNumber::OutcomeUnknown, error_info, data }
    }

    /// As the bytes of a reply.
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = vec![MARK];
        serde_json::to_writer(&mut bytes, self).expect("texts and numbers are JSON");
        bytes.into()
    }
}

/// What a reply that is kept comes to.
pub(crate) fn outcome_of_reply(reply: &Reply) -> Result<Data, Failure> {
    if let Reply::Fixed(bytes) = reply
        && let Some((&MARK, json)) = bytes.split_first()
    {
        let remembered = serde_json::from_slice(json).unwrap_or_else(|_| {
            let text = "what came of it was kept in a form that this version does not know";
            Remembered::unknown(text.to_owned(), json!({}))
        });
        return Err(Failure::Remembered(remembered));
    }
    Ok(Data::of_reply(reply))
}

/// Begins what is no answer of a function: no JSON begins like that.
const MARK: u8 = 0;
const RETRY_LOADING_MS: u64 = 500;
const RETRY_ABSENT_MS: u64 = 500;
const RETRY_OVERLOADED_MS: u64 = 100;
const RETRY_DISK_FULL_MS: u64 = 1_000;
