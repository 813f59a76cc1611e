//! Writes what was accepted, and settles who holds a unique value.
//!
//! All accepted keys free their slots first, for two rows may swap values; then rows are placed, the highest version
//! first. Where another key's row holds a value that an incoming row wants:
//!
//! * the sender had seen it: it is another row by now, and what it has become is still to come. It is removed;
//! * it is concurrent and loses: it is removed and recorded, and its deletion is a change of our own;
//! * it is concurrent and wins: the incoming row is recorded, and what is here is logged anew.
//!
//! SQLite itself says which rows are in the way, whatever kind of index it is: the row is put in their place under a
//! savepoint, a temporary trigger notes whose rows went, and all of it is taken back.

use rusqlite::Connection;

use super::super::Error;
use super::super::error::shown;
use super::conflicts::{Conflict, Loser, Why};
use super::decide::is_concurrent;
use super::index::Entry;
use super::mutant::{Mutant, left_out};
use super::session::Merge;
use super::stage::{self, Accepted};
use super::table::{Filled, LocalRow, Shared};
use super::versions::{KeyOf, Said};
use crate::model::{CopyingBack, Key, KeyShape, NormalKey, TableId, Version};
use crate::sqlite::{ident, value_of};

/// The table and the trigger that note whose rows are in the way.
const DISPLACED: &str = "temp.__cdc_displaced";
const DISPLACED_ON: &str = "__cdc_displaced_on";
/// REPLACE fires no triggers for what it removes.
const RECURSIVE_OFF: &str = "PRAGMA recursive_triggers = OFF";

/// Puts back what a window that failed in the middle left on its connection; a pragma is not taken back with a transaction.
///
/// # Errors
/// SQLite's.
pub(super) fn clear(conn: &Connection) -> rusqlite::Result<()> {
    let is_on: bool = conn.prepare_cached("PRAGMA recursive_triggers")?.query_row([], |row| row.get(0))?;
    if is_on { conn.execute_batch(RECURSIVE_OFF) } else { Ok(()) }
}

/// A row in the way.
struct InTheWay {
    key: Key,
    rows: Vec<LocalRow>,
    entry: Option<Entry>,
    concurrent: bool,
}

