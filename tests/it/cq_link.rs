//! A node's link into a CloudQuery destination: `twinlite run` with `cloudquery` in place of `peer`, and a
//! `twinlite serve` that is the destination. What is in both is compared by SQL.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::cq::{Serve, init, insert, migrate, rows, table, write};
use crate::support::plugin::{Fake, Script};
use crate::support::process::{Process, expect_code, expect_failure, free_port, status};
use crate::support::wait::until;
use crate::support::{Place, open, open_reader};

const SHAPES: &str = "
    CREATE TABLE plain(id INTEGER PRIMARY KEY, name TEXT, price REAL, photo BLOB);
    CREATE TABLE pairs(a TEXT, b INTEGER, v TEXT, PRIMARY KEY(b, a)) WITHOUT ROWID;
    CREATE TABLE bare(v TEXT);
    CREATE TABLE nulls(k TEXT PRIMARY KEY, v INTEGER);
    CREATE TABLE cased(k TEXT COLLATE NOCASE PRIMARY KEY, v TEXT);
    INSERT INTO plain VALUES (1, 'ann', 0.1, x'00ff'), (2, NULL, -1e300, x''), (9223372036854775807, '', 9e999, NULL);
    INSERT INTO pairs VALUES ('x', 1, 'one'), ('y', 1, 'two'), ('x', 2, 'three');
    INSERT INTO bare VALUES ('same'), ('same'), (NULL);
    INSERT INTO nulls VALUES (NULL, 1), (NULL, 1), (NULL, 2), ('k', 3);
    INSERT INTO cased VALUES ('ann', 'x'), ('bob', 'y');";

const CHANGES: &str = "
    BEGIN; UPDATE plain SET name = 'anna' WHERE id = 1; DELETE FROM plain WHERE id = 2; UPDATE plain SET id = 77 WHERE id = 1; COMMIT;
    BEGIN; DELETE FROM pairs WHERE a = 'y'; UPDATE pairs SET a = 'z' WHERE b = 2; INSERT OR REPLACE INTO pairs VALUES ('x', 1, 'new'); COMMIT;
    DELETE FROM bare WHERE rowid = 1; INSERT INTO bare VALUES ('more');
    DELETE FROM nulls WHERE k IS NULL AND v = 2; INSERT INTO nulls VALUES (NULL, 9);
    UPDATE cased SET k = 'ANN', v = 'z' WHERE k = 'ann'; INSERT OR REPLACE INTO cased VALUES ('BOB', 'w');";

const TABLES: [(&str, &str); 5] =
    [("plain", "id name price photo"), ("pairs", "a b v"), ("bare", "v"), ("nulls", "k v"), ("cased", "k v")];

/// A node's database and what its link leads to.
struct Lake {
    place: Place,
    port: u16,
    app: Connection,
}

/// Waits until the link of that database's node has halted; returns its error.
#[track_caller]
fn until_halted(database: &Path) -> Value {
    until("the link to halt", || {
        let link = status(database)["links"][0].clone();
        if link["state"] == "halted" { Ok(link["last_error"].clone()) } else { Err(link.to_string()) }
    })
}

impl Lake {
    fn new(ddl: &str) -> Self {
        let place = Place::new();
        let app = open(&place.source());
        app.execute_batch(ddl).unwrap();
        Self { place, port: free_port(), app }
    }

    fn serve(&self) -> Serve {
        Serve::start(&["--address", &format!("127.0.0.1:{}", self.port)])
    }

