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
    /// The phases gone through, in order; with `dry_run` those that would be, with their limits.
    #[serde(default)]
    pub phases: Vec<SwitchoverPhase>,
    /// The epoch that is served at the end, as far as it is known; with `dry_run` the one of now.
    #[serde(default)]
    pub epoch: u64,
    /// Why it was not done.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A phase of a planned switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverPhase {
    /// `preflight`, `hold`, `drain`, `barrier`, `handover`, `resign` or `takeover`.
    pub phase: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// The longest it may take, where it has a limit of its own; with `dry_run` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms_max: Option<u64>,
}
