//! A table that both ends write, as it is here: its rows by key, and the statements that write them.
//!
//! A peer's row may have fewer columns than the table here, where a column that was added here has not reached the peer.
//! What the row does not say stays as it is here; and since the peer cannot know of it, such a row is said anew, as ours
//! ([`Shared::holds_more`]). It may have more, where a column was dropped here: what it says of that is left out.

use rusqlite::{CachedStatement, Connection, ErrorCode};

use super::super::Error;
use super::super::error::shown;
use super::super::statement::Target;
use crate::model::{Collation, IndexOrigin, Key, KeyShape, TableId, TableSchema, Value};
use crate::sqlite::row_sql::KeyQuery;
use crate::sqlite::{self, Bind, ident, value_of};

/// A row with every column that is stored here.
pub(super) type LocalRow = Vec<Value>;

/// A table of a peer's, with what it is here.
pub(super) struct Shared {
    /// Its name here.
    pub(super) name: String,
    /// Its newest generation in our log; none where it is not captured here.
    pub(super) captured: Option<TableId>,
    /// The collations of its key.
    pub(super) collations: Vec<Collation>,
    /// The names of its stored columns, as JSON: what a recorded row is read by.
    pub(super) columns: String,
    /// The names of a peer's row, as JSON.
    pub(super) wire_columns: String,
    /// The names of its key's columns, as JSON: what a recorded deletion is read by.
    pub(super) key_columns: String,
    /// Whether a row can be in the way of one with another key.
    pub(super) has_unique: bool,
    /// The table here.
    pub(super) local: TableSchema,
    by_key: KeyQuery,
    /// Where in a local row each column of a peer's row is; none where it is not here.
    wire_in_local: Vec<Option<usize>>,
    /// Whether a peer's row has the columns of one here, no more and no fewer.
    pub(super) is_alike: bool,
    /// Finds a key's row that has something else than the default in a column that has not reached the peer; none where
    /// there is no such column.
    unsent: Option<String>,
    insert_whole: String,
    insert_wire: String,
    replace_whole: String,
    replace_wire: String,
    delete: String,
}

impl Shared {
    /// What a peer's table is here.
    pub(super) fn new(target: &Target, captured: Option<TableId>) -> Self {
        let local = target.local.clone();
        let stored: Vec<&str> = local.wire_columns();
        let wire: Vec<&str> = target.read.wire_columns();
        let key: Vec<&str> = local.key_columns().into_iter().map(|(name, _)| name).collect();
        let find = |name: &str| stored.iter().position(|here| here.eq_ignore_ascii_case(name));
        let by_rowid = matches!((&target.read.key, &local.key), (KeyShape::Rowid { .. }, KeyShape::Rowid { .. }));
        // The rowid of a table without a key may go by another name at the peer; it stands first at both.
        let place = |(number, name): (usize, &&str)| if by_rowid && number == 0 { Some(0) } else { find(name) };
        let wire_in_local: Vec<Option<usize>> = wire.iter().enumerate().map(place).collect();
        let unsent = stored.iter().enumerate().filter(|(place, name)| {
            !wire_in_local.contains(&Some(*place)) && !target.left.iter().any(|left| left.eq_ignore_ascii_case(name))
        });
        let unique = |index: &crate::model::Index| index.unique && index.origin != IndexOrigin::PrimaryKey;
        let insert = |or: &str, columns: &[&str]| {
            let names: Vec<String> = columns.iter().map(|name| ident(name)).collect();
            let params: Vec<String> = (1..=columns.len()).map(|param| format!("?{param}")).collect();
            let (table, names) = (ident(&local.name), names.join(", "));
            format!("INSERT OR {or} INTO main.{table} ({names}) VALUES ({})", params.join(", "))
        };
        let here: Vec<&str> = wire_in_local.iter().flatten().map(|place| stored[*place]).collect();
        Self {
            name: local.name.clone(),
            captured,
            collations: local.key_collations(),
            columns: serde_json::json!(stored).to_string(),
            wire_columns: serde_json::json!(wire).to_string(),
            key_columns: serde_json::json!(key).to_string(),
            has_unique: local.indexes.iter().any(unique),
            by_key: KeyQuery::new(&local),
            insert_whole: insert("ABORT", &stored),
            insert_wire: insert("ABORT", &here),
            replace_whole: insert("REPLACE", &stored),
            replace_wire: insert("REPLACE", &here),
            delete: target.delete.clone(),
            is_alike: here.len() == wire.len() && here.len() == stored.len(),
            unsent: unsent_sql(target, unsent.map(|(_, name)| *name)),
            wire_in_local,
            local,
        }
    }

    /// The rows that `IS` a key, whole.
    pub(super) fn rows(&self, conn: &Connection, key: &Key) -> Result<Vec<LocalRow>, Error> {
        let mut rows = Vec::new();
        self.by_key.prepare(conn)?.each(key, |row| {
            rows.push(row.values().map(value_of).collect());
            Ok::<_, Error>(())
        })?;
        Ok(rows)
    }

    /// What a peer would call the row: with the columns that it knows. Those that are not here are NULL.
    pub(super) fn as_wire(&self, row: &[Value]) -> Vec<Value> {
        self.wire_in_local.iter().map(|place| place.map_or(Value::Null, |place| row[place].clone())).collect()
    }

