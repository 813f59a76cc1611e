//! Transfers between the accounts of two tables. The sum over both never changes, in any state that was ever committed.

use std::path::Path;

use rusqlite::Connection;

use super::{open, open_reader, random::Random};

const ACCOUNTS: i64 = 50;
const BALANCE: i64 = 1_000;

/// The sum over all accounts, always.
pub const TOTAL: i64 = 2 * ACCOUNTS * BALANCE;

/// Makes the accounts.
pub fn create(path: &Path) {
    let conn = open(path);
    conn.execute_batch(&format!(
        "BEGIN;
         CREATE TABLE checking(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT);
         CREATE TABLE savings(id TEXT PRIMARY KEY, balance INTEGER NOT NULL) WITHOUT ROWID;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS})
         INSERT INTO checking SELECT i, {BALANCE}, 'account ' || i FROM n;
         INSERT INTO savings SELECT 'account ' || id, {BALANCE} FROM checking;
         COMMIT;"
    ))
    .unwrap();
}

/// Makes one transfer in one transaction; now and then the account is closed and opened anew on the way.
pub fn transfer(conn: &Connection, random: &mut Random) {
    let amount = random.between(1, 90);
    let (from, to) = (random.between(1, ACCOUNTS), random.between(1, ACCOUNTS));
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    conn.execute("UPDATE checking SET balance = balance - ?2 WHERE id = ?1", [from, amount]).unwrap();
    if random.chance(20) {
        conn.execute(
            "INSERT OR REPLACE INTO checking SELECT id, balance, note || '.' FROM checking WHERE id = ?1",
            [from],
        )
        .unwrap();
    }
    let (table, key) = if random.chance(50) { ("savings", "'account ' || ?1") } else { ("checking", "?1") };
    conn.execute(&format!("UPDATE {table} SET balance = balance + ?2 WHERE id = {key}"), [to, amount]).unwrap();
    conn.execute_batch("COMMIT").unwrap();
}

/// The sum in one read; `None` while the tables are not there.
pub fn sum(path: &Path) -> Option<i64> {
    let conn = open_reader(path);
    let sql = "SELECT (SELECT sum(balance) FROM checking) + (SELECT sum(balance) FROM savings)";
    conn.query_row(sql, [], |row| row.get(0)).ok().flatten()
}
