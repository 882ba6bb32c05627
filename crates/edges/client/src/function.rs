//! How a function is named.

use hotpair_protocol::CallBody;
use serde::Serialize;

use crate::error::Error;

/// A function's number, or its name within a group, service and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// Its number.
    Number(u32),
    /// Its name.
    Named {
        /// `group/service/version`.
        gsv: String,
        /// The name within it.
        name: String,
    },
}

impl Function {
    pub(crate) fn call(self, arguments: impl Serialize) -> Result<CallBody, Error> {
        let arguments = serde_json::to_value(arguments)
            .map_err(|error| Error::Configuration(format!("the arguments are no JSON: {error}")))?;
        let (function, gsv, name) = match self {
            Self::Number(number) => (Some(number), None, None),
            Self::Named { gsv, name } => (None, Some(gsv), Some(name)),
        };
        Ok(CallBody { function, gsv, name, arguments, ..CallBody::default() })
    }
}

impl From<u32> for Function {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

/// `group/service/version` and the name.
impl From<(&str, &str)> for Function {
    fn from((gsv, name): (&str, &str)) -> Self {
        Self::Named { gsv: gsv.to_owned(), name: name.to_owned() }
    }
}
