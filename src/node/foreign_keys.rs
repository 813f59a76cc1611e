//! Keeps watch over foreign keys where both ends write: looks at what windows touched, once they have been applied.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Parts;
use crate::apply::{Broken, ForeignKeys, Looked};
use crate::sqlite::Db;
use crate::telemetry::BrokenReport;

/// How long windows gather before they are looked at together.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look is followed by a rest of so many times its length, so that large tables keep no core busy.
const REST: u32 = 20;

/// Starts the watch, on a database that is there.
pub(super) fn start(parts: &Parts, tasks: &mut JoinSet<()>) {
    if parts.config.merges() {
        tasks.spawn(watch(parts.clone()));
    }
}

async fn watch(parts: Parts) {
    let path = parts.config.database.clone();
    let db = match Db::spawn("foreign keys", move || ForeignKeys::open(&path)) {
        Ok(db) => db,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "foreign keys are not looked at");
            return;
        }
    };
    let mut board = parts.board.subscribe();
    let mut ticks = parts.feed.as_ref().map(|feed| feed.changed());
    loop {
        let applied = windows(&parts);
        board.mark_unchanged();
        if let Some(ticks) = &mut ticks {
            ticks.mark_unchanged();
        }
        let begun = Instant::now();
        let now_ms = parts.clock.now_ms();
        let is_open = match db.call(move |keys| keys.look(now_ms)).await {
            Ok(Ok(Some(looked))) => tell(&parts, &looked),
            // A copy runs: rows come before those that they refer to.
            Ok(Ok(None)) => false,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "look at foreign keys: try again");
                true
            }
            Err(_) => return,
        };
        let rest = LOOK_EVERY.max(begun.elapsed() * REST);
        tokio::select! {
            () = parts.stop.cancelled() => return,
            () = sleep(rest) => {}
        }
        // Nothing changes while nobody writes: an idle node does no work.
        while windows(&parts) == applied {
            tokio::select! {
                () = parts.stop.cancelled() => return,
                changed = board.changed() => if changed.is_err() { return },
                // Whoever repairs a row may do it here.
                () = tick(&mut ticks), if is_open => break,
            }
        }
    }
}

async fn tick(ticks: &mut Option<tokio::sync::watch::Receiver<u64>>) {
    if let Some(ticks) = ticks
        && ticks.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn windows(parts: &Parts) -> u64 {
    parts.board.metrics().windows_applied_total.get()
}

/// Says what was found. Whether anything is left to be repaired.
fn tell(parts: &Parts, looked: &Looked) -> bool {
    let Looked { broken, appeared, repaired, too_large, whole } = looked;
    parts.board.add_conflicts(*appeared);
    parts.board.settle_conflicts(*repaired);
    parts.board.set_foreign_keys(broken.iter().map(report));
    let about = |table: &String| format!("foreign keys of {table}");
    for table in whole {
        parts.board.stands(&about(table), None);
    }
    for table in too_large {
        let note = format!(
            "table \"{table}\" is too large to look at its foreign keys after each merge; do it yourself: PRAGMA \
             foreign_key_check('{table}')"
        );
        parts.board.stands(&about(table), Some(note));
    }
    if *appeared > 0 {
        tracing::warn!(rows = appeared, "rows break a foreign key after a merge; see `twinlite status`");
    }
    if *repaired > 0 {
        tracing::info!(rows = repaired, "rows that broke a foreign key are repaired");
    }
    !broken.is_empty()
}

/// A row as `status` names it.
pub fn report(broken: &Broken) -> BrokenReport {
    let Broken { table, key, refers_to } = broken.clone();
    BrokenReport { table, key, refers_to }
}
