//! A SQLite database as a CloudQuery source: synced over gRPC by `twinlite serve` into a `twinlite serve` that is the
//! destination, as the CLI does it, and compared by SQL.

use rusqlite::Connection;
use serde_json::{Value, json};
use tonic::transport::Channel;
use twinlite::cloudquery::ipc;
use twinlite::cloudquery::proto::plugin::plugin_client::PluginClient;
use twinlite::cloudquery::proto::plugin::sync::response::Message;
use twinlite::cloudquery::proto::plugin::{get_tables, sync, write};

use crate::support::cq::{Serve, init, write};
use crate::support::{Place, open, open_reader};

/// A source, a destination, and what is between them.
struct Pair {
    place: Place,
    _source: Serve,
    target: Serve,
    from: PluginClient<Channel>,
    to: PluginClient<Channel>,
    app: Connection,
}

impl Pair {
    async fn new(ddl: &str, spec: Value) -> Self {
        let (place, source, target) = (Place::new(), Serve::tcp(), Serve::tcp());
        let app = open(&place.source());
        app.execute_batch(ddl).unwrap();
        let mut from = source.client().await;
        let mut whole = json!({ "connection_string": place.source() });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        init(&mut from, &whole).await.unwrap();
        let to = target.ready(&place.replica()).await;
        Self { place, _source: source, target, from, to, app }
    }

