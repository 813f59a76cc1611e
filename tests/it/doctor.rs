//! `twinlite doctor`: for each check a database with the fault that it finds, made as applications make them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    Place, open,
    process::{Process, expect_code, expect_failure, quiesce, replicate_once, twinlite},
};

/// A database without a fault, for either way.
const HEALTHY: &str =
    "CREATE TABLE person(id BLOB PRIMARY KEY NOT NULL DEFAULT (randomblob(16)), name TEXT) WITHOUT ROWID;
    CREATE TABLE pet(id BLOB PRIMARY KEY NOT NULL DEFAULT (randomblob(16)), owner BLOB REFERENCES person(id), n INT)
      WITHOUT ROWID;
    CREATE INDEX pet_owner ON pet(owner, n);
    CREATE VIEW pets AS SELECT p.name, q.n FROM person p JOIN pet q ON q.owner = p.id;
    INSERT INTO person(name) VALUES ('ann'); INSERT INTO pet(owner, n) SELECT id, 2 FROM person;";

/// What the doctor says, and with which exit code.
fn examine(flags: &[&str], databases: &[&Path]) -> (i32, Value) {
    let mut args: Vec<&std::ffi::OsStr> = vec!["doctor".as_ref(), "-o".as_ref(), "json".as_ref()];
    args.extend(flags.iter().map(std::ffi::OsStr::new));
    args.push("--db".as_ref());
    args.extend(databases.iter().map(|path| path.as_os_str()));
    answer(&twinlite(&args))
}

fn answer(output: &std::process::Output) -> (i32, Value) {
    let err = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {err}"));
    (output.status.code().unwrap(), json)
}

/// Findings of the first database as `severity check`.
fn names(answer: &Value) -> BTreeSet<String> {
    let findings = answer["databases"][0]["findings"].as_array().unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    findings.iter().map(|finding| format!("{} {}", word(&finding["severity"]), word(&finding["check"]))).collect()
}

fn finding<'a>(answer: &'a Value, check: &str) -> &'a Value {
    let findings = answer["databases"][0]["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check} in {answer:#}"))
}

/// That the check is found, and says this; and that only it and what belongs to it is.
#[track_caller]
fn expect(path: &Path, flags: &[&str], wanted: &[&str], says: &str) {
    let (code, answer) = examine(flags, &[path]);
    let wanted: BTreeSet<String> = wanted.iter().map(|word| (*word).to_owned()).collect();
    assert_eq!(names(&answer), wanted, "{answer:#}");
    let is_error = wanted.iter().any(|word| word.starts_with("error "));
    assert_eq!((code, &answer["healthy"]), (if is_error { 3 } else { 0 }, &Value::Bool(!is_error)));
    assert!(answer.to_string().contains(says), "{says}: {answer:#}");
}

/// A database of this schema that nobody has open.
fn made(place: &Place, ddl: &str) -> std::path::PathBuf {
    let path = place.source();
    open(&path).execute_batch(ddl).unwrap();
    path
}

/// The same, captured.
fn captured(place: &Place, ddl: &str) -> std::path::PathBuf {
    let path = made(place, ddl);
    expect_code(0, &["setup".as_ref(), "--db".as_ref(), path.as_os_str()]);
    path
}

fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(Result::unwrap);
    let mut files: Vec<(String, Vec<u8>)> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

const SIMPLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t(a) VALUES (1), (2);";

#[test]
fn a_healthy_database_has_no_finding_and_is_left_as_it_was() {
    for capture in [false, true] {
        let place = Place::new();
        let path = if capture { captured(&place, HEALTHY) } else { made(&place, HEALTHY) };
        // The last one to close it empties the WAL.
        drop(open(&path).execute_batch("SELECT 1 FROM person"));
        let before = files(&path);
        assert_eq!(before.len(), 1, "{:?}", before.iter().map(|(name, _)| name).collect::<Vec<_>>());
        expect(&path, &["--two-way"], &[], "\"findings\":[]");
        assert!(files(&path) == before, "nothing was written, nothing was made");
        let said = expect_code(0, &["doctor".as_ref(), "--db".as_ref(), path.as_os_str()]);
        assert_eq!(said, format!("{}\n  nothing found\n", path.display()));
    }
}

