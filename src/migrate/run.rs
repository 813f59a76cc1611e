//! From a catalog to a migrated schema: looks, plans, acts, and keeps what the peer said.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, OptionalExtension};

use super::aside::Aside;
use super::check::{Wanted, check};
use super::execute::Execution;
use super::objects::Objects;
use super::pair::{Here, Local};
use super::said::Said;
use super::{Catalog, Error, Held, Outcome, Rules, error, pair, plan, rebuild, said};
use crate::model::{NodeId, TableId};
use crate::sqlite::{catalog, ident, store};

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
    let mut wanted = check_all(catalog, rules)?;
    let said = Said::load(conn, peer)?;
    let here = look(conn, &wanted, held)?;
    let mut pairs = pair::pair(&wanted, held, &here, rules)?;
    let away = stay_away(&mut wanted, &mut pairs);
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
    notes.extend(away.iter().map(|(_, _, name)| {
        format!("table \"{name}\" was dropped here and not at the source: what the source changes in it is left out")
    }));
    notes.extend(objects.make(&aside)?);
    notes.extend(aside.put_back(conn, &objects.wanted())?);
    let of = |(one, plan): (&Wanted, &plan::TablePlan)| {
        plan.left.iter().map(|column| (one.def.name.clone(), column.clone())).collect::<Vec<_>>()
    };
    let left = wanted.iter().zip(&plans).flat_map(of).collect();
    said::store(conn, peer, catalog, rules, &said::Beside { deferred, left })?;
    Ok(Outcome { tables, gone: pairs.gone, away, notes })
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

/// Takes out what was dropped here: its ids there and as it was held, and its name.
fn stay_away(wanted: &mut Vec<Wanted>, pairs: &mut pair::Pairs) -> Vec<(TableId, TableId, String)> {
    let mut away = Vec::new();
    let all = std::mem::take(wanted).into_iter().zip(std::mem::take(&mut pairs.pairs));
    for (one, pair) in all {
        match pair.previous.filter(|_| pair.away) {
            Some(held) => away.push((one.def.id, held, one.def.name)),
            None => {
                wanted.push(one);
                pairs.pairs.push(pair);
            }
        }
    }
    away
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
