//! The engine: reads the log of one database and hands its events to a handler, for as long as it is let.
//!
//! ```no_run
//! # use twinlite::events::{ChangesHandler, Engine, Ended, Error};
//! # async fn example(mut handler: Box<dyn ChangesHandler>) -> Result<Ended, Error> {
//! let stop = tokio_util::sync::CancellationToken::new();
//! Engine::new("app.db").tables(["orders"]).setup(true).bootstrap(true).cdc(true).run(&mut *handler, stop).await
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::keeper::{Keeper, Keeping};
use super::session::Session;
use super::{ChangesHandler, Error, start};
use crate::admin::ConsumerLock;
use crate::capture::{Maintainer, Retention};
use crate::config::{EVENT_BATCH_SIZE, OnGap};
use crate::model::{Clock, Position, Selection, SystemClock};
use crate::sqlite::{self, Db};

/// The consumer's name, unless it is said.
pub const CONSUMER: &str = "cdc";

/// Characters of a consumer's name at most: it is printed in tables and stands in messages.
const NAME_CHARACTERS_MAX: usize = 100;

/// Why an engine ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was asked for is done: a setup, a bootstrap.
    Done,
    /// It was told to.
    Cancelled,
}

/// What an engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It gives every row of its tables.
    Bootstrap,
    /// It gives changes as they come.
    Live,
}

/// How far an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub state: State,
    /// Up to where in the log its events were taken.
    pub position: Position,
    /// Where the log ended when it was last read.
    pub head: i64,
    /// Events taken since it started.
    pub events: u64,
}

/// Who is told how far an engine is.
pub type Observer = Arc<dyn Fn(Progress) + Send + Sync>;

/// An engine that is yet to run. Its options are those of `twinlite cdc`.
#[derive(Clone)]
pub struct Engine {
    pub(super) database: PathBuf,
    pub(super) tables: Vec<String>,
    pub(super) selection: Selection,
    pub(super) batch_size: usize,
    pub(super) log_table: Option<String>,
    pub(super) consumer: String,
    pub(super) setup: bool,
    pub(super) take_over: bool,
    pub(super) bootstrap: bool,
    pub(super) cdc: bool,
    pub(super) on_gap: OnGap,
    pub(super) beside: bool,
    pub(super) retention: Option<Retention>,
    pub(super) busy_timeout: Option<Duration>,
    pub(super) observer: Option<Observer>,
    pub(super) output: String,
    pub(super) clock: Arc<dyn Clock>,
}

