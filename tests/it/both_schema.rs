//! Schema changes where both ends write: they travel from either side, contradictions halt the link, and no row is lost.

use crate::support::{
    both::{Both, Side},
    shop::rebuild,
};

/// A schema with rows in it. `a` writes odd ids, `b` even ones, so that no conflict is recorded that was none.
const SCHEMA: &str = "
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INT, extra);
CREATE UNIQUE INDEX t_name ON t(name);
CREATE INDEX t_n ON t(n);
CREATE TABLE k(k TEXT PRIMARY KEY COLLATE NOCASE, v NUMERIC) WITHOUT ROWID;
INSERT INTO t VALUES (1, 'one', 10, NULL), (2, 'two', 20, 'x'), (3, 'three', 30, x'00'), (4, 'four', 40, 4.5);
INSERT INTO k VALUES ('p', 1), ('q', 2);
";

/// What the application of a side writes in a round, whatever else the schema is.
fn write(both: &Both, side: Side, round: i64) {
    let own = side as i64 + 1;
    let id = 1000 * round + own;
    both.sql(
        side,
        &format!(
            "INSERT INTO t(id, name, n) VALUES ({id}, 'name {id}', {round});
             UPDATE t SET n = n + {round} WHERE id = {own};
             INSERT OR REPLACE INTO k(k, v) VALUES ('{id}', {round});
             DELETE FROM t WHERE id = {}",
            id - 2000,
        ),
    );
}

fn write_both(both: &Both, round: i64) {
    for side in Side::ALL {
        write(both, side, round);
    }
}

/// Nobody's change contradicted another's, and no node took its own schema changes for drift.
#[track_caller]
fn assert_peaceful(both: &Both, what: &str) {
    assert_eq!(both.all_conflicts(), Vec::<String>::new(), "{what}");
    for side in Side::ALL {
        assert_eq!(both.drift(side), (0, false), "{what}: {side:?} copies tables again, or is blind");
    }
}

/// What is changed, how the side that changed it writes at once, and how the other one does once it has it.
const ADDITIVE: &[(&str, &str, &str)] = &[
    (
        "ALTER TABLE t ADD COLUMN c1",
        "UPDATE t SET c1 = 'here' WHERE id = {own}",
        "UPDATE t SET c1 = 'there' WHERE id = {own}",
    ),
    (
        "ALTER TABLE t ADD COLUMN c2 TEXT DEFAULT 'd'",
        "UPDATE t SET c2 = NULL WHERE id = {own}",
        "UPDATE t SET c2 = 'e' WHERE id = {own}",
    ),
    (
        "ALTER TABLE t ADD COLUMN c3 INTEGER NOT NULL DEFAULT 7",
        "UPDATE t SET c3 = 8 WHERE id = {own}",
        "UPDATE t SET c3 = 9 WHERE id = {own}",
    ),
    (
        "ALTER TABLE t ADD COLUMN g1 AS (n + 1)",
        "UPDATE t SET n = 3 WHERE id = {own}",
        "UPDATE t SET n = 4 WHERE id = {own}",
    ),
    (
        "CREATE TABLE fresh(x PRIMARY KEY, y); CREATE INDEX fresh_y ON fresh(y)",
        "INSERT INTO fresh VALUES ({own}, 'here'), ('both', 1)",
        "INSERT INTO fresh VALUES ({own}, 'there'); UPDATE fresh SET y = 2 WHERE x = 'both'",
    ),
    (
        "BEGIN; CREATE TABLE filled(x INTEGER PRIMARY KEY, y); INSERT INTO filled VALUES (10, 'a'), (20, 'b'); COMMIT",
        "INSERT INTO filled VALUES ({own}, 'here')",
        "INSERT INTO filled VALUES ({own}, 'there'); DELETE FROM filled WHERE x = 10",
    ),
    (
        "CREATE INDEX i1 ON t(extra)",
        "UPDATE t SET extra = 5 WHERE id = {own}",
        "UPDATE t SET extra = 6 WHERE id = {own}",
    ),
    (
        "ddl CREATE UNIQUE INDEX u1 ON k(v, k)",
        "INSERT OR REPLACE INTO k VALUES ('here', 77)",
        "INSERT OR REPLACE INTO k VALUES ('there', 78)",
    ),
    ("CREATE VIEW named AS SELECT name FROM t", "SELECT 1", "SELECT 1"),
];

