//! CloudQuery at a node's edges: links to destinations, and its own database served as a plugin.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Opened, Parts};
use crate::capture::reader::LogReader;
use crate::cloudquery::destination::Options;
use crate::cloudquery::server::{self, Network, Served};
use crate::config::{LinkConfig, MigrateMode};
use crate::replicate::copies::RangeBounds;
use crate::replicate::cq_link::CloudQueryLink;
use crate::replicate::cq_source::{OutflowOptions, RowRules, Sources, TableOptions};
use crate::telemetry::Direction;

use super::open::RANGE_BYTES_MAX;

/// A batch becomes a message to a destination, which takes 200 MiB; made into its columns' types it may be larger than in
/// our own format.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// A link to a destination at that address.
pub(super) fn link(
    parts: &Parts,
    opened: &Opened,
    (link, address): (&LinkConfig, &str),
    broken: CancellationToken,
) -> Result<CloudQueryLink<LogReader>> {
    let config = &parts.config;
    let options = OutflowOptions {
        selection: Arc::new(link.selection()),
        tables: TableOptions::default(),
        // Whatever is said again must be the same.
        rows: RowRules { on_type_mismatch: link.on_type_mismatch, deterministic_cq_id: true },
        window_rows: config.window_rows,
        batch_rows: config.batch_size,
        batch_bytes: config.batch_size_bytes.min(BATCH_BYTES_MAX),
        bounds: RangeBounds { rows_max: config.snapshot_rows, bytes_max: RANGE_BYTES_MAX },
    };
    Ok(CloudQueryLink {
        name: link.name.clone(),
        address: address.to_owned(),
        spec: link.cloudquery_spec.clone().unwrap_or_else(|| "null".to_owned()),
        forced: link.migrate_mode() == MigrateMode::Forced,
        options,
        feed: opened.feed.clone().context("a link that sends, and nothing is captured")?,
        status: parts.board.link(&link.name, Direction::Send, Some(address)),
        clock: Arc::clone(&parts.clock),
        stop: parts.stop.clone(),
        broken,
    })
}

/// Listens at that address, for [`serve`].
///
/// # Errors
/// It cannot listen there.
pub(super) async fn bind(address: &str) -> Result<server::Listener> {
    let listener = match address.strip_prefix("unix:") {
        Some(path) => server::bind(Network::Unix, path).await,
        None => server::bind(Network::Tcp, address).await,
    };
    listener.context("cloudquery.listen")
}

/// Serves the plugin for the node's own database.
pub(super) fn serve(parts: &Parts, listener: server::Listener, tasks: &mut JoinSet<()>) {
    tracing::info!(address = listener.address(), "serving CloudQuery's plugin protocol for this database");
    let note = format!("CloudQuery's plugin protocol is served on {}", listener.address());
    parts.board.stands("CloudQuery's plugin protocol", Some(note));
    let database = parts.config.database.clone();
    let options = Options { local: Some(database.clone()), ..Options::default() };
    let sources = Sources::of_node(database, parts.feed.clone(), Arc::clone(&parts.clock));
    let served = Served { options, sources: Some(Arc::new(sources)) };
    let serving = server::serve(listener, served, parts.stop.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(error = &error as &dyn std::error::Error, "serving CloudQuery's plugin protocol ended");
        }
    });
}
