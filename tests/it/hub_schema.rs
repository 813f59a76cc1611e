//! Schema changes at a leaf of a hub: they reach the other leaf, and what contradicts halts the link where the two meet.

use std::fs;

use rusqlite::Connection;

use crate::support::{
    nodes::{Nodes, Settings},
    process::expect_code,
    wait::until,
};

const TABLES: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')";

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn conflicts(nodes: &Nodes) -> i64 {
    nodes.nodes.iter().map(|node| node.number("SELECT count(*) FROM __cdc_conflicts")).sum()
}

#[test]
fn a_change_at_one_leaf_reaches_the_other_through_the_hub() {
    let mut nodes = Nodes::running(3, TABLES, &Settings::default());
    let [a, b, c] = [0, 1, 2].map(|node| nodes.nodes[node].app());
    run(
        &b,
        "ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 7; CREATE INDEX t_n ON t(n); CREATE VIEW named AS SELECT v FROM t",
    );
    run(
        &b,
        "UPDATE t SET n = 8 WHERE id = 2; CREATE TABLE fresh(k TEXT PRIMARY KEY, w); INSERT INTO fresh VALUES ('b', 1)",
    );
    run(&c, "UPDATE t SET v = 'by c' WHERE id = 3");
    run(&a, "UPDATE t SET v = 'by a' WHERE id = 1");
    nodes.assert_equal();
    let of_c = &nodes.nodes[2];
    assert_eq!(of_c.number("SELECT count(*) FROM t WHERE n = 8 AND id = 2 OR n = 7 AND v IN ('by a', 'by c')"), 3);
    assert_eq!(of_c.number("SELECT count(*) FROM sqlite_schema WHERE name IN ('t_n', 'named', 'fresh')"), 3);
    // And back, in what the other leaf knows by now.
    run(&c, "UPDATE t SET n = 9 WHERE id = 3; INSERT INTO fresh VALUES ('c', 2); DELETE FROM fresh WHERE k = 'b'");
    nodes.assert_equal();
    assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t WHERE n = 9"), 1);
    assert_eq!((nodes.nodes[1].number("SELECT count(*) FROM fresh"), conflicts(&nodes)), (1, 0));
    for node in &nodes.nodes {
        assert_eq!(node.number("SELECT count(*) FROM __cdc_log WHERE op = 6"), 0, "{} took it for drift", node.name);
    }
    nodes.stop();
}

#[test]
fn leaves_that_contradict_each_other_halt_where_they_meet_and_nowhere_else() {
    let mut nodes = Nodes::running(3, TABLES, &Settings::default());
    let [b, c] = [1, 2].map(|node| nodes.nodes[node].app());
    nodes.proxies[1].refuse();
    nodes.proxies[1].cut();
    run(&b, "ALTER TABLE t ADD COLUMN n TEXT; UPDATE t SET n = 'b' WHERE id = 1");
    run(&c, "ALTER TABLE t ADD COLUMN n INTEGER; UPDATE t SET n = 5 WHERE id = 2");
    until("the hub to have the column", || {
        match nodes.nodes[0].number("SELECT count(*) FROM pragma_table_info('t') WHERE name = 'n' AND type = 'TEXT'") {
            1 => Ok(()),
            _ => Err("not yet".to_owned()),
        }
    });
    nodes.proxies[1].heal();
    for (node, peer) in [(0, "c"), (2, "a")] {
        until(&format!("the link of {} to {peer} to halt", nodes.nodes[node].name), || {
            let links = nodes.nodes[node].links();
            let halted = links.iter().find(|link| link["name"] == peer && link["state"] == "halted");
            let said = halted.ok_or_else(|| format!("{links:?}"))?["last_error"].to_string();
            assert!(said.contains("n TEXT") && said.contains("n INTEGER"), "{said}");
            Ok(())
        });
    }
    // Everybody goes on writing, and the hub and the other leaf go on exchanging it.
    run(&c, "UPDATE t SET v = 'while halted' WHERE id = 3");
    run(&b, "UPDATE t SET v = 'goes on' WHERE id = 1");
    until("the hub to have what b writes", || {
        match nodes.nodes[0].number("SELECT count(*) FROM t WHERE v = 'goes on'") {
            1 => Ok(()),
            _ => Err("not yet".to_owned()),
        }
    });
    let script = nodes.place.file("mend.sql");
    let mend = "ALTER TABLE t RENAME COLUMN n TO old; ALTER TABLE t ADD COLUMN n TEXT; UPDATE t SET n = old WHERE old NOT NULL;
        ALTER TABLE t DROP COLUMN old";
    fs::write(&script, mend).unwrap();
    expect_code(0, &["ddl".as_ref(), "--db".as_ref(), nodes.nodes[2].database.as_os_str(), script.as_os_str()]);
    nodes.assert_equal();
    let all = "SELECT group_concat(v || ifnull(n, '-'), ' ' ORDER BY id) = 'goes onb two5 while halted-' FROM t";
    assert_eq!(nodes.nodes[1].number(all), 1);
    nodes.stop();
}
