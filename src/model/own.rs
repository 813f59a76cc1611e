//! What in a database is of our own, by name.

/// What everything of ours in a database begins with.
pub const OURS: &str = "__cdc_";

/// Our tables and their indexes, but for the log, whose name is chosen.
pub const OWN_NAMES: [&str; 9] = [
    "__cdc_meta",
    "__cdc_tables",
    "__cdc_consumers",
    "__cdc_checkpoints",
    "__cdc_copies",
    "__cdc_received",
    "__cdc_conflicts",
    "__cdc_conflicts_why",
    "__cdc_taken_over",
];

/// Whether the log can have that name: one by which it is told to be ours, and which nothing else of ours has.
pub fn is_log_name(name: &str) -> bool {
    let is_ours = name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS));
    is_ours && name.len() > OURS.len() && !OWN_NAMES.iter().any(|taken| name.eq_ignore_ascii_case(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_cannot_have_a_name_that_would_be_captured_or_is_taken() {
        for (name, fine) in [
            ("__cdc_log", true),
            ("__CDC_l", true),
            ("__cdc_", false),
            ("log", false),
            ("__cdc_Meta", false),
            ("__cdc_taken_over", false),
            ("__cdc_conflicts_why", false),
        ] {
            assert_eq!(is_log_name(name), fine, "{name}");
        }
    }
}
