//! The commands that work on one database, as a person types them: beside a process that owns it, and without one.

use std::{fs, io::Write as _, path::Path, process::Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    Place, open, open_reader,
    oracle::assert_equal,
    pair::{Options, running},
    process::{Process, expect_code, expect_failure, http_get, quiesce, replicate_once, status},
    skipped,
    wait::until,
};

const FAMILY: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, n TEXT);
    CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id) ON DELETE CASCADE);
    CREATE VIEW both AS SELECT p.n, c.id FROM p JOIN c ON c.p = p.id;
    INSERT INTO p VALUES (1, 'a'), (2, 'b'); INSERT INTO c VALUES (1, 1), (2, 2), (3, 2);";

/// SQLite's own procedure, as its documentation writes it.
const TWELVE_STEPS: &str = "PRAGMA foreign_keys=OFF;
BEGIN;
CREATE TABLE p_new(id INTEGER PRIMARY KEY, n TEXT NOT NULL DEFAULT 'x', extra INT CHECK(extra IS NULL OR extra > 0));
INSERT INTO p_new(id, n) SELECT id, n FROM p;
DROP VIEW both;
DROP TABLE p;
ALTER TABLE p_new RENAME TO p;
CREATE INDEX p_n ON p(n);
CREATE VIEW both AS SELECT p.n, c.id FROM p JOIN c ON c.p = p.id;
PRAGMA foreign_key_check;
COMMIT;
PRAGMA foreign_keys=ON;
";

fn family(path: &Path) -> Connection {
    let conn = open(path);
    conn.execute_batch(FAMILY).unwrap();
    conn.pragma_update(None, "foreign_keys", true).unwrap();
    conn
}

fn db<'a>(command: &'a str, path: &'a Path, more: &[&'a str]) -> Vec<&'a std::ffi::OsStr> {
    let more = more.iter().map(|word: &&'a str| std::ffi::OsStr::new(*word));
    [command.as_ref(), "--db".as_ref(), path.as_os_str()].into_iter().chain(more).collect()
}

fn number(path: &Path, sql: &str) -> i64 {
    open_reader(path).query_row(sql, [], |row| row.get(0)).unwrap()
}

