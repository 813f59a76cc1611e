//! `twinlite sync`: against plugins made with the real Python SDK, over TCP and as programs, and against one that fails as
//! it is told (see `support::plugin`).

use std::{fs, path::Path, sync::Arc};

use arrow::{
    array::{AsArray as _, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, TimestampMicrosecondType},
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::Notify;
use tonic::Status;
use twinlite::cloudquery::{
    Column, Extension, Table, ipc,
    proto::plugin::{predicates_group, sync, sync::response::Message, write},
    table::schema_keys,
};

use crate::support::{
    Place, open, open_reader,
    plugin::{Call, Fake, Script},
    process::{Process, expect_code, expect_failure},
    sdk::{Served, program, python},
    skipped,
    wait::until,
};

fn table(name: &str) -> Table {
    let columns = vec![
        Column::extension("_cq_id", Extension::Uuid).with_unique(true),
        Column::new("id", DataType::Int64).with_primary_key(true).with_not_null(true),
        Column::new("name", DataType::Utf8),
    ];
    Table::new(name, columns)
}

fn child(name: &str, parent: &str, incremental: bool) -> Table {
    let mut table = table(name);
    table.metadata.insert(schema_keys::DEPENDS_ON, parent);
    table.metadata.insert(schema_keys::INCREMENTAL, if incremental { "true" } else { "false" });
    table
}

fn migrate(table: &Table) -> Message {
    Message::MigrateTable(sync::MessageMigrateTable { table: ipc::encode_schema(&table.to_schema()).unwrap() })
}

fn rows(table: &Table, ids: std::ops::Range<i64>) -> RecordBatch {
    let uuids = ids.clone().map(|id| Some(u128::try_from(id).unwrap().to_be_bytes()));
    let uuids = arrow::array::FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, 16).unwrap();
    let names = StringArray::from_iter_values(ids.clone().map(|id| format!("n{id}")));
    let schema = Arc::new(table.to_schema());
    RecordBatch::try_new(schema, vec![Arc::new(uuids), Arc::new(Int64Array::from_iter_values(ids)), Arc::new(names)])
        .unwrap()
}

fn insert(table: &Table, ids: std::ops::Range<i64>) -> Message {
    Message::Insert(sync::MessageInsert { record: ipc::encode_record(&rows(table, ids)).unwrap() })
}

fn failure(table: &str) -> Message {
    Message::Error(sync::MessageError { table_name: table.to_owned(), error: "no access".to_owned() })
}

fn delete(table: &str) -> Message {
    let group = twinlite::cloudquery::proto::plugin::PredicatesGroup {
        grouping_type: predicates_group::GroupingType::Or.into(),
        predicates: Vec::new(),
    };
    let (table_name, where_clause) = (table.to_owned(), vec![group]);
    Message::DeleteRecord(sync::MessageDeleteRecord { table_name, where_clause, table_relations: Vec::new() })
}

/// A specification of one source at an address and one destination at another, with more keys for either.
fn spec(place: &Place, source: (&Fake, &str), destinations: &[(&Fake, &str)]) -> std::path::PathBuf {
    let names: Vec<String> = (0..destinations.len()).map(|number| format!("d{number}")).collect();
    let (fake, keys) = source;
    let mut text = format!(
        "kind: source\nspec:\n  name: s\n  registry: grpc\n  path: {}\n  tables: ['*']\n  destinations: [{}]\n{keys}",
        fake.address,
        names.join(", ")
    );
    for (name, (fake, keys)) in names.iter().zip(destinations) {
        text += &format!(
            "---\nkind: destination\nspec:\n  name: {name}\n  registry: grpc\n  path: {}\n{keys}",
            fake.address
        );
    }
    written(place, &text)
}

fn written(place: &Place, text: &str) -> std::path::PathBuf {
    let path = place.file("spec.yaml");
    fs::write(&path, text).unwrap();
    path
}

fn synced(spec: &Path) -> String {
    expect_code(0, &["sync".as_ref(), spec.as_os_str()])
}

