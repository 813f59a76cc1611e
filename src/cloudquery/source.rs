//! What a source is to the server in front of it: something that has tables and can be synced.
//!
//! The source itself belongs to the layer above, which reads databases and change logs; [`super::server`] is given a
//! [`SourceFactory`], and opens a source where a client first asks for its tables or its rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::selection::Wanted;
use super::{DeleteRecord, Error, Table};

/// A Sync's request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncRequest {
    /// Which tables.
    pub wanted: Wanted,
    /// Whether `_cq_id` is to be made of the key, and thus the same in each sync.
    pub deterministic_cq_id: bool,
    /// Where the source keeps what the next sync is to continue from.
    pub backend: Option<Backend>,
    /// Which part of the work this sync does.
    pub shard: Option<Shard>,
    /// Whether [`SyncMessage::Error`] may be sent.
    pub with_error_messages: bool,
    /// Whether [`SyncMessage::Checkpoint`] may be sent.
    pub supports_checkpoints: bool,
}

/// A state backend: a table of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The table.
    pub table_name: String,
    /// Where the destination listens: `host:port`, or `unix:///path`.
    pub connection: String,
}

/// A part of a sync. `1 ≤ num ≤ total`: the server has checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    pub num: u32,
    /// Of how many.
    pub total: u32,
}

/// What a source says in a sync.
#[derive(Clone, Debug, PartialEq)]
pub enum SyncMessage {
    /// A table as it is to be; before its first row.
    MigrateTable(Table),
    /// Rows. The schema's metadata names their table.
    Insert(RecordBatch),
    /// Rows to delete.
    DeleteRecord(DeleteRecord),
    /// A table that could not be synced; the others go on.
    Error {
        /// The table.
        table: String,
        /// Why, for people.
        error: String,
    },
    /// Rows for the state table, to be kept once everything before them is committed.
    Checkpoint(RecordBatch),
}

/// A database with tables to sync.
pub trait Source: Send + Sync {
    /// The wanted tables, flattened: each once, parents before children.
    fn tables(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Table>, Error>>;

    /// Sends everything that is asked for, and returns when it has. Where the receiver is gone, so is the client: then
    /// nothing more needs doing, and what is returned is seen by nobody. The future may be dropped at any await.
    fn sync(&self, request: SyncRequest, messages: mpsc::Sender<SyncMessage>) -> BoxFuture<'_, Result<(), Error>>;
}

/// Opens sources.
pub trait SourceFactory: Send + Sync {
    /// The source of a spec: the JSON that Init was called with, which may be empty or `null`, and of which only that is
    /// known that the destination's parser takes it. Without a connection, only [`Source::tables`] is called.
    fn open<'a>(&'a self, spec: &'a [u8], no_connection: bool) -> BoxFuture<'a, Result<Arc<dyn Source>, Error>>;
}
