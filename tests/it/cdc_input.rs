//! What `twinlite cdc` is asked for in vain, where it cannot write, and what sqlite-cdc left behind.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cdc::{app, cdc, cdc_fails, events};
use crate::promises::SmallDisk;
use crate::support::{
    Place, open, open_reader,
    process::{Process, expect_code, expect_failure},
    random::Random,
    skipped,
    wait::{pause, until},
};

#[test]
fn tables_that_can_have_no_events_are_named_with_the_reason_and_nothing_is_changed() {
    let place = Place::new();
    let conn = app(&place, 3, &mut Random::new(1));
    conn.execute_batch(
        "CREATE VIEW v AS SELECT 1; CREATE VIRTUAL TABLE f USING fts5(x);
         CREATE TABLE c(rowid, _rowid_, oid);",
    )
    .unwrap();
    let ours = || -> i64 {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_\\_cdc%' ESCAPE '\\'";
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    for (table, says) in [
        ("nope", "there is no table \"nope\""),
        ("v", "it is a view"),
        ("f", "it is a virtual table"),
        ("f_data", "belongs to a virtual table"),
        ("sqlite_schema", "SQLite's or Twinlite's own"),
        ("t*", "there is no table \"t*\""),
    ] {
        let said = cdc_fails(&place, 2, &["--table", "t", "--table", table, "--setup", "--cdc"]);
        assert!(said.contains(says), "{table}: {said}");
        assert_eq!(ours(), 0, "{table}");
    }
    let said = cdc_fails(&place, 2, &["--table", "t", "--table", "c", "--setup", "--cdc"]);
    assert!(said.contains("table \"c\" has no events") && said.contains("rowid"), "{said}");
    assert_eq!(ours(), 0, "what would be skipped is seen before anything is installed");
    let said = cdc_fails(&place, 2, &["--table", "t", "--cdc"]);
    assert!(said.contains("not captured") || said.contains("--setup"), "{said}");
}

#[test]
fn arguments_that_make_no_sense_are_refused_in_words() {
    let place = Place::new();
    let _conn = app(&place, 3, &mut Random::new(1));
    for (flags, says) in [
        (&["--cdc", "-o", "http//x"][..], "--output: wants -, json, or a URL"),
        (&["--cdc", "-o", "table"], "--output: wants -, json, or a URL"),
        (&["--cdc", "--header", "X=1"], "belong to an --output that is a URL"),
        (&["--cdc", "-o", "http://localhost:1/", "--header", "X"], "--header: wants NAME=VALUE"),
        (&["--cdc", "-o", "http://localhost:1/", "--retry-for", "soon"], "--retry-for: soon: wants a duration"),
        (&["--cdc", "--batch-size", "0"], "wants at least 1"),
        (&["--cdc", "--db-params", "_pragma=foreign_keys(1)"], "_pragma=foreign_keys(1) is not taken"),
        (&["--setup", "--consumer", ""], "consumer \"\""),
        (&["--setup", "--log-table", "mine"], "has to begin with \"__cdc_\""),
        (&["--cdc", "--take-over"], "--setup"),
        (&["--cdc", "-o", "http://localhost:99999/"], "--output: has port 99999"),
        (&["--teardown", "--setup"], "'--teardown' cannot be used with '--setup'"),
        (&["--table", "t", "--teardown"], "cannot be used with"),
        (&["--teardown", "--consumer", "x"], "cannot be used with"),
    ] {
        let said = cdc_fails(&place, 2, flags);
        assert!(said.contains(says), "{flags:?}: {said}");
    }
    let said = expect_failure(2, &["cdc", "--db", &place.file("none.db").display().to_string(), "--cdc"]);
    assert!(said.contains("none.db"), "{said}");
    expect_code(0, &["cdc", "--help"]);
    // The word means what it meant everywhere else.
    let said = expect_failure(2, &["status", "--db", "x.db", "-o", "http://x"]);
    assert!(said.contains("table, json"), "{said}");
}

/// The log of a database that is replicated: events come from it as it is, but for a setup, which makes one with images.
#[test]
fn a_log_of_keys_has_events_and_names_the_command_that_makes_it_one_of_images() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a'), (2, 'b')").unwrap();
    let source = place.source().display().to_string();
    expect_code(0, &["setup", "--db", &source]);
    let command = format!("twinlite setup --db {source} --images full");
    for flags in [&["--setup"][..], &["--setup", "--cdc"], &["--setup", "--take-over", "--bootstrap"]] {
        let refused = cdc_fails(&place, 2, flags);
        assert!(refused.contains(&command) && refused.contains("leave --setup out"), "{flags:?}: {refused}");
    }
    let out = place.file("events.json");
    let process = Process::cdc(&place.source(), &out, &["--bootstrap", "--cdc", "-o", "json"], &[]);
    until_events(&out, 2);
    conn.execute_batch(
        "BEGIN; UPDATE t SET v = 'x'; UPDATE t SET v = 'y' WHERE id = 1; DELETE FROM t WHERE id = 2; COMMIT",
    )
    .unwrap();
    until_events(&out, 4);
    let warned = process.said();
    assert_eq!(warned.matches(&command).count(), 1, "{warned}");
    assert!(warned.contains("keeps keys only"), "{warned}");
    // Whoever owns the log changes it, and what comes from there on is told with images.
    expect_code(0, &["setup", "--db", &source, "--images", "full"]);
    conn.execute_batch("UPDATE t SET v = 'z'").unwrap();
    until_events(&out, 5);
    process.stop();
    let wanted = [
        json!({"operation": "INSERT", "before": null, "after": {"id": 1, "v": "a"}}),
        json!({"operation": "INSERT", "before": null, "after": {"id": 2, "v": "b"}}),
        json!({"operation": "UPDATE", "before": null, "after": {"id": 1, "v": "y"}}),
        json!({"operation": "DELETE", "before": {"id": 2}, "after": null}),
        json!({"operation": "UPDATE", "before": {"id": 1, "v": "y"}, "after": {"id": 1, "v": "z"}}),
    ];
    assert_eq!(said(&events(&out)), said(&wanted));
    cdc(&place, &["--setup"]);
}

