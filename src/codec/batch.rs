//! stub
use super::Error;
use crate::model::EncodedBatch;
use rusqlite::types::ValueRef;

/// How the buffers of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the formats")]
pub enum Compression {
    None,
    Lz4,
    Zstd,
}

/// Collects rows, column by column, and makes a batch of them.
pub struct BatchBuilder {}

impl BatchBuilder {
    /// For rows of that many columns.
    pub fn new(_columns: usize) -> Self {
        todo!()
    }
    /// Adds the next value of the current row, in column order.
    pub fn push(&mut self, _value: ValueRef<'_>) {
        todo!()
    }
    /// Rows that are complete.
    pub fn rows(&self) -> usize {
        todo!()
    }
    /// Bytes of values collected.
    pub fn size_bytes(&self) -> usize {
        todo!()
    }
    /// Makes the batch and starts anew.
    ///
    /// # Errors
    /// Arrow's.
    pub fn finish(&mut self, _compression: Compression) -> Result<EncodedBatch, Error> {
        todo!()
    }
}

/// A batch that can be read cell by cell.
pub struct DecodedBatch {}

impl DecodedBatch {
    /// Checks and opens a batch of that many columns.
    ///
    /// # Errors
    /// Malformed.
    pub fn new(_batch: &EncodedBatch, _columns: usize) -> Result<Self, Error> {
        todo!()
    }
    /// How many rows.
    pub fn rows(&self) -> usize {
        todo!()
    }
    /// One cell, borrowed from the batch.
    pub fn value(&self, _column: usize, _row: usize) -> ValueRef<'_> {
        todo!()
    }
}
