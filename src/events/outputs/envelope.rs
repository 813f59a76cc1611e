//! What a POST of events carries.
//!
//! ```text
//! {"id":"…","epoch":"…","positions":[812,813],"changes":[{…},{…}]}
//! ```
//!
//! `positions` has one number for each of `changes`: with `epoch` it names the change's place in the log, by which a receiver
//! knows what it has had. `id` names exactly these changes.

use super::json::{Form, write_event, write_string};
use crate::model::Changes;

/// A first guess at the bytes of an event, so that the buffer grows seldom.
const EVENT_BYTES_GUESS: usize = 256;

/// The body of the POST for a batch.
pub(super) fn body(changes: &Changes, form: &Form) -> Vec<u8> {
    let mut text = Vec::with_capacity(changes.events.len().saturating_mul(EVENT_BYTES_GUESS));
    text.extend_from_slice(b"{\"id\":");
    write_string(&mut text, &changes.id);
    text.extend_from_slice(b",\"epoch\":");
    write_string(&mut text, &changes.epoch.to_string());
    text.extend_from_slice(b",\"positions\":[");
    for (at, event) in changes.events.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(event.seq.to_string().as_bytes());
    }
    text.extend_from_slice(b"],\"changes\":[");
    for (at, event) in changes.events.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        write_event(&mut text, event, form);
    }
    text.extend_from_slice(b"]}");
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Epoch, Event, EventTable, Operation, Value};

    #[test]
    fn a_batch_says_its_id_its_log_and_a_position_for_each_change() {
        let table = Arc::new(EventTable { name: "t".into(), columns: vec!["a".into()] });
        let event = |seq| Event {
            table: Arc::clone(&table),
            seq,
            ts_ms: 0,
            operation: Operation::Insert,
            before: None,
            after: Some(vec![Value::Integer(seq * 10)]),
        };
        let changes = Changes { id: "x\"1".into(), epoch: Epoch(255), events: vec![event(8), event(9)] };
        let change = |value: u32| {
            format!(
                r#"{{"table":"t","timestamp":"1970-01-01T00:00:00.000Z","operation":"INSERT","before":null,"after":{{"a":{value}}}}}"#
            )
        };
        let wanted = format!(
            r#"{{"id":"x\"1","epoch":"00000000000000ff","positions":[8,9],"changes":[{},{}]}}"#,
            change(80),
            change(90)
        );
        assert_eq!(String::from_utf8(body(&changes, &Form::default())).expect("JSON"), wanted);
    }
}
