//! Keys: all columns of a key packed into one unsigned integer, in a sorted vector.
//!
//! A key column's code, counted from the column's least, takes as few bits as its greatest needs.
//! Put side by side, first column highest, these bits compare as the keys do. The row's number goes
//! below them, so that one integer is all there is to sort and to search:
//!
//! ```text
//!   ┌──────── account (18 bits) ─┬─ instrument (15 bits) ─┬─ row (23 bits) ─┐
//! ```
//!
//! Where that takes more than 128 bits, codes are replaced by their places among the column's
//! different codes, which never take more bits than the row number.

use std::fmt;
use std::ops::{BitOr, Shl, Shr};

use crate::parallel;

/// One column of a key.
#[derive(Debug)]
pub(crate) struct KeyPart {
    bits: u32,
    /// How far its bits are from the lowest of the whole key, without the row's.
    shift: u32,
    numbers: Numbers,
}

/// How a column's codes become numbers from 0.
#[derive(Debug)]
enum Numbers {
    /// By taking the least away.
    From { least: u64, greatest: u64 },
    /// By their place among all different codes.
    Placed(Vec<u64>),
}

impl KeyPart {
    pub(crate) fn from_range(least: u64, greatest: u64) -> KeyPart {
        assert!(least <= greatest, "a range has a least and a greatest code");
        let bits = u64::BITS - (greatest - least).leading_zeros();
        KeyPart { bits, shift: 0, numbers: Numbers::From { least, greatest } }
    }

    pub(crate) fn from_codes(mut codes: Vec<u64>) -> KeyPart {
        parallel::sort(&mut codes, parallel::threads());
        codes.dedup();
        codes.shrink_to_fit();
        let bits = u64::BITS - (codes.len() as u64).saturating_sub(1).leading_zeros();
        KeyPart { bits, shift: 0, numbers: Numbers::Placed(codes) }
    }

    /// The number of a code: its own, or else that of the first code after it, which may be one
    /// more than there are.
    fn number(&self, code: u64) -> Result<u64, u128> {
        match &self.numbers {
            Numbers::From { least, .. } if code < *least => Err(0),
            Numbers::From { least, greatest } if code > *greatest => {
                Err(u128::from(greatest - least) + 1)
            }
            Numbers::From { least, .. } => Ok(code - least),
            Numbers::Placed(codes) => match codes.binary_search(&code) {
                Ok(place) => Ok(place as u64),
                Err(place) => Err(place as u128),
            },
        }
    }

    /// The number of a code that this part was made from.
    fn number_of_own(&self, code: u64) -> u64 {
        self.number(code).expect("the part was made from all codes of the column")
    }

    fn code(&self, number: u64) -> u64 {
        match &self.numbers {
            Numbers::From { least, .. } => least + number,
            Numbers::Placed(codes) => {
                codes[usize::try_from(number).expect("a place in a vector fits a usize")]
            }
        }
    }
}

/// The columns of a key, side by side.
#[derive(Debug)]
pub(crate) struct KeyShape {
    parts: Vec<KeyPart>,
    row_bits: u32,
}

impl KeyShape {
    pub(crate) fn new(mut parts: Vec<KeyPart>, rows: u32) -> KeyShape {
        let mut shift = 0;
        for part in parts.iter_mut().rev() {
            part.shift = shift;
            shift += part.bits;
        }
        KeyShape { parts, row_bits: u32::BITS - rows.leading_zeros() }
    }

    /// The bits of a key and a row number together.
    pub(crate) fn bits(&self) -> u32 {
        self.row_bits + self.parts.iter().map(|part| part.bits).sum::<u32>()
    }

    pub(crate) fn row_bits(&self) -> u32 {
        self.row_bits
    }

    pub(crate) fn into_parts(self) -> Vec<KeyPart> {
        self.parts
    }

    /// Adds a part's code below those before it.
    pub(crate) fn pack<E: Entry>(&self, entry: E, part: usize, code: u64) -> E {
        let part = &self.parts[part];
        (entry << part.bits) | E::from(part.number_of_own(code))
    }

    pub(crate) fn with_row<E: Entry>(&self, key: E, row: u32) -> E {
        (key << self.row_bits) | E::from(u64::from(row))
    }

