//! What is published, on its way to whoever follows. Nothing is kept: who does not follow, or does
//! not keep up, goes without.

use std::sync::Arc;

use hotpair_http::Bytes;
use tokio::sync::broadcast::{Receiver, Sender};

/// One publication.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) topic: Arc<str>,
    /// The event as streams say it, made once for all of them.
    pub(crate) event: Bytes,
}

/// Where publications come in.
#[derive(Debug)]
pub(crate) struct Publications {
    sender: Sender<Publication>,
}

impl Default for Publications {
    fn default() -> Self {
        Self { sender: Sender::new(WAITING_MAX) }
    }
}

impl Publications {
    /// Hands a publication to everybody who follows now; how many those are.
    pub(crate) fn publish(&self, publication: Publication) -> usize {
        self.sender.send(publication).unwrap_or(0)
    }

    /// Everything that is published from now on.
    pub(crate) fn follow(&self) -> Receiver<Publication> {
        self.sender.subscribe()
    }
}

/// What of a stream's publications are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topics(Vec<String>);

impl Topics {
    /// The topics in a query, `topic=%2Faxis&topic=/orders/`; everything if there is none.
    pub(crate) fn of_query(query: &str) -> Result<Self, String> {
        let mut topics = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name != "topic" {
                return Err(format!("the query has {name:?}; there is topic"));
            }
            let topic = unescaped(value)
                .ok_or_else(|| format!("the query: the topic {value:?} is no text"))?;
            check_topic(&topic)?;
            topics.push(topic);
        }
        if topics.len() > TOPICS_MAX {
            return Err(format!("the query has more than {TOPICS_MAX} topics"));
        }
        Ok(Self(topics))
    }

    /// A topic that ends in `/` stands for all that begin with it.
    pub(crate) fn want(&self, topic: &str) -> bool {
        let fits = |wanted: &String| {
            wanted == topic || (wanted.ends_with('/') && topic.starts_with(wanted.as_str()))
        };
        self.0.is_empty() || self.0.iter().any(fits)
    }
}

/// Whether something may be published under this topic.
pub(crate) fn check_topic(topic: &str) -> Result<(), String> {
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || topic.chars().any(char::is_control) {
        return Err(format!("a topic has 1 to {TOPIC_BYTES_MAX} bytes and no control characters"));
    }
    Ok(())
}

/// A value of a query as it was meant: `%2F` is a slash, `+` a space.
fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let both = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
                u8::try_from(both).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Publications that a slow stream may be behind before it misses some: 16 MiB of the largest.
const WAITING_MAX: usize = 256;
/// The longest topic.
const TOPIC_BYTES_MAX: usize = 256;
/// Topics that one stream may name.
const TOPICS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_topics_are_wanted() {
        assert!(Topics::of_query("").unwrap().want("/anything"));
        let some = Topics::of_query("topic=%2Faxis&topic=/orders/&topic=a+b").unwrap();
        assert!(some.want("/axis") && some.want("/orders/1") && some.want("a b"));
        assert!(!some.want("/axis/1") && !some.want("/orders") && !some.want("/"));
        for wrong in ["topic=", "topic=%2", "topic=%zz", "topic=%ff", "topic=%00", "tpoic=/a"] {
            assert!(Topics::of_query(wrong).is_err(), "{wrong}");
        }
    }
}
