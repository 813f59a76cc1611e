//! Makes the schema here what a peer's catalog says, as far as the link's rules allow.
//!
//! `check → pair → plan → execute`: every table's DDL is tried in a scratch database under an authorizer ([`check()`]);
//! it is found out which table here is which of the peer's; everything is planned, and refused, before anything is
//! changed; then it is done, inside the caller's open transaction, which the caller rolls back where this fails. The
//! apply stage feeds it at the beginning of a window that has a catalog, and writes rows by what comes out.
//!
//! Promises:
//! * In [`Mode::Forced`] every catalog that SQLite takes can be applied, and the tables end as the peer has them.
//! * In [`Mode::Safe`] nothing is dropped, and no definition changes but to hold more.
//! * What was made here on top (indexes, views, triggers, tables, columns that nothing needs) survives where what it
//!   names does; what could not is named in [`Outcome::notes`].
//! * A peer's text creates the one object that it is said to create, and uses no name but the peer's own.
//!
//! Not promised: that triggers of our own survive. Capture and protection make theirs anew in the same transaction,
//! wherever `PRAGMA schema_version` moved. The caller has `foreign_keys` and triggers switched off.

mod aside;
mod check;
mod error;
mod execute;
mod objects;
mod pair;
mod plan;
mod rebuild;
mod run;
mod said;
mod shape;
mod terms;
#[cfg(test)]
mod tests;

pub use check::{Wanted, check};
pub use error::{Error, RefusedChange};
pub use rebuild::under_legacy_rules;
pub use run::{apply_catalog, create_deferred_indexes};
pub use terms::{Catalog, Change, Held, Migrated, Mode, Outcome, Rules};
