//! Three files, read once and checked as far as they can be before anybody else sees them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};

use crate::validity::{Validity, shown};
use crate::{Acceptor, Connector, TlsError};

/// Where the certificate, its key and the authority are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, then those between it and the authority; PEM.
    pub certificate: Option<PathBuf>,
    /// Its key; PEM.
    pub key: Option<PathBuf>,
    /// Certificates of the authorities that are trusted; PEM, one or more.
    pub authority: Option<PathBuf>,
}

impl Files {
    /// The same, those that are relative taken as below this folder.
    #[must_use]
    pub fn below(&self, folder: &Path) -> Self {
        let below = |file: &Option<PathBuf>| file.as_ref().map(|file| folder.join(file));
        Self {
            certificate: below(&self.certificate),
            key: below(&self.key),
            authority: below(&self.authority),
        }
    }

    /// Whether none is given.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.certificate.is_none() && self.key.is_none() && self.authority.is_none()
    }
}

/// Who we are, and whom we trust.
pub struct Identity {
    pub(crate) own: Option<Own>,
    pub(crate) authority: Option<Authority>,
    warnings: Vec<String>,
}

/// Our certificate with its key.
pub(crate) struct Own {
    pub(crate) key: Arc<CertifiedKey>,
    validity: Validity,
}

/// Whom we trust.
#[derive(Clone)]
pub(crate) struct Authority {
    pub(crate) roots: Arc<RootCertStore>,
    /// Where they stand.
    pub(crate) named: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of a key, ever.
        f.debug_struct("Identity")
            .field("certificate", &self.own.is_some())
            .field("authority", &self.authority.as_ref().map(|authority| &authority.named))
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the files; every problem found.
    pub fn load(files: &Files) -> Result<Self, Vec<TlsError>> {
        Self::load_at(files, SystemTime::now())
    }

