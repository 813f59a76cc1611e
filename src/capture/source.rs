//! The seam between whoever finds out what changed and whoever sends it.
//!
//! A [`ChangeSource`] is asked for what happened after a position and says it as a window. [`super::reader::LogReader`]
//! is the one there is: it reads the log that our triggers write. A second one is to come that installs nothing and
//! reads the pages changed in the WAL; so nothing here speaks of triggers, and a window may hold ranges.
//!
//! `replicate` feeds requests in, and hands the items on to the link.

use std::io;
use std::sync::Arc;

pub use super::read_error::Error;
use crate::codec::Compression;
use crate::model::{Key, NodeId, RangeMode, SchemaKinds, Selection, TableId, WindowEnd, WindowItem};

/// Where a window's items go. It keeps them (a window is sent only when the read transaction has ended) and puts them in
/// the order that a window has: a source gives each part of the catalog in its order, and rows as it finds them.
pub type Sink<'a> = dyn FnMut(WindowItem) -> io::Result<()> + 'a;

/// Something that knows what changed in a database.
pub trait ChangeSource: Send + 'static {
    /// Reads one window in one read transaction, which has ended when this returns.
    ///
    /// # Errors
    /// The database's, the encoding's or the sink's. What the sink was given before is then worth nothing.
    fn read(&mut self, request: &ReadRequest, sink: &mut Sink<'_>) -> Result<ReadOutcome, Error>;
}

/// What a window is to say.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// The log's entries up to here were sent already.
    pub after: i64,
    /// `ts` and fingerprint of the entry there, by which it is told whether this is still the same log; `None`: it is
    /// not looked at.
    pub mark: Option<(i64, i64)>,
    /// The `schema_version` whose catalog the link has; `None` at the start of a session.
    pub catalog_known: Option<i64>,
    /// The tables that the link wants.
    pub selection: Arc<Selection>,
    /// The schema objects besides tables that it wants.
    pub kinds: SchemaKinds,
    /// A piece of a table's copy to read along.
    pub copy: Option<CopyStep>,
    /// How many changed rows a window may hold before it is split; `None`: it is never split.
    pub window_rows: Option<usize>,
    /// Where the peer's changes are applied here too.
    pub two_way: Option<TwoWay>,
    /// Rows in a batch at most.
    pub batch_rows: usize,
    /// Bytes in a batch at most, unless one row has more.
    pub batch_bytes: usize,
    /// How batches are compressed.
    pub compression: Compression,
}

/// What a window to a peer whose changes are applied here says besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoWay {
    /// The peer. Rows whose newest change came from it are left out.
    pub peer: NodeId,
    /// Whether a copy to it waits while one from it is unfinished here. Of two copies that began at once, the one from
    /// the smaller node id goes first.
    pub yields: bool,
    /// How many windows of the peer were ever applied here when the session began; see [`WindowEnd::applied`].
    pub windows_before: u64,
}

/// A piece of a table's copy: the rows with keys above `low`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStep {
    /// Which table, by the id of its newest generation.
    pub table: TableId,
    /// Where the piece before ended; `None`: the first piece.
    pub low: Option<Key>,
    /// Where it ends at the latest; `None`: the table's end.
    pub high: Option<Key>,
    /// Whether it is exactly (low, high]: `rows_max` and `bytes_max` do not count then. A given `high` means the same.
    pub bounded: bool,
    /// Rows or their digest.
    pub how: CopyHow,
    /// Rows at most.
    pub rows_max: usize,
    /// Bytes of values at most, unless one row has more.
    pub bytes_max: usize,
    /// How the rows count at the receiver; passed on.
    pub mode: RangeMode,
    /// Whether this copy replaces history that is lost; passed on.
    pub lost_history: bool,
}

/// How a piece of a copy is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyHow {
    /// By its rows.
    Rows,
    /// By their digest.
    Digest,
    /// By digest, unless the whole table fits into this one step.
    DigestUnlessSmall,
}

/// What a read came to.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one a window, moved once")]
pub enum ReadOutcome {
    /// The schema is not the one that the triggers were last compared with. Nothing was read; compare, then ask again.
    SchemaChanged,
    /// There is nothing to say.
    Nothing {
        /// The log's last sequence number.
        head: i64,
        /// How far the peer's log is applied here; see [`WindowEnd::seen`].
        seen: i64,
        /// Whether the copy that was asked for waits for the peer's own.
        yielded: bool,
    },
    /// A window.
    Window(ReadWindow),
}

/// A window that was read; its items are in the sink.
#[derive(Debug)]
pub struct ReadWindow {
    /// How it ends.
    pub end: WindowEnd,
    /// The `schema_version` that it was read at.
    pub catalog: i64,
    /// The link's tables, where the window holds the catalog.
    pub tables: Option<Vec<CatalogTable>>,
    /// Views and triggers that the catalog leaves out, because they need what the link does not carry.
    pub held_back: Vec<String>,
    /// How far the copy got, where one was asked for and its table is there.
    pub copied: Option<Copied>,
    /// Whether the copy that was asked for waits for the peer's own.
    pub yielded: bool,
    /// Changed rows in it.
    pub changes: u64,
    /// `ts` of the first log entry that it covers.
    pub first_ts_ms: Option<i64>,
}

/// A table of the link, as the sender keeps account of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTable {
    /// Its newest generation.
    pub id: TableId,
    /// The ids that it had before, newest first.
    pub ancestors: Vec<TableId>,
    /// Its name.
    pub name: String,
    /// An estimate of its rows.
    pub rows_estimate: u64,
    /// Those of its ancestors that had the same key columns.
    pub keyed_alike: Vec<TableId>,
}

/// How far a piece of a copy got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Which table.
    pub table: TableId,
    /// The last key of the piece; `None`: the table's end.
    pub high: Option<Key>,
    /// Whether the table ends with it.
    pub last: bool,
    /// Rows in it.
    pub rows: u64,
    /// Whether it was said by digest.
    pub as_digest: bool,
    /// Whether its copy replaces history that is lost, as the step had it.
    pub lost_history: bool,
}
