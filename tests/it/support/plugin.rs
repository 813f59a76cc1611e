//! A CloudQuery plugin that does as a test says: sends scripted messages, takes writes, fails where it is told to, and
//! keeps what it was called with. For what no SDK's plugin can be made to do.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use arrow::array::RecordBatch;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Notify, mpsc::Sender};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use twinlite::cloudquery::{
    Table, ipc,
    proto::{
        discovery::{
            discovery_server::{Discovery, DiscoveryServer},
            get_versions,
        },
        discovery_v0,
        plugin::{
            assess_tables, close, get_name, get_spec_schema, get_tables, get_version, init,
            plugin_server::{Plugin, PluginServer},
            read, sync, test_connection, transform, transform_schema, write,
        },
    },
};

use super::wait::until;

/// What the plugin does.
#[derive(Clone, Default)]
pub struct Script {
    /// Which versions discovery v1 lists; nothing: it is not there.
    pub versions: Option<Vec<i32>>,
    /// Which versions discovery v0 lists; nothing: it is not there.
    pub versions_v0: Option<Vec<String>>,
    /// Whether Init says that WriteStream works.
    pub supports_flush: bool,
    /// What Init refuses with.
    pub init: Option<Status>,
    /// What Sync sends, in order.
    pub sync: Vec<Result<sync::Response, Status>>,
    /// Whether Sync stays open after that until the client goes.
    pub stays_open: bool,
    /// What Read sends.
    pub read: Vec<RecordBatch>,
    /// After how many messages Write ends, and how.
    pub write_ends: Option<(usize, Result<(), Status>)>,
    /// What Write answers after the client's end.
    pub write_fails: Option<Status>,
    /// What must happen before each message of Write is read.
    pub gate: Option<Arc<Notify>>,
    /// What a flush of a number is answered with: an error, and tables.
    pub flush_fails: Option<(u64, String, Vec<String>)>,
    /// Whether Read sends what is no Arrow stream.
    pub answers_garbage: bool,
}

impl Script {
    /// A plugin of version 3 that does nothing else.
    pub fn new() -> Self {
        Self { versions: Some(vec![0, 1, 2, 3]), ..Self::default() }
    }

    /// One that is synced from.
    pub fn source(messages: Vec<sync::response::Message>) -> Self {
        let sync = messages.into_iter().map(|message| Ok(sync::Response { message: Some(message) })).collect();
        Self { sync, ..Self::new() }
    }
}

