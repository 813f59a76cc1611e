//! Capture as an application meets it: what is logged, what is not, and that nothing of its own is disturbed.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::test_support::Fixture;
use super::{
    CheckpointVerdict, Error, PruneRequest, Retention, consumers, install, judge_checkpoint, log_state, plan, prune,
    request_copy, take_over, teardown,
};
use crate::model::{Checkpoint, Clock, Epoch, Position, Selection};
use crate::sqlite::store::{self, meta_key};
use crate::sqlite::{Role, open};

#[test]
fn each_operation_names_its_key() {
    let fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    assert_eq!(fixture.logs("INSERT INTO t VALUES (1, 'x')"), ["1/1 1"]);
    assert_eq!(fixture.logs("UPDATE t SET a = 'y'"), ["2/1 1"]);
    assert_eq!(fixture.logs("UPDATE t SET id = 5"), ["3/1 1", "1/1 5"]);
    assert_eq!(fixture.logs("UPDATE t SET rowid = 6"), ["3/1 5", "1/1 6"]);
    assert_eq!(fixture.logs("DELETE FROM t"), ["3/1 6"]);
    assert_eq!(fixture.logs("BEGIN; INSERT INTO t VALUES (1, 1); ROLLBACK"), [""; 0]);
}

#[test]
fn keys_keep_their_class_and_every_change_of_spelling_counts() {
    let fixture = Fixture::captured(
        "CREATE TABLE t(a COLLATE NOCASE, b, c, PRIMARY KEY(a, b)) WITHOUT ROWID;
         CREATE TABLE u(k TEXT COLLATE NOCASE, PRIMARY KEY(k COLLATE BINARY));
         CREATE TABLE w(a); CREATE TABLE n(a, b, PRIMARY KEY(a, b));",
    );
    assert_eq!(fixture.logs("INSERT INTO t VALUES ('k', x'00ff', 1)"), ["1/2 'k' x[0, 255]"]);
    assert_eq!(fixture.logs("UPDATE t SET a = 'K'"), ["3/2 'k' x[0, 255]", "1/2 'K' x[0, 255]"]);
    assert_eq!(fixture.logs("INSERT INTO u VALUES ('a'); UPDATE u SET k = 'A'"), ["1/3 'a'", "3/3 'a'", "1/3 'A'"]);
    assert_eq!(fixture.logs("INSERT INTO w VALUES (7); UPDATE w SET a = 8"), ["1/4 1", "2/4 1"]);
    assert_eq!(fixture.logs("INSERT INTO n VALUES (NULL, 1.5), (NULL, 1.5)"), ["1/1 1.5", "1/1 1.5"]);
}

#[test]
fn rows_that_replace_displaces_are_touched() {
    let fixture = Fixture::captured(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE ON CONFLICT REPLACE, b);
         CREATE UNIQUE INDEX tb ON t(lower(b)) WHERE b <> \"\";
         CREATE TABLE k(k TEXT PRIMARY KEY, v);",
    );
    let touched = |script: &str| -> Vec<String> {
        fixture.logs(script).into_iter().filter(|entry| entry.starts_with('4')).collect()
    };
    fixture.run("INSERT INTO t VALUES (1, 'a', 'B'), (2, 'c', ''), (3, 'd', '')");
    assert_eq!(touched("INSERT INTO t VALUES (10, 'a', '')"), ["4/2 1"]);
    assert_eq!(touched("INSERT OR REPLACE INTO t VALUES (11, 'z', 'q')"), [""; 0]);
    assert_eq!(touched("REPLACE INTO t(a, b) VALUES ('y', 'Q')"), ["4/2 11"]);
    assert_eq!(touched("UPDATE t SET a = 'd' WHERE id = 2"), ["4/2 3"]);
    assert_eq!(touched("UPDATE t SET a = a, b = b"), [""; 0]);
    fixture.run("INSERT INTO k(rowid, k) VALUES (1, 'x'), (2, 'y')");
    assert_eq!(touched("REPLACE INTO k(rowid, k) VALUES (1, 'z')"), ["4/1 'x'"]);
    assert_eq!(touched("UPDATE OR REPLACE k SET rowid = 2 WHERE k = 'z'"), ["4/1 'y'"]);
}

