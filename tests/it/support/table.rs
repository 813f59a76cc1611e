//! A table as a generator of statements needs to know it, read from the database itself.

use rusqlite::Connection;

use super::oracle::{quoted, tables};

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// Its declared type, in upper case.
    pub declared: String,
    /// Its place in the primary key, from 1; 0 if it is not in it.
    pub key: usize,
    /// Whether SQLite computes it.
    pub generated: bool,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name, unquoted.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// A name that reaches its rowid, if it has one and not every name is hidden by a column.
    pub rowid: Option<&'static str>,
    /// The column that is the rowid.
    pub alias: Option<String>,
    /// Whether it is STRICT.
    pub strict: bool,
    /// The columns of each unique index, also the primary key's; an expression is an empty name.
    pub uniques: Vec<Vec<String>>,
}

impl Table {
    /// Every table of the application's.
    pub fn read_all(conn: &Connection) -> Vec<Self> {
        tables(conn).iter().map(|name| Self::read(conn, name)).collect()
    }

    /// One table.
    pub fn read(conn: &Connection, name: &str) -> Self {
        let columns = columns(conn, name);
        let (without_rowid, strict): (bool, bool) = conn
            .query_row("SELECT wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [name], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        let uniques = uniques(conn, name);
        let has_key_index: bool = conn
            .query_row("SELECT count(*) FROM pragma_index_list(?1) WHERE origin = 'pk'", [name], |row| row.get(0))
            .unwrap();
        let hidden = |rowid: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(rowid));
        let alias = columns.iter().find(|column| column.key > 0 && !has_key_index && !without_rowid);
        Self {
            name: name.to_owned(),
            rowid: ["rowid", "oid", "_rowid_"].into_iter().find(|rowid| !without_rowid && !hidden(rowid)),
            alias: alias.map(|column| column.name.clone()),
            columns,
            strict,
            uniques,
        }
    }

    /// Its name, quoted.
    pub fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// The columns that can be written.
    pub fn writable(&self) -> Vec<&Column> {
        self.columns.iter().filter(|column| !column.generated).collect()
    }

    /// The columns of the primary key, quoted, in its order.
    pub fn key(&self) -> Vec<String> {
        let mut key: Vec<&Column> = self.columns.iter().filter(|column| column.key > 0).collect();
        key.sort_by_key(|column| column.key);
        key.into_iter().map(|column| quoted(&column.name)).collect()
    }

    /// Whether a change of the column may collide with another row, as far as one can tell without reading expressions.
    pub fn may_collide(&self, column: &Column) -> bool {
        column.key > 0
            || self.uniques.iter().flatten().any(|name| name.is_empty() || name.eq_ignore_ascii_case(&column.name))
    }
}

fn columns(conn: &Connection, table: &str) -> Vec<Column> {
    let mut statement = conn.prepare("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?1)").unwrap();
    let rows = statement.query_map([table], |row| {
        Ok(Column {
            name: row.get(0)?,
            declared: row.get::<_, String>(1)?.to_uppercase(),
            key: usize::from(row.get::<_, u16>(2)?),
            generated: row.get::<_, i64>(3)? > 1,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn uniques(conn: &Connection, table: &str) -> Vec<Vec<String>> {
    let mut indexes = conn.prepare("SELECT name FROM pragma_index_list(?1) WHERE \"unique\"").unwrap();
    let names: Vec<String> = indexes.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let generated: Vec<String> =
        columns(conn, table).into_iter().filter(|column| column.generated).map(|column| column.name).collect();
    let mut statement = conn.prepare("SELECT coalesce(name, '') FROM pragma_index_info(?1)").unwrap();
    names
        .iter()
        .map(|index| {
            let columns = statement.query_map([index], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
            // A generated column is an expression of others.
            columns.map(|name| if generated.contains(&name) { String::new() } else { name }).collect()
        })
        .collect()
}
