//! What cannot work is refused: the message says what, where and what to do, once and on one line; the exit code says
//! whose fault it is; and nothing is lost.

use std::{ffi::OsString, fs, path::Path, process::Command};

use rusqlite::Connection;

use crate::support::{
    Place, open, open_reader,
    oracle::{Oracle, assert_equal},
    process::{Process, expect_code, quiesce, replicate_once, twinlite},
    skipped,
};

const SMALL: &str = "CREATE TABLE a(x INTEGER PRIMARY KEY, y); INSERT INTO a VALUES (1, 'one'), (2, NULL);";

pub fn small(path: &Path) -> Connection {
    let conn = open(path);
    conn.execute_batch(SMALL).unwrap();
    conn
}

/// A command line in which `{s}` is the source, `{r}` the replica and `{d}` their folder.
fn words(place: &Place, line: &str) -> Vec<OsString> {
    let (source, replica) = (place.source().display().to_string(), place.replica().display().to_string());
    let folder = place.file("").display().to_string();
    let word = |word: &str| word.replace("{s}", &source).replace("{r}", &replica).replace("{d}/", &folder);
    line.split(' ').map(|part| word(part).into()).collect()
}

/// Panics unless the command ends with `code`, and its last line on stderr says all of `said`, once.
#[track_caller]
pub fn refused(place: &Place, code: i32, line: &str, said: &[&str]) -> String {
    judge(place, Command::new(env!("CARGO_BIN_EXE_twinlite")).args(words(place, line)), code, said)
}

#[track_caller]
fn judge(place: &Place, command: &mut Command, code: i32, said: &[&str]) -> String {
    let output = command.output().unwrap();
    let all = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{all}");
    let last = all.lines().last().unwrap_or_default().to_owned();
    for bad in ["panicked", "Error code", "backtrace"] {
        assert!(!all.contains(bad), "{command:?}\n{all}");
    }
    let folder = place.file("").display().to_string();
    let short = last.replace(&folder, "");
    for word in said {
        assert!(short.contains(word), "{command:?}: no {word:?} in: {short}");
    }
    let parts: Vec<&str> = short.split([':', ';']).map(str::trim).filter(|part| part.len() > 12).collect();
    for (at, part) in parts.iter().enumerate() {
        assert!(!parts[at + 1..].contains(part), "{command:?} says {part:?} twice: {short}");
    }
    all
}

fn schema(path: &Path) -> Vec<String> {
    let conn = open_reader(path);
    let mut statement = conn.prepare("SELECT type || name || coalesce(sql, '') FROM sqlite_schema ORDER BY 1").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

type Make = fn(&Path);

/// Files that no command can use, and what its message says.
const UNUSABLE: &[(&str, Make, &[&str])] = &[
    ("text", |path| fs::write(path, "not a database at all, but long enough for a header".repeat(9)).unwrap(), NOT_ONE),
    (
        "encrypted",
        |path| {
            fs::write(path, (0..8192_usize).map(|n| ((n * 7919) >> 3).to_le_bytes()[0]).collect::<Vec<_>>()).unwrap();
        },
        NOT_ONE,
    ),
    ("folder", |path| fs::create_dir(path).unwrap(), &["a folder", "name the file"]),
    ("cut off", cut_off, &["damaged", "restore it from a backup"]),
    (
        "UTF-16",
        |path| open(path).execute_batch("PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(x)").unwrap(),
        &["UTF-16le"],
    ),
];
const NOT_ONE: &[&str] = &["not a SQLite database", "check the path"];

fn cut_off(path: &Path) {
    drop(small(path));
    let bytes = fs::read(path).unwrap();
    assert!(bytes.len() > 4096, "the application's last connection moved its WAL into the file");
    fs::write(path, &bytes[..4096]).unwrap();
}

#[test]
fn a_file_that_is_no_usable_database_is_refused_by_every_command() {
    for (what, make, said) in UNUSABLE {
        let place = Place::new();
        make(&place.file("bad"));
        drop(small(&place.source()));
        let before = schema(&place.source());
        let said: Vec<&str> = said.iter().copied().chain(["bad"]).collect();
        for line in [
            "replicate {d}/bad {r} --once",
            "replicate {s} {d}/bad --once",
            "plan --db {d}/bad",
            "setup --db {d}/bad",
            "teardown --db {d}/bad",
            "resync --db {d}/bad",
            "status --db {d}/bad",
        ] {
            refused(&place, 1, line, &said);
        }
        assert_eq!(schema(&place.source()), before, "{what}: the source was touched though the destination is wrong");
        assert!(!place.replica().exists(), "{what}");
    }
}

#[test]
fn a_database_that_is_not_there_is_not_made() {
    let place = Place::new();
    for line in ["replicate {s} {r} --once", "plan --db {s}", "setup --db {s}", "teardown --db {s}", "status --db {s}"]
    {
        refused(&place, 2, line, &["source.db", "no such database", "check the path"]);
    }
    assert!(!place.source().exists() && !place.replica().exists());
    drop(small(&place.source()));
    refused(&place, 1, "replicate {s} {d}/nowhere/r.db --once", &["nowhere", "no such folder"]);
    assert!(!schema(&place.source()).join("").contains("__cdc_"));
}

#[test]
fn damaged_pages_halt_with_the_file_and_the_way_out() {
    let place = Place::new();
    let conn = small(&place.source());
    conn.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO a SELECT i, hex(randomblob(100)) FROM n",
    )
    .unwrap();
    drop(conn);
    let mut bytes = fs::read(place.source()).unwrap();
    for page in 8..20 {
        bytes[page * 4096..page * 4096 + 300].fill(0xff);
    }
    fs::write(place.source(), bytes).unwrap();
    refused(&place, 1, "replicate {s} {r} --once", &["source.db", "malformed", "restore it from a backup"]);
}

