//! Does what was planned, inside the caller's transaction.
//!
//! ALTER TABLE is tried where it may do, and its outcome compared with what is wanted; where SQLite refuses, or the
//! outcome is another, the table is rebuilt. So a wrong guess of the plan costs time, never a wrong table.

use std::collections::HashSet;

use rusqlite::Connection;

use super::aside::Aside;
use super::error::{about, unusable};
use super::pair::{Here, Pairs};
use super::plan::{Step, TablePlan, Work};
use super::rebuild::{self, is_misfit};
use super::said::Said;
use super::shape::{Difference, Renames, Shape};
use super::{Change, Error, Migrated, Mode, Rules, Wanted};
use crate::model::{Fault, Index, TableSchema};
use crate::sqlite::{catalog, ddl, ident};

/// What the steps have in common.
pub(super) struct Execution<'a> {
    pub(super) conn: &'a Connection,
    pub(super) rules: &'a Rules<'a>,
    pub(super) said: &'a Said,
    /// The tables as they were at [`Self::seen_at`].
    pub(super) here: &'a Here,
    /// `PRAGMA schema_version` of [`Self::here`].
    pub(super) seen_at: i64,
    pub(super) aside: Aside,
    /// What could not survive, what stays.
    pub(super) notes: Vec<String>,
    /// Indexes that wait for their table's copy, in lower case.
    pub(super) deferred: HashSet<String>,
}

