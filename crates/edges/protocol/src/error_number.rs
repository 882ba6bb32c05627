//! The error numbers of the client API. Clients of other makes hold on to them: they never change.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorNumber {
    /// 0: done.
    Done,
    /// 308000000: the pair is switching; keep the session and send the same request again after
    /// `retry_after_ms`.
    Switching,
    /// 308000001: the session is unknown or expired; log in.
    SessionUnknown,
    /// 308000002: wrong user or password.
    WrongPassword,
    /// 308000003: the request is malformed or too large; it was not executed.
    Malformed,
    /// 308000004: there is no such function.
    NoSuchFunction,
    /// 308000005: this node does not serve; `data.master` says who does, if that is known.
    NotServing,
    /// 308000006: overloaded; the request was not executed.
    Overloaded,
    /// 308000007: the request's number is older than the window.
    TooOld,
    /// 308000008: the dataset is still loading; `data.percent`.
    DatasetLoading,
    /// 308000009: the function itself failed.
    FunctionFailed,
    /// 308000010: not allowed.
    NotAllowed,
    /// 308000011: the dataset failed to load and is being tried again; `data.reason`.
    DatasetFailed,
    /// 308000012: a sidecar function was running when its master died; nobody knows the outcome.
    OutcomeUnknown,
    /// 308000013: the function's time-out passed.
    TimedOut,
}

impl ErrorNumber {
    /// Every number, in order.
    pub const ALL: [Self; 15] = [
        Self::Done,
        Self::Switching,
        Self::SessionUnknown,
        Self::WrongPassword,
        Self::Malformed,
        Self::NoSuchFunction,
        Self::NotServing,
        Self::Overloaded,
        Self::TooOld,
        Self::DatasetLoading,
        Self::FunctionFailed,
        Self::NotAllowed,
        Self::DatasetFailed,
        Self::OutcomeUnknown,
        Self::TimedOut,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Done => 0,
            Self::Switching => 308_000_000,
            Self::SessionUnknown => 308_000_001,
            Self::WrongPassword => 308_000_002,
            Self::Malformed => 308_000_003,
            Self::NoSuchFunction => 308_000_004,
            Self::NotServing => 308_000_005,
            Self::Overloaded => 308_000_006,
            Self::TooOld => 308_000_007,
            Self::DatasetLoading => 308_000_008,
            Self::FunctionFailed => 308_000_009,
            Self::NotAllowed => 308_000_010,
            Self::DatasetFailed => 308_000_011,
            Self::OutcomeUnknown => 308_000_012,
            Self::TimedOut => 308_000_013,
        }
    }

    /// The meaning of a number from the wire, if it has one.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }

    /// Its place in [`Self::ALL`], for tables of counters.
    #[must_use]
    pub fn place(self) -> usize {
        match self {
            Self::Done => 0,
            other => usize::try_from(other.number() - Self::Switching.number() + 1)
                .expect("numbers other than 0 begin at 308000000"),
        }
    }

    /// What it means, in a few words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Switching => "switching",
            Self::SessionUnknown => "session unknown or expired",
            Self::WrongPassword => "wrong user or password",
            Self::Malformed => "request malformed or too large",
            Self::NoSuchFunction => "no such function",
            Self::NotServing => "this node does not serve",
            Self::Overloaded => "overloaded, not executed",
            Self::TooOld => "request number older than the window",
            Self::DatasetLoading => "dataset still loading",
            Self::FunctionFailed => "the function itself failed",
            Self::NotAllowed => "not allowed",
            Self::DatasetFailed => "dataset failed to load",
            Self::OutcomeUnknown => "outcome unknown",
            Self::TimedOut => "the function's time-out passed",
        }
    }
}

impl fmt::Display for ErrorNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number(), self.meaning())
    }
}

impl Serialize for ErrorNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        Self::from_number(number).ok_or_else(|| {
            serde::de::Error::custom(format!("{number} is no error number of this version"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_found_again_and_has_its_own_place() {
        for (place, known) in ErrorNumber::ALL.into_iter().enumerate() {
            assert_eq!(ErrorNumber::from_number(known.number()), Some(known));
            assert_eq!(known.place(), place);
        }
        assert_eq!(ErrorNumber::from_number(308_000_014), None);
    }
}