    /// Whether a row that was just written has more than the peer said: something in a column that has not reached it, or
    /// anything at all, where it was written here (`over_own`) and the peer had not seen that.
    pub(super) fn holds_more(&self, conn: &Connection, key: &Key, over_own: bool) -> Result<bool, Error> {
        let Some(sql) = &self.unsent else { return Ok(false) };
        if over_own {
            return Ok(!self.rows(conn, key)?.is_empty());
        }
        // A default that cannot be computed here is none that the peer is sure to have, too.
        let Ok(mut statement) = conn.prepare_cached(sql) else { return Ok(true) };
        bind(&mut statement, &key.0)?;
        Ok(statement.raw_query().next()?.is_some())
    }

    /// Whether these rows say the same as a peer's, as far as both have columns.
    pub(super) fn is_same(&self, here: &[LocalRow], wire: &[Vec<Value>]) -> bool {
        let same = |(here, wire): (&LocalRow, &Vec<Value>)| {
            let places = self.wire_in_local.iter().zip(wire);
            places.filter_map(|(place, value)| Some((&here[(*place)?], value))).all(|(a, b)| is_identical(a, b))
        };
        here.len() == wire.len() && here.iter().zip(wire).all(same)
    }

    /// Deletes every row that `IS` this key.
    pub(super) fn delete(&self, conn: &Connection, key: &Key) -> Result<u64, Error> {
        let mut statement = conn.prepare_cached(&self.delete)?;
        bind(&mut statement, &key.0)?;
        Ok(statement.raw_execute().map_err(|error| self.refused(error, key))? as u64)
    }

    /// A peer's row as it is to be written: over the row that was here, whose other columns stay.
    pub(super) fn fill(&self, wire: &[Value], before: Option<&LocalRow>) -> Filled {
        let known = wire.iter().zip(&self.wire_in_local).filter_map(|(value, place)| Some(((*place)?, value)));
        let base = if self.is_alike { Some(wire) } else { before.map(Vec::as_slice) };
        let Some(base) = base else {
            // Columns that only this end has take their defaults.
            return Filled { row: known.map(|(_, value)| value.clone()).collect(), whole: false };
        };
        let mut row = base.to_vec();
        for (place, value) in known {
            row[place] = value.clone();
        }
        Filled { row, whole: true }
    }

    /// Inserts a row. Says `false` where another row holds one of its unique values.
    pub(super) fn insert(&self, conn: &Connection, filled: &Filled, key: &Key) -> Result<bool, Error> {
        let sql = if filled.whole { &self.insert_whole } else { &self.insert_wire };
        match self.run(conn, sql, &filled.row) {
            Ok(()) => Ok(true),
            Err(error) if is_unique_conflict(&error) && !conn.is_autocommit() => Ok(false),
            Err(error) => Err(self.refused(error, key)),
        }
    }

    /// Inserts a row in place of every row that holds one of its unique values.
    pub(super) fn replace(&self, conn: &Connection, filled: &Filled, key: &Key) -> Result<(), Error> {
        let sql = if filled.whole { &self.replace_whole } else { &self.replace_wire };
        self.run(conn, sql, &filled.row).map_err(|error| self.refused(error, key))
    }

    fn run(&self, conn: &Connection, sql: &str, row: &[Value]) -> rusqlite::Result<()> {
        let mut statement = conn.prepare_cached(sql)?;
        bind(&mut statement, row)?;
        statement.raw_execute().map(drop)
    }

    fn refused(&self, source: rusqlite::Error, key: &Key) -> Error {
        if sqlite::is_refusal(&source) {
            return Error::Row { table: self.name.clone(), key: shown(key), source };
        }
        source.into()
    }
}

fn unsent_sql<'a>(target: &Target, unsent: impl Iterator<Item = &'a str>) -> Option<String> {
    let differs = |name: &str| {
        let default = target.local.column(name).and_then(|column| column.default.as_deref()).unwrap_or("NULL");
        format!("{} IS NOT ({default}) COLLATE BINARY", ident(name))
    };
    let differs: Vec<String> = unsent.map(differs).collect();
    let (table, key, any) = (ident(&target.name), &target.by_key, differs.join(" OR "));
    (!differs.is_empty()).then(|| format!("SELECT 1 FROM main.{table} WHERE {key} AND ({any})"))
}

/// A row that is ready to be inserted.
pub(super) struct Filled {
    row: Vec<Value>,
    /// Whether it has every stored column, or only those that the peer knows.
    whole: bool,
}

fn bind(statement: &mut CachedStatement<'_>, values: &[Value]) -> rusqlite::Result<()> {
    for (place, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(place + 1, Bind(value))?;
    }
    Ok(())
}

/// Identity of storage class and bits.
fn is_identical(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

fn is_unique_conflict(error: &rusqlite::Error) -> bool {
    let unique = [
        rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE,
        rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
        rusqlite::ffi::SQLITE_CONSTRAINT_ROWID,
    ];
    matches!(error, rusqlite::Error::SqliteFailure(error, _)
        if error.code == ErrorCode::ConstraintViolation && unique.contains(&error.extended_code))
}
