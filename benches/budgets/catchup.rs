//! Catching up after downtime, beside replaying the same row operations with prepared statements.

use std::time::Instant;

use rusqlite::Connection;

use super::process;

const ROWS: i64 = 200_000;
const CHANGES: i64 = 1_000_000;
const IN_A_TRANSACTION: i64 = 1_000;

const DDL: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c TEXT, d); CREATE INDEX ta ON t(a);";

pub fn run() {
    let folder = super::folder(false);
    let (source, replica, plain) =
        (folder.path().join("app.db"), folder.path().join("replica.db"), folder.path().join("plain.db"));
    let writer = prepare(&source);
    prepare(&plain);
    let arguments = ["replicate", &process::text(&source), &process::text(&replica), "--once"];
    process::run_to_end(&arguments);
    workload(&writer);
    let (ours, peak) = process::run_to_end(&arguments);
    let target = Connection::open(&plain).unwrap();
    target.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").unwrap();
    let started = Instant::now();
    workload(&target);
    let replay = started.elapsed();
    let ratio = replay.as_secs_f64() / ours.as_secs_f64();
    println!(
        "catch-up: {CHANGES} changes: replay {replay:.1?}, twinlite {ours:.1?}: {ratio:.2} (budget 0.5), peak {peak:.0} MB"
    );
}

fn prepare(path: &std::path::Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").unwrap();
    connection.execute_batch(DDL).unwrap();
    let batch = connection.unchecked_transaction().unwrap();
    for row in 0..ROWS {
        batch
            .prepare_cached("INSERT INTO t VALUES (?1, ?1 * 7 % 1000, ?1, 'a text of some length', 0.5)")
            .unwrap()
            .execute([row])
            .unwrap();
    }
    batch.commit().unwrap();
    connection
}

/// Inserts, updates and deletes of single rows, each row of the log another key as far as it goes.
fn workload(connection: &Connection) {
    for transaction in 0..CHANGES / IN_A_TRANSACTION {
        let batch = connection.unchecked_transaction().unwrap();
        for change in transaction * IN_A_TRANSACTION..(transaction + 1) * IN_A_TRANSACTION {
            match change % 4 {
                0 | 1 => batch
                    .prepare_cached(
                        "INSERT OR REPLACE INTO t VALUES (?1, ?1 * 7 % 1000, ?1, 'another text of some length', 1.5)",
                    )
                    .unwrap()
                    .execute([ROWS + change])
                    .unwrap(),
                2 => batch
                    .prepare_cached("UPDATE t SET b = ?1, d = 2.5 WHERE id = ?2")
                    .unwrap()
                    .execute([change, change * 31 % ROWS])
                    .unwrap(),
                _ => batch.prepare_cached("DELETE FROM t WHERE id = ?1").unwrap().execute([ROWS + change - 3]).unwrap(),
            };
        }
        batch.commit().unwrap();
    }
}
