//! One change of one row as the change log recorded it, for those who react to changes rather than copy them.

use std::sync::Arc;

use super::{Epoch, Value};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A row is there that was not: `after` says it.
    Insert,
    /// A row was changed: `before` and `after` say how.
    Update,
    /// A row is gone: `before` says it.
    Delete,
    /// What is known of the table may be wrong: forget it. An [`Operation::Insert`] for each row of it follows.
    Resync,
}

impl Operation {
    /// As events have it in every output: `INSERT`, `UPDATE`, `DELETE`, `RESYNC`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Resync => "RESYNC",
        }
    }
}

/// A table as it was when a change was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTable {
    /// Its name.
    pub name: String,
    /// Its columns, generated ones too, in order; images have a value for each. From a log of keys: with the rowid before
    /// them where that is the key, and of a row that is gone those of the key alone.
    pub columns: Vec<String>,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The table.
    pub table: Arc<EventTable>,
    /// The entry of the log that says it: events of the log ascend by it. For a row of a bootstrap, the end of the log when
    /// it was read.
    pub seq: i64,
    /// When it was committed, in ms since 1970, UTC; for a row of a bootstrap, when it was read. Never goes back.
    pub ts_ms: i64,
    /// What happened.
    pub operation: Operation,
    /// The row before; only for updates and deletions, and from a log of keys for deletions alone.
    pub before: Option<Vec<Value>>,
    /// The row after; only for inserts and updates.
    pub after: Option<Vec<Value>>,
}

/// Events that are handed over at once, in change order.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// Names exactly these events: handed over again, whole, they have the same id.
    pub id: String,
    /// Whose log.
    pub epoch: Epoch,
    /// The events; at least one.
    pub events: Vec<Event>,
}
