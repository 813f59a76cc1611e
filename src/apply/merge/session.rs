//! One window, where both ends write: what holds for all of it, and what becomes of each incoming change.

use std::collections::HashMap;
use std::rc::Rc;

use rusqlite::Connection;

use super::super::error::shown;
use super::super::rows::{LEADING_COLUMNS, Written};
use super::super::statement::Target;
use super::super::{Error, Recorded, foreign};
use super::conflicts::{Book, Conflict, Loser, Why};
use super::decide::{MergeRules, Policy, Seed, is_concurrent, judge};
use super::index::{Entry, LogIndex};
use super::mutant::{Mutant, left_out};
use super::place;
use super::stage::{self, Accepted};
use super::table::{LocalRow, Shared};
use super::versions::{KeyOf, Ledger, Said};
use crate::codec::DecodedBatch;
use crate::model::{CopyingBack, EncodedBatch, Key, NodeId, Rows, RowsOp, TableId, Value, Version};
use crate::sqlite::value_of;
use rusqlite::types::ValueRef;

/// What a window's merge is given.
pub(in super::super) struct Session<'a> {
    pub(in super::super) peer: NodeId,
    pub(in super::super) peer_name: &'a str,
    pub(in super::super) us: NodeId,
    pub(in super::super) rules: &'a MergeRules,
    /// How far the sender had applied our log.
    pub(in super::super) seen: i64,
    /// Whether nobody can tell who knew what.
    pub(in super::super) blind: bool,
    /// Our log when that began.
    pub(in super::super) blind_since: i64,
    /// Whether a copy that this end loses runs: a seed.
    pub(in super::super) seed_lost: bool,
    /// Whether the copy of the peer's tables leaves what only this end has.
    pub(in super::super) is_union: bool,
    /// Whether a copy from here to the peer may be under way.
    pub(in super::super) copying_back: CopyingBack,
    pub(in super::super) now_ms: i64,
}

/// A window being merged, inside the caller's transaction.
pub(in super::super) struct Merge<'a> {
    pub(super) conn: &'a Connection,
    pub(super) index: &'a mut LogIndex,
    pub(super) ledger: Ledger,
    pub(super) book: Book,
    pub(super) rules: &'a MergeRules,
    pub(super) peer: NodeId,
    peer_name: String,
    us: NodeId,
    pub(super) seen: i64,
    pub(super) blind: bool,
    blind_since: i64,
    pub(super) seed_lost: bool,
    is_union: bool,
    pub(super) copying_back: CopyingBack,
    now_ms: i64,
    tables: HashMap<TableId, Rc<Shared>>,
    pub(super) written: Written,
    /// Whether the range at hand replaces lost history.
    pub(super) replaces_lost: bool,
    /// Whether rows of a range give way to whatever is here.
    pub(super) only_adds: bool,
    /// Whether the trigger stands that notes whose rows are in the way.
    pub(super) noting: bool,
}

/// What one key of the peer's is to be.
struct Incoming {
    version: Version,
    key: Key,
    rows: Vec<Vec<Value>>,
}

impl<'a> Merge<'a> {
    /// Begins a window: takes in what the local log has gained, and raises the clock to it.
    ///
    /// # Errors
    /// SQLite's.
    pub(in super::super) fn begin(
        conn: &'a Connection,
        index: &'a mut LogIndex,
        session: Session<'a>,
    ) -> Result<Self, Error> {
        if !left_out(Mutant::NoAbsorb) {
            index.absorb(conn)?;
        }
        stage::clear(conn)?;
        place::clear(conn)?;
        let Session { peer, peer_name, us, rules, seen, blind, blind_since, seed_lost, is_union, copying_back, now_ms } =
            session;
        Ok(Self {
            conn,
            ledger: Ledger::open(conn, us, now_ms, index)?,
            index,
            book: Book { peer, now_ms, written: Recorded::default() },
            rules,
            peer,
            peer_name: peer_name.to_owned(),
            us,
            seen,
            blind,
            blind_since,
            seed_lost,
            is_union,
            copying_back,
            now_ms,
            tables: HashMap::new(),
            written: Written::default(),
            replaces_lost: false,
            only_adds: false,
            noting: false,
        })
    }

    /// The end of the window: everything is placed, and the clock kept. Says what was written, how many conflicts were
    /// recorded and how many entries logged.
    ///
    /// # Errors
    /// Those of placing, or SQLite's.
    pub(in super::super) fn finish(mut self) -> Result<(Written, Recorded, u64), Error> {
        self.place_all()?;
        self.ledger.store(self.conn)?;
        let touched = self.tables.values().filter(|table| self.index.is_related(&table.name));
        foreign::mark_due(self.conn, touched.map(|table| table.name.to_lowercase()).collect())?;
        Ok((self.written, self.book.written, self.ledger.appended))
    }

    /// A table as it is here. Kept for the window.
    pub(super) fn shared_of(&mut self, target: &Target) -> Rc<Shared> {
        let (tables, index) = (&mut self.tables, &self.index);
        let made = || Rc::new(Shared::new(target, index.table(&target.name)));
        Rc::clone(tables.entry(target.id).or_insert_with(made))
    }

