//! The two halves of a connection, whatever carries it.
//!
//! A [`FrameSink`] queues frames, data and control apart; [`Outgoing`] is what the carrier takes them from, control
//! first. A [`FrameStream`] joins and decodes what the carrier brings. Receiving and sending share nothing, so neither
//! ever waits for the other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::parts::{Assembler, Cut};
use super::{Error, FRAME_BYTES_MAX, Frame, PART_BYTES_MAX};

/// Data frames that wait to be taken by the carrier: enough that it never starves while the next one is read.
const DATA_FRAMES_MAX: usize = 16;

/// Bytes of data frames that wait so, in the semaphore's unit. A larger frame waits alone.
const DATA_KIB_MAX: u32 = 32 << 10;

/// Control frames that wait. An acknowledgement a window and a Need a table: more means that the peer does not read.
const CONTROL_FRAMES_MAX: usize = 4096;

/// A connection to a peer.
pub struct Connection {
    /// Where frames go.
    pub sink: FrameSink,
    /// Where they come from.
    pub stream: FrameStream,
    /// The peer's address, for people.
    pub peer: String,
    /// Whether the peer is on this machine.
    pub local: bool,
}

impl Connection {
    /// Ends the connection in good order: what is queued is sent, what still comes is dropped, until the peer ends its
    /// side too or `grace` is over. A connection that is just dropped may lose the last frames, such as a Fault.
    pub async fn finish(self, grace: Duration) {
        let Self { sink, mut stream, .. } = self;
        drop(sink);
        let end = async { while let Ok(Some(_)) = stream.next().await {} };
        // A peer that does not end its side in time is left all the same.
        let _ = tokio::time::timeout(grace, end).await;
    }
}

/// Where frames go. Clones share the queues; the connection's sending half ends when the last one is dropped.
#[derive(Clone)]
pub struct FrameSink {
    data: mpsc::Sender<Queued>,
    control: mpsc::Sender<Bytes>,
    room: Arc<Semaphore>,
    peer: Arc<str>,
}

/// A data frame, and its share of the room.
struct Queued {
    frame: Bytes,
    room: OwnedSemaphorePermit,
}

impl FrameSink {
    /// Sends a frame in order with the others, as soon as there is room.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection ended; [`Error::TooLarge`].
    pub async fn data(&self, frame: Frame) -> Result<(), Error> {
        self.encoded(frame.encode()).await
    }

    /// Sends a frame that is encoded already, such as one of a [`super::Spooled`] window.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub async fn encoded(&self, frame: Bytes) -> Result<(), Error> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(Error::TooLarge { bytes: frame.len() });
        }
        let kib = u32::try_from(frame.len() >> 10).map_or(DATA_KIB_MAX, |kib| (kib + 1).min(DATA_KIB_MAX));
        let closed = || Error::Closed { peer: self.peer.to_string() };
        let room = self.room.clone().acquire_many_owned(kib).await.map_err(|_| closed())?;
        self.data.send(Queued { frame, room }).await.map_err(|_| closed())
    }

    /// Sends a frame ahead of the data that waits. Never waits itself.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection ended; [`Error::Overrun`] if the peer does not read; [`Error::TooLarge`].
    pub fn control(&self, frame: Frame) -> Result<(), Error> {
        debug_assert!(frame.is_control(), "a frame that keeps its order");
        let frame = frame.encode();
        if frame.len() > FRAME_BYTES_MAX {
            return Err(Error::TooLarge { bytes: frame.len() });
        }
        self.control.try_send(frame).map_err(|error| match error {
            TrySendError::Full(_) => Error::Overrun { peer: self.peer.to_string() },
            TrySendError::Closed(_) => Error::Closed { peer: self.peer.to_string() },
        })
    }

    /// Returns once the carrier takes no more frames.
    pub async fn closed(&self) {
        self.control.closed().await;
    }
}

/// A sink, and what the carrier takes its frames from.
pub(super) fn outgoing(peer: &str) -> (FrameSink, Outgoing) {
    outgoing_in_parts(peer, PART_BYTES_MAX)
}

