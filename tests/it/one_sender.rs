//! A node that only sends, into a database that others get what is in: it never sees what is written there.

use std::fs;

use rusqlite::Connection;

use crate::support::{
    Place,
    nodes::{Node, Nodes, Settings},
    open_reader,
    process::free_port,
    wait::until,
};

const TABLES: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, u UNIQUE)";

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// `a`, `b` that goes both ways with it, and `s`, which only sends to `a`.
fn with_sender(seed: &str) -> Nodes {
    let mut nodes = Nodes::new(Place::new(), 2, &Settings::default());
    let (database, config, port) = (nodes.place.file("s.db"), nodes.place.file("s.yaml"), free_port());
    let text = format!(
        "name: s\nspec: {{ connection_string: {} }}\nlisten: 127.0.0.1:{port}\nlinks:\n  - {{ name: a, directions: send }}\n",
        database.display()
    );
    fs::write(&config, text).unwrap();
    let mut of_a = fs::read_to_string(&nodes.nodes[0].config).unwrap();
    of_a.push_str(&format!("  - name: s\n    peer: 127.0.0.1:{port}\n    directions: receive\n{seed}"));
    fs::write(&nodes.nodes[0].config, of_a).unwrap();
    nodes.nodes.push(Node { name: "s".to_owned(), database, config, process: None });
    nodes
}

/// Waits until what `s` has at a key is at `a`, and then until `a` and `b` are equal.
#[track_caller]
fn arrive(nodes: &mut Nodes, sql: &str) {
    until(sql, || match open_reader(&nodes.nodes[0].database).query_row(sql, [], |row| row.get::<_, i64>(0)) {
        Ok(1) => Ok(()),
        found => Err(format!("{found:?}")),
    });
    let sender = nodes.nodes.pop().expect("s");
    nodes.assert_equal();
    nodes.nodes.push(sender);
}

fn conflicts(nodes: &Nodes) -> i64 {
    nodes.nodes[..2].iter().map(|node| node.number("SELECT count(*) FROM __cdc_conflicts")).sum()
}

#[test]
fn what_only_the_sender_writes_is_no_conflict_and_what_others_write_is_not_lost() {
    let mut nodes = with_sender("");
    let [a, b, s] = [0, 1, 2].map(|node| nodes.nodes[node].app());
    run(
        &s,
        &format!(
            "{TABLES}; INSERT INTO t VALUES (1, 's', 'one'), (2, 's', 'two'), (3, 's', NULL); PRAGMA user_version = 9"
        ),
    );
    nodes.start();
    arrive(&mut nodes, "SELECT count(*) = 3 FROM t");
    for round in 0..5 {
        run(&s, &format!("BEGIN; UPDATE t SET v = 's{round}'; UPDATE t SET u = 'tmp' WHERE id = 1; UPDATE t SET u = 'n{round}' WHERE id = 2;
             UPDATE t SET u = 'm{round}' WHERE id = 1; COMMIT"));
        arrive(&mut nodes, &format!("SELECT count(*) = 3 FROM t WHERE v = 's{round}'"));
    }
    assert_eq!(conflicts(&nodes), 0, "nobody else wrote");
    assert_eq!(a.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)), Ok(0), "it is the node's own");
    // Long seen by b, and never by s.
    run(&b, "UPDATE t SET v = 'b' WHERE id = 2; INSERT INTO t VALUES (10, 'b', NULL)");
    arrive(&mut nodes, "SELECT count(*) = 2 FROM t WHERE v = 'b'");
    nodes.nodes[0].stop();
    nodes.nodes[0].start(&[]);
    run(&s, "UPDATE t SET v = 'later' WHERE id IN (1, 2)");
    arrive(&mut nodes, "SELECT count(*) = 2 FROM t WHERE v = 'later'");
    let kept = "SELECT count(*) FROM __cdc_conflicts WHERE tbl = 't' AND instr(loser, x'62') > 0";
    assert_eq!(nodes.nodes[0].number(kept), 1, "what b wrote is kept");
    assert_eq!((conflicts(&nodes), nodes.nodes[1].number("SELECT count(*) FROM t WHERE id = 10")), (1, 1));
    nodes.stop();
}

