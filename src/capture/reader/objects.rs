//! The user's views and triggers, and what each needs, so that a link which carries some of the tables carries only what
//! can stand on them.
//!
//! What a view reads, SQLite tells when it compiles the view. What a trigger's body names is found by its words, for
//! triggers are off on our connections and not compiled; a word that is also the name of a table which the link does
//! not carry keeps the trigger back, rather than let it break the other side's writes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::model::{ObjectKind, SchemaObject};
use crate::sqlite::authorizer::names_ours;
use crate::sqlite::{catalog, ident, lexer};

/// A view or a trigger that can travel.
pub(super) struct Object {
    pub object: SchemaObject,
    /// What it needs to be there, in lower case.
    pub needs: BTreeSet<String>,
    /// Whether it uses a name that could be one of ours: no replica would take it.
    pub names_ours: bool,
}

/// The views, then the triggers, each in the order in which they were made; and every table's and view's name in lower
/// case. A view that does not compile here would not there either, and is left out.
pub(super) fn read(connection: &mut Connection) -> rusqlite::Result<(Vec<Object>, Vec<String>)> {
    let names = names(connection)?;
    let mut objects = Vec::new();
    for object in user_objects(connection)? {
        let needs = match object.kind {
            ObjectKind::View => read_by_view(connection, &object.name)?,
            ObjectKind::Trigger | ObjectKind::Index => Some(named_in(&object.sql, &names)),
        };
        let names_ours = names_ours(&object.sql).is_some();
        objects.extend(needs.map(|needs| Object { object, needs, names_ours }));
    }
    Ok((objects, names))
}

fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection
        .prepare("SELECT lower(name) FROM main.sqlite_schema WHERE type IN ('table', 'view') ORDER BY rowid")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn user_objects(connection: &Connection) -> rusqlite::Result<Vec<SchemaObject>> {
    let mut statement = connection.prepare(
        "SELECT type, name, tbl_name, sql FROM main.sqlite_schema
         WHERE type IN ('view', 'trigger') AND sql IS NOT NULL AND lower(substr(name, 1, 6)) <> ?1
         ORDER BY type = 'trigger', rowid",
    )?;
    let rows = statement.query_map([catalog::OURS], |row| {
        let view = row.get::<_, String>(0)? == "view";
        let kind = if view { ObjectKind::View } else { ObjectKind::Trigger };
        Ok(SchemaObject { kind, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    rows.collect()
}

/// Every table that a view reads, in the end; `None` where it does not compile.
fn read_by_view(connection: &mut Connection, view: &str) -> rusqlite::Result<Option<BTreeSet<String>>> {
    let read = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&read);
    let note = move |context: AuthContext<'_>| {
        if let AuthAction::Read { table_name, .. } = context.action {
            noted.lock().unwrap_or_else(PoisonError::into_inner).insert(table_name.to_ascii_lowercase());
        }
        Authorization::Allow
    };
    connection.authorizer(Some(note))?;
    let compiled = connection.prepare(&format!("SELECT * FROM main.{}", ident(view))).is_ok();
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    let read = std::mem::take(&mut *read.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(compiled.then_some(read))
}

fn named_in(sql: &str, names: &[String]) -> BTreeSet<String> {
    let tokens = lexer::tokens(sql).into_iter().filter(|token| token.kind != lexer::TokenKind::String);
    let found = tokens.filter_map(|token| token.name()).map(|name| name.to_ascii_lowercase());
    found.filter(|name| names.contains(name)).collect()
}
