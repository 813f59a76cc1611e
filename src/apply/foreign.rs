//! Rows that break a foreign key after a merge: found, recorded, and forgotten when they are repaired. Nothing is changed
//! for them: which of two people was right about the row that is gone, no rule can say.
//!
//! A window only notes the tables that it touched, in its own transaction ([`mark_due`]), so that a crash forgets
//! nothing. Looking is another connection's business ([`ForeignKeys`]), on a thread of its own: a table with millions of
//! rows takes seconds, during which nothing waits for it. It reads every row of each table that refers to one that was
//! touched, for only SQLite's own index on the parent makes that cheap; the index on the child that a search by the
//! parent would need is often missing.
//!
//! A row that is recorded is looked at again, by its key alone, at each look, whoever repaired it.
//!
//! Not promised: that only what a merge broke is found. A row of a touched table that an application broke, with its
//! foreign keys off, is reported too.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::Error;
use super::conflicts::FOREIGN_KEY;
use super::conflicts::key_sql::{is_key, key_columns};
use crate::model::{Key, TableSchema};
use crate::sqlite::store::{self, meta_key};
use crate::sqlite::{self, Bind, Role, catalog, ident, value_of};

/// Rows that are recorded of one foreign key at most: a person has seen enough, and a table may be broken as a whole.
const BROKEN_MAX: usize = 1_000;

/// What reading one table may take: the WAL cannot begin anew meanwhile.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Steps of SQLite's machine between two looks at the time.
const STEPS: i32 = 100_000;

/// A row that breaks a foreign key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broken {
    /// Its table.
    pub table: String,
    /// Its key, as text.
    pub key: String,
    /// The table that it refers to.
    pub refers_to: String,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Everything that is recorded now.
    pub broken: Vec<Broken>,
    /// How many of those are new.
    pub appeared: u64,
    /// How many were repaired, so that their records are gone.
    pub repaired: u64,
    /// Tables that take longer to read than they may.
    pub too_large: Vec<String>,
    /// Tables all of whose foreign keys were looked at.
    pub whole: Vec<String>,
}

/// Notes that a window touched tables (in lower case), inside the caller's transaction.
///
/// # Errors
/// SQLite's.
pub(super) fn mark_due(conn: &Connection, touched: BTreeSet<String>) -> rusqlite::Result<()> {
    if touched.is_empty() {
        return Ok(());
    }
    let due = due(conn)?;
    if touched.is_subset(&due) {
        return Ok(());
    }
    let all: BTreeSet<String> = due.into_iter().chain(touched).collect();
    store::set_meta(conn, meta_key::FOREIGN_KEYS_DUE, serde_json::json!(all).to_string())
}

fn due(conn: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let due: Option<String> = store::meta(conn, meta_key::FOREIGN_KEYS_DUE)?;
    Ok(due.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default())
}

/// The tables that refer to others or are referred to, in lower case.
///
/// # Errors
/// SQLite's.
pub(super) fn related(conn: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let sql = "SELECT lower(m.name), lower(f.\"table\") FROM main.sqlite_schema m, pragma_foreign_key_list(m.name) f
               WHERE m.type = 'table'";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut all = BTreeSet::new();
    while let Some(row) = rows.next()? {
        all.extend([row.get::<_, String>(0)?, row.get(1)?]);
    }
    Ok(all)
}

/// One foreign key.
struct ForeignKey {
    child: TableSchema,
    columns: Vec<String>,
    parent: String,
    /// That a row `c` of the child refers to nothing.
    broken: String,
}

impl ForeignKey {
    fn touches(&self, due: &BTreeSet<String>) -> bool {
        [&self.child.name, &self.parent].iter().any(|name| due.contains(&name.to_lowercase()))
    }

    fn select(&self, condition: &str) -> String {
        let (keys, table) = (key_columns(&self.child, "c."), ident(&self.child.name));
        format!("SELECT {} FROM main.{table} AS c WHERE {}{condition}", keys.join(", "), self.broken)
    }
}

/// A record of ours: what it says, and its id.
struct Recorded {
    id: i64,
    table: String,
    key: Key,
    parent: String,
    columns: String,
}

impl Recorded {
    fn is(&self, of: &ForeignKey) -> bool {
        self.table == of.child.name
            && self.parent == of.parent
            && serde_json::from_str(&self.columns).is_ok_and(|columns: Vec<String>| columns == of.columns)
    }
}

/// Looks for rows that break a foreign key. Lives on a [`sqlite::Db`]'s thread.
pub struct ForeignKeys {
    conn: Connection,
    look_max: Duration,
}

