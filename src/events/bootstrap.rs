//! What a bootstrap makes of the log's events: neither a gap nor a double.
//!
//! A bootstrap goes through each table in the order of its keys, a chunk at a time, and reads the log up to the same
//! moment before each chunk. Whoever takes the events knows, at any time, the rows up to some key and none beyond. So an
//! event within what was given is passed on, one beyond is left out, because the row will be read as it is then, and an
//! update that moves a row across is the deletion of what was known, or the insertion of what was not.
//!
//! ```text
//!   given                          after              not given yet
//! ──────────────────────────────────┤─────────────────────────────────▶ keys
//!   every event              (5 → 9) DELETE 5        left out
//!                            (9 → 5) INSERT 5
//! ```
//!
//! Pure: nothing here reads or waits.

use std::collections::BTreeMap;

use crate::capture::GivenTable;
use crate::model::{Collation, CopyState, Event, Key, Operation, TableId};
use crate::sqlite::{borrowed, range_sql};

/// An event of the log with what places its row among its table's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// The event.
    pub event: Event,
    /// The table, by the id of its newest generation.
    pub table: TableId,
    /// The key before; where there is a row before.
    pub before_key: Option<Key>,
    /// The key after; where there is a row after.
    pub after_key: Option<Key>,
}

/// How far a bootstrap is: the tables that are not whole yet. Tables that are not named are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    tables: BTreeMap<TableId, Copy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    name: String,
    after: Option<Key>,
}

impl Copies {
    /// A bootstrap of these tables that has not begun.
    pub fn of(tables: impl IntoIterator<Item = (TableId, String)>) -> Self {
        Self { tables: tables.into_iter().map(|(id, name)| (id, Copy { name, after: None })).collect() }
    }

    /// As it was noted.
    pub fn noted(given: &[GivenTable]) -> Self {
        let copy = |table: &GivenTable| match &table.state {
            CopyState::Pending => Some((table.id, Copy { name: table.name.clone(), after: None })),
            CopyState::Copying { after } => {
                Some((table.id, Copy { name: table.name.clone(), after: Some(after.clone()) }))
            }
            CopyState::Done => None,
        };
        Self { tables: given.iter().filter_map(copy).collect() }
    }

    /// To note it.
    pub fn given(&self) -> Vec<GivenTable> {
        let state = |copy: &Copy| match &copy.after {
            None => CopyState::Pending,
            Some(after) => CopyState::Copying { after: after.clone() },
        };
        let table = |(id, copy): (&TableId, &Copy)| GivenTable {
            id: *id,
            name: copy.name.clone(),
            state: state(copy),
            wipe: false,
        };
        self.tables.iter().map(table).collect()
    }

    /// Whether every table is whole.
    pub fn are_done(&self) -> bool {
        self.tables.is_empty()
    }

    /// The table to go on with, and the key up to which it was given.
    pub fn next(&self) -> Option<(TableId, Option<&Key>)> {
        // One that was begun first, so that at most one table is in parts.
        let begun = self.tables.iter().find(|(_, copy)| copy.after.is_some());
        begun.or_else(|| self.tables.iter().next()).map(|(id, copy)| (*id, copy.after.as_ref()))
    }

    /// A table was given up to this key.
    pub fn given_up_to(&mut self, table: TableId, key: Key) {
        if let Some(copy) = self.tables.get_mut(&table) {
            copy.after = Some(key);
        }
    }

    /// A table is whole, or gone.
    pub fn whole(&mut self, table: TableId) {
        self.tables.remove(&table);
    }

    /// A table is to be given from its beginning.
    pub fn again(&mut self, table: TableId, name: &str) {
        self.tables.insert(table, Copy { name: name.to_owned(), after: None });
    }

    /// The tables as they are called now: what became another generation goes on under its id, unless its key is another
    /// (then a RESYNC comes), and what is gone is forgotten.
    pub fn rename(&mut self, newest: impl Fn(TableId) -> Option<TableId>) {
        let renamed = |(id, copy)| newest(id).map(|id| (id, copy));
        self.tables = std::mem::take(&mut self.tables).into_iter().filter_map(renamed).collect();
    }

    /// What becomes of an event; `None`: it is left out.
    pub fn pass(&mut self, logged: Logged, collations: &[Collation]) -> Option<Event> {
        let Logged { event, table, before_key, after_key } = logged;
        let known = |key: &Option<Key>, after: &Key| key.as_ref().is_some_and(|key| is_within(key, after, collations));
        let place = self.tables.get(&table).map(|copy| copy.after.as_ref());
        if event.operation == Operation::Resync {
            self.again(table, &event.table.name);
            // Nothing of it was given that could be wrong.
            return (place != Some(None)).then_some(event);
        }
        match place {
            None => Some(event),
            Some(None) => None,
            Some(Some(after)) => within(event, known(&before_key, after), known(&after_key, after)),
        }
    }
}

/// An event whose row was known before, or not, and is within what was given now, or not.
fn within(event: Event, before: bool, after: bool) -> Option<Event> {
    match (event.operation, before, after) {
        (Operation::Insert, _, true) | (Operation::Delete, true, _) | (Operation::Update, true, true) => Some(event),
        (Operation::Update, true, false) => Some(Event { operation: Operation::Delete, after: None, ..event }),
        (Operation::Update, false, true) => Some(Event { operation: Operation::Insert, before: None, ..event }),
        (Operation::Insert, _, false) | (Operation::Delete, false, _) | (Operation::Update, false, false) => None,
        (Operation::Resync, ..) => Some(event),
    }
}

/// Whether a key is not beyond another one, as the table's index orders them.
pub fn is_within(key: &Key, after: &Key, collations: &[Collation]) -> bool {
    let parts = key.0.iter().zip(&after.0).zip(collations);
    parts
        .map(|((one, other), collation)| range_sql::compare(borrowed(one), borrowed(other), *collation))
        .find(|order| order.is_ne())
        .is_none_or(std::cmp::Ordering::is_lt)
}