#[test]
fn what_a_log_carries_changes_beside_the_consumer_that_owns_the_database() {
    let place = Place::new();
    let _conn = app(&place, 3, &mut Random::new(1));
    let source = place.source().display().to_string();
    cdc(&place, &["--setup"]);
    let process = Process::cdc(&place.source(), &place.file("out"), &["--cdc"], &[]);
    until("it to own the database", || if process.said().contains("running") { Ok(()) } else { Err(process.said()) });
    for images in ["key", "full"] {
        expect_code(0, &["setup", "--db", &source, "--images", images]);
        let found: String = open_reader(&place.source())
            .query_row("SELECT value FROM __cdc_meta WHERE key = 'images'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(found, images);
    }
    process.stop();
}

#[track_caller]
fn until_events(out: &std::path::Path, wanted: usize) {
    until("the events", || match events(out).len() {
        found if found >= wanted => Ok(()),
        found => Err(format!("{found} of {wanted}")),
    });
}

#[test]
fn what_it_goes_on_with_and_for_whom_the_log_is_kept_is_said() {
    let place = Place::new();
    let _conn = app(&place, 30, &mut Random::new(1));
    let out = place.file("out");
    let mut setup = Process::cdc(&place.source(), &out, &["--setup"], &[]);
    assert!(setup.wait().success());
    let drop = format!("`twinlite consumers drop --db {} cdc`", place.source().display());
    assert!(setup.said().contains("kept for consumer \"cdc\"") && setup.said().contains(&drop), "{}", setup.said());
    let flags = ["--bootstrap", "--batch-size", "1"];
    let mut killed = Process::cdc(&place.source(), &out, &flags, &[("TWINLITE_FAILPOINT", "events_after_note=1")]);
    killed.wait();
    assert!(!killed.said().contains("not finished"), "{}", killed.said());
    let goes_on = Process::cdc(&place.source(), &out, &["--cdc"], &[]);
    let said = "goes on with the bootstrap that was not finished";
    until("it to say so", || if goes_on.said().contains(said) { Ok(()) } else { Err(goes_on.said()) });
    goes_on.stop();
}

/// Its lock files and its socket stayed for ever.
#[test]
fn teardown_removes_what_a_killed_one_left_beside_the_database() {
    let place = Place::new();
    let _conn = app(&place, 3, &mut Random::new(1));
    let beside = || -> Vec<String> {
        let all = std::fs::read_dir(place.source().parent().unwrap()).unwrap();
        let names = all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains("-twinlite")).collect()
    };
    let mut process = Process::cdc(&place.source(), &place.file("out"), &["--setup", "--cdc"], &[]);
    until(
        "its lock files and its socket",
        || if beside().len() == 3 { Ok(()) } else { Err(format!("{:?}", beside())) },
    );
    until("it to run", || if process.said().contains("running") { Ok(()) } else { Err(process.said()) });
    process.kill();
    assert_eq!(beside().len(), 3);
    cdc(&place, &["--teardown"]);
    assert_eq!(beside(), [""; 0]);
}

