//! Which tables a sender copies to one peer, and how far each is. Pure.
//!
//! The receiver keeps the same durably (`CopyState`) and tells it in Hello; from there both ends follow the same rules:
//! a table that the receiver never had is copied as rows; one whose copy starts anew goes by digest, a range at a time,
//! and only the ranges that differ are sent. What the receiver alone decides upon it asks for ([`Copies::need`]).
//!
//! Invariants:
//! * At most one digest of a table is waited for, and the table's progress never passes it. The answer to one of a copy that
//!   began anew since moves nothing.
//! * Ranges of a table ascend without gaps.

use std::collections::BTreeMap;

use crate::capture::source::{CatalogTable, Copied, CopyHow, CopyStep};
use crate::link::HeldTable;
use crate::model::{CopyState, CopyingBack, Key, RangeMode, TableId};

/// Bounds of one range.
#[derive(Clone, Copy, Debug)]
pub struct RangeBounds {
    /// Rows at most.
    pub rows_max: usize,
    /// Bytes at most, one row aside.
    pub bytes_max: usize,
}

/// One table that is being copied.
#[derive(Clone, Debug)]
struct TableCopy {
    after: Option<Key>,
    lost_history: bool,
    by_digest: bool,
    asked: Option<Asked>,
    wanted: Option<Wanted>,
}

/// A digest that the receiver has not answered yet.
#[derive(Clone, Debug)]
struct Asked {
    window: u64,
    high: Option<Key>,
    last: bool,
}

/// A range whose rows the receiver wants.
#[derive(Clone, Debug)]
struct Wanted {
    high: Option<Key>,
}

impl TableCopy {
    /// Of a table that the receiver never had.
    fn of_new() -> Self {
        Self { after: None, lost_history: false, by_digest: false, asked: None, wanted: None }
    }

    /// Of a table whose changes are lost, at least in part.
    fn of_lost() -> Self {
        Self { lost_history: true, ..Self::of_repair() }
    }

    /// Of a table that somebody asked for.
    fn of_repair() -> Self {
        Self { by_digest: true, ..Self::of_new() }
    }

    /// One that the receiver says is unfinished.
    fn of_held(lost_history: bool) -> Self {
        if lost_history { Self::of_lost() } else { Self::of_new() }
    }

    fn under_new_id(self, same_key: bool) -> Self {
        if same_key { Self { asked: None, wanted: None, ..self } } else { Self::of_lost() }
    }
}

/// Which copies a sender begins by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Those of tables that are new to the receiver: it mirrors us.
    #[default]
    Mirrored,
    /// None: the receiver has tables of its own, and asks for what it wants.
    Merged,
}

/// The copies of one session.
#[derive(Debug)]
pub struct Copies {
    /// Every table that the receiver has or will have once the windows sent so far are applied.
    known: BTreeMap<TableId, Option<TableCopy>>,
    /// What tables were called in windows that may be unanswered still.
    formerly: BTreeMap<TableId, TableId>,
    manner: Manner,
    /// Whether everything is copied again, the tables of the first catalog too.
    anew: bool,
    mode: RangeMode,
}

impl Copies {
    /// From what the receiver says it holds. `anew`: history is lost, so everything is copied again.
    pub fn new(held: &[HeldTable], anew: bool, manner: Manner) -> Self {
        let copy = |table: &HeldTable| match &table.progress.state {
            _ if anew => Some(TableCopy::of_lost()),
            CopyState::Done => None,
            CopyState::Pending => Some(TableCopy::of_held(table.progress.lost_history)),
            CopyState::Copying { after } => {
                Some(TableCopy { after: Some(after.clone()), ..TableCopy::of_held(table.progress.lost_history) })
            }
        };
        let known = held.iter().map(|table| (table.progress.table, copy(table))).collect();
        Self { known, formerly: BTreeMap::new(), manner, anew, mode: RangeMode::Exact }
    }

    /// Leaves what only the receiver has.
    pub fn in_mode(self, mode: RangeMode) -> Self {
        Self { mode, ..self }
    }

