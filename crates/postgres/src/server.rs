//! See the crate's header.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hotpair_tls::{Identity, TlsError, explain, name_of};
use percent_encoding::percent_decode_str;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A database at a server, and how it is spoken to.
#[derive(Clone)]
pub struct Server {
    config: Config,
    way: Way,
    /// What checks the server, once it is known whom to trust.
    tls: Option<Connector>,
}

/// What goes over the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Plain {
        /// It is written out.
        meant: bool,
    },
    Tls(Roots),
}

/// Who may have signed the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    /// The node's own authority, or else whom the machine trusts.
    Unsaid,
    /// Whom the machine trusts.
    System,
    /// Those in this file.
    File(PathBuf),
}

/// Why an address is none. Never shows the address: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// What the client library says.
    #[error("is no address of a PostgreSQL database: {0}")]
    Address(String),
    /// No host, user or database.
    #[error("names no {0}; write postgres://user:password@host/database")]
    Missing(&'static str),
    /// Words that this program does not take.
    #[error("{0}")]
    Option(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TLS does not come about: not the right server, or nobody to trust. No password was sent.
    #[error("{0}")]
    Untrusted(String),
    /// Anything else.
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let (address, options) = taken_apart(text);
        let (mut mode, mut roots, mut others) = (None, None, Vec::new());
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match &*percent_decode_str(key).decode_utf8_lossy() {
                "sslmode" => mode = Some(decoded(value)?),
                SSL_ROOT_CERT => roots = Some(decoded(value)?),
                "sslcert" | "sslkey" | "sslpassword" => {
                    return Err(refused(&format!(
                        "{key}: certificates of our own are not shown to databases in this version: \
                         let the server ask for the password"
                    )));
                }
                _ => others.push(option),
            }
        }
        let way = way(mode.as_deref(), roots)?;
        let mut address = address.to_owned();
        if !others.is_empty() {
            address.push('?');
            address.push_str(&others.join("&"));
        }
        let mut config: Config = address
            .parse()
            .map_err(|error: tokio_postgres::Error| ServerError::Address(with_causes(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ServerError::Missing("host"));
        }
        let odd = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if config.get_hosts().iter().any(odd) {
            return Err(refused(
                "there are two @ in its address: write %40 for one of the password",
            ));
        }
        if config.get_dbname().is_none() {
            return Err(ServerError::Missing("database"));
        }
        match &way {
            Way::Plain { .. } => config.ssl_mode(SslMode::Disable),
            Way::Tls(_) => config.ssl_mode(SslMode::Require),
        };
        if matches!(way, Way::Tls(_)) {
            check_names(&config)?;
        }
        Ok(Self { config, way, tls: None })
    }
}

/// What stands before the options, and the options.
fn taken_apart(text: &str) -> (&str, &str) {
    // A question mark of the password is none.
    let host = text.find('@').map_or(0, |at| at + 1);
    match text[host..].find('?') {
        Some(mark) => (&text[..host + mark], &text[host + mark + 1..]),
        None => (text, ""),
    }
}

fn decoded(value: &str) -> Result<String, ServerError> {
    let text = percent_decode_str(value).decode_utf8();
    text.map(String::from).map_err(|_| refused("an option of its address is no text"))
}

fn refused(what: &str) -> ServerError {
    ServerError::Option(what.to_owned())
}

