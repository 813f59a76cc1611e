//! The sending half of a session: windows out, acknowledgements in.
//!
//! Invariants:
//! * Windows are sent in order; each begins where the one before ended.
//! * Unacknowledged bytes stay under [`BYTES_IN_FLIGHT_MAX`]; a larger window travels alone.
//! * What comes from the peer is taken in before each window and while waiting, never while holding anything.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::copies::{Copies, Manner, RangeBounds};
use super::feed::{Feed, Next, SharedWindow};
use crate::capture::source::{ChangeSource, CopyStep, ReadRequest, TwoWay};
use crate::codec::Compression;
use crate::link::{Ack, Begin, Commit, Frame, FrameSink, HeldTable, Hello, Need};
use crate::model::{Checkpoint, CopyingBack, Position, RangeMode, SchemaKinds, Selection};
use crate::telemetry::failpoint;

/// Unacknowledged bytes at most: enough to fill a fast link for longer than a round trip, and what a receiver that
/// stalls must be able to hold.
pub const BYTES_IN_FLIGHT_MAX: u64 = 32 << 20;
/// Unacknowledged windows at most while a table is copied.
pub const WINDOWS_IN_FLIGHT_MAX: usize = 64;
/// Unacknowledged windows at most when there are only changes: the receiver syncs each, so more of them would queue
/// behind each other's syncs, while two keep it busy and let what is committed meanwhile gather in the next.
const CHANGE_WINDOWS_IN_FLIGHT_MAX: usize = 2;
/// Acknowledgements and needs that may wait to be taken in: two for each window in flight.
pub const ANSWERS_WAITING_MAX: usize = 4 * WINDOWS_IN_FLIGHT_MAX;

/// How a link's windows are cut.
#[derive(Clone, Debug)]
pub struct WindowShape {
    /// Which tables.
    pub selection: Arc<Selection>,
    /// Which kinds of schema objects.
    pub kinds: SchemaKinds,
    /// Rows above which a window may be split; `None` where it never is.
    pub window_rows: Option<usize>,
    /// Rows in a batch at most.
    pub batch_rows: usize,
    /// Bytes in a batch at most.
    pub batch_bytes: usize,
    /// How batches are compressed.
    pub compression: Compression,
    /// Bounds of a range of a copy.
    pub bounds: RangeBounds,
}

impl WindowShape {
    /// Only what the peer takes too.
    ///
    /// # Errors
    /// [`Error::Protocol`] where its globs are none.
    pub fn narrowed(&self, theirs: &Hello) -> Result<Self, Error> {
        let (tables, skip) = &theirs.tables;
        let taken = Selection::new(tables, skip).map_err(|_| Error::Protocol { what: "globs that are none" })?;
        let (here, there) = (self.kinds, theirs.kinds);
        let kinds = SchemaKinds {
            indexes: here.indexes && there.indexes,
            views: here.views && there.views,
            triggers: here.triggers && there.triggers,
        };
        let selection = Selection::clone(&self.selection).within(taken);
        Ok(Self { selection: Arc::new(selection), kinds, ..self.clone() })
    }
}

/// What a peer answers to windows.
#[derive(Debug)]
pub enum Answer {
    /// It is durably applied.
    Ack(Ack),
    /// These rows are wanted.
    Need(Need),
}

/// Where a session begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The receiver's checkpoint, or the head where history is lost.
    pub from: Checkpoint,
    /// Whether what is between the checkpoint and `from` is lost, so that everything is copied.
    pub lost_history: bool,
    /// Whether that leaves what only the receiver has.
    pub union: bool,
    /// Whether what the receiver said of its copies still holds: where a first contact was settled since, it does not.
    pub held_counts: bool,
    /// The log's end when the session began.
    pub head: i64,
}

/// Whom a sender sends to.
#[derive(Clone, Copy, Debug)]
pub struct Receiver<'a> {
    /// The link's name, by which the log is kept for it.
    pub name: &'a str,
    /// Where sending begins.
    pub start: Start,
    /// The tables that it holds.
    pub held: &'a [HeldTable],
    /// Where its changes are applied here too.
    pub two_way: Option<TwoWay>,
}

