//! How far a consumer that keeps nothing itself has got: a CloudQuery destination and a handler of events take what they
//! are given, and what they were given is noted here, in the source's database.
//!
//! The position is the consumer's row in `__cdc_consumers`; its tables are in `__cdc_copies`, under an id that the
//! consumer was given when it was met. Both move in one transaction, and only to what the consumer has committed.
//! The states have words of their own there: what is copied to somebody else is no unfinished copy into this node.

use rusqlite::{Connection, TransactionBehavior};

use super::consumers::{self, Consumer, EVENTS};
use super::{Error, change_log};
use crate::model::{Checkpoint, Clock, CopyState, Key, NodeId, Position, TableId};
use crate::sqlite::{self, store};

/// The words for how much of a table was given.
const PENDING: &str = "to give";
const COPYING: &str = "giving";
const DONE: &str = "given";
/// What is noted of a table that is open.
const OPEN: &str = "open";

/// A table that a consumer was given, or part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenTable {
    /// Its generation then.
    pub id: TableId,
    /// Its name then.
    pub name: String,
    /// How much of it.
    pub state: CopyState,
    /// Whether the copy begins with the removal of what the consumer has of it.
    pub wipe: bool,
    /// Whether the consumer may have been given more of it than is noted: whoever gave it has not said that it ended.
    pub open: bool,
}

/// How far a consumer has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The id under which its tables are kept; [`NOTHING_GIVEN`] for an event consumer that was only met.
    pub id: NodeId,
    /// Up to where it has the log; `None` where that is no place in this log any more.
    pub checkpoint: Option<Checkpoint>,
    /// The tables that it was given.
    pub tables: Vec<GivenTable>,
}

/// The id of an event consumer that was given nothing yet, so that nothing it holds can be wrong. No node has it.
pub const NOTHING_GIVEN: NodeId = NodeId(0);

/// What is noted of a consumer; `None` where it was never met.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's.
pub fn read_progress(connection: &Connection, name: &str) -> Result<Option<Progress>, Error> {
    let known = consumers::list(connection)?.into_iter().find(|consumer| consumer.name == name);
    let Some(Consumer { peer, kind, position, cut_off, .. }) = known else { return Ok(None) };
    let Some(id) = peer.or((kind == EVENTS).then_some(NOTHING_GIVEN)) else { return Ok(None) };
    let checkpoint = match position.filter(|_| !cut_off) {
        Some(position) => checkpoint_at(connection, position)?,
        None => None,
    };
    Ok(Some(Progress { id, checkpoint, tables: tables(connection, id)? }))
}

/// The place in this log, if it is one.
fn checkpoint_at(connection: &Connection, position: Position) -> Result<Option<Checkpoint>, Error> {
    let log = change_log::name(connection)?;
    if store::epoch(connection)? != Some(position.epoch) {
        return Ok(None);
    }
    let (_, oldest) = change_log::bounds(connection, &log)?;
    if position.seq == 0 && oldest <= 1 {
        return Ok(Some(Checkpoint { position, ts_ms: 0, fingerprint: 0 }));
    }
    let mark = change_log::entry_mark(connection, &log, position.seq)?;
    Ok(mark.map(|(ts_ms, fingerprint)| Checkpoint { position, ts_ms, fingerprint }))
}

fn tables(connection: &Connection, id: NodeId) -> Result<Vec<GivenTable>, Error> {
    let sql =
        "SELECT id, name, state, after, lost_history, note IS ?2 FROM main.__cdc_copies WHERE peer = ?1 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((id.0, OPEN))?;
    let mut tables = Vec::new();
    while let Some(row) = rows.next()? {
        let (state, after): (String, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?);
        let damaged = || sqlite::Error::Damaged { table: "__cdc_copies", what: format!("its state is {state:?}") };
        let state = match (state.as_str(), after) {
            (PENDING, _) => CopyState::Pending,
            (DONE, _) => CopyState::Done,
            (COPYING, Some(after)) => CopyState::Copying { after: Key::from_bytes(&after).ok_or_else(damaged)? },
            _ => return Err(damaged().into()),
        };
        tables.push(GivenTable {
            id: TableId(row.get(0)?),
            name: row.get(1)?,
            state,
            wipe: row.get(4)?,
            open: row.get(5)?,
        });
    }
    Ok(tables)
}

/// Notes how far a consumer has got.
///
/// # Errors
/// SQLite's.
pub fn note_progress(
    connection: &mut Connection,
    (name, kind): (&str, &str),
    (id, position, tables): (NodeId, Position, &[GivenTable]),
    clock: &dyn Clock,
) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    write(&transaction, (name, kind), (id, position, tables), clock)?;
    transaction.commit()?;
    Ok(())
}

/// Has a consumer begin at the end of the log, and returns where that is. Nothing behind it is pruned from here on.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's.
pub fn begin_at_head(
    connection: &mut Connection,
    (name, kind): (&str, &str),
    (id, tables): (NodeId, &[GivenTable]),
    clock: &dyn Clock,
) -> Result<Checkpoint, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let checkpoint = super::log_state(&transaction)?.head;
    write(&transaction, (name, kind), (id, checkpoint.position, tables), clock)?;
    transaction.commit()?;
    Ok(checkpoint)
}

