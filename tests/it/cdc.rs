//! `twinlite cdc`: each flag alone and with others, what it says of random writes, and several consumers of one log.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, types::ValueRef};
use serde_json::{Value, json};

use crate::support::{
    Place, open, open_reader,
    process::{Process, expect_code, expect_failure, free_port, http_get, quiesce, status},
    random::Random,
    skipped,
    wait::{pause, until},
};

pub const SCHEMA: &str = "
CREATE TABLE t(id INTEGER PRIMARY KEY, v, w TEXT UNIQUE);
CREATE TABLE p(a TEXT COLLATE NOCASE, b, v, PRIMARY KEY(a, b)) WITHOUT ROWID;
CREATE TABLE bare(v);
";

/// The tables of [`SCHEMA`], with their columns.
const TABLES: [(&str, &[&str]); 3] = [("t", &["id", "v", "w"]), ("p", &["a", "b", "v"]), ("bare", &["v"])];

/// Runs `twinlite cdc` on a database until it ends by itself; what it wrote to stdout.
#[track_caller]
pub fn cdc(place: &Place, flags: &[&str]) -> String {
    expect_code(0, &args(place, flags))
}

/// The same for one that fails; what it wrote to stderr.
#[track_caller]
pub fn cdc_fails(place: &Place, code: i32, flags: &[&str]) -> String {
    expect_failure(code, &args(place, flags))
}

fn args(place: &Place, flags: &[&str]) -> Vec<String> {
    let source = place.source().display().to_string();
    ["cdc", "--db", &source].into_iter().chain(flags.iter().copied()).map(str::to_owned).collect()
}

/// The whole lines of a file, each as JSON.
pub fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Rows as JSON has them, each with how often it is there, by table.
pub type Rows = BTreeMap<String, BTreeMap<String, usize>>;

/// What somebody knows who was told these events, each of which has to fit what was told before.
#[track_caller]
pub fn replay(events: &[Value]) -> Rows {
    let mut tables: Rows = TABLES.iter().map(|(name, _)| ((*name).to_owned(), BTreeMap::new())).collect();
    for event in events {
        let rows = tables.get_mut(event["table"].as_str().unwrap()).unwrap();
        if event["operation"] == "RESYNC" {
            rows.clear();
        }
        let (before, after) = (&event["before"], &event["after"]);
        let shape = (before.is_null(), after.is_null());
        let wanted = match event["operation"].as_str().unwrap() {
            "INSERT" => (true, false),
            "UPDATE" => (false, false),
            "DELETE" => (false, true),
            "RESYNC" => (true, true),
            other => panic!("{other}"),
        };
        assert_eq!(shape, wanted, "{event}");
        if !before.is_null() {
            let row = before.to_string();
            let count = rows.get_mut(&row).unwrap_or_else(|| panic!("{event} of what was not there"));
            *count -= 1;
            if *count == 0 {
                rows.remove(&row);
            }
        }
        if !after.is_null() {
            *rows.entry(after.to_string()).or_default() += 1;
        }
    }
    tables
}

/// What is in the database, in the words of the events, by SQLite itself.
pub fn rows(path: &Path) -> Rows {
    let conn = open_reader(path);
    let read = |(table, columns): (&str, &[&str])| {
        let mut all: BTreeMap<String, usize> = BTreeMap::new();
        let mut statement = conn.prepare(&format!("SELECT {} FROM {table}", columns.join(", "))).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let value = |place| match row.get_ref(place).unwrap() {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(integer) => json!(integer),
                ValueRef::Real(real) => json!(real),
                ValueRef::Text(text) => json!(std::str::from_utf8(text).unwrap()),
                ValueRef::Blob(blob) => json!(blob.iter().map(|byte| format!("{byte:02X}")).collect::<String>()),
            };
            let image: serde_json::Map<String, Value> =
                columns.iter().enumerate().map(|(place, name)| ((*name).to_owned(), value(place))).collect();
            *all.entry(Value::Object(image).to_string()).or_default() += 1;
        }
        (table.to_owned(), all)
    };
    TABLES.into_iter().map(read).collect()
}

