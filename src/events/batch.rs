//! Cuts what one read gave into the batches that a handler takes, each with what holds once it is taken. Pure.
//!
//! A batch ends where it is full and where the read ended. What it is called says which log, from which entry to which,
//! and a digest of what is in it, so that the same events have the same name and others never. A repeat from a log of keys
//! may hold newer rows, and then has another name: nobody drops by name what it has not seen. Who drops by place may drop
//! a newer row, but never for good: what made it newer has an entry of its own, further on, that tells it again.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::bootstrap::Copies;
use crate::model::{Changes, Epoch, Event, Value};

/// How far a consumer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The log's entries up to here were taken, or are none of the consumer's.
    pub seq: i64,
    /// The tables that are not whole there.
    pub copies: Arc<Copies>,
}

/// A batch, and how far the consumer is once it has taken it.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// What is handed over.
    pub changes: Changes,
    /// What holds then.
    pub then: Standing,
}

/// An event, and how far the consumer is once it has taken it and what came before.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The event.
    pub event: Event,
    /// What holds then.
    pub then: Standing,
}

/// Events of the log as steps: `to` is where the read of them ended, `copies` how the tables were after each.
///
/// From a log of keys an event has the place of its key's last entry in the read. So what was taken when a batch ends is
/// every entry up to there, but for those of keys that have a later entry, which tells of them when it is read again.
pub fn log_steps(events: Vec<(Event, Arc<Copies>)>, to: i64) -> Vec<Step> {
    let seqs: Vec<i64> = events.iter().map(|(event, _)| event.seq).collect();
    let step = |(place, (event, copies)): (usize, (Event, Arc<Copies>))| {
        let seq = match seqs.get(place + 1) {
            // An entry that several events tell was taken once all of them were.
            Some(next) if *next == event.seq => event.seq - 1,
            // What lies between two events is none of the consumer's, or the rest of the first one.
            Some(next) => next - 1,
            None => to,
        };
        Step { event, then: Standing { seq, copies } }
    };
    events.into_iter().enumerate().map(step).collect()
}

/// Rows of a table as steps: only after the last of them is the table given further, for rows of one key come together.
pub fn row_steps(events: Vec<Event>, before: &Standing, then: &Standing) -> Vec<Step> {
    let count = events.len();
    let step = |(place, event)| Step { event, then: if place + 1 == count { then.clone() } else { before.clone() } };
    events.into_iter().enumerate().map(step).collect()
}

/// The batches of a read, in order. `size_max` is at least 1.
pub fn batches(epoch: Epoch, steps: Vec<Step>, size_max: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut steps = steps.into_iter().peekable();
    while steps.peek().is_some() {
        let mut events = Vec::new();
        let mut then = None;
        for step in steps.by_ref().take(size_max.max(1)) {
            events.push(step.event);
            then = Some(step.then);
        }
        let Some(then) = then else { break };
        batches.push(Batch { changes: Changes { id: id(epoch, &events), epoch, events }, then });
    }
    batches
}

/// `<epoch>-<first seq>-<last seq>-<digest>`: hexadecimal, decimal, decimal, hexadecimal.
pub fn id(epoch: Epoch, events: &[Event]) -> String {
    let seq = |event: Option<&Event>| event.map_or(0, |event| event.seq);
    let digest = digest(events);
    format!("{epoch}-{}-{}-{digest:016x}", seq(events.first()), seq(events.last()))
}

/// Of everything but the time: a row that is read again after a crash is the same row.
fn digest(events: &[Event]) -> u64 {
    let mut hash = Xxh3::new();
    for event in events {
        hash.update(&event.seq.to_be_bytes());
        hash.update(event.operation.word().as_bytes());
        hash.update(&(event.table.name.len() as u64).to_be_bytes());
        hash.update(event.table.name.as_bytes());
        for image in [&event.before, &event.after] {
            hash.update(&image.as_ref().map_or(-1, |image| image.len().cast_signed() as i64).to_be_bytes());
            for value in image.iter().flatten() {
                digest_value(&mut hash, value);
            }
        }
    }
    hash.digest()
}

