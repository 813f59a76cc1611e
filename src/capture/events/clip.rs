//! Where a copy in pieces and the events meet. Pure.

use std::cmp::Ordering;

use super::{EventCatalog, EventKeys};
use crate::model::{Event, Key, Operation};

/// What is left of an event while its table is copied in key order and the copy has got to `copied_to` (`None`: nothing
/// yet): what it says of keys beyond is what the copy will say. A row that moves across that bound is an insert or a
/// deletion to whoever has only the part below it.
pub fn clip(catalog: &EventCatalog, event: Event, keys: &EventKeys, copied_to: Option<&Key>) -> Option<Event> {
    let within = |key: &Option<Key>| match (keys.table, key, copied_to) {
        (Some(table), Some(key), Some(to)) => catalog.compare(table, key, to).is_some_and(Ordering::is_le),
        _ => false,
    };
    match (event.operation, within(&keys.before), within(&keys.after)) {
        (Operation::Resync, _, _)
        | (Operation::Insert, _, true)
        | (Operation::Delete, true, _)
        | (Operation::Update, true, true) => Some(event),
        (Operation::Update, true, false) => Some(Event { operation: Operation::Delete, after: None, ..event }),
        (Operation::Update, false, true) => Some(Event { operation: Operation::Insert, before: None, ..event }),
        (Operation::Insert, _, false) | (Operation::Delete, false, _) | (Operation::Update, false, false) => None,
    }
}
