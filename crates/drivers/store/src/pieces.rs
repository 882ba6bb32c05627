//! Turns record batches into pieces: for each column a vector of codes, and for each row its line.
//!
//! A worker makes many pieces, one per chunk, and shares one text set per column among them, so a
//! text's code means something only together with its worker until `assemble` unites them.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use hotpair_core::services::dataset::ColumnKind;

use crate::broken::{BrokenRow, BrokenRows};
use crate::codes;
use crate::error::LoadError;
use crate::layout::{Layout, Shape};
use crate::texts::{TextSet, TooMuchText};

/// The rows of one chunk.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Its place in the file.
    pub(crate) number: u64,
    pub(crate) rows: usize,
    pub(crate) columns: Vec<PieceColumn>,
    pub(crate) lines: Lines,
}

/// The codes of one column in a piece; a null's code means nothing.
#[derive(Debug)]
pub(crate) struct PieceColumn {
    pub(crate) codes: Codes,
    /// True where null; missing while nothing is.
    pub(crate) nulls: Option<Vec<bool>>,
}

/// Codes, in 32 bits where the kind's codes fit.
#[derive(Debug)]
pub(crate) enum Codes {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

/// The line of each row of a piece.
#[derive(Debug)]
pub(crate) enum Lines {
    /// One after the other.
    From(u64),
    /// One by one.
    Listed(Vec<u64>),
}

/// The line of each row of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BatchLines<'a> {
    From(u64),
    Listed(&'a [u64]),
}

impl BatchLines<'_> {
    fn line(&self, row: usize) -> u64 {
        match self {
            BatchLines::From(first) => first + row as u64,
            BatchLines::Listed(lines) => lines[row],
        }
    }
}

impl Lines {
    pub(crate) fn line(&self, row: usize) -> u64 {
        match self {
            Lines::From(first) => first + row as u64,
            Lines::Listed(lines) => lines[row],
        }
    }

    fn list(&mut self, rows: usize) -> &mut Vec<u64> {
        if let Lines::From(first) = *self {
            *self = Lines::Listed((first..first + rows as u64).collect());
        }
        match self {
            Lines::Listed(lines) => lines,
            Lines::From(_) => unreachable!("it was just made a list"),
        }
    }
}

