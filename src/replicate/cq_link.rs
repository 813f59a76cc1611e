//! A link to a CloudQuery destination: any plugin that serves there takes the place of a node.
//!
//! A destination keeps nothing for us, so how far it is stands here, in the source's database
//! ([`crate::capture::note_progress`]), and moves only to what the destination has said to have committed: one flush a
//! window where it can, else one Write a window. Noted at most once a second, for each note is a write beside the
//! application; what was said after the last note is said again after a crash, and has the same effect, for rows are
//! named by their keys.
//!
//! Not promised: that a reader of the destination sees whole transactions, or a table that is copied again (after drift,
//! a resync, a log that was cut off) without a time in which rows are missing: they are removed, then sent.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::cq_source::{Outflow, OutflowOptions, OutflowStart, Outlet, Said};
use super::feed::Feed;
use super::tries::Tries;
use crate::capture::consumers::CLOUDQUERY;
use crate::capture::source::ChangeSource;
use crate::capture::{self, GivenTable, Maintainer};
use crate::cloudquery::client::{Address, PluginClient, WriteSession};
use crate::cloudquery::proto::plugin::write::request::Message;
use crate::cloudquery::proto::plugin::write::{MessageInsert, MessageMigrateTable};
use crate::cloudquery::source::SyncMessage;
use crate::cloudquery::table::schema_keys;
use crate::cloudquery::{MESSAGE_BYTES_MAX, Table, ipc};
use crate::model::{Checkpoint, Clock, CopyState, NodeId};
use crate::sqlite::store;
use crate::telemetry::{Heard, LinkHandle, LinkState, TableReport, TableState, failpoint};

/// How often progress is noted at most; and how often `status` hears that the destination is there.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// The largest record that fits a message, with room for what stands around it.
const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;

/// One link, for as long as its node runs.
pub struct CloudQueryLink<S: ChangeSource> {
    /// Its name, by which the log is kept for it.
    pub name: String,
    /// Where the destination is.
    pub address: String,
    /// The destination's spec, as JSON.
    pub spec: String,
    /// Whether tables may be made anew there where they differ, and every row of them is about to be sent.
    pub forced: bool,
    /// How changes are cut, and rows made.
    pub options: OutflowOptions,
    /// The reader.
    pub feed: Arc<Feed<S>>,
    /// Where `status` reads.
    pub status: LinkHandle,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Ends it, after the window at hand.
    pub stop: CancellationToken,
    /// Cancelled where a database's thread has ended.
    pub broken: CancellationToken,
}

impl<S: ChangeSource> CloudQueryLink<S> {
    /// Runs until `stop` is cancelled.
    pub async fn run(self) {
        let mut tries = Tries::default();
        while !self.stop.is_cancelled() {
            let mut session = Session::new(&self);
            let outcome = session.run().await;
            if session.committed {
                tries.was_good();
            }
            self.status.connected(false);
            if let Err(error) = outcome {
                self.pause(&error, &mut tries).await;
            }
        }
    }

    /// Says what is wrong, once, and waits as it asks.
    async fn pause(&self, error: &Error, tries: &mut Tries) {
        let trouble = error.trouble();
        if matches!(error, Error::Sqlite(crate::sqlite::Error::Closed(_))) {
            self.broken.cancel();
        }
        let wait = tries.failed(&self.name, error, (&trouble, false));
        self.status.trouble(&trouble, error.link_state(), None);
        self.status.board().metrics().reconnects_total.one();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep(wait) => {}
        }
    }
}

/// One connection to the destination.
struct Session<'a, S: ChangeSource> {
    link: &'a CloudQueryLink<S>,
    id: NodeId,
    noted_at: Instant,
    unnoted: Option<(Checkpoint, Vec<GivenTable>)>,
    committed: bool,
}

impl<'a, S: ChangeSource> Session<'a, S> {
    fn new(link: &'a CloudQueryLink<S>) -> Self {
        Self { link, id: NodeId(0), noted_at: Instant::now(), unnoted: None, committed: false }
    }

