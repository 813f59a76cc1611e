//! What a window says of a real database, through the reader's front door.

use std::io;
use std::sync::Arc;

use crate::capture::fixture::{Fixture, integers};
use crate::capture::source::TwoWay;
use crate::capture::source::{ChangeSource, Error, ReadOutcome};
use crate::codec;
use crate::model::{NodeId, ObjectKind, RowsOp, SchemaKinds, Selection, TableDef, TableId, Value, WindowItem};
use crate::sqlite::{Bind, borrowed};

use RowsOp::{Delete, Exactly, Upsert};

fn selection(tables: &[&str]) -> Arc<Selection> {
    let globs: Vec<String> = tables.iter().map(|glob| (*glob).to_owned()).collect();
    Arc::new(Selection::new(&globs, &[]).expect("globs"))
}

fn text(text: &str) -> Value {
    Value::text(text)
}

#[test]
fn the_entries_of_a_key_become_one_change_as_the_row_is_now() {
    let mut db = Fixture::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
        "INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z'); UPDATE t SET a = 'X' WHERE id = 1;
         DELETE FROM t WHERE id = 2; UPDATE t SET id = 30 WHERE id = 3",
    );
    let said = db.said();
    assert_eq!(said.rows(Upsert), [vec![Value::Integer(1), text("X")], vec![Value::Integer(30), text("z")]]);
    assert_eq!(said.rows(Delete), [integers(&[2]), integers(&[3])]);
    assert_eq!((said.window.changes, said.window.end.last_part), (4, true));
    assert_eq!((said.window.end.to.position.seq, said.window.end.head), (8, 8));
    assert!(matches!(db.read(), ReadOutcome::Nothing { head: 8, .. }));
}

#[test]
fn each_row_says_which_entry_changed_it_and_whose_it_was() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)");
    db.run("UPDATE __cdc_log SET origin = 9, oseq = 400, via = 8, ts = 1234 WHERE seq = 2");
    let said = db.said();
    let local = vec![Value::Integer(1), Value::Integer(1000), Value::Null, Value::Integer(1)];
    assert_eq!(said.with_versions(Upsert), [local.clone(), integers(&[400, 1234, 9, 2])]);
    db.request.after = 0;
    db.request.two_way = Some(TwoWay { peer: NodeId(8), yields: false, windows_before: 0 });
    assert_eq!(db.said().with_versions(Upsert), [local]);
}

/// What a peer wrote and somebody here then wrote again is ours to tell; what it deleted in between is not.
#[test]
fn the_newest_entry_decides_whether_a_change_came_from_the_peer() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2); DELETE FROM t");
    db.run("UPDATE __cdc_log SET via = 8 WHERE seq IN (1, 4)");
    db.request.two_way = Some(TwoWay { peer: NodeId(8), yields: false, windows_before: 0 });
    let said = db.said();
    assert_eq!(said.rows(Delete), [integers(&[1])]);
    assert_eq!((said.window.changes, said.window.end.to.position.seq), (1, 4));
}

/// Of two copies that may cross, the receiver learns by it which of its own pieces the sender had.
#[test]
fn a_window_says_how_many_of_the_peers_were_applied_in_this_session() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)");
    db.run("INSERT INTO __cdc_checkpoints(peer, name, windows) VALUES (8, 'b', 5), (9, 'c', 70)");
    assert_eq!(db.said().window.end.applied, 0, "one way");
    db.request.two_way = Some(TwoWay { peer: NodeId(8), yields: false, windows_before: 3 });
    db.request.after = 0;
    assert_eq!(db.said().window.end.applied, 2);
}

