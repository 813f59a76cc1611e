//! The statements that write one table, as text: made once, prepared by the connection's cache.
//!
//! A row is written with all of its wire columns. In `safe` mode the table here may have more of them; those become NULL
//! in a row that is written.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::Error;
use crate::codec::DecodedBatch;
use crate::model::{Collation, Generated, IndexOrigin, Key, KeyShape, TableId, TableSchema};
use crate::sqlite::{ident, value_of};

/// Rows that one statement writes: more gain nothing (measured with 10 columns: 1 row 260 ms, 10 rows 220, 25 rows 190,
/// 100 rows 230).
const ROWS_AT_ONCE: usize = 25;

/// Values that one statement binds, unless a single row has more: a statement of many is slow to prepare.
const PARAMS_AT_ONCE: usize = 512;

/// Binds a value without a copy of our own, bit by bit.
pub(super) struct Cell<'a>(pub(super) ValueRef<'a>);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

/// A column of the key here.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    /// Quoted.
    pub(super) name: String,
    /// The collation of the key's index.
    pub(super) collation: Collation,
    /// Whether it can be NULL.
    pub(super) nullable: bool,
}

impl KeyColumn {
    /// The column under the key's collation.
    fn sql(&self) -> String {
        match self.collation {
            // A BINARY key may be of a column whose own collation is another; the rowid needs none.
            Collation::Binary if !self.nullable && self.name.eq_ignore_ascii_case("\"rowid\"") => self.name.clone(),
            collation => format!("{} COLLATE {}", self.name, collation.sql()),
        }
    }

    fn is_param(&self, param: usize) -> String {
        format!("{} {} ?{param}", self.sql(), if self.nullable { "IS" } else { "=" })
    }
}

/// A DELETE of the row that has a unique value which an incoming row brings.
#[derive(Clone, Debug)]
pub(super) struct Displace {
    /// Parameters: the index's columns, then the key.
    pub(super) sql: String,
    /// Where in the wire row the parameters are.
    pub(super) places: Vec<usize>,
}

/// A table that rows are written into.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The peer's id for it.
    pub(super) id: TableId,
    /// Its name here, which is its name there.
    pub(super) name: String,
    /// The table as rows of it are read: the peer's columns, under the name and by the indexes that it has here.
    pub(super) read: TableSchema,
    /// The table as it is here.
    pub(super) local: TableSchema,
    /// How many columns a row of it has on the wire.
    pub(super) wire_len: usize,
    /// Where in a wire row the key is.
    pub(super) key_places: Vec<usize>,
    /// The key's columns here.
    pub(super) key: Vec<KeyColumn>,
    /// INSERT OR REPLACE.
    pub(super) replace: String,
    /// The same of so many rows in one statement.
    pub(super) replace_many: String,
    /// How many; 1 where a row is so wide that it gains nothing.
    pub(super) rows_at_once: usize,
    /// INSERT … ON CONFLICT (key) DO UPDATE, for when triggers fire.
    pub(super) upsert: String,
    /// What names the rows of a key, whose values are the first parameters.
    pub(super) by_key: String,
    /// DELETE by key.
    pub(super) delete: String,
    /// What an upsert must move out of the way.
    pub(super) displace: Vec<Displace>,
    /// Columns that are NOT NULL here and not at the peer: place and name.
    pub(super) null_refused: Vec<(usize, String)>,
    /// Columns that the peer had once and that were left here, in upper case.
    pub(super) left: Vec<String>,
    /// Whether the peer's rows have columns that are not here: its rows cannot be compared by digest.
    pub(super) is_narrower: bool,
}

impl Target {
    /// For a table that the peer has as `wire` and that is here as `local`.
    ///
    /// # Errors
    /// [`Error::ColumnMissing`].
    pub(super) fn new(id: TableId, wire: &TableSchema, local: &TableSchema) -> Result<Self, Error> {
        Ok(Self::build(id, wire, local, &local_names(wire, local)?))
    }

