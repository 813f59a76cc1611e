//! What is to be done to each table. Pure: everything is decided, and refused, before anything is changed.

use std::collections::{HashMap, HashSet};

use super::pair::{Here, Local, Pair, Pairs};
use super::said::Said;
use super::shape::{ColumnShape, Difference, Renames, Shape};
use super::{Error, Mode, RefusedChange, Rules, Wanted};
use crate::model::{Generated, IndexOrigin};
use crate::sqlite::ddl;

/// What is to be done to one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// It is new.
    Create,
    /// It is as it should be.
    Keep,
    /// ALTER TABLE does.
    Alter(Vec<Step>),
    /// SQLite's own procedure.
    Rebuild,
}

/// One ALTER TABLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// RENAME COLUMN.
    Rename {
        /// The name here.
        from: String,
        /// The name there, in the peer's spelling, quotes included: its text ends as the peer's.
        to: String,
    },
    /// DROP COLUMN.
    Drop(String),
    /// ADD COLUMN, in the peer's words.
    Add(String),
}

/// How a table is made anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rebuild {
    /// The new CREATE TABLE.
    pub(super) ddl: String,
    /// Columns that are copied: new name, old name.
    pub(super) columns: Vec<(String, String)>,
}

/// The plan for one table.
#[derive(Clone, Debug)]
pub(super) struct TablePlan {
    /// What it is here.
    pub(super) pair: Pair,
    /// What to do.
    pub(super) work: Work,
    /// What to do instead, where SQLite refuses that.
    pub(super) rebuild: Rebuild,
    /// Whether the copy must be asked for even if nothing is rebuilt.
    pub(super) copy: bool,
    /// Columns that only this end has, in upper case.
    pub(super) kept: Vec<String>,
    /// Those of them that the peer had once, and dropped while the mode was `safe`.
    pub(super) left: Vec<String>,
    /// What a person should know of it.
    pub(super) notes: Vec<String>,
}

impl TablePlan {
    /// Whether views and triggers stand in the way.
    pub(super) fn is_heavy(&self) -> bool {
        match &self.work {
            Work::Create | Work::Keep => false,
            Work::Rebuild => true,
            Work::Alter(steps) => steps.iter().any(|step| match step {
                Step::Rename { .. } | Step::Drop(_) => true,
                Step::Add(_) => false,
            }),
        }
    }
}

/// Plans every table; refuses, where anything is refused, all of them.
pub(super) fn plan(
    wanted: &[Wanted],
    pairs: &Pairs,
    here: &Here,
    said: &Said,
    rules: &Rules<'_>,
) -> Result<Vec<TablePlan>, Error> {
    let mut tables = HashMap::new();
    for (one, pair) in wanted.iter().zip(&pairs.pairs) {
        if let Some(from) = pair.from.as_ref().filter(|from| !from.eq_ignore_ascii_case(&one.def.name)) {
            tables.insert(from.to_ascii_uppercase(), one.def.name.clone());
        }
    }
    let mut plans = Vec::with_capacity(wanted.len());
    for (one, pair) in wanted.iter().zip(&pairs.pairs) {
        let local = pair.from.as_ref().and_then(|from| here.get(&from.to_ascii_lowercase()));
        plans.push(match local {
            None => TablePlan {
                pair: pair.clone(),
                work: Work::Create,
                rebuild: Rebuild::default(),
                copy: pair.ask,
                kept: Vec::new(),
                left: Vec::new(),
                notes: Vec::new(),
            },
            Some(local) => Planner::new(one, local, said, rules, &tables).plan(pair)?,
        });
    }
    Ok(plans)
}

struct Planner<'a> {
    wanted: &'a Wanted,
    local: &'a Local,
    said: &'a Said,
    rules: &'a Rules<'a>,
    renames: Renames,
    there: Shape,
    here: Shape,
    before: Option<Shape>,
}

impl<'a> Planner<'a> {
    fn new(
        wanted: &'a Wanted,
        local: &'a Local,
        said: &'a Said,
        rules: &'a Rules<'a>,
        tables: &HashMap<String, String>,
    ) -> Self {
        let renames = Renames { tables: tables.clone(), columns: HashMap::new() };
        let there = Shape::of(&wanted.def.ddl, &Renames::default());
        let here = Shape::of(&local.schema.ddl, &renames);
        let before = said.tables.get(&local.schema.name.to_ascii_lowercase());
        let before = before.map(|sql| Shape::of(sql, &renames));
        Self { wanted, local, said, rules, renames, there, here, before }
    }

