//! Configurations, ports and peers that do not fit: each is refused, or halts the link with the way out on both sides.

use std::fs;

use crate::{
    bad_input::{refused, small},
    support::{
        Place, open, open_reader,
        pair::{Options, Pair, running},
        process::{free_port, http_get, status},
        wait::until,
    },
};

#[test]
fn every_fault_of_a_configuration_is_told_at_once_by_every_command() {
    let place = Place::new();
    let text = "name: source\nspec: { connection_string: s.db }\nlissten: 127.0.0.1:1\nbatch_size: lots\n\
                window_rows: -5\ngrace: 10 parsecs\ncapture: { images: both, retention: { rows: x } }\n\
                links:\n  - { name: replica, directions: sideways, peer: no port, compression: gzip, write_mode: append }\n\
                log: { format: xml }\nadmin: 3\n";
    fs::write(place.file("bad.yaml"), text).unwrap();
    let keys = [
        "lissten",
        "batch_size",
        "window_rows",
        "grace",
        "capture.images",
        "capture.retention.rows",
        "links[0].directions",
        "links[0].peer",
        "links[0].compression",
        "links[0].write_mode",
        "log.format",
        "admin",
    ];
    for command in ["run", "status", "setup", "teardown", "resync"] {
        let all = refused(&place, 2, &format!("{command} --config {{d}}/bad.yaml"), &["bad.yaml: "]);
        for key in keys {
            let lines = all.lines().filter(|line| line.contains(&format!("bad.yaml: {key}: "))).count();
            assert_eq!(lines, 1, "{key} in:\n{all}");
        }
        assert_eq!(all.lines().count(), keys.len(), "{all}");
    }
    fs::write(place.file("bad.yaml"), "name: [").unwrap();
    refused(&place, 2, "run --config {d}/bad.yaml", &["bad.yaml", "not valid YAML", "line 2"]);
}

#[test]
fn a_port_that_is_taken_is_named_whoever_wants_it() {
    let place = Place::new();
    drop(small(&place.source()));
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let config = |lines: &str| {
        let database = place.source().display().to_string();
        let text = format!(
            "name: source\nspec: {{ connection_string: {database} }}\nlinks: [{{ name: replica, directions: send }}]\n{lines}"
        );
        fs::write(place.file("source.yaml"), text).unwrap();
    };
    config(&format!("listen: {taken}\n"));
    refused(&place, 1, "run --config {d}/source.yaml", &[&taken, "is taken", "`listen`"]);
    config(&format!("listen: 127.0.0.1:{}\nadmin: {{ listen: {taken} }}\n", free_port()));
    refused(&place, 1, "run --config {d}/source.yaml", &[&taken, "admin.listen", "taken"]);
    config(&format!("listen: 127.0.0.1:{}\ncloudquery: {{ listen: {taken} }}\n", free_port()));
    refused(&place, 1, "run --config {d}/source.yaml", &[&taken, "cloudquery.listen", "another process"]);
    let objects = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_\\_cdc%' ESCAPE '\\'";
    let installed: i64 = open_reader(&place.source()).query_row(objects, [], |row| row.get(0)).unwrap();
    assert_eq!(installed, 0, "the database was touched before the port was known to be free");
    config("listen: 0.0.0.0:7745\n");
    refused(&place, 2, "run --config {d}/source.yaml", &["0.0.0.0:7745", "insecure: true"]);
}