    /// The copy of a table that the receiver does not have.
    fn of_unknown(&self) -> Option<TableCopy> {
        match self.manner {
            Manner::Merged if self.anew => Some(TableCopy::of_lost()),
            Manner::Merged => None,
            Manner::Mirrored => Some(TableCopy::of_new()),
        }
    }

    /// Takes in the catalog that a window carries. Returns whether a table is new to the receiver, so that its copy
    /// begins with that window.
    ///
    /// A table under a new id keeps its progress, if its key is the same. A digest of it that is unanswered was of the
    /// table as it was before: it is asked about again.
    pub fn catalog(&mut self, tables: &[CatalogTable]) -> bool {
        let mut known = std::mem::take(&mut self.known);
        let mut any_new = false;
        for table in tables {
            let mut names = std::iter::once(&table.id).chain(&table.ancestors);
            let held = names.find_map(|id| Some((*id, known.remove(id)?)));
            let unknown = self.of_unknown();
            any_new |= held.is_none() && unknown.is_some();
            let copy = match held {
                None => unknown,
                Some((id, copy)) if id == table.id => copy,
                Some((id, copy)) => copy.map(|copy| copy.under_new_id(table.keyed_alike.contains(&id))),
            };
            self.known.insert(table.id, copy);
            self.formerly.extend(table.ancestors.iter().map(|id| (*id, table.id)));
        }
        self.anew = false;
        any_new
    }

    /// Starts the copies of these tables anew, as markers in the log ask. Returns whether any was not just starting.
    pub fn mark(&mut self, lost: &[TableId], asked_for: &[TableId]) -> bool {
        let mut any = false;
        for table in lost {
            any |= self.start(*table, TableCopy::of_lost());
        }
        for table in asked_for.iter().filter(|table| !lost.contains(table)) {
            // One that replaces lost history, and is not whole, still has to.
            let replaces_lost = self.manner == Manner::Mirrored || self.is_lost(*table);
            any |= self.start(*table, if replaces_lost { TableCopy::of_lost() } else { TableCopy::of_repair() });
        }
        any
    }

    fn is_lost(&self, table: TableId) -> bool {
        self.known.get(&table).is_some_and(|copy| copy.as_ref().is_some_and(|copy| copy.lost_history))
    }

    /// A repair that is still waiting becomes a copy that replaces lost history: the receiver takes it for that from the
    /// marker on, and a repair waits for such a copy of the peer's, which would wait for this one.
    fn start(&mut self, table: TableId, from_start: TableCopy) -> bool {
        let Some(copy) = self.known.get_mut(&table) else { return false };
        let at_start = |copy: &TableCopy| copy.after.is_none() && copy.asked.is_none();
        let starting = copy.as_ref().is_some_and(|copy| at_start(copy) && copy.lost_history >= from_start.lost_history);
        if !starting {
            *copy = Some(from_start);
        }
        !starting
    }

    /// What the next window may carry of a copy, if anything can go on.
    pub fn step(&self, bounds: RangeBounds) -> Option<CopyStep> {
        let unfinished = || self.known.iter().filter_map(|(table, copy)| Some((*table, copy.as_ref()?)));
        // What replaces lost history first, and whole: a repair may wait for the peer's own such copies, which may wait for
        // these.
        let any_lost = unfinished().any(|(_, copy)| copy.lost_history);
        let ready = |copy: &TableCopy| copy.wanted.is_some() || copy.asked.is_none();
        let (table, copy) = unfinished().find(|(_, copy)| copy.lost_history == any_lost && ready(copy))?;
        let wanted = copy.wanted.as_ref();
        let how = match (wanted, copy.by_digest) {
            (Some(_), _) | (None, false) => CopyHow::Rows,
            (None, true) => CopyHow::DigestUnlessSmall,
        };
        let high = wanted.and_then(|wanted| wanted.high.clone());
        Some(CopyStep {
            table,
            low: copy.after.clone(),
            bounded: high.is_some(),
            high,
            how,
            rows_max: bounds.rows_max,
            bytes_max: bounds.bytes_max,
            mode: self.mode,
            lost_history: copy.lost_history,
        })
    }

