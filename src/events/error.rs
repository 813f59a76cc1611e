//! Why events cannot be had, or stop.

use std::path::PathBuf;

use thiserror::Error;

use super::HandlerError;
use crate::capture::wake;
use crate::model::{Fault, Trouble};
use crate::{admin, capture, sqlite};

/// What stops an engine, or keeps it from starting. Nothing is lost by any of them: what was not acknowledged is handed
/// over by the next engine of the same consumer, for as long as the log is kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Capture.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] capture::ReadError),
    /// SQLite, or a table of ours.
    #[error(transparent)]
    Sqlite(#[from] sqlite::Error),
    /// The files beside the database.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// The database's folder cannot be watched.
    #[error(transparent)]
    Wake(#[from] wake::Error),
    /// The consumer's name is of no use.
    #[error("consumer {name:?}: a consumer's name has 1 to {max} characters and no control characters")]
    Name {
        /// The name.
        name: String,
        /// The bound.
        max: usize,
    },
    /// Somebody else has that name.
    #[error("consumer {name:?}: a {kind} reads this log under that name: choose another one")]
    NameTaken {
        /// The name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The log has no images, and a setup was to make one that has.
    #[error(
        "{database}: its change log keeps keys only, and --setup makes one with the rows before and after: leave --setup out \
         for events with each row as it is now, or run `twinlite setup --db {database} --images full` (set capture.images \
         to full where a node owns it)"
    )]
    NoImages {
        /// The database.
        database: PathBuf,
    },
    /// The log has another name.
    #[error("the change log is {found:?} here, and {wanted:?} was asked for: say --log-table {found}")]
    OtherLog {
        /// The name in place.
        found: String,
        /// The name asked for.
        wanted: String,
    },
    /// There is no such table.
    #[error("there is no table {name:?} in {database}; check the spelling")]
    NoTable {
        /// The name.
        name: String,
        /// The database.
        database: PathBuf,
    },
    /// It cannot be captured.
    #[error("table {name:?} has no events: {reason}")]
    NotCapturable {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// It is not captured.
    #[error(
        "table {name:?} is not captured here: add --setup, or `tables` of the node's configuration where one owns it"
    )]
    NotCaptured {
        /// The name.
        name: String,
    },
    /// Nothing is captured.
    #[error("{database}: nothing is captured in this database: add --setup")]
    NotInstalled {
        /// The database.
        database: PathBuf,
    },
    /// The process that owns the database would not set capture up.
    #[error("{database}: {said}")]
    OwnerRefuses {
        /// The database.
        database: PathBuf,
        /// Its words.
        said: String,
    },
    /// What the consumer has not read is gone.
    #[error(
        "events_lost: consumer {consumer:?} was away for longer than the change log is kept, and what it has not read is \
         gone: start it with --bootstrap, which says RESYNC for each table and then gives every row"
    )]
    EventsLost {
        /// The consumer.
        consumer: String,
    },
    /// The log is not the one that was read.
    #[error(
        "entry {seq} of the change log, up to which consumer {consumer:?} has read, is another one now: an older database \
         was put in place of this one; start it again, and with --bootstrap if what it made of the newer one is to go"
    )]
    Restored {
        /// The consumer.
        consumer: String,
        /// Where it had got to.
        seq: i64,
    },
    /// A schema change made a table unsure, and the engine was told to stop then.
    #[error(
        "a schema change made what is known of table {table:?} unsure, and on_gap is stop: start it with --on-gap resync, \
         which says RESYNC for that table and then gives every row of it"
    )]
    Gap {
        /// The table.
        table: String,
    },
    /// The handler did not take a batch.
    #[error("hand over batch {id}; it is handed over again when the consumer is started again")]
    Handler {
        /// The batch.
        id: String,
        /// Why.
        #[source]
        source: HandlerError,
    },
    /// How far the consumer is could not be noted.
    #[error("note how far consumer {consumer:?} is; what was handed over last may be handed over again")]
    Note {
        /// The consumer.
        consumer: String,
        /// Why.
        #[source]
        source: capture::Error,
    },
    /// The database's file was replaced.
    #[error("{database}: the file was replaced by another, or is gone: start again to read that one")]
    FileReplaced {
        /// The database.
        database: PathBuf,
    },
    /// Capture was removed.
    #[error("{database}: capture was removed by `twinlite teardown`: there are no more events")]
    TornDown {
        /// The database.
        database: PathBuf,
    },
    /// A database thread is gone.
    #[error("the database's thread ended unexpectedly; see the log, and report it")]
    Closed(#[from] sqlite::Closed),
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Capture(error) => error.fault(),
            Self::Note { source, .. } => source.fault(),
            Self::Read(error) => error.fault(),
            Self::Sqlite(error) => error.fault(),
            Self::Admin(error) => error.fault(),
            Self::Wake(error) => error.fault(),
            // The handler has retried for as long as it was told to.
            Self::Handler { .. } | Self::Closed(_) | Self::FileReplaced { .. } | Self::Restored { .. } => Fault::Retry,
            Self::EventsLost { .. } | Self::Gap { .. } | Self::TornDown { .. } | Self::OwnerRefuses { .. } => {
                Fault::Halt
            }
            Self::Name { .. }
            | Self::NameTaken { .. }
            | Self::NoImages { .. }
            | Self::OtherLog { .. }
            | Self::NoTable { .. }
            | Self::NotCapturable { .. }
            | Self::NotCaptured { .. }
            | Self::NotInstalled { .. } => Fault::Usage,
        }
    }

    /// A short stable word for `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Capture(error) => error.word(),
            Self::Note { source, .. } => source.word(),
            Self::Read(error) => error.word(),
            Self::Sqlite(error) => error.word(),
            Self::Admin(admin::Error::ConsumerRuns { .. }) => "consumer_runs",
            Self::Admin(_) => "owner",
            Self::Wake(_) => "watch",
            Self::Name { .. } | Self::NameTaken { .. } => "consumer_name",
            Self::NoImages { .. } => "images",
            Self::OtherLog { .. } => "log_table",
            Self::NoTable { .. } | Self::NotCaptured { .. } => "unknown_table",
            Self::NotCapturable { .. } => "not_capturable",
            Self::NotInstalled { .. } => "not_installed",
            Self::OwnerRefuses { .. } => "owner",
            Self::EventsLost { .. } => "events_lost",
            Self::Restored { .. } => "restored",
            Self::Gap { .. } => "gap",
            Self::Handler { .. } => "handler",
            Self::FileReplaced { .. } => "file_replaced",
            Self::TornDown { .. } => "torn_down",
            Self::Closed(_) => "closed",
        }
    }

    /// As `status` has it.
    pub fn trouble(&self) -> Trouble {
        Trouble { code: self.word().to_owned(), message: sqlite::said(self), hint: String::new() }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.into())
    }
}
