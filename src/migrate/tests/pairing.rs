//! Tables that are renamed, swapped, dropped, or in each other's place.

use super::support::*;

const TWO: &str = "CREATE TABLE a(id INTEGER PRIMARY KEY, x); CREATE TABLE b(id INTEGER PRIMARY KEY, y);
                   CREATE TABLE child(id INTEGER PRIMARY KEY, a_id REFERENCES a(id)); CREATE INDEX ia ON a(x);
                   CREATE VIEW v AS SELECT x FROM a; CREATE TRIGGER g AFTER INSERT ON a BEGIN DELETE FROM b; END";
const ROWS: &str = "INSERT INTO a VALUES (1, 'of a'); INSERT INTO b VALUES (1, 'of b')";

fn changes(outcome: &Outcome) -> Vec<(String, Change, bool)> {
    outcome.tables.iter().map(|table| (table.name.clone(), table.change, table.copy)).collect()
}

#[test]
fn a_dropped_table_goes_or_stays() {
    let mut ends = Ends::with(Mode::Forced, TWO, ROWS);
    let outcome = ends.change("DROP TRIGGER g; DROP TABLE b").unwrap();
    assert_eq!(outcome.gone, [(TableId(3), "b".to_owned(), true)]);
    assert_eq!(schema(&ends.replica), schema(&ends.source));

    let mut ends = Ends::with(Mode::Safe, TWO, ROWS);
    let outcome = ends.change("DROP TRIGGER g; DROP TABLE b").unwrap();
    assert_eq!(outcome.gone, [(TableId(3), "b".to_owned(), false)]);
    assert!(outcome.notes.iter().any(|note| note.contains("\"b\"")));
    assert_eq!(ask(&ends.replica, "SELECT y FROM b"), "of b");
}

#[test]
fn a_renamed_table_is_renamed_with_what_refers_to_it() {
    let mut ends = Ends::with(Mode::Forced, TWO, ROWS);
    ends.rename("a", "people");
    let outcome = ends.sync().unwrap();
    let expected = [("b", Change::Same), ("child", Change::Same), ("people", Change::Renamed)];
    assert_eq!(changes(&outcome), expected.map(|(name, change)| (name.to_owned(), change, false)));
    assert_eq!(outcome.tables[2].previous, Some(TableId(2)));
    assert_eq!(schema(&ends.replica), schema(&ends.source));
    assert_eq!(ask(&ends.replica, "SELECT x FROM people"), "of a");
    assert!(outcome.gone.is_empty() && outcome.notes.is_empty(), "{outcome:?}");
}

#[test]
fn in_safe_mode_a_renamed_table_is_a_new_one_that_must_be_asked_for() {
    let mut ends = Ends::with(Mode::Safe, "CREATE TABLE a(id INTEGER PRIMARY KEY, x)", "INSERT INTO a VALUES (1, 2)");
    ends.rename("a", "people");
    let outcome = ends.sync().unwrap();
    assert_eq!(changes(&outcome), [("people".to_owned(), Change::Created, true)]);
    assert_eq!(outcome.gone, [(TableId(2), "a".to_owned(), false)]);
    assert_eq!(ask(&ends.replica, "SELECT x FROM a"), "2");
}

#[test]
fn two_tables_swap_their_names() {
    for (mode, change) in [(Mode::Forced, Change::Renamed), (Mode::Safe, Change::Altered)] {
        let tables = "CREATE TABLE a(id INTEGER PRIMARY KEY, x); CREATE TABLE b(id INTEGER PRIMARY KEY, y)";
        let mut ends = Ends::with(mode, tables, ROWS);
        ends.rename("a", "z");
        ends.rename("b", "a");
        ends.rename("z", "b");
        let outcome = ends.sync().unwrap();
        let copy = mode == Mode::Safe;
        assert_eq!(changes(&outcome), ["a", "b"].map(|name| (name.to_owned(), change, copy)), "{mode:?}");
        if mode == Mode::Forced {
            assert_eq!(schema(&ends.replica), schema(&ends.source));
            assert_eq!(ask(&ends.replica, "SELECT y FROM a"), "of b");
            assert!(outcome.gone.is_empty());
        }
    }
}

#[test]
fn a_rename_over_a_dropped_table_and_a_new_one_in_the_old_place() {
    let mut ends = Ends::with(Mode::Forced, "CREATE TABLE a(x); CREATE TABLE b(y)", "INSERT INTO a VALUES (1)");
    ends.source.execute_batch("DROP TABLE b").unwrap();
    ends.known.remove("b");
    ends.rename("a", "b");
    let outcome = ends.change("CREATE TABLE a(z)").unwrap();
    let names = [("a", Change::Created), ("b", Change::Renamed)];
    assert_eq!(changes(&outcome), names.map(|(name, change)| (name.to_owned(), change, false)));
    assert_eq!(outcome.gone, [(TableId(3), "b".to_owned(), true)]);
    assert_eq!(ask(&ends.replica, "SELECT x FROM b"), "1");
}

