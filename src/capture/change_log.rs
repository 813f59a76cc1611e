//! The change log as a table: its shape, the entries of our own, and what recognises an entry.
//!
//! Sequence numbers are never reused because the newest entry is never deleted. Columns have no declared type, so every
//! key keeps its storage class.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::Error;
use super::taken::TAKEN_OVER;
use super::trigger_sql::Op;
use crate::model::{Checkpoint, Clock, Epoch, LogTail, NodeId};
use crate::sqlite::store::{self, meta_key};
use crate::sqlite::{LogOp, ident, quote};

/// Entries whose size is taken for that of all: the newest ones, so that an estimate costs one or two pages.
const SAMPLE_ENTRIES: i64 = 256;

/// Entries that are looked at to count changes: what is waiting in an ordinary log, in less than a millisecond.
const TAIL_ENTRIES: i64 = 1_000;

/// Bytes that an entry needs besides its key and image: record header, sequence number, time, table, operation, its place in the
/// page. An estimate.
const ENTRY_OVERHEAD_BYTES: f64 = 24.0;

/// The state of a log. Rows and bytes are estimates from the range of sequence numbers and recent entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Whose log.
    pub node: NodeId,
    /// Which life of it.
    pub epoch: Epoch,
    /// The newest entry.
    pub head: Checkpoint,
    /// The oldest entry that is still held; 0 where there is none.
    pub oldest: i64,
    /// Entries.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a log has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogWidth {
    /// Columns of a key.
    pub keys: usize,
    /// Columns of an image, in one entry.
    pub values: usize,
}

/// The CREATE TABLE of a log.
pub(super) fn create_sql(log: &str, width: LogWidth) -> String {
    let keys = (0..width.keys.max(1)).map(|place| format!(", k{place}"));
    let values = (0..width.values).map(|place| format!(", v{place}"));
    let columns: String = keys.chain(values).collect();
    format!("CREATE TABLE {}(seq INTEGER PRIMARY KEY, ts, tbl, op, origin, oseq, via{columns})", ident(log))
}

/// What makes a log as wide as it is wanted.
pub(super) fn widen_sql(log: &str, have: LogWidth, want: LogWidth) -> Vec<String> {
    let keys = (have.keys..want.keys).map(|place| format!("k{place}"));
    let values = (have.values..want.values).map(|place| format!("v{place}"));
    keys.chain(values).map(|column| format!("ALTER TABLE {} ADD COLUMN {column}", ident(log))).collect()
}

/// What the log has room for; `None` where there is no log.
pub(super) fn width(connection: &Connection, log: &str) -> rusqlite::Result<Option<LogWidth>> {
    let mut statement = connection.prepare(&format!("PRAGMA main.table_info({})", ident(log)))?;
    let names = statement.query_map([], |row| row.get::<_, String>("name"))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let numbered =
        |name: &String, letter: char| name.strip_prefix(letter).is_some_and(|place| place.parse::<usize>().is_ok());
    let count = |letter| names.iter().filter(|name| numbered(name, letter)).count();
    Ok((!names.is_empty()).then(|| LogWidth { keys: count('k'), values: count('v') }))
}

/// The newest entries, by which changes are counted.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's.
pub fn tail(connection: &Connection) -> Result<LogTail, Error> {
    let log = name(connection)?;
    let sql = format!("SELECT seq, op FROM main.{} ORDER BY seq DESC LIMIT {TAIL_ENTRIES}", ident(&log));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    let (mut from, mut head, mut begins) = (1, 0, Vec::new());
    while let Some(row) = rows.next()? {
        from = row.get(0)?;
        head = head.max(from);
        let op: Option<i64> = row.get(1)?;
        if !op.and_then(LogOp::of_code).is_some_and(LogOp::continues) {
            begins.push(from);
        }
    }
    begins.reverse();
    Ok(LogTail::new((from, head), begins))
}

/// Appends an entry of our own, timed as the triggers do.
pub(super) fn append(connection: &Connection, log: &str, entry: (Op, i64), clock: &dyn Clock) -> rusqlite::Result<()> {
    let log = ident(log);
    let sql = format!(
        "INSERT INTO main.{log}(ts, tbl, op) VALUES (max(?1, coalesce((SELECT value FROM main.__cdc_meta WHERE key = \
         '{}'), 0), coalesce((SELECT ts FROM main.{log} ORDER BY seq DESC LIMIT 1), 0)), ?2, ?3)",
        meta_key::HLC
    );
    connection.prepare_cached(&sql)?.execute((clock.now_ms(), entry.1, entry.0.code()))?;
    Ok(())
}

/// The newest and the oldest sequence number; 0 in an empty log.
pub(super) fn bounds(connection: &Connection, log: &str) -> rusqlite::Result<(i64, i64)> {
    let log = ident(log);
    // Two queries, for SQLite finds an end of a tree at once only when it is asked for that end alone.
    let end = |which: &str| -> rusqlite::Result<i64> {
        connection
            .prepare_cached(&format!("SELECT coalesce({which}(seq), 0) FROM main.{log}"))?
            .query_row([], |row| row.get(0))
    };
    Ok((end("max")?, end("min")?))
}