/// A disk that is full, and a reader that went away.
#[test]
fn an_output_that_cannot_be_written_stops_it_and_loses_nothing() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").unwrap();
    cdc(&place, &["--setup"]);
    conn.execute_batch("INSERT INTO t VALUES (1, 'a'), (2, 'b'); DELETE FROM t WHERE id = 1").unwrap();
    let full = std::path::Path::new("/dev/full");
    if full.exists() {
        let mut process = Process::cdc(&place.source(), full, &["--cdc", "-o", "json"], &[]);
        assert_eq!(process.wait().code(), Some(1));
        assert!(process.said().contains("stdout"), "{}", process.said());
    }
    let out = place.file("events.json");
    let process = Process::cdc(&place.source(), &out, &["--cdc", "-o", "json"], &[]);
    until_events(&out, 3);
    process.stop();
}

/// An application that keeps the write lock keeps the position from being noted, not the events from being said.
#[test]
fn beside_a_write_lock_that_is_held_events_go_on_and_the_position_is_noted_when_it_is_free() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").unwrap();
    cdc(&place, &["--setup"]);
    conn.execute_batch("INSERT INTO t VALUES (1, 'a')").unwrap();
    let out = place.file("events.json");
    let lock = open(&place.source());
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let process = Process::cdc(&place.source(), &out, &["--cdc", "-o", "json"], &[]);
    until("the event beside a lock that is held", || match events(&out).len() {
        1 => Ok(()),
        count => Err(format!("{count} events")),
    });
    lock.execute_batch("COMMIT").unwrap();
    until("the position to be noted when the lock is free", || {
        let (seq, head): (i64, i64) = open_reader(&place.source())
            .query_row("SELECT seq, (SELECT max(seq) FROM __cdc_log) FROM __cdc_consumers", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        if seq == head { Ok(()) } else { Err(format!("{seq} of {head}")) }
    });
    process.stop();
}

