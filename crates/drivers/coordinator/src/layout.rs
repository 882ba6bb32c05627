//! Which znode is where: `<root>/<pair>/{id,epoch,master,nodes/…,functions/…}`.

use std::fmt::Write as _;

use hotpair_core::pair::identity::{Epoch, NodeId};

use crate::settings::FunctionEntry;

/// The paths of one pair.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    base: String,
}

impl Layout {
    pub(crate) fn new(root: &str, pair: &str) -> Self {
        Self { base: format!("{}/{}", root.trim_end_matches('/'), segment(pair)) }
    }

    /// Persistent parent of all the others.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Persistent: which set of ZooKeeper data this is.
    pub(crate) fn id(&self) -> String {
        self.below("id")
    }

    /// Persistent: breadcrumb and fence.
    pub(crate) fn epoch(&self) -> String {
        self.below("epoch")
    }

    /// Ephemeral: who holds it is master.
    pub(crate) fn master(&self) -> String {
        self.below("master")
    }

    /// Persistent: who holds every acknowledged change. Made by the first claim.
    pub(crate) fn sync(&self) -> String {
        self.below("sync")
    }

    /// Persistent: to whom the newest epoch was handed over, if it was.
    pub(crate) fn handover(&self) -> String {
        self.below("handover")
    }

    /// Persistent parent of the presence znodes.
    pub(crate) fn nodes(&self) -> String {
        self.below("nodes")
    }

    /// Ephemeral: this node is there.
    pub(crate) fn presence(&self, node: &NodeId) -> String {
        format!("{}/nodes/{}", self.base, segment(node.as_str()))
    }

    /// Persistent parent of the registry.
    pub(crate) fn functions(&self) -> String {
        self.below("functions")
    }

    /// The persistent parents of a registry entry, outermost first.
    pub(crate) fn entry_parents(&self, entry: &FunctionEntry) -> [String; 3] {
        let group = format!("{}/functions/{}", self.base, segment(&entry.group));
        let service = format!("{group}/{}", segment(&entry.service));
        let version = format!("{service}/{}", segment(&entry.version));
        [group, service, version]
    }

    /// Ephemeral: one node offers these functions in one epoch.
    pub(crate) fn entry(&self, entry: &FunctionEntry, node: &NodeId, epoch: Epoch) -> String {
        let [_, _, version] = self.entry_parents(entry);
        format!("{version}/{}{}", segment(node.as_str()), entry_suffix(epoch))
    }

    fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }
}

/// How the names of all registry entries of an epoch end.
pub(crate) fn entry_suffix(epoch: Epoch) -> String {
    format!("-{epoch}")
}

/// Any text as the name of one znode: what a path cannot hold is written `%XX`, nothing as `%`.
pub(crate) fn segment(text: &str) -> String {
    match text {
        "" => return "%".to_owned(),
        "." => return "%2E".to_owned(),
        ".." => return "%2E%2E".to_owned(),
        _ => {}
    }
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' | b'%' | 0..=0x20 | 0x7f.. => {
                write!(name, "%{byte:02X}").expect("writing to a String cannot fail");
            }
            plain => name.push(char::from(plain)),
        }
    }
    name
}

/// What [`segment`] was made from; a name that it cannot have made is taken as it is.
pub(crate) fn text_of(segment: &str) -> String {
    if segment == "%" {
        return String::new();
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| after.get(..2).and_then(|two| std::str::from_utf8(two).ok()))
            .flatten()
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| segment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_as_a_znode_name() {
        for text in ["plain-1.0_x*", "", ".", "..", "a/b", "100%", "%2F", "Ünï\u{0}\n", " "] {
            let name = segment(text);
            assert!(!name.is_empty() && name != "." && name != "..", "{text:?} became {name:?}");
            assert!(!name.contains('/') && name.is_ascii(), "{text:?} became {name:?}");
            assert_eq!(text_of(&name), text);
        }
    }

    #[test]
    fn names_that_no_node_wrote_are_taken_as_they_are() {
        for name in ["%zz", "%F", "%FF", "a%"] {
            assert_eq!(text_of(name), name);
        }
    }

    #[test]
    fn a_root_of_one_slash_is_no_double_slash() {
        assert_eq!(Layout::new("/", "pair").master(), "/pair/master");
        assert_eq!(Layout::new("/hotpair/", "pair").epoch(), "/hotpair/pair/epoch");
    }
}