fn digest_value(hash: &mut Xxh3, value: &Value) {
    match value {
        Value::Null => hash.update(b"n"),
        Value::Integer(integer) => {
            hash.update(b"i");
            hash.update(&integer.to_be_bytes());
        }
        Value::Real(real) => {
            hash.update(b"r");
            hash.update(&real.to_bits().to_be_bytes());
        }
        Value::Text(bytes) | Value::Blob(bytes) => {
            hash.update(if matches!(value, Value::Text(_)) { b"t" } else { b"b" });
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventTable, Operation, TableId};

    fn event(seq: i64, ts_ms: i64) -> Event {
        let table = Arc::new(EventTable { name: "t".into(), columns: vec!["a".into()] });
        let after = Some(vec![Value::Integer(seq)]);
        Event { table, seq, ts_ms, operation: Operation::Insert, before: None, after }
    }

    fn cut(seqs: &[i64], to: i64, size: usize) -> Vec<(Vec<i64>, i64)> {
        let copies = Arc::new(Copies::default());
        let events = seqs.iter().map(|seq| (event(*seq, 0), Arc::clone(&copies))).collect();
        let cut = batches(Epoch(1), log_steps(events, to), size);
        cut.iter().map(|batch| (batch.changes.events.iter().map(|event| event.seq).collect(), batch.then.seq)).collect()
    }

    /// A change of several entries is numbered by its first: whoever took it has all of them.
    #[test]
    fn a_batch_ends_where_it_is_full_and_says_up_to_where_the_log_was_taken_then() {
        assert_eq!(cut(&[], 9, 2), []);
        assert_eq!(cut(&[3, 5, 8], 9, 2), [(vec![3, 5], 7), (vec![8], 9)]);
        assert_eq!(cut(&[3, 5], 6, 2), [(vec![3, 5], 6)]);
        assert_eq!(cut(&[3, 4], 4, 1), [(vec![3], 3), (vec![4], 4)]);
        let together = [(vec![3, 7], 6), (vec![7, 7], 8), (vec![9], 9)];
        assert_eq!(cut(&[3, 7, 7, 7, 9], 9, 2), together, "all that one entry tells, or none of it");
    }

    #[test]
    fn rows_of_one_key_count_only_when_all_of_them_were_taken() {
        let before = Standing { seq: 7, copies: Arc::new(Copies::of([(TableId(1), "t".into())], false)) };
        let then = Standing { seq: 7, copies: Arc::new(Copies::default()) };
        let steps = row_steps(vec![event(7, 0), event(7, 0), event(7, 0)], &before, &then);
        let cut = batches(Epoch(1), steps, 2);
        assert_eq!(cut.iter().map(|batch| batch.then == then).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn the_same_events_have_the_same_id_whenever_they_were_read_and_others_have_another() {
        let of = |events: &[Event]| id(Epoch(0xab), events);
        assert!(of(&[event(1, 5), event(2, 5)]).starts_with("00000000000000ab-1-2-"));
        assert_eq!(of(&[event(1, 5)]), of(&[event(1, 6)]), "a row of a bootstrap that is read again");
        let one = of(&[event(7, 0)]);
        let mut others = vec![event(7, 0); 6];
        others[0].after = Some(vec![Value::Real(7.0)]);
        others[1].after = Some(vec![Value::text("7")]);
        others[2].before = Some(vec![Value::Null]);
        others[3].operation = Operation::Update;
        others[4].after = Some(vec![Value::Integer(7), Value::Null]);
        others[5].table = Arc::new(EventTable { name: "u".into(), columns: vec!["a".into()] });
        for other in others {
            assert_ne!(of(std::slice::from_ref(&other)), one, "{other:?}");
        }
    }
}
