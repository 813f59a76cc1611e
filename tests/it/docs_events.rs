//! What docs/events.md tells people to write is run, with this machine's paths and ports in place of the examples'.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{
    Place,
    hook::{Hook, header},
    open, open_reader,
    process::{Process, expect_code, status, twinlite},
    wait::until,
};

const PAGE: &str = include_str!("../../docs/events.md");

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let blocks = PAGE.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// The arguments of the commands, with the database in that place.
fn commands(place: &Place) -> Vec<Vec<String>> {
    let database = place.file("shop.db").display().to_string();
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|block| block.lines()).map(|line| line.split('#').next().unwrap().trim());
    let words = lines.map(|line| line.split(' ').map(|word| word.replace("shop.db", &database)).collect::<Vec<_>>());
    words
        .map(|words| {
            assert_eq!(words[0], "twinlite");
            words[1..].to_vec()
        })
        .collect()
}

fn schema(place: &Place) -> String {
    let sql =
        "SELECT group_concat(type || name || tbl_name || coalesce(sql, ''), '\n' ORDER BY name) FROM sqlite_schema";
    open_reader(&place.file("shop.db")).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The quick start, and the consumer that it leaves, from the first command to the last.
#[test]
fn the_quick_start_streams_and_leaves_nothing() {
    let place = Place::new();
    let [sample, cdc, teardown, list, drop] = commands(&place).try_into().unwrap_or_else(|found| panic!("{found:?}"));
    expect_code(0, &sample);
    let before = schema(&place);
    let (reader, writer) = std::io::pipe().unwrap();
    let stream = Process::start_into(writer, &cdc);
    let mut lines = BufReader::new(reader).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let app = open(&place.file("shop.db"));
    let orders: i64 = app.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    let orders = usize::try_from(orders).unwrap();
    assert!(orders > 10);
    let rows: Vec<Value> = lines.by_ref().take(orders).collect();
    assert!(rows.iter().all(|event| event["operation"] == "INSERT" && event["before"].is_null()), "{rows:?}");
    app.execute_batch("DELETE FROM orders WHERE rowid = (SELECT max(rowid) FROM orders)").unwrap();
    let event = lines.next().unwrap();
    let example: Value = serde_json::from_str(&blocks("json")[0]).unwrap();
    let keys = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((keys(&event), &event["operation"]), (keys(&example), &"DELETE".into()));
    stream.stop();
    assert!(expect_code(0, &list).contains("cdc"));
    expect_code(0, &drop);
    assert!(!expect_code(0, &list).contains("cdc "));
    expect_code(0, &teardown);
    assert_eq!(schema(&place), before);
}

#[test]
fn the_documented_node_posts_and_prints() {
    let (place, hook) = (Place::new(), Hook::start());
    let app = open(&place.file("shop.db"));
    app.execute_batch(
        "CREATE TABLE orders(id INTEGER PRIMARY KEY); CREATE TABLE users(id INTEGER PRIMARY KEY);
                       INSERT INTO users VALUES (1)",
    )
    .unwrap();
    let [yaml] = blocks("yaml").try_into().unwrap_or_else(|found| panic!("{found:?}"));
    let database = place.file("shop.db").display().to_string();
    let replaced = [("/data/shop.db", &database), ("https://search.example.org/hook", &hook.url)];
    let text = replaced.iter().fold(yaml, |text, (from, to)| {
        assert!(text.contains(from), "the example does not say {from}");
        text.replace(from, to)
    });
    let config = place.file("node.yaml");
    std::fs::write(&config, text).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlite"));
    command.args(["run", "--config", config.to_str().unwrap()]).env("SEARCH_TOKEN", "s3cret").stdout(writer);
    let node = Process::spawn("run", &mut command);
    drop(command);
    until("the row that was there", || if hook.taken().is_empty() { Err("nothing yet".to_owned()) } else { Ok(()) });
    until("both to be live", || {
        let status = status(&place.file("shop.db"));
        let states: Vec<&Value> =
            status["events"].as_array().into_iter().flatten().map(|output| &output["state"]).collect();
        if states == ["live", "live"] { Ok(()) } else { Err(status.to_string()) }
    });
    app.execute_batch("INSERT INTO users VALUES (2); INSERT INTO orders VALUES (3)").unwrap();
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert!(line.starts_with(r#"{"table":"orders","#), "only orders are printed: {line}");
    until("the new rows", || {
        let posts = hook.taken();
        let taken: usize = posts.iter().map(|post| post.changes().count()).sum();
        if taken == 3 { Ok(()) } else { Err(format!("{taken} changes")) }
    });
    let post = &hook.taken()[0];
    assert_eq!(header(&post.head, "authorization"), Some("Bearer s3cret"));
    // The page shows a POST; a real one has its headers, and its keys in its order.
    let [shown] = blocks("http").try_into().unwrap_or_else(|found| panic!("{found:?}"));
    for line in shown.lines().skip(1).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        let real = header(&post.head, name).unwrap_or_else(|| panic!("a POST has no {name}"));
        assert!(name == "Idempotency-Key" && real.split('-').count() == value.split('-').count() || real == value);
    }
    for key in post.body.as_object().unwrap().keys() {
        assert!(shown.contains(&format!("\"{key}\":")), "{key} is not shown");
    }
    node.stop();
}

/// Every option that the page names is there, and every one that is there is named.
#[test]
fn the_options_of_the_page_are_those_of_the_command() {
    let help = String::from_utf8(twinlite(&["cdc", "--help"]).stdout).unwrap();
    let flags = |text: &str| {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let found = text.match_indices("--").filter(|(at, _)| !text[..*at].ends_with(is_name));
        let name = |(at, _): (usize, &str)| text[at + 2..].split(|c| !is_name(c)).next().unwrap().to_owned();
        found
            .map(name)
            .filter(|name| !name.is_empty() && !name.starts_with('-'))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let section = PAGE.split("## From sqlite-cdc").nth(1).unwrap();
    let general = ["help", "log-level", "version"].map(str::to_owned).into();
    assert_eq!(flags(section), &flags(&help) - &general);
}

#[test]
fn a_header_of_the_page_is_taken_from_the_environment() {
    let (place, hook) = (Place::new(), Hook::start());
    open(&place.file("shop.db"))
        .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
        .unwrap();
    let documented = "Authorization=Bearer ${TOKEN}";
    assert!(PAGE.contains(&format!("--header '{documented}'")));
    let output = Command::new(env!("CARGO_BIN_EXE_twinlite"))
        .args(["cdc", "--db", place.file("shop.db").to_str().unwrap(), "--setup", "--bootstrap"])
        .args(["--output", &hook.url, "--header", documented])
        .env("TOKEN", "s3cret")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let posts = hook.taken();
    assert_eq!((posts.len(), header(&posts[0].head, "authorization")), (1, Some("Bearer s3cret")));
}
