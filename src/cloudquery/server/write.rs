//! Streams of messages into the destination: Write, WriteStream, and those of the older versions.
//!
//! Messages are taken one at a time, in order, and the next one is read when the one before is done, so a client is held
//! back by what it has sent. A stream works in a task of its own: where the client is gone, what it sent whole is still
//! written.
//!
//! On Write, the first failure ends the stream. On WriteStream, what fails between two flushes is what the second one
//! answers, with the tables that it concerns, and the stream goes on: other tables have done nothing wrong. What is no
//! message at all ends either, after everything before it was written.

use std::future;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures_util::FutureExt;
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Calls;
use super::served::Absent;
use super::status::{Failure, said, short};
use crate::cloudquery::destination::{self, Writer};
use crate::cloudquery::proto::plugin::write::request::Message;
use crate::cloudquery::proto::plugin::write::{Request, Response};
use crate::cloudquery::table::schema_keys;
use crate::cloudquery::{DeleteRecord, Error, Table, ipc};

/// Answers that wait for a client that does not read them; then its messages wait, too.
const ANSWERS_MAX: usize = 16;

/// Bytes of messages after which everything that waits is written. Rows may be views of the message that brought them, so
/// that a few small rows of a large message hold all of it; the writer's own limits count rows. Far below the largest
/// message, so that of two of those the first is gone before the second is decoded.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Bytes of the names of tables that have failed since the last flush, of which a client is told. One whose tables fail
/// without end, and which never flushes, is told at once, and its stream ends.
const FAILED_BYTES_MAX: usize = 1 << 20;

/// What a message asks of the writer.
pub(super) enum Op {
    Migrate(Table, bool),
    Insert(RecordBatch),
    DeleteStale { table: String, source: String, before: Option<Timestamp> },
    DeleteRecord(DeleteRecord),
    Flush(u64),
}

/// What a message of version 3 asks. A message of a kind that is not known asks nothing.
pub(super) fn convert(request: Request) -> Result<Vec<Op>, Failure> {
    let op = match request.message {
        None => return Ok(Vec::new()),
        Some(Message::MigrateTable(wire)) => Op::Migrate(table(&wire.table)?, wire.migrate_force),
        Some(Message::Insert(wire)) => return Ok(records(wire.record)?.into_iter().map(Op::Insert).collect()),
        Some(Message::Delete(wire)) => {
            Op::DeleteStale { table: wire.table_name, source: wire.source_name, before: wire.sync_time }
        }
        Some(Message::DeleteRecord(wire)) => {
            Op::DeleteRecord(DeleteRecord::from_write(&wire).map_err(|error| Failure::Record(said(&error)))?)
        }
        Some(Message::Flush(wire)) => Op::Flush(wire.id),
    };
    Ok(vec![op])
}

/// The table that a schema's bytes describe.
pub(super) fn table(bytes: &[u8]) -> Result<Table, Failure> {
    ipc::decode_table(bytes).map_err(|error| match error {
        Error::NoTableName => Failure::NoTableName,
        other => Failure::Schema(said(&other)),
    })
}

/// The batches of a record's bytes, which all name their table.
pub(super) fn records(bytes: Bytes) -> Result<Vec<RecordBatch>, Failure> {
    let (schema, batches) = ipc::decode_owned(bytes).map_err(|error| Failure::Record(said(&error)))?;
    match schema.metadata().get(schema_keys::NAME) {
        Some(name) if !name.is_empty() => Ok(batches),
        _ => Err(Failure::RecordWithoutTable),
    }
}

impl Calls {
    /// Write: everything that the client sends, until it ends or something fails.
    pub(super) async fn write<M: prost::Message + 'static>(
        &self,
        mut messages: Streaming<M>,
        convert: impl FnMut(M) -> Result<Vec<Op>, Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let writer = self.writer(&mut messages).await?;
        let stream = Stream { messages, convert, writer, answers: None, failed: None, held_bytes: 0 };
        let task = self.tasks.spawn(stream.run(self.shutdown.clone()));
        task.await.unwrap_or(Err(Failure::Panic))
    }

    /// WriteStream: the same, with an answer to each flush.
    pub(super) fn write_stream(&self, mut messages: Streaming<Request>) -> mpsc::Receiver<Result<Response, Status>> {
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let calls = self.clone();
        // The answer's head is sent at once: a client may wait for it before it writes.
        self.tasks.spawn(async move {
            let stream = async {
                let writer = calls.writer(&mut messages).await?;
                let stream = Stream {
                    messages,
                    convert: self::convert,
                    writer,
                    answers: Some(answers.clone()),
                    failed: None,
                    held_bytes: 0,
                };
                stream.run(calls.shutdown.clone()).await
            };
            let ended = std::panic::AssertUnwindSafe(stream).catch_unwind().await;
            if let Err(failure) = ended.unwrap_or(Err(Failure::Panic)) {
                // A client that is gone has no use for it.
                let _ = answers.send(Err(failure.into())).await;
            }
        });
        receiver
    }

    /// A writer, if Init was called; what is said if not depends on whether the client has written anything.
    async fn writer<M>(&self, messages: &mut Streaming<M>) -> Result<Writer, Failure> {
        match self.plugin.session() {
            Ok(session) => Ok(session.destination.writer()),
            Err(Absent::Closed) => Err(Failure::Closed),
            Err(Absent::New) => Err(match messages.message().await {
                Ok(Some(_)) => Failure::WriteBeforeInit,
                Ok(None) => Failure::WriteNothingBeforeInit,
                Err(status) => Failure::Receive(status.message().to_owned()),
            }),
        }
    }
}