fn failed(spec: &Path) -> String {
    expect_failure(1, &["sync".as_ref(), spec.as_os_str()])
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

#[test]
fn every_destination_gets_every_message_in_the_sources_order() {
    let place = Place::new();
    let (a, b) = (table("a"), child("b", "a", false));
    let messages = vec![
        migrate(&a),
        migrate(&b),
        insert(&a, 0..3),
        insert(&b, 0..1),
        delete("a"),
        insert(&a, 3..5),
        migrate(&a),
        insert(&a, 5..6),
    ];
    let source = Fake::start(Script::source(messages));
    let (stale, append) = (Fake::start(Script::new()), Fake::start(Script::new()));
    let keys = "  write_mode: append\n  migrate_mode: forced\n  spec: { b: '<x>', a: [1, 2.5] }\n";
    let said = synced(&spec(&place, (&source, ""), &[(&stale, ""), (&append, keys)]));
    says(&said, &["Sync completed successfully. Resources: 7, Errors: 0, Warnings: 0, Time: "]);
    let written = |pk: &str, force: &str| {
        let a = format!("migrate a pk={pk}{force}");
        let b = format!("migrate b pk={pk}{force}");
        let all = [&a, &b, "insert a 3", "insert b 1", "delete a", "insert a 2", &a, "insert a 1"];
        all.map(str::to_owned).to_vec()
    };
    let mut wanted = vec!["init null".to_owned()];
    wanted.extend(written("id", ""));
    wanted.extend(["stale a of s", "stale b of s", "end", "close"].map(str::to_owned));
    assert_eq!(stale.said(), wanted);
    let mut wanted = vec!["init {\"a\":[1,2.5],\"b\":\"\\u003cx\\u003e\"}".to_owned()];
    wanted.extend(written("", " forced"));
    wanted.extend(["end", "close"].map(str::to_owned));
    assert_eq!(append.said(), wanted);
    assert_eq!(source.said(), ["init null", "sync *"], "the source is not closed");
}

#[test]
fn a_deletion_reaches_the_destination_word_for_word() {
    use twinlite::cloudquery::proto::plugin::{Predicate, PredicatesGroup, TableRelation, predicate};
    let place = Place::new();
    let a = table("a");
    let predicate = |column: &str, record: Vec<u8>| Predicate {
        operator: predicate::Operator::Eq.into(),
        column: column.to_owned(),
        record: record.into(),
    };
    let group = |grouping: predicates_group::GroupingType, predicates| PredicatesGroup {
        grouping_type: grouping.into(),
        predicates,
    };
    let (and, or) = (predicates_group::GroupingType::And, predicates_group::GroupingType::Or);
    let where_clause = vec![
        group(and, vec![predicate("id", vec![1, 2]), predicate("x", vec![])]),
        group(or, vec![predicate("y", vec![9])]),
    ];
    let table_relations = vec![TableRelation { table_name: "b".to_owned(), parent_table: "a".to_owned() }];
    let delete =
        sync::MessageDeleteRecord { table_name: "a".to_owned(), where_clause: where_clause.clone(), table_relations };
    let source = Fake::start(Script::source(vec![migrate(&a), Message::DeleteRecord(delete.clone())]));
    let destination = Fake::start(Script::new());
    synced(&spec(&place, (&source, ""), &[(&destination, "")]));
    let calls = destination.calls();
    let sent = calls.iter().find_map(|call| match call {
        Call::Write(Some(write::request::Message::DeleteRecord(sent))) => Some(sent),
        _ => None,
    });
    let sent = sent.expect("a deletion");
    assert_eq!((&sent.where_clause, &sent.table_relations), (&where_clause, &delete.table_relations));
}

#[test]
fn rows_say_when_and_from_where_they_came_and_stale_ones_are_older_than_that() {
    let place = Place::new();
    let a = table("a");
    let source = Fake::start(Script::source(vec![migrate(&a), insert(&a, 0..2)]));
    let destination = Fake::start(Script::new());
    let path = spec(&place, (&source, "  deterministic_cq_id: true\n  skip_tables: [x]\n"), &[(&destination, "")]);
    let args = ["sync", path.to_str().unwrap(), "--shard", "2/3", "--invocation-id", "run-7"];
    expect_code(0, &args);
    let record = &destination.records()[0];
    let (times, names) =
        (record.column_by_name("_cq_sync_time").unwrap(), record.column_by_name("_cq_source_name").unwrap());
    let time = times.as_primitive::<TimestampMicrosecondType>().value(1);
    assert_eq!(names.as_string::<i32>().value(1), "s_2_3");
    let calls = destination.calls();
    let stale = calls.iter().find_map(|call| match call {
        Call::Write(Some(write::request::Message::Delete(delete))) => Some(delete.clone()),
        _ => None,
    });
    let stale = stale.expect("stale rows are deleted");
    let at = stale.sync_time.unwrap();
    assert_eq!((at.seconds * 1_000_000 + i64::from(at.nanos / 1_000), stale.source_name.as_str()), (time, "s_2_3"));
    let calls = source.calls();
    let Call::Sync(request) = &calls[1] else { panic!("{calls:?}") };
    assert!(request.with_error_messages && request.deterministic_cq_id && request.skip_dependent_tables);
    assert!(!request.supports_checkpoints);
    assert_eq!((request.skip_tables.as_slice(), request.backend.as_ref()), (["x".to_owned()].as_slice(), None));
    assert_eq!(request.shard.map(|shard| (shard.num, shard.total)), Some((2, 3)));
    assert!(matches!(&calls[0], Call::Init(_, false, id) if id == "run-7"), "{calls:?}");
}

#[test]
fn incremental_tables_and_tables_that_failed_keep_their_stale_rows() {
    let place = Place::new();
    let tables = [child("log", "", true), child("line", "log", false), child("a", "", false), child("bad", "", false)];
    let messages = tables.iter().map(migrate).chain([failure("bad")]).collect();
    let source = Fake::start(Script::source(messages));
    let (destination, state) = (Fake::start(Script::new()), Fake::start(Script::new()));
    let path = spec(&place, (&source, ""), &[(&destination, "")]);
    let text = fs::read_to_string(&path).unwrap().replace(
        "---",
        "  spec: { where: '@@plugins.state.connection' }\n  backend_options: { table_name: st, connection: '@@plugins.state.connection' }\n---",
    ) + &format!("---\nkind: destination\nspec: {{ name: state, registry: grpc, path: '{}' }}\n", state.address);
    let said = failed(&written(&place, &text));
    says(&said, &["no access", "bad", "1 errors"]);
    let stale: Vec<String> = destination.said().into_iter().filter(|call| call.starts_with("stale")).collect();
    assert_eq!(stale, ["stale a of s"]);
    assert_eq!(state.said(), ["init null"], "a backend alone is initialised, and neither written nor closed");
    let calls = source.calls();
    assert!(matches!(&calls[0], Call::Init(spec, _, _) if *spec == format!("{{\"where\":\"{}\"}}", state.address)));
    let Call::Sync(request) = &calls[1] else { panic!("{calls:?}") };
    let backend = request.backend.as_ref().unwrap();
    assert_eq!((backend.table_name.as_str(), &backend.connection), ("st", &state.address));
}

#[test]
fn without_migrating_tables_are_left_as_they_are_and_stale_rows_still_go() {
    let place = Place::new();
    let a = table("a");
    let source = Fake::start(Script::source(vec![migrate(&a), insert(&a, 0..1)]));
    let destination = Fake::start(Script::new());
    let path = spec(&place, (&source, ""), &[(&destination, "")]);
    expect_code(0, &["sync", path.to_str().unwrap(), "--no-migrate"]);
    assert_eq!(destination.said(), ["init null", "insert a 1", "stale a of s", "end", "close"]);
}

#[test]
fn a_summary_is_a_table_a_file_and_json() {
    let place = Place::new();
    let a = table("a");
    let source = Fake::start(Script::source(vec![migrate(&a), insert(&a, 0..2), insert(&a, 2..3)]));
    let destination = Fake::start(Script::new());
    let keys = "  send_sync_summary: true\n  write_mode: overwrite\n  sync_group_id: '{{SYNC_ID}}/x'\n";
    let path = spec(&place, (&source, ""), &[(&destination, keys)]);
    let file = place.file("summary.jsonl");
    let args = [
        "sync",
        path.to_str().unwrap(),
        "--summary-location",
        file.to_str().unwrap(),
        "--invocation-id",
        "i",
        "-o",
        "json",
    ];
    let printed: Value = serde_json::from_str(&expect_code(0, &args)).unwrap();
    expect_code(0, &args);
    assert_eq!((&printed["resources"], &printed["errors"]), (&3.into(), &0.into()));
    assert_eq!(printed["syncs"][0]["resources_per_table"]["a"], 3);
    let lines: Vec<Value> =
        fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "a second run appends");
    let line = &lines[0];
    assert_eq!(
        (&line["sync_group_id"], &line["source_name"], &line["destination_name"]),
        (&"i/x".into(), &"s".into(), &"d0".into())
    );
    assert_eq!((&line["resources_per_table"]["a"], &line["source_tables"][0]), (&3.into(), &"*".into()));
    let said = destination.said();
    let summary =
        ["migrate cloudquery_sync_summaries pk=_cq_sync_group_id", "insert cloudquery_sync_summaries 1", "end"];
    let at = said.iter().position(|call| call.contains("summaries")).expect("a summary");
    assert_eq!(said[at..at + 3], summary, "{said:?}");
    let record = &destination.records()[2];
    let number =
        |name: &str| record.column_by_name(name).unwrap().as_primitive::<arrow::datatypes::Int64Type>().value(0);
    assert_eq!((number("resources"), number("source_errors"), number("shard_num")), (3, 0, 0));
    assert_eq!(record.column_by_name("_cq_sync_group_id").unwrap().as_string::<i32>().value(0), "i/x");
    assert!(record.column_by_name("_cq_sync_time").is_some());
}