/// The plugin, serving on a thread of its own until it is dropped.
pub struct Fake {
    pub address: String,
    state: State,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct State {
    script: Arc<Script>,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// What the plugin was called with.
#[derive(Clone, Debug)]
pub enum Call {
    Init(String, bool, String),
    Sync(Box<sync::Request>),
    Write(Option<write::request::Message>),
    WriteEnded,
    Read(String),
    Close,
}

impl Fake {
    /// Starts it.
    pub fn start(script: Script) -> Self {
        // On a thread of its own, for the test may be asynchronous itself.
        std::thread::spawn(|| Self::serve(script)).join().unwrap()
    }

    fn serve(script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State { script: Arc::new(script), calls: Arc::default() };
        let (has_v1, has_v0) = (state.script.versions.is_some(), state.script.versions_v0.is_some());
        let plugin = PluginServer::new(state.clone()).max_decoding_message_size(200 << 20);
        let mut router = tonic::transport::Server::builder().add_service(plugin);
        if has_v1 {
            router = router.add_service(DiscoveryServer::new(state.clone()));
        }
        if has_v0 {
            router = router.add_service(discovery_v0::discovery_server::DiscoveryServer::new(state.clone()));
        }
        runtime.spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, state, runtime: Some(runtime) }
    }

    /// Everything so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    /// Waits until there are calls that a test looks for.
    pub fn until<T>(&self, what: &str, look: impl Fn(&[Call]) -> Option<T>) -> T {
        until(what, || look(&self.calls()).ok_or_else(|| format!("{:?}", self.said())))
    }

    /// The calls as words: what came, of which table, in which order.
    pub fn said(&self) -> Vec<String> {
        self.calls().iter().map(said).collect()
    }

    /// What was written, table by table as it came: the schema and the rows of each record.
    pub fn records(&self) -> Vec<RecordBatch> {
        let calls = self.calls();
        let inserts = calls.iter().filter_map(|call| match call {
            Call::Write(Some(write::request::Message::Insert(insert))) => Some(&insert.record),
            _ => None,
        });
        inserts.flat_map(|record| ipc::decode_records(record).unwrap().1).collect()
    }
}

fn said(call: &Call) -> String {
    use write::request::Message;
    match call {
        Call::Init(spec, no_connection, _) => format!("init {spec}{}", if *no_connection { " offline" } else { "" }),
        Call::Sync(request) => format!("sync {}", request.tables.join(" ")),
        Call::Write(None) => "nothing".to_owned(),
        Call::Write(Some(Message::MigrateTable(migrate))) => {
            let table = ipc::decode_table(&migrate.table).unwrap();
            let force = if migrate.migrate_force { " forced" } else { "" };
            format!("migrate {} pk={}{force}", table.name, table.primary_key().join("+"))
        }
        Call::Write(Some(Message::Insert(insert))) => {
            let (schema, batches) = ipc::decode_records(&insert.record).unwrap();
            let table = Table::from_schema(&schema).unwrap();
            assert_eq!(batches.len(), 1, "a message is one batch");
            format!("insert {} {}", table.name, batches[0].num_rows())
        }
        Call::Write(Some(Message::Delete(delete))) => format!("stale {} of {}", delete.table_name, delete.source_name),
        Call::Write(Some(Message::DeleteRecord(delete))) => format!("delete {}", delete.table_name),
        Call::Write(Some(Message::Flush(flush))) => format!("flush {}", flush.id),
        Call::WriteEnded => "end".to_owned(),
        Call::Read(table) => format!("read {table}"),
        Call::Close => "close".to_owned(),
    }
}

impl State {
    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    /// Reads a Write to its end, or to where the script ends it.
    async fn take(
        &self,
        mut stream: Streaming<write::Request>,
        answers: Option<&Sender<Result<write::Response, Status>>>,
    ) -> Result<(), Status> {
        let mut taken = 0;
        loop {
            if let Some((after, how)) = &self.script.write_ends
                && taken == *after
            {
                return how.clone();
            }
            if let Some(gate) = &self.script.gate {
                gate.notified().await;
            }
            let Some(request) = stream.message().await? else { break };
            taken += 1;
            self.note(Call::Write(request.message.clone()));
            if let (Some(write::request::Message::Flush(flush)), Some(answers)) = (request.message, answers) {
                let _ = answers.send(Ok(self.flushed(flush.id))).await;
            }
        }
        self.note(Call::WriteEnded);
        self.script.write_fails.clone().map_or(Ok(()), Err)
    }