/// P41 and P42: NEW's generated columns are NULL before the row is written unless what they are made of is read too, and
/// REPLACE stores the default where NULL is given to a NOT NULL column.
#[test]
fn touches_see_generated_columns_and_defaults() {
    let fixture = Fixture::captured(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT NOT NULL DEFAULT 5, b, g AS (a + b) UNIQUE);
         CREATE TABLE u(id INTEGER PRIMARY KEY, c TEXT NOT NULL DEFAULT 'dd' COLLATE NOCASE UNIQUE, d);
         CREATE UNIQUE INDEX ud ON u(d) WHERE c = 'DD';",
    );
    let touched = |script: &str| -> BTreeSet<String> {
        fixture.logs(script).into_iter().filter(|entry| entry.starts_with('4')).collect()
    };
    let one = |entry: &str| BTreeSet::from([entry.to_owned()]);
    fixture.run("INSERT INTO t(id, a, b) VALUES (1, 2, 3), (2, 5, 10)");
    assert_eq!(touched("REPLACE INTO t(id, a, b) VALUES (7, 4, 1)"), one("4/1 1"));
    assert_eq!(touched("REPLACE INTO t(id, a, b) VALUES (8, NULL, 10)"), one("4/1 2"));
    assert_eq!(touched("UPDATE OR REPLACE t SET b = 5, a = 10 WHERE id = 7"), one("4/1 8"));
    fixture.run("INSERT INTO u VALUES (1, 'dD', 1)");
    assert_eq!(touched("REPLACE INTO u VALUES (2, NULL, 2)"), one("4/2 1"));
    assert_eq!(touched("REPLACE INTO u VALUES (3, NULL, 2)"), one("4/2 2"));
}

/// P2: a statement's own conflict clause would override one in a trigger, so there is none to override.
#[test]
fn no_conflict_clause_of_the_application_loses_an_entry() {
    for clause in ["OR IGNORE", "OR FAIL", "OR ABORT", "OR ROLLBACK", "OR REPLACE"] {
        let fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)");
        assert_eq!(fixture.logs(&format!("INSERT {clause} INTO t VALUES (1, 1)")), ["1/1 1"], "{clause}");
        assert_eq!(fixture.logs(&format!("UPDATE {clause} t SET a = 2")), ["2/1 1"], "{clause}");
    }
}

#[test]
fn nothing_is_logged_while_a_peers_changes_are_applied() {
    let mut fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)");
    let before: i64 = store::meta(&fixture.ours, meta_key::CAPTURE_LIMIT).unwrap().unwrap();
    fixture.run("BEGIN IMMEDIATE");
    store::set_meta(&fixture.app, meta_key::CAPTURE_LIMIT, store::APPLYING).unwrap();
    assert_eq!(fixture.logs("INSERT INTO t VALUES (1, 1); UPDATE t SET a = 2, id = 3; DELETE FROM t"), [""; 0]);
    store::set_meta(&fixture.app, meta_key::CAPTURE_LIMIT, before).unwrap();
    fixture.run("COMMIT");
    assert_eq!(fixture.logs("INSERT INTO t VALUES (1, 1)"), ["1/1 1"]);
    fixture.run("DELETE FROM __cdc_meta WHERE key = 'capture_limit'");
    assert_eq!(fixture.logs("UPDATE t SET a = 9"), ["2/1 1"], "without a limit, everything is logged");
    fixture.install();
}

#[test]
fn time_never_runs_behind_the_hybrid_clock() {
    let fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    store::set_meta(&fixture.ours, meta_key::HLC, 9_000_000_000_000_i64).unwrap();
    fixture.run("INSERT INTO t VALUES (1)");
    store::set_meta(&fixture.ours, meta_key::HLC, 0).unwrap();
    fixture.run("INSERT INTO t VALUES (2)");
    let state = log_state(&fixture.ours).unwrap();
    assert_eq!(state.head.ts_ms, 9_000_000_000_000, "nor behind the entry before");
}

#[test]
fn installing_again_writes_nothing() {
    let mut fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)");
    let changes = fixture.ours.total_changes();
    let again = fixture.install();
    assert_eq!((again.did, again.new_epoch), (vec![], false));
    assert_eq!(fixture.ours.total_changes(), changes);
    assert!(!fixture.reconcile().changed);
    assert_eq!(again.captured, ["t"]);
}

