//! Records told apart without being decoded: how long each is, what kind, and its number.
//!
//! It is what appending and shipping need of each record, millions a second. The bytes are core's
//! (`tables::record`): if their beginning changes there, the test here says so.

use hotpair_core::tables::record::{BODY_BYTES_MAX, HEAD_BYTES};

/// Bytes of a record up to the end of its number.
pub(crate) const PEEK_BYTES: usize = HEAD_BYTES + 17;
/// The longest record.
pub(crate) const RECORD_BYTES_MAX: usize = HEAD_BYTES + BODY_BYTES_MAX;
/// The kind of a record with which a mastership begins.
const EPOCH_START: u8 = 2;

/// The beginning of a record. Nothing is proven by it: the checksum was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peek {
    /// Bytes of the whole record.
    pub(crate) size: usize,
    /// Whether a mastership begins.
    pub(crate) starts_epoch: bool,
    /// Its number.
    pub(crate) number: u64,
}

/// The record that begins here; none if the bytes are too few or cannot be a record's.
pub(crate) fn peek(bytes: &[u8]) -> Option<Peek> {
    let bytes = bytes.first_chunk::<PEEK_BYTES>()?;
    let length = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    let kind = bytes[HEAD_BYTES];
    if !(PEEK_BYTES - HEAD_BYTES..=BODY_BYTES_MAX).contains(&length)
        || !(1..=EPOCH_START).contains(&kind)
    {
        return None;
    }
    Some(Peek {
        size: HEAD_BYTES + length,
        starts_epoch: kind == EPOCH_START,
        number: u64::from_le_bytes(bytes[HEAD_BYTES + 9..].try_into().expect("eight bytes")),
    })
}

#[cfg(test)]
mod tests {
    use hotpair_core::pair::identity::Epoch;
    use hotpair_core::tables::record::{Body, Record, encode};

    use super::*;

    #[test]
    fn what_core_writes_is_recognised_without_being_decoded() {
        let bodies = [
            (Body::EpochStart { life: 3 }, true),
            (Body::Changes { numbered: None, changes: Vec::new(), reply: None }, false),
        ];
        for (body, starts_epoch) in bodies {
            let number = 0x0102_0304_0506_0708;
            let mut bytes = Vec::new();
            encode(&Record { epoch: Epoch(9), number, body }, &mut bytes);
            let size = bytes.len();
            assert_eq!(peek(&bytes), Some(Peek { size, starts_epoch, number }));
            assert_eq!(peek(&bytes[..PEEK_BYTES - 1]), None);
        }
        assert_eq!(peek(&[0; 64]), None);
        assert_eq!(peek(&[0xff; 64]), None);
    }
}
