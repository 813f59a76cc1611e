//! What the applier is given and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{MergeRules, SourceError};
use crate::migrate::Mode;
use crate::model::{
    Checkpoint, CopyState, CopyingBack, Key, NodeId, Position, SchemaKinds, Selection, TableId, WindowEnd, WindowItem,
};

/// What the link's own configuration says about what comes from the peer.
#[derive(Clone, Debug)]
pub struct LinkRules {
    /// Which schema changes of the peer's are made here.
    pub mode: Mode,
    /// Which schema objects besides tables are taken from the peer.
    pub kinds: SchemaKinds,
    /// The tables that may come; another one from the peer is an error.
    pub selection: Selection,
    /// Whether the applications here are kept from writing into what is received.
    pub protect: bool,
    /// Whether the user's triggers here fire on what is applied.
    pub user_triggers: bool,
    /// Whether tables of the same names and shapes that were not received from the peer may be taken over.
    pub adopt: bool,
    /// How changes are merged where both ends write; none: the peer is mirrored.
    pub merge: Option<MergeRules>,
}

/// Puts the capture of this database right when its schema has changed.
pub trait Recapture: Send {
    /// Compares the schema with what is captured, inside the applier's own transaction. `ours`: whether the change was the
    /// applier's own, so that nothing can have slipped through.
    ///
    /// # Errors
    /// Why it cannot be put right.
    fn recapture(&mut self, conn: &rusqlite::Connection, ours: bool) -> Result<(), SourceError>;

    /// The same before the applier's transaction, in one of its own, after somebody else's change.
    ///
    /// # Errors
    /// Why it cannot be put right, or not now.
    fn recapture_ahead(&mut self, conn: &mut rusqlite::Connection) -> Result<(), SourceError>;
}

/// One window, as it came from a peer.
pub struct Window<'a> {
    /// Whose changes.
    pub peer: NodeId,
    /// The name that the peer is known by here.
    pub peer_name: &'a str,
    /// The link's rules.
    pub rules: &'a LinkRules,
    /// The position in the peer's log after which the window begins; must be the checkpoint.
    pub from: Position,
    /// Whether the peer no longer has what lies between the checkpoint and `from`: every table is copied again.
    pub lost_history: bool,
    /// What it says, read once, in order.
    pub items: &'a mut dyn Iterator<Item = Result<WindowItem, SourceError>>,
    /// How it ends.
    pub end: &'a WindowEnd,
    /// Two-way: whether a copy from here to the peer may be under way.
    pub copying_back: CopyingBack,
    /// The wall clock, in ms since 1970.
    pub now_ms: i64,
}

/// A piece of a table that the peer must send the rows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedRange {
    /// Which table.
    pub table: TableId,
    /// Below the first key; `None` is open.
    pub low: Option<Key>,
    /// The last key; `None` is open. Both open: the table's copy starts anew.
    pub high: Option<Key>,
}

/// How a table stands, told when it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    /// The table, by the id that its owner gave it.
    pub id: TableId,
    /// Its name.
    pub name: String,
    /// How far it is copied.
    pub state: CopyState,
    /// Rows copied so far.
    pub rows_copied: u64,
    /// How many its owner believes it has.
    pub rows_estimate: u64,
    /// What a person should know about it.
    pub note: Option<String>,
}

/// How many conflicts a window recorded, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded(BTreeMap<String, u64>);

impl Recorded {
    /// Counts one.
    pub(super) fn one(&mut self, table: &str) {
        match self.0.get_mut(table) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(table.to_owned(), 1)),
        }
    }

    /// Of all tables.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Tables with their counts: `lines 3, orders 1`.
impl std::fmt::Display for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (table, count)) in self.0.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{table} {count}")?;
        }
        Ok(())
    }
}

/// What applying a window did. All of it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Up to where the peer's log is applied now.
    pub checkpoint: Checkpoint,
    /// What the peer must send.
    pub needs: Vec<NeedRange>,
    /// Rows written because they changed or were copied.
    pub upserts: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// Whether a schema was changed here.
    pub migrated: bool,
    /// What a migration could not keep, and what it left.
    pub notes: Vec<String>,
    /// How all of the peer's tables stand, where a copy moved or a table came or went; otherwise empty.
    pub tables: Vec<TableStatus>,
    /// How long the write lock was held.
    pub held_lock: Duration,
    /// Two-way: entries of our log that were read meanwhile.
    pub absorbed: u64,
    /// Two-way: up to where the sender had applied our log, after which nothing may be pruned.
    pub seen: i64,
    /// Two-way: conflicts recorded.
    pub conflicts: Recorded,
    /// Two-way: entries that were appended to our log.
    pub logged: u64,
}

impl Applied {
    /// Nothing done yet.
    pub(super) fn nothing(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            needs: Vec::new(),
            upserts: 0,
            deletes: 0,
            migrated: false,
            notes: Vec::new(),
            tables: Vec::new(),
            held_lock: Duration::ZERO,
            absorbed: 0,
            seen: 0,
            conflicts: Recorded::default(),
            logged: 0,
        }
    }
}
