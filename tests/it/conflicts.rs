//! Two nodes that both take writes, as two processes: what lost is recorded, looked up and settled by the commands.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    nodes::{Nodes, Settings},
    open, open_reader,
    process::{Process, expect_code, expect_failure, status},
    wait::until,
};

const TABLES: &str = "CREATE TABLE items(id INTEGER PRIMARY KEY, v);
    CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, photo BLOB);
    INSERT INTO items VALUES (1, 'one'), (2, 'two'), (3, 'three');";

/// Two nodes that hold what `ddl` makes, and do not run. `link`: lines for each link, indented by four spaces.
fn apart(ddl: &str, link: &str) -> Nodes {
    let mut both = Nodes::running(2, ddl, &Settings { link: link.to_owned(), ..Settings::default() });
    both.assert_equal();
    both.stop();
    both
}

/// Starts both, and waits until they are connected and equal.
#[track_caller]
fn join(both: &mut Nodes) {
    both.start();
    both.await_links();
    both.assert_equal();
}

fn databases(both: &Nodes) -> [PathBuf; 2] {
    [0, 1].map(|node| both.nodes[node].database.clone())
}

fn text(path: &Path, sql: &str) -> String {
    open_reader(path).query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| format!("{error}"))
}

/// Waits until a change made now is later than every one before it: versions count milliseconds.
fn later() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let before = now();
    until("a later time", || (now() > before + 1).then_some(()).ok_or_else(String::new));
}

fn run(path: &Path, sql: &str) {
    let conn: Connection = open(path);
    conn.execute_batch(sql).unwrap();
}

fn command<'a>(path: &'a Path, words: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["conflicts"];
    all.extend(words);
    all.extend(["--db", path.to_str().unwrap()]);
    all
}

/// What is recorded, as programs read it.
fn list(path: &Path) -> Vec<Value> {
    let mut words = command(path, &["list"]);
    words.extend(["-o", "json"]);
    serde_json::from_str(&expect_code(0, &words)).unwrap()
}

/// The one record of a table's key at whichever node has it, or at both: its database, and the record.
#[track_caller]
fn record(both: &Nodes, table: &str, key: i64) -> (PathBuf, Value) {
    let of = |path: PathBuf| {
        let all = list(&path).into_iter().filter(|found| found["table"] == table && found["key"][0]["value"] == key);
        all.map(move |found| (path.clone(), found)).collect::<Vec<_>>()
    };
    let [a, b] = databases(both).map(of);
    assert!(a.len() <= 1 && b.len() <= 1 && a.len() + b.len() > 0, "{table} {key}: {a:?} {b:?}");
    a.into_iter().chain(b).next().unwrap()
}

fn id(found: &Value) -> String {
    found["id"].to_string()
}

#[test]
fn what_lost_is_recorded_once_and_wins_when_somebody_says_so() {
    let mut both = apart(TABLES, "");
    let [a, b] = databases(&both);
    run(
        &a,
        "UPDATE items SET v = 'by a' WHERE id = 1; DELETE FROM items WHERE id = 2; UPDATE items SET v = 'kept' WHERE id = 3",
    );
    run(&a, "INSERT INTO items VALUES (10, 'a''s'), (11, 'same'); INSERT INTO items VALUES (12, 'only a')");
    later();
    run(
        &b,
        "UPDATE items SET v = 'by b' WHERE id = 1; UPDATE items SET v = 'alive' WHERE id = 2; DELETE FROM items WHERE id = 3",
    );
    run(&b, "INSERT INTO items VALUES (10, 'b''s'), (11, 'same')");
    join(&mut both);
    let keys: BTreeSet<i64> =
        [&a, &b].iter().flat_map(|path| list(path)).map(|found| found["key"][0]["value"].as_i64().unwrap()).collect();
    assert_eq!(keys, BTreeSet::from([1, 2, 3, 10]), "equal rows and a row of one side alone are no conflict");
    let rows = "SELECT group_concat(id || '=' || v, ' ') FROM items";
    assert_eq!(text(&a, rows), "1=by b 2=alive 10=b's 11=same 12=only a", "the later change wins");
    for (key, lost) in [(1, "row"), (2, "deletion"), (3, "row"), (10, "row")] {
        let (path, found) = record(&both, "items", key);
        assert_eq!((&found["lost"], &found["why"]), (&Value::from(lost), &Value::from("concurrent")), "{key}");
        assert_eq!(found["winner"], if path == a { "incoming" } else { "local" }, "{key}");
        assert_eq!(found["peer"]["name"], if path == a { "b" } else { "a" });
    }
    settled_beside_an_owner(&mut both);
    both.stop();
    let (path, found) = record(&both, "items", 10);
    expect_code(0, &command(&path, &["apply", &id(&found)]));
    assert!(list(&path).iter().all(|left| left["id"] != found["id"]));
    join(&mut both);
    for path in [&a, &b] {
        assert_eq!(text(path, "SELECT v FROM items WHERE id = 10"), "a's", "written without an owner");
    }
}

