//! Shows what [`super::install()`] would do, and changes nothing.

use rusqlite::Connection;

use super::decide::{Witness, decide, own_tables};
use super::situation::Situation;
use super::{CaptureOptions, Error, SkippedTable, install};
use crate::sqlite::store;

/// What an installation would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every statement that changes the schema, in order.
    pub statements: Vec<String>,
    /// The tables that are wanted and cannot be captured.
    pub skipped: Vec<SkippedTable>,
}

/// Plans an installation.
///
/// # Errors
/// Those of [`super::install()`], but for the ones of switching to WAL.
pub fn plan(connection: &Connection, options: &CaptureOptions) -> Result<Plan, Error> {
    install::check(connection, options)?;
    let situation = Situation::read(connection, options)?;
    let decision = decide(&situation, &Witness::default());
    let mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0))?;
    let wal = (mode != "wal").then(|| "PRAGMA journal_mode = WAL".to_owned());
    let missing = |table: &str| Ok::<_, Error>(!store::table_exists(connection, table)?);
    let own = own_tables(missing("__cdc_meta")?, missing("__cdc_tables")?);
    let statements = wal.into_iter().chain(own).chain(decision.statements).collect();
    Ok(Plan { statements, skipped: decision.skipped })
}

/// The tables that are wanted and that an installation would skip, whatever else stands in its way.
///
/// # Errors
/// [`Error::OtherImages`], or SQLite's.
pub fn would_skip(connection: &Connection, options: &CaptureOptions) -> Result<Vec<SkippedTable>, Error> {
    Ok(decide(&Situation::read(connection, options)?, &Witness::default()).skipped)
}
