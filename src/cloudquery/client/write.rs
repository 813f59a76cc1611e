//! One stream of writes to a destination.
//!
//! ```text
//!   send ──▶ queue (WRITE_QUEUE_MESSAGES, WRITE_QUEUE_BYTES) ──▶ gRPC ──▶ plugin ──▶ flushes, then how it ended
//! ```
//!
//! A plugin that is slow holds up [`WriteSession::send`]; one that ends early makes it, and everything after it, fail with
//! what the plugin said. Nothing is sure to be committed before `finish` (or `flush`) has returned.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::{Answer, Error, PluginClient};
use crate::cloudquery::proto::plugin::plugin_client::PluginClient as Client;
use crate::cloudquery::proto::plugin::write::{self, request::Message};

/// Messages that wait to be sent: enough that the plugin need not wait for us, few because each may be large.
pub const WRITE_QUEUE_MESSAGES: usize = 4;

/// What those messages may have in bytes together, unless one alone has more: four of the greatest size would be most of a
/// gigabyte, for each destination.
const WRITE_QUEUE_BYTES: usize = 32 << 20;

/// How long a destination may take to commit what it was sent: it may have a lot left to do.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Answers to flushes that wait to be read: one is asked for at a time.
const FLUSH_ANSWERS: usize = 4;

/// An open stream of writes. Dropped without `finish`, it is cut, and what the plugin had not committed may be lost.
#[derive(Debug)]
pub struct WriteSession {
    plugin: PluginClient,
    queue: Option<mpsc::Sender<Queued>>,
    room: Arc<Semaphore>,
    driver: Driver,
    ended: CancellationToken,
    end: Arc<End>,
    answers: Option<mpsc::Receiver<write::Response>>,
    last_flush: u64,
    last_table: Option<String>,
}

impl WriteSession {
    pub(super) fn write(plugin: PluginClient, mut client: Client<Channel>) -> Self {
        let (queue, waiting, end) = queue();
        let (ended, ends) = signal();
        let driver = Driver::spawn(async move {
            let _ends = ends;
            client.write(waiting).await.map(drop)
        });
        Self {
            plugin,
            queue: Some(queue),
            room: room(),
            driver,
            ended,
            end,
            answers: None,
            last_flush: 0,
            last_table: None,
        }
    }

    pub(super) fn write_stream(plugin: PluginClient, mut client: Client<Channel>) -> Self {
        let (queue, waiting, end) = queue();
        let (answered, answers) = mpsc::channel(FLUSH_ANSWERS);
        let (ended, ends) = signal();
        let driver = Driver::spawn(async move {
            let _ends = ends;
            let mut stream = client.write_stream(waiting).await?.into_inner();
            while let Some(answer) = stream.message().await? {
                // Whoever does not flush any more does not want to know.
                let _ = answered.send(answer).await;
            }
            Ok(())
        });
        let answers = Some(answers);
        Self { plugin, queue: Some(queue), room: room(), driver, ended, end, answers, last_flush: 0, last_table: None }
    }

    /// Cancelled when the stream has ended, by us or by the plugin. Then [`WriteSession::failure`] says why.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Puts a message into the queue, behind all others. `table` is the table that it is about.
    ///
    /// # Errors
    /// [`Error::WriteEnded`], with what the plugin said.
    pub async fn send(&mut self, table: &str, message: Message) -> Result<(), Error> {
        let Some(queue) = &self.queue else { return Err(self.failure().await) };
        let request = write::Request { message: Some(message) };
        let sent = tokio::select! {
            biased;
            () = self.ended.cancelled() => false,
            sent = enqueue(queue, &self.room, request) => sent,
        };
        if !sent {
            return Err(self.failure().await);
        }
        if self.last_table.as_deref() != Some(table) {
            self.last_table = Some(table.to_owned());
        }
        Ok(())
    }

