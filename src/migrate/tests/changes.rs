//! Every row of the table of schema changes, in both modes.

use super::support::*;

/// What a mode does with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// The replica ends as the source; this is said of the table.
    Equal(Change),
    /// As `Equal`, and the copy is asked for.
    EqualAndCopied(Change),
    /// The replica ends otherwise, on purpose.
    Keeps(Change),
    /// The same, and the copy is asked for.
    KeepsAndCopies(Change),
    /// Nothing: it is refused.
    Refuses,
}
use Does::*;

struct Case {
    what: &'static str,
    before: &'static str,
    rows: &'static str,
    change: &'static str,
    safe: Does,
    forced: Does,
}

const PLAIN: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT)";
const ROWS: &str = "INSERT INTO t(id, a, b) VALUES (1, 'x', 10), (2, 'y', 20)";

macro_rules! remake {
    ($new:literal, $copy:literal) => {
        concat!("CREATE TABLE n", $new, "; INSERT INTO n ", $copy, "; DROP TABLE t; ALTER TABLE n RENAME TO t")
    };
}

fn case(what: &'static str, change: &'static str, safe: Does, forced: Does) -> Case {
    Case { what, before: PLAIN, rows: ROWS, change, safe, forced }
}

fn applied_cases() -> Vec<Case> {
    let same = Equal(Change::Same);
    let altered = Equal(Change::Altered);
    let rebuilt = EqualAndCopied(Change::Rebuilt);
    vec![
        case("index added", "CREATE INDEX i ON t(a)", same, same),
        case("view added", "CREATE VIEW v AS SELECT a FROM t", same, same),
        case("trigger added", "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET b = 1; END", same, same),
        case("column added", "ALTER TABLE t ADD COLUMN c TEXT COLLATE NOCASE DEFAULT 'q'", altered, altered),
        case("NOT NULL column with default", "ALTER TABLE t ADD COLUMN c INT NOT NULL DEFAULT 7", altered, altered),
        case("virtual column", "ALTER TABLE t ADD COLUMN c INT AS (b * 2)", altered, altered),
        case("column case", "ALTER TABLE t RENAME COLUMN a TO A", Keeps(Change::Same), Keeps(Change::Same)),
        Case {
            before: "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT); CREATE INDEX i ON t(a); CREATE VIEW v AS SELECT 1;
                     CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
            ..case(
                "index, view, trigger changed",
                "DROP INDEX i; DROP VIEW v; DROP TRIGGER g; CREATE INDEX i ON t(b); CREATE VIEW v AS SELECT 2;
                 CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 2; END",
                same,
                same,
            )
        },
        Case {
            before: "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT); CREATE UNIQUE INDEX i ON t(a);
                     CREATE VIEW v AS SELECT 1; CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
            ..case("index, view, trigger dropped", "DROP INDEX i; DROP VIEW v; DROP TRIGGER g", same, same)
        },
        Case {
            before: "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL UNIQUE CHECK(a <> ''), b INT REFERENCES t(id))",
            ..case(
                "NOT NULL, UNIQUE, CHECK and foreign key removed",
                remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT)", "SELECT * FROM t"),
                rebuilt,
                rebuilt,
            )
        },
    ]
}

fn refused_cases() -> Vec<Case> {
    let rebuilt = EqualAndCopied(Change::Rebuilt);
    let remade = |what, change| case(what, change, Refuses, rebuilt);
    let from = |before, case: Case| Case { before, ..case };
    let unique = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b INT)";
    vec![
        remade("NOT NULL added", remake!("(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT)", "SELECT * FROM t")),
        remade("UNIQUE added", remake!("(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b INT)", "SELECT * FROM t")),
        remade("foreign key added", remake!("(id INTEGER PRIMARY KEY, a, b INT REFERENCES t(id))", "SELECT * FROM t")),
        remade("CHECK added", remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT CHECK(b > 1))", "SELECT * FROM t")),
        remade("default changed", remake!("(id INTEGER PRIMARY KEY, a TEXT DEFAULT 'z', b INT)", "SELECT * FROM t")),
        remade(
            "collation changed",
            remake!("(id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE, b INT)", "SELECT * FROM t"),
        ),
        remade("type changed", remake!("(id INTEGER PRIMARY KEY, a BLOB, b INT)", "SELECT * FROM t")),
        remade("AUTOINCREMENT", remake!("(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b INT)", "SELECT * FROM t")),
        remade(
            "conflict clause",
            remake!("(id INTEGER PRIMARY KEY ON CONFLICT IGNORE, a TEXT, b INT)", "SELECT * FROM t"),
        ),
        remade("key changed", remake!("(id INTEGER, a TEXT PRIMARY KEY, b INT)", "SELECT * FROM t")),
        remade("STRICT", remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT) STRICT", "SELECT * FROM t")),
        remade("WITHOUT ROWID", remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT) WITHOUT ROWID", "SELECT * FROM t")),
        remade("order changed", remake!("(id INTEGER PRIMARY KEY, b INT, a TEXT)", "SELECT id, b, a FROM t")),
        remade(
            "column made a computed one",
            remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT AS (id) STORED)", "(id, a) SELECT id, a FROM t"),
        ),
        from(
            unique,
            remade("unique column dropped", remake!("(id INTEGER PRIMARY KEY, b INT)", "SELECT id, b FROM t")),
        ),
        from(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT NOT NULL DEFAULT 0)",
            case("NOT NULL column dropped", "ALTER TABLE t DROP COLUMN b", Refuses, Equal(Change::Altered)),
        ),
        case("unique index added", "CREATE UNIQUE INDEX i ON t(a)", Refuses, Equal(Change::Same)),
    ]
}