    async fn run(&mut self) -> Result<(), Error> {
        let plugin = format!("destination \"{}\"", self.link.name);
        let bad =
            || crate::cloudquery::client::Error::Address { plugin: plugin.clone(), address: self.link.address.clone() };
        let address = Address::parse(&self.link.address).ok_or_else(bad)?;
        let client = PluginClient::connect(&plugin, &address).await?;
        let initialized = client.init(self.link.spec.clone().into(), false, &invocation()).await?;
        tracing::info!(link = self.link.name, peer = self.link.address, "connected");
        self.link.status.connected(true);
        let start = self.start().await?;
        let mut outflow = Outflow::new(Arc::clone(&self.link.feed), self.link.options.clone(), &start);
        let forced = self.link.forced;
        let mut writer = Writer { client, flushes: initialized.supports_flush, forced, open: None };
        let outcome = self.send(&mut outflow, &mut writer).await;
        // What is committed is committed, however the session ended.
        let noted = self.note().await;
        outcome.and(noted)
    }

    /// Where the destination is, by what is noted; what was never noted begins with the log's end and a copy.
    async fn start(&mut self) -> Result<OutflowStart, Error> {
        let feed = &self.link.feed;
        feed.reconcile().await?;
        let name = self.link.name.clone();
        let read = move |maintainer: &mut Maintainer| capture::read_progress(maintainer.connection(), &name);
        let noted = feed.maintainer().call(read).await??;
        let head = feed.log_state().await?.head;
        self.id = noted.as_ref().map_or_else(|| NodeId(store::random_positive()), |noted| noted.id);
        let start = match noted {
            None => OutflowStart { from: head, given: Vec::new(), anew: false },
            Some(capture::Progress { checkpoint: Some(from), tables, .. }) => {
                OutflowStart { from, given: tables, anew: false }
            }
            Some(capture::Progress { checkpoint: None, tables, .. }) => {
                tracing::warn!(link = self.link.name, "the log no longer reaches back to the destination: copy again");
                OutflowStart { from: head, given: tables, anew: true }
            }
        };
        // An outflow that begins anew is noted so before anything is removed: a crash must not forget what was there.
        let given = super::cq_source::Book::new(&start.given, start.anew).given();
        self.unnoted = Some((start.from, given));
        self.note().await?;
        Ok(start)
    }

    async fn send(&mut self, outflow: &mut Outflow<S>, writer: &mut Writer) -> Result<(), Error> {
        let mut changed = self.link.feed.changed();
        while !self.link.stop.is_cancelled() {
            changed.borrow_and_update();
            let said = outflow.next(writer).await?;
            if let Some(said) = said {
                failpoint::hit(failpoint::LINK_AFTER_SEND);
                writer.commit().await?;
                failpoint::hit(failpoint::SENDER_BEFORE_ACK);
                self.take_commit(outflow, said);
                if self.noted_at.elapsed() >= NOTE_EVERY {
                    self.note().await?;
                    failpoint::hit(failpoint::SENDER_AFTER_ACK);
                }
            }
            if said.is_some_and(|said| !said.last_part) || !outflow.book().done() {
                continue;
            }
            self.wait(&mut changed, outflow.position()).await?;
        }
        Ok(())
    }

    /// Waits until there may be more to say, and notes meanwhile what was said.
    async fn wait(&mut self, changed: &mut tokio::sync::watch::Receiver<u64>, at: Checkpoint) -> Result<(), Error> {
        loop {
            let due = self.noted_at + NOTE_EVERY;
            tokio::select! {
                () = self.link.stop.cancelled() => return Ok(()),
                ticked = changed.changed() => {
                    if ticked.is_err() {
                        self.link.stop.cancelled().await;
                    }
                    return Ok(());
                }
                () = sleep_until(due), if self.unnoted.is_some() => self.note().await?,
                () = sleep(NOTE_EVERY) => self.show(at.position.seq),
            }
        }
    }

    fn take_commit(&mut self, outflow: &Outflow<S>, said: Said) {
        let given = outflow.book().given();
        self.committed = true;
        let status = &self.link.status;
        status.goes_on(if outflow.book().done() { LinkState::Live } else { LinkState::Snapshot }, true);
        status.applied(said.to.position, said.to.ts_ms);
        status.tables(given.iter().map(reported));
        self.show(said.head);
        let metrics = status.board().metrics();
        metrics.windows_sent_total.one();
        metrics.rows_sent_total.add(said.changes);
        self.unnoted = Some((said.to, given));
    }

