//! The same writes on triggers of sqlite-cdc's shape and on ours: the events agree wherever that one is right, and each
//! place where it is wrong is a test with a sentence.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::cdc::cdc;
use crate::support::{Place, open, random::Random};

/// A table, the columns that its triggers name (without those of type BLOB, which it leaves out), and its log's triggers in
/// the shape of sqlite-cdc's.
fn theirs(conn: &Connection, table: &str, columns: &[&str]) {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS theirs(id INTEGER PRIMARY KEY, tablename TEXT, operation TEXT, before TEXT, after TEXT)",
    )
    .unwrap();
    let object = |row: &str| {
        let pairs: Vec<String> = columns.iter().map(|column| format!("'{column}', {row}.{column}")).collect();
        format!("json_object({})", pairs.join(", "))
    };
    for (operation, before, after) in [
        ("INSERT", "NULL".to_owned(), object("NEW")),
        ("UPDATE", object("OLD"), object("NEW")),
        ("DELETE", object("OLD"), "NULL".to_owned()),
    ] {
        conn.execute_batch(&format!(
            "CREATE TRIGGER {table}_{operation} AFTER {operation} ON {table} BEGIN
               INSERT INTO theirs(tablename, operation, before, after) VALUES ('{table}', '{operation}', {before}, {after});
             END"
        ))
        .unwrap();
    }
}

fn told(conn: &Connection) -> Vec<Value> {
    let mut all = conn.prepare("SELECT operation, before, after FROM theirs ORDER BY id").unwrap();
    let image = |json: Option<String>| json.map_or(Value::Null, |json| serde_json::from_str(&json).unwrap());
    let read = |row: &rusqlite::Row<'_>| {
        Ok(json!({ "operation": row.get::<_, String>(0)?, "before": image(row.get(1)?), "after": image(row.get(2)?) }))
    };
    all.query_map([], read).unwrap().map(Result::unwrap).collect()
}

fn ours(place: &Place) -> Vec<Value> {
    let out = place.file("events.json");
    let process =
        crate::support::process::Process::cdc(&place.source(), &out, &["--table", "t", "--cdc", "-o", "json"], &[]);
    crate::support::wait::until("everything to be said", || {
        let conn = crate::support::open_reader(&place.source());
        let sql = "SELECT seq = (SELECT max(seq) FROM __cdc_log) FROM __cdc_consumers";
        let done: bool = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        if done { Ok(()) } else { Err("not yet".to_owned()) }
    });
    process.stop();
    let strip =
        |event: Value| json!({ "operation": event["operation"], "before": event["before"], "after": event["after"] });
    crate::cdc::events(&out).into_iter().map(strip).collect()
}

/// Both on one table under one script; what each said.
fn both(ddl: &str, columns: &[&str], script: &str) -> (Vec<Value>, Vec<Value>) {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(ddl).unwrap();
    theirs(&conn, "t", columns);
    cdc(&place, &["--table", "t", "--setup"]);
    conn.execute_batch(script).unwrap();
    (told(&conn), ours(&place))
}

fn said(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| format!("{} {} {}", event["operation"], event["before"], event["after"])).collect()
}

const DDL: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w TEXT)";

#[test]
fn the_same_writes_say_the_same_where_both_are_right() {
    for seed in 1..=3 {
        let (mut random, mut script) = (Random::new(seed), String::new());
        for _ in 0..300 {
            let (id, to) = (random.below(30), random.below(30));
            let value = ["NULL", "1", "-9223372036854775808", "0.25", "'ü\"\\'", "''"][random.below(6)];
            script += &match random.below(5) {
                0 | 1 => format!("INSERT OR IGNORE INTO t VALUES ({id}, {value}, 'w{to}');"),
                2 => format!("UPDATE t SET v = {value} WHERE id % 5 = {};", id % 5),
                3 => format!("UPDATE OR IGNORE t SET id = {to} WHERE id = {id};"),
                _ => format!("DELETE FROM t WHERE id = {id};"),
            };
        }
        let (theirs, ours) = both(DDL, &["id", "v", "w"], &script);
        assert!(theirs.len() > 100);
        assert_eq!(said(&ours), said(&theirs));
    }
}

