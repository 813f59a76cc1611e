//! A loser wins, on a database that captures; `tests/it/conflicts.rs` has it replicated.

use super::*;
use crate::sqlite::Role;
use crate::sqlite::store::meta_key;

/// A database whose tables `t` and `other` are captured as far as these tests look: each write of them leaves an entry.
struct Place {
    conn: Connection,
    _folder: tempfile::TempDir,
}

impl Place {
    fn new(ddl: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let conn = sqlite::open(&folder.path().join("a.db"), Role::Application, true).expect("open");
        store::ensure_node(&conn).expect("tables");
        store::set_meta(&conn, meta_key::EPOCH, 1).expect("epoch");
        store::set_meta(&conn, meta_key::LOG_TABLE, "__cdc_log").expect("log");
        let log = "CREATE TABLE other(id INTEGER PRIMARY KEY); CREATE TABLE __cdc_log(seq INTEGER PRIMARY KEY, tbl)";
        conn.execute_batch(store::CAPTURE_TABLES).expect("tables");
        conn.execute_batch(&format!("{log}; {ddl}")).expect("ddl");
        for (id, table) in [(1, "t"), (2, "other")] {
            let generation =
                "INSERT INTO __cdc_tables(id, name, columns, key, ddl, indexes) VALUES (?1, ?2, '', '', '', '')";
            conn.execute(generation, (id, table)).expect("generation");
            for (kind, event) in [("ai", "INSERT"), ("au", "UPDATE"), ("ad", "DELETE")] {
                conn.execute_batch(&format!(
                    "CREATE TRIGGER __cdc_{id}_{kind} AFTER {event} ON {table}
                     BEGIN INSERT INTO __cdc_log(tbl) VALUES ({id}); END"
                ))
                .expect("trigger");
            }
        }
        Self { conn, _folder: folder }
    }

    fn record(&self, key: &[Value], loser: Option<&[Value]>, columns: &str) -> i64 {
        let sql = "INSERT INTO __cdc_conflicts(at, peer, tbl, key, winner, policy, why, loser, columns)
                   VALUES (1, 7, 't', ?1, 'local', 'last_write_wins', 'concurrent', ?2, ?3)";
        let loser = loser.map(|row| Key(row.to_vec()).to_bytes());
        self.conn.execute(sql, (Key(key.to_vec()).to_bytes(), loser, columns)).expect("record");
        self.conn.last_insert_rowid()
    }

    /// Makes the table anew, as a migration does; what captured it is made anew too.
    fn rebuild(&self, ddl: &str) {
        let mut found = self.conn.prepare("SELECT sql FROM sqlite_schema WHERE tbl_name = 't' AND type = 'trigger'");
        let found = found.as_mut().expect("prepare").query_map([], |row| row.get::<_, String>(0)).expect("triggers");
        let triggers: Vec<String> = found.collect::<rusqlite::Result<_>>().expect("triggers");
        self.conn.execute_batch(&format!("DROP TABLE t; {ddl}; {}", triggers.join(";"))).expect("rebuild");
    }

    fn rows(&self) -> Vec<String> {
        let mut statement = self.conn.prepare("SELECT * FROM t ORDER BY 1, 2").expect("select");
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let values = (0..columns).map(|place| Ok(value_of(row.get_ref(place)?)));
            Ok(Key(values.collect::<rusqlite::Result<_>>()?).shown())
        };
        statement.query_map([], row).expect("rows").collect::<rusqlite::Result<_>>().expect("rows")
    }

    fn left(&self) -> u64 {
        read::count(&self.conn).expect("count")
    }
}

fn int(value: i64) -> Value {
    Value::Integer(value)
}

#[test]
fn a_losing_row_is_updated_or_inserted_and_its_record_goes() {
    let mut place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v, added DEFAULT 'd')");
    place.conn.execute_batch("INSERT INTO t VALUES (1, 'x', 'mine')").expect("insert");
    let columns = r#"["id","v"]"#;
    let there = place.record(&[int(1)], Some(&[int(1), Value::text("lost")]), columns);
    let gone = place.record(&[int(2)], Some(&[int(2), Value::Blob(vec![0, 255])]), columns);
    apply(&mut place.conn, there).expect("apply");
    apply(&mut place.conn, gone).expect("apply");
    assert_eq!(place.rows(), ["(1, 'lost', 'mine')", "(2, x'00ff', 'd')"]);
    assert_eq!(place.left(), 0);
    assert!(matches!(apply(&mut place.conn, there), Err(Error::Unknown { .. })), "it was settled");
}

