//! The users file: who may log in.
//!
//! ```toml
//! [users]
//! ann = "$argon2id$v=19$m=19456,t=2,p=1$…"   # a PHC string, as `hotpair user add` writes it
//! "bob@desk" = "$argon2id$…"
//! ```

use std::path::{Path, PathBuf};

use hotpair_gateway::passwords;
use toml::de::{DeTable, DeValue};

use super::keys::{line_of, no_toml};

/// The file's one table.
pub(crate) const TABLE: &str = "users";
/// The longest name.
const NAME_BYTES_MAX: usize = 64;

/// Users as they are configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Users {
    /// The file.
    pub(crate) file: PathBuf,
    /// Names and hashes, as rows of the table of users.
    pub(crate) rows: Vec<(String, String)>,
}

impl Users {
    /// Reads a users file; each problem names the file, and the line and key where there is one.
    pub(crate) fn read(file: &Path) -> Result<Self, Vec<String>> {
        let name = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|error| vec![format!("{name}: cannot be read: {error}")])?;
        let rows = users_rows(&text).map_err(|problems| {
            problems.into_iter().map(|problem| format!("{name}: {problem}")).collect::<Vec<_>>()
        })?;
        Ok(Self { file: file.to_owned(), rows })
    }

    /// One number for all of it, the same on both nodes if their files say the same.
    pub(crate) fn digest(&self) -> u64 {
        hotpair_core::services::users::digest(&self.rows)
    }
}

/// Names and hashes of a users file's text.
pub(crate) fn users_rows(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
    let document = DeTable::parse(text).map_err(|error| vec![no_toml(text, &error)])?;
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for (key, value) in document.get_ref() {
        let line = line_of(text, key.span().start);
        let DeValue::Table(users) = value.get_ref() else {
            problems.push(format!(
                "line {line}: {}: only the table [users] belongs here",
                key.get_ref()
            ));
            continue;
        };
        if key.get_ref() != TABLE {
            problems
                .push(format!("line {line}: unknown table [{}]; there is [users]", key.get_ref()));
            continue;
        }
        for (name, hash) in users {
            let line = line_of(text, name.span().start);
            let name = name.get_ref();
            let problem = check_name(name).err().or_else(|| match hash.get_ref() {
                DeValue::String(hash) => {
                    passwords::check_hash(hash).err().map(|why| format!("its hash: {why}"))
                }
                _ => Some("its hash must be a string".to_owned()),
            });
            match (problem, hash.get_ref()) {
                (None, DeValue::String(hash)) => rows.push((name.to_string(), hash.to_string())),
                (problem, _) => {
                    let why = problem.unwrap_or_default();
                    problems.push(format!("line {line}: users.{name}: {why}"));
                }
            }
        }
    }
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

/// Whether somebody can be called so.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(good) {
        return Err(format!(
            "a user's name has 1 to {NAME_BYTES_MAX} letters, digits, and . _ - @ +"
        ));
    }
    Ok(())
}

/// The text of a users file with this user in it: everything else of it stays as it is, comments and
/// all.
pub(crate) fn with_user(text: &str, name: &str, hash: &str) -> Result<String, Vec<String>> {
    let mut wanted = users_rows(text)?;
    let document = DeTable::parse(text).map_err(|error| vec![no_toml(text, &error)])?;
    let users = document.get_ref().iter().find(|(key, _)| key.get_ref() == TABLE);
    let line = format!("{} = \"{hash}\"\n", quoted(name));
    let changed = match users.map(|(key, value)| (key, value.get_ref())) {
        Some((header, DeValue::Table(inner))) => {
            match inner.iter().find(|(key, _)| key.get_ref() == name) {
                Some((_, old)) => {
                    let (before, after) = (&text[..old.span().start], &text[old.span().end..]);
                    format!("{before}\"{hash}\"{after}")
                }
                None => {
                    let ends = inner.iter().map(|(_, value)| value.span().end);
                    let last = ends.max().unwrap_or(header.span().end);
                    let at = text[last..].find('\n').map_or(text.len(), |end| last + end + 1);
                    format!("{}{line}{}", ended(&text[..at]), &text[at..])
                }
            }
        }
        _ => format!("{}[{TABLE}]\n{line}", ended(text)),
    };
    // What was meant to be said is what the text says now, whatever it looked like before.
    match wanted.iter_mut().find(|(other, _)| other == name) {
        Some((_, old)) => hash.clone_into(old),
        None => wanted.push((name.to_owned(), hash.to_owned())),
    }
    let mut found = users_rows(&changed)?;
    wanted.sort();
    found.sort();
    if found == wanted {
        Ok(changed)
    } else {
        Err(vec![
            "its users are written in a way that cannot be added to: write them as lines \
             below [users]"
                .to_owned(),
        ])
    }
}

/// With a line's end at its end, if there is anything.
fn ended(text: &str) -> String {
    let missing = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{missing}")
}

/// A name as a TOML key.
fn quoted(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_owned() } else { format!("\"{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$jBxaDJpUKJXUxEB9ygUbEGcrMXePVlUvHnDH4L8GTgw";
    const TWO: &str =
        "$argon2id$v=19$m=8,t=1,p=1$b3RoZXJzYWx0$jBxaDJpUKJXUxEB9ygUbEGcrMXePVlUvHnDH4L8GTgw";

    #[test]
    fn a_user_is_added_or_replaced_and_everything_else_stays() {
        let text = with_user("", "ann", ONE).unwrap();
        assert_eq!(text, format!("[users]\nann = \"{ONE}\"\n"));
        let text =
            format!("# who may\n\n[users] # all of them\n# the boss\nann = \"{ONE}\" # since May");
        let added = with_user(&text, "bob@desk", TWO).unwrap();
        assert_eq!(added, format!("{text}\n\"bob@desk\" = \"{TWO}\"\n"));
        let replaced = with_user(&added, "ann", TWO).unwrap();
        assert_eq!(replaced, added.replacen(ONE, TWO, 1));
        assert_eq!(
            users_rows(&replaced).unwrap(),
            [("ann".to_owned(), TWO.to_owned()), ("bob@desk".to_owned(), TWO.to_owned())]
        );
        assert_eq!(
            with_user("[users]", "ann", ONE).unwrap(),
            format!("[users]\nann = \"{ONE}\"\n")
        );
    }

    #[test]
    fn a_layout_that_cannot_be_added_to_is_left_alone() {
        let inline = format!("users = {{ ann = \"{ONE}\" }}\n");
        assert!(with_user(&inline, "bob", TWO).is_err());
        assert_eq!(with_user(&inline, "ann", TWO).unwrap(), inline.replace(ONE, TWO));
    }

    #[test]
    fn problems_name_the_line_and_the_key() {
        let text = format!(
            "[users]\nann = \"{ONE}\"\nbob = \"secret\"\n\"e v e\" = \"{ONE}\"\nzoe = 5\n[more]\n"
        );
        let problems = users_rows(&text).unwrap_err();
        let begins = [
            "line 3: users.bob: its hash",
            "line 4: users.e v e: a user's name",
            "line 5: users.zoe",
            "line 6: unknown table [more]",
        ];
        assert_eq!(problems.len(), begins.len(), "{problems:?}");
        for begin in begins {
            assert!(problems.iter().any(|problem| problem.starts_with(begin)), "{problems:?}");
        }
        assert!(!problems.concat().contains("secret"));
        let broken = users_rows("[users]\nann = \"secret\nbob = 1\n").unwrap_err().concat();
        assert!(broken.starts_with("line 2, column "), "{broken}");
        assert!(!broken.contains("secret"), "{broken}");
    }
}
