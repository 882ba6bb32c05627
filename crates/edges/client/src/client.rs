//! The client: the addresses, and what is done without a session.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotpair_http::{Bytes, Dialler, Url};
use hotpair_tls::{Files, Identity, TlsError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::error::{Error, data_of};
use crate::function::Function;
use crate::session::{Session, Settings};
use crate::targets::is_address;
use crate::wire::{Ask, Availability, Wire};

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    targets: Vec<String>,
    connect_limit: Duration,
    authority: Option<PathBuf>,
    settings: Settings,
}

/// A client of a pair. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    wire: Arc<Wire>,
    settings: Settings,
}

impl Client {
    /// A client to be described.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            targets: Vec::new(),
            connect_limit: Duration::from_secs(1),
            authority: None,
            settings: Settings { call_limit: Duration::from_secs(30), log_in_again: false },
        }
    }

    /// Logs in.
    pub async fn log_in(&self, user: &str, password: &str) -> Result<Session, Error> {
        let (wire, settings) = (Arc::clone(&self.wire), self.settings.clone());
        Session::log_in(wire, settings, user, password).await
    }

    /// Calls a function without a session. Such a call has no number: it is sent again only where it was
    /// surely not executed, and may end in [`Error::OutcomeUnknown`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        function: impl Into<Function>,
        arguments: impl Serialize,
    ) -> Result<T, Error> {
        let mut call = function.into().call(arguments)?;
        let limit = self.settings.call_limit;
        call.timeout_ms = u64::try_from(limit.as_millis()).ok();
        let body = Bytes::from(serde_json::to_vec(&call)?);
        let deadline = Instant::now() + limit;
        let ask = Ask { path: "/v1/call", body, repeatable: false, limit, deadline };
        let asked = self.wire.ask(ask).await?;
        Ok(serde_json::from_value(data_of(asked.envelope)?)?)
    }

    /// How the pair stands, as the last answers show it; can be waited on for changes.
    #[must_use]
    pub fn availability(&self) -> watch::Receiver<Availability> {
        self.wire.availability()
    }
}

impl ClientBuilder {
    /// Both routers' client addresses, or both nodes': `https://host:port`, `http://host:port`, or
    /// `host:port`, which is `https` if an authority is given. The first one is tried first.
    #[must_use]
    pub fn targets(mut self, targets: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.targets = targets.into_iter().map(Into::into).collect();
        self
    }

    /// How long a call waits for its answer where nothing else is said; 30 s by default.
    #[must_use]
    pub fn call_limit(mut self, limit: Duration) -> Self {
        self.settings.call_limit = limit;
        self
    }

    /// How long a connection may take to come about; 1 s by default.
    #[must_use]
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// A file (PEM) with the authorities that sign the pair's certificates: TLS is spoken, and nobody
    /// else is trusted. Without it an `https` target must be signed by somebody whom this machine
    /// trusts.
    #[must_use]
    pub fn authority(mut self, file: impl Into<PathBuf>) -> Self {
        self.authority = Some(file.into());
        self
    }

    /// Log in again by itself when the session is over (it was silent for too long, or the tables were
    /// emptied). Off by default: whoever logs in anew may have to rebuild something. Keeps the
    /// password in memory.
    #[must_use]
    pub fn log_in_again(mut self, wanted: bool) -> Self {
        self.settings.log_in_again = wanted;
        self
    }

    /// The client. Nothing is sent yet.
    pub fn build(self) -> Result<Client, Error> {
        let bad = |why: String| Error::Configuration(why);
        if self.targets.is_empty() || self.targets.len() > TARGETS_MAX {
            let got = self.targets.len();
            return Err(bad(format!("a client needs 1 to {TARGETS_MAX} targets, and has {got}")));
        }
        let mut urls = Vec::new();
        for target in self.targets {
            let scheme = if self.authority.is_some() { "https" } else { "http" };
            let url = if target.contains("://") { target } else { format!("{scheme}://{target}") };
            let url: Url = url.parse().map_err(|error| bad(format!("{error}")))?;
            if url.path != "/" || !is_address(&url.address) {
                return Err(bad(format!("{url}: give https://HOST:PORT, and no more")));
            }
            urls.push(url);
        }
        // Nodes name each other without a scheme: there is one for all.
        let secure = urls[0].secure;
        if let Some(other) = urls.iter().find(|url| url.secure != secure) {
            let (one, other) = (urls[0].origin(), other.origin());
            return Err(bad(format!("{one} and {other}: all targets speak TLS, or none does")));
        }
        if !secure && self.authority.is_some() {
            let one = urls[0].origin();
            return Err(bad(format!("{one}: with an authority given it must be https://")));
        }
        let dialler = if secure { dialler(self.authority)? } else { Dialler::plain() };
        let addresses = urls.into_iter().map(|url| url.address).collect();
        let wire = Arc::new(Wire::new(addresses, self.connect_limit, dialler));
        Ok(Client { wire, settings: self.settings })
    }
}

/// How servers are reached that speak TLS.
fn dialler(authority: Option<PathBuf>) -> Result<Dialler, Error> {
    let bad = |error: &TlsError| Error::Configuration(error.to_string());
    let connector = match authority {
        Some(_) => Identity::load(&Files { authority, ..Files::default() })
            .map_err(|errors| bad(&errors[0]))?
            .client(&[b"http/1.1"]),
        None => Identity::nobody().client_of_the_world(&[b"http/1.1"]),
    };
    connector.map(Dialler::with_tls).map_err(|error| bad(&error))
}

const TARGETS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_asked_make_no_client() {
        let build = |targets: &[&str]| Client::builder().targets(targets.to_vec()).build();
        assert!(build(&["127.0.0.1:7000", "http://b:7000"]).is_ok());
        for bad in
            [&[][..], &["https://a:1", "http://b:1"], &["http://a:1/v1"], &["a b:1"], &["a:1"; 5]]
        {
            assert!(matches!(build(bad), Err(Error::Configuration(_))), "{bad:?}");
        }
        let trusting = |target: &str| Client::builder().authority("/nowhere.pem").targets([target]);
        let error = trusting("a:1").build().expect_err("there is no such file").to_string();
        assert!(error.contains("/nowhere.pem"), "{error}");
        let error = trusting("http://a:1").build().expect_err("it is not https").to_string();
        assert!(error.contains("must be https"), "{error}");
    }
}
