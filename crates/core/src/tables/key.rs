//! A key in a tree: its first eight bytes stand in the tree itself, so that most comparisons on the
//! way down need not follow a pointer.

use std::borrow::Borrow;
use std::cmp::Ordering;

use super::change::Bytes;

/// A key that is kept.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The first bytes as a big-endian number, filled up with zeros: in the order of the bytes.
    prefix: u64,
    pub(super) bytes: Bytes,
}

/// A key that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought<'a> {
    prefix: u64,
    bytes: &'a [u8],
}

/// What both have; the order is that of the bytes.
pub(super) trait Ordered {
    fn prefix(&self) -> u64;
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

fn prefix(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(first)
        }
    }
}

impl Ordered for Key {
    fn prefix(&self) -> u64 {
        self.prefix
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Ordered for Sought<'_> {
    fn prefix(&self) -> u64 {
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

fn order(one: (u64, &[u8]), other: (u64, &[u8])) -> Ordering {
    // Filled up with zeros, "a" and "a\0" have one prefix: then the bytes decide.
    one.0.cmp(&other.0).then_with(|| one.1.cmp(other.1))
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
        let texts: [&[u8]; 9] = [
            b"",
            b"\0",
            b"\0\0",
            b"a",
            b"a\0",
            b"a\0\0\0\0\0\0\0\0",
            b"abcdefgh",
            b"abcdefgh\0",
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