    /// The same where both ends write: a column that was dropped here stays away, whatever the peer's rows have in it.
    ///
    /// # Errors
    /// [`Error::ColumnMissing`], where it belongs to the key.
    pub(super) fn merged(
        id: TableId,
        (wire, local): (&TableSchema, &TableSchema),
        left: &[String],
    ) -> Result<Self, Error> {
        let names = match local_names(wire, local) {
            Err(Error::ColumnMissing { .. }) => names_in_part(wire, local)?,
            names => return Ok(Self { left: left.to_vec(), ..Self::build(id, wire, local, &names?) }),
        };
        Ok(Self { left: left.to_vec(), is_narrower: true, ..Self::build(id, wire, local, &names) })
    }

    /// `names`: what each column of a peer's row is called here. Where some are not here, only what reads by the key and
    /// [`Self::delete`] work.
    fn build(id: TableId, wire: &TableSchema, local: &TableSchema, names: &[&str]) -> Self {
        let key_places = wire.key_in_wire();
        let key = key_columns(wire, local, names);
        let quoted: Vec<String> = names.iter().copied().map(ident).collect();
        let extra = extra_columns(wire, local);
        let table_sql = format!("main.{}", ident(&local.name));
        let rows_at_once = (PARAMS_AT_ONCE / names.len().max(1)).clamp(1, ROWS_AT_ONCE);
        let parts = Parts { table: &table_sql, quoted: &quoted, extra: &extra, key: &key };
        Self {
            id,
            name: local.name.clone(),
            read: TableSchema { name: local.name.clone(), indexes: local.indexes.clone(), ..wire.clone() },
            local: local.clone(),
            wire_len: names.len(),
            replace: parts.insert("REPLACE", 1),
            replace_many: parts.insert("REPLACE", rows_at_once),
            rows_at_once,
            upsert: parts.upsert(is_rowid(local)),
            delete: format!("DELETE FROM {table_sql} WHERE {}", parts.by_key(1)),
            by_key: parts.by_key(1),
            displace: displace(local, names, &parts, &key_places),
            null_refused: null_refused(wire, local, names),
            left: Vec::new(),
            is_narrower: false,
            key_places,
            key,
        }
    }

    /// The key of one row of a batch whose wire columns begin at `offset`.
    pub(super) fn key_of(&self, batch: &DecodedBatch, offset: usize, row: usize) -> Key {
        Key(self.key_places.iter().map(|place| value_of(batch.value(offset + place, row))).collect())
    }

    /// The key's collations.
    pub(super) fn collations(&self) -> Vec<Collation> {
        self.key.iter().map(|column| column.collation).collect()
    }
}

fn is_rowid(table: &TableSchema) -> bool {
    matches!(table.key, KeyShape::Rowid { .. } | KeyShape::RowidAlias { .. })
}

/// What each wire column is called here.
fn local_names<'a>(wire: &TableSchema, local: &'a TableSchema) -> Result<Vec<&'a str>, Error> {
    let mut names = Vec::new();
    for (place, column) in wire.wire_columns().into_iter().enumerate() {
        if let (0, KeyShape::Rowid { .. }, KeyShape::Rowid { name }) = (place, &wire.key, &local.key) {
            names.push(*name);
            continue;
        }
        let found = local.column(column).filter(|found| found.generated == Generated::No);
        let missing = || Error::ColumnMissing { table: local.name.clone(), column: column.to_owned() };
        names.push(found.ok_or_else(missing)?.name.as_str());
    }
    Ok(names)
}

/// The same where columns may be missing that are not of the key; those go by the peer's name.
fn names_in_part<'a>(wire: &'a TableSchema, local: &'a TableSchema) -> Result<Vec<&'a str>, Error> {
    let key = wire.key_in_wire();
    let stored = |name: &str| local.column(name).filter(|column| column.generated == Generated::No);
    let (mut names, mut first) = (Vec::new(), 0);
    if let (KeyShape::Rowid { .. }, KeyShape::Rowid { name }) = (&wire.key, &local.key) {
        names.push(*name);
        first = 1;
    }
    for (place, column) in wire.wire_columns().into_iter().enumerate().skip(first) {
        match stored(column) {
            Some(here) => names.push(here.name.as_str()),
            None if key.contains(&place) => {
                return Err(Error::ColumnMissing { table: local.name.clone(), column: column.to_owned() });
            }
            None => names.push(column),
        }
    }
    Ok(names)
}

