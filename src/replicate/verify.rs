//! Compares two databases on this machine, table by table, by digest.

use std::time::Duration;

use rusqlite::Connection;

use super::Error;
use crate::codec::RowDigest;
use crate::model::TableSchema;
use crate::sqlite::range_sql::{Cells, RangeQuery};
use crate::sqlite::{self, catalog};

/// Tries to find both databases at one position before giving up: an application that writes without a pause.
pub const TRIES_MAX: u32 = 50;
/// How long one try waits for the replica to come to the source's position.
pub const TRY_WAIT: Duration = Duration::from_secs(2);

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Tables compared.
    pub tables: usize,
    /// Rows of the source in them.
    pub rows: u64,
    /// What differs, a line each; empty where all is equal.
    pub differences: Vec<String>,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tables, {} rows: ", self.tables, grouped(self.rows))?;
        if self.differences.is_empty() {
            return f.write_str("equal");
        }
        write!(f, "{} differ", self.differences.len())?;
        self.differences.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// A number with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Compares these tables of `source` with the ones of the same names in `replica`. Both connections are in a read
/// transaction at one position, which is the caller's business.
///
/// # Errors
/// SQLite's.
pub fn compare(source: &Connection, replica: &Connection, tables: &[String]) -> Result<Verdict, Error> {
    let mut verdict = Verdict { tables: tables.len(), ..Verdict::default() };
    for name in tables {
        let Some(theirs) = catalog::table(source, name)? else { continue };
        let (rows, digest) = digest(source, &theirs)?;
        verdict.rows += rows;
        match catalog::table(replica, name)? {
            None => verdict.differences.push(format!("{name}: missing in the replica")),
            Some(ours) if !same_names(&ours.wire_columns(), &theirs.wire_columns()) => {
                verdict.differences.push(format!("{name}: its columns differ"));
            }
            Some(ours) => match self::digest(replica, &ours)? {
                (here, _) if here != rows => {
                    let line =
                        format!("{name}: {} rows at the source, {} in the replica", grouped(rows), grouped(here));
                    verdict.differences.push(line);
                }
                (_, other) if other != digest => verdict.differences.push(format!("{name}: its rows differ")),
                _ => {}
            },
        }
    }
    Ok(verdict)
}

/// Names compare without case, as SQLite compares them.
fn same_names(ours: &[&str], theirs: &[&str]) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(one, other)| one.eq_ignore_ascii_case(other))
}

fn digest(connection: &Connection, table: &TableSchema) -> Result<(u64, u128), sqlite::Error> {
    let mut digest = RowDigest::new();
    RangeQuery::new(table, Cells::Wire, None, None).each(connection, |row| {
        row.values().for_each(|value| digest.push(value));
        digest.end_row();
        Ok::<bool, rusqlite::Error>(true)
    })?;
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let connection = sqlite::in_memory().expect("memory");
        connection.execute_batch(sql).expect("sql");
        connection
    }

    const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a);";

    #[track_caller]
    fn check(source: &str, replica: &str, expected: &str) {
        let (source, replica) = (database(&format!("{TABLE}{source}")), database(replica));
        let verdict = compare(&source, &replica, &["t".to_owned()]).expect("compare");
        assert_eq!(verdict.to_string(), expected);
    }

    #[test]
    fn equal_tables_are_equal_and_the_smallest_difference_is_named() {
        let rows = "INSERT INTO t VALUES (1, 'x'), (2, 1);";
        check(rows, &format!("{TABLE}{rows}"), "1 tables, 2 rows: equal");
        check(rows, "", "1 tables, 2 rows: 1 differ\n  t: missing in the replica");
        let one = format!("{TABLE}INSERT INTO t VALUES (1, 'x');");
        check(rows, &one, "1 tables, 2 rows: 1 differ\n  t: 2 rows at the source, 1 in the replica");
        let real = format!("{TABLE}INSERT INTO t VALUES (1, 'x'), (2, 1.0);");
        check(rows, &real, "1 tables, 2 rows: 1 differ\n  t: its rows differ");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(["0", "999", "1,000", "1,204,331"], [0, 999, 1000, 1_204_331].map(grouped)[..]);
    }
}
