//! What the documentation tells people to write is run, with this machine's paths and ports in place of the examples'.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::cq::Serve;
use crate::support::process::{Process, expect_code, twinlite};
use crate::support::sdk::{Served, python};
use crate::support::wait::until;
use crate::support::{Place, open, open_reader, skipped};

const README: &str = include_str!("../../README.md");
const PAGE: &str = include_str!("../../docs/cloudquery.md");

/// The YAML examples of a page, in order.
fn examples<const COUNT: usize>(page: &str) -> [String; COUNT] {
    let blocks = page.split("```yaml\n").skip(1);
    let blocks: Vec<String> = blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect();
    blocks.try_into().unwrap_or_else(|blocks: Vec<String>| panic!("{} examples", blocks.len()))
}

/// An example with each of these in place of what it says, which it must say.
#[track_caller]
fn with(example: &str, replaced: &[(&str, &str)]) -> String {
    replaced.iter().fold(example.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the example does not say {from:?}:\n{text}");
        text.replace(from, to)
    })
}

fn written(place: &Place, text: &str) -> PathBuf {
    let path = place.file("spec.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

fn synced(place: &Place, text: &str) -> String {
    let path = written(place, text);
    expect_code(0, &["sync".as_ref(), path.as_os_str()])
}

fn path(place: &Place, name: &str) -> String {
    place.file(name).display().to_string()
}

fn app(place: &Place) -> Connection {
    let app = open(&place.file("app.db"));
    app.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    )
    .unwrap();
    app
}

fn rows(database: &Path) -> Result<String, String> {
    let sql = "SELECT group_concat(id || v, ' ' ORDER BY id) FROM t";
    if !database.exists() {
        return Err("no file".to_owned());
    }
    open_reader(database).query_row(sql, [], |row| row.get(0)).map_err(|error| error.to_string())
}

const CHANGES: &str = "DELETE FROM t WHERE id = 1; UPDATE t SET v = 'z' WHERE id = 3; INSERT INTO t VALUES (4, 'd')";

#[test]
fn the_documented_source_is_synced_into_the_documented_destination() {
    let place = Place::new();
    let app = app(&place);
    let [destination, source, _, _] = examples(PAGE);
    let (to, from) = (Serve::tcp(), Serve::tcp());
    let copy = path(&place, "cloudquery.db");
    let destination = with(&destination, &[("localhost:7777", &to.address), ("./cloudquery.db", &copy)]);
    let source = with(&source, &[("localhost:7778", &from.address), ("./app.db", &path(&place, "app.db"))]);
    let text = format!("{source}---\n{destination}");
    assert!(synced(&place, &text).contains("Resources: 3, Errors: 0"));
    app.execute_batch(CHANGES).unwrap();
    assert!(synced(&place, &text).contains("Resources: 2, Errors: 0"), "only what changed");
    assert_eq!(rows(copy.as_ref()).unwrap(), "2b 3z 4d");
}

#[test]
fn the_documented_node_feeds_its_destination() {
    let place = Place::new();
    let app = app(&place);
    let [_, _, node, _] = examples(PAGE);
    let (lake, copy) = (Serve::tcp(), path(&place, "lake.db"));
    let replaced =
        [("lake:7777", lake.address.as_str()), ("/data/lake.db", &copy), ("/data/app.db", &path(&place, "app.db"))];
    let node = Process::run(&written(&place, &with(&node, &replaced)), &[]);
    app.execute_batch(CHANGES).unwrap();
    until("the lake to hold the rows", || match rows(copy.as_ref()) {
        Ok(rows) if rows == "2b 3z 4d" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    node.stop();
}

#[test]
fn the_documented_sync_without_another_program_goes_on_where_it_was() {
    let place = Place::new();
    let app = app(&place);
    let [_, _, _, both] = examples(PAGE);
    let copy = path(&place, "copy.db");
    let spec = written(&place, &with(&both, &[("./copy.db", &copy)]));
    let run = |wanted: &str| {
        let args = ["sync", spec.to_str().unwrap(), "-o", "json"];
        let file = place.file("app.db");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_twinlite")).args(args).env("APP_DB", file).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(rows(copy.as_ref()).unwrap(), wanted);
        summary["resources"].clone()
    };
    assert_eq!(run("1a 2b 3c"), json!(3));
    app.execute_batch(CHANGES).unwrap();
    assert_eq!(run("2b 3z 4d"), json!(2));
    assert_eq!(run("2b 3z 4d"), json!(0));
    assert_eq!(twinlite(&["sync", spec.to_str().unwrap()]).status.code(), Some(2), "without the variable");
}

#[test]
fn the_readmes_examples_work_with_plugins_of_the_python_sdk() {
    let Some(python) = python() else {
        let test = "the_readmes_examples_work_with_plugins_of_the_python_sdk";
        return skipped(test, "no Python with CloudQuery's SDK could be made in target/cq");
    };
    let place = Place::new();
    let _app = app(&place);
    let [into, out_of] = examples(README);
    let twinlite = ("/usr/local/bin/twinlite", env!("CARGO_BIN_EXE_twinlite"));
    let (shelf, copy) = (Served::start(&python, "source.py"), path(&place, "cloudquery.db"));
    let into = with(&into, &[("localhost:7778", &shelf.address), twinlite, ("./cloudquery.db", &copy)]);
    assert!(synced(&place, &into).contains("Resources: 9, Errors: 0"));
    let count = "SELECT count(*) FROM items WHERE _cq_source_name = 'shelf'";
    assert_eq!(open_reader(copy.as_ref()).query_row(count, [], |row| row.get(0)), Ok(3));
    let warehouse = Served::start(&python, "destination.py");
    // The test's destination wants to be told where to put what it got.
    let own = format!("write_mode: overwrite-delete-stale\n  spec: {{ file: '{}' }}  #", path(&place, "held.json"));
    let replaced = [
        ("localhost:7779", warehouse.address.as_str()),
        twinlite,
        ("./app.db", &path(&place, "app.db")),
        ("write_mode: overwrite-delete-stale", &own),
    ];
    assert!(synced(&place, &with(&out_of, &replaced)).contains("Resources: 3, Errors: 0"));
    let held: Value = serde_json::from_str(&std::fs::read_to_string(place.file("held.json")).unwrap()).unwrap();
    let held: Vec<&Value> = held["t"].as_array().unwrap().iter().map(|row| &row["v"]).collect();
    assert_eq!(held, ["a", "b", "c"]);
}

/// The table of the guide's steps names files; they are there.
#[test]
fn the_guides_steps_name_files_that_exist() {
    let table = PAGE.split("| step of CloudQuery's guide").nth(1).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for name in table.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") || name.ends_with('/')) {
        let places = ["", "src/cloudquery/"].map(|folder| root.join(folder).join(name));
        assert!(places.iter().any(|place| place.exists()), "{name} is not there");
        named += 1;
    }
    assert!(named >= 15, "{named} files");
}

#[test]
fn the_commands_of_two_way_replication_do_what_the_page_says() {
    let page = include_str!("../../docs/two-way.md");
    let commands: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("twinlite replicate"))
        .map(|line| line.split('#').next().unwrap().trim())
        .collect();
    let [plain, seeded, merged] = commands.try_into().unwrap_or_else(|found| panic!("{found:?}"));
    let run = |place: &Place, command: &str, code: i32| {
        let files = [path(place, "a.db"), path(place, "b.db")];
        let words = command.split_whitespace().skip(1).map(|word| match word {
            "a.db" => files[0].clone(),
            "b.db" => files[1].clone(),
            word => word.to_owned(),
        });
        let args: Vec<String> = words.chain(["--once".to_owned(), "--verify".to_owned()]).collect();
        let output = twinlite(&args);
        assert_eq!(output.status.code(), Some(code), "{command}: {output:?}");
    };
    let full = || {
        let place = Place::new();
        for (name, rows) in [("a.db", "(1, 'a'), (2, 'a')"), ("b.db", "(2, 'b'), (3, 'b')")] {
            let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES";
            open(&place.file(name)).execute_batch(&format!("{ddl} {rows}")).unwrap();
        }
        place
    };
    let place = Place::new();
    app(&place);
    std::fs::rename(place.file("app.db"), place.file("a.db")).unwrap();
    run(&place, plain, 0);
    assert_eq!(rows(&place.file("b.db")).unwrap(), "1a 2b 3c");
    let place = full();
    run(&place, plain, 1);
    assert_eq!(rows(&place.file("b.db")).unwrap(), "2b 3b", "nothing is changed");
    run(&place, seeded, 0);
    assert_eq!(rows(&place.file("b.db")).unwrap(), "1a 2a");
    let place = full();
    run(&place, merged, 0);
    assert_eq!(rows(&place.file("a.db")).unwrap(), "1a 2a 3b");
}