struct Stream<M, C> {
    messages: Streaming<M>,
    convert: C,
    writer: Writer,
    /// Where flushes are answered; without it a failure ends the stream.
    answers: Option<mpsc::Sender<Result<Response, Status>>>,
    /// What failed first since the last flush.
    failed: Option<String>,
    /// Bytes of the messages that have come since everything was written last.
    held_bytes: usize,
}

/// Whether the client reads on.
enum Then {
    GoOn,
    Gone,
}

impl<M: prost::Message, C: FnMut(M) -> Result<Vec<Op>, Failure>> Stream<M, C> {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Failure> {
        loop {
            let deadline = self.writer.deadline();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    let flushed = self.writer.flush().await;
                    return Err(flushed.err().map_or(Failure::Stopping, |error| Failure::WriteEnd(said(&error))));
                }
                next = self.messages.message() => match next {
                    Ok(Some(message)) => {
                        if let Then::Gone = self.take(message).await? {
                            return self.end().await;
                        }
                    }
                    Ok(None) => return self.end().await,
                    Err(status) => return Err(self.cut(&status).await),
                },
                () = until(deadline) => {
                    let ticked = self.writer.tick().await;
                    self.note(ticked)?;
                }
            }
        }
    }

    async fn take(&mut self, message: M) -> Result<Then, Failure> {
        self.held_bytes += message.encoded_len();
        let ops = match (self.convert)(message) {
            Ok(ops) => ops,
            Err(failure) => {
                return Err(match self.writer.flush().await {
                    Ok(()) => failure,
                    Err(error) => Failure::ConvertAndWrite(failure.to_string(), said(&error)),
                });
            }
        };
        for op in ops {
            if let Then::Gone = self.apply(op).await? {
                return Ok(Then::Gone);
            }
        }
        if self.held_bytes >= HELD_BYTES_MAX {
            self.held_bytes = 0;
            let flushed = self.writer.flush().await;
            self.note(flushed)?;
        }
        Ok(Then::GoOn)
    }

    async fn apply(&mut self, op: Op) -> Result<Then, Failure> {
        let writer = &mut self.writer;
        let done = match op {
            Op::Migrate(table, force) => writer.migrate(table, force).await,
            Op::Insert(record) => writer.insert(record).await,
            Op::DeleteStale { table, source, before } => writer.delete_stale(&table, &source, before).await,
            Op::DeleteRecord(delete) => writer.delete_record(delete).await,
            Op::Flush(id) => return self.flush(id).await,
        };
        self.note(done)?;
        Ok(Then::GoOn)
    }

    /// What a failure of the writer means: the stream's end, or a word in the next answer.
    fn note(&mut self, done: Result<(), destination::Error>) -> Result<(), Failure> {
        let Err(error) = done else { return Ok(()) };
        let text = said(&error);
        if self.answers.is_none() || self.writer.failed_bytes() > FAILED_BYTES_MAX {
            return Err(Failure::Write(text));
        }
        self.failed.get_or_insert(short(text));
        Ok(())
    }

    async fn flush(&mut self, flush_id: u64) -> Result<Then, Failure> {
        let flushed = self.writer.flush().await;
        self.note(flushed)?;
        let Some(answers) = &self.answers else { return Ok(Then::GoOn) };
        let flush_error = self.failed.take().unwrap_or_default();
        let failed_tables = if flush_error.is_empty() { Vec::new() } else { self.writer.failed_tables() };
        self.writer.forget_failures();
        let answer = Response { flush_id, flush_error, failed_tables };
        Ok(if answers.send(Ok(answer)).await.is_ok() { Then::GoOn } else { Then::Gone })
    }

    /// The client has closed its side.
    async fn end(&mut self) -> Result<(), Failure> {
        let flushed = self.writer.flush().await.map_err(|error| said(&error));
        match self.failed.take().map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(text) => Err(Failure::WriteEnd(text)),
        }
    }

    /// The stream broke off.
    async fn cut(&mut self, status: &Status) -> Failure {
        let received = status.message().to_owned();
        tracing::warn!(error = received, "a write was cut; what had come whole is kept");
        match self.writer.flush().await {
            Ok(()) => Failure::Receive(received),
            Err(error) => Failure::ReceiveAndWrite(received, said(&error)),
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => future::pending().await,
    }
}
