//! Schemas that change under a running capture, as an application does it and as `twinlite ddl` does.

use std::collections::BTreeSet;

use super::test_support::Fixture;
use super::trigger_sql::table_of_trigger;
use super::{Error, Images, Reconciled, run_ddl};
use crate::model::Selection;
use crate::sqlite::{catalog, store};

const SCHEMA: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b UNIQUE); CREATE INDEX ta ON t(a);
    CREATE TABLE other(id INTEGER PRIMARY KEY, x, y);
    CREATE VIEW v AS SELECT a FROM t;
    INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2); INSERT INTO other VALUES (1, 2, 3);";

/// Tables that a script makes capture copy again.
#[track_caller]
fn copied(script: &str) -> BTreeSet<String> {
    let mut fixture = Fixture::captured(SCHEMA);
    fixture.run(script);
    let reconciled = fixture.reconcile();
    assert!(reconciled.changed, "{script}");
    assert_right(&mut fixture, script);
    names(&reconciled)
}

fn names(reconciled: &Reconciled) -> BTreeSet<String> {
    reconciled.copied_again.iter().map(|(_, name)| name.clone()).collect()
}

/// The triggers are what they should be, younger than anyone's, and a second look finds nothing to do.
#[track_caller]
fn assert_right(fixture: &mut Fixture, story: &str) {
    assert!(!fixture.reconcile().changed, "{story}: nothing is left to do");
    let tables = fixture.tables();
    for table in &tables {
        let mut statement = fixture
            .app
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 ORDER BY rowid DESC")
            .unwrap();
        let triggers = statement.query_map([&table.schema_name], |row| row.get::<_, String>(0)).unwrap();
        let triggers: Vec<Option<_>> = triggers.map(|name| table_of_trigger(&name.unwrap())).collect();
        let ours = triggers.iter().take_while(|id| **id == Some(table.id)).count();
        assert!(ours >= 4, "{story}: {} has {triggers:?}", table.schema_name);
        assert!(triggers[ours..].iter().all(Option::is_none), "{story}: {triggers:?}");
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_is_provably_harmless_copies_nothing() {
    for script in [
        "CREATE INDEX i ON t(a, b)",
        "DROP INDEX ta",
        "CREATE VIEW w AS SELECT 1",
        "DROP VIEW v",
        "DROP VIEW v; CREATE VIEW v AS SELECT b FROM t",
        "CREATE TABLE n(a, b)",
        "DROP TABLE other",
        "ALTER TABLE t ADD COLUMN c DEFAULT 5",
        "ALTER TABLE t ADD COLUMN c; ALTER TABLE t ADD COLUMN d TEXT NOT NULL DEFAULT 'x' CHECK (d <> 'y')",
        "ALTER TABLE t ADD COLUMN g AS (a || b)",
        "ALTER TABLE t RENAME TO t2",
        "CREATE TABLE n(a); DROP VIEW v; ALTER TABLE other ADD COLUMN z; CREATE INDEX i ON t(a DESC)",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
        "ANALYZE",
    ] {
        assert_eq!(copied(script), set(&[]), "{script}");
    }
}

#[test]
fn a_change_that_may_have_lost_something_copies_its_table() {
    for (script, expected) in [
        ("DROP INDEX ta; CREATE UNIQUE INDEX u ON t(a)", &["t"][..]),
        ("ALTER TABLE t RENAME COLUMN a TO c", &["t"]),
        ("ALTER TABLE other DROP COLUMN y", &["other"]),
        ("DROP TRIGGER __cdc_2_ai", &["t"]),
        ("CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT RAISE(IGNORE); END", &["t"]),
        ("ALTER TABLE other ADD COLUMN z DEFAULT 5; UPDATE other SET z = 6", &["other"]),
    ] {
        assert_eq!(copied(script), set(expected), "{script}");
    }
}

/// P46: byte-identical DDL, and only the version tells. P10: VACUUM renumbers rowids that nobody declared.
#[test]
fn a_version_that_moved_further_than_is_seen_copies_everything() {
    for script in [
        "ALTER TABLE other DROP COLUMN y; ALTER TABLE other ADD COLUMN y",
        "ALTER TABLE other DROP COLUMN y; ALTER TABLE other ADD COLUMN y; CREATE INDEX i ON t(b)",
        "VACUUM",
        "ALTER TABLE t RENAME COLUMN a TO tmp; ALTER TABLE t RENAME COLUMN b TO a; ALTER TABLE t RENAME COLUMN tmp TO b",
        "PRAGMA schema_version = 3",
    ] {
        assert_eq!(copied(script), set(&["other", "t"]), "{script}");
    }
}

/// P47: what migration tools do. The rebuilt table has no trigger, or, where the tool kept their SQL, ours verbatim.
#[test]
fn a_rebuilt_table_is_copied_again_with_or_without_our_triggers() {
    let rebuild = "PRAGMA legacy_alter_table = OFF; DROP VIEW v; BEGIN;
        CREATE TABLE new_t(id INTEGER PRIMARY KEY, a TEXT, b UNIQUE, c DEFAULT 1);
        INSERT INTO new_t(id, a, b) SELECT id, upper(a), b FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t;
        CREATE INDEX ta ON t(a);";
    assert!(copied(&format!("{rebuild} COMMIT")).contains("t"));
    let fixture = Fixture::captured(SCHEMA);
    let ours: Vec<String> = fixture
        .schema()
        .into_iter()
        .filter(|(kind, _, table, _)| kind == "trigger" && table == "t")
        .filter_map(|(_, _, _, sql)| sql)
        .collect();
    assert_eq!(ours.len(), 6);
    assert!(copied(&format!("{rebuild} {}; COMMIT", ours.join(";"))).contains("t"));
    let same = rebuild.replace(", c DEFAULT 1", "");
    assert!(copied(&format!("{same} {}; COMMIT", ours.join(";"))).contains("t"), "byte-identical DDL");
}

/// P47: the new table is captured before it takes the old one's place, and brings its own id along.
#[test]
fn a_table_captured_in_the_middle_of_a_migration_keeps_its_line() {
    let mut fixture = Fixture::captured(SCHEMA);
    fixture.run("CREATE TABLE new_t(id INTEGER PRIMARY KEY, a TEXT, b UNIQUE)");
    fixture.reconcile();
    let id = |fixture: &Fixture, name: &str| {
        let tables = fixture.tables();
        let found = tables.iter().find(|table| table.schema_name == name).unwrap();
        (found.id.0, found.ancestors.iter().map(|id| id.0).collect::<Vec<_>>())
    };
    assert_eq!(id(&fixture, "new_t"), (3, vec![]));
    fixture.run("DROP VIEW v; INSERT INTO new_t SELECT * FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t");
    fixture.reconcile();
    assert_eq!(id(&fixture, "t"), (4, vec![3]));
    assert_right(&mut fixture, "renamed onto t");
    let head = fixture.head();
    fixture.run("UPDATE t SET a = 'x' WHERE id = 1");
    assert_eq!(fixture.log_after(head), ["2/4 1"]);
}

#[test]
fn a_rename_is_followed_by_the_id_in_the_triggers() {
    let mut fixture = Fixture::captured(SCHEMA);
    fixture.run("ALTER TABLE t RENAME TO t2; INSERT INTO t2 VALUES (9, 'x', 9)");
    fixture.run("CREATE TABLE t(z INTEGER PRIMARY KEY); INSERT INTO t VALUES (77)");
    let reconciled = fixture.reconcile();
    assert_eq!(names(&reconciled), set(&[]));
    let tables: Vec<(String, i64, usize)> =
        fixture.tables().into_iter().map(|table| (table.schema_name, table.id.0, table.ancestors.len())).collect();
    assert_eq!(tables, [("other".into(), 1, 0), ("t".into(), 3, 0), ("t2".into(), 4, 1)]);
    assert_right(&mut fixture, "renamed");
}

/// P54: under `legacy_alter_table` the bodies go on reading the old name, and writes fail until triggers are made anew.
#[test]
fn triggers_that_a_legacy_rename_broke_are_made_anew() {
    let mut fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY, b UNIQUE)");
    fixture.run("PRAGMA legacy_alter_table = ON; ALTER TABLE t RENAME TO t2");
    assert!(fixture.app.execute_batch("INSERT INTO t2 VALUES (1, 1)").is_err());
    fixture.reconcile();
    // SQLite does not re-read the schema for an error inside a trigger; for any other statement it does.
    fixture.run("SELECT * FROM t2");
    fixture.run("INSERT INTO t2 VALUES (1, 1)");
    assert_right(&mut fixture, "legacy rename");
}

/// P45: the youngest trigger fires first, and could keep ours from firing.
#[test]
fn our_triggers_are_made_younger_than_the_users() {
    let mut fixture = Fixture::captured(SCHEMA);
    fixture.run("CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT RAISE(IGNORE); END");
    let head = fixture.head();
    fixture.run("INSERT INTO t VALUES (50, 'lost', 50)");
    assert!(fixture.log_after(head).is_empty(), "this is what goes wrong");
    assert_eq!(names(&fixture.reconcile()), set(&["t"]));
    let head = fixture.head();
    fixture.run("INSERT INTO t VALUES (51, 'seen', 51)");
    assert_eq!(fixture.log_after(head), ["1/2 51"]);
    fixture.run("DROP TRIGGER mine");
    assert_eq!(names(&fixture.reconcile()), set(&[]), "one that goes does no harm");
}

/// P49: names are compared without case.
#[test]
fn a_column_renamed_in_case_only_is_no_change_of_the_table() {
    assert_eq!(copied("ALTER TABLE t RENAME COLUMN a TO A"), set(&[]));
}

#[test]
fn entries_are_read_under_the_key_that_they_were_written_under() {
    let mut fixture = Fixture::captured("CREATE TABLE t(a, b, PRIMARY KEY(a)) WITHOUT ROWID");
    fixture.run("INSERT INTO t VALUES (1, 2)");
    fixture.run("DROP TABLE t; CREATE TABLE t(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID; INSERT INTO t VALUES (1, 2)");
    let head = fixture.head();
    assert_eq!(names(&fixture.reconcile()), set(&["t"]));
    assert_eq!(fixture.log_after(head), ["5/2", "6/2"], "the schema first, then the marker");
    let head = fixture.head();
    fixture.run("UPDATE t SET a = 3");
    assert_eq!(fixture.log_after(head), ["3/2 2 1", "1/2 2 3"], "the log is wider now");
}

#[test]
fn a_table_that_is_no_longer_wanted_loses_its_triggers() {
    let mut fixture = Fixture::captured(SCHEMA);
    fixture.options.selection = Selection::new(&[], &["t".to_owned()]).unwrap();
    let reconciled = fixture.reconcile();
    assert_eq!((reconciled.captured, reconciled.notes.len()), (vec!["other".to_owned()], 1));
    let head = fixture.head();
    fixture.run("INSERT INTO t VALUES (7, 7, 7)");
    assert!(fixture.log_after(head).is_empty());
    fixture.options.selection = Selection::all();
    let reconciled = fixture.reconcile();
    assert_eq!(reconciled.captured, ["other", "t"]);
    let table = fixture.tables().pop().unwrap();
    assert!(table.ancestors.is_empty(), "a new line, which is copied whole");
}

#[test]
fn a_table_that_becomes_impossible_to_capture_is_skipped_and_stays_writable() {
    let mut fixture = Fixture::captured(SCHEMA);
    fixture.run("CREATE UNIQUE INDEX e ON other(id % 7)");
    let reconciled = fixture.reconcile();
    assert_eq!(reconciled.captured, ["t"]);
    assert_eq!(reconciled.skipped[0].name, "other");
    fixture.run("INSERT INTO other VALUES (2, 2, 2)");
    assert_eq!(fixture.reconcile().skipped[0].name, "other", "also when nothing changed");
}

#[track_caller]
fn scripted(schema: &str, script: &str) -> (Fixture, Reconciled) {
    let mut fixture = Fixture::captured(schema);
    let reconciled = run_ddl(&mut fixture.ours, script, &fixture.options, &fixture.clock)
        .unwrap_or_else(|error| panic!("{script}: {error:?}"));
    assert_right(&mut fixture, script);
    (fixture, reconciled)
}

#[test]
fn a_script_copies_only_what_it_rewrote_unseen() {
    for (script, expected) in [
        ("ALTER TABLE t ADD COLUMN c DEFAULT 5; UPDATE t SET c = id", &[][..]),
        ("ALTER TABLE t RENAME COLUMN b TO bb; ALTER TABLE t RENAME TO t2", &[]),
        ("CREATE UNIQUE INDEX u ON t(a)", &[]),
        ("CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT 1; END; DROP VIEW v; CREATE VIEW v AS SELECT 2", &[]),
        ("CREATE TABLE n AS SELECT * FROM t; CREATE INDEX i ON n(a)", &[]),
        ("ALTER TABLE other DROP COLUMN y; ALTER TABLE other ADD COLUMN y", &["other"]),
        ("CREATE UNIQUE INDEX ub2 ON other(x); ALTER TABLE t ADD COLUMN q", &[]),
        (
            "BEGIN; PRAGMA foreign_keys = OFF; DROP VIEW v; CREATE TABLE n(id INTEGER PRIMARY KEY, a INT, b UNIQUE);
             INSERT INTO n SELECT id, length(a), b FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT",
            &["t"],
        ),
    ] {
        let (_, reconciled) = scripted(SCHEMA, script);
        assert_eq!(names(&reconciled), set(expected), "{script}: {:?}", reconciled.notes);
    }
}

/// The application itself cannot do this: "error in trigger".
#[test]
fn a_script_drops_a_column_that_a_trigger_names() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE UNIQUE INDEX u ON t(b);
        CREATE TABLE w(id INTEGER PRIMARY KEY)";
    let fixture = Fixture::captured(schema);
    assert!(fixture.app.execute_batch("DROP INDEX u; ALTER TABLE t DROP COLUMN b").is_err());
    let (fixture, reconciled) = scripted(schema, "DROP INDEX u; ALTER TABLE t DROP COLUMN b; UPDATE t SET a = 1");
    assert_eq!(names(&reconciled), set(&["t"]));
    let table = fixture.tables().into_iter().find(|table| table.schema_name == "t").unwrap();
    assert_eq!(table.columns, ["id", "a"]);
}

