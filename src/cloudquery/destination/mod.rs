//! The destination: what CloudQuery writes ends in a SQLite database.
//!
//! ```text
//!   Writer ── migrate ──▶ flush the table's rows ──▶ migrate: compare, then ALTER, rebuild, refuse or make anew
//!          ── insert ───▶ wait in a batch ─────────▶ insert: one transaction a batch
//!          ── delete ───▶ flush the tables' rows ──▶ delete: one transaction
//! ```
//!
//! A [`Destination`] is a handle to one database, whose connection lives on a thread of its own; a [`Writer`] is one
//! stream of messages into it. The server feeds both, with what peers sent; they may be used by several streams at once,
//! for a destination is also where sources keep their state.
//!
//! Promises:
//! * What a [`Writer::flush`] has returned `Ok` for is committed and synced. What it returned an error for names its
//!   table; rows that were waiting with it are dropped, and the next call starts afresh.
//! * Messages take effect in their order as far as anybody can tell: whatever looks at a table's rows (a migration, a
//!   deletion) has them all.
//! * A value is read as it was written, or refused with its column's name.
//! * Triggers fire, so whatever is captured in the database (ours is) sees these writes like any other.
//!
//! Keys: a record with a key's flag replaces rows, as INSERT OR REPLACE does. That resets columns which the record does
//! not have, and holds for every unique constraint; NULL equals nothing, so rows with a NULL in their key repeat.
//!
//! Not promised: that uniqueness flags are enforced. As in CloudQuery's own destination they make no constraint; only
//! keys do.

mod delete;
mod error;
mod insert;
mod instant;
mod migrate;
mod place;
mod read;
mod rebuild;
mod spec;
mod store;
mod writer;

pub use error::Error;
pub use place::Options;
pub use spec::{Count, Spec, Timeout};
pub use store::Destination;
pub use writer::Writer;