/// One thread's part of a load: what it reads shares its text sets.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    layout: &'a Layout,
    broken: &'a BrokenRows,
    key_inputs: Vec<usize>,
    pub(crate) texts: Vec<TextSet>,
    pub(crate) pieces: Vec<Piece>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(layout: &'a Layout, broken: &'a BrokenRows) -> Worker<'a> {
        Worker {
            layout,
            broken,
            key_inputs: layout.key_inputs(),
            texts: layout.outputs.iter().map(|_| TextSet::default()).collect(),
            pieces: vec![],
        }
    }

    /// A piece without rows whose memory suffices for some.
    pub(crate) fn empty_piece(&self, number: u64, first_line: u64, rows: usize) -> Piece {
        let column = |kind| {
            let codes = if codes::is_narrow(kind) {
                Codes::Narrow(Vec::with_capacity(rows))
            } else {
                Codes::Wide(Vec::with_capacity(rows))
            };
            PieceColumn { codes, nulls: None }
        };
        let columns = self.layout.outputs.iter().map(|output| column(output.kind)).collect();
        Piece { number, rows: 0, columns, lines: Lines::From(first_line) }
    }

    /// Adds a batch to a piece, without the rows whose key is incomplete.
    pub(crate) fn append(
        &mut self,
        piece: &mut Piece,
        batch: &RecordBatch,
        lines: BatchLines<'_>,
    ) -> Result<(), LoadError> {
        let usable = self.usable_rows(batch, lines);
        let added = match &self.layout.shape {
            Shape::AsIs => {
                let picks = usable.as_deref();
                for (place, array) in batch.columns().iter().enumerate() {
                    let (column, texts) = (&mut piece.columns[place], &mut self.texts[place]);
                    column
                        .append(array, self.layout.outputs[place].kind, picks, texts)
                        .map_err(|error| self.too_much_text(place, &error))?;
                }
                add_lines(piece, lines, picks, batch.num_rows());
                picks.map_or(batch.num_rows(), <[u32]>::len)
            }
            Shape::Unpivoted { kept, turned } => {
                self.append_turned(piece, batch, lines, usable, kept, turned)?
            }
        };
        piece.rows += added;
        Ok(())
    }

    /// The rows with a complete key, or nothing where that is all; the others are broken.
    fn usable_rows(&self, batch: &RecordBatch, lines: BatchLines<'_>) -> Option<Vec<u32>> {
        let mut missing = vec![];
        for input in &self.key_inputs {
            let array = batch.column(*input);
            let nan = array.as_primitive_opt::<Float64Type>();
            if array.null_count() == 0 && nan.is_none() {
                continue;
            }
            for row in 0..batch.num_rows() {
                let is_nan = nan.is_some_and(|floats| floats.value(row).is_nan());
                if array.is_null(row) || is_nan {
                    missing.push((row, *input));
                }
            }
        }
        if missing.is_empty() {
            return None;
        }
        missing.sort_unstable();
        missing.dedup_by_key(|(row, _)| *row);
        for (row, input) in &missing {
            self.broken.add(BrokenRow {
                line: lines.line(*row),
                file: self.layout.file.clone(),
                column: Some(self.layout.inputs[*input].name.clone()),
                what: "the key is missing".to_owned(),
            });
        }
        let is_missing = |row: &u32| {
            missing.binary_search_by_key(&(*row as usize), |(missing, _)| *missing).is_ok()
        };
        Some((0..row_number(batch.num_rows())).filter(|row| !is_missing(row)).collect())
    }

    /// Adds one row for each value of the turned columns; returns how many.
    fn append_turned(
        &mut self,
        piece: &mut Piece,
        batch: &RecordBatch,
        lines: BatchLines<'_>,
        usable: Option<Vec<u32>>,
        kept: &[usize],
        turned: &[usize],
    ) -> Result<usize, LoadError> {
        let rows = usable.unwrap_or_else(|| (0..row_number(batch.num_rows())).collect());
        let outputs = &self.layout.outputs;
        let (name_place, value_place) = (kept.len(), kept.len() + 1);
        let mut added = 0;
        for input in turned {
            let array = batch.column(*input);
            let picks: Vec<u32> =
                rows.iter().copied().filter(|row| array.is_valid(*row as usize)).collect();
            for (place, kept_input) in kept.iter().enumerate() {
                let kept_array = batch.column(*kept_input);
                piece.columns[place]
                    .append(kept_array, outputs[place].kind, Some(&picks), &mut self.texts[place])
                    .map_err(|error| self.too_much_text(place, &error))?;
            }
            let name = &self.layout.inputs[*input].name;
            let number = self.texts[name_place]
                .number(name)
                .map_err(|error| self.too_much_text(name_place, &error))?;
            piece.columns[name_place].append_repeated(number, picks.len());
            let texts = &mut self.texts[value_place];
            piece.columns[value_place]
                .append(array, outputs[value_place].kind, Some(&picks), texts)
                .map_err(|error| self.too_much_text(value_place, &error))?;
            let listed = piece.lines.list(piece.rows + added);
            listed.extend(picks.iter().map(|row| lines.line(*row as usize)));
            added += picks.len();
        }
        Ok(added)
    }

    fn too_much_text(&self, place: usize, _: &TooMuchText) -> LoadError {
        LoadError::TooMuchText {
            file: self.layout.file.clone(),
            column: self.layout.outputs[place].name.clone(),
        }
    }
}