#[test]
fn two_full_databases_are_not_made_one_by_a_sender_unless_told_to() {
    for (seed, rows, kept) in [
        ("    seed: s\n", "1s 2s", 2),
        ("    seed: merge\n    seed_prefer: s\n", "1s 2s 3a", 1),
        ("    seed: merge\n    seed_prefer: a\n", "1a 2s 3a", 1),
    ] {
        let mut nodes = with_sender("");
        let [a, s] = [0, 2].map(|node| nodes.nodes[node].app());
        run(&a, &format!("{TABLES}; INSERT INTO t VALUES (1, 'a', NULL), (3, 'a', NULL)"));
        run(&s, &format!("{TABLES}; INSERT INTO t VALUES (1, 's', NULL), (2, 's', NULL)"));
        nodes.start();
        until("a to refuse", || {
            let links = nodes.nodes[0].links();
            match links.iter().any(|link| link["last_error"]["code"] == "seed_needed") {
                true => Ok(()),
                false => Err(format!("{links:?}")),
            }
        });
        assert_eq!(nodes.nodes[0].number("SELECT count(*) FROM t WHERE v = 'a'"), 2, "nothing is changed");
        nodes.nodes[0].stop();
        let text = fs::read_to_string(&nodes.nodes[0].config).unwrap();
        fs::write(&nodes.nodes[0].config, format!("{text}{seed}")).unwrap();
        nodes.nodes[0].start(&[]);
        arrive(&mut nodes, &format!("SELECT (SELECT group_concat(id || v, ' ' ORDER BY id) FROM t) = '{rows}'"));
        let policy = if seed.contains("merge") { "merge, prefer " } else { "" };
        let winner = if seed.contains("prefer: a") { "a" } else { "s" };
        let by_seed = format!("SELECT count(*) FROM __cdc_conflicts WHERE policy = 'seed: {policy}{winner}'");
        let all = nodes.nodes[0].number("SELECT count(*) FROM __cdc_conflicts");
        assert_eq!((all, nodes.nodes[0].number(&by_seed)), (kept, kept), "{seed}");
        run(&s, "UPDATE t SET v = 'more'");
        arrive(&mut nodes, "SELECT count(*) = 2 FROM t WHERE v = 'more'");
        nodes.stop();
    }
}

/// Its copy of nothing removed whatever no entry of the log said anything of: all that was there before its capture.
#[test]
fn a_sender_that_has_nothing_yet_takes_nothing_away() {
    for seed in ["", "    seed: s\n"] {
        let mut nodes = with_sender(seed);
        let [a, b, s] = [0, 1, 2].map(|node| nodes.nodes[node].app());
        run(&a, &format!("{TABLES}; INSERT INTO t VALUES (1, 'a', 'one'), (2, 'a', NULL)"));
        run(&s, TABLES);
        nodes.start();
        until("the sender's copy to be whole", || {
            let sql = "SELECT count(*) FROM __cdc_copies WHERE state = 'done' AND peer =
                (SELECT peer FROM __cdc_checkpoints WHERE name = 's' AND windows > 0)";
            match open_reader(&nodes.nodes[0].database).query_row(sql, [], |row| row.get::<_, i64>(0)) {
                Ok(1) => Ok(()),
                found => Err(format!("{found:?}")),
            }
        });
        run(&s, "INSERT INTO t VALUES (3, 's', NULL)");
        arrive(&mut nodes, "SELECT (SELECT group_concat(id || v, ' ' ORDER BY id) FROM t) = '1a 2a 3s'");
        assert_eq!(b.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)), Ok(3));
        assert_eq!(conflicts(&nodes), 0);
        nodes.stop();
    }
}
