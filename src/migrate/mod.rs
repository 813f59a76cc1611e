//! Makes the schema here what a peer's catalog says, as far as the link's rules allow.
//!
//! `check → pair → plan → execute`: every table's DDL is tried in a scratch database under an authorizer ([`check`]);
//! it is found out which table here is which of the peer's; everything is planned, and refused, before anything is
//! changed; then it is done, inside the caller's open transaction, which the caller rolls back where this fails. The
//! apply stage feeds it at the beginning of a window that has a catalog, and writes rows by what comes out.
//!
//! Promises:
//! * In [`Mode::Forced`] every catalog that SQLite takes can be applied, and the tables end as the peer has them.
//! * In [`Mode::Safe`] nothing is dropped, and no definition changes but to hold more.
//! * What was made here on top (indexes, views, triggers, tables, columns that nothing needs) survives where what it
//!   names does; what could not is named in [`Outcome::notes`].
//! * A peer's text creates the one object that it is said to create, and uses no name but the peer's own.
//!
//! Not promised: that triggers of our own survive. Capture and protection make theirs anew in the same transaction,
//! wherever `PRAGMA schema_version` moved. The caller has `foreign_keys` and triggers switched off.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, OptionalExtension};

use crate::model::{NodeId, SchemaKinds, SchemaObject, Selection, TableDef, TableId, TableSchema};
use crate::sqlite::{catalog, ident, store};

mod aside;
mod check;
mod error;
mod execute;
mod objects;
mod pair;
mod plan;
mod rebuild;
mod said;
mod shape;
#[cfg(test)]
mod tests;

pub use check::{Wanted, check};
pub use error::{Error, RefusedChange};

use aside::Aside;
use execute::Execution;
use objects::Objects;
use pair::{Here, Local};
use said::Said;

/// Which of a peer's schema changes are made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those that lose nothing; the others halt the link.
    Safe,
    /// All.
    Forced,
}

/// Everything that a peer has for a link.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Its tables, with their indexes.
    pub tables: Vec<TableDef>,
    /// Its views and triggers.
    pub objects: Vec<SchemaObject>,
}

/// A table that was received from this peer before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The id that the peer gave it.
    pub id: TableId,
    /// Its name here.
    pub name: String,
}

/// What the link allows.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Which changes are made.
    pub mode: Mode,
    /// Which kinds of objects are carried besides tables.
    pub kinds: SchemaKinds,
    /// The tables that may come.
    pub selection: &'a Selection,
    /// Whether a table that was not received from this peer, of the same name and shape, is taken over with its rows.
    pub adopt: bool,
    /// Whether rows are applied with REPLACE, so that a unique index of this end's own would let it remove good rows.
    pub mirror: bool,
}

/// What became of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The peer's tables, in its order.
    pub tables: Vec<Migrated>,
    /// Ids that the peer has no more, with their names, and whether the table is gone here too (or another one of the
    /// peer's by now).
    pub gone: Vec<(TableId, String, bool)>,
    /// What could not survive, and what stays although the peer has it no more: for the log and `status`.
    pub notes: Vec<String>,
}

/// What became of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Its id at the peer.
    pub id: TableId,
    /// The id under which it was held, if it was.
    pub previous: Option<TableId>,
    /// Its name.
    pub name: String,
    /// As the peer has it: defines what travels.
    pub schema: TableSchema,
    /// What was done.
    pub change: Change,
    /// Whether this end must ask for a copy: the peer cannot know that it is needed.
    pub copy: bool,
    /// As it is here now: may lack columns, or have more.
    pub local: TableSchema,
}

/// What was done to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, and empty.
    Created,
    /// Nothing, but for its indexes.
    Same,
    /// Columns came, went or were renamed.
    Altered,
    /// The table has another name.
    Renamed,
    /// It was made anew with the rows that fit.
    Rebuilt,
}

