//! What a run did, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The run's id, which the plugins were told.
    pub invocation_id: String,
    /// A sync a source, in the file's order.
    pub syncs: Vec<SourceSummary>,
    /// Rows of all sources.
    pub resources: u64,
    /// Errors of all plugins.
    pub errors: u64,
    /// Warnings of all plugins.
    pub warnings: u64,
    /// How long it took, plugins' starts included.
    pub duration_ms: u64,
}

/// The sync of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceSummary {
    /// The source's name.
    pub source: String,
    /// Rows that it sent.
    pub resources: u64,
    /// The same by table.
    pub resources_per_table: BTreeMap<String, u64>,
    /// Failures by table, as the source told them.
    pub errors_per_table: BTreeMap<String, u64>,
    /// What it failed to read: as it told, or as it logged, whichever is more, for most do both.
    pub errors: u64,
    /// What it warned of in its log.
    pub warnings: u64,
    /// The destinations, in the source's order.
    pub destinations: Vec<DestinationSummary>,
    /// How long it took.
    pub duration_ms: u64,
}

/// A destination's part in a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DestinationSummary {
    /// Its name.
    pub destination: String,
    /// Errors in its log: what it could not write, and did not say.
    pub errors: u64,
    /// Warnings in its log.
    pub warnings: u64,
}

impl Summary {
    /// The summary of these syncs, with their totals.
    pub fn new(invocation_id: &str, syncs: Vec<SourceSummary>, duration_ms: u64) -> Self {
        let of_destinations = |count: fn(&DestinationSummary) -> u64| -> u64 {
            syncs.iter().flat_map(|sync| &sync.destinations).map(count).sum()
        };
        let errors = of_destinations(|destination| destination.errors);
        let warnings = of_destinations(|destination| destination.warnings);
        Self {
            invocation_id: invocation_id.to_owned(),
            resources: syncs.iter().map(|sync| sync.resources).sum(),
            errors: errors + syncs.iter().map(|sync| sync.errors).sum::<u64>(),
            warnings: warnings + syncs.iter().map(|sync| sync.warnings).sum::<u64>(),
            syncs,
            duration_ms,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.errors == 0 { "successfully" } else { "with errors" };
        write!(
            f,
            "Sync completed {how}. Resources: {}, Errors: {}, Warnings: {}, Time: {}",
            self.resources,
            self.errors,
            self.warnings,
            span(self.duration_ms / 1_000)
        )
    }
}

/// Seconds as Go's programs say them: `3s`, `1m5s`, `1h0m3s`.
fn span(seconds: u64) -> String {
    match (seconds / 3_600, seconds % 3_600 / 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_reads_like_the_clis() {
        let mut sync = SourceSummary { resources: 1_200, warnings: 1, ..SourceSummary::default() };
        let summary = Summary::new("id", vec![sync.clone()], 3_999);
        let text = "Sync completed successfully. Resources: 1200, Errors: 0, Warnings: 1, Time: 3s";
        assert_eq!(summary.to_string(), text);
        sync.destinations = vec![DestinationSummary { errors: 2, ..DestinationSummary::default() }];
        let summary = Summary::new("id", vec![sync.clone(), sync], 3_605_000);
        let text = "Sync completed with errors. Resources: 2400, Errors: 4, Warnings: 2, Time: 1h0m5s";
        assert_eq!(summary.to_string(), text);
    }
}