#[test]
fn keys_of_every_shape_find_their_row() {
    let text = Value::text;
    for (ddl, before, (of_key, key), row, columns, wanted) in [
        (
            "CREATE TABLE t(a, b)",
            "INSERT INTO t(rowid, a) VALUES (7, 1)",
            (r#"["_rowid_"]"#, vec![int(7)]),
            vec![int(7), int(2), int(3)],
            r#"["_rowid_","a","b"]"#,
            "(2, 3)",
        ),
        (
            "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
            "INSERT INTO t VALUES ('Ab', 1)",
            (r#"["K"]"#, vec![text("AB")]),
            vec![text("aB"), int(2)],
            r#"["k","v"]"#,
            "('aB', 2)",
        ),
        (
            "CREATE TABLE t(a, b, v, PRIMARY KEY(b, a)) WITHOUT ROWID",
            "INSERT INTO t VALUES (1, 2, 3)",
            (r#"["b","a"]"#, vec![int(2), int(1)]),
            vec![int(1), int(2), int(9)],
            r#"["a","b","v"]"#,
            "(1, 2, 9)",
        ),
    ] {
        let mut place = Place::new(ddl);
        place.conn.execute_batch(before).expect("insert");
        let id = place.record(&key, Some(&row), columns);
        apply(&mut place.conn, id).unwrap_or_else(|error| panic!("{ddl}: {error}"));
        assert_eq!(place.rows(), [wanted], "{ddl}");
        let id = place.record(&key, None, of_key);
        apply(&mut place.conn, id).unwrap_or_else(|error| panic!("{ddl}: {error}"));
        assert!(place.rows().is_empty(), "{ddl}");
        let id = place.record(&key, None, of_key);
        assert!(apply(&mut place.conn, id).expect("apply").contains("gone already"), "{ddl}");
    }
}

#[test]
fn what_stands_in_the_way_is_said_and_nothing_is_changed() {
    let mut place = Place::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, w CHECK (w > 0)); CREATE UNIQUE INDEX tw ON t(abs(w)) WHERE w <> 5",
    );
    place.conn.execute_batch("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 5)").expect("insert");
    let before = place.rows();
    let columns = r#"["id","u","w"]"#;
    let row = |id, u: &str, w| vec![int(id), Value::text(u), int(w)];
    for (key, row, columns, wanted) in [
        (1, row(1, "b", 7), columns, "key (1): the row with key (2) holds a unique value"),
        (9, row(9, "b", 5), columns, "key (9): the row with key (2) holds a unique value"),
        (9, row(9, "z", 2), columns, "key (9): the row with key (2) holds a unique value"),
        (9, row(9, "z", -7), columns, "write table \"t\", key (9)"),
        (1, row(1, "z", 7), r#"["id","gone","w"]"#, "no column \"gone\""),
    ] {
        let id = place.record(&[int(key)], Some(&row), columns);
        let error = apply(&mut place.conn, id).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
        assert_eq!((place.rows(), place.left()), (before.clone(), 1), "{wanted}");
        drop_some(&mut place.conn, &[id, id]).expect("drop");
    }
    for names in [r#"["id","u"]"#, r#"["id"]"#] {
        let other_key = place.record(&[int(1), int(2)], None, names);
        assert!(matches!(apply(&mut place.conn, other_key), Err(Error::KeyChanged { .. })));
        drop_some(&mut place.conn, &[other_key]).expect("drop");
    }
    let id = place.record(&[int(1)], Some(&row(1, "a", 8)), columns);
    place.conn.execute_batch("DROP TRIGGER __cdc_1_au").expect("drop");
    assert!(matches!(apply(&mut place.conn, id), Err(Error::NotCaptured { .. })));
    assert_eq!(place.rows(), before);
    place.conn.execute_batch("DROP TABLE t").expect("drop");
    assert!(matches!(apply(&mut place.conn, id), Err(Error::TableGone { .. })));
    assert!(matches!(drop_some(&mut place.conn, &[id, 77]), Err(Error::Unknown { id: 77 })));
    assert_eq!(drop_all(&mut place.conn).expect("drop"), 1, "none was dropped with the one that is not there");
}

/// A key of one column found the row that the key of another column names now, and overwrote or deleted that.
#[test]
fn a_key_that_means_another_row_by_now_is_refused() {
    let by_id = "CREATE TABLE t(id INTEGER PRIMARY KEY, n)";
    for (was, then, columns, key, row) in [
        (by_id, "CREATE TABLE t(id, n INTEGER PRIMARY KEY)", r#"["id","n"]"#, r#"["id"]"#, vec![int(1), int(2)]),
        (by_id, "CREATE TABLE t(id, n)", r#"["id","n"]"#, r#"["id"]"#, vec![int(1), int(2)]),
        ("CREATE TABLE t(id, n)", by_id, r#"["_rowid_","id","n"]"#, r#"["_rowid_"]"#, vec![int(1), int(5), int(6)]),
        (
            "CREATE TABLE t(id, n, PRIMARY KEY(id, n))",
            "CREATE TABLE t(id, n, PRIMARY KEY(n, id))",
            r#"["id","n"]"#,
            r#"["id","n"]"#,
            vec![int(1), int(2)],
        ),
    ] {
        let mut place = Place::new(was);
        let lost: Vec<Value> = if key.contains(',') { vec![int(1), int(2)] } else { vec![int(1)] };
        let ids = [place.record(&lost, Some(&row), columns), place.record(&lost, None, key)];
        place.rebuild(then);
        place.conn.execute_batch("INSERT INTO t(rowid, id, n) VALUES (1, 1, 1), (2, 2, 2)").unwrap_or_else(|_| {
            place.conn.execute_batch("INSERT INTO t VALUES (1, 1), (2, 1)").expect("insert");
        });
        let before = place.rows();
        for id in ids {
            let error = apply(&mut place.conn, id).expect_err(then);
            assert!(matches!(error, Error::KeyChanged { .. } | Error::ColumnGone { .. }), "{then}: {error}");
        }
        assert_eq!((place.rows(), place.left()), (before, 2), "{then}");
    }
}

/// It was said to have won, and the record was gone, though nothing had been written.
#[test]
fn what_a_trigger_ignores_has_not_won() {
    let mut place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    place.conn.execute_batch("INSERT INTO t VALUES (1, 'x')").expect("insert");
    for event in ["INSERT", "UPDATE", "DELETE"] {
        let sql = format!("CREATE TRIGGER no_{event} BEFORE {event} ON t BEGIN SELECT RAISE(IGNORE); END");
        place.conn.execute_batch(&sql).expect("trigger");
    }
    for (key, loser) in [(1, Some([int(1), int(9)])), (2, Some([int(2), int(9)])), (1, None)] {
        let columns = if loser.is_some() { r#"["id","v"]"# } else { r#"["id"]"# };
        let id = place.record(&[int(key)], loser.as_ref().map(<[Value; 2]>::as_slice), columns);
        let error = apply(&mut place.conn, id).expect_err("it is ignored");
        assert!(matches!(error, Error::Ignored { .. }), "{key}: {error}");
    }
    assert_eq!((place.rows(), place.left()), (vec!["(1, 'x')".to_owned()], 3));
}

/// A trigger's entry of another table passed for one of the row.
#[test]
fn a_row_that_only_its_triggers_log_is_taken_back() {
    let mut place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    place
        .conn
        .execute_batch(
            "DROP TRIGGER __cdc_1_ai; CREATE TRIGGER mine AFTER INSERT ON t BEGIN INSERT INTO other VALUES (NULL); END",
        )
        .expect("triggers");
    let id = place.record(&[int(1)], Some(&[int(1), int(2)]), r#"["id","v"]"#);
    assert!(matches!(apply(&mut place.conn, id), Err(Error::NotCaptured { .. })));
    assert_eq!((place.rows().len(), place.left()), (0, 1));
}

/// What a table declares ON CONFLICT replaced another row unseen, or left the loser out and called it the winner.
#[test]
fn no_row_gives_way_whatever_the_table_declares() {
    for clause in ["REPLACE", "IGNORE", "FAIL", "ROLLBACK"] {
        let ddl = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT {clause})");
        let mut place = Place::new(&ddl);
        place.conn.execute_batch("INSERT INTO t VALUES (1, 'a'), (2, 'b')").expect("insert");
        let before = place.rows();
        for key in [1, 9] {
            let id = place.record(&[int(key)], Some(&[int(key), Value::text("b")]), r#"["id","u"]"#);
            let said = apply(&mut place.conn, id).expect_err(clause).to_string();
            assert!(said.contains("the row with key (2) holds"), "{clause}: {said}");
        }
        assert_eq!((place.rows(), place.left()), (before, 2), "{clause}");
    }
}

#[test]
fn a_record_that_is_damaged_says_how_to_be_rid_of_it() {
    let mut place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let id = place.record(&[int(1)], Some(&[int(1), int(2)]), r#"["id","v"]"#);
    for damage in ["key = x'09'", "key = x'0300000000000000ff41'", "columns = 'id'", "columns = '[]'"] {
        let sql = format!("SAVEPOINT damage; UPDATE __cdc_conflicts SET {damage}");
        place.conn.execute_batch(&sql).expect("damage");
        let said = read::get(&place.conn, id).expect_err(damage).to_string();
        assert!(said.contains("twinlite conflicts drop"), "{damage}: {said}");
        place.conn.execute_batch("ROLLBACK TO damage; RELEASE damage").expect("undo");
    }
    apply(&mut place.conn, id).expect("it is whole again");
}

#[test]
fn a_page_is_bounded_by_records_and_by_bytes_and_none_is_left_out() {
    let place = Place::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    place.conn.execute_batch("BEGIN").expect("begin");
    for key in 0..2_500 {
        let bytes = if key < 1_200 { 0 } else { 10_000 };
        place.record(&[int(key)], Some(&[int(key), Value::Blob(vec![1; bytes])]), r#"["id","v"]"#);
    }
    place.conn.execute_batch("COMMIT; DELETE FROM __cdc_conflicts WHERE id % 7 = 0").expect("commit");
    let (mut after, mut ids, mut sizes) = (None, Vec::new(), Vec::new());
    loop {
        let page = read::page(&place.conn, after).expect("page");
        let Some(last) = page.last() else { break };
        after = Some(last.summary.id);
        ids.extend(page.iter().map(|found| found.summary.id));
        sizes.push(page.len());
    }
    assert_eq!(ids, (1..=2_500).filter(|id| id % 7 != 0).collect::<Vec<i64>>());
    assert_eq!(sizes[0], 1_000);
    assert!(sizes[1..].iter().all(|size| *size < 500), "4 MiB at a time: {sizes:?}");
}

#[test]
fn values_keep_their_class_and_bits_and_generated_columns_are_computed() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v ANY, g TEXT AS (typeof(v)) STORED UNIQUE) STRICT";
    let mut place = Place::new(ddl);
    let values = [
        (Value::Real(f64::NEG_INFINITY), "real"),
        (Value::Text(vec![b'a', 0, 0xff]), "text"),
        (Value::Blob(vec![7; 2 << 20]), "blob"),
        (Value::Integer(i64::MIN), "integer"),
        (Value::Null, "null"),
    ];
    for (key, (value, class)) in (1..).zip(&values) {
        let id = place.record(&[int(key)], Some(&[int(key), value.clone()]), r#"["id","v"]"#);
        apply(&mut place.conn, id).expect(class);
        let read = |row: &rusqlite::Row<'_>| Ok((value_of(row.get_ref(0)?), row.get::<_, String>(1)?));
        let found = place.conn.query_row("SELECT v, g FROM t WHERE id = ?1", [key], read).expect("row");
        assert_eq!(found, (value.clone(), (*class).to_owned()));
    }
    let before = place.rows();
    let id = place.record(&[int(9)], Some(&[int(9), Value::Real(0.5)]), r#"["id","v"]"#);
    let said = apply(&mut place.conn, id).expect_err("a generated column is unique").to_string();
    assert!(said.contains("the row with key (1) holds"), "{said}");
    assert_eq!(place.rows(), before);
}

#[test]
fn of_a_key_with_null_a_row_is_added_and_a_deletion_takes_them_all() {
    let mut place = Place::new("CREATE TABLE t(k TEXT PRIMARY KEY, v)");
    place.conn.execute_batch("INSERT INTO t VALUES (NULL, 1), ('k', 1)").expect("insert");
    let id = place.record(&[Value::Null], Some(&[Value::Null, int(2)]), r#"["k","v"]"#);
    apply(&mut place.conn, id).expect("apply");
    assert_eq!(place.rows(), ["(NULL, 1)", "(NULL, 2)", "('k', 1)"]);
    let id = place.record(&[Value::Null], None, r#"["k"]"#);
    apply(&mut place.conn, id).expect("apply");
    assert_eq!(place.rows(), ["('k', 1)"]);
}
