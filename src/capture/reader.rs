//! Reads the change log of one database, and the rows that it names, window by window.
//!
//! Triggers append to the log; [`LogReader`] says what became of the keys in it. A window is read in one read
//! transaction: the schema's version, the log's end, the new entries, the rows they name, and a piece of a copy where one
//! is due are all of one moment, and that moment is between two transactions of the application.
//!
//! * Entries are reduced to one change a key ([`entries`]), rows are read by key as they are now ([`rows`]).
//! * Where the schema is not the one that the triggers were last compared with, nothing is read: drift comes first.
//! * Memory holds the keys of a window, or a part of them, and a batch of each kind, not the rows.
//!
//! Not promised: that rows of a window which is split are as they were at its end. They are as they are in the read
//! transaction; the entries of later changes come in later parts and say the same again, or more.

mod captured;
mod catalog;
mod entries;
mod objects;
mod rows;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use self::captured::{Captured, Table};
use self::entries::{Entries, KEYS_HELD_MAX};
use super::batches::Limits;
use super::read_error::Error;
use super::source::{ChangeSource, Copied, CopyStep, ReadOutcome, ReadRequest, ReadWindow, Sink};
use super::{change_log, missed, snapshot};
use crate::model::{Checkpoint, Position, TableId, WindowEnd};
use crate::sqlite::{self, Role, catalog as schema, store};

/// Reads one database's log. Keeps a connection, and what it knows of the schema.
pub struct LogReader {
    connection: Connection,
    captured: Option<Captured>,
    keys_held_max: usize,
}

impl LogReader {
    /// Reads through a connection of its own.
    ///
    /// # Errors
    /// Those of [`sqlite::open`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self::new(sqlite::open(path, Role::Reader, false)?))
    }

    /// Reads through this connection, which nobody else uses.
    pub fn new(connection: Connection) -> Self {
        Self { connection, captured: None, keys_held_max: KEYS_HELD_MAX }
    }

    /// `PRAGMA data_version`: moves when another connection has committed something since it was last asked for.
    ///
    /// # Errors
    /// The database's.
    pub fn data_version(&self) -> Result<i64, Error> {
        Ok(self.connection.prepare_cached("PRAGMA main.data_version")?.query_row([], |row| row.get(0))?)
    }

    fn read_inside(&mut self, request: &ReadRequest, sink: &mut Sink<'_>) -> Result<ReadOutcome, Error> {
        let version = schema::schema_version(&self.connection)?;
        if !store::exists(&self.connection)? {
            return Err(Error::NotCaptured);
        }
        if store::meta(&self.connection, store::meta_key::SCHEMA_VERSION)? != Some(version) {
            return Ok(ReadOutcome::SchemaChanged);
        }
        if request.two_way.is_some() && missed::can_begin(&self.connection)? {
            return Ok(ReadOutcome::SchemaChanged);
        }
        let captured = match self.captured.take().filter(|captured| captured.schema_version == version) {
            Some(captured) => captured,
            None => Captured::read(&mut self.connection, version)?,
        };
        let (connection, keys_held_max) = (&self.connection, self.keys_held_max);
        let outcome = Window { connection, captured: &captured, request, keys_held_max }.read(sink);
        self.captured = Some(captured);
        outcome
    }
}

impl ChangeSource for LogReader {
    fn read(&mut self, request: &ReadRequest, sink: &mut Sink<'_>) -> Result<ReadOutcome, Error> {
        self.connection.execute_batch("BEGIN")?;
        let outcome = self.read_inside(request, sink);
        // Some failures have ended it already. There is nothing to commit in either case.
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        outcome
    }
}

/// What the database holds of the peer that a window is for.
#[derive(Clone, Copy, Default)]
struct KnownOfPeer {
    /// Up to where its log is applied here.
    seen: i64,
    /// How many of its windows of this session are applied here.
    applied: u64,
    /// Whether a copy from it is unfinished.
    copying: bool,
    /// Whether one that replaces lost history is.
    copying_lost: bool,
}

/// One window, inside its read transaction.
struct Window<'a> {
    connection: &'a Connection,
    captured: &'a Captured,
    request: &'a ReadRequest,
    keys_held_max: usize,
}

