//! The sync of one source: the calls in the CLI's order, and the way of each message.
//!
//! Destinations are initialised, then the source; each destination has one Write for the whole sync. A message is made for
//! all destinations, then put into every queue; the next one is read when every queue has taken it. While the source says
//! nothing, a destination that ends early is still noticed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, select_all, try_join_all};
use prost_types::Timestamp;
use tokio_util::sync::CancellationToken;

use super::checkpoints::Checkpoints;
use super::outgoing::{Maker, Outgoing, make_all};
use super::plugins::{Complaints, Plugin, Plugins, connected, connections, spec_bytes};
use super::stale::Stale;
use super::summary_table::{self, About};
use super::{
    DestinationSpec, DestinationSummary, Error, MigrateMode, Options, Rewriter, SourceSpec, SourceSummary, Spec,
    WriteMode, expand, group,
};
use crate::cloudquery::client::{self, Address, PluginClient, SyncMessage, SyncStream, WriteSession};
use crate::cloudquery::proto::plugin::sync::{self, request::Shard as WireShard};
use crate::cloudquery::proto::plugin::write::{self, request::Message};

/// One source to sync.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub spec: &'a Spec,
    pub options: &'a Options<'a>,
    pub plugins: &'a Plugins,
    pub source: &'a SourceSpec,
    pub plugin: &'a Plugin,
}

/// A destination that this source is synced to.
struct Target<'a> {
    spec: &'a DestinationSpec,
    plugin: &'a Plugin,
    before: Complaints,
    session: WriteSession,
    maker: Arc<Maker>,
}

/// What came of the source so far.
#[derive(Default)]
struct Received {
    stale: Stale,
    summary: SourceSummary,
    checkpoints: Checkpoints,
    warned: bool,
}

/// Syncs it.
pub(super) async fn sync(job: Job<'_>) -> Result<SourceSummary, Error> {
    let began = Instant::now();
    let name = &job.source.plugin.name;
    let source_before = job.plugin.complaints();
    let sync_time_us = job.options.clock.now_ms().saturating_mul(1_000);
    job.options.progress.doing(format!("initialise the plugins of source {name:?}"));
    let mut targets = job.initialise(sync_time_us).await?;
    job.options.progress.doing(format!("sync source {name:?}"));
    let mut received = Received::default();
    let stream = unless_ended(&mut targets, job.plugin.client.sync(job.request())).await?;
    forward(job, stream, &mut targets, &mut received).await?;
    let failed = received.stale.kept_for_failures();
    if !failed.is_empty() {
        tracing::warn!(tables = ?failed, "the source could not read these tables: their stale rows are kept");
    }
    delete_stale(job, &mut targets, &received.stale, sync_time_us).await?;
    let mut summary = received.summary;
    summary.source.clone_from(name);
    summary.duration_ms = milliseconds(began.elapsed());
    let source = job.plugin.complaints().since(source_before);
    summary.errors = source.errors.max(summary.errors_per_table.values().sum());
    summary.warnings = source.warnings;
    send_summaries(job, &mut targets, &summary, sync_time_us).await?;
    job.options.progress.doing(format!("wait until everything of source {name:?} is committed"));
    let (closing, committed) = finish(targets).await;
    let kept = match committed {
        Ok(()) => job.keep(received.checkpoints).await,
        failed => failed,
    };
    close(&closing, kept).await?;
    summary.destinations = closing.iter().map(Closing::summary).collect();
    if let Some(path) = &job.options.summary_location {
        for closing in &closing {
            let of_destination = closing.summary();
            job.about(closing.spec, &closing.maker.rewriter, &summary, &of_destination).append_to(path)?;
        }
    }
    Ok(summary)
}

