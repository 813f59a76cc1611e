//! Reads windows for every link of a node: one reader a database.
//!
//! A window is read and encoded once; links that want the same tables from the same position share it. A link that is
//! behind, or that copies a table, reads on its own. When the schema has moved, the maintainer reconciles the capture
//! first, and then the window is read.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use tokio::sync::watch;

use super::Error;
use crate::capture::source::{ChangeSource, ReadOutcome, ReadRequest, ReadWindow};
use crate::capture::{self, CheckpointVerdict, LogState, Maintainer, change_log};
use crate::link::{Spool, Spooled};
use crate::model::{Checkpoint, LogTail, NodeId, Position, SchemaKinds, Selection};
use crate::sqlite::Db;
use crate::telemetry::{Board, failpoint};

/// Windows kept for other links to share: as many as a link may have unacknowledged while another is a moment behind.
const SHARED_WINDOWS_MAX: usize = 4;
/// Bytes that shared windows may hold in all: the same as a link may have in flight.
const SHARED_BYTES_MAX: u64 = 32 << 20;
/// How often a read is tried again because the schema moved in between, before it counts as a failure: an application
/// that migrates in a loop.
const SCHEMA_TRIES_MAX: u32 = 50;

/// A window, ready to be sent to any link that asked for the same.
pub struct SharedWindow {
    /// What it covers.
    pub read: ReadWindow,
    /// Its items, encoded.
    pub spooled: Spooled,
}

/// What two links must have in common to share a window.
#[derive(Clone, PartialEq, Eq)]
struct ShareKey {
    after: i64,
    mark: Option<(i64, i64)>,
    catalog: i64,
    selection: Arc<Selection>,
    kinds: SchemaKinds,
    compression: crate::codec::Compression,
}

/// The reader's thread: the reader, and the windows that it read last.
pub struct Shelf<S> {
    source: S,
    spool_dir: PathBuf,
    shared: VecDeque<(ShareKey, Arc<SharedWindow>)>,
    reads: Arc<AtomicU64>,
}

enum Shelved {
    SchemaChanged,
    Nothing(Quiet),
    Window { window: Arc<SharedWindow>, read_now: bool },
}

impl<S: ChangeSource> Shelf<S> {
    /// A shelf over a source of changes.
    pub fn new(source: S, spool_dir: PathBuf, reads: Arc<AtomicU64>) -> Self {
        Self { source, spool_dir, shared: VecDeque::new(), reads }
    }

    /// The source, for what is not a window.
    pub fn source(&mut self) -> &mut S {
        &mut self.source
    }

    fn next(&mut self, request: &ReadRequest) -> Result<Shelved, Error> {
        let key = share_key(request);
        if let Some((_, window)) = key.as_ref().and_then(|key| self.shared.iter().find(|(have, _)| have == key)) {
            return Ok(Shelved::Window { window: Arc::clone(window), read_now: false });
        }
        let mut spool = Spool::new(&self.spool_dir);
        let outcome = self.source.read(request, &mut |item| spool.push(item))?;
        let read = match outcome {
            ReadOutcome::SchemaChanged => return Ok(Shelved::SchemaChanged),
            ReadOutcome::Nothing { head, seen, yielded } => {
                return Ok(Shelved::Nothing(Quiet { head, seen, yielded }));
            }
            ReadOutcome::Window(read) => read,
        };
        self.reads.fetch_add(1, Ordering::Relaxed);
        let window = Arc::new(SharedWindow { read, spooled: spool.finish() });
        if let Some(key) = key.filter(|key| key.catalog == window.read.catalog) {
            self.keep(key, &window);
        }
        Ok(Shelved::Window { window, read_now: true })
    }