fn key_columns(wire: &TableSchema, local: &TableSchema, names: &[&str]) -> Vec<KeyColumn> {
    let column = |((_, collation), place): ((&str, Collation), usize)| {
        let here = names[place];
        let may_be_null = local.column(here).is_some_and(|column| !column.not_null);
        let nullable = !is_rowid(local) && !local.without_rowid && may_be_null;
        KeyColumn { name: ident(here), collation, nullable }
    };
    wire.key_columns().into_iter().zip(wire.key_in_wire()).map(column).collect()
}

/// Columns that only the table here has and that take NULL, quoted.
fn extra_columns(wire: &TableSchema, local: &TableSchema) -> Vec<String> {
    let extra = local
        .columns
        .iter()
        .filter(|column| column.generated == Generated::No && !column.not_null && wire.column(&column.name).is_none());
    extra.map(|column| ident(&column.name)).collect()
}

fn null_refused(wire: &TableSchema, local: &TableSchema, names: &[&str]) -> Vec<(usize, String)> {
    let columns = wire.wire_columns();
    let mut refused = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let Some(here) = local.column(name) else { continue };
        let there = wire.column(columns[place]);
        if here.not_null && !there.is_some_and(|there| there.not_null) {
            refused.push((place, here.name.clone()));
        }
    }
    refused
}

/// A DELETE for each unique index besides the key that is on plain columns without WHERE. What is not covered shows as
/// a constraint error of the upsert, and goes the slow way (`rows`).
fn displace(local: &TableSchema, names: &[&str], parts: &Parts<'_>, key_places: &[usize]) -> Vec<Displace> {
    let mut all = Vec::new();
    let place_of = |name: &str| names.iter().position(|here| *here == name);
    let unique =
        local.indexes.iter().filter(|index| index.unique && !index.partial && index.origin != IndexOrigin::PrimaryKey);
    for index in unique {
        let column = |part: &crate::model::IndexColumn| {
            let column = &local.columns[part.column?];
            Some((place_of(&column.name)?, format!("{} COLLATE {}", ident(&column.name), part.collation)))
        };
        let Some(columns) = index.columns.iter().map(column).collect::<Option<Vec<_>>>() else { continue };
        let equal: Vec<String> =
            columns.iter().enumerate().map(|(number, (_, sql))| format!("{sql} = ?{}", number + 1)).collect();
        let not_key = parts.by_key(columns.len() + 1);
        all.push(Displace {
            sql: format!("DELETE FROM {} WHERE {} AND NOT ({not_key})", parts.table, equal.join(" AND ")),
            places: columns.iter().map(|(place, _)| *place).chain(key_places.iter().copied()).collect(),
        });
    }
    all
}

/// What the texts are made of.
struct Parts<'a> {
    table: &'a str,
    quoted: &'a [String],
    extra: &'a [String],
    key: &'a [KeyColumn],
}

