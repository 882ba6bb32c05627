//! Certificates as an operator makes them, with the script that the documentation names.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::need::{Need, install, script};

/// An authority, and what it has signed, in one folder.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// A new authority in this folder, which is made.
    pub fn new(folder: &Path) -> Result<Self> {
        install(&[Need::OpenSsl])?;
        let certificates = Self { folder: folder.to_owned() };
        certificates.run("authority", &[])?;
        Ok(certificates)
    }

    /// Signs a certificate for a node or a router of this name, which is called so by others.
    pub fn issue(&self, name: &str, names: &[&str]) -> Result<()> {
        self.run("issue", &[&[name], names].concat())
    }

    /// The file with the authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// A file of what was issued under this name: `pem` is the certificate, `key` its key.
    #[must_use]
    pub fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{name}.{kind}"))
    }

    /// The section `[tls]` of who bears this name.
    #[must_use]
    pub fn section(&self, name: &str) -> String {
        self.section_trusting(name, &self.authority())
    }

    /// The same of one who trusts another authority.
    #[must_use]
    pub fn section_trusting(&self, name: &str, authority: &Path) -> String {
        let file = |kind: &str| self.file(name, kind).display().to_string();
        format!(
            "[tls]\ncertificate = {:?}\nkey = {:?}\nauthority = {:?}\n",
            file("pem"),
            file("key"),
            authority.display().to_string()
        )
    }

    fn run(&self, what: &str, arguments: &[&str]) -> Result<()> {
        let folder = self.folder.display().to_string();
        let all = [&[what, folder.as_str()], arguments].concat();
        script(include_str!("../../../deploy/tls/certificates.sh"), &all).map(drop)
    }
}
