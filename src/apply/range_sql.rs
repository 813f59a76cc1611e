//! The SQL that reads the rows of a key range here, in ascending key order: (low, high], NULL lowest.
//!
//! The lower bound is a condition that the key's index serves; the upper one is a column of the result, at which the
//! caller stops. So an index that descends in a column, or a key that may be NULL, costs time and never a row.

use rusqlite::{CachedStatement, Connection, Rows};

use super::statement::{KeyColumn, Target};
use crate::model::Key;
use crate::sqlite::Bind;

/// A key range of a table here.
pub(super) struct KeyRange<'a> {
    pub(super) target: &'a Target,
    /// Below the first key; `None` is open.
    pub(super) low: Option<&'a Key>,
    /// The last key; `None` is open.
    pub(super) high: Option<&'a Key>,
}

impl KeyRange<'_> {
    /// Prepares the reading of the range's rows: the written columns, and then whether the row lies beyond the range;
    /// the first that does ends it.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn prepare<'c>(&self, conn: &'c Connection) -> rusqlite::Result<CachedStatement<'c>> {
        conn.prepare_cached(&self.sql())
    }

    /// The rows, from a statement that [`Self::prepare`] made.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn query<'s>(&self, statement: &'s mut CachedStatement<'_>) -> rusqlite::Result<Rows<'s>> {
        let values = self.low.into_iter().chain(self.high).flat_map(|key| &key.0);
        for (number, value) in values.enumerate() {
            statement.raw_bind_parameter(number + 1, Bind(value))?;
        }
        Ok(statement.raw_query())
    }

    /// Whether nothing is in the range.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn is_empty(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let mut statement = self.prepare(conn)?;
        let beyond = self.target.written.len();
        match self.query(&mut statement)?.next()? {
            Some(row) => row.get(beyond),
            None => Ok(true),
        }
    }

    fn sql(&self) -> String {
        let key = &self.target.key;
        let from = self.low.map_or_else(|| "1".to_owned(), |low| above(key, low, 1));
        let first = 1 + self.low.map_or(0, |low| low.0.len());
        let beyond = self.high.map_or_else(|| "0".to_owned(), |high| format!("({}) IS TRUE", above(key, high, first)));
        let order: Vec<String> = key.iter().map(KeyColumn::sql).collect();
        format!(
            "SELECT {}, {beyond} FROM {} WHERE {from}{} ORDER BY {}",
            self.target.columns_sql,
            self.target.table_sql,
            self.ceiling(first),
            order.join(", ")
        )
    }

    /// A weaker upper bound on the first column alone, where it loses no NULL: it spares a whole sort where no index
    /// gives the order.
    fn ceiling(&self, first: usize) -> String {
        let leading = &self.target.key[0];
        let low_is_above_null = self.low.is_some_and(|low| !low.0[0].is_null());
        match self.high {
            Some(high) if !high.0[0].is_null() && (low_is_above_null || !leading.nullable) => {
                format!(" AND {} <= ?{first}", leading.sql())
            }
            _ => String::new(),
        }
    }
}

/// "The row's key is above `bound`", whose values are the parameters from `first` on. Not true where it is equal.
fn above(key: &[KeyColumn], bound: &Key, first: usize) -> String {
    let columns: Vec<String> = key.iter().map(KeyColumn::sql).collect();
    let params: Vec<String> = (0..columns.len()).map(|part| format!("?{}", first + part)).collect();
    if !bound.has_null() {
        // A NULL in the row makes this NULL exactly where the row is not above: NULL is the lowest.
        return match &columns[..] {
            [one] => format!("{one} > {}", params[0]),
            _ => format!("({}) > ({})", columns.join(", "), params.join(", ")),
        };
    }
    let mut ways = Vec::new();
    for (part, value) in bound.0.iter().enumerate() {
        let mut terms: Vec<String> =
            (0..part).map(|before| format!("{} IS {}", columns[before], params[before])).collect();
        terms.push(if value.is_null() {
            // Named, so that every parameter is used.
            format!("{} IS NOT {}", columns[part], params[part])
        } else {
            format!("{} > {}", columns[part], params[part])
        });
        ways.push(format!("({})", terms.join(" AND ")));
    }
    format!("({})", ways.join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TableId, Value};
    use crate::sqlite::{catalog, in_memory, value_of};

    fn table(ddl: &str) -> (Connection, Target) {
        let conn = in_memory().expect("memory");
        conn.execute_batch(ddl).expect("ddl");
        let schema = catalog::table(&conn, "t").expect("catalog").expect("table");
        let target = Target::new(TableId(1), &schema, &schema).expect("target");
        (conn, target)
    }

    fn keys(conn: &Connection, target: &Target, low: Option<&Key>, high: Option<&Key>) -> Vec<Key> {
        let range = KeyRange { target, low, high };
        let mut statement = range.prepare(conn).expect("prepare");
        let mut rows = range.query(&mut statement).expect("query");
        let places = target.key_in_read();
        let mut keys = Vec::new();
        while let Some(row) = rows.next().expect("row") {
            if row.get(target.written.len()).expect("beyond") {
                break;
            }
            keys.push(Key(places.iter().map(|place| value_of(row.get_ref(*place).expect("cell"))).collect()));
        }
        keys
    }

    /// Every pair of neighbours as (low, high] must give exactly the rows of the higher key.
    #[test]
    fn ranges_tile_every_table_whatever_its_index_says() {
        let rows =
            "(NULL, NULL), (NULL, NULL), (NULL, 1), (1, NULL), (1, 1), (1, 2), (2.5, 'A'), ('a', 'b'), (x'00', 0)";
        let strict = "(1, 0), (1, 1), (1, 2), (2.5, 'A'), ('a', 'b'), (x'00', 0)";
        for (ddl, rows) in [
            ("CREATE TABLE t(a, b, PRIMARY KEY(a, b))", rows),
            ("CREATE TABLE t(a, b, PRIMARY KEY(a, b DESC))", rows),
            ("CREATE TABLE t(a, b, PRIMARY KEY(b, a))", rows),
            ("CREATE TABLE t(a, b, PRIMARY KEY(a DESC, b)) WITHOUT ROWID", strict),
            ("CREATE TABLE t(a, b)", rows),
        ] {
            let (conn, target) = table(&format!("{ddl}; INSERT INTO t VALUES {rows}"));
            let all = keys(&conn, &target, None, None);
            let total: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("count");
            assert_eq!(all.len() as i64, total, "{ddl}");
            let mut low: Option<Key> = None;
            let mut tiled = Vec::new();
            for key in &all {
                if low.as_ref() != Some(key) {
                    tiled.extend(keys(&conn, &target, low.as_ref(), Some(key)));
                    low = Some(key.clone());
                }
            }
            assert_eq!(tiled, all, "{ddl}");
            assert_eq!(keys(&conn, &target, low.as_ref(), None), vec![], "{ddl}");
        }
    }

    #[test]
    fn a_range_is_found_by_the_index_without_a_sort() {
        for ddl in [
            "CREATE TABLE t(a, b)",
            "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
            "CREATE TABLE t(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID",
        ] {
            let (conn, target) = table(ddl);
            let key = Key(vec![Value::Integer(1); target.key.len()]);
            let range = KeyRange { target: &target, low: Some(&key), high: Some(&key) };
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", range.sql())).expect("explain");
            let plan: Vec<String> =
                statement.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().expect("plan");
            assert!(plan.len() == 1 && plan[0].starts_with("SEARCH"), "{ddl}: {plan:?}");
        }
    }
}
