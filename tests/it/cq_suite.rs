//! The SDK's writer suite, case by case, against `twinlite serve` over gRPC: each step a Write of its own, into a file and
//! into memory. What a case may do in safe mode is what the suite's switches would say: columns added and removed, a unique
//! constraint removed, the key moved to `_cq_id`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, FixedSizeBinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Status};
use twinlite::cloudquery::delete::{DeleteRecord, Group, Predicate};
use twinlite::cloudquery::proto::plugin::plugin_client::PluginClient;
use twinlite::cloudquery::proto::plugin::{read, write};
use twinlite::cloudquery::{Column, Table, ipc};

use crate::support::Place;
use crate::support::cq::{self, Serve, init, schema};
use crate::support::cq_rows::{boolean, int, ints, record, synced, synced_row, text, texts, time, uuid};
use crate::support::cq_table::{Generator, Options, test_table};

const NORMAL: &[u8] = include_bytes!("../fixtures/cloudquery/testtable_0.bin");
const NULLS: &[u8] = include_bytes!("../fixtures/cloudquery/testtable_1.bin");

/// A server that has a database, and its client.
struct Suite {
    client: PluginClient<Channel>,
    _server: Serve,
    _place: Place,
}

impl Suite {
    /// Into memory, as the SDK's own suite runs, and into a file, as people do.
    async fn both() -> [Self; 2] {
        let suite = async |in_memory: bool| {
            let (server, place) = (Serve::tcp(), Place::new());
            let mut client = server.client().await;
            let file = place.source().display().to_string();
            let connection = if in_memory { ":memory:".to_owned() } else { file };
            init(&mut client, &json!({ "connection_string": connection })).await.unwrap();
            Self { client, _server: server, _place: place }
        };
        [suite(true).await, suite(false).await]
    }

    async fn send(&mut self, message: write::request::Message) -> Result<(), Status> {
        cq::write(&mut self.client, vec![write::Request { message: Some(message) }]).await
    }

    async fn migrate(&mut self, table: &Table, force: bool) -> Result<(), Status> {
        let message = write::MessageMigrateTable { table: schema(table), migrate_force: force };
        self.send(write::request::Message::MigrateTable(message)).await
    }

    async fn insert(&mut self, batch: &RecordBatch) {
        let message = write::MessageInsert { record: ipc::encode_record(batch).unwrap() };
        self.send(write::request::Message::Insert(message)).await.unwrap();
    }

    /// Deletes what `source` wrote before a time in µs.
    async fn delete_stale(&mut self, source: &str, before_us: i64) {
        let (seconds, nanos) = (before_us / 1_000_000, i32::try_from(before_us % 1_000_000).unwrap() * 1_000);
        let message = write::MessageDeleteStale {
            table_name: "t".to_owned(),
            source_name: source.to_owned(),
            sync_time: Some(prost_types::Timestamp { seconds, nanos }),
            ..write::MessageDeleteStale::default()
        };
        self.send(write::request::Message::Delete(message)).await.unwrap();
    }

    async fn delete_record(&mut self, groups: Vec<Group>) {
        let delete = DeleteRecord { table: "t".to_owned(), groups, relations: Vec::new() };
        self.send(write::request::Message::DeleteRecord(delete.to_write().unwrap())).await.unwrap();
    }

    /// Everything in a table, as one batch of exactly what was asked for.
    async fn read(&mut self, table: &Table) -> RecordBatch {
        let mut answers = self.client.read(read::Request { table: schema(table) }).await.unwrap().into_inner();
        let (expected, mut batches) = (Arc::new(table.to_schema()), Vec::new());
        while let Some(answer) = answers.message().await.unwrap() {
            let (schema, mut of_one) = ipc::decode_records(&answer.record).unwrap();
            assert_eq!(schema, expected);
            assert_eq!(of_one.len(), 1, "clients take one batch of a record");
            batches.append(&mut of_one);
        }
        concat_batches(&expected, &batches).unwrap()
    }
}

fn named(table: &Table, id: i64, name: &str) -> RecordBatch {
    record(table, vec![ints([id]), texts([name])])
}

fn both(first: &RecordBatch, second: &RecordBatch) -> RecordBatch {
    concat_batches(&first.schema(), [first, second]).unwrap()
}

