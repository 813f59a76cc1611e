//! Puts capture in place: our tables, the log, the triggers; in one transaction, and again without harm.

use rusqlite::{Connection, MAIN_DB, Transaction, TransactionBehavior};

use super::decide::Decision;
use super::drift::{self, execute, look};
use super::prune::{capture_limit, is_limit_off};
use super::situation::Situation;
use super::{CaptureOptions, Error, SkippedTable, change_log, epochs};
use crate::model::{Clock, Epoch, NodeId};
use crate::sqlite::catalog;
use crate::sqlite::store::{self, meta_key};

/// What [`install`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Who this node is.
    pub node: NodeId,
    /// The log's epoch.
    pub epoch: Epoch,
    /// Whether the epoch began just now: at the first installation, and where the log was full and changes went unlogged.
    pub new_epoch: bool,
    /// What was done, in words; empty where everything was in place.
    pub did: Vec<String>,
    /// The tables that are captured.
    pub captured: Vec<String>,
    /// The tables that are wanted and cannot be captured.
    pub skipped: Vec<SkippedTable>,
}

/// Puts capture in place, or makes right what is there. Writes nothing where everything is right.
///
/// # Errors
/// [`Error::NotWal`], [`Error::ReadOnly`], [`Error::ForeignLog`], [`Error::OtherLog`], [`Error::LogName`],
/// [`Error::OtherImages`], or SQLite's.
pub fn install(connection: &mut Connection, options: &CaptureOptions, clock: &dyn Clock) -> Result<Installed, Error> {
    check(connection, options)?;
    let mut did = Vec::new();
    if switch_to_wal(connection)? {
        did.push("switched the database to WAL mode".to_owned());
    }
    if is_in_place(connection, options)? {
        return in_place(connection, did);
    }
    loop {
        let (situation, decision) = look(connection, options)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if catalog::schema_version(&transaction)? != situation.version {
            continue;
        }
        let installed = put_in_place(&transaction, options, (&situation, decision), clock)?;
        transaction.commit()?;
        did.extend(installed.did);
        return Ok(Installed { did, ..installed });
    }
}

/// Refuses what can never work, before anything is touched.
pub(super) fn check(connection: &Connection, options: &CaptureOptions) -> Result<(), Error> {
    options.check()?;
    options.effective_images(connection)?;
    if connection.is_readonly(MAIN_DB)? {
        return Err(Error::ReadOnly { database: name_of(connection) });
    }
    store::check_format(connection)?;
    if let Some(table) = change_log::foreign(connection)? {
        return Err(Error::ForeignLog { table });
    }
    let found: Option<String> =
        if store::exists(connection)? { store::meta(connection, meta_key::LOG_TABLE)? } else { None };
    match found {
        Some(found) if !found.eq_ignore_ascii_case(&options.log_table) => {
            Err(Error::OtherLog { found, wanted: options.log_table.clone() })
        }
        None if store::table_exists(connection, &options.log_table)? => {
            Err(Error::LogName { name: options.log_table.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

/// The database's file, as messages have it.
pub(super) fn name_of(connection: &Connection) -> String {
    connection.path().filter(|path| !path.is_empty()).unwrap_or("the database").to_owned()
}

/// Makes the database one in WAL mode; whether it was not.
pub(super) fn switch_to_wal(connection: &Connection) -> Result<bool, Error> {
    let mode = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0));
    let found = mode("PRAGMA main.journal_mode")?;
    // A database in memory has nobody else who reads it.
    if found == "wal" || found == "memory" && connection.path().is_none_or(str::is_empty) {
        return Ok(false);
    }
    match mode("PRAGMA main.journal_mode = WAL") {
        Ok(now) if now == "wal" => Ok(true),
        Ok(_) | Err(_) => Err(Error::NotWal { database: name_of(connection), mode: found }),
    }
}

/// Whether nothing needs to be written.
fn is_in_place(connection: &Connection, options: &CaptureOptions) -> Result<bool, Error> {
    if !store::exists(connection)? || store::epoch(connection)?.is_none() {
        return Ok(false);
    }
    let retention: Option<String> = store::meta(connection, meta_key::RETENTION)?;
    Ok(!drift::is_stale(connection, options)?
        && retention == Some(options.retention.json()?)
        && !store::log_is_full(connection)?
        && !is_limit_off(connection, &options.log_table, &options.retention)?)
}

fn in_place(connection: &Connection, did: Vec<String>) -> Result<Installed, Error> {
    let known = drift::unchanged(connection)?;
    Ok(Installed {
        node: store::node_id(connection)?.ok_or(Error::NotInstalled)?,
        epoch: store::epoch(connection)?.ok_or(Error::NotInstalled)?,
        new_epoch: false,
        did,
        captured: known.captured,
        skipped: known.skipped,
    })
}

pub(super) fn put_in_place(
    transaction: &Transaction<'_>,
    options: &CaptureOptions,
    (situation, decision): (&Situation, Decision),
    clock: &dyn Clock,
) -> Result<Installed, Error> {
    let node = store::ensure_node(transaction)?;
    transaction.execute_batch(store::CAPTURE_TABLES)?;
    let mut did = Vec::new();
    if situation.log_width.is_none() {
        did.push(format!("created the change log {}", options.log_table));
    }
    store::set_meta(transaction, meta_key::LOG_TABLE, &options.log_table)?;
    store::set_meta(transaction, meta_key::IMAGES, situation.images.word())?;
    store::set_meta(transaction, meta_key::RETENTION, options.retention.json()?)?;
    if store::meta::<i64>(transaction, meta_key::HLC)?.is_none() {
        store::set_meta(transaction, meta_key::HLC, 0)?;
    }
    let known = store::epoch(transaction)?;
    if let (Some(_), Some(width)) = (known, situation.log_width)
        && store::log_is_full(transaction)?
    {
        epochs::end_of_full_log(transaction, options, width, clock)?;
        did.push("began a new epoch: the log was full, and changes since then were not logged".to_owned());
    }
    execute(transaction, options, &decision, clock)?;
    let epoch = match store::epoch(transaction)? {
        Some(epoch) => epoch,
        None => epochs::begin(transaction)?,
    };
    let limit = capture_limit(transaction, &options.log_table, &options.retention)?;
    store::set_meta(transaction, meta_key::CAPTURE_LIMIT, limit)?;
    let fresh = decision.generations.iter().map(|generation| generation.schema_name.as_str()).collect::<Vec<_>>();
    if !fresh.is_empty() {
        did.push(format!("put triggers on {} tables: {}", fresh.len(), fresh.join(", ")));
    }
    did.extend(decision.notes);
    let (captured, skipped) = (decision.captured, decision.skipped);
    Ok(Installed { node, epoch, new_epoch: known != Some(epoch), did, captured, skipped })
}