#[test]
fn a_destination_that_fails_ends_the_sync_and_is_named() {
    let place = Place::new();
    let a = table("a");
    let messages: Vec<Message> = std::iter::once(migrate(&a)).chain((0..20).map(|id| insert(&a, id..id + 1))).collect();
    let source = || Fake::start(Script { stays_open: true, ..Script::source(messages.clone()) });
    let good = || Fake::start(Script::new());
    let internal = Status::internal("disk on fire");
    // It fails in the middle, while the source has more to say and while it says nothing at all.
    for after in [0, 3, 21] {
        let bad = Fake::start(Script { write_ends: Some((after, Err(internal.clone()))), ..Script::new() });
        let (source, good) = (source(), good());
        let said = failed(&spec(&place, (&source, ""), &[(&good, ""), (&bad, "")]));
        says(&said, &["destination \"d1\": Write", "disk on fire (Internal)"]);
        assert!(after == 0 || said.contains("table \"a\""), "{said}");
        assert!(!good.said().contains(&"close".to_owned()), "nothing is closed as if it had ended well");
    }
    // It ends early and says that all is well.
    let bad = Fake::start(Script { write_ends: Some((2, Ok(()))), ..Script::new() });
    let said = failed(&spec(&place, (&source(), ""), &[(&bad, "")]));
    says(&said, &["destination \"d0\": Write ended before everything was sent"]);
    // It takes everything and then cannot commit.
    let source = Fake::start(Script::source(messages.clone()));
    let bad = Fake::start(Script { write_fails: Some(Status::internal("commit: disk full")), ..Script::new() });
    says(
        &failed(&spec(&place, (&source, ""), &[(&bad, "")])),
        &["destination \"d0\": Write: commit: disk full (Internal)"],
    );
    // It does not like its spec.
    let bad = Fake::start(Script { init: Some(Status::invalid_argument("no such key: x")), ..Script::new() });
    says(
        &failed(&spec(&place, (&source, ""), &[(&bad, "")])),
        &["destination \"d0\": Init: no such key: x (InvalidArgument)"],
    );
}

#[test]
fn a_source_that_fails_ends_the_sync_and_no_stale_row_goes() {
    let place = Place::new();
    let a = table("a");
    let broken = Message::Insert(sync::MessageInsert { record: vec![1, 2, 3].into() });
    let nameless = Message::MigrateTable(sync::MessageMigrateTable {
        table: ipc::encode_schema(&arrow::datatypes::Schema::empty()).unwrap(),
    });
    let ends: [(Result<sync::Response, Status>, &str); 3] = [
        (Err(Status::unknown("quota exceeded")), "source \"s\": Sync: quota exceeded (Unknown)"),
        (Ok(sync::Response { message: Some(broken) }), "source \"s\": Sync: understand the answer"),
        (Ok(sync::Response { message: Some(nameless) }), "missing table name"),
    ];
    for (end, words) in ends {
        let mut script = Script::source(vec![migrate(&a), insert(&a, 0..1)]);
        script.sync.push(Ok(sync::Response { message: None }));
        script.sync.push(end);
        let (source, destination) = (Fake::start(script), Fake::start(Script::new()));
        says(&failed(&spec(&place, (&source, ""), &[(&destination, "")])), &[words]);
        let said = destination.said();
        // A server of tonic cannot tell a stream that was cut from one that ended: the client's own tests do.
        assert!(!said.iter().any(|call| call.starts_with("stale") || call == "close"), "{said:?}");
    }
}

