//! Where a node or a router is asked: its address, how it is spoken to there, and whom one trusts.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use hotpair_http::{ClientError, Dialler, Url};
use hotpair_tls::{Files, Identity, TlsError};

/// `http://host:port` or `https://host:port`; or `host:port`, which is `https` where an authority is
/// given that can vouch for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    url: String,
    /// No scheme was given.
    is_open: bool,
}

impl Origin {
    /// The URL of a path there.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The same with its scheme settled.
    pub(crate) fn settled(&self, tls: &TlsArgs) -> Self {
        let address = self.url.strip_prefix("http://");
        match address.filter(|_| self.is_open && tls.file().is_some()) {
            Some(address) => Self { url: format!("https://{address}"), is_open: false },
            None => Self { url: self.url.clone(), is_open: false },
        }
    }

    fn is_secure(&self) -> bool {
        self.url.starts_with("https://")
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_open = !text.contains("://");
        let text = if is_open { format!("http://{text}") } else { text.to_owned() };
        let url: Url = text.parse().map_err(|e: ClientError| e.to_string())?;
        if url.path != "/" {
            return Err("give the address only, without a path".to_owned());
        }
        Ok(Self { url: url.origin(), is_open })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Whom to trust.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// File (PEM) with the authorities that sign the pair's certificates; or in HOTPAIR_TLS_AUTHORITY.
    /// An address without http:// or https:// means https then. Without it, whoever this machine
    /// trusts is trusted.
    #[arg(long = "tls-authority", value_name = "FILE")]
    pub authority: Option<PathBuf>,
}

impl TlsArgs {
    /// The file that is meant.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        let environment = || std::env::var_os("HOTPAIR_TLS_AUTHORITY").map(PathBuf::from);
        self.authority.clone().or_else(|| environment().filter(|file| !file.as_os_str().is_empty()))
    }

    /// The addresses with their schemes settled, and how they are reached; or what is wrong with the
    /// file.
    pub(crate) fn reach(&self, origins: &[Origin]) -> Result<(Vec<Origin>, Dialler), String> {
        let origins: Vec<Origin> = origins.iter().map(|origin| origin.settled(self)).collect();
        let connector = match self.file() {
            Some(file) => Identity::load(&Files { authority: Some(file), ..Files::default() })
                .map_err(|errors| sentence(&errors))?
                .client(HTTP),
            None if origins.iter().any(Origin::is_secure) => {
                Identity::nobody().client_of_the_world(HTTP)
            }
            None => return Ok((origins, Dialler::plain())),
        };
        let connector = connector.map_err(|error| error.to_string())?;
        Ok((origins, Dialler::with_tls(connector)))
    }
}

fn sentence(errors: &[TlsError]) -> String {
    // Here it is an option, and no key of a configuration.
    let all =
        errors.iter().map(|error| error.to_string().replace("tls.authority", "--tls-authority"));
    all.collect::<Vec<_>>().join("; ")
}

/// What is spoken over TLS.
const HTTP: &[&[u8]] = &[b"http/1.1"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_what_the_authority_makes_of_it() {
        let plain = TlsArgs::default();
        let trusting = TlsArgs { authority: Some("/nowhere.pem".into()) };
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        let settled = |text: &str, tls| origin(text).settled(tls).to_string();
        assert_eq!(settled("127.0.0.1:7101", &plain), "http://127.0.0.1:7101");
        assert_eq!(settled("127.0.0.1:7101", &trusting), "https://127.0.0.1:7101");
        assert_eq!(settled("http://127.0.0.1:7101", &trusting), "http://127.0.0.1:7101");
        assert_eq!(settled("https://gateway", &plain), "https://gateway:443");
        assert!("http://a/role".parse::<Origin>().is_err() && "a b".parse::<Origin>().is_err());
        let error = trusting.reach(&[origin("a:1")]).unwrap_err();
        assert!(error.contains("--tls-authority = \"/nowhere.pem\""), "{error}");
    }
}
