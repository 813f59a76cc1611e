//! What was done to a database, line by line, for whoever asked: the same from every process that may own it.

use super::{Installed, Reconciled, SkippedTable};

impl Installed {
    /// What an installation did, or that it did nothing.
    pub fn lines(&self) -> Vec<String> {
        let nothing = self.did.is_empty().then(|| "nothing to do: the capture is in place".to_owned());
        nothing.into_iter().chain(self.news()).collect()
    }

    /// What it did, and what it could not.
    pub fn news(&self) -> impl Iterator<Item = String> {
        self.did.iter().cloned().chain(skipped(&self.skipped))
    }
}

impl Reconciled {
    /// What a schema change meant. `again`: what becomes of a table of which changes may have been missed.
    pub fn lines(&self, again: &str) -> Vec<String> {
        let copied = self.copied_again.iter().map(|(_, table)| format!("{table}: {again}"));
        let done = ["done".to_owned()].into_iter().chain(self.notes.iter().cloned());
        done.chain(copied).chain(skipped(&self.skipped)).collect()
    }
}

/// What was removed, by what [`super::teardown()`] returned.
pub fn removed_lines(removed: &[String]) -> Vec<String> {
    if removed.is_empty() {
        return vec!["nothing of Twinlite's is in this database".to_owned()];
    }
    let removed = removed.iter().map(|object| format!("removed {object}"));
    removed.chain(["the journal mode stays WAL".to_owned()]).collect()
}

fn skipped(tables: &[SkippedTable]) -> impl Iterator<Item = String> {
    tables.iter().map(|table| format!("skipped {}: {}", table.name, table.reason))
}
