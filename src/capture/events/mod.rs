//! The change log as events, for those who react to changes rather than copy rows.
//!
//! [`read_events`] says what the log's entries say, in their order; [`read_rows`] reads a table in key order for those who
//! begin; [`clip()`] makes the two meet: while a table is copied in pieces, what an event tells of keys that are not copied
//! yet is left to the copy, so that nothing is missing and nothing comes twice.
//!
//! ```text
//!   one read transaction:  read_events until at_end, clip each by how far the copy is    then the next read_rows
//! ```
//!
//! All of them read inside the caller's transaction; without one, each opens a read transaction of its own. What they know
//! of the schema, and of touches, is kept in an [`EventCatalog`] from one call to the next; it belongs to one consumer.
//!
//! What an event says depends on the image mode that its entry was written in, which the table's generation tells:
//!
//! * `full`: every interim change with the row before and after, every column, under the names and columns of that time.
//!   A row that REPLACE displaced is a deletion. Replayed in order, each `before` is what the replay has.
//! * `key`: of the entries that one call meets, one event a key, with the row as it is now; interim states and rows before
//!   are not told. INSERT and UPDATE have the row as `after`, with the rowid as its first column where that is the key;
//!   a DELETE has the columns of the key alone as `before`, which is then all of its [`crate::model::Event::table`]. See
//!   `marks`.
//!
//! Not promised: what a link applied here from a peer. It is told where it was made, for it has no image here.
//! And a row that REPLACE displaces in the same statement in which a BEFORE trigger of the user's, or a foreign key's action, has
//! just changed it: no trigger sees that row again.

mod catalog;
mod clip;
mod entries;
mod marks;
mod rows;
mod touches;

#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod tests;

use rusqlite::Connection;

pub use self::catalog::{CapturedTable, EventCatalog};
pub use self::clip::clip;
pub use self::rows::{RowsRead, RowsRequest, read_rows};
use super::read_error::Error;
use crate::model::{Event, Key, Selection, TableId};

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct EventRequest<'a> {
    /// The last entry whose events the consumer has; 0 for none.
    pub after: i64,
    /// Events at most; but those of one key, which may be many where it has a NULL in it, come together.
    pub events_max: usize,
    /// Bytes of images and rows after which no further change is begun; a change is always whole.
    pub bytes_max: usize,
    /// Of which tables: by the name that they had, and in a log of keys by the one that they have now.
    pub selection: &'a Selection,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventsRead {
    /// The events, in change order.
    pub events: Vec<Event>,
    /// For each event, the keys that it is about.
    pub keys: Vec<EventKeys>,
    /// The last entry that the events up to here, and those before, say all about: read on from it. Never inside a change.
    pub to: i64,
    /// Whether that is the log's end.
    pub at_end: bool,
    /// The log's end in this read transaction.
    pub head: i64,
    /// The schema is not the one that the triggers were last compared with, and nothing was read: whoever owns the
    /// database reconciles first.
    pub schema_moved: bool,
}

/// The keys that an event is about.
#[derive(Clone, Debug, PartialEq)]
pub struct EventKeys {
    /// The captured table, by its newest generation; `None` where it is gone, or has another key now.
    pub table: Option<TableId>,
    /// The key of the row before.
    pub before: Option<Key>,
    /// The key of the row after.
    pub after: Option<Key>,
}

/// Reads events.
///
/// # Errors
/// [`Error::NotCaptured`]; [`Error::EventsLost`] where the log does not go on from `after`; SQLite's, or a log that is
/// damaged.
pub fn read_events(
    connection: &Connection,
    catalog: &mut EventCatalog,
    request: &EventRequest<'_>,
) -> Result<EventsRead, Error> {
    in_read(connection, || entries::read(connection, catalog, request))
}

/// Inside the caller's transaction, or in one of its own, which ends without a trace.
fn in_read<T>(connection: &Connection, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    if !connection.is_autocommit() {
        return read();
    }
    connection.execute_batch("BEGIN")?;
    let outcome = read();
    // Some failures have ended it already.
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    outcome
}
