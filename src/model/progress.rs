//! How far the copy of a table is. Both ends of a link keep it by the same rules, the receiver durably.

use super::{Key, TableId};

/// How far one table's copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Nothing of it is known to be right.
    Pending,
    /// Every key up to and including this one is right.
    Copying {
        /// The last key of the last applied range.
        after: Key,
    },
    /// The table is whole; from here on changes keep it equal.
    Done,
}

/// How far one table of a peer is copied here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableProgress {
    /// The table, by the id that its owner gave it.
    pub table: TableId,
    /// How far.
    pub state: CopyState,
    /// Whether this copy replaces history that is lost (cut off, drift, seed), so that contradictions are recorded.
    pub lost_history: bool,
}

/// Where both ends write: whether a copy from here to the peer whose rows come in may be under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyingBack {
    /// None.
    No,
    /// One that somebody asked for, and that nothing was sent of. A copy that replaces lost history goes before it, so the
    /// two do not cross.
    Waits,
    /// The two may cross, and swap what both ends have: what the peer's changes here must be said as our own.
    #[default]
    UnderWay,
}
