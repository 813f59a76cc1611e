//! What was taken over from sqlite-cdc, as events. Pure but for the reading.
//!
//! Its images are JSON objects: numbers, text, null. A BLOB is there as hexadecimal text, or not at all, and stays what it
//! is; nobody can tell it from text. Events have negative sequence numbers, for they are older than our log.

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Map, Value as Json};

use super::Error;
use super::batch::id;
use crate::capture::{TakenEntry, read_taken};
use crate::model::{Changes, Epoch, Event, EventTable, Operation, Value};
use crate::sqlite::catalog;

/// The next batch, and the entry up to which it goes; `None` where everything was handed over.
pub(super) fn next(connection: &Connection, epoch: Epoch, size_max: usize) -> Result<Option<(Changes, i64)>, Error> {
    let (entries, last) = read_taken(connection, size_max)?;
    let Some(up_to) = entries.last().map(|entry| entry.id) else { return Ok(None) };
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries {
        let columns = catalog::table(connection, &entry.table)?;
        let columns = columns.map(|table| table.columns.into_iter().map(|column| column.name).collect());
        events.push(event(entry, columns.unwrap_or_default(), last));
    }
    Ok(Some((Changes { id: id(epoch, &events), epoch, events }, up_to)))
}

/// An entry as an event. `known`: the columns that the table has now; others that it had follow.
fn event(entry: TakenEntry, known: Vec<String>, last: i64) -> Event {
    let image =
        |json: Option<String>| json.map(|json| serde_json::from_str::<Map<String, Json>>(&json).unwrap_or_default());
    let (before, after) = (image(entry.before), image(entry.after));
    let has = |name: &String| before.iter().chain(&after).any(|image| image.contains_key(name));
    let mut columns: Vec<String> = known.into_iter().filter(has).collect();
    for name in before.iter().chain(&after).flat_map(Map::keys) {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    let row = |image: Map<String, Json>| columns.iter().map(|name| value(image.get(name))).collect();
    let operation = match (entry.operation.to_ascii_uppercase().as_str(), &before) {
        ("UPDATE", _) => Operation::Update,
        ("DELETE", _) => Operation::Delete,
        _ => Operation::Insert,
    };
    let (before, after) = (before.map(row), after.map(row));
    let table = Arc::new(EventTable { name: entry.table, columns });
    Event { table, seq: entry.id - last - 1, ts_ms: entry.ts_ms, operation, before, after }
}

fn value(json: Option<&Json>) -> Value {
    match json {
        None | Some(Json::Null) => Value::Null,
        Some(Json::Bool(truth)) => Value::Integer(i64::from(*truth)),
        Some(Json::String(text)) => Value::text(text),
        Some(Json::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(real)) => Value::Real(real),
            (None, None) => Value::text(&number.to_string()),
        },
        Some(other @ (Json::Array(_) | Json::Object(_))) => Value::text(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_sqlite_cdc_is_the_event_that_it_says() {
        let entry = TakenEntry {
            id: 7,
            ts_ms: 5,
            table: "t".into(),
            operation: "UPDATE".into(),
            before: Some(r#"{"id":1,"gone":"x","n":null}"#.into()),
            after: Some(r#"{"id":9223372036854775807,"gone":1.5,"n":"ü"}"#.into()),
        };
        let event = event(entry, vec!["n".into(), "id".into(), "new".into()], 9);
        assert_eq!(event.table.columns, ["n", "id", "gone"]);
        assert_eq!((event.seq, event.ts_ms, event.operation), (-3, 5, Operation::Update));
        assert_eq!(event.before, Some(vec![Value::Null, Value::Integer(1), Value::text("x")]));
        assert_eq!(event.after, Some(vec![Value::text("ü"), Value::Integer(i64::MAX), Value::Real(1.5)]));
    }
}
