//! Two nodes meet for the first time, and rows are written between what each says of itself and what both decide.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{
    Place,
    nodes::{Node, Nodes, Settings},
    open_reader,
    process::expect_code,
    relay::{Relay, Step},
};

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

/// A first contact, into which rows are written.
#[derive(Debug)]
struct Contact {
    a_is_full: bool,
    b_is_full: bool,
    seed: &'static str,
    held_at: Step,
}

/// A row as it is found and as it is recorded.
type Row = (i64, String);

fn rows(node: &Node) -> BTreeSet<Row> {
    let conn = open_reader(&node.database);
    let mut statement = conn.prepare("SELECT id, v FROM t").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// What a node has recorded, as the command says it: the key, and the row unless a deletion lost.
fn recorded(node: &Node) -> Vec<(i64, Option<Row>)> {
    let words = ["conflicts", "list", "-o", "json", "--db", node.database.to_str().unwrap()];
    let said = expect_code(0, &words);
    let all: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    let one = |found: &serde_json::Value| {
        let key = found["key"][0]["value"].as_i64().unwrap();
        let row = found["row"].as_array().map(|row| (key, row[1]["value"].as_str().unwrap().to_owned()));
        (key, row)
    };
    all.iter().map(one).collect()
}

impl Contact {
    /// Both nodes as they are before, and the way between them.
    fn prepare(&self) -> (Nodes, Relay) {
        let settings = Settings { link: self.seed.to_owned(), ..Settings::default() };
        let mut nodes = Nodes::new(Place::new(), 2, &settings);
        let way = nodes.proxies[0].address().to_string();
        let relay = Relay::start(&way, self.held_at);
        let config = fs::read_to_string(&nodes.nodes[1].config).unwrap();
        assert!(config.contains(&way), "{config}");
        fs::write(&nodes.nodes[1].config, config.replace(&way, relay.address())).unwrap();
        for (node, is_full) in nodes.nodes.iter().zip([self.a_is_full, self.b_is_full]) {
            node.app().execute_batch(TABLE).unwrap();
            if is_full {
                let rows = format!("INSERT INTO t SELECT value, '{} before' FROM json_each('[1, 2, 3]')", node.name);
                node.app().execute_batch(&rows).unwrap();
                node.app().execute_batch("INSERT INTO t VALUES (4, 'same'), (5, 'same'), (6, 'same')").unwrap();
            }
        }
        nodes.start();
        (nodes, relay)
    }

    /// Whether both said that they hold rows.
    fn both_were_full(&self) -> bool {
        (self.a_is_full || self.held_at == Step::FirstHello) && self.b_is_full
    }

    #[track_caller]
    fn run(&self) {
        let (mut nodes, relay) = self.prepare();
        relay.wait();
        let [a, b] = [0, 1].map(|node| nodes.nodes[node].app());
        a.execute_batch("INSERT INTO t VALUES (10, 'a then'), (12, 'a then')").unwrap();
        a.execute_batch("UPDATE t SET v = 'a then' WHERE id = 1; DELETE FROM t WHERE id IN (2, 5)").unwrap();
        b.execute_batch("INSERT INTO t VALUES (11, 'b then'), (12, 'b then')").unwrap();
        b.execute_batch("UPDATE t SET v = 'b then' WHERE id = 3; DELETE FROM t WHERE id IN (6)").unwrap();
        let before: BTreeSet<Row> = nodes.nodes.iter().flat_map(rows).collect();
        relay.open();
        nodes.assert_equal();
        let now = rows(&nodes.nodes[0]);
        let lost: Vec<_> = nodes.nodes.iter().flat_map(recorded).collect();
        for row in &before {
            let is_kept = now.contains(row) || lost.iter().any(|(_, lost)| lost.as_ref() == Some(row));
            assert!(is_kept, "{self:?}: {row:?} is lost; there is {now:?}, recorded {lost:?}");
        }
        let unsaid = |(key, _): &&Row| *key != 10 || self.held_at != Step::FirstHello || !self.both_were_full();
        let written = [(10, "a then".to_owned()), (11, "b then".to_owned())];
        for row in written.iter().filter(unsaid) {
            assert!(now.contains(row), "{self:?}: {row:?} was written after what counts as seen; there is {now:?}");
        }
        // Each was deleted after its end had said what it holds, if it was there; the other has it from before, or never.
        let told = [(5, self.a_is_full && self.held_at != Step::FirstHello), (6, self.b_is_full)];
        for (key, _) in told.iter().filter(|(_, told)| *told) {
            assert!(!now.iter().any(|(left, _)| left == key), "{self:?}: the deletion of {key} is undone: {now:?}");
        }
        if !self.both_were_full() {
            let keys: BTreeSet<i64> = lost.iter().map(|(key, _)| *key).collect();
            assert_eq!(keys, BTreeSet::from([12]), "{self:?}: recorded, and was none: {lost:?}");
        }
        self.nobody_is_blind_any_more(&mut nodes, lost.len());
    }

    /// What one writes and then the other is no conflict.
    #[track_caller]
    fn nobody_is_blind_any_more(&self, nodes: &mut Nodes, recorded_before: usize) {
        for node in [1, 0] {
            let name = nodes.nodes[node].name.clone();
            let sql = format!("UPDATE t SET v = 'later {name}'; INSERT INTO t VALUES (10{node}, '{name}')");
            nodes.nodes[node].app().execute_batch(&sql).unwrap();
            nodes.assert_equal();
        }
        let lost = nodes.nodes.iter().flat_map(recorded).count();
        assert_eq!(lost, recorded_before, "{self:?}: one writer at a time makes no conflict");
        nodes.stop();
    }
}

#[test]
fn rows_written_while_two_meet_of_which_one_is_empty_are_neither_lost_nor_taken_for_seen() {
    for held_at in Step::ALL {
        for (a_is_full, b_is_full) in [(false, false), (true, false), (false, true)] {
            Contact { a_is_full, b_is_full, seed: "    seed: a\n", held_at }.run();
        }
    }
}

#[test]
fn rows_written_while_two_full_databases_meet_are_neither_lost_nor_taken_for_seen() {
    for held_at in Step::ALL {
        for seed in ["    seed: a\n", "    seed: b\n", "    seed: merge\n    seed_prefer: b\n"] {
            Contact { a_is_full: true, b_is_full: true, seed, held_at }.run();
        }
    }
}

/// The first contact is a copy from `a`, over a connection that lives on. Long after it `b` makes its table anew with other
/// values, of which no log says anything. That `a` had copied its own over this connection counted for ever: it took all that
/// came for changes of its own and sent it back, above the versions of what `b` wrote meanwhile.
#[test]
fn a_table_that_is_copied_long_after_the_first_contact_is_not_sent_back() {
    let mut nodes = Nodes::new(Place::new(), 2, &Settings::default());
    let a = nodes.nodes[0].app();
    a.execute_batch(TABLE).unwrap();
    a.execute_batch(
        "WITH n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO t SELECT i, 'old' FROM n",
    )
    .unwrap();
    nodes.start();
    nodes.assert_equal();
    let b = nodes.nodes[1].app();
    b.execute_batch("UPDATE t SET v = 'met' WHERE id = 1").unwrap();
    nodes.assert_equal();
    let end = "SELECT max(seq) FROM __cdc_log";
    let logged = nodes.nodes[0].number(end);
    b.execute_batch(
        "BEGIN; CREATE TABLE n(id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT id, 'new' FROM t; DROP TABLE t;
         ALTER TABLE n RENAME TO t; COMMIT",
    )
    .unwrap();
    for round in 0..100 {
        b.execute_batch(&format!("UPDATE t SET v = 'newest' WHERE id % 100 = {round}")).unwrap();
    }
    nodes.assert_equal();
    assert_eq!(nodes.nodes[0].number("SELECT count(*) FROM t WHERE v = 'newest'"), 2_000);
    let rows_logged = format!("SELECT count(*) FROM __cdc_log WHERE seq > {logged} AND k0 IS NOT NULL");
    assert_eq!(nodes.nodes[0].number(&rows_logged), 0, "what is copied here is not our own");
    assert_eq!(nodes.nodes.iter().flat_map(recorded).collect::<Vec<_>>(), []);
    nodes.stop();
}
