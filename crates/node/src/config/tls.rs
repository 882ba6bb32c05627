//! `[tls]`: the same section in a node's file and in a router's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotpair_http::{Dialler, Hosts};
use hotpair_tls::{Acceptor, Files, Identity, TlsError};
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
    /// The same, files that are relative taken as below this folder.
    pub(super) fn below(self, folder: &Path) -> Self {
        let Files { certificate, key, authority } = self.files().below(folder);
        Self { certificate, key, authority, ..self }
    }

    /// Reads the files that are given; none if none is given.
    pub(super) fn read(&self) -> Result<Option<Arc<Identity>>, Vec<String>> {
        let files = self.files();
        if files.are_none() {
            return Ok(None);
        }
        let told = |problems: Vec<TlsError>| problems.iter().map(ToString::to_string).collect();
        Identity::load(&files).map(|identity| Some(Arc::new(identity))).map_err(told)
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

/// What is spoken over TLS to clients, operators and nodes.
const HTTP: &[&[u8]] = &[b"http/1.1"];

/// What accepts TLS at the ports for clients and operators; none if they speak plain text.
pub(crate) fn acceptor(identity: Option<&Identity>) -> Result<Option<Acceptor>, TlsError> {
    identity
        .filter(|identity| identity.is_server())
        .map(|identity| identity.server(HTTP))
        .transpose()
}

/// How nodes are reached: over TLS where somebody can vouch for them.
pub(crate) fn dialler(identity: Option<&Identity>) -> Result<Dialler, TlsError> {
    match identity.filter(|identity| identity.trusts_somebody()) {
        Some(identity) => identity.client(HTTP).map(Dialler::with_tls),
        None => Ok(Dialler::plain()),
    }
}

/// How a server of somebody else is reached by its URL: whom the machine trusts is trusted as well.
pub(crate) fn dialler_of_the_world(
    identity: Option<&Identity>,
    url: &str,
) -> Result<Dialler, TlsError> {
    if !url.starts_with("https://") {
        return Ok(Dialler::plain());
    }
    let nobody = Identity::nobody();
    identity.unwrap_or(&nobody).client_of_the_world(HTTP).map(Dialler::with_tls)
}

/// Says what an operator should know of the files before it becomes a problem.
pub(crate) fn warn(doubts: &[String]) {
    for doubt in doubts {
        tracing::warn!(doubt, "configuration");
    }
}

/// What an operator should know of the certificates, and of files with a secret that are for everybody
/// on this machine to read. That is told and not refused: a pair that does not start is worse.
pub(super) fn doubts<'a>(
    identity: Option<&Identity>,
    secrets: impl IntoIterator<Item = (&'static str, Option<&'a PathBuf>)>,
) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    let mut doubts = identity.map(|identity| identity.warnings().to_vec()).unwrap_or_default();
    for (key, file) in secrets {
        let Some(file) = file else { continue };
        let Ok(metadata) = std::fs::metadata(file) else { continue };
        let mode = metadata.permissions().mode();
        if mode & 0o007 != 0 {
            doubts.push(format!(
                "{key} = {:?}: everybody on this machine may read it (mode {:04o}): chmod 600 it, or \
                 640",
                file.display(),
                mode & 0o7777
            ));
        }
    }
    doubts
}

/// The names by which a port is asked from this machine itself: those of the certificate, the
/// machine's own, and those that are configured.
pub(crate) fn hosts<'a>(
    identity: Option<&Identity>,
    configured: impl IntoIterator<Item = &'a String>,
) -> Hosts {
    let system = rustix::system::uname();
    let mut names = identity.map(Identity::names).unwrap_or_default();
    names.extend(configured.into_iter().cloned());
    names.push(system.nodename().to_string_lossy().into_owned());
    Hosts::new(names.iter().map(String::as_str))
}

/// A file with a secret: there.
pub(super) fn check_secret(key: &str, file: &Path) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{key} = {:?}: {error}", file.display());
    std::fs::metadata(file).map(drop).map_err(told)
}