#[test]
fn additive_changes_travel_from_either_side_while_both_write() {
    for changer in Side::ALL {
        let mut both = Both::start(SCHEMA, "");
        for (round, (change, at_once, later)) in (1..).zip(ADDITIVE) {
            eprintln!("{changer:?}: {change}");
            let of = |side: Side, sql: &str| sql.replace("{own}", &(side as i64 + 1).to_string());
            write_both(&both, 10 * round);
            match change.strip_prefix("ddl ") {
                Some(script) => both.ddl(changer, script),
                None => both.sql(changer, change),
            }
            both.sql(changer, &of(changer, at_once));
            write_both(&both, 10 * round + 1);
            both.equal(&[]);
            both.sql(changer.other(), &of(changer.other(), later));
            write_both(&both, 10 * round + 2);
            both.equal(&[]);
            assert_peaceful(&both, change);
        }
    }
}

#[test]
fn the_same_change_on_both_sides_is_one_change() {
    let mut both = Both::start(SCHEMA, "");
    both.cut();
    for side in Side::ALL {
        both.sql(
            side,
            "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'd'; CREATE INDEX i ON t(c); CREATE VIEW v AS SELECT c FROM t;
",
        );
        both.ddl(side, "CREATE UNIQUE INDEX tu ON t(id, n)");
        write(&both, side, 5);
        both.sql(side, &format!("UPDATE t SET c = '{side:?}' WHERE id = {}", side as i64 + 1));
    }
    both.proxy.heal();
    both.equal(&[]);
    write_both(&both, 6);
    both.equal(&[]);
    assert_peaceful(&both, "the same columns, indexes and views");
    for side in Side::ALL {
        assert_eq!(both.cell(side, "SELECT c FROM t WHERE id = 1").as_deref(), Some("A"));
        assert_eq!(both.cell(side, "SELECT c FROM t WHERE id = 2").as_deref(), Some("B"));
    }
}

/// Which of the two copies first depends on the random ids of the nodes: both ways are met in a few rounds.
#[test]
fn the_same_new_table_on_both_sides_keeps_the_rows_of_both_or_records_them() {
    for round in 0..4 {
        let mut both = Both::start(SCHEMA, "");
        both.cut();
        // Of one moment with the table, before any trigger of ours stands: no log entry tells who wrote what.
        for side in Side::ALL {
            let own = side as i64 + 1;
            both.sql(
                side,
                &format!(
                    "BEGIN; CREATE TABLE twin(id INTEGER PRIMARY KEY, v);
                     INSERT INTO twin VALUES ({own}0, 'early {own}'), (5, 'early both {own}'); COMMIT;
                     CREATE TABLE late(id INTEGER PRIMARY KEY, v)"
                ),
            );
        }
        for side in Side::ALL {
            let own = side as i64 + 1;
            crate::support::wait::until("the new tables to be captured", || {
                match both
                    .count(side, "SELECT count(*) FROM __cdc_tables WHERE NOT dropped AND name IN ('late', 'twin')")
                {
                    2 => Ok(()),
                    found => Err(format!("{found} are")),
                }
            });
            both.sql(
                side,
                &format!(
                    "INSERT INTO late VALUES ({own}, 'late {own}'); INSERT INTO twin VALUES ({own}, 'after {own}')"
                ),
            );
        }
        both.proxy.heal();
        both.equal(&[]);
        let everywhere = |value: &str| {
            let kept = |table: &str| both.count(Side::A, &format!("SELECT count(*) FROM {table} WHERE v = '{value}'"));
            let recorded =
                both.all_conflicts().iter().any(|conflict| conflict.contains(value) || blob_has(conflict, value));
            kept("late") + kept("twin") > 0 || recorded
        };
        for value in ["early 1", "early 2", "early both 1", "early both 2", "after 1", "after 2", "late 1", "late 2"] {
            assert!(everywhere(value), "round {round}: {value:?} is lost:\n{}", both.all_conflicts().join("\n"));
        }
        for value in ["late 1", "late 2", "after 1", "after 2"] {
            let table = value.split(' ').next().map(|word| if word == "late" { "late" } else { "twin" }).unwrap();
            assert_eq!(both.count(Side::B, &format!("SELECT count(*) FROM {table} WHERE v = '{value}'")), 1, "{value}");
        }
    }
}

/// A row in `__cdc_conflicts` is a BLOB, printed as a list of numbers.
fn blob_has(conflict: &str, value: &str) -> bool {
    let bytes: Vec<String> = value.bytes().map(|byte| byte.to_string()).collect();
    conflict.contains(&bytes.join(", "))
}

