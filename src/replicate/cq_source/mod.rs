//! A SQLite database as a CloudQuery source, and the same words for a link to a CloudQuery destination.
//!
//! ```text
//!   catalog ── tables ──┬── sync:    pages of everything ──────────────────────▶ messages
//!                       └── changes: outflow (feed's windows, book of copies) ──▶ messages, then state
//!                                       rows · values
//! ```
//!
//! [`Sources`] is what the plugin server is given. A sync without `cdc` and without a state backend reads everything and
//! installs nothing; the other kind is a consumer of the change log like any other.
//!
//! Promised: a row is sent as it is, or the sync fails and names it (`on_type_mismatch`). A sync of changes that went
//! through and the ones before it leave a destination that replaces by key with what the tables held at its last read,
//! stale rows deleted or not ([`TableOptions::of_no_source`]).
//!
//! Not promised: that a sync of changes without a state backend is said again when the destination, not the source,
//! failed. Nobody tells a source how it ended; a client that keeps checkpoints in a backend needs not.

mod book;
mod changes;
mod outflow;
mod rows;
mod source;
mod state;
mod sync;
mod tables;
mod values;

pub use book::Book;
pub use outflow::{Outflow, OutflowOptions, OutflowStart, Outlet, Said};
pub use rows::RowRules;
pub use source::Sources;
pub use tables::TableOptions;