#[test]
fn plugins_of_another_age_and_what_is_no_plugin_are_refused_by_name() {
    let place = Place::new();
    let good = Fake::start(Script::new());
    let old = Fake::start(Script { versions: Some(vec![1, 2]), ..Script::default() });
    let words = "source \"s\" does not support CloudQuery protocol version 3, but only [1, 2]";
    says(&failed(&spec(&place, (&old, ""), &[(&good, "")])), &[words]);
    let older = Fake::start(Script { versions_v0: Some(vec!["v0".into(), "v1".into()]), ..Script::default() });
    says(&failed(&spec(&place, (&good, ""), &[(&older, "")])), &["destination \"d0\" does not support", "[0, 1]"]);
    let none = Fake::start(Script::default());
    says(&failed(&spec(&place, (&good, ""), &[(&none, "")])), &["destination \"d0\": ", "is no CloudQuery plugin"]);
    // Only the old discovery is there, and it lists version 3.
    let late = Fake::start(Script { versions_v0: Some(vec!["v2".into(), "v3".into()]), ..Script::default() });
    synced(&spec(&place, (&late, ""), &[(&good, "")]));
    let path = spec(&place, (&good, ""), &[(&good, "")]);
    let text = fs::read_to_string(&path).unwrap().replacen(&good.address, "127.0.0.1:1", 1);
    says(&failed(&written(&place, &text)), &["source \"s\": connect to 127.0.0.1:1", "refused"]);
}

#[test]
fn a_slow_destination_sets_the_pace_and_ctrl_c_ends_it_all() {
    let place = Place::new();
    let a = table("a");
    // A megabyte a message, so that what the network holds on its way is little beside it.
    let big = {
        let names = StringArray::from_iter_values(["x".repeat(1 << 20)]);
        let batch = rows(&a, 0..1);
        let columns = vec![batch.column(0).clone(), batch.column(1).clone(), Arc::new(names) as _];
        let record = RecordBatch::try_new(batch.schema(), columns).unwrap();
        Message::Insert(sync::MessageInsert { record: ipc::encode_record(&record).unwrap() })
    };
    let messages: Vec<Message> = std::iter::once(migrate(&a)).chain(std::iter::repeat_n(big, 64)).collect();
    let gate = Arc::new(Notify::new());
    let source = Fake::start(Script::source(messages));
    let (quick, slow) = (Fake::start(Script::new()), Fake::start(Script { gate: Some(gate.clone()), ..Script::new() }));
    let path = spec(&place, (&source, ""), &[(&quick, ""), (&slow, "")]);
    let mut process = Process::start("sync", &["sync".as_ref(), path.as_os_str()], &[]);
    quick.until("the quick one to get some", |calls| (calls.len() > 3).then_some(()));
    for _ in 0..8 {
        let before = slow.calls().len();
        gate.notify_one();
        slow.until("the slow one to get the next", |calls| (calls.len() > before).then_some(()));
    }
    // Windows of HTTP/2 and the queue are between them, and never all that there is.
    let (ahead, behind) = (quick.calls().len(), slow.calls().len());
    assert!(ahead < 60 && behind < 12, "the quick one is at {ahead} of 66, the slow one at {behind}");
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(1));
    says(&process.said(), &["stopped before the end"]);
    assert!(!slow.said().contains(&"end".to_owned()));
}

/// Every fault that one document can have, with its line, document and key.
#[test]
fn all_faults_of_a_specification_are_told_at_once() {
    let place = Place::new();
    let text = "kind: source\nspec:\n  name: s\n  registry: grpc\n  path: nowhere\n  tabels: ['*']\n  destinations: [d, e, d]\n\
                \x20 backend_options: { table_name: t }\n  skip_tables: x\n  deterministic_cq_id: 1\n  spec: { a: '@@plugins.q.connection' }\n\
                ---\nkind: destination\nspec:\n  name: d\n  path: cloudquery/postgresql\n  version: 1.0\n  write_mode: replace\n\
                \x20 sync_group_id: '{{SECOND}}'\n  transformers: [t]\n---\nkind: destination\nmore: 1\nspec:\n  name: d\n  registry: docker\n  path: x\n\
                ---\nkind: transformer\nspec: { name: x }\n---\nkind: sauce\nspec: {}\n---\nkind: source\n---\n- 1\n\
                ---\nkind: destination\nspec: { name: w, registry: embedded, path: x, spec: 7, sync_group_id: g, x: '${TWINLITE_NOT_SET}' }\n";
    let path = written(&place, text);
    let said = expect_failure(2, &["sync".as_ref(), path.as_os_str()]);
    let wanted = [
        (5, 1, "spec.path", "wants host:port"),
        (6, 1, "spec.tabels", "unknown key; known here: name, registry, path"),
        (3, 1, "spec.tables", "missing"),
        (7, 1, "spec.destinations[1]", "no `kind: destination` is called \"e\""),
        (7, 1, "spec.destinations[2]", "there twice"),
        (8, 1, "spec.backend_options.connection", "missing"),
        (9, 1, "spec.skip_tables", "a list of texts"),
        (10, 1, "spec.deterministic_cq_id", "true or false, not the number 1"),
        (11, 1, "spec.spec", "@@plugins.q.connection"),
        (15, 2, "spec.registry", "grpc (a plugin that runs already"),
        (17, 2, "spec.version", "put it in quotes"),
        (18, 2, "spec.write_mode", "overwrite-delete-stale, overwrite, append"),
        (19, 2, "spec.sync_group_id", "cannot go with write_mode overwrite-delete-stale"),
        (19, 2, "spec.sync_group_id", "{{SYNC_ID}}"),
        (20, 2, "spec.transformers", "not run"),
        (23, 3, "more", "unknown key; known here: kind, spec"),
        (25, 3, "spec.name", "called \"d\" already"),
        (26, 3, "spec.registry", "docker run"),
        (29, 4, "kind", "transformers are not run"),
        (32, 5, "kind", "source or destination, not \"sauce\""),
        (35, 6, "spec", "missing"),
        (37, 7, "", "wants a map of keys, not a list"),
        (40, 8, "spec.path", "leave it out"),
        (40, 8, "spec.spec", "not the number 7"),
        (40, 8, "spec.sync_group_id", "cannot go"),
        (40, 8, "spec.x", "unknown key"),
        (40, 0, "", "${TWINLITE_NOT_SET} is not set"),
    ];
    for (line, document, key, words) in wanted {
        let document = if document == 0 { String::new() } else { format!(" document {document}:") };
        let key = if key.is_empty() { String::new() } else { format!(" {key}:") };
        let start = format!("spec.yaml:{line}:{document}{key} ");
        let found = said.lines().any(|fault| fault.contains(&start) && fault.contains(words));
        assert!(found, "no {start:?} with {words:?} in:\n{said}");
    }
    // Two more: document 7 lacks its kind, and so has nothing else to say.
    assert!(said.lines().count() <= wanted.len() + 1, "{} faults:\n{said}", said.lines().count());
}

