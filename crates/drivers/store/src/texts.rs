//! The different texts of a column, each kept once and known by a number.
//!
//! While reading, numbers are given in order of appearance ([`TextSet::number`]). Before anything
//! is stored the sets of all workers become one sorted [`Texts`], in which a text's number is its
//! place: numbers then compare as the texts do.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::parallel;

/// Texts back to back, found by number.
#[derive(Debug, Default)]
struct Arena {
    bytes: String,
    /// Where each text ends; it begins where the one before ends.
    ends: Vec<u32>,
}

/// The column has more than 4 GiB of different texts.
#[derive(Debug)]
pub(crate) struct TooMuchText;

impl Arena {
    fn text(&self, number: u32) -> &str {
        let place = number as usize;
        let start = if place == 0 { 0 } else { self.ends[place - 1] as usize };
        &self.bytes[start..self.ends[place] as usize]
    }

    fn push(&mut self, text: &str) -> Result<u32, TooMuchText> {
        let number = u32::try_from(self.ends.len()).map_err(|_| TooMuchText)?;
        let end = u32::try_from(self.bytes.len() + text.len()).map_err(|_| TooMuchText)?;
        self.bytes.push_str(text);
        self.ends.push(end);
        Ok(number)
    }

    fn memory_bytes(&self) -> u64 {
        (self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()) as u64
    }
}

/// A growing set of texts, numbered as they appear.
#[derive(Debug, Default)]
pub(crate) struct TextSet {
    arena: Arena,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl TextSet {
    /// The number of this text, new if it is.
    pub(crate) fn number(&mut self, text: &str) -> Result<u32, TooMuchText> {
        let hash = self.hasher.hash_one(text);
        let arena = &self.arena;
        if let Some(number) = self.table.find(hash, |number| arena.text(*number) == text) {
            return Ok(*number);
        }
        let number = self.arena.push(text)?;
        let (arena, hasher) = (&self.arena, &self.hasher);
        self.table.insert_unique(hash, number, |number| hasher.hash_one(arena.text(*number)));
        Ok(number)
    }

    fn len(&self) -> usize {
        self.arena.ends.len()
    }
}

/// All texts of a column, sorted: a text's number is its place.
#[derive(Debug)]
pub(crate) struct Texts {
    arena: Arena,
    /// Finds a text's number at once; only where texts are looked up, that is, in keys.
    table: Option<(HashTable<u32>, DefaultHashBuilder)>,
}

impl Texts {
    /// Unites sets. Also returns, for each set, the final number of each of its numbers.
    pub(crate) fn united(
        sets: Vec<TextSet>,
        with_table: bool,
    ) -> Result<(Texts, Vec<Vec<u32>>), TooMuchText> {
        let mut sets = sets.into_iter();
        let mut union = sets.next().unwrap_or_default();
        let mut numbers = vec![(0..as_number(union.len())).collect::<Vec<u32>>()];
        for set in sets {
            let all = 0..as_number(set.len());
            let united: Result<Vec<u32>, TooMuchText> =
                all.map(|number| union.number(set.arena.text(number))).collect();
            numbers.push(united?);
        }
        let TextSet { arena, table, .. } = union;
        drop(table);
        let order = sorted_numbers(&arena);
        let mut places = vec![0; order.len()];
        let mut sorted = Arena {
            bytes: String::with_capacity(arena.bytes.len()),
            ends: Vec::with_capacity(order.len()),
        };
        for number in order {
            places[number as usize] = sorted.push(arena.text(number))?;
        }
        drop(arena);
        for number in numbers.iter_mut().flatten() {
            *number = places[*number as usize];
        }
        let table = with_table.then(|| table_of(&sorted));
        Ok((Texts { arena: sorted, table }, numbers))
    }

    pub(crate) fn len(&self) -> usize {
        self.arena.ends.len()
    }

    pub(crate) fn text(&self, number: u32) -> &str {
        self.arena.text(number)
    }

