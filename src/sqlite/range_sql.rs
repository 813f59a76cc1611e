//! The SQL that reads the rows of a range of keys: *the rows of this table whose keys are in (low, high]*.
//!
//! Both ends of a link use it, the sender to copy or digest a range, the receiver to compare and replace it, so that
//! they mean the same rows in the same order: ascending in every key column whatever the direction in the index, under
//! the key's collations, NULL lowest.
//!
//! The lower bound, and the upper one where no key column can be NULL, are in the SQL as row values, which SQLite turns
//! into one search of the key's index. `(a, b) > (?, ?)` is also right where a or b may be NULL in a row, for NULL is
//! lowest and such a comparison is not true. An upper bound is not: there the loop itself compares each row with it and
//! ends at the first one beyond.

use std::cmp::Ordering;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::row_sql::{Prepared, RowRef, Selected, place_of, select};
use super::{borrowed, ident};
use crate::model::{Collation, Key, KeyShape, TableSchema, Value};

/// What is read of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    /// `TableSchema::wire_columns`.
    Wire,
    /// `TableSchema::all_columns`.
    All,
    /// The key's columns, in the key's order.
    Key,
}

/// A range of one table.
pub struct RangeQuery {
    selected: Selected,
    sql: String,
    binds: Vec<Value>,
    key_places: Vec<usize>,
    collations: Vec<Collation>,
    stop_after: Option<Key>,
}

impl RangeQuery {
    /// The rows above `low` up to and including `high`, each open where there is none. The table has a key, as every
    /// captured table does, and the bounds have a value for each of its columns.
    pub fn new(table: &TableSchema, cells: Cells, low: Option<&Key>, high: Option<&Key>) -> Self {
        let key_columns = table.key_columns();
        debug_assert!(low.into_iter().chain(high).all(|key| key.0.len() == key_columns.len()));
        let (selected, key_places) = match cells {
            Cells::Wire => (select(table, &table.wire_columns()), table.key_in_wire()),
            Cells::All => (select(table, &table.all_columns()), table.key_in_all()),
            Cells::Key => {
                let names: Vec<&str> = key_columns.iter().map(|(name, _)| *name).collect();
                (select(table, &names), (0..names.len()).collect())
            }
        };
        let mut bounds = Bounds { table, conditions: Vec::new(), binds: Vec::new() };
        if let Some(low) = low {
            bounds.above(low);
        }
        let stop_after = high.filter(|high| key_may_be_null(table) || high.has_null()).cloned();
        if let Some(high) = high.filter(|_| stop_after.is_none()) {
            bounds.push_row_value("<=", high);
        }
        let sql = bounds.sql(&selected.head);
        let binds = bounds.binds;
        Self { selected, sql, binds, key_places, collations: table.key_collations(), stop_after }
    }

    /// The SQL. It may go on beyond the upper bound; [`Self::each`] does not.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Where in a row the key's values are, in the key's order.
    pub fn key_places(&self) -> &[usize] {
        &self.key_places
    }

