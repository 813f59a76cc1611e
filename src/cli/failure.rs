//! What a failure of a command looks like: one line, and an exit code.

use super::Usage;
use crate::apply::conflicts;
use crate::capture;
use crate::cloudquery::engine;
use crate::config;
use crate::events;
use crate::model::Fault;
use crate::sqlite;
use crate::telemetry::logging;

/// The chain of causes as one line, and what to do where SQLite's words leave that open.
pub(super) fn message(error: &anyhow::Error) -> String {
    let config = error.chain().find_map(|cause| cause.downcast_ref::<config::Error>());
    if let Some(faults @ config::Error::Invalid { .. }) = config {
        return faults.to_string();
    }
    if let Some(faults @ engine::Error::Spec { .. }) = error.chain().find_map(|cause| cause.downcast_ref()) {
        return faults.to_string();
    }
    sqlite::said_with_advice(error.as_ref())
}

/// Usage and configuration are 2, everything else 1.
pub(super) fn exit_code(error: &anyhow::Error) -> u8 {
    let is_usage = |cause: &(dyn std::error::Error + 'static)| {
        let capture = cause.downcast_ref::<capture::Error>();
        let missing = [
            cause.downcast_ref::<sqlite::Error>().map(sqlite::Error::word),
            capture.map(capture::Error::word),
            cause.downcast_ref::<events::Error>().map(events::Error::word),
        ];
        cause.is::<Usage>()
            // A file that is not there was named wrongly, as a table that is not.
            || missing.contains(&Some("missing"))
            || cause.is::<config::Error>()
            || cause.is::<logging::Error>()
            || capture.is_some_and(|error| error.fault() == Fault::Usage)
            || cause.downcast_ref::<events::Error>().is_some_and(|error| error.fault() == Fault::Usage)
            || cause.downcast_ref::<conflicts::Error>().is_some_and(|error| error.fault() == Fault::Usage)
            || cause.downcast_ref::<engine::Error>().is_some_and(|error| error.fault() == Fault::Usage)
    };
    if error.chain().any(is_usage) { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::super::args;
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_says_everything_once() {
        let error = anyhow::Error::from(std::io::Error::other("disk on fire"));
        let error = error.context("write to /data/b.db").context("apply batch");
        assert_eq!(message(&error), "apply batch: write to /data/b.db: disk on fire");
        let repeated = anyhow::anyhow!("read: no such file").context("read: no such file");
        assert_eq!(message(&repeated), "read: no such file");
    }

    #[test]
    fn wrong_usage_and_configuration_have_their_own_exit_code() {
        assert_eq!(exit_code(&Usage("no".into()).into()), 2);
        let missing = args::config(std::path::Path::new("/does/not/exist.yaml")).context("run");
        assert_eq!(exit_code(&missing.expect_err("missing")), 2);
        let no_file = || sqlite::Error::Missing { path: "/does/not/exist.db".into() };
        for error in [no_file().into(), capture::Error::from(no_file()).into(), events::Error::from(no_file()).into()] {
            assert_eq!(exit_code(&error), 2, "{error:?}");
        }
        assert_eq!(exit_code(&anyhow::anyhow!("else")), 1);
    }
}
