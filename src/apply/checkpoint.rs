//! How far a peer's changes and tables are applied here: the rows of `__cdc_checkpoints` and `__cdc_copies`.
//!
//! Both are written only inside the transaction that applies what they say.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};

use super::{Error, TableStatus};
use crate::model::{Checkpoint, CopyState, Epoch, Key, NodeId, Position, TableId, TableProgress};
use crate::sqlite;

/// What is held of a peer: what a session tells it in its Hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Up to where its log is applied; `None` before the first window, and two-way also while it is not known whether the peer
    /// has kept its part of a first contact: then what is kept here of it says nothing to the peer.
    pub checkpoint: Option<Checkpoint>,
    /// Its tables here.
    pub tables: Vec<HeldTable>,
    /// Whether the last window was a part, so that a reader may see half of the source's transaction.
    pub between_transactions: bool,
    /// Windows applied, ever: how a test sees that none was applied twice.
    pub windows: u64,
    /// Two-way: how far the peer had applied our log, by the newest window of its that is applied here.
    pub seen: i64,
    /// Two-way: whether everything of the peer's is to be copied, and nothing of it has come yet.
    pub copy_due: bool,
    /// Two-way: whether that copy, or the one under way, leaves what only this node has.
    pub union: bool,
    /// Tables that the peer dropped and that stay here, for the link's `migrate_mode` is `safe`.
    pub left: Vec<String>,
}

/// One table of a peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldTable {
    /// How far it is copied.
    pub progress: TableProgress,
    /// Its name.
    pub name: String,
    /// Rows copied so far.
    pub rows: u64,
    /// How many its owner believes it has.
    pub rows_estimate: u64,
}

/// A row of `__cdc_checkpoints`.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) peer: NodeId,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) between_transactions: bool,
    pub(super) windows: u64,
    pub(super) seen: i64,
}

const STORED: &str =
    "SELECT peer, epoch, seq, ts, fingerprint, between_transactions, windows, seen FROM main.__cdc_checkpoints";

fn read_stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    let checkpoint = match row.get::<_, Option<i64>>(1)? {
        Some(epoch) => Some(Checkpoint {
            position: Position { epoch: Epoch(epoch), seq: row.get(2)? },
            ts_ms: row.get(3)?,
            fingerprint: row.get(4)?,
        }),
        None => None,
    };
    let windows: i64 = row.get(6)?;
    let (peer, between_transactions) = (NodeId(row.get(0)?), row.get(5)?);
    Ok(Stored { peer, checkpoint, between_transactions, windows: windows.cast_unsigned(), seen: row.get(7)? })
}

/// What is stored for the node of that id.
pub(super) fn by_peer(conn: &Connection, peer: NodeId) -> rusqlite::Result<Option<Stored>> {
    conn.prepare_cached(&format!("{STORED} WHERE peer = ?1"))?.query_row([peer.0], read_stored).optional()
}

/// What is stored under a name, checked against the id of the node that calls itself so now, if that is known.
///
/// # Errors
/// [`Error::PeerChanged`], or SQLite's.
pub(super) fn by_name(conn: &Connection, name: &str, peer: Option<NodeId>) -> Result<Option<Stored>, Error> {
    let mut statement = conn.prepare_cached(&format!("{STORED} WHERE name = ?1"))?;
    let stored = statement.query_row([name], read_stored).optional()?;
    match (stored, peer) {
        (Some(stored), Some(now)) if stored.peer != now => {
            Err(Error::PeerChanged { name: name.to_owned(), was: stored.peer, now })
        }
        (None, Some(now)) => Ok(by_peer(conn, now)?),
        (stored, _) => Ok(stored),
    }
}

/// Where a window ends, as it is stored.
pub(super) struct Reached<'a> {
    pub(super) peer: NodeId,
    pub(super) name: &'a str,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) seen: i64,
    pub(super) between_transactions: bool,
}

/// Moves the checkpoint, and counts the window.
pub(super) fn store(conn: &Connection, reached: &Reached<'_>) -> rusqlite::Result<()> {
    let Checkpoint { position, ts_ms, fingerprint } = reached.checkpoint;
    conn.prepare_cached(
        "INSERT INTO main.__cdc_checkpoints(peer, name, epoch, seq, ts, fingerprint, seen, between_transactions, windows)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1)
         ON CONFLICT(peer) DO UPDATE SET name = ?2, epoch = ?3, seq = ?4, ts = ?5, fingerprint = ?6, seen = ?7,
           between_transactions = ?8, windows = windows + 1",
    )?
    .execute((
        reached.peer.0,
        reached.name,
        position.epoch.0,
        position.seq,
        ts_ms,
        fingerprint,
        reached.seen,
        reached.between_transactions,
    ))?;
    Ok(())
}

/// How far one table is copied, and what `status` shows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) name: String,
    pub(super) state: CopyState,
    pub(super) lost_history: bool,
    pub(super) rows: u64,
    pub(super) rows_estimate: u64,
    pub(super) note: Option<String>,
    /// Dropped at the source, and left here.
    pub(super) left: bool,
}