/// What heartbeats and `status` tell of a sender.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderState {
    /// The log's end, as last read.
    pub head: i64,
    /// How far the peer's log is applied here, as every later window says or more.
    pub seen: i64,
    /// The position up to which the peer has acknowledged.
    pub acknowledged: i64,
    /// Windows acknowledged in this session.
    pub acks: u64,
    /// Whether any of them brought rows, or got the peer further in our log.
    pub brought: bool,
    /// `ts` of the oldest change sent and not acknowledged.
    pub behind_since_ms: Option<i64>,
    /// Whether every table is copied, as far as this end knows.
    pub copied: bool,
    /// What that means for what the peer copies here.
    pub back: CopyingBack,
    /// Whether a window was read in this session: what stands in ours from now on has no part in how the two met.
    pub begun: bool,
    /// The newest window of this session that brought a piece of a copy; 0: none. The peer may have sent its own before that
    /// came.
    pub served: u64,
}

impl SenderState {
    /// What an applier of a window of the peer's must know of the copies to it. `applied`: how many of our windows of this
    /// session the peer had applied when it read its window ([`crate::model::WindowEnd::applied`]).
    ///
    /// Two pieces cross where each was read before the other was applied. One end at least knows it when it applies the
    /// other's, for each notes its own before that is sent; and it is enough that one says what it took as a change of its own.
    pub fn copying_back(&self, applied: u64) -> CopyingBack {
        if applied < self.served { CopyingBack::UnderWay } else { self.back }
    }
}

struct InFlight {
    number: u64,
    bytes: u64,
    to: Position,
    first_ts_ms: Option<i64>,
    brings: bool,
}

/// One session's sending half.
pub struct Sender<S: ChangeSource> {
    feed: Arc<Feed<S>>,
    sink: FrameSink,
    shape: WindowShape,
    copies: Copies,
    start: Start,
    sent: Checkpoint,
    number: u64,
    catalog: Option<i64>,
    in_flight: VecDeque<InFlight>,
    state: watch::Sender<SenderState>,
    consumer: String,
    two_way: Option<TwoWay>,
    /// Whether the copy to the peer waits for one from it, until the database changes again.
    yielding: bool,
}

impl<S: ChangeSource> Sender<S> {
    /// A sender to the receiver of that name, which holds these tables; it begins at `start`.
    pub fn new(feed: Arc<Feed<S>>, sink: FrameSink, shape: WindowShape, to: Receiver<'_>) -> Self {
        let Receiver { name, start, held, two_way } = to;
        let manner = if two_way.is_some() { Manner::Merged } else { Manner::Mirrored };
        let mode = if start.union { RangeMode::Union } else { RangeMode::Exact };
        let copies = Copies::new(held, start.lost_history, manner).in_mode(mode);
        let acknowledged = start.from.position.seq;
        // Where both ends write, what the peer has seen counts, not what it has applied.
        if two_way.is_none() {
            feed.acknowledge(name, acknowledged);
        }
        // What is known to be copied is not said to be under way: the peer's ranges would be said anew as our own.
        let copied = two_way.is_some() && copies.done() && !start.lost_history;
        let back = if start.lost_history { CopyingBack::UnderWay } else { copies.back() };
        let state = SenderState { acknowledged, head: start.head, copied, back, ..SenderState::default() };
        Self {
            feed,
            sink,
            shape,
            copies,
            start,
            sent: start.from,
            number: 0,
            catalog: None,
            in_flight: VecDeque::new(),
            state: watch::Sender::new(state),
            consumer: name.to_owned(),
            two_way,
            yielding: false,
        }
    }

    /// Its state, for heartbeats and `status`.
    pub fn state(&self) -> watch::Receiver<SenderState> {
        self.state.subscribe()
    }

