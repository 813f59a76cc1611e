//! Tables that only one of two nodes has: new to the other at a first contact, or dropped and made again.

use rusqlite::Connection;

use crate::support::{
    Place,
    nodes::{Nodes, Settings},
};

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// It was made at the end whose rows win, empty, and taken for whole: the two differed for good, and were called live. Or it
/// was emptied where its rows were, for the winner copied what it had just made, at once or when the two met again.
#[test]
fn a_table_that_only_the_loser_of_a_seed_has_comes_with_its_rows() {
    for dies_at in [None, Some("apply_before_commit=1"), Some("apply_after_commit=1"), Some("link_after_send=1")] {
        let settings = Settings { link: "    seed: a\n".to_owned(), ..Settings::default() };
        let mut nodes = Nodes::new(Place::new(), 2, &settings);
        let [a, b] = [0, 1].map(|node| nodes.nodes[node].app());
        for (conn, value) in [(&a, "a"), (&b, "b")] {
            run(conn, &format!("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, '{value}')"));
        }
        run(&b, "CREATE TABLE x(id INTEGER PRIMARY KEY, v); INSERT INTO x VALUES (1, 'one'), (2, 'two'), (3, 'three')");
        if let Some(point) = dies_at {
            nodes.nodes[1].start(&[("TWINLITE_FAILPOINT", point)]);
            nodes.start();
            nodes.nodes[1].until_it_died();
        }
        nodes.start();
        nodes.assert_equal();
        for node in &nodes.nodes {
            assert_eq!(node.number("SELECT count(*) FROM x"), 3, "{}, {dies_at:?}", node.name);
            let recorded = node.number("SELECT count(*) FROM __cdc_conflicts WHERE tbl = 'x'");
            assert_eq!(recorded, 0, "{}, {dies_at:?}", node.name);
        }
        run(&a, "UPDATE x SET v = 'changed' WHERE id = 2; DELETE FROM x WHERE id = 3");
        run(&b, "INSERT INTO x VALUES (4, 'four')");
        nodes.assert_equal();
        assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM x WHERE v <> 'three'"), 3);
        nodes.stop();
    }
}

/// Nobody asked for what the other end had kept of it: the two differed for good, and were called live, also where nothing came
/// between that would have found the table gone. A row from before our triggers stood is kept or recorded, as in any table that
/// is new at both.
#[test]
fn a_table_that_one_end_dropped_and_made_again_holds_the_rows_of_both() {
    for (maker, is_noticed) in [(0, true), (1, true), (0, false), (1, false)] {
        let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE o(id INTEGER PRIMARY KEY);
                   INSERT INTO t VALUES (1, 'kept'), (2, 'kept'), (3, 'kept')";
        let mut nodes = Nodes::running(2, ddl, &Settings::default());
        let what = format!("made again at {}, found gone before: {is_noticed}", nodes.nodes[maker].name);
        let [maker_app, other] = [maker, 1 - maker].map(|node| nodes.nodes[node].app());
        run(&maker_app, "DROP TABLE t");
        nodes.quiesce();
        if is_noticed {
            run(&other, "UPDATE t SET v = 'meanwhile' WHERE id = 3");
            nodes.quiesce();
        }
        run(&maker_app, "BEGIN; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (9, 'early'); COMMIT");
        nodes.quiesce();
        run(&maker_app, "INSERT INTO t VALUES (10, 'again')");
        nodes.quiesce();
        run(&other, "INSERT INTO o VALUES (2)");
        nodes.assert_equal();
        let rows = "SELECT group_concat(id) FROM (SELECT * FROM t WHERE id <> 9 ORDER BY id)";
        let rows: String = maker_app.query_row(rows, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, "1,2,3,10", "{what}");
        let early = ["t WHERE id = 9", "__cdc_conflicts"];
        let early: i64 =
            early.iter().map(|from| nodes.nodes[maker].number(&format!("SELECT count(*) FROM {from}"))).sum();
        assert_eq!(early, 1, "{what}");
        // Once is enough: what comes later is a change like any other.
        run(&maker_app, "CREATE TABLE later(id INTEGER PRIMARY KEY); UPDATE t SET v = 'later' WHERE id = 1");
        run(&other, "DELETE FROM t WHERE id = 2");
        nodes.assert_equal();
        let recorded: i64 = nodes.nodes.iter().map(|node| node.number("SELECT count(*) FROM __cdc_conflicts")).sum();
        assert!(recorded <= 1, "{what}: {recorded} conflicts");
        nodes.stop();
    }
}

/// What the other end had in it stayed there, and the two differed until each row was written again.
#[test]
fn a_column_that_one_end_dropped_and_added_again_is_the_same_at_both() {
    for changer in [0, 1] {
        let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, c DEFAULT 1);
                   INSERT INTO t VALUES (1, 'one', 5), (2, 'two', 6), (3, 'three', 1)";
        let mut nodes = Nodes::running(2, ddl, &Settings::default());
        let [here, there] = [changer, 1 - changer].map(|node| nodes.nodes[node].app());
        run(&here, "ALTER TABLE t DROP COLUMN c");
        nodes.quiesce();
        run(&there, "UPDATE t SET c = 7 WHERE id = 3");
        nodes.quiesce();
        run(&here, "ALTER TABLE t ADD COLUMN c DEFAULT 1");
        nodes.quiesce();
        run(&there, "INSERT INTO t VALUES (4, 'four', 4)");
        nodes.assert_equal();
        nodes.stop();
    }
}
