//! Where in a node's change log, and who it is.

use std::fmt;

/// Names one life of a change log: random, new whenever the log is created anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Epoch(pub i64);

/// Names a node for ever: random, kept in its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct NodeId(pub i64);

/// A place in one node's change log.
///
/// `seq` is the sequence number of the entry up to and including which something holds; 0 means before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which log.
    pub epoch: Epoch,
    /// Which entry of it.
    pub seq: i64,
}

/// Up to where a peer's log is durably applied here, with what recognises that log again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The position.
    pub position: Position,
    /// `ts` of the entry at the position, in ms since 1970.
    pub ts_ms: i64,
    /// xxh3-64 of that entry's columns: tells a log that was restored from a backup and written anew.
    pub fingerprint: i64,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.seq, self.epoch)
    }
}
