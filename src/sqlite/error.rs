//! What can go wrong between us and SQLite.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::model::Fault;

/// A failure of SQLite, or of a file as a database.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing there, and we were not to create it.
    #[error("{path}: no such database; check the path")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or encrypted.
    #[error("{path}: not a SQLite database, or an encrypted one, which Twinlite cannot read; check the path")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// Another application's locks or modes keep us out for good.
    #[error("{path}: {why}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What and what to do.
        why: String,
    },
    /// The file could not be opened.
    #[error("{path}: open")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A statement failed.
    #[error("{doing}")]
    Statement {
        /// What it was for, as a bare verb phrase.
        doing: String,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A statement failed, and what it was for is clear from what is around it.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A table of ours does not hold what we wrote there.
    #[error(
        "{table}: {what}; the file is damaged, or something else wrote there: run `twinlite teardown`, then `setup`"
    )]
    Damaged {
        /// The table of ours.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
    /// SQLite has rolled the transaction back by itself, as it does where the disk is full or fails.
    #[error("SQLite rolled the transaction back: the disk is full or fails, or a trigger here says ROLLBACK")]
    RolledBack,
    /// The database was written by a newer Twinlite.
    #[error("the database has Twinlite's format {found}, this binary knows {known}: run the newer binary")]
    NewerFormat {
        /// What the database says.
        found: i64,
        /// What we know.
        known: i64,
    },
    /// The database's thread is gone; the process is shutting down, or it panicked.
    #[error("the database's thread has ended")]
    Closed(#[from] super::Closed),
}

impl Error {
    /// Adds what a statement was for.
    pub fn doing(what: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> Self {
        let doing = what.into();
        move |source| Self::Statement { doing, source }
    }

    /// SQLite's primary result code behind this error, if there is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Open { source, .. } | Self::Statement { source, .. } | Self::Sqlite(source) => {
                source.sqlite_error_code()
            }
            Self::Missing { .. }
            | Self::NotADatabase { .. }
            | Self::Unusable { .. }
            | Self::Damaged { .. }
            | Self::RolledBack
            | Self::NewerFormat { .. }
            | Self::Closed(_) => None,
        }
    }

    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Missing { .. } | Self::NotADatabase { .. } | Self::Unusable { .. } => Fault::Halt,
            Self::Open { source, .. } | Self::Statement { source, .. } | Self::Sqlite(source) => fault_of(source),
            Self::Damaged { .. } | Self::NewerFormat { .. } => Fault::Halt,
            Self::RolledBack | Self::Closed(_) => Fault::Retry,
        }
    }

    /// A short stable word for `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::NotADatabase { .. } => "not_a_database",
            Self::Unusable { .. } => "unusable",
            Self::Damaged { .. } => "damaged",
            Self::RolledBack => "rolled_back",
            Self::NewerFormat { .. } => "newer_format",
            Self::Closed(_) => "closed",
            Self::Open { .. } | Self::Statement { .. } | Self::Sqlite(_) => self.code().map_or("sqlite", code_word),
        }
    }
}

fn code_word(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "busy",
        ErrorCode::DiskFull => "disk_full",
        ErrorCode::ReadOnly => "read_only",
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => "corrupt",
        ErrorCode::ConstraintViolation => "constraint",
        _ => "sqlite",
    }
}

/// The word of what SQLite said, where that is among an error's causes.
pub fn word_of(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    said_by_sqlite(error).map(|error| code_word(error.code))
}

/// What SQLite said, where that is the error or among its causes.
fn said_by_sqlite<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rusqlite::ffi::Error> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// Whether what refused a statement is the statement itself or the rows, rather than a disk, a lock or the machine: only
/// then may something else be tried in the same transaction, which SQLite otherwise may have rolled back.
pub fn is_refusal(error: &rusqlite::Error) -> bool {
    let code = match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        _ => error.sqlite_error_code(),
    };
    matches!(
        code,
        // The last one is SQLITE_ERROR: a name that is not there, or an expression that fails on a row's values.
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::Unknown)
    )
}

/// Refuses to go on where the transaction that we believe to be in is gone.
///
/// # Errors
/// [`Error::RolledBack`].
pub fn still_in_transaction(connection: &rusqlite::Connection) -> Result<(), Error> {
    if connection.is_autocommit() { Err(Error::RolledBack) } else { Ok(()) }
}

/// The error and its causes as one line that says everything once.
///
/// SQLite's number for a failure is left out where its words are there, a cause that repeats what is before it too, and
/// so is a path that the next cause begins with.
pub fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        cause = error.source();
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let is_number = error.is::<rusqlite::ffi::Error>() && !parts.is_empty();
        if is_number || parts.last().is_some_and(|last| last.ends_with(&text)) {
            continue;
        }
        let first = text.split(": ").next().unwrap_or_default();
        if parts.last().is_some_and(|last| first.ends_with(last.as_str()) || text.starts_with(last.as_str())) {
            parts.pop();
        }
        parts.push(text);
    }
    parts.join(": ")
}

/// The same, and what to do where SQLite's words leave that open.
pub fn said_with_advice(error: &(dyn std::error::Error + 'static)) -> String {
    let said = said(error);
    match advice(error) {
        Some(advice) => format!("{said}; {advice}"),
        None => said,
    }
}

/// What a person can do about what SQLite said, for what it says most often.
pub fn advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    said_by_sqlite(error).and_then(|error| advice_for(error.code))
}

fn advice_for(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Some("another connection holds its lock: end that one's transaction and try again")
        }
        ErrorCode::DiskFull => Some("make room on that disk and try again"),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            Some("the file is damaged: restore it from a backup, or recover it with `.recover` of the sqlite3 shell")
        }
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            Some("make the file and its folder readable and writable for this user")
        }
        ErrorCode::SystemIoFailure => Some("the system could not read or write the file: look at the disk and its log"),
        _ => None,
    }
}

/// Whether a failed statement may succeed by itself later.
fn fault_of(error: &rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::SchemaChanged
            | ErrorCode::FileLockingProtocolFailed,
        ) => Fault::Retry,
        _ => Fault::Halt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sql: &str) -> rusqlite::Error {
        let connection = crate::sqlite::in_memory().expect("memory");
        connection.execute_batch("CREATE TABLE a(b NOT NULL)").expect("a table");
        connection.execute_batch(sql).expect_err("refused")
    }

    #[test]
    fn a_chain_is_one_line_and_says_everything_once() {
        let error = Error::doing("write")(refused("INSERT INTO a VALUES (NULL)"));
        assert_eq!(said(&error), "write: NOT NULL constraint failed: a.b");
        let error = Error::doing("run")(refused("SELECT\n1 FROM\nnowhere"));
        assert!(!said(&error).contains('\n') && !said(&error).contains("Error code"), "{}", said(&error));
        let error = anyhow::Error::from(Error::Missing { path: "/x/a.db".into() }).context("a.db").context("source");
        assert_eq!(said(error.as_ref()), "source: /x/a.db: no such database; check the path");
    }

    #[test]
    fn what_sqlite_says_most_often_comes_with_what_to_do() {
        let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None);
        assert!(advice(&Error::doing("write")(full)).is_some_and(|advice| advice.contains("room")));
        assert_eq!(advice(&refused("INSERT INTO a VALUES (NULL)")), None);
    }
}