    /// The node's configuration, with more keys of the link and of the node.
    fn config(&self, link: &str, node: &str) -> PathBuf {
        let path = self.place.file("node.yaml");
        let text = format!(
            "name: node\nspec: {{ connection_string: {} }}\nsnapshot_rows: 2\n{node}links:\n  - name: lake\n    cloudquery: 127.0.0.1:{}\n    \
             spec: {{ connection_string: {} }}\n{link}",
            self.place.source().display(),
            self.port,
            self.place.replica().display(),
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    #[track_caller]
    fn until_equal(&self, tables: &[(&str, &str)]) {
        until("the destination to be equal", || {
            for (table, columns) in tables {
                let (here, there) =
                    (dump(&self.place.source(), table, columns), dump(&self.place.replica(), table, columns));
                if here != there {
                    return Err(format!("{table}: {there:?}, not {here:?}"));
                }
            }
            Ok(())
        });
    }
}

fn dump(path: &Path, table: &str, columns: &str) -> Result<Vec<String>, String> {
    let quoted: Vec<String> = columns.split(' ').map(|column| format!("quote({column})")).collect();
    let sql = format!("SELECT {} FROM \"{table}\" ORDER BY 1", quoted.join(" || ' ' || "));
    if !path.exists() {
        return Err("no file".to_owned());
    }
    let db = open_reader(path);
    let text = |error: rusqlite::Error| error.to_string();
    let mut statement = db.prepare(&sql).map_err(text)?;
    statement.query_map([], |row| row.get(0)).map_err(text)?.collect::<Result<_, _>>().map_err(text)
}

#[test]
fn a_destination_is_copied_to_and_follows_every_kind_of_change() {
    let lake = Lake::new(SHAPES);
    let _destination = lake.serve();
    let node = Process::run(&lake.config("", ""), &[]);
    lake.until_equal(&TABLES);
    lake.run(CHANGES);
    lake.until_equal(&TABLES);
    lake.run("ALTER TABLE bare ADD COLUMN w TEXT DEFAULT 'd'; CREATE TABLE late(id INTEGER PRIMARY KEY); INSERT INTO late VALUES (5)");
    lake.until_equal(&[("bare", "v w"), ("late", "id")]);
    let report = status(&lake.place.source());
    assert_eq!(report["links"][0]["name"], "lake");
    assert_eq!(report["links"][0]["state"], "live", "{report:#}");
    node.stop();
}

/// Killed wherever a window can be cut, the node says again what it did not note, and nothing else changes.
#[test]
fn a_node_that_is_killed_in_a_window_goes_on_without_loss() {
    for failpoint in [
        "capture_after_read=2",
        "snapshot_after_range_read=3",
        "link_after_send=3",
        "sender_before_ack=4",
        "sender_before_ack=1",
    ] {
        let lake = Lake::new(SHAPES);
        let _destination = lake.serve();
        let config = lake.config("", "");
        let mut node = Process::run(&config, &[("TWINLITE_FAILPOINT", failpoint)]);
        node.wait();
        lake.run(CHANGES);
        let node = Process::run(&config, &[]);
        lake.until_equal(&TABLES);
        node.stop();
    }
}

#[test]
fn a_destination_that_is_killed_is_waited_for_and_misses_nothing() {
    let lake = Lake::new(SHAPES);
    let destination = lake.serve();
    let node = Process::run(&lake.config("", ""), &[]);
    lake.until_equal(&TABLES);
    drop(destination);
    lake.run(CHANGES);
    let _destination = lake.serve();
    lake.until_equal(&TABLES);
    node.stop();
}

#[test]
fn a_log_that_was_cut_off_is_made_up_for_without_stale_rows() {
    let lake = Lake::new(SHAPES);
    let _destination = lake.serve();
    let config = lake.config("", "");
    let node = Process::run(&config, &[]);
    lake.until_equal(&TABLES);
    node.stop();
    lake.run(CHANGES);
    lake.run("UPDATE __cdc_consumers SET cut_off = 1");
    let node = Process::run(&config, &[]);
    lake.until_equal(&TABLES);
    node.stop();
}

#[test]
fn a_value_that_does_not_fit_halts_the_link_until_it_does() {
    let lake = Lake::new("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 5)");
    let _destination = lake.serve();
    let node = Process::run(&lake.config("", ""), &[]);
    lake.until_equal(&[("t", "id n")]);
    lake.run("INSERT INTO t VALUES (7, 'secret')");
    let error = until_halted(&lake.place.source());
    assert_eq!(error["code"], "type_mismatch");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("\"t\", key (7): column \"n\"") && !message.contains("secret"), "{message}");
    lake.run("UPDATE t SET n = 9 WHERE id = 7");
    lake.until_equal(&[("t", "id n")]);
    node.stop();
}

/// Issue 4, item 8: what a CloudQuery source writes into a node's database is captured, and goes on like any write.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_writes_into_a_node_goes_on_to_its_links() {
    let lake = Lake::new("CREATE TABLE own(id INTEGER PRIMARY KEY)");
    let _destination = lake.serve();
    let listen = format!("127.0.0.1:{}", free_port());
    let node = Process::run(&lake.config("", &format!("cloudquery: {{ listen: '{listen}' }}\n")), &[]);
    until("the node to listen", || std::net::TcpStream::connect(&listen).map_err(|error| error.to_string()));
    let channel = tonic::transport::Endpoint::new(format!("http://{listen}")).unwrap().connect().await.unwrap();
    let mut client = twinlite::cloudquery::proto::plugin::plugin_client::PluginClient::new(channel);
    let other = init(&mut client, &json!({ "connection_string": lake.place.file("other.db") })).await;
    assert!(other.unwrap_err().message().contains("its own database"));
    init(&mut client, &json!(null)).await.unwrap();
    write(&mut client, vec![migrate(&table("t")), insert(&rows("t", &[1, 2, 3]))]).await.unwrap();
    tokio::task::block_in_place(|| lake.until_equal(&[("t", "id name")]));
    assert_eq!(dump(&lake.place.replica(), "t", "id").unwrap(), ["1", "2", "3"]);
    node.stop();
}

