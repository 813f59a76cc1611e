//! Pieces of a copy, judged key by key.
//!
//! A key that was changed here, which the sender had not seen, is left alone; every other key of the range becomes what
//! the range says. A row of a range has the lowest version of all.

use std::collections::HashMap;

use super::super::Error;
use super::super::copy;
use super::super::error::shown;
use super::super::rows::Writer;
use super::super::statement::Target;
use super::conflicts::{Loser, Why};
use super::decide::is_concurrent;
use super::mutant::{Mutant, left_out};
use super::session::{Merge, cells, decode};
use super::stage::Accepted;
use super::table::Shared;
use crate::model::{CopyingBack, Key, NormalKey, Range, RangeMode, Value, Version};
use crate::sqlite::range_sql::{Cells, RangeQuery};

/// Keys that are compared at once: a range may be empty at the sender and hold millions here.
const KEYS_AT_ONCE: usize = 4_096;

/// What a range says, by key.
type Said = HashMap<NormalKey, Vec<Vec<Value>>>;

impl Merge<'_> {
    /// Makes a range what the sender says, but for what it had not seen. `replaces_lost`: whether its copy replaces
    /// history that is lost.
    ///
    /// # Errors
    /// A row that is refused here, a batch that cannot be read, or SQLite's.
    pub(in super::super) fn range(
        &mut self,
        target: &Target,
        (range, mode): (&Range, RangeMode),
        replaces_lost: bool,
    ) -> Result<(), Error> {
        self.place_all()?;
        // What the winner of a first contact lacks comes; what it has stays.
        self.only_adds = mode == RangeMode::Union && !self.seed_lost;
        self.replaces_lost = replaces_lost;
        self.range_keys(target, range, mode)?;
        (self.only_adds, self.replaces_lost) = (false, false);
        Ok(())
    }

    fn range_keys(&mut self, target: &Target, range: &Range, mode: RangeMode) -> Result<(), Error> {
        let shared = self.shared_of(target);
        if self.is_untouched(&shared, target, range)? {
            let writer = Writer { conn: self.conn, target, firing: false };
            let written = copy::apply_range(&writer, range)?;
            self.written.upserts += written.upserts;
            if shared.has_unique {
                self.check_all_placed(&shared, target, range)?;
            }
            return Ok(());
        }
        let mut said = read(&shared, target, range)?;
        let mut low = range.low.clone();
        loop {
            let (keys, next) = self.keys_here(&shared, target, low.as_ref(), range.high.as_ref())?;
            for key in keys {
                let rows = said.remove(&key.normal(&shared.collations));
                if rows.is_some() || mode == RangeMode::Exact {
                    self.range_key(&shared, target, (key, rows.unwrap_or_default()))?;
                }
            }
            let Some(next) = next else { break };
            low = Some(next);
        }
        let mut rest: Vec<(NormalKey, Vec<Vec<Value>>)> = said.into_iter().collect();
        rest.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (_, rows) in rest {
            let key = Key(target.key_places.iter().map(|place| rows[0][*place].clone()).collect());
            self.range_key(&shared, target, (key, rows))?;
        }
        self.place_all()
    }

    /// Whether a range can be written as it is: nothing is here, nothing was, and nothing of it is to be logged.
    fn is_untouched(&self, shared: &Shared, target: &Target, range: &Range) -> Result<bool, Error> {
        let logs = self.rules.forwards || self.blind || self.copying_back != CopyingBack::No;
        let (Some(table), false) = (shared.captured, logs || !shared.is_alike) else { return Ok(false) };
        if self.index.has_any(self.conn, table)? {
            return Ok(false);
        }
        let (keys, _) = self.keys_here(shared, target, range.low.as_ref(), range.high.as_ref())?;
        Ok(keys.is_empty())
    }

    /// Rows of one range were there at once at the sender: one that took another's unique value here did so by an index
    /// that its tables do not have. (A row of another range had it before, and what it has become is still to come.)
    fn check_all_placed(&self, shared: &Shared, target: &Target, range: &Range) -> Result<(), Error> {
        let said: usize = range.batches.iter().map(|batch| batch.rows).sum();
        let here = RangeQuery::new(&target.read, Cells::Key, range.low.as_ref(), range.high.as_ref());
        let (mut rows, mut last) = (0, None);
        here.each(self.conn, |row| {
            rows += 1;
            last = Some(row.key(here.key_places()));
            Ok::<_, Error>(true)
        })?;
        if rows >= said {
            return Ok(());
        }
        let key = last.as_ref().map_or_else(String::new, shown);
        Err(Error::UniqueOnlyHere { table: shared.name.clone(), key })
    }

    /// Keys of the range that are here, each once, and where to go on.
    fn keys_here(
        &self,
        shared: &Shared,
        target: &Target,
        low: Option<&Key>,
        high: Option<&Key>,
    ) -> Result<(Vec<Key>, Option<Key>), Error> {
        let here = RangeQuery::new(&target.read, Cells::Key, low, high);
        let (mut keys, mut last, mut full): (Vec<Key>, Option<NormalKey>, bool) = (Vec::new(), None, false);
        here.each(self.conn, |row| {
            let key = row.key(here.key_places());
            let normal = key.normal(&shared.collations);
            if last.as_ref() == Some(&normal) {
                return Ok::<_, Error>(true);
            }
            full = keys.len() >= KEYS_AT_ONCE;
            if !full {
                keys.push(key);
                last = Some(normal);
            }
            Ok(!full)
        })?;
        let next = if full { keys.last().cloned() } else { None };
        Ok((keys, next))
    }

    fn range_key(
        &mut self,
        shared: &Shared,
        target: &Target,
        (key, rows): (Key, Vec<Vec<Value>>),
    ) -> Result<(), Error> {
        let before = shared.rows(self.conn, &key)?;
        if shared.is_same(&before, &rows) {
            return Ok(());
        }
        let entry = self.entry(shared, &key)?;
        let unseen = is_concurrent(entry.as_ref(), self.seen, self.peer) && !left_out(Mutant::ChunkBlind);
        let change = Accepted { version: Version::LOWEST, key, rows, before };
        let why = if self.replaces_lost { Why::LostHistory } else { Why::Repair };
        if self.only_adds && !change.before.is_empty() {
            // The other end may not record what it gives up: once this copy is whole it counts as seen.
            return self.record(shared, &change, (Loser::Incoming, why), entry);
        }
        if unseen {
            if self.replaces_lost && !change.rows.is_empty() && !left_out(Mutant::ChunkQuiet) {
                self.record(shared, &change, (Loser::Incoming, why), entry)?;
            }
            return if change.rows.is_empty() { Ok(()) } else { self.say_deletion(shared, &change, entry) };
        }
        // A peer that only sends may never have had what it lacks: where no entry names who wrote a row, it may be anybody's.
        if self.rules.one_way && !self.seed_lost && entry.is_none() && change.rows.is_empty() {
            return Ok(());
        }
        // A plain repair keeps what it overwrites, and so does whoever cannot tell who knew what. A peer that only sends has
        // seen nothing of ours: what no entry says to have come from it may be anybody's.
        let unknown = self.rules.one_way && entry.is_none();
        if self.seed_lost || self.is_blind(entry.as_ref()) || !self.replaces_lost || unknown {
            self.record(shared, &change, (Loser::Local, why), entry)?;
        }
        self.accept(shared, target.id, change, true)
    }
}

fn read(shared: &Shared, target: &Target, range: &Range) -> Result<Said, Error> {
    let mut said = Said::new();
    for batch in &range.batches {
        let batch = decode(target, batch, target.wire_len)?;
        for row in 0..batch.rows() {
            let key = target.key_of(&batch, 0, row).normal(&shared.collations);
            said.entry(key).or_default().push(cells(&batch, 0, target.wire_len, row));
        }
    }
    Ok(said)
}
