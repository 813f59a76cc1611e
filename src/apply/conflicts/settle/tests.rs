//! A loser wins, on a database that captures; `tests/it/conflicts.rs` has it replicated.

use super::*;
use crate::sqlite::Role;
use crate::sqlite::store::meta_key;

/// A database whose table `t` is captured as far as these tests look: each write of it leaves an entry.
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
        conn.execute_batch(ddl).expect("ddl");
        conn.execute_batch(
            "CREATE TABLE __cdc_log(seq INTEGER PRIMARY KEY);
             CREATE TRIGGER __cdc_1_ai AFTER INSERT ON t BEGIN INSERT INTO __cdc_log VALUES (NULL); END;
             CREATE TRIGGER __cdc_1_au AFTER UPDATE ON t BEGIN INSERT INTO __cdc_log VALUES (NULL); END;
             CREATE TRIGGER __cdc_1_ad AFTER DELETE ON t BEGIN INSERT INTO __cdc_log VALUES (NULL); END;",
        )
        .expect("triggers");
        Self { conn, _folder: folder }
    }

    fn record(&self, key: &[Value], loser: Option<&[Value]>, columns: &str) -> i64 {
        let sql = "INSERT INTO __cdc_conflicts(at, peer, tbl, key, winner, policy, why, loser, columns)
                   VALUES (1, 7, 't', ?1, 'local', 'last_write_wins', 'concurrent', ?2, ?3)";
        let loser = loser.map(|row| Key(row.to_vec()).to_bytes());
        self.conn.execute(sql, (Key(key.to_vec()).to_bytes(), loser, columns)).expect("record");
        self.conn.last_insert_rowid()
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
    for (ddl, before, key, row, columns, wanted) in [
        (
            "CREATE TABLE t(a, b)",
            "INSERT INTO t(rowid, a) VALUES (7, 1)",
            vec![int(7)],
            vec![int(7), int(2), int(3)],
            r#"["_rowid_","a","b"]"#,
            "(2, 3)",
        ),
        (
            "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
            "INSERT INTO t VALUES ('Ab', 1)",
            vec![text("aB")],
            vec![text("aB"), int(2)],
            r#"["k","v"]"#,
            "('aB', 2)",
        ),
        (
            "CREATE TABLE t(a, b, v, PRIMARY KEY(b, a)) WITHOUT ROWID",
            "INSERT INTO t VALUES (1, 2, 3)",
            vec![int(2), int(1)],
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
        let id = place.record(&key, None, columns);
        apply(&mut place.conn, id).unwrap_or_else(|error| panic!("{ddl}: {error}"));
        assert!(place.rows().is_empty(), "{ddl}");
        let id = place.record(&key, None, columns);
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
    let other_key = place.record(&[int(1), int(2)], None, columns);
    assert!(matches!(apply(&mut place.conn, other_key), Err(Error::KeyChanged { .. })));
    let id = place.record(&[int(1)], Some(&row(1, "a", 8)), columns);
    place.conn.execute_batch("DROP TRIGGER __cdc_1_au").expect("drop");
    assert!(matches!(apply(&mut place.conn, id), Err(Error::NotCaptured { .. })));
    assert_eq!(place.rows(), before);
    place.conn.execute_batch("DROP TABLE t").expect("drop");
    assert!(matches!(apply(&mut place.conn, id), Err(Error::TableGone { .. })));
    assert!(matches!(drop_some(&mut place.conn, &[id, 77]), Err(Error::Unknown { id: 77 })));
    assert_eq!(drop_all(&mut place.conn).expect("drop"), 2, "none was dropped with the one that is not there");
}
