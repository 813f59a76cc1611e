//! Schema changes of the application, in the middle of its writes: the replica ends equal with no operator action.
//!
//! Each case is a schema, and what a migration does to it. Each runs twice: while the program replicates, and while
//! nobody does.

use rusqlite::Connection;

use crate::support::{
    Place, each_case, open,
    oracle::{Oracle, assert_equal, quoted},
    process::{Process, expect_code, expect_failure, quiesce, replicate_once, status, windows_applied},
    shop::rebuild,
    wait::until,
};

/// A schema with rows in it, over which every case runs.
const SCHEMA: &str = "
CREATE TABLE a(id INTEGER PRIMARY KEY, name TEXT, n INT, extra);
CREATE UNIQUE INDEX a_name ON a(name);
CREATE INDEX a_n ON a(n);
CREATE TABLE b(k TEXT PRIMARY KEY COLLATE NOCASE, a_id REFERENCES a(id), v NUMERIC) WITHOUT ROWID;
CREATE TABLE bare(x, y);
CREATE VIEW named AS SELECT name FROM a;
CREATE TABLE notes(id INTEGER PRIMARY KEY, t);
CREATE TRIGGER note AFTER INSERT ON a BEGIN INSERT INTO notes(t) VALUES (NEW.name); END;
INSERT INTO a VALUES (1, 'one', 10, NULL), (2, 'two', 20, 'x'), (3, 'three', 30, x'00');
INSERT INTO b VALUES ('p', 1, 1.5), ('q', 2, 2);
INSERT INTO bare VALUES (1, 1), (2, 2), (2, 2);
";

/// What an application writes before and after, whatever the columns are called by then.
fn write(conn: &Connection, round: i64) {
    for sql in [
        format!("INSERT INTO a(id, name) VALUES ({}, 'name {round}')", 100 + round),
        format!("INSERT OR REPLACE INTO a(id, name) VALUES ({}, 'two')", 200 + round),
        format!("UPDATE a SET n = n + {round}"),
        format!("INSERT OR REPLACE INTO b(k) VALUES ('P'), ('r{round}')"),
        "DELETE FROM bare WHERE rowid = (SELECT min(rowid) FROM bare)".to_owned(),
        format!("INSERT INTO bare(x) VALUES ({round})"),
    ] {
        // A case may have taken the table or the column away.
        let _ = conn.execute_batch(&sql);
    }
}

