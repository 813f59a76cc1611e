//! Where a sync of changes ended, so that the next one goes on from there: in the state table of a backend where the
//! client names one, else with the consumer in the database itself.
//!
//! The state table is CloudQuery's own: `key`, `value`, `version`; of a key's rows the one with the highest version
//! counts. Our value is JSON.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, UInt64Type};
use serde::{Deserialize, Serialize};

use crate::capture::GivenTable;
use crate::cloudquery::client::{Address, PluginClient};
use crate::cloudquery::proto::plugin::write::request::Message;
use crate::cloudquery::proto::plugin::write::{MessageInsert, MessageMigrateTable};
use crate::cloudquery::source::Backend;
use crate::cloudquery::{self, Column, Table, ipc};
use crate::model::{Checkpoint, CopyState, Epoch, Position, TableId};
use crate::replicate::Error;

/// What is kept between two syncs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    epoch: i64,
    seq: i64,
    ts_ms: i64,
    fingerprint: i64,
    tables: Vec<StateTable>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StateTable {
    id: i64,
    name: String,
    /// Whether the destination has it as it was then.
    whole: bool,
}

impl State {
    /// That everything up to there was said, and of these tables how much.
    pub fn new(at: Checkpoint, given: &[GivenTable]) -> Self {
        let tables = given.iter().map(|table| StateTable {
            id: table.id.0,
            name: table.name.clone(),
            whole: table.state == CopyState::Done,
        });
        let Position { epoch, seq } = at.position;
        Self { epoch: epoch.0, seq, ts_ms: at.ts_ms, fingerprint: at.fingerprint, tables: tables.collect() }
    }

    /// Up to where everything was said.
    pub fn checkpoint(&self) -> Checkpoint {
        let position = Position { epoch: Epoch(self.epoch), seq: self.seq };
        Checkpoint { position, ts_ms: self.ts_ms, fingerprint: self.fingerprint }
    }

    /// The tables, as a book takes them.
    pub fn given(&self) -> Vec<GivenTable> {
        let given = |table: &StateTable| GivenTable {
            id: TableId(table.id),
            name: table.name.clone(),
            state: if table.whole { CopyState::Done } else { CopyState::Pending },
            wipe: !table.whole,
            open: false,
        };
        self.tables.iter().map(given).collect()
    }
}

/// A key of a state table.
pub(super) struct StateStore {
    client: PluginClient,
    table: Table,
    key: String,
    version: u64,
}

impl StateStore {
    /// Connects, makes the table where it is not there, and reads what is kept.
    pub async fn open(backend: &Backend, key: String) -> Result<(Self, Option<State>), Error> {
        let address = Address::parse(&backend.connection).ok_or_else(|| cloudquery::client::Error::Address {
            plugin: "state backend".to_owned(),
            address: backend.connection.clone(),
        })?;
        let client = PluginClient::connect("state backend", &address).await?;
        let table = state_table(&backend.table_name);
        let mut store = Self { client, table, key, version: 0 };
        let wanted = ipc::encode_schema(&store.table.to_schema())?;
        let migrate = MessageMigrateTable { table: wanted.clone(), migrate_force: false };
        store.write(Message::MigrateTable(migrate)).await?;
        let state = store.read().await?;
        Ok((store, state))
    }

    async fn write(&self, message: Message) -> Result<(), Error> {
        let mut session = self.client.write();
        session.send(&self.table.name, message).await?;
        Ok(session.finish().await?)
    }

    async fn read(&mut self) -> Result<Option<State>, Error> {
        let mut rows = self.client.read(&self.table).await?;
        let mut newest: Option<String> = None;
        while let Some(batches) = rows.next().await? {
            for batch in &batches {
                for (value, version) in versions(batch, &self.key)? {
                    if newest.is_none() || version >= self.version {
                        (newest, self.version) = (Some(value), version);
                    }
                }
            }
        }
        let Some(json) = newest else { return Ok(None) };
        let state = serde_json::from_str(&json).map_err(|_| {
            Error::Sync(format!(
                "state table {:?}: the value of {:?} is none of ours; delete that row, and everything is synced again",
                self.table.name, self.key
            ))
        })?;
        Ok(Some(state))
    }

    /// The row that keeps this state.
    pub fn record(&mut self, state: &State) -> Result<RecordBatch, Error> {
        let json = serde_json::to_string(state).expect("numbers and text are JSON");
        self.version += 1;
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(StringArray::from(vec![self.key.as_str()])),
            Arc::new(StringArray::from(vec![json.as_str()])),
            Arc::new(UInt64Array::from(vec![self.version])),
        ];
        let record = RecordBatch::try_new(Arc::new(self.table.to_schema()), columns);
        Ok(record.map_err(cloudquery::Error::from)?)
    }

    /// Keeps it.
    pub async fn save(&mut self, state: &State) -> Result<(), Error> {
        let record = ipc::encode_record(&self.record(state)?)?;
        self.write(Message::Insert(MessageInsert { record })).await
    }
}

fn state_table(name: &str) -> Table {
    let key = Column::new("key", DataType::Utf8).with_primary_key(true);
    let columns = vec![key, Column::new("value", DataType::Utf8), Column::new("version", DataType::UInt64)];
    Table::new(name, columns)
}

fn versions(batch: &RecordBatch, key: &str) -> Result<Vec<(String, u64)>, Error> {
    let malformed =
        || cloudquery::Error::Malformed("a row of the state table is not of the types asked for".to_owned());
    let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let (Some(keys), Some(values)) = (text("key"), text("value")) else { return Err(malformed().into()) };
    let versions = batch.column_by_name("version").and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let versions = versions.ok_or_else(malformed)?;
    let ours =
        (0..batch.num_rows()).filter(|row| keys.is_valid(*row) && keys.value(*row) == key && values.is_valid(*row));
    Ok(ours
        .map(|row| (values.value(row).to_owned(), if versions.is_valid(row) { versions.value(row) } else { 0 }))
        .collect())
}
