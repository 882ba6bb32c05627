//! What a node remembers beside its log: the highest epoch it has seen, and whose data it holds.

use hotpair_core::pair::identity::{ClusterId, Epoch};
use serde::{Deserialize, Serialize};

/// The file's name in the data directory.
pub(super) const FILE: &str = "pair.json";

/// See the file's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) epoch: Epoch,
    pub(super) cluster: Option<ClusterId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Words {
    epoch: u64,
    cluster: Option<String>,
}

impl Remembered {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let words: Words = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let cluster = match words.cluster {
            Some(text) => Some(text.parse().map_err(|error| format!("cluster: {error}"))?),
            None => None,
        };
        Ok(Self { epoch: Epoch(words.epoch), cluster })
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        let cluster = self.cluster.map(|cluster| cluster.to_string());
        serde_json::to_vec(&Words { epoch: self.epoch.0, cluster }).expect("words are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_again_and_nonsense_is_refused() {
        let kept = Remembered { epoch: Epoch(7), cluster: Some(ClusterId(9)) };
        assert_eq!(Remembered::read(&kept.bytes()), Ok(kept));
        assert_eq!(Remembered::read(b"{\"epoch\":1}").unwrap().cluster, None);
        Remembered::read(b"").unwrap_err();
        Remembered::read(b"{\"epoch\":1,\"cluster\":\"x\"}").unwrap_err();
    }
}
