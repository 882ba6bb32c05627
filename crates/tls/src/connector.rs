//! The side that dials.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::identity::{AUTHORITY, provider};
use crate::{Identity, Stream, TlsError, explain};

/// Speaks TLS on connections that somebody else dialled, to servers that the authority has signed and
/// that are called what they were dialled by. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    trusts: Arc<str>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).field("trusts", &self.trusts).finish()
    }
}

impl Connector {
    pub(crate) fn new(identity: &Identity, protocols: &[&[u8]]) -> Result<Self, TlsError> {
        let Some(authority) = &identity.authority else {
            let why = "without it no server can be trusted";
            return Err(TlsError::Missing { missing: AUTHORITY, why });
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_root_certificates(Arc::clone(&authority.roots));
        let mut config = match &identity.own {
            Some(own) => {
                let own = SingleCertAndKey::from(Arc::clone(&own.key));
                builder.with_client_cert_resolver(Arc::new(own))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let trusts = authority.named.as_str().into();
        Ok(Self { config: Arc::new(config), name: None, trusts })
    }

    /// The same, for servers that are called so, wherever they are dialled: where addresses are
    /// translated on the way, or many servers share a name.
    pub fn named(mut self, name: &str) -> Result<Self, TlsError> {
        self.name = Some(name_of(name)?);
        Ok(self)
    }

    /// The handshake with what answered at `address`, `host:port`. It has no limit of its own: whoever
    /// waits sets one. An error says in words what TLS has against it.
    pub async fn connect(&self, address: &str, stream: TcpStream) -> io::Result<Stream> {
        let name = self.expected(address)?;
        match TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
            Err(error) => Err(match explain(&error) {
                Some(why) => io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {why}")),
                None => io::Error::new(error.kind(), format!("in the TLS handshake: {error}")),
            }),
        }
    }

    /// What a server at `address`, `host:port`, must be called.
    pub fn expected(&self, address: &str) -> Result<ServerName<'static>, TlsError> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => name_of(host(address)),
        }
    }

    /// Whom it trusts, for messages.
    #[must_use]
    pub fn trusts(&self) -> &str {
        &self.trusts
    }

    /// For those who move the bytes themselves.
    #[must_use]
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

/// A host, IP address or DNS name, as certificates name it.
pub fn name_of(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name { name: host.to_owned() })
}

/// The host of `host:port`, of an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_what_stands_before_its_port() {
        assert_eq!(host("127.0.0.1:7100"), "127.0.0.1");
        assert_eq!(host("[::1]:7100"), "::1");
        assert_eq!(host("node-a.example.org:7100"), "node-a.example.org");
        assert!(name_of("::1").is_ok() && name_of("a b").is_err() && name_of("").is_err());
    }
}