/// P25: one key under two spellings is one change, and the row's own spelling is what travels.
#[test]
fn keys_are_one_where_their_index_says_so() {
    let mut db = Fixture::new(
        "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY); CREATE TABLE n(k PRIMARY KEY)",
        "INSERT INTO t VALUES ('A'); DELETE FROM t; INSERT INTO t VALUES ('a'); INSERT INTO n VALUES (1.0)",
    );
    db.log(2, 1, &[Value::Integer(1)]);
    let said = db.said();
    assert_eq!(said.rows(Upsert), [[Value::Real(1.0)], [text("a")]]);
    assert!(said.rows(Delete).is_empty());
}

/// P24: a key with a NULL in it is whatever rows are that key.
#[test]
fn a_key_with_a_null_says_all_its_rows() {
    let mut db = Fixture::new(
        "CREATE TABLE t(a, b, c, PRIMARY KEY(a, b))",
        "INSERT INTO t VALUES (1, NULL, 'x'), (1, NULL, 'y'), (2, NULL, 'z'), (1, 1, 'w'); DELETE FROM t WHERE a = 2",
    );
    db.request.batch_rows = 1;
    let said = db.said();
    let row = |c: &str| vec![Value::Integer(1), Value::Null, text(c)];
    assert_eq!(said.rows(Exactly), [row("x"), row("y")]);
    let batches = said.items.iter().filter(|item| matches!(item, WindowItem::Rows(rows) if rows.op == Exactly));
    assert_eq!(batches.count(), 1, "all rows of one key stand in one batch");
    assert_eq!(said.rows(Delete), [[Value::Integer(2), Value::Null]]);
    assert_eq!(said.rows(Upsert).len(), 1);
}

/// P1, P5: a touched row that is still there was not displaced, and one that is gone was.
#[test]
fn a_touch_counts_only_where_the_row_is_gone() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)");
    db.request.after = 1;
    for key in [1, 2, 7] {
        db.log(4, 1, &integers(&[key]));
    }
    let said = db.said();
    let seq_and_key = |rows: Vec<Vec<Value>>| rows.into_iter().map(|row| [row[0].clone(), row[3].clone()]).collect();
    let upserts: Vec<[Value; 2]> = seq_and_key(said.with_versions(Upsert));
    assert_eq!(upserts, [[Value::Integer(2), Value::Integer(2)]], "the entry that wrote it, not the touch");
    let deletes: Vec<[Value; 2]> = seq_and_key(said.with_versions(Delete));
    assert_eq!(deletes, [[Value::Integer(5), Value::Integer(7)]]);
    assert_eq!(said.window.changes, 2);
}

#[test]
fn a_window_is_split_where_it_may_be_and_its_parts_go_on_where_the_last_one_ended() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1),(2),(3),(4),(5)");
    db.request.window_rows = Some(2);
    let mut parts = Vec::new();
    loop {
        let said = db.said();
        parts.push((said.rows(Upsert).len(), said.window.end.to.position.seq, said.window.end.head));
        if said.window.end.last_part {
            break;
        }
    }
    assert_eq!(parts, [(2, 2, 5), (2, 4, 5), (1, 5, 5)]);
    (db.request.after, db.request.window_rows) = (0, None);
    assert_eq!(db.said().rows(Upsert).len(), 5);
}

#[test]
fn batches_keep_their_limits_and_a_large_row_travels_alone() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "");
    db.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, zeroblob(5000)), (5, 5)");
    (db.request.batch_rows, db.request.batch_bytes) = (2, 500);
    let sizes = |item: &WindowItem| match item {
        WindowItem::Rows(rows) => Some(rows.batch.rows),
        _ => None,
    };
    assert_eq!(db.said().items.iter().filter_map(sizes).collect::<Vec<_>>(), [2, 1, 1, 1]);
}

#[test]
fn entries_of_other_tables_move_the_position_and_say_nothing() {
    let mut db = Fixture::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE other(id INTEGER PRIMARY KEY)",
        "INSERT INTO other VALUES (1), (2)",
    );
    db.request.selection = selection(&["t"]);
    let said = db.said();
    assert!(said.items.is_empty());
    assert_eq!((said.window.end.to.position.seq, said.window.changes), (2, 0));
}