/// `b` does not know the column yet, and its row wins: what `a` has in the column stays, and `b` gets it.
#[test]
fn a_row_from_before_a_column_does_not_erase_it() {
    for changer in Side::ALL {
        let other = changer.other();
        let mut both = Both::start(SCHEMA, "");
        both.cut();
        both.sql(changer, "ALTER TABLE t ADD COLUMN c; ALTER TABLE k ADD COLUMN c NOT NULL DEFAULT 'none'");
        both.sql(
            changer,
            "UPDATE t SET c = 'kept ' || id; UPDATE k SET c = 'kept ' || k;
             INSERT INTO t(id, name, c) VALUES (50, 'fifty', 'of fifty')",
        );
        // Later, so they win; one takes the name of another row, one swaps.
        both.sql(
            other,
            "UPDATE t SET n = 77 WHERE id IN (1, 2); UPDATE k SET v = 78;
             UPDATE t SET name = 'tmp' WHERE id = 3; UPDATE t SET name = 'three' WHERE id = 4;
             UPDATE t SET name = 'four' WHERE id = 3; INSERT INTO t(id, name) VALUES (60, 'sixty')",
        );
        both.proxy.heal();
        both.equal(&[]);
        for side in Side::ALL {
            assert_eq!(both.count(side, "SELECT count(*) FROM t WHERE n = 77"), 2, "{side:?}");
            assert_eq!(both.count(side, "SELECT count(*) FROM t WHERE c = 'kept ' || id"), 4, "{side:?}");
            assert_eq!(both.count(side, "SELECT count(*) FROM k WHERE c = 'kept ' || k AND v = 78"), 2, "{side:?}");
            assert_eq!(both.cell(side, "SELECT name FROM t WHERE id = 3").as_deref(), Some("four"));
            assert_eq!(both.cell(side, "SELECT c FROM t WHERE id = 50").as_deref(), Some("of fifty"));
        }
        for side in Side::ALL {
            assert_eq!(both.drift(side), (0, false));
        }
    }
}

/// What each side does, words that both messages must have, and what makes `b` like `a`.
const CONTRADICTIONS: &[(&str, &str, [&str; 2], &str)] = &[
    (
        "ALTER TABLE t ADD COLUMN c TEXT",
        "ALTER TABLE t ADD COLUMN c INTEGER",
        ["c TEXT", "c INTEGER"],
        "ALTER TABLE t RENAME COLUMN c TO old; ALTER TABLE t ADD COLUMN c TEXT; UPDATE t SET c = old WHERE old NOT NULL; ALTER TABLE t DROP COLUMN old",
    ),
    (
        "rebuild n INT>n TEXT",
        "",
        ["n TEXT", "n INT"],
        "CREATE TABLE t2(id INTEGER PRIMARY KEY, name TEXT, n TEXT, extra); INSERT INTO t2 SELECT * FROM t; DROP TABLE t;
         ALTER TABLE t2 RENAME TO t; CREATE UNIQUE INDEX t_name ON t(name); CREATE INDEX t_n ON t(n)",
    ),
    (
        "rebuild name TEXT>name TEXT NOT NULL",
        "",
        ["name TEXT NOT NULL", "name TEXT,"],
        "CREATE TABLE t2(id INTEGER PRIMARY KEY, name TEXT NOT NULL, n INT, extra); INSERT INTO t2 SELECT * FROM t; DROP TABLE t;
         ALTER TABLE t2 RENAME TO t; CREATE UNIQUE INDEX t_name ON t(name); CREATE INDEX t_n ON t(n)",
    ),
];

fn change(both: &Both, side: Side, sql: &str) {
    match sql.strip_prefix("rebuild ").and_then(|edit| edit.split_once('>')) {
        Some((from, to)) => rebuild(&both.open(side), "t", |sql| {
            assert!(sql.contains(from), "no {from:?} in {sql}");
            sql.replacen(from, to, 1)
        }),
        None => both.sql(side, sql),
    }
}

