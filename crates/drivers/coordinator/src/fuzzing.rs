//! Entrances for the fuzzer.

use zookeeper_client::Stat;

use crate::json::{EntryJson, EpochJson, HandoverJson, IdJson, MasterJson, PresenceJson, SyncJson};

/// These bytes as the content of each kind of znode.
pub fn znodes(data: &[u8]) {
    let stat = Stat {
        czxid: 1,
        mzxid: 1,
        pzxid: 1,
        ctime: 0,
        mtime: 0,
        version: 7,
        cversion: 0,
        aversion: 0,
        ephemeral_owner: 1,
        data_length: 0,
        num_children: 0,
    };
    let path = "/hotpair/trade/fuzz";
    let _ = IdJson::read(path, data);
    let _ = EpochJson::read(path, data, &stat);
    let _ = MasterJson::read(path, data, &stat);
    let _ = SyncJson::read(path, data, &stat);
    let _ = HandoverJson::read(path, data, &stat);
    let _ = PresenceJson::read(path, data);
    let _ = EntryJson::read(path, data);
}
