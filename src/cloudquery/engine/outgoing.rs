//! What one message of a source becomes for each destination.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::Bytes;

use super::{Error, Rewriter};
use crate::cloudquery::client::SyncMessage;
use crate::cloudquery::proto::plugin::sync;
use crate::cloudquery::proto::plugin::write::{self, request::Message};
use crate::cloudquery::table::schema_keys;
use crate::cloudquery::{Error as ProtocolError, MESSAGE_BYTES_MAX, ipc};

/// What stands around a record in a message, at most: room that its encoding must leave.
const ENVELOPE_BYTES: usize = 64;

/// How messages are made for one destination.
#[derive(Clone, Debug)]
pub(super) struct Maker {
    pub source: String,
    pub destination: String,
    pub rewriter: Rewriter,
    /// Whether tables may be dropped and created anew.
    pub force: bool,
    /// Whether tables are migrated at all.
    pub migrate: bool,
    /// The largest encoding of a record.
    pub record_bytes_max: usize,
}

/// Messages for one destination, all about one table.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub table: String,
    pub messages: Vec<Message>,
}

impl Maker {
    pub(super) const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - ENVELOPE_BYTES;

    /// The messages, in their order; none for what only we are to know.
    pub(super) fn make(&self, message: &SyncMessage) -> Result<Outgoing, Error> {
        let (table, messages) = match message {
            SyncMessage::MigrateTable(schema) => {
                let table = schema.metadata().get(schema_keys::NAME).cloned().unwrap_or_default();
                let messages = if self.migrate { vec![self.migrate_table(&table, schema)?] } else { Vec::new() };
                (table, messages)
            }
            SyncMessage::Insert { table, batches } => {
                let mut messages = Vec::new();
                // A message is one batch: that is all that most plugins read of one.
                for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
                    self.insert(table, batch, &mut messages)?;
                }
                (table.clone(), messages)
            }
            SyncMessage::DeleteRecord(delete) => (delete.table_name.clone(), vec![delete_record(delete)]),
            SyncMessage::Error { table, .. } => (table.clone(), Vec::new()),
            SyncMessage::Checkpoint(_) | SyncMessage::Unknown => (String::new(), Vec::new()),
        };
        Ok(Outgoing { table, messages })
    }

    pub(super) fn migrate_table(&self, table: &str, schema: &Schema) -> Result<Message, Error> {
        let encoded = ipc::encode_schema(&self.rewriter.schema(schema));
        let bytes = encoded.map_err(|source| self.failed(table, source))?;
        Ok(Message::MigrateTable(write::MessageMigrateTable { table: bytes, migrate_force: self.force }))
    }

    /// The record in as many messages as its size takes.
    pub(super) fn insert(&self, table: &str, batch: &RecordBatch, messages: &mut Vec<Message>) -> Result<(), Error> {
        let rewritten = self.rewriter.record(batch).map_err(|source| self.failed(table, source))?;
        self.split(table, &rewritten, messages)
    }

    fn split(&self, table: &str, record: &RecordBatch, messages: &mut Vec<Message>) -> Result<(), Error> {
        let bytes: Bytes = ipc::encode_record(record).map_err(|source| self.failed(table, source))?;
        if bytes.len() <= self.record_bytes_max {
            messages.push(Message::Insert(write::MessageInsert { record: bytes }));
            return Ok(());
        }
        let (rows, size) = (record.num_rows(), bytes.len());
        drop(bytes);
        if rows == 1 {
            return Err(Error::RowTooLarge { table: table.to_owned(), bytes: size, max: self.record_bytes_max });
        }
        self.split(table, &record.slice(0, rows / 2), messages)?;
        self.split(table, &record.slice(rows / 2, rows - rows / 2), messages)
    }

    fn failed(&self, table: &str, source: ProtocolError) -> Error {
        let (source_name, destination) = (self.source.clone(), self.destination.clone());
        Error::Rewrite { source_name, destination, table: table.to_owned(), source: Box::new(source) }
    }
}

fn delete_record(delete: &sync::MessageDeleteRecord) -> Message {
    let sync::MessageDeleteRecord { table_name, where_clause, table_relations } = delete.clone();
    Message::DeleteRecord(write::MessageDeleteRecord { table_name, where_clause, table_relations })
}

/// Makes the messages of every destination, on a thread for such work: a record may be as large as a message.
pub(super) async fn make_all(makers: &[Arc<Maker>], message: SyncMessage) -> Result<Vec<Outgoing>, Error> {
    let makers = makers.to_vec();
    let made = tokio::task::spawn_blocking(move || makers.iter().map(|maker| maker.make(&message)).collect());
    made.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Metadata};

    use super::super::{PkMode, WriteMode};
    use super::*;

    fn maker(record_bytes_max: usize) -> Maker {
        let rewriter = Rewriter {
            write_mode: WriteMode::Overwrite,
            pk_mode: PkMode::Default,
            sync_time_us: 1,
            source_name: "s".to_owned(),
            sync_group_id: None,
            columns_not_null: false,
        };
        let (source, destination) = ("s".to_owned(), "d".to_owned());
        Maker { source, destination, rewriter, force: true, migrate: true, record_bytes_max }
    }

    fn records(rows: i64, text: &str) -> SyncMessage {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("t", DataType::Utf8, true)];
        let schema = Schema::new_with_metadata(fields, Metadata::from([(schema_keys::NAME, "t1")]));
        let texts = StringArray::from_iter_values((0..rows).map(|_| text));
        let ids = Int64Array::from_iter_values(0..rows);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(texts)]).expect("batch");
        SyncMessage::Insert { table: "t1".to_owned(), batches: vec![batch.slice(0, 0), batch] }
    }

    fn ids(message: &Message) -> Vec<i64> {
        use arrow::array::AsArray as _;
        let Message::Insert(insert) = message else { panic!("{message:?}") };
        let (_, batches) = ipc::decode_records(&insert.record).expect("decode");
        assert_eq!(batches.len(), 1);
        let column = batches[0].column_by_name("id").expect("id");
        column.as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
    }

    #[test]
    fn a_record_too_large_for_a_message_travels_in_several_in_order() {
        let one = maker(Maker::RECORD_BYTES_MAX).make(&records(100, "x")).expect("made");
        assert_eq!((one.table.as_str(), one.messages.len()), ("t1", 1));
        let parts = maker(4_000).make(&records(100, &"x".repeat(100))).expect("made").messages;
        assert!(parts.len() > 3, "{}", parts.len());
        assert_eq!(parts.iter().flat_map(ids).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        let error = maker(4_000).make(&records(1, &"x".repeat(4_000))).expect_err("one row");
        assert!(matches!(error, Error::RowTooLarge { .. }), "{error}");
    }

    #[test]
    fn tables_are_forced_or_left_alone_as_the_mode_says() {
        let SyncMessage::Insert { batches, .. } = records(1, "x") else { unreachable!() };
        let message = SyncMessage::MigrateTable(batches[0].schema());
        let forced = |maker: Maker| match maker.make(&message).expect("made").messages.as_slice() {
            [Message::MigrateTable(migrate)] => Some(migrate.migrate_force),
            [] => None,
            other => panic!("{other:?}"),
        };
        let plain = maker(Maker::RECORD_BYTES_MAX);
        assert_eq!(forced(plain.clone()), Some(true));
        assert_eq!(forced(Maker { force: false, ..plain.clone() }), Some(false));
        assert_eq!(forced(Maker { migrate: false, ..plain }), None);
    }
}