fn column_cases() -> Vec<Case> {
    let altered = Equal(Change::Altered);
    let rebuilt = EqualAndCopied(Change::Rebuilt);
    let appended = Keeps(Change::Altered);
    vec![
        Case {
            before: "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT, CHECK(b > 0), UNIQUE(a))",
            ..case(
                "constraints in another order",
                remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT, UNIQUE(a), CHECK(b > 0))", "SELECT * FROM t"),
                Keeps(Change::Same),
                rebuilt,
            )
        },
        case("column dropped", "ALTER TABLE t DROP COLUMN a", Keeps(Change::Same), altered),
        case(
            "column renamed",
            "ALTER TABLE t RENAME COLUMN a TO c",
            KeepsAndCopies(Change::Altered),
            EqualAndCopied(Change::Altered),
        ),
        case(
            "column dropped, another added",
            "ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD c BLOB",
            KeepsAndCopies(Change::Altered),
            altered,
        ),
        case(
            "column inserted",
            remake!("(id INTEGER PRIMARY KEY, c TEXT, a TEXT, b INT)", "SELECT id, 1, a, b FROM t"),
            appended,
            rebuilt,
        ),
        case(
            "stored column added",
            remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT, c INT AS (b + 1) STORED)", "(id, a, b) SELECT * FROM t"),
            rebuilt,
            rebuilt,
        ),
        case(
            "column with a default that cannot be added",
            remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT, c DEFAULT CURRENT_TIMESTAMP)", "SELECT *, 1 FROM t"),
            rebuilt,
            rebuilt,
        ),
        case(
            "unique column added",
            remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT, c UNIQUE)", "SELECT *, NULL FROM t"),
            rebuilt,
            rebuilt,
        ),
        case(
            "two columns swap names",
            "ALTER TABLE t RENAME COLUMN a TO z; ALTER TABLE t RENAME COLUMN b TO a; ALTER TABLE t RENAME COLUMN z TO b",
            Refuses,
            rebuilt,
        ),
    ]
}

fn run(case: &Case, mode: Mode, does: Does) {
    let what = format!("{} ({mode:?})", case.what);
    let mut ends = Ends::with(mode, case.before, case.rows);
    let before = schema(&ends.replica);
    let done = ends.change(case.change);
    let (change, copy) = match does {
        Refuses => {
            assert!(matches!(done, Err(Error::Refused(_))), "{what}: {done:?}");
            assert_eq!(schema(&ends.replica), before, "{what}");
            return;
        }
        Equal(change) | Keeps(change) => (change, false),
        EqualAndCopied(change) | KeepsAndCopies(change) => (change, true),
    };
    let outcome = done.unwrap_or_else(|error| panic!("{what}: {error} {:?}", std::error::Error::source(&error)));
    let table = only(&outcome);
    assert_eq!((table.change, table.copy), (change, copy), "{what}");
    assert_eq!(ask(&ends.replica, "SELECT count(*) FROM t"), "2", "{what}: rows that fit stay");
    if matches!(does, Equal(_) | EqualAndCopied(_)) {
        assert_eq!(schema(&ends.replica), schema(&ends.source), "{what}");
    }
    let again = ends.sync().unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!((only(&again).change, only(&again).copy), (Change::Same, false), "{what}, again");
}

#[test]
fn every_schema_change_does_what_its_mode_says() {
    for case in applied_cases().iter().chain(&refused_cases()).chain(&column_cases()) {
        run(case, Mode::Safe, case.safe);
        run(case, Mode::Forced, case.forced);
    }
}

#[test]
fn a_new_table_has_the_peers_text_and_its_plain_indexes_wait_for_the_copy() {
    let mut ends = Ends::new(Mode::Safe);
    let ddl = "CREATE TABLE [odd one](\"the key\" TEXT  COLLATE NOCASE, é GEOMETRY, n NUMERIC(10,2), PRIMARY KEY(\"the key\")) WITHOUT ROWID;
               CREATE INDEX \"Straße\" ON [odd one](é); CREATE UNIQUE INDEX u ON \"odd one\"(n) WHERE n > 0";
    let outcome = ends.change(ddl).unwrap();
    assert_eq!((only(&outcome).change, only(&outcome).copy), (Change::Created, false));
    assert_eq!(names(&ends.replica), ["u", "odd one"]);
    assert_eq!(create_deferred_indexes(&ends.replica, PEER, "Odd One").unwrap(), 1);
    assert_eq!(create_deferred_indexes(&ends.replica, PEER, "odd one").unwrap(), 0);
    assert_eq!(schema(&ends.replica), schema(&ends.source));
}

