//! Where the stages meet: what no stage can see for itself, and every way in which data could be missing in silence.

use std::fs;

use crate::support::{
    Place, open, open_reader,
    oracle::assert_equal,
    pair::{Options, Pair, running},
    process::{Process, expect_code, quiesce, replicate_once, status},
    wait::until,
};

fn run(place: &Place, sql: &str) {
    open(&place.source()).execute_batch(sql).unwrap();
}

fn count(path: &std::path::Path, sql: &str) -> i64 {
    open_reader(path).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// A replica whose last window ended with an entry of ours, or of a table with a key narrower than the log, was told
/// after a restart that the log had diverged: both ends hashed that entry differently.
#[test]
fn a_restart_goes_on_whatever_the_last_entry_was() {
    let place = Place::new();
    run(&place, "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(x, y, z, PRIMARY KEY(x, y))");
    for sql in ["INSERT INTO a VALUES (1, 1)", "", "CREATE TABLE c(x, y, z, PRIMARY KEY(x, y, z))", "DELETE FROM a"] {
        run(&place, sql);
        replicate_once(&place.source(), &place.replica());
        assert_equal(&place.source(), &place.replica());
    }
}

/// A log that outgrows its retention while an application never pauses stopped its triggers, and nobody looked: the link
/// was `live` and what was written from there on was nowhere.
#[test]
fn a_log_that_fills_up_under_a_busy_writer_loses_nothing() {
    let place = Place::new();
    run(&place, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let source = "capture: { retention: { rows: 500 } }\n".to_owned();
    let mut pair = running(place, &Options { source, ..Options::default() });
    let conn = open(&pair.place.source());
    for batch in 0..40 {
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
             INSERT INTO t SELECT {batch} * 200 + i, i FROM n"
        );
        conn.execute_batch(&sql).unwrap();
    }
    until("every row to arrive", || match count(&pair.place.replica(), "SELECT count(*) FROM t") {
        8_000 => Ok(()),
        rows => Err(format!("{rows} rows")),
    });
    pair.assert_equal();
    pair.stop();
}

/// A table renamed while a digest of it was unanswered counted as equal, and what differed was never sent.
#[test]
fn tables_that_change_their_schema_during_a_copy_end_equal() {
    let place = Place::new();
    run(
        &place,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, i FROM n",
    );
    let source = "snapshot_rows: 20\nwindow_rows: 7\n".to_owned();
    let mut pair = running(place, &Options { source, ..Options::default() });
    let conn = open(&pair.place.source());
    let mut name = "t".to_owned();
    for round in 0..8 {
        // Behind the triggers' back, and VACUUM: every table is copied again, by digest, and much of it differs.
        // The replica may not have come to that name yet.
        let _ = open(&pair.place.replica()).execute_batch(&format!("UPDATE {name} SET v = -1 WHERE id % 5 = 0"));
        conn.execute_batch("VACUUM").unwrap();
        let next = format!("t{round}");
        conn.execute_batch(&format!(
            "UPDATE {name} SET v = v + 1 WHERE id % 3 = 0; ALTER TABLE {name} RENAME TO {next};
             ALTER TABLE {next} ADD COLUMN c{round} DEFAULT 'x'; DELETE FROM {next} WHERE id % 17 = {round};
             DROP TABLE IF EXISTS other; CREATE TABLE other(a, b); INSERT INTO other VALUES ({round}, 1)"
        ))
        .unwrap();
        name = next;
    }
    conn.execute_batch(&format!(
        "CREATE TABLE keyed(id TEXT, v, PRIMARY KEY(v, id)); INSERT INTO keyed SELECT id, v FROM {name};
         DROP TABLE {name}; ALTER TABLE keyed RENAME TO {name}"
    ))
    .unwrap();
    pair.assert_equal();
    pair.stop();
}

/// The replica's file was deleted or replaced while its node ran, which wrote on into a file that had no name any more
/// and acknowledged it.
#[test]
fn a_replica_whose_file_is_replaced_begins_anew() {
    let place = Place::new();
    run(&place, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)");
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    for suffix in ["", "-wal", "-shm"] {
        let mut file = place.replica().into_os_string();
        file.push(suffix);
        let _ = fs::remove_file(file);
    }
    run(&place, "INSERT INTO t VALUES (2, 2)");
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    process.assert_running();
    process.stop();
}

/// Whoever restores a backup, or renames a file and renames it back, leaves no file there for a moment: the node began to
/// open it anew, found nothing, and ended.
#[test]
fn a_source_that_is_away_for_a_moment_is_waited_for() {
    for both_in_one_process in [true, false] {
        let place = Place::new();
        run(&place, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)");
        let (source, replica, away) = (place.source(), place.replica(), place.file("away.db"));
        let (mut process, other) = if both_in_one_process {
            let process = Process::replicate(&source, &replica, &[]);
            quiesce(&source, &replica);
            (process, None)
        } else {
            let mut pair = running(place, &Options::default());
            (pair.source.take().unwrap(), Some(pair))
        };
        fs::rename(&source, &away).unwrap();
        until("the process to look for the file again", || {
            process.assert_running();
            process.said().contains("trying again").then_some(()).ok_or_else(|| process.said())
        });
        fs::rename(&away, &source).unwrap();
        open(&source).execute_batch("INSERT INTO t VALUES (2, 2)").unwrap();
        quiesce(&source, &replica);
        assert_equal(&source, &replica);
        process.assert_running();
        process.stop();
        drop(other);
    }
}

#[test]
fn two_replicas_of_one_source_end_equal() {
    let place = Place::new();
    run(&place, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(x, y); INSERT INTO t VALUES (1, 1)");
    let port = crate::support::process::free_port();
    let node = |name: &str, links: &str, extra: &str| {
        let database = place.file(&format!("{name}.db"));
        let text =
            format!("name: {name}\nspec: {{ connection_string: {} }}\n{extra}links:\n{links}", database.display());
        fs::write(place.file(&format!("{name}.yaml")), text).unwrap();
        Process::run(&place.file(&format!("{name}.yaml")), &[])
    };
    let links = "  - { name: one, directions: send }\n  - { name: two, directions: send }\n";
    let source = node("source", links, &format!("listen: 127.0.0.1:{port}\n"));
    let replica = format!("  - {{ name: source, directions: receive, peer: \"127.0.0.1:{port}\" }}\n");
    let one = node("one", &replica, "");
    let conn = open(&place.source());
    for round in 0..60 {
        conn.execute_batch(&format!("INSERT INTO t VALUES ({round} + 10, 1); INSERT INTO u VALUES (1, {round})"))
            .unwrap();
    }
    let two = node("two", &replica, "");
    conn.execute_batch("ALTER TABLE u RENAME TO w; UPDATE t SET v = 2; CREATE TABLE x(a PRIMARY KEY)").unwrap();
    for replica in ["one.db", "two.db"] {
        quiesce(&place.source(), &place.file(replica));
        assert_equal(&place.source(), &place.file(replica));
    }
    for node in [one, two, source] {
        node.stop();
    }
}

/// Either end may say which tables a link carries. What is held back for want of a table is named.
#[test]
fn a_link_carries_what_both_ends_choose() {
    let place = Place::new();
    run(
        &place,
        "CREATE TABLE a1(id INTEGER PRIMARY KEY); CREATE TABLE a2(id INTEGER PRIMARY KEY); CREATE TABLE b(id);
         CREATE VIEW v AS SELECT * FROM a1, b; CREATE VIEW fine AS SELECT * FROM a1; INSERT INTO a1 VALUES (1);
         CREATE TRIGGER tr AFTER INSERT ON a1 BEGIN INSERT INTO b VALUES (NEW.id); END",
    );
    let options = Options {
        source_link: "    tables: [\"a*\"]\n".to_owned(),
        replica_link: "    tables: [\"*1\", \"b\"]\n".to_owned(),
        ..Options::default()
    };
    let pair = running(place, &options);
    run(&pair.place, "INSERT INTO a1 VALUES (2); INSERT INTO a2 VALUES (1)");
    quiesce(&pair.place.source(), &pair.place.replica());
    let names: String = open_reader(&pair.place.replica())
        .query_row(
            "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE name NOT LIKE '%cdc%' ORDER BY 1)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(names, "a1,fine");
    assert_eq!(count(&pair.place.replica(), "SELECT count(*) FROM a1"), 2);
    let report = status(&pair.place.source());
    let notes: Vec<&str> = report["notes"].as_array().unwrap().iter().filter_map(|note| note.as_str()).collect();
    for held_back in ["view \"v\"", "trigger \"tr\""] {
        assert!(notes.iter().any(|note| note.starts_with(held_back)), "{notes:?}");
    }
    pair.stop();
}

#[test]
fn the_sources_status_lists_what_is_captured_and_counts_what_is_sent() {
    let place = Place::new();
    run(
        &place,
        "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1); CREATE VIRTUAL TABLE f USING fts5(x)",
    );
    let mut pair = running(place, &Options::default());
    run(
        &pair.place,
        "CREATE TABLE late(id INTEGER PRIMARY KEY); INSERT INTO late VALUES (1); INSERT INTO t VALUES (2)",
    );
    pair.quiesce();
    let report = status(&pair.place.source());
    let tables = report["tables"].as_array().unwrap();
    let found = |name: &str| tables.iter().find(|table| table["name"] == name).unwrap_or_else(|| panic!("{report}"));
    assert!(found("t")["generation"].is_i64() && found("late")["generation"].is_i64(), "{report}");
    assert!(found("f")["skipped_because"].is_string() && found("f_data")["skipped_because"].is_string(), "{report}");
    let metrics = report["metrics"].clone();
    for name in [
        "windows_read_total",
        "windows_sent_total",
        "rows_sent_total",
        "bytes_sent_total",
        "snapshot_rows_sent_total",
        "drifts_total",
    ] {
        assert!(metrics[name].as_u64().unwrap() > 0, "{name}: {metrics}");
    }
    let there = status(&pair.place.replica());
    for name in ["windows_applied_total", "bytes_received_total", "snapshot_rows_applied_total"] {
        assert!(there["metrics"][name].as_u64().unwrap() > 0, "{name}: {there}");
    }
    assert_eq!(there["links"][0]["state"], "live");
    pair.stop();
}

/// 2,000 columns and the rowid that is the key: one more than any table has.
#[test]
fn the_widest_table_without_a_key_travels() {
    let place = Place::new();
    let columns: Vec<String> = (0..2_000).map(|column| format!("c{column}")).collect();
    run(
        &place,
        &format!("CREATE TABLE wide({}); INSERT INTO wide(c0, c1999) VALUES (1, 'x'), (2, NULL)", columns.join(", ")),
    );
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    run(
        &place,
        "UPDATE wide SET c1000 = 5 WHERE c0 = 1; DELETE FROM wide WHERE c0 = 2; INSERT INTO wide(c7) VALUES (7)",
    );
    quiesce(&place.source(), &place.replica());
    // The oracle's query would be wider than SQLite lets a query be, as one of the program's would.
    let rows = |path: &std::path::Path| {
        let conn = open_reader(path);
        let sql = "SELECT rowid || '|' || quote(c0) || quote(c7) || quote(c1000) || quote(c1999) FROM wide ORDER BY 1";
        let mut statement = conn.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(rows(&place.source()), ["1|1NULL5'x'", "2|NULL7NULLNULL"]);
    assert_eq!(rows(&place.replica()), rows(&place.source()));
    process.assert_running();
    process.stop();
}

#[test]
fn a_schema_change_by_command_during_replication_copies_nothing_and_loses_nothing() {
    let place = Place::new();
    run(&place, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1), (2, 2)");
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    fs::write(place.file("change.sql"), "ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN w DEFAULT 5;").unwrap();
    let args =
        ["ddl".into(), "--db".into(), place.source().into_os_string(), place.file("change.sql").into_os_string()];
    expect_code(0, &args);
    run(&place, "INSERT INTO t(id) VALUES (3)");
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    process.assert_running();
    process.stop();
}

/// An older database in place of the source's, by SQLite's own backup, into the same file: no inode tells.
#[test]
fn a_source_restored_while_it_runs_halts_or_is_copied_as_the_config_says() {
    let place = Place::new();
    run(&place, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)");
    expect_code(0, &["setup".into(), "--db".into(), place.source().into_os_string()]);
    let backup = place.file("backup.db");
    open(&place.source()).execute_batch(&format!("VACUUM INTO '{}'", backup.display())).unwrap();
    let replica_link = "    on_divergence: resnapshot\n".to_owned();
    let mut pair: Pair = running(place, &Options { replica_link, ..Options::default() });
    run(&pair.place, "INSERT INTO t VALUES (2, 2), (3, 3), (4, 4), (5, 5)");
    pair.quiesce();
    let mut conn = open(&pair.place.source());
    conn.restore("main", &backup, None::<fn(rusqlite::backup::Progress)>).unwrap();
    run(&pair.place, "INSERT INTO t VALUES (9, 9)");
    pair.assert_equal();
    assert_eq!(count(&pair.place.replica(), "SELECT count(*) FROM t"), 2);
    pair.stop();
}