impl Copy {
    /// Of a table that nothing is known of.
    pub(super) fn pending(name: &str, rows_estimate: u64) -> Self {
        let (name, state) = (name.to_owned(), CopyState::Pending);
        Self { name, state, lost_history: false, rows: 0, rows_estimate, note: None, left: false }
    }

    fn is_untouched(&self) -> bool {
        self.state == CopyState::Pending && !self.lost_history && !self.left && self.rows == 0
    }
}

/// How far the tables of one peer are copied; remembers what it must write.
#[derive(Debug, Default)]
pub(super) struct Copies {
    tables: BTreeMap<TableId, Copy>,
    changed: BTreeSet<TableId>,
    /// Put in as new, and not asked about yet.
    new: BTreeSet<TableId>,
}

impl Copies {
    /// What is stored.
    ///
    /// # Errors
    /// [`sqlite::Error::Damaged`], or SQLite's.
    pub(super) fn load(conn: &Connection, peer: NodeId) -> Result<Self, Error> {
        let mut statement = conn.prepare_cached(
            "SELECT id, name, state, after, lost_history, rows, rows_estimate, note FROM main.__cdc_copies WHERE peer = ?1",
        )?;
        let mut rows = statement.query([peer.0])?;
        let mut tables = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let word: String = row.get(2)?;
            let after: Option<Vec<u8>> = row.get(3)?;
            let state = state_of(&word, after.as_deref())?;
            let (count, estimate): (i64, i64) = (row.get(5)?, row.get(6)?);
            let copy = Copy {
                name: row.get(1)?,
                state,
                lost_history: row.get(4)?,
                rows: count.cast_unsigned(),
                rows_estimate: estimate.cast_unsigned(),
                note: row.get(7)?,
                left: word == LEFT,
            };
            tables.insert(TableId(row.get(0)?), copy);
        }
        Ok(Self { tables, ..Self::default() })
    }

    pub(super) fn get(&self, table: TableId) -> Option<&Copy> {
        self.tables.get(&table)
    }

    /// To change it; it will be written.
    pub(super) fn change(&mut self, table: TableId) -> Option<&mut Copy> {
        let copy = self.tables.get_mut(&table)?;
        self.changed.insert(table);
        Some(copy)
    }

    /// Puts a table in that nothing was ever received of.
    pub(super) fn put_new(&mut self, table: TableId, name: &str, rows_estimate: u64) {
        self.put(table, Copy::pending(name, rows_estimate));
        self.new.insert(table);
    }

    /// Puts a table in, in place of what it was.
    pub(super) fn put(&mut self, table: TableId, copy: Copy) {
        if self.tables.get(&table) != Some(&copy) {
            self.tables.insert(table, copy);
            self.changed.insert(table);
        }
    }

    /// Takes a table out; it is removed unless it is put in again.
    pub(super) fn take(&mut self, table: TableId) -> Option<Copy> {
        let copy = self.tables.remove(&table)?;
        self.changed.insert(table);
        Some(copy)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TableId, &Copy)> {
        self.tables.iter().map(|(table, copy)| (*table, copy))
    }

    /// Begins the copy of a table anew, because what is here may differ. Says whether it had begun before.
    pub(super) fn begin_anew(&mut self, table: TableId) -> bool {
        let Some(copy) = self.change(table).filter(|copy| !copy.left) else { return false };
        let had_begun = copy.state != CopyState::Pending;
        (copy.state, copy.lost_history, copy.rows) = (CopyState::Pending, true, 0);
        had_begun
    }

    /// The same, where the peer is asked for it: what it sends between two writers then is a plain repair, as it sees it, but
    /// where a copy that replaces lost history was unfinished.
    pub(super) fn begin_asked(&mut self, table: TableId, merged: bool) -> bool {
        let was_lost = self.get(table).is_some_and(|copy| copy.lost_history && copy.state != CopyState::Done);
        let had_begun = self.begin_anew(table);
        if merged && !was_lost {
            self.is_plain_repair(table);
        }
        had_begun
    }

    /// The same for every table that the peer still has.
    pub(super) fn begin_all_anew(&mut self) {
        let tables: Vec<TableId> = self.tables.iter().filter(|(_, copy)| !copy.left).map(|(table, _)| *table).collect();
        for table in tables {
            self.begin_anew(table);
        }
    }

    /// Tables that were put in as new since this was last asked, and that no copy has begun of.
    pub(super) fn take_new(&mut self) -> Vec<TableId> {
        let mut new = std::mem::take(&mut self.new);
        new.retain(|table| self.get(*table).is_some_and(Copy::is_untouched));
        new.into_iter().collect()
    }

    /// The copy of a table that begins anew replaces nothing that was lost: somebody asked for it.
    pub(super) fn is_plain_repair(&mut self, table: TableId) {
        if let Some(copy) = self.change(table) {
            copy.lost_history = false;
        }
    }

    /// Takes every copy for whole.
    pub(super) fn end_all(&mut self) {
        let tables: Vec<TableId> = self.tables.keys().copied().collect();
        tables.into_iter().for_each(|table| self.end(table));
    }

    /// Takes the copy of a table for whole.
    pub(super) fn end(&mut self, table: TableId) {
        if let Some(copy) = self.change(table) {
            (copy.state, copy.lost_history) = (CopyState::Done, false);
        }
    }

    /// Whether every copy is whole.
    pub(super) fn all_done(&self) -> bool {
        self.tables.values().all(|copy| copy.left || copy.state == CopyState::Done)
    }

    /// Writes what changed. Says how all tables stand where anything did, and nothing otherwise.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn store(&mut self, conn: &Connection, peer: NodeId) -> rusqlite::Result<Vec<TableStatus>> {
        let changed = std::mem::take(&mut self.changed);
        for id in &changed {
            match self.tables.get(id) {
                Some(copy) => store_copy(conn, peer, *id, copy)?,
                None => {
                    let sql = "DELETE FROM main.__cdc_copies WHERE peer = ?1 AND id = ?2";
                    conn.prepare_cached(sql)?.execute((peer.0, id.0))?;
                }
            }
        }
        let status = |(id, copy): (TableId, &Copy)| TableStatus {
            id,
            name: copy.name.clone(),
            state: copy.state.clone(),
            rows_copied: copy.rows,
            rows_estimate: copy.rows_estimate,
            note: copy.note.clone(),
        };
        Ok(if changed.is_empty() { Vec::new() } else { self.iter().map(status).collect() })
    }

    /// For a Hello: the tables that the peer has, and the names of those that it dropped.
    pub(super) fn held(&self) -> (Vec<HeldTable>, Vec<String>) {
        let (mut tables, mut left) = (Vec::new(), Vec::new());
        for (table, copy) in self.iter() {
            if copy.left {
                left.push(copy.name.clone());
                continue;
            }
            let progress = TableProgress { table, state: copy.state.clone(), lost_history: copy.lost_history };
            let (rows, rows_estimate) = (copy.rows, copy.rows_estimate);
            tables.push(HeldTable { progress, name: copy.name.clone(), rows, rows_estimate });
        }
        (tables, left)
    }
}

