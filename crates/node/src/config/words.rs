//! Values that are one word of a few: read into enums, so that nothing else has to know the words.

use serde::{Deserialize, Deserializer};

/// A closed set of words.
pub(crate) trait Word: Copy + PartialEq + 'static {
    /// Each word and what it means.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for it.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, meaning)| *meaning == self);
        found.map_or("", |(word, _)| word)
    }
}

/// Reads a word; any other is refused with all that there are.
pub(super) fn word<'de, D: Deserializer<'de>, W: Word>(deserializer: D) -> Result<W, D::Error> {
    let text = String::deserialize(deserializer)?;
    if let Some((_, meaning)) = W::WORDS.iter().find(|(word, _)| *word == text) {
        return Ok(*meaning);
    }
    let words: Vec<&str> = W::WORDS.iter().map(|(word, _)| *word).collect();
    Err(serde::de::Error::custom(format!("{text:?}: must be {}", words.join(" or "))))
}

/// What decides between the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CoordinatorKind {
    ZooKeeper,
    BinaryStar,
    Keepalived,
    /// Nobody: there is one node.
    Standalone,
}

impl Word for CoordinatorKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("zookeeper", Self::ZooKeeper),
        ("binary-star", Self::BinaryStar),
        ("keepalived", Self::Keepalived),
        ("standalone", Self::Standalone),
    ];
}

/// How the standby gets the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReplicationWay {
    /// Over the link.
    #[default]
    Stream,
    /// From the master's files in a shared directory.
    Directory,
}

impl Word for ReplicationWay {
    const WORDS: &'static [(&'static str, Self)] =
        &[("stream", Self::Stream), ("directory", Self::Directory)];
}

/// When a change is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// Once the peer holds it as well.
    #[default]
    Peer,
    /// Once this node holds it.
    Local,
}

impl Word for Acknowledgement {
    const WORDS: &'static [(&'static str, Self)] = &[("peer", Self::Peer), ("local", Self::Local)];
}

/// When a node holds a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HeldWhen {
    /// Once it is written: it survives the process.
    #[default]
    File,
    /// Once the disk has it: it survives the machine.
    Disk,
}

impl Word for HeldWhen {
    const WORDS: &'static [(&'static str, Self)] = &[("file", Self::File), ("disk", Self::Disk)];
}