    /// The same, at another moment than now.
    pub fn load_at(files: &Files, now: SystemTime) -> Result<Self, Vec<TlsError>> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut problems = Vec::new();
        let mut take = |problem| problems.push(problem);
        let own = match (&files.certificate, &files.key) {
            (Some(certificate), Some(key)) => {
                load_own(certificate, key, now).map_err(&mut take).ok()
            }
            (Some(_), None) => {
                take(TlsError::Half { given: CERTIFICATE, missing: KEY, why: BOTH });
                None
            }
            (None, Some(_)) => {
                take(TlsError::Half { given: KEY, missing: CERTIFICATE, why: BOTH });
                None
            }
            (None, None) => None,
        };
        let authority = files
            .authority
            .as_ref()
            .and_then(|file| load_authority(AUTHORITY, file, now).map_err(&mut take).ok());
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut identity = Self { own, authority, warnings: Vec::new() };
        identity.warnings = identity.doubts(files, now);
        Ok(identity)
    }

    /// One who has no certificate and trusts those of this file, which the configuration calls so.
    pub fn of_authority(key: &'static str, file: &Path) -> Result<Self, TlsError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let authority = Some(load_authority(key, file, now)?);
        Ok(Self { own: None, authority, warnings: Vec::new() })
    }

    /// One who trusts the same and shows nobody who he is.
    #[must_use]
    pub fn without_certificate(&self) -> Self {
        Self { own: None, authority: self.authority.clone(), warnings: Vec::new() }
    }

    /// What an operator should know before it becomes a problem.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Until when our certificate is good, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        self.own.as_ref().map(|own| own.validity.not_after)
    }

    /// Whether there is a certificate of ours, which a server needs.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.own.is_some()
    }

    /// Whether there is an authority, by which others are checked.
    #[must_use]
    pub fn trusts_somebody(&self) -> bool {
        self.authority.is_some()
    }

    /// Whether our certificate is for this host: an IP address or a DNS name.
    #[must_use]
    pub fn is_named(&self, host: &str) -> bool {
        let Some(own) = &self.own else { return false };
        own.key.cert.first().is_some_and(|certificate| has_name(certificate, host))
    }

    /// The names that our certificate is for.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let first = self.own.as_ref().and_then(|own| own.key.cert.first());
        let Some(Ok(parsed)) = first.map(ParsedCertificate::try_from) else { return Vec::new() };
        // Whoever asks for a name that is none is told of those that are.
        let Ok(nobody) = ServerName::try_from("names.invalid") else { return Vec::new() };
        match rustls::client::verify_server_name(&parsed, &nobody) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented,
                ..
            })) => presented.iter().map(|name| bare(name).to_owned()).collect(),
            _ => Vec::new(),
        }
    }

    /// The side that accepts, of connections on which the other side need not say who it is. Over them
    /// go these protocols (ALPN); one who names none is taken as well.
    pub fn server(&self, protocols: &[&[u8]]) -> Result<Acceptor, TlsError> {
        Acceptor::open(self, protocols)
    }

    /// The side that accepts, of connections on which the other side must show a certificate that our
    /// authority has signed. TLS 1.3 only: both ends are ours.
    pub fn mutual_server(&self, protocols: &[&[u8]]) -> Result<Acceptor, TlsError> {
        Acceptor::mutual(self, protocols)
    }

    /// The side that dials: the server must be signed by our authority; our certificate, if there is
    /// one, is shown where it is asked for.
    pub fn client(&self, protocols: &[&[u8]]) -> Result<Connector, TlsError> {
        Connector::new(self, protocols)
    }

    /// The same, trusting those whom this machine trusts as well: for servers of the world outside.
    pub fn client_of_the_world(&self, protocols: &[&[u8]]) -> Result<Connector, TlsError> {
        let world = world(self.authority.as_ref())?;
        let own = self.own.as_ref().map(|own| Own { key: Arc::clone(&own.key), ..*own });
        Connector::new(&Self { own, authority: Some(world), warnings: Vec::new() }, protocols)
    }

    /// Nobody, trusting nobody: what there is without files.
    #[must_use]
    pub fn nobody() -> Self {
        Self { own: None, authority: None, warnings: Vec::new() }
    }

    fn doubts(&self, files: &Files, now: Duration) -> Vec<String> {
        let mut doubts = Vec::new();
        let (Some(own), Some(file)) = (&self.own, &files.certificate) else { return doubts };
        let file = file.display();
        let left = own.validity.not_after - seconds(now);
        if left < EXPIRES_SOON {
            let until = shown(own.validity.not_after);
            doubts.push(format!("tls.certificate = {file:?}: it expires at {until}"));
        }
        if let (Some(authority), Some((first, between))) =
            (&self.authority, own.key.cert.split_first())
            && let Err(error) = check_issuer(authority, first, between, now)
        {
            doubts.push(format!(
                "tls.certificate = {file:?}: whoever trusts tls.authority = {} only will refuse it: {error}",
                authority.named
            ));
        }
        doubts
    }
}

/// A name as it is written, without its kind: `DnsName("x")` is x.
pub(crate) fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// Whether a certificate is for this host.
pub(crate) fn has_name(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let (Ok(name), Ok(parsed)) =
        (ServerName::try_from(host), ParsedCertificate::try_from(certificate))
    else {
        return false;
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

/// What others, who trust this authority, will find in a certificate, but for its name.
fn check_issuer(
    authority: &Authority,
    certificate: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    now: Duration,
) -> Result<(), String> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&authority.roots), provider())
            .build()
            .map_err(|error| error.to_string())?;
    // Any name: names are checked last, and by whoever dials.
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(now);
    match verifier.verify_server_cert(certificate, between, &name, &[], now) {
        Ok(_)
        | Err(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Ok(()),
        Err(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Err("it is not signed by it".to_owned()),
        Err(Error::InvalidCertificate(why)) => Err(format!("{why:?}")),
        Err(other) => Err(other.to_string()),
    }
}

/// The cryptography, the same everywhere.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn load_own(certificate_file: &Path, key_file: &Path, now: Duration) -> Result<Own, TlsError> {
    let certificates = certificates(CERTIFICATE, certificate_file)?;
    let unusable = |why: String| unusable(CERTIFICATE, certificate_file, why);
    let first = &certificates[0];
    let validity = Validity::of(first)
        .ok_or_else(|| unusable("its first certificate cannot be read".to_owned()))?;
    ParsedCertificate::try_from(first).map_err(|error| {
        unusable(format!("its first certificate cannot be used (is it version 3?): {error}"))
    })?;
    if seconds(now) > validity.not_after {
        return Err(unusable(format!(
            "it expired at {}: issue another one",
            shown(validity.not_after)
        )));
    }
    if seconds(now) < validity.not_before {
        return Err(unusable(format!(
            "it is not valid before {}: is this machine's clock right?",
            shown(validity.not_before)
        )));
    }
    let key = load_key(key_file)?;
    let fail = |why: String| self::unusable(KEY, key_file, why);
    match CertifiedKey::from_der(certificates, key, &provider()) {
        Ok(key) => Ok(Own { key: Arc::new(key), validity }),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(fail(format!(
            "it is not the key of tls.certificate = {:?}",
            certificate_file.display().to_string()
        ))),
        Err(error) => Err(fail(format!("its key cannot be used: {error}"))),
    }
}