fn way(mode: Option<&str>, roots: Option<String>) -> Result<Way, ServerError> {
    let encrypted = match mode {
        None | Some("disable" | "prefer") => false,
        Some("require" | "verify-full") => true,
        Some("verify-ca") => {
            return Err(refused(
                "sslmode=verify-ca does not check whose certificate it is: write verify-full, and issue \
                 the server a certificate that names its host",
            ));
        }
        Some("allow") => {
            return Err(refused(
                "sslmode=allow may be plain text or not: write disable if plain text is meant, or \
                 verify-full",
            ));
        }
        Some(other) => {
            return Err(refused(&format!(
                "sslmode={other:?}: must be disable, prefer, require or verify-full"
            )));
        }
    };
    match (encrypted, roots) {
        (false, None) => Ok(Way::Plain { meant: mode == Some("disable") }),
        (false, Some(_)) => Err(refused(
            "sslrootcert is given and nothing is encrypted: write sslmode=verify-full as well",
        )),
        (true, None) => Ok(Way::Tls(Roots::Unsaid)),
        (true, Some(name)) if name == "system" => Ok(Way::Tls(Roots::System)),
        (true, Some(file)) if file.starts_with('/') => Ok(Way::Tls(Roots::File(file.into()))),
        (true, Some(file)) => Err(refused(&format!(
            "sslrootcert={file:?}: write the file's whole path, or system for those whom this machine \
             trusts"
        ))),
    }
}

/// A certificate names a host; a socket file has none, and an address alone is no name to ask for.
fn check_names(config: &Config) -> Result<(), ServerError> {
    if config.get_hosts().is_empty() {
        return Err(refused(
            "sslmode needs a host, whose name the certificate has, beside hostaddr",
        ));
    }
    for host in config.get_hosts() {
        match host {
            Host::Tcp(name) => {
                name_of(name).map_err(|error| refused(&error.to_string()))?;
            }
            Host::Unix(path) => {
                return Err(refused(&format!(
                    "{} is a socket of this machine, where PostgreSQL has no TLS: write \
                     sslmode=disable",
                    path.display()
                )));
            }
        }
    }
    Ok(())
}

impl Server {
    /// The same, ready to check whom it is connected to: files are read now, and used until the end. This
    /// node's authority is trusted where the address names nobody.
    pub fn trusting(mut self, identity: Option<&Identity>) -> Result<Self, TlsError> {
        self.tls = self.connector(identity)?;
        Ok(self)
    }

    /// As the client library has it.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What an operator should know before it becomes a problem.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        if self.way != (Way::Plain { meant: false }) {
            return None;
        }
        let far = |address: &IpAddr| !address.is_loopback();
        let far = match self.config.get_hostaddrs() {
            [] => self.config.get_hosts().iter().any(|host| match host {
                Host::Tcp(name) => {
                    name != "localhost" && name.parse().map_or(true, |address| far(&address))
                }
                Host::Unix(_) => false,
            }),
            addresses => addresses.iter().any(far),
        };
        far.then(|| {
            format!(
                "{self} is not on this machine: all rows travel there in plain text, and whoever \
                 answers in its place can ask for the password. Write ?sslmode=verify-full (with \
                 &sslrootcert=/path/ca.pem), or ?sslmode=disable if that is meant"
            )
        })
    }

    /// Connects, and keeps the connection going until the task is aborted or the client dropped.
    /// `application`: what the server is told of us.
    pub async fn connect(
        &self,
        application: &str,
    ) -> Result<(Client, JoinHandle<()>), ConnectError> {
        let mut config = self.config.clone();
        config
            .application_name(application)
            .keepalives_idle(UNANSWERED_MAX)
            .tcp_user_timeout(UNANSWERED_MAX);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WITHIN);
        }
        // Whoever waits for an answer is told of the connection's end.
        match self.ready()? {
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                Ok((client, tokio::spawn(async move { drop(connection.await) })))
            }
            Some(Connector { tls, trusts }) => {
                let connected = config.connect(tls).await;
                let (client, connection) = connected.map_err(|error| in_words(error, &trusts))?;
                Ok((client, tokio::spawn(async move { drop(connection.await) })))
            }
        }
    }

    /// Asks the server to give up what a connection is waiting for; over TLS, if that one is.
    pub async fn cancel(&self, token: &CancelToken) -> Result<(), ConnectError> {
        match self.ready()? {
            None => Ok(token.cancel_query(NoTls).await?),
            Some(Connector { tls, trusts }) => {
                token.cancel_query(tls).await.map_err(|error| in_words(error, &trusts))
            }
        }
    }

    fn ready(&self) -> Result<Option<Connector>, ConnectError> {
        let told = |error: TlsError| ConnectError::Untrusted(error.to_string());
        self.tls.clone().map_or_else(|| self.connector(None).map_err(told), |tls| Ok(Some(tls)))
    }

    fn connector(&self, identity: Option<&Identity>) -> Result<Option<Connector>, TlsError> {
        let Way::Tls(roots) = &self.way else { return Ok(None) };
        let own = identity.filter(|identity| identity.trusts_somebody());
        let identity = match (roots, own) {
            (Roots::File(file), _) => Identity::of_authority(SSL_ROOT_CERT, file)?,
            // A server that trusts somebody else would take our certificate for a wrong one.
            (Roots::Unsaid, Some(own)) => own.without_certificate(),
            (Roots::Unsaid, None) | (Roots::System, _) => Identity::nobody(),
        };
        let connector = if identity.trusts_somebody() {
            identity.client(PROTOCOLS)?
        } else {
            identity.client_of_the_world(PROTOCOLS)?
        };
        let tls = MakeRustlsConnect::new((**connector.config()).clone());
        Ok(Some(Connector { tls, trusts: connector.trusts().to_owned() }))
    }
}