#[test]
fn what_a_writer_has_just_committed_is_examined_too() {
    let place = Place::new();
    let path = made(&place, SIMPLE);
    let conn = open(&path);
    conn.execute_batch("CREATE TABLE bare(a); INSERT INTO bare VALUES (1)").unwrap();
    let writing = conn.unchecked_transaction().unwrap();
    writing.execute_batch("INSERT INTO bare VALUES (2)").unwrap();
    expect(&path, &["--two-way"], &["error no_primary_key", "warning auto_assigned_key"], "bare");
    writing.commit().unwrap();
}

#[test]
fn wrong_usage_is_no_finding() {
    let place = Place::new();
    let said = expect_failure(2, &["doctor".as_ref(), "--db".as_ref(), place.source().as_os_str()]);
    assert!(said.contains("no such database"), "{said}");
    assert!(!place.source().exists());
    expect_failure(2, &["doctor"]);
    let said = expect_failure(2, &["doctor".as_ref(), "--db".as_ref(), place.source().parent().unwrap().as_os_str()]);
    assert!(said.contains("a folder"), "{said}");
}

// The file.

#[test]
fn not_a_database_is_found() {
    let place = Place::new();
    fs::write(place.source(), "just some text, long enough to be no header of a database at all. ".repeat(20)).unwrap();
    expect(&place.source(), &[], &["error not_a_database"], "or an encrypted one");
}

#[test]
fn an_exclusive_lock_is_found() {
    let place = Place::new();
    let path = made(&place, SIMPLE);
    let conn = open(&path);
    conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t(a) VALUES (3)").unwrap();
    expect(&path, &[], &["error locked"], "locking_mode=NORMAL");
}

#[test]
fn a_hot_journal_is_found_and_stays() {
    let place = Place::new();
    let path = place.source();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA cache_size = 1; PRAGMA cache_spill = 1;").unwrap();
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, zeroblob(200000)); BEGIN;")
        .unwrap();
    conn.execute_batch("UPDATE t SET a = randomblob(200000)").unwrap();
    // As a crash leaves it: the file, and the journal of what was under way.
    let crashed = place.file("crashed.db");
    fs::copy(&path, &crashed).unwrap();
    let journal = place.file("crashed.db-journal");
    fs::copy(place.file("source.db-journal"), &journal).unwrap();
    expect(&crashed, &[], &["error hot_journal", "warning not_wal"], "crashed.db has a journal");
    assert!(journal.exists());
}

#[test]
fn damage_is_found() {
    let place = Place::new();
    let path = made(&place, "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE INDEX i ON t(a);
        WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000) INSERT INTO t SELECT n, n FROM n;");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let (code, answer) = examine(&[], &[&path]);
    assert_eq!((code, finding(&answer, "integrity")["severity"].as_str()), (3, Some("error")), "{answer:#}");
}

#[test]
fn a_rollback_journal_is_found() {
    let place = Place::new();
    let conn = Connection::open(place.source()).unwrap();
    conn.execute_batch(SIMPLE).unwrap();
    expect(&place.source(), &[], &["warning not_wal"], "is not in WAL mode");
}

#[test]
fn another_encoding_is_found() {
    let place = Place::new();
    let conn = Connection::open(place.source()).unwrap();
    conn.execute_batch("PRAGMA encoding = 'UTF-16le'; PRAGMA journal_mode = WAL;").unwrap();
    conn.execute_batch(SIMPLE).unwrap();
    expect(&place.source(), &[], &["error encoding"], "UTF-16le");
}

