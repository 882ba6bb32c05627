//! Makes one dataset of the pieces that workers read.
//!
//! First texts, for the codes of all else to be comparable; then the key columns, which become the
//! sorted index and whose pieces are freed; then the other columns, one after the other on each
//! thread, each freeing its pieces. So nothing is held twice but what is being worked on.

use hotpair_core::services::dataset::ColumnKind;

use crate::broken::BrokenRow;
use crate::error::LoadError;
use crate::keys::{AnySorted, Entry, Index, KeyPart, KeyShape, Sorted};
use crate::layout::Layout;
use crate::load::{Task, WorkerRead};
use crate::loaded::{Bits, ColumnStore, LoadedDataset, StoredCodes};
use crate::parallel;
use crate::pieces::{Codes, Lines, PieceColumn};
use crate::texts::{TextSet, Texts, TooMuchText};

/// What is known of a piece besides its columns.
#[derive(Debug)]
struct PieceRows {
    first_row: u32,
    rows: usize,
    worker: usize,
    lines: Lines,
}

/// One column of all pieces, in the file's order.
#[derive(Debug)]
struct WholeColumn {
    pieces: Vec<PieceColumn>,
    /// The final numbers of each worker's texts.
    numbers: Vec<Vec<u32>>,
    texts: Option<Texts>,
}

pub(crate) fn assemble(
    task: &Task<'_>,
    layout: Layout,
    reads: Vec<WorkerRead>,
) -> Result<LoadedDataset, LoadError> {
    let (pieces, mut columns) = whole_columns(&layout, reads)?;
    task.check()?;
    let rows = pieces.last().map_or(0, |last| last.first_row as usize + last.rows);
    let shape = key_shape(&layout, &columns, &pieces)?;
    let (sorted, doubles) = if shape.bits() <= u64::BITS {
        let (sorted, doubles) = sorted_entries(&shape, &layout, &columns, &pieces);
        (AnySorted::Narrow(sorted), doubles)
    } else {
        let (sorted, doubles) = sorted_entries(&shape, &layout, &columns, &pieces);
        (AnySorted::Wide(sorted), doubles)
    };
    report_doubles(task, &layout, &pieces, doubles);
    task.check()?;
    for column in &layout.key {
        columns[*column].pieces = vec![];
    }
    let jobs: Vec<(usize, WholeColumn)> = columns.into_iter().enumerate().collect();
    let stores = parallel::for_each(jobs, |(place, column)| {
        match layout.key.iter().position(|key| *key == place) {
            Some(part) => {
                ColumnStore { codes: StoredCodes::Key(part), nulls: None, texts: column.texts }
            }
            None => column.store(&pieces, rows),
        }
    });
    task.check()?;
    Ok(LoadedDataset::new(layout.outputs, stores, layout.key, Index::new(shape, sorted)))
}

/// Turns what workers read by piece into columns, and unites their texts.
fn whole_columns(
    layout: &Layout,
    reads: Vec<WorkerRead>,
) -> Result<(Vec<PieceRows>, Vec<WholeColumn>), LoadError> {
    let mut all = vec![];
    let mut sets: Vec<Vec<TextSet>> = layout.outputs.iter().map(|_| vec![]).collect();
    for (worker, read) in reads.into_iter().enumerate() {
        all.extend(read.pieces.into_iter().map(|piece| (piece.number, worker, piece)));
        for (column, set) in read.texts.into_iter().enumerate() {
            sets[column].push(set);
        }
    }
    all.sort_unstable_by_key(|(number, _, _)| *number);
    let rows: u64 = all.iter().map(|(_, _, piece)| piece.rows as u64).sum();
    if rows > ROWS_MAX {
        return Err(LoadError::TooManyRows { file: layout.file.clone(), rows, rows_max: ROWS_MAX });
    }
    let united = unite(layout, sets)?;
    let column = |(texts, numbers)| WholeColumn { pieces: vec![], numbers, texts };
    let mut columns: Vec<WholeColumn> = united.into_iter().map(column).collect();
    let mut first_row = 0;
    let mut pieces = vec![];
    for (_, worker, piece) in all {
        for (column, piece_column) in columns.iter_mut().zip(piece.columns) {
            column.pieces.push(piece_column);
        }
        pieces.push(PieceRows { first_row, rows: piece.rows, worker, lines: piece.lines });
        first_row += u32::try_from(piece.rows).expect("the sum of all was checked");
    }
    Ok((pieces, columns))
}

