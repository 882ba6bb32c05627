//! Bearer tokens. Only digests are kept, compared in constant time; the texts never appear in an
//! answer or a log.

use std::fmt;

use hotpair_http::Request;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Who may do what.
#[derive(Clone, Default)]
pub struct Tokens {
    admin: Option<[u8; 32]>,
    read: Option<[u8; 32]>,
}

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Go on.
    Granted,
    /// A token is needed, none or a wrong one was given.
    TokenNeeded,
    /// No token is configured, so that nobody may.
    NoTokenConfigured,
}

impl Tokens {
    /// From the texts of the files `admin.token_file` and `admin.read_token_file`, blanks at either
    /// end left out. An empty text is none: an empty token must not open anything.
    #[must_use]
    pub fn new(admin: Option<&str>, read: Option<&str>) -> Self {
        let digest_of = |text: &str| {
            let text = text.trim();
            (!text.is_empty()).then(|| digest(text))
        };
        Self { admin: admin.and_then(digest_of), read: read.and_then(digest_of) }
    }

    /// Orders need the admin token, from wherever.
    pub(crate) fn may_order(&self, request: &Request) -> Permission {
        match self.admin {
            None => Permission::NoTokenConfigured,
            Some(admin) if matches(request, Some(admin)) => Permission::Granted,
            Some(_) => Permission::TokenNeeded,
        }
    }

    /// Looking is free from loopback, and where no read token is configured; else it needs either
    /// token.
    pub(crate) fn may_look(&self, request: &Request) -> Permission {
        if self.read.is_none() || request.is_from_loopback() {
            return Permission::Granted;
        }
        if matches(request, self.read) || matches(request, self.admin) {
            Permission::Granted
        } else {
            Permission::TokenNeeded
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("admin", &self.admin.is_some())
            .field("read", &self.read.is_some())
            .finish()
    }
}

fn matches(request: &Request, wanted: Option<[u8; 32]>) -> bool {
    match (request.bearer(), wanted) {
        (Some(given), Some(wanted)) => digest(given).ct_eq(&wanted).into(),
        (None, _) | (_, None) => false,
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use hotpair_http::{Bytes, HeaderMap, Method};

    use super::*;

    fn request(from: &str, token: Option<&str>) -> Request {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        Request {
            method: Method::GET,
            path: "/role".into(),
            query: None,
            headers,
            body: Bytes::new(),
            from: from.parse().unwrap(),
        }
    }

    const HERE: &str = "127.0.0.1:5";
    const HERE_MAPPED: &str = "[::ffff:127.0.0.1]:5";
    const AWAY: &str = "10.0.0.2:5";

    #[test]
    fn orders_need_the_admin_token_even_from_loopback() {
        let tokens = Tokens::new(Some(" secret\n"), Some("reader"));
        assert_eq!(tokens.may_order(&request(HERE, None)), Permission::TokenNeeded);
        assert_eq!(tokens.may_order(&request(HERE, Some("reader"))), Permission::TokenNeeded);
        assert_eq!(tokens.may_order(&request(AWAY, Some("secret"))), Permission::Granted);
    }

    #[test]
    fn without_a_token_nobody_orders() {
        for tokens in [Tokens::default(), Tokens::new(Some(" \n"), None)] {
            let order = request(HERE, Some(""));
            assert_eq!(tokens.may_order(&order), Permission::NoTokenConfigured);
        }
    }

    #[test]
    fn looking_from_elsewhere_needs_a_token_where_one_is_configured() {
        let tokens = Tokens::new(Some("secret"), Some("reader"));
        assert_eq!(tokens.may_look(&request(HERE, None)), Permission::Granted);
        assert_eq!(tokens.may_look(&request(HERE_MAPPED, None)), Permission::Granted);
        assert_eq!(tokens.may_look(&request(AWAY, None)), Permission::TokenNeeded);
        assert_eq!(tokens.may_look(&request(AWAY, Some("guess"))), Permission::TokenNeeded);
        assert_eq!(tokens.may_look(&request(AWAY, Some("reader"))), Permission::Granted);
        assert_eq!(tokens.may_look(&request(AWAY, Some("secret"))), Permission::Granted);
        assert_eq!(Tokens::default().may_look(&request(AWAY, None)), Permission::Granted);
    }

    #[test]
    fn tokens_do_not_print() {
        let printed = format!("{:?}", Tokens::new(Some("secret"), None));
        assert_eq!(printed, "Tokens { admin: true, read: false }");
    }
}
