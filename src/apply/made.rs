//! Notices, where both ends write, that a table which was received is not the one that is here: dropped and made again, perhaps
//! while nothing came that would have found it gone. What the peer has of it, and had sent before, is not in the new one.
//!
//! Capture tells: the table's line of generations began after the last window from that peer.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::Error;
use crate::model::{NodeId, TableId};
use crate::sqlite::generations::Generations;
use crate::sqlite::store::{self, meta_key};

/// The names, in lower case, of the tables that were made here since [`note`]; none before its first time.
pub(super) fn since(conn: &Connection, peer: NodeId) -> Result<BTreeSet<String>, Error> {
    Ok(match store::meta::<i64>(conn, &key(peer))? {
        Some(seen) => Generations::read(conn)?.made_after(TableId(seen)),
        None => BTreeSet::new(),
    })
}

/// Notes which tables the peer's were joined to, those that were made for it too.
pub(super) fn note(conn: &Connection, peer: NodeId) -> Result<(), Error> {
    if !store::table_exists(conn, "__cdc_tables")? {
        return Ok(());
    }
    let newest: i64 =
        conn.prepare_cached("SELECT coalesce(max(id), 0) FROM main.__cdc_tables")?.query_row([], |row| row.get(0))?;
    if store::meta(conn, &key(peer))? != Some(newest) {
        store::set_meta(conn, &key(peer), newest)?;
    }
    Ok(())
}

fn key(peer: NodeId) -> String {
    format!("{}{}", meta_key::GENERATIONS_SEEN, peer.0)
}