#[test]
fn rows_that_a_script_writes_are_logged_and_user_triggers_fire() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE audit(id INTEGER PRIMARY KEY);
        CREATE TRIGGER mine AFTER INSERT ON t BEGIN INSERT INTO audit VALUES (NEW.id); END;";
    let mut fixture = Fixture::captured(schema);
    let head = fixture.head();
    run_ddl(&mut fixture.ours, "INSERT INTO t VALUES (5, 6)", &fixture.options, &fixture.clock).unwrap();
    let logged: BTreeSet<String> = fixture.log_after(head).into_iter().collect();
    assert_eq!(logged, set(&["1/1 5", "1/2 5"]));
    let head = fixture.head();
    fixture.ours.execute_batch("INSERT INTO t VALUES (6, 6)").unwrap();
    assert!(fixture.log_after(head).is_empty(), "triggers are off again on our own connection");
}

#[test]
fn a_script_that_fails_changes_nothing() {
    let schema = "CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE child(p REFERENCES parent(id));
        INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1);";
    let mut fixture = Fixture::captured(schema);
    let before = fixture.schema();
    let mut run = |script: &str| run_ddl(&mut fixture.ours, script, &fixture.options, &fixture.clock);
    let failed = run("CREATE TABLE n(a); CREATE TABLE n(a)");
    assert!(matches!(failed, Err(Error::Script { number: 2, .. })), "{failed:?}");
    let failed = run("CREATE TABLE n(a); ROLLBACK");
    assert!(matches!(failed, Err(Error::ScriptRollsBack { number: 2 })));
    let failed = run("DELETE FROM parent");
    assert!(matches!(failed, Err(Error::ForeignKeys { rows: 1, .. })));
    assert_eq!(fixture.schema(), before);
    assert_eq!(fixture.rows("parent").len(), 1);
}