const MIGRATIONS: &[(&str, &str)] = &[
    ("add a column", "ALTER TABLE a ADD COLUMN c"),
    ("add a column with a default", "ALTER TABLE a ADD COLUMN c TEXT DEFAULT 'd'"),
    ("add a NOT NULL column", "ALTER TABLE a ADD COLUMN c INTEGER NOT NULL DEFAULT 7"),
    ("add a column and fill it", "ALTER TABLE a ADD COLUMN c; UPDATE a SET c = id * 2"),
    ("add a generated column", "ALTER TABLE a ADD COLUMN g AS (name || '!')"),
    ("add a referring column", "ALTER TABLE a ADD COLUMN p REFERENCES a(id)"),
    ("drop a column", "ALTER TABLE a DROP COLUMN extra"),
    ("drop an indexed column", "DROP INDEX a_n; ALTER TABLE a DROP COLUMN n"),
    (
        "drop a column that a view names",
        "CREATE VIEW more AS SELECT extra FROM a; DROP VIEW more; ALTER TABLE a DROP COLUMN extra",
    ),
    ("rename a column", "ALTER TABLE a RENAME COLUMN n TO number"),
    ("rename a unique column", "ALTER TABLE a RENAME COLUMN name TO title"),
    ("rename a key column", "ALTER TABLE b RENAME COLUMN k TO kk"),
    ("rename a column by case only (P49)", "ALTER TABLE a RENAME COLUMN n TO N"),
    (
        "swap the names of two columns (P47)",
        "ALTER TABLE a RENAME COLUMN n TO t; ALTER TABLE a RENAME COLUMN extra TO n; ALTER TABLE a RENAME COLUMN t TO extra",
    ),
    ("rename a table", "ALTER TABLE a RENAME TO aa"),
    ("rename a table and write", "ALTER TABLE a RENAME TO aa; INSERT OR REPLACE INTO aa(id, name) VALUES (50, 'one')"),
    (
        "swap the names of two tables",
        "ALTER TABLE a RENAME TO t; ALTER TABLE bare RENAME TO a; ALTER TABLE t RENAME TO bare",
    ),
    ("drop a table", "DROP VIEW named; DROP TRIGGER note; DROP TABLE b; DROP TABLE a"),
    (
        "drop and recreate under another schema",
        "DROP TABLE b; CREATE TABLE b(other INTEGER PRIMARY KEY, k TEXT); INSERT INTO b VALUES (1, 'p')",
    ),
    ("drop and recreate the same", "DROP TABLE bare; CREATE TABLE bare(x, y); INSERT INTO bare VALUES (9, 9)"),
    ("a new table", "CREATE TABLE fresh(x PRIMARY KEY, y); INSERT INTO fresh VALUES (1, 1), (2, 2)"),
    (
        "a new table and its index",
        "CREATE TABLE fresh(x, y); CREATE UNIQUE INDEX fu ON fresh(x); CREATE INDEX fi ON fresh(y); INSERT INTO fresh VALUES (1, 1)",
    ),
    ("a new index", "CREATE INDEX i ON a(extra, n DESC)"),
    ("a new partial index", "CREATE INDEX i ON a(n) WHERE extra IS NOT NULL"),
    ("a dropped index", "DROP INDEX a_n"),
    ("a changed index", "DROP INDEX a_n; CREATE INDEX a_n ON a(n, extra)"),
    (
        "a new unique index, then REPLACE",
        "CREATE UNIQUE INDEX u ON a(extra); INSERT OR REPLACE INTO a(id, name, extra) VALUES (9, 'nine', 'x')",
    ),
    ("a dropped unique index, then a duplicate (P48)", "DROP INDEX a_name; INSERT INTO a(id, name) VALUES (9, 'one')"),
    ("a unique index moves", "DROP INDEX a_name; UPDATE a SET name = 'same'; CREATE UNIQUE INDEX a_name ON a(n)"),
    ("a new view", "CREATE VIEW v AS SELECT a.id FROM a JOIN b ON b.a_id = a.id"),
    ("a changed view", "DROP VIEW named; CREATE VIEW named AS SELECT name, n FROM a"),
    ("a new trigger", "CREATE TRIGGER more AFTER UPDATE ON a BEGIN INSERT INTO notes(t) VALUES ('u'); END"),
    (
        "a new trigger that ignores (P45)",
        "CREATE TRIGGER ignore AFTER INSERT ON a WHEN NEW.id = 60 BEGIN SELECT RAISE(IGNORE); END; INSERT INTO a(id, name) VALUES (60, 'sixty')",
    ),
    ("a dropped trigger", "DROP TRIGGER note"),
    ("VACUUM", "DELETE FROM bare WHERE rowid = 2; VACUUM"),
    ("drop and add the same column (P46)", "ALTER TABLE a DROP COLUMN extra; ALTER TABLE a ADD COLUMN extra"),
    (
        "a default is added, then overwritten (P47)",
        "ALTER TABLE a ADD COLUMN c DEFAULT 5; UPDATE a SET c = 6 WHERE id = 1; DELETE FROM a WHERE id = 3",
    ),
    ("our triggers are dropped", "DROP TRIGGER IF EXISTS {ai}; INSERT INTO a(id, name) VALUES (70, 'unseen')"),
    (
        "rename under legacy_alter_table (P54)",
        "PRAGMA legacy_alter_table = ON; ALTER TABLE bare RENAME TO other; PRAGMA legacy_alter_table = OFF",
    ),
    ("an added column is dropped again", "ALTER TABLE a ADD COLUMN c; ALTER TABLE a DROP COLUMN c"),
    ("a table comes and goes", "CREATE TABLE tmp(x); INSERT INTO tmp VALUES (1); DROP TABLE tmp"),
    (
        "new_t renamed onto t (P47)",
        "CREATE TABLE new_b(k TEXT PRIMARY KEY COLLATE NOCASE, a_id, v NUMERIC, w) WITHOUT ROWID; INSERT INTO new_b SELECT *, 1 FROM b; DROP TABLE b; ALTER TABLE new_b RENAME TO b",
    ),
    ("nothing but numbers", "PRAGMA user_version = 42; PRAGMA application_id = 7"),
    ("ANALYZE", "ANALYZE"),
    (
        "a STRICT table",
        "CREATE TABLE s(x INTEGER PRIMARY KEY, y ANY) STRICT; INSERT INTO s VALUES (1, 'a'), (2, x'00')",
    ),
    ("a virtual table", "CREATE VIRTUAL TABLE words USING fts5(t); INSERT INTO words VALUES ('hello')"),
];

