//! Which tables are being copied to a consumer that only takes, and how far each is. Pure.
//!
//! Invariants:
//! * A table's copy moves in key order without gaps, and only by pieces that were read where it stood.
//! * Where the consumer may have rows that are gone here, the copy begins with the removal of them all.
//! * A table that was given once is never forgotten: should it come back, the consumer still has its rows.

use std::collections::BTreeMap;

use crate::capture::GivenTable;
use crate::capture::source::{CatalogTable, Copied, CopyHow, CopyStep};
use crate::model::{CopyState, Key, RangeMode, TableId};
use crate::replicate::copies::RangeBounds;

/// How a table stands that has a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Its rows are right as they are.
    Kept,
    /// They must be sent again.
    Resent,
}

/// The tables of one consumer.
#[derive(Clone, Debug, Default)]
pub struct Book {
    tables: BTreeMap<TableId, Given>,
}

#[derive(Clone, Debug)]
struct Given {
    name: String,
    state: CopyState,
    wipe: bool,
    /// Whether the catalog has it.
    there: bool,
}

impl Book {
    /// From what was noted. `anew`: what was missed cannot be told, so everything is copied again.
    pub fn new(given: &[GivenTable], anew: bool) -> Self {
        let given = given.iter().map(|table| {
            let state = if anew { CopyState::Pending } else { table.state.clone() };
            let one = Given { name: table.name.clone(), state, wipe: table.wipe || anew, there: false };
            (table.id, one)
        });
        Self { tables: given.collect() }
    }

    /// As it is to be noted.
    pub fn given(&self) -> Vec<GivenTable> {
        let table = |(id, given): (&TableId, &Given)| GivenTable {
            id: *id,
            name: given.name.clone(),
            state: given.state.clone(),
            wipe: given.wipe,
            open: false,
        };
        self.tables.iter().map(table).collect()
    }

    /// Takes in a catalog. `moved` says of a table with a new id, and the one that it had, what becomes of its rows.
    pub(super) fn catalog(&mut self, tables: &[CatalogTable], moved: impl Fn(TableId, TableId) -> Moved) {
        let mut before = std::mem::take(&mut self.tables);
        for table in tables {
            let ids = std::iter::once(&table.id).chain(&table.ancestors);
            let known = ids.copied().find_map(|id| Some((id, before.remove(&id)?)));
            let namesake = before.iter().find(|(_, given)| given.name == table.name).map(|(id, _)| *id);
            let stale = namesake.is_some_and(|id| before.remove(&id).is_some());
            let fresh = |wipe| Given { name: table.name.clone(), state: CopyState::Pending, wipe, there: true };
            let given = match known {
                None => fresh(stale),
                // Under its new name the consumer has nothing of it, unless another table had that name. Under its old
                // one it keeps what it has.
                Some((id, given)) if given.name != table.name => {
                    before.insert(if id == table.id { TableId(-id.0) } else { id }, given);
                    fresh(stale)
                }
                Some((_, given)) if !given.there && given.state == CopyState::Pending && given.wipe => fresh(true),
                Some((id, given)) if id == table.id => Given { there: true, ..given },
                Some((id, given)) if table.keyed_alike.contains(&id) => match moved(table.id, id) {
                    Moved::Kept => Given { there: true, ..given },
                    Moved::Resent => fresh(given.wipe),
                },
                Some(_) => fresh(true),
            };
            self.tables.insert(table.id, given);
        }
        for (id, given) in before {
            let gone = Given { state: CopyState::Pending, wipe: true, there: false, ..given };
            self.tables.entry(id).or_insert(gone);
        }
    }

    /// Begins the copies of these tables anew: capture may have missed rows.
    pub fn mark(&mut self, tables: impl IntoIterator<Item = TableId>) {
        for table in tables {
            if let Some(given) = self.tables.get_mut(&table) {
                (given.state, given.wipe) = (CopyState::Pending, true);
            }
        }
    }

    /// The next piece to copy, if there is one.
    pub fn step(&self, bounds: RangeBounds) -> Option<CopyStep> {
        let copying = |given: &Given| given.there && given.state != CopyState::Done;
        let (table, given) = self.tables.iter().find(|(_, given)| copying(given))?;
        let low = match &given.state {
            CopyState::Copying { after } => Some(after.clone()),
            CopyState::Pending | CopyState::Done => None,
        };
        Some(CopyStep {
            table: *table,
            low,
            high: None,
            bounded: false,
            how: CopyHow::Rows,
            rows_max: bounds.rows_max,
            bytes_max: bounds.bytes_max,
            mode: RangeMode::Exact,
            lost_history: given.wipe,
        })
    }

    /// Whether a piece of a copy that was read above `low` belongs where the copy stands now; and whether the consumer's
    /// rows are to be removed before it.
    pub fn accepts(&self, table: TableId, low: Option<&Key>, wiping: bool) -> Option<bool> {
        let given = self.tables.get(&table)?;
        let stands = match &given.state {
            CopyState::Pending => low.is_none(),
            CopyState::Copying { after } => low == Some(after),
            CopyState::Done => false,
        };
        (stands && given.wipe == wiping).then_some(given.wipe)
    }