impl<'a> Job<'a> {
    /// Tells every plugin its spec, in the CLI's order, and opens the destinations' writes.
    async fn initialise(&self, sync_time_us: i64) -> Result<Vec<Target<'a>>, Error> {
        let id = &self.options.invocation_id;
        let mut names = self.source.destinations.clone();
        names.extend(connections(self.source));
        let mut initialised: Vec<&str> = Vec::new();
        for name in &names {
            if let Some((spec, plugin)) = self.destination(name)
                && !initialised.contains(&name.as_str())
            {
                plugin.client.init(spec_bytes(&spec.plugin.spec), false, id).await?;
                initialised.push(name);
            }
        }
        let own = connected(&self.source.plugin.spec, &|name| self.connection(name));
        self.plugin.client.init(spec_bytes(&own), false, id).await?;
        let targets = self.source.destinations.iter().filter_map(|name| self.destination(name));
        Ok(targets.map(|(spec, plugin)| self.target(spec, plugin, sync_time_us)).collect())
    }

    fn target(&self, spec: &'a DestinationSpec, plugin: &'a Plugin, sync_time_us: i64) -> Target<'a> {
        let template = &spec.sync_group_id;
        let group = || group::render(template, sync_time_us / 1_000, &self.options.invocation_id);
        let rewriter = Rewriter {
            write_mode: spec.write_mode,
            pk_mode: spec.pk_mode,
            sync_time_us,
            source_name: self.source.rows_say(self.options.shard),
            sync_group_id: (!template.is_empty()).then(group),
            columns_not_null: self.options.columns_not_null,
        };
        let maker = Maker {
            source: self.plugin.client.plugin().to_owned(),
            destination: plugin.client.plugin().to_owned(),
            rewriter,
            force: spec.migrate_mode == MigrateMode::Forced,
            migrate: !self.options.no_migrate,
            record_bytes_max: Maker::RECORD_BYTES_MAX,
        };
        let (before, session) = (plugin.complaints(), plugin.client.write());
        Target { spec, plugin, before, session, maker: Arc::new(maker) }
    }

    fn destination(&self, name: &str) -> Option<(&'a DestinationSpec, &'a Plugin)> {
        Some((self.spec.destination(name)?, self.plugins.destination(name)?))
    }

    fn connection(&self, name: &str) -> Option<String> {
        self.plugins.destination(name).map(|plugin| plugin.client.address().to_string())
    }

    fn request(&self) -> sync::Request {
        let source = self.source;
        let backend = source.backend.as_ref().map(|backend| sync::BackendOptions {
            table_name: backend.table_name.clone(),
            connection: expand::connect(&backend.connection, &|name| self.connection(name)),
        });
        sync::Request {
            tables: source.tables.clone(),
            skip_tables: source.skip_tables.clone(),
            skip_dependent_tables: source.skip_dependent_tables,
            deterministic_cq_id: source.deterministic_cq_id,
            backend,
            shard: self.options.shard.map(|shard| WireShard { num: shard.number(), total: shard.total() }),
            with_error_messages: true,
            // They are rows of the backend's table; without one there is nowhere to keep them.
            supports_checkpoints: source.backend.is_some(),
        }
    }

    /// Keeps what the source is to go on from.
    async fn keep(&self, checkpoints: Checkpoints) -> Result<(), Error> {
        let Some(backend) = &self.source.backend else { return Ok(()) };
        let named = expand::connections(&backend.connection).unwrap_or_default();
        let known = named.first().and_then(|name| self.plugins.destination(name));
        if let Some(plugin) = known {
            return Ok(checkpoints.keep(&plugin.client, &backend.table_name).await?);
        }
        let plugin = format!("state backend of source {:?}", self.source.plugin.name);
        let bad = || client::Error::Address { plugin: plugin.clone(), address: backend.connection.clone() };
        let address = Address::parse(&backend.connection).ok_or_else(bad)?;
        let client = PluginClient::connect(&plugin, &address).await?;
        Ok(checkpoints.keep(&client, &backend.table_name).await?)
    }

    fn about(
        &self,
        destination: &'a DestinationSpec,
        rewriter: &'a Rewriter,
        summary: &'a SourceSummary,
        of_destination: &'a DestinationSummary,
    ) -> About<'a> {
        About {
            source: self.source,
            destination,
            summary,
            of_destination,
            shard: self.options.shard,
            sync_id: &self.options.invocation_id,
            sync_time_us: rewriter.sync_time_us,
            sync_group_id: rewriter.sync_group_id.as_deref(),
        }
    }
}