/// A transaction of a few statements, some of which fail or change nothing.
pub fn write(conn: &Connection, random: &mut Random) {
    let value = |random: &mut Random| match random.below(6) {
        0 => "NULL".to_owned(),
        1 => format!("{}.25", random.below(9)),
        2 => format!("x'{:02x}'", random.below(256)),
        3 => "9223372036854775807".to_owned(),
        _ => format!("'v{}'", random.below(9)),
    };
    conn.execute_batch("BEGIN").unwrap();
    for _ in 0..1 + random.below(5) {
        let (id, to, v) = (random.below(40), random.below(40), value(random));
        let key = format!("'{}'", ["a", "B", "b", "c", ""][random.below(5)]);
        let sql = match random.below(12) {
            0 | 1 => format!("INSERT OR IGNORE INTO t VALUES ({id}, {v}, 'w{to}')"),
            2 => format!("REPLACE INTO t VALUES ({id}, {v}, 'w{to}')"),
            3 => format!("UPDATE t SET v = {v} WHERE id % 7 = {}", id % 7),
            4 => format!("UPDATE OR REPLACE t SET id = {to}, v = {v} WHERE id = {id}"),
            5 => format!("DELETE FROM t WHERE id = {id}"),
            6 => format!("REPLACE INTO p VALUES ({key}, {}, {v})", id % 4),
            7 => format!("UPDATE OR IGNORE p SET b = {}, a = {key} WHERE b = {}", to % 4, id % 4),
            8 => format!("DELETE FROM p WHERE a = {key}"),
            9 => format!("INSERT INTO bare VALUES ({v})"),
            10 => "DELETE FROM bare WHERE rowid = (SELECT min(rowid) FROM bare)".to_owned(),
            _ => format!("UPDATE bare SET v = {v} WHERE rowid % 5 = {}", id % 5),
        };
        conn.execute_batch(&sql).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
}

pub fn app(place: &Place, transactions: usize, random: &mut Random) -> Connection {
    let conn = open(&place.source());
    conn.execute_batch(SCHEMA).unwrap();
    (0..transactions).for_each(|_| write(&conn, random));
    conn
}

#[track_caller]
pub fn until_replayed(place: &Place, out: &Path) {
    until("the events to say what is there", || {
        let (told, there) = (replay(&events(out)), rows(&place.source()));
        if told == there { Ok(()) } else { Err(format!("told {told:?}\nthere {there:?}")) }
    });
}

fn operations(text: &str) -> Vec<String> {
    let parse = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        format!("{} {}", event["table"].as_str().unwrap(), event["operation"].as_str().unwrap())
    };
    text.lines().map(parse).collect()
}

