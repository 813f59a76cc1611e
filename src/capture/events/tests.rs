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

    /// How many events each read has, up to one that has none.
    pub fn events_of_each_read(&mut self) -> Vec<usize> {
        let one = || {
            let read = self.read();
            self.after = read.to;
            (!read.events.is_empty()).then_some(read.events.len())
        };
        std::iter::from_fn(one).collect()
    }

    /// Everything up to the log's end.
    pub fn drain(&mut self) -> Vec<(Event, EventKeys)> {
        let mut all = Vec::new();
        loop {
            let read = self.read();
            assert!(!read.schema_moved && (read.at_end || read.to > self.after));
            assert!(read.events.iter().all(|event| event.seq > self.after && event.seq <= read.to));
            // Of one entry of a log of keys several events can come.
            let has_keys = self.db.options.images == Images::Key;
            assert!(has_keys || read.events.len() <= self.events_max.max(1));
            self.after = read.to;
            all.extend(read.events.into_iter().zip(read.keys));
            if read.at_end {
                assert!(all.is_sorted_by(|(a, _), (b, _)| a.seq < b.seq || has_keys && a.seq == b.seq));
                assert!(all.is_sorted_by_key(|(event, _)| event.ts_ms));
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
    assert!(db.db.log_after(0).iter().any(|entry| entry.starts_with("12/")), "they were touched");
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

/// Columns beyond 64 are in further entries of the same change, up to SQLite's own limit.
#[test]
fn images_of_any_width_come_whole() {
    for columns in [1, 2, 63, 64, 65, 128, 130, 2_000] {
        let names: Vec<String> = (1..columns).map(|place| format!(", c{place}")).collect();
        let mut db = Consumer::new(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY{})", names.concat()));
        let last = if columns == 1 { "id".to_owned() } else { format!("c{}", columns - 1) };
        db.db.run("INSERT INTO t(id) VALUES (1); INSERT INTO t(id) VALUES (2)");
        db.db.run(&format!("UPDATE t SET {last} = 7 WHERE id = 1; UPDATE t SET id = 9 WHERE {last} = 7"));
        db.db.run("REPLACE INTO t(id) VALUES (2); DELETE FROM t");
        let events = db.drain();
        let shape: Vec<(Operation, usize, usize)> = events
            .iter()
            .map(|(event, _)| {
                let width = |image: &Option<Vec<Value>>| image.as_ref().map_or(0, Vec::len);
                (event.operation, width(&event.before), width(&event.after))
            })
            .collect();
        let (insert, update, delete) =
            ((Operation::Insert, 0, columns), (Operation::Update, columns, columns), (Operation::Delete, columns, 0));
        assert_eq!(shape, [insert, insert, update, update, delete, insert, delete, delete], "{columns} columns");
        let after = events[2].0.after.as_ref().expect("an image");
        assert_eq!(after[columns - 1], Value::Integer(7), "{columns} columns");
        assert_eq!(events[2].0.before.as_ref().expect("an image")[columns - 1].is_null(), columns > 1);
        let per_image = i64::try_from(columns.div_ceil(64)).expect("small");
        assert_eq!(db.db.head(), 1 + per_image * 10, "entries of {columns} columns, two images an update");
    }
}

#[test]
fn reading_in_pieces_never_ends_inside_a_change() {
    let names: Vec<String> = (1..150).map(|place| format!(", c{place}")).collect();
    let mut db = Consumer::new(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY{})", names.concat()));
    db.db.run("INSERT INTO t(id) VALUES (1), (2), (3); UPDATE t SET c1 = 5; UPDATE t SET id = id + 10; DELETE FROM t");
    let all = db.drain();
    db.after = 1;
    db.events_max = 1;
    assert_eq!(db.drain(), all);
    assert_eq!(all.len(), 12);
}

#[test]
fn one_change_is_read_however_large_and_bytes_bound_the_rest() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    db.db.run("INSERT INTO t VALUES (1, zeroblob(5000000)), (2, zeroblob(600000)), (3, zeroblob(600000)), (4, 1)");
    assert_eq!(db.events_of_each_read(), [1, 2, 1]);
}

#[test]
fn a_schema_change_is_followed_under_the_names_of_its_time() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    db.db.run("INSERT INTO t VALUES (1, 'x'); ALTER TABLE t ADD COLUMN b DEFAULT 5; INSERT INTO t VALUES (2, 'y', 5)");
    assert!(db.read().schema_moved, "the owner of the database comes first");
    assert!(db.db.reconcile().copied_again.is_empty(), "every row holds the default");
    db.db.run("UPDATE t SET b = 6; ALTER TABLE t RENAME TO u");
    db.db.reconcile();
    db.db.run("DELETE FROM u WHERE id = 1");
    let events = db.drain();
    let lines: Vec<String> = events.iter().map(|(event, _)| line(event)).collect();
    assert_eq!(
        lines,
        [
            "t + (1, 'x')",
            "t + (2, 'y')",
            "t (1, 'x', 5) > (1, 'x', 6)",
            "t (2, 'y', 5) > (2, 'y', 6)",
            "u - (1, 'x', 6)"
        ]
    );
    assert_eq!(events[0].0.table.columns, ["id", "a"]);
    assert_eq!(events[2].0.table.columns, ["id", "a", "b"]);
    assert!(events.iter().all(|(_, keys)| keys.table == events[0].1.table), "they are one table");
    db.db.run("ALTER TABLE u ADD COLUMN c; INSERT INTO u VALUES (7, 1, 1, 'lost')");
    db.db.reconcile();
    assert_eq!(db.says(""), ["u + (7, 1, 1)", "u resync"], "what the column held nobody logged");
}

/// Where both ends write, a row that the log names is not copied again for what an appended column holds. Its images lack
/// it all the same.
#[test]
fn what_an_appended_column_held_before_it_was_seen_is_told_where_both_ends_write_too() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    db.db.options.two_way = true;
    db.db.run("INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD COLUMN b; UPDATE t SET b = 5");
    assert!(db.db.reconcile().copied_again.is_empty(), "replication reads the row");
    assert_eq!(db.says(""), ["t + (1, 1)", "t (1, 1) > (1, 1)", "t resync"]);
    db.db.run("ALTER TABLE t ADD COLUMN c DEFAULT 1; UPDATE t SET b = 6");
    db.db.reconcile();
    assert_eq!(db.says(""), ["t (1, 1, 5) > (1, 1, 6)"], "every row holds the default");
}

