//! What `twinlite serve` holds, refuses and survives: the largest messages, clients that mean ill, and its own death.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use arrow::datatypes::DataType;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use twinlite::cloudquery::proto::plugin::{
    Predicate, PredicatesGroup, TableRelation, read as read_message, write as wire,
};
use twinlite::cloudquery::{Column, MESSAGE_BYTES_MAX, Table, ipc};

use crate::support::cq::{Serve, expect, init, insert, insert_bytes, migrate, read, rows, schema, table, write};
use crate::support::random::Random;
use crate::support::wait::until;
use crate::support::{Place, open_reader};

const MIB: usize = 1 << 20;

fn blobs(name: &str) -> Table {
    Table::new(name, vec![Column::new("data", DataType::Binary)])
}

/// So many rows of so many bytes each.
fn blob_rows(name: &str, count: usize, bytes: usize) -> wire::Request {
    let column: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..count).map(|_| vec![7; bytes])));
    insert(&RecordBatch::try_new(Arc::new(blobs(name).to_schema()), vec![column]).unwrap())
}

fn one(place: &Place, sql: &str) -> Result<i64, String> {
    open_reader(&place.source()).query_row(sql, [], |row| row.get(0)).map_err(|error| error.to_string())
}

/// That a call failed for what was sent, not because something broke here.
#[track_caller]
fn assert_told(status: &Status) {
    assert!(!status.message().contains("own; see its log"), "{status:?}");
}

/// Records near the largest that is taken, as rows and as one value. That one is there as it came, as SQLite takes it over,
/// and as SQLite writes it, beside some MiB of windows and pages. And the smallest that is not, which costs nothing, and ends its Write with the code and the words of one that was
/// cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_200_mib_is_held_three_times_at_most_and_a_larger_one_is_refused() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let above = insert_bytes(vec![0; MESSAGE_BYTES_MAX]);
    let mut careless = client.clone().max_encoding_message_size(2 * MESSAGE_BYTES_MAX);
    let messages = vec![migrate(&blobs("b")), blob_rows("b", 2, 3), above];
    let refused = write(&mut careless, messages).await;
    expect("above", refused, Code::Internal, "failed to receive msg: ");
    assert_eq!(one(&place, "SELECT count(*) FROM b"), Ok(2), "what came before it is kept");
    let before = server.peak_bytes();
    for (count, bytes) in [(99, 2 * MIB), (1, 192 * MIB)] {
        write(&mut client, vec![blob_rows("b", count, bytes)]).await.unwrap();
        let grown = server.peak_bytes() - before;
        assert!(grown <= 3 * MESSAGE_BYTES_MAX as u64, "{count} rows of {bytes} bytes: {} MiB", grown / MIB as u64);
    }
    assert_eq!(one(&place, "SELECT sum(length(data)) FROM b"), Ok(i64::try_from(390 * MIB + 6).unwrap()));
}

/// A few rows that wait hold the whole message that brought them. Of ten tables, each of which has such rows, that would be
/// ten messages.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_do_not_hold_the_messages_of_many_tables() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let before = server.peak_bytes();
    let (sender, messages) = mpsc::channel(1);
    let send = async {
        for number in 0..10 {
            let name = format!("b{number}");
            sender.send(migrate(&blobs(&name))).await.unwrap();
            // 10 MiB are a batch: two rows of the 22 wait.
            sender.send(blob_rows(&name, 22, 2 * MIB)).await.unwrap();
        }
        drop(sender);
    };
    let (written, ()) = tokio::join!(client.write(ReceiverStream::new(messages)), send);
    written.unwrap();
    let grown = server.peak_bytes() - before;
    assert!(grown <= 250 * MIB as u64, "{} MiB for ten messages of 44", grown / MIB as u64);
    assert_eq!(one(&place, "SELECT count(*) FROM b9"), Ok(22));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_schema_is_refused_wherever_it_stands() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    write(&mut client, vec![migrate(&table("t")), insert(&rows("t", &[1]))]).await.unwrap();
    let value = Table::new("v", vec![Column::new("id", DataType::Int64)]);
    let value =
        RecordBatch::try_new(Arc::new(value.to_schema()), vec![Arc::new(arrow::array::Int64Array::from(vec![77]))]);
    let sources = [schema(&table("t")), ipc::encode_record(&value.unwrap()).unwrap()];
    let mut random = Random::new(5);
    for round in 0..300 {
        let mut bytes = sources[round % 2].to_vec();
        match round % 3 {
            0 => bytes.truncate(random.below(bytes.len())),
            // Lengths that nobody has bytes for, in the head and anywhere.
            1 => {
                let at = if round % 2 == 0 { 4 } else { random.below(bytes.len() - 4) };
                bytes[at..at + 4].copy_from_slice(&[i32::MAX, i32::MIN, 1 << 30][round % 3].to_le_bytes());
            }
            _ => {
                let at = random.below(bytes.len());
                bytes[at] = u8::try_from(random.below(256)).unwrap();
            }
        }
        let predicate = Predicate { operator: 0, column: "id".to_owned(), record: bytes.clone().into() };
        let group = PredicatesGroup { grouping_type: 0, predicates: vec![predicate] };
        let delete = wire::MessageDeleteRecord {
            table_name: "t".to_owned(),
            where_clause: vec![group],
            table_relations: Vec::new(),
        };
        let delete = wire::Request { message: Some(wire::request::Message::DeleteRecord(delete)) };
        let table = wire::MessageMigrateTable { table: bytes.clone().into(), migrate_force: false };
        let table = wire::Request { message: Some(wire::request::Message::MigrateTable(table)) };
        for message in [table, delete] {
            if let Err(status) = write(&mut client, vec![message]).await {
                assert!(matches!(status.code(), Code::InvalidArgument | Code::Cancelled), "{status:?}");
                assert_told(&status);
            }
        }
        match client.read(read_message::Request { table: bytes.into() }).await {
            Err(status) => assert_told(&status),
            Ok(answers) => answers.into_inner().collect::<Vec<_>>().await.into_iter().for_each(|answer| {
                let _ = answer.map_err(|status| assert_told(&status));
            }),
        }
    }
    assert_eq!(one(&place, "SELECT count(*) FROM t WHERE id = 1"), Ok(1), "nothing else was meant");
}

