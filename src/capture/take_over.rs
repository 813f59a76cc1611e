//! Replaces the capture of sqlite-cdc in a database by ours, in one transaction: no change falls between the two.
//!
//! Where our log has images, what theirs holds is for event consumers: it is set aside in [`TAKEN_OVER`], from which the
//! first event consumer hands it over before it reads our log ([`read_taken`], [`forget_taken`]). Where ours has keys alone,
//! whoever is fed by it begins with a copy of the tables, which holds all that theirs says.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::decide::{Witness, decide};
use super::install::{check, put_in_place, switch_to_wal};
use super::situation::Situation;
use super::{CaptureOptions, Error, Images, Installed, change_log, install};
use crate::model::Clock;
use crate::sqlite::{ident, store};

/// What the names of sqlite-cdc's triggers have in them: `<table>__cdc_insert`.
const THEIRS: &str = "__cdc_";

/// Where entries of sqlite-cdc wait for an event consumer.
pub const TAKEN_OVER: &str = "__cdc_taken_over";

/// An entry of sqlite-cdc's log, as that one wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenEntry {
    /// Its number there.
    pub id: i64,
    /// Its time, in ms since 1970; 0 where that is none.
    pub ts_ms: i64,
    /// The table's name.
    pub table: String,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub operation: String,
    /// The row before, as JSON.
    pub before: Option<String>,
    /// The row after, as JSON.
    pub after: Option<String>,
}

/// Installs our capture in place of that of sqlite-cdc: drops its triggers and its log. Says what it did with them; nothing
/// where there are none. Then it is [`super::install()`].
///
/// # Errors
/// [`Error::ForeignLogInUse`], and those of [`super::install()`]; then nothing was changed.
pub fn take_over(
    connection: &mut Connection,
    options: &CaptureOptions,
    clock: &dyn Clock,
) -> Result<(Vec<String>, Installed), Error> {
    options.check()?;
    if change_log::foreign(connection)?.is_none() {
        return Ok((Vec::new(), install::install(connection, options, clock)?));
    }
    let mut did = Vec::new();
    if switch_to_wal(connection)? {
        did.push("switched the database to WAL mode".to_owned());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    did.extend(remove(&transaction, options.effective_images(&transaction)? == Images::Full)?);
    check(&transaction, options)?;
    let situation = Situation::read(&transaction, options)?;
    let decision = decide(&situation, &Witness::default());
    let installed = put_in_place(&transaction, options, (&situation, decision), clock)?;
    transaction.commit()?;
    Ok((did, installed))
}

/// Drops the triggers and the log of sqlite-cdc. `keep`: what the log holds is set aside.
fn remove(transaction: &Transaction<'_>, keep: bool) -> Result<Vec<String>, Error> {
    let Some(log) = change_log::foreign(transaction)? else { return Ok(Vec::new()) };
    let entries: i64 =
        transaction.query_row(&format!("SELECT count(*) FROM main.{}", ident(&log)), [], |row| row.get(0))?;
    let fate = match keep && entries > 0 {
        true => "kept {} entries of sqlite-cdc for the first event consumer",
        false => "drained {} entries of sqlite-cdc; the first copy holds all that they say",
    };
    let mut did = vec![fate.replace("{}", &entries.to_string())];
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
    if keep && entries > 0 {
        // A second one may be taken over before the first was handed over.
        transaction.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS main.{TAKEN_OVER}(
               id INTEGER PRIMARY KEY, timestamp, tablename, operation, before, after);
             INSERT INTO main.{TAKEN_OVER}(timestamp, tablename, operation, before, after)
               SELECT timestamp, tablename, operation, before, after FROM main.{} ORDER BY id",
            ident(&log)
        ))?;
    }
    transaction.execute_batch(&format!("DROP TABLE main.{}", ident(&log)))?;
    did.push(format!("removed table {log} of sqlite-cdc"));
    Ok(did)
}

