//! Counters and gauges of one node; every name is in this file.
//!
//! Whoever does the work counts it: a node has one [`Metrics`], reached through its [`super::Board`], and `status` shows
//! them all. A counter only rises and begins at 0 with the process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long we aim to hold a source's write lock at most; what takes longer is counted.
pub const WRITE_LOCK_AIM: Duration = Duration::from_millis(10);

/// A number that many threads may change.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Sets it, for a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Raises it to `value` if it is below, for a maximum.
    pub fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters and gauges of one node.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Metrics {
            /// Every name with its value, in the order of this file.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

metrics! {
    /// Windows read from the change log.
    windows_read_total,
    /// Windows handed to a link.
    windows_sent_total,
    /// Windows applied and committed.
    windows_applied_total,
    /// Changes (one a key) in windows that were sent.
    rows_sent_total,
    /// Rows written by windows that were applied.
    rows_upserted_total,
    /// Rows removed by windows that were applied.
    rows_deleted_total,
    /// Rows that copies sent, in ranges.
    snapshot_rows_sent_total,
    /// Rows that copies brought, in ranges.
    snapshot_rows_applied_total,
    /// Ranges of copies that a digest showed to be equal, so that their rows did not travel.
    snapshot_ranges_equal_total,
    /// Bytes of frames sent.
    bytes_sent_total,
    /// Bytes of frames received.
    bytes_received_total,
    /// Bytes that are sent and not acknowledged (gauge).
    bytes_in_flight,
    /// Sessions after the first, of all links.
    reconnects_total,
    /// Times that a transaction of ours held the database's write lock.
    write_locks_total,
    /// Those that held it for longer than [`WRITE_LOCK_AIM`].
    write_locks_long_total,
    /// The longest of them, in ms.
    write_lock_ms_max,
    /// Log entries pruned.
    log_pruned_total,
    /// Times that the schema was found changed.
    drifts_total,
    /// Consumers that were cut off because the log outgrew its retention.
    cut_offs_total,
    /// Conflicts that windows recorded.
    conflicts_total,
}

impl Metrics {
    /// Counts one hold of the write lock.
    pub fn held_write_lock(&self, held: Duration) {
        self.write_locks_total.one();
        if held > WRITE_LOCK_AIM {
            self.write_locks_long_total.one();
        }
        self.write_lock_ms_max.raise(u64::try_from(held.as_millis()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_holds_of_the_write_lock_count_as_long() {
        let metrics = Metrics::default();
        metrics.held_write_lock(Duration::from_millis(10));
        metrics.held_write_lock(Duration::from_millis(11));
        let value = |name: &str| metrics.values().into_iter().find(|(found, _)| *found == name).expect("a metric").1;
        assert_eq!(value("write_locks_total"), 2);
        assert_eq!(value("write_locks_long_total"), 1);
        assert_eq!(value("write_lock_ms_max"), 11);
    }
}