    fn plan(mut self, pair: &Pair) -> Result<TablePlan, Error> {
        self.check_unique_indexes()?;
        let extra: Vec<String> = (self.here.columns.iter())
            .filter(|column| self.there.column(&column.id).is_none())
            .map(|column| column.id.clone())
            .collect();
        let (kept, work, copy) = match self.rules.mode {
            Mode::Safe => {
                let (work, copy) = self.safe(&extra)?;
                (extra, work, copy)
            }
            Mode::Forced if self.rules.mirror => {
                let kept: Vec<String> = extra.into_iter().filter(|id| self.is_ours(id)).collect();
                let (work, copy) = self.forced(&kept);
                (kept, work, copy)
            }
            Mode::Forced => self.forced_between_writers(extra)?,
        };
        let rebuild = self.rebuild(&kept);
        let table = &self.local.schema.name;
        let stays = |id: &String| format!("column \"{}\" of table \"{table}\" is only here and stays", self.named(id));
        // Between two writers one that the peer never had is on its way there.
        let notes = kept.iter().filter(|id| self.rules.mirror || self.was_theirs(id)).map(stays).collect();
        let left = kept.iter().filter(|id| self.was_theirs(id)).cloned().collect();
        Ok(TablePlan {
            pair: pair.clone(),
            work,
            rebuild,
            copy: copy || pair.ask || self.is_one_back(),
            kept,
            left,
            notes,
        })
    }

    /// Whether the peer has a column again that it had dropped, and that was left here with what was in it.
    fn is_one_back(&self) -> bool {
        let table = self.local.schema.name.to_ascii_lowercase();
        let was_left = |id: &String| self.said.left.contains(&(table.clone(), id.clone()));
        self.there.columns.iter().any(|column| self.here.column(&column.id).is_some() && was_left(&column.id))
    }

    /// Whether the peer never had this column, and rows of the peer's can do without it.
    fn is_ours(&self, id: &str) -> bool {
        let never = self.before.is_some() && !self.was_theirs(id);
        let column = self.here.column(id).expect("a column from here");
        never && (column.not_null.is_none() || column.has_default) && !self.is_unique(id)
    }

    /// Whether the peer had this column when it last spoke, or earlier and it was left here.
    fn was_theirs(&self, id: &str) -> bool {
        self.before.as_ref().is_some_and(|before| before.column(id).is_some())
            || self.said.left.contains(&(self.local.schema.name.to_ascii_lowercase(), id.to_owned()))
    }

    fn is_unique(&self, id: &str) -> bool {
        let schema = &self.local.schema;
        let unique = schema.indexes.iter().filter(|index| index.unique);
        let in_index = unique.flat_map(|index| &index.columns).filter_map(|part| part.column);
        let is = |place: usize| schema.columns[place].name.eq_ignore_ascii_case(id);
        in_index.into_iter().any(is) || schema.column(id).is_some_and(|column| column.key_part.is_some())
    }

    /// A unique index that only a mirror has would let REPLACE remove good rows.
    fn check_unique_indexes(&self) -> Result<(), Error> {
        if !self.rules.mirror {
            return Ok(());
        }
        let body = |sql: &str| sql.find('(').map_or_else(String::new, |at| sql[at..].to_owned());
        for index in &self.local.schema.indexes {
            let Some(sql) = index.sql.as_ref().filter(|_| index.unique && index.origin == IndexOrigin::Created) else {
                continue;
            };
            let known = |other: &crate::model::SchemaObject| {
                other.name.eq_ignore_ascii_case(&index.name) || ddl::same_text(&body(&other.sql), &body(sql))
            };
            let theirs = self.wanted.def.indexes.iter().any(known);
            if !theirs && !self.said.indexes.contains_key(&index.name.to_ascii_lowercase()) {
                let table = self.wanted.def.name.clone();
                return Err(Error::ExtraUnique { table, index: index.name.clone() });
            }
        }
        Ok(())
    }