fn settled_beside_an_owner(both: &mut Nodes) {
    let (path, found) = record(both, "items", 1);
    let before = list(&path).len();
    assert_eq!(status(&path)["conflicts"], before);
    let person = expect_code(0, &["status", "--db", path.to_str().unwrap()]);
    assert!(person.contains("conflicts recorded") && person.contains("twinlite conflicts list --db"), "{person}");
    let shown = expect_code(0, &command(&path, &["show", &id(&found)]));
    assert!(shown.contains("what lost:") && shown.contains("'by a'") && shown.contains("last_write_wins"), "{shown}");
    let table = expect_code(0, &command(&path, &["list"]));
    assert!(table.starts_with("id ") && table.contains("items") && table.contains("(1)"), "{table}");
    for key in [1, 2, 3] {
        let (path, found) = record(both, "items", key);
        let said = expect_code(0, &command(&path, &["apply", &id(&found)]));
        assert!(said.contains(&format!("key ({key})")), "{said}");
        both.assert_equal();
        let said = expect_failure(2, &command(&path, &["apply", &id(&found)]));
        assert!(said.contains("there is no conflict"), "{said}");
    }
    let rows = "SELECT group_concat(id || '=' || v, ' ') FROM items WHERE id < 10";
    assert_eq!(text(&both.nodes[1].database, rows), "1=by a 3=kept");
    assert_eq!(status(&path)["conflicts"], list(&path).len(), "the owner counts what is left");
    let warned: String = both.nodes.iter().map(|node| node.process.as_ref().unwrap().said()).collect();
    assert!(warned.contains("conflicts recorded") && warned.contains("items 4"), "{warned}");
    assert!(!warned.contains("by a") && !warned.contains("by b"), "no values in the log: {warned}");
}

#[test]
fn a_unique_value_that_two_rows_want_is_settled_and_said_by_key() {
    let mut both = apart(TABLES, "");
    let [a, b] = databases(&both);
    run(&a, "INSERT INTO users VALUES (20, 'x@y', x'00ff')");
    later();
    run(&b, "INSERT INTO users VALUES (21, 'x@y', NULL)");
    join(&mut both);
    assert_eq!(text(&a, "SELECT group_concat(id) || '' FROM users"), "21");
    let (path, found) = record(&both, "users", 20);
    assert_eq!((&found["why"], &found["lost"]), (&Value::from("unique_value"), &Value::from("row")));
    let said = expect_failure(1, &command(&path, &["apply", &id(&found)]));
    assert!(said.contains("the row with key (21) holds a unique value of it"), "{said}");
    run(&b, "UPDATE users SET email = 'z@y' WHERE id = 21");
    both.assert_equal();
    let identity = id(&found);
    let mut words = command(&path, &["show", &identity]);
    words.extend(["-o", "json"]);
    let whole: Value = serde_json::from_str(&expect_code(0, &words)).unwrap();
    assert_eq!((&whole["row"][2]["column"], &whole["row"][2]["hex"]), (&Value::from("photo"), &Value::from("00ff")));
    assert_eq!(list(&path), [whole], "who drops all can keep all");
    expect_code(0, &command(&path, &["apply", &id(&found)]));
    both.assert_equal();
    let users = "SELECT group_concat(id || email, ' ') FROM (SELECT * FROM users ORDER BY id)";
    assert_eq!(text(&b, users), "20x@y 21z@y");
    assert_eq!(text(&a, "SELECT hex(photo) FROM users WHERE id = 20"), "00FF");
}

