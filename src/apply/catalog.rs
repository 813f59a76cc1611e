//! What is known of a peer's tables in this session: its catalog, and what it became here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rusqlite::Connection;

use super::checkpoint::{Copies, Copy};
use super::statement::Target;
use super::{Error, LinkRules, made};
use crate::migrate::{self, Change, Migrated};
use crate::model::{CopyState, KeyShape, NodeId, TableDef, TableId};
use crate::sqlite;

/// A peer's tables as this session knows them. Begins with the first catalog; thrown away with a transaction that fails.
#[derive(Default)]
pub(super) struct Received {
    pub(super) catalog: Option<migrate::Catalog>,
    pub(super) targets: HashMap<TableId, Target>,
    /// Tables that were dropped here, where both ends write: what the peer says of them is left out.
    pub(super) away: HashSet<TableId>,
    pub(super) copies: Copies,
    /// `PRAGMA schema_version` that `targets` were made at. Another one means that somebody changed the schema here.
    pub(super) schema_version: i64,
}

/// Whose catalog it is, and what of it is allowed.
pub(super) struct Terms<'a> {
    pub(super) peer: NodeId,
    pub(super) rules: &'a LinkRules,
}

/// What a catalog changed.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) migrated: bool,
    pub(super) notes: Vec<String>,
    /// Tables whose copy begins anew and whose owner cannot know it.
    pub(super) ask: Vec<TableId>,
    /// Tables that were not here before.
    pub(super) created: Vec<TableId>,
}

impl Received {
    /// What is stored of a peer, before its catalog came.
    pub(super) fn load(conn: &Connection, peer: NodeId) -> Result<Self, Error> {
        Ok(Self { copies: Copies::load(conn, peer)?, ..Self::default() })
    }

    /// Makes the schema here what the catalog says, as far as the rules allow, and keeps how far its tables are copied.
    ///
    /// # Errors
    /// [`Error::NotAllowed`], [`Error::ReservedName`], [`Error::ColumnMissing`], `migrate`'s, or SQLite's.
    pub(super) fn migrate(
        &mut self,
        conn: &Connection,
        terms: &Terms<'_>,
        catalog: migrate::Catalog,
    ) -> Result<Outcome, Error> {
        let Terms { peer, rules } = *terms;
        for table in &catalog.tables {
            check_name(table, rules)?;
        }
        let before = self.columns_here(conn)?;
        let held: Vec<migrate::Held> =
            self.copies.iter().map(|(id, copy)| migrate::Held { id, name: copy.name.clone() }).collect();
        let how = migrate::Rules {
            mode: rules.mode,
            kinds: rules.kinds,
            selection: &rules.selection,
            adopt: rules.adopt,
            mirror: rules.merge.is_none(),
        };
        let version = sqlite::catalog::schema_version(conn)?;
        let done = migrate::apply_catalog(conn, peer, &catalog, &held, &how)?;
        let migrated = sqlite::catalog::schema_version(conn)? != version;
        let created =
            done.tables.iter().filter(|table| table.change == Change::Created).map(|table| table.id).collect();
        let made = if rules.merge.is_some() { made::since(conn, peer)? } else { BTreeSet::new() };
        let ask = self.carry_over(&catalog, (&done.tables, rules.merge.is_some()), (&before, &made));
        let outcome = Outcome { migrated, notes: done.notes, ask, created };
        self.leave(&done.gone);
        self.stay_away(&done.away);
        self.targets.clear();
        for table in &done.tables {
            let target = match &rules.merge {
                Some(_) => Target::merged(table.id, (&table.schema, &table.local), &table.left)?,
                None => Target::new(table.id, &table.schema, &table.local)?,
            };
            self.targets.insert(table.id, target);
        }
        self.catalog = Some(catalog);
        Ok(outcome)
    }

    /// The columns of the tables that were received before, as they are here.
    fn columns_here(&self, conn: &Connection) -> Result<BTreeMap<TableId, Vec<String>>, Error> {
        let mut columns = BTreeMap::new();
        for (id, copy) in self.copies.iter().filter(|(_, copy)| !copy.left) {
            let table = sqlite::catalog::table(conn, &copy.name)?;
            columns.insert(id, table.map_or_else(Vec::new, |table| names(&table)));
        }
        Ok(columns)
    }