#[test]
fn what_this_user_cannot_write_is_found() {
    // Root may write anything, so the program then runs as a user who may not.
    const NOBODY: u32 = 65_534;
    let place = Place::new();
    let path = made(&place, SIMPLE);
    let folder = path.parent().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
    let program = place.file("../").canonicalize().unwrap().join(format!("doctor-{}", std::process::id()));
    let mut command = if rustix::process::geteuid().is_root() {
        // Where the user may not reach the built program, a copy of it serves.
        fs::copy(env!("CARGO_BIN_EXE_twinlite"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(&program);
        command.uid(NOBODY).gid(NOBODY);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_twinlite"))
    };
    let (code, answer) = answer(&command.args(["doctor", "-o", "json", "--db"]).arg(&path).output().unwrap());
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let _ = fs::remove_file(&program);
    assert_eq!((code, names(&answer)), (3, BTreeSet::from(["error unwritable".to_owned()])), "{answer:#}");
    let objects = finding(&answer, "unwritable")["objects"].clone();
    assert_eq!(objects, serde_json::json!([path.to_str().unwrap(), folder.to_str().unwrap()]));
}

#[test]
fn what_cannot_be_read_is_found() {
    let place = Place::new();
    let path = made(&place, SIMPLE);
    // A WAL that is a folder: no privilege helps against it.
    fs::create_dir(place.file("source.db-wal")).unwrap();
    let (code, answer) = examine(&[], &[&path]);
    assert_eq!((code, finding(&answer, "unreadable")["severity"].as_str()), (3, Some("error")), "{answer:#}");
}

#[test]
fn a_wal_that_nobody_empties_is_found() {
    let place = Place::new();
    let path = made(&place, SIMPLE);
    let conn = open(&path);
    conn.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    for _ in 0..18 {
        conn.execute_batch("UPDATE t SET a = randomblob(500000)").unwrap();
    }
    expect(&path, &[], &["warning wal_large"], "the database itself 0 MiB");
}

#[test]
fn an_owner_is_found_alive_and_gone() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(SIMPLE).unwrap();
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    for path in [place.source(), place.replica()] {
        expect(&path, &[], &["info owner_alive"], "is owned by the Twinlite process");
    }
    conn.execute_batch("INSERT INTO t(a) VALUES (7)").unwrap();
    quiesce(&place.source(), &place.replica());
    process.kill();
    expect(&place.source(), &[], &["info stale_lock"], "an owner that is gone");
}

#[test]
fn what_stands_in_the_way_of_capture_is_none_of_a_replicas_business() {
    let place = Place::new();
    let ddl =
        "CREATE TABLE u(k TEXT PRIMARY KEY NOT NULL, a UNIQUE) WITHOUT ROWID; CREATE VIRTUAL TABLE f USING fts5(a);";
    made(&place, &format!("{SIMPLE}{ddl}"));
    expect(&place.source(), &[], &["info legacy_rename", "info virtual_table"], "tables whose triggers read them: u");
    replicate_once(&place.source(), &place.replica());
    open(&place.replica()).execute_batch("CREATE VIRTUAL TABLE g USING fts5(a)").unwrap();
    expect(&place.replica(), &[], &[], "findings");
    expect(
        &place.replica(),
        &["--two-way"],
        &["warning auto_assigned_key", "warning unique_besides_key", "info legacy_rename", "info virtual_table"],
        "g",
    );
}

// What Twinlite keeps.

#[test]
fn a_newer_format_is_found() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    open(&path).execute_batch("UPDATE __cdc_meta SET value = 99 WHERE key = 'format'").unwrap();
    expect(&path, &[], &["error newer_format"], "format 99");
}

#[test]
fn bookkeeping_that_makes_no_sense_is_found() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    open(&path).execute_batch("UPDATE __cdc_tables SET columns = 'no json'").unwrap();
    expect(&path, &[], &["error bookkeeping"], "did not write there");
}

#[test]
fn a_log_that_is_gone_while_triggers_stand_is_found() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    let conn = open(&path);
    conn.execute_batch("DROP TABLE __cdc_log").unwrap();
    assert!(conn.execute_batch("INSERT INTO t(a) VALUES (3)").is_err(), "this is what it means");
    expect(&path, &[], &["error log_missing", "info schema_moved"], "__cdc_log");
    expect_code(0, &["teardown".as_ref(), "--db".as_ref(), path.as_os_str()]);
    // A connection that has only seen the failure reads the schema again with its next other statement.
    conn.execute_batch("SELECT * FROM t; INSERT INTO t(a) VALUES (3)").unwrap();
    expect(&path, &[], &[], "findings");
}

