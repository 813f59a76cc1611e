//! Keeps the log small: removes what every consumer has acknowledged, cuts off consumers that are away for too long, and
//! tells the triggers where to stop by themselves.
//!
//! ```text
//!   pruned        oldest      a consumer's position      head         limit
//!      │             │                 │                  │             │
//! ─────┴─────────────┴─────────────────┴──────────────────┴─────────────┴──▶ seq
//!                    └ kept: at and above every consumer ─┘└ triggers log ┘
//! ```
//!
//! The entry at a consumer's position stays, for by it a restored backup is recognised, and so does the newest entry, for
//! sequence numbers are never reused. Removal goes in chunks that hold the write lock for some milliseconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{Error, LogState, Retention, change_log, consumers};
use crate::model::{Clock, Epoch};
use crate::sqlite::ident;
use crate::sqlite::store::{self, meta_key};

/// How long a chunk may hold the write lock; the next chunk is sized by how long this one took.
const HOLD_AIM: Duration = Duration::from_millis(5);
/// Entries of the first chunk, and the bounds of any: small enough for a slow disk, large enough to get on, and more than
/// the 64 entries of the largest change, both images of a row of 2,000 columns.
const CHUNK_FIRST: i64 = 1_000;
const CHUNK_MIN: i64 = 100;
const CHUNK_MAX: i64 = 50_000;
/// Chunks in one call, so that its caller sees a shutdown in time.
const CHUNKS_MAX: usize = 16;

/// What to prune for.
#[derive(Clone, Debug, Default)]
pub struct PruneRequest {
    /// How far each consumer has durably got: its name, the sequence number.
    pub acknowledged: Vec<(String, i64)>,
    /// What bounds the log for those who are away.
    pub retention: Retention,
    /// Whether entries stay for as long as the retention allows, whoever has got them.
    pub keep_all: bool,
}

/// What was pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries removed.
    pub removed: u64,
    /// Whether there is more to remove: call again.
    pub more: bool,
    /// The oldest entry that is left.
    pub oldest: i64,
    /// Consumers that were cut off just now.
    pub cut_off: Vec<String>,
    /// The triggers have stopped, changes are not logged: install again, which begins a new epoch. Nothing was removed.
    pub limit_reached: bool,
    /// The longest time that the write lock was held.
    pub longest_hold: Duration,
}

/// Prunes. Writes nothing where nothing is to be removed.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's; what was removed until then stays removed.
pub fn prune(connection: &mut Connection, request: &PruneRequest, clock: &dyn Clock) -> Result<Pruned, Error> {
    let log = change_log::name(connection)?;
    let (_, mut oldest) = change_log::bounds(connection, &log)?;
    if store::log_is_full(connection)? {
        return Ok(Pruned { limit_reached: true, oldest, ..Pruned::default() });
    }
    let plan = plan(connection, &log, request, clock)?;
    let mut pruned = Pruned { oldest, ..Pruned::default() };
    let stale_limit = is_limit_off(connection, &log, &request.retention)?;
    if plan.keep_from <= oldest && plan.cut_off.is_empty() && !stale_limit {
        return Ok(pruned);
    }
    let mut chunk = CHUNK_FIRST;
    for round in 0..CHUNKS_MAX {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let begun = Instant::now();
        if round == 0 {
            note_consumers(&transaction, &plan, clock)?;
        }
        let below = plan.keep_from.min(oldest.saturating_add(chunk));
        // A change is kept whole, or not at all.
        let below = change_log::change_start(&transaction, &log, below)?;
        let delete = format!("DELETE FROM main.{} WHERE seq < ?1", ident(&log));
        pruned.removed += transaction.prepare_cached(&delete)?.execute([below])? as u64;
        oldest = oldest.max(below);
        let limit = capture_limit(&transaction, &log, &request.retention)?;
        store::set_meta(&transaction, meta_key::CAPTURE_LIMIT, limit)?;
        transaction.commit()?;
        let held = begun.elapsed();
        pruned.longest_hold = pruned.longest_hold.max(held);
        if oldest >= plan.keep_from {
            break;
        }
        chunk = match held {
            held if held > HOLD_AIM => chunk / 2,
            held if held * 2 < HOLD_AIM => chunk * 2,
            _ => chunk,
        }
        .clamp(CHUNK_MIN, CHUNK_MAX);
    }
    pruned.more = oldest < plan.keep_from;
    pruned.oldest = oldest;
    pruned.cut_off = plan.cut_off;
    Ok(pruned)
}

/// Whether a log is so large that it is pruned also while the application is busy: half full, for past its bound the
/// triggers stop, and nobody but us would notice.
pub fn is_large(log: &LogState, retention: &Retention) -> bool {
    let entries = u64::try_from(log.head.position.seq - log.oldest).unwrap_or(0);
    entries > retention.rows / 2 || log.bytes > retention.size_bytes / 2
}

/// What a call is to do.
struct PrunePlan {
    epoch: Epoch,
    /// The first entry that stays.
    keep_from: i64,
    /// Consumers whose position is to be noted, with it.
    positions: BTreeMap<String, i64>,
    /// Consumers to cut off.
    cut_off: Vec<String>,
}