    /// Sends until the session ends or `stop` is cancelled; a window that was begun is sent whole.
    ///
    /// # Errors
    /// Reading or sending failed, or the peer broke the protocol.
    pub async fn run(mut self, mut answers: mpsc::Receiver<Answer>, stop: CancellationToken) -> Result<(), Error> {
        let mut changed = self.feed.changed();
        let mut look = true;
        while !stop.is_cancelled() {
            while let Ok(answer) = answers.try_recv() {
                self.take(answer)?;
            }
            let step = if self.yielding { None } else { self.copies.step(self.shape.bounds) };
            if (look || step.is_some()) && self.has_room(step.is_some()) {
                changed.borrow_and_update();
                look = self.send_next(step).await?;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                answer = answers.recv() => match answer {
                    Some(answer) => self.take(answer)?,
                    None => break,
                },
                ticked = changed.changed(), if !look => {
                    if ticked.is_err() {
                        break;
                    }
                    look = true;
                    self.yielding = false;
                }
            }
        }
        Ok(())
    }

    fn has_room(&self, copying: bool) -> bool {
        let bytes: u64 = self.in_flight.iter().map(|window| window.bytes).sum();
        let windows_max = if copying { WINDOWS_IN_FLIGHT_MAX } else { CHANGE_WINDOWS_IN_FLIGHT_MAX };
        self.in_flight.is_empty() || (bytes < BYTES_IN_FLIGHT_MAX && self.in_flight.len() < windows_max)
    }

    fn request(&self, copy: Option<CopyStep>) -> ReadRequest {
        ReadRequest {
            after: self.sent.position.seq,
            // Nothing was ever written where there is no entry.
            mark: (self.sent.position.seq > 0).then_some((self.sent.ts_ms, self.sent.fingerprint)),
            catalog_known: self.catalog,
            selection: Arc::clone(&self.shape.selection),
            kinds: self.shape.kinds,
            copy,
            window_rows: self.shape.window_rows,
            two_way: self.two_way,
            batch_rows: self.shape.batch_rows,
            batch_bytes: self.shape.batch_bytes,
            compression: self.shape.compression,
        }
    }

    /// Reads and sends one window. Returns whether there may be more to read at once.
    async fn send_next(&mut self, step: Option<CopyStep>) -> Result<bool, Error> {
        if step.is_some() {
            self.note_copying();
        }
        let mut low = step.as_ref().and_then(|step| step.low.clone());
        let table = step.as_ref().map(|step| step.table);
        let (mut window, mut read_now) = match self.feed.next(self.request(step)).await? {
            Next::Window { window, read_now } => (window, read_now),
            Next::Nothing(quiet) => {
                self.note(|state| (state.head, state.seen) = (quiet.head, quiet.seen));
                self.yielding = quiet.yielded;
                if quiet.yielded {
                    return Ok(false);
                }
                // Or it would be asked for again at once, and again.
                if let Some(table) = table {
                    self.copies.vanished(table);
                }
                return Ok(false);
            }
        };
        // A copy that this window begins comes with it where it fits, so that readers never see the table between.
        if self.notice(&window)
            && window.read.copied.is_none()
            && let Some(step) = self.copies.step(self.shape.bounds)
        {
            low.clone_from(&step.low);
            self.note_copying();
            if let Next::Window { window: again, read_now: now } = self.feed.next(self.request(Some(step))).await? {
                self.notice(&again);
                (window, read_now) = (again, now);
            }
        }
        self.note(|state| state.begun = true);
        self.send(&window).await?;
        if let Some(copied) = &window.read.copied {
            if !copied.as_digest {
                self.feed.board().metrics().snapshot_rows_sent_total.add(copied.rows);
            }
            self.copies.sent(self.number, low.as_ref(), copied);
        }
        Ok(!(read_now && window.read.end.last_part))
    }

    /// Before a range is read: not every table is copied.
    fn note_copying(&self) {
        self.note(|state| state.copied = false);
    }

    /// Takes in what a window says of tables. Returns whether a copy begins with it.
    fn notice(&mut self, window: &SharedWindow) -> bool {
        let fresh = window.read.tables.as_ref().is_some_and(|tables| self.copies.catalog(tables));
        self.copies.mark(&window.read.end.markers, &window.read.end.repairs) || fresh
    }

