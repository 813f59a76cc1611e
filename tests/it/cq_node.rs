//! What a CloudQuery source writes into a database that a node owns: captured, and replicated onwards, whatever the source
//! asks for. Through the node's own `cloudquery.listen`, and through a `twinlite serve` beside it, which is an application
//! to the node like any other.

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use serde_json::json;
use std::sync::Arc;
use tonic::transport::Channel;
use twinlite::cloudquery::proto::plugin::plugin_client::PluginClient;
use twinlite::cloudquery::proto::plugin::{get_spec_schema, write as wire};
use twinlite::cloudquery::{Column, Table};

use crate::support::cq::{Serve, init, insert, migrate, schema, write};
use crate::support::cq_rows::{int, record, text, uuid};
use crate::support::oracle::{Oracle, assert_equal};
use crate::support::process::{Process, free_port};
use crate::support::wait::until;
use crate::support::{Place, open, open_reader};

fn id() -> Column {
    int("id").with_not_null(true)
}

fn cq_id() -> Column {
    uuid("_cq_id").with_not_null(true)
}

/// Rows of a table of any of these columns.
fn filled(table: &Table, ids: &[i64]) -> wire::Request {
    let column = |column: &Column| -> ArrayRef {
        match column.data_type() {
            DataType::Int64 => Arc::new(Int64Array::from(ids.to_vec())),
            DataType::Utf8 => {
                Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("{} {id}", column.name()))))
            }
            _ => {
                let uuids = ids.iter().map(|id| i128::from(*id).to_be_bytes());
                Arc::new(arrow::array::FixedSizeBinaryArray::try_from_iter(uuids).unwrap())
            }
        }
    };
    let columns = table.columns.iter().map(column).collect();
    insert(&record(table, columns))
}

fn forced(table: &Table) -> wire::Request {
    let message = wire::MessageMigrateTable { table: schema(table), migrate_force: true };
    wire::Request { message: Some(wire::request::Message::MigrateTable(message)) }
}

fn delete_all(table: &str) -> wire::Request {
    let delete = wire::MessageDeleteRecord { table_name: table.to_owned(), ..wire::MessageDeleteRecord::default() };
    wire::Request { message: Some(wire::request::Message::DeleteRecord(delete)) }
}

/// Each step, and how many rows the table has after it.
fn steps() -> Vec<(&'static str, Vec<wire::Request>, i64)> {
    let table = |columns| Table::new("t", columns);
    let keyed = || id().with_primary_key(true);
    let first = table(vec![cq_id(), keyed(), text("name").with_not_null(true)]);
    let wider = table(vec![cq_id(), keyed(), text("name").with_not_null(true), text("note")]);
    let relaxed = table(vec![cq_id(), keyed(), text("name"), text("note")]);
    let moved = table(vec![cq_id().with_primary_key(true), id(), text("name"), text("note")]);
    let retyped = table(vec![cq_id().with_primary_key(true), id(), Column::new("name", DataType::Int64), text("note")]);
    let rekeyed = table(vec![cq_id(), keyed(), text("name")]);
    let keyless = table(vec![id(), text("name")]);
    vec![
        ("made and filled", vec![migrate(&first), filled(&first, &[1, 2, 3])], 3),
        ("a column added", vec![migrate(&wider), filled(&wider, &[3, 4])], 4),
        ("rebuilt for NOT NULL", vec![migrate(&relaxed), filled(&relaxed, &[4, 5])], 5),
        ("rebuilt for another key", vec![migrate(&moved), filled(&moved, &[5, 6])], 6),
        ("rebuilt, and nothing written after it", vec![migrate(&moved)], 6),
        ("made anew for a type", vec![forced(&retyped), filled(&retyped, &[2, 9])], 2),
        ("made anew for a key", vec![forced(&rekeyed), filled(&rekeyed, &[1, 9])], 2),
        ("made anew, and left empty", vec![forced(&retyped)], 0),
        ("filled, emptied and filled", vec![filled(&retyped, &[1, 2]), delete_all("t"), filled(&retyped, &[7])], 1),
        ("made anew without a key", vec![forced(&keyless), filled(&keyless, &[1, 1, 2])], 3),
        ("filled once more", vec![filled(&keyless, &[1])], 4),
    ]
}

fn count(place: &Place) -> i64 {
    open_reader(&place.source()).query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

async fn take_every_step(client: &mut PluginClient<Channel>, place: &Place, node: &mut Process) {
    for (what, messages, rows) in steps() {
        write(client, messages).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(count(place), rows, "{what}");
        tokio::task::block_in_place(|| {
            until(what, || {
                node.assert_running();
                if !place.replica().exists() {
                    return Err("no replica".to_owned());
                }
                let differences = Oracle::default().differences(&place.source(), &place.replica());
                if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
            });
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serve_writes_beside_a_database_s_owner_is_replicated_whatever_becomes_of_the_table() {
    let place = Place::new();
    open(&place.source()).execute_batch("CREATE TABLE own(id INTEGER PRIMARY KEY, v)").unwrap();
    let mut node = Process::replicate(&place.source(), &place.replica(), &[]);
    until("the copy", || if place.replica().exists() { Ok(()) } else { Err("no replica".to_owned()) });
    let server = Serve::tcp();
    let mut client = server.ready(&place.source()).await;
    take_every_step(&mut client, &place, &mut node).await;
    // The application goes on meanwhile.
    open(&place.source()).execute_batch("INSERT INTO own VALUES (1, 'own')").unwrap();
    until("the application's row", || {
        let differences = Oracle::default().differences(&place.source(), &place.replica());
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
    });
    node.stop();
    assert_equal(&place.source(), &place.replica());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_writes_into_a_node_is_replicated_whatever_becomes_of_the_table() {
    let place = Place::new();
    open(&place.source()).execute_batch("CREATE TABLE own(id INTEGER PRIMARY KEY)").unwrap();
    let (cloudquery, link) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let config = place.file("nodes.yaml");
    let text = format!(
        "nodes:\n  - name: a\n    spec: {{ connection_string: {} }}\n    cloudquery: {{ listen: '{cloudquery}' }}\n    \
         listen: '{link}'\n    links:\n      - name: b\n        directions: send\n  - name: b\n    \
         spec: {{ connection_string: {} }}\n    links:\n      - name: a\n        directions: receive\n        peer: '{link}'\n",
        place.source().display(),
        place.replica().display(),
    );
    std::fs::write(&config, text).unwrap();
    let mut node = Process::run(&config, &[]);
    until("the node to listen", || {
        node.assert_running();
        std::net::TcpStream::connect(&cloudquery).map_err(|error| error.to_string())
    });
    let channel = tonic::transport::Endpoint::new(format!("http://{cloudquery}")).unwrap().connect().await.unwrap();
    let mut client = PluginClient::new(channel);
    let schema = client.get_spec_schema(get_spec_schema::Request {}).await.unwrap().into_inner().json_schema;
    let schema: serde_json::Value = serde_json::from_str(&schema.unwrap()).unwrap();
    assert!(schema.get("required").is_none(), "it has its database: {schema}");
    init(&mut client, &json!({})).await.unwrap();
    take_every_step(&mut client, &place, &mut node).await;
    node.stop();
}
