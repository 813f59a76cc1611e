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
        piece.add(&query, row, size)?;
        Ok(true)
    })?;
    let high = cut.or_else(|| step.high.clone());
    piece.finish(step, high)
}

/// How far a range that was asked for may have grown since its digest was made, in pieces. It is sent whole where it can
/// be; what grew beyond this is cut, and goes on as any copy does.
const GROWTH_MAX: usize = 4;

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
        let pieces = if step.bounded || step.high.is_some() { GROWTH_MAX } else { 1 };
        let (rows, digest) = match step.how {
            CopyHow::Rows => (true, false),
            CopyHow::Digest => (false, true),
            CopyHow::DigestUnlessSmall => (step.low.is_none() && step.high.is_none(), true),
        };
        Self {
            rows: 0,
            bytes: 0,
            rows_max: step.rows_max.max(1).saturating_mul(pieces) as u64,
            bytes_max: step.bytes_max.saturating_mul(pieces),
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

    fn add(&mut self, query: &RangeQuery, row: &RowRef<'_, '_>, size: usize) -> Result<(), Error> {
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(size);
        if let Some(filler) = &mut self.filler {
            self.batches.extend(filler.make_room(size)?);
            row.values().for_each(|value| filler.push(value));
        }
        if let Some(digest) = &mut self.digest {
            digest.row(row.values(), query.names_several(row));
        }
        Ok(())
    }

    fn finish(mut self, step: &CopyStep, high: Option<Key>) -> Result<(WindowItem, Copied), Error> {
        let (table, low, mode, lost_history) = (step.table, step.low.clone(), step.mode, step.lost_history);
        let last = high.is_none();
        let by_rows = step.how == CopyHow::Rows || (self.filler.is_some() && last);
        let copied = Copied { table, high: high.clone(), last, rows: self.rows, as_digest: !by_rows, lost_history };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::fixture::{Fixture, Said};
    use crate::model::{Digest, Value};
    use crate::sqlite::borrowed;

    /// Copies a table by steps, and gives all rows and how many each step had.
    fn copied(db: &mut Fixture, rows_max: usize) -> (Vec<Vec<Value>>, Vec<usize>) {
        db.copy(1, CopyHow::Rows, rows_max);
        let (mut rows, mut steps) = (Vec::new(), Vec::new());
        loop {
            let said = db.said();
            let copied = said.window.copied.as_ref().expect("a piece");
            let piece = said.range();
            assert_eq!((piece.len() as u64, copied.last), (copied.rows, copied.high.is_none()));
            steps.push(piece.len());
            rows.extend(piece);
            db.request.copy.as_mut().expect("a step").low = copied.high.clone();
            if copied.last {
                return (rows, steps);
            }
        }
    }

    fn digest(said: &Said) -> &Digest {
        match said.items.last() {
            Some(WindowItem::Digest(digest)) => digest,
            other => panic!("no digest: {other:?}"),
        }
    }

    #[test]
    fn the_pieces_of_a_table_are_the_whole_table_in_key_order() {
        for key in ["a, b", "a, b DESC", "b DESC, a", "b COLLATE NOCASE, a"] {
            let ddl = format!("CREATE TABLE t(a, b, c AS (a || b), PRIMARY KEY({key}))");
            let rows = "INSERT INTO t VALUES (1,'x'),(1,'Y'),(2,'x'),(2,x'00'),(3,NULL),(NULL,NULL),(NULL,1.5),('z',7)";
            let mut db = Fixture::new(&ddl, rows);
            let (whole, _) = copied(&mut db, 100);
            assert_eq!(whole.len(), 8);
            for rows_max in [1, 2, 3, 7, 8] {
                assert_eq!(copied(&mut db, rows_max).0, whole, "{key}, {rows_max} rows at a time");
            }
        }
    }

    #[test]
    fn rows_of_one_key_are_never_in_two_pieces() {
        let rows = "INSERT INTO t VALUES (NULL,1),(NULL,2),(NULL,3),('a',1),('b',1)";
        let mut db = Fixture::new("CREATE TABLE t(k TEXT PRIMARY KEY, v)", rows);
        assert_eq!(copied(&mut db, 2).1, [3, 2]);
        assert_eq!(copied(&mut db, 4).1, [4, 1]);
    }

    #[test]
    fn an_empty_table_is_one_piece_that_says_so() {
        let mut db = Fixture::new("CREATE TABLE t(k TEXT PRIMARY KEY, v)", "");
        assert_eq!(copied(&mut db, 2), (Vec::new(), vec![0]));
    }

    #[test]
    fn a_piece_ends_before_it_is_too_large_and_a_large_row_is_a_piece_of_its_own() {
        let rows = "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, zeroblob(9000)), (4, 'c')";
        let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", rows);
        db.copy(1, CopyHow::Rows, 100).bytes_max = 100;
        let mut low = None;
        let sizes: Vec<u64> = std::iter::from_fn(|| {
            db.request.copy.as_mut().expect("a step").low = low.take();
            let copied = db.said().window.copied.expect("a piece");
            low.clone_from(&copied.high);
            (!copied.last).then_some(copied.rows)
        })
        .collect();
        assert_eq!(sizes, [2, 1], "and the last row");
    }

    #[test]
    fn a_bounded_piece_is_exactly_that_unless_it_has_grown_beyond_bounds() {
        let rows = "INSERT INTO t VALUES (1), (2), (3), (4), (5)";
        let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", rows);
        let step = db.copy(1, CopyHow::Rows, 1);
        (step.low, step.high) = (Some(Key(vec![Value::Integer(1)])), Some(Key(vec![Value::Integer(4)])));
        let said = db.said();
        assert_eq!(said.range().len(), 3);
        let copied = said.window.copied.expect("a piece");
        assert_eq!((copied.last, copied.high), (false, Some(Key(vec![Value::Integer(4)]))));
        let step = db.copy(1, CopyHow::Rows, 1);
        (step.low, step.bounded) = (Some(Key(vec![Value::Integer(3)])), true);
        let said = db.said();
        assert_eq!((said.range().len(), said.window.copied.expect("a piece").last), (2, true));
        db.run("INSERT INTO t VALUES (6), (7), (8), (9)");
        for high in [None, Some(Key(vec![Value::Integer(9)]))] {
            let step = db.copy(1, CopyHow::Rows, 1);
            (step.low, step.bounded, step.high) = (Some(Key(vec![Value::Integer(3)])), true, high);
            let said = db.said();
            let copied = said.window.copied.as_ref().expect("a piece");
            assert_eq!((said.range().len(), copied.last), (4, false));
            assert_eq!(copied.high, Some(Key(vec![Value::Integer(7)])), "the copy goes on from here");
        }
    }

    #[test]
    fn a_digest_is_that_of_the_rows_of_its_range() {
        let rows = "INSERT INTO t VALUES (1, 'a'), (2, x'00'), (3, NULL), (4, 1.5), (5, -1)";
        let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", rows);
        db.copy(1, CopyHow::Rows, 3);
        let mut expected = RowDigest::new();
        for row in db.said().range() {
            row.iter().for_each(|value| expected.push(borrowed(value)));
            expected.end_row();
        }
        db.copy(1, CopyHow::DigestUnlessSmall, 3).lost_history = true;
        let said = db.said();
        let found = digest(&said);
        assert_eq!((found.rows, found.digest), expected.finish());
        assert_eq!((&found.high, found.lost_history), (&Some(Key(vec![Value::Integer(3)])), true));
        let copied = said.window.copied.as_ref().expect("a piece");
        assert!(copied.as_digest && !copied.last);
        db.request.copy.as_mut().expect("a step").low = Some(Key(vec![Value::Integer(3)]));
        let rest = db.said();
        assert_eq!((digest(&rest).rows, digest(&rest).last), (2, true), "the rest is small, the table is not");
    }

    #[test]
    fn a_table_that_fits_into_one_step_comes_as_rows_unless_the_digest_is_what_is_wanted() {
        let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)");
        db.copy(1, CopyHow::DigestUnlessSmall, 2);
        let said = db.said();
        assert_eq!((said.range().len(), said.window.copied.expect("a piece").as_digest), (2, false));
        db.copy(1, CopyHow::Digest, 2);
        assert_eq!(digest(&db.said()).rows, 2);
    }

    #[test]
    fn a_copy_of_a_table_that_is_gone_is_nothing() {
        let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "");
        db.copy(99, CopyHow::Rows, 2);
        assert!(matches!(db.read(), crate::capture::source::ReadOutcome::Nothing { head: 0, .. }));
    }
}