    fn run(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn backend(&self) -> sync::Request {
        let connection = self.target.address.clone();
        let backend = Some(sync::BackendOptions { table_name: "state".to_owned(), connection });
        sync::Request { backend, ..everything() }
    }

    /// One sync, as the CLI does it with `write_mode: overwrite`; what was said.
    async fn sync(&mut self, request: sync::Request) -> Vec<Message> {
        let messages = said(&mut self.from, request).await.unwrap();
        write(&mut self.to, messages.iter().map(as_write).collect()).await.unwrap();
        messages
    }

    #[track_caller]
    fn assert_equal(&self, table: &str, columns: &str) {
        let rows = |path| dump(&open_reader(path), table, columns);
        assert_eq!(rows(&self.place.replica()), rows(&self.place.source()), "{table}");
    }
}

fn everything() -> sync::Request {
    sync::Request { tables: vec!["*".to_owned()], ..sync::Request::default() }
}

async fn said(from: &mut PluginClient<Channel>, request: sync::Request) -> Result<Vec<Message>, tonic::Status> {
    let mut stream = from.sync(request).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(response) = stream.message().await? {
        messages.extend(response.message);
    }
    Ok(messages)
}

fn as_write(message: &Message) -> write::Request {
    use write::request::Message as Write;
    let message = match message.clone() {
        Message::MigrateTable(migrate) => {
            Write::MigrateTable(write::MessageMigrateTable { table: migrate.table, migrate_force: false })
        }
        Message::Insert(insert) => Write::Insert(write::MessageInsert { record: insert.record }),
        Message::DeleteRecord(delete) => Write::DeleteRecord(write::MessageDeleteRecord {
            table_name: delete.table_name,
            where_clause: delete.where_clause,
            table_relations: delete.table_relations,
        }),
        other => panic!("nothing that is written: {other:?}"),
    };
    write::Request { message: Some(message) }
}

fn dump(db: &Connection, table: &str, columns: &str) -> Vec<String> {
    let quoted: Vec<String> = columns.split(' ').map(|column| format!("quote({column})")).collect();
    let sql = format!("SELECT {} FROM \"{table}\" ORDER BY 1", quoted.join(" || ' ' || "));
    let mut statement = db.prepare(&sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Inserted rows and deletions.
fn counted(messages: &[Message]) -> (usize, usize) {
    let inserted = messages.iter().map(|message| match message {
        Message::Insert(insert) => {
            ipc::decode_records(&insert.record).unwrap().1.iter().map(|batch| batch.num_rows()).sum()
        }
        _ => 0,
    });
    let deleted = messages.iter().filter(|message| matches!(message, Message::DeleteRecord(_)));
    (inserted.sum(), deleted.count())
}

const SHAPES: &str = "
    CREATE TABLE plain(id INTEGER PRIMARY KEY, name TEXT, price REAL, photo BLOB, ok BOOLEAN);
    CREATE TABLE pairs(a TEXT, b INTEGER, v TEXT, PRIMARY KEY(b, a));
    CREATE TABLE tight(k TEXT PRIMARY KEY, v TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE bare(v TEXT);
    CREATE TABLE nulls(k TEXT PRIMARY KEY, v INTEGER);
    CREATE TABLE cased(k TEXT COLLATE NOCASE PRIMARY KEY, v TEXT);
    INSERT INTO plain VALUES (1, 'ann', 0.1, x'00ff', 1), (2, NULL, -1e300, zeroblob(3), 0),
      (9223372036854775807, '', NULL, NULL, NULL), (-9223372036854775808, 'é', 9e999, x'', 1);
    INSERT INTO pairs VALUES ('x', 1, 'one'), ('y', 1, 'two'), ('x', 2, 'three');
    INSERT INTO tight VALUES ('a', 'b'), ('', 'c');
    INSERT INTO bare VALUES ('same'), ('same'), (NULL);
    INSERT INTO nulls VALUES (NULL, 1), (NULL, 1), (NULL, 2), ('k', 3);
    INSERT INTO cased VALUES ('ann', 'x'), ('bob', 'y');";

const TABLES: [(&str, &str); 6] = [
    ("plain", "id name price photo ok"),
    ("pairs", "a b v"),
    ("tight", "k v"),
    ("bare", "v"),
    ("nulls", "k v"),
    ("cased", "k v"),
];

#[tokio::test]
async fn a_sync_of_everything_installs_nothing_and_leaves_the_destination_equal() {
    for deterministic_cq_id in [false, true] {
        // Pages of two rows: each seam is met.
        let mut pair = Pair::new(SHAPES, json!({ "batch_size": 2 })).await;
        let before = dump(&pair.app, "sqlite_schema", "type name sql");
        let request = sync::Request { deterministic_cq_id, ..everything() };
        let messages = pair.sync(request.clone()).await;
        assert_eq!(counted(&messages), (18, 0));
        let first_row = messages.iter().position(|message| matches!(message, Message::Insert(_))).unwrap();
        assert!(messages[..first_row].iter().all(|message| matches!(message, Message::MigrateTable(_))));
        assert_eq!(first_row, 6, "every table before any row");
        for (table, columns) in TABLES {
            pair.assert_equal(table, columns);
        }
        assert_eq!(dump(&pair.app, "sqlite_schema", "type name sql"), before);
        if deterministic_cq_id {
            pair.sync(request).await;
            for (table, columns) in TABLES {
                pair.assert_equal(table, columns);
            }
        }
    }
}

#[tokio::test]
async fn tables_are_chosen_by_patterns_as_clients_write_them() {
    let mut pair = Pair::new(SHAPES, json!({})).await;
    let mut names = async |tables: &[&str], skip: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let request = get_tables::Request { tables: owned(tables), skip_tables: owned(skip), ..Default::default() };
        let found = pair.from.get_tables(request).await.map(|found| found.into_inner().tables);
        found.map(|found| found.iter().map(|table| ipc::decode_table(table).unwrap().name).collect::<Vec<_>>())
    };
    assert_eq!(names(&["*"], &["p*", "cased"]).await.unwrap(), ["bare", "nulls", "tight"]);
    assert!(names(&["nothing"], &[]).await.unwrap_err().message().contains("nothing"));
    let none = said(&mut pair.from, sync::Request::default()).await;
    assert!(none.unwrap_err().message().contains("no tables specified for syncing"));
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_refused_named_converted_or_left_out() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, s TEXT); INSERT INTO t VALUES (1, 5, 'x'), (7, 'secret', 'y');
               UPDATE t SET s = x'00ff' WHERE id = 1";
    let mut pair = Pair::new(ddl, json!({})).await;
    let error = said(&mut pair.from, everything()).await.unwrap_err();
    let shown = error.message();
    assert!(shown.contains("table \"t\", key (1): column \"s\" holds a blob"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let mut null = Pair::new(ddl, json!({ "on_type_mismatch": "null" })).await;
    null.sync(everything()).await;
    assert_eq!(dump(&open_reader(&null.place.replica()), "t", "id n s"), ["1 5 NULL", "7 NULL 'y'"]);
    null.run("UPDATE t SET n = 1");
    let mut text = Pair::new(ddl, json!({ "on_type_mismatch": "text" })).await;
    text.run("UPDATE t SET n = 1");
    text.sync(everything()).await;
    assert_eq!(dump(&open_reader(&text.place.replica()), "t", "id n s"), ["1 1 'AP8='", "7 1 'y'"]);
}

/// What happens between two syncs: each kind of change, of each kind of key.
const CHANGES: &str = "
    UPDATE plain SET name = 'anna' WHERE id = 1; DELETE FROM plain WHERE id = 2; UPDATE plain SET id = 77 WHERE id = 1;
    DELETE FROM pairs WHERE a = 'y'; UPDATE pairs SET a = 'z' WHERE b = 2; INSERT OR REPLACE INTO pairs VALUES ('x', 1, 'new');
    DELETE FROM tight WHERE k = ''; INSERT INTO tight VALUES ('n', 'm');
    DELETE FROM bare WHERE rowid = 1; INSERT INTO bare VALUES ('more');
    DELETE FROM nulls WHERE k IS NULL AND v = 2; INSERT INTO nulls VALUES (NULL, 9); DELETE FROM nulls WHERE k = 'k';
    UPDATE cased SET k = 'ANN', v = 'z' WHERE k = 'ann'; INSERT OR REPLACE INTO cased VALUES ('BOB', 'w');";

#[tokio::test]
async fn a_sync_of_changes_sends_just_those_with_deletions_wherever_its_state_is() {
    for in_backend in [false, true] {
        let mut pair = Pair::new(SHAPES, json!({ "cdc": !in_backend, "batch_size": 2 })).await;
        let request = if in_backend { pair.backend() } else { everything() };
        assert_eq!(counted(&pair.sync(request.clone()).await).0, 18, "everything at first");
        assert_eq!(counted(&pair.sync(request.clone()).await), (0, 0), "nothing since");
        pair.run(CHANGES);
        let (inserted, deleted) = counted(&pair.sync(request.clone()).await);
        assert!(inserted <= 14 && deleted >= 7, "{inserted} rows, {deleted} deletions: not everything");
        for (table, columns) in TABLES {
            pair.assert_equal(table, columns);
        }
        assert_eq!(counted(&pair.sync(request).await), (0, 0));
    }
}

#[tokio::test]
async fn a_state_that_the_log_does_not_reach_back_to_begins_anew_without_stale_rows() {
    let mut pair = Pair::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        json!({ "cdc": true }),
    )
    .await;
    pair.sync(everything()).await;
    pair.run("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 'c'); UPDATE __cdc_consumers SET cut_off = 1");
    assert_eq!(counted(&pair.sync(everything()).await), (2, 1));
    pair.assert_equal("t", "id v");
    let epoch = "UPDATE __cdc_meta SET value = 4711 WHERE key = 'epoch'; DELETE FROM t WHERE id = 2";
    pair.run(epoch);
    assert_eq!(counted(&pair.sync(everything()).await), (1, 1));
    pair.assert_equal("t", "id v");
}

#[tokio::test]
async fn a_table_that_was_left_out_of_a_sync_comes_back_without_stale_rows() {
    let ddl = "CREATE TABLE a(id INTEGER PRIMARY KEY); CREATE TABLE b(id INTEGER PRIMARY KEY); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1), (2)";
    let mut pair = Pair::new(ddl, json!({ "cdc": true })).await;
    pair.sync(everything()).await;
    pair.run("DELETE FROM b WHERE id = 1");
    pair.sync(sync::Request { tables: vec!["a".to_owned()], ..sync::Request::default() }).await;
    pair.sync(everything()).await;
    pair.assert_equal("b", "id");
}

#[tokio::test]
async fn a_column_with_a_default_is_sent_for_every_row() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)";
    let mut pair = Pair::new(ddl, json!({ "cdc": true })).await;
    pair.sync(everything()).await;
    pair.run("ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'x'; INSERT INTO t(id) VALUES (3)");
    pair.sync(everything()).await;
    pair.assert_equal("t", "id c");
}

/// The destination lost what it was sent: the state was not moved, so the next sync says it again.
#[tokio::test]
async fn what_a_failed_sync_sent_is_sent_again() {
    let mut pair = Pair::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO t VALUES (1, 1)",
        json!({ "cdc": true }),
    )
    .await;
    pair.sync(everything()).await;
    pair.run("UPDATE t SET v = 2; INSERT INTO t VALUES (2, 'no number')");
    said(&mut pair.from, everything()).await.expect_err("a mismatch");
    pair.run("UPDATE t SET v = 3 WHERE id = 2");
    pair.sync(everything()).await;
    pair.assert_equal("t", "id v");
}