#[test]
fn a_table_dropped_and_made_anew_is_another_one_in_the_same_place() {
    let mut ends = Ends::with(Mode::Forced, "CREATE TABLE a(x)", "INSERT INTO a VALUES (1)");
    ends.known.clear();
    let outcome = ends.change("DROP TABLE a; CREATE TABLE a(x, y)").unwrap();
    assert_eq!((only(&outcome).previous, only(&outcome).change), (None, Change::Altered));
    assert_eq!(outcome.gone, [(TableId(2), "a".to_owned(), true)]);
}

#[test]
fn a_table_that_was_dropped_here_comes_back_and_is_asked_for() {
    for mode in [Mode::Safe, Mode::Forced] {
        let mut ends = Ends::with(mode, "CREATE TABLE a(x)", "");
        ends.replica.execute_batch("DROP TABLE a").unwrap();
        let outcome = ends.sync().unwrap();
        assert_eq!(changes(&outcome), [("a".to_owned(), Change::Created, true)]);
    }
}

#[test]
fn a_table_of_the_replicas_own_is_not_taken_over() {
    for (here, adopt, expected) in [
        ("CREATE TABLE a(x)", false, true),
        ("CREATE TABLE a(x); INSERT INTO a VALUES (1)", false, false),
        ("CREATE TABLE a(x); INSERT INTO a VALUES (1)", true, true),
        ("CREATE TABLE a(x, y)", false, false),
        ("CREATE TABLE a(x, y)", true, false),
        ("CREATE VIEW a AS SELECT 1", true, false),
    ] {
        let mut ends = Ends::new(Mode::Forced);
        ends.adopt = adopt;
        ends.replica.execute_batch(here).unwrap();
        let done = ends.change("CREATE TABLE a(x)");
        assert_eq!(done.is_ok(), expected, "{here} {adopt}");
        assert!(expected || matches!(done, Err(Error::Occupied { .. })), "{here} {adopt}: {done:?}");
    }
}

#[test]
fn two_full_databases_of_nearly_one_shape_meet() {
    let mut ends = Ends::new(Mode::Safe);
    (ends.adopt, ends.mirror) = (true, false);
    ends.replica.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a, mine NOT NULL DEFAULT 1)").unwrap();
    ends.replica.execute_batch("INSERT INTO t(id, a) VALUES (1, 2); CREATE UNIQUE INDEX u ON t(mine)").unwrap();
    let outcome = ends.change("CREATE TABLE t(id INTEGER PRIMARY KEY, a, theirs)").unwrap();
    assert_eq!((only(&outcome).previous, only(&outcome).change), (None, Change::Altered));
    assert_eq!(ask(&ends.replica, "SELECT id || a || mine || coalesce(theirs, '-') FROM t"), "121-");
}

#[test]
fn triggers_of_ours_are_not_in_the_way() {
    let mut ends =
        Ends::with(Mode::Forced, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", "INSERT INTO t VALUES (1, 2, 3)");
    ends.replica
        .execute_batch(
            "CREATE TABLE __cdc_log(seq INTEGER PRIMARY KEY, k0, v0);
             CREATE TRIGGER __cdc_9_ai AFTER INSERT ON t BEGIN INSERT INTO __cdc_log(k0, v0) VALUES (NEW.id, NEW.b); END;
             CREATE TABLE other(x); CREATE TRIGGER __cdc_8_ai AFTER INSERT ON other BEGIN INSERT INTO gone VALUES (1); END",
        )
        .unwrap();
    let outcome = ends.change("ALTER TABLE t DROP COLUMN b").unwrap();
    assert_eq!(only(&outcome).local.columns.len(), 2);
    ends.rename("t", "u");
    let outcome = ends.sync().unwrap();
    assert_eq!(only(&outcome).change, Change::Renamed);
    assert_eq!(ask(&ends.replica, "SELECT a FROM u"), "2");
}

#[test]
fn what_the_peer_says_again_does_not_undo_what_was_changed_here() {
    // Two-way: the peer's catalog is older than a change made here, which it has not seen yet.
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, a NOT NULL, b); CREATE INDEX i ON t(a)";
    let mut ends = Ends::with(Mode::Safe, ddl, "INSERT INTO t VALUES (1, 2, 3)");
    ends.mirror = false;
    ends.replica
        .execute_batch("ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD c NOT NULL DEFAULT 1; DROP INDEX i; CREATE UNIQUE INDEX u ON t(c)")
        .unwrap();
    let before = schema(&ends.replica);
    assert_eq!(only(&ends.sync().unwrap()).change, Change::Same);
    assert_eq!(schema(&ends.replica), before);
    let outcome = ends.change("ALTER TABLE t ADD COLUMN d").unwrap();
    assert_eq!(only(&outcome).change, Change::Altered);
    let columns: Vec<_> = only(&outcome).local.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["id", "a", "c", "d"]);
}

