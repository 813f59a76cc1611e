//! Which table here is which table of the peer's. Pure.
//!
//! Ids tell a rename from a drop and a new table; names tell what was there before ids were known. In safe mode names
//! alone count, for a rename is a drop and a new table there.

use std::collections::{BTreeMap, HashSet};

use super::shape::{Difference, Renames, Shape};
use super::{Error, Held, Mode, RefusedChange, Rules, Wanted};
use crate::model::{TableId, TableSchema};

/// A table as it is here.
#[derive(Clone, Debug)]
pub(super) struct Local {
    /// Its definition.
    pub(super) schema: TableSchema,
    /// Whether it has no rows.
    pub(super) empty: bool,
}

/// The tables here that matter, by name in lower case.
pub(super) type Here = BTreeMap<String, Local>;

/// One table of the peer's, and what it is here.
#[derive(Clone, Debug, Default)]
pub(super) struct Pair {
    /// The id under which it was held.
    pub(super) previous: Option<TableId>,
    /// What it is called here now; `None` where it is to be created.
    pub(super) from: Option<String>,
    /// Its rows are another table's by now, and its owner does not know that they are missing here.
    pub(super) ask: bool,
    /// It was dropped here, where both ends write: it stays away, and so do its rows.
    pub(super) away: bool,
}

/// All of them, and what is left over.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// One for each wanted table, in its order.
    pub(super) pairs: Vec<Pair>,
    /// Held ids that are gone at the peer, and whether their table goes (or went on under another id) or stays here.
    pub(super) gone: Vec<(TableId, String, bool)>,
    /// The tables to drop.
    pub(super) drops: Vec<String>,
}

/// Pairs what is wanted with what is held and what is here.
pub(super) fn pair(wanted: &[Wanted], held: &[Held], here: &Here, rules: &Rules<'_>) -> Result<Pairs, Error> {
    let mut pairing = Pairing { held, here, rules, used: HashSet::new(), replaced: HashSet::new() };
    let mut pairs: Vec<Option<Pair>> = wanted.iter().map(|one| pairing.by_id(one)).collect();
    for (one, pair) in wanted.iter().zip(&mut pairs) {
        if pair.is_none() {
            *pair = pairing.by_name(one);
        }
    }
    let moving: HashSet<String> =
        pairs.iter().flatten().filter_map(|pair| pair.from.as_deref()).map(str::to_ascii_lowercase).collect();
    let mut found = Pairs { drops: pairing.drops(&moving), ..Pairs::default() };
    found.gone = pairing.gone(&found.drops);
    for (one, pair) in wanted.iter().zip(pairs) {
        let pair = match pair {
            Some(pair) => pair,
            None => pairing.unheld(one, &moving)?,
        };
        pairing.check_room(one, &pair, &moving, &found.drops)?;
        found.pairs.push(pair);
    }
    Ok(found)
}

struct Pairing<'a> {
    held: &'a [Held],
    here: &'a Here,
    rules: &'a Rules<'a>,
    /// Held ids that a wanted table continues.
    used: HashSet<TableId>,
    /// Held ids whose table another one takes over, by its name.
    replaced: HashSet<TableId>,
}