    /// A window with this piece of a copy was sent; it began above `low`. A copy that started anew since is not moved by
    /// a piece of the one before.
    pub fn sent(&mut self, window: u64, low: Option<&Key>, copied: &Copied) {
        let Some(slot) = self.known.get_mut(&copied.table) else { return };
        let Some(copy) = slot else { return };
        if copy.after.as_ref() != low || copy.lost_history != copied.lost_history {
            return;
        }
        if copied.as_digest {
            copy.asked = Some(Asked { window, high: copied.high.clone(), last: copied.last });
        } else if copied.last {
            *slot = None;
        } else {
            copy.after.clone_from(&copied.high);
            copy.asked = None;
            copy.wanted = None;
        }
    }

    /// The table of this copy turned out not to be there: a catalog that says so must be on its way.
    pub fn vanished(&mut self, table: TableId) {
        self.known.remove(&table);
    }

    /// The receiver asks for a range: the rows of the digest it was asked about, or a table from its start. It may know
    /// the table by the id that it had when the receiver answered.
    pub fn need(&mut self, table: TableId, low: Option<&Key>, high: Option<&Key>) {
        let table = if self.known.contains_key(&table) { table } else { *self.formerly.get(&table).unwrap_or(&table) };
        let Some(slot) = self.known.get_mut(&table) else { return };
        if let Some(copy) = slot
            && let Some(asked) = &copy.asked
            && copy.after.as_ref() == low
            && (asked.high.as_ref() == high || asked.last)
        {
            copy.wanted = Some(Wanted { high: if asked.last { None } else { high.cloned() } });
            return;
        }
        if low.is_none() {
            let replaces_lost = self.manner == Manner::Mirrored || slot.as_ref().is_some_and(|copy| copy.lost_history);
            *slot = Some(if replaces_lost { TableCopy::of_lost() } else { TableCopy::of_repair() });
        }
    }

    /// The receiver has applied this window: a digest in it that it did not answer with a need was equal.
    pub fn acknowledged(&mut self, window: u64) {
        for slot in self.known.values_mut() {
            let Some(copy) = slot else { continue };
            let answered = copy.wanted.is_none() && copy.asked.as_ref().is_some_and(|asked| asked.window == window);
            if !answered {
                continue;
            }
            let asked = copy.asked.take().expect("just seen");
            if asked.last {
                *slot = None;
            } else {
                copy.after = asked.high;
            }
        }
    }

    /// What an applier of the peer's ranges must know of these.
    pub fn back(&self) -> CopyingBack {
        let crosses = |copy: &TableCopy| copy.lost_history || copy.after.is_some() || copy.asked.is_some();
        match self.known.values().flatten().map(crosses).max() {
            None => CopyingBack::No,
            Some(false) => CopyingBack::Waits,
            Some(true) => CopyingBack::UnderWay,
        }
    }

    /// Whether every table is copied.
    pub fn done(&self) -> bool {
        self.known.values().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TableProgress, Value};

    const BOUNDS: RangeBounds = RangeBounds { rows_max: 2, bytes_max: 100 };
    const T: TableId = TableId(7);

    fn held(state: CopyState, lost_history: bool) -> HeldTable {
        let progress = TableProgress { table: T, state, lost_history };
        HeldTable { progress, name: "t".to_owned(), rows: 0 }
    }

    fn key(number: i64) -> Key {
        Key(vec![Value::Integer(number)])
    }

    fn copied(high: Option<Key>, as_digest: bool, lost_history: bool) -> Copied {
        Copied { table: T, last: high.is_none(), high, rows: 1, as_digest, lost_history }
    }

