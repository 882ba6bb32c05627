//! A key in a tree: its first sixteen bytes stand in the tree itself, so that comparisons on the way
//! down follow no pointer, unless keys are longer and begin alike.

use std::borrow::Borrow;
use std::cmp::Ordering;

use super::change::Bytes;

const PREFIX_BYTES: usize = 16;

/// A key that is kept.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The first bytes as a big-endian number, filled up with zeros: in the order of the bytes.
    prefix: u128,
    pub(super) bytes: Bytes,
}

/// A key that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought<'a> {
    prefix: u128,
    bytes: &'a [u8],
}

/// What both have; the order is that of the bytes.
pub(super) trait Ordered {
    fn prefix(&self) -> u128;
    fn bytes(&self) -> &[u8];
}

impl Key {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { prefix: prefix(&bytes), bytes }
    }
}

impl<'a> Sought<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { prefix: prefix(bytes), bytes }
    }
}

fn prefix(bytes: &[u8]) -> u128 {
    match bytes.first_chunk::<PREFIX_BYTES>() {
        Some(first) => u128::from_be_bytes(*first),
        None => {
            let mut first = [0; PREFIX_BYTES];
            first[..bytes.len()].copy_from_slice(bytes);
            u128::from_be_bytes(first)
        }
    }
}

impl Ordered for Key {
    fn prefix(&self) -> u128 {
        self.prefix
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Ordered for Sought<'_> {
    fn prefix(&self) -> u128 {
        self.prefix
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

impl<'a> Borrow<dyn Ordered + 'a> for Key {
    fn borrow(&self) -> &(dyn Ordered + 'a) {
        self
    }
}

fn order(one: (u128, &[u8]), other: (u128, &[u8])) -> Ordering {
    one.0.cmp(&other.0).then_with(|| {
        let (a, b) = (one.1, other.1);
        if a.len().max(b.len()) <= PREFIX_BYTES {
            // Filled up with zeros, "a" and "a\0" have one prefix: the shorter one comes first.
            a.len().cmp(&b.len())
        } else {
            a.cmp(b)
        }
    })
}

impl Ord for dyn Ordered + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        order((self.prefix(), self.bytes()), (other.prefix(), other.bytes()))
    }
}

impl PartialOrd for dyn Ordered + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Ordered + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn Ordered + '_ {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        order((self.prefix, &self.bytes), (other.prefix, &other.bytes))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_bytes() {
        let texts: [&[u8]; 15] = [
            b"",
            b"\0",
            b"\0\0",
            b"a",
            b"a\0",
            b"a\0\0\0\0\0\0\0\0",
            b"abcdefgh",
            b"abcdefgh\0",
            b"abcdefghijklmno",
            b"abcdefghijklmno\0",
            b"abcdefghijklmnop",
            b"abcdefghijklmnop\0",
            b"abcdefghijklmnopq",
            b"abcdefghijklmno\0z",
            b"b",
        ];
        for one in texts {
            for other in texts {
                let keys = (Key::new(one.into()), Key::new(other.into()));
                assert_eq!(keys.0.cmp(&keys.1), one.cmp(other), "{one:?} {other:?}");
                let (a, b): (&dyn Ordered, &dyn Ordered) = (&keys.0, &Sought::new(other));
                assert_eq!(a.cmp(b), one.cmp(other));
            }
        }
    }
}