/// Killed between any two of its commits, with the window's messages half taken.
#[test]
fn a_destination_that_is_killed_in_a_window_is_sent_it_again() {
    // Batches of one row: a window of a few rows is a few transactions there, and a kill falls between them.
    let lake = Lake::new(SHAPES);
    lake.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO bare SELECT 'row ' || i FROM n");
    let destination = lake.serve();
    let config = lake.config("", "");
    let spec = format!("spec: {{ connection_string: {}, ", lake.place.replica().display());
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace(spec.trim_end_matches(", "), &format!("{spec}batch_size: 1"));
    std::fs::write(&config, text.replace("snapshot_rows: 2", "snapshot_rows: 5000")).unwrap();
    let node = Process::run(&config, &[]);
    let held = || dump(&lake.place.replica(), "bare", "v").map_or(0, |rows| rows.len());
    until("the copy to begin", || if held() > 10 { Ok(()) } else { Err(format!("{} rows", held())) });
    drop(destination);
    let before = held();
    let destination = lake.serve();
    until("the copy to go on", || if held() > before + 10 { Ok(()) } else { Err(format!("{} rows", held())) });
    lake.run("UPDATE bare SET v = v || '!'");
    drop(destination);
    lake.run(CHANGES);
    let _destination = lake.serve();
    lake.until_equal(&TABLES);
    node.stop();
}

/// A plugin of before WriteStream: one Write a window, and its end is what says that it is committed.
#[test]
fn a_plugin_that_cannot_flush_gets_a_write_for_each_window() {
    let place = Place::new();
    let app = open(&place.source());
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        .unwrap();
    let plugin = Fake::start(Script::new());
    let path = node_of(&place, &plugin.address, "migrate_mode: forced");
    let node = Process::run(&path, &[]);
    plugin.until("the copy", |_| {
        let said = plugin.said();
        (said.contains(&"insert t 2".to_owned()) && said.last()? == "end").then_some(())
    });
    let copied = plugin.said().len();
    app.execute_batch("BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 'c'); COMMIT").unwrap();
    plugin.until("the changes", |_| (plugin.said().len() >= copied + 3).then_some(()));
    assert_eq!(plugin.said()[copied..], ["delete t", "insert t 1", "end"]);
    node.stop();
    // Killed before the position is noted, it says again what it said, in a Write of its own.
    let mut node = Process::run(&path, &[("TWINLITE_FAILPOINT", "sender_before_ack=1")]);
    app.execute_batch("DELETE FROM t WHERE id = 2").unwrap();
    node.wait();
    let before = plugin.said().len();
    let node = Process::run(&path, &[]);
    plugin.until("the deletion again", |_| plugin.said()[before..].contains(&"delete t".to_owned()).then_some(()));
    node.stop();
}

