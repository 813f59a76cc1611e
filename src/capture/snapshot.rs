//! Reads a table piece by piece: *the keys in (low, high] are exactly these rows*, or the digest of that.
//!
//! The reader calls it inside the read transaction of a window, so that a piece and the changes before it are of one
//! moment. Pieces ascend in key order ([`crate::sqlite::range_sql`]); a piece ends where the next row would exceed its
//! limits, but never between rows of equal keys, which there are where keys hold NULLs.

use std::cmp::Ordering;

use rusqlite::Connection;

use super::batches::{Filler, Limits};
use super::read_error::Error;
use super::source::{Copied, CopyHow, CopyStep};
use crate::codec::RowDigest;
use crate::model::{Digest, EncodedBatch, Key, Range, TableSchema, WindowItem};
use crate::sqlite::range_sql::{Cells, RangeQuery};
use crate::sqlite::row_sql::RowRef;

/// Reads one piece.
pub(super) fn copy_step(
    connection: &Connection,
    table: &TableSchema,
    step: &CopyStep,
    limits: Limits,
) -> Result<(WindowItem, Copied), Error> {
    let query = RangeQuery::new(table, Cells::Wire, step.low.as_ref(), step.high.as_ref());
    let mut piece = Piece::new(table.wire_columns().len(), step, limits);
    let mut cut = None;
    query.each(connection, |row| {
        let size = row.size_bytes();
        if piece.is_full_for(size) && !piece.is_of_the_same_key(row, &query) {
            cut = piece.last_key.take();
            return Ok::<_, Error>(false);
        }
        piece.last_key = Some(row.key(query.key_places()));
        piece.add(row, size)?;
        Ok(true)
    })?;
    let high = cut.or_else(|| step.high.clone());
    piece.finish(step, high)
}

/// A piece that is being read, with the rows or their digest or, while it is open which, both.
struct Piece {
    rows: u64,
    bytes: usize,
    rows_max: u64,
    bytes_max: usize,
    last_key: Option<Key>,
    filler: Option<Filler>,
    batches: Vec<EncodedBatch>,
    digest: Option<RowDigest>,
}

impl Piece {
    fn new(columns: usize, step: &CopyStep, limits: Limits) -> Self {
        let exactly = step.bounded || step.high.is_some();
        let (rows, digest) = match step.how {
            CopyHow::Rows => (true, false),
            CopyHow::Digest => (false, true),
            CopyHow::DigestUnlessSmall => (step.low.is_none() && step.high.is_none(), true),
        };
        Self {
            rows: 0,
            bytes: 0,
            rows_max: if exactly { u64::MAX } else { step.rows_max.max(1) as u64 },
            bytes_max: if exactly { usize::MAX } else { step.bytes_max },
            last_key: None,
            filler: rows.then(|| Filler::new(columns, limits)),
            batches: Vec::new(),
            digest: digest.then(RowDigest::new),
        }
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        self.rows > 0 && (self.rows >= self.rows_max || self.bytes.saturating_add(bytes) > self.bytes_max)
    }

    fn is_of_the_same_key(&self, row: &RowRef<'_, '_>, query: &RangeQuery) -> bool {
        self.last_key.as_ref().is_some_and(|key| query.compare(row, key) == Ordering::Equal)
    }

    fn add(&mut self, row: &RowRef<'_, '_>, size: usize) -> Result<(), Error> {
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(size);
        if let Some(filler) = &mut self.filler {
            self.batches.extend(filler.make_room(size)?);
            row.values().for_each(|value| filler.push(value));
        }
        if let Some(digest) = &mut self.digest {
            row.values().for_each(|value| digest.push(value));
            digest.end_row();
        }
        Ok(())
    }

    fn finish(mut self, step: &CopyStep, high: Option<Key>) -> Result<(WindowItem, Copied), Error> {
        let (table, low, mode, lost_history) = (step.table, step.low.clone(), step.mode, step.lost_history);
        let last = high.is_none();
        let by_rows = step.how == CopyHow::Rows || (self.filler.is_some() && last);
        let copied = Copied { table, high: high.clone(), last, rows: self.rows, as_digest: !by_rows };
        let digest = self.digest.take().filter(|_| !by_rows).map(RowDigest::finish);
        if let Some((rows, digest)) = digest {
            let digest = Digest { table, low, high, mode, last, lost_history, rows, digest };
            return Ok((WindowItem::Digest(digest), copied));
        }
        if let Some(mut filler) = self.filler.take() {
            self.batches.extend(filler.take()?);
        }
        let range = Range { table, low, high, mode, last, lost_history, batches: self.batches };
        Ok((WindowItem::Range(range), copied))
    }
}