#[test]
fn a_full_log_and_a_nearly_full_one_are_found() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    let conn = open(&path);
    conn.execute_batch("UPDATE t SET a = 3; UPDATE t SET a = 4; UPDATE t SET a = 5; UPDATE t SET a = 6").unwrap();
    let limit = |limit: &str| {
        let sql = format!("UPDATE __cdc_meta SET value = {limit} WHERE key = 'capture_limit'");
        conn.execute_batch(&sql).unwrap();
    };
    limit("(SELECT max(seq) + 1 FROM __cdc_log)");
    expect(&path, &[], &["warning log_near_full"], "before its triggers stop: 1");
    limit("(SELECT max(seq) FROM __cdc_log)");
    expect(&path, &[], &["error log_full"], "the triggers of __cdc_log stopped");
}

#[test]
fn the_log_of_sqlite_cdc_is_found() {
    let place = Place::new();
    let ddl = "CREATE TABLE __cdc_log(id INTEGER PRIMARY KEY, timestamp, tablename, operation, before, after);";
    let path = made(&place, &format!("{SIMPLE}{ddl}"));
    expect(&path, &[], &["error foreign_log"], "--take-over");
}

#[test]
fn triggers_that_are_gone_or_altered_are_found() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    let conn = open(&path);
    conn.execute_batch("DROP TRIGGER __cdc_1_ad").unwrap();
    expect(&path, &[], &["error triggers_off", "info schema_moved"], "__cdc_1_ad on t");
    conn.execute_batch("CREATE TRIGGER __cdc_1_ad AFTER DELETE ON t BEGIN SELECT 1; END").unwrap();
    expect(&path, &[], &["error triggers_off", "info schema_moved"], "__cdc_1_ad on t");
    expect_code(0, &["setup".as_ref(), "--db".as_ref(), path.as_os_str()]);
    expect(&path, &[], &[], "\"findings\":[]");
    let rebuild = "CREATE TABLE n(id INTEGER PRIMARY KEY, a); DROP TABLE t; ALTER TABLE n RENAME TO t;";
    conn.execute_batch(rebuild).unwrap();
    expect(&path, &[], &["error triggers_off", "info schema_moved"], "__cdc_1_ai on t");
}

#[test]
fn a_younger_trigger_is_found() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    open(&path).execute_batch("CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT 1; END").unwrap();
    expect(&path, &[], &["warning younger_trigger", "info schema_moved"], "mine on t");
}

#[test]
fn a_schema_that_moved_is_found_with_what_comes_of_it() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    open(&path).execute_batch("VACUUM").unwrap();
    expect(&path, &[], &["info schema_moved"], "VACUUM ran");
}

#[test]
fn a_consumer_that_was_cut_off_is_found() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    let sql =
        "INSERT INTO __cdc_consumers(name, kind, peer, epoch, seq, at, cut_off) VALUES ('away', 'link', 5, 1, 1, 1, 1)";
    open(&path).execute_batch(sql).unwrap();
    expect(&path, &[], &["warning cut_off"], "away");
}

#[test]
fn conflicts_and_unfinished_copies_are_found() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    let conn = open(&path);
    conn.execute_batch(
        "INSERT INTO __cdc_conflicts(at, peer, tbl, key, winner, policy, why, columns)
         VALUES (1, 5, 't', x'00', 'local', 'last_write_wins', 'concurrent', '[]')",
    )
    .unwrap();
    expect(&path, &[], &["warning conflicts"], "conflicts recorded in tables t: 1");
    conn.execute_batch(
        "DELETE FROM __cdc_conflicts; INSERT INTO __cdc_copies(peer, id, name, state) VALUES (5, 1, 't', 'copying')",
    )
    .unwrap();
    expect(&path, &[], &["info copy_unfinished"], "not yet copied whole: t");
}

