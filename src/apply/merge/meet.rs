//! What both ends of a two-way link agree on before windows flow, kept durably before the first of them is read.

use rusqlite::{Connection, OptionalExtension};

use super::super::Error;
use super::super::checkpoint::{Copies, Reached, store};
use crate::model::{Checkpoint, NodeId};
use crate::sqlite::store::{self as meta, meta_key};

/// Blind until a window says otherwise.
pub(in super::super) const FOREVER: i64 = i64::MAX;

/// How a first contact joins two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The loser becomes what the winner is.
    Replace,
    /// Rows that only one of them has stay, at both; where they differ, the winner's.
    Union,
}

/// What becomes of what the peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromPeer {
    /// It goes on from the checkpoint.
    GoesOn,
    /// Its history is lost for us: all of it is copied, from the head of its log at that moment on.
    CopiedAgain {
        /// That head.
        head: Checkpoint,
    },
    /// A first contact that we lose: all of it is copied, and what it overwrites here is recorded.
    SeedLost {
        /// The head of its log.
        head: Checkpoint,
        /// Whether what only we have stays.
        how: How,
    },
    /// A first contact that we win: its log up to here counts as seen, and nothing is copied, or only what we lack.
    SeedWon {
        /// The head of its log.
        head: Checkpoint,
        /// Whether what only the peer has comes.
        how: How,
    },
}

/// What becomes of what we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToPeer {
    /// It goes on.
    GoesOn,
    /// All of it is copied to the peer, and until the peer has it all, nobody can tell what it knew.
    CopiedAgain,
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The peer.
    pub peer: NodeId,
    /// Its name here.
    pub peer_name: String,
    /// What it sends.
    pub from_peer: FromPeer,
    /// What we send.
    pub to_peer: ToPeer,
    /// The end of our log.
    pub our_head: i64,
    /// Whether this end keeps its part before the peer does.
    pub is_first: bool,
}

/// What is kept of a peer besides its checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Standing {
    /// The peer's log up to here was written without having seen all of our rows.
    pub(in super::super) blind_until: i64,
    /// Our log when the copy began that made us blind.
    pub(in super::super) copy_start: i64,
}

/// What is kept of a peer.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn standing(conn: &Connection, peer: NodeId) -> rusqlite::Result<Standing> {
    let sql = "SELECT blind_until, copy_start FROM main.__cdc_checkpoints WHERE peer = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok(Standing { blind_until: row.get(0)?, copy_start: row.get(1)? });
    Ok(conn.prepare_cached(sql)?.query_row([peer.0], read).optional()?.unwrap_or_default())
}

/// Keeps until where the peer is not to be trusted.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn set_blind_until(conn: &Connection, peer: NodeId, seq: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE main.__cdc_checkpoints SET blind_until = ?2 WHERE peer = ?1";
    conn.prepare_cached(sql)?.execute((peer.0, seq)).map(drop)
}

fn due(peer: NodeId) -> String {
    format!("{}{}", meta_key::COPY_DUE, peer.0)
}

fn seed_lost_key(peer: NodeId) -> String {
    format!("{}{}", meta_key::SEED_LOST, peer.0)
}

/// Whether a copy of everything is agreed on whose catalog has not come. It has now.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn take_due(conn: &Connection, peer: NodeId) -> rusqlite::Result<bool> {
    take(conn, &due(peer))
}

/// Whether a first contact was won whose catalog has not come. It has now.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn take_won(conn: &Connection, peer: NodeId) -> rusqlite::Result<bool> {
    take(conn, &format!("{}{}", meta_key::SEED_WON, peer.0))
}

fn union(peer: NodeId) -> String {
    format!("{}{}", meta_key::UNION, peer.0)
}

/// Whether the copy of a peer's tables leaves what only this end has.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn is_union(conn: &Connection, peer: NodeId) -> rusqlite::Result<bool> {
    Ok(meta::meta::<i64>(conn, &union(peer))?.is_some())
}

fn set_union(conn: &Connection, peer: NodeId, how: How) -> rusqlite::Result<()> {
    match how {
        How::Union => meta::set_meta(conn, &union(peer), 1),
        How::Replace => take(conn, &union(peer)).map(drop),
    }
}

/// The operation of a log entry that says that a generation of a table began.
const SCHEMA: i64 = 5;

/// Whether the sender of a window that had applied our log up to `seen` knew our table of that name. It has asked for
/// what is in it then, or made its own from it; one copy makes both alike, and two could each undo what the other brings.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn knew_our_table(conn: &Connection, name: &str, seen: i64) -> Result<bool, Error> {
    if !meta::table_exists(conn, "__cdc_tables")? {
        return Ok(false);
    }
    let log = meta::log_table(conn)?;
    // An entry that is not there any more was pruned, so every peer has seen it.
    let sql = format!(
        "WITH RECURSIVE line(id, replaces) AS (
           SELECT * FROM (SELECT id, replaces FROM main.__cdc_tables
                          WHERE NOT dropped AND name = ?1 COLLATE NOCASE ORDER BY id DESC LIMIT 1)
           UNION SELECT t.id, t.replaces FROM main.__cdc_tables AS t JOIN line ON t.id = line.replaces)
         SELECT EXISTS (SELECT 1 FROM line WHERE NOT EXISTS
           (SELECT 1 FROM main.{log} AS log WHERE log.op = {SCHEMA} AND log.tbl = line.id AND log.seq > ?2))"
    );
    Ok(conn.prepare(&sql)?.query_row((name, seen), |row| row.get(0))?)
}