#[test]
fn a_column_is_dropped_by_ddl_alone() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
    db.db.run("INSERT INTO t VALUES (1, 2, 3)");
    assert!(db.db.app.execute_batch("ALTER TABLE t DROP COLUMN b").is_err(), "our triggers name it");
    let done = crate::capture::run_ddl(
        &mut db.db.ours,
        "ALTER TABLE t DROP COLUMN b; ALTER TABLE t RENAME COLUMN a TO c",
        &db.db.options,
        &db.db.clock,
    );
    assert_eq!(done.expect("done").captured, ["t"]);
    assert_eq!(db.says("UPDATE t SET c = 5"), ["t + (1, 2, 3)", "t resync", "t (1, 2) > (1, 5)"]);
}

/// A receiver never learnt of either: the images of the script's entries are of before the column, and a table that is new
/// has no entry for what it was made with.
#[test]
fn what_came_with_a_column_or_a_table_is_told() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    db.db.run("INSERT INTO t VALUES (1, 2)");
    let ddl = |db: &mut Consumer, script: &str| {
        crate::capture::run_ddl(&mut db.db.ours, script, &db.db.options, &db.db.clock).expect("done");
    };
    ddl(&mut db, "ALTER TABLE t ADD COLUMN z DEFAULT 4");
    assert_eq!(db.says(""), ["t + (1, 2)"], "every row holds the default");
    ddl(&mut db, "ALTER TABLE t ADD COLUMN y; UPDATE t SET y = 5");
    assert_eq!(db.says(""), ["t (1, 2, 4) > (1, 2, 4)", "t resync"]);
    db.db.run("CREATE TABLE u(x INTEGER PRIMARY KEY); INSERT INTO u VALUES (1); CREATE TABLE bare(x)");
    db.db.reconcile();
    assert_eq!(db.says("INSERT INTO u VALUES (2); INSERT INTO bare VALUES (3)"), ["u resync", "u + (2)", "bare + (3)"]);
    ddl(&mut db, "CREATE TABLE v(x INTEGER PRIMARY KEY); INSERT INTO v VALUES (1)");
    assert_eq!(db.says(""), ["v resync"]);
}

/// What is not reconciled in time may have been logged in another order than it was done.
#[test]
fn a_younger_trigger_of_the_users_makes_its_table_unsure_until_ours_are_made_anew() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    db.db.run("CREATE TRIGGER mine AFTER INSERT ON t BEGIN UPDATE t SET a = a + 1 WHERE id = NEW.id; END");
    db.db.run("INSERT INTO t VALUES (1, 1)");
    db.db.reconcile();
    let lines = db.says("INSERT INTO t VALUES (2, 1)");
    let known = ["t resync", "t + (2, 1)", "t (2, 1) > (2, 2)"];
    assert_eq!(&lines[2..], known, "and in the right order from there on");
}