fn plan(connection: &Connection, log: &str, request: &PruneRequest, clock: &dyn Clock) -> Result<PrunePlan, Error> {
    let epoch = store::epoch(connection)?.ok_or(Error::NotInstalled)?;
    let (head, oldest) = change_log::bounds(connection, log)?;
    let (mut known, mut cut): (BTreeMap<String, i64>, BTreeMap<String, i64>) = (BTreeMap::new(), BTreeMap::new());
    for consumer in consumers::list(connection)? {
        // A consumer of another epoch needs a copy; one without a position needs everything.
        let seq = consumer.position.map_or(Some(0), |position| (position.epoch == epoch).then_some(position.seq));
        let into = if consumer.cut_off { &mut cut } else { &mut known };
        into.extend(seq.map(|seq| (consumer.name, seq)));
    }
    let mut positions = BTreeMap::new();
    // What is remembered of one that went away does not bring it back: only that it reads on does.
    let is_news = |name: &String, seq: i64| cut.get(name).is_none_or(|known| seq > *known);
    for (name, seq) in request.acknowledged.iter().filter(|(name, seq)| *seq >= oldest - 1 && is_news(name, *seq)) {
        let seq = known.get(name).map_or(*seq, |known| *seq.max(known)).min(head);
        positions.insert(name.clone(), seq);
        known.insert(name.clone(), seq);
    }
    // A consumer's position is the last entry that it has read.
    let bound = retention_bound(connection, log, &request.retention, clock)? - 1;
    let cut_off: Vec<String> = known.iter().filter(|(_, seq)| **seq < bound).map(|(name, _)| name.clone()).collect();
    let kept = request.keep_all.then_some(bound.max(0));
    let needed = known.values().copied().filter(|seq| *seq >= bound).chain(kept).min();
    let keep_from = needed.unwrap_or(head).min(head);
    let keep_from = change_log::change_start(connection, log, keep_from)?;
    Ok(PrunePlan { epoch, keep_from, positions, cut_off })
}

/// The first entry that the retention keeps whoever needs it.
fn retention_bound(connection: &Connection, log: &str, retention: &Retention, clock: &dyn Clock) -> Result<i64, Error> {
    let (head, oldest) = change_log::bounds(connection, log)?;
    let by_count = head.saturating_sub(entries_allowed(connection, log, retention)?) + 1;
    let age_ms = i64::try_from(retention.age.as_millis()).unwrap_or(i64::MAX);
    let by_age = first_since(connection, log, (oldest, head), clock.now_ms().saturating_sub(age_ms))?;
    Ok(by_count.max(by_age))
}

/// The first entry of that time or later, by halves, for time ascends with the sequence.
fn first_since(
    connection: &Connection,
    log: &str,
    (mut low, mut high): (i64, i64),
    since_ms: i64,
) -> Result<i64, Error> {
    let sql = format!("SELECT ts FROM main.{} WHERE seq >= ?1 ORDER BY seq LIMIT 1", ident(log));
    let mut statement = connection.prepare_cached(&sql)?;
    while low < high {
        let middle = low + (high - low) / 2;
        let ts: Option<i64> = statement.query_row([middle], |row| row.get(0)).optional()?.flatten();
        if ts.is_some_and(|ts| ts < since_ms) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// How many entries the retention allows, by their number and by their size.
#[expect(clippy::cast_possible_truncation, reason = "an estimate; `as` saturates")]
fn entries_allowed(connection: &Connection, log: &str, retention: &Retention) -> Result<i64, Error> {
    let by_size = retention.size_bytes as f64 / change_log::entry_bytes(connection, log)?;
    let by_rows = i64::try_from(retention.rows).unwrap_or(i64::MAX);
    Ok(by_rows.min(by_size as i64).max(1))
}

/// Where the triggers stop by themselves: an eighth past what the retention allows, so that a running node, which cuts
/// consumers off at the retention itself, comes first. Where the log is beyond that already, because less is allowed now,
/// triggers go on until the next prune makes room.
pub(super) fn capture_limit(connection: &Connection, log: &str, retention: &Retention) -> Result<i64, Error> {
    let allowed = entries_allowed(connection, log, retention)?;
    let (head, oldest) = change_log::bounds(connection, log)?;
    let slack = allowed / 8 + 1;
    let limit = (oldest.max(1) - 1).saturating_add(allowed).saturating_add(slack);
    Ok(if limit > head { limit } else { head.saturating_add(slack) })
}

/// Whether the limit in place is so far from what it should be that a write is worth it.
pub(super) fn is_limit_off(connection: &Connection, log: &str, retention: &Retention) -> Result<bool, Error> {
    let Some(limit) = store::meta::<i64>(connection, meta_key::CAPTURE_LIMIT)? else { return Ok(true) };
    let (wanted, head) = (capture_limit(connection, log, retention)?, change_log::bounds(connection, log)?.0);
    Ok(wanted.abs_diff(limit) > limit.abs_diff(head).max(8) / 2)
}

fn note_consumers(transaction: &Transaction<'_>, plan: &PrunePlan, clock: &dyn Clock) -> Result<(), Error> {
    let mut note = transaction.prepare_cached(
        "INSERT INTO main.__cdc_consumers(name, kind, epoch, seq, at) VALUES (?1, 'link', ?2, ?3, ?4)
         ON CONFLICT(name) DO UPDATE SET epoch = ?2, seq = ?3, at = ?4, cut_off = 0",
    )?;
    for (name, seq) in &plan.positions {
        note.execute((name, plan.epoch.0, seq, clock.now_ms()))?;
    }
    let mut cut = transaction.prepare_cached("UPDATE main.__cdc_consumers SET cut_off = 1 WHERE name = ?1")?;
    for name in &plan.cut_off {
        cut.execute([name])?;
    }
    Ok(())
}
