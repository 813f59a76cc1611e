//! What the applications of a shop do to its database: they insert, update, delete, replace, and migrate its tables by
//! rebuilding them, as ORMs do.

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    oracle::quoted,
    random::Random,
    statements::{Generator, finish, run},
    table::Table,
};

/// A writer over whatever tables the database has.
pub struct Writer {
    random: Random,
    tables: Vec<Table>,
}

impl Writer {
    /// One whose deeds `seed` determines.
    pub fn new(conn: &Connection, seed: u64) -> Self {
        Self { random: Random::new(seed), tables: Table::read_all(conn) }
    }

    /// Runs so many statements, in transactions of their own; returns how many did something.
    pub fn write(&mut self, conn: &Connection, statements: usize) -> usize {
        let mut generator = Generator::new(&mut self.random, &self.tables);
        let mut done = 0;
        for _ in 0..statements {
            let sql = generator.next().sql;
            // A shop is never emptied, nor is a large table scanned for a workload's sake.
            if sql.starts_with("DELETE") && !sql.contains("LIMIT 1") {
                continue;
            }
            done += usize::from(run(conn, &sql).error.is_none());
        }
        finish(conn);
        done
    }

    /// Rebuilds a table, adding a column: SQLite's own procedure of twelve steps.
    pub fn rebuild(&mut self, conn: &Connection) {
        let table = self.random.one(&self.tables).name.clone();
        let column = format!("added_{}", self.random.below(1_000_000));
        rebuild(conn, &table, |sql| {
            let first = sql.find('(').unwrap();
            format!("{}{} TEXT DEFAULT 'new', {}", &sql[..=first], quoted(&column), &sql[first + 1..])
        });
        self.tables = Table::read_all(conn);
    }
}

/// The procedure of twelve steps from SQLite's documentation of ALTER TABLE; `edit` changes the text of CREATE TABLE.
pub fn rebuild(conn: &Connection, table: &str, edit: impl FnOnce(&str) -> String) {
    let foreign_keys: bool = conn.pragma_query_value(None, "foreign_keys", |row| row.get(0)).unwrap();
    let legacy: bool = conn.pragma_query_value(None, "legacy_alter_table", |row| row.get(0)).unwrap();
    conn.pragma_update(None, "foreign_keys", false).unwrap();
    // Or a view that reads the table stops the rename.
    conn.pragma_update(None, "legacy_alter_table", true).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sql: String = conn
        .query_row("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1", [table], |row| row.get(0))
        .unwrap();
    let mut statement = conn
        .prepare("SELECT sql FROM sqlite_schema WHERE tbl_name = ?1 AND type IN ('index', 'trigger') AND sql IS NOT NULL AND name NOT LIKE '\\_\\_cdc\\_%' ESCAPE '\\'")
        .unwrap();
    let others: Vec<String> = statement.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    drop(statement);
    let old: Vec<String> = Table::read(conn, table).writable().iter().map(|column| quoted(&column.name)).collect();
    let body = &sql[sql.find('(').unwrap()..];
    conn.execute_batch(&edit(&format!("CREATE TABLE rebuilt_by_twelve_steps{body}"))).unwrap();
    let new = Table::read(conn, "rebuilt_by_twelve_steps");
    let both: Vec<String> =
        new.writable().iter().map(|column| quoted(&column.name)).filter(|name| old.contains(name)).collect();
    let both = both.join(", ");
    let name = quoted(table);
    conn.execute_batch(&format!(
        "INSERT INTO rebuilt_by_twelve_steps({both}) SELECT {both} FROM {name};
         DROP TABLE {name};
         ALTER TABLE rebuilt_by_twelve_steps RENAME TO {name};"
    ))
    .unwrap();
    for other in others {
        conn.execute_batch(&other).unwrap();
    }
    let broken: Option<String> = conn.query_row("PRAGMA foreign_key_check", [], |row| row.get(0)).optional().unwrap();
    assert!(broken.is_none() || !foreign_keys, "the rebuild broke a foreign key of {broken:?}");
    conn.execute_batch("COMMIT").unwrap();
    conn.pragma_update(None, "legacy_alter_table", legacy).unwrap();
    conn.pragma_update(None, "foreign_keys", foreign_keys).unwrap();
}
