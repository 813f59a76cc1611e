//! Tables that capture may have missed changes of, where both ends write.
//!
//! They are copied to every peer, from a marker in the log on, and until a peer has them nobody can tell what it knew. But
//! not while a copy into this node is unfinished: what it brings would be taken for our own.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::trigger_sql::Op;
use super::{CaptureOptions, Error, change_log};
use crate::model::Clock;
use crate::sqlite::store::{self, meta_key};

/// Whether copies wait that can begin now.
///
/// # Errors
/// SQLite's.
pub(super) fn can_begin(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(store::meta::<String>(connection, meta_key::MISSED)?.is_some() && !store::any_copy_unfinished(connection)?)
}

/// Marks the copies of these tables, and of those that waited, as beginning; or lets all of them wait.
///
/// # Errors
/// SQLite's.
pub(super) fn begin(
    connection: &Connection,
    options: &CaptureOptions,
    tables: &[i64],
    clock: &dyn Clock,
) -> Result<(), Error> {
    let waiting: Option<String> = store::meta(connection, meta_key::MISSED)?;
    let waited: Vec<i64> = waiting.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default();
    let all: BTreeSet<i64> = waited.into_iter().chain(tables.iter().copied()).collect();
    if all.is_empty() {
        return Ok(());
    }
    if options.two_way && store::any_copy_unfinished(connection)? {
        return Ok(store::set_meta(connection, meta_key::MISSED, serde_json::to_string(&all)?)?);
    }
    for id in &all {
        change_log::append(connection, &options.log_table, (Op::Copy, *id), clock)?;
    }
    connection.prepare_cached("DELETE FROM main.__cdc_meta WHERE key = ?1")?.execute([meta_key::MISSED])?;
    if options.two_way {
        store::begin_blindness(connection, change_log::bounds(connection, &options.log_table)?.0)?;
    }
    Ok(())
}
