//! One-way replication by `twinlite replicate`, on real and on generated input, while applications write.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rusqlite::Connection;

use crate::support::{
    Place, StopOnDrop, bank, env_number, open, open_reader,
    oracle::{Oracle, assert_equal, quoted, tables},
    process::{Process, expect_code, expect_failure, quiesce, replicate_once, status, twinlite},
    random::Random,
    shop::{Writer, rebuild},
    skipped,
    wait::until,
};

const PROJ: &str = "/usr/share/proj/proj.db";

/// Makes the sample shop.
fn sample(path: &Path, size: &str) {
    expect_code(0, &["sample".as_ref(), path.as_os_str(), "--size".as_ref(), size.as_ref()]);
}

fn schema_of(path: &Path) -> Vec<String> {
    let conn = open_reader(path);
    let sql =
        "SELECT type || ' | ' || name || ' | ' || tbl_name || ' | ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
    conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn proj_db_arrives_whole() {
    if !Path::new(PROJ).exists() {
        skipped("proj_db_arrives_whole", "no /usr/share/proj/proj.db; apt-get install proj-data");
        return;
    }
    let place = Place::new();
    fs::copy(PROJ, place.source()).unwrap();
    let args = ["replicate".into(), place.source().into_os_string(), place.replica().into_os_string()];
    let flags = ["--once", "--verify"].map(Into::into);
    let out = expect_code(0, &[&args[..], &flags[..]].concat());
    let count = tables(&open_reader(&place.source())).len();
    assert!(out.contains(&format!("{count} tables")) && out.contains("equal"), "{out}");
    assert_equal(&place.source(), &place.replica());
}

#[test]
fn a_sample_shop_stays_equal_under_a_writer_that_migrates_it() {
    let place = Place::new();
    let size = std::env::var("TWINLITE_SHOP_SIZE").unwrap_or_else(|_| "20MB".to_owned());
    sample(&place.source(), &size);
    let conn = open(&place.source());
    let mut writer = Writer::new(&conn, env_number("TWINLITE_SEED", 7));
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    let mut done = 0;
    for round in 0..6 {
        process.assert_running();
        done += writer.write(&conn, 150);
        if round % 2 == 1 {
            writer.rebuild(&conn);
        }
    }
    assert!(done > 200, "the writer only did {done} things");
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    done = writer.write(&conn, 100);
    assert!(done > 10);
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    process.stop();
}

#[test]
fn every_read_of_the_replica_sees_a_committed_state() {
    let place = Place::new();
    bank::create(&place.source());
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    let stop = AtomicBool::new(false);
    let replica = place.replica();
    std::thread::scope(|scope| {
        let guard = StopOnDrop(&stop);
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(bank::sum(&replica), Some(bank::TOTAL), "after {reads} reads");
                reads += 1;
            }
            reads
        });
        let (conn, mut random) = (open(&place.source()), Random::new(3));
        for _ in 0..env_number("TWINLITE_TRANSFERS", 1_500) {
            bank::transfer(&conn, &mut random);
        }
        quiesce(&place.source(), &place.replica());
        drop(guard);
        assert!(reader.join().unwrap() > 10);
    });
    process.assert_running();
    assert_equal(&place.source(), &place.replica());
    process.stop();
}

#[test]
fn teardown_leaves_the_schema_as_it_was() {
    let place = Place::new();
    sample(&place.source(), "1MB");
    open(&place.source()).execute_batch("CREATE VIEW v AS SELECT 1; ANALYZE;").unwrap();
    let before = schema_of(&place.source());
    let db = |command: &'static str| [command.into(), "--db".into(), place.source().into_os_string()];

    let plan = expect_code(0, &db("plan"));
    assert!(plan.contains("CREATE TRIGGER") && plan.contains("__cdc_log"), "{plan}");
    assert_eq!(schema_of(&place.source()), before, "plan changed something");
    expect_code(0, &db("setup"));
    assert_ne!(schema_of(&place.source()), before);
    expect_code(0, &db("setup"));
    replicate_once(&place.source(), &place.replica());
    expect_code(0, &db("teardown"));
    assert_eq!(schema_of(&place.source()), before);
}