/// Replaces the name of our insert trigger on `a`, for the cases that damage us.
fn spelt(conn: &Connection, sql: &str) -> String {
    let name: rusqlite::Result<String> = conn.query_row(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'a' AND name LIKE '%\\_ai' ESCAPE '\\'",
        [],
        |row| row.get(0),
    );
    sql.replace("{ai}", &name.map_or_else(|_| "none".to_owned(), |name| quoted(&name)))
}

#[test]
fn the_replica_is_equal_after_any_migration_while_it_is_replicated() {
    each_case(
        MIGRATIONS,
        |case| case.0.to_owned(),
        |(what, sql)| {
            let place = Place::new();
            let conn = open(&place.source());
            conn.execute_batch(SCHEMA).unwrap();
            let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
            quiesce(&place.source(), &place.replica());
            write(&conn, 1);
            migrate(&conn, what, sql);
            write(&conn, 2);
            process.assert_running();
            quiesce(&place.source(), &place.replica());
            assert_equal(&place.source(), &place.replica());
            write(&conn, 3);
            quiesce(&place.source(), &place.replica());
            assert_equal(&place.source(), &place.replica());
            process.stop();
        },
    );
}

#[test]
fn the_replica_is_equal_after_any_migration_while_nobody_replicates() {
    each_case(
        MIGRATIONS,
        |case| case.0.to_owned(),
        |(what, sql)| {
            let place = Place::new();
            let conn = open(&place.source());
            conn.execute_batch(SCHEMA).unwrap();
            replicate_once(&place.source(), &place.replica());
            write(&conn, 1);
            migrate(&conn, what, sql);
            write(&conn, 2);
            replicate_once(&place.source(), &place.replica());
            assert_equal(&place.source(), &place.replica());
            write(&conn, 3);
            replicate_once(&place.source(), &place.replica());
            assert_equal(&place.source(), &place.replica());
        },
    );
}

