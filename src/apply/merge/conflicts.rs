//! Writes what lost into `__cdc_conflicts`, whole.

use rusqlite::Connection;

use super::super::{Error, Recorded};
use crate::model::{Key, NodeId, Value, Version};

/// Why something lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Both ends changed the row before either had seen the other's change.
    Concurrent,
    /// Two rows wanted one unique value.
    UniqueValue,
    /// History was lost, so nobody can tell who knew what.
    LostHistory,
    /// A repair that somebody asked for found another row here.
    Repair,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Self::Concurrent => "concurrent",
            Self::UniqueValue => "unique_value",
            Self::LostHistory => "lost_history",
            Self::Repair => "repair",
        }
    }
}

/// Who lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loser {
    /// What was here.
    Local,
    /// What came.
    Incoming,
}

/// A conflict of one key.
pub(super) struct Conflict<'a> {
    pub(super) table: &'a str,
    pub(super) key: &'a Key,
    pub(super) loser: Loser,
    pub(super) why: Why,
    pub(super) policy: String,
    pub(super) local: Option<Version>,
    pub(super) incoming: Option<Version>,
}

/// Where conflicts of one peer's window go.
pub(super) struct Book {
    pub(super) peer: NodeId,
    pub(super) now_ms: i64,
    /// How many were written.
    pub(super) written: Recorded,
}

impl Book {
    /// Records a row that lost, or a deletion where there is none. `columns` names the row's values, or those of the key
    /// that is deleted.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn record(
        &mut self,
        conn: &Connection,
        conflict: &Conflict<'_>,
        (columns, row): (&str, Option<&[Value]>),
    ) -> Result<(), Error> {
        let winner = match conflict.loser {
            Loser::Local => "incoming",
            Loser::Incoming => "local",
        };
        let loser = row.map(|row| Key(row.to_vec()).to_bytes());
        let version = |version: Option<Version>| version.map(|version| version.to_string());
        let sql = "INSERT INTO main.__cdc_conflicts(at, peer, tbl, key, winner, policy, why, local_version, \
                   incoming_version, loser, columns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        conn.prepare_cached(sql)?.execute((
            self.now_ms,
            self.peer.0,
            conflict.table,
            conflict.key.to_bytes(),
            winner,
            &conflict.policy,
            conflict.why.word(),
            version(conflict.local),
            version(conflict.incoming),
            loser,
            columns,
        ))?;
        self.written.one(conflict.table);
        Ok(())
    }
}
