//! Certificates for tests, made as the documentation says operators make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Files, Identity};

/// An authority in a folder of the test's.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// A new one, in a folder of its own.
    ///
    /// # Panics
    /// If openssl is not there or does not do it.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        run(&["authority", &folder.display().to_string(), "test"]);
        Self { folder: folder.to_owned() }
    }

    /// The file with its certificate.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// Signs a certificate for these names.
    ///
    /// # Panics
    /// If openssl does not do it.
    #[must_use]
    pub fn issue(&self, name: &str, names: &[&str]) -> Files {
        let folder = self.folder.display().to_string();
        run(&[&["issue", &folder, name], names].concat());
        Files {
            certificate: Some(self.folder.join(format!("{name}.pem"))),
            key: Some(self.folder.join(format!("{name}.key"))),
            authority: Some(self.file()),
        }
    }

    /// Signs one and loads it.
    ///
    /// # Panics
    /// If openssl does not do it, or what it made cannot be used.
    #[must_use]
    pub fn identity(&self, name: &str, names: &[&str]) -> Identity {
        load(&self.issue(name, names))
    }

    /// One who trusts it and has no certificate.
    ///
    /// # Panics
    /// If the authority's file cannot be used.
    #[must_use]
    pub fn trusting(&self) -> Identity {
        load(&Files { authority: Some(self.file()), ..Files::default() })
    }
}

fn load(files: &Files) -> Identity {
    Identity::load(files).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn run(arguments: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/tls/certificates.sh");
    let output = Command::new(script).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
