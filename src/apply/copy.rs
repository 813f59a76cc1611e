//! Makes a range of a table what the peer says it is, or compares its digest with what is here.
//!
//! Progress moves only over ranges that follow it, so everything up to it is right. A range elsewhere (the answer to a
//! repair) is applied and moves nothing.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::checkpoint::{Copies, Copy};
use super::rows::{Writer, Written};
use super::statement::Target;
use super::{Error, NeedRange};
use crate::codec::{DecodedBatch, RowDigest};
use crate::model::{CopyState, Digest, Key, NormalKey, Range, RangeMode, TableId};
use crate::sqlite::range_sql::{Cells, RangeQuery};
use crate::sqlite::row_sql::RowRef;

/// Keys that are deleted at once, where a range here has rows that the peer has not, and their bytes: it may be empty
/// there and hold millions here.
const GONE_AT_ONCE: usize = 10_000;
const GONE_BYTES_AT_ONCE: usize = 8 << 20;

/// The piece of a copy that was applied or found equal.
pub(super) struct Covered<'a> {
    pub(super) table: TableId,
    pub(super) low: Option<&'a Key>,
    pub(super) high: Option<&'a Key>,
    pub(super) last: bool,
    pub(super) lost_history: bool,
    pub(super) rows: u64,
}

impl<'a> Covered<'a> {
    pub(super) fn by_range(range: &'a Range) -> Self {
        let rows = range.batches.iter().map(|batch| batch.rows as u64).sum();
        let (low, high) = (range.low.as_ref(), range.high.as_ref());
        Self { table: range.table, low, high, last: range.last, lost_history: range.lost_history, rows }
    }

    pub(super) fn by_digest(digest: &'a Digest) -> Self {
        let (low, high, rows) = (digest.low.as_ref(), digest.high.as_ref(), digest.rows);
        Self { table: digest.table, low, high, last: digest.last, lost_history: digest.lost_history, rows }
    }

    /// Moves the progress over it. Says whether it ended the copy.
    pub(super) fn advance(&self, copies: &mut Copies) -> bool {
        let Some(before) = copies.get(self.table) else { return false };
        let follows = match &before.state {
            CopyState::Pending => self.low.is_none(),
            // From the beginning again: the peer forgot how far it was, and says everything anew.
            CopyState::Copying { after } => self.low.is_none_or(|low| low == after),
            CopyState::Done => false,
        };
        if !follows {
            return false;
        }
        let Some(copy) = copies.change(self.table) else { return false };
        if self.low.is_none() {
            copy.rows = 0;
        }
        copy.rows += self.rows;
        copy.lost_history |= self.lost_history;
        match self.high {
            Some(high) if !self.last => copy.state = CopyState::Copying { after: high.clone() },
            _ => finish(copy),
        }
        self.last
    }

    /// Whether the peer made this well: bounds are of the key's width, and only the last range is open above.
    pub(super) fn check(&self, target: &Target) -> Result<(), Error> {
        let width = target.key.len();
        if self.low.into_iter().chain(self.high).any(|key| key.0.len() != width) {
            return Err(Error::Malformed("a range's bound has not the key's columns"));
        }
        if self.high.is_none() && !self.last {
            return Err(Error::Malformed("a range without an upper bound is not the last"));
        }
        Ok(())
    }
}

fn finish(copy: &mut Copy) {
    (copy.state, copy.lost_history) = (CopyState::Done, false);
    copy.rows_estimate = copy.rows;
}

