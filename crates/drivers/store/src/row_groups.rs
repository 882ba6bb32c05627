//! Reads Parquet in parallel, one row group a time.
//!
//! Every thread opens the file for itself: handles of one file share their position.

use std::fs::File;
use std::ops::Range;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType};
use hotpair_core::services::dataset::{Column, ColumnKind};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

use crate::broken::BrokenRow;
use crate::error::LoadError;
use crate::layout::{Layout, data_type};
use crate::load::{Task, WorkerRead};
use crate::pieces::{BatchLines, Worker};

/// One row group.
#[derive(Debug)]
struct Group {
    number: usize,
    /// Its first row, counted from 1 over the file.
    first_row: u64,
    rows: usize,
    bytes: u64,
}

/// Reads all rows of a Parquet file.
pub(crate) fn read(task: &Task<'_>) -> Result<(Layout, Vec<WorkerRead>), LoadError> {
    let file = task.open()?;
    let size = file.metadata().map(|metadata| metadata.len());
    if size.is_ok_and(|size| size == 0) {
        return Err(LoadError::Empty { file: task.file.to_owned() });
    }
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
        .map_err(|error| broken_file(task, error))?;
    let layout = Layout::new(task.spec, task.file, columns(task.file, &metadata)?)?;
    let groups = groups(&metadata);
    task.progress.expect_bytes(groups.iter().map(|group| group.bytes).sum());
    let reads = task.in_workers(
        &layout,
        groups.into_iter(),
        |groups, _| Ok(groups.next()),
        || task.open(),
        |file, worker, group| read_group(task, &layout, &metadata, file, worker, group),
    )?;
    Ok((layout, reads))
}

fn groups(metadata: &ArrowReaderMetadata) -> Vec<Group> {
    let mut first_row = 1;
    let mut groups = vec![];
    for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let bytes = u64::try_from(group.compressed_size()).unwrap_or(0);
        // Only a first guess at the room that is needed: a damaged file may claim anything.
        let room = usize::try_from(rows).unwrap_or(0).min(ROOM_ROWS_MAX);
        groups.push(Group { number, first_row, rows: room, bytes });
        first_row += rows;
    }
    groups
}

fn columns(file: &str, metadata: &ArrowReaderMetadata) -> Result<Vec<Column>, LoadError> {
    let column = |field: &arrow_schema::FieldRef| match kind(field.data_type()) {
        Some(kind) => Ok(Column { name: field.name().clone(), kind }),
        None => Err(LoadError::UnsupportedColumn {
            file: file.to_owned(),
            column: field.name().clone(),
            data_type: Box::new(field.data_type().clone()),
        }),
    };
    metadata.schema().fields().iter().map(column).collect()
}

fn kind(data_type: &DataType) -> Option<ColumnKind> {
    match data_type {
        DataType::Boolean => Some(ColumnKind::Boolean),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(ColumnKind::Text),
        DataType::Dictionary(_, values) => kind(values),
        DataType::Date32 | DataType::Date64 => Some(ColumnKind::Date),
        DataType::Timestamp(_, _) => Some(ColumnKind::Timestamp),
        integer if integer.is_integer() => Some(ColumnKind::Integer),
        number if number.is_numeric() => Some(ColumnKind::Float),
        _ => None,
    }
}

fn read_group(
    task: &Task<'_>,
    layout: &Layout,
    metadata: &ArrowReaderMetadata,
    file: &File,
    worker: &mut Worker<'_>,
    group: &Group,
) -> Result<(), LoadError> {
    let again =
        file.try_clone().map_err(|error| LoadError::Open { file: task.file.to_owned(), error })?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(again, metadata.clone())
        .with_row_groups(vec![group.number])
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| broken_file(task, error))?;
    let mut piece = worker.empty_piece(group.number as u64, group.first_row, group.rows);
    let mut row = group.first_row;
    for batch in reader {
        task.check()?;
        let batch = batch
            .map_err(|error| broken_file(task, ParquetError::ArrowError(error.to_string())))?;
        let before = piece.rows;
        append(task, layout, worker, &mut piece, &batch, row)?;
        row += batch.num_rows() as u64;
        task.progress.add_rows((piece.rows - before) as u64);
    }
    task.progress.add_bytes(group.bytes);
    worker.pieces.push(piece);
    Ok(())
}

/// Adds a batch, or, where some values do not convert, its stretches of rows that do.
pub(crate) fn append(
    task: &Task<'_>,
    layout: &Layout,
    worker: &mut Worker<'_>,
    piece: &mut crate::pieces::Piece,
    batch: &RecordBatch,
    first_row: u64,
) -> Result<(), LoadError> {
    let failed = |error| LoadError::Arrow { file: task.file.to_owned(), error };
    let converted = converted(layout, batch).map_err(failed)?;
    let mut stretches: Vec<Range<usize>> = vec![];
    let mut start = 0;
    for row in 0..batch.num_rows() {
        let lost = |place: &usize| {
            converted.column(*place).is_null(row) && batch.column(*place).is_valid(row)
        };
        let Some(place) = (0..batch.num_columns()).find(lost) else { continue };
        let input = &layout.inputs[place];
        task.progress.broken.add(BrokenRow {
            line: first_row + row as u64,
            file: task.file.to_owned(),
            column: Some(input.name.clone()),
            what: format!("the value is no {}", input.kind),
        });
        stretches.push(start..row);
        start = row + 1;
    }
    stretches.push(start..batch.num_rows());
    for stretch in stretches.into_iter().filter(|stretch| !stretch.is_empty()) {
        let lines = BatchLines::From(first_row + stretch.start as u64);
        worker.append(piece, &converted.slice(stretch.start, stretch.len()), lines)?;
    }
    Ok(())
}

fn converted(layout: &Layout, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let convert = |(array, input): (&ArrayRef, &Column)| {
        cast_with_options(array, &data_type(input.kind), &options)
    };
    let arrays: Result<Vec<ArrayRef>, ArrowError> =
        batch.columns().iter().zip(&layout.inputs).map(convert).collect();
    RecordBatch::try_new(layout.input_schema(), arrays?)
}

fn broken_file(task: &Task<'_>, error: ParquetError) -> LoadError {
    LoadError::Parquet { file: task.file.to_owned(), error }
}

const BATCH_ROWS: usize = 8192;
const ROOM_ROWS_MAX: usize = 1 << 20;
