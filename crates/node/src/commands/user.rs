//! `hotpair user add`: puts a user into a users file, or gives one another password.
//!
//! The file is replaced in one go, so that a node that reads it meanwhile finds the old or the new
//! one; two of these commands at a time go one after the other.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use hotpair_ctl::Outcome;
use hotpair_gateway::passwords::{self, PASSWORD_BYTES_MAX};

use super::{complain, config_error, print};
use crate::config::users::{check_name, users_rows, with_user};

/// What to do with users.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user, or give one another password: one line of standard input.
    Add {
        /// Who.
        name: String,
        /// The users file; made if there is none.
        #[arg(long)]
        file: PathBuf,
    },
}

/// Runs it.
pub(crate) fn run(command: &UserCommand) -> Result<Outcome> {
    match command {
        UserCommand::Add { name, file } => {
            let password = match check_name(name).and_then(|()| read_password(io::stdin().lock())) {
                Ok(password) => password,
                Err(why) => {
                    complain(&anyhow!(why));
                    return Ok(Outcome::Usage);
                }
            };
            let known = add(name, &password, file)?;
            let done = if known { "has a new password" } else { "was added" };
            print(&format!("{}: user {name} {done}\n", file.display()))
        }
    }
}

/// Adds a user; whether it was there before.
pub(crate) fn add(name: &str, password: &str, file: &Path) -> Result<bool> {
    let hash = passwords::hash(password).map_err(|why| anyhow!("cannot hash: {why}"))?;
    // Through links, so that the file itself is replaced and not the link to it.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let locked = File::open(folder).with_context(|| format!("{}", folder.display()))?;
    rustix::fs::flock(&locked, rustix::fs::FlockOperation::LockExclusive)
        .with_context(|| format!("{} cannot be locked", folder.display()))?;
    let (text, mode) = match std::fs::read_to_string(&file) {
        Ok(text) => (text, std::fs::metadata(&file)?.permissions().mode()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), 0o600),
        Err(error) => return Err(anyhow!(error).context(format!("{}", file.display()))),
    };
    let changed =
        with_user(&text, name, &hash).map_err(|problems| config_error(&file, problems))?;
    let before = users_rows(&text).unwrap_or_default();
    let known = before.iter().any(|(other, _)| other == name);
    replace(&file, folder, &changed, mode)
        .with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(known)
}

/// The file has this text, or the one before; never a part of one.
fn replace(file: &Path, folder: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = file.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut opened = options.write(true).create_new(true).mode(0o600).open(&new)?;
        opened.write_all(text.as_bytes())?;
        opened.set_permissions(Permissions::from_mode(mode))?;
        opened.sync_all()?;
        std::fs::rename(&new, file)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Not there if it was renamed, or never made.
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// The first line, without its end.
pub(crate) fn read_password(from: impl BufRead) -> Result<String, String> {
    let mut line = String::new();
    from.take(PASSWORD_BYTES_MAX as u64 + 3)
        .read_line(&mut line)
        .map_err(|error| format!("the password cannot be read from standard input: {error}"))?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err("the password is empty: write it as one line to standard input".to_owned());
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(format!("the password is longer than {PASSWORD_BYTES_MAX} bytes"));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        assert_eq!(read_password(&b"correct horse\nmore"[..]), Ok("correct horse".to_owned()));
        assert_eq!(read_password(&b" spaces stay \r\n"[..]), Ok(" spaces stay ".to_owned()));
        assert!(read_password(&b"\n"[..]).is_err() && read_password(&b""[..]).is_err());
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert!(read_password(long.as_bytes()).unwrap_err().contains("longer"));
        assert!(read_password(&long.as_bytes()[1..]).is_ok());
    }

    #[test]
    fn users_are_added_and_replaced_in_a_file_that_only_its_owner_reads() {
        let folder = std::env::temp_dir().join(format!("hotpair-user-add-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("users.toml");
        assert!(!add("ann", "one", &file).unwrap());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!add("bob", "two", &file).unwrap());
        let before = users_rows(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert!(add("ann", "three", &file).unwrap());
        let text = std::fs::read_to_string(&file).unwrap();
        let after = users_rows(&text).unwrap();
        assert!(after[0].1 != before[0].1 && after[1] == before[1]);
        assert!(!["one", "two", "three"].iter().any(|password| text.contains(password)));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::write(&file, "[users]\nann = 5\n").unwrap();
        let refused = add("bob", "x", &file).unwrap_err().to_string();
        assert!(refused.contains("users.toml: line 2: users.ann"), "{refused}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
