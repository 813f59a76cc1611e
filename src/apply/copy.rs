//! Makes a range of a table what the peer says it is, or compares its digest with what is here.
//!
//! Progress moves only over ranges that follow it, so everything up to it is right. A range elsewhere (the answer to a
//! repair) is applied and moves nothing.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::checkpoint::{Copies, Copy};
use super::range_sql::KeyRange;
use super::rows::{Writer, Written};
use super::statement::Target;
use super::{Error, NeedRange};
use crate::codec::{DecodedBatch, RowDigest};
use crate::model::{CopyState, Digest, Key, NormalKey, Range, RangeMode, TableId};
use crate::sqlite::value_of;

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
    let here = KeyRange { target, low: range.low.as_ref(), high: range.high.as_ref() };
    let mut written = Written::default();
    if range.mode == RangeMode::Union || here.is_empty(writer.conn)? {
        for batch in &batches {
            written.upserts += writer.upsert(batch, 0, 0..batch.rows())?;
        }
        return Ok(written);
    }
    let found = compare(writer.conn, &here, &batches)?;
    for key in &found.gone {
        written.deletes += writer.delete_key(key)?;
    }
    for (batch, equal) in batches.iter().zip(&found.equal) {
        let differ = (0..batch.rows()).filter(|row| !equal[*row]);
        written.upserts += writer.upsert(batch, 0, differ)?;
    }
    Ok(written)
}

/// What a range's rows here are against what they should be.
struct Found {
    /// Keys to delete: those that the peer does not have, and those with a NULL, whose rows are all written anew.
    gone: Vec<Key>,
    /// For each batch, for each row, whether it is here bit by bit.
    equal: Vec<Vec<bool>>,
}

fn compare(conn: &Connection, here: &KeyRange<'_>, batches: &[DecodedBatch]) -> Result<Found, Error> {
    let target = here.target;
    let collations = target.collations();
    let incoming = index(target, batches);
    let mut found = Found { gone: Vec::new(), equal: batches.iter().map(|batch| vec![false; batch.rows()]).collect() };
    let places = target.key_in_read();
    let mut statement = here.prepare(conn)?;
    let mut rows = here.query(&mut statement)?;
    while let Some(row) = rows.next()? {
        if row.get(target.written.len())? {
            break;
        }
        let mut key = Key(Vec::with_capacity(places.len()));
        for place in &places {
            key.0.push(value_of(row.get_ref(*place)?));
        }
        match incoming.get(&key.normal(&collations)) {
            Some((batch, at)) if !key.has_null() => {
                found.equal[*batch][*at] = is_equal(target, row, &batches[*batch], *at)?;
            }
            _ => found.gone.push(key),
        }
    }
    Ok(found)
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

fn is_equal(target: &Target, row: &rusqlite::Row<'_>, batch: &DecodedBatch, at: usize) -> rusqlite::Result<bool> {
    for (column, place) in target.written.iter().enumerate() {
        if !is_same(row.get_ref(column)?, batch.value(*place, at)) {
            return Ok(false);
        }
    }
    Ok(true)
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
    // A table that lacks a column cannot hold the same rows; nothing needs reading to know.
    if !target.is_whole() {
        return Ok(Some(need));
    }
    let here = KeyRange { target, low: need.low.as_ref(), high: need.high.as_ref() };
    let equal = digest_of(conn, &here)? == (digest.rows, digest.digest);
    Ok((!equal).then_some(need))
}

fn digest_of(conn: &Connection, here: &KeyRange<'_>) -> Result<(u64, u128), Error> {
    let columns = here.target.written.len();
    let mut digest = RowDigest::new();
    let mut statement = here.prepare(conn)?;
    let mut rows = here.query(&mut statement)?;
    while let Some(row) = rows.next()? {
        if row.get(columns)? {
            break;
        }
        for column in 0..columns {
            digest.push(row.get_ref(column)?);
        }
        digest.end_row();
    }
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    fn covered<'a>(low: Option<&'a Key>, high: Option<&'a Key>) -> Covered<'a> {
        Covered { table: TableId(1), low, high, last: high.is_none(), lost_history: false, rows: 2 }
    }

    #[test]
    fn progress_moves_only_over_ranges_that_follow_it() {
        let key = |number| Key(vec![Value::Integer(number)]);
        let (five, nine) = (key(5), key(9));
        let mut copies = Copies::default();
        copies.put(TableId(1), Copy::pending("t", 4));
        let state = |copies: &Copies| copies.get(TableId(1)).expect("there").state.clone();
        assert!(!covered(Some(&five), Some(&nine)).advance(&mut copies));
        assert_eq!(state(&copies), CopyState::Pending);
        covered(None, Some(&five)).advance(&mut copies);
        assert_eq!(state(&copies), CopyState::Copying { after: key(5) });
        assert!(!covered(Some(&nine), None).advance(&mut copies), "there is a gap");
        assert_eq!(state(&copies), CopyState::Copying { after: key(5) });
        assert!(covered(Some(&five), None).advance(&mut copies));
        assert_eq!(state(&copies), CopyState::Done);
        assert_eq!(copies.get(TableId(1)).expect("there").rows, 4);
        assert!(!covered(None, Some(&five)).advance(&mut copies), "what is whole stays so");
    }
}