impl Parts<'_> {
    fn insert(&self, or: &str, rows: usize) -> String {
        let columns: Vec<&str> = self.quoted.iter().chain(self.extra).map(String::as_str).collect();
        let values = |row: usize| {
            let first = row * self.quoted.len() + 1;
            let params = (first..first + self.quoted.len()).map(|param| format!("?{param}"));
            let values: Vec<String> = params.chain(self.extra.iter().map(|_| "NULL".to_owned())).collect();
            format!("({})", values.join(", "))
        };
        let rows: Vec<String> = (0..rows).map(values).collect();
        format!("INSERT OR {or} INTO {} ({}) VALUES {}", self.table, columns.join(", "), rows.join(", "))
    }

    fn upsert(&self, rowid_key: bool) -> String {
        let target: Vec<String> = self
            .key
            .iter()
            .map(|column| {
                if rowid_key {
                    column.name.clone()
                } else {
                    format!("{} COLLATE {}", column.name, column.collation.sql())
                }
            })
            .collect();
        // A key may be equal and yet spelled otherwise, so it is set too; the rowid is a number.
        let set = self.quoted.iter().filter(|name| !(rowid_key && self.key.iter().any(|key| key.name == **name)));
        let mut sets: Vec<String> = set.map(|name| format!("{name} = excluded.{name}")).collect();
        sets.extend(self.extra.iter().map(|name| format!("{name} = NULL")));
        let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
        format!("{} ON CONFLICT ({}) DO {action}", self.insert("ABORT", 1), target.join(", "))
    }

    fn by_key(&self, first: usize) -> String {
        let parts: Vec<String> =
            self.key.iter().enumerate().map(|(number, column)| column.is_param(first + number)).collect();
        parts.join(" AND ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{catalog, in_memory};

    fn target(there: &str, here: &str) -> (Target, rusqlite::Connection) {
        let schema = |ddl: &str| {
            let connection = in_memory().expect("memory");
            connection.execute_batch(ddl).expect("ddl");
            (catalog::table(&connection, "t").expect("catalog").expect("table"), connection)
        };
        let (local, connection) = schema(here);
        (Target::new(TableId(1), &schema(there).0, &local).expect("target"), connection)
    }

    #[test]
    fn every_shape_of_table_gets_statements_that_sqlite_takes() {
        for ddl in [
            "CREATE TABLE t(a, b)",
            "CREATE TABLE t(rowid, oid)",
            "CREATE TABLE t(id INTEGER PRIMARY KEY)",
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, \"we\"\"ird name\" TEXT UNIQUE, c AS (id + 1))",
            "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v, UNIQUE(v COLLATE RTRIM))",
            "CREATE TABLE t(k COLLATE NOCASE, v, PRIMARY KEY(k COLLATE BINARY, v DESC)) WITHOUT ROWID",
            "CREATE TABLE t(a, b, PRIMARY KEY(b, a))",
            "CREATE TABLE t(a TEXT PRIMARY KEY, b INT UNIQUE) STRICT",
        ] {
            let (target, connection) = target(ddl, ddl);
            let displace = target.displace.iter().map(|displace| &displace.sql);
            for sql in
                [&target.replace, &target.replace_many, &target.upsert, &target.delete].into_iter().chain(displace)
            {
                connection.prepare(sql).unwrap_or_else(|error| panic!("{ddl}: {sql}: {error}"));
            }
        }
    }

    #[test]
    fn deleting_by_key_uses_the_keys_index() {
        for ddl in [
            "CREATE TABLE t(a, b)",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
            "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
            "CREATE TABLE t(k COLLATE NOCASE, v, PRIMARY KEY(k COLLATE BINARY, v)) WITHOUT ROWID",
        ] {
            let (target, connection) = target(ddl, ddl);
            let sql = format!("EXPLAIN QUERY PLAN {}", target.delete);
            let plan: String = connection
                .query_row(
                    &sql,
                    [None::<i64>; 2].get(..target.key.len()).map_or_else(
                        || rusqlite::params_from_iter(Vec::new()),
                        |nulls| rusqlite::params_from_iter(nulls.to_vec()),
                    ),
                    |row| row.get(3),
                )
                .expect("plan");
            assert!(plan.starts_with("SEARCH"), "{ddl}: {plan}");
        }
    }

    #[test]
    fn columns_that_only_the_replica_has_become_null_where_they_can() {
        let (target, _) = target(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, B, old, n NOT NULL DEFAULT 1)",
        );
        assert_eq!(target.replace, "INSERT OR REPLACE INTO main.\"t\" (\"id\", \"B\", \"old\") VALUES (?1, ?2, NULL)");
    }
}
