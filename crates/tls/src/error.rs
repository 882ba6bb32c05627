//! What can be wrong, in words: with the files at the start, with the other side later.

use std::io;
use std::path::PathBuf;

use crate::identity::bare;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why a file cannot be used, or why there is no such side of a connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key} = {file:?}: {source}")]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is there and is no good.
    #[error("{key} = {file:?}: {why}")]
    Unusable {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// One key is given and another one, which it needs, is not.
    #[error("{given} is given and {missing} is not: {why}")]
    Half {
        /// What is there.
        given: &'static str,
        /// What is not.
        missing: &'static str,
        /// What it would be for.
        why: &'static str,
    },
    /// What was asked for needs a key that is not given.
    #[error("{missing} is not given: {why}")]
    Missing {
        /// What is not there.
        missing: &'static str,
        /// What it would be for.
        why: &'static str,
    },
    /// A name that no certificate can be issued for.
    #[error("{name:?} is no name that a certificate could have: write an IP address or a DNS name")]
    Name {
        /// The name.
        name: String,
    },
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] Error),
}

/// What made a handshake fail, or a connection end, in words for an operator of this side. `None` if
/// the error is not TLS's own: a reset, a time-out.
#[must_use]
pub fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(why) => match why {
            // An authority of the same name and another key gives a bad signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is not signed by an authority that is trusted here".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired (or this machine's clock is wrong)".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet (or this machine's clock is wrong)".to_owned()
            }
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "its certificate is not for {:?} but for {}",
                expected.to_str(),
                if presented.is_empty() {
                    "no name at all".to_owned()
                } else {
                    presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ")
                }
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "its certificate is not for this purpose: its extended key usage must have both \
                 serverAuth and clientAuth, or be left out"
                    .to_owned()
            }
            other => format!("its certificate cannot be accepted: {other:?}"),
        },
        Error::NoCertificatesPresented => "it showed no certificate, and has to".to_owned(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType)
        | Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
            "it does not speak TLS".to_owned()
        }
        Error::AlertReceived(alert) => match alert {
            // The second, where its authority has the same name and another key.
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                "it refuses: our certificate is not signed by an authority that it trusts, or it \
                 took us for somebody else"
                    .to_owned()
            }
            AlertDescription::CertificateRequired => {
                "it refuses: it wants a certificate of ours, and we have shown none".to_owned()
            }
            AlertDescription::CertificateExpired => {
                "it refuses: our certificate has expired".to_owned()
            }
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate => {
                format!("it refuses our certificate ({alert:?})")
            }
            other => format!("it refuses ({other:?})"),
        },
        other => other.to_string(),
    })
}