fn add_lines(piece: &mut Piece, lines: BatchLines<'_>, picks: Option<&[u32]>, rows: usize) {
    if let (Lines::From(first), BatchLines::From(batch_first), None) = (&piece.lines, lines, picks)
        && first + piece.rows as u64 == batch_first
    {
        return;
    }
    let listed = piece.lines.list(piece.rows);
    match picks {
        Some(picks) => listed.extend(picks.iter().map(|row| lines.line(*row as usize))),
        None => listed.extend((0..rows).map(|row| lines.line(row))),
    }
}

impl PieceColumn {
    pub(crate) fn len(&self) -> usize {
        match &self.codes {
            Codes::Narrow(codes) => codes.len(),
            Codes::Wide(codes) => codes.len(),
        }
    }

    fn append(
        &mut self,
        array: &ArrayRef,
        kind: ColumnKind,
        picks: Option<&[u32]>,
        texts: &mut TextSet,
    ) -> Result<(), TooMuchText> {
        self.append_nulls(array, picks);
        match kind {
            ColumnKind::Boolean => {
                let values = array.as_boolean();
                let codes = self.narrow();
                let code = |row: usize| u32::from(values.value(row));
                match picks {
                    None => codes.extend((0..array.len()).map(code)),
                    Some(picks) => codes.extend(picks.iter().map(|row| code(*row as usize))),
                }
            }
            ColumnKind::Date => {
                let values = array.as_primitive::<Date32Type>().values();
                extend(self.narrow(), values, picks, codes::of_date);
            }
            ColumnKind::Integer => {
                let values = array.as_primitive::<Int64Type>().values();
                extend(self.wide(), values, picks, codes::of_integer);
            }
            ColumnKind::Timestamp => {
                let values = array.as_primitive::<TimestampMicrosecondType>().values();
                extend(self.wide(), values, picks, codes::of_integer);
            }
            ColumnKind::Float => {
                let values = array.as_primitive::<Float64Type>().values();
                extend(self.wide(), values, picks, codes::of_float);
            }
            ColumnKind::Text => {
                let values = array.as_string::<i32>();
                let codes = self.narrow();
                let mut push = |row: usize| {
                    let null = values.is_null(row);
                    codes.push(if null { 0 } else { texts.number(values.value(row))? });
                    Ok(())
                };
                match picks {
                    None => (0..array.len()).try_for_each(&mut push)?,
                    Some(picks) => picks.iter().try_for_each(|row| push(*row as usize))?,
                }
            }
        }
        Ok(())
    }

    fn append_nulls(&mut self, array: &ArrayRef, picks: Option<&[u32]>) {
        if array.null_count() == 0 && self.nulls.is_none() {
            return;
        }
        let before = self.len();
        let nulls = self.nulls.get_or_insert_with(|| vec![false; before]);
        match picks {
            None => nulls.extend((0..array.len()).map(|row| array.is_null(row))),
            Some(picks) => nulls.extend(picks.iter().map(|row| array.is_null(*row as usize))),
        }
    }

    /// Adds a text's number that is never null, many times.
    fn append_repeated(&mut self, code: u32, times: usize) {
        let codes = self.narrow();
        codes.resize(codes.len() + times, code);
    }

    fn narrow(&mut self) -> &mut Vec<u32> {
        match &mut self.codes {
            Codes::Narrow(codes) => codes,
            Codes::Wide(_) => unreachable!("the kind's codes are narrow"),
        }
    }

    fn wide(&mut self) -> &mut Vec<u64> {
        match &mut self.codes {
            Codes::Wide(codes) => codes,
            Codes::Narrow(_) => unreachable!("the kind's codes are wide"),
        }
    }
}

fn extend<V: Copy, C>(
    codes: &mut Vec<C>,
    values: &[V],
    picks: Option<&[u32]>,
    code: impl Fn(V) -> C,
) {
    match picks {
        None => codes.extend(values.iter().map(|value| code(*value))),
        Some(picks) => codes.extend(picks.iter().map(|row| code(values[*row as usize]))),
    }
}

fn row_number(rows: usize) -> u32 {
    u32::try_from(rows).expect("a batch has a few thousand rows")
}
