//! Cuts what one read gave into the batches that a handler takes, each with what holds once it is taken. Pure.
//!
//! A batch ends where it is full and where the read ended. What it is called says which log, from which entry to which,
//! and a digest of what is in it, so that the same events have the same name and others never.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::bootstrap::Copies;
use crate::model::{Changes, Epoch, Event, Key, TableId, Value};

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

/// A row of a table that is being given, as a step: `key` is its own, `next` that of the row after it, if that was read.
pub struct GivenRow {
    /// The event.
    pub event: Event,
    /// The row's key.
    pub key: Key,
    /// Whether the next row has the same key, so that nobody may stop between them.
    pub same_as_next: bool,
}

/// The steps of a chunk of a table: after each row the table is given up to its key, after the last of all it is whole.
pub fn row_steps(rows: Vec<GivenRow>, table: TableId, last: bool, standing: &mut Standing) -> Vec<Step> {
    let count = rows.len();
    let mut steps = Vec::with_capacity(count);
    for (place, GivenRow { event, key, same_as_next }) in rows.into_iter().enumerate() {
        if last && place + 1 == count {
            Arc::make_mut(&mut standing.copies).whole(table);
        } else if !same_as_next {
            Arc::make_mut(&mut standing.copies).given_up_to(table, key);
        }
        steps.push(Step { event, then: standing.clone() });
    }
    if last && count == 0 {
        Arc::make_mut(&mut standing.copies).whole(table);
    }
    steps
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
fn id(epoch: Epoch, events: &[Event]) -> String {
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
