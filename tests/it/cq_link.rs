//! A node's link into a CloudQuery destination: `twinlite run` with `cloudquery` in place of `peer`, and a
//! `twinlite serve` that is the destination. What is in both is compared by SQL.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::json;

use crate::support::cq::{Serve, init, insert, migrate, rows, table, write};
use crate::support::process::{Process, free_port, status};
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
    let error = until("the link to halt", || {
        let link = status(&lake.place.source())["links"][0].clone();
        if link["state"] == "halted" { Ok(link["last_error"].clone()) } else { Err(link.to_string()) }
    });
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
