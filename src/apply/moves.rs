//! Notices that the schema here moved by other hands, also between sessions.
//!
//! VACUUM may number the rows of a table anew whose key is the rowid, and all that it leaves to see is another
//! `schema_version`. So the version that our own transactions leave is kept, and where another one is found, every peer's
//! tables with such keys are compared once.

use rusqlite::Connection;

use crate::model::NodeId;
use crate::sqlite::catalog;
use crate::sqlite::store::{self, meta_key};

/// Counts a move since our last transaction, if there was one. Where no version is kept yet, anything may have been.
pub(super) fn count(conn: &Connection) -> rusqlite::Result<()> {
    let left: Option<i64> = store::meta(conn, meta_key::APPLIED_SCHEMA_VERSION)?;
    if left != Some(catalog::schema_version(conn)?) {
        store::set_meta(conn, meta_key::SCHEMA_MOVES, counted(conn)? + 1)?;
    }
    Ok(())
}

/// Whether there was a move that this peer's tables were not compared after; they are to be now.
pub(super) fn take(conn: &Connection, peer: NodeId) -> rusqlite::Result<bool> {
    let key = format!("{}{}", meta_key::SCHEMA_MOVES_SEEN, peer.0);
    let (seen, counted) = (store::meta::<i64>(conn, &key)?, counted(conn)?);
    if seen == Some(counted) {
        return Ok(false);
    }
    store::set_meta(conn, &key, counted)?;
    Ok(true)
}

/// Keeps the version at the end of a transaction of ours.
pub(super) fn leave(conn: &Connection, version: i64) -> rusqlite::Result<()> {
    if store::meta(conn, meta_key::APPLIED_SCHEMA_VERSION)? != Some(version) {
        store::set_meta(conn, meta_key::APPLIED_SCHEMA_VERSION, version)?;
    }
    Ok(())
}

fn counted(conn: &Connection) -> rusqlite::Result<i64> {
    Ok(store::meta(conn, meta_key::SCHEMA_MOVES)?.unwrap_or(0))
}