#[test]
fn entries_of_an_older_generation_are_read_with_the_key_that_they_share() {
    let mut db = Fixture::new("CREATE TABLE t(Id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)");
    db.run("ALTER TABLE t RENAME COLUMN Id TO id; ALTER TABLE t ADD COLUMN a");
    let second = db.recapture("t", 1);
    db.log(6, 1, &[]);
    let said = db.said();
    assert_eq!(said.rows(Upsert), [[Value::Integer(1), Value::Null]]);
    let tables = said.items.iter().filter_map(|item| match item {
        WindowItem::Rows(rows) => Some(rows.table),
        _ => None,
    });
    assert_eq!(tables.collect::<Vec<_>>(), [TableId(second)]);
    assert_eq!(said.window.end.markers, [TableId(second)]);
    db.run("DROP TABLE t; CREATE TABLE t(k TEXT PRIMARY KEY)");
    db.recapture("t", second);
    db.request.after = 0;
    let said = db.said();
    assert!(said.items.is_empty(), "an entry whose key was another says nothing: the table is copied");
    assert_eq!(said.window.end.to.position.seq, 2);
}

#[test]
fn entries_of_a_dropped_table_say_nothing() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)");
    db.run("DROP TABLE t; UPDATE __cdc_tables SET dropped = 1");
    db.settle();
    assert!(db.said().items.is_empty());
}

/// P48: what is read was written under the schema that the window was read with, or nothing is read.
#[test]
fn a_schema_that_moved_is_looked_at_first() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)");
    db.run("CREATE INDEX i ON t(id)");
    assert!(matches!(db.read(), ReadOutcome::SchemaChanged));
    let known = db.request.catalog_known;
    db.settle();
    db.request.catalog_known = known;
    let said = db.said();
    assert!(matches!(said.items[..2], [WindowItem::Catalog, WindowItem::Table(_)]));
    assert_eq!(said.rows(Upsert).len(), 1);
    assert_ne!(Some(said.window.catalog), known);
}

#[test]
fn a_failing_sink_ends_the_read_and_its_transaction() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)");
    let outcome = db.reader.read(&db.request, &mut |_| Err(io::ErrorKind::StorageFull.into()));
    assert!(matches!(outcome, Err(Error::Spool(_))));
    assert!(db.reader.connection.is_autocommit());
    let before = db.reader.data_version().expect("version");
    db.run("INSERT INTO t VALUES (2)");
    assert_ne!(db.reader.data_version().expect("version"), before);
    assert_eq!(db.said().rows(Upsert).len(), 2);
}

#[test]
fn a_database_without_a_log_is_said_to_have_none() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("app.db");
    drop(crate::sqlite::open(&path, crate::sqlite::Role::Maintainer, true).expect("create"));
    let db = Fixture::new("", "");
    let mut reader = super::LogReader::open(&path).expect("reader");
    assert!(matches!(reader.read(&db.request, &mut |_| Ok(())), Err(Error::NotCaptured)));
}

#[test]
fn the_end_recognises_the_entry_that_it_stands_at() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)");
    db.run("PRAGMA user_version = 7; PRAGMA application_id = -3");
    let end = db.said().window.end;
    assert_eq!((end.to.position.epoch.0, end.to.ts_ms), (77, 1000));
    let mut entry = integers(&[1, 1000, 1, 1]);
    // Without the NULLs at its end: a log that is made wider later still knows it.
    entry.extend([Value::Null, Value::Null, Value::Null, Value::Integer(1)]);
    assert_eq!(end.to.fingerprint, codec::fingerprint(entry.iter().map(borrowed)));
    assert_eq!((end.user_version, end.application_id), (Some(7), Some(-3)));
    assert!(end.sequences.is_empty());
}

