//! The newest entries of a change log, by which entries are counted as the changes that they are.
//!
//! With images an update is two entries, or more where a row is wide. Where the tail reaches the count is exact; for entries
//! before and behind it is an estimate, by the tail's own share.

/// The newest entries of a log. By default none is known, and each entry counts as a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTail {
    /// The first entry that was looked at; above `head` where there was none.
    from: i64,
    /// The last entry of the log.
    head: i64,
    /// Where a change begins, ascending.
    begins: Vec<i64>,
}

impl Default for LogTail {
    fn default() -> Self {
        Self::new((1, 0), Vec::new())
    }
}

impl LogTail {
    /// Of entries from `from` to `head`, of which these begin a change, ascending.
    pub fn new((from, head): (i64, i64), begins: Vec<i64>) -> Self {
        Self { from, head, begins }
    }

    /// The last entry of the log.
    pub fn head(&self) -> i64 {
        self.head
    }

    /// The changes after the entry `seq` up to the entry `head`: 0 only where there is no entry.
    pub fn changes(&self, seq: i64, head: i64) -> u64 {
        let entries = entries(seq, head);
        let known = entries_within((self.from - 1, self.head), (seq, head));
        let begun = |at: i64| self.begins.partition_point(|begin| *begin <= at);
        let exact = begun(head.min(self.head)).saturating_sub(begun(seq.max(self.from - 1))) as u64;
        let beyond = entries - known;
        let looked_at = entries_within((self.from - 1, self.head), (i64::MIN, i64::MAX));
        let estimate = match looked_at {
            0 => beyond,
            _ => beyond.saturating_mul(self.begins.len() as u64).div_ceil(looked_at),
        };
        (exact + estimate).max(u64::from(entries > 0))
    }
}

fn entries(after: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(after)).unwrap_or(0)
}

fn entries_within((after, to): (i64, i64), (low, high): (i64, i64)) -> u64 {
    entries(after.max(low), to.min(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_of_two_entries_is_one_change_and_what_was_not_looked_at_is_estimated() {
        // Updates alone: 11 and 12, 13 and 14, up to 20.
        let tail = LogTail::new((11, 20), vec![11, 13, 15, 17, 19]);
        for (what, seq, head, changes) in [
            ("nothing", 20, 20, 0),
            ("further than the log", 25, 20, 0),
            ("the last one", 18, 20, 1),
            ("all that was looked at", 10, 20, 5),
            ("a hundred more before", -90, 20, 55),
            ("what came after the look", 20, 26, 3),
            ("never nothing", 19, 20, 1),
        ] {
            assert_eq!(tail.changes(seq, head), changes, "{what}");
        }
        assert_eq!(LogTail::default().changes(3, 9), 6, "nothing is known");
    }
}