#[test]
fn a_specification_that_is_no_yaml_or_says_nothing_is_refused() {
    let place = Place::new();
    for (text, words) in [
        ("kind: [", ["spec.yaml:", "not valid YAML"]),
        ("", ["no document with `kind: source`", "no document with `kind: destination`"]),
        ("kind: source\nkind: source\n", ["spec.yaml:2: ", "the key \"kind\" is there twice"]),
    ] {
        let path = written(&place, text);
        says(&expect_failure(2, &["sync".as_ref(), path.as_os_str()]), &words);
    }
    says(&expect_failure(2, &["sync", "/does/not/exist.yaml"]), &["/does/not/exist.yaml", "read the specification"]);
}

/// A place with Python's plugins, or a test that says why it was skipped.
macro_rules! with_python {
    ($test:literal) => {
        match python() {
            Some(python) => python,
            None => {
                return skipped($test, "no Python with CloudQuery's SDK could be made in target/cq");
            }
        }
    };
}

fn held(place: &Place) -> Value {
    serde_json::from_str(&fs::read_to_string(place.file("held.json")).unwrap()).unwrap()
}

fn python_spec(place: &Place, source: &str, destination: &str, keys: &str) -> std::path::PathBuf {
    let file = place.file("held.json");
    written(
        place,
        &format!(
            "kind: source\nspec:\n  name: shelf\n{source}  tables: ['*']\n  destinations: [memory]\n{keys}---\n\
             kind: destination\nspec:\n  name: memory\n{destination}  spec: {{ file: {} }}\n",
            file.display()
        ),
    )
}

fn grpc(served: &Served) -> String {
    format!("  registry: grpc\n  path: {}\n", served.address)
}

fn local(program: &Path) -> String {
    format!("  registry: local\n  path: {}\n", program.display())
}

#[test]
fn the_python_sdks_source_is_synced_into_its_destination_over_tcp() {
    let python = with_python!("the_python_sdks_source_is_synced_into_its_destination_over_tcp");
    let place = Place::new();
    let (source, destination) = (Served::start(&python, "source.py"), Served::start(&python, "destination.py"));
    let keys = "  skip_dependent_tables: false\n";
    let three = python_spec(&place, &(grpc(&source) + "  spec: { rows: 3 }\n"), &grpc(&destination), keys);
    says(&synced(&three), &["Sync completed successfully. Resources: 9, Errors: 0"]);
    let rows = held(&place);
    assert_eq!((rows["items"].as_array().unwrap().len(), rows["parts"].as_array().unwrap().len()), (3, 6));
    let row = &rows["items"][0];
    assert_eq!((&row["id"], &row["name"], &row["_cq_source_name"]), (&1.into(), &"item 1".into(), &"shelf".into()));
    // The second sync has fewer rows, and those that it does not have any more go.
    let two = python_spec(&place, &(grpc(&source) + "  spec: { rows: 2 }\n"), &grpc(&destination), keys);
    says(&synced(&two), &["Resources: 6"]);
    let rows = held(&place);
    assert_eq!((rows["items"].as_array().unwrap().len(), rows["parts"].as_array().unwrap().len()), (2, 4));
}

#[test]
fn a_source_goes_on_where_its_state_in_a_destination_says() {
    let python = with_python!("a_source_goes_on_where_its_state_in_a_destination_says");
    let place = Place::new();
    let (source, destination) = (Served::start(&python, "source.py"), Served::start(&python, "destination.py"));
    let keys = "  backend_options: { table_name: progress, connection: '@@plugins.memory.connection' }\n";
    let spec = python_spec(&place, &(grpc(&source) + "  spec: { rows: 2, state: true }\n"), &grpc(&destination), keys);
    for count in [2, 4, 6] {
        says(&synced(&spec), &["Errors: 0"]);
        let rows = held(&place);
        let items = rows["items"].as_array().unwrap();
        assert_eq!(items.len(), count, "an incremental table keeps what it has");
        assert_eq!(items[count - 1]["id"], count);
        assert_eq!(rows["progress"][0]["value"], count.to_string());
    }
}

#[test]
fn programs_are_started_watched_and_stopped() {
    let python = with_python!("programs_are_started_watched_and_stopped");
    let place = Place::new();
    let folder = place.file("x").parent().unwrap().to_owned();
    let tmp = place.file("tmp");
    fs::create_dir(&tmp).unwrap();
    let (source, destination) = (program(&folder, &python, "source.py"), program(&folder, &python, "destination.py"));
    let run = |own: &str, code: i32| {
        let path = python_spec(&place, &(local(&source) + own), &local(&destination), "");
        let tmp = tmp.to_str().unwrap();
        let args: [&std::ffi::OsStr; 2] = ["sync".as_ref(), path.as_os_str()];
        let mut process = Process::start("sync", &args, &[("TMPDIR", tmp)]);
        assert_eq!(process.wait().code(), Some(code), "{}", process.said());
        assert_eq!(fs::read_dir(tmp).unwrap().count(), 0, "sockets are removed");
        process.said()
    };
    let said = run("  spec: { rows: 2, log: info }\n", 0);
    says(&said, &["as I was told", "table resolver finished successfully"]);
    assert_eq!(held(&place)["items"].as_array().unwrap().len(), 2);
    // What a plugin logs as an error is one, even if it says that all is well.
    says(&run("  spec: { log: error }\n", 1), &["as I was told", "1 errors"]);
    says(&run("  spec: { fail: items }\n", 1), &["the shelf is empty", "1 errors"]);
    says(&run("  spec: { die: true }\n", 1), &["source \"shelf\"", "ended by itself", "SIGKILL"]);
}