#[test]
fn the_plan_is_what_an_installation_makes() {
    let mut fixture = Fixture::bare(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); CREATE TABLE k(a, b, c, PRIMARY KEY(a, b, c));
         CREATE VIRTUAL TABLE f USING fts5(x);",
    );
    let before = fixture.schema();
    let plan = plan(&fixture.ours, &fixture.options).unwrap();
    assert_eq!(fixture.schema(), before, "planning changes nothing");
    let names: Vec<&str> = plan.skipped.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["f", "f_config", "f_content", "f_data", "f_docsize", "f_idx"]);
    assert_eq!(plan.statements[0], "PRAGMA journal_mode = WAL");
    let planned = Fixture::bare(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); CREATE TABLE k(a, b, c, PRIMARY KEY(a, b, c));
         CREATE VIRTUAL TABLE f USING fts5(x);",
    );
    for statement in &plan.statements {
        planned.run(statement);
    }
    fixture.install();
    assert_eq!(planned.schema(), fixture.schema());
}

#[test]
fn teardown_leaves_the_schema_as_it_was() {
    let mut fixture = Fixture::bare(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE); CREATE VIEW v AS SELECT * FROM t;
         CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT 1; END;",
    );
    let before = fixture.schema();
    fixture.install();
    fixture.run("INSERT INTO t(a) VALUES (1)");
    let removed = teardown(&mut fixture.ours).unwrap();
    assert_eq!(fixture.schema(), before);
    assert_eq!(removed.last().map(String::as_str), Some("table __cdc_log"), "the log goes last");
    assert!(removed[0].starts_with("trigger "), "triggers go first");
    fixture.run("INSERT INTO t(a) VALUES (2)");
    assert!(teardown(&mut fixture.ours).unwrap().is_empty());
}

