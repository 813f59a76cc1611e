//! How far a run is, for whoever shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Counts that the engine keeps and others look at. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Seen>>);

/// What there is to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is done now, in a few words.
    pub doing: String,
    /// Rows that came from sources.
    pub resources: u64,
    /// Tables with the rows that came of them, of the source that is synced now.
    pub tables: BTreeMap<String, u64>,
    /// Tables that could not be read, or not wholly.
    pub errors: u64,
}

impl Progress {
    /// What there is to see now.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    pub(super) fn doing(&self, what: impl Into<String>) {
        let what = what.into();
        tracing::info!("{what}");
        self.lock().doing = what;
    }

    pub(super) fn next_source(&self) {
        self.lock().tables.clear();
    }

    pub(super) fn rows(&self, table: &str, rows: u64) {
        let mut seen = self.lock();
        seen.resources += rows;
        match seen.tables.get_mut(table) {
            Some(count) => *count += rows,
            None => {
                seen.tables.insert(table.to_owned(), rows);
            }
        }
    }

    pub(super) fn error(&self) {
        self.lock().errors += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
