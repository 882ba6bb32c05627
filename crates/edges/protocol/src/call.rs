//! The client API: the envelope around every answer, sessions, the body of a call, the list of
//! functions.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error_number::ErrorNumber;

/// The header in which whoever passes a request on says which epoch it is meant for. A node that does
/// not serve exactly that one refuses it, unexecuted.
pub const EPOCH_HEADER: &str = "hotpair-epoch";

/// Around every answer of the client API. HTTP 200 whenever the request could be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// What became of the request.
    pub error_no: ErrorNumber,
    /// The same for people: a sentence; empty when done.
    pub error_info: String,
    /// The epoch that the answer was given in; the highest known one where no epoch is served.
    pub epoch: u64,
    /// The function's answer, or what the error number promises.
    #[serde(default)]
    pub data: Value,
    /// Only where waiting helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Only in the answer of an asynchronous call, as it was kept: the call's ticket. Everything else
    /// is what a call that waited would have been answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

impl Envelope {
    /// The envelope of a request that was done.
    #[must_use]
    pub fn done(epoch: u64, data: Value) -> Self {
        let error_no = ErrorNumber::Done;
        let error_info = String::new();
        Self { error_no, error_info, epoch, data, retry_after_ms: None, ticket: None }
    }

    /// The envelope of a request that was not.
    #[must_use]
    pub fn refused(error_no: ErrorNumber, epoch: u64, error_info: impl Into<String>) -> Self {
        Self {
            error_no,
            error_info: error_info.into(),
            epoch,
            data: Value::Object(serde_json::Map::new()),
            retry_after_ms: None,
            ticket: None,
        }
    }

    /// The same with data.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }

    /// The same with advice to wait.
    #[must_use]
    pub fn with_retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

/// The body of `POST /v1/call`. A function is named by its number, or by `gsv` and `name`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallBody {
    /// The session; functions of tables and datasets want one where users are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The request's number within the session, from 1: sent again with it, it is done once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// The function's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<u32>,
    /// `group/service/version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gsv: Option<String>,
    /// The function's name within its group, service and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the function takes.
    #[serde(default)]
    pub arguments: Value,
    /// The longest time the function may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Answers up to this request number are not needed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_up_to: Option<u64>,
    /// Answer with a ticket at once.
    #[serde(default, rename = "async", skip_serializing_if = "is_false")]
    pub is_async: bool,
}

/// A [`CallBody`] as a server reads it: texts lie in the body as far as they can, and the arguments
/// are left as they came.
#[derive(Debug, Deserialize)]
pub struct CallText<'a> {
    /// The session.
    #[serde(default, borrow)]
    pub session: Option<Text<'a>>,
    /// The request's number within the session.
    #[serde(default)]
    pub request: Option<u64>,
    /// The function's number.
    #[serde(default)]
    pub function: Option<u32>,
    /// `group/service/version`.
    #[serde(default, borrow)]
    pub gsv: Option<Text<'a>>,
    /// The function's name within its group, service and version.
    #[serde(default, borrow)]
    pub name: Option<Text<'a>>,
    /// What the function takes, as JSON text.
    #[serde(default, borrow)]
    pub arguments: Option<&'a RawValue>,
    /// The longest time the function may take.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Answers up to this request number are not needed any more.
    #[serde(default)]
    pub done_up_to: Option<u64>,
    /// Answer with a ticket at once.
    #[serde(default, rename = "async")]
    pub is_async: bool,
}

/// A text that lies in what was read, unless escapes had to be taken out of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The body of `POST /v1/login`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginBody {
    /// Who.
    pub user: String,
    /// The proof; never shown.
    pub password: String,
}

impl std::fmt::Debug for LoginBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginBody").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The data of its answer.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginAnswer {
    /// The session's token: whoever has it is this user.
    pub session: String,
    /// A session that is silent for so long is over.
    pub idle_timeout_ms: u64,
}

impl std::fmt::Debug for LoginAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginAnswer")
            .field("idle_timeout_ms", &self.idle_timeout_ms)
            .finish_non_exhaustive()
    }
}

/// The body of `POST /v1/heartbeat` and of `POST /v1/logout`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionBody {
    /// The session's token.
    pub session: String,
}

