//! Random statements, replayed from their events: what the replay has is what the source has, and each `before` is what
//! the replay had.
//!
//! `TWINLITE_CASES=N` runs more of them, `TWINLITE_SEED=S` exactly one.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use twinlite::capture::events::{EventCatalog, EventRequest, RowsRequest, clip, read_events, read_rows};
use twinlite::model::{Event, Key, Operation, Selection, TableId, Value};

use crate::support::{
    open,
    oracle::quoted,
    random::Random,
    table::Table,
    written::{Written, seeds},
};

const CASES: u64 = 30;
pub const ROUNDS: usize = 4;
pub const STATEMENTS: usize = 60;

/// The rows of a table, each with how often it is there: tables without a key may hold a row twice.
pub type Rows = BTreeMap<String, usize>;

/// What somebody knows who has only the events.
#[derive(Default)]
struct Replay {
    tables: BTreeMap<String, Rows>,
}

impl Replay {
    fn apply(&mut self, event: &Event) {
        let rows = self.tables.entry(event.table.name.clone()).or_default();
        let width = event.table.columns.len();
        for image in event.before.iter().chain(&event.after) {
            assert_eq!(image.len(), width, "an image of {}", event.table.name);
        }
        let has = (event.before.is_some(), event.after.is_some());
        let wanted = match event.operation {
            Operation::Insert => (false, true),
            Operation::Update => (true, true),
            Operation::Delete => (true, false),
            Operation::Resync => (false, false),
        };
        assert_eq!(has, wanted, "{:?}", event.operation);
        if event.operation == Operation::Resync {
            rows.clear();
        }
        if let Some(before) = &event.before {
            take(rows, &shown(before), event);
        }
        if let Some(after) = &event.after {
            *rows.entry(shown(after)).or_default() += 1;
        }
    }
}

fn take(rows: &mut Rows, row: &str, event: &Event) {
    let Some(count) = rows.get_mut(row) else {
        let known: Vec<&String> = rows.keys().collect();
        panic!(
            "entry {}: {:?} of {} with before {row}, which the replay does not have: {known:#?}",
            event.seq, event.operation, event.table.name
        )
    };
    *count -= 1;
    if *count == 0 {
        rows.remove(row);
    }
}

/// A row so that it can be read, with its exact bytes behind where that may not tell all.
pub fn shown(row: &[Value]) -> String {
    let key = Key(row.to_vec());
    let hash = key.to_bytes().iter().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    format!("{} #{hash:08x}", key.shown())
}

/// Every row of a table, as SQLite itself reads it, generated columns too.
fn actual(conn: &Connection, table: &str) -> Rows {
    let names: Vec<String> = Table::read(conn, table).columns.iter().map(|column| quoted(&column.name)).collect();
    select(conn, table, &names)
}

/// These columns of every row.
pub fn select(conn: &Connection, table: &str, names: &[String]) -> Rows {
    let mut statement = conn.prepare(&format!("SELECT {} FROM {}", names.join(", "), quoted(table))).unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut all = Rows::new();
    while let Some(row) = rows.next().unwrap() {
        let value = |place| match row.get_ref(place).unwrap() {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(integer) => Value::Integer(integer),
            ValueRef::Real(real) => Value::Real(real),
            ValueRef::Text(text) => Value::Text(text.to_vec()),
            ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
        };
        *all.entry(shown(&(0..names.len()).map(value).collect::<Vec<_>>())).or_default() += 1;
    }
    all
}

/// A consumer that reads in small pieces.
struct Consumer {
    connection: Connection,
    catalog: EventCatalog,
    after: i64,
    replay: Replay,
    /// Tables that are being copied, and how far; those that are not here are copied whole.
    copying: BTreeMap<TableId, Option<Key>>,
}

impl Consumer {
    fn new(path: &Path) -> Self {
        let connection = open(path);
        let after = connection.query_row("SELECT coalesce(max(seq), 0) FROM __cdc_log", [], |row| row.get(0)).unwrap();
        let catalog = EventCatalog::default();
        Self { connection, catalog, after, replay: Replay::default(), copying: BTreeMap::new() }
    }

    /// Begins to copy every table.
    fn bootstrap(&mut self) {
        for table in self.catalog.tables(&self.connection, &Selection::all()).unwrap() {
            self.copying.insert(table.id, None);
        }
    }