    pub(super) fn shared(&self, table: TableId) -> Result<Rc<Shared>, Error> {
        self.tables.get(&table).cloned().ok_or(Error::UnknownTable { id: table })
    }

    pub(super) fn policy(&self, shared: &Shared) -> Policy {
        self.rules.policies.of(&shared.name).clone()
    }

    /// The newest local entry of a key.
    pub(super) fn entry(&self, shared: &Shared, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(table) = shared.captured else { return Ok(None) };
        self.index.get(self.conn, table, &key.normal(&shared.collations))
    }

    /// Whether nobody can tell if the sender knew of a key's newest entry, or of what happened unlogged since. A peer that
    /// only sends never says what it has seen; what came from it since, it knows all the same.
    pub(super) fn is_blind(&self, entry: Option<&Entry>) -> bool {
        let its_own = |entry: &Entry| entry.via == Some(self.peer) && entry.seq > self.blind_since;
        self.blind && !(self.rules.one_way && !self.seed_lost && entry.is_some_and(its_own))
    }

    /// What made one of the two lose, as it is recorded: the seed, for what it overwrites or keeps out; otherwise the policy.
    fn decided_by(
        &self,
        shared: &Shared,
        change: &Accepted,
        (loser, why): (Loser, Why),
        entry: Option<&Entry>,
    ) -> String {
        let is_copied = matches!(why, Why::LostHistory | Why::Repair);
        let deleted_since = change.before.is_empty() && is_concurrent(entry, self.seen, self.peer);
        let winner = match loser {
            Loser::Local if self.seed_lost && is_copied => &self.peer_name,
            Loser::Incoming if self.only_adds && !deleted_since => &self.rules.our_name,
            Loser::Local | Loser::Incoming => return self.policy(shared).to_string(),
        };
        Seed { winner: winner.clone(), is_union: self.is_union || self.only_adds }.to_string()
    }

