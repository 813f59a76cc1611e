//! What entries without images say: of each key that a read meets one event, at the place of its last entry, with the row
//! as it is in that read transaction.
//!
//! * The row is there: INSERT where the key's first entry of the read is an insert, else UPDATE. An insert can have taken
//!   the place of a row of the same key by REPLACE, for which a log of keys has no entry: so to whoever takes the event
//!   both mean "this is the row now".
//! * It is gone: DELETE, with the columns of the key alone. Also where the first entry is an insert: it may have displaced
//!   a row that an earlier read told of, and whoever never heard of the row loses nothing.
//! * A touch alone says something only where the row is gone.
//! * A key with a NULL in it names any number of rows: it is a DELETE of all of them, and an INSERT for each that is there,
//!   all in the place of the last entry.
//! * A key that has another spelling now (`a` and `A` are one NOCASE key) goes under the old one and comes under the new
//!   one, so that whoever compares bytes has one row as well. A spelling that REPLACE took away has no entry.
//!
//! A read that is repeated may find newer rows and tell them at older places. Whoever drops what is below the last place
//! that it has handled loses nothing by that: a row that is newer than what it was given has a newer entry, which tells
//! the same or more in its own place.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use rusqlite::Connection;

use super::EventKeys;
use super::catalog::{EventCatalog, Line};
use crate::capture::read_error::Error;
use crate::model::{Event, EventTable, Key, NormalKey, Operation, TableId, Value};
use crate::sqlite::LogOp;

/// An entry's place and time.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub seq: i64,
    pub ts_ms: i64,
}

/// An entry of a log of keys.
pub(super) struct Entry {
    pub at: At,
    pub op: LogOp,
    pub key: Key,
}

/// The keys that a read has met.
#[derive(Default)]
pub(super) struct Marks {
    places: HashMap<(TableId, NormalKey), usize>,
    all: Vec<Mark>,
    rows: usize,
}

/// What the entries of one key say.
struct Mark {
    table: TableId,
    /// The key as its newest entry spells it, and that entry.
    key: Key,
    newest: At,
    /// Its newest entry that is more than a touch.
    written: Option<At>,
    /// Whether its first entry is an insert.
    came: bool,
    /// Other spellings, each with the newest entry that has it.
    others: HashMap<Key, At>,
    /// The rows that are this key.
    rows: Vec<Vec<Value>>,
}

impl Marks {
    /// How many events they are, but for what a row is called otherwise.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Takes an entry in: how many bytes more are held, or `None` where `has_room` is false and the key is a new one.
    pub fn add(
        &mut self,
        connection: &Connection,
        (table, line): (TableId, &Line),
        entry: Entry,
        has_room: bool,
    ) -> Result<Option<usize>, Error> {
        let Entry { at, op, key } = entry;
        let written = (op != LogOp::Touch).then_some(at);
        match self.places.entry((table, line.normal(&key))) {
            Slot::Vacant(_) if !has_room => Ok(None),
            Slot::Vacant(slot) => {
                // Whenever it is read, it is the same: all of it is one read transaction.
                let rows = line.rows_now(connection, &key)?;
                let bytes = rows.iter().flatten().chain(&key.0).map(Value::size_bytes).sum();
                slot.insert(self.all.len());
                self.rows += rows.len().max(1);
                let (came, others) = (op == LogOp::Insert, HashMap::new());
                self.all.push(Mark { table, key, newest: at, written, came, others, rows });
                Ok(Some(bytes))
            }
            Slot::Occupied(slot) => {
                let mark = &mut self.all[*slot.get()];
                let mut bytes = 0;
                if mark.key != key {
                    mark.others.remove(&key);
                    bytes = key.0.iter().map(Value::size_bytes).sum();
                    mark.others.insert(std::mem::replace(&mut mark.key, key), mark.newest);
                }
                (mark.newest, mark.written) = (at, written.or(mark.written));
                Ok(Some(bytes))
            }
        }
    }

    /// Their events, those of one mark in the order in which they come.
    pub fn into_events(self, catalog: &EventCatalog) -> Vec<(Event, EventKeys)> {
        let mut said = Said::default();
        for mark in self.all {
            let line = catalog.line(mark.table).expect("it was met in this read transaction");
            mark.say(line, &mut said);
        }
        said.0
    }
}

impl Mark {
    fn say(mut self, line: &Line, said: &mut Said) {
        let rows = std::mem::take(&mut self.rows);
        if self.key.has_null() {
            said.gone(self.table, line, self.newest, self.key.clone());
            for row in rows {
                said.there(self.table, line, self.newest, (Operation::Insert, self.key.clone(), row));
            }
            return;
        }
        let Some(row) = rows.into_iter().next() else {
            self.others_gone(line, self.newest, said);
            return said.gone(self.table, line, self.newest, self.key);
        };
        let Some(at) = self.written else { return };
        let key = line.key_of(&row);
        self.others.remove(&key);
        if self.key != key {
            self.others.insert(self.key.clone(), self.newest);
        }
        let came = self.came || !self.others.is_empty();
        self.others_gone(line, at, said);
        let operation = if came { Operation::Insert } else { Operation::Update };
        said.there(self.table, line, at, (operation, key, row));
    }

    /// Says that the key's other spellings are gone, not after `at`.
    fn others_gone(&mut self, line: &Line, at: At, said: &mut Said) {
        for (key, last) in self.others.drain() {
            let place = if last.seq < at.seq { last } else { at };
            said.gone(self.table, line, place, key);
        }
    }
}

#[derive(Default)]
struct Said(Vec<(Event, EventKeys)>);

impl Said {
    fn gone(&mut self, table: TableId, line: &Line, at: At, key: Key) {
        let before = Some(key.0.clone());
        let event = event(&line.key_alone, at, Operation::Delete, (before, None));
        self.0.push((event, EventKeys { table: Some(table), before: Some(key), after: None }));
    }

    fn there(&mut self, table: TableId, line: &Line, at: At, what: (Operation, Key, Vec<Value>)) {
        let (operation, key, row) = what;
        let before = (operation == Operation::Update).then(|| key.clone());
        let event = event(&line.keyed, at, operation, (None, Some(row)));
        self.0.push((event, EventKeys { table: Some(table), before, after: Some(key) }));
    }
}

fn event(
    table: &Arc<EventTable>,
    at: At,
    operation: Operation,
    images: (Option<Vec<Value>>, Option<Vec<Value>>),
) -> Event {
    let (before, after) = images;
    Event { table: Arc::clone(table), seq: at.seq, ts_ms: at.ts_ms, operation, before, after }
}
