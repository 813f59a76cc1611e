//! A database that is empty, and not because it is new.

use crate::support::{
    nodes::{Nodes, Settings},
    wait::until,
};

/// Both logs lost what the other end has not seen, and one end has deleted all its rows meanwhile: that is not a new
/// database, which may be filled without a question.
#[test]
fn rows_that_an_end_deleted_do_not_come_back_unasked() {
    let settings = Settings { node: "capture: { retention: { rows: 50 } }\n".to_owned(), ..Settings::default() };
    let mut nodes = Nodes::running(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", &settings);
    let write = |nodes: &Nodes, node: usize, sql: &str| nodes.nodes[node].app().execute_batch(sql).unwrap();
    write(&nodes, 0, "INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    nodes.assert_equal();
    nodes.proxies[0].refuse();
    nodes.proxies[0].cut();
    for id in 10..200 {
        write(&nodes, 0, &format!("INSERT INTO t VALUES ({id}, 'a')"));
        write(&nodes, 1, &format!("INSERT INTO t VALUES ({id}, 'b')"));
    }
    write(&nodes, 1, "DELETE FROM t");
    until("both logs to be pruned", || {
        let cut_off = |node: usize| nodes.nodes[node].number("SELECT count(*) FROM __cdc_consumers WHERE cut_off");
        if cut_off(0) + cut_off(1) == 2 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    nodes.proxies[0].heal();
    until("both to ask", || {
        let links: Vec<_> = nodes.nodes.iter().flat_map(|node| node.links()).collect();
        let asks = |link: &&serde_json::Value| link["last_error"]["code"] == "seed_needed";
        let asking = links.iter().filter(asks).count();
        if asking == 4 { Ok(()) } else { Err(format!("{links:?}")) }
    });
    assert_eq!(nodes.nodes[1].number("SELECT count(*) FROM t"), 0, "nothing is written before somebody has said");
    nodes.stop();
    nodes.let_win("b");
    nodes.start();
    nodes.assert_equal();
    let [rows, conflicts] =
        ["t", "__cdc_conflicts"].map(|table| nodes.nodes[0].number(&format!("SELECT count(*) FROM {table}")));
    assert_eq!(
        (rows, conflicts),
        (0, 192),
        "what the end that was named had deleted is deleted, and kept as conflicts"
    );
    nodes.stop();
}
