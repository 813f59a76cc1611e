//! What a source is to go on from next time, as it said while it was synced: rows of its state table, kept back until
//! every destination has committed everything. Kept sooner, what a destination then fails to commit would never be sent
//! again.
//!
//! Bounded by [`KEPT_BYTES_MAX`]: of rows with the same key only the last one is held.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::Bytes;

use super::Error;
use crate::cloudquery::client::{self, PluginClient};
use crate::cloudquery::proto::plugin::write::{self, request::Message};
use crate::cloudquery::table::schema_keys;
use crate::cloudquery::text::Formatter;
use crate::cloudquery::{Error as ProtocolError, Table, ipc};

/// How much state a source may have: it is a few cursors, and what is far beyond that is a mistake.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The checkpoints of one sync.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    table: Option<Bytes>,
    /// A record of one row, by the text of its key.
    rows: BTreeMap<Vec<Option<String>>, Bytes>,
    bytes: usize,
}

impl Checkpoints {
    /// Takes in rows for the state table of that name.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where they cannot be read, or are too many.
    pub(super) fn take(&mut self, source: &str, table: &str, batches: &[RecordBatch]) -> Result<(), Error> {
        let failed = |error| Error::Checkpoint { source_name: source.to_owned(), source: Box::new(error) };
        for batch in batches {
            self.take_batch(table, batch).map_err(failed)?;
        }
        if self.bytes <= KEPT_BYTES_MAX {
            return Ok(());
        }
        let what = format!("its state is larger than {KEPT_BYTES_MAX} bytes");
        Err(failed(ProtocolError::Malformed(what)))
    }

    fn take_batch(&mut self, table: &str, batch: &RecordBatch) -> Result<(), ProtocolError> {
        let mut metadata = batch.schema().metadata().clone();
        metadata.insert(schema_keys::NAME, table);
        let schema = Arc::new(Schema::new_with_metadata(batch.schema().fields().clone(), metadata));
        let described = Table::from_schema(&schema)?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?;
        let is_key = |name: &str| match described.primary_key().as_slice() {
            [] => true,
            key => key.contains(&name),
        };
        let key = schema.fields().iter().enumerate().filter(|(_, field)| is_key(field.name()));
        let key = key.map(|(place, field)| Ok((place, Formatter::new(field)?)));
        let key = key.collect::<Result<Vec<_>, ProtocolError>>()?;
        for row in 0..batch.num_rows() {
            let text = |(place, formatter): &(usize, Formatter)| {
                let mut text = String::new();
                Ok(formatter.write(batch.column(*place), row, &mut text)?.then_some(text))
            };
            let key = key.iter().map(text).collect::<Result<Vec<_>, ProtocolError>>()?;
            let record = ipc::encode_record(&batch.slice(row, 1))?;
            self.bytes += record.len();
            self.bytes -= self.rows.insert(key, record).map_or(0, |before| before.len());
        }
        self.table = Some(ipc::encode_schema(&schema)?);
        Ok(())
    }

    /// Writes them to the backend, and waits until they are committed.
    ///
    /// # Errors
    /// The backend's.
    pub(super) async fn keep(self, backend: &PluginClient, name: &str) -> Result<(), client::Error> {
        let Some(table) = self.table else { return Ok(()) };
        let mut session = backend.write();
        let migrate = write::MessageMigrateTable { table, migrate_force: false };
        session.send(name, Message::MigrateTable(migrate)).await?;
        for record in self.rows.into_values() {
            session.send(name, Message::Insert(write::MessageInsert { record })).await?;
        }
        session.finish().await
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::DataType;

    use super::*;
    use crate::cloudquery::Column;

    fn state(key: Option<&str>, value: &str, has_key: bool) -> RecordBatch {
        let columns =
            vec![Column::new("key", DataType::Utf8).with_primary_key(has_key), Column::new("value", DataType::Utf8)];
        let schema = Arc::new(Table::new("other", columns).to_schema());
        let (key, value) = (StringArray::from(vec![key]), StringArray::from(vec![value]));
        RecordBatch::try_new(schema, vec![Arc::new(key), Arc::new(value)]).expect("a record")
    }

    #[test]
    fn of_a_key_the_last_row_is_held_and_the_whole_is_bounded() {
        let mut held = Checkpoints::default();
        for (key, value) in [(Some("a"), "1"), (None, "2"), (Some("a"), "3"), (Some(""), "4")] {
            held.take("s", "progress", &[state(key, value, true)]).expect("taken");
        }
        assert_eq!(held.rows.len(), 3);
        assert_eq!(held.bytes, held.rows.values().map(Bytes::len).sum::<usize>());
        let (schema, batches) = ipc::decode_records(&held.rows[&vec![Some("a".to_owned())]]).expect("a record");
        assert_eq!(Table::from_schema(&schema).expect("a table").name, "progress");
        assert_eq!(batches[0].column(1).as_ref(), &StringArray::from(vec!["3"]) as &dyn arrow::array::Array);
        let mut keyless = Checkpoints::default();
        for value in ["1", "2", "1"] {
            keyless.take("s", "progress", &[state(Some("a"), value, false)]).expect("taken");
        }
        assert_eq!(keyless.rows.len(), 2, "without a key, equal rows are one");
        let huge = state(Some("b"), &"x".repeat(KEPT_BYTES_MAX), true);
        assert!(held.take("s", "progress", &[huge]).is_err());
    }
}