pub(super) fn outgoing_in_parts(peer: &str, part_bytes: usize) -> (FrameSink, Outgoing) {
    let (data, data_queue) = mpsc::channel(DATA_FRAMES_MAX);
    let (control, control_queue) = mpsc::channel(CONTROL_FRAMES_MAX);
    let room = Arc::new(Semaphore::new(DATA_KIB_MAX as usize));
    let outgoing = Outgoing {
        room: CloseOnDrop(room.clone()),
        data: data_queue,
        control: control_queue,
        data_cut: None,
        control_cut: None,
        next_id: 0,
        part_bytes,
    };
    (FrameSink { data, control, room, peer: peer.into() }, outgoing)
}

/// The frames of a sink as messages for the carrier: control first, also between the parts of a large data frame.
pub(super) struct Outgoing {
    room: CloseOnDrop,
    data: mpsc::Receiver<Queued>,
    control: mpsc::Receiver<Bytes>,
    data_cut: Option<(Cut, OwnedSemaphorePermit)>,
    control_cut: Option<Cut>,
    next_id: u64,
    part_bytes: usize,
}

/// Wakes those who wait for room that nobody will make any more.
struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Outgoing {
    fn cut(&mut self, frame: Bytes) -> Cut {
        self.next_id += 1;
        Cut::new(frame, self.next_id, self.part_bytes)
    }

    fn poll_control(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(message) = self.control_cut.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(message));
            }
            match ready!(self.control.poll_recv(context)) {
                Some(frame) => self.control_cut = Some(self.cut(frame)),
                None => return Poll::Ready(None),
            }
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(message) = self.data_cut.as_mut().and_then(|(cut, _)| cut.next()) {
                return Poll::Ready(Some(message));
            }
            // The room of a frame that is sent is free, before another is waited for.
            self.data_cut = None;
            match ready!(self.data.poll_recv(context)) {
                Some(Queued { frame, room }) => self.data_cut = Some((self.cut(frame), room)),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for Outgoing {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        debug_assert!(!this.room.0.is_closed(), "room is made as long as this lives");
        let control = this.poll_control(context);
        if let Poll::Ready(Some(message)) = control {
            return Poll::Ready(Some(message));
        }
        match this.poll_data(context) {
            Poll::Ready(Some(message)) => Poll::Ready(Some(message)),
            // Both queues end with the last sink, but not at one instant.
            Poll::Ready(None) if control.is_ready() => Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// What a carrier brings: frames, or parts of them.
type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Where frames come from.
pub struct FrameStream {
    /// `None` once it ended or failed.
    messages: Option<Messages>,
    assembler: Assembler,
    arrived: u64,
}

impl FrameStream {
    pub(super) fn new(messages: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Self {
        Self { messages: Some(Box::pin(messages)), assembler: Assembler::new(FRAME_BYTES_MAX), arrived: 0 }
    }

    /// How many messages have arrived, whole frames and parts: it moves while a large frame comes in over a slow line.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// The next frame; `None` after the peer ended its side in good order. May be dropped while it waits: nothing is
    /// lost.
    ///
    /// # Errors
    /// [`Error::Lost`] if the connection broke; [`Error::Decode`], [`Error::Malformed`], [`Error::TooLarge`] if the peer
    /// sent what is no frame. After an error there are no more frames.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        while let Some(messages) = self.messages.as_mut() {
            let read = match messages.next().await {
                Some(message) => {
                    self.arrived += 1;
                    message.and_then(|message| self.assembler.push(message))
                }
                None => {
                    self.messages = None;
                    return Ok(None);
                }
            };
            match read {
                Ok(None) => {}
                Ok(Some(frame)) => return Ok(Some(frame)),
                Err(error) => {
                    self.messages = None;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

/// Two ends of a connection in memory. Frames are encoded, cut and decoded as on a wire.
pub fn pair() -> (Connection, Connection) {
    let (left_sink, left) = outgoing("memory");
    let (right_sink, right) = outgoing("memory");
    let end = |sink, from: Outgoing| Connection {
        sink,
        stream: FrameStream::new(from.map(Ok)),
        peer: "memory".to_owned(),
        local: true,
    };
    (end(left_sink, right), end(right_sink, left))
}

/// A line that carries so many bytes a second one way; nothing comes back.
#[cfg(test)]
pub(crate) fn slow_line(bytes_per_second: u64) -> (FrameSink, FrameStream) {
    let (sink, outgoing) = outgoing("memory");
    let carried = outgoing.then(move |message| async move {
        tokio::time::sleep(Duration::from_micros(message.len() as u64 * 1_000_000 / bytes_per_second)).await;
        Ok(message)
    });
    (sink, FrameStream::new(carried))
}
