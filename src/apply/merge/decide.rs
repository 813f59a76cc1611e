//! Who wins. Pure.

use crate::model::{NodeId, Selection, Version};

use super::index::Entry;

/// How a link decides between two changes that had not seen each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The higher version wins.
    LastWriteWins,
    /// One end of the link wins.
    Prefer {
        /// Its node's name.
        name: String,
        /// Whether that is this end.
        ours: bool,
    },
}

impl Policy {
    /// Whether an incoming change wins over a concurrent one of here.
    pub fn incoming_wins(&self, incoming: Version, local: Version) -> bool {
        match self {
            Self::LastWriteWins => incoming > local,
            Self::Prefer { ours, .. } => !ours,
        }
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LastWriteWins => f.write_str("last_write_wins"),
            Self::Prefer { name, .. } => write!(f, "prefer: {name}"),
        }
    }
}

/// The policies of a link: of all tables, and of some.
#[derive(Clone, Debug)]
pub struct Policies {
    /// Where no other is given.
    pub default: Policy,
    /// By glob; the first that names a table counts.
    pub tables: Vec<(Selection, Policy)>,
}

impl Policies {
    /// The policy of a table.
    pub fn of(&self, table: &str) -> &Policy {
        self.tables.iter().find(|(tables, _)| tables.has(table)).map_or(&self.default, |(_, policy)| policy)
    }
}

/// What holds on a link whose changes are merged, not mirrored.
#[derive(Clone, Debug)]
pub struct MergeRules {
    /// This node's name.
    pub our_name: String,
    /// Whether other links hang on this node, so that what comes from the peer is logged to be forwarded.
    pub forwards: bool,
    /// Whether the peer only sends: it never sees what is here, so whatever did not come from it is unknown to it.
    pub one_way: bool,
    /// Who wins.
    pub policies: Policies,
    /// How far ahead of this clock a change may be, in ms.
    pub clock_skew_max_ms: i64,
}

/// A first contact that a seed decides, while its copy runs; says itself as conflicts have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seed {
    /// The node whose rows win.
    pub(super) winner: String,
    /// Whether what only one end has stays.
    pub(super) is_union: bool,
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.is_union { "merge, prefer " } else { "" };
        write!(f, "seed: {how}{}", self.winner)
    }
}

/// Whether the newest local entry of a key was not known to the sender of a window that had seen our log up to `seen`.
pub(super) fn is_concurrent(entry: Option<&Entry>, seen: i64, sender: NodeId) -> bool {
    entry.is_some_and(|entry| entry.seq > seen && entry.via != Some(sender))
}

/// What becomes of an incoming change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether it is written.
    pub(super) accepted: bool,
    /// Whether what loses is recorded.
    pub(super) recorded: bool,
}

/// Judges an incoming change. `differs`: whether it would change anything. `blind`: whether nobody can tell who knew what.
pub(super) fn judge(winner: Option<bool>, differs: bool, blind: bool) -> Verdict {
    let recorded = (winner.is_some() || blind) && differs;
    Verdict { accepted: winner != Some(false), recorded }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(ts_ms: i64, origin: i64) -> Version {
        Version { ts_ms, origin: NodeId(origin), seq: 1 }
    }

    #[test]
    fn the_higher_version_wins_and_a_preferred_end_whatever_the_versions() {
        let lww = Policy::LastWriteWins;
        assert!(lww.incoming_wins(version(2, 1), version(1, 9)));
        assert!(!lww.incoming_wins(version(1, 1), version(1, 2)), "of one moment the node decides");
        let prefer = |ours| Policy::Prefer { name: "a".to_owned(), ours };
        assert!(prefer(false).incoming_wins(version(1, 1), version(2, 2)));
        assert!(!prefer(true).incoming_wins(version(3, 1), version(2, 2)));
    }

    #[test]
    fn what_the_sender_had_seen_or_sent_itself_is_not_concurrent() {
        let entry = |seq, via| Entry { seq, version: version(1, 1), via };
        let sender = NodeId(7);
        assert!(!is_concurrent(None, 0, sender));
        assert!(!is_concurrent(Some(&entry(5, None)), 5, sender));
        assert!(is_concurrent(Some(&entry(6, None)), 5, sender));
        assert!(!is_concurrent(Some(&entry(6, Some(sender))), 5, sender));
        assert!(is_concurrent(Some(&entry(6, Some(NodeId(8)))), 5, sender));
    }

    #[test]
    fn equal_rows_are_no_conflict_and_the_blind_record_everything() {
        let verdict = |accepted, recorded| Verdict { accepted, recorded };
        assert_eq!(judge(None, true, false), verdict(true, false));
        assert_eq!(judge(None, true, true), verdict(true, true));
        assert_eq!(judge(Some(true), true, false), verdict(true, true));
        assert_eq!(judge(Some(false), true, false), verdict(false, true));
        assert_eq!(judge(Some(false), false, true), verdict(false, false));
    }
}