impl Execution<'_> {
    /// Drops, renames, and makes every table what is wanted, with its indexes.
    pub(super) fn tables(
        &mut self,
        wanted: &[Wanted],
        pairs: &Pairs,
        plans: &[TablePlan],
    ) -> Result<Vec<Migrated>, Error> {
        let renames = renames(wanted, plans);
        if !pairs.drops.is_empty() || !renames.is_empty() || plans.iter().any(TablePlan::is_heavy) {
            self.aside.take(self.conn)?;
        }
        for name in &pairs.drops {
            self.conn.execute_batch(&format!("DROP TABLE main.{}", ident(name))).map_err(about(name))?;
        }
        self.rename(&renames)?;
        for (one, plan) in wanted.iter().zip(plans) {
            if plan.work != Work::Create {
                self.drop_stale_indexes(one)?;
            }
        }
        let mut migrated = Vec::with_capacity(wanted.len());
        for (one, plan) in wanted.iter().zip(plans) {
            let mut change = self.table(one, plan)?;
            if self.make_indexes(one, change)? {
                self.rebuild(one, plan)?;
                change = Change::Rebuilt;
            }
            migrated.push((change, one, plan));
        }
        migrated.into_iter().map(|(change, one, plan)| self.outcome(change, one, plan)).collect()
    }

    fn outcome(&self, change: Change, one: &Wanted, plan: &TablePlan) -> Result<Migrated, Error> {
        let local = self.local(one)?;
        let is_renamed = plan.pair.from.as_ref().is_some_and(|from| !from.eq_ignore_ascii_case(&one.def.name));
        let change = match change {
            Change::Same | Change::Altered if is_renamed => Change::Renamed,
            Change::Created | Change::Same | Change::Altered | Change::Renamed | Change::Rebuilt => change,
        };
        Ok(Migrated {
            id: one.def.id,
            previous: plan.pair.previous,
            name: one.def.name.clone(),
            schema: one.schema.clone(),
            copy: plan.copy || change == Change::Rebuilt,
            change,
            local,
            left: plan.left.clone(),
        })
    }

    fn local(&self, one: &Wanted) -> Result<TableSchema, Error> {
        // Mostly nothing changes, and a catalog may have thousands of tables.
        let seen = self.here.get(&one.def.name.to_ascii_lowercase());
        if let Some(local) =
            seen.filter(|_| matches!(catalog::schema_version(self.conn), Ok(now) if now == self.seen_at))
        {
            return Ok(local.schema.clone());
        }
        Ok(catalog::table(self.conn, &one.def.name)?.expect("what is wanted was just made"))
    }

    /// Names may be swapped, so whoever stands in another's way steps aside first; then come those whose new name was
    /// free all the time, whose old one may be what somebody waits for.
    fn rename(&self, renames: &[(String, String)]) -> Result<(), Error> {
        let is_taken = |to: &str| renames.iter().any(|(from, _)| from.eq_ignore_ascii_case(to));
        let (mut free, mut awaited) = (Vec::new(), Vec::new());
        for (place, (from, to)) in renames.iter().enumerate() {
            if is_taken(to) {
                let meanwhile = format!("__cdc_renamed_{place}");
                self.rename_table(from, &meanwhile)?;
                awaited.push((meanwhile, to));
            } else {
                free.push((from.clone(), to));
            }
        }
        free.iter().chain(&awaited).try_for_each(|(from, to)| self.rename_table(from, to))
    }

    /// What refers to the table follows it, as at the source; where something unrelated is so broken that SQLite refuses
    /// that, the table alone is renamed.
    fn rename_table(&self, from: &str, to: &str) -> Result<(), Error> {
        let sql = format!("ALTER TABLE main.{} RENAME TO {}", ident(from), ident(to));
        let done = self.attempt(|| {
            self.conn.execute_batch(&sql)?;
            Ok(true)
        })?;
        if done {
            return Ok(());
        }
        rebuild::under_legacy_rules(self.conn, &sql).map_err(about(from))
    }

    fn table(&mut self, one: &Wanted, plan: &TablePlan) -> Result<Change, Error> {
        match &plan.work {
            Work::Keep => Ok(Change::Same),
            Work::Create => self.create(one),
            Work::Rebuild => self.rebuild(one, plan),
            Work::Alter(steps) => {
                if self.alter(one, plan, steps)? {
                    return Ok(Change::Altered);
                }
                // Triggers of ours may name the column; whoever made them makes them anew.
                if plan.is_heavy() {
                    self.drop_our_triggers(&one.def.name)?;
                    if self.alter(one, plan, steps)? {
                        return Ok(Change::Altered);
                    }
                }
                self.rebuild(one, plan)
            }
        }
    }

    fn create(&self, one: &Wanted) -> Result<Change, Error> {
        let name = &one.def.name;
        let taken = "SELECT 1 FROM main.sqlite_schema WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE";
        if self.conn.prepare_cached(taken)?.exists([name])? {
            return Err(Error::Occupied { table: name.clone() });
        }
        self.conn.execute(&one.def.ddl, []).map_err(unusable(format!("table \"{name}\"")))?;
        Ok(Change::Created)
    }

    fn rebuild(&mut self, one: &Wanted, plan: &TablePlan) -> Result<Change, Error> {
        self.aside.take(self.conn)?;
        let task =
            rebuild::Task { conn: self.conn, wanted: one, rebuild: &plan.rebuild, said: self.said, rules: self.rules };
        self.notes.extend(task.run()?);
        Ok(Change::Rebuilt)
    }

    /// Whether the steps went through, and made of the table what is wanted.
    fn alter(&self, one: &Wanted, plan: &TablePlan, steps: &[Step]) -> Result<bool, Error> {
        self.attempt(|| {
            let table = ident(&one.def.name);
            for step in steps {
                let what = match step {
                    Step::Rename { from, to } => format!("RENAME COLUMN {} TO {to}", ident(from)),
                    Step::Drop(column) => format!("DROP COLUMN {}", ident(column)),
                    Step::Add(text) => format!("ADD COLUMN {text}"),
                };
                self.conn.execute(&format!("ALTER TABLE main.{table} {what}"), [])?;
            }
            self.is_as_wanted(one, plan)
        })
    }

    fn is_as_wanted(&self, one: &Wanted, plan: &TablePlan) -> Result<bool, crate::sqlite::Error> {
        let plain = Renames::default();
        let Some(local) = catalog::table(self.conn, &one.def.name)? else { return Ok(false) };
        let there = Shape::of(&one.def.ddl, &plain);
        let left = Difference::between(&there, &Shape::of(&local.ddl, &plain), &plan.kept);
        // In safe mode what is not to be changed was refused, or is what the operator wants.
        Ok(self.rules.mode == Mode::Safe || !self.rules.mirror || left.is_none())
    }

    /// Runs `work` so that it leaves nothing behind where it fails or answers no.
    fn attempt(&self, work: impl FnOnce() -> Result<bool, crate::sqlite::Error>) -> Result<bool, Error> {
        self.conn.execute_batch("SAVEPOINT __cdc_attempt")?;
        let done = work();
        let undo = if matches!(done, Ok(true)) { "" } else { "ROLLBACK TO __cdc_attempt; " };
        let ended = self.conn.execute_batch(&format!("{undo}RELEASE __cdc_attempt"));
        match done {
            Err(error) if error.fault() == Fault::Retry => return Err(error.into()),
            Ok(_) | Err(_) => ended?,
        }
        Ok(matches!(done, Ok(true)))
    }

    /// Whether everything becomes as the peer has it. Where both ends write, what was changed here stays.
    fn obeys(&self) -> bool {
        self.rules.mode == Mode::Forced && self.rules.mirror
    }

    /// Whether an index was here, and went with the migration.
    fn was_here(&self, one: &Wanted, index: &str, change: Change) -> bool {
        let here = self.here.get(&one.def.name.to_ascii_lowercase());
        let had =
            |local: &super::pair::Local| local.schema.indexes.iter().any(|had| had.name.eq_ignore_ascii_case(index));
        change != Change::Same && (self.rules.mirror || here.is_some_and(had))
    }

    fn drop_our_triggers(&self, table: &str) -> Result<(), Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE",
        )?;
        let names = statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        for name in names {
            self.conn.execute_batch(&format!("DROP TRIGGER main.{}", ident(&name)))?;
        }
        Ok(())
    }

    /// Indexes that the peer dropped or has otherwise by now. Those made here stay.
    fn drop_stale_indexes(&self, one: &Wanted) -> Result<(), Error> {
        let table = self.local(one)?;
        for index in &table.indexes {
            let Some(sql) = &index.sql else { continue };
            let said = self.said.indexes.get(&index.name.to_ascii_lowercase());
            let is_stale = match wanted_index(one, index) {
                Some(wanted) if ddl::same_text(wanted.sql.as_deref().unwrap_or_default(), sql) => false,
                // The peer's as before, and another here: changed here.
                Some(wanted) => self.obeys() || said != wanted.sql.as_ref(),
                None => said.is_some(),
            };
            if is_stale {
                self.conn.execute_batch(&format!("DROP INDEX main.{}", ident(&index.name)))?;
            }
        }
        Ok(())
    }

    /// Makes the peer's indexes that are not here. Returns whether the table must be rebuilt, for its rows do not fit a
    /// unique one.
    fn make_indexes(&mut self, one: &Wanted, change: Change) -> Result<bool, Error> {
        let local = self.local(one)?;
        for index in &one.schema.indexes {
            let Some(sql) = &index.sql else { continue };
            let lower = index.name.to_ascii_lowercase();
            let is_here = local.indexes.iter().any(|other| other.name.eq_ignore_ascii_case(&index.name));
            if is_here || (!index.unique && !self.rules.kinds.indexes) {
                continue;
            }
            let was_deferred = self.said.deferred.contains(&lower);
            if !index.unique && (was_deferred || change == Change::Created) {
                self.deferred.insert(lower);
                continue;
            }
            // What the peer has as before, and is not here, was dropped here.
            if !self.obeys() && self.said.indexes.get(&lower) == Some(sql) && !self.was_here(one, &index.name, change) {
                continue;
            }
            match self.conn.execute(sql, []) {
                Ok(_) => {}
                Err(error) if index.unique && is_misfit(&error) && self.obeys() => return Ok(true),
                Err(error) if index.unique && is_misfit(&error) && !self.rules.mirror => {
                    return Err(rebuild::misfit(
                        one,
                        &local,
                        &format!("rows here break the new UNIQUE index \"{}\"", index.name),
                    ));
                }
                Err(error) if index.unique || !is_misfit(&error) => {
                    return Err(unusable(format!("index \"{}\"", index.name))(error));
                }
                Err(error) => self.notes.push(format!("index \"{}\" does not work here ({error})", index.name)),
            }
        }
        Ok(false)
    }
}

fn wanted_index<'a>(one: &'a Wanted, index: &Index) -> Option<&'a Index> {
    let created = one.schema.indexes.iter().filter(|other| other.sql.is_some());
    created.into_iter().find(|other| other.name.eq_ignore_ascii_case(&index.name))
}

fn renames(wanted: &[Wanted], plans: &[TablePlan]) -> Vec<(String, String)> {
    let mut renames = Vec::new();
    for (one, plan) in wanted.iter().zip(plans) {
        let from = plan.pair.from.clone().filter(|from| !from.eq_ignore_ascii_case(&one.def.name));
        renames.extend(from.map(|from| (from, one.def.name.clone())));
    }
    renames
}
