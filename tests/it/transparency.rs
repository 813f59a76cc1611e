//! The application notices nothing: the same statements on a copy without capture give the same results.
//!
//! But for what any trigger changes, whoever's it is: `total_changes()` (P11), and statements whose outcome depends on the
//! order of rows or on how a STRICT table's rejects are reported (P55, P56), which are left out.

use rusqlite::Connection;

use crate::support::{
    Place, env_number, open,
    oracle::{Oracle, shown},
    process::setup,
    random::Random,
    schema::Schema,
    statements::{Generator, Outcome, finish, run},
    table::Table,
};

const CASES: u64 = 40;
const STATEMENTS: usize = 250;

#[test]
fn an_application_gets_the_same_answers_with_and_without_capture() {
    let only = env_number("TWINLITE_SEED", 0);
    let seeds = if only > 0 { only..=only } else { 1..=env_number("TWINLITE_CASES", CASES) };
    for seed in seeds {
        let (place, mut random) = (Place::new(), Random::new(seed));
        let schema = Schema::random(&mut random);
        let (captured, plain) = (open(&place.source()), open(&place.replica()));
        let (recursive, keys) = (random.chance(50), random.chance(60));
        for conn in [&captured, &plain] {
            conn.pragma_update(None, "recursive_triggers", recursive).unwrap();
            conn.pragma_update(None, "foreign_keys", keys).unwrap();
            for sql in schema.ddl.iter().chain(&schema.triggers) {
                let _ = conn.execute_batch(sql);
            }
        }
        let images = if seed % 2 == 0 { "full" } else { "key" };
        setup(&place.source(), images);
        let mut log = Vec::new();
        compare(&mut random, &captured, &plain, &mut log, seed);
        finish(&captured);
        finish(&plain);
        let oracle = Oracle { extra: Vec::new(), ..Oracle::default() };
        let differences = oracle.differences(&place.source(), &place.replica());
        assert!(differences.is_empty(), "seed {seed}: {}\n{}", differences.join("\n"), log.join(";\n"));
    }
}

fn compare(random: &mut Random, captured: &Connection, plain: &Connection, log: &mut Vec<String>, seed: u64) {
    let tables = Table::read_all(plain);
    for _ in 0..STATEMENTS {
        let statement = Generator::new(random, &tables).next();
        if statement.shaky {
            continue;
        }
        log.push(statement.sql.clone());
        let (with, without) = (run(captured, &statement.sql), run(plain, &statement.sql));
        let inserted = statement.sql.starts_with("INSERT") && !statement.sql.contains(" ON CONFLICT");
        let text = |outcome: &Outcome| format!("{}\nrows {}", facts(outcome, inserted), rows(outcome));
        assert_eq!(
            text(&with),
            text(&without),
            "seed {seed}: with capture (left) and without (right):\n{}",
            log[log.len().saturating_sub(12)..].join(";\n")
        );
    }
}

fn facts(outcome: &Outcome, inserted: bool) -> String {
    let Outcome { error, changes, last_insert_rowid, autocommit, rows: _ } = outcome;
    // With any trigger, SQLite checks a foreign key of a single row only after it was inserted, so that a failed INSERT
    // may leave its rowid behind. It counts after one that worked.
    let rowid = if inserted && error.is_none() && *changes > 0 { last_insert_rowid.to_string() } else { String::new() };
    format!("error {error:?}, changes {changes}, last_insert_rowid {rowid}, autocommit {autocommit}")
}

/// The rows returned, in any order: SQLite promises none for RETURNING.
fn rows(outcome: &Outcome) -> String {
    let mut rows: Vec<String> = outcome
        .rows
        .iter()
        .map(|row| row.iter().map(|value| shown(value.into())).collect::<Vec<_>>().join(" | "))
        .collect();
    rows.sort_unstable();
    rows.join("\n")
}
