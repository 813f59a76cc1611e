//! Indexes, views and triggers, the peer's and those made here.

use super::support::*;

const BASE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE VIEW v AS SELECT a FROM t;
                    CREATE VIEW w AS SELECT * FROM v;
                    CREATE TRIGGER g AFTER UPDATE OF a ON t BEGIN INSERT INTO t(a) SELECT NEW.a FROM w AS w2; END";
const OWN: &str = "CREATE INDEX own_a ON t(a); CREATE INDEX own_b ON t(b); CREATE TABLE mine(x);
                   CREATE VIEW own_va AS SELECT a FROM t; CREATE VIEW own_vb AS SELECT b FROM t;
                   CREATE TRIGGER own_ga AFTER INSERT ON t BEGIN INSERT INTO mine SELECT NEW.a; END;
                   CREATE TRIGGER own_gb AFTER INSERT ON t BEGIN INSERT INTO mine SELECT NEW.b; END;
                   CREATE VIEW broken AS SELECT x FROM nowhere";

#[test]
fn what_was_made_here_survives_where_its_columns_do() {
    for change in [
        "ALTER TABLE t DROP COLUMN b",
        "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL); DROP VIEW w; DROP VIEW v; DROP TABLE t; ALTER TABLE n RENAME TO t;
         CREATE VIEW v AS SELECT a FROM t; CREATE VIEW w AS SELECT * FROM v",
    ] {
        let mut ends = Ends::with(Mode::Forced, BASE, "INSERT INTO t VALUES (1, 2, 3)");
        ends.replica.execute_batch(OWN).unwrap();
        let outcome = ends.change(change).unwrap();
        let left = names(&ends.replica);
        for name in ["own_a", "own_va", "own_ga", "broken", "mine", "v", "w"] {
            assert!(left.contains(&name.to_owned()), "{name} survives {change}: {left:?} {outcome:?}");
        }
        for name in ["own_b", "own_vb", "own_gb"] {
            assert!(!left.contains(&name.to_owned()), "{name} survives {change}");
        }
        let said = outcome.notes.join("\n");
        assert!(said.contains("own_vb") && said.contains("own_gb") && said.contains("index"), "{said}");
        let theirs = schema(&ends.source);
        assert!(theirs.iter().all(|object| schema(&ends.replica).contains(object)), "{change}");
    }
}

#[test]
fn the_peers_views_and_triggers_follow_a_renamed_column() {
    let mut ends = Ends::with(Mode::Forced, BASE, "");
    let outcome = ends.change("ALTER TABLE t RENAME COLUMN a TO z").unwrap();
    assert_eq!(only(&outcome).change, Change::Altered);
    assert_eq!(schema(&ends.replica), schema(&ends.source));
    assert!(outcome.notes.is_empty(), "{outcome:?}");
}

#[test]
fn a_broken_view_of_the_sources_does_not_halt_the_link() {
    let mut ends = Ends::with(Mode::Forced, BASE, "");
    let outcome = ends.change("CREATE VIEW odd AS SELECT x FROM nowhere").unwrap();
    assert_eq!(schema(&ends.replica), schema(&ends.source));
    assert!(outcome.notes.iter().any(|note| note.contains("odd")));
    // It is not in the way of what comes later.
    ends.source.execute_batch("PRAGMA legacy_alter_table = ON").unwrap();
    ends.rename("t", "u");
    ends.source.execute_batch("DROP VIEW v; DROP VIEW w; DROP TRIGGER g; ALTER TABLE u ADD COLUMN c").unwrap();
    ends.sync().unwrap();
    assert_eq!(schema(&ends.replica), schema(&ends.source));
}

#[test]
fn a_trigger_that_does_not_work_here_is_left_out_and_named() {
    let mut ends = Ends::with(Mode::Forced, BASE, "");
    let trigger = "CREATE TRIGGER h AFTER INSERT ON t BEGIN INSERT INTO nowhere VALUES (1); END";
    let before = names(&ends.replica);
    let outcome = ends.change(trigger).unwrap();
    assert!(outcome.notes.iter().any(|note| note.contains("\"h\"")), "{outcome:?}");
    assert_eq!(names(&ends.replica), before);
    // Once its table is here, so is the trigger.
    ends.replica.execute_batch("CREATE VIRTUAL TABLE nowhere USING fts5(x)").unwrap();
    let outcome = ends.sync().unwrap();
    assert!(names(&ends.replica).contains(&"h".to_owned()), "{outcome:?}");
}

#[test]
fn a_unique_index_that_only_a_mirror_has_halts_by_name() {
    for (mirror, own, halts) in [
        (true, "CREATE UNIQUE INDEX own ON t(b)", true),
        (true, "CREATE INDEX own ON t(b)", false),
        (true, "CREATE UNIQUE INDEX own ON mine(x)", false),
        (false, "CREATE UNIQUE INDEX own ON t(b)", false),
    ] {
        let mut ends = Ends::with(Mode::Forced, BASE, "");
        ends.mirror = mirror;
        ends.replica.execute_batch(&format!("CREATE TABLE mine(x); {own}")).unwrap();
        match ends.sync() {
            Err(Error::ExtraUnique { table, index }) => assert!(halts && table == "t" && index == "own"),
            done => assert!(!halts && done.is_ok(), "{own}: {done:?}"),
        }
    }
}

