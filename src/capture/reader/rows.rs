//! Reads the rows that a window's marks name, as they are in the read transaction, into batches.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::captured::Table;
use super::entries::{Mark, Version};
use crate::capture::batches::{Filler, Limits};
use crate::capture::read_error::Error;
use crate::capture::source::{ReadRequest, Sink};
use crate::model::{EncodedBatch, NormalKey, Rows, RowsOp, TableId, Value, WindowItem};
use crate::sqlite::borrowed;
use crate::sqlite::row_sql::KeyReader;

/// Columns before the table's in every batch: seq, ts, origin.
const COLUMNS_OF_VERSION: usize = 3;

/// Gives the sink what has become of the keys of one table, and says how many of them the window holds.
///
/// They come by key, near enough to the order of the key's index that both ends walk through their pages, where the order
/// of the log would have them jump. What a window says does not depend on the order, for it has one state of each key.
pub(super) fn emit(
    connection: &Connection,
    (table, marks): (&Table, HashMap<NormalKey, Mark>),
    request: &ReadRequest,
    sink: &mut Sink<'_>,
) -> Result<u64, Error> {
    let mut reader = table.by_key.prepare(connection)?;
    let mut output = Output::new(table, request, sink);
    let mut marks: Vec<(NormalKey, Mark)> = marks.into_iter().collect();
    marks.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut changes = 0;
    for (_, mark) in &marks {
        changes += u64::from(output.add(&mut reader, mark)?);
    }
    output.finish()?;
    Ok(changes)
}

/// The batches of one table that are being filled.
struct Output<'a, 'k> {
    table: TableId,
    except_via: Option<i64>,
    upserts: Filler,
    exactly: Filler,
    deletes: Filler,
    sink: &'a mut Sink<'k>,
}

impl<'a, 'k> Output<'a, 'k> {
    fn new(table: &Table, request: &ReadRequest, sink: &'a mut Sink<'k>) -> Self {
        let limits = Limits::of(request);
        let wire = COLUMNS_OF_VERSION + table.schema.wire_columns().len();
        let key = COLUMNS_OF_VERSION + table.collations.len();
        Self {
            table: table.id,
            except_via: request.two_way.map(|two_way| two_way.peer.0),
            upserts: Filler::new(wire, limits),
            exactly: Filler::new(wire, limits),
            deletes: Filler::new(key, limits),
            sink,
        }
    }

    /// Adds what has become of one key; whether it is a change at all.
    ///
    /// A touch says that a row was about to be displaced. If it is still there it was not, and what counts is what was
    /// written besides, if anything. A key with a NULL in it may name several rows, of which one may be gone: what is
    /// left is said in any case.
    fn add(&mut self, reader: &mut KeyReader<'_>, mark: &Mark) -> Result<bool, Error> {
        let (op, version) =
            if mark.key.has_null() { (RowsOp::Exactly, Some(mark.newest)) } else { (RowsOp::Upsert, mark.written) };
        let version = version.filter(|version| self.is_wanted(version));
        let mut rows = 0;
        reader.each(&mark.key, |row| {
            rows += 1;
            let Some(version) = version else { return Ok::<_, Error>(()) };
            if op == RowsOp::Upsert || rows == 1 {
                let full = self.filler(op).make_room(row.size_bytes())?;
                self.give(op, full)?;
            }
            let filler = self.filler(op);
            push_version(filler, version);
            row.values().for_each(|value| filler.push(value));
            Ok(())
        })?;
        if rows > 0 {
            return Ok(version.is_some());
        }
        self.add_deletion(mark)
    }

    fn add_deletion(&mut self, mark: &Mark) -> Result<bool, Error> {
        if !self.is_wanted(&mark.newest) {
            return Ok(false);
        }
        let full = self.deletes.make_room(mark.key.0.iter().map(Value::size_bytes).sum())?;
        self.give(RowsOp::Delete, full)?;
        push_version(&mut self.deletes, mark.newest);
        mark.key.0.iter().for_each(|value| self.deletes.push(borrowed(value)));
        Ok(true)
    }

    fn is_wanted(&self, version: &Version) -> bool {
        self.except_via.is_none() || version.via != self.except_via
    }

    fn filler(&mut self, op: RowsOp) -> &mut Filler {
        match op {
            RowsOp::Upsert => &mut self.upserts,
            RowsOp::Exactly => &mut self.exactly,
            RowsOp::Delete => &mut self.deletes,
        }
    }

    fn give(&mut self, op: RowsOp, batch: Option<EncodedBatch>) -> Result<(), Error> {
        let Some(batch) = batch else { return Ok(()) };
        (self.sink)(WindowItem::Rows(Rows { table: self.table, op, batch })).map_err(Error::Spool)
    }

    fn finish(mut self) -> Result<(), Error> {
        for op in [RowsOp::Delete, RowsOp::Exactly, RowsOp::Upsert] {
            let rest = self.filler(op).take()?;
            self.give(op, rest)?;
        }
        Ok(())
    }
}

fn push_version(filler: &mut Filler, version: Version) {
    filler.push(ValueRef::Integer(version.origin_seq.unwrap_or(version.seq)));
    filler.push(ValueRef::Integer(version.ts));
    filler.push(version.origin.map_or(ValueRef::Null, ValueRef::Integer));
}
