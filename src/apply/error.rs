//! Why a window could not be applied. Nothing of it was.

use std::path::PathBuf;

use thiserror::Error;

use crate::model::{Fault, Key, NodeId, Position, TableId};
use crate::{codec, migrate, sqlite};

/// A failure to produce the next item of a window, in the words of whoever reads it.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Why a window could not be applied, or the database not be opened for it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Which window the cause stopped.
    #[error("apply changes after {from} up to {to} from \"{peer}\"")]
    Window {
        /// The peer's name.
        peer: String,
        /// The position before the window.
        from: Position,
        /// The position after it.
        to: Position,
        /// What stopped it.
        #[source]
        source: Box<Error>,
    },
    /// SQLite failed.
    #[error(transparent)]
    Database(#[from] sqlite::Error),
    /// The schema cannot be made to fit.
    #[error(transparent)]
    Migrate(#[from] migrate::Error),
    /// A batch cannot be read.
    #[error("table \"{table}\"")]
    Batch {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: codec::Error,
    },
    /// A row that the database here refuses.
    #[error(
        "table \"{table}\", key {key}: a constraint or trigger here refuses the row; change it, or the row at the \
         source, and the link goes on from here"
    )]
    Row {
        /// The table.
        table: String,
        /// The row's key, as text.
        key: String,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A NULL where the column here takes none. REPLACE would have put the default there instead.
    #[error(
        "table \"{table}\", key {key}: column \"{column}\" is NULL at the source and NOT NULL here; drop the NOT NULL \
         here, or fill the column at the source, and the link goes on from here"
    )]
    NullRefused {
        /// The table.
        table: String,
        /// The row's key, as text.
        key: String,
        /// The column.
        column: String,
    },
    /// The window does not begin where the last one ended.
    #[error("the window begins at {from}, but what is applied ends at {}; the link begins anew", at(*.stored))]
    OutOfOrder {
        /// The checkpoint.
        stored: Option<Position>,
        /// Where the window begins.
        from: Position,
    },
    /// Another node under a known name.
    #[error(
        "\"{name}\" is node {now}, but what is here came from node {was}: its database was created anew, or another \
         one has that name; give it a name of its own, there and in its link here, and the two meet for the first time \
         (a replica that nobody else writes may be removed instead, and is copied anew)"
    )]
    PeerChanged {
        /// The name.
        name: String,
        /// The node that the checkpoint is of.
        was: NodeId,
        /// The node that calls itself so now.
        now: NodeId,
    },
    /// The peer sent a table that this link does not take.
    #[error("table \"{table}\" is not among the tables that this link takes; add it to `tables`, here or not there")]
    NotAllowed {
        /// The table.
        table: String,
    },
    /// The peer sent a table under a name that is SQLite's or ours.
    #[error(
        "table \"{table}\": a peer may not send tables of that name; leave it out with `skip_tables` at the source"
    )]
    ReservedName {
        /// The table.
        table: String,
    },
    /// Rows of a table that no catalog named.
    #[error("rows of table {id:?}, which the peer has not described in this session; the link begins anew")]
    UnknownTable {
        /// The table's id.
        id: TableId,
    },
    /// The table here lacks a column that the peer's rows have, or computes it.
    #[error(
        "table \"{table}\": column \"{column}\" of the source is not here, or is computed here; drop the table here, and \
         it is copied anew"
    )]
    ColumnMissing {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A change from the future: it would win over everything until then.
    #[error(
        "table \"{table}\", key {key}: changed {ahead_ms} ms ahead of this machine's clock; set the clocks right (both \
         ends should follow one time server): the link goes on once the change's time has come, to `max_clock_skew`, or at \
         once where that allows more, but then the change wins over what is written until its time"
    )]
    ClockAhead {
        /// The table.
        table: String,
        /// The row's key, as text.
        key: String,
        /// How far, in ms.
        ahead_ms: i64,
    },
    /// Two rows of the peer's want one value of an index that the peer does not have.
    #[error(
        "table \"{table}\", key {key}: another row of the peer's has its value in a UNIQUE index that only this database \
         has; drop the index here, or make it at the peer too, and the link goes on from here"
    )]
    UniqueOnlyHere {
        /// The table.
        table: String,
        /// The row's key, as text.
        key: String,
    },
    /// A change of our own came back.
    #[error(
        "table \"{table}\", key {key}: \"{peer}\" sent back a change that was made here, so the links form a circle; \
         remove one of them, for changes must have one way between any two nodes"
    )]
    Cycle {
        /// The peer's name.
        peer: String,
        /// The table.
        table: String,
        /// The row's key, as text.
        key: String,
    },
    /// A trigger that fires on what is merged writes what is captured.
    #[error(
        "trigger \"{trigger}\" writes into table \"{writes}\", which is captured, and user_triggers is on: both ends would \
         write it, once by the trigger and once by the link; drop the trigger, or leave \"{writes}\" out by skip_tables or \
         set user_triggers: off and start the node again, and the link goes on from here"
    )]
    TriggerWrites {
        /// The trigger.
        trigger: String,
        /// The table that it writes.
        writes: String,
    },
    /// The schema changed between two looks at it.
    #[error("the schema changed just as the window was begun; the link begins anew")]
    SchemaMoved,
    /// Capture could not be put right after the schema changed.
    #[error("put the capture of this database right after its schema changed")]
    Recapture(#[source] SourceError),
    /// The peer broke the protocol.
    #[error("the peer's window is malformed: {0}; run the same Twinlite version on both ends, and report it")]
    Malformed(&'static str),
    /// The next item of the window could not be read.
    #[error("read the window that was received")]
    Source(#[source] SourceError),
    /// The file could not be made.
    #[error("{path}: create the replica's file")]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be switched to WAL.
    #[error(
        "{path}: its journal mode is {mode} and could not be switched to WAL, which a replica needs: close what else has \
         the database open, see that it is on a local file system, then try again"
    )]
    Wal {
        /// The file.
        path: PathBuf,
        /// What it says instead.
        mode: String,
    },
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Window { source, .. } => source.fault(),
            Self::Database(error) => error.fault(),
            Self::Migrate(error) => error.fault(),
            Self::Batch { source, .. } => source.fault(),
            // A new session begins with a catalog, at the checkpoint.
            Self::OutOfOrder { .. } | Self::UnknownTable { .. } => Fault::Retry,
            // The spool, or the connection behind it.
            Self::Source(_) => Fault::Retry,
            // As a rule somebody else holds the lock, or changes the schema meanwhile.
            Self::Recapture(_) | Self::SchemaMoved => Fault::Retry,
            Self::Row { .. }
            | Self::NullRefused { .. }
            | Self::PeerChanged { .. }
            | Self::NotAllowed { .. }
            | Self::ReservedName { .. }
            | Self::ColumnMissing { .. }
            | Self::ClockAhead { .. }
            | Self::Cycle { .. }
            | Self::UniqueOnlyHere { .. }
            | Self::TriggerWrites { .. }
            | Self::Malformed(_)
            | Self::Create { .. }
            | Self::Wal { .. } => Fault::Halt,
        }
    }

    /// A short stable word for `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Window { source, .. } => source.word(),
            Self::Database(error) => error.word(),
            Self::Migrate(_) => "migration",
            Self::Batch { .. } | Self::Malformed(_) => "malformed",
            Self::Row { .. } | Self::NullRefused { .. } => "poisoned_row",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::PeerChanged { .. } => "peer_changed",
            Self::NotAllowed { .. } | Self::ReservedName { .. } => "not_allowed",
            Self::UnknownTable { .. } => "unknown_table",
            Self::ColumnMissing { .. } => "column_missing",
            Self::Source(_) => "spool",
            Self::ClockAhead { .. } => "clock_ahead",
            Self::Cycle { .. } => "cycle",
            Self::UniqueOnlyHere { .. } => "unique_only_here",
            Self::TriggerWrites { .. } => "user_triggers",
            Self::SchemaMoved => "schema_moved",
            Self::Recapture(source) => sqlite::word_of(source.as_ref()).unwrap_or("recapture"),
            Self::Create { .. } => "create",
            Self::Wal { .. } => "journal_mode",
        }
    }

    /// Says which window was stopped.
    pub(super) fn in_window(self, peer: &str, from: Position, to: Position) -> Self {
        Self::Window { peer: peer.to_owned(), from, to, source: Box::new(self) }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

fn at(stored: Option<Position>) -> String {
    stored.map_or_else(|| "nothing".to_owned(), |position| position.to_string())
}

/// A key for a person to find the row by.
pub(super) fn shown(key: &Key) -> String {
    key.shown()
}