#[test]
fn what_plan_prints_is_what_setup_makes() {
    let place = Place::new();
    open(&place.source()).execute_batch("CREATE TABLE a(x PRIMARY KEY, y UNIQUE); CREATE TABLE \"b c\"(z)").unwrap();
    let db = |command: &'static str| [command.into(), "--db".into(), place.source().into_os_string()];
    let plan = expect_code(0, &db("plan"));
    expect_code(0, &db("setup"));
    let conn = open_reader(&place.source());
    let sql = "SELECT sql FROM sqlite_schema WHERE name LIKE '\\_\\_cdc\\_%' ESCAPE '\\' AND sql IS NOT NULL";
    let made: Vec<String> =
        conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(made.len() > 8, "{made:?}");
    for sql in made {
        let head: String = sql.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        let name = head.split(['(', ' ']).nth(2).unwrap().to_owned();
        assert!(plan.contains(&name), "plan does not mention {name}:\n{plan}");
    }
}

#[test]
fn a_restart_copies_nothing_again() {
    let place = Place::new();
    sample(&place.source(), "1MB");
    replicate_once(&place.source(), &place.replica());
    let before = crate::support::process::windows_applied(&place.replica());
    replicate_once(&place.source(), &place.replica());
    let after = crate::support::process::windows_applied(&place.replica());
    assert!(after - before <= 1, "{} windows were applied where nothing had changed", after - before);
}

#[test]
fn tables_are_chosen_by_globs() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch("CREATE TABLE keep_a(x); CREATE TABLE keep_b(x); CREATE TABLE other(x);").unwrap();
    conn.execute_batch("INSERT INTO keep_a VALUES (1); INSERT INTO keep_b VALUES (2); INSERT INTO other VALUES (3)")
        .unwrap();
    let (source, replica) = (place.source().into_os_string(), place.replica().into_os_string());
    let flags = ["--tables", "keep_*", "--skip-tables", "*_b", "--once", "--verify"].map(Into::into);
    expect_code(0, &[&["replicate".into(), source, replica][..], &flags[..]].concat());
    assert_eq!(tables(&open_reader(&place.replica())), ["keep_a"]);
    let skip = vec!["keep_b".to_owned(), "other".to_owned()];
    Oracle { skip, ..Oracle::default() }.assert_equal(&place.source(), &place.replica());
}

#[test]
fn what_cannot_be_captured_is_named_with_the_reason() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(
        "CREATE TABLE hidden(rowid, oid, _rowid_); CREATE TABLE modulo(id INTEGER PRIMARY KEY);
         CREATE UNIQUE INDEX u ON modulo(id % 3); CREATE VIRTUAL TABLE words USING fts5(t); CREATE TABLE fine(x);",
    )
    .unwrap();
    replicate_once(&place.source(), &place.replica());
    let status = status(&place.source());
    for name in ["hidden", "modulo", "words"] {
        let table = status["tables"].as_array().unwrap().iter().find(|table| table["name"] == name);
        let reason = table.map(|table| table["skipped_because"].as_str().unwrap_or_default().to_owned());
        assert!(reason.is_some_and(|reason| reason.len() > 10), "no reason for {name} in {status}");
    }
    assert_eq!(tables(&open_reader(&place.replica())), ["fine"]);
}

/// Bad input: how it is made, and a word that the message must hold.
type BadInput = (&'static str, fn(&Place), &'static str);

const BAD_INPUT: &[BadInput] = &[
    ("no file", |_| {}, "source.db"),
    ("not a database", |place| fs::write(place.source(), [b'x'; 4096]).unwrap(), "not a SQLite database"),
    ("corrupt", corrupt, "source.db"),
    ("a log of sqlite-cdc", sqlite_cdc, "sqlite-cdc"),
    ("a newer format", newer_format, "newer"),
    ("unrelated table of the name", occupied, "\"a\""),
    ("UTF-16", utf16, "UTF-16"),
];

