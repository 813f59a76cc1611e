//! What travels from one node to another, as one transaction: a window.
//!
//! A window is, in this order: the catalog (where it changed, or at the start of a session), rows that are gone, rows as
//! they are now, at most one range or digest of a copy, and an end. The capture stage makes these items, the link
//! carries them as frames, the apply stage applies them in one transaction.

use bytes::Bytes;

use super::{Key, TableId};

/// The rows of one table as one Arrow record batch without its schema.
///
/// Columns are those of `TableSchema::wire_columns` (for deletions: of the key), each in the type that its code says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBatch {
    /// How many rows.
    pub rows: usize,
    /// A type code for each column; see `codec::batch`.
    pub codes: Vec<u8>,
    /// The Arrow IPC message header, its length as four little-endian bytes before it, and then the body.
    pub data: Bytes,
}

/// What the rows of a batch say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsOp {
    /// The row of this key is this one.
    Upsert,
    /// There is no row that `IS` this key.
    Delete,
    /// For keys with a NULL in them, which may name several rows: the rows that `IS` this key are exactly these. All rows
    /// of one key stand in one batch, side by side.
    Exactly,
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Which table.
    pub table: TableId,
    /// What they say.
    pub op: RowsOp,
    /// The rows. Three columns stand before the table's: seq and ts (integers) of the change, and its origin (integer,
    /// NULL for the sender itself).
    pub batch: EncodedBatch,
}

/// How a range's rows count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeMode {
    /// The keys of the range are exactly these rows.
    Exact,
    /// These rows are in the range; others may be too (`seed: merge`).
    Union,
}

/// A piece of a table's copy: *in this table, the keys in (low, high] are exactly these rows*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which table.
    pub table: TableId,
    /// Below the first key; `None` is open.
    pub low: Option<Key>,
    /// The last key; `None` is open.
    pub high: Option<Key>,
    /// Exactly these rows, or these among others.
    pub mode: RangeMode,
    /// Whether the copy of the table ends with it.
    pub last: bool,
    /// Whether this copy replaces history that is lost.
    pub lost_history: bool,
    /// The rows in ascending key order; the table's wire columns alone (no seq, ts, origin).
    pub batches: Vec<EncodedBatch>,
}

/// A piece of a table's copy, said by its digest: the receiver answers Need where it has it otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Which table.
    pub table: TableId,
    /// Below the first key; `None` is open.
    pub low: Option<Key>,
    /// The last key; `None` is open.
    pub high: Option<Key>,
    /// Exactly these rows, or these among others.
    pub mode: RangeMode,
    /// Whether the copy of the table ends with it.
    pub last: bool,
    /// Whether this copy replaces history that is lost.
    pub lost_history: bool,
    /// How many rows are in the range.
    pub rows: u64,
    /// xxh3-128 over key order, storage class and bytes; see `codec::digest`.
    pub digest: u128,
}

/// A table as its owner has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDef {
    /// This generation's id.
    pub id: TableId,
    /// The ids that this table had before, newest first: how a rename is told from a drop and a new table.
    pub ancestors: Vec<TableId>,
    /// Its name.
    pub name: String,
    /// Its CREATE TABLE.
    pub ddl: String,
    /// Its CREATE INDEXes: the unique ones, and the others where the link carries them.
    pub indexes: Vec<SchemaObject>,
    /// Its Arrow schema with CloudQuery's metadata, as an IPC message; for readers that know no SQLite DDL.
    pub arrow_schema: Bytes,
    /// An estimate of how many rows it has, for the progress shown while it is copied.
    pub rows_estimate: u64,
}

/// Kinds of schema objects besides tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "SQLite's own words")]
pub enum ObjectKind {
    Index,
    View,
    Trigger,
}

impl ObjectKind {
    /// As `sqlite_schema.type` has it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::View => "view",
            Self::Trigger => "trigger",
        }
    }
}

/// An index, a view or a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaObject {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// The table or view that it is on; a view's own name.
    pub table: String,
    /// Its CREATE statement.
    pub sql: String,
}

/// One thing that a window says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowItem {
    /// Begins the catalog: what follows until the first rows is everything that the link has; what else was received
    /// from this peer is gone there.
    Catalog,
    /// A table.
    Table(TableDef),
    /// A view or a trigger.
    Object(SchemaObject),
    /// Rows that changed.
    Rows(Rows),
    /// A piece of a copy.
    Range(Range),
    /// A piece of a copy, by digest.
    Digest(Digest),
}

/// How a window ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowEnd {
    /// The sender's log up to here is covered; what recognises that entry goes with it.
    pub to: super::Checkpoint,
    /// The last sequence number of the sender's log in the window's read transaction.
    pub head: i64,
    /// How far, in that transaction, the sender had applied the receiver's log.
    pub seen: i64,
    /// How many of the receiver's windows of this session it had applied in that transaction; 0 one way.
    pub applied: u64,
    /// Whether no copy from the receiver is unfinished at the sender.
    pub whole: bool,
    /// Whether the window ends where the log ended; otherwise it is a part of one, and the replica is between
    /// transactions until the last part is applied.
    pub last_part: bool,
    /// Tables whose copy starts anew, because capture may have missed something.
    pub markers: Vec<TableId>,
    /// Tables whose copy starts anew, because somebody asked for it.
    pub repairs: Vec<TableId>,
    /// `sqlite_sequence` of the window's tables: name and value; the larger value stays.
    pub sequences: Vec<(String, i64)>,
    /// `PRAGMA user_version`; one way only.
    pub user_version: Option<i32>,
    /// `PRAGMA application_id`; one way only.
    pub application_id: Option<i32>,
}

impl WindowEnd {
    /// Every table whose copy starts anew, for whatever reason.
    pub fn begun_anew(&self) -> impl Iterator<Item = TableId> {
        self.markers.iter().chain(&self.repairs).copied()
    }
}
