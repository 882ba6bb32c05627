//! The side that accepts.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::identity::{AUTHORITY, CERTIFICATE, provider};
use crate::{Identity, Stream, TlsError};

/// Accepts TLS on connections that somebody else accepted. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    pub(crate) fn open(identity: &Identity, protocols: &[&[u8]]) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        let verifier = WebPkiClientVerifier::no_client_auth();
        Self::finish(identity, builder, verifier, protocols)
    }

    pub(crate) fn mutual(identity: &Identity, protocols: &[&[u8]]) -> Result<Self, TlsError> {
        let Some(authority) = &identity.authority else {
            let why = "whoever comes must be signed by it";
            return Err(TlsError::Missing { missing: AUTHORITY, why });
        };
        let roots = Arc::clone(&authority.roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        Self::finish(identity, builder, verifier, protocols)
    }

    fn finish(
        identity: &Identity,
        builder: ConfigBuilder<ServerConfig, WantsVerifier>,
        verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
        protocols: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let Some(own) = &identity.own else {
            let why = "a server has to show one";
            return Err(TlsError::Missing { missing: CERTIFICATE, why });
        };
        let own = SingleCertAndKey::from(Arc::clone(&own.key));
        let mut config =
            builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(own));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { config: Arc::new(config) })
    }

    /// The handshake. It has no limit of its own: whoever waits sets one.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// For those who move the bytes themselves.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}
