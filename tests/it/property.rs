//! Random schemas under random statements: the replica equals the source at each rest.
//!
//! `TWINLITE_CASES=N` runs more of them, `TWINLITE_SEED=S` exactly one.

use rusqlite::Connection;

use crate::support::{
    Place, open,
    oracle::Oracle,
    process::{Process, expect_code, quiesce, replicate_once, setup},
    random::Random,
    schema::Schema,
    statements::{Generator, run},
    table::Table,
    written::{Written, seeds},
};

const CASES: u64 = 10;
const ROUNDS: usize = 4;
const STATEMENTS: usize = 60;

#[test]
fn the_replica_equals_the_source_whatever_is_written() {
    replicate_what_is_written("key", 0);
}

#[test]
fn the_replica_equals_the_source_with_images_in_the_log() {
    replicate_what_is_written("full", 2_000_000);
}

fn replicate_what_is_written(images: &str, offset: u64) {
    for seed in seeds(CASES) {
        let mut written = Written::new(seed, offset);
        written.write(STATEMENTS);
        written.finish();
        written.setup(images);

        let (source, replica) = (written.place.source(), written.place.replica());
        let mut process = Process::replicate(&source, &replica, &[]);
        for round in 0..ROUNDS {
            process.assert_running();
            quiesce(&source, &replica);
            oracle(&written.conn).assert_equal(&source, &replica);
            if round == 1 {
                written.make_younger_triggers();
            }
            written.write(STATEMENTS);
            written.finish();
        }
        quiesce(&source, &replica);
        oracle(&written.conn).assert_equal(&source, &replica);
        process.stop();
    }
}

/// What is written while nobody replicates is caught up with by the next who does.
#[test]
fn the_replica_catches_up_with_what_was_written_meanwhile() {
    for seed in seeds(CASES) {
        let mut written = Written::new(seed, 1_000_000);
        written.make_younger_triggers();
        for _ in 0..ROUNDS {
            written.write(STATEMENTS);
            written.finish();
            replicate_once(&written.place.source(), &written.place.replica());
            oracle(&written.conn).assert_equal(&written.place.source(), &written.place.replica());
        }
    }
}

/// The oracle, without the tables that are not captured: what a unique expression over an assigned key is cannot be known.
fn oracle(conn: &Connection) -> Oracle {
    let skipped: Option<String> =
        conn.query_row("SELECT value FROM __cdc_meta WHERE key = 'skipped'", [], |row| row.get(0)).ok();
    let skip: Vec<String> = skipped
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        .map(|value| names(&value))
        .unwrap_or_default();
    assert!(skip.is_empty(), "the schemas are made so that every table can be captured, but not {skip:?}");
    Oracle { skip, ..Oracle::default() }
}

fn names(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => map.keys().cloned().collect(),
        serde_json::Value::Array(list) => {
            list.iter().filter_map(|item| item.get("name")?.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// One of each of our triggers, with what an application does that only it sees. A row that REPLACE takes away would be
/// taken away by the replica's own REPLACE too, so the value that it was in the way of moves on at once.
const NEEDED: &[(&str, &str)] = &[
    ("_ai", "INSERT INTO t VALUES (10, 'ten', 'x')"),
    ("_au", "UPDATE t SET c = 'changed' WHERE a = 1"),
    ("_ad", "DELETE FROM t WHERE a = 1"),
    ("_ak", "UPDATE t SET a = 9 WHERE a = 1; UPDATE t SET b = 'else' WHERE a = 9"),
    ("_bi", "INSERT OR REPLACE INTO t VALUES (11, 'two', 'x'); UPDATE t SET b = 'else' WHERE a = 11"),
    ("_bu", "UPDATE OR REPLACE t SET b = 'two' WHERE a = 1; UPDATE t SET b = 'else' WHERE a = 1"),
];

/// The test of the tests: with any one of our triggers gone, and nobody to notice that it went, the oracle must see it.
#[test]
fn without_any_one_of_our_triggers_the_replica_differs() {
    for (suffix, sql) in NEEDED {
        for (images, removed) in [("key", false), ("key", true), ("full", false), ("full", true)] {
            // With images, a changed key is an entry of the trigger on updates.
            let suffix = if (images, *suffix) == ("full", "_ak") { "_au" } else { suffix };
            let place = Place::new();
            let conn = open(&place.source());
            conn.execute_batch("CREATE TABLE t(a PRIMARY KEY, b UNIQUE, c)").unwrap();
            conn.execute_batch("INSERT INTO t VALUES (1, 'one', 'x'), (2, 'two', 'x'), (3, 'three', 'x')").unwrap();
            setup(&place.source(), images);
            replicate_once(&place.source(), &place.replica());
            if removed {
                remove_unnoticed(&conn, suffix);
            }
            conn.execute_batch(sql).unwrap();
            let args = [
                "replicate".into(),
                place.source().into_os_string(),
                place.replica().into_os_string(),
                "--once".into(),
            ];
            expect_code(0, &args);
            let differences = Oracle::default().differences(&place.source(), &place.replica());
            assert_eq!(!differences.is_empty(), removed, "{images} {suffix}, removed: {removed}: {differences:?}");
        }
    }
}

/// Drops our trigger of that kind, and makes the schema version the one that was accounted for.
fn remove_unnoticed(conn: &Connection, suffix: &str) {
    let sql = format!(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '\\_\\_cdc\\_%{suffix}' ESCAPE '\\'"
    );
    let name: String = conn.query_row(&sql, [], |row| row.get(0)).unwrap_or_else(|_| panic!("no trigger {suffix}"));
    conn.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    let version: i64 = conn.pragma_query_value(None, "schema_version", |row| row.get(0)).unwrap();
    conn.execute("UPDATE __cdc_meta SET value = ?1 WHERE key = 'schema_version'", [version]).unwrap();
}

/// What makes the generators worth having: most of what they make must be accepted by SQLite, or nothing is tested.
#[test]
fn generated_schemas_and_statements_mostly_work() {
    let (mut made, mut refused, mut done, mut failed) = (0, Vec::new(), 0, 0);
    for seed in 1..=60 {
        let mut random = Random::new(seed);
        let schema = Schema::random(&mut random);
        let conn = Connection::open_in_memory().unwrap();
        for sql in schema.ddl.iter().chain(&schema.triggers) {
            match conn.execute_batch(sql) {
                Ok(()) => made += 1,
                Err(error) => refused.push(format!("{error}: {sql}")),
            }
        }
        let tables = Table::read_all(&conn);
        for _ in 0..100 {
            let sql = Generator::new(&mut random, &tables).next().sql;
            match run(&conn, &sql).error {
                None => done += 1,
                Some(error) => {
                    assert!(
                        !error.contains("syntax error") && (!error.contains("no such") || error.contains("savepoint")),
                        "{error}: {sql}"
                    );
                    failed += 1;
                }
            }
        }
    }
    assert!(made > 9 * refused.len(), "{made} made, {} refused:\n{}", refused.len(), refused.join("\n"));
    assert!(done > failed, "{done} statements worked, {failed} failed");
}
