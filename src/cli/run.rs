//! `twinlite run --config FILE`: the nodes of a configuration, until Ctrl-C or SIGTERM.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::signal::Stop;
use super::{Outcome, args};
use crate::config::NodeConfig;
use crate::node::{Ended, Node, Surroundings};
use crate::replicate::backoff::Backoff;

/// Runs every node of the configuration.
///
/// # Errors
/// A node could not be started; the others are stopped then.
pub async fn run(args: &args::Run) -> Result<Outcome> {
    let mut signal = Stop::listen()?;
    let config = args::config(&args.config)?;
    let stop = CancellationToken::new();
    let mut nodes = JoinSet::new();
    for node in config.nodes {
        nodes.spawn(keep_running(node, stop.clone()));
    }
    let mut outcome = tokio::select! {
        () = signal.wait() => Ok(Outcome::Done),
        outcome = first_failure(&mut nodes) => outcome,
    };
    stop.cancel();
    while let Some(ended) = nodes.join_next().await {
        outcome = outcome.and_then(|outcome| joined(Some(ended)).map(|_| outcome));
    }
    outcome
}

/// Ends with the first node that fails, or when none is left: one whose capture was torn down is no reason to end others.
async fn first_failure(nodes: &mut JoinSet<Result<()>>) -> Result<Outcome> {
    while let Some(ended) = nodes.join_next().await {
        joined(Some(ended))?;
    }
    Ok(Outcome::Done)
}

fn joined(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<Outcome> {
    match ended {
        Some(ended) => ended.context("a node's task ended unexpectedly")?.map(|()| Outcome::Done),
        None => Ok(Outcome::Done),
    }
}

/// How long a database file that was just replaced may be away or half written before the node gives up.
const REPLACED_WAIT: Duration = Duration::from_secs(60);

/// Runs one node, and again where its database file was replaced.
async fn keep_running(config: NodeConfig, stop: CancellationToken) -> Result<()> {
    let surroundings = Surroundings::default();
    let mut replaced = None;
    loop {
        let name = config.name.clone();
        let start =
            async || Node::start(config.clone(), &surroundings).await.with_context(|| format!("node \"{name}\""));
        let Some(node) = start_again(replaced.take(), start, stop.cancelled()).await? else { return Ok(()) };
        tracing::info!(node = name, database = %config.database.display(), "running");
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            ended = node.ended() => Some(ended),
        };
        if !node.stop().await {
            tracing::warn!(node = name, "the transaction at hand did not end within the grace period and was cut off");
        }
        match ended {
            None | Some(Ended::TornDown) => return Ok(()),
            Some(Ended::FileReplaced | Ended::LogFull) => replaced = Some(Instant::now()),
            Some(Ended::ThreadEnded) => {
                // What made it panic may do so again: let whoever supervises the process decide how often.
                anyhow::bail!(
                    "node \"{name}\": a thread of its database ended unexpectedly; see the log, and report it"
                )
            }
        }
    }
}

/// Starts what runs on a database file. Where that was replaced at `replaced` it is tried again for a while: whoever puts a
/// backup in place may be copying it still. `None`: stopped meanwhile.
///
/// # Errors
/// What stands in the way, where nothing was replaced or it lasts.
pub(super) async fn start_again<T, F: Future<Output = Result<T>>>(
    replaced: Option<Instant>,
    start: impl Fn() -> F,
    stopped: impl Future<Output = ()>,
) -> Result<Option<T>> {
    let mut stopped = pin!(stopped);
    let mut backoff = Backoff::default();
    loop {
        let error = match start().await {
            Ok(started) => return Ok(Some(started)),
            Err(error) => error,
        };
        if replaced.is_none_or(|since| since.elapsed() >= REPLACED_WAIT) {
            return Err(error);
        }
        tracing::warn!("{error:#}; trying again");
        tokio::select! {
            () = &mut stopped => return Ok(None),
            () = sleep(backoff.next_wait()) => {}
        }
    }
}
