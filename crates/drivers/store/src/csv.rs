//! Reads CSV in parallel with the arrow library.
//!
//! The library rejects a batch of rows as a whole and knows no lines. So a chunk is decoded in
//! batches, and a batch that is rejected is halved until the rows that cannot be decoded stand
//! alone; these are looked at column by column. A chunk in which records are not simply lines
//! (quotes, carriage returns, empty lines) is decoded by records from the start, for their lines.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_csv::reader::Format;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use flate2::read::MultiGzDecoder;
use hotpair_core::services::dataset::{Column, ColumnKind};

use crate::broken::BrokenRow;
use crate::chunks::{Chunk, ChunkError, Chunks, RECORD_BYTES_MAX, Record, Records};
use crate::error::LoadError;
use crate::inference::Guess;
use crate::layout::Layout;
use crate::load::{Task, WorkerRead};
use crate::pieces::{BatchLines, Piece, Worker};
use crate::progress::Progress;
use crate::row_decoder::{CARRIAGE_RETURN, RowDecoder};
use crate::spec::DatasetSpec;

/// Reads all rows of a CSV file.
pub(crate) fn read(task: &Task<'_>, gzipped: bool) -> Result<(Layout, Vec<WorkerRead>), LoadError> {
    let file = task.open()?;
    let size = file.metadata().map(|metadata| metadata.len());
    task.progress
        .expect_bytes(size.map_err(|error| LoadError::Open { file: task.file.to_owned(), error })?);
    let counted = Counted { file, progress: task.progress };
    let reader: Box<dyn Read + Send + '_> = if gzipped {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(GZIP_BUFFER_BYTES, counted)))
    } else {
        Box::new(counted)
    };
    let mut chunks = Chunks::new(reader, CHUNK_BYTES);
    let next = |chunks: &mut Chunks<_>, buffer: Vec<u8>| {
        chunks.next(buffer).map_err(|error| failed(task, error))
    };
    let empty = || LoadError::Empty { file: task.file.to_owned() };
    let mut first = next(&mut chunks, vec![])?.ok_or_else(empty)?;
    let names = take_header(task.file, &mut first)?.ok_or_else(empty)?;
    let found = guessed_columns(task.spec, &names, &first);
    let layout = Layout::new(task.spec, task.file, found)?;
    let schema = layout.input_schema();
    let reads = task.in_workers(
        &layout,
        (chunks, Some(first)),
        |(chunks, first), last: Option<Chunk>| match first.take() {
            Some(first) => Ok(Some(first)),
            None => next(chunks, last.map_or_else(Vec::new, |chunk| chunk.bytes)),
        },
        || Ok(ChunkReader::new(task, &layout, &schema)),
        ChunkReader::read,
    )?;
    Ok((layout, reads))
}

fn failed(task: &Task<'_>, error: ChunkError) -> LoadError {
    let file = task.file.to_owned();
    match error {
        ChunkError::Io(error) => LoadError::Read { file, error },
        ChunkError::RecordTooLong { line } => {
            LoadError::RecordTooLong { file, line, bytes_max: RECORD_BYTES_MAX }
        }
    }
}

/// Cuts the header off the first chunk and returns its names; nothing if there is none.
fn take_header(file: &str, first: &mut Chunk) -> Result<Option<Vec<String>>, LoadError> {
    if first.bytes.starts_with(BYTE_ORDER_MARK) {
        first.bytes.drain(..BYTE_ORDER_MARK.len());
    }
    let Some(header) = Records::new(&first.bytes, first.first_line).next() else {
        return Ok(None);
    };
    let bytes = &first.bytes[header.start..header.end];
    let bad = |what: String| LoadError::Header { file: file.to_owned(), what };
    if bytes.contains(&0) {
        return Err(bad("it holds a zero byte, as text never does".to_owned()));
    }
    let (schema, _) = Format::default()
        .with_header(true)
        .infer_schema(Cursor::new(bytes), Some(0))
        .map_err(|error| bad(error.to_string()))?;
    let names = schema.fields().iter().map(|field| field.name().trim().to_owned()).collect();
    let lines = memchr::memchr_iter(b'\n', &first.bytes[..header.end]).count() as u64;
    first.first_line += lines;
    first.lines = first.lines.saturating_sub(lines);
    first.bytes.drain(..header.end);
    Ok(Some(names))
}

