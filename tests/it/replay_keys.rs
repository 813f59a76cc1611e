//! Random statements on a log of keys, and databases that take its events: INSERT and UPDATE as "this is the row now", DELETE
//! as "this key is gone". What they have in the end is what the source has, also where events come again after a crash.
//!
//! `TWINLITE_CASES=N` runs more of them, `TWINLITE_SEED=S` exactly one.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value as Bound;
use twinlite::capture::events::{EventCatalog, EventRequest, EventsRead, RowsRequest, clip, read_events, read_rows};
use twinlite::model::{Event, Key, Operation, Selection, TableId, Value};

use crate::replay::{ROUNDS, STATEMENTS, assert_same, select};
use crate::support::{
    oracle::quoted,
    random::Random,
    table::Table,
    written::{Written, seeds},
};

const CASES: u64 = 60;

/// A database that begins with the source's tables and no rows.
struct Receiver {
    conn: Connection,
    /// The key's columns of each table, each as SQL compares it.
    keys: BTreeMap<String, Vec<(String, String)>>,
    /// The columns that are computed, of each table.
    computed: BTreeMap<String, Vec<String>>,
    /// The highest position that it has taken; `None` where it takes whatever comes.
    highest: Option<i64>,
}

impl Receiver {
    fn new(ddl: &[String], by_position: bool) -> Self {
        let conn = Connection::open_in_memory().unwrap();
        conn.pragma_update(None, "foreign_keys", false).unwrap();
        // Some are refused, here as there.
        ddl.iter().for_each(|sql| drop(conn.execute_batch(sql)));
        let (mut keys, mut computed) = (BTreeMap::new(), BTreeMap::new());
        for table in Table::read_all(&conn) {
            let generated = table.columns.iter().filter(|column| column.generated);
            computed.insert(table.name.clone(), generated.map(|column| column.name.clone()).collect());
            keys.insert(table.name.clone(), key(&conn, &table));
        }
        Self { conn, keys, computed, highest: by_position.then_some(0) }
    }

    /// Takes an event, unless it goes by positions and this one was handled.
    fn take(&mut self, event: &Event) {
        if let Some(highest) = &mut self.highest {
            let has_null = event.before.iter().flatten().any(Value::is_null);
            let again = event.operation == Operation::Insert || event.operation == Operation::Delete && has_null;
            if event.seq < *highest || event.seq == *highest && !again {
                return;
            }
            *highest = event.seq;
        }
        self.apply(event);
    }

    fn apply(&self, event: &Event) {
        let has = (event.before.is_some(), event.after.is_some());
        let table = &event.table.name;
        match event.operation {
            Operation::Insert | Operation::Update => assert_eq!(has, (false, true), "{event:?}"),
            Operation::Delete => assert_eq!(has, (true, false), "{event:?}"),
            Operation::Resync => {
                assert_eq!(has, (false, false), "{event:?}");
                self.conn.execute(&format!("DELETE FROM {}", quoted(table)), []).unwrap();
            }
        }
        if let Some(before) = &event.before {
            let names: Vec<&String> = self.keys[table].iter().map(|(name, _)| name).collect();
            assert_eq!(
                event.table.columns.iter().collect::<Vec<_>>(),
                names,
                "a deletion has the key and nothing else"
            );
            let is = |(at, (_, compared)): (usize, &(String, String))| format!("{} ?{}", compared, at + 1);
            let condition: Vec<String> = self.keys[table].iter().enumerate().map(is).collect();
            self.run(&format!("DELETE FROM {} WHERE {}", quoted(table), condition.join(" AND ")), before);
        }
        if let Some(after) = &event.after {
            self.put(table, &event.table.columns, after);
        }
    }

    fn put(&self, table: &str, columns: &[String], row: &[Value]) {
        assert_eq!(columns.len(), row.len(), "a row of {table}");
        let (names, values): (Vec<String>, Vec<Value>) = columns
            .iter()
            .zip(row)
            .filter(|(name, _)| !self.computed[table].contains(name))
            .map(|(name, value)| (quoted(name), value.clone()))
            .unzip();
        let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        let (names, places) = (names.join(", "), places.join(", "));
        self.run(&format!("INSERT OR REPLACE INTO {}({names}) VALUES ({places})", quoted(table)), &values);
    }