#[test]
fn what_cannot_be_captured_is_named_with_the_reason() {
    let mut fixture = Fixture::bare(
        "CREATE TABLE fine(id INTEGER PRIMARY KEY); CREATE TABLE hidden(rowid, oid, _rowid_);
         CREATE TABLE expr(id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX e ON expr(id % 3);
         CREATE TABLE word(id INTEGER PRIMARY KEY, \"end\"); CREATE UNIQUE INDEX w ON word(abs(end));
         CREATE TABLE secret(id INTEGER PRIMARY KEY);",
    );
    fixture.options.selection = Selection::new(&[], &["secret".to_owned()]).unwrap();
    let installed = fixture.install();
    assert_eq!(installed.captured, ["fine"]);
    let reasons: Vec<(String, bool)> =
        installed.skipped.into_iter().map(|table| (table.name, table.reason.len() > 20)).collect();
    assert_eq!(reasons, [("expr".into(), true), ("hidden".into(), true), ("word".into(), true)]);
    fixture.run("INSERT INTO hidden VALUES (1, 2, 3); INSERT INTO expr VALUES (1, 1); INSERT INTO secret VALUES (1)");
}

#[test]
fn any_name_can_be_captured() {
    let mut fixture = Fixture::bare(
        "CREATE TABLE \"a \"\"b' ü\"(\"select\" INTEGER PRIMARY KEY, [group] UNIQUE, `x``y`, \"new\", \"old\" UNIQUE);
         CREATE TABLE new(old TEXT PRIMARY KEY, x TEXT UNIQUE) STRICT; CREATE TABLE x(a, b UNIQUE);",
    );
    assert_eq!(fixture.install().captured, ["a \"b' ü", "new", "x"]);
    fixture.run("INSERT INTO new VALUES ('k', 'v'); INSERT INTO x VALUES (1, 2)");
    assert_eq!(fixture.logs("REPLACE INTO new VALUES ('l', 'v')"), ["4/2 'k'", "1/2 'l'"]);
    assert_eq!(fixture.logs("REPLACE INTO x VALUES (1, 2)"), ["4/3 1", "1/3 2"]);
    assert_eq!(fixture.logs("INSERT INTO \"a \"\"b' ü\" VALUES (1, 2, 3, 4, 5)"), ["1/1 1"]);
}

#[test]
fn bad_databases_are_refused_in_words() {
    let mut fixture = Fixture::bare("CREATE TABLE __cdc_log(id, timestamp, tablename, operation, before, after)");
    let refused = install(&mut fixture.ours, &fixture.options, &fixture.clock);
    assert!(matches!(refused, Err(Error::ForeignLog { .. })));
    fixture.run(
        "CREATE TABLE t(a); CREATE TRIGGER t__cdc_insert AFTER INSERT ON t BEGIN
         INSERT INTO __cdc_log(tablename) VALUES ('t'); END; INSERT INTO t VALUES (1)",
    );
    let (removed, installed) = take_over(&mut fixture.ours, &fixture.options, &fixture.clock).unwrap();
    assert_eq!(
        (removed.len(), installed.captured),
        (5, vec!["t".to_owned()]),
        "WAL mode, trigger, entries, log, and for whom ours is kept: {removed:?}"
    );
    assert_eq!(fixture.install().captured, ["t"]);
    let mut fixture = Fixture::captured("CREATE TABLE t(a)");
    fixture.options.log_table = "__cdc_other".to_owned();
    let refused = install(&mut fixture.ours, &fixture.options, &fixture.clock);
    assert!(matches!(refused, Err(Error::OtherLog { .. })));
    store::set_meta(&fixture.ours, meta_key::FORMAT, 99).unwrap();
    fixture.options.log_table = "__cdc_log".to_owned();
    assert!(install(&mut fixture.ours, &fixture.options, &fixture.clock).is_err());
    assert!(teardown(&mut fixture.ours).is_err());
    let mut bare = Fixture::bare("CREATE TABLE t(a); BEGIN; SELECT * FROM t; INSERT INTO t VALUES (1)");
    let refused = install(&mut bare.ours, &bare.options, &bare.clock);
    assert!(matches!(refused, Err(Error::NotWal { .. })), "{refused:?}");
}

#[test]
fn a_full_log_stops_the_triggers_and_begins_a_new_epoch() {
    let mut fixture = Fixture::bare("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    fixture.options.retention.rows = 80;
    let first = fixture.install();
    let old = log_state(&fixture.ours).unwrap().head;
    fixture.run("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) INSERT INTO t SELECT i FROM n");
    let full = log_state(&fixture.ours).unwrap();
    assert_eq!(full.rows, 91, "the rows of the retention, and an eighth");
    let request =
        PruneRequest { acknowledged: vec![], retention: fixture.options.retention, ..PruneRequest::default() };
    assert!(prune(&mut fixture.ours, &request, &fixture.clock).unwrap().limit_reached);
    let again = fixture.install();
    assert!(again.new_epoch && again.epoch != first.epoch && !again.did.is_empty());
    let state = log_state(&fixture.ours).unwrap();
    assert_eq!((state.oldest, state.rows), (full.head.position.seq + 1, 1), "sequence numbers go on");
    assert_eq!(judge_checkpoint(&fixture.ours, &old).unwrap(), CheckpointVerdict::CutOff);
    assert_eq!(judge_checkpoint(&fixture.ours, &full.head).unwrap(), CheckpointVerdict::CutOff);
    assert_eq!(judge_checkpoint(&fixture.ours, &state.head).unwrap(), CheckpointVerdict::Known);
    assert_eq!(fixture.logs("INSERT INTO t VALUES (1000)"), ["1/1 1000"]);
}

#[test]
fn checkpoints_are_known_cut_off_or_diverged() {
    let mut fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    fixture.run("INSERT INTO t VALUES (1), (2), (3)");
    let head = log_state(&fixture.ours).unwrap().head;
    let judge = |fixture: &Fixture, checkpoint: Checkpoint| judge_checkpoint(&fixture.ours, &checkpoint).unwrap();
    let diverged = |verdict| matches!(verdict, CheckpointVerdict::Diverged { .. });
    let at = |seq| Checkpoint { position: Position { seq, ..head.position }, ..head };
    assert_eq!(judge(&fixture, head), CheckpointVerdict::Known);
    assert_eq!(judge(&fixture, at(0)), CheckpointVerdict::Known, "nothing was pruned");
    assert!(diverged(judge(&fixture, at(99))));
    assert!(diverged(judge(&fixture, at(2))), "another entry");
    assert!(diverged(judge(&fixture, Checkpoint { ts_ms: 1, ..head })));
    let elsewhere = Position { epoch: Epoch(1), ..head.position };
    assert!(diverged(judge(&fixture, Checkpoint { position: elsewhere, ..head })));
    let request = PruneRequest { acknowledged: vec![("b".into(), head.position.seq)], ..PruneRequest::default() };
    assert_eq!(prune(&mut fixture.ours, &request, &fixture.clock).unwrap().oldest, head.position.seq);
    assert_eq!(judge(&fixture, head), CheckpointVerdict::Known, "its entry stays");
    assert_eq!(judge(&fixture, at(0)), CheckpointVerdict::CutOff);
    assert_eq!(judge(&fixture, at(2)), CheckpointVerdict::CutOff);
}

#[test]
fn pruning_keeps_what_the_slowest_consumer_needs_until_the_retention_cuts_it_off() {
    let mut fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    let fill = |fixture: &Fixture, from: i64| {
        fixture.run(&format!(
            "WITH n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n LIMIT 1000) INSERT INTO t SELECT i FROM n"
        ));
    };
    fill(&fixture, 1);
    let acknowledged = vec![("fast".to_owned(), 900), ("slow".to_owned(), 100)];
    let mut request = PruneRequest { acknowledged, ..PruneRequest::default() };
    let pruned = prune(&mut fixture.ours, &request, &fixture.clock).unwrap();
    assert_eq!((pruned.oldest, pruned.removed, pruned.more), (100, 99, false));
    let changes = fixture.ours.total_changes();
    assert_eq!(prune(&mut fixture.ours, &request, &fixture.clock).unwrap().removed, 0);
    assert_eq!(fixture.ours.total_changes(), changes, "nothing to remove, nothing is written");
    request = PruneRequest {
        acknowledged: vec![("fast".into(), 950)],
        retention: Retention { rows: 500, ..request.retention },
        ..request
    };
    let pruned = prune(&mut fixture.ours, &request, &fixture.clock).unwrap();
    assert_eq!((pruned.cut_off, pruned.oldest), (vec!["slow".to_owned()], 950));
    let cut: Vec<bool> = consumers::list(&fixture.ours).unwrap().into_iter().map(|one| one.cut_off).collect();
    assert_eq!(cut, [false, true]);
}

/// Where a peer changes rows here that never sees ours, only the log tells that it had not seen them.
#[test]
fn a_log_that_keeps_all_is_bounded_by_the_retention_alone() {
    let mut fixture = Fixture::captured("CREATE TABLE t(k INTEGER PRIMARY KEY)");
    fixture.run("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) INSERT INTO t SELECT i FROM n");
    let head = fixture.head();
    let mut request =
        PruneRequest { acknowledged: vec![("b".into(), head)], keep_all: true, ..PruneRequest::default() };
    assert_eq!(prune(&mut fixture.ours, &request, &fixture.clock).unwrap().removed, 0);
    request.retention.rows = 100;
    let pruned = prune(&mut fixture.ours, &request, &fixture.clock).unwrap();
    assert_eq!((pruned.oldest, pruned.cut_off), (head - 100, vec![]));
}

#[test]
fn the_retention_bounds_the_log_by_age_and_size_too() {
    let mut fixture = Fixture::captured("CREATE TABLE t(k TEXT PRIMARY KEY)");
    fixture.run(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000)
        INSERT INTO t SELECT printf('%0200d', i) FROM n",
    );
    let head = fixture.head();
    let wall = crate::model::SystemClock.now_ms();
    let request =
        |retention| PruneRequest { acknowledged: vec![("away".into(), 5)], retention, ..PruneRequest::default() };
    fixture.clock.set(wall + 10_000);
    let young = Retention { age: Duration::from_secs(3600), ..Retention::default() };
    assert!(prune(&mut fixture.ours, &request(young), &fixture.clock).unwrap().cut_off.is_empty());
    let small = Retention { size_bytes: 224 * 100, ..Retention::default() };
    let pruned = prune(&mut fixture.ours, &request(small), &fixture.clock).unwrap();
    assert_eq!((pruned.cut_off.len(), pruned.oldest), (1, head), "nobody else reads it");
    fixture.run("INSERT INTO t VALUES ('x')");
    let state = log_state(&fixture.ours).unwrap();
    assert_eq!(state.rows, 2);
    fixture.clock.set(wall + 7_200_000);
    let request =
        PruneRequest { acknowledged: vec![("late".into(), head - 1)], retention: young, ..PruneRequest::default() };
    assert_eq!(prune(&mut fixture.ours, &request, &fixture.clock).unwrap().oldest, head + 1, "the newest entry stays");
}

#[test]
fn resync_marks_the_tables_that_are_named() {
    let mut fixture = Fixture::captured("CREATE TABLE a(x); CREATE TABLE b(x)");
    let head = fixture.head();
    assert_eq!(request_copy(&mut fixture.ours, &["B".into()], &fixture.clock).unwrap(), ["b"]);
    assert_eq!(request_copy(&mut fixture.ours, &[], &fixture.clock).unwrap(), ["a", "b"]);
    assert_eq!(fixture.log_after(head), ["7/2", "7/1", "7/2"]);
    let unknown = request_copy(&mut fixture.ours, &["c".into()], &fixture.clock);
    assert!(matches!(unknown, Err(Error::UnknownTable { name }) if name == "c"));
}

/// A touch looks its slot up in an index. Without one, every INSERT would read the whole table.
#[test]
fn touches_search_an_index() {
    let fixture = Fixture::captured(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE UNIQUE, b, c NOT NULL DEFAULT 0, g AS (b + 1));
         CREATE UNIQUE INDEX tb ON t(b, c); CREATE UNIQUE INDEX tl ON t(lower(a), c) WHERE c = 0;
         CREATE UNIQUE INDEX tg ON t(g);",
    );
    let app = open(&fixture.path, Role::Maintainer, false).unwrap();
    app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
    app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_TRIGGER_EQP, true).unwrap();
    for sql in ["INSERT INTO t(a, b) VALUES (1, 2)", "UPDATE t SET a = 1, b = 2, c = 3 WHERE id = 1"] {
        let mut statement = app.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).filter(|step| step.contains(" x")).collect();
        assert!(steps.len() >= 4, "{steps:?}");
        assert!(steps.iter().all(|step| step.starts_with("SEARCH")), "{sql}: {steps:?}");
    }
}