/// Messages in every order that makes no sense: each is done, or told of, and the next Write works.
#[tokio::test(flavor = "multi_thread")]
async fn messages_in_a_wrong_order_fail_by_name_and_lose_nothing_before_them() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let relation = TableRelation { table_name: "children".to_owned(), parent_table: "nobody".to_owned() };
    let delete = |table: &str, relations: Vec<TableRelation>| {
        let delete = wire::MessageDeleteRecord {
            table_name: table.to_owned(),
            where_clause: Vec::new(),
            table_relations: relations,
        };
        wire::Request { message: Some(wire::request::Message::DeleteRecord(delete)) }
    };
    let stale = wire::MessageDeleteStale { table_name: "t".to_owned(), ..wire::MessageDeleteStale::default() };
    let stale = wire::Request { message: Some(wire::request::Message::Delete(stale)) };
    let insert_first = vec![insert(&rows("late", &[1])), migrate(&table("late"))];
    for (what, messages, words) in [
        ("a row before its table", insert_first, "table \"late\" does not exist"),
        ("a deletion before its table", vec![delete("late", Vec::new())], "table \"late\" does not exist"),
        ("a deletion from children first", vec![delete("t", vec![relation])], "\"nobody\""),
        ("stale rows of no sync", vec![stale], "table \"t\" has no column"),
    ] {
        write(&mut client, vec![migrate(&table("t")), insert(&rows("t", &[1]))]).await.unwrap();
        let failed = write(&mut client, messages).await.expect_err(what);
        assert_eq!(failed.code(), Code::Cancelled, "{what}: {failed:?}");
        assert!(failed.message().contains(words), "{what}: {failed:?}");
        assert_eq!(read(&mut client, &table("t")).await.unwrap(), 1, "{what}");
    }
    write(&mut client, vec![migrate(&table("late")), insert(&rows("late", &[1]))]).await.unwrap();
    // Close ends a Write that is open, by name, and does not wait for it.
    let (sender, messages) = mpsc::channel(8);
    let mut long = client.clone();
    let open_write = tokio::spawn(async move { long.write(ReceiverStream::new(messages)).await });
    sender.send(migrate(&table("closing"))).await.unwrap();
    until("the migration", || one(&place, "SELECT count(*) FROM closing"));
    client.close(twinlite::cloudquery::proto::plugin::close::Request {}).await.unwrap();
    sender.send(insert(&rows("closing", &[1]))).await.unwrap();
    drop(sender);
    let closed = open_write.await.unwrap().expect_err("closed");
    assert!(closed.message().contains("the destination is closed"), "{closed:?}");
}

/// A client that never flushes, and whose every table fails, is not listened to for ever.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_fail_without_end_end_their_stream() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let record = |number: usize| insert(&rows(&format!("unknown {number} {}", "x".repeat(4000)), &[1]));
    let messages = tokio_stream::iter((0..1_000).map(record));
    let mut answers = client.write_stream(messages).await.unwrap().into_inner();
    expect("stream", answers.next().await.unwrap(), Code::Cancelled, "plugin returned error: table \"unknown ");
    write(&mut client, vec![migrate(&table("t"))]).await.unwrap();
}

/// A batch is a transaction, so a server that is killed leaves whole ones, in their order, whenever that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_a_write_leaves_no_part_of_a_batch() {
    const BATCH: i64 = 1_000;
    let place = Place::new();
    for round in 0..4 {
        let server = Serve::tcp();
        let mut client = server.client().await;
        init(&mut client, &json!({"connection_string": place.source(), "batch_size": BATCH})).await.unwrap();
        let name = format!("t{round}");
        let (sender, messages) = mpsc::channel(4);
        let writing = tokio::spawn(async move { client.write(ReceiverStream::new(messages)).await });
        sender.send(migrate(&table(&name))).await.unwrap();
        let target = name.clone();
        let sending = tokio::spawn(async move {
            for first in (0..).step_by(370) {
                let ids: Vec<i64> = (first..first + 370).collect();
                if sender.send(insert(&rows(&target, &ids))).await.is_err() {
                    return;
                }
            }
        });
        let count = format!("SELECT count(*) FROM {name}");
        until("a few batches", || match one(&place, &count)? {
            rows if rows > round * BATCH => Ok(()),
            rows => Err(format!("{rows} rows")),
        });
        drop(server);
        writing.await.unwrap().expect_err("its server was killed");
        sending.await.unwrap();
        let rows = one(&place, &count).unwrap();
        assert!(rows > 0 && rows % BATCH == 0, "{rows} rows");
        assert_eq!(one(&place, &format!("SELECT max(id) + 1 FROM {name}")), Ok(rows), "in their order");
    }
    let sound: String = open_reader(&place.source()).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let server = Serve::tcp();
    let mut client = server.ready(&place.source()).await;
    write(&mut client, vec![migrate(&table("t0")), insert(&rows("t0", &[0]))]).await.unwrap();
}
