//! The source as the plugin server sees it.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::changes::{Captured, ChangesRequest, changes};
use super::outflow::OutflowOptions;
use super::rows::RowRules;
use super::sync::{PageLimits, Pages, everything};
use super::tables::{SourceTable, TableOptions};
use crate::capture::reader::LogReader;
use crate::cloudquery::destination::{Options, Spec};
use crate::cloudquery::selection::Wanted;
use crate::cloudquery::source::{Shard, Source, SourceFactory, SyncMessage, SyncRequest};
use crate::cloudquery::{self, Table};
use crate::model::{Clock, Selection, SystemClock};
use crate::replicate::Error;
use crate::replicate::copies::RangeBounds;
use crate::replicate::feed::Feed;
use crate::sqlite::Db;

/// Rows of a page or a piece of a copy at most, whatever the spec says of batches: a read transaction of some ten
/// milliseconds.
const PAGE_ROWS_MAX: usize = 10_000;
/// The same in bytes.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Changed rows in a window, beyond which it is split: what a node has by default.
const WINDOW_ROWS: usize = 100_000;

/// Opens databases as sources.
pub struct Sources {
    options: Options,
    feed: Option<Arc<Feed<LogReader>>>,
    clock: Arc<dyn Clock>,
}

impl Sources {
    /// Of the databases that a client may name.
    pub fn new(options: Options) -> Self {
        Self { options, feed: None, clock: Arc::new(SystemClock) }
    }

    /// Of a node's own database, whose feed reads the log; `None` where the node captures nothing.
    pub fn of_node(database: PathBuf, feed: Option<Arc<Feed<LogReader>>>, clock: Arc<dyn Clock>) -> Self {
        let options = Options { local: Some(database), ..Options::default() };
        Self { options, feed, clock }
    }

    fn open_database(&self, spec: &[u8]) -> Result<Database, Error> {
        let spec = Spec::parse(spec).map_err(|error| Error::Sync(crate::sqlite::said(&error)))?;
        let path = self.options.file(&spec.connection_string);
        let path = path.map_err(|error| Error::Sync(crate::sqlite::said(&error)))?;
        let pages = Pages::open(path.clone())?;
        Ok(Database {
            path,
            spec,
            pages,
            feed: self.feed.clone(),
            clock: Arc::clone(&self.clock),
            is_node: self.options.local.is_some(),
        })
    }
}

impl SourceFactory for Sources {
    fn open<'a>(
        &'a self,
        spec: &'a [u8],
        _no_connection: bool,
    ) -> BoxFuture<'a, Result<Arc<dyn Source>, cloudquery::Error>> {
        // The tables are in the database: without a connection there is nothing to say of it, and reading it writes
        // nothing.
        Box::pin(async move {
            let database = self.open_database(spec).map_err(told)?;
            Ok(Arc::new(database) as Arc<dyn Source>)
        })
    }
}

fn told(error: Error) -> cloudquery::Error {
    match error {
        Error::CloudQuery(error) => error,
        error => cloudquery::Error::Source(Box::new(error)),
    }
}

/// One database.
struct Database {
    path: PathBuf,
    spec: Spec,
    pages: Db<Pages>,
    feed: Option<Arc<Feed<LogReader>>>,
    clock: Arc<dyn Clock>,
    is_node: bool,
}

impl Database {
    /// The wanted tables.
    async fn wanted(&self, wanted: &Wanted, options: TableOptions) -> Result<Vec<SourceTable>, Error> {
        let all = self.pages.call(move |pages| pages.tables(options)).await??;
        let chosen = wanted.select(all.iter().map(|table| table.table.clone()).collect())?;
        let is_chosen = |table: &SourceTable| chosen.iter().any(|one| one.name == table.table.name);
        Ok(all.into_iter().filter(is_chosen).collect())
    }

    async fn run(&self, request: SyncRequest, messages: mpsc::Sender<SyncMessage>) -> Result<(), Error> {
        let cdc = self.spec.cdc || request.backend.is_some();
        let of_no_source = cdc && request.backend.is_none();
        let options = TableOptions { key_is_cq_id: request.deterministic_cq_id, incremental: cdc, of_no_source };
        let tables = of_shard(self.wanted(&request.wanted, options).await?, request.shard);
        if tables.is_empty() && request.shard.is_none() {
            return Err(Error::Sync(
                "no tables specified for syncing, review `tables` and `skip_tables` in your config and specify at least \
                 one table to sync"
                    .to_owned(),
            ));
        }
        let rules =
            RowRules { on_type_mismatch: self.spec.on_type_mismatch, deterministic_cq_id: request.deterministic_cq_id };
        let limits = PageLimits {
            rows: self.spec.batch_size.get().min(PAGE_ROWS_MAX),
            bytes: self.spec.batch_size_bytes.get().min(PAGE_BYTES_MAX),
        };
        if !cdc || tables.is_empty() {
            return everything(&self.pages, tables, (rules, limits), &messages).await;
        }
        let outflow = OutflowOptions {
            selection: Arc::new(just(&tables)),
            tables: options,
            rows: rules,
            window_rows: WINDOW_ROWS,
            batch_rows: limits.rows,
            batch_bytes: limits.bytes,
            bounds: RangeBounds { rows_max: limits.rows, bytes_max: limits.bytes },
        };
        let consumer = request.shard.map_or_else(
            || self.spec.consumer.clone(),
            |shard| format!("{} {}/{}", self.spec.consumer, shard.num, shard.total),
        );
        let captured = self.captured().await?;
        changes(&captured, ChangesRequest { consumer, options: outflow, request }, &messages, &self.clock).await
    }

    async fn captured(&self) -> Result<Captured, Error> {
        match &self.feed {
            Some(feed) => Ok(Captured::of_node(Arc::clone(feed))),
            None if self.is_node => Err(Error::Sync(
                "this node captures nothing, for none of its links sends; sync without `cdc` and without a state backend"
                    .to_owned(),
            )),
            None => Captured::open(&self.path, &self.clock).await,
        }
    }
}

impl Source for Database {
    fn tables(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Table>, cloudquery::Error>> {
        Box::pin(async move {
            let options = TableOptions { incremental: self.spec.cdc, ..TableOptions::default() };
            let tables = self.wanted(&wanted, options).await.map_err(told)?;
            Ok(tables.into_iter().map(|table| table.table).collect())
        })
    }

    fn sync(
        &self,
        request: SyncRequest,
        messages: mpsc::Sender<SyncMessage>,
    ) -> BoxFuture<'_, Result<(), cloudquery::Error>> {
        Box::pin(async move { self.run(request, messages).await.map_err(told) })
    }
}

/// The tables of one shard: a run of them, as the SDK cuts them.
fn of_shard(tables: Vec<SourceTable>, shard: Option<Shard>) -> Vec<SourceTable> {
    let Some(Shard { num, total }) = shard else { return tables };
    let (num, total) = (num.max(1) as usize, total.max(1) as usize);
    let each = tables.len().div_ceil(total);
    tables.into_iter().skip((num - 1).saturating_mul(each)).take(each).collect()
}

/// A selection of just these tables: a glob in a name is no glob.
fn just(tables: &[SourceTable]) -> Selection {
    let plain = |name: &str| -> String {
        name.chars().map(|c| if "?*[]{}\\".contains(c) { format!("[{c}]") } else { c.to_string() }).collect()
    };
    let globs: Vec<String> = tables.iter().map(|table| plain(&table.schema.name)).collect();
    Selection::new(&globs, &[]).expect("escaped names are globs")
}