/// The command without root's right to write what nobody may; `None` where that cannot be had.
fn without_privileges(place: &Place, line: &str) -> Option<Command> {
    let program = env!("CARGO_BIN_EXE_twinlite");
    let mut command = if rustix::process::geteuid().is_root() {
        let drop = ["--bounding-set", "-dac_override,-dac_read_search,-fowner", "--inh-caps", "-all"];
        let works = Command::new("setpriv").args(drop).arg("true").output();
        if !works.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let mut command = Command::new("setpriv");
        command.args(drop).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.args(words(place, line));
    Some(command)
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_may_not_be_written_is_named() {
    let place = Place::new();
    drop(small(&place.source()));
    drop(small(&place.file("open.db")));
    let folder = place.file("closed");
    fs::create_dir(&folder).unwrap();
    drop(small(&folder.join("s.db")));
    mode(&folder, 0o555);
    mode(&folder.join("s.db"), 0o444);
    mode(&place.source(), 0o444);
    for (line, said) in [
        ("setup --db {s}", &["source.db", "writable"][..]),
        ("replicate {s} {r} --once", &["source.db", "writable"]),
        ("setup --db {d}/closed/s.db", &["closed/s.db", "writable"]),
        ("replicate {d}/closed/s.db {r} --once", &["closed/s.db"]),
        ("replicate {d}/open.db {d}/closed/r.db --once", &["closed/r.db", "check owner and mode of the folder"]),
    ] {
        let Some(mut command) = without_privileges(&place, line) else {
            mode(&folder, 0o755);
            return skipped("what_may_not_be_written_is_named", "root needs setpriv (util-linux) to lose its rights");
        };
        judge(&place, &mut command, 1, said);
    }
    mode(&folder, 0o755);
}

/// A database with a rollback journal, and a reader in the middle of it.
fn read_in_rollback_mode(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(SMALL).unwrap();
    conn.execute_batch("BEGIN; SELECT * FROM a").unwrap();
    conn.query_row("SELECT count(*) FROM a", [], |_| Ok(())).unwrap();
    conn
}

#[test]
fn a_journal_mode_that_cannot_be_switched_is_explained() {
    let place = Place::new();
    let reader = read_in_rollback_mode(&place.source());
    for line in ["setup --db {s}", "replicate {s} {r} --once"] {
        refused(&place, 1, line, &["source.db", "journal mode is delete", "WAL", "close what else has"]);
    }
    expect_code(0, &words(&place, "plan --db {s}"));
    assert!(!schema(&place.source()).join("").contains("__cdc_"));
    drop(reader);
    // At the replica too; what was there stays there.
    let reader = read_in_rollback_mode(&place.replica());
    refused(&place, 1, "replicate {s} {r} --once", &["replica.db", "journal mode is delete", "close what else has"]);
    reader.execute_batch("COMMIT; DROP TABLE a; CREATE TABLE mine(x)").unwrap();
    drop(reader);
    replicate_once(&place.source(), &place.replica());
    Oracle { extra: vec!["mine".to_owned()], ..Oracle::default() }.assert_equal(&place.source(), &place.replica());
}

#[test]
fn a_lock_that_somebody_holds_is_named() {
    let exclusive = "another process holds an exclusive lock";
    let write = "another connection holds its lock";
    for (lock, said) in [
        ("BEGIN EXCLUSIVE", write),
        ("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; INSERT INTO a VALUES (9, 9); COMMIT", exclusive),
        ("BEGIN IMMEDIATE", write),
    ] {
        let place = Place::new();
        let conn = small(&place.source());
        conn.execute_batch(lock).unwrap();
        for line in ["setup --db {s}", "replicate {s} {r} --once"] {
            refused(&place, 1, line, &["source.db", said, "end"]);
        }
        drop(conn);
        replicate_once(&place.source(), &place.replica());
        assert_equal(&place.source(), &place.replica());
    }
}

#[test]
fn source_and_replica_are_two_files_whatever_they_are_called() {
    let place = Place::new();
    drop(small(&place.source()));
    std::os::unix::fs::symlink(place.source(), place.file("symbolic.db")).unwrap();
    fs::hard_link(place.source(), place.file("hard.db")).unwrap();
    for other in ["source.db", "./source.db", "symbolic.db", "hard.db"] {
        let line = format!("replicate {{s}} {{d}}/{other} --once");
        refused(&place, 1, &line, &["source.db and", other, "are the same file; name two"]);
    }
    std::os::unix::fs::symlink(place.file("nothing.db"), place.file("dangling.db")).unwrap();
    refused(&place, 1, "replicate {s} {d}/dangling.db --once", &["dangling.db", "symbolic link", "nothing.db"]);
    assert!(!schema(&place.source()).join("").contains("__cdc_"));
}

#[test]
fn tables_that_the_destination_has_of_its_own_are_left_alone() {
    for own in [
        "CREATE TABLE a(quite, different); INSERT INTO a VALUES (1, 2)",
        "CREATE TABLE a(x INTEGER PRIMARY KEY, y); INSERT INTO a VALUES (77, 'mine')",
        "CREATE VIEW a AS SELECT 1 AS x, 2 AS y",
    ] {
        let place = Place::new();
        drop(small(&place.source()));
        let conn = open(&place.replica());
        conn.execute_batch(own).unwrap();
        let row = |conn: &Connection| -> (i64, String) {
            conn.query_row("SELECT * FROM a", [], |row| Ok((row.get(0)?, format!("{:?}", row.get_ref(1)?)))).unwrap()
        };
        let before = row(&conn);
        refused(&place, 1, "replicate {s} {r} --once", &["replica.db", "table \"a\"", "rename or drop it"]);
        assert_eq!(row(&conn), before, "{own}");
        if own.contains("TABLE") {
            // The way out that the message names.
            conn.execute_batch("ALTER TABLE a RENAME TO mine").unwrap();
            replicate_once(&place.source(), &place.replica());
            let kept: i64 = conn.query_row("SELECT count(*) FROM mine", [], |row| row.get(0)).unwrap();
            assert_eq!(kept, 1);
        }
    }
}

#[test]
fn a_second_owner_of_either_side_is_refused_with_the_pid_of_the_first() {
    let place = Place::new();
    drop(small(&place.source()));
    drop(small(&place.file("other.db")));
    let mut first = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    refused(
        &place,
        1,
        "replicate {s} {d}/new.db --once",
        &["source.db", "owned by another Twinlite process (pid ", "stop"],
    );
    refused(&place, 1, "replicate {d}/other.db {r} --once", &["replica.db", "owned by another Twinlite process (pid "]);
    assert!(!schema(&place.file("other.db")).join("").contains("__cdc_"));
    first.assert_running();
    first.stop();
}

const SQLITE_CDC: &str = "CREATE TABLE __cdc_log(id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL,
        tablename TEXT NOT NULL, operation TEXT NOT NULL, before TEXT, after TEXT);
    CREATE TRIGGER a__cdc_insert AFTER INSERT ON a BEGIN
        INSERT INTO __cdc_log(timestamp, tablename, operation) VALUES (datetime(), 'a', 'CREATE'); END;
    INSERT INTO a VALUES (3, 3);";

/// `teardown` took the other engine's log for ours by its name, and then every write of the application failed.
#[test]
fn a_log_of_sqlite_cdc_is_refused_kept_by_teardown_and_taken_over_when_asked() {
    let place = Place::new();
    let conn = small(&place.source());
    conn.execute_batch(SQLITE_CDC).unwrap();
    let before = schema(&place.source());
    for line in ["plan --db {s}", "setup --db {s}", "replicate {s} {r} --once"] {
        refused(&place, 1, line, &["source.db", "change log of sqlite-cdc", "--take-over"]);
    }
    expect_code(0, &words(&place, "teardown --db {s}"));
    assert_eq!(schema(&place.source()), before);
    conn.execute_batch("INSERT INTO a VALUES (4, 4)").unwrap();
    let said = expect_code(0, &words(&place, "setup --db {s} --take-over"));
    assert!(
        said.contains("kept 2 entries of sqlite-cdc")
            && said.contains("source.db sqlite-cdc`")
            && said.contains("a__cdc_insert"),
        "{said}"
    );
    conn.execute_batch("INSERT INTO a VALUES (5, 5)").unwrap();
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}

#[test]
fn a_newer_format_is_refused_by_every_command_and_left_as_it_is() {
    let place = Place::new();
    let conn = small(&place.source());
    expect_code(0, &words(&place, "setup --db {s}"));
    conn.execute_batch("UPDATE __cdc_meta SET value = 9999 WHERE key = 'format'").unwrap();
    drop(small(&place.file("other.db")));
    let before = (schema(&place.source()), log_rows(&place.source()));
    fs::write(place.file("x.sql"), "CREATE TABLE new(x)").unwrap();
    for line in [
        "replicate {s} {r} --once",
        "replicate {d}/other.db {s} --once",
        "plan --db {s}",
        "setup --db {s}",
        "teardown --db {s}",
        "resync --db {s}",
        "ddl --db {s} {d}/x.sql",
        "status --db {s}",
    ] {
        refused(&place, 1, line, &["source.db", "format 9999", "run the newer binary"]);
    }
    assert_eq!((schema(&place.source()), log_rows(&place.source())), before);
}

fn log_rows(path: &Path) -> i64 {
    open_reader(path).query_row("SELECT count(*) FROM __cdc_log", [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_typed_wrong_is_a_usage_error() {
    let place = Place::new();
    drop(small(&place.source()));
    for (line, said) in [
        ("replicate {s} {r} --tables [", &["--tables", "'['"][..]),
        ("setup --db {s} --skip-tables [", &["--skip-tables", "'['"]),
        ("setup --db {s} --log-table mine", &["source.db", "\"mine\"", "begin with \"__cdc_\""]),
        ("run --config {d}/none.yaml", &["none.yaml", "read the configuration"]),
    ] {
        refused(&place, 2, line, said);
    }
    for line in [
        "status",
        "replicate {s}",
        "bogus",
        "sample {d}/x.db --size big",
        "replicate {s} {r} --verify",
        "setup --db {s} --images both",
    ] {
        let output = twinlite(&words(&place, line));
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
    assert!(!schema(&place.source()).join("").contains("__cdc_"));
}

#[test]
fn a_copy_of_the_sources_file_is_no_replica() {
    let place = Place::new();
    drop(small(&place.source()));
    expect_code(0, &words(&place, "setup --db {s}"));
    open(&place.source()).execute("VACUUM INTO ?1", [place.replica().to_str().unwrap()]).unwrap();
    refused(&place, 1, "replicate {s} {r} --once", &["one is a copy of the other's file", "teardown"]);
}

#[test]
fn a_recreated_source_is_told_from_the_old_one_with_the_way_out() {
    let place = Place::new();
    drop(small(&place.source()));
    replicate_once(&place.source(), &place.replica());
    expect_code(0, &words(&place, "teardown --db {s}"));
    refused(&place, 1, "replicate {s} {r} --once", &["\"source\"", "remove", "replica.db", "anew"]);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", place.replica().display()));
    }
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}

/// A typing error in a glob copied nothing, and `--verify` called that equal.
#[test]
fn a_glob_that_matches_no_table_is_told_and_nothing_is_done() {
    let place = Place::new();
    drop(small(&place.source()));
    let before = schema(&place.source());
    for line in [
        "replicate {s} {r} --once --verify --tables custmers",
        "replicate {s} {r} --tables a --tables b*",
        "plan --db {s} --tables custmers",
        "setup --db {s} --tables a --tables custmers",
    ] {
        refused(&place, 2, line, &["--tables", "no table", "matches"]);
    }
    assert_eq!(schema(&place.source()), before);
    assert!(!place.replica().exists());
}

/// Capture in a database that only receives would log every change that is applied, for nobody.
#[test]
fn setup_on_a_node_that_only_receives_is_refused() {
    let place = Place::new();
    drop(small(&place.replica()));
    let before = schema(&place.replica());
    let config = format!(
        "name: replica\nspec: {{ connection_string: {} }}\nlinks: [{{ name: source, directions: receive, peer: 'h:1' }}]\n",
        place.replica().display()
    );
    fs::write(place.file("replica.yaml"), config).unwrap();
    for command in ["setup", "plan"] {
        let line = format!("{command} --config {{d}}/replica.yaml");
        refused(&place, 2, &line, &["replica.db", "only receives", "name the source"]);
    }
    assert_eq!(schema(&place.replica()), before);
}