    /// Whether a table's copy has yet to begin, so that every row of it will be given.
    pub fn is_pending(&self, table: TableId) -> bool {
        self.tables.get(&table).is_some_and(|given| given.there && given.state == CopyState::Pending)
    }

    /// A piece was given.
    pub fn copied(&mut self, copied: &Copied) {
        let Some(given) = self.tables.get_mut(&copied.table) else { return };
        given.wipe = false;
        given.state = match &copied.high {
            Some(high) if !copied.last => CopyState::Copying { after: high.clone() },
            Some(_) | None => CopyState::Done,
        };
    }

    /// A table that a copy asked for is not there; a catalog that says so is on its way.
    pub fn vanished(&mut self, table: TableId) {
        if let Some(given) = self.tables.get_mut(&table) {
            given.there = false;
        }
    }

    /// Whether every table that is there is copied whole.
    pub fn done(&self) -> bool {
        self.tables.values().all(|given| !given.there || given.state == CopyState::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    const BOUNDS: RangeBounds = RangeBounds { rows_max: 2, bytes_max: 100 };

    fn table(id: i64, ancestors: &[i64], name: &str, alike: bool) -> CatalogTable {
        let ancestors: Vec<TableId> = ancestors.iter().copied().map(TableId).collect();
        let keyed_alike = if alike { ancestors.clone() } else { Vec::new() };
        CatalogTable { id: TableId(id), ancestors, name: name.to_owned(), rows_estimate: 0, keyed_alike }
    }

    fn key(of: i64) -> Key {
        Key(vec![Value::Integer(of)])
    }

    fn copied(id: i64, high: Option<i64>) -> Copied {
        Copied {
            table: TableId(id),
            high: high.map(key),
            last: high.is_none(),
            rows: 1,
            as_digest: false,
            lost_history: false,
        }
    }

    fn kept(_: TableId, _: TableId) -> Moved {
        Moved::Kept
    }

    /// A book whose one table is copied.
    fn whole() -> Book {
        let mut book = Book::default();
        book.catalog(&[table(1, &[], "t", false)], kept);
        book.copied(&copied(1, None));
        book
    }

    /// How the only copy stands: its lower bound, and whether it begins with a removal.
    fn standing(book: &Book) -> Option<(Option<Key>, bool)> {
        book.step(BOUNDS).map(|step| (step.low, step.lost_history))
    }

    #[test]
    fn a_copy_goes_on_where_its_last_piece_ended_also_after_it_was_noted() {
        let mut book = Book::default();
        book.catalog(&[table(1, &[], "t", false)], kept);
        assert_eq!(standing(&book), Some((None, false)));
        book.copied(&copied(1, Some(7)));
        let mut book = Book::new(&book.given(), false);
        assert_eq!(standing(&book), None, "not before the catalog says that it is there");
        book.catalog(&[table(1, &[], "t", false)], kept);
        assert_eq!(standing(&book), Some((Some(key(7)), false)));
        assert_eq!(book.accepts(TableId(1), Some(&key(7)), false), Some(false));
        assert_eq!(book.accepts(TableId(1), Some(&key(6)), false), None);
        book.copied(&copied(1, None));
        assert!(book.done() && standing(&book).is_none());
    }

    #[test]
    fn what_may_be_stale_is_removed_first() {
        let mut marked = whole();
        marked.mark([TableId(1)]);
        assert_eq!(standing(&marked), Some((None, true)));
        assert_eq!(marked.accepts(TableId(1), None, false), None, "a piece that was read before the marker");
        assert_eq!(marked.accepts(TableId(1), None, true), Some(true));
        let mut anew = Book::new(&whole().given(), true);
        anew.catalog(&[table(1, &[], "t", false)], kept);
        assert_eq!(standing(&anew), Some((None, true)));
        let mut other_key = whole();
        other_key.catalog(&[table(2, &[1], "t", false)], kept);
        assert_eq!(standing(&other_key), Some((None, true)));
        let mut made_anew = whole();
        made_anew.catalog(&[table(2, &[], "t", false)], kept);
        assert_eq!(standing(&made_anew), Some((None, true)));
        let mut away = whole();
        away.catalog(&[], kept);
        assert!(away.done());
        away.catalog(&[table(1, &[], "t", false)], kept);
        assert_eq!(standing(&away), Some((None, true)), "its changes meanwhile went unsaid");
    }

    #[test]
    fn a_schema_change_keeps_the_rows_or_sends_them_again() {
        let mut book = whole();
        book.catalog(&[table(2, &[1], "t", true)], kept);
        assert!(book.done());
        book.catalog(&[table(3, &[2, 1], "t", true)], |_, _| Moved::Resent);
        assert_eq!(standing(&book), Some((None, false)));
        let mut renamed = whole();
        renamed.catalog(&[table(2, &[1], "u", true)], kept);
        assert_eq!(standing(&renamed), Some((None, false)), "under the new name there is nothing yet");
        renamed.copied(&copied(2, None));
        renamed.catalog(&[table(2, &[1], "u", true), table(3, &[], "t", false)], kept);
        assert_eq!(standing(&renamed), Some((None, true)), "under the old one there is what was");
    }
}
