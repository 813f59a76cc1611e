//! The version of a change: what decides between two that had not seen each other.

use std::fmt;

use super::NodeId;

/// A version, totally ordered: by time, then by the node that made it, then by its place in that node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The hybrid clock's time, in ms since 1970.
    pub ts_ms: i64,
    /// Where it was committed, or the hub that had to give it a fresh one.
    pub origin: NodeId,
    /// The sequence number in the origin's log.
    pub seq: i64,
}

impl Version {
    /// What a range of a copy says has no version: it is below every other.
    pub const LOWEST: Self = Self { ts_ms: i64::MIN, origin: NodeId(i64::MIN), seq: i64::MIN };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.ts_ms, self.seq, self.origin)
    }
}
