//! Replaces the capture of sqlite-cdc in a database by none, so that ours can be installed.

use rusqlite::{Connection, TransactionBehavior};

use super::{Error, change_log};
use crate::sqlite::ident;

/// What the names of sqlite-cdc's triggers have in them: `<table>__cdc_insert`.
const THEIRS: &str = "__cdc_";

/// Drops the change log of sqlite-cdc and the triggers that write to it. Says what it did; nothing where there is none.
///
/// What the log holds is drained by dropping it: whoever is fed by ours begins with a copy of the tables, which holds all
/// that its entries say.
///
/// # Errors
/// [`Error::ForeignLogInUse`]; then nothing was changed. SQLite's.
pub fn take_over(connection: &mut Connection) -> Result<Vec<String>, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(log) = change_log::foreign(&transaction)? else { return Ok(Vec::new()) };
    let entries: i64 =
        transaction.query_row(&format!("SELECT count(*) FROM main.{}", ident(&log)), [], |row| row.get(0))?;
    let mut did = vec![format!("drained {entries} entries of sqlite-cdc; the first copy holds all that they say")];
    let users = {
        let mut statement = transaction.prepare(
            "SELECT type, name FROM main.sqlite_schema
             WHERE type IN ('trigger', 'view') AND instr(lower(sql), lower(?1)) > 0 ORDER BY name",
        )?;
        let rows = statement.query_map([&log], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()?
    };
    for (kind, name) in users {
        if kind != "trigger" || !name.to_ascii_lowercase().contains(THEIRS) {
            return Err(Error::ForeignLogInUse { table: log, user: format!("{kind} {name:?}") });
        }
        transaction.execute_batch(&format!("DROP TRIGGER main.{}", ident(&name)))?;
        did.push(format!("removed trigger {name} of sqlite-cdc"));
    }
    transaction.execute_batch(&format!("DROP TABLE main.{}", ident(&log)))?;
    did.push(format!("removed table {log} of sqlite-cdc"));
    transaction.commit()?;
    Ok(did)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::in_memory;

    const THEIR_LOG: &str = "CREATE TABLE a(x);
        CREATE TABLE __cdc_log(id INTEGER PRIMARY KEY, timestamp, tablename, operation, before, after);
        CREATE TRIGGER a__cdc_insert AFTER INSERT ON a BEGIN
            INSERT INTO __cdc_log(tablename, operation) VALUES ('a', 'CREATE'); END;
        INSERT INTO a VALUES (1);";

    #[test]
    fn the_log_of_sqlite_cdc_goes_with_its_triggers() {
        let mut connection = in_memory().expect("memory");
        connection.execute_batch(THEIR_LOG).expect("schema");
        connection
            .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)
            .expect("as an application has it");
        assert_eq!(take_over(&mut connection).expect("taken over").len(), 3);
        connection.execute_batch("INSERT INTO a VALUES (2)").expect("no trigger is left behind");
        assert_eq!(take_over(&mut connection).expect("nothing is there"), Vec::<String>::new());
    }

    #[test]
    fn a_log_that_something_else_uses_is_left_alone() {
        let mut connection = in_memory().expect("memory");
        connection.execute_batch(THEIR_LOG).expect("schema");
        connection.execute_batch("CREATE VIEW recent AS SELECT * FROM __cdc_log").expect("view");
        let error = take_over(&mut connection).expect_err("in use").to_string();
        assert!(error.contains("recent"), "{error}");
        let left: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("count");
        assert_eq!(left, 4);
    }
}