/// The next entries that were set aside, and the number of the last of all; none where there are none.
///
/// # Errors
/// SQLite's.
pub fn read_taken(connection: &Connection, entries_max: usize) -> Result<(Vec<TakenEntry>, i64), Error> {
    if !store::table_exists(connection, TAKEN_OVER)? {
        return Ok((Vec::new(), 0));
    }
    let last: i64 =
        connection.query_row(&format!("SELECT coalesce(max(id), 0) FROM main.{TAKEN_OVER}"), [], |row| row.get(0))?;
    // Of what kind its values are was up to whoever wrote it; SQLite reads each time that it can write.
    let sql = format!(
        "SELECT id, coalesce(CAST(round((julianday(timestamp) - 2440587.5) * 86400000.0) AS INTEGER), 0),
           CAST(tablename AS TEXT), CAST(operation AS TEXT), CAST(before AS TEXT), CAST(after AS TEXT)
         FROM main.{TAKEN_OVER} ORDER BY id LIMIT ?1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(TakenEntry {
            id: row.get(0)?,
            ts_ms: row.get(1)?,
            table: row.get(2)?,
            operation: row.get(3)?,
            before: row.get(4)?,
            after: row.get(5)?,
        })
    };
    let entries = statement.query_map([i64::try_from(entries_max).unwrap_or(i64::MAX)], read)?;
    Ok((entries.collect::<rusqlite::Result<_>>()?, last))
}

/// Forgets what was set aside up to that entry. The table stays, empty: dropping it would change the schema, and every such
/// change has to be accounted for.
///
/// # Errors
/// SQLite's.
pub fn forget_taken(connection: &mut Connection, up_to: i64) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(&format!("DELETE FROM main.{TAKEN_OVER} WHERE id <= ?1"), [up_to])?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;
    use crate::sqlite::in_memory;

    fn options(images: Images) -> CaptureOptions {
        CaptureOptions { images, ..CaptureOptions::default() }
    }

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
        let options = options(Images::Key);
        let (did, installed) = take_over(&mut connection, &options, &ManualClock::at(5)).expect("taken over");
        assert_eq!((did.len(), installed.captured), (3, vec!["a".to_owned()]));
        connection.execute_batch("INSERT INTO a VALUES (2)").expect("no trigger is left behind");
        let (again, _) = take_over(&mut connection, &options, &ManualClock::at(5)).expect("nothing is there");
        assert_eq!(again, Vec::<String>::new());
        assert_eq!(read_taken(&connection, 10).expect("read"), (Vec::new(), 0), "a copy says it");
        let logged: i64 = connection
            .query_row("SELECT count(*) FROM __cdc_log WHERE k0 IS NOT NULL", [], |row| row.get(0))
            .expect("count");
        assert_eq!(logged, 1, "ours goes on at once");
    }

    #[test]
    fn what_their_log_holds_waits_for_an_event_consumer_where_ours_has_images() {
        let mut connection = in_memory().expect("memory");
        connection.execute_batch(THEIR_LOG).expect("schema");
        connection
            .execute_batch(
                "INSERT INTO __cdc_log(timestamp, tablename, operation, before, after) VALUES
                 ('1970-01-01 00:00:01.250', 'a', 'INSERT', NULL, '{\"x\":1}'), ('?', 'a', 'DELETE', '{\"x\":1}', NULL)",
            )
            .expect("entries");
        take_over(&mut connection, &options(Images::Full), &ManualClock::at(5)).expect("taken over");
        let (entries, last) = read_taken(&connection, 10).expect("read");
        let times: Vec<i64> = entries.iter().map(|entry| entry.ts_ms).collect();
        assert_eq!((times, last), (vec![1_250, 0], 2));
        assert_eq!(entries[1].before.as_deref(), Some("{\"x\":1}"));
        assert_eq!(change_log::foreign(&connection), Ok(None), "it is none of theirs any more");
        forget_taken(&mut connection, 1).expect("forget");
        assert_eq!(read_taken(&connection, 10).expect("read").0.len(), 1);
    }

    #[test]
    fn a_log_that_something_else_uses_is_left_alone() {
        let mut connection = in_memory().expect("memory");
        connection.execute_batch(THEIR_LOG).expect("schema");
        connection.execute_batch("CREATE VIEW recent AS SELECT * FROM __cdc_log").expect("view");
        let error =
            take_over(&mut connection, &options(Images::Key), &ManualClock::at(5)).expect_err("in use").to_string();
        assert!(error.contains("recent"), "{error}");
        let left: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("count");
        assert_eq!(left, 4);
    }
}