#[test]
fn a_poisoned_row_is_named_on_both_sides_until_the_operator_acts() {
    let place = Place::new();
    let conn = small(&place.source());
    let mut pair = running(place, &Options::default());
    let rebuild = |column: &str| {
        format!(
            "BEGIN; CREATE TABLE new(x INTEGER PRIMARY KEY, {column}); INSERT INTO new SELECT * FROM a; DROP TABLE a;
             ALTER TABLE new RENAME TO a; COMMIT"
        )
    };
    conn.execute_batch("DELETE FROM a WHERE y IS NULL").unwrap();
    pair.quiesce();
    open(&pair.place.replica()).execute_batch(&rebuild("y NOT NULL")).unwrap();
    conn.execute_batch("BEGIN; INSERT INTO a VALUES (10, 'fine'); INSERT INTO a VALUES (77, NULL); COMMIT").unwrap();
    for admin in [pair.source_admin.clone(), pair.replica_admin.clone()] {
        let said = halted(&admin);
        for word in ["poisoned_row", "replica.db", "table \\\"a\\\"", "key (77)", "column \\\"y\\\"", "NOT NULL"] {
            assert!(said.contains(word), "no {word} in {said}");
        }
        assert_eq!(http_get(&admin, "/ready").unwrap().0, 503);
        assert_eq!(http_get(&admin, "/live").unwrap().0, 200);
    }
    // A session that is refused at once says nothing of the log; what is behind is known all the same.
    until("the replica to say how far behind it is", || {
        let (_, body) = http_get(&pair.replica_admin, "/status.json")?;
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        let link = &status["links"][0];
        let behind = link["changes_behind"].as_i64().is_some_and(|changes| changes > 0);
        if behind && link["state"] == "halted" { Ok(()) } else { Err(body) }
    });
    // Each looks again every few seconds, and says nothing new of it.
    let (source, replica) = (pair.place.source(), pair.place.replica());
    for (database, process) in [(&source, &pair.source), (&replica, &pair.replica)] {
        until("both to have looked again", || {
            let metrics = &status(database)["metrics"];
            if metrics["reconnects_total"].as_u64() >= Some(3) { Ok(()) } else { Err(metrics.to_string()) }
        });
        let said = process.as_ref().unwrap().said();
        for line in ["connected", "link halted"] {
            assert_eq!(said.matches(line).count(), 1, "{line} in:\n{said}");
        }
    }
    let rows: i64 =
        open_reader(&pair.place.replica()).query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1, "the link halts before the whole window");
    open(&pair.place.replica()).execute_batch(&rebuild("y")).unwrap();
    pair.assert_equal();
    pair.stop();
}

/// What the only link of a node says once it has halted.
fn halted(admin: &str) -> String {
    until("the link to halt", || {
        let (_, body) = http_get(admin, "/status.json")?;
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        let link = &status["links"][0];
        if link["state"] == "halted" { Ok(link["last_error"].to_string()) } else { Err(body) }
    })
}

#[test]
fn two_nodes_that_do_not_fit_say_why_on_both_sides() {
    for (from, to, word) in [
        ("directions: receive", "directions: send", "directions do not meet"),
        ("- name: source", "- name: sauce", "make the two configs name each other"),
    ] {
        let place = Place::new();
        drop(small(&place.source()));
        drop(small(&place.replica()));
        let mut pair = Pair::new(place, &Options::default());
        let config = fs::read_to_string(pair.replica_config()).unwrap();
        assert!(config.contains(from));
        fs::write(pair.replica_config(), config.replace(from, to)).unwrap();
        pair.start();
        for admin in [pair.source_admin.clone(), pair.replica_admin.clone()] {
            let said = halted(&admin);
            assert!(said.contains(word), "{said}");
        }
    }
}

/// A node of another release dials: it is told so, and `status` says so here.
#[test]
fn a_peer_of_another_protocol_version_is_told_so() {
    use twinlite::link::{self, Frame};
    let place = Place::new();
    drop(small(&place.source()));
    let mut pair = Pair::new(place, &Options::default());
    pair.start_source(&[]);
    let address: link::Address = pair.proxy.address().to_string().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let trouble = runtime.block_on(async {
        let mut connection = loop {
            if let Ok(connection) = link::dial(&address, link::DialOptions::default()).await {
                break connection;
            }
        };
        connection.sink.data(Frame::Hello(from_another_release())).await.unwrap();
        loop {
            match connection.stream.next().await.unwrap() {
                Some(Frame::Fault(trouble)) => return trouble,
                Some(_) => {}
                None => panic!("the connection ended without a word"),
            }
        }
    });
    assert_eq!(trouble.code, "protocol_version");
    assert!(trouble.message.contains("[99]") && trouble.hint.contains("upgrade"), "{trouble:?}");
    assert!(halted(&pair.source_admin).contains("protocol_version"));
}

fn from_another_release() -> twinlite::link::Hello {
    twinlite::link::Hello {
        versions: vec![99],
        node: twinlite::model::NodeId(7),
        name: "replica".to_owned(),
        to_name: "source".to_owned(),
        sends: false,
        receives: true,
        tables: (Vec::new(), Vec::new()),
        kinds: twinlite::model::SchemaKinds::ALL,
        policies: String::new(),
        seed: None,
        empty: true,
        compressions: Vec::new(),
        held: None,
        log: None,
        on_divergence_resnapshot: false,
    }
}
