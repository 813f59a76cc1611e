//! A sync of changes: everything the first time, afterwards what the change log has, deletions too.
//!
//! The log is kept for the sync's *consumer*. Where the sync has a state backend, what is durable is what was read from
//! there when it began, and the log is kept from there; otherwise the consumer's own position moves when every message
//! was handed over, as CloudQuery's SDK does it. A state that the log does not reach back to, or that is of another
//! epoch, begins anew: every table's rows are removed at the destination and sent again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};

use super::book::Book;
use super::outflow::{Outflow, OutflowOptions, OutflowStart, Outlet};
use super::state::{State, StateStore};
use crate::admin::Owner;
use crate::capture::consumers::CLOUDQUERY;
use crate::capture::reader::LogReader;
use crate::capture::{self, CaptureOptions, CheckpointVerdict, GivenTable, LogState, Maintainer};
use crate::cloudquery::source::{SyncMessage, SyncRequest};
use crate::model::{Checkpoint, Clock, NodeId, Position};
use crate::replicate::Error;
use crate::replicate::feed::{Feed, Shelf};
use crate::sqlite::{Db, store};
use crate::telemetry::Board;

/// How often pruning goes on after a sync, a bounded number of entries each time.
const PRUNES_MAX: usize = 100;

/// A captured database, read by this process.
pub(super) struct Captured {
    pub feed: Arc<Feed<LogReader>>,
    /// Where nobody else owns the database: then it is ours for as long as this lives.
    owner: Option<Owner>,
}

impl Captured {
    /// A node's own: it prunes.
    pub fn of_node(feed: Arc<Feed<LogReader>>) -> Self {
        Self { feed, owner: None }
    }

    /// Puts capture in place where nobody owns the database, and reads along where somebody does.
    pub async fn open(path: &Path, clock: &Arc<dyn Clock>) -> Result<Self, Error> {
        let owner = match Owner::acquire(path) {
            Ok(owner) => Some(owner),
            Err(crate::admin::Error::Owned { .. }) => None,
            Err(error) => return Err(Error::Sync(crate::sqlite::said(&error))),
        };
        let (file, our_clock, owned) = (path.to_owned(), Arc::clone(clock), owner.is_some());
        let maintainer = Db::spawn("maintainer", move || maintain(&file, our_clock, owned))?;
        let (file, reads) = (path.to_owned(), Arc::new(AtomicU64::new(0)));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (spool_dir, counted) = (folder.to_owned(), Arc::clone(&reads));
        let shelf =
            Db::spawn("reader", move || LogReader::open(&file).map(|reader| Shelf::new(reader, spool_dir, counted)))?;
        // Nobody waits for changes: a sync reads what there is, and ends.
        let (_, changed) = watch::channel(0);
        let board = Board::new("cloudquery", &path.display().to_string(), Arc::clone(clock));
        let feed = Arc::new(Feed::new((shelf, maintainer), changed, reads, board));
        Ok(Self { feed, owner })
    }

    /// Removes what no consumer needs any more, where nobody else does.
    async fn prune(&self) -> Result<(), Error> {
        if self.owner.is_none() {
            return Ok(());
        }
        for _ in 0..PRUNES_MAX {
            if !self.feed.maintainer().call(|maintainer| maintainer.prune(Vec::new())).await??.more {
                break;
            }
        }
        Ok(())
    }
}

fn maintain(path: &Path, clock: Arc<dyn Clock>, owned: bool) -> Result<Maintainer, Error> {
    let look = crate::sqlite::open(path, crate::sqlite::Role::Reader, false)?;
    let stored = CaptureOptions::stored(&look)?;
    if stored.is_none() && !owned {
        return Err(Error::Sync(format!(
            "{}: another process owns this database and captures nothing of it; give its node a link that sends, or stop \
             it and run `twinlite setup`",
            path.display()
        )));
    }
    let mut maintainer = Maintainer::open(path, stored.unwrap_or_default(), clock)?;
    if owned {
        for line in maintainer.install()?.did {
            tracing::info!("{line}");
        }
    }
    Ok(maintainer)
}

/// What a sync of changes is told.
pub(super) struct ChangesRequest {
    /// Under which name the log is kept.
    pub consumer: String,
    /// How the outflow is cut and made.
    pub options: OutflowOptions,
    /// What the client asked for.
    pub request: SyncRequest,
}

