//! Peers from which no link receives any more. Where both ends write, drift and foreign keys wait while a copy into this
//! database is unfinished, and nobody would ever finish theirs.
//!
//! Such a peer is forgotten as a sender: how far its log is applied, how far its tables are copied, and what was agreed on
//! for that copy. Where a link brings it back, all its tables are copied again. What stays, under its id:
//!
//! * until where this end is blind towards it, with its name: what was copied because capture missed it is not known there
//!   either when it is back, and so must be recorded where its rows overwrite it;
//! * that a first contact with it was lost: what it overwrites here is recorded until all its copies are whole;
//! * what it said of its schema, by which its tables are told from those of others, and which of them were dropped here.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Error;
use crate::model::NodeId;
use crate::sqlite::store::{self, meta_key};

/// Forgets every peer that is not named, and of which a copy is unfinished here, or due. Returns the names of those: of one
/// that never told its name, its id.
///
/// # Errors
/// SQLite's.
pub(super) fn forget_all_but(conn: &Connection, names: &[String]) -> Result<Vec<String>, Error> {
    // As a rule there are none, and nobody waits for the lock.
    if find(conn, names)?.is_empty() {
        return Ok(Vec::new());
    }
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let gone = find(&transaction, names)?;
    for (peer, _) in &gone {
        forget(&transaction, *peer)?;
    }
    transaction.commit()?;
    Ok(gone.into_iter().map(|(_, name)| name).collect())
}

/// What is copied to an event consumer or a CloudQuery destination is kept beside what is copied here.
fn find(conn: &Connection, names: &[String]) -> Result<Vec<(NodeId, String)>, Error> {
    let received = match store::table_exists(conn, "__cdc_consumers")? {
        true => "WHERE peer NOT IN (SELECT peer FROM main.__cdc_consumers WHERE kind <> 'link' AND peer IS NOT NULL)",
        false => "",
    };
    let sql = format!(
        "WITH unfinished(peer) AS (
           SELECT peer FROM main.__cdc_copies WHERE state IN ('pending', 'copying')
           UNION SELECT CAST(substr(key, length(?1) + 1) AS INTEGER) FROM main.__cdc_meta
                 WHERE substr(key, 1, length(?1)) = ?1)
         SELECT peer, coalesce(c.name, CAST(peer AS TEXT)) FROM unfinished LEFT JOIN main.__cdc_checkpoints AS c USING (peer)
         {received} ORDER BY 2"
    );
    let mut statement = conn.prepare(&sql)?;
    let peers = statement.query_map([meta_key::COPY_DUE], |row| Ok((NodeId(row.get(0)?), row.get(1)?)))?;
    let mut peers = peers.collect::<rusqlite::Result<Vec<(NodeId, String)>>>()?;
    peers.retain(|(_, name)| !names.contains(name));
    Ok(peers)
}

fn forget(transaction: &Transaction<'_>, peer: NodeId) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM main.__cdc_copies WHERE peer = ?1 AND state <> 'left'", [peer.0])?;
    for key in [meta_key::COPY_DUE, meta_key::SEED_WON, meta_key::UNION] {
        transaction.execute("DELETE FROM main.__cdc_meta WHERE key = ?1", [format!("{key}{}", peer.0)])?;
    }
    let checkpoint = "UPDATE main.__cdc_checkpoints
        SET epoch = NULL, seq = NULL, ts = NULL, fingerprint = NULL, between_transactions = 0 WHERE peer = ?1";
    transaction.execute(checkpoint, [peer.0]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite;

    /// Four peers, of which a link receives from the first, and three consumers.
    const KEPT: &str = "
        INSERT INTO __cdc_checkpoints(peer, name, epoch, seq, ts, fingerprint, seen, blind_until, copy_start) VALUES
          (1, 'linked', 5, 10, 1, 1, 3, 0, 0), (2, 'amid', 5, 20, 1, 1, 4, 99, 7), (3, 'whole', 5, 30, 1, 1, 5, 0, 0),
          (4, 'due', 5, 40, 1, 1, 6, 0, 0);
        INSERT INTO __cdc_copies(peer, id, name, state) VALUES
          (1, 1, 't', 'copying'), (1, 2, 'u', 'pending'), (2, 1, 't', 'done'), (2, 2, 'u', 'pending'), (2, 3, 'dropped', 'left'), (3, 1, 't', 'done'),
          (4, 1, 't', 'done'), (7, 1, 't', 'to give'), (8, 1, 't', 'copying');
        INSERT INTO __cdc_consumers(name, kind, peer) VALUES
          ('linked', 'link', 1), ('amid', 'link', 2), ('handler', 'events', 7), ('sink', 'cloudquery', 8), ('met', 'events', NULL);
        INSERT INTO __cdc_meta VALUES ('copy_due:4', 1), ('copy_due:1', 1), ('union:2', 1), ('union:1', 1),
          ('seed_lost:2', 0), ('seed_won:2', 1), ('seed_won:22', 1), ('missed', '[1]');";

    fn kept(conn: &Connection) -> Vec<String> {
        let sql = "SELECT 'checkpoint ' || name FROM __cdc_checkpoints WHERE seq NOT NULL
            UNION ALL SELECT 'blind ' || name || ' ' || blind_until || ' ' || copy_start FROM __cdc_checkpoints
                WHERE blind_until > 0
            UNION ALL SELECT 'copies ' || peer || ' ' || count(*) FROM __cdc_copies GROUP BY peer
            UNION ALL SELECT key FROM __cdc_meta WHERE key LIKE '%:%'
            UNION ALL SELECT 'consumer ' || name FROM __cdc_consumers ORDER BY 1";
        let mut statement = conn.prepare(sql).expect("prepare");
        let rows = statement.query_map([], |row| row.get(0)).expect("query");
        rows.collect::<rusqlite::Result<_>>().expect("rows")
    }

    #[test]
    fn a_peer_that_no_link_receives_from_is_forgotten_only_amid_its_copy_and_consumers_never() {
        let conn = sqlite::in_memory().expect("memory");
        store::ensure_node(&conn).expect("node");
        conn.execute_batch(store::CAPTURE_TABLES).expect("tables");
        conn.execute_batch(KEPT).expect("rows");
        let before = kept(&conn);
        let linked = ["linked".to_owned()];
        assert_eq!(forget_all_but(&conn, &linked).expect("forget"), ["amid", "due"]);
        let gone =
            ["checkpoint amid", "checkpoint due", "copies 2 3", "copies 4 1", "copy_due:4", "seed_won:2", "union:2"];
        let mut stays: Vec<String> = before.iter().filter(|what| !gone.contains(&what.as_str())).cloned().collect();
        assert_eq!(before.len(), stays.len() + gone.len());
        // That a table of its was dropped here.
        stays.push("copies 2 1".to_owned());
        stays.sort();
        assert_eq!(kept(&conn), stays);
        assert!(forget_all_but(&conn, &linked).expect("again").is_empty());
        assert_eq!(forget_all_but(&conn, &[]).expect("forget"), ["linked"]);
    }

    #[test]
    fn a_copy_of_a_peer_whose_name_is_not_known_is_forgotten_too() {
        let conn = sqlite::in_memory().expect("memory");
        store::ensure_node(&conn).expect("node");
        conn.execute_batch("INSERT INTO __cdc_copies(peer, id, name, state) VALUES (9, 1, 't', 'pending')")
            .expect("row");
        assert_eq!(forget_all_but(&conn, &["linked".to_owned()]).expect("forget"), ["9"]);
        assert!(!store::any_copy_unfinished(&conn).expect("look"));
    }
}
