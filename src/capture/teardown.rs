//! Removes everything of ours from a database, or what another engine left there.

use rusqlite::{Connection, TransactionBehavior};

use super::{Error, change_log};
use crate::sqlite::catalog::OURS;
use crate::sqlite::lexer::{Token, tokens};
use crate::sqlite::{ident, store};

/// Removes triggers first and the log last, for a missing log fails every write of the application. What is left is what
/// was there before; the journal mode stays WAL. Returns what was removed, in order.
///
/// # Errors
/// [`crate::sqlite::Error::NewerFormat`], or SQLite's.
pub fn teardown(connection: &mut Connection) -> Result<Vec<String>, Error> {
    store::check_format(connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let log = match change_log::name(&transaction) {
        Ok(log) => Some(log),
        Err(Error::NotInstalled) => None,
        Err(error) => return Err(error),
    };
    let mut found = {
        let mut statement = transaction.prepare(
            "SELECT type, name FROM main.sqlite_schema WHERE type IN ('trigger', 'view', 'index', 'table')
             AND lower(substr(name, 1, length(?1))) = ?1 AND sql IS NOT NULL",
        )?;
        let rows = statement.query_map([OURS], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()?
    };
    let is_log = |name: &str| log.as_deref().is_some_and(|log| log.eq_ignore_ascii_case(name));
    found.sort_by_key(|(kind, name)| {
        let order = ["trigger", "view", "index", "table"].iter().position(|known| *known == kind.as_str());
        (is_log(name), order, name.clone())
    });
    let mut removed = Vec::new();
    for (kind, name) in found {
        transaction
            .execute_batch(&format!("DROP {kind} main.{}", ident(&name)))
            .map_err(crate::sqlite::Error::doing(format!("drop {kind} {name}")))?;
        removed.push(format!("{kind} {name}"));
    }
    transaction.commit()?;
    Ok(removed)
}

/// Removes the change log of sqlite-cdc and the triggers that write it, so that [`super::install`] can follow. What the log
/// still holds goes with it: after an installation every table is copied whole. Returns what was removed, in order.
///
/// # Errors
/// SQLite's.
pub fn take_over(connection: &mut Connection) -> Result<Vec<String>, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(log) = change_log::foreign(&transaction)? else { return Ok(Vec::new()) };
    let writes_log = |sql: &str| tokens(sql).iter().filter_map(Token::name).any(|name| name.eq_ignore_ascii_case(&log));
    let triggers = super::situation::objects(&transaction)?.into_iter().filter(|object| object.kind == "trigger");
    let mut removed = Vec::new();
    // Whatever they are called: without the log, any that writes it would fail every write of the application.
    for trigger in triggers.filter(|trigger| writes_log(&trigger.sql)) {
        transaction.execute_batch(&format!("DROP TRIGGER main.{}", ident(&trigger.name)))?;
        removed.push(format!("trigger {}", trigger.name));
    }
    let sql = format!("SELECT count(*) FROM main.{}", ident(&log));
    let entries: i64 = transaction.query_row(&sql, [], |row| row.get(0))?;
    transaction.execute_batch(&format!("DROP TABLE main.{}", ident(&log)))?;
    removed.push(format!("table {log} with {entries} entries"));
    transaction.commit()?;
    Ok(removed)
}