    /// Calls `visit` for each row, in ascending key order, until it says `false`.
    ///
    /// # Errors
    /// SQLite's, and what `visit` returns.
    pub fn each<E: From<rusqlite::Error>>(
        &self,
        connection: &Connection,
        mut visit: impl FnMut(&RowRef<'_, '_>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut prepared = Prepared::new(connection, &self.sql, &self.selected)?;
        prepared.each(self.binds.iter(), |row| {
            let beyond = |high| self.compare(row, high) == Ordering::Greater;
            if self.stop_after.as_ref().is_some_and(beyond) {
                return Ok(false);
            }
            visit(row)
        })
    }

    /// Whether other rows may have this row's key: there is a NULL in it.
    pub fn names_several(&self, row: &RowRef<'_, '_>) -> bool {
        self.key_places.iter().any(|place| matches!(row.value(*place), ValueRef::Null))
    }

    /// How the key of a row that this query read stands to another key.
    pub fn compare(&self, row: &RowRef<'_, '_>, key: &Key) -> Ordering {
        let parts = self.key_places.iter().zip(&key.0).zip(&self.collations);
        parts
            .map(|((place, value), collation)| compare(row.value(*place), borrowed(value), *collation))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// Whether a row of this table can have a NULL in its key: SQLite allows it in rowid tables, for the sake of old files.
pub fn key_may_be_null(table: &TableSchema) -> bool {
    match &table.key {
        KeyShape::Columns { columns } => {
            !table.without_rowid && columns.iter().any(|(column, _)| !table.columns[*column].not_null)
        }
        KeyShape::Rowid { .. } | KeyShape::RowidAlias { .. } | KeyShape::None => false,
    }
}

/// How SQLite orders two values.
pub fn compare(a: ValueRef<'_>, b: ValueRef<'_>, collation: Collation) -> Ordering {
    match (a, b) {
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a.cmp(&b),
        (ValueRef::Real(a), ValueRef::Real(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (ValueRef::Integer(a), ValueRef::Real(b)) => compare_numbers(a, b),
        (ValueRef::Real(a), ValueRef::Integer(b)) => compare_numbers(b, a).reverse(),
        (ValueRef::Text(a), ValueRef::Text(b)) => compare_text(a, b, collation),
        (ValueRef::Blob(a), ValueRef::Blob(b)) => a.cmp(b),
        (a, b) => class(a).cmp(&class(b)),
    }
}

fn class(value: ValueRef<'_>) -> u8 {
    match value {
        ValueRef::Null => 0,
        ValueRef::Integer(_) | ValueRef::Real(_) => 1,
        ValueRef::Text(_) => 2,
        ValueRef::Blob(_) => 3,
    }
}

/// Exactly, also where the integer is no double.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
fn compare_numbers(integer: i64, real: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if real < -LIMIT {
        return Ordering::Greater;
    }
    if real >= LIMIT {
        return Ordering::Less;
    }
    let fraction = 0.0.partial_cmp(&real.fract()).unwrap_or(Ordering::Equal);
    integer.cmp(&(real as i64)).then(fraction)
}

fn compare_text(a: &[u8], b: &[u8], collation: Collation) -> Ordering {
    match collation {
        Collation::Binary => a.cmp(b),
        Collation::NoCase => compare_without_case(a, b),
        Collation::RTrim => trimmed(a).cmp(trimmed(b)),
    }
}

/// As SQLite's NOCASE has it: a NUL in both ends the comparison, and then the length decides.
fn compare_without_case(a: &[u8], b: &[u8]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        match a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase()) {
            Ordering::Equal if *a == 0 => break,
            Ordering::Equal => {}
            order => return order,
        }
    }
    a.len().cmp(&b.len())
}

fn trimmed(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1)]
}

/// Collects what a WHERE says.
struct Bounds<'a> {
    table: &'a TableSchema,
    conditions: Vec<String>,
    binds: Vec<Value>,
}

