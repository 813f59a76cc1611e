//! Tells which tables' copies have just become whole, for the log: each once.

use std::collections::BTreeMap;

use super::report::{TableReport, TableState};

/// Since when the tables of a link are being copied.
#[derive(Debug, Default)]
pub(super) struct Copying {
    since_ms: BTreeMap<String, i64>,
}

/// A table whose copy is whole.
#[derive(Debug, PartialEq)]
pub(super) struct Copied {
    pub(super) table: String,
    pub(super) rows: u64,
    /// Since its first range; 0 where it came with one window.
    pub(super) seconds: f64,
}

impl Copying {
    /// What has become whole between two states of a link's tables. Nothing where there is no session yet: what is whole
    /// then was copied by another. Nor does a table that was whole under another name count.
    pub(super) fn whole(
        &mut self,
        before: &BTreeMap<String, TableReport>,
        now: &BTreeMap<String, TableReport>,
        (connected, now_ms): (bool, i64),
    ) -> Vec<Copied> {
        self.since_ms.retain(|name, _| now.contains_key(name));
        let live = |table: &&TableReport| table.state == TableState::Live;
        let was_live = |table: &TableReport| {
            let same = |other: &&TableReport| other.name == table.name || other.generation == table.generation;
            before.values().filter(live).any(|other| same(&other))
        };
        for table in now.values().filter(|table| table.state == TableState::Snapshot) {
            self.since_ms.entry(table.name.clone()).or_insert(now_ms);
        }
        let whole: Vec<&TableReport> =
            now.values().filter(live).filter(|table| connected && !was_live(table)).collect();
        whole.into_iter().map(|table| self.copied(table, now_ms)).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "a time for people")]
    fn copied(&mut self, table: &TableReport, now_ms: i64) -> Copied {
        let since_ms = self.since_ms.remove(&table.name).unwrap_or(now_ms);
        let seconds = (now_ms - since_ms).max(0) as f64 / 1_000.0;
        Copied { table: table.name.clone(), rows: table.rows_copied, seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(all: &[(&str, i64, TableState)]) -> BTreeMap<String, TableReport> {
        let table = |(name, generation, state): &(&str, i64, TableState)| TableReport {
            generation: Some(*generation),
            rows_copied: 9,
            ..TableReport::new((*name).to_owned(), *state)
        };
        all.iter().map(|one| (one.0.to_owned(), table(one))).collect()
    }

    #[test]
    fn a_copy_that_becomes_whole_is_told_once_and_what_was_whole_is_not() {
        use TableState::{Live, Pending, Snapshot};
        let mut copying = Copying::default();
        let states = [
            tables(&[("old", 1, Live)]),
            tables(&[("old", 1, Live), ("small", 2, Live), ("large", 3, Snapshot), ("last", 4, Pending)]),
            tables(&[("old", 1, Live), ("small", 2, Live), ("large", 3, Live), ("last", 4, Pending)]),
            tables(&[("renamed", 1, Live), ("small", 7, Live), ("large", 3, Live), ("last", 4, Live)]),
            tables(&[("renamed", 1, Snapshot), ("small", 7, Live), ("large", 3, Live), ("last", 4, Live)]),
            tables(&[("renamed", 1, Live), ("small", 7, Live), ("large", 3, Live), ("last", 4, Live)]),
        ];
        assert_eq!(copying.whole(&BTreeMap::new(), &states[0], (false, 0)), [], "an earlier process copied it");
        let mut told = Vec::new();
        for (now_ms, pair) in (1_000..).step_by(1_000).zip(states.windows(2)) {
            let whole = copying.whole(&pair[0], &pair[1], (true, now_ms));
            told.extend(whole.into_iter().map(|one| (one.table, one.rows, one.seconds.to_string())));
        }
        let expected = [("small", "0"), ("large", "1"), ("last", "0"), ("renamed", "1")];
        assert_eq!(told, expected.map(|(table, seconds)| (table.to_owned(), 9, seconds.to_owned())));
    }
}
