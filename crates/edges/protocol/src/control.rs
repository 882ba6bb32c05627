//! Operators' orders over the admin API.

use serde::{Deserialize, Serialize};

/// The body of `POST /switchover`; may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchoverBody {
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// The body of `POST /promote`; may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoteBody {
    /// Changes that were acknowledged may be lost by it.
    #[serde(default)]
    pub accept_data_loss: bool,
}

/// The answer of `POST /promote` and `POST /adopt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAnswer {
    /// It was done.
    pub done: bool,
    /// A sentence: what happened, or why not.
    pub text: String,
}

/// The answer of `POST /switchover`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverAnswer {
    /// The mastership was given away (with `dry_run`: it could be).
    pub done: bool,
    /// It was only asked what would happen.
    pub dry_run: bool,
    /// A sentence: what happened, or why not.
    pub text: String,
}
