//! What was accepted of a window, until all of its table is known: in a temporary table, which goes to a file where it
//! is large, for a window is never split.

use rusqlite::{Connection, OptionalExtension, Row};

use super::super::Error;
use super::table::LocalRow;
use crate::model::{Key, NodeId, TableId, Value, Version};
use crate::sqlite;

const TABLE: &str = "
CREATE TEMP TABLE IF NOT EXISTS __cdc_staged(
  n INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, ts INTEGER NOT NULL, origin INTEGER NOT NULL, seq INTEGER NOT NULL,
  normal BLOB NOT NULL, key BLOB NOT NULL, rows BLOB NOT NULL, before BLOB NOT NULL);
";

/// An accepted change: the rows that `IS` the key are to be these.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) version: Version,
    pub(super) key: Key,
    /// As the peer says them; none for a deletion.
    pub(super) rows: Vec<Vec<Value>>,
    /// What was here.
    pub(super) before: Vec<LocalRow>,
}

/// Makes the stage, and empties it.
///
/// # Errors
/// SQLite's.
pub(super) fn clear(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(TABLE)?;
    conn.prepare_cached("DELETE FROM temp.__cdc_staged")?.execute([]).map(drop)
}

/// Puts a change on the stage.
///
/// # Errors
/// SQLite's.
pub(super) fn put(conn: &Connection, table: TableId, normal: &[u8], change: &Accepted) -> rusqlite::Result<()> {
    let Version { ts_ms, origin, seq } = change.version;
    let sql = "INSERT INTO temp.__cdc_staged(tbl, ts, origin, seq, normal, key, rows, before) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    conn.prepare_cached(sql)?.execute((
        table.0,
        ts_ms,
        origin.0,
        seq,
        normal,
        change.key.to_bytes(),
        pack(&change.rows),
        pack(&change.before),
    ))?;
    Ok(())
}

/// The changes of a table by their places on the stage, highest version first.
///
/// # Errors
/// SQLite's.
pub(super) fn highest_first(conn: &Connection, table: TableId) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT n FROM temp.__cdc_staged WHERE tbl = ?1 ORDER BY ts DESC, origin DESC, seq DESC, normal DESC";
    conn.prepare_cached(sql)?.query_map([table.0], |row| row.get(0))?.collect()
}

/// Whether a key of a table is on the stage.
///
/// # Errors
/// SQLite's.
pub(super) fn has(conn: &Connection, table: TableId, normal: &[u8]) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM temp.__cdc_staged WHERE tbl = ?1 AND normal = ?2")?.exists((table.0, normal))
}

/// The tables that have anything on the stage.
///
/// # Errors
/// SQLite's.
pub(super) fn tables(conn: &Connection) -> rusqlite::Result<Vec<TableId>> {
    let sql = "SELECT DISTINCT tbl FROM temp.__cdc_staged";
    conn.prepare_cached(sql)?.query_map([], |row| Ok(TableId(row.get(0)?)))?.collect()
}

/// One change.
///
/// # Errors
/// SQLite's, or a stage that was tampered with.
pub(super) fn get(conn: &Connection, place: i64) -> Result<Accepted, Error> {
    let damaged = || sqlite::Error::Damaged { table: "__cdc_staged", what: "a change cannot be read".to_owned() };
    let sql = "SELECT ts, origin, seq, key, rows, before FROM temp.__cdc_staged WHERE n = ?1";
    let read = |row: &Row<'_>| {
        let version = Version { ts_ms: row.get(0)?, origin: NodeId(row.get(1)?), seq: row.get(2)? };
        let blob = |place| row.get::<_, Vec<u8>>(place);
        Ok((version, blob(3)?, blob(4)?, blob(5)?))
    };
    let found = conn.prepare_cached(sql)?.query_row([place], read).optional()?;
    let (version, key, rows, before) = found.ok_or_else(damaged)?;
    let key = Key::from_bytes(&key).ok_or_else(damaged)?;
    let (rows, before) = (unpack(&rows).ok_or_else(damaged)?, unpack(&before).ok_or_else(damaged)?);
    Ok(Accepted { version, key, rows, before })
}

/// Rows in one blob.
fn pack(rows: &[Vec<Value>]) -> Vec<u8> {
    Key(rows.iter().map(|row| Value::Blob(Key(row.clone()).to_bytes())).collect()).to_bytes()
}

fn unpack(bytes: &[u8]) -> Option<Vec<Vec<Value>>> {
    let row = |value| match value {
        Value::Blob(bytes) => Key::from_bytes(&bytes).map(|row| row.0),
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Text(_) => None,
    };
    Key::from_bytes(bytes)?.0.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_staged_comes_back_highest_first_and_bit_by_bit() {
        let conn = sqlite::in_memory().expect("memory");
        clear(&conn).expect("stage");
        let change = |ts_ms, key: i64, rows: Vec<Vec<Value>>| Accepted {
            version: Version { ts_ms, origin: NodeId(1), seq: 1 },
            key: Key(vec![Value::Integer(key)]),
            rows,
            before: vec![vec![Value::Null, Value::Real(-0.0)], vec![]],
        };
        let row = vec![Value::Text(vec![0xff, 0]), Value::Blob(vec![]), Value::Null];
        for (ts, key, rows) in [(5, 1, vec![]), (9, 2, vec![row.clone(), row.clone()]), (5, 3, vec![row])] {
            put(&conn, TableId(7), &[u8::try_from(key).expect("small")], &change(ts, key, rows)).expect("put");
        }
        let all = highest_first(&conn, TableId(7)).expect("order");
        let keys: Vec<Key> = all.iter().map(|place| get(&conn, *place).expect("get").key).collect();
        assert_eq!(keys, [2, 3, 1].map(|key| Key(vec![Value::Integer(key)])));
        let back = get(&conn, all[0]).expect("get");
        assert_eq!((back.rows.len(), &back.rows[1][0]), (2, &Value::Text(vec![0xff, 0])));
        assert!(matches!(back.before[0][1], Value::Real(real) if real.to_bits() == (-0.0_f64).to_bits()));
        assert_eq!(tables(&conn).expect("tables"), [TableId(7)]);
        clear(&conn).expect("clear");
        assert!(highest_first(&conn, TableId(7)).expect("order").is_empty());
    }
}
