//! Keeps capture right while the application changes its schema.
//!
//! `PRAGMA schema_version` tells that something changed; [`reconcile`] finds out what, makes triggers anew where they
//! must be, and marks for a copy what may have been missed meanwhile. The decision is made, and long look-ups are done,
//! before the write lock is taken; under it only the version is compared again.
//!
//! Who applies a peer's changes calls it for the same reason before its transaction. [`recapture`] is for inside: what the
//! transaction itself changed needs no long look-up, and what somebody changed in the instant between the two is rare
//! enough for one under the lock.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::decide::{Decision, Script, Witness, decide};
use super::situation::{self, Situation};
use super::touch_sql::default_sql;
use super::trigger_sql::Op;
use super::{CaptureOptions, Error, Images, SkippedTable, change_log, epochs, generation, missed};
use crate::model::{Clock, Generated, KeyShape, TableId, TableSchema};
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
        if options.two_way && missed::can_begin(connection)? {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            missed::begin(&transaction, options, &[], clock)?;
            transaction.commit()?;
        }
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

/// The same inside the transaction of whoever applies a peer's changes here. `ours`: whether the schema was changed by
/// that transaction alone, so that nothing can have slipped through.
///
/// # Errors
/// As [`reconcile`].
pub fn recapture(
    connection: &Connection,
    options: &CaptureOptions,
    clock: &dyn Clock,
    ours: bool,
) -> Result<Reconciled, Error> {
    if !ours && !is_stale(connection, options)? {
        if missed::can_begin(connection)? {
            missed::begin(connection, options, &[], clock)?;
        }
        return unchanged(connection);
    }
    let situation = Situation::read(connection, options)?;
    let mut witness = Witness { script: ours.then(Script::default), ..Witness::default() };
    let mut decision = decide(&situation, &witness);
    if !decision.appended.is_empty() && !ours {
        witness = appended(connection, options, &situation, &decision)?;
        decision = decide(&situation, &witness);
    }
    if ours {
        decision.entries.retain(|(op, _)| *op != Op::Copy);
        decision.copied_again.clear();
    }
    execute(connection, options, &decision, clock)?;
    Ok(Reconciled::of(decision))
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
    Ok(Reconciled { captured, skipped: skipped(connection)?, ..Reconciled::default() })
}

/// The tables that are wanted and could not be captured when that was last looked at.
///
/// # Errors
/// SQLite's, or what is stored makes no sense.
pub fn skipped(connection: &Connection) -> Result<Vec<SkippedTable>, Error> {
    let skipped: Option<String> = store::meta(connection, meta_key::SKIPPED)?;
    let skipped: BTreeMap<String, String> =
        skipped.map(|json| serde_json::from_str(&json)).transpose()?.unwrap_or_default();
    Ok(skipped.into_iter().map(|(name, reason)| SkippedTable { name, reason }).collect())
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
    let witness = appended(connection, options, &situation, &decision)?;
    let decision = decide(&situation, &witness);
    Ok((situation, decision))
}

/// What appended columns hold. Where both ends write, a copy makes this end blind, so there a row that the log names is
/// excused: what it holds was written under a trigger. But no image has it.
fn appended(
    connection: &Connection,
    options: &CaptureOptions,
    situation: &Situation,
    decision: &Decision,
) -> Result<Witness, Error> {
    let log = options.two_way.then_some(options.log_table.as_str());
    let filled = filled(connection, decision, log)?;
    let has_images = options.two_way && situation.images == Images::Full;
    let untold = if has_images { self::filled(connection, decision, None)? } else { BTreeSet::new() };
    Ok(Witness { filled, untold, ..Witness::default() })
}