/// What a plugin could not commit is an error with its words, and the window is said again.
#[test]
fn a_flush_that_failed_halts_the_link_and_loses_nothing() {
    let place = Place::new();
    let app = open(&place.source());
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)").unwrap();
    let flush_fails = Some((1, "disk full".to_owned(), vec!["t".to_owned()]));
    let plugin = Fake::start(Script { supports_flush: true, flush_fails, ..Script::new() });
    let node = Process::run(&node_of(&place, &plugin.address, ""), &[]);
    let error = until_halted(&place.source());
    assert!(error["message"].as_str().unwrap().contains("not committed: disk full (tables t)"), "{error}");
    plugin.until("another try", |_| {
        let said = plugin.said();
        (said.iter().filter(|call| call.starts_with("init")).count() > 1
            && said.iter().filter(|call| *call == "flush 1").count() > 1)
            .then_some(())
    });
    node.stop();
}

/// A destination that takes nothing does not keep a node from ending.
#[test]
fn a_destination_that_hangs_does_not_hang_the_node() {
    let place = Place::new();
    open(&place.source()).execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)").unwrap();
    let gate = Some(std::sync::Arc::default());
    for supports_flush in [false, true] {
        let plugin = Fake::start(Script { gate: gate.clone(), supports_flush, ..Script::new() });
        let mut node = Process::run(&node_of(&place, &plugin.address, ""), &[]);
        until("the link to connect", || {
            let link = status(&place.source())["links"][0].clone();
            if link["connected"] == true { Ok(()) } else { Err(link.to_string()) }
        });
        node.signal(rustix::process::Signal::TERM);
        node.wait();
    }
}

fn node_of(place: &Place, address: &str, link: &str) -> PathBuf {
    let path = place.file("node.yaml");
    let text = format!(
        "name: node\ngrace: 1s\nspec: {{ connection_string: {} }}\nlinks:\n  - name: lake\n    cloudquery: '{address}'\n    {link}\n",
        place.source().display(),
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A forced migration makes a table anew, so what it held has to be sent again: of a table whose rows are there already
/// the link asks for nothing but what keeps them.
#[test]
fn a_forced_migration_never_leaves_a_table_short_of_rows() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, w TEXT); CREATE TABLE u(id INTEGER PRIMARY KEY);
               INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', NULL); INSERT INTO u VALUES (1), (2)";
    let lake = Lake::new(ddl);
    // Something else has the name there.
    open(&lake.place.replica())
        .execute_batch("CREATE TABLE t(other BLOB NOT NULL); INSERT INTO t VALUES (x'00')")
        .unwrap();
    let _destination = lake.serve();
    let config = lake.config("    migrate_mode: forced\n", "");
    let node = Process::run(&config, &[]);
    lake.until_equal(&[("t", "id v w"), ("u", "id")]);
    // Each of them is a new table there.
    lake.run("ALTER TABLE t RENAME TO old; CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, w TEXT); INSERT INTO t SELECT id, id, w FROM old; DROP TABLE old");
    lake.until_equal(&[("t", "id v w")]);
    lake.run("ALTER TABLE t ADD COLUMN n TEXT NOT NULL DEFAULT 'd'");
    lake.until_equal(&[("t", "id v w n")]);
    lake.run("ALTER TABLE t DROP COLUMN w");
    lake.until_equal(&[("t", "id v n")]);
    node.stop();
    // While the node is down somebody changes the table there. Made anew, it would miss every row that does not change.
    open(&lake.place.replica())
        .execute_batch("DROP TABLE u; CREATE TABLE u(id TEXT, more TEXT); INSERT INTO u VALUES ('1', 'x'), ('2', 'y')")
        .unwrap();
    let node = Process::run(&config, &[]);
    let error = until_halted(&lake.place.source());
    assert!(error["message"].as_str().unwrap().contains("migrate"), "{error}");
    assert_eq!(dump(&lake.place.replica(), "u", "more").unwrap(), ["'x'", "'y'"], "it is left as it was");
    expect_code(0, &["resync".as_ref(), "u".as_ref(), "--db".as_ref(), lake.place.source().as_os_str()]);
    lake.until_equal(&[("u", "id")]);
    node.stop();
}