impl Engine {
    /// An engine for that database, with every default: all tables, and nothing to do yet. See [`Self::setup`],
    /// [`Self::bootstrap`] and [`Self::cdc`].
    pub fn new(database: impl AsRef<Path>) -> Self {
        Self {
            database: database.as_ref().to_owned(),
            tables: Vec::new(),
            selection: Selection::all(),
            batch_size: EVENT_BATCH_SIZE,
            log_table: None,
            consumer: CONSUMER.to_owned(),
            setup: false,
            take_over: false,
            bootstrap: false,
            cdc: false,
            on_gap: OnGap::default(),
            beside: false,
            retention: None,
            busy_timeout: None,
            observer: None,
            output: "a handler".to_owned(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Only these tables, by name. Each has to be there. None: every table that is captured.
    #[must_use]
    pub fn tables<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.tables = names.into_iter().map(Into::into).collect();
        self
    }

    /// Only tables that the globs of a configuration mean; besides [`Self::tables`].
    #[must_use]
    pub fn selection(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }

    /// Events in a batch at most; at least 1.
    #[must_use]
    pub fn batch_size(self, events: usize) -> Self {
        Self { batch_size: events.max(1), ..self }
    }

    /// The log's name; begins with `__cdc_`. Unless it is said: the one that is there, or `__cdc_log`.
    #[must_use]
    pub fn log_table(self, name: impl Into<String>) -> Self {
        Self { log_table: Some(name.into()), ..self }
    }

    /// The consumer's name: it goes on where the last engine of that name stopped.
    #[must_use]
    pub fn consumer(self, name: impl Into<String>) -> Self {
        Self { consumer: name.into(), ..self }
    }

    /// Installs capture first, with images, and has the consumer begin there if it is new. A log of keys that is there is
    /// not changed: that is an error which names the command. Without a setup its events are had as they are.
    #[must_use]
    pub fn setup(self, setup: bool) -> Self {
        Self { setup, ..self }
    }

    /// With [`Self::setup`]: takes a log of sqlite-cdc over. What it holds is handed over first.
    #[must_use]
    pub fn take_over(self, take_over: bool) -> Self {
        Self { take_over, ..self }
    }

    /// Gives an INSERT for each row of each table, and goes on with a bootstrap that was not finished. Without
    /// [`Self::cdc`] it ends then.
    #[must_use]
    pub fn bootstrap(self, bootstrap: bool) -> Self {
        Self { bootstrap, ..self }
    }

    /// Gives changes as they come, until it is cancelled.
    #[must_use]
    pub fn cdc(self, cdc: bool) -> Self {
        Self { cdc, ..self }
    }

    /// What to do where a schema change made a table unsure.
    #[must_use]
    pub fn on_gap(self, on_gap: OnGap) -> Self {
        Self { on_gap, ..self }
    }

    /// Whether this process owns the database already (it runs a node on it), so that the engine never tries to.
    #[must_use]
    pub fn beside_owner(self, beside: bool) -> Self {
        Self { beside, ..self }
    }

    /// What bounds the log, where this engine owns the database. Unless it is said: what was said at the last setup.
    #[must_use]
    pub fn retention(self, retention: Retention) -> Self {
        Self { retention: Some(retention), ..self }
    }

    /// How long a statement of ours waits for a lock.
    #[must_use]
    pub fn busy_timeout(self, timeout: Duration) -> Self {
        Self { busy_timeout: Some(timeout), ..self }
    }

    /// Who is told how far it is: after each batch, and where there was none, after each read.
    #[must_use]
    pub fn observer(self, observer: Observer) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// What `status` says of where the events go, where this engine owns the database.
    #[must_use]
    pub fn output(self, shown: impl Into<String>) -> Self {
        Self { output: shown.into(), ..self }
    }

    /// What tells the time.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Runs until everything that was asked for is done, `cancel` is cancelled, or something stands in the way. One call
    /// of the handler at a time; what it has taken is noted before this returns.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(self, handler: &mut dyn ChangesHandler, cancel: CancellationToken) -> Result<Ended, Error> {
        let name = &self.consumer;
        if name.is_empty() || name.chars().count() > NAME_CHARACTERS_MAX || name.chars().any(char::is_control) {
            return Err(Error::Name { name: name.clone(), max: NAME_CHARACTERS_MAX });
        }
        if !self.database.exists() {
            return Err(sqlite::Error::Missing { path: self.database.clone() }.into());
        }
        let lock = ConsumerLock::acquire_after_another(&self.database, name).await?;
        let maintainer = self.open().await?;
        let keeping = Keeping {
            database: self.database.clone(),
            beside: self.beside,
            retention: self.retention,
            clock: Arc::clone(&self.clock),
        };
        let keeper = Keeper::start(keeping, maintainer.clone())?;
        let ended = self.run_kept((&maintainer, &keeper), handler, cancel).await;
        keeper.stop().await;
        maintainer.close().await;
        drop(lock);
        ended
    }

    async fn run_kept(
        &self,
        (maintainer, keeper): (&Db<Maintainer>, &Keeper),
        handler: &mut dyn ChangesHandler,
        cancel: CancellationToken,
    ) -> Result<Ended, Error> {
        let start = start::start(self, maintainer, keeper).await?;
        keeper.installed();
        if !self.bootstrap && !self.cdc && !self.take_over {
            let (consumer, database) = (&self.consumer, self.database.display());
            tracing::info!(
                "the change log is kept for consumer {consumer:?} from here on: where it is not to run, `twinlite \
                 consumers drop --db {database} {consumer}`"
            );
            return Ok(Ended::Done);
        }
        let status = keeper.board().events(&self.consumer, &self.output);
        handler.begins(&status, &cancel);
        let mut session = Session::open(self, start, maintainer.clone()).await?.shown_by(status);
        let ended = session.run(keeper, handler, &cancel).await;
        session.close(ended).await
    }

    async fn open(&self) -> Result<Db<Maintainer>, Error> {
        let engine = self.clone();
        let open = move || start::open(&engine);
        let spawned = tokio::task::spawn_blocking(move || Db::spawn("events-writer", open)).await;
        spawned.map_err(|_| Error::Closed(sqlite::Closed))?
    }
}
