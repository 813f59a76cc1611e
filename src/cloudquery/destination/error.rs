//! What can go wrong in the destination.

use std::path::PathBuf;

use thiserror::Error as ThisError;

use crate::model::Fault;
use crate::sqlite;

/// A failure of the destination. Whatever concerns a table names it.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The spec is none, or says what it must not.
    #[error("{0}")]
    Spec(String),
    /// The folder of the database is not there.
    #[error("connection_string: the folder {} does not exist; create it, or name another", folder.display())]
    MissingFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The client may not name that file.
    #[error("connection_string: {why}")]
    NotPermitted {
        /// Which files it may name.
        why: String,
    },
    /// The name is kept for SQLite's tables or ours.
    #[error("table \"{table}\": names that begin with sqlite_ or __cdc_ are reserved; rename the table at the source")]
    Reserved {
        /// The table.
        table: String,
    },
    /// There is no such table.
    #[error("table \"{table}\" does not exist; migrate it first")]
    UnknownTable {
        /// The table.
        table: String,
    },
    /// A virtual table, which a migration cannot follow.
    #[error("table \"{table}\" is a virtual table; write into an ordinary one")]
    Virtual {
        /// The table.
        table: String,
    },
    /// Columns that the table does not have.
    #[error("table \"{table}\" has no column {columns}; migrate it first")]
    UnknownColumns {
        /// The table.
        table: String,
        /// The columns, quoted, with commas.
        columns: String,
    },
    /// A message about a table that contradicts the table, or itself.
    #[error("table \"{table}\": {why}")]
    Unfit {
        /// The table.
        table: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A migration that safe mode does not make.
    #[error(
        "Can't migrate tables automatically, migrate manually or consider using 'migrate_mode: forced'. Non auto \
         migratable tables changes:\n\n{summary}"
    )]
    Refused {
        /// What differs, by table.
        summary: String,
    },
    /// A type or a value that cannot be kept, or read back, as it is.
    #[error("table \"{table}\"")]
    Value {
        /// The table.
        table: String,
        /// Which column, and why.
        #[source]
        source: Box<super::super::Error>,
    },
    /// A statement failed.
    #[error("{doing} table \"{table}\"")]
    Statement {
        /// The table.
        table: String,
        /// What it was for, as a bare verb.
        doing: &'static str,
        /// SQLite's word.
        #[source]
        source: Box<sqlite::Error>,
    },
    /// SQLite failed, and where is clear from what is around it.
    #[error(transparent)]
    Sqlite(#[from] sqlite::Error),
    /// Arrow refuses what a peer sent or what was read.
    #[error(transparent)]
    Message(#[from] super::super::Error),
    /// It was made without a connection: it knows tables and schemas, and neither reads nor writes.
    #[error("the destination was initialised with no_connection; initialise it without")]
    NoConnection,
    /// Something here is wrong; nothing of what was asked for is done.
    #[error("failed for a reason of the destination's own; see its log")]
    Panicked,
    /// It was closed.
    #[error("the destination is closed; initialise it again")]
    Closed,
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Spec(_) | Self::MissingFolder { .. } | Self::NotPermitted { .. } => Fault::Usage,
            Self::Reserved { .. }
            | Self::UnknownTable { .. }
            | Self::Virtual { .. }
            | Self::UnknownColumns { .. }
            | Self::Unfit { .. }
            | Self::Refused { .. }
            | Self::NoConnection
            | Self::Panicked
            | Self::Closed => Fault::Halt,
            Self::Value { source, .. } => source.fault(),
            Self::Statement { source, .. } => source.fault(),
            Self::Sqlite(source) => source.fault(),
            Self::Message(source) => source.fault(),
        }
    }

    /// Adds the table that a statement was about, and what it was for.
    pub(super) fn doing(doing: &'static str, table: &str) -> impl FnOnce(rusqlite::Error) -> Self {
        let table = table.to_owned();
        move |source| Self::Statement { table, doing, source: Box::new(source.into()) }
    }

    /// Adds the table whose column cannot be kept or read.
    pub(super) fn value(table: &str) -> impl FnOnce(super::super::Error) -> Self {
        let table = table.to_owned();
        move |source| Self::Value { table, source: Box::new(source) }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.into())
    }
}

impl From<sqlite::Closed> for Error {
    fn from(_: sqlite::Closed) -> Self {
        Self::Closed
    }
}
