//! Two nodes that meet, and lose each other when one of them has kept what both decided and the other has not.

use std::fs;

use rusqlite::Connection;

use crate::support::{
    Place,
    nodes::{Nodes, Settings},
    wait::until,
};

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// Starts the nodes, of which this one dies when it alone has kept what was decided, and starts it again.
fn lose_each_other(nodes: &mut Nodes, first: usize) {
    nodes.nodes[first].start(&[("TWINLITE_FAILPOINT", "meeting_kept_first=1")]);
    nodes.start();
    nodes.nodes[first].until_it_died();
    nodes.start();
}

/// Rows of `t` that lost and are kept, at both.
fn lost(nodes: &Nodes) -> i64 {
    nodes.nodes.iter().map(|node| node.number("SELECT count(*) FROM __cdc_conflicts WHERE tbl = 't'")).sum()
}

/// Joins two databases that hold other rows under some of their keys. The rows and the conflicts that there are then.
fn joined(seed: &str, dies: bool) -> (i64, i64) {
    let settings = Settings { link: format!("    {seed}\n"), ..Settings::default() };
    let mut nodes = Nodes::new(Place::new(), 2, &settings);
    for (node, (first, last)) in nodes.nodes.iter().zip([(1, 40), (21, 80)]) {
        let numbers = format!("SELECT {first} AS i UNION ALL SELECT i + 1 FROM n WHERE i < {last}");
        run(
            &node.app(),
            &format!("{TABLE}; INSERT INTO t WITH RECURSIVE n AS ({numbers}) SELECT i, '{}' FROM n", node.name),
        );
    }
    if dies {
        lose_each_other(&mut nodes, 1);
    }
    nodes.start();
    nodes.assert_equal();
    assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t WHERE v = 'a'"), 40, "{seed}");
    let found = (nodes.nodes[1].number("SELECT count(*) FROM t"), lost(&nodes));
    for (node, id) in nodes.nodes.iter().zip([1, 2]) {
        run(&node.app(), &format!("UPDATE t SET v = 'later' WHERE id = {id}"));
    }
    nodes.assert_equal();
    assert_eq!(lost(&nodes), found.1, "who writes alone conflicts with nobody: {seed}");
    nodes.stop();
    found
}

/// What the loser of a seed held was overwritten without a record.
#[test]
fn a_seed_that_only_its_loser_has_kept_still_records_what_it_overwrites() {
    let replaced = "seed: a";
    assert_eq!([false, true].map(|dies| joined(replaced, dies)), [(40, 60); 2]);
    // Each of the twenty contradictions is recorded where it is seen: at one end, or at both.
    for dies in [false, true] {
        let (rows, conflicts) = joined("seed: merge\n    seed_prefer: a", dies);
        assert!(rows == 80 && (20..=40).contains(&conflicts), "{rows} rows, {conflicts} conflicts");
    }
}

/// What a peer had not sent when it was cut off overwrote newer rows, unrecorded, where it alone knew that it is copied to.
#[test]
fn a_peer_that_was_away_is_copied_again_though_the_other_end_died_when_they_met() {
    let settings = Settings { node: "capture: { retention: { rows: 50 } }\n".to_owned(), ..Settings::default() };
    let mut nodes = Nodes::running(2, TABLE, &settings);
    let [a, b] = [0, 1].map(|node| nodes.nodes[node].app());
    run(&a, "INSERT INTO t VALUES (1, 'old'), (2, 'old'), (3, 'old')");
    nodes.assert_equal();
    nodes.nodes[1].stop();
    run(&b, "UPDATE t SET v = 'b' WHERE id IN (1, 2)");
    run(&a, "UPDATE t SET v = 'a' WHERE id IN (2, 3)");
    for id in 100..300 {
        run(&a, &format!("INSERT INTO t VALUES ({id}, 'a')"));
    }
    until("the log to be pruned", || {
        match nodes.nodes[0].number("SELECT count(*) FROM __cdc_consumers WHERE cut_off") {
            1 => Ok(()),
            _ => Err("the peer is not cut off".to_owned()),
        }
    });
    nodes.nodes[0].stop();
    lose_each_other(&mut nodes, 0);
    nodes.assert_equal();
    let value = |id: i64| nodes.nodes[0].number(&format!("SELECT unicode(v) FROM t WHERE id = {id}"));
    assert_eq!([1, 3].map(value), [i64::from(b'b'), i64::from(b'a')], "what only one of them wrote stands");
    assert!(lost(&nodes) >= 1, "the row that contradicts is kept");
    assert_eq!(nodes.nodes[0].number("SELECT count(*) FROM __cdc_consumers WHERE cut_off"), 0);
    nodes.stop();
}

/// It was told to remove the only database that was left, and kept something of a first contact that never came to be.
#[test]
fn a_site_that_lost_its_database_is_filled_again_under_another_name() {
    let mut nodes = Nodes::running(2, TABLE, &Settings::default());
    run(&nodes.nodes[0].app(), "INSERT INTO t VALUES (1, 'one'), (2, 'two')");
    nodes.assert_equal();
    nodes.stop();
    nodes.nodes[1].remove_database();
    nodes.start();
    let said = until("the link to halt", || {
        let links = nodes.nodes[1].links();
        let halted = links.iter().find(|link| link["last_error"]["code"] == "peer_changed");
        halted.map(|link| link["last_error"]["message"].to_string()).ok_or_else(|| format!("{links:?}"))
    });
    assert!(said.contains("give it a name of its own"), "{said}");
    nodes.stop();
    let kept =
        "SELECT (SELECT count(*) FROM __cdc_checkpoints) + (SELECT count(*) FROM __cdc_meta WHERE key LIKE '%:%')";
    assert_eq!(nodes.nodes[1].number(kept), 0, "nothing is kept of a peer that is refused by it");
    for (node, (old, new)) in nodes.nodes.iter().zip([("- name: b", "- name: c"), ("name: b", "name: c")]) {
        let text = fs::read_to_string(&node.config).unwrap();
        fs::write(&node.config, text.replacen(old, new, 1)).unwrap();
    }
    nodes.nodes[1].name = "c".to_owned();
    nodes.start();
    nodes.assert_equal();
    assert_eq!((nodes.nodes[1].number("SELECT count(*) FROM t"), lost(&nodes)), (2, 0));
    nodes.stop();
}

/// A restored database went on without what it had lost.
#[test]
fn a_restored_database_gets_what_it_lost_though_it_died_when_they_met() {
    let mut nodes = Nodes::running(2, TABLE, &Settings::default());
    let b = nodes.nodes[1].app();
    run(&b, "INSERT INTO t VALUES (1, 'before')");
    nodes.assert_equal();
    let backup = nodes.place.file("backup.db");
    run(&b, &format!("VACUUM INTO '{}'", backup.display()));
    run(&b, "INSERT INTO t VALUES (2, 'after'); UPDATE t SET v = 'after' WHERE id = 1");
    nodes.assert_equal();
    nodes.stop();
    drop(b);
    nodes.nodes[1].restore(&backup);
    run(&nodes.nodes[1].app(), "INSERT INTO t VALUES (3, 'since')");
    nodes.let_win("a");
    lose_each_other(&mut nodes, 1);
    nodes.assert_equal();
    assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t WHERE v = 'after'"), 2);
    assert_eq!(lost(&nodes), 2, "what the restored one had otherwise is kept: a row from the backup, and one since");
    nodes.stop();
}