impl std::fmt::Debug for SessionBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionBody").finish_non_exhaustive()
    }
}

/// The data of an asynchronous call's first answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketAnswer {
    /// What to ask for the answer with, within the session.
    pub ticket: String,
}

/// The body of `POST /v1/result`.
///
/// The answer is final if its envelope has a `ticket`, and is then not kept any more. Without one,
/// `error_no` 0 and `retry_after_ms` mean that the call is still running. Under a `request` number
/// it may be asked any number of times, like any numbered request, also when the answer was lost.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultBody {
    /// The session's token.
    pub session: String,
    /// The ticket.
    pub ticket: String,
    /// The number of this request within the session, if it is to be safe to send again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// Answers up to this request number are not needed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_up_to: Option<u64>,
}

impl std::fmt::Debug for ResultBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultBody")
            .field("ticket", &self.ticket)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// The data of event `role` of `GET /v1/push`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedRole {
    /// The epoch that is served, or was.
    pub epoch: u64,
    /// False: this stream ends now; follow it anew.
    pub serving: bool,
}

/// Body of `POST /v1/publish`, as nodes read it: the payload is passed on as it came.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishText<'a> {
    /// Who publishes; left out by whoever asks a node from its own machine.
    #[serde(default, borrow)]
    pub session: Option<Text<'a>>,
    /// What it is about.
    #[serde(borrow)]
    pub topic: Text<'a>,
    /// Anything.
    #[serde(borrow)]
    pub payload: &'a RawValue,
}

/// Body of `POST /v1/publish`, as clients write it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PublishBody<'a> {
    /// Who publishes.
    pub session: &'a str,
    /// What it is about.
    pub topic: &'a str,
    /// Anything.
    pub payload: &'a Value,
}

/// The data of event `publish` of `GET /v1/push`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Published {
    /// What it is about.
    pub topic: String,
    /// As it was published.
    pub payload: Value,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// A function as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionEntry {
    /// Its number, unique within the pair.
    pub number: u32,
    /// The group of its GSV.
    pub group: String,
    /// The service of its GSV.
    pub service: String,
    /// The version of its GSV.
    pub version: String,
    /// Its name within the GSV.
    pub name: String,
    /// Datasets it cannot do without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
}

/// The answer of `GET /v1/functions`, of function 1201 and (with `registered`) of the admin's
/// `/functions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Functions {
    /// In the order of their numbers.
    pub functions: Vec<FunctionEntry>,
    /// Whether the registry has them under this node's epoch now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<bool>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_reads_the_same_borrowed_and_owned() {
        let body = CallBody {
            session: Some("a\"b".to_owned()),
            request: Some(7),
            function: Some(1002),
            gsv: Some("a/b/1".to_owned()),
            name: Some("c".to_owned()),
            arguments: json!({"table": "t", "value": [1, 2]}),
            timeout_ms: Some(8),
            done_up_to: Some(6),
            is_async: true,
        };
        let sent = serde_json::to_string(&body).unwrap();
        let read: CallText<'_> = serde_json::from_str(&sent).unwrap();
        let own = |text: Option<Text<'_>>| text.map(|text| text.0.into_owned());
        assert!(matches!(read.name, Some(Text(Cow::Borrowed("c")))));
        let again = CallBody {
            session: own(read.session),
            request: read.request,
            function: read.function,
            gsv: own(read.gsv),
            name: own(read.name),
            arguments: serde_json::from_str(read.arguments.unwrap().get()).unwrap(),
            timeout_ms: read.timeout_ms,
            done_up_to: read.done_up_to,
            is_async: read.is_async,
        };
        assert_eq!(again, body);
        let empty: CallText<'_> = serde_json::from_str("{}").unwrap();
        assert!(empty.session.is_none() && empty.arguments.is_none() && !empty.is_async);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let secret = || "hush".to_owned();
        let login = LoginBody { user: "ann".to_owned(), password: secret() };
        let answer = LoginAnswer { session: secret(), idle_timeout_ms: 1 };
        let result = ResultBody { session: secret(), ..ResultBody::default() };
        let body = SessionBody { session: secret() };
        let shown = format!("{login:?} {answer:?} {body:?} {result:?}");
        assert!(!shown.contains("hush") && shown.contains("ann"), "{shown}");
    }
}
