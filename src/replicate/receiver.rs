//! The receiving half of a session: frames in, windows applied, acknowledgements out.
//!
//! [`Assembly`] spools frames until a window is whole, without ever waiting for the database; [`Receiver`] applies whole
//! windows in order and acknowledges each once it is durable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::feed::Acknowledger;
use super::sender::{SenderState, WINDOWS_IN_FLIGHT_MAX};
use crate::apply::{Applied, Applier, HeldTable, LinkRules, Recorded, SourceError, TableStatus, Window};
use crate::link::{Ack, Begin, Commit, Frame, FrameSink, Need, Spool, Spooled};
use crate::model::{Clock, CopyState, CopyingBack, NodeId, TableId, WindowItem};
use crate::sqlite::Db;
use crate::telemetry::failpoint;
use crate::telemetry::{LinkHandle, LinkState, TableReport, TableState};

/// Whole windows that may wait to be applied: what a peer may have in flight, and the one that is being applied.
pub const WINDOWS_WAITING_MAX: usize = WINDOWS_IN_FLIGHT_MAX + 1;

/// A window that has arrived whole.
pub struct Arrived {
    begin: Begin,
    items: Spooled,
    commit: Commit,
    copy: CopyPiece,
}

/// What comes from a peer, in its order.
pub enum Arrival {
    /// A window.
    Window(Box<Arrived>),
    /// Between windows: how far the peer had applied our log.
    Seen(i64),
}

/// What a window brings of a copy, to be counted.
#[derive(Clone, Copy, Debug, Default)]
struct CopyPiece {
    ranges: u64,
    rows: u64,
    digests: u64,
}

/// Puts frames together to windows.
pub struct Assembly {
    spool_dir: PathBuf,
    open: Option<(Begin, Spool)>,
    copy: CopyPiece,
    next_number: u64,
}

impl Assembly {
    /// For one session, spooling in that folder.
    pub fn new(spool_dir: &Path) -> Self {
        Self { spool_dir: spool_dir.to_owned(), open: None, copy: CopyPiece::default(), next_number: 1 }
    }

    /// A window begins.
    ///
    /// # Errors
    /// [`Error::Protocol`] where it is not the next, or the one before is not whole.
    pub fn begin(&mut self, begin: Begin) -> Result<(), Error> {
        if self.open.is_some() || begin.number != self.next_number {
            return Err(Error::Protocol { what: "a window out of order" });
        }
        self.open = Some((begin, Spool::new(&self.spool_dir)));
        Ok(())
    }

    /// One item of the open window.
    ///
    /// # Errors
    /// [`Error::Protocol`] outside a window, [`Error::Spool`].
    pub fn item(&mut self, item: WindowItem) -> Result<(), Error> {
        let Some((_, spool)) = &mut self.open else {
            return Err(Error::Protocol { what: "rows outside a window" });
        };
        match &item {
            WindowItem::Range(range) => {
                self.copy.ranges += 1;
                self.copy.rows += range.batches.iter().map(|batch| batch.rows as u64).sum::<u64>();
            }
            WindowItem::Digest(_) => self.copy.digests += 1,
            WindowItem::Catalog | WindowItem::Table(_) | WindowItem::Object(_) | WindowItem::Rows(_) => {}
        }
        spool.push(item).map_err(Error::Spool)
    }

    /// The open window ends.
    ///
    /// # Errors
    /// [`Error::Protocol`] where another or none is open, [`Error::Spool`].
    pub fn commit(&mut self, commit: Commit) -> Result<Arrived, Error> {
        let Some((begin, spool)) = self.open.take_if(|(begin, _)| begin.number == commit.number) else {
            return Err(Error::Protocol { what: "the end of a window that was not begun" });
        };
        self.next_number += 1;
        let copy = std::mem::take(&mut self.copy);
        Ok(Arrived { begin, items: spool.finish(), commit, copy })
    }
}