impl Bounds<'_> {
    fn above(&mut self, low: &Key) {
        if !low.has_null() {
            return self.push_row_value(">", low);
        }
        // A NULL is no row value's business: it is spelled out, column by column. The plus signs keep SQLite from
        // searching each branch by itself and sorting; the first column alone leads into the index.
        let first = ident(self.table.key_columns()[0].0);
        if low.0[0].is_null() {
            let above = self.above_from(low, 0);
            self.conditions.push(above);
        } else {
            let parameter = self.bind(low, 0);
            self.conditions.push(format!("{first} >= {parameter}"));
            let above = self.above_from(low, 0);
            self.conditions.push(above);
        }
    }

    fn above_from(&mut self, low: &Key, place: usize) -> String {
        let name = format!("+{}", ident(self.table.key_columns()[place].0));
        let strictly = if low.0[place].is_null() {
            format!("{name} IS NOT NULL")
        } else {
            format!("{name} > {}", self.bind(low, place))
        };
        if place + 1 == low.0.len() {
            return strictly;
        }
        let same = format!("{name} IS {}", self.bind(low, place));
        format!("({strictly} OR ({same} AND {}))", self.above_from(low, place + 1))
    }

    fn push_row_value(&mut self, operator: &str, bound: &Key) {
        let key_columns = self.table.key_columns();
        let names: Vec<String> = key_columns.iter().map(|(name, _)| ident(name)).collect();
        let parameters: Vec<String> = (0..names.len()).map(|place| self.bind(bound, place)).collect();
        let condition = format!("({}) {operator} ({})", names.join(", "), parameters.join(", "));
        self.conditions.push(condition);
    }

    fn bind(&mut self, key: &Key, place: usize) -> String {
        let number = self.binds.len() + 1;
        self.binds.push(key.0[place].clone());
        place_of(self.table, place).replace(&format!("?{}", place + 1), &format!("?{number}"))
    }

    fn sql(&self, head: &str) -> String {
        let conditions = if self.conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.conditions.join(" AND "))
        };
        let explicit = matches!(self.table.key, KeyShape::Columns { .. });
        let order = |(name, collation): (&str, Collation)| match explicit {
            true => format!("{} COLLATE {}", ident(name), collation.sql()),
            false => ident(name),
        };
        let orders: Vec<String> = self.table.key_columns().into_iter().map(order).collect();
        format!("{head}{conditions} ORDER BY {}", orders.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Bind, catalog, in_memory, value_of};

    fn table(ddl: &str) -> (Connection, TableSchema) {
        let connection = in_memory().expect("memory");
        connection.execute_batch(ddl).expect("ddl");
        let table = catalog::table(&connection, "t").expect("catalog").expect("table");
        (connection, table)
    }

    fn keys(db: &Connection, t: &TableSchema, low: Option<&Key>, high: Option<&Key>) -> Vec<Key> {
        let query = RangeQuery::new(t, Cells::Key, low, high);
        let mut keys = Vec::new();
        let visit = |row: &RowRef<'_, '_>| {
            keys.push(row.key(query.key_places()));
            Ok::<_, rusqlite::Error>(true)
        };
        query.each(db, visit).expect("read");
        keys
    }

    fn plan(db: &Connection, query: &RangeQuery) -> String {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {}", query.sql())).expect("prepare");
        let lines = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        lines.collect::<rusqlite::Result<Vec<_>>>().expect("plan").join("; ")
    }

    /// Every pair of bounds that the table's own keys make: what is read is what lies between, in order.
    fn check_every_range(ddl: &str) {
        let (db, t) = table(ddl);
        let all = keys(&db, &t, None, None);
        let collations = t.key_collations();
        let ascends = |pair: &[Key]| {
            let parts = pair[0].0.iter().zip(&pair[1].0).zip(&collations);
            let mut orders = parts.map(|((a, b), collation)| compare(borrowed(a), borrowed(b), *collation));
            orders.find(|order| order.is_ne()) != Some(Ordering::Greater)
        };
        assert!(!all.is_empty() && all.windows(2).all(ascends), "{ddl}");
        let distinct: Vec<&Key> = {
            let mut seen = std::collections::HashSet::new();
            all.iter().filter(|key| seen.insert(key.normal(&collations))).collect()
        };
        let mut bounds: Vec<Option<usize>> = (0..distinct.len()).map(Some).collect();
        bounds.push(None);
        let rank = |key: &Key| distinct.iter().position(|other| other.normal(&collations) == key.normal(&collations));
        for low in &bounds {
            for high in bounds.iter().filter(|high| high.is_none() || low.is_none() || *high >= low) {
                let inside = |key: &&Key| {
                    let rank = rank(key);
                    low.is_none_or(|low| rank > Some(low)) && high.is_none_or(|high| rank <= Some(high))
                };
                let expected: Vec<Key> = all.iter().filter(inside).cloned().collect();
                let read = keys(&db, &t, low.map(|at| distinct[at]), high.map(|at| distinct[at]));
                assert_eq!(read, expected, "{ddl}: ({low:?}, {high:?}]");
            }
        }
    }

    #[test]
    fn every_range_of_every_kind_of_key_holds_what_lies_in_it() {
        let values = "(1,1),(1,2),(2,1),(2,2),(2,3),(-1.5,'a'),('a','A'),('B',x'00'),(x'01',2.5)";
        for ddl in [
            "CREATE TABLE t(a, b)",
            "CREATE TABLE t(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID",
            "CREATE TABLE t(a NOT NULL, b NOT NULL, PRIMARY KEY(a, b DESC))",
            "CREATE TABLE t(a, b, PRIMARY KEY(a DESC, b))",
            "CREATE TABLE t(a, b, PRIMARY KEY(b, a))",
            "CREATE TABLE t(a, b COLLATE NOCASE, PRIMARY KEY(b COLLATE BINARY, a COLLATE NOCASE))",
        ] {
            check_every_range(&format!("{ddl}; INSERT INTO t VALUES {values}"));
        }
    }

    /// P24, P52: NULLs in keys, several times; and an index that descends in one column, paged in index order, loses rows.
    #[test]
    fn nulls_are_lowest_and_lose_nothing() {
        let values =
            "(NULL,NULL),(NULL,NULL),(NULL,1),(1,NULL),(1,NULL),(1,1),(1,2),(2,NULL),(2,'x'),('y',NULL),('y',3)";
        for key in ["a, b", "a, b DESC", "b, a", "a DESC, b DESC"] {
            check_every_range(&format!("CREATE TABLE t(a, b, PRIMARY KEY({key})); INSERT INTO t VALUES {values}"));
        }
        check_every_range(
            "CREATE TABLE t(k TEXT PRIMARY KEY); INSERT INTO t VALUES (NULL), (NULL), (''), ('a'), ('B')",
        );
    }

    #[test]
    fn keys_come_in_ascending_order_whatever_the_index_says() {
        let (db, t) = table("CREATE TABLE t(a, b, PRIMARY KEY(a, b DESC)); INSERT INTO t VALUES (1,2),(1,1),(1,NULL)");
        let seconds: Vec<Value> = keys(&db, &t, None, None).into_iter().map(|mut key| key.0.remove(1)).collect();
        assert_eq!(seconds, [Value::Null, Value::Integer(1), Value::Integer(2)]);
    }

    #[test]
    fn plain_ranges_search_the_key_and_sort_nothing() {
        for (ddl, columns) in [
            ("CREATE TABLE t(a, b)", "rowid>? AND rowid<?"),
            ("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "rowid>? AND rowid<?"),
            ("CREATE TABLE t(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID", "(a,b)>(?,?) AND (a,b)<(?,?)"),
            ("CREATE TABLE t(a NOT NULL, b NOT NULL, PRIMARY KEY(a, b))", "(a,b)>(?,?) AND (a,b)<(?,?)"),
            ("CREATE TABLE t(a, b, PRIMARY KEY(a, b))", "(a,b)>(?,?)"),
            ("CREATE TABLE t(a COLLATE NOCASE, b, PRIMARY KEY(a, b))", "(a,b)>(?,?)"),
            ("CREATE TABLE t(a TEXT PRIMARY KEY, b)", "a>?"),
        ] {
            let (db, t) = table(&format!("{ddl}; CREATE INDEX other ON t(b, a)"));
            let key = Key(vec![Value::Integer(1); t.key_columns().len()]);
            let read = plan(&db, &RangeQuery::new(&t, Cells::Wire, Some(&key), Some(&key)));
            assert!(read.contains(columns) && !read.contains("TEMP B-TREE"), "{ddl}: {read}");
            let read = plan(&db, &RangeQuery::new(&t, Cells::Wire, None, None));
            assert!(!read.contains("TEMP B-TREE"), "{ddl}: {read}");
        }
    }

    #[test]
    fn values_are_ordered_as_sqlite_orders_them() {
        let db = in_memory().expect("memory");
        let texts = ["", "a", "A", "a ", "B", "b\0x", "B\0y", "ä", "a\t"].map(Value::text);
        let near = [9_223_372_036_854_775_807.0, -9_223_372_036_854_775_808.0, 1e300, -1e300, 0.5, -0.5, 3.0];
        let numbers = [i64::MIN, i64::MIN + 1, -1, 0, 1, 3, (1 << 53) + 1, i64::MAX - 1, i64::MAX].map(Value::Integer);
        let mut values = vec![Value::Null, Value::Blob(vec![]), Value::Blob(vec![0, 255]), Value::Real(f64::INFINITY)];
        values.extend(texts.into_iter().chain(numbers).chain(near.map(Value::Real)));
        values.push(Value::Real(9_007_199_254_740_992.0));
        for collation in [Collation::Binary, Collation::NoCase, Collation::RTrim] {
            let name = collation.sql();
            let sql = format!(
                "SELECT coalesce((?1 > ?2 COLLATE {name}) - (?1 < ?2 COLLATE {name}), (?1 IS NOT NULL) - (?2 IS NOT NULL))"
            );
            let mut statement = db.prepare(&sql).expect("prepare");
            for (a, b) in values.iter().flat_map(|a| values.iter().map(move |b| (a, b))) {
                let theirs: i64 = statement.query_row([Bind(a), Bind(b)], |row| row.get(0)).expect("compare");
                let ours = compare(borrowed(a), borrowed(b), collation);
                assert_eq!(ours as i64, theirs, "{a:?} {b:?} {name} {:?}", (value_of(borrowed(a)), b));
            }
        }
    }
}
