//! SQLite's own procedure for what ALTER TABLE cannot do: a new table, what fits of the rows, the old table dropped.
//!
//! The old table is renamed away and the new one made under its own name, so that its text is the peer's to the letter.
//! Rows that no longer fit are left out; the copy that follows brings what the source has. Where both ends write, they
//! may be nowhere else: a new column that may not be NULL is filled with nothing ('', 0) until the copy brings what it is
//! to be, and where that does not do, the change is refused.

use rusqlite::config::DbConfig;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension};

use super::error::{about, refusal};
use super::said::Said;
use super::{Error, RefusedChange, Rules, Wanted, plan};
use crate::model::{Generated, Index, KeyShape, TableSchema};
/// Whether a row, or an index on them, is refused for what the rows are; anything else is a failure.
pub(super) use crate::sqlite::is_refusal as is_misfit;
use crate::sqlite::{catalog, ident, quote, store};

/// What the old table is called meanwhile.
const OLD: &str = "__cdc_old";

/// A table to be made anew.
pub(super) struct Task<'a> {
    pub(super) conn: &'a Connection,
    pub(super) wanted: &'a Wanted,
    pub(super) rebuild: &'a plan::Rebuild,
    pub(super) said: &'a Said,
    pub(super) rules: &'a Rules<'a>,
}

