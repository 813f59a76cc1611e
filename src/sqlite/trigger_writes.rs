//! What triggers write: asked of SQLite itself, which compiles a trigger's body with each statement that fires it and
//! names every table that it would write.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::catalog::{self, OURS};
use super::{Error, ident};
use crate::model::Selection;

/// That a trigger writes into a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TriggerWrite {
    /// The trigger.
    pub trigger: String,
    /// The table that it writes.
    pub writes: String,
}

/// What the triggers that writes into these tables fire would write, in turn too; ours left out. `connection` has
/// triggers on. Nothing is run.
///
/// A table whose statements do not compile is left out: with them, no trigger of it fires either.
///
/// # Errors
/// SQLite's, where the catalog cannot be read.
pub fn trigger_writes(connection: &mut Connection, tables: &[String]) -> Result<BTreeSet<TriggerWrite>, Error> {
    let found = Arc::new(Mutex::new(BTreeSet::new()));
    let mut statements = Vec::new();
    for table in tables {
        let Some(schema) = catalog::table(connection, table)? else { continue };
        let name = ident(&schema.name);
        let written = schema.columns.iter().filter(|column| column.generated == crate::model::Generated::No);
        let set: Vec<String> = written.map(|column| format!("{0} = {0}", ident(&column.name))).collect();
        statements.push(format!("INSERT INTO main.{name} DEFAULT VALUES"));
        statements.push(format!("UPDATE main.{name} SET {}", set.join(", ")));
        statements.push(format!("DELETE FROM main.{name}"));
    }
    let noted = Arc::clone(&found);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        note(&context, &mut noted.lock().unwrap_or_else(PoisonError::into_inner));
        Authorization::Allow
    }))?;
    for sql in &statements {
        if let Err(error) = connection.prepare(sql) {
            tracing::debug!(%error, "a statement that would fire triggers does not compile");
        }
    }
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    let found = found.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(found.clone())
}

/// A trigger that fires on rows of these tables and writes what is captured, if there is one.
///
/// # Errors
/// As [`trigger_writes`].
pub fn forbidden(
    connection: &mut Connection,
    travel: &Selection,
    is_captured: &dyn Fn(&str) -> bool,
) -> Result<Option<TriggerWrite>, Error> {
    let tables = catalog::table_list(connection)?.into_iter().map(|table| table.name);
    let tables: Vec<String> = tables.filter(|table| travel.has(table)).collect();
    Ok(trigger_writes(connection, &tables)?.into_iter().find(|found| is_captured(&found.writes)))
}

fn note(context: &AuthContext<'_>, found: &mut BTreeSet<TriggerWrite>) {
    let (Some(trigger), Some("main") | None) = (context.accessor, context.database_name) else { return };
    let (AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. } | AuthAction::Delete { table_name }) =
        context.action
    else {
        return;
    };
    let ours = trigger.get(..OURS.len()).is_some_and(|head| head.eq_ignore_ascii_case(OURS));
    if !ours {
        found.insert(TriggerWrite { trigger: trigger.to_owned(), writes: table_name.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Role, in_memory_as};
    use super::*;

    #[test]
    fn every_table_that_a_trigger_writes_is_named_in_turn_too() {
        let mut conn = in_memory_as(Role::Application).expect("memory");
        conn.execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w AS (v + 1)); CREATE TABLE audit(x); CREATE TABLE total(n);
             CREATE TABLE seen(y); CREATE TABLE quiet(z); CREATE VIEW shown AS SELECT * FROM seen;
             CREATE TRIGGER one AFTER UPDATE OF v ON t BEGIN INSERT INTO audit VALUES (NEW.id); END;
             CREATE TRIGGER two AFTER INSERT ON audit BEGIN UPDATE total SET n = n + 1; END;
             CREATE TRIGGER three BEFORE DELETE ON t BEGIN INSERT INTO shown VALUES (1); END;
             CREATE TRIGGER four INSTEAD OF INSERT ON shown BEGIN INSERT INTO seen VALUES (NEW.y); END;
             CREATE TRIGGER five AFTER INSERT ON t BEGIN SELECT RAISE(ABORT, 'no') WHERE NEW.v > 9; END;
             CREATE TRIGGER __cdc_1_ai AFTER INSERT ON t BEGIN INSERT INTO quiet VALUES (1); END",
        )
        .expect("ddl");
        let found = trigger_writes(&mut conn, &["t".to_owned(), "nosuch".to_owned()]).expect("found");
        let found: Vec<(&str, &str)> =
            found.iter().map(|found| (found.trigger.as_str(), found.writes.as_str())).collect();
        for wanted in [("one", "audit"), ("two", "total"), ("four", "seen")] {
            assert!(found.contains(&wanted), "{wanted:?} in {found:?}");
        }
        assert!(found.iter().all(|(trigger, _)| !["five", "__cdc_1_ai"].contains(trigger)), "{found:?}");
        conn.execute_batch("INSERT INTO t VALUES (1, 1)").expect("nothing is forbidden afterwards");
    }
}