impl Merge<'_> {
    /// Places everything that is on the stage.
    ///
    /// # Errors
    /// A row that is refused here, or SQLite's.
    pub(super) fn place_all(&mut self) -> Result<(), Error> {
        for table in stage::tables(self.conn)? {
            self.place_table(table)?;
        }
        stage::clear(self.conn)?;
        Ok(())
    }

    fn place_table(&mut self, table: TableId) -> Result<(), Error> {
        let shared = self.shared(table)?;
        let mut rejected = Vec::new();
        for place in stage::highest_first(self.conn, table)? {
            let change = stage::get(self.conn, place)?;
            if self.make_room(table, &shared, &change)? {
                self.log_placed(&shared, &change)?;
            } else {
                rejected.push(place);
            }
        }
        for place in rejected {
            let change = stage::get(self.conn, place)?;
            self.assert_anew(&shared, &change)?;
        }
        self.forget_displaced(&shared)
    }

    /// Inserts the rows of a change. Says `false` where one in the way wins; nothing is removed or written then.
    fn make_room(&mut self, table: TableId, shared: &Shared, change: &Accepted) -> Result<bool, Error> {
        let mut placed = self.try_insert_all(table, shared, change)?;
        if matches!(placed, Placed::Unnoted) {
            // Outside of the savepoint, which may be taken back: once for all conflicts of the table.
            self.note_displaced(shared)?;
            placed = self.try_insert_all(table, shared, change)?;
        }
        let Placed::Removed(removed) = placed else {
            for row in &change.rows {
                let conflict = self.conflict(shared, change, (Loser::Incoming, Why::UniqueValue), None);
                self.book.record(self.conn, &conflict, (&shared.wire_columns, Some(row)))?;
            }
            return Ok(false);
        };
        for way in removed {
            self.log_removed(shared, change, &way)?;
        }
        self.written.deletes += u64::from(change.rows.is_empty() && !change.before.is_empty());
        self.written.upserts += change.rows.len() as u64;
        Ok(true)
    }

    /// Does all of it or nothing.
    fn try_insert_all(&mut self, table: TableId, shared: &Shared, change: &Accepted) -> Result<Placed, Error> {
        self.conn.execute_batch("SAVEPOINT __cdc_placing")?;
        let placed = self.insert_all(table, shared, change)?;
        let end = match placed {
            Placed::Removed(_) => "RELEASE __cdc_placing",
            Placed::Rejected | Placed::Unnoted => "ROLLBACK TO __cdc_placing; RELEASE __cdc_placing",
        };
        self.conn.execute_batch(end)?;
        Ok(placed)
    }

    fn insert_all(&mut self, table: TableId, shared: &Shared, change: &Accepted) -> Result<Placed, Error> {
        let mut removed = Vec::new();
        for row in &change.rows {
            let filled = shared.fill(row, change.before.first());
            if shared.insert(self.conn, &filled, &change.key)? {
                continue;
            }
            if !self.noting {
                return Ok(Placed::Unnoted);
            }
            let mut ways = Vec::new();
            for key in self.displaced_by(shared, &filled, &change.key)? {
                // At the sender both rows are there at once, so its tables do not have the index that is in the way.
                if stage::has(self.conn, table, key.normal(&shared.collations).as_bytes())? {
                    return Err(Error::UniqueOnlyHere { table: shared.name.clone(), key: shown(&change.key) });
                }
                ways.push(self.in_the_way(shared, key)?);
            }
            let policy = self.policy(shared);
            let loses = |way: &InTheWay| match way.entry {
                Some(entry) if way.concurrent => policy.incoming_wins(change.version, entry.version),
                _ => true,
            };
            if self.only_adds || !ways.iter().all(loses) {
                return Ok(Placed::Rejected);
            }
            for way in ways {
                shared.delete(self.conn, &way.key)?;
                removed.push(way);
            }
            if !shared.insert(self.conn, &filled, &change.key)? {
                return Err(Error::Malformed("two of its rows want one unique value"));
            }
        }
        Ok(Placed::Removed(removed))
    }

    fn in_the_way(&self, shared: &Shared, key: Key) -> Result<InTheWay, Error> {
        let entry = self.entry(shared, &key)?;
        let concurrent = is_concurrent(entry.as_ref(), self.seen, self.peer);
        Ok(InTheWay { rows: shared.rows(self.conn, &key)?, key, entry, concurrent })
    }

    /// Logs that a row gave way.
    fn log_removed(&mut self, shared: &Shared, change: &Accepted, way: &InTheWay) -> Result<(), Error> {
        self.written.deletes += 1;
        let normal = way.key.normal(&shared.collations);
        let Some(table) = shared.captured else { return Ok(()) };
        let of = KeyOf { table, key: &way.key, normal: &normal };
        if !way.concurrent && !self.is_blind(way.entry.as_ref()) && !left_out(Mutant::LoudKnown) {
            // What it has become is still to come.
            if self.rules.forwards || self.index.is_touched(self.conn, table, &normal, self.seen)? {
                let version = self.ledger.fresh(self.index, 0);
                self.ledger.append(self.conn, self.index, of, (Said::Deleted, version, Some(self.peer)))?;
            }
            return Ok(());
        }
        let why = if way.concurrent { Why::UniqueValue } else { Why::LostHistory };
        for row in &way.rows {
            let conflict = self.conflict(shared, change, (Loser::Local, why), way.entry);
            let conflict = Conflict { key: &way.key, ..conflict };
            self.book.record(self.conn, &conflict, (&shared.columns, Some(row)))?;
        }
        let incoming = if way.concurrent { 0 } else { change.version.ts_ms.max(0) };
        let local = way.entry.map_or(0, |entry| entry.version.ts_ms);
        if left_out(Mutant::SilentDisplace) {
            return Ok(());
        }
        let version = self.ledger.own(self.index, incoming.max(local) + 1);
        self.ledger.append(self.conn, self.index, of, (Said::Deleted, version, None))
    }

    /// Logs a change that was written.
    pub(super) fn log_placed(&mut self, shared: &Shared, change: &Accepted) -> Result<(), Error> {
        let Some(table) = shared.captured else { return Ok(()) };
        let normal = change.key.normal(&shared.collations);
        let entry = self.index.get(self.conn, table, &normal)?;
        let of_range = change.version == Version::LOWEST;
        let fresh = self.ledger.fresh(self.index, 0);
        let over_own = is_concurrent(entry.as_ref(), self.seen, self.peer) && !left_out(Mutant::NoEcho);
        // What goes back to the peer under our name. Nothing goes back to one that only sends.
        let as_ours = !self.rules.one_way
            && ((of_range && (self.blind || self.may_cross()))
                || shared.holds_more(self.conn, &change.key, over_own)?);
        let (version, via) = if as_ours {
            (fresh, None)
        } else if self.rules.forwards || over_own || self.is_touch_undone(table, change, &normal)? {
            let backwards = entry.is_some_and(|entry| entry.version >= change.version) && !left_out(Mutant::Backwards);
            (if of_range || backwards { fresh } else { change.version }, Some(self.peer))
        } else {
            return Ok(());
        };
        let said = if change.rows.is_empty() { Said::Deleted } else { Said::Written };
        let of = KeyOf { table, key: &change.key, normal: &normal };
        self.ledger.append(self.conn, self.index, of, (said, version, via))
    }

    /// Whether a copy from here may cross the peer's.
    fn may_cross(&self) -> bool {
        match self.copying_back {
            CopyingBack::No => false,
            CopyingBack::Waits => !self.replaces_lost,
            CopyingBack::UnderWay => true,
        }
    }

    /// Whether a row goes that the log has only touched: the touch would be read as its deletion, by us.
    fn is_touch_undone(&self, table: TableId, change: &Accepted, normal: &NormalKey) -> Result<bool, Error> {
        Ok(change.rows.is_empty() && self.index.is_touched(self.conn, table, normal, self.seen)?)
    }

    /// An incoming row lost its unique value to one that is here: what was here under its key is said anew, as ours. It
    /// goes back to that where its own values are still free, and otherwise is gone.
    fn assert_anew(&mut self, shared: &Shared, change: &Accepted) -> Result<(), Error> {
        let mut is_back = !change.before.is_empty();
        for (number, row) in change.before.iter().enumerate() {
            let filled = shared.fill(&shared.as_wire(row), Some(row));
            if shared.insert(self.conn, &filled, &change.key)? {
                continue;
            }
            is_back = number > 0;
            let conflict = self.conflict(shared, change, (Loser::Local, Why::UniqueValue), None);
            self.book.record(self.conn, &conflict, (&shared.columns, Some(row)))?;
        }
        let Some(table) = shared.captured.filter(|_| !left_out(Mutant::SilentReject)) else { return Ok(()) };
        let normal = change.key.normal(&shared.collations);
        let floor = change.version.ts_ms.saturating_add(2);
        let version = self.ledger.fresh(self.index, floor);
        let said = if is_back { Said::Written } else { Said::Deleted };
        let of = KeyOf { table, key: &change.key, normal: &normal };
        self.ledger.append(self.conn, self.index, of, (said, version, None))
    }

    /// Whose rows are in the way of a row.
    fn displaced_by(&self, shared: &Shared, filled: &Filled, key: &Key) -> Result<Vec<Key>, Error> {
        // What gave way since is in it, too.
        self.conn.prepare_cached(&format!("DELETE FROM {DISPLACED}"))?.execute([])?;
        self.conn.execute_batch("SAVEPOINT __cdc_looking")?;
        let replaced = shared.replace(self.conn, filled, key);
        let keys = replaced.and_then(|()| {
            let mut statement = self.conn.prepare_cached(&format!("SELECT * FROM {DISPLACED}"))?;
            let columns = statement.column_count();
            let read = |row: &rusqlite::Row<'_>| {
                (0..columns).map(|place| Ok(value_of(row.get_ref(place)?))).collect::<rusqlite::Result<Vec<_>>>()
            };
            let keys = statement.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(keys.into_iter().map(Key).collect())
        });
        self.conn.execute_batch("ROLLBACK TO __cdc_looking; RELEASE __cdc_looking")?;
        keys
    }

    /// Makes the trigger that notes whose rows go. It and the pragma make SQLite prepare every statement anew, so they stand
    /// until the table is done.
    fn note_displaced(&mut self, shared: &Shared) -> Result<(), Error> {
        let names: Vec<String> = match &shared.local.key {
            KeyShape::Rowid { name } => vec![(*name).to_owned()],
            KeyShape::RowidAlias { .. } | KeyShape::Columns { .. } | KeyShape::None => {
                shared.local.key_columns().iter().map(|(name, _)| ident(name)).collect()
            }
        };
        let columns: Vec<String> = (0..names.len()).map(|place| format!("k{place}")).collect();
        let old: Vec<String> = names.iter().map(|name| format!("OLD.{name}")).collect();
        let (columns, old, table) = (columns.join(", "), old.join(", "), ident(&shared.name));
        self.conn.execute_batch(&format!(
            "CREATE TEMP TABLE __cdc_displaced({columns});
             CREATE TEMP TRIGGER {DISPLACED_ON} AFTER DELETE ON main.{table}
             BEGIN INSERT INTO __cdc_displaced VALUES ({old}); END;
             PRAGMA recursive_triggers = ON"
        ))?;
        self.noting = true;
        Ok(())
    }

    fn forget_displaced(&mut self, shared: &Shared) -> Result<(), Error> {
        debug_assert!(!self.noting || shared.has_unique, "only a unique index puts a row in the way");
        if std::mem::take(&mut self.noting) {
            self.conn
                .execute_batch(&format!("DROP TRIGGER temp.{DISPLACED_ON}; DROP TABLE {DISPLACED}; {RECURSIVE_OFF}"))?;
        }
        Ok(())
    }
}

/// What became of the rows of a change.
enum Placed {
    /// They are here, and these had to give way.
    Removed(Vec<InTheWay>),
    /// A row that is here wins.
    Rejected,
    /// A row is in the way, and the trigger that would say which does not stand yet.
    Unnoted,
}