#[test]
fn a_copied_file_is_found_beside_its_original() {
    let place = Place::new();
    let path = captured(&place, SIMPLE);
    open(&path).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let copy = place.file("copy.db");
    fs::copy(&path, &copy).unwrap();
    let (code, answer) = examine(&[], &[&path, &copy]);
    assert_eq!((code, names(&answer)), (3, BTreeSet::from(["error same_node_id".to_owned()])), "{answer:#}");
    assert_eq!(answer["databases"][1]["findings"][0]["objects"][0], path.to_str().unwrap());
    expect(&copy, &[], &[], "node_id");
    let (code, answer) = examine(&[], &[&path, &path]);
    assert_eq!((code, answer["databases"].as_array().unwrap().len()), (0, 1), "a file named twice is one");
}

// Tables.

/// A schema, the flags, what is found, and a word of it.
type Case = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

const TABLES: &[Case] = &[
    (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t(id % 3)",
        &[],
        &["warning not_captured"],
        "that SQLite assigns",
    ),
    ("CREATE TABLE t(a, rowid, oid, _rowid_)", &[], &["warning not_captured"], "hide every name"),
    ("CREATE TABLE t(id INTEGER PRIMARY KEY, __cdc_a)", &[], &["warning not_captured"], "is Twinlite's own"),
    ("CREATE VIRTUAL TABLE f USING fts5(a)", &[], &["info virtual_table"], "not captured: f\""),
    ("CREATE TABLE t(k INT PRIMARY KEY NOT NULL, a) WITHOUT ROWID", &["--two-way"], &[], "findings"),
    (
        "CREATE TABLE t(a TEXT, b TEXT NOT NULL, PRIMARY KEY(a, b)); INSERT INTO t VALUES ('x', 'y'), (NULL, 'z')",
        &[],
        &["warning null_in_key", "info legacy_rename"],
        "t.a",
    ),
    ("CREATE TABLE t(a)", &["--two-way"], &["error no_primary_key"], "randomblob"),
    ("CREATE TABLE t(a)", &[], &[], "findings"),
    ("CREATE TABLE t(n INTEGER PRIMARY KEY AUTOINCREMENT)", &["--two-way"], &["warning auto_assigned_key"], "t.n"),
    (
        "CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL, a, b UNIQUE) WITHOUT ROWID; CREATE UNIQUE INDEX u ON t(lower(a))",
        &["--two-way"],
        &["warning unique_besides_key", "info legacy_rename"],
        "t(b), u on t",
    ),
    (
        "CREATE TABLE t(k TEXT PRIMARY KEY ON CONFLICT REPLACE NOT NULL) WITHOUT ROWID",
        &[],
        &["info replace_in_schema"],
        "tables t\"",
    ),
    (
        "CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL, a INT UNIQUE) STRICT, WITHOUT ROWID",
        &[],
        &["info strict_ignore", "info legacy_rename"],
        "OR IGNORE",
    ),
    (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT); CREATE INDEX i ON t(\"s\") WHERE s = \"active\"",
        &[],
        &["info double_quoted_string"],
        "i on t",
    ),
    (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT); CREATE INDEX i ON t(\"s\") WHERE \"s\" = 'active'",
        &[],
        &[],
        "findings",
    ),
];

const P: &str = "CREATE TABLE p(id TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID;";