/// The columns with the kinds the first rows suggest.
fn guessed_columns(spec: &DatasetSpec, names: &[String], first: &Chunk) -> Vec<Column> {
    let texts = text_schema(names.iter());
    let records: Vec<Record> =
        Records::new(&first.bytes, first.first_line).take(GUESS_ROWS).collect();
    let mut guesses = vec![Guess::default(); names.len()];
    let mut groups = vec![&records[..]];
    while let Some(group) = groups.pop() {
        match decode_records(&texts, &first.bytes, group) {
            Ok(batch) => see(&mut guesses, &batch),
            Err(_) if group.len() > 1 => {
                let (low, high) = group.split_at(group.len() / 2);
                groups.extend([high, low]);
            }
            // Broken in a way that has nothing to do with kinds; it will be found again.
            Err(_) => {}
        }
    }
    let column = |(name, guess): (&String, &Guess)| {
        let kind = guess.kind(spec.key.contains(name));
        Column { name: name.clone(), kind }
    };
    names.iter().zip(&guesses).map(column).collect()
}

fn see(guesses: &mut [Guess], batch: &RecordBatch) {
    for (guess, array) in guesses.iter_mut().zip(batch.columns()) {
        array.as_string::<i32>().iter().flatten().for_each(|text| guess.see(text));
    }
}

/// Decodes records with a decoder of their own.
fn decode_records(
    schema: &SchemaRef,
    bytes: &[u8],
    records: &[Record],
) -> Result<RecordBatch, ArrowError> {
    RowDecoder::new(schema, records.len(), None).decode_exactly(bytes, records)
}

fn text_schema<'a>(names: impl Iterator<Item = &'a String>) -> SchemaRef {
    let fields: Vec<Field> = names.map(|name| Field::new(name, DataType::Utf8, true)).collect();
    Arc::new(Schema::new(fields))
}

/// A thread's way through chunks.
#[derive(Debug)]
struct ChunkReader<'a> {
    task: &'a Task<'a>,
    layout: &'a Layout,
    schema: &'a SchemaRef,
    decoder: RowDecoder,
}