    fn flushed(&self, id: u64) -> write::Response {
        match &self.script.flush_fails {
            Some((failing, error, tables)) if *failing == id => {
                write::Response { flush_id: id, flush_error: error.clone(), failed_tables: tables.clone() }
            }
            _ => write::Response { flush_id: id, ..write::Response::default() },
        }
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Plugin for State {
    type SyncStream = Streamed<sync::Response>;
    type ReadStream = Streamed<read::Response>;
    type WriteStreamStream = Streamed<write::Response>;
    type TransformStream = Streamed<transform::Response>;

    async fn get_name(&self, _: Request<get_name::Request>) -> Result<Response<get_name::Response>, Status> {
        Ok(Response::new(get_name::Response { name: "fake".to_owned() }))
    }

    async fn get_version(&self, _: Request<get_version::Request>) -> Result<Response<get_version::Response>, Status> {
        Ok(Response::new(get_version::Response { version: "v1".to_owned() }))
    }

    async fn get_spec_schema(
        &self,
        _: Request<get_spec_schema::Request>,
    ) -> Result<Response<get_spec_schema::Response>, Status> {
        Ok(Response::new(get_spec_schema::Response { json_schema: None }))
    }

    async fn init(&self, request: Request<init::Request>) -> Result<Response<init::Response>, Status> {
        let request = request.into_inner();
        let spec = String::from_utf8(request.spec.to_vec()).unwrap();
        self.note(Call::Init(spec, request.no_connection, request.invocation_id));
        let answer = init::Response { supports_flush: self.script.supports_flush };
        self.script.init.clone().map_or(Ok(Response::new(answer)), Err)
    }

    async fn get_tables(&self, _: Request<get_tables::Request>) -> Result<Response<get_tables::Response>, Status> {
        let tables = self.script.sync.iter().filter_map(|message| match message.as_ref().ok()?.message.as_ref()? {
            sync::response::Message::MigrateTable(migrate) => Some(migrate.table.clone()),
            _ => None,
        });
        Ok(Response::new(get_tables::Response { tables: tables.collect() }))
    }

    async fn sync(&self, request: Request<sync::Request>) -> Result<Response<Self::SyncStream>, Status> {
        self.note(Call::Sync(Box::new(request.into_inner())));
        let messages = futures_util::stream::iter(self.script.sync.clone());
        if self.script.stays_open {
            return Ok(Response::new(Box::pin(messages.chain(futures_util::stream::pending()))));
        }
        Ok(Response::new(Box::pin(messages)))
    }

    async fn read(&self, request: Request<read::Request>) -> Result<Response<Self::ReadStream>, Status> {
        self.note(Call::Read(ipc::decode_table(&request.into_inner().table).unwrap().name));
        if self.script.answers_garbage {
            let garbage = Ok(read::Response { record: vec![7; 100].into() });
            return Ok(Response::new(Box::pin(futures_util::stream::iter([garbage]))));
        }
        let records =
            self.script.read.iter().map(|record| Ok(read::Response { record: ipc::encode_record(record).unwrap() }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(records.collect::<Vec<_>>()))))
    }

    async fn write(&self, request: Request<Streaming<write::Request>>) -> Result<Response<write::Response>, Status> {
        self.take(request.into_inner(), None).await?;
        Ok(Response::new(write::Response::default()))
    }

    async fn write_stream(
        &self,
        request: Request<Streaming<write::Request>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        let (answers, stream) = tokio::sync::mpsc::channel(4);
        let state = self.clone();
        tokio::spawn(async move {
            if let Err(status) = state.take(request.into_inner(), Some(&answers)).await {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn transform(
        &self,
        _: Request<Streaming<transform::Request>>,
    ) -> Result<Response<Self::TransformStream>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn transform_schema(
        &self,
        _: Request<transform_schema::Request>,
    ) -> Result<Response<transform_schema::Response>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn assess_tables(
        &self,
        _: Request<assess_tables::Request>,
    ) -> Result<Response<assess_tables::Response>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn close(&self, _: Request<close::Request>) -> Result<Response<close::Response>, Status> {
        self.note(Call::Close);
        Ok(Response::new(close::Response {}))
    }

    async fn test_connection(
        &self,
        request: Request<test_connection::Request>,
    ) -> Result<Response<test_connection::Response>, Status> {
        let success = request.into_inner().spec == "{}";
        let (code, description) = if success { ("", "") } else { ("UNAUTHORIZED", "who are you") };
        let (failure_code, failure_description) = (code.to_owned(), description.to_owned());
        Ok(Response::new(test_connection::Response { success, failure_code, failure_description }))
    }
}

#[tonic::async_trait]
impl Discovery for State {
    async fn get_versions(
        &self,
        _: Request<get_versions::Request>,
    ) -> Result<Response<get_versions::Response>, Status> {
        Ok(Response::new(get_versions::Response { versions: self.script.versions.clone().unwrap() }))
    }
}

#[tonic::async_trait]
impl discovery_v0::discovery_server::Discovery for State {
    async fn get_versions(
        &self,
        _: Request<discovery_v0::get_versions::Request>,
    ) -> Result<Response<discovery_v0::get_versions::Response>, Status> {
        let versions = self.script.versions_v0.clone().unwrap();
        Ok(Response::new(discovery_v0::get_versions::Response { versions }))
    }
}
