//! What a capturing node does besides sending: notices commits, prunes the log, and keeps `status` true.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Ended, Parts, capture_options};
use crate::capture::is_large;
use crate::capture::reader::LogReader;
use crate::capture::wake::{AfterEvent, Wake};
use crate::replicate::feed::{Feed, Ticker};

/// How often the log is looked at. A prune needs a second of quiet, so this is also how quiet is told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries that consumers have acknowledged and that are worth a write of ours even while the application is busy: the
/// log would grow by some 30 MiB otherwise.
const PRUNE_BUSY_AT_ENTRIES: i64 = 500_000;

/// Starts the tasks.
pub(super) fn start(
    parts: &Parts,
    feed: &Arc<Feed<LogReader>>,
    wake: Option<(Wake, watch::Sender<u64>)>,
    tasks: &mut JoinSet<()>,
) {
    if let Some((wake, changed)) = wake {
        tasks.spawn(notice(parts.clone(), Arc::clone(feed), wake, changed));
    }
    tasks.spawn(look_after(parts.clone(), Arc::clone(feed)));
}

/// Looks whether the file of a node that only receives was replaced: what is written into the old one nobody sees.
pub(super) async fn watch_file(parts: Parts) {
    let identity = || {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&parts.config.database).map(|file| (file.dev(), file.ino())).ok()
    };
    let opened = identity();
    loop {
        tokio::select! {
            () = parts.stop.cancelled() => return,
            () = sleep(parts.clock.until_beat(LOOK_EVERY)) => {}
        }
        if identity() != opened {
            tracing::warn!("the database file was replaced by another, or is gone: open it anew");
            parts.ended.end(Ended::FileReplaced);
            return;
        }
    }
}

/// Turns file-system events into ticks, where a commit stands behind them.
///
/// After an event the database is looked at again for a while ([`AfterEvent`]).
async fn notice(parts: Parts, feed: Arc<Feed<LogReader>>, mut wake: Wake, changed: watch::Sender<u64>) {
    let changed = Arc::new(Ticker::new(changed));
    let mut after = AfterEvent::default();
    loop {
        let again = after.wait();
        tokio::select! {
            () = parts.stop.cancelled() => return,
            written = wake.changed() => if written { after = AfterEvent::begin() },
            () = sleep(again.unwrap_or_default()), if again.is_some() => after = after.next(),
        }
        if wake.replaced() {
            tracing::warn!("the database file was replaced by another: open that one");
            parts.ended.end(Ended::FileReplaced);
            return;
        }
        feed.look(&changed).await;
    }
}

async fn look_after(parts: Parts, feed: Arc<Feed<LogReader>>) {
    let mut changed = feed.changed();
    let mut acknowledged = feed.acknowledged();
    let mut every = interval(LOOK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_at = None;
    loop {
        tokio::select! {
            () = parts.stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let ticks = *changed.borrow_and_update();
        let quiet = looked_at.replace(ticks) == Some(ticks);
        if let Err(error) = look(&parts, &feed, quiet).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "look after the log");
        }
        if !quiet {
            continue;
        }
        // Nothing changes while nobody writes: an idle node does no work.
        acknowledged.mark_unchanged();
        tokio::select! {
            () = parts.stop.cancelled() => return,
            _ = changed.changed() => changed.mark_changed(),
            _ = acknowledged.changed() => {}
        }
    }
}

async fn look(parts: &Parts, feed: &Feed<LogReader>, quiet: bool) -> Result<(), crate::replicate::Error> {
    // Also while no link reads: what an application rebuilt has no triggers until then.
    feed.reconcile().await?;
    let state = feed.log_state().await?;
    parts.board.set_log(state.rows, state.bytes);
    parts.board.set_log_tail(feed.log_tail().await?);
    let acknowledged: Vec<(String, i64)> =
        feed.acknowledged().borrow().iter().map(|(consumer, seq)| (consumer.clone(), *seq)).collect();
    let done = acknowledged.iter().map(|(_, seq)| *seq).min().unwrap_or(0) - state.oldest;
    let large = is_large(&state, &capture_options(&parts.config).retention);
    if !(quiet || large || done > PRUNE_BUSY_AT_ENTRIES) {
        return Ok(());
    }
    loop {
        let acknowledged = acknowledged.clone();
        let pruned = feed.maintainer().call(move |maintainer| maintainer.prune(acknowledged)).await??;
        let metrics = parts.board.metrics();
        metrics.log_pruned_total.add(pruned.removed);
        metrics.cut_offs_total.add(pruned.cut_off.len() as u64);
        if pruned.removed > 0 {
            metrics.held_write_lock(pruned.longest_hold);
        }
        for consumer in &pruned.cut_off {
            tracing::warn!(
                consumer,
                "away for longer than the log is kept: its tables are copied again when it returns"
            );
        }
        if pruned.limit_reached {
            tracing::warn!("the log is full, so the triggers stopped: begin a new one and copy by digest");
            parts.ended.end(Ended::LogFull);
            return Ok(());
        }
        if !pruned.more || parts.stop.is_cancelled() {
            return Ok(());
        }
    }
}