/// P33, P61: rows that came and went within a window have moved the counter all the same.
#[test]
fn the_counters_of_the_windows_tables_travel_with_it() {
    let mut db = Fixture::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE u(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO t VALUES (41); DELETE FROM t",
    );
    assert_eq!(db.said().window.end.sequences, [("t".to_owned(), 41)]);
}

#[test]
fn every_value_of_every_shape_of_table_comes_back_as_it_was() {
    let mut db = Fixture::new(
        "CREATE TABLE \"we\"\"ird t\"(\"k 1\" TEXT, k2 BLOB, v, PRIMARY KEY(k2, \"k 1\")) WITHOUT ROWID;
         CREATE TABLE strict_t(id INTEGER PRIMARY KEY, a ANY, g INT AS (id * 2) STORED, b REAL) STRICT;
         CREATE TABLE bare(a, b)",
        "INSERT INTO bare(rowid, a, b) VALUES (-5, -9223372036854775808, 9e999), (9, x'', '');
         INSERT INTO strict_t(id, a, b) VALUES (1, '1', 3)",
    );
    let odd = Value::Text(vec![b'a', 0, 0xff, 0xfe]);
    let insert = "INSERT INTO \"we\"\"ird t\" VALUES (?1, x'00ff', ?1)";
    db.writer.execute(insert, [Bind(&odd)]).expect("insert");
    let rows = db.said().rows(Upsert);
    assert_eq!(rows.len(), 4);
    assert!(rows.contains(&vec![odd.clone(), Value::Blob(vec![0, 255]), odd]));
    assert!(rows.contains(&vec![Value::Integer(1), text("1"), Value::Real(3.0)]), "without the generated column");
    assert!(rows.contains(&vec![Value::Integer(-5), Value::Integer(i64::MIN), Value::Real(f64::INFINITY)]));
    assert!(rows.contains(&vec![Value::Integer(9), Value::Blob(vec![]), text("")]));
}

#[test]
fn a_row_of_two_thousand_columns_travels_with_its_rowid() {
    let names: Vec<String> = (0..2_000).map(|place| format!("c{place}")).collect();
    let mut db = Fixture::new(&format!("CREATE TABLE t({})", names.join(", ")), "");
    db.run("INSERT INTO t(c0, c1999) VALUES ('first', 'last')");
    let rows = db.said().rows(Upsert);
    assert_eq!((rows[0].len(), &rows[0][0], &rows[0][1]), (2_001, &Value::Integer(1), &text("first")));
    assert_eq!(rows[0][2_000], text("last"));
}

/// What the catalog says: tables, and the views and triggers in their order.
fn catalog(db: &mut Fixture) -> (Vec<TableDef>, Vec<String>) {
    db.request.catalog_known = None;
    let said = db.said();
    assert_eq!(said.items.first(), Some(&WindowItem::Catalog));
    let (mut tables, mut objects) = (Vec::new(), Vec::new());
    for item in said.items {
        match item {
            WindowItem::Table(table) => tables.push(table),
            WindowItem::Object(object) => objects.push(object.name),
            _ => {}
        }
    }
    assert_eq!(said.window.tables.map(|tables| tables.len()), Some(tables.len()));
    (tables, objects)
}

const RICH: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE other(id INTEGER PRIMARY KEY, a);
    CREATE INDEX i ON t(a); CREATE UNIQUE INDEX u ON t(a, id);
    CREATE VIEW z_first AS SELECT a FROM t; CREATE VIEW a_second AS SELECT a FROM z_first;
    CREATE VIEW both_tables AS SELECT t.a FROM t JOIN other USING (id); CREATE VIEW broken AS SELECT * FROM missing;
    CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET a = 'other' WHERE id = NEW.id; END;
    CREATE TRIGGER across AFTER INSERT ON t BEGIN DELETE FROM Other; END;
    CREATE TRIGGER on_view INSTEAD OF INSERT ON z_first BEGIN INSERT INTO t(a) VALUES (NEW.a); END;
    CREATE VIRTUAL TABLE f USING fts5(x);";

