//! How ZooKeeper is reached, and as whom: the servers, and the user whose znodes ours are.
//!
//! ZooKeeper knows no wrong password: whoever comes with `user:password` *is* `user:hash`, and what is
//! closed to that id is simply not let near. So nothing can be said of a password before a znode is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hotpair_tls::Connector;
use sha1::{Digest, Sha1};
use zookeeper_client::{Acl, Acls, AuthId, CreateMode, CreateOptions, Permission};

/// How ZooKeeper is reached, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `host:port` of each server of one ensemble. Servers of different ensembles here make two
    /// masters possible.
    pub servers: Vec<String>,
    /// Whose znodes ours are; nobody's and everybody's without.
    pub auth: Option<Auth>,
    /// TLS to the servers, which must be called as in `servers`; plain text without.
    pub tls: Option<Connector>,
}

impl Access {
    /// These servers, as anybody, in plain text.
    #[must_use]
    pub fn open(servers: Vec<String>) -> Self {
        Self { servers, ..Self::default() }
    }

    /// Lives until it is deleted.
    pub(crate) fn persistent(&self) -> CreateOptions<'_> {
        CreateMode::Persistent.with_acls(self.acls())
    }

    /// Lives and dies with the session.
    pub(crate) fn ephemeral(&self) -> CreateOptions<'_> {
        CreateMode::Ephemeral.with_acls(self.acls())
    }

    fn acls(&self) -> Acls<'_> {
        match &self.auth {
            Some(auth) => Acls::new(&auth.own.acl),
            None => Acls::anyone_all(),
        }
    }

    /// What is said when a znode is closed to this node.
    pub(crate) fn barred(&self, path: &str) -> String {
        match &self.auth {
            Some(auth) => format!(
                "the znode {path} is closed to user {} of {}: its user or password is another one \
                 than that which the znode was made with; both nodes need the same line there",
                auth.own.user,
                auth.own.file.display()
            ),
            None => format!(
                "the znode {path} is closed to whoever does not show a password: set \
                 coordinator.zookeeper.auth as on the node that closed it"
            ),
        }
    }
}

/// A user of ZooKeeper's digest scheme. Clones are cheap; the password is never shown.
#[derive(Clone)]
pub struct Auth {
    own: Arc<Own>,
}

struct Own {
    file: PathBuf,
    user: String,
    /// `user:password`.
    line: String,
    /// All permissions for this user, and nobody else.
    acl: [Acl; 1],
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("user", &self.own.user).finish_non_exhaustive()
    }
}

/// Nobody types a longer line.
const LINE_BYTES_MAX: usize = 1_024;

impl Auth {
    /// Reads the one line `user:password` of a file.
    ///
    /// # Errors
    /// A sentence that names what is wrong with the file; never what stands in it.
    pub fn read(file: &Path) -> Result<Self, String> {
        let told = |what: String| format!("{}: {what}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| told(error.to_string()))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let parts = line.split_once(':').filter(|(user, password)| {
            !user.is_empty() && !password.is_empty() && !line.contains(['\n', '\r'])
        });
        let Some((user, _)) = parts.filter(|_| line.len() <= LINE_BYTES_MAX) else {
            return Err(told("must be one line, user:password".to_owned()));
        };
        let own = Own {
            file: file.to_owned(),
            user: user.to_owned(),
            line: line.to_owned(),
            acl: [Acl::new(Permission::ALL, AuthId::new("digest", &digest_id(user, line)))],
        };
        Ok(Self { own: Arc::new(own) })
    }

    /// `user:password`, for the connection.
    pub(crate) fn line(&self) -> &[u8] {
        self.own.line.as_bytes()
    }

    pub(crate) fn user(&self) -> &str {
        &self.own.user
    }

    /// The one entry of a closed znode's ACL.
    pub(crate) fn own_acl(&self) -> &Acl {
        &self.own.acl[0]
    }
}

/// How the server calls whoever shows this line.
fn digest_id(user: &str, line: &str) -> String {
    format!("{user}:{}", STANDARD.encode(Sha1::digest(line)))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// By ZooKeeper's own DigestAuthenticationProvider.
    #[test]
    fn the_id_is_what_the_server_makes_of_it() {
        assert_eq!(digest_id("super", "super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
    }

    #[test]
    fn a_file_that_holds_no_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("zk.auth");
        let read = |text: &str, mode: u32| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            Auth::read(&file)
        };
        let good = read("pair:secret\n", 0o640).unwrap();
        assert_eq!((good.user(), good.line()), ("pair", b"pair:secret".as_slice()));
        assert!(!format!("{good:?}").contains("secret"));
        for text in ["", "pair\n", ":secret\n", "pair:\n", "pair:a\npair:b\n"] {
            let said = read(text, 0o600).unwrap_err();
            assert!(said.contains("user:password") && !said.contains("secret"), "{said}");
        }
        assert!(Auth::read(&folder.path().join("none")).unwrap_err().contains("none"));
    }
}