impl ForeignKeys {
    /// Opens the database.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { conn: sqlite::open(path, Role::Maintainer, false)?, look_max: LOOK_MAX })
    }

    /// Looks at what windows have touched since, and at what is recorded; keeps what it finds. `None` while a copy is
    /// unfinished: rows come before those that they refer to.
    ///
    /// # Errors
    /// SQLite's.
    pub fn look(&mut self, now_ms: i64) -> Result<Option<Looked>, Error> {
        if store::any_copy_unfinished(&self.conn)? {
            return Ok(None);
        }
        let due = due(&self.conn)?;
        let recorded = recorded(&self.conn)?;
        if due.is_empty() && recorded.is_empty() {
            return Ok(Some(Looked::default()));
        }
        let keys = foreign_keys(&self.conn)?;
        let mut looked = Looked::default();
        let mut found: Vec<(&ForeignKey, Key)> = Vec::new();
        for of in keys.iter().filter(|of| of.touches(&due)) {
            match self.scan(of) {
                Ok(rows) => found.extend(rows.into_iter().map(|key| (of, key))),
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                    looked.too_large.push(of.child.name.clone());
                }
                Err(error) => {
                    let doing = format!("look at foreign keys of table \"{}\"", of.child.name);
                    return Err(sqlite::Error::doing(doing)(error).into());
                }
            }
        }
        looked.whole = whole(&keys, &due, &looked.too_large);
        let mut repaired = Vec::new();
        for record in &recorded {
            let of = keys.iter().find(|of| record.is(of));
            if !of.map_or(Ok(false), |of| self.is_broken(of, &record.key))? {
                repaired.push(record.id);
            }
        }
        found.retain(|(of, key)| !recorded.iter().any(|record| record.is(of) && record.key == *key));
        looked.appeared = found.len() as u64;
        looked.repaired = repaired.len() as u64;
        self.keep(&due, &found, (&repaired, now_ms))?;
        looked.broken = broken(&self.conn)?;
        Ok(Some(looked))
    }

    /// The keys of the rows that break it.
    fn scan(&mut self, of: &ForeignKey) -> rusqlite::Result<Vec<Key>> {
        let until = Instant::now() + self.look_max;
        self.conn.progress_handler(STEPS, Some(move || Instant::now() > until))?;
        let rows = self.read(of);
        self.conn.progress_handler(STEPS, None::<fn() -> bool>)?;
        rows
    }

    fn read(&self, of: &ForeignKey) -> rusqlite::Result<Vec<Key>> {
        let mut statement = self.conn.prepare(&of.select(&format!(" LIMIT {BROKEN_MAX}")))?;
        let columns = statement.column_count();
        let key = |row: &rusqlite::Row<'_>| {
            let values = (0..columns).map(|place| Ok(value_of(row.get_ref(place)?)));
            values.collect::<rusqlite::Result<_>>().map(Key)
        };
        statement.query_map([], key)?.collect()
    }

    fn is_broken(&self, of: &ForeignKey, key: &Key) -> rusqlite::Result<bool> {
        if key.0.len() != of.child.key_columns().len() {
            return Ok(false);
        }
        let mut statement = self.conn.prepare(&of.select(&format!(" AND {}", is_key(&of.child, "c.", 0))))?;
        for (place, value) in key.0.iter().enumerate() {
            statement.raw_bind_parameter(place + 1, Bind(value))?;
        }
        Ok(statement.raw_query().next()?.is_some())
    }

    fn keep(
        &self,
        looked_at: &BTreeSet<String>,
        found: &[(&ForeignKey, Key)],
        (repaired, now_ms): (&[i64], i64),
    ) -> Result<(), Error> {
        if looked_at.is_empty() && repaired.is_empty() {
            return Ok(());
        }
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let sql = "INSERT INTO main.__cdc_conflicts(at, peer, tbl, key, winner, policy, why, columns)
                   VALUES (?1, 0, ?2, ?3, '', ?4, ?5, ?6)";
        for (of, key) in found {
            let columns = serde_json::json!(of.columns).to_string();
            let row = (now_ms, &of.child.name, key.to_bytes(), &of.parent, FOREIGN_KEY, columns);
            transaction.prepare_cached(sql)?.execute(row)?;
        }
        for id in repaired {
            transaction.prepare_cached("DELETE FROM main.__cdc_conflicts WHERE id = ?1")?.execute([id])?;
        }
        // What a window touched meanwhile was not looked at.
        if due(&transaction)? == *looked_at {
            transaction.execute("DELETE FROM main.__cdc_meta WHERE key = ?1", [meta_key::FOREIGN_KEYS_DUE])?;
        }
        Ok(transaction.commit()?)
    }
}

