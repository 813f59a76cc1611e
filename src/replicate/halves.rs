//! The running halves of one connection, and the heart that tells the peer that this end is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::feed::Feed;
use super::receiver::{Arrival, Assembly, FirstWaits, Receiver, WINDOWS_WAITING_MAX, unfinished};
use super::sender::{ANSWERS_WAITING_MAX, Answer, Sender, SenderState, Start, WindowShape};
use super::session::{End, agree};
use crate::capture::source::{ChangeSource, TwoWay};
use crate::link::{self, Frame, FrameSink, FrameStream, Heartbeat, Hello};
use crate::model::{Clock, Epoch, Position};
use crate::telemetry::{Heard, LinkHandle, LinkState};

/// Heartbeats that wait among the windows, at most: one a second comes, and the newest says all.
const SEEN_WAITING_MAX: usize = 4;
/// How often each end says that it is there.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// The same of an end that only receives: it has no news of a log, so all that hangs on it is [`SILENCE_MAX`].
const HEARTBEAT_OF_RECEIVER_EVERY: Duration = Duration::from_secs(5);
/// Silence after which a connection counts as lost. Heartbeats keep their order with the data, so on a slow line the part
/// of a frame is the sign of life: at 64 kB/s there is one every 16 s.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The running halves of one connection.
pub(super) struct Halves {
    tasks: JoinSet<Result<(), Error>>,
    answers: Option<mpsc::Sender<Answer>>,
    windows: Option<mpsc::Sender<Arrival>>,
    two_way: bool,
    assembly: Assembly,
    receive_status: Option<LinkHandle>,
    clock: Arc<dyn Clock>,
    children: CancellationToken,
}

impl Halves {
    pub(super) async fn start<S: ChangeSource>(
        end: &End<S>,
        sink: &FrameSink,
        (theirs, ours, start): (&Hello, &crate::apply::Held, Option<Start>),
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let mut halves = Self {
            tasks: JoinSet::new(),
            answers: None,
            windows: None,
            two_way: end.two_way(theirs).is_some(),
            assembly: Assembly::new(&end.settings.spool_dir),
            receive_status: end.receive_status.clone(),
            clock: Arc::clone(&end.clock),
            children: stop.child_token(),
        };
        let mut heart = Heart {
            sink: sink.clone(),
            sent: None,
            status: end.send_status.clone(),
            epoch: None,
            clock: Arc::clone(&end.clock),
        };
        if let (Some(feed), Some(start)) = (&end.feed, start) {
            heart.epoch = Some(start.from.position.epoch);
            let sender = sender(end, feed, sink, (theirs, ours, start)).await?;
            let (answers, taken) = mpsc::channel(ANSWERS_WAITING_MAX);
            halves.answers = Some(answers);
            heart.sent = Some(sender.state());
            let stop = halves.children.clone();
            halves.tasks.spawn(sender.run(taken, stop));
        }
        if let (Some(applier), Some(status)) = (&end.applier, &end.receive_status) {
            let (windows, arrived) = mpsc::channel(WINDOWS_WAITING_MAX + SEEN_WAITING_MAX);
            halves.windows = Some(windows);
            let receiver = Receiver {
                applier: applier.clone(),
                sink: sink.clone(),
                peer: theirs.node,
                peer_name: theirs.name.clone(),
                rules: Arc::clone(&end.settings.rules),
                status: status.clone(),
                unfinished: unfinished(&ours.tables),
                sent: heart.sent.clone(),
                waits: first_waits(start.filter(|_| halves.two_way)),
                seen_by_peer: end.feed.as_ref().filter(|_| halves.two_way).map(|feed| feed.acknowledger()),
                clock: Arc::clone(&end.clock),
            };
            let stop = halves.children.clone();
            halves.tasks.spawn(receiver.run(arrived, stop));
        }
        let stop = halves.children.clone();
        halves.tasks.spawn(heart.beat(stop));
        Ok(halves)
    }