    /// A conflict.
    pub(super) fn conflict<'c>(
        &self,
        shared: &'c Shared,
        change: &'c Accepted,
        (loser, why): (Loser, Why),
        entry: Option<Entry>,
    ) -> Conflict<'c> {
        Conflict {
            table: &shared.name,
            key: &change.key,
            loser,
            why,
            policy: self.decided_by(shared, change, (loser, why), entry.as_ref()),
            local: entry.map(|entry| entry.version),
            incoming: (change.version != Version::LOWEST).then_some(change.version),
        }
    }

    /// Takes in one batch of changes.
    ///
    /// # Errors
    /// [`Error::ClockAhead`], [`Error::Cycle`], a row that is refused here, a batch that cannot be read, or SQLite's.
    pub(in super::super) fn rows(&mut self, target: &Target, rows: &Rows) -> Result<(), Error> {
        let shared = self.shared_of(target);
        match rows.op {
            RowsOp::Delete => {
                let width = target.key.len();
                let batch = decode(target, &rows.batch, LEADING_COLUMNS + width)?;
                for row in 0..batch.rows() {
                    let key = Key(cells(&batch, LEADING_COLUMNS, width, row));
                    let version = self.version_of(&batch, row)?;
                    self.change(&shared, target.id, Incoming { version, key, rows: Vec::new() })?;
                }
            }
            RowsOp::Upsert | RowsOp::Exactly => {
                let batch = decode(target, &rows.batch, LEADING_COLUMNS + target.wire_len)?;
                self.upserts(&shared, target, (&batch, rows.op))?;
            }
        }
        Ok(())
    }

    fn upserts(&mut self, shared: &Shared, target: &Target, rows: (&DecodedBatch, RowsOp)) -> Result<(), Error> {
        let (batch, op) = rows;
        let mut row = 0;
        while row < batch.rows() {
            let key = target.key_of(batch, LEADING_COLUMNS, row);
            let normal = key.normal(&shared.collations);
            let version = self.version_of(batch, row)?;
            let mut same = vec![cells(batch, LEADING_COLUMNS, target.wire_len, row)];
            row += 1;
            // All rows of a NULL-bearing key stand side by side.
            while op == RowsOp::Exactly
                && row < batch.rows()
                && target.key_of(batch, LEADING_COLUMNS, row).normal(&shared.collations) == normal
            {
                same.push(cells(batch, LEADING_COLUMNS, target.wire_len, row));
                row += 1;
            }
            self.change(shared, target.id, Incoming { version, key, rows: same })?;
        }
        Ok(())
    }

    /// The version that a row of a batch carries.
    fn version_of(&self, batch: &DecodedBatch, row: usize) -> Result<Version, Error> {
        let number = |column| match batch.value(column, row) {
            ValueRef::Integer(number) => Ok(Some(number)),
            ValueRef::Null => Ok(None),
            _ => Err(Error::Malformed("a version is not made of numbers")),
        };
        let missing = Error::Malformed("a row has no version");
        let (Some(seq), Some(ts_ms)) = (number(0)?, number(1)?) else { return Err(missing) };
        let origin = number(2)?.map_or(self.peer, NodeId);
        Ok(Version { ts_ms, origin, seq })
    }

    fn check(&self, shared: &Shared, incoming: &Incoming) -> Result<(), Error> {
        let ahead_ms = incoming.version.ts_ms.saturating_sub(self.now_ms);
        if ahead_ms > self.rules.clock_skew_max_ms {
            let key = shown(&incoming.key);
            return Err(Error::ClockAhead { table: shared.name.clone(), key, ahead_ms });
        }
        if incoming.version.origin == self.us {
            let (table, key) = (shared.name.clone(), shown(&incoming.key));
            return Err(Error::Cycle { peer: self.peer_name.clone(), table, key });
        }
        Ok(())
    }

    fn change(&mut self, shared: &Shared, table: TableId, incoming: Incoming) -> Result<(), Error> {
        self.check(shared, &incoming)?;
        let entry = self.entry(shared, &incoming.key)?;
        let before = shared.rows(self.conn, &incoming.key)?;
        let differs = !shared.is_same(&before, &incoming.rows);
        let concurrent = entry.filter(|entry| is_concurrent(Some(entry), self.seen, self.peer));
        let policy = self.rules.policies.of(&shared.name);
        let wins = |entry: Entry| policy.incoming_wins(incoming.version, entry.version) || left_out(Mutant::NoVersion);
        let winner = concurrent.map(wins);
        let verdict = judge(winner, differs, self.is_blind(entry.as_ref()));
        let Incoming { version, key, rows } = incoming;
        let change = Accepted { version, key, rows, before };
        let why = if concurrent.is_some() { Why::Concurrent } else { Why::LostHistory };
        if verdict.recorded {
            let loser = if verdict.accepted { Loser::Local } else { Loser::Incoming };
            self.record(shared, &change, (loser, why), entry)?;
        }
        if !verdict.accepted {
            return self.say_deletion(shared, &change, entry);
        }
        self.ledger.raise_above(version.ts_ms);
        self.accept(shared, table, change, differs)
    }

    /// A row that lost to one that is gone after a touch alone: where capture missed something, whoever read the touch may have
    /// found the row still there, and told its peer nothing. So its deletion is said, as ours.
    pub(super) fn say_deletion(
        &mut self,
        shared: &Shared,
        change: &Accepted,
        entry: Option<Entry>,
    ) -> Result<(), Error> {
        let (Some(entry), Some(table), true) = (entry, shared.captured, self.blind && change.before.is_empty()) else {
            return Ok(());
        };
        if !self.index.is_touch(self.conn, entry.seq)? {
            return Ok(());
        }
        let normal = change.key.normal(&shared.collations);
        let of = KeyOf { table, key: &change.key, normal: &normal };
        let version = self.ledger.fresh(self.index, 0);
        self.ledger.append(self.conn, self.index, of, (Said::Deleted, version, None))
    }

    /// Records what loses: the rows of one end, or that it had deleted them.
    pub(super) fn record(
        &mut self,
        shared: &Shared,
        change: &Accepted,
        (loser, why): (Loser, Why),
        entry: Option<Entry>,
    ) -> Result<(), Error> {
        let conflict = self.conflict(shared, change, (loser, why), entry);
        let (columns, rows): (&str, &[LocalRow]) = match loser {
            Loser::Local => (&shared.columns, &change.before),
            Loser::Incoming => (&shared.wire_columns, &change.rows),
        };
        for row in rows {
            self.book.record(self.conn, &conflict, (columns, Some(row)))?;
        }
        // Where nothing is here and the log does not say that anything was, nothing was deleted.
        if rows.is_empty() && (loser == Loser::Incoming || entry.is_some()) {
            self.book.record(self.conn, &conflict, (&shared.key_columns, None))?;
        }
        Ok(())
    }

    /// Writes an accepted change, or stages it where its unique values may be taken.
    pub(super) fn accept(
        &mut self,
        shared: &Shared,
        table: TableId,
        change: Accepted,
        differs: bool,
    ) -> Result<(), Error> {
        if !differs {
            return self.log_placed(shared, &change);
        }
        if !change.before.is_empty() {
            shared.delete(self.conn, &change.key)?;
        }
        if shared.has_unique {
            let normal = change.key.normal(&shared.collations);
            stage::put(self.conn, table, normal.as_bytes(), &change)?;
            return Ok(());
        }
        for row in &change.rows {
            let filled = shared.fill(row, change.before.first());
            if !shared.insert(self.conn, &filled, &change.key)? {
                return Err(Error::Malformed("its rows have one key twice"));
            }
        }
        self.written.upserts += change.rows.len() as u64;
        self.written.deletes += u64::from(change.rows.is_empty() && !change.before.is_empty());
        self.log_placed(shared, &change)
    }
}

/// Opens a batch.
pub(super) fn decode(target: &Target, batch: &EncodedBatch, columns: usize) -> Result<DecodedBatch, Error> {
    DecodedBatch::new(batch, columns).map_err(|source| Error::Batch { table: target.name.clone(), source })
}

/// Some cells of a row.
pub(super) fn cells(batch: &DecodedBatch, from: usize, count: usize, row: usize) -> Vec<Value> {
    (from..from + count).map(|column| value_of(batch.value(column, row))).collect()
}
