//! What a writer keeps of its throughput while capture is on.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use twinlite::capture::{CaptureOptions, Images, Retention, install};
use twinlite::model::{Selection, SystemClock};

const ROWS_IN_A_TRANSACTION: i64 = 1_000;
const TRANSACTIONS: i64 = 40;
const ROUNDS: usize = 7;

struct Shape {
    name: &'static str,
    ddl: &'static str,
    text_key: bool,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "integer key, 1 plain index",
        ddl: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i); CREATE INDEX ta ON t(a);",
        text_key: false,
    },
    Shape {
        name: "integer key, 1 unique index",
        ddl: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i); CREATE UNIQUE INDEX ta ON t(a);",
        text_key: false,
    },
    Shape {
        name: "integer key, 3 unique indexes",
        ddl: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i);
              CREATE UNIQUE INDEX ta ON t(a); CREATE UNIQUE INDEX tb ON t(b); CREATE UNIQUE INDEX tc ON t(c);",
        text_key: false,
    },
    Shape {
        name: "text key, 1 plain index",
        ddl: "CREATE TABLE t(id TEXT PRIMARY KEY, a, b, c, d, e, f, g, h, i); CREATE INDEX ta ON t(a);",
        text_key: true,
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Capture {
    None,
    Key,
    /// The shape of trigger that sqlite-cdc installs: before and after images as JSON.
    Json,
}

pub fn run() {
    println!("writer: throughput kept (no capture = 1.00), {ROWS_IN_A_TRANSACTION}-row transactions, 10 columns, WAL");
    println!("  {:32} {:>14} {:>14} {:>14} {:>14}", "", "key insert", "key update", "JSON insert", "JSON update");
    for shape in &SHAPES {
        let mut ratios = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            let plain = measure(shape, Capture::None);
            let key = measure(shape, Capture::Key);
            let json = measure(shape, Capture::Json);
            let ratio = |base: Duration, with: Duration| base.as_secs_f64() / with.as_secs_f64();
            ratios[0].push(ratio(plain.0, key.0));
            ratios[1].push(ratio(plain.1, key.1));
            ratios[2].push(ratio(plain.0, json.0));
            ratios[3].push(ratio(plain.1, json.1));
        }
        let [a, b, c, d] = ratios.map(super::median);
        println!("  {:32} {a:>14.2} {b:>14.2} {c:>14.2} {d:>14.2}", shape.name);
    }
    println!("  budget: 0.75 for an integer key with 1 plain index");
}

/// How long the inserts, and the updates, of one run take.
fn measure(shape: &Shape, capture: Capture) -> (Duration, Duration) {
    let folder = super::folder(true);
    let mut connection = Connection::open(folder.path().join("app.db")).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").unwrap();
    connection.execute_batch(shape.ddl).unwrap();
    match capture {
        Capture::None => {}
        Capture::Key => {
            let options = CaptureOptions {
                selection: Selection::all(),
                images: Images::Key,
                log_table: "__cdc_log".to_owned(),
                retention: Retention::default(),
            };
            install(&mut connection, &options, &SystemClock).unwrap();
        }
        Capture::Json => connection.execute_batch(&json_triggers()).unwrap(),
    }
    let key =
        |row: i64| if shape.text_key { format!("key-{row:010}").into() } else { rusqlite::types::Value::Integer(row) };
    let started = Instant::now();
    for transaction in 0..TRANSACTIONS {
        let batch = connection.unchecked_transaction().unwrap();
        let mut insert = batch
            .prepare_cached("INSERT INTO t VALUES (?1, ?2, ?3, ?4, 1.5, 'text of some length', 7, 8, NULL, ?2)")
            .unwrap();
        for row in transaction * ROWS_IN_A_TRANSACTION..(transaction + 1) * ROWS_IN_A_TRANSACTION {
            insert.execute((key(row), row * 7919 % 1_000_003, row, -row)).unwrap();
        }
        drop(insert);
        batch.commit().unwrap();
    }
    let inserts = started.elapsed();
    let started = Instant::now();
    for transaction in 0..TRANSACTIONS {
        let batch = connection.unchecked_transaction().unwrap();
        let mut update =
            batch.prepare_cached("UPDATE t SET d = ?2, e = 'another text of some length' WHERE id = ?1").unwrap();
        for row in transaction * ROWS_IN_A_TRANSACTION..(transaction + 1) * ROWS_IN_A_TRANSACTION {
            update.execute((key(row), row)).unwrap();
        }
        drop(update);
        batch.commit().unwrap();
    }
    (inserts, started.elapsed())
}

fn json_triggers() -> String {
    let image = |row: &str| {
        let fields: Vec<String> =
            ["id", "a", "b", "c", "d", "e", "f", "g", "h", "i"].iter().map(|c| format!("'{c}', {row}.{c}")).collect();
        format!("json_object({})", fields.join(", "))
    };
    let log = "CREATE TABLE changes(id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, tablename TEXT, operation TEXT, before TEXT, after TEXT);";
    let trigger = |event: &str, before: &str, after: &str| {
        format!(
            "CREATE TRIGGER t__cdc_{event} AFTER {event} ON t BEGIN INSERT INTO changes(timestamp, tablename, operation, \
             before, after) VALUES (strftime('%Y-%m-%d %H:%M:%f', 'now'), 't', '{event}', {before}, {after}); END;"
        )
    };
    let (old, new) = (image("OLD"), image("NEW"));
    format!(
        "{log}{}{}{}",
        trigger("INSERT", "NULL", &new),
        trigger("UPDATE", &old, &new),
        trigger("DELETE", &old, "NULL")
    )
}
