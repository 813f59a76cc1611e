//! The SQL that reads rows by their key, and a row as both ends of a link see it: its wire columns.
//!
//! Pure SQL building, and the loops that run it. [`super::range_sql`] reads ranges of keys in the same form.
//!
//! A table of 2,000 columns without a primary key has 2,001 wire columns, for its rowid travels too. That is one more
//! than SQLite lets a SELECT return, so the last one is then fetched by the rowid in a statement of its own; [`RowRef`]
//! hides that.

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, Row, Statement};

use super::{Bind, ident, quote, value_of};
use crate::model::{IndexOrigin, Key, KeyShape, TableSchema, Value};

/// Result columns that SQLite allows at most (its `SQLITE_MAX_COLUMN`), as in the SQLite that we bundle.
const RESULT_COLUMNS_MAX: usize = 2_000;

/// One row, read cell by cell in the order that was asked for.
#[derive(Clone, Copy)]
pub struct RowRef<'a, 's> {
    head: &'a Row<'s>,
    rest: Option<&'a Row<'s>>,
    head_columns: usize,
    columns: usize,
}

impl RowRef<'_, '_> {
    /// How many cells.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One cell, borrowed from SQLite.
    ///
    /// # Panics
    /// If `column` is not below [`Self::columns`].
    pub fn value(&self, column: usize) -> ValueRef<'_> {
        let (row, place) = match self.rest {
            Some(rest) if column >= self.head_columns => (rest, column - self.head_columns),
            _ => (self.head, column),
        };
        row.get_ref(place).expect("a column of the select list")
    }

    /// All cells in their order.
    pub fn values(&self) -> impl Iterator<Item = ValueRef<'_>> {
        (0..self.columns).map(|column| self.value(column))
    }

    /// The cells at `places`, as a key.
    pub fn key(&self, places: &[usize]) -> Key {
        Key(places.iter().map(|place| value_of(self.value(*place))).collect())
    }

    /// Bytes that its values occupy in memory and, roughly, on the wire.
    pub fn size_bytes(&self) -> usize {
        self.values().map(size_bytes).sum()
    }
}

/// Bytes that a value occupies in memory and, roughly, on the wire; as [`Value::size_bytes`].
pub fn size_bytes(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() + 4,
    }
}

/// What is selected of each row, and from where.
pub(super) struct Selected {
    /// The select list and the FROM clause.
    pub head: String,
    /// The statement that reads what the select list had no room for, by rowid.
    pub rest: Option<String>,
    head_columns: usize,
    columns: usize,
}

/// The FROM clause of a table, bound to the index of its key where that is not the table itself: with misleading
/// statistics SQLite would choose another one, or sort the whole table.
pub(super) fn select(table: &TableSchema, columns: &[&str]) -> Selected {
    let head = &columns[..columns.len().min(RESULT_COLUMNS_MAX)];
    let from = format!("FROM main.{}", ident(&table.name));
    let key_index = table.indexes.iter().find(|index| index.origin == IndexOrigin::PrimaryKey);
    let by_index = key_index.filter(|_| !table.without_rowid && matches!(table.key, KeyShape::Columns { .. }));
    let by = by_index.map_or(String::new(), |index| format!(" INDEXED BY {}", ident(&index.name)));
    let rest = (columns.len() > head.len()).then(|| {
        let names = quote::idents(columns[head.len()..].iter().copied());
        format!("SELECT {names} {from} WHERE {} = ?1", ident(columns[0]))
    });
    Selected {
        head: format!("SELECT {} {from}{by}", quote::idents(head.iter().copied())),
        rest,
        head_columns: head.len(),
        columns: columns.len(),
    }
}

/// A prepared reading of rows.
pub(super) struct Prepared<'c> {
    pub head: CachedStatement<'c>,
    pub rest: Option<CachedStatement<'c>>,
    head_columns: usize,
    columns: usize,
}