#[derive(Clone)]
struct Connector {
    tls: MakeRustlsConnect,
    trusts: String,
}

/// What TLS has against it is hidden two errors deep.
fn in_words(error: tokio_postgres::Error, trusts: &str) -> ConnectError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.and_then(explain) {
        Some(why) => ConnectError::Untrusted(format!("TLS: {why} (trusted: {trusts})")),
        None => ConnectError::Postgres(error),
    }
}

/// An error with what led to it, in one line: the libraries keep the interesting part behind.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
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

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        let comma = |i: usize| if i == 0 { "" } else { "," };
        let hosts = self.config.get_hosts();
        for (i, host) in hosts.iter().enumerate() {
            match host {
                Host::Tcp(name) => write!(f, "{}{name}:{}", comma(i), port(i))?,
                Host::Unix(path) => write!(f, "{}{}:{}", comma(i), path.display(), port(i))?,
            }
        }
        for (i, address) in self.config.get_hostaddrs().iter().enumerate() {
            if hosts.is_empty() {
                write!(f, "{}{address}:{}", comma(i), port(i))?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        (&self.config, &self.way) == (&other.config, &other.way)
    }
}

impl Eq for Server {}

/// libpq's name for the file with whom to trust.
const SSL_ROOT_CERT: &str = "sslrootcert";
/// What is spoken over TLS (ALPN), which newer servers look at.
const PROTOCOLS: &[&[u8]] = &[b"postgresql"];
/// A server that does not take a connection for so long is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A server whose machine is gone is noticed.
const UNANSWERED_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Server {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn words_of_libpq_say_what_goes_over_the_connection() {
        let file = |path: &str| Way::Tls(Roots::File(path.into()));
        for (options, wanted) in [
            ("", Way::Plain { meant: false }),
            ("?sslmode=prefer", Way::Plain { meant: false }),
            ("?sslmode=disable", Way::Plain { meant: true }),
            ("?sslmode=require", Way::Tls(Roots::Unsaid)),
            ("?sslmode=verify-full", Way::Tls(Roots::Unsaid)),
            ("?sslmode=verify-full&sslrootcert=system", Way::Tls(Roots::System)),
            ("?sslrootcert=/a/ca.pem&connect_timeout=3&sslmode=require", file("/a/ca.pem")),
            ("?ssl%6dode=verify%2Dfull&sslrootcert=/a%20b/ca.pem", file("/a b/ca.pem")),
        ] {
            let server = server(&format!("postgres://u:wh?t@db.example:5433/books{options}"));
            assert_eq!(server.way, wanted, "{options}");
            let mode = server.config.get_ssl_mode();
            assert_eq!(mode == SslMode::Require, matches!(wanted, Way::Tls(_)), "{options}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_write_and_without_the_password() {
        for (text, wanted) in [
            ("postgres://u:hush@h/d?sslmode=verify-ca", "write verify-full"),
            ("postgres://u:hush@h/d?sslmode=allow", "write disable"),
            ("postgres://u:hush@h/d?sslmode=always", "must be disable, prefer, require"),
            ("postgres://u:hush@h/d?sslrootcert=/ca.pem", "sslmode=verify-full as well"),
            ("postgres://u:hush@h/d?sslmode=disable&sslrootcert=/ca.pem", "nothing is encrypted"),
            ("postgres://u:hush@h/d?sslmode=require&sslrootcert=ca.pem", "whole path"),
            ("postgres://u:hush@h/d?sslmode=require&sslkey=/k", "sslkey"),
            ("postgres://u:hush@%2Frun%2Fpg/d?sslmode=require", "/run/pg is a socket"),
            ("postgres://u:hush@/d?hostaddr=10.0.0.9&sslmode=require", "beside hostaddr"),
            ("postgres://u:hush@a%20b/d?sslmode=require", "\"a b\" is no name"),
            ("postgres://u:hush@h/d?colour=red", "colour"),
            ("postgres://u:hush@/d", "names no host"),
            ("postgres://u:hush@h", "names no database"),
            ("postgres://u:hush@h:x/d", "no address of a PostgreSQL"),
        ] {
            let error = text.parse::<Server>().unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains("hush"), "{text}: {error}");
        }
    }

    #[test]
    fn plain_text_to_another_machine_is_told_unless_it_is_written_out() {
        for (text, told) in [
            ("postgres://u:hush@db.example:5433/d", true),
            ("postgres://u:hush@127.0.0.1,10.0.0.9/d?sslmode=prefer", true),
            ("postgres://u:hush@localhost/d?hostaddr=10.0.0.9", true),
            ("postgres://u:hush@db.example/d?hostaddr=127.0.0.1", false),
            ("postgres://u:hush@localhost/d", false),
            ("postgres://u:hush@127.0.0.2/d", false),
            ("postgres://u:hush@[::1]/d", false),
            ("postgres://u:hush@%2Frun%2Fpostgresql/d", false),
            ("postgres://u:hush@db.example/d?sslmode=disable", false),
            ("postgres://u:hush@db.example/d?sslmode=require", false),
        ] {
            let doubt = server(text).doubt();
            assert_eq!(doubt.is_some(), told, "{text}: {doubt:?}");
            assert!(!doubt.unwrap_or_default().contains("hush"));
        }
    }

    #[test]
    fn a_file_of_authorities_is_looked_at_before_anybody_connects() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let refused = |server: &Server| server.clone().trusting(None).unwrap_err().to_string();
        let server = server(&format!(
            "postgres://u:hush@h/d?sslmode=require&sslrootcert={}",
            file.display()
        ));
        let missing = refused(&server);
        assert!(missing.contains("sslrootcert = ") && missing.contains("ca.pem"), "{missing}");
        std::fs::write(&file, "not a certificate").unwrap();
        let broken = refused(&server);
        assert!(broken.contains("no certificate (PEM) in it"), "{broken}");
        let authority = hotpair_tls::testing::Authority::new(folder.path());
        assert_eq!(authority.file().file_name().unwrap(), "authority.pem");
        std::fs::copy(authority.file(), &file).unwrap();
        let ready = server.trusting(None).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(ready.ready().unwrap().unwrap().trusts, format!("{file:?}"));
    }

    #[test]
    fn the_nodes_authority_vouches_where_the_address_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let authority = hotpair_tls::testing::Authority::new(folder.path());
        let identity = authority.identity("a", &["127.0.0.1"]);
        let server = server("postgres://u@h/d?sslmode=require").trusting(Some(&identity)).unwrap();
        let Connector { trusts, .. } = server.ready().unwrap().unwrap();
        assert_eq!(trusts, format!("{:?}", authority.file().display().to_string()));
    }
}
