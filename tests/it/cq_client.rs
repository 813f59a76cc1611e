//! The client for foreign plugins, by itself: what the one-shot sync does not use of it, and what a plugin may do to it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch},
    datatypes::DataType,
};
use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tonic::{Code, Status};
use twinlite::{
    cloudquery::{
        Column, Table,
        client::{Address, Error, PluginClient, Tested, WRITE_QUEUE_MESSAGES},
        ipc,
        proto::plugin::{
            get_tables, sync,
            write::{self, request::Message},
        },
    },
    model::Fault,
};

use crate::support::plugin::{Fake, Script};

fn table() -> Table {
    Table::new("t", vec![Column::new("id", DataType::Int64).with_primary_key(true)])
}

fn record(ids: &[i64]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    RecordBatch::try_new(Arc::new(table().to_schema()), vec![ids]).unwrap()
}

fn insert(id: i64) -> Message {
    Message::Insert(write::MessageInsert { record: ipc::encode_record(&record(&[id])).unwrap() })
}

async fn connected(fake: &Fake) -> PluginClient {
    PluginClient::connect("the plugin", &Address::parse(&fake.address).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_one_answer_returns_what_the_plugin_says() {
    let migrate = sync::MessageMigrateTable { table: ipc::encode_schema(&table().to_schema()).unwrap() };
    let script = Script {
        supports_flush: true,
        read: vec![record(&[1, 2]), record(&[3])],
        ..Script::source(vec![sync::response::Message::MigrateTable(migrate)])
    };
    let fake = Fake::start(script);
    let client = connected(&fake).await;
    assert_eq!(client.name_and_version().await.unwrap(), ("fake".to_owned(), "v1".to_owned()));
    assert!(client.init("{}".into(), true, "id").await.unwrap().supports_flush);
    assert_eq!(client.tables(get_tables::Request::default()).await.unwrap(), [table()]);
    assert_eq!(client.test_connection("{}".into()).await.unwrap(), Tested::Fine);
    let failed = Tested::Failed { code: "UNAUTHORIZED".to_owned(), description: "who are you".to_owned() };
    assert_eq!(client.test_connection("null".into()).await.unwrap(), failed);
    let (mut stream, mut read) = (client.read(&table()).await.unwrap(), Vec::new());
    while let Some(records) = stream.next().await.unwrap() {
        read.extend(records);
    }
    assert_eq!(read, [record(&[1, 2]), record(&[3])]);
    client.close().await.unwrap();
    assert_eq!(fake.said(), ["init {} offline", "read t", "close"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_flushed_is_committed_or_the_failure_says_what_is_not() {
    let script =
        Script { supports_flush: true, flush_fails: Some((2, "disk full".into(), vec!["t".into()])), ..Script::new() };
    let fake = Fake::start(script);
    let mut session = connected(&fake).await.write_stream();
    session.send("t", insert(1)).await.unwrap();
    session.flush().await.unwrap();
    assert_eq!(fake.said(), ["insert t 1", "flush 1"], "a flush returns when the plugin has had everything before it");
    session.send("t", insert(2)).await.unwrap();
    let error = session.flush().await.unwrap_err();
    assert_eq!(error.to_string(), "the plugin: Write: not committed: disk full (tables t)");
    session.send("t", insert(3)).await.unwrap();
    session.flush().await.unwrap();
    session.finish().await.unwrap();
    assert_eq!(fake.said()[4..], ["insert t 1", "flush 3", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_plugin_ends_fails_whatever_is_asked_of_it() {
    let refused = Err(Status::failed_precondition("read only"));
    for (ends, words) in [(refused, "read only"), (Ok(()), "ended before everything was sent")] {
        let fake = Fake::start(Script { write_ends: Some((1, ends)), ..Script::new() });
        let client = connected(&fake).await;
        for stream in [false, true] {
            let open = || if stream { client.write_stream() } else { client.write() };
            let mut session = open();
            session.send("t", insert(1)).await.unwrap();
            session.ended().cancelled().await;
            let said = |error: &Error| twinlite::sqlite::said(error);
            let error = session.send("t", insert(2)).await.unwrap_err();
            assert!(matches!(&error, Error::WriteEnded { table: Some(table), .. } if table == "t"), "{error:?}");
            assert!(said(&error).contains(words), "{}", said(&error));
            let mut session = open();
            session.send("t", insert(1)).await.unwrap();
            session.ended().cancelled().await;
            assert!(said(&session.finish().await.unwrap_err()).contains(words));
            let mut session = open();
            session.send("t", insert(1)).await.unwrap();
            session.ended().cancelled().await;
            assert!(session.flush().await.is_err());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_waits_to_be_sent_than_the_queue_holds() {
    let gate = Arc::new(Notify::new());
    let fake = Fake::start(Script { gate: Some(Arc::clone(&gate)), ..Script::new() });
    let mut session = connected(&fake).await.write();
    // A megabyte each: windows of HTTP/2 hold a few of them at most.
    let ids: Vec<i64> = (0..131_072).collect();
    let big = ipc::encode_record(&record(&ids)).unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        for _ in 0..64 {
            session.send("t", Message::Insert(write::MessageInsert { record: big.clone() })).await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    for taken in 1..=8 {
        gate.notify_one();
        tokio::task::block_in_place(|| fake.until("the next message", |calls| (calls.len() >= taken).then_some(())));
    }
    let held = sent.load(Ordering::SeqCst) - 8;
    assert!(held < WRITE_QUEUE_MESSAGES + 8, "{held} messages are held somewhere");
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled(), "it waits for the plugin");
    // Dropped, it is cut: the plugin sees no end of it.
    assert!(!fake.said().contains(&"end".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_who_and_what_and_whether_another_try_may_help() {
    let script = Script { init: Some(Status::unavailable("starting")), answers_garbage: true, ..Script::new() };
    let fake = Fake::start(script);
    let client = connected(&fake).await;
    let error = client.init("null".into(), false, "").await.unwrap_err();
    assert!(
        matches!(&error, Error::Call { call: "Init", source, .. } if source.code() == Code::Unavailable),
        "{error:?}"
    );
    assert_eq!(
        (twinlite::sqlite::said(&error).as_str(), error.fault()),
        ("the plugin: Init: starting (Unavailable)", Fault::Retry)
    );
    let error = client.read(&table()).await.unwrap().next().await.unwrap_err();
    assert!(matches!(&error, Error::Malformed { call: "Read", .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Halt);
    let nobody = Address::Unix("/does/not/exist.sock".into());
    let error = PluginClient::connect("the plugin", &nobody).await.unwrap_err();
    assert!(error.to_string().contains("unix:///does/not/exist.sock") && error.fault() == Fault::Retry, "{error}");
    // The plugin goes away in the middle of a Write.
    let mut session = client.write();
    session.send("t", insert(1)).await.unwrap();
    fake.until("the message", |calls| (calls.len() > 1).then_some(()));
    assert!(session.ended().cancelled().now_or_never().is_none());
    drop(fake);
    session.ended().cancelled().await;
    let error = session.finish().await.unwrap_err();
    assert!(matches!(&error, Error::WriteEnded { source: Some(_), .. }), "{error:?}");
}
