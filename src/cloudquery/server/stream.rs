//! Streams to a client: Read and Sync.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use super::served::Session;
use super::status::{Failure, said};
use super::{Calls, MESSAGE_BYTES_MAX};
use crate::cloudquery::proto::plugin::{read, sync};
use crate::cloudquery::source::{Source, SyncMessage, SyncRequest};
use crate::cloudquery::{Error, Table, ipc};

/// Messages that wait for a client that does not read them.
const AHEAD_MAX: usize = 2;

/// What a record of many rows is cut to. Go's clients of state backends take 100 MiB.
const RECORD_BYTES_AIM: usize = 64 << 20;

/// The largest record of one row, with room for what stands around it in a message.
const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;

type Out<T> = mpsc::Sender<Result<T, Status>>;

/// Why nothing more is sent.
enum Ended {
    /// The client is gone.
    Gone,
    Failed(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(said(&error))
    }
}

impl Calls {
    /// Runs what fills a stream, and ends the stream with its failure.
    fn stream<T: Send + 'static, F>(&self, fill: impl FnOnce(Out<T>) -> F) -> mpsc::Receiver<Result<T, Status>>
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let (out, receiver) = mpsc::channel(AHEAD_MAX);
        let (work, shutdown) = (fill(out.clone()), self.shutdown.clone());
        self.tasks.spawn(async move {
            let caught = std::panic::AssertUnwindSafe(work).catch_unwind();
            let ended = tokio::select! {
                ended = caught => ended.unwrap_or(Err(Failure::Panic)),
                () = shutdown.cancelled() => Err(Failure::Stopping),
            };
            if let Err(failure) = ended {
                // A client that is gone has no use for it; one that does not read is not waited for at the end.
                tokio::select! {
                    _ = out.send(Err(failure.into())) => {}
                    () = shutdown.cancelled() => {}
                }
            }
        });
        receiver
    }

    /// A table's rows. Nothing else of those that must be alone may run until the stream ends.
    pub(super) fn read(
        &self,
        session: Arc<Session>,
        table: Table,
        turn: OwnedSemaphorePermit,
    ) -> mpsc::Receiver<Result<read::Response, Status>> {
        self.stream(move |out| async move {
            let _turn = turn;
            let (rows, mut batches) = mpsc::channel::<Result<RecordBatch, _>>(AHEAD_MAX);
            let forward = async move {
                while let Some(batch) = batches.recv().await {
                    let batch = batch.map_err(|error| Ended::Failed(said(&error)))?;
                    send_records(&out, batch, |record| read::Response { record }).await?;
                }
                Ok(())
            };
            let (done, forwarded) = tokio::join!(session.destination.read(table, rows), forward);
            match forwarded {
                Err(Ended::Failed(text)) => Err(Failure::Read(text)),
                Err(Ended::Gone) => Ok(()),
                Ok(()) => done.map_err(|error| Failure::Read(said(&error))),
            }
        })
    }

    /// What a source says in a sync.
    pub(super) fn sync(
        &self,
        source: Arc<dyn Source>,
        request: SyncRequest,
        turn: OwnedSemaphorePermit,
    ) -> mpsc::Receiver<Result<sync::Response, Status>> {
        self.stream(move |out| async move {
            let _turn = turn;
            let (says, messages) = mpsc::channel(AHEAD_MAX);
            let allowed = Allowed { errors: request.with_error_messages, checkpoints: request.supports_checkpoints };
            let sync = source.sync(request, says);
            let forward = pin!(forward(messages, out, allowed));
            // Where the client is gone the source is dropped, wherever it is.
            let (done, forwarded) = match select(sync, forward).await {
                Either::Left((done, forward)) => (done, forward.await),
                Either::Right((Ok(()), sync)) => (sync.await, Ok(())),
                Either::Right((ended, _)) => (Ok(()), ended),
            };
            match forwarded {
                Err(Ended::Failed(text)) => Err(Failure::Sync(text)),
                Err(Ended::Gone) => Ok(()),
                Ok(()) => done.map_err(|error| Failure::Sync(said(&error))),
            }
        })
    }
}

/// What the client said it understands.
struct Allowed {
    errors: bool,
    checkpoints: bool,
}

async fn forward(
    mut messages: mpsc::Receiver<SyncMessage>,
    out: Out<sync::Response>,
    allowed: Allowed,
) -> Result<(), Ended> {
    use sync::response::Message;
    let response = |message| sync::Response { message: Some(message) };
    while let Some(message) = next(&mut messages, &out).await? {
        let message = match message {
            SyncMessage::MigrateTable(table) => {
                Message::MigrateTable(sync::MessageMigrateTable { table: ipc::encode_schema(&table.to_schema())? })
            }
            SyncMessage::Insert(batch) => {
                let insert = |record| response(Message::Insert(sync::MessageInsert { record }));
                send_records(&out, batch, insert).await?;
                continue;
            }
            SyncMessage::DeleteRecord(delete) => Message::DeleteRecord(delete.to_sync()?),
            SyncMessage::Error { table, error } => {
                tracing::error!(table, error, "a table was not synced");
                if !allowed.errors {
                    continue;
                }
                Message::Error(sync::MessageError { table_name: table, error })
            }
            SyncMessage::Checkpoint(_) if !allowed.checkpoints => {
                tracing::debug!("the client takes no checkpoints; one is left out");
                continue;
            }
            SyncMessage::Checkpoint(record) => {
                Message::Checkpoint(sync::MessageCheckpoint { record: ipc::encode_record(&record)? })
            }
        };
        out.send(Ok(response(message))).await.map_err(|_| Ended::Gone)?;
    }
    Ok(())
}

/// The source's next message; the end where the client is gone, also while the source is silent.
async fn next(
    messages: &mut mpsc::Receiver<SyncMessage>,
    out: &Out<sync::Response>,
) -> Result<Option<SyncMessage>, Ended> {
    tokio::select! {
        message = messages.recv() => Ok(message),
        () = out.closed() => Err(Ended::Gone),
    }
}

/// Sends a batch as records of a batch each, cut where it is too large for one.
async fn send_records<T>(out: &Out<T>, batch: RecordBatch, message: impl Fn(Bytes) -> T) -> Result<(), Ended> {
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        let record = ipc::encode_record(&part)?;
        let rows = part.num_rows();
        if record.len() > RECORD_BYTES_AIM && rows > 1 {
            parts.push(part.slice(rows / 2, rows - rows / 2));
            parts.push(part.slice(0, rows / 2));
        } else if record.len() > RECORD_BYTES_MAX {
            let bytes = record.len();
            return Err(Ended::Failed(format!(
                "a row of {bytes} bytes is larger than a message may be, {RECORD_BYTES_MAX}; leave a column out"
            )));
        } else {
            out.send(Ok(message(record))).await.map_err(|_| Ended::Gone)?;
        }
    }
    Ok(())
}