fn small(path: &Path) -> Connection {
    let conn = open(path);
    conn.execute_batch("CREATE TABLE a(x PRIMARY KEY, y); INSERT INTO a VALUES (1, 2)").unwrap();
    conn
}

fn corrupt(place: &Place) {
    drop(small(&place.source()));
    let mut bytes = fs::read(place.source()).unwrap();
    let end = bytes.len().min(4096);
    bytes[100..end].fill(0xff);
    fs::write(place.source(), bytes).unwrap();
}

fn sqlite_cdc(place: &Place) {
    let conn = small(&place.source());
    conn.execute_batch(
        "CREATE TABLE __cdc_log(id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL, tablename TEXT NOT NULL,
         operation TEXT NOT NULL, before TEXT, after TEXT)",
    )
    .unwrap();
}

fn newer_format(place: &Place) {
    drop(small(&place.source()));
    expect_code(0, &["setup".as_ref(), "--db".as_ref(), place.source().as_os_str()]);
    open(&place.source()).execute_batch("UPDATE __cdc_meta SET value = 9999 WHERE key = 'format'").unwrap();
}

fn occupied(place: &Place) {
    drop(small(&place.source()));
    let conn = open(&place.replica());
    conn.execute_batch("CREATE TABLE a(something, entirely, different); INSERT INTO a VALUES (1, 2, 3)").unwrap();
}

fn utf16(place: &Place) {
    let conn = open(&place.source());
    conn.execute_batch("PRAGMA encoding = 'UTF-16le'; CREATE TABLE a(x)").unwrap();
}

#[test]
fn bad_input_is_refused_with_a_message_and_nothing_is_lost() {
    for (what, make, word) in BAD_INPUT {
        let place = Place::new();
        make(&place);
        let content = |path: PathBuf| path.exists().then(|| tables(&open_reader(&path)));
        let before = (*what == "unrelated table of the name").then(|| content(place.replica()));
        let args =
            ["replicate".into(), place.source().into_os_string(), place.replica().into_os_string(), "--once".into()];
        // A wrong path is a mistake in the command.
        let code = if *what == "no file" { 2 } else { 1 };
        let error = expect_failure(code, &args);
        assert!(error.to_lowercase().contains(&word.to_lowercase()), "{what}: {error}");
        assert!(!error.contains("panicked"), "{what}: {error}");
        assert_eq!(*what == "no file", !place.source().exists(), "{what}: a source was made");
        if let Some(before) = before {
            assert_eq!(content(place.replica()), before, "{what}");
            let rows: i64 =
                open_reader(&place.replica()).query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 1, "{what}");
        }
    }
}

#[test]
fn source_and_replica_must_be_two_files() {
    let place = Place::new();
    drop(small(&place.source()));
    std::os::unix::fs::symlink(place.source(), place.replica()).unwrap();
    for other in [place.source(), place.replica()] {
        let args = ["replicate".into(), place.source().into_os_string(), other.into_os_string(), "--once".into()];
        assert!(expect_failure(1, &args).contains("same"));
    }
}

#[test]
fn a_second_owner_leaves_with_the_pid_of_the_first() {
    let place = Place::new();
    drop(small(&place.source()));
    let mut first = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    let other = place.file("other.db").into_os_string();
    let error = expect_failure(1, &["replicate".into(), place.source().into_os_string(), other, "--once".into()]);
    assert!(error.contains("pid"), "{error}");
    first.assert_running();
    first.stop();
}

