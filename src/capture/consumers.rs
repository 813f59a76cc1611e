//! Who reads the log: rows of `__cdc_consumers`.
//!
//! Written when a consumer is first met, dropped, or pruned for; not at each acknowledgement, for every write of ours can
//! cost the application a retry.

use rusqlite::Connection;

use super::Error;
use crate::model::{Clock, Epoch, LogTail, NodeId, Position};
use crate::sqlite::store;

/// What a CloudQuery destination is called in `kind`.
pub const CLOUDQUERY: &str = "cloudquery";
/// What an event consumer is called there.
pub const EVENTS: &str = "events";

/// One reader of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name: a peer's node name, or an event consumer's.
    pub name: String,
    /// `link`, [`CLOUDQUERY`] or [`EVENTS`].
    pub kind: String,
    /// The peer's id, for a link; else the id under which is kept what the consumer was given, if anything was.
    pub peer: Option<NodeId>,
    /// Up to where it is known to have read; `None` until it is pruned for.
    pub position: Option<Position>,
    /// Whether what it has not read may be gone: it is copied anew when it returns.
    pub cut_off: bool,
}

impl Consumer {
    /// Changes of a log of that epoch that it has not read, as far as `tail` tells; `None` where its position is none of this
    /// log.
    pub fn changes_behind(&self, epoch: Epoch, tail: &LogTail) -> Option<u64> {
        let position = self.position.filter(|position| position.epoch == epoch && !self.cut_off)?;
        Some(tail.changes(position.seq, tail.head()))
    }
}

/// Everyone who reads the log, by name.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's.
pub fn list(connection: &Connection) -> Result<Vec<Consumer>, Error> {
    if !store::table_exists(connection, "__cdc_consumers")? {
        return Err(Error::NotInstalled);
    }
    let mut statement = connection
        .prepare_cached("SELECT name, kind, peer, epoch, seq, cut_off FROM main.__cdc_consumers ORDER BY name")?;
    let read = |row: &rusqlite::Row<'_>| {
        let (epoch, seq): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
        Ok(Consumer {
            name: row.get(0)?,
            kind: row.get(1)?,
            peer: row.get::<_, Option<i64>>(2)?.map(NodeId),
            position: epoch.zip(seq).map(|(epoch, seq)| Position { epoch: Epoch(epoch), seq }),
            cut_off: row.get(5)?,
        })
    };
    Ok(statement.query_map([], read)?.collect::<rusqlite::Result<_>>()?)
}

/// Notes a consumer that is met, with where it begins. One that was cut off is not so any more.
///
/// # Errors
/// SQLite's.
pub fn meet(connection: &Connection, consumer: &Consumer, clock: &dyn Clock) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO main.__cdc_consumers(name, kind, peer, epoch, seq, at, cut_off)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT(name) DO UPDATE SET kind = ?2, peer = ?3, epoch = ?4, seq = ?5, at = ?6, cut_off = ?7",
        )?
        .execute((
            &consumer.name,
            &consumer.kind,
            consumer.peer.map(|peer| peer.0),
            consumer.position.map(|position| position.epoch.0),
            consumer.position.map(|position| position.seq),
            clock.now_ms(),
            consumer.cut_off,
        ))?;
    Ok(())
}

/// Forgets a consumer; the log is no longer kept for it. Whether there was one.
///
/// # Errors
/// SQLite's.
pub fn forget(connection: &Connection, name: &str) -> Result<bool, Error> {
    // What a link's peer sent us is kept in the same table, under the peer's id.
    let given = "DELETE FROM main.__cdc_copies WHERE peer IN
                 (SELECT peer FROM main.__cdc_consumers WHERE name = ?1 AND kind IN (?2, ?3))";
    connection.prepare_cached(given)?.execute([name, CLOUDQUERY, EVENTS])?;
    Ok(connection.prepare_cached("DELETE FROM main.__cdc_consumers WHERE name = ?1")?.execute([name])? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;
    use crate::sqlite::in_memory;

    #[test]
    fn a_consumer_is_met_changed_and_forgotten() {
        let connection = in_memory().expect("memory");
        connection.execute_batch(store::NODE_TABLES).expect("tables");
        connection.execute_batch(store::CAPTURE_TABLES).expect("tables");
        let position = Some(Position { epoch: Epoch(7), seq: 3 });
        let mut consumer =
            Consumer { name: "b".into(), kind: "link".into(), peer: Some(NodeId(9)), position: None, cut_off: true };
        meet(&connection, &consumer, &ManualClock::at(1)).expect("meet");
        consumer = Consumer { position, cut_off: false, ..consumer };
        meet(&connection, &consumer, &ManualClock::at(2)).expect("meet");
        assert_eq!(list(&connection).expect("list"), [consumer]);
        assert!(forget(&connection, "b").expect("forget"));
        assert!(!forget(&connection, "b").expect("forget"));
    }
}