/// A sync that began anew and failed had noted that everything was said: what it had not come to was never sent.
#[tokio::test]
async fn a_sync_that_begins_anew_and_fails_begins_anew_again() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO t VALUES (1, 1), (2, 2)";
    let mut pair = Pair::new(ddl, json!({ "cdc": true })).await;
    pair.sync(everything()).await;
    pair.run(
        "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 'no number'); UPDATE __cdc_consumers SET cut_off = 1",
    );
    said(&mut pair.from, everything()).await.expect_err("a mismatch");
    pair.run("UPDATE t SET v = 3 WHERE id = 3");
    pair.sync(everything()).await;
    pair.assert_equal("t", "id v");
}

/// The state was lost, the rows were not: those that are gone here have to go there.
#[tokio::test]
async fn a_state_that_was_lost_leaves_no_stale_rows() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO t VALUES (1, 1), (2, 2)";
    for syncs in [1, 2] {
        let mut pair = Pair::new(ddl, json!({})).await;
        for _ in 0..syncs {
            pair.sync(pair.backend()).await;
        }
        open(&pair.place.replica()).execute_batch("DELETE FROM state").unwrap();
        pair.run("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 3)");
        pair.sync(pair.backend()).await;
        pair.assert_equal("t", "id v");
    }
}

/// Retention removes what a consumer has not read when the log is too large or too old: the entries are gone.
#[tokio::test]
async fn a_history_that_is_gone_is_made_up_for_wherever_the_state_is() {
    for in_backend in [false, true] {
        let mut pair = Pair::new(SHAPES, json!({ "cdc": !in_backend, "batch_size": 2 })).await;
        let request = if in_backend { pair.backend() } else { everything() };
        pair.sync(request.clone()).await;
        pair.run(CHANGES);
        pair.run("DELETE FROM __cdc_log WHERE seq < (SELECT max(seq) FROM __cdc_log)");
        pair.sync(request.clone()).await;
        for (table, columns) in TABLES {
            pair.assert_equal(table, columns);
        }
        assert_eq!(counted(&pair.sync(request).await), (0, 0), "and only once");
    }
}