    #[test]
    fn a_new_table_is_copied_as_rows_and_goes_on_where_it_was() {
        let mut copies = Copies::new(&[], false, Manner::Mirrored);
        let table =
            CatalogTable { id: T, ancestors: vec![], name: "t".to_owned(), rows_estimate: 0, keyed_alike: vec![] };
        assert!(copies.catalog(std::slice::from_ref(&table)), "it is new");
        assert!(!copies.catalog(&[table]), "it is new once");
        let step = copies.step(BOUNDS).expect("a step");
        assert!(step.low.is_none() && matches!(step.how, CopyHow::Rows));
        copies.sent(1, None, &copied(Some(key(2)), false, false));
        assert_eq!(copies.step(BOUNDS).expect("a step").low, Some(key(2)));
        copies.sent(2, Some(&key(2)), &copied(None, false, false));
        assert!(copies.done());
    }

    #[test]
    fn a_digest_is_waited_for_and_only_what_differs_is_sent() {
        let mut copies = Copies::new(&[held(CopyState::Done, false)], false, Manner::Mirrored);
        assert!(copies.done());
        assert!(copies.mark(&[T], &[]));
        assert!(matches!(copies.step(BOUNDS).expect("a step").how, CopyHow::DigestUnlessSmall));
        copies.sent(5, None, &copied(Some(key(2)), true, true));
        assert!(copies.step(BOUNDS).is_none(), "the digest is unanswered");
        copies.acknowledged(4);
        assert!(copies.step(BOUNDS).is_none(), "another window's acknowledgement answers nothing");
        copies.acknowledged(5);
        assert_eq!(copies.step(BOUNDS).expect("a step").low, Some(key(2)));
        copies.sent(6, Some(&key(2)), &copied(Some(key(4)), true, true));
        copies.need(T, Some(&key(2)), Some(&key(4)));
        copies.acknowledged(6);
        let step = copies.step(BOUNDS).expect("a step");
        assert!(matches!(step.how, CopyHow::Rows) && step.bounded);
        assert_eq!((step.low, step.high), (Some(key(2)), Some(key(4))));
    }

    #[test]
    fn a_renamed_table_keeps_its_progress_and_a_dropped_one_is_forgotten() {
        let mut copies = Copies::new(&[held(CopyState::Copying { after: key(3) }, false)], false, Manner::Mirrored);
        assert!(!copies.catalog(&[successor(vec![T])]));
        let step = copies.step(BOUNDS).expect("a step");
        assert_eq!((step.table, step.low), (TableId(9), Some(key(3))));
        assert!(!copies.catalog(&[]));
        assert!(copies.done());
    }

    fn successor(keyed_alike: Vec<TableId>) -> CatalogTable {
        CatalogTable { id: TableId(9), ancestors: vec![T], name: "u".to_owned(), rows_estimate: 0, keyed_alike }
    }

    /// The receiver's answer to a digest named the table by the id that it had then. The sender did not know that id any
    /// more, took the acknowledgement that followed for "equal", and never sent the rows.
    #[test]
    fn a_digest_that_a_rename_overtakes_is_asked_again() {
        for needed in [false, true] {
            let mut copies = Copies::new(&[held(CopyState::Copying { after: key(2) }, true)], false, Manner::Mirrored);
            copies.sent(5, Some(&key(2)), &copied(Some(key(4)), true, true));
            assert!(copies.step(BOUNDS).is_none(), "the digest is unanswered");
            assert!(!copies.catalog(&[successor(vec![T])]));
            if needed {
                copies.need(T, Some(&key(2)), Some(&key(4)));
            }
            copies.acknowledged(5);
            let step = copies.step(BOUNDS).expect("a step");
            assert_eq!((step.table, step.low), (TableId(9), Some(key(2))), "needed: {needed}");
        }
        let mut copies = Copies::new(&[held(CopyState::Done, false)], false, Manner::Mirrored);
        copies.catalog(&[successor(vec![T])]);
        copies.need(T, None, None);
        assert_eq!(copies.step(BOUNDS).expect("a step").table, TableId(9), "asked for by the old id");
    }