/// Writes a range's rows, and deletes what else is there.
///
/// # Errors
/// As [`Writer::upsert`].
pub(super) fn apply_range(writer: &Writer<'_>, range: &Range) -> Result<Written, Error> {
    let target = writer.target;
    let mut batches = Vec::with_capacity(range.batches.len());
    for batch in &range.batches {
        batches.push(writer.decode(batch, target.wire_len)?);
    }
    let here = RangeQuery::new(&target.read, Cells::Wire, range.low.as_ref(), range.high.as_ref());
    let mut written = Written::default();
    if range.mode == RangeMode::Union || is_empty(writer.conn, &here)? {
        for batch in &batches {
            written.upserts += writer.upsert(batch, 0, 0..batch.rows())?;
        }
        return Ok(written);
    }
    let incoming = Incoming { batches: &batches, places: index(target, &batches) };
    let mut equal: Vec<Vec<bool>> = batches.iter().map(|batch| vec![false; batch.rows()]).collect();
    let mut low = range.low.clone();
    loop {
        let here = RangeQuery::new(&target.read, Cells::Wire, low.as_ref(), range.high.as_ref());
        let gone = incoming.compare(writer, &here, &mut equal)?;
        for key in &gone.keys {
            written.deletes += writer.delete_key(key)?;
        }
        low = gone.keys.into_iter().next_back();
        if gone.all {
            break;
        }
    }
    for (batch, equal) in batches.iter().zip(&equal) {
        for rows in runs(equal) {
            written.upserts += writer.upsert(batch, 0, rows)?;
        }
    }
    Ok(written)
}

/// The rows side by side that are not here as they should be.
fn runs(equal: &[bool]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for row in (0..equal.len()).filter(|row| !equal[*row]) {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}

/// Keys to delete.
struct Gone {
    /// Those that the peer does not have, and those with a NULL, whose rows are all written anew.
    keys: Vec<Key>,
    /// Whether there are no more of them after the last.
    all: bool,
}

/// What a range's rows should be.
struct Incoming<'a> {
    batches: &'a [DecodedBatch],
    places: HashMap<NormalKey, (usize, usize)>,
}

impl Incoming<'_> {
    /// Compares the rows here with them, until there are many to delete. Notes for each row of each batch whether it is
    /// here bit by bit.
    fn compare(&self, writer: &Writer<'_>, here: &RangeQuery, equal: &mut [Vec<bool>]) -> Result<Gone, Error> {
        let collations = writer.target.collations();
        let (mut gone, mut bytes) = (Gone { keys: Vec::new(), all: true }, 0);
        here.each(writer.conn, |row| {
            let key = row.key(here.key_places());
            let normal = key.normal(&collations);
            match self.places.get(&normal) {
                Some((batch, at)) if !key.has_null() => equal[*batch][*at] = is_equal(row, &self.batches[*batch], *at),
                _ => {
                    bytes += normal.as_bytes().len();
                    gone.keys.push(key);
                    gone.all = gone.keys.len() < GONE_AT_ONCE && bytes < GONE_BYTES_AT_ONCE;
                }
            }
            Ok::<_, Error>(gone.all)
        })?;
        Ok(gone)
    }
}

fn is_empty(conn: &Connection, here: &RangeQuery) -> Result<bool, Error> {
    let mut empty = true;
    here.each(conn, |_| {
        empty = false;
        Ok::<_, Error>(false)
    })?;
    Ok(empty)
}

/// Where each incoming key is.
fn index(target: &Target, batches: &[DecodedBatch]) -> HashMap<NormalKey, (usize, usize)> {
    let collations = target.collations();
    let mut index = HashMap::with_capacity(batches.iter().map(DecodedBatch::rows).sum());
    for (number, batch) in batches.iter().enumerate() {
        for row in 0..batch.rows() {
            index.insert(target.key_of(batch, 0, row).normal(&collations), (number, row));
        }
    }
    index
}

fn is_equal(row: &RowRef<'_, '_>, batch: &DecodedBatch, at: usize) -> bool {
    (0..row.columns()).all(|place| is_same(row.value(place), batch.value(place, at)))
}

/// Identity of storage class and bits.
fn is_same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Null, ValueRef::Null) => true,
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a == b,
        (ValueRef::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
        (ValueRef::Text(a), ValueRef::Text(b)) | (ValueRef::Blob(a), ValueRef::Blob(b)) => a == b,
        _ => false,
    }
}

/// Compares a digest with the rows here; what differs must be sent.
///
/// # Errors
/// SQLite's.
pub(super) fn compare_digest(conn: &Connection, target: &Target, digest: &Digest) -> Result<Option<NeedRange>, Error> {
    let (low, high) = (digest.low.clone(), digest.high.clone());
    let need = NeedRange { table: digest.table, low, high };
    if target.is_narrower {
        return Ok(Some(need));
    }
    let here = RangeQuery::new(&target.read, Cells::Wire, need.low.as_ref(), need.high.as_ref());
    let equal = digest_of(conn, &here)? == (digest.rows, digest.digest);
    Ok((!equal).then_some(need))
}

