//! Random tables under random writes, given row by row to somebody who keeps what he is told, also across crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::model::{EventTable, Value};

const TABLE: TableId = TableId(1);
const CASES: u64 = 2_000;
const STEPS: usize = 60;
/// Few, so that every boundary is met.
const KEYS: i64 = 12;

type Rows = BTreeMap<i64, i64>;

fn key(id: i64) -> Key {
    Key(vec![Value::Integer(id)])
}

fn id_of(key: &Key) -> i64 {
    match key.0[0] {
        Value::Integer(id) => id,
        _ => panic!("keys are integers here"),
    }
}

/// As [`crate::capture::events::clip`] has it, for keys that are integers.
fn clip(event: Event, keys: &EventKeys, copied_to: Option<&Key>) -> Option<Event> {
    let within = |key: &Option<Key>| key.as_ref().zip(copied_to).is_some_and(|(key, to)| id_of(key) <= id_of(to));
    match (event.operation, within(&keys.before), within(&keys.after)) {
        (Operation::Update, true, false) => Some(Event { operation: Operation::Delete, after: None, ..event }),
        (Operation::Update, false, true) => Some(Event { operation: Operation::Insert, before: None, ..event }),
        (_, false, false) => None,
        _ => Some(event),
    }
}

fn event(seq: i64, before: Option<(i64, i64)>, after: Option<(i64, i64)>) -> (Event, EventKeys) {
    let table = Arc::new(EventTable { name: "t".into(), columns: vec!["id".into(), "v".into()] });
    let operation = match (&before, &after) {
        (None, Some(_)) => Operation::Insert,
        (Some(_), Some(_)) => Operation::Update,
        (Some(_), None) => Operation::Delete,
        (None, None) => Operation::Resync,
    };
    let image = |row: Option<(i64, i64)>| row.map(|(id, v)| vec![Value::Integer(id), Value::Integer(v)]);
    let keys =
        EventKeys { table: Some(TABLE), before: before.map(|(id, _)| key(id)), after: after.map(|(id, _)| key(id)) };
    (Event { table, seq, ts_ms: 0, operation, before: image(before), after: image(after) }, keys)
}

/// Who takes the events. `exact`: each of them has to fit what is known.
fn take(known: &mut Rows, event: &Event, exact: bool) {
    let row = |image: &Option<Vec<Value>>| {
        image.as_ref().map(|image| match (&image[0], &image[1]) {
            (Value::Integer(id), Value::Integer(v)) => (*id, *v),
            other => panic!("{other:?}"),
        })
    };
    if event.operation == Operation::Resync {
        known.clear();
    }
    if let Some((id, v)) = row(&event.before) {
        let was = known.remove(&id);
        assert!(!exact || was == Some(v), "{event:?} of {was:?}");
    }
    if let Some((id, v)) = row(&event.after) {
        let was = known.insert(id, v);
        assert!(!exact || was.is_none(), "{event:?} over {was:?}");
    }
}

