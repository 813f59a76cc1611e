//! Removes everything of ours from a database, or what another engine left there.

use rusqlite::{Connection, TransactionBehavior};

use super::{Error, change_log};
use crate::sqlite::catalog::OURS;
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
    // Another engine's log begins like ours, and its triggers need it.
    if let Some(foreign) = change_log::foreign(&transaction)? {
        found.retain(|(_, name)| *name != foreign);
    }
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