/// P31, P32: virtual tables and their shadows stay; views and triggers travel after what they need.
#[test]
fn the_catalog_says_everything_that_the_link_has() {
    let mut db = Fixture::new(RICH, "INSERT INTO other VALUES (1, 1), (900, 2)");
    let (tables, objects) = catalog(&mut db);
    assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["other", "t"]);
    assert_eq!(tables.iter().map(|table| table.rows_estimate).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(tables[1].indexes.iter().map(|index| index.name.as_str()).collect::<Vec<_>>(), ["i", "u"]);
    assert!(!tables[1].arrow_schema.is_empty() && tables[1].ddl.starts_with("CREATE TABLE"));
    assert_eq!(objects, ["z_first", "both_tables", "a_second", "g", "across", "on_view"]);
}

#[test]
fn what_needs_a_table_that_the_link_does_not_carry_stays() {
    let mut db = Fixture::new(RICH, "");
    db.request.selection = selection(&["T"]);
    db.request.kinds = SchemaKinds { indexes: false, views: true, triggers: true };
    let (tables, objects) = catalog(&mut db);
    assert_eq!(tables.len(), 1);
    assert_eq!(
        tables[0].indexes.iter().map(|index| (index.kind, index.name.as_str())).collect::<Vec<_>>(),
        [(ObjectKind::Index, "u")]
    );
    assert_eq!(objects, ["z_first", "a_second", "g", "on_view"]);
    db.request.kinds = SchemaKinds { indexes: false, views: false, triggers: true };
    assert_eq!(catalog(&mut db).1, ["g"], "a trigger needs the view that it is on");
}

#[test]
fn a_table_names_the_generations_before_it_and_estimates_its_rows_without_counting() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "");
    db.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i FROM n",
    );
    db.run("ALTER TABLE t RENAME TO renamed");
    let second = db.recapture("renamed", 1);
    let third = db.recapture("renamed", second);
    let (tables, _) = catalog(&mut db);
    assert_eq!((tables[0].id, tables[0].name.as_str()), (TableId(third), "renamed"));
    assert_eq!(tables[0].ancestors, [TableId(second), TableId(1)]);
    assert_eq!(tables[0].rows_estimate, 3_000);
}

/// The reader counted the NULLs at an entry's end and the judge did not, so that a restart after a window which ended
/// with an entry of our own, or of a table with a narrow key, halted the link as diverged.
#[test]
fn the_log_recognises_what_it_said() {
    let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)");
    for widened in [false, true] {
        let to = db.said().window.end.to;
        if widened {
            db.run("ALTER TABLE __cdc_log ADD COLUMN k2");
        }
        let verdict = crate::capture::judge_checkpoint(&db.writer, &to).expect("judge");
        assert_eq!(verdict, crate::capture::CheckpointVerdict::Known);
        db.run("INSERT INTO __cdc_log(ts, tbl, op) VALUES (7, 0, 5)");
    }
}

/// A log that was pruned past what a slow link had read, or that was restored while the link ran, was read on as if
/// nothing were missing.
#[test]
fn a_log_that_does_not_go_on_where_the_link_had_got_to_is_not_read() {
    for gone in [
        "DELETE FROM __cdc_log WHERE seq <= 3",
        "UPDATE __cdc_log SET ts = 9 WHERE seq = 3",
        "DELETE FROM __cdc_log WHERE seq > 2",
    ] {
        let mut db = Fixture::new("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)");
        let to = db.said().window.end.to;
        db.request.mark = Some((to.ts_ms, to.fingerprint));
        assert!(matches!(db.read(), ReadOutcome::Nothing { head: 3, .. }));
        db.run("INSERT INTO t VALUES (4), (5)");
        db.run(gone);
        let error = db.reader.read(&db.request, &mut |_| Ok(())).expect_err(gone);
        assert_eq!((error.word(), error.fault()), ("position_gone", crate::model::Fault::Retry));
    }
}

