//! The rows of a dataset in memory.
//!
//! Key columns are kept in the index only, all others as codes in the order rows were read; texts
//! once each. A lookup finds the key's place, takes the row's number from there, and makes values
//! of the codes.

use std::sync::OnceLock;

use hotpair_core::services::dataset::{
    Column, Dataset, KeyError, Row, Value, check_key, row_digest,
};

use crate::codes;
use crate::keys::{Beginning, Index};
use crate::texts::Texts;

/// A dataset that [`load`](crate::load) read.
#[derive(Debug)]
pub struct LoadedDataset {
    columns: Vec<Column>,
    key_columns: Vec<Column>,
    stores: Vec<ColumnStore>,
    /// The column of each part of the key.
    key: Vec<usize>,
    index: Index,
    checksum: OnceLock<u64>,
}

/// What is kept of a column.
#[derive(Debug)]
pub(crate) struct ColumnStore {
    pub(crate) codes: StoredCodes,
    /// A bit for each row that is null here.
    pub(crate) nulls: Option<Bits>,
    /// What the codes mean, if the column is text.
    pub(crate) texts: Option<Texts>,
}

/// Where the codes of a column are.
#[derive(Debug)]
pub(crate) enum StoredCodes {
    /// In this part of the key.
    Key(usize),
    /// Here, by row, with this much taken away.
    Narrow { least: u64, codes: Vec<u32> },
    /// Here, by row.
    Wide(Vec<u64>),
}

/// A bit for each row.
#[derive(Debug)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(count: usize) -> Bits {
        Bits(vec![0; count.div_ceil(64)])
    }

    pub(crate) fn set(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn is_set(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }
}

impl LoadedDataset {
    pub(crate) fn new(
        columns: Vec<Column>,
        stores: Vec<ColumnStore>,
        key: Vec<usize>,
        index: Index,
    ) -> LoadedDataset {
        let key_columns = key.iter().map(|column| columns[*column].clone()).collect();
        LoadedDataset { columns, key_columns, stores, key, index, checksum: OnceLock::new() }
    }

    fn beginning(&self, key: &[Value]) -> Beginning {
        self.index.shape().beginning(key.iter().zip(&self.key).map(|(value, column)| {
            match (value, &self.stores[*column].texts) {
                (Value::Text(text), Some(texts)) => {
                    texts.place(text).map(u64::from).map_err(u64::from)
                }
                (value, _) => Ok(codes::of_value(value).expect("the key's kinds are checked")),
            }
        }))
    }

    /// The code of a value, if it is not null.
    fn code(&self, column: usize, place: usize, row: u32) -> Option<u64> {
        let store = &self.stores[column];
        if store.nulls.as_ref().is_some_and(|nulls| nulls.is_set(row as usize)) {
            return None;
        }
        Some(match &store.codes {
            StoredCodes::Key(part) => self.index.code(place, *part),
            StoredCodes::Narrow { least, codes } => least + u64::from(codes[row as usize]),
            StoredCodes::Wide(codes) => codes[row as usize],
        })
    }

    fn row(&self, place: usize) -> Row {
        let row = self.index.row(place);
        let value = |column: usize| match self.code(column, place, row) {
            None => Value::Null,
            Some(code) => self.value(column, code),
        };
        (0..self.columns.len()).map(value).collect()
    }

    fn value(&self, column: usize, code: u64) -> Value {
        match &self.stores[column].texts {
            Some(texts) => {
                let number = u32::try_from(code).expect("texts are numbered with 32 bits");
                Value::Text(texts.text(number).to_owned())
            }
            None => codes::value(self.columns[column].kind, code)
                .expect("columns without texts are of other kinds"),
        }
    }

    fn sum_of_digests(&self) -> u64 {
        // A text's digest is made once, however many rows hold it.
        let of_texts = |store: &ColumnStore| {
            let texts = store.texts.as_ref()?;
            let numbers = 0..u32::try_from(texts.len()).expect("texts are numbered with 32 bits");
            let digest = |number| Value::Text(texts.text(number).to_owned()).digest();
            Some(numbers.map(digest).collect::<Vec<u64>>())
        };
        let of_texts: Vec<Option<Vec<u64>>> = self.stores.iter().map(of_texts).collect();
        let digest = |place: usize, row: u32, column: usize| {
            let Some(code) = self.code(column, place, row) else { return Value::Null.digest() };
            match &of_texts[column] {
                Some(digests) => {
                    digests[usize::try_from(code).expect("a text's number fits a usize")]
                }
                None => self.value(column, code).digest(),
            }
        };
        (0..self.index.len()).fold(0, |sum: u64, place| {
            let row = self.index.row(place);
            let columns = 0..self.columns.len();
            sum.wrapping_add(row_digest(columns.map(|column| digest(place, row, column))))
        })
    }
}

impl Dataset for LoadedDataset {
    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn key_columns(&self) -> &[Column] {
        &self.key_columns
    }

    fn rows(&self) -> u64 {
        self.index.len() as u64
    }

    fn lookup(&self, key: &[Value]) -> Result<Option<Row>, KeyError> {
        check_key(&self.key_columns, key, false)?;
        Ok(self.index.find(self.beginning(key)).map(|place| self.row(place)))
    }

    fn scan(&self, from: &[Value], limit: usize) -> Result<Vec<Row>, KeyError> {
        check_key(&self.key_columns, from, true)?;
        let start = self.index.seek(self.beginning(from));
        let end = start.saturating_add(limit).min(self.index.len());
        Ok((start..end).map(|place| self.row(place)).collect())
    }

    fn checksum(&self) -> u64 {
        *self.checksum.get_or_init(|| self.sum_of_digests())
    }

    fn memory_bytes(&self) -> u64 {
        self.index.memory_bytes() + self.stores.iter().map(ColumnStore::memory_bytes).sum::<u64>()
    }
}

impl ColumnStore {
    fn memory_bytes(&self) -> u64 {
        let codes = match &self.codes {
            StoredCodes::Key(_) => 0,
            StoredCodes::Narrow { codes, .. } => size_of_val(codes.as_slice()),
            StoredCodes::Wide(codes) => size_of_val(codes.as_slice()),
        };
        let nulls = self.nulls.as_ref().map_or(0, |nulls| size_of_val(nulls.0.as_slice()));
        (codes + nulls) as u64 + self.texts.as_ref().map_or(0, Texts::memory_bytes)
    }
}
