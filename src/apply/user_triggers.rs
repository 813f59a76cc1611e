//! Triggers of the user's that fire on what is merged (`user_triggers: on`) may not write what is captured: what they write
//! while a window is applied is not logged, and the other end would write it once by its trigger and once by the link.
//!
//! A node refuses to start with such a trigger; one that is made later halts the link, before anything more is applied.

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{Error, LinkRules};
use crate::sqlite::catalog;
use crate::sqlite::store;
use crate::sqlite::trigger_writes::{TriggerWrite, forbidden};

fn matters(rules: &LinkRules) -> bool {
    rules.user_triggers && rules.merge.is_some()
}

/// Looks at the triggers, where the schema is not the one that they were last looked at in. Before the transaction.
///
/// # Errors
/// [`Error::TriggerWrites`], or SQLite's.
pub(super) fn look(conn: &mut Connection, looked_at: &mut i64, rules: &LinkRules) -> Result<(), Error> {
    if !matters(rules) {
        return Ok(());
    }
    let version = catalog::schema_version(conn)?;
    if version == *looked_at {
        return Ok(());
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
    let captured = captured(conn)?;
    let found = forbidden(conn, &rules.selection, &|table| captured.contains(&table.to_lowercase()));
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    if let Some(TriggerWrite { trigger, writes }) = found? {
        return Err(Error::TriggerWrites { trigger, writes });
    }
    *looked_at = version;
    Ok(())
}

/// Whether the schema is still that one, inside the transaction.
///
/// # Errors
/// [`Error::SchemaMoved`], or SQLite's.
pub(super) fn check(conn: &Connection, looked_at: i64, rules: &LinkRules) -> Result<(), Error> {
    if matters(rules) && catalog::schema_version(conn)? != looked_at {
        return Err(Error::SchemaMoved);
    }
    Ok(())
}

/// The captured tables, in lower case.
fn captured(conn: &Connection) -> Result<BTreeSet<String>, Error> {
    if !store::table_exists(conn, "__cdc_tables")? {
        return Ok(BTreeSet::new());
    }
    let mut statement = conn.prepare("SELECT lower(name) FROM main.__cdc_tables WHERE NOT dropped")?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}
