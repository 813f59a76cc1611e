//! The tables of our own: their DDL, and the settings in `__cdc_meta`.
//!
//! The stages that own a table ([`crate::capture`] the log, [`crate::apply`] the checkpoints) read and write it
//! themselves; what both need is here. DESIGN section 3 of the project says what each holds; the names are for good.

use rusqlite::{Connection, OptionalExtension, ToSql, types::FromSql};

use super::{Error, ident};
use crate::model::{Epoch, NodeId};

/// The format that this binary writes. A newer binary migrates an older one; an older binary refuses a newer one.
pub const FORMAT: i64 = 1;

/// The tables that every node's database has, whether it captures or only receives. Idempotent.
pub const NODE_TABLES: &str = "
CREATE TABLE IF NOT EXISTS __cdc_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS __cdc_checkpoints(
  peer INTEGER PRIMARY KEY, name TEXT NOT NULL, epoch INTEGER, seq INTEGER, ts INTEGER, fingerprint INTEGER,
  seen INTEGER NOT NULL DEFAULT 0, blind_until INTEGER NOT NULL DEFAULT 0, copy_start INTEGER NOT NULL DEFAULT 0,
  windows INTEGER NOT NULL DEFAULT 0, between_transactions INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS __cdc_copies(
  peer INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, after BLOB,
  lost_history INTEGER NOT NULL DEFAULT 0, rows INTEGER NOT NULL DEFAULT 0, rows_estimate INTEGER NOT NULL DEFAULT 0,
  note TEXT, PRIMARY KEY(peer, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS __cdc_received(
  peer INTEGER NOT NULL, type TEXT NOT NULL, name TEXT NOT NULL, tbl_name TEXT NOT NULL, sql TEXT NOT NULL,
  PRIMARY KEY(peer, type, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS __cdc_conflicts(
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, peer INTEGER NOT NULL, tbl TEXT NOT NULL, key BLOB NOT NULL,
  winner TEXT NOT NULL, policy TEXT NOT NULL, why TEXT NOT NULL, local_version TEXT, incoming_version TEXT,
  loser BLOB, columns TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS __cdc_conflicts_why ON __cdc_conflicts(why);
";

/// The tables that a capturing node's database has besides, without the log, whose shape depends on what is captured.
pub const CAPTURE_TABLES: &str = "
CREATE TABLE IF NOT EXISTS __cdc_tables(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, replaces INTEGER, columns TEXT NOT NULL, key TEXT NOT NULL,
  ddl TEXT NOT NULL, indexes TEXT NOT NULL, dropped INTEGER NOT NULL DEFAULT 0,
  images TEXT NOT NULL DEFAULT 'key');
CREATE TABLE IF NOT EXISTS __cdc_consumers(
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, peer INTEGER, epoch INTEGER, seq INTEGER, at INTEGER,
  cut_off INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
";

/// Keys of `__cdc_meta`, each with what its value is.
pub mod meta_key {
    /// Integer: [`super::FORMAT`].
    pub const FORMAT: &str = "format";
    /// Integer: the node's id.
    pub const NODE_ID: &str = "node_id";
    /// Integer: the log's epoch.
    pub const EPOCH: &str = "epoch";
    /// Text, JSON: epochs that ended, with the last entry of each where the log was full, and none known where the log was
    /// dropped; a checkpoint in one of them is merely cut off, not diverged.
    pub const EPOCHS_BEFORE: &str = "epochs_before";
    /// Integer, ms since 1970: the hybrid clock.
    pub const HLC: &str = "hlc";
    /// Integer: the flag that every trigger's WHEN compares the newest sequence number with. Triggers capture while the
    /// log's end is below it. While the applier writes it is [`super::APPLYING`], which nothing is below.
    pub const CAPTURE_LIMIT: &str = "capture_limit";
    /// Text: the log's name.
    pub const LOG_TABLE: &str = "log_table";
    /// Text, JSON: what bounds the log, as it was said last: `{"age_ms", "rows", "size_bytes"}`.
    pub const RETENTION: &str = "retention";
    /// Text: `key` or `full`.
    pub const IMAGES: &str = "images";
    /// Integer: `PRAGMA schema_version` that the triggers were last compared at.
    pub const SCHEMA_VERSION: &str = "schema_version";
    /// Text, JSON: every schema object at that version, to account for what changed since.
    pub const SCHEMA_OBJECTS: &str = "schema_objects";
    /// Integer: `PRAGMA schema_version` as the applier left it. Another one means that somebody changed the schema of a
    /// replica, or ran VACUUM there.
    pub const APPLIED_SCHEMA_VERSION: &str = "applied_schema_version";
    /// Integer: how often that was found.
    pub const SCHEMA_MOVES: &str = "schema_moves";
    /// Integer, with the peer's id at its end: how many of those moves its tables were compared after.
    pub const SCHEMA_MOVES_SEEN: &str = "schema_moves_seen:";
    /// With the peer's id at its end: a copy of all its tables is agreed on, and its catalog has not come yet. 1, or
    /// [`super::UNSETTLED`].
    pub const COPY_DUE: &str = "copy_due:";
    /// Integer, with the peer's id at its end: that copy is a seed which this end loses; up to where its log is given up, or 0
    /// where the peer's windows say so.
    pub const SEED_LOST: &str = "seed_lost:";
    /// 1, with the peer's id at its end: the copy of its tables leaves what only this end has.
    pub const UNION: &str = "union:";
    /// 1, with the peer's id at its end: a first contact that this end won, and the peer's catalog has not come yet.
    pub const SEED_WON: &str = "seed_won:";
    /// Integer, with the peer's id at its end: the newest generation of a captured table when the peer's tables were last
    /// joined to ours. A line of generations that began since is a table that was made here since.
    pub const GENERATIONS_SEEN: &str = "generations_seen:";
    /// Text, JSON: tables, by id, that capture may have missed changes of, and whose copies wait for one into this node.
    pub const MISSED: &str = "missed";
    /// Text, JSON: tables, in lower case, that windows have touched and whose foreign keys are to be looked at.
    pub const FOREIGN_KEYS_DUE: &str = "foreign_keys_due";
    /// Text, JSON: the globs of what is captured: `{"tables": […], "skip_tables": […]}`.
    pub const SELECTION: &str = "selection";
    /// Text, JSON: tables that are not captured, name to reason.
    pub const SKIPPED: &str = "skipped";
    /// Text: the event consumer that is given what was taken over from sqlite-cdc.
    pub const TAKEN_BY: &str = "taken_by";
}

/// The value of [`meta_key::COPY_DUE`] at a first contact, of which this end kept its part first: whether the peer has kept its
/// own is not known.
pub const UNSETTLED: i64 = 2;

/// The capture flag while the applier writes: no sequence number is below it, so no trigger logs anything.
pub const APPLYING: i64 = -1;

/// Whether the database holds anything of ours.
///
/// # Errors
/// SQLite's.
pub fn exists(connection: &Connection) -> rusqlite::Result<bool> {
    table_exists(connection, "__cdc_meta")
}

/// Whether there is a table of that name.
///
/// # Errors
/// SQLite's.
pub fn table_exists(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?
        .exists([name])
}

/// A setting, or `None` where it was never made.
///
/// # Errors
/// SQLite's, also where the value is of another type.
pub fn meta<T: FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    connection
        .prepare_cached("SELECT value FROM main.__cdc_meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Makes a setting.
///
/// # Errors
/// SQLite's.
pub fn set_meta(connection: &Connection, key: &str, value: impl ToSql) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO main.__cdc_meta(key, value) VALUES (?1, ?2) ON CONFLICT(key) DO UPDATE SET value = ?2",
        )?
        .execute((key, value))?;
    Ok(())
}

/// Makes the tables that every node has, inside the caller's transaction, and returns the node's id: the one that is
/// there, or a new random one.
///
/// # Errors
/// [`Error::NewerFormat`], or SQLite's.
pub fn ensure_node(connection: &Connection) -> Result<NodeId, Error> {
    check_format(connection)?;
    connection.execute_batch(NODE_TABLES)?;
    set_meta(connection, meta_key::FORMAT, FORMAT)?;
    if let Some(id) = meta(connection, meta_key::NODE_ID)? {
        return Ok(NodeId(id));
    }
    let id = NodeId(random_positive());
    set_meta(connection, meta_key::NODE_ID, id.0)?;
    Ok(id)
}

/// Refuses a database that a newer Twinlite wrote. Does nothing where there is nothing of ours.
///
/// # Errors
/// [`Error::NewerFormat`], or SQLite's.
pub fn check_format(connection: &Connection) -> Result<(), Error> {
    if !exists(connection)? {
        return Ok(());
    }
    match meta::<i64>(connection, meta_key::FORMAT)? {
        Some(found) if found > FORMAT => Err(Error::NewerFormat { found, known: FORMAT }),
        _ => Ok(()),
    }
}

/// The node's id, where there is one.
///
/// # Errors
/// SQLite's.
pub fn node_id(connection: &Connection) -> rusqlite::Result<Option<NodeId>> {
    if !exists(connection)? {
        return Ok(None);
    }
    Ok(meta(connection, meta_key::NODE_ID)?.map(NodeId))
}

/// The log's epoch, where something is captured.
///
/// # Errors
/// SQLite's.
pub fn epoch(connection: &Connection) -> rusqlite::Result<Option<Epoch>> {
    Ok(meta(connection, meta_key::EPOCH)?.map(Epoch))
}

/// Up to which sequence number a peer's log is applied here; 0 where nothing is.
///
/// # Errors
/// SQLite's.
pub fn applied_seq(connection: &Connection, peer: NodeId) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce(seq, 0) FROM main.__cdc_checkpoints WHERE peer = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([peer.0], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// How many windows of a peer were ever applied here.
///
/// # Errors
/// SQLite's.
pub fn windows_applied(connection: &Connection, peer: NodeId) -> rusqlite::Result<u64> {
    let sql = "SELECT windows FROM main.__cdc_checkpoints WHERE peer = ?1";
    let windows: Option<i64> = connection.prepare_cached(sql)?.query_row([peer.0], |row| row.get(0)).optional()?;
    Ok(windows.unwrap_or(0).cast_unsigned())
}

/// Whether a copy of that peer's tables is unfinished here, or due.
///
/// # Errors
/// SQLite's.
pub fn copy_unfinished(connection: &Connection, peer: NodeId) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM main.__cdc_copies WHERE peer = ?1 AND state IN ('pending', 'copying'))
               OR EXISTS (SELECT 1 FROM main.__cdc_meta WHERE key = ?2)";
    let due = format!("{}{}", meta_key::COPY_DUE, peer.0);
    connection.prepare_cached(sql)?.query_row((peer.0, due), |row| row.get(0))
}

/// Whether a copy of that peer's tables is unfinished here, or due, that replaces history which is lost.
///
/// # Errors
/// SQLite's.
pub fn lost_copy_unfinished(connection: &Connection, peer: NodeId) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM main.__cdc_copies
                 WHERE peer = ?1 AND state IN ('pending', 'copying') AND lost_history <> 0)
               OR EXISTS (SELECT 1 FROM main.__cdc_meta WHERE key = ?2)";
    let due = format!("{}{}", meta_key::COPY_DUE, peer.0);
    connection.prepare_cached(sql)?.query_row((peer.0, due), |row| row.get(0))
}

/// Whether a copy of everything that the peer has is agreed on, and its catalog has not come yet: what
/// [`meta_key::COPY_DUE`] says.
///
/// # Errors
/// SQLite's.
pub fn copy_due(connection: &Connection, peer: NodeId) -> rusqlite::Result<Option<i64>> {
    meta(connection, &format!("{}{}", meta_key::COPY_DUE, peer.0))
}

/// Whether a copy of any peer's is unfinished here, or due.
///
/// # Errors
/// SQLite's.
pub fn any_copy_unfinished(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM main.__cdc_copies WHERE state IN ('pending', 'copying'))
               OR EXISTS (SELECT 1 FROM main.__cdc_meta WHERE substr(key, 1, length(?1)) = ?1)";
    connection.prepare_cached(sql)?.query_row([meta_key::COPY_DUE], |row| row.get(0))
}

/// Makes this node blind towards every peer that it applies changes of: what it has is copied to them from the end of its
/// log at `head` on, and until they have it, nobody can tell what they knew.
///
/// # Errors
/// SQLite's.
pub fn begin_blindness(connection: &Connection, head: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE main.__cdc_checkpoints SET blind_until = ?1, copy_start = ?2";
    connection.prepare_cached(sql)?.execute((i64::MAX, head)).map(drop)
}

/// The log's name, as an SQL identifier.
///
/// # Errors
/// [`Error::Damaged`] where nothing is captured.
pub fn log_table(connection: &Connection) -> Result<String, Error> {
    let name: Option<String> = meta(connection, meta_key::LOG_TABLE)?;
    name.map(|name| ident(&name))
        .ok_or_else(|| Error::Damaged { table: "__cdc_meta", what: "it names no log".to_owned() })
}

/// The newest sequence number of the log; 0 of one that never had an entry.
///
/// # Errors
/// [`Error::Damaged`] where nothing is captured.
pub fn log_end(connection: &Connection) -> Result<i64, Error> {
    let sql = format!("SELECT coalesce(max(seq), 0) FROM main.{}", log_table(connection)?);
    Ok(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
}

/// Whether the log has reached its limit: triggers log nothing, so changes of the application go unlogged. Not to be asked
/// while the apply flag is set.
///
/// # Errors
/// SQLite's.
pub fn log_is_full(connection: &Connection) -> Result<bool, Error> {
    let limit: Option<i64> = meta(connection, meta_key::CAPTURE_LIMIT)?;
    let Some(limit) = limit.filter(|limit| *limit != APPLYING) else { return Ok(false) };
    Ok(log_end(connection)? >= limit)
}

/// How many key columns the log of that name (an SQL identifier) has.
///
/// # Errors
/// SQLite's.
pub fn log_key_columns(connection: &Connection, log: &str) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare(&format!("PRAGMA main.table_info({log})"))?;
    let names = statement.query_map([], |row| row.get::<_, String>("name"))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((0..names.len()).take_while(|place| names.contains(&format!("k{place}"))).count())
}

/// A random id: positive, so that it reads well in a query, and not 0.
pub fn random_positive() -> i64 {
    rand::random_range(1..=i64::MAX)
}
