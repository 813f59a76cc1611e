//! Whether a touch was a deletion.
//!
//! A touch says that a row was about to be displaced by REPLACE, and what it was. It was displaced if the key's next entry
//! is an insert, or there is none and the row is gone: any other entry of the key, a further touch too, is of a row that
//! was still there.
//!
//! The next entry may be far ahead, and the log has no index of keys; so the log is looked through ahead of the reader,
//! once, and the touches that are not decided yet are kept by key. What is kept is bounded ([`TRACKED_MAX`]); past that,
//! touches further on are looked for later, in another pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::Connection;

use super::catalog::EventCatalog;
use crate::capture::Images;
use crate::capture::read_error::Error;
use crate::model::{Key, NormalKey, TableId};
use crate::sqlite::{LogOp, value_of};

/// Touches that are kept undecided, or decided ahead of the reader, at most: some 20 MB of them.
const TRACKED_MAX: usize = 100_000;

/// Entries of the first look ahead, for most touches are decided by the entry behind them, and of the longest, between two
/// of which the touch that is asked for may be decided.
const LOOK_FIRST: i64 = 64;
const LOOK_MAX: i64 = 8_192;

/// What tells a row from others: its table, its key, and its rowid where that is logged, which is where several rows may
/// have one key.
type Identity = (TableId, NormalKey, Option<i64>);

/// What is known of touches ahead.
#[derive(Default)]
pub(super) struct Touches {
    /// Touches after this one, up to [`Self::tracked_to`], are known.
    tracked_from: i64,
    tracked_to: i64,
    /// How far the log was looked through for what decides them.
    scanned_to: i64,
    /// Touches that no further entry of their key was found of: the newest of each key, and the other way round.
    pending: HashMap<Identity, i64>,
    undecided: BTreeMap<i64, (TableId, Key, Option<i64>)>,
    deletes: BTreeSet<i64>,
}

impl Touches {
    /// Touches up to this entry will not be asked for, unless reading begins anew before it.
    pub fn forget_up_to(&mut self, seq: i64) {
        if seq < self.tracked_from {
            *self = Self::default();
        } else if seq > self.tracked_from {
            self.tracked_from = seq;
            self.deletes = self.deletes.split_off(&(seq + 1));
            if self.pending.len() > TRACKED_MAX / 2 {
                self.pending.retain(|_, touch| *touch > seq);
                self.undecided = self.undecided.split_off(&(seq + 1));
            }
        }
    }

    /// Whether the touch at this entry was a deletion.
    pub fn was_a_delete(&mut self, connection: &Connection, catalog: &EventCatalog, seq: i64) -> Result<bool, Error> {
        if seq <= self.tracked_from || seq > self.tracked_to.max(self.scanned_to) || self.is_behind(seq) {
            let from = seq - 1;
            *self = Self { tracked_from: from, tracked_to: from, scanned_to: from, ..Self::default() };
        }
        let mut look = LOOK_FIRST;
        while (seq > self.tracked_to || self.undecided.contains_key(&seq)) && self.scan(connection, catalog, look)? {
            look = (look * 2).min(LOOK_MAX);
        }
        let Some((table, key, rowid)) = self.undecided.get(&seq) else { return Ok(self.deletes.contains(&seq)) };
        let Some(line) = catalog.line(*table) else { return Ok(false) };
        Ok(!line.has_row(connection, key, *rowid)?)
    }

    /// Whether the log was looked through beyond this touch without keeping it.
    fn is_behind(&self, seq: i64) -> bool {
        seq > self.tracked_to && seq <= self.scanned_to
    }

    /// Looks further; `false` at the log's end.
    fn scan(&mut self, connection: &Connection, catalog: &EventCatalog, entries: i64) -> Result<bool, Error> {
        let keys: String = (0..catalog.layout.keys).map(|place| format!(", k{place}")).collect();
        let sql =
            format!("SELECT seq, tbl, op, origin{keys} FROM main.{} WHERE seq > ?1 ORDER BY seq LIMIT ?2", catalog.log);
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query((self.scanned_to, entries))?;
        let mut any = false;
        while let Some(row) = rows.next()? {
            any = true;
            let seq: i64 = row.get(0)?;
            let tracks = self.tracked_to == self.scanned_to && self.undecided.len() + self.deletes.len() < TRACKED_MAX;
            self.scanned_to = seq;
            if tracks {
                self.tracked_to = seq;
            }
            let Some(op) = LogOp::of_code(row.get(2)?).filter(|op| op.names_a_key()) else { continue };
            let known = catalog.known(TableId(row.get::<_, Option<i64>>(1)?.unwrap_or(0)));
            let Some((known, id)) = known.and_then(|known| Some((known, known.line?))) else { continue };
            let is_touch = op == LogOp::Touch && tracks && known.images == Images::Full;
            if self.pending.is_empty() && !is_touch {
                continue;
            }
            let Some(line) = catalog.line(id) else { continue };
            let values = (0..known.keys).map(|place| Ok(value_of(row.get_ref(4 + place)?)));
            let key = Key(values.collect::<rusqlite::Result<_>>()?);
            // No other table has anything in the column behind its key.
            let behind = (known.keys < catalog.layout.keys).then(|| row.get_ref(4 + known.keys)).transpose()?;
            let rowid = behind.and_then(|value| value.as_i64().ok());
            let normal = (id, line.normal(&key), rowid);
            if let Some(touch) = self.pending.remove(&normal) {
                self.undecided.remove(&touch);
                // An entry of the applier's says how a row is now, not how it came.
                let is_ours = row.get::<_, Option<i64>>(3)?.is_none();
                if matches!(op, LogOp::Insert | LogOp::Arrive) && is_ours {
                    self.deletes.insert(touch);
                }
            }
            if is_touch {
                self.undecided.insert(seq, (id, key, rowid));
                self.pending.insert(normal, seq);
            }
        }
        Ok(any)
    }
}