/// Tables with appended columns that do not hold their default in every row, but for those that the log names, if given.
pub(super) fn filled(
    connection: &Connection,
    decision: &Decision,
    log: Option<&str>,
) -> Result<BTreeSet<TableId>, Error> {
    let mut all = BTreeSet::new();
    for (id, table, columns) in &decision.appended {
        // The table may have moved on meanwhile; then the version has too, and all of this is done again.
        let table = catalog::table(connection, table)?;
        if table.is_none_or(|table| is_filled(connection, (log, *id), &table, columns).unwrap_or(true)) {
            all.insert(*id);
        }
    }
    Ok(all)
}

/// Whether a row holds something else than the default in an appended column, and the log, if given, does not name it: nothing that
/// was written since the column came has been read yet, let alone pruned, so every row that a trigger saw is still there.
fn is_filled(
    connection: &Connection,
    (log, id): (Option<&str>, TableId),
    table: &TableSchema,
    columns: &[String],
) -> rusqlite::Result<bool> {
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
    let is_rowid = matches!(table.key, KeyShape::Rowid { .. });
    let spelled = |(name, _): (&str, _)| if is_rowid { name.to_owned() } else { ident(name) };
    let key: Vec<String> = table.key_columns().into_iter().map(spelled).collect();
    let logged: Vec<String> = (0..key.len()).map(|part| format!("k{part}")).collect();
    let rows = format!("SELECT {} FROM main.{} WHERE {}", key.join(", "), ident(&table.name), written.join(" OR "));
    let Some(log) = log else { return connection.prepare(&format!("{rows} LIMIT 1"))?.exists([]) };
    let named = format!("SELECT {} FROM main.{} WHERE tbl = ?1 AND op <> ?2", logged.join(", "), ident(log));
    connection.prepare(&format!("{rows} EXCEPT {named} LIMIT 1"))?.exists((id.0, Op::Image.code()))
}

/// Carries a decision out, inside the caller's transaction, and remembers the schema as it is then.
pub(super) fn execute(
    transaction: &Connection,
    options: &CaptureOptions,
    decision: &Decision,
    clock: &dyn Clock,
) -> Result<(), Error> {
    put_in_place(transaction, decision)?;
    if decision.makes_log && store::epoch(transaction)?.is_some() {
        tracing::warn!(
            log = options.log_table,
            "the change log was gone: a new one begins, and everything is copied again"
        );
        epochs::end_of_lost_log(transaction, options, clock)?;
    }
    if !decision.generations.is_empty() {
        generation::ensure_images(transaction)?;
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
    for entry in decision.entries.iter().filter(|(op, _)| *op != Op::Copy) {
        change_log::append(transaction, &options.log_table, *entry, clock)?;
    }
    for (id, name) in &decision.unsure_if_filled {
        if transaction.prepare(&format!("SELECT 1 FROM main.{}", ident(name)))?.exists([])? {
            change_log::append(transaction, &options.log_table, (Op::Unsure, id.0), clock)?;
        }
    }
    let copies = decision.entries.iter().filter(|(op, _)| *op == Op::Copy);
    let copies: Vec<i64> = copies.map(|(_, id)| *id).collect();
    missed::begin(transaction, options, &copies, clock)?;
    remember(transaction, options, &decision.skipped)
}

/// Makes what capture needs. That moves no row of a table, so where the applier left the schema as it was found, it did
/// with what is made here, too: else a node that only receives would compare its tables with the sender's.
fn put_in_place(transaction: &Connection, decision: &Decision) -> Result<(), Error> {
    let applied: Option<i64> = store::meta(transaction, meta_key::APPLIED_SCHEMA_VERSION)?;
    let as_applied = applied == Some(catalog::schema_version(transaction)?);
    for sql in &decision.statements {
        transaction.execute_batch(sql).map_err(crate::sqlite::Error::doing("put capture in place"))?;
    }
    if as_applied {
        store::set_meta(transaction, meta_key::APPLIED_SCHEMA_VERSION, catalog::schema_version(transaction)?)?;
    }
    Ok(())
}

/// Notes the schema as it is now, ours included.
fn remember(transaction: &Connection, options: &CaptureOptions, skipped: &[SkippedTable]) -> Result<(), Error> {
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