    /// Why the stream ended that nobody here had finished. It may be dropped and called again.
    pub async fn failure(&mut self) -> Error {
        self.queue = None;
        // The task may be about to end only, for the queue's end closed first.
        let source = match tokio::time::timeout(COMMIT_TIMEOUT, self.driver.end()).await {
            Ok(Ending::Said(Err(status))) => Some(Answer::from(status)),
            Ok(Ending::Said(Ok(())) | Ending::Panicked) | Err(_) => None,
        };
        Error::WriteEnded { plugin: self.plugin.name(), table: self.last_table.clone(), source }
    }

    /// Waits until the plugin has committed everything that was sent. Only on a stream of
    /// [`PluginClient::write_stream`].
    ///
    /// # Errors
    /// [`Error::Flush`] where something since the last flush may not be committed; [`Error::WriteEnded`];
    /// [`Error::Deadline`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        if self.answers.is_none() {
            let status = Status::unimplemented("a stream of Write cannot flush; open one of WriteStream");
            return Err(self.plugin.failed("WriteStream", status));
        }
        self.last_flush += 1;
        let id = self.last_flush;
        let table = self.last_table.clone().unwrap_or_default();
        self.send(&table, Message::Flush(write::MessageFlush { id })).await?;
        let late = Error::Deadline { plugin: self.plugin.name(), call: "WriteStream", after: COMMIT_TIMEOUT };
        let answer = tokio::time::timeout(COMMIT_TIMEOUT, self.answer(id)).await.map_err(|_| late)?;
        let Some(answer) = answer else { return Err(self.failure().await) };
        if answer.flush_error.is_empty() && answer.failed_tables.is_empty() {
            return Ok(());
        }
        Err(Error::Flush { plugin: self.plugin.name(), what: answer.flush_error, tables: answer.failed_tables })
    }

    async fn answer(&mut self, id: u64) -> Option<write::Response> {
        let answers = self.answers.as_mut()?;
        loop {
            let answer = answers.recv().await?;
            if answer.flush_id == id {
                return Some(answer);
            }
        }
    }

    /// Ends the stream and waits until the plugin has committed everything.
    ///
    /// # Errors
    /// What the plugin said, or [`Error::Deadline`].
    pub async fn finish(mut self) -> Result<(), Error> {
        if self.queue.is_none() || self.ended.is_cancelled() {
            return Err(self.failure().await);
        }
        self.end.meant.store(true, Ordering::Release);
        self.queue = None;
        self.answers = None;
        let late = Error::Deadline { plugin: self.plugin.name(), call: "Write", after: COMMIT_TIMEOUT };
        match tokio::time::timeout(COMMIT_TIMEOUT, self.driver.end()).await.map_err(|_| late)? {
            Ending::Said(Ok(())) if self.end.taken.load(Ordering::Acquire) => Ok(()),
            Ending::Said(Err(status)) => Err(self.plugin.failed("Write", status)),
            // It said that all is well before it had everything.
            Ending::Said(Ok(())) | Ending::Panicked => Err(self.failure().await),
        }
    }
}

/// The task that has the call, and how it ended.
#[derive(Debug)]
enum Driver {
    Runs(AbortOnDropHandle<Result<(), Status>>),
    Ended(Ending),
}

#[derive(Clone, Debug)]
enum Ending {
    /// The plugin's answer.
    Said(Result<(), Status>),
    Panicked,
}

impl Driver {
    fn spawn(call: impl Future<Output = Result<(), Status>> + Send + 'static) -> Self {
        Self::Runs(AbortOnDropHandle::new(tokio::spawn(call)))
    }

    /// Waits for the end. It may be dropped and called again, and says the same each time: a sender that waits here loses
    /// the race against whoever watches all destinations, who then asks again.
    async fn end(&mut self) -> Ending {
        if let Self::Runs(task) = self {
            let ending = task.await.map_or(Ending::Panicked, Ending::Said);
            *self = Self::Ended(ending);
        }
        match self {
            Self::Ended(ending) => ending.clone(),
            Self::Runs(_) => unreachable!("it was awaited"),
        }
    }
}

