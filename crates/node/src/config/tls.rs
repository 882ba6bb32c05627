//! `[tls]`: the same section in a node's file and in a router's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotpair_tls::{Files, Identity, TlsError};
use serde::Deserialize;

/// Who this process is to others, and whom it trusts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tls {
    /// Written out: plain text off loopback is meant.
    pub(crate) insecure: bool,
    /// Our certificate and those between it and the authority, PEM; relative to this file's folder,
    /// as the other two. With it the listeners for clients and operators speak TLS.
    pub(crate) certificate: Option<PathBuf>,
    /// Its key, PEM; not readable by everybody.
    pub(crate) key: Option<PathBuf>,
    /// Who signs the certificates that others show us, PEM; one or more.
    pub(crate) authority: Option<PathBuf>,
}

impl Tls {
    /// Reads the files that are given, relative to this folder; none if none is given.
    pub(super) fn read(&self, folder: &Path) -> Result<Option<Arc<Identity>>, Vec<String>> {
        let files = self.files();
        if files.are_none() {
            return Ok(None);
        }
        let told = |problems: Vec<TlsError>| problems.iter().map(ToString::to_string).collect();
        Identity::load(&files.below(folder)).map(|identity| Some(Arc::new(identity))).map_err(told)
    }

    fn files(&self) -> Files {
        Files {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            authority: self.authority.clone(),
        }
    }

    /// Whether the link speaks TLS, for which both sides need all three.
    pub(crate) fn is_mutual(&self) -> bool {
        self.is_server() && self.authority.is_some()
    }

    /// Whether listeners speak TLS.
    pub(crate) fn is_server(&self) -> bool {
        self.certificate.is_some() && self.key.is_some()
    }
}