    async fn send(&mut self, window: &SharedWindow) -> Result<(), Error> {
        if window.read.tables.is_some() {
            let note = |object: &String| {
                format!("{object} is not sent to {:?}, which does not get every table that it needs", self.consumer)
            };
            let notes: Vec<String> = window.read.held_back.iter().map(note).collect();
            notes.iter().for_each(|note| tracing::warn!("{note}"));
            self.feed.board().stands(&format!("held back from {}", self.consumer), notes);
        }
        self.number += 1;
        let begin = Begin {
            number: self.number,
            from: self.sent.position,
            // Where both ends write, both know it since they met.
            lost_history: self.number == 1 && self.start.lost_history && self.two_way.is_none(),
            catalog: window.read.tables.is_some(),
        };
        let end = window.read.end.clone();
        self.sent = end.to;
        self.catalog = Some(window.read.catalog);
        let brings_piece = window.read.copied.is_some();
        self.note(|state| {
            (state.head, state.seen) = (end.head, end.seen);
            if brings_piece {
                state.served = self.number;
            }
        });
        let copies = window.read.copied.as_ref().is_some_and(|copied| !copied.as_digest && copied.rows > 0);
        self.in_flight.push_back(InFlight {
            brings: copies || begin.from != self.sent.position,
            number: self.number,
            bytes: window.spooled.bytes(),
            to: self.sent.position,
            first_ts_ms: window.read.first_ts_ms,
        });
        self.note_in_flight();
        self.sink.data(Frame::Begin(begin)).await?;
        for frame in window.spooled.frames() {
            self.sink.encoded(frame?).await?;
        }
        self.sink.data(Frame::Commit(Commit { number: self.number, end })).await?;
        let metrics = self.feed.board().metrics();
        metrics.windows_sent_total.one();
        metrics.rows_sent_total.add(window.read.changes);
        metrics.bytes_sent_total.add(window.spooled.bytes());
        failpoint::hit(failpoint::LINK_AFTER_SEND);
        if window.read.copied.is_some() {
            failpoint::hit(failpoint::SNAPSHOT_AFTER_RANGE_SENT);
        }
        Ok(())
    }

    fn take(&mut self, answer: Answer) -> Result<(), Error> {
        // What comes next may be another copy, which waits for nothing.
        self.yielding = false;
        match answer {
            Answer::Need(need) => self.copies.need(need.table, need.low.as_ref(), need.high.as_ref()),
            Answer::Ack(ack) => {
                failpoint::hit(failpoint::SENDER_BEFORE_ACK);
                let expected = self.in_flight.pop_front();
                let is_next = |window: &InFlight| window.number == ack.number && window.to == ack.position;
                let Some(window) = expected.filter(is_next) else {
                    return Err(Error::Protocol { what: "an acknowledgement for a window that was not next" });
                };
                self.copies.acknowledged(ack.number);
                if self.two_way.is_none() {
                    self.feed.acknowledge(&self.consumer, ack.position.seq);
                }
                self.note(|state| {
                    state.acknowledged = ack.position.seq;
                    state.acks += 1;
                    state.brought |= window.brings;
                });
                failpoint::hit(failpoint::SENDER_AFTER_ACK);
            }
        }
        self.note_in_flight();
        Ok(())
    }

    fn note_in_flight(&mut self) {
        let behind_since_ms = self.in_flight.iter().find_map(|window| window.first_ts_ms);
        let (copied, back) = (self.copies.done(), self.copies.back());
        let bytes = self.in_flight.iter().map(|window| window.bytes).sum();
        self.feed.board().metrics().bytes_in_flight.set(bytes);
        self.note(|state| {
            state.behind_since_ms = behind_since_ms;
            (state.copied, state.back) = (copied, back);
        });
    }

    fn note(&self, change: impl FnOnce(&mut SenderState)) {
        self.state.send_modify(change);
    }
}
