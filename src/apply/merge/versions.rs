//! What the applier logs of what it applies, and the hybrid clock that versions are taken from.
//!
//! Triggers log nothing while the applier writes. An entry of the applier's carries a version of its own where that is a
//! peer's, or one that a conflict asked for; otherwise it has the log's next fresh one, as an application's would.

use rusqlite::Connection;

use super::super::Error;
use super::index::{Entry, LogIndex};
use super::mutant::{Mutant, left_out};
use crate::model::{Key, NodeId, NormalKey, TableId, Version};
use crate::sqlite::Bind;
use crate::sqlite::store::{self, meta_key};

/// What an entry says; the numbers are those of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A row is there.
    Written = 2,
    /// A row is gone.
    Deleted = 3,
}

/// A key of a captured table.
#[derive(Clone, Copy)]
pub(super) struct KeyOf<'a> {
    pub(super) table: TableId,
    pub(super) key: &'a Key,
    pub(super) normal: &'a NormalKey,
}

/// Appends to the log, and keeps the clock.
pub(super) struct Ledger {
    us: NodeId,
    now_ms: i64,
    hlc: i64,
    stored_hlc: i64,
    /// Entries appended.
    pub(super) appended: u64,
}

impl Ledger {
    /// At that moment of the wall clock. The clock is raised to the log's newest entry at once.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn open(conn: &Connection, us: NodeId, now_ms: i64, index: &LogIndex) -> rusqlite::Result<Self> {
        let stored_hlc: i64 = store::meta(conn, meta_key::HLC)?.unwrap_or(0);
        let hlc = if left_out(Mutant::NoRaise) { stored_hlc } else { stored_hlc.max(index.newest_ts()) };
        Ok(Self { us, now_ms, hlc, stored_hlc, appended: 0 })
    }

    /// Keeps the clock above what was accepted.
    pub(super) fn raise_above(&mut self, ts_ms: i64) {
        self.hlc = self.hlc.max(ts_ms.saturating_add(1));
    }

    /// A version of our own for the next entry, at `floor_ms` or later.
    pub(super) fn fresh(&self, index: &LogIndex, floor_ms: i64) -> Version {
        let ts_ms = self.now_ms.max(self.hlc).max(index.newest_ts()).max(floor_ms);
        Version { ts_ms, origin: self.us, seq: index.head() + 1 }
    }

    /// A version of our own with this time, whatever the clock says.
    pub(super) fn own(&self, index: &LogIndex, ts_ms: i64) -> Version {
        Version { ts_ms, origin: self.us, seq: index.head() + 1 }
    }

    /// Appends an entry. `via` is the peer whose doing it is.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn append(
        &mut self,
        conn: &Connection,
        index: &mut LogIndex,
        of: KeyOf<'_>,
        entry: (Said, Version, Option<NodeId>),
    ) -> Result<(), Error> {
        let (said, version, via) = entry;
        let seq = index.head() + 1;
        let places = of.key.0.len().min(index.key_columns());
        let columns: String = (0..places).map(|place| format!(", k{place}")).collect();
        let params: String = (0..places).map(|place| format!(", ?{}", place + 8)).collect();
        let log = index.log();
        let sql = format!(
            "INSERT INTO main.{log}(seq, ts, tbl, op, origin, oseq, via{columns}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7{params})"
        );
        let mut statement = conn.prepare_cached(&sql)?;
        statement.raw_bind_parameter(1, seq)?;
        statement.raw_bind_parameter(2, version.ts_ms)?;
        statement.raw_bind_parameter(3, of.table.0)?;
        statement.raw_bind_parameter(4, said as i64)?;
        statement.raw_bind_parameter(5, version.origin.0)?;
        statement.raw_bind_parameter(6, version.seq)?;
        statement.raw_bind_parameter(7, via.map(|via| via.0))?;
        for place in 0..places {
            statement.raw_bind_parameter(place + 8, Bind(&of.key.0[place]))?;
        }
        statement.raw_execute()?;
        index.appended(conn, of.table, of.normal, &Entry { seq, version, via })?;
        if !left_out(Mutant::NoRaise) {
            self.hlc = self.hlc.max(version.ts_ms);
        }
        self.appended += 1;
        Ok(())
    }

    /// Keeps the clock for the triggers.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn store(&self, conn: &Connection) -> rusqlite::Result<()> {
        if self.hlc > self.stored_hlc {
            store::set_meta(conn, meta_key::HLC, self.hlc)?;
        }
        Ok(())
    }
}
