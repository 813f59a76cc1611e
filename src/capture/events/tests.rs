//! Events as somebody gets them: each operation, each shape of table, each seam of reading.

use super::{EventCatalog, EventKeys, EventRequest, EventsRead, RowsRequest, clip, read_events, read_rows};
use crate::capture::test_support::Fixture;
use crate::capture::{Images, ReadError};
use crate::model::{Event, Key, Operation, Selection, Value};

/// A captured database with images, and one consumer of its events.
pub(super) struct Consumer {
    pub db: Fixture,
    pub catalog: EventCatalog,
    pub after: i64,
    pub events_max: usize,
}

impl Consumer {
    pub fn new(ddl: &str) -> Self {
        Self::of(ddl, Images::Full)
    }

    pub fn of(ddl: &str, images: Images) -> Self {
        let mut db = Fixture::bare(ddl);
        db.options.images = images;
        db.install();
        let after = db.head();
        Self { db, catalog: EventCatalog::default(), after, events_max: 1_000 }
    }

    pub fn read(&mut self) -> EventsRead {
        let selection = Selection::all();
        let request =
            EventRequest { after: self.after, events_max: self.events_max, bytes_max: 1 << 20, selection: &selection };
        read_events(&self.db.ours, &mut self.catalog, &request).expect("read")
    }

    /// Everything up to the log's end.
    pub fn drain(&mut self) -> Vec<(Event, EventKeys)> {
        let mut all = Vec::new();
        loop {
            let read = self.read();
            assert!(!read.schema_moved && (read.at_end || read.to > self.after));
            assert!(read.events.iter().all(|event| event.seq > self.after && event.seq <= read.to));
            assert!(read.events.len() <= self.events_max.max(1));
            self.after = read.to;
            all.extend(read.events.into_iter().zip(read.keys));
            if read.at_end {
                assert!(all.is_sorted_by(|(a, _), (b, _)| a.seq < b.seq));
                return all;
            }
        }
    }

    /// What a script of the application's says, a line an event.
    #[track_caller]
    pub fn says(&mut self, script: &str) -> Vec<String> {
        self.db.run(script);
        self.drain().iter().map(|(event, _)| line(event)).collect()
    }
}

/// `t + (1, 'a')`, `t - …`, `t … > …`.
pub(super) fn line(event: &Event) -> String {
    let row = |row: &Option<Vec<Value>>| row.as_ref().map_or("none".to_owned(), |row| Key(row.clone()).shown());
    let (name, before, after) = (&event.table.name, row(&event.before), row(&event.after));
    match event.operation {
        Operation::Insert if event.before.is_none() => format!("{name} + {after}"),
        Operation::Delete if event.after.is_none() => format!("{name} - {before}"),
        Operation::Update => format!("{name} {before} > {after}"),
        Operation::Resync if event.before.is_none() && event.after.is_none() => format!("{name} resync"),
        _ => panic!("{event:?}"),
    }
}

#[test]
fn each_operation_says_what_was_and_what_is() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a || '!'), s AS (id + 1) STORED)");
    assert_eq!(db.says("INSERT INTO t VALUES (1, 'x')"), ["t + (1, 'x', 'x!', 2)"]);
    assert_eq!(db.says("UPDATE t SET a = 'y'"), ["t (1, 'x', 'x!', 2) > (1, 'y', 'y!', 2)"]);
    assert_eq!(db.says("UPDATE t SET id = 5"), ["t (1, 'y', 'y!', 2) > (5, 'y', 'y!', 6)"]);
    assert_eq!(db.says("UPDATE t SET rowid = 6, a = 1"), ["t (5, 'y', 'y!', 6) > (6, 1, '1!', 7)"]);
    assert_eq!(db.says("DELETE FROM t"), ["t - (6, 1, '1!', 7)"]);
    assert_eq!(db.says("BEGIN; INSERT INTO t(a) VALUES (1); ROLLBACK"), [""; 0]);
}

#[test]
fn rows_that_replace_displaces_are_deletions_in_their_place() {
    let mut db = Consumer::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); CREATE TABLE k(k TEXT PRIMARY KEY, v);
         CREATE TABLE w(k TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE r(a UNIQUE)",
    );
    db.says("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    assert_eq!(db.says("REPLACE INTO t VALUES (1, 'x')"), ["t - (1, 'a')", "t + (1, 'x')"]);
    assert_eq!(
        db.says("REPLACE INTO t VALUES (1, 'b')"),
        ["t - (1, 'x')", "t - (2, 'b')", "t + (1, 'b')"],
        "both the key's row and the value's"
    );
    assert_eq!(db.says("UPDATE OR REPLACE t SET a = 'c' WHERE id = 1"), ["t - (3, 'c')", "t (1, 'b') > (1, 'c')"]);
    db.says("INSERT INTO t VALUES (7, 'q')");
    assert_eq!(db.says("UPDATE OR REPLACE t SET id = 7 WHERE id = 1"), ["t - (7, 'q')", "t (1, 'c') > (7, 'c')"]);
    assert_eq!(db.says("REPLACE INTO t(a) VALUES ('c')"), ["t - (7, 'c')", "t + (8, 'c')"]);
    db.says("INSERT INTO k VALUES ('x', 1); INSERT INTO w VALUES ('x', 1); INSERT INTO r VALUES (1)");
    assert_eq!(db.says("REPLACE INTO k VALUES ('x', 2)"), ["k - ('x', 1)", "k + ('x', 2)"]);
    assert_eq!(db.says("REPLACE INTO k(rowid, k) VALUES (2, 'y')"), ["k - ('x', 2)", "k + ('y', NULL)"]);
    assert_eq!(db.says("REPLACE INTO w VALUES ('X', 2)"), ["w - ('x', 1)", "w + ('X', 2)"]);
    assert_eq!(db.says("UPDATE w SET k = 'x'"), ["w ('X', 2) > ('x', 2)"]);
    assert_eq!(db.says("REPLACE INTO r(rowid, a) VALUES (1, 5)"), ["r - (1)", "r + (5)"]);
    assert_eq!(db.says("REPLACE INTO r(rowid, a) VALUES (9, 5)"), ["r - (5)", "r + (5)"]);
}

#[test]
fn a_touch_of_a_row_that_stays_says_nothing() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, n)");
    db.says("INSERT INTO t VALUES (1, 'a', 0)");
    assert_eq!(db.says("INSERT OR IGNORE INTO t VALUES (1, 'a', 1), (1, 'z', 1), (2, 'a', 1)"), [""; 0]);
    assert!(db.db.log_after(0).iter().any(|entry| entry.starts_with("4/")), "they were touched");
    assert_eq!(
        db.says("INSERT INTO t VALUES (1, 'q', 5) ON CONFLICT DO UPDATE SET n = excluded.n"),
        ["t (1, 'a', 0) > (1, 'a', 5)"]
    );
    assert_eq!(db.says("INSERT INTO t VALUES (9, 'a', 5) ON CONFLICT DO NOTHING"), [""; 0]);
    assert!(db.db.app.execute_batch("INSERT INTO t VALUES (1, 'a', 5)").is_err());
    assert_eq!(db.says("DELETE FROM t; INSERT INTO t VALUES (1, 'b', 1)"), ["t - (1, 'a', 5)", "t + (1, 'b', 1)"]);
    assert_eq!(
        db.says("INSERT OR IGNORE INTO t VALUES (1, 'c', 1); REPLACE INTO t VALUES (1, 'c', 2)"),
        ["t - (1, 'b', 1)", "t + (1, 'c', 2)"],
        "the second touch was one"
    );
}