#[test]
fn a_loser_whose_table_or_column_is_gone_says_so_and_can_be_dropped() {
    let mut both = apart(TABLES, "");
    let [a, b] = databases(&both);
    run(&a, "UPDATE items SET v = 'by a'; INSERT INTO users VALUES (1, 'a@a', NULL)");
    later();
    run(&b, "UPDATE items SET v = 'by b'; INSERT INTO users VALUES (1, 'b@b', NULL)");
    join(&mut both);
    both.stop();
    let (path, item) = record(&both, "items", 1);
    let user = record(&both, "users", 1).1;
    let before = list(&path).len();
    run(&path, "ALTER TABLE users DROP COLUMN photo; ALTER TABLE items RENAME TO things");
    let said = expect_failure(1, &command(&path, &["apply", &id(&item)]));
    assert!(said.contains("table \"items\" is not here any more"), "{said}");
    let said = expect_failure(1, &command(&path, &["apply", &id(&user)]));
    assert!(said.contains("has no column \"photo\" any more"), "{said}");
    assert_eq!(list(&path).len(), before);
    expect_code(0, &command(&path, &["drop", &id(&item), &id(&user)]));
    assert_eq!(list(&path).len(), before - 2);
    expect_failure(2, &command(&path, &["drop", &id(&item)]));
    let said = expect_code(0, &command(&path, &["drop", "--all"]));
    assert!(said.contains(&format!("dropped {}", before - 2)), "{said}");
    assert!(expect_code(0, &command(&path, &["list"])).contains("no conflicts"));
}

#[test]
fn the_commands_of_the_page_run_as_they_stand() {
    let mut both = apart(TABLES, "");
    let [a, b] = databases(&both);
    run(&a, "UPDATE items SET v = 'by a'");
    later();
    run(&b, "UPDATE items SET v = 'by b'");
    join(&mut both);
    let path = record(&both, "items", 1).0;
    assert_eq!(list(&path).len(), 3);
    let page = include_str!("../../docs/conflicts.md");
    let commands: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("$ twinlite ")).collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let command = command.replace("app.db", path.to_str().unwrap());
        expect_code(0, &command.split(' ').collect::<Vec<_>>());
    }
    assert!(list(&path).is_empty(), "the page ends with dropping all");
    both.assert_equal();
}

#[test]
fn a_row_that_breaks_a_foreign_key_is_reported_until_it_is_repaired() {
    let family = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE c(id TEXT PRIMARY KEY, p INTEGER REFERENCES p(id)) WITHOUT ROWID;
        INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES ('good', 2)";
    let mut both = apart(family, "");
    let [a, b] = databases(&both);
    run(&a, "DELETE FROM p WHERE id = 1");
    run(&b, "INSERT INTO c VALUES ('stray', 1)");
    join(&mut both);
    for path in [&a, &b] {
        let found = until("the stray row to be reported", || match &status(path)["foreign_keys"] {
            Value::Array(rows) if !rows.is_empty() => Ok(rows.clone()),
            other => Err(other.to_string()),
        });
        assert_eq!(found, [serde_json::json!({"table": "c", "key": "('stray')", "refers_to": "p"})]);
        let recorded = list(path);
        assert_eq!((recorded.len(), &recorded[0]["why"]), (1, &Value::from("foreign_key")));
        let shown = expect_code(0, &command(path, &["show", &id(&recorded[0])]));
        assert!(shown.contains("nothing lost") && shown.contains("(p) refers to a row of \"p\""), "{shown}");
        // The policy was "refers to p", though no policy had decided anything.
        let listed = expect_code(0, &command(path, &["list"]));
        assert!(listed.contains("  foreign_key: refers to p  -  "), "{listed}");
        assert_eq!((&recorded[0]["policy"], &recorded[0]["refers_to"]), (&Value::Null, &Value::from("p")));
        // There is such a conflict, so it is not the command line that is wrong.
        let said = expect_failure(1, &command(path, &["apply", &id(&recorded[0])]));
        assert!(said.contains("nothing lost"), "{said}");
        let person = expect_code(0, &["status", "--db", path.to_str().unwrap()]);
        assert!(person.contains("broken foreign key: c ('stray') refers to p"), "{person}");
        assert_eq!(text(path, "SELECT group_concat(id) FROM c"), "good,stray", "nothing is changed for it");
    }
    run(&a, "INSERT INTO p VALUES (1)");
    for path in [&a, &b] {
        until("the report to go away", || match status(path) {
            found if found["foreign_keys"] == serde_json::json!([]) && found["conflicts"] == 0 => Ok(()),
            found => Err(format!("{} {}", found["foreign_keys"], found["conflicts"])),
        });
        assert!(list(path).is_empty());
    }
    run(&a, "DELETE FROM p WHERE id = 1");
    until("the row to be reported again", || match status(&b) {
        found if found["foreign_keys"][0]["table"] == "c" && found["conflicts"] == 1 => Ok(()),
        found => Err(found.to_string()),
    });
    expect_code(0, &command(&b, &["drop", "--all"]));
    until("what was dropped to be reported no more", || match status(&b) {
        found if found["foreign_keys"] == serde_json::json!([]) && found["conflicts"] == 0 => Ok(()),
        found => Err(found.to_string()),
    });
    both.stop();
}