fn stored_seen(conn: &Connection, peer: NodeId) -> rusqlite::Result<i64> {
    let sql = "SELECT seen FROM main.__cdc_checkpoints WHERE peer = ?1";
    Ok(conn.prepare_cached(sql)?.query_row([peer.0], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Where a seed runs that we lose, up to where our log is what it gives up; 0 where the peer's windows say so.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn seed_lost(conn: &Connection, peer: NodeId) -> rusqlite::Result<Option<i64>> {
    meta::meta(conn, &seed_lost_key(peer))
}

/// Every copy of the peer's is whole: a seed is, too.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn end_seed(conn: &Connection, peer: NodeId) -> rusqlite::Result<()> {
    take(conn, &union(peer))?;
    take(conn, &seed_lost_key(peer)).map(drop)
}

fn take(conn: &Connection, key: &str) -> rusqlite::Result<bool> {
    Ok(conn.prepare_cached("DELETE FROM main.__cdc_meta WHERE key = ?1")?.execute([key])? > 0)
}

/// Keeps what was agreed on, inside the caller's transaction.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn keep(conn: &Connection, meeting: &Meeting) -> Result<(), Error> {
    let Meeting { peer, from_peer, to_peer, .. } = meeting;
    let how_due = if meeting.is_first { meta::UNSETTLED } else { 1 };
    let head = match from_peer {
        FromPeer::GoesOn => None,
        FromPeer::CopiedAgain { head } | FromPeer::SeedLost { head, .. } | FromPeer::SeedWon { head, .. } => Some(head),
    };
    if let Some(head) = head {
        let name = meeting.peer_name.as_str();
        // A first contact: all of our log up to here counts as seen, which a peer's windows say from now on.
        let seen = match from_peer {
            FromPeer::SeedLost { .. } | FromPeer::SeedWon { .. } => meeting.our_head,
            FromPeer::CopiedAgain { .. } | FromPeer::GoesOn => stored_seen(conn, *peer)?,
        };
        store(conn, &Reached { peer: *peer, name, checkpoint: head, seen, between_transactions: false })?;
    }
    match from_peer {
        FromPeer::GoesOn => {}
        FromPeer::CopiedAgain { .. } => {
            begin_copy(conn, *peer, how_due)?;
            set_union(conn, *peer, How::Replace)?;
        }
        FromPeer::SeedLost { how, .. } => {
            begin_copy(conn, *peer, how_due)?;
            set_union(conn, *peer, *how)?;
            meta::set_meta(conn, &seed_lost_key(*peer), 0)?;
            set_copy_start(conn, *peer, 0)?;
        }
        FromPeer::SeedWon { how: How::Union, .. } => {
            begin_copy(conn, *peer, how_due)?;
            set_union(conn, *peer, How::Union)?;
            take(conn, &seed_lost_key(*peer))?;
        }
        FromPeer::SeedWon { how: How::Replace, .. } => {
            take(conn, &due(*peer))?;
            set_union(conn, *peer, How::Replace)?;
            take(conn, &seed_lost_key(*peer))?;
            let mut copies = Copies::load(conn, *peer)?;
            copies.end_all();
            copies.store(conn, *peer)?;
            meta::set_meta(conn, &format!("{}{}", meta_key::SEED_WON, peer.0), 1)?;
        }
    }
    if *to_peer == ToPeer::CopiedAgain {
        set_blind_until(conn, *peer, FOREVER)?;
        set_copy_start(conn, *peer, 0)?;
    }
    Ok(())
}

/// Keeps how the first contact with a peer goes that only sends: whether its rows win over ours, and whether what only we
/// have stays. Inside the caller's transaction, before its first window. Such a peer never says what it has seen of our log:
/// where its rows win, all that is in it by now gives way.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn keep_one_way(conn: &Connection, peer: NodeId, wins: bool, how: How) -> Result<(), Error> {
    set_union(conn, peer, how)?;
    match wins {
        true => meta::set_meta(conn, &seed_lost_key(peer), meta::log_end(conn)?)?,
        false => take(conn, &seed_lost_key(peer)).map(drop)?,
    }
    Ok(())
}

fn begin_copy(conn: &Connection, peer: NodeId, how_due: i64) -> Result<(), Error> {
    take_won(conn, peer)?;
    meta::set_meta(conn, &due(peer), how_due)?;
    let mut copies = Copies::load(conn, peer)?;
    copies.begin_all_anew();
    copies.store(conn, peer)?;
    Ok(())
}

fn set_copy_start(conn: &Connection, peer: NodeId, seq: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE main.__cdc_checkpoints SET copy_start = ?2 WHERE peer = ?1";
    conn.prepare_cached(sql)?.execute((peer.0, seq)).map(drop)
}