#[test]
fn contradicting_changes_halt_the_link_and_it_goes_on_when_both_are_alike() {
    for (at_a, at_b, words, mend) in CONTRADICTIONS {
        eprintln!("{at_a} / {at_b}");
        let mut both = Both::start(SCHEMA, "");
        both.cut();
        change(&both, Side::A, at_a);
        change(&both, Side::B, at_b);
        write_both(&both, 5);
        both.proxy.heal();
        for side in Side::ALL {
            let said = both.halted(side);
            assert!(words.iter().all(|word| said.contains(word)), "{side:?}: {said}");
        }
        write_both(&both, 6);
        for side in Side::ALL {
            both.sql(side, &format!("UPDATE t SET extra = 'while halted' WHERE id = {}", side as i64 + 3));
        }
        both.ddl(Side::B, mend);
        write_both(&both, 7);
        both.equal(&[]);
        for side in Side::ALL {
            let kept = both.count(side, "SELECT count(*) FROM t WHERE extra = 'while halted'");
            assert_eq!(kept, 2, "{side:?}:\n{}", both.all_conflicts().join("\n"));
            for id in [5001, 5002, 6001, 6002, 7001, 7002] {
                assert_eq!(both.count(side, &format!("SELECT count(*) FROM k WHERE k = '{id}'")), 1, "{side:?} {id}");
            }
        }
        write_both(&both, 8);
        both.equal(&[]);
    }
}

/// In `safe`: what one end drops or renames, and what then is true at that end and at the other one, whatever happens.
const LEFT: &[(&str, &str, &str)] = &[
    (
        "ALTER TABLE t DROP COLUMN extra",
        "SELECT count(*) = 0 FROM pragma_table_info('t') WHERE name = 'extra'",
        "SELECT count(*) = 1 FROM t WHERE id = 4 AND extra = 4.5",
    ),
    (
        "ALTER TABLE t RENAME COLUMN extra TO more",
        "SELECT count(*) = 0 FROM pragma_table_info('t') WHERE name = 'extra'",
        "SELECT count(*) = 1 FROM t WHERE id = 4 AND extra = 4.5 AND more = 4.5",
    ),
    (
        "DROP TABLE k",
        "SELECT count(*) = 0 FROM sqlite_schema WHERE name = 'k'",
        "SELECT count(*) = 2 FROM k WHERE k IN ('p', 'q')",
    ),
    (
        "ALTER TABLE k RENAME TO kk",
        "SELECT count(*) = 0 FROM sqlite_schema WHERE name = 'k'",
        "SELECT count(*) = 2 FROM kk JOIN k USING (k) WHERE k IN ('p', 'q')",
    ),
    (
        "DROP INDEX t_n",
        "SELECT count(*) = 0 FROM sqlite_schema WHERE name = 't_n'",
        "SELECT count(*) = 0 FROM sqlite_schema WHERE name = 't_n'",
    ),
];

/// Rows of `t` that both write, whatever became of the rest.
fn write_t(both: &Both, round: i64) {
    for side in Side::ALL {
        let (own, id) = (side as i64 + 3, 1000 * round + side as i64);
        both.sql(
            side,
            &format!(
                "UPDATE t SET n = {round} WHERE id = {own}; INSERT INTO t(id, name, n) VALUES ({id}, 'name {id}', 1)"
            ),
        );
    }
}

#[track_caller]
fn assert_t_alike(both: &Both, what: &str) {
    let all = "SELECT group_concat(id || name || ifnull(n, '-'), ' ') FROM (SELECT * FROM t ORDER BY id)";
    assert_eq!(both.cell(Side::A, all), both.cell(Side::B, all), "{what}");
}

#[test]
fn what_one_end_drops_stays_at_the_other_and_does_not_come_back() {
    for changer in Side::ALL {
        for (change, here, there) in LEFT {
            eprintln!("{changer:?}: {change}");
            let other = changer.other();
            let mut both = Both::start(SCHEMA, "");
            both.sql(changer, change);
            write_t(&both, 1);
            both.quiesce();
            let check = |both: &Both, when: &str| {
                assert_t_alike(both, change);
                assert_eq!(both.count(changer, here), 1, "{when} {change}");
                assert_eq!(both.count(other, there), 1, "{when} {change}");
            };
            check(&both, "at once");
            // A new session begins with the catalogs.
            both.cut();
            both.proxy.heal();
            write_t(&both, 2);
            both.quiesce();
            check(&both, "in a new session");
            // So does another change of either schema.
            both.sql(other, "ALTER TABLE t ADD COLUMN later DEFAULT 1");
            both.sql(changer, "CREATE TABLE later(x)");
            write_t(&both, 3);
            if both.count(other, "SELECT count(*) FROM sqlite_schema WHERE name = 'k'") == 1 {
                both.sql(other, "INSERT OR REPLACE INTO k VALUES ('only here', 1)");
            }
            both.quiesce();
            check(&both, "after another change");
            assert_eq!(both.count(changer, "SELECT count(*) FROM pragma_table_info('t') WHERE name = 'later'"), 1);
            for side in Side::ALL {
                both.stop(side);
                both.run(side);
            }
            write_t(&both, 4);
            both.quiesce();
            check(&both, "after a restart");
        }
    }
}