/// The ids of what a node has recorded of a key.
fn recorded(nodes: &Nodes, node: usize, key: i64) -> Vec<String> {
    let all = list(&nodes.nodes[node].database).into_iter();
    all.filter(|found| found["key"][0]["value"] == key).map(|found| id(&found)).collect()
}

#[test]
fn what_is_applied_at_a_hub_at_a_leaf_or_everywhere_at_once_is_everywhere_and_no_new_conflict() {
    let mut nodes = Nodes::running(3, TABLES, &Settings::default());
    nodes.stop();
    run(&nodes.nodes[1].database, "UPDATE items SET v = 'by b'");
    later();
    run(&nodes.nodes[2].database, "UPDATE items SET v = 'by c'");
    // The hub has c's first, so that it meets b's at the hub and at b.
    for node in [0, 2] {
        nodes.nodes[node].start(&[]);
    }
    until("the hub to have what c wrote", || {
        match nodes.nodes[0].number("SELECT count(*) FROM items WHERE v = 'by c'") {
            3 => Ok(()),
            found => Err(format!("{found} rows")),
        }
    });
    nodes.start();
    nodes.assert_equal();
    let rows = "SELECT group_concat(v, ', ' ORDER BY id) FROM items";
    assert_eq!(text(&nodes.nodes[0].database, rows), "by c, by c, by c");
    let total = |nodes: &Nodes| nodes.nodes.iter().map(|node| list(&node.database).len()).sum::<usize>();
    let before = total(&nodes);
    let mut applied = 0;
    // The hub, a leaf, and then all of them: whoever has recorded it.
    for (key, at) in [(1, &[0][..]), (2, &[1]), (3, &[0, 1, 2])] {
        std::thread::scope(|scope| {
            for node in at {
                let ids = recorded(&nodes, *node, key);
                assert!(ids.len() == 1 || at.len() > 1, "{node}: {ids:?}");
                applied += ids.len();
                let database = &nodes.nodes[*node].database;
                scope.spawn(move || ids.iter().for_each(|id| drop(expect_code(0, &command(database, &["apply", id])))));
            }
        });
        nodes.assert_equal();
    }
    assert_eq!(text(&nodes.nodes[2].database, rows), "by b, by b, by b");
    assert!(applied > 3, "{applied}: more than one node has recorded the last");
    assert_eq!(total(&nodes), before - applied, "a loser that wins is no conflict, also where several say so");
    for node in &nodes.nodes {
        let left = list(&node.database).len();
        let said = expect_code(0, &command(&node.database, &["drop", "--all"]));
        assert!(said.contains(&format!("dropped {left} ")), "{said}");
        assert_eq!((status(&node.database)["conflicts"].as_u64(), list(&node.database).len()), (Some(0), 0));
    }
    nodes.stop();
}

