//! Reads the rows of a table in key order, all columns of them, for whoever begins.

use std::cmp::Ordering;
use std::sync::Arc;

use rusqlite::Connection;

use super::catalog::EventCatalog;
use super::in_read;
use crate::capture::read_error::Error;
use crate::model::{EventTable, Key, TableId, Value};
use crate::sqlite::range_sql::{Cells, RangeQuery};
use crate::sqlite::value_of;

/// Which rows to read.
#[derive(Clone, Copy, Debug)]
pub struct RowsRequest<'a> {
    /// Of which table, by its newest generation.
    pub table: TableId,
    /// Above this key; `None` from the first row on.
    pub after: Option<&'a Key>,
    /// Rows at most; but rows of one key, which there are where keys hold NULLs, come together.
    pub rows_max: usize,
    /// Bytes of rows at most, but one row at least.
    pub bytes_max: usize,
}

/// Rows.
#[derive(Clone, Debug, PartialEq)]
pub struct RowsRead {
    /// The table as it is now; in a log of keys with the rowid as its first column, where that is the key.
    pub table: Arc<EventTable>,
    /// The rows in key order, every column of [`EventTable::columns`].
    pub rows: Vec<Vec<Value>>,
    /// The key of the last of them, from which to read on; `None` where there were none.
    pub last: Option<Key>,
    /// Whether there are no more.
    pub done: bool,
    /// The log's end in this read transaction: the rows are as of there.
    pub head: i64,
    /// The time of the newest entry there, in ms since 1970; 0 in an empty log.
    pub ts_ms: i64,
}

/// Reads the next rows of a table; `None` where it is not captured, or not any more, or the schema moved (then
/// [`super::read_events`] says so).
///
/// # Errors
/// [`Error::NotCaptured`], or SQLite's.
pub fn read_rows(
    connection: &Connection,
    catalog: &mut EventCatalog,
    request: &RowsRequest<'_>,
) -> Result<Option<RowsRead>, Error> {
    in_read(connection, || read(connection, catalog, request))
}

fn read(
    connection: &Connection,
    catalog: &mut EventCatalog,
    request: &RowsRequest<'_>,
) -> Result<Option<RowsRead>, Error> {
    if !catalog.refresh(connection)? {
        return Ok(None);
    }
    let Some(line) = catalog.line(request.table) else { return Ok(None) };
    let query = RangeQuery::new(&line.schema, Cells::All, request.after, None);
    let (mut rows, mut bytes, mut last, mut done) = (Vec::new(), 0_usize, None::<Key>, true);
    query.each(connection, |row| {
        let size = row.size_bytes();
        let full = rows.len() >= request.rows_max.max(1) || bytes.saturating_add(size) > request.bytes_max;
        let of_the_same_key = last.as_ref().is_some_and(|key| query.compare(row, key) == Ordering::Equal);
        if full && !rows.is_empty() && !of_the_same_key {
            done = false;
            return Ok::<_, Error>(false);
        }
        bytes += size;
        last = Some(row.key(query.key_places()));
        rows.push(row.values().skip(line.cells_before()).map(value_of).collect());
        Ok(true)
    })?;
    let sql = format!("SELECT seq, ts FROM main.{} ORDER BY seq DESC LIMIT 1", catalog.log);
    let newest = connection.prepare_cached(&sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.next();
    let (head, ts_ms) = newest.transpose()?.unwrap_or((0, 0));
    Ok(Some(RowsRead { table: Arc::clone(line.table()), rows, last, done, head, ts_ms }))
}