const RELATIONS: &[Case] = &[
    (
        "CREATE TABLE c(id TEXT PRIMARY KEY NOT NULL, p REFERENCES p(id)) WITHOUT ROWID",
        &["--two-way"],
        &["warning foreign_key_index"],
        "c(p) to p",
    ),
    ("CREATE TABLE c(id TEXT PRIMARY KEY NOT NULL, p REFERENCES p(id)) WITHOUT ROWID", &[], &[], "findings"),
    ("CREATE TABLE c(p REFERENCES p(id), n, PRIMARY KEY(p, n)) WITHOUT ROWID", &["--two-way"], &[], "findings"),
    (
        "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id)); INSERT INTO c VALUES (1, 'x'), (2, 'y'), (3, NULL)",
        &[],
        &["warning foreign_key_broken"],
        "2 rows of table c",
    ),
    (
        "CREATE TABLE q(id INTEGER PRIMARY KEY, a); CREATE TABLE c(id INTEGER PRIMARY KEY, q REFERENCES q(a)); INSERT INTO c VALUES (1, 1)",
        &[],
        &["warning foreign_key_mismatch"],
        "foreign key mismatch",
    ),
    ("CREATE VIEW v AS SELECT a FROM nowhere", &[], &["warning broken_view"], "no such table: main.nowhere"),
    ("CREATE VIEW v AS SELECT only_the_application_has_it(id) FROM p", &[], &[], "findings"),
];

#[test]
fn faults_of_tables_are_found() {
    crate::support::each_case(
        TABLES,
        |case| case.0.to_owned(),
        |(ddl, flags, wanted, says)| {
            let place = Place::new();
            expect(&made(&place, ddl), flags, wanted, says);
        },
    );
}

#[test]
fn faults_between_tables_are_found() {
    crate::support::each_case(
        RELATIONS,
        |case| case.0.to_owned(),
        |(ddl, flags, wanted, says)| {
            let place = Place::new();
            expect(&made(&place, &format!("{P}{ddl}")), flags, wanted, says);
        },
    );
}

#[test]
fn a_wide_table_is_found() {
    let place = Place::new();
    let columns: String = (0..600).map(|place| format!(", c{place}")).collect();
    let path = made(&place, &format!("CREATE TABLE t(id INTEGER PRIMARY KEY{columns})"));
    expect(&path, &[], &["info wide_table"], "500 columns: t");
}

#[test]
fn a_configuration_says_which_tables_and_whether_triggers_fire_on_both_sides() {
    let place = Place::new();
    let path = made(
        &place,
        &format!(
            "{HEALTHY} CREATE TABLE bare(a); CREATE TRIGGER counts AFTER INSERT ON pet BEGIN
             UPDATE person SET name = name || '+' WHERE id = NEW.owner; END;"
        ),
    );
    let config = place.file("node.yaml");
    let examine = |links: &str| {
        let yaml = format!(
            "name: a\nspec: {{ connection_string: {} }}\nskip_tables: [bare]\nlinks: [{{ name: b, peer: '127.0.0.1:9', {links} }}]\n",
            path.display()
        );
        fs::write(&config, yaml).unwrap();
        let args = ["doctor".as_ref(), "-o".as_ref(), "json".as_ref(), "--config".as_ref(), config.as_os_str()];
        answer(&twinlite(&args))
    };
    let (code, answer) = examine("directions: both");
    assert_eq!((code, names(&answer)), (0, BTreeSet::new()), "{answer:#}");
    let (code, answer) = examine("directions: both, user_triggers: on");
    assert_eq!((code, names(&answer)), (3, BTreeSet::from(["error trigger_writes".to_owned()])), "{answer:#}");
    assert_eq!(finding(&answer, "trigger_writes")["objects"], serde_json::json!(["counts on pet"]));
    let (code, answer) = examine("directions: send");
    assert_eq!((code, names(&answer)), (0, BTreeSet::new()), "{answer:#}");
}

/// Of the file system that a test runs on nothing is known, and a database that takes long to read takes long to make:
/// unit tests hold these.
const HELD_ELSEWHERE: [&str; 3] = ["network_file_system", "guest_file_system", "not_examined"];

#[test]
fn each_check_has_a_test_here() {
    let here = include_str!("doctor.rs");
    for check in twinlite::doctor::CHECKS.iter().copied().flatten() {
        let expected = format!("{} {}\"", check.severity.word(), check.name);
        let looked_for = format!("finding(&answer, \"{}\")", check.name);
        let is_held = here.contains(&expected) || here.contains(&looked_for) || HELD_ELSEWHERE.contains(&check.name);
        assert!(is_held, "no test finds {}", check.name);
    }
}
