//! The lives of a log. A new one begins where nobody can go on from the old one: it was full, so changes went unlogged, or
//! it is gone. What was held of the old one is cut off then, not diverged: everything is copied again.
//!
//! Where both ends write this is no first contact, whatever was written unlogged: it is what capture missed, copied to every
//! peer, and until a peer has it all, nobody can tell what it knew. So nothing is lost unrecorded, and nobody has to say
//! whose rows win; random histories of `replicate::two_way_tests` hold that.

use rusqlite::{Connection, OptionalExtension};

use super::change_log::LogWidth;
use super::checkpoint::{EpochBefore, epochs_before};
use super::prune::capture_limit;
use super::trigger_sql::Op;
use super::{CaptureOptions, Error, change_log};
use crate::model::{Clock, Epoch};
use crate::sqlite::ident;
use crate::sqlite::store::{self, meta_key};

/// Begins an epoch.
///
/// # Errors
/// SQLite's.
pub(super) fn begin(connection: &Connection) -> Result<Epoch, Error> {
    let epoch = Epoch(store::random_positive());
    store::set_meta(connection, meta_key::EPOCH, epoch.0)?;
    Ok(epoch)
}

/// Ends the epoch of a log that is full, and makes the log anew. Sequence numbers go on.
///
/// # Errors
/// SQLite's.
pub(super) fn end_of_full_log(
    connection: &Connection,
    options: &CaptureOptions,
    width: LogWidth,
    clock: &dyn Clock,
) -> Result<(), Error> {
    let log = &options.log_table;
    let (head, _) = change_log::bounds(connection, log)?;
    let (ts, fingerprint) = change_log::entry_mark(connection, log, head)?.unwrap_or((0, 0));
    connection.execute_batch(&format!("DROP TABLE main.{}", ident(log)))?;
    connection.execute_batch(&change_log::create_sql(log, width))?;
    follow(connection, options, (head, ts, fingerprint), head, clock)
}

/// Ends the epoch of a log that somebody dropped; one is there again, empty. How far the old one went nobody knows: the
/// limit of its triggers, and where its consumers were, are not beyond what follows.
///
/// # Errors
/// SQLite's.
pub(super) fn end_of_lost_log(
    connection: &Connection,
    options: &CaptureOptions,
    clock: &dyn Clock,
) -> Result<(), Error> {
    let consumed = "SELECT max(seq) FROM main.__cdc_consumers";
    let consumed: Option<i64> = connection.query_row(consumed, [], |row| row.get(0)).optional()?.flatten();
    let limit: Option<i64> = store::meta(connection, meta_key::CAPTURE_LIMIT)?;
    let last = consumed.unwrap_or(0).max(limit.unwrap_or(0)).max(0);
    let ts: i64 = store::meta(connection, meta_key::HLC)?.unwrap_or(0);
    follow(connection, options, (i64::MAX, ts, 0), last, clock)?;
    if limit.is_some_and(|limit| limit != store::APPLYING) {
        let limit = capture_limit(connection, &options.log_table, &options.retention)?;
        store::set_meta(connection, meta_key::CAPTURE_LIMIT, limit)?;
    }
    Ok(())
}

/// Notes the last entry of the epoch that ended, its `ts` and fingerprint, and begins another behind `head`.
fn follow(
    connection: &Connection,
    options: &CaptureOptions,
    (seq, ts, fingerprint): (i64, i64, i64),
    head: i64,
    clock: &dyn Clock,
) -> Result<(), Error> {
    let mut before = epochs_before(connection)?;
    let epoch = store::epoch(connection)?.map_or(0, |epoch| epoch.0);
    before.push(EpochBefore { epoch, seq, ts, fingerprint });
    store::set_meta(connection, meta_key::EPOCHS_BEFORE, serde_json::to_string(&before)?)?;
    begin(connection)?;
    connection.execute(
        &format!("INSERT INTO main.{}(seq, ts, tbl, op) VALUES (?1, max(?2, ?3), 0, ?4)", ident(&options.log_table)),
        (head + 1, ts, clock.now_ms(), Op::Schema.code()),
    )?;
    connection.execute("UPDATE main.__cdc_consumers SET cut_off = 1", [])?;
    if options.two_way {
        store::begin_blindness(connection, head + 1)?;
    }
    Ok(())
}