    fn forced(&mut self, kept: &[String]) -> (Work, bool) {
        let difference = Difference::between(&self.there, &self.here, kept);
        if self.is_reordered() {
            return (Work::Rebuild, true);
        }
        if difference.is_none() || self.only_constrained_here() {
            return (Work::Keep, false);
        }
        if let Some(steps) = self.renamed_columns(&difference, kept) {
            return (Work::Alter(steps), true);
        }
        if !difference.is_columns_only() || difference.missing.iter().any(|id| self.is_unique(id)) {
            return (Work::Rebuild, true);
        }
        let drops = difference.missing.iter().map(|id| Step::Drop(self.named(id)));
        (Work::Alter(drops.chain(self.additions(&difference.added)).collect()), false)
    }

    /// Whether UNIQUE, CHECK and foreign keys that both have stand in another order: which of them speaks first differs.
    fn is_reordered(&self) -> bool {
        let common = |of: &'_ Shape, other: &Shape| {
            let is_common = |text: &String| other.rules.iter().any(|rule| rule.text == *text);
            of.rules.iter().map(|rule| rule.text.clone()).filter(is_common).collect::<Vec<_>>()
        };
        common(&self.there, &self.here) != common(&self.here, &self.there)
    }

    /// Whether the peer changed nothing, and what differs are constraints and defaults that somebody put here. They stay:
    /// the link halts before a row that they refuse, rather than undo what an operator did.
    fn only_constrained_here(&self) -> bool {
        let unchanged = |before| Difference::between(&self.there, before, &[]).is_none();
        let stored = |column: &ColumnShape| {
            column.fixed.iter().filter(|fact| !fact.starts_with("DEFAULT")).cloned().collect::<Vec<_>>()
        };
        let unique = |rules: &Shape| rules.rules.iter().filter(|rule| rule.text.starts_with("UNIQUE")).count();
        self.before.as_ref().is_some_and(unchanged)
            && (self.there.key == self.here.key && self.there.options == self.here.options)
            && self.there.columns.iter().map(|column| &column.id).eq(self.here.columns.iter().map(|column| &column.id))
            && self.there.columns.iter().zip(&self.here.columns).all(|(there, here)| stored(there) == stored(here))
            && unique(&self.there) == unique(&self.here)
    }

    fn named(&self, id: &str) -> String {
        self.here.column(id).map_or_else(|| id.to_owned(), |column| column.name.clone())
    }

    fn additions(&self, added: &[String]) -> impl Iterator<Item = Step> {
        let texts = added.iter().filter_map(|id| self.there.column(id)).map(|column| column.text.clone());
        texts.map(Step::Add).collect::<Vec<_>>().into_iter()
    }

    /// Columns that stand in the same place with the same definition under another name, where nothing else differs but
    /// columns at the end. It may have been a drop and an add; the rows are compared again in any case.
    fn renamed_columns(&mut self, difference: &Difference, kept: &[String]) -> Option<Vec<Step>> {
        if difference.missing.is_empty() {
            return None;
        }
        let (mut columns, mut spelled) = (HashMap::new(), Vec::new());
        let mine = self.here.columns.iter().filter(|column| !kept.contains(&column.id));
        for (place, column) in mine.enumerate().filter(|(_, column)| difference.missing.contains(&column.id)) {
            let other = self.there.columns.get(place)?;
            let is_it = difference.added.contains(&other.id) && other.fixed == column.fixed;
            if !is_it || other.not_null != column.not_null {
                return None;
            }
            columns.insert(column.id.clone(), other.name.clone());
            spelled.push(Step::Rename { from: column.name.clone(), to: other.spelling() });
        }
        let renames = Renames { tables: self.renames.tables.clone(), columns };
        let here = Shape::of(&self.local.schema.ddl, &renames);
        let rest = Difference::between(&self.there, &here, kept);
        if !rest.is_columns_only() || !rest.missing.is_empty() {
            return None;
        }
        let steps = spelled.into_iter().chain(self.additions(&rest.added)).collect();
        (self.renames, self.here) = (renames, here);
        Some(steps)
    }

    fn safe(&self, extra: &[String]) -> Result<(Work, bool), Error> {
        let since = self.before.as_ref().map(|before| Difference::between(&self.there, before, &[]));
        if self.rules.mirror {
            self.check_new_unique()?;
        }
        self.check_contradiction(since.as_ref())?;
        // What differs here although the peer changed nothing, was changed here.
        if since.as_ref().is_some_and(Difference::is_none) {
            return Ok((Work::Keep, false));
        }
        let mut difference = Difference::between(&self.there, &self.here, extra);
        if let Some(since) = &since {
            difference.keep_only(since);
        }
        let moved = difference.order && since.as_ref().is_none_or(|since| since.order);
        self.refuse_changes(&difference, moved)?;
        self.refuse_drops(extra)?;
        let had = |id: &String| self.before.as_ref().is_some_and(|before| before.column(id).is_some());
        // One that the peer had before and that is not here was dropped here, and stays away.
        let added: Vec<String> = difference.added.iter().filter(|id| !had(id)).cloned().collect();
        self.refuse_additions(&added)?;
        let dropped = since.is_some_and(|since| !since.missing.is_empty());
        let work = if !difference.loosened.is_empty() || !difference.rules_removed.is_empty() {
            Work::Rebuild
        } else if added.is_empty() {
            Work::Keep
        } else {
            Work::Alter(self.additions(&added).collect())
        };
        let copy = work == Work::Rebuild || (dropped && !added.is_empty());
        Ok((work, copy))
    }

    /// A column that both ends added is one where both define it alike.
    fn check_contradiction(&self, since: Option<&Difference>) -> Result<(), Error> {
        let rules = |shape: &Shape, id: &String| {
            let own = shape.rules.iter().filter(|rule| rule.column.as_ref() == Some(id));
            own.map(|rule| rule.text.clone()).collect::<HashSet<_>>()
        };
        for id in since.into_iter().flat_map(|since| &since.added) {
            let (Some(there), Some(here)) = (self.there.column(id), self.here.column(id)) else { continue };
            let alike = there.fixed == here.fixed && there.not_null == here.not_null;
            if !alike || rules(&self.there, id) != rules(&self.here, id) {
                return Err(self.refused(there.name.clone(), "added at both ends with different definitions"));
            }
        }
        Ok(())
    }

    /// Makes what the peer changed, and leaves what was changed here, or both would undo each other's changes for ever.
    fn forced_between_writers(&mut self, extra: Vec<String>) -> Result<(Vec<String>, Work, bool), Error> {
        let since = self.before.as_ref().map(|before| Difference::between(&self.there, before, &[]));
        let alike = Difference::between(&self.there, &self.here, &[]).is_none();
        if alike || since.as_ref().is_some_and(Difference::is_none) {
            return Ok((extra, Work::Keep, false));
        }
        self.check_contradiction(since.as_ref())?;
        let ours = self.before.as_ref().map(|before| Difference::between(&self.here, before, &[])).unwrap_or_default();
        let kept: Vec<String> = extra.into_iter().filter(|id| self.is_ours(id)).collect();
        if !ours.is_columns_only() {
            return Err(self.refused("*".to_owned(), "changed at both ends"));
        }
        if ours.missing.is_empty() {
            let (work, copy) = self.forced(&kept);
            return Ok((kept, work, copy));
        }
        let mut difference = Difference::between(&self.there, &self.here, &kept);
        difference.added.retain(|id| !ours.missing.contains(id));
        difference.inserted = false;
        let unique = difference.missing.iter().any(|id| self.is_unique(id));
        if !difference.is_columns_only() || unique {
            return Err(self.refused("*".to_owned(), "changed at both ends"));
        }
        let drops = difference.missing.iter().map(|id| Step::Drop(self.named(id)));
        let steps: Vec<Step> = drops.chain(self.additions(&difference.added)).collect();
        Ok((kept, if steps.is_empty() { Work::Keep } else { Work::Alter(steps) }, false))
    }

    fn refuse_changes(&self, difference: &Difference, moved: bool) -> Result<(), Error> {
        let all = "*".to_owned();
        let names = |ids: &[String]| ids.iter().map(|id| self.named(id)).collect::<Vec<_>>().join(", ");
        if !difference.changed.is_empty() {
            return Err(self.refused(names(&difference.changed), "type, default, collation or expression changed"));
        }
        if !difference.tightened.is_empty() {
            return Err(self.refused(names(&difference.tightened), "NOT NULL added or changed"));
        }
        if difference.key {
            return Err(self.refused(all, "primary key, AUTOINCREMENT, STRICT or WITHOUT ROWID changed"));
        }
        if !difference.rules_added.is_empty() {
            return Err(self.refused(all, "UNIQUE, CHECK or foreign key added or changed"));
        }
        if moved {
            return Err(self.refused(all, "column order changed"));
        }
        Ok(())
    }

    fn refuse_drops(&self, extra: &[String]) -> Result<(), Error> {
        for id in extra {
            let column = self.here.column(id).expect("a column from here");
            let theirs = self.before.as_ref().is_some_and(|before| before.column(id).is_some());
            let needed = column.not_null.is_some() && !column.generated;
            if (theirs && (needed || self.is_unique(id))) || (needed && !column.has_default) {
                return Err(self.refused(column.name.clone(), "a column that is NOT NULL or unique was dropped"));
            }
        }
        Ok(())
    }

    fn refuse_additions(&self, added: &[String]) -> Result<(), Error> {
        for column in added.iter().filter_map(|id| self.there.column(id)) {
            if column.not_null.is_some() && !column.has_default && !column.generated {
                return Err(self.refused(column.name.clone(), "a NOT NULL column without a default was added"));
            }
        }
        Ok(())
    }

    fn check_new_unique(&self) -> Result<(), Error> {
        let unique = self.wanted.schema.indexes.iter().filter(|index| index.unique);
        for index in unique.filter(|index| index.origin == IndexOrigin::Created && !self.local.empty) {
            let said = self.said.indexes.get(&index.name.to_ascii_lowercase());
            let here = self.local.schema.indexes.iter().find(|other| other.name.eq_ignore_ascii_case(&index.name));
            let same = |sql: Option<&String>| {
                sql.zip(index.sql.as_ref()).is_some_and(|(mine, theirs)| ddl::same_text(mine, theirs))
            };
            let here = here.and_then(|here| here.sql.as_ref());
            if !same(said) && !same(here) {
                // The tables may be alike: who is to make the index here needs its own text.
                let there = index.sql.as_ref().unwrap_or(&self.wanted.def.ddl);
                let why = format!("UNIQUE index \"{}\" added or changed", index.name);
                return Err(self.refused_for("*".to_owned(), &why, [there, here.unwrap_or(&self.local.schema.ddl)]));
            }
        }
        Ok(())
    }

    fn refused(&self, columns: String, why: &str) -> Error {
        self.refused_for(columns, why, [&self.wanted.def.ddl, &self.local.schema.ddl])
    }

    /// `ddl`: what differs, there and here.
    fn refused_for(&self, columns: String, why: &str, ddl: [&str; 2]) -> Error {
        Error::Refused(Box::new(RefusedChange {
            table: self.wanted.def.name.clone(),
            columns,
            why: why.to_owned(),
            source_ddl: ddl[0].to_owned(),
            replica_ddl: ddl[1].to_owned(),
            forced_helps: true,
        }))
    }

    fn rebuild(&self, kept: &[String]) -> Rebuild {
        let texts: Vec<&str> =
            kept.iter().filter_map(|id| self.here.column(id)).map(|column| column.text.as_str()).collect();
        let ddl = ddl::with_columns(&self.wanted.def.ddl, &texts);
        let written = |name: &str| {
            let local = self.local.schema.column(name);
            local.is_some_and(|column| column.generated == Generated::No)
        };
        let mut columns = Vec::new();
        for column in self.wanted.schema.columns.iter().filter(|column| column.generated == Generated::No) {
            let old = self.here.column(&column.name.to_ascii_uppercase()).map(|column| column.name.clone());
            columns.extend(old.filter(|old| written(old)).map(|old| (column.name.clone(), old)));
        }
        for name in kept.iter().map(|id| self.named(id)).filter(|name| written(name)) {
            columns.push((name.clone(), name));
        }
        Rebuild { ddl, columns }
    }
}