/// A disk that is full when the position is due: it stops in words, and what was handed over last comes again.
#[test]
fn a_disk_that_is_full_stops_it_in_words_and_nothing_is_lost() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place.file("small"), "3m") else {
        return skipped("a_disk_that_is_full_stops_it_in_words", "a small disk can only be mounted by root");
    };
    let (source, filler) = (place.file("small").join("source.db"), place.file("small").join("filler"));
    let (out, again) = (place.file("events.json"), place.file("again.json"));
    let conn = open(&source);
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY)").unwrap();
    let mut process = Process::cdc(&source, &out, &["--setup", "--cdc", "-o", "json"], &[]);
    until("it to run", || if process.said().contains("running") { Ok(()) } else { Err(process.said()) });
    let mut written = 0;
    // The first is noted at once, the second a second later: the disk is filled in between, or another time.
    until("it to stop", || {
        let _ = std::fs::remove_file(&filler);
        for _ in 0..2 {
            conn.execute_batch("INSERT INTO t DEFAULT VALUES").unwrap();
            written += 1;
            until("the event", || match events(&out).len() == written || process.ended().is_some() {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            });
        }
        let mut file = std::fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        pause(Duration::from_millis(1_300));
        process.ended().ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(process.wait().code(), Some(1));
    assert!(process.said().contains("note how far consumer \"cdc\" is"), "{}", process.said());
    assert!(process.said().contains("full"), "{}", process.said());
    disk.resize("20m");
    let process = Process::cdc(&source, &again, &["--cdc", "-o", "json"], &[]);
    conn.execute_batch("INSERT INTO t DEFAULT VALUES").unwrap();
    let last = |events: &[Value]| events.last().map(|event| event["after"]["id"].as_u64());
    until("the newest event", || match last(&events(&again)) == Some(Some(written as u64 + 1)) {
        true => Ok(()),
        false => Err(format!("{} events", events(&again).len())),
    });
    let first = events(&again)[0]["after"]["id"].as_u64().unwrap();
    assert!(first <= written as u64, "what was not noted comes again, from {first}");
    process.stop();
}

/// The triggers of sqlite-cdc, in their shape.
pub const THEIRS: &str = "
CREATE TABLE __cdc_log(id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, tablename TEXT NOT NULL,
  operation TEXT NOT NULL, before TEXT, after TEXT);
CREATE TRIGGER t__cdc_insert AFTER INSERT ON t BEGIN
  INSERT INTO __cdc_log(timestamp, tablename, operation, before, after) VALUES
    (strftime('%Y-%m-%d %H:%M:%f'), 't', 'INSERT', NULL, json_object('id', NEW.id, 'v', NEW.v)); END;
CREATE TRIGGER t__cdc_update AFTER UPDATE ON t BEGIN
  INSERT INTO __cdc_log(timestamp, tablename, operation, before, after) VALUES (strftime('%Y-%m-%d %H:%M:%f'), 't',
    'UPDATE', json_object('id', OLD.id, 'v', OLD.v), json_object('id', NEW.id, 'v', NEW.v)); END;
CREATE TRIGGER t__cdc_delete AFTER DELETE ON t BEGIN
  INSERT INTO __cdc_log(timestamp, tablename, operation, before, after) VALUES
    (strftime('%Y-%m-%d %H:%M:%f'), 't', 'DELETE', json_object('id', OLD.id, 'v', OLD.v), NULL); END;
";

fn said(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| format!("{} {} {}", event["operation"], event["before"], event["after"])).collect()
}

#[test]
fn what_sqlite_cdc_left_in_its_log_is_handed_over_first_and_nothing_falls_between() {
    for by_setup in [false, true] {
        let place = Place::new();
        let conn = open(&place.source());
        conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").unwrap();
        conn.execute_batch(THEIRS).unwrap();
        conn.execute_batch("INSERT INTO t VALUES (1, 'a'), (2, 0.5); UPDATE t SET v = NULL WHERE id = 1").unwrap();
        let source = place.source().display().to_string();
        let refused = cdc_fails(&place, 1, &["--setup", "--cdc"]);
        assert!(refused.contains("--take-over"), "{refused}");
        let out = place.file("events.json");
        let flags = match by_setup {
            true => {
                // Also where the log has keys until somebody wants events.
                expect_code(0, &["setup", "--db", &source, "--take-over"]);
                expect_code(0, &["setup", "--db", &source, "--images", "full"]);
                vec!["--cdc", "-o", "json", "--batch-size", "2"]
            }
            false => vec!["--setup", "--take-over", "--cdc", "-o", "json", "--batch-size", "2"],
        };
        if by_setup {
            conn.execute_batch("DELETE FROM t WHERE id = 2").unwrap();
        }
        let process = Process::cdc(&place.source(), &out, &flags, &[]);
        until(
            "what they logged",
            || if events(&out).len() >= 3 { Ok(()) } else { Err(events(&out).len().to_string()) },
        );
        conn.execute_batch("DELETE FROM t WHERE id = 2").unwrap();
        until("what we logged", || if events(&out).len() >= 4 { Ok(()) } else { Err(events(&out).len().to_string()) });
        process.stop();
        let wanted = [
            json!({"operation": "INSERT", "before": null, "after": {"id": 1, "v": "a"}}),
            json!({"operation": "INSERT", "before": null, "after": {"id": 2, "v": 0.5}}),
            json!({"operation": "UPDATE", "before": {"id": 1, "v": "a"}, "after": {"id": 1, "v": null}}),
            json!({"operation": "DELETE", "before": {"id": 2, "v": 0.5}, "after": null}),
        ];
        assert_eq!(said(&events(&out)), said(&wanted));
        assert!(events(&out)[0]["timestamp"].as_str().unwrap().starts_with("20"), "the time is theirs");
        cdc(&place, &["--teardown"]);
        let left: i64 = open_reader(&place.source())
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name <> 't'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0, "nothing of theirs or ours is left");
    }
}
