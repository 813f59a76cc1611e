//! Fills Arrow batches up to their limits. The reader of changes and the reader of copies both do.

use rusqlite::types::ValueRef;

use super::source::ReadRequest;
use crate::codec::{self, BatchBuilder, Compression};
use crate::model::EncodedBatch;

/// How large a batch gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub rows: usize,
    pub bytes: usize,
    pub compression: Compression,
}

impl Limits {
    pub fn of(request: &ReadRequest) -> Self {
        Self { rows: request.batch_rows.max(1), bytes: request.batch_bytes, compression: request.compression }
    }
}

/// A batch that is being filled.
pub(super) struct Filler {
    builder: BatchBuilder,
    limits: Limits,
}

impl Filler {
    pub fn new(columns: usize, limits: Limits) -> Self {
        Self { builder: BatchBuilder::new(columns), limits }
    }

    /// The batch so far, if a row of that many bytes has no room in it any more. A row alone always has.
    pub fn make_room(&mut self, bytes: usize) -> Result<Option<EncodedBatch>, codec::Error> {
        let rows = self.builder.rows();
        let full = rows >= self.limits.rows || self.builder.size_bytes().saturating_add(bytes) > self.limits.bytes;
        if full { self.take() } else { Ok(None) }
    }

    pub fn push(&mut self, value: ValueRef<'_>) {
        self.builder.push(value);
    }

    /// The batch so far, if it has rows.
    pub fn take(&mut self) -> Result<Option<EncodedBatch>, codec::Error> {
        if self.builder.rows() == 0 { Ok(None) } else { self.builder.finish(self.limits.compression).map(Some) }
    }
}
