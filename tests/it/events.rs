//! Outputs of events, run by a node: what fails there loses nothing, and is told.

use std::{fmt::Write as _, io::BufRead as _, path::PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{
    Place,
    hook::{Act, Hook, Post, Rows, header, receive, replay},
    open, open_reader,
    process::{Process, expect_failure, replicate_once, status, twinlite},
    random::Random,
    wait::until,
};

/// A node with outputs of events: each a line of keys.
fn config(place: &Place, outputs: &[&str], more: &str) -> PathBuf {
    let mut text = format!("name: a\nspec: {{ connection_string: '{}' }}\n{more}\nevents:\n", place.source().display());
    for output in outputs {
        writeln!(text, "  - {{ {output} }}").unwrap();
    }
    let path = place.file("node.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A hook with small batches and little patience.
fn hooked(hook: &Hook, more: &str) -> String {
    format!("name: hook, output: '{}', timeout: 300ms, batch_size: 3{more}", hook.url)
}

fn app(place: &Place) -> Connection {
    let app = open(&place.source());
    app.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w TEXT UNIQUE);
         CREATE TABLE other(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20)
         INSERT INTO t SELECT i, i / 2.0, 'w' || i FROM n",
    )
    .unwrap();
    app
}

/// A transaction of a few statements, some of which change nothing.
fn write(app: &Connection, random: &mut Random) {
    let mut sql = String::from("BEGIN;");
    for _ in 0..1 + random.below(4) {
        let (id, other) = (random.below(30), random.below(30));
        let statement = match random.below(6) {
            0 | 1 => format!("INSERT OR IGNORE INTO t VALUES ({id}, {other}, 'w{id}')"),
            2 => format!("UPDATE t SET v = {other} WHERE id = {id}"),
            3 => format!("DELETE FROM t WHERE id = {id}"),
            4 => format!("REPLACE INTO t VALUES ({id}, NULL, 'w{other}')"),
            _ => format!("INSERT INTO other(v) VALUES ('{other}')"),
        };
        write!(sql, "{statement};").unwrap();
    }
    app.execute_batch(&format!("{sql} COMMIT")).unwrap();
}

/// The rows that a receiver should have.
fn rows(place: &Place) -> Rows {
    let app = open_reader(&place.source());
    let mut rows = Rows::new();
    for (table, columns) in [("t", vec!["id", "v", "w"]), ("other", vec!["id", "v"])] {
        let pairs: Vec<String> = columns.iter().map(|column| format!("'{column}', {column}")).collect();
        let mut all = app.prepare(&format!("SELECT id, json_object({}) FROM {table}", pairs.join(", "))).unwrap();
        let found = all.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
        for (id, row) in found.map(Result::unwrap) {
            rows.insert((table.to_owned(), id), serde_json::from_str(&row).unwrap());
        }
    }
    rows
}

#[track_caller]
fn until_rows(place: &Place, what: &str, mut found: impl FnMut() -> Rows) {
    until(what, || {
        let (wanted, found) = (rows(place), found());
        if found == wanted { Ok(()) } else { Err(format!("{} rows of {}: {found:?}", found.len(), wanted.len())) }
    });
}

fn output(place: &Place, name: &str) -> Value {
    let status = status(&place.source());
    status["events"].as_array().into_iter().flatten().find(|output| output["name"] == name).cloned().unwrap_or_default()
}

#[track_caller]
fn until_output(place: &Place, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
    until(what, || {
        let output = output(place, "hook");
        if is(&output) { Ok(output) } else { Err(output.to_string()) }
    })
}

const FAILURES: [Act; 6] = [Act::Answer(500), Act::Close, Act::Cut, Act::Late, Act::Answer(204), Act::Answer(302)];

/// Each batch is tried until it is taken, in order: what is taken, in the order in which it was, is every event once.
#[test]
fn a_webhook_that_fails_in_every_way_loses_nothing_and_keeps_the_order() {
    let (place, hook) = (Place::new(), Hook::start());
    let app = app(&place);
    let mut random = Random::new(7);
    for failure in FAILURES {
        hook.next(&[failure, Act::Answer(200), Act::Answer(200)]);
    }
    let node = Process::run(&config(&place, &[&hooked(&hook, ", bootstrap: true")], ""), &[]);
    for turn in 0..60 {
        if turn % 20 == 10 {
            hook.next(&[Act::Answer(200), FAILURES[random.below(6)], FAILURES[random.below(6)]]);
        }
        write(&app, &mut random);
    }
    until_rows(&place, "every change to be taken", || replay(&hook.taken()));
    let posts = hook.posts();
    for (post, next) in posts.iter().zip(&posts[1..]) {
        let again = post.act != Act::Answer(200);
        assert_eq!(again, post.id == next.id, "a batch is tried until it is taken, and no longer");
        assert!(!again || post.body == next.body, "a repeat is the same");
    }
    assert!(FAILURES.iter().all(|failure| posts.iter().any(|post| post.act == *failure)), "all of them happened");
    assert!(posts.iter().all(|post| post.changes().count() <= 3), "batches are as small as was said");
    node.stop();
}

/// `twinlite cdc` said that it was live and had nothing to do, and took five seconds to end.
#[test]
fn an_outage_is_in_the_status_of_a_consumer_that_owns_the_database_too() {
    let (place, hook) = (Place::new(), Hook::start());
    let app = app(&place);
    hook.then(Act::Answer(500));
    let out = place.file("nothing");
    let flags = ["--setup", "--bootstrap", "--cdc", "--consumer", "hook", "--output", &hook.url];
    let mut process = Process::cdc(&place.source(), &out, &flags, &[]);
    write(&app, &mut Random::new(9));
    let told = until_output(&place, "the outage to be told", |output| output["failed_tries"].as_u64() >= Some(2));
    assert_eq!((&told["state"], &told["last_error"]["code"]), (&json!("retrying"), &json!("webhook_status")));
    process.signal(rustix::process::Signal::INT);
    assert_eq!(process.wait().code(), Some(0));
    assert!(process.said().contains("it comes first next time"), "{}", process.said());
}

#[test]
fn an_outage_is_in_the_status_while_it_lasts_and_what_waits_stays_in_the_log() {
    let (place, hook) = (Place::new(), Hook::start());
    let app = app(&place);
    let node = Process::run(&config(&place, &[&hooked(&hook, ""), "name: lines, output: '-'"], ""), &[]);
    until_output(&place, "the output to be live", |output| output["state"] == "live");
    hook.then(Act::Answer(503));
    let mut random = Random::new(8);
    (0..20).for_each(|_| write(&app, &mut random));
    // Six tries take longer than the second of quiet after which a log is pruned.
    let told = until_output(&place, "the outage to be told", |output| {
        output["failed_tries"].as_u64() >= Some(6) && output["changes_behind"].as_u64() > Some(0)
    });
    assert_eq!((&told["state"], &told["last_error"]["code"]), (&json!("retrying"), &json!("webhook_status")));
    assert_eq!(told["output"], json!(hook.url));
    assert!(told["last_error"]["message"].as_str().unwrap().contains("503"), "{told}");
    assert!(told["failing_since_ms"].as_i64().unwrap() > 1_700_000_000_000, "{told}");
    let shown = String::from_utf8(twinlite(&["status", "--db", place.source().to_str().unwrap()]).stdout).unwrap();
    assert!(shown.contains(&format!("events hook to {}: retrying", hook.url)), "{shown}");
    assert!(shown.contains("not taken since") && shown.contains("events lines to stdout: live"), "{shown}");
    hook.then(Act::Answer(200));
    let well = until_output(&place, "the outage to be over", |output| output["changes_behind"] == 0);
    assert_eq!((&well["state"], &well["last_error"], &well["failed_tries"]), (&json!("live"), &json!(null), &json!(0)));
    let log = open_reader(&place.source());
    until("the log to be pruned", || {
        let left: i64 = log.query_row("SELECT count(*) FROM __cdc_log", [], |row| row.get(0)).unwrap();
        if left <= 1 { Ok(()) } else { Err(format!("{left} entries")) }
    });
    drop(log);
    node.stop();
}

/// Killed at any moment, a node hands over again what it had not noted, cut otherwise; a receiver that goes by positions has
/// the right rows, and so has one that takes every INSERT and UPDATE as what the row is now.
#[test]
fn a_node_that_is_killed_goes_on_without_a_gap() {
    let (place, hook) = (Place::new(), Hook::start());
    let app = app(&place);
    let config = config(&place, &[&hooked(&hook, ", bootstrap: true")], "");
    let mut random = Random::new(9);
    for round in 0..4 {
        let mut node = Process::run(&config, &[]);
        let posts = hook.posts().len();
        for _ in 0..15 {
            write(&app, &mut random);
        }
        let wanted = posts + 2 + round;
        until("some posts", || match hook.posts().len() {
            found if found >= wanted => Ok(()),
            found => Err(format!("{found} of {wanted}")),
        });
        node.kill();
        write(&app, &mut random);
    }
    let node = Process::run(&config, &[]);
    until_rows(&place, "a receiver that goes by positions to be right", || receive(&hook.posts()));
    let (mut found, posts) = (Rows::new(), hook.posts());
    for (_, change) in posts.iter().flat_map(Post::changes) {
        let key = |image: &Value| (change["table"].as_str().unwrap().to_owned(), image["id"].as_i64().unwrap());
        if !change["before"].is_null() {
            found.remove(&key(&change["before"]));
        }
        if !change["after"].is_null() {
            found.insert(key(&change["after"]), change["after"].clone());
        }
    }
    assert_eq!(found, rows(&place), "a receiver that takes the row that it is told");
    node.stop();
}

/// Who replicates and adds outputs has events from the log that is there; who asks for keys has them in a new one, too.
#[test]
fn a_node_has_events_from_a_log_of_keys_and_says_once_what_they_leave_out() {
    for (replicated, capture) in [(true, ""), (false, "capture: { images: key }")] {
        let (place, hook) = (Place::new(), Hook::start());
        let app = app(&place);
        if replicated {
            replicate_once(&place.source(), &place.replica());
        }
        let outputs = [&hooked(&hook, ", bootstrap: true")[..], "name: lines, output: '-'"];
        let config = config(&place, &outputs, capture);
        let mut random = Random::new(11);
        let mut node = Process::run(&config, &[]);
        for round in 0..3 {
            (0..30).for_each(|_| write(&app, &mut random));
            if round == 1 {
                node.kill();
                node = Process::run(&config, &[]);
            }
            until_rows(&place, "a receiver that goes by positions to be right", || receive(&hook.posts()));
        }
        until_output(&place, "the output to be live", |output| output["state"] == "live");
        let told = node.said();
        assert_eq!(told.matches("keeps keys only").count(), 1, "{told}");
        let posts = hook.taken();
        let mut changes = posts.iter().flat_map(Post::changes).map(|(_, change)| change);
        let fits = |change: &Value| match change["operation"].as_str() {
            Some("INSERT" | "UPDATE") => change["before"].is_null() && change["after"].is_object(),
            _ => change["before"].as_object().is_some_and(|key| key.keys().eq(["id"])) && change["after"].is_null(),
        };
        assert!(changes.all(fits), "the row as it is, or the key of one that is gone");
        node.stop();
    }
}

#[test]
fn a_consumer_that_was_cut_off_stops_and_says_the_way_on() {
    let (place, hook) = (Place::new(), Hook::start());
    let app = app(&place);
    let small = "capture: { retention: { rows: 200 } }";
    let node = Process::run(&config(&place, &[&hooked(&hook, "")], small), &[]);
    until_output(&place, "the output to be live", |output| output["state"] == "live");
    app.execute_batch("INSERT INTO t VALUES (99, NULL, NULL)").unwrap();
    let log = open_reader(&place.source());
    let noted = "SELECT count(*) FROM __cdc_consumers WHERE name = 'hook' AND peer IS NOT NULL";
    until("the place of the first event to be noted", || {
        let noted: i64 = log.query_row(noted, [], |row| row.get(0)).unwrap();
        if noted == 1 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    hook.then(Act::Answer(500));
    let mut random = Random::new(10);
    write(&app, &mut random);
    until_output(&place, "the outage", |output| output["state"] == "retrying");
    let first: i64 = log.query_row("SELECT value FROM __cdc_meta WHERE key = 'epoch'", [], |row| row.get(0)).unwrap();
    until("the consumer to be cut off, or the log to be begun anew", || {
        write(&app, &mut random);
        let sql = "SELECT (SELECT cut_off FROM __cdc_consumers WHERE name = 'hook')
                   OR (SELECT value FROM __cdc_meta WHERE key = 'epoch') <> ?1";
        let is_lost: bool = log.query_row(sql, [first], |row| row.get(0)).unwrap();
        if is_lost { Ok(()) } else { Err("not yet".to_owned()) }
    });
    drop(log);
    hook.then(Act::Answer(200));
    let told = until_output(&place, "it to stop", |output| output["state"] == "stopped");
    assert_eq!(told["last_error"]["code"], "events_lost");
    assert!(told["last_error"]["message"].as_str().unwrap().contains("bootstrap"), "{told}");
    assert_eq!(status(&place.source())["healthy"], false);
    node.stop();
    let taken = hook.taken().len();
    let node = Process::run(&config(&place, &[&hooked(&hook, ", bootstrap: true")], small), &[]);
    until_rows(&place, "the rows to come anew", || replay(&hook.taken()[taken..]));
    let anew: Vec<Post> = hook.taken().split_off(taken);
    let first = anew[0].changes().next().unwrap().1.clone();
    assert_eq!(first["operation"], "RESYNC", "what the receiver had may be wrong");
    node.stop();
    // Its place is known: a bootstrap is not repeated at each start.
    let before = hook.posts().len();
    let node = Process::run(&config(&place, &[&hooked(&hook, ", bootstrap: true")], small), &[]);
    app.execute_batch("INSERT INTO t VALUES (1000, NULL, NULL)").unwrap();
    until_rows(&place, "the new row", || replay(&hook.taken()[taken..]));
    let new: usize = hook.posts()[before..].iter().map(|post| post.changes().count()).sum();
    assert_eq!(new, 1);
    node.stop();
}

#[test]
fn tls_is_trusted_as_the_machine_is_told_to() {
    let (place, hook) = (Place::new(), Hook::start_tls());
    let app = app(&place);
    let token = place.file("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let headers = format!(", bootstrap: true, headers: {{ Authorization: 'Bearer ${{file:{}}}' }}", token.display());
    let config = config(&place, &[&hooked(&hook, &headers)], "");
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/ca.pem");
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/other.pem");
    let node = Process::run(&config, &[("SSL_CERT_FILE", other)]);
    let told = until_output(&place, "the certificate to be refused", |output| output["state"] == "retrying");
    assert!(told["last_error"]["message"].as_str().unwrap().contains("certificate"), "{told}");
    assert!(hook.posts().is_empty(), "nothing is sent to who is not known");
    node.stop();
    let node = Process::run(&config, &[("SSL_CERT_FILE", ca)]);
    until_rows(&place, "the rows to come", || replay(&hook.taken()));
    app.execute_batch("DELETE FROM t WHERE id = 3").unwrap();
    until_rows(&place, "the row to go", || replay(&hook.taken()));
    assert_eq!(header(&hook.posts()[0].head, "authorization"), Some("Bearer s3cret"));
    assert!(!node.said().contains("s3cret"));
    node.stop();
}

#[test]
fn lines_of_json_are_the_events_and_a_pipe_that_closes_is_told() {
    let place = Place::new();
    let app = app(&place);
    let config = config(&place, &["name: hook, output: json, tables: [T]"], "");
    let (reader, writer) = std::io::pipe().unwrap();
    let node = Process::run_into(writer, &config);
    until_output(&place, "the output to be live", |output| output["state"] == "live");
    app.execute_batch("INSERT INTO other(v) VALUES (1); UPDATE t SET v = x'ab', w = 'é' WHERE id = 1").unwrap();
    let mut lines = std::io::BufReader::new(reader);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["table"], "t", "the globs are of this output");
    assert_eq!(event["before"], json!({"id": 1, "v": 0.5, "w": "w1"}));
    assert_eq!(event["after"], json!({"id": 1, "v": "AB", "w": "é"}));
    drop(lines);
    app.execute_batch("UPDATE t SET v = 2 WHERE id = 1").unwrap();
    let told = until_output(&place, "the closed pipe to be told", |output| output["state"] == "stopped");
    assert_eq!(told["last_error"]["code"], "output");
    assert!(told["last_error"]["message"].as_str().unwrap().contains("Broken pipe"), "{told}");
    let is_behind = |output: &Value| output["changes_behind"].as_u64() > Some(0);
    until_output(&place, "what was not written to count as not acknowledged", is_behind);
    node.stop();
    // The next start goes on with it.
    let (reader, writer) = std::io::pipe().unwrap();
    let node = Process::run_into(writer, &config);
    let mut line = String::new();
    std::io::BufReader::new(reader).read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["after"]["v"], 2);
    node.stop();
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_and_tried_again() {
    let place = Place::new();
    let app = app(&place);
    let config = config(&place, &["name: hook, output: json"], "");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let node = Process::run_into(full, &config);
    until_output(&place, "the output to be live", |output| output["state"] == "live");
    app.execute_batch("DELETE FROM t WHERE id = 1").unwrap();
    let told = until_output(&place, "the full disk to be told", |output| output["failed_tries"].as_u64() >= Some(1));
    assert!(told["last_error"]["hint"].as_str().unwrap().contains("room"), "{told}");
    node.stop();
}

#[test]
fn an_output_that_cannot_be_is_refused_before_anything_is_installed() {
    let place = Place::new();
    let _app = app(&place);
    let two = ["name: a, output: json", "name: b, output: '-'", "name: c, output: 'gopher://x'"];
    let config = config(&place, &two, "");
    let said = expect_failure(2, &["run", "--config", config.to_str().unwrap()]);
    for wanted in ["events[1].output: is a second one on stdout", "events[2].output: wants"] {
        assert!(said.contains(wanted), "{said}");
    }
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_\\_cdc%' ESCAPE '\\'";
    assert_eq!(open_reader(&place.source()).query_row(ours, [], |row| row.get::<_, i64>(0)), Ok(0));
}
