//! Reads the log's new entries and reduces them to one mark for each key.
//!
//! Entries are compared by the key's collation and by value, as SQLite's index on the key does, so that a key under two
//! spellings is one. What is kept is a key and two versions each, never a row: memory is bounded by `window_rows` and
//! [`KEY_BYTES_MAX`]. A window that may not be split is read in [`Part`]s instead, one after the other.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Row};
use xxhash_rust::xxh3::xxh3_64;

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
    part: Part,
    keys: usize,
    key_bytes: usize,
}

/// Bytes that the keys which are held may have: as many again are held beside them, as they compare.
const KEY_BYTES_MAX: usize = 64 << 20;

/// Keys that are held of a window which may not be split: some 150 MB. One that has more is read in parts.
pub(super) const KEYS_HELD_MAX: usize = 500_000;

/// Into how many parts a window is divided at most, for each reads the entries again. A part is larger than it should be
/// beyond that: with 500 million keys, or with 64 GiB of them.
const PARTS_MAX: u64 = 1_024;

/// Some of a window's keys: those whose hash leaves `number`, divided by `count`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    number: u64,
    count: u64,
}

impl Default for Part {
    fn default() -> Self {
        Self { number: 0, count: 1 }
    }
}

impl Part {
    fn has(self, key: &NormalKey) -> bool {
        self.count == 1 || xxh3_64(key.as_bytes()) % self.count == self.number
    }

    /// The first of twice as many.
    fn halved(self) -> Self {
        Self { number: 0, count: self.count * 2 }
    }

    /// Those that come after this one.
    fn rest(self) -> impl Iterator<Item = Self> {
        (self.number + 1..self.count).map(move |number| Self { number, ..self })
    }
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It counts.
    In,
    /// The window ends before it.
    WindowFull,
    /// There are more keys than may be held, and the window may not end here.
    PartFull,
}

impl Entries {
    /// Reads what came after `request.after`, until `request.window_rows` keys are met, or very long ones. Where the window
    /// may not end there, no more keys than `held_max` are read: [`Self::rest`] has the others.
    pub fn read(
        connection: &Connection,
        captured: &Captured,
        (request, held_max): (&ReadRequest, usize),
    ) -> Result<Self, Error> {
        let mut part = Part::default();
        loop {
            let held_max = (part.count < PARTS_MAX).then_some(held_max);
            match Self::read_part(connection, captured, (request, part, held_max))? {
                Some(entries) => return Ok(entries),
                None => part = part.halved(),
            }
        }
    }

    /// The parts of the window that are still to be read.
    pub fn rest(
        &self,
        connection: &Connection,
        captured: &Captured,
        request: &ReadRequest,
    ) -> impl Iterator<Item = Result<Self, Error>> {
        self.part.rest().map(move |part| {
            let entries = Self::read_part(connection, captured, (request, part, None))?;
            Ok(entries.expect("nothing bounds a further part"))
        })
    }

    /// Reads one part; none where it has more keys than may be held.
    fn read_part(
        connection: &Connection,
        captured: &Captured,
        (request, part, held_max): (&ReadRequest, Part, Option<usize>),
    ) -> Result<Option<Self>, Error> {
        let mut entries = Self { last_seq: request.after, part, ..Self::default() };
        let mut statement = connection.prepare_cached(captured.entries_sql())?;
        let mut rows = statement.query([request.after])?;
        while let Some(row) = rows.next()? {
            match entries.add(row, captured, (request, held_max))? {
                Taken::In => {}
                Taken::WindowFull => break,
                Taken::PartFull => return Ok(None),
            }
            entries.last_seq = row.get(0)?;
            entries.first_ts_ms = entries.first_ts_ms.or(row.get(1)?);
        }
        Ok(Some(entries))
    }

    /// Takes one entry in, where there is room for its key.
    fn add(
        &mut self,
        row: &Row<'_>,
        captured: &Captured,
        (request, held_max): (&ReadRequest, Option<usize>),
    ) -> Result<Taken, Error> {
        let generation = TableId(row.get::<_, Option<i64>>(2)?.unwrap_or(0));
        let op = LogOp::of_code(row.get(3)?);
        if let Some(LogOp::Copy | LogOp::Repair) = op {
            let markers = if op == Some(LogOp::Copy) { &mut self.markers } else { &mut self.repairs };
            add_marker(markers, generation, captured, request);
            return Ok(Taken::In);
        }
        // A schema entry, or a further row of an image: it counts for the position alone.
        let Some(op) = op.filter(|op| op.names_a_key()) else { return Ok(Taken::In) };
        let Some(table) = captured.readable_as(generation).filter(|table| request.selection.has(table.name())) else {
            return Ok(Taken::In);
        };
        // A change of a key is two entries, and no window ends between them.
        let window_full = !op.continues() && request.window_rows.is_some_and(|most| self.is_full(most));
        let part_full = request.window_rows.is_none() && held_max.is_some_and(|most| self.is_full(most));
        let marks = self.tables.entry(table.id).or_default();
        let key = key_of(row, table.collations.len(), captured)?;
        let normal = key.normal(&table.collations);
        if !self.part.has(&normal) {
            return Ok(Taken::In);
        }
        let slot = match marks.entry(normal) {
            Slot::Vacant(_) if window_full => return Ok(Taken::WindowFull),
            Slot::Vacant(_) if part_full => return Ok(Taken::PartFull),
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
        Ok(Taken::In)
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
