//! Which database: what `store.url` means. A password in it is shown to nobody.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::config::{Host, SslMode};

/// A database.
#[derive(Clone)]
pub enum Target {
    /// A file of this node.
    Sqlite(PathBuf),
    /// A server, and a database there that the pair has in common.
    Postgres(Box<tokio_postgres::Config>),
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
    /// What the client library says.
    #[error("is no address of a PostgreSQL database: {0}")]
    Postgres(String),
    /// No host, user or database.
    #[error("names no {0}; write postgres://user:password@host/database")]
    Missing(&'static str),
    /// Encrypted connections.
    #[error("sslmode=require: TLS to the database is not built in this version")]
    Tls,
}

impl Target {
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
        let config: tokio_postgres::Config = text.parse().map_err(|error| {
            TargetError::Postgres(with_causes(&error as &(dyn std::error::Error + 'static)))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(TargetError::Missing("host"));
        }
        if config.get_user().is_none() {
            return Err(TargetError::Missing("user"));
        }
        if config.get_dbname().is_none() {
            return Err(TargetError::Missing("database"));
        }
        if config.get_ssl_mode() == SslMode::Require {
            return Err(TargetError::Tls);
        }
        Ok(Self::Postgres(Box::new(config)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(config) => {
                let ports = config.get_ports();
                for (i, host) in config.get_hosts().iter().enumerate() {
                    let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
                    let comma = if i == 0 { "" } else { "," };
                    match host {
                        Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                        Host::Unix(path) => write!(f, "{comma}{}:{port}", path.display())?,
                    }
                }
                write!(f, "/{}", config.get_dbname().unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An error with what led to it, in one line: the libraries keep the interesting part behind.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.replace('\n', " ")
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
            ("postgres://u@h/d?sslmode=require", TargetError::Tls),
            ("postgres://h/d", TargetError::Missing("user")),
            ("postgres://u@h", TargetError::Missing("database")),
        ] {
            assert_eq!(text.parse::<Target>().unwrap_err(), wanted, "{text}");
        }
        let error = "postgres://u:secret@h:x/d".parse::<Target>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