/// The first entry of the change that an entry belongs to: itself, but for those that carry on an image.
pub(super) fn change_start(connection: &Connection, log: &str, seq: i64) -> rusqlite::Result<i64> {
    let sql = format!(
        "SELECT seq FROM main.{} WHERE seq <= ?1 AND op NOT IN ({}, {}) ORDER BY seq DESC LIMIT 1",
        ident(log),
        Op::Image.code(),
        Op::Arrive.code()
    );
    let start: Option<i64> = connection.prepare_cached(&sql)?.query_row([seq], |row| row.get(0)).optional()?;
    Ok(start.unwrap_or(seq))
}

/// `ts` and fingerprint of an entry: xxh3-64 of its columns, without the NULLs at its end, so that a log that was made
/// wider meanwhile still knows its entries.
///
/// # Errors
/// SQLite's.
pub fn entry_mark(connection: &Connection, log: &str, seq: i64) -> rusqlite::Result<Option<(i64, i64)>> {
    let mut statement = connection.prepare_cached(&format!("SELECT * FROM main.{} WHERE seq = ?1", ident(log)))?;
    let columns = statement.column_count();
    statement
        .query_row([seq], |row| {
            let values = (0..columns).map(|column| row.get_ref(column)).collect::<rusqlite::Result<Vec<_>>>()?;
            let kept = values.iter().rposition(|value| *value != ValueRef::Null).map_or(0, |last| last + 1);
            let mark = crate::codec::fingerprint(values.into_iter().take(kept));
            Ok((row.get(1)?, mark))
        })
        .optional()
}

/// Bytes of an average entry, by the newest ones. `octet_length` reads no value, however long it is.
pub(super) fn entry_bytes(connection: &Connection, log: &str) -> rusqlite::Result<f64> {
    let width = width(connection, log)?.unwrap_or_default();
    let columns = (0..width.keys).map(|place| format!("k{place}"));
    let columns = columns.chain((0..width.values).map(|place| format!("v{place}")));
    let sizes: String = columns.map(|column| format!(" + coalesce(octet_length({column}), 0)")).collect();
    let sql = format!(
        "SELECT coalesce(avg(0{sizes}), 0) FROM (SELECT * FROM main.{} ORDER BY seq DESC LIMIT {SAMPLE_ENTRIES})",
        ident(log)
    );
    let bytes: f64 = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
    Ok(bytes + ENTRY_OVERHEAD_BYTES)
}

/// The log's name, unquoted.
pub(super) fn name(connection: &Connection) -> Result<String, Error> {
    if !store::exists(connection)? {
        return Err(Error::NotInstalled);
    }
    store::meta(connection, meta_key::LOG_TABLE)?.ok_or(Error::NotInstalled)
}

/// The change log of sqlite-cdc, if there is one: a table of its columns.
pub(super) fn foreign(connection: &Connection) -> rusqlite::Result<Option<String>> {
    // What has no page of its own is virtual, and its module may be one that only the application has.
    let mut tables = connection.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0")?;
    let names = tables.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    for name in names.into_iter().filter(|name| name != TAKEN_OVER) {
        let sql = format!("SELECT group_concat(lower(name), ' ') FROM pragma_table_info({})", quote::literal(&name));
        let columns: Option<String> = connection.query_row(&sql, [], |row| row.get(0))?;
        if columns.as_deref() == Some("id timestamp tablename operation before after") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;
    use crate::sqlite::in_memory;

    fn log() -> Connection {
        let connection = in_memory().expect("memory");
        connection.execute_batch(store::NODE_TABLES).expect("tables");
        connection.execute_batch(&create_sql("__cdc_log", LogWidth { keys: 1, values: 0 })).expect("log");
        connection
    }

    #[test]
    fn an_entrys_mark_survives_a_wider_log() {
        let connection = log();
        append(&connection, "__cdc_log", (Op::Schema, 0), &ManualClock::at(5)).expect("append");
        let before = entry_mark(&connection, "__cdc_log", 1).expect("mark");
        let wider = LogWidth { keys: 3, values: 2 };
        for sql in widen_sql("__cdc_log", LogWidth { keys: 1, values: 0 }, wider) {
            connection.execute_batch(&sql).expect("widen");
        }
        assert_eq!(width(&connection, "__cdc_log").expect("width"), Some(wider));
        assert_eq!(entry_mark(&connection, "__cdc_log", 1).expect("mark"), before);
        assert_eq!(entry_mark(&connection, "__cdc_log", 2).expect("mark"), None);
    }

    #[test]
    fn time_never_runs_backwards() {
        let connection = log();
        let clock = ManualClock::at(100);
        let ts = || connection.query_row("SELECT ts FROM __cdc_log ORDER BY seq DESC", [], |row| row.get::<_, i64>(0));
        append(&connection, "__cdc_log", (Op::Schema, 0), &clock).expect("append");
        clock.set(50);
        append(&connection, "__cdc_log", (Op::Schema, 0), &clock).expect("append");
        assert_eq!(ts(), Ok(100));
        store::set_meta(&connection, meta_key::HLC, 200).expect("hlc");
        append(&connection, "__cdc_log", (Op::Schema, 0), &clock).expect("append");
        assert_eq!(ts(), Ok(200));
        assert_eq!(bounds(&connection, "__cdc_log"), Ok((3, 1)));
    }

    #[test]
    fn the_log_of_sqlite_cdc_is_recognised() {
        let connection = in_memory().expect("memory");
        assert_eq!(foreign(&connection), Ok(None));
        connection
            .execute_batch("CREATE TABLE __cdc_log(id INTEGER, timestamp, tablename, operation, before, after)")
            .expect("ddl");
        assert_eq!(foreign(&connection), Ok(Some("__cdc_log".to_owned())));
    }
}
