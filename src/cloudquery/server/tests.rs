//! The server in front of a source, which here follows a script: what a real one says is tested where that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{Network, Served, bind, serve};
use crate::cloudquery::delete::DeleteRecord;
use crate::cloudquery::proto::plugin::plugin_client::PluginClient;
use crate::cloudquery::proto::plugin::sync::response::Message;
use crate::cloudquery::proto::plugin::{get_tables, init, sync};
use crate::cloudquery::selection::Wanted;
use crate::cloudquery::source::{Source, SourceFactory, SyncMessage, SyncRequest};
use crate::cloudquery::{Column, Error, MESSAGE_BYTES_MAX, Table, ipc};

#[derive(Default)]
struct Script {
    opened: AtomicUsize,
    dropped: Notify,
}

/// Tells when the source's sync is dropped.
struct TellDrop(Arc<Script>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

struct Scripted(Arc<Script>);

impl SourceFactory for Scripted {
    fn open<'a>(&'a self, spec: &'a [u8], no_connection: bool) -> BoxFuture<'a, Result<Arc<dyn Source>, Error>> {
        let source: Arc<dyn Source> = Arc::new(Scripted(Arc::clone(&self.0)));
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        assert!(spec.starts_with(b"{\"connection_string\"") && !no_connection);
        async { Ok(source) }.boxed()
    }
}

fn table(name: &str) -> Table {
    Table::new(name, vec![Column::new("id", DataType::Int64), Column::new("text", DataType::Utf8)])
}

fn rows(count: i64, bytes_each: usize) -> RecordBatch {
    let columns: [ArrayRef; 2] = [
        Arc::new(Int64Array::from_iter_values(0..count)),
        Arc::new(StringArray::from_iter_values((0..count).map(|_| "x".repeat(bytes_each)))),
    ];
    RecordBatch::try_new(Arc::new(table("a").to_schema()), columns.to_vec()).expect("two columns")
}

impl Source for Scripted {
    fn tables(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Table>, Error>> {
        async move { wanted.select(vec![table("a"), table("b")]) }.boxed()
    }

    /// What it does is the first table's name.
    fn sync(&self, request: SyncRequest, says: mpsc::Sender<SyncMessage>) -> BoxFuture<'_, Result<(), Error>> {
        let guard = TellDrop(Arc::clone(&self.0));
        async move {
            let _guard = guard;
            let script = request.wanted.tables.first().cloned().unwrap_or_default();
            let failed = || SyncMessage::Error { table: "b".to_owned(), error: "no".to_owned() };
            let delete = DeleteRecord { table: "a".to_owned(), groups: Vec::new(), relations: Vec::new() };
            let messages = match script.as_str() {
                "everything" => vec![
                    SyncMessage::MigrateTable(table("a")),
                    SyncMessage::Insert(rows(2, 1)),
                    SyncMessage::DeleteRecord(delete),
                    failed(),
                    SyncMessage::Checkpoint(rows(1, 1)),
                ],
                "large" => vec![SyncMessage::Insert(rows(100, 1 << 20))],
                "panic" => panic!("on purpose"),
                "silent" => std::future::pending().await,
                _ => return Err(Error::Malformed("as it was told".to_owned())),
            };
            for message in messages {
                if says.send(message).await.is_err() {
                    break;
                }
            }
            Ok(())
        }
        .boxed()
    }
}

struct Running {
    script: Arc<Script>,
    client: PluginClient<Channel>,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

async fn running() -> Running {
    let (script, folder) = (Arc::new(Script::default()), tempfile::tempdir().expect("a folder"));
    let listener = bind(Network::Tcp, "127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.address());
    let served = Served { sources: Some(Arc::new(Scripted(Arc::clone(&script)))), ..Served::default() };
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, served, stop.clone()));
    let channel = Endpoint::new(address).expect("an address").connect().await.expect("connected");
    let mut client = PluginClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let spec = serde_json::json!({ "connection_string": folder.path().join("a.db") }).to_string();
    client.init(init::Request { spec: spec.into(), ..init::Request::default() }).await.expect("init");
    Running { script, client, _folder: folder, _stop: stop.drop_guard() }
}

impl Running {
    async fn sync(&mut self, script: &str, all: bool) -> Result<Vec<Message>, Status> {
        let request = sync::Request {
            tables: vec![script.to_owned()],
            with_error_messages: all,
            supports_checkpoints: all,
            ..sync::Request::default()
        };
        let mut stream = self.client.sync(request).await?.into_inner();
        let mut messages = Vec::new();
        while let Some(response) = stream.message().await? {
            messages.extend(response.message);
        }
        Ok(messages)
    }
}

fn kinds(messages: &[Message]) -> String {
    let kind = |message: &Message| match message {
        Message::MigrateTable(_) => "migrate",
        Message::Insert(_) => "insert",
        Message::DeleteRecord(_) => "delete",
        Message::Error(_) => "error",
        Message::Checkpoint(_) => "checkpoint",
    };
    messages.iter().map(kind).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_source_s_tables_and_messages_reach_the_client_in_order() {
    let mut running = running().await;
    let tables = |tables: &[&str]| get_tables::Request {
        tables: tables.iter().map(|name| (*name).to_owned()).collect(),
        ..get_tables::Request::default()
    };
    let found = running.client.get_tables(tables(&["*"])).await.expect("tables").into_inner().tables;
    let names: Vec<String> = found.iter().map(|bytes| ipc::decode_table(bytes).expect("a table").name).collect();
    assert_eq!(names, ["a", "b"]);
    let missing = running.client.get_tables(tables(&["c"])).await.expect_err("no match");
    let words = "failed to get tables: failed to get tables: tables include a pattern c with no matches";
    assert_eq!((missing.code(), missing.message()), (Code::Internal, words));
    let all = running.sync("everything", true).await.expect("a sync");
    assert_eq!(kinds(&all), "migrate insert delete error checkpoint");
    let some = running.sync("everything", false).await.expect("a sync");
    assert_eq!(kinds(&some), "migrate insert delete", "only what the client says it takes");
    assert_eq!(running.script.opened.load(Ordering::Relaxed), 1, "one source an Init");
}

#[tokio::test]
async fn a_source_that_fails_or_panics_fails_its_call_alone() {
    let mut running = running().await;
    let failed = running.sync("fail", true).await.expect_err("a failure");
    let words =
        "failed to sync records: failed to sync unmanaged client: a message from the peer is malformed: as it was told";
    assert_eq!((failed.code(), failed.message()), (Code::Unknown, words));
    let panicked = running.sync("panic", true).await.expect_err("a panic");
    assert_eq!(panicked.code(), Code::Internal);
    assert_eq!(running.sync("everything", false).await.expect("a sync").len(), 3);
}

#[tokio::test]
async fn rows_too_large_for_a_message_are_sent_in_several() {
    let mut running = running().await;
    let messages = running.sync("large", false).await.expect("a sync");
    let mut rows = 0;
    for message in &messages {
        let Message::Insert(insert) = message else { panic!("{}", kinds(&messages)) };
        let (_, batches) = ipc::decode_records(&insert.record).expect("a record");
        assert_eq!(batches.len(), 1);
        rows += batches[0].num_rows();
    }
    assert!(rows == 100 && messages.len() > 1, "{rows} rows in {} messages", messages.len());
}

#[tokio::test]
async fn a_silent_source_is_dropped_when_its_client_goes() {
    let mut running = running().await;
    let request = sync::Request { tables: vec!["silent".to_owned()], ..sync::Request::default() };
    let stream = running.client.sync(request).await.expect("begun");
    drop(stream);
    running.script.dropped.notified().await;
}