const PENDING: &str = "pending";
const COPYING: &str = "copying";
const DONE: &str = "done";
const LEFT: &str = "left";

fn state_of(word: &str, after: Option<&[u8]>) -> Result<CopyState, sqlite::Error> {
    let damaged = |what: &str| sqlite::Error::Damaged { table: "__cdc_copies", what: what.to_owned() };
    match word {
        PENDING => Ok(CopyState::Pending),
        COPYING => {
            let after = after.and_then(Key::from_bytes).ok_or_else(|| damaged("a copy's last key cannot be read"))?;
            Ok(CopyState::Copying { after })
        }
        DONE | LEFT => Ok(CopyState::Done),
        _ => Err(damaged("it names an unknown state")),
    }
}

fn store_copy(conn: &Connection, peer: NodeId, id: TableId, copy: &Copy) -> rusqlite::Result<()> {
    let (word, after) = match &copy.state {
        _ if copy.left => (LEFT, None),
        CopyState::Pending => (PENDING, None),
        CopyState::Copying { after } => (COPYING, Some(after.to_bytes())),
        CopyState::Done => (DONE, None),
    };
    conn.prepare_cached(
        "INSERT OR REPLACE INTO main.__cdc_copies(peer, id, name, state, after, lost_history, rows, rows_estimate, note)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute((
        peer.0,
        id.0,
        &copy.name,
        word,
        after,
        copy.lost_history,
        copy.rows.cast_signed(),
        copy.rows_estimate.cast_signed(),
        &copy.note,
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    #[test]
    fn what_is_stored_of_the_copies_comes_back() {
        let conn = sqlite::in_memory().expect("memory");
        sqlite::store::ensure_node(&conn).expect("node");
        let peer = NodeId(9);
        let mut copies = Copies::default();
        copies.put(TableId(1), Copy::pending("a", 7));
        let after = Key(vec![Value::text("k"), Value::Null]);
        copies.put(TableId(2), Copy { state: CopyState::Copying { after }, rows: 3, ..Copy::pending("b", 5) });
        copies.put(TableId(3), Copy { state: CopyState::Done, left: true, ..Copy::pending("c", 0) });
        assert_eq!(copies.store(&conn, peer).expect("store").len(), 3);
        assert_eq!(copies.store(&conn, peer).expect("store").len(), 0, "nothing changed since");
        let back = Copies::load(&conn, peer).expect("load");
        assert_eq!(back.tables, copies.tables);
        assert_eq!(back.held().0.len(), 2);
        assert_eq!(back.held().1, ["c"]);
        copies.take(TableId(1)).expect("there");
        copies.store(&conn, peer).expect("store");
        assert!(Copies::load(&conn, peer).expect("load").get(TableId(1)).is_none());
    }
}
