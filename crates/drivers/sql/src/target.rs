//! Which database: what `store.url` means. A password in it is shown to nobody.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hotpair_postgres::{Server, ServerError};
use hotpair_tls::{Identity, TlsError};

/// A database.
#[derive(Clone)]
pub enum Target {
    /// A file of this node.
    Sqlite(PathBuf),
    /// A server, and a database there that the pair has in common.
    Postgres(Box<Server>),
}

/// Why an address is none. Never shows the address: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither of the two.
    #[error("must begin with sqlite:/// or postgres://")]
    Scheme,
    /// The path is not from the root.
    #[error("a file is written with its whole path: sqlite:///var/lib/hotpair/store.db")]
    Path,
    /// Of the second kind, and no good.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Target {
    /// The same, ready to check whom it is connected to; this node's authority is trusted where nobody
    /// else is named.
    pub fn trusting(self, identity: Option<&Identity>) -> Result<Self, TlsError> {
        Ok(match self {
            Self::Postgres(server) => Self::Postgres(Box::new(server.trusting(identity)?)),
            file @ Self::Sqlite(_) => file,
        })
    }

    /// What an operator should know before it becomes a problem.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        match self {
            Self::Postgres(server) => server.doubt(),
            Self::Sqlite(_) => None,
        }
    }

    /// Both nodes write into it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// One word for what it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            let path = Path::new(path);
            let named = path.is_absolute() && path.file_name().is_some();
            return if named { Ok(Self::Sqlite(path.to_owned())) } else { Err(TargetError::Path) };
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(TargetError::Scheme);
        }
        let server: Server = text.parse()?;
        if server.config().get_user().is_none() {
            return Err(ServerError::Missing("user").into());
        }
        Ok(Self::Postgres(Box::new(server)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(server) => server.fmt(f),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_the_password() {
        let file: Target = "sqlite:///var/lib/hotpair/store.db".parse().unwrap();
        assert_eq!(
            (file.to_string().as_str(), file.is_shared()),
            ("/var/lib/hotpair/store.db", false)
        );
        let server: Target = "postgres://trade:secret@db.example:5433/books".parse().unwrap();
        assert_eq!(
            (server.to_string().as_str(), server.is_shared()),
            ("db.example:5433/books", true)
        );
        assert!(!format!("{server:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_to_write() {
        for (text, wanted) in [
            ("mysql://x", TargetError::Scheme),
            ("sqlite://store.db", TargetError::Path),
            ("sqlite:///", TargetError::Path),
            ("postgres://h/d", ServerError::Missing("user").into()),
            ("postgres://u@h", ServerError::Missing("database").into()),
        ] {
            assert_eq!(text.parse::<Target>().unwrap_err(), wanted, "{text}");
        }
        let error = "postgres://u:secret@h:x/d".parse::<Target>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