    fn keep(&mut self, key: ShareKey, window: &Arc<SharedWindow>) {
        self.shared.push_back((key, Arc::clone(window)));
        let bytes = |shared: &VecDeque<(ShareKey, Arc<SharedWindow>)>| -> u64 {
            shared.iter().map(|(_, window)| window.spooled.bytes()).sum()
        };
        while self.shared.len() > SHARED_WINDOWS_MAX || bytes(&self.shared) > SHARED_BYTES_MAX {
            self.shared.pop_front();
        }
    }
}

/// What a request has in common with others; `None` where it is for one link alone.
fn share_key(request: &ReadRequest) -> Option<ShareKey> {
    if request.copy.is_some() || request.two_way.is_some() || request.window_rows.is_none() {
        return None;
    }
    Some(ShareKey {
        after: request.after,
        mark: request.mark,
        catalog: request.catalog_known?,
        selection: Arc::clone(&request.selection),
        kinds: request.kinds,
        compression: request.compression,
    })
}

/// A source that can tell cheaply whether anything was committed.
pub trait DataVersion {
    /// `PRAGMA data_version`.
    ///
    /// # Errors
    /// SQLite's.
    fn data_version(&mut self) -> Result<i64, capture::ReadError>;
}

impl DataVersion for capture::reader::LogReader {
    fn data_version(&mut self) -> Result<i64, capture::ReadError> {
        Self::data_version(self)
    }
}

/// What a read says that found nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The last sequence number.
    pub head: i64,
    /// How far the peer's log is applied here, where it is.
    pub seen: i64,
    /// Whether the copy that was asked for waits for the peer's own.
    pub yielded: bool,
}

/// Ticks for those who wait for changes, where `PRAGMA data_version` has moved.
pub struct Ticker {
    changed: watch::Sender<u64>,
    last: AtomicI64,
    /// Whether the reader's thread is asked already and has not looked yet.
    waiting: AtomicBool,
}

impl Ticker {
    /// One that ticks there; the first look always does.
    pub fn new(changed: watch::Sender<u64>) -> Self {
        Self { changed, last: AtomicI64::new(i64::MIN), waiting: AtomicBool::new(false) }
    }

    fn seen(&self, version: Option<i64>) {
        // A failure ticks too: the sender's own read meets it and reports it.
        if version.is_none_or(|version| self.last.swap(version, Ordering::AcqRel) != version) {
            self.changed.send_modify(|ticks| *ticks = ticks.wrapping_add(1));
        }
    }
}

/// What [`Feed::next`] has.
pub enum Next {
    /// Nothing that is new.
    Nothing(Quiet),
    /// A window.
    Window {
        /// What it holds.
        window: Arc<SharedWindow>,
        /// Whether it was read for this request. One that another link read may end before the newest commit, of which
        /// no further tick will tell.
        read_now: bool,
    },
}

/// Tells the feed how far its consumers are.
#[derive(Clone)]
pub struct Acknowledger(watch::Sender<BTreeMap<String, i64>>);

impl Acknowledger {
    /// A consumer needs nothing of the log up to here any more.
    pub fn acknowledge(&self, consumer: &str, seq: i64) {
        self.0.send_modify(|all| *all.entry(consumer.to_owned()).or_default() = seq);
    }

    /// What these have acknowledged counts no more, until they acknowledge again.
    pub fn forget(&self, consumers: &[String]) {
        self.0.send_modify(|all| all.retain(|name, _| !consumers.contains(name)));
    }
}

/// The reader of one database, shared by its links.
pub struct Feed<S: ChangeSource> {
    shelf: Db<Shelf<S>>,
    maintainer: Db<Maintainer>,
    changed: watch::Receiver<u64>,
    acknowledged: watch::Sender<BTreeMap<String, i64>>,
    reads: Arc<AtomicU64>,
    board: Board,
}

impl<S: ChangeSource> Feed<S> {
    /// A feed over the reader's and the maintainer's threads. `changed` ticks whenever the database may have changed,
    /// `reads` is counted by the reader's shelf, and `board` is where `status` reads what is captured.
    pub fn new(
        (shelf, maintainer): (Db<Shelf<S>>, Db<Maintainer>),
        changed: watch::Receiver<u64>,
        reads: Arc<AtomicU64>,
        board: Board,
    ) -> Self {
        Self { shelf, maintainer, changed, acknowledged: watch::channel(BTreeMap::new()).0, reads, board }
    }

