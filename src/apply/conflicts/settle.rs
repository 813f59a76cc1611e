//! Makes a loser win after all, or forgets it.

use rusqlite::{Connection, Transaction, TransactionBehavior, ffi};

use super::Error;
use super::key_sql::{is_key, key_columns};
use super::read::{self, Loser, Record};
use crate::model::{Key, KeyShape, TableSchema, Value};
use crate::sqlite::{self, Bind, catalog, ident, store, value_of};

/// Rows in the way that are named at most.
const TAKEN_BY_MAX: usize = 5;

/// Writes what lost, as an application would, and removes the record; says what was done. `conn` is open as
/// [`sqlite::Role::Application`].
///
/// A row is updated where its key is there, and inserted otherwise; columns that it does not have keep their values, or
/// get their defaults. Of a key with NULL, which may name several rows, it is inserted. A deletion deletes. No other row
/// gives way, whatever conflict clause the table declares.
///
/// # Errors
/// Why it cannot win. Nothing is changed then.
pub fn apply(conn: &mut Connection, id: i64) -> Result<String, Error> {
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let record = read::get(&transaction, id)?;
    let (table, key) = (&record.summary.table, record.summary.key.shown());
    let schema = match &record.loser {
        Loser::Nothing(_) => return Err(Error::NothingLost { id, table: table.clone(), key }),
        Loser::Row(_) | Loser::Deletion(_) => catalog::table(&transaction, table)?,
    };
    let schema = schema.ok_or_else(|| Error::TableGone { id, table: table.clone() })?;
    let head = log_head(&transaction)?;
    let here = Here { conn: &transaction, record: &record, schema: &schema };
    let changed = match &record.loser {
        Loser::Row(row) => here.write(row)?,
        Loser::Deletion(key) => here.delete(key)?,
        Loser::Nothing(_) => 0,
    };
    sqlite::still_in_transaction(&transaction)?;
    if changed > 0 && !is_logged(&transaction, &schema.name, head)? {
        return Err(Error::NotCaptured { id, table: table.clone() });
    }
    forget(&transaction, id)?;
    transaction.commit()?;
    Ok(match (&record.loser, changed) {
        (Loser::Row(_), _) => format!("conflict {id}: table \"{table}\", key {key} is the row that had lost"),
        (_, 0) => format!("conflict {id}: table \"{table}\", key {key} is gone already"),
        (_, _) => format!("conflict {id}: table \"{table}\", key {key} is deleted"),
    })
}

/// Forgets some.
///
/// # Errors
/// [`Error::Unknown`], or SQLite's; all of them stay then.
pub fn drop_some(conn: &mut Connection, ids: &[i64]) -> Result<u64, Error> {
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let mut dropped = 0;
    for (place, id) in ids.iter().enumerate() {
        if !ids[..place].contains(id) {
            forget(&transaction, *id)?;
            dropped += 1;
        }
    }
    transaction.commit()?;
    Ok(dropped)
}

/// Forgets all of them; says how many.
///
/// # Errors
/// SQLite's.
pub fn drop_all(conn: &mut Connection) -> Result<u64, Error> {
    if !store::table_exists(conn, "__cdc_conflicts")? {
        return Ok(0);
    }
    Ok(conn.execute("DELETE FROM main.__cdc_conflicts", [])? as u64)
}

fn forget(conn: &Connection, id: i64) -> Result<(), Error> {
    let known = store::table_exists(conn, "__cdc_conflicts")?
        && conn.prepare_cached("DELETE FROM main.__cdc_conflicts WHERE id = ?1")?.execute([id])? > 0;
    if known { Ok(()) } else { Err(Error::Unknown { id }) }
}

/// The log's end; -1 where nothing is captured.
fn log_head(conn: &Connection) -> Result<i64, Error> {
    if store::epoch(conn)?.is_none() {
        return Ok(-1);
    }
    Ok(store::log_end(conn)?)
}

/// Whether the log has an entry of the table beyond `head`. One of another table, which a trigger of the user's may write,
/// says nothing of it.
fn is_logged(conn: &Connection, table: &str, head: i64) -> Result<bool, Error> {
    if head < 0 {
        return Ok(false);
    }
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM main.{} WHERE seq > ?1 AND tbl IN
           (SELECT id FROM main.__cdc_tables WHERE name = ?2 COLLATE NOCASE AND NOT dropped))",
        store::log_table(conn)?
    );
    Ok(conn.query_row(&sql, (head, table), |row| row.get(0))?)
}

/// A loser, and the table that it is to be written into.
struct Here<'a> {
    conn: &'a Connection,
    record: &'a Record,
    schema: &'a TableSchema,
}

