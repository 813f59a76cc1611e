//! The newest entry of the local log for each key: what concurrency is decided by.
//!
//! Kept in a temporary table, which SQLite holds in memory while it is small and in a file when it is not, and which a
//! transaction that fails takes back with everything else. It covers what is not pruned; it is made anew in a session
//! whose schema moved, and otherwise only what the log has gained is absorbed.
//!
//! Whoever writes here waits while the applier holds the write lock, and a log may hold millions of entries. So they are
//! read before, in a transaction that only reads ([`LogIndex::ahead`]); under the lock only what has come since is.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, Row};

use super::super::{Error, foreign};
use crate::model::{Collation, Key, NodeId, NormalKey, TableId, Version};
use crate::sqlite::generations::Generations;
use crate::sqlite::row_sql::KeyQuery;
use crate::sqlite::{self, LogOp, catalog, store, value_of};

/// Columns of the log before the key's: seq, ts, tbl, op, origin, oseq, via.
const COLUMNS_BEFORE_KEY: usize = 7;

/// Entries that are read while the write lock is held, if it can be helped: some ten milliseconds. A longer tail is read
/// before, for which a transaction that only reads is begun.
pub(super) const TAIL_MAX: i64 = 1_000;

/// Entries that may be pruned before the index drops them too: it costs a walk through the whole of it.
const STALE_ENTRIES_MAX: i64 = 100_000;