/// Whatever a statement does, every key whose row changed is named in the log.
#[test]
fn every_changed_key_is_named_whatever_the_statement() {
    let schemas = [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE, c)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE ON CONFLICT REPLACE, b NOT NULL DEFAULT 2 UNIQUE, c)",
        "CREATE TABLE t(id TEXT PRIMARY KEY ON CONFLICT REPLACE, a, b, c, UNIQUE(a, b)) WITHOUT ROWID",
        "CREATE TABLE t(id TEXT COLLATE NOCASE PRIMARY KEY, a UNIQUE, b, c)",
        "CREATE TABLE t(id, a TEXT COLLATE NOCASE UNIQUE, b, c); CREATE UNIQUE INDEX p ON t(b) WHERE c > \"1\"",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, g AS (coalesce(a, 1) * 2 + b) UNIQUE)",
        "CREATE TABLE t(id, a, b, c, PRIMARY KEY(id, a)); CREATE UNIQUE INDEX e ON t(lower(b) COLLATE NOCASE, c % 2)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a NOT NULL ON CONFLICT REPLACE DEFAULT 1, b, c);
         CREATE UNIQUE INDEX p ON t(b) WHERE a = 1",
    ];
    let seed =
        std::env::var("TWINLITE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    let mut random = StdRng::seed_from_u64(seed);
    for schema in schemas {
        for recursive in ["ON", "OFF"] {
            let fixture = Fixture::captured(schema);
            fixture.run(&format!("PRAGMA recursive_triggers = {recursive}"));
            let mut history = vec![schema.to_owned()];
            for _ in 0..120 {
                let statement = statement(&mut random);
                let (head, before) = (fixture.head(), fixture.rows("t"));
                // A statement may fail; then it changed nothing, or (OR FAIL) what it changed is logged.
                let _ = fixture.app.execute_batch(&statement);
                history.push(statement);
                let (after, named) = (fixture.rows("t"), fixture.named_after("t", head));
                for key in before.keys().chain(after.keys()).filter(|key| before.get(key) != after.get(key)) {
                    assert!(named.contains(key), "seed {seed}: not named after {:?}", history.join(";\n"));
                }
            }
        }
    }
}