type United = (Option<Texts>, Vec<Vec<u32>>);

fn unite(layout: &Layout, sets: Vec<Vec<TextSet>>) -> Result<Vec<United>, LoadError> {
    let jobs: Vec<(usize, Vec<TextSet>)> = sets.into_iter().enumerate().collect();
    parallel::for_each(jobs, |(place, sets)| {
        let output = &layout.outputs[place];
        if output.kind != ColumnKind::Text {
            return Ok((None, vec![]));
        }
        match Texts::united(sets, layout.key.contains(&place)) {
            Ok((texts, numbers)) => Ok((Some(texts), numbers)),
            Err(TooMuchText) => Err(LoadError::TooMuchText {
                file: layout.file.clone(),
                column: output.name.clone(),
            }),
        }
    })
    .into_iter()
    .collect()
}

/// How the key packs: by ranges of codes if that fits, else by places among the different codes.
fn key_shape(
    layout: &Layout,
    columns: &[WholeColumn],
    pieces: &[PieceRows],
) -> Result<KeyShape, LoadError> {
    let rows = pieces.last().map_or(0, |last| last.first_row as usize + last.rows);
    let rows = u32::try_from(rows).expect("the number of rows was checked");
    let range = |column: &usize| columns[*column].range(pieces).unwrap_or((0, 0));
    let ranges: Vec<(u64, u64)> = parallel::for_each(layout.key.iter().collect(), range);
    let parts = ranges.iter().map(|(least, greatest)| KeyPart::from_range(*least, *greatest));
    let shape = KeyShape::new(parts.collect(), rows);
    if shape.bits() <= u128::BITS {
        return Ok(shape);
    }
    let parts = layout.key.iter().zip(shape.into_parts()).map(|(column, part)| {
        let column = &columns[*column];
        if column.texts.is_some() { part } else { KeyPart::from_codes(column.all_codes(pieces)) }
    });
    let shape = KeyShape::new(parts.collect(), rows);
    if shape.bits() <= u128::BITS {
        return Ok(shape);
    }
    let names = layout.key.iter().map(|column| layout.outputs[*column].name.as_str());
    Err(LoadError::KeyTooWide {
        file: layout.file.clone(),
        columns: names.collect::<Vec<&str>>().join(", "),
        bits: shape.bits(),
    })
}

fn sorted_entries<E: Entry>(
    shape: &KeyShape,
    layout: &Layout,
    columns: &[WholeColumn],
    pieces: &[PieceRows],
) -> (Sorted<E>, Vec<(u32, u32)>) {
    let rows = pieces.iter().map(|piece| piece.rows).sum();
    let mut entries = vec![E::from(0); rows];
    let mut jobs = vec![];
    let mut rest = &mut entries[..];
    for (number, piece) in pieces.iter().enumerate() {
        let (own, others) = rest.split_at_mut(piece.rows);
        jobs.push((number, piece, own));
        rest = others;
    }
    parallel::for_each(jobs, |(number, piece, own)| {
        for (part, column) in layout.key.iter().enumerate() {
            columns[*column].each_code(number, piece.worker, |place, code| {
                own[place] = shape.pack(own[place], part, code);
            });
        }
        for (row, entry) in (piece.first_row..).zip(own) {
            *entry = shape.with_row(*entry, row);
        }
    });
    Sorted::new(entries, shape.row_bits())
}

/// Counts and describes rows whose key another row has already.
fn report_doubles(
    task: &Task<'_>,
    layout: &Layout,
    pieces: &[PieceRows],
    doubles: Vec<(u32, u32)>,
) {
    let line = |row: u32| {
        let after = pieces.partition_point(|piece| piece.first_row <= row);
        let with = pieces[..after].iter().rev().find(|piece| piece.rows > 0);
        let piece = with.expect("the first row of the first piece is row 0");
        piece.lines.line((row - piece.first_row) as usize)
    };
    let names: Vec<&str> =
        layout.key.iter().map(|column| layout.outputs[*column].name.as_str()).collect();
    for (double, first) in doubles {
        task.progress.broken.add(BrokenRow {
            line: line(double),
            file: layout.file.clone(),
            column: Some(names.join(", ")),
            what: format!("the key is that of line {}", line(first)),
        });
    }
}

