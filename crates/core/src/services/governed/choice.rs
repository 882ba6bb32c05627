//! Who the two members of a service are and which one is active: the part that both nodes have, as
//! a row of [`SERVICES`](crate::tables::SERVICES) whose key is the service's name.
//!
//! The row also says which members the configuration named when it was written. As long as it names
//! the same, an operator's order outlives restarts; once it names others, the file is newer than the
//! order and wins.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The longest address, in bytes: the longest name of a host, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 260;

/// Where a member is, `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(Arc<str>);

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?}: write host:port")]
pub struct AddressError(String);

impl Address {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let plain = text.len() <= ADDRESS_BYTES_MAX && text.chars().all(|c| c.is_ascii_graphic());
        let parts = text.rsplit_once(':').filter(|_| plain);
        let good = parts.is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if good { Ok(Self(text.into())) } else { Err(AddressError(text.to_owned())) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the two members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one to begin with.
    Primary,
    /// The one that steps in.
    Standby,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Standby,
            Self::Standby => Self::Primary,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        })
    }
}

/// The two members of a service; not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The one to begin with.
    pub primary: Address,
    /// The one that steps in.
    pub standby: Address,
}

impl Members {
    /// The address of one.
    #[must_use]
    pub fn at(&self, side: Side) -> &Address {
        match side {
            Side::Primary => &self.primary,
            Side::Standby => &self.standby,
        }
    }

    /// Which one has this address.
    #[must_use]
    pub fn side_of(&self, address: &Address) -> Option<Side> {
        [Side::Primary, Side::Standby].into_iter().find(|side| self.at(*side) == address)
    }
}

/// What was decided last about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The members now; the configuration's, or an operator's.
    pub members: Members,
    /// The active one; none before the first that was up.
    pub active: Option<Side>,
    /// An operator made a member active by force that was not up: it stays so, though the other one
    /// is up, until it has been up once.
    pub held: bool,
}

/// Bytes that are no choice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0} bytes that are no choice of this version")]
pub struct ChoiceError(usize);

impl Choice {
    /// What is known before anything was decided.
    #[must_use]
    pub fn first(members: Members) -> Self {
        Self { members, active: None, held: false }
    }

    /// The address of the active one.
    #[must_use]
    pub fn active_address(&self) -> Option<&Address> {
        self.active.map(|side| self.members.at(side))
    }

    /// What a row means for a node whose configuration names these members.
    pub fn resumed(row: &[u8], configured: &Members) -> Result<Self, ChoiceError> {
        let (choice, then) = decode(row).ok_or(ChoiceError(row.len()))?;
        if then == *configured {
            return Ok(choice);
        }
        let active = choice.active_address().and_then(|address| configured.side_of(address));
        Ok(Self { members: configured.clone(), active, held: choice.held && active.is_some() })
    }

    /// As bytes: a word for the format, then a line each for active, held, the members and the
    /// configured ones. No address holds a line's end.
    #[must_use]
    pub fn encode(&self, configured: &Members) -> Vec<u8> {
        let Self { members, active, held } = self;
        let active = active.map_or("none", |side| match side {
            Side::Primary => "primary",
            Side::Standby => "standby",
        });
        let held = if *held { "held" } else { "free" };
        let lines = [
            FORMAT,
            active,
            held,
            members.primary.as_str(),
            members.standby.as_str(),
            configured.primary.as_str(),
            configured.standby.as_str(),
        ];
        lines.join("\n").into_bytes()
    }
}

fn decode(row: &[u8]) -> Option<(Choice, Members)> {
    let mut lines = std::str::from_utf8(row).ok()?.split('\n');
    if lines.next()? != FORMAT {
        return None;
    }
    let active = match lines.next()? {
        "none" => None,
        "primary" => Some(Side::Primary),
        "standby" => Some(Side::Standby),
        _ => return None,
    };
    let held = match lines.next()? {
        "held" => true,
        "free" => false,
        _ => return None,
    };
    let mut members = || {
        let mut address = || lines.next()?.parse().ok();
        Some(Members { primary: address()?, standby: address()? })
    };
    let (now, then) = (members()?, members()?);
    lines.next().is_none().then_some((Choice { members: now, active, held }, then))
}

const FORMAT: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    fn members(primary: &str, standby: &str) -> Members {
        Members { primary: primary.parse().unwrap(), standby: standby.parse().unwrap() }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["127.0.0.1:4001", "gyro-a:1", "[::1]:65535"] {
            assert_eq!(good.parse::<Address>().unwrap().as_str(), good);
        }
        for bad in ["", "gyro", ":4001", "gyro:", "gyro:0", "gyro:70000", "gy ro:1", "gyro:1\n"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
        assert!(format!("{}:1", "x".repeat(ADDRESS_BYTES_MAX)).parse::<Address>().is_err());
    }

    #[test]
    fn a_choice_is_the_same_after_its_bytes() {
        let configured = members("a:1", "b:2");
        for active in [None, Some(Side::Primary), Some(Side::Standby)] {
            for held in [false, true] {
                let choice = Choice { members: members("c:3", "b:2"), active, held };
                let row = choice.encode(&configured);
                assert_eq!(Choice::resumed(&row, &configured), Ok(choice));
                for cut in 0..row.len() {
                    // Cut within the last address it may still be one, and then of other members.
                    if let Ok(other) = Choice::resumed(&row[..cut], &configured) {
                        assert_eq!(other.members, configured);
                    }
                }
            }
        }
        assert!(Choice::resumed(b"2\nnone\nfree\na:1\nb:2\na:1\nb:2", &configured).is_err());
    }

    #[test]
    fn a_changed_configuration_wins_and_the_active_member_stays_where_it_is_still_one() {
        let choice =
            Choice { members: members("a:1", "b:2"), active: Some(Side::Standby), held: false };
        let row = choice.encode(&members("a:1", "b:2"));
        let swapped = Choice::resumed(&row, &members("b:2", "c:3")).unwrap();
        assert_eq!((swapped.active, swapped.members), (Some(Side::Primary), members("b:2", "c:3")));
        let others = Choice::resumed(&row, &members("c:3", "d:4")).unwrap();
        assert_eq!((others.active, others.members), (None, members("c:3", "d:4")));
    }
}