impl Task<'_> {
    /// Makes the table anew; returns what could not survive it. Views and the user's triggers are aside by then.
    pub(super) fn run(&self) -> Result<Vec<String>, Error> {
        let name = &self.wanted.def.name;
        let old = catalog::table(self.conn, name)?.expect("a table that is rebuilt is here");
        let sequence = self.sequence(name)?;
        self.clear(&old)?;
        self.rename_away(name)?;
        self.conn.execute_batch(&self.rebuild.ddl).map_err(about(name))?;
        let mut lost = Vec::new();
        for (index, theirs) in self.indexes(&old, true) {
            // An index of the replica's own may not go with the new definition; the peer's must.
            let done = self.conn.execute_batch(&index);
            if theirs {
                done.map_err(about(name))?;
            } else if let Some(why) = refusal(done)? {
                lost.push(format!("an index on \"{name}\" could not survive ({why})"));
            }
        }
        self.copy_rows(name, &old)?;
        self.conn.execute_batch(&format!("DROP TABLE main.{OLD}")).map_err(about(name))?;
        self.restore_sequence(name, sequence)?;
        for (index, _) in self.indexes(&old, false) {
            if let Some(why) = refusal(self.conn.execute_batch(&index))? {
                lost.push(format!("an index on \"{name}\" could not survive ({why})"));
            }
        }
        Ok(lost)
    }

    /// Indexes and triggers keep their names when their table is renamed, and would be in the way.
    fn clear(&self, old: &TableSchema) -> Result<(), Error> {
        let mut triggers = self.conn.prepare_cached(
            "SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE",
        )?;
        let names = triggers.query_map([&old.name], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        for trigger in names {
            self.conn.execute_batch(&format!("DROP TRIGGER main.{}", ident(&trigger)))?;
        }
        for index in old.indexes.iter().filter(|index| index.sql.is_some()) {
            self.conn.execute_batch(&format!("DROP INDEX main.{}", ident(&index.name)))?;
        }
        Ok(())
    }

    fn rename_away(&self, name: &str) -> Result<(), Error> {
        let sql = format!("ALTER TABLE main.{} RENAME TO {OLD}", ident(name));
        under_legacy_rules(self.conn, &sql).map_err(about(name))
    }

    /// The CREATE INDEXes to run: the peer's in its words where the table had one of that name (unique ones in any
    /// case), and those that were made here. Each with whether it is the peer's.
    fn indexes(&self, old: &TableSchema, unique: bool) -> Vec<(String, bool)> {
        let is = |index: &Index, name: &str| index.name.eq_ignore_ascii_case(name);
        let mut found = Vec::new();
        for index in self.wanted.schema.indexes.iter().filter(|index| index.unique == unique) {
            let had = unique || old.indexes.iter().any(|other| is(other, &index.name));
            found.extend(index.sql.clone().filter(|_| had).map(|sql| (sql, true)));
        }
        for index in old.indexes.iter().filter(|index| index.unique == unique) {
            let theirs = self.said.indexes.contains_key(&index.name.to_ascii_lowercase())
                || self.wanted.schema.indexes.iter().any(|other| is(other, &index.name));
            found.extend(index.sql.clone().filter(|_| !theirs).map(|sql| (sql, false)));
        }
        found
    }

    fn copy_rows(&self, name: &str, old: &TableSchema) -> Result<(), Error> {
        let new = catalog::table(self.conn, name)?.expect("it was just made");
        let (mut into, mut from): (Vec<&str>, Vec<&str>) =
            self.rebuild.columns.iter().map(|(new, old)| (new.as_str(), old.as_str())).unzip();
        if let (KeyShape::Rowid { name: new }, KeyShape::Rowid { name: old }) = (&new.key, &old.key) {
            into.insert(0, new);
            from.insert(0, old);
        }
        if into.is_empty() {
            return Ok(());
        }
        let targets: Vec<&str> = into.clone();
        let filled: Vec<(&str, &str)> = if self.rules.mirror { Vec::new() } else { fillings(&new, &into) };
        into.extend(filled.iter().map(|(name, _)| *name));
        let or = if self.rules.mirror { "REPLACE" } else { "ABORT" };
        let into = format!("INSERT OR {or} INTO main.{}({})", ident(name), quote::idents(into));
        let values: String = filled.iter().map(|(_, value)| format!(", {value}")).collect();
        let cells: Vec<String> =
            from.iter().zip(&targets).map(|(old, new_name)| self.cell(&new, old, new_name)).collect();
        let read = format!("SELECT {}{values} FROM main.{OLD}", cells.join(", "));
        match self.conn.execute(&format!("{into} {read}"), []) {
            Ok(_) => Ok(()),
            Err(error) if is_misfit(&error) && !self.rules.mirror => {
                Err(misfit(self.wanted, old, "rows here do not fit the new definition"))
            }
            Err(error) if is_misfit(&error) => self.copy_one_by_one(&into, &read, from.len()).map_err(about(name)),
            Err(error) => Err(about(name)(error)),
        }
    }

    /// What is copied of a column. Between two writers, a NULL that may not be one any more becomes the default, or empty.
    fn cell(&self, new: &TableSchema, old_name: &str, new_name: &str) -> String {
        let column = new.column(new_name).filter(|column| column.not_null && column.key_part.is_none());
        match column.filter(|_| !self.rules.mirror) {
            None => ident(old_name),
            Some(column) => {
                let empty = column.default.as_deref().unwrap_or_else(|| empty_value(&column.declared_type));
                format!("coalesce({}, {empty})", ident(old_name))
            }
        }
    }

    /// Leaves out the rows that do not fit.
    fn copy_one_by_one(&self, into: &str, read: &str, columns: usize) -> rusqlite::Result<()> {
        let places = vec!["?"; columns].join(", ");
        let mut insert = match self.conn.prepare(&format!("{into} VALUES ({places})")) {
            Ok(insert) => insert,
            // None fits: a new column has a default that only the application can compute.
            Err(error) if is_misfit(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut select = self.conn.prepare(read)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                insert.raw_bind_parameter(column + 1, ToSqlOutput::Borrowed(row.get_ref(column)?))?;
            }
            match insert.raw_execute() {
                Ok(_) => {}
                Err(error) if is_misfit(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sequence(&self, name: &str) -> Result<Option<i64>, Error> {
        if !store::table_exists(self.conn, "sqlite_sequence")? {
            return Ok(None);
        }
        let sql = "SELECT seq FROM main.sqlite_sequence WHERE name = ?1 COLLATE NOCASE";
        Ok(self.conn.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
    }

    /// AUTOINCREMENT goes on where it was, whatever rows were left out.
    fn restore_sequence(&self, name: &str, value: Option<i64>) -> Result<(), Error> {
        let counts = crate::sqlite::lexer::tokens(&self.rebuild.ddl).iter().any(|token| token.is("AUTOINCREMENT"));
        let Some(value) = value.filter(|_| counts) else { return Ok(()) };
        let sql = "UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1 COLLATE NOCASE";
        if self.conn.prepare_cached(sql)?.execute((name, value))? == 0 {
            let sql = "INSERT INTO main.sqlite_sequence(name, seq) VALUES (?1, ?2)";
            self.conn.prepare_cached(sql)?.execute((name, value))?;
        }
        Ok(())
    }
}

/// Columns that may not be NULL and have no default, and that nothing is copied into, each with the empty value of its
/// type.
fn fillings<'a>(new: &'a TableSchema, into: &[&str]) -> Vec<(&'a str, &'static str)> {
    let needs = |column: &&crate::model::Column| {
        let is_copied = into.iter().any(|name| name.eq_ignore_ascii_case(&column.name));
        column.not_null && column.default.is_none() && column.generated == Generated::No && !is_copied
    };
    let found = new.columns.iter().filter(needs).filter(|column| column.key_part.is_none());
    found.map(|column| (column.name.as_str(), empty_value(&column.declared_type))).collect()
}

/// The value of a declared type that says nothing.
fn empty_value(declared: &str) -> &'static str {
    let declared = declared.to_ascii_uppercase();
    let is = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    if is(&["INT"]) {
        "0"
    } else if is(&["CHAR", "CLOB", "TEXT"]) {
        "''"
    } else if declared.is_empty() || is(&["BLOB"]) {
        "x''"
    } else {
        "0"
    }
}

/// The refusal of a change that rows here do not fit.
pub(super) fn misfit(wanted: &Wanted, local: &TableSchema, why: &str) -> Error {
    Error::Refused(Box::new(RefusedChange {
        table: wanted.def.name.clone(),
        columns: "*".to_owned(),
        why: why.to_owned(),
        source_ddl: wanted.def.ddl.clone(),
        replica_ddl: local.ddl.clone(),
        forced_helps: false,
    }))
}

/// Runs an ALTER TABLE … RENAME that leaves alone whatever refers to the table.
///
/// # Errors
/// SQLite's.
pub fn under_legacy_rules(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    const LEGACY: DbConfig = DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE;
    let before = conn.db_config(LEGACY)?;
    conn.set_db_config(LEGACY, true)?;
    let done = conn.execute_batch(sql);
    conn.set_db_config(LEGACY, before)?;
    done
}
