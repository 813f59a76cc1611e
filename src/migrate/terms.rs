//! What the caller says and is told: the rules of a link, a peer's catalog, and what became of it.

use crate::model::{SchemaKinds, SchemaObject, Selection, TableDef, TableId, TableSchema};

/// Which of a peer's schema changes are made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those that lose nothing; the others halt the link.
    Safe,
    /// All.
    Forced,
}

/// Everything that a peer has for a link.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Its tables, with their indexes.
    pub tables: Vec<TableDef>,
    /// Its views and triggers.
    pub objects: Vec<SchemaObject>,
}

/// A table that was received from this peer before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The id that the peer gave it.
    pub id: TableId,
    /// Its name here.
    pub name: String,
}

/// What the link allows.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Which changes are made.
    pub mode: Mode,
    /// Which kinds of objects are carried besides tables.
    pub kinds: SchemaKinds,
    /// The tables that may come.
    pub selection: &'a Selection,
    /// Whether a table that was not received from this peer, of the same name and shape, is taken over with its rows.
    pub adopt: bool,
    /// Whether rows are applied with REPLACE, so that a unique index of this end's own would let it remove good rows. If
    /// not, both ends write, and change schemas: of what differs only that is made which the peer changed.
    pub mirror: bool,
}

/// What became of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The peer's tables, in its order.
    pub tables: Vec<Migrated>,
    /// Ids that the peer has no more, with their names, and whether the table is gone here too (or another one of the
    /// peer's by now).
    pub gone: Vec<(TableId, String, bool)>,
    /// Tables that were dropped here, where both ends write, and that the peer still has: their ids, the ids under which
    /// they were held, and their names. They stay away.
    pub away: Vec<(TableId, TableId, String)>,
    /// What could not survive, and what stays although the peer has it no more: for the log and `status`.
    pub notes: Vec<String>,
}

/// What became of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Its id at the peer.
    pub id: TableId,
    /// The id under which it was held, if it was.
    pub previous: Option<TableId>,
    /// Its name.
    pub name: String,
    /// As the peer has it: defines what travels.
    pub schema: TableSchema,
    /// What was done.
    pub change: Change,
    /// Whether this end must ask for a copy: the peer cannot know that it is needed.
    pub copy: bool,
    /// As it is here now: may lack columns, or have more.
    pub local: TableSchema,
    /// Columns of these that the peer had once and dropped, in upper case.
    pub left: Vec<String>,
}

/// What was done to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, and empty.
    Created,
    /// Nothing, but for its indexes.
    Same,
    /// Columns came, went or were renamed.
    Altered,
    /// The table has another name.
    Renamed,
    /// It was made anew with the rows that fit.
    Rebuilt,
}