impl<'c> Prepared<'c> {
    pub fn new(connection: &'c Connection, sql: &str, selected: &Selected) -> rusqlite::Result<Self> {
        let rest = selected.rest.as_deref().map(|sql| connection.prepare_cached(sql)).transpose()?;
        let head = connection.prepare_cached(sql)?;
        Ok(Self { head, rest, head_columns: selected.head_columns, columns: selected.columns })
    }

    /// Runs it over `binds`; `visit` says whether to go on.
    pub fn each<'v, E: From<rusqlite::Error>>(
        &mut self,
        binds: impl Iterator<Item = &'v Value>,
        mut visit: impl FnMut(&RowRef<'_, '_>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let Self { head, rest, head_columns, columns } = self;
        for (place, value) in binds.enumerate() {
            head.raw_bind_parameter(place + 1, Bind(value))?;
        }
        let mut rows = head.raw_query();
        while let Some(row) = rows.next()? {
            let seen = match rest {
                None => visit(&RowRef { head: row, rest: None, head_columns: *head_columns, columns: *columns })?,
                Some(rest) => {
                    let mut found = by_rowid(rest, row)?;
                    let rest = found.next()?;
                    visit(&RowRef { head: row, rest, head_columns: *head_columns, columns: *columns })?
                }
            };
            if !seen {
                break;
            }
        }
        Ok(())
    }
}

fn by_rowid<'a>(rest: &'a mut Statement<'_>, row: &Row<'_>) -> rusqlite::Result<rusqlite::Rows<'a>> {
    rest.raw_bind_parameter(1, row.get::<_, i64>(0)?)?;
    Ok(rest.raw_query())
}

/// Reads the rows of one table by key.
pub struct KeyQuery {
    selected: Selected,
    plain: String,
    with_nulls: String,
}

impl KeyQuery {
    /// For the table's wire columns. The table has a key, as every captured table does.
    pub fn new(table: &TableSchema) -> Self {
        Self::reading(table, &table.wire_columns())
    }

    /// For `TableSchema::all_columns`, generated ones too.
    pub fn of_all(table: &TableSchema) -> Self {
        Self::reading(table, &table.all_columns())
    }

    fn reading(table: &TableSchema, columns: &[&str]) -> Self {
        let selected = select(table, columns);
        let condition = |operator: &str| {
            let compare = |(place, name): (usize, String)| format!("{name} {operator} {}", place_of(table, place));
            let names = table.key_columns().into_iter().map(|(name, _)| ident(name)).enumerate();
            names.map(compare).collect::<Vec<_>>().join(" AND ")
        };
        let plain = format!("{} WHERE {}", selected.head, condition("="));
        let with_nulls = format!("{} WHERE {}", selected.head, condition("IS"));
        Self { selected, plain, with_nulls }
    }

    /// The SQL for a key without NULL, and for one with.
    pub fn sql(&self) -> (&str, &str) {
        (&self.plain, &self.with_nulls)
    }

    /// Gets it ready to run often.
    ///
    /// # Errors
    /// SQLite's.
    pub fn prepare<'c>(&self, connection: &'c Connection) -> rusqlite::Result<KeyReader<'c>> {
        let plain = Prepared::new(connection, &self.plain, &self.selected)?;
        let with_nulls = Prepared::new(connection, &self.with_nulls, &self.selected)?;
        Ok(KeyReader { plain, with_nulls })
    }
}

/// The parameter that a key column is compared with: under the collation of the key, not of the column.
pub(super) fn place_of(table: &TableSchema, place: usize) -> String {
    match &table.key {
        KeyShape::Columns { columns } => format!("?{} COLLATE {}", place + 1, columns[place].1.sql()),
        KeyShape::Rowid { .. } | KeyShape::RowidAlias { .. } | KeyShape::None => format!("?{}", place + 1),
    }
}

/// A [`KeyQuery`] on a connection.
pub struct KeyReader<'c> {
    plain: Prepared<'c>,
    with_nulls: Prepared<'c>,
}