const FORCED: &str = "    migrate_mode: forced\n";

/// In `forced`, between ends that both write.
const CHANGES: &[&str] = &[
    "ALTER TABLE t DROP COLUMN extra",
    "ALTER TABLE t RENAME COLUMN extra TO more",
    "DROP TABLE k",
    "ALTER TABLE k RENAME TO kk",
    "rebuild n INT>n TEXT",
    "rebuild extra>extra DEFAULT 'e'",
    "rebuild name TEXT>name TEXT NOT NULL",
    "DROP INDEX t_n; CREATE INDEX t_n ON t(n, extra)",
    "CREATE VIEW v AS SELECT name FROM t; DROP INDEX t_name; CREATE UNIQUE INDEX t_name ON t(name, id)",
    "VACUUM",
];

#[test]
fn what_one_end_changes_is_made_at_the_other_by_force_and_both_end_equal() {
    for changer in Side::ALL {
        for sql in CHANGES {
            eprintln!("{changer:?}: {sql}");
            let mut both = Both::start(SCHEMA, FORCED);
            write_t(&both, 1);
            change(&both, changer, sql);
            write_t(&both, 2);
            both.equal(&[]);
            write_t(&both, 3);
            both.equal(&[]);
            both.cut();
            both.proxy.heal();
            write_t(&both, 4);
            both.equal(&[]);
        }
    }
}

#[test]
fn the_same_migration_on_both_ends_is_one() {
    for sql in CHANGES {
        for link in ["", FORCED] {
            eprintln!("{sql} {link}");
            let mut both = Both::start(SCHEMA, link);
            both.cut();
            for side in Side::ALL {
                change(&both, side, sql);
            }
            write_t(&both, 1);
            both.proxy.heal();
            both.equal(&[]);
            write_t(&both, 2);
            both.equal(&[]);
        }
    }
}

/// Contradictions halt in `forced` too, or each end would undo the other's change for ever.
#[test]
fn contradictions_are_not_forced_to_and_fro() {
    let mut both = Both::start(SCHEMA, FORCED);
    both.cut();
    change(&both, Side::A, "rebuild n INT>n TEXT");
    change(&both, Side::B, "rebuild n INT>n REAL");
    both.proxy.heal();
    for side in Side::ALL {
        let said = both.halted(side);
        assert!(said.contains("n TEXT") && said.contains("n REAL"), "{side:?}: {said}");
    }
    change(&both, Side::B, "rebuild n REAL>n TEXT");
    write_t(&both, 1);
    both.equal(&[]);
}

/// Rows that the peer's change has no room for: nobody but the operator may say what becomes of them.
#[test]
fn rows_that_do_not_fit_a_change_halt_the_link_and_stay() {
    let cases = [
        (FORCED, "rebuild name TEXT>name TEXT NOT NULL", "(70, NULL, 1), (72, NULL, 2)", "rows here do not fit"),
        (
            "",
            "ddl CREATE UNIQUE INDEX u_n ON t(n)",
            "(70, 'x', 7), (72, 'y', 7)",
            "rows here break the new UNIQUE index",
        ),
    ];
    for (link, sql, rows, words) in cases {
        eprintln!("{sql}");
        let mut both = Both::start(SCHEMA, link);
        both.sql(Side::B, &format!("INSERT INTO t(id, name, n) VALUES {rows}"));
        both.equal(&[]);
        both.cut();
        let mend = "UPDATE t SET name = 'name ' || id, n = id WHERE id IN (70, 72)";
        both.sql(Side::A, mend);
        match sql.strip_prefix("ddl ") {
            Some(script) => both.ddl(Side::A, script),
            None => change(&both, Side::A, sql),
        }
        both.proxy.heal();
        let said = both.halted(Side::B);
        assert!(said.contains(words), "{said}");
        assert_eq!(both.count(Side::B, "SELECT count(*) FROM t WHERE id IN (70, 72)"), 2, "both are there");
        both.sql(Side::B, mend);
        both.equal(&[]);
        assert_eq!(both.count(Side::A, "SELECT count(*) FROM t WHERE name IN ('name 70', 'name 72')"), 2);
    }
}