    /// Where `status` reads, and what counts.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The next window for `request`. A schema that moved is reconciled on the way.
    ///
    /// # Errors
    /// The reader's or the maintainer's; [`Error::SchemaRestless`] where the schema moves faster than it can be read.
    pub async fn next(&self, request: ReadRequest) -> Result<Next, Error> {
        let request = Arc::new(request);
        for _ in 0..SCHEMA_TRIES_MAX {
            let asked = Arc::clone(&request);
            match self.shelf.call(move |shelf| shelf.next(&asked)).await?? {
                Shelved::Nothing(quiet) => return Ok(Next::Nothing(quiet)),
                Shelved::Window { window, read_now } => {
                    self.board.metrics().windows_read_total.set(self.reads());
                    failpoint::hit(failpoint::CAPTURE_AFTER_READ);
                    if window.read.copied.is_some() {
                        failpoint::hit(failpoint::SNAPSHOT_AFTER_RANGE_READ);
                    }
                    return Ok(Next::Window { window, read_now });
                }
                Shelved::SchemaChanged => self.reconcile().await?,
            }
        }
        Err(Error::SchemaRestless)
    }

    /// Makes the capture right after the schema has moved; cheap where it has not.
    ///
    /// # Errors
    /// The maintainer's.
    pub async fn reconcile(&self) -> Result<(), Error> {
        let reconciled = self.maintainer.call(Maintainer::reconcile).await??;
        if !reconciled.changed {
            return Ok(());
        }
        self.board.metrics().drifts_total.one();
        for (_, table) in &reconciled.copied_again {
            tracing::info!(table, "schema changed in a way that capture may have missed rows of: copy the table again");
        }
        for note in &reconciled.notes {
            tracing::info!("{note}");
            self.board.note(note.clone());
        }
        for table in &reconciled.skipped {
            tracing::debug!(table = table.name, reason = table.reason, "table is not replicated");
        }
        self.show_captured().await
    }

    /// Tells `status` what is captured and what is not.
    ///
    /// # Errors
    /// SQLite's.
    pub async fn show_captured(&self) -> Result<(), Error> {
        let read = |maintainer: &mut Maintainer| Ok::<_, capture::Error>((maintainer.tables()?, maintainer.skipped()?));
        let (captured, skipped) = self.maintainer.call(read).await??;
        self.board.set_captured(captured.into_iter().map(|table| (table.schema_name, Some(table.id.0))));
        self.board.set_skipped(skipped.into_iter().map(|table| (table.name, table.reason)));
        Ok(())
    }

    /// Who owns the log and how far it goes.
    ///
    /// # Errors
    /// SQLite's.
    pub async fn log_state(&self) -> Result<LogState, Error> {
        Ok(self.maintainer.call(|maintainer| maintainer.log_state()).await??)
    }

    /// Its newest entries, by which changes are counted.
    ///
    /// # Errors
    /// SQLite's.
    pub async fn log_tail(&self) -> Result<LogTail, Error> {
        Ok(self.maintainer.call(|maintainer| change_log::tail(maintainer.connection())).await??)
    }

    /// Whether a receiver's checkpoint is a place in this log.
    ///
    /// # Errors
    /// SQLite's.
    pub async fn judge(&self, checkpoint: Checkpoint) -> Result<CheckpointVerdict, Error> {
        Ok(self
            .maintainer
            .call(move |maintainer| capture::judge_checkpoint(maintainer.connection(), &checkpoint))
            .await??)
    }

