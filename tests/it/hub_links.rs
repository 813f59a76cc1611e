//! Links that are taken from a hub, and come back.

use std::fs;

use rusqlite::Connection;

use crate::support::{
    nodes::{Nodes, Settings},
    process::status,
    wait::until,
};

const TABLES: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')";

/// The link of `c` in the hub's config.
const LINK: &str = "  - name: c\n    directions: both\n";

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// An application writes while nothing is captured.
fn unlogged(conn: &Connection, sql: &str) {
    let mut statement =
        conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't'").unwrap();
    let triggers: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(!triggers.is_empty());
    for trigger in triggers {
        run(conn, &format!("DROP TRIGGER \"{trigger}\""));
    }
    run(conn, sql);
}

fn count(nodes: &Nodes, sql: &str) -> i64 {
    nodes.nodes.iter().map(|node| node.number(sql)).sum()
}

/// What capture had missed waited for the copy to end, which nobody would ever do: no other peer got it, and the hub was
/// blind towards all of them.
#[test]
fn a_link_that_is_taken_away_amid_its_copy_holds_nothing_back_and_may_return() {
    let mut nodes = Nodes::running(3, TABLES, &Settings::default());
    nodes.nodes[2].stop();
    nodes.nodes[0].stop();
    let hub = nodes.nodes[0].app();
    run(
        &hub,
        "UPDATE __cdc_copies SET state = 'pending' WHERE peer = (SELECT peer FROM __cdc_checkpoints WHERE name = 'c')",
    );
    unlogged(&hub, "UPDATE t SET v = 'unlogged' WHERE id = 1");
    let config = fs::read_to_string(&nodes.nodes[0].config).unwrap();
    assert!(config.contains(LINK));
    fs::write(&nodes.nodes[0].config, config.replace(LINK, "")).unwrap();
    nodes.nodes[0].start(&[]);
    let arrived = "SELECT count(*) FROM t WHERE v = 'unlogged'";
    until("b to have what capture at the hub missed", || match nodes.nodes[1].number(arrived) {
        1 => Ok(()),
        _ => Err(format!("{:?}", nodes.nodes[0].links())),
    });
    assert_eq!(nodes.nodes[0].number("SELECT count(*) FROM __cdc_meta WHERE key = 'missed'"), 0);
    let notes = status(&nodes.nodes[0].database)["notes"].to_string();
    assert!(notes.contains("no link receives from \\\"c\\\"") && notes.contains("copied again"), "{notes}");

    // Back it knows nothing of that, and has gone on writing.
    nodes.nodes[0].stop();
    fs::write(&nodes.nodes[0].config, config).unwrap();
    run(&nodes.nodes[2].app(), "UPDATE t SET v = 'by c' WHERE id = 2");
    nodes.start();
    nodes.assert_equal();
    // Each copies to the other what the other may lack; which goes first, their ids decide.
    for written in ["unlogged", "by c"] {
        let rows = count(&nodes, &format!("SELECT count(*) FROM t WHERE v = '{written}'"));
        let kept = format!("SELECT count(*) FROM __cdc_conflicts WHERE instr(loser, CAST('{written}' AS BLOB))");
        assert!(rows == 3 || count(&nodes, &kept) > 0, "\"{written}\" is neither here nor kept");
    }
    // Nobody is blind any more, so what one writes and then the other is no conflict.
    let conflicts = count(&nodes, "SELECT count(*) FROM __cdc_conflicts");
    for (node, id) in [(2, 1), (0, 1), (1, 1), (2, 3)] {
        run(&nodes.nodes[node].app(), &format!("UPDATE t SET v = v || '+' WHERE id = {id}"));
        nodes.assert_equal();
    }
    assert_eq!(count(&nodes, "SELECT count(*) FROM __cdc_conflicts"), conflicts);
    assert_eq!(nodes.nodes[0].number("SELECT count(*) FROM t WHERE v LIKE '%+++' OR v = 'three+'"), 2);
    nodes.stop();
}