/// Applies whole windows.
pub struct Receiver {
    /// The database's thread.
    pub applier: Db<Applier>,
    /// Where answers go.
    pub sink: FrameSink,
    /// Who sends.
    pub peer: NodeId,
    /// What it is called.
    pub peer_name: String,
    /// What the link allows.
    pub rules: Arc<LinkRules>,
    /// Where `status` reads.
    pub status: LinkHandle,
    /// The peer's tables that are not copied whole yet.
    pub unfinished: BTreeSet<TableId>,
    /// Who is told what the peer has seen of our log, where both ends write.
    pub seen_by_peer: Option<Acknowledger>,
    /// What is sent to the peer, where both ends write.
    pub sent: Option<watch::Receiver<SenderState>>,
    /// What the peer's first window waits for. It may make tables that only the peer has, and where all that is here is copied
    /// to it, they would be copied to it empty.
    pub waits: FirstWaits,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// What a peer's first window waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstWaits {
    /// Nothing: not all that is here is copied to the peer.
    Not,
    /// That our first window was read: what we copy leaves what only the peer has, as what it copies does here. Both ends
    /// wait for this.
    ForRead,
    /// That the peer has applied our first window: from then on it is known what the copy replaces, also where the
    /// connection is lost. The peer does not wait for this.
    ForApplied,
}

impl FirstWaits {
    fn is_over(self, sent: &SenderState) -> bool {
        match self {
            Self::Not => true,
            Self::ForRead => sent.begun,
            Self::ForApplied => sent.acks > 0,
        }
    }
}

