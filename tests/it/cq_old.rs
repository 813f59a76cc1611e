//! The destination services of versions 1 and 0, as old sources call them.

use prost_types::Timestamp;
use serde_json::{Value, json};
use tonic::Code;
use twinlite::cloudquery::proto::{destination_v0 as v0, destination_v1 as v1};
use twinlite::cloudquery::table::columns;
use twinlite::cloudquery::{Column, Extension, ipc};

use crate::support::cq::{Serve, expect, rows, schema, table};
use crate::support::{Place, open_reader};

fn list(place: &Place, sql: &str) -> Vec<String> {
    let looking = open_reader(&place.source());
    let mut statement = looking.prepare(sql).unwrap();
    statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap).collect()
}

/// A destination's whole spec, of which the plugin's own is a part.
fn config(place: &Place, write_mode: &str) -> bytes::Bytes {
    let spec = json!({"connection_string": place.source()});
    json!({"name": "x", "registry": "grpc", "write_mode": write_mode, "batch_size": 3, "spec": spec}).to_string().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_version_2_writes_through_v1() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = v1::destination_client::DestinationClient::new(server.channel().await);
    let name = client.get_name(v1::get_name::Request {}).await.unwrap().into_inner().name;
    assert_eq!(name, "sqlite");
    let tables = vec![schema(&table("t"))];
    let migrate = v1::migrate::Request { tables: tables.clone(), ..v1::migrate::Request::default() };
    let before = "write failed: plugin is not initialized";
    expect("migrate", client.migrate(migrate.clone()).await, Code::Internal, before);
    let wrong = v1::configure::Request { config: "{\"write_mode\": \"x\"}".into() };
    expect("configure", client.configure(wrong).await, Code::InvalidArgument, "spec: write_mode");
    for (mode, expected) in [("overwrite", 3), ("append", 6)] {
        client.configure(v1::configure::Request { config: config(&place, mode) }).await.unwrap();
        // A table whose key is given up is another one: see to it that it is new.
        let name = mode;
        let tables = vec![schema(&table(name))];
        client.migrate(v1::migrate::Request { tables: tables.clone(), ..migrate.clone() }).await.unwrap();
        for _ in 0..2 {
            let first = v1::write::Request { source: "s".to_owned(), tables: tables.clone(), ..Default::default() };
            let resource = |ids: &[i64]| {
                let resource = ipc::encode_record(&rows(name, ids)).unwrap();
                v1::write::Request { resource, ..v1::write::Request::default() }
            };
            client.write(tokio_stream::iter([first, resource(&[1, 2]), resource(&[3])])).await.unwrap();
        }
        assert_eq!(list(&place, &format!("SELECT name FROM \"{name}\"")).len(), expected, "{mode}");
    }
    let junk = v1::write::Request { resource: "junk".into(), ..v1::write::Request::default() };
    let failed = client.write(tokio_stream::iter([junk])).await;
    expect("junk", failed, Code::InvalidArgument, "failed to create record: ");
    let metrics = client.get_metrics(v1::get_destination_metrics::Request {}).await;
    expect("metrics", metrics, Code::Unimplemented, "");
    client.close(v1::close::Request {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_rows_are_deleted_through_v1() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = v1::destination_client::DestinationClient::new(server.channel().await);
    client.configure(v1::configure::Request { config: config(&place, "overwrite-delete-stale") }).await.unwrap();
    let mut managed = table("t");
    managed.columns.push(Column::new(columns::CQ_SOURCE_NAME, arrow::datatypes::DataType::Utf8));
    let time = arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    managed.columns.push(Column::new(columns::CQ_SYNC_TIME, time));
    managed.columns.push(Column::extension(columns::CQ_ID, Extension::Uuid));
    let tables = vec![schema(&managed)];
    client.migrate(v1::migrate::Request { tables: tables.clone(), ..Default::default() }).await.unwrap();
    let timestamp = Some(Timestamp { seconds: 10, nanos: 0 });
    let request = v1::delete_stale::Request { source: "s".to_owned(), timestamp, tables };
    assert_eq!(client.delete_stale(request).await.unwrap().into_inner().failed_deletes, 0);
}

/// Tables and rows are JSON, and the destination adds where a row is from.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_version_1_writes_through_v0() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = v0::destination_client::DestinationClient::new(server.channel().await);
    let version = client.get_protocol_version(v0::get_protocol_version::Request {}).await.unwrap().into_inner().version;
    assert_eq!(version, 2);
    client.configure(v0::configure::Request { config: config(&place, "overwrite-delete-stale") }).await.unwrap();
    let tables = json!([{"name": "users", "columns": [
        {"name": "id", "type": 2, "creation_options": {"primary_key": true}}, {"name": "tags", "type": 7}],
        "relations": [{"name": "notes", "columns": [{"name": "text", "type": 5}]}]}]);
    let tables = bytes::Bytes::from(tables.to_string());
    let write = async |client: &mut v0::destination_client::DestinationClient<_>, seconds, rows: Vec<Value>| {
        let timestamp = Some(Timestamp { seconds, nanos: 0 });
        let source = "old".to_owned();
        let first = v0::write2::Request { source, timestamp, tables: tables.clone(), ..Default::default() };
        let row = |row: &Value| v0::write2::Request { resource: row.to_string().into(), ..Default::default() };
        let messages: Vec<_> = std::iter::once(first).chain(rows.iter().map(row)).collect();
        client.write2(tokio_stream::iter(messages)).await
    };
    let user = |id: i64| {
        let tags = json!({"Elements": [{"Str": "a", "Status": 2}], "Status": 2});
        let id = json!({"Int": id, "Status": 2});
        json!({"table_name": "users", "data": [{"type": "Int8", "value": id}, {"type": "TextArray", "value": tags}]})
    };
    let note = json!({"table_name": "notes", "data": [{"type": "Text", "value": {"Str": "n", "Status": 2}}]});
    write(&mut client, 10, vec![user(1), user(2), note]).await.unwrap();
    write(&mut client, 20, vec![user(2), user(3)]).await.unwrap();
    assert_eq!(list(&place, "SELECT id || _cq_source_name FROM users ORDER BY id"), ["1old", "2old", "3old"]);
    assert_eq!(list(&place, "SELECT text FROM notes"), ["n"]);
    let timestamp = Some(Timestamp { seconds: 20, nanos: 0 });
    let stale = v0::delete_stale::Request { source: "old".to_owned(), timestamp, tables: tables.clone() };
    client.delete_stale(stale).await.unwrap();
    assert_eq!(list(&place, "SELECT id || '' FROM users ORDER BY id"), ["2", "3"]);
    assert!(list(&place, "SELECT text FROM notes").is_empty());
    let strange = json!({"table_name": "strangers", "data": []});
    expect(
        "strange",
        write(&mut client, 30, vec![strange]).await,
        Code::InvalidArgument,
        "resource: table \"strangers\"",
    );
    let wrong = json!({"table_name": "users", "data": [{"value": {"Str": "1", "Status": 2}}, {}]});
    let failed = write(&mut client, 30, vec![user(4), wrong]).await;
    expect("wrong", failed, Code::InvalidArgument, "resource: table \"users\": column \"id\": want a number");
    assert_eq!(list(&place, "SELECT id || '' FROM users ORDER BY id"), ["2", "3", "4"], "what came before is kept");
    let first = v0::write::Request::default();
    expect("write", client.write(tokio_stream::iter([first])).await, Code::Unimplemented, "Write is not implemented");
    client.close(v0::close::Request {}).await.unwrap();
}
