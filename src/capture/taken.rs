//! What was taken over from sqlite-cdc and waits for an event consumer: entries that were set aside, and our log from there
//! on.
//!
//! One consumer gets all of it. Until somebody is that one, the log is kept under the name [`FIRST_CONSUMER`]; whoever comes
//! first takes that place, and stays the one, also across crashes, until it is dropped. Two that each took a part of the
//! entries would both have gaps.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::consumers::{self, Consumer, EVENTS};
use super::{Error, checkpoint};
use crate::model::Clock;
use crate::sqlite::ident;
use crate::sqlite::store::{self, meta_key};

/// Where entries of sqlite-cdc wait for an event consumer.
pub const TAKEN_OVER: &str = "__cdc_taken_over";

/// Under which name our log is kept for the first event consumer to come.
pub const FIRST_CONSUMER: &str = "sqlite-cdc";

/// An entry of sqlite-cdc's log, as that one wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenEntry {
    /// Its number there.
    pub id: i64,
    /// Its time, in ms since 1970; 0 where that is none.
    pub ts_ms: i64,
    /// The table's name.
    pub table: String,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub operation: String,
    /// The row before, as JSON.
    pub before: Option<String>,
    /// The row after, as JSON.
    pub after: Option<String>,
}

/// Sets aside what their log holds; how many entries.
pub(super) fn set_aside(transaction: &Transaction<'_>, log: &str) -> rusqlite::Result<u64> {
    let log = ident(log);
    if !transaction.prepare(&format!("SELECT 1 FROM main.{log}"))?.exists([])? {
        return Ok(0);
    }
    // A second one may be taken over before the first was handed over.
    transaction.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS main.{TAKEN_OVER}(
           id INTEGER PRIMARY KEY, timestamp, tablename, operation, before, after)"
    ))?;
    let copied = transaction.execute(
        &format!(
            "INSERT INTO main.{TAKEN_OVER}(timestamp, tablename, operation, before, after)
               SELECT timestamp, tablename, operation, before, after FROM main.{log} ORDER BY id"
        ),
        [],
    )?;
    Ok(copied as u64)
}

/// Keeps our log from its end on for the first event consumer to come.
pub(super) fn keep_log(transaction: &Transaction<'_>, clock: &dyn Clock) -> Result<(), Error> {
    let place = Consumer {
        name: FIRST_CONSUMER.to_owned(),
        kind: EVENTS.to_owned(),
        peer: None,
        position: Some(checkpoint::log_state(transaction)?.head.position),
        cut_off: false,
    };
    consumers::meet(transaction, &place, clock)?;
    Ok(store::set_meta(transaction, meta_key::TAKEN_BY, FIRST_CONSUMER)?)
}

/// Whether what was taken over is that consumer's. It comes to be where it is nobody's yet; one that is new begins where
/// our log did then.
///
/// # Errors
/// SQLite's.
pub fn claim_taken(connection: &mut Connection, consumer: &str) -> Result<bool, Error> {
    let holder = |connection: &Connection| store::meta::<String>(connection, meta_key::TAKEN_BY);
    match holder(connection)? {
        None => return Ok(false),
        Some(name) if name == consumer => return Ok(true),
        Some(_) => {}
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known = consumers::list(&transaction)?;
    let is_known = |name: &str| known.iter().any(|one| one.name == name);
    let held = holder(&transaction)?.is_some_and(|name| name != FIRST_CONSUMER && is_known(&name));
    if held {
        return Ok(false);
    }
    if is_known(consumer) {
        consumers::forget(&transaction, FIRST_CONSUMER)?;
    } else {
        let sql = "UPDATE main.__cdc_consumers SET name = ?2 WHERE name = ?1";
        transaction.execute(sql, [FIRST_CONSUMER, consumer])?;
    }
    store::set_meta(&transaction, meta_key::TAKEN_BY, consumer)?;
    transaction.commit()?;
    Ok(true)
}

/// The next entries that were set aside, and the number of the last of all; none where there are none.
///
/// # Errors
/// SQLite's.
pub fn read_taken(connection: &Connection, entries_max: usize) -> Result<(Vec<TakenEntry>, i64), Error> {
    if !store::table_exists(connection, TAKEN_OVER)? {
        return Ok((Vec::new(), 0));
    }
    let last: i64 =
        connection.query_row(&format!("SELECT coalesce(max(id), 0) FROM main.{TAKEN_OVER}"), [], |row| row.get(0))?;
    // Of what kind its values are was up to whoever wrote it; SQLite reads each time that it can write.
    let sql = format!(
        "SELECT id, coalesce(CAST(round((julianday(timestamp) - 2440587.5) * 86400000.0) AS INTEGER), 0),
           CAST(tablename AS TEXT), CAST(operation AS TEXT), CAST(before AS TEXT), CAST(after AS TEXT)
         FROM main.{TAKEN_OVER} ORDER BY id LIMIT ?1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(TakenEntry {
            id: row.get(0)?,
            ts_ms: row.get(1)?,
            table: row.get(2)?,
            operation: row.get(3)?,
            before: row.get(4)?,
            after: row.get(5)?,
        })
    };
    let entries = statement.query_map([i64::try_from(entries_max).unwrap_or(i64::MAX)], read)?;
    Ok((entries.collect::<rusqlite::Result<_>>()?, last))
}

/// Forgets what was set aside up to that entry; how many entries. The table stays, empty: dropping it would change the
/// schema, and every such change has to be accounted for.
///
/// # Errors
/// SQLite's.
pub fn forget_taken(connection: &Connection, up_to: i64) -> Result<u64, Error> {
    if !store::table_exists(connection, TAKEN_OVER)? {
        return Ok(0);
    }
    let sql = format!("DELETE FROM main.{TAKEN_OVER} WHERE id <= ?1");
    Ok(connection.prepare_cached(&sql)?.execute([up_to])? as u64)
}