/// A row that REPLACE displaces fires no delete trigger: theirs tell two inserts of one key, and whoever counts rows counts
/// wrong.
#[test]
fn theirs_do_not_tell_that_replace_removed_a_row() {
    let (theirs, ours) =
        both(DDL, &["id", "v", "w"], "INSERT INTO t VALUES (1, 'a', 'x'); REPLACE INTO t VALUES (1, 'b', 'y')");
    let operations = |events: &[Value]| events.iter().map(|event| event["operation"].clone()).collect::<Vec<_>>();
    assert_eq!(operations(&theirs), ["INSERT", "INSERT"]);
    assert_eq!(operations(&ours), ["INSERT", "DELETE", "INSERT"]);
    assert_eq!(ours[1]["before"], json!({"id": 1, "v": "a", "w": "x"}));
}

/// JSON has no BLOBs: in a column of another type one makes theirs fail the application's own write.
#[test]
fn theirs_fail_a_write_of_a_blob_into_a_column_of_another_type() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch(DDL).unwrap();
    theirs(&conn, "t", &["id", "v", "w"]);
    let error = conn.execute_batch("INSERT INTO t VALUES (1, x'ffee', 'a')").unwrap_err().to_string();
    assert!(error.contains("JSON cannot hold BLOB"), "{error}");
    conn.execute_batch("DROP TRIGGER t_INSERT").unwrap();
    cdc(&place, &["--table", "t", "--setup"]);
    conn.execute_batch("INSERT INTO t VALUES (1, x'ffee', 'a')").unwrap();
    assert_eq!(ours(&place)[0]["after"]["v"], "FFEE");
}

/// A column that comes later is not in the text of their triggers: its values are in no event.
#[test]
fn theirs_do_not_tell_of_a_column_that_was_added_later() {
    let (theirs, ours) = both(
        DDL,
        &["id", "v", "w"],
        "ALTER TABLE t ADD COLUMN late; UPDATE t SET v = 1; INSERT INTO t VALUES (1, 2, 'x', 'new')",
    );
    assert!(theirs.iter().all(|event| event["after"].get("late").is_none()));
    assert_eq!(ours.last().unwrap()["after"]["late"], "new");
}

/// json_patch, by which theirs put wide rows together, takes a NULL for "remove this": the column is missing.
#[test]
fn theirs_leave_nulls_out_of_wide_tables() {
    let place = Place::new();
    let conn = open(&place.source());
    let columns: Vec<String> = (0..70).map(|place| format!("c{place}")).collect();
    conn.execute_batch(&format!("CREATE TABLE t({})", columns.join(", "))).unwrap();
    let object = |columns: &[String]| {
        let pairs: Vec<String> = columns.iter().map(|column| format!("'{column}', NEW.{column}")).collect();
        format!("json_object({})", pairs.join(", "))
    };
    conn.execute_batch(&format!(
        "CREATE TABLE theirs(id INTEGER PRIMARY KEY, operation, before, after);
         CREATE TRIGGER t_insert AFTER INSERT ON t BEGIN INSERT INTO theirs(operation, after)
           VALUES ('INSERT', json_patch({}, {})); END",
        object(&columns[..63]),
        object(&columns[63..])
    ))
    .unwrap();
    cdc(&place, &["--table", "t", "--setup"]);
    conn.execute_batch("INSERT INTO t(c0, c69) VALUES (1, NULL)").unwrap();
    let (theirs, ours) = (told(&conn), ours(&place));
    assert_eq!(theirs[0]["after"].as_object().unwrap().len(), 63, "the columns of the second object are gone");
    assert_eq!(ours[0]["after"].as_object().unwrap().len(), 70);
}