#[test]
fn a_poisoned_row_halts_before_it_and_resumes_after_the_operator_acts() {
    let place = Place::new();
    let conn = small(&place.source());
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    let replica = open(&place.replica());
    rebuild(&replica, "a", |sql| sql.replacen(", y)", ", y NOT NULL)", 1));
    conn.execute_batch("INSERT INTO a VALUES (2, 2)").unwrap();
    conn.execute_batch("INSERT INTO a VALUES (77, NULL)").unwrap();
    let said = until("the link to halt", || {
        let status = status(&place.replica());
        let link = &status["links"][0];
        if link["state"] == "halted" { Ok(link["last_error"].to_string()) } else { Err(status.to_string()) }
    });
    assert!(said.contains('a') && said.contains("77"), "{said}");
    expect_code(3, &["status".as_ref(), "--db".as_ref(), place.replica().as_os_str()]);
    rebuild(&replica, "a", |sql| sql.replacen(" NOT NULL", "", 1));
    quiesce(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    process.assert_running();
    process.stop();
}

#[test]
fn sequences_and_numbers_of_the_file_travel() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(
        "CREATE TABLE a(x INTEGER PRIMARY KEY AUTOINCREMENT, y); INSERT INTO a(y) VALUES (1), (2);
         PRAGMA user_version = 17; PRAGMA application_id = 99;",
    )
    .unwrap();
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    // Rows that come and go within a window still move the sequence (P61).
    conn.execute_batch(
        "BEGIN; INSERT INTO a(y) VALUES (3), (4); DELETE FROM a WHERE x > 2; PRAGMA user_version = 18; COMMIT",
    )
    .unwrap();
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}

#[test]
fn rows_of_two_thousand_columns_arrive() {
    let place = Place::new();
    let conn = open(&place.source());
    let columns: Vec<String> = (0..1999).map(|column| quoted(&format!("c{column}"))).collect();
    conn.execute_batch(&format!("CREATE TABLE wide(id INTEGER PRIMARY KEY, {})", columns.join(","))).unwrap();
    conn.execute_batch("INSERT INTO wide(id, c0, c1998) VALUES (1, 'first', x'00'), (2, 1.5, 9)").unwrap();
    replicate_once(&place.source(), &place.replica());
    conn.execute_batch("UPDATE wide SET c1000 = 'middle'; INSERT INTO wide(id) VALUES (3)").unwrap();
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}

/// Ctrl-C during the copy ended the wait for it, and then what there was of the replica was compared, and said to differ.
#[test]
fn what_is_stopped_during_the_copy_is_not_compared() {
    let place = Place::new();
    let conn = small(&place.source());
    expect_code(0, &["setup".as_ref(), "--db".as_ref(), place.source().as_os_str()]);
    // The replica cannot be noted as a consumer of the log, so the copy does not even begin before the signal comes.
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stdout = place.file("stdout");
    let mut process = Process::replicate_into(&stdout, &place.source(), &place.replica(), &["--once", "--verify"]);
    until("the halves to meet", || {
        let met = place.replica().exists() && status(&place.source())["links"][0]["connected"] == true;
        met.then_some(()).ok_or_else(|| process.said())
    });
    process.signal(rustix::process::Signal::INT);
    let status = process.wait();
    assert_eq!(fs::read_to_string(&stdout).unwrap(), "", "it compared; it said:\n{}", process.said());
    assert!(status.success(), "{}", process.said());
    assert!(tables(&open_reader(&place.replica())).is_empty());
}

/// Each half took the other's end for a failure and warned of it, now and then.
#[test]
fn a_clean_end_warns_of_nothing() {
    for _ in 0..env_number("TWINLITE_CASES", 8) {
        let place = Place::new();
        drop(small(&place.source()));
        let args = ["replicate".into(), place.source().into_os_string(), place.replica().into_os_string()];
        let output = twinlite(&[&args[..], &["--once".into()]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("INFO"), "{said}");
        assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
        for words in ["capture stays installed in", "is bounded by 7 days", "twinlite teardown --db"] {
            assert!(said.contains(words), "no {words} in:\n{said}");
        }
    }
}