    /// Keeps the progress of every table that was here before under whatever id; a new one has none. Returns the tables
    /// that must be asked for: those that the migration could not carry, and those that somebody changed here while the
    /// peer's stayed as they were.
    fn carry_over(
        &mut self,
        catalog: &migrate::Catalog,
        (tables, merged): (&[Migrated], bool),
        (before, made): (&BTreeMap<TableId, Vec<String>>, &BTreeSet<String>),
    ) -> Vec<TableId> {
        let defs: HashMap<TableId, &TableDef> = catalog.tables.iter().map(|def| (def.id, def)).collect();
        let mut old: HashMap<TableId, Copy> = HashMap::new();
        for table in tables {
            let Some(source) = self.progress_of(table, &defs) else { continue };
            old.extend(self.copies.take(source).map(|copy| (table.id, copy)));
        }
        let mut ask = Vec::new();
        for table in tables {
            let estimate = defs.get(&table.id).map_or(0, |def| def.rows_estimate);
            let Some(mut copy) = old.remove(&table.id) else {
                let ancestors = defs.get(&table.id).map_or(&[][..], |def| &def.ancestors);
                let left = table.previous.filter(|previous| self.copies.take(*previous).is_some());
                if left.is_some_and(|left| left == table.id || ancestors.contains(&left)) {
                    // It was away, dropped here, and was made again. The peer knew ours before: it does not ask.
                    ask.push(self.begin_unknown(table, estimate));
                    continue;
                }
                // The peer takes it for the table that it was before, whose progress stays with what is left here.
                if ancestors.iter().any(|id| before.contains_key(id)) {
                    ask.push(table.id);
                }
                self.copies.put_new(table.id, &table.name, estimate);
                continue;
            };
            if made.contains(&table.name.to_lowercase()) {
                // It was dropped here and made again before anything came that would have found it gone.
                ask.push(self.begin_unknown(table, estimate));
                continue;
            }
            table.name.clone_into(&mut copy.name);
            if copy.state != CopyState::Done {
                copy.rows_estimate = estimate;
            }
            self.copies.put(table.id, copy);
            let changed_here = before.get(&table.id).is_some_and(|columns| *columns != names(&table.local));
            if (table.copy || table.change == Change::Created || changed_here)
                && self.copies.begin_asked(table.id, merged)
            {
                ask.push(table.id);
            }
        }
        ask
    }

    /// Takes a table for one that nothing was ever received of, and that its owner does not copy by itself.
    fn begin_unknown(&mut self, table: &Migrated, estimate: u64) -> TableId {
        self.copies.put(table.id, Copy::pending(&table.name, estimate));
        table.id
    }

    /// Begins the copies of all tables anew whose key is the rowid, for their rows may have other ones now. Returns those
    /// that must be asked for.
    pub(super) fn compare_by_rowid(&mut self) -> Vec<TableId> {
        let by_rowid = self.targets.values().filter(|target| matches!(target.read.key, KeyShape::Rowid { .. }));
        let mut tables: Vec<TableId> = by_rowid.map(|target| target.id).collect();
        tables.sort_unstable();
        // One that is new is copied in any case, and is asked for as such.
        tables.retain(|table| self.copies.get(*table).is_some_and(|copy| copy.state != CopyState::Pending));
        tables.retain(|table| self.copies.begin_anew(*table));
        tables
    }

    /// Under which id the progress of a table is.
    fn progress_of(&self, table: &Migrated, defs: &HashMap<TableId, &TableDef>) -> Option<TableId> {
        let known = |id: &TableId| self.copies.get(*id).is_some_and(|copy| !copy.left);
        if known(&table.id) {
            return Some(table.id);
        }
        if let Some(previous) = table.previous.filter(known) {
            return Some(previous);
        }
        let ancestors = defs.get(&table.id).map_or(&[][..], |def| &def.ancestors);
        let free = |id: &&TableId| known(id) && !defs.contains_key(id) && table.change != Change::Created;
        ancestors.iter().find(free).copied()
    }

    /// Expects nothing of tables that were dropped here.
    fn stay_away(&mut self, away: &[(TableId, TableId, String)]) {
        self.away = away.iter().map(|(id, _, _)| *id).collect();
        for (id, held, name) in away {
            let copy = self.copies.take(*held).unwrap_or_else(|| Copy::pending(name, 0));
            let note = Some("dropped here; what the peer changes in its own is left out".to_owned());
            self.copies.put(*id, Copy { note, left: true, state: CopyState::Done, ..copy });
        }
    }

    /// Forgets the tables that are gone at the peer, or marks those that stay here.
    fn leave(&mut self, gone: &[(TableId, String, bool)]) {
        for (id, name, dropped) in gone {
            let Some(copy) = self.copies.take(*id) else { continue };
            let is_received = self.copies.iter().any(|(_, other)| other.name.eq_ignore_ascii_case(name));
            if !dropped && !is_received {
                let note = Some("dropped at the source; stays here, for migrate_mode is safe".to_owned());
                self.copies.put(*id, Copy { note, left: true, state: CopyState::Done, ..copy });
            }
        }
    }
}

fn names(table: &crate::model::TableSchema) -> Vec<String> {
    table.columns.iter().map(|column| column.name.to_ascii_lowercase()).collect()
}

fn check_name(table: &TableDef, rules: &LinkRules) -> Result<(), Error> {
    let is_reserved =
        |prefix: &str| table.name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    if is_reserved("sqlite_") || is_reserved(sqlite::catalog::OURS) {
        return Err(Error::ReservedName { table: table.name.clone() });
    }
    if !rules.selection.has(&table.name) {
        return Err(Error::NotAllowed { table: table.name.clone() });
    }
    Ok(())
}
