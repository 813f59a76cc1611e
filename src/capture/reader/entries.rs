//! Reads the log's new entries and reduces them to one mark for each key.
//!
//! Entries are compared by the key's collation and by value, as SQLite's index on the key does, so that a key under two
//! spellings is one. What is kept is a key and two versions each, never a row: memory is bounded by `window_rows` and
//! [`KEY_BYTES_MAX`].

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Row};

use super::captured::Captured;
use crate::capture::read_error::Error;
use crate::capture::source::ReadRequest;
use crate::model::{Key, NormalKey, TableId};
use crate::sqlite::{self, LogOp, value_of};

/// The log's columns before the key's: seq, ts, tbl, op, origin, oseq, via.
const COLUMNS_BEFORE_KEY: usize = 7;

/// The version of a change: which entry of our log, and whose it was where it came from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub seq: i64,
    pub ts: i64,
    pub origin: Option<i64>,
    pub origin_seq: Option<i64>,
    pub via: Option<i64>,
}

/// What the window's entries say of one key.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// The key as the newest entry spells it.
    pub key: Key,
    /// Its newest entry.
    pub newest: Version,
    /// Its newest entry that is more than a touch.
    pub written: Option<Version>,
}

/// A window's entries, reduced.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The last entry that was read.
    pub last_seq: i64,
    /// `ts` of the first.
    pub first_ts_ms: Option<i64>,
    /// Marks of each table of the link; a table that has none left is there all the same.
    pub tables: BTreeMap<TableId, HashMap<NormalKey, Mark>>,
    /// Tables of the link whose copy starts anew.
    pub markers: Vec<TableId>,
    /// Tables of the link that somebody asked to have copied again.
    pub repairs: Vec<TableId>,
    keys: usize,
    key_bytes: usize,
}

/// Bytes that the keys of a window may have, where it may be split: as many again are held beside them, as they compare.
const KEY_BYTES_MAX: usize = 64 << 20;

impl Entries {
    /// Reads what came after `request.after`, until `request.window_rows` keys are met, or very long ones.
    pub fn read(connection: &Connection, captured: &Captured, request: &ReadRequest) -> Result<Self, Error> {
        let mut entries = Self { last_seq: request.after, ..Self::default() };
        let mut statement = connection.prepare_cached(captured.entries_sql())?;
        let mut rows = statement.query([request.after])?;
        while let Some(row) = rows.next()? {
            if !entries.add(row, captured, request)? {
                break;
            }
            entries.last_seq = row.get(0)?;
            entries.first_ts_ms = entries.first_ts_ms.or(row.get(1)?);
        }
        Ok(entries)
    }

    /// Takes one entry in; `false` where there is no room for its key.
    fn add(&mut self, row: &Row<'_>, captured: &Captured, request: &ReadRequest) -> Result<bool, Error> {
        let generation = TableId(row.get::<_, Option<i64>>(2)?.unwrap_or(0));
        let op = LogOp::of_code(row.get(3)?);
        if let Some(LogOp::Copy | LogOp::Repair) = op {
            let markers = if op == Some(LogOp::Copy) { &mut self.markers } else { &mut self.repairs };
            add_marker(markers, generation, captured, request);
            return Ok(true);
        }
        // A schema entry, or a further row of an image: it counts for the position alone.
        let Some(op) = op.filter(|op| op.names_a_key()) else { return Ok(true) };
        let Some(table) = captured.readable_as(generation).filter(|table| request.selection.has(table.name())) else {
            return Ok(true);
        };
        // A change of a key is two entries, and no window ends between them.
        let is_full = !op.continues() && request.window_rows.is_some_and(|most| self.is_full(most));
        let marks = self.tables.entry(table.id).or_default();
        let key = key_of(row, table.collations.len(), captured)?;
        let slot = match marks.entry(key.normal(&table.collations)) {
            Slot::Vacant(_) if is_full => return Ok(false),
            slot => slot,
        };
        let version = version_of(row)?;
        let written = (op != LogOp::Touch).then_some(version);
        match slot {
            Slot::Vacant(slot) => {
                self.key_bytes += slot.key().as_bytes().len();
                slot.insert(Mark { key, newest: version, written });
                self.keys += 1;
            }
            Slot::Occupied(mut slot) => {
                let mark = slot.get_mut();
                *mark = Mark { key, newest: version, written: written.or(mark.written) };
            }
        }
        Ok(true)
    }

    fn is_full(&self, keys_max: usize) -> bool {
        self.keys >= keys_max.max(1) || self.key_bytes >= KEY_BYTES_MAX
    }
}

fn add_marker(markers: &mut Vec<TableId>, generation: TableId, captured: &Captured, request: &ReadRequest) {
    let table = captured.newest_of(generation).filter(|table| request.selection.has(table.name()));
    if let Some(id) = table.map(|table| table.id).filter(|id| !markers.contains(id)) {
        markers.push(id);
    }
}

fn key_of(row: &Row<'_>, columns: usize, captured: &Captured) -> Result<Key, Error> {
    if columns > captured.log_key_columns {
        let what = format!("it has {} key columns, a captured table needs {columns}", captured.log_key_columns);
        return Err(sqlite::Error::Damaged { table: "the change log", what }.into());
    }
    let values = (0..columns).map(|place| Ok(value_of(row.get_ref(COLUMNS_BEFORE_KEY + place)?)));
    Ok(Key(values.collect::<rusqlite::Result<_>>()?))
}

fn version_of(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version { seq: row.get(0)?, ts: row.get(1)?, origin: row.get(4)?, origin_seq: row.get(5)?, via: row.get(6)? })
}

/// The statement that reads entries of a log with that many key columns.
pub(super) fn entries_sql(log: &str, key_columns: usize) -> String {
    let keys: String = (0..key_columns).map(|place| format!(", k{place}")).collect();
    format!("SELECT seq, ts, tbl, op, origin, oseq, via{keys} FROM main.{log} WHERE seq > ?1 ORDER BY seq")
}