impl Pairing<'_> {
    fn local(&self, name: &str) -> Option<String> {
        self.here.get(&name.to_ascii_lowercase()).map(|local| local.schema.name.clone())
    }

    /// What this table was, by its ids.
    fn ancestor(&self, one: &Wanted) -> Option<&Held> {
        let mut ids = std::iter::once(&one.def.id).chain(&one.def.ancestors);
        ids.find_map(|id| self.held.iter().find(|held| held.id == *id))
    }

    fn is_free(&self, held: &Held) -> bool {
        !self.used.contains(&held.id) && !self.replaced.contains(&held.id)
    }

    fn by_id(&mut self, one: &Wanted) -> Option<Pair> {
        let held = self.ancestor(one).filter(|held| self.is_free(held))?;
        if self.rules.mode == Mode::Safe && !held.name.eq_ignore_ascii_case(&one.def.name) {
            return None;
        }
        let (id, held_name) = (held.id, held.name.clone());
        let is_others = self.held.iter().any(|other| other.id != id && other.name.eq_ignore_ascii_case(&one.def.name));
        // Where both ends write, it may have been renamed at both, or here first.
        let from = self.local(&held_name).or_else(|| {
            let renamed = !self.rules.mirror && !is_others;
            if renamed { self.local(&one.def.name) } else { None }
        });
        self.used.insert(id);
        let away = from.is_none() && !self.rules.mirror;
        Some(Pair { previous: Some(id), ask: from.is_none() && !away, from, away })
    }

    /// A table of that name was held under ids that this one does not descend from: another table, in the same place.
    fn by_name(&mut self, one: &Wanted) -> Option<Pair> {
        let same = |held: &&Held| held.name.eq_ignore_ascii_case(&one.def.name) && self.is_free(held);
        // Its owner believes that we have it, and we do, under its old name.
        let moved = self.ancestor(one).is_some_and(|held| !held.name.eq_ignore_ascii_case(&one.def.name));
        let ask = moved && self.rules.mode == Mode::Safe;
        let Some(held) = self.held.iter().find(same) else {
            let is_new = ask && self.local(&one.def.name).is_none();
            return is_new.then_some(Pair { ask, ..Pair::default() });
        };
        let (id, from) = (held.id, self.local(&held.name));
        self.replaced.insert(id);
        Some(Pair { from, ask, ..Pair::default() })
    }

    fn drops(&self, moving: &HashSet<String>) -> Vec<String> {
        if self.rules.mode == Mode::Safe {
            return Vec::new();
        }
        let left = self.held.iter().filter(|held| self.is_free(held));
        left.filter_map(|held| self.local(&held.name))
            .filter(|name| !moving.contains(&name.to_ascii_lowercase()))
            .collect()
    }

    fn gone(&self, drops: &[String]) -> Vec<(TableId, String, bool)> {
        let left = self.held.iter().filter(|held| !self.used.contains(&held.id));
        left.map(|held| {
            let stays = self.is_free(held)
                && self.local(&held.name).is_some()
                && !drops.iter().any(|name| name.eq_ignore_ascii_case(&held.name));
            (held.id, held.name.clone(), !stays)
        })
        .collect()
    }

    /// A table that was never received: new, or one that stands here already.
    fn unheld(&self, one: &Wanted, moving: &HashSet<String>) -> Result<Pair, Error> {
        let name = one.def.name.to_ascii_lowercase();
        let Some(local) = self.here.get(&name).filter(|_| !moving.contains(&name)) else {
            return Ok(Pair::default());
        };
        let plain = Renames::default();
        let (there, mine) = (Shape::of(&one.def.ddl, &plain), Shape::of(&local.schema.ddl, &plain));
        let is_equal = Difference::between(&there, &mine, &[]).is_none();
        let taken_over = (is_equal && (local.empty || self.rules.adopt))
            || (self.rules.adopt && self.rules.mode == Mode::Safe && there.key == mine.key);
        if !taken_over && !self.rules.mirror {
            return Err(Error::Refused(Box::new(RefusedChange {
                table: one.def.name.clone(),
                columns: "*".to_owned(),
                why: "made at both ends with different definitions".to_owned(),
                source_ddl: one.def.ddl.clone(),
                replica_ddl: local.schema.ddl.clone(),
                forced_helps: false,
            })));
        }
        if !taken_over {
            return Err(Error::Occupied { table: one.def.name.clone() });
        }
        Ok(Pair { from: Some(local.schema.name.clone()), ..Pair::default() })
    }

    /// A renamed table needs its new name to be free by then.
    fn check_room(&self, one: &Wanted, pair: &Pair, moving: &HashSet<String>, drops: &[String]) -> Result<(), Error> {
        let name = one.def.name.to_ascii_lowercase();
        let stays = pair.from.as_ref().is_some_and(|from| from.eq_ignore_ascii_case(&name));
        let frees = moving.contains(&name) || drops.iter().any(|drop| drop.eq_ignore_ascii_case(&name));
        if stays || frees || !self.here.contains_key(&name) {
            return Ok(());
        }
        Err(Error::Occupied { table: one.def.name.clone() })
    }
}