#[test]
fn what_is_no_program_or_does_not_serve_is_said() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let destination = Fake::start(Script::new());
    let broken = place.file("broken.sh");
    fs::write(&broken, "#!/bin/sh\necho '{\"level\":\"error\",\"message\":\"no licence\"}'\nexit 3\n").unwrap();
    let run = |path: &Path| {
        let source = local(path);
        let text = format!(
            "kind: source\nspec:\n  name: s\n{source}  tables: ['*']\n  destinations: [d]\n---\n\
             kind: destination\nspec: {{ name: d, registry: grpc, path: '{}' }}\n",
            destination.address
        );
        failed(&written(&place, &text))
    };
    says(&run(&place.file("missing")), &["source \"s\"", "missing: no program to run"]);
    says(&run(&broken), &["source \"s\": run ", "ermission denied"]);
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    says(&run(&broken), &["source \"s\"", "ended at once", "exit status: 3", "in each of 3 tries", "no licence"]);
}

fn count(database: &Path, sql: &str) -> i64 {
    open_reader(database).query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn twinlite_itself_is_a_destination_and_a_state_backend_in_one_process() {
    let python = with_python!("twinlite_itself_is_a_destination_and_a_state_backend_in_one_process");
    let place = Place::new();
    let source = Served::start(&python, "source.py");
    let database = place.file("shelf.db");
    let text = |own: &str, keys: &str| {
        let path = format!(
            "kind: source\nspec:\n  name: shelf\n{}  spec: {own}\n  tables: ['*']\n  destinations: [db]\n{keys}---\n\
             kind: destination\nspec: {{ name: db, registry: embedded, spec: {{ connection_string: '{}' }} }}\n",
            grpc(&source),
            database.display()
        );
        written(&place, &path)
    };
    let all = "  skip_dependent_tables: false\n";
    says(&synced(&text("{ rows: 3 }", all)), &["Resources: 9, Errors: 0"]);
    assert_eq!(count(&database, "SELECT count(*) FROM items"), 3);
    assert_eq!(count(&database, "SELECT count(*) FROM parts WHERE _cq_source_name = 'shelf'"), 6);
    says(&synced(&text("{ rows: 1 }", all)), &["Resources: 3"]);
    assert_eq!(count(&database, "SELECT count(*) FROM items"), 1, "stale rows are gone");
    fs::remove_file(&database).unwrap();
    let state = "  backend_options: { table_name: progress, connection: '@@plugins.db.connection' }\n";
    for rows in [2, 4] {
        synced(&text("{ rows: 2, state: true }", state));
        assert_eq!(count(&database, "SELECT count(*) FROM items"), rows);
        assert_eq!(count(&database, "SELECT CAST(value AS INTEGER) FROM progress"), rows);
    }
}

#[test]
fn twinlite_as_a_program_is_a_local_destination_like_any_other() {
    let place = Place::new();
    let a = table("a");
    let source = Fake::start(Script::source(vec![migrate(&a), insert(&a, 1..4)]));
    let database = place.file("a.db");
    let text = format!(
        "kind: source\nspec: {{ name: s, registry: grpc, path: '{}', tables: ['*'], destinations: [db] }}\n---\n\
         kind: destination\nspec: {{ name: db, registry: local, path: '{}', spec: {{ connection_string: '{}' }} }}\n",
        source.address,
        env!("CARGO_BIN_EXE_twinlite"),
        database.display()
    );
    says(&synced(&written(&place, &text)), &["Resources: 3, Errors: 0, Warnings: 0"]);
    assert_eq!(count(&database, "SELECT sum(id) FROM a"), 6);
}

/// Twinlite's source into Twinlite, both in the process of `sync`. `own` is of the source's own spec, `keys` are more keys of
/// the source, `mode` of the destination.
fn embedded(place: &Place, own: &str, keys: &str, mode: &str) -> std::path::PathBuf {
    let (app, copy) = (place.source(), place.replica());
    let text = format!(
        "kind: source\nspec:\n  name: app\n  registry: embedded\n  tables: ['*']\n  destinations: [copy]\n{keys}\
         \x20 spec: {{ connection_string: '{}'{own} }}\n---\nkind: destination\nspec:\n  name: copy\n  registry: embedded\n{mode}\
         \x20 spec: {{ connection_string: '{}' }}\n",
        app.display(),
        copy.display()
    );
    written(place, &text)
}

fn ids(database: &Path) -> String {
    let sql = "SELECT coalesce(group_concat(id, ' ' ORDER BY id), '') FROM t";
    open_reader(database).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The default write mode deletes what a sync did not send, and a sync of changes does not send what did not change: the
/// second one emptied the destination.
#[test]
fn rows_that_did_not_change_are_never_stale() {
    let state = "  backend_options: { table_name: progress, connection: '@@plugins.copy.connection' }\n";
    let (cdc, everything) = ((", cdc: true", ""), ("", ""));
    for modes in [[everything, cdc, cdc], [everything, ("", state), ("", state)], [cdc, (", cdc: true", state), cdc]] {
        let place = Place::new();
        let app = open(&place.source());
        app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)").unwrap();
        let changes = [("", "1 2 3"), ("INSERT INTO t VALUES (4)", "1 2 3 4"), ("DELETE FROM t WHERE id = 2", "1 3 4")];
        for ((own, keys), (sql, wanted)) in modes.into_iter().zip(changes).chain([(modes[2], ("", "1 3 4"))]) {
            app.execute_batch(sql).unwrap();
            synced(&embedded(&place, own, keys, ""));
            assert_eq!(ids(&place.replica()), wanted, "{modes:?} after {sql:?}");
        }
    }
}

/// What a source is to go on from must not be kept before everything up to there is committed: a destination that fails
/// at its end would never be sent what it has lost.
#[test]
fn a_state_is_kept_only_when_every_destination_has_committed() {
    let place = Place::new();
    let app = open(&place.source());
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)").unwrap();
    let (bad, good) = (
        Fake::start(Script { write_fails: Some(Status::internal("disk full")), ..Script::new() }),
        Fake::start(Script::new()),
    );
    let spec = |destination: &Fake| {
        let text = format!(
            "kind: source\nspec:\n  name: app\n  registry: embedded\n  tables: ['*']\n  destinations: [d]\n\
             \x20 backend_options: {{ table_name: progress, connection: '@@plugins.state.connection' }}\n\
             \x20 spec: {{ connection_string: '{}' }}\n---\nkind: destination\nspec:\n  name: d\n  registry: grpc\n  path: '{}'\n---\n\
             kind: destination\nspec:\n  name: state\n  registry: embedded\n  spec: {{ connection_string: '{}' }}\n",
            place.source().display(),
            destination.address,
            place.file("state.db").display()
        );
        written(&place, &text)
    };
    synced(&spec(&good));
    app.execute_batch("UPDATE t SET id = 7 WHERE id = 3").unwrap();
    says(&failed(&spec(&bad)), &["disk full"]);
    synced(&spec(&good));
    let said = good.said();
    let again = said.iter().rposition(|call| call.starts_with("init")).unwrap();
    assert_eq!(said[again..], ["init null", "migrate t pk=id", "delete t", "insert t 1", "end", "close"]);
    synced(&spec(&good));
    assert_eq!(good.said()[said.len()..], ["init null", "migrate t pk=id", "end", "close"], "nothing since");
}