const TABLES: &str = "
CREATE TEMP TABLE IF NOT EXISTS __cdc_index(
  tbl INTEGER NOT NULL, key BLOB NOT NULL, seq INTEGER NOT NULL, ts INTEGER NOT NULL, origin INTEGER NOT NULL,
  oseq INTEGER NOT NULL, via INTEGER, PRIMARY KEY(tbl, key)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS __cdc_touched(
  tbl INTEGER NOT NULL, key BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(tbl, key)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS __cdc_index_state(
  one INTEGER PRIMARY KEY CHECK (one = 1), absorbed INTEGER NOT NULL, oldest INTEGER NOT NULL, schema INTEGER NOT NULL,
  epoch INTEGER NOT NULL);
";

/// The newest entry of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place in our log.
    pub(super) seq: i64,
    /// Its version.
    pub(super) version: Version,
    /// The peer that it came from, if it did not originate here.
    pub(super) via: Option<NodeId>,
}

/// A captured table, as its entries are read.
struct Captured {
    collations: Vec<Collation>,
    by_key: KeyQuery,
}

/// The index, and what it needs to know of the schema.
pub(in super::super) struct LogIndex {
    us: NodeId,
    log: String,
    entries_sql: String,
    key_columns: usize,
    schema: i64,
    epoch: i64,
    /// The tables that refer to others or are referred to, in lower case.
    related: BTreeSet<String>,
    generations: Generations,
    captured: HashMap<TableId, Captured>,
    oldest: i64,
    newest_ts: i64,
    head: i64,
    entries_read: u64,
}

impl LogIndex {
    /// Brings the index up to the log's end, or makes it anew where the schema is another one, inside a transaction that
    /// holds no lock: it only reads the database, for the index is in temporary tables, and all of it sees one moment.
    ///
    /// # Errors
    /// SQLite's, or a log that is damaged.
    pub(in super::super) fn ahead(conn: &Connection, us: NodeId, index: Option<Self>) -> Result<Self, Error> {
        match index {
            Some(mut index) if index.is_current(conn)? => index.absorb(conn).map(|()| index),
            Some(_) | None => Self::open(conn, us),
        }
    }

    /// Whether little is left to be read under the write lock: the schema and the log are those that this was read of, and
    /// the log has not gained much.
    pub(in super::super) fn is_near(&self, conn: &Connection) -> Result<bool, Error> {
        Ok(self.is_current(conn)? && self.end_of_log(conn, "max")? - self.head <= TAIL_MAX)
    }

    /// How many entries were read since this was last asked.
    pub(in super::super) fn take_entries_read(&mut self) -> u64 {
        std::mem::take(&mut self.entries_read)
    }

    /// Reads what is captured now, and brings the index up to the log's end, inside the caller's transaction.
    ///
    /// # Errors
    /// SQLite's, or a log that is damaged.
    pub(super) fn open(conn: &Connection, us: NodeId) -> Result<Self, Error> {
        conn.execute_batch(TABLES)?;
        let log = store::log_table(conn)?;
        let key_columns = store::log_key_columns(conn, &log)?;
        let keys: String = (0..key_columns).map(|place| format!(", k{place}")).collect();
        let entries_sql =
            format!("SELECT seq, ts, tbl, op, origin, oseq, via{keys} FROM main.{log} WHERE seq > ?1 ORDER BY seq");
        let mut index = Self {
            us,
            log,
            entries_sql,
            key_columns,
            schema: catalog::schema_version(conn)?,
            epoch: epoch_now(conn)?,
            related: foreign::related(conn)?,
            generations: Generations::read(conn)?,
            captured: HashMap::new(),
            oldest: 0,
            newest_ts: 0,
            head: 0,
            entries_read: 0,
        };
        index.read_captured(conn)?;
        index.absorb(conn)?;
        Ok(index)
    }

    fn read_captured(&mut self, conn: &Connection) -> Result<(), Error> {
        for (id, newest) in &self.generations.newest {
            let Some(table) = catalog::table(conn, &newest.name)? else { continue };
            let captured = Captured { collations: table.key_collations(), by_key: KeyQuery::new(&table) };
            self.captured.insert(*id, captured);
        }
        Ok(())
    }

    /// The log, as an SQL identifier.
    pub(super) fn log(&self) -> &str {
        &self.log
    }

    /// How many key columns the log has.
    pub(super) fn key_columns(&self) -> usize {
        self.key_columns
    }

    /// The log's last sequence number, as absorbed.
    pub(super) fn head(&self) -> i64 {
        self.head
    }

    /// The oldest entry that is not pruned.
    pub(super) fn oldest_now(&self, conn: &Connection) -> rusqlite::Result<i64> {
        self.end_of_log(conn, "min")
    }

    /// `ts` of the log's last entry.
    pub(super) fn newest_ts(&self) -> i64 {
        self.newest_ts
    }

    /// Whether a table has foreign keys, or is referred to by some.
    pub(super) fn is_related(&self, table: &str) -> bool {
        !self.related.is_empty() && self.related.contains(&table.to_lowercase())
    }

    /// Whether the schema is still the one that this was read at, and the log too.
    pub(super) fn is_current(&self, conn: &Connection) -> rusqlite::Result<bool> {
        Ok(catalog::schema_version(conn)? == self.schema && epoch_now(conn)? == self.epoch)
    }

    fn end_of_log(&self, conn: &Connection, which: &str) -> rusqlite::Result<i64> {
        let sql = format!("SELECT coalesce({which}(seq), 0) FROM main.{}", self.log);
        conn.prepare_cached(&sql)?.query_row([], |row| row.get(0))
    }

    /// The captured table of that name, if there is one.
    pub(super) fn table(&self, name: &str) -> Option<TableId> {
        let newest = &self.generations.newest;
        newest.iter().find(|(_, known)| known.name.eq_ignore_ascii_case(name)).map(|(id, _)| *id)
    }

    /// Takes in what the log has gained since.
    pub(super) fn absorb(&mut self, conn: &Connection) -> Result<(), Error> {
        let state = "SELECT absorbed, oldest FROM temp.__cdc_index_state WHERE schema = ?1 AND epoch = ?2";
        let state: Option<(i64, i64)> = conn
            .prepare_cached(state)?
            .query_row((self.schema, self.epoch), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (absorbed, cleaned_to) = match state {
            Some(state) => state,
            None => {
                conn.prepare_cached("DELETE FROM temp.__cdc_index")?.execute([])?;
                conn.prepare_cached("DELETE FROM temp.__cdc_touched")?.execute([])?;
                (0, 0)
            }
        };
        self.oldest = self.end_of_log(conn, "min")?;
        self.head = self.end_of_log(conn, "max")?;
        self.entries_read += self.read_entries(conn, absorbed)?;
        let mut cleaned = cleaned_to;
        if self.oldest - cleaned_to > STALE_ENTRIES_MAX {
            for table in ["index", "touched"] {
                let sql = format!("DELETE FROM temp.__cdc_{table} WHERE seq < ?1");
                conn.prepare_cached(&sql)?.execute([self.oldest])?;
            }
            cleaned = self.oldest;
        }
        if state.is_none() || self.head != absorbed || cleaned != cleaned_to {
            let sql = "INSERT OR REPLACE INTO temp.__cdc_index_state VALUES (1, ?1, ?2, ?3, ?4)";
            conn.prepare_cached(sql)?.execute((self.head, cleaned, self.schema, self.epoch))?;
        }
        let newest = format!("SELECT ts FROM main.{} WHERE seq = ?1", self.log);
        let newest: Option<i64> = conn.prepare_cached(&newest)?.query_row([self.head], |row| row.get(0)).optional()?;
        self.newest_ts = newest.unwrap_or(0);
        Ok(())
    }

    /// Takes in the entries behind `after`, and says how many there were.
    fn read_entries(&self, conn: &Connection, after: i64) -> Result<u64, Error> {
        let mut statement = conn.prepare_cached(&self.entries_sql)?;
        let mut rows = statement.query([after])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            let Some(op) = LogOp::of_code(row.get(3)?).filter(|op| op.names_a_key()) else { continue };
            let generation = TableId(row.get::<_, Option<i64>>(2)?.unwrap_or(0));
            let Some(id) = self.generations.readable.get(&generation) else { continue };
            let Some(captured) = self.captured.get(id) else { continue };
            let key = self.key_of(row, captured.collations.len())?;
            let normal = key.normal(&captured.collations);
            let entry = self.entry_of(row)?;
            // A row that is still there was not displaced.
            if op == LogOp::Touch && exists(conn, captured, &key)? {
                conn.prepare_cached("INSERT OR REPLACE INTO temp.__cdc_touched VALUES (?1, ?2, ?3)")?.execute((
                    id.0,
                    normal.as_bytes(),
                    entry.seq,
                ))?;
                continue;
            }
            put(conn, *id, &normal, &entry)?;
        }
        Ok(count)
    }

    fn key_of(&self, row: &Row<'_>, columns: usize) -> Result<Key, Error> {
        if columns > self.key_columns {
            let what = format!("it has {} key columns, a captured table needs {columns}", self.key_columns);
            return Err(sqlite::Error::Damaged { table: "the change log", what }.into());
        }
        let values = (0..columns).map(|place| Ok(value_of(row.get_ref(COLUMNS_BEFORE_KEY + place)?)));
        Ok(Key(values.collect::<rusqlite::Result<_>>()?))
    }

    fn entry_of(&self, row: &Row<'_>) -> rusqlite::Result<Entry> {
        let (seq, ts_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
        let origin = row.get::<_, Option<i64>>(4)?.map_or(self.us, NodeId);
        let origin_seq = row.get::<_, Option<i64>>(5)?.unwrap_or(seq);
        let via = row.get::<_, Option<i64>>(6)?.map(NodeId);
        Ok(Entry { seq, version: Version { ts_ms, origin, seq: origin_seq }, via })
    }

    /// The newest entry of a key, where it is not pruned.
    pub(super) fn get(&self, conn: &Connection, table: TableId, key: &NormalKey) -> Result<Option<Entry>, Error> {
        let sql = "SELECT seq, ts, origin, oseq, via FROM temp.__cdc_index WHERE tbl = ?1 AND key = ?2";
        let read = |row: &Row<'_>| {
            let version = Version { ts_ms: row.get(1)?, origin: NodeId(row.get(2)?), seq: row.get(3)? };
            Ok(Entry { seq: row.get(0)?, version, via: row.get::<_, Option<i64>>(4)?.map(NodeId) })
        };
        let entry = conn.prepare_cached(sql)?.query_row((table.0, key.as_bytes()), read).optional()?;
        Ok(entry.filter(|entry| entry.seq >= self.oldest))
    }

    /// Whether an entry of the log is a touch.
    pub(super) fn is_touch(&self, conn: &Connection, seq: i64) -> Result<bool, Error> {
        let sql = format!("SELECT 1 FROM main.{} WHERE seq = ?1 AND op = ?2", self.log);
        Ok(conn.prepare_cached(&sql)?.exists((seq, LogOp::Touch.code()))?)
    }

    /// Whether the log has a touch of a key beyond `seen` that was no change. Whoever reads the log later and finds the row
    /// gone would take it for one: what removes the row must say so after it.
    pub(super) fn is_touched(
        &self,
        conn: &Connection,
        table: TableId,
        key: &NormalKey,
        seen: i64,
    ) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM temp.__cdc_touched WHERE tbl = ?1 AND key = ?2 AND seq > ?3";
        Ok(conn.prepare_cached(sql)?.exists((table.0, key.as_bytes(), seen))?)
    }

    /// Takes in an entry that the applier appended.
    pub(super) fn appended(
        &mut self,
        conn: &Connection,
        table: TableId,
        key: &NormalKey,
        entry: &Entry,
    ) -> Result<(), Error> {
        put(conn, table, key, entry)?;
        self.head = entry.seq;
        self.newest_ts = entry.version.ts_ms;
        conn.prepare_cached("UPDATE temp.__cdc_index_state SET absorbed = ?1")?.execute([entry.seq])?;
        Ok(())
    }

    /// Whether there is any entry of a table at all.
    pub(super) fn has_any(&self, conn: &Connection, table: TableId) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM temp.__cdc_index WHERE tbl = ?1 AND seq >= ?2 LIMIT 1";
        Ok(conn.prepare_cached(sql)?.exists((table.0, self.oldest))?)
    }
}

/// The log's epoch; 0 where nothing says it.
fn epoch_now(conn: &Connection) -> rusqlite::Result<i64> {
    Ok(store::epoch(conn)?.map_or(0, |epoch| epoch.0))
}

fn exists(conn: &Connection, captured: &Captured, key: &Key) -> Result<bool, Error> {
    let mut found = false;
    captured.by_key.prepare(conn)?.each(key, |_| {
        found = true;
        Ok::<_, Error>(())
    })?;
    Ok(found)
}

fn put(conn: &Connection, table: TableId, key: &NormalKey, entry: &Entry) -> Result<(), Error> {
    let Entry { seq, version, via } = entry;
    conn.prepare_cached("INSERT OR REPLACE INTO temp.__cdc_index VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute((
        table.0,
        key.as_bytes(),
        seq,
        version.ts_ms,
        version.origin.0,
        version.seq,
        via.map(|via| via.0),
    ))?;
    Ok(())
}
