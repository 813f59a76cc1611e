//! What `status` says besides what its own process knows: event consumers that others run, or nobody does, and what is
//! captured where no link says it.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::Error;
use crate::admin::ConsumerLock;
use crate::capture::consumers::{self, EVENTS};
use crate::capture::{self, change_log};
use crate::sqlite::{self, Role, store};
use crate::telemetry::{EventsReport, EventsState, StatusReport, TableReport, TableState};

/// The event consumers that the database knows, by name, as far as it can be told from outside how they are.
///
/// # Errors
/// [`capture::Error::NotInstalled`], or SQLite's.
pub fn consumers(connection: &Connection, database: &Path) -> Result<Vec<EventsReport>, capture::Error> {
    let (tail, epoch) = (change_log::tail(connection)?, store::epoch(connection)?);
    let report = |one: consumers::Consumer| {
        let changes_behind = epoch.and_then(|epoch| one.changes_behind(epoch, &tail));
        let lost = one.cut_off.then(|| Error::EventsLost { consumer: one.name.clone() }.trouble());
        let state =
            if ConsumerLock::is_held(database, &one.name) { EventsState::Running } else { EventsState::Offline };
        EventsReport {
            output: None,
            state,
            position: one.position.map(Into::into),
            head: Some(tail.head()),
            changes_behind,
            events: 0,
            last_success_ms: None,
            failing_since_ms: None,
            failed_tries: 0,
            last_error: lost,
            name: one.name,
        }
    };
    let known = consumers::list(connection)?;
    Ok(known.into_iter().filter(|one| one.kind == EVENTS).map(report).collect())
}

/// Completes what the owner of a database knows of it by what the database says.
pub async fn complete(report: StatusReport, database: PathBuf) -> StatusReport {
    let known = report.clone();
    let read = move || {
        let mut report = report;
        if let Err(error) = add(&mut report, &database) {
            tracing::debug!(error = &error as &dyn std::error::Error, "read what status says besides");
        }
        report
    };
    tokio::task::spawn_blocking(read).await.unwrap_or(known)
}

fn add(report: &mut StatusReport, database: &Path) -> Result<(), Error> {
    let connection = sqlite::open(database, Role::Reader, false)?;
    if !store::table_exists(&connection, "__cdc_consumers")? {
        return Ok(());
    }
    let mut others = consumers(&connection, database)?;
    others.retain(|other| report.events.iter().all(|known| known.name != other.name));
    report.events.extend(others);
    report.events.sort_by(|a, b| a.name.cmp(&b.name));
    if report.tables.is_empty() {
        report.tables = tables(&connection)?;
    }
    Ok(())
}

/// The tables that are captured, by name, and behind them those that cannot be.
///
/// # Errors
/// [`capture::Error::NotInstalled`], or SQLite's.
pub fn tables(connection: &Connection) -> Result<Vec<TableReport>, capture::Error> {
    let live = capture::tables(connection)?.into_iter().map(|table| TableReport {
        generation: Some(table.id.0),
        ..TableReport::new(table.schema_name, TableState::Live)
    });
    let skipped = capture::skipped(connection)?.into_iter();
    Ok(live.chain(skipped.map(|table| TableReport::skipped(table.name, table.reason))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::consumers::Consumer;
    use crate::capture::{CaptureOptions, Images, install};
    use crate::model::{Epoch, ManualClock, Position};

    #[test]
    fn the_database_tells_where_its_consumers_are_and_their_locks_who_runs() {
        let folder = tempfile::tempdir().expect("folder");
        let mut connection = crate::sqlite::in_memory().expect("memory");
        connection
            .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)
            .expect("as an application has it");
        connection.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").expect("schema");
        let (options, clock) =
            (CaptureOptions { images: Images::Full, ..CaptureOptions::default() }, ManualClock::at(5));
        let epoch = install(&mut connection, &options, &clock).expect("installs").epoch;
        let from = change_log::tail(&connection).expect("tail").head();
        connection.execute_batch("INSERT INTO t VALUES (1, 1); UPDATE t SET v = 2").expect("writes");
        let at = |epoch, seq| Some(Position { epoch, seq });
        for (name, kind, position, cut_off) in [
            ("b", EVENTS, at(epoch, from), false),
            ("away", EVENTS, at(epoch, from), true),
            ("old", EVENTS, at(Epoch(epoch.0 ^ 1), from), false),
            ("met", EVENTS, None, false),
            ("c", "link", at(epoch, from), false),
        ] {
            let consumer = Consumer { name: name.into(), kind: kind.into(), peer: None, position, cut_off };
            consumers::meet(&connection, &consumer, &clock).expect("meet");
        }
        let database = folder.path().join("app.db");
        let _lock = ConsumerLock::acquire(&database, "b").expect("free");
        let found = consumers(&connection, &database).expect("reads");
        let said: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.state, one.changes_behind)).collect();
        let (running, offline) = (EventsState::Running, EventsState::Offline);
        // An update is two entries and one change.
        assert_eq!(
            said,
            [("away", offline, None), ("b", running, Some(2)), ("met", offline, None), ("old", offline, None)]
        );
        assert_eq!(found[0].last_error.as_ref().map(|lost| lost.code.as_str()), Some("events_lost"));
    }
}