/// The tables all of whose foreign keys a look at what is due has read.
fn whole(keys: &[ForeignKey], due: &BTreeSet<String>, too_large: &[String]) -> Vec<String> {
    let is_left = |name: &str| {
        too_large.iter().any(|table| table == name) || keys.iter().any(|of| of.child.name == name && !of.touches(due))
    };
    let names: BTreeSet<&String> = keys.iter().map(|of| &of.child.name).collect();
    names.into_iter().filter(|name| !is_left(name)).cloned().collect()
}

/// The rows that are recorded as breaking a foreign key; none where nothing of ours is in the database.
///
/// # Errors
/// SQLite's, or a record that is damaged.
pub fn broken(conn: &Connection) -> Result<Vec<Broken>, Error> {
    let one = |found: Recorded| Broken { table: found.table, key: found.key.shown(), refers_to: found.parent };
    Ok(recorded(conn)?.into_iter().map(one).collect())
}

fn recorded(conn: &Connection) -> Result<Vec<Recorded>, Error> {
    if !store::table_exists(conn, "__cdc_conflicts")? {
        return Ok(Vec::new());
    }
    let sql = "SELECT id, tbl, key, policy, columns FROM main.__cdc_conflicts WHERE why = ?1 ORDER BY id";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([FOREIGN_KEY])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let damaged = || sqlite::Error::Damaged { table: "__cdc_conflicts", what: "a key cannot be read".to_owned() };
        let key = Key::from_bytes(&row.get::<_, Vec<u8>>(2)?).ok_or_else(damaged)?;
        let (parent, columns) = (row.get(3)?, row.get(4)?);
        all.push(Recorded { id: row.get(0)?, table: row.get(1)?, key, parent, columns });
    }
    Ok(all)
}

/// Every foreign key of the database, but those that SQLite itself calls a mismatch.
fn foreign_keys(conn: &Connection) -> Result<Vec<ForeignKey>, Error> {
    let sql = "SELECT m.name, f.id, f.\"table\", f.\"from\", f.\"to\"
               FROM main.sqlite_schema m, pragma_foreign_key_list(m.name) f
               WHERE m.type = 'table' ORDER BY m.name, f.id, f.seq";
    type Declared = (String, i64, String, Vec<(String, Option<String>)>);
    let mut declared: Vec<Declared> = Vec::new();
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (child, id): (String, i64) = (row.get(0)?, row.get(1)?);
        let pair = (row.get(3)?, row.get(4)?);
        match declared.last_mut() {
            Some(last) if last.0 == child && last.1 == id => last.3.push(pair),
            _ => declared.push((child, id, row.get(2)?, vec![pair])),
        }
    }
    let mut all = Vec::new();
    for (child, _, parent, pairs) in declared {
        all.extend(foreign_key(conn, &child, parent, pairs)?);
    }
    Ok(all)
}

fn foreign_key(
    conn: &Connection,
    child: &str,
    parent: String,
    pairs: Vec<(String, Option<String>)>,
) -> Result<Option<ForeignKey>, Error> {
    let Some(child) = catalog::table(conn, child)?.filter(|child| !child.key_columns().is_empty()) else {
        return Ok(None);
    };
    let set: Vec<String> = pairs.iter().map(|(from, _)| format!("c.{} IS NOT NULL", ident(from))).collect();
    let set = set.join(" AND ");
    let broken = match catalog::table(conn, &parent)? {
        // Whatever refers to a table that is not there refers to nothing.
        None => set,
        Some(parent) => {
            let Some(to) = referred(&parent, &pairs) else { return Ok(None) };
            // As SQLite compares: by the affinity and the collation of the parent's column, so the child's gets none.
            let same = pairs.iter().zip(to).map(|((from, _), to)| format!("p.{} = +c.{}", ident(&to), ident(from)));
            let same = same.collect::<Vec<_>>().join(" AND ");
            format!("{set} AND NOT EXISTS (SELECT 1 FROM main.{} AS p WHERE {same})", ident(&parent.name))
        }
    };
    let columns = pairs.into_iter().map(|(from, _)| from).collect();
    Ok(Some(ForeignKey { child, columns, parent, broken }))
}

/// The columns of the parent that are referred to: those that are named, or its primary key.
fn referred(parent: &TableSchema, pairs: &[(String, Option<String>)]) -> Option<Vec<String>> {
    if let Some(named) = pairs.iter().map(|(_, to)| to.clone()).collect::<Option<Vec<_>>>() {
        return named.iter().all(|name| parent.column(name).is_some()).then_some(named);
    }
    let mut key: Vec<_> = parent.columns.iter().filter(|column| column.key_part.is_some()).collect();
    key.sort_by_key(|column| column.key_part);
    (key.len() == pairs.len()).then(|| key.into_iter().map(|column| column.name.clone()).collect())
}

#[cfg(test)]
mod tests;