/// Makes the schema here what `catalog` says. `held` is what was received from `peer` before.
///
/// # Errors
/// [`Error::Refused`], [`Error::Occupied`], [`Error::ExtraUnique`], [`Error::NotSelected`] before anything is changed;
/// [`Error::Denied`], [`Error::Unusable`] or SQLite's also later. The caller rolls its transaction back.
pub fn apply_catalog(
    conn: &Connection,
    peer: NodeId,
    catalog: &Catalog,
    held: &[Held],
    rules: &Rules<'_>,
) -> Result<Outcome, Error> {
    let wanted = check_all(catalog, rules)?;
    let said = Said::load(conn, peer)?;
    let here = look(conn, &wanted, held)?;
    let pairs = pair::pair(&wanted, held, &here, rules)?;
    let plans = plan::plan(&wanted, &pairs, &here, &said, rules)?;
    let objects = Objects { conn, rules, said: &said, catalog };
    let mut execution = Execution {
        conn,
        rules,
        said: &said,
        here: &here,
        seen_at: catalog::schema_version(conn)?,
        aside: Aside::default(),
        notes: kept_notes(&plans, &pairs.gone),
        deferred: HashSet::new(),
    };
    execution.notes.extend(objects.retire()?);
    let tables = execution.tables(&wanted, &pairs, &plans)?;
    let Execution { aside, mut notes, deferred, .. } = execution;
    notes.extend(objects.make(&aside)?);
    notes.extend(aside.put_back(conn, &objects.wanted())?);
    said::store(conn, peer, catalog, rules, &deferred)?;
    Ok(Outcome { tables, gone: pairs.gone, notes })
}

/// Makes the indexes of a table that waited for the end of its copy; returns how many.
///
/// # Errors
/// SQLite's. An index that does not work here is left out, and said in the log.
pub fn create_deferred_indexes(conn: &Connection, peer: NodeId, table: &str) -> Result<usize, Error> {
    let mut waiting = conn.prepare_cached(
        "SELECT name, sql FROM main.__cdc_received
         WHERE peer = ?1 AND type = ?2 AND tbl_name = ?3 COLLATE NOCASE ORDER BY name",
    )?;
    let indexes = waiting
        .query_map((peer.0, said::DEFERRED, table), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    let mut made = 0;
    for (name, sql) in indexes {
        let here = "SELECT 1 FROM main.sqlite_schema WHERE type = 'index' AND name = ?1 COLLATE NOCASE";
        if !conn.prepare_cached(here)?.exists([&name])? {
            match conn.execute(&sql, []) {
                Ok(_) => made += 1,
                Err(error) if rebuild::is_misfit(&error) => {
                    tracing::warn!(table, index = name, error = %error, "leave out an index that does not work here");
                }
                Err(error) => return Err(error::about(&name)(error)),
            }
        }
        conn.prepare_cached(
            "UPDATE main.__cdc_received SET type = 'index' WHERE peer = ?1 AND type = ?2 AND name = ?3",
        )?
        .execute((peer.0, said::DEFERRED, &name))?;
    }
    Ok(made)
}

fn check_all(catalog: &Catalog, rules: &Rules<'_>) -> Result<Vec<Wanted>, Error> {
    let mut names = HashSet::new();
    let mut wanted = Vec::with_capacity(catalog.tables.len());
    for def in &catalog.tables {
        if !rules.selection.has(&def.name) {
            return Err(Error::NotSelected { table: def.name.clone() });
        }
        if !names.insert(def.name.to_ascii_lowercase()) {
            return Err(Error::Twice { table: def.name.clone() });
        }
        wanted.push(check(def)?);
    }
    Ok(wanted)
}

/// The tables here that matter: those that are wanted, and those that were received.
fn look(conn: &Connection, wanted: &[Wanted], held: &[Held]) -> Result<Here, Error> {
    let names = wanted.iter().map(|one| &one.def.name).chain(held.iter().map(|held| &held.name));
    let mut here = BTreeMap::new();
    for name in names {
        let lower = name.to_ascii_lowercase();
        if here.contains_key(&lower) || !store::table_exists(conn, name)? {
            continue;
        }
        let Some(schema) = catalog::table(conn, name)? else { continue };
        let sql = format!("SELECT 1 FROM main.{} LIMIT 1", ident(&schema.name));
        let empty = conn.prepare(&sql)?.query_row([], |_| Ok(())).optional()?.is_none();
        here.insert(lower, Local { schema, empty });
    }
    Ok(here)
}

fn kept_notes(plans: &[plan::TablePlan], gone: &[(TableId, String, bool)]) -> Vec<String> {
    let left = gone.iter().filter(|(_, _, dropped)| !dropped);
    let stays = |name: &str| format!("table \"{name}\" was dropped or renamed at the source and stays here");
    let tables = left.map(|(_, name, _)| stays(name));
    tables.chain(plans.iter().flat_map(|plan| plan.notes.clone())).collect()
}
