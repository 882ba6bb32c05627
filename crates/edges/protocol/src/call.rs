//! The client API: the envelope around every answer, the body of a call, the list of functions.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error_number::ErrorNumber;

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
}

impl Envelope {
    /// The envelope of a request that was done.
    #[must_use]
    pub fn done(epoch: u64, data: Value) -> Self {
        let error_no = ErrorNumber::Done;
        Self { error_no, error_info: String::new(), epoch, data, retry_after_ms: None }
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
    /// The session; not needed until sessions exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The request's number within the session.
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
