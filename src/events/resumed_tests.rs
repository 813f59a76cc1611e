//! What is told after a process was killed in the middle of a bootstrap.

use std::sync::Arc;

use super::*;
use crate::model::{EventTable, Value};

const TABLE: TableId = TableId(1);

/// A row of the key `id` alone.
fn row(id: i64) -> Vec<Value> {
    vec![Value::Integer(id)]
}

fn event(before: Option<i64>, after: Option<i64>) -> (Event, EventKeys) {
    let operation = match (before, after) {
        (None, _) => Operation::Insert,
        (Some(_), None) => Operation::Delete,
        (Some(_), Some(_)) => Operation::Update,
    };
    let table = Arc::new(EventTable { name: "t".into(), columns: vec!["id".into()] });
    let (before, after) = (before.map(row), after.map(row));
    let keys = EventKeys { table: Some(TABLE), before: before.clone().map(Key), after: after.clone().map(Key) };
    (Event { table, seq: 9, ts_ms: 0, operation, before, after }, keys)
}

/// As [`crate::capture::events::clip`] does it, for keys of one integer.
fn clip(event: Event, keys: &EventKeys, given: Option<&Key>) -> Option<Event> {
    let number = |key: &Key| match key.0[0] {
        Value::Integer(number) => number,
        _ => panic!("an integer"),
    };
    let within = |key: &Option<Key>| key.as_ref().zip(given).is_some_and(|(key, given)| number(key) <= number(given));
    match (event.operation, within(&keys.before), within(&keys.after)) {
        (Operation::Insert, _, true) | (Operation::Delete, true, _) | (Operation::Update, true, true) => Some(event),
        (Operation::Update, true, false) => Some(Event { operation: Operation::Delete, after: None, ..event }),
        (Operation::Update, false, true) => Some(Event { operation: Operation::Insert, before: None, ..event }),
        _ => None,
    }
}

fn passed(copies: &mut Copies, before: Option<i64>, after: Option<i64>) -> Option<(Operation, bool, bool)> {
    let (event, keys) = event(before, after);
    let passed = copies.pass(event, &keys, clip)?;
    Some((passed.operation, passed.before.is_some(), passed.after.is_some()))
}

/// A bootstrap that got to key 10.
fn at_ten(wipe: bool) -> Copies {
    let mut copies = Copies::of([(TABLE, "t".to_owned())], wipe);
    copies.given_up_to(TABLE, Key(row(10)));
    copies
}

/// A row that was given, and deleted while nobody had noted that it was given, stayed with the receiver for ever.
#[test]
fn rows_that_may_have_been_given_are_deleted_though_nobody_noted_them() {
    let (delete, update) = ((Operation::Delete, true, false), (Operation::Update, true, true));
    let mut known = at_ten(false);
    assert_eq!(passed(&mut known, Some(15), None), None, "it is known that 15 was not given");
    assert_eq!(passed(&mut known, Some(15), Some(3)), Some((Operation::Insert, false, true)));
    let mut resumed = Copies::noted(&known.given(true));
    assert_eq!(passed(&mut resumed, Some(15), None), Some(delete));
    assert_eq!(passed(&mut resumed, Some(15), Some(20)), Some(delete), "20 is still to be given");
    assert_eq!(passed(&mut resumed, Some(15), Some(3)), Some(update), "15 is gone, if it was known");
    assert_eq!(passed(&mut resumed, Some(15), Some(15)), None, "it is still to be given");
    assert_eq!(passed(&mut resumed, None, Some(15)), None);
    assert_eq!(passed(&mut resumed, Some(5), Some(15)), Some(delete));
    assert_eq!(passed(&mut resumed, Some(5), None), Some(delete));
}

#[test]
fn a_table_that_is_begun_anew_by_a_resync_is_known_again() {
    let wiped = at_ten(true);
    let mut resumed = Copies::noted(&wiped.given(true));
    resumed.wiped(TABLE);
    assert_eq!(passed(&mut resumed, Some(15), None), None, "RESYNC was said");
    let mut pending = Copies::noted(&Copies::of([(TABLE, "t".to_owned())], false).given(true));
    let (resync, keys) = event(None, None);
    let resync = Event { operation: Operation::Resync, after: None, ..resync };
    assert!(pending.pass(resync, &keys, clip).is_some(), "rows of it may be known");
    assert_eq!(passed(&mut pending, Some(15), None), None);
}