/// Waits for something, or for the first destination to end its Write, which is a failure whatever it says.
async fn unless_ended<T>(
    targets: &mut [Target<'_>],
    wanted: impl Future<Output = Result<T, client::Error>>,
) -> Result<T, Error> {
    let tokens: Vec<CancellationToken> = targets.iter().map(|target| target.session.ended()).collect();
    let ended = select_all(tokens.iter().map(|token| Box::pin(token.cancelled())));
    let first = tokio::select! {
        biased;
        ((), first, _) = ended => first,
        done = Box::pin(wanted) => return Ok(done?),
    };
    Err(targets[first].session.failure().await.into())
}

/// Hands every message on until the source has said everything.
async fn forward(
    job: Job<'_>,
    mut stream: SyncStream,
    targets: &mut [Target<'_>],
    received: &mut Received,
) -> Result<(), Error> {
    let makers: Vec<Arc<Maker>> = targets.iter().map(|target| Arc::clone(&target.maker)).collect();
    while let Some(message) = unless_ended(targets, stream.next()).await? {
        note(job, &message, received)?;
        let made = make_all(&makers, message).await?;
        send_all(targets, made).await?;
    }
    Ok(())
}

/// Puts messages into every destination's queue, and notices who ends meanwhile.
async fn send_all(targets: &mut [Target<'_>], made: Vec<Outgoing>) -> Result<(), Error> {
    let tokens: Vec<CancellationToken> = targets.iter().map(|target| target.session.ended()).collect();
    let ended = select_all(tokens.iter().map(|token| Box::pin(token.cancelled())));
    let sending = targets.iter_mut().zip(made).map(|(target, made)| target.send(made));
    let first = tokio::select! {
        biased;
        ((), first, _) = ended => first,
        sent = try_join_all(sending) => return sent.map(drop),
    };
    Err(targets[first].session.failure().await.into())
}

impl Target<'_> {
    async fn send(&mut self, outgoing: Outgoing) -> Result<(), Error> {
        for message in outgoing.messages {
            self.session.send(&outgoing.table, message).await?;
        }
        Ok(())
    }
}

fn note(job: Job<'_>, message: &SyncMessage, received: &mut Received) -> Result<(), Error> {
    match message {
        SyncMessage::MigrateTable(schema) => received.stale.table(schema),
        SyncMessage::Insert { table, batches } => {
            let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            received.summary.resources += rows;
            *received.summary.resources_per_table.entry(table.clone()).or_default() += rows;
            job.options.progress.rows(table, rows);
        }
        SyncMessage::DeleteRecord(_) => {}
        SyncMessage::Error { table, error } => {
            tracing::error!(source = job.source.plugin.name, table, error, "the source could not read this table");
            *received.summary.errors_per_table.entry(table.clone()).or_default() += 1;
            received.stale.failed(table);
            job.options.progress.error();
        }
        SyncMessage::Checkpoint(batches) => {
            let source = &job.source.plugin.name;
            if let Some(backend) = &job.source.backend {
                received.checkpoints.take(source, &backend.table_name, batches)?;
            } else if !std::mem::replace(&mut received.warned, true) {
                tracing::warn!(source, "the source sent a checkpoint although it was told that none are kept");
            }
        }
        SyncMessage::Unknown => {}
    }
    Ok(())
}

async fn delete_stale(job: Job<'_>, targets: &mut [Target<'_>], stale: &Stale, sync_time_us: i64) -> Result<(), Error> {
    let tables = stale.tables(job.source.backend.is_some());
    let source_name = job.source.rows_say(job.options.shard);
    for target in targets.iter_mut().filter(|target| target.spec.write_mode == WriteMode::OverwriteDeleteStale) {
        for table in &tables {
            let message = Message::Delete(write::MessageDeleteStale {
                table: bytes::Bytes::new(),
                source_name: source_name.clone(),
                sync_time: Some(timestamp(sync_time_us)),
                table_name: (*table).to_owned(),
            });
            target.session.send(table, message).await?;
        }
    }
    Ok(())
}

fn timestamp(us: i64) -> Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).expect("less than a second");
    Timestamp { seconds: us.div_euclid(1_000_000), nanos }
}

async fn send_summaries(
    job: Job<'_>,
    targets: &mut [Target<'_>],
    summary: &SourceSummary,
    sync_time_us: i64,
) -> Result<(), Error> {
    debug_assert!(targets.iter().all(|target| target.maker.rewriter.sync_time_us == sync_time_us));
    for target in targets.iter_mut().filter(|target| target.spec.send_sync_summary) {
        let (of_destination, maker) = (target.summary(), Arc::clone(&target.maker));
        let record = job.about(target.spec, &maker.rewriter, summary, &of_destination).record();
        let record = record.map_err(|source| Error::Rewrite {
            source_name: maker.source.clone(),
            destination: maker.destination.clone(),
            table: summary_table::NAME.to_owned(),
            source: Box::new(source),
        })?;
        let table = summary_table::NAME.to_owned();
        let mut messages = Vec::new();
        if maker.migrate {
            messages.push(maker.migrate_table(&table, &record.schema())?);
        }
        maker.insert(&table, &record, &mut messages)?;
        target.send(Outgoing { table, messages }).await?;
    }
    Ok(())
}

impl Target<'_> {
    fn summary(&self) -> DestinationSummary {
        summary_of(self.plugin, self.before)
    }
}

/// A destination whose Write is finished.
struct Closing<'a> {
    spec: &'a DestinationSpec,
    plugin: &'a Plugin,
    before: Complaints,
    maker: Arc<Maker>,
}

impl Closing<'_> {
    fn summary(&self) -> DestinationSummary {
        summary_of(self.plugin, self.before)
    }
}

fn summary_of(plugin: &Plugin, before: Complaints) -> DestinationSummary {
    let Complaints { warnings, errors } = plugin.complaints().since(before);
    DestinationSummary { destination: plugin.name.clone(), errors, warnings }
}

/// Waits until every destination has committed. One that fails does not keep the others from it; those are returned, with
/// the first failure.
async fn finish(targets: Vec<Target<'_>>) -> (Vec<Closing<'_>>, Result<(), Error>) {
    let finishing = targets.into_iter().map(|target| async move {
        let Target { spec, plugin, before, session, maker } = target;
        session.finish().await.map(|()| Closing { spec, plugin, before, maker })
    });
    let (mut closing, mut committed) = (Vec::new(), Ok(()));
    for finished in join_all(finishing).await {
        match finished {
            Ok(target) => closing.push(target),
            Err(error) => committed = committed.and(Err(error.into())),
        }
    }
    (closing, committed)
}

/// Closes what has committed, whatever came of the rest, and says what failed first.
async fn close(closing: &[Closing<'_>], before: Result<(), Error>) -> Result<(), Error> {
    let closed = join_all(closing.iter().map(|closing| closing.plugin.client.close())).await;
    closed.into_iter().fold(before, |before, closed| before.and(closed.map_err(Error::from)))
}

/// A span in milliseconds.
pub(super) fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
