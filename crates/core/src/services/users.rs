//! Users: rows of [`USERS`], the name as key and the password's hash as value.
//!
//! Both nodes read them from a file of their own. A master brings the table in line with its file
//! when it begins to serve; the files' digests are compared over the link, so that two files that
//! differ are noticed before a switch makes it matter. Whoever is no user any more has no session
//! any more either; one with another password keeps what there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use super::session::Session;
use crate::tables::change::Operation;
use crate::tables::store::Store;
use crate::tables::{SESSIONS, USERS};

/// What has to be done so that the table holds these users and no others, and nobody else has a
/// session. Empty when it is so.
#[must_use]
pub fn difference(wanted: &[(String, String)], store: &Store) -> Vec<Operation> {
    let table: Arc<str> = USERS.into();
    let wanted: BTreeMap<&[u8], &str> =
        wanted.iter().map(|(name, hash)| (name.as_bytes(), hash.as_str())).collect();
    let mut operations = Vec::new();
    for (name, hash) in &wanted {
        let held = store.get(USERS, name);
        if held.is_none_or(|row| *row.value != *hash.as_bytes()) {
            let (key, value) = ((*name).into(), hash.as_bytes().into());
            operations.push(Operation::Put { table: table.clone(), key, value });
        }
    }
    let held = store.table(USERS).into_iter().flat_map(|rows| rows.scan(&[]));
    let gone: Vec<_> =
        held.map(|(key, _)| key).filter(|key| !wanted.contains_key(&***key)).collect();
    for key in &gone {
        operations.push(Operation::Delete { table: table.clone(), key: (*key).clone() });
    }
    if !gone.is_empty() {
        let sessions: Arc<str> = SESSIONS.into();
        let held = store.table(SESSIONS).into_iter().flat_map(|rows| rows.scan(&[]));
        for (key, row) in held {
            let of = Session::decode(&row.value).map(|session| session.user);
            if of.is_ok_and(|user| gone.iter().any(|name| ***name == *user.as_bytes())) {
                operations.push(Operation::Delete { table: sessions.clone(), key: key.clone() });
            }
        }
    }
    operations
}

/// One number for all users and their hashes, whatever their order; 0 for none.
#[must_use]
pub fn digest(users: &[(String, String)]) -> u64 {
    let of_one = |(name, hash): &(String, String)| {
        let mut hasher = Xxh3Default::new();
        hasher.update(&name.len().to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(hash.as_bytes());
        hasher.digest()
    };
    users.iter().map(of_one).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::table::Row;

    fn users(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let mut store = Store::default();
        let table: Arc<str> = USERS.into();
        for (name, hash) in [("ann", "1"), ("bob", "2"), ("eve", "3")] {
            let row = Row { value: hash.as_bytes().into(), version: 1 };
            store.put(&table, &name.as_bytes().into(), row);
        }
        let wanted = users(&[("ann", "1"), ("bob", "9"), ("zoe", "4")]);
        let said: Vec<String> = difference(&wanted, &store)
            .iter()
            .map(|operation| match operation {
                Operation::Put { key, .. } => format!("put {}", String::from_utf8_lossy(key)),
                Operation::Delete { key, .. } => format!("delete {}", String::from_utf8_lossy(key)),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(said, ["put bob", "put zoe", "delete eve"]);
        assert_eq!(difference(&users(&[("ann", "1"), ("bob", "2"), ("eve", "3")]), &store), []);
    }

    #[test]
    fn who_is_no_user_any_more_has_no_session_any_more() {
        let mut store = Store::default();
        for (number, name) in [(1_u8, "ann"), (2, "eve"), (3, "eve"), (4, "old")] {
            let row = Row { value: b"hash"[..].into(), version: 1 };
            if name != "old" {
                store.put(&USERS.into(), &name.as_bytes().into(), row);
            }
            let session = Session { user: name.to_owned(), user_token: None, created_wall_ms: 0 };
            let row = Row { value: session.encode().into(), version: 1 };
            store.put(&SESSIONS.into(), &[number; 16][..].into(), row);
        }
        let ended = |wanted: &[(&str, &str)]| -> Vec<u8> {
            let operations = difference(&users(wanted), &store);
            let sessions = operations.iter().filter(|o| **o.table() == *SESSIONS);
            sessions.map(|operation| operation.key()[0]).collect()
        };
        assert_eq!(ended(&[("ann", "another")]), [2, 3]);
        assert_eq!(ended(&[("ann", "hash"), ("eve", "another")]), [] as [u8; 0]);
    }

    #[test]
    fn the_digest_tells_names_and_hashes_apart_and_forgets_their_order() {
        let one = digest(&users(&[("ann", "1"), ("bob", "2")]));
        assert_eq!(one, digest(&users(&[("bob", "2"), ("ann", "1")])));
        assert_ne!(one, digest(&users(&[("ann", "2"), ("bob", "1")])));
        assert_ne!(digest(&users(&[("an", "n1")])), digest(&users(&[("ann", "1")])));
        assert_eq!(digest(&[]), 0);
    }
}