/// A parent that is rebuilt does not take its children along, whatever the script says of foreign keys.
#[test]
fn a_rebuilt_parent_keeps_its_children() {
    let schema = "CREATE TABLE parent(id INTEGER PRIMARY KEY, a);
        CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(id) ON DELETE CASCADE);
        INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (1, 1);";
    let script = "PRAGMA foreign_keys = ON; BEGIN; CREATE TABLE n(id INTEGER PRIMARY KEY, a, b);
        INSERT INTO n(id, a) SELECT * FROM parent; DROP TABLE parent; ALTER TABLE n RENAME TO parent; COMMIT;";
    let (fixture, reconciled) = scripted(schema, script);
    assert_eq!(fixture.rows("child").len(), 1);
    assert_eq!(names(&reconciled), set(&["parent"]));
}

/// What a trigger of the user's needs is no need of the table's, whoever's triggers are on while a script runs.
#[test]
fn a_table_whose_trigger_calls_the_application_stays_captured() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE n(id);
        CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT only_the_app_has_this(NEW.id); END;";
    let (_, reconciled) = scripted(schema, "ALTER TABLE n ADD COLUMN b");
    assert_eq!((reconciled.captured, reconciled.skipped), (vec!["n".to_owned(), "t".to_owned()], vec![]));
}