/// Checkpoints of a foreign source: the last one of each key is what stays, in the table that the specification names.
#[test]
fn checkpoints_become_the_rows_of_the_state_table() {
    let place = Place::new();
    let a = table("a");
    let state = |rows: &[(&str, &str)]| {
        let columns =
            vec![Column::new("key", DataType::Utf8).with_primary_key(true), Column::new("value", DataType::Utf8)];
        let schema = Arc::new(Table::new("elsewhere", columns).to_schema());
        let keys = StringArray::from_iter_values(rows.iter().map(|(key, _)| key));
        let values = StringArray::from_iter_values(rows.iter().map(|(_, value)| value));
        let record = RecordBatch::try_new(schema, vec![Arc::new(keys), Arc::new(values)]).unwrap();
        Message::Checkpoint(sync::MessageCheckpoint { record: ipc::encode_record(&record).unwrap() })
    };
    let messages = vec![
        migrate(&a),
        insert(&a, 0..3),
        state(&[("page", "1"), ("other", "x")]),
        insert(&a, 3..6),
        state(&[("page", "2")]),
        state(&[]),
    ];
    let database = place.file("a.db");
    let run = |messages: Vec<Message>, backend: &str| {
        let source = Fake::start(Script::source(messages));
        let text = format!(
            "kind: source\nspec:\n  name: s\n  registry: grpc\n  path: '{}'\n  tables: ['*']\n  destinations: [db]\n{backend}---\n\
             kind: destination\nspec: {{ name: db, registry: embedded, spec: {{ connection_string: '{}' }} }}\n",
            source.address,
            database.display()
        );
        (written(&place, &text), source)
    };
    let backend = "  backend_options: { table_name: progress, connection: '@@plugins.db.connection' }\n";
    let (spec, source) = run(messages.clone(), backend);
    says(&synced(&spec), &["Resources: 6, Errors: 0"]);
    assert!(matches!(&source.calls()[1], Call::Sync(request) if request.supports_checkpoints));
    let kept = "SELECT group_concat(key || '=' || value, ' ' ORDER BY key) FROM progress";
    let kept = || -> String { open_reader(&database).query_row(kept, [], |row| row.get(0)).unwrap() };
    assert_eq!(kept(), "other=x page=2");
    // One that comes although nobody asked is told of, and kept nowhere.
    let (spec, _source) = run(vec![migrate(&a), state(&[("page", "9")])], "");
    synced(&spec);
    // A source that fails afterwards did not come to its end, but what it had said is not committed for sure.
    let mut script = Script::source(vec![migrate(&a), state(&[("page", "9")])]);
    script.sync.push(Err(Status::unknown("quota exceeded")));
    let source = Fake::start(script);
    let text = fs::read_to_string(run(Vec::new(), backend).0).unwrap();
    let line = text.lines().find(|line| line.contains("path")).unwrap();
    says(&failed(&written(&place, &text.replace(line, &format!("  path: '{}'", source.address)))), &["quota exceeded"]);
    assert_eq!(kept(), "other=x page=2");
}

/// A program that starts another one, as scripts do: that one ran on when the first one had ended.
#[test]
fn what_a_plugin_started_ends_with_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let pids = place.file("pids");
    let wrapper = place.file("wrapper.sh");
    // Its child is in the background: neither a signal to it alone nor its end reaches the child.
    let script = |ends: &str| {
        format!(
            "#!/bin/sh\nsleep 300 >/dev/null 2>&1 &\necho $! >> '{}'\n{ends} '{}' \"$@\"\n",
            pids.display(),
            env!("CARGO_BIN_EXE_twinlite")
        )
    };
    let source = Fake::start(Script::source(vec![migrate(&table("a"))]));
    let hangs = Fake::start(Script { stays_open: true, ..Script::source(vec![migrate(&table("a"))]) });
    let text = |source: &Fake| {
        format!(
            "kind: source\nspec: {{ name: s, registry: grpc, path: '{}', tables: ['*'], destinations: [db] }}\n---\n\
             kind: destination\nspec: {{ name: db, registry: local, path: '{}', spec: {{ connection_string: '{}' }} }}\n",
            source.address,
            wrapper.display(),
            place.file("a.db").display()
        )
    };
    let gone = |count: usize| {
        until("what it started to end", || {
            let pids = fs::read_to_string(&pids).unwrap_or_default();
            let runs = |pid: &&str| Path::new("/proc").join(pid).join("root").exists();
            match pids.lines().filter(runs).collect::<Vec<_>>() {
                left if left.is_empty() && pids.lines().count() == count => Ok(()),
                left => Err(format!("{left:?} of {pids:?}")),
            }
        });
    };
    let write = |ends: &str| {
        fs::write(&wrapper, script(ends)).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    };
    // It ends when it is asked to.
    write("exec");
    synced(&written(&place, &text(&source)));
    gone(1);
    // It ends by itself at once, in each of three tries.
    write("exit 3; :");
    says(&failed(&written(&place, &text(&source))), &["ended at once"]);
    gone(4);
    // Nobody asks it: the second Ctrl-C is for the impatient.
    write("trap '' INT; exec");
    let path = written(&place, &text(&hangs));
    let mut process = Process::start("sync", &["sync".as_ref(), path.as_os_str()], &[]);
    hangs.until("the sync", |calls| calls.iter().any(|call| matches!(call, Call::Sync(_))).then_some(()));
    process.signal(Signal::INT);
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(1));
    gone(5);
}

