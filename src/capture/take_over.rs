//! Replaces the capture of sqlite-cdc in a database by ours, in one transaction: no change falls between the two.
//!
//! What theirs holds is for event consumers, whatever ours carries: it is set aside ([`super::taken`]) in the same
//! transaction, and from there on our log is kept for the first of them.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::decide::{Witness, decide};
use super::install::{check, name_of, put_in_place, switch_to_wal};
use super::situation::Situation;
use super::taken::{self, FIRST_CONSUMER};
use super::{CaptureOptions, Error, Images, Installed, change_log, install};
use crate::model::Clock;
use crate::sqlite::ident;
use crate::telemetry::failpoint;

/// What the names of sqlite-cdc's triggers have in them: `<table>__cdc_insert`.
const THEIRS: &str = "__cdc_";

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
    let (entries, removed) = remove(&transaction)?;
    did.extend(removed);
    check(&transaction, options)?;
    let situation = Situation::read(&transaction, options)?;
    let decision = decide(&situation, &Witness::default());
    let images = situation.images;
    let installed = put_in_place(&transaction, options, (&situation, decision), clock)?;
    // Who had read all of theirs goes on in ours, if it can be events.
    if entries > 0 || images == Images::Full {
        taken::keep_log(&transaction, clock)?;
        did.push(format!(
            "kept the log from here on for the first event consumer, as {FIRST_CONSUMER}: without one to come, run \
             `twinlite consumers drop --db {} {FIRST_CONSUMER}`",
            name_of(&transaction)
        ));
    }
    failpoint::hit(failpoint::TAKE_OVER_BEFORE_COMMIT);
    transaction.commit()?;
    failpoint::hit(failpoint::TAKE_OVER_AFTER_COMMIT);
    Ok((did, installed))
}

/// Drops the triggers and the log of sqlite-cdc, and sets aside what the log holds: how many entries, and what was done.
fn remove(transaction: &Transaction<'_>) -> Result<(u64, Vec<String>), Error> {
    let Some(log) = change_log::foreign(transaction)? else { return Ok((0, Vec::new())) };
    let mut did = Vec::new();
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
    let entries = taken::set_aside(transaction, &log)?;
    did.push(match entries {
        0 => "found nothing in the log of sqlite-cdc".to_owned(),
        entries => format!("kept {entries} entries of sqlite-cdc for the first event consumer"),
    });
    transaction.execute_batch(&format!("DROP TABLE main.{}", ident(&log)))?;
    did.push(format!("removed table {log} of sqlite-cdc"));
    Ok((entries, did))
}

#[cfg(test)]
mod tests {
    use super::super::taken::{claim_taken, forget_taken, read_taken};
    use super::*;
    use crate::capture::consumers::{self, Consumer};
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
        connection.execute_batch("INSERT INTO __cdc_log(tablename, operation) VALUES ('a', 'INSERT')").expect("entry");
        connection
            .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)
            .expect("as an application has it");
        let options = options(Images::Key);
        let (did, installed) = take_over(&mut connection, &options, &ManualClock::at(5)).expect("taken over");
        assert_eq!((did.len(), installed.captured), (4, vec!["a".to_owned()]));
        connection.execute_batch("INSERT INTO a VALUES (2)").expect("no trigger is left behind");
        let (again, _) = take_over(&mut connection, &options, &ManualClock::at(5)).expect("nothing is there");
        assert_eq!(again, Vec::<String>::new());
        assert_eq!(read_taken(&connection, 10).expect("read").0.len(), 1, "nobody has had it yet");
        let logged: i64 = connection
            .query_row("SELECT count(*) FROM __cdc_log WHERE k0 IS NOT NULL", [], |row| row.get(0))
            .expect("count");
        assert_eq!(logged, 1, "ours goes on at once");
    }

    #[test]
    fn what_their_log_holds_waits_for_an_event_consumer() {
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
        forget_taken(&connection, 1).expect("forget");
        assert_eq!(read_taken(&connection, 10).expect("read").0.len(), 1);
    }

    fn places(connection: &Connection) -> Vec<(String, Option<i64>)> {
        let place = |one: Consumer| (one.name, one.position.map(|position| position.seq));
        consumers::list(connection).expect("list").into_iter().map(place).collect()
    }

    /// Two that drained at once had half of it each; what was written before the first was met went to nobody.
    #[test]
    fn one_consumer_gets_what_was_taken_over_and_begins_where_our_log_did() {
        let mut connection = in_memory().expect("memory");
        connection.execute_batch(THEIR_LOG).expect("schema");
        assert!(!claim(&mut connection, "a"), "nothing was taken over");
        take_over(&mut connection, &options(Images::Full), &ManualClock::at(5)).expect("taken over");
        let began = places(&connection);
        assert_eq!(began.len(), 1, "{began:?}");
        let place = |name: &str| vec![(name.to_owned(), began[0].1)];
        assert_eq!(began, place(FIRST_CONSUMER));
        assert!(claim(&mut connection, "a"));
        assert_eq!(places(&connection), place("a"));
        assert!(!claim(&mut connection, "b") && claim(&mut connection, "a"), "also after a crash");
        consumers::forget(&connection, "a").expect("forget");
        assert!(claim(&mut connection, "b"), "nobody else wants it");
        assert_eq!(places(&connection), [], "the log is kept from where it begins");
    }

    #[test]
    fn a_consumer_that_was_there_keeps_its_place() {
        let mut connection = in_memory().expect("memory");
        connection.execute_batch(THEIR_LOG).expect("schema");
        take_over(&mut connection, &options(Images::Full), &ManualClock::at(5)).expect("taken over");
        let there =
            Consumer { name: "a".into(), kind: consumers::EVENTS.into(), peer: None, position: None, cut_off: false };
        consumers::meet(&connection, &there, &ManualClock::at(5)).expect("meet");
        assert!(claim(&mut connection, "a"));
        assert_eq!(places(&connection), [("a".to_owned(), None)]);
    }

    fn claim(connection: &mut Connection, consumer: &str) -> bool {
        connection.execute_batch(crate::sqlite::store::NODE_TABLES).expect("tables");
        claim_taken(connection, consumer).expect("claim")
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
