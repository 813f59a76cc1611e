//! `twinlite run --config FILE`: the nodes of a configuration, until Ctrl-C or SIGTERM.

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::signal::Stop;
use super::{Outcome, args};
use crate::config::NodeConfig;
use crate::node::{Ended, Node, Surroundings};

/// Runs every node of the configuration.
///
/// # Errors
/// A node could not be started; the others are stopped then.
pub async fn run(args: &args::Run) -> Result<Outcome> {
    let mut signal = Stop::listen()?;
    let config = args::config(&args.config)?;
    let missing = config.not_built_yet();
    anyhow::ensure!(missing.is_empty(), "{}", missing.join("; "));
    let stop = CancellationToken::new();
    let mut nodes = JoinSet::new();
    for node in config.nodes {
        nodes.spawn(keep_running(node, stop.clone()));
    }
    let mut outcome = tokio::select! {
        () = signal.wait() => Ok(Outcome::Done),
        ended = nodes.join_next() => joined(ended),
    };
    stop.cancel();
    while let Some(ended) = nodes.join_next().await {
        outcome = outcome.and_then(|outcome| joined(Some(ended)).map(|_| outcome));
    }
    outcome
}

fn joined(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<Outcome> {
    match ended {
        Some(ended) => ended.context("a node's task ended unexpectedly")?.map(|()| Outcome::Done),
        None => Ok(Outcome::Done),
    }
}

/// Runs one node, and again where its database file was replaced.
async fn keep_running(config: NodeConfig, stop: CancellationToken) -> Result<()> {
    let surroundings = Surroundings::default();
    loop {
        let name = config.name.clone();
        let node = Node::start(config.clone(), &surroundings).await.with_context(|| format!("node \"{name}\""))?;
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
            Some(Ended::FileReplaced | Ended::LogFull) => {}
            Some(Ended::ThreadEnded) => {
                // What made it panic may do so again: let whoever supervises the process decide how often.
                anyhow::bail!(
                    "node \"{name}\": a thread of its database ended unexpectedly; see the log, and report it"
                )
            }
        }
    }
}
