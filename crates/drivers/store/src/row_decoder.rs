//! The library's decoder of CSV, asked for rows only where that is safe.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::Decoder;
use arrow_schema::{ArrowError, SchemaRef};

use crate::chunks::Record;

/// Why bytes are not the records that they were taken for.
pub(crate) const CARRIAGE_RETURN: &str = "a carriage return inside a row";

/// Decodes rows into columns.
///
/// The library takes for granted that it is never asked for rows in the middle of a field, and reads
/// beyond its buffer if it is. A quote after a lone carriage return brings it there: it sees a record
/// begin where [`Records`](crate::chunks::Records) sees none. So a row of nothing is put in behind the
/// last record: between two records that is one more row, and within a quote it is text.
#[derive(Debug)]
pub(crate) struct RowDecoder {
    decoder: Decoder,
    row_of_nothing: Vec<u8>,
}

impl RowDecoder {
    /// For batches of so many rows, all columns of them or one.
    pub(crate) fn new(schema: &SchemaRef, rows_max: usize, projection: Option<usize>) -> Self {
        let commas = schema.fields().len().saturating_sub(1);
        let row_of_nothing = format!("\"\"{}\n", ",".repeat(commas)).into_bytes();
        let builder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(rows_max + 1);
        let builder = match projection {
            Some(column) => builder.with_projection(vec![column]),
            None => builder,
        };
        Self { decoder: builder.build_decoder(), row_of_nothing }
    }

    /// Decodes as many lines as a batch has room for, each of them a record: how many bytes they are.
    pub(crate) fn decode_lines(
        &mut self,
        bytes: &[u8],
    ) -> Result<(usize, Option<RecordBatch>), ArrowError> {
        let taken = take(&mut self.decoder, bytes)?;
        Ok((taken, self.decoder.flush()?))
    }

    /// Decodes records that are next to each other into as many rows. After an error it is in the
    /// middle of something, and good for nothing more.
    pub(crate) fn decode_exactly(
        &mut self,
        bytes: &[u8],
        records: &[Record],
    ) -> Result<RecordBatch, ArrowError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Err(ArrowError::CsvError("no records".to_owned()));
        };
        let newline: &[u8] = if last.ended { b"" } else { b"\n" };
        let mut is_all = true;
        for bytes in [&bytes[first.start..last.end], newline, &self.row_of_nothing] {
            is_all &= take(&mut self.decoder, bytes)? == bytes.len();
        }
        match self.decoder.flush()? {
            Some(batch) if is_all && batch.num_rows() == records.len() + 1 => {
                Ok(batch.slice(0, records.len()))
            }
            Some(_) | None => Err(ArrowError::CsvError(CARRIAGE_RETURN.to_owned())),
        }
    }
}

/// Feeds the decoder until it has a full batch or all the bytes; returns how many it took.
fn take(decoder: &mut Decoder, bytes: &[u8]) -> Result<usize, ArrowError> {
    let mut taken = 0;
    while taken < bytes.len() && decoder.capacity() > 0 {
        let more = decoder.decode(&bytes[taken..])?;
        if more == 0 {
            break;
        }
        taken += more;
    }
    Ok(taken)
}