    fn run(&self, sql: &str, values: &[Value]) {
        let mut statement = self.conn.prepare_cached(sql).unwrap();
        for (at, value) in values.iter().enumerate() {
            match value {
                Value::Text(bytes) => {
                    let text = rusqlite::types::ToSqlOutput::Borrowed(rusqlite::types::ValueRef::Text(bytes));
                    statement.raw_bind_parameter(at + 1, text).unwrap();
                }
                Value::Null => statement.raw_bind_parameter(at + 1, Bound::Null).unwrap(),
                Value::Integer(integer) => statement.raw_bind_parameter(at + 1, integer).unwrap(),
                Value::Real(real) => statement.raw_bind_parameter(at + 1, real).unwrap(),
                Value::Blob(bytes) => statement.raw_bind_parameter(at + 1, bytes).unwrap(),
            }
        }
        statement.raw_execute().unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    #[track_caller]
    fn assert_equal(&self, source: &Connection, captured: &[String]) {
        for table in captured.iter().map(|name| Table::read(source, name)) {
            let mut names: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
            if table.key().is_empty() {
                names.extend(table.rowid.map(str::to_owned));
            }
            let rows = |conn: &Connection| select(conn, &table.name, &names);
            assert_same(&table.name, &rows(&self.conn), &rows(source));
        }
    }
}

/// The key of a table, as its index compares it.
fn key(conn: &Connection, table: &Table) -> Vec<(String, String)> {
    let mut statement = conn
        .prepare(
            "SELECT x.name, x.coll FROM pragma_index_list(?1) AS i, pragma_index_xinfo(i.name) AS x
             WHERE i.origin = 'pk' AND x.key ORDER BY x.seqno",
        )
        .unwrap();
    let rows = statement.query_map([&table.name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    let by_index: Vec<(String, String)> = rows
        .unwrap()
        .map(Result::unwrap)
        .map(|(name, collation)| (name.clone(), format!("{} COLLATE {collation} IS", quoted(&name))))
        .collect();
    let hidden = |name: &str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !hidden(name)).map(str::to_owned);
    let rowid = table.alias.clone().or(rowid);
    match by_index.is_empty() {
        true => rowid.into_iter().map(|name| (name.clone(), format!("{} IS", quoted(&name)))).collect(),
        false => by_index,
    }
}

/// How far somebody is: where in the log, and the tables that are being copied.
#[derive(Clone, Default)]
struct Standing {
    after: i64,
    copying: BTreeMap<TableId, Option<Key>>,
}

/// A consumer that reads in small pieces, and has its receivers take them in smaller ones.
struct Consumer {
    connection: Connection,
    catalog: EventCatalog,
    standing: Standing,
    noted: Standing,
    last_ts_ms: i64,
    receivers: Vec<Receiver>,
}

impl Consumer {
    fn new(path: &Path, ddl: &[String], by_position: bool) -> Self {
        let connection = crate::support::open(path);
        let after = connection.query_row("SELECT coalesce(max(seq), 0) FROM __cdc_log", [], |row| row.get(0)).unwrap();
        let standing = Standing { after, copying: BTreeMap::new() };
        let mut receivers = vec![Receiver::new(ddl, false)];
        if by_position {
            receivers.push(Receiver::new(ddl, true));
        }
        let noted = standing.clone();
        Self { connection, catalog: EventCatalog::default(), standing, noted, last_ts_ms: 0, receivers }
    }

    fn read(&mut self, random: &mut Random) -> EventsRead {
        let selection = Selection::all();
        let (events_max, bytes_max) = (1 + random.below(40), 1 + random.below(4_000));
        let request = EventRequest { after: self.standing.after, events_max, bytes_max, selection: &selection };
        let read = read_events(&self.connection, &mut self.catalog, &request).unwrap();
        assert!(!read.schema_moved && read.events.len() == read.keys.len());
        assert!(read.at_end || read.to > self.standing.after);
        assert!(read.events.iter().all(|event| event.seq > self.standing.after && event.seq <= read.to));
        assert!(read.events.is_sorted_by_key(|event| (event.seq, event.ts_ms)), "{:?}", read.events);
        read
    }

    /// Reads a little, takes some of it or all, and copies a little where the log's end is reached; whether there is nothing
    /// left.
    fn step(&mut self, random: &mut Random) -> bool {
        self.connection.execute_batch("BEGIN").unwrap();
        let read = self.read(random);
        let takes = if random.chance(30) { random.below(read.events.len() + 1) } else { read.events.len() };
        let seqs: Vec<i64> = read.events.iter().map(|event| event.seq).collect();
        for (event, keys) in read.events.into_iter().zip(read.keys).take(takes) {
            if event.operation == Operation::Resync {
                self.standing.copying.insert(keys.table.unwrap(), None);
            }
            let copying = keys.table.and_then(|table| self.standing.copying.get(&table));
            let event = match copying {
                Some(copied_to) => clip(&self.catalog, event, &keys, copied_to.as_ref()),
                None => Some(event),
            };
            if let Some(event) = event {
                self.last_ts_ms = event.ts_ms;
                self.receivers.iter_mut().for_each(|receiver| receiver.take(&event));
            }
        }
        self.standing.after = match (takes.checked_sub(1), seqs.get(takes)) {
            (_, None) => read.to,
            // Nothing of an entry was taken before all that it tells.
            (Some(_), Some(next)) => next - 1,
            (None, Some(_)) => self.standing.after,
        };
        let whole = takes == seqs.len() && read.at_end;
        let next = if whole { self.standing.copying.pop_first() } else { None };
        if let Some((table, copied_to)) = next.clone() {
            self.copy(table, copied_to, random);
        }
        self.connection.execute_batch("COMMIT").unwrap();
        whole && next.is_none()
    }

    fn copy(&mut self, table: TableId, copied_to: Option<Key>, random: &mut Random) {
        let request =
            RowsRequest { table, after: copied_to.as_ref(), rows_max: 1 + random.below(5), bytes_max: 1 << 20 };
        let read = read_rows(&self.connection, &mut self.catalog, &request).unwrap().unwrap();
        for row in &read.rows {
            self.receivers.iter().for_each(|receiver| receiver.put(&read.table.name, &read.table.columns, row));
        }
        if !read.done {
            self.standing.copying.insert(table, read.last);
        }
    }

    /// Goes on where it was noted to be, knowing nothing else, and notes now and then where it is. What was being copied
    /// then is another test's.
    fn crash_or_note(&mut self, random: &mut Random) {
        if random.chance(20) {
            (self.standing, self.catalog) = (self.noted.clone(), EventCatalog::default());
        } else if random.chance(30) && self.standing.copying.is_empty() {
            self.noted = self.standing.clone();
        }
    }

    fn catch_up(&mut self, random: &mut Random) {
        while !self.step(random) {}
    }

    /// Of the tables that can be captured.
    #[track_caller]
    fn assert_equal(&mut self, source: &Connection) {
        let captured = self.catalog.tables(&self.connection, &Selection::all()).unwrap();
        let names: Vec<String> = captured.into_iter().map(|captured| captured.table.name.clone()).collect();
        self.receivers.iter().for_each(|receiver| receiver.assert_equal(source, &names));
    }
}

/// Runs random statements over random tables while somebody reads.
fn run(seed: u64, offset: u64, crashes: bool) {
    let mut written = Written::new(seed, offset);
    written.setup("key");
    let mut consumer = Consumer::new(&written.place.source(), &written.schema.ddl, crashes);
    for round in 0..ROUNDS {
        if round == 2 && !crashes {
            written.finish();
            written.make_younger_triggers();
            written.setup("key");
        }
        for _ in 0..4 {
            written.write(STATEMENTS / 4);
            for _ in 0..written.random.below(4) {
                consumer.step(&mut written.random);
                if crashes {
                    consumer.crash_or_note(&mut written.random);
                }
            }
        }
        if written.random.chance(50) {
            consumer.catch_up(&mut written.random);
        }
    }
    written.finish();
    consumer.catch_up(&mut written.random);
    consumer.assert_equal(&written.conn);
}

#[test]
fn whoever_takes_the_events_of_a_log_of_keys_has_the_source() {
    seeds(CASES).into_iter().for_each(|seed| run(seed, 5_000_000, false));
}

/// After a crash a consumer hands over again what it had not noted, with rows that may be newer, cut otherwise. Whoever takes
/// everything has the source in the end, and so has who drops what is below the highest position that it has handled.
#[test]
fn whoever_takes_them_again_after_a_crash_has_the_source_too() {
    seeds(CASES).into_iter().for_each(|seed| run(seed, 6_000_000, true));
}

#[test]
fn a_copy_in_pieces_meets_the_events_of_a_log_of_keys() {
    for seed in seeds(CASES / 2) {
        let mut written = Written::new(seed, 7_000_000);
        written.make_younger_triggers();
        written.write(2 * STATEMENTS);
        written.finish();
        written.setup("key");
        let mut consumer = Consumer::new(&written.place.source(), &written.schema.ddl, false);
        for table in consumer.catalog.tables(&consumer.connection, &Selection::all()).unwrap() {
            consumer.standing.copying.insert(table.id, None);
        }
        for _ in 0..STATEMENTS {
            written.write(3);
            consumer.step(&mut written.random);
        }
        written.finish();
        consumer.catch_up(&mut written.random);
        consumer.assert_equal(&written.conn);
    }
}