impl Window<'_> {
    fn read(&self, sink: &mut Sink<'_>) -> Result<ReadOutcome, Error> {
        self.check_position()?;
        let head = self.head()?;
        let known = self.known_of_peer()?;
        let yielded = self.request.copy.as_ref().is_some_and(|step| self.yields(step, known));
        let step = self.copy_step().filter(|_| !yielded);
        let catalog = self.request.catalog_known != Some(self.captured.schema_version);
        if head <= self.request.after && step.is_none() && !catalog {
            return Ok(ReadOutcome::Nothing { head, seen: known.seen, yielded });
        }
        let tables = match catalog {
            true => Some(catalog::emit(self.connection, self.captured, self.request, sink)?),
            false => None,
        };
        let (tables, held_back) = tables.map_or((None, Vec::new()), |(tables, held_back)| (Some(tables), held_back));
        let mut entries = Entries::read(self.connection, self.captured, (self.request, self.keys_held_max))?;
        let mut changes = 0;
        let mut touched: BTreeMap<TableId, &Table> = BTreeMap::new();
        let first = std::iter::once(Ok(std::mem::take(&mut entries.tables)));
        let rest = entries.rest(self.connection, self.captured, self.request);
        for part in first.chain(rest.map(|part| part.map(|part| part.tables))) {
            for (id, marks) in part? {
                let table = self.captured.table(id).expect("entries are those of tables that are there");
                touched.insert(id, table);
                changes += rows::emit(self.connection, (table, marks), self.request, sink)?;
            }
        }
        let copied = step.map(|(table, step)| self.copy(table, step, sink)).transpose()?;
        touched.extend(step.map(|(table, _)| (table.id, table)));
        let end = self.end(&entries, (head, known), touched.into_values())?;
        let first_ts_ms = entries.first_ts_ms;
        let catalog = self.captured.schema_version;
        Ok(ReadOutcome::Window(ReadWindow { end, catalog, tables, held_back, copied, yielded, changes, first_ts_ms }))
    }

    /// Whether a piece of a copy waits for the peer's own copy. What replaces lost history goes before a repair that
    /// somebody asked for, which would take what is not here yet for gone; of two alike, the smaller node id goes first.
    fn yields(&self, step: &CopyStep, known: KnownOfPeer) -> bool {
        let Some(way) = self.request.two_way.filter(|_| known.copying) else { return false };
        match (step.lost_history, known.copying_lost) {
            (true, false) => false,
            (false, true) => true,
            (true, true) | (false, false) => way.yields,
        }
    }

    /// What is applied here of the peer that the window is for, where anything is.
    fn known_of_peer(&self) -> Result<KnownOfPeer, Error> {
        let Some(way) = self.request.two_way else { return Ok(KnownOfPeer::default()) };
        let seen = store::applied_seq(self.connection, way.peer)?;
        let applied = store::windows_applied(self.connection, way.peer)?.saturating_sub(way.windows_before);
        let copying = store::copy_unfinished(self.connection, way.peer)?;
        let copying_lost = copying && store::lost_copy_unfinished(self.connection, way.peer)?;
        Ok(KnownOfPeer { seen, applied, copying, copying_lost })
    }

    /// The copy that was asked for, if its table is still there.
    fn copy_step(&self) -> Option<(&Table, &CopyStep)> {
        let step = self.request.copy.as_ref()?;
        let table = self.captured.table(step.table).filter(|table| self.request.selection.has(table.name()))?;
        Some((table, step))
    }

    fn copy(&self, table: &Table, step: &CopyStep, sink: &mut Sink<'_>) -> Result<Copied, Error> {
        let limits = Limits::of(self.request);
        let (item, copied) = snapshot::copy_step(self.connection, &table.schema, step, limits)?;
        sink(item).map_err(Error::Spool)?;
        Ok(copied)
    }

    fn head(&self) -> Result<i64, Error> {
        let sql = format!("SELECT coalesce(max(seq), 0) FROM main.{}", self.captured.log);
        Ok(self.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
    }

    fn end<'t>(
        &self,
        entries: &Entries,
        (head, known): (i64, KnownOfPeer),
        touched: impl Iterator<Item = &'t Table>,
    ) -> Result<WindowEnd, Error> {
        Ok(WindowEnd {
            to: self.checkpoint(entries.last_seq)?,
            head,
            seen: known.seen,
            applied: known.applied,
            whole: !known.copying,
            last_part: entries.last_seq >= head,
            markers: entries.markers.clone(),
            repairs: entries.repairs.clone(),
            sequences: self.sequences(touched)?,
            // Each end of a two-way link has its own.
            user_version: self.one_way(|| self.pragma("user_version"))?,
            application_id: self.one_way(|| self.pragma("application_id"))?,
        })
    }

    /// The position, and what recognises the entry there; zeros where there is none.
    fn checkpoint(&self, seq: i64) -> Result<Checkpoint, Error> {
        let epoch = store::epoch(self.connection)?
            .ok_or_else(|| sqlite::Error::Damaged { table: "__cdc_meta", what: "it names no epoch".to_owned() })?;
        let (ts_ms, fingerprint) = self.mark(seq)?.unwrap_or((0, 0));
        Ok(Checkpoint { position: Position { epoch, seq }, ts_ms, fingerprint })
    }

    fn mark(&self, seq: i64) -> Result<Option<(i64, i64)>, Error> {
        Ok(change_log::entry_mark(self.connection, &self.captured.log_name, seq)?)
    }

    /// Whether the log still goes on from where the link has read it to. The entry there is kept for as long as the link
    /// has not acknowledged it, unless the log outgrew its retention; and where it is another one, or beyond the log's
    /// end, an older database was put in place of this one. What was to be read next may be gone then.
    fn check_position(&self) -> Result<(), Error> {
        match self.request.mark {
            Some(mark) if self.mark(self.request.after)? != Some(mark) => {
                Err(Error::PositionGone { seq: self.request.after })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// `sqlite_sequence` of these tables: it moves even where a window's rows are gone again.
    fn sequences<'t>(&self, tables: impl Iterator<Item = &'t Table>) -> Result<Vec<(String, i64)>, Error> {
        if !store::table_exists(self.connection, "sqlite_sequence")? {
            return Ok(Vec::new());
        }
        let sql = "SELECT seq FROM main.sqlite_sequence WHERE name = ?1 COLLATE NOCASE AND typeof(seq) = 'integer'";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut sequences = Vec::new();
        for table in tables {
            let value: Option<i64> = statement.query_row([table.name()], |row| row.get(0)).optional()?;
            sequences.extend(value.map(|value| (table.name().to_owned(), value)));
        }
        Ok(sequences)
    }

    fn one_way<T>(&self, read: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
        if self.request.two_way.is_some() { Ok(None) } else { read().map(Some) }
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<i32> {
        self.connection.prepare_cached(&format!("PRAGMA main.{name}"))?.query_row([], |row| row.get(0))
    }
}