impl Receiver {
    /// Applies windows until there are no more or `stop` is cancelled; one that was begun is finished and acknowledged.
    ///
    /// # Errors
    /// A window could not be applied; nothing of it is there then.
    pub async fn run(mut self, mut windows: mpsc::Receiver<Arrival>, stop: CancellationToken) -> Result<(), Error> {
        if let Some(sent) = &mut self.sent {
            let waits = self.waits;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // Where the sender has ended, so has the session.
                _ = sent.wait_for(|sent| waits.is_over(sent)) => {}
            }
        }
        loop {
            let arrived = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                arrived = windows.recv() => arrived,
            };
            match arrived {
                Some(Arrival::Window(arrived)) => self.apply(*arrived).await?,
                Some(Arrival::Seen(seen)) => self.seen(seen),
                None => return Ok(()),
            }
        }
    }

    async fn apply(&mut self, arrived: Arrived) -> Result<(), Error> {
        let (number, head) = (arrived.commit.number, arrived.commit.end.head);
        let last_part = arrived.commit.end.last_part;
        let (from, copy, bytes) = (arrived.begin.from, arrived.copy, arrived.items.bytes());
        // Known from here on, also where the window cannot be applied.
        self.status.head(head);
        let applied = self.apply_blocking(arrived).await?;
        self.count(&applied, copy, bytes);
        let is_further = applied.checkpoint.position != from;
        let brought = is_further || applied.migrated || applied.upserts + applied.deletes + copy.rows > 0;
        failpoint::hit(failpoint::RECEIVER_BEFORE_ACK);
        for need in &applied.needs {
            let need = Need { table: need.table, low: need.low.clone(), high: need.high.clone() };
            self.sink.control(Frame::Need(need))?;
        }
        self.sink.control(Frame::Ack(Ack { number, position: applied.checkpoint.position }))?;
        self.seen(applied.seen);
        self.report(&applied, head, (last_part, brought)).await
    }

    /// What the peer has seen of our log, and what its later windows therefore have too, may be pruned.
    fn seen(&self, seen: i64) {
        if let Some(acknowledger) = &self.seen_by_peer {
            acknowledger.acknowledge(&self.peer_name, seen);
        }
    }

    async fn apply_blocking(&self, arrived: Arrived) -> Result<Applied, Error> {
        let (peer, peer_name, rules) = (self.peer, self.peer_name.clone(), Arc::clone(&self.rules));
        // Two copies that cross would swap what both ends have, if neither said what the other's changed here.
        let applied = arrived.commit.end.applied;
        let copying_back = self.sent.as_ref().map_or(CopyingBack::No, |sent| sent.borrow().copying_back(applied));
        let now_ms = self.clock.now_ms();
        let work = move |applier: &mut Applier| {
            let Arrived { begin, items, commit, copy: _ } = arrived;
            let mut items = items.items().map(|item| item.map_err(SourceError::from));
            applier.apply(Window {
                peer,
                peer_name: &peer_name,
                rules: &rules,
                from: begin.from,
                lost_history: begin.lost_history,
                items: &mut items,
                end: &commit.end,
                copying_back,
                now_ms,
            })
        };
        Ok(self.applier.call(work).await??)
    }

    fn count(&self, applied: &Applied, copy: CopyPiece, bytes: u64) {
        if copy.ranges + copy.digests > 0 {
            failpoint::hit(failpoint::SNAPSHOT_AFTER_RANGE_APPLIED);
        }
        let metrics = self.status.board().metrics();
        metrics.windows_applied_total.one();
        metrics.bytes_received_total.add(bytes);
        metrics.rows_upserted_total.add(applied.upserts);
        metrics.rows_deleted_total.add(applied.deletes);
        metrics.snapshot_rows_applied_total.add(copy.rows);
        metrics.snapshot_ranges_equal_total.add(copy.digests.saturating_sub(applied.needs.len() as u64));
        metrics.held_write_lock(applied.held_lock);
        metrics.conflicts_total.add(applied.conflicts.total());
    }

    /// Tells `status` what a window did.
    async fn report(&mut self, applied: &Applied, head: i64, (last_part, brought): (bool, bool)) -> Result<(), Error> {
        self.tell_conflicts(&applied.conflicts);
        for note in &applied.notes {
            tracing::warn!("{note}");
            self.status.board().note(note.clone());
        }
        if applied.migrated {
            self.refresh().await?;
        }
        // All of them, where there is any: a table under a new id leaves no trace of the old one.
        if !applied.tables.is_empty() {
            let open = applied.tables.iter().filter(|table| table.state != CopyState::Done);
            self.unfinished = open.map(|table| table.id).collect();
            self.status.tables(applied.tables.iter().map(changed_table));
        }
        self.status.applied(applied.checkpoint.position, applied.checkpoint.ts_ms);
        self.status.head(head);
        let state = match (self.unfinished.is_empty(), last_part) {
            (false, _) => LinkState::Snapshot,
            (true, true) => LinkState::Live,
            (true, false) => LinkState::BetweenTransactions,
        };
        self.status.goes_on(state, brought);
        Ok(())
    }

    /// Once a window, and never what the rows say: what lost is in the database.
    fn tell_conflicts(&self, conflicts: &Recorded) {
        if conflicts.total() == 0 {
            return;
        }
        let (conflicts, tables) = (conflicts.total(), conflicts.to_string());
        tracing::warn!(link = self.peer_name, conflicts, tables, "conflicts recorded; see `twinlite conflicts list`");
        self.status.board().add_conflicts(conflicts);
    }

    /// Reads all tables of the peer anew, for some came, went or got another name.
    async fn refresh(&mut self) -> Result<(), Error> {
        let (name, peer) = (self.peer_name.clone(), self.peer);
        let held = self.applier.call(move |applier| applier.held(&name, Some(peer))).await??;
        self.unfinished = unfinished(&held.tables);
        self.status.tables(held.tables.iter().map(held_table));
        Ok(())
    }
}

/// The tables of a peer that are not copied whole yet.
pub fn unfinished(tables: &[HeldTable]) -> BTreeSet<TableId> {
    let open = tables.iter().filter(|table| table.progress.state != CopyState::Done);
    open.map(|table| table.progress.table).collect()
}

/// What is held of a table, as `status` shows it.
pub fn held_table(table: &HeldTable) -> TableReport {
    TableReport {
        rows_copied: table.rows,
        rows_total: Some(table.rows_estimate),
        generation: Some(table.progress.table.0),
        ..TableReport::new(table.name.clone(), table_state(&table.progress.state))
    }
}

fn changed_table(table: &TableStatus) -> TableReport {
    TableReport {
        rows_copied: table.rows_copied,
        rows_total: Some(table.rows_estimate),
        generation: Some(table.id.0),
        ..TableReport::new(table.name.clone(), table_state(&table.state))
    }
}

fn table_state(state: &CopyState) -> TableState {
    match state {
        CopyState::Done => TableState::Live,
        CopyState::Pending => TableState::Pending,
        CopyState::Copying { .. } => TableState::Snapshot,
    }
}
