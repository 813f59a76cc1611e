//! What is found is what SQLite's own check says; what is repaired is forgotten.

use super::*;

fn place(ddl: &str) -> (tempfile::TempDir, Connection, ForeignKeys) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.db");
    let conn = sqlite::open(&path, Role::Application, true).expect("open");
    conn.execute_batch("PRAGMA journal_mode = WAL").expect("WAL");
    store::ensure_node(&conn).expect("tables");
    conn.execute_batch(ddl).expect("ddl");
    let keys = ForeignKeys::open(&path).expect("open");
    (folder, conn, keys)
}

fn touch(conn: &Connection, tables: &[&str]) {
    mark_due(conn, tables.iter().map(|table| (*table).to_owned()).collect()).expect("due");
}

fn look(keys: &mut ForeignKeys) -> Looked {
    keys.look(1).expect("look").expect("no copy runs")
}

const DDL: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, code TEXT COLLATE NOCASE UNIQUE, n NUMERIC UNIQUE);
    CREATE TABLE pair(a, b TEXT, PRIMARY KEY(b, a));
    CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p, code REFERENCES p(code), n REFERENCES p(n),
      a, b, up REFERENCES c(id), FOREIGN KEY(b, a) REFERENCES pair);
    CREATE TABLE w(x TEXT PRIMARY KEY, p INT REFERENCES p(id), gone REFERENCES nowhere(id)) WITHOUT ROWID;
    CREATE TABLE bare(p REFERENCES p);
    INSERT INTO p VALUES (1, 'ab', 5), (2, '07', 6.5); INSERT INTO pair VALUES (1, '2');
    INSERT INTO c(id, p) VALUES (1, 1), (2, '1'), (3, 9), (4, NULL), (5, x'31');
    INSERT INTO c(id, code) VALUES (11, 'AB'), (12, 7), (13, '07'), (14, 'x');
    INSERT INTO c(id, n) VALUES (21, '5'), (22, 5.0), (23, '6.50'), (24, 7);
    INSERT INTO c(id, a, b) VALUES (31, 1, 2), (32, '1', '2'), (33, 1, NULL), (34, 3, 2);
    INSERT INTO c(id, up) VALUES (41, 41), (42, 1), (43, 99);
    INSERT INTO w VALUES ('ok', 2, NULL), ('bad', 3, NULL), ('lost', NULL, 1);
    INSERT INTO bare VALUES (1), (8)";

#[test]
fn rows_are_found_as_sqlites_own_check_finds_them() {
    let (_folder, conn, mut keys) = place(DDL);
    touch(&conn, &["p", "pair", "c", "nowhere"]);
    let found: BTreeSet<(String, String, String)> =
        look(&mut keys).broken.into_iter().map(|row| (row.table, row.key, row.refers_to)).collect();
    let mut statement = conn.prepare("PRAGMA foreign_key_check").expect("check");
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, String>(2)?))
    };
    let checked = statement.query_map([], read).expect("check").collect::<rusqlite::Result<Vec<_>>>().expect("check");
    let wanted: BTreeSet<(String, String, String)> = checked
        .into_iter()
        .map(|(table, rowid, parent)| {
            let without_rowid = if parent == "p" { "('bad')" } else { "('lost')" };
            let key = rowid.map_or_else(|| without_rowid.to_owned(), |rowid| format!("({rowid})"));
            (table, key, parent)
        })
        .collect();
    assert!(wanted.len() >= 8, "{wanted:?}");
    assert_eq!(found, wanted);
}

#[test]
fn only_what_a_window_touched_is_read_and_what_is_repaired_is_forgotten() {
    let (_folder, conn, mut keys) = place(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p);
         CREATE TABLE d(id INTEGER PRIMARY KEY, c REFERENCES c);
         INSERT INTO c VALUES (1, 7), (2, 7), (3, NULL); INSERT INTO d VALUES (1, 9);",
    );
    assert_eq!(look(&mut keys), Looked::default(), "no window came");
    touch(&conn, &["p"]);
    let looked = look(&mut keys);
    assert_eq!((looked.appeared, looked.broken.len()), (2, 2), "{looked:?}");
    assert_eq!(looked.broken[0], Broken { table: "c".into(), key: "(1)".into(), refers_to: "p".into() });
    touch(&conn, &["c"]);
    assert_eq!(look(&mut keys).appeared, 1, "what is recorded is not recorded again");
    conn.execute_batch("DELETE FROM c WHERE id = 1").expect("delete");
    let looked = look(&mut keys);
    assert_eq!((looked.repaired, looked.broken.len()), (1, 2), "without a window, too: {looked:?}");
    conn.execute_batch("INSERT INTO p VALUES (7); UPDATE d SET c = 2").expect("repair");
    assert_eq!((look(&mut keys).repaired, broken(&conn).expect("read").len()), (2, 0));
    touch(&conn, &["p"]);
    conn.execute_batch("DROP TABLE c").expect("drop");
    look(&mut keys);
    assert_eq!(due(&conn).expect("due"), BTreeSet::new());
}

#[test]
fn a_copy_that_runs_is_waited_for() {
    let (_folder, conn, mut keys) =
        place("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p); INSERT INTO c VALUES (1)");
    touch(&conn, &["c"]);
    conn.execute_batch("INSERT INTO __cdc_copies(peer, id, name, state) VALUES (7, 1, 'p', 'copying')").expect("copy");
    assert_eq!(keys.look(1).expect("look"), None);
    conn.execute_batch("UPDATE __cdc_copies SET state = 'done'").expect("done");
    assert_eq!(look(&mut keys).broken.len(), 1);
}

#[test]
fn a_table_that_takes_too_long_is_named_and_left() {
    let (_folder, conn, mut keys) = place(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p); INSERT INTO p VALUES (1);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO c SELECT 1 FROM n",
    );
    keys.look_max = Duration::ZERO;
    touch(&conn, &["c"]);
    let looked = look(&mut keys);
    assert_eq!((looked.too_large, looked.broken, looked.whole), (vec!["c".to_owned()], vec![], vec![]));
    // What was said of it is over as soon as it can be read.
    keys.look_max = LOOK_MAX;
    touch(&conn, &["c"]);
    let looked = look(&mut keys);
    assert_eq!((looked.too_large, looked.whole), (vec![], vec!["c".to_owned()]));
}
