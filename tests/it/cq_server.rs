//! `twinlite serve` as CloudQuery's clients meet it: each call, in the right order and in wrong ones.

use arrow::datatypes::DataType;
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use twinlite::cloudquery::proto::plugin::{
    assess_tables, close, get_name, get_spec_schema, get_tables, get_version, init as init_message,
    read as read_message, sync, test_connection, transform, transform_schema, write as wire,
};
use twinlite::cloudquery::proto::{discovery, discovery_v0};
use twinlite::cloudquery::{Column, Table};

use crate::support::cq::{Serve, expect, init, insert, insert_bytes, migrate, read, rows, schema, table, write};
use crate::support::wait::until;
use crate::support::{Place, open, open_reader};

fn count(place: &Place, table: &str) -> Result<i64, String> {
    let looking = open_reader(&place.source());
    let sql = format!("SELECT count(*) FROM \"{table}\"");
    looking.query_row(&sql, [], |row| row.get(0)).map_err(|error| error.to_string())
}

fn flush(id: u64) -> wire::Request {
    wire::Request { message: Some(wire::request::Message::Flush(wire::MessageFlush { id })) }
}

fn delete_stale(table: &str) -> wire::Request {
    let stale = wire::MessageDeleteStale { table_name: table.to_owned(), ..wire::MessageDeleteStale::default() };
    wire::Request { message: Some(wire::request::Message::Delete(stale)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_who_it_is_before_any_init() {
    let server = Serve::tcp();
    let mut client = server.client().await;
    let name = client.get_name(get_name::Request {}).await.unwrap().into_inner().name;
    let version = client.get_version(get_version::Request {}).await.unwrap().into_inner().version;
    assert_eq!((name.as_str(), version.as_str()), ("sqlite", env!("CARGO_PKG_VERSION")));
    let schema = client.get_spec_schema(get_spec_schema::Request {}).await.unwrap().into_inner().json_schema;
    let schema: serde_json::Value = serde_json::from_str(&schema.unwrap()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let mut v1 = discovery::discovery_client::DiscoveryClient::new(server.channel().await);
    let versions = v1.get_versions(discovery::get_versions::Request {}).await.unwrap().into_inner().versions;
    assert_eq!(versions, [0, 1, 2, 3]);
    let mut v0 = discovery_v0::discovery_client::DiscoveryClient::new(server.channel().await);
    let versions = v0.get_versions(discovery_v0::get_versions::Request {}).await.unwrap().into_inner().versions;
    assert_eq!(versions, ["v0", "v1", "v2", "v3"]);
    let place = Place::new();
    let mut test = async |spec: serde_json::Value| {
        let request = test_connection::Request { spec: spec.to_string().into() };
        let found = client.test_connection(request).await.unwrap().into_inner();
        (found.success, found.failure_code, found.failure_description.is_empty())
    };
    assert_eq!(test(json!({"connection_string": place.source()})).await, (true, String::new(), true));
    assert_eq!(test(json!({"connection": "x"})).await, (false, "INVALID_SPEC".to_owned(), false));
    std::fs::write(place.file("text"), "This is no database, and long enough to show it. ".repeat(9)).unwrap();
    assert_eq!(test(json!({"connection_string": place.file("text")})).await, (false, "UNREACHABLE".to_owned(), false));
    client.close(close::Request {}).await.expect("there is nothing to close, and nothing wrong with that");
}

/// The rows of the protocol's table of errors that come before Init, with their codes and words.
#[tokio::test(flavor = "multi_thread")]
async fn calls_before_init_fail_as_clients_expect() {
    let server = Serve::tcp();
    let mut client = server.client().await;
    let none = get_tables::Request::default();
    expect("tables", client.get_tables(none).await, Code::Internal, "failed to get tables: plugin not initialized");
    let before = "failed to sync records: plugin not initialized. call Init() first";
    expect("sync", client.sync(sync::Request::default()).await, Code::Unknown, before);
    let before = "failed to read records: plugin not initialized. call Init() first";
    expect("read", read(&mut client, &table("t")).await, Code::Unknown, before);
    let before = "plugin returned error: plugin is not initialized. call Init first";
    expect("write", write(&mut client, vec![migrate(&table("t"))]).await, Code::Cancelled, before);
    let before = "write failed: plugin is not initialized. call Init first";
    expect("write nothing", write(&mut client, Vec::new()).await, Code::Internal, before);
    let answers = client.write_stream(tokio_stream::iter([flush(1)])).await.unwrap().into_inner().next().await;
    let before = "plugin returned error: plugin is not initialized. call Init first";
    expect("write stream", answers.unwrap(), Code::Cancelled, before);
    let before = "failed to init plugin: failed to initialize client: ";
    for (spec, word) in [(json!({"batch": 1}), "batch"), (json!({"connection_string": "/no/such/x.db"}), "/no/such")] {
        let failed = init(&mut client, &spec).await;
        assert!(failed.as_ref().unwrap_err().message().contains(word), "{failed:?}");
        expect("init", failed, Code::Internal, before);
    }
    let request = init_message::Request { spec: "{".into(), ..init_message::Request::default() };
    expect("init", client.init(request).await, Code::Internal, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_a_destination_lacks_fail_as_clients_expect() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let shard = Some(sync::request::Shard { num: 3, total: 2 });
    let request = sync::Request { shard, ..sync::Request::default() };
    expect("shard", client.sync(request).await, Code::InvalidArgument, "failed to sync records: shard 3 of 2");
    let transform = client.transform(tokio_stream::iter([transform::Request::default()])).await;
    expect("transform", transform, Code::Internal, "failed to transform records: not implemented");
    let transform = client.transform_schema(transform_schema::Request::default()).await;
    expect("transform schema", transform, Code::Internal, "failed to transform schema: not implemented");
    expect("assess", client.assess_tables(assess_tables::Request::default()).await, Code::Unimplemented, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_says_why_keeps_what_came_before_and_harms_nobody_after_it() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let nameless = {
        let batch = rows("t", &[1]);
        let fields = batch.schema().fields().clone();
        let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
        arrow::array::RecordBatch::try_new(schema, batch.columns().to_vec()).unwrap()
    };
    let nameless_schema = twinlite::cloudquery::ipc::encode_schema(nameless.schema_ref()).unwrap();
    let nameless_table = wire::MessageMigrateTable { table: nameless_schema.clone(), migrate_force: false };
    let nameless_table = wire::Request { message: Some(wire::request::Message::MigrateTable(nameless_table)) };
    let junk_table = wire::MessageMigrateTable { table: "junk".into(), migrate_force: false };
    let junk_table = wire::Request { message: Some(wire::request::Message::MigrateTable(junk_table)) };
    let cut = twinlite::cloudquery::ipc::encode_record(&rows("t", &[9])).unwrap();
    let cut = insert_bytes(cut.slice(..cut.len() / 2));
    let mut id = 0;
    for (what, message, code, words) in [
        ("schema", junk_table, Code::InvalidArgument, "failed to create schema from bytes: "),
        ("record", insert_bytes("junk"), Code::InvalidArgument, "failed to create record: "),
        ("no bytes", insert_bytes(""), Code::InvalidArgument, "failed to create record: "),
        ("cut record", cut, Code::InvalidArgument, "failed to create record: "),
        ("table", nameless_table, Code::InvalidArgument, "failed to create table from schema: missing table name"),
        ("name", insert(&nameless), Code::Internal, "write failed: failed to write: table name not found in metadata"),
        ("unknown", insert(&rows("unknown", &[1])), Code::Cancelled, "plugin returned error: table \"unknown\""),
        ("stale", delete_stale("unknown"), Code::Cancelled, "plugin returned error: table \"unknown\""),
    ] {
        id += 1;
        let before = vec![migrate(&table("t")), insert(&rows("t", &[id])), message, insert(&rows("t", &[1000]))];
        expect(what, write(&mut client, before).await, code, words);
        // What the writer refuses takes along what waited; before what is no message everything is written.
        if code != Code::Cancelled {
            assert_eq!(count(&place, "t"), Ok(id), "{what}");
        }
        let after = write(&mut client, vec![insert(&rows("t", &[id]))]).await;
        after.unwrap_or_else(|error| panic!("the Write after {what}: {error}"));
        assert_eq!(count(&place, "t"), Ok(id), "{what}");
    }
    let both = vec![insert(&rows("t", &[2000])), insert_bytes("junk")];
    open(&place.source()).execute_batch("ALTER TABLE t RENAME TO gone").unwrap();
    expect("both", write(&mut client, both).await, Code::Cancelled, "plugin returned error: table \"t\"");
    let bytes = schema(&table("t"));
    let request = |table: bytes::Bytes| read_message::Request { table };
    let failed = client.read(request("junk".into())).await;
    expect("read", failed, Code::InvalidArgument, "failed to create schema from bytes: ");
    let failed = client.read(request(nameless_schema)).await;
    expect("read", failed, Code::InvalidArgument, "failed to create table from schema: missing table name");
    let mut failed = client.read(request(bytes)).await.unwrap().into_inner();
    expect("read", failed.message().await, Code::Unknown, "failed to read records: failed to read: table \"t\"");
}

/// What fails when the client has closed its side is known only then: here the flush, for the batch was not full.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_the_end_of_a_write_has_its_own_words() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    write(&mut client, vec![migrate(&table("t"))]).await.unwrap();
    let guard = "CREATE TRIGGER guard BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'not today'); END";
    open(&place.source()).execute_batch(guard).unwrap();
    let failed = write(&mut client, vec![insert(&rows("t", &[1]))]).await;
    assert!(failed.as_ref().unwrap_err().message().contains("not today"), "{failed:?}");
    expect("end", failed, Code::Internal, "write failed: ");
    let junk = vec![insert(&rows("t", &[1])), insert_bytes("junk")];
    let failed = write(&mut client, junk).await;
    assert!(failed.as_ref().unwrap_err().message().contains(" and write failed: "), "{failed:?}");
    expect("both", failed, Code::Internal, "failed to convert message: failed to create record: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn unset_messages_empty_records_and_records_of_several_batches_are_taken() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let several = {
        let batch = rows("t", &[1, 2]);
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&rows("t", &[3])).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    };
    let messages = vec![
        wire::Request { message: None },
        migrate(&table("t")),
        insert(&rows("t", &[])),
        insert_bytes(schema(&table("t"))),
        insert_bytes(several),
        flush(1),
        wire::Request { message: None },
    ];
    write(&mut client, messages).await.unwrap();
    assert_eq!(read(&mut client, &table("t")).await.unwrap(), 3);
    write(&mut client, Vec::new()).await.unwrap();
}

/// Two sources, or a transformer, may say what a table is several times in one Write: each is done, in order, with its own
/// word on force.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_be_migrated_often_in_one_write() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let with = |more: Vec<Column>| Table { columns: [table("t").columns, more].concat(), ..table("t") };
    let extra = |data_type: DataType| with(vec![Column::new("extra", data_type)]);
    let forced = |table: &Table| {
        let message = wire::MessageMigrateTable { table: schema(table), migrate_force: true };
        wire::Request { message: Some(wire::request::Message::MigrateTable(message)) }
    };
    let messages = vec![
        migrate(&table("t")),
        insert(&rows("t", &[1])),
        migrate(&extra(DataType::Utf8)),
        insert(&rows("t", &[-2])),
        migrate(&table("t")),
        insert(&rows("t", &[3])),
    ];
    write(&mut client, messages).await.unwrap();
    assert_eq!(count(&place, "t"), Ok(3));
    assert_eq!(read(&mut client, &extra(DataType::Utf8)).await.unwrap(), 3, "the column of the second stays");
    // The first is refused, whatever the second would say; in the other order both are done.
    let refused = write(&mut client, vec![migrate(&extra(DataType::Int64)), forced(&table("t"))]).await;
    expect("safe", refused, Code::Cancelled, "plugin returned error: Can't migrate tables automatically");
    assert_eq!(count(&place, "t"), Ok(3));
    let anew = vec![forced(&extra(DataType::Int64)), migrate(&extra(DataType::Int64)), insert(&rows("t", &[4]))];
    write(&mut client, anew).await.unwrap();
    assert_eq!(count(&place, "t"), Ok(1));
}

/// As where the destination keeps the state of its source, too.
#[tokio::test(flavor = "multi_thread")]
async fn reads_and_other_writes_go_on_while_a_write_is_open() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let (sender, messages) = mpsc::channel(8);
    let mut long = client.clone();
    let open_write = tokio::spawn(async move { long.write(ReceiverStream::new(messages)).await });
    sender.send(migrate(&table("long"))).await.unwrap();
    sender.send(insert(&rows("long", &[1, 2]))).await.unwrap();
    write(&mut client, vec![migrate(&table("state")), insert(&rows("state", &[1]))]).await.unwrap();
    assert_eq!(read(&mut client, &table("state")).await.unwrap(), 1);
    write(&mut client, vec![insert(&rows("state", &[2]))]).await.unwrap();
    assert_eq!(read(&mut client, &table("state")).await.unwrap(), 2);
    sender.send(insert(&rows("long", &[3]))).await.unwrap();
    drop(sender);
    open_write.await.unwrap().unwrap();
    assert_eq!(read(&mut client, &table("long")).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flush_is_answered_when_everything_before_it_is_committed() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.client().await;
    let spec = json!({"connection_string": place.source()});
    assert!(init(&mut client, &spec).await.unwrap().supports_flush);
    let (sender, messages) = mpsc::channel(8);
    let mut answers = client.write_stream(ReceiverStream::new(messages)).await.unwrap().into_inner();
    let mut flushed = async |id: u64, messages: Vec<wire::Request>| {
        for message in messages.into_iter().chain([flush(id)]) {
            sender.send(message).await.unwrap();
        }
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(answer.flush_id, id);
        answer
    };
    let ok = flushed(7, vec![migrate(&table("t")), insert(&rows("t", &[1, 2]))]).await;
    assert_eq!((ok.flush_error.as_str(), ok.failed_tables.len()), ("", 0));
    assert_eq!(count(&place, "t"), Ok(2), "committed before the answer");
    let bad = flushed(8, vec![insert(&rows("unknown", &[1])), insert(&rows("t", &[3]))]).await;
    assert!(bad.flush_error.contains("\"unknown\"") && bad.failed_tables == ["unknown"], "{bad:?}");
    assert_eq!(count(&place, "t"), Ok(3), "the other table goes on");
    let again = flushed(9, vec![insert(&rows("t", &[4]))]).await;
    assert_eq!((again.flush_error.as_str(), again.failed_tables.len()), ("", 0), "what was told is told once");
    let other = flushed(10, vec![insert(&rows("stranger", &[1]))]).await;
    assert_eq!(other.failed_tables, ["stranger"]);
    sender.send(insert(&rows("t", &[5]))).await.unwrap();
    drop(sender);
    assert!(answers.next().await.is_none());
    assert_eq!(count(&place, "t"), Ok(5), "the end flushes, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_stream_that_ends_with_a_failure_says_so() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let messages = [insert(&rows("unknown", &[1]))];
    let mut answers = client.write_stream(tokio_stream::iter(messages)).await.unwrap().into_inner();
    expect("end", answers.next().await.unwrap(), Code::Internal, "write failed: table \"unknown\"");
    let messages = [migrate(&table("t")), insert(&rows("t", &[1])), insert_bytes("junk")];
    let mut answers = client.write_stream(tokio_stream::iter(messages)).await.unwrap().into_inner();
    expect("junk", answers.next().await.unwrap(), Code::InvalidArgument, "failed to create record: ");
    assert_eq!(count(&place, "t"), Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn init_may_come_again_at_any_time_and_close_ends_what_it_began() {
    let (server, place, other) = (Serve::tcp(), Place::new(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let (sender, messages) = mpsc::channel(8);
    let mut long = client.clone();
    let open_write = tokio::spawn(async move { long.write(ReceiverStream::new(messages)).await });
    sender.send(migrate(&table("t"))).await.unwrap();
    until("the migration", || count(&place, "t"));
    init(&mut client, &json!({"connection_string": other.source()})).await.unwrap();
    write(&mut client, vec![migrate(&table("t")), insert(&rows("t", &[1]))]).await.unwrap();
    sender.send(insert(&rows("t", &[1, 2, 3]))).await.unwrap();
    drop(sender);
    open_write.await.unwrap().unwrap();
    assert_eq!((count(&place, "t"), count(&other, "t")), (Ok(3), Ok(1)), "each in the database that it began with");

    client.close(close::Request {}).await.unwrap();
    let closed = "client already closed or not initialized";
    expect("close twice", client.close(close::Request {}).await, Code::Unknown, closed);
    let closed = "the plugin is closed; call Init again";
    expect("read", read(&mut client, &table("t")).await, Code::FailedPrecondition, closed);
    expect("write", write(&mut client, vec![migrate(&table("t"))]).await, Code::FailedPrecondition, closed);
    expect("sync", client.sync(sync::Request::default()).await, Code::FailedPrecondition, closed);
    expect("tables", client.get_tables(get_tables::Request::default()).await, Code::FailedPrecondition, closed);

    init(&mut client, &json!({"connection_string": place.source()})).await.unwrap();
    assert_eq!(read(&mut client, &table("t")).await.unwrap(), 3);
    // An Init that fails leaves nothing to write to by mistake.
    assert!(init(&mut client, &json!({"connection_string": 7})).await.is_err());
    let before = "failed to read records: plugin not initialized";
    expect("read", read(&mut client, &table("t")).await, Code::Unknown, before);
}

/// A Read that nobody reads holds its turn: rows enough that they do not fit on the way.
#[tokio::test(flavor = "multi_thread")]
async fn one_read_init_or_close_runs_at_a_time() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    write(&mut client, vec![migrate(&table("t"))]).await.unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
        INSERT INTO t SELECT i, hex(randomblob(50000)) FROM n";
    open(&place.source()).execute_batch(fill).unwrap();
    let mut stalled = client.read(read_message::Request { table: schema(&table("t")) }).await.unwrap().into_inner();
    stalled.message().await.unwrap().unwrap();
    let busy = "failed to read records: plugin already in use";
    expect("read", read(&mut client, &table("t")).await, Code::Unknown, busy);
    expect("close", client.close(close::Request {}).await, Code::Unknown, "plugin already in use");
    let busy = "failed to init plugin: plugin already in use";
    expect("init", init(&mut client, &json!({})).await, Code::Internal, busy);
    let busy = "failed to sync records: plugin already in use";
    expect("sync", client.sync(sync::Request::default()).await, Code::Unknown, busy);
    write(&mut client, vec![insert(&rows("t", &[1000]))]).await.expect("Write takes no turn");
    drop(stalled);
    // The server hears of the cancellation a moment later.
    for _ in 0..100_000 {
        match client.close(close::Request {}).await {
            Ok(_) => return,
            Err(status) => assert_eq!(status.message(), "plugin already in use"),
        }
    }
    panic!("a Read that nobody wants any more keeps its turn");
}

/// Two of three rows make a batch, and the client goes while that is written, which takes its time; the third row waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_stream_brought_whole_is_committed() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.client().await;
    init(&mut client, &json!({"connection_string": place.source(), "batch_size": 2})).await.unwrap();
    write(&mut client, vec![migrate(&table("t"))]).await.unwrap();
    let looking = open(&place.source());
    looking.busy_timeout(std::time::Duration::ZERO).unwrap();
    let slow = "CREATE VIEW slow AS
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT i FROM n;
        CREATE TRIGGER slows AFTER INSERT ON t WHEN new.id = 1 BEGIN SELECT count(*) FROM slow; END";
    looking.execute_batch(slow).unwrap();
    let (sender, messages) = mpsc::channel(8);
    let mut long = client.clone();
    let open_write = tokio::spawn(async move { long.write(ReceiverStream::new(messages)).await });
    sender.send(insert(&rows("t", &[1, 2, 3]))).await.unwrap();
    until("the server to write", || match looking.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
        Ok(()) => Err("nobody writes".to_owned()),
        Err(_) => Ok(()),
    });
    open_write.abort();
    until("the row that waited", || match count(&place, "t")? {
        3 => Ok(()),
        other => Err(format!("{other} rows")),
    });
    write(&mut client, vec![insert(&rows("t", &[4]))]).await.unwrap();
    server.stop(Signal::TERM);
    assert_eq!(count(&place, "t"), Ok(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_open_calls_with_what_they_had_committed() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.client().await;
    init(&mut client, &json!({"connection_string": place.source(), "batch_size": 2})).await.unwrap();
    let (sender, messages) = mpsc::channel(8);
    let mut long = client.clone();
    let open_write = tokio::spawn(async move { long.write(ReceiverStream::new(messages)).await });
    sender.send(migrate(&table("t"))).await.unwrap();
    sender.send(insert(&rows("t", &[1, 2, 3]))).await.unwrap();
    until("the first batch", || match count(&place, "t")? {
        2 => Ok(()),
        other => Err(format!("{other} rows")),
    });
    server.stop(Signal::INT);
    expect("write", open_write.await.unwrap(), Code::Unavailable, "the server is stopping");
    assert_eq!(count(&place, "t"), Ok(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_confines_what_clients_may_name() {
    let place = Place::new();
    let root = place.file("root");
    std::fs::create_dir(&root).unwrap();
    let server = Serve::start(&["--address", "127.0.0.1:0", "--root", root.to_str().unwrap()]);
    let mut client = server.client().await;
    init(&mut client, &json!({"connection_string": "a.db"})).await.unwrap();
    assert!(root.join("a.db").exists());
    let outside = init(&mut client, &json!({"connection_string": place.source()})).await;
    expect("outside", outside, Code::Internal, "failed to init plugin: failed to initialize client: connection_string");
    let outside = test_connection::Request { spec: json!({"connection_string": "../x.db"}).to_string().into() };
    assert!(!client.test_connection(outside).await.unwrap().into_inner().success);
    assert!(!place.source().exists() && !place.file("x.db").exists());
}