fn schema(path: &Path) -> Vec<String> {
    let conn = open_reader(path);
    let sql = "SELECT type || '|' || name || '|' || tbl_name || '|' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
    let mut statement = conn.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn teardown_of_proj_db_leaves_what_setup_found() {
    let proj = Path::new("/usr/share/proj/proj.db");
    if !proj.exists() {
        return skipped("teardown_of_proj_db_leaves_what_setup_found", "install the package proj-data");
    }
    let place = Place::new();
    let source = place.source();
    fs::copy(proj, &source).unwrap();
    let before = schema(&source);
    let planned = expect_code(0, &db("plan", &source, &[]));
    assert!(planned.contains("CREATE TRIGGER"), "{planned}");
    assert_eq!(schema(&source), before, "plan changes nothing");
    expect_code(0, &db("setup", &source, &[]));
    assert_ne!(schema(&source), before);
    assert!(expect_code(0, &db("setup", &source, &[])).contains("nothing to do"));
    let said = expect_code(0, &db("teardown", &source, &[]));
    assert!(said.contains("journal mode stays WAL"), "{said}");
    assert_eq!(schema(&source), before);
    assert!(expect_code(0, &db("teardown", &source, &[])).contains("nothing of Twinlite's"));
}

#[test]
fn teardown_beside_an_owner_ends_it_well_on_either_side() {
    for at_the_replica in [false, true] {
        let place = Place::new();
        let conn = family(&place.source());
        let before = schema(&place.source());
        let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
        quiesce(&place.source(), &place.replica());
        let path = if at_the_replica { place.replica() } else { place.source() };
        let said = expect_code(0, &db("teardown", &path, &[]));
        assert!(said.contains("removed table __cdc_meta"), "{said}");
        assert!(process.wait().success(), "{}", process.said());
        assert!(!schema(&path).join("").contains("__cdc_"), "{:?}", schema(&path));
        if !at_the_replica {
            assert_eq!(schema(&path), before);
        }
        conn.execute_batch("INSERT INTO p VALUES (9, 'i')").unwrap();
    }
}

#[test]
fn commands_beside_an_owner_are_done_by_it() {
    let place = Place::new();
    let conn = family(&place.source());
    let source = place.source();
    let mut process = Process::replicate(&source, &place.replica(), &[]);
    quiesce(&source, &place.replica());
    assert!(expect_code(0, &db("plan", &source, &[])).contains("nothing to do"));
    assert!(expect_code(0, &db("setup", &source, &[])).contains("nothing to do"));
    let said = expect_failure(1, &db("setup", &source, &["--tables", "p"]));
    assert!(said.contains("the process that owns this database"), "{said}");
    let said = expect_failure(2, &db("resync", &source, &["nosuch"]));
    assert!(said.contains("\"nosuch\" is not captured"), "{said}");
    for command in ["resync", "setup"] {
        let said = expect_failure(1, &db(command, &place.replica(), &[]));
        assert!(said.contains("replica.db") && said.contains("at its source"), "{said}");
    }
    let script = place.file("twelve.sql");
    fs::write(&script, TWELVE_STEPS).unwrap();
    expect_code(0, &db("ddl", &source, &[script.to_str().unwrap()]));
    conn.execute_batch("INSERT INTO p(id, n, extra) VALUES (3, 'c', 7); INSERT INTO c VALUES (4, 3)").unwrap();
    quiesce(&source, &place.replica());
    assert_equal(&source, &place.replica());
    assert_eq!(number(&place.replica(), "SELECT count(*) FROM c"), 4, "no child was cascaded away");
    process.assert_running();
    process.stop();
}

/// A log has one image mode, which only `setup --images` changes.
#[test]
fn setup_changes_what_entries_carry_and_nothing_else_does() {
    let place = Place::new();
    let conn = family(&place.source());
    let (source, config) = (place.source(), place.file("node.yaml"));
    let text = format!(
        "name: source\nspec: {{ connection_string: {} }}\ncapture: {{ images: full }}\n\
         listen: 127.0.0.1:0\nlinks: [{{ name: replica, directions: send }}]\n",
        source.display()
    );
    fs::write(&config, text).unwrap();
    replicate_once(&source, &place.replica());
    let said = expect_failure(2, &["run", "--config", config.to_str().unwrap()]);
    assert!(said.contains(&format!("twinlite setup --db {} --images full", source.display())), "{said}");
    let entry = |sql: &str| {
        conn.execute_batch(sql).unwrap();
        number(&source, "SELECT count(*) FROM __cdc_log WHERE seq > (SELECT max(seq) FROM __cdc_log WHERE op = 5)")
    };
    assert_eq!(entry("UPDATE p SET n = 'one' WHERE id = 1"), 1);
    let planned = expect_code(0, &db("plan", &source, &["--images", "full"]));
    assert!(planned.contains("ADD COLUMN v0") && planned.contains("BEFORE INSERT"), "{planned}");
    expect_code(0, &db("setup", &source, &["--images", "full"]));
    assert_eq!(entry("UPDATE p SET n = 'two' WHERE id = 1"), 2, "before and after");
    expect_code(0, &db("setup", &source, &[]));
    assert_eq!(entry("UPDATE p SET n = 'three' WHERE id = 1"), 4, "they stay");
    replicate_once(&source, &place.replica());
    assert_equal(&source, &place.replica());
    expect_code(0, &db("setup", &source, &["--images", "key"]));
    assert_eq!(entry("UPDATE p SET n = 'four' WHERE id = 1"), 1);
    replicate_once(&source, &place.replica());
    assert_equal(&source, &place.replica());
    expect_code(0, &db("setup", &source, &["--images", "full"]));
    expect_code(0, &db("doctor", &source, &[]));
    expect_code(0, &db("teardown", &source, &[]));
    assert!(!schema(&source).join("").contains("__cdc_"));
}

/// It was refused beside an owner, with the advice to change a configuration that `replicate` has none of.
#[test]
fn setup_changes_what_entries_carry_beside_an_owner_too_and_nothing_is_missed() {
    let place = Place::new();
    let conn = family(&place.source());
    let source = place.source();
    let mut process = Process::replicate(&source, &place.replica(), &[]);
    quiesce(&source, &place.replica());
    let head = || number(&source, "SELECT max(seq) FROM __cdc_log");
    for (id, (images, entries)) in (10..).zip([("full", 2), ("full", 2), ("key", 1), ("full", 2)]) {
        conn.execute_batch(&format!("INSERT INTO p(id, n) VALUES ({id}, 'before')")).unwrap();
        expect_code(0, &db("setup", &source, &["--images", images]));
        let before = head();
        conn.execute_batch(&format!("UPDATE p SET n = 'after' WHERE id = {id}")).unwrap();
        assert_eq!(head() - before, entries, "{images}");
        quiesce(&source, &place.replica());
        assert_equal(&source, &place.replica());
    }
    let said = expect_failure(1, &db("setup", &source, &["--images", "key", "--tables", "p"]));
    assert!(said.contains("the process that owns this database"), "{said}");
    process.assert_running();
    process.stop();
}

#[test]
fn ddl_without_an_owner_runs_the_whole_script_or_nothing() {
    let place = Place::new();
    drop(family(&place.source()));
    let (source, script) = (place.source(), place.file("x.sql"));
    let args = db("ddl", &source, &[script.to_str().unwrap()]).into_iter().map(ToOwned::to_owned).collect::<Vec<_>>();
    fs::write(&script, TWELVE_STEPS).unwrap();
    let said = expect_failure(1, &args);
    assert!(said.contains("source.db") && said.contains("twinlite setup"), "{said}");
    replicate_once(&source, &place.replica());
    expect_code(0, &args);
    assert_eq!(number(&source, "SELECT count(*) FROM c"), 3);
    let before = schema(&source);
    for (text, word) in [
        ("CREATE TABLE q(x); DELETE FROM p WHERE id = 1;", "2 of the script"),
        ("CREATE TABLE q(x); nonsense\n at all;", "statement 2 of the script"),
        ("CREATE TABLE q(x); ROLLBACK; CREATE TABLE r(x);", "ROLLBACK"),
        ("CREATE TABLE q(x); VACUUM;", "cannot VACUUM"),
        ("CREATE TABLE q(x); INSERT INTO c VALUES (9, 99);", "without the parent"),
    ] {
        fs::write(&script, text).unwrap();
        let said = expect_failure(1, &args);
        if !text.contains("DELETE") {
            assert!(said.contains(word) && said.contains("nothing was changed"), "{said}");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(schema(&source), before, "{text}");
    }
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_twinlite"))
        .args(db("ddl", &source, &["-"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"CREATE TABLE typed(x); INSERT INTO typed VALUES (1)").unwrap();
    assert!(child.wait().unwrap().success());
    replicate_once(&source, &place.replica());
    assert_equal(&source, &place.replica());
}

#[test]
fn resync_repairs_what_verify_finds() {
    let place = Place::new();
    drop(family(&place.source()));
    let (source, replica) = (place.source(), place.replica());
    replicate_once(&source, &replica);
    let damage = "UPDATE p SET n = 'wrong' WHERE id = 1; DELETE FROM c WHERE id = 2; INSERT INTO c VALUES (99, 1)";
    open(&replica).execute_batch(damage).unwrap();
    let verify =
        ["replicate".as_ref(), source.as_os_str(), replica.as_os_str(), "--once".as_ref(), "--verify".as_ref()];
    let said = expect_code(3, &verify);
    assert!(said.contains("2 differ") && said.contains("c: its rows differ"), "{said}");
    let said = expect_code(0, &db("resync", &source, &["P"]));
    assert!(said.contains("p: will be copied again") && !said.contains("c:"), "{said}");
    assert!(expect_code(3, &verify).contains("1 differ"));
    expect_code(0, &db("resync", &source, &[]));
    assert!(expect_code(0, &verify).contains("2 tables, 5 rows: equal"));
    assert_equal(&source, &replica);
    // Beside its owner.
    let mut process = Process::replicate(&source, &replica, &[]);
    quiesce(&source, &replica);
    open(&replica).execute_batch(damage).unwrap();
    expect_code(0, &db("resync", &source, &[]));
    quiesce(&source, &replica);
    assert_equal(&source, &replica);
    process.assert_running();
    process.stop();
    let said = expect_failure(1, &db("resync", &replica, &[]));
    assert!(said.contains("at the source if this is a replica"), "{said}");
}

#[test]
fn status_says_how_it_is_to_people_programs_and_health_checks() {
    let place = Place::new();
    let conn = family(&place.source());
    conn.execute_batch("CREATE VIRTUAL TABLE words USING fts5(x)").unwrap();
    let said = expect_code(0, &db("status", &place.source(), &[]));
    assert!(said.contains("nothing of Twinlite's"), "{said}");
    let mut pair = running(place, &Options::default());
    let (source, replica) = (pair.place.source(), pair.place.replica());
    conn.execute_batch("CREATE TABLE later(x INTEGER PRIMARY KEY)").unwrap();
    pair.quiesce();
    for (path, direction) in [(&source, "send"), (&replica, "receive")] {
        let report = until("both links to be live", || {
            let report = status(path);
            if report["links"][0]["state"] == "live" { Ok(report) } else { Err(report.to_string()) }
        });
        assert_eq!((&report["format"], &report["healthy"]), (&Value::from(1), &Value::from(true)), "{report}");
        let link = &report["links"][0];
        assert_eq!(link["direction"], direction);
        assert!(link["seconds_behind"].is_number() && link["changes_behind"] == 0, "{link}");
        assert!(link["peer"].is_string() && link["last_error"].is_null(), "{link}");
        assert_eq!(link["position"]["seq"], link["head"], "{link}");
    }
    // A table that was made meanwhile, and what is not captured with the reason.
    let said = until("the source to show what it captures", || {
        let said = expect_code(0, &db("status", &source, &[]));
        if said.contains("later") { Ok(said) } else { Err(said) }
    });
    for word in ["to replica at", ": live", "words", "skipped", "a virtual table", "log: "] {
        assert!(said.contains(word), "no {word} in:\n{said}");
    }
    let config = expect_code(0, &["status".as_ref(), "--config".as_ref(), pair.replica_config().as_os_str()]);
    assert!(config.contains("this database as of "), "{config}");
    let get = |path: &str| http_get(&pair.replica_admin, path).unwrap();
    assert_eq!((get("/live").0, get("/ready").0, get("/nothing").0), (200, 200, 404));
    let body: Value = serde_json::from_str(&get("/status.json").1).unwrap();
    assert_eq!(body["node"]["name"], "replica");
    pair.stop();
}

#[test]
fn status_without_a_process_tells_what_the_database_knows() {
    let place = Place::new();
    drop(family(&place.source()));
    replicate_once(&place.source(), &place.replica());
    let said = expect_code(3, &db("status", &place.replica(), &[]));
    for word in ["(unhealthy)", "from source: offline", "start it with", "position ", "2 live of 2"] {
        assert!(said.contains(word), "no {word} in:\n{said}");
    }
    let said = expect_code(0, &db("status", &place.source(), &[]));
    assert!(said.contains("to replica: offline") && said.contains("2 live of 2"), "{said}");
    // Nothing was left when the replica's position was noted; of what came since, the database does not know.
    let link = || status(&place.source())["links"][0].clone();
    assert!(said.contains("0 changes behind") && link()["changes_behind"] == 0, "{said}");
    open(&place.source()).execute_batch("INSERT INTO p VALUES (77, 'x')").unwrap();
    let said = expect_code(0, &db("status", &place.source(), &[]));
    assert!(said.contains(" as noted last, at ") && said.contains("unknown, at most "), "{said}");
    assert!(link()["changes_behind"].is_null() && link()["noted_ms"].is_number(), "{}", link());
    let report = status(&place.replica());
    assert_eq!(report["links"][0]["state"], "offline");
}
