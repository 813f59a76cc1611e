//! Rows into batches.
//!
//! The capture stage pushes values row by row; [`BatchBuilder::finish`] makes the [`EncodedBatch`] that a window
//! carries. What a batch says is never changed by how it is compressed.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use bytes::Bytes;
use rusqlite::types::ValueRef;

use super::column::{Code, Column};
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Error};
use crate::model::EncodedBatch;

/// How the buffers of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the formats")]
pub enum Compression {
    None,
    Lz4,
    Zstd,
}

impl Compression {
    fn arrow(self) -> Option<CompressionType> {
        match self {
            Self::None => None,
            Self::Lz4 => Some(CompressionType::LZ4_FRAME),
            Self::Zstd => Some(CompressionType::ZSTD),
        }
    }
}

/// Collects rows, column by column, and makes a batch of them.
///
/// It grows as long as it is fed: the caller looks at [`Self::rows`] and [`Self::size_bytes`] and finishes in time. What
/// is past [`BATCH_BYTES_MAX`] or [`BATCH_ROWS_MAX`] is not kept, and then [`Self::finish`] fails.
pub struct BatchBuilder {
    columns: Vec<Column>,
    /// The column that the next value goes to.
    next: usize,
    rows: usize,
    bytes: usize,
    context: IpcWriteContext,
}

impl BatchBuilder {
    /// For rows of that many columns.
    pub fn new(columns: usize) -> Self {
        Self {
            columns: (0..columns).map(|_| Column::new()).collect(),
            next: 0,
            rows: 0,
            bytes: 0,
            context: IpcWriteContext::default(),
        }
    }

    /// Adds the next value of the current row, in column order.
    #[inline]
    pub fn push(&mut self, value: ValueRef<'_>) {
        self.bytes = self.bytes.saturating_add(size_bytes(value));
        let fits = self.bytes <= BATCH_BYTES_MAX && self.rows < BATCH_ROWS_MAX;
        self.columns[self.next].push(if fits { value } else { ValueRef::Null });
        self.next += 1;
        if self.next == self.columns.len() {
            self.next = 0;
            self.rows += 1;
        }
    }

    /// Rows that are complete.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of values collected.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the batch and starts anew.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if more was pushed than a batch holds; Arrow's. The builder is empty either way.
    pub fn finish(&mut self, compression: Compression) -> Result<EncodedBatch, Error> {
        debug_assert_eq!(self.next, 0, "a batch is made of whole rows");
        self.next = 0;
        let rows = std::mem::take(&mut self.rows);
        let bytes = std::mem::take(&mut self.bytes);
        let finished: Vec<Result<_, _>> = self.columns.iter_mut().map(Column::finish).collect();
        if bytes > BATCH_BYTES_MAX || rows > BATCH_ROWS_MAX {
            return Err(Error::TooLarge { rows, bytes });
        }
        let (codes, arrays): (Vec<Code>, Vec<_>) =
            finished.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema_of(&codes), arrays, &options)?;
        let data = self.encode(&batch, compression)?;
        Ok(EncodedBatch { rows, codes: codes.into_iter().map(|code| code as u8).collect(), data })
    }

    fn encode(&mut self, batch: &RecordBatch, compression: Compression) -> Result<Bytes, Error> {
        let options = IpcWriteOptions::default().try_with_compression(compression.arrow())?;
        let mut dictionaries = DictionaryTracker::new(false);
        let (_, EncodedData { ipc_message, arrow_data }) =
            IpcDataGenerator::default().encode(batch, &mut dictionaries, &options, &mut self.context)?;
        let header = u32::try_from(ipc_message.len()).expect("a header describes at most some thousand columns");
        let mut data = Vec::with_capacity(4 + ipc_message.len() + arrow_data.len());
        data.extend_from_slice(&header.to_le_bytes());
        data.extend_from_slice(&ipc_message);
        data.extend_from_slice(&arrow_data);
        Ok(data.into())
    }
}

fn size_bytes(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() + 4,
    }
}

/// The schema that both ends derive from the codes. Names do not travel: columns are told by their place.
pub(super) fn schema_of(codes: &[Code]) -> SchemaRef {
    let fields: Vec<Field> = codes.iter().map(|code| Field::new("", code.data_type(), true)).collect();
    Arc::new(Schema::new(fields))
}