    /// Ticks whenever the database may have changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// A consumer of the log is met: from here on the log is kept for it, within the retention.
    ///
    /// # Errors
    /// SQLite's.
    pub async fn meet(&self, consumer: &str, peer: NodeId, from: Position) -> Result<(), Error> {
        let consumer = consumer.to_owned();
        Ok(self.maintainer.call(move |maintainer| maintainer.meet_peer(&consumer, peer, from)).await??)
    }

    /// A consumer has durably applied the log up to here.
    pub fn acknowledge(&self, consumer: &str, seq: i64) {
        self.acknowledger().acknowledge(consumer, seq);
    }

    /// The same for whoever has no feed.
    pub fn acknowledger(&self) -> Acknowledger {
        Acknowledger(self.acknowledged.clone())
    }

    /// How far each consumer that was heard of has applied the log; ticks at each acknowledgement.
    pub fn acknowledged(&self) -> watch::Receiver<BTreeMap<String, i64>> {
        self.acknowledged.subscribe()
    }

    /// Ticks where another connection has committed to the database since this was last called. Waits for no answer: an
    /// idle node looks every second, and would wake another thread only to hear that nothing is new.
    pub async fn look(&self, ticker: &Arc<Ticker>)
    where
        S: DataVersion,
    {
        if ticker.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let ticking = Arc::clone(ticker);
        let asked = self.shelf.tell(move |shelf| {
            // What is committed from here on is asked for anew.
            ticking.waiting.store(false, Ordering::Release);
            ticking.seen(shelf.source().data_version().ok());
        });
        if asked.await.is_err() {
            ticker.seen(None);
        }
    }

    /// Closes both connections, after what was begun on them.
    pub async fn close(self) {
        self.shelf.close().await;
        self.maintainer.close().await;
    }

    /// The thread that writes what capture needs written.
    pub fn maintainer(&self) -> &Db<Maintainer> {
        &self.maintainer
    }

    /// How many windows were read from the database, not counting those that were shared.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{CaptureOptions, install, reader::LogReader};
    use crate::model::SystemClock;
    use crate::sqlite::{self, Role};

    fn request() -> ReadRequest {
        ReadRequest {
            after: 0,
            mark: None,
            catalog_known: None,
            selection: Arc::new(Selection::all()),
            kinds: SchemaKinds::ALL,
            copy: None,
            window_rows: Some(100),
            two_way: None,
            batch_rows: 100,
            batch_bytes: 1 << 20,
            compression: crate::codec::Compression::None,
        }
    }

    /// A link that got a window which another one had read before the newest commit waited for a tick that had come
    /// already: its replica stayed behind, and both ends said that it was not.
    #[test]
    fn a_window_that_another_link_read_says_that_it_may_be_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.db");
        let mut app = sqlite::open(&path, Role::Maintainer, true).expect("open");
        app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).expect("as an application");
        app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY)").expect("table");
        install(&mut app, &CaptureOptions::default(), &SystemClock).expect("install");
        let reader = LogReader::open(&path).expect("reader");
        let mut shelf = Shelf::new(reader, folder.path().to_owned(), Arc::default());
        let mut take = |request: &ReadRequest| match shelf.next(request).expect("read") {
            Shelved::Window { window, read_now } => (window, read_now),
            Shelved::SchemaChanged | Shelved::Nothing(_) => panic!("no window"),
        };
        app.execute_batch("INSERT INTO t VALUES (1)").expect("a change");
        let (first, _) = take(&request());
        let end = first.read.end.to;
        let next = ReadRequest {
            after: end.position.seq,
            mark: Some((end.ts_ms, end.fingerprint)),
            catalog_known: Some(first.read.catalog),
            ..request()
        };
        app.execute_batch("INSERT INTO t VALUES (2)").expect("a change");
        let (one, read_now) = take(&next);
        assert!(read_now);
        app.execute_batch("INSERT INTO t VALUES (3)").expect("a change");
        let (other, read_now) = take(&next);
        assert!(!read_now, "it ends before the newest commit");
        assert_eq!(other.read.end.to.position, one.read.end.to.position);
    }
}
