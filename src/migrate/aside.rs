//! Views and triggers that stand in the way of a table's change: set aside before it, put back after it.
//!
//! SQLite refuses DROP COLUMN, RENAME COLUMN and RENAME TABLE where any view or trigger would not compile afterwards, so
//! all of the user's go, and come back in their old order. What worked before and does not any more stays away, and is
//! named. Our own triggers stay: capture and protection make theirs anew where a table's definition moved.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::Error;
use super::error::{about, refusal};
use super::said::is_same;
use crate::model::{ObjectKind, SchemaObject};
use crate::sqlite::catalog::OURS;
use crate::sqlite::{ident, lexer};

/// What is set aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    taken: bool,
    objects: Vec<(SchemaObject, bool)>,
}

impl Aside {
    /// Sets all views and triggers of the user's aside, once.
    pub(super) fn take(&mut self, conn: &Connection) -> Result<(), Error> {
        if std::mem::replace(&mut self.taken, true) {
            return Ok(());
        }
        for object in in_order(conn)? {
            let works = why_broken(conn, &object)?.is_none();
            self.objects.push((object, works));
        }
        for (object, _) in &self.objects {
            drop_object(conn, object)?;
        }
        Ok(())
    }

    /// Whether it holds an object of that kind and name.
    pub(super) fn has(&self, wanted: &SchemaObject) -> bool {
        self.objects.iter().any(|(object, _)| is_same(object, wanted))
    }

    /// Puts back what the peer does not make anew itself; returns what could not be.
    pub(super) fn put_back(self, conn: &Connection, theirs: &[SchemaObject]) -> Result<Vec<String>, Error> {
        let mine = self.objects.into_iter().filter(|(object, _)| !theirs.iter().any(|other| is_same(object, other)));
        let (views, triggers): (Vec<_>, Vec<_>) = mine.partition(|(object, _)| object.kind == ObjectKind::View);
        let mut lost = put_back_together(conn, &views)?;
        // One that is broken breaks every other on its table, so each is judged before the next one comes.
        for trigger in triggers {
            lost.extend(put_back_together(conn, &[trigger])?);
        }
        Ok(lost)
    }
}

/// Makes objects that may name each other, then drops those that worked before and do not now.
fn put_back_together(conn: &Connection, objects: &[(SchemaObject, bool)]) -> Result<Vec<String>, Error> {
    let mut why = Vec::new();
    for (object, _) in objects {
        why.push(refusal(conn.execute_batch(&object.sql))?.map(|error| error.to_string()));
    }
    for ((object, worked), why) in objects.iter().zip(&mut why) {
        if why.is_none() && *worked {
            *why = why_broken(conn, object)?;
        }
    }
    let mut lost = Vec::new();
    for ((object, _), why) in objects.iter().zip(why) {
        let Some(why) = why else { continue };
        drop_object(conn, object)?;
        let SchemaObject { kind, name, table, .. } = object;
        lost.push(format!(
            "{} \"{name}\" on \"{table}\" could not survive a change of the source's ({why})",
            kind.sql()
        ));
    }
    Ok(lost)
}

/// Views, triggers on views, triggers on tables (which may fire those): each in the order in which they were made.
fn in_order(conn: &Connection) -> Result<Vec<SchemaObject>, Error> {
    let mut statement = conn.prepare_cached(
        "SELECT type, name, tbl_name, sql FROM main.sqlite_schema AS object
         WHERE type IN ('view', 'trigger') AND substr(name, 1, 6) <> ?1 COLLATE NOCASE
         ORDER BY type DESC, tbl_name COLLATE NOCASE IN (SELECT name FROM main.sqlite_schema WHERE type = 'table'), rowid",
    )?;
    let rows = statement.query_map([OURS], |row| {
        let is_view = row.get::<_, String>(0)? == "view";
        let kind = if is_view { ObjectKind::View } else { ObjectKind::Trigger };
        Ok(SchemaObject { kind, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Drops a view or a trigger, if it is there.
pub(super) fn drop_object(conn: &Connection, object: &SchemaObject) -> Result<(), Error> {
    let sql = format!("DROP {} IF EXISTS main.{}", object.kind.sql().to_ascii_uppercase(), ident(&object.name));
    conn.execute_batch(&sql).map_err(about(&object.name))
}

/// Why a view or a trigger does not compile; `None` where it does. An index always does.
pub(super) fn why_broken(conn: &Connection, object: &SchemaObject) -> Result<Option<String>, Error> {
    let mut sql = Vec::new();
    match object.kind {
        ObjectKind::Index => {}
        ObjectKind::View => sql.push(format!("SELECT * FROM main.{}", ident(&object.name))),
        ObjectKind::Trigger => match firing(conn, object) {
            Ok(firing) => sql.extend(firing),
            Err(broken) => return Ok(Some(broken.to_string())),
        },
    }
    let before = conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
    let why = sql.iter().find_map(|sql| conn.prepare(sql).err()).map(|error| error.to_string());
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, before)?;
    Ok(why)
}

/// The statement that fires a trigger; none where its table is not there.
///
/// # Errors
/// SQLite's, where it is on a view that does not compile.
pub(super) fn firing(conn: &Connection, trigger: &SchemaObject) -> rusqlite::Result<Option<String>> {
    let mut statement = conn.prepare(&format!("PRAGMA main.table_xinfo({})", ident(&trigger.table)))?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>("name")?, row.get::<_, i64>("hidden")?));
    let columns = statement.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let written: Vec<String> =
        columns.into_iter().filter(|(_, hidden)| *hidden == 0).map(|(name, _)| ident(&name)).collect();
    if written.is_empty() {
        return Ok(None);
    }
    let table = ident(&trigger.table);
    let tokens = lexer::tokens(&trigger.sql);
    let event = tokens.iter().skip(3).find(|token| ["INSERT", "UPDATE", "DELETE"].iter().any(|word| token.is(word)));
    let sql = match event.map(|token| token.text.to_ascii_uppercase()).as_deref() {
        Some("INSERT") => {
            let nulls = vec!["NULL"; written.len()].join(", ");
            format!("INSERT INTO main.{table}({}) VALUES ({nulls})", written.join(", "))
        }
        Some("DELETE") => format!("DELETE FROM main.{table}"),
        _ => {
            let sets: Vec<String> = written.iter().map(|column| format!("{column} = {column}")).collect();
            format!("UPDATE main.{table} SET {}", sets.join(", "))
        }
    };
    Ok(Some(sql))
}
