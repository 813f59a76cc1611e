//! The first copy of a database, beside what SQLite itself needs for the same tables; and the memory that it takes.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::process;

pub fn run() {
    let size = std::env::var("TWINLITE_BENCH_SIZE").unwrap_or_else(|_| "200MB".to_owned());
    let folder = super::folder(false);
    let (source, plain, replica) =
        (folder.path().join("shop.db"), folder.path().join("plain.db"), folder.path().join("replica.db"));
    process::run_to_end(&["sample", &process::text(&source), "--size", &size]);
    let mut ratios = Vec::new();
    let mut peak = 0.0_f64;
    let mut rows = 0;
    for _ in 0..3 {
        let (elapsed, copied) = attach_and_insert(&source, &plain);
        rows = copied;
        let arguments = ["replicate", &process::text(&source), &process::text(&replica), "--once"];
        let (ours, mb) = process::run_to_end(&arguments);
        peak = peak.max(mb);
        ratios.push(elapsed.as_secs_f64() / ours.as_secs_f64());
        println!("copy: {size}, {rows} rows: INSERT … SELECT {elapsed:.1?}, twinlite {ours:.1?}");
        for path in [&plain, &replica] {
            for end in ["", "-wal", "-shm", "-twinlite.lock"] {
                let _ = std::fs::remove_file(format!("{}{end}", path.display()));
            }
        }
    }
    println!("copy: {rows} rows, {:.2} of ATTACH + INSERT INTO … SELECT (budget 0.6)", super::median(ratios));
    println!("memory: {peak:.0} MB peak for both halves in one process (budget 150 each)");
    large_transaction(&source, &replica);
}

/// The peak while one transaction that changes every row of the largest table goes through.
fn large_transaction(source: &std::path::Path, replica: &std::path::Path) {
    let writer = Connection::open(source).unwrap();
    let table: String = writer.query_row(
        "SELECT name FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE '\\_\\_cdc%' ESCAPE '\\' AND name NOT LIKE 'sqlite%' ORDER BY name = 'lines' DESC, name LIMIT 1",
        [],
        |row| row.get(0),
    ).unwrap();
    let arguments = ["replicate", &process::text(source), &process::text(replica), "--once"];
    process::run_to_end(&arguments);
    let column: String = writer
        .query_row("SELECT name FROM pragma_table_info(?1) WHERE pk = 0 LIMIT 1", [&table], |row| row.get(0))
        .unwrap();
    let changed = writer.execute(&format!("UPDATE \"{table}\" SET \"{column}\" = \"{column}\""), []).unwrap();
    let (elapsed, peak) = process::run_to_end(&arguments);
    println!("memory: {peak:.0} MB peak while one transaction of {changed} rows is applied, {elapsed:.1?}");
}

/// The same tables into an empty database by SQLite alone: unique indexes first, the others after, one transaction a
/// table.
fn attach_and_insert(source: &std::path::Path, plain: &std::path::Path) -> (Duration, i64) {
    let started = Instant::now();
    let connection = Connection::open(plain).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;")
        .unwrap();
    connection.execute("ATTACH ?1 AS source", [process::text(source)]).unwrap();
    let objects = |kind: &str| -> Vec<(String, String)> {
        let sql = format!(
            "SELECT name, sql FROM source.sqlite_schema WHERE type = '{kind}' AND sql IS NOT NULL
             AND name NOT LIKE '\\_\\_cdc%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'"
        );
        let mut statement = connection.prepare(&sql).unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let (tables, indexes) = (objects("table"), objects("index"));
    let unique = |sql: &str| sql.to_ascii_uppercase().starts_with("CREATE UNIQUE");
    let mut rows = 0;
    for (_, sql) in &tables {
        connection.execute_batch(sql).unwrap();
    }
    for (_, sql) in indexes.iter().filter(|(_, sql)| unique(sql)) {
        connection.execute_batch(sql).unwrap();
    }
    for (name, _) in &tables {
        // A WHERE keeps SQLite from moving whole pages, which a copy between two processes cannot do either.
        rows += connection
            .execute(&format!("INSERT INTO main.\"{name}\" SELECT * FROM source.\"{name}\" WHERE 1"), [])
            .unwrap() as i64;
    }
    for (_, sql) in indexes.iter().filter(|(_, sql)| !unique(sql)) {
        connection.execute_batch(sql).unwrap();
    }
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    (started.elapsed(), rows)
}