    pub(super) async fn run(mut self, stream: &mut FrameStream, stop: &CancellationToken) -> Result<(), Error> {
        let outcome = self.pump(stream, stop).await;
        self.children.cancel();
        self.answers = None;
        self.windows = None;
        let mut first = outcome;
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.unwrap_or_else(|_| Err(Error::Sqlite(crate::sqlite::Closed.into())));
            first = first.and(ended);
        }
        first
    }

    async fn pump(&mut self, stream: &mut FrameStream, stop: &CancellationToken) -> Result<(), Error> {
        let (mut heard, mut arrived) = (Instant::now(), stream.arrived());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.tasks.join_next() => {
                    return ended.map_or(Ok(()), |ended| ended.unwrap_or(Err(Error::Sqlite(crate::sqlite::Closed.into()))));
                }
                frame = timeout_at(heard + SILENCE_MAX, stream.next()) => {
                    heard = Instant::now();
                    let came = std::mem::replace(&mut arrived, stream.arrived()) != arrived;
                    let frame = match frame {
                        Ok(frame) => frame?,
                        Err(_) if came => continue,
                        Err(_) => return Err(Error::Silent { what: "heartbeat", seconds: SILENCE_MAX.as_secs() }),
                    };
                    match frame {
                        Some(frame) => self.take(frame)?,
                        None => return Err(Error::Link(link::Error::Closed { peer: "the peer".to_owned() })),
                    }
                }
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::Begin(begin) => self.assembly.begin(begin),
            Frame::Item(item) => self.assembly.item(item),
            Frame::Commit(commit) => {
                let arrived = self.assembly.commit(commit)?;
                let windows =
                    self.windows.as_ref().ok_or(Error::Protocol { what: "a window to an end that only sends" })?;
                windows
                    .try_send(Arrival::Window(Box::new(arrived)))
                    .map_err(|_| Error::Protocol { what: "more windows than it may have in flight" })
            }
            Frame::Ack(ack) => self.answer(Answer::Ack(ack)),
            Frame::Need(need) => self.answer(Answer::Need(need)),
            Frame::Heartbeat(heartbeat) => {
                if let Some(windows) = self.windows.as_ref().filter(|_| self.two_way) {
                    // In order with the windows, whose room it leaves; where there is none besides, a later one says more.
                    if windows.capacity() > WINDOWS_WAITING_MAX {
                        let _ = windows.try_send(Arrival::Seen(heartbeat.seen));
                    }
                }
                if let Some(status) = &self.receive_status {
                    status.heartbeat(Heard {
                        head: heartbeat.head,
                        behind_since_ms: heartbeat.behind_since_ms,
                        sent_ms: heartbeat.now_ms,
                        at_ms: self.clock.now_ms(),
                    });
                }
                Ok(())
            }
            Frame::Fault(trouble) => Err(Error::Peer(trouble)),
            Frame::Hello(_) | Frame::Verdict(_) | Frame::Kept => Err(Error::Protocol { what: "a second Hello" }),
        }
    }

    fn answer(&self, answer: Answer) -> Result<(), Error> {
        let answers =
            self.answers.as_ref().ok_or(Error::Protocol { what: "an answer to an end that only receives" })?;
        answers.try_send(answer).map_err(|_| Error::Protocol { what: "more answers than there were windows" })
    }
}

/// What the first window of a peer waits for, to which we begin there; `None` where not both ends send.
fn first_waits(start: Option<Start>) -> FirstWaits {
    match start {
        Some(Start { lost_history: true, union: true, .. }) => FirstWaits::ForRead,
        Some(Start { lost_history: true, union: false, .. }) => FirstWaits::ForApplied,
        Some(Start { lost_history: false, .. }) | None => FirstWaits::Not,
    }
}

/// The sending half, from where it begins. From here on the log is kept for the peer.
async fn sender<S: ChangeSource>(
    end: &End<S>,
    feed: &Arc<Feed<S>>,
    sink: &FrameSink,
    (theirs, ours, start): (&Hello, &crate::apply::Held, Start),
) -> Result<Sender<S>, Error> {
    let held = theirs.held.as_ref().filter(|_| start.held_counts).map_or(&[][..], |held| &held.tables);
    let compression = agree(end.settings.compression, &theirs.compressions);
    let shape = WindowShape { compression, ..end.settings.shape.narrowed(theirs)? };
    let name = &end.settings.peer_name;
    // Counted from what is here now: a window that an earlier session brought may be applied and not acknowledged.
    let two_way = end.two_way(theirs).map(|way| TwoWay { windows_before: ours.windows, ..way });
    // Where both ends write, what the peer's windows have seen counts from here on, not what it has applied. Those of this
    // session are read after it held this checkpoint.
    let kept_from = start.from.position;
    feed.meet(name, theirs.node, kept_from).await?;
    if two_way.is_some() {
        feed.acknowledge(name, kept_from.seq);
    }
    let to = super::sender::Receiver { name, start, held, two_way };
    Ok(Sender::new(Arc::clone(feed), sink.clone(), shape, to))
}

/// Says every second that this end is there and how far it is, in order with the windows. A task of its own, so that
/// receiving never waits for sending.
struct Heart {
    sink: FrameSink,
    sent: Option<watch::Receiver<SenderState>>,
    status: Option<LinkHandle>,
    epoch: Option<Epoch>,
    clock: Arc<dyn Clock>,
}