fn statement(random: &mut StdRng) -> String {
    let clauses = ["", "OR IGNORE", "OR FAIL", "OR ABORT", "OR REPLACE", "OR REPLACE", "OR REPLACE"];
    let clause = clauses[random.random_range(0..clauses.len())];
    let mut value = || {
        let values = ["0", "1", "2", "3", "4", "5", "'a'", "'A'", "'b'", "'1'", "NULL", "1.0"];
        values[random.random_range(0..values.len())]
    };
    let (v, w, x, y, z) = (value(), value(), value(), value(), value());
    match random.random_range(0..9) {
        0..=2 => format!("INSERT {clause} INTO t(id, a, b, c) VALUES ({v}, {w}, {x}, {y})"),
        3 => format!("INSERT {clause} INTO t(id, a, b, c) VALUES ({v}, {w}, {x}, {y}), ({w}, {x}, {z}, {v})"),
        4 => format!("UPDATE {clause} t SET a = {v}, b = {w} WHERE c IS {x}"),
        5 => format!("UPDATE {clause} t SET id = {v}, c = {w} WHERE a IS {x} OR b IS {y}"),
        6 => {
            format!("INSERT INTO t(id, a, b, c) VALUES ({v}, {w}, {x}, {y}) ON CONFLICT DO UPDATE SET a = {z}, b = {v}")
        }
        7 => format!("DELETE FROM t WHERE a IS {v} OR b IS {w}"),
        _ => format!("SAVEPOINT s; REPLACE INTO t(id, a, b, c) VALUES ({v}, {w}, {x}, {y}); RELEASE s"),
    }
}