#[test]
fn an_index_waits_for_its_copy_also_if_the_catalog_comes_again() {
    let mut ends = Ends::new(Mode::Forced);
    ends.change("CREATE TABLE t(a); CREATE INDEX i ON t(a)").unwrap();
    ends.sync().unwrap();
    assert_eq!(names(&ends.replica), ["t"]);
    assert_eq!(create_deferred_indexes(&ends.replica, PEER, "t").unwrap(), 1);
    ends.sync().unwrap();
    assert_eq!(names(&ends.replica), ["i", "t"]);
}

#[test]
fn rows_that_no_longer_fit_are_left_out_and_the_others_stay() {
    let before = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b INT)";
    let mut ends = Ends::with(Mode::Forced, before, "");
    ends.replica.execute_batch("INSERT INTO t VALUES (1, 'x', 1), (2, NULL, 2), (3, 'z', 'no number')").unwrap();
    let change = "DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT) STRICT";
    let outcome = ends.change(change).unwrap();
    assert_eq!((only(&outcome).change, only(&outcome).copy), (Change::Rebuilt, true));
    assert_eq!(ask(&ends.replica, "SELECT group_concat(id) FROM t"), "1");
}

#[test]
fn a_unique_index_on_rows_that_are_not_unique_any_more_here_rebuilds() {
    let mut ends = Ends::with(Mode::Forced, PLAIN, "");
    ends.replica.execute_batch("INSERT INTO t VALUES (1, 'same', 1), (2, 'same', 2)").unwrap();
    let outcome = ends.change("CREATE UNIQUE INDEX i ON t(a); CREATE INDEX j ON t(b)").unwrap();
    assert_eq!((only(&outcome).change, only(&outcome).copy), (Change::Rebuilt, true));
    assert_eq!(ask(&ends.replica, "SELECT count(*) FROM t"), "1");
    ends.sync().unwrap();
    assert_eq!(schema(&ends.replica), schema(&ends.source));
}

#[test]
fn autoincrement_goes_on_after_a_rebuild() {
    let before = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)";
    let mut ends = Ends::with(Mode::Forced, before, "INSERT INTO t VALUES (41, 1); DELETE FROM t");
    ends.change("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT)").unwrap();
    assert_eq!(ask(&ends.replica, "SELECT seq FROM sqlite_sequence WHERE name = 't'"), "41");
    assert_eq!(ask(&ends.replica, "SELECT count(*) FROM sqlite_sequence"), "1");
}

#[test]
fn a_refusal_says_what_where_and_what_to_do() {
    let mut ends = Ends::with(Mode::Safe, PLAIN, ROWS);
    let change = remake!("(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT)", "SELECT * FROM t");
    let message = ends.change(change).unwrap_err().to_string();
    for part in ["table \"t\"", "column a", "NOT NULL added", "a TEXT NOT NULL, b INT)", "a TEXT, b INT)", "forced"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // What the operator did by hand is what was asked for.
    ends.replica.execute_batch(change).unwrap();
    assert_eq!(only(&ends.sync().unwrap()).change, Change::Same);
}

#[test]
fn a_new_column_that_no_row_here_can_have_leaves_the_rows_to_the_copy() {
    let change = remake!("(id INTEGER PRIMARY KEY, a TEXT, b INT, c NOT NULL)", "SELECT *, 1 FROM t");
    let refused = Ends::with(Mode::Safe, PLAIN, ROWS).change(change);
    assert!(matches!(refused, Err(Error::Refused(change)) if change.columns == "c"));
    let mut ends = Ends::with(Mode::Forced, PLAIN, ROWS);
    let outcome = ends.change(change).unwrap();
    assert_eq!((only(&outcome).change, only(&outcome).copy), (Change::Rebuilt, true));
    assert_eq!(schema(&ends.replica), schema(&ends.source));
    assert_eq!(ask(&ends.replica, "SELECT count(*) FROM t"), "0");
}

#[test]
fn rows_that_need_a_default_of_the_applications_are_left_to_the_copy() {
    let mut ends = Ends::with(Mode::Forced, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (1, 2)");
    let change =
        "CREATE TABLE n(id INTEGER PRIMARY KEY, a, u DEFAULT (my_uuid())); DROP TABLE t; ALTER TABLE n RENAME TO t";
    let outcome = ends.change(change).unwrap();
    assert_eq!((only(&outcome).change, only(&outcome).copy), (Change::Rebuilt, true));
    assert_eq!(schema(&ends.replica), schema(&ends.source));
}