#[test]
fn each_flag_does_its_part_and_together_they_do_theirs() {
    let place = Place::new();
    let conn = app(&place, 0, &mut Random::new(1));
    conn.execute_batch("INSERT INTO t VALUES (1, 'x', 'a'), (2, x'ff', 'b'); INSERT INTO bare VALUES (1)").unwrap();
    let schema = || -> Vec<String> {
        let mut all = conn.prepare("SELECT type || name || tbl_name || coalesce(sql, '') FROM sqlite_schema").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let bare = schema();
    for flags in [&["--bootstrap"][..], &["--cdc"], &["--cdc", "--bootstrap"]] {
        let said = cdc_fails(&place, 2, flags);
        assert!(said.contains("add --setup"), "{said}");
    }
    let said = cdc_fails(&place, 2, &["--table", "t"]);
    assert!(said.contains("at least one of --setup, --bootstrap, --cdc and --teardown"), "{said}");
    assert_eq!(schema(), bare, "nothing was done");

    // Setup alone says nothing, and what is written then waits for the consumer.
    assert_eq!(cdc(&place, &["--table", "t", "--setup"]), "");
    conn.execute_batch("INSERT INTO t VALUES (3, 1.0, NULL); INSERT INTO bare VALUES (2)").unwrap();
    let text = cdc(&place, &["--table", "t", "--bootstrap", "--output", "json"]);
    assert_eq!(operations(&text), ["t INSERT"; 3]);
    let event: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&event["before"], &event["after"]), (&Value::Null, &json!({"id": 2, "v": "FF", "w": "b"})));
    let keys: Vec<&String> = event.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 5, "{keys:?}");

    // Another table, the other forms, and what is accepted without effect.
    let flags = ["--table", "bare", "--table", "t", "--setup", "--bootstrap", "--blobs", "--consumer", "second"];
    let more = ["--disable-subsec", "--batch-size", "1", "--db-params", "_pragma=busy_timeout(100)"];
    let text = cdc(&place, &flags.iter().chain(&more).copied().collect::<Vec<_>>());
    let said: Vec<&str> = text.lines().collect();
    assert_eq!(said.len(), 5, "{text}");
    assert!(said[0].ends_with("Z: t INSERT") && said[0].find('.').is_none(), "{text}");
    let base64 =
        cdc(&place, &["--table", "t", "--bootstrap", "-o", "json", "--blob-encoding", "base64", "--consumer", "3"]);
    assert!(base64.contains(r#""v":"/w==""#), "{base64}");

    // Given once more, it is said first that what is known may be wrong.
    let text = cdc(&place, &["--table", "t", "--bootstrap", "--output", "json"]);
    assert_eq!(operations(&text), ["t RESYNC", "t INSERT", "t INSERT", "t INSERT"]);

    let list = expect_code(0, &["consumers", "list", "--db", &place.source().display().to_string(), "-o", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["3", "cdc", "second"]);

    // Teardown does nothing else.
    let text = cdc(&place, &["--teardown"]);
    assert!(text.contains("removed trigger") && !text.contains("INSERT"), "{text}");
    assert_eq!(schema(), bare);
}

#[test]
fn a_log_of_another_name_is_made_and_named() {
    let place = Place::new();
    let _conn = app(&place, 5, &mut Random::new(1));
    cdc(&place, &["--setup", "--bootstrap", "--log-table", "__cdc_events"]);
    let said = cdc_fails(&place, 2, &["--bootstrap", "--log-table", "__cdc_log"]);
    assert!(said.contains("--log-table __cdc_events"), "{said}");
    cdc(&place, &["--bootstrap"]);
}

/// A bootstrap among writes, then writes, then nobody, then the same consumer again.
#[test]
fn the_events_of_random_writes_replay_to_what_is_there() {
    for seed in 1..=3 {
        let (place, mut random) = (Place::new(), Random::new(seed));
        let conn = app(&place, 200, &mut random);
        let out = place.file("events.json");
        let flags = ["--setup", "--bootstrap", "--cdc", "-o", "json", "--batch-size", "3"];
        let first = Process::cdc(&place.source(), &out, &flags, &[]);
        (0..150).for_each(|_| write(&conn, &mut random));
        until_replayed(&place, &out);
        first.stop();
        (0..50).for_each(|_| write(&conn, &mut random));
        let second = Process::cdc(&place.source(), &out, &["--cdc", "-o", "json"], &[]);
        (0..50).for_each(|_| write(&conn, &mut random));
        until_replayed(&place, &out);
        second.stop();
        let all = events(&out);
        assert!(all.iter().all(|event| event["operation"] != "RESYNC"), "nothing was unsure");
        assert!(all.iter().any(|event| event["operation"] == "UPDATE"));
        assert!(all.is_sorted_by_key(|event| event["timestamp"].as_str().unwrap().to_owned()), "time goes on");
    }
}

/// A change of the schema that may have hidden something: the table is given again, or it stops.
#[test]
fn a_table_that_a_schema_change_made_unsure_is_given_again_or_stops_it() {
    let (place, mut random) = (Place::new(), Random::new(5));
    let conn = app(&place, 50, &mut random);
    let (out, other) = (place.file("events.json"), place.file("other.json"));
    cdc(&place, &["--setup", "--consumer", "strict"]);
    let process = Process::cdc(
        &place.source(),
        &out,
        &["--setup", "--bootstrap", "--cdc", "-o", "json", "--batch-size", "2"],
        &[],
    );
    until_replayed(&place, &out);
    conn.execute_batch("DROP TABLE bare; CREATE TABLE bare(v); INSERT INTO bare VALUES (1), (2)").unwrap();
    (0..30).for_each(|_| write(&conn, &mut random));
    until_replayed(&place, &out);
    assert!(events(&out).iter().any(|event| event["operation"] == "RESYNC" && event["table"] == "bare"));
    let strict = |gap| ["--cdc", "-o", "json", "--consumer", "strict", "--on-gap", gap];
    for again in ["once", "started again as it was"] {
        let mut stops = Process::cdc(&place.source(), &other, &strict("stop"), &[]);
        assert_eq!(stops.wait().code(), Some(1), "{again}");
        let said = stops.said();
        assert!(said.contains("\"bare\" unsure") && said.contains("--on-gap resync"), "{again}: {said}");
        assert!(events(&other).iter().all(|event| event["operation"] != "RESYNC"));
    }
    conn.execute_batch("INSERT INTO bare VALUES (3)").unwrap();
    let goes_on = Process::cdc(&place.source(), &other, &strict("resync"), &[]);
    until("the rows of the table, from RESYNC on", || {
        let of_table: Vec<_> = events(&other).into_iter().filter(|event| event["table"] == "bare").collect();
        let resync = of_table.iter().position(|event| event["operation"] == "RESYNC");
        match resync.is_some_and(|at| of_table[at..].iter().any(|event| event["operation"] == "INSERT")) {
            true => Ok(()),
            false => Err(format!("{} events of it", of_table.len())),
        }
    });
    goes_on.stop();
    process.stop();
}

fn position(place: &Place, consumer: &str) -> (i64, i64, bool) {
    let sql = "SELECT seq, (SELECT max(seq) FROM __cdc_log), cut_off FROM __cdc_consumers WHERE name = ?1";
    open_reader(&place.source()).query_row(sql, [consumer], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

#[track_caller]
fn until_noted(place: &Place, consumer: &str) {
    until(&format!("{consumer} to be noted at the log's end"), || {
        let (seq, head, _) = position(place, consumer);
        if seq == head { Ok(()) } else { Err(format!("{seq} of {head}")) }
    });
}

/// The first owns the database and prunes for all; when it is killed, the other does.
#[test]
fn several_consumers_read_one_log_each_at_its_own_pace() {
    let (place, mut random) = (Place::new(), Random::new(6));
    let conn = app(&place, 20, &mut random);
    let outs = ["a", "b", "late"].map(|name| place.file(name));
    let flags = |name| ["--setup", "--bootstrap", "--cdc", "-o", "json", "--consumer", name];
    let mut first = Process::cdc(&place.source(), &outs[0], &flags("a"), &[]);
    until_replayed(&place, &outs[0]);
    let second = Process::cdc(&place.source(), &outs[1], &flags("b"), &[]);
    until_replayed(&place, &outs[1]);
    // One that is met and does not run: the log is kept for it.
    cdc(&place, &["--bootstrap", "-o", "json", "--consumer", "late"]);
    std::fs::write(&outs[2], cdc(&place, &["--bootstrap", "-o", "json", "--consumer", "late"])).unwrap();
    (0..100).for_each(|_| write(&conn, &mut random));
    until_replayed(&place, &outs[0]);
    until_replayed(&place, &outs[1]);
    until_noted(&place, "a");
    until_noted(&place, "b");
    let told = status(&place.source());
    let states: Vec<Value> = told["events"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["live", "running", "offline"], "a answers, b runs beside it, late does not: {told}");
    assert_eq!((&told["events"][0]["name"], &told["events"][0]["output"]), (&json!("a"), &json!("json")), "{told}");
    let said = expect_code(0, &["status", "--db", &place.source().display().to_string()]);
    assert!(said.contains("events b: running") && said.contains("tables: 3 live of 3"), "{said}");
    first.kill();
    until("the second to own the database", || match status(&place.source())["node"]["id"].is_null() {
        true => Err("nobody answers".to_owned()),
        false => Ok(()),
    });
    let again = Process::cdc(&place.source(), &outs[0], &["--cdc", "-o", "json", "--consumer", "a"], &[]);
    let late = Process::cdc(&place.source(), &outs[2], &["--cdc", "-o", "json", "--consumer", "late"], &[]);
    (0..20).for_each(|_| write(&conn, &mut random));
    for out in &outs {
        until_replayed(&place, out);
    }
    until("what all have read to be pruned", || {
        let left: i64 =
            open_reader(&place.source()).query_row("SELECT count(*) FROM __cdc_log", [], |row| row.get(0)).unwrap();
        if left < 20 { Ok(()) } else { Err(format!("{left} entries")) }
    });
    late.stop();
    again.stop();
    second.stop();
}

#[test]
fn two_consumers_of_one_name_at_once_are_refused_and_one_that_runs_is_not_dropped() {
    let (place, mut random) = (Place::new(), Random::new(7));
    let _conn = app(&place, 5, &mut random);
    let (out, source) = (place.file("a"), place.source().display().to_string());
    let process = Process::cdc(&place.source(), &out, &["--setup", "--bootstrap", "--cdc", "-o", "json"], &[]);
    until_replayed(&place, &out);
    let said = cdc_fails(&place, 1, &["--cdc"]);
    assert!(said.contains("consumer \"cdc\" runs already (pid ") && said.contains("--consumer"), "{said}");
    let said = expect_failure(1, &["consumers", "drop", "cdc", "--db", &source]);
    assert!(said.contains("\"cdc\" runs (pid ") && said.contains("stop it, then drop it"), "{said}");
    cdc(&place, &["--setup", "--consumer", "idle"]);
    let said = expect_code(0, &["consumers", "drop", "idle", "--db", &source]);
    assert!(said.contains("dropped consumer idle"), "{said}");
    let said = expect_failure(2, &["consumers", "drop", "idle", "--db", &source]);
    assert!(said.contains("there is no consumer \"idle\""), "{said}");
    process.stop();
}

/// Kept for a while, then cut off: it stops, says so, and what was lost is given again when it is told to.
#[test]
fn a_consumer_that_is_away_beyond_retention_stops_with_events_lost_and_the_way_on() {
    let (place, mut random) = (Place::new(), Random::new(8));
    let conn = app(&place, 50, &mut random);
    let config = place.file("node.yaml");
    let text = format!(
        "name: a\nspec: {{ connection_string: '{}' }}\ncapture: {{ images: full, retention: {{ rows: 1000 }} }}\n",
        place.source().display()
    );
    std::fs::write(&config, text).unwrap();
    expect_code(0, &["setup", "--config", &config.display().to_string()]);
    let (out, other) = (place.file("away.json"), place.file("other.json"));
    std::fs::write(&out, cdc(&place, &["--bootstrap", "-o", "json", "--consumer", "away"])).unwrap();
    let running = Process::cdc(&place.source(), &other, &["--bootstrap", "--cdc", "-o", "json"], &[]);
    until("the one that is away to be cut off", || {
        // Not so fast that the log is full before anybody looks: then nothing is logged, and all are cut off.
        pause(Duration::from_millis(40));
        write(&conn, &mut random);
        if position(&place, "away").2 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    until_replayed(&place, &other);
    for flags in [&["--cdc"][..], &["--setup", "--cdc"]] {
        let said = cdc_fails(&place, 1, &[flags, &["--consumer", "away"]].concat());
        assert!(said.contains("events_lost") && said.contains("--bootstrap"), "{said}");
    }
    let again = Process::cdc(&place.source(), &out, &["--bootstrap", "--cdc", "-o", "json", "--consumer", "away"], &[]);
    write(&conn, &mut random);
    until_replayed(&place, &out);
    assert!(events(&out).iter().any(|event| event["operation"] == "RESYNC"));
    again.stop();
    running.stop();
}

/// A node that starts beside a consumer owns the database; the consumer goes on.
#[test]
fn a_consumer_makes_room_for_a_node_and_goes_on_beside_it() {
    let (place, mut random) = (Place::new(), Random::new(9));
    let conn = app(&place, 20, &mut random);
    let out = place.file("events.json");
    let consumer = Process::cdc(&place.source(), &out, &["--setup", "--bootstrap", "--cdc", "-o", "json"], &[]);
    until_replayed(&place, &out);
    let source = place.source().display().to_string();
    let said = expect_code(0, &["setup", "--db", &source, "--images", "full"]);
    assert!(said.contains("nothing to do"), "whoever owns the database says so: {said}");
    let (config, admin) = (place.file("node.yaml"), format!("127.0.0.1:{}", free_port()));
    let text = format!(
        "name: keeper\nspec: {{ connection_string: '{source}' }}\ncapture: {{ images: full }}\nadmin: {{ listen: '{admin}' }}
links: [{{ name: b, peer: 'localhost:9', directions: send }}]\n",
    );
    std::fs::write(&config, text).unwrap();
    let node = Process::run(&config, &[]);
    until("the node to own the database", || match status(&place.source())["node"]["name"] == "keeper" {
        true => Ok(()),
        false => Err("not yet".to_owned()),
    });
    let health: serde_json::Value = serde_json::from_str(&http_get(&admin, "/status.json").unwrap().1).unwrap();
    assert_eq!(
        (&health["events"][0]["name"], &health["events"][0]["state"]),
        (&"cdc".into(), &"running".into()),
        "{health}"
    );
    (0..20).for_each(|_| write(&conn, &mut random));
    conn.execute_batch("ALTER TABLE t RENAME COLUMN v TO x; ALTER TABLE t RENAME COLUMN x TO v").unwrap();
    (0..20).for_each(|_| write(&conn, &mut random));
    until_replayed(&place, &out);
    let said = cdc_fails(&place, 1, &["--setup", "--cdc", "--table", "t", "--take-over", "--consumer", "x"]);
    assert!(said.contains("change its config"), "{said}");
    let said = expect_failure(1, &["setup", "--db", &place.source().display().to_string(), "--images", "key"]);
    assert!(said.contains("has capture.images: full"), "{said}");
    // What the node has in place already needs none of its doing.
    cdc(&place, &["--setup", "--consumer", "x"]);
    expect_code(0, &["consumers", "drop", "x", "--db", &source]);
    let list = expect_code(0, &["consumers", "list", "--db", &source]);
    assert!(list.contains("cdc") && !list.contains("x  "), "{list}");
    consumer.stop();
    node.stop();
}

/// Nobody compared the schema there, and the consumer waited for it for ever.
#[test]
fn a_consumer_beside_a_node_that_only_receives_goes_on_where_the_schema_moves() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch("CREATE TABLE far(id INTEGER PRIMARY KEY)").unwrap();
    let near = open(&place.replica());
    near.execute_batch("CREATE TABLE near(id INTEGER PRIMARY KEY)").unwrap();
    let (replica, out) = (place.replica().display().to_string(), place.file("events.json"));
    expect_code(0, &["cdc", "--db", &replica, "--table", "near", "--setup"]);
    let node = Process::replicate(&place.source(), &place.replica(), &[]);
    quiesce(&place.source(), &place.replica());
    let consumer = Process::cdc(&place.replica(), &out, &["--cdc", "-o", "json"], &[]);
    for (id, ddl) in (1..).zip(["SELECT 1", "ALTER TABLE far ADD COLUMN v", "CREATE INDEX i ON far(v)"]) {
        conn.execute_batch(ddl).unwrap();
        quiesce(&place.source(), &place.replica());
        near.execute("INSERT INTO near VALUES (?1)", [id]).unwrap();
        until(&format!("the event after {ddl}"), || {
            match events(&out).last().map(|event| event["after"]["id"].clone()) {
                Some(last) if last == id => Ok(()),
                last => Err(format!("{last:?}")),
            }
        });
    }
    consumer.stop();
    node.stop();
}

/// The example of a handler, as whoever writes one runs it.
#[test]
fn the_example_forgets_what_changes() {
    let (place, mut random) = (Place::new(), Random::new(10));
    let conn = app(&place, 3, &mut random);
    let program = Path::new(env!("CARGO_BIN_EXE_twinlite")).with_file_name("examples").join("invalidate_cache");
    if !program.exists() {
        // Whoever asks for these tests alone has not built it.
        return skipped("the_example_forgets_what_changes", "cargo build --example invalidate_cache");
    }
    cdc(&place, &["--setup", "--consumer", "cache"]);
    conn.execute_batch("DELETE FROM t; INSERT INTO t VALUES (77, 'a', NULL); UPDATE t SET id = 78").unwrap();
    let out = std::fs::File::create(place.file("out")).unwrap();
    let mut running =
        std::process::Command::new(program).args([&place.source(), Path::new("t")]).stdout(out).spawn().unwrap();
    until("the example to say what it forgets", || {
        let said = std::fs::read_to_string(place.file("out")).unwrap();
        if said.ends_with("t: forget (77)\nt: forget (77)\nt: forget (78)\n") { Ok(()) } else { Err(said) }
    });
    running.kill().unwrap();
    running.wait().unwrap();
}