/// A message above what the protocol allows is not received, however much memory there is.
#[test]
fn a_message_of_more_than_200_mib_is_refused() {
    let place = Place::new();
    let a = table("a");
    let huge = {
        let batch = rows(&a, 0..1);
        let name = StringArray::from_iter_values(["x".repeat((200 << 20) + 1)]);
        let columns = vec![batch.column(0).clone(), batch.column(1).clone(), Arc::new(name) as _];
        let record = RecordBatch::try_new(batch.schema(), columns).unwrap();
        Message::Insert(sync::MessageInsert { record: ipc::encode_record(&record).unwrap() })
    };
    let source = Fake::start(Script::source(vec![migrate(&a), huge]));
    let destination = Fake::start(Script::new());
    let said = failed(&spec(&place, (&source, ""), &[(&destination, "")]));
    says(&said, &["source \"s\": Sync: ", "OutOfRange", "209715200"]);
    assert_eq!(destination.records().len(), 0);
}

/// A part of the tables each, and between them everything once.
#[test]
fn shards_sync_everything_between_them() {
    let place = Place::new();
    let app = open(&place.source());
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE u(id INTEGER PRIMARY KEY); CREATE TABLE v(id INTEGER PRIMARY KEY);
                       INSERT INTO t VALUES (1), (2); INSERT INTO u VALUES (1); INSERT INTO v VALUES (1), (2), (3)").unwrap();
    for own in ["", ", cdc: true"] {
        let spec = embedded(&place, own, "", "");
        let mut resources = Vec::new();
        for shard in ["1/2", "2/2"] {
            let args = ["sync", spec.to_str().unwrap(), "--shard", shard, "-o", "json"];
            let summary: Value = serde_json::from_str(&expect_code(0, &args)).unwrap();
            resources.push(summary["syncs"][0]["resources_per_table"].clone());
        }
        assert_eq!(resources, [serde_json::json!({"t": 2, "u": 1}), serde_json::json!({"v": 3})], "{own}");
        let all = "SELECT (SELECT count(*) FROM t) * 100 + (SELECT count(*) FROM u) * 10 + (SELECT count(*) FROM v)";
        assert_eq!(count(&place.replica(), all), 213);
    }
    let named = "SELECT count(*) FROM v WHERE _cq_source_name = 'app_2_2'";
    synced_shard(&embedded(&place, "", "", ""), "2/2");
    assert_eq!(count(&place.replica(), named), 3);
    // More parts than tables: some have nothing to do, and say so without failing.
    let said = synced_shard(&embedded(&place, "", "", ""), "5/5");
    says(&said, &["Resources: 0, Errors: 0"]);
    for wrong in ["0/2", "3/2", "1", "a/b"] {
        expect_failure(2, &["sync", "spec.yaml", "--shard", wrong]);
    }
}

fn synced_shard(spec: &Path, shard: &str) -> String {
    expect_code(0, &["sync", spec.to_str().unwrap(), "--shard", shard])
}

/// Told a source's database after a destination's, a plugin would write into the source.
#[test]
fn one_plugin_is_not_source_and_destination_at_once() {
    let place = Place::new();
    let text = |paths: [&str; 3]| {
        let mut text = format!(
            "kind: source\nspec: {{ name: a, registry: grpc, path: '{}', tables: ['*'], destinations: [a, b] }}\n",
            paths[0]
        );
        for (name, path) in ["a", "b"].iter().zip(&paths[1..]) {
            text += &format!("---\nkind: destination\nspec: {{ name: {name}, registry: grpc, path: '{path}' }}\n");
        }
        written(&place, &text)
    };
    for (paths, words) in [
        (
            ["localhost:1", "127.0.0.1:1", "localhost:2"],
            "spec.destinations[0]: \"a\" is at 127.0.0.1:1, where source \"a\" is too",
        ),
        (["localhost:1", "h:2", "h:2"], "spec.destinations[1]: \"b\" is at h:2, where destination \"a\" is too"),
        (["unix:///s", "h:2", "unix:/s"], "spec.destinations[1]: \"b\" is at unix:/s, where source \"a\" is too"),
    ] {
        let path = text(paths);
        says(&expect_failure(2, &["sync".as_ref(), path.as_os_str()]), &[words, "another address"]);
    }
    let path = text(["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
    says(&failed(&path), &["connect to 127.0.0.1:1"]);
}

/// With its place in the database alone, a source never hears that a destination failed at its very end. `resync` is the way
/// back: every row is sent again, and what is gone goes.
#[test]
fn a_resync_makes_up_for_a_destination_that_failed_at_its_end() {
    let place = Place::new();
    let app = open(&place.source());
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)").unwrap();
    let bad = Fake::start(Script { write_fails: Some(Status::internal("disk full")), ..Script::new() });
    let good = embedded(&place, ", cdc: true", "", "");
    synced(&good);
    app.execute_batch("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (4)").unwrap();
    let text = fs::read_to_string(&good).unwrap();
    let (source, _) = text.split_once("---").unwrap();
    let text =
        format!("{source}---\nkind: destination\nspec: {{ name: copy, registry: grpc, path: '{}' }}\n", bad.address);
    says(&failed(&written(&place, &text)), &["disk full"]);
    expect_code(0, &["resync".as_ref(), "--db".as_ref(), place.source().as_os_str()]);
    synced(&embedded(&place, ", cdc: true", "", ""));
    assert_eq!(ids(&place.replica()), "2 3 4");
}