fn write(
    transaction: &Connection,
    (name, kind): (&str, &str),
    (id, position, tables): (NodeId, Position, &[GivenTable]),
    clock: &dyn Clock,
) -> Result<(), Error> {
    let consumer = Consumer {
        name: name.to_owned(),
        kind: kind.to_owned(),
        peer: (id != NOTHING_GIVEN).then_some(id),
        position: Some(position),
        cut_off: false,
    };
    consumers::meet(transaction, &consumer, clock)?;
    transaction.prepare_cached("DELETE FROM main.__cdc_copies WHERE peer = ?1")?.execute([id.0])?;
    let sql = "INSERT INTO main.__cdc_copies(peer, id, name, state, after, lost_history, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    for table in tables {
        let (word, after) = match &table.state {
            CopyState::Pending => (PENDING, None),
            CopyState::Copying { after } => (COPYING, Some(after.to_bytes())),
            CopyState::Done => (DONE, None),
        };
        let values = (id.0, table.id.0, &table.name, word, after, table.wipe, table.open.then_some(OPEN));
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    Ok(())
}

/// Moves the position alone, for a consumer whose tables are as they were noted. Whether there is such a consumer.
///
/// # Errors
/// SQLite's.
pub fn note_position(
    connection: &Connection,
    (name, kind): (&str, &str),
    position: Position,
    clock: &dyn Clock,
) -> Result<bool, Error> {
    let sql =
        "UPDATE main.__cdc_consumers SET epoch = ?3, seq = ?4, at = ?5, cut_off = 0 WHERE name = ?1 AND kind = ?2";
    let values = (name, kind, position.epoch.0, position.seq, clock.now_ms());
    Ok(connection.prepare_cached(sql)?.execute(values)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::consumers::CLOUDQUERY;
    use crate::capture::test_support::Fixture;
    use crate::model::{ManualClock, Value};

    #[test]
    fn progress_comes_back_as_it_was_noted_and_is_nothing_in_another_epoch() {
        let mut connection = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY)").ours;
        let clock = ManualClock::at(5);
        assert_eq!(read_progress(&connection, "lake").expect("read"), None);
        let epoch = store::epoch(&connection).expect("read").expect("installed");
        let state =
            |id, state, wipe| GivenTable { id: TableId(id), name: format!("t{id}"), state, wipe, open: id == 2 };
        let after = Key(vec![Value::Null, Value::text("x")]);
        let given = [
            state(1, CopyState::Done, false),
            state(2, CopyState::Pending, true),
            state(3, CopyState::Copying { after }, false),
        ];
        let at = |seq| Position { epoch, seq };
        note_progress(&mut connection, ("lake", CLOUDQUERY), (NodeId(9), at(0), &given), &clock).expect("note");
        note_progress(&mut connection, ("lake", CLOUDQUERY), (NodeId(9), at(0), &given), &clock).expect("note again");
        let read = read_progress(&connection, "lake").expect("read").expect("noted");
        assert_eq!((read.id, read.tables.as_slice()), (NodeId(9), &given[..]));
        assert_eq!(read.checkpoint.map(|checkpoint| checkpoint.position), Some(at(0)));
        note_progress(&mut connection, ("lake", CLOUDQUERY), (NodeId(9), at(77), &given), &clock).expect("note");
        let read = read_progress(&connection, "lake").expect("read").expect("noted");
        assert_eq!(read.checkpoint, None, "the log has no such entry");
        let elsewhere = Position { epoch: crate::model::Epoch(1), seq: 0 };
        note_progress(&mut connection, ("lake", CLOUDQUERY), (NodeId(9), elsewhere, &[]), &clock).expect("note");
        let read = read_progress(&connection, "lake").expect("read").expect("noted");
        assert_eq!((read.checkpoint, read.tables.len()), (None, 0));
        assert!(note_position(&connection, ("lake", CLOUDQUERY), at(0), &clock).expect("note"));
        assert!(!note_position(&connection, ("lake", consumers::EVENTS), at(0), &clock).expect("note"), "another kind");
        let read = read_progress(&connection, "lake").expect("read").expect("noted");
        assert_eq!(read.checkpoint.map(|checkpoint| checkpoint.position), Some(at(0)));
    }

    /// A consumer that is given tables kept what capture had missed from being copied to the peers of a two-way node, for
    /// as long as it had not got all of them.
    #[test]
    fn what_is_given_to_a_consumer_is_no_copy_into_this_node_and_goes_with_it() {
        let mut connection = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY)").ours;
        let given =
            [GivenTable { id: TableId(1), name: "t".into(), state: CopyState::Pending, wipe: false, open: false }];
        let position = Position { epoch: store::epoch(&connection).expect("read").expect("installed"), seq: 0 };
        let clock = ManualClock::at(5);
        note_progress(&mut connection, ("e", consumers::EVENTS), (NodeId(9), position, &given), &clock).expect("note");
        assert!(!store::any_copy_unfinished(&connection).expect("read"));
        assert!(consumers::forget(&connection, "e").expect("forget"));
        let left: i64 = connection.query_row("SELECT count(*) FROM __cdc_copies", [], |row| row.get(0)).expect("count");
        assert_eq!(left, 0);
    }
}