    #[test]
    fn progress_in_another_key_is_none() {
        let mut copies = Copies::new(&[held(CopyState::Copying { after: key(2) }, false)], false, Manner::Mirrored);
        copies.catalog(&[successor(vec![])]);
        assert_eq!(copies.step(BOUNDS).expect("a step").low, None);
    }

    #[test]
    fn a_table_that_vanished_is_no_longer_copied() {
        let mut copies = Copies::new(&[held(CopyState::Pending, false)], false, Manner::Mirrored);
        copies.vanished(T);
        assert!(copies.step(BOUNDS).is_none() && copies.done());
    }

    #[test]
    fn the_receiver_may_ask_for_a_whole_table() {
        let mut copies = Copies::new(&[held(CopyState::Done, false)], false, Manner::Mirrored);
        copies.need(T, None, None);
        assert!(matches!(copies.step(BOUNDS).expect("a step").how, CopyHow::DigestUnlessSmall));
    }

    /// Both ends had asked for one table and lost the history of another: each waited with the repair for the other's copy.
    #[test]
    fn what_replaces_lost_history_goes_before_a_repair() {
        let (repair, lost) = (TableId(1), TableId(2));
        let held = |table| HeldTable {
            progress: TableProgress { table, state: CopyState::Done, lost_history: false },
            name: "t".to_owned(),
            rows: 0,
        };
        let mut copies = Copies::new(&[held(repair), held(lost)], false, Manner::Merged);
        copies.need(repair, None, None);
        assert!(!copies.step(BOUNDS).expect("a step").lost_history, "what is asked for between writers is a repair");
        copies.mark(&[lost], &[]);
        assert_eq!(copies.step(BOUNDS).expect("a step").table, lost);
        copies.need(lost, None, None);
        assert!(copies.step(BOUNDS).expect("a step").lost_history, "asked for again it still replaces lost history");
    }

    #[test]
    fn a_repair_that_nothing_was_sent_of_waits_and_any_other_copy_is_under_way() {
        let mut copies = Copies::new(&[held(CopyState::Done, false)], false, Manner::Merged);
        assert_eq!(copies.back(), CopyingBack::No);
        copies.mark(&[], &[T]);
        assert_eq!(copies.back(), CopyingBack::Waits);
        copies.sent(1, None, &copied(Some(key(2)), true, false));
        assert_eq!(copies.back(), CopyingBack::UnderWay, "its digest may be answered");
        let lost = Copies::new(&[held(CopyState::Done, false)], true, Manner::Merged);
        assert_eq!(lost.back(), CopyingBack::UnderWay);
    }

    /// It stayed a repair, which waits for the peer's own copies of that kind; and the peer, to which it was none, waited for it.
    #[test]
    fn a_repair_that_waits_becomes_what_a_later_marker_says() {
        let mut copies = Copies::new(&[held(CopyState::Done, false)], false, Manner::Merged);
        copies.mark(&[], &[T]);
        let piece_of_the_repair = copied(Some(key(2)), true, false);
        assert!(copies.mark(&[T], &[]), "it begins anew");
        assert!(copies.step(BOUNDS).expect("a step").lost_history);
        copies.sent(1, None, &piece_of_the_repair);
        let step = copies.step(BOUNDS).expect("a step");
        assert!(
            step.low.is_none() && step.lost_history,
            "a piece of the repair, in the marker's own window, is none of it"
        );
        copies.sent(2, None, &copied(Some(key(2)), true, true));
        copies.acknowledged(2);
        assert!(copies.mark(&[], &[T]), "and begins anew where somebody asks");
        assert!(
            copies.step(BOUNDS).expect("a step").lost_history,
            "it is not whole, so it still replaces what was lost"
        );
    }

    #[test]
    fn lost_history_copies_everything_again_by_digest() {
        let copies = Copies::new(&[held(CopyState::Done, false)], true, Manner::Mirrored);
        let step = copies.step(BOUNDS).expect("a step");
        assert!(step.lost_history && matches!(step.how, CopyHow::DigestUnlessSmall));
    }
}