    /// Where the entries of a key with these codes begin, and whether there can be any.
    ///
    /// A code that no row has puts the beginning at the next greater key; one beyond the greatest
    /// carries into the part before, as it should.
    pub(crate) fn beginning(&self, codes: impl Iterator<Item = Result<u64, u64>>) -> Beginning {
        let mut entry = 0_u128;
        for (part, code) in self.parts.iter().zip(codes) {
            let number = match code {
                Ok(code) => part.number(code),
                Err(after) => Err(part.number(after).map_or_else(|number| number, u128::from)),
            };
            let (number, exact) = match number {
                Ok(number) => (u128::from(number), true),
                Err(number) => (number, false),
            };
            let shift = part.shift + self.row_bits;
            let fits = number == 0 || number.leading_zeros() >= shift;
            let shifted = fits.then(|| number.checked_shl(shift).unwrap_or(0));
            match shifted.and_then(|number| entry.checked_add(number)) {
                Some(sum) => entry = sum,
                None => return Beginning::BeyondAll,
            }
            if !exact {
                return Beginning::Next(entry);
            }
        }
        Beginning::Exact(entry)
    }

    fn memory_bytes(&self) -> u64 {
        let placed = |part: &KeyPart| match &part.numbers {
            Numbers::From { .. } => 0,
            Numbers::Placed(codes) => size_of_val(codes.as_slice()) as u64,
        };
        self.parts.iter().map(placed).sum()
    }
}

/// Where a search begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// All parts are known: rows with this key are here or nowhere.
    Exact(u128),
    /// No row has this key; greater ones begin here.
    Next(u128),
    /// All keys are less.
    BeyondAll,
}

/// An integer that a key and a row number fit in.
pub(crate) trait Entry:
    Copy
    + Ord
    + Send
    + Sync
    + fmt::Debug
    + From<u64>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
    + BitOr<Output = Self>
{
    fn narrowed(wide: u128) -> Option<Self>;
    fn widened(self) -> u128;
    fn low_bits(self) -> u64;
}

impl Entry for u64 {
    fn narrowed(wide: u128) -> Option<u64> {
        u64::try_from(wide).ok()
    }

    fn widened(self) -> u128 {
        u128::from(self)
    }

    fn low_bits(self) -> u64 {
        self
    }
}

impl Entry for u128 {
    fn narrowed(wide: u128) -> Option<u128> {
        Some(wide)
    }

    fn widened(self) -> u128 {
        self
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low bits are asked for")]
    fn low_bits(self) -> u64 {
        self as u64
    }
}

/// Sorted entries, with a directory of where each stretch of keys begins.
#[derive(Debug)]
pub(crate) struct Sorted<E> {
    entries: Vec<E>,
    /// `starts[b]..starts[b + 1]` are the entries whose bits above `bucket_shift` are `b`.
    starts: Vec<u32>,
    bucket_shift: u32,
}

impl<E: Entry> Sorted<E> {
    /// Sorts entries and takes out those whose key is that of another, except the one with the
    /// lowest row. Returns the rows taken out, each with the row that stays.
    pub(crate) fn new(mut entries: Vec<E>, row_bits: u32) -> (Sorted<E>, Vec<(u32, u32)>) {
        parallel::sort(&mut entries, parallel::threads());
        let mut doubles = vec![];
        let row = |entry: E| row_of(entry, row_bits);
        entries.dedup_by(|later, first| {
            let same = *later >> row_bits == *first >> row_bits;
            if same {
                doubles.push((row(*later), row(*first)));
            }
            same
        });
        let bits = entries.last().map_or(0, |last| 128 - last.widened().leading_zeros());
        let buckets = (entries.len() / ENTRIES_PER_BUCKET).max(1).ilog2();
        let bucket_shift = bits.saturating_sub(buckets);
        let mut starts = Vec::with_capacity((1 << buckets) + 2);
        for (place, entry) in entries.iter().enumerate() {
            let place = u32::try_from(place).expect("rows are numbered with 32 bits");
            while starts.len() <= bucket_of(*entry, bucket_shift) {
                starts.push(place);
            }
        }
        starts.push(u32::try_from(entries.len()).expect("rows are numbered with 32 bits"));
        (Sorted { entries, starts, bucket_shift }, doubles)
    }