#[track_caller]
fn migrate(conn: &Connection, what: &str, sql: &str) {
    conn.execute_batch(&spelt(conn, sql)).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// How a rebuild edits the text of CREATE TABLE: what it looks for, and what it puts there.
const REBUILDS: &[(&str, &str, &str, &str)] = &[
    ("a", "nothing changes", "extra)", "extra)"),
    ("a", "a type changes", "n INT", "n TEXT"),
    ("a", "a constraint is added", "n INT", "n INT CHECK(n IS NULL OR n < 100000)"),
    ("a", "a default changes", "extra)", "extra DEFAULT 'e')"),
    ("a", "NOT NULL is added", "name TEXT", "name TEXT NOT NULL"),
    ("a", "a unique column", "extra)", "extra UNIQUE ON CONFLICT REPLACE)"),
    ("a", "columns change places", "name TEXT, n INT", "n INT, name TEXT"),
    ("a", "AUTOINCREMENT", "INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"),
    ("a", "STRICT", "extra)", "extra ANY) STRICT"),
    ("a", "a stored generated column", "extra)", "extra, g AS (n + 1) STORED)"),
    ("a", "CURRENT_TIMESTAMP", "extra)", "extra, at DEFAULT CURRENT_TIMESTAMP)"),
    ("b", "the collation of the key", "COLLATE NOCASE", "COLLATE BINARY"),
    ("b", "WITHOUT ROWID goes", "WITHOUT ROWID", ""),
    ("b", "the key changes", "k TEXT PRIMARY KEY COLLATE NOCASE, a_id", "k TEXT, a_id PRIMARY KEY"),
    ("b", "a foreign key goes", "REFERENCES a(id)", ""),
    ("bare", "a key comes", "x, y", "x, y, id INTEGER PRIMARY KEY"),
];

#[test]
fn the_replica_is_equal_after_the_procedure_of_twelve_steps() {
    each_case(
        REBUILDS,
        |case| case.1.to_owned(),
        |(table, what, from, to)| {
            let place = Place::new();
            let conn = open(&place.source());
            conn.execute_batch(SCHEMA).unwrap();
            conn.execute_batch("UPDATE a SET n = 5 WHERE n IS NULL; UPDATE b SET a_id = id FROM a WHERE id = a_id")
                .unwrap();
            let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
            quiesce(&place.source(), &place.replica());
            write(&conn, 1);
            if *what == "the key changes" {
                conn.execute_batch("DELETE FROM b WHERE a_id IS NULL").unwrap();
            }
            rebuild(&conn, table, |sql| {
                assert!(sql.contains(from), "{what}: no {from:?} in {sql}");
                // With STRICT every column needs a type that it knows.
                sql.replacen(from, to, 1)
            });
            write(&conn, 2);
            quiesce(&place.source(), &place.replica());
            assert_equal(&place.source(), &place.replica());
            process.assert_running();
            process.stop();
        },
    );
}

#[test]
fn what_only_the_replica_has_survives() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(SCHEMA).unwrap();
    replicate_once(&place.source(), &place.replica());
    let replica = open(&place.replica());
    replica
        .execute_batch(
            "CREATE INDEX reports ON a(n, name); CREATE VIEW report AS SELECT count(*) FROM b;
             CREATE TABLE own(x); INSERT INTO own VALUES (1);",
        )
        .unwrap();
    drop(replica);
    conn.execute_batch("ALTER TABLE a ADD COLUMN c; ALTER TABLE a DROP COLUMN extra").unwrap();
    rebuild(&conn, "a", |sql| sql.replacen("n INT", "n TEXT", 1));
    write(&conn, 1);
    replicate_once(&place.source(), &place.replica());
    let extra = ["reports", "report", "own"].map(str::to_owned).to_vec();
    Oracle { extra, ..Oracle::default() }.assert_equal(&place.source(), &place.replica());
    let rows: i64 = open(&place.replica()).query_row("SELECT count(*) FROM own", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn a_unique_index_that_only_the_replica_has_halts_by_name() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(SCHEMA).unwrap();
    replicate_once(&place.source(), &place.replica());
    open(&place.replica()).execute_batch("CREATE UNIQUE INDEX only_here ON bare(rowid, x)").unwrap_or_else(|_| {
        open(&place.replica()).execute_batch("CREATE UNIQUE INDEX only_here ON a(id, n)").unwrap();
    });
    write(&conn, 1);
    let args = ["replicate".into(), place.source().into_os_string(), place.replica().into_os_string(), "--once".into()];
    let error = expect_failure(1, &args);
    assert!(error.contains("only_here"), "{error}");
    open(&place.replica()).execute_batch("DROP INDEX only_here").unwrap();
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}

/// A change that `safe` mode refuses.
struct Refused {
    change: &'static str,
    /// What the refusal says of it, and of nothing else.
    said: &'static str,
    way_out: WayOut,
}

/// What the operator does to go on, and where.
enum WayOut {
    /// The same change, at the replica.
    Made(&'static str),
    /// The change is undone, at the source.
    Undone(&'static str),
}

const REFUSED: &[Refused] = &[
    Refused {
        change: "DROP INDEX a_name; UPDATE a SET name = name; CREATE UNIQUE INDEX an ON a(n)",
        said: "table \"a\": UNIQUE index \"an\" added or changed (column *); the peer has `CREATE UNIQUE INDEX an ON a(n)`, this",
        way_out: WayOut::Made("CREATE UNIQUE INDEX an ON a(n)"),
    },
    Refused {
        change: "CREATE UNIQUE INDEX an ON a(n)",
        said: "table \"a\": UNIQUE index \"an\" added or changed (column *); the peer has `CREATE UNIQUE INDEX an ON a(n)`, this",
        way_out: WayOut::Undone("DROP INDEX an"),
    },
    Refused {
        change: "ALTER TABLE bare RENAME TO old; CREATE TABLE bare(x NOT NULL, y); INSERT INTO bare SELECT * FROM old; DROP TABLE old",
        said: "table \"bare\": NOT NULL added or changed (column x)",
        way_out: WayOut::Made("DROP TABLE bare; CREATE TABLE bare(x NOT NULL, y)"),
    },
    Refused {
        change: "DROP TABLE bare; CREATE TABLE bare(x, y DEFAULT 7); INSERT INTO bare(x) VALUES (1), (2)",
        said: "table \"bare\": type, default, collation or expression changed (column y)",
        way_out: WayOut::Undone("DROP TABLE bare; CREATE TABLE bare(x, y); INSERT INTO bare VALUES (5, 5)"),
    },
];

/// In `safe` mode: changes that are applied all the same.
const SAFE: &[&str] = &[
    "ALTER TABLE a ADD COLUMN c",
    "ALTER TABLE a ADD COLUMN c NOT NULL DEFAULT 3",
    "CREATE TABLE fresh(x PRIMARY KEY); INSERT INTO fresh VALUES (1)",
    "CREATE INDEX i ON a(extra)",
    "DROP INDEX a_n",
    "DROP VIEW named; CREATE VIEW named AS SELECT 1 AS x",
    "DROP TRIGGER note",
];

fn safe_args(place: &Place) -> Vec<std::ffi::OsString> {
    let mut args = vec!["replicate".into(), place.source().into_os_string(), place.replica().into_os_string()];
    args.extend(["--once", "--migrate-mode", "safe"].map(Into::into));
    args
}

#[test]
fn safe_mode_applies_what_loses_nothing() {
    for sql in SAFE {
        let place = Place::new();
        let conn = open(&place.source());
        conn.execute_batch(SCHEMA).unwrap();
        expect_code(0, &safe_args(&place));
        conn.execute_batch(sql).unwrap();
        write(&conn, 1);
        expect_code(0, &safe_args(&place));
        assert_equal(&place.source(), &place.replica());
    }
}

#[test]
fn safe_mode_keeps_what_the_source_dropped() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(SCHEMA).unwrap();
    expect_code(0, &safe_args(&place));
    conn.execute_batch("ALTER TABLE a DROP COLUMN extra; DROP TABLE bare").unwrap();
    conn.execute_batch("UPDATE a SET n = 99 WHERE id = 2; INSERT INTO a(id, name, n) VALUES (8, 'eight', 8)").unwrap();
    expect_code(0, &safe_args(&place));
    let replica = open(&place.replica());
    let cell = |sql: &str| -> Option<String> { replica.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(cell("SELECT hex(extra) FROM a WHERE id = 3").as_deref(), Some("00"), "not rewritten, so it stays");
    assert_eq!(cell("SELECT CAST(n AS TEXT) FROM a WHERE id = 2").as_deref(), Some("99"));
    assert_eq!(cell("SELECT extra FROM a WHERE id = 2"), None, "rewritten, so it is NULL");
    assert_eq!(cell("SELECT CAST(count(*) AS TEXT) FROM bare").as_deref(), Some("3"));
    // A table that is left here is no copy that anybody waits for.
    quiesce(&place.source(), &place.replica());
}

#[test]
fn safe_mode_refuses_what_loses_something_and_goes_on_after_the_operator_acts() {
    each_case(
        REFUSED,
        |case| case.change.to_owned(),
        |case| {
            let place = Place::new();
            let conn = open(&place.source());
            conn.execute_batch(SCHEMA).unwrap();
            expect_code(0, &safe_args(&place));
            conn.execute_batch(case.change).unwrap();
            write(&conn, 1);
            let before = windows_applied(&place.replica());
            // As often as it is asked, and nothing is applied.
            for _ in 0..2 {
                let error = expect_failure(1, &safe_args(&place));
                assert!(error.contains(case.said) && error.contains("forced"), "{error}");
                assert_eq!(windows_applied(&place.replica()), before);
            }
            match case.way_out {
                WayOut::Made(sql) => open(&place.replica()).execute_batch(sql).unwrap(),
                WayOut::Undone(sql) => conn.execute_batch(sql).unwrap(),
            }
            write(&conn, 2);
            expect_code(0, &safe_args(&place));
            assert_equal(&place.source(), &place.replica());
            write(&conn, 3);
            expect_code(0, &safe_args(&place));
            assert_equal(&place.source(), &place.replica());
        },
    );
}

#[test]
fn twinlite_ddl_copies_nothing() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(SCHEMA).unwrap();
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    let script = place.file("change.sql");
    std::fs::write(&script, "BEGIN; ALTER TABLE a ADD COLUMN c; UPDATE a SET c = id; COMMIT;").unwrap();
    let args = ["ddl".into(), "--db".into(), place.source().into_os_string(), script.into_os_string()];
    expect_code(0, &args);
    write(&conn, 1);
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    let markers: i64 =
        conn.query_row("SELECT count(*) FROM __cdc_log WHERE op IN (6, 7)", [], |row| row.get(0)).unwrap();
    assert_eq!(markers, 0, "a table is copied again, though nothing slipped");
    process.assert_running();
    process.stop();
}

/// What fails while our triggers name the column, `twinlite ddl` can do.
#[test]
fn twinlite_ddl_drops_a_unique_column() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch("CREATE TABLE a(id INTEGER PRIMARY KEY, name TEXT, n); CREATE UNIQUE INDEX u ON a(name)")
        .unwrap();
    conn.execute_batch("INSERT INTO a VALUES (1, 'one', 1), (2, 'two', 2)").unwrap();
    replicate_once(&place.source(), &place.replica());
    let sql = "DROP INDEX u; ALTER TABLE a DROP COLUMN name; INSERT INTO a VALUES (3, 3);";
    assert!(conn.execute_batch(&format!("BEGIN; {sql} COMMIT")).is_err());
    conn.execute_batch("ROLLBACK").unwrap();
    let script = place.file("change.sql");
    std::fs::write(&script, sql).unwrap();
    expect_code(0, &["ddl".into(), "--db".into(), place.source().into_os_string(), script.into_os_string()]);
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}

#[test]
fn resync_repairs_a_replica_that_somebody_wrote_into() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(SCHEMA).unwrap();
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    let harm = "UPDATE a SET n = -1 WHERE id = 2; DELETE FROM b; INSERT INTO bare VALUES ('extra', 1)";
    open(&place.replica()).execute_batch(harm).unwrap();
    assert!(!Oracle::default().differences(&place.source(), &place.replica()).is_empty());
    expect_code(0, &["resync".as_ref(), "--db".as_ref(), place.source().as_os_str()]);
    until("the replica to be repaired", || {
        let found = Oracle::default().differences(&place.source(), &place.replica());
        if found.is_empty() { Ok(()) } else { Err(format!("{}\n{}", found.join("\n"), status(&place.replica()))) }
    });
    process.assert_running();
    process.stop();
}