impl<'a> ChunkReader<'a> {
    fn new(task: &'a Task<'a>, layout: &'a Layout, schema: &'a SchemaRef) -> ChunkReader<'a> {
        ChunkReader { task, layout, schema, decoder: RowDecoder::new(schema, BATCH_ROWS, None) }
    }

    fn read(&mut self, worker: &mut Worker<'_>, chunk: &Chunk) -> Result<(), LoadError> {
        let rows = usize::try_from(chunk.lines).unwrap_or(0);
        let mut piece = worker.empty_piece(chunk.number, chunk.first_line, rows);
        if has_a_record_per_line(&chunk.bytes) {
            self.read_lines(worker, &mut piece, chunk)?;
        } else {
            self.read_records(worker, &mut piece, chunk, 0, chunk.first_line)?;
        }
        self.task.progress.add_rows(piece.rows as u64);
        worker.pieces.push(piece);
        Ok(())
    }

    /// The fast way: the library finds the records, and the n-th row is in the n-th line.
    fn read_lines(
        &mut self,
        worker: &mut Worker<'_>,
        piece: &mut Piece,
        chunk: &Chunk,
    ) -> Result<(), LoadError> {
        let (mut at, mut line) = (0, chunk.first_line);
        while at < chunk.bytes.len() {
            let decoded = self.decoder.decode_lines(&chunk.bytes[at..]);
            let Ok((taken, Some(batch))) = decoded else {
                self.reset();
                return self.read_records(worker, piece, chunk, at, line);
            };
            worker.append(piece, &batch, BatchLines::From(line))?;
            line += batch.num_rows() as u64;
            at += taken;
        }
        Ok(())
    }

    /// The exact way: records are found first, so that each row's line is known.
    fn read_records(
        &mut self,
        worker: &mut Worker<'_>,
        piece: &mut Piece,
        chunk: &Chunk,
        at: usize,
        line: u64,
    ) -> Result<(), LoadError> {
        let bytes = &chunk.bytes[at..];
        let records: Vec<Record> = Records::new(bytes, line).collect();
        let mut groups: Vec<&[Record]> = records.chunks(BATCH_ROWS).rev().collect();
        let mut broken = 0;
        while let Some(group) = groups.pop() {
            // Counted here alone: what others find later in the file must not hide what is here.
            if broken > self.task.spec.broken_rows_max {
                return Ok(());
            }
            match self.decoder.decode_exactly(bytes, group) {
                Ok(batch) => {
                    let lines: Vec<u64> = group.iter().map(|record| record.line).collect();
                    worker.append(piece, &batch, BatchLines::Listed(&lines))?;
                }
                Err(error) => {
                    self.reset();
                    match group {
                        [record] => {
                            broken += 1;
                            self.report(bytes, record, &error);
                        }
                        _ => {
                            let (low, high) = group.split_at(group.len() / 2);
                            groups.extend([high, low]);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A decoder that has rejected something is in the middle of a record.
    fn reset(&mut self) {
        self.decoder = RowDecoder::new(self.schema, BATCH_ROWS, None);
    }

    fn report(&self, bytes: &[u8], record: &Record, error: &ArrowError) {
        let (column, what) = self.reason(bytes, record, error);
        self.task.progress.broken.add(BrokenRow {
            line: record.line,
            file: self.layout.file.clone(),
            column,
            what,
        });
    }

    /// Which column of a record that cannot be decoded is to blame, and why.
    fn reason(
        &self,
        bytes: &[u8],
        record: &Record,
        error: &ArrowError,
    ) -> (Option<String>, String) {
        if record.quote_open {
            return (None, "a quote is opened and never closed".to_owned());
        }
        let record_bytes = &bytes[record.start..record.end];
        let lossy = String::from_utf8_lossy(record_bytes);
        let whole = Record { start: 0, end: lossy.len(), ..*record };
        let names = self.layout.inputs.iter().map(|input| &input.name);
        let texts = decode_records(&text_schema(names), lossy.as_bytes(), &[whole]);
        let Ok(texts) = texts else {
            return (None, self.shape_reason(lossy.as_bytes(), error));
        };
        for (place, input) in self.layout.inputs.iter().enumerate() {
            let text = texts.column(place).as_string::<i32>();
            let text = if text.is_valid(0) { text.value(0) } else { "" };
            let column = Some(input.name.clone());
            if text.contains(char::REPLACEMENT_CHARACTER)
                && std::str::from_utf8(record_bytes).is_err()
            {
                return (column, format!("`{}` is not UTF-8", shortened(text)));
            }
            let mut alone = RowDecoder::new(self.schema, 1, Some(place));
            if alone.decode_exactly(lossy.as_bytes(), &[whole]).is_err() {
                return (column, format!("`{}` is no {}", shortened(text), noun(input.kind)));
            }
        }
        (None, error.to_string())
    }

    fn shape_reason(&self, record: &[u8], error: &ArrowError) -> String {
        let counted = Format::default().infer_schema(Cursor::new(record), Some(0));
        let expected = self.layout.inputs.len();
        match counted {
            Ok((schema, _)) if schema.fields().len() != expected => {
                format!("{} fields where the header has {expected}", schema.fields().len())
            }
            Ok(_) if has_lone_carriage_return(record) => CARRIAGE_RETURN.to_owned(),
            Ok(_) | Err(_) => error.to_string(),
        }
    }
}

/// Whether every line is a record; what is not certain is not.
fn has_a_record_per_line(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n")
        && !bytes.starts_with(b"\n")
        && memchr::memchr2(b'"', b'\r', bytes).is_none()
        && memchr::memmem::find(bytes, b"\n\n").is_none()
}

fn has_lone_carriage_return(record: &[u8]) -> bool {
    memchr::memchr_iter(b'\r', record).any(|place| record.get(place + 1) != Some(&b'\n'))
}

fn noun(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Boolean => "boolean",
        ColumnKind::Integer => "integer",
        ColumnKind::Float => "number",
        ColumnKind::Text => "text",
        ColumnKind::Date => "date",
        ColumnKind::Timestamp => "timestamp",
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// A file that counts what is read of it.
#[derive(Debug)]
struct Counted<'a> {
    file: File,
    progress: &'a Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.progress.add_bytes(count as u64);
        Ok(count)
    }
}

/// What a thread takes at a time: small beside the file, large beside the cost of handing it out.
const CHUNK_BYTES: usize = 4 << 20;
/// Rows decoded at once: their text and columns stay in the cache between the two.
const BATCH_ROWS: usize = 4096;
const GZIP_BUFFER_BYTES: usize = 256 << 10;
/// Rows that the kinds are guessed from.
const GUESS_ROWS: usize = 10_000;
/// How much of a bad value is shown.
const SHOWN_CHARACTERS_MAX: usize = 60;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