#[test]
fn what_was_loosened_here_stays_loose_when_the_peer_changes_something_else() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, a NOT NULL, b UNIQUE)";
    let mut ends = Ends::with(Mode::Safe, ddl, "");
    ends.replica.execute_batch("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, CHECK (a <> b))").unwrap();
    let outcome = ends.change("ALTER TABLE t ADD COLUMN c").unwrap();
    assert_eq!(only(&outcome).change, Change::Altered);
    assert_eq!(only(&outcome).local.ddl, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, CHECK (a <> b))");
}

#[test]
fn a_table_that_the_link_leaves_out_or_that_comes_twice_is_an_error() {
    let mut ends = Ends::new(Mode::Forced);
    ends.source.execute_batch("CREATE TABLE a(x); CREATE TABLE b(x)").unwrap();
    let mut catalog = ends.catalog();
    let selection = Selection::new(&["a".to_owned()], &[]).unwrap();
    let rules =
        Rules { mode: Mode::Forced, kinds: SchemaKinds::ALL, selection: &selection, adopt: false, mirror: true };
    let done = apply_catalog(&ends.replica, PEER, &catalog, &[], &rules);
    assert!(matches!(done, Err(Error::NotSelected { table }) if table == "b"));
    catalog.tables[1] = TableDef { name: "A".to_owned(), ..catalog.tables[0].clone() };
    assert!(matches!(ends.apply(&catalog), Err(Error::Twice { .. })));
}

/// The newer one of a table that is built beside the old one takes its name.
#[test]
fn a_table_takes_the_name_of_one_that_is_renamed_in_the_same_catalog() {
    let tables = "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE TABLE t_new(id INTEGER PRIMARY KEY, x TEXT)";
    let rows = "INSERT INTO t VALUES (1, 'old'); INSERT INTO t_new VALUES (1, 'new')";
    let mut ends = Ends::with(Mode::Forced, tables, rows);
    ends.rename("t", "t_old");
    ends.rename("t_new", "t");
    let outcome = ends.sync().unwrap();
    let renamed = |name: &str| (name.to_owned(), Change::Renamed, false);
    assert_eq!(changes(&outcome), [renamed("t"), renamed("t_old")]);
    assert_eq!(schema(&ends.replica), schema(&ends.source));
    assert_eq!(ask(&ends.replica, "SELECT x FROM t"), "new");
    assert_eq!(ask(&ends.replica, "SELECT x FROM t_old"), "old");
}

/// In `forced`, where both ends write, a change that was made here is not the peer's to undo, whatever it says meanwhile: it
/// stands until the peer has made it too.
#[test]
fn what_was_changed_here_stands_while_the_peer_has_not_changed_that_table() {
    let rebuilt = "CREATE TABLE n(id INTEGER PRIMARY KEY, a INT, b); INSERT INTO n SELECT * FROM t; DROP TABLE t;
        ALTER TABLE n RENAME TO t";
    for (here, peer) in [
        (rebuilt, "CREATE TABLE other(x)"),
        ("ALTER TABLE t ADD COLUMN c DEFAULT 1", "CREATE TABLE other(x)"),
        ("ALTER TABLE t ADD COLUMN c DEFAULT 1", "ALTER TABLE t ADD COLUMN d"),
        ("ALTER TABLE t DROP COLUMN b", "ALTER TABLE t ADD COLUMN d"),
    ] {
        let mut ends = Ends::with(
            Mode::Forced,
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)",
            "INSERT INTO t VALUES (1, 'x', 2)",
        );
        (ends.adopt, ends.mirror) = (true, false);
        ends.sync().expect("first contact");
        ends.replica.execute_batch(here).expect(here);
        let columns = "SELECT group_concat(name || type, ' ') FROM pragma_table_info('t')";
        let before = ask(&ends.replica, columns);
        ends.change(peer).unwrap_or_else(|error| panic!("{here} / {peer}: {error}"));
        let expected = if peer.contains(" d") { format!("{before} d") } else { before };
        assert_eq!(ask(&ends.replica, columns), expected, "{here} / {peer}");
    }
}