impl Here<'_> {
    /// Updates the row or inserts it. Says how many rows that changed.
    fn write(&self, row: &[(String, Value)]) -> Result<usize, Error> {
        let columns = self.columns(row)?;
        self.check_key_of(row)?;
        let values: Vec<&Value> = row.iter().map(|(_, value)| value).collect();
        let is_there = !self.record.summary.key.has_null() && self.rows_there()? > 0;
        let sql = |or: &str| if is_there { self.update(or, &columns) } else { self.insert(or, &columns) };
        let key = self.record.summary.key.0.iter().filter(|_| is_there);
        let binds: Vec<&Value> = values.into_iter().chain(key).collect();
        match run(self.conn, &sql(self.or()), &binds) {
            Ok(0) => Err(self.ignored()),
            Ok(changed) => Ok(changed),
            Err(error) if is_unique_conflict(&error) && !self.conn.is_autocommit() => {
                let by = self.displaced_by(&sql(" OR REPLACE"), &binds)?;
                Err(self.taken(by, error))
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Deletes what the key names, whose columns were called `names`. Says how many rows that were.
    fn delete(&self, names: &[String]) -> Result<usize, Error> {
        let now = self.schema.key_columns();
        let is_same = |(place, (now, _)): (usize, &(&str, _))| {
            now.eq_ignore_ascii_case(&names[place]) || self.is_rowid(place, &names[place])
        };
        let is_as_long = [names.len(), self.record.summary.key.0.len()] == [now.len(); 2];
        if !is_as_long || !now.iter().enumerate().all(is_same) {
            return Err(self.key_changed());
        }
        let there = self.rows_there()?;
        let sql = format!("DELETE FROM main.{} WHERE {}", ident(&self.schema.name), is_key(self.schema, "", 0));
        let deleted = run(self.conn, &sql, &self.key()).map_err(|error| self.refused(error))?;
        if (deleted as u64) < there { Err(self.ignored()) } else { Ok(deleted) }
    }

    /// How many rows the key names.
    fn rows_there(&self) -> Result<u64, Error> {
        let sql =
            format!("SELECT count(*) FROM main.{} WHERE {}", ident(&self.schema.name), is_key(self.schema, "", 0));
        let mut statement = self.conn.prepare(&sql)?;
        bind(&mut statement, &self.key())?;
        let mut rows = statement.raw_query();
        let count: i64 = rows.next()?.map_or(Ok(0), |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Refuses a row that the table, as it is now, identifies by another key than the one that lost: that would name
    /// somebody else's row.
    fn check_key_of(&self, row: &[(String, Value)]) -> Result<(), Error> {
        let collations = self.schema.key_collations();
        let value = |(now, _): (&str, _)| {
            let is_it = |(place, (name, _)): &(usize, &(String, Value))| {
                name.eq_ignore_ascii_case(now) || self.is_rowid(*place, name)
            };
            row.iter().enumerate().find(is_it).map(|(_, (_, value))| value.clone())
        };
        let now: Option<Vec<Value>> = self.schema.key_columns().into_iter().map(value).collect();
        let lost = &self.record.summary.key;
        match now.map(Key) {
            Some(now) if now.0.len() == lost.0.len() && now.normal(&collations) == lost.normal(&collations) => Ok(()),
            Some(_) | None => Err(self.key_changed()),
        }
    }

    /// Whether a column of the record's is the rowid of a table without a key: it stands first, and may have gone by
    /// another name where the row came from.
    fn is_rowid(&self, place: usize, name: &str) -> bool {
        let is_named = catalog::ROWID_NAMES.iter().any(|rowid| rowid.eq_ignore_ascii_case(name));
        let without_key = matches!(self.schema.key, KeyShape::Rowid { .. });
        place == 0 && without_key && is_named && self.schema.column(name).is_none()
    }

    /// What goes before INTO, so that no other row gives way and nothing is skipped. It counts for the statements of
    /// triggers too, so it is left out where the table declares nothing else.
    fn or(&self) -> &'static str {
        if self.schema.ddl.to_ascii_lowercase().contains("conflict") { " OR ABORT" } else { "" }
    }

    fn key(&self) -> Vec<&Value> {
        self.record.summary.key.0.iter().collect()
    }

    /// The columns as SQL, each of which must be here still.
    fn columns(&self, row: &[(String, Value)]) -> Result<Vec<String>, Error> {
        let here = self.schema.wire_columns();
        let is_here = |name: &str| here.iter().any(|column| column.eq_ignore_ascii_case(name));
        let mut columns = Vec::with_capacity(row.len());
        let mut gone = Vec::new();
        for (place, (name, _)) in row.iter().enumerate() {
            match &self.schema.key {
                KeyShape::Rowid { name: rowid } if self.is_rowid(place, name) => columns.push((*rowid).to_owned()),
                _ if is_here(name) => columns.push(ident(name)),
                _ => gone.push(format!("\"{name}\"")),
            }
        }
        if gone.is_empty() {
            return Ok(columns);
        }
        let (id, table) = (self.record.summary.id, self.schema.name.clone());
        Err(Error::ColumnGone { id, table, columns: gone.join(", ") })
    }

    fn insert(&self, or: &str, columns: &[String]) -> String {
        let params: Vec<String> = (1..=columns.len()).map(|param| format!("?{param}")).collect();
        let (table, names) = (ident(&self.schema.name), columns.join(", "));
        format!("INSERT{or} INTO main.{table} ({names}) VALUES ({})", params.join(", "))
    }

    fn update(&self, or: &str, columns: &[String]) -> String {
        let set = columns.iter().enumerate().map(|(place, name)| format!("{name} = ?{}", place + 1));
        let (table, set) = (ident(&self.schema.name), set.collect::<Vec<_>>().join(", "));
        format!("UPDATE{or} main.{table} SET {set} WHERE {}", is_key(self.schema, "", columns.len()))
    }

    /// The keys of the rows that would have to go. SQLite says so itself, whatever kind of index it is: the row is put in
    /// their place, a trigger notes whose rows went, and all of it is taken back. None where it cannot be tried.
    fn displaced_by(&self, sql: &str, binds: &[&Value]) -> Result<Vec<Key>, Error> {
        let names = key_columns(self.schema, "OLD.");
        let columns: Vec<String> = (0..names.len()).map(|place| format!("k{place}")).collect();
        let (columns, old, table) = (columns.join(", "), names.join(", "), ident(&self.schema.name));
        self.conn.execute_batch(&format!(
            "SAVEPOINT __cdc_looking; PRAGMA recursive_triggers = ON;
             CREATE TEMP TABLE __cdc_taken({columns});
             CREATE TEMP TRIGGER __cdc_taken_by AFTER DELETE ON main.{table}
             BEGIN INSERT INTO __cdc_taken VALUES ({old}); END"
        ))?;
        let keys = run(self.conn, sql, binds).and_then(|_| {
            let mut statement = self.conn.prepare(&format!("SELECT * FROM temp.__cdc_taken LIMIT {TAKEN_BY_MAX}"))?;
            let columns = statement.column_count();
            let read = |row: &rusqlite::Row<'_>| {
                (0..columns).map(|place| Ok(value_of(row.get_ref(place)?))).collect::<rusqlite::Result<Vec<_>>>()
            };
            statement.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()
        });
        // A trigger of the user's may have ended the transaction, or refuse what is tried here.
        sqlite::still_in_transaction(self.conn)?;
        self.conn.execute_batch("PRAGMA recursive_triggers = OFF; ROLLBACK TO __cdc_looking; RELEASE __cdc_looking")?;
        Ok(keys.unwrap_or_default().into_iter().map(Key).collect())
    }

    fn taken(&self, by: Vec<Key>, error: rusqlite::Error) -> Error {
        if by.is_empty() {
            return self.refused(error);
        }
        let by: Vec<String> = by.iter().map(Key::shown).collect();
        let (id, table, key) = (self.record.summary.id, self.schema.name.clone(), self.record.summary.key.shown());
        Error::Taken { id, table, key, by: by.join(", ") }
    }

    fn key_changed(&self) -> Error {
        Error::KeyChanged { id: self.record.summary.id, table: self.schema.name.clone() }
    }

    fn ignored(&self) -> Error {
        let (id, table) = (self.record.summary.id, self.schema.name.clone());
        Error::Ignored { id, table, key: self.record.summary.key.shown() }
    }

    fn refused(&self, source: rusqlite::Error) -> Error {
        if sqlite::is_refusal(&source) {
            let (id, table) = (self.record.summary.id, self.schema.name.clone());
            return Error::Refused { id, table, key: self.record.summary.key.shown(), source };
        }
        source.into()
    }
}

fn run(conn: &Connection, sql: &str, binds: &[&Value]) -> rusqlite::Result<usize> {
    let mut statement = conn.prepare(sql)?;
    bind(&mut statement, binds)?;
    statement.raw_execute()
}

fn bind(statement: &mut rusqlite::Statement<'_>, values: &[&Value]) -> rusqlite::Result<()> {
    for (place, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(place + 1, Bind(value))?;
    }
    Ok(())
}

fn is_unique_conflict(error: &rusqlite::Error) -> bool {
    let unique = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY, ffi::SQLITE_CONSTRAINT_ROWID];
    error.sqlite_extended_error_code().is_some_and(|code| unique.contains(&code))
}

#[cfg(test)]
mod tests;
