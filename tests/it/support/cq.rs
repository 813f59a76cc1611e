//! `twinlite serve` as a process, and a client of it: the generated one, over TCP or a unix socket.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use twinlite::cloudquery::proto::plugin::plugin_client::PluginClient;
use twinlite::cloudquery::proto::plugin::write::{self, request::Message};
use twinlite::cloudquery::proto::plugin::{init, read};
use twinlite::cloudquery::{Column, MESSAGE_BYTES_MAX, Table, ipc};

use super::wait::until;

/// The server, killed when dropped.
pub struct Serve {
    child: Child,
    /// Where it says that it listens.
    pub address: String,
    is_unix: bool,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Serve {
    /// Starts it on a port of its own.
    pub fn tcp() -> Self {
        Self::start(&["--address", "127.0.0.1:0"])
    }

    /// Starts it on a unix socket.
    pub fn unix(path: &Path) -> Self {
        Self::start(&["--network", "unix", "--address", path.to_str().unwrap()])
    }

    /// Starts it as the CLI does, and waits until it listens.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_twinlite"))
            .args(["serve", "--log-level", "debug", "--log-format", "json", "--no-sentry"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (writer, stdout) = (lines.clone(), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                writer.lock().unwrap().push(line);
            }
        });
        let mut server = Self { child, address: String::new(), is_unix: args.contains(&"unix"), lines };
        server.address = until("the server to listen", || {
            assert!(server.child.try_wait().unwrap().is_none(), "it ended; it said {:?}", server.log());
            let first = server.log().into_iter().find(|line| line["message"] == "Plugin server listening");
            first.map(|line| line["address"].as_str().unwrap().to_owned()).ok_or_else(|| "nothing".to_owned())
        });
        server
    }

    /// Its log lines; each must be JSON, as the CLI reads them.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        lines.iter().map(parse).collect()
    }

    /// A connection to it.
    pub async fn channel(&self) -> Channel {
        if !self.is_unix {
            return Endpoint::new(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        }
        let path = PathBuf::from(&self.address);
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap()
    }

    /// A client on a connection of its own.
    pub async fn client(&self) -> PluginClient<Channel> {
        let limit = MESSAGE_BYTES_MAX;
        PluginClient::new(self.channel().await).max_decoding_message_size(limit).max_encoding_message_size(limit)
    }

    /// A client that has called Init with a database.
    pub async fn ready(&self, database: &Path) -> PluginClient<Channel> {
        let mut client = self.client().await;
        init(&mut client, &serde_json::json!({ "connection_string": database })).await.unwrap();
        client
    }

    /// The most memory that it ever had, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Sends a signal, and panics unless it ends well.
    #[track_caller]
    pub fn stop(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = until("the server to end", || self.child.try_wait().unwrap().ok_or_else(|| "runs".to_owned()));
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server said:\n{}", self.lines.lock().unwrap().join("\n"));
        }
    }
}

/// Init with a spec.
pub async fn init(client: &mut PluginClient<Channel>, spec: &Value) -> Result<init::Response, Status> {
    let invocation_id = "run-1".to_owned();
    let request = init::Request { spec: spec.to_string().into(), no_connection: false, invocation_id };
    client.init(request).await.map(tonic::Response::into_inner)
}

/// A table `name` of a key `id` and a text `name`.
pub fn table(name: &str) -> Table {
    let id = Column::new("id", DataType::Int64).with_primary_key(true).with_not_null(true);
    Table::new(name, vec![id, Column::new("name", DataType::Utf8)])
}

/// Rows of that table.
pub fn rows(table_name: &str, ids: &[i64]) -> RecordBatch {
    let names: Vec<String> = ids.iter().map(|id| format!("name {id}")).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(names))];
    RecordBatch::try_new(Arc::new(table(table_name).to_schema()), columns).unwrap()
}

/// A table's schema as bytes.
pub fn schema(table: &Table) -> Bytes {
    ipc::encode_schema(&table.to_schema()).unwrap()
}

/// A message that migrates.
pub fn migrate(table: &Table) -> write::Request {
    let message = write::MessageMigrateTable { table: schema(table), migrate_force: false };
    write::Request { message: Some(Message::MigrateTable(message)) }
}

/// A message that inserts.
pub fn insert(batch: &RecordBatch) -> write::Request {
    insert_bytes(ipc::encode_record(batch).unwrap())
}

/// A message that inserts whatever the bytes say.
pub fn insert_bytes(record: impl Into<Bytes>) -> write::Request {
    write::Request { message: Some(Message::Insert(write::MessageInsert { record: record.into() })) }
}

/// A whole Write.
pub async fn write(client: &mut PluginClient<Channel>, messages: Vec<write::Request>) -> Result<(), Status> {
    client.write(tokio_stream::iter(messages)).await.map(|_| ())
}

/// How many rows Read has of a table.
pub async fn read(client: &mut PluginClient<Channel>, table: &Table) -> Result<usize, Status> {
    let mut records = client.read(read::Request { table: schema(table) }).await?.into_inner();
    let mut count = 0;
    while let Some(response) = records.message().await? {
        count += ipc::decode_records(&response.record).unwrap().1.iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    Ok(count)
}

/// Panics unless it failed with the code, and words that begin so.
#[track_caller]
pub fn expect<T: std::fmt::Debug>(what: &str, found: Result<T, Status>, code: Code, words: &str) {
    let status = found.expect_err(what);
    assert_eq!(status.code(), code, "{what}: {}", status.message());
    assert!(status.message().starts_with(words), "{what}: {:?} does not begin with {words:?}", status.message());
}
