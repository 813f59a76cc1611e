//! Keeps capture right while the application changes its schema.
//!
//! `PRAGMA schema_version` tells that something changed; [`reconcile`] finds out what, makes triggers anew where they
//! must be, and marks for a copy what may have been missed meanwhile. The decision is made, and long look-ups are done,
//! before the write lock is taken; under it only the version is compared again.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::decide::{Decision, Witness, decide};
use super::situation::{self, Situation};
use super::touch_sql::default_sql;
use super::trigger_sql::Op;
use super::{CaptureOptions, Error, SkippedTable, change_log, generation};
use crate::model::{Clock, Generated, TableId, TableSchema};
use crate::sqlite::store::{self, meta_key};
use crate::sqlite::{catalog, ident};

/// What [`reconcile`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Whether anything was written.
    pub changed: bool,
    /// The tables that are captured.
    pub captured: Vec<String>,
    /// The tables that are wanted and cannot be captured.
    pub skipped: Vec<SkippedTable>,
    /// The tables that are copied again, by their newest id.
    pub copied_again: Vec<(TableId, String)>,
    /// What was found and done, in words.
    pub notes: Vec<String>,
}

/// Compares what is captured with the schema, and makes it right. Cheap where the schema did not move.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's.
pub fn reconcile(
    connection: &mut Connection,
    options: &CaptureOptions,
    clock: &dyn Clock,
) -> Result<Reconciled, Error> {
    options.check()?;
    change_log::name(connection)?;
    store::check_format(connection)?;
    if !is_stale(connection, options)? {
        return unchanged(connection);
    }
    loop {
        let (situation, decision) = look(connection, options)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if catalog::schema_version(&transaction)? == situation.version {
            execute(&transaction, options, &decision, clock)?;
            transaction.commit()?;
            return Ok(Reconciled::of(decision));
        }
    }
}

impl Reconciled {
    pub(super) fn of(decision: Decision) -> Self {
        Self {
            changed: true,
            captured: decision.captured,
            skipped: decision.skipped,
            copied_again: decision.copied_again,
            notes: decision.notes,
        }
    }
}

/// Whether the schema or the selection moved since the triggers were last compared.
pub(super) fn is_stale(connection: &Connection, options: &CaptureOptions) -> Result<bool, Error> {
    let known: Option<i64> = store::meta(connection, meta_key::SCHEMA_VERSION)?;
    Ok(known != Some(catalog::schema_version(connection)?) || situation::is_reselected(connection, options)?)
}

/// What is captured, where nothing changed.
pub(super) fn unchanged(connection: &Connection) -> Result<Reconciled, Error> {
    let captured = generation::tables(connection)?.into_iter().map(|table| table.schema_name).collect();
    let skipped: Option<String> = store::meta(connection, meta_key::SKIPPED)?;
    let skipped: BTreeMap<String, String> =
        skipped.map(|json| serde_json::from_str(&json)).transpose()?.unwrap_or_default();
    let skipped = skipped.into_iter().map(|(name, reason)| SkippedTable { name, reason }).collect();
    Ok(Reconciled { captured, skipped, ..Reconciled::default() })
}

/// Looks, and decides: in one read transaction, and without one for what takes long.
pub(super) fn look(connection: &mut Connection, options: &CaptureOptions) -> Result<(Situation, Decision), Error> {
    let transaction = connection.transaction()?;
    let situation = Situation::read(&transaction, options)?;
    drop(transaction);
    let decision = decide(&situation, &Witness::default());
    if decision.appended.is_empty() {
        return Ok((situation, decision));
    }
    let mut witness = Witness::default();
    for (id, table, columns) in &decision.appended {
        // The table may have moved on meanwhile; then the version has too, and all of this is done again.
        let table = catalog::table(connection, table)?;
        if table.is_none_or(|table| is_filled(connection, &table, columns).unwrap_or(true)) {
            witness.filled.insert(*id);
        }
    }
    let decision = decide(&situation, &witness);
    Ok((situation, decision))
}

/// Whether a row holds something else than the default in an appended column.
fn is_filled(connection: &Connection, table: &TableSchema, columns: &[String]) -> rusqlite::Result<bool> {
    let written: Vec<String> = columns
        .iter()
        .filter_map(|name| table.column(name))
        .filter(|column| column.generated == Generated::No)
        .map(|column| {
            let default = column.default.as_deref().map_or_else(|| "NULL".to_owned(), default_sql);
            format!("{} IS NOT ({default}) COLLATE BINARY", ident(&column.name))
        })
        .collect();
    if written.is_empty() {
        return Ok(false);
    }
    let sql = format!("SELECT 1 FROM main.{} WHERE {} LIMIT 1", ident(&table.name), written.join(" OR "));
    connection.prepare(&sql)?.exists([])
}

/// Carries a decision out, inside the caller's transaction, and remembers the schema as it is then.
pub(super) fn execute(
    transaction: &Transaction<'_>,
    options: &CaptureOptions,
    decision: &Decision,
    clock: &dyn Clock,
) -> Result<(), Error> {
    for sql in &decision.statements {
        transaction.execute_batch(sql).map_err(crate::sqlite::Error::doing("put capture in place"))?;
    }
    for generation in &decision.generations {
        generation.insert(transaction)?;
    }
    for (id, notes) in &decision.reindexed {
        transaction
            .prepare_cached("UPDATE main.__cdc_tables SET indexes = ?2 WHERE id = ?1")?
            .execute((id.0, serde_json::to_string(notes)?))?;
    }
    for id in &decision.dropped {
        transaction.prepare_cached("UPDATE main.__cdc_tables SET dropped = 1 WHERE id = ?1")?.execute([id.0])?;
    }
    for entry in &decision.entries {
        change_log::append(transaction, &options.log_table, *entry, clock)?;
    }
    remember(transaction, options, &decision.skipped)
}

/// Notes the schema as it is now, ours included.
fn remember(transaction: &Transaction<'_>, options: &CaptureOptions, skipped: &[SkippedTable]) -> Result<(), Error> {
    let objects = serde_json::to_string(&situation::objects(transaction)?)?;
    let skipped: BTreeMap<&str, &str> =
        skipped.iter().map(|table| (table.name.as_str(), table.reason.as_str())).collect();
    store::set_meta(transaction, meta_key::SCHEMA_OBJECTS, objects)?;
    store::set_meta(transaction, meta_key::SELECTION, options.selection_json()?)?;
    store::set_meta(transaction, meta_key::SKIPPED, serde_json::to_string(&skipped)?)?;
    store::set_meta(transaction, meta_key::SCHEMA_VERSION, catalog::schema_version(transaction)?)?;
    Ok(())
}

/// Appends a marker for each of these tables, whose copy somebody asked for.
pub(super) fn mark(transaction: &Transaction<'_>, ids: &[TableId], clock: &dyn Clock) -> Result<(), Error> {
    let log = change_log::name(transaction)?;
    for id in ids {
        change_log::append(transaction, &log, (Op::Repair, id.0), clock)?;
    }
    Ok(())
}
