//! What a writer keeps of its throughput while capture is on.
//!
//! A row is 200 bytes or so: a number or a word in most columns, names and an address in some. An entry of the log costs
//! about the same whatever the row; so what a writer keeps depends on what its own rows cost it. Rows that are written all
//! over a table are what most applications have. Rows that are appended in the order of an integer key are the cheapest
//! that there are (about 2 µs), and a writer of nothing else keeps a good deal less.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use twinlite::capture::{CaptureOptions, Images, install};
use twinlite::model::SystemClock;

const ROWS_IN_A_TRANSACTION: i64 = 1_000;
const TRANSACTIONS: i64 = 40;
const ROUNDS: usize = 7;

struct Shape {
    name: &'static str,
    ddl: &'static str,
    text_key: bool,
    /// Whether rows are written in the order of their keys.
    in_order: bool,
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "integer key, 1 plain index",
        ddl: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i); CREATE INDEX ta ON t(a);",
        text_key: false,
        in_order: false,
    },
    Shape {
        name: "the same, in the key's order",
        ddl: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i); CREATE INDEX ta ON t(a);",
        text_key: false,
        in_order: true,
    },
    Shape {
        name: "integer key, 1 unique index",
        ddl: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i); CREATE UNIQUE INDEX ta ON t(a);",
        text_key: false,
        in_order: false,
    },
    Shape {
        name: "integer key, 3 unique indexes",
        ddl: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i);
              CREATE UNIQUE INDEX ta ON t(a); CREATE UNIQUE INDEX tb ON t(b); CREATE UNIQUE INDEX tc ON t(c);",
        text_key: false,
        in_order: false,
    },
    Shape {
        name: "text key, 1 plain index",
        ddl: "CREATE TABLE t(id TEXT PRIMARY KEY, a, b, c, d, e, f, g, h, i); CREATE INDEX ta ON t(a);",
        text_key: true,
        in_order: false,
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Capture {
    None,
    Key,
    /// With the row before and after.
    Full,
    /// [`Capture::Key`] without the log's own limit: what looking at the log's end for each row costs.
    Unlimited,
    /// The shape of trigger that sqlite-cdc installs: before and after images as JSON.
    Json,
}

pub fn run() {
    println!("writer: throughput kept (no capture = 1.00), {ROWS_IN_A_TRANSACTION}-row transactions, 10 columns, WAL");
    let heads = [
        "key insert",
        "key update",
        "full insert",
        "full update",
        "no limit",
        "no limit",
        "JSON insert",
        "JSON update",
    ];
    println!("  {:32}{}", "", heads.map(|head| format!("{head:>13}")).concat());
    for shape in &SHAPES {
        let mut ratios = [const { Vec::new() }; 8];
        for _ in 0..ROUNDS {
            let plain = measure(shape, Capture::None);
            let captures = [Capture::Key, Capture::Full, Capture::Unlimited, Capture::Json];
            for (place, capture) in captures.into_iter().enumerate() {
                let with = measure(shape, capture);
                ratios[2 * place].push(plain.0.as_secs_f64() / with.0.as_secs_f64());
                ratios[2 * place + 1].push(plain.1.as_secs_f64() / with.1.as_secs_f64());
            }
        }
        println!("  {:32}{}", shape.name, ratios.map(|all| format!("{:>13.2}", super::median(all))).concat());
    }
    println!("  budget: for an integer key with 1 plain index 0.75, and 0.60 with images (full)");
}

/// CPU time of this thread, which a busy machine does not stretch as it does the clock (Linux; the clock elsewhere).
fn cpu_time(begin: Instant) -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    nanoseconds.map_or_else(|| begin.elapsed(), Duration::from_nanos)
}

/// The triggers as they would be if the log had no limit.
fn remove_limit(connection: &Connection) {
    let mut statement = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '\\_\\_cdc%' ESCAPE '\\'")
        .unwrap();
    let triggers: Vec<(String, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    drop(statement);
    let end = "coalesce((SELECT seq FROM \"__cdc_log\" ORDER BY seq DESC LIMIT 1), 0) <";
    for (name, sql) in triggers {
        assert!(sql.contains(end), "the triggers are written otherwise now: {sql}");
        connection.execute_batch(&format!("DROP TRIGGER {name}; {}", sql.replace(end, "0 <"))).unwrap();
    }
}

/// How long the inserts, and the updates, of one run take.
fn measure(shape: &Shape, capture: Capture) -> (Duration, Duration) {
    let begin = Instant::now();
    let folder = super::folder(true);
    let mut connection = Connection::open(folder.path().join("app.db")).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").unwrap();
    connection.execute_batch(shape.ddl).unwrap();
    match capture {
        Capture::None => {}
        Capture::Key | Capture::Full | Capture::Unlimited => {
            let options = CaptureOptions {
                images: if capture == Capture::Full { Images::Full } else { Images::Key },
                ..CaptureOptions::default()
            };
            install(&mut connection, &options, &SystemClock).unwrap();
            if capture == Capture::Unlimited {
                remove_limit(&connection);
            }
        }
        Capture::Json => connection.execute_batch(&json_triggers()).unwrap(),
    }
    let key = |row: i64| {
        // The factor and the number of rows have no divisor in common: each key comes once.
        let row = if shape.in_order { row } else { row * 7919 % (TRANSACTIONS * ROWS_IN_A_TRANSACTION) };
        if shape.text_key { format!("key-{row:010}").into() } else { rusqlite::types::Value::Integer(row) }
    };
    let started = cpu_time(begin);
    for transaction in 0..TRANSACTIONS {
        let batch = connection.unchecked_transaction().unwrap();
        let mut insert = batch
            .prepare_cached(
                "INSERT INTO t VALUES (?1, ?2, ?3, ?4, 1.5, 'A. Name Of Some Length', 'somebody@example.com', \
                 '12 Long Street, 34567 Town, a country', '2024-05-06 07:08:09', 'a note that says what is to be said \
                 of a row, in a sentence or so')",
            )
            .unwrap();
        for row in transaction * ROWS_IN_A_TRANSACTION..(transaction + 1) * ROWS_IN_A_TRANSACTION {
            insert.execute((key(row), row * 7919 % 1_000_003, row, -row)).unwrap();
        }
        drop(insert);
        batch.commit().unwrap();
    }
    let inserts = cpu_time(begin) - started;
    let started = cpu_time(begin);
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
    (inserts, cpu_time(begin) - started)
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