fn load_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |source| TlsError::File { key: KEY, file: file.to_owned(), source };
    let text = fs::read(file).map_err(failed)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let encrypted = String::from_utf8_lossy(&text).contains("ENCRYPTED PRIVATE KEY");
        let why = match error {
            pem::Error::NoItemsFound if encrypted => {
                "its key is encrypted, and nobody is there to ask for the password: decrypt it with \
                 openssl pkey"
                    .to_owned()
            }
            pem::Error::NoItemsFound => "there is no private key (PEM) in it".to_owned(),
            other => format!("it is broken: {other}"),
        };
        unusable(KEY, file, why)
    })
}

fn load_authority(key: &'static str, file: &Path, now: Duration) -> Result<Authority, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut expired = None;
    for certificate in certificates(key, file)? {
        // One that has expired beside one that has not: a rotation that is over.
        match Validity::of(&certificate) {
            Some(validity) if seconds(now) > validity.not_after => {
                expired = Some(validity.not_after);
                continue;
            }
            _ => {}
        }
        roots.add(certificate).map_err(|error| {
            unusable(key, file, format!("a certificate in it cannot be used: {error}"))
        })?;
    }
    match expired {
        Some(when) if roots.is_empty() => {
            Err(unusable(key, file, format!("it expired at {}", shown(when))))
        }
        _ => Ok(Authority {
            roots: Arc::new(roots),
            named: format!("{:?}", file.display().to_string()),
        }),
    }
}

/// The certificates of a file: at least one.
fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text =
        fs::read(file).map_err(|source| TlsError::File { key, file: file.to_owned(), source })?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| unusable(key, file, format!("it is broken: {error}")))?;
    if all.is_empty() {
        return Err(unusable(key, file, "there is no certificate (PEM) in it".to_owned()));
    }
    Ok(all)
}

/// Whom this machine trusts, and those as well.
fn world(more: Option<&Authority>) -> Result<Authority, TlsError> {
    let chosen = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = BUNDLES.iter().map(PathBuf::from);
    let file = chosen.or_else(|| known.into_iter().find(|file| file.exists()));
    let mut roots = more.map_or_else(RootCertStore::empty, |more| (*more.roots).clone());
    let mut named: Vec<String> = more.iter().map(|more| more.named.clone()).collect();
    if let Some(file) = file {
        let key = "the authorities of this machine";
        let text =
            fs::read(&file).map_err(|source| TlsError::File { key, file: file.clone(), source })?;
        // One that cannot be used is one that is not trusted.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
        named.push(format!("{:?}", file.display().to_string()));
    }
    if roots.is_empty() {
        return Err(TlsError::Missing {
            missing: AUTHORITY,
            why: "this machine has no authorities of its own either (package ca-certificates), so no \
                  server could be trusted",
        });
    }
    Ok(Authority { roots: Arc::new(roots), named: named.join(" and ") })
}

fn unusable(key: &'static str, file: &Path, why: String) -> TlsError {
    TlsError::Unusable { key, file: file.to_owned(), why }
}

fn seconds(now: Duration) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Where the systems we know keep whom they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Time enough to issue another one.
const EXPIRES_SOON: i64 = 30 * 86_400;

pub(crate) const CERTIFICATE: &str = "tls.certificate";
pub(crate) const KEY: &str = "tls.key";
pub(crate) const AUTHORITY: &str = "tls.authority";
const BOTH: &str = "a certificate and its key are given together";

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests;
