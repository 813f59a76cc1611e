//! What a plugin sends, decoded: the messages of a sync, the records of a read.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tonic::Streaming;

use super::{Error, PluginClient};
use crate::cloudquery::ipc;
use crate::cloudquery::proto::plugin::{read, sync};
use crate::cloudquery::table::schema_keys;
use crate::cloudquery::{Error as ProtocolError, Table};

/// A message of a source.
#[derive(Clone, Debug)]
pub enum SyncMessage {
    /// A table is to be as this schema says.
    MigrateTable(SchemaRef),
    /// Rows; the schema's metadata names the table.
    Insert {
        /// The table's name.
        table: String,
        /// The rows; mostly one batch.
        batches: Vec<RecordBatch>,
    },
    /// Rows are to go.
    DeleteRecord(sync::MessageDeleteRecord),
    /// A table could not be read, or not wholly.
    Error {
        /// The table.
        table: String,
        /// The plugin's words.
        error: String,
    },
    /// Rows for the state table, which only a source sends that was told that we keep them.
    Checkpoint(Vec<RecordBatch>),
    /// Something of a newer protocol.
    Unknown,
}

/// A source's messages, in its order. Dropping it ends the sync.
#[derive(Debug)]
pub struct SyncStream {
    plugin: PluginClient,
    stream: Streaming<sync::Response>,
}

impl SyncStream {
    pub(super) fn new(plugin: PluginClient, stream: Streaming<sync::Response>) -> Self {
        Self { plugin, stream }
    }

    /// The next message; nothing when the source has said everything. It may be dropped and called again.
    ///
    /// # Errors
    /// The source's, or [`Error::Malformed`]; there is nothing to come after one.
    pub async fn next(&mut self) -> Result<Option<SyncMessage>, Error> {
        let message = self.stream.message().await.map_err(|status| self.plugin.failed("Sync", status))?;
        let Some(message) = message else { return Ok(None) };
        decode(message).map(Some).map_err(|source| self.plugin.malformed("Sync", source))
    }
}

fn decode(response: sync::Response) -> Result<SyncMessage, ProtocolError> {
    use sync::response::Message;
    let Some(message) = response.message else { return Ok(SyncMessage::Unknown) };
    Ok(match message {
        Message::MigrateTable(migrate) => {
            let schema = ipc::decode_schema(&migrate.table)?;
            Table::from_schema(&schema)?;
            SyncMessage::MigrateTable(schema)
        }
        Message::Insert(insert) => {
            let (schema, batches) = ipc::decode_records(&insert.record)?;
            let table = schema.metadata().get(schema_keys::NAME).filter(|name| !name.is_empty());
            SyncMessage::Insert { table: table.cloned().ok_or(ProtocolError::NoTableName)?, batches }
        }
        Message::DeleteRecord(delete) => SyncMessage::DeleteRecord(delete),
        Message::Error(error) => SyncMessage::Error { table: error.table_name, error: error.error },
        Message::Checkpoint(checkpoint) => SyncMessage::Checkpoint(ipc::decode_records(&checkpoint.record)?.1),
    })
}

/// A destination's rows of a table. Dropping it ends the read.
#[derive(Debug)]
pub struct ReadStream {
    plugin: PluginClient,
    stream: Streaming<read::Response>,
}

impl ReadStream {
    pub(super) fn new(plugin: PluginClient, stream: Streaming<read::Response>) -> Self {
        Self { plugin, stream }
    }

    /// The next rows; nothing when there are no more.
    ///
    /// # Errors
    /// The destination's, or [`Error::Malformed`].
    pub async fn next(&mut self) -> Result<Option<Vec<RecordBatch>>, Error> {
        let message = self.stream.message().await.map_err(|status| self.plugin.failed("Read", status))?;
        let Some(message) = message else { return Ok(None) };
        let decoded = ipc::decode_records(&message.record);
        decoded.map(|(_, batches)| Some(batches)).map_err(|source| self.plugin.malformed("Read", source))
    }
}