/// A database whose clock ran ahead gives its changes times ahead, also after the wall clock was set right: the clock that
/// is kept in it never goes back.
#[test]
fn a_peer_whose_clock_is_ahead_halts_the_link_until_the_time_has_come() {
    let mut both = apart(TABLES, "    max_clock_skew: 1s\n");
    let [a, b] = databases(&both);
    join(&mut both);
    let ahead = "UPDATE __cdc_meta SET value = max(value, CAST(unixepoch('subsec') * 1000 AS INTEGER) + 12000) WHERE key = 'hlc'";
    run(
        &b,
        &format!("INSERT OR IGNORE INTO __cdc_meta VALUES ('hlc', 0); {ahead}; INSERT INTO items VALUES (50, 'early')"),
    );
    let trouble = until("the link to halt", || {
        let links = status(&a)["links"].clone();
        let halted = links.as_array().unwrap().iter().find(|link| link["state"] == "halted").cloned();
        halted.map(|link| link["last_error"].clone()).ok_or_else(|| links.to_string())
    });
    assert_eq!(trouble["code"], "clock_ahead");
    let said = trouble["message"].as_str().unwrap();
    assert!(said.contains("table \"items\", key (50)") && said.contains("max_clock_skew"), "{said}");
    assert_eq!(text(&a, "SELECT count(*) || '' FROM items WHERE id = 50"), "0");
    both.assert_equal();
    assert_eq!(text(&a, "SELECT v FROM items WHERE id = 50"), "early");
    run(&a, "UPDATE items SET v = 'later' WHERE id = 50");
    both.assert_equal();
    assert_eq!(
        text(&b, "SELECT v FROM items WHERE id = 50"),
        "later",
        "what is written afterwards is the newer change"
    );
    assert!(list(&a).is_empty() && list(&b).is_empty());
}

#[test]
fn triggers_that_write_what_travels_are_refused_where_both_ends_write() {
    let both = apart(TABLES, "    user_triggers: on\n    schema: [tables, indexes]\n");
    let (a, config) = (&both.nodes[0].database, &both.nodes[0].config);
    run(a, "CREATE TRIGGER harmless AFTER UPDATE ON items BEGIN SELECT RAISE(ABORT, 'no') WHERE NEW.v = 'no'; END");
    let node = Process::run(config, &[]);
    until("the node to own its database", || match status(a)["links"][0]["state"].as_str() {
        Some("offline") | None => Err("offline".to_owned()),
        Some(_) => Ok(()),
    });
    node.stop();
    run(a, "CREATE TRIGGER stamp AFTER UPDATE ON items BEGIN INSERT INTO users(email) VALUES (NEW.v); END");
    let said = expect_failure(1, &["run", "--config", config.to_str().unwrap()]);
    assert!(
        said.contains("trigger \"stamp\" writes into table \"users\"") && said.contains("user_triggers: on"),
        "{said}"
    );
    run(a, "DROP TRIGGER stamp");
}

/// It was looked at when the node started only: a trigger that was made later fired on everything that came.
#[test]
fn a_trigger_that_is_made_later_halts_the_link_before_it_fires() {
    let mut both = apart(TABLES, "    user_triggers: on\n    schema: [tables, indexes]\n");
    join(&mut both);
    let [a, b] = databases(&both);
    run(&a, "CREATE TRIGGER stamp AFTER UPDATE ON items BEGIN INSERT INTO users(email) VALUES (NEW.v); END");
    run(&b, "UPDATE items SET v = 'by b' WHERE id = 1");
    until("the link to halt", || {
        let status = status(&a);
        let links = status["links"].as_array().cloned().unwrap_or_default();
        match links.iter().find(|link| link["last_error"]["code"] == "user_triggers") {
            Some(link) => {
                let said = link["last_error"]["message"].to_string();
                assert!(said.contains("stamp") && said.contains("users"), "{said}");
                Ok(())
            }
            None => Err(status.to_string()),
        }
    });
    assert_eq!(both.nodes[0].number("SELECT count(*) FROM users"), 0, "it has not fired");
    run(&a, "DROP TRIGGER stamp");
    both.assert_equal();
    assert_eq!(text(&a, "SELECT v FROM items WHERE id = 1"), "by b");
    assert_eq!(both.nodes[1].number("SELECT count(*) FROM users"), 0);
    both.stop();
}
