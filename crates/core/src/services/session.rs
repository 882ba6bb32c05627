//! A session: who logged in, and since when. A row of [`SESSIONS`](crate::tables::SESSIONS) whose
//! key is the digest of the session's token, so that nobody who reads tables or logs can use it.
//!
//! When a session was last heard of is no part of it: that is not replicated. The clock of a session
//! runs only while a master serves ([`is_over`]), so that an outage logs nobody out.

use std::fmt;

use thiserror::Error;

use crate::pair::Moment;

/// The longest name of a user, in bytes.
pub const USER_BYTES_MAX: usize = 256;

/// What a session's row says.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Who logged in.
    pub user: String,
    /// What the external investment system knows this user by, where it was asked.
    pub user_token: Option<String>,
    /// When, in milliseconds of wall clock since 1970; for people.
    pub created_wall_ms: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has the token is this user there.
        f.debug_struct("Session").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Bytes that are no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// Written by a later version.
    #[error("a session of format {0}; this version knows {FORMAT}")]
    OtherFormat(u8),
    /// Too short, too long, or texts that are no texts.
    #[error("a session of {0} bytes that cannot be read")]
    Broken(usize),
}

impl Session {
    /// As bytes: format, creation, then user and token with their lengths before them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let token = self.user_token.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(14 + self.user.len() + token.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.created_wall_ms.to_le_bytes());
        bytes.push(u8::from(self.user_token.is_some()));
        for text in [self.user.as_str(), token] {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
        }
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SessionError> {
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(&other) => return Err(SessionError::OtherFormat(other)),
            None => return Err(SessionError::Broken(0)),
        }
        Self::decode_rest(&bytes[1..]).ok_or(SessionError::Broken(bytes.len()))
    }

    fn decode_rest(bytes: &[u8]) -> Option<Self> {
        let (created, bytes) = bytes.split_first_chunk::<8>()?;
        let (has_token, bytes) = bytes.split_first()?;
        let (user, bytes) = text(bytes)?;
        let (token, bytes) = text(bytes)?;
        bytes.is_empty().then_some(Self {
            user,
            user_token: (*has_token == 1).then_some(token),
            created_wall_ms: u64::from_le_bytes(*created),
        })
    }
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, bytes) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = bytes.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

/// Whether a session has been silent for too long: since it was last heard of, or since this node
/// began to serve, whichever came later.
#[must_use]
pub fn is_over(now: Moment, heard: Option<Moment>, serving: Moment, idle_timeout_ms: u64) -> bool {
    let since = heard.map_or(serving, |heard| heard.max(serving));
    now.ms_since(since) >= idle_timeout_ms
}

const FORMAT: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_reads_as_it_was_written() {
        for user_token in [None, Some(String::new()), Some("upstream-7".to_owned())] {
            let session =
                Session { user: "müller".to_owned(), user_token, created_wall_ms: u64::MAX };
            assert_eq!(Session::decode(&session.encode()), Ok(session));
        }
    }

    #[test]
    fn broken_bytes_are_an_error_and_no_panic() {
        let session =
            Session { user: "u".to_owned(), user_token: Some("t".to_owned()), created_wall_ms: 5 };
        let good = session.encode();
        for end in 0..good.len() {
            assert!(Session::decode(&good[..end]).is_err());
        }
        let longer = [good.as_slice(), b"x"].concat();
        assert_eq!(Session::decode(&longer), Err(SessionError::Broken(longer.len())));
        assert_eq!(Session::decode(&[9]), Err(SessionError::OtherFormat(9)));
    }

    #[test]
    fn the_clock_of_a_session_runs_only_while_a_master_serves() {
        let at = Moment;
        assert!(!is_over(at(200), Some(at(100)), at(0), 101));
        assert!(is_over(at(200), Some(at(100)), at(0), 100));
        // Not heard of since this node serves, or only before: counted from then on.
        assert!(!is_over(at(1_000), None, at(950), 100));
        assert!(!is_over(at(1_000), Some(at(100)), at(950), 100));
        assert!(is_over(at(1_050), Some(at(100)), at(950), 100));
    }
}