impl WholeColumn {
    /// Calls with each place in a piece and its final code.
    fn each_code(&self, piece: usize, worker: usize, mut call: impl FnMut(usize, u64)) {
        match (&self.pieces[piece].codes, self.numbers.get(worker)) {
            (Codes::Narrow(codes), Some(numbers)) => {
                // A null has code 0, which means nothing and may not even be a number.
                let number = |code: u32| numbers.get(code as usize).copied().unwrap_or(0);
                codes
                    .iter()
                    .enumerate()
                    .for_each(|(place, code)| call(place, u64::from(number(*code))));
            }
            (Codes::Narrow(codes), None) => {
                codes.iter().enumerate().for_each(|(place, code)| call(place, u64::from(*code)));
            }
            (Codes::Wide(codes), _) => {
                codes.iter().enumerate().for_each(|(place, code)| call(place, *code));
            }
        }
    }

    /// The least and the greatest code.
    fn range(&self, pieces: &[PieceRows]) -> Option<(u64, u64)> {
        if let Some(texts) = &self.texts {
            return Some((0, (texts.len() as u64).checked_sub(1)?));
        }
        let ranges = parallel::for_each(pieces.iter().enumerate().collect(), |(number, piece)| {
            let (mut least, mut greatest) = (u64::MAX, 0);
            self.each_code(number, piece.worker, |_, code| {
                least = least.min(code);
                greatest = greatest.max(code);
            });
            (least, greatest)
        });
        let least = ranges.iter().map(|(least, _)| *least).min()?;
        let greatest = ranges.iter().map(|(_, greatest)| *greatest).max()?;
        (least <= greatest).then_some((least, greatest))
    }

    fn all_codes(&self, pieces: &[PieceRows]) -> Vec<u64> {
        let mut codes = Vec::with_capacity(pieces.iter().map(|piece| piece.rows).sum());
        for (number, piece) in pieces.iter().enumerate() {
            self.each_code(number, piece.worker, |_, code| codes.push(code));
        }
        codes
    }

    /// Puts the pieces together, in 32 bits a row where the codes allow it.
    fn store(mut self, pieces: &[PieceRows], rows: usize) -> ColumnStore {
        let (least, greatest) = self.range(pieces).unwrap_or((0, 0));
        let nulls = self.nulls(pieces, rows);
        let codes = if greatest - least <= u64::from(u32::MAX) {
            let mut codes = Vec::with_capacity(rows);
            self.drain(pieces, |code| {
                // A null's code may lie outside of the range, and means nothing.
                codes.push(u32::try_from(code.saturating_sub(least)).unwrap_or(0));
            });
            StoredCodes::Narrow { least, codes }
        } else {
            let mut codes = Vec::with_capacity(rows);
            self.drain(pieces, |code| codes.push(code));
            StoredCodes::Wide(codes)
        };
        ColumnStore { codes, nulls, texts: self.texts }
    }

    /// Calls with all codes in order, and frees each piece when it is through.
    fn drain(&mut self, pieces: &[PieceRows], mut call: impl FnMut(u64)) {
        for (number, piece) in pieces.iter().enumerate() {
            self.each_code(number, piece.worker, |_, code| call(code));
            self.pieces[number].codes = Codes::Narrow(vec![]);
        }
    }

    fn nulls(&mut self, pieces: &[PieceRows], rows: usize) -> Option<Bits> {
        if self.pieces.iter().all(|piece| piece.nulls.is_none()) {
            return None;
        }
        let mut bits = Bits::new(rows);
        for (column, piece) in self.pieces.iter_mut().zip(pieces) {
            let nulls = column.nulls.take().unwrap_or_default();
            let places = nulls.iter().enumerate().filter(|(_, null)| **null);
            places.for_each(|(place, _)| bits.set(piece.first_row as usize + place));
        }
        Some(bits)
    }
}

/// Rows are numbered with 32 bits.
const ROWS_MAX: u64 = u32::MAX as u64;
