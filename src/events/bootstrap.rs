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
//! After a crash somebody may hold more of a table than is noted. Then a row beyond that goes away is said to be deleted,
//! though its receiver may not know it: nothing else would ever tell one who does.
//!
//! Pure: nothing here reads or waits.

use std::collections::BTreeMap;

use crate::capture::GivenTable;
use crate::capture::events::EventKeys;
use crate::model::{CopyState, Event, Key, Operation, TableId};

/// How far a bootstrap is: the tables that are not whole yet. Tables that are not named are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    tables: BTreeMap<TableId, Copy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    name: String,
    /// The last key that was given.
    after: Option<Key>,
    /// Whether something of it was given before that may be wrong, and RESYNC is yet to be said.
    wipe: bool,
    /// Whether more of it may have been given.
    unsure: bool,
}

impl Copies {
    /// A bootstrap of these tables that has not begun. `wipe`: something of them was given before.
    pub fn of(tables: impl IntoIterator<Item = (TableId, String)>, wipe: bool) -> Self {
        Self {
            tables: tables
                .into_iter()
                .map(|(id, name)| (id, Copy { name, after: None, wipe, unsure: false }))
                .collect(),
        }
    }

    /// As it was noted.
    pub fn noted(given: &[GivenTable]) -> Self {
        let copy = |table: &GivenTable| {
            let after = match &table.state {
                CopyState::Pending => None,
                CopyState::Copying { after } => Some(after.clone()),
                CopyState::Done => return None,
            };
            Some((table.id, Copy { name: table.name.clone(), after, wipe: table.wipe, unsure: table.open }))
        };
        Self { tables: given.iter().filter_map(copy).collect() }
    }

    /// To note it. `open`: more may be given before it is noted again.
    pub fn given(&self, open: bool) -> Vec<GivenTable> {
        let state = |copy: &Copy| match &copy.after {
            None => CopyState::Pending,
            Some(after) => CopyState::Copying { after: after.clone() },
        };
        let table = |(id, copy): (&TableId, &Copy)| GivenTable {
            id: *id,
            name: copy.name.clone(),
            state: state(copy),
            wipe: copy.wipe,
            open: open || copy.unsure,
        };
        self.tables.iter().map(table).collect()
    }

    /// Whether every table is whole.
    pub fn are_done(&self) -> bool {
        self.tables.is_empty()
    }

    /// The table to go on with: which, the key up to which it was given, and whether RESYNC is to be said first.
    pub fn next(&self) -> Option<(TableId, Option<&Key>, bool)> {
        // One that was begun first, so that at most one table is in parts.
        let begun = self.tables.iter().find(|(_, copy)| copy.after.is_some());
        let next = begun.or_else(|| self.tables.iter().next());
        next.map(|(id, copy)| (*id, copy.after.as_ref(), copy.wipe))
    }

    /// RESYNC was said of a table.
    pub fn wiped(&mut self, table: TableId) {
        if let Some(copy) = self.tables.get_mut(&table).filter(|copy| copy.wipe) {
            (copy.wipe, copy.unsure) = (false, false);
        }
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

    /// The tables as they are called now: what became another generation goes on under its id. What is gone is forgotten;
    /// where its key is another now, a RESYNC comes.
    pub fn follow(&mut self, newest: impl Fn(TableId) -> Option<TableId>) {
        if self.tables.keys().all(|id| newest(*id) == Some(*id)) {
            return;
        }
        let followed = |(id, copy)| newest(id).map(|id| (id, copy));
        self.tables = std::mem::take(&mut self.tables).into_iter().filter_map(followed).collect();
    }

    /// What becomes of an event; `None`: it is left out. `clip` is [`crate::capture::events::clip`].
    pub fn pass(
        &mut self,
        event: Event,
        keys: &EventKeys,
        clip: impl FnOnce(Event, &EventKeys, Option<&Key>) -> Option<Event>,
    ) -> Option<Event> {
        if event.operation == Operation::Resync {
            return self.again(event, keys.table);
        }
        let place = match keys.table {
            Some(table) => self.tables.get(&table),
            // It has another key now, or is gone: a RESYNC comes, or nothing does.
            None => self.tables.values().find(|copy| copy.name.eq_ignore_ascii_case(&event.table.name)),
        };
        match place {
            None => Some(event),
            Some(copy) if copy.unsure => {
                let clipped = clip(event.clone(), keys, copy.after.as_ref());
                unsure(event, clipped, keys)
            }
            Some(copy) => clip(event, keys, copy.after.as_ref()),
        }
    }

    /// A table is to be given from its beginning. RESYNC is said, unless nothing of the table was given that could be
    /// wrong, or it is still to be said for another reason.
    fn again(&mut self, event: Event, table: Option<TableId>) -> Option<Event> {
        let table = table?;
        let untouched = self.tables.get(&table).filter(|copy| copy.after.is_none() && (copy.wipe || !copy.unsure));
        if untouched.is_some() {
            return None;
        }
        let copy = Copy { name: event.table.name.clone(), after: None, wipe: false, unsure: false };
        self.tables.insert(table, copy);
        Some(event)
    }
}

/// What is said to somebody who may hold rows beyond: that they are gone.
fn unsure(event: Event, clipped: Option<Event>, keys: &EventKeys) -> Option<Event> {
    let Some(clipped) = clipped else {
        let leaves =
            event.operation == Operation::Delete || event.operation == Operation::Update && keys.before != keys.after;
        return leaves.then(|| Event { operation: Operation::Delete, after: None, ..event });
    };
    // It came from beyond, where it may be held under its old key.
    let arrives = event.operation == Operation::Update && clipped.operation == Operation::Insert;
    Some(if arrives { event } else { clipped })
}

#[cfg(test)]
#[path = "resumed_tests.rs"]
mod resumed_tests;
#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
