//! What a database's catalog says, as our nouns.

use rusqlite::{Connection, OptionalExtension};

use super::{Error, ident};
pub use crate::model::OURS;
use crate::model::{
    Collation, Column, Generated, Index, IndexColumn, IndexOrigin, KeyShape, ObjectKind, SchemaObject, TableSchema,
};

/// What a rowid can be called where no column has the name.
pub const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// What a name in the catalog's table list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// A table that triggers can be put on.
    Ordinary,
    /// A virtual table.
    Virtual,
    /// A table that belongs to a virtual one.
    Shadow,
}

/// A name in the catalog's table list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Its name as declared.
    pub name: String,
    /// What it is.
    pub kind: TableKind,
}

/// `PRAGMA schema_version`: moves with every statement that changes the schema, and with VACUUM.
///
/// # Errors
/// SQLite's.
pub fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

/// Every table of the user's, by name: not SQLite's own, and not ours.
///
/// # Errors
/// SQLite's.
pub fn table_list(connection: &Connection) -> rusqlite::Result<Vec<TableEntry>> {
    let mut statement = connection.prepare("PRAGMA main.table_list")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>("name")?, row.get::<_, String>("type")?)))?;
    let mut entries = Vec::new();
    for row in rows {
        let (name, kind) = row?;
        let kind = match kind.as_str() {
            "table" => TableKind::Ordinary,
            "virtual" => TableKind::Virtual,
            "shadow" => TableKind::Shadow,
            _ => continue,
        };
        let reserved = |prefix: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
        if !reserved("sqlite_") && !reserved(OURS) {
            entries.push(TableEntry { name, kind });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The table of that name, without case; `None` where there is no such table.
///
/// # Errors
/// SQLite's.
pub fn table(connection: &Connection, name: &str) -> Result<Option<TableSchema>, Error> {
    let ddl = connection
        .prepare_cached("SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?
        .query_row([name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    let Some((name, ddl)) = ddl else { return Ok(None) };
    let columns = columns(connection, &name)?;
    let indexes = indexes(connection, &name)?;
    let (without_rowid, strict) = connection
        .prepare_cached("SELECT wr, strict FROM pragma_table_list(?1) WHERE schema = 'main'")?
        .query_row([&name], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut schema =
        TableSchema { key: KeyShape::None, foreign_needs: None, name, columns, without_rowid, strict, ddl, indexes };
    schema.foreign_needs = foreign_needs(connection, &schema);
    match key_shape(&schema) {
        Ok(key) => schema.key = key,
        Err(collation) => schema.foreign_needs = Some(format!("its key needs the application's collation {collation}")),
    }
    Ok(Some(schema))
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection.prepare(&format!("PRAGMA main.table_xinfo({})", ident(table)))?;
    let read = |row: &rusqlite::Row<'_>| {
        let key_part: u32 = row.get("pk")?;
        let generated = match row.get::<_, i64>("hidden")? {
            2 => Generated::Virtual,
            3 => Generated::Stored,
            _ => Generated::No,
        };
        Ok(Column {
            name: row.get("name")?,
            declared_type: row.get("type")?,
            not_null: row.get("notnull")?,
            default: row.get("dflt_value")?,
            key_part: key_part.checked_sub(1).map(|part| part as usize),
            generated,
        })
    };
    statement.query_map([], read)?.collect()
}

fn indexes(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Index>> {
    let mut statement = connection.prepare(&format!("PRAGMA main.index_list({})", ident(table)))?;
    let read = |row: &rusqlite::Row<'_>| {
        let origin = match row.get::<_, String>("origin")?.as_str() {
            "u" => IndexOrigin::Unique,
            "pk" => IndexOrigin::PrimaryKey,
            _ => IndexOrigin::Created,
        };
        let (name, unique, partial) = (row.get("name")?, row.get("unique")?, row.get("partial")?);
        Ok(Index { name, unique, origin, partial, sql: None, columns: Vec::new() })
    };
    let mut indexes = statement.query_map([], read)?.collect::<rusqlite::Result<Vec<Index>>>()?;
    for index in &mut indexes {
        index.columns = index_columns(connection, &index.name)?;
        index.sql = connection
            .prepare_cached("SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1")?
            .query_row([&index.name], |row| row.get(0))
            .optional()?
            .flatten();
    }
    indexes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(indexes)
}

fn index_columns(connection: &Connection, index: &str) -> rusqlite::Result<Vec<IndexColumn>> {
    let mut statement = connection.prepare(&format!("PRAGMA main.index_xinfo({})", ident(index)))?;
    let read = |row: &rusqlite::Row<'_>| {
        let place: i64 = row.get("cid")?;
        let column = usize::try_from(place).ok();
        let part = IndexColumn { column, collation: row.get("coll")?, descending: row.get("desc")? };
        Ok((row.get::<_, bool>("key")?, part))
    };
    let parts = statement.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(parts.into_iter().filter(|(key, _)| *key).map(|(_, part)| part).collect())
}

/// The key of a table, or the name of the collation in it that only the application has.
fn key_shape(table: &TableSchema) -> Result<KeyShape, String> {
    let declared = table.columns.iter().filter(|column| column.key_part.is_some()).count();
    let index = table.indexes.iter().find(|index| index.origin == IndexOrigin::PrimaryKey);
    if let Some(index) = index {
        let part = |part: &IndexColumn| {
            let collation = Collation::by_name(&part.collation).ok_or_else(|| part.collation.clone())?;
            Ok((part.column.expect("a primary key has no expressions"), collation))
        };
        return Ok(KeyShape::Columns { columns: index.columns.iter().map(part).collect::<Result<_, String>>()? });
    }
    if declared == 1 {
        let column = table.columns.iter().position(|column| column.key_part.is_some()).expect("there is one");
        return Ok(KeyShape::RowidAlias { column });
    }
    let hidden = |name: &str| table.column(name).is_some();
    Ok(ROWID_NAMES.into_iter().find(|name| !hidden(name)).map_or(KeyShape::None, |name| KeyShape::Rowid { name }))
}

/// What a table needs that only the application registers: found by preparing an INSERT, which compiles every
/// constraint, index expression and generated column, and a REPLACE, which is how rows are written and compiles the
/// defaults of what is NOT NULL. Ours is a connection without triggers, so theirs do not count.
fn foreign_needs(connection: &Connection, table: &TableSchema) -> Option<String> {
    let written = table.columns.iter().filter(|column| column.generated == Generated::No);
    let names: Vec<&str> = written.map(|column| column.name.as_str()).collect();
    let nulls = vec!["NULL"; names.len()].join(", ");
    let (name, columns) = (ident(&table.name), super::quote::idents(names.iter().copied()));
    let refused = |verb: &str| {
        let sql = format!("{verb} INTO main.{name} ({columns}) VALUES ({nulls})");
        connection.prepare(&sql).err()
    };
    let error = refused("INSERT").or_else(|| refused("INSERT OR REPLACE"))?.to_string();
    let known = ["no such function", "unknown function", "no such collation", "unsafe use of", "no such module"];
    known.iter().any(|start| error.contains(start)).then(|| format!("it needs what only the application has ({error})"))
}

/// Every index made by CREATE INDEX, every view and every trigger of the user's, by kind and name.
///
/// # Errors
/// SQLite's.
pub fn objects(connection: &Connection) -> rusqlite::Result<Vec<SchemaObject>> {
    let mut statement = connection.prepare_cached(
        "SELECT type, name, tbl_name, sql FROM main.sqlite_schema
         WHERE type IN ('index', 'view', 'trigger') AND sql IS NOT NULL AND substr(name, 1, 6) <> '__cdc_'
         ORDER BY type, name",
    )?;
    let rows = statement.query_map([], |row| {
        let kind = match row.get::<_, String>(0)?.as_str() {
            "index" => ObjectKind::Index,
            "view" => ObjectKind::View,
            _ => ObjectKind::Trigger,
        };
        Ok(SchemaObject { kind, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(ddl: &str) -> TableSchema {
        let connection = super::super::in_memory().expect("memory");
        connection.execute_batch(ddl).expect("ddl");
        table(&connection, "T").expect("catalog").expect("table")
    }

    fn key(ddl: &str) -> Vec<(String, Collation)> {
        schema(ddl).key_columns().into_iter().map(|(name, collation)| (name.to_owned(), collation)).collect()
    }

    #[test]
    fn the_key_is_what_sqlite_identifies_a_row_by() {
        let one = |name: &str, collation| vec![(name.to_owned(), collation)];
        let binary = Collation::Binary;
        assert_eq!(key("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"), one("id", binary));
        assert_eq!(key("CREATE TABLE t(id INTEGER PRIMARY KEY DESC, a)"), one("id", binary));
        assert_eq!(key("CREATE TABLE t(id INT PRIMARY KEY, a)"), one("id", binary));
        assert_eq!(key("CREATE TABLE t(a, b)"), one("rowid", binary));
        assert_eq!(key("CREATE TABLE t(rowid, oid)"), one("_rowid_", binary));
        assert_eq!(key("CREATE TABLE t(a, rowid, oid, _rowid_)"), vec![]);
        assert_eq!(key("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY)"), one("k", Collation::NoCase));
        assert_eq!(key("CREATE TABLE t(k COLLATE NOCASE, PRIMARY KEY(k COLLATE BINARY))"), one("k", binary));
        let pair = vec![("b".to_owned(), binary), ("a".to_owned(), Collation::RTrim)];
        assert_eq!(key("CREATE TABLE t(a, b, PRIMARY KEY(b DESC, a COLLATE RTRIM)) WITHOUT ROWID"), pair);
        let shape = schema("CREATE TABLE t(id INTEGER PRIMARY KEY DESC, a)").key;
        assert!(matches!(shape, KeyShape::Columns { .. }), "DESC makes it an ordinary column");
    }

    #[test]
    fn generated_columns_do_not_travel_and_the_rowid_does_where_it_is_the_key() {
        let table = schema("CREATE TABLE t(a, b AS (a + 1), c AS (a + 2) STORED, d)");
        assert_eq!(table.wire_columns(), ["rowid", "a", "d"]);
        assert_eq!(table.key_in_wire(), [0]);
        let table = schema("CREATE TABLE t(a, b, c, PRIMARY KEY(c, a))");
        assert_eq!(table.wire_columns(), ["a", "b", "c"]);
        assert_eq!(table.key_in_wire(), [2, 0]);
    }

    #[test]
    fn a_default_that_only_the_application_can_compute_is_a_need_where_it_may_be_computed() {
        let needs = |column: &str| schema(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY, u {column})")).foreign_needs;
        let why = needs("TEXT NOT NULL DEFAULT (my_uuid())").expect("a need");
        assert!(why.contains("my_uuid"), "{why}");
        for column in ["NOT NULL DEFAULT (lower('A'))", "NOT NULL DEFAULT CURRENT_TIMESTAMP", "DEFAULT (my_uuid())"] {
            assert_eq!(needs(column), None, "{column}");
        }
    }
}