    /// The place of a text, or else the place of the first text after it.
    pub(crate) fn place(&self, text: &str) -> Result<u32, u32> {
        if let Some((table, hasher)) = &self.table {
            let found = table.find(hasher.hash_one(text), |number| self.text(*number) == text);
            if let Some(number) = found {
                return Ok(*number);
            }
        }
        let (mut low, mut high) = (0, as_number(self.len()));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.text(middle).cmp(text) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let table = self.table.as_ref().map_or(0, |(table, _)| table.allocation_size());
        self.arena.memory_bytes() + table as u64
    }
}

fn table_of(arena: &Arena) -> (HashTable<u32>, DefaultHashBuilder) {
    let hasher = DefaultHashBuilder::default();
    let hash = |number: &u32| hasher.hash_one(arena.text(*number));
    let mut table = HashTable::with_capacity(arena.ends.len());
    for number in 0..as_number(arena.ends.len()) {
        table.insert_unique(hash(&number), number, hash);
    }
    (table, hasher)
}

/// The numbers of an arena in the order of their texts.
fn sorted_numbers(arena: &Arena) -> Vec<u32> {
    // Most comparisons end in the eight bytes after what all texts have in common.
    let common = common_prefix(arena);
    let prefix = |number: u32| {
        let rest = &arena.text(number).as_bytes()[common..];
        let mut bytes = [0; 8];
        let length = rest.len().min(8);
        bytes[..length].copy_from_slice(&rest[..length]);
        u64::from_be_bytes(bytes)
    };
    let mut keyed: Vec<Keyed<'_>> = (0..as_number(arena.ends.len()))
        .map(|number| Keyed { prefix: prefix(number), number, arena })
        .collect();
    parallel::sort(&mut keyed, parallel::threads());
    keyed.into_iter().map(|keyed| keyed.number).collect()
}

fn common_prefix(arena: &Arena) -> usize {
    let Some(count) = arena.ends.len().checked_sub(1) else { return 0 };
    let first = arena.text(0).as_bytes();
    (1..=as_number(count)).fold(first.len(), |common, number| {
        let bytes = arena.text(number).as_bytes();
        first[..common].iter().zip(bytes).take_while(|(left, right)| left == right).count()
    })
}

/// A text's number with the beginning of the text, ordered as the texts are.
struct Keyed<'a> {
    prefix: u64,
    number: u32,
    arena: &'a Arena,
}

impl Ord for Keyed<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.prefix
            .cmp(&other.prefix)
            .then_with(|| self.arena.text(self.number).cmp(other.arena.text(other.number)))
    }
}

impl PartialOrd for Keyed<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Keyed<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Keyed<'_> {}

fn as_number(count: usize) -> u32 {
    u32::try_from(count).expect("an arena numbers its texts with 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn united_texts_are_sorted_and_old_numbers_find_them() {
        let lists = [vec!["b", "", "abc", "ab\0"], vec!["zz", "b", "ab", "é"], vec![]];
        let mut sets = vec![];
        for list in &lists {
            let mut set = TextSet::default();
            for (place, text) in list.iter().enumerate() {
                assert_eq!(set.number(text).unwrap(), place as u32);
                assert_eq!(set.number(text).unwrap(), place as u32);
            }
            sets.push(set);
        }
        for with_table in [false, true] {
            let sets = lists.iter().map(|list| {
                let mut set = TextSet::default();
                for text in list {
                    set.number(text).unwrap();
                }
                set
            });
            let (texts, numbers) = Texts::united(sets.collect(), with_table).unwrap();
            let all: Vec<&str> = (0..texts.len() as u32).map(|number| texts.text(number)).collect();
            assert_eq!(all, ["", "ab", "ab\0", "abc", "b", "zz", "é"]);
            for (list, numbers) in lists.iter().zip(numbers) {
                for (text, number) in list.iter().zip(numbers) {
                    assert_eq!(texts.text(number), *text);
                    assert_eq!(texts.place(text), Ok(number));
                }
            }
            assert_eq!(texts.place("aa"), Err(1));
            assert_eq!(texts.place("zzz"), Err(6));
            assert_eq!(texts.place("ü"), Err(7));
        }
    }
}