/// How the queue ended.
#[derive(Debug, Default)]
struct End {
    /// By [`WriteSession::finish`]. Otherwise the session was dropped, and the plugin must not see an end: to it that would
    /// mean that everything was sent.
    meant: AtomicBool,
    /// The plugin's end of the stream has seen everything.
    taken: AtomicBool,
}

/// A message, and the room that it takes up while it waits.
#[derive(Debug)]
struct Queued {
    request: write::Request,
    _room: OwnedSemaphorePermit,
}

fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WRITE_QUEUE_BYTES))
}

async fn enqueue(queue: &mpsc::Sender<Queued>, room: &Arc<Semaphore>, request: write::Request) -> bool {
    let bytes = u32::try_from(request.encoded_len().min(WRITE_QUEUE_BYTES)).expect("the queue's bytes fit");
    let room = Arc::clone(room).acquire_many_owned(bytes).await.expect("nobody closes it");
    queue.send(Queued { request, _room: room }).await.is_ok()
}

fn queue() -> (mpsc::Sender<Queued>, Waiting, Arc<End>) {
    let (queue, waiting) = mpsc::channel(WRITE_QUEUE_MESSAGES);
    let end = Arc::<End>::default();
    (queue, Waiting { waiting, end: Arc::clone(&end) }, end)
}

/// The other end of the queue.
struct Waiting {
    waiting: mpsc::Receiver<Queued>,
    end: Arc<End>,
}

impl Stream for Waiting {
    type Item = write::Request;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<write::Request>> {
        match ready!(self.waiting.poll_recv(context)) {
            Some(queued) => Poll::Ready(Some(queued.request)),
            None if self.end.meant.load(Ordering::Acquire) => {
                self.end.taken.store(true, Ordering::Release);
                Poll::Ready(None)
            }
            // The stream is about to be cut, or the plugin has ended it.
            None => Poll::Pending,
        }
    }
}

/// A token, and what cancels it when it is dropped.
fn signal() -> (CancellationToken, DropGuard) {
    let ended = CancellationToken::new();
    let ends = ended.clone().drop_guard();
    (ended, ends)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    #[tokio::test]
    async fn only_a_session_that_is_finished_ends_its_stream() {
        for (meant, wanted) in [(false, None), (true, Some(None))] {
            let (sender, mut waiting, end) = queue();
            assert!(enqueue(&sender, &room(), write::Request { message: None }).await);
            assert!(waiting.next().await.is_some());
            end.meant.store(meant, Ordering::Release);
            drop(sender);
            assert_eq!(waiting.next().now_or_never(), wanted, "a stream that is dropped is cut, not ended");
            assert_eq!(end.taken.load(Ordering::Acquire), meant);
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_and_one_message_always_fits() {
        let (sender, mut waiting, _end) = queue();
        let room = room();
        let of = |bytes: usize| {
            let record = vec![7; bytes].into();
            write::Request { message: Some(Message::Insert(write::MessageInsert { record })) }
        };
        assert_eq!(enqueue(&sender, &room, of(2 * WRITE_QUEUE_BYTES)).now_or_never(), Some(true), "however large");
        assert_eq!(enqueue(&sender, &room, of(1)).now_or_never(), None, "not beside it");
        assert!(waiting.next().await.is_some());
        for _ in 0..2 {
            assert_eq!(enqueue(&sender, &room, of(WRITE_QUEUE_BYTES / 3)).now_or_never(), Some(true));
        }
        assert_eq!(enqueue(&sender, &room, of(WRITE_QUEUE_BYTES / 2)).now_or_never(), None);
    }

    #[tokio::test]
    async fn how_it_ended_is_known_to_everyone_who_asks() {
        let (end, ended) = tokio::sync::oneshot::channel();
        let mut driver = Driver::spawn(async move { ended.await.expect("told") });
        assert!(driver.end().now_or_never().is_none(), "who asked first went away");
        end.send(Err(Status::internal("disk on fire"))).expect("it listens");
        for _ in 0..2 {
            let Ending::Said(Err(status)) = driver.end().await else { panic!("{driver:?}") };
            assert_eq!(status.message(), "disk on fire");
        }
    }
}