    /// The place of the first entry that is not less.
    fn place(&self, wide: u128) -> usize {
        let Some(entry) = E::narrowed(wide) else { return self.entries.len() };
        let bits = E::narrowed(wide >> self.bucket_shift.min(127));
        let bucket = bits.map_or(usize::MAX, |_| bucket_of(entry, self.bucket_shift));
        let Some(range) = bucket.checked_add(1).and_then(|next| {
            Some(*self.starts.get(bucket)? as usize..*self.starts.get(next)? as usize)
        }) else {
            return self.entries.len();
        };
        range.start + self.entries[range].partition_point(|other| *other < entry)
    }
}

fn bucket_of<E: Entry>(entry: E, shift: u32) -> usize {
    // A shift by all bits is only asked for where all entries are zero and there is one bucket.
    let bits = entry.widened().checked_shr(shift).unwrap_or(0);
    usize::try_from(bits).unwrap_or(usize::MAX)
}

fn row_of<E: Entry>(entry: E, row_bits: u32) -> u32 {
    let mask = (1_u64 << row_bits) - 1;
    u32::try_from(entry.low_bits() & mask).expect("rows are numbered with 32 bits")
}

/// All keys with their rows, in order.
#[derive(Debug)]
pub(crate) struct Index {
    shape: KeyShape,
    sorted: AnySorted,
}

#[derive(Debug)]
pub(crate) enum AnySorted {
    Narrow(Sorted<u64>),
    Wide(Sorted<u128>),
}

impl Index {
    pub(crate) fn new(shape: KeyShape, sorted: AnySorted) -> Index {
        Index { shape, sorted }
    }

    pub(crate) fn shape(&self) -> &KeyShape {
        &self.shape
    }

    pub(crate) fn len(&self) -> usize {
        match &self.sorted {
            AnySorted::Narrow(sorted) => sorted.entries.len(),
            AnySorted::Wide(sorted) => sorted.entries.len(),
        }
    }

    /// The place of the row with a key, if there is one.
    pub(crate) fn find(&self, beginning: Beginning) -> Option<usize> {
        let Beginning::Exact(entry) = beginning else { return None };
        let place = self.seek(beginning);
        let is_there = place < self.len()
            && self.entry(place) >> self.shape.row_bits == entry >> self.shape.row_bits;
        is_there.then_some(place)
    }

    /// The place of the first row whose key is not before this.
    pub(crate) fn seek(&self, beginning: Beginning) -> usize {
        let entry = match beginning {
            Beginning::Exact(entry) | Beginning::Next(entry) => entry,
            Beginning::BeyondAll => return self.len(),
        };
        match &self.sorted {
            AnySorted::Narrow(sorted) => sorted.place(entry),
            AnySorted::Wide(sorted) => sorted.place(entry),
        }
    }

    /// The row at a place.
    pub(crate) fn row(&self, place: usize) -> u32 {
        match &self.sorted {
            AnySorted::Narrow(sorted) => row_of(sorted.entries[place], self.shape.row_bits),
            AnySorted::Wide(sorted) => row_of(sorted.entries[place], self.shape.row_bits),
        }
    }

    /// A key column's code at a place.
    pub(crate) fn code(&self, place: usize, part: usize) -> u64 {
        let part = &self.shape.parts[part];
        let bits = self.entry(place) >> (part.shift + self.shape.row_bits);
        let mask = if part.bits == 64 { u64::MAX } else { (1 << part.bits) - 1 };
        part.code(bits.low_bits() & mask)
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let sorted = match &self.sorted {
            AnySorted::Narrow(sorted) => {
                size_of_val(sorted.entries.as_slice()) + size_of_val(sorted.starts.as_slice())
            }
            AnySorted::Wide(sorted) => {
                size_of_val(sorted.entries.as_slice()) + size_of_val(sorted.starts.as_slice())
            }
        };
        sorted as u64 + self.shape.memory_bytes()
    }

    fn entry(&self, place: usize) -> u128 {
        match &self.sorted {
            AnySorted::Narrow(sorted) => sorted.entries[place].widened(),
            AnySorted::Wide(sorted) => sorted.entries[place],
        }
    }
}

/// Few enough to lie in two cache lines.
const ENTRIES_PER_BUCKET: usize = 8;
