//! What can go wrong while a schema is migrated.

use thiserror::Error;

use crate::model::Fault;
use crate::sqlite;

/// A change of a peer's that is not made here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "table \"{table}\": {why} (column {columns}); the peer has `{source_ddl}`, this database has `{replica_ddl}`; {}", self.way_out()
)]
pub struct RefusedChange {
    /// The table.
    pub table: String,
    /// The columns concerned, with commas; `*` where it is the table as a whole.
    pub columns: String,
    /// What changed.
    pub why: String,
    /// The definition there.
    pub source_ddl: String,
    /// The definition here.
    pub replica_ddl: String,
    /// Whether `migrate_mode: forced` would make it.
    pub forced_helps: bool,
}

impl RefusedChange {
    fn way_out(&self) -> &'static str {
        if self.forced_helps {
            "make the same change here, undo it there, or set migrate_mode: forced"
        } else {
            "make both alike, with `twinlite ddl` at either end, and the link goes on; forced mode does not decide it"
        }
    }
}

/// Why a peer's catalog could not be applied. Whatever it is, the caller rolls its transaction back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A change that `migrate_mode: safe` does not make.
    #[error("{0}")]
    Refused(Box<RefusedChange>),
    /// The name is taken by a table that did not come from this peer.
    #[error(
        "the replica holds a table \"{table}\" of its own, with rows or another shape; rename or drop it there, or leave \
         it out with skip_tables"
    )]
    Occupied {
        /// The table.
        table: String,
    },
    /// A unique index of the replica's own: applying with REPLACE would let it remove good rows.
    #[error(
        "table \"{table}\": only the replica has the UNIQUE index \"{index}\", which would remove rows that the source \
         has; drop it, or create it at the source"
    )]
    ExtraUnique {
        /// The table.
        table: String,
        /// The index.
        index: String,
    },
    /// A statement of the peer's does what it must not.
    #[error(
        "the {kind} \"{name}\" that the peer sent would {action}, which Twinlite does not permit; change it at the source, \
         or leave its kind out of the link's `schema`"
    )]
    Denied {
        /// Table, index, view or trigger.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What it tried.
        action: String,
    },
    /// The peer sent a table that this link does not have.
    #[error("the peer sent table \"{table}\", which this link's `tables` leave out; make both ends' `tables` agree")]
    NotSelected {
        /// The table.
        table: String,
    },
    /// The same table twice.
    #[error("the peer sent table \"{table}\" twice in one catalog; its Twinlite is faulty")]
    Twice {
        /// The table.
        table: String,
    },
    /// A definition that SQLite does not take.
    #[error("the definition of {what} that the peer sent does not work here")]
    Unusable {
        /// Which object.
        what: String,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A statement of our own failed.
    #[error("migrate {what}")]
    Statement {
        /// Which object.
        what: String,
        /// SQLite's word.
        #[source]
        source: sqlite::Error,
    },
    /// SQLite failed, and where is clear from what is around it.
    #[error(transparent)]
    Sqlite(#[from] sqlite::Error),
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused(_)
            | Self::Occupied { .. }
            | Self::ExtraUnique { .. }
            | Self::Denied { .. }
            | Self::NotSelected { .. }
            | Self::Twice { .. }
            | Self::Unusable { .. } => Fault::Halt,
            Self::Statement { source, .. } | Self::Sqlite(source) => source.fault(),
        }
    }

    /// A short stable word for `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(_) => "migration_refused",
            Self::Occupied { .. } => "table_occupied",
            Self::ExtraUnique { .. } => "extra_unique_index",
            Self::Denied { .. } => "ddl_denied",
            Self::NotSelected { .. } => "table_not_selected",
            Self::Twice { .. } => "table_twice",
            Self::Unusable { .. } => "ddl_unusable",
            Self::Statement { source, .. } | Self::Sqlite(source) => source.word(),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.into())
    }
}

/// Why a statement was refused, `None` where it was not. What is no word on the statement, but on the disk or the
/// machine, stays a failure: the transaction may be gone.
pub(super) fn refusal<T>(done: rusqlite::Result<T>) -> Result<Option<rusqlite::Error>, Error> {
    match done {
        Ok(_) => Ok(None),
        Err(error) if sqlite::is_refusal(&error) => Ok(Some(error)),
        Err(error) => Err(error.into()),
    }
}

/// A definition of the peer's that SQLite does not take, or a failure that has nothing to do with it.
pub(super) fn unusable(what: String) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| {
        if sqlite::is_refusal(&source) {
            Error::Unusable { what, source }
        } else {
            Error::Statement { what, source: source.into() }
        }
    }
}

/// Adds which object a statement was about.
pub(super) fn about(what: &str) -> impl FnOnce(rusqlite::Error) -> Error {
    let what = format!("\"{what}\"");
    move |source| Error::Statement { what, source: source.into() }
}
