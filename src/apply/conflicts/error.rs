//! Why a conflict could not be looked up or settled. Nothing was changed.

use thiserror::Error;

use crate::model::Fault;
use crate::sqlite;

/// Why a conflict could not be looked up or settled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No such record.
    #[error("there is no conflict {id}; `twinlite conflicts list` shows those that are recorded")]
    Unknown {
        /// The id that was asked for.
        id: i64,
    },
    /// Nothing lost, so nothing can win.
    #[error(
        "conflict {id}: nothing lost; table \"{table}\", key {key} breaks a foreign key: put the row that it refers to \
         there, or change or delete it, and the record goes by itself"
    )]
    NothingLost {
        /// The record.
        id: i64,
        /// The table.
        table: String,
        /// The row's key, as text.
        key: String,
    },
    /// The table was dropped or renamed.
    #[error("conflict {id}: table \"{table}\" is not here any more; drop the conflict, or make the table again")]
    TableGone {
        /// The record.
        id: i64,
        /// The table.
        table: String,
    },
    /// The row has columns that the table has no longer.
    #[error(
        "conflict {id}: table \"{table}\" has no column {columns} any more; `twinlite conflicts show {id}` shows the row: \
         write what you need of it by hand, then drop the conflict"
    )]
    ColumnGone {
        /// The record.
        id: i64,
        /// The table.
        table: String,
        /// The columns, as text.
        columns: String,
    },
    /// The table is identified by other columns now.
    #[error(
        "conflict {id}: table \"{table}\" has another key now; `twinlite conflicts show {id}` shows the row: write what you \
         need of it by hand, then drop the conflict"
    )]
    KeyChanged {
        /// The record.
        id: i64,
        /// The table.
        table: String,
    },
    /// Another row holds a unique value of the loser's.
    #[error(
        "conflict {id}: table \"{table}\", key {key}: the row with key {by} holds a unique value of it; change or delete \
         that one first, or drop the conflict"
    )]
    Taken {
        /// The record.
        id: i64,
        /// The table.
        table: String,
        /// The loser's key, as text.
        key: String,
        /// The keys of the rows in the way, as text.
        by: String,
    },
    /// The table refuses the row.
    #[error("conflict {id}: write table \"{table}\", key {key}")]
    Refused {
        /// The record.
        id: i64,
        /// The table.
        table: String,
        /// The loser's key, as text.
        key: String,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A trigger of the user's left the write out, without a word.
    #[error(
        "conflict {id}: table \"{table}\", key {key}: a trigger of the table ignores the change; drop the trigger or let it \
         pass, or drop the conflict"
    )]
    Ignored {
        /// The record.
        id: i64,
        /// The table.
        table: String,
        /// The loser's key, as text.
        key: String,
    },
    /// The record cannot be read.
    #[error(
        "conflict {id} cannot be read: the file is damaged, or something else wrote into __cdc_conflicts; `twinlite \
         conflicts drop {id}` forgets it"
    )]
    Damaged {
        /// The record.
        id: i64,
    },
    /// The write left no entry in the log, so no other node would learn of it.
    #[error(
        "conflict {id}: table \"{table}\" is not captured, so no other node would learn of the change; run `twinlite \
         setup`, or start the node, and see `twinlite status` for why it is not"
    )]
    NotCaptured {
        /// The record.
        id: i64,
        /// The table.
        table: String,
    },
    /// SQLite failed.
    #[error(transparent)]
    Database(#[from] sqlite::Error),
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unknown { .. } => Fault::Usage,
            Self::NothingLost { .. }
            | Self::TableGone { .. }
            | Self::ColumnGone { .. }
            | Self::KeyChanged { .. }
            | Self::Taken { .. }
            | Self::Refused { .. }
            | Self::Ignored { .. }
            | Self::Damaged { .. }
            | Self::NotCaptured { .. } => Fault::Halt,
            Self::Database(error) => error.fault(),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}