    /// Reads a little, and copies a little where the log's end is reached; whether there is nothing left.
    fn step(&mut self, random: &mut Random) -> bool {
        self.connection.execute_batch("BEGIN").unwrap();
        let selection = Selection::all();
        let (events_max, bytes_max) = (1 + random.below(40), 1 + random.below(4_000));
        let request = EventRequest { after: self.after, events_max, bytes_max, selection: &selection };
        let read = read_events(&self.connection, &mut self.catalog, &request).unwrap();
        assert!(!read.schema_moved && read.events.len() == read.keys.len());
        assert!(read.at_end || read.to > self.after);
        self.after = read.to;
        for (event, keys) in read.events.into_iter().zip(read.keys) {
            if event.operation == Operation::Resync {
                self.copying.insert(keys.table.unwrap(), None);
            }
            let copying = keys.table.and_then(|table| self.copying.get(&table));
            let event = match copying {
                Some(copied_to) => clip(&self.catalog, event, &keys, copied_to.as_ref()),
                None => Some(event),
            };
            event.iter().for_each(|event| self.replay.apply(event));
        }
        let next = if read.at_end { self.copying.pop_first() } else { None };
        if let Some((table, copied_to)) = next.clone() {
            self.copy(table, copied_to, random);
        }
        self.connection.execute_batch("COMMIT").unwrap();
        read.at_end && next.is_none()
    }

    fn copy(&mut self, table: TableId, copied_to: Option<Key>, random: &mut Random) {
        let request =
            RowsRequest { table, after: copied_to.as_ref(), rows_max: 1 + random.below(5), bytes_max: 1 << 20 };
        let read = read_rows(&self.connection, &mut self.catalog, &request).unwrap().unwrap();
        let rows = self.replay.tables.entry(read.table.name.clone()).or_default();
        for row in &read.rows {
            *rows.entry(shown(row)).or_default() += 1;
        }
        if !read.done {
            self.copying.insert(table, read.last);
        }
    }

    fn catch_up(&mut self, random: &mut Random) {
        while !self.step(random) {}
    }

    fn assert_equal(&mut self, conn: &Connection) {
        let captured = self.catalog.tables(&self.connection, &Selection::all()).unwrap();
        for table in captured.into_iter().map(|captured| captured.table.name.clone()) {
            let replayed = self.replay.tables.get(&table).cloned().unwrap_or_default();
            let actual = actual(conn, &table);
            assert_same(&table, &replayed, &actual);
        }
    }
}

/// That a replay of a table and the table are the same.
#[track_caller]
pub fn assert_same(table: &str, replayed: &Rows, actual: &Rows) {
    let only = |these: &Rows, those: &Rows| -> Vec<String> {
        let rows = these.iter().filter(|(row, count)| those.get(*row) != Some(count));
        rows.map(|(row, count)| format!("{count} x {row}")).collect()
    };
    let (replay, source) = (only(replayed, actual), only(actual, replayed));
    assert_eq!(replay, source, "{table}, replayed (left) and as it is, where they differ");
}

#[test]
fn the_events_replayed_are_the_source() {
    for seed in seeds(CASES) {
        let mut written = Written::new(seed, 3_000_000);
        written.setup("full");
        let mut consumer = Consumer::new(&written.place.source());
        for round in 0..ROUNDS {
            if round == 2 {
                // Ours are made anew, and are the youngest again.
                written.finish();
                written.make_younger_triggers();
                written.setup("full");
            }
            written.write(STATEMENTS);
            // Not at rest: what a transaction that is open has written nobody sees yet.
            if written.random.chance(50) {
                consumer.catch_up(&mut written.random);
            }
        }
        written.finish();
        consumer.catch_up(&mut written.random);
        consumer.assert_equal(&written.conn);
    }
}

#[test]
fn a_copy_in_pieces_meets_the_events_without_gap_or_double() {
    for seed in seeds(CASES) {
        let mut written = Written::new(seed, 4_000_000);
        written.make_younger_triggers();
        written.write(2 * STATEMENTS);
        written.finish();
        written.setup("full");
        let mut consumer = Consumer::new(&written.place.source());
        consumer.bootstrap();
        for _ in 0..STATEMENTS {
            written.write(3);
            consumer.step(&mut written.random);
        }
        written.finish();
        consumer.catch_up(&mut written.random);
        consumer.assert_equal(&written.conn);
    }
}
