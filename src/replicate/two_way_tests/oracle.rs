//! What is known of every write of a history, and what must hold of it in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Row, Rows};
use super::world::World;
use crate::model::Version;

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    NeverQuiet,
    Damaged,
    Diverged,
    Backwards,
    LostUnrecorded,
    FalseConflict,
    NotNewest,
}

/// Every write so far.
#[derive(Default)]
pub(super) struct Oracle {
    ids: i64,
    written: BTreeSet<i64>,
    /// Rows and deletions that somebody overwrote who saw them.
    overwritten: BTreeSet<i64>,
    /// Deletions, by an id of their own: key and row.
    deleted: BTreeMap<i64, (usize, i64)>,
    /// Those that no log knows of, or not any more. Where the end that made one loses a first contact, or gets a copy from a peer that missed
    /// something as well, nobody can tell that it was there: it is as if that end had never had the row.
    unlogged: BTreeSet<i64>,
    /// The newest deletion of a key at a node.
    gone: BTreeMap<(usize, usize), i64>,
    /// The newest write of a key.
    best: BTreeMap<usize, (Version, Option<Row>)>,
}

impl Oracle {
    /// A new row's id.
    pub(super) fn id(&mut self) -> i64 {
        self.ids += 1;
        self.ids
    }

    /// What a statement of the application did at a node.
    pub(super) fn note(
        &mut self,
        (node, is_logged): (usize, bool),
        (before, after): (&Rows, &Rows),
        only_writer: bool,
        version: impl Fn(usize) -> Version,
    ) {
        let keys: BTreeSet<usize> = before.keys().chain(after.keys()).copied().collect();
        for key in keys {
            let (old, new) = (before.get(&key), after.get(&key));
            if old == new {
                continue;
            }
            self.overwritten.extend(old.map(|row| row.id));
            self.overwritten.extend(self.gone.remove(&(node, key)));
            match new {
                Some(row) => drop(self.written.insert(row.id)),
                None => {
                    let id = -self.id();
                    self.written.insert(id);
                    self.deleted.insert(id, (key, old.expect("it was there").id));
                    self.gone.insert((node, key), id);
                    self.unlogged.extend((!is_logged).then_some(id));
                }
            }
            let version = version(key);
            if only_writer || self.best.get(&key).is_none_or(|(best, _)| version > *best) {
                self.best.insert(key, (version, new.cloned()));
            }
        }
    }

    /// Entries were removed from a node's log that a peer has not applied: who deleted a key, the log tells no longer.
    pub(super) fn log_pruned(&mut self, node: usize, logs: impl Fn(usize) -> bool) {
        let gone = self.gone.iter().filter(|((at, key), _)| *at == node && !logs(*key));
        self.unlogged.extend(gone.map(|(_, id)| *id));
    }

    /// A node's log ends, and what it knew of deletions with it.
    pub(super) fn log_ended(&mut self, node: usize) {
        let known = self.gone.iter().filter(|((at, _), _)| *at == node);
        self.unlogged.extend(known.map(|(_, id)| *id));
    }

    /// What is wrong in the end, if anything.
    pub(super) fn verdict(&self, world: &World, facts: &Facts) -> Option<Fault> {
        for node in &world.nodes {
            let check: String = node.app.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("check");
            if check != "ok" {
                return Some(Fault::Damaged);
            }
        }
        let states: Vec<Rows> = world.nodes.iter().map(super::node::Node::rows).collect();
        if states.iter().any(|state| *state != states[0]) {
            return Some(Fault::Diverged);
        }
        if facts.went_back || world.nodes.iter().any(super::node::Node::went_back) {
            return Some(Fault::Backwards);
        }
        let present: BTreeSet<i64> = states[0].values().map(|row| row.id).collect();
        let (mut recorded, mut noted) = (BTreeSet::new(), BTreeSet::new());
        for node in &world.nodes {
            let (rows, deletions) = node.recorded();
            recorded.extend(rows);
            noted.extend(deletions);
        }
        // Over a deletion that no log knows of: by who won a first contact, or missed something itself.
        let is_copied = world.seeds > 0 || facts.drifts > 1 || (world.blinds > 0 && facts.drifts > 0);
        let lost = |id: &&i64| match self.deleted.get(id) {
            _ if self.overwritten.contains(id) || recorded.contains(id) || present.contains(id) => false,
            None => true,
            Some(_) if is_copied && self.unlogged.contains(id) => false,
            // A deleted row is back, and not because a merge keeps what only one end has.
            Some((key, old)) => present.contains(old) && !noted.contains(key) && world.unions == 0,
        };
        let lost: Vec<&i64> = self.written.iter().filter(lost).collect();
        if !lost.is_empty() {
            eprintln!("lost unrecorded: {lost:?}");
            return Some(Fault::LostUnrecorded);
        }
        let any = !recorded.is_empty() || !noted.is_empty();
        if facts.one_writer && any && world.blinds + facts.drifts + facts.resyncs == 0 {
            return Some(Fault::FalseConflict);
        }
        self.is_newest(world, facts, &states[0]).then_some(()).map_or(Some(Fault::NotNewest), |()| None)
    }

    fn is_newest(&self, world: &World, facts: &Facts, rows: &Rows) -> bool {
        let lww = world.policies.values().all(Option::is_none);
        let plain = !facts.uniques && world.blinds + facts.drifts + facts.resyncs == 0 && lww;
        let one = facts.one_writer && world.seeds == 0 && !(facts.resyncs > 0 && facts.drifts > 0);
        if !plain && !one {
            return true;
        }
        self.best.iter().all(|(key, (_, row))| rows.get(key) == row.as_ref())
    }
}

/// What a history had in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) one_writer: bool,
    pub(super) uniques: bool,
    pub(super) drifts: usize,
    pub(super) resyncs: usize,
    pub(super) went_back: bool,
}