/// A source, its log, and somebody who is given it.
struct World {
    random: StdRng,
    rows: Rows,
    log: Vec<(Event, EventKeys)>,
    known: Rows,
    /// Up to where the log was read, and how the table stands there; and the same as it was noted last.
    at: (usize, Copies),
    noted: (usize, Vec<GivenTable>),
    exact: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let rows: Rows = (0..KEYS).filter(|_| random.random()).map(|id| (id, 0)).collect();
        let copies = Copies::of([(TABLE, "t".to_owned())], false);
        let noted = (0, copies.given(true));
        Self { random, rows, log: Vec::new(), known: Rows::new(), at: (0, copies), noted, exact: true }
    }

    fn write(&mut self) {
        let (id, to, v) =
            (self.random.random_range(0..KEYS), self.random.random_range(0..KEYS), self.random.random_range(0..1_000));
        let seq = self.log.len() as i64 + 1;
        let logged = match (self.random.random_range(0..10), self.rows.get(&id).copied()) {
            (0, _) if self.random.random_range(0..10) == 0 => event(seq, None, None),
            (_, None) => {
                self.rows.insert(id, v);
                event(seq, None, Some((id, v)))
            }
            (1..4, Some(was)) => {
                self.rows.remove(&id);
                event(seq, Some((id, was)), None)
            }
            (4..7, Some(was)) if !self.rows.contains_key(&to) => {
                self.rows.remove(&id);
                self.rows.insert(to, v);
                event(seq, Some((id, was)), Some((to, v)))
            }
            (_, Some(was)) => {
                self.rows.insert(id, v);
                event(seq, Some((id, was)), Some((id, v)))
            }
        };
        self.log.push(logged);
    }

    /// One read: the log to its end, then a chunk.
    fn read(&mut self) {
        let new = self.log[self.at.0..].to_vec();
        for (event, keys) in new {
            if let Some(event) = self.at.1.pass(event, &keys, clip) {
                take(&mut self.known, &event, self.exact);
            }
        }
        self.at.0 = self.log.len();
        let next = self.at.1.next().map(|(table, after, wipe)| (table, after.map(id_of), wipe));
        let Some((table, after, wipe)) = next else { return };
        if wipe {
            take(&mut self.known, &event(0, None, None).0, self.exact);
            self.at.1.wiped(table);
        }
        let size = self.random.random_range(1..4);
        let beyond: Vec<(i64, i64)> = self
            .rows
            .iter()
            .filter(|(id, _)| after.is_none_or(|after| **id > after))
            .map(|(id, v)| (*id, *v))
            .collect();
        for (id, v) in beyond.iter().take(size) {
            take(&mut self.known, &event(0, None, Some((*id, *v))).0, self.exact);
        }
        match beyond.get(..size) {
            Some(chunk) if beyond.len() > size => self.at.1.given_up_to(table, key(chunk[size - 1].0)),
            _ => self.at.1.whole(table),
        }
    }

    fn crash(&mut self) {
        self.exact = false;
        self.at = (self.noted.0, Copies::noted(&self.noted.1));
    }

    fn finish(&mut self) {
        while self.at.0 < self.log.len() || !self.at.1.are_done() {
            self.read();
        }
        assert_eq!(self.known, self.rows);
    }
}

/// Runs random histories to their end: six steps of twelve write, `reads` read, and what the others do is said.
fn histories(reads: u32, others: fn(&mut World)) {
    for seed in 0..CASES {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            match world.random.random_range(0..12) {
                0..6 => world.write(),
                step if step < 6 + reads => world.read(),
                _ => others(&mut world),
            }
        }
        world.finish();
    }
}

/// Nothing is missing and nothing comes twice, wherever a write falls among the chunks.
#[test]
fn who_is_given_a_table_while_it_is_written_has_it_in_the_end_and_was_told_everything_once() {
    histories(6, |_| unreachable!("there are no others"));
}

/// What was given and not noted is held all the same: a row of it that is deleted meanwhile has to be said to be.
#[test]
fn who_was_given_more_than_is_noted_has_the_table_in_the_end() {
    histories(4, |world| match world.random.random() {
        true => world.noted = (world.at.0, world.at.1.given(true)),
        false => world.crash(),
    });
}

/// Whoever ended well noted exactly what was given: who comes next is as exact.
#[test]
fn who_ends_well_goes_on_without_a_double() {
    histories(4, |world| world.at.1 = Copies::noted(&world.at.1.given(false)));
}

#[test]
fn a_table_that_was_given_before_is_wiped_first_and_once() {
    let mut world = World::new(1);
    world.known = Rows::from([(100, 1)]);
    world.at.1 = Copies::of([(TABLE, "t".to_owned())], true);
    world.write();
    world.finish();
}

#[test]
fn a_table_follows_its_generations_and_is_forgotten_when_it_is_gone() {
    let mut copies = Copies::of([(TableId(1), "a".to_owned()), (TableId(2), "b".to_owned())], false);
    copies.given_up_to(TableId(1), key(5));
    copies.follow(|id| (id == TableId(1)).then_some(TableId(3)));
    assert_eq!(copies.next(), Some((TableId(3), Some(&key(5)), false)));
    copies.whole(TableId(3));
    assert!(copies.are_done());
}