#[test]
fn pruning_leaves_changes_whole() {
    let names: Vec<String> = (1..100).map(|place| format!(", c{place}")).collect();
    let mut db = Consumer::new(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY{})", names.concat()));
    db.db.run("INSERT INTO t(id) VALUES (1); UPDATE t SET c1 = 1; UPDATE t SET c1 = 2; UPDATE t SET c1 = 3");
    // Entries 2 and 3 are the insert, then four an update.
    for (position, oldest) in [(2, 2), (3, 2), (4, 4), (7, 4), (9, 8), (11, 8), (15, 12)] {
        let request = crate::capture::PruneRequest {
            acknowledged: vec![("reader".to_owned(), position)],
            ..crate::capture::PruneRequest::default()
        };
        let pruned = crate::capture::prune(&mut db.db.ours, &request, &db.db.clock).expect("pruned");
        assert_eq!(pruned.oldest, oldest, "for a reader at {position}");
    }
    db.after = 11;
    assert_eq!(db.drain().len(), 1);
    let selection = Selection::all();
    for after in [3, 99] {
        let request = EventRequest { after, events_max: 9, bytes_max: 999, selection: &selection };
        let lost = read_events(&db.db.ours, &mut db.catalog, &request).expect_err("they are gone");
        assert!(matches!(lost, ReadError::EventsLost { oldest: 12, head: 15, .. }) && lost.word() == "events_lost");
    }
}

#[test]
fn the_size_of_the_log_counts_its_images() {
    let db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    db.db.run("INSERT INTO t VALUES (1, zeroblob(100000))");
    let state = crate::capture::log_state(&db.db.ours).expect("state");
    assert!((100_000..120_000).contains(&state.bytes), "{state:?}");
}

#[test]
fn a_log_is_made_wider_for_a_wider_table_and_its_entries_are_known_still() {
    let mut db = Consumer::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    db.db.run("INSERT INTO t VALUES (1, 'x')");
    let head = crate::capture::log_state(&db.db.ours).expect("state").head;
    let first = db.read();
    db.db.run("CREATE TABLE w(a, b, c, d, e, f, PRIMARY KEY(a, b, c)) WITHOUT ROWID");
    db.db.reconcile();
    let verdict = crate::capture::judge_checkpoint(&db.db.ours, &head).expect("judged");
    assert_eq!(verdict, crate::capture::CheckpointVerdict::Known);
    assert_eq!(
        db.says("INSERT INTO w VALUES (1, 2, 3, 4, 5, 6); UPDATE t SET a = 'y'"),
        ["t + (1, 'x')", "w + (1, 2, 3, 4, 5, 6)", "t (1, 'x') > (1, 'y')"]
    );
    assert_eq!(first.events.len(), 1);
}

#[test]
fn what_is_beyond_the_copy_is_left_to_it() {
    let mut db = Consumer::new("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID");
    db.db.run("INSERT INTO t VALUES ('a', 1), ('C', 2), ('e', 3)");
    db.drain();
    let table = db.catalog.tables(&db.db.ours, &Selection::all()).expect("tables").remove(0).id;
    let request = RowsRequest { table, after: None, rows_max: 2, bytes_max: 1 << 20 };
    let piece = read_rows(&db.db.ours, &mut db.catalog, &request).expect("read").expect("there");
    assert_eq!((piece.rows.len(), piece.done, piece.head), (2, false, db.after));
    let to = piece.last.expect("rows");
    db.db.run("INSERT INTO t VALUES ('B', 9), ('d', 9); UPDATE t SET v = 0; UPDATE t SET k = 'x' WHERE k = 'b'");
    db.db.run("UPDATE t SET k = 'aa' WHERE k = 'E'; DELETE FROM t WHERE k = 'd'; DELETE FROM t WHERE k = 'c'");
    let events = db.drain();
    let kept: Vec<String> = events
        .into_iter()
        .filter_map(|(event, keys)| clip(&db.catalog, event, &keys, Some(&to)))
        .map(|event| line(&event))
        .collect();
    assert_eq!(
        kept,
        [
            "t + ('B', 9)",
            "t ('a', 1) > ('a', 0)",
            "t ('B', 9) > ('B', 0)",
            "t ('C', 2) > ('C', 0)",
            "t - ('B', 0)",
            "t + ('aa', 0)",
            "t - ('C', 0)",
        ]
    );
    let request = RowsRequest { after: Some(&to), ..request };
    let rest = read_rows(&db.db.ours, &mut db.catalog, &request).expect("read").expect("there");
    assert_eq!((rest.rows.len(), rest.done), (1, true), "x, which was b");
    let request = RowsRequest { table: crate::model::TableId(99), ..request };
    assert!(read_rows(&db.db.ours, &mut db.catalog, &request).expect("read").is_none());
}

#[test]
fn only_the_tables_of_the_selection_are_told() {
    let mut db = Consumer::new("CREATE TABLE a(x); CREATE TABLE b(x)");
    db.db.run("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)");
    let selection = Selection::new(&["b".to_owned()], &[]).expect("globs");
    let request = EventRequest { after: 0, events_max: 9, bytes_max: 999, selection: &selection };
    let read = read_events(&db.db.ours, &mut db.catalog, &request).expect("read");
    assert_eq!(read.events.iter().map(line).collect::<Vec<_>>(), ["b + (2)"]);
    assert!(read.at_end && read.to == db.db.head());
}
