//! A million rows into the CloudQuery destination, beside the same rows inserted with one prepared statement.
//!
//! All write 10,000 rows a transaction into the same table with the same pragmas. The plain side has its values ready as
//! SQLite stores them. Ours has records of 1,000 rows, as sources send them: encoded, through a client and a server over
//! TCP in this process, which is what the budget is about; and as Arrow, by the destination's own interface, to tell what
//! the wire costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::Value;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use twinlite::cloudquery::destination::{Destination, Options, Spec};
use twinlite::cloudquery::proto::plugin::plugin_client::PluginClient;
use twinlite::cloudquery::proto::plugin::write::request::Message;
use twinlite::cloudquery::proto::plugin::{init, write};
use twinlite::cloudquery::server::{Network, Served, bind, serve};
use twinlite::cloudquery::value::cell;
use twinlite::cloudquery::{Column, Extension, Table, ipc};

const ROWS: i64 = 1_000_000;
const ROWS_IN_A_RECORD: i64 = 1_000;
const ROWS_IN_A_TRANSACTION: usize = 10_000;
const ROUNDS: usize = 3;

pub fn run() {
    let table = table();
    let records: Vec<RecordBatch> = (0..ROWS / ROWS_IN_A_RECORD).map(|number| record(&table, number)).collect();
    let encoded: Vec<Bytes> = records.iter().map(|record| ipc::encode_record(record).unwrap()).collect();
    let (mut over_grpc, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (plain, ours, writer) =
            (plain(&table, &records), over_tcp(&table, encoded.clone()), by_writer(&table, &records));
        let rate = |elapsed: Duration| ROWS as f64 / elapsed.as_secs_f64() / 1_000.0;
        println!(
            "cloudquery: prepared statements {:.0}k rows/s, Write over gRPC {:.0}k, Writer {:.0}k",
            rate(plain),
            rate(ours),
            rate(writer)
        );
        over_grpc.push(plain.as_secs_f64() / ours.as_secs_f64());
        direct.push(plain.as_secs_f64() / writer.as_secs_f64());
    }
    println!(
        "cloudquery: {ROWS} rows of 10 columns: Write over gRPC {:.2} of prepared statements (budget 0.5), Writer {:.2}",
        super::median(over_grpc),
        super::median(direct)
    );
}

fn table() -> Table {
    let int = |name| Column::new(name, DataType::Int64);
    let text = |name| Column::new(name, DataType::Utf8);
    let columns = vec![
        int("id").with_not_null(true).with_primary_key(true),
        Column::extension("_cq_id", Extension::Uuid).with_not_null(true),
        Column::new("_cq_sync_time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        text("_cq_source_name"),
        int("number"),
        Column::new("real", DataType::Float64),
        Column::new("flag", DataType::Boolean),
        text("name"),
        text("address"),
        text("note"),
    ];
    Table::new("t", columns)
}

fn record(table: &Table, number: i64) -> RecordBatch {
    let ids = number * ROWS_IN_A_RECORD..(number + 1) * ROWS_IN_A_RECORD;
    let text =
        |make: &dyn Fn(i64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(ids.clone().map(make))) };
    let uuids = ids.clone().map(|id| (i128::from(id) * 0x0123_4567_89ab_cdef_1357).to_be_bytes());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone())),
        Arc::new(FixedSizeBinaryArray::try_from_iter(uuids).unwrap()),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(ids.clone().map(|_| 1_715_000_009_123_456))
                .with_timezone("UTC"),
        ),
        text(&|_| "source".to_owned()),
        Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| id * 7919 % 1_000_003))),
        Arc::new(Float64Array::from_iter_values(ids.clone().map(|id| id as f64 / 7.0))),
        Arc::new(BooleanArray::from_iter(ids.clone().map(|id| Some(id % 3 == 0)))),
        text(&|id| format!("Name Of Some Length {id}")),
        text(&|id| format!("{id} Long Street, 34567 Town, a country")),
        text(&|_| "a note that says what is to be said of a row, in a sentence or so".to_owned()),
    ];
    RecordBatch::try_new(Arc::new(table.to_schema()), columns).unwrap()
}

/// One Write against a real server, from the first message to the answer.
fn over_tcp(table: &Table, records: Vec<Bytes>) -> Duration {
    let folder = super::folder(true);
    let spec = serde_json::json!({ "connection_string": folder.path().join("a.db") }).to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (listener, stop) = (bind(Network::Tcp, "127.0.0.1:0").await.unwrap(), CancellationToken::new());
        let address = format!("http://{}", listener.address());
        let serving = tokio::spawn(serve(listener, Served::default(), stop.clone()));
        let mut client = PluginClient::new(Endpoint::new(address).unwrap().connect().await.unwrap());
        client.init(init::Request { spec: spec.into(), ..init::Request::default() }).await.unwrap();
        let request = |message| write::Request { message: Some(message) };
        let schema = ipc::encode_schema(&table.to_schema()).unwrap();
        let migrate = write::MessageMigrateTable { table: schema, migrate_force: false };
        client.write(tokio_stream::iter([request(Message::MigrateTable(migrate))])).await.unwrap();
        let insert = move |record: Bytes| request(Message::Insert(write::MessageInsert { record }));
        let messages = records.into_iter().map(insert);
        let started = Instant::now();
        client.write(tokio_stream::iter(messages)).await.unwrap();
        let elapsed = started.elapsed();
        drop(client);
        stop.cancel();
        serving.await.unwrap().unwrap();
        elapsed
    })
}

fn by_writer(table: &Table, records: &[RecordBatch]) -> Duration {
    let folder = super::folder(true);
    let spec = Spec { connection_string: folder.path().join("a.db").display().to_string(), ..Spec::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let destination = Destination::open(&spec, &Options::default()).await.unwrap();
        let mut writer = destination.writer();
        writer.migrate(table.clone(), false).await.unwrap();
        let started = Instant::now();
        for record in records {
            writer.insert(record.clone()).await.unwrap();
        }
        writer.flush().await.unwrap();
        started.elapsed()
    })
}

fn plain(table: &Table, records: &[RecordBatch]) -> Duration {
    let folder = super::folder(true);
    let connection = Connection::open(folder.path().join("a.db")).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t(id integer NOT NULL, _cq_id text NOT NULL, _cq_sync_time timestamp, _cq_source_name text,
             number integer, real real, flag boolean, name text, address text, note text, PRIMARY KEY (id))",
        )
        .unwrap();
    let mut elapsed = Duration::ZERO;
    for records in records.chunks(ROWS_IN_A_TRANSACTION / ROWS_IN_A_RECORD as usize) {
        let rows: Vec<Vec<Value>> = records.iter().flat_map(|record| values(table, record)).collect();
        let started = Instant::now();
        let batch = connection.unchecked_transaction().unwrap();
        let mut insert =
            batch.prepare_cached("INSERT OR REPLACE INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)").unwrap();
        for row in &rows {
            insert.execute(rusqlite::params_from_iter(row)).unwrap();
        }
        drop(insert);
        batch.commit().unwrap();
        elapsed += started.elapsed();
    }
    elapsed
}

/// A record's rows as SQLite stores them.
fn values(table: &Table, record: &RecordBatch) -> Vec<Vec<Value>> {
    let value = |row: usize, column: usize| cell(record.column(column), table.columns[column].field(), row).unwrap();
    (0..record.num_rows()).map(|row| (0..record.num_columns()).map(|column| value(row, column)).collect()).collect()
}