impl KeyReader<'_> {
    /// Calls `visit` for each row that `IS` this key: one at most, unless there is a NULL in the key.
    ///
    /// # Errors
    /// SQLite's, and what `visit` returns.
    pub fn each<E: From<rusqlite::Error>>(
        &mut self,
        key: &Key,
        mut visit: impl FnMut(&RowRef<'_, '_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let prepared = if key.has_null() { &mut self.with_nulls } else { &mut self.plain };
        prepared.each(key.0.iter(), |row| visit(row).map(|()| true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{catalog, in_memory};

    fn table(ddl: &str) -> (Connection, TableSchema) {
        let connection = in_memory().expect("memory");
        connection.execute_batch(ddl).expect("ddl");
        let table = catalog::table(&connection, "t").expect("catalog").expect("table");
        (connection, table)
    }

    fn found(connection: &Connection, table: &TableSchema, key: &[Value]) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        let mut reader = KeyQuery::new(table).prepare(connection).expect("prepare");
        let visit = |row: &RowRef<'_, '_>| {
            rows.push(row.values().map(value_of).collect());
            Ok::<_, rusqlite::Error>(())
        };
        reader.each(&Key(key.to_vec()), visit).expect("read");
        rows
    }

    fn plan(connection: &Connection, sql: &str) -> String {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepare");
        let lines = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        lines.collect::<rusqlite::Result<Vec<_>>>().expect("plan").join("; ")
    }

    #[test]
    fn a_row_is_found_by_its_key_whatever_its_shape() {
        let int = Value::Integer;
        let (db, t) = table("CREATE TABLE t(a, \"b\"\"c\" DEFAULT 5); INSERT INTO t(rowid, a) VALUES (7, 'x')");
        assert_eq!(found(&db, &t, &[int(7)]), [[int(7), Value::text("x"), int(5)]]);
        let (db, t) = table("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY); INSERT INTO t VALUES ('Ab')");
        assert_eq!(found(&db, &t, &[Value::text("aB")]), [[Value::text("Ab")]]);
        let ddl = "CREATE TABLE t(k TEXT COLLATE NOCASE, PRIMARY KEY(k COLLATE BINARY)); INSERT INTO t VALUES ('Ab')";
        let (db, t) = table(ddl);
        assert!(found(&db, &t, &[Value::text("aB")]).is_empty());
        let (db, t) = table("CREATE TABLE t(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID; INSERT INTO t VALUES (1, x'00')");
        assert_eq!(found(&db, &t, &[Value::Blob(vec![0]), int(1)]).len(), 1);
    }

    #[test]
    fn a_key_with_a_null_names_every_row_that_is_it() {
        let ddl =
            "CREATE TABLE t(a, b, c, PRIMARY KEY(a, b)); INSERT INTO t VALUES (1, NULL, 1), (1, NULL, 2), (1, 1, 3)";
        let (db, t) = table(ddl);
        assert_eq!(found(&db, &t, &[Value::Integer(1), Value::Null]).len(), 2);
        let (plain, with_nulls) = (KeyQuery::new(&t).plain, KeyQuery::new(&t).with_nulls);
        for sql in [plain, with_nulls] {
            assert!(plan(&db, &sql).contains("(a=? AND b=?)"), "{}", plan(&db, &sql));
        }
    }

    #[test]
    fn a_table_of_two_thousand_columns_without_a_key_is_read_whole() {
        let names: Vec<String> = (0..2_000).map(|place| format!("c{place}")).collect();
        let (db, t) = table(&format!("CREATE TABLE t({})", names.join(", ")));
        db.execute("INSERT INTO t(rowid, c0, c1998) VALUES (3, 'first', 'late')", []).expect("insert");
        db.execute("UPDATE t SET c1999 = 'last'", []).expect("update");
        let row = found(&db, &t, &[Value::Integer(3)]).remove(0);
        assert_eq!(row.len(), 2_001);
        assert_eq!((&row[1], &row[1_999]), (&Value::text("first"), &Value::text("late")));
        assert_eq!(row[2_000], Value::text("last"));
    }
}