/// The module of a virtual table is often known to the application alone.
#[test]
fn a_virtual_table_of_an_unknown_module_is_in_nobodys_way() {
    let mut fixture = Fixture::bare("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    fixture.app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
    fixture.run(
        "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql)
         VALUES ('table', 'vec', 'vec', 0, 'CREATE VIRTUAL TABLE vec USING vec0(x float[3])');
         PRAGMA schema_version = 900; PRAGMA writable_schema = OFF",
    );
    let installed = fixture.install();
    assert!(installed.skipped.iter().any(|skipped| skipped.name == "vec"));
    assert_eq!(fixture.logs("INSERT INTO t VALUES (1)"), ["1/1 1"]);
    fixture.reconcile();
    teardown(&mut fixture.ours).unwrap();
}

#[test]
fn tables_that_use_a_name_of_ours_are_skipped() {
    let mut fixture = Fixture::bare("CREATE TABLE t(__cdc_a); CREATE TABLE u(a DEFAULT '__cdc_a')");
    let installed = fixture.install();
    let [skipped] = installed.skipped.as_slice() else { panic!("{:?}", installed.skipped) };
    assert!(skipped.name == "t" && skipped.reason.contains("__cdc_a"), "{skipped:?}");
}

#[test]
fn a_consumer_is_cut_off_where_entries_go_that_it_has_not_read_and_only_once() {
    let mut fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    fixture.run("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) INSERT INTO t SELECT i FROM n");
    let head = fixture.head();
    let retention = Retention { rows: 100, ..Retention::default() };
    let prune = |fixture: &mut Fixture, seq| {
        let request = PruneRequest { acknowledged: vec![("a".into(), seq)], retention, ..PruneRequest::default() };
        prune(&mut fixture.ours, &request, &fixture.clock).unwrap()
    };
    let pruned = prune(&mut fixture, head - 100);
    assert!(pruned.cut_off.is_empty(), "the hundred that it needs are kept");
    assert_eq!(pruned.oldest, head - 100, "and the one that it is recognised by");
    fixture.run("INSERT INTO t VALUES (2000)");
    assert_eq!(prune(&mut fixture, head - 100).cut_off, ["a"]);
    let changes = fixture.ours.total_changes();
    assert!(prune(&mut fixture, head - 100).cut_off.is_empty(), "it is away and stays cut off");
    assert_eq!(fixture.ours.total_changes(), changes, "and nothing is written for it");
    let is_cut = |fixture: &Fixture| consumers::list(&fixture.ours).unwrap()[0].cut_off;
    assert!(is_cut(&fixture));
    fixture.run("INSERT INTO t VALUES (2001), (2002)");
    prune(&mut fixture, head + 2);
    assert!(!is_cut(&fixture), "it reads on");
}