/// A destination that was emptied behind the link's back is filled again by `resync`.
#[test]
fn a_resync_makes_up_for_what_the_destination_lost() {
    let lake = Lake::new(SHAPES);
    let destination = lake.serve();
    let config = lake.config("", "");
    let node = Process::run(&config, &[]);
    lake.until_equal(&TABLES);
    node.stop();
    drop(destination);
    std::fs::remove_file(lake.place.replica()).unwrap();
    let _destination = lake.serve();
    let node = Process::run(&config, &[]);
    expect_code(0, &["resync".as_ref(), "--db".as_ref(), lake.place.source().as_os_str()]);
    lake.until_equal(&TABLES);
    node.stop();
}

#[test]
fn a_value_that_does_not_fit_becomes_text_or_null_where_the_link_says_so() {
    for (policy, wanted) in [("text", "1 5 'AP8='"), ("'null'", "1 5 NULL")] {
        let lake = Lake::new(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, s TEXT); INSERT INTO t VALUES (1, 5, x'00ff')",
        );
        let _destination = lake.serve();
        let node = Process::run(&lake.config(&format!("    on_type_mismatch: {policy}\n"), ""), &[]);
        let is = |wanted: &[&str]| {
            until("the value as the policy has it", || match dump(&lake.place.replica(), "t", "id n s") {
                Ok(found) if found == wanted => Ok(()),
                found => Err(format!("{found:?}")),
            });
        };
        is(&[wanted]);
        lake.run("INSERT INTO t VALUES (2, 6, x'00ff')");
        is(&[wanted, &wanted.replace("1 5", "2 6")]);
        node.stop();
    }
}

/// No plugin takes a message above 200 MiB, and a row is not cut.
#[test]
fn a_row_that_fits_no_message_is_refused_by_its_table() {
    let lake = Lake::new("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB); INSERT INTO t VALUES (1, x'00')");
    let _destination = lake.serve();
    let node = Process::run(&lake.config("", ""), &[]);
    lake.until_equal(&[("t", "id b")]);
    lake.run("INSERT INTO t VALUES (2, zeroblob(201 << 20))");
    let error = until_halted(&lake.place.source());
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("table \"t\": a record of 1 row(s) takes 210"), "{message}");
    // The source says the same.
    let spec = lake.place.file("spec.yaml");
    let text = format!(
        "kind: source\nspec: {{ name: s, registry: embedded, tables: ['*'], destinations: [d], spec: {{ connection_string: {} }} }}\n---\n\
         kind: destination\nspec: {{ name: d, registry: embedded, spec: {{ connection_string: {} }} }}\n",
        lake.place.source().display(),
        lake.place.file("other.db").display()
    );
    std::fs::write(&spec, text).unwrap();
    let said = expect_failure(1, &["sync".as_ref(), spec.as_os_str()]);
    assert!(said.contains("larger than a message may be"), "{said}");
    lake.run("UPDATE t SET b = x'01' WHERE id = 2");
    lake.until_equal(&[("t", "id b")]);
    node.stop();
}
