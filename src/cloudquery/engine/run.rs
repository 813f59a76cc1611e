//! A run: plugins up, each source synced in turn, plugins down.

use std::path::PathBuf;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::plugins::{Plugins, Starter};
use super::{Embedded, Error, Progress, Shard, Spec, Summary, pipeline};
use crate::model::Clock;

/// What is not in the specification.
pub struct Options<'a> {
    /// The run's id: plugins put it into their logs.
    pub invocation_id: String,
    /// The part of each source that is synced; all of it where none is named.
    pub shard: Option<Shard>,
    /// Tables are taken as they are.
    pub no_migrate: bool,
    /// A file that gets a line of JSON for each source and destination.
    pub summary_location: Option<PathBuf>,
    /// `_cq_sync_time` and `_cq_source_name` are NOT NULL.
    pub columns_not_null: bool,
    /// What local plugins are to log: trace, debug, info, warn or error.
    pub log_level: String,
    /// Twinlite's own plugin, for `registry: embedded`.
    pub embedded: Option<&'a dyn Embedded>,
    /// What tells the time of the sync.
    pub clock: &'a dyn Clock,
    /// Where it can be seen how far the run is.
    pub progress: Progress,
    /// Ends the run when it is cancelled.
    pub stop: CancellationToken,
}

/// Syncs every source of a specification, once.
///
/// # Errors
/// The first failure; what a destination had committed by then stays. [`Error::Stopped`].
pub async fn run(spec: &Spec, options: &Options<'_>) -> Result<Summary, Error> {
    let began = Instant::now();
    let mut plugins = Plugins::default();
    let done = tokio::select! {
        biased;
        () = options.stop.cancelled() => Err(Error::Stopped),
        done = Box::pin(sync_all(spec, options, &mut plugins)) => done,
    };
    let done = match done {
        Err(error) => Err(plugins.explain(error).await),
        Ok(syncs) => Ok(syncs),
    };
    plugins.stop().await;
    let duration_ms = pipeline::milliseconds(began.elapsed());
    Ok(Summary::new(&options.invocation_id, done?, duration_ms))
}

async fn sync_all(
    spec: &Spec,
    options: &Options<'_>,
    plugins: &mut Plugins,
) -> Result<Vec<super::SourceSummary>, Error> {
    options.progress.doing("start plugins");
    let starter = Starter { embedded: options.embedded, log_level: &options.log_level };
    plugins.start(spec, &starter).await?;
    let mut syncs = Vec::new();
    for (source, plugin) in spec.sources.iter().zip(&plugins.sources) {
        options.progress.next_source();
        syncs.push(pipeline::sync(pipeline::Job { spec, options, plugins, source, plugin }).await?);
    }
    Ok(syncs)
}