/// Sends what is new.
pub(super) async fn changes(
    captured: &Captured,
    asked: ChangesRequest,
    messages: &mpsc::Sender<SyncMessage>,
    clock: &Arc<dyn Clock>,
) -> Result<(), Error> {
    let ChangesRequest { consumer, options, request } = asked;
    let feed = &captured.feed;
    feed.reconcile().await?;
    let log = feed.log_state().await?;
    let name = consumer.clone();
    let noted =
        feed.maintainer().call(move |maintainer| capture::read_progress(maintainer.connection(), &name)).await??;
    let id = noted.as_ref().map_or_else(|| NodeId(store::random_positive()), |noted| noted.id);
    let (mut backend, start) = match &request.backend {
        Some(backend) => {
            let key = format!("twinlite/{}/{consumer}", log.node);
            let (store, state) = StateStore::open(backend, key).await?;
            let start = match state {
                Some(state) => from_state(feed, state, &log).await?,
                None => without_state(noted, &log),
            };
            (Some(store), start)
        }
        None => (None, from_noted(noted, &log)),
    };
    let mut notes = Notes { feed, consumer, id, clock };
    // From here on the log is kept for us. What begins anew is noted so: if this sync fails, the next one begins anew, too.
    // Where the state is elsewhere, everything is: a sync that does not have that state knows only which tables there are.
    let noted = |given: &[GivenTable], anew: bool| Book::new(given, anew).given();
    let elsewhere = backend.is_some();
    notes.note(start.from.position, noted(&start.given, start.anew || elsewhere)).await?;
    let mut outflow = Outflow::new(Arc::clone(feed), options, &start);
    let mut outlet = Channel { messages };
    loop {
        match outflow.next(&mut outlet).await? {
            Some(said) if !(said.last_part && outflow.book().done()) => {}
            Some(_) => break,
            None if outflow.book().done() => break,
            None => {}
        }
        if messages.is_closed() {
            return Ok(());
        }
    }
    let (at, given) = (outflow.position(), outflow.book().given());
    match &mut backend {
        Some(store) if request.supports_checkpoints => {
            let record = store.record(&State::new(at, &given))?;
            outlet.put(SyncMessage::Checkpoint(record)).await?;
        }
        // What is durable there is known when the next sync begins.
        Some(store) => store.save(&State::new(at, &given)).await?,
        None => notes.note(at.position, given.clone()).await?,
    }
    if elsewhere {
        notes.note(start.from.position, noted(&given, true)).await?;
    }
    captured.prune().await
}

/// Where the consumer's progress is noted in the database.
struct Notes<'a> {
    feed: &'a Feed<LogReader>,
    consumer: String,
    id: NodeId,
    clock: &'a Arc<dyn Clock>,
}

impl Notes<'_> {
    async fn note(&mut self, at: Position, given: Vec<GivenTable>) -> Result<(), Error> {
        let (name, id, clock) = (self.consumer.clone(), self.id, Arc::clone(self.clock));
        let note = move |maintainer: &mut Maintainer| {
            capture::note_progress(maintainer.connection_mut(), (&name, CLOUDQUERY), (id, at, &given), &*clock)
        };
        Ok(self.feed.maintainer().call(note).await??)
    }
}

async fn from_state(feed: &Feed<LogReader>, state: State, log: &LogState) -> Result<OutflowStart, Error> {
    let anew = match feed.judge(state.checkpoint()).await? {
        CheckpointVerdict::Known => {
            return Ok(OutflowStart { from: state.checkpoint(), given: state.given(), anew: false });
        }
        CheckpointVerdict::CutOff => "the change log no longer reaches back to the state".to_owned(),
        CheckpointVerdict::Diverged { why } => format!("the state is not of this change log: {why}"),
    };
    tracing::warn!("{anew}: everything is synced again");
    Ok(OutflowStart { from: log.head, given: state.given(), anew: true })
}

/// No state is there: the first sync, or one after the state was lost, whose destination may have rows that are gone here.
fn without_state(noted: Option<capture::Progress>, log: &LogState) -> OutflowStart {
    match noted {
        Some(capture::Progress { tables, .. }) if !tables.is_empty() => {
            tracing::warn!("the state of earlier syncs is gone: everything is synced again");
            OutflowStart { from: log.head, given: tables, anew: true }
        }
        Some(_) | None => first(log.head),
    }
}

fn from_noted(noted: Option<capture::Progress>, log: &LogState) -> OutflowStart {
    match noted {
        None => first(log.head),
        Some(capture::Progress { checkpoint: Some(from), tables, .. }) => {
            OutflowStart { from, given: tables, anew: false }
        }
        Some(capture::Progress { checkpoint: None, tables, .. }) => {
            tracing::warn!("the change log no longer reaches back to the last sync: everything is synced again");
            OutflowStart { from: log.head, given: tables, anew: true }
        }
    }
}

fn first(head: Checkpoint) -> OutflowStart {
    OutflowStart { from: head, given: Vec::new(), anew: false }
}

/// The server's channel. Where nobody reads it any more the sync has nobody to fail for.
struct Channel<'a> {
    messages: &'a mpsc::Sender<SyncMessage>,
}

impl Outlet for Channel<'_> {
    async fn put(&mut self, message: SyncMessage) -> Result<(), Error> {
        self.messages.send(message).await.map_err(|_| Error::Sync("the client went away".to_owned()))
    }
}
