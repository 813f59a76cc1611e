//! Judges a position that somebody claims to hold of this log: does the log go on from there, is what follows gone, or
//! is it another log.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::Error;
use super::change_log::{self, LogState};
use crate::model::{Checkpoint, Epoch, NodeId, Position};
use crate::sqlite::store::{self, meta_key};

/// What becomes of a peer that comes back with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointVerdict {
    /// The log goes on from there.
    Known,
    /// It is from this log, and what follows it is gone: only a copy helps.
    CutOff,
    /// This log did not produce it: the database was restored from a backup, lost its last commits, or is another one.
    Diverged {
        /// How that shows, for a person.
        why: String,
    },
}

/// The last entry of an epoch that ended because the log was full; the largest number, without a fingerprint, where the log
/// was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EpochBefore {
    pub epoch: i64,
    pub seq: i64,
    pub ts: i64,
    pub fingerprint: i64,
}

/// Epochs that ended because the log was full, oldest first.
pub(super) fn epochs_before(connection: &Connection) -> Result<Vec<EpochBefore>, Error> {
    let json: Option<String> = store::meta(connection, meta_key::EPOCHS_BEFORE)?;
    Ok(json.map(|json| serde_json::from_str(&json)).transpose()?.unwrap_or_default())
}

/// The log's state.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's.
pub fn log_state(connection: &Connection) -> Result<LogState, Error> {
    let log = change_log::name(connection)?;
    let node = store::meta(connection, meta_key::NODE_ID)?.map(NodeId).ok_or(Error::NotInstalled)?;
    let epoch = store::epoch(connection)?.ok_or(Error::NotInstalled)?;
    let (head, oldest) = change_log::bounds(connection, &log)?;
    let (ts_ms, fingerprint) = change_log::entry_mark(connection, &log, head)?.unwrap_or((0, 0));
    let rows = if oldest == 0 { 0 } else { (head - oldest + 1).unsigned_abs() };
    let bytes = size(rows, change_log::entry_bytes(connection, &log)?);
    let head = Checkpoint { position: Position { epoch, seq: head }, ts_ms, fingerprint };
    Ok(LogState { node, epoch, head, oldest, rows, bytes })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, and not negative")]
fn size(rows: u64, entry_bytes: f64) -> u64 {
    (rows as f64 * entry_bytes) as u64
}

/// Judges a checkpoint.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's.
pub fn judge_checkpoint(connection: &Connection, checkpoint: &Checkpoint) -> Result<CheckpointVerdict, Error> {
    let log = change_log::name(connection)?;
    let epoch = store::epoch(connection)?.ok_or(Error::NotInstalled)?;
    let Position { epoch: theirs, seq } = checkpoint.position;
    if theirs != epoch {
        let before = epochs_before(connection)?;
        return Ok(before.iter().find(|before| before.epoch == theirs.0).map_or_else(
            || diverged(format!("it is of epoch {theirs}, and this log is of epoch {epoch}")),
            |before| in_epoch_before(before, checkpoint),
        ));
    }
    let (head, oldest) = change_log::bounds(connection, &log)?;
    if seq > head {
        return Ok(diverged(format!("it is at {seq}, and the log ends at {head}: its last commits were lost")));
    }
    if seq == 0 && oldest <= 1 {
        return Ok(CheckpointVerdict::Known);
    }
    if seq < oldest {
        return Ok(CheckpointVerdict::CutOff);
    }
    Ok(match change_log::entry_mark(connection, &log, seq)? {
        Some(mark) if mark == (checkpoint.ts_ms, checkpoint.fingerprint) => CheckpointVerdict::Known,
        Some(_) => diverged(format!("entry {seq} is another one here: the log was restored and written anew")),
        None => diverged(format!("entry {seq} is missing in the middle of the log")),
    })
}

fn diverged(why: String) -> CheckpointVerdict {
    CheckpointVerdict::Diverged { why }
}

fn in_epoch_before(before: &EpochBefore, checkpoint: &Checkpoint) -> CheckpointVerdict {
    let seq = checkpoint.position.seq;
    let epoch = Epoch(before.epoch);
    if seq > before.seq {
        return diverged(format!("it is at {seq}, and epoch {epoch} ended at {}", before.seq));
    }
    if seq == before.seq && (checkpoint.ts_ms, checkpoint.fingerprint) != (before.ts, before.fingerprint) {
        return diverged(format!("entry {seq} of epoch {epoch} was another one here"));
    }
    CheckpointVerdict::CutOff
}
