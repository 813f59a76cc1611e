//! Capture: what changed in a database, recorded by triggers inside the application's own transactions.
//!
//! [`install()`] puts the log and the triggers there ([`trigger_sql`] writes them, [`plan()`] shows them), [`reconcile`]
//! keeps them right when the schema drifts, [`prune()`] keeps the log small, [`run_ddl`] changes the schema without
//! losing sight of anything, and [`teardown()`] leaves nothing behind. The first rule of all of it: never block or break
//! the application.
//!
//! [`reader`] hands out what the log says as windows, with the ranges of a copy read along, [`events`] as events, and [`wake`]
//! tells when to look.
//!
//! Promised: every row that a transaction changed is named in the log in the same transaction, or its table is copied
//! again. Not promised: that what the log names has changed.

pub mod accounting;
pub mod change_log;
pub mod consumers;
pub mod events;
pub mod generation;
pub mod image_sql;
pub mod read_error;
pub mod reader;
pub mod source;
pub mod touch_sql;
pub mod trigger_sql;
pub mod wake;

mod batches;
mod checkpoint;
mod ddl;
mod decide;
mod drift;
mod epochs;
mod error;
mod examine;
mod index_sql;
mod install;
mod lineage;
mod maintainer;
mod missed;
mod options;
mod plan;
mod progress;
mod prune;
mod resync;
mod said;
mod situation;
mod snapshot;
mod take_over;
mod taken;
mod teardown;
mod trial;

#[cfg(test)]
mod capture_tests;
#[cfg(test)]
mod drift_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod test_support;

pub use change_log::LogState;
pub use checkpoint::{CheckpointVerdict, judge_checkpoint, log_state};
pub use ddl::run_ddl;
pub use drift::{Reconciled, recapture, reconcile, skipped};
pub use error::Error;
pub use examine::{Examined, LogRoom, examine};
pub use generation::{Generation, holds_rows, tables};
pub use install::{Installed, install};
pub use maintainer::Maintainer;
pub use options::{CaptureOptions, Images, Retention, SkippedTable};
pub use plan::{Plan, plan, would_skip};
pub use progress::{GivenTable, NOTHING_GIVEN, Progress, begin_at_head, note_position, note_progress, read_progress};
pub use prune::{PruneRequest, Pruned, is_large, prune};
pub use read_error::Error as ReadError;
pub use resync::request_copy;
pub use said::removed_lines;
pub use take_over::take_over;
pub use taken::{FIRST_CONSUMER, TAKEN_OVER, TakenEntry, claim_taken, forget_taken, read_taken};
pub use teardown::teardown;