    fn show(&self, head: i64) {
        let now_ms = self.link.clock.now_ms();
        self.link.status.heartbeat(Heard { head, behind_since_ms: None, sent_ms: now_ms, at_ms: now_ms });
    }

    /// Notes what is committed there. Only then may the log be pruned up to there.
    async fn note(&mut self) -> Result<(), Error> {
        let Some((at, given)) = self.unnoted.take() else { return Ok(()) };
        let (name, id, clock) = (self.link.name.clone(), self.id, Arc::clone(&self.link.clock));
        let note = move |maintainer: &mut Maintainer| {
            capture::note_progress(maintainer.connection_mut(), (&name, CLOUDQUERY), (id, at.position, &given), &*clock)
        };
        self.link.feed.maintainer().call(note).await??;
        self.noted_at = Instant::now();
        self.link.feed.acknowledge(&self.link.name, at.position.seq);
        Ok(())
    }
}

/// What a destination's log lines are told by.
fn invocation() -> String {
    format!("{:016x}", store::random_positive())
}

fn reported(table: &GivenTable) -> TableReport {
    let state = match table.state {
        CopyState::Pending => TableState::Pending,
        CopyState::Copying { .. } => TableState::Snapshot,
        CopyState::Done => TableState::Live,
    };
    TableReport { generation: Some(table.id.0), ..TableReport::new(&table.name, state) }
}

/// Writes to the destination: one stream for all windows where it can flush, else one for each.
struct Writer {
    client: PluginClient,
    flushes: bool,
    forced: bool,
    open: Option<WriteSession>,
}

impl Writer {
    /// Waits until everything that was written is committed.
    async fn commit(&mut self) -> Result<(), Error> {
        let Some(mut session) = self.open.take() else { return Ok(()) };
        if self.flushes {
            session.flush().await?;
            self.open = Some(session);
        } else {
            session.finish().await?;
        }
        Ok(())
    }
}

fn encode(message: SyncMessage) -> Result<Option<(String, Message)>, Error> {
    Ok(match message {
        SyncMessage::MigrateTable(table) => Some(migration(table, false)?),
        SyncMessage::Insert(batch) => {
            let name = batch.schema().metadata().get(schema_keys::NAME).cloned().unwrap_or_default();
            let record = ipc::encode_record(&batch)?;
            if record.len() > RECORD_BYTES_MAX {
                return Err(Error::Sync(too_large(&name, &batch, record.len())));
            }
            Some((name, Message::Insert(MessageInsert { record })))
        }
        SyncMessage::DeleteRecord(delete) => Some((delete.table.clone(), Message::DeleteRecord(delete.to_write()?))),
        // An outflow says neither.
        SyncMessage::Error { .. } | SyncMessage::Checkpoint(_) => None,
    })
}

fn too_large(table: &str, batch: &RecordBatch, bytes: usize) -> String {
    format!(
        "table {table:?}: a record of {} row(s) takes {bytes} bytes, and no plugin takes a message of more than \
         {MESSAGE_BYTES_MAX}; leave the table out, or make its values smaller",
        batch.num_rows()
    )
}

fn migration(table: Table, migrate_force: bool) -> Result<(String, Message), Error> {
    let schema = ipc::encode_schema(&table.to_schema())?;
    Ok((table.name, Message::MigrateTable(MessageMigrateTable { table: schema, migrate_force })))
}

impl Outlet for Writer {
    async fn put(&mut self, message: SyncMessage) -> Result<(), Error> {
        match encode(message)? {
            Some((table, message)) => self.send(&table, message).await,
            None => Ok(()),
        }
    }

    /// Forced only where every row follows: of a table that is there already, and that somebody changed there, a forced
    /// migration would leave what changes from now on.
    async fn table(&mut self, table: Table, whole: bool) -> Result<(), Error> {
        let (name, message) = migration(table, self.forced && whole)?;
        self.send(&name, message).await
    }
}

impl Writer {
    async fn send(&mut self, table: &str, message: Message) -> Result<(), Error> {
        let session = match &mut self.open {
            Some(session) => session,
            none if self.flushes => none.insert(self.client.write_stream()),
            none => none.insert(self.client.write()),
        };
        Ok(session.send(table, message).await?)
    }
}