#[tokio::test]
async fn a_schema_that_changed_between_two_syncs_is_followed() {
    let ddl = "CREATE TABLE kept(id INTEGER PRIMARY KEY, a TEXT, b TEXT); CREATE TABLE renamed(id INTEGER PRIMARY KEY);
               CREATE TABLE anew(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE dropped(id INTEGER PRIMARY KEY);
               INSERT INTO kept VALUES (1, 'a', 'b'), (2, 'c', 'd'); INSERT INTO renamed VALUES (1), (2);
               INSERT INTO anew VALUES (1, 'x'), (2, 'y'); INSERT INTO dropped VALUES (1)";
    for in_backend in [false, true] {
        let mut pair = Pair::new(ddl, json!({ "cdc": !in_backend })).await;
        let request = if in_backend { pair.backend() } else { everything() };
        pair.sync(request.clone()).await;
        pair.run("DELETE FROM kept WHERE id = 2; ALTER TABLE kept DROP COLUMN b; UPDATE kept SET a = 'z'; DROP TABLE dropped");
        pair.run("ALTER TABLE renamed RENAME TO moved; DELETE FROM moved WHERE id = 1; CREATE TABLE late(k TEXT PRIMARY KEY); INSERT INTO late VALUES ('l')");
        pair.run("DROP TABLE anew; CREATE TABLE anew(id INTEGER PRIMARY KEY, v TEXT, w TEXT); INSERT INTO anew VALUES (2, 'n', NULL)");
        let messages = pair.sync(request.clone()).await;
        let migrated = messages.iter().filter(|message| matches!(message, Message::MigrateTable(_))).count();
        assert_eq!(migrated, 4, "each table that is there: {messages:?}");
        for (table, columns) in [("kept", "id a"), ("moved", "id"), ("late", "k"), ("anew", "id v w")] {
            pair.assert_equal(table, columns);
        }
        let there = open_reader(&pair.place.replica());
        assert_eq!(dump(&there, "dropped", "id"), ["1"], "nothing says that a table is to go");
        assert_eq!(counted(&pair.sync(request).await), (0, 0));
    }
}