/// Which texts are one NOCASE or RTRIM key is for SQLite to say, also where they hold a NUL.
#[test]
fn keys_are_one_exactly_where_sqlite_says_so() {
    use crate::model::{Collation, Key};
    let alphabet = ["", "a", "A", "b", " ", "\0", "Ä"];
    let mut texts: Vec<String> = vec![String::new()];
    for _ in 0..3 {
        texts = texts.iter().flat_map(|text| alphabet.map(|letter| format!("{text}{letter}"))).collect();
    }
    texts.sort();
    texts.dedup();
    let db = crate::sqlite::in_memory().expect("memory");
    for collation in [Collation::Binary, Collation::NoCase, Collation::RTrim] {
        let mut equal = db.prepare(&format!("SELECT ?1 = ?2 COLLATE {}", collation.sql())).expect("prepare");
        for a in &texts {
            for b in &texts {
                let normal = |text: &str| Key(vec![Value::text(text)]).normal(&[collation]);
                let expected: bool = equal.query_row((a, b), |row| row.get(0)).expect("compare");
                assert_eq!(normal(a) == normal(b), expected, "{a:?} {b:?} {collation:?}");
            }
        }
    }
}

#[test]
fn a_view_that_uses_a_name_of_ours_is_held_back_and_named() {
    let mut db = Fixture::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE VIEW v AS SELECT id AS __cdc_id FROM t;
         CREATE VIEW w AS SELECT '__cdc_' AS id FROM t; CREATE VIEW x AS SELECT * FROM v;
         CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1 AS __cdc_b; END",
        "",
    );
    db.request.catalog_known = None;
    let said = db.said();
    let objects = said.items.iter().filter_map(|item| match item {
        WindowItem::Object(object) => Some(object.name.as_str()),
        _ => None,
    });
    assert_eq!(objects.collect::<Vec<_>>(), ["w"]);
    assert_eq!(said.window.held_back, ["view \"v\"", "view \"x\"", "trigger \"g\""]);
}

#[test]
fn a_window_holds_no_more_keys_than_memory_may() {
    let mut db = Fixture::new("CREATE TABLE t(k PRIMARY KEY)", "");
    db.run(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 6)
         INSERT INTO __cdc_log(ts, op, tbl, k0) SELECT 5, 3, 1, CAST(i || zeroblob(16000000) AS BLOB) FROM n",
    );
    let mut ends = Vec::new();
    while let ReadOutcome::Window(_) = db.read() {
        ends.push(db.said().window.end.to.position.seq);
    }
    assert!(ends.len() == 2 && ends[0] < 6 && ends[1] == 6, "{ends:?}");
}

/// One that may not be split, for the peer judges it whole.
#[test]
fn a_window_of_more_keys_than_may_be_held_is_read_in_parts_and_says_the_same() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY, v)";
    let mut db = Fixture::new(ddl, "");
    db.run(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) INSERT INTO t SELECT i, i FROM n;
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100) INSERT INTO n SELECT 'k' || i, i FROM n;
         UPDATE n SET k = upper(k), v = v + 1 WHERE v % 3 = 0; DELETE FROM t WHERE id % 5 = 0; UPDATE t SET v = 0 WHERE id < 9",
    );
    db.log(6, 1, &[]);
    db.request.window_rows = None;
    let mut say = |held_max| {
        (db.reader.keys_held_max, db.request.after) = (held_max, 0);
        let said = db.said();
        let kinds = [Upsert, Delete].map(|op| {
            let mut rows: Vec<String> = said.with_versions(op).iter().map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        });
        (kinds, said.window.end, said.window.changes, said.window.first_ts_ms)
    };
    let whole = say(1_000);
    assert_eq!((whole.0[0].len(), whole.0[1].len(), whole.1.markers.len()), (260, 40, 1));
    for held_max in [299, 40, 1] {
        assert_eq!(say(held_max), whole, "{held_max} keys held");
    }
}