const TIME: i64 = 1_700_000_000_123_456;
const SECOND: i64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn upsert_basic() {
    let table = Table::new("t", vec![int("id").with_not_null(true), text("name").with_primary_key(true)]);
    let row = named(&table, 1, "foo");
    for mut suite in Suite::both().await {
        suite.migrate(&table, false).await.unwrap();
        for _ in 0..2 {
            suite.insert(&row).await;
            assert_eq!(suite.read(&table).await, row);
        }
    }
}

/// With the names of the rows as their key, behind the columns of every type.
#[tokio::test(flavor = "multi_thread")]
async fn upsert_all() {
    let mut table = test_table("t", Options::default());
    table.columns.push(text("name").with_primary_key(true));
    let generated = |nulls| Generator::new(0).batch(&table, 10, nulls);
    for (normal, nulls) in [(generated(false), generated(true)), (fixture(NORMAL, true), fixture(NULLS, true))] {
        let table = Table::from_schema(&normal.schema()).unwrap();
        assert_eq!(table.columns.len(), 232);
        for mut suite in Suite::both().await {
            suite.migrate(&table, false).await.unwrap();
            suite.insert(&normal).await;
            assert_eq!(suite.read(&table).await, normal);
            suite.insert(&nulls).await;
            assert_eq!(suite.read(&table).await, nulls);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upsert_duplicate_keys() {
    let table = Table::new("t", vec![int("id").with_not_null(true).with_primary_key(true), text("name")]);
    for mut suite in Suite::both().await {
        suite.migrate(&table, false).await.unwrap();
        suite.insert(&record(&table, vec![ints([1; 10]), texts((0..10).map(|number| format!("foo{number}")))])).await;
        assert_eq!(suite.read(&table).await, named(&table, 1, "foo9"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn insert_basic() {
    let table = Table::new("t", vec![int("id").with_not_null(true), text("name")]);
    let row = named(&table, 1, "foo");
    for mut suite in Suite::both().await {
        suite.migrate(&table, false).await.unwrap();
        suite.insert(&row).await;
        assert_eq!(suite.read(&table).await, row);
        suite.insert(&row).await;
        assert_eq!(suite.read(&table).await, both(&row, &row));
    }
}

/// Rows of our generator, and rows that the Go SDK has made and encoded.
#[tokio::test(flavor = "multi_thread")]
async fn insert_all() {
    let table = test_table("t", Options::default());
    let mut generator = Generator::new(0);
    let generated = (generator.batch(&table, 10, false), generator.batch(&table, 10, true));
    for (normal, nulls) in [generated, (fixture(NORMAL, false), fixture(NULLS, false))] {
        let table = Table::from_schema(&normal.schema()).unwrap();
        assert_eq!(table.columns.len(), 231);
        for mut suite in Suite::both().await {
            suite.migrate(&table, false).await.unwrap();
            suite.insert(&normal).await;
            assert_eq!(suite.read(&table).await, normal);
            suite.insert(&nulls).await;
            assert_eq!(suite.read(&table).await, both(&normal, &nulls));
        }
    }
}

/// The rows of a fixture, as a table called `t`; with a key of their own behind them, as Upsert/All has it.
fn fixture(bytes: &[u8], with_name: bool) -> RecordBatch {
    let (schema, batches) = ipc::decode_records(bytes).unwrap();
    let rows = concat_batches(&schema, &batches).unwrap();
    let mut table = Table::from_schema(&schema).unwrap();
    table.name = "t".into();
    let mut columns = rows.columns().to_vec();
    if with_name {
        table.columns.push(text("name").with_primary_key(true));
        columns.push(texts((0..10).map(|number| format!("name {number}"))));
    }
    record(&table, columns)
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_stale_basic() {
    let (first, second) = (synced_row(0, "source-test", TIME), synced_row(1, "source-test", TIME + SECOND));
    for mut suite in Suite::both().await {
        suite.migrate(&synced(), false).await.unwrap();
        suite.insert(&first).await;
        suite.delete_stale("source-test", TIME).await;
        assert_eq!(suite.read(&synced()).await, first);
        suite.insert(&second).await;
        assert_eq!(suite.read(&synced()).await, both(&first, &second));
        suite.delete_stale("source-test", TIME + SECOND).await;
        assert_eq!(suite.read(&synced()).await, second);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_stale_all() {
    let mut table = test_table("t", Options::default());
    let keyed = table.columns.drain(..).map(|column| match column.name() {
        "id" => column.with_primary_key(true),
        _ => column,
    });
    table.columns = [text("_cq_source_name"), time("_cq_sync_time")].into_iter().chain(keyed).collect();
    let mut generator = Generator::new(0);
    (generator.source_name, generator.sync_time_us) = ("test".to_owned(), TIME);
    let first = generator.batch(&table, 10, false);
    generator.sync_time_us += SECOND;
    let second = generator.batch(&table, 10, true);
    for mut suite in Suite::both().await {
        suite.migrate(&table, false).await.unwrap();
        suite.insert(&first).await;
        suite.delete_stale("test", TIME).await;
        assert_eq!(suite.read(&table).await, first);
        suite.insert(&second).await;
        assert_eq!(suite.read(&table).await, both(&first, &second));
        suite.delete_stale("test", TIME + SECOND).await;
        assert_eq!(suite.read(&table).await, second);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_record_basic_and_all() {
    let by_id = |id: i64| {
        let value = record(&Table::new("t", vec![int("id")]), vec![ints([id])]);
        vec![Group { or: false, predicates: vec![Predicate::new("id", value).unwrap()] }]
    };
    let row = synced_row(0, "source-test", TIME);
    for mut suite in Suite::both().await {
        suite.migrate(&synced(), false).await.unwrap();
        suite.insert(&row).await;
        suite.delete_record(by_id(1)).await;
        assert_eq!(suite.read(&synced()).await, row);
        suite.delete_record(by_id(0)).await;
        assert_eq!(suite.read(&synced()).await.num_rows(), 0);
        for _ in 0..2 {
            suite.insert(&synced_row(1, "source-test", TIME + SECOND)).await;
            suite.delete_record(Vec::new()).await;
            assert_eq!(suite.read(&synced()).await.num_rows(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_double_migration() {
    let table = test_table("t", Options::default());
    for mut suite in Suite::both().await {
        let (mut generator, mut written) = (Generator::new(0), Vec::new());
        for force in [false, false, true] {
            suite.migrate(&table, force).await.unwrap();
            written.push(generator.batch(&table, 10, false));
            suite.insert(written.last().unwrap()).await;
            assert_eq!(suite.read(&table).await, concat_batches(&written[0].schema(), &written).unwrap());
        }
    }
}

/// A case of TestMigrate: what there is, what is wanted, and whether the rows may stay.
struct Case {
    name: &'static str,
    from: Vec<Column>,
    to: Vec<Column>,
    is_safe: bool,
}

fn cases() -> Vec<Case> {
    let base = || vec![int("id"), uuid("uuid")];
    let with = |more: Column| [base(), vec![more]].concat();
    let not_null = |column: Column| column.with_not_null(true);
    let keyed = |id: Column, cq_id: Column, flag: Column| vec![cq_id, id, uuid("uuid"), not_null(flag)];
    let cq_id = || uuid("_cq_id").with_unique(true);
    let moved = || {
        let cq_id = not_null(cq_id()).with_primary_key(true);
        keyed(int("id"), cq_id, boolean("bool"))
    };
    let by_id = |flag| keyed(int("id").with_primary_key(true), not_null(cq_id()), flag);
    let component = boolean("bool").with("cq:extension:primary_key_component", "true");
    let case = |name, from, to, is_safe| Case { name, from, to, is_safe };
    let unique = keyed(int("id"), cq_id(), boolean("bool"));
    vec![
        case("add_column", base(), with(boolean("bool")), true),
        case("add_column_not_null", base(), with(not_null(boolean("bool"))), false),
        case("remove_column", with(boolean("bool")), base(), true),
        case("remove_column_not_null", with(not_null(boolean("bool"))), base(), false),
        case("change_column", with(not_null(boolean("bool"))), with(not_null(text("bool"))), false),
        case("remove_unique_constraint_only", unique, keyed(int("id"), uuid("_cq_id"), boolean("bool")), true),
        case("move_to_cq_id_only", by_id(boolean("bool")), moved(), true),
        case("move_to_cq_id_only_adding_pkc", by_id(component), moved(), true),
        // Not of the suite.
        case("relax_not_null", with(not_null(boolean("bool"))), with(boolean("bool")), true),
        case("another_key", by_id(boolean("bool")), keyed(int("id"), not_null(cq_id()), boolean("bool")), false),
    ]
}

/// Rows of any of the cases' tables, all different, ids from `from` on.
fn rows(table: &Table, from: i64, count: i64) -> RecordBatch {
    let ids = from..from + count;
    let column = |column: &Column| -> ArrayRef {
        match column.data_type() {
            DataType::Int64 => ints(ids.clone()),
            DataType::Utf8 => texts(ids.clone().map(|id| format!("text {id}"))),
            DataType::Boolean => {
                let null = |id: i64| id % 5 == 0 && !column.not_null();
                Arc::new(BooleanArray::from_iter(ids.clone().map(|id| (!null(id)).then_some(id % 3 == 0))))
            }
            DataType::FixedSizeBinary(16) => {
                let bytes = ids.clone().map(|id| (i128::from(id) * 0x0123_4567_89ab_cdef_1357).to_be_bytes());
                Arc::new(FixedSizeBinaryArray::try_from_iter(bytes).unwrap())
            }
            other => panic!("no rows of type {other}"),
        }
    };
    record(table, table.columns.iter().map(column).collect())
}

/// The suite's own procedure.
async fn take_case(suite: &mut Suite, (from, to): (&Table, &Table), is_safe: bool, force: bool) {
    suite.migrate(from, force).await.unwrap();
    let before = i64::try_from(suite.read(from).await.num_rows()).unwrap();
    let first = rows(from, before + 1, 10);
    suite.insert(&first).await;
    let read_back = suite.read(from).await;
    assert_eq!(read_back.slice(usize::try_from(before).unwrap(), 10), first, "{}", from.name);
    suite.migrate(to, force).await.unwrap();
    let last = rows(to, before + 11, 10);
    suite.insert(&last).await;
    let after = suite.read(to).await;
    let expected = if force && !is_safe { 10 } else { usize::try_from(before).unwrap() + 20 };
    assert_eq!(after.num_rows(), expected, "{}", to.name);
    assert_eq!(after.slice(expected - 10, 10), last, "{}", to.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_each_case_safe_and_forced() {
    for mut suite in Suite::both().await {
        for Case { name, from, to, is_safe } in cases() {
            let table = |mode: &str, columns: &[Column]| Table::new(&format!("cq_{name}_{mode}"), columns.to_vec());
            let tables = (&table("force", &from), &table("force", &to));
            take_case(&mut suite, tables, is_safe, true).await;
            let (from, to) = (table("safe", &from), table("safe", &to));
            if is_safe {
                take_case(&mut suite, (&from, &to), true, false).await;
                take_case(&mut suite, (&to, &to), true, false).await;
                continue;
            }
            suite.migrate(&from, false).await.unwrap();
            let kept = rows(&from, 1, 10);
            suite.insert(&kept).await;
            let refused = suite.migrate(&to, false).await;
            let why = refused.as_ref().expect_err(name).message().to_owned();
            let words = "plugin returned error: Can't migrate tables automatically, migrate manually or consider using \
                         'migrate_mode: forced'. Non auto migratable tables changes:\n\n";
            cq::expect(name, refused, Code::Cancelled, &format!("{words}cq_{name}_safe:\n  - "));
            // Said as it would be done, not the other way round.
            let line = match name {
                "add_column_not_null" => "Column \"bool\" added with type \"bool\" and not null constraint",
                "remove_column_not_null" => "Not null column \"bool\" removed",
                "change_column" => "Type changed from \"bool\" to \"utf8\" for column \"bool\"",
                _ => "Primary key constraint removed from column \"id\"",
            };
            assert!(why.ends_with(&format!(":\n  - {line}")), "{why}");
            assert_eq!(suite.read(&from).await, kept, "nothing has changed");
        }
    }
}
