//! A table with the same rows and fewer constraints, which ALTER TABLE has no words for.
//!
//! Its CREATE TABLE is edited: what is to go is cut out of the text, so that everything else in it (defaults, checks,
//! collations, keys of other tables) stays to the letter. Then, inside the caller's transaction: the old table is renamed
//! away, the new one made, its rows copied, the old one dropped, and indexes and triggers made again as they were.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension};

use super::migrate::constraint_name;
use super::{Error, store};
use crate::migrate::under_legacy_rules;
use crate::model::{Generated, KeyShape, TableSchema};
use crate::sqlite::ddl::{self, Constraint, ConstraintKind, CreateTable};
use crate::sqlite::{self, ident, lexer, quote};

/// What the old table is called meanwhile.
const OLD: &str = "__cdc_old";

/// What is to change. Columns by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Edits {
    /// Columns that lose their NOT NULL.
    pub(super) relaxed: Vec<String>,
    /// Columns that lose a UNIQUE of their own.
    pub(super) not_unique: Vec<String>,
    /// The one column that becomes the key.
    pub(super) key: Option<String>,
}

/// An index or trigger of a table.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    sql: String,
}

/// The indexes and triggers of a table, in the order in which they were made.
pub(super) fn parts(connection: &Connection, table: &TableSchema) -> Result<Vec<Part>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT name, sql FROM main.sqlite_schema
         WHERE type IN ('index', 'trigger') AND sql IS NOT NULL AND tbl_name = ?1 COLLATE NOCASE ORDER BY type, rowid",
    )?;
    let rows = statement.query_map([&table.name], |row| Ok(Part { name: row.get(0)?, sql: row.get(1)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Makes an index or trigger, unless it, or what fires it, does not compile then: the inner error says why.
pub(super) fn try_part(
    connection: &Connection,
    table: &str,
    part: &Part,
) -> Result<Result<(), rusqlite::Error>, Error> {
    connection.execute_batch("SAVEPOINT cq_part")?;
    let made = connection.execute_batch(&part.sql).and_then(|()| compiles(connection, table));
    let undo = if made.is_err() { "ROLLBACK TO cq_part; " } else { "" };
    connection.execute_batch(&format!("{undo}RELEASE cq_part"))?;
    Ok(made)
}

/// Whether a table can be written: a trigger on it that names what is not there breaks every statement that fires it.
fn compiles(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let table = ident(table);
    let columns: Vec<String> = connection
        .prepare(&format!("PRAGMA main.table_info({table})"))?
        .query_map([], |row| row.get::<_, String>("name").map(|name| ident(&name)))?
        .collect::<rusqlite::Result<_>>()?;
    let sets: Vec<String> = columns.iter().map(|column| format!("{column} = {column}")).collect();
    connection.prepare(&format!("INSERT INTO main.{table} DEFAULT VALUES"))?;
    connection.prepare(&format!("UPDATE main.{table} SET {}", sets.join(", ")))?;
    connection.prepare(&format!("DELETE FROM main.{table}"))?;
    Ok(())
}

/// Makes the changes, with every row.
pub(super) fn rebuild(connection: &Connection, old: &TableSchema, edits: &Edits) -> Result<(), Error> {
    let name = &old.name;
    let unfit = |why: &str| Error::Unfit { table: name.clone(), why: why.to_owned() };
    let ddl = edited(&old.ddl, edits).ok_or_else(|| unfit("its definition cannot be read; change it by hand"))?;
    let parts = parts(connection, old)?;
    let sequence = sequence(connection, name)?;
    let doing = |doing| Error::doing(doing, name);
    let rename = format!("ALTER TABLE main.{} RENAME TO {OLD}", ident(name));
    under_legacy_rules(connection, &rename).map_err(doing("rebuild"))?;
    connection.execute_batch(&ddl).map_err(doing("rebuild"))?;
    match copy_rows(connection, old) {
        Err(Error::Statement { source, .. }) if matches!(&*source, sqlite::Error::Sqlite(error) if sqlite::is_refusal(error)) =>
        {
            return Err(unfit(
                "its rows do not fit the new key, for some have the same value in its column; remove one of each, or \
                 consider using 'migrate_mode: forced'",
            ));
        }
        copied => copied?,
    }
    connection.execute_batch(&format!("DROP TABLE main.{OLD}")).map_err(doing("rebuild"))?;
    restore_sequence(connection, name, &ddl, sequence).map_err(doing("rebuild"))?;
    for part in parts {
        // It worked before, or it did not, and then it is not for us to say: so it is as it was.
        connection.execute_batch(&part.sql).map_err(doing("restore an index or trigger of"))?;
    }
    Ok(())
}

fn copy_rows(connection: &Connection, old: &TableSchema) -> Result<(), Error> {
    let new = store::existing(connection, &old.name)?;
    let written = old.columns.iter().filter(|column| column.generated == Generated::No);
    let mut names: Vec<&str> = written.map(|column| column.name.as_str()).collect();
    // Where the rowid is the key, whoever follows this table knows its rows by it.
    if let (KeyShape::Rowid { name }, KeyShape::Rowid { .. }) = (&old.key, &new.key) {
        names.insert(0, name);
    }
    let (into, names) = (ident(&old.name), quote::idents(names));
    let sql = format!("INSERT INTO main.{into}({names}) SELECT {names} FROM main.{OLD}");
    connection.execute_batch(&sql).map_err(Error::doing("copy the rows of", &old.name))
}

fn sequence(connection: &Connection, table: &str) -> Result<Option<i64>, Error> {
    if !crate::sqlite::store::table_exists(connection, "sqlite_sequence")? {
        return Ok(None);
    }
    let sql = "SELECT seq FROM main.sqlite_sequence WHERE name = ?1 COLLATE NOCASE";
    Ok(connection.prepare_cached(sql)?.query_row([table], |row| row.get(0)).optional()?)
}

/// AUTOINCREMENT goes on where it was, though rows with the highest keys may be gone.
fn restore_sequence(connection: &Connection, table: &str, ddl: &str, value: Option<i64>) -> rusqlite::Result<()> {
    let counts = lexer::tokens(ddl).iter().any(|token| token.is("AUTOINCREMENT"));
    let Some(value) = value.filter(|_| counts) else { return Ok(()) };
    let update = "UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1 COLLATE NOCASE";
    if connection.execute(update, (table, value))? == 0 {
        connection.execute("INSERT INTO main.sqlite_sequence(name, seq) VALUES (?1, ?2)", (table, value))?;
    }
    Ok(())
}

/// The CREATE TABLE with the edits made; `None` where it cannot be taken apart.
fn edited(sql: &str, edits: &Edits) -> Option<String> {
    let parsed = ddl::create_table(sql)?;
    let mut cuts = Cuts { sql, replaced: Vec::new() };
    let is_in = |names: &[String], name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    for column in &parsed.columns {
        for constraint in &column.constraints {
            let goes = match constraint.kind {
                ConstraintKind::NotNull => is_in(&edits.relaxed, &column.name),
                ConstraintKind::Unique => is_in(&edits.not_unique, &column.name),
                ConstraintKind::PrimaryKey => edits.key.is_some(),
                ConstraintKind::Null
                | ConstraintKind::Check
                | ConstraintKind::Default
                | ConstraintKind::Collate
                | ConstraintKind::References
                | ConstraintKind::ForeignKey
                | ConstraintKind::Generated
                | ConstraintKind::Other => false,
            };
            if goes {
                cuts.replaced.push((range(constraint), String::new()));
            }
        }
    }
    for constraint in parsed.constraints.iter().filter(|constraint| constraint.kind == ConstraintKind::Unique) {
        if sole_column(constraint).is_some_and(|column| is_in(&edits.not_unique, &column)) {
            cuts.item(constraint);
        }
    }
    if let Some(key) = &edits.key {
        cuts.key(&parsed, key);
    }
    Some(cuts.made())
}

/// What is to be replaced in a text, and by what.
struct Cuts<'a> {
    sql: &'a str,
    replaced: Vec<(Range<usize>, String)>,
}

impl Cuts<'_> {
    /// Cuts a constraint of the table out, with its name and the comma before it.
    fn item(&mut self, constraint: &Constraint<'_>) {
        let mut range = range(constraint);
        let before: Vec<_> =
            lexer::tokens(self.sql).into_iter().take_while(|token| token.start < range.start).collect();
        let mut before = before.as_slice();
        if let [rest @ .., constraint, _name] = before
            && constraint.is("CONSTRAINT")
        {
            range.start = constraint.start;
            before = rest;
        }
        if let Some(comma) = before.last().filter(|token| token.is_symbol(",")) {
            range.start = comma.start;
        }
        self.replaced.push((range, String::new()));
    }

    /// Makes `key` the primary key, in the place of the one that is there, or behind the last column.
    fn key(&mut self, parsed: &CreateTable<'_>, key: &str) {
        let key = format!("PRIMARY KEY ({})", ident(key));
        let here = parsed.constraints.iter().find(|constraint| constraint.kind == ConstraintKind::PrimaryKey);
        match here {
            Some(constraint) => self.replaced.push((range(constraint), key)),
            None => {
                let end = parsed.columns.last().map_or(0, |column| column.end);
                let name = ident(&constraint_name(&parsed.name));
                self.replaced.push((end..end, format!(", CONSTRAINT {name} {key}")));
            }
        }
    }

    fn made(mut self) -> String {
        self.replaced.sort_by_key(|(range, _)| (range.start, range.end));
        let mut made = self.sql.to_owned();
        for (range, text) in self.replaced.into_iter().rev() {
            made.replace_range(range, &text);
        }
        made
    }
}

fn range(constraint: &Constraint<'_>) -> Range<usize> {
    let (first, last) = (constraint.tokens.first(), constraint.tokens.last());
    first.map_or(0, |token| token.start)..last.map_or(0, lexer::Token::end)
}

/// The column of a UNIQUE (column).
fn sole_column(constraint: &Constraint<'_>) -> Option<String> {
    let inside: Vec<_> = constraint.tokens.iter().skip(2).take_while(|token| !token.is_symbol(")")).collect();
    let is_one = !inside.iter().any(|token| token.is_symbol(","));
    inside.first().filter(|_| is_one)?.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(relaxed: &[&str], not_unique: &[&str], key: Option<&str>) -> Edits {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Edits { relaxed: names(relaxed), not_unique: names(not_unique), key: key.map(str::to_owned) }
    }

    /// The columns that are NOT NULL, those that are unique by themselves, and the key.
    fn facts(ddl: &str) -> (Vec<String>, usize, Vec<String>) {
        let connection = crate::sqlite::in_memory().expect("memory");
        connection.execute_batch(ddl).unwrap_or_else(|error| panic!("{ddl}: {error}"));
        let table = crate::sqlite::catalog::table(&connection, "t").expect("catalog").expect("a table");
        let not_null = table.columns.iter().filter(|column| column.not_null).map(|column| column.name.clone());
        let unique = table.indexes.iter().filter(|index| index.origin == crate::model::IndexOrigin::Unique).count();
        let key = table.key_columns().into_iter().map(|(name, _)| name.to_owned()).collect();
        (not_null.collect(), unique, key)
    }

    #[test]
    fn constraints_are_cut_out_wherever_they_are_written() {
        for ddl in [
            "CREATE TABLE t(a INTEGER CONSTRAINT x NOT NULL ON CONFLICT ABORT DEFAULT (1) UNIQUE, b NOT NULL, c)",
            "CREATE TABLE t(\"A\" text not null, b NOT NULL, c, UNIQUE(a))",
            "CREATE TABLE t(a NOT NULL CHECK (a <> ','), b NOT NULL, c, CONSTRAINT \"u, v\" UNIQUE (\"a\") CHECK (b))",
            "CREATE TABLE t(a /* , */ NOT NULL, b NOT NULL, c, CHECK (b), CONSTRAINT u UNIQUE ([a]) ON CONFLICT FAIL)",
        ] {
            assert_eq!((facts(ddl).0.len(), facts(ddl).1), (2, 1), "{ddl}");
            let made = edited(ddl, &edits(&["a"], &["a"], None)).expect("edited");
            assert_eq!(facts(&made), (vec!["b".to_owned()], 0, vec!["rowid".to_owned()]), "{made}");
        }
        let pair = "CREATE TABLE t(a, b, UNIQUE(a, b))";
        assert_eq!(edited(pair, &edits(&[], &["a"], None)).as_deref(), Some(pair), "another constraint");
    }

    #[test]
    fn the_key_moves_wherever_it_was() {
        for ddl in [
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, _cq_id text NOT NULL)",
            "CREATE TABLE t(id INTEGER, _cq_id text NOT NULL, CONSTRAINT \"t_cqpk\" PRIMARY KEY (\"id\"))",
            "CREATE TABLE t(id TEXT PRIMARY KEY DESC ON CONFLICT REPLACE CHECK (id > 0), _cq_id text NOT NULL, CHECK (1))",
            "CREATE TABLE t(id, _cq_id text NOT NULL, x, PRIMARY KEY (id, x)) WITHOUT ROWID",
        ] {
            let made = edited(ddl, &edits(&[], &[], Some("_cq_id"))).expect("edited");
            assert_eq!(facts(&made).2, ["_cq_id"], "{made}");
        }
    }
}
