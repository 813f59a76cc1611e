//! What can go wrong while capture is installed, kept right, or removed.

use thiserror::Error;

use crate::model::Fault;
use crate::sqlite;

/// A failure of capture.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite, or a table of ours.
    #[error(transparent)]
    Sqlite(#[from] sqlite::Error),
    /// The journal mode could not be changed.
    #[error(
        "{database}: its journal mode is {mode} and could not be switched to WAL, which capture needs: close what else \
         has the database open, run `PRAGMA journal_mode=WAL` there, then try again"
    )]
    NotWal {
        /// The file.
        database: String,
        /// The mode it is in.
        mode: String,
    },
    /// The file or its folder cannot be written.
    #[error(
        "{database}: read-only, and capture has to write triggers and a log into it; make file and folder writable"
    )]
    ReadOnly {
        /// The file.
        database: String,
    },
    /// Another engine's change log.
    #[error(
        "table {table:?} is the change log of sqlite-cdc, and two logs would each be written by every change: run \
         `twinlite setup --take-over`, which removes it with its triggers and keeps what is in it for event consumers, or \
         remove it with its own tool"
    )]
    ForeignLog {
        /// Its log.
        table: String,
    },
    /// Another engine's change log cannot be taken over.
    #[error("table {table:?} of sqlite-cdc is used by {user}, which would fail without it: drop that first")]
    ForeignLogInUse {
        /// Its log.
        table: String,
        /// What uses it.
        user: String,
    },
    /// The log's name is of no use.
    #[error("log_table {name:?}: the log's name has to begin with \"__cdc_\" and be none of Twinlite's other tables")]
    LogName {
        /// The name.
        name: String,
    },
    /// A log of another name is in place.
    #[error(
        "the change log is {found:?} here, and {wanted:?} was asked for: set log_table to {found:?}, or run `twinlite \
         teardown` and then `setup`"
    )]
    OtherLog {
        /// The name in place.
        found: String,
        /// The name asked for.
        wanted: String,
    },
    /// The log carries keys, and images are asked for.
    #[error(
        "images: full was asked for, and the change log here carries keys: run `twinlite setup --db {database} --images \
         full`, from which on entries carry images, or set capture.images to key"
    )]
    OtherImages {
        /// The file.
        database: String,
    },
    /// Nothing is captured in this database.
    #[error(
        "nothing is captured in this database: run `twinlite setup` first, or the command at the source if this is a replica"
    )]
    NotInstalled,
    /// A table was named that is not captured.
    #[error("table {name:?} is not captured here; `twinlite status` lists what is, and why not")]
    UnknownTable {
        /// The name.
        name: String,
    },
    /// A consumer was named that there is not.
    #[error("there is no consumer {name:?} here; `twinlite consumers list` names them")]
    UnknownConsumer {
        /// The name.
        name: String,
    },
    /// A statement of a schema script failed.
    #[error("statement {number} of the script; nothing was changed: correct it and run it again")]
    Script {
        /// Its place, from 1.
        number: usize,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A schema script wants to undo our transaction.
    #[error(
        "statement {number} of the script is a ROLLBACK, which would undo all of it; nothing was changed: remove it"
    )]
    ScriptRollsBack {
        /// Its place, from 1.
        number: usize,
    },
    /// A schema script leaves rows without their parents.
    #[error(
        "the script leaves {rows} more rows of table {table:?} without the parent that a foreign key names; nothing was \
         changed: correct the script"
    )]
    ForeignKeys {
        /// The child table.
        table: String,
        /// How many rows.
        rows: u64,
    },
    /// What we stored as JSON is none.
    #[error(
        "__cdc_meta or __cdc_tables holds what Twinlite did not write there; run `twinlite teardown`, then `setup`"
    )]
    Stored(#[from] serde_json::Error),
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Sqlite(error) => error.fault(),
            Self::NotWal { .. }
            | Self::ReadOnly { .. }
            | Self::ForeignLog { .. }
            | Self::ForeignLogInUse { .. }
            | Self::NotInstalled
            | Self::Script { .. }
            | Self::ScriptRollsBack { .. }
            | Self::ForeignKeys { .. }
            | Self::Stored(_) => Fault::Halt,
            Self::LogName { .. }
            | Self::OtherLog { .. }
            | Self::OtherImages { .. }
            | Self::UnknownTable { .. }
            | Self::UnknownConsumer { .. } => Fault::Usage,
        }
    }

    /// A short stable word for `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sqlite(error) => error.word(),
            Self::NotWal { .. } => "not_wal",
            Self::ReadOnly { .. } => "read_only",
            Self::ForeignLog { .. } | Self::ForeignLogInUse { .. } => "foreign_log",
            Self::LogName { .. } | Self::OtherLog { .. } => "log_table",
            Self::OtherImages { .. } => "images",
            Self::NotInstalled => "not_installed",
            Self::UnknownTable { .. } => "unknown_table",
            Self::UnknownConsumer { .. } => "unknown_consumer",
            Self::Script { .. } | Self::ScriptRollsBack { .. } => "script",
            Self::ForeignKeys { .. } => "foreign_keys",
            Self::Stored(_) => "damaged",
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.into())
    }
}