#[test]
fn kinds_that_the_link_does_not_carry_are_left_alone() {
    let mut ends = Ends::new(Mode::Forced);
    ends.kinds = SchemaKinds { indexes: false, views: false, triggers: false };
    ends.replica.execute_batch("CREATE VIEW own AS SELECT 1").unwrap();
    ends.change(&format!("{BASE}; CREATE INDEX i ON t(a); CREATE UNIQUE INDEX u ON t(b)")).unwrap();
    assert_eq!(create_deferred_indexes(&ends.replica, PEER, "t").unwrap(), 0);
    assert_eq!(names(&ends.replica), ["u", "t", "own"]);
}

#[test]
fn a_view_of_the_replicas_own_under_the_peers_name_is_replaced_or_kept() {
    for (mode, expected) in [(Mode::Forced, "1"), (Mode::Safe, "2")] {
        let mut ends = Ends::new(mode);
        ends.replica.execute_batch("CREATE VIEW v AS SELECT 2").unwrap();
        let outcome = ends.change("CREATE TABLE t(a); CREATE VIEW v AS SELECT 1").unwrap();
        assert_eq!(ask(&ends.replica, "SELECT * FROM v"), expected);
        assert!(outcome.notes.iter().any(|note| note.contains("\"v\"")));
    }
}

#[test]
fn views_of_views_and_triggers_on_views_work_whatever_their_order() {
    let mut ends = Ends::new(Mode::Forced);
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE VIEW v AS SELECT * FROM t;
               CREATE VIEW early AS SELECT * FROM late; CREATE VIEW late AS SELECT * FROM t;
               CREATE TRIGGER z INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (NEW.id, NEW.a); END;
               CREATE TRIGGER b AFTER DELETE ON t BEGIN INSERT INTO v VALUES (OLD.id + 1, OLD.a); END";
    let outcome = ends.change(ddl).unwrap();
    assert!(outcome.notes.is_empty(), "{outcome:?}");
    assert_eq!(schema(&ends.replica), schema(&ends.source));

    // Those made here are put back likewise.
    let own = "CREATE VIEW own_early AS SELECT * FROM own_late; CREATE VIEW own_late AS SELECT * FROM t;
               CREATE TRIGGER own_b AFTER UPDATE ON t BEGIN INSERT INTO own_early VALUES (1, 2); END;
               CREATE TRIGGER own_z INSTEAD OF INSERT ON own_early BEGIN INSERT INTO t VALUES (NEW.id, NEW.a); END";
    ends.replica.execute_batch(own).unwrap();
    let before = schema(&ends.replica).len();
    ends.source.execute_batch("DROP TRIGGER z; DROP TRIGGER b; DROP VIEW early; DROP VIEW late; DROP VIEW v").unwrap();
    ends.source
        .execute_batch("CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT); DROP TABLE t; ALTER TABLE n RENAME TO t")
        .unwrap();
    let outcome = ends.sync().unwrap();
    assert!(outcome.notes.is_empty(), "{outcome:?}");
    assert_eq!(schema(&ends.replica).len(), before - 5);
}

#[test]
fn the_connection_is_as_it_was() {
    use rusqlite::config::DbConfig::*;
    let mut ends = Ends::with(Mode::Forced, BASE, "");
    ends.change("DROP VIEW v; DROP VIEW w; CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT, b); DROP TABLE t; ALTER TABLE n RENAME TO t").unwrap();
    assert!(!ends.replica.db_config(SQLITE_DBCONFIG_ENABLE_TRIGGER).unwrap());
    assert!(!ends.replica.db_config(SQLITE_DBCONFIG_LEGACY_ALTER_TABLE).unwrap());
}

#[test]
fn a_trigger_on_a_view_of_a_view_that_changes_is_not_in_the_way() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE VIEW vw AS SELECT id, v FROM t;
               CREATE VIEW v2 AS SELECT * FROM vw;
               CREATE TRIGGER vi INSTEAD OF INSERT ON v2 BEGIN SELECT 1; END";
    let mut ends = Ends::with(Mode::Forced, ddl, "INSERT INTO t VALUES (1, 2)");
    let outcome = ends.change("ALTER TABLE t RENAME COLUMN v TO w").unwrap();
    assert!(outcome.notes.is_empty(), "{:?}", outcome.notes);
    assert_eq!(schema(&ends.replica), schema(&ends.source));
    let mut ends = Ends::with(Mode::Forced, ddl, "");
    ends.change("ALTER TABLE t RENAME TO u").unwrap();
    assert_eq!(schema(&ends.replica), schema(&ends.source));
}
