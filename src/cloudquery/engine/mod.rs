//! The one-shot engine: what a YAML specification says is synced from its sources into its destinations, once.
//!
//! ```text
//!   spec ──▶ plugins (connect, start) ──▶ for each source, in the file's order:
//!
//!   source ──▶ decode ──▶ rewrite for each destination ──▶ its queue ──▶ destination
//!                                           (pure)           in order      all at once
//! ```
//!
//! Promises:
//! * a specification's faults are all told at once, and nothing is started before it has none;
//! * each destination gets a source's messages in the source's order; the slowest one sets the pace;
//! * where a source goes on next time is kept only when every destination has committed, if it says so by checkpoints;
//! * the first failure ends the sync and is told with its plugin, its table and its cause;
//! * plugins that were started here are stopped, however it ends.
//!
//! Not promised: a transaction around a sync. What a destination had committed before a failure stays.

mod checkpoints;
mod embedded;
mod error;
mod expand;
mod group;
mod outgoing;
mod pipeline;
mod plugins;
mod progress;
mod read;
mod rewrite;
mod run;
mod section;
mod spec;
mod stale;
mod summary;
mod summary_table;
mod yaml;

pub use embedded::{BoxError, Embedded, Running};
pub use error::{Error, SpecFault};
pub use progress::{Progress, Seen};
pub use read::{load, parse};
pub use rewrite::Rewriter;
pub use run::{Options, run};
pub use spec::{
    Backend, DestinationSpec, MigrateMode, PkMode, PluginSpec, Registry, Shard, SourceSpec, Spec, WriteMode,
};
pub use summary::{DestinationSummary, SourceSummary, Summary};