#[test]
fn a_script_is_refused_for_the_orphans_that_it_makes_alone() {
    let mut fixture = Fixture::captured(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id));
         INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 77), (2, 1)",
    );
    let mut script = |sql: &str| run_ddl(&mut fixture.ours, sql, &fixture.options, &fixture.clock);
    script("CREATE INDEX ci ON c(p)").expect("the orphan was there before");
    script("ALTER TABLE c RENAME TO d").expect("under whatever name");
    assert!(matches!(script("DELETE FROM p"), Err(Error::ForeignKeys { rows: 1, .. })));
    script("DELETE FROM d WHERE p = 77").expect("one less");
    assert!(matches!(script("DELETE FROM p"), Err(Error::ForeignKeys { rows: 1, .. })));
}

/// What an earlier Twinlite made has no column for what a generation's entries carry: they carry keys.
#[test]
fn generations_of_before_there_were_images_are_of_keys() {
    let mut fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    fixture.run("ALTER TABLE __cdc_tables DROP COLUMN images; DELETE FROM __cdc_meta WHERE key = 'schema_objects'");
    let version: i64 = fixture.ours.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
    store::set_meta(&fixture.ours, store::meta_key::SCHEMA_VERSION, version).unwrap();
    assert_eq!(fixture.tables()[0].images, Images::Key);
    assert!(fixture.install().did.is_empty(), "nothing is to be done about it");
    fixture.run("ALTER TABLE t ADD COLUMN b");
    assert!(fixture.reconcile().copied_again.is_empty());
    assert_eq!(
        (fixture.tables()[0].images, fixture.logs("INSERT INTO t VALUES (1, 2, 3)")),
        (Images::Key, vec!["1/2 1".to_owned()])
    );
}

/// Beside an event consumer, a node that only receives makes its triggers anew after each change of the schema that it
/// applies: to the applier nobody has moved the schema, so nothing is to be compared. What others do, it must still see.
#[test]
fn triggers_made_anew_are_no_move_of_the_schema_by_other_hands() {
    let applied = store::meta_key::APPLIED_SCHEMA_VERSION;
    let mut fixture = Fixture::captured("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    let version = |fixture: &Fixture| catalog::schema_version(&fixture.ours).unwrap();
    let left = |fixture: &Fixture| store::meta::<i64>(&fixture.ours, applied).unwrap();
    fixture.run("ALTER TABLE t ADD COLUMN b");
    let as_applied = version(&fixture);
    store::set_meta(&fixture.ours, applied, as_applied).unwrap();
    fixture.reconcile();
    assert!(version(&fixture) > as_applied, "triggers were made anew");
    assert_eq!(left(&fixture), Some(version(&fixture)));
    let before = version(&fixture);
    fixture.run("ALTER TABLE t ADD COLUMN c");
    fixture.reconcile();
    assert_eq!(left(&fixture), Some(before));
}