fn digest_of(conn: &Connection, here: &RangeQuery) -> Result<(u64, u128), Error> {
    let mut digest = RowDigest::new();
    here.each(conn, |row| {
        digest.row(row.values(), here.names_several(row));
        Ok::<_, Error>(true)
    })?;
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Peer, key, started};
    use super::*;
    use crate::model::Value;

    fn covered<'a>(low: Option<&'a Key>, high: Option<&'a Key>) -> Covered<'a> {
        Covered { table: TableId(1), low, high, last: high.is_none(), lost_history: false, rows: 2 }
    }

    #[test]
    fn progress_moves_only_over_ranges_that_follow_it() {
        let (five, nine) = (key(&[5]), key(&[9]));
        let mut copies = Copies::default();
        copies.put(TableId(1), Copy::pending("t", 4));
        let state = |copies: &Copies| copies.get(TableId(1)).expect("there").state.clone();
        assert!(!covered(Some(&five), Some(&nine)).advance(&mut copies));
        assert_eq!(state(&copies), CopyState::Pending);
        covered(None, Some(&five)).advance(&mut copies);
        assert_eq!(state(&copies), CopyState::Copying { after: key(&[5]) });
        assert!(!covered(Some(&nine), None).advance(&mut copies), "there is a gap");
        assert_eq!(state(&copies), CopyState::Copying { after: key(&[5]) });
        assert!(covered(Some(&five), None).advance(&mut copies));
        assert_eq!(state(&copies), CopyState::Done);
        assert_eq!(copies.get(TableId(1)).expect("there").rows, 4);
        assert!(!covered(None, Some(&five)).advance(&mut copies), "what is whole stays so");
    }

    /// Tables of every kind of key, a peer's content, and a replica that has other rows in the range and around it.
    #[test]
    fn a_range_becomes_exactly_what_the_peer_says_and_nothing_else_moves() {
        let text = |text: &str| Key(vec![Value::text(text)]);
        for (ddl, there, here, (low, high), expected) in [
            (
                "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)",
                "(1, 'no'), (2, 'b'), (3, 'c'), (5, 'e'), (7, 'far')",
                "(1, 'keep'), (2, 'b'), (3, 'e'), (4, 'gone'), (6, 'keep too')",
                (key(&[1]), key(&[5])),
                "(1, 'keep'), (2, 'b'), (3, 'c'), (5, 'e'), (6, 'keep too')",
            ),
            (
                "CREATE TABLE t(a, b)",
                "(8, 8), (2, 1), (3, 1)",
                "(1, 1), (1, 2), (1, 3), (9, 9)",
                (key(&[1]), key(&[3])),
                "(1, 1), (2, 1), (3, 1), (9, 9)",
            ),
            (
                "CREATE TABLE t(a, b, PRIMARY KEY(a, b DESC)) WITHOUT ROWID",
                "(1, 2), (1, 3), (2, 1), (2, 9)",
                "(1, 1), (1, 2), (1, 9), (2, 0), (2, 2)",
                (key(&[1, 1]), key(&[2, 1])),
                "(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)",
            ),
            (
                "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
                "(NULL, 1), ('a', 1), ('B', 2), ('c', 3)",
                "(NULL, 5), ('A', 1), ('b', 0), ('bb', 7), ('d', 4)",
                (Key(vec![Value::Null]), text("C")),
                "(NULL, 5), ('a', 1), ('B', 2), ('c', 3), ('d', 4)",
            ),
        ] {
            let (mut peer, mut replica) = started(ddl);
            peer.run(&format!("INSERT INTO t VALUES {there}"));
            replica.run(&format!("INSERT INTO t VALUES {here}"));
            let range = peer.range("t", Some(low), Some(high), false);
            replica.apply(peer.next(vec![range])).expect("apply");
            let wanted = Peer::new(ddl);
            wanted.run(&format!("INSERT INTO t VALUES {expected}"));
            replica.assert_equal(&wanted);
        }
    }

    #[test]
    fn a_copy_goes_range_by_range_and_ends_equal_whatever_was_here() {
        for (ddl, rows, wrong) in [
            (
                "CREATE TABLE t(k TEXT PRIMARY KEY, v)",
                "(NULL, 1), (NULL, 2), ('a', 3), (x'00', 4), (5, 6), ('z', 9)",
                "(NULL, 1), (NULL, 1), ('b', 3), ('zz', 4)",
            ),
            (
                "CREATE TABLE t(a, b, c, PRIMARY KEY(a, b))",
                "(NULL, NULL, 1), (NULL, NULL, 2), (NULL, 5, 3), (1, NULL, 4), (1, NULL, 5), (1, 1, 6), (2, 2, 7)",
                "(NULL, NULL, 1), (NULL, 4, 3), (1, NULL, 4), (1, 2, 6), (2, 2, 0), (3, 3, 3)",
            ),
            ("CREATE TABLE t(a, b)", "(1, 1), (2, 2), (3, 3), (4, 4)", "(1, 1), (0, 0)"),
        ] {
            for wrong in ["", wrong] {
                let (mut peer, mut replica) = started(ddl);
                peer.run(&format!("INSERT INTO t VALUES {rows}"));
                if !wrong.is_empty() {
                    replica.run(&format!("INSERT INTO t VALUES {wrong}"));
                }
                let mut keys = peer.keys("t");
                keys.dedup();
                let mut low = None;
                for key in keys.into_iter().step_by(2) {
                    let range = peer.range("t", low.clone(), Some(key.clone()), false);
                    replica.apply(peer.next(vec![range])).expect("apply");
                    assert_eq!(replica.state("t"), CopyState::Copying { after: key.clone() });
                    low = Some(key);
                }
                replica.apply(peer.next(vec![peer.range("t", low, None, true)])).expect("apply");
                assert_eq!(replica.state("t"), CopyState::Done);
                replica.assert_equal(&peer);
            }
        }
    }

    #[test]
    fn a_digest_counts_as_copied_where_it_is_equal_and_is_asked_for_where_not() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        peer.run("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 1.0)");
        replica.run("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 1)");
        let equal = peer.next(vec![peer.digest("t", None, Some(key(&[2])), false)]);
        let applied = replica.apply(equal).expect("apply");
        assert!(applied.needs.is_empty() && applied.upserts == 0);
        assert_eq!(replica.state("t"), CopyState::Copying { after: key(&[2]) });
        let differs = peer.next(vec![peer.digest("t", Some(key(&[2])), None, true)]);
        let applied = replica.apply(differs).expect("apply");
        let (table, low) = (peer.table_id("t"), Some(key(&[2])));
        assert_eq!(applied.needs, [NeedRange { table, low: low.clone(), high: None }]);
        assert_eq!(replica.state("t"), CopyState::Copying { after: key(&[2]) }, "never past what differs");
        replica.apply(peer.next(vec![peer.range("t", low, None, true)])).expect("apply");
        assert_eq!(replica.state("t"), CopyState::Done);
        replica.assert_equal(&peer);
        let again = peer.next(vec![peer.digest("t", None, None, true)]);
        assert!(replica.apply(again).expect("apply").needs.is_empty());
    }

    #[test]
    fn rows_that_are_here_already_are_not_written_again() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        peer.run("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
        replica.run("INSERT INTO t VALUES (1, 'a'), (2, 'x'), (3, 'c')");
        let applied = replica.apply(peer.next(vec![peer.range("t", None, None, true)])).expect("apply");
        assert_eq!((applied.upserts, applied.deletes), (1, 0));
    }

    #[test]
    fn any_number_of_rows_that_the_peer_does_not_have_goes() {
        for (ddl, key) in [
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "i"),
            ("CREATE TABLE t(k INT PRIMARY KEY, v)", "CASE WHEN i % 5 THEN i END"),
        ] {
            let (mut peer, mut replica) = started(ddl);
            replica.run(&format!(
                "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 25000) INSERT INTO t SELECT {key}, 'v' FROM n"
            ));
            peer.run("INSERT INTO t VALUES (2, 'v'), (36, 'w'), (24999, 'v'), (99996, 'v')");
            let applied = replica.apply(peer.next(vec![peer.range("t", None, None, true)])).expect("apply");
            assert_eq!(applied.deletes, 24_997);
            replica.assert_equal(&peer);
        }
    }
}