impl Heart {
    async fn beat(mut self, stop: CancellationToken) -> Result<(), Error> {
        let every = if self.sent.is_some() { HEARTBEAT_EVERY } else { HEARTBEAT_OF_RECEIVER_EVERY };
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = moved(&mut self.sent) => {
                    self.show();
                    continue;
                }
                () = sleep_until(next) => next = Instant::now() + self.clock.until_beat(every),
            }
            self.show();
            let SenderState { head, seen, behind_since_ms, .. } = self.state().unwrap_or_default();
            let heartbeat = Heartbeat { head, seen, now_ms: self.clock.now_ms(), behind_since_ms };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                sent = self.sink.data(Frame::Heartbeat(heartbeat)) => sent?,
            }
        }
    }

    fn state(&self) -> Option<SenderState> {
        self.sent.as_ref().map(|sent| *sent.borrow())
    }

    fn show(&self) {
        let (Some(status), Some(state), Some(epoch)) = (&self.status, self.state(), self.epoch) else { return };
        status.head(state.head);
        status.position(Position { epoch, seq: state.acknowledged });
        if state.acks > 0 {
            status.goes_on(if state.copied { LinkState::Live } else { LinkState::Snapshot }, state.brought);
        }
        status.heartbeat(Heard {
            head: state.head,
            behind_since_ms: state.behind_since_ms,
            sent_ms: self.clock.now_ms(),
            at_ms: self.clock.now_ms(),
        });
    }
}

/// Ends when the sender's state has moved; never where there is no sender.
async fn moved(sent: &mut Option<watch::Receiver<SenderState>>) {
    let ended = match sent {
        Some(sent) => sent.changed().await.is_err(),
        None => true,
    };
    if ended {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Begin, Commit};
    use crate::model::{Checkpoint, EncodedBatch, Rows, RowsOp, SystemClock, TableId, WindowEnd, WindowItem};

    /// A slow line on which one frame already takes longer than the silence that counts as a lost connection.
    const LINE_BYTES_PER_SECOND: u64 = 64_000;
    const ROW_BYTES: usize = 8 << 20;

    fn receiving() -> (Halves, mpsc::Receiver<Arrival>) {
        let (windows, arrived) = mpsc::channel(WINDOWS_WAITING_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        let halves = Halves {
            tasks,
            answers: None,
            windows: Some(windows),
            two_way: false,
            assembly: Assembly::new(&std::env::temp_dir()),
            receive_status: None,
            clock: Arc::new(SystemClock),
            children: CancellationToken::new(),
        };
        (halves, arrived)
    }

    fn window_of_one_large_row() -> [Frame; 3] {
        let at = Checkpoint { position: Position { epoch: Epoch(1), seq: 0 }, ts_ms: 0, fingerprint: 0 };
        let end = WindowEnd {
            to: at,
            head: 0,
            seen: 0,
            applied: 0,
            whole: true,
            last_part: true,
            markers: Vec::new(),
            repairs: Vec::new(),
            sequences: Vec::new(),
            user_version: None,
            application_id: None,
        };
        let batch = EncodedBatch { rows: 1, codes: vec![0], data: vec![7; ROW_BYTES].into() };
        [
            Frame::Begin(Begin { number: 1, from: at.position, lost_history: false, catalog: false }),
            Frame::Item(WindowItem::Rows(Rows { table: TableId(1), op: RowsOp::Upsert, batch })),
            Frame::Commit(Commit { number: 1, end }),
        ]
    }

    /// A frame counted as the only sign of life: a row that the line carried for longer than the silence limit broke the
    /// connection off, each time anew, and never arrived.
    #[tokio::test(start_paused = true)]
    async fn a_row_that_takes_longer_than_the_silence_limit_arrives_over_a_slow_line() {
        let (sink, mut stream) = link::slow_line(LINE_BYTES_PER_SECOND);
        let (mut halves, mut windows) = receiving();
        for frame in window_of_one_large_row() {
            sink.data(frame).await.expect("room");
        }
        let (stop, begun) = (CancellationToken::new(), Instant::now());
        tokio::select! {
            ended = halves.pump(&mut stream, &stop) => panic!("the connection counts as lost: {ended:?}"),
            arrived = windows.recv() => assert!(arrived.is_some()),
        }
        assert!(begun.elapsed() > 4 * SILENCE_MAX, "it took {:?}", begun.elapsed());
        // Silence counts as ever.
        let ended = halves.pump(&mut stream, &stop).await;
        assert!(matches!(ended, Err(Error::Silent { .. })), "{ended:?}");
    }
}
